/* SPDX-License-Identifier: Apache-2.0
 *
 * test/plugins/draft_tree.c: a drafter with random weights that uses all of the draft slot: a layer group of its
 * own, taps at two layers, two forwards a round, a tree whose shape is found on the device, children that are drawn
 * (with their q) and children that are chosen, probes, pauses, and sequences that it gives up. It accepts little;
 * what counts is that the output is right and that `bad` stays 0.
 *
 * This half runs on the host and sees no device memory: draft_tree_device.h is the other one.
 */
#include "draft_tree_device.h"

enum { P_WIDTH, P_PROBES, P_TEMPERATURE, P_SEED, P_PAUSE, P_QUIT };
enum { C_BAD, C_ROUNDS, C_PAUSED, C_QUIT, C_COUNT };

struct drafter {
	struct tree t;
	double pause;
	int32_t quit;    /* rounds after which a sequence is given up; 0 = never */
	int32_t *rounds; /* [max_seqs] */
	int32_t n_fresh, fresh[TREE_FRESH_MAX];
	uint64_t n[C_COUNT];
	struct owned {
		enum nx_mem kind;
		void *p;
		size_t bytes;
	} owned[48];
	int32_t n_owned;
};

static void *take(struct drafter *d, enum nx_mem kind, size_t bytes)
{
	void *p = d->t.host->alloc(d->t.host->ctx, kind, bytes);
	if (p)
		d->owned[d->n_owned++] = (struct owned){kind, p, bytes};
	return p;
}

static void destroy(void *self)
{
	struct drafter *d = self;
	const struct nx_host *h = d->t.host;
	struct nx_weight *w[] = {d->t.fuse, d->t.input, d->t.qkv, d->t.out, d->t.head};
	for (size_t i = 0; i < sizeof(w) / sizeof(w[0]); i++)
		if (w[i])
			h->ops->weight_destroy(h->dev, w[i]);
	for (int32_t i = 0; i < d->n_owned; i++)
		h->free(h->ctx, d->owned[i].kind, d->owned[i].p, d->owned[i].bytes);
	free(d);
}

struct matrix {
	int64_t k;
	uint64_t seed;
};

static int random_rows(void *ctx, int64_t row0, int64_t n, float *dst, struct nx_err *err)
{
	const struct matrix *m = ctx;
	(void)err;
	for (int64_t i = 0; i < n * m->k; i++)
		dst[i] = (float)((2 * hand_unit(m->seed + (uint64_t)(row0 * m->k + i)) - 1) *
		                 sqrt(3.0 / (double)m->k));
	return 0;
}

static int matrix(struct drafter *d, struct nx_weight **out, int64_t n, int64_t k,
                  struct nx_err *err)
{
	struct matrix m = {.k = k, .seed = hand_mix(d->t.seed++) << 20};
	struct nx_weight_desc desc = {
		.n = n, .k = k, .dtype = NX_F32, .rows = random_rows, .ctx = &m};
	return d->t.host->ops->weight_create(d->t.host->dev, &desc, out, err);
}

static int create(void **self, const struct nx_host *host, const struct nx_value *v,
                  struct nx_err *err)
{
	struct drafter *d = calloc(1, sizeof(*d));
	struct nx_device_info info;
	if (!d)
		return nx_fail(err, NX_ENOMEM, "draft_tree: out of memory");
	host->ops->info(host->dev, &info);
	d->t = (struct tree){.host = host,
	                     .act = info.act_dtype,
	                     .width = (int32_t)v[P_WIDTH].i,
	                     .n_probes = (int32_t)v[P_PROBES].i,
	                     .cap = (int32_t)(2 * v[P_WIDTH].i + v[P_PROBES].i),
	                     .d_model = host->model.d_model,
	                     .vocab = host->model.vocab,
	                     .max_seqs = host->max_seqs,
	                     .max_len = host->max_len,
	                     .temperature = (float)v[P_TEMPERATURE].f,
	                     .seed = (uint64_t)v[P_SEED].i};
	d->pause = v[P_PAUSE].f;
	d->quit = (int32_t)v[P_QUIT].i;
	struct tree *t = &d->t;
	int64_t dm = t->d_model, heads = TREE_HEADS * TREE_DIM, kv = TREE_KV_HEADS * TREE_DIM;
	int rc = matrix(d, &t->fuse, TREE_HIDDEN, 2 * dm, err);
	if (!rc)
		rc = matrix(d, &t->input, TREE_HIDDEN, dm + TREE_HIDDEN, err);
	if (!rc)
		rc = matrix(d, &t->qkv, heads + 2 * kv, TREE_HIDDEN, err);
	if (!rc)
		rc = matrix(d, &t->out, TREE_HIDDEN, heads, err);
	if (!rc)
		rc = matrix(d, &t->head, t->vocab, TREE_HIDDEN, err);
	if (rc) {
		destroy(d);
		return rc;
	}
	*self = d;
	return 0;
}

/* Constants go to the device; not on the timed path, so it may wait. */
static int upload(struct drafter *d, float **out, size_t n, float *host, struct nx_err *err)
{
	const struct nx_host *h = d->t.host;
	*out = take(d, NX_MEM_DEVICE, n * sizeof(float));
	if (!*out || !host)
		return nx_fail(err, NX_ENOMEM, "draft_tree: out of memory");
	int rc = h->ops->copy(h->dev, NULL, *out, host, n * sizeof(float), NX_H2D, err);
	return rc ? rc : h->ops->stream_sync(h->dev, NULL, err);
}

static int constants(struct drafter *d, struct nx_err *err)
{
	struct tree *t = &d->t;
	float *ones = take(d, NX_MEM_HOST, TREE_HIDDEN * sizeof(float)),
	      *freq = take(d, NX_MEM_HOST, TREE_DIM / 2 * sizeof(float));
	for (int i = 0; ones && i < TREE_HIDDEN; i++)
		ones[i] = 1;
	for (int i = 0; freq && i < TREE_DIM / 2; i++)
		freq[i] = powf(10000.0f, -2.0f * (float)i / TREE_DIM);
	int rc = upload(d, &t->ones, TREE_HIDDEN, ones, err);
	return rc ? rc : upload(d, &t->inv_freq, TREE_DIM / 2, freq, err);
}

static int draft_needs(void *self, const struct nx_draft_limits *l, struct nx_draft_needs *out,
                       struct nx_err *err)
{
	struct drafter *d = self;
	struct tree *t = &d->t;
	const struct nx_host *h = t->host;
	size_t seqs = (size_t)l->max_seqs, m = (size_t)l->max_chunk_rows,
	       a = nx_dtype_bytes(t->act);
	size_t rounds = seqs * (size_t)(t->cap + 2), dm = (size_t)t->d_model, V = (size_t)t->vocab;
	if (m < rounds)
		m = rounds;
	t->max_m = (int32_t)m;
	t->workspace_bytes = h->ops->attention_workspace(h->dev, NX_ATTN_TILED, 64, TREE_HEADS,
	                                                 TREE_DIM, (int64_t)m, t->max_len + 2);
	size_t qkv = (TREE_HEADS + 2 * TREE_KV_HEADS) * TREE_DIM, f = 2 * dm * sizeof(float);
	struct {
		void *out;
		size_t bytes;
	} want[] = {
		{&t->place, seqs * sizeof(struct tree_place)},
		{&t->before, seqs * f},
		{&t->feature, seqs * (size_t)(1 + t->cap) * f},
		{&t->next, seqs * V * sizeof(int32_t)},
		{&t->bad, sizeof(int64_t)},
		{&t->seq, m * 4},
		{&t->token, m * 4},
		{&t->slot_off, m * 4},
		{&t->pos_off, m * 4},
		{&t->kind, m * 4},
		{&t->scratch, m * 4},
		{&t->n_anc, m * 4},
		{&t->anc, m * 4},
		{&t->segments, (seqs + 2) * sizeof(struct nx_segment)},
		{&t->fused_in, m * 2 * dm * a},
		{&t->emb, m * dm * a},
		{&t->g, m * TREE_HIDDEN * a},
		{&t->x_in, m * (dm + TREE_HIDDEN) * a},
		{&t->h, m * TREE_HIDDEN * a},
		{&t->hn, m * TREE_HIDDEN * a},
		{&t->qkv_out, m * qkv * a},
		{&t->attn, m * TREE_HEADS * TREE_DIM * a},
		{&t->root_h, seqs * TREE_HIDDEN * a},
		{&t->root_n, seqs * (size_t)t->width * TREE_HIDDEN * a},
		{&t->logits, seqs * (size_t)t->width * V * sizeof(float)},
		{&t->q, seqs * V * sizeof(float)},
		{&t->workspace, t->workspace_bytes},
	};
	for (size_t i = 0; i < sizeof(want) / sizeof(want[0]); i++) {
		void *p = take(d, NX_MEM_DEVICE, want[i].bytes);
		if (!p)
			return nx_fail(err, NX_ENOMEM, "draft_tree: no %zu bytes on the device",
			               want[i].bytes);
		memcpy(want[i].out, &p, sizeof(p));
	}
	d->rounds = take(d, NX_MEM_HOST, seqs * sizeof(*d->rounds));
	if (!d->rounds)
		return nx_fail(err, NX_ENOMEM, "draft_tree: out of memory");
	memset(d->rounds, 0, seqs * sizeof(*d->rounds));
	int rc = constants(d, err);
	if (!rc)
		rc = h->ops->fill(h->dev, NULL, t->place, 0, seqs * sizeof(struct tree_place), err);
	if (!rc)
		rc = h->ops->fill(h->dev, NULL, t->next, 0xff, seqs * V * sizeof(int32_t), err);
	if (!rc)
		rc = h->ops->fill(h->dev, NULL, t->bad, 0, sizeof(int64_t), err);
	if (!rc)
		rc = h->ops->stream_sync(h->dev, NULL, err);
	*out = (struct nx_draft_needs){
		.n_taps = 2,
		.taps = {{.layer = h->model.n_layers > 1, .normed = true},
	                 {.layer = h->model.n_layers, .normed = false}},
		.max_rows = t->cap,
		.n_layers = 1,
		.n_kv_heads = TREE_KV_HEADS,
		.head_dim = TREE_DIM,
		.scratch_rows = t->width,
		.lag = t->cap + 1,
		.wants_feature = true,
		.q = t->q,
		.q_cols = t->vocab,
	};
	return rc;
}

static void event(void *self, const struct nx_seq_event *e)
{
	struct drafter *d = self;
	if (e->seq < 0 ||
	    (e->kind != NX_EVENT_ADMIT && e->kind != NX_EVENT_RESUME && e->kind != NX_EVENT_FORK))
		return;
	d->rounds[e->seq] = 0;
	for (int32_t i = 0; i < d->n_fresh; i++)
		if (d->fresh[i] == e->seq)
			return;
	if (d->n_fresh < TREE_FRESH_MAX)
		d->fresh[d->n_fresh++] = e->seq;
}

static int32_t propose(void *self, const struct nx_draft_seq *s, struct nx_draft_row *rows)
{
	struct drafter *d = self;
	int32_t round = d->rounds[s->seq]++;
	(void)rows;
	if (d->quit && round >= d->quit) {
		d->n[C_QUIT]++;
		return NX_UNDRAFTABLE;
	}
	/* A paused sequence drafts nothing and is ingested all the same. */
	if (hand_unit(s->request * 1000003ull + s->sample * 10007ull + (uint64_t)round) <
	    d->pause) {
		d->n[C_PAUSED]++;
		return 0;
	}
	d->n[C_ROUNDS]++;
	return s->cap;
}

static int call(struct drafter *d, struct nx_stream *s, nx_enqueue_fn fn, const void *args,
                size_t bytes, struct nx_err *err)
{
	return d->t.host->ops->enqueue(d->t.host->dev, s, fn, args, bytes, err);
}

static int forget(struct drafter *d, struct nx_stream *s, struct nx_err *err)
{
	struct tree_forget_call c = {.t = &d->t, .n = d->n_fresh};
	if (!d->n_fresh)
		return 0;
	memcpy(c.place, d->fresh, sizeof(c.place));
	d->n_fresh = 0;
	return call(d, s, tree_forget, &c, sizeof(c), err);
}

static int product(struct drafter *d, struct nx_stream *s, const struct nx_weight *w, int32_t m,
                   const void *x, void *y, enum nx_epilogue e, bool f32, struct nx_err *err)
{
	struct nx_linear a = {.w = w, .m = m, .x = x, .y = y, .epilogue = e, .y_f32 = f32};
	return d->t.host->ops->linear(d->t.host->dev, s, &a, err);
}

/* The layer over m rows that a device function has written; g is there. h gets its output. */
static int forward(struct drafter *d, struct nx_stream *s, const struct tree_draft_call *c,
                   const struct nx_kv *kv, const struct nx_seq_state *group,
                   const struct nx_target *target, int32_t n_segments, int32_t anc,
                   struct nx_err *err)
{
	struct tree *t = &d->t;
	const struct nx_device_ops *ops = t->host->ops;
	void *dev = t->host->dev;
	int32_t m = c->m, heads = TREE_HEADS + 2 * TREE_KV_HEADS;
	const struct nx_rows rows = {.n_rows = m,
	                             .n_segments = n_segments,
	                             .anc_stride = anc,
	                             .max_keys = t->max_len + 2,
	                             .seq = t->seq,
	                             .token = t->token,
	                             .slot_off = t->slot_off,
	                             .pos_off = t->pos_off,
	                             .kind = t->kind,
	                             .scratch = t->scratch,
	                             .n_anc = t->n_anc,
	                             .anc = t->anc,
	                             .segments = t->segments};
	int rc = ops->embed(dev, s, &rows, group, target->embed, t->emb, err);
	if (!rc)
		rc = call(d, s, tree_concat, c, sizeof(*c), err);
	if (!rc)
		rc = product(d, s, t->input, m, t->x_in, t->h, NX_EPI_STORE, false, err);
	if (!rc)
		rc = ops->rmsnorm(dev, s, t->hn, t->h, t->ones, m, TREE_HIDDEN, 1e-5f, err);
	if (!rc)
		rc = product(d, s, t->qkv, m, t->hn, t->qkv_out, NX_EPI_STORE, false, err);
	struct nx_rope_store rope = {.rows = &rows,
	                             .state = group,
	                             .kv = kv,
	                             .n_heads = TREE_HEADS,
	                             .rope_dim = TREE_DIM,
	                             .inv_freq = t->inv_freq,
	                             .qkv = t->qkv_out};
	if (!rc)
		rc = ops->rope_store(dev, s, &rope, err);
	struct nx_attention att = {.rows = &rows,
	                           .state = group,
	                           .kv = kv,
	                           .n_heads = TREE_HEADS,
	                           .scale = 1 / sqrtf((float)TREE_DIM),
	                           .q = t->qkv_out,
	                           .q_stride = heads * TREE_DIM,
	                           .out = t->attn,
	                           .kernel = NX_ATTN_TILED,
	                           .kv_chunk = 64,
	                           .workspace = t->workspace,
	                           .workspace_bytes = t->workspace_bytes};
	if (!rc)
		rc = ops->attention(dev, s, &att, err);
	if (!rc)
		rc = product(d, s, t->out, m, t->attn, t->h, NX_EPI_ADD, false, err);
	return rc;
}

static int logits(struct drafter *d, struct nx_stream *s, const void *h, int32_t m,
                  struct nx_err *err)
{
	struct tree *t = &d->t;
	int rc = t->host->ops->rmsnorm(t->host->dev, s, t->root_n, h, t->ones, m, TREE_HIDDEN,
	                               1e-5f, err);
	return rc ? rc : product(d, s, t->head, m, t->root_n, t->logits, NX_EPI_STORE, true, err);
}

static int draft(void *self, struct nx_stream *s, const struct nx_draft_step *step,
                 struct nx_err *err)
{
	struct drafter *d = self;
	struct tree *t = &d->t;
	struct tree_draft_call c = {.t = t,
	                            .out = *step->out,
	                            .last = *step->last,
	                            .state = *step->state,
	                            .group = *step->group,
	                            .spans = step->spans,
	                            .samplers = step->samplers,
	                            .n_spans = step->n_spans,
	                            .m = step->n_spans * (t->cap + 2)};
	int rc = forget(d, s, err);
	if (!rc)
		rc = call(d, s, tree_ingest, &c, sizeof(c), err);
	if (!rc)
		rc = product(d, s, t->fuse, c.m, t->fused_in, t->g, NX_EPI_STORE, false, err);
	if (!rc)
		rc = forward(d, s, &c, step->kv, step->group, step->target, c.n_spans, 0, err);
	if (!rc)
		rc = call(d, s, tree_roots, &c, sizeof(c), err);
	if (!rc)
		rc = logits(d, s, t->root_h, c.n_spans, err);
	if (!rc)
		rc = call(d, s, tree_level1, &c, sizeof(c), err);
	c.m = step->n_spans * t->width;
	if (!rc)
		rc = forward(d, s, &c, step->kv, step->group, step->target, c.n_spans, 1, err);
	if (!rc)
		rc = logits(d, s, t->h, c.m, err);
	return rc ? rc : call(d, s, tree_level2, &c, sizeof(c), err);
}

/* Rows of prompts, and of what is done again, go into the group in one forward; of the others only the taps are
 * kept. */
static int observe(void *self, struct nx_stream *s, const struct nx_observe *o, struct nx_err *err)
{
	struct drafter *d = self;
	struct tree *t = &d->t;
	int32_t m = 0, n_segments = 0;
	struct tree_observe_call c = {.t = t,
	                              .rows = *o->rows,
	                              .state = *o->state,
	                              .group = *o->group,
	                              .tap = {o->taps[0], o->taps[1]}};
	int rc = forget(d, s, err);
	for (int32_t i = 0; i < o->n_seqs && !rc; i++) {
		c.seq = o->seqs_host[i];
		int32_t n = c.seq.n_rows - (c.seq.n_redo > 0);
		c.row = (c.seq.prompt || c.seq.n_redo) && n > 0 ? m : -1;
		c.segment = n_segments;
		rc = call(d, s, tree_save, &c, sizeof(c), err);
		m += c.row >= 0 ? n : 0;
		n_segments += c.row >= 0;
	}
	if (rc || m == 0)
		return rc;
	const struct tree_draft_call f = {.t = t, .m = m};
	rc = product(d, s, t->fuse, m, t->fused_in, t->g, NX_EPI_STORE, false, err);
	if (!rc)
		rc = forward(d, s, &f, o->kv, o->group, o->target, n_segments, 0, err);
	for (int32_t i = 0; i < o->n_seqs && !rc; i++) {
		c.seq = o->seqs_host[i];
		if ((c.seq.prompt || c.seq.n_redo) && c.seq.n_rows > (c.seq.n_redo > 0))
			rc = call(d, s, tree_prompt_done, &c, sizeof(c), err);
	}
	return rc;
}

/* After a run: the stream is idle, so the count can be fetched. */
static void read_counters(void *self, double *v)
{
	struct drafter *d = self;
	const struct nx_host *h = d->t.host;
	int64_t *bad = h->alloc(h->ctx, NX_MEM_HOST, sizeof(*bad));
	if (bad && !h->ops->copy(h->dev, NULL, bad, d->t.bad, sizeof(*bad), NX_D2H, NULL) &&
	    !h->ops->stream_sync(h->dev, NULL, NULL))
		d->n[C_BAD] = (uint64_t)*bad;
	h->free(h->ctx, NX_MEM_HOST, bad, sizeof(*bad));
	for (int i = 0; i < C_COUNT; i++)
		v[i] = (double)d->n[i];
}

static const struct nx_param params[] = {
	[P_WIDTH] = {"width", NX_PARAM_INT, "3", 1, 16, NULL, "rows", "children of a node"},
	[P_PROBES] = {"probes", NX_PARAM_INT, "1", 0, 8, NULL, "rows", "PROBE rows"},
	[P_TEMPERATURE] = {"temperature", NX_PARAM_FLOAT, "1.5", 0.1, 10, NULL, "",
                           "of q, times the sampler's"},
	[P_SEED] = {"seed", NX_PARAM_INT, "1", 0, 1 << 30, NULL, "", "of the weights"},
	[P_PAUSE] = {"pause", NX_PARAM_FLOAT, "0.2", 0, 1, NULL, "fraction",
                     "rounds without a draft"},
	[P_QUIT] = {"quit", NX_PARAM_INT, "0", 0, 1 << 20, NULL, "rounds",
                    "after which a sequence is given up; 0 = never"},
	{0},
};

static const struct nx_counter counters[] = {
	[C_BAD] = {"bad", "count", "violations seen on the device"},
	[C_ROUNDS] = {"rounds", "count", "drafts"},
	[C_PAUSED] = {"paused", "count", "rounds without a draft"},
	[C_QUIT] = {"quit", "count", "sequences given up"},
	{0},
};

static const struct nx_technique draft_tree = {
	NX_TECHNIQUE_HEAD,
	.name = "draft_tree",
	.version = "1",
	.summary = "a random tree drafter with a layer of its own (tests)",
	.source = "after EAGLE, 2401.15077 section 4.1",
	.params = params,
	.counters = counters,
	.assumes = NX_TRAIT_KEPT_KV | NX_TRAIT_FULL_KV,
	.flags = NX_TECH_EXACT,
	.probe = hand_probe,
	.create = create,
	.destroy = destroy,
	.read_counters = read_counters,
	.event = event,
	.draft_needs = draft_needs,
	.propose = propose,
	.draft = draft,
	.observe = observe,
};

NX_TECHNIQUE(&draft_tree);
