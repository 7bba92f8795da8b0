/* SPDX-License-Identifier: Apache-2.0
 *
 * See hf.h.
 */
#include "model/hf.h"

#include <stdlib.h>
#include <string.h>

#include "base/file.h"
#include "base/json.h"
#include "base/text.h"
#include "model/safetensors.h"
#include "model/strmap.h"

#define CONFIG "config.json"
#define SINGLE "model.safetensors"
#define INDEX "model.safetensors.index.json"
#define CONFIG_MAX ((size_t)4 << 20)
#define INDEX_MAX ((size_t)64 << 20)
#define MAX_SHARDS 4096
#define MAX_SHARD_NAME 200

struct nx_hf {
	struct nx_arena arena; /* names and paths */
	const char *dir, *config_path;
	json_t *config;
	bool tokenizer;
	struct nx_safetensors **shards;
	const char **shard_names; /* in the order of the index */
	size_t n_shards;
	const struct nx_tensor **tensors;
	uint32_t *shard_of; /* of each tensor */
	size_t n_tensors;
	struct nx_strmap by_name;
	const char *files[8]; /* beside the shards */
	size_t n_files;
	uint64_t bytes;
};

static int oom(const struct nx_hf *h, struct nx_err *err)
{
	return nx_fail(err, NX_ENOMEM, "out of memory while opening %.200s", h->dir ? h->dir : "");
}

static const char *join(struct nx_hf *h, const char *name)
{
	return nx_arena_printf(&h->arena, "%s/%s", h->dir, name);
}

bool nx_hf_is_dir(const char *path)
{
	char config[4096];
	int n = snprintf(config, sizeof(config), "%s/" CONFIG, path);
	return n > 0 && (size_t)n < sizeof(config) && nx_file_is_regular(config);
}

/* Reads a JSON file that holds one object. */
static int read_json(const char *path, size_t max, json_t **out, struct nx_err *err)
{
	struct nx_arena scratch = {0};
	char *text = NULL, quoted[96];
	size_t len = 0;
	json_error_t why;
	int rc = nx_file_read(&scratch, path, max, &text, &len, err);
	if (rc)
		goto release;
	json_t *v = json_loadb(text, len, JSON_REJECT_DUPLICATES, &why);
	if (!v) {
		rc = nx_fail(err, NX_EFORMAT,
		             "%.200s:%d:%d: found broken JSON (%s); legal: one JSON value", path,
		             why.line > 0 ? why.line : 1, why.column > 0 ? why.column : 1,
		             nx_quote(quoted, sizeof(quoted), why.text));
	} else if (!json_is_object(v)) {
		rc = nx_fail(err, NX_EFORMAT, "%.200s: found %s; legal: an object", path,
		             nx_json_kind(v));
		json_decref(v);
	} else {
		*out = v;
	}
release:
	nx_arena_release(&scratch);
	return rc;
}

/* A shard's name leads nowhere but into the folder. */
static int check_shard_name(const char *path, const char *name, struct nx_err *err)
{
	static const char tail[] = ".safetensors";
	size_t n = name ? strlen(name) : 0, t = sizeof(tail) - 1;
	char quoted[96];
	bool plain = n > t && n <= MAX_SHARD_NAME && name[0] != '.' && !strcmp(name + n - t, tail);
	for (size_t i = 0; plain && i < n; i++)
		plain = name[i] > 0x20 && name[i] < 0x7f && name[i] != '/' && name[i] != '\\';
	return plain ? 0
	             : nx_fail(err, NX_EFORMAT,
	                       "%.200s: key weight_map names the file %s; legal: the plain name of "
	                       "a .safetensors file of this folder",
	                       path, name ? nx_quote(quoted, sizeof(quoted), name) : "(no text)");
}

static int open_shard(struct nx_hf *h, const char *name, struct nx_err *err)
{
	const char *path = join(h, name);
	struct nx_safetensors *s = NULL;
	if (!path)
		return oom(h, err);
	int rc = nx_safetensors_open(&s, path, err);
	if (rc)
		return rc;
	h->shards[h->n_shards] = s;
	h->shard_names[h->n_shards++] = name;
	h->bytes += nx_safetensors_bytes(s);
	return 0;
}

/* All shards that the index names, each once. */
static int open_index(struct nx_hf *h, const char *path, const json_t *map, struct nx_err *err)
{
	struct nx_strmap seen = {0};
	size_t n = json_object_size(map);
	const char *key;
	json_t *v;
	int rc = nx_strmap_init(&seen, n < MAX_SHARDS ? n : MAX_SHARDS, err);
	json_object_foreach((json_t *)(uintptr_t)map, key, v)
	{
		const char *name = json_string_value(v);
		uint32_t at;
		if (rc || (rc = check_shard_name(path, name, err)) != 0)
			break;
		if (nx_strmap_get(&seen, name, strlen(name), &at))
			continue;
		if (h->n_shards == MAX_SHARDS) {
			rc = nx_fail(err, NX_EFORMAT,
			             "%.200s: more than %d files; legal: up to that", path,
			             MAX_SHARDS);
			break;
		}
		name = nx_arena_strdup(&h->arena, name);
		if (!name ||
		    nx_strmap_put(&seen, name, strlen(name), (uint32_t)h->n_shards, NULL) != 1)
			rc = oom(h, err);
		if (!rc)
			rc = open_shard(h, name, err);
	}
	nx_strmap_release(&seen);
	return rc;
}

static int collect(struct nx_hf *h, struct nx_err *err)
{
	size_t n = 0;
	for (size_t i = 0; i < h->n_shards; i++)
		n += nx_safetensors_count(h->shards[i]);
	h->tensors = calloc(n + 1, sizeof(*h->tensors));
	h->shard_of = calloc(n + 1, sizeof(*h->shard_of));
	if (!h->tensors || !h->shard_of)
		return oom(h, err);
	int rc = nx_strmap_init(&h->by_name, n, err);
	for (size_t i = 0; i < h->n_shards && !rc; i++)
		for (size_t k = 0; k < nx_safetensors_count(h->shards[i]) && !rc; k++) {
			const struct nx_tensor *t = nx_safetensors_at(h->shards[i], k);
			uint32_t old = 0;
			int added = nx_strmap_put(&h->by_name, t->name, strlen(t->name),
			                          (uint32_t)h->n_tensors, &old);
			if (added < 0)
				rc = oom(h, err);
			else if (added == 0)
				rc = nx_fail(err, NX_EFORMAT,
				             "%.150s: tensor %.64s is in %.64s and in %.64s",
				             h->dir, t->name, h->shard_names[h->shard_of[old]],
				             h->shard_names[i]);
			h->shard_of[h->n_tensors] = (uint32_t)i;
			h->tensors[h->n_tensors++] = t;
		}
	return rc;
}

/* Every tensor of the index is in the shard that it names. */
static int check_index(const struct nx_hf *h, const char *path, const json_t *map,
                       struct nx_err *err)
{
	const char *key;
	json_t *v;
	char quoted[96];
	json_object_foreach((json_t *)(uintptr_t)map, key, v)
	{
		uint32_t i;
		if (!nx_strmap_get(&h->by_name, key, strlen(key), &i) ||
		    strcmp(h->shard_names[h->shard_of[i]], json_string_value(v)) != 0)
			return nx_fail(err, NX_EFORMAT,
			               "%.200s: tensor %s is not in %.100s, as weight_map says",
			               path, nx_quote(quoted, sizeof(quoted), key),
			               json_string_value(v));
	}
	return 0;
}

static int open_weights(struct nx_hf *h, struct nx_err *err)
{
	const char *single = join(h, SINGLE), *index = join(h, INDEX);
	json_t *json = NULL;
	const json_t *map = NULL;
	int rc = 0;
	if (!single || !index)
		return oom(h, err);
	bool sharded = !nx_file_is_regular(single);
	if (sharded && !nx_file_is_regular(index))
		return nx_fail(err, NX_EENV, "%.200s: found neither " SINGLE " nor " INDEX, h->dir);
	if (sharded) {
		rc = read_json(index, INDEX_MAX, &json, err);
		map = json_object_get(json, "weight_map");
		if (!rc && (!json_is_object(map) || !json_object_size(map)))
			rc = nx_fail(err, NX_EFORMAT,
			             "%.200s: key weight_map is missing or empty; legal: an object "
			             "of tensors and files",
			             index);
		h->files[h->n_files++] = index;
	}
	size_t most = map ? json_object_size(map) : 1;
	most = most < MAX_SHARDS ? most : MAX_SHARDS;
	if (!rc) {
		h->shards = calloc(most + 1, sizeof(*h->shards));
		h->shard_names = calloc(most + 1, sizeof(*h->shard_names));
		if (!h->shards || !h->shard_names)
			rc = oom(h, err);
	}
	if (!rc)
		rc = sharded ? open_index(h, index, map, err) : open_shard(h, SINGLE, err);
	if (!rc)
		rc = collect(h, err);
	if (!rc && sharded)
		rc = check_index(h, index, map, err);
	json_decref(json);
	return rc;
}

/* Tokenizer files count among what fixes the model, where they are. */
static int note_files(struct nx_hf *h, struct nx_err *err)
{
	static const char *const names[] = {"tokenizer.json", "tokenizer_config.json",
	                                    "generation_config.json", "special_tokens_map.json",
	                                    "chat_template.jinja"};
	h->files[h->n_files++] = h->config_path;
	for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++) {
		const char *path = join(h, names[i]);
		if (!path)
			return oom(h, err);
		if (!nx_file_is_regular(path))
			continue;
		h->files[h->n_files++] = path;
		h->tokenizer |= i == 0;
	}
	return 0;
}

int nx_hf_open(struct nx_hf **out, const char *dir, struct nx_err *err)
{
	struct nx_hf *h = calloc(1, sizeof(*h));
	if (!h)
		return nx_fail(err, NX_ENOMEM, "out of memory while opening %.200s", dir);
	size_t n = strlen(dir);
	while (n > 1 && dir[n - 1] == '/')
		n--;
	h->dir = nx_arena_strndup(&h->arena, dir, n);
	h->config_path = h->dir ? join(h, CONFIG) : NULL;
	int rc = h->config_path ? read_json(h->config_path, CONFIG_MAX, &h->config, err)
	                        : oom(h, err);
	if (!rc)
		rc = note_files(h, err);
	if (!rc)
		rc = open_weights(h, err);
	if (rc) {
		nx_hf_close(h);
		return rc;
	}
	*out = h;
	return 0;
}

void nx_hf_close(struct nx_hf *h)
{
	if (!h)
		return;
	nx_strmap_release(&h->by_name);
	for (size_t i = 0; i < h->n_shards; i++)
		nx_safetensors_close(h->shards[i]);
	free(h->shards);
	free(h->shard_names);
	free(h->tensors);
	free(h->shard_of);
	json_decref(h->config);
	nx_arena_release(&h->arena);
	free(h);
}

const char *nx_hf_dir(const struct nx_hf *h)
{
	return h->dir;
}

const char *nx_hf_config_path(const struct nx_hf *h)
{
	return h->config_path;
}

const json_t *nx_hf_config(const struct nx_hf *h)
{
	return h->config;
}

bool nx_hf_has_tokenizer(const struct nx_hf *h)
{
	return h->tokenizer;
}

uint64_t nx_hf_bytes(const struct nx_hf *h)
{
	return h->bytes;
}

const struct nx_tensor *nx_hf_tensor(const struct nx_hf *h, const char *name)
{
	uint32_t i;
	return nx_strmap_get(&h->by_name, name, strlen(name), &i) ? h->tensors[i] : NULL;
}

size_t nx_hf_n_tensors(const struct nx_hf *h)
{
	return h->n_tensors;
}

const struct nx_tensor *nx_hf_tensor_at(const struct nx_hf *h, size_t i)
{
	return i < h->n_tensors ? h->tensors[i] : NULL;
}

size_t nx_hf_n_files(const struct nx_hf *h)
{
	return h->n_files + h->n_shards;
}

const char *nx_hf_file(const struct nx_hf *h, size_t i)
{
	if (i < h->n_files)
		return h->files[i];
	return i < nx_hf_n_files(h) ? nx_safetensors_path(h->shards[i - h->n_files]) : NULL;
}
