/* SPDX-License-Identifier: Apache-2.0
 *
 * nexus_kernels/quant.h: small numbers: how codes of 2, 4 and 8 bits stand for floats, said once for host, CPU and
 * CUDA code, for KV rows (kv_codec.h) and for weights (weight_format.h).
 *
 * Affine codes. A group of values shares a scale and a zero, both fp16: x ~ zero + scale * q, 0 <= q < 2^bits.
 * The zero is the smallest value rounded down, the scale (largest - zero) / (2^bits - 1) rounded up, so every
 * value of the group lies in the range of the codes and |x - decoded| <= scale / 2. A group of equal values that
 * fp16 has exactly comes back exactly. Values beyond fp16's range count as its ends; a NaN makes its group NaN.
 *
 * Packed codes. Words of 32 bits, little endian. 8 bits: in order. 4 bits: of the 8 elements of a word, element e is
 * in bits 4 * (e / 2 + 4 * (e % 2)); 2 bits: of 16, in bits 2 * (e / 2 + 8 * (e % 2)). So the masks 0x000f000f and
 * 0x00030003 give neighbours (2j, 2j + 1), in the halves of a word, where conversions to pairs want them.
 *
 * FP8 (Micikevicius et al. 2209.05433): e4m3 has no infinity and ends at 448, e5m2 ends at 57344 here, too: codes
 * saturate. A group shares a scale in f32: x ~ scale * value(code), scale = largest magnitude / 448 (57344).
 */
#ifndef NEXUS_KERNELS_QUANT_H
#define NEXUS_KERNELS_QUANT_H

#include <math.h>
#include <stdbool.h>
#include <stdint.h>
#include <string.h>

#if defined(__CUDACC__)
#define NX_QUANT_FN static __host__ __device__ inline
#else
#define NX_QUANT_FN static inline
#endif

#define NX_HALF_MAX 65504.0f
#define NX_E4M3_MAX 448.0f
#define NX_E5M2_MAX 57344.0f

NX_QUANT_FN uint32_t nx_float_bits(float f)
{
	uint32_t u;
	memcpy(&u, &f, sizeof(u));
	return u;
}

NX_QUANT_FN float nx_float_of(uint32_t u)
{
	float f;
	memcpy(&f, &u, sizeof(f));
	return f;
}

/* ---- floats of few bits: 1 sign, E exponent, M mantissa --------------------------------------- */

/* The value of a finite code; subnormals included. bias = 2^(E - 1) - 1. */
NX_QUANT_FN float nx_small_value(uint32_t code, int e_bits, int m_bits)
{
	int32_t bias = (1 << (e_bits - 1)) - 1;
	uint32_t m = code & ((1u << m_bits) - 1), e = code >> m_bits & ((1u << e_bits) - 1);
	float f = e ? nx_float_of((uint32_t)((int32_t)e - bias + 127) << 23 | m << (23 - m_bits))
	            : (float)m * nx_float_of((uint32_t)(127 + 1 - bias - m_bits) << 23);
	return code >> (e_bits + m_bits) & 1 ? -f : f;
}

/* The nearest code of a magnitude, ties to even; beyond `most` (the largest that is meant) its code. */
NX_QUANT_FN uint32_t nx_small_code(float x, int e_bits, int m_bits, float most)
{
	int32_t bias = (1 << (e_bits - 1)) - 1;
	uint32_t sign = nx_float_bits(x) >> 31 << (e_bits + m_bits);
	float a = fabsf(x);
	if (a > most)
		a = most;
	/* The step between neighbours at a: dividing by it is exact, and rintf() rounds to even. */
	int32_t e = (int32_t)(nx_float_bits(a) >> 23) - 127;
	e = e < 1 - bias ? 1 - bias : e;
	float step = nx_float_of((uint32_t)(127 + e - m_bits) << 23);
	uint32_t q = (uint32_t)rintf(a / step);
	/* q in [2^M, 2^(M + 1)] for normal numbers, below for subnormal ones: carries run into the exponent. */
	return sign | (((uint32_t)(e - (1 - bias)) << m_bits) + q);
}

NX_QUANT_FN float nx_half_value(uint16_t h)
{
	if ((h & 0x7c00u) == 0x7c00u) /* infinity and NaN */
		return nx_float_of((uint32_t)(h & 0x8000u) << 16 | 0x7f800000u |
		                   (uint32_t)(h & 0x3ffu) << 13);
	return nx_small_value(h, 5, 10);
}

/* Nearest; saturates. NaN stays NaN. */
NX_QUANT_FN uint16_t nx_half_code(float x)
{
	return x != x ? 0x7e00u : (uint16_t)nx_small_code(x, 5, 10, NX_HALF_MAX);
}

/* The next half above, or below; of finite halves. */
NX_QUANT_FN uint16_t nx_half_next(uint16_t h, bool up)
{
	if (!(h & 0x7fffu)) /* from either zero */
		return up ? 0x0001u : 0x8001u;
	return (uint16_t)((h >> 15) == up ? h - 1 : h + 1);
}

NX_QUANT_FN uint16_t nx_half_floor(float x)
{
	uint16_t h = nx_half_code(x);
	return nx_half_value(h) > x && h != 0xfbffu ? nx_half_next(h, false) : h;
}

NX_QUANT_FN uint16_t nx_half_ceil(float x)
{
	uint16_t h = nx_half_code(x);
	return nx_half_value(h) < x && h != 0x7bffu ? nx_half_next(h, true) : h;
}

NX_QUANT_FN float nx_e4m3_value(uint8_t c)
{
	return (c & 0x7fu) == 0x7fu ? nx_float_of(0x7fc00000u) : nx_small_value(c, 4, 3);
}

NX_QUANT_FN uint8_t nx_e4m3_code(float x)
{
	return x != x ? 0x7fu : (uint8_t)nx_small_code(x, 4, 3, NX_E4M3_MAX);
}

NX_QUANT_FN float nx_e5m2_value(uint8_t c)
{
	return (c & 0x7cu) == 0x7cu ? nx_half_value((uint16_t)(c << 8)) : nx_small_value(c, 5, 2);
}

NX_QUANT_FN uint8_t nx_e5m2_code(float x)
{
	return x != x ? 0x7fu : (uint8_t)nx_small_code(x, 5, 2, NX_E5M2_MAX);
}

/* ---- affine groups ---------------------------------------------------------------------------- */

/* What a group has beside its codes, as it lies in memory: 4 bytes. */
struct nx_affine {
	uint16_t scale, zero; /* fp16 */
};

NX_QUANT_FN struct nx_affine nx_affine_of(float lo, float hi, int bits)
{
	struct nx_affine a = {0x7e00u, 0x7e00u};
	if (!(lo <= hi)) /* NaN */
		return a;
	lo = lo < -NX_HALF_MAX ? -NX_HALF_MAX : lo > NX_HALF_MAX ? NX_HALF_MAX : lo;
	hi = hi < -NX_HALF_MAX ? -NX_HALF_MAX : hi > NX_HALF_MAX ? NX_HALF_MAX : hi;
	a.zero = nx_half_floor(lo);
	a.scale = nx_half_ceil((hi - nx_half_value(a.zero)) / (float)((1 << bits) - 1));
	return a;
}

NX_QUANT_FN uint32_t nx_affine_code(float x, float scale, float zero, int bits)
{
	float most = (float)((1 << bits) - 1);
	float q = scale > 0 ? rintf((x - zero) / scale) : 0;
	return (uint32_t)(q < 0 ? 0 : q > most ? most : q);
}

NX_QUANT_FN float nx_affine_value(uint32_t q, float scale, float zero)
{
	return fmaf(scale, (float)q, zero);
}

/* ---- packed codes ----------------------------------------------------------------------------- */

/* First bit of element i of a run, counted from the run's first word, which it is `*word` words from. */
NX_QUANT_FN int nx_code_shift(int64_t i, int bits, int64_t *word)
{
	int per = 32 / bits, e = (int)(i % per);
	*word = i / per;
	return bits == 8 ? 8 * e : bits * (e / 2 + per / 2 * (e % 2));
}

NX_QUANT_FN uint32_t nx_code_get(const uint8_t *run, int64_t i, int bits)
{
	int64_t word;
	int shift = nx_code_shift(i, bits, &word);
	return (uint32_t)run[4 * word + shift / 8] >> shift % 8 & ((1u << bits) - 1);
}

NX_QUANT_FN void nx_code_put(uint8_t *run, int64_t i, int bits, uint32_t q)
{
	int64_t word;
	int shift = nx_code_shift(i, bits, &word);
	uint8_t *p = run + 4 * word + shift / 8;
	*p = (uint8_t)((*p & ~(((1u << bits) - 1) << shift % 8)) | q << shift % 8);
}

#endif
