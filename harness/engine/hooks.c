/* SPDX-License-Identifier: Apache-2.0
 *
 * engine/hooks.c: instances of a stack's techniques; see impl.h.
 */
#include <string.h>

#include "engine/impl.h"

static void *host_alloc(void *ctx, enum nx_mem kind, size_t bytes)
{
	struct nx_owner_ctx *o = ctx;
	return nx_engine_alloc(o->e, o->owner, kind, bytes);
}

static void host_free(void *ctx, enum nx_mem kind, void *p, size_t bytes)
{
	struct nx_owner_ctx *o = ctx;
	nx_engine_free(o->e, o->owner, kind, p, bytes);
}

static int32_t host_hold(void *ctx, int32_t place, int32_t index)
{
	struct nx_owner_ctx *o = ctx;
	return nx_store_hold(&o->e->store, place, index);
}

static void host_release(void *ctx, int32_t block)
{
	struct nx_owner_ctx *o = ctx;
	/* A wrong number is a bug of the technique; the next step ends with the sentence. */
	if (nx_store_let_go(&o->e->store, block, o->e->late_err.code ? NULL : &o->e->late_err))
		return;
}

static bool host_idle(void *ctx, int32_t block)
{
	const struct nx_owner_ctx *o = ctx;
	return nx_store_idle(&o->e->store, block);
}

static int32_t most_rows(const struct nx_engine *e)
{
	return e->max_chunk_rows > e->max_logits ? e->max_chunk_rows : e->max_logits;
}

static void fill_host(struct nx_engine *e, struct nx_slot_hook *h)
{
	const struct nx_shape *s = &e->w->shape;
	h->owner = (struct nx_owner_ctx){.e = e, .owner = nx_engine_owner(e, h->t->name)};
	h->host = (struct nx_host){
		.abi = NX_TECHNIQUE_ABI,
		.size = sizeof(struct nx_host),
		.ctx = &h->owner,
		.ops = e->dev->ops,
		.dev = e->dev->dev,
		.model = {.n_layers = s->n_layers,
	                  .d_model = s->d_model,
	                  .n_heads = s->n_heads,
	                  .n_kv_heads = s->n_kv_heads,
	                  .head_dim = s->head_dim,
	                  .d_ff = s->d_ff,
	                  .vocab = s->vocab,
	                  .max_len = e->max_len},
		.batch_size = e->cfg.batch_size,
		.max_seqs = e->max_seqs,
		.max_rows = most_rows(e),
		.max_len = e->max_len,
		.invariant = e->cfg.invariant,
		.alloc = host_alloc,
		.free = host_free,
		.kv_hold = host_hold,
		.kv_release = host_release,
		.kv_idle = host_idle,
	};
}

static int create_one(struct nx_engine *e, const struct nx_layer *l, struct nx_err *err)
{
	struct nx_slot_hook *h = &e->hooks[e->n_hooks];
	h->t = l->plugin->technique;
	fill_host(e, h);
	if (h->t->probe) {
		struct nx_device_info info;
		e->dev->ops->info(e->dev->dev, &info);
		struct nx_probe p = {.model = h->host.model,
		                     .batch_size = e->cfg.batch_size,
		                     .max_seqs = e->max_seqs,
		                     .max_len = e->max_len,
		                     .values = l->values,
		                     .device_caps = info.caps};
		snprintf(p.device_kind, sizeof(p.device_kind), "%s", e->dev->ops->name);
		int rc = h->t->probe(&p, err);
		if (rc)
			return rc;
		h->probe_bytes = p.host_bytes + p.device_bytes;
	}
	int rc = h->t->create(&h->self, &h->host, l->values, err);
	if (rc)
		return rc;
	e->n_hooks++;
	uint32_t slots = l->plugin->slots;
	if (slots & 1u << NX_SLOT_SCHEDULE)
		e->sched = h;
	if (slots & 1u << NX_SLOT_KV_LAYOUT)
		e->layout = h;
	if (slots & 1u << NX_SLOT_KV_CODEC)
		e->codec = h;
	if (h->t->attention_plan)
		e->attn = h;
	if (slots & 1u << NX_SLOT_PREFIX)
		e->prefix = h;
	if (slots & 1u << NX_SLOT_DRAFT)
		e->drafter = h;
	if (slots & 1u << NX_SLOT_WEIGHTS)
		e->packer = h;
	if (slots & 1u << NX_SLOT_LAUNCH)
		e->launcher = h;
	e->broken |= nx_plugin_breaks(l->plugin);
	if (h->t->flags & NX_TECH_NEEDS_TOKENS)
		e->plan_ahead = false;
	return 0;
}

int nx_hooks_create(struct nx_engine *e, const struct nx_shape *shape, struct nx_err *err)
{
	const struct nx_stack *s = e->cfg.stack;
	const struct nx_layer *drafter = nx_stack_slot(s, NX_SLOT_DRAFT);
	int rc = 0;
	/* The drafter first: its rows decide how large everything of the others has to be. */
	if (drafter)
		rc = create_one(e, drafter, err);
	if (!rc)
		rc = nx_engine_draft_needs(e, shape, e->w->dtype, err);
	if (!rc && drafter)
		e->drafter->host.max_rows = most_rows(e);
	for (int32_t i = 0; i < s->n_layers && !rc; i++)
		if (&s->layers[i] != drafter)
			rc = create_one(e, &s->layers[i], err);
	e->holds_places = !e->sched || (e->sched->t->flags & NX_TECH_HOLDS_PLACES);
	return rc;
}

void nx_hooks_destroy(struct nx_engine *e)
{
	for (int32_t i = e->n_hooks; i-- > 0;)
		e->hooks[i].t->destroy(e->hooks[i].self);
	e->n_hooks = 0;
	e->own_codec = false;
	e->sched = e->layout = e->attn = e->codec = e->prefix = e->drafter = e->packer =
		e->launcher = NULL;
}

void nx_hooks_event(struct nx_engine *e, enum nx_event_kind kind, int32_t seq, int32_t arg)
{
	const struct nx_seq *s = &e->seqs[seq];
	struct nx_seq_event ev = {.kind = kind,
	                          .seq = s->place,
	                          .request = s->req->id,
	                          .sample = s->sample,
	                          .arg = arg};
	for (int32_t i = 0; i < e->n_hooks; i++)
		if (e->hooks[i].t->event)
			e->hooks[i].t->event(e->hooks[i].self, &ev);
}
