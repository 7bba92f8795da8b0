/* SPDX-License-Identifier: Apache-2.0
 *
 * nexus_kernels/weight_quant.h: what the codes of a quantized matrix stand for (struct nx_weight_quant, device.h),
 * said once for all devices. How a device orders them in its memory is its own affair.
 *
 * W [n, k]. Each row is cut into groups of group_size inputs (the last may be shorter; 0 = one group a row).
 *   INT8, INT4 symmetric   w = scale * (q - 2^(bits - 1)), scale = largest magnitude / (2^(bits - 1) - 1), rounded up
 *   INT8, INT4 with zero   w = zero + scale * q; see struct nx_affine
 *   E4M3                   w = scale * value(q), scale = largest magnitude / 448
 * The scale (and zero) of INT8 and INT4 are fp16, that of E4M3 is f32. Round to nearest: |w - decoded| <= scale / 2
 * with INT8 and INT4. With int8_acts x is rounded to int8 in the same groups: x ~ s * q, s = largest magnitude / 127,
 * -127 <= q <= 127; sums of a group are exact in int32. GGUF's Q8_0 and Q4_0 are INT8 and INT4 symmetric in groups of 32, Q4_1 is INT4 with zero.
 */
#ifndef NEXUS_KERNELS_WEIGHT_QUANT_H
#define NEXUS_KERNELS_WEIGHT_QUANT_H

#include "nexus/device.h"
#include "nexus_kernels/quant.h"

#define NX_WEIGHT_INT8_GROUP 65536 /* int32 sums of int8 products stay exact up to here */

NX_QUANT_FN int nx_weight_bits(enum nx_weight_code c)
{
	return c == NX_WEIGHT_CODE_INT4 ? 4 : 8;
}

NX_QUANT_FN int64_t nx_weight_groups(const struct nx_weight_quant *f, int64_t k)
{
	return f->group_size ? (k + f->group_size - 1) / f->group_size : 1;
}

/* Why no device makes such a weight: the end of a sentence, or NULL. */
static inline const char *nx_weight_quant_refusal(const struct nx_weight_quant *f, int64_t k)
{
	bool ints = f->code == NX_WEIGHT_CODE_INT8 || f->code == NX_WEIGHT_CODE_INT4;
	if (!ints && f->code != NX_WEIGHT_CODE_E4M3)
		return "legal codes are int8, int4 and e4m3";
	if (f->group_size < 0 || f->group_size % 16)
		return "group_size is 0 (all of a row) or a multiple of 16";
	if (f->zero && !ints)
		return "only integer codes have a zero";
	if (f->int8_acts && !ints)
		return "int8 activations need integer codes";
	if (f->int8_acts && (f->group_size ? f->group_size : k) > NX_WEIGHT_INT8_GROUP)
		return "int8 activations need groups of at most 65536 inputs";
	return NULL;
}

/* Bytes of what a group has beside its codes. */
NX_QUANT_FN int nx_weight_param_bytes(const struct nx_weight_quant *f)
{
	return f->code == NX_WEIGHT_CODE_E4M3 || f->zero ? 4 : 2;
}

/* Bytes of the format; a device may pad. */
NX_QUANT_FN uint64_t nx_weight_quant_bytes(const struct nx_weight_quant *f, int64_t n, int64_t k)
{
	return (uint64_t)n *
	       (((uint64_t)k * (uint64_t)nx_weight_bits(f->code) + 7) / 8 +
	        (uint64_t)nx_weight_groups(f, k) * (uint64_t)nx_weight_param_bytes(f));
}

/* Of a group of n inputs. */
NX_QUANT_FN struct nx_quant_param nx_weight_param(const struct nx_weight_quant *f, const float *x,
                                                  int64_t n)
{
	struct nx_quant_param p = {0, 0};
	float lo = n ? x[0] : 0, hi = lo, most;
	bool nan = false;
	for (int64_t i = 0; i < n; i++) {
		nan = nan || x[i] != x[i];
		lo = x[i] < lo ? x[i] : lo;
		hi = x[i] > hi ? x[i] : hi;
	}
	most = -lo > hi ? -lo : hi;
	if (nan)
		most = lo = hi = nx_float_of(0x7fc00000u);
	if (f->code == NX_WEIGHT_CODE_E4M3) {
		p.scale = most / NX_E4M3_MAX;
	} else if (f->zero) {
		struct nx_affine a = nx_affine_of(lo, hi, nx_weight_bits(f->code));
		p.scale = nx_half_value(a.scale);
		p.zero = nx_half_value(a.zero);
	} else {
		p.scale = nx_half_value(
			nx_half_ceil(most / (float)((1 << (nx_weight_bits(f->code) - 1)) - 1)));
	}
	return p;
}

NX_QUANT_FN uint8_t nx_weight_code(const struct nx_weight_quant *f, struct nx_quant_param p,
                                   float x)
{
	int bits = nx_weight_bits(f->code);
	float half = (float)(1 << (bits - 1)), q;
	if (f->code == NX_WEIGHT_CODE_E4M3)
		return p.scale > 0 ? nx_e4m3_code(x / p.scale) : 0;
	if (f->zero)
		return (uint8_t)nx_affine_code(x, p.scale, p.zero, bits);
	q = (p.scale > 0 ? rintf(x / p.scale) : 0) + half;
	return (uint8_t)(q < 0 ? 0 : q > 2 * half - 1 ? 2 * half - 1 : q);
}

NX_QUANT_FN float nx_weight_value(const struct nx_weight_quant *f, struct nx_quant_param p,
                                  uint8_t q)
{
	if (f->code == NX_WEIGHT_CODE_E4M3)
		return p.scale * nx_e4m3_value(q);
	if (f->zero)
		return nx_affine_value(q, p.scale, p.zero);
	return p.scale * (float)((int)q - (1 << (nx_weight_bits(f->code) - 1)));
}

#endif
