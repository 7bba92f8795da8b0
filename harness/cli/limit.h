/* SPDX-License-Identifier: Apache-2.0
 *
 * cli/limit.h: keeps a worker that allocates everything from taking the machine with it.
 */
#ifndef NEXUS_CLI_LIMIT_H
#define NEXUS_CLI_LIMIT_H

#include <stdint.h>

/* Memory that this process may still take: the least of MemAvailable and the room in its cgroup. 0 when
 * neither can be read. */
uint64_t nx_memory_available(void);
/* Limits this process's private memory to nine tenths of that (or to $NEXUS_MEMORY_LIMIT bytes, where
 * set and lower), so that allocations fail here before the kernel starts killing; and makes it the first
 * to be killed if it comes to that. Returns the limit, 0 = none could be set. */
uint64_t nx_memory_limit(void);
/* Processes that the kernel has killed for want of memory since it started; UINT64_MAX where it does not
 * say. */
uint64_t nx_oom_kills(void);

#endif
