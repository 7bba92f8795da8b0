/* SPDX-License-Identifier: Apache-2.0
 *
 * engine/sizes.c: limits, geometry and bytes of an engine; see impl.h.
 */
#include "engine/impl.h"

/* Rows of one forward: enough for full speed of the products, few enough for small buffers. */
#define CHUNK_ROWS 1024

int nx_engine_sizes(struct nx_engine *e, const struct nx_shape *shape, struct nx_err *err)
{
	const struct nx_engine_config *c = &e->cfg;
	if (c->batch_size < 1 || c->batch_size > 4096)
		return nx_fail(err, NX_EINVAL, "batch size %d; legal: 1 to 4096", c->batch_size);
	if (c->samples < 1 || c->samples > 256)
		return nx_fail(err, NX_EINVAL, "%d samples a request; legal: 1 to 256", c->samples);
	if (c->max_len < 0 || c->max_len > shape->ctx_len)
		return nx_fail(err, NX_EINVAL, "a length of %d is over the model's context of %d",
		               c->max_len, shape->ctx_len);
	e->max_len = c->max_len ? c->max_len : shape->ctx_len;
	e->longest = c->longest_request ? c->longest_request : e->max_len;
	if (e->longest > e->max_len)
		return nx_fail(err, NX_EINVAL,
		               "prompt and output of %d tokens are over the limit of %d",
		               e->longest, e->max_len);
	e->max_seqs = c->batch_size * c->samples;
	e->n_entries = 2 * e->max_seqs;
	int64_t rows = c->max_rows ? c->max_rows : (int64_t)e->max_seqs * e->longest;
	if (rows > INT32_MAX / 64)
		return nx_fail(err, NX_EINVAL,
		               "%d sequences of %d tokens are more rows than a step can carry",
		               e->max_seqs, e->longest);
	e->max_rows = (int32_t)rows;
	e->max_chunk_rows = e->max_rows < CHUNK_ROWS ? e->max_rows : CHUNK_ROWS;
	e->max_chunks = (e->max_rows + e->max_chunk_rows - 1) / e->max_chunk_rows;
	e->max_segs = e->max_seqs + e->max_chunks;
	e->plan_ahead = c->plan_ahead;
	return 0;
}

struct nx_group_shape nx_engine_group(const struct nx_shape *shape, enum nx_dtype dtype)
{
	return (struct nx_group_shape){
		.n_layers = shape->n_layers,
		.n_kv_heads = shape->n_kv_heads,
		.head_dim = shape->head_dim,
		.codec = dtype == NX_F32 ? NX_KV_F32 : NX_KV_BF16,
	};
}

int nx_engine_geometry(struct nx_engine *e, const struct nx_shape *shape, enum nx_dtype dtype,
                       struct nx_kv_geometry *out, struct nx_err *err)
{
	int64_t row = 2 * (int64_t)shape->n_layers * shape->n_kv_heads * shape->head_dim *
	              (int64_t)nx_dtype_bytes(dtype);
	struct nx_kv_demand d = {
		.max_seqs = e->max_seqs,
		.max_len = e->max_len,
		.budget_rows = e->cfg.kv_budget_bytes
	                               ? (int64_t)(e->cfg.kv_budget_bytes / (uint64_t)row)
	                               : INT64_MAX,
		.longest_request = e->longest,
	};
	/* The default of the slot: contiguous, reserved at the longest a sequence can get. */
	struct nx_kv_geometry g = {.block_size = e->max_len,
	                           .n_rows = (int64_t)e->max_seqs * e->max_len,
	                           .keep = true,
	                           .preempt = NX_PREEMPT_NONE};
	if (g.n_rows > d.budget_rows)
		g.n_rows = d.budget_rows;
	if (e->layout) {
		int rc = e->layout->t->kv_geometry(e->layout->self, &d, &g, err);
		if (rc)
			return rc;
	}
	const char *who = e->layout ? e->layout->t->name : "the default kv layout";
	if (g.n_rows == 0)
		return nx_fail(err, NX_ENOSPC,
		               "kv_memory of %llu bytes holds not one KV row of %lld bytes",
		               (unsigned long long)e->cfg.kv_budget_bytes, (long long)row);
	if (g.block_size < 1 || g.n_rows < 1 || g.n_rows > INT32_MAX - 1 || g.swap_rows < 0 ||
	    (g.blocks && g.n_rows < g.block_size))
		return nx_fail(
			err, NX_EINVAL,
			"%s asks for %lld KV rows in blocks of %d; legal: 1 to %d rows, at least a block",
			who, (long long)g.n_rows, g.block_size, INT32_MAX - 1);
	if (g.n_rows > d.budget_rows)
		return nx_fail(err, NX_EINVAL,
		               "%s asks for %lld KV rows and the memory limit allows %lld", who,
		               (long long)g.n_rows, (long long)d.budget_rows);
	/* A request that can never start is better said now than in mid-run. */
	struct nx_kv_want most = {.rows = e->longest,
	                          .n_prompt = e->longest - 1,
	                          .max_out = 1,
	                          .max_len = e->max_len};
	int64_t each = e->layout ? e->layout->t->kv_target(e->layout->self, &most) : e->max_len;
	int64_t all = g.blocks ? each : each * e->cfg.samples;
	if (all > g.n_rows)
		return nx_fail(
			err, NX_ENOSPC,
			"one request of %d samples reserves %lld KV rows with %s and there are %lld: raise kv_memory, "
			"shorten the request, or take a layout that reserves less",
			e->cfg.samples, (long long)all, who, (long long)g.n_rows);
	/* A contiguous layout's one block is the whole sequence. */
	if (!g.blocks)
		g.block_size = e->max_len;
	if (!g.keep)
		e->plan_ahead = false; /* each step needs every token on the host */
	*out = g;
	return 0;
}

int nx_engine_attention(struct nx_engine *e, const struct nx_shape *shape, struct nx_err *err)
{
	e->attn_kernel = NX_ATTN_MATERIALISED;
	e->kv_chunk = 256;
	if (e->attn) {
		struct nx_attn_limits l = {.n_heads = shape->n_heads,
		                           .n_kv_heads = shape->n_kv_heads,
		                           .head_dim = shape->head_dim,
		                           .max_rows = e->max_chunk_rows,
		                           .max_len = e->max_len,
		                           .invariant = e->cfg.invariant};
		int rc = e->attn->t->attention_plan(e->attn->self, &l, &e->attn_kernel,
		                                    &e->kv_chunk, err);
		if (rc)
			return rc;
		if ((unsigned)e->attn_kernel > NX_ATTN_TILED || e->kv_chunk < 1)
			return nx_fail(err, NX_EINVAL,
			               "%s chose attention kernel %d with chunks of %d keys",
			               e->attn->t->name, (int)e->attn_kernel, e->kv_chunk);
	}
	/* Padding never makes a sequence longer than the longest request, or than what a sequence can have. */
	e->workspace_bytes = e->dev->ops->attention_workspace(
		e->dev->dev, e->attn_kernel, e->kv_chunk, shape->n_heads, shape->head_dim,
		e->max_chunk_rows, e->longest);
	return 0;
}

struct nx_act_sizes nx_engine_act_sizes(const struct nx_engine *e, const struct nx_shape *shape)
{
	size_t m = (size_t)e->max_chunk_rows, a = e->act_bytes, emits = (size_t)e->max_seqs;
	size_t d = (size_t)shape->d_model, hd = (size_t)shape->head_dim;
	return (struct nx_act_sizes){
		.x = m * d * a,
		.h = m * d * a,
		.qkv = m * (size_t)(shape->n_heads + 2 * shape->n_kv_heads) * hd * a,
		.attn_out = m * (size_t)shape->n_heads * hd * a,
		.ff = m * (size_t)shape->d_ff * a,
		.lx = emits * d * a,
		.lh = emits * d * a,
		.logits = emits * (size_t)shape->vocab * sizeof(float),
	};
}
