/* SPDX-License-Identifier: Apache-2.0
 *
 * table.h: cached blocks by a hash of all tokens up to their end. Private to prefix_cache.
 *
 * An entry is one block. Its key is a hash of its parent's key and of its tokens; the root's stands for what entries
 * depend on besides tokens. Equal keys mean equal tokens from position 0 on, but for collisions, and those cost a miss
 * and nothing else: an entry is found only below the very entry that was found before it, and only when its tokens
 * are the same ones.
 *
 * A running sequence stands at the last entry of its prefix, and every entry from there to the root counts it (refs).
 * Entries with neither refs nor children stand in a heap, the next to go on top, so ends of prefixes go before what
 * they hang from, and no entry is looked at in vain.
 *
 * Costs. Find: the tokens of a block, hashed and compared. Stand, leave: the entries of the path. Eviction: O(log n).
 */
#ifndef TABLE_H
#define TABLE_H

#include "nexus/technique.h"

enum policy { LRU, LFU, FIFO };

struct entry {
	uint64_t key;           /* of its tokens and all before them */
	uint64_t born, used;    /* clock: entered; last left by a sequence, 0 = never */
	int64_t uses;           /* sequences that have left it */
	int32_t block;          /* what kv_hold gave; -1 = the entry is free */
	int32_t parent;         /* entry; -1 = the first block of a prompt */
	int32_t children, refs; /* entries below; sequences that stand at it or below it */
	int32_t next;           /* of its bucket, or of the free list */
	int32_t at;             /* in the heap; -1 = must stay */
};

/* Where a sequence stands. */
struct stand {
	int32_t entry; /* the last of its prefix; -1 = none */
	int32_t depth; /* entries from the root to it */
	int32_t twins; /* of these, found when the sequence had computed them itself */
};

struct table {
	enum policy policy;
	int32_t block_size, max_entries, n_buckets; /* n_buckets: a power of two */
	uint64_t root;                              /* key of the empty prefix */
	/* In one piece of memory, which begins with entries. */
	struct entry *entries; /* [max_entries] */
	int32_t *buckets;      /* [n_buckets] */
	int32_t *heap;         /* [max_entries] */
	int32_t *tokens;       /* [max_entries, block_size] */
	int32_t n_heap, n_used, free_first;
	uint64_t clock;
};

/* Bytes of the piece for max_entries entries of block_size tokens, which are set; and its layout over p. */
size_t table_bytes(const struct table *t);
void table_place(struct table *t, void *p);
/* No entry is there. Does not release blocks. */
void table_empty(struct table *t);

/* Two keys made one; for the root, too. */
uint64_t table_mix(uint64_t key, uint64_t x);
/* The key of a block of tokens below parent, and the entry that has it, or -1. */
uint64_t table_key(const struct table *t, int32_t parent, const int32_t *tokens);
int32_t table_find(const struct table *t, uint64_t key, int32_t parent, const int32_t *tokens);
/* A new entry that nobody counts in yet; one must be free. */
int32_t table_add(struct table *t, uint64_t key, int32_t parent, const int32_t *tokens,
                  int32_t block);

/* One sequence more stands at or below the entry; at the entry, with all above it. */
void table_ref(struct table *t, int32_t entry);
void table_ref_path(struct table *t, int32_t entry);
/* The sequence goes. used: what it leaves was used by it. */
void table_leave(struct table *t, struct stand *s, bool used);

/* The entry that goes next, or -1; and it is gone; its block was released. */
int32_t table_next_out(const struct table *t);
void table_drop_next(struct table *t);
/* The entry that would go next is passed over until table_put_back: the entry. */
int32_t table_set_aside(struct table *t);
void table_put_back(struct table *t, int32_t entry);

#endif
