/* SPDX-License-Identifier: Apache-2.0
 *
 * nexus_kernels/rng.h: the one random number generator of Nexus, shared by host, CPU and CUDA code.
 *
 * Philox4x32-10 (Salmon et al., SC 2011) is a function of (key, counter) with no state, so a draw depends
 * on what it is for and never on what was drawn before: the key is the seed, the counter is
 * (request, sample, position, purpose), with the sibling's number in the purpose's upper bits.
 */
#ifndef NEXUS_KERNELS_RNG_H
#define NEXUS_KERNELS_RNG_H

#include <stdint.h>

#if defined(__CUDACC__)
#define NX_RNG_FN static __host__ __device__ inline
#else
#define NX_RNG_FN static inline
#endif

enum nx_rng_purpose {
	NX_RNG_SAMPLE = 0, /* the sampler's draw of the token at this position */
	NX_RNG_ACCEPT =
		1, /* is a drafted token accepted? with the child's number among its siblings */
	NX_RNG_RESIDUAL = 2, /* draw from what is left after drafted tokens were rejected */
	NX_RNG_DRAFT = 3,    /* a drafter's own draws, with the sibling's number */
};
#define NX_RNG_SIBLING(purpose, sibling) ((uint32_t)(purpose) | (uint32_t)(sibling) << 8)

struct nx_rng_block {
	uint32_t x[4];
};

NX_RNG_FN struct nx_rng_block nx_philox(uint64_t seed, uint32_t c0, uint32_t c1, uint32_t c2,
                                        uint32_t c3)
{
	uint32_t k0 = (uint32_t)seed, k1 = (uint32_t)(seed >> 32);
	struct nx_rng_block b;
	for (int round = 0; round < 10; round++) {
		uint64_t p0 = (uint64_t)0xD2511F53u * c0, p1 = (uint64_t)0xCD9E8D57u * c2;
		uint32_t n0 = (uint32_t)(p1 >> 32) ^ c1 ^ k0, n2 = (uint32_t)(p0 >> 32) ^ c3 ^ k1;
		c1 = (uint32_t)p1;
		c3 = (uint32_t)p0;
		c0 = n0;
		c2 = n2;
		k0 += 0x9E3779B9u;
		k1 += 0xBB67AE85u;
	}
	b.x[0] = c0;
	b.x[1] = c1;
	b.x[2] = c2;
	b.x[3] = c3;
	return b;
}

/* Uniform in [0, 1), 53 bits. */
NX_RNG_FN double nx_rng_uniform(uint64_t seed, uint32_t request, uint32_t sample, uint32_t position,
                                uint32_t purpose)
{
	struct nx_rng_block b = nx_philox(seed, request, sample, position, purpose);
	return ((double)(b.x[0] >> 5) * 67108864.0 + (double)(b.x[1] >> 6)) *
	       (1.0 / 9007199254740992.0);
}

/*
 * Element `col` of a random matrix's row with that key: uniform in [-1, 1) times 2^31 times `scale`. Two rounds of
 * multiply and shift (Wellons' low-bias 32-bit hash) over the column, keyed twice: a row's key enters before and
 * between the rounds, so that rows with near keys are no shifted copies of one another. Plain 32-bit operations
 * on independent columns: compilers make vectors of it, and every device gets the same bits.
 */
NX_RNG_FN float nx_random_element(uint64_t key, uint32_t col, float scale)
{
	uint32_t x = col * 0x9e3779b9u + (uint32_t)key;
	x ^= x >> 16;
	x *= 0x7feb352du;
	x ^= (uint32_t)(key >> 32);
	x ^= x >> 15;
	x *= 0x846ca68bu;
	x ^= x >> 16;
	return (float)(int32_t)x * scale;
}

#endif
