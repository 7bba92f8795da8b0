/* SPDX-License-Identifier: Apache-2.0
 *
 * See tokenizer.h: the files beside tokenizer.json, all of which may be absent. Of two that name
 * the same thing the one that Transformers asks first wins: tokenizer_config.json before
 * special_tokens_map.json, generation_config.json before config.json, add_bos_token before the
 * post-processor.
 */
#include <string.h>

#include "base/file.h"
#include "base/json.h"
#include "base/text.h"
#include "model/tokenizer_hf.h"

#define SETTINGS_BYTES_MAX ((size_t)16 << 20)
#define TEMPLATE_BYTES_MAX ((size_t)1 << 20)

enum { TOKENIZER_CONFIG, SPECIAL_TOKENS_MAP, GENERATION_CONFIG, CONFIG };

static const char *const names[] = {
	[TOKENIZER_CONFIG] = "tokenizer_config.json",
	[SPECIAL_TOKENS_MAP] = "special_tokens_map.json",
	[GENERATION_CONFIG] = "generation_config.json",
	[CONFIG] = "config.json",
};

static char *path_of(struct nx_hf *h, const char *name)
{
	return nx_arena_printf(&h->d.arena, "%s/%s", h->dir, name);
}

/* The same for sentences: never NULL. */
static const char *place(struct nx_hf *h, int file)
{
	const char *path = path_of(h, names[file]);
	return path ? path : names[file];
}

/* A special token by its key: a text, or an object with the text as content. Leaves *id alone where the
 * key is absent or names no token (a model's class may have one that its vocabulary lacks). */
static void read_token(struct nx_hf *h, int file, const char *key, int32_t *id)
{
	const json_t *v = json_object_get(h->settings[file], key);
	const json_t *text = json_is_object(v) ? json_object_get(v, "content") : v;
	if (*id < 0 && json_is_string(text))
		*id = nx_hf_find(
			&h->d, (struct nx_span){json_string_value(text), json_string_length(text)});
}

static int add_eog(struct nx_hf *h, const char *path, const json_t *v, struct nx_err *err)
{
	const json_int_t id = json_integer_value(v);
	if (!json_is_integer(v) || id < 0 || (size_t)id >= h->d.n_tokens)
		return nx_fail(err, NX_EFORMAT,
		               "%.200s: key eos_token_id holds %s; legal: ids from 0 to %zu", path,
		               json_is_integer(v) ? "an id out of range" : nx_json_kind(v),
		               h->d.n_tokens - 1);
	if (h->d.n_eog == NX_TOK_EOG_MAX)
		return nx_fail(err, NX_EFORMAT, "%.200s: key eos_token_id holds more than %d ids",
		               path, NX_TOK_EOG_MAX);
	h->d.eog[h->d.n_eog++] = (int32_t)id;
	return 0;
}

/* eos_token_id: an id or a list; null and absent are fine. */
static int read_eog(struct nx_hf *h, int file, struct nx_err *err)
{
	const char *path = place(h, file);
	const json_t *v = json_object_get(h->settings[file], "eos_token_id");
	size_t i;
	json_t *one;
	int rc = 0;
	if (!v || json_is_null(v))
		return 0;
	if (!json_is_array(v))
		return add_eog(h, path, v, err);
	json_array_foreach(v, i, one)
	{
		if (!rc)
			rc = add_eog(h, path, one, err);
	}
	return rc;
}

/* A text, or a list of {"name", "template"} of which "default" is taken. */
static int read_chat_template(struct nx_hf *h, struct nx_err *err)
{
	const json_t *v = json_object_get(h->settings[TOKENIZER_CONFIG], "chat_template");
	const json_t *text = json_is_string(v) ? v : NULL;
	size_t i;
	json_t *one;
	json_array_foreach(v, i, one)
	{
		const char *name = json_string_value(json_object_get(one, "name"));
		if (name && strcmp(name, "default") == 0)
			text = json_object_get(one, "template");
	}
	const char *path = path_of(h, "chat_template.jinja");
	if (!path)
		return nx_fail(err, NX_ENOMEM, "out of memory for the chat template");
	if (nx_file_is_regular(path)) { /* Transformers prefers it */
		char *data;
		size_t len;
		int rc = nx_file_read(&h->d.arena, path, TEMPLATE_BYTES_MAX, &data, &len, err);
		if (!rc)
			h->d.chat_template = (struct nx_span){data, len};
		return rc;
	}
	if (json_is_string(text))
		h->d.chat_template =
			(struct nx_span){json_string_value(text), json_string_length(text)};
	return 0;
}

int nx_hf_read_settings(struct nx_hf *h, struct nx_err *err)
{
	struct nx_tok_desc *d = &h->d;
	int rc = 0;
	for (int i = 0; i <= CONFIG && !rc; i++) {
		const char *path = path_of(h, names[i]);
		if (!path)
			rc = nx_fail(err, NX_ENOMEM, "out of memory for the tokenizer's settings");
		else if (nx_file_is_regular(path))
			rc = nx_hf_load(&h->settings[i], path, SETTINGS_BYTES_MAX, err);
	}
	if (rc)
		return rc;
	for (int i = TOKENIZER_CONFIG; i <= SPECIAL_TOKENS_MAP; i++) {
		read_token(h, i, "bos_token", &d->bos);
		read_token(h, i, "eos_token", &d->eos);
	}
	if (d->bos < 0 && h->bos.s)
		d->bos = nx_hf_find(d, h->bos);
	rc = read_eog(h, GENERATION_CONFIG, err);
	if (!rc && !d->n_eog)
		rc = read_eog(h, CONFIG, err);
	if (!rc && d->eos < 0 && d->n_eog)
		d->eos = d->eog[0];
	if (!rc)
		rc = nx_hf_bool(place(h, TOKENIZER_CONFIG), h->settings[TOKENIZER_CONFIG],
		                "add_bos_token", &d->add_bos, err);
	return rc ? rc : read_chat_template(h, err);
}
