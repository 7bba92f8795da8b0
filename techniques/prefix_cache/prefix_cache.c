/* SPDX-License-Identifier: Apache-2.0
 *
 * prefix_cache: full blocks of KV rows outlive their sequence and are found again by their tokens (automatic prefix
 * caching: Kwon et al. 2309.06180, section 4.4, and vLLM's V1 design of it). Partial blocks are never cached. Entries
 * and who uses them are table.h's; this is what moves sequences along them.
 *
 * Counts come from the events: ADMIT and RESUME count a sequence in what its match found, FORK a copy of its parent,
 * PREEMPT and RETIRE take it out, so that the moment is known at which an entry is no longer used. kv_idle() is asked
 * only of what is about to go: places of ended sequences may still hold it (static batching).
 */
#include <stdlib.h>
#include <string.h>

#include "table.h"

#define DEFAULT_ENTRIES 4096 /* where the pool's size is not said */
#define MOST_ENTRIES (1 << 24)

enum { P_BLOCK_SIZE, P_MAX_ENTRIES, P_EVICTION_POLICY, P_SALT };
enum {
	C_HITS,
	C_MISSES,
	C_HIT_ROWS,
	C_PUBLISHED,
	C_EVICTED,
	C_REFUSED,
	C_TAKEN_OVER,
	C_ENTRIES,
	C_ENTRIES_PEAK,
	C_IN_USE,
	C_COUNT
};

struct cache {
	const struct nx_host *host;
	int32_t own_block_size, asked_entries; /* parameters */
	uint64_t salt;
	struct table table;   /* entries == NULL until its size is known */
	struct stand *places; /* [max_seqs]; they and what follows lie behind the table */
	int32_t *aside;       /* [max_entries] */
	bool own_pool;        /* over a contiguous layout */
	struct stand asked;   /* of the latest match: the sequence that is admitted next */
	int32_t peak;         /* entries */
	uint64_t n[C_COUNT];
};

static const struct stand nowhere = {.entry = -1};

/* ---- who runs where ---------------------------------------------------------------------------- */

/* What the match found is the sequence's now. Counted here and not where it was asked for: a sequence that then finds
 * no room is asked for again. */
static void enter(struct cache *c, const struct nx_seq_event *ev)
{
	struct stand *p = &c->places[ev->seq];
	table_leave(&c->table, p, false);
	if (ev->arg == 0) /* nothing matched, or it comes back from host memory */
		table_leave(&c->table, &c->asked, false);
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
	if (!c->table.entries)
		return;
	switch (ev->kind) {
	case NX_EVENT_ADMIT:
	case NX_EVENT_RESUME: enter(c, ev); break;
	case NX_EVENT_FORK:
		table_leave(&c->table, &c->places[ev->seq], false);
		c->places[ev->seq] = c->places[ev->arg];
		table_ref_path(&c->table, c->places[ev->seq].entry);
		break;
	case NX_EVENT_PREEMPT:
	case NX_EVENT_RETIRE: table_leave(&c->table, &c->places[ev->seq], true); break;
	case NX_EVENT_COMMIT: break;
	}
}

/* ---- eviction --------------------------------------------------------------------------------- */

static int32_t block_of(const struct cache *c, int32_t entry)
{
	return c->table.entries[entry].block;
}

static bool evict_one(struct cache *c)
{
	int32_t i = table_next_out(&c->table);
	if (i < 0)
		return false;
	c->host->kv_release(c->host->ctx, block_of(c, i));
	table_drop_next(&c->table);
	c->n[C_EVICTED]++;
	return true;
}

/* Twins: sequences that start together compute the same blocks; the first to publish one makes the entry, the others
 * keep their own. When that first one has ended, nobody has the entry's block, and yet the others count in the entry.
 * Such a block is given back, and a running sequence's own takes its place. */
static int64_t take_over(struct cache *c, int32_t place, int64_t rows)
{
	const struct nx_host *h = c->host;
	int32_t depth = c->places[place].depth;
	int64_t given = 0;
	for (int32_t i = c->places[place].entry; i >= 0 && given < rows;
	     i = c->table.entries[i].parent) {
		depth--;
		if (!h->kv_idle(h->ctx, block_of(c, i)))
			continue;
		int32_t own = h->kv_hold(h->ctx, place, depth);
		if (own < 0)
			continue;
		h->kv_release(h->ctx, block_of(c, i));
		c->table.entries[i].block = own;
		given += c->table.block_size;
		c->n[C_TAKEN_OVER]++;
	}
	return given;
}

static int64_t prefix_evict(void *self, int64_t rows)
{
	struct cache *c = self;
	const struct nx_host *h = c->host;
	int64_t given = 0;
	int32_t n_aside = 0, i;
	/* A match whose sequence found no room after all. */
	if (c->asked.depth && h->kv_idle(h->ctx, block_of(c, c->asked.entry)))
		table_leave(&c->table, &c->asked, false);
	while (given < rows && (i = table_next_out(&c->table)) >= 0) {
		if (h->kv_idle(h->ctx, block_of(c, i))) {
			evict_one(c);
			given += c->table.block_size;
		} else { /* a sequence that has ended keeps its place */
			c->aside[n_aside++] = table_set_aside(&c->table);
		}
	}
	while (n_aside > 0)
		table_put_back(&c->table, c->aside[--n_aside]);
	for (int32_t p = 0; p < h->max_seqs && given < rows; p++)
		if (c->places[p].twins)
			given += take_over(c, p, rows - given);
	return given;
}

/* ---- match and publish ------------------------------------------------------------------------ */

static int32_t prefix_match(void *self, const int32_t *tokens, int32_t n, int32_t *blocks)
{
	struct cache *c = self;
	const struct table *t = &c->table;
	struct stand at = nowhere;
	int32_t rows = 0;
	for (; rows + t->block_size < n; rows += t->block_size) { /* one token is computed */
		uint64_t key = table_key(t, at.entry, tokens + rows);
		int32_t i = table_find(t, key, at.entry, tokens + rows);
		if (i < 0)
			break;
		if (blocks)
			blocks[at.depth] = block_of(c, i);
		at.entry = i;
		at.depth++;
	}
	if (blocks) {
		table_leave(&c->table, &c->asked, false);
		table_ref_path(&c->table, at.entry);
		c->asked = at;
	}
	return rows;
}

/* An entry for the sequence's block behind where it stands, or -1: no room. What it hangs from is in use and stays. */
static int32_t insert(struct cache *c, int32_t place, uint64_t key, const int32_t *tokens)
{
	const struct nx_host *h = c->host;
	const struct stand *p = &c->places[place];
	if (c->table.free_first < 0 && !evict_one(c))
		return -1;
	int32_t block = h->kv_hold(h->ctx, place, p->depth);
	if (block < 0 && c->own_pool && evict_one(c))
		block = h->kv_hold(h->ctx, place, p->depth);
	if (block < 0)
		return -1;
	c->n[C_PUBLISHED]++;
	int32_t i = table_add(&c->table, key, p->entry, tokens, block);
	if (c->peak < c->table.n_used)
		c->peak = c->table.n_used;
	return i;
}

/* From where the sequence stands, so that each token is hashed once: prompts as they are computed, outputs as they are
 * committed, and the rest when it ends. What was refused is tried again. */
static void prefix_publish(void *self, const struct nx_prefix_rows *r)
{
	struct cache *c = self;
	struct table *t = &c->table;
	struct stand *p = &c->places[r->seq];
	while ((int64_t)(p->depth + 1) * t->block_size <= r->n_rows) {
		const int32_t *tokens = r->tokens + (size_t)p->depth * (size_t)t->block_size;
		uint64_t key = table_key(t, p->entry, tokens);
		int32_t i = table_find(t, key, p->entry, tokens);
		if (i >= 0)
			p->twins++;
		else
			i = insert(c, r->seq, key, tokens);
		if (i < 0) {
			c->n[C_REFUSED]++;
			return;
		}
		table_ref(t, i);
		p->entry = i;
		p->depth++;
	}
}

/* ---- life ------------------------------------------------------------------------------------- */

static size_t bytes_of(const struct cache *c)
{
	return table_bytes(&c->table) + (size_t)c->table.max_entries * sizeof(*c->aside) +
	       (size_t)c->host->max_seqs * sizeof(*c->places);
}

static void release_all(struct cache *c)
{
	for (int32_t i = 0; i < c->table.max_entries; i++)
		if (block_of(c, i) >= 0)
			c->host->kv_release(c->host->ctx, block_of(c, i));
}

static void empty(struct cache *c)
{
	table_empty(&c->table);
	for (int32_t i = 0; i < c->host->max_seqs; i++)
		c->places[i] = nowhere;
	c->asked = nowhere;
	c->peak = 0;
	memset(c->n, 0, sizeof(c->n));
}

static void drop(struct cache *c)
{
	if (!c->table.entries)
		return;
	release_all(c);
	c->host->free(c->host->ctx, NX_MEM_HOST, c->table.entries, bytes_of(c));
	c->table.entries = NULL;
}

static int create(void **self, const struct nx_host *host, const struct nx_value *values,
                  struct nx_err *err)
{
	struct cache *c = calloc(1, sizeof(*c));
	if (!c)
		return nx_fail(err, NX_ENOMEM, "prefix_cache: out of memory");
	c->host = host;
	c->own_block_size = (int32_t)values[P_BLOCK_SIZE].i;
	c->asked_entries = (int32_t)values[P_MAX_ENTRIES].i;
	c->table.policy = (enum policy)values[P_EVICTION_POLICY].i;
	c->salt = (uint64_t)values[P_SALT].i;
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
	if (!c->table.entries)
		return;
	release_all(c);
	empty(c);
}

static int prefix_geometry(void *self, const struct nx_prefix_limits *l,
                           struct nx_prefix_geometry *out, struct nx_err *err)
{
	struct cache *c = self;
	struct table *t = &c->table;
	int32_t align = l->align > 0 ? l->align : 1;
	int32_t bs = l->block_size ? l->block_size : c->own_block_size;
	if (!l->block_size) /* up to whole groups of the codec */
		bs = (bs + align - 1) / align * align;
	if (bs % align)
		return nx_fail(err, NX_ECONFLICT,
		               "prefix_cache: blocks of %d tokens cut the codec's groups of %d", bs,
		               align);
	int64_t n = c->asked_entries;
	if (!n)
		n = l->pool_rows ? (l->pool_rows + bs - 1) / bs : DEFAULT_ENTRIES;
	int64_t most = !l->block_size ? l->budget_rows / bs
	               : l->pool_rows ? l->pool_rows / bs
	                              : MOST_ENTRIES;
	n = n < most ? n : most;
	if (n < 1)
		return nx_fail(
			err, NX_ENOSPC,
			"prefix_cache: the KV layout leaves %lld rows of the memory limit, not one block of %d",
			(long long)l->budget_rows, bs);
	n = n < MOST_ENTRIES ? n : MOST_ENTRIES;
	drop(c);
	t->block_size = bs;
	t->max_entries = (int32_t)n;
	t->n_buckets = 1;
	while (t->n_buckets < t->max_entries)
		t->n_buckets *= 2;
	t->root = table_mix(table_mix(0, l->key), c->salt);
	c->own_pool = l->block_size == 0;
	uint8_t *p = c->host->alloc(c->host->ctx, NX_MEM_HOST, bytes_of(c));
	if (!p)
		return nx_fail(err, NX_ENOMEM, "prefix_cache: no memory for %d entries (%zu bytes)",
		               t->max_entries, bytes_of(c));
	table_place(t, p);
	c->aside = (int32_t *)(void *)(p + table_bytes(t));
	c->places = (struct stand *)(void *)(c->aside + n);
	empty(c);
	*out = (struct nx_prefix_geometry){.block_size = bs, .n_rows = c->own_pool ? n * bs : 0};
	return 0;
}

static int64_t warm(void *self)
{
	return ((const struct cache *)self)->table.n_used;
}

static void read_counters(void *self, double *v)
{
	const struct cache *c = self;
	const struct table *t = &c->table;
	for (int i = 0; i < C_COUNT; i++)
		v[i] = (double)c->n[i];
	v[C_ENTRIES] = t->n_used;
	v[C_ENTRIES_PEAK] = c->peak;
	for (int32_t i = 0; t->entries && i < t->max_entries; i++)
		v[C_IN_USE] += t->entries[i].refs > 0;
}

static const struct nx_param params[] = {
	[P_BLOCK_SIZE] = {"block_size", NX_PARAM_INT, "16", 1, 4096, NULL, "tokens",
                          "of an entry over a contiguous layout; with blocks it is the layout's"},
	[P_MAX_ENTRIES] = {"max_entries", NX_PARAM_INT, "0", 0, MOST_ENTRIES, NULL, "blocks",
                           "kept at most; 0 = as many as the layout's pool has rows for"},
	[P_EVICTION_POLICY] =
		{"eviction_policy", NX_PARAM_ENUM, "lru", 0, 0, "lru|lfu|fifo", "",
                 "which unused end of a prefix goes first: longest unused, least often used, or oldest"},
	[P_SALT] = {"salt", NX_PARAM_INT, "0", 0, 2147483647, NULL, "",
                    "goes into every key: caches of different salts share nothing"},
	{0},
};

static const struct nx_counter counters[] = {
	[C_HITS] = {"hits", "count",
                    "sequences that started with cached rows, resumed ones included"},
	[C_MISSES] = {"misses", "count", "new sequences that started without"},
	[C_HIT_ROWS] = {"hit_rows", "rows", "rows that were found and not computed"},
	[C_PUBLISHED] = {"published", "blocks", "entries made"},
	[C_EVICTED] = {"evicted", "blocks", "entries given up for room"},
	[C_REFUSED] = {"refused", "count", "publications cut short: everything is in use"},
	[C_TAKEN_OVER] = {"taken_over", "blocks",
                          "entries whose block was given back for a running sequence's own"},
	[C_ENTRIES] = {"entries", "blocks", "entries now"},
	[C_ENTRIES_PEAK] = {"entries_peak", "blocks", "most entries at a time"},
	[C_IN_USE] = {"in_use", "blocks", "of the entries now, counted in by a running sequence"},
	{0},
};

static const struct nx_technique prefix_cache = {
	NX_TECHNIQUE_HEAD,
	.name = "prefix_cache",
	.version = "1",
	.summary =
		"full blocks outlive their sequence and are found again by a hash of their prefix",
	.source = "Kwon et al. 2309.06180, section 4.4; vLLM V1, automatic prefix caching",
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

NX_TECHNIQUE(&prefix_cache);
