/* SPDX-License-Identifier: Apache-2.0 */
#include "base/arena.h"

#include <stdarg.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#define BLOCK_BYTES ((size_t)16384)
#define ALIGN ((size_t)16)

struct nx_arena_block {
	struct nx_arena_block *next;
	size_t used, size;
	/* 8 bytes more than the fields, so that data stays aligned to 16 */
	size_t unused;
	unsigned char data[];
};

_Static_assert(offsetof(struct nx_arena_block, data) % ALIGN == 0, "data must be aligned");

void nx_arena_release(struct nx_arena *a)
{
	while (a->head) {
		struct nx_arena_block *next = a->head->next;
		free(a->head);
		a->head = next;
	}
}

void *nx_arena_alloc(struct nx_arena *a, size_t bytes)
{
	if (bytes > SIZE_MAX / 2)
		return NULL;
	bytes = (bytes + ALIGN - 1) / ALIGN * ALIGN;
	if (bytes == 0)
		bytes = ALIGN; /* distinct and never NULL, so that callers need not treat n = 0 apart */
	struct nx_arena_block *b = a->head;
	if (!b || b->size - b->used < bytes) {
		size_t size = bytes > BLOCK_BYTES ? bytes : BLOCK_BYTES;
		b = calloc(1, sizeof(*b) + size);
		if (!b)
			return NULL;
		b->size = size;
		b->next = a->head;
		a->head = b;
	}
	void *p = b->data + b->used;
	b->used += bytes;
	return p;
}

void *nx_arena_array(struct nx_arena *a, size_t n, size_t size)
{
	return size && n > SIZE_MAX / size ? NULL : nx_arena_alloc(a, n * size);
}

char *nx_arena_strndup(struct nx_arena *a, const char *s, size_t n)
{
	char *p = n < SIZE_MAX ? nx_arena_alloc(a, n + 1) : NULL;
	if (p && n)
		memcpy(p, s, n);
	return p;
}

char *nx_arena_strdup(struct nx_arena *a, const char *s)
{
	return nx_arena_strndup(a, s, strlen(s));
}

char *nx_arena_printf(struct nx_arena *a, const char *fmt, ...)
{
	va_list ap, again;
	va_start(ap, fmt);
	va_copy(again, ap);
	int n = vsnprintf(NULL, 0, fmt, ap);
	va_end(ap);
	char *p = n < 0 ? NULL : nx_arena_alloc(a, (size_t)n + 1);
	if (p)
		vsnprintf(p, (size_t)n + 1, fmt, again);
	va_end(again);
	return p;
}
