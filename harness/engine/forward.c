/* SPDX-License-Identifier: Apache-2.0
 *
 * engine/forward.c: one pass of the model over a step's rows, then sampling and commit. Everything here is
 * enqueued; nothing waits.
 */
#include "engine/impl.h"

static int layer(struct nx_engine *e, const struct nx_rows *rows, int32_t l, struct nx_err *err)
{
	const struct nx_device_ops *ops = e->dev->ops;
	const struct nx_shape *s = &e->w->shape;
	const struct nx_layer_weights *w = &e->w->layers[l];
	const struct nx_kv *kv = &e->store.kv[0];
	void *dev = e->dev->dev;
	int32_t m = rows->n_rows;
	int rc;

	rc = ops->rmsnorm(dev, e->stream, e->h, e->x, w->attn_norm, m, s->d_model, s->norm_eps,
	                  err);
	if (rc)
		return rc;
	struct nx_linear qkv = {
		.w = w->qkv, .m = m, .x = e->h, .y = e->qkv, .epilogue = NX_EPI_STORE};
	rc = ops->linear(dev, e->stream, &qkv, err);
	if (rc)
		return rc;
	struct nx_rope_store rope = {.rows = rows,
	                             .state = &e->state,
	                             .kv = kv,
	                             .layer = l,
	                             .n_heads = s->n_heads,
	                             .rope_dim = s->rope_dim,
	                             .inv_freq = e->w->inv_freq,
	                             .qkv = e->qkv};
	rc = ops->rope_store(dev, e->stream, &rope, err);
	if (rc)
		return rc;
	struct nx_attention a = {.rows = rows,
	                         .state = &e->state,
	                         .kv = kv,
	                         .layer = l,
	                         .n_heads = s->n_heads,
	                         .scale = 1.0f / __builtin_sqrtf((float)s->head_dim),
	                         .q = e->qkv,
	                         .q_stride =
	                                 (int64_t)(s->n_heads + 2 * s->n_kv_heads) * s->head_dim,
	                         .out = e->attn_out,
	                         .kernel = e->attn_kernel,
	                         .kv_chunk = e->kv_chunk,
	                         .workspace = e->workspace,
	                         .workspace_bytes = e->workspace_bytes};
	rc = ops->attention(dev, e->stream, &a, err);
	if (rc)
		return rc;
	struct nx_linear o = {
		.w = w->o, .m = m, .x = e->attn_out, .y = e->x, .epilogue = NX_EPI_ADD};
	rc = ops->linear(dev, e->stream, &o, err);
	if (rc)
		return rc;

	rc = ops->rmsnorm(dev, e->stream, e->h, e->x, w->ffn_norm, m, s->d_model, s->norm_eps, err);
	if (rc)
		return rc;
	struct nx_linear gu = {
		.w = w->gate_up, .m = m, .x = e->h, .y = e->ff, .epilogue = NX_EPI_SWIGLU};
	rc = ops->linear(dev, e->stream, &gu, err);
	if (rc)
		return rc;
	struct nx_linear down = {
		.w = w->down, .m = m, .x = e->ff, .y = e->x, .epilogue = NX_EPI_ADD};
	return ops->linear(dev, e->stream, &down, err);
}

static const int32_t *dev_rows(const struct nx_engine *e, size_t offset, int32_t row0)
{
	return (const int32_t *)(const void *)(e->plan_dev + offset) + row0;
}

/* One forward: all layers over the chunk's rows; rows that draw a token are gathered into lx. */
static int chunk(struct nx_engine *e, const struct nx_chunk *c, struct nx_err *err)
{
	const struct nx_device_ops *ops = e->dev->ops;
	const struct nx_shape *s = &e->w->shape;
	const struct nx_plan_layout *lay = &e->lay;
	const struct nx_rows rows = {
		.n_rows = c->n_rows,
		.n_segments = c->n_segs,
		.max_keys = c->max_keys,
		.seq = dev_rows(e, lay->seq, c->row0),
		.token = dev_rows(e, lay->token, c->row0),
		.slot_off = dev_rows(e, lay->slot_off, c->row0),
		.pos_off = dev_rows(e, lay->pos_off, c->row0),
		.kind = dev_rows(e, lay->kind, c->row0),
		.scratch = dev_rows(e, lay->scratch, c->row0),
		.n_anc = dev_rows(e, lay->n_anc, c->row0),
		.segments = (const struct nx_segment *)(const void *)(e->plan_dev + lay->segments) +
	                    c->seg0,
	};
	int rc = ops->embed(e->dev->dev, e->stream, &rows, &e->state, e->w->embed, e->x, err);
	for (int32_t l = 0; l < s->n_layers && !rc; l++)
		rc = layer(e, &rows, l, err);
	if (rc || !c->n_gather)
		return rc;

	size_t row_bytes = (size_t)s->d_model * e->act_bytes;
	const int32_t *index =
		(const int32_t *)(const void *)(e->plan_dev + lay->gather) + c->gather0;
	return ops->gather(e->dev->dev, e->stream,
	                   (uint8_t *)e->lx + (size_t)c->gather0 * row_bytes, e->x, index,
	                   c->n_gather, s->d_model, err);
}

static int draw(struct nx_engine *e, struct nx_step *st, struct nx_err *err)
{
	const struct nx_device_ops *ops = e->dev->ops;
	const struct nx_shape *s = &e->w->shape;
	void *dev = e->dev->dev;
	int rc = ops->rmsnorm(dev, e->stream, e->lh, e->lx, e->w->out_norm, e->n_gather, s->d_model,
	                      s->norm_eps, err);
	if (rc)
		return rc;
	struct nx_linear out = {.w = e->w->output,
	                        .m = e->n_gather,
	                        .x = e->lh,
	                        .y = e->logits,
	                        .epilogue = NX_EPI_STORE,
	                        .y_f32 = true};
	rc = ops->linear(dev, e->stream, &out, err);
	if (rc)
		return rc;
	struct nx_sample sample = {
		.logits = e->logits,
		.n_emit = e->n_emits,
		.vocab = s->vocab,
		.emit = (const struct nx_emit *)(const void *)(e->plan_dev + e->lay.emits),
		.samplers = e->samplers,
		.state = &e->state,
		.verdict = &e->verdict,
	};
	rc = ops->sample(dev, e->stream, &sample, err);
	if (rc)
		return rc;
	return ops->copy(dev, e->stream, st->tokens, e->verdict.token,
	                 (size_t)e->max_seqs * sizeof(int32_t), NX_D2H, err);
}

int nx_forward(struct nx_engine *e, struct nx_step *st, struct nx_err *err)
{
	const struct nx_device_ops *ops = e->dev->ops;
	int rc = 0;
	for (int32_t c = 0; c < e->n_chunks && !rc; c++)
		rc = chunk(e, &e->chunks[c], err);
	if (!rc && e->n_emits)
		rc = draw(e, st, err);
	if (!rc && e->n_commits)
		rc = ops->commit(
			e->dev->dev, e->stream,
			(const struct nx_commit *)(const void *)(e->plan_dev + e->lay.commits),
			e->n_commits, &e->verdict, &e->state, err);
	/* Copies that a fork queued read what this step has written. */
	if (!rc)
		rc = nx_store_flush_copies(&e->store, e->stream, err);
	if (!rc)
		rc = ops->event_record(e->dev->dev, e->stream, st->done, err);
	return rc;
}
