/* SPDX-License-Identifier: Apache-2.0
 *
 * See tokenizer.h: the tokenizer of a GGUF file. tokenizer.ggml.model "gpt2" is byte-level BPE with
 * listed merges, "llama" SentencePiece's BPE with scores.
 */
#include <string.h>

#include "base/text.h"
#include "model/gguf.h"
#include "model/tokenizer_internal.h"

#define KEY "tokenizer.ggml."

static int oom(const struct nx_tok_desc *d, struct nx_err *err)
{
	return nx_fail(err, NX_ENOMEM, "%.200s: out of memory while loading the tokenizer",
	               d->path);
}

static int read_tokens(struct nx_tok_desc *d, const struct nx_gguf *g, struct nx_err *err)
{
	struct nx_gguf_array toks, types = {.n = 0};
	int rc = nx_gguf_get_array(g, KEY "tokens", NX_GGUF_V_STRING, &toks, err);
	if (rc < 0)
		return rc;
	if (rc == 0)
		return nx_fail(
			err, NX_EFORMAT,
			"%.200s: key tokenizer.ggml.tokens is missing; legal: the list of tokens",
			d->path);
	if (toks.n < 1 || toks.n > NX_TOK_VOCAB_MAX)
		return nx_fail(
			err, NX_EFORMAT,
			"%.200s: key tokenizer.ggml.tokens holds %llu tokens; legal: 1 to %d",
			d->path, (unsigned long long)toks.n, NX_TOK_VOCAB_MAX);
	rc = nx_gguf_get_array(g, KEY "token_type", NX_GGUF_V_I32, &types, err);
	if (rc < 0)
		return rc;
	if (rc == 1 && types.n != toks.n)
		return nx_fail(
			err, NX_EFORMAT,
			"%.200s: key tokenizer.ggml.token_type holds %llu types; legal: %llu, one a token",
			d->path, (unsigned long long)types.n, (unsigned long long)toks.n);
	d->n_tokens = (size_t)toks.n;
	d->tokens = nx_arena_array(&d->arena, d->n_tokens, sizeof(*d->tokens));
	if (!d->tokens)
		return oom(d, err);
	for (size_t i = 0; i < d->n_tokens; i++) {
		const int32_t type = types.n ? nx_gguf_array_i32(&types, i) : NX_TOKEN_NORMAL;
		if (type < NX_TOKEN_NORMAL || type > NX_TOKEN_BYTE)
			return nx_fail(
				err, NX_EFORMAT,
				"%.200s: key tokenizer.ggml.token_type: token %zu has type %d; legal: 1 to 6",
				d->path, i, type);
		d->tokens[i] =
			(struct nx_tok_token){{toks.strs[i].s, toks.strs[i].len}, (uint8_t)type, 0};
	}
	return 0;
}

/* A merge is "left right"; a space inside a token is written as another character. */
static int read_merges(struct nx_tok_desc *d, const struct nx_gguf *g, struct nx_err *err)
{
	struct nx_gguf_array merges;
	int rc = nx_gguf_get_array(g, KEY "merges", NX_GGUF_V_STRING, &merges, err);
	if (rc < 0)
		return rc;
	if (rc == 0)
		return nx_fail(
			err, NX_EFORMAT,
			"%.200s: key tokenizer.ggml.merges is missing; legal: the list of merges",
			d->path);
	if (merges.n > NX_TOK_VOCAB_MAX)
		return nx_fail(
			err, NX_EFORMAT,
			"%.200s: key tokenizer.ggml.merges holds %llu merges; legal: at most %d",
			d->path, (unsigned long long)merges.n, NX_TOK_VOCAB_MAX);
	d->n_merges = (size_t)merges.n;
	d->merges = nx_arena_array(&d->arena, d->n_merges + 1, sizeof(*d->merges));
	if (!d->merges)
		return oom(d, err);
	for (size_t i = 0; i < d->n_merges; i++) {
		const struct nx_gguf_str m = merges.strs[i];
		const char *space = m.len > 2 ? memchr(m.s + 1, ' ', m.len - 1) : NULL;
		if (!space || space + 1 == m.s + m.len)
			return nx_fail(
				err, NX_EFORMAT,
				"%.200s: key tokenizer.ggml.merges: merge %zu is not two tokens with a space between",
				d->path, i);
		const size_t n = (size_t)(space - m.s);
		d->merges[i] = (struct nx_tok_merge){{m.s, n}, {space + 1, m.len - n - 1}};
	}
	return 0;
}

static int read_scores(struct nx_tok_desc *d, const struct nx_gguf *g, struct nx_err *err)
{
	struct nx_gguf_array a;
	int rc = nx_gguf_get_array(g, KEY "scores", NX_GGUF_V_F32, &a, err);
	if (rc < 0)
		return rc;
	if (rc == 0 || a.n != d->n_tokens)
		return nx_fail(
			err, NX_EFORMAT,
			"%.200s: key tokenizer.ggml.scores holds %llu scores; legal: %zu, one a token",
			d->path, rc ? (unsigned long long)a.n : 0ull, d->n_tokens);
	float *scores = nx_arena_array(&d->arena, d->n_tokens, sizeof(*scores));
	if (!scores)
		return oom(d, err);
	for (size_t i = 0; i < d->n_tokens; i++)
		scores[i] = nx_gguf_array_f32(&a, i);
	d->scores = scores;
	return 0;
}

static int read_id(const struct nx_tok_desc *d, const struct nx_gguf *g, const char *key,
                   int32_t *out, struct nx_err *err)
{
	uint32_t id;
	int rc = nx_gguf_get_u32(g, key, &id, err);
	if (rc < 0)
		return rc;
	if (rc == 0)
		return 0;
	if (id >= d->n_tokens)
		return nx_fail(err, NX_EFORMAT, "%.200s: key %s is %u; legal: 0 to %zu", d->path,
		               key, id, d->n_tokens - 1);
	*out = (int32_t)id;
	return 0;
}

static int read_ids(struct nx_tok_desc *d, const struct nx_gguf *g, struct nx_err *err)
{
	static const char add_bos[] = KEY "add_bos_token";
	int32_t eom = -1;
	d->bos = d->eos = d->eot = d->unk = -1;
	int rc = read_id(d, g, KEY "bos_token_id", &d->bos, err);
	if (!rc)
		rc = read_id(d, g, KEY "eos_token_id", &d->eos, err);
	if (!rc)
		rc = read_id(d, g, KEY "eot_token_id", &d->eot, err);
	if (!rc)
		rc = read_id(d, g, KEY "eom_token_id", &eom, err);
	if (!rc && !d->byte_level)
		rc = read_id(d, g, KEY "unknown_token_id", &d->unk, err);
	if (rc)
		return rc;
	if (eom >= 0)
		d->eog[d->n_eog++] = eom;
	rc = nx_gguf_get_bool(g, add_bos, &d->add_bos, err);
	return rc < 0 ? rc : 0;
}

static int read_byte_level(struct nx_tok_desc *d, const struct nx_gguf *g, struct nx_err *err)
{
	struct nx_gguf_str pre;
	int rc = nx_gguf_get_str(g, KEY "pre", &pre, err);
	if (rc < 0)
		return rc;
	if (rc == 0)
		pre = (struct nx_gguf_str){"default", 7};
	rc = nx_pretok_create(&d->pre, pre.s, pre.len, err);
	if (rc)
		return rc;
	const unsigned flags = nx_pretok_flags(d->pre);
	d->byte_level = true;
	d->ignore_merges = flags & NX_PRETOK_IGNORE_MERGES;
	d->add_bos = flags & NX_PRETOK_ADD_BOS;
	d->steps.nfc = flags & NX_PRETOK_NFC;
	rc = read_tokens(d, g, err);
	return rc ? rc : read_merges(d, g, err);
}

/* As llama.cpp reads it: one piece, BOS and the space in front unless the file says otherwise. */
static int read_sentencepiece(struct nx_tok_desc *d, const struct nx_gguf *g, struct nx_err *err)
{
	bool prefix = true;
	int rc = nx_pretok_create_custom(&d->pre, NULL, 0, d->path, err);
	if (!rc)
		rc = nx_gguf_get_bool(g, KEY "add_space_prefix", &prefix, err);
	if (rc < 0)
		return rc;
	d->add_bos = true;
	d->fuse_unk = true;
	d->steps = (struct nx_tok_steps){
		.mark = true, .mark_early = true, .prepend = prefix, .strip = prefix};
	d->merges_key = "key tokenizer.ggml.scores";
	rc = read_tokens(d, g, err);
	return rc ? rc : read_scores(d, g, err);
}

int nx_tokenizer_create(struct nx_tokenizer **out, const struct nx_gguf *g, struct nx_err *err)
{
	struct nx_tok_desc d = {.path = nx_gguf_path(g),
	                        .tokens_key = "key tokenizer.ggml.tokens",
	                        .merges_key = "key tokenizer.ggml.merges"};
	struct nx_gguf_str model, tmpl;
	int rc = nx_gguf_get_str(g, KEY "model", &model, err);
	if (rc < 0)
		return rc;
	if (rc == 0)
		return nx_fail(err, NX_EFORMAT,
		               "%.200s: key tokenizer.ggml.model is missing; legal: gpt2, llama",
		               d.path);
	if (model.len == 4 && memcmp(model.s, "gpt2", 4) == 0) {
		rc = read_byte_level(&d, g, err);
	} else if (model.len == 5 && memcmp(model.s, "llama", 5) == 0) {
		rc = read_sentencepiece(&d, g, err);
	} else {
		char name[33], shown[80];
		snprintf(name, sizeof(name), "%.*s", (int)(model.len < 32 ? model.len : 32),
		         model.s);
		rc = nx_fail(
			err, NX_ENOTSUP,
			"%.200s: key tokenizer.ggml.model: tokenizer %s is not supported; legal: gpt2 (byte-level BPE), llama (SentencePiece BPE)",
			d.path, nx_quote(shown, sizeof(shown), name));
	}
	if (!rc)
		rc = read_ids(&d, g, err);
	if (!rc)
		rc = nx_gguf_get_str(g, "tokenizer.chat_template", &tmpl, err);
	if (rc == 1)
		d.chat_template = (struct nx_span){tmpl.s, tmpl.len};
	if (rc >= 0)
		rc = nx_tok_build(out, &d, err);
	nx_tok_desc_release(&d);
	return rc;
}
