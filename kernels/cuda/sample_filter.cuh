/* SPDX-License-Identifier: Apache-2.0
 *
 * sample_filter.cuh: top_k, top_p and min_p without sorting.
 *
 * Each filter keeps the first so many of all tokens in order of falling logit and, among equals, of index. So what is
 * kept is said by the last of them, its logit and its index. Its logit is found by histograms: bins of equal width
 * below the largest logit, then of the ordered bits of the floats in the bin where the count or mass crosses what is
 * wanted, until a bin has one value.
 */
#ifndef NX_CUDA_SAMPLE_FILTER_CUH
#define NX_CUDA_SAMPLE_FILTER_CUH

#include "cuda/sample_mass.cuh"

struct search {
	bool by_mass; /* else every token counts 1 */
	double by;
	float bins_per_logit;
	int32_t bin;     /* of the first histogram, -1: it is to be made */
	uint32_t lo, hi; /* keys */
	int32_t shift;
	units want, above; /* above hi */
};

static __device__ __forceinline__ int32_t bin_of(const struct row &r, const struct search &s,
                                                 float x)
{
	return min(__float2int_rz((r.max - x) * s.bins_per_logit), BINS - 1);
}

/* Two 32-bit sums and a carry: shared memory adds no 64 bits by itself. */
static __device__ __forceinline__ void add_to(units *bin, units v)
{
	uint32_t *half = (uint32_t *)(void *)bin, low = (uint32_t)v;
	uint32_t high = (uint32_t)(v >> 32) + (atomicAdd(&half[0], low) + low < low);
	if (high)
		atomicAdd(&half[1], high);
}

static __device__ __forceinline__ void count_one(const struct row &r, const struct search &s,
                                                 float x, int32_t token)
{
	int32_t bin = bin_of(r, s, x);
	if (!kept(r, x, token))
		return;
	if (s.bin < 0) {
		if (bin == BINS - 1) /* has no mass, and no count before it is known to be wanted */
			return;
	} else {
		uint32_t k = key_of(x);
		if (bin != s.bin || k < s.lo || k > s.hi)
			return;
		bin = (int32_t)((s.hi - k) >> s.shift);
	}
	units v = s.by_mass ? mass_of(r, s.by, x) : 1;
	if (v)
		add_to(&r.b->bins[bin], v);
}

static __device__ __forceinline__ void count_all(const struct row &r, const struct search &s)
{
	__syncthreads();
	for (int32_t i = (int32_t)threadIdx.x; i < BINS; i += THREADS)
		r.b->bins[i] = 0;
	__syncthreads();
	for (int32_t j = (int32_t)threadIdx.x; j < r.chunks * CHUNK / 4; j += THREADS) {
		float4 v = ((const float4 *)(const void *)r.x)[j];
		int32_t i = r.first + 4 * j;
		count_one(r, s, v.x, i);
		count_one(r, s, v.y, i + 1);
		count_one(r, s, v.z, i + 2);
		count_one(r, s, v.w, i + 3);
	}
}

/* The bin in which the sum from above reaches what is wanted; the last where it does not. Each block adds up its share
 * of the bins of all blocks. part > 0: wanted is that part of the total. */
static __device__ __forceinline__ struct found crossing(struct row &r, struct search &s, float part)
{
	cooperative_groups::cluster_group c = cooperative_groups::this_cluster();
	int32_t share = BINS / r.ranks, each = max(share / THREADS, 1);
	int32_t bin = r.rank * share + (int32_t)threadIdx.x * each;
	units v[BINS / THREADS], sum = 0, before;
	c.sync();
#pragma unroll
	for (int q = 0; q < BINS / THREADS; q++) {
		v[q] = 0;
		if (q < each && (int32_t)threadIdx.x * each < share)
			for (int32_t k = 0; k < r.ranks; k++)
				v[q] += *c.map_shared_rank(&r.b->bins[bin + q], k);
		sum += v[q];
	}
	units scan = warp_scan(sum), all = __shfl_sync(~0u, scan, 31);
	units total = cluster_sum(r, all, r.rank * WARPS + warp_of(), &before);
	if (part >= 0) {
		double want = ceil((double)part * (double)total);
		s.want = want < 1 ? 1 : want < (double)total ? (units)want : total;
	}
	if (s.above + total < s.want)
		return (struct found){BINS - 1, s.above + total, 0};
	before += s.above + scan - sum;
#pragma unroll
	for (int q = 0; q < BINS / THREADS; q++) {
		if (before < s.want && s.want <= before + v[q])
			tell(r, (units)(bin + q), before, v[q]);
		before += v[q];
	}
	return heard(r);
}

/* Keeps the first so many tokens of those kept: by_mass, the fewest that have `part` of the mass; else `count`. */
static __device__ __noinline__ struct row keep_first(struct row r, bool by_mass, int32_t count,
                                                     float part)
{
	float width = BEYOND * r.temperature / (float)(BINS - 1);
	struct search s = {by_mass, per_logit(r.temperature), 1 / width, -1, 0, 0, 0, (units)count,
	                   0};
	count_all(r, s);
	struct found f = crossing(r, s, by_mass ? part : -1);
	/* Bounds of the bin with slack for rounding; what belongs to it is asked of bin_of(). */
	float slack = 0.02f * width + 1e-6f * fabsf(r.max);
	s.bin = (int32_t)f.at;
	s.hi = key_of(f.at ? r.max - (float)f.at * width + slack : r.max);
	s.lo = f.at < BINS - 1 ? key_of(r.max - (float)(f.at + 1) * width - slack) : 0;
	for (;;) {
		s.above = f.above;
		s.shift = max(0, 21 - __clz((int)(s.hi - s.lo)));
		count_all(r, s);
		f = crossing(r, s, -1);
		uint32_t rest = (1u << s.shift) - 1;
		s.hi -= min((uint32_t)f.at, (s.hi - s.lo) >> s.shift) << s.shift;
		if (s.shift == 0)
			break;
		s.lo = s.hi - s.lo > rest ? s.hi - rest : s.lo;
	}
	float least = of_key(s.hi);
	units one = by_mass ? mass_of(r, s.by, least) : 1, n = 0;
	if (one)
		n = (s.want - f.above + one - 1) / one;
	r.upto = least == r.least ? r.upto : INT_MAX;
	r.least = least;
	if (n && n * one < f.mass) { /* not all of the equals */
		r = add_up(r, OF_TIES, 0);
		int32_t upto;
		r = find(r, OF_TIES, 0, n - 1, &upto);
		r.upto = upto;
	}
	return r;
}

/* Drops what has less than min_p: the least float with as much is near its logarithm. */
static __device__ __forceinline__ void keep_above(struct row &r, float min_p)
{
	double least = (double)r.max + (double)r.temperature * log((double)min_p);
	float x = of_key(key_of((float)least) - 16 + lane_of());
	uint32_t enough = __ballot_sync(
		~0u, exp(((double)x - (double)r.max) / (double)r.temperature) >= (double)min_p);
	x = __shfl_sync(~0u, x, enough ? __ffs((int)enough) - 1 : 0);
	x = enough && x < r.max ? x : r.max;
	if (x > r.least) {
		r.least = x;
		r.upto = INT_MAX;
	}
}

/* After load(): filters, and the mass of what they keep. */
static __device__ __forceinline__ void filter(struct row &r, const struct nx_sampler &s)
{
	r.least = -INFINITY;
	r.upto = INT_MAX;
	if (s.top_k > 0 && s.top_k < r.vocab)
		r = keep_first(r, false, s.top_k, 0);
	if (s.top_p < 1)
		r = keep_first(r, true, 0, fmaxf(s.top_p, 0));
	if (s.min_p > 0)
		keep_above(r, s.min_p);
	r = add_up(r, OF_MASS, per_logit(s.temperature));
}

#endif
