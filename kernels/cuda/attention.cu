/* SPDX-License-Identifier: Apache-2.0
 *
 * attention.cu: attention over the KV store: checks, workspace, choice of kernel.
 */
#include "cuda/attention.cuh"

size_t cu_attention_workspace(void *dev, enum nx_attn_kernel kernel, int32_t kv_chunk,
                              int32_t n_heads, int32_t head_dim, int64_t rows, int64_t keys)
{
	(void)dev;
	int64_t split = rows < ATTN_SPLIT_ROWS ? rows : ATTN_SPLIT_ROWS;
	/* The scores, and for few rows sums of weighted values by chunks. */
	if (kernel == NX_ATTN_MATERIALISED)
		return (size_t)(rows * n_heads * keys +
		                split * n_heads * attn_div_up(keys, ATTN_VALUE_KEYS) * head_dim) *
		       sizeof(float);
	if (kv_chunk < 1)
		return 0;
	/* One chunk needs no partials, but asking for them keeps the size monotone in keys. */
	return (size_t)(split * n_heads * attn_div_up(keys, kv_chunk)) * (size_t)(head_dim + 2) *
	       sizeof(float);
}

/* Lengths, tables and segments are on the device, and nothing here waits for it. In host-memory mode all earlier work
 * has ended and the host may look, so there the promises are checked as the CPU checks them. */
static int check_keys(const struct nx_attention *a, struct nx_err *err)
{
	const struct nx_kv *kv = a->kv;
	const struct nx_rows *rows = a->rows;
	for (int32_t r = 0; r < rows->n_rows; r++) {
		int32_t seq = rows->seq[r], kind = rows->kind[r];
		int32_t n_anc = nx_row_in_scratch(kind) ? rows->n_anc[r] : 0;
		int32_t n_table =
			nx_row_table_keys(kind, a->state->len[seq], rows->slot_off[r], n_anc);
		if ((int64_t)n_table + n_anc > rows->max_keys)
			return nx_fail(err, NX_EBUG,
			               "row %d sees %lld keys, the host promised at most %d", r,
			               (long long)n_table + n_anc, rows->max_keys);
		for (int64_t b = 0; b * kv->block_size < n_table; b++)
			if (b >= kv->table_stride ||
			    kv->table[(int64_t)seq * kv->table_stride + b] < 0)
				return nx_fail(err, NX_EBUG,
				               "row %d of sequence %d has no block %lld", r, seq,
				               (long long)b);
		for (int32_t j = 0; j < n_anc; j++) {
			int32_t anc = rows->anc[(int64_t)r * rows->anc_stride + j];
			if (anc < 0 || anc >= kv->scratch_cap)
				return nx_fail(err, NX_EBUG, "row %d has ancestor %d of %d", r, anc,
				               kv->scratch_cap);
		}
	}
	return 0;
}

static int check(const struct cuda_dev *d, const struct nx_attention *a, struct nx_err *err)
{
	const struct nx_kv *kv = a->kv;
	if (kv->codec == NX_KV_OWN)
		return nx_fail(
			err, NX_ENOTSUP,
			"rows of a technique's codec are read by its own attention entry alone");
	if (kv->n_kv_heads < 1 || a->n_heads % kv->n_kv_heads)
		return nx_fail(err, NX_EINVAL, "%d heads cannot share %d kv heads", a->n_heads,
		               kv->n_kv_heads);
	if (kv->head_dim < 2 || kv->head_dim > ATTN_MAX_DIM || kv->head_dim % 2)
		return nx_fail(err, NX_ENOTSUP,
		               "cuda: attention wants an even head_dim up to %d, got %d",
		               ATTN_MAX_DIM, kv->head_dim);
	if (a->kernel == NX_ATTN_TILED && a->kv_chunk < 1)
		return nx_fail(err, NX_EINVAL, "kv_chunk must be positive, got %d", a->kv_chunk);
	int rc = d->host_memory && !d->capturing ? check_keys(a, err) : 0;
	if (rc)
		return rc;
	size_t need = cu_attention_workspace(NULL, a->kernel, a->kv_chunk, a->n_heads, kv->head_dim,
	                                     a->rows->n_rows, a->rows->max_keys);
	if (a->workspace_bytes < need)
		return nx_fail(err, NX_EINVAL, "attention needs a workspace of %zu bytes, got %zu",
		               need, a->workspace_bytes);
	return 0;
}

/* Keys are counted by who enqueues this and knows them: counted_add() of the table. */
static void count(struct cuda_dev *d, const struct nx_attention *a)
{
	uint64_t q_width = (uint64_t)a->n_heads * (uint64_t)a->kv->head_dim;
	d->counted.act_bytes += 2 * (uint64_t)a->rows->n_rows * q_width * nx_dtype_bytes(d->act);
}

static struct attn_args make_args(const struct nx_attention *a)
{
	const struct nx_rows *r = a->rows;
	const struct nx_kv *kv = a->kv;
	struct attn_args g = {};
	g.n_rows = r->n_rows;
	g.n_segments = r->n_segments;
	g.max_keys = r->max_keys;
	g.anc_stride = r->anc_stride;
	g.seq = r->seq;
	g.slot_off = r->slot_off;
	g.kind = r->kind;
	g.n_anc = r->n_anc;
	g.anc = r->anc;
	g.len = a->state->len;
	g.segments = r->segments;
	g.table = kv->table;
	g.table_stride = kv->table_stride;
	g.block_size = kv->block_size;
	g.scratch_cap = kv->scratch_cap;
	g.base = kv->base + a->layer * kv->layer_bytes;
	g.scratch = kv->scratch ? kv->scratch + a->layer * kv->scratch_layer_bytes : NULL;
	g.row_bytes = kv->row_bytes;
	g.v_offset = kv->v_offset;
	g.near = kv->layer_bytes >> 36 == 0 && kv->scratch_layer_bytes >> 36 == 0;
	g.scratch_row_bytes = kv->scratch_row_bytes;
	g.scratch_v_offset = kv->scratch_v_offset;
	g.n_heads = a->n_heads;
	g.n_kv_heads = kv->n_kv_heads;
	g.group = a->n_heads / kv->n_kv_heads;
	g.dim = kv->head_dim;
	g.scale2 = a->scale * 1.44269504088896341f;
	g.q = a->q;
	g.q_stride = a->q_stride;
	g.out = a->out;
	return g;
}

int cu_attention(void *dev, struct nx_stream *stream, const struct nx_attention *a,
                 struct nx_err *err)
{
	struct cuda_dev *d = (struct cuda_dev *)dev;
	cudaStream_t s = cu_stream(d, stream);
	int rc = check(d, a, err);
	if (rc || a->rows->n_rows < 1)
		return rc;
	struct attn_args g = make_args(a);
	count(d, a);
	if (a->kernel == NX_ATTN_MATERIALISED) {
		/* Partials first: they are read two floats at a time. */
		int64_t rows = g.n_rows < ATTN_SPLIT_ROWS ? g.n_rows : ATTN_SPLIT_ROWS;
		g.part = (float *)a->workspace;
		g.scores = g.part +
		           rows * g.n_heads * attn_div_up(g.max_keys, ATTN_VALUE_KEYS) * g.dim;
		rc = attention_materialised(d, s, &g, a->kv->codec, err);
		return rc ? rc : cu_done(d, s, err);
	}
	g.invariant = d->cfg.invariant;
	g.kv_chunk = a->kv_chunk;
	g.n_chunks = (int32_t)attn_div_up(g.max_keys, g.kv_chunk);
	int64_t split = g.n_rows < ATTN_SPLIT_ROWS ? g.n_rows : ATTN_SPLIT_ROWS;
	g.part = (float *)a->workspace;
	g.part_head = (float2 *)(g.part + split * g.n_heads * g.n_chunks * g.dim);
	if (!g.invariant && attention_prefill_fits(d, a))
		rc = attention_prefill(d, s, a, err);
	else if (attention_decode_fits(d, &g, a->kv->codec))
		rc = attention_decode(d, s, &g, err);
	else
		rc = attention_plain(d, s, &g, a->kv->codec, err);
	return rc ? rc : cu_done(d, s, err);
}

int attention_open(struct cuda_dev *d, struct nx_err *err)
{
	return attention_decode_open(d, err);
}
