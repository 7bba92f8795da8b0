/* SPDX-License-Identifier: Apache-2.0
 *
 * vec.cuh: 16 bytes of activations as floats, and back.
 */
#ifndef NX_CUDA_VEC_CUH
#define NX_CUDA_VEC_CUH

#include <string.h>

#include "cuda/dev.cuh"

template <typename T> constexpr int vec_elements = 16 / (int)sizeof(T);

static inline bool aligned16(const void *p)
{
	return ((uintptr_t)p & 15) == 0;
}

#ifdef __CUDACC__
template <typename T>
static __device__ __forceinline__ void vec_unpack(float (&f)[vec_elements<T>], const uint4 &v)
{
	const uint32_t u[4] = {v.x, v.y, v.z, v.w};
#pragma unroll
	for (int i = 0; i < 4; i++) {
		if constexpr (sizeof(T) == 4) {
			f[i] = __uint_as_float(u[i]);
		} else {
			f[2 * i] = __uint_as_float(u[i] << 16);
			f[2 * i + 1] = __uint_as_float(u[i] & 0xffff0000u);
		}
	}
}

template <typename T>
static __device__ __forceinline__ uint4 vec_pack(const float (&f)[vec_elements<T>])
{
	uint32_t u[4];
#pragma unroll
	for (int i = 0; i < 4; i++) {
		if constexpr (sizeof(T) == 4) {
			u[i] = __float_as_uint(f[i]);
		} else {
			__nv_bfloat162 two = __floats2bfloat162_rn(f[2 * i], f[2 * i + 1]);
			memcpy(&u[i], &two, sizeof(two));
		}
	}
	return make_uint4(u[0], u[1], u[2], u[3]);
}

/* N floats from a place aligned to 16 bytes. */
template <int N> static __device__ __forceinline__ void vec_load_f32(float (&f)[N], const float *p)
{
#pragma unroll
	for (int i = 0; i < N; i += 4) {
		float4 v = *(const float4 *)(p + i);
		f[i] = v.x;
		f[i + 1] = v.y;
		f[i + 2] = v.z;
		f[i + 3] = v.w;
	}
}
#endif

#endif
