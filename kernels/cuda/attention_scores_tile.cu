/* SPDX-License-Identifier: Apache-2.0
 *
 * attention_scores_tile.cu: attention_scores.cu for prompts: many rows a segment, bf16, on tensor cores.
 *
 * What PyTorch calls eager: S = Q K^T is written to memory as f32, the softmax reads and writes it, and O = P V reads it
 * once more, P rounded to bf16 as it comes in. Nothing is fused: the whole score matrix moves four times, and that is
 * what these kernels wait for.
 *
 * A block of threads takes a tile: up to ROWS rows of a segment and one q head. Keys go by in steps of KEYS, a ring of
 * stages filled by cp.async, so that K and V are read once a tile and not once a row. Rows of a segment ascend in
 * slots, so later tiles see more, and they come first: those that end last should not begin last. Lengths are the
 * device's, so a block finds its segment itself. What no row of a tile sees is never touched.
 */
#include "cuda/attention_scores_tile.cuh"

#define MIN_ROWS 32 /* a segment, on average: fewer do not fill a tile's rows */
#define STRIDE                                                                                     \
	(KEYS +                                                                                    \
	 8) /* floats of a row of scores in shared memory: rows of a fragment lie in other banks */
#define SCORE_WARPS 4  /* with 32 rows each */
#define SCORE_STAGES 3 /* two of them hold the tile's q rows before keys come */
#define VALUE_WARPS 8  /* with 32 rows each and half of the columns */
#define VALUE_STAGES 2

/* ---- scores */

template <int D> struct score_smem {
	static const int STAGE = KEYS * D * 2, RING = SCORE_STAGES * STAGE;
	static const int AREA = 16 * STRIDE; /* floats of a warp */
	static const int SIZE = RING + SCORE_WARPS * AREA * 4;
};

template <int D>
static __device__ __forceinline__ void fetch_q(const struct attn_args &a, const struct work &w,
                                               uint32_t to)
{
	const int PIECES = D / 8;
	const bf16 *from = (const bf16 *)a.q + w.row0 * a.q_stride + (int64_t)w.head * D;
#pragma unroll 4
	for (int32_t i = (int32_t)threadIdx.x; i < ROWS * PIECES; i += SCORE_WARPS * 32) {
		int32_t row = i / PIECES, piece = i % PIECES;
		bool there = row < w.n_rows;
		fetch16(to + (uint32_t)(row * D * 2 + (piece ^ (row & 7)) * 16),
		        (const uint8_t *)(from + (there ? row : 0) * a.q_stride + piece * 8),
		        there);
	}
}

/* Sums of 16 rows and a step's keys, through the warp's area, so that whole rows are written at once. there: which of
 * the keys there are. */
static __device__ __forceinline__ void write_scores(const struct attn_args &a, const struct work &w,
                                                    const int32_t *sees, int32_t row, int32_t step,
                                                    const float (&s)[KEYS / 8][4],
                                                    const uint32_t (&there)[KEYS / 32], float *area,
                                                    int32_t lane)
{
	__syncwarp();
#pragma unroll
	for (int j = 0; j < KEYS / 8; j++) {
		float *to = area + lane / 4 * STRIDE + j * 8 + lane % 4 * 2;
		*(float2 *)to = make_float2(s[j][0], s[j][1]);
		*(float2 *)(to + 8 * STRIDE) = make_float2(s[j][2], s[j][3]);
	}
	__syncwarp();
	float *to = scores_of(a, w, row) + step * KEYS;
#pragma unroll 4
	for (int32_t r = 0; r < 16; r++, to += (int64_t)a.n_heads * a.max_keys) {
		int32_t end = sees[row + r] - step * KEYS;
#pragma unroll
		for (int c = 0; c < KEYS / 32; c++) {
			int32_t k = c * 32 + lane;
			float x = area[r * STRIDE + k] * a.scale2;
			if (k < end)
				to[k] = there[c] >> lane & 1 ? x : -INFINITY;
		}
	}
}

template <int D>
static __global__ void __launch_bounds__(SCORE_WARPS * 32, 3)
	tile_scores_kernel(const __grid_constant__ struct attn_args a)
{
	typedef score_smem<D> S;
	extern __shared__ __align__(1024) uint8_t smem[]; /* pieces are addressed by xor */
	__shared__ int32_t sees[ROWS];
	__shared__ uint32_t there[SCORE_STAGES][SCORE_WARPS]; /* a bit a key of the warp's share */
	pdl_trigger();
	pdl_wait();
	struct work w;
	if (!find_work(a, sees, &w))
		return;
	int32_t warp = (int32_t)threadIdx.x / 32, lane = (int32_t)threadIdx.x % 32;
	int32_t n = (w.keys + KEYS - 1) / KEYS;
	uint32_t ring = smem_at(smem);
	float *area = (float *)(smem + S::RING) + warp * S::AREA;
	const uint8_t *from = a.base + (int64_t)w.kv_head * D * 2;
	int32_t found = find_share<SCORE_WARPS>(a, w, 0, warp, lane);
	auto fetch = [&](int32_t step) {
		int32_t stage = step % SCORE_STAGES;
		uint32_t which = __ballot_sync(~0u, found >= 0);
		if (step < n) {
			if (lane == 0)
				there[stage][warp] = which;
			fetch_share<D, SCORE_WARPS>(a, from, ring + (uint32_t)(stage * S::STAGE),
			                            found, warp, lane);
		}
		copies_commit();
		/* Of the next: looked up beneath the products of this one. */
		found = find_share<SCORE_WARPS>(a, w, step + 1, warp, lane);
	};
	fetch_q<D>(a, w, ring + S::STAGE);
	fetch(0);
	copies_wait<0>();
	__syncthreads();
	uint32_t q[2][D / 16][4];
#pragma unroll
	for (int m = 0; m < 2; m++) {
		int32_t row = warp * 32 + m * 16 + lane % 16;
		uint32_t at =
			ring + (uint32_t)(S::STAGE + row * D * 2 + (lane / 16 ^ (row & 7)) * 16);
#pragma unroll
		for (int kk = 0; kk < D / 16; kk++)
			load_matrices(q[m][kk], at ^ (uint32_t)(kk * 32));
	}
	__syncthreads();
	fetch(1);
	int32_t mine = most_seen(sees + warp * 32);
	int32_t key = lane / 16 * 8 + lane % 8;
	uint32_t key_at = (uint32_t)(key * D * 2 + ((lane / 8 & 1) ^ (key & 7)) * 16);
#pragma unroll 1
	for (int32_t t = 0; t < n; t++) {
		copies_wait<SCORE_STAGES - 2>();
		__syncthreads();
		fetch(t + 2); /* where step t - 1 lay: all warps are done with it */
		if (t * KEYS >= mine)
			continue;
		int32_t stage = t % SCORE_STAGES;
		uint32_t at = ring + (uint32_t)(stage * S::STAGE) + key_at;
		float s[2][KEYS / 8][4] = {};
#pragma unroll
		for (int kk = 0; kk < D / 16; kk++)
#pragma unroll
			for (int i = 0; i < KEYS / 16; i++) {
				uint32_t b[4];
				load_matrices(b, (at ^ (uint32_t)(kk * 32)) +
				                         (uint32_t)(i * 16 * D * 2));
#pragma unroll
				for (int m = 0; m < 2; m++) {
					mma(s[m][2 * i], q[m][kk], b[0], b[1]);
					mma(s[m][2 * i + 1], q[m][kk], b[2], b[3]);
				}
			}
		const uint32_t(&x)[SCORE_WARPS] = there[stage];
		const uint32_t keys[KEYS / 32] = {x[0] | x[1] << 16, x[2] | x[3] << 16};
#pragma unroll
		for (int m = 0; m < 2; m++)
			write_scores(a, w, sees, warp * 32 + m * 16, t, s[m], keys, area, lane);
	}
}

/* ---- values */

template <int D> struct value_smem {
	static const int V = KEYS * D * 2, P = ROWS * STRIDE * 4;
	static const int SIZE = VALUE_STAGES * (V + P);
};

/* Starts the copies of a step's weights, VEC floats at a time; zeros where a row sees no key. */
template <int VEC>
static __device__ __forceinline__ void fetch_weights(const struct attn_args &a,
                                                     const struct work &w, const int32_t *sees,
                                                     uint32_t to, int32_t step)
{
	const int PIECES = KEYS / VEC, THREADS = VALUE_WARPS * 32;
	int32_t k = (int32_t)threadIdx.x % PIECES * VEC;
#pragma unroll 8
	for (int32_t r = (int32_t)threadIdx.x / PIECES; r < ROWS; r += THREADS / PIECES) {
		int32_t bytes = min(max(sees[r] - step * KEYS - k, 0), VEC) * 4;
		const float *from = bytes ? scores_of(a, w, r) + step * KEYS + k : a.scores;
		uint32_t at = to + (uint32_t)(r * STRIDE + k) * 4;
		if (VEC == 4)
			asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(at),
			             "l"(from), "r"(bytes)
			             : "memory");
		else
			asm volatile("cp.async.ca.shared.global [%0], [%1], 4, %2;" ::"r"(at),
			             "l"(from), "r"(bytes)
			             : "memory");
	}
}

/* VEC: 4 where rows of scores lie at multiples of 16 bytes, else 1. */
template <int D, int VEC>
static __global__ void __launch_bounds__(VALUE_WARPS * 32, 2)
	tile_values_kernel(const __grid_constant__ struct attn_args a)
{
	typedef value_smem<D> S;
	extern __shared__ __align__(1024) uint8_t smem[];
	__shared__ int32_t sees[ROWS];
	pdl_trigger();
	pdl_wait();
	struct work w;
	if (!find_work(a, sees, &w))
		return;
	int32_t warp = (int32_t)threadIdx.x / 32, lane = (int32_t)threadIdx.x % 32;
	int32_t row0 = warp % 4 * 32, half = warp / 4, n = (w.keys + KEYS - 1) / KEYS;
	const float *weights = (const float *)(smem + VALUE_STAGES * S::V);
	uint32_t v = smem_at(smem), p = smem_at(weights);
	const uint8_t *from = a.base + a.v_offset + (int64_t)w.kv_head * D * 2;
	int32_t found = find_share<VALUE_WARPS>(a, w, 0, warp, lane);
	auto fetch = [&](int32_t step) {
		uint32_t stage = (uint32_t)step % VALUE_STAGES;
		if (step < n) {
			fetch_share<D, VALUE_WARPS>(a, from, v + stage * S::V, found, warp, lane);
			fetch_weights<VEC>(a, w, sees, p + stage * S::P, step);
		}
		copies_commit();
		found = find_share<VALUE_WARPS>(a, w, step + 1, warp, lane);
	};
	float o[2][D / 16][4] = {};
	fetch(0);
	int32_t mine = most_seen(sees + row0);
	int32_t key = (lane / 8 & 1) * 8 + lane % 8;
	uint32_t key_at = (uint32_t)(key * D * 2 + (lane / 16 ^ (key & 7)) * 16);
#pragma unroll 1
	for (int32_t t = 0; t < n; t++) {
		copies_wait<VALUE_STAGES - 2>();
		__syncthreads();
		fetch(t + 1); /* where step t - 1 lay */
		if (t * KEYS >= mine)
			continue;
		int32_t stage = t % VALUE_STAGES;
		uint32_t at = (v + (uint32_t)(stage * S::V) + key_at) ^ (uint32_t)(half * D);
		const float *row =
			weights + stage * (S::P / 4) + (row0 + lane / 4) * STRIDE + lane % 4 * 2;
#pragma unroll
		for (int kk = 0; kk < KEYS / 16; kk++) {
			uint32_t x[2][4];
#pragma unroll
			for (int m = 0; m < 2; m++)
#pragma unroll
				for (int e = 0; e < 4; e++) { /* rows 8 on, then columns 8 on */
					float2 f = *(const float2 *)(row +
					                             (m * 16 + e % 2 * 8) * STRIDE +
					                             kk * 16 + e / 2 * 8);
					x[m][e] = pack(f.x, f.y);
				}
#pragma unroll
			for (int i = 0; i < D / 32; i++) {
				uint32_t b[4];
				load_transposed(b, (at ^ (uint32_t)(i * 32)) +
				                           (uint32_t)(kk * 16 * D * 2));
#pragma unroll
				for (int m = 0; m < 2; m++) {
					mma(o[m][2 * i], x[m], b[0], b[1]);
					mma(o[m][2 * i + 1], x[m], b[2], b[3]);
				}
			}
		}
	}
#pragma unroll
	for (int m = 0; m < 2; m++)
#pragma unroll
		for (int h = 0; h < 2; h++) {
			int32_t r = row0 + m * 16 + h * 8 + lane / 4;
			if (r >= w.n_rows)
				continue;
			bf16 *to = (bf16 *)a.out +
			           ((int64_t)(w.row0 + r) * a.n_heads + w.head) * D +
			           half * (D / 2) + lane % 4 * 2;
#pragma unroll
			for (int i = 0; i < D / 16; i++)
				*(uint32_t *)(to + i * 8) =
					pack(o[m][i][2 * h], o[m][i][2 * h + 1]);
		}
}

/* ---- host */

/* Where rows of scores lie at multiples of 16 bytes. */
static bool rows_aligned(const struct attn_args *a)
{
	return a->max_keys % 4 == 0 && (uintptr_t)a->scores % 16 == 0;
}

template <int D> static int open_dim(struct nx_err *err)
{
	const enum cudaFuncAttribute most = cudaFuncAttributeMaxDynamicSharedMemorySize;
	CU(cudaFuncSetAttribute(tile_scores_kernel<D>, most, score_smem<D>::SIZE));
	CU(cudaFuncSetAttribute(tile_values_kernel<D, 1>, most, value_smem<D>::SIZE));
	CU(cudaFuncSetAttribute(tile_values_kernel<D, 4>, most, value_smem<D>::SIZE));
	return 0;
}

int attention_scores_open(struct nx_err *err)
{
	int rc = open_dim<64>(err);
	return rc ? rc : open_dim<128>(err);
}

static bool aligned(const void *p)
{
	return (uintptr_t)p % 16 == 0;
}

bool attention_scores_tile_fits(const struct cuda_dev *d, const struct attn_args *a,
                                enum nx_kv_codec codec)
{
	return d->act == NX_BF16 && codec == NX_KV_BF16 && !d->cfg.invariant &&
	       (a->dim == 64 || a->dim == 128) && a->anc_stride == 0 && a->n_segments > 0 &&
	       a->n_rows >= (int64_t)MIN_ROWS * a->n_segments && aligned(a->base) &&
	       aligned(a->q) && aligned(a->out) && aligned(a->segments) && a->q_stride % 8 == 0 &&
	       a->row_bytes % 16 == 0 && a->v_offset % 16 == 0;
}

template <int D> static int launch(cudaStream_t s, const struct attn_args *a, struct nx_err *err)
{
	/* Each segment may have a tile that is not full. */
	int64_t tiles = a->n_segments == 1 ? attn_div_up(a->n_rows, ROWS)
	                                   : a->n_rows / ROWS + a->n_segments;
	dim3 grid((unsigned)(tiles * a->n_heads));
	int rc = cu_launch(err, "attention_scores_tile", CU_PDL, tile_scores_kernel<D>, grid,
	                   dim3(SCORE_WARPS * 32), score_smem<D>::SIZE, s, *a);
	if (!rc)
		rc = attention_softmax(s, a, err);
	return rc ? rc
	          : cu_launch(err, "attention_values_tile", CU_PDL,
	                      rows_aligned(a) ? tile_values_kernel<D, 4> : tile_values_kernel<D, 1>,
	                      grid, dim3(VALUE_WARPS * 32), value_smem<D>::SIZE, s, *a);
}

int attention_scores_tile(cudaStream_t s, const struct attn_args *a, struct nx_err *err)
{
	return a->dim == 64 ? launch<64>(s, a, err) : launch<128>(s, a, err);
}
