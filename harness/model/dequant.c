/* SPDX-License-Identifier: Apache-2.0
 *
 * See dequant.h. Block layouts are ggml's (little-endian, packed):
 *   Q4_0  f16 d, 16 bytes: element i in the low nibble of byte i, i + 16 in the high; d * (q - 8)
 *   Q4_1  f16 d, f16 m, 16 bytes as Q4_0; d * q + m
 *   Q5_0  f16 d, u32 fifth bits (bit i of element i), 16 bytes as Q4_0; d * (q - 16)
 *   Q5_1  f16 d, f16 m, u32 fifth bits, 16 bytes as Q4_0; d * q + m
 *   Q8_0  f16 d, 32 x i8; d * q
 *   Q4_K  f16 d, f16 dmin, 12 bytes of 8 six-bit scales and minima, 128 bytes: 64 elements in 32 bytes, the first
 *         32 in the low nibbles; d * scale * q - dmin * min
 *   Q5_K  f16 d, f16 dmin, 12 bytes as Q4_K, 32 bytes of fifth bits (bit j: group j of 32), 128 bytes as Q4_K
 *   Q6_K  128 bytes low nibbles, 64 bytes high pairs, 16 x i8 scales, f16 d; d * scale * (q - 32)
 */
#include "model/dequant.h"

#include <math.h>

float nx_dq_from_f16(uint16_t h)
{
	uint32_t sign = (uint32_t)(h & 0x8000u) << 16;
	uint32_t exp = (h >> 10) & 0x1fu, man = h & 0x3ffu;
	uint32_t u;
	float f;
	if (exp == 0) {
		f = (float)man * 0x1p-24f; /* exact: 10 bits */
		return sign ? -f : f;
	}
	if (exp == 31)
		u = sign | 0x7f800000u | (man << 13);
	else
		u = sign | ((exp + 112) << 23) | (man << 13);
	memcpy(&f, &u, sizeof(f));
	return f;
}

uint16_t nx_dq_to_f16(float f)
{
	uint32_t u;
	memcpy(&u, &f, sizeof(u));
	uint16_t sign = (uint16_t)((u >> 16) & 0x8000u);
	u &= 0x7fffffffu;
	if (u > 0x7f800000u)
		return (uint16_t)(sign | 0x7e00u);
	if (u >= 0x477ff000u) /* 65520 and above round to infinity */
		return (uint16_t)(sign | 0x7c00u);
	if (u < 0x38800000u) { /* below 2^-14: a subnormal, in units of 2^-24 */
		float a = fabsf(f) * 0x1p24f;
		return (uint16_t)(sign |
		                  (uint16_t)nearbyintf(a)); /* ties to even, the default mode */
	}
	u += 0xfffu + ((u >> 13) & 1u);
	return (uint16_t)(sign | ((u - (112u << 23)) >> 13));
}

static float load_f16(const uint8_t *p)
{
	uint16_t h;
	memcpy(&h, p, sizeof(h));
	return nx_dq_from_f16(h);
}

static void dequant_f32(const uint8_t *src, float *dst, int64_t n)
{
	memcpy(dst, src, (size_t)n * sizeof(float));
}

static void dequant_f16(const uint8_t *src, float *dst, int64_t n)
{
	for (int64_t i = 0; i < n; i++)
		dst[i] = load_f16(src + 2 * i);
}

static void dequant_bf16(const uint8_t *src, float *dst, int64_t n)
{
	for (int64_t i = 0; i < n; i++) {
		uint16_t h;
		memcpy(&h, src + 2 * i, sizeof(h));
		dst[i] = nx_dq_from_bf16(h);
	}
}

static void dequant_q4_0(const uint8_t *src, float *dst, int64_t n)
{
	for (; n > 0; n -= 32, src += 18, dst += 32) {
		const float d = load_f16(src);
		for (int i = 0; i < 16; i++) {
			uint8_t q = src[2 + i];
			dst[i] = (float)((q & 15) - 8) * d;
			dst[i + 16] = (float)((q >> 4) - 8) * d;
		}
	}
}

static void dequant_q4_1(const uint8_t *src, float *dst, int64_t n)
{
	for (; n > 0; n -= 32, src += 20, dst += 32) {
		const float d = load_f16(src), m = load_f16(src + 2);
		for (int i = 0; i < 16; i++) {
			/* q * d is exact (4 + 11 bits), so a contracted fma gives the same bits. */
			dst[i] = (float)(src[4 + i] & 15) * d + m;
			dst[i + 16] = (float)(src[4 + i] >> 4) * d + m;
		}
	}
}

static uint32_t load_u32(const uint8_t *p)
{
	uint32_t u;
	memcpy(&u, p, sizeof(u));
	return u;
}

static void dequant_q5_0(const uint8_t *src, float *dst, int64_t n)
{
	for (; n > 0; n -= 32, src += 22, dst += 32) {
		const float d = load_f16(src);
		const uint32_t high = load_u32(src + 2);
		for (int i = 0; i < 16; i++) {
			const int q0 = (src[6 + i] & 15) | (int)(high >> i << 4 & 16);
			const int q1 = (src[6 + i] >> 4) | (int)(high >> (i + 16) << 4 & 16);
			dst[i] = (float)(q0 - 16) * d;
			dst[i + 16] = (float)(q1 - 16) * d;
		}
	}
}

static void dequant_q5_1(const uint8_t *src, float *dst, int64_t n)
{
	for (; n > 0; n -= 32, src += 24, dst += 32) {
		const float d = load_f16(src), m = load_f16(src + 2);
		const uint32_t high = load_u32(src + 4);
		for (int i = 0; i < 16; i++) {
			const int q0 = (src[8 + i] & 15) | (int)(high >> i << 4 & 16);
			const int q1 = (src[8 + i] >> 4) | (int)(high >> (i + 16) << 4 & 16);
			dst[i] = (float)q0 * d + m; /* exact products, as in Q4_1 */
			dst[i + 16] = (float)q1 * d + m;
		}
	}
}

static void dequant_q8_0(const uint8_t *src, float *dst, int64_t n)
{
	for (; n > 0; n -= 32, src += 34, dst += 32) {
		const float d = load_f16(src);
		for (int i = 0; i < 32; i++)
			dst[i] = (float)(int8_t)src[2 + i] * d;
	}
}

/* Scale and minimum of group j of a Q4_K or Q5_K block: six bits each, those of groups 4 to 7 in two parts. */
static void scale_min(const uint8_t *p, int j, float *scale, float *min)
{
	if (j < 4) {
		*scale = (float)(p[j] & 63);
		*min = (float)(p[j + 4] & 63);
	} else {
		*scale = (float)((p[j + 4] & 15) | (p[j - 4] >> 6 << 4));
		*min = (float)((p[j + 4] >> 4) | (p[j] >> 6 << 4));
	}
}

/* Q4_K, and with high (32 bytes of fifth bits) Q5_K. */
static void dequant_k(const uint8_t *head, const uint8_t *low, const uint8_t *high, float *dst)
{
	const float d = load_f16(head), dmin = load_f16(head + 2);
	for (int j = 0; j < 8; j++, dst += 32) {
		float scale, min;
		scale_min(head + 4, j, &scale, &min);
		const float ds = d * scale, dm = dmin * min;
		const uint8_t *q = low + 32 * (j / 2);
		for (int i = 0; i < 32; i++) {
			const int nibble = j % 2 ? q[i] >> 4 : q[i] & 15;
			const int fifth = high ? (high[i] >> j & 1) << 4 : 0;
			/* ds is exact (11 + 6 bits), and so is its product with 5 bits more: only the
			 * difference is rounded, contracted or not. */
			dst[i] = ds * (float)(nibble + fifth) - dm;
		}
	}
}

static void dequant_q4_k(const uint8_t *src, float *dst, int64_t n)
{
	for (; n > 0; n -= 256, src += 144, dst += 256)
		dequant_k(src, src + 16, NULL, dst);
}

static void dequant_q5_k(const uint8_t *src, float *dst, int64_t n)
{
	for (; n > 0; n -= 256, src += 176, dst += 256)
		dequant_k(src, src + 48, src + 16, dst);
}

static void dequant_q6_k(const uint8_t *src, float *dst, int64_t n)
{
	for (; n > 0; n -= 256, src += 210, dst += 256) {
		const float d = load_f16(src + 208);
		for (int half = 0; half < 2; half++) {
			const uint8_t *ql = src + 64 * half, *qh = src + 128 + 32 * half;
			const int8_t *sc = (const int8_t *)src + 192 + 8 * half;
			float *y = dst + 128 * half;
			for (int l = 0; l < 32; l++) {
				const int is = l / 16;
				const int q0 = (ql[l] & 15) | ((qh[l] >> 0 & 3) << 4);
				const int q1 = (ql[l + 32] & 15) | ((qh[l] >> 2 & 3) << 4);
				const int q2 = (ql[l] >> 4) | ((qh[l] >> 4 & 3) << 4);
				const int q3 = (ql[l + 32] >> 4) | ((qh[l] >> 6 & 3) << 4);
				y[l] = d * (float)sc[is] * (float)(q0 - 32);
				y[l + 32] = d * (float)sc[is + 2] * (float)(q1 - 32);
				y[l + 64] = d * (float)sc[is + 4] * (float)(q2 - 32);
				y[l + 96] = d * (float)sc[is + 6] * (float)(q3 - 32);
			}
		}
	}
}

void nx_dequant_row(enum nx_gguf_type type, const void *src, float *dst, int64_t n)
{
	switch (type) {
	case NX_GGUF_F32: dequant_f32(src, dst, n); return;
	case NX_GGUF_F16: dequant_f16(src, dst, n); return;
	case NX_GGUF_BF16: dequant_bf16(src, dst, n); return;
	case NX_GGUF_Q4_0: dequant_q4_0(src, dst, n); return;
	case NX_GGUF_Q4_1: dequant_q4_1(src, dst, n); return;
	case NX_GGUF_Q5_0: dequant_q5_0(src, dst, n); return;
	case NX_GGUF_Q5_1: dequant_q5_1(src, dst, n); return;
	case NX_GGUF_Q8_0: dequant_q8_0(src, dst, n); return;
	case NX_GGUF_Q4_K: dequant_q4_k(src, dst, n); return;
	case NX_GGUF_Q5_K: dequant_q5_k(src, dst, n); return;
	case NX_GGUF_Q6_K: dequant_q6_k(src, dst, n); return;
	}
}

static void quant_q8_0(const float *src, uint8_t *dst, int64_t n)
{
	for (; n > 0; n -= 32, src += 32, dst += 34) {
		float amax = 0;
		for (int i = 0; i < 32; i++)
			amax = fmaxf(amax, fabsf(src[i]));
		/* Below the least normal number 1 / d may be infinite; f16 has no such scale anyway. */
		const float d = amax / 127.0f, id = d >= 0x1p-126f ? 1.0f / d : 0;
		const uint16_t h = nx_dq_to_f16(d);
		memcpy(dst, &h, sizeof(h));
		for (int i = 0; i < 32; i++)
			dst[2 + i] = (uint8_t)(int8_t)roundf(src[i] * id);
	}
}

int nx_quant_row(enum nx_gguf_type type, const float *src, void *dst, int64_t n, struct nx_err *err)
{
	uint16_t *h = dst;
	switch (type) {
	case NX_GGUF_F32: memcpy(dst, src, (size_t)n * sizeof(float)); return 0;
	case NX_GGUF_F16:
		for (int64_t i = 0; i < n; i++)
			h[i] = nx_dq_to_f16(src[i]);
		return 0;
	case NX_GGUF_BF16:
		for (int64_t i = 0; i < n; i++)
			h[i] = nx_dq_to_bf16(src[i]);
		return 0;
	case NX_GGUF_Q8_0: quant_q8_0(src, dst, n); return 0;
	default:
		return nx_fail(
			err, NX_ENOTSUP, "cannot encode to type %s; legal: F32 F16 BF16 Q8_0",
			nx_gguf_type_name((int)type) ? nx_gguf_type_name((int)type) : "unknown");
	}
}
