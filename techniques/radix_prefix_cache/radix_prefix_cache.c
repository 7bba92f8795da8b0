/* SPDX-License-Identifier: Apache-2.0
 *
 * radix_prefix_cache: one radix tree over the tokens of all sequences, prompts and outputs, whose values are KV blocks
 * (RadixAttention: Zheng et al. 2312.07104, section 3). A new sequence takes the longest path that it shares with
 * any before it; ends of paths that nobody runs on go when room is wanted. The tree is radix.h's; this is what
 * moves sequences along it.
 *
 * Locks come from the events and not from kv_idle(): that tells of one block whether it can be freed now, but not when
 * that changes, so that to find the next leaf to go every one would have to be asked. Events say the moment: ADMIT and
 * RESUME lock what the match found, FORK locks the parent's path once more, PREEMPT and RETIRE unlock. kv_idle()
 * is asked of what is about to go: places of ended sequences may still hold it (static batching), and of blocks that
 * nobody has although somebody stands there (twins, see take_over).
 */
#include <stdlib.h>
#include <string.h>

#include "radix.h"

#define DEFAULT_CELLS 65536 /* where the pool's size is not said */
#define MOST_CELLS (1 << 24)

enum { P_BLOCK_SIZE, P_MAX_TOKENS, P_EVICTION_POLICY };
enum {
	C_HITS,
	C_MISSES,
	C_HIT_ROWS,
	C_PUBLISHED,
	C_EVICTED,
	C_REFUSED,
	C_TAKEN_OVER,
	C_SPLITS,
	C_NODES,
	C_LOCKS,
	C_ROWS,
	C_ROWS_PEAK,
	C_EVICTABLE_ROWS,
	C_PROTECTED_ROWS,
	C_COUNT
};

struct cache {
	const struct nx_host *host;
	int32_t own_block_size; /* parameters */
	int64_t max_tokens;
	struct radix tree;       /* nodes == NULL until its size is known */
	struct radix_at *places; /* [max_seqs]; they and what follows lie behind the tree */
	int32_t *aside;          /* [max_cells] */
	bool own_pool;           /* over a contiguous layout */
	struct radix_at asked;   /* of the latest match: the sequence that is admitted next */
	int32_t peak;            /* cells */
	uint64_t n[C_COUNT];
};

static const struct radix_at nowhere = {.node = RADIX_ROOT};

/* ---- who runs where ---------------------------------------------------------------------------- */

/* What the match found is the sequence's now. Counted here and not where it was asked for: a sequence that then finds
 * no room is asked for again. */
static void enter(struct cache *c, const struct nx_seq_event *ev)
{
	struct radix_at *p = &c->places[ev->seq];
	radix_leave(&c->tree, p, false);
	if (ev->arg == 0) /* nothing matched, or it comes back from host memory */
		radix_leave(&c->tree, &c->asked, false);
	*p = c->asked;
	c->asked = nowhere;
	if (ev->arg > 0)
		c->n[C_HITS]++;
	else if (ev->kind == NX_EVENT_ADMIT)
		c->n[C_MISSES]++;
	c->n[C_HIT_ROWS] += (uint64_t)ev->arg;
}

static void event(void *self, const struct nx_seq_event *ev)
{
	struct cache *c = self;
	if (!c->tree.nodes)
		return;
	switch (ev->kind) {
	case NX_EVENT_ADMIT:
	case NX_EVENT_RESUME: enter(c, ev); break;
	case NX_EVENT_FORK:
		radix_leave(&c->tree, &c->places[ev->seq], false);
		c->places[ev->seq] = c->places[ev->arg];
		radix_lock(&c->tree, c->places[ev->seq]);
		break;
	case NX_EVENT_PREEMPT:
	case NX_EVENT_RETIRE: radix_leave(&c->tree, &c->places[ev->seq], true); break;
	case NX_EVENT_COMMIT: break;
	}
}

/* ---- eviction --------------------------------------------------------------------------------- */

static bool evict_one(struct cache *c)
{
	int32_t cell = radix_next_out(&c->tree);
	if (cell < 0)
		return false;
	c->host->kv_release(c->host->ctx, c->tree.block[cell]);
	radix_drop_next(&c->tree);
	c->n[C_EVICTED] += (uint64_t)c->tree.block_size;
	return true;
}

/* Twins: sequences that start together compute the same blocks; the first to publish one gives it to the tree, the
 * others stand on it with blocks of their own. When that first one has ended, nobody has the tree's block, and yet it
 * is locked. It is given back, and a running sequence's own takes its place. */
static int64_t take_over(struct cache *c, int32_t place, int64_t rows)
{
	const struct nx_host *h = c->host;
	struct radix *t = &c->tree;
	int32_t depth = c->places[place].depth;
	int64_t given = 0;
	for (int32_t i = c->places[place].node; i != RADIX_ROOT; i = t->nodes[i].parent) {
		for (int32_t cell = t->nodes[i].last; cell >= 0 && given < rows;
		     cell = t->prev[cell]) {
			depth--;
			if (!h->kv_idle(h->ctx, t->block[cell]))
				continue;
			int32_t own = h->kv_hold(h->ctx, place, depth);
			if (own < 0)
				continue;
			h->kv_release(h->ctx, t->block[cell]);
			t->block[cell] = own;
			given += t->block_size;
		}
	}
	c->n[C_TAKEN_OVER] += (uint64_t)given;
	return given;
}

/* The last cell of the path that the latest match found, or -1. */
static int32_t asked_cell(const struct cache *c)
{
	return c->asked.depth ? c->tree.nodes[c->asked.node].last : -1;
}

static int64_t prefix_evict(void *self, int64_t rows)
{
	struct cache *c = self;
	const struct nx_host *h = c->host;
	int64_t given = 0;
	int32_t n_aside = 0, cell = asked_cell(c);
	/* A match whose sequence found no room after all. */
	if (cell >= 0 && h->kv_idle(h->ctx, c->tree.block[cell]))
		radix_leave(&c->tree, &c->asked, false);
	while (given < rows && (cell = radix_next_out(&c->tree)) >= 0) {
		if (h->kv_idle(h->ctx, c->tree.block[cell])) {
			evict_one(c);
			given += c->tree.block_size;
		} else { /* a sequence that has ended keeps its place */
			c->aside[n_aside++] = radix_set_aside(&c->tree);
		}
	}
	while (n_aside > 0)
		radix_put_back(&c->tree, c->aside[--n_aside]);
	for (int32_t p = 0; p < h->max_seqs && given < rows; p++)
		if (c->places[p].twins)
			given += take_over(c, p, rows - given);
	return given;
}

/* ---- match and publish ------------------------------------------------------------------------ */

static int32_t prefix_match(void *self, const int32_t *tokens, int32_t n, int32_t *blocks)
{
	struct cache *c = self;
	struct radix *t = &c->tree;
	int32_t most = (n - 1) / t->block_size; /* one token at least is computed */
	int32_t found = radix_find(t, nowhere, tokens, most, blocks);
	if (!blocks)
		return found * t->block_size;
	radix_leave(t, &c->asked, false);
	while (c->asked.depth < found)
		radix_step(t, &c->asked, tokens + (size_t)c->asked.depth * (size_t)t->block_size,
		           found - c->asked.depth);
	return found * t->block_size;
}

/* Block `depth` of the sequence goes to the tree behind its place; false = no room. */
static bool insert(struct cache *c, int32_t place, const int32_t *tokens)
{
	const struct nx_host *h = c->host;
	struct radix_at *p = &c->places[place];
	if (c->tree.free_cell < 0 && !evict_one(c))
		return false;
	int32_t block = h->kv_hold(h->ctx, place, p->depth);
	if (block < 0 && c->own_pool && evict_one(c))
		block = h->kv_hold(h->ctx, place, p->depth);
	if (block < 0)
		return false;
	radix_grow(&c->tree, p, tokens, block);
	c->n[C_PUBLISHED] += (uint64_t)c->tree.block_size;
	if (c->peak < c->tree.n_cells)
		c->peak = c->tree.n_cells;
	return true;
}

/* From where the sequence stands: prompts as they are computed, outputs as they are committed, and the rest when it
 * ends. What was refused is tried again. */
static void prefix_publish(void *self, const struct nx_prefix_rows *r)
{
	struct cache *c = self;
	struct radix_at *p = &c->places[r->seq];
	int32_t bs = c->tree.block_size, n = r->n_rows / bs;
	while (p->depth < n) {
		const int32_t *tokens = r->tokens + (size_t)p->depth * (size_t)bs;
		int32_t same = radix_step(&c->tree, p, tokens, n - p->depth);
		p->twins += same;
		if (!same && !insert(c, r->seq, tokens)) {
			c->n[C_REFUSED]++;
			return;
		}
	}
}

/* ---- life ------------------------------------------------------------------------------------- */

static size_t bytes_of(const struct cache *c)
{
	return radix_bytes(&c->tree) + (size_t)c->tree.max_cells * sizeof(*c->aside) +
	       (size_t)c->host->max_seqs * sizeof(*c->places);
}

/* Every cached block lies on the path of some leaf; free cells are told by what no node has. */
static void release_all(struct cache *c)
{
	const struct radix *t = &c->tree;
	for (int32_t i = RADIX_ROOT + 1; t->nodes && i <= t->max_cells; i++)
		for (int32_t cell = t->nodes[i].n ? t->nodes[i].first : -1; cell >= 0;
		     cell = t->next[cell])
			c->host->kv_release(c->host->ctx, t->block[cell]);
}

static void empty(struct cache *c)
{
	radix_empty(&c->tree);
	for (int32_t i = 0; i < c->host->max_seqs; i++)
		c->places[i] = nowhere;
	c->asked = nowhere;
	c->peak = 0;
	memset(c->n, 0, sizeof(c->n));
}

static void drop(struct cache *c)
{
	if (!c->tree.nodes)
		return;
	release_all(c);
	c->host->free(c->host->ctx, NX_MEM_HOST, c->tree.nodes, bytes_of(c));
	c->tree.nodes = NULL;
}

static int create(void **self, const struct nx_host *host, const struct nx_value *values,
                  struct nx_err *err)
{
	struct cache *c = calloc(1, sizeof(*c));
	if (!c)
		return nx_fail(err, NX_ENOMEM, "radix_prefix_cache: out of memory");
	c->host = host;
	c->own_block_size = (int32_t)values[P_BLOCK_SIZE].i;
	c->max_tokens = values[P_MAX_TOKENS].i;
	c->tree.policy = (enum radix_policy)values[P_EVICTION_POLICY].i;
	*self = c;
	return 0;
}

static void destroy(void *self)
{
	drop(self);
	free(self);
}

static void reset(void *self)
{
	struct cache *c = self;
	if (!c->tree.nodes)
		return;
	release_all(c);
	empty(c);
}

static int prefix_geometry(void *self, const struct nx_prefix_limits *l,
                           struct nx_prefix_geometry *out, struct nx_err *err)
{
	struct cache *c = self;
	struct radix *t = &c->tree;
	int32_t align = l->align > 0 ? l->align : 1;
	int32_t bs = l->block_size ? l->block_size : c->own_block_size;
	if (!l->block_size) /* up to whole groups of the codec */
		bs = (bs + align - 1) / align * align;
	if (bs % align)
		return nx_fail(
			err, NX_ECONFLICT,
			"radix_prefix_cache: blocks of %d tokens cut the codec's groups of %d", bs,
			align);
	int64_t rows = c->max_tokens  ? c->max_tokens
	               : l->pool_rows ? l->pool_rows + bs - 1
	                              : DEFAULT_CELLS;
	int64_t most = !l->block_size ? l->budget_rows : l->pool_rows ? l->pool_rows : rows;
	rows = rows < most ? rows : most;
	if (rows < bs)
		return nx_fail(
			err, NX_ENOSPC,
			"radix_prefix_cache: %lld rows are allowed (max_tokens, or what the memory limit leaves), not one block of %d",
			(long long)rows, bs);
	int64_t n = rows / bs < MOST_CELLS ? rows / bs : MOST_CELLS;
	drop(c);
	t->block_size = bs;
	t->max_cells = (int32_t)n;
	t->n_buckets = 1;
	while (t->n_buckets < t->max_cells)
		t->n_buckets *= 2;
	c->own_pool = l->block_size == 0;
	size_t tree = radix_bytes(t);
	uint8_t *p = c->host->alloc(c->host->ctx, NX_MEM_HOST, bytes_of(c));
	if (!p)
		return nx_fail(err, NX_ENOMEM,
		               "radix_prefix_cache: no memory for a tree of %d blocks (%zu bytes)",
		               t->max_cells, bytes_of(c));
	radix_place(t, p);
	c->aside = (int32_t *)(void *)(p + tree);
	c->places = (struct radix_at *)(void *)(c->aside + n);
	empty(c);
	*out = (struct nx_prefix_geometry){.block_size = bs, .n_rows = c->own_pool ? n * bs : 0};
	return 0;
}

static int64_t warm(void *self)
{
	return ((const struct cache *)self)->tree.n_cells;
}

static void read_counters(void *self, double *v)
{
	const struct cache *c = self;
	const struct radix *t = &c->tree;
	double bs = t->block_size;
	for (int i = 0; i < C_COUNT; i++)
		v[i] = (double)c->n[i];
	if (!t->nodes)
		return;
	v[C_SPLITS] = (double)t->n_splits;
	v[C_NODES] = t->n_nodes;
	for (int32_t i = RADIX_ROOT + 1; i <= t->max_cells; i++)
		v[C_LOCKS] += t->nodes[i].lock > 0;
	v[C_ROWS] = t->n_cells * bs;
	v[C_ROWS_PEAK] = c->peak * bs;
	v[C_EVICTABLE_ROWS] = (t->n_cells - t->n_protected) * bs;
	v[C_PROTECTED_ROWS] = t->n_protected * bs;
}

static const struct nx_param params[] = {
	[P_BLOCK_SIZE] =
		{"block_size", NX_PARAM_INT, "1", 1, 4096, NULL, "tokens",
                 "of a cached block over a contiguous layout; with blocks it is the layout's"},
	[P_MAX_TOKENS] = {"max_tokens", NX_PARAM_INT, "0", 0, 1 << 30, NULL, "tokens",
                          "tokens kept at most; 0 = as many as the layout's pool has rows"},
	[P_EVICTION_POLICY] =
		{"eviction_policy", NX_PARAM_ENUM, "lru", 0, 0, "lru|lfu", "",
                 "which unlocked leaf goes first: longest unused, or least often used"},
	{0},
};

static const struct nx_counter counters[] = {
	[C_HITS] = {"hits", "count",
                    "sequences that started with cached rows, resumed ones included"},
	[C_MISSES] = {"misses", "count", "new sequences that started without"},
	[C_HIT_ROWS] = {"hit_rows", "rows", "rows that were found and not computed"},
	[C_PUBLISHED] = {"published", "rows", "rows that entered the tree"},
	[C_EVICTED] = {"evicted", "rows", "rows given up for room"},
	[C_REFUSED] = {"refused", "count", "publications cut short: everything is locked"},
	[C_TAKEN_OVER] = {"taken_over", "rows",
                          "rows whose block was given back for a running sequence's own"},
	[C_SPLITS] = {"splits", "count", "nodes cut in two"},
	[C_NODES] = {"nodes", "count", "nodes now"},
	[C_LOCKS] = {"locked_nodes", "count", "of these, on the path of a running sequence"},
	[C_ROWS] = {"rows", "rows", "rows in the tree now"},
	[C_ROWS_PEAK] = {"rows_peak", "rows", "most rows at a time"},
	[C_EVICTABLE_ROWS] = {"evictable_rows", "rows", "of the rows now, in unlocked nodes"},
	[C_PROTECTED_ROWS] = {"protected_rows", "rows", "of the rows now, in locked nodes"},
	{0},
};

static const struct nx_technique radix_prefix_cache = {
	NX_TECHNIQUE_HEAD,
	.name = "radix_prefix_cache",
	.version = "1",
	.summary =
		"a radix tree of prompts and outputs: sequences begin with the longest path they share",
	.source = "Zheng et al. 2312.07104 (RadixAttention), section 3",
	.params = params,
	.counters = counters,
	.assumes = NX_TRAIT_FULL_KV | NX_TRAIT_KEPT_KV,
	.flags = NX_TECH_EXACT,
	.create = create,
	.reset = reset,
	.destroy = destroy,
	.read_counters = read_counters,
	.event = event,
	.warm = warm,
	.prefix_geometry = prefix_geometry,
	.prefix_match = prefix_match,
	.prefix_publish = prefix_publish,
	.prefix_evict = prefix_evict,
};

NX_TECHNIQUE(&radix_prefix_cache);
