/* SPDX-License-Identifier: Apache-2.0
 *
 * engine/admit.c: turns the scheduler's grants into places and KV room, preempting where the pool is
 * exhausted. Room for every grant is made before a row is planned, so a sequence that was granted rows can
 * still be preempted for a more urgent one: its grant falls away.
 */
#include <string.h>

#include "engine/impl.h"

static void remove_at(int32_t *list, int32_t *n, int32_t value)
{
	for (int32_t i = 0; i < *n; i++) {
		if (list[i] != value)
			continue;
		memmove(list + i, list + i + 1, (size_t)(*n - i - 1) * sizeof(*list));
		(*n)--;
		return;
	}
}

void nx_seq_leave(struct nx_engine *e, int32_t i)
{
	struct nx_seq *s = &e->seqs[i];
	if (s->place < 0)
		return;
	/* What was dropped of it in this plan must not shorten whoever gets the place next. */
	struct nx_commit *c = (struct nx_commit *)(void *)(e->steps[e->turn].host + e->lay.commits);
	for (int32_t k = 0; k < e->n_before; k++)
		if (c[k].seq == s->place)
			c[k].n_rows = 0;
	nx_store_trim(&e->store, s->place, 0);
	e->free_places[e->n_free_places++] = s->place;
	s->place = -1;
	remove_at(e->run, &e->n_run, i);
}

static void enter(struct nx_engine *e, int32_t i)
{
	struct nx_seq *s = &e->seqs[i];
	s->place = e->free_places[--e->n_free_places];
	e->run[e->n_run++] = i;
}

/* To the front of the waiting list: it arrived before all that never ran. */
static void wait_again(struct nx_engine *e, int32_t i)
{
	memmove(e->wait + 1, e->wait, (size_t)e->n_wait * sizeof(*e->wait));
	e->wait[0] = i;
	e->n_wait++;
}

static int preempt(struct nx_engine *e, struct nx_step *st, int32_t i, struct nx_err *err)
{
	struct nx_seq *s = &e->seqs[i];
	if (s->phase ==
	    NX_SEQ_HELD) { /* it only keeps its place warm: nothing of it is needed again */
		nx_seq_leave(e, i);
		if (s->n_seen == s->n_out)
			s->live = false;
		return 0;
	}
	/* A drafter's group may trail: after a swap the rows it lacks are done again (REDO), and with a grouped
	 * codec their groups are no longer there in full precision, so that the sequence is computed again. */
	bool swap = e->store.geo.preempt == NX_PREEMPT_SWAP && s->len > 0 &&
	            !(e->needs.wants_feature && e->codec_layout.window > 1);
	/* Children that wait for this prompt lose it: they are made again when it is admitted again. */
	for (int32_t k = 0; k < e->n_entries; k++) {
		struct nx_seq *c = &e->seqs[k];
		if (!c->live || c->parent != i)
			continue;
		nx_seq_leave(e, k);
		c->live = false;
	}
	if (swap) {
		struct nx_err full = {0};
		int rc = nx_store_swap_out(&e->store, e->stream, s->place, s->len, &s->swapped,
		                           &full);
		if (rc == NX_ENOSPC)
			swap = false; /* no host room either: compute it again */
		else if (rc)
			return nx_fail(err, rc, "%s", full.msg);
	}
	if (!swap) {
		s->len = s->slack = s->n_dropped = s->redo = s->ahead = 0;
		s->lives++;
	}
	s->n_published = 0;
	nx_hooks_event(e, NX_EVENT_PREEMPT, i, swap ? NX_PREEMPT_SWAP : NX_PREEMPT_RECOMPUTE);
	nx_seq_leave(e, i);
	s->phase = swap ? NX_SEQ_SWAPPED : NX_SEQ_WAITING;
	s->n_preempted++;
	st->info.n_preempted++;
	wait_again(e, i);
	return 0;
}

/* The sequence to preempt for i, or -1. The scheduler's choice, else the newest that runs. */
static int32_t pick_victim(struct nx_engine *e)
{
	struct nx_slot_hook *h = e->sched;
	if (e->store.geo.preempt == NX_PREEMPT_NONE)
		return -1;
	nx_view_build(e);
	/* A finished sequence that only holds its place costs nothing. */
	for (int32_t i = 0; i < e->view.n_running; i++)
		if (e->view_run[i].phase == NX_SEQ_HELD)
			return e->view_run_seq[i];
	int32_t at = h && h->t->victim ? h->t->victim(h->self, &e->view) : e->view.n_running - 1;
	if (at < 0 || at >= e->view.n_running)
		return -1;
	return e->view_run_seq[at];
}

static int32_t grant_seq(const struct nx_grant *g, const int32_t *run_seq, const int32_t *wait_seq)
{
	return g->waiting ? wait_seq[g->index] : run_seq[g->index];
}

/* Rows for a place; a prefix cache makes room where it can. */
static int reserve(struct nx_engine *e, const struct nx_seq *s, int32_t rows, struct nx_err *err)
{
	for (;;) {
		int32_t target = nx_kv_rows(e, s, rows);
		int rc = nx_store_reserve(&e->store, s->place, s->len - s->slack, target, err);
		int64_t lacks = nx_store_round(&e->store, target) - e->store.places[s->place].held -
		                e->store.pool.free_rows;
		if (rc != NX_ENOSPC || !nx_prefix_evict(e, lacks > 0 ? lacks : 1))
			return rc;
	}
}

/* Room for a running sequence: without its draft where that does not fit, then others are preempted for it, in
 * the worst case itself. */
static int make_room(struct nx_engine *e, struct nx_step *st, struct nx_grant *g, int32_t rows,
                     struct nx_err *err)
{
	int32_t i = g->index;
	for (;;) {
		struct nx_seq *s = &e->seqs[i];
		struct nx_err full = {0};
		int rc = reserve(e, s, rows + g->draft, &full);
		if (!rc)
			return 0;
		if (rc == NX_ENOSPC && g->draft) {
			g->draft = 0;
			continue;
		}
		int32_t v = rc == NX_ENOSPC ? pick_victim(e) : -1;
		if (v < 0)
			return nx_fail(err, rc, "%s", full.msg);
		if (v == i && e->n_run == 1)
			return nx_fail(
				err, NX_ENOSPC,
				"%s, although nothing else runs: the pool is too small for request %u",
				full.msg, s->req->id);
		rc = preempt(e, st, v, err);
		if (rc)
			return rc;
		if (v == i)
			return 0;
	}
}

static struct nx_seq *new_child(struct nx_engine *e, int32_t parent, uint32_t sample)
{
	struct nx_seq *p = &e->seqs[parent];
	for (int32_t k = 0; k < e->n_entries; k++) {
		struct nx_seq *c = &e->seqs[k];
		if (c->live)
			continue;
		int32_t *tokens = c->tokens;
		uint32_t gen = c->gen + 1;
		*c = (struct nx_seq){.live = true,
		                     .req = p->req,
		                     .sample = sample,
		                     .gen = gen,
		                     .place = -1,
		                     .phase = NX_SEQ_PREFILL,
		                     .parent = parent,
		                     .tokens = tokens,
		                     .max_out = p->max_out,
		                     .last_drafted = -1,
		                     .last_accepted = -1,
		                     .redo = e->needs.wants_feature,
		                     .arrival_ns = p->arrival_ns};
		return c;
	}
	return NULL;
}

/* What the sequence finds in its place: swapped rows, a cached prefix, or nothing. */
static int fill_place(struct nx_engine *e, struct nx_step *st, struct nx_seq *s,
                      const struct nx_grant *g, struct nx_err *err)
{
	bool swapped = s->swapped.rows != NULL, match = e->prefix && !swapped;
	int32_t rows = swapped ? s->swapped.n_rows : 0;
	int rc = 0;
	/* Blocks are shared before room is made for the rest; a run is there before anything is copied into it. */
	if (match && e->store.geo.blocks)
		rc = nx_prefix_start(e, s, err);
	else if (match)
		rows = s->n_tokens;
	/* What was granted comes after what was matched. */
	int32_t pending = nx_seq_pending(s);
	int32_t want = s->len + (g->rows < pending ? g->rows : pending) + g->pad;
	if (!rc)
		rc = reserve(e, s, want > rows ? want : rows, err);
	if (!rc && match && !e->store.geo.blocks)
		rc = nx_prefix_start(e, s, err);
	if (!rc && swapped) {
		rc = nx_store_swap_in(&e->store, e->stream, s->place, &s->swapped, err);
		if (e->needs.wants_feature)
			s->redo = e->needs.lag + 1 < s->len ? e->needs.lag + 1 : s->len;
	}
	if (!rc)
		nx_plan_init_place(e, st, (int32_t)(s - e->seqs), swapped);
	return rc;
}

/* Starts or resumes a waiting sequence. NX_ENOSPC: it stays waiting and nothing has changed. */
static int start(struct nx_engine *e, struct nx_step *st, struct nx_grant *g, int32_t rows,
                 struct nx_err *err)
{
	int32_t i = g->index;
	struct nx_seq *s = &e->seqs[i];
	int32_t samples = s->n_out || s->sample ? 1 : s->req->samples, len = s->len;
	if (samples > e->n_free_places)
		return nx_fail(
			err, NX_EBUG,
			"the scheduler started request %u with %d samples and %d free places",
			s->req->id, samples, e->n_free_places);
	bool resumed = s->n_preempted > 0, swapped = s->swapped.rows != NULL;
	enter(e, i);
	int rc = fill_place(e, st, s, g, err);
	for (int32_t k = 1; k < samples && !rc; k++) {
		struct nx_seq *c = new_child(e, i, (uint32_t)k);
		if (!c)
			return nx_fail(err, NX_EBUG, "no entry is left for sample %d of request %u",
			               k, s->req->id);
		enter(e, (int32_t)(c - e->seqs));
		nx_plan_init_place(e, st, (int32_t)(c - e->seqs), false);
		/* A run cannot be shared: a contiguous sample holds its own from the start. */
		if (!e->store.geo.blocks)
			rc = nx_store_reserve(&e->store, c->place, 0, nx_kv_rows(e, s, rows), err);
	}
	if (rc) {
		for (int32_t k = 0; k < e->n_entries; k++) {
			struct nx_seq *c = &e->seqs[k];
			if (!c->live || c->parent != i)
				continue;
			nx_seq_leave(e, k);
			c->live = false;
		}
		nx_seq_leave(e, i);
		s->len = len;
		s->n_published = s->ahead = 0;
		return rc;
	}
	/* Fewer rows are left to compute after a match. */
	int32_t pending = nx_seq_pending(s), matched = swapped ? 0 : s->len;
	g->rows = g->rows < pending ? g->rows : pending;
	remove_at(e->wait, &e->n_wait, i);
	s->phase = NX_SEQ_PREFILL;
	nx_hooks_event(e, resumed ? NX_EVENT_RESUME : NX_EVENT_ADMIT, i, matched);
	return 0;
}

static int check_grant(const struct nx_engine *e, const struct nx_grant *g, struct nx_err *err)
{
	int32_t n = g->waiting ? e->view.n_waiting : e->view.n_running;
	if (g->index < 0 || g->index >= n)
		return nx_fail(err, NX_EBUG, "the scheduler granted rows to %s sequence %d of %d",
		               g->waiting ? "waiting" : "running", g->index, n);
	const struct nx_sched_seq *v =
		g->waiting ? &e->view_wait[g->index] : &e->view_run[g->index];
	if (g->draft < 0 || g->draft > v->draft)
		return nx_fail(
			err, NX_EBUG,
			"the scheduler granted %d drafted rows to request %u, which may draft %d",
			g->draft, v->request, v->draft);
	if (g->rows < 0 || g->pad < 0 || g->rows > v->pending || g->rows + g->pad == 0 ||
	    (g->rows == 0) != (v->phase == NX_SEQ_HELD))
		return nx_fail(
			err, NX_EBUG,
			"the scheduler granted %d rows and %d of padding to request %u, which has %d pending",
			g->rows, g->pad, v->request, v->pending);
	if (!e->view.split_prompt && g->rows && g->rows != v->pending)
		return nx_fail(
			err, NX_ECONFLICT,
			"the scheduler split the %d pending rows of request %u, which this KV layout "
			"does not allow",
			v->pending, v->request);
	return 0;
}

int nx_admit(struct nx_engine *e, struct nx_step *st, struct nx_err *err)
{
	struct nx_schedule *o = &e->out;
	int64_t rows = 0;
	memset(e->granted, 0, (size_t)e->n_entries * sizeof(*e->granted));
	for (int32_t k = 0; k < o->n_grants; k++) {
		int rc = check_grant(e, &o->grants[k], err);
		if (rc)
			return rc;
		/* From here on a grant names the entry: preemption rebuilds the view. */
		o->grants[k].index = grant_seq(&o->grants[k], e->view_run_seq, e->view_wait_seq);
		if (e->granted[o->grants[k].index])
			return nx_fail(err, NX_EBUG,
			               "the scheduler granted rows twice to request %u",
			               e->seqs[o->grants[k].index].req->id);
		e->granted[o->grants[k].index] = true;
		rows += o->grants[k].rows + o->grants[k].pad + o->grants[k].draft;
	}
	if (rows > e->max_rows)
		return nx_fail(err, NX_EBUG,
		               "the scheduler granted %lld rows, a step has at most %d",
		               (long long)rows, e->max_rows);

	bool closed = false; /* once one does not fit, later ones do not overtake it */
	for (int32_t k = 0; k < o->n_grants; k++) {
		struct nx_grant *g = &o->grants[k];
		struct nx_seq *s = &e->seqs[g->index];
		int32_t base = s->swapped.rows ? s->swapped.n_rows : s->len;
		int32_t want = base + g->rows + g->pad;
		struct nx_err full = {0};
		int rc = 0;
		if (want >
		    e->longest) { /* padding makes no sequence longer than the longest request */
			g->pad -= want - e->longest;
			want = e->longest;
		}
		e->dropped[k] = false;
		if (!g->waiting) {
			if (s->place >= 0)
				rc = make_room(e, st, g, want, err);
			if (rc)
				return rc;
			continue;
		}
		rc = closed ? NX_ENOSPC : start(e, st, g, want, &full);
		if (rc && rc != NX_ENOSPC)
			return nx_fail(err, rc, "%s", full.msg);
		closed |= rc != 0;
		e->dropped[k] = rc != 0;
	}
	/* A sequence that lost its place to a later grant is computed in a later step. */
	for (int32_t k = 0; k < o->n_grants; k++)
		e->dropped[k] |= e->seqs[o->grants[k].index].place < 0;
	return 0;
}
