/* SPDX-License-Identifier: Apache-2.0
 *
 * attention_parts.cuh: attention_decode.cu: sums of groups and of ranges brought together, and stored.
 */
#ifndef NX_CUDA_ATTENTION_PARTS_CUH
#define NX_CUDA_ATTENTION_PARTS_CUH

#include "cuda/attention_tile.cuh"

/* What a thread holds after a range: D / 8 columns of one q row, 4 together, 32 apart. */
template <int D> struct merged {
	float max, sum, out[D / 32][4];
};

template <int D>
static __device__ __forceinline__ void merge(struct merged<D> &m, float max, float sum,
                                             const float (&out)[D / 32][4])
{
	float mine, its;
	if (!attn_merge_head(m.max, m.sum, max, sum, mine, its))
		return;
#pragma unroll
	for (int j = 0; j < D / 32; j++)
#pragma unroll
		for (int e = 0; e < 4; e++)
			m.out[j][e] = attn_merge_out(m.out[j][e], out[j][e], mine, its);
}

template <int D> static __device__ __forceinline__ void clear(struct merged<D> &m)
{
	m.max = -INFINITY;
	m.sum = 0;
#pragma unroll
	for (int j = 0; j < D / 32; j++)
#pragma unroll
		for (int e = 0; e < 4; e++)
			m.out[j][e] = 0;
}

/* Puts a group's sums of the first n q rows, or some more, into shared memory; what the rings held is lost. */
template <class S>
static __device__ __forceinline__ void store_sums(const struct sums<S::D> &o, float *area,
                                                  int32_t group, int32_t n)
{
	int32_t lane = (int32_t)threadIdx.x % 32, part = (int32_t)threadIdx.x / 32 % S::MT;
	float2 *heads = (float2 *)(area + S::G * S::ROWS * S::OUT_STRIDE);
	__syncthreads(); /* the rings are free */
#pragma unroll
	for (int h = 0; h < 2; h++) {
		if (part * 16 + h * 8 >= n)
			break;
		float sum = o.sum[h];
		sum += __shfl_xor_sync(~0u, sum, 1);
		sum += __shfl_xor_sync(~0u, sum, 2);
		int32_t row = group * S::ROWS + part * 16 + h * 8 + lane / 4;
		if (lane % 4 == 0)
			heads[row] = make_float2(o.max[h], sum);
#pragma unroll
		for (int n = 0; n < S::D / 8; n++)
			*(float2 *)(area + row * S::OUT_STRIDE + n * 8 + lane % 4 * 2) =
				make_float2(o.out[n][2 * h], o.out[n][2 * h + 1]);
	}
	__syncthreads();
}

/* Brings the groups' sums together, in order. The area is free again after a barrier. */
template <int D, int MT>
static __device__ __forceinline__ void merge_groups(struct sums<D> &o, float *area, int32_t group,
                                                    struct merged<D> &to)
{
	typedef shape<D, MT> S;
	int32_t tid = (int32_t)threadIdx.x;
	const float2 *heads = (const float2 *)(area + GROUPS * S::ROWS * S::OUT_STRIDE);
	store_sums<S>(o, area, group, S::ROWS);
	clear<D>(to);
#pragma unroll
	for (int g = 0; g < GROUPS; g++) {
		int32_t row = g * S::ROWS + tid / 8;
		float2 head = heads[row];
		float out[D / 32][4];
#pragma unroll
		for (int j = 0; j < D / 32; j++) {
			float4 x = *(const float4 *)(area + row * S::OUT_STRIDE + j * 32 +
			                             tid % 8 * 4);
			out[j][0] = x.x;
			out[j][1] = x.y;
			out[j][2] = x.z;
			out[j][3] = x.w;
		}
		merge<D>(to, head.x, head.y, out);
	}
}

template <int D>
static __device__ __forceinline__ void store_part(const struct attn_args &a, int64_t at,
                                                  const struct merged<D> &m)
{
	int32_t lane = (int32_t)threadIdx.x % 8;
	if (lane == 0)
		a.part_head[at] = make_float2(m.max, m.sum);
	if (m.max == -INFINITY)
		return;
#pragma unroll
	for (int j = 0; j < D / 32; j++)
		*(float4 *)(a.part + at * D + j * 32 + lane * 4) =
			make_float4(m.out[j][0], m.out[j][1], m.out[j][2], m.out[j][3]);
}

template <int D>
static __device__ __forceinline__ void store_out(const struct attn_args &a, int64_t at,
                                                 const struct merged<D> &m)
{
	int32_t lane = (int32_t)threadIdx.x % 8;
#pragma unroll
	for (int j = 0; j < D / 32; j++) {
		uint2 x = {pack(attn_finish(m.out[j][0], m.sum), attn_finish(m.out[j][1], m.sum)),
		           pack(attn_finish(m.out[j][2], m.sum), attn_finish(m.out[j][3], m.sum))};
		*(uint2 *)((bf16 *)a.out + at * D + j * 32 + lane * 4) = x;
	}
}
#endif
