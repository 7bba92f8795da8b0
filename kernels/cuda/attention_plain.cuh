/* SPDX-License-Identifier: Apache-2.0
 *
 * attention_plain.cuh: products of q and keys in f32, for any type and head_dim: lanes of a warp along the head.
 */
#ifndef NX_CUDA_ATTENTION_PLAIN_CUH
#define NX_CUDA_ATTENTION_PLAIN_CUH

#include "cuda/attention.cuh"

/* Keys and q heads that a warp takes together. */
#define KEYS 4
#define HEADS 4

template <typename T> struct pair;
template <> struct pair<float> {
	static __device__ __forceinline__ float2 get(const void *row, int32_t i)
	{
		return ((const float2 *)row)[i];
	}
};
template <> struct pair<__nv_bfloat16> {
	static __device__ __forceinline__ float2 get(const void *row, int32_t i)
	{
		return __bfloat1622float2(((const __nv_bfloat162 *)row)[i]);
	}
};

/* How a kernel reaches one head of a key or value: KV is float, __nv_bfloat16 or coded<type of activations>. */
template <typename ACT> struct coded {
};
template <typename KV> struct kv_at {
	const uint8_t *p; /* NULL: there is none */
	__device__ __forceinline__ float2 get(const struct attn_args &, int32_t c) const
	{
		return pair<KV>::get(p, c);
	}
};
template <typename ACT> struct kv_at<coded<ACT>> : coded_at {
	__device__ __forceinline__ float2 get(const struct attn_args &a, int32_t c) const
	{
		return coded_get<ACT>(a.coded, *this, c);
	}
};

/* What a row sees beside its view: keys from `own` on in full precision, of which those from `slot` on are computed
 * in this call, in rows from `row` on. */
template <typename KV> struct newest {
	__device__ __forceinline__ newest(const struct attn_args &, const struct attn_view &,
	                                  int32_t)
	{
	}
};
template <typename ACT> struct newest<coded<ACT>> {
	int32_t own, slot, row;
	/* All lanes of a warp together. */
	__device__ newest(const struct attn_args &a, const struct attn_view &w, int32_t r)
	{
		own = slot = INT32_MAX;
		row = 0;
		if (a.coded.window <= 1)
			return;
		int32_t len = a.len[w.seq], mine = len + a.slot_off[r], end = 0;
		own = min(mine, w.n_table) / a.coded.window * a.coded.window;
		for (int32_t s0 = 0; s0 < a.n_segments; s0 += 32) {
			int32_t i = s0 + (int32_t)threadIdx.x % 32, first = 0, n = 0;
			if (i < a.n_segments) {
				first = a.segments[i].row0;
				n = a.segments[i].n_rows;
			}
			uint32_t hit = __ballot_sync(~0u, first <= r && r < first + n);
			if (!hit)
				continue;
			row = __shfl_sync(~0u, first, __ffs((int)hit) - 1);
			end = row + __shfl_sync(~0u, n, __ffs((int)hit) - 1);
			break;
		}
		while (row < end && a.kind[row] != NX_ROW_COMMIT)
			row++;
		if (row < end)
			slot = len + a.slot_off[row];
	}
};

/* Key i of a row, one kv head, and its value. */
template <typename KV>
static __device__ __forceinline__ void reach(const struct attn_args &a, const struct attn_view &w,
                                             const struct newest<KV> &, int32_t i, int32_t kv_head,
                                             kv_at<KV> &key, kv_at<KV> &value)
{
	int64_t head_at = (int64_t)kv_head * a.dim * (int64_t)sizeof(KV);
	key.p = attn_key(a, w, i, &value.p);
	if (key.p) {
		key.p += head_at;
		value.p += head_at;
	}
}

template <typename ACT>
static __device__ __forceinline__ void reach(const struct attn_args &a, const struct attn_view &w,
                                             const struct newest<coded<ACT>> &n, int32_t i,
                                             int32_t kv_head, kv_at<coded<ACT>> &key,
                                             kv_at<coded<ACT>> &value)
{
	const struct coded_args &c = a.coded;
	const bool scratch = i >= w.n_table, grouped = c.window > 1;
	if (grouped && !scratch && i >= n.own) {
		if (i >= n.slot) {
			const ACT *x = (const ACT *)a.q + (n.row + i - n.slot) * a.q_stride +
			               ((int64_t)a.n_heads + kv_head) * a.dim;
			key.p = (const uint8_t *)x;
			value.p = (const uint8_t *)(x + (int64_t)c.n_kv_heads * a.dim);
			key.kind = value.kind = CODED_FRESH;
			return;
		}
		key.p = c.win + ((int64_t)w.seq * c.window + i % c.window) * c.win_row_bytes;
		value.p = key.p + c.win_v_offset;
	} else {
		int32_t t = scratch ? 0 : i % c.window;
		key.p = attn_key(a, w, i - t, &value.p);
		if (!key.p)
			return;
		if (!(grouped && scratch)) {
			*(coded_at *)&key = coded_piece(c, key.p, t, kv_head, false);
			*(coded_at *)&value = coded_piece(c, value.p, t, kv_head, true);
			return;
		}
	}
	int64_t head_at = (int64_t)kv_head * a.dim * (c.plain_bf16 ? 2 : 4);
	key.p += head_at;
	value.p += head_at;
	key.kind = value.kind = CODED_PLAIN;
}

/* Scores of KEYS keys from i on, in units of log2; -inf where the row sees none. */
template <typename KV, int NP>
static __device__ __forceinline__ void score_keys(const struct attn_args &a,
                                                  const float2 (&q)[HEADS][NP],
                                                  const kv_at<KV> (&key)[KEYS], int32_t lane,
                                                  float (&s)[KEYS][HEADS])
{
#pragma unroll
	for (int j = 0; j < KEYS; j++) {
		float2 k[NP];
#pragma unroll
		for (int p = 0; p < NP; p++) {
			int32_t c = p * 32 + lane;
			k[p] = key[j].p && c * 2 < a.dim ? key[j].get(a, c) : make_float2(0, 0);
		}
#pragma unroll
		for (int h = 0; h < HEADS; h++) {
			float x = 0;
#pragma unroll
			for (int p = 0; p < NP; p++)
				x = fmaf(q[h][p].y, k[p].y, fmaf(q[h][p].x, k[p].x, x));
			s[j][h] = x;
		}
	}
#pragma unroll
	for (int j = 0; j < KEYS; j++)
#pragma unroll
		for (int h = 0; h < HEADS; h++) {
#pragma unroll
			for (int i = 16; i; i /= 2)
				s[j][h] += __shfl_xor_sync(~0u, s[j][h], i);
			s[j][h] = key[j].p ? s[j][h] * a.scale2 : -INFINITY;
		}
}

/* q heads [head, head + n) of a row. */
template <typename ACT, int NP>
static __device__ __forceinline__ void load_q(const struct attn_args &a, int32_t row, int32_t head,
                                              int32_t n, int32_t lane, float2 (&q)[HEADS][NP])
{
#pragma unroll
	for (int h = 0; h < HEADS; h++)
#pragma unroll
		for (int p = 0; p < NP; p++) {
			int32_t c = (p * 32 + lane) * 2;
			q[h][p] = make_float2(0, 0);
			if (h >= n || c >= a.dim)
				continue;
			const ACT *from = (const ACT *)a.q + row * a.q_stride +
			                  (int64_t)(head + h) * a.dim + c;
			q[h][p] = make_float2(to_f32(from[0]), to_f32(from[1]));
		}
}

/* Keys [i, min(i + KEYS, end)) of a row and their values; NULL where there is none. */
template <typename KV>
static __device__ __forceinline__ void find_keys(const struct attn_args &a,
                                                 const struct attn_view &w,
                                                 const struct newest<KV> &n, int32_t i, int32_t end,
                                                 int32_t kv_head, kv_at<KV> (&key)[KEYS],
                                                 kv_at<KV> (&value)[KEYS])
{
#pragma unroll
	for (int j = 0; j < KEYS; j++) {
		key[j].p = value[j].p = nullptr;
		if (i + j < end)
			reach(a, w, n, i + j, kv_head, key[j], value[j]);
	}
}

#endif
