/* SPDX-License-Identifier: Apache-2.0
 *
 * base/arena.h: memory that is released as a whole, for parsed files and what is built from them.
 *
 * Allocations are zeroed, aligned to 16 bytes and live until nx_arena_release. NULL means out of memory.
 * A zeroed struct is an empty arena. Threads: one at a time.
 */
#ifndef NEXUS_BASE_ARENA_H
#define NEXUS_BASE_ARENA_H

#include <stddef.h>

#include "nexus/err.h"

struct nx_arena_block;

struct nx_arena {
	struct nx_arena_block *head;
};

void nx_arena_release(struct nx_arena *a);

void *nx_arena_alloc(struct nx_arena *a, size_t bytes);
/* NULL also when n * size overflows. */
void *nx_arena_array(struct nx_arena *a, size_t n, size_t size);
char *nx_arena_strndup(struct nx_arena *a, const char *s, size_t n);
char *nx_arena_strdup(struct nx_arena *a, const char *s);
NX_PRINTF(2, 3)
char *nx_arena_printf(struct nx_arena *a, const char *fmt, ...);

#endif
