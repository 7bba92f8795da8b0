/* SPDX-License-Identifier: Apache-2.0
 *
 * base/rng.h: small seeded random numbers for choices that must be repeatable (orders, lengths).
 *
 * splitmix64. nx_rng_key() makes independent streams from a seed and up to two numbers, so that a draw
 * can be a pure function of (seed, round, index) and does not depend on what was drawn before it.
 */
#ifndef NEXUS_BASE_RNG_H
#define NEXUS_BASE_RNG_H

#include <math.h>
#include <stddef.h>
#include <stdint.h>

struct nx_rng {
	uint64_t state;
};

static inline uint64_t nx_rng_next(struct nx_rng *r)
{
	uint64_t z = r->state += 0x9e3779b97f4a7c15u;
	z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
	z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
	return z ^ (z >> 31);
}

static inline uint64_t nx_rng_key(uint64_t seed, uint64_t a, uint64_t b)
{
	struct nx_rng r = {seed};
	r.state = nx_rng_next(&r) ^ a;
	r.state = nx_rng_next(&r) ^ b;
	return nx_rng_next(&r);
}

/* [0, 1), 53 bits */
static inline double nx_rng_unit(struct nx_rng *r)
{
	return (double)(nx_rng_next(r) >> 11) * 0x1.0p-53;
}

/* [0, n), without bias; n >= 1 */
static inline uint64_t nx_rng_below(struct nx_rng *r, uint64_t n)
{
	uint64_t skip = (0 - n) % n; /* 2^64 mod n: values below it would come up once too often */
	uint64_t x;
	do
		x = nx_rng_next(r);
	while (x < skip);
	return x % n;
}

/* Standard normal (Box-Muller) */
static inline double nx_rng_normal(struct nx_rng *r)
{
	double u = 1.0 - nx_rng_unit(r), v = nx_rng_unit(r); /* u in (0, 1] */
	return sqrt(-2 * log(u)) * cos(6.28318530717958647692 * v);
}

/* Fisher-Yates */
static inline void nx_rng_shuffle(struct nx_rng *r, uint32_t *a, size_t n)
{
	for (size_t i = n; i > 1; i--) {
		size_t j = (size_t)nx_rng_below(r, i);
		uint32_t t = a[i - 1];
		a[i - 1] = a[j];
		a[j] = t;
	}
}

#endif
