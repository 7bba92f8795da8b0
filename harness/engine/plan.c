/* SPDX-License-Identifier: Apache-2.0
 *
 * engine/plan.c: writes a step's rows, emits and commits into one host buffer; see impl.h.
 *
 * The buffer has a fixed part (inits, samplers, emits, commits, gather list, segments) and the row arrays,
 * whose stride is a bucket of rows: device addresses depend on the bucket alone.
 */
#include <string.h>

#include "engine/impl.h"

struct place_init {
	int32_t place, len, last;
	int32_t group; /* valid length in the drafter's group; -1 = it came with the swapped rows */
	int32_t zero;  /* drafted rows accepted in its latest round: it has had none */
};

static size_t take(size_t *at, size_t bytes)
{
	size_t here = *at;
	*at = (here + bytes + 63) & ~(size_t)63;
	return here;
}

void nx_plan_layout_for(const struct nx_engine *e, int32_t rows, struct nx_plan_layout *out)
{
	size_t at = 0, r = (size_t)rows * sizeof(int32_t), seqs = (size_t)e->max_seqs;
	size_t drafts = seqs * (size_t)e->draft.stride * sizeof(int32_t);
	/* A place can be set up more than once in a step: left, given to another, preempted. */
	out->inits = take(&at, 4 * seqs * sizeof(struct place_init));
	out->samplers = take(&at, 4 * seqs * sizeof(struct nx_sampler));
	out->emits = take(&at, seqs * sizeof(struct nx_emit));
	out->commits = take(&at, 2 * seqs * sizeof(struct nx_commit));
	out->gather = take(&at, (size_t)e->max_logits * sizeof(int32_t));
	out->segments = take(&at, (size_t)e->max_segs * sizeof(struct nx_segment));
	out->spans = take(&at, seqs * sizeof(struct nx_draft_span));
	out->override = take(&at, drafts ? seqs * sizeof(struct nx_override) : 0);
	out->force = take(&at, drafts ? drafts + seqs * sizeof(int32_t) : 0);
	drafts = e->drafter && !e->drafter->t->draft ? drafts : 0;
	out->d_token = take(&at, drafts);
	out->d_parent = take(&at, drafts);
	out->d_kind = take(&at, drafts);
	out->d_q_row = take(&at, drafts);
	out->seq = take(&at, r);
	out->token = take(&at, r);
	out->slot_off = take(&at, r);
	out->pos_off = take(&at, r);
	out->kind = take(&at, r);
	out->scratch = take(&at, r);
	out->n_anc = take(&at, r);
	out->bytes = at;
	out->anc = take(&at, r * (size_t)e->draft.stride);
	out->bytes_device = at;
}

static int32_t *rows_at(const struct nx_step *st, size_t offset)
{
	return (int32_t *)(void *)(st->host + offset);
}

void nx_plan_init_place(struct nx_engine *e, struct nx_step *st, int32_t i, bool swapped)
{
	const struct nx_seq *s = &e->seqs[i];
	struct place_init *init =
		(struct place_init *)(void *)(st->host + e->lay.inits) + e->n_inits;
	struct nx_sampler *sampler =
		(struct nx_sampler *)(void *)(st->host + e->lay.samplers) + e->n_inits;
	*init = (struct place_init){
		.place = s->place, .len = s->len, .group = swapped ? -1 : s->len + s->ahead};
	init->last = s->n_tokens > 0 ? s->tokens[s->n_tokens - 1] : 0;
	*sampler = s->req->sampler;
	sampler->request = s->req->id;
	sampler->sample = s->sample;
	e->n_inits++;
}

/* What one grant becomes: a REDO row perhaps, real rows, padding, drafted rows. */
struct part {
	struct nx_seq *s;
	int32_t row0;
	int32_t redo, rows, pad, draft;
	bool decodes;
};

static void set_row(struct nx_engine *e, struct nx_step *st, int32_t r, const struct nx_seq *s,
                    int32_t token, int32_t off, enum nx_row_kind kind)
{
	rows_at(st, e->lay.seq)[r] = s->place;
	rows_at(st, e->lay.token)[r] = token;
	rows_at(st, e->lay.slot_off)[r] = off;
	rows_at(st, e->lay.pos_off)[r] = off + s->n_dropped;
	rows_at(st, e->lay.kind)[r] = kind;
	rows_at(st, e->lay.scratch)[r] = -1;
	rows_at(st, e->lay.n_anc)[r] = 0;
	st->info.rows[kind]++;
}

static void add_rows(struct nx_engine *e, struct nx_step *st, const struct part *p)
{
	const struct nx_seq *s = p->s;
	int32_t at = p->row0, t = s->len + s->n_dropped;
	for (int32_t r = p->redo; r > 0; r--)
		set_row(e, st, at++, s, s->tokens[t - r], -r, NX_ROW_REDO);
	for (int32_t r = 0; r < p->rows; r++, t++)
		set_row(e, st, at++, s, t < s->n_tokens ? s->tokens[t] : NX_TOKEN_LAST, r,
		        NX_ROW_COMMIT);
	for (int32_t r = 0; r < p->pad; r++)
		set_row(e, st, at++, s, 0, p->rows + r, NX_ROW_PAD);
	/* draft_rows() fills these in; what is a probe is known on the device alone. */
	for (int32_t r = 0; r < p->draft; r++)
		set_row(e, st, at++, s, 0, 1, NX_ROW_CANDIDATE);
	e->n_rows = at;
}

/* Overlap of [a, a + n) with [b, b + m). */
static int32_t overlap(int32_t a, int32_t n, int32_t b, int32_t m)
{
	int32_t lo = a > b ? a : b, hi = a + n < b + m ? a + n : b + m;
	return hi > lo ? hi - lo : 0;
}

/* What the drafter is told of rows [done, done + n) of the part, which are in one forward. */
static void add_observed(struct nx_engine *e, struct nx_chunk *chunk, const struct part *p,
                         int32_t row0, int32_t done, int32_t n)
{
	int32_t real = p->redo + p->rows, draft_at = real + p->pad;
	int32_t kept = overlap(done, n, 0, real), drafted = overlap(done, n, draft_at, p->draft);
	if (kept + drafted == 0)
		return;
	e->observed[e->n_observed++] = (struct nx_observed){
		.seq = p->s->place,
		.row0 = row0,
		.n_rows = kept,
		.n_draft = drafted,
		.draft0 = done > draft_at ? done - draft_at : 0,
		.n_redo = overlap(done, n, 0, p->redo),
		.prompt = !p->decodes,
	};
	chunk->n_observed++;
}

/* Cuts the step into forwards of at most max_chunk_rows rows, and sequences into segments at the cuts. */
static void add_segments(struct nx_engine *e, struct nx_step *st, const struct part *p)
{
	int32_t done = 0, n = p->redo + p->rows + p->pad + p->draft;
	while (done < n) {
		int32_t at = p->row0 + done, c = at / e->max_chunk_rows;
		int32_t end = (c + 1) * e->max_chunk_rows;
		int32_t m = n - done < end - at ? n - done : end - at;
		struct nx_chunk *chunk = &e->chunks[c];
		if (c == e->n_chunks) {
			*chunk = (struct nx_chunk){.row0 = at,
			                           .seg0 = e->n_segs,
			                           .gather0 = e->n_gather,
			                           .observed0 = e->n_observed};
			e->n_chunks++;
		}
		struct nx_segment *seg =
			(struct nx_segment *)(void *)(st->host + e->lay.segments) + e->n_segs++;
		/* Upper bound of the keys seen: row i of the part sees at most those before it and itself. */
		*seg = (struct nx_segment){.seq = p->s->place,
		                           .row0 = at - chunk->row0,
		                           .n_rows = m,
		                           .max_keys = p->s->len - p->redo + done + m};
		chunk->n_redo += overlap(done, m, 0, p->redo);
		if (e->drafter && e->drafter->t->observe)
			add_observed(e, chunk, p, seg->row0, done, m);
		chunk->n_segs++;
		chunk->n_rows += m;
		if (seg->max_keys > chunk->max_keys)
			chunk->max_keys = seg->max_keys;
		done += m;
	}
}

/* Logits are wanted of rows [row, row + n). Chunks gather in their order: later rows come after earlier ones. */
static int32_t add_gather(struct nx_engine *e, struct nx_step *st, int32_t row, int32_t n)
{
	int32_t first = e->n_gather, *gather = (int32_t *)(void *)(st->host + e->lay.gather);
	for (int32_t r = row; r < row + n; r++) {
		struct nx_chunk *chunk = &e->chunks[r / e->max_chunk_rows];
		if (chunk->n_gather == 0)
			chunk->gather0 = e->n_gather;
		gather[e->n_gather++] = r - chunk->row0;
		chunk->n_gather++;
	}
	return first;
}

/* Forced tokens at each depth that the draft can reach. */
static void add_force(struct nx_engine *e, struct nx_step *st, const struct nx_seq *s, int32_t n)
{
	int32_t *force = (int32_t *)(void *)(st->host + e->lay.force) +
	                 (size_t)s->place * (size_t)(1 + e->draft.stride);
	for (int32_t d = 0; d <= e->draft.stride; d++) {
		bool known = s->req->force && d <= n && s->n_out + d < s->max_out;
		force[d] = known ? s->req->force[s->n_out + d] : -1;
	}
	e->forced |= s->req->force != NULL;
}

/* src: the sequence whose rows were computed. rows: COMMIT rows of it in this step. */
static void add_emit(struct nx_engine *e, struct nx_step *st, int32_t i, int32_t src,
                     int32_t logit_row, int32_t rows, int32_t draft)
{
	struct nx_seq *s = &e->seqs[i];
	const struct nx_seq *p = &e->seqs[src];
	struct nx_emit *em = (struct nx_emit *)(void *)(st->host + e->lay.emits) + e->n_emits;
	*em = (struct nx_emit){.logit_row = logit_row,
	                       .seq = s->place,
	                       .src_seq = p->place,
	                       .pos_off = rows + p->n_dropped,
	                       .n_draft = draft};
	st->flights[e->n_emits++] = (struct nx_flight){.seq = i,
	                                               .place = s->place,
	                                               .index = s->n_out,
	                                               .n_draft = draft,
	                                               .lives = s->lives,
	                                               .gen = s->gen};
	if (e->draft.stride)
		add_force(e, st, s, draft);
	if (e->draft.stride && !draft) /* others were written when they were proposed */
		((struct nx_override *)(void *)(st->host + e->lay.override))[s->place] =
			(struct nx_override){.kind = NX_OVERRIDE_OWN};
	if (s->req->force)
		s->tokens[s->n_tokens++] = s->req->force[s->n_out];
	s->n_out += 1 + draft;
	s->slack += draft;
}

static void add_commit(struct nx_engine *e, struct nx_step *st, int32_t place, int32_t src,
                       int32_t rows, bool emits)
{
	struct nx_commit *c =
		(struct nx_commit *)(void *)(st->host + e->lay.commits) + e->n_commits++;
	*c = (struct nx_commit){.seq = place, .src_seq = src, .n_rows = rows, .emits = emits};
}

/* Rows of the sequence were dropped: its length is less before the forward. */
void nx_plan_drop(struct nx_engine *e, struct nx_step *st, int32_t place, int32_t rows)
{
	add_commit(e, st, place, place, -rows, false);
	e->n_before = e->n_commits;
}

/* The prompt is done: every child takes the parent's KV and draws its own first token from the same logits. */
static int fork_children(struct nx_engine *e, struct nx_step *st, int32_t i, int32_t logit_row,
                         int32_t rows, struct nx_err *err)
{
	struct nx_seq *p = &e->seqs[i];
	for (int32_t k = 0; k < e->n_entries; k++) {
		struct nx_seq *c = &e->seqs[k];
		if (!c->live || c->parent != i)
			continue;
		int rc = nx_store_fork(&e->store, c->place, p->place, p->len + rows, err);
		if (rc)
			return rc;
		memcpy(c->tokens, p->tokens, (size_t)p->req->n_prompt * sizeof(*c->tokens));
		c->n_tokens = p->req->n_prompt;
		c->parent = -1;
		c->len = p->len + rows;
		nx_hooks_event(e, NX_EVENT_FORK, k, p->place);
		c->n_dropped = p->n_dropped;
		c->n_published = p->n_published;
		add_emit(e, st, k, i, logit_row, rows, 0);
		add_commit(e, st, c->place, p->place, rows, true);
		if (c->n_out == c->max_out)
			c->ended = true;
	}
	return 0;
}

static int plan_grant(struct nx_engine *e, struct nx_step *st, const struct nx_grant *g,
                      bool *prefill, bool *decode, struct nx_err *err)
{
	struct nx_seq *s = &e->seqs[g->index];
	struct part p = {.s = s, .row0 = e->n_rows, .rows = g->rows, .pad = g->pad};
	bool draws = g->rows > 0 && g->rows == nx_seq_pending(s);
	bool decodes = p.decodes = draws && g->rows == 1 && s->n_out > 0;
	if (s->redo && g->rows > 0) {
		p.redo = s->redo < s->len ? s->redo : s->len;
		s->redo = 0;
	}
	if (decodes &&
	    e->draft.stride) /* drafted rows follow their root at once: no padding between */
		p.draft = nx_propose(e, st, s, g->pad ? 0 : g->draft);
	add_rows(e, st, &p);
	add_segments(e, st, &p);
	if (g->rows == 0)
		return 0; /* held: computed, never kept */

	/* A preempted sequence that is computed again does the work of a prompt. */
	*(decodes ? decode : prefill) = true;
	if (draws) {
		int32_t last = p.row0 + p.redo + g->rows -
		               1; /* drafted rows follow it: decoding ones have no pad */
		int32_t logit_row = add_gather(e, st, last, 1 + p.draft);
		int rc = fork_children(e, st, g->index, logit_row, g->rows, err);
		if (rc)
			return rc;
		add_emit(e, st, g->index, g->index, logit_row, g->rows, p.draft);
	}
	if (decodes && e->draft.stride) {
		struct nx_draft_span *span =
			(struct nx_draft_span *)(void *)(st->host + e->lay.spans) + e->n_spans++;
		*span = (struct nx_draft_span){
			.seq = s->place, .row0 = p.row0 + p.redo + g->rows, .n = p.draft};
		e->n_drafted += p.draft;
	}
	add_commit(e, st, s->place, s->place, g->rows, draws);
	s->len += g->rows + p.draft;
	nx_hooks_event(e, NX_EVENT_COMMIT, g->index, g->rows + p.draft);
	if (s->n_out - s->slack >= s->max_out)
		s->ended = true;
	return 0;
}

static int upload(struct nx_engine *e, struct nx_step *st, const struct nx_plan_layout *rows,
                  struct nx_err *err)
{
	const struct nx_device_ops *ops = e->dev->ops;
	void *dev = e->dev->dev;
	int rc = ops->copy(dev, e->stream, e->plan_dev, st->host, rows->bytes, NX_H2D, err);
	for (int32_t k = 0; k < e->n_inits && !rc; k++) {
		size_t at = e->lay.inits + (size_t)k * sizeof(struct place_init);
		const struct place_init *init =
			(const struct place_init *)(const void *)(st->host + at);
		const uint8_t *src = e->plan_dev + at;
		rc = ops->copy(dev, e->stream, e->state.len + init->place,
		               src + offsetof(struct place_init, len), sizeof(int32_t), NX_D2D,
		               err);
		if (!rc)
			rc = ops->copy(dev, e->stream, e->state.last_token + init->place,
			               src + offsetof(struct place_init, last), sizeof(int32_t),
			               NX_D2D, err);
		if (!rc)
			rc = ops->copy(dev, e->stream, e->verdict.n_accepted + init->place,
			               src + offsetof(struct place_init, zero), sizeof(int32_t),
			               NX_D2D, err);
		if (!rc && e->group.len && init->group >= 0)
			rc = ops->copy(dev, e->stream, e->group.len + init->place,
			               src + offsetof(struct place_init, group), sizeof(int32_t),
			               NX_D2D, err);
		if (!rc)
			rc = ops->copy(dev, e->stream, e->samplers + init->place,
			               e->plan_dev + e->lay.samplers +
			                       (size_t)k * sizeof(struct nx_sampler),
			               sizeof(struct nx_sampler), NX_D2D, err);
	}
	return rc;
}

int nx_plan_build(struct nx_engine *e, struct nx_step *st, struct nx_err *err)
{
	bool prefill = false, decode = false;
	int32_t total = 0;
	e->n_rows = e->n_segs = e->n_emits = e->n_gather = e->n_chunks = 0;
	e->n_spans = e->n_drafted = e->n_observed = 0;
	e->forced = e->overridden = false;
	for (int32_t k = 0; k < e->out.n_grants; k++)
		if (!e->dropped[k]) {
			const struct nx_grant *g = &e->out.grants[k];
			total += g->rows + g->pad + g->draft + e->seqs[g->index].redo;
		}
	/* Row arrays at the stride of the bucket; the fixed part keeps its place. */
	int32_t bucket = 1;
	while (bucket < total)
		bucket *= 2;
	struct nx_plan_layout lay;
	nx_plan_layout_for(e, bucket, &lay);
	e->lay = lay;

	for (int32_t k = 0; k < e->out.n_grants; k++) {
		if (e->dropped[k])
			continue;
		int rc = plan_grant(e, st, &e->out.grants[k], &prefill, &decode, err);
		if (rc)
			return rc;
		st->info.n_seqs++;
	}
	st->n_flights = e->n_emits;
	st->info.n_emit = e->n_emits;
	st->info.replayed = e->overridden;
	st->info.phase = prefill && decode ? NX_PHASE_MIXED
	                 : prefill         ? NX_PHASE_PREFILL
	                 : e->n_drafted    ? NX_PHASE_VERIFY
	                                   : NX_PHASE_DECODE;
	return upload(e, st, &lay, err);
}
