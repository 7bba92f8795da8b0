/* SPDX-License-Identifier: Apache-2.0
 *
 * engine/forward.c: draft, one pass of the model over a step's rows, verdict and commit. Everything here is
 * enqueued; nothing waits. What nx_forward() enqueues depends on the step's shape alone (launch.c), so that it can be
 * captured.
 */
#include "engine/clock.h"
#include "engine/impl.h"

/* Copies what the drafter taps of the residual stream entering layer l, before (x) or after its norm (h). */
static int tap(struct nx_engine *e, int32_t l, bool normed, const void *from, int32_t rows,
               struct nx_err *err)
{
	const struct nx_draft_needs *n = &e->needs;
	size_t bytes = (size_t)rows * (size_t)e->w->shape.d_model * e->act_bytes;
	for (int32_t i = 0; i < n->n_taps; i++) {
		if (n->taps[i].layer != l || n->taps[i].normed != normed)
			continue;
		int rc = e->dev->ops->copy(e->dev->dev, e->stream, e->taps[i], from, bytes, NX_D2D,
		                           err);
		if (rc)
			return rc;
	}
	return 0;
}

static int attend(struct nx_engine *e, const struct nx_attention *a, struct nx_err *err)
{
	if (!e->own_codec)
		return e->dev->ops->attention(e->dev->dev, e->stream, a, err);
	struct nx_codec_step step = {.attention = a, .qkv = e->qkv};
	return e->codec->t->codec_attend(e->codec->self, e->stream, &step, err);
}

static int layer(struct nx_engine *e, const struct nx_chunk *c, const struct nx_rows *rows,
                 int32_t l, struct nx_err *err)
{
	const struct nx_device_ops *ops = e->dev->ops;
	const struct nx_shape *s = &e->w->shape;
	const struct nx_layer_weights *w = &e->w->layers[l];
	const struct nx_kv *kv = &e->store.kv[0];
	void *dev = e->dev->dev;
	int32_t m = rows->n_rows;
	int rc;

	rc = tap(e, l, false, e->x, m, err);
	if (rc)
		return rc;
	rc = ops->rmsnorm(dev, e->stream, e->h, e->x, w->attn_norm, m, s->d_model, s->norm_eps,
	                  err);
	if (!rc)
		rc = tap(e, l, true, e->h, m, err);
	if (rc)
		return rc;
	struct nx_linear qkv = {.m = m, .x = e->h, .y = e->qkv, .epilogue = NX_EPI_STORE};
	rc = nx_product(e, NX_WEIGHT_QKV, l, w->qkv, &qkv, err);
	if (rc)
		return rc;
	struct nx_rope_store rope = {.rows = rows,
	                             .state = &e->state,
	                             .kv = kv,
	                             .layer = l,
	                             .n_heads = s->n_heads,
	                             .rope_dim = s->rope_dim,
	                             .n_redo = c->n_redo,
	                             .inv_freq = e->w->inv_freq,
	                             .qkv = e->qkv,
	                             .bias = w->bias,
	                             .q_norm = w->q_norm,
	                             .k_norm = w->k_norm,
	                             .norm_eps = s->norm_eps};
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
	rc = attend(e, &a, err);
	if (rc)
		return rc;
	struct nx_linear o = {.m = m, .x = e->attn_out, .y = e->x, .epilogue = NX_EPI_ADD};
	rc = nx_product(e, NX_WEIGHT_O, l, w->o, &o, err);
	if (rc)
		return rc;

	rc = ops->rmsnorm(dev, e->stream, e->h, e->x, w->ffn_norm, m, s->d_model, s->norm_eps, err);
	if (rc)
		return rc;
	struct nx_linear gu = {.m = m, .x = e->h, .y = e->ff, .epilogue = NX_EPI_SWIGLU};
	rc = nx_product(e, NX_WEIGHT_GATE_UP, l, w->gate_up, &gu, err);
	if (rc)
		return rc;
	struct nx_linear down = {.m = m, .x = e->ff, .y = e->x, .epilogue = NX_EPI_ADD};
	return nx_product(e, NX_WEIGHT_DOWN, l, w->down, &down, err);
}

static const void *dev_at(const struct nx_engine *e, size_t offset)
{
	return e->plan_dev + offset;
}

static const int32_t *dev_rows(const struct nx_engine *e, size_t offset, int32_t row0)
{
	return (const int32_t *)dev_at(e, offset) + row0;
}

/* The drafter writes its rows, and they take their places among the step's. */
static int draft(struct nx_engine *e, struct nx_step *st, struct nx_err *err)
{
	const struct nx_plan_layout *lay = &e->lay;
	const struct nx_technique *t = e->drafter->t;
	const struct nx_draft_span *spans = dev_at(e, lay->spans);
	const struct nx_kv *kv = e->needs.n_layers ? &e->store.kv[1] : NULL;
	uint64_t begin = nx_now_ns();
	int rc = 0;
	if (t->draft) {
		const struct nx_draft_step step = {
			.out = &e->draft,
			.spans = spans,
			.spans_host =
				(const struct nx_draft_span *)(const void *)(st->host + lay->spans),
			.n_spans = e->n_spans,
			.last = &e->verdict,
			.state = &e->state,
			.samplers = e->samplers,
			.target = &e->target,
			.kv = kv,
			.group = kv ? &e->group : NULL,
		};
		nx_count_hook_begin(e);
		rc = t->draft(e->drafter->self, e->stream, &step, err);
		nx_count_hook_end(e, NX_UNSEEN_DRAFT);
	}
	st->info.draft_ns += nx_now_ns() - begin;
	if (rc || !e->n_drafted)
		return rc;
	uint8_t *d = e->plan_dev;
#define ROWS(field) ((int32_t *)(void *)(d + lay->field))
	const struct nx_draft_rows out = {.token = ROWS(token),
	                                  .slot_off = ROWS(slot_off),
	                                  .pos_off = ROWS(pos_off),
	                                  .kind = ROWS(kind),
	                                  .scratch = ROWS(scratch),
	                                  .n_anc = ROWS(n_anc),
	                                  .anc = ROWS(anc),
	                                  .anc_stride = e->draft.stride};
#undef ROWS
	return e->dev->ops->draft_rows(e->dev->dev, e->stream, &e->draft, spans, e->n_spans,
	                               e->w->shape.vocab, e->codec_layout.window, &e->state, &out,
	                               err);
}

static int observe(struct nx_engine *e, struct nx_step *st, const struct nx_chunk *c,
                   const struct nx_rows *rows, struct nx_err *err)
{
	const struct nx_technique *t = e->drafter->t;
	const struct nx_kv *kv = e->needs.n_layers ? &e->store.kv[1] : NULL;
	const struct nx_observe o = {.rows = rows,
	                             .seqs_host = e->observed + c->observed0,
	                             .n_seqs = c->n_observed,
	                             .taps = e->taps,
	                             .state = &e->state,
	                             .target = &e->target,
	                             .kv = kv,
	                             .group = kv ? &e->group : NULL};
	uint64_t begin = nx_now_ns();
	nx_count_hook_begin(e);
	int rc = t->observe(e->drafter->self, e->stream, &o, err);
	nx_count_hook_end(e, NX_UNSEEN_OBSERVE);
	st->info.draft_ns += nx_now_ns() - begin;
	return rc;
}

/* One forward: all layers over the chunk's rows; rows whose logits are wanted are gathered into lx. */
static int chunk(struct nx_engine *e, struct nx_step *st, const struct nx_chunk *c,
                 struct nx_err *err)
{
	const struct nx_device_ops *ops = e->dev->ops;
	const struct nx_shape *s = &e->w->shape;
	const struct nx_plan_layout *lay = &e->lay;
	int32_t stride = e->n_drafted ? e->draft.stride : 0;
	const struct nx_rows rows = {
		.n_rows = c->n_rows,
		.n_segments = c->n_segs,
		.anc_stride = stride,
		.max_keys = c->max_keys,
		.seq = dev_rows(e, lay->seq, c->row0),
		.token = dev_rows(e, lay->token, c->row0),
		.slot_off = dev_rows(e, lay->slot_off, c->row0),
		.pos_off = dev_rows(e, lay->pos_off, c->row0),
		.kind = dev_rows(e, lay->kind, c->row0),
		.scratch = dev_rows(e, lay->scratch, c->row0),
		.n_anc = dev_rows(e, lay->n_anc, c->row0),
		.anc = stride ? dev_rows(e, lay->anc, 0) + (int64_t)c->row0 * stride : NULL,
		.segments = (const struct nx_segment *)dev_at(e, lay->segments) + c->seg0,
	};
	int rc = ops->embed(e->dev->dev, e->stream, &rows, &e->state, e->w->embed, e->x, err);
	for (int32_t l = 0; l < s->n_layers && !rc; l++)
		rc = layer(e, c, &rows, l, err);
	if (!rc)
		rc = tap(e, s->n_layers, false, e->x, c->n_rows, err);
	for (int32_t i = 0; i < e->needs.n_taps && !rc; i++)
		if (e->needs.taps[i].layer == s->n_layers && e->needs.taps[i].normed)
			rc = ops->rmsnorm(e->dev->dev, e->stream, e->taps[i], e->x, e->w->out_norm,
			                  c->n_rows, s->d_model, s->norm_eps, err);
	if (!rc && c->n_observed)
		rc = observe(e, st, c, &rows, err);
	if (rc || !c->n_gather)
		return rc;

	size_t row_bytes = (size_t)s->d_model * e->act_bytes;
	return ops->gather(e->dev->dev, e->stream,
	                   (uint8_t *)e->lx + (size_t)c->gather0 * row_bytes, e->x,
	                   dev_rows(e, lay->gather, c->gather0), c->n_gather, s->d_model, err);
}

static int judged(struct nx_engine *e, struct nx_step *st, const struct nx_emit *emit,
                  struct nx_err *err)
{
	const struct nx_judged j = {.logits = e->logits,
	                            .vocab = e->w->shape.vocab,
	                            .emit = emit,
	                            .n_emit = e->n_emits,
	                            .draft = &e->draft,
	                            .verdict = &e->verdict,
	                            .state = &e->state};
	uint64_t begin = nx_now_ns();
	int rc = e->drafter->t->judged(e->drafter->self, e->stream, &j, err);
	st->info.draft_ns += nx_now_ns() - begin;
	return rc;
}

/* Logits, verdicts, and the accepted rows to where they stay. */
static int draw(struct nx_engine *e, struct nx_step *st, struct nx_err *err)
{
	const struct nx_device_ops *ops = e->dev->ops;
	const struct nx_shape *s = &e->w->shape;
	const struct nx_emit *emit = dev_at(e, e->lay.emits);
	void *dev = e->dev->dev;
	int rc = ops->rmsnorm(dev, e->stream, e->lh, e->lx, e->w->out_norm, e->n_gather, s->d_model,
	                      s->norm_eps, err);
	if (rc)
		return rc;
	struct nx_linear out = {.m = e->n_gather,
	                        .x = e->lh,
	                        .y = e->logits,
	                        .epilogue = NX_EPI_STORE,
	                        .y_f32 = true};
	rc = nx_product(e, NX_WEIGHT_OUTPUT, 0, e->w->output, &out, err);
	if (rc)
		return rc;
	struct nx_sample sample = {
		.logits = e->logits,
		.n_emit = e->n_emits,
		.vocab = s->vocab,
		.emit = emit,
		.samplers = e->samplers,
		.state = &e->state,
		.draft = e->n_drafted ? &e->draft : NULL,
		.verdict = &e->verdict,
		.force = e->forced ? dev_rows(e, e->lay.force, 0) : NULL,
		.override = e->overridden ? dev_at(e, e->lay.override) : NULL,
	};
	rc = ops->sample(dev, e->stream, &sample, err);
	if (!rc && e->drafter && e->drafter->t->judged)
		rc = judged(e, st, emit, err);
	if (!rc && e->n_drafted)
		rc = ops->kv_compact(dev, e->stream, &e->store.kv[0], &e->state, emit, e->n_emits,
		                     &e->verdict, err);
	if (!rc && e->n_drafted && e->own_codec && e->codec->t->codec_commit) {
		const struct nx_codec_commit c = {.kv = &e->store.kv[0],
		                                  .state = &e->state,
		                                  .emit = emit,
		                                  .n_emit = e->n_emits,
		                                  .verdict = &e->verdict};
		rc = e->codec->t->codec_commit(e->codec->self, e->stream, &c, err);
	}
	return rc;
}

static int commit(struct nx_engine *e, int32_t from, int32_t to, struct nx_err *err)
{
	const struct nx_commit *c = dev_at(e, e->lay.commits);
	return from == to ? 0
	                  : e->dev->ops->commit(e->dev->dev, e->stream, c + from, to - from,
	                                        &e->verdict, &e->state, err);
}

int nx_forward(struct nx_engine *e, struct nx_step *st, struct nx_err *err)
{
	int rc = commit(e, 0, e->n_before, err);
	if (!rc && e->n_spans)
		rc = draft(e, st, err);
	for (int32_t c = 0; c < e->n_chunks && !rc; c++)
		rc = chunk(e, st, &e->chunks[c], err);
	if (!rc && e->n_emits)
		rc = draw(e, st, err);
	return rc ? rc : commit(e, e->n_before, e->n_commits, err);
}

/* A verdict stands until its place is decided on again, so it may be read after the commit. */
static int read_back(struct nx_engine *e, struct nx_step *st, struct nx_err *err)
{
	const struct nx_device_ops *ops = e->dev->ops;
	size_t seqs = (size_t)e->max_seqs * sizeof(int32_t),
	       path = seqs * (size_t)e->verdict.stride;
	int rc = ops->copy(e->dev->dev, e->stream, st->tokens, e->verdict.token, path, NX_D2H, err);
	if (!rc && e->n_drafted)
		rc = ops->copy(e->dev->dev, e->stream, st->accepted, e->verdict.n_accepted, seqs,
		               NX_D2H, err);
	if (!rc && e->n_drafted && e->sink->logits)
		rc = ops->copy(e->dev->dev, e->stream, st->path, e->verdict.path, path, NX_D2H,
		               err);
	return rc;
}

int nx_forward_end(struct nx_engine *e, struct nx_step *st, struct nx_err *err)
{
	int rc = e->n_emits ? read_back(e, st, err) : 0;
	e->n_before = e->n_commits = 0;
	/* Copies that a fork queued read what this step has written. */
	if (!rc)
		rc = nx_store_flush_copies(&e->store, e->stream, err);
	return rc ? rc : e->dev->ops->event_record(e->dev->dev, e->stream, st->done, err);
}
