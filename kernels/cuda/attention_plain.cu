/* SPDX-License-Identifier: Apache-2.0
 *
 * attention_plain.cu: tiled attention of any type and head_dim, in f32; and the merge of partials.
 *
 * A block does one row, one kv head and HEADS of its q heads; with split, one chunk of keys, else all of them. Its
 * warps take keys in turn, KEYS together, counted from the start of the chunk; lanes lie along the head.
 */
#include "cuda/attention_plain.cuh"

#define WARPS 4

/* Running sums of a warp, NP pairs of columns a lane, 64 columns apart. */
template <int NP> struct run {
	float max[HEADS], sum[HEADS];
	float2 out[HEADS][NP];
};

template <int NP> static __device__ __forceinline__ void clear(struct run<NP> &o)
{
#pragma unroll
	for (int h = 0; h < HEADS; h++) {
		o.max[h] = -INFINITY;
		o.sum[h] = 0;
#pragma unroll
		for (int p = 0; p < NP; p++)
			o.out[h][p] = make_float2(0, 0);
	}
}

template <typename KV, int NP>
static __device__ __forceinline__ void absorb(const struct attn_args &a, struct run<NP> &o,
                                              const kv_at<KV> (&value)[KEYS],
                                              const float (&s)[KEYS][HEADS], int32_t lane)
{
	float p[KEYS][HEADS];
#pragma unroll
	for (int h = 0; h < HEADS; h++) {
		float top = o.max[h];
#pragma unroll
		for (int j = 0; j < KEYS; j++)
			top = fmaxf(top, s[j][h]);
		float base = top == -INFINITY ? 0 : top, by = exp2f(o.max[h] - base);
		o.max[h] = top;
		o.sum[h] *= by;
#pragma unroll
		for (int i = 0; i < NP; i++) {
			o.out[h][i].x *= by;
			o.out[h][i].y *= by;
		}
#pragma unroll
		for (int j = 0; j < KEYS; j++) {
			p[j][h] = exp2f(s[j][h] - base);
			o.sum[h] += p[j][h];
		}
	}
#pragma unroll
	for (int j = 0; j < KEYS; j++)
#pragma unroll
		for (int i = 0; i < NP; i++) {
			int32_t c = i * 32 + lane;
			if (!value[j].p || c * 2 >= a.dim)
				continue;
			float2 v = value[j].get(a, c);
#pragma unroll
			for (int h = 0; h < HEADS; h++) {
				o.out[h][i].x = fmaf(p[j][h], v.x, o.out[h][i].x);
				o.out[h][i].y = fmaf(p[j][h], v.y, o.out[h][i].y);
			}
		}
}

template <int NP>
static __device__ __forceinline__ void merge(struct run<NP> &o, const struct run<NP> &part)
{
#pragma unroll
	for (int h = 0; h < HEADS; h++) {
		float mine, its;
		if (!attn_merge_head(o.max[h], o.sum[h], part.max[h], part.sum[h], mine, its))
			continue;
#pragma unroll
		for (int p = 0; p < NP; p++) {
			o.out[h][p].x = attn_merge_out(o.out[h][p].x, part.out[h][p].x, mine, its);
			o.out[h][p].y = attn_merge_out(o.out[h][p].y, part.out[h][p].y, mine, its);
		}
	}
}

/* The warps' sums, in their order, in warp 0. */
template <int NP>
static __device__ __forceinline__ void merge_warps(struct run<NP> &o, struct run<NP> *area)
{
	int32_t warp = (int32_t)threadIdx.x / 32, lane = (int32_t)threadIdx.x % 32;
	area[warp * 32 + lane] = o;
	__syncthreads();
	if (warp == 0)
		for (int w = 1; w < WARPS; w++)
			merge<NP>(o, area[w * 32 + lane]);
	__syncthreads();
}

template <typename KV, typename ACT, int NP>
static __global__ void __launch_bounds__(WARPS * 32)
	plain_kernel(const __grid_constant__ struct attn_args a, int32_t head_runs)
{
	__shared__ struct run<NP> area[WARPS * 32];
	pdl_trigger();
	pdl_wait();
	int32_t warp = (int32_t)threadIdx.x / 32, lane = (int32_t)threadIdx.x % 32;
	int32_t at = (int32_t)blockIdx.x, h0 = at % head_runs * HEADS, n = min(HEADS, a.group - h0);
	at /= head_runs;
	int32_t row = at / a.n_kv_heads, kv_head = at % a.n_kv_heads;
	struct attn_view w = attn_view(a, row);
	int32_t head = kv_head * a.group + h0;
	const struct newest<KV> fresh(a, w, row);
	float2 q[HEADS][NP];
	load_q<ACT, NP>(a, row, head, n, lane, q);
	int32_t chunk = a.split ? (int32_t)blockIdx.y : 0;
	int32_t chunk_end = a.split ? chunk + 1 : (w.keys + a.kv_chunk - 1) / a.kv_chunk;
	struct run<NP> total;
	clear<NP>(total);
	for (; chunk < chunk_end; chunk++) {
		int32_t begin = chunk * a.kv_chunk;
		if (begin >= w.keys)
			break; /* with split, too: nothing reads the partial */
		int32_t end = w.keys - begin < a.kv_chunk ? w.keys : begin + a.kv_chunk;
		struct run<NP> o;
		clear<NP>(o);
		for (int32_t i = begin + warp * KEYS; i < end; i += WARPS * KEYS) {
			kv_at<KV> key[KEYS], value[KEYS];
			float s[KEYS][HEADS];
			find_keys<KV>(a, w, fresh, i, end, kv_head, key, value);
			score_keys<KV, NP>(a, q, key, lane, s);
			absorb<KV, NP>(a, o, value, s, lane);
		}
		merge_warps<NP>(o, area);
		merge<NP>(total, o);
	}
	if (warp)
		return;
	for (int h = 0; h < n; h++) {
		int64_t to = (int64_t)row * a.n_heads + head + h;
		if (a.split)
			to = to * a.n_chunks + blockIdx.y;
		if (a.split && lane == 0)
			a.part_head[to] = make_float2(total.max[h], total.sum[h]);
#pragma unroll
		for (int p = 0; p < NP; p++) {
			int32_t c = (p * 32 + lane) * 2;
			float2 x = total.out[h][p];
			if (c >= a.dim)
				continue;
			if (a.split) {
				*(float2 *)(a.part + to * a.dim + c) = x;
			} else {
				ACT *out = (ACT *)a.out + to * a.dim + c;
				out[0] = from_f32<ACT>(attn_finish(x.x, total.sum[h]));
				out[1] = from_f32<ACT>(attn_finish(x.y, total.sum[h]));
			}
		}
	}
}

/* ---- merging: a warp a row and head */

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

template <typename ACT>
static __global__ void __launch_bounds__(64)
	merge_kernel(const __grid_constant__ struct attn_args a)
{
	pdl_trigger();
	pdl_wait();
	int64_t at = (int64_t)blockIdx.x * 2 + threadIdx.x / 32;
	if (at >= (int64_t)a.n_rows * a.n_heads)
		return;
	struct attn_view w = attn_view(a, (int32_t)(at / a.n_heads));
	attn_merge_row<ACT>(a, at, (w.keys + a.kv_chunk - 1) / a.kv_chunk);
}

/* ---- host */

int attention_merge(struct cuda_dev *d, cudaStream_t s, const struct attn_args *a,
                    struct nx_err *err)
{
	dim3 grid((unsigned)attn_div_up((int64_t)a->n_rows * a->n_heads, 2));
	if (d->act == NX_BF16)
		return cu_launch(err, "attention_merge", CU_PDL, merge_kernel<__nv_bfloat16>, grid,
		                 dim3(64), 0, s, *a);
	return cu_launch(err, "attention_merge", CU_PDL, merge_kernel<float>, grid, dim3(64), 0, s,
	                 *a);
}

template <typename KV, typename ACT>
static int launch(cudaStream_t s, const struct attn_args *a, struct nx_err *err)
{
	int32_t head_runs = (a->group + HEADS - 1) / HEADS;
	dim3 grid((unsigned)((int64_t)a->n_rows * a->n_kv_heads * head_runs),
	          a->split ? (unsigned)a->n_chunks : 1u);
	if (a->dim <= 64)
		return cu_launch(err, "attention_plain", CU_PDL, plain_kernel<KV, ACT, 1>, grid,
		                 dim3(WARPS * 32), 0, s, *a, head_runs);
	if (a->dim <= 128)
		return cu_launch(err, "attention_plain", CU_PDL, plain_kernel<KV, ACT, 2>, grid,
		                 dim3(WARPS * 32), 0, s, *a, head_runs);
	return cu_launch(err, "attention_plain", CU_PDL, plain_kernel<KV, ACT, 4>, grid,
	                 dim3(WARPS * 32), 0, s, *a, head_runs);
}

int attention_plain(struct cuda_dev *d, cudaStream_t s, struct attn_args *a, enum nx_kv_codec codec,
                    struct nx_err *err)
{
	int rc;
	a->split = a->n_rows <= ATTN_SPLIT_ROWS && a->n_chunks > 1 && a->n_chunks < 65536;
	if (nx_kv_is_coded(codec))
		rc = d->act == NX_BF16 ? launch<coded<__nv_bfloat16>, __nv_bfloat16>(s, a, err)
		                       : launch<coded<float>, float>(s, a, err);
	else if (d->act == NX_BF16)
		rc = codec == NX_KV_BF16 ? launch<__nv_bfloat16, __nv_bfloat16>(s, a, err)
		                         : launch<float, __nv_bfloat16>(s, a, err);
	else
		rc = codec == NX_KV_BF16 ? launch<__nv_bfloat16, float>(s, a, err)
		                         : launch<float, float>(s, a, err);
	return rc || !a->split ? rc : attention_merge(d, s, a, err);
}
