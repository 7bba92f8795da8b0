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

/* Scores of KEYS keys from i on, in units of log2; -inf where the row sees none. */
template <typename KV, int NP>
static __device__ __forceinline__ void score_keys(const struct attn_args &a,
                                                  const float2 (&q)[HEADS][NP],
                                                  const uint8_t *const (&key)[KEYS], int32_t lane,
                                                  float (&s)[KEYS][HEADS])
{
#pragma unroll
	for (int j = 0; j < KEYS; j++) {
		float2 k[NP];
#pragma unroll
		for (int p = 0; p < NP; p++) {
			int32_t c = p * 32 + lane;
			k[p] = key[j] && c * 2 < a.dim ? pair<KV>::get(key[j], c)
			                               : make_float2(0, 0);
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
			s[j][h] = key[j] ? s[j][h] * a.scale2 : -INFINITY;
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
static __device__ __forceinline__ void find_keys(const struct attn_args &a,
                                                 const struct attn_view &w, int32_t i, int32_t end,
                                                 int64_t head_at, const uint8_t *(&key)[KEYS],
                                                 const uint8_t *(&value)[KEYS])
{
#pragma unroll
	for (int j = 0; j < KEYS; j++) {
		key[j] = value[j] = nullptr;
		if (i + j >= end)
			continue;
		key[j] = attn_key(a, w, i + j, &value[j]);
		if (key[j]) {
			key[j] += head_at;
			value[j] += head_at;
		}
	}
}

#endif
