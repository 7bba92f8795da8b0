/* SPDX-License-Identifier: Apache-2.0
 *
 * linear_quant.cuh: products of bf16 rows by a quantized matrix, few rows: bound by the codes' bytes, or by turning them
 * into numbers. Each code has its own file that makes these kernels (linear_quant_*.cu).
 *
 * As linear_thin.cu: units of rows of W are dealt to thread blocks, or to clusters of two that take every second share of
 * the inputs; blocks of 64 inputs go to a group's warps in turn; the warps' sums are added in their order, then the thread
 * blocks' in theirs. A sum's order depends on the weight's shape alone. Each warp fills a ring of its own with
 * tiles and their params, and begins before the kernels in front have ended.
 *
 * W is A (16 rows), x is B (8 rows). Codes become bf16 in registers as whole numbers around zero (or E4M3's values),
 * which is exact. The sums of a segment, the inputs of a block that share their params, are scaled in f32; a zero is
 * added as zero times the sum of x, which is a product by ones. So the weight's values are never rounded.
 */
#ifndef NX_CUDA_LINEAR_QUANT_CUH
#define NX_CUDA_LINEAR_QUANT_CUH

#include "cuda/linear_ptx.cuh"
#include "cuda/weight_quant.cuh"

#define WARPS 16
#define STEPS 4 /* m16n8k16 of a tile */

/* Which group an input is in, without a division. */
struct quant_groups {
	uint32_t n, group16, per_group; /* inputs of a group / 16; 2^31 / group16, rounded up */
};

struct quant_thin {
	const uint8_t *codes, *params;
	const __nv_bfloat16 *x; /* rows are whole pieces of 8 bytes */
	int k, n_blocks, m, n_units;
	struct quant_groups groups;
	int split;
	struct epilogue e;
};

/* What lies beside a group's codes. */
enum quant_beside { BESIDE_SCALE, BESIDE_ZERO, BESIDE_F32 };

/* NT: tiles of 8 rows of x. SU: units in a stage of the ring. MU: units whose sums are kept, a pass. S: stages.
 * SEGS: segments of a block. PER_SM: thread blocks an SM. */
template <int CODE_, int BESIDE_, int SEGS_, int NT_, int SU_, int MU_, int S_, int PER_SM_>
struct quant_shape {
	static constexpr int CODE = CODE_, BESIDE = BESIDE_, SEGS = SEGS_, NT = NT_, SU = SU_,
			     MU = MU_, S = S_, PER_SM = PER_SM_;
	static constexpr int TILE = CODE == NX_WEIGHT_CODE_INT4 ? 512 : 1024;
	static constexpr int PARAM = BESIDE == BESIDE_SCALE ? 2 : 4; /* bytes of a row's */
	static constexpr int PARAMS = SEGS * PARAM * UNIT_ROWS;      /* bytes of a tile's */
	static constexpr int STAGE = SU * (TILE + PARAMS), RING = WARPS * S * STAGE;
	/* Fragments (16 rows of W by 8 of x) of a pass, and whose partial sums are added at a time. */
	static constexpr int FRAGS = MU * NT, ROUND = FRAGS < 4 ? FRAGS : 4;
	static constexpr int RED = WARPS * ROUND * 64 * (int)sizeof(float2);
	static constexpr int SUMS = FRAGS > ROUND ? FRAGS * 64 * (int)sizeof(float2) : 0;
	static constexpr int SMEM = RING + RED + SUMS; /* and x */
};

struct quant_warp {
	int warp, lane;
	int rank;        /* of the thread block in its group */
	int first, step; /* blocks of inputs that are this warp's */
};

/* ---- the order of a warp's stages: passes over runs of units, blocks of inputs, stages of units */

struct quant_walk {
	int unit, end, each; /* of the group's: where the pass begins, where all end; of a pass */
	int left;            /* units of this pass */
	int block, stage;    /* stage: its first unit, in the pass */
	/* This lane's piece of the pass's first tile and of its first params; how far from them the stage's are. */
	const uint8_t *codes, *params;
	uint32_t code_at, param_at;
};

/* What a lane adds to its addresses from unit to unit. */
struct quant_strides {
	uint32_t codes, params;
};

/* The group of inputs [16 at, ..). */
static __device__ __forceinline__ uint32_t group_at(const struct quant_groups &g, uint32_t at)
{
	uint32_t i = (uint32_t)((uint64_t)at * g.per_group >> 31);
	i = g.group16 == 1 ? at : i;
	return i < g.n ? i : g.n - 1;
}

/* Params of a segment are P::PARAM pieces; lanes have those of a stage in the order of units, segments, pieces. */
template <typename P>
static __device__ __forceinline__ void walk_block(struct quant_walk &w, const struct quant_thin &t,
                                                  int lane)
{
	uint32_t seg = (uint32_t)(lane / P::PARAM % P::SEGS);
	w.stage = 0;
	w.code_at = (uint32_t)w.block * P::TILE;
	w.param_at =
		group_at(t.groups, (uint32_t)w.block * 4 + seg * (4 / P::SEGS)) * (P::PARAM * 16);
}

template <typename P>
static __device__ __forceinline__ void walk_pass(struct quant_walk &w, const struct quant_thin &t,
                                                 const struct quant_warp &p)
{
	w.left = w.end - w.unit < w.each ? w.end - w.unit : w.each;
	w.codes = t.codes + (int64_t)w.unit * t.n_blocks * P::TILE + p.lane * 16;
	w.params = t.params +
	           ((int64_t)(w.unit + p.lane / (P::PARAM * P::SEGS)) * t.groups.n * P::PARAM +
	            p.lane % P::PARAM) *
	                   16;
	w.block = p.first;
	walk_block<P>(w, t, p.lane);
}

/* Passes of about the same length, whole stages but for the last. */
template <typename P>
static __device__ __forceinline__ struct quant_walk walk_begin(const struct quant_thin &t,
                                                               const struct quant_warp &p)
{
	struct quant_walk w;
	int group = blockIdx.x / t.split, n_groups = gridDim.x / t.split;
	w.unit = (int)((int64_t)t.n_units * group / n_groups);
	w.end = (int)((int64_t)t.n_units * (group + 1) / n_groups);
	int passes = (w.end - w.unit + P::MU - 1) / P::MU;
	w.each = passes ? (w.end - w.unit + passes - 1) / passes : 0;
	w.each = (w.each + P::SU - 1) / P::SU * P::SU;
	walk_pass<P>(w, t, p);
	return w;
}

/* Copies the stage that w stands at and steps on. A lane copies the pieces of codes that it will read. Units that are
 * not there keep what was in their place: nothing is made of their sums. */
template <typename P>
static __device__ __forceinline__ void copy_stage(struct quant_walk &w, const struct quant_thin &t,
                                                  uint32_t dst, const struct quant_warp &p,
                                                  const struct quant_strides &by)
{
	if (w.unit < w.end) {
		const uint8_t *from = w.codes + w.code_at;
		uint32_t to = dst + (uint32_t)(p.lane * 16);
#pragma unroll
		for (int u = 0; u < P::SU; u++)
			if (w.stage + u < w.left)
#pragma unroll
				for (int i = 0; i < P::TILE; i += 512)
					copy_piece(to + (uint32_t)(u * P::TILE + i),
					           from + (uint32_t)u * by.codes + i, true);
		static_assert(P::SU * P::PARAMS / 16 <= 32, "a piece of params a lane");
		if (p.lane < P::SU * P::PARAMS / 16 &&
		    w.stage + p.lane / (P::PARAM * P::SEGS) < w.left)
			copy_piece(to + P::SU * P::TILE, w.params + w.param_at, true);
		w.stage += P::SU;
		w.code_at += P::SU * by.codes;
		w.param_at += P::SU * by.params;
		if (w.stage >= w.left) {
			w.block += p.step;
			if (w.block < t.n_blocks) {
				walk_block<P>(w, t, p.lane);
			} else {
				w.unit += w.left;
				walk_pass<P>(w, t, p);
			}
		}
	}
	copy_commit();
}

/* ---- x: all of a warp's inputs, copied once. [its blocks][steps][rows of x][16 inputs] */

#define X_BLOCK 128 /* bytes of a block of a row */

static __device__ __forceinline__ void copy_x(const struct quant_thin &t, uint32_t to,
                                              const struct quant_warp &p)
{
	int piece = p.lane % 8;
	for (int block = p.first; block < t.n_blocks; block += p.step) {
		int at = block * BLOCK_K + piece * 8;
		for (int r = p.lane / 8; r < t.m; r += 4)
			copy_piece(to + (uint32_t)((piece / 2 * t.m + r) * 32 + piece % 2 * 16),
			           at < t.k ? t.x + (int64_t)r * t.k + at : t.x, at < t.k);
		to += (uint32_t)(t.m * X_BLOCK);
	}
	copy_commit();
	copy_wait<0>();
	__syncwarp();
}

static __device__ __forceinline__ uint2 smem_read_u2(uint32_t at)
{
	uint2 v;
	asm volatile("ld.shared.v2.b32 {%0, %1}, [%2];"
	             : "=r"(v.x), "=r"(v.y)
	             : "r"(at)
	             : "memory");
	return v;
}

/* from: the lane's piece of the block's first step; rows that are not there are zero. */
template <typename P>
static __device__ __forceinline__ void read_block(uint2 (&x)[P::NT][STEPS], uint32_t from, int m,
                                                  int lane)
{
#pragma unroll
	for (int i = 0; i < P::NT; i++)
#pragma unroll
		for (int step = 0; step < STEPS; step++) {
			x[i][step] = make_uint2(0, 0);
			if (i * 8 + lane / 4 < m)
				x[i][step] =
					smem_read_u2(from + (uint32_t)((step * m + i * 8) * 32));
		}
}

/* ---- codes to pairs of bf16 */

/* (a & MASK) | c, and (a & MASK) ^ c, in one instruction: it takes one number of its own, so c is in a register. */
template <uint32_t MASK> static __device__ __forceinline__ uint32_t and_or(uint32_t a, uint32_t c)
{
	uint32_t d;
	asm("lop3.b32 %0, %1, %2, %3, 0xea;" : "=r"(d) : "r"(a), "n"(MASK), "r"(c));
	return d;
}

template <uint32_t MASK> static __device__ __forceinline__ uint32_t and_xor(uint32_t a, uint32_t c)
{
	uint32_t d;
	asm("lop3.b32 %0, %1, %2, %3, 0x6a;" : "=r"(d) : "r"(a), "n"(MASK), "r"(c));
	return d;
}

/* A number that the compiler does not know. */
static __device__ __forceinline__ uint32_t in_register(uint32_t x)
{
	uint32_t d;
	asm volatile("mov.b32 %0, %1;" : "=r"(d) : "r"(x));
	return d;
}

static __device__ __forceinline__ uint32_t pair_sub(uint32_t a, uint32_t b)
{
	uint32_t c;
	asm("sub.rn.bf16x2 %0, %1, %2;" : "=r"(c) : "r"(a), "r"(b));
	return c;
}

static __device__ __forceinline__ uint32_t pair_mul(uint32_t a, uint32_t b)
{
	uint32_t c;
	asm("mul.rn.bf16x2 %0, %1, %2;" : "=r"(c) : "r"(a), "r"(b));
	return c;
}

/* bf16 has 7 bits of mantissa: 128 + q is 0x4300 | q where q < 128. */
struct quant_magic {
	uint32_t bias, less; /* 0x4300, 0x4380, twice */
};

static __device__ __forceinline__ struct quant_magic quant_magic_numbers(void)
{
	struct quant_magic m = {in_register(0x43004300u), in_register(0x43804380u)};
	return m;
}

static __device__ __forceinline__ void pairs_int4(uint32_t (&a)[4], uint32_t w,
                                                  const struct quant_magic &magic)
{
#pragma unroll
	for (int i = 0; i < 4; i++)
		a[i] = pair_sub(and_or<0x000f000fu>(w >> (4 * i), magic.bias), 0x43084308u);
}

/* 128 + (q & 127) less 128 where q >= 128, else less 256, whose bits differ in q's eighth alone. */
static __device__ __forceinline__ void pairs_int8(uint32_t &a, uint32_t &b, uint32_t w,
                                                  const struct quant_magic &magic)
{
	uint32_t v = w >> 8;
	a = pair_sub(and_or<0x007f007fu>(w, magic.bias), and_xor<0x00800080u>(w, magic.less));
	b = pair_sub(and_or<0x007f007fu>(v, magic.bias), and_xor<0x00800080u>(v, magic.less));
}

/* The exponents' bias is 120 less than bf16's. */
static __device__ __forceinline__ void pairs_e4m3(uint32_t &a, uint32_t &b, uint32_t w)
{
	a = pair_mul(w & 0x87f087f0u, 0x7b807b80u);
	b = pair_mul(and_or<0x80f080f0u>(w << 4, w >> 4 & 0x07000700u), 0x7b807b80u);
}

/* ---- a tile by x */

/* c = a b, or c += a b. Not volatile: nothing but c is seen, and the compiler may order products as it likes. */
static __device__ __forceinline__ void multiply(float (&c)[4], const uint32_t (&a)[4], uint32_t b0,
                                                uint32_t b1, bool first)
{
	if (first)
		asm("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0, %1, %2, %3}, "
		    "{%4, %5, %6, %7}, {%8, %9}, {%10, %10, %10, %10};"
		    : "=f"(c[0]), "=f"(c[1]), "=f"(c[2]), "=f"(c[3])
		    : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1), "f"(0.0f));
	else
		asm("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0, %1, %2, %3}, "
		    "{%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};"
		    : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
		    : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
}

template <typename P>
static __device__ __forceinline__ void multiply_step(float (&sum)[P::NT][4], const uint32_t (&a)[4],
                                                     const uint2 (&x)[P::NT][STEPS], int step)
{
#pragma unroll
	for (int i = 0; i < P::NT; i++)
		multiply(sum[i], a, x[i][step].x, x[i][step].y, step % (STEPS / P::SEGS) == 0);
}

/* Sums of x's segments: a product by ones. Each lane gets those of its two rows of x, in [0] and [1]. */
template <typename P>
static __device__ __forceinline__ void sum_x(float (&sums)[P::SEGS][P::NT][2],
                                             const uint2 (&x)[P::NT][STEPS])
{
	const uint32_t ones[4] = {0x3f803f80u, 0x3f803f80u, 0x3f803f80u, 0x3f803f80u};
	float sum[P::NT][4];
#pragma unroll
	for (int step = 0; step < STEPS; step++) {
		multiply_step<P>(sum, ones, x, step);
#pragma unroll
		for (int i = 0; i < P::NT; i++)
#pragma unroll
			for (int c = 0; c < 2; c++)
				sums[step / (STEPS / P::SEGS)][i][c] = sum[i][c];
	}
}

static __device__ __forceinline__ float2 smem_read_f2(uint32_t at)
{
	float2 v;
	asm volatile("ld.shared.v2.f32 {%0, %1}, [%2];"
	             : "=f"(v.x), "=f"(v.y)
	             : "r"(at)
	             : "memory");
	return v;
}

static __device__ __forceinline__ float2 halves(float bits)
{
	__half2 h;
	uint32_t u = __float_as_uint(bits);
	memcpy(&h, &u, sizeof(h));
	return __half22float2(h);
}

/* Scales, and zeros as they are for codes around zero, of rows 2 g and 2 g + 1. */
template <typename P>
static __device__ __forceinline__ void read_params(float (&scale)[2], float (&zero)[2], uint32_t at)
{
	if (P::BESIDE == BESIDE_SCALE) {
		float bits;
		asm volatile("ld.shared.f32 %0, [%1];" : "=f"(bits) : "r"(at) : "memory");
		float2 v = halves(bits);
		scale[0] = v.x;
		scale[1] = v.y;
	} else if (P::BESIDE == BESIDE_F32) {
		float2 v = smem_read_f2(at);
		scale[0] = v.x;
		scale[1] = v.y;
	} else {
		const float middle = P::CODE == NX_WEIGHT_CODE_INT4 ? 8 : 128;
		float2 bits = smem_read_f2(at), v = halves(bits.x), u = halves(bits.y);
		scale[0] = v.x;
		scale[1] = u.x;
		zero[0] = fmaf(middle, v.x, v.y);
		zero[1] = fmaf(middle, u.x, u.y);
	}
}

/* A lane's codes of a tile, and a step of them as A. */
template <typename P> struct quant_words {
	uint4 w[P::TILE / 512];
};

template <typename P>
static __device__ __forceinline__ void step_of(uint32_t (&a)[4], const struct quant_words<P> &t,
                                               int step, const struct quant_magic &magic)
{
	const uint4 v = t.w[P::TILE == 512 ? 0 : step / 2];
	if (P::CODE == NX_WEIGHT_CODE_INT4) {
		const uint32_t w[4] = {v.x, v.y, v.z, v.w};
		pairs_int4(a, w[step], magic);
		return;
	}
	uint32_t lo = step % 2 ? v.z : v.x, hi = step % 2 ? v.w : v.y;
	if (P::CODE == NX_WEIGHT_CODE_INT8) {
		pairs_int8(a[0], a[1], lo, magic);
		pairs_int8(a[2], a[3], hi, magic);
	} else {
		pairs_e4m3(a[0], a[1], lo);
		pairs_e4m3(a[2], a[3], hi);
	}
}

/* acc += the segment's sums, scaled. */
template <typename P>
static __device__ __forceinline__ void add_segment(float (&acc)[P::NT][4],
                                                   const float (&sum)[P::NT][4],
                                                   const float (&xs)[P::NT][2], uint32_t params)
{
	float scale[2], zero[2];
	read_params<P>(scale, zero, params);
#pragma unroll
	for (int i = 0; i < P::NT; i++)
#pragma unroll
		for (int c = 0; c < 4; c++) {
			if (P::BESIDE == BESIDE_ZERO)
				acc[i][c] = fmaf(zero[c / 2], xs[i][c % 2], acc[i][c]);
			acc[i][c] = fmaf(scale[c / 2], sum[i][c], acc[i][c]);
		}
}

/* The tiles of a stage, AT at a time: products of one wait for each other. */
template <typename P>
static __device__ __forceinline__ void multiply_stage(float (*acc)[P::NT][4],
                                                      const uint2 (&x)[P::NT][STEPS],
                                                      const float (&xs)[P::SEGS][P::NT][2],
                                                      uint32_t from, int units, int lane,
                                                      const struct quant_magic &magic)
{
	constexpr int AT = P::SU < 2 ? P::SU : 2, EACH = STEPS / P::SEGS;
	const uint32_t params = from + (uint32_t)(P::SU * P::TILE + lane / 4 * 2 * P::PARAM);
#pragma unroll
	for (int u0 = 0; u0 < P::SU; u0 += AT) {
		if (u0 && u0 >= units)
			break;
		struct quant_words<P> t[AT];
		float sum[AT][P::NT][4];
#pragma unroll
		for (int u = 0; u < AT; u++)
#pragma unroll
			for (int i = 0; i < P::TILE / 512; i++)
				t[u].w[i] = smem_read(from + (uint32_t)((u0 + u) * P::TILE +
				                                        i * 512 + lane * 16));
#pragma unroll
		for (int step = 0; step < STEPS; step++)
#pragma unroll
			for (int u = 0; u < AT; u++) {
				uint32_t a[4];
				step_of<P>(a, t[u], step, magic);
				multiply_step<P>(sum[u], a, x, step);
				if (step % EACH == EACH - 1)
					add_segment<P>(acc[u0 + u], sum[u], xs[step / EACH],
					               params + (uint32_t)((u0 + u) * P::PARAMS +
					                                   step / EACH * UNIT_ROWS *
					                                           P::PARAM));
			}
	}
}

/* ---- the sums of a pass */

/* Element `at` of a fragment: rows 2 g and 2 g + 1 of the unit, and a row of x (2 t, or 2 t + 1 from 32 on). */
template <typename P>
static __device__ __forceinline__ void store_sum(const struct quant_thin &t, int unit, int f,
                                                 int at, float2 sum)
{
	int lane = at % 32, r = f % P::NT * 8 + lane % 4 * 2 + at / 32;
	int64_t col = (int64_t)(unit + f / P::NT) * UNIT_ROWS + lane / 4 * 2;
	if (r < t.m)
		epilogue_pair<__nv_bfloat16>(t.e, r, col, sum.x, sum.y);
}

/* Adds the warps' sums in their order, ROUND fragments at a time: into y, or, split, into `sums`, which may be red. */
template <typename P>
static __device__ __forceinline__ void add_warps(const float (&acc)[P::MU][P::NT][4],
                                                 const struct quant_thin &t, int unit, int n,
                                                 float2 *red, float2 *sums,
                                                 const struct quant_warp &p)
{
#pragma unroll
	for (int f0 = 0; f0 < P::FRAGS; f0 += P::ROUND) {
		if (f0 && f0 >= n)
			break;
		__syncthreads(); /* what was here has been read */
#pragma unroll
		for (int f = 0; f < P::ROUND; f++) {
			const float(&c)[4] = acc[(f0 + f) / P::NT][(f0 + f) % P::NT];
			float2 *to = red + (p.warp * P::ROUND + f) * 64 + p.lane;
			to[0] = make_float2(c[0], c[2]);
			to[32] = make_float2(c[1], c[3]);
		}
		__syncthreads();
		int i = threadIdx.x, f = f0 + i / 64;
		if (i >= P::ROUND * 64 || f >= n)
			continue;
		float2 sum = red[i];
#pragma unroll
		for (int v = 1; v < WARPS; v++) {
			float2 more = red[v * P::ROUND * 64 + i];
			sum.x += more.x;
			sum.y += more.y;
		}
		if (t.split == 1)
			store_sum<P>(t, unit, f, i % 64, sum);
		else
			sums[f0 * 64 + i] = sum;
	}
}

/* The cluster's: its blocks take fragments in turn. */
template <typename P>
static __device__ __forceinline__ void add_blocks(const struct quant_thin &t, int unit, int n,
                                                  const float2 *sums, const struct quant_warp &p)
{
	cluster_sync();
	for (int i = threadIdx.x;; i += WARPS * 32) {
		int f = i / 64 * t.split + p.rank;
		if (f >= n)
			break;
		uint32_t at = smem_of(sums + f * 64 + i % 64);
		float2 sum = cluster_read(at, 0);
		for (int rank = 1; rank < t.split; rank++) {
			float2 more = cluster_read(at, rank);
			sum.x += more.x;
			sum.y += more.y;
		}
		store_sum<P>(t, unit, f, i % 64, sum);
	}
	cluster_sync(); /* the sums may be written again, or their block may go */
}

/* ---- the kernel */

template <typename P>
static __global__ void __launch_bounds__(WARPS * 32, P::PER_SM)
	quant_kernel(const __grid_constant__ struct quant_thin t)
{
	extern __shared__ __align__(128) uint8_t smem[];
	float2 *red = (float2 *)(smem + P::RING), *sums = red;
	if (P::SUMS)
		sums += P::RED / (int)sizeof(float2);
	struct quant_warp p;
	p.warp = threadIdx.x / 32;
	p.lane = threadIdx.x % 32;
	p.rank = blockIdx.x % t.split;
	p.first = p.rank * WARPS + p.warp;
	p.step = t.split * WARPS;
	const uint32_t ring = smem_of(smem) + (uint32_t)(p.warp * P::S * P::STAGE);
	const struct quant_strides by = {(uint32_t)t.n_blocks * P::TILE,
	                                 t.groups.n * P::PARAM * 16};
	const struct quant_magic magic = quant_magic_numbers();
	pdl_trigger();
	struct quant_walk ahead = walk_begin<P>(t, p);
	int unit = ahead.unit, end = ahead.end, each = ahead.each;
	if (p.first >= t.n_blocks)
		ahead.unit = ahead.end; /* a warp without inputs */
#pragma unroll 1
	for (int i = 0; i < P::S - 1; i++)
		copy_stage<P>(ahead, t, ring + (uint32_t)(i * P::STAGE), p, by);
	pdl_wait();

	const uint32_t own = (uint32_t)((t.n_blocks + p.step - 1) / p.step * t.m * X_BLOCK);
	const uint32_t x_at = smem_of(smem) + P::SMEM + (uint32_t)p.warp * own;
	copy_x(t, x_at, p);
	uint32_t at = ring, free = ring + (P::S - 1) * P::STAGE;
	while (unit < end) {
		int pass = end - unit < each ? end - unit : each;
		float acc[P::MU][P::NT][4] = {};
		uint32_t from = x_at + (uint32_t)(p.lane / 4 * 32 + p.lane % 4 * 8);
#pragma unroll 1
		for (int block = p.first; block < t.n_blocks; block += p.step) {
			uint2 x[P::NT][STEPS];
			float xs[P::SEGS][P::NT][2];
			read_block<P>(x, from, t.m, p.lane);
			from += (uint32_t)(t.m * X_BLOCK);
			if (P::BESIDE == BESIDE_ZERO)
				sum_x<P>(xs, x);
#pragma unroll
			for (int stage = 0; stage < P::MU; stage += P::SU) {
				if (stage && stage >= pass)
					break;
				copy_wait<P::S - 2>();
				__syncwarp();
				copy_stage<P>(ahead, t, free, p, by);
				multiply_stage<P>(acc + stage, x, xs, at, pass - stage, p.lane,
				                  magic);
				free = at;
				at = at + P::STAGE == ring + P::S * P::STAGE ? ring : at + P::STAGE;
			}
		}
		int n = pass * P::NT;
		add_warps<P>(acc, t, unit, n, red, sums, p);
		if (t.split > 1)
			add_blocks<P>(t, unit, n, sums, p);
		unit += pass;
	}
}

/* ---- launches */

template <typename P> static int quant_set_smem(const struct cuda_dev *d, struct nx_err *err)
{
	CU(cudaFuncSetAttribute(quant_kernel<P>, cudaFuncAttributeMaxDynamicSharedMemorySize,
	                        d->max_smem));
	return 0;
}

/* Bytes of x that a thread block keeps, a row. */
static inline int64_t quant_x_bytes(const struct quant_thin &t)
{
	int64_t warps = (int64_t)t.split * WARPS;
	return (t.n_blocks + warps - 1) / warps * WARPS * X_BLOCK;
}

template <typename P>
static int quant_launch(const struct cuda_dev *d, cudaStream_t s, const struct quant_thin &t,
                        struct nx_err *err)
{
	int groups = d->n_sms / t.split;
	cudaLaunchConfig_t c = {};
	cudaLaunchAttribute a[2];
	a[0].id = cudaLaunchAttributeProgrammaticStreamSerialization;
	a[0].val.programmaticStreamSerializationAllowed = 1;
	a[1].id = cudaLaunchAttributeClusterDimension;
	a[1].val.clusterDim.x = (unsigned)t.split;
	a[1].val.clusterDim.y = a[1].val.clusterDim.z = 1;
	c.gridDim = dim3((unsigned)((t.n_units < groups ? t.n_units : groups) * t.split));
	c.blockDim = dim3(WARPS * 32);
	c.dynamicSmemBytes = (size_t)(P::SMEM + t.m * quant_x_bytes(t));
	c.stream = s;
	c.attrs = a;
	c.numAttrs = t.split > 1 ? 2 : 1;
	cudaError_t e = cudaLaunchKernelEx(&c, quant_kernel<P>, t);
	return e == cudaSuccess ? 0 : cu_fail(err, e, "quant_kernel");
}

/* Shapes for up to 8 and 16 rows of x. The first leaves half of an SM to the product behind it, which then fills its
 * ring while this one ends. */
template <int CODE, int BESIDE, int SEGS> struct quant_shapes {
	static constexpr int SU = CODE == NX_WEIGHT_CODE_INT4 ? 2 : 1;
	using few = quant_shape<CODE, BESIDE, SEGS, 1, SU, 4, 4, 2>;
	using some = quant_shape<CODE, BESIDE, SEGS, 2, SU, 4, 3, 1>;
};

template <int CODE, int BESIDE, int SEGS>
static int quant_open_one(const struct cuda_dev *d, struct nx_err *err)
{
	using shapes = quant_shapes<CODE, BESIDE, SEGS>;
	int rc = quant_set_smem<typename shapes::few>(d, err);
	return rc ? rc : quant_set_smem<typename shapes::some>(d, err);
}

template <int CODE, int BESIDE>
static int quant_open_beside(const struct cuda_dev *d, struct nx_err *err)
{
	int rc = quant_open_one<CODE, BESIDE, 1>(d, err);
	if (!rc)
		rc = quant_open_one<CODE, BESIDE, 2>(d, err);
	return rc ? rc : quant_open_one<CODE, BESIDE, 4>(d, err);
}

/* 16 rows where their x fits, else 8 or fewer; 0: not even one. */
template <int CODE, int BESIDE, int SEGS>
static int quant_launch_rows(const struct cuda_dev *d, cudaStream_t s, struct quant_thin t,
                             int *rows, struct nx_err *err)
{
	using few = typename quant_shapes<CODE, BESIDE, SEGS>::few;
	using some = typename quant_shapes<CODE, BESIDE, SEGS>::some;
	int64_t row = quant_x_bytes(t), fit = (d->max_smem - few::SMEM) / row;
	fit = fit < 8 ? fit : 8;
	if (t.m > 8 && (d->max_smem - some::SMEM) / row > 8) {
		fit = (d->max_smem - some::SMEM) / row;
		fit = fit < 16 ? fit : 16;
	}
	t.m = t.m < fit ? t.m : (int)fit;
	*rows = t.m;
	return t.m == 0  ? 0
	       : t.m > 8 ? quant_launch<some>(d, s, t, err)
	                 : quant_launch<few>(d, s, t, err);
}

template <int CODE, int BESIDE>
static int quant_launch_beside(const struct cuda_dev *d, cudaStream_t s, const struct quant_thin &t,
                               int segments, int *rows, struct nx_err *err)
{
	return segments == 1   ? quant_launch_rows<CODE, BESIDE, 1>(d, s, t, rows, err)
	       : segments == 2 ? quant_launch_rows<CODE, BESIDE, 2>(d, s, t, rows, err)
	                       : quant_launch_rows<CODE, BESIDE, 4>(d, s, t, rows, err);
}

/* linear_quant_*.cu: the first *rows of t.m rows, as many as go at once; 0 where x is too long. */
int quant_thin_int8(const struct cuda_dev *d, cudaStream_t s, const struct quant_thin &t, bool zero,
                    int segments, int *rows, struct nx_err *err);
int quant_thin_int4(const struct cuda_dev *d, cudaStream_t s, const struct quant_thin &t, bool zero,
                    int segments, int *rows, struct nx_err *err);
int quant_thin_e4m3(const struct cuda_dev *d, cudaStream_t s, const struct quant_thin &t, bool zero,
                    int segments, int *rows, struct nx_err *err);
int quant_open_int8(const struct cuda_dev *d, struct nx_err *err);
int quant_open_int4(const struct cuda_dev *d, struct nx_err *err);
int quant_open_e4m3(const struct cuda_dev *d, struct nx_err *err);

#endif
