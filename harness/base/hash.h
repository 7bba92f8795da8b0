/* SPDX-License-Identifier: Apache-2.0
 *
 * base/hash.h: a 64-bit hash for identifiers (cell ids), the same on every machine and in every release.
 *
 * FNV-1a with a finaliser: FNV alone mixes its high bits poorly for short inputs. Not for hostile input.
 */
#ifndef NEXUS_BASE_HASH_H
#define NEXUS_BASE_HASH_H

#include <stddef.h>
#include <stdint.h>
#include <string.h>

struct nx_hash {
	uint64_t h;
};

static inline void nx_hash_init(struct nx_hash *s)
{
	s->h = 0xcbf29ce484222325u;
}

static inline void nx_hash_bytes(struct nx_hash *s, const void *data, size_t n)
{
	const unsigned char *p = data;
	for (size_t i = 0; i < n; i++)
		s->h = (s->h ^ p[i]) * 0x100000001b3u;
}

/* With the terminator, so that "ab" "c" and "a" "bc" differ. */
static inline void nx_hash_str(struct nx_hash *s, const char *text)
{
	nx_hash_bytes(s, text, strlen(text) + 1);
}

/* Byte by byte, so that the order of bytes of the machine does not show. */
static inline void nx_hash_u64(struct nx_hash *s, uint64_t v)
{
	unsigned char b[8];
	for (int i = 0; i < 8; i++)
		b[i] = (unsigned char)(v >> (8 * i));
	nx_hash_bytes(s, b, sizeof(b));
}

static inline uint64_t nx_hash_value(const struct nx_hash *s)
{
	uint64_t x = s->h;
	x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9u;
	x = (x ^ (x >> 27)) * 0x94d049bb133111ebu;
	return x ^ (x >> 31);
}

#endif
