/* SPDX-License-Identifier: Apache-2.0
 *
 * table.c: see table.h.
 */
#include <string.h>

#include "table.h"

/* A test puts a bad one in its place, so that keys collide. */
#ifndef PREFIX_CACHE_MIX
#define PREFIX_CACHE_MIX(key, x) table_mix(key, x)
#endif

/* ---- memory ----------------------------------------------------------------------------------- */

size_t table_bytes(const struct table *t)
{
	size_t n = (size_t)t->max_entries;
	size_t words = (size_t)t->n_buckets + n + n * (size_t)t->block_size;
	return n * sizeof(struct entry) + words * sizeof(int32_t);
}

void table_place(struct table *t, void *p)
{
	t->entries = p;
	t->buckets = (int32_t *)(void *)(t->entries + t->max_entries);
	t->heap = t->buckets + t->n_buckets;
	t->tokens = t->heap + t->max_entries;
}

void table_empty(struct table *t)
{
	for (int32_t i = 0; i < t->max_entries; i++)
		t->entries[i] = (struct entry){.block = -1,
		                               .parent = -1,
		                               .next = i + 1 < t->max_entries ? i + 1 : -1,
		                               .at = -1};
	for (int32_t i = 0; i < t->n_buckets; i++)
		t->buckets[i] = -1;
	t->free_first = t->n_heap = t->n_used = 0;
	t->clock = 0;
}

/* ---- keys ------------------------------------------------------------------------------------- */

/* Two rounds of multiply and fold: good enough for a table, and never trusted. */
uint64_t table_mix(uint64_t key, uint64_t x)
{
	key = (key ^ x) * 0x9e3779b97f4a7c15ull;
	key ^= key >> 32;
	key *= 0xd6e8feb86659fd93ull;
	return key ^ (key >> 29);
}

uint64_t table_key(const struct table *t, int32_t parent, const int32_t *tokens)
{
	uint64_t k = parent < 0 ? t->root : t->entries[parent].key;
	for (int32_t i = 0; i < t->block_size; i++)
		k = PREFIX_CACHE_MIX(k, (uint64_t)(uint32_t)tokens[i]);
	return k;
}

static int32_t *bucket(const struct table *t, uint64_t key)
{
	return &t->buckets[key & (uint64_t)(t->n_buckets - 1)];
}

static int32_t *tokens_of(const struct table *t, int32_t entry)
{
	return t->tokens + (size_t)entry * (size_t)t->block_size;
}

int32_t table_find(const struct table *t, uint64_t key, int32_t parent, const int32_t *tokens)
{
	size_t bytes = (size_t)t->block_size * sizeof(*tokens);
	for (int32_t i = *bucket(t, key); i >= 0; i = t->entries[i].next) {
		const struct entry *e = &t->entries[i];
		if (e->key == key && e->parent == parent && !memcmp(tokens_of(t, i), tokens, bytes))
			return i;
	}
	return -1;
}

int32_t table_add(struct table *t, uint64_t key, int32_t parent, const int32_t *tokens,
                  int32_t block)
{
	int32_t i = t->free_first, *head = bucket(t, key);
	t->free_first = t->entries[i].next;
	t->entries[i] = (struct entry){.key = key,
	                               .born = ++t->clock,
	                               .block = block,
	                               .parent = parent,
	                               .next = *head,
	                               .at = -1};
	*head = i;
	memcpy(tokens_of(t, i), tokens, (size_t)t->block_size * sizeof(*tokens));
	if (parent >= 0)
		t->entries[parent].children++;
	t->n_used++;
	return i;
}

/* ---- the heap: what may go, the next on top ---------------------------------------------------- */

static bool goes_before(const struct table *t, int32_t a, int32_t b)
{
	const struct entry *x = &t->entries[a], *y = &t->entries[b];
	if (t->policy == FIFO)
		return x->born < y->born;
	if (t->policy == LFU && x->uses != y->uses)
		return x->uses < y->uses;
	return x->used < y->used;
}

static void heap_put(struct table *t, int32_t at, int32_t entry)
{
	t->heap[at] = entry;
	t->entries[entry].at = at;
}

/* The entry goes to position at, or to where the order wants it above or below. */
static void heap_settle(struct table *t, int32_t at, int32_t entry)
{
	for (; at > 0 && goes_before(t, entry, t->heap[(at - 1) / 2]); at = (at - 1) / 2)
		heap_put(t, at, t->heap[(at - 1) / 2]);
	for (int32_t kid; (kid = 2 * at + 1) < t->n_heap; at = kid) {
		if (kid + 1 < t->n_heap && goes_before(t, t->heap[kid + 1], t->heap[kid]))
			kid++;
		if (!goes_before(t, t->heap[kid], entry))
			break;
		heap_put(t, at, t->heap[kid]);
	}
	heap_put(t, at, entry);
}

static void heap_remove(struct table *t, int32_t entry)
{
	int32_t at = t->entries[entry].at;
	if (at < 0)
		return;
	t->entries[entry].at = -1;
	int32_t last = t->heap[--t->n_heap];
	if (last != entry)
		heap_settle(t, at, last);
}

static void heap_add_if_free(struct table *t, int32_t entry)
{
	const struct entry *e = &t->entries[entry];
	if (e->refs == 0 && e->children == 0 && e->at < 0)
		heap_settle(t, t->n_heap++, entry);
}

/* ---- who uses what ---------------------------------------------------------------------------- */

void table_ref(struct table *t, int32_t entry)
{
	t->entries[entry].refs++;
	heap_remove(t, entry);
}

void table_ref_path(struct table *t, int32_t entry)
{
	for (; entry >= 0; entry = t->entries[entry].parent)
		table_ref(t, entry);
}

void table_leave(struct table *t, struct stand *s, bool used)
{
	uint64_t now = used && s->entry >= 0 ? ++t->clock : 0;
	for (int32_t i = s->entry; i >= 0; i = t->entries[i].parent) {
		struct entry *e = &t->entries[i];
		if (used) {
			e->used = now;
			e->uses++;
		}
		e->refs--;
		heap_add_if_free(t, i);
	}
	*s = (struct stand){.entry = -1};
}

/* ---- eviction --------------------------------------------------------------------------------- */

int32_t table_next_out(const struct table *t)
{
	return t->n_heap ? t->heap[0] : -1;
}

void table_drop_next(struct table *t)
{
	int32_t entry = t->heap[0];
	struct entry *e = &t->entries[entry];
	int32_t *link = bucket(t, e->key), parent = e->parent;
	heap_remove(t, entry);
	while (*link != entry)
		link = &t->entries[*link].next;
	*link = e->next;
	*e = (struct entry){.block = -1, .parent = -1, .next = t->free_first, .at = -1};
	t->free_first = entry;
	t->n_used--;
	if (parent >= 0) {
		t->entries[parent].children--;
		heap_add_if_free(t, parent);
	}
}

int32_t table_set_aside(struct table *t)
{
	int32_t entry = t->heap[0];
	heap_remove(t, entry);
	return entry;
}

void table_put_back(struct table *t, int32_t entry)
{
	heap_add_if_free(t, entry);
}
