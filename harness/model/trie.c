/* SPDX-License-Identifier: Apache-2.0
 *
 * See trie.h.
 */
#include "model/trie.h"

#include <stdlib.h>
#include <string.h>

#include "model/strmap.h"

#define FREE UINT64_MAX

int nx_trie_init(struct nx_trie *t, size_t max_bytes, struct nx_err *err)
{
	size_t n = 16;
	memset(t, 0, sizeof(*t));
	if (max_bytes >= UINT32_MAX)
		return nx_fail(err, NX_ENOMEM, "special tokens of %zu bytes are too many",
		               max_bytes);
	while (n < 2 * max_bytes)
		n *= 2;
	t->edges = malloc(n * sizeof(*t->edges));
	t->ids = malloc((max_bytes + 1) * sizeof(*t->ids));
	if (!t->edges || !t->ids) {
		nx_trie_release(t);
		return nx_fail(err, NX_ENOMEM, "out of memory for %zu bytes of special tokens",
		               max_bytes);
	}
	for (size_t i = 0; i < n; i++)
		t->edges[i].key = FREE;
	t->mask = n - 1;
	t->ids[0] = -1;
	t->n_nodes = 1;
	return 0;
}

void nx_trie_release(struct nx_trie *t)
{
	free(t->edges);
	free(t->ids);
	memset(t, 0, sizeof(*t));
}

static struct nx_trie_edge *find(const struct nx_trie *t, uint64_t key)
{
	size_t i = nx_mix64(key) & t->mask;
	while (t->edges[i].key != key && t->edges[i].key != FREE)
		i = (i + 1) & t->mask;
	return &t->edges[i];
}

void nx_trie_add(struct nx_trie *t, const char *text, size_t len, int32_t id)
{
	uint32_t node = 0;
	t->first[(unsigned char)text[0]] = true;
	for (size_t i = 0; i < len; i++) {
		const uint64_t key = (uint64_t)node << 8 | (unsigned char)text[i];
		struct nx_trie_edge *e = find(t, key);
		if (e->key == FREE) {
			t->ids[t->n_nodes] = -1;
			*e = (struct nx_trie_edge){key, t->n_nodes++};
		}
		node = e->to;
	}
	if (t->ids[node] < 0)
		t->ids[node] = id;
}

uint32_t nx_trie_step(const struct nx_trie *t, uint32_t node, unsigned char byte)
{
	const struct nx_trie_edge *e = find(t, (uint64_t)node << 8 | byte);
	return e->key == FREE ? 0 : e->to;
}
