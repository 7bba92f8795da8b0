/* SPDX-License-Identifier: Apache-2.0
 *
 * engine/loop.c: arrivals, steps, results, retirement: nx_engine_run(). See engine.h.
 *
 * Planning ahead, step n + 1 is planned and enqueued while step n runs, from counts that the host knows;
 * tokens are read one step late. A sequence that turns out to have ended (EOS) has then one row in flight
 * whose token is dropped.
 */
#include <string.h>

#include "engine/clock.h"
#include "engine/impl.h"

#define EMPTY_STEPS 1000 /* in a row, after which a scheduler is held to be stuck */

static int32_t free_entry(const struct nx_engine *e)
{
	for (int32_t i = 0; i < e->n_entries; i++)
		if (!e->seqs[i].live)
			return i;
	return -1;
}

#define NOT_HERE (-1) /* in e->left: has not arrived */

/* The first request that has not arrived and waits for none, or NULL. Those that wait are passed over: they are
 * turns of conversations in flight, and few. */
static const struct nx_request *next_request(struct nx_engine *e)
{
	while (e->next_req < e->n_reqs && e->left[e->next_req] != NOT_HERE)
		e->next_req++;
	for (size_t i = e->next_req; i < e->n_reqs; i++) {
		const struct nx_request *r = &e->reqs[i];
		if (e->left[i] == NOT_HERE && (!r->after || e->left[r->after - 1] == 0))
			return r;
	}
	return NULL;
}

/* Closed loop: as long as fewer than batch_size requests are in flight, the next one arrives. */
static int arrive(struct nx_engine *e, struct nx_err *err)
{
	while (e->in_flight < e->cfg.batch_size) {
		const struct nx_request *r = next_request(e);
		if (!r)
			return 0;
		int32_t i = free_entry(e);
		if (i < 0)
			return nx_fail(err, NX_EBUG, "no entry is left for request %u", r->id);
		struct nx_seq *s = &e->seqs[i];
		int32_t *tokens = s->tokens, room = e->max_len - r->n_prompt;
		uint32_t gen = s->gen + 1;
		*s = (struct nx_seq){.live = true,
		                     .req = r,
		                     .gen = gen,
		                     .place = -1,
		                     .phase = NX_SEQ_WAITING,
		                     .parent = -1,
		                     .last_drafted = -1,
		                     .last_accepted = -1,
		                     .tokens = tokens,
		                     .n_tokens = r->n_prompt,
		                     .max_out = r->max_out < room + 1 ? r->max_out : room + 1,
		                     .arrival_ns = nx_now_ns()};
		memcpy(tokens, r->prompt, (size_t)r->n_prompt * sizeof(*tokens));
		e->left[r - e->reqs] = r->samples;
		e->wait[e->n_wait++] = i;
		e->in_flight++;
	}
	return 0;
}

/* Ended sequences give back their places, or are held by a scheduler that holds them. */
static void retire(struct nx_engine *e, bool release_held)
{
	for (int32_t k = e->n_run; k-- > 0;) {
		int32_t i = e->run[k];
		struct nx_seq *s = &e->seqs[i];
		if (s->ended && s->phase != NX_SEQ_HELD) {
			nx_prefix_publish(e, s);
			nx_hooks_event(e, NX_EVENT_RETIRE, i, 0);
			s->phase = NX_SEQ_HELD;
		}
		if (s->phase == NX_SEQ_HELD && (release_held || !e->holds_places)) {
			nx_seq_leave(e, i);
			/* Outputs may still be in flight; the entry then goes with the last of them. */
			if (s->n_seen == s->n_out)
				s->live = false;
		}
	}
}

/* Rows of a place without a token in them. A shared block counts once: each sharer has its part. */
static int64_t waste_of(const struct nx_engine *e, const struct nx_seq *q)
{
	const struct nx_store *s = &e->store;
	const struct nx_place *p = &s->places[q->place];
	int64_t bs = s->geo.block_size, waste = 0;
	if (!s->geo.blocks)
		return p->held > q->len ? p->held - q->len : 0;
	for (int64_t b = q->len / bs; b < p->n_blocks; b++) {
		int64_t empty = (b + 1) * bs - q->len < bs ? (b + 1) * bs - q->len : bs;
		int32_t id = s->blocks[(size_t)q->place * (size_t)s->table_stride + (size_t)b];
		waste += empty / s->pool.refs[id];
	}
	return waste;
}

/* Rows with a token in them: what sequences and the prefix cache hold, less the unfilled ends. */
static int64_t used_rows(const struct nx_engine *e)
{
	int64_t used = e->store.pool.n_rows - e->store.pool.free_rows;
	for (int32_t k = 0; k < e->n_run; k++)
		used -= waste_of(e, &e->seqs[e->run[k]]);
	return used;
}

/* A layout that drops rows says which, before anything is planned for this step. */
static int drop_rows(struct nx_engine *e, struct nx_step *st, struct nx_err *err)
{
	const struct nx_technique *t = e->layout ? e->layout->t : NULL;
	for (int32_t k = 0; t && t->kv_drop && k < e->n_run; k++) {
		struct nx_seq *s = &e->seqs[e->run[k]];
		int32_t bs = e->store.geo.blocks ? e->store.geo.block_size : 1, first = 0;
		if (s->phase == NX_SEQ_HELD || s->parent >= 0 || !s->n_out)
			continue;
		const struct nx_kv_held held = {.seq = s->place,
		                                .len = s->len,
		                                .n_dropped = s->n_dropped,
		                                .block_size = bs};
		int32_t n = t->kv_drop(e->layout->self, &held, &first);
		if (n == 0)
			continue;
		if (n < 0 || first < 0 || first % bs || n % bs || first + n > s->len)
			return nx_fail(
				err, NX_EBUG,
				"%s drops %d rows from %d on, of %d; legal: whole blocks of %d",
				t->name, n, first, s->len, bs);
		int rc = nx_store_drop(&e->store, s->place, first, n, s->len, err);
		if (rc)
			return rc;
		s->len -= n;
		s->n_dropped += n;
		nx_plan_drop(e, st, s->place, n);
	}
	return 0;
}

/* Nothing is kept between steps: every sequence starts over with its whole text (no cache). */
static void drop_all(struct nx_engine *e)
{
	for (int32_t k = 0; k < e->n_run; k++) {
		struct nx_seq *s = &e->seqs[e->run[k]];
		nx_store_trim(&e->store, s->place, 0);
		s->len = 0;
	}
}

/* The device must forget too: lengths are set again with the next plan. */
static void restart_places(struct nx_engine *e, struct nx_step *st)
{
	for (int32_t k = 0; k < e->n_run; k++)
		if (e->seqs[e->run[k]].parent < 0)
			nx_plan_init_place(e, st, e->run[k], false);
}

static int plan(struct nx_engine *e, struct nx_step *st, bool *any, struct nx_err *err)
{
	st->info = (struct nx_step_info){.begin_ns = nx_now_ns()};
	st->n_flights = 0;
	e->n_inits = 0; /* commits of dropped rows wait for the next step that runs */
	for (int32_t k = 0; k < e->n_run; k++)
		nx_prefix_publish(e, &e->seqs[e->run[k]]);
	retire(e, false);
	int rc = arrive(e, err);
	if (!rc)
		rc = drop_rows(e, st, err);
	if (rc)
		return rc;
	if (!e->store.geo.keep)
		restart_places(e, st);
	nx_view_build(e);
	e->out = (struct nx_schedule){.grants = e->grants};
	rc = e->sched ? e->sched->t->schedule(e->sched->self, &e->view, &e->out, err)
	              : nx_schedule_static(&e->view, &e->out, err);
	if (rc)
		return rc;
	if (e->out.n_grants < 0 || e->out.n_grants > e->view.n_running + e->view.n_waiting)
		return nx_fail(err, NX_EBUG, "the scheduler made %d grants for %d sequences",
		               e->out.n_grants, e->view.n_running + e->view.n_waiting);
	if (e->out.release_held)
		retire(e, true);
	st->info.n_waiting = e->view.n_waiting;
	rc = nx_admit(e, st, err);
	if (rc)
		return rc;
	*any = false;
	for (int32_t k = 0; k < e->out.n_grants; k++)
		*any |= !e->dropped[k];
	if (!*any)
		return 0;
	/* Copies on write come before the rows are computed; copies that a fork queues, after. */
	rc = nx_store_flush(&e->store, e->stream, err);
	if (!rc)
		rc = nx_plan_build(e, st, err);
	if (rc)
		return rc;
	const struct nx_pool *p = &e->store.pool;
	st->info.kv_total = p->n_rows;
	st->info.kv_held = p->n_rows - p->free_rows;
	st->info.kv_used = used_rows(e);
	if (st->info.kv_used > e->peak_used_rows)
		e->peak_used_rows = st->info.kv_used;
	st->info.plan_ns = nx_now_ns() - st->info.begin_ns;
	return 0;
}

/* Each request once, when its first rows are computed: not where it was preempted before that. */
static void announce(struct nx_engine *e, uint64_t now)
{
	const struct nx_sink *k = e->sink;
	for (int32_t g = 0; g < e->out.n_grants; g++) {
		struct nx_seq *s = &e->seqs[e->out.grants[g].index];
		if (e->dropped[g] || s->announced || s->sample)
			continue;
		s->announced = true;
		if (k->start)
			k->start(k->ctx, s->req->id, s->arrival_ns, now);
	}
}

static int stuck(const struct nx_engine *e, struct nx_err *err)
{
	if (e->view.n_waiting && !e->view.n_running && e->view_wait[0].kv_need > e->view.kv_free)
		return nx_fail(
			err, NX_ENOSPC,
			"request %u needs %d KV rows to start and the pool has %lld, %lld of them free: give it more "
			"room or shorten the request",
			e->view_wait[0].request, e->view_wait[0].kv_need,
			(long long)e->view.kv_total, (long long)e->view.kv_free);
	return nx_fail(err, NX_EBUG,
	               "the scheduler granted nothing while %d sequences run and %d wait",
	               e->view.n_running, e->view.n_waiting);
}

static int step(struct nx_engine *e, struct nx_err *err)
{
	struct nx_step *st = &e->steps[e->turn], *before = &e->steps[e->turn ^ 1];
	bool any = false;
	int rc = plan(e, st, &any, err);
	if (rc)
		return rc;
	if (!any) {
		if (before->in_flight)
			return nx_reconcile(e, before, err);
		/* A newcomer that did not fit after all costs a step; a scheduler that grants nothing else, the run. */
		if (e->out.n_grants && e->view.n_running && ++e->n_empty_steps < EMPTY_STEPS)
			return 0;
		return e->in_flight ? stuck(e, err) : 0;
	}
	e->n_empty_steps = 0;
	const struct nx_sink *k = e->sink;
	rc = k->launch ? k->launch(k->ctx, true, &st->info, err) : 0;
	if (!rc)
		rc = nx_launch(e, st, err);
	if (!rc && k->launch)
		rc = k->launch(k->ctx, false, &st->info, err);
	if (rc)
		return rc;
	announce(e, st->info.begin_ns);
	st->in_flight = true;
	if (!e->store.geo.keep)
		drop_all(e);
	if (e->plan_ahead) {
		e->turn ^= 1;
		if (before->in_flight)
			rc = nx_reconcile(e, before, err);
	} else {
		rc = nx_reconcile(e, st, err);
	}
	if (!rc && e->cfg.check)
		rc = nx_store_check(&e->store, err);
	return rc;
}

static int check_requests(const struct nx_engine *e, const struct nx_request *reqs, size_t n,
                          struct nx_err *err)
{
	for (size_t i = 0; i < n; i++) {
		const struct nx_request *r = &reqs[i];
		if (r->n_prompt < 1 || r->max_out < 1)
			return nx_fail(
				err, NX_EINVAL,
				"request %u has %d prompt tokens and asks for %d; both must be at least 1",
				r->id, r->n_prompt, r->max_out);
		if (r->n_prompt > e->max_len)
			return nx_fail(err, NX_EINVAL,
			               "request %u has a prompt of %d tokens; at most %d fit",
			               r->id, r->n_prompt, e->max_len);
		if (r->n_prompt + r->max_out > e->longest)
			return nx_fail(
				err, NX_EINVAL,
				"request %u wants %d + %d tokens; the engine was made for %d",
				r->id, r->n_prompt, r->max_out, e->longest);
		if (r->after > i)
			return nx_fail(
				err, NX_EINVAL,
				"request %u waits for request %u of the list, which does not come before it",
				r->id, r->after - 1);
		if (r->samples < 1 || r->samples > e->cfg.samples)
			return nx_fail(
				err, NX_EINVAL,
				"request %u wants %d samples; the engine was made for 1 to %d",
				r->id, r->samples, e->cfg.samples);
		for (int32_t t = 0; t < r->n_prompt; t++)
			if (r->prompt[t] < 0 || r->prompt[t] >= e->w->shape.vocab)
				return nx_fail(
					err, NX_EINVAL,
					"request %u has token %d at %d; the vocabulary has %d",
					r->id, r->prompt[t], t, e->w->shape.vocab);
	}
	return 0;
}

int nx_engine_run(struct nx_engine *e, const struct nx_request *reqs, size_t n,
                  const struct nx_sink *sink, struct nx_err *err)
{
	static const struct nx_sink silent = {0};
	int rc = check_requests(e, reqs, n, err);
	if (rc)
		return rc;
	size_t left_owner = nx_engine_owner(e, "requests");
	e->left = nx_engine_alloc(e, left_owner, NX_MEM_HOST, n * sizeof(*e->left));
	if (!e->left)
		return nx_fail(err, NX_ENOMEM, "out of memory for %zu requests", n);
	for (size_t i = 0; i < n; i++)
		e->left[i] = NOT_HERE;
	e->reqs = reqs;
	e->n_reqs = n;
	e->next_req = e->n_done_reqs = 0;
	e->in_flight = 0;
	e->sink = sink ? sink : &silent;
	bool ahead = e->plan_ahead;
	if (e->sink->logits)
		e->plan_ahead = false; /* logits are overwritten by the next step */
	for (size_t i = 0; i < n && e->draft.stride; i++)
		if (reqs[i].force)
			e->plan_ahead = false; /* which tokens come next depends on the verdict */

	while (!rc && e->n_done_reqs < n) {
		if (e->sink->stop && e->sink->stop(e->sink->ctx))
			rc = nx_fail(err, NX_ESKIP, "stopped after %zu of %zu requests",
			             e->n_done_reqs, n);
		else
			rc = step(e, err);
	}
	for (int i = 0; i < 2 && !rc;
	     i++) /* rows of sequences that had ended may still be in flight */
		if (e->steps[i].in_flight)
			rc = nx_reconcile(e, &e->steps[i], err);
	if (!rc)
		retire(e, true);
	int sync = e->dev->ops->stream_sync(e->dev->dev, e->stream, rc ? NULL : err);
	e->plan_ahead = ahead;
	nx_engine_free(e, left_owner, NX_MEM_HOST, e->left, n * sizeof(*e->left));
	e->left = NULL;
	size_t kv = nx_engine_owner(e, "kv");
	e->owners[kv].peak_used_bytes =
		(uint64_t)e->peak_used_rows * (uint64_t)e->store.row_bytes_all;
	if (rc || sync)
		nx_engine_reset(e);
	return rc ? rc : sync;
}
