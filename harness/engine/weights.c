/* SPDX-License-Identifier: Apache-2.0
 *
 * engine/weights.c: packs a model's matrices for a device, fused the way a step uses them: q, k, v in one
 * product; gate and up interleaved for the SwiGLU epilogue.
 */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "engine/impl.h"

static int rows_one(void *ctx, int64_t row0, int64_t n, float *dst, struct nx_err *err)
{
	const struct nx_weight_source *s = ctx;
	return nx_model_rows(s->model, s->id, s->layer, row0, n, dst, err);
}

static int rows_qkv(void *ctx, int64_t row0, int64_t n, float *dst, struct nx_err *err)
{
	static const enum nx_weight_id parts[] = {NX_W_Q, NX_W_K, NX_W_V};
	const struct nx_weight_source *s = ctx;
	const struct nx_shape *shape = nx_model_shape(s->model);
	int64_t begin = 0, cols = shape->d_model;
	for (int i = 0; i < 3; i++) {
		int64_t rows = nx_weight_rows(shape, parts[i]);
		int64_t lo = row0 > begin ? row0 : begin;
		int64_t hi = row0 + n < begin + rows ? row0 + n : begin + rows;
		if (lo < hi) {
			int rc = nx_model_rows(s->model, parts[i], s->layer, lo - begin, hi - lo,
			                       dst + (lo - row0) * cols, err);
			if (rc)
				return rc;
		}
		begin += rows;
	}
	return 0;
}

/* Rows gate_0, up_0, gate_1, up_1, ... */
static int rows_gate_up(void *ctx, int64_t row0, int64_t n, float *dst, struct nx_err *err)
{
	const struct nx_weight_source *s = ctx;
	int64_t cols = nx_model_shape(s->model)->d_model;
	for (int64_t i = 0; i < n; i++) {
		int64_t r = row0 + i;
		int rc = nx_model_rows(s->model, r & 1 ? NX_W_UP : NX_W_GATE, s->layer, r / 2, 1,
		                       dst + i * cols, err);
		if (rc)
			return rc;
	}
	return 0;
}

void nx_weights_desc(const struct nx_weights *w, enum nx_weight_role role, int32_t layer,
                     struct nx_weight_source *src, struct nx_weight_desc *out)
{
	const struct nx_shape *s = &w->shape;
	int64_t heads = (int64_t)s->n_heads * s->head_dim, d = s->d_model,
		kv = (int64_t)s->n_kv_heads * s->head_dim;
	const struct {
		nx_row_source rows;
		enum nx_weight_id id;
		int64_t n, k;
	} matrices[] = {
		[NX_WEIGHT_EMBED] = {rows_one, NX_W_EMBED, s->vocab, d},
		[NX_WEIGHT_OUTPUT] = {rows_one, s->tied ? NX_W_EMBED : NX_W_OUTPUT, s->vocab, d},
		[NX_WEIGHT_QKV] = {rows_qkv, NX_W_Q, heads + 2 * kv, d},
		[NX_WEIGHT_O] = {rows_one, NX_W_O, d, heads},
		[NX_WEIGHT_GATE_UP] = {rows_gate_up, NX_W_GATE, 2 * (int64_t)s->d_ff, d},
		[NX_WEIGHT_DOWN] = {rows_one, NX_W_DOWN, d, s->d_ff},
	};
	*src = (struct nx_weight_source){
		.model = w->model, .id = matrices[role].id, .layer = layer};
	*out = (struct nx_weight_desc){.n = matrices[role].n,
	                               .k = matrices[role].k,
	                               .dtype = w->dtype,
	                               .rows = matrices[role].rows,
	                               .ctx = src,
	                               .lookup = role == NX_WEIGHT_EMBED};
}

static int pack(struct nx_weights *w, struct nx_weight **out, enum nx_weight_role role,
                int32_t layer, struct nx_err *err)
{
	struct nx_weight_source src;
	struct nx_weight_desc d;
	nx_weights_desc(w, role, layer, &src, &d);
	int rc = w->dev->ops->weight_create(w->dev->dev, &d, out, err);
	if (!rc)
		w->bytes += w->dev->ops->weight_bytes(*out);
	return rc;
}

static int vector(struct nx_weights *w, float **out, const float *host, int64_t n,
                  struct nx_err *err)
{
	size_t bytes = (size_t)n * sizeof(float);
	*out = w->dev->ops->alloc(w->dev->dev, bytes);
	if (!*out)
		return nx_fail(err, NX_ENOMEM, "the device has no room for a norm of %lld elements",
		               (long long)n);
	w->bytes += bytes;
	int rc = w->dev->ops->copy(w->dev->dev, NULL, *out, host, bytes, NX_H2D, err);
	/* The next vector goes through the same host memory. */
	return rc ? rc : w->dev->ops->stream_sync(w->dev->dev, NULL, err);
}

static int norm(struct nx_weights *w, float **out, const struct nx_model *m, enum nx_weight_id id,
                int32_t layer, float *tmp, struct nx_err *err)
{
	int rc = nx_model_rows(m, id, layer, 0, 1, tmp, err);
	return rc ? rc : vector(w, out, tmp, w->shape.d_model, err);
}

static int load_layer(struct nx_weights *w, const struct nx_model *m, int32_t l, float *tmp,
                      struct nx_err *err)
{
	struct nx_layer_weights *lw = &w->layers[l];
	int rc = pack(w, &lw->qkv, NX_WEIGHT_QKV, l, err);
	if (!rc)
		rc = pack(w, &lw->o, NX_WEIGHT_O, l, err);
	if (!rc)
		rc = pack(w, &lw->gate_up, NX_WEIGHT_GATE_UP, l, err);
	if (!rc)
		rc = pack(w, &lw->down, NX_WEIGHT_DOWN, l, err);
	if (!rc)
		rc = norm(w, &lw->attn_norm, m, NX_W_ATTN_NORM, l, tmp, err);
	if (!rc)
		rc = norm(w, &lw->ffn_norm, m, NX_W_FFN_NORM, l, tmp, err);
	return rc;
}

static int load(struct nx_weights *w, const struct nx_model *m, float *tmp, struct nx_err *err)
{
	const struct nx_shape *s = &w->shape;
	int rc = pack(w, &w->embed, NX_WEIGHT_EMBED, 0, err);
	if (!rc && s->tied)
		w->output = w->embed;
	else if (!rc)
		rc = pack(w, &w->output, NX_WEIGHT_OUTPUT, 0, err);
	if (!rc)
		rc = norm(w, &w->out_norm, m, NX_W_OUT_NORM, 0, tmp, err);
	for (int32_t l = 0; l < s->n_layers && !rc; l++)
		rc = load_layer(w, m, l, tmp, err);
	if (rc)
		return rc;
	for (int32_t i = 0; i < s->rope_dim / 2; i++)
		tmp[i] = (float)pow((double)s->rope_theta, -2.0 * i / s->rope_dim);
	return vector(w, &w->inv_freq, tmp, s->rope_dim / 2, err);
}

int nx_weights_create(struct nx_weights **out, const struct nx_model *model, struct nx_device *dev,
                      enum nx_dtype dtype, struct nx_err *err)
{
	const struct nx_shape *s = nx_model_shape(model);
	struct nx_weights *w = calloc(1, sizeof(*w));
	size_t bytes =
		(size_t)(s->d_model > s->rope_dim ? s->d_model : s->rope_dim) * sizeof(float);
	float *tmp;
	int rc;
	if (!w)
		return nx_fail(err, NX_ENOMEM, "out of memory for the weights of %s",
		               nx_model_name(model));
	w->dev = dev;
	w->model = model;
	w->shape = *s;
	w->dtype = dtype;
	w->tokenizer = nx_model_tokenizer(model);
	w->layers = calloc((size_t)s->n_layers, sizeof(*w->layers));
	tmp = dev->ops->host_alloc(dev->dev, bytes); /* what copy() reads */
	rc = w->layers && tmp ? load(w, model, tmp, err)
	                      : nx_fail(err, NX_ENOMEM, "out of memory for the weights of %s",
	                                nx_model_name(model));
	if (tmp)
		dev->ops->host_free(dev->dev, tmp, bytes);
	if (rc) {
		nx_weights_destroy(w);
		return rc;
	}
	*out = w;
	return 0;
}

void nx_weights_destroy(struct nx_weights *w)
{
	if (!w)
		return;
	const struct nx_device_ops *ops = w->dev->ops;
	void *dev = w->dev->dev;
	size_t norm_bytes = (size_t)w->shape.d_model * sizeof(float);
	for (int32_t l = 0; w->layers && l < w->shape.n_layers; l++) {
		struct nx_layer_weights *lw = &w->layers[l];
		struct nx_weight *all[] = {lw->qkv, lw->o, lw->gate_up, lw->down};
		for (size_t i = 0; i < sizeof(all) / sizeof(all[0]); i++)
			if (all[i])
				ops->weight_destroy(dev, all[i]);
		if (lw->attn_norm)
			ops->free(dev, lw->attn_norm, norm_bytes);
		if (lw->ffn_norm)
			ops->free(dev, lw->ffn_norm, norm_bytes);
	}
	if (w->output && w->output != w->embed)
		ops->weight_destroy(dev, w->output);
	if (w->embed)
		ops->weight_destroy(dev, w->embed);
	if (w->out_norm)
		ops->free(dev, w->out_norm, norm_bytes);
	if (w->inv_freq)
		ops->free(dev, w->inv_freq, (size_t)(w->shape.rope_dim / 2) * sizeof(float));
	free(w->layers);
	free(w);
}

uint64_t nx_weights_bytes(const struct nx_weights *w)
{
	return w->bytes;
}

uint64_t nx_weights_forecast(const struct nx_shape *s, enum nx_dtype dtype)
{
	uint64_t d = (uint64_t)s->d_model, hd = (uint64_t)s->head_dim;
	uint64_t layer =
		d * hd * (uint64_t)(2 * s->n_heads + 2 * s->n_kv_heads) + 3 * d * (uint64_t)s->d_ff;
	uint64_t embed = d * (uint64_t)s->vocab * (s->tied ? 1 : 2);
	uint64_t norms = (d * (2 * (uint64_t)s->n_layers + 1)) * sizeof(float);
	return (layer * (uint64_t)s->n_layers + embed) * nx_dtype_bytes(dtype) + norms;
}
