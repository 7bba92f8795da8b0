/* SPDX-License-Identifier: Apache-2.0
 *
 * attention_gather.cuh: attention_spread.cuh: sums of groups added, and those of a cluster's CTAs sent to one of them.
 *
 * CTA c of a cluster gathers q rows c, c + parts, ...: every CTA puts its sums of them straight into c's shared memory,
 * and c's barrier counts the bytes. So nobody fences, and only who gathers waits.
 */
#ifndef NX_CUDA_ATTENTION_GATHER_CUH
#define NX_CUDA_ATTENTION_GATHER_CUH

#include "cuda/attention_look.cuh"

#define SPREAD_MOST 16 /* CTAs of a cluster */

/* Shared memory behind the rings: q, and with several CTAs a place for each row and CTA that is gathered. */
template <class S> struct beyond {
	static const int Q = S::SMEM, PLACES = S::ROWS + SPREAD_MOST - 1;
	static const int GATHER = Q + S::ROWS * S::Q_BYTES;
	static const int SMEM = GATHER + PLACES * S::OUT_STRIDE * 4;
};

static __device__ __forceinline__ uint32_t of_cta(uint32_t at, int32_t cta)
{
	uint32_t there;
	asm("mapa.shared::cluster.u32 %0, %1, %2;" : "=r"(there) : "r"(at), "r"(cta));
	return there;
}

/* Before anything else; gather_meet() comes before the first send(). */
static __device__ __forceinline__ void gather_begin(uint64_t *barrier)
{
	if (threadIdx.x == 0)
		asm volatile("mbarrier.init.shared::cta.b64 [%0], 1;\n\t"
		             "fence.mbarrier_init.release.cluster;" ::"r"(smem_at(barrier))
		             : "memory");
	__syncwarp();
	asm volatile("barrier.cluster.arrive.relaxed;" ::: "memory");
}

/* Of n rows with so many bytes each, this CTA gathers its own. */
static __device__ __forceinline__ void gather_expect(uint64_t *barrier, int32_t n, int32_t part,
                                                     struct parts parts, int32_t bytes)
{
	int32_t own = n > part ? by_parts(parts, n - part - 1) + 1 : 0;
	if (threadIdx.x == 0 && own)
		asm volatile("mbarrier.arrive.expect_tx.shared::cta.b64 _, [%0], %1;" ::"r"(
				     smem_at(barrier)),
		             "r"(own * parts.n * bytes)
		             : "memory");
}

static __device__ __forceinline__ void gather_meet(void)
{
	asm volatile("barrier.cluster.wait.acquire;" ::: "memory");
}

static __device__ __forceinline__ void send(uint32_t to, uint32_t barrier, float4 x)
{
	asm volatile("st.async.shared::cluster.mbarrier::complete_tx::bytes.v4.f32 "
	             "[%0], {%1, %2, %3, %4}, [%5];" ::"r"(to),
	             "f"(x.x), "f"(x.y), "f"(x.z), "f"(x.w), "r"(barrier)
	             : "memory");
}

static __device__ __forceinline__ void send(uint32_t to, uint32_t barrier, float2 x)
{
	asm volatile("st.async.shared::cluster.mbarrier::complete_tx::bytes.v2.f32 "
	             "[%0], {%1, %2}, [%3];" ::"r"(to),
	             "f"(x.x), "f"(x.y), "r"(barrier)
	             : "memory");
}

static __device__ __forceinline__ void gather_wait(uint64_t *barrier)
{
	asm volatile("{\n\t.reg .pred p;\n"
	             "again:\n\t"
	             "mbarrier.try_wait.parity.acquire.cluster.shared::cta.b64 p, [%0], 0;\n\t"
	             "@!p bra again;\n\t}" ::"r"(smem_at(barrier))
	             : "memory");
}

/* Brings the groups' sums of this thread's q row together: the row's maximum, its sum, and columns. */
template <class S>
static __device__ __forceinline__ void sum_groups(const float *area, float *max, float *sum,
                                                  float4 (&out)[S::FOURS])
{
	int32_t tid = (int32_t)threadIdx.x, row = tid / S::SHARERS;
	const float2 *heads = (const float2 *)(area + S::G * S::ROWS * S::OUT_STRIDE) + row;
	const float *from = area + row * S::OUT_STRIDE + tid % S::SHARERS * 4;
	float2 head[S::G];
	float top = -INFINITY, all = 0;
#pragma unroll
	for (int g = 0; g < S::G; g++) {
		head[g] = heads[g * S::ROWS];
		top = fmaxf(top, head[g].x);
	}
#pragma unroll
	for (int j = 0; j < S::FOURS; j++)
		out[j] = make_float4(0, 0, 0, 0);
#pragma unroll
	for (int g = 0; g < S::G; g++) {
		float by = head[g].x == -INFINITY ? 0 : attn_exp2(head[g].x - top);
		all = fmaf(head[g].y, by, all);
#pragma unroll
		for (int j = 0; j < S::FOURS; j++) {
			float4 x = *(const float4 *)(from + g * S::ROWS * S::OUT_STRIDE +
			                             j * S::SHARERS * 4);
			out[j].x = fmaf(x.x, by, out[j].x);
			out[j].y = fmaf(x.y, by, out[j].y);
			out[j].z = fmaf(x.z, by, out[j].z);
			out[j].w = fmaf(x.w, by, out[j].w);
		}
	}
	*max = top;
	*sum = all;
}

/* 1 / sum; no keys: 0. */
static __device__ __forceinline__ float over(float sum)
{
	return sum == 0 ? 0 : __frcp_rn(sum);
}

/* Four columns from `column` on of row and head `at`. */
static __device__ __forceinline__ void store_four(const struct attn_args &a, int64_t at, int dim,
                                                  int32_t column, float4 x, float by)
{
	uint2 y = {pack(x.x * by, x.y * by), pack(x.z * by, x.w * by)};
	*(uint2 *)((bf16 *)a.out + at * dim + column) = y;
}

/* Row and head of q row i of a tile. */
static __device__ __forceinline__ int64_t out_at(const struct attn_args &a, const struct place &p,
                                                 int32_t i)
{
	int32_t row = by_group(a, i);
	return (int64_t)(p.row0 + row) * a.n_heads + p.kv_head * a.group + (i - row * a.group);
}

/* What has been gathered, merged: a warp a row, 4 columns a lane. */
template <class S>
static __device__ __forceinline__ void merge_gathered(const struct attn_args &a,
                                                      const struct place &p, const float *gathered,
                                                      int32_t part, struct parts parts)
{
	int32_t lane = (int32_t)threadIdx.x % 32;
	int32_t n = p.n_rows * a.group;
#pragma unroll 1
	for (int32_t k = (int32_t)threadIdx.x / 32; part + k * parts.n < n; k += S::THREADS / 32) {
		const float *from = gathered + k * parts.n * S::OUT_STRIDE;
		float2 head = make_float2(-INFINITY, 0);
		if (lane < parts.n)
			head = *(const float2 *)(from + lane * S::OUT_STRIDE + S::D);
		float top = head.x, sum;
		float4 out = make_float4(0, 0, 0, 0);
#pragma unroll
		for (int i = 1; i < 32; i *= 2)
			top = fmaxf(top, __shfl_xor_sync(~0u, top, i));
		float by = head.x == -INFINITY ? 0 : attn_exp2(head.x - top);
		sum = head.y * by;
#pragma unroll
		for (int i = 1; i < 32; i *= 2)
			sum += __shfl_xor_sync(~0u, sum, i);
#pragma unroll 2
		for (int c = 0; c < parts.n; c++) {
			float its = __shfl_sync(~0u, by, c);
			float4 x = *(const float4 *)(from + c * S::OUT_STRIDE + lane * 4 % S::D);
			out.x = fmaf(x.x, its, out.x);
			out.y = fmaf(x.y, its, out.y);
			out.z = fmaf(x.z, its, out.z);
			out.w = fmaf(x.w, its, out.w);
		}
		if (lane * 4 < S::D)
			store_four(a, out_at(a, p, part + k * parts.n), S::D, lane * 4, out,
			           over(sum));
	}
}

/* What comes out of the groups' sums: the rows, or what is sent to who gathers them. */
template <class S>
static __device__ __forceinline__ void finish(const struct attn_args &a, const struct place &p,
                                              uint8_t *smem, uint64_t *barrier, int32_t part,
                                              struct parts parts)
{
	int32_t tid = (int32_t)threadIdx.x, row = tid / S::SHARERS, lane = tid % S::SHARERS;
	const float *gathered = (const float *)(smem + beyond<S>::GATHER);
	if (parts.n > 1)
		gather_meet();
	if (row < p.n_rows * a.group) {
		float max, sum;
		float4 out[S::FOURS];
		sum_groups<S>((const float *)smem, &max, &sum, out);
		if (parts.n > 1) {
			int32_t cta = row - by_parts(parts, row) * parts.n,
				place = row - cta + part;
			uint32_t there = of_cta(smem_at(barrier), cta);
			uint32_t to = of_cta(smem_at(gathered + place * S::OUT_STRIDE), cta);
			if (lane == 0)
				send(to + S::D * 4, there, make_float2(max, sum));
#pragma unroll
			for (int j = 0; j < S::FOURS; j++)
				send(to + (uint32_t)(j * S::SHARERS + lane) * 16, there, out[j]);
		} else {
			int64_t at = out_at(a, p, row);
			float by = over(sum);
#pragma unroll
			for (int j = 0; j < S::FOURS; j++)
				store_four(a, at, S::D, (j * S::SHARERS + lane) * 4, out[j], by);
		}
	}
	if (parts.n > 1 && part + tid / 32 * parts.n < p.n_rows * a.group) {
		gather_wait(barrier);
		merge_gathered<S>(a, p, gathered, part, parts);
	}
}

#endif
