/* SPDX-License-Identifier: Apache-2.0
 *
 * model/rope.h: the frequencies of rotary embeddings (Su et al., 2104.09864) and their scalings.
 *
 * Pair i of a head turns by position * f_i, f_i = theta^(-2i / rope_dim) before scaling.
 *   LINEAR  f_i / factor (Chen et al., 2306.15595)
 *   LLAMA3  Llama 3.1's: a pair whose wavelength 2 pi / f_i is below trained / high keeps f_i, above
 *           trained / low it gets f_i / factor, between them the two are mixed linearly in trained / wavelength
 */
#ifndef NEXUS_MODEL_ROPE_H
#define NEXUS_MODEL_ROPE_H

#include <stdint.h>

/* X(ID, name in config.json) */
#define NX_ROPE_KINDS(X)                                                                           \
	X(DEFAULT, "default")                                                                      \
	X(LINEAR, "linear")                                                                        \
	X(LLAMA3, "llama3")

enum nx_rope_kind {
#define X(id, name) NX_ROPE_##id,
	NX_ROPE_KINDS(X)
#undef X
		NX_ROPE_KIND_COUNT
};

struct nx_rope {
	enum nx_rope_kind kind;
	double factor, low, high; /* low, high: LLAMA3 alone */
	double trained;           /* context before the extension [tokens]; LLAMA3 alone */
};

/* Fills out [rope_dim / 2]. factors [rope_dim / 2] divide the frequencies (rope_freqs.weight); NULL = none. */
void nx_rope_freqs(const struct nx_rope *r, float theta, int32_t rope_dim, const float *factors,
                   float *out);

#endif
