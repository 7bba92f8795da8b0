/* SPDX-License-Identifier: Apache-2.0
 *
 * model/dequant.h: encoded weights to f32, bit-exact to ggml's formats, and the 16-bit floats.
 *
 * Values are computed in f32 in ggml's order, so they equal ggml's dequantize_row_* exactly.
 * Threads: pure functions.
 */
#ifndef NEXUS_MODEL_DEQUANT_H
#define NEXUS_MODEL_DEQUANT_H

#include <stdint.h>
#include <string.h>

#include "model/tensor.h"
#include "nexus/err.h"

/* Decodes n elements (a multiple of the type's block) from src, which may be unaligned, to dst. */
void nx_dequant_row(enum nx_gguf_type type, const void *src, float *dst, int64_t n);

/* Encodes n elements; supports F32, F16, BF16 and Q8_0 (for tests and converters; Q8_0 rounds as
 * ggml's reference). Returns NX_ENOTSUP for another type. */
int nx_quant_row(enum nx_gguf_type type, const float *src, void *dst, int64_t n,
                 struct nx_err *err);

/* bf16: to f32 is exact; from f32 rounds to nearest even, and a NaN stays a (quiet) NaN. */
static inline float nx_dq_from_bf16(uint16_t h)
{
	uint32_t u = (uint32_t)h << 16;
	float f;
	memcpy(&f, &u, sizeof(f));
	return f;
}

static inline uint16_t nx_dq_to_bf16(float f)
{
	uint32_t u;
	memcpy(&u, &f, sizeof(u));
	if ((u & 0x7fffffffu) > 0x7f800000u)
		return (uint16_t)((u >> 16) | 0x40u);
	return (uint16_t)((u + 0x7fffu + ((u >> 16) & 1u)) >> 16);
}

/* IEEE binary16, subnormals, infinities and NaN included; from f32 rounds to nearest even. */
float nx_dq_from_f16(uint16_t h);
uint16_t nx_dq_to_f16(float f);

#endif
