/* SPDX-License-Identifier: Apache-2.0
 *
 * See tokenizer.h: encoding and decoding. Text is cut at special tokens, then at invalid bytes,
 * then by the pre-tokenizer, and each piece is merged on its own.
 */
#include <stdlib.h>
#include <string.h>

#include "model/tokenizer_internal.h"

struct encoder {
	const struct nx_tokenizer *t;
	const char *text; /* whole text, for offsets in sentences */
	int32_t *ids;
	size_t n, cap;
	struct nx_bpe_scratch scratch;
};

static int reserve(struct encoder *e, size_t more, struct nx_err *err)
{
	if (more <= e->cap - e->n)
		return 0;
	size_t cap = e->cap + e->cap / 2 + more;
	int32_t *ids = cap <= SIZE_MAX / sizeof(*ids) ? realloc(e->ids, cap * sizeof(*ids)) : NULL;
	if (!ids)
		return nx_fail(err, NX_ENOMEM, "out of memory while tokenizing");
	e->ids = ids;
	e->cap = cap;
	return 0;
}

static int put_id(struct encoder *e, int32_t id, struct nx_err *err)
{
	int rc = reserve(e, 1, err);
	if (!rc)
		e->ids[e->n++] = id;
	return rc;
}

/* The ids of a piece's bytes go to the end of e->ids and are merged there. */
static int encode_piece(void *ud, const char *piece, size_t len, struct nx_err *err)
{
	struct encoder *e = ud;
	uint32_t whole;
	if (nx_pretok_ignore_merges(e->t->pre) && nx_strmap_get(&e->t->normal, piece, len, &whole))
		return put_id(e, (int32_t)whole, err);
	int rc = reserve(e, len, err);
	if (rc)
		return rc;
	int32_t *ids = e->ids + e->n;
	for (size_t i = 0; i < len; i++) {
		const unsigned char b = (unsigned char)piece[i];
		ids[i] = e->t->byte_ids[b];
		if (ids[i] < 0)
			return nx_fail(
				err, NX_EINVAL,
				"byte 0x%02x at offset %zu of the text has no token in this vocabulary",
				b, (size_t)(piece - e->text) + i);
	}
	size_t n = len;
	rc = nx_bpe_merge(&e->t->bpe, &e->scratch, ids, &n, err);
	if (!rc)
		e->n += n;
	return rc;
}

/* Text without special tokens: stretches of valid UTF-8 are split and merged, other bytes stand alone. */
static int encode_plain(struct encoder *e, const char *text, size_t len, struct nx_err *err)
{
	size_t start = 0, i = 0;
	int rc = 0;
	while (i < len && !rc) {
		size_t n = nx_utf8_len(text + i, len - i);
		if (n) {
			i += n;
			continue;
		}
		rc = nx_pretok_split(e->t->pre, text + start, i - start, encode_piece, e, err);
		if (!rc)
			rc = encode_piece(e, text + i, 1, err);
		start = ++i;
	}
	return rc ? rc
	          : nx_pretok_split(e->t->pre, text + start, len - start, encode_piece, e, err);
}

/* The longest special token that starts at text, or -1. */
static int32_t special_at(const struct nx_tokenizer *t, const char *text, size_t len,
                          unsigned flags)
{
	const unsigned char b = (unsigned char)text[0];
	for (int32_t i = t->special_at[b]; i < t->special_at[b + 1]; i++) {
		const int32_t id = t->specials[i];
		size_t n;
		const char *piece = nx_tokenizer_piece(t, id, &n);
		if (t->types[id] != NX_TOKEN_USER && !(flags & NX_TOK_PARSE_SPECIAL))
			continue;
		if (n <= len && memcmp(piece, text, n) == 0)
			return id;
	}
	return -1;
}

int nx_tokenizer_encode(const struct nx_tokenizer *t, const char *text, size_t len, unsigned flags,
                        int32_t **ids_out, size_t *n_out, struct nx_err *err)
{
	struct encoder e = {.t = t, .text = text};
	size_t start = 0, i = 0;
	int rc = 0;
	if (flags & ~(unsigned)(NX_TOK_PARSE_SPECIAL | NX_TOK_ADD_BOS))
		return nx_fail(
			err, NX_EINVAL,
			"tokenizer flags are 0x%x; legal: NX_TOK_PARSE_SPECIAL and NX_TOK_ADD_BOS",
			flags);
	rc = reserve(&e, len / 3 + 8, err);
	if (!rc && (flags & NX_TOK_ADD_BOS) && t->add_bos)
		rc = put_id(&e, t->bos, err);
	while (i < len && !rc) {
		const int32_t id = special_at(t, text + i, len - i, flags);
		if (id < 0) {
			i++;
			continue;
		}
		size_t n;
		(void)nx_tokenizer_piece(t, id, &n);
		rc = encode_plain(&e, text + start, i - start, err);
		if (!rc)
			rc = put_id(&e, id, err);
		i += n;
		start = i;
	}
	if (!rc && start < len)
		rc = encode_plain(&e, text + start, len - start, err);
	nx_bpe_scratch_release(&e.scratch);
	if (rc) {
		free(e.ids);
		return rc;
	}
	*ids_out = e.ids;
	*n_out = e.n;
	return 0;
}

int nx_tokenizer_decode(const struct nx_tokenizer *t, const int32_t *ids, size_t n, char **out,
                        size_t *len_out, struct nx_err *err)
{
	size_t total = 0, len;
	for (size_t i = 0; i < n; i++) {
		if (!nx_tokenizer_piece(t, ids[i], &len))
			return nx_fail(err, NX_EINVAL, "token %zu is %d; legal: 0 to %d", i, ids[i],
			               t->n_vocab - 1);
		if (len > SIZE_MAX - 1 - total)
			return nx_fail(err, NX_ENOMEM, "out of memory while decoding %zu tokens",
			               n);
		total += len;
	}
	char *s = malloc(total + 1);
	if (!s)
		return nx_fail(err, NX_ENOMEM, "out of memory while decoding %zu tokens", n);
	size_t at = 0;
	for (size_t i = 0; i < n; i++) {
		const char *piece = nx_tokenizer_piece(t, ids[i], &len);
		memcpy(s + at, piece, len);
		at += len;
	}
	s[at] = '\0';
	*out = s;
	*len_out = at;
	return 0;
}
