/* SPDX-License-Identifier: Apache-2.0
 *
 * attention_scores.cu: the textbook form of attention: all scores are written, softmax runs over them, and a second
 * product weighs the values. All in f32, for any type and head_dim; prompts in bf16 see attention_scores_tile.cu.
 */
#include "cuda/attention_plain.cuh"

#define SCORE_WARPS 4
#define SCORE_KEYS 64 /* of a block */
#define SOFTMAX_THREADS 256
#define HELD_THREADS 128 /* five blocks an SM, with the registers that they want */
#define VALUE_WARPS 8
#define VALUE_KEYS ATTN_VALUE_KEYS

/* The row, kv head and run of q heads of a block. */
struct item {
	int32_t row, kv_head, head, n;
};

static __device__ __forceinline__ struct item item_of(const struct attn_args &a, int32_t head_runs)
{
	int32_t at = (int32_t)blockIdx.x, h0 = at % head_runs * HEADS;
	at /= head_runs;
	struct item t = {at / a.n_kv_heads, at % a.n_kv_heads, 0, min(HEADS, a.group - h0)};
	t.head = t.kv_head * a.group + h0;
	return t;
}

static __device__ __forceinline__ float *scores_of(const struct attn_args &a, int64_t row,
                                                   int32_t head)
{
	return a.scores + (row * a.n_heads + head) * a.max_keys;
}

template <typename KV, typename ACT, int NP>
static __global__ void __launch_bounds__(SCORE_WARPS * 32)
	scores_kernel(const __grid_constant__ struct attn_args a, int32_t head_runs)
{
	pdl_trigger();
	pdl_wait();
	int32_t warp = (int32_t)threadIdx.x / 32, lane = (int32_t)threadIdx.x % 32;
	struct item t = item_of(a, head_runs);
	struct attn_view w = attn_view(a, t.row);
	int32_t begin = (int32_t)blockIdx.y * SCORE_KEYS, end = min(w.keys, begin + SCORE_KEYS);
	if (begin >= end)
		return;
	float2 q[HEADS][NP];
	const struct newest<KV> fresh(a, w, t.row);
	load_q<ACT, NP>(a, t.row, t.head, t.n, lane, q);
	for (int32_t i = begin + warp * KEYS; i < end; i += SCORE_WARPS * KEYS) {
		kv_at<KV> key[KEYS], value[KEYS];
		float s[KEYS][HEADS];
		find_keys<KV>(a, w, fresh, i, end, t.kv_head, key, value);
		score_keys<KV, NP>(a, q, key, lane, s);
#pragma unroll
		for (int h = 0; h < HEADS; h++)
#pragma unroll
			for (int j = 0; j < KEYS; j++)
				if (lane == j && h < t.n && i + j < end)
					scores_of(a, t.row, t.head + h)[i + j] = s[j][h];
	}
}

template <bool MAX> static __device__ __forceinline__ float reduce_warp(float x)
{
	for (int i = 16; i; i /= 2) {
		float y = __shfl_xor_sync(~0u, x, i);
		x = MAX ? fmaxf(x, y) : x + y;
	}
	return x;
}

/* Of a block: all threads get it. Always the same order. */
template <bool MAX, int WARPS> static __device__ float reduce(float x, float *area)
{
	x = reduce_warp<MAX>(x);
	__syncthreads();
	if (threadIdx.x % 32 == 0)
		area[threadIdx.x / 32] = x;
	__syncthreads();
	x = area[0];
	for (int i = 1; i < WARPS; i++)
		x = MAX ? fmaxf(x, area[i]) : x + area[i];
	return x;
}

static __global__ void __launch_bounds__(SOFTMAX_THREADS)
	softmax_kernel(const __grid_constant__ struct attn_args a)
{
	__shared__ float area[SOFTMAX_THREADS / 32];
	pdl_trigger();
	pdl_wait();
	int32_t row = (int32_t)(blockIdx.x / (unsigned)a.n_heads),
		head = (int32_t)(blockIdx.x % (unsigned)a.n_heads);
	struct attn_view w = attn_view(a, row);
	float *s = scores_of(a, row, head), max = -INFINITY, sum = 0;
	for (int32_t i = (int32_t)threadIdx.x; i < w.keys; i += SOFTMAX_THREADS)
		max = fmaxf(max, s[i]);
	max = reduce<true, SOFTMAX_THREADS / 32>(max, area);
	if (max == -INFINITY)
		max = 0;
	for (int32_t i = (int32_t)threadIdx.x; i < w.keys; i += SOFTMAX_THREADS) {
		float p = exp2f(s[i] - max);
		s[i] = p;
		sum += p;
	}
	sum = reduce<false, SOFTMAX_THREADS / 32>(sum, area);
	for (int32_t i = (int32_t)threadIdx.x; i < w.keys; i += SOFTMAX_THREADS)
		s[i] = attn_finish(s[i], sum);
}

/* The same where bits need not be the same in every company: a team of WARPS warps takes a row and head and holds its
 * scores, EACH a thread, so that they are read once and written once. Runs of them beyond the row are passed over. */
template <int WARPS, int EACH>
static __global__ void __launch_bounds__(HELD_THREADS, 5)
	held_softmax_kernel(const __grid_constant__ struct attn_args a)
{
	const int TEAM = WARPS * 32, RUN = 8;
	static_assert(WARPS == 1 || TEAM == HELD_THREADS, "barriers are the block's");
	__shared__ float area[WARPS];
	pdl_trigger();
	pdl_wait();
	int32_t tid = (int32_t)threadIdx.x % TEAM;
	int64_t at = (int64_t)blockIdx.x * (HELD_THREADS / TEAM) + (int32_t)threadIdx.x / TEAM;
	if (at >= (int64_t)a.n_rows * a.n_heads)
		return;
	int32_t keys = attn_view(a, (int32_t)(at / a.n_heads)).keys;
	float *s = a.scores + at * a.max_keys, x[EACH], max = -INFINITY, sum = 0;
#pragma unroll
	for (int i = 0; i < EACH; i++)
		x[i] = -INFINITY;
#pragma unroll
	for (int i0 = 0; i0 < EACH; i0 += RUN)
		if (i0 * TEAM < keys) {
#pragma unroll
			for (int i = i0; i < i0 + RUN; i++)
				if (i * TEAM + tid < keys)
					x[i] = s[i * TEAM + tid];
		}
#pragma unroll
	for (int i = 0; i < EACH; i++)
		max = fmaxf(max, x[i]);
	max = WARPS == 1 ? reduce_warp<true>(max) : reduce<true, WARPS>(max, area);
	if (max == -INFINITY)
		max = 0;
#pragma unroll
	for (int i0 = 0; i0 < EACH; i0 += RUN)
		if (i0 * TEAM < keys) {
#pragma unroll
			for (int i = i0; i < i0 + RUN; i++) {
				x[i] = attn_exp2(x[i] - max);
				sum += x[i];
			}
		}
	sum = WARPS == 1 ? reduce_warp<false>(sum) : reduce<false, WARPS>(sum, area);
	float by = attn_finish(1, sum);
#pragma unroll
	for (int i0 = 0; i0 < EACH; i0 += RUN)
		if (i0 * TEAM < keys) {
#pragma unroll
			for (int i = i0; i < i0 + RUN; i++)
				if (i * TEAM + tid < keys)
					s[i * TEAM + tid] = x[i] * by;
		}
}

/* Weighted values of a row, kv head and run of q heads, summed by chunks of VALUE_KEYS keys and those in order; with
 * split, a chunk a block, and sum_kernel sums them: the same bits. */
template <typename KV, typename ACT, int NP>
static __global__ void __launch_bounds__(VALUE_WARPS * 32)
	values_kernel(const __grid_constant__ struct attn_args a, int32_t head_runs)
{
	__shared__ float2 area[VALUE_WARPS][HEADS][NP][32];
	pdl_trigger();
	pdl_wait();
	int32_t warp = (int32_t)threadIdx.x / 32, lane = (int32_t)threadIdx.x % 32;
	struct item t = item_of(a, head_runs);
	struct attn_view w = attn_view(a, t.row);
	const struct newest<KV> fresh(a, w, t.row);
	int32_t chunk = (int32_t)blockIdx.y;
	int32_t chunk_end = a.split ? chunk + 1 : (w.keys + VALUE_KEYS - 1) / VALUE_KEYS;
	/* A warp sums up one head. */
	float2 total[NP] = {};
	for (; chunk < chunk_end; chunk++) {
		int32_t begin = chunk * VALUE_KEYS, end = min(w.keys, begin + VALUE_KEYS);
		if (begin >= end)
			return; /* with split: nothing reads it */
		float2 out[HEADS][NP] = {};
		for (int32_t i = begin + warp * KEYS; i < end; i += VALUE_WARPS * KEYS) {
			kv_at<KV> key[KEYS], value[KEYS];
			find_keys<KV>(a, w, fresh, i, end, t.kv_head, key, value);
#pragma unroll
			for (int j = 0; j < KEYS; j++) {
				if (!value[j].p)
					continue;
				float p[HEADS];
#pragma unroll
				for (int h = 0; h < HEADS; h++)
					p[h] = h < t.n ? scores_of(a, t.row, t.head + h)[i + j] : 0;
#pragma unroll
				for (int c = 0; c < NP; c++) {
					if ((c * 32 + lane) * 2 >= a.dim)
						continue;
					float2 v = value[j].get(a, c * 32 + lane);
#pragma unroll
					for (int h = 0; h < HEADS; h++) {
						out[h][c].x = fmaf(p[h], v.x, out[h][c].x);
						out[h][c].y = fmaf(p[h], v.y, out[h][c].y);
					}
				}
			}
		}
#pragma unroll
		for (int h = 0; h < HEADS; h++)
#pragma unroll
			for (int c = 0; c < NP; c++)
				area[warp][h][c][lane] = out[h][c];
		__syncthreads();
		if (warp < t.n) {
#pragma unroll
			for (int c = 0; c < NP; c++) {
				float2 sum = area[0][warp][c][lane];
				for (int i = 1; i < VALUE_WARPS; i++) {
					sum.x += area[i][warp][c][lane].x;
					sum.y += area[i][warp][c][lane].y;
				}
				total[c].x += sum.x;
				total[c].y += sum.y;
			}
		}
		__syncthreads();
	}
	if (warp >= t.n)
		return;
	int64_t at = (int64_t)t.row * a.n_heads + t.head + warp;
#pragma unroll
	for (int c = 0; c < NP; c++) {
		int32_t d = (c * 32 + lane) * 2;
		if (d >= a.dim)
			continue;
		if (a.split) {
			*(float2 *)(a.part + (at * a.n_chunks + blockIdx.y) * a.dim + d) = total[c];
		} else {
			ACT *to = (ACT *)a.out + at * a.dim + d;
			to[0] = from_f32<ACT>(total[c].x);
			to[1] = from_f32<ACT>(total[c].y);
		}
	}
}

template <typename ACT>
static __global__ void __launch_bounds__(ATTN_MAX_DIM)
	sum_kernel(const __grid_constant__ struct attn_args a)
{
	pdl_trigger();
	pdl_wait();
	int64_t at = blockIdx.x;
	struct attn_view w = attn_view(a, (int32_t)(at / a.n_heads));
	int32_t n = (w.keys + VALUE_KEYS - 1) / VALUE_KEYS, d = (int32_t)threadIdx.x;
	const float *from = a.part + at * a.n_chunks * a.dim + d;
	float sum = 0;
	if (d >= a.dim)
		return;
#pragma unroll 8
	for (int32_t i = 0; i < n; i++)
		sum += from[(int64_t)i * a.dim];
	((ACT *)a.out)[at * a.dim + d] = from_f32<ACT>(sum);
}

/* ---- host */

static int launch_softmax(cudaStream_t s, const struct attn_args *a, struct nx_err *err)
{
	return cu_launch(err, "attention_softmax", CU_PDL, softmax_kernel,
	                 dim3((unsigned)((int64_t)a->n_rows * a->n_heads)), dim3(SOFTMAX_THREADS),
	                 0, s, *a);
}

template <int WARPS, int EACH>
static int launch_held(cudaStream_t s, const struct attn_args *a, struct nx_err *err)
{
	int64_t blocks = attn_div_up((int64_t)a->n_rows * a->n_heads * WARPS * 32, HELD_THREADS);
	return cu_launch(err, "attention_softmax_held", CU_PDL, held_softmax_kernel<WARPS, EACH>,
	                 dim3((unsigned)blocks), dim3(HELD_THREADS), 0, s, *a);
}

int attention_softmax(cudaStream_t s, const struct attn_args *a, struct nx_err *err)
{
	if (a->max_keys <= 32 * 32)
		return launch_held<1, 32>(s, a, err);
	if (a->max_keys <= 32 * 64)
		return launch_held<1, 64>(s, a, err);
	return a->max_keys <= HELD_THREADS * 64 ? launch_held<HELD_THREADS / 32, 64>(s, a, err)
	                                        : launch_softmax(s, a, err);
}

template <typename KV, typename ACT, int NP>
static int launch(cudaStream_t s, const struct attn_args *a, struct nx_err *err)
{
	int32_t head_runs = (a->group + HEADS - 1) / HEADS;
	unsigned items = (unsigned)((int64_t)a->n_rows * a->n_kv_heads * head_runs);
	dim3 grid(items, (unsigned)attn_div_up(a->max_keys, SCORE_KEYS));
	int rc = cu_launch(err, "attention_scores", CU_PDL, scores_kernel<KV, ACT, NP>, grid,
	                   dim3(SCORE_WARPS * 32), 0, s, *a, head_runs);
	if (!rc)
		rc = launch_softmax(s, a, err);
	if (!rc)
		rc = cu_launch(err, "attention_values", CU_PDL, values_kernel<KV, ACT, NP>,
		               dim3(items, a->split ? (unsigned)a->n_chunks : 1u),
		               dim3(VALUE_WARPS * 32), 0, s, *a, head_runs);
	if (rc || !a->split)
		return rc;
	return cu_launch(err, "attention_sum", CU_PDL, sum_kernel<ACT>,
	                 dim3((unsigned)((int64_t)a->n_rows * a->n_heads)),
	                 dim3((unsigned)attn_div_up(a->dim, 32) * 32), 0, s, *a);
}

template <typename KV, typename ACT>
static int launch_dim(cudaStream_t s, const struct attn_args *a, struct nx_err *err)
{
	if (a->dim <= 64)
		return launch<KV, ACT, 1>(s, a, err);
	return a->dim <= 128 ? launch<KV, ACT, 2>(s, a, err) : launch<KV, ACT, 4>(s, a, err);
}

int attention_materialised(struct cuda_dev *d, cudaStream_t s, struct attn_args *a,
                           enum nx_kv_codec codec, struct nx_err *err)
{
	if (attention_scores_tile_fits(d, a, codec))
		return attention_scores_tile(s, a, err);
	a->n_chunks = (int32_t)attn_div_up(a->max_keys, VALUE_KEYS);
	a->split = a->n_rows <= ATTN_SPLIT_ROWS && a->n_chunks > 1 && a->n_chunks < 65536;
	if (nx_kv_is_coded(codec))
		return d->act == NX_BF16
		               ? launch_dim<coded<__nv_bfloat16>, __nv_bfloat16>(s, a, err)
		               : launch_dim<coded<float>, float>(s, a, err);
	if (d->act == NX_BF16)
		return codec == NX_KV_BF16 ? launch_dim<__nv_bfloat16, __nv_bfloat16>(s, a, err)
		                           : launch_dim<float, __nv_bfloat16>(s, a, err);
	return codec == NX_KV_BF16 ? launch_dim<__nv_bfloat16, float>(s, a, err)
	                           : launch_dim<float, float>(s, a, err);
}
