/* SPDX-License-Identifier: Apache-2.0
 *
 * attention_tile.cuh: attention_decode.cu: a step of keys, copied into shared memory and put through the tensor cores.
 */
#ifndef NX_CUDA_ATTENTION_TILE_CUH
#define NX_CUDA_ATTENTION_TILE_CUH

#include "cuda/attention_steps.cuh"

typedef __nv_bfloat16 bf16;

static __device__ __forceinline__ uint32_t smem_at(const void *p)
{
	return (uint32_t)__cvta_generic_to_shared(p);
}

/* 16 bytes, or zeros. */
static __device__ __forceinline__ void fetch16(uint32_t to, const uint8_t *from, bool there)
{
	asm volatile("cp.async.cg.shared.global.L2::128B [%0], [%1], 16, %2;" ::"r"(to), "l"(from),
	             "r"(there ? 16 : 0)
	             : "memory");
}

static __device__ __forceinline__ void load_matrices(uint32_t (&r)[4], uint32_t at)
{
	asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0,%1,%2,%3}, [%4];"
	             : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
	             : "r"(at)
	             : "memory");
}

static __device__ __forceinline__ void load_transposed(uint32_t (&r)[4], uint32_t at)
{
	asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0,%1,%2,%3}, [%4];"
	             : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
	             : "r"(at)
	             : "memory");
}

static __device__ __forceinline__ void mma(float (&c)[4], const uint32_t (&a)[4], uint32_t b0,
                                           uint32_t b1)
{
	asm volatile("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 "
	             "{%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"
	             : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
	             : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
}

static __device__ __forceinline__ uint32_t pack(float lo, float hi)
{
	__nv_bfloat162 x = __floats2bfloat162_rn(lo, hi);
	return *(uint32_t *)&x;
}

template <int D, int MT> struct shape {
	static const int THREADS = 32 * MT * GROUPS, ROWS = 16 * MT;
	static const int ROW_BYTES = D * 2, PIECES = D / 8;
	static const int STAGE = STEP * ROW_BYTES * 2;
	static const int STAGES = 128 / D * (MT == 1 ? 3 : 6);
	static const int RING = GROUPS * STAGES * STAGE;
	/* At the end of a range the rings hold the groups' sums. */
	static const int OUT_STRIDE = D + 4;
	static const int SUMS = GROUPS * ROWS * (OUT_STRIDE + 2) * 4;
	static const int SMEM = RING > SUMS ? RING : SUMS;
};

/* Starts the copies of a step into a stage: of the group's MT warps, each its share. */
template <int D, int MT>
static __device__ __forceinline__ void stage(const struct attn_args &a, uint32_t to, int32_t place,
                                             int64_t head_bytes, int32_t part, int32_t lane)
{
	typedef shape<D, MT> S;
	const int rows_at_once = 32 / S::PIECES, share = STEP / MT;
	int32_t piece = lane % S::PIECES;
#pragma unroll
	for (int i = 0; i < share; i += rows_at_once) {
		int32_t row = part * share + i + lane / S::PIECES;
		int32_t at = __shfl_sync(~0u, place, row);
		bool there = at != NOWHERE;
		const uint8_t *k = a.base;
		int64_t v_offset = a.v_offset;
		if (at >= 0) {
			k = a.base + at * a.row_bytes;
		} else if (there) {
			k = a.scratch + (int64_t)~at * a.scratch_row_bytes;
			v_offset = a.scratch_v_offset;
		}
		k += head_bytes + piece * 16;
		uint32_t at_smem = to + (uint32_t)(row * S::ROW_BYTES + ((piece ^ (row & 7)) * 16));
		fetch16(at_smem, k, there);
		fetch16(at_smem + STEP * S::ROW_BYTES, there ? k + v_offset : k, there);
	}
}

template <int MT> static __device__ __forceinline__ void group_sync(int group)
{
	if (MT == 1)
		__syncwarp();
	else
		asm volatile("bar.sync %0, %1;" ::"r"(group + 1), "r"(32 * MT) : "memory");
}

template <int D> struct sums {
	float out[D / 8][4];
	float max[2], sum[2]; /* of q rows lane / 4 and lane / 4 + 8; sum: this lane's share */
};

/* One step: end0, end1: keys that the lane's two q rows see, counted from the step's first. */
template <int D>
static __device__ __forceinline__ void compute(const uint32_t (&q)[D / 16][4], struct sums<D> &o,
                                               uint32_t at, float scale2, int32_t end0,
                                               int32_t end1, int32_t lane)
{
	const int row_bytes = D * 2;
	float s[2][4] = {};
	{
		int32_t key = lane / 16 * 8 + lane % 8;
		uint32_t row = at + (uint32_t)(key * row_bytes);
#pragma unroll
		for (int kk = 0; kk < D / 16; kk++) {
			uint32_t b[4];
			load_matrices(
				b, row + (uint32_t)(((kk * 2 + (lane / 8 & 1)) ^ (key & 7)) * 16));
			mma(s[0], q[kk], b[0], b[1]);
			mma(s[1], q[kk], b[2], b[3]);
		}
	}
	float top0 = o.max[0], top1 = o.max[1];
#pragma unroll
	for (int j = 0; j < 2; j++)
#pragma unroll
		for (int e = 0; e < 2; e++) {
			int32_t key = j * 8 + lane % 4 * 2 + e;
			s[j][e] = key < end0 ? s[j][e] * scale2 : -INFINITY;
			s[j][2 + e] = key < end1 ? s[j][2 + e] * scale2 : -INFINITY;
			top0 = fmaxf(top0, s[j][e]);
			top1 = fmaxf(top1, s[j][2 + e]);
		}
#pragma unroll
	for (int i = 1; i < 4; i *= 2) {
		top0 = fmaxf(top0, __shfl_xor_sync(~0u, top0, i));
		top1 = fmaxf(top1, __shfl_xor_sync(~0u, top1, i));
	}
	/* Nothing seen so far: any finite number does, all p are 0. */
	float base0 = top0 == -INFINITY ? 0 : top0, base1 = top1 == -INFINITY ? 0 : top1;
	/* A factor of 1 changes no bit, so leaving it out does not either. */
	if (__any_sync(~0u, top0 != o.max[0] || top1 != o.max[1])) {
		float by0 = attn_exp2(o.max[0] - base0), by1 = attn_exp2(o.max[1] - base1);
		if (top0 == o.max[0])
			by0 = 1;
		if (top1 == o.max[1])
			by1 = 1;
		o.max[0] = top0;
		o.max[1] = top1;
		o.sum[0] *= by0;
		o.sum[1] *= by1;
#pragma unroll
		for (int n = 0; n < D / 8; n++) {
			o.out[n][0] *= by0;
			o.out[n][1] *= by0;
			o.out[n][2] *= by1;
			o.out[n][3] *= by1;
		}
	}
#pragma unroll
	for (int j = 0; j < 2; j++)
#pragma unroll
		for (int e = 0; e < 2; e++) {
			s[j][e] = attn_exp2(s[j][e] - base0);
			s[j][2 + e] = attn_exp2(s[j][2 + e] - base1);
			o.sum[0] = __fadd_rn(o.sum[0], s[j][e]);
			o.sum[1] = __fadd_rn(o.sum[1], s[j][2 + e]);
		}
	uint32_t p[4] = {pack(s[0][0], s[0][1]), pack(s[0][2], s[0][3]), pack(s[1][0], s[1][1]),
	                 pack(s[1][2], s[1][3])};
	{
		int32_t key = (lane / 8 & 1) * 8 + lane % 8;
		uint32_t row = at + (uint32_t)((STEP + key) * row_bytes);
#pragma unroll
		for (int n = 0; n < D / 16; n++) {
			uint32_t b[4];
			load_transposed(b,
			                row + (uint32_t)(((n * 2 + lane / 16) ^ (key & 7)) * 16));
			mma(o.out[2 * n], p, b[0], b[1]);
			mma(o.out[2 * n + 1], p, b[2], b[3]);
		}
	}
}
#endif
