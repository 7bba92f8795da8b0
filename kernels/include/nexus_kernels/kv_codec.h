/* SPDX-License-Identifier: Apache-2.0
 *
 * nexus_kernels/kv_codec.h: the bytes of encoded KV rows, said once for all devices. K of a layer and V of it lie
 * in planes of row_bytes a token (struct nx_kv); H = n_kv_heads, D = head_dim, G = group_size, b = bits of a code.
 * Codes and affine parameters are those of nexus_kernels/quant.h; every group of codes has 4 bytes beside it: an
 * nx_affine, or with FP8 a scale in f32.
 *
 * INT8, INT4, E4M3, E5M2 (by token and head; as SGLang and LMDeploy have them). G divides D; 0 = D. A row:
 *     codes [H][D]     head h at h * D * b / 8
 *     groups [H][D/G]  from H * D * b / 8 on
 *     rounded up to 16 bytes
 * KIVI (Liu et al. 2402.02750, section 3; K after its rotation). window R tokens, G divides R and D. R consecutive
 * rows are one piece of R * row_bytes bytes:
 *     codes [R][H][D]
 *     groups           from R * H * D * b / 8 on: of K [H][R/G][D], a channel over G tokens;
 *                      of V [R][H][D/G], G channels of a token
 */
#ifndef NEXUS_KERNELS_KV_CODEC_H
#define NEXUS_KERNELS_KV_CODEC_H

#include "nexus/rows.h"
#include "nexus_kernels/quant.h"

/* Bits of a code; those of a plain element where there are no codes. */
NX_QUANT_FN int nx_kv_bits(enum nx_kv_codec c)
{
	switch (c) {
#define X(name, text, bits, help)                                                                  \
	case NX_KV_##name: return bits;
		NX_KV_CODECS(X)
#undef X
	default: return 0;
	}
}

/* Encoded by the device, so that its kernels decode. */
NX_QUANT_FN bool nx_kv_is_coded(enum nx_kv_codec c)
{
	return c > NX_KV_OWN;
}

NX_QUANT_FN bool nx_kv_is_kivi(enum nx_kv_codec c)
{
	return c == NX_KV_KIVI4 || c == NX_KV_KIVI2;
}

NX_QUANT_FN bool nx_kv_is_fp8(enum nx_kv_codec c)
{
	return c == NX_KV_E4M3 || c == NX_KV_E5M2;
}

/* Bytes of the codes of one head of one token. */
NX_QUANT_FN int64_t nx_kv_head_bytes(enum nx_kv_codec c, int32_t head_dim)
{
	return (int64_t)head_dim * nx_kv_bits(c) / 8;
}

/* Bytes a token of K (or V) takes in a layer. */
NX_QUANT_FN int64_t nx_kv_coded_row_bytes(enum nx_kv_codec c, int32_t n_kv_heads, int32_t head_dim,
                                          int32_t group_size)
{
	int64_t codes = n_kv_heads * nx_kv_head_bytes(c, head_dim);
	int64_t row = codes + (int64_t)n_kv_heads * (head_dim / group_size) * 4;
	return nx_kv_is_kivi(c) ? row : (row + 15) / 16 * 16;
}

/* Why a device's codec cannot hold heads of that size, or NULL. */
NX_QUANT_FN const char *nx_kv_codec_refusal(enum nx_kv_codec c, int32_t head_dim,
                                            int32_t group_size, int32_t window)
{
	if (!nx_kv_is_coded(c) || c >= NX_KV_CODEC_COUNT)
		return "it is no codec of a device";
	if (head_dim % 16 || head_dim > 256)
		return "the head size is no multiple of 16 up to 256";
	if (group_size < 16 || group_size % 16 || head_dim % group_size)
		return "group_size must be a multiple of 16 that divides the head size";
	if (nx_kv_is_kivi(c) ? window < group_size || window % group_size : window != 1)
		return nx_kv_is_kivi(c) ? "the window must be a multiple of group_size"
		                        : "it encodes each token by itself";
	return NULL;
}

/* Code i of a value in a group with that parameter, and back. */
NX_QUANT_FN uint32_t nx_kv_code(enum nx_kv_codec c, float x, float scale, float zero)
{
	switch (c) {
	case NX_KV_E4M3: return scale > 0 ? nx_e4m3_code(x / scale) : x != x ? 0x7fu : 0;
	case NX_KV_E5M2: return scale > 0 ? nx_e5m2_code(x / scale) : x != x ? 0x7fu : 0;
	default: return nx_affine_code(x, scale, zero, nx_kv_bits(c));
	}
}

NX_QUANT_FN float nx_kv_value(enum nx_kv_codec c, uint32_t q, float scale, float zero)
{
	switch (c) {
	case NX_KV_E4M3: return scale * nx_e4m3_value((uint8_t)q);
	case NX_KV_E5M2: return scale * nx_e5m2_value((uint8_t)q);
	default: return nx_affine_value(q, scale, zero);
	}
}

/* What a group of values in [lo, hi] has beside its codes, and its 4 bytes. lo > hi: one of them is NaN. */
NX_QUANT_FN uint32_t nx_kv_group_of(enum nx_kv_codec c, float lo, float hi)
{
	if (nx_kv_is_fp8(c)) {
		float most = -lo > hi ? -lo : hi;
		most = lo <= hi ? most : nx_float_of(0x7fc00000u);
		return nx_float_bits(most / (c == NX_KV_E4M3 ? NX_E4M3_MAX : NX_E5M2_MAX));
	} else {
		struct nx_affine a = nx_affine_of(lo, hi, nx_kv_bits(c));
		return (uint32_t)a.zero << 16 | a.scale;
	}
}

NX_QUANT_FN void nx_kv_group_read(enum nx_kv_codec c, uint32_t bytes, float *scale, float *zero)
{
	*scale = nx_kv_is_fp8(c) ? nx_float_of(bytes) : nx_half_value((uint16_t)bytes);
	*zero = nx_kv_is_fp8(c) ? 0 : nx_half_value((uint16_t)(bytes >> 16));
}

#endif
