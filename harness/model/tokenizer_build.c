/* SPDX-License-Identifier: Apache-2.0
 *
 * See tokenizer_internal.h: a tokenizer from an importer's description. GPT-2's vocabularies write
 * each byte as a printable character (space is U+0120), SentencePiece's write a space as U+2581;
 * tokens are turned back into bytes once, and everything after works on bytes and ids.
 */
#include <stdlib.h>
#include <string.h>

#include "model/tokenizer_internal.h"

static int oom(const struct nx_tok_desc *d, struct nx_err *err)
{
	return nx_fail(err, NX_ENOMEM, "%.200s: out of memory while loading the tokenizer",
	               d->path);
}

/* GPT-2's bytes_to_unicode backwards: the byte that code point cp stands for, or -1. */
static int byte_of_codepoint(uint32_t cp)
{
	if ((cp >= 33 && cp <= 126) || (cp >= 161 && cp <= 172) || (cp >= 174 && cp <= 255))
		return (int)cp;
	if (cp < 256 || cp >= 256 + 68)
		return -1;
	cp -= 256; /* the rest in order: 0..32, 127..160, 173 */
	return cp < 33 ? (int)cp : cp < 67 ? (int)cp + 94 : 173;
}

/* Writes the bytes that text stands for to out (at most len) and returns how many. Characters
 * outside the alphabet stand for themselves. */
static size_t from_alphabet(const char *text, size_t len, char *out)
{
	size_t m = 0;
	for (size_t i = 0; i < len;) {
		size_t n = nx_utf8_len(text + i, len - i);
		int b = n ? byte_of_codepoint(nx_utf8_code(text + i, n)) : -1;
		if (b >= 0) {
			out[m++] = (char)b;
			i += n;
			continue;
		}
		for (n = n ? n : 1; n; n--)
			out[m++] = text[i++];
	}
	return m;
}

static size_t from_marks(const char *text, size_t len, char *out)
{
	size_t m = 0;
	for (size_t i = 0; i < len;) {
		if (len - i >= 3 && memcmp(text + i, "\xe2\x96\x81", 3) == 0) {
			out[m++] = ' ';
			i += 3;
		} else {
			out[m++] = text[i++];
		}
	}
	return m;
}

size_t nx_tok_to_bytes(const struct nx_tok_desc *d, struct nx_span s, char *out)
{
	if (d->byte_level)
		return from_alphabet(s.s, s.len, out);
	if (d->steps.mark)
		return from_marks(s.s, s.len, out);
	memcpy(out, s.s, s.len);
	return s.len;
}

int nx_tok_byte_of(struct nx_span s)
{
	int v = 0;
	if (s.len != 6 || memcmp(s.s, "<0x", 3) != 0 || s.s[5] != '>')
		return -1;
	for (int i = 3; i < 5; i++) {
		const char c = s.s[i];
		const int digit = c >= '0' && c <= '9'   ? c - '0'
		                  : c >= 'A' && c <= 'F' ? c - 'A' + 10
		                                         : -1;
		if (digit < 0)
			return -1;
		v = 16 * v + digit;
	}
	return v;
}

/* A special token's text as the normalizer leaves it: what is looked for in normalised text, and what it
 * decodes to. Writes at most NORMALIZED_MAX(s.len) bytes. */
#define NORMALIZED_MAX(len) (3 * (len) + 1) /* NFC can grow a text threefold */

static int normalize_special(const struct nx_tok_desc *d, struct nx_span s, char *out, size_t *len,
                             struct nx_err *err)
{
	const bool space = d->steps.prepend;
	char *nfc = NULL;
	size_t n = s.len;
	if (d->steps.nfc && !nx_is_ascii(s.s, s.len)) {
		int rc = nx_nfc(s.s, s.len, &nfc, &n, err);
		if (rc)
			return rc;
	}
	if (space)
		out[0] = ' ';
	if (d->steps.mark_early)
		n = from_marks(nfc ? nfc : s.s, n, out + space);
	else
		memcpy(out + space, nfc ? nfc : s.s, n);
	free(nfc);
	*len = n + space;
	return 0;
}

static int alloc_vocab(struct nx_tokenizer *t, const struct nx_tok_desc *d, struct nx_err *err)
{
	size_t total = 0;
	for (size_t i = 0; i < d->n_tokens; i++) {
		const struct nx_tok_token *k = &d->tokens[i];
		total += (k->flags & NX_TOKEN_NORMALIZED ? NORMALIZED_MAX(k->text.len)
		                                         : k->text.len) +
		         1;
	}
	t->bytes = malloc(total);
	t->offsets = malloc((d->n_tokens + 1) * sizeof(*t->offsets));
	t->types = malloc(d->n_tokens);
	t->flags = malloc(d->n_tokens);
	if (!t->bytes || !t->offsets || !t->types || !t->flags)
		return oom(d, err);
	int rc = nx_strmap_init(&t->normal, d->n_tokens, err);
	return rc ? rc : nx_strmap_init(&t->special, d->n_tokens, err);
}

/* One token: its bytes to t->bytes + at, and into the map that finds it. */
static int add_token(struct nx_tokenizer *t, const struct nx_tok_desc *d, size_t i, size_t at,
                     size_t *len, struct nx_err *err)
{
	const struct nx_tok_token *k = &d->tokens[i];
	const bool special = nx_token_is_special(t, (int32_t)i);
	char *out = t->bytes + at;
	*len = k->text.len;
	if (*len == 0 && k->type != NX_TOKEN_BYTE)
		return 0;
	if (k->type == NX_TOKEN_BYTE && !d->byte_level) {
		const int b = nx_tok_byte_of(k->text);
		if (b < 0)
			return nx_fail(err, NX_EFORMAT,
			               "%.200s: %s: byte token %zu is not written as <0xNN>",
			               d->path, d->tokens_key, i);
		out[0] = (char)b;
		*len = 1;
		if (t->byte_ids[b] < 0)
			t->byte_ids[b] = (int32_t)i;
		return 0;
	}
	size_t skip = 0; /* a special token is found by its text without the space */
	int rc = 0;
	if (special && (k->flags & NX_TOKEN_NORMALIZED)) {
		rc = normalize_special(d, k->text, out, len, err);
		skip = d->steps.prepend;
	} else if (special) {
		memcpy(out, k->text.s, *len);
	} else {
		*len = nx_tok_to_bytes(d, k->text, out);
	}
	/* A space in the text is U+2581 by the time tokens are looked up: this one is never met. */
	if (rc || (!special && d->steps.mark && memchr(k->text.s, ' ', k->text.len)))
		return rc;
	/* Of two tokens with the same bytes the lower id is the one that encoding makes. */
	if (nx_strmap_put(special ? &t->special : &t->normal, out + skip, *len - skip, (uint32_t)i,
	                  NULL) < 0)
		return nx_fail(err, NX_EFORMAT,
		               "%.200s: %s: token %zu has %zu bytes, which is too long", d->path,
		               d->tokens_key, i, *len);
	return 0;
}

static int load_vocab(struct nx_tokenizer *t, const struct nx_tok_desc *d, struct nx_err *err)
{
	size_t at = 0;
	if (d->n_tokens < 1 || d->n_tokens > NX_TOK_VOCAB_MAX)
		return nx_fail(err, NX_EFORMAT, "%.200s: %s holds %zu tokens; legal: 1 to %d",
		               d->path, d->tokens_key, d->n_tokens, NX_TOK_VOCAB_MAX);
	int rc = alloc_vocab(t, d, err);
	if (rc)
		return rc;
	t->n_vocab = (int32_t)d->n_tokens;
	for (int b = 0; b < 256; b++)
		t->byte_ids[b] = -1;
	for (size_t i = 0; i < d->n_tokens; i++) {
		size_t len;
		t->types[i] = d->tokens[i].type;
		t->flags[i] = d->tokens[i].flags;
		t->offsets[i] = at;
		rc = add_token(t, d, i, at, &len, err);
		if (rc)
			return rc;
		at += len;
		t->bytes[at++] = '\0';
	}
	t->offsets[d->n_tokens] = at;
	for (int b = 0; b < 256 && d->byte_level; b++) {
		const char c = (char)b;
		uint32_t id;
		if (nx_strmap_get(&t->normal, &c, 1, &id))
			t->byte_ids[b] = (int32_t)id;
	}
	return 0;
}

/* --- Special tokens */

static int load_specials(struct nx_tokenizer *t, const struct nx_tok_desc *d, struct nx_err *err)
{
	size_t raw = 0, normalized = 0;
	for (size_t i = 0; i < d->n_tokens; i++) {
		const size_t len = t->offsets[i + 1] - t->offsets[i] - 1;
		if (!nx_token_is_special(t, (int32_t)i))
			continue;
		if (len > NX_TOK_SPECIAL_BYTES_MAX)
			return nx_fail(
				err, NX_EFORMAT,
				"%.200s: %s: special token %zu has %zu bytes; legal: at most %d",
				d->path, d->tokens_key, i, len, NX_TOK_SPECIAL_BYTES_MAX);
		if (t->flags[i] & NX_TOKEN_NORMALIZED)
			normalized += len;
		else
			raw += len;
	}
	int rc = nx_trie_init(&t->raw, raw, err);
	if (!rc)
		rc = nx_trie_init(&t->normalized, normalized, err);
	for (size_t i = 0; i < d->n_tokens && !rc; i++) {
		const size_t len = t->offsets[i + 1] - t->offsets[i] - 1;
		if (nx_token_is_special(t, (int32_t)i) && len)
			nx_trie_add(t->flags[i] & NX_TOKEN_NORMALIZED ? &t->normalized : &t->raw,
			            t->bytes + t->offsets[i], len, (int32_t)i);
	}
	return rc;
}

/* --- Ids */

static int32_t special_id(const struct nx_tokenizer *t, const char *text)
{
	uint32_t id;
	return nx_strmap_get(&t->special, text, strlen(text), &id) ? (int32_t)id : -1;
}

static void add_eog(struct nx_tokenizer *t, int32_t id)
{
	if (id >= 0 && !nx_tokenizer_is_eog(t, id))
		t->eog[t->n_eog++] = id; /* at most NX_TOK_EOG_MAX and five others */
}

static void load_ids(struct nx_tokenizer *t, const struct nx_tok_desc *d)
{
	t->unk = d->unk;
	t->bos = d->bos;
	t->eos = d->eos;
	t->eot = d->eot;
	if (t->eot < 0)
		t->eot = special_id(t, "<|im_end|>");
	if (t->eot < 0)
		t->eot = special_id(t, "<|eot_id|>");
	add_eog(t, t->eos);
	add_eog(t, t->eot);
	for (int i = 0; i < d->n_eog; i++)
		add_eog(t, d->eog[i]);
	add_eog(t, special_id(t, "<|endoftext|>"));
	add_eog(t, special_id(t, "<|end_of_text|>"));
	add_eog(t, special_id(t, "<|eom_id|>"));
	t->add_bos = d->add_bos && t->bos >= 0;
}

static int load_template(struct nx_tokenizer *t, const struct nx_tok_desc *d, struct nx_err *err)
{
	if (d->chat_template.s) {
		t->chat_template = malloc(d->chat_template.len + 1);
		if (!t->chat_template)
			return oom(d, err);
		memcpy(t->chat_template, d->chat_template.s, d->chat_template.len);
		t->chat_template[d->chat_template.len] = '\0';
	}
	return nx_chat_detect(t, err);
}

int nx_tok_build(struct nx_tokenizer **out, struct nx_tok_desc *d, struct nx_err *err)
{
	struct nx_tokenizer *t = calloc(1, sizeof(*t));
	if (!t)
		return oom(d, err);
	t->pre = d->pre;
	d->pre = NULL;
	t->steps = d->steps;
	t->byte_level = d->byte_level;
	t->ignore_merges = d->ignore_merges;
	t->fuse_unk = d->fuse_unk;
	int rc = load_vocab(t, d, err);
	if (!rc)
		rc = load_specials(t, d, err);
	if (!rc)
		rc = nx_tok_load_merges(t, d, err);
	if (!rc) {
		load_ids(t, d);
		rc = load_template(t, d, err);
	}
	if (rc) {
		nx_tokenizer_destroy(t);
		return rc;
	}
	*out = t;
	return 0;
}

void nx_tok_desc_release(struct nx_tok_desc *d)
{
	nx_pretok_destroy(d->pre);
	d->pre = NULL;
	nx_arena_release(&d->arena);
}
