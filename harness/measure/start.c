/* SPDX-License-Identifier: Apache-2.0
 *
 * start.c: see start.h.
 */
#include "measure/start.h"

#include <math.h>
#include <string.h>

void nx_start_take(struct nx_start *s, const struct nx_engine *e)
{
	s->n_counters = nx_engine_counters(e, s->counters, NX_TRIAL_COUNTER_MAX);
	if (s->n_counters > NX_TRIAL_COUNTER_MAX)
		s->n_counters = NX_TRIAL_COUNTER_MAX;
	s->n_mem = nx_engine_memory(e, s->mem, NX_TRIAL_MEM_MAX);
	if (s->n_mem > NX_TRIAL_MEM_MAX)
		s->n_mem = NX_TRIAL_MEM_MAX;
}

static int check_counters(const struct nx_start *was, const struct nx_start *is, struct nx_err *err)
{
	for (size_t i = 0; i < is->n_counters && i < was->n_counters; i++) {
		double a = was->counters[i].value, b = is->counters[i].value;
		const char *name = is->counters[i].name;
		if (a == b || (isnan(a) && isnan(b)))
			continue;
		return nx_fail(
			err, NX_EBUG,
			"the start state is not clean: counter %s reads %g after the reset and read %g when "
			"the engine was new; reset() of %.*s must forget all that was cached or counted",
			name, b, a, (int)strcspn(name, "."), name);
	}
	return 0;
}

static int check_memory(const struct nx_start *was, const struct nx_start *is, struct nx_err *err)
{
	for (size_t i = 0; i < is->n_mem; i++) {
		uint64_t before = 0, now = is->mem[i].reserved_bytes;
		for (size_t k = 0; k < was->n_mem; k++)
			if (!strcmp(was->mem[k].owner, is->mem[i].owner))
				before = was->mem[k].reserved_bytes;
		if (now == before)
			continue;
		return nx_fail(
			err, NX_EBUG,
			"the start state is not clean: %s holds %llu bytes after the reset and held %llu "
			"when the engine was new; memory is taken in create() and given back in destroy()",
			is->mem[i].owner, (unsigned long long)now, (unsigned long long)before);
	}
	return 0;
}

int nx_start_check(const struct nx_start *s, const struct nx_engine *e, struct nx_err *err)
{
	struct nx_err why = {0};
	struct nx_start now;
	if (nx_engine_cold_check(e, &why))
		return nx_fail(
			err, NX_EBUG,
			"the start state is not clean: %.400s; a technique of the stack keeps something over reset",
			why.msg);
	nx_start_take(&now, e);
	int rc = check_counters(s, &now, err);
	return rc ? rc : check_memory(s, &now, err);
}
