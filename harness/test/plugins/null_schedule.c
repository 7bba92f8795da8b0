/* SPDX-License-Identifier: Apache-2.0
 *
 * test/plugins/null_schedule.c: takes the schedule slot and does what the engine's default does. With the other
 * null techniques it shows what it costs to go through a plugin.
 */
#include "static_schedule.h"

static int create(void **self, const struct nx_host *host, const struct nx_value *values,
                  struct nx_err *err)
{
	static int nothing;
	(void)host;
	(void)values;
	(void)err;
	*self = &nothing;
	return 0;
}

static void destroy(void *self)
{
	(void)self;
}

static void event(void *self, const struct nx_seq_event *e)
{
	(void)self;
	(void)e;
}

static int schedule(void *self, const struct nx_sched_view *view, struct nx_schedule *out,
                    struct nx_err *err)
{
	(void)self;
	(void)err;
	return static_schedule(view, out);
}

static const struct nx_technique null_schedule = {
	NX_TECHNIQUE_HEAD, .name = "null_schedule",
	.version = "1",    .summary = "for tests: the default of the schedule slot, as a plugin",
	.source = "none",  .flags = NX_TECH_EXACT | NX_TECH_HOLDS_PLACES,
	.create = create,  .destroy = destroy,
	.event = event,    .schedule = schedule,
};

NX_TECHNIQUE(&null_schedule);
