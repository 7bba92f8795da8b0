/* SPDX-License-Identifier: Apache-2.0
 *
 * pool.h: the one thread pool of the CPU backend.
 *
 * The caller of pool_for() is thread 0; n_threads - 1 workers join it. Work is split statically, in order.
 * Waiting threads spin for some 50 us and then sleep on a futex, so a core that somebody else needs is
 * free again soon. Worker t is pinned to the t-th CPU of the affinity mask that the process had when the
 * pool was made. The caller's thread is not pinned: threads that the host makes later inherit its mask.
 * One caller at a time.
 */
#ifndef NX_CPU_POOL_H
#define NX_CPU_POOL_H

#include <stdint.h>

#include "nexus/err.h"

struct pool;

/* Items [begin, end) for thread `thread` in [0, pool_size). */
typedef void (*pool_fn)(void *ctx, int64_t begin, int64_t end, int thread);

/* n_threads = 0: as many as the process may use. */
int pool_create(struct pool **out, int n_threads, struct nx_err *err);
void pool_destroy(struct pool *p);
int pool_size(const struct pool *p);

/* Runs fn over [0, n) and returns when all of it is done. Threads without items are not called. */
void pool_for(struct pool *p, int64_t n, pool_fn fn, void *ctx);

#endif
