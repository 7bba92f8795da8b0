/* SPDX-License-Identifier: Apache-2.0
 *
 * attention_spread.cuh: attention_decode.cu: a tile and kv head for each cluster of CTAs, which share out its keys and
 * merge what they have through shared memory. Never in invariant mode: no grid of chunks is kept.
 *
 * Drafted rows. Behind the keys of the table, a tile's rows go through the sequence's scratch rows together, each
 * seeing its own ancestors: a bit for each row and scratch row.
 */
#ifndef NX_CUDA_ATTENTION_SPREAD_CUH
#define NX_CUDA_ATTENTION_SPREAD_CUH

#include "cuda/attention_parts.cuh"

#ifndef STAMP
#define STAMP(i)
#endif

#define SPREAD_MOST 16     /* CTAs of a cluster */
#define SPREAD_SCRATCH 256 /* scratch rows of a sequence, at most */

/* What the rows of a tile see, in shared memory. */
struct sight {
	int32_t n_table[32], n_anc[32];
	uint32_t seen[33][SPREAD_SCRATCH /
	                  32]; /* scratch rows, a bit each; the last: that any row sees */
};
#define ANY 32

/* The steps of a CTA: its groups take them in turns. */
struct share {
	int32_t first, end;
	int32_t n_table, table_steps; /* keys in the table, and the steps that hold them */
};

/* Where this lane's key lies, of 32: those of step t, and where it has fewer, of the group's next. */
template <class S, bool DRAFTED>
static __device__ __forceinline__ int32_t locate_keys(const struct attn_args &a,
                                                      const struct share &g, const struct sight *w,
                                                      int32_t t, int32_t seq, int32_t lane)
{
	/* No branches: the warp stays whole. What is not wanted reads the table's first entry. */
	t += lane / S::KEYS * S::G;
	int32_t key = t * S::KEYS + lane % S::KEYS;
	bool left = t < g.end, there = left && key < g.n_table;
	uint32_t slot = there ? (uint32_t)key : 0, block = slot / (uint32_t)a.block_size;
	int32_t row = a.table[(int64_t)seq * a.table_stride + block];
	row = row < 0 ? NOWHERE : row + (int32_t)(slot - block * (uint32_t)a.block_size);
	row = there ? row : NOWHERE;
	if (DRAFTED) {
		int32_t id = (t - g.table_steps) * S::KEYS + lane % S::KEYS;
		bool scratch = left && id >= 0;
		uint32_t word = w->seen[ANY][scratch ? id / 32 : 0];
		if (scratch)
			row = word >> (id % 32) & 1 ? ~(seq * a.scratch_cap + id) : NOWHERE;
	}
	return row;
}

/* Which keys of step t a row of the tile sees. */
template <class S, bool DRAFTED>
static __device__ __forceinline__ uint32_t sees(const struct share &g, const struct sight *w,
                                                int32_t t, int32_t row, int32_t n_table)
{
	if (DRAFTED && t >= g.table_steps) {
		int32_t id = (t - g.table_steps) * S::KEYS;
		return w->seen[row][id / 32] >> (id % 32) & 0xffffffffu >> (32 - S::KEYS);
	}
	return first_keys<S::KEYS>(n_table - t * S::KEYS);
}

/* Sums of one group over a CTA's share. Places of keys are found ahead, so that no copy waits for the table. */
template <class S, bool DRAFTED>
static __device__ __forceinline__ void stream_share(
	const struct attn_args &a, const struct share &g, const struct sight *w, int32_t group,
	const uint32_t (&q)[S::D / 16][4], struct sums<S::D> &o, uint32_t ring, int32_t seq,
	int64_t head_bytes, const int32_t (&my_row)[2], int32_t n_rows)
{
	const uint32_t ring_end = ring + S::STAGES * S::STAGE;
	const int32_t found = 32 / S::KEYS * S::G; /* steps from one search to the next */
	int32_t lane = (int32_t)threadIdx.x % 32, part = (int32_t)threadIdx.x / 32 % S::MT;
	int32_t at = g.first + group, in = at, far = at + found, from = 0;
	int32_t where = locate_keys<S, DRAFTED>(a, g, w, at, seq, lane);
	int32_t ahead = locate_keys<S, DRAFTED>(a, g, w, far, seq, lane);
	uint32_t load = ring, use = ring;
	/* Rows that are not there see what the first sees: nobody asks. */
	int32_t row0 = my_row[0] < n_rows ? my_row[0] : 0;
	int32_t row1 = my_row[1] < n_rows ? my_row[1] : 0;
	int32_t n_table0 = w->n_table[row0], n_table1 = w->n_table[row1];
	auto load_next = [&] {
		if (in < g.end)
			stage<S, DRAFTED>(a, load, where, from, head_bytes, part, lane);
		asm volatile("cp.async.commit_group;" ::: "memory");
		in += S::G;
		load = load + S::STAGE == ring_end ? ring : load + S::STAGE;
		from = (from + S::KEYS) % 32;
		if (from == 0) {
			far += found;
			where = ahead;
			ahead = locate_keys<S, DRAFTED>(a, g, w, far, seq, lane);
		}
	};
#pragma unroll 1
	for (int i = 0; i < S::STAGES - 1; i++)
		load_next();
#pragma unroll 1
	while (at < g.end) {
		asm volatile("cp.async.wait_group %0;" ::"n"(S::STAGES - 2) : "memory");
		group_sync<S::MT>(group);
		STAMP(5);
		load_next();
		compute<S::D, S::N>(q, o, use, a.scale2, sees<S, DRAFTED>(g, w, at, row0, n_table0),
		                    sees<S, DRAFTED>(g, w, at, row1, n_table1), lane);
		use = use + S::STAGE == ring_end ? ring : use + S::STAGE;
		at += S::G;
	}
	asm volatile("cp.async.wait_group 0;" ::: "memory");
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

/* Which scratch rows the rows see; w->n_anc is known. first: this thread's first entry of their lists. */
static __device__ __forceinline__ void look_scratch(const struct attn_args &a,
                                                    const struct place &p, struct sight *w,
                                                    int32_t first)
{
	int32_t tid = (int32_t)threadIdx.x, n_all = p.n_rows * a.anc_stride;
	for (int32_t i = tid; i < 33 * SPREAD_SCRATCH / 32; i += (int32_t)blockDim.x)
		w->seen[i / (SPREAD_SCRATCH / 32)][i % (SPREAD_SCRATCH / 32)] = 0;
	__syncthreads();
	for (int32_t i = tid; i < n_all; i += (int32_t)blockDim.x) {
		int32_t r = i / a.anc_stride;
		int32_t id = i == tid ? first : a.anc[(int64_t)p.row0 * a.anc_stride + i];
		if (i - r * a.anc_stride < w->n_anc[r] && (uint32_t)id < (uint32_t)a.scratch_cap) {
			atomicOr(&w->seen[r][id / 32], 1u << (id % 32));
			atomicOr(&w->seen[ANY][id / 32], 1u << (id % 32));
		}
	}
}

/* What the rows see. */
template <bool DRAFTED>
static __device__ __forceinline__ void look(const struct attn_args &a, const struct place &p,
                                            struct sight *w)
{
	int32_t tid = (int32_t)threadIdx.x, first = 0;
	if (DRAFTED && tid < p.n_rows * a.anc_stride)
		first = a.anc[(int64_t)p.row0 * a.anc_stride + tid];
	if (tid < p.n_rows) {
		struct attn_view v = attn_view_of(a, p.row0 + tid, p.seq);
		w->n_table[tid] = v.n_table;
		w->n_anc[tid] = v.keys - v.n_table;
	}
	if constexpr (DRAFTED)
		look_scratch(a, p, w, first);
}

/* The share of CTA `part` of 2^log_parts. */
template <class S, bool DRAFTED>
static __device__ __forceinline__ struct share share_of(const struct sight *w, int32_t n_rows,
                                                        int32_t part, int32_t log_parts)
{
	struct share g;
	g.n_table = w->n_table[0];
#pragma unroll 1
	for (int32_t r = 1; r < n_rows; r++)
		g.n_table = max(g.n_table, w->n_table[r]);
	g.table_steps = (g.n_table + S::KEYS - 1) / S::KEYS;
	int32_t steps = g.table_steps;
	if (DRAFTED) {
		int32_t scratch = 0;
#pragma unroll
		for (int i = 0; i < SPREAD_SCRATCH / 32; i++)
			if (w->seen[ANY][i])
				scratch = i * 32 + 32 - __clz((int)w->seen[ANY][i]);
		steps += (scratch + S::KEYS - 1) / S::KEYS;
	}
	int32_t each = steps >> log_parts, rest = steps - (each << log_parts);
	g.first = part * each + min(part, rest);
	g.end = g.first + each + (part < rest);
	return g;
}

/* Brings the groups' sums of this thread's q row together: the row's maximum, its sum, and columns. */
template <class S>
static __device__ __forceinline__ void sum_groups(const float *area, float *max, float *sum,
                                                  float4 (&out)[S::FOURS])
{
	int32_t tid = (int32_t)threadIdx.x, row = tid / S::SHARERS;
	const float2 *heads = (const float2 *)(area + S::G * S::ROWS * S::OUT_STRIDE) + row;
	const float *from = area + row * S::OUT_STRIDE + tid % S::SHARERS * 4;
	float2 head[S::G];
	float top = -INFINITY, all = 0;
#pragma unroll
	for (int g = 0; g < S::G; g++) {
		head[g] = heads[g * S::ROWS];
		top = fmaxf(top, head[g].x);
	}
#pragma unroll
	for (int j = 0; j < S::FOURS; j++)
		out[j] = make_float4(0, 0, 0, 0);
#pragma unroll
	for (int g = 0; g < S::G; g++) {
		float by = head[g].x == -INFINITY ? 0 : attn_exp2(head[g].x - top);
		all = fmaf(head[g].y, by, all);
#pragma unroll
		for (int j = 0; j < S::FOURS; j++) {
			float4 x = *(const float4 *)(from + g * S::ROWS * S::OUT_STRIDE +
			                             j * S::SHARERS * 4);
			out[j].x = fmaf(x.x, by, out[j].x);
			out[j].y = fmaf(x.y, by, out[j].y);
			out[j].z = fmaf(x.z, by, out[j].z);
			out[j].w = fmaf(x.w, by, out[j].w);
		}
	}
	*max = top;
	*sum = all;
}

/* Four columns of row and head `at`, from `column` on. */
static __device__ __forceinline__ void store_four(const struct attn_args &a, int64_t at, int dim,
                                                  int32_t column, float4 x, float sum)
{
	uint2 y = {pack(attn_finish(x.x, sum), attn_finish(x.y, sum)),
	           pack(attn_finish(x.z, sum), attn_finish(x.w, sum))};
	*(uint2 *)((bf16 *)a.out + at * dim + column) = y;
}

/* Row and head of q row i of a tile. */
static __device__ __forceinline__ int64_t out_at(const struct attn_args &a, const struct place &p,
                                                 int32_t i)
{
	int32_t row = i / a.group;
	return (int64_t)(p.row0 + row) * a.n_heads + p.kv_head * a.group + (i - row * a.group);
}

static __device__ __forceinline__ uint32_t of_cta(uint32_t at, int32_t cta)
{
	uint32_t there;
	asm("mapa.shared::cluster.u32 %0, %1, %2;" : "=r"(there) : "r"(at), "r"(cta));
	return there;
}

/* Merges the CTAs' sums of the q rows part, part + parts, ...: a warp a row, 4 columns a lane. */
template <class S>
static __device__ __forceinline__ void merge_ctas(const struct attn_args &a, const struct place &p,
                                                  uint32_t exchange, int32_t part, int32_t parts)
{
	int32_t lane = (int32_t)threadIdx.x % 32, warp = (int32_t)threadIdx.x / 32;
	int32_t n = p.n_rows * a.group;
	uint32_t heads = exchange + S::ROWS * S::OUT_STRIDE * 4;
#pragma unroll 1
	for (int32_t i = part + parts * warp; i < n; i += parts * (S::THREADS / 32)) {
		float max = -INFINITY, sum = 0;
		float4 x[SPREAD_MOST], out = make_float4(0, 0, 0, 0);
		if (lane < parts)
			asm volatile("ld.shared::cluster.v2.f32 {%0, %1}, [%2];"
			             : "=f"(max), "=f"(sum)
			             : "r"(of_cta(heads + (uint32_t)i * 8, lane)));
		uint32_t from = exchange + (uint32_t)(i * S::OUT_STRIDE + lane * 4 % S::D) * 4;
#pragma unroll
		for (int c = 0; c < SPREAD_MOST; c++)
			if (c < parts)
				asm volatile("ld.shared::cluster.v4.f32 {%0, %1, %2, %3}, [%4];"
				             : "=f"(x[c].x), "=f"(x[c].y), "=f"(x[c].z),
				               "=f"(x[c].w)
				             : "r"(of_cta(from, c)));
		float top = max;
#pragma unroll
		for (int k = 1; k < SPREAD_MOST; k *= 2)
			top = fmaxf(top, __shfl_xor_sync(~0u, top, k));
		float by = max == -INFINITY ? 0 : attn_exp2(max - top);
		sum *= by;
#pragma unroll
		for (int k = 1; k < SPREAD_MOST; k *= 2)
			sum += __shfl_xor_sync(~0u, sum, k);
		sum = __shfl_sync(~0u, sum, 0); /* lanes from 16 on have none */
#pragma unroll
		for (int c = 0; c < SPREAD_MOST; c++) {
			float its = __shfl_sync(~0u, by, c);
			if (c < parts) {
				out.x = fmaf(x[c].x, its, out.x);
				out.y = fmaf(x[c].y, its, out.y);
				out.z = fmaf(x[c].z, its, out.z);
				out.w = fmaf(x[c].w, its, out.w);
			}
		}
		if (lane * 4 < S::D)
			store_four(a, out_at(a, p, i), S::D, lane * 4, out, sum);
	}
}

/* What comes out of the groups' sums: the rows, or for several CTAs what goes into the exchange. */
template <class S>
static __device__ __forceinline__ void finish(const struct attn_args &a, const struct place &p,
                                              uint8_t *smem, int32_t part, int32_t parts)
{
	int32_t tid = (int32_t)threadIdx.x, row = tid / S::SHARERS, lane = tid % S::SHARERS;
	float *mine = (float *)(smem + S::EXCHANGE);
	if (row < p.n_rows * a.group) {
		float max, sum;
		float4 out[S::FOURS];
		sum_groups<S>((const float *)smem, &max, &sum, out);
		if (parts > 1 && lane == 0)
			((float2 *)(mine + S::ROWS * S::OUT_STRIDE))[row] = make_float2(max, sum);
		int64_t at = parts == 1 ? out_at(a, p, row) : 0;
#pragma unroll
		for (int j = 0; j < S::FOURS; j++) {
			int32_t column = (j * S::SHARERS + lane) * 4;
			if (parts == 1)
				store_four(a, at, S::D, column, out[j], sum);
			else
				*(float4 *)(mine + row * S::OUT_STRIDE + column) = out[j];
		}
	}
	if (parts == 1)
		return;
	asm volatile("barrier.cluster.arrive.release;\n\tbarrier.cluster.wait.acquire;" ::
	                     : "memory");
	STAMP(8);
	merge_ctas<S>(a, p, smem_at(mine), part, parts);
	/* Nobody leaves while others read. */
	asm volatile("barrier.cluster.arrive.relaxed;\n\tbarrier.cluster.wait;" ::: "memory");
}

template <class S, bool DRAFTED>
static __global__ void __launch_bounds__(S::THREADS, S::AT_ONCE)
	spread_kernel(const __grid_constant__ struct attn_args a, int32_t tile_rows,
                      int32_t log_parts)
{
	extern __shared__ __align__(1024) uint8_t smem[]; /* steps are addressed by xor */
	__shared__ struct sight w;
	int32_t lane = (int32_t)threadIdx.x % 32, warp = (int32_t)threadIdx.x / 32;
	int32_t group = warp / S::MT, parts = 1 << log_parts,
		item = (int32_t)blockIdx.x >> log_parts, part = (int32_t)blockIdx.x & (parts - 1);
	struct place p;
	int32_t q_row[2] = {warp % S::MT * 16 + lane / 4, warp % S::MT * 16 + lane / 4 + 8};
	int32_t my_row[2] = {q_row[0] / a.group, q_row[1] / a.group};
	STAMP(0);
	pdl_trigger();
	pdl_wait();
	STAMP(1);
	if (!find_item(a, tile_rows, item, &p))
		return;
	uint32_t q[S::D / 16][4];
	load_q<S::D>(a, p, q_row, my_row, q, lane);
	STAMP(2);
	look<DRAFTED>(a, p, &w);
	__syncthreads();
	STAMP(3);
	struct share g = share_of<S, DRAFTED>(&w, p.n_rows, part, log_parts);
	struct sums<S::D> o;
	o.max[0] = o.max[1] = -INFINITY;
	o.sum[0] = o.sum[1] = 0;
#pragma unroll
	for (int i = 0; i < S::D / 8; i++)
		o.out[i][0] = o.out[i][1] = o.out[i][2] = o.out[i][3] = 0;
	STAMP(4);
	if (g.first < g.end)
		stream_share<S, DRAFTED>(a, g, &w, group, q, o,
		                         smem_at(smem) + (uint32_t)(group * S::STAGES * S::STAGE),
		                         p.seq, (int64_t)p.kv_head * S::ROW_BYTES, my_row,
		                         p.n_rows);
	STAMP(6);
	store_sums<S>(o, (float *)smem, group);
	STAMP(7);
	finish<S>(a, p, smem, part, parts);
	STAMP(9);
}

#endif
