/* SPDX-License-Identifier: Apache-2.0
 *
 * See model_internal.h and model.h: which tensors a model has, and how their rows are read.
 */
#include <stdlib.h>
#include <string.h>

#include "model/dequant.h"
#include "model/model_internal.h"

static const struct {
	const char *gguf, *hf; /* per layer: what follows "blk.N." and "model.layers.N." */
	bool layered;
} weights[NX_W_COUNT] = {
#define X(id, name, is_layered, rows, cols)                                                        \
	[NX_W_##id].gguf = name, [NX_W_##id].layered = is_layered,
	NX_WEIGHTS(X)
#undef X
		[NX_W_EMBED]
			.hf = "model.embed_tokens.weight",
	[NX_W_OUT_NORM].hf = "model.norm.weight",
	[NX_W_OUTPUT].hf = "lm_head.weight",
	[NX_W_ATTN_NORM].hf = "input_layernorm.weight",
	[NX_W_Q].hf = "self_attn.q_proj.weight",
	[NX_W_K].hf = "self_attn.k_proj.weight",
	[NX_W_V].hf = "self_attn.v_proj.weight",
	[NX_W_O].hf = "self_attn.o_proj.weight",
	[NX_W_FFN_NORM].hf = "post_attention_layernorm.weight",
	[NX_W_GATE].hf = "mlp.gate_proj.weight",
	[NX_W_UP].hf = "mlp.up_proj.weight",
	[NX_W_DOWN].hf = "mlp.down_proj.weight",
	[NX_W_Q_BIAS].hf = "self_attn.q_proj.bias",
	[NX_W_K_BIAS].hf = "self_attn.k_proj.bias",
	[NX_W_V_BIAS].hf = "self_attn.v_proj.bias",
	[NX_W_Q_NORM].hf = "self_attn.q_norm.weight",
	[NX_W_K_NORM].hf = "self_attn.k_norm.weight",
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

const char *nx_model_where(const struct nx_model *m)
{
	return m->gguf ? nx_gguf_path(m->gguf) : m->hf ? nx_hf_dir(m->hf) : m->preset->name;
}

const struct nx_tensor *nx_model_find_tensor(const struct nx_model *m, const char *name)
{
	return m->gguf ? nx_gguf_tensor(m->gguf, name) : m->hf ? nx_hf_tensor(m->hf, name) : NULL;
}

static const char *layer_prefix(const struct nx_model *m)
{
	return m->hf ? "model.layers." : "blk.";
}

const char *nx_model_weight_name(const struct nx_model *m, enum nx_weight_id id, int32_t layer,
                                 char *buf, size_t size)
{
	const char *name = m->hf ? weights[id].hf : weights[id].gguf;
	if (weights[id].layered)
		snprintf(buf, size, "%s%d.%s", layer_prefix(m), layer, name);
	else
		snprintf(buf, size, "%s", name);
	return buf;
}

static int check_dims(const struct nx_model *m, const struct nx_tensor *t, enum nx_weight_id id,
                      struct nx_err *err)
{
	const long long rows = nx_weight_rows(&m->shape, id), cols = nx_weight_cols(&m->shape, id);
	const int64_t *d = t->dims;
	if (d[0] == cols && d[1] == rows && d[2] == 1 && d[3] == 1)
		return 0;
	/* Each format in its own order of dimensions. */
	if (m->hf)
		return nx_fail(
			err, NX_EFORMAT,
			"%.200s: tensor %.96s is [%lld, %lld, %lld, %lld]; legal for this shape: [%lld, %lld]",
			nx_model_where(m), t->name, (long long)d[3], (long long)d[2],
			(long long)d[1], (long long)d[0], rows, cols);
	return nx_fail(
		err, NX_EFORMAT,
		"%.200s: tensor %.96s is [%lld, %lld, %lld, %lld]; legal for this shape: [%lld, %lld]",
		nx_model_where(m), t->name, (long long)d[0], (long long)d[1], (long long)d[2],
		(long long)d[3], cols, rows);
}

static int find_weight(struct nx_model *m, enum nx_weight_id id, int32_t layer, int tied,
                       const struct nx_tensor **out, struct nx_err *err)
{
	char name[128];
	nx_model_weight_name(m, id, layer, name, sizeof(name));
	const struct nx_tensor *t = nx_model_find_tensor(m, name);
	if (id == NX_W_OUTPUT && (tied == 1 || (tied < 0 && !t))) {
		m->shape.tied = true;
		*out = m->global[NX_W_EMBED];
		return 0;
	}
	if (!t)
		return nx_fail(err, NX_EFORMAT,
		               "%.200s: tensor %s is missing; legal: a whole model of %d layers",
		               nx_model_where(m), name, m->shape.n_layers);
	*out = t;
	return check_dims(m, t, id, err);
}

/* Does the tensor, by what follows the layer's number, belong to a layer of this shape? */
static bool is_known(const struct nx_model *m, const char *rest)
{
	for (int id = 0; id < NX_W_COUNT; id++)
		if (weights[id].layered && nx_weight_rows(&m->shape, (enum nx_weight_id)id) &&
		    !strcmp(rest, m->hf ? weights[id].hf : weights[id].gguf))
			return true;
	/* Frequencies that old checkpoints carry; config.json says them, too. */
	return m->hf && !strcmp(rest, "self_attn.rotary_emb.inv_freq");
}

/* What a layer has beyond the weights above would change the result. */
static int check_tensor(const struct nx_model *m, const char *name, struct nx_err *err)
{
	const char *prefix = layer_prefix(m);
	size_t n = strlen(prefix), len = strlen(name);
	char *rest;
	static const char *const biases[] = {"output.bias",     "output_norm.bias",
	                                     "token_embd.bias", "lm_head.bias",
	                                     "model.norm.bias", "model.embed_tokens.bias"};
	for (size_t i = 0; i < sizeof(biases) / sizeof(biases[0]); i++)
		if (strcmp(name, biases[i]) == 0)
			return nx_fail(
				err, NX_ENOTSUP,
				"%.200s: tensor %.96s: a bias there is not supported; legal: "
				"biases of q, k and v",
				nx_model_where(m), name);
	if (strncmp(name, prefix, n) != 0 || name[n] < '0' || name[n] > '9')
		return 0;
	unsigned long layer = strtoul(name + n, &rest, 10);
	if (*rest != '.')
		return 0;
	if (layer >= (unsigned long)m->shape.n_layers)
		return nx_fail(
			err, NX_EFORMAT,
			"%.200s: tensor %.96s belongs to layer %lu, but %s is %d; legal: layers 0 to %d",
			nx_model_where(m), name, layer, m->hf ? "num_hidden_layers" : "block_count",
			m->shape.n_layers, m->shape.n_layers - 1);
	if (is_known(m, rest + 1))
		return 0;
	if (len > 5 && strcmp(name + len - 5, ".bias") == 0)
		return nx_fail(err, NX_ENOTSUP,
		               "%.200s: tensor %.96s: biases are not supported, but those of q, k "
		               "and v in all layers",
		               nx_model_where(m), name);
	return nx_fail(
		err, NX_ENOTSUP,
		"%.200s: tensor %.96s is no part of a %s layer that is computed; legal: the family's own weights, without adapters",
		nx_model_where(m), name, m->arch);
}

static int check_tensors(const struct nx_model *m, struct nx_err *err)
{
	int rc = 0;
	if (m->gguf)
		for (int64_t i = 0; i < nx_gguf_n_tensors(m->gguf) && !rc; i++)
			rc = check_tensor(m, nx_gguf_tensor_at(m->gguf, i)->name, err);
	else
		for (size_t i = 0; i < nx_hf_n_tensors(m->hf) && !rc; i++)
			rc = check_tensor(m, nx_hf_tensor_at(m->hf, i)->name, err);
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
		const int64_t elems = nx_weight_rows(&m->shape, (enum nx_weight_id)id) *
		                      nx_weight_cols(&m->shape, (enum nx_weight_id)id);
		if (!elems || (id == NX_W_OUTPUT && m->shape.tied))
			continue;
		const int32_t n = weights[id].layered ? m->shape.n_layers : 1;
		m->n_params += n * elems;
		for (int32_t l = 0; l < n; l++) {
			const struct nx_tensor *t = nx_model_weight(m, (enum nx_weight_id)id, l);
			if (!t)
				break;
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

int nx_model_find_weights(struct nx_model *m, int tied, struct nx_err *err)
{
	if (m->preset) {
		count(m);
		return 0;
	}
	int rc = check_tensors(m, err);
	m->layers = calloc((size_t)m->shape.n_layers * NX_W_COUNT, sizeof(*m->layers));
	if (!rc && !m->layers)
		return nx_fail(err, NX_ENOMEM, "out of memory while opening %.200s",
		               nx_model_where(m));
	for (int id = 0; id < NX_W_COUNT && !rc; id++) {
		if (!nx_weight_rows(&m->shape, (enum nx_weight_id)id))
			continue;
		if (!weights[id].layered) {
			rc = find_weight(m, (enum nx_weight_id)id, 0, tied, &m->global[id], err);
			continue;
		}
		for (int32_t l = 0; l < m->shape.n_layers && !rc; l++)
			rc = find_weight(m, (enum nx_weight_id)id, l, tied,
			                 &m->layers[(size_t)l * NX_W_COUNT + (size_t)id], err);
	}
	if (!rc)
		count(m);
	return rc;
}

const struct nx_tensor *nx_model_weight(const struct nx_model *m, enum nx_weight_id id,
                                        int32_t layer)
{
	if ((unsigned)id >= NX_W_COUNT || !m->layers)
		return NULL;
	if (!weights[id].layered)
		return m->global[id];
	if (layer < 0 || layer >= m->shape.n_layers)
		return NULL;
	return m->layers[(size_t)layer * NX_W_COUNT + (size_t)id];
}

/* ---- rows ------------------------------------------------------------------------------------- */

/* Where element i of a head lies in a file that has the halves of its pairs apart. */
static int64_t apart(const struct nx_shape *s, int64_t i)
{
	const int64_t head = i / s->head_dim * s->head_dim, j = i - head;
	return j < s->rope_dim ? head + j / 2 + j % 2 * (s->rope_dim / 2) : i;
}

static bool has_apart_rows(const struct nx_model *m, enum nx_weight_id id)
{
	return m->half_split && (id == NX_W_Q || id == NX_W_K);
}

static bool has_apart_elements(const struct nx_model *m, enum nx_weight_id id)
{
	return m->half_split &&
	       (id == NX_W_Q_BIAS || id == NX_W_K_BIAS || id == NX_W_Q_NORM || id == NX_W_K_NORM);
}

static int reorder(const struct nx_model *m, float *v, int64_t n, struct nx_err *err)
{
	float *copy = malloc((size_t)n * sizeof(*copy));
	if (!copy)
		return nx_fail(err, NX_ENOMEM, "out of memory for %lld elements", (long long)n);
	memcpy(copy, v, (size_t)n * sizeof(*copy));
	for (int64_t i = 0; i < n; i++)
		v[i] = copy[apart(&m->shape, i)];
	free(copy);
	return 0;
}

static bool is_norm(enum nx_weight_id id)
{
	return id == NX_W_OUT_NORM || id == NX_W_ATTN_NORM || id == NX_W_FFN_NORM ||
	       id == NX_W_Q_NORM || id == NX_W_K_NORM;
}

/* Outputs of a random matrix have about the variance of its inputs; a bias is small beside them. */
static float random_std(int64_t cols)
{
	return 1.0f / __builtin_sqrtf((float)cols);
}

static int32_t random_layer(enum nx_weight_id id, int32_t layer)
{
	return weights[id].layered ? layer : 0;
}

static void make_rows(const struct nx_model *m, enum nx_weight_id id, int32_t layer, int64_t row0,
                      int64_t n, int64_t cols, float *dst)
{
	/* Norms are 1. */
	for (int64_t i = 0; i < n * cols && is_norm(id); i++)
		dst[i] = 1.0f;
	if (!is_norm(id))
		nx_random_rows(m->seed, (uint32_t)id, random_layer(id, layer), row0, n, cols,
		               random_std(cols), dst);
}

int64_t nx_model_file_row(const struct nx_model *m, enum nx_weight_id id, int64_t row)
{
	return has_apart_rows(m, id) ? apart(&m->shape, row) : row;
}

int nx_model_check_rows(const struct nx_model *m, enum nx_weight_id *id, int32_t layer,
                        int64_t row0, int64_t n, struct nx_err *err)
{
	if (*id == NX_W_OUTPUT && m->shape.tied)
		*id = NX_W_EMBED;
	const int64_t rows = nx_weight_rows(&m->shape, *id);
	char name[128];
	if (!rows || (weights[*id].layered && (layer < 0 || layer >= m->shape.n_layers)))
		return nx_fail(
			err, NX_EINVAL,
			"weight %d of layer %d does not exist; legal: weights 0 to %d that the shape has, "
			"layers 0 to %d",
			(int)*id, layer, NX_W_COUNT - 1, m->shape.n_layers - 1);
	if (row0 < 0 || n < 0 || row0 > rows || n > rows - row0)
		return nx_fail(
			err, NX_EINVAL,
			"%lld rows from row %lld of tensor %.64s do not exist; legal: within its %lld rows",
			(long long)n, (long long)row0,
			nx_model_weight_name(m, *id, layer, name, sizeof(name)), (long long)rows);
	return 0;
}

int nx_model_row_keys(const struct nx_model *m, enum nx_weight_id id, int32_t layer, int64_t row0,
                      int64_t n, uint64_t *key, float *scale, struct nx_err *err)
{
	int rc = nx_model_check_rows(m, &id, layer, row0, n, err);
	if (rc)
		return rc;
	if (!m->preset || is_norm(id))
		return nx_fail(err, NX_ENOTSUP, "weight %d is not made from keys", (int)id);
	for (int64_t r = 0; r < n; r++)
		key[r] =
			nx_random_row_key(m->seed, (uint32_t)id, random_layer(id, layer), row0 + r);
	*scale = nx_random_scale(random_std(nx_weight_cols(&m->shape, id)));
	return 0;
}

int nx_model_rows(const struct nx_model *m, enum nx_weight_id id, int32_t layer, int64_t row0,
                  int64_t n, float *dst, struct nx_err *err)
{
	int rc = nx_model_check_rows(m, &id, layer, row0, n, err);
	if (rc)
		return rc;
	const int64_t cols = nx_weight_cols(&m->shape, id);
	if (m->preset) {
		make_rows(m, id, layer, row0, n, cols, dst);
		return 0;
	}
	const struct nx_tensor *t = nx_model_weight(m, id, layer);
	const int64_t row_bytes =
		cols / nx_gguf_block_elems(t->type) * nx_gguf_block_bytes(t->type);
	for (int64_t r = 0; r < n; r++) {
		const int64_t from = nx_model_file_row(m, id, row0 + r);
		nx_dequant_row(t->type, (const uint8_t *)t->data + from * row_bytes, dst + r * cols,
		               cols);
	}
	return n && has_apart_elements(m, id) ? reorder(m, dst, cols, err) : 0;
}
