/* SPDX-License-Identifier: Apache-2.0
 *
 * radix.h: a radix tree over tokens whose values are KV blocks. Private to radix_prefix_cache.
 *
 * An edge, kept in the node that it leads to, is a run of one or more cells; a cell is one cached block and its tokens.
 * All children of a node differ in their first block, so nodes part at block boundaries: with blocks of one token
 * anywhere, with larger ones at their multiples. The root (RADIX_ROOT) has no cells.
 *
 * Locks. A running sequence stands at the end of a node; each node from there to the root is locked once for it:
 *     lock(node) = sequences that stand at it + sum of lock(children)
 * so what lies below an unlocked node is unlocked, too, and all unlocked cells can go, ends first. Cells are protected
 * (in a locked node) or evictable: evictable + protected = used.
 *
 * A node ends where sequences part, or where they were used differently. Since a use counts for whole nodes, a
 * sequence that ends inside a run splits it first; runs that were split for nothing grow together again (radix_step).
 *
 * Costs. Down a path: the tokens compared, and one look-up in a hash table a node. Split: the cells above it. Lock and
 * leave: the nodes of the path. Eviction of a cell: O(1), and O(log nodes) for the last one of a node.
 */
#ifndef RADIX_H
#define RADIX_H

#include "nexus/technique.h"

#define RADIX_ROOT 0

enum radix_policy { RADIX_LRU, RADIX_LFU };

struct radix_node {
	uint64_t hash;       /* of its first block's tokens */
	uint64_t used;       /* clock: last left by a sequence; 0 = never */
	int64_t uses;        /* sequences that have left it */
	int32_t parent;      /* -1 = the node is free */
	int32_t next;        /* of its bucket, or of the free list */
	int32_t first, last; /* cells */
	int32_t n;           /* of them */
	int32_t children, lock;
	int32_t at; /* in the heap of unlocked leaves; -1 = not there */
};

/* Where a sequence stands. */
struct radix_at {
	int32_t node;  /* at its end */
	int32_t depth; /* cells from the root to there */
	int32_t twins; /* of these, found when the sequence had computed them itself */
};

struct radix {
	enum radix_policy policy;
	int32_t block_size, max_cells, n_buckets; /* n_buckets: a power of two */
	/* In one piece of memory, which begins with nodes. */
	struct radix_node *nodes; /* [max_cells + 1] */
	int32_t *buckets;         /* [n_buckets] */
	int32_t *heap;            /* [max_cells + 1] the next to go on top */
	int32_t *block;           /* [max_cells] what kv_hold gave */
	int32_t *next, *prev;     /* [max_cells] in the run; next also of the free list */
	int32_t *tokens;          /* [max_cells, block_size] */
	int32_t n_heap, free_node, free_cell;
	int32_t n_cells, n_nodes; /* in use; the root does not count */
	int32_t n_protected;      /* cells in locked nodes */
	uint64_t clock, n_splits;
};

/* Bytes of the piece for max_cells cells of block_size tokens, which are set; and its layout over p. */
size_t radix_bytes(const struct radix *t);
void radix_place(struct radix *t, void *p);
/* Nothing is cached and nobody stands anywhere. Does not release blocks. */
void radix_empty(struct radix *t);

/* How many of at most n blocks of tokens are cached below `at`, whole nodes and a part of the last. */
int32_t radix_find(const struct radix *t, struct radix_at at, const int32_t *tokens, int32_t n,
                   int32_t *blocks);
/* One node down: `at` moves along the child that begins with tokens, by at most n blocks, and locks it; a child that
 * goes on otherwise is split. Returns the blocks it moved by; 0 = there is no such child. */
int32_t radix_step(struct radix *t, struct radix_at *at, const int32_t *tokens, int32_t n);
/* A new cell behind `at`, which moves to it; a cell must be free. */
void radix_grow(struct radix *t, struct radix_at *at, const int32_t *tokens, int32_t block);
/* Another sequence stands where this one does. */
void radix_lock(struct radix *t, struct radix_at at);
/* The sequence goes. used: what it leaves was used by it. */
void radix_leave(struct radix *t, struct radix_at *at, bool used);

/* The cell that goes next, or -1: the last one of the unlocked leaf that the policy names. */
int32_t radix_next_out(const struct radix *t);
/* It is gone; its block was released. */
void radix_drop_next(struct radix *t);
/* The leaf that would go next is passed over until radix_put_back: the node. */
int32_t radix_set_aside(struct radix *t);
void radix_put_back(struct radix *t, int32_t node);

#endif
