/* SPDX-License-Identifier: Apache-2.0
 *
 * attention_steps.cuh: attention_decode.cu: which keys go by, in which steps, and where they lie.
 */
#ifndef NX_CUDA_ATTENTION_STEPS_CUH
#define NX_CUDA_ATTENTION_STEPS_CUH

#include "cuda/attention.cuh"

#define STEP 16
#define GROUPS 4

/* The tile at work, in shared memory. */
struct tile {
	int32_t n_table[32], keys[32], limit[32];
	const int32_t *anc[32];
};

/* Where unit u lies. */
struct place {
	int32_t row0, n_rows, seq, kv_head, chunk, n_chunks;
};

static __device__ __forceinline__ int32_t seg_tiles(const struct nx_segment &s, int32_t rows)
{
	return (s.n_rows + rows - 1) / rows;
}

static __device__ __forceinline__ int32_t seg_chunks(const struct attn_args &a,
                                                     const struct nx_segment &s)
{
	if (!a.split)
		return 1;
	return max(1, (min(s.max_keys, a.max_keys) + a.kv_chunk - 1) / a.kv_chunk);
}

/* Units before u, of all segments when u < 0; else fills *p, with all lanes of a warp. */
static __device__ int32_t find_unit(const struct attn_args &a, int32_t tile_rows, int32_t u,
                                    struct place *p)
{
	int32_t lane = (int32_t)threadIdx.x % 32, before = 0;
	for (int32_t s0 = 0; s0 < a.n_segments; s0 += 32) {
		struct nx_segment s = {};
		int32_t units = 0, chunks = 1;
		if (s0 + lane < a.n_segments) {
			int4 raw = *(const int4 *)(a.segments + s0 + lane);
			s = {raw.x, raw.y, raw.z, raw.w};
			chunks = seg_chunks(a, s);
			units = seg_tiles(s, tile_rows) * a.n_kv_heads * chunks;
		}
		int32_t sum = units;
		for (int i = 1; i < 32; i *= 2) {
			int32_t x = __shfl_up_sync(~0u, sum, i);
			sum += lane >= i ? x : 0;
		}
		int32_t all = __shfl_sync(~0u, sum, 31);
		if (u >= 0 && u < before + all) {
			int from = __ffs((int)__ballot_sync(~0u, u < before + sum)) - 1;
			int32_t at = u - before - __shfl_sync(~0u, sum - units, from);
			int32_t n_rows = __shfl_sync(~0u, s.n_rows, from);
			p->n_chunks = __shfl_sync(~0u, chunks, from);
			p->seq = __shfl_sync(~0u, s.seq, from);
			p->chunk = at % p->n_chunks;
			at /= p->n_chunks;
			p->kv_head = at % a.n_kv_heads;
			int32_t r = at / a.n_kv_heads * tile_rows;
			p->row0 = __shfl_sync(~0u, s.row0, from) + r;
			p->n_rows = min(tile_rows, n_rows - r);
			return before;
		}
		before += all;
	}
	return before;
}

/* The steps of one group over a range: all rows together (row < 0), then rows that see scratch rows, each by
 * itself. */
struct steps {
	int32_t row, t, end;
};

struct range {
	int32_t k0, k1;     /* keys */
	int32_t shared_end; /* end of those that rows see through the table */
	int32_t group, n_rows;
	bool drafted;
};

static __device__ __forceinline__ void next_drafted(const struct range &g, const struct tile *w,
                                                    struct steps *s)
{
	while (++s->row < g.n_rows) {
		int32_t n_table = w->n_table[s->row], keys = min(w->keys[s->row], g.k1);
		if (w->keys[s->row] <= n_table || n_table >= g.k1 || keys <= g.k0)
			continue;
		s->t = (max(n_table, g.k0) - g.k0) / STEP;
		s->end = (keys - g.k0 + STEP - 1) / STEP;
		s->t += (g.group - s->t) & (GROUPS - 1);
		if (s->t < s->end)
			return;
	}
}

static __device__ __forceinline__ bool steps_left(const struct range &g, const struct steps &s)
{
	return s.row < 0 || s.row < g.n_rows;
}

static __device__ __forceinline__ void steps_skip(const struct range &g, const struct tile *w,
                                                  struct steps *s)
{
	if (s->t < s->end)
		return;
	if (g.drafted)
		next_drafted(g, w, s);
	else
		s->row = g.n_rows;
}

static __device__ __forceinline__ void steps_begin(const struct range &g, const struct tile *w,
                                                   struct steps *s)
{
	s->row = -1;
	s->t = g.group;
	s->end = (g.shared_end - g.k0 + STEP - 1) / STEP;
	steps_skip(g, w, s);
}

static __device__ __forceinline__ void steps_next(const struct range &g, const struct tile *w,
                                                  struct steps *s)
{
	s->t += GROUPS;
	steps_skip(g, w, s);
}

/* Where this lane's key (of lanes 0 to 15) lies in a step: a pool row, or ~(scratch row), or NOWHERE. */
#define NOWHERE INT32_MIN
static __device__ __forceinline__ int32_t locate(const struct attn_args &a, const struct range &g,
                                                 const struct tile *w, const struct steps &s,
                                                 int32_t seq, int32_t lane)
{
	if (lane >= STEP || !steps_left(g, s))
		return NOWHERE;
	int32_t i = g.k0 + s.t * STEP + lane;
	int32_t n_table = s.row < 0 ? g.shared_end : w->n_table[s.row];
	int32_t end = s.row < 0 ? g.shared_end : min(w->keys[s.row], g.k1);
	if (i >= end)
		return NOWHERE;
	if (i >= n_table)
		return ~(seq * a.scratch_cap + w->anc[s.row][i - n_table]);
	int32_t row = attn_pool_row(a, seq, i);
	return row < 0 ? NOWHERE : row;
}
#endif
