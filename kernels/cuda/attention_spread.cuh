/* SPDX-License-Identifier: Apache-2.0
 *
 * attention_spread.cuh: attention_decode.cu: a tile and kv head for each cluster of CTAs, which share out its keys and
 * merge what they have through shared memory. Never in invariant mode: the grid of chunks is not kept.
 *
 * Drafted rows. Behind the keys of the table, a tile's rows go through the sequence's scratch rows together, each
 * seeing its own ancestors: a bit for each row and scratch row.
 */
#ifndef NX_CUDA_ATTENTION_SPREAD_CUH
#define NX_CUDA_ATTENTION_SPREAD_CUH

#include "cuda/attention_parts.cuh"

#define SPREAD_MOST 16     /* CTAs of a cluster */
#define SPREAD_SCRATCH 256 /* scratch rows of a sequence, at most */

/* What the rows of a tile see, in shared memory. */
struct sight {
	int32_t n_table[32], n_anc[32];
	uint32_t seen[32][SPREAD_SCRATCH / 32], any[SPREAD_SCRATCH / 32];
};

/* The steps of a CTA: its groups take them in turns. */
struct share {
	int32_t first, end;
	int32_t n_table, table_steps; /* keys in the table, and the steps that hold them */
};

/* Where key lane % STEP lies: of step t for the lower lanes, of the group's next for the others. */
template <bool DRAFTED>
static __device__ __forceinline__ int32_t locate_two(const struct attn_args &a,
                                                     const struct share &g, const struct sight *w,
                                                     int32_t t, int32_t seq, int32_t lane)
{
	/* No branches: the warp stays whole. What is not wanted reads the table's first entry. */
	t += lane / STEP * GROUPS;
	int32_t key = t * STEP + lane % STEP;
	bool left = t < g.end, there = left && key < g.n_table;
	uint32_t slot = there ? (uint32_t)key : 0, block = slot / (uint32_t)a.block_size;
	int32_t row = a.table[(int64_t)seq * a.table_stride + block];
	row = row < 0 ? NOWHERE : row + (int32_t)(slot - block * (uint32_t)a.block_size);
	row = there ? row : NOWHERE;
	if (DRAFTED) {
		int32_t id = (t - g.table_steps) * STEP + lane % STEP;
		bool scratch = left && id >= 0;
		uint32_t word = w->any[scratch ? id / 32 : 0];
		if (scratch)
			row = word >> (id % 32) & 1 ? ~(seq * a.scratch_cap + id) : NOWHERE;
	}
	return row;
}

/* Sums of one group over a CTA's share. Places of keys are found two steps at a time, two to four ahead, so that no
 * copy waits for the table. */
template <int D, int MT, bool DRAFTED>
static __device__ __forceinline__ void stream_share(const struct attn_args &a,
                                                    const struct share &g, const struct sight *w,
                                                    int32_t group, const uint32_t (&q)[D / 16][4],
                                                    struct sums<D> &o, uint32_t ring, int32_t seq,
                                                    int64_t head_bytes, const int32_t (&my_row)[2],
                                                    int32_t n_rows)
{
	typedef shape<D, MT> S;
	const uint32_t ring_end = ring + S::STAGES * S::STAGE;
	int32_t lane = (int32_t)threadIdx.x % 32, part = (int32_t)threadIdx.x / 32 % MT;
	int32_t at = g.first + group, in = at, far = at + 2 * GROUPS, from = 0;
	int32_t where = locate_two<DRAFTED>(a, g, w, at, seq, lane);
	int32_t ahead = locate_two<DRAFTED>(a, g, w, far, seq, lane);
	uint32_t load = ring, use = ring;
	int32_t limit[2];
#pragma unroll
	for (int h = 0; h < 2; h++)
		limit[h] = my_row[h] < n_rows ? w->n_table[my_row[h]] : 0;
	auto load_next = [&] {
		if (in < g.end)
			stage<D, MT, DRAFTED>(a, load, where, from, head_bytes, part, lane);
		asm volatile("cp.async.commit_group;" ::: "memory");
		in += GROUPS;
		load = load + S::STAGE == ring_end ? ring : load + S::STAGE;
		from ^= STEP;
		if (from == 0) {
			far += 2 * GROUPS;
			where = ahead;
			ahead = locate_two<DRAFTED>(a, g, w, far, seq, lane);
		}
	};
#pragma unroll 1
	for (int i = 0; i < S::STAGES - 1; i++)
		load_next();
#pragma unroll 1
	while (at < g.end) {
		asm volatile("cp.async.wait_group %0;" ::"n"(S::STAGES - 2) : "memory");
		group_sync<MT>(group);
		load_next();
		uint32_t seen[2];
#pragma unroll
		for (int h = 0; h < 2; h++)
			seen[h] = first_keys(limit[h] - at * STEP);
		if (DRAFTED && at >= g.table_steps) {
			int32_t id = (at - g.table_steps) * STEP;
#pragma unroll
			for (int h = 0; h < 2; h++)
				seen[h] =
					my_row[h] < n_rows
						? w->seen[my_row[h]][id / 32] >> (id % 32) & 0xffff
						: 0;
		}
		compute<D>(q, o, use, a.scale2, seen[0], seen[1], lane);
		use = use + S::STAGE == ring_end ? ring : use + S::STAGE;
		at += GROUPS;
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
		(&w->seen[0][0])[i] = 0; /* and `any` behind it */
	__syncthreads();
	for (int32_t i = tid; i < n_all; i += (int32_t)blockDim.x) {
		int32_t r = i / a.anc_stride;
		int32_t id = i == tid ? first : a.anc[(int64_t)p.row0 * a.anc_stride + i];
		if (i - r * a.anc_stride < w->n_anc[r] && (uint32_t)id < (uint32_t)a.scratch_cap) {
			atomicOr(&w->seen[r][id / 32], 1u << (id % 32));
			atomicOr(&w->any[id / 32], 1u << (id % 32));
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

/* The share of CTA `part` of `parts`: steps are dealt out in runs, as many to each group. */
template <bool DRAFTED>
static __device__ __forceinline__ struct share share_of(const struct attn_args &a,
                                                        const struct sight *w, int32_t n_rows,
                                                        int32_t part, int32_t parts)
{
	struct share g;
	g.n_table = 0;
	for (int32_t r = 0; r < n_rows; r++)
		g.n_table = max(g.n_table, w->n_table[r]);
	g.table_steps = (g.n_table + STEP - 1) / STEP;
	int32_t steps = g.table_steps, scratch = 0;
	if (DRAFTED) {
#pragma unroll
		for (int i = 0; i < SPREAD_SCRATCH / 32; i++)
			if (w->any[i])
				scratch = i * 32 + 32 - __clz((int)w->any[i]);
		steps += (scratch + STEP - 1) / STEP;
	}
	int32_t each = (steps + parts * GROUPS - 1) / (parts * GROUPS) * GROUPS;
	g.first = min(part * each, steps);
	g.end = min(g.first + each, steps);
	return g;
}

static __device__ __forceinline__ uint32_t of_cta(uint32_t at, int32_t cta)
{
	uint32_t there;
	asm("mapa.shared::cluster.u32 %0, %1, %2;" : "=r"(there) : "r"(at), "r"(cta));
	return there;
}

static __device__ __forceinline__ void cluster_sync(void)
{
	asm volatile("barrier.cluster.arrive.release;\n\tbarrier.cluster.wait.acquire;" ::
	                     : "memory");
}

/* Merges the CTAs' sums of the q rows part, part + parts, ...: a warp a row, 4 columns a lane. */
template <int D, int MT>
static __device__ __forceinline__ void merge_ctas(const struct attn_args &a, const struct place &p,
                                                  uint32_t exchange, int32_t part, int32_t parts)
{
	typedef shape<D, MT> S;
	int32_t lane = (int32_t)threadIdx.x % 32, warp = (int32_t)threadIdx.x / 32;
	int32_t n = p.n_rows * a.group;
	uint32_t heads = exchange + S::ROWS * S::OUT_STRIDE * 4;
	for (int32_t i = part + parts * warp; i < n; i += parts * (S::THREADS / 32)) {
		float max = -INFINITY, sum = 0, out[4] = {};
		if (lane < parts)
			asm volatile("ld.shared::cluster.v2.f32 {%0, %1}, [%2];"
			             : "=f"(max), "=f"(sum)
			             : "r"(of_cta(heads + (uint32_t)i * 8, lane)));
		float4 x[SPREAD_MOST];
		uint32_t from = exchange + (uint32_t)(i * S::OUT_STRIDE + lane * 4 % D) * 4;
#pragma unroll
		for (int c = 0; c < SPREAD_MOST; c++)
			if (c < parts)
				asm volatile("ld.shared::cluster.v4.f32 {%0, %1, %2, %3}, [%4];"
				             : "=f"(x[c].x), "=f"(x[c].y), "=f"(x[c].z),
				               "=f"(x[c].w)
				             : "r"(of_cta(from, c)));
		float top = max;
#pragma unroll
		for (int k = 1; k < 32; k *= 2)
			top = fmaxf(top, __shfl_xor_sync(~0u, top, k));
		float by = max == -INFINITY ? 0 : attn_exp2(max - top);
		sum *= by;
#pragma unroll
		for (int k = 1; k < 32; k *= 2)
			sum += __shfl_xor_sync(~0u, sum, k);
#pragma unroll
		for (int c = 0; c < SPREAD_MOST; c++) {
			float its = __shfl_sync(~0u, by, c);
			if (c < parts) {
				out[0] = fmaf(x[c].x, its, out[0]);
				out[1] = fmaf(x[c].y, its, out[1]);
				out[2] = fmaf(x[c].z, its, out[2]);
				out[3] = fmaf(x[c].w, its, out[3]);
			}
		}
		int64_t at = (int64_t)(p.row0 + i / a.group) * a.n_heads + p.kv_head * a.group +
		             i % a.group;
		uint2 y = {pack(attn_finish(out[0], sum), attn_finish(out[1], sum)),
		           pack(attn_finish(out[2], sum), attn_finish(out[3], sum))};
		if (lane * 4 < D)
			*(uint2 *)((bf16 *)a.out + at * D + lane * 4) = y;
	}
}

template <int D, int MT, bool DRAFTED>
static __global__ void __launch_bounds__(shape<D, MT>::THREADS, MT == 1 ? 2 : 1)
	spread_kernel(const __grid_constant__ struct attn_args a, int32_t tile_rows, int32_t parts)
{
	typedef shape<D, MT> S;
	extern __shared__ __align__(1024) uint8_t smem[];
	__shared__ struct sight w;
	int32_t tid = (int32_t)threadIdx.x, lane = tid % 32, warp = tid / 32;
	int32_t group = warp / MT, item = (int32_t)blockIdx.x / parts,
		part = (int32_t)blockIdx.x - item * parts;
	struct place p;
	int32_t q_row[2] = {warp % MT * 16 + lane / 4, warp % MT * 16 + lane / 4 + 8};
	int32_t my_row[2] = {q_row[0] / a.group, q_row[1] / a.group};
	pdl_trigger();
	pdl_wait();
	if (!find_item(a, tile_rows, item, &p))
		return;
	uint32_t q[D / 16][4];
	load_q<D>(a, p, q_row, my_row, q, lane);
	look<DRAFTED>(a, p, &w);
	__syncthreads();
	struct share g = share_of<DRAFTED>(a, &w, p.n_rows, part, parts);
	struct sums<D> o;
	o.max[0] = o.max[1] = -INFINITY;
	o.sum[0] = o.sum[1] = 0;
#pragma unroll
	for (int i = 0; i < D / 8; i++)
		o.out[i][0] = o.out[i][1] = o.out[i][2] = o.out[i][3] = 0;
	if (g.first < g.end)
		stream_share<D, MT, DRAFTED>(
			a, g, &w, group, q, o,
			smem_at(smem) + (uint32_t)(group * S::STAGES * S::STAGE), p.seq,
			(int64_t)p.kv_head * S::ROW_BYTES, my_row, p.n_rows);
	struct merged<D> m;
	merge_groups<D, MT>(o, (float *)smem, group, m);
	/* This thread's place in what is merged: a q row. */
	int32_t row = tid / 8 / a.group, head = p.kv_head * a.group + tid / 8 % a.group;
	if (parts == 1) {
		if (row < p.n_rows)
			store_out<D>(a, (int64_t)(p.row0 + row) * a.n_heads + head, m);
		return;
	}
	float *mine = (float *)(smem + S::EXCHANGE) + tid / 8 * S::OUT_STRIDE + tid % 8 * 4;
	if (tid % 8 == 0)
		((float2 *)(smem + S::EXCHANGE + S::ROWS * S::OUT_STRIDE * 4))[tid / 8] =
			make_float2(m.max, m.sum);
#pragma unroll
	for (int j = 0; j < D / 32; j++)
		*(float4 *)(mine + j * 32) =
			make_float4(m.out[j][0], m.out[j][1], m.out[j][2], m.out[j][3]);
	cluster_sync();
	merge_ctas<D, MT>(a, p, smem_at(smem) + S::EXCHANGE, part, parts);
	cluster_sync(); /* nobody leaves while others read */
}

#endif
