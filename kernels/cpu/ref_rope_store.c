/* SPDX-License-Identifier: Apache-2.0 */
#include <math.h>

#include "cpu/coded.h"

/* Rotates neighbouring pairs of one head by the angles whose cosines and sines are given. */
static void rotate(float *x, int32_t rope_dim, const float *cos_sin)
{
	for (int32_t i = 0; i < rope_dim; i += 2) {
		float c = cos_sin[i], s = cos_sin[i + 1], a = x[i], b = x[i + 1];
		x[i] = a * c - b * s;
		x[i + 1] = a * s + b * c;
	}
}

/* Bias and norms: what comes before the rotation in some families. */
static void adjust(const struct nx_rope_store *a, float *q, int64_t width)
{
	const struct nx_kv *kv = a->kv;
	for (int64_t i = 0; a->bias && i < width; i++)
		q[i] += a->bias[i];
	if (!a->q_norm)
		return;
	float *k = q + (int64_t)a->n_heads * kv->head_dim;
	ref_rmsnorm(q, q, a->q_norm, a->n_heads, kv->head_dim, a->norm_eps);
	ref_rmsnorm(k, k, a->k_norm, kv->n_kv_heads, kv->head_dim, a->norm_eps);
}

void ref_rope_store(const struct nx_rope_store *a, int32_t row, float *cos_sin, coded_encode encode)
{
	const struct nx_rows *rows = a->rows;
	const struct nx_kv *kv = a->kv;
	int32_t seq = rows->seq[row], kind = rows->kind[row], len = a->state->len[seq];
	int64_t heads = a->n_heads + kv->n_kv_heads,
		kv_width = (int64_t)kv->n_kv_heads * kv->head_dim;
	float *q = (float *)a->qkv + row * (heads + kv->n_kv_heads) * kv->head_dim;
	const float *k = q + (int64_t)a->n_heads * kv->head_dim, *v = k + kv_width;
	adjust(a, q, (heads + kv->n_kv_heads) * kv->head_dim);

	/* Once a row, not once a head. */
	float position = (float)(len + rows->pos_off[row]);
	for (int32_t i = 0; i < a->rope_dim; i += 2) {
		float angle = position * a->inv_freq[i / 2];
		cos_sin[i] = cosf(angle);
		cos_sin[i + 1] = sinf(angle);
	}
	for (int64_t h = 0; h < heads; h++)
		rotate(q + h * kv->head_dim, a->rope_dim, cos_sin);

	if (kind == NX_ROW_REDO || kv->codec == NX_KV_OWN || kv->window > 1)
		return; /* or the codec's attention entry writes, or attention does */
	uint8_t *to_k, *to_v;
	if (nx_row_in_scratch(kind)) {
		to_k = kv_scratch(kv, a->layer, seq, rows->scratch[row]);
		to_v = to_k + kv->scratch_v_offset;
	} else {
		to_k = kv_slot(kv, a->layer, seq, len + rows->slot_off[row]);
		to_v = to_k + kv->v_offset;
	}
	if (nx_kv_is_coded(kv->codec)) {
		coded_put(kv, encode, k, v, to_k, to_v);
		return;
	}
	if (kv->codec == NX_KV_F32) {
		memcpy(to_k, k, (size_t)kv_width * sizeof(float));
		memcpy(to_v, v, (size_t)kv_width * sizeof(float));
		return;
	}
	for (int64_t i = 0; i < kv_width; i++) {
		kv_put(kv, to_k, i, k[i]);
		kv_put(kv, to_v, i, v[i]);
	}
}
