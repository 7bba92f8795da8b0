/* SPDX-License-Identifier: Apache-2.0
 *
 * measure/start.h: the proof that a trial starts from nothing.
 *
 * What an engine says of itself just after it was made is kept: its techniques' counters, and the bytes that
 * each owner holds. Reset means "back to just-created" (nexus/technique.h), so after every reset both must
 * read the same; a technique that still counts, or holds, what an earlier trial left would make the next
 * one too fast. Beside that the engine must be cold: no sequence, no KV row held, a store that is whole, and
 * no technique that says itself that it is warm (its hook of that name).
 * What a technique keeps in memory of its own, and counts nowhere, cannot be seen from here.
 */
#ifndef NEXUS_MEASURE_START_H
#define NEXUS_MEASURE_START_H

#include "measure/trial.h"

struct nx_start {
	struct nx_counter_value counters[NX_TRIAL_COUNTER_MAX];
	size_t n_counters;
	struct nx_mem_use mem[NX_TRIAL_MEM_MAX];
	size_t n_mem;
};

/* Of an engine that was just made. */
void nx_start_take(struct nx_start *s, const struct nx_engine *e);
/* Of one that was reset: 0, or NX_EBUG with the cause and the remedy. */
int nx_start_check(const struct nx_start *s, const struct nx_engine *e, struct nx_err *err);

#endif
