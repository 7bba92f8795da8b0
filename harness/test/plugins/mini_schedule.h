/* SPDX-License-Identifier: Apache-2.0
 *
 * test/plugins/mini_schedule.h: the smallest scheduler that works, for plugins that misbehave later.
 */
#ifndef NEXUS_TEST_PLUGINS_MINI_SCHEDULE_H
#define NEXUS_TEST_PLUGINS_MINI_SCHEDULE_H

#include "nexus/technique.h"

/* Everything that runs advances; what waits starts when there is room. */
static inline int mini_schedule(const struct nx_sched_view *v, struct nx_schedule *out)
{
	int64_t room = v->kv_free;
	int32_t places = v->free_seqs, batch = v->n_running;
	for (int32_t i = 0; i < v->n_running; i++) {
		if (v->running[i].phase == NX_SEQ_HELD)
			continue;
		out->grants[out->n_grants++] =
			(struct nx_grant){.index = i, .rows = v->running[i].pending};
		room -= v->running[i].pending;
	}
	for (int32_t i = 0; i < v->n_waiting && batch < v->batch_size; i++, batch++) {
		const struct nx_sched_seq *s = &v->waiting[i];
		if (s->samples > places || s->kv_need > room)
			break;
		places -= s->samples;
		room -= s->kv_need;
		out->grants[out->n_grants++] =
			(struct nx_grant){.waiting = true, .index = i, .rows = s->pending};
	}
	out->release_held = true;
	return 0;
}

#endif
