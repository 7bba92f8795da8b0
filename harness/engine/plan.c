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
};

static size_t take(size_t *at, size_t bytes)
{
	size_t here = *at;
	*at = (here + bytes + 63) & ~(size_t)63;
	return here;
}

size_t nx_plan_layout_for(int32_t rows, int32_t segs, int32_t emits, int32_t seqs,
                          struct nx_plan_layout *out)
{
	size_t at = 0, r = (size_t)rows * sizeof(int32_t);
	/* A place can be set up more than once in a step: left, given to another, preempted. */
	out->inits = take(&at, 4 * (size_t)seqs * sizeof(struct place_init));
	out->samplers = take(&at, 4 * (size_t)seqs * sizeof(struct nx_sampler));
	out->emits = take(&at, (size_t)emits * sizeof(struct nx_emit));
	out->commits = take(&at, (size_t)emits * sizeof(struct nx_commit));
	out->gather = take(&at, (size_t)emits * sizeof(int32_t));
	out->segments = take(&at, (size_t)segs * sizeof(struct nx_segment));
	out->seq = take(&at, r);
	out->token = take(&at, r);
	out->slot_off = take(&at, r);
	out->pos_off = take(&at, r);
	out->kind = take(&at, r);
	out->scratch = take(&at, r);
	out->n_anc = take(&at, r);
	out->bytes = at;
	return at;
}

static int32_t *rows_at(const struct nx_step *st, size_t offset)
{
	return (int32_t *)(void *)(st->host + offset);
}

void nx_plan_init_place(struct nx_engine *e, struct nx_step *st, int32_t i)
{
	const struct nx_seq *s = &e->seqs[i];
	struct place_init *init =
		(struct place_init *)(void *)(st->host + e->lay.inits) + e->n_inits;
	struct nx_sampler *sampler =
		(struct nx_sampler *)(void *)(st->host + e->lay.samplers) + e->n_inits;
	*init = (struct place_init){.place = s->place, .len = s->len};
	init->last = s->n_tokens > 0 ? s->tokens[s->n_tokens - 1] : 0;
	*sampler = s->req->sampler;
	sampler->request = s->req->id;
	sampler->sample = s->sample;
	e->n_inits++;
}

/* The rows of one grant: real ones, then padding. */
static void add_rows(struct nx_engine *e, struct nx_step *st, const struct nx_seq *s,
                     const struct nx_grant *g)
{
	int32_t at = e->n_rows, n = g->rows + g->pad;
	for (int32_t r = 0; r < n; r++) {
		bool pad = r >= g->rows;
		int32_t t = s->len + r;
		rows_at(st, e->lay.seq)[at + r] = s->place;
		rows_at(st, e->lay.token)[at + r] = pad               ? 0
		                                    : t < s->n_tokens ? s->tokens[t]
		                                                      : NX_TOKEN_LAST;
		rows_at(st, e->lay.slot_off)[at + r] = r;
		rows_at(st, e->lay.pos_off)[at + r] = r;
		rows_at(st, e->lay.kind)[at + r] = pad ? NX_ROW_PAD : NX_ROW_COMMIT;
		rows_at(st, e->lay.scratch)[at + r] = -1;
		rows_at(st, e->lay.n_anc)[at + r] = 0;
	}
	e->n_rows += n;
	st->info.rows[NX_ROW_COMMIT] += g->rows;
	st->info.rows[NX_ROW_PAD] += g->pad;
}

/* Cuts the step into forwards of at most max_chunk_rows rows, and sequences into segments at the cuts. */
static void add_segments(struct nx_engine *e, struct nx_step *st, const struct nx_seq *s,
                         int32_t row0, int32_t n)
{
	int32_t done = 0;
	while (done < n) {
		int32_t at = row0 + done, c = at / e->max_chunk_rows;
		int32_t end = (c + 1) * e->max_chunk_rows;
		int32_t m = n - done < end - at ? n - done : end - at;
		struct nx_chunk *chunk = &e->chunks[c];
		if (c == e->n_chunks) {
			*chunk = (struct nx_chunk){
				.row0 = at, .seg0 = e->n_segs, .gather0 = e->n_gather};
			e->n_chunks++;
		}
		struct nx_segment *seg =
			(struct nx_segment *)(void *)(st->host + e->lay.segments) + e->n_segs++;
		/* Upper bound of the keys seen: the last row of the segment sees itself. */
		*seg = (struct nx_segment){.seq = s->place,
		                           .row0 = at - chunk->row0,
		                           .n_rows = m,
		                           .max_keys = s->len + done + m};
		chunk->n_segs++;
		chunk->n_rows += m;
		if (seg->max_keys > chunk->max_keys)
			chunk->max_keys = seg->max_keys;
		done += m;
	}
}

static void add_emit(struct nx_engine *e, struct nx_step *st, int32_t i, int32_t src,
                     int32_t logit_row, int32_t rows)
{
	struct nx_seq *s = &e->seqs[i];
	const struct nx_seq *p = &e->seqs[src];
	struct nx_emit *em = (struct nx_emit *)(void *)(st->host + e->lay.emits) + e->n_emits;
	*em = (struct nx_emit){
		.logit_row = logit_row, .seq = s->place, .src_seq = p->place, .pos_off = rows};
	st->flights[e->n_emits] = (struct nx_flight){.seq = i, .gen = s->gen, .index = s->n_out, .place = s->place};
	if (s->req->force)
		s->tokens[s->n_tokens++] = s->req->force[s->n_out];
	s->n_out++;
	e->n_emits++;
}

static void add_commit(struct nx_engine *e, struct nx_step *st, int32_t place, int32_t src,
                       int32_t rows, int32_t emit)
{
	struct nx_commit *c =
		(struct nx_commit *)(void *)(st->host + e->lay.commits) + e->n_commits++;
	*c = (struct nx_commit){.seq = place, .src_seq = src, .n_rows = rows, .emits = emit >= 0};
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
		add_emit(e, st, k, i, logit_row, rows);
		add_commit(e, st, c->place, p->place, rows, e->n_emits - 1);
		if (c->n_out == c->max_out)
			c->ended = true;
	}
	return 0;
}

static int plan_grant(struct nx_engine *e, struct nx_step *st, const struct nx_grant *g,
                      bool *prefill, bool *decode, struct nx_err *err)
{
	struct nx_seq *s = &e->seqs[g->index];
	int32_t row0 = e->n_rows, emit = -1;
	bool draws = g->rows > 0 && g->rows == nx_seq_pending(s);
	add_rows(e, st, s, g);
	add_segments(e, st, s, row0, g->rows + g->pad);
	if (g->rows == 0)
		return 0; /* held: computed, never kept */

	/* A preempted sequence that is computed again does the work of a prompt. */
	if (s->n_out == 0 || g->rows > 1)
		*prefill = true;
	else
		*decode = true;
	if (draws) {
		int32_t last = row0 + g->rows - 1, c = last / e->max_chunk_rows;
		int32_t *gather = (int32_t *)(void *)(st->host + e->lay.gather);
		/* Chunks gather in their order: a later chunk's rows come after all earlier ones. */
		if (e->chunks[c].n_gather == 0)
			e->chunks[c].gather0 = e->n_gather;
		gather[e->n_gather] = last - e->chunks[c].row0;
		e->chunks[c].n_gather++;
		int32_t logit_row = e->n_gather++;
		int rc = fork_children(e, st, g->index, logit_row, g->rows, err);
		if (rc)
			return rc;
		add_emit(e, st, g->index, g->index, logit_row, g->rows);
		emit = e->n_emits - 1;
	}
	add_commit(e, st, s->place, s->place, g->rows, emit);
	s->len += g->rows;
	nx_hooks_event(e, NX_EVENT_COMMIT, g->index, g->rows);
	if (s->n_out == s->max_out)
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
	e->n_rows = e->n_segs = e->n_emits = e->n_commits = e->n_gather = e->n_chunks = 0;
	for (int32_t k = 0; k < e->out.n_grants; k++)
		if (!e->dropped[k])
			total += e->out.grants[k].rows + e->out.grants[k].pad;
	/* Row arrays at the stride of the bucket; the fixed part keeps its place. */
	int32_t bucket = 1;
	while (bucket < total)
		bucket *= 2;
	struct nx_plan_layout lay;
	nx_plan_layout_for(bucket, e->max_segs, e->max_seqs, e->max_seqs, &lay);
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
	st->info.phase = prefill && decode ? NX_PHASE_MIXED
	                 : prefill         ? NX_PHASE_PREFILL
	                                   : NX_PHASE_DECODE;
	return upload(e, st, &lay, err);
}
