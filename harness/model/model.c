/* SPDX-License-Identifier: Apache-2.0
 *
 * See model.h.
 */
#include "model/model.h"

#include <stdlib.h>
#include <string.h>

#include "model/dequant.h"
#include "model/model_internal.h"

struct nx_model {
	struct nx_gguf *file;
	struct nx_tokenizer *tok;
	struct nx_shape shape;
	char *name;
	const struct nx_gguf_tensor *global[NX_W_COUNT]; /* weights that are not per layer */
	const struct nx_gguf_tensor **layers;            /* [n_layers, NX_W_COUNT] */
	int64_t n_params;
	uint64_t weight_bytes;
	enum nx_gguf_type main_type;
};

static const struct {
	const char *name;
	bool layered;
} weights[NX_W_COUNT] = {
#define X(id, name, layered, rows, cols) [NX_W_##id] = {name, layered},
	NX_WEIGHTS(X)
#undef X
};

int64_t nx_weight_rows(const struct nx_shape *s, enum nx_weight_id id)
{
	switch (id) {
#define X(id, name, layered, rows, cols)                                                           \
	case NX_W_##id: return rows;
		NX_WEIGHTS(X)
#undef X
	case NX_W_COUNT: break;
	}
	return 0;
}

int64_t nx_weight_cols(const struct nx_shape *s, enum nx_weight_id id)
{
	switch (id) {
#define X(id, name, layered, rows, cols)                                                           \
	case NX_W_##id: return cols;
		NX_WEIGHTS(X)
#undef X
	case NX_W_COUNT: break;
	}
	return 0;
}

bool nx_weight_is_layered(enum nx_weight_id id)
{
	return (unsigned)id < NX_W_COUNT && weights[id].layered;
}

static int check_dims(const struct nx_model *m, const struct nx_gguf_tensor *t,
                      enum nx_weight_id id, struct nx_err *err)
{
	const int64_t rows = nx_weight_rows(&m->shape, id), cols = nx_weight_cols(&m->shape, id);
	if (t->dims[0] == cols && t->dims[1] == rows && t->dims[2] == 1 && t->dims[3] == 1)
		return 0;
	return nx_fail(
		err, NX_EFORMAT,
		"%.200s: tensor %.64s is [%lld, %lld, %lld, %lld]; legal for this shape: [%lld, %lld]",
		nx_gguf_path(m->file), t->name, (long long)t->dims[0], (long long)t->dims[1],
		(long long)t->dims[2], (long long)t->dims[3], (long long)cols, (long long)rows);
}

static int find_weight(struct nx_model *m, enum nx_weight_id id, int32_t layer,
                       const struct nx_gguf_tensor **out, struct nx_err *err)
{
	char name[96];
	if (weights[id].layered)
		snprintf(name, sizeof(name), "blk.%d.%s", layer, weights[id].name);
	else
		snprintf(name, sizeof(name), "%s", weights[id].name);
	const struct nx_gguf_tensor *t = nx_gguf_tensor(m->file, name);
	if (!t && id == NX_W_OUTPUT) { /* tied */
		m->shape.tied = true;
		*out = m->global[NX_W_EMBED];
		return 0;
	}
	if (!t)
		return nx_fail(err, NX_EFORMAT, "%.200s: tensor %s is missing",
		               nx_gguf_path(m->file), name);
	*out = t;
	return check_dims(m, t, id, err);
}

static int find_weights(struct nx_model *m, struct nx_err *err)
{
	int rc = 0;
	m->layers = calloc((size_t)m->shape.n_layers * NX_W_COUNT, sizeof(*m->layers));
	if (!m->layers)
		return nx_fail(err, NX_ENOMEM, "out of memory while opening %.200s",
		               nx_gguf_path(m->file));
	for (int id = 0; id < NX_W_COUNT && !rc; id++) {
		if (!weights[id].layered) {
			rc = find_weight(m, (enum nx_weight_id)id, 0, &m->global[id], err);
			continue;
		}
		for (int32_t l = 0; l < m->shape.n_layers && !rc; l++)
			rc = find_weight(m, (enum nx_weight_id)id, l,
			                 &m->layers[(size_t)l * NX_W_COUNT + (size_t)id], err);
	}
	return rc;
}

/* Parameters and bytes of the base model, and the type that holds most parameters. */
static void count(struct nx_model *m)
{
	static const enum nx_gguf_type types[] = {
#define X(name, value, elems, bytes) NX_GGUF_##name,
		NX_GGUF_TYPES(X)
#undef X
	};
	int64_t by_type[sizeof(types) / sizeof(types[0])] = {0}, most = -1;
	for (int id = 0; id < NX_W_COUNT; id++) {
		if (id == NX_W_OUTPUT && m->shape.tied)
			continue;
		const int32_t n = weights[id].layered ? m->shape.n_layers : 1;
		for (int32_t l = 0; l < n; l++) {
			const struct nx_gguf_tensor *t =
				nx_model_weight(m, (enum nx_weight_id)id, l);
			const int64_t elems = t->dims[0] * t->dims[1];
			m->n_params += elems;
			m->weight_bytes += t->bytes;
			for (size_t i = 0; i < sizeof(types) / sizeof(types[0]); i++)
				if (types[i] == t->type)
					by_type[i] += elems;
		}
	}
	for (size_t i = 0; i < sizeof(types) / sizeof(types[0]); i++) {
		if (by_type[i] > most) {
			most = by_type[i];
			m->main_type = types[i];
		}
	}
}

static int read_name(struct nx_model *m, struct nx_err *err)
{
	struct nx_gguf_str s;
	int rc = nx_gguf_get_str(m->file, "general.name", &s, err);
	if (rc < 0)
		return rc;
	if (rc == 0 || s.len == 0) {
		const char *path = nx_gguf_path(m->file), *slash = strrchr(path, '/');
		s.s = slash ? slash + 1 : path;
		s.len = strlen(s.s);
	}
	m->name = strndup(s.s, s.len);
	if (!m->name)
		return nx_fail(err, NX_ENOMEM, "out of memory while opening %.200s",
		               nx_gguf_path(m->file));
	for (char *p = m->name; *p; p++)
		if ((unsigned char)*p < 0x20 || *p == 0x7f)
			*p = '?'; /* the name is printed on terminals */
	return 0;
}

int nx_model_open(struct nx_model **out, const char *path, struct nx_err *err)
{
	struct nx_model *m = calloc(1, sizeof(*m));
	int32_t vocab;
	if (!m)
		return nx_fail(err, NX_ENOMEM, "out of memory while opening %.200s", path);
	int rc = nx_gguf_open(&m->file, path, err);
	if (!rc)
		rc = nx_model_check_arch(m->file, err);
	if (!rc)
		rc = nx_model_read_shape(m->file, &m->shape, err);
	if (!rc)
		rc = nx_tokenizer_create(&m->tok, m->file, err);
	if (rc)
		goto fail;
	m->shape.vocab = vocab = nx_tokenizer_vocab(m->tok);
	rc = nx_model_read_i32(m->file, "llama.vocab_size", false, vocab, vocab, &vocab, err);
	if (!rc)
		rc = find_weights(m, err);
	if (!rc)
		rc = read_name(m, err);
	if (rc)
		goto fail;
	count(m);
	*out = m;
	return 0;
fail:
	nx_model_close(m);
	return rc;
}

void nx_model_close(struct nx_model *m)
{
	if (!m)
		return;
	free(m->layers);
	free(m->name);
	nx_tokenizer_destroy(m->tok);
	nx_gguf_close(m->file);
	free(m);
}

const struct nx_gguf_tensor *nx_model_weight(const struct nx_model *m, enum nx_weight_id id,
                                             int32_t layer)
{
	if ((unsigned)id >= NX_W_COUNT)
		return NULL;
	if (!weights[id].layered)
		return m->global[id];
	if (layer < 0 || layer >= m->shape.n_layers)
		return NULL;
	return m->layers[(size_t)layer * NX_W_COUNT + (size_t)id];
}

int nx_model_rows(const struct nx_model *m, enum nx_weight_id id, int32_t layer, int64_t row0,
                  int64_t n, float *dst, struct nx_err *err)
{
	const struct nx_gguf_tensor *t = nx_model_weight(m, id, layer);
	if (!t)
		return nx_fail(
			err, NX_EINVAL,
			"weight %d of layer %d does not exist; legal: weights 0 to %d, layers 0 to %d",
			(int)id, layer, NX_W_COUNT - 1, m->shape.n_layers - 1);
	const int64_t cols = t->dims[0], rows = t->dims[1];
	if (row0 < 0 || n < 0 || row0 > rows || n > rows - row0)
		return nx_fail(
			err, NX_EINVAL,
			"%lld rows from row %lld of tensor %.64s do not exist; legal: within its %lld rows",
			(long long)n, (long long)row0, t->name, (long long)rows);
	const int64_t row_bytes =
		cols / nx_gguf_block_elems(t->type) * nx_gguf_block_bytes(t->type);
	for (int64_t r = 0; r < n; r++)
		nx_dequant_row(t->type, (const uint8_t *)t->data + (row0 + r) * row_bytes,
		               dst + r * cols, cols);
	return 0;
}

const struct nx_shape *nx_model_shape(const struct nx_model *m)
{
	return &m->shape;
}

const struct nx_tokenizer *nx_model_tokenizer(const struct nx_model *m)
{
	return m->tok;
}

const struct nx_gguf *nx_model_file(const struct nx_model *m)
{
	return m->file;
}

const char *nx_model_name(const struct nx_model *m)
{
	return m->name;
}

const char *nx_model_arch(const struct nx_model *m)
{
	(void)m;
	return "llama"; /* the only one that opens */
}

const char *nx_model_file_type(const struct nx_model *m)
{
	return nx_gguf_type_name((int)m->main_type);
}

uint64_t nx_model_file_bytes(const struct nx_model *m)
{
	return nx_gguf_file_bytes(m->file);
}

uint64_t nx_model_weight_bytes(const struct nx_model *m)
{
	return m->weight_bytes;
}

int64_t nx_model_n_params(const struct nx_model *m)
{
	return m->n_params;
}
