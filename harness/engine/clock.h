/* SPDX-License-Identifier: Apache-2.0
 *
 * engine/clock.h: the one clock of measurements.
 */
#ifndef NEXUS_ENGINE_CLOCK_H
#define NEXUS_ENGINE_CLOCK_H

#include <stdint.h>
#include <time.h>

/* CLOCK_MONOTONIC: steps of the wall clock do not reach it. */
static inline uint64_t nx_now_ns(void)
{
	struct timespec t;
	clock_gettime(CLOCK_MONOTONIC, &t);
	return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

#endif
