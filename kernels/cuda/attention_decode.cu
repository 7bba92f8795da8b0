/* SPDX-License-Identifier: Apache-2.0
 *
 * attention_decode.cu: attention of few rows a sequence, bf16, on tensor cores: bound by reading the KV store.
 *
 * A tile is a run of rows of a segment with all q heads that share a kv head: up to 16 * MT "q rows", so that each
 * K and V row is read once for all of them. Keys go by in steps of STEP, counted from the start of the range; GROUPS
 * groups of MT warps take every GROUPS-th step each, with a ring of stages of their own that cp.async fills, so
 * there is no barrier over the block while keys stream. Groups are merged in order at the end of a range.
 *
 * Ranges. Invariant mode: a range is a chunk of the grid. Else it is a run of chunks. Work, the units (tile, kv
 * head, chunk), is dealt out to the CTAs in equal runs: the segments' bounds say how much there is.
 *
 * Drafted rows. Steps that hold scratch rows differ from row to row: they are staged for each such row and then
 * change this row alone. So a drafted row adds what a plain row of the same keys would, in the same order.
 */
#include "cuda/attention.cuh"

#define STEP 16
#define GROUPS 4

typedef __nv_bfloat16 bf16;

static __device__ __forceinline__ uint32_t smem_at(const void *p)
{
	return (uint32_t)__cvta_generic_to_shared(p);
}

/* 16 bytes, or zeros. */
static __device__ __forceinline__ void fetch16(uint32_t to, const uint8_t *from, bool there)
{
	asm volatile("cp.async.cg.shared.global.L2::128B [%0], [%1], 16, %2;" ::"r"(to), "l"(from),
	             "r"(there ? 16 : 0)
	             : "memory");
}

static __device__ __forceinline__ void load_matrices(uint32_t (&r)[4], uint32_t at)
{
	asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0,%1,%2,%3}, [%4];"
	             : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
	             : "r"(at)
	             : "memory");
}

static __device__ __forceinline__ void load_transposed(uint32_t (&r)[4], uint32_t at)
{
	asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0,%1,%2,%3}, [%4];"
	             : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
	             : "r"(at)
	             : "memory");
}

static __device__ __forceinline__ void mma(float (&c)[4], const uint32_t (&a)[4], uint32_t b0,
                                           uint32_t b1)
{
	asm volatile("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 "
	             "{%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"
	             : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
	             : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
}

static __device__ __forceinline__ uint32_t pack(float lo, float hi)
{
	__nv_bfloat162 x = __floats2bfloat162_rn(lo, hi);
	return *(uint32_t *)&x;
}

template <int D, int MT> struct shape {
	static const int THREADS = 32 * MT * GROUPS, ROWS = 16 * MT;
	static const int ROW_BYTES = D * 2, PIECES = D / 8;
	static const int STAGE = STEP * ROW_BYTES * 2;
	static const int STAGES = 128 / D * (MT == 1 ? 3 : 6);
	static const int RING = GROUPS * STAGES * STAGE;
	/* At the end of a range the rings hold the groups' sums. */
	static const int OUT_STRIDE = D + 4;
	static const int SUMS = GROUPS * ROWS * (OUT_STRIDE + 2) * 4;
	static const int SMEM = RING > SUMS ? RING : SUMS;
};

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
	bool drafted, invariant;
};

static __device__ __forceinline__ void next_drafted(const struct range &g, const struct tile *w,
                                                    struct steps *s)
{
	while (++s->row < g.n_rows) {
		int32_t n_table = w->n_table[s->row], keys = min(w->keys[s->row], g.k1);
		if (w->keys[s->row] <= n_table || n_table >= g.k1 || keys <= g.k0)
			continue;
		if (!g.invariant && s->row % GROUPS != g.group)
			continue;
		s->t = (max(n_table, g.k0) - g.k0) / STEP;
		s->end = (keys - g.k0 + STEP - 1) / STEP;
		if (g.invariant)
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
	s->t += s->row < 0 || g.invariant ? GROUPS : 1;
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

/* Starts the copies of a step into a stage: of the group's MT warps, each its share. */
template <int D, int MT>
static __device__ __forceinline__ void stage(const struct attn_args &a, uint32_t to, int32_t place,
                                             int64_t head_bytes, int32_t part, int32_t lane)
{
	typedef shape<D, MT> S;
	const int rows_at_once = 32 / S::PIECES, share = STEP / MT;
	int32_t piece = lane % S::PIECES;
#pragma unroll
	for (int i = 0; i < share; i += rows_at_once) {
		int32_t row = part * share + i + lane / S::PIECES;
		int32_t at = __shfl_sync(~0u, place, row);
		bool there = at != NOWHERE;
		const uint8_t *k = a.base;
		int64_t v_offset = a.v_offset;
		if (at >= 0) {
			k = a.base + at * a.row_bytes;
		} else if (there) {
			k = a.scratch + (int64_t)~at * a.scratch_row_bytes;
			v_offset = a.scratch_v_offset;
		}
		k += head_bytes + piece * 16;
		uint32_t at_smem = to + (uint32_t)(row * S::ROW_BYTES + ((piece ^ (row & 7)) * 16));
		fetch16(at_smem, k, there);
		fetch16(at_smem + STEP * S::ROW_BYTES, there ? k + v_offset : k, there);
	}
}

template <int MT> static __device__ __forceinline__ void group_sync(int group)
{
	if (MT == 1)
		__syncwarp();
	else
		asm volatile("bar.sync %0, %1;" ::"r"(group + 1), "r"(32 * MT) : "memory");
}

template <int D> struct sums {
	float out[D / 8][4];
	float max[2], sum[2]; /* of q rows lane / 4 and lane / 4 + 8; sum: this lane's share */
};

/* One step: end0, end1: keys that the lane's two q rows see, counted from the step's first. */
template <int D>
static __device__ __forceinline__ void compute(const uint32_t (&q)[D / 16][4], struct sums<D> &o,
                                               uint32_t at, float scale2, int32_t end0,
                                               int32_t end1, int32_t lane)
{
	const int row_bytes = D * 2;
	float s[2][4] = {};
	{
		int32_t key = lane / 16 * 8 + lane % 8;
		uint32_t row = at + (uint32_t)(key * row_bytes);
#pragma unroll
		for (int kk = 0; kk < D / 16; kk++) {
			uint32_t b[4];
			load_matrices(
				b, row + (uint32_t)(((kk * 2 + (lane / 8 & 1)) ^ (key & 7)) * 16));
			mma(s[0], q[kk], b[0], b[1]);
			mma(s[1], q[kk], b[2], b[3]);
		}
	}
	float top0 = o.max[0], top1 = o.max[1];
#pragma unroll
	for (int j = 0; j < 2; j++)
#pragma unroll
		for (int e = 0; e < 2; e++) {
			int32_t key = j * 8 + lane % 4 * 2 + e;
			s[j][e] = key < end0 ? s[j][e] * scale2 : -INFINITY;
			s[j][2 + e] = key < end1 ? s[j][2 + e] * scale2 : -INFINITY;
			top0 = fmaxf(top0, s[j][e]);
			top1 = fmaxf(top1, s[j][2 + e]);
		}
#pragma unroll
	for (int i = 1; i < 4; i *= 2) {
		top0 = fmaxf(top0, __shfl_xor_sync(~0u, top0, i));
		top1 = fmaxf(top1, __shfl_xor_sync(~0u, top1, i));
	}
	/* Nothing seen so far: any finite number does, all p are 0. */
	float base0 = top0 == -INFINITY ? 0 : top0, base1 = top1 == -INFINITY ? 0 : top1;
	/* A factor of 1 changes no bit, so leaving it out does not either. */
	if (__any_sync(~0u, top0 != o.max[0] || top1 != o.max[1])) {
		float by0 = attn_exp2(o.max[0] - base0), by1 = attn_exp2(o.max[1] - base1);
		if (top0 == o.max[0])
			by0 = 1;
		if (top1 == o.max[1])
			by1 = 1;
		o.max[0] = top0;
		o.max[1] = top1;
		o.sum[0] *= by0;
		o.sum[1] *= by1;
#pragma unroll
		for (int n = 0; n < D / 8; n++) {
			o.out[n][0] *= by0;
			o.out[n][1] *= by0;
			o.out[n][2] *= by1;
			o.out[n][3] *= by1;
		}
	}
#pragma unroll
	for (int j = 0; j < 2; j++)
#pragma unroll
		for (int e = 0; e < 2; e++) {
			s[j][e] = attn_exp2(s[j][e] - base0);
			s[j][2 + e] = attn_exp2(s[j][2 + e] - base1);
			o.sum[0] = __fadd_rn(o.sum[0], s[j][e]);
			o.sum[1] = __fadd_rn(o.sum[1], s[j][2 + e]);
		}
	uint32_t p[4] = {pack(s[0][0], s[0][1]), pack(s[0][2], s[0][3]), pack(s[1][0], s[1][1]),
	                 pack(s[1][2], s[1][3])};
	{
		int32_t key = (lane / 8 & 1) * 8 + lane % 8;
		uint32_t row = at + (uint32_t)((STEP + key) * row_bytes);
#pragma unroll
		for (int n = 0; n < D / 16; n++) {
			uint32_t b[4];
			load_transposed(b,
			                row + (uint32_t)(((n * 2 + lane / 16) ^ (key & 7)) * 16));
			mma(o.out[2 * n], p, b[0], b[1]);
			mma(o.out[2 * n + 1], p, b[2], b[3]);
		}
	}
}

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
			stage<D, MT>(a, ring + (uint32_t)(load * S::STAGE), where, head_bytes, part,
			             lane);
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
			stage<D, MT>(a, ring + (uint32_t)(load * S::STAGE), where, head_bytes, part,
			             lane);
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
		compute<D>(q, o, ring + (uint32_t)(use * S::STAGE), a.scale2, end0 - k, end1 - k,
		           lane);
		use = use + 1 == S::STAGES ? 0 : use + 1;
		steps_next(g, w, &at);
	}
	asm volatile("cp.async.wait_group 0;" ::: "memory");
}

/* q rows of the tile as operand of the products. */
template <int D>
static __device__ __forceinline__ void load_q(const struct attn_args &a, const struct place &p,
                                              const int32_t (&q_row)[2], const int32_t (&my_row)[2],
                                              uint32_t (&q)[D / 16][4], int32_t lane)
{
#pragma unroll
	for (int h = 0; h < 2; h++) {
		bool there = my_row[h] < p.n_rows;
		int32_t head = p.kv_head * a.group + q_row[h] % a.group;
		const bf16 *from = (const bf16 *)a.q;
		if (there)
			from += (p.row0 + my_row[h]) * a.q_stride + (int64_t)head * D;
#pragma unroll
		for (int kk = 0; kk < D / 16; kk++)
#pragma unroll
			for (int e = 0; e < 2; e++)
				q[kk][h + 2 * e] = there ? *(const uint32_t *)(from + kk * 16 +
				                                               e * 8 + lane % 4 * 2)
				                         : 0;
	}
}

/* What a thread holds after a range: D / 8 columns of one q row, 4 together, 32 apart. */
template <int D> struct merged {
	float max, sum, out[D / 32][4];
};

template <int D>
static __device__ __forceinline__ void merge(struct merged<D> &m, float max, float sum,
                                             const float (&out)[D / 32][4])
{
	float mine, its;
	if (!attn_merge_head(m.max, m.sum, max, sum, mine, its))
		return;
#pragma unroll
	for (int j = 0; j < D / 32; j++)
#pragma unroll
		for (int e = 0; e < 4; e++)
			m.out[j][e] = attn_merge_out(m.out[j][e], out[j][e], mine, its);
}

template <int D> static __device__ __forceinline__ void clear(struct merged<D> &m)
{
	m.max = -INFINITY;
	m.sum = 0;
#pragma unroll
	for (int j = 0; j < D / 32; j++)
#pragma unroll
		for (int e = 0; e < 4; e++)
			m.out[j][e] = 0;
}

/* Brings the groups' sums together, in order. */
template <int D, int MT>
static __device__ __forceinline__ void merge_groups(struct sums<D> &o, float *area, int32_t group,
                                                    struct merged<D> &to)
{
	typedef shape<D, MT> S;
	int32_t tid = (int32_t)threadIdx.x, lane = tid % 32, part = tid / 32 % MT;
	float2 *heads = (float2 *)(area + GROUPS * S::ROWS * S::OUT_STRIDE);
	__syncthreads(); /* the rings are free */
#pragma unroll
	for (int h = 0; h < 2; h++) {
		float sum = o.sum[h];
		sum += __shfl_xor_sync(~0u, sum, 1);
		sum += __shfl_xor_sync(~0u, sum, 2);
		int32_t row = group * S::ROWS + part * 16 + h * 8 + lane / 4;
		if (lane % 4 == 0)
			heads[row] = make_float2(o.max[h], sum);
#pragma unroll
		for (int n = 0; n < D / 8; n++)
			*(float2 *)(area + row * S::OUT_STRIDE + n * 8 + lane % 4 * 2) =
				make_float2(o.out[n][2 * h], o.out[n][2 * h + 1]);
	}
	__syncthreads();
	clear<D>(to);
#pragma unroll
	for (int g = 0; g < GROUPS; g++) {
		int32_t row = g * S::ROWS + tid / 8;
		float2 head = heads[row];
		float out[D / 32][4];
#pragma unroll
		for (int j = 0; j < D / 32; j++) {
			float4 x = *(const float4 *)(area + row * S::OUT_STRIDE + j * 32 +
			                             tid % 8 * 4);
			out[j][0] = x.x;
			out[j][1] = x.y;
			out[j][2] = x.z;
			out[j][3] = x.w;
		}
		merge<D>(to, head.x, head.y, out);
	}
	__syncthreads(); /* the area is free */
}

template <int D>
static __device__ __forceinline__ void store_part(const struct attn_args &a, int64_t at,
                                                  const struct merged<D> &m)
{
	int32_t lane = (int32_t)threadIdx.x % 8;
	if (lane == 0)
		a.part_head[at] = make_float2(m.max, m.sum);
	if (m.max == -INFINITY)
		return;
#pragma unroll
	for (int j = 0; j < D / 32; j++)
		*(float4 *)(a.part + at * D + j * 32 + lane * 4) =
			make_float4(m.out[j][0], m.out[j][1], m.out[j][2], m.out[j][3]);
}

template <int D>
static __device__ __forceinline__ void store_out(const struct attn_args &a, int64_t at,
                                                 const struct merged<D> &m)
{
	int32_t lane = (int32_t)threadIdx.x % 8;
#pragma unroll
	for (int j = 0; j < D / 32; j++) {
		uint2 x = {pack(attn_finish(m.out[j][0], m.sum), attn_finish(m.out[j][1], m.sum)),
		           pack(attn_finish(m.out[j][2], m.sum), attn_finish(m.out[j][3], m.sum))};
		*(uint2 *)((bf16 *)a.out + at * D + j * 32 + lane * 4) = x;
	}
}

/* Chunks [p.chunk, p.chunk + n) of a tile and head. */
template <int D, int MT>
static __device__ __forceinline__ void do_run(const struct attn_args &a, const struct place &p,
                                              int32_t n, struct tile *w, uint8_t *smem)
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
	int32_t end = min((p.chunk + n) * a.kv_chunk, most);
	if (!a.split)
		end = most;
	/* This thread's place in what is merged: a q row. */
	int32_t row = tid / 8 / a.group, head = p.kv_head * a.group + tid / 8 % a.group;
	int64_t out_at = (int64_t)(p.row0 + row) * a.n_heads + head;
	bool whole = !a.split || n == p.n_chunks, mine = row < p.n_rows;
	struct merged<D> total;
	clear<D>(total);
	int32_t begin = p.chunk * a.kv_chunk, by = a.invariant ? a.kv_chunk : INT32_MAX;
	int32_t chunk = p.chunk;
	do {
		struct range g;
		g.k0 = begin;
		g.k1 = end - begin < by ? end : begin + by;
		g.shared_end = min(g.k1, most_table);
		g.group = group;
		g.n_rows = p.n_rows;
		g.drafted = drafted;
		g.invariant = a.invariant;
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
		if (whole)
			merge<D>(total, m.max, m.sum, m.out);
		else if (mine)
			store_part<D>(a, out_at * a.n_chunks + chunk, m);
		chunk++;
		begin = g.k1;
	} while (begin < end);
	if (!mine)
		return;
	if (whole) {
		store_out<D>(a, out_at, total);
		if (a.split && tid % 8 == 0)
			a.part_head[out_at * a.n_chunks] = ATTN_DONE;
	} else if (tid % 8 == 0) /* the rest of the run says nothing */
		for (; chunk < p.chunk + n; chunk++)
			a.part_head[out_at * a.n_chunks + chunk] = make_float2(-INFINITY, 0);
}

template <int D, int MT>
static __global__ void __launch_bounds__(shape<D, MT>::THREADS, MT == 1 ? 2 : 1)
	decode_kernel(const __grid_constant__ struct attn_args a, int32_t tile_rows)
{
	extern __shared__ __align__(128) uint8_t smem[];
	__shared__ struct tile w;
	pdl_trigger();
	pdl_wait();
	struct place p;
	int32_t u = (int32_t)blockIdx.x, end = u + 1, all = find_unit(a, tile_rows, -1, &p);
	if (a.split) {
		u = (int32_t)((int64_t)all * blockIdx.x / gridDim.x);
		end = (int32_t)((int64_t)all * (blockIdx.x + 1) / gridDim.x);
	}
	end = min(end, all);
#pragma unroll 1
	while (u < end) {
		find_unit(a, tile_rows, u, &p);
		int32_t n = min(end - u, p.n_chunks - p.chunk);
		do_run<D, MT>(a, p, n, &w, smem);
		u += n;
		__syncthreads();
	}
}

/* ---- host */

typedef void (*decode_fn)(struct attn_args, int32_t);

template <int D, int MT> static int open_one(struct nx_err *err)
{
	CU(cudaFuncSetAttribute(decode_kernel<D, MT>, cudaFuncAttributeMaxDynamicSharedMemorySize,
	                        shape<D, MT>::SMEM));
	return 0;
}

int attention_decode_open(struct cuda_dev *d, struct nx_err *err)
{
	int rc = open_one<64, 1>(err);
	if (!rc)
		rc = open_one<64, 2>(err);
	if (!rc)
		rc = open_one<128, 1>(err);
	return rc ? rc : open_one<128, 2>(err);
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

template <int D, int MT>
static int launch(struct cuda_dev *d, cudaStream_t s, struct attn_args *a, struct nx_err *err)
{
	typedef shape<D, MT> S;
	int32_t tile_rows = S::ROWS / a->group, slots = d->n_sms * (MT == 1 ? 2 : 1);
	/* Each segment may have a tile that is not full. */
	int64_t tiles = a->n_rows / tile_rows + a->n_segments, units = tiles * a->n_kv_heads;
	if (a->n_rows == a->n_segments)
		tiles = a->n_segments;
	units = tiles * a->n_kv_heads;
	a->split = a->n_rows <= ATTN_SPLIT_ROWS && a->n_chunks > 1;
	if (a->split) {
		units *= a->n_chunks;
		if (!a->invariant && units > slots)
			units = slots;
	}
	int rc = cu_launch(err, "attention_decode", CU_PDL, decode_kernel<D, MT>,
	                   dim3((unsigned)units), dim3(S::THREADS), S::SMEM, s, *a, tile_rows);
	return rc || !a->split ? rc : attention_merge(d, s, a, err);
}

int attention_decode(struct cuda_dev *d, cudaStream_t s, struct attn_args *a, struct nx_err *err)
{
	/* One segment has at most the rows that the others leave. */
	int64_t q_rows = (int64_t)(a->n_rows - a->n_segments + 1) * a->group;
	if (a->dim == 64)
		return q_rows <= 16 ? launch<64, 1>(d, s, a, err) : launch<64, 2>(d, s, a, err);
	return q_rows <= 16 ? launch<128, 1>(d, s, a, err) : launch<128, 2>(d, s, a, err);
}
