/* SPDX-License-Identifier: Apache-2.0
 *
 * test/plugins/keeps_state.c: works, but its reset forgets to forget. `what`: a counter that goes on, as of a
 * cache that stays warm; memory that it took during a run; entries that it counts nowhere but in `warm`; or
 * nothing, which is how it should be.
 */
#include <stdlib.h>
#include <string.h>

#include "mini_schedule.h"

enum what { COUNT, MEMORY, ENTRIES, NOTHING };
#define BYTES 4096

static const struct nx_param params[] = {
	{"what", NX_PARAM_ENUM, NULL, 0, 0, "count|memory|entries|nothing", "", "what it keeps"},
	{0},
};

static const struct nx_counter counters[] = {
	{"cached", "sequences", "sequences that it has seen"},
	{0},
};

struct keeps {
	enum what what;
	struct nx_host host;
	double cached;
	int64_t entries;
	void *kept;
};

static int create(void **self, const struct nx_host *host, const struct nx_value *values,
                  struct nx_err *err)
{
	struct keeps *k = calloc(1, sizeof(*k));
	if (!k)
		return nx_fail(err, NX_ENOMEM, "no memory for keeps_state");
	k->what = (enum what)values[0].i;
	k->host = *host;
	*self = k;
	return 0;
}

static void reset(void *self)
{
	struct keeps *k = self;
	if (k->what != COUNT)
		k->cached = 0;
	if (k->what != ENTRIES)
		k->entries = 0;
}

static void destroy(void *self)
{
	struct keeps *k = self;
	if (k->kept)
		k->host.free(k->host.ctx, NX_MEM_HOST, k->kept, BYTES);
	free(k);
}

static void event(void *self, const struct nx_seq_event *e)
{
	struct keeps *k = self;
	if (e->kind != NX_EVENT_ADMIT)
		return;
	k->cached++;
	k->entries++;
	if (k->what == MEMORY && !k->kept)
		k->kept = k->host.alloc(k->host.ctx, NX_MEM_HOST, BYTES);
}

static void read_counters(void *self, double *values)
{
	const struct keeps *k = self;
	values[0] = k->cached;
}

static int64_t warm(void *self)
{
	const struct keeps *k = self;
	return k->entries;
}

static int schedule(void *self, const struct nx_sched_view *view, struct nx_schedule *out,
                    struct nx_err *err)
{
	(void)self;
	(void)err;
	return mini_schedule(view, out);
}

static const struct nx_technique keeps_state = {
	NX_TECHNIQUE_HEAD,
	.name = "keeps_state",
	.version = "1",
	.summary = "for tests: keeps something over reset",
	.source = "none",
	.params = params,
	.counters = counters,
	.create = create,
	.reset = reset,
	.destroy = destroy,
	.read_counters = read_counters,
	.event = event,
	.schedule = schedule,
	.warm = warm,
};

NX_TECHNIQUE(&keeps_state);
