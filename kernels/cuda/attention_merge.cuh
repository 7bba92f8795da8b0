/* SPDX-License-Identifier: Apache-2.0
 *
 * attention_merge.cuh: merges the partials of a row and head, by one warp.
 */
#ifndef NX_CUDA_ATTENTION_MERGE_CUH
#define NX_CUDA_ATTENTION_MERGE_CUH

#include "cuda/attention.cuh"

#define MERGE_AHEAD 8

/* at: row * n_heads + head; n: chunks. Read past L1, which other blocks' writes do not reach. */
template <typename ACT>
static __device__ __forceinline__ void attn_merge_row(const struct attn_args &a, int64_t at,
                                                      int32_t n)
{
	int32_t lane = (int32_t)threadIdx.x % 32;
	const float2 *heads = a.part_head + at * a.n_chunks;
	const float *parts = a.part + at * a.n_chunks * a.dim;
	/* Columns in runs of 128: 4 a lane. */
	for (int32_t c0 = 0; c0 < a.dim; c0 += 128) {
		int32_t c = c0 + lane * 4;
		float top = -INFINITY, sum = 0, out[4] = {};
		for (int32_t i0 = 0; i0 < n; i0 += 32) {
			float2 head = make_float2(-INFINITY, 0);
			if (i0 + lane < n)
				head = __ldcg(heads + i0 + lane);
			if (i0 == 0 && __shfl_sync(~0u, head.y, 0) < 0)
				return; /* ATTN_DONE */
			uint32_t left = __ballot_sync(~0u, head.x != -INFINITY);
			while (left) {
				float2 x[MERGE_AHEAD][2];
				int32_t from[MERGE_AHEAD];
#pragma unroll
				for (int j = 0; j < MERGE_AHEAD; j++) {
					from[j] = __ffs((int)left) - 1;
					left &= left - 1;
					const float *p =
						parts + (int64_t)(i0 + from[j]) * a.dim + c;
#pragma unroll
					for (int e = 0; e < 2; e++) {
						x[j][e] = make_float2(0, 0);
						if (from[j] >= 0 && c + 2 * e < a.dim)
							x[j][e] = __ldcg((const float2 *)p + e);
					}
				}
#pragma unroll
				for (int j = 0; j < MERGE_AHEAD; j++) {
					float m = __shfl_sync(~0u, head.x, max(from[j], 0));
					float l = __shfl_sync(~0u, head.y, max(from[j], 0));
					float mine, its;
					if (from[j] < 0 ||
					    !attn_merge_head(top, sum, m, l, mine, its))
						continue;
#pragma unroll
					for (int e = 0; e < 2; e++) {
						out[2 * e] = attn_merge_out(out[2 * e], x[j][e].x,
						                            mine, its);
						out[2 * e + 1] = attn_merge_out(
							out[2 * e + 1], x[j][e].y, mine, its);
					}
				}
			}
		}
		ACT *to = (ACT *)a.out + at * a.dim + c;
#pragma unroll
		for (int e = 0; e < 4; e++)
			if (c + e < a.dim)
				to[e] = from_f32<ACT>(attn_finish(out[e], sum));
	}
}

#endif
