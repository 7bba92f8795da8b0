/* SPDX-License-Identifier: Apache-2.0
 *
 * engine/engine.c: life of an engine; see engine.h. The step is in loop.c.
 */
#include <stdlib.h>
#include <string.h>

#include "engine/impl.h"

/* Host lists of the engine, by count of entries. */
static int alloc_lists(struct nx_engine *e, struct nx_err *err)
{
	size_t n = (size_t)e->n_entries;
	e->seqs = calloc(n, sizeof(*e->seqs));
	e->token_space = calloc(n * ((size_t)e->max_len + 1), sizeof(*e->token_space));
	e->run = calloc(n, sizeof(*e->run));
	e->wait = calloc(n + 1, sizeof(*e->wait));
	e->free_places = calloc(n, sizeof(*e->free_places));
	e->view_run = calloc(n, sizeof(*e->view_run));
	e->view_wait = calloc(n, sizeof(*e->view_wait));
	e->view_run_seq = calloc(n, sizeof(*e->view_run_seq));
	e->view_wait_seq = calloc(n, sizeof(*e->view_wait_seq));
	e->grants = calloc(2 * n, sizeof(*e->grants));
	e->granted = calloc(n, sizeof(*e->granted));
	e->dropped = calloc(2 * n, sizeof(*e->dropped));
	e->chunks = calloc((size_t)e->max_chunks, sizeof(*e->chunks));
	e->observed = calloc((size_t)e->max_segs, sizeof(*e->observed));
	e->matched = calloc((size_t)e->max_len, sizeof(*e->matched));
	e->proposed = calloc((size_t)e->draft.stride + 1, sizeof(*e->proposed));
	if (!e->seqs || !e->token_space || !e->run || !e->wait || !e->free_places || !e->view_run ||
	    !e->view_wait || !e->view_run_seq || !e->view_wait_seq || !e->grants || !e->granted ||
	    !e->dropped || !e->chunks || !e->observed || !e->matched || !e->proposed)
		return nx_fail(err, NX_ENOMEM, "out of memory for %d sequences of %d tokens",
		               e->max_seqs, e->max_len);
	for (size_t i = 0; i < n; i++)
		e->seqs[i].tokens = e->token_space + i * ((size_t)e->max_len + 1);
	return 0;
}

struct piece {
	void **p;
	size_t bytes;
	enum nx_mem kind;
	const char *owner;
};

/* All device and pinned memory, in one list: allocated here, freed by the same list. */
static size_t pieces(struct nx_engine *e, struct piece *out)
{
	struct nx_act_sizes a = nx_engine_act_sizes(e, &e->w->shape);
	struct nx_plan_layout lay;
	int32_t bucket = 1;
	while (bucket < e->row_cap)
		bucket *= 2;
	nx_plan_layout_for(e, bucket, &lay);
	size_t seqs = (size_t)e->max_seqs, n = 0, path = seqs * (size_t)(1 + e->draft.stride);
#define PIECE(ptr, size, where, who)                                                               \
	out[n++] = (struct piece){                                                                 \
		.p = (void **)(ptr), .bytes = (size), .kind = (where), .owner = (who)}
	PIECE(&e->state.len, seqs * sizeof(int32_t), NX_MEM_DEVICE, "plan");
	PIECE(&e->state.last_token, seqs * sizeof(int32_t), NX_MEM_DEVICE, "plan");
	PIECE(&e->samplers, seqs * sizeof(struct nx_sampler), NX_MEM_DEVICE, "plan");
	PIECE(&e->verdict.token, path * sizeof(int32_t), NX_MEM_DEVICE, "plan");
	PIECE(&e->verdict.n_accepted, seqs * sizeof(int32_t), NX_MEM_DEVICE, "plan");
	PIECE(&e->verdict.path, path * sizeof(int32_t), NX_MEM_DEVICE, "plan");
	PIECE(&e->plan_dev, lay.bytes_device, NX_MEM_DEVICE, "plan");
	if (e->draft.stride && e->drafter->t->draft) {
		size_t rows = seqs * (size_t)e->draft.stride * sizeof(int32_t);
		PIECE(&e->draft.token, rows, NX_MEM_DEVICE, "plan");
		PIECE(&e->draft.parent, rows, NX_MEM_DEVICE, "plan");
		PIECE(&e->draft.kind, rows, NX_MEM_DEVICE, "plan");
		PIECE(&e->draft.q_row, rows, NX_MEM_DEVICE, "plan");
	}
	for (int32_t i = 0; i < e->needs.n_taps; i++)
		PIECE(&e->taps[i], a.taps, NX_MEM_DEVICE, "activations");
	for (int i = 0; i < 2; i++) {
		PIECE(&e->steps[i].host, lay.bytes, NX_MEM_HOST, "plan");
		PIECE(&e->steps[i].tokens, path * sizeof(int32_t), NX_MEM_HOST, "plan");
		PIECE(&e->steps[i].accepted, seqs * sizeof(int32_t), NX_MEM_HOST, "plan");
		PIECE(&e->steps[i].path, path * sizeof(int32_t), NX_MEM_HOST, "plan");
		PIECE(&e->steps[i].flights, seqs * sizeof(struct nx_flight), NX_MEM_HOST, "plan");
	}
	PIECE(&e->x, a.x, NX_MEM_DEVICE, "activations");
	PIECE(&e->h, a.h, NX_MEM_DEVICE, "activations");
	PIECE(&e->qkv, a.qkv, NX_MEM_DEVICE, "activations");
	PIECE(&e->attn_out, a.attn_out, NX_MEM_DEVICE, "activations");
	PIECE(&e->ff, a.ff, NX_MEM_DEVICE, "activations");
	PIECE(&e->lx, a.lx, NX_MEM_DEVICE, "activations");
	PIECE(&e->lh, a.lh, NX_MEM_DEVICE, "activations");
	PIECE(&e->logits, a.logits, NX_MEM_DEVICE, "activations");
	PIECE(&e->logits_host, (size_t)e->w->shape.vocab * sizeof(float), NX_MEM_HOST, "plan");
	PIECE(&e->workspace, e->workspace_bytes, NX_MEM_DEVICE, "workspace");
#undef PIECE
	return n;
}

#define MAX_PIECES 64

static int alloc_pieces(struct nx_engine *e, struct nx_err *err)
{
	struct piece list[MAX_PIECES];
	size_t n = pieces(e, list);
	for (size_t i = 0; i < n; i++) {
		size_t owner = nx_engine_owner(e, list[i].owner);
		*list[i].p = nx_engine_alloc(e, owner, list[i].kind, list[i].bytes);
		if (!*list[i].p)
			return nx_fail(err, NX_ENOMEM, "no %zu MiB of %s memory for %s",
			               list[i].bytes >> 20,
			               list[i].kind == NX_MEM_HOST ? "host" : "device",
			               list[i].owner);
	}
	return 0;
}

static int create(struct nx_engine *e, struct nx_err *err)
{
	const struct nx_device_ops *ops = e->dev->ops;
	const struct nx_shape *shape = &e->w->shape;
	struct nx_device_info info;
	struct nx_kv_geometry geo;
	uint64_t weight_bytes = 0;
	if (e->w->planned)
		return nx_fail(err, NX_EBUG, "an engine needs weights, not the plan of them");
	ops->info(e->dev->dev, &info);
	e->act_bytes = nx_dtype_bytes(info.act_dtype);
	int rc = nx_stack_check(e->cfg.stack, err);
	if (!rc)
		rc = nx_engine_sizes(e, shape, err);
	if (!rc)
		rc = ops->stream_create(e->dev->dev, &e->stream, err);
	for (int i = 0; i < 2 && !rc; i++)
		rc = ops->event_create(e->dev->dev, &e->steps[i].done, err);
	if (!rc)
		rc = nx_hooks_create(e, shape, err);
	if (!rc)
		rc = nx_engine_geometry(e, shape, e->w->dtype, &geo, err);
	if (!rc)
		rc = nx_engine_attention(e, shape, err);
	if (!rc)
		rc = nx_pack_create(e, err);
	if (!rc)
		rc = nx_weights_prepare(e->w, e->packed, nx_engine_product_rows(e, &geo),
		                        e->max_logits, &weight_bytes, err);
	if (!rc)
		rc = alloc_lists(e, err);
	if (!rc)
		rc = alloc_pieces(e, err);
	if (rc)
		return rc;
	struct nx_group_shape groups[NX_STORE_GROUPS];
	int32_t n_groups = nx_engine_groups(e, shape, e->w->dtype, groups);
	rc = nx_store_init(&e->store, e->dev, &geo, &e->prefix_geo, groups, n_groups, e->max_seqs,
	                   e->max_len, err);
	if (rc)
		return rc;
	size_t kv = nx_engine_owner(e, "kv"), swap = nx_engine_owner(e, "swap"),
	       weights = nx_engine_owner(e, "weights");
	for (int32_t i = 0; i < n_groups; i++)
		e->owners[kv].reserved_bytes +=
			e->store.kv_bytes[i] + e->store.scratch_bytes[i] + e->store.win_bytes[i];
	e->owners[swap].reserved_bytes = e->store.swap_bytes;
	e->owners[weights].reserved_bytes = e->owners[weights].peak_used_bytes =
		weight_bytes; /* shared by engines; what a technique packs is charged to it */
	e->state.max_seqs = e->max_seqs;
	e->verdict.stride = 1 + e->draft.stride;
	e->group = (struct nx_seq_state){.max_seqs = e->max_seqs,
	                                 .len = e->store.group_len,
	                                 .last_token = e->state.last_token};
	e->target = (struct nx_target){.embed = e->w->embed,
	                               .output = e->w->output,
	                               .out_norm = e->w->out_norm,
	                               .inv_freq = e->w->inv_freq,
	                               .norm_eps = shape->norm_eps,
	                               .rope_dim = shape->rope_dim};
	nx_plan_layout_for(e, 1, &e->lay);
	rc = nx_launch_create(e, err);
	if (rc)
		return rc;
	if (e->draft.stride &&
	    !e->drafter->t->draft) { /* a host drafter's rows come with the plan */
		e->draft.token = (int32_t *)(void *)(e->plan_dev + e->lay.d_token);
		e->draft.parent = (int32_t *)(void *)(e->plan_dev + e->lay.d_parent);
		e->draft.kind = (int32_t *)(void *)(e->plan_dev + e->lay.d_kind);
		e->draft.q_row = (int32_t *)(void *)(e->plan_dev + e->lay.d_q_row);
	}
	nx_engine_reset(e);
	return 0;
}

int nx_engine_create(struct nx_engine **out, const struct nx_engine_config *cfg, struct nx_err *err)
{
	struct nx_engine *e = calloc(1, sizeof(*e));
	if (!e)
		return nx_fail(err, NX_ENOMEM, "out of memory for an engine");
	e->cfg = *cfg;
	e->w = cfg->weights;
	e->dev = cfg->weights->dev;
	int rc = create(e, err);
	if (rc) {
		nx_engine_destroy(e);
		return rc;
	}
	*out = e;
	return 0;
}

void nx_engine_destroy(struct nx_engine *e)
{
	if (!e)
		return;
	const struct nx_device_ops *ops = e->dev->ops;
	nx_launch_destroy(e);
	nx_store_release(&e->store);
	nx_pack_destroy(e);
	if (e->max_rows) { /* before the hooks go, whose needs the list reads */
		struct piece list[MAX_PIECES];
		size_t n = pieces(e, list);
		for (size_t i = 0; i < n; i++)
			nx_engine_free(e, nx_engine_owner(e, list[i].owner), list[i].kind,
			               *list[i].p, list[i].bytes);
	}
	nx_hooks_destroy(e);
	for (int i = 0; i < 2; i++)
		if (e->steps[i].done)
			ops->event_destroy(e->dev->dev, e->steps[i].done);
	if (e->stream)
		ops->stream_destroy(e->dev->dev, e->stream);
	free(e->seqs);
	free(e->token_space);
	free(e->run);
	free(e->wait);
	free(e->free_places);
	free(e->view_run);
	free(e->view_wait);
	free(e->view_run_seq);
	free(e->view_wait_seq);
	free(e->grants);
	free(e->granted);
	free(e->dropped);
	free(e->chunks);
	free(e->observed);
	free(e->matched);
	free(e->proposed);
	free(e);
}

void nx_engine_reset(struct nx_engine *e)
{
	/* Techniques first: what they held of the store is theirs to forget. */
	for (int32_t i = 0; i < e->n_hooks; i++)
		if (e->hooks[i].t->reset)
			e->hooks[i].t->reset(e->hooks[i].self);
	nx_store_reset(&e->store);
	for (int32_t i = 0; i < e->n_entries; i++) {
		struct nx_seq *s = &e->seqs[i];
		*s = (struct nx_seq){
			.tokens = s->tokens, .gen = s->gen + 1, .place = -1, .parent = -1};
	}
	e->n_run = e->n_wait = 0;
	e->n_commits = e->n_before = 0;
	e->n_free_places = e->max_seqs;
	for (int32_t p = 0; p < e->max_seqs; p++)
		e->free_places[p] = e->max_seqs - 1 - p;
	e->steps[0].in_flight = e->steps[1].in_flight = false;
	e->turn = 0;
	e->in_flight = 0;
	e->peak_used_rows = 0;
	e->late_err = (struct nx_err){0};
}

int nx_engine_idle_check(const struct nx_engine *e, struct nx_err *err)
{
	const struct nx_pool *p = &e->store.pool;
	if (e->n_run || e->n_wait)
		return nx_fail(err, NX_EBUG, "%d sequences run and %d wait in an idle engine",
		               e->n_run, e->n_wait);
	int64_t held = nx_store_evictable(&e->store);
	if (p->free_rows + held != p->n_rows)
		return nx_fail(err, NX_EBUG, "%lld KV rows are held in an idle engine",
		               (long long)(p->n_rows - p->free_rows - held));
	return nx_store_check(&e->store, err);
}

int nx_engine_cold_check(const struct nx_engine *e, struct nx_err *err)
{
	int rc = nx_engine_idle_check(e, err);
	for (int32_t i = 0; i < e->n_hooks && !rc; i++) {
		const struct nx_slot_hook *h = &e->hooks[i];
		int64_t n = h->t->warm ? h->t->warm(h->self) : 0;
		if (n)
			rc = nx_fail(err, NX_EBUG,
			             "%s is warm: it keeps %lld entries of earlier runs",
			             h->t->name, (long long)n);
	}
	if (!rc && e->store.n_held)
		rc = nx_fail(err, NX_EBUG, "%d KV blocks are still held by the prefix cache",
		             e->store.n_held);
	return rc;
}

/* Rows with a token in them when every request in flight is at its longest (its last token is never fed). Samples fork a
 * prompt that lies in blocks. */
static int64_t rows_at_most(const struct nx_engine *e, const struct nx_kv_geometry *geo)
{
	const struct nx_engine_config *c = &e->cfg;
	int64_t most = e->longest - 1 + nx_wasted_rows(e);
	int64_t prompt = c->longest_prompt ? c->longest_prompt : e->longest;
	prompt = prompt > most ? most : prompt;
	most = most > e->max_len ? e->max_len : most;
	int64_t prompts = geo->blocks ? c->batch_size : e->max_seqs;
	int64_t rows = prompts * prompt + e->max_seqs * (most - prompt);
	return rows < geo->n_rows ? rows : geo->n_rows;
}

size_t nx_engine_forecast(const struct nx_engine_config *cfg, const struct nx_shape *shape,
                          struct nx_mem_use *out, size_t max, struct nx_err *err)
{
	/* The hooks are asked on an engine that allocates nothing itself. */
	struct nx_engine *e = calloc(1, sizeof(*e));
	struct nx_kv_geometry geo;
	struct nx_device_info info;
	size_t n = 0;
	if (!e) {
		nx_fail(err, NX_ENOMEM, "out of memory for a forecast");
		return 0;
	}
	e->cfg = *cfg;
	e->w = cfg->weights;
	e->dev = cfg->weights->dev;
	e->dev->ops->info(e->dev->dev, &info);
	e->act_bytes = nx_dtype_bytes(info.act_dtype);
	int rc = nx_stack_check(cfg->stack, err);
	if (!rc)
		rc = nx_engine_sizes(e, shape, err);
	if (!rc)
		rc = nx_hooks_create(e, shape, err);
	if (!rc)
		rc = nx_engine_geometry(e, shape, e->w->dtype, &geo, err);
	if (!rc)
		rc = nx_engine_attention(e, shape, err);
	if (!rc) {
		struct nx_group_shape groups[NX_STORE_GROUPS];
		int32_t n_groups = nx_engine_groups(e, shape, e->w->dtype, groups);
		struct piece list[MAX_PIECES];
		size_t n_pieces = pieces(e, list);
		for (size_t i = 0; i < n_pieces; i++)
			e->owners[nx_engine_owner(e, list[i].owner)].reserved_bytes +=
				list[i].bytes;
		uint64_t kv =
			nx_store_forecast(&geo, &e->prefix_geo, groups, n_groups, e->max_seqs);
		e->owners[nx_engine_owner(e, "kv")].reserved_bytes = kv;
		uint64_t own = 0, packed = 0;
		rc = nx_pack_forecast(e, nx_engine_product_rows(e, &geo), &own, &packed, err);
		e->owners[nx_engine_owner(e, "weights")].reserved_bytes = own;
		if (e->packer)
			e->owners[e->packer->owner.owner].reserved_bytes += packed;
		e->owners[nx_engine_owner(e, "swap")].reserved_bytes =
			nx_store_swap_bytes(&geo, groups, n_groups, e->max_seqs);
		for (int32_t i = 0; i < e->n_hooks;
		     i++) { /* more than it has taken when it was made */
			struct nx_mem_use *o = &e->owners[e->hooks[i].owner.owner];
			if (o->reserved_bytes < e->hooks[i].probe_bytes)
				o->reserved_bytes = e->hooks[i].probe_bytes;
		}
		for (size_t i = 0; i < e->n_owners; i++)
			e->owners[i].peak_used_bytes = e->owners[i].reserved_bytes;
		uint64_t used = 0;
		for (int32_t i = 0; i < n_groups; i++)
			used += (uint64_t)rows_at_most(e, &geo) * 2 * (uint64_t)groups[i].n_layers *
			        (uint64_t)nx_group_row_bytes(&groups[i]);
		if (used < kv)
			e->owners[nx_engine_owner(e, "kv")].peak_used_bytes = used;
		n = rc ? 0 : nx_engine_memory(e, out, max);
	}
	nx_hooks_destroy(e);
	free(e);
	return n;
}
