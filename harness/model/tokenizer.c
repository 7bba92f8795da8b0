/* SPDX-License-Identifier: Apache-2.0
 *
 * See tokenizer.h: loading and the getters. GPT-2's vocabularies write each byte as a printable
 * character (space is U+0120); here tokens are turned back into bytes once, and everything after
 * works on bytes and ids.
 */
#include <stdlib.h>
#include <string.h>

#include "model/gguf.h"
#include "model/tokenizer_internal.h"

#define MAX_VOCAB (1 << 22)

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

static uint32_t codepoint(const char *s, size_t n)
{
	const unsigned char *u = (const unsigned char *)s;
	switch (n) {
	case 1: return u[0];
	case 2: return (u[0] & 0x1fu) << 6 | (u[1] & 0x3fu);
	case 3: return (u[0] & 0x0fu) << 12 | (u[1] & 0x3fu) << 6 | (u[2] & 0x3fu);
	default:
		return (u[0] & 0x07u) << 18 | (u[1] & 0x3fu) << 12 | (u[2] & 0x3fu) << 6 |
		       (u[3] & 0x3fu);
	}
}

/* Writes the bytes that text stands for to out (at most len) and returns how many. Characters
 * outside the alphabet stand for themselves. */
static size_t to_bytes(const char *text, size_t len, char *out)
{
	size_t m = 0;
	for (size_t i = 0; i < len;) {
		size_t n = nx_utf8_len(text + i, len - i);
		int b = n ? byte_of_codepoint(codepoint(text + i, n)) : -1;
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

static int oom(struct nx_err *err)
{
	return nx_fail(err, NX_ENOMEM, "out of memory while loading the tokenizer");
}

static int load_vocab(struct nx_tokenizer *t, const struct nx_gguf *g, struct nx_err *err)
{
	struct nx_gguf_array toks, types = {.n = 0};
	int rc = nx_gguf_get_array(g, "tokenizer.ggml.tokens", NX_GGUF_V_STRING, &toks, err);
	if (rc < 0)
		return rc;
	if (rc == 0)
		return nx_fail(err, NX_EFORMAT, "%.200s: key tokenizer.ggml.tokens is missing",
		               nx_gguf_path(g));
	if (toks.n < 1 || toks.n > MAX_VOCAB)
		return nx_fail(
			err, NX_EFORMAT,
			"%.200s: key tokenizer.ggml.tokens holds %llu tokens; legal: 1 to %d",
			nx_gguf_path(g), (unsigned long long)toks.n, MAX_VOCAB);
	rc = nx_gguf_get_array(g, "tokenizer.ggml.token_type", NX_GGUF_V_I32, &types, err);
	if (rc < 0)
		return rc;
	if (rc == 1 && types.n != toks.n)
		return nx_fail(
			err, NX_EFORMAT,
			"%.200s: key tokenizer.ggml.token_type holds %llu types; legal: %llu, one a token",
			nx_gguf_path(g), (unsigned long long)types.n, (unsigned long long)toks.n);
	const size_t n = (size_t)toks.n;
	size_t total = 0;
	for (size_t i = 0; i < n; i++)
		total += toks.strs[i].len + 1;
	t->n_vocab = (int32_t)n;
	t->bytes = malloc(total);
	t->offsets = malloc((n + 1) * sizeof(*t->offsets));
	t->types = malloc(n);
	t->specials = malloc(n * sizeof(*t->specials));
	if (!t->bytes || !t->offsets || !t->types || !t->specials)
		return oom(err);
	rc = nx_strmap_init(&t->normal, n, err);
	if (!rc)
		rc = nx_strmap_init(&t->special, n, err);
	if (rc)
		return rc;
	size_t at = 0;
	for (size_t i = 0; i < n; i++) {
		const struct nx_gguf_str s = toks.strs[i];
		const int32_t type = types.n ? nx_gguf_array_i32(&types, i) : NX_TOKEN_NORMAL;
		if (type < NX_TOKEN_NORMAL || type > NX_TOKEN_BYTE)
			return nx_fail(
				err, NX_EFORMAT,
				"%.200s: key tokenizer.ggml.token_type: token %zu has type %d; legal: 1 to 6",
				nx_gguf_path(g), i, type);
		t->types[i] = (uint8_t)type;
		t->offsets[i] = at;
		const bool special = nx_token_is_special(t, (int32_t)i);
		size_t len = s.len;
		if (special)
			memcpy(t->bytes + at, s.s, len);
		else
			len = to_bytes(s.s, s.len, t->bytes + at);
		/* Of two tokens with the same bytes the lower id is the one that encoding makes. */
		if (len && nx_strmap_put(special ? &t->special : &t->normal, t->bytes + at, len,
		                         (uint32_t)i, NULL) < 0)
			return nx_fail(err, NX_EFORMAT,
			               "%.200s: token %zu has %zu bytes, which is too long",
			               nx_gguf_path(g), i, len);
		at += len;
		t->bytes[at++] = '\0';
	}
	t->offsets[n] = at;
	for (int b = 0; b < 256; b++) {
		const char c = (char)b;
		uint32_t id;
		t->byte_ids[b] = nx_strmap_get(&t->normal, &c, 1, &id) ? (int32_t)id : -1;
	}
	return 0;
}

static size_t token_len(const struct nx_tokenizer *t, int32_t id)
{
	return t->offsets[id + 1] - t->offsets[id] - 1;
}

struct special_key {
	unsigned char first;
	size_t len;
	int32_t id;
};

static int by_first_then_longest(const void *a, const void *b)
{
	const struct special_key *x = a, *y = b;
	if (x->first != y->first)
		return x->first - y->first;
	if (x->len != y->len)
		return x->len > y->len ? -1 : 1;
	return x->id - y->id;
}

static int sort_specials(struct nx_tokenizer *t, struct nx_err *err)
{
	struct special_key *keys = malloc((size_t)t->n_vocab * sizeof(*keys));
	int32_t n = 0;
	if (!keys)
		return oom(err);
	for (int32_t id = 0; id < t->n_vocab; id++)
		if (nx_token_is_special(t, id) && token_len(t, id))
			keys[n++] = (struct special_key){(unsigned char)t->bytes[t->offsets[id]],
			                                 token_len(t, id), id};
	qsort(keys, (size_t)n, sizeof(*keys), by_first_then_longest);
	for (int32_t i = 0, b = 0; b <= 256; b++) {
		while (i < n && keys[i].first < b)
			i++;
		t->special_at[b] = i;
	}
	for (int32_t i = 0; i < n; i++)
		t->specials[i] = keys[i].id;
	free(keys);
	return 0;
}

static int load_merge(struct nx_tokenizer *t, const struct nx_gguf *g, const struct nx_gguf_str *m,
                      uint64_t i, char *buf, struct nx_err *err)
{
	/* A merge is "left right"; a space inside a token is written as another character. */
	const char *space = m->len > 2 ? memchr(m->s + 1, ' ', m->len - 1) : NULL;
	uint32_t left, right, merged;
	if (!space || space + 1 == m->s + m->len)
		return nx_fail(
			err, NX_EFORMAT,
			"%.200s: key tokenizer.ggml.merges: merge %llu is not two tokens with a space between",
			nx_gguf_path(g), (unsigned long long)i);
	const size_t nl = to_bytes(m->s, (size_t)(space - m->s), buf);
	const size_t nr = to_bytes(space + 1, m->len - (size_t)(space - m->s) - 1, buf + nl);
	if (!nx_strmap_get(&t->normal, buf, nl, &left) ||
	    !nx_strmap_get(&t->normal, buf + nl, nr, &right) ||
	    !nx_strmap_get(&t->normal, buf, nl + nr, &merged))
		return nx_fail(
			err, NX_EFORMAT,
			"%.200s: key tokenizer.ggml.merges: merge %llu names a token that is not in the vocabulary",
			nx_gguf_path(g), (unsigned long long)i);
	nx_bpe_add(&t->bpe, (int32_t)left, (int32_t)right, (uint32_t)i, (int32_t)merged);
	return 0;
}

static int load_merges(struct nx_tokenizer *t, const struct nx_gguf *g, struct nx_err *err)
{
	struct nx_gguf_array merges = {.n = 0};
	size_t longest = 0;
	int rc = nx_gguf_get_array(g, "tokenizer.ggml.merges", NX_GGUF_V_STRING, &merges, err);
	if (rc < 0)
		return rc;
	if (rc == 0)
		return nx_fail(err, NX_EFORMAT, "%.200s: key tokenizer.ggml.merges is missing",
		               nx_gguf_path(g));
	if (merges.n > MAX_VOCAB)
		return nx_fail(
			err, NX_EFORMAT,
			"%.200s: key tokenizer.ggml.merges holds %llu merges; legal: at most %d",
			nx_gguf_path(g), (unsigned long long)merges.n, MAX_VOCAB);
	rc = nx_bpe_init(&t->bpe, (size_t)merges.n, err);
	if (rc)
		return rc;
	for (uint64_t i = 0; i < merges.n; i++)
		longest = merges.strs[i].len > longest ? merges.strs[i].len : longest;
	char *buf = malloc(longest + 1);
	if (!buf)
		return oom(err);
	for (uint64_t i = 0; i < merges.n && !rc; i++)
		rc = load_merge(t, g, &merges.strs[i], i, buf, err);
	free(buf);
	return rc;
}

static int load_id(const struct nx_tokenizer *t, const struct nx_gguf *g, const char *key,
                   int32_t *out, struct nx_err *err)
{
	uint32_t id;
	int rc = nx_gguf_get_u32(g, key, &id, err);
	if (rc < 0)
		return rc;
	if (rc == 0)
		return 0;
	if (id >= (uint32_t)t->n_vocab)
		return nx_fail(err, NX_EFORMAT, "%.200s: key %s is %u; legal: 0 to %d",
		               nx_gguf_path(g), key, id, t->n_vocab - 1);
	*out = (int32_t)id;
	return 0;
}

static int32_t special_id(const struct nx_tokenizer *t, const char *text)
{
	uint32_t id;
	return nx_strmap_get(&t->special, text, strlen(text), &id) ? (int32_t)id : -1;
}

static void add_eog(struct nx_tokenizer *t, int32_t id)
{
	if (id >= 0 && !nx_tokenizer_is_eog(t, id))
		t->eog[t->n_eog++] = id; /* called at most five times */
}

static int load_ids(struct nx_tokenizer *t, const struct nx_gguf *g, struct nx_err *err)
{
	t->bos = t->eos = t->eot = -1;
	int rc = load_id(t, g, "tokenizer.ggml.bos_token_id", &t->bos, err);
	if (!rc)
		rc = load_id(t, g, "tokenizer.ggml.eos_token_id", &t->eos, err);
	if (!rc)
		rc = load_id(t, g, "tokenizer.ggml.eot_token_id", &t->eot, err);
	if (rc)
		return rc;
	if (t->eot < 0)
		t->eot = special_id(t, "<|im_end|>");
	if (t->eot < 0)
		t->eot = special_id(t, "<|eot_id|>");
	add_eog(t, t->eos);
	add_eog(t, t->eot);
	add_eog(t, special_id(t, "<|endoftext|>"));
	add_eog(t, special_id(t, "<|end_of_text|>"));
	add_eog(t, special_id(t, "<|eom_id|>"));
	t->add_bos = nx_pretok_add_bos(t->pre);
	rc = nx_gguf_get_bool(g, "tokenizer.ggml.add_bos_token", &t->add_bos, err);
	if (rc < 0)
		return rc;
	if (t->bos < 0)
		t->add_bos = false;
	return 0;
}

static int load_pre(struct nx_tokenizer *t, const struct nx_gguf *g, struct nx_err *err)
{
	struct nx_gguf_str model, pre;
	int rc = nx_gguf_get_str(g, "tokenizer.ggml.model", &model, err);
	if (rc < 0)
		return rc;
	if (rc == 0)
		return nx_fail(err, NX_EFORMAT,
		               "%.200s: key tokenizer.ggml.model is missing; legal: gpt2",
		               nx_gguf_path(g));
	if (model.len != 4 || memcmp(model.s, "gpt2", 4) != 0) {
		char shown[33];
		size_t n = model.len < sizeof(shown) - 1 ? model.len : sizeof(shown) - 1;
		for (size_t i = 0; i < n; i++)
			shown[i] = model.s[i] >= 0x20 && model.s[i] < 0x7f ? model.s[i] : '?';
		shown[n] = '\0';
		return nx_fail(
			err, NX_ENOTSUP,
			"%.200s: key tokenizer.ggml.model: tokenizer \"%s\" is not supported; legal: gpt2 (byte-level BPE)",
			nx_gguf_path(g), shown);
	}
	rc = nx_gguf_get_str(g, "tokenizer.ggml.pre", &pre, err);
	if (rc < 0)
		return rc;
	if (rc == 0)
		pre = (struct nx_gguf_str){"default", 7};
	return nx_pretok_create(&t->pre, pre.s, pre.len, err);
}

static int load_template(struct nx_tokenizer *t, const struct nx_gguf *g, struct nx_err *err)
{
	struct nx_gguf_str s;
	int rc = nx_gguf_get_str(g, "tokenizer.chat_template", &s, err);
	if (rc <= 0)
		return rc;
	t->chat_template = malloc(s.len + 1);
	if (!t->chat_template)
		return oom(err);
	memcpy(t->chat_template, s.s, s.len);
	t->chat_template[s.len] = '\0';
	return 0;
}

int nx_tokenizer_create(struct nx_tokenizer **out, const struct nx_gguf *g, struct nx_err *err)
{
	struct nx_tokenizer *t = calloc(1, sizeof(*t));
	if (!t)
		return oom(err);
	int rc = load_pre(t, g, err);
	if (!rc)
		rc = load_vocab(t, g, err);
	if (!rc)
		rc = sort_specials(t, err);
	if (!rc)
		rc = load_merges(t, g, err);
	if (!rc)
		rc = load_ids(t, g, err);
	if (!rc)
		rc = load_template(t, g, err);
	if (rc) {
		nx_tokenizer_destroy(t);
		return rc;
	}
	*out = t;
	return 0;
}

void nx_tokenizer_destroy(struct nx_tokenizer *t)
{
	if (!t)
		return;
	free(t->bytes);
	free(t->offsets);
	free(t->types);
	free(t->specials);
	nx_strmap_release(&t->normal);
	nx_strmap_release(&t->special);
	nx_bpe_release(&t->bpe);
	nx_pretok_destroy(t->pre);
	free(t->chat_template);
	free(t);
}

const char *nx_tokenizer_piece(const struct nx_tokenizer *t, int32_t id, size_t *len_out)
{
	if (id < 0 || id >= t->n_vocab)
		return NULL;
	*len_out = token_len(t, id);
	return t->bytes + t->offsets[id];
}

int32_t nx_tokenizer_bos(const struct nx_tokenizer *t)
{
	return t->bos;
}

int32_t nx_tokenizer_eos(const struct nx_tokenizer *t)
{
	return t->eos;
}

int32_t nx_tokenizer_eot(const struct nx_tokenizer *t)
{
	return t->eot;
}

bool nx_tokenizer_add_bos(const struct nx_tokenizer *t)
{
	return t->add_bos;
}

bool nx_tokenizer_is_eog(const struct nx_tokenizer *t, int32_t id)
{
	for (int i = 0; i < t->n_eog; i++)
		if (t->eog[i] == id)
			return true;
	return false;
}

bool nx_tokenizer_is_control(const struct nx_tokenizer *t, int32_t id)
{
	return id >= 0 && id < t->n_vocab && t->types[id] == NX_TOKEN_CONTROL;
}

int32_t nx_tokenizer_vocab(const struct nx_tokenizer *t)
{
	return t->n_vocab;
}

const char *nx_tokenizer_pre(const struct nx_tokenizer *t)
{
	return nx_pretok_name(t->pre);
}

int32_t nx_tokenizer_find(const struct nx_tokenizer *t, const char *piece, size_t len)
{
	uint32_t id;
	if (nx_strmap_get(&t->special, piece, len, &id) ||
	    nx_strmap_get(&t->normal, piece, len, &id))
		return (int32_t)id;
	return -1;
}

const char *nx_tokenizer_chat_template(const struct nx_tokenizer *t)
{
	return t->chat_template;
}
