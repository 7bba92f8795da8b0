/* SPDX-License-Identifier: Apache-2.0
 *
 * test/plugins/fake_schedule.c: a technique that loads and does nothing, with a parameter of each type, so
 * that tests of experiment files do not depend on the real techniques.
 */
#include "nexus/technique.h"

static const struct nx_param params[] = {
	{"block_size", NX_PARAM_INT, "16", 1, 4096, NULL, "tokens", "any number"},
	{"policy", NX_PARAM_ENUM, "fcfs", 0, 0, "fcfs|priority|shortest", "", "any choice"},
	{"max_batch_size", NX_PARAM_INT, "0", 0, 4096, NULL, "requests", "0 = no limit"},
	{"ratio", NX_PARAM_FLOAT, "0.5", 0, 1, NULL, "fraction", "any number"},
	{"eager", NX_PARAM_BOOL, "false", 0, 0, NULL, "", "any truth"},
	{0},
};

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

static int schedule(void *self, const struct nx_sched_view *view, struct nx_schedule *out,
                    struct nx_err *err)
{
	(void)self;
	(void)view;
	(void)out;
	return nx_fail(err, NX_ENOTSUP, "fake_schedule cannot run");
}

static const struct nx_technique fake_schedule = {
	NX_TECHNIQUE_HEAD,
	.name = "fake_schedule",
	.version = "1",
	.summary = "for tests",
	.source = "none",
	.params = params,
	.breaks = NX_TRAIT_SPLIT_PROMPT,
	.create = create,
	.destroy = destroy,
	.schedule = schedule,
};

NX_TECHNIQUE(&fake_schedule);
