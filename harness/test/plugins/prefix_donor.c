/* SPDX-License-Identifier: Apache-2.0
 *
 * test/plugins/prefix_donor.c: a prefix cache of full blocks. An entry's key is a hash of its tokens and of the key
 * before it, and its tokens are compared before it matches, so a collision costs a miss and nothing else. Entries
 * form trees; only leaves go, the one that was longest unused first.
 */
#include "hand.h"

enum { P_BLOCK_SIZE, P_MAX_ENTRIES };
enum { C_HITS, C_MISSES, C_HIT_ROWS, C_PUBLISHED, C_EVICTED, C_REFUSED, C_COUNT };

struct entry {
	uint64_t key;
	int32_t block;          /* what kv_hold gave; -1 = the entry is free */
	int32_t parent;         /* entry; -1 = the first block of a prompt */
	int32_t children, next; /* next of its bucket, or of the free list */
	uint64_t used;
};

struct donor {
	const struct nx_host *host;
	int32_t block_size, max_entries;
	int32_t own_block_size; /* parameter: over contiguous layouts */
	uint64_t root, clock;
	size_t bytes;
	struct entry *entries;     /* [max_entries] */
	int32_t *buckets, *tokens; /* [max_entries], [max_entries, block_size] */
	int32_t free_first, n_used;
	uint64_t n[C_COUNT];
};

static int create(void **self, const struct nx_host *host, const struct nx_value *values,
                  struct nx_err *err)
{
	struct donor *d = calloc(1, sizeof(*d));
	if (!d)
		return nx_fail(err, NX_ENOMEM, "prefix_donor: out of memory");
	d->host = host;
	d->own_block_size = (int32_t)values[P_BLOCK_SIZE].i;
	d->max_entries = (int32_t)values[P_MAX_ENTRIES].i;
	*self = d;
	return 0;
}

static void drop(struct donor *d)
{
	if (d->entries)
		d->host->free(d->host->ctx, NX_MEM_HOST, d->entries, d->bytes);
	d->entries = NULL;
}

static void destroy(void *self)
{
	drop(self);
	free(self);
}

/* Forgets all; the store forgets its holds by itself. */
static void reset(void *self)
{
	struct donor *d = self;
	for (int32_t i = 0; d->entries && i < d->max_entries; i++) {
		d->buckets[i] = -1;
		d->entries[i] =
			(struct entry){.block = -1, .next = i + 1 < d->max_entries ? i + 1 : -1};
	}
	d->free_first = d->n_used = 0;
	d->clock = 0;
	memset(d->n, 0, sizeof(d->n));
}

static int prefix_geometry(void *self, const struct nx_prefix_limits *l,
                           struct nx_prefix_geometry *out, struct nx_err *err)
{
	struct donor *d = self;
	int32_t align = l->align > 0 ? l->align : 1;
	int32_t bs = l->block_size ? l->block_size : d->own_block_size;
	if (!l->block_size)
		bs = (bs + align - 1) / align * align;
	if (bs % align)
		return nx_fail(err, NX_ECONFLICT,
		               "prefix_donor: blocks of %d tokens are cut by groups of %d", bs,
		               align);
	drop(d);
	d->block_size = bs;
	d->root = hand_mix(l->key);
	size_t n = (size_t)d->max_entries;
	d->bytes = n * sizeof(*d->entries) + n * sizeof(int32_t) * (1 + (size_t)bs);
	d->entries = d->host->alloc(d->host->ctx, NX_MEM_HOST, d->bytes);
	if (!d->entries)
		return nx_fail(err, NX_ENOMEM, "prefix_donor: no memory for %d entries",
		               d->max_entries);
	d->buckets = (int32_t *)(void *)(d->entries + n);
	d->tokens = d->buckets + n;
	reset(d);
	int64_t rows = (int64_t)d->max_entries * bs;
	out->block_size = bs;
	out->n_rows = l->block_size ? 0 : rows < l->budget_rows ? rows : l->budget_rows / bs * bs;
	return 0;
}

static uint64_t key_of(const struct donor *d, uint64_t before, const int32_t *tokens)
{
	uint64_t k = before;
	for (int32_t i = 0; i < d->block_size; i++)
		k = hand_mix(k ^ (uint64_t)(uint32_t)tokens[i]);
	return k;
}

static int32_t *bucket(struct donor *d, uint64_t key)
{
	return &d->buckets[key % (uint64_t)d->max_entries];
}

/* The entry of a block of tokens below `parent`, or -1. */
static int32_t find(struct donor *d, uint64_t key, int32_t parent, const int32_t *tokens)
{
	size_t bytes = (size_t)d->block_size * sizeof(*tokens);
	for (int32_t i = *bucket(d, key); i >= 0; i = d->entries[i].next)
		if (d->entries[i].key == key && d->entries[i].parent == parent &&
		    memcmp(d->tokens + (size_t)i * (size_t)d->block_size, tokens, bytes) == 0)
			return i;
	return -1;
}

static int32_t prefix_match(void *self, const int32_t *tokens, int32_t n, int32_t *blocks)
{
	struct donor *d = self;
	int32_t at = 0, parent = -1;
	uint64_t key = d->root;
	if (blocks)
		d->clock++;
	for (; at + d->block_size < n; at += d->block_size) {
		key = key_of(d, key, tokens + at);
		int32_t i = find(d, key, parent, tokens + at);
		if (i < 0)
			break;
		if (blocks) {
			blocks[at / d->block_size] = d->entries[i].block;
			d->entries[i].used = d->clock;
		}
		parent = i;
	}
	if (blocks) {
		d->n[at ? C_HITS : C_MISSES]++;
		d->n[C_HIT_ROWS] += (uint64_t)at;
	}
	return at;
}

/* Gives back the leaf that was longest unused, but nothing used at `now`. */
static bool evict_one(struct donor *d, uint64_t now, bool idle)
{
	int32_t old = -1;
	for (int32_t i = 0; i < d->max_entries; i++) {
		const struct entry *e = &d->entries[i];
		if (e->block >= 0 && e->children == 0 && e->used < now &&
		    (!idle || d->host->kv_idle(d->host->ctx, e->block)) &&
		    (old < 0 || e->used < d->entries[old].used))
			old = i;
	}
	if (old < 0)
		return false;
	struct entry *e = &d->entries[old];
	int32_t *link = bucket(d, e->key);
	while (*link != old)
		link = &d->entries[*link].next;
	*link = e->next;
	if (e->parent >= 0)
		d->entries[e->parent].children--;
	d->host->kv_release(d->host->ctx, e->block);
	*e = (struct entry){.block = -1, .next = d->free_first};
	d->free_first = old;
	d->n_used--;
	d->n[C_EVICTED]++;
	return true;
}

/* Holds block `index` of the sequence below `parent`. The new entry, or -1: no room. */
static int32_t insert(struct donor *d, const struct nx_prefix_rows *r, int32_t index, uint64_t key,
                      int32_t parent)
{
	if (d->free_first < 0 && !evict_one(d, d->clock, false))
		return -1;
	int32_t block = d->host->kv_hold(d->host->ctx, r->seq, index);
	if (block < 0 && evict_one(d, d->clock, true))
		block = d->host->kv_hold(d->host->ctx, r->seq, index);
	if (block < 0)
		return -1;
	int32_t i = d->free_first, *head = bucket(d, key);
	d->free_first = d->entries[i].next;
	d->entries[i] = (struct entry){key, block, parent, 0, *head, d->clock};
	*head = i;
	memcpy(d->tokens + (size_t)i * (size_t)d->block_size, r->tokens + index * d->block_size,
	       (size_t)d->block_size * sizeof(*d->tokens));
	if (parent >= 0)
		d->entries[parent].children++;
	d->n_used++;
	d->n[C_PUBLISHED]++;
	return i;
}

static void prefix_publish(void *self, const struct nx_prefix_rows *r)
{
	struct donor *d = self;
	int32_t parent = -1;
	uint64_t key = d->root;
	d->clock++; /* what this walks over is used now and cannot be evicted for its own children */
	for (int32_t b = 0; b < r->n_rows / d->block_size; b++) {
		const int32_t *tokens = r->tokens + b * d->block_size;
		key = key_of(d, key, tokens);
		int32_t i = find(d, key, parent, tokens);
		if (i < 0)
			i = insert(d, r, b, key, parent);
		if (i < 0) {
			d->n[C_REFUSED]++;
			return;
		}
		d->entries[i].used = d->clock;
		parent = i;
	}
}

static int64_t prefix_evict(void *self, int64_t rows)
{
	struct donor *d = self;
	int64_t given = 0;
	d->clock++;
	while (given < rows && evict_one(d, d->clock, true))
		given += d->block_size;
	return given;
}

static int64_t warm(void *self)
{
	return ((const struct donor *)self)->n_used;
}

static void read_counters(void *self, double *v)
{
	const struct donor *d = self;
	for (int i = 0; i < C_COUNT; i++)
		v[i] = (double)d->n[i];
}

static const struct nx_param params[] = {
	[P_BLOCK_SIZE] = {"block_size", NX_PARAM_INT, "8", 1, 4096, NULL, "tokens",
                          "of a cached block where the layout has no blocks"},
	[P_MAX_ENTRIES] = {"max_entries", NX_PARAM_INT, "64", 1, 1 << 16, NULL, "blocks",
                           "kept at most"},
	{0},
};

static const struct nx_counter counters[] = {
	[C_HITS] = {"hits", "count", "sequences that found some of their rows"},
	[C_MISSES] = {"misses", "count", "sequences that found none"},
	[C_HIT_ROWS] = {"hit_rows", "rows", "rows found"},
	[C_PUBLISHED] = {"published", "blocks", "blocks held"},
	[C_EVICTED] = {"evicted", "blocks", "blocks given back"},
	[C_REFUSED] = {"refused", "count", "publications cut short for want of room"},
	{0},
};

static const struct nx_technique prefix_donor = {
	NX_TECHNIQUE_HEAD,
	.name = "prefix_donor",
	.version = "1",
	.summary = "for tests: full blocks found again by their tokens",
	.source = "after Kwon et al. 2309.06180, section 4.4",
	.params = params,
	.counters = counters,
	.assumes = NX_TRAIT_FULL_KV | NX_TRAIT_KEPT_KV,
	.flags = NX_TECH_EXACT,
	.create = create,
	.reset = reset,
	.destroy = destroy,
	.read_counters = read_counters,
	.warm = warm,
	.prefix_geometry = prefix_geometry,
	.prefix_match = prefix_match,
	.prefix_publish = prefix_publish,
	.prefix_evict = prefix_evict,
};

NX_TECHNIQUE(&prefix_donor);
