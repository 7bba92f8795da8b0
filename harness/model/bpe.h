/* SPDX-License-Identifier: Apache-2.0
 *
 * model/bpe.h: merge table and merging of byte-pair encoding, on token ids.
 *
 * Merging a piece of n symbols takes O(n log n): a linked list of symbols and a heap of candidate
 * pairs, lowest rank first, leftmost first among equals (SentencePiece may give pairs one rank).
 * The result is that of the textbook loop. Threads: the table is immutable once filled; scratch
 * belongs to one call at a time.
 */
#ifndef NEXUS_MODEL_BPE_H
#define NEXUS_MODEL_BPE_H

#include <stddef.h>
#include <stdint.h>

#include "nexus/err.h"

struct nx_bpe_slot {
	uint64_t pair; /* left << 32 | right; all ones when free */
	uint32_t rank;
	int32_t merged;
};

struct nx_bpe {
	struct nx_bpe_slot *slots;
	size_t mask;
};

int nx_bpe_init(struct nx_bpe *b, size_t max_merges, struct nx_err *err);
void nx_bpe_release(struct nx_bpe *b);

/* Adds a merge; of two for the same pair the first (lower rank) stays. At most max_merges calls. */
void nx_bpe_add(struct nx_bpe *b, int32_t left, int32_t right, uint32_t rank, int32_t merged);

struct nx_bpe_scratch {
	struct nx_bpe_sym *syms;
	uint64_t *heap;
	size_t cap, n_heap;
};

void nx_bpe_scratch_release(struct nx_bpe_scratch *s); /* a zeroed scratch is ready for use */

/* Merges ids[0, *n) in place; *n becomes the new count. At most 2^30 ids. */
int nx_bpe_merge(const struct nx_bpe *b, struct nx_bpe_scratch *s, int32_t *ids, size_t *n,
                 struct nx_err *err);

#endif
