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
#include "cuda/attention_spread.cuh"

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
		o.max[0] = o.max[1] = -INFINITY;
		o.sum[0] = o.sum[1] = 0;
#pragma unroll
		for (int i = 0; i < D / 8; i++)
			o.out[i][0] = o.out[i][1] = o.out[i][2] = o.out[i][3] = 0;
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

/* Clusters of each size of a kernel that run at once: the fewest of the devices opened. */
template <class S, bool DRAFTED> struct clusters {
	static int most[SPREAD_MOST + 1];
};
template <class S, bool DRAFTED> int clusters<S, DRAFTED>::most[SPREAD_MOST + 1];

/* A launch of a kernel in clusters. */
struct cluster_launch {
	cudaLaunchConfig_t c;
	cudaLaunchAttribute a[2];
};

template <class S>
static void cluster_config(struct cluster_launch *l, cudaStream_t s, unsigned clusters,
                           unsigned parts)
{
	*l = {};
	l->a[0].id = cudaLaunchAttributeProgrammaticStreamSerialization;
	l->a[0].val.programmaticStreamSerializationAllowed = 1;
	l->a[1].id = cudaLaunchAttributeClusterDimension;
	l->a[1].val.clusterDim.x = parts;
	l->a[1].val.clusterDim.y = l->a[1].val.clusterDim.z = 1;
	l->c.gridDim = dim3(clusters * parts);
	l->c.blockDim = dim3(S::THREADS);
	l->c.dynamicSmemBytes = parts > 1 ? beyond<S>::SMEM : beyond<S>::GATHER;
	l->c.stream = s;
	l->c.attrs = l->a;
	l->c.numAttrs = parts > 1 ? 2 : 1;
}

template <class S, bool DRAFTED>
static int open_spread(const struct cuda_dev *d, struct nx_err *err)
{
	int *most = clusters<S, DRAFTED>::most, before = most[1];
	CU(cudaFuncSetAttribute(spread_kernel<S, DRAFTED>,
	                        cudaFuncAttributeMaxDynamicSharedMemorySize, beyond<S>::SMEM));
	CU(cudaFuncSetAttribute(spread_kernel<S, DRAFTED>,
	                        cudaFuncAttributeNonPortableClusterSizeAllowed, 1));
	for (int i = 1; i <= SPREAD_MOST; i++) {
		struct cluster_launch l;
		int n = d->n_sms * S::AT_ONCE;
		cluster_config<S>(&l, NULL, 1, (unsigned)i);
		if (i > 1 && cudaOccupancyMaxActiveClusters(&n, spread_kernel<S, DRAFTED>, &l.c) !=
		                     cudaSuccess) {
			(void)cudaGetLastError(); /* the device has no such clusters */
			n = 0;
		}
		most[i] = before && most[i] < n ? most[i] : n;
	}
	return 0;
}

template <class S> static int open_runs(struct nx_err *err)
{
	CU(cudaFuncSetAttribute(run_kernel<S, false>, cudaFuncAttributeMaxDynamicSharedMemorySize,
	                        beyond<S>::GATHER));
	CU(cudaFuncSetAttribute(run_kernel<S, true>, cudaFuncAttributeMaxDynamicSharedMemorySize,
	                        beyond<S>::GATHER));
	return 0;
}

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

static bool aligned(const void *p)
{
	return (uintptr_t)p % 16 == 0;
}

/* Nothing here depends on how many rows there are. */
bool attention_decode_fits(const struct cuda_dev *d, const struct attn_args *a,
                           enum nx_kv_codec codec)
{
	return d->act == NX_BF16 && codec == NX_KV_BF16 && (a->dim == 64 || a->dim == 128) &&
	       a->group <= 32 && aligned(a->base) && aligned(a->q) && aligned(a->out) &&
	       aligned(a->scratch) && aligned(a->segments) && a->q_stride % 2 == 0 &&
	       a->row_bytes % 16 == 0 && a->v_offset % 16 == 0 && a->scratch_row_bytes % 16 == 0 &&
	       a->scratch_v_offset % 16 == 0;
}

/* Tiles, at most: each segment may have one that is not full. */
static int64_t tiles_of(const struct attn_args *a, int32_t tile_rows)
{
	if (a->n_rows == a->n_segments)
		return a->n_segments;
	if (a->n_segments == 1)
		return attn_div_up(a->n_rows, tile_rows);
	return a->n_rows / tile_rows + a->n_segments;
}

/* CTAs that share a tile and head: as many as run at once and get a step for each group; 0: not so.
 * Each gets as many, however long its keys are: where items are many and may differ much, runs of equal length over
 * all of them end sooner. */
template <class S, bool DRAFTED>
static int32_t spread_parts(const struct cuda_dev *d, const struct attn_args *a, int64_t items)
{
	const int *most = clusters<S, DRAFTED>::most;
	int32_t parts = 1;
	for (int i = 2; i <= SPREAD_MOST; i++)
		if (items <= most[i] && a->max_keys > S::KEYS * S::G * (i - 1))
			parts = i;
	bool lone = a->n_segments == 1 && items * parts * 2 >= d->n_sms;
	int32_t even = parts > 1 ? 4096 * parts : 2048 / S::AT_ONCE;
	return a->n_rows > ATTN_SPLIT_ROWS || a->n_chunks == 1 || lone || a->max_keys <= even
	               ? parts
	               : 0;
}

/* Without a grid of chunks, in clusters or in runs (R). */
template <class S, class R, bool DRAFTED>
static int spread(struct cuda_dev *d, cudaStream_t s, struct attn_args *a, struct nx_err *err)
{
	int32_t tile_rows = S::ROWS / a->group;
	int64_t items = tiles_of(a, tile_rows) * a->n_kv_heads;
	struct parts parts = {spread_parts<S, DRAFTED>(d, a, items), 0};
	if (!parts.n) {
		int64_t units = items * a->n_chunks, slots = d->n_sms * R::AT_ONCE;
		a->split = true;
		int rc = cu_launch(err, "attention_runs", CU_PDL, run_kernel<R, DRAFTED>,
		                   dim3((unsigned)(units < slots ? units : slots)),
		                   dim3(R::THREADS), beyond<R>::GATHER, s, *a, tile_rows);
		return rc ? rc : attention_merge(d, s, a, err);
	}
	if (parts.n > 1)
		parts.mul = 0xffffffffu / (uint32_t)parts.n + 1;
	struct cluster_launch l;
	cluster_config<S>(&l, s, (unsigned)items, (unsigned)parts.n);
	cudaError_t e = cudaLaunchKernelEx(&l.c, spread_kernel<S, DRAFTED>, *a, tile_rows, parts);
	return e == cudaSuccess ? 0 : cu_fail(err, e, "attention_spread");
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

/* So that x * mul >> shift is x / divisor, for what is divided. */
static void set_divisors(struct attn_args *a)
{
	uint32_t block = (uint32_t)a->block_size, shift = 0;
	a->group_mul = 65536 / (uint32_t)a->group + 1;
	while (2u << shift < block)
		shift++;
	a->block_shift = shift;
	a->block_mul = block > 1 ? (uint32_t)(((1ull << (32 + shift)) + block - 1) / block) : 0;
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
