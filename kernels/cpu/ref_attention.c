/* SPDX-License-Identifier: Apache-2.0 */
#include <math.h>
#include <stdlib.h>

#include "cpu/coded.h"

/* softmax(q K^T * scale) V of one row and head, over the keys that the row sees, in order. */
static void one_head(const struct nx_attention *a, const struct coded_scene *coded,
                     const struct row_keys *keys, int32_t row, int32_t head, double *score,
                     double *sum)
{
	const struct nx_kv *kv = a->kv;
	int32_t dim = kv->head_dim, n = keys->n_table + keys->n_anc;
	const float *q = (const float *)a->q + row * a->q_stride + (int64_t)head * dim;
	float *out = (float *)a->out + ((int64_t)row * a->n_heads + head) * dim;
	double max = -INFINITY, total = 0;
	int32_t own = coded_own(a, row, keys), kv_head = head / (a->n_heads / kv->n_kv_heads);
	int64_t first = (int64_t)kv_head * dim;
	float x[ATTN_MAX_DIM]; /* of an encoded row */
	const uint8_t *v;

	for (int32_t i = 0; i < n; i++) {
		const uint8_t *k = row_key(kv, keys, a->layer, i, &v);
		double dot = 0;
		if (coded)
			coded_get(coded, keys, own, i, kv_head, x, NULL);
		for (int32_t d = 0; d < dim; d++)
			dot += (double)q[d] * (coded ? x[d] : kv_get(kv, k, first + d));
		score[i] = dot * a->scale;
		max = fmax(max, score[i]);
	}
	for (int32_t d = 0; d < dim; d++)
		sum[d] = 0;
	for (int32_t i = 0; i < n; i++) {
		double p = exp(score[i] - max);
		row_key(kv, keys, a->layer, i, &v);
		if (coded)
			coded_get(coded, keys, own, i, kv_head, NULL, x);
		for (int32_t d = 0; d < dim; d++)
			sum[d] += p * (coded ? x[d] : kv_get(kv, v, first + d));
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
	for (int32_t i = 0; i < a->rows->n_segments; i++) {
		const struct nx_segment *seg = &a->rows->segments[i];
		struct coded_scene scene = coded_scene_of(a, seg, coded_decode_ref);
		for (int32_t r = seg->row0; r < seg->row0 + seg->n_rows; r++) {
			struct row_keys keys = coded_keys(a, r);
			for (int32_t h = 0; h < a->n_heads; h++)
				one_head(a, nx_kv_is_coded(a->kv->codec) ? &scene : NULL, &keys, r,
				         h, score, score + a->rows->max_keys);
		}
	}
	return 0;
}
