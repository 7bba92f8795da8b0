/* SPDX-License-Identifier: Apache-2.0
 *
 * model/strmap.h: a hash map from byte strings to u32, for names and token texts.
 *
 * Keys are borrowed: they must outlive the map. Open addressing with linear probing, at most half
 * full. Sized once by init; put fails with NX_ENOSPC beyond that. Lookups are thread-safe.
 */
#ifndef NEXUS_MODEL_STRMAP_H
#define NEXUS_MODEL_STRMAP_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "nexus/err.h"

struct nx_strmap_slot {
	const char *key; /* NULL: empty */
	uint32_t len;
	uint32_t value;
};

struct nx_strmap {
	struct nx_strmap_slot *slots;
	size_t mask; /* slots - 1 */
	size_t n, max;
};

int nx_strmap_init(struct nx_strmap *m, size_t max_keys, struct nx_err *err);
void nx_strmap_release(struct nx_strmap *m);

/* Adds a key, or leaves the map as it is when the key is there; *old (may be NULL) is then its
 * value. Long keys need lengths below 2^32.
 * Returns 1 if added, 0 if it was there, negative on failure. */
int nx_strmap_put(struct nx_strmap *m, const char *key, size_t len, uint32_t value, uint32_t *old);

bool nx_strmap_get(const struct nx_strmap *m, const char *key, size_t len, uint32_t *value);

/* 64-bit mix used by the hash maps of this folder. */
static inline uint64_t nx_mix64(uint64_t x)
{
	x ^= x >> 32;
	x *= 0xd6e8feb86659fd93u;
	x ^= x >> 32;
	x *= 0xd6e8feb86659fd93u;
	x ^= x >> 32;
	return x;
}

#endif
