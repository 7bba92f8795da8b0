/* SPDX-License-Identifier: Apache-2.0
 *
 * sample_mass.cuh: one row of logits, held by a cluster of blocks, and sums over it.
 *
 * A row lies in the shared memory of its cluster, a slice of consecutive tokens in each block. Masses (the largest logit
 * has 1) are computed in double and added up as integers, in units of 2^-44: integers add up to the same in every order,
 * so a draw does not depend on how many blocks share a row, on how they are scheduled, or on what else is sampled, and
 * it differs from one that adds doubles only where some 1e-11 decide.
 */
#ifndef NX_CUDA_SAMPLE_MASS_CUH
#define NX_CUDA_SAMPLE_MASS_CUH

#include <cooperative_groups.h>
#include <limits.h>

#include "cuda/dev.cuh"

#define THREADS 512
#define WARPS (THREADS / 32)
#define CHUNK THREADS /* tokens whose mass is added up apart */
#define MAX_CHUNKS 128
#define MAX_CLUSTER 16
#define BINS 2048
#define ONE (1ull << 44)
#define BEYOND 32.5f /* so far below the largest logit, in temperatures, a mass rounds to none */

typedef unsigned long long units;

struct found {
	units at, above, mass;
};

/* Shared memory of a block. What others write, slot and found, has two turns: one is written while stragglers may
 * still read the other, and nobody is two turns behind, for there is a cluster's barrier in each. */
struct block {
	units slot[2][MAX_CLUSTER * WARPS];
	struct found found[2];
	units chunk[MAX_CHUNKS]; /* mass of each */
	units warp[WARPS];
	units bins[BINS];
	int32_t last; /* this cluster is the last of its sequence's */
};

struct row {
	struct block *b;
	float *x; /* [chunks * CHUNK] of shared memory: logits, -inf beyond the vocabulary; or masses */
	const float *logits;          /* [vocab] */
	int32_t vocab, first, chunks; /* first token of x */
	int32_t rank, ranks;
	int32_t turn;
	float max, temperature;
	float least; /* what the filters keep: x > least, or x = least and no later a token than `upto` */
	int32_t upto;
	units total, before; /* of the last add_up(): in all, and in the blocks before this one */
};

enum measure {
	OF_MASS,   /* what is kept, tempered */
	OF_ALL,    /* everything, untempered */
	OF_TIES,   /* 1 for what equals `least` and is kept */
	OF_MASSES, /* x holds masses */
};

static __device__ __forceinline__ uint32_t lane_of(void)
{
	return threadIdx.x & 31;
}
static __device__ __forceinline__ int32_t warp_of(void)
{
	return (int32_t)(threadIdx.x >> 5);
}

/* ---- numbers */

/* Order of floats as order of integers; -0 is 0. */
static __device__ __forceinline__ uint32_t key_of(float x)
{
	uint32_t u = __float_as_uint(x + 0.0f);
	return u ^ ((uint32_t)((int32_t)u >> 31) | 0x80000000u);
}

static __device__ __forceinline__ float of_key(uint32_t k)
{
	return __uint_as_float(k & 0x80000000u ? k ^ 0x80000000u : ~k);
}

/* 2^t to 4e-14 for t <= 0, and 2^-64 below -64. Exactly 1 at 0. Minimax polynomial for (2^r - 1) / r. */
static __device__ __forceinline__ double power(double t)
{
	t = t > -64.0 ? t : -64.0;
	double n = t + 6755399441055744.0, r = t - (n - 6755399441055744.0);
	double y = 0x1.b63880a30e9ffp-24;
	y = fma(y, r, 0x1.63d136366db24p-20);
	y = fma(y, r, 0x1.ffcb9515a8016p-17);
	y = fma(y, r, 0x1.4308ac85aa947p-13);
	y = fma(y, r, 0x1.5d87fe86fe88ep-10);
	y = fma(y, r, 0x1.3b2ab7181b755p-7);
	y = fma(y, r, 0x1.c6b08d7047e52p-5);
	y = fma(y, r, 0x1.ebfbdff823cedp-3);
	y = fma(y, r, 0x1.62e42fefa39efp-1);
	y = fma(y, r, 1.0);
	return __hiloint2double(__double2hiint(y) + (__double2loint(n) << 20), __double2loint(y));
}

/* A mass in [0, 1] in units: 256 has an ulp of one unit. */
static __device__ __forceinline__ units units_of(double mass)
{
	return (units)(__double_as_longlong(mass + 256.0) - __double_as_longlong(256.0));
}

static __device__ __forceinline__ double per_logit(float temperature)
{
	return 1.4426950408889634 / (double)temperature;
}

static __device__ __forceinline__ bool kept(const struct row &r, float x, int32_t token)
{
	return x > r.least || (x == r.least && token <= r.upto);
}

static __device__ __forceinline__ units mass_of(const struct row &r, double by, float x)
{
	return units_of(power(((double)x - (double)r.max) * by));
}

static __device__ __forceinline__ units measure_of(const struct row &r, enum measure m, double by,
                                                   float x, int32_t token)
{
	switch (m) {
	case OF_MASS: return kept(r, x, token) ? mass_of(r, by, x) : 0;
	case OF_ALL: return mass_of(r, by, x);
	case OF_TIES: return x == r.least && token <= r.upto;
	default: return units_of((double)x);
	}
}

/* ---- over a warp and over the cluster */

static __device__ __forceinline__ units warp_sum(units v)
{
	uint32_t a = __reduce_add_sync(~0u, (uint32_t)v & 0x7ffffffu);
	uint32_t b = __reduce_add_sync(~0u, (uint32_t)(v >> 27) & 0x7ffffffu);
	uint32_t c = __reduce_add_sync(~0u, (uint32_t)(v >> 54));
	return (units)a + ((units)b << 27) + ((units)c << 54);
}

static __device__ __forceinline__ units warp_max(units v)
{
	uint32_t high = (uint32_t)(v >> 32), top = __reduce_max_sync(~0u, high);
	uint32_t low = __reduce_max_sync(~0u, high == top ? (uint32_t)v : 0);
	return (units)top << 32 | low;
}

static __device__ __forceinline__ units warp_scan(units v) /* inclusive */
{
#pragma unroll
	for (int d = 1; d < 32; d *= 2) {
		units below = __shfl_up_sync(~0u, v, d);
		v += lane_of() >= (uint32_t)d ? below : 0;
	}
	return v;
}

/* Every warp's number to every block; a cluster's barrier. */
static __device__ __forceinline__ const units *exchange(struct row &r, units v)
{
	cooperative_groups::cluster_group c = cooperative_groups::this_cluster();
	units *slot = r.b->slot[r.turn ^= 1];
	if (lane_of() < (uint32_t)r.ranks)
		*c.map_shared_rank(&slot[r.rank * WARPS + warp_of()], lane_of()) = v;
	c.sync();
	return slot;
}

/* Sum over all warps, and over those before warp `mine` of all. */
static __device__ __forceinline__ units cluster_sum(struct row &r, units v, int32_t mine,
                                                    units *before)
{
	const units *slot = exchange(r, v);
	units all = 0, below = 0;
	for (int32_t i = (int32_t)lane_of(); i < r.ranks * WARPS; i += 32) {
		all += slot[i];
		below += i < mine ? slot[i] : 0;
	}
	*before = warp_sum(below);
	return warp_sum(all);
}

static __device__ __forceinline__ units cluster_max(struct row &r, units v)
{
	const units *slot = exchange(r, v);
	units max = 0;
	for (int32_t i = (int32_t)lane_of(); i < r.ranks * WARPS; i += 32)
		max = slot[i] > max ? slot[i] : max;
	return warp_max(max);
}

/* One thread of the cluster tells all blocks; then all call heard(). */
static __device__ __forceinline__ void tell(const struct row &r, units at, units above, units mass)
{
	cooperative_groups::cluster_group c = cooperative_groups::this_cluster();
	for (int32_t i = 0; i < r.ranks; i++)
		*c.map_shared_rank(&r.b->found[r.turn ^ 1], i) = (struct found){at, above, mass};
}

static __device__ __forceinline__ struct found heard(struct row &r)
{
	cooperative_groups::this_cluster().sync();
	return r.b->found[r.turn ^= 1];
}

/* ---- over the row */

static __device__ __forceinline__ void larger(float x, int32_t token, float &best, int32_t &at)
{
	at = x > best ? token : at;
	best = x > best ? x : best;
}

/* n tokens of a row that no vector fits, for its vocabulary is no multiple of 4. To x, if there is one. */
static __device__ __noinline__ units load_odd(const float *logits, int32_t first, int32_t n,
                                              int32_t vocab, float *x)
{
	int32_t at = INT_MAX;
	float best = -INFINITY;
#pragma unroll 8
	for (int32_t i = (int32_t)threadIdx.x; i < n; i += THREADS) {
		float e = first + i < vocab ? __ldcg(logits + first + i) : -INFINITY;
		larger(e, first + i, best, at);
		if (x)
			x[i] = e;
	}
	return (units)key_of(best) << 32 | (uint32_t)~at;
}

/* Logits from memory to x (if keep) and the choice of the greedy: the lowest token among the largest. Sets max. */
static __device__ __forceinline__ int32_t load(struct row &r, bool keep)
{
	enum { DEEP = 8 };
	const float4 *from = (const float4 *)(const void *)(r.logits + r.first);
	/* vectors of the slice, and those of them that hold logits: perhaps less than none */
	int32_t n = r.chunks * CHUNK / 4, full = min(n, (r.vocab - r.first) / 4), at = INT_MAX;
	float best = -INFINITY;
	units top;
	if (((uintptr_t)r.logits | (uintptr_t)r.vocab * 4) & 15) {
		top = load_odd(r.logits, r.first, r.chunks * CHUNK, r.vocab, keep ? r.x : NULL);
	} else {
		for (int32_t j0 = (int32_t)threadIdx.x; j0 < (keep ? n : full);
		     j0 += THREADS * DEEP) {
			float4 v[DEEP];
#pragma unroll
			for (int q = 0; q < DEEP; q++) {
				v[q] = make_float4(-INFINITY, -INFINITY, -INFINITY, -INFINITY);
				if (j0 + q * THREADS < full)
					v[q] = __ldcg(from + j0 + q * THREADS);
			}
#pragma unroll
			for (int q = 0; q < DEEP; q++) {
				int32_t j = j0 + q * THREADS, i = r.first + 4 * j;
				larger(v[q].x, i, best, at);
				larger(v[q].y, i + 1, best, at);
				larger(v[q].z, i + 2, best, at);
				larger(v[q].w, i + 3, best, at);
				if (keep && j < n)
					((float4 *)(void *)r.x)[j] = v[q];
			}
		}
		top = (units)key_of(best) << 32 | (uint32_t)~at;
	}
	top = cluster_max(r, warp_max(top));
	r.max = of_key((uint32_t)(top >> 32));
	at = (int32_t) ~(uint32_t)top;
	return at < r.vocab ? at : 0; /* none is larger than -inf */
}

template <enum measure M>
static __device__ __forceinline__ units chunk_sum(const struct row &r, double by, const float *x,
                                                  int32_t token)
{
	float e[CHUNK / 32], high = -INFINITY;
	units sum = 0;
#pragma unroll
	for (int q = 0; q < CHUNK / 128; q++) {
		float4 f = ((const float4 *)(const void *)x)[lane_of() + 32 * q];
		e[4 * q] = f.x;
		e[4 * q + 1] = f.y;
		e[4 * q + 2] = f.z;
		e[4 * q + 3] = f.w;
		high = fmaxf(high, fmaxf(fmaxf(f.x, f.y), fmaxf(f.z, f.w)));
	}
	if ((M == OF_MASS || M == OF_TIES) && !__any_sync(~0u, high >= r.least))
		return 0;
	token += 4 * (int32_t)lane_of();
#pragma unroll
	for (int q = 0; q < CHUNK / 32; q++)
		sum += measure_of(r, M, by, e[q], token + q / 4 * 128 + q % 4);
	return warp_sum(sum);
}

/* Sets total, before and the chunks' masses. A barrier for x before and after. */
static __device__ __noinline__ struct row add_up(struct row r, enum measure m, double by)
{
	units mine = 0;
	__syncthreads();
	for (int32_t c = warp_of(); c < r.chunks; c += WARPS) {
		const float *x = r.x + c * CHUNK;
		int32_t token = r.first + c * CHUNK;
		units sum;
		switch (m) {
		case OF_MASS: sum = chunk_sum<OF_MASS>(r, by, x, token); break;
		case OF_ALL: sum = chunk_sum<OF_ALL>(r, by, x, token); break;
		case OF_TIES: sum = chunk_sum<OF_TIES>(r, by, x, token); break;
		default: sum = chunk_sum<OF_MASSES>(r, by, x, token); break;
		}
		if (lane_of() == 0)
			r.b->chunk[c] = sum;
		mine += sum;
	}
	r.total = cluster_sum(r, mine, r.rank * WARPS, &r.before);
	return r;
}

/* After add_up() of the same measure: the first token with which the sum exceeds `over`, which is less than the total. */
static __device__ __noinline__ struct row find(struct row r, enum measure m, double by, units over,
                                               int32_t *token)
{
	units rest = over - r.before;
	int32_t at = -1;
	for (int32_t c0 = 0; over >= r.before && c0 < r.chunks && at < 0; c0 += 32) {
		int32_t c = c0 + (int32_t)lane_of();
		units v = c < r.chunks ? r.b->chunk[c] : 0, sum = warp_scan(v);
		uint32_t past = __ballot_sync(~0u, sum > rest);
		if (past) {
			at = c0 + __ffs((int)past) - 1;
			rest -= __shfl_sync(~0u, sum - v, __ffs((int)past) - 1);
		} else {
			rest -= __shfl_sync(~0u, sum, 31);
		}
	}
	if (at >= 0) {
		int32_t i = at * CHUNK + (int32_t)threadIdx.x;
		units v = measure_of(r, m, by, r.x[i], r.first + i), sum = warp_scan(v), below = 0;
		if (lane_of() == 31)
			r.b->warp[warp_of()] = sum;
		__syncthreads();
		for (int32_t w = 0; w < warp_of(); w++)
			below += r.b->warp[w];
		if (below + sum > rest && below + sum - v <= rest)
			tell(r, (units)(r.first + i), 0, 0);
	}
	*token = (int32_t)heard(r).at;
	return r;
}

#endif
