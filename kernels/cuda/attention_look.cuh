/* SPDX-License-Identifier: Apache-2.0
 *
 * attention_look.cuh: attention_spread.cuh: what the rows of a tile see, and which of it is a CTA's to read.
 */
#ifndef NX_CUDA_ATTENTION_LOOK_CUH
#define NX_CUDA_ATTENTION_LOOK_CUH

#include "cuda/attention_parts.cuh"

#define SPREAD_SCRATCH 256 /* scratch rows of a sequence, at most */
#define SCRATCH_WORDS (SPREAD_SCRATCH / 32)

/* What the rows of a tile see, in shared memory: keys in the table, and scratch rows, a bit each. */
struct sight {
	int32_t n_table[32];
	uint32_t seen[32][SCRATCH_WORDS];
	uint32_t any[8][SCRATCH_WORDS]; /* scratch rows that any row sees; each warp its own */
};

/* The steps of a CTA: its groups take them in turns. */
struct share {
	int32_t first, end;
	int32_t n_table, scratch_steps; /* keys in the table; steps that come before theirs */
};

/* x / group, x < 64. */
static __device__ __forceinline__ int32_t by_group(const struct attn_args &a, int32_t x)
{
	return (int32_t)((uint32_t)x * a.group_mul >> 16);
}

/* slot / block_size. */
static __device__ __forceinline__ uint32_t by_block(const struct attn_args &a, uint32_t slot)
{
	return a.block_mul ? __umulhi(slot, a.block_mul) >> a.block_shift : slot;
}

/* The tile and head of a cluster; false: there are not so many. */
static __device__ __forceinline__ bool find_item(const struct attn_args &a, int32_t tile_rows,
                                                 int32_t item, struct place *p)
{
	if (a.n_segments == 1 || a.n_rows == a.n_segments) { /* nothing to look up but seq */
		int32_t tile = item / a.n_kv_heads, rows = a.n_segments == 1 ? tile_rows : 1;
		p->kv_head = item - tile * a.n_kv_heads;
		p->row0 = tile * rows;
		p->n_rows = min(rows, a.n_rows - p->row0);
		if (p->n_rows < 1)
			return false;
		p->seq = a.seq[p->row0];
		return true;
	}
	p->n_rows = 0;
	find_unit(a, tile_rows, item, p);
	return p->n_rows > 0;
}

/* What the rows see: a thread a row. */
static __device__ __forceinline__ void look(const struct attn_args &a, const struct place &p,
                                            struct sight *w)
{
	int32_t tid = (int32_t)threadIdx.x;
	if (tid < p.n_rows)
		w->n_table[tid] = attn_view_of(a, p.row0 + tid, p.seq).n_table;
}

/* The same with scratch rows: a warp for each of up to MOST rows, a lane for each of their ancestors. */
template <int WARPS, int MOST>
static __device__ __forceinline__ void look_drafted(const struct attn_args &a,
                                                    const struct place &p, struct sight *w)
{
	int32_t lane = (int32_t)threadIdx.x % 32, warp = (int32_t)threadIdx.x / 32;
	struct attn_view v[MOST];
	int32_t id[MOST];
	/* All loads at once: one wait. */
#pragma unroll
	for (int i = 0; i < MOST; i++) {
		int32_t row = p.row0 + min(warp + i * WARPS, p.n_rows - 1);
		id[i] = lane < a.anc_stride ? a.anc[(int64_t)row * a.anc_stride + lane] : 0;
		v[i] = attn_view_of(a, row, p.seq);
	}
#pragma unroll
	for (int i = 0; i < MOST; i++) {
		int32_t row = warp + i * WARPS, n = v[i].keys - v[i].n_table;
		if (row >= p.n_rows)
			break;
		if (lane == 0)
			w->n_table[row] = v[i].n_table;
#pragma unroll 1
		for (int k = 0; k * 32 < a.scratch_cap; k++) {
			uint32_t x = 0;
#pragma unroll 1
			for (int32_t j = lane; j < n; j += 32) {
				int32_t at = j == lane ? id[i] : v[i].anc[j];
				x |= at >> 5 == k && at < a.scratch_cap ? 1u << (at & 31) : 0;
			}
			x = __reduce_or_sync(~0u, x);
			if (lane == 0)
				w->seen[row][k] = x;
		}
	}
}

/* CTAs that share a tile and head, and 2^32 / n, rounded up; 0 for one. */
struct parts {
	int32_t n;
	uint32_t mul;
};

/* x / n, x < 2^24. */
static __device__ __forceinline__ int32_t by_parts(struct parts parts, int32_t x)
{
	return parts.mul ? (int32_t)__umulhi((uint32_t)x, parts.mul) : x;
}

/* All steps of a tile: those that hold scratch rows, then the table's. Every warp counts them of its own. */
template <class S, bool DRAFTED>
static __device__ __forceinline__ struct share all_steps(const struct attn_args &a, struct sight *w,
                                                         int32_t n_rows)
{
	int32_t lane = (int32_t)threadIdx.x % 32, warp = (int32_t)threadIdx.x / 32;
	struct share g = {};
	g.n_table = __reduce_max_sync(~0u, lane < n_rows ? w->n_table[lane] : 0);
	if (DRAFTED) {
		int32_t scratch = 0;
#pragma unroll 1
		for (int k = 0; k * 32 < a.scratch_cap; k++) {
			uint32_t any = __reduce_or_sync(~0u, lane < n_rows ? w->seen[lane][k] : 0);
			if (any)
				scratch = k * 32 + 32 - __clz((int)any);
			if (lane == 0)
				w->any[warp][k] = any;
		}
		__syncwarp();
		g.scratch_steps = (scratch + S::KEYS - 1) / S::KEYS;
	}
	g.end = g.scratch_steps + (g.n_table + S::KEYS - 1) / S::KEYS;
	return g;
}

/* The share of CTA `part`. */
static __device__ __forceinline__ struct share share_of_part(struct share g, int32_t part,
                                                             struct parts parts)
{
	int32_t each = by_parts(parts, g.end), rest = g.end - each * parts.n;
	g.first = part * each + min(part, rest);
	g.end = g.first + each + (part < rest);
	return g;
}

/* The share of chunks [chunk, chunk + n) of n_chunks: a step belongs to the chunk that its first key is of, and scratch
 * rows to the first, which every row has. */
template <class S>
static __device__ __forceinline__ struct share share_of_chunks(const struct attn_args &a,
                                                               struct share g, int32_t chunk,
                                                               int32_t n, int32_t n_chunks)
{
	int32_t end = chunk + n;
	if (chunk)
		g.first = g.scratch_steps + (chunk * a.kv_chunk + S::KEYS - 1) / S::KEYS;
	if (end < n_chunks)
		g.end = min(g.end, g.scratch_steps + (end * a.kv_chunk + S::KEYS - 1) / S::KEYS);
	return g;
}

#endif
