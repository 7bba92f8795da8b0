/* SPDX-License-Identifier: Apache-2.0
 *
 * See tokenizer.h: the tokenizer of a Hugging Face directory. This file reads the model and the
 * added tokens of tokenizer.json.
 */
#include "model/tokenizer_hf.h"

#include <string.h>

#include "base/file.h"
#include "base/json.h"
#include "base/text.h"

#define TOKENIZER_BYTES_MAX ((size_t)128 << 20)

static int oom(const struct nx_hf *h, struct nx_err *err)
{
	return nx_fail(err, NX_ENOMEM, "%.200s: out of memory while loading the tokenizer",
	               h->d.path);
}

int nx_hf_load(json_t **out, const char *path, size_t max_bytes, struct nx_err *err)
{
	struct nx_arena file = {0};
	char *data, quoted[96];
	size_t len;
	json_error_t why;
	int rc = nx_file_read(&file, path, max_bytes, &data, &len, err);
	if (rc)
		return rc;
	json_t *v = json_loadb(data, len, JSON_ALLOW_NUL, &why);
	nx_arena_release(&file);
	if (!v)
		return nx_fail(err, NX_EFORMAT,
		               "%.200s:%d:%d: found broken JSON (%s); legal: one JSON value", path,
		               why.line, why.column, nx_quote(quoted, sizeof(quoted), why.text));
	if (!json_is_object(v)) {
		rc = nx_fail(err, NX_EFORMAT, "%.200s: found %s; legal: an object", path,
		             nx_json_kind(v));
		json_decref(v);
		return rc;
	}
	*out = v;
	return 0;
}

const char *nx_hf_type(const json_t *v)
{
	const char *type = json_string_value(json_object_get(v, "type"));
	return type ? type : "";
}

int nx_hf_bool(const char *path, const json_t *v, const char *key, bool *out, struct nx_err *err)
{
	const json_t *b = json_object_get(v, key);
	if (!b || json_is_null(b))
		return 0;
	if (!json_is_boolean(b))
		return nx_fail(err, NX_EFORMAT, "%.200s: key %s is %s; legal: true, false", path,
		               key, nx_json_kind(b));
	*out = json_is_true(b);
	return 0;
}

int32_t nx_hf_find(const struct nx_tok_desc *d, struct nx_span text)
{
	int32_t found = -1;
	for (size_t i = 0; i < d->n_tokens; i++) {
		const struct nx_tok_token *t = &d->tokens[i];
		if (!t->text.s || t->text.len != text.len || memcmp(t->text.s, text.s, text.len))
			continue;
		if (t->type == NX_TOKEN_CONTROL || t->type == NX_TOKEN_USER)
			return (int32_t)i;
		found = found < 0 ? (int32_t)i : found;
	}
	return found;
}

/* --- model.vocab and added_tokens: ids may leave gaps. */

static int read_token_id(const struct nx_hf *h, const json_t *v, const char *place, size_t *id,
                         struct nx_err *err)
{
	const json_int_t i = json_integer_value(v);
	if (!json_is_integer(v) || i < 0 || i >= NX_TOK_VOCAB_MAX)
		return nx_fail(err, NX_EFORMAT, "%.200s: key %s: an id is %s; legal: 0 to %d",
		               h->d.path, place,
		               json_is_integer(v) ? "out of range"
		               : v                ? nx_json_kind(v)
		                                  : "missing",
		               NX_TOK_VOCAB_MAX - 1);
	*id = (size_t)i;
	return 0;
}

static int count_tokens(struct nx_hf *h, const json_t *vocab, const json_t *added,
                        struct nx_err *err)
{
	const char *key;
	json_t *v;
	size_t i, id = 0, n = 0;
	json_object_foreach((json_t *)vocab, key, v)
	{
		int rc = read_token_id(h, v, "model.vocab", &id, err);
		if (rc)
			return rc;
		n = id >= n ? id + 1 : n;
	}
	json_array_foreach(added, i, v)
	{
		int rc = read_token_id(h, json_object_get(v, "id"), "added_tokens", &id, err);
		if (rc)
			return rc;
		n = id >= n ? id + 1 : n;
	}
	if (n == 0)
		return nx_fail(err, NX_EFORMAT, "%.200s: key model.vocab holds no tokens",
		               h->d.path);
	h->d.tokens = nx_arena_array(&h->d.arena, n, sizeof(*h->d.tokens));
	if (!h->d.tokens)
		return oom(h, err);
	h->d.n_tokens = n;
	return 0;
}

static int fill_vocab(struct nx_hf *h, const json_t *vocab, bool byte_fallback, struct nx_err *err)
{
	const char *key;
	json_t *v;
	for (size_t i = 0; i < h->d.n_tokens; i++)
		h->d.tokens[i].type = NX_TOKEN_UNUSED;
	json_object_foreach((json_t *)vocab, key, v)
	{
		struct nx_tok_token *t = &h->d.tokens[json_integer_value(v)];
		if (t->text.s)
			return nx_fail(err, NX_EFORMAT,
			               "%.200s: key model.vocab: two tokens have the id %lld",
			               h->d.path, (long long)json_integer_value(v));
		t->text = (struct nx_span){key, strlen(key)};
		t->type = byte_fallback && nx_tok_byte_of(t->text) >= 0 ? NX_TOKEN_BYTE
		                                                        : NX_TOKEN_NORMAL;
	}
	return 0;
}

static int add_token(struct nx_hf *h, const json_t *v, struct nx_err *err)
{
	static const struct {
		const char *key;
		unsigned flag;
	} flags[] = {{"lstrip", NX_TOKEN_LSTRIP},
	             {"rstrip", NX_TOKEN_RSTRIP},
	             {"single_word", NX_TOKEN_SINGLE_WORD},
	             {"normalized", NX_TOKEN_NORMALIZED}};
	const json_t *content = json_object_get(v, "content");
	struct nx_tok_token *t = &h->d.tokens[json_integer_value(json_object_get(v, "id"))];
	const struct nx_span text = {json_string_value(content), json_string_length(content)};
	bool special = false;
	if (!text.s || !text.len)
		return nx_fail(err, NX_EFORMAT, "%.200s: key added_tokens: a token has no content",
		               h->d.path);
	if (t->text.s && (t->text.len != text.len || memcmp(t->text.s, text.s, text.len) != 0)) {
		char shown[96];
		return nx_fail(err, NX_EFORMAT,
		               "%.200s: key added_tokens: the id of %s is that of another token",
		               h->d.path, nx_quote(shown, sizeof(shown), text.s));
	}
	int rc = nx_hf_bool(h->d.path, v, "special", &special, err);
	t->text = text;
	t->type = special ? NX_TOKEN_CONTROL : NX_TOKEN_USER;
	t->flags = 0;
	for (size_t i = 0; i < sizeof(flags) / sizeof(flags[0]) && !rc; i++) {
		bool on = false;
		rc = nx_hf_bool(h->d.path, v, flags[i].key, &on, err);
		t->flags |= on ? (uint8_t)flags[i].flag : 0;
	}
	return rc;
}

static int read_tokens(struct nx_hf *h, const json_t *model, struct nx_err *err)
{
	const json_t *vocab = json_object_get(model, "vocab");
	const json_t *added = json_object_get(h->root, "added_tokens");
	bool byte_fallback = false;
	size_t i;
	json_t *v;
	if (!json_is_object(vocab))
		return nx_fail(err, NX_EFORMAT, "%.200s: key model.vocab is %s; legal: an object",
		               h->d.path, vocab ? nx_json_kind(vocab) : "missing");
	if (added && !json_is_null(added) && !json_is_array(added))
		return nx_fail(err, NX_EFORMAT, "%.200s: key added_tokens is %s; legal: a list",
		               h->d.path, nx_json_kind(added));
	int rc = nx_hf_bool(h->d.path, model, "byte_fallback", &byte_fallback, err);
	if (!rc)
		rc = count_tokens(h, vocab, added, err);
	if (!rc)
		rc = fill_vocab(h, vocab, byte_fallback, err);
	json_array_foreach(added, i, v)
	{
		if (!rc)
			rc = add_token(h, v, err);
	}
	return rc;
}

/* --- model.merges: "a b", or ["a", "b"]. */

static bool read_merge(const json_t *v, struct nx_tok_merge *m)
{
	if (json_is_array(v) && json_array_size(v) == 2) {
		const json_t *a = json_array_get(v, 0), *b = json_array_get(v, 1);
		m->left = (struct nx_span){json_string_value(a), json_string_length(a)};
		m->right = (struct nx_span){json_string_value(b), json_string_length(b)};
	} else if (json_is_string(v)) {
		const char *s = json_string_value(v);
		const size_t len = json_string_length(v);
		const char *space = memchr(s, ' ', len);
		if (!space || memchr(space + 1, ' ', len - (size_t)(space + 1 - s)))
			return false;
		m->left = (struct nx_span){s, (size_t)(space - s)};
		m->right = (struct nx_span){space + 1, len - (size_t)(space + 1 - s)};
	}
	return m->left.s && m->right.s && m->left.len && m->right.len;
}

static int read_merges(struct nx_hf *h, const json_t *model, struct nx_err *err)
{
	const json_t *merges = json_object_get(model, "merges");
	size_t i;
	json_t *v;
	if (!json_is_array(merges))
		return nx_fail(err, NX_EFORMAT, "%.200s: key model.merges is %s; legal: a list",
		               h->d.path, merges ? nx_json_kind(merges) : "missing");
	h->d.n_merges = json_array_size(merges);
	h->d.merges = nx_arena_array(&h->d.arena, h->d.n_merges + 1, sizeof(*h->d.merges));
	if (!h->d.merges)
		return oom(h, err);
	json_array_foreach(merges, i, v)
	{
		if (!read_merge(v, &h->d.merges[i]))
			return nx_fail(
				err, NX_EFORMAT,
				"%.200s: key model.merges: merge %zu is not two tokens with a space between, or a list of two",
				h->d.path, i);
	}
	return 0;
}

static int read_model(struct nx_hf *h, struct nx_err *err)
{
	static const char *const empty[] = {"continuing_subword_prefix", "end_of_word_suffix"};
	const json_t *model = json_object_get(h->root, "model");
	const char *type = nx_hf_type(model);
	char shown[96];
	if (!json_is_object(model))
		return nx_fail(err, NX_EFORMAT, "%.200s: key model is %s; legal: an object",
		               h->d.path, model ? nx_json_kind(model) : "missing");
	/* Early files leave the type out. */
	if (strcmp(type, "BPE") != 0 && (*type || !json_object_get(model, "merges")))
		return nx_fail(err, NX_ENOTSUP,
		               "%.200s: key model.type: %s is not supported; legal: BPE", h->d.path,
		               nx_quote(shown, sizeof(shown), type));
	const json_t *dropout = json_object_get(model, "dropout");
	if (dropout && !json_is_null(dropout) && json_number_value(dropout) != 0)
		return nx_fail(err, NX_ENOTSUP,
		               "%.200s: key model.dropout makes tokens random; legal: null",
		               h->d.path);
	for (size_t i = 0; i < sizeof(empty) / sizeof(empty[0]); i++)
		if (json_string_length(json_object_get(model, empty[i])))
			return nx_fail(err, NX_ENOTSUP,
			               "%.200s: key model.%s is not supported; legal: null",
			               h->d.path, empty[i]);
	int rc = nx_hf_bool(h->d.path, model, "ignore_merges", &h->d.ignore_merges, err);
	if (!rc)
		rc = nx_hf_bool(h->d.path, model, "fuse_unk", &h->d.fuse_unk, err);
	if (!rc)
		rc = read_tokens(h, model, err);
	if (!rc)
		rc = read_merges(h, model, err);
	if (rc)
		return rc;
	const json_t *unk = json_object_get(model, "unk_token");
	if (!json_is_string(unk))
		return 0;
	h->d.unk = nx_hf_find(&h->d,
	                      (struct nx_span){json_string_value(unk), json_string_length(unk)});
	if (h->d.unk < 0)
		return nx_fail(err, NX_EFORMAT, "%.200s: key model.unk_token: %s is no token",
		               h->d.path, nx_quote(shown, sizeof(shown), json_string_value(unk)));
	return 0;
}

int nx_tokenizer_create_hf(struct nx_tokenizer **out, const char *dir, struct nx_err *err)
{
	struct nx_hf h = {.dir = dir,
	                  .d = {.tokens_key = "key model.vocab",
	                        .merges_key = "key model.merges",
	                        .unk = -1,
	                        .bos = -1,
	                        .eos = -1,
	                        .eot = -1}};
	int rc;
	h.d.path = nx_arena_printf(&h.d.arena, "%s/tokenizer.json", dir);
	if (!h.d.path) {
		h.d.path = dir;
		rc = oom(&h, err);
	} else if (!nx_file_is_regular(h.d.path)) {
		rc = nx_fail(
			err, NX_EIO,
			"%.200s is not there; legal: a folder with tokenizer.json (SentencePiece's tokenizer.model alone is not read)",
			h.d.path);
	} else {
		rc = nx_hf_load(&h.root, h.d.path, TOKENIZER_BYTES_MAX, err);
	}
	if (!rc)
		rc = read_model(&h, err);
	if (!rc)
		rc = nx_hf_read_steps(&h, err);
	if (!rc)
		rc = nx_hf_read_settings(&h, err);
	if (!rc)
		rc = nx_tok_build(out, &h.d, err);
	nx_tok_desc_release(&h.d);
	json_decref(h.root);
	for (size_t i = 0; i < sizeof(h.settings) / sizeof(h.settings[0]); i++)
		json_decref(h.settings[i]);
	return rc;
}
