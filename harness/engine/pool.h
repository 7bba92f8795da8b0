/* SPDX-License-Identifier: Apache-2.0
 *
 * engine/pool.h: hands out KV rows: fixed blocks with reference counts, or contiguous runs.
 *
 * Blocks: n_rows / block_size blocks of one size, taken one at a time in O(1), shared by reference.
 * Freed blocks are reused last-freed first, so what was just read is still in a cache.
 * Runs: any number of consecutive rows, first fit; a run has one owner. Fragmentation is real: a take
 * can fail although enough rows are free in sum.
 * Invariants: free + used = total; a block is in the free list iff its count is 0.
 */
#ifndef NEXUS_ENGINE_POOL_H
#define NEXUS_ENGINE_POOL_H

#include <stdbool.h>
#include <stdint.h>

#include "nexus/err.h"

struct nx_run_span {
	int64_t first, n;
};

struct nx_pool {
	bool blocks;
	int32_t block_size;
	int64_t n_rows, free_rows;
	int32_t n_blocks, n_free;
	int32_t *free_list; /* [n_blocks], the first n_free are free; top of the stack is last */
	int32_t *refs;      /* [n_blocks] */
	struct nx_run_span *spans; /* [max_spans] taken runs, by first row */
	int32_t n_spans, max_spans;
};

int nx_pool_init(struct nx_pool *p, bool blocks, int32_t block_size, int64_t n_rows,
                 int32_t max_spans, struct nx_err *err);
void nx_pool_release(struct nx_pool *p);
void nx_pool_reset(struct nx_pool *p);

int32_t nx_pool_take(struct nx_pool *p);             /* a block with count 1, or -1 */
void nx_pool_hold(struct nx_pool *p, int32_t block); /* count + 1 */
void nx_pool_drop(struct nx_pool *p, int32_t block); /* count - 1; free at 0 */

int64_t nx_pool_take_run(struct nx_pool *p, int64_t n); /* first row, or -1 */
void nx_pool_drop_run(struct nx_pool *p, int64_t first);

/* The invariants above, in one pass; for tests. */
int nx_pool_check(const struct nx_pool *p, struct nx_err *err);

#endif
