/* SPDX-License-Identifier: Apache-2.0
 *
 * See tokenizer.h: encoding and decoding. In Hugging Face's order: text is cut at the special
 * tokens that are looked for in it as it is; what is left is normalised (in stretches of valid
 * UTF-8) and cut at the other special tokens; then comes the pre-tokenizer, and each piece is
 * merged on its own.
 */
#include <stdlib.h>
#include <string.h>

#include "model/tokenizer_internal.h"

struct encoder {
	const struct nx_tokenizer *t;
	const char *text; /* whole text, for offsets in sentences */
	unsigned flags;
	bool at_start;       /* the stretch in work starts the text */
	const char *stretch; /* where it starts, normalised */
	const char *source;  /* where it starts in the text */
	bool copied;         /* pieces are no longer in the text itself */
	int32_t *ids;
	size_t n, cap;
	struct nx_bpe_scratch scratch;
};

typedef int stretch_fn(struct encoder *e, const char *s, size_t len, struct nx_err *err);

static int oom(struct nx_err *err)
{
	return nx_fail(err, NX_ENOMEM, "out of memory while tokenizing");
}

static int reserve(struct encoder *e, size_t more, struct nx_err *err)
{
	if (more <= e->cap - e->n)
		return 0;
	size_t cap = e->cap + e->cap / 2 + more;
	int32_t *ids = cap <= SIZE_MAX / sizeof(*ids) ? realloc(e->ids, cap * sizeof(*ids)) : NULL;
	if (!ids)
		return oom(err);
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

/* --- Pieces */

static int no_token(const struct encoder *e, const char *s, unsigned char b, struct nx_err *err)
{
	return nx_fail(err, NX_EINVAL,
	               "byte 0x%02x at offset %zu%s of the text has no token in this vocabulary", b,
	               (size_t)((e->copied ? e->source : s) - e->text),
	               e->copied ? " or after" : "");
}

/* The ids of the bytes of s, or the unknown token; returns how many, or a negative code. */
static int bytes_to_ids(const struct encoder *e, const char *s, size_t len, int32_t *ids,
                        struct nx_err *err)
{
	for (size_t i = 0; i < len; i++) {
		ids[i] = e->t->byte_ids[(unsigned char)s[i]];
		if (ids[i] >= 0)
			continue;
		if (e->t->unk < 0)
			return no_token(e, s + i, (unsigned char)s[i], err);
		ids[0] = e->t->unk;
		return 1;
	}
	return (int)len;
}

/* The symbols that merging starts from: *n of them at ids, which has room for len. */
static int symbols(const struct encoder *e, const char *piece, size_t len, int32_t *ids, size_t *n,
                   struct nx_err *err)
{
	const struct nx_tokenizer *t = e->t;
	bool was_unk = false;
	*n = 0;
	for (size_t i = 0, size; i < len; i += size) {
		uint32_t id;
		size = t->byte_level ? 1 : nx_utf8_len(piece + i, len - i);
		size = size ? size : 1;
		if (!t->byte_level && nx_strmap_get(&t->normal, piece + i, size, &id)) {
			ids[(*n)++] = (int32_t)id;
			was_unk = false;
			continue;
		}
		const int got = bytes_to_ids(e, piece + i, size, ids + *n, err);
		if (got < 0)
			return got;
		const bool unk = ids[*n] == t->unk;
		if (!(unk && was_unk && t->fuse_unk))
			*n += (size_t)got;
		was_unk = unk;
	}
	return 0;
}

/* The symbols go to the end of e->ids and are merged there. */
static int encode_piece(void *ud, const char *piece, size_t len, struct nx_err *err)
{
	struct encoder *e = ud;
	uint32_t whole;
	size_t n;
	if (e->t->ignore_merges && nx_strmap_get(&e->t->normal, piece, len, &whole))
		return put_id(e, (int32_t)whole, err);
	int rc = reserve(e, len, err);
	if (!rc)
		rc = symbols(e, piece, len, e->ids + e->n, &n, err);
	if (!rc)
		rc = nx_bpe_merge(&e->t->bpe, &e->scratch, e->ids + e->n, &n, err);
	if (!rc)
		e->n += n;
	return rc;
}

/* --- Special tokens */

/* The longest special token that starts at s, or -1. */
static int32_t special_at(const struct encoder *e, const struct nx_trie *trie, const char *s,
                          size_t len, size_t *n)
{
	int32_t found = -1;
	uint32_t node = 0;
	for (size_t i = 0; i < len; i++) {
		node = nx_trie_step(trie, node, (unsigned char)s[i]);
		if (!node)
			break;
		const int32_t id = trie->ids[node];
		if (id < 0 ||
		    (e->t->types[id] != NX_TOKEN_USER && !(e->flags & NX_TOK_PARSE_SPECIAL)))
			continue;
		found = id;
		*n = i + 1;
	}
	return found;
}

static bool word_before(const char *s, size_t at)
{
	const size_t n = at ? nx_utf8_last(s, at) : 0;
	return n && nx_utf8_len(s + at - n, n) == n && nx_is_word(nx_utf8_code(s + at - n, n));
}

static bool word_after(const char *s, size_t len)
{
	const size_t n = nx_utf8_len(s, len);
	return n && nx_is_word(nx_utf8_code(s, n));
}

static size_t skip_space_back(const char *s, size_t at)
{
	while (at) {
		const size_t n = nx_utf8_last(s, at);
		if (nx_utf8_len(s + at - n, n) != n || !nx_is_space(nx_utf8_code(s + at - n, n)))
			break;
		at -= n;
	}
	return at;
}

static size_t skip_space(const char *s, size_t at, size_t len)
{
	for (size_t n; at < len; at += n) {
		n = nx_utf8_len(s + at, len - at);
		if (!n || !nx_is_space(nx_utf8_code(s + at, n)))
			break;
	}
	return at;
}

/* Cuts s at the trie's tokens; rest encodes what is between them. */
static int cut_specials(struct encoder *e, const struct nx_trie *trie, const char *s, size_t len,
                        stretch_fn *rest, struct nx_err *err)
{
	size_t done = 0, i = 0;
	int rc = 0;
	while (i < len && !rc) {
		size_t n = 1;
		const int32_t id = trie->first[(unsigned char)s[i]]
		                           ? special_at(e, trie, s + i, len - i, &n)
		                           : -1;
		size_t from = i, to = i + n;
		i += n;
		if (id < 0)
			continue;
		const unsigned flags = e->t->flags[id];
		if ((flags & NX_TOKEN_SINGLE_WORD) &&
		    (word_before(s, from) || word_after(s + to, len - to)))
			continue;
		if (flags & NX_TOKEN_LSTRIP)
			from = skip_space_back(s, from);
		if (flags & NX_TOKEN_RSTRIP)
			to = skip_space(s, to, len);
		if (done < from)
			rc = rest(e, s + done, from - done, err);
		if (!rc)
			rc = put_id(e, id, err);
		done = to;
	}
	return !rc && done < len ? rest(e, s + done, len - done, err) : rc;
}

/* --- Stretches */

static bool wants_prefix(const struct encoder *e, const char *s, size_t len)
{
	const bool start = e->at_start && s == e->stretch;
	if (e->t->steps.prefix == NX_PREFIX_NONE ||
	    (e->t->steps.prefix == NX_PREFIX_FIRST && !start) ||
	    (start && (e->flags & NX_TOK_CONTINUES)))
		return false;
	return len == 0 || s[0] != ' ';
}

/* A copy with U+2581 as a space and perhaps a space in front: *out is the caller's, to be released. */
static int mark_spaces(const char *s, size_t len, bool replace, bool prefix, char **out,
                       size_t *len_out, struct nx_err *err)
{
	char *p = malloc(len + 2);
	size_t n = 0;
	if (!p)
		return oom(err);
	if (prefix)
		p[n++] = ' ';
	for (size_t i = 0; i < len; i++) {
		p[n++] = s[i];
		if (replace && s[i] == '\xe2' && len - i >= 3 && s[i + 1] == '\x96' &&
		    s[i + 2] == '\x81') {
			p[n - 1] = ' ';
			i += 2;
		}
	}
	*out = p;
	*len_out = n;
	return 0;
}

static bool has_mark(const char *s, size_t len)
{
	for (const char *p = s; (p = memchr(p, 0xe2, len - (size_t)(p - s))) != NULL; p++)
		if (len - (size_t)(p - s) >= 3 && p[1] == '\x96' && p[2] == '\x81')
			return true;
	return false;
}

/* The pre-tokenizer's part: spaces, splitting, merging. */
static int encode_pieces(struct encoder *e, const char *s, size_t len, struct nx_err *err)
{
	const bool replace = e->t->steps.mark && !e->t->steps.mark_early && has_mark(s, len);
	char *copy = NULL;
	const char *marked = s;
	size_t n = len;
	int rc = 0;
	/* Metaspace looks for its space after replacing: a U+2581 in front is one already. */
	const bool mark_first = replace && len >= 3 && memcmp(s, "\xe2\x96\x81", 3) == 0;
	const bool prefix = !mark_first && wants_prefix(e, s, len);
	const bool was_copied = e->copied;
	if (replace || prefix) {
		rc = mark_spaces(s, len, replace, prefix, &copy, &n, err);
		marked = copy;
		e->copied = true;
	}
	if (!rc)
		rc = nx_pretok_split(e->t->pre, marked, n, encode_piece, e, err);
	e->copied = was_copied;
	free(copy);
	return rc;
}

/* The normalizer's part. len is 0 where broken UTF-8 follows a place that wants a space. */
static int encode_valid(struct encoder *e, const char *s, size_t len, bool first,
                        struct nx_err *err)
{
	const struct nx_tok_steps *steps = &e->t->steps;
	const bool start = first && s == e->text;
	const bool prepend = steps->prepend && first && !(start && (e->flags & NX_TOK_CONTINUES));
	char *nfc = NULL, *marked = NULL;
	const char *now = s;
	int rc = 0;
	e->source = s;
	if (steps->nfc && !nx_is_ascii(s, len)) {
		rc = nx_nfc(s, len, &nfc, &len, err);
		if (rc)
			return rc;
		now = nfc;
	}
	if (prepend || (steps->mark_early && has_mark(now, len))) {
		rc = mark_spaces(now, len, steps->mark_early, prepend, &marked, &len, err);
		now = marked;
	}
	e->at_start = start;
	e->stretch = now;
	e->copied = now != s;
	if (rc)
		;
	else if (len == 0)
		rc = encode_pieces(e, now, 0, err);
	else if (e->t->normalized.n_nodes > 1)
		rc = cut_specials(e, &e->t->normalized, now, len, encode_pieces, err);
	else
		rc = encode_pieces(e, now, len, err);
	free(marked);
	free(nfc);
	e->at_start = e->copied = false;
	return rc;
}

/* Text without special tokens: stretches of valid UTF-8 are normalised, split and merged, other bytes
 * stand alone. */
static int encode_plain(struct encoder *e, const char *text, size_t len, struct nx_err *err)
{
	const bool spaces = e->t->steps.prepend || e->t->steps.prefix != NX_PREFIX_NONE;
	size_t start = 0, i = 0;
	int rc = 0;
	while (i < len && !rc) {
		size_t n = nx_utf8_len(text + i, len - i);
		if (n) {
			i += n;
			continue;
		}
		if (i > start || (start == 0 && spaces))
			rc = encode_valid(e, text + start, i - start, start == 0, err);
		if (!rc)
			rc = encode_piece(e, text + i, 1, err);
		start = ++i;
	}
	return rc || start == len ? rc
	                          : encode_valid(e, text + start, len - start, start == 0, err);
}

int nx_tokenizer_encode(const struct nx_tokenizer *t, const char *text, size_t len, unsigned flags,
                        int32_t **ids_out, size_t *n_out, struct nx_err *err)
{
	struct encoder e = {.t = t, .text = text, .flags = flags};
	if (flags & ~(unsigned)(NX_TOK_PARSE_SPECIAL | NX_TOK_ADD_BOS | NX_TOK_CONTINUES))
		return nx_fail(
			err, NX_EINVAL,
			"tokenizer flags are 0x%x; legal: NX_TOK_PARSE_SPECIAL, NX_TOK_ADD_BOS and NX_TOK_CONTINUES",
			flags);
	int rc = reserve(&e, len / 3 + 8, err);
	const bool bos = (flags & NX_TOK_ADD_BOS) && t->add_bos;
	if (!rc && bos)
		rc = put_id(&e, t->bos, err);
	if (!rc)
		rc = cut_specials(&e, &t->raw, text, len, encode_plain, err);
	nx_bpe_scratch_release(&e.scratch);
	if (rc) {
		free(e.ids);
		return rc;
	}
	/* A chat template that writes BOS has done it already. */
	if (bos && e.n > 1 && e.ids[1] == t->bos && (flags & NX_TOK_PARSE_SPECIAL))
		memmove(e.ids, e.ids + 1, --e.n * sizeof(*e.ids));
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
	if (t->steps.strip && at && s[0] == ' ')
		memmove(s, s + 1, --at);
	s[at] = '\0';
	*out = s;
	*len_out = at;
	return 0;
}
