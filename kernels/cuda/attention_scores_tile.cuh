/* SPDX-License-Identifier: Apache-2.0
 *
 * attention_scores_tile.cuh: attention_scores_tile.cu: which tile a block of threads takes, and how steps of its keys or
 * values come into shared memory.
 *
 * There rows of bf16 lie in pieces of 16 bytes, piece i of row r at i ^ r % 8, so that eight rows of a matrix lie in all
 * banks.
 */
#ifndef NX_CUDA_ATTENTION_SCORES_TILE_CUH
#define NX_CUDA_ATTENTION_SCORES_TILE_CUH

#include "cuda/attention_tile.cuh"

#define ROWS 128 /* of a tile */
#define KEYS 64  /* of a step */

/* A block's tile. */
struct work {
	int32_t row0, n_rows, seq, head, kv_head;
	int32_t keys; /* the most that a row sees */
};

/* The most that 32 rows see. */
static __device__ __forceinline__ int32_t most_seen(const int32_t *sees)
{
	return __reduce_max_sync(~0u, sees[threadIdx.x % 32]);
}

/* sees: keys of each row of the tile, 0 where it has no such row. Ends with a barrier. False: there is no tile. */
static __device__ __forceinline__ bool find_work(const struct attn_args &a, int32_t (&sees)[ROWS],
                                                 struct work *w)
{
	int32_t n_heads = a.n_heads, last = (int32_t)gridDim.x / n_heads - 1;
	struct place p = {};
	/* A tile has a unit for each kv head: its first one says where it lies. */
	find_unit(a, ROWS, (last - (int32_t)blockIdx.x / n_heads) * a.n_kv_heads, &p);
	if (p.n_rows < 1)
		return false;
	w->row0 = p.row0;
	w->n_rows = p.n_rows;
	w->seq = p.seq;
	w->head = (int32_t)blockIdx.x % n_heads;
	w->kv_head = w->head / a.group;
	/* Without ancestors all that a row sees is in the table. */
	for (int32_t r = (int32_t)threadIdx.x; r < ROWS; r += (int32_t)blockDim.x)
		sees[r] = r < p.n_rows ? attn_view_of(a, p.row0 + r, p.seq).n_table : 0;
	__syncthreads();
	w->keys = 0;
#pragma unroll
	for (int r = 0; r < ROWS; r += 32)
		w->keys = max(w->keys, most_seen(sees + r));
	return true;
}

static __device__ __forceinline__ float *scores_of(const struct attn_args &a, const struct work &w,
                                                   int32_t r)
{
	return a.scores + ((int64_t)(w.row0 + r) * a.n_heads + w.head) * a.max_keys;
}

/* Pool rows of a warp's share of a step, one a lane; -1: there is none. */
template <int WARPS>
static __device__ __forceinline__ int32_t find_share(const struct attn_args &a,
                                                     const struct work &w, int32_t step,
                                                     int32_t warp, int32_t lane)
{
	const int SHARE = KEYS / WARPS;
	int32_t i = step * KEYS + warp * SHARE + lane;
	return lane < SHARE && i < w.keys ? attn_pool_row(a, w.seq, i) : -1;
}

/* Starts the copies of that share, from keys or from values of the tile's head; zeros where there is none. */
template <int D, int WARPS>
static __device__ __forceinline__ void fetch_share(const struct attn_args &a, const uint8_t *from,
                                                   uint32_t to, int32_t found, int32_t warp,
                                                   int32_t lane)
{
	const int PIECES = D / 8, AT_ONCE = 32 / PIECES, SHARE = KEYS / WARPS;
	int32_t piece = lane % PIECES;
	from += piece * 16;
#pragma unroll
	for (int i = 0; i < SHARE; i += AT_ONCE) {
		int32_t mine = i + lane / PIECES, row = warp * SHARE + mine;
		int32_t at = __shfl_sync(~0u, found, mine);
		fetch16(to + (uint32_t)(row * D * 2 + (piece ^ (row & 7)) * 16),
		        from + max(at, 0) * a.row_bytes, at >= 0);
	}
}

static __device__ __forceinline__ void copies_commit(void)
{
	asm volatile("cp.async.commit_group;" ::: "memory");
}

/* All but the last N groups of this thread's copies are there: after a barrier, everybody's. */
template <int N> static __device__ __forceinline__ void copies_wait(void)
{
	asm volatile("cp.async.wait_group %0;" ::"n"(N) : "memory");
}

#endif
