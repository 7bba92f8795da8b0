/* SPDX-License-Identifier: Apache-2.0
 *
 * engine/schedule_static.c: static batching, what tutorials call a batch: prompts are padded to the longest
 * one, finished sequences stay and are computed as padding until the last one is done, and only then does
 * the next batch start. The padding is really computed (PAD rows), which keeps the baseline honest.
 */
#include "engine/impl.h"

/* Every unfinished sequence advances; finished ones are carried along as padding. */
static void continue_batch(const struct nx_sched_view *v, struct nx_schedule *out)
{
	int32_t longest = 0;
	for (int32_t i = 0; i < v->n_running; i++)
		if (v->running[i].phase != NX_SEQ_HELD && v->running[i].pending > longest)
			longest = v->running[i].pending;
	for (int32_t i = 0; i < v->n_running; i++) {
		const struct nx_sched_seq *s = &v->running[i];
		int32_t rows = s->phase == NX_SEQ_HELD ? 0 : s->pending;
		/* Where whole sequences are computed again each step (no cache), a held one is too. */
		int32_t width = longest;
		out->grants[out->n_grants++] = (struct nx_grant){
			.index = i, .rows = rows, .pad = width - rows, .draft = s->draft};
	}
}

static void start_batch(const struct nx_sched_view *v, struct nx_schedule *out)
{
	int64_t room = v->kv_total;
	int32_t places = v->free_seqs, longest = 0;
	out->release_held = true;
	for (int32_t i = 0; i < v->n_running; i++)
		places++; /* all of them are held */
	for (int32_t i = 0; i < v->n_waiting && out->n_grants < v->batch_size; i++) {
		const struct nx_sched_seq *s = &v->waiting[i];
		if (s->samples > places || s->kv_need > room)
			break;
		places -= s->samples;
		room -= s->kv_need;
		if (s->pending > longest)
			longest = s->pending;
		out->grants[out->n_grants++] =
			(struct nx_grant){.waiting = true, .index = i, .rows = s->pending};
	}
	for (int32_t i = 0; i < out->n_grants; i++)
		out->grants[i].pad = longest - out->grants[i].rows;
}

int nx_schedule_static(const struct nx_sched_view *v, struct nx_schedule *out, struct nx_err *err)
{
	(void)err;
	bool busy = false;
	for (int32_t i = 0; i < v->n_running; i++)
		busy |= v->running[i].phase != NX_SEQ_HELD;
	if (busy)
		continue_batch(v, out);
	else
		start_batch(v, out);
	return 0;
}
