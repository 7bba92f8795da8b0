/* SPDX-License-Identifier: Apache-2.0
 *
 * measure/perf.h: cycles, instructions and last-level-cache misses of this process, where the
 * kernel allows it (perf_event_open; user mode only). Where it does not, every count is -1 and
 * reason says why and what to change; nothing fails.
 *
 * Threads made after nx_perf_open are counted too, those made before are not: open it before the
 * device and its thread pool. Counts are scaled when the kernel had to share the counters out.
 */
#ifndef NEXUS_MEASURE_PERF_H
#define NEXUS_MEASURE_PERF_H

#include <stdint.h>

/* X(ID, name, perf_event type, config) */
#define NX_PERF_EVENTS(X)                                                                          \
	X(CYCLES, "cycles", PERF_TYPE_HARDWARE, PERF_COUNT_HW_CPU_CYCLES)                          \
	X(INSTRUCTIONS, "instructions", PERF_TYPE_HARDWARE, PERF_COUNT_HW_INSTRUCTIONS)            \
	X(LLC_MISSES, "LLC misses", PERF_TYPE_HARDWARE, PERF_COUNT_HW_CACHE_MISSES)

enum nx_perf_event {
#define X(id, name, type, config) NX_PERF_##id,
	NX_PERF_EVENTS(X)
#undef X
		NX_PERF_COUNT
};

struct nx_perf {
	int fd[NX_PERF_COUNT]; /* -1 = not available */
	char reason[256];      /* why the first missing one is missing; "" = all are there */
};

void nx_perf_open(struct nx_perf *p);
void nx_perf_close(struct nx_perf *p);
/* Totals since nx_perf_open; -1 where not available. Subtract two readings with nx_perf_delta. */
void nx_perf_read(const struct nx_perf *p, int64_t count[NX_PERF_COUNT]);
int64_t nx_perf_delta(int64_t before, int64_t after); /* -1 if either is */

#endif
