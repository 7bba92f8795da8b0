/* SPDX-License-Identifier: Apache-2.0
 *
 * coded.cuh: KV rows in the device's own codecs (nexus_kernels/kv_codec.h has every byte).
 */
#ifndef NX_CUDA_CODED_CUH
#define NX_CUDA_CODED_CUH

#include <cuda_fp16.h>
#include <cuda_fp8.h>

#include "cuda/dev.cuh"
#include "nexus_kernels/kv_codec.h"

/* Of a layer; codec 0: rows are plain. */
struct coded_args {
	int32_t codec, bits, group_size, window, n_kv_heads, dim;
	int32_t head_bytes; /* codes of a head and token */
	bool plain_bf16;    /* type of rows that are not encoded */
	uint8_t *win;
	int64_t win_row_bytes, win_v_offset;
};

static inline struct coded_args coded_args_of(const struct nx_kv *kv, int32_t layer)
{
	struct coded_args c = {};
	if (!nx_kv_is_coded(kv->codec))
		return c;
	c.codec = kv->codec;
	c.bits = nx_kv_bits(kv->codec);
	c.group_size = kv->group_size;
	c.window = kv->window;
	c.n_kv_heads = kv->n_kv_heads;
	c.dim = kv->head_dim;
	c.head_bytes = (int32_t)nx_kv_head_bytes(kv->codec, kv->head_dim);
	c.plain_bf16 = kv->plain == NX_BF16;
	c.win = kv->win ? kv->win + layer * kv->win_layer_bytes : NULL;
	c.win_row_bytes = kv->scratch_row_bytes;
	c.win_v_offset = kv->win_v_offset;
	return c;
}

/* coded.cu. Codecs with a window, before and after attention; and after accepted rows were moved into it. */
int coded_begin(struct cuda_dev *d, cudaStream_t s, const struct nx_attention *a,
                struct nx_err *err);
int coded_end(struct cuda_dev *d, cudaStream_t s, const struct nx_attention *a, struct nx_err *err);
int coded_from_window(struct cuda_dev *d, cudaStream_t s, const struct nx_kv *kv,
                      const struct nx_seq_state *state, const struct nx_emit *emit, int32_t n_emit,
                      const struct nx_verdict *v, struct nx_err *err);

#ifdef __CUDACC__
/* Range of values; no range where one is NaN. */
struct coded_range {
	float lo, hi;
	bool nan;
};

static __device__ __forceinline__ void coded_include(struct coded_range &r, float x)
{
	r.lo = fminf(r.lo, x);
	r.hi = fmaxf(r.hi, x);
	r.nan |= x != x;
}

static __device__ __forceinline__ uint32_t coded_group(int32_t codec, const struct coded_range &r)
{
	return nx_kv_group_of((enum nx_kv_codec)codec, r.nan ? 1 : r.lo, r.nan ? -1 : r.hi);
}

static __device__ __forceinline__ void coded_params(bool fp8, uint32_t group, float &scale,
                                                    float &zero)
{
	scale = fp8 ? __uint_as_float(group) : __half2float(__ushort_as_half((uint16_t)group));
	zero = fp8 ? 0 : __half2float(__ushort_as_half((uint16_t)(group >> 16)));
}

static __device__ __forceinline__ uint32_t coded_code(int32_t codec, float x, float scale,
                                                      float zero)
{
	if (!(scale > 0))
		return 0;
	if (codec == NX_KV_E4M3)
		return __nv_cvt_float_to_fp8(__fdiv_rn(x, scale), __NV_SATFINITE, __NV_E4M3);
	if (codec == NX_KV_E5M2)
		return __nv_cvt_float_to_fp8(__fdiv_rn(x, scale), __NV_SATFINITE, __NV_E5M2);
	float most = codec == NX_KV_INT8                           ? 255.0f
	             : codec == NX_KV_INT4 || codec == NX_KV_KIVI4 ? 15.0f
	                                                           : 3.0f;
	float q = rintf(__fdiv_rn(__fadd_rn(x, -zero), scale));
	return (uint32_t)fminf(fmaxf(q, 0), most);
}

/* Codes of elements 2c and 2c + 1 of a run. */
static __device__ __forceinline__ uint32_t coded_two(const uint8_t *run, int32_t c, int32_t bits)
{
	if (bits == 8) {
		uint32_t two = ((const uint16_t *)run)[c];
		return (two & 255u) | (two & 0xff00u) << 8;
	}
	if (bits == 4)
		return ((const uint32_t *)run)[c / 4] >> 4 * (c % 4) & 0x000f000fu;
	return ((const uint32_t *)run)[c / 8] >> 2 * (c % 8) & 0x00030003u;
}

/* Where one head of a token is read from. */
enum coded_kind : int32_t { CODED_ALONG, CODED_CHANNEL, CODED_PLAIN, CODED_FRESH };
struct coded_at {
	const uint8_t *p, *groups; /* p NULL: nowhere */
	int32_t kind;
};

template <typename ACT>
static __device__ __forceinline__ float2 coded_get(const struct coded_args &a,
                                                   const struct coded_at &at, int32_t c)
{
	if (at.kind == CODED_FRESH || at.kind == CODED_PLAIN) {
		float2 x;
		if (at.kind == CODED_FRESH)
			x = make_float2(to_f32(((const ACT *)at.p)[2 * c]),
			                to_f32(((const ACT *)at.p)[2 * c + 1]));
		else if (a.plain_bf16)
			x = __bfloat1622float2(((const __nv_bfloat162 *)at.p)[c]);
		else
			x = ((const float2 *)at.p)[c];
		if (at.kind == CODED_FRESH && a.plain_bf16)
			x = __bfloat1622float2(__float22bfloat162_rn(x));
		return x;
	}
	uint32_t q = coded_two(at.p, c, a.bits);
	bool fp8 = a.codec == NX_KV_E4M3 || a.codec == NX_KV_E5M2;
	float s0, z0, s1, z1;
	if (at.kind == CODED_CHANNEL) {
		uint2 two = ((const uint2 *)at.groups)[c];
		coded_params(false, two.x, s0, z0);
		coded_params(false, two.y, s1, z1);
	} else {
		coded_params(fp8, ((const uint32_t *)at.groups)[2 * c / a.group_size], s0, z0);
		s1 = s0;
		z1 = z0;
	}
	if (!fp8)
		return make_float2(__fmaf_rn(s0, (float)(q & 0xffffu), z0),
		                   __fmaf_rn(s1, (float)(q >> 16), z1));
	__half2_raw h = __nv_cvt_fp8x2_to_halfraw2((__nv_fp8x2_storage_t)((q & 255u) | q >> 8),
	                                           a.codec == NX_KV_E4M3 ? __NV_E4M3 : __NV_E5M2);
	float2 x = __half22float2(*(const __half2 *)&h);
	return make_float2(s0 * x.x, s1 * x.y);
}

/* Of a token t of a piece of `window` tokens that begins at `piece`; v: of V. */
static __device__ __forceinline__ struct coded_at coded_piece(const struct coded_args &a,
                                                              const uint8_t *piece, int32_t t,
                                                              int32_t head, bool v)
{
	int32_t all = a.n_kv_heads * a.head_bytes;
	struct coded_at at;
	bool by_channel = a.window > 1 && !v;
	int32_t group = by_channel ? (head * (a.window / a.group_size) + t / a.group_size) * a.dim
	                           : (t * a.n_kv_heads + head) * (a.dim / a.group_size);
	at.p = piece + t * all + head * a.head_bytes;
	at.groups = piece + a.window * all + 4 * group;
	at.kind = by_channel ? CODED_CHANNEL : CODED_ALONG;
	return at;
}
#endif
#endif
