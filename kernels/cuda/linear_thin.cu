/* SPDX-License-Identifier: Apache-2.0
 *
 * linear_thin.cu: bf16 products that the weight's bytes bound: few rows of x, and any number in invariant mode.
 *
 * Rows of W are dealt, in runs of units of 8, to one thread block an SM, or to clusters of two where rows are few and
 * long: then each of the two takes every second share of the inputs, and x is read half as often. Eight warps a block multiply
 * on tensor cores, x as A (16 rows) and W as B (8 rows). Blocks of 64 inputs go to a group's warps in turn; the warps'
 * sums are added in their order, then the thread blocks' in theirs. So the order in which a sum is made depends on the
 * weight's shape alone, whatever m is and however rows are dealt.
 *
 * Each warp has a ring of its own in shared memory, which it fills with the weight well ahead of its use, and begins to
 * fill before the kernels in front have ended: the weight does not depend on them. Warps meet only to add their sums.
 * The ring takes most of an SM and leaves registers and room for the small kernels that run between products.
 *
 * A lane reads 8 consecutive inputs of a row in one piece, of W from the ring and of x from memory. The tensor core wants
 * pairs of inputs 8 apart, but the order of inputs is free as long as x and W share it.
 */
#include "cuda/linear.cuh"
#include "cuda/linear_ptx.cuh"

#define WARPS 8
#define BLOCK_K 64 /* inputs that a warp takes at a time: a line of the L2 */
#define ROUND 4    /* fragments (8 rows of W by 16 of x) whose partial sums are added at a time */
#define MAX_M 64
#define RED_BYTES (WARPS * ROUND * 64 * (int)sizeof(float2))
/* Inputs are dealt to two blocks where x is long and each block's share of rows short, in units: x then costs more than
 * the two blocks' meeting, which took half a microsecond on an H200. */
#define SPLIT_BELOW 8
#define SPLIT_K 8192

struct thin {
	const __nv_bfloat16 *w, *x;
	int k, k_pad, m;
	int n_units;
	int split;  /* thread blocks of a group: 1, or a cluster of 2 */
	bool whole; /* rows of x are whole pieces of 16 bytes */
	struct epilogue e;
};

/* MT: tiles of 16 rows of x. SU: units of W rows in a stage of the ring. MU: units whose sums are kept, a pass. S: stages.
 * EARLY: x of the next block is read while this one is used. */
template <int MT_, int SU_, int MU_, int S_, bool EARLY_> struct shape {
	static constexpr int MT = MT_, SU = SU_, MU = MU_, S = S_;
	static constexpr bool EARLY = EARLY_;
	static constexpr int STAGE = SU * 8 * BLOCK_K * 2, RING = WARPS * S * STAGE;
	static constexpr int SUMS = MU * MT * 64 * (int)sizeof(float2);
	static constexpr int SMEM = RING + RED_BYTES + SUMS;
};

struct place {
	int warp, lane;
	int rank;        /* of the thread block in its group */
	int first, step; /* blocks of inputs that are this warp's */
};

/* ---- the order of a warp's stages: passes over runs of rows, blocks of inputs, stages of rows */

struct walk {
	int unit, end; /* of the group's: where the pass begins, where all end */
	int pass;      /* units of this pass */
	int n_stages;  /* of a block of inputs */
	int block, stage;
};

template <typename P> static __device__ __forceinline__ void walk_pass(struct walk &w, int first)
{
	int left = w.end - w.unit, passes = (left + P::MU - 1) / P::MU;
	w.pass = passes > 1 ? (left + passes - 1) / passes : left;
	w.pass = (w.pass + P::SU - 1) / P::SU * P::SU;
	w.pass = w.pass < left ? w.pass : left;
	w.n_stages = (w.pass + P::SU - 1) / P::SU;
	w.block = first;
	w.stage = 0;
}

template <typename P>
static __device__ __forceinline__ struct walk walk_begin(const struct thin &t, int first)
{
	struct walk w;
	int group = blockIdx.x / t.split, n_groups = gridDim.x / t.split;
	w.unit = (int)((int64_t)t.n_units * group / n_groups);
	w.end = (int)((int64_t)t.n_units * (group + 1) / n_groups);
	walk_pass<P>(w, first);
	return w;
}

/* Copies the stage that w stands at and steps on. A lane copies pieces of the same columns of every fourth row. Halves of
 * odd rows change places, so that lanes of two rows read in one go. */
template <typename P>
static __device__ __forceinline__ void copy_stage(struct walk &w, const struct thin &t,
                                                  uint32_t dst, const struct place &p,
                                                  uint64_t once)
{
	if (w.unit < w.end) {
		int row = (w.unit + w.stage * P::SU) * 8 + p.lane / 8;
		int at = w.block * BLOCK_K + p.lane % 8 * 8, end = (w.unit + w.pass) * 8;
		end = end < (int)t.e.n ? end : (int)t.e.n;
		const __nv_bfloat16 *from = t.w + (int64_t)row * t.k_pad + at;
		uint32_t to = dst + (uint32_t)(p.lane / 8 * 128 +
		                               ((p.lane % 8) ^ (p.lane / 8 % 2 * 4)) * 16);
#pragma unroll
		for (int i = 0; i < P::SU * 2; i++) {
			bool there = at < t.k_pad && row + i * 4 < end;
			copy_once(to + (uint32_t)(i * 4 * 128),
			          there ? from + (int64_t)(i * 4) * t.k_pad : t.w, there, once);
		}
		if (++w.stage == w.n_stages) {
			w.stage = 0;
			w.block += p.step;
			if (w.block * BLOCK_K >= t.k_pad) {
				w.unit += w.pass;
				walk_pass<P>(w, p.first);
			}
		}
	}
	copy_commit();
}

/* ---- x */

/* Inputs [at, at + 8) of row r, zero where there are none. */
static __device__ __forceinline__ uint4 read_x(const struct thin &t, int r, int at)
{
	uint4 v = {0, 0, 0, 0};
	if (r >= t.m || at >= t.k)
		return v;
	const __nv_bfloat16 *p = t.x + (int64_t)r * t.k + at;
	if (t.whole)
		return __ldcg((const uint4 *)p);
	uint32_t part[8];
#pragma unroll
	for (int i = 0; i < 8; i++)
		part[i] = at + i < t.k ? __bfloat16_as_ushort(p[i]) : 0;
	v.x = part[0] | part[1] << 16;
	v.y = part[2] | part[3] << 16;
	v.z = part[4] | part[5] << 16;
	v.w = part[6] | part[7] << 16;
	return v;
}

template <typename P>
static __device__ __forceinline__ void read_block(uint4 (&x)[2][P::MT][2], const struct thin &t,
                                                  int block, int lane)
{
#pragma unroll
	for (int b = 0; b < 2; b++)
#pragma unroll
		for (int i = 0; i < P::MT; i++)
#pragma unroll
			for (int h = 0; h < 2; h++)
				x[b][i][h] = read_x(t, i * 16 + h * 8 + lane / 4,
				                    block * BLOCK_K + b * 32 + lane % 4 * 8);
}

/* ---- the sums of a pass */

/* Element `at` (two floats) of a fragment: a row of x (lane / 4 of a half) and two rows of W (lane % 4). */
template <typename P>
static __device__ __forceinline__ void store_sum(const struct thin &t, int unit, int f, int at,
                                                 float2 sum)
{
	int lane = at % 32, r = f % P::MT * 16 + at / 32 * 8 + lane / 4;
	int64_t col = (int64_t)(unit + f / P::MT) * 8 + lane % 4 * 2;
	if (r < t.m)
		epilogue_pair<__nv_bfloat16>(t.e, r, col, sum.x, sum.y);
}

/* Adds the warps' sums in their order, ROUND fragments at a time: into y, or, split, into `sums`. */
template <typename P>
static __device__ __forceinline__ void add_warps(const float (&acc)[P::MU][P::MT][4],
                                                 const struct thin &t, int unit, int n, float2 *red,
                                                 float2 *sums, const struct place &p)
{
	static_assert(P::MU * P::MT % ROUND == 0 && WARPS * 32 == ROUND * 64, "whole rounds");
#pragma unroll
	for (int f0 = 0; f0 < P::MU * P::MT; f0 += ROUND) {
		if (f0 >= n)
			break;
		if (f0 || unit)
			__syncthreads(); /* what was here has been read */
#pragma unroll
		for (int q = 0; q < ROUND; q++) {
			const float(&c)[4] = acc[(f0 + q) / P::MT][(f0 + q) % P::MT];
			float2 *to = red + (p.warp * ROUND + q) * 64 + p.lane;
			to[0] = make_float2(c[0], c[1]);
			to[32] = make_float2(c[2], c[3]);
		}
		__syncthreads();
		int i = threadIdx.x, f = f0 + i / 64;
		float2 sum = red[i];
#pragma unroll
		for (int v = 1; v < WARPS; v++) {
			float2 more = red[v * ROUND * 64 + i];
			sum.x += more.x;
			sum.y += more.y;
		}
		if (f >= n)
			continue;
		if (t.split == 1)
			store_sum<P>(t, unit, f, i % 64, sum);
		else
			sums[f0 * 64 + i] = sum;
	}
}

/* The cluster's: its blocks take fragments in turn. */
template <typename P>
static __device__ __forceinline__ void add_blocks(const struct thin &t, int unit, int n,
                                                  const float2 *sums, const struct place &p)
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

/* One stage of the ring: SU units by a block of inputs. */
template <typename P>
static __device__ __forceinline__ void multiply_stage(float (*acc)[P::MT][4],
                                                      const uint4 (&x)[2][P::MT][2], uint32_t from)
{
	uint4 v[P::SU][2];
#pragma unroll
	for (int u = 0; u < P::SU; u++) {
		v[u][0] = smem_read(from + (uint32_t)(u * 8 * 128));
		v[u][1] = smem_read((from ^ 64) + (uint32_t)(u * 8 * 128));
	}
#pragma unroll
	for (int b = 0; b < 2; b++)
#pragma unroll
		for (int u = 0; u < P::SU; u++)
#pragma unroll
			for (int i = 0; i < P::MT; i++) {
				const uint4 lo = x[b][i][0], hi = x[b][i][1];
				mma(acc[u][i], lo.x, hi.x, lo.y, hi.y, v[u][b].x, v[u][b].y);
				mma(acc[u][i], lo.z, hi.z, lo.w, hi.w, v[u][b].z, v[u][b].w);
			}
}

template <typename P>
static __global__ void __launch_bounds__(WARPS * 32, 1)
	thin_kernel(const __grid_constant__ struct thin t)
{
	extern __shared__ __align__(128) uint8_t smem[];
	float2 *red = (float2 *)(smem + P::RING), *sums = (float2 *)(smem + P::RING + RED_BYTES);
	struct place p;
	p.warp = threadIdx.x / 32;
	p.lane = threadIdx.x % 32;
	p.rank = blockIdx.x % t.split;
	p.first = p.rank * WARPS + p.warp;
	p.step = t.split * WARPS;
	uint32_t ring = smem_of(smem) + (uint32_t)(p.warp * P::S * P::STAGE);
	const uint64_t once = read_once();
	pdl_trigger();
	struct walk w = walk_begin<P>(t, p.first), ahead = w;
	if (p.first * BLOCK_K >= t.k_pad)
		ahead.unit = ahead.end; /* a warp without inputs */
#pragma unroll
	for (int i = 0; i < P::S - 1; i++)
		copy_stage<P>(ahead, t, ring + (uint32_t)(i * P::STAGE), p, once);
	pdl_wait();

	uint4 x[2][P::MT][2], next[2][P::MT][2];
	/* Pieces of the first half of a row; those of the second lie 64 bytes off. */
	uint32_t mine =
		ring + (uint32_t)(p.lane / 4 * 128 + (p.lane % 4 + p.lane / 4 % 2 * 4) * 16);
	int at = 0;
	if (P::EARLY)
		read_block<P>(next, t, p.first, p.lane);
	while (w.unit < w.end) {
		float acc[P::MU][P::MT][4] = {};
		for (int block = p.first; block * BLOCK_K < t.k_pad; block += p.step) {
			if (P::EARLY) {
				int then = block + p.step;
#pragma unroll
				for (int b = 0; b < 2; b++)
#pragma unroll
					for (int i = 0; i < P::MT; i++)
#pragma unroll
						for (int h = 0; h < 2; h++)
							x[b][i][h] = next[b][i][h];
				read_block<P>(next, t, then * BLOCK_K < t.k_pad ? then : p.first,
				              p.lane);
			} else {
				read_block<P>(x, t, block, p.lane);
			}
#pragma unroll
			for (int stage = 0; stage < P::MU / P::SU; stage++) {
				if (stage >= w.n_stages)
					break;
				copy_wait<P::S - 2>();
				__syncwarp();
				int last = at == 0 ? P::S - 1 : at - 1;
				copy_stage<P>(ahead, t, ring + (uint32_t)(last * P::STAGE), p,
				              once);
				multiply_stage<P>(acc + stage * P::SU, x,
				                  mine + (uint32_t)(at * P::STAGE));
				at = at + 1 == P::S ? 0 : at + 1;
			}
		}
		int n = w.pass * P::MT;
		add_warps<P>(acc, t, w.unit, n, red, sums, p);
		if (t.split > 1)
			add_blocks<P>(t, w.unit, n, sums, p);
		w.unit += w.pass;
		walk_pass<P>(w, p.first);
	}
}

/* ---- the choice of shape */

using few = shape<1, 4, 12, 5, true>;
using some = shape<2, 2, 12, 8, true>;
using many = shape<4, 4, 8, 5, false>;

template <typename P> static int set_smem(struct nx_err *err)
{
	CU(cudaFuncSetAttribute(thin_kernel<P>, cudaFuncAttributeMaxDynamicSharedMemorySize,
	                        P::SMEM));
	return 0;
}

int thin_open(struct cuda_dev *d, struct nx_err *err)
{
	int rc = set_smem<few>(err);
	if (!rc)
		rc = set_smem<some>(err);
	return rc ? rc : set_smem<many>(err);
}

bool thin_fits(const struct cuda_dev *d, const struct nx_linear *a)
{
	return d->act == NX_BF16 && a->w->dtype == NX_BF16;
}

template <typename P>
static int launch(const struct cuda_dev *d, cudaStream_t s, const struct thin &t,
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
	c.dynamicSmemBytes = P::SMEM;
	c.stream = s;
	c.attrs = a;
	c.numAttrs = t.split > 1 ? 2 : 1;
	cudaError_t e = cudaLaunchKernelEx(&c, thin_kernel<P>, t);
	return e == cudaSuccess ? 0 : cu_fail(err, e, "thin_kernel");
}

/* By the weight's shape alone: see above. */
static int split_of(const struct cuda_dev *d, const struct nx_weight *w)
{
	return w->n < (int64_t)d->n_sms * SPLIT_BELOW * 8 && w->k >= SPLIT_K ? 2 : 1;
}

int thin_linear(struct cuda_dev *d, cudaStream_t s, const struct nx_linear *a, struct nx_err *err)
{
	const struct nx_weight *w = a->w;
	int64_t y_cols = a->epilogue == NX_EPI_SWIGLU ? w->n / 2 : w->n;
	size_t y_element = a->y_f32 ? sizeof(float) : 2;
	int rc = 0;
	for (int64_t r = 0; r < a->m && !rc; r += MAX_M) {
		struct thin t;
		t.w = (const __nv_bfloat16 *)w->data;
		t.x = (const __nv_bfloat16 *)a->x + r * w->k;
		t.k = (int)w->k;
		t.k_pad = (int)w->k_pad;
		t.m = (int)(a->m - r < MAX_M ? a->m - r : MAX_M);
		t.n_units = (int)((w->n + 7) / 8);
		t.whole = w->k % K_ALIGN == 0 && (uintptr_t)t.x % 16 == 0;
		t.split = split_of(d, w);
		t.e.y = (uint8_t *)a->y + (size_t)(r * y_cols) * y_element;
		t.e.n = w->n;
		t.e.kind = a->epilogue;
		t.e.f32 = a->y_f32;
		rc = t.m <= 16   ? launch<few>(d, s, t, err)
		     : t.m <= 32 ? launch<some>(d, s, t, err)
		                 : launch<many>(d, s, t, err);
	}
	return rc;
}
