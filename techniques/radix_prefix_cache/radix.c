/* SPDX-License-Identifier: Apache-2.0
 *
 * radix.c: see radix.h.
 */
#include <string.h>

#include "radix.h"

/* ---- memory ----------------------------------------------------------------------------------- */

size_t radix_bytes(const struct radix *t)
{
	size_t n = (size_t)t->max_cells;
	size_t words = (size_t)t->n_buckets + (n + 1) + 3 * n + n * (size_t)t->block_size;
	return (n + 1) * sizeof(struct radix_node) + words * sizeof(int32_t);
}

void radix_place(struct radix *t, void *p)
{
	size_t n = (size_t)t->max_cells;
	t->nodes = p;
	t->buckets = (int32_t *)(void *)(t->nodes + n + 1);
	t->heap = t->buckets + t->n_buckets;
	t->block = t->heap + n + 1;
	t->next = t->block + n;
	t->prev = t->next + n;
	t->tokens = t->prev + n;
}

void radix_empty(struct radix *t)
{
	for (int32_t i = 0; i < t->n_buckets; i++)
		t->buckets[i] = -1;
	/* Low numbers come first: cells of a run then mostly lie side by side. */
	for (int32_t i = 0; i < t->max_cells; i++)
		t->next[i] = i + 1 < t->max_cells ? i + 1 : -1;
	for (int32_t i = 0; i <= t->max_cells; i++)
		t->nodes[i] = (struct radix_node){
			.parent = -1, .next = i < t->max_cells ? i + 1 : -1, .at = -1};
	t->nodes[RADIX_ROOT].next = -1;
	t->free_node = t->max_cells > 0 ? RADIX_ROOT + 1 : -1;
	t->free_cell = t->max_cells > 0 ? 0 : -1;
	t->n_heap = t->n_cells = t->n_nodes = t->n_protected = 0;
	t->clock = t->n_splits = 0;
}

/* ---- children, by their first block ------------------------------------------------------------ */

static uint64_t hash_of(const struct radix *t, const int32_t *tokens)
{
	uint64_t h = 0x9e3779b97f4a7c15ull;
	for (int32_t i = 0; i < t->block_size; i++) {
		h = (h ^ (uint64_t)(uint32_t)tokens[i]) * 0xd6e8feb86659fd93ull;
		h ^= h >> 32;
	}
	return h;
}

static int32_t *bucket(const struct radix *t, int32_t parent, uint64_t hash)
{
	uint64_t h = (hash ^ (uint64_t)(uint32_t)parent) * 0x9e3779b97f4a7c15ull;
	return &t->buckets[(h >> 32) & (uint64_t)(t->n_buckets - 1)];
}

static bool same_block(const struct radix *t, int32_t cell, const int32_t *tokens)
{
	size_t bs = (size_t)t->block_size;
	return !memcmp(t->tokens + (size_t)cell * bs, tokens, bs * sizeof(*tokens));
}

static int32_t child_of(const struct radix *t, int32_t parent, const int32_t *tokens)
{
	uint64_t hash = hash_of(t, tokens);
	for (int32_t i = *bucket(t, parent, hash); i >= 0; i = t->nodes[i].next) {
		const struct radix_node *x = &t->nodes[i];
		if (x->parent == parent && x->hash == hash && same_block(t, x->first, tokens))
			return i;
	}
	return -1;
}

static void link_child(struct radix *t, int32_t node, int32_t parent, uint64_t hash)
{
	struct radix_node *x = &t->nodes[node];
	int32_t *head = bucket(t, parent, hash);
	x->parent = parent;
	x->hash = hash;
	x->next = *head;
	*head = node;
}

static void unlink_child(struct radix *t, int32_t node)
{
	struct radix_node *x = &t->nodes[node];
	int32_t *link = bucket(t, x->parent, x->hash);
	while (*link != node)
		link = &t->nodes[*link].next;
	*link = x->next;
}

static int32_t take_node(struct radix *t)
{
	int32_t i = t->free_node;
	t->free_node = t->nodes[i].next;
	t->n_nodes++;
	return i;
}

static void give_node(struct radix *t, int32_t node)
{
	t->nodes[node] = (struct radix_node){.parent = -1, .next = t->free_node, .at = -1};
	t->free_node = node;
	t->n_nodes--;
}

/* ---- the heap of unlocked leaves ---------------------------------------------------------------- */

static bool goes_before(const struct radix *t, int32_t a, int32_t b)
{
	const struct radix_node *x = &t->nodes[a], *y = &t->nodes[b];
	if (t->policy == RADIX_LFU && x->uses != y->uses)
		return x->uses < y->uses;
	return x->used < y->used;
}

static void heap_put(struct radix *t, int32_t at, int32_t node)
{
	t->heap[at] = node;
	t->nodes[node].at = at;
}

static void heap_settle(struct radix *t, int32_t at, int32_t node)
{
	for (; at > 0 && goes_before(t, node, t->heap[(at - 1) / 2]); at = (at - 1) / 2)
		heap_put(t, at, t->heap[(at - 1) / 2]);
	for (int32_t kid; (kid = 2 * at + 1) < t->n_heap; at = kid) {
		if (kid + 1 < t->n_heap && goes_before(t, t->heap[kid + 1], t->heap[kid]))
			kid++;
		if (!goes_before(t, t->heap[kid], node))
			break;
		heap_put(t, at, t->heap[kid]);
	}
	heap_put(t, at, node);
}

static void heap_remove(struct radix *t, int32_t node)
{
	int32_t at = t->nodes[node].at;
	if (at < 0)
		return;
	t->nodes[node].at = -1;
	int32_t last = t->heap[--t->n_heap];
	if (last != node)
		heap_settle(t, at, last);
}

static void heap_add_if_free(struct radix *t, int32_t node)
{
	const struct radix_node *x = &t->nodes[node];
	if (node != RADIX_ROOT && x->lock == 0 && x->children == 0 && x->at < 0)
		heap_settle(t, t->n_heap++, node);
}

/* ---- locks ------------------------------------------------------------------------------------- */

static void lock_one(struct radix *t, int32_t node)
{
	struct radix_node *x = &t->nodes[node];
	if (x->lock++ == 0)
		t->n_protected += x->n;
	heap_remove(t, node);
}

void radix_lock(struct radix *t, struct radix_at at)
{
	for (int32_t i = at.node; i != RADIX_ROOT; i = t->nodes[i].parent)
		lock_one(t, i);
}

void radix_leave(struct radix *t, struct radix_at *at, bool used)
{
	uint64_t now = used && at->node != RADIX_ROOT ? ++t->clock : 0;
	for (int32_t i = at->node; i != RADIX_ROOT; i = t->nodes[i].parent) {
		struct radix_node *x = &t->nodes[i];
		if (used) {
			x->used = now;
			x->uses++;
		}
		if (--x->lock == 0)
			t->n_protected -= x->n;
		heap_add_if_free(t, i);
	}
	*at = (struct radix_at){.node = RADIX_ROOT};
}

/* ---- runs ------------------------------------------------------------------------------------- */

/* The first k cells of the node become a node above it, which is returned: the lower part keeps its number, since
 * children and sequences that stand there name it. */
static int32_t split(struct radix *t, int32_t node, int32_t k)
{
	int32_t up = take_node(t);
	struct radix_node *low = &t->nodes[node], *x = &t->nodes[up];
	int32_t cell = low->first;
	for (int32_t i = 1; i < k; i++)
		cell = t->next[cell];
	unlink_child(t, node);
	*x = (struct radix_node){.used = low->used,
	                         .uses = low->uses,
	                         .first = low->first,
	                         .last = cell,
	                         .n = k,
	                         .children = 1,
	                         .lock = low->lock,
	                         .at = -1};
	link_child(t, up, low->parent, low->hash);
	low->first = t->next[cell];
	low->n -= k;
	t->next[cell] = t->prev[low->first] = -1;
	link_child(t, node, up, hash_of(t, t->tokens + (size_t)low->first * (size_t)t->block_size));
	t->n_splits++;
	return up;
}

/* Parent and only child whose uses are the same become one: nobody stands between them, since the locks are equal. */
static void join(struct radix *t, int32_t node)
{
	struct radix_node *x = &t->nodes[node];
	int32_t up = x->parent;
	const struct radix_node *y = &t->nodes[up];
	if (up == RADIX_ROOT || y->children != 1 || y->lock != x->lock || y->uses != x->uses ||
	    y->used != x->used)
		return;
	unlink_child(t, node);
	unlink_child(t, up);
	t->next[y->last] = x->first;
	t->prev[x->first] = y->last;
	x->first = y->first;
	x->n += y->n;
	link_child(t, node, y->parent, y->hash);
	give_node(t, up);
}

int32_t radix_find(const struct radix *t, struct radix_at at, const int32_t *tokens, int32_t n,
                   int32_t *blocks)
{
	int32_t found = 0, node = at.node;
	while (found < n) {
		node = child_of(t, node, tokens + (size_t)found * (size_t)t->block_size);
		if (node < 0)
			return found;
		for (int32_t c = t->nodes[node].first; c >= 0; c = t->next[c]) {
			if (found == n ||
			    !same_block(t, c, tokens + (size_t)found * (size_t)t->block_size))
				return found;
			if (blocks)
				blocks[found] = t->block[c];
			found++;
		}
	}
	return found;
}

int32_t radix_step(struct radix *t, struct radix_at *at, const int32_t *tokens, int32_t n)
{
	int32_t node = n > 0 ? child_of(t, at->node, tokens) : -1, k = 1;
	if (node < 0)
		return 0;
	int32_t c = t->next[t->nodes[node].first];
	while (c >= 0 && k < n && same_block(t, c, tokens + (size_t)k * (size_t)t->block_size)) {
		c = t->next[c];
		k++;
	}
	if (c >= 0)
		node = split(t, node, k);
	lock_one(t, node);
	at->node = node;
	at->depth += k;
	join(t, node);
	return k;
}

void radix_grow(struct radix *t, struct radix_at *at, const int32_t *tokens, int32_t block)
{
	size_t bs = (size_t)t->block_size;
	int32_t cell = t->free_cell;
	t->free_cell = t->next[cell];
	t->block[cell] = block;
	t->next[cell] = t->prev[cell] = -1;
	memcpy(t->tokens + (size_t)cell * bs, tokens, bs * sizeof(*tokens));
	t->n_cells++;
	t->n_protected++;
	at->depth++;
	struct radix_node *x = &t->nodes[at->node];
	/* A run of one sequence that nobody has left yet goes on; else a node begins. */
	if (at->node != RADIX_ROOT && x->lock == 1 && x->children == 0 && x->uses == 0) {
		t->next[x->last] = cell;
		t->prev[cell] = x->last;
		x->last = cell;
		x->n++;
		return;
	}
	int32_t node = take_node(t);
	t->nodes[node] =
		(struct radix_node){.first = cell, .last = cell, .n = 1, .lock = 1, .at = -1};
	link_child(t, node, at->node, hash_of(t, tokens));
	x->children++;
	at->node = node;
}

/* ---- eviction --------------------------------------------------------------------------------- */

int32_t radix_next_out(const struct radix *t)
{
	return t->n_heap ? t->nodes[t->heap[0]].last : -1;
}

void radix_drop_next(struct radix *t)
{
	int32_t node = t->heap[0];
	struct radix_node *x = &t->nodes[node];
	int32_t cell = x->last, parent = x->parent;
	x->last = t->prev[cell];
	t->next[cell] = t->free_cell;
	t->free_cell = cell;
	t->n_cells--;
	if (--x->n > 0) {
		t->next[x->last] = -1;
		return;
	}
	heap_remove(t, node);
	/* Its first block's hash is kept in the node: the cell's tokens are not needed any more. */
	unlink_child(t, node);
	give_node(t, node);
	t->nodes[parent].children--;
	heap_add_if_free(t, parent);
}

int32_t radix_set_aside(struct radix *t)
{
	int32_t node = t->heap[0];
	heap_remove(t, node);
	return node;
}

void radix_put_back(struct radix *t, int32_t node)
{
	heap_add_if_free(t, node);
}
