/* SPDX-License-Identifier: Apache-2.0
 *
 * test/plugins/static_schedule.h: the engine's default of the schedule slot, as a plugin can have it: padded,
 * runs to completion (engine/schedule_static.c, which a plugin cannot reach; test_void.c holds the two
 * together). The technique needs NX_TECH_HOLDS_PLACES.
 */
#ifndef NEXUS_TEST_PLUGINS_STATIC_SCHEDULE_H
#define NEXUS_TEST_PLUGINS_STATIC_SCHEDULE_H

#include "nexus/technique.h"

static inline bool static_busy(const struct nx_sched_view *v, int32_t *longest)
{
	bool busy = false;
	for (int32_t i = 0; i < v->n_running; i++) {
		if (v->running[i].phase == NX_SEQ_HELD)
			continue;
		busy = true;
		if (v->running[i].pending > *longest)
			*longest = v->running[i].pending;
	}
	return busy;
}

static inline void static_start(const struct nx_sched_view *v, struct nx_schedule *out)
{
	int64_t room = v->kv_total;
	int32_t places = v->free_seqs + v->n_running, longest = 0;
	out->release_held = true;
	for (int32_t i = 0; i < v->n_waiting && out->n_grants < v->batch_size; i++) {
		const struct nx_sched_seq *s = &v->waiting[i];
		if (s->samples > places || s->kv_need > room)
			break;
		places -= s->samples;
		room -= s->kv_need;
		longest = s->pending > longest ? s->pending : longest;
		out->grants[out->n_grants++] =
			(struct nx_grant){.waiting = true, .index = i, .rows = s->pending};
	}
	for (int32_t i = 0; i < out->n_grants; i++)
		out->grants[i].pad = longest - out->grants[i].rows;
}

static inline int static_schedule(const struct nx_sched_view *v, struct nx_schedule *out)
{
	int32_t longest = 0;
	if (!static_busy(v, &longest)) {
		static_start(v, out);
		return 0;
	}
	for (int32_t i = 0; i < v->n_running; i++) {
		const struct nx_sched_seq *s = &v->running[i];
		int32_t rows = s->phase == NX_SEQ_HELD ? 0 : s->pending;
		out->grants[out->n_grants++] =
			(struct nx_grant){.index = i, .rows = rows, .pad = longest - rows, .draft = s->draft};
	}
	return 0;
}

#endif
