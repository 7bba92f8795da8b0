/* SPDX-License-Identifier: Apache-2.0
 *
 * model/trie.h: texts of special tokens, found by walking the text from a position.
 *
 * Nodes are numbered from 0, the root; a walk costs one hash lookup a byte, however many texts
 * there are. Sized by init: at most max_bytes bytes in all texts. Lookups are thread-safe.
 */
#ifndef NEXUS_MODEL_TRIE_H
#define NEXUS_MODEL_TRIE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "nexus/err.h"

struct nx_trie_edge {
	uint64_t key; /* node << 8 | byte; all ones when free */
	uint32_t to;
};

struct nx_trie {
	struct nx_trie_edge *edges;
	size_t mask;
	int32_t *ids; /* [n_nodes], -1 where no text ends */
	uint32_t n_nodes;
	bool first[256]; /* does any text start with this byte? */
};

int nx_trie_init(struct nx_trie *t, size_t max_bytes, struct nx_err *err);
void nx_trie_release(struct nx_trie *t);

/* Of two equal texts the first stays. len is 1 or more. */
void nx_trie_add(struct nx_trie *t, const char *text, size_t len, int32_t id);

/* The node after byte, or 0 when no text goes on so. */
uint32_t nx_trie_step(const struct nx_trie *t, uint32_t node, unsigned char byte);

#endif
