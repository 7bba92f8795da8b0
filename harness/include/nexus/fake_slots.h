/* SPDX-License-Identifier: Apache-2.0
 *
 * nexus/fake_slots.h: drives the hooks of a drafter, a scheduler or a KV layout over fake_host.h, and checks what the
 * program would refuse. Header-only; for test programs alone.
 */
#ifndef NEXUS_FAKE_SLOTS_H
#define NEXUS_FAKE_SLOTS_H

#include "nexus/fake_host.h"

#ifdef __cplusplus
extern "C" {
#endif

/* ---- draft -------------------------------------------------------------------------------------- */

/* Asks a host drafter for the sequence `request` at place 0, all of whose tokens are given. Returns what it returned,
 * after checking the rows. */
static inline int32_t nx_fake_propose(struct nx_fake *f, uint32_t request, const int32_t *tokens,
                                      int32_t n_tokens, int32_t cap, struct nx_draft_row *rows)
{
	struct nx_draft_seq s;
	memset(&s, 0, sizeof(s));
	s.request = request;
	s.cap = cap;
	s.tokens = tokens;
	s.n_tokens = n_tokens;
	s.n_prompt = 1;
	s.n_out = n_tokens - 1;
	s.max_out = 1 << 20;
	s.last_drafted = s.last_accepted = -1;
	int32_t n = f->t->propose(f->self, &s, rows);
	NX_CHECK(n == NX_UNDRAFTABLE || (n >= 0 && n <= cap), "%d rows are proposed, the cap is %d",
	         n, cap);
	for (int32_t i = 0; i < n && i < cap; i++) {
		NX_CHECK(rows[i].token >= 0 && rows[i].token < f->host.model.vocab,
		         "row %d has a token of the vocabulary: %d", i, rows[i].token);
		NX_CHECK(rows[i].parent >= NX_DRAFT_ROOT && rows[i].parent < i,
		         "row %d hangs from an earlier one: %d", i, rows[i].parent);
		NX_CHECK(rows[i].kind == NX_ROW_CANDIDATE || rows[i].kind == NX_ROW_PROBE,
		         "row %d is a candidate or a probe", i);
	}
	return n;
}

/* ---- schedule ----------------------------------------------------------------------------------- */

/* Sequences that run and wait, as a scheduler sees them. */
struct nx_fake_scene {
	struct nx_sched_seq running[NX_FAKE_MAX], waiting[NX_FAKE_MAX];
	struct nx_grant grants[2 * NX_FAKE_MAX];
	struct nx_sched_view view;
	struct nx_schedule out;
	uint32_t n_requests, n_finished,
		finished[NX_FAKE_MAX]; /* requests in the order they ended */
};

static inline void nx_fake_scene_init(struct nx_fake_scene *s, int32_t places, int32_t max_rows,
                                      int64_t kv_rows)
{
	memset(s, 0, sizeof(*s));
	s->view.running = s->running;
	s->view.waiting = s->waiting;
	s->view.batch_size = s->view.free_seqs = places;
	s->view.max_rows = max_rows;
	s->view.kv_free = s->view.kv_total = kv_rows;
	s->view.split_prompt = true;
}

/* A request arrives. Its number counts from 0. */
static inline void nx_fake_arrive(struct nx_fake_scene *s, int32_t n_prompt, int32_t max_out,
                                  int32_t matched)
{
	struct nx_sched_seq *q = &s->waiting[s->view.n_waiting++];
	memset(q, 0, sizeof(*q));
	q->request = s->n_requests++;
	q->phase = NX_SEQ_WAITING;
	q->samples = 1;
	q->arrival_ns = q->request;
	q->n_prompt = n_prompt;
	q->max_out = max_out;
	q->matched = matched;
	q->pending = n_prompt - matched;
	q->kv_need = n_prompt + max_out;
}

/* Calls the hook and checks what it granted. */
static inline int nx_fake_schedule(struct nx_fake *f, struct nx_fake_scene *s)
{
	struct nx_err err;
	bool seen[2][NX_FAKE_MAX];
	int64_t rows = 0, kv = s->view.kv_free;
	int32_t seats = s->view.free_seqs, bad = 0;
	memset(&err, 0, sizeof(err));
	memset(seen, 0, sizeof(seen));
	memset(&s->out, 0, sizeof(s->out));
	memset(s->grants, 0, sizeof(s->grants));
	s->out.grants = s->grants;
	int rc = f->t->schedule(f->self, &s->view, &s->out, &err);
	if (!NX_CHECK(rc == 0, "schedule: %s", err.msg))
		return rc;
	for (int32_t i = 0; i < s->out.n_grants; i++) {
		const struct nx_grant *g = &s->grants[i];
		int32_t n = g->waiting ? s->view.n_waiting : s->view.n_running;
		if (!NX_CHECK(g->index >= 0 && g->index < n && !seen[g->waiting][g->index],
		              "grant %d is of a sequence that is there, and of each once", i))
			return NX_EBUG;
		const struct nx_sched_seq *q =
			g->waiting ? &s->waiting[g->index] : &s->running[g->index];
		seen[g->waiting][g->index] = true;
		bad += g->rows < 0 || g->rows > q->pending || g->draft < 0 || g->draft > q->draft;
		bad += g->rows < q->pending && !s->view.split_prompt;
		rows += g->rows + g->pad + g->draft;
		seats -= g->waiting;
		kv -= g->waiting ? q->kv_need : 0;
	}
	NX_CHECK(bad == 0, "each grant is of at most the rows that are pending (%d are not)", bad);
	NX_CHECK(rows <= s->view.max_rows, "%d rows are granted, %d fit a step", (int)rows,
	         s->view.max_rows);
	NX_CHECK(seats >= 0, "no more start than there are places");
	NX_CHECK(kv >= 0, "no more start than there is KV room");
	NX_CHECK(rows > 0 || s->out.release_held || s->view.n_running + s->view.n_waiting == 0,
	         "something is granted while something runs or waits");
	return 0;
}

/* Does what was granted: a prompt that is complete gives a token, as does each later row. */
static inline void nx_fake_apply(struct nx_fake_scene *s)
{
	struct nx_sched_seq run[2 * NX_FAKE_MAX], wait[NX_FAKE_MAX];
	int32_t n_run = 0, n_wait = 0, got_run[NX_FAKE_MAX], got_wait[NX_FAKE_MAX];
	memset(got_run, 0xff, sizeof(got_run));
	memset(got_wait, 0xff, sizeof(got_wait));
	for (int32_t i = 0; i < s->out.n_grants; i++)
		(s->grants[i].waiting ? got_wait : got_run)[s->grants[i].index] = s->grants[i].rows;
	for (int32_t i = 0; i < s->view.n_running + s->view.n_waiting; i++) {
		bool waits = i >= s->view.n_running;
		int32_t at = waits ? i - s->view.n_running : i;
		struct nx_sched_seq q = waits ? s->waiting[at] : s->running[at];
		int32_t got = waits ? got_wait[at] : got_run[at];
		if (waits && got < 0) {
			wait[n_wait++] = q;
			continue;
		}
		if (waits) {
			s->view.free_seqs--;
			s->view.kv_free -= q.kv_need;
			q.phase = NX_SEQ_PREFILL;
		}
		q.pending -= got > 0 ? got : 0;
		if (got > 0 && q.pending == 0) {
			q.n_out++;
			q.pending = 1;
			q.phase = NX_SEQ_DECODE;
		}
		if (q.n_out == q.max_out) {
			s->view.free_seqs++;
			s->view.kv_free += q.kv_need;
			s->finished[s->n_finished++] = q.request;
		} else {
			run[n_run++] = q;
		}
	}
	memcpy(s->running, run, (size_t)n_run * sizeof(*run));
	memcpy(s->waiting, wait, (size_t)n_wait * sizeof(*wait));
	s->view.n_running = n_run;
	s->view.n_waiting = n_wait;
}

/* Runs the scene until nobody runs or waits; the number of steps. More than max_steps is a failure. */
static inline int nx_fake_serve(struct nx_fake *f, struct nx_fake_scene *s, int max_steps)
{
	int n = 0;
	for (; s->view.n_running + s->view.n_waiting > 0 && n < max_steps; n++) {
		if (nx_fake_schedule(f, s))
			return n;
		nx_fake_apply(s);
	}
	NX_CHECK(s->view.n_running + s->view.n_waiting == 0, "all end within %d steps", max_steps);
	return n;
}

/* ---- kv_layout ---------------------------------------------------------------------------------- */

/* The geometry for that demand, and targets of every length. */
static inline void nx_fake_layout(struct nx_fake *f, int32_t longest, struct nx_kv_geometry *out)
{
	struct nx_err err;
	struct nx_kv_demand d;
	struct nx_kv_want w;
	memset(&err, 0, sizeof(err));
	memset(&d, 0, sizeof(d));
	memset(&w, 0, sizeof(w));
	memset(out, 0, sizeof(*out));
	d.max_seqs = f->host.max_seqs;
	d.max_len = w.max_len = f->host.max_len;
	d.budget_rows = INT64_MAX;
	d.longest_request = longest;
	int rc = f->t->kv_geometry(f->self, &d, out, &err);
	if (!NX_CHECK(rc == 0, "kv_geometry: %s", err.msg))
		return;
	NX_CHECK(out->block_size >= 1 && out->n_rows >= longest,
	         "the pool has blocks, and room for the longest request");
	NX_CHECK(!out->blocks || out->n_rows % out->block_size == 0,
	         "a pool of blocks is a whole number of them");
	for (w.rows = 1; w.rows <= longest; w.rows++) {
		w.n_prompt = w.rows / 2 + 1;
		w.max_out = longest - w.n_prompt;
		int32_t n = f->t->kv_target(f->self, &w);
		if (!NX_CHECK(n >= w.rows && n <= out->n_rows,
		              "a sequence that needs %d rows gets %d", w.rows, n))
			return;
	}
}

#ifdef __cplusplus
}
#endif
#endif
