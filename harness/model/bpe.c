/* SPDX-License-Identifier: Apache-2.0
 *
 * See bpe.h.
 */
#include "model/bpe.h"

#include <stdlib.h>
#include <string.h>

#include "model/strmap.h"

#define EMPTY UINT64_MAX /* no pair: ids are below 2^31 */

#define NO_RANK UINT32_MAX
#define KIDS 4 /* of a node of the heap: half as deep as two, and in one cache line */

struct nx_bpe_sym {
	int32_t id;
	int32_t prev, next;
	uint32_t rank;  /* of the merge with the next symbol; NO_RANK if there is none */
	int32_t merged; /* what that merge makes */
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

/* The heap holds rank << 32 | position of the left symbol. An entry has gone stale when the symbol there
 * has another rank by now; the one with its present rank is then in the heap too. */
static void push(struct nx_bpe_scratch *s, uint64_t key)
{
	size_t i = s->n_heap++;
	while (i > 0) {
		size_t up = (i - 1) / KIDS;
		if (s->heap[up] <= key)
			break;
		s->heap[i] = s->heap[up];
		i = up;
	}
	s->heap[i] = key;
}

static uint64_t pop(struct nx_bpe_scratch *s)
{
	const uint64_t top = s->heap[0], last = s->heap[--s->n_heap];
	size_t i = 0;
	for (;;) {
		const size_t first = KIDS * i + 1;
		size_t least = first;
		if (first >= s->n_heap)
			break;
		for (size_t k = first + 1; k < first + KIDS && k < s->n_heap; k++)
			if (s->heap[k] < s->heap[least])
				least = k;
		if (last <= s->heap[least])
			break;
		s->heap[i] = s->heap[least];
		i = least;
	}
	s->heap[i] = last;
	return top;
}

static void consider(const struct nx_bpe *b, struct nx_bpe_scratch *s, int32_t left)
{
	if (left < 0)
		return;
	struct nx_bpe_sym *y = &s->syms[left];
	y->rank = NO_RANK;
	if (y->next < 0)
		return;
	const struct nx_bpe_slot *slot = find(b, pair_of(y->id, s->syms[y->next].id));
	if (slot->pair == EMPTY)
		return;
	y->rank = slot->rank;
	y->merged = slot->merged;
	push(s, (uint64_t)slot->rank << 32 | (uint32_t)left);
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
		y[i] = (struct nx_bpe_sym){.id = ids[i],
		                           .prev = (int32_t)i - 1,
		                           .next = i + 1 < len ? (int32_t)i + 1 : -1,
		                           .rank = NO_RANK};
	s->n_heap = 0;
	for (size_t i = 0; i + 1 < len; i++)
		consider(b, s, (int32_t)i);
	while (s->n_heap) {
		const uint64_t c = pop(s);
		const int32_t i = (int32_t)(uint32_t)c, j = y[i].next;
		if (y[i].rank != (uint32_t)(c >> 32))
			continue;
		y[i].id = y[i].merged;
		y[i].next = y[j].next;
		y[j].rank = NO_RANK;
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
