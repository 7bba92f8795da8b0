/* SPDX-License-Identifier: Apache-2.0
 *
 * engine/sizes.c: limits, geometry and bytes of an engine; see impl.h.
 */
#include "engine/impl.h"
#include "nexus_kernels/kv_codec.h"

/* Rows of one forward: enough for full speed of the products, few enough for small buffers. */
#define CHUNK_ROWS 1024

/* What follows from max_rows and the drafter's needs. */
static void size_buffers(struct nx_engine *e)
{
	int32_t each = 1 + e->draft.stride; /* of a decoding sequence: all may draft at once */
	if (e->max_rows < e->max_seqs * each)
		e->max_rows = e->max_seqs * each;
	e->row_cap = e->max_rows + (e->needs.wants_feature ? e->max_seqs * (e->needs.lag + 1) : 0);
	e->max_chunk_rows = e->row_cap < CHUNK_ROWS ? e->row_cap : CHUNK_ROWS;
	e->max_chunks = (e->row_cap + e->max_chunk_rows - 1) / e->max_chunk_rows;
	e->max_segs = e->max_seqs + e->max_chunks;
	e->max_logits = e->max_seqs * each;
}

int nx_engine_sizes(struct nx_engine *e, const struct nx_shape *shape, struct nx_err *err)
{
	const struct nx_engine_config *c = &e->cfg;
	char context[96];
	if (c->batch_size < 1 || c->batch_size > 4096)
		return nx_fail(err, NX_EINVAL, "batch size %d; legal: 1 to 4096", c->batch_size);
	if (c->samples < 1 || c->samples > 256)
		return nx_fail(err, NX_EINVAL, "%d samples a request; legal: 1 to 256", c->samples);
	if (c->max_len < 0 || c->max_len > shape->ctx_len)
		return nx_fail(err, NX_EINVAL, "a length of %d is over the model's context of %s",
		               c->max_len, nx_context_text(shape, context, sizeof(context)));
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
	e->plan_ahead = c->plan_ahead;
	e->codec_layout.window = 1;
	size_buffers(e);
	return 0;
}

static struct nx_group_shape target_group(const struct nx_engine *e, const struct nx_shape *shape,
                                          enum nx_dtype dtype)
{
	struct nx_group_shape g = {
		.n_layers = shape->n_layers,
		.n_kv_heads = shape->n_kv_heads,
		.head_dim = shape->head_dim,
		.codec = dtype == NX_F32 ? NX_KV_F32 : NX_KV_BF16,
		.plain = dtype,
		.window = 1,
		.scratch_cap = e->draft.stride,
	};
	if (e->codec) {
		g.codec = e->codec_layout.codec;
		g.group_size = e->codec_layout.group_size;
		g.row_bytes = e->codec_layout.row_bytes;
		g.window = e->codec_layout.window;
	}
	return g;
}

int32_t nx_engine_groups(const struct nx_engine *e, const struct nx_shape *shape,
                         enum nx_dtype dtype, struct nx_group_shape out[NX_STORE_GROUPS])
{
	const struct nx_draft_needs *n = &e->needs;
	out[0] = target_group(e, shape, dtype);
	if (!n->n_layers)
		return 1;
	out[1] = (struct nx_group_shape){
		.n_layers = n->n_layers,
		.n_kv_heads = n->n_kv_heads,
		.head_dim = n->head_dim,
		.codec = dtype == NX_F32 ? NX_KV_F32 : NX_KV_BF16,
		.plain = dtype,
		.window = 1,
		.scratch_cap = n->scratch_rows,
	};
	return 2;
}

int nx_engine_draft_needs(struct nx_engine *e, const struct nx_shape *shape, enum nx_dtype dtype,
                          struct nx_err *err)
{
	struct nx_draft_needs needs = {0}, *n = &needs; /* believed when it has been checked */
	struct nx_device_info info;
	if (!e->drafter)
		return 0;
	const char *who = e->drafter->t->name;
	e->dev->ops->info(e->dev->dev, &info);
	struct nx_draft_limits l = {.max_seqs = e->max_seqs,
	                            .max_len = e->max_len,
	                            .max_chunk_rows = CHUNK_ROWS,
	                            .act_dtype = info.act_dtype,
	                            .plain = dtype,
	                            .invariant = e->cfg.invariant};
	int rc = e->drafter->t->draft_needs(e->drafter->self, &l, n, err);
	if (rc)
		return rc;
	if (n->max_rows < 1 || n->max_rows > 1024 || n->n_taps < 0 || n->n_taps > NX_TAP_MAX ||
	    n->lag < 0 || n->lag > 4096 || n->n_layers < 0 || n->n_layers > 1024)
		return nx_fail(
			err, NX_EINVAL,
			"%s wants %d drafted rows, %d taps, a lag of %d and %d layers; legal: 1 to 1024, 0 to %d, "
			"0 to 4096, 0 to 1024",
			who, n->max_rows, n->n_taps, n->lag, n->n_layers, NX_TAP_MAX);
	if (n->n_layers && (n->n_kv_heads < 1 || n->n_kv_heads > 1024 || n->head_dim < 1 ||
	                    n->head_dim > 4096 || n->scratch_rows < 0 || n->scratch_rows > 4096))
		return nx_fail(
			err, NX_EINVAL,
			"%s wants a layer group of %d heads of %d with %d scratch rows; legal: 1 to 1024, 1 to 4096, "
			"0 to 4096",
			who, n->n_kv_heads, n->head_dim, n->scratch_rows);
	for (int32_t i = 0; i < n->n_taps; i++)
		if (n->taps[i].layer < 0 || n->taps[i].layer > shape->n_layers)
			return nx_fail(err, NX_EINVAL, "%s taps layer %d; the model has 0 to %d",
			               who, n->taps[i].layer, shape->n_layers);
	if (n->q && n->q_cols < 1)
		return nx_fail(err, NX_EINVAL, "%s draws from %d tokens; at least 1 is needed", who,
		               n->q_cols);
	e->needs = needs;
	e->draft.stride = n->max_rows;
	e->draft.q = n->q;
	e->draft.q_cols = n->q_cols;
	e->draft.q_token = n->q_token;
	size_buffers(e);
	return 0;
}

/* A codec of the device's own: can it, and how many bytes are its rows? */
static int device_codec(const struct nx_engine *e, const struct nx_shape *shape, const char *who,
                        struct nx_codec_layout *o, struct nx_err *err)
{
	static const char *const names[] = {
#define X(name, text, bits, help) text,
		NX_KV_CODECS(X)
#undef X
	};
	struct nx_device_info info;
	e->dev->ops->info(e->dev->dev, &info);
	if ((unsigned)o->codec >= NX_KV_CODEC_COUNT)
		return nx_fail(err, NX_EINVAL, "%s chose KV codec %d; there are 0 to %d", who,
		               (int)o->codec, NX_KV_CODEC_COUNT - 1);
	const char *why = nx_kv_codec_refusal(o->codec, shape->head_dim, o->group_size, o->window);
	if (why)
		return nx_fail(
			err, NX_ENOTSUP,
			"%s: %s in groups of %d and windows of %d does not fit heads of %d: %s",
			who, names[o->codec], o->group_size, o->window, shape->head_dim, why);
	if (!(info.kv_codecs & 1u << o->codec))
		return nx_fail(err, NX_ENOTSUP, "%s: the device %s has no KV codec %s", who,
		               e->dev->ops->name, names[o->codec]);
	o->row_bytes = (int32_t)nx_kv_coded_row_bytes(o->codec, shape->n_kv_heads, shape->head_dim,
	                                              o->group_size);
	return 0;
}

int nx_engine_codec(struct nx_engine *e, const struct nx_shape *shape, enum nx_dtype dtype,
                    const struct nx_kv_geometry *geo, struct nx_err *err)
{
	struct nx_codec_layout *o = &e->codec_layout;
	if (!e->codec)
		return 0;
	const char *who = e->codec->t->name;
	struct nx_codec_limits l = {
		.n_layers = shape->n_layers,
		.n_heads = shape->n_heads,
		.n_kv_heads = shape->n_kv_heads,
		.head_dim = shape->head_dim,
		.block_size = geo && geo->blocks ? geo->block_size : 0,
		.max_seqs = e->max_seqs,
		.max_rows = e->max_chunk_rows,
		.max_len = e->max_len,
		.plain = dtype,
		.invariant = e->cfg.invariant,
	};
	int rc = e->codec->t->codec_layout(e->codec->self, &l, o, err);
	if (rc)
		return rc;
	e->own_codec = o->codec <= NX_KV_OWN;
	if (e->own_codec && !e->codec->t->codec_attend)
		return nx_fail(err, NX_EABI,
		               "%s has a codec of its own and lacks the hook codec_attend", who);
	if (e->own_codec)
		o->codec = NX_KV_OWN;
	else
		rc = device_codec(e, shape, who, o, err);
	if (rc)
		return rc;
	if (o->row_bytes < 1 || o->window < 1 || o->window > 4096)
		return nx_fail(
			err, NX_EINVAL,
			"%s encodes %d tokens at a time in %d bytes each; legal: 1 to 4096, at least 1",
			who, o->window, o->row_bytes);
	if (e->own_codec && o->window > 1 && !e->codec->t->codec_commit)
		return nx_fail(err, NX_EABI,
		               "%s encodes groups of %d tokens and lacks the hook codec_commit",
		               who, o->window);
	if (geo && geo->blocks && geo->block_size % o->window)
		return nx_fail(
			err, NX_ECONFLICT,
			"%s encodes groups of %d tokens, of which blocks of %d are no multiple: choose a "
			"block_size that is",
			who, o->window, geo->block_size);
	return 0;
}

int nx_engine_prefix(struct nx_engine *e, const struct nx_kv_geometry *geo, int64_t row_bytes,
                     struct nx_err *err)
{
	struct nx_prefix_geometry *g = &e->prefix_geo;
	if (!e->prefix)
		return 0;
	const char *who = e->prefix->t->name;
	uint64_t left = e->cfg.kv_budget_bytes;
	if (left)
		left -= (uint64_t)(geo->n_rows * row_bytes) < left
		                ? (uint64_t)(geo->n_rows * row_bytes)
		                : left;
	/* What entries depend on. One engine has one model and one stack, so within it the key is constant. */
	uint64_t key = 0xcbf29ce484222325ull;
	for (int32_t i = 0; i < e->n_hooks; i++)
		for (const char *c = e->hooks[i].t->name; *c; c++)
			key = (key ^ (uint8_t)*c) * 0x100000001b3ull;
	struct nx_prefix_limits l = {
		.block_size = geo->blocks ? geo->block_size : 0,
		.align = e->codec_layout.window,
		.max_len = e->max_len,
		.budget_rows =
			e->cfg.kv_budget_bytes ? (int64_t)(left / (uint64_t)row_bytes) : INT64_MAX,
		.key = key,
		.pool_rows = geo->n_rows,
	};
	int rc = e->prefix->t->prefix_geometry(e->prefix->self, &l, g, err);
	if (rc)
		return rc;
	if (geo->blocks) {
		g->block_size = geo->block_size;
		g->n_rows = 0;
	}
	if (g->block_size < 1 || g->block_size > e->max_len || g->n_rows < 0 ||
	    (!geo->blocks && g->n_rows < g->block_size) || g->n_rows > l.budget_rows ||
	    g->n_rows + geo->n_rows > INT32_MAX - 1 || g->block_size % l.align)
		return nx_fail(
			err, NX_EINVAL,
			"%s asks for %lld rows in blocks of %d; legal: whole blocks of a multiple of %d tokens, "
			"at most %lld rows",
			who, (long long)g->n_rows, g->block_size, l.align,
			(long long)(l.budget_rows == INT64_MAX ? INT32_MAX - 1 - geo->n_rows
		                                               : l.budget_rows));
	return 0;
}

int nx_engine_geometry(struct nx_engine *e, const struct nx_shape *shape, enum nx_dtype dtype,
                       struct nx_kv_geometry *out, struct nx_err *err)
{
	struct nx_group_shape groups[NX_STORE_GROUPS];
	/* A codec says its bytes first, then sees the blocks. */
	int rc = nx_engine_codec(e, shape, dtype, NULL, err);
	if (rc)
		return rc;
	int64_t row = 0;
	for (int32_t i = 0, n = nx_engine_groups(e, shape, dtype, groups); i < n; i++)
		row += 2 * (int64_t)groups[i].n_layers * nx_group_row_bytes(&groups[i]);
	struct nx_kv_demand d = {
		.max_seqs = e->max_seqs,
		.max_len = e->max_len,
		.budget_rows = e->cfg.kv_budget_bytes
	                               ? (int64_t)(e->cfg.kv_budget_bytes / (uint64_t)row)
	                               : INT64_MAX,
		.longest_request = e->longest + nx_wasted_rows(e),
	};
	if (d.longest_request > e->max_len)
		d.longest_request = e->max_len;
	/* The default of the slot: contiguous, reserved at the longest a sequence can get. */
	struct nx_kv_geometry g = {.block_size = e->max_len,
	                           .n_rows = (int64_t)e->max_seqs * e->max_len,
	                           .keep = true,
	                           .preempt = NX_PREEMPT_NONE};
	if (g.n_rows > d.budget_rows)
		g.n_rows = d.budget_rows;
	if (e->layout) {
		rc = e->layout->t->kv_geometry(e->layout->self, &d, &g, err);
		if (rc)
			return rc;
	}
	const char *who = e->layout ? e->layout->t->name : "the default kv layout";
	if (g.n_rows == 0)
		return nx_fail(
			err, NX_ENOSPC,
			"kv_memory of %llu bytes holds not one KV row of %lld bytes; legal: room for a request",
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
	                          .max_out = 1 + nx_wasted_rows(e),
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
	rc = nx_engine_codec(e, shape, dtype, out, err);
	return rc ? rc : nx_engine_prefix(e, out, row, err);
}

int32_t nx_engine_product_rows(const struct nx_engine *e, const struct nx_kv_geometry *geo)
{
	int32_t prompt = e->cfg.longest_prompt ? e->cfg.longest_prompt : e->longest;
	int32_t decode = e->max_seqs * (1 + e->draft.stride);
	/* Where a sequence may be computed again, its output counts as prompt. */
	if (!geo->keep || geo->preempt == NX_PREEMPT_RECOMPUTE)
		prompt = e->longest;
	int64_t rows = (int64_t)e->cfg.batch_size * prompt;
	if (rows < decode)
		rows = decode;
	return rows < e->max_chunk_rows ? (int32_t)rows : e->max_chunk_rows;
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
	size_t m = (size_t)e->max_chunk_rows, a = e->act_bytes, emits = (size_t)e->max_logits;
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
		.taps = m * d * a,
	};
}
