/* SPDX-License-Identifier: Apache-2.0
 *
 * test/plugins/weight_int8.c: symmetric int8 weights, a scale for each output feature. The product is plain C: each
 * output is one sum in double over the inputs in order, so it is the same for every M.
 */
#include <math.h>

#include "hand.h"

enum { C_PACKED, C_LEFT, C_CALLS, C_COUNT };
#define STAGE_ROWS 64

struct int8_codec {
	const struct nx_host *host;
	enum nx_dtype act;
	float *x; /* device, [max_k] one row of a product, as floats */
	int64_t max_k;
	uint64_t n[C_COUNT];
};

/* Scales of all rows, then the rows' bytes: one piece of device memory. */
struct matrix {
	int64_t n, k;
	size_t bytes;
	uint8_t *data;
};

struct product {
	struct nx_linear a;
	struct matrix w;
	enum nx_dtype act;
	float *x;
};

static int create(void **self, const struct nx_host *host, const struct nx_value *values,
                  struct nx_err *err)
{
	struct nx_device_info info;
	struct int8_codec *c = calloc(1, sizeof(*c));
	(void)values;
	if (!c)
		return nx_fail(err, NX_ENOMEM, "weight_int8: out of memory");
	host->ops->info(host->dev, &info);
	c->host = host;
	c->act = info.act_dtype;
	*self = c;
	return 0;
}

static void destroy(void *self)
{
	struct int8_codec *c = self;
	if (c->x)
		c->host->free(c->host->ctx, NX_MEM_DEVICE, c->x, (size_t)c->max_k * sizeof(float));
	free(c);
}

static void reset(void *self)
{
	((struct int8_codec *)self)->n[C_CALLS] = 0;
}

static void pack_row(const float *x, int64_t k, float *scale, int8_t *q)
{
	float most = 0;
	for (int64_t i = 0; i < k; i++)
		most = fmaxf(most, fabsf(x[i]));
	*scale = most / 127;
	for (int64_t i = 0; i < k; i++)
		q[i] = *scale > 0 ? (int8_t)lrintf(x[i] / *scale) : 0;
}

/* All matrices are packed before a product runs. */
static int make_row(struct int8_codec *c, int64_t k, struct nx_err *err)
{
	const struct nx_host *h = c->host;
	if (k <= c->max_k)
		return 0;
	if (c->x)
		h->free(h->ctx, NX_MEM_DEVICE, c->x, (size_t)c->max_k * sizeof(float));
	c->max_k = k;
	c->x = h->alloc(h->ctx, NX_MEM_DEVICE, (size_t)k * sizeof(float));
	return c->x ? 0 : nx_fail(err, NX_ENOMEM, "weight_int8: no memory for a row");
}

/* Rows [row0, row0 + n) go through host memory, which a copy may still read until it has been waited for. */
static int pack_rows(struct int8_codec *c, const struct nx_weight_desc *d, const struct matrix *m,
                     int64_t row0, int64_t n, float *stage, struct nx_err *err)
{
	const struct nx_device_ops *ops = c->host->ops;
	float *scale = stage + STAGE_ROWS * d->k;
	int8_t *q = (int8_t *)(scale + STAGE_ROWS);
	int rc = d->rows(d->ctx, row0, n, stage, err);
	if (rc)
		return rc;
	for (int64_t r = 0; r < n; r++)
		pack_row(stage + r * d->k, d->k, scale + r, q + r * d->k);
	rc = ops->copy(c->host->dev, NULL, m->data + (size_t)row0 * sizeof(float), scale,
	               (size_t)n * sizeof(float), NX_H2D, err);
	if (!rc)
		rc = ops->copy(c->host->dev, NULL,
		               m->data + (size_t)m->n * sizeof(float) + row0 * d->k, q,
		               (size_t)(n * d->k), NX_H2D, err);
	return rc ? rc : ops->stream_sync(c->host->dev, NULL, err);
}

static void weight_drop(void *self, void *w)
{
	const struct nx_host *h = ((struct int8_codec *)self)->host;
	struct matrix *m = w;
	h->free(h->ctx, NX_MEM_DEVICE, m->data, m->bytes);
	free(m);
}

static int weight_pack(void *self, const struct nx_weight_desc *d, enum nx_weight_role role,
                       int32_t layer, void **out, struct nx_err *err)
{
	struct int8_codec *c = self;
	const struct nx_host *h = c->host;
	(void)layer;
	if (role == NX_WEIGHT_EMBED || d->lookup) {
		c->n[C_LEFT]++;
		return NX_WEIGHT_LEFT;
	}
	size_t stage_bytes = (size_t)STAGE_ROWS * ((size_t)d->k * 5 + sizeof(float));
	float *stage = h->alloc(h->ctx, NX_MEM_HOST, stage_bytes);
	struct matrix *m = calloc(1, sizeof(*m));
	int rc = make_row(c, d->k, err);
	if (m) {
		*m = (struct matrix){d->n, d->k, (size_t)d->n * ((size_t)d->k + sizeof(float)),
		                     NULL};
		m->data = h->alloc(h->ctx, NX_MEM_DEVICE, m->bytes);
	}
	if (!rc && (!stage || !m || !m->data))
		rc = nx_fail(err, NX_ENOMEM, "weight_int8: no memory for a matrix of %lld x %lld",
		             (long long)d->n, (long long)d->k);
	for (int64_t r = 0; r < d->n && !rc; r += STAGE_ROWS)
		rc = pack_rows(c, d, m, r, d->n - r < STAGE_ROWS ? d->n - r : STAGE_ROWS, stage,
		               err);
	if (stage)
		h->free(h->ctx, NX_MEM_HOST, stage, stage_bytes);
	if (rc) {
		if (m && m->data)
			h->free(h->ctx, NX_MEM_DEVICE, m->data, m->bytes);
		free(m);
		return rc;
	}
	c->n[C_PACKED]++;
	*out = m;
	return 0;
}

static uint64_t weight_bytes(void *self, const void *w)
{
	(void)self;
	return ((const struct matrix *)w)->bytes;
}

/* One sum, in order: more accumulators would be another order, though the same for all. */
static double dot(const struct product *p, const float *x, int64_t j)
{
	const int8_t *q = (const int8_t *)p->w.data + (size_t)p->w.n * sizeof(float) + j * p->w.k;
	double sum = 0;
	for (int64_t i = 0; i < p->w.k; i++)
		sum += (double)q[i] * (double)x[i];
	return sum * (double)hand_get(p->w.data, NX_F32, j);
}

static void run(void *args)
{
	const struct product *p = args;
	enum nx_dtype out = p->a.y_f32 ? NX_F32 : p->act;
	bool swiglu = p->a.epilogue == NX_EPI_SWIGLU;
	int64_t cols = swiglu ? p->w.n / 2 : p->w.n;
	for (int64_t r = 0; r < p->a.m; r++) {
		for (int64_t i = 0; i < p->w.k; i++)
			p->x[i] = hand_get(p->a.x, p->act, r * p->w.k + i);
		for (int64_t j = 0; j < cols; j++) {
			int64_t at = r * cols + j;
			double y = dot(p, p->x, swiglu ? 2 * j : j);
			if (swiglu)
				y = y / (1 + exp(-y)) * dot(p, p->x, 2 * j + 1);
			if (p->a.epilogue == NX_EPI_ADD)
				y += (double)hand_get(p->a.y, out, at);
			hand_put(p->a.y, out, at, (float)y);
		}
	}
}

static int weight_linear(void *self, struct nx_stream *s, const void *w, const struct nx_linear *a,
                         struct nx_err *err)
{
	struct int8_codec *c = self;
	struct product p = {*a, *(const struct matrix *)w, c->act, c->x};
	if (a->epilogue == NX_EPI_SWIGLU && p.w.n % 2)
		return nx_fail(err, NX_EINVAL, "weight_int8: %lld features are no gates and ups",
		               (long long)p.w.n);
	c->n[C_CALLS]++;
	return c->host->ops->enqueue(c->host->dev, s, run, &p, sizeof(p), err);
}

static void read_counters(void *self, double *v)
{
	const struct int8_codec *c = self;
	for (int i = 0; i < C_COUNT; i++)
		v[i] = (double)c->n[i];
}

static const struct nx_counter counters[] = {
	[C_PACKED] = {"packed", "count", "matrices packed"},
	[C_LEFT] = {"left", "count", "matrices left to the device"},
	[C_CALLS] = {"calls", "count", "products"},
	{0},
};

static const struct nx_technique weight_int8 = {
	NX_TECHNIQUE_HEAD,
	.name = "weight_int8",
	.version = "1",
	.summary = "for tests: int8 weights, a scale for each output feature",
	.source = "none",
	.counters = counters,
	.flags = NX_TECH_EXACT,
	.probe = hand_probe,
	.create = create,
	.reset = reset,
	.destroy = destroy,
	.read_counters = read_counters,
	.weight_pack = weight_pack,
	.weight_drop = weight_drop,
	.weight_bytes = weight_bytes,
	.weight_linear = weight_linear,
};

NX_TECHNIQUE(&weight_int8);
