/* SPDX-License-Identifier: Apache-2.0 */
#include <math.h>
#include <stdlib.h>

#include "cpu/kv.h"

/* softmax(q K^T * scale) V of one row and head, over the keys that the row sees, in order. */
static void one_head(const struct nx_attention *a, const struct row_keys *keys, int32_t row,
                     int32_t head, double *score, double *sum)
{
	const struct nx_kv *kv = a->kv;
	int32_t dim = kv->head_dim, n = keys->n_table + keys->n_anc;
	int64_t first = (int64_t)(head / (a->n_heads / kv->n_kv_heads)) * dim;
	const float *q = (const float *)a->q + row * a->q_stride + (int64_t)head * dim;
	float *out = (float *)a->out + ((int64_t)row * a->n_heads + head) * dim;
	double max = -INFINITY, total = 0;
	const uint8_t *v;

	for (int32_t i = 0; i < n; i++) {
		const uint8_t *k = row_key(kv, keys, a->layer, i, &v);
		double dot = 0;
		for (int32_t d = 0; d < dim; d++)
			dot += (double)q[d] * kv_get(kv, k, first + d);
		score[i] = dot * a->scale;
		max = fmax(max, score[i]);
	}
	for (int32_t d = 0; d < dim; d++)
		sum[d] = 0;
	for (int32_t i = 0; i < n; i++) {
		double p = exp(score[i] - max);
		row_key(kv, keys, a->layer, i, &v);
		for (int32_t d = 0; d < dim; d++)
			sum[d] += p * kv_get(kv, v, first + d);
		total += p;
	}
	for (int32_t d = 0; d < dim; d++)
		out[d] = n ? (float)(sum[d] / total) : 0;
}

/* The oracle: both kernels of the interface are this one here, and the workspace is not used. */
int ref_attention(struct cpu_dev *d, const struct nx_attention *a, struct nx_err *err)
{
	double *score = cpu_scratch(
		d, sizeof(double) * ((size_t)a->rows->max_keys + (size_t)a->kv->head_dim));
	if (!score)
		return nx_fail(err, NX_ENOMEM, "no memory for the scores of %d keys",
		               a->rows->max_keys);
	for (int32_t r = 0; r < a->rows->n_rows; r++) {
		struct row_keys keys = row_keys(a->rows, a->state, r);
		for (int32_t h = 0; h < a->n_heads; h++)
			one_head(a, &keys, r, h, score, score + a->rows->max_keys);
	}
	return 0;
}
