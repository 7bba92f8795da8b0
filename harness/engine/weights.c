/* SPDX-License-Identifier: Apache-2.0
 *
 * engine/weights.c: packs a model's matrices for a device, fused the way a step uses them: q, k, v in one
 * product; gate and up interleaved for the SwiGLU epilogue.
 */
#include <stdlib.h>
#include <string.h>

#include "engine/impl.h"
#include "nexus_kernels/weight_quant.h"

/* What is wanted of a matrix's rows: elements, codes or keys. */
struct reader {
	const struct nx_weight_source *src;
	float *rows;                   /* [.., cols], or NULL */
	uint8_t *codes;                /* [.., cols], or NULL */
	struct nx_quant_param *params; /* [.., groups] */
	int64_t cols, groups;
	uint64_t *key;
	float *scale;
};

/* n rows of a weight of the model from its row row0, to row `to` of what is wanted. */
static int read_run(const struct reader *r, enum nx_weight_id id, int64_t row0, int64_t n,
                    int64_t to, struct nx_err *err)
{
	const struct nx_weight_source *s = r->src;
	if (r->codes)
		return nx_model_codes(s->model, id, s->layer, row0, n, r->codes + to * r->cols,
		                      r->params + to * r->groups, err);
	return r->rows ? nx_model_rows(s->model, id, s->layer, row0, n, r->rows + to * r->cols, err)
	               : nx_model_row_keys(s->model, id, s->layer, row0, n, r->key + to, r->scale,
	                                   err);
}

/* Rows of q, k, v below one another. */
static int read_qkv(const struct reader *r, int64_t row0, int64_t n, struct nx_err *err)
{
	static const enum nx_weight_id parts[] = {NX_W_Q, NX_W_K, NX_W_V};
	int64_t begin = 0;
	int rc = 0;
	for (int i = 0; i < 3 && !rc; i++) {
		int64_t rows = nx_weight_rows(nx_model_shape(r->src->model), parts[i]);
		int64_t lo = row0 > begin ? row0 : begin;
		int64_t hi = row0 + n < begin + rows ? row0 + n : begin + rows;
		if (lo < hi)
			rc = read_run(r, parts[i], lo - begin, hi - lo, lo - row0, err);
		begin += rows;
	}
	return rc;
}

/* Rows gate_0, up_0, gate_1, up_1, ... */
static int read_gate_up(const struct reader *r, int64_t row0, int64_t n, struct nx_err *err)
{
	int rc = 0;
	for (int64_t i = row0; i < row0 + n && !rc; i++)
		rc = read_run(r, i & 1 ? NX_W_UP : NX_W_GATE, i / 2, 1, i - row0, err);
	return rc;
}

/* The first of its weights says which matrix it is. */
static int read_matrix(const struct reader *r, int64_t row0, int64_t n, struct nx_err *err)
{
	switch (r->src->id) {
	case NX_W_Q: return read_qkv(r, row0, n, err);
	case NX_W_GATE: return read_gate_up(r, row0, n, err);
	default: return read_run(r, r->src->id, row0, n, 0, err);
	}
}

static int rows_of(void *ctx, int64_t row0, int64_t n, float *dst, struct nx_err *err)
{
	const struct nx_weight_source *s = ctx;
	const struct reader r = {
		.src = s, .rows = dst, .cols = nx_weight_cols(nx_model_shape(s->model), s->id)};
	return read_matrix(&r, row0, n, err);
}

static int codes_of(void *ctx, int64_t row0, int64_t n, uint8_t *codes,
                    struct nx_quant_param *params, struct nx_err *err)
{
	const struct nx_weight_source *s = ctx;
	struct nx_weight_quant f;
	int64_t cols = nx_weight_cols(nx_model_shape(s->model), s->id);
	nx_model_code_format(s->model, s->id, s->layer, &f);
	const struct reader r = {.src = s,
	                         .codes = codes,
	                         .params = params,
	                         .cols = cols,
	                         .groups = nx_weight_groups(&f, cols)};
	return read_matrix(&r, row0, n, err);
}

static int keys_of(void *ctx, int64_t row0, int64_t n, uint64_t *key, float *scale,
                   struct nx_err *err)
{
	const struct reader r = {.src = ctx, .key = key, .scale = scale};
	return read_matrix(&r, row0, n, err);
}

void nx_weights_desc(const struct nx_weights *w, enum nx_weight_role role, int32_t layer,
                     struct nx_weight_source *src, struct nx_weight_desc *out)
{
	const struct nx_shape *s = &w->shape;
	int64_t heads = (int64_t)s->n_heads * s->head_dim, d = s->d_model,
		kv = (int64_t)s->n_kv_heads * s->head_dim;
	const struct {
		enum nx_weight_id id;
		int64_t n, k;
	} matrices[] = {
		[NX_WEIGHT_EMBED] = {NX_W_EMBED, s->vocab, d},
		[NX_WEIGHT_OUTPUT] = {s->tied ? NX_W_EMBED : NX_W_OUTPUT, s->vocab, d},
		[NX_WEIGHT_QKV] = {NX_W_Q, heads + 2 * kv, d},
		[NX_WEIGHT_O] = {NX_W_O, d, heads},
		[NX_WEIGHT_GATE_UP] = {NX_W_GATE, 2 * (int64_t)s->d_ff, d},
		[NX_WEIGHT_DOWN] = {NX_W_DOWN, d, s->d_ff},
	};
	*src = (struct nx_weight_source){
		.model = w->model, .id = matrices[role].id, .layer = layer};
	*out = (struct nx_weight_desc){.n = matrices[role].n,
	                               .k = matrices[role].k,
	                               .dtype = w->dtype,
	                               .rows = rows_of,
	                               .ctx = src,
	                               .lookup = role == NX_WEIGHT_EMBED,
	                               .keys = nx_model_is_random(w->model) ? keys_of : NULL};
}

void nx_weights_codes(const struct nx_weights *w, struct nx_weight_source *src,
                      struct nx_weight_desc *d)
{
	static const enum nx_weight_id qkv[] = {NX_W_Q, NX_W_K, NX_W_V},
				       gate_up[] = {NX_W_GATE, NX_W_UP};
	const enum nx_weight_id *ids = src->id == NX_W_Q      ? qkv
	                               : src->id == NX_W_GATE ? gate_up
	                                                      : &src->id;
	int n = src->id == NX_W_Q ? 3 : src->id == NX_W_GATE ? 2 : 1;
	struct nx_weight_quant first = {0}, f;
	for (int i = 0; i < n; i++) {
		if (!nx_model_code_format(w->model, ids[i], src->layer, &f))
			return;
		if (i == 0)
			first = f;
		else if (f.code != first.code || f.zero != first.zero ||
		         f.group_size != first.group_size)
			return;
	}
	d->quant = first;
	d->codes = codes_of;
}

/* Where a matrix is kept. */
static struct nx_weight **place_of(const struct nx_weights *w, enum nx_weight_role role,
                                   int32_t layer)
{
	struct nx_layer_weights *lw = &w->layers[layer];
	struct nx_weights *all = (struct nx_weights *)(uintptr_t)w;
	switch (role) {
	case NX_WEIGHT_EMBED: return &all->embed;
	case NX_WEIGHT_OUTPUT: return &all->output;
	case NX_WEIGHT_QKV: return &lw->qkv;
	case NX_WEIGHT_O: return &lw->o;
	case NX_WEIGHT_GATE_UP: return &lw->gate_up;
	default: return &lw->down;
	}
}

static int pack(struct nx_weights *w, enum nx_weight_role role, int32_t layer, struct nx_err *err)
{
	struct nx_weight_source src;
	struct nx_weight_desc d;
	struct nx_weight **out = place_of(w, role, layer);
	nx_weights_desc(w, role, layer, &src, &d);
	int rc = w->dev->ops->weight_create(w->dev->dev, &d, out, err);
	if (!rc)
		w->bytes += w->dev->ops->weight_bytes(*out);
	return rc;
}

static int32_t *users_of(const struct nx_weights *w, enum nx_weight_role role, int32_t layer)
{
	return &w->users[(size_t)layer * NX_WEIGHT_ROLE_COUNT + (size_t)role];
}

int nx_weights_take(struct nx_weights *w, enum nx_weight_role role, int32_t layer,
                    struct nx_err *err)
{
	int rc = *place_of(w, role, layer) ? 0 : pack(w, role, layer, err);
	if (!rc)
		++*users_of(w, role, layer);
	return rc;
}

void nx_weights_give(struct nx_weights *w, enum nx_weight_role role, int32_t layer)
{
	--*users_of(w, role, layer);
}

void nx_weights_shed(struct nx_weights *w, enum nx_weight_role role, int32_t layer)
{
	struct nx_weight **at = place_of(w, role, layer);
	if (!*at || *at == w->embed || *users_of(w, role, layer))
		return;
	w->bytes -= w->dev->ops->weight_bytes(*at);
	w->dev->ops->weight_destroy(w->dev->dev, *at);
	*at = NULL;
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
	return rc ? rc : vector(w, out, tmp, nx_weight_cols(&w->shape, id), err);
}

/* [rows of q, k, v] */
static int64_t qkv_width(const struct nx_shape *s)
{
	return (int64_t)(s->n_heads + 2 * s->n_kv_heads) * s->head_dim;
}

/* What some families have between the product of q, k, v and RoPE. */
static int load_extras(struct nx_weights *w, const struct nx_model *m, int32_t l, float *tmp,
                       struct nx_err *err)
{
	static const enum nx_weight_id parts[] = {NX_W_Q_BIAS, NX_W_K_BIAS, NX_W_V_BIAS};
	struct nx_layer_weights *lw = &w->layers[l];
	const struct nx_shape *s = &w->shape;
	int64_t at = 0;
	int rc = 0;
	for (size_t i = 0; s->qkv_bias && i < 3 && !rc; i++) {
		rc = nx_model_rows(m, parts[i], l, 0, 1, tmp + at, err);
		at += nx_weight_cols(s, parts[i]);
	}
	if (!rc && s->qkv_bias)
		rc = vector(w, &lw->bias, tmp, at, err);
	if (!rc && s->qk_norm)
		rc = norm(w, &lw->q_norm, m, NX_W_Q_NORM, l, tmp, err);
	if (!rc && s->qk_norm)
		rc = norm(w, &lw->k_norm, m, NX_W_K_NORM, l, tmp, err);
	return rc;
}

static int load_layer(struct nx_weights *w, const struct nx_model *m, int32_t l, bool all,
                      float *tmp, struct nx_err *err)
{
	struct nx_layer_weights *lw = &w->layers[l];
	int rc = 0;
	for (int role = NX_WEIGHT_QKV; role < NX_WEIGHT_ROLE_COUNT && all && !rc; role++)
		rc = pack(w, (enum nx_weight_role)role, l, err);
	if (!rc)
		rc = norm(w, &lw->attn_norm, m, NX_W_ATTN_NORM, l, tmp, err);
	if (!rc)
		rc = norm(w, &lw->ffn_norm, m, NX_W_FFN_NORM, l, tmp, err);
	return rc ? rc : load_extras(w, m, l, tmp, err);
}

/* all: the matrices, too, and not the embedding alone. */
static int load(struct nx_weights *w, const struct nx_model *m, bool all, float *tmp,
                struct nx_err *err)
{
	const struct nx_shape *s = &w->shape;
	int rc = pack(w, NX_WEIGHT_EMBED, 0, err);
	if (!rc && s->tied)
		w->output = w->embed;
	else if (!rc && all)
		rc = pack(w, NX_WEIGHT_OUTPUT, 0, err);
	if (!rc)
		rc = norm(w, &w->out_norm, m, NX_W_OUT_NORM, 0, tmp, err);
	for (int32_t l = 0; l < s->n_layers && !rc; l++)
		rc = load_layer(w, m, l, all, tmp, err);
	if (rc)
		return rc;
	memcpy(tmp, nx_model_inv_freq(m), (size_t)(s->rope_dim / 2) * sizeof(*tmp));
	return vector(w, &w->inv_freq, tmp, s->rope_dim / 2, err);
}

static struct nx_weights *start(const struct nx_model *model, struct nx_device *dev,
                                enum nx_dtype dtype)
{
	struct nx_weights *w = calloc(1, sizeof(*w));
	if (!w)
		return NULL;
	w->dev = dev;
	w->model = model;
	w->shape = *nx_model_shape(model);
	w->dtype = dtype;
	w->tokenizer = nx_model_tokenizer(model);
	return w;
}

static int create(struct nx_weights **out, const struct nx_model *model, struct nx_device *dev,
                  enum nx_dtype dtype, bool all, struct nx_err *err)
{
	const struct nx_shape *s = nx_model_shape(model);
	struct nx_weights *w = start(model, dev, dtype);
	int64_t longest = s->d_model > s->rope_dim ? s->d_model : s->rope_dim;
	size_t bytes = (size_t)(longest > qkv_width(s) ? longest : qkv_width(s)) * sizeof(float);
	float *tmp;
	int rc;
	if (!w)
		return nx_fail(err, NX_ENOMEM, "out of memory for the weights of %s",
		               nx_model_name(model));
	w->layers = calloc((size_t)s->n_layers, sizeof(*w->layers));
	w->users = calloc((size_t)s->n_layers * NX_WEIGHT_ROLE_COUNT, sizeof(*w->users));
	tmp = dev->ops->host_alloc(dev->dev, bytes); /* what copy() reads */
	rc = w->layers && w->users && tmp
	             ? load(w, model, all, tmp, err)
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

int nx_weights_create(struct nx_weights **out, const struct nx_model *model, struct nx_device *dev,
                      enum nx_dtype dtype, struct nx_err *err)
{
	return create(out, model, dev, dtype, true, err);
}

int nx_weights_start(struct nx_weights **out, const struct nx_model *model, struct nx_device *dev,
                     enum nx_dtype dtype, struct nx_err *err)
{
	return create(out, model, dev, dtype, false, err);
}

int nx_weights_plan(struct nx_weights **out, const struct nx_model *model, struct nx_device *dev,
                    enum nx_dtype dtype, struct nx_err *err)
{
	struct nx_weights *w = start(model, dev, dtype);
	if (!w)
		return nx_fail(err, NX_ENOMEM, "out of memory for a forecast of %s",
		               nx_model_name(model));
	w->planned = true;
	w->bytes = nx_weights_forecast(w, 0, 0);
	*out = w;
	return 0;
}

void nx_weights_destroy(struct nx_weights *w)
{
	if (!w)
		return;
	const struct nx_device_ops *ops = w->dev->ops;
	void *dev = w->dev->dev;
	size_t norm_bytes = (size_t)w->shape.d_model * sizeof(float),
	       head_bytes = (size_t)w->shape.head_dim * sizeof(float);
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
		if (lw->bias)
			ops->free(dev, lw->bias, (size_t)qkv_width(&w->shape) * sizeof(float));
		if (lw->q_norm)
			ops->free(dev, lw->q_norm, head_bytes);
		if (lw->k_norm)
			ops->free(dev, lw->k_norm, head_bytes);
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
	free(w->users);
	free(w);
}

uint64_t nx_weights_bytes(const struct nx_weights *w)
{
	return w->bytes;
}

uint64_t nx_weights_vector_bytes(const struct nx_weights *w)
{
	const struct nx_shape *s = &w->shape;
	uint64_t d = (uint64_t)s->d_model, layers = (uint64_t)s->n_layers;
	uint64_t n = d * (2 * layers + 1) + (uint64_t)s->rope_dim / 2;
	if (s->qkv_bias)
		n += layers * (uint64_t)qkv_width(s);
	if (s->qk_norm)
		n += layers * 2 * (uint64_t)s->head_dim;
	return n * sizeof(float);
}

uint64_t nx_weights_forecast_one(const struct nx_weights *w, enum nx_weight_role role,
                                 int32_t layer, int32_t rows)
{
	struct nx_weight_source src;
	struct nx_weight_desc d;
	nx_weights_desc(w, role, layer, &src, &d);
	return w->dev->ops->weight_forecast(w->dev->dev, &d, rows);
}

uint64_t nx_weights_forecast(const struct nx_weights *w, int32_t max_rows, int32_t max_logits)
{
	const struct nx_shape *s = &w->shape;
	uint64_t sum = nx_weights_vector_bytes(w);
	for (int role = 0; role < NX_WEIGHT_ROLE_COUNT; role++) {
		bool once = role == NX_WEIGHT_EMBED || role == NX_WEIGHT_OUTPUT;
		int32_t rows = role == NX_WEIGHT_OUTPUT ? max_logits : max_rows;
		if (role == NX_WEIGHT_OUTPUT && s->tied)
			continue;
		if (role == NX_WEIGHT_EMBED)
			rows = s->tied ? max_logits : 0;
		sum += nx_weights_forecast_one(w, (enum nx_weight_role)role, 0, rows) *
		       (uint64_t)(once ? 1 : s->n_layers);
	}
	return sum;
}

static int prepare(const struct nx_weights *w, struct nx_weight *x, int32_t rows, uint64_t *sum,
                   struct nx_err *err)
{
	uint64_t bytes = 0;
	int rc = w->dev->ops->weight_prepare(w->dev->dev, x, rows, &bytes, err);
	*sum += bytes;
	return rc;
}

int nx_weights_prepare(const struct nx_weights *w, const struct nx_packed *packed, int32_t max_rows,
                       int32_t max_logits, uint64_t *bytes, struct nx_err *err)
{
	uint64_t sum = nx_weights_vector_bytes(w);
	/* What a technique packed is not multiplied with in its own form. */
	int32_t logits = packed && packed[0].w[NX_WEIGHT_OUTPUT] ? 0 : max_logits;
	int rc = prepare(w, w->embed, w->shape.tied ? logits : 0, &sum, err);
	if (!rc && !w->shape.tied && w->output)
		rc = prepare(w, w->output, logits, &sum, err);
	for (int32_t l = 0; l < w->shape.n_layers && !rc; l++) {
		const struct nx_layer_weights *lw = &w->layers[l];
		struct nx_weight *const all[NX_WEIGHT_ROLE_COUNT] = {
			[NX_WEIGHT_QKV] = lw->qkv,
			[NX_WEIGHT_O] = lw->o,
			[NX_WEIGHT_GATE_UP] = lw->gate_up,
			[NX_WEIGHT_DOWN] = lw->down,
		};
		for (int role = 0; role < NX_WEIGHT_ROLE_COUNT && !rc; role++)
			if (all[role])
				rc = prepare(w, all[role],
				             packed && packed[l].w[role] ? 0 : max_rows, &sum, err);
	}
	if (!rc)
		*bytes = sum;
	return rc;
}
