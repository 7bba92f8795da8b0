/* SPDX-License-Identifier: Apache-2.0
 *
 * attention_codes.cuh: attention_spread.cuh over KV rows of codes: each token and head has one scale (and, with
 * integers, a zero), so group_size is the head size. nexus_kernels/kv_codec.h has the bytes.
 *
 * Codes go to the tensor cores as fp16, which holds them exactly, less the middle of their range: bytes and nibbles
 * become fp16 by one byte permutation or mask and one subtraction. Scales are applied to sums:
 *
 *     score   = scale_k * (q . codes_k) + zero_k * sum(q)
 *     out     = sum_i p_i scale_v,i codes_v,i + sum_i p_i zero_v,i
 *
 * p * scale_v may leave the range of fp16, so log2(scale_v) goes into the exponent, before the maximum is taken: what
 * is multiplied is in [0, 1]. q is scaled to [-2, 2] by a power of two a row, for the same reason.
 *
 * Products are the other way round than in attention_tile.cuh, keys (and columns of V) by q rows: there are at most 8
 * q rows as a rule, and a product has 16 rows and 8 columns. Which element of a head stands where in it is free, as long
 * as q and k agree, and sums are put back: so each lane reads codes that lie together. With r = lane / 4, c = lane % 4:
 * of K the lane has keys r and 8 + r and a quarter of the head; of V keys 2c, 2c + 1, 8 + 2c, 9 + 2c and an eighth, D / 8
 * columns from r * D / 8 on; of scores and sums q rows 2c and 2c + 1, and of 16 q rows 8 + 2c and 9 + 2c.
 */
#ifndef NX_CUDA_ATTENTION_CODES_CUH
#define NX_CUDA_ATTENTION_CODES_CUH

#include "cuda/attention_parts.cuh"

/* q as operand of the products, of NT times 8 q rows. */
template <int D_, int NT> struct code_query {
	uint32_t x[NT][D_ / 16][2];
	float scale2[2 * NT],
		sum[2 * NT]; /* of the lane's q rows: factor of scores; sum(q) times it */
};

/* Sums of the lane's q rows and columns; sum, zero: of its keys. zero is added to all columns. */
template <int D_, int NT> struct code_sums {
	float out[NT][D_ / 16][4], max[2 * NT], sum[2 * NT], zero[2 * NT];
};

template <int D, int NT>
static __device__ __forceinline__ void clear_sums(struct code_sums<D, NT> &o)
{
#pragma unroll
	for (int i = 0; i < 2 * NT; i++) {
		o.max[i] = -INFINITY;
		o.sum[i] = o.zero[i] = 0;
	}
#pragma unroll
	for (int t = 0; t < NT; t++)
#pragma unroll
		for (int n = 0; n < D / 16; n++)
			o.out[t][n][0] = o.out[t][n][1] = o.out[t][n][2] = o.out[t][n][3] = 0;
}

/* As shape, of codes. */
template <int CODEC_, int D_, int NT_, int G_, int AT_ONCE_, int N_ = 1> struct code_shape {
	static const int CODEC = CODEC_, D = D_, NT = NT_, MT = 1, G = G_, N = N_;
	static const bool CODED = true, FP8 = CODEC == NX_KV_E4M3 || CODEC == NX_KV_E5M2;
	static const int BITS = CODEC == NX_KV_INT4 ? 4 : 8;
	static const int THREADS = 32 * G, ROWS = 8 * NT, KEYS = N * STEP, AT_ONCE = AT_ONCE_;
	static const int SEATS = 2 * NT;
	static const int Q_BYTES = D * 2, Q_PIECES = D / 8;
	static const int ROW_BYTES = D * BITS / 8, PIECES = ROW_BYTES / 16;
	/* A stage: codes of K, of V, and the groups' 4 bytes of K, of V. */
	static const int GROUPS_AT = 2 * KEYS * ROW_BYTES;
	static const int STAGE = GROUPS_AT + 2 * KEYS * 4;
	static const int STAGES = 208 * 1024 / AT_ONCE / (G * STAGE);
	static const int RING = G * STAGES * STAGE;
	static const int OUT_STRIDE = D + 4;
	static const int SUMS = G * ROWS * (OUT_STRIDE + 2) * 4;
	static const int SMEM = RING > SUMS ? RING : SUMS;
	static const int SHARERS = THREADS / ROWS, FOURS = D / (4 * SHARERS);
	static_assert(FOURS > 0 && STAGES > 1, "too many warps");
	typedef code_query<D, NT> queries;
	typedef code_sums<D, NT> totals;
	static __device__ __forceinline__ int32_t seat(int32_t lane, int32_t, int i)
	{
		return i / 2 * 8 + lane % 4 * 2 + i % 2;
	}
};

/* Where piece `piece` of a row lies: what lanes read together lies in banks of its own. */
template <class S> static __device__ __forceinline__ int32_t k_piece(int32_t row, int32_t piece)
{
	return S::PIECES == 8 ? piece ^ (row & 1) * 4 : piece;
}

template <class S> static __device__ __forceinline__ int32_t v_piece(int32_t row, int32_t piece)
{
	return S::PIECES == 8   ? piece ^ (row >> 1 & 3) * 2
	       : S::PIECES == 4 ? piece ^ (row >> 1 & 1) * 2
	                        : piece;
}

/* ---- codes to pairs of halves ----------------------------------------------------------------- */

static __device__ __forceinline__ uint32_t permute(uint32_t a, uint32_t b, uint32_t which)
{
	return __byte_perm(a, b, which);
}

static __device__ __forceinline__ uint32_t sub_halves(uint32_t x, uint32_t y)
{
	uint32_t z;
	asm("sub.rn.f16x2 %0, %1, %2;" : "=r"(z) : "r"(x), "r"(y));
	return z;
}

static __device__ __forceinline__ uint32_t fma_halves(uint32_t x, uint32_t y, uint32_t w)
{
	uint32_t z;
	asm("fma.rn.f16x2 %0, %1, %2, %3;" : "=r"(z) : "r"(x), "r"(y), "r"(w));
	return z;
}

static __device__ __forceinline__ uint32_t pack_halves(float lo, float hi)
{
	__half2 x = __floats2half2_rn(lo, hi);
	return *(uint32_t *)&x;
}

/* Bytes 2i and 2i + 1 of a word. 0x6400 | c is 1024 + c. */
template <int CODEC> static __device__ __forceinline__ uint32_t two_bytes(uint32_t w, int i)
{
	if (CODEC == NX_KV_INT8)
		return sub_halves(permute(w, 0x64646464u, i ? 0x4342u : 0x4140u), 0x64806480u);
	if (CODEC == NX_KV_E5M2) /* the upper half of fp16 */
		return permute(w, 0, i ? 0x3424u : 0x1404u);
	__half2_raw h =
		__nv_cvt_fp8x2_to_halfraw2((__nv_fp8x2_storage_t)(i ? w >> 16 : w), __NV_E4M3);
	return (uint32_t)h.x | (uint32_t)h.y << 16;
}

/* The i-th nibbles of both halves of a word. 0x6400 | 16 c is 1024 + 16 c. */
static __device__ __forceinline__ uint32_t two_nibbles(uint32_t w, int i)
{
	uint32_t y, magic;
	asm("mov.b32 %0, 0x64006400;" : "=r"(magic));
	if (i >= 2)
		w >>= 8;
	if (i % 2) {
		asm("lop3.b32 %0, %1, 0x00f000f0, %2, 0xea;" : "=r"(y) : "r"(w), "r"(magic));
		return fma_halves(y, 0x2c002c00u, 0xd480d480u);
	}
	asm("lop3.b32 %0, %1, 0x000f000f, %2, 0xea;" : "=r"(y) : "r"(w), "r"(magic));
	return sub_halves(y, 0x64086408u);
}

/* Scale and middle of a group's 4 bytes: value = scale * (code less the middle of its range) + mid. */
template <class S>
static __device__ __forceinline__ void group_of(uint32_t bytes, float &scale, float &mid)
{
	coded_params(S::FP8, bytes, scale, mid);
	if (!S::FP8)
		mid = fmaf(S::BITS == 4 ? 8.0f : 128.0f, scale, mid);
}

/* ---- copies ----------------------------------------------------------------------------------- */

static __device__ __forceinline__ void fetch4(uint32_t to, const uint8_t *from, bool there)
{
	asm volatile("cp.async.ca.shared.global [%0], [%1], 4, %2;" ::"r"(to), "l"(from),
	             "r"(there ? 4 : 0)
	             : "memory");
}

/* Starts the copies of a step; lanes from `from` on know the places of its keys, in units of 16 bytes. k, v: this
 * lane's piece of the store's first row; groups: of lanes below 16 those of K, else of V. */
template <class S>
static __device__ __forceinline__ void fetch_codes(const uint8_t *k, const uint8_t *v,
                                                   const uint8_t *groups, uint32_t to,
                                                   uint32_t where, int32_t from, uint32_t absent,
                                                   int32_t lane)
{
	const int rows_at_once = 32 / S::PIECES;
	int32_t piece = lane % S::PIECES, first = lane / S::PIECES;
#pragma unroll
	for (int i = 0; i < S::KEYS; i += rows_at_once) {
		int32_t row = i + first;
		uint32_t at = __shfl_sync(~0u, where, from + row);
		bool there = at != absent;
		uint64_t offset = (uint64_t)(there ? at : 0) * 16;
		uint32_t into = to + (uint32_t)(row * S::ROW_BYTES);
		fetch16(into + (uint32_t)(k_piece<S>(row, piece) * 16), k + offset, there);
		into += S::KEYS * S::ROW_BYTES;
		fetch16(into + (uint32_t)(v_piece<S>(row, piece) * 16), v + offset, there);
	}
#pragma unroll
	for (int i = 0; i < S::KEYS; i += 16) {
		int32_t row = i + lane % 16;
		uint32_t at = __shfl_sync(~0u, where, from + row);
		bool there = at != absent;
		fetch4(to + (uint32_t)(S::GROUPS_AT + (lane / 16 * S::KEYS + row) * 4),
		       groups + (uint64_t)(there ? at : 0) * 16, there);
	}
}

template <int BYTES> struct words {
	uint32_t w[BYTES / 4];
};

template <int BYTES>
static __device__ __forceinline__ void load_words(struct words<BYTES> &x, uint32_t at)
{
	if constexpr (BYTES == 16)
		asm volatile("ld.shared.v4.u32 {%0, %1, %2, %3}, [%4];"
		             : "=r"(x.w[0]), "=r"(x.w[1]), "=r"(x.w[2]), "=r"(x.w[3])
		             : "r"(at)
		             : "memory");
	else if constexpr (BYTES == 8)
		asm volatile("ld.shared.v2.u32 {%0, %1}, [%2];"
		             : "=r"(x.w[0]), "=r"(x.w[1])
		             : "r"(at)
		             : "memory");
	else
		asm volatile("ld.shared.u32 %0, [%1];" : "=r"(x.w[0]) : "r"(at) : "memory");
}

/* ---- q ---------------------------------------------------------------------------------------- */

/* First of the four elements that lane % 4 = c has in product kk. */
template <class S> static __device__ __forceinline__ int32_t element(int kk, int32_t c)
{
	return S::BITS == 4 ? c * (S::D / 4) + kk * 4 : kk / 4 * 64 + c * 16 + kk % 4 * 4;
}

/* From shared memory, where pieces of 16 bytes lie at piece ^ row % 8. */
template <class S>
static __device__ __forceinline__ void load_query(const struct attn_args &a, uint32_t from,
                                                  typename S::queries &q, int32_t lane)
{
	const int N = S::D / 16;
	int32_t c = lane % 4;
#pragma unroll
	for (int t = 0; t < S::NT; t++) {
		int32_t row = t * 8 + lane / 4;
		float x[N][4], most = 0, sum = 0;
#pragma unroll
		for (int kk = 0; kk < N; kk++) {
			int32_t e = element<S>(kk, c);
			struct words<8> two;
			load_words<8>(two,
			              from + (uint32_t)(row * S::Q_BYTES +
			                                ((e / 8) ^ (row & 7)) * 16 + e % 8 * 2));
#pragma unroll
			for (int i = 0; i < 4; i++) {
				uint32_t w = two.w[i / 2];
				x[kk][i] = __uint_as_float(i % 2 ? w & 0xffff0000u : w << 16);
				most = fmaxf(most, fabsf(x[kk][i]));
			}
		}
		most = fmaxf(most, __shfl_xor_sync(~0u, most, 1));
		most = fmaxf(most, __shfl_xor_sync(~0u, most, 2));
		int32_t e = min(max((int32_t)(__float_as_uint(most) >> 23) - 127, -100), 100);
		float down = __uint_as_float((uint32_t)(127 - e) << 23);
#pragma unroll
		for (int kk = 0; kk < N; kk++) {
#pragma unroll
			for (int i = 0; i < 4; i++) {
				x[kk][i] *= down;
				sum += x[kk][i];
			}
			q.x[t][kk][0] = pack_halves(x[kk][0], x[kk][1]);
			q.x[t][kk][1] = pack_halves(x[kk][2], x[kk][3]);
		}
		sum += __shfl_xor_sync(~0u, sum, 1);
		sum += __shfl_xor_sync(~0u, sum, 2);
		float scale2 = a.scale2 * __uint_as_float((uint32_t)(127 + e) << 23);
		sum *= scale2;
#pragma unroll
		for (int i = 0; i < 2; i++) {
			q.scale2[2 * t + i] = __shfl_sync(~0u, scale2, (2 * c + i) * 4);
			q.sum[2 * t + i] = __shfl_sync(~0u, sum, (2 * c + i) * 4);
		}
	}
}

#endif
