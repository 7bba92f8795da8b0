/* SPDX-License-Identifier: Apache-2.0
 *
 * engine/view.c: what the scheduler may see; see impl.h.
 */
#include "engine/impl.h"

int32_t nx_seq_pending(const struct nx_seq *s)
{
	return s->req->n_prompt + s->n_out - s->len - s->n_dropped;
}

int32_t nx_wasted_rows(const struct nx_engine *e)
{
	return e->plan_ahead && e->draft.stride;
}

/* Rows the layout wants the sequence to hold so that `rows` of them are writable. */
int32_t nx_kv_rows(const struct nx_engine *e, const struct nx_seq *s, int32_t rows)
{
	struct nx_kv_want want = {.rows = rows,
	                          .n_prompt = s->req->n_prompt,
	                          .max_out = s->max_out + nx_wasted_rows(e),
	                          .max_len = e->max_len};
	int32_t t = e->layout ? e->layout->t->kv_target(e->layout->self, &want) : e->max_len;
	if (t < rows)
		t = rows;
	return t < e->max_len ? t : e->max_len;
}

/* Free rows that starting the sequence takes, all its samples included. */
static int32_t kv_need(const struct nx_engine *e, const struct nx_seq *s, int32_t matched)
{
	int32_t rows = s->swapped.rows ? s->swapped.n_rows : s->len;
	int64_t one = nx_store_round(&e->store, nx_kv_rows(e, s, rows + nx_seq_pending(s)));
	int64_t samples = s->n_out || s->sample ? 1 : s->req->samples;
	/* Shared blocks: a further sample takes the block that it will write first. */
	int64_t further = e->store.geo.blocks ? e->store.geo.block_size : one;
	int64_t need = one + (samples - 1) * further;
	if (e->store.geo.blocks)
		need -= matched;
	return need < INT32_MAX ? (int32_t)need : INT32_MAX;
}

static struct nx_sched_seq describe(const struct nx_engine *e, const struct nx_seq *s)
{
	bool fresh = s->n_out == 0 && s->sample == 0;
	return (struct nx_sched_seq){
		.request = s->req->id,
		.sample = s->sample,
		.phase = s->phase,
		.priority = s->req->priority,
		.samples = s->place < 0 && fresh ? s->req->samples : 1,
		.arrival_ns = s->arrival_ns,
		.n_prompt = s->req->n_prompt,
		.n_out = s->n_out,
		.max_out = s->max_out,
		.pending = s->phase == NX_SEQ_HELD ? 0 : nx_seq_pending(s),
		.kv_held = s->place >= 0 ? (int32_t)e->store.places[s->place].held : 0,
		.draft = s->place >= 0 ? nx_draft_cap(e, s) : 0,
		.n_preempted = s->n_preempted,
	};
}

void nx_view_build(struct nx_engine *e)
{
	struct nx_sched_view *v = &e->view;
	*v = (struct nx_sched_view){
		.running = e->view_run,
		.waiting = e->view_wait,
		.batch_size = e->cfg.batch_size,
		.free_seqs = e->n_free_places,
		.max_rows = e->max_rows,
		.kv_free = e->store.pool.free_rows + nx_store_evictable(&e->store),
		.kv_total = e->store.pool.n_rows,
		.split_prompt = !(e->broken & NX_TRAIT_SPLIT_PROMPT),
	};
	for (int32_t k = 0; k < e->n_run; k++) {
		struct nx_seq *s = &e->seqs[e->run[k]];
		if (s->parent >= 0)
			continue; /* has a place, starts when its prompt is done */
		if (s->phase != NX_SEQ_HELD)
			s->phase =
				s->n_out && nx_seq_pending(s) == 1 ? NX_SEQ_DECODE : NX_SEQ_PREFILL;
		e->view_run_seq[v->n_running] = e->run[k];
		e->view_run[v->n_running++] = describe(e, s);
	}
	for (int32_t k = 0; k < e->n_wait; k++) {
		struct nx_seq *s = &e->seqs[e->wait[k]];
		/* A preempted sequence is computed again from its tokens: all must have reached the host. */
		if (s->n_seen < s->n_out && !s->req->force)
			continue;
		e->view_wait_seq[v->n_waiting] = e->wait[k];
		e->view_wait[v->n_waiting] = describe(e, s);
		e->view_wait[v->n_waiting].matched = nx_prefix_hint(e, s);
		e->view_wait[v->n_waiting].kv_need =
			kv_need(e, s, e->view_wait[v->n_waiting].matched);
		v->n_waiting++;
	}
}
