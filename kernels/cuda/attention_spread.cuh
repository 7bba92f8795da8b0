/* SPDX-License-Identifier: Apache-2.0
 *
 * attention_spread.cuh: attention_decode.cu: a tile and kv head for each cluster of CTAs, which share out its keys and
 * merge what they have through shared memory. Never in invariant mode: no grid of chunks is kept.
 *
 * Drafted rows. Before the keys of the table, a tile's rows go through the sequence's scratch rows together, each
 * seeing its own ancestors: a bit for each row and scratch row.
 */
#ifndef NX_CUDA_ATTENTION_SPREAD_CUH
#define NX_CUDA_ATTENTION_SPREAD_CUH

#include "cuda/attention_codes_step.cuh"
#include "cuda/attention_gather.cuh"

/* Where this lane's key lies in its store, in units of 16 bytes, or ABSENT. Of 32 keys: those of step t, and where it
 * has fewer, of the group's next. */
#define ABSENT 0xffffffffu
template <class S, bool DRAFTED>
static __device__ __forceinline__ uint32_t locate_keys(const struct attn_args &a,
                                                       const struct share &g, const struct sight *w,
                                                       int32_t t, int32_t seq, int32_t lane)
{
	/* No branches: the warp stays whole. What is not wanted reads the table's first entry. */
	t += lane / S::KEYS * S::G;
	int32_t key = (t - g.scratch_steps) * S::KEYS + lane % S::KEYS;
	bool left = t < g.end, there = left && key >= 0 && key < g.n_table;
	uint32_t slot = there ? (uint32_t)key : 0, block = by_block(a, slot);
	int32_t row = a.table[(int64_t)seq * a.table_stride + block];
	there = there && row >= 0;
	row += (int32_t)(slot - block * (uint32_t)a.block_size);
	uint32_t at = (uint32_t)row * (uint32_t)(a.row_bytes / 16);
	if (DRAFTED) {
		bool scratch = left && t < g.scratch_steps;
		int32_t id = scratch ? t * S::KEYS + lane % S::KEYS : 0;
		uint32_t seen = w->any[threadIdx.x / 32][id / 32] >> (id % 32) & 1;
		there = scratch ? seen : there;
		at = scratch ? (uint32_t)(seq * a.scratch_cap + id) *
		                       (uint32_t)(a.scratch_row_bytes / 16)
		             : at;
	}
	return there ? at : ABSENT;
}

/* This lane's 16 bytes of the first row of a store; of codes, its groups: lanes below 16 those of K. */
struct store {
	const uint8_t *k, *v, *groups;
};

template <class S>
static __device__ __forceinline__ struct store open_store(const struct attn_args &a,
                                                          const uint8_t *base, int64_t v_offset,
                                                          int32_t kv_head, int32_t lane)
{
	struct store s;
	s.k = base + (int64_t)kv_head * S::ROW_BYTES + lane % S::PIECES * 16;
	s.v = s.k + v_offset;
	s.groups = base;
	if constexpr (S::CODED)
		s.groups += a.coded.n_kv_heads * S::ROW_BYTES + kv_head * 4 +
		            (lane < 16 ? 0 : v_offset);
	return s;
}

/* Starts the copies of a step into a stage: of the group's MT warps, each its share. Lanes from `from` on know the
 * places of its keys. */
template <class S>
static __device__ __forceinline__ void fetch(struct store of, uint32_t to, uint32_t where,
                                             int32_t from, int32_t part, int32_t lane)
{
	const int rows_at_once = 32 / S::PIECES, share = S::KEYS / S::MT;
	int32_t piece = lane % S::PIECES, first = lane / S::PIECES;
	to += (uint32_t)((part * share + first) * S::ROW_BYTES + (piece ^ first) * 16);
	from += part * share + first;
#pragma unroll
	for (int i = 0; i < share; i += rows_at_once) {
		uint32_t at = __shfl_sync(~0u, where, from + i);
		bool there = at != ABSENT;
		uint64_t offset = (uint64_t)(there ? at : 0) * 16;
		uint32_t into = (to ^ (uint32_t)((i & 7) * 16)) + (uint32_t)(i * S::ROW_BYTES);
		fetch16(into, of.k + offset, there);
		fetch16(into + S::KEYS * S::ROW_BYTES, of.v + offset, there);
	}
}

/* Which keys of step t a row of the tile sees. */
template <class S, bool DRAFTED>
static __device__ __forceinline__ uint32_t sees(const struct share &g, const struct sight *w,
                                                int32_t t, int32_t row, int32_t n_table)
{
	if (DRAFTED && t < g.scratch_steps) {
		int32_t id = t * S::KEYS;
		return w->seen[row][id / 32] >> (id % 32) & 0xffffffffu >> (32 - S::KEYS);
	}
	return first_keys<S::KEYS>(n_table - (t - g.scratch_steps) * S::KEYS);
}

/* Sums of one group over a CTA's share. Places of keys are found ahead, so that no copy waits for the table. */
template <class S, bool DRAFTED>
static __device__ __forceinline__ void stream_share(
	const struct attn_args &a, const struct share &g, const struct sight *w, int32_t group,
	const typename S::queries &q, typename S::totals &o, uint32_t ring, int32_t seq,
	int32_t kv_head, const int32_t (&my_row)[S::SEATS], int32_t n_rows)
{
	const uint32_t ring_end = ring + S::STAGES * S::STAGE;
	const int32_t found = 32 / S::KEYS * S::G; /* steps from one search to the next */
	int32_t lane = (int32_t)threadIdx.x % 32, part = (int32_t)threadIdx.x / 32 % S::MT;
	int32_t at = g.first + group, in = at, far = at, from = 0;
	uint32_t where = ABSENT, ahead = locate_keys<S, DRAFTED>(a, g, w, far, seq, lane);
	uint32_t load = ring, use = ring;
	struct store table = open_store<S>(a, a.base, a.v_offset, kv_head, lane);
	struct store scratch = open_store<S>(a, a.scratch, a.scratch_v_offset, kv_head, lane);
	/* Rows that are not there see what the first sees: nobody asks. */
	int32_t row[S::SEATS], n_table[S::SEATS];
#pragma unroll
	for (int i = 0; i < S::SEATS; i++) {
		row[i] = my_row[i] < n_rows ? my_row[i] : 0;
		n_table[i] = w->n_table[row[i]];
	}
	/* The first turns only load. One loop for both: short work is as fast as its instructions come in. */
#pragma unroll 1
	for (int turn = 1 - S::STAGES; turn < 0 || at < g.end; turn++) {
		if (turn >= 0) {
			asm volatile("cp.async.wait_group %0;" ::"n"(S::STAGES - 2) : "memory");
			group_sync<S::MT>(group);
		}
		if (from == 0) {
			far += found;
			where = ahead;
			ahead = locate_keys<S, DRAFTED>(a, g, w, far, seq, lane);
		}
		if (in < g.end) {
			struct store of = DRAFTED && in < g.scratch_steps ? scratch : table;
			if constexpr (S::CODED)
				fetch_codes<S>(of.k, of.v, of.groups, load, where, from, ABSENT,
				               lane);
			else
				fetch<S>(of, load, where, from, part, lane);
		}
		asm volatile("cp.async.commit_group;" ::: "memory");
		in += S::G;
		load = load + S::STAGE == ring_end ? ring : load + S::STAGE;
		from = (from + S::KEYS) % 32;
		if (turn < 0)
			continue;
		uint32_t seen[S::SEATS];
#pragma unroll
		for (int i = 0; i < S::SEATS; i++)
			seen[i] = sees<S, DRAFTED>(g, w, at, row[i], n_table[i]);
		if constexpr (S::CODED)
			compute_codes<S>(q, o, use, seen, lane);
		else
			compute<S::D, S::N>(q, o, use, a.scale2, seen[0], seen[1], lane);
		use = use + S::STAGE == ring_end ? ring : use + S::STAGE;
		at += S::G;
	}
	asm volatile("cp.async.wait_group 0;" ::: "memory");
}

/* q rows of the tile: read, and later put into shared memory, 16 bytes at a time. */
template <class S> struct q_pieces {
	static const int ALL = S::ROWS * S::Q_PIECES, N = (ALL + S::THREADS - 1) / S::THREADS;
	uint4 x[N];
};

template <class S>
static __device__ __forceinline__ void read_q(const struct attn_args &a, const struct place &p,
                                              struct q_pieces<S> *q)
{
#pragma unroll
	for (int i = 0; i < q_pieces<S>::N; i++) {
		int32_t at = (int32_t)threadIdx.x + i * S::THREADS, q_row = at / S::Q_PIECES;
		int32_t row = by_group(a, q_row);
		q->x[i] = make_uint4(0, 0, 0, 0);
		if (row < p.n_rows)
			q->x[i] = *(const uint4 *)((const bf16 *)a.q + (p.row0 + row) * a.q_stride +
			                           (p.kv_head * a.group + q_row - row * a.group) *
			                                   S::D +
			                           at % S::Q_PIECES * 8);
	}
}

template <class S>
static __device__ __forceinline__ void put_q(uint8_t *to, const struct q_pieces<S> &q)
{
#pragma unroll
	for (int i = 0; i < q_pieces<S>::N; i++) {
		int32_t at = (int32_t)threadIdx.x + i * S::THREADS, q_row = at / S::Q_PIECES;
		if (at < q.ALL)
			*(uint4 *)(to + q_row * S::Q_BYTES +
			           (at % S::Q_PIECES ^ (q_row & 7)) * 16) = q.x[i];
	}
}

/* Brings the sequence's table near, while its length is awaited. */
static __device__ __forceinline__ void touch_table(const struct attn_args &a, int32_t seq)
{
	int32_t i = (int32_t)threadIdx.x * 32;
	int32_t n = min((int32_t)by_block(a, (uint32_t)a.max_keys - 1) + 1, a.table_stride);
	if (i < n)
		asm volatile("prefetch.global.L1 [%0];" ::"l"(a.table +
		                                              (int64_t)seq * a.table_stride + i)
		             : "memory");
}

/* A thread's place in the products: its warp's group, the first q row of its tile, and the rows of its q rows. */
template <class S> struct seat {
	int32_t group, q_row, row[S::SEATS];
};

template <class S>
static __device__ __forceinline__ struct seat<S> take_seat(const struct attn_args &a) {
	int32_t lane = (int32_t)threadIdx.x % 32, warp = (int32_t)threadIdx.x / 32;
	struct seat<S> s;
	s.group = warp / S::MT;
	s.q_row = warp % S::MT * 16;
#pragma unroll
	for (int i = 0; i < S::SEATS; i++)
		s.row[i] = by_group(a, S::seat(lane, warp, i));
	return s;
}

/* Puts the groups' sums of a tile over a share into shared memory; choose() says what share of all steps. */
template <class S, bool DRAFTED, typename Choose>
static __device__ __forceinline__ void sum_tile(const struct attn_args &a, const struct place &p,
                                                const struct seat<S> &seat, struct sight *w,
                                                uint8_t *smem, Choose choose)
{
	int32_t lane = (int32_t)threadIdx.x % 32;
	struct q_pieces<S> pieces;
	read_q<S>(a, p, &pieces);
	touch_table(a, p.seq);
	if (DRAFTED)
		look_drafted<S::THREADS / 32, S::ROWS / (S::THREADS / 32)>(a, p, w);
	else
		look(a, p, w);
	put_q<S>(smem + beyond<S>::Q, pieces);
	__syncthreads();
	struct share g = choose(all_steps<S, DRAFTED>(a, w, p.n_rows));
	typename S::totals o;
	typename S::queries q;
	uint32_t at = smem_at(smem) + beyond<S>::Q;
	if constexpr (S::CODED) {
		load_query<S>(a, at, q, lane);
	} else {
		int32_t row = seat.q_row + lane % 16;
		at += (uint32_t)(row * S::Q_BYTES + (lane / 16 ^ (row & 7)) * 16);
#pragma unroll
		for (int kk = 0; kk < S::D / 16; kk++)
			load_matrices(q[kk], at ^ (uint32_t)(kk * 32));
	}
	clear_sums(o);
	if (g.first < g.end)
		stream_share<S, DRAFTED>(a, g, w, seat.group, q, o,
		                         smem_at(smem) +
		                                 (uint32_t)(seat.group * S::STAGES * S::STAGE),
		                         p.seq, p.kv_head, seat.row, p.n_rows);
	if constexpr (S::CODED)
		store_code_sums<S>(o, (float *)smem, seat.group, p.n_rows * a.group);
	else
		store_sums<S>(o, (float *)smem, seat.group, p.n_rows * a.group);
}

template <class S, bool DRAFTED>
static __global__ void __launch_bounds__(S::THREADS, S::AT_ONCE)
	spread_kernel(const __grid_constant__ struct attn_args a, int32_t tile_rows,
                      struct parts parts)
{
	extern __shared__ __align__(1024) uint8_t smem[]; /* steps are addressed by xor */
	__shared__ struct sight w;
	__shared__ uint64_t gathered;
	int32_t item = by_parts(parts, (int32_t)blockIdx.x);
	int32_t part = (int32_t)blockIdx.x - item * parts.n;
	struct seat<S> seat = take_seat<S>(a);
	struct place p;
	if (parts.n > 1)
		gather_begin(&gathered);
	pdl_trigger();
	pdl_wait();
	if (!find_item(a, tile_rows, item, &p))
		return;
	if (parts.n > 1)
		gather_expect(&gathered, p.n_rows * a.group, part, parts, S::D * 4 + 8);
	sum_tile<S, DRAFTED>(a, p, seat, &w, smem,
	                     [&](struct share all) { return share_of_part(all, part, parts); });
	finish<S>(a, p, smem, &gathered, part, parts);
}

/* ---- runs of chunks, where lengths may differ much */

/* What comes out of the groups' sums over chunks [p.chunk, p.chunk + n): rows, or partials. */
template <class S>
static __device__ __forceinline__ void finish_run(const struct attn_args &a, const struct place &p,
                                                  const uint8_t *smem, int32_t n)
{
	int32_t tid = (int32_t)threadIdx.x, row = tid / S::SHARERS, lane = tid % S::SHARERS;
	if (row >= p.n_rows * a.group)
		return;
	float max, sum;
	float4 out[S::FOURS];
	sum_groups<S>((const float *)smem, &max, &sum, out);
	int64_t to = out_at(a, p, row);
	float2 *head = a.part_head + to * a.n_chunks;
	float *part = a.part + (to * a.n_chunks + p.chunk) * S::D, by = over(sum);
	bool whole = n == p.n_chunks;
	if (whole && lane == 0)
		head[0] = ATTN_DONE;
	if (!whole && lane == 0)
		head[p.chunk] = make_float2(max, sum);
	/* The rest of the run says nothing. */
	for (int32_t c = 1 + lane; !whole && c < n; c += S::SHARERS)
		head[p.chunk + c] = make_float2(-INFINITY, 0);
#pragma unroll
	for (int j = 0; j < S::FOURS; j++) {
		int32_t column = (j * S::SHARERS + lane) * 4;
		if (whole)
			store_four(a, to, S::D, column, out[j], by);
		else
			*(float4 *)(part + column) = out[j];
	}
}

/* All units are dealt out in runs of one length; where they fit the tiles there is nothing to merge. */
template <class S, bool DRAFTED>
static __global__ void __launch_bounds__(S::THREADS, S::AT_ONCE)
	run_kernel(const __grid_constant__ struct attn_args a, int32_t tile_rows)
{
	extern __shared__ __align__(1024) uint8_t smem[];
	__shared__ struct sight w;
	struct seat<S> seat = take_seat<S>(a);
	struct place p;
	pdl_trigger();
	pdl_wait();
	int32_t all = find_unit(a, tile_rows, -1, &p);
	int32_t run = (all + (int32_t)gridDim.x - 1) / (int32_t)gridDim.x;
	/* Whole heads in turns, where that is nearly as even: then all heads of a sequence read the same rows at about the
	 * same time, which lie together. */
	int32_t heads = (run + a.n_chunks - 1) / a.n_chunks, piece = run;
	if (heads * a.n_chunks * 10 <= run * 11) {
		piece = a.n_chunks;
		run = heads * piece;
	}
#pragma unroll 1
	for (int32_t done = 0; done < run; done += piece) {
		int32_t u = done * (int32_t)gridDim.x + (int32_t)blockIdx.x * piece;
		int32_t end = min(u + piece, all);
#pragma unroll 1
		while (u < end) {
			find_unit(a, tile_rows, u, &p);
			int32_t n = min(end - u, p.n_chunks - p.chunk);
			sum_tile<S, DRAFTED>(a, p, seat, &w, smem, [&](struct share all_of) {
				return share_of_chunks<S>(a, all_of, p.chunk, n, p.n_chunks);
			});
			finish_run<S>(a, p, smem, n);
			u += n;
			__syncthreads();
		}
	}
}

#endif
