/* SPDX-License-Identifier: Apache-2.0
 *
 * attention.cu: attention over the KV store: checks, workspace, choice of kernel.
 */
#include "cuda/attention.cuh"
#include "nexus_kernels/work.h"

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
static int check(const struct cuda_dev *d, const struct nx_attention *a, struct nx_err *err)
{
	const struct nx_kv *kv = a->kv;
	int rc = nx_check_attention(a, err);
	if (rc)
		return rc;
	if (kv->head_dim < 2 || kv->head_dim > ATTN_MAX_DIM || kv->head_dim % 2)
		return nx_fail(err, NX_ENOTSUP,
		               "cuda: attention wants an even head_dim up to %d, got %d",
		               ATTN_MAX_DIM, kv->head_dim);
	rc = d->host_memory && !d->capturing ? nx_check_keys(a, NULL, err) : 0;
	if (rc)
		return rc;
	return nx_check_workspace(a,
	                          cu_attention_workspace(NULL, a->kernel, a->kv_chunk, a->n_heads,
	                                                 kv->head_dim, a->rows->n_rows,
	                                                 a->rows->max_keys),
	                          err);
}

/* Keys are counted by who enqueues this and knows them: uncounted() and counted_add() of the table. */
static void count(struct cuda_dev *d, const struct nx_attention *a)
{
	nx_count_queries(&d->counted, a, nx_dtype_bytes(d->act));
	nx_count_unseen(&d->uncounted, a);
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
	g.coded = coded_args_of(kv, a->layer);
	return g;
}

static int attend(struct cuda_dev *d, cudaStream_t s, const struct nx_attention *a,
                  struct attn_args *args, struct nx_err *err)
{
	struct attn_args g = *args;
	if (a->kernel == NX_ATTN_MATERIALISED) {
		/* Partials first: they are read two floats at a time. */
		int64_t rows = g.n_rows < ATTN_SPLIT_ROWS ? g.n_rows : ATTN_SPLIT_ROWS;
		g.part = (float *)a->workspace;
		g.scores = g.part +
		           rows * g.n_heads * attn_div_up(g.max_keys, ATTN_VALUE_KEYS) * g.dim;
		return attention_materialised(d, s, &g, a->kv->codec, err);
	}
	g.invariant = d->cfg.invariant;
	g.kv_chunk = a->kv_chunk;
	g.n_chunks = (int32_t)attn_div_up(g.max_keys, g.kv_chunk);
	int64_t split = g.n_rows < ATTN_SPLIT_ROWS ? g.n_rows : ATTN_SPLIT_ROWS;
	g.part = (float *)a->workspace;
	g.part_head = (float2 *)(g.part + split * g.n_heads * g.n_chunks * g.dim);
	if (!g.invariant && attention_prefill_fits(d, a))
		return attention_prefill(d, s, a, err);
	if (attention_decode_fits(d, &g, a->kv->codec))
		return attention_decode(d, s, &g, err);
	if (attention_codes_fits(d, &g, a->kv->codec))
		return attention_codes(d, s, &g, a->kv->codec, err);
	return attention_plain(d, s, &g, a->kv->codec, err);
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
	bool grouped = nx_kv_is_coded(a->kv->codec) && a->kv->window > 1;
	if (grouped)
		rc = coded_begin(d, s, a, err);
	if (!rc)
		rc = attend(d, s, a, &g, err);
	if (!rc && grouped)
		rc = coded_end(d, s, a, err);
	return rc ? rc : cu_done(d, s, err);
}

int attention_open(struct cuda_dev *d, struct nx_err *err)
{
	int rc = attention_scores_open(err);
	if (!rc)
		rc = attention_decode_open(d, err);
	return rc ? rc : attention_codes_open(d, err);
}
