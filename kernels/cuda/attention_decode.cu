/* SPDX-License-Identifier: Apache-2.0
 *
 * attention_decode.cu: attention of few rows a sequence, bf16, on tensor cores: bound by reading the KV store.
 *
 * A tile is a run of rows of a segment with all q heads that share a kv head: up to 16 * MT "q rows", so that each
 * K and V row is read once for all of them. Keys go by in steps of STEP, counted from the start of the range; GROUPS
 * groups of MT warps take every GROUPS-th step each, with a ring of stages of their own that cp.async fills, so
 * there is no barrier over the block while keys stream. Groups are merged in order at the end of a range.
 *
 * Invariant mode: a range is a chunk of the grid, a unit of work a tile, kv head and chunk; the segments' bounds say
 * how many there are. Else see attention_spread.cuh: there a unit of work is as large as keeps the device busy.
 *
 * Drafted rows. Steps that hold scratch rows differ from row to row: they are staged for each such row and then
 * change this row alone. So a drafted row adds what a plain row of the same keys would, in the same order.
 */
#include "cuda/attention_launch.cuh"

/* Sums of one group over a range. */
template <int D, int MT>
static __device__ __forceinline__ void stream(const struct attn_args &a, const struct range &g,
                                              const struct tile *w, const uint32_t (&q)[D / 16][4],
                                              struct sums<D> &o, uint32_t ring, int32_t seq,
                                              int64_t head_bytes, const int32_t (&my_row)[2])
{
	typedef shape<D, MT> S;
	int32_t lane = (int32_t)threadIdx.x % 32, part = (int32_t)threadIdx.x / 32 % MT;
	int32_t limit0 = my_row[0] < g.n_rows ? w->limit[my_row[0]] : 0;
	int32_t limit1 = my_row[1] < g.n_rows ? w->limit[my_row[1]] : 0;
	struct steps in, at;
	steps_begin(g, w, &in);
	at = in;
	int32_t where = locate(a, g, w, in, seq, lane);
	int load = 0, use = 0;
#pragma unroll 1
	for (int i = 0; i < S::STAGES - 1; i++) {
		if (steps_left(g, in)) {
			stage<S, true>(a, ring + (uint32_t)(load * S::STAGE), where, 0, head_bytes,
			               part, lane);
			steps_next(g, w, &in);
			where = locate(a, g, w, in, seq, lane);
		}
		load++;
		asm volatile("cp.async.commit_group;" ::: "memory");
	}
#pragma unroll 1
	while (steps_left(g, at)) {
		asm volatile("cp.async.wait_group %0;" ::"n"(S::STAGES - 2) : "memory");
		group_sync<MT>(g.group);
		if (steps_left(g, in)) {
			stage<S, true>(a, ring + (uint32_t)(load * S::STAGE), where, 0, head_bytes,
			               part, lane);
			steps_next(g, w, &in);
			where = locate(a, g, w, in, seq, lane);
		}
		asm volatile("cp.async.commit_group;" ::: "memory");
		load = load + 1 == S::STAGES ? 0 : load + 1;
		int32_t k = g.k0 + at.t * STEP, end0 = limit0, end1 = limit1;
		if (at.row >= 0) {
			int32_t end = min(w->keys[at.row], g.k1);
			end0 = my_row[0] == at.row ? end : 0;
			end1 = my_row[1] == at.row ? end : 0;
		}
		compute<D, 1>(q, o, ring + (uint32_t)(use * S::STAGE), a.scale2,
		              first_keys<STEP>(end0 - k), first_keys<STEP>(end1 - k), lane);
		use = use + 1 == S::STAGES ? 0 : use + 1;
		steps_next(g, w, &at);
	}
	asm volatile("cp.async.wait_group 0;" ::: "memory");
}

/* A chunk of a tile and head, or where calls are not split all of them. */
template <int D, int MT>
static __device__ __forceinline__ void do_chunks(const struct attn_args &a, const struct place &p,
                                                 struct tile *w, uint8_t *smem)
{
	typedef shape<D, MT> S;
	int32_t tid = (int32_t)threadIdx.x, lane = tid % 32, warp = tid / 32;
	int32_t group = warp / MT, part = warp % MT;
	if (tid < p.n_rows) {
		struct attn_view v = attn_view(a, p.row0 + tid);
		w->n_table[tid] = v.n_table;
		w->keys[tid] = v.keys;
		w->anc[tid] = v.anc;
	}
	int32_t q_row[2] = {part * 16 + lane / 4, part * 16 + lane / 4 + 8};
	int32_t my_row[2] = {q_row[0] / a.group, q_row[1] / a.group};
	uint32_t q[D / 16][4];
	load_q<D>(a, p, q_row, my_row, q, lane);
	__syncthreads();
	int32_t most_table = 0, most = 0;
	bool drafted = false;
	for (int32_t r = 0; r < p.n_rows; r++) {
		most_table = max(most_table, w->n_table[r]);
		most = max(most, w->keys[r]);
		drafted |= w->keys[r] > w->n_table[r];
	}
	int32_t end = a.split ? min((p.chunk + 1) * a.kv_chunk, most) : most;
	/* This thread's place in what is merged: a q row. */
	int32_t row = tid / 8 / a.group, head = p.kv_head * a.group + tid / 8 % a.group;
	int64_t out_at = (int64_t)(p.row0 + row) * a.n_heads + head;
	bool whole = !a.split || p.n_chunks == 1, mine = row < p.n_rows;
	struct merged<D> total;
	clear<D>(total);
	int32_t begin = p.chunk * a.kv_chunk;
	do {
		struct range g;
		g.k0 = begin;
		g.k1 = end - begin < a.kv_chunk ? end : begin + a.kv_chunk;
		g.shared_end = min(g.k1, most_table);
		g.group = group;
		g.n_rows = p.n_rows;
		g.drafted = drafted;
		/* Rows with scratch rows leave the common steps where the first of those lies in the step. */
		if (tid < p.n_rows) {
			int32_t limit = w->n_table[tid];
			if (w->keys[tid] > limit && limit < g.k1)
				limit = limit < g.k0 ? 0 : g.k0 + (limit - g.k0) / STEP * STEP;
			w->limit[tid] = min(limit, g.k1);
		}
		__syncthreads();
		struct sums<D> o;
		clear_sums(o);
		if (g.k0 < g.k1)
			stream<D, MT>(a, g, w, q, o,
			              smem_at(smem) + (uint32_t)(group * S::STAGES * S::STAGE),
			              p.seq, (int64_t)p.kv_head * S::ROW_BYTES, my_row);
		struct merged<D> m;
		merge_groups<D, MT>(o, (float *)smem, group, m);
		__syncthreads();
		if (whole)
			merge<D>(total, m.max, m.sum, m.out);
		else if (mine)
			store_part<D>(a, out_at * a.n_chunks + p.chunk, m);
		begin = g.k1;
	} while (begin < end);
	if (!mine || !whole)
		return;
	store_out<D>(a, out_at, total);
	if (a.split && tid % 8 == 0)
		a.part_head[out_at * a.n_chunks] = ATTN_DONE;
}

template <int D, int MT>
static __global__ void __launch_bounds__(shape<D, MT>::THREADS, MT == 1 ? 2 : 1)
	decode_kernel(const __grid_constant__ struct attn_args a, int32_t tile_rows)
{
	extern __shared__ __align__(1024) uint8_t smem[]; /* steps are addressed by xor */
	__shared__ struct tile w;
	pdl_trigger();
	pdl_wait();
	struct place p;
	if ((int32_t)blockIdx.x >= find_unit(a, tile_rows, -1, &p))
		return;
	find_unit(a, tile_rows, (int32_t)blockIdx.x, &p);
	do_chunks<D, MT>(a, p, &w, smem);
}

/* ---- host */

/* Tiles of 16 q rows: a CTA of an SM with 8 groups, or two with 4. Of 32: 4 groups of two warps, steps twice as long. */
template <int D> struct spreads {
	typedef shape<D, 1, 8> wide;
	typedef shape<D, 1, 4> twin;
	typedef shape<D, 2, 4, 2> tall;
};

template <int D> static int open_dim(const struct cuda_dev *d, struct nx_err *err)
{
	typedef spreads<D> X;
	CU(cudaFuncSetAttribute(decode_kernel<D, 1>, cudaFuncAttributeMaxDynamicSharedMemorySize,
	                        shape<D, 1>::SMEM));
	CU(cudaFuncSetAttribute(decode_kernel<D, 2>, cudaFuncAttributeMaxDynamicSharedMemorySize,
	                        shape<D, 2>::SMEM));
	int rc = open_runs<typename X::twin>(err);
	if (!rc)
		rc = open_runs<typename X::tall>(err);
	if (!rc)
		rc = open_spread<typename X::wide, false>(d, err);
	if (!rc)
		rc = open_spread<typename X::wide, true>(d, err);
	if (!rc)
		rc = open_spread<typename X::twin, false>(d, err);
	if (!rc)
		rc = open_spread<typename X::twin, true>(d, err);
	if (!rc)
		rc = open_spread<typename X::tall, false>(d, err);
	return rc ? rc : open_spread<typename X::tall, true>(d, err);
}

int attention_decode_open(struct cuda_dev *d, struct nx_err *err)
{
	int rc = open_dim<64>(d, err);
	return rc ? rc : open_dim<128>(d, err);
}

/* Nothing here depends on how many rows there are. */
bool attention_decode_fits(const struct cuda_dev *d, const struct attn_args *a,
                           enum nx_kv_codec codec)
{
	return d->act == NX_BF16 && codec == NX_KV_BF16 && (a->dim == 64 || a->dim == 128) &&
	       a->group <= 32 && attn_aligned(a->base) && attn_aligned(a->q) &&
	       attn_aligned(a->out) && attn_aligned(a->scratch) && attn_aligned(a->segments) &&
	       a->q_stride % 2 == 0 && a->row_bytes % 16 == 0 && a->v_offset % 16 == 0 &&
	       a->scratch_row_bytes % 16 == 0 && a->scratch_v_offset % 16 == 0;
}

template <int D, bool DRAFTED>
static int spread_dim(struct cuda_dev *d, cudaStream_t s, struct attn_args *a, int64_t q_rows,
                      struct nx_err *err)
{
	typedef typename spreads<D>::wide wide;
	typedef typename spreads<D>::twin twin;
	typedef typename spreads<D>::tall tall;
	if (q_rows > 16)
		return spread<tall, tall, DRAFTED>(d, s, a, err);
	if (tiles_of(a, 16 / a->group) * a->n_kv_heads <= d->n_sms)
		return spread<wide, twin, DRAFTED>(d, s, a, err);
	return spread<twin, twin, DRAFTED>(d, s, a, err);
}

/* On the grid of chunks. */
template <int D, int MT>
static int launch(struct cuda_dev *d, cudaStream_t s, struct attn_args *a, struct nx_err *err)
{
	typedef shape<D, MT> S;
	int32_t tile_rows = S::ROWS / a->group;
	int64_t units = tiles_of(a, tile_rows) * a->n_kv_heads;
	a->split = a->n_rows <= ATTN_SPLIT_ROWS && a->n_chunks > 1;
	if (a->split)
		units *= a->n_chunks;
	int rc = cu_launch(err, "attention_decode", CU_PDL, decode_kernel<D, MT>,
	                   dim3((unsigned)units), dim3(S::THREADS), S::SMEM, s, *a, tile_rows);
	return rc || !a->split ? rc : attention_merge(d, s, a, err);
}

template <int D>
static int decode_dim(struct cuda_dev *d, cudaStream_t s, struct attn_args *a, struct nx_err *err)
{
	/* One segment has at most the rows that the others leave. */
	int64_t q_rows = (int64_t)(a->n_rows - a->n_segments + 1) * a->group;
	bool drafted = a->anc_stride > 0;
	if (!a->invariant && a->near && a->q_stride % 8 == 0 &&
	    (!drafted || a->scratch_cap <= SPREAD_SCRATCH)) {
		set_divisors(a);
		return drafted ? spread_dim<D, true>(d, s, a, q_rows, err)
		               : spread_dim<D, false>(d, s, a, q_rows, err);
	}
	return q_rows <= 16 ? launch<D, 1>(d, s, a, err) : launch<D, 2>(d, s, a, err);
}

int attention_decode(struct cuda_dev *d, cudaStream_t s, struct attn_args *a, struct nx_err *err)
{
	return a->dim == 64 ? decode_dim<64>(d, s, a, err) : decode_dim<128>(d, s, a, err);
}
