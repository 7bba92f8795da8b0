/* SPDX-License-Identifier: Apache-2.0
 *
 * test/plugins/null_delay.c: the engine's default schedule, slower by a known share. At each step it measures the
 * step before, from the end of its own last call to now, and spins for `percent` of that. The first step of
 * a run has none before it; the last one's share is never paid: a run of n like steps is slower by
 * percent * (n - 1) / n. The counter `burnt` says what share of the time it really took.
 */
#define _POSIX_C_SOURCE 200809L
#include <stdlib.h>
#include <time.h>

#include "static_schedule.h"

static const struct nx_param params[] = {
	{"percent", NX_PARAM_FLOAT, "5", 0, 1000, NULL, "%", "of the step before"},
	{0},
};

static const struct nx_counter counters[] = {
	{"burnt", "%", "time spent spinning, of the time of the steps that were measured"},
	{0},
};

struct delay {
	double share;
	int64_t left_ns; /* when the last call ended; 0 = none yet */
	int64_t burnt_ns, seen_ns;
};

static int64_t now_ns(void)
{
	struct timespec t;
	clock_gettime(CLOCK_MONOTONIC, &t);
	return (int64_t)t.tv_sec * 1000000000 + t.tv_nsec;
}

static int create(void **self, const struct nx_host *host, const struct nx_value *values,
                  struct nx_err *err)
{
	(void)host;
	struct delay *d = calloc(1, sizeof(*d));
	if (!d)
		return nx_fail(err, NX_ENOMEM, "no memory for null_delay");
	d->share = values[0].f / 100;
	*self = d;
	return 0;
}

static void reset(void *self)
{
	struct delay *d = self;
	d->left_ns = d->burnt_ns = d->seen_ns = 0;
}

static int schedule(void *self, const struct nx_sched_view *view, struct nx_schedule *out,
                    struct nx_err *err)
{
	(void)err;
	struct delay *d = self;
	int64_t begin_ns = now_ns(), at_ns = begin_ns;
	if (d->left_ns) {
		int64_t step_ns = begin_ns - d->left_ns;
		int64_t end_ns = begin_ns + (int64_t)(d->share * (double)step_ns);
		while (at_ns < end_ns)
			at_ns = now_ns();
		d->burnt_ns += at_ns - begin_ns;
		d->seen_ns += step_ns;
	}
	d->left_ns = at_ns;
	return static_schedule(view, out);
}

static void read_counters(void *self, double *values)
{
	const struct delay *d = self;
	values[0] = d->seen_ns ? 100.0 * (double)d->burnt_ns / (double)d->seen_ns : 0;
}

static const struct nx_technique null_delay = {
	NX_TECHNIQUE_HEAD,    .name = "null_delay",
	.version = "1",       .summary = "for tests: the default schedule, slower by a known share",
	.source = "none",     .params = params,
	.counters = counters, .flags = NX_TECH_EXACT | NX_TECH_HOLDS_PLACES,
	.create = create,     .reset = reset,
	.destroy = free,      .read_counters = read_counters,
	.schedule = schedule,
};

NX_TECHNIQUE(&null_delay);
