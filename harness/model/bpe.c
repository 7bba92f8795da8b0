/* SPDX-License-Identifier: Apache-2.0
 *
 * See bpe.h.
 */
#include "model/bpe.h"

#include <stdlib.h>
#include <string.h>

#include "model/strmap.h"

#define EMPTY UINT64_MAX /* no pair: ids are below 2^31 */

struct nx_bpe_sym {
	int32_t id; /* -1: merged into its left neighbour */
	int32_t prev, next;
};

struct nx_bpe_cand {
	uint64_t key;                /* rank << 32 | position of the left symbol */
	int32_t left, right, merged; /* ids, to recognise a candidate that has gone stale */
};

static uint64_t pair_of(int32_t left, int32_t right)
{
	return (uint64_t)(uint32_t)left << 32 | (uint32_t)right;
}

int nx_bpe_init(struct nx_bpe *b, size_t max_merges, struct nx_err *err)
{
	size_t n = 16;
	memset(b, 0, sizeof(*b));
	while (n < 2 * max_merges)
		n *= 2;
	b->slots = malloc(n * sizeof(*b->slots));
	if (!b->slots)
		return nx_fail(err, NX_ENOMEM, "cannot allocate a table of %zu merges", max_merges);
	b->mask = n - 1;
	for (size_t i = 0; i < n; i++)
		b->slots[i].pair = EMPTY;
	return 0;
}

void nx_bpe_release(struct nx_bpe *b)
{
	free(b->slots);
	memset(b, 0, sizeof(*b));
}

static struct nx_bpe_slot *find(const struct nx_bpe *b, uint64_t pair)
{
	size_t i = nx_mix64(pair) & b->mask;
	while (b->slots[i].pair != pair && b->slots[i].pair != EMPTY)
		i = (i + 1) & b->mask;
	return &b->slots[i];
}

void nx_bpe_add(struct nx_bpe *b, int32_t left, int32_t right, uint32_t rank, int32_t merged)
{
	struct nx_bpe_slot *s = find(b, pair_of(left, right));
	if (s->pair == EMPTY)
		*s = (struct nx_bpe_slot){pair_of(left, right), rank, merged};
}

void nx_bpe_scratch_release(struct nx_bpe_scratch *s)
{
	free(s->syms);
	free(s->heap);
	memset(s, 0, sizeof(*s));
}

static int reserve(struct nx_bpe_scratch *s, size_t n, struct nx_err *err)
{
	if (n <= s->cap)
		return 0;
	size_t cap = n < 64 ? 64 : n + n / 2;
	/* n - 1 first candidates, and at most two for each of n - 1 merges, one of which was popped. */
	nx_bpe_scratch_release(s);
	s->syms = malloc(cap * sizeof(*s->syms));
	s->heap = malloc(2 * cap * sizeof(*s->heap));
	if (!s->syms || !s->heap) {
		nx_bpe_scratch_release(s);
		return nx_fail(err, NX_ENOMEM,
		               "out of memory while tokenizing a piece of %zu bytes", n);
	}
	s->cap = cap;
	return 0;
}

static void push(struct nx_bpe_scratch *s, struct nx_bpe_cand c)
{
	size_t i = s->n_heap++;
	while (i > 0) {
		size_t up = (i - 1) / 2;
		if (s->heap[up].key <= c.key)
			break;
		s->heap[i] = s->heap[up];
		i = up;
	}
	s->heap[i] = c;
}

static struct nx_bpe_cand pop(struct nx_bpe_scratch *s)
{
	const struct nx_bpe_cand top = s->heap[0], last = s->heap[--s->n_heap];
	size_t i = 0;
	for (;;) {
		size_t kid = 2 * i + 1;
		if (kid >= s->n_heap)
			break;
		if (kid + 1 < s->n_heap && s->heap[kid + 1].key < s->heap[kid].key)
			kid++;
		if (last.key <= s->heap[kid].key)
			break;
		s->heap[i] = s->heap[kid];
		i = kid;
	}
	s->heap[i] = last;
	return top;
}

static void consider(const struct nx_bpe *b, struct nx_bpe_scratch *s, int32_t left)
{
	if (left < 0 || s->syms[left].next < 0)
		return;
	const int32_t l = s->syms[left].id, r = s->syms[s->syms[left].next].id;
	const struct nx_bpe_slot *slot = find(b, pair_of(l, r));
	if (slot->pair == EMPTY)
		return;
	push(s,
	     (struct nx_bpe_cand){(uint64_t)slot->rank << 32 | (uint32_t)left, l, r, slot->merged});
}

int nx_bpe_merge(const struct nx_bpe *b, struct nx_bpe_scratch *s, int32_t *ids, size_t *n,
                 struct nx_err *err)
{
	const size_t len = *n;
	if (len < 2)
		return 0;
	if (len > (size_t)1 << 30)
		return nx_fail(err, NX_EINVAL,
		               "a piece of %zu bytes is too long; legal: at most 2^30", len);
	int rc = reserve(s, len, err);
	if (rc)
		return rc;
	struct nx_bpe_sym *y = s->syms;
	for (size_t i = 0; i < len; i++)
		y[i] = (struct nx_bpe_sym){ids[i], (int32_t)i - 1,
		                           i + 1 < len ? (int32_t)i + 1 : -1};
	s->n_heap = 0;
	for (size_t i = 0; i + 1 < len; i++)
		consider(b, s, (int32_t)i);
	while (s->n_heap) {
		const struct nx_bpe_cand c = pop(s);
		const int32_t i = (int32_t)(uint32_t)c.key, j = y[i].next;
		if (j < 0 || y[i].id != c.left || y[j].id != c.right)
			continue; /* one of the two has been merged since */
		y[i].id = c.merged;
		y[i].next = y[j].next;
		y[j].id = -1;
		if (y[i].next >= 0)
			y[y[i].next].prev = i;
		consider(b, s, y[i].prev);
		consider(b, s, i);
	}
	size_t m = 0;
	for (int32_t i = 0; i >= 0; i = y[i].next)
		ids[m++] = y[i].id;
	*n = m;
	return 0;
}
