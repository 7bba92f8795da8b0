/* SPDX-License-Identifier: Apache-2.0
 *
 * engine/pool.c: see pool.h.
 */
#include <stdlib.h>
#include <string.h>

#include "engine/pool.h"

int nx_pool_init(struct nx_pool *p, bool blocks, int32_t block_size, int64_t n_rows,
                 int32_t max_spans, struct nx_err *err)
{
	memset(p, 0, sizeof(*p));
	p->blocks = blocks;
	p->block_size = block_size;
	p->n_rows = n_rows;
	if (blocks) {
		p->n_blocks = (int32_t)(n_rows / block_size);
		p->n_rows = (int64_t)p->n_blocks * block_size;
		p->free_list = calloc((size_t)p->n_blocks, sizeof(*p->free_list));
		p->refs = calloc((size_t)p->n_blocks, sizeof(*p->refs));
	} else {
		p->max_spans = max_spans;
		p->spans = calloc((size_t)max_spans, sizeof(*p->spans));
	}
	if (blocks ? !p->free_list || !p->refs : !p->spans) {
		nx_pool_release(p);
		return nx_fail(err, NX_ENOMEM, "out of memory for a pool of %lld KV rows",
		               (long long)n_rows);
	}
	nx_pool_reset(p);
	return 0;
}

void nx_pool_release(struct nx_pool *p)
{
	free(p->free_list);
	free(p->refs);
	free(p->spans);
	memset(p, 0, sizeof(*p));
}

void nx_pool_reset(struct nx_pool *p)
{
	p->free_rows = p->n_rows;
	p->n_spans = 0;
	p->n_free = p->n_blocks;
	/* Low block numbers on top, so that a small run stays in few pages. */
	for (int32_t i = 0; i < p->n_blocks; i++) {
		p->free_list[i] = p->n_blocks - 1 - i;
		p->refs[i] = 0;
	}
}

int32_t nx_pool_take(struct nx_pool *p)
{
	if (p->n_free == 0)
		return -1;
	int32_t b = p->free_list[--p->n_free];
	p->refs[b] = 1;
	p->free_rows -= p->block_size;
	return b;
}

void nx_pool_hold(struct nx_pool *p, int32_t block)
{
	p->refs[block]++;
}

void nx_pool_drop(struct nx_pool *p, int32_t block)
{
	if (--p->refs[block] > 0)
		return;
	p->free_list[p->n_free++] = block;
	p->free_rows += p->block_size;
}

int64_t nx_pool_take_run(struct nx_pool *p, int64_t n)
{
	int64_t at = 0;
	int32_t i = 0;
	if (p->n_spans == p->max_spans || n <= 0)
		return -1;
	while (i < p->n_spans && p->spans[i].first - at < n) {
		at = p->spans[i].first + p->spans[i].n;
		i++;
	}
	if (i == p->n_spans && p->n_rows - at < n)
		return -1;
	memmove(p->spans + i + 1, p->spans + i, (size_t)(p->n_spans - i) * sizeof(*p->spans));
	p->spans[i] = (struct nx_run_span){.first = at, .n = n};
	p->n_spans++;
	p->free_rows -= n;
	return at;
}

void nx_pool_drop_run(struct nx_pool *p, int64_t first)
{
	for (int32_t i = 0; i < p->n_spans; i++) {
		if (p->spans[i].first != first)
			continue;
		p->free_rows += p->spans[i].n;
		memmove(p->spans + i, p->spans + i + 1,
		        (size_t)(p->n_spans - i - 1) * sizeof(*p->spans));
		p->n_spans--;
		return;
	}
}

static int check_blocks(const struct nx_pool *p, struct nx_err *err)
{
	int32_t n_used = 0;
	for (int32_t b = 0; b < p->n_blocks; b++) {
		if (p->refs[b] < 0)
			return nx_fail(err, NX_EBUG, "KV block %d has count %d", b, p->refs[b]);
		n_used += p->refs[b] > 0;
	}
	for (int32_t i = 0; i < p->n_free; i++)
		if (p->refs[p->free_list[i]])
			return nx_fail(err, NX_EBUG, "KV block %d is free and has count %d",
			               p->free_list[i], p->refs[p->free_list[i]]);
	if (p->n_free + n_used != p->n_blocks)
		return nx_fail(err, NX_EBUG, "%d KV blocks free and %d used of %d", p->n_free,
		               n_used, p->n_blocks);
	if (p->free_rows != (int64_t)p->n_free * p->block_size)
		return nx_fail(err, NX_EBUG, "%lld KV rows said to be free with %d blocks of %d",
		               (long long)p->free_rows, p->n_free, p->block_size);
	return 0;
}

int nx_pool_check(const struct nx_pool *p, struct nx_err *err)
{
	if (p->blocks)
		return check_blocks(p, err);
	int64_t used = 0, at = 0;
	for (int32_t i = 0; i < p->n_spans; i++) {
		if (p->spans[i].first < at)
			return nx_fail(err, NX_EBUG, "KV runs overlap at row %lld",
			               (long long)p->spans[i].first);
		at = p->spans[i].first + p->spans[i].n;
		used += p->spans[i].n;
	}
	if (at > p->n_rows || used + p->free_rows != p->n_rows)
		return nx_fail(err, NX_EBUG, "%lld KV rows used and %lld free of %lld",
		               (long long)used, (long long)p->free_rows, (long long)p->n_rows);
	return 0;
}
