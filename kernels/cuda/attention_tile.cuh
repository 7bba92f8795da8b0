/* SPDX-License-Identifier: Apache-2.0
 *
 * attention_tile.cuh: attention_decode.cu: a step of keys, copied into shared memory and put through the tensor cores.
 * attention_scores_tile.cu uses the instructions.
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

template <int D> struct sums;

/* Tiles of 16 * MT q rows of D columns, G groups of warps, steps of N * STEP keys. */
template <int D_, int MT_, int G_ = GROUPS, int N_ = 1> struct shape {
	static const int D = D_, MT = MT_, G = G_, N = N_;
	static const int THREADS = 32 * MT * G, ROWS = 16 * MT, KEYS = N * STEP;
	static const int AT_ONCE = THREADS > 128 ? 1 : 2; /* CTAs of an SM */
	static const bool CODED = false;
	static const int SEATS = 2; /* q rows of a lane */
	static const int ROW_BYTES = D * 2, PIECES = D / 8;
	static const int Q_BYTES = ROW_BYTES, Q_PIECES = PIECES;
	static const int STAGE = KEYS * ROW_BYTES * 2;
	static const int STAGES = 192 * 1024 / AT_ONCE / (G * STAGE);
	static const int RING = G * STAGES * STAGE;
	/* At the end of a range the rings hold the groups' sums. */
	static const int OUT_STRIDE = D + 4;
	static const int SUMS = G * ROWS * (OUT_STRIDE + 2) * 4;
	static const int SMEM = RING > SUMS ? RING : SUMS;
	/* Then a q row belongs to so many threads, and a thread has so many times 4 of its columns. */
	static const int SHARERS = THREADS / ROWS, FOURS = D / (4 * SHARERS);
	typedef uint32_t queries[D / 16][4];
	typedef struct sums<D> totals;
	static __device__ __forceinline__ int32_t seat(int32_t lane, int32_t warp, int i)
	{
		return warp % MT * 16 + lane / 4 + i * 8;
	}
};

/* Starts the copies of a step into a stage: of the group's MT warps, each its share. Lanes from `from` on know the
 * places of its keys. SCRATCH: some may be scratch rows. */
template <class S, bool SCRATCH>
static __device__ __forceinline__ void stage(const struct attn_args &a, uint32_t to, int32_t place,
                                             int32_t from, int64_t head_bytes, int32_t part,
                                             int32_t lane)
{
	const int rows_at_once = 32 / S::PIECES, share = S::KEYS / S::MT;
	int32_t piece = lane % S::PIECES, first = lane / S::PIECES;
	head_bytes += piece * 16;
#pragma unroll
	for (int i = 0; i < share; i += rows_at_once) {
		int32_t row = part * share + i + first;
		int32_t at = __shfl_sync(~0u, place, from + row);
		bool there = at != NOWHERE, scratch = SCRATCH && there && at < 0;
		/* No branches: the warp stays whole. */
		const uint8_t *k = scratch ? a.scratch : a.base;
		int64_t v_offset = scratch ? a.scratch_v_offset : a.v_offset;
		k += (scratch ? ~at : max(at, 0)) * (scratch ? a.scratch_row_bytes : a.row_bytes) +
		     head_bytes;
		uint32_t at_smem = to + (uint32_t)(row * S::ROW_BYTES + ((piece ^ (row & 7)) * 16));
		fetch16(at_smem, k, there);
		fetch16(at_smem + S::KEYS * S::ROW_BYTES, k + v_offset, there);
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

template <int D> static __device__ __forceinline__ void clear_sums(struct sums<D> &o)
{
	o.max[0] = o.max[1] = -INFINITY;
	o.sum[0] = o.sum[1] = 0;
#pragma unroll
	for (int i = 0; i < D / 8; i++)
		o.out[i][0] = o.out[i][1] = o.out[i][2] = o.out[i][3] = 0;
}

/* q rows of the tile as operand of the products. */
template <int D>
static __device__ __forceinline__ void load_q(const struct attn_args &a, const struct place &p,
                                              const int32_t (&q_row)[2], const int32_t (&my_row)[2],
                                              uint32_t (&q)[D / 16][4], int32_t lane)
{
#pragma unroll
	for (int h = 0; h < 2; h++) {
		bool there = my_row[h] < p.n_rows;
		int32_t head = p.kv_head * a.group + q_row[h] % a.group;
		const bf16 *from = (const bf16 *)a.q;
		if (there)
			from += (p.row0 + my_row[h]) * a.q_stride + (int64_t)head * D;
#pragma unroll
		for (int kk = 0; kk < D / 16; kk++)
#pragma unroll
			for (int e = 0; e < 2; e++)
				q[kk][h + 2 * e] = there ? *(const uint32_t *)(from + kk * 16 +
				                                               e * 8 + lane % 4 * 2)
				                         : 0;
	}
}

/* Which of a step's keys a row sees that sees the first `end` of them, a bit each. */
template <int KEYS> static __device__ __forceinline__ uint32_t first_keys(int32_t end)
{
	const uint32_t all = 0xffffffffu >> (32 - KEYS);
	return end <= 0 ? 0 : end >= KEYS ? all : (1u << end) - 1;
}

/* One step: seen0, seen1: which keys the lane's two q rows see. */
template <int D, int N>
static __device__ __forceinline__ void compute(const uint32_t (&q)[D / 16][4], struct sums<D> &o,
                                               uint32_t at, float scale2, uint32_t seen0,
                                               uint32_t seen1, int32_t lane)
{
	const int row_bytes = D * 2;
	float s[2 * N][4] = {};
	__syncwarp(); /* what went before may have split the warp, and these instructions want it whole */
	{
		float odd[2][4] =
			{}; /* four chains of products: each waits half as long as two do */
		/* Pieces lie at (piece ^ key % 8), and stages at multiples of 256. */
		int32_t key = lane / 16 * 8 + lane % 8;
		uint32_t row = at + (uint32_t)(key * row_bytes + ((lane / 8 & 1) ^ (key & 7)) * 16);
#pragma unroll
		for (int kk = 0; kk < D / 16; kk++)
#pragma unroll
			for (int i = 0; i < N; i++) {
				bool aside = N == 1 && kk % 2;
				uint32_t b[4];
				load_matrices(b, (row ^ (uint32_t)(kk * 32)) +
				                         (uint32_t)(i * STEP * row_bytes));
				mma(aside ? odd[0] : s[2 * i], q[kk], b[0], b[1]);
				mma(aside ? odd[1] : s[2 * i + 1], q[kk], b[2], b[3]);
			}
#pragma unroll
		for (int e = 0; e < 4 && N == 1; e++) {
			s[0][e] += odd[0][e];
			s[1][e] += odd[1][e];
		}
	}
	seen0 >>= lane % 4 * 2;
	seen1 >>= lane % 4 * 2;
	float top0 = o.max[0], top1 = o.max[1];
#pragma unroll
	for (int j = 0; j < 2 * N; j++)
#pragma unroll
		for (int e = 0; e < 2; e++) {
			bool see0 = seen0 >> (j * 8 + e) & 1, see1 = seen1 >> (j * 8 + e) & 1;
			s[j][e] = see0 ? s[j][e] * scale2 : -INFINITY;
			s[j][2 + e] = see1 ? s[j][2 + e] * scale2 : -INFINITY;
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
	for (int j = 0; j < 2 * N; j++)
#pragma unroll
		for (int e = 0; e < 2; e++) {
			s[j][e] = attn_exp2(s[j][e] - base0);
			s[j][2 + e] = attn_exp2(s[j][2 + e] - base1);
			o.sum[0] = __fadd_rn(o.sum[0], s[j][e]);
			o.sum[1] = __fadd_rn(o.sum[1], s[j][2 + e]);
		}
#pragma unroll
	for (int i = 0; i < N; i++) {
		const float(&x)[4] = s[2 * i], (&y)[4] = s[2 * i + 1];
		uint32_t p[4] = {pack(x[0], x[1]), pack(x[2], x[3]), pack(y[0], y[1]),
		                 pack(y[2], y[3])};
		int32_t key = (lane / 8 & 1) * 8 + lane % 8;
		uint32_t row = at + (uint32_t)(((N + i) * STEP + key) * row_bytes +
		                               (lane / 16 ^ (key & 7)) * 16);
#pragma unroll
		for (int n = 0; n < D / 16; n++) {
			uint32_t b[4];
			load_transposed(b, row ^ (uint32_t)(n * 32));
			mma(o.out[2 * n], p, b[0], b[1]);
			mma(o.out[2 * n + 1], p, b[2], b[3]);
		}
	}
}

#endif
