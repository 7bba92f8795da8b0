/* SPDX-License-Identifier: Apache-2.0
 *
 * coded.cu: codecs that encode groups of tokens together (KIVI): groups that rows of a call complete, rows into the
 * window and into scratch. Codecs that work row by row are encoded where rows are stored: rope.cu.
 */
#include "cuda/coded.cuh"

#define GROUP_THREADS 128
#define PACK_TOKENS 16 /* tokens whose codes are packed at a time */
#define MAX_DIM 256    /* of a head; nx_kv_codec_refusal() */

struct group_args {
	struct coded_args c;
	/* the store: a layer, or with compact all of them */
	const int32_t *table;
	int32_t table_stride, block_size, n_layers;
	uint8_t *base, *scratch;
	int64_t layer_bytes, row_bytes, v_offset, win_layer_bytes;
	int64_t scratch_row_bytes, scratch_v_offset;
	int32_t scratch_cap;
	/* rows of a call */
	int32_t n_rows, n_heads;
	const int32_t *seq, *kind, *slot_off, *scratch_row, *len;
	const struct nx_segment *segments;
	const void *qkv;
	int64_t stride;
	/* accepted rows */
	const struct nx_emit *emit;
	const int32_t *n_accepted;
	int32_t v_stride;
};

/* One head of a group of tokens, by a block; slots from `fresh` on come from rows of this call. */
struct group {
	int32_t seq, slot, head, layer, fresh, row;
};

template <typename ACT>
static __device__ __forceinline__ float newest_of(const group_args &a, const group &g, int32_t slot,
                                                  bool v, int32_t d)
{
	const struct coded_args &c = a.c;
	float x;
	if (slot < g.fresh) {
		const uint8_t *row =
			c.win + g.layer * a.win_layer_bytes +
			((int64_t)g.seq * c.window + slot % c.window) * c.win_row_bytes +
			(v ? c.win_v_offset : 0);
		int64_t at = (int64_t)g.head * c.dim + d;
		return c.plain_bf16 ? to_f32(((const __nv_bfloat16 *)row)[at])
		                    : ((const float *)row)[at];
	}
	x = to_f32((
		(const ACT *)
			a.qkv)[(int64_t)(g.row + slot - g.fresh) * a.stride +
	                       ((int64_t)a.n_heads + (v ? c.n_kv_heads : 0) + g.head) * c.dim + d]);
	return c.plain_bf16 ? __bfloat162float(__float2bfloat16_rn(x)) : x;
}

/* Codes [0, n) of a run, in shared memory, to words. */
static __device__ __forceinline__ void pack_word(const uint8_t *codes, int32_t bits, uint8_t *to,
                                                 int32_t word)
{
	int32_t per = 32 / bits;
	uint32_t w = 0;
	for (int32_t e = 0; e < per; e++) {
		int64_t at;
		int shift = nx_code_shift(e, bits, &at);
		w |= (uint32_t)codes[word * per + e] << shift;
	}
	((uint32_t *)to)[word] = w;
}

/* K: a thread a channel. */
template <typename ACT>
static __device__ void encode_keys(const group_args &a, const group &g, uint8_t *piece)
{
	__shared__ uint8_t codes[PACK_TOKENS][MAX_DIM];
	__shared__ float2 params[MAX_DIM];
	const struct coded_args &c = a.c;
	int32_t all = c.n_kv_heads * c.head_bytes, words = c.head_bytes / 4;
	for (int32_t t0 = 0; t0 < c.window; t0 += c.group_size) {
		uint8_t *groups =
			piece + c.window * all +
			4 * (g.head * (c.window / c.group_size) + t0 / c.group_size) * c.dim;
		for (int32_t d = (int32_t)threadIdx.x; d < c.dim; d += GROUP_THREADS) {
			struct coded_range r = {INFINITY, -INFINITY, false};
			for (int32_t t = 0; t < c.group_size; t++)
				coded_include(r, newest_of<ACT>(a, g, g.slot + t0 + t, false, d));
			uint32_t bytes = coded_group(c.codec, r);
			((uint32_t *)groups)[d] = bytes;
			coded_params(false, bytes, params[d].x, params[d].y);
		}
		for (int32_t t1 = t0; t1 < t0 + c.group_size; t1 += PACK_TOKENS) {
			__syncthreads();
			for (int32_t i = (int32_t)threadIdx.x; i < PACK_TOKENS * c.dim;
			     i += GROUP_THREADS) {
				int32_t t = i / c.dim, d = i % c.dim;
				float x = newest_of<ACT>(a, g, g.slot + t1 + t, false, d);
				codes[t][d] =
					(uint8_t)coded_code(c.codec, x, params[d].x, params[d].y);
			}
			__syncthreads();
			for (int32_t i = (int32_t)threadIdx.x; i < PACK_TOKENS * words;
			     i += GROUP_THREADS)
				pack_word(codes[i / words], c.bits,
				          piece + (t1 + i / words) * all + g.head * c.head_bytes,
				          i % words);
		}
		__syncthreads();
	}
}

/* V: a thread a token and run of channels. */
template <typename ACT>
static __device__ void encode_values(const group_args &a, const group &g, uint8_t *piece)
{
	const struct coded_args &c = a.c;
	int32_t all = c.n_kv_heads * c.head_bytes, along = c.dim / c.group_size;
	for (int32_t i = (int32_t)threadIdx.x; i < c.window * along; i += GROUP_THREADS) {
		int32_t t = i / along, d0 = i % along * c.group_size, per = 32 / c.bits;
		struct coded_range r = {INFINITY, -INFINITY, false};
		for (int32_t d = d0; d < d0 + c.group_size; d++)
			coded_include(r, newest_of<ACT>(a, g, g.slot + t, true, d));
		uint32_t bytes = coded_group(c.codec, r);
		((uint32_t *)(piece +
		              c.window * all))[(t * c.n_kv_heads + g.head) * along + i % along] =
			bytes;
		float scale, zero;
		coded_params(false, bytes, scale, zero);
		uint32_t *to = (uint32_t *)(piece + t * all + g.head * c.head_bytes);
		for (int32_t d1 = d0; d1 < d0 + c.group_size; d1 += per) {
			uint32_t w = 0;
			for (int32_t e = 0; e < per; e++) {
				int64_t at;
				float x = newest_of<ACT>(a, g, g.slot + t, true, d1 + e);
				w |= coded_code(c.codec, x, scale, zero)
				     << nx_code_shift(e, c.bits, &at);
			}
			to[d1 / per] = w;
		}
	}
}

template <typename ACT> static __device__ void encode(const group_args &a, const group &g)
{
	int32_t block = g.slot / a.block_size;
	int32_t first =
		block < a.table_stride ? a.table[(int64_t)g.seq * a.table_stride + block] : -1;
	if (first < 0)
		return; /* whoever reads it says so */
	uint8_t *piece = a.base + g.layer * a.layer_bytes +
	                 ((int64_t)first + g.slot % a.block_size) * a.row_bytes;
	encode_keys<ACT>(a, g, piece);
	encode_values<ACT>(a, g, piece + a.v_offset);
}

/* Grid: segments, kv heads, groups that a segment may complete. */
template <typename ACT>
static __global__ void __launch_bounds__(GROUP_THREADS)
	groups_kernel(const __grid_constant__ group_args a)
{
	__shared__ int32_t first, n;
	pdl_trigger();
	pdl_wait();
	const struct nx_segment seg = a.segments[blockIdx.x];
	if (threadIdx.x == 0) {
		first = INT32_MAX;
		n = 0;
	}
	__syncthreads();
	for (int32_t r = (int32_t)threadIdx.x; r < seg.n_rows; r += GROUP_THREADS)
		if (a.kind[seg.row0 + r] == NX_ROW_COMMIT) {
			atomicMin(&first, seg.row0 + r);
			atomicAdd(&n, 1);
		}
	__syncthreads();
	if (!n)
		return;
	int32_t slot = a.len[seg.seq] + a.slot_off[first], w = a.c.window;
	int32_t at = slot / w + (int32_t)blockIdx.z;
	if ((at + 1) * w > slot + n)
		return;
	const group g = {seg.seq, at * w, (int32_t)blockIdx.y, 0, slot, first};
	encode<ACT>(a, g);
}

/* Grid: emits, kv heads, layers. Accepted rows lie in one group, which they may complete. */
static __global__ void __launch_bounds__(GROUP_THREADS)
	accepted_kernel(const __grid_constant__ group_args a)
{
	pdl_trigger();
	pdl_wait();
	const struct nx_emit e = a.emit[blockIdx.x];
	int32_t n = e.n_draft > 0 ? a.n_accepted[e.seq] : 0, w = a.c.window;
	if (n < 1 || n >= a.v_stride)
		return;
	int32_t from = a.len[e.seq] + e.pos_off, at = from / w;
	if (at == (from + n) / w)
		return;
	const group g = {e.seq, at * w, (int32_t)blockIdx.y, (int32_t)blockIdx.z, INT32_MAX, 0};
	encode<float>(a, g);
}

/* Grid: rows. Drafted ones go to scratch before attention, COMMIT ones into the window after it. */
template <typename ACT>
static __global__ void __launch_bounds__(GROUP_THREADS)
	keep_kernel(const __grid_constant__ group_args a, bool drafted)
{
	pdl_trigger();
	pdl_wait();
	int32_t r = (int32_t)blockIdx.x, seq = a.seq[r], kind = a.kind[r];
	const struct coded_args &c = a.c;
	uint8_t *to;
	int64_t v_offset;
	if (nx_row_in_scratch(kind)) {
		int32_t at = a.scratch_row[r];
		if (!drafted || at < 0 || at >= a.scratch_cap)
			return;
		to = a.scratch + ((int64_t)seq * a.scratch_cap + at) * a.scratch_row_bytes;
		v_offset = a.scratch_v_offset;
	} else {
		/* Rows of the same place in the window follow in a long call: the last one stays. */
		int32_t next = r + c.window;
		if (drafted || kind != NX_ROW_COMMIT ||
		    (next < a.n_rows && a.seq[next] == seq && a.kind[next] == NX_ROW_COMMIT))
			return;
		int32_t slot = a.len[seq] + a.slot_off[r];
		to = c.win + ((int64_t)seq * c.window + slot % c.window) * c.win_row_bytes;
		v_offset = c.win_v_offset;
	}
	int32_t width = c.n_kv_heads * c.dim;
	const ACT *x = (const ACT *)a.qkv + r * a.stride + (int64_t)a.n_heads * c.dim;
	for (int32_t i = (int32_t)threadIdx.x; i < 2 * width; i += GROUP_THREADS) {
		uint8_t *row = i < width ? to : to + v_offset;
		int32_t at = i < width ? i : i - width;
		if (c.plain_bf16)
			((__nv_bfloat16 *)row)[at] = from_f32<__nv_bfloat16>(to_f32(x[i]));
		else
			((float *)row)[at] = to_f32(x[i]);
	}
}

/* ---- host */

static struct group_args store_args(const struct nx_kv *kv, int32_t layer)
{
	struct group_args g = {};
	g.c = coded_args_of(kv, layer);
	g.table = kv->table;
	g.table_stride = kv->table_stride;
	g.block_size = kv->block_size;
	g.n_layers = kv->n_layers;
	g.base = kv->base + layer * kv->layer_bytes;
	g.layer_bytes = kv->layer_bytes;
	g.row_bytes = kv->row_bytes;
	g.v_offset = kv->v_offset;
	g.win_layer_bytes = kv->win_layer_bytes;
	g.scratch = kv->scratch ? kv->scratch + layer * kv->scratch_layer_bytes : NULL;
	g.scratch_row_bytes = kv->scratch_row_bytes;
	g.scratch_v_offset = kv->scratch_v_offset;
	g.scratch_cap = kv->scratch ? kv->scratch_cap : 0;
	return g;
}

static struct group_args call_args(const struct nx_attention *a)
{
	const struct nx_rows *r = a->rows;
	struct group_args g = store_args(a->kv, a->layer);
	g.n_rows = r->n_rows;
	g.n_heads = a->n_heads;
	g.seq = r->seq;
	g.kind = r->kind;
	g.slot_off = r->slot_off;
	g.scratch_row = r->scratch;
	g.len = a->state->len;
	g.segments = r->segments;
	g.qkv = a->q;
	g.stride = a->q_stride;
	return g;
}

static int keep(struct cuda_dev *d, cudaStream_t s, const struct group_args *g, bool drafted,
                struct nx_err *err)
{
	dim3 grid((unsigned)g->n_rows);
	if (d->act == NX_BF16)
		return cu_launch(err, "coded_keep", CU_PDL, keep_kernel<__nv_bfloat16>, grid,
		                 dim3(GROUP_THREADS), 0, s, *g, drafted);
	return cu_launch(err, "coded_keep", CU_PDL, keep_kernel<float>, grid, dim3(GROUP_THREADS),
	                 0, s, *g, drafted);
}

int coded_begin(struct cuda_dev *d, cudaStream_t s, const struct nx_attention *a,
                struct nx_err *err)
{
	const struct group_args g = call_args(a);
	dim3 grid((unsigned)a->rows->n_segments, (unsigned)g.c.n_kv_heads,
	          (unsigned)(g.n_rows / g.c.window + 1));
	int rc = g.scratch_cap ? keep(d, s, &g, true, err) : 0;
	if (rc)
		return rc;
	if (d->act == NX_BF16)
		return cu_launch(err, "coded_groups", CU_PDL, groups_kernel<__nv_bfloat16>, grid,
		                 dim3(GROUP_THREADS), 0, s, g);
	return cu_launch(err, "coded_groups", CU_PDL, groups_kernel<float>, grid,
	                 dim3(GROUP_THREADS), 0, s, g);
}

int coded_end(struct cuda_dev *d, cudaStream_t s, const struct nx_attention *a, struct nx_err *err)
{
	const struct group_args g = call_args(a);
	return keep(d, s, &g, false, err);
}

int coded_from_window(struct cuda_dev *d, cudaStream_t s, const struct nx_kv *kv,
                      const struct nx_seq_state *state, const struct nx_emit *emit, int32_t n_emit,
                      const struct nx_verdict *v, struct nx_err *err)
{
	struct group_args g = store_args(kv, 0);
	(void)d;
	g.len = state->len;
	g.emit = emit;
	g.n_accepted = v->n_accepted;
	g.v_stride = v->stride;
	return cu_launch(err, "coded_accepted", CU_PDL, accepted_kernel,
	                 dim3((unsigned)n_emit, (unsigned)kv->n_kv_heads, (unsigned)kv->n_layers),
	                 dim3(GROUP_THREADS), 0, s, g);
}
