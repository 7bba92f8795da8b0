/* SPDX-License-Identifier: Apache-2.0
 *
 * attention_codes_step.cuh: attention_codes.cuh: what is done with a step of keys once its codes are in shared memory.
 */
#ifndef NX_CUDA_ATTENTION_CODES_STEP_CUH
#define NX_CUDA_ATTENTION_CODES_STEP_CUH

#include "cuda/attention_codes.cuh"

static __device__ __forceinline__ void mma_halves(float (&c)[4], const uint32_t (&a)[4],
                                                  uint32_t b0, uint32_t b1)
{
	asm volatile("mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 "
	             "{%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"
	             : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
	             : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
}

/* Turns 8 x 8 halves: what lane (r, c) had at row r, columns 2c and 2c + 1. */
static __device__ __forceinline__ uint32_t transpose(uint32_t x)
{
	uint32_t y;
	asm volatile("movmatrix.sync.aligned.m8n8.trans.b16 %0, %1;" : "=r"(y) : "r"(x));
	return y;
}

/* s[t]: keys r and 8 + r of the q rows. */
template <class S>
static __device__ __forceinline__ void multiply_keys(const typename S::queries &q, uint32_t at,
                                                     float (&s)[S::NT][4], int32_t lane)
{
	const int N = S::D / 16, BYTES = S::ROW_BYTES / 4, LOAD = BYTES < 16 ? BYTES : 16;
	const int PER = LOAD * 8 / S::BITS / 4; /* products of a load */
	float odd[S::NT][4] = {};
	int32_t r = lane / 4, c = lane % 4;
	static_assert(BYTES / LOAD * PER == N, "all of the head");
#pragma unroll
	for (int load = 0; load < BYTES / LOAD; load++) {
		struct words<LOAD> x[2];
		int32_t byte = load * 64 + c * LOAD;
#pragma unroll
		for (int k = 0; k < 2; k++)
			load_words<LOAD>(x[k], at + (uint32_t)((k * 8 + r) * S::ROW_BYTES +
			                                       k_piece<S>(r, byte / 16) * 16 +
			                                       byte % 16));
#pragma unroll
		for (int i = 0; i < PER; i++) {
			int kk = load * PER + i;
			uint32_t k[4];
#pragma unroll
			for (int j = 0; j < 4; j++) {
				uint32_t w = x[j % 2].w[S::BITS == 4 ? i / 2 : i];
				k[j] = S::BITS == 4 ? two_nibbles(w, i % 2 * 2 + j / 2)
				                    : two_bytes<S::CODEC>(w, j / 2);
			}
#pragma unroll
			for (int t = 0; t < S::NT; t++)
				mma_halves(kk % 2 ? odd[t] : s[t], k, q.x[t][kk][0], q.x[t][kk][1]);
		}
	}
#pragma unroll
	for (int t = 0; t < S::NT; t++)
#pragma unroll
		for (int e = 0; e < 4; e++)
			s[t][e] += odd[t][e];
}

/* Weighted codes; p: of the q rows' tiles, keys 2c and 2c + 1, 8 + 2c and 9 + 2c. */
template <class S>
static __device__ __forceinline__ void multiply_values(const uint32_t (&p)[S::NT][2], uint32_t at,
                                                       float (&out)[S::NT][S::D / 16][4],
                                                       int32_t lane)
{
	const int BYTES = S::ROW_BYTES / 8;
	int32_t byte = lane / 4 * BYTES;
	struct words<BYTES> x[4];
#pragma unroll
	for (int k = 0; k < 4; k++) {
		int32_t row = k / 2 * 8 + lane % 4 * 2 + k % 2;
		load_words<BYTES>(x[k],
		                  at + (uint32_t)(row * S::ROW_BYTES +
		                                  v_piece<S>(row, byte / 16) * 16 + byte % 16));
	}
#pragma unroll
	for (int w = 0; w < BYTES / 4; w++) {
		/* Of columns j and j + 1, keys 2c and 2c + 1, then 8 + 2c and 9 + 2c. */
		const int TILES = 16 / S::BITS; /* of a word */
		uint32_t a[TILES][4];
#pragma unroll
		for (int h = 0; h < 2; h++) { /* keys */
			uint32_t first = x[2 * h].w[w], second = x[2 * h + 1].w[w];
			if (S::BITS == 4) {
				/* Elements 0, 2, 4, 6 lie in the lower half of a word. */
				uint32_t even = permute(first, second, 0x5410),
					 odd = permute(first, second, 0x7632);
#pragma unroll
				for (int i = 0; i < TILES; i++) {
					a[i][2 * h] = two_nibbles(even, i);
					a[i][2 * h + 1] = two_nibbles(odd, i);
				}
			} else {
#pragma unroll
				for (int i = 0; i < TILES; i++) {
					uint32_t two = permute(first, second, i ? 0x7362 : 0x5140);
					a[i][2 * h] = two_bytes<S::CODEC>(two, 0);
					a[i][2 * h + 1] = two_bytes<S::CODEC>(two, 1);
				}
			}
		}
#pragma unroll
		for (int i = 0; i < TILES; i++)
#pragma unroll
			for (int t = 0; t < S::NT; t++)
				mma_halves(out[t][w * TILES + i], a[i], p[t][0], p[t][1]);
	}
}

#define NO_SCALE 0x1p-100f /* stands for a scale of 0: its codes are 0 */

static __device__ __forceinline__ float reciprocal(float x)
{
	float y;
	asm("rcp.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
	return y;
}

/* One step, as compute() of attention_tile.cuh. seen: of the lane's q rows, a bit a key. */
template <class S>
static __device__ __forceinline__ void compute_codes(const typename S::queries &q,
                                                     typename S::totals &o, uint32_t at,
                                                     const uint32_t (&seen)[S::SEATS], int32_t lane)
{
	float s[S::N][S::NT][4] = {}, by[S::N][2], mid[S::N][2], top[S::SEATS], base[S::SEATS];
	int32_t r = lane / 4;
	__syncwarp(); /* what went before may have split the warp */
#pragma unroll
	for (int n = 0; n < S::N; n++)
		multiply_keys<S>(q, at + (uint32_t)(n * STEP * S::ROW_BYTES), s[n], lane);
#pragma unroll
	for (int i = 0; i < S::SEATS; i++)
		top[i] = o.max[i];
#pragma unroll
	for (int k = 0; k < 2 * S::N; k++) {
		struct words<4> of_k, of_v;
		uint32_t groups = at + (uint32_t)(S::GROUPS_AT + (k * 8 + r) * 4);
		float scale, zero, more, &of_p = by[k / 2][k % 2];
		load_words<4>(of_k, groups);
		load_words<4>(of_v, groups + S::KEYS * 4);
		group_of<S>(of_k.w[0], scale, zero);
		group_of<S>(of_v.w[0], of_p, mid[k / 2][k % 2]);
		more = of_p < NO_SCALE ? NO_SCALE : of_p; /* NaN stays */
		of_p = reciprocal(more);
		more = __log2f(more);
#pragma unroll
		for (int i = 0; i < S::SEATS; i++) {
			float &x = s[k / 2][i / 2][k % 2 * 2 + i % 2];
			float y = fmaf(x, scale * q.scale2[i], more);
			if (!S::FP8)
				y = fmaf(zero, q.sum[i], y);
			x = seen[i] >> (k * 8 + r) & 1 ? y : -INFINITY;
			top[i] = fmaxf(top[i], x);
		}
	}
	bool higher = false;
#pragma unroll
	for (int i = 0; i < S::SEATS; i++) {
#pragma unroll
		for (int j = 4; j < 32; j *= 2)
			top[i] = fmaxf(top[i], __shfl_xor_sync(~0u, top[i], j));
		base[i] = top[i] == -INFINITY ? 0 : top[i]; /* nothing seen: all p are 0 */
		higher |= top[i] != o.max[i];
	}
	if (__any_sync(~0u, higher)) {
#pragma unroll
		for (int i = 0; i < S::SEATS; i++) {
			float down = top[i] == o.max[i] ? 1 : attn_exp2(o.max[i] - base[i]);
			o.max[i] = top[i];
			o.sum[i] *= down;
			o.zero[i] *= down;
#pragma unroll
			for (int n = 0; n < S::D / 16; n++) {
				o.out[i / 2][n][i % 2] *= down;
				o.out[i / 2][n][2 + i % 2] *= down;
			}
		}
	}
#pragma unroll
	for (int n = 0; n < S::N; n++) {
		uint32_t p[S::NT][2];
#pragma unroll
		for (int t = 0; t < S::NT; t++) {
#pragma unroll
			for (int e = 0; e < 4; e++) {
				int i = 2 * t + e % 2;
				float x = attn_exp2(s[n][t][e] - base[i]), y = x * by[n][e / 2];
				s[n][t][e] = x;
				o.sum[i] += y;
				if (!S::FP8)
					o.zero[i] = fmaf(y, mid[n][e / 2], o.zero[i]);
			}
			p[t][0] = transpose(pack_halves(s[n][t][0], s[n][t][1]));
			p[t][1] = transpose(pack_halves(s[n][t][2], s[n][t][3]));
		}
		multiply_values<S>(p, at + (uint32_t)((S::KEYS + n * STEP) * S::ROW_BYTES), o.out,
		                   lane);
	}
}

/* As store_sums() of attention_parts.cuh. */
template <class S>
static __device__ __forceinline__ void store_code_sums(typename S::totals &o, float *area,
                                                       int32_t group, int32_t n)
{
	const int WIDE = S::D / 8;
	int32_t lane = (int32_t)threadIdx.x % 32;
	float2 *heads = (float2 *)(area + S::G * S::ROWS * S::OUT_STRIDE);
	__syncthreads(); /* the rings are free */
#pragma unroll
	for (int i = 0; i < S::SEATS; i++) {
#pragma unroll
		for (int j = 4; j < 32; j *= 2) {
			o.sum[i] += __shfl_xor_sync(~0u, o.sum[i], j);
			o.zero[i] += __shfl_xor_sync(~0u, o.zero[i], j);
		}
		int32_t q_row = S::seat(lane, 0, i), row = group * S::ROWS + q_row;
		if (q_row >= n)
			continue;
		if (lane / 4 == 0)
			heads[row] = make_float2(o.max[i], o.sum[i]);
		float *to = area + row * S::OUT_STRIDE + lane / 4 * WIDE, zero = o.zero[i];
#pragma unroll
		for (int k = 0; k < S::D / 16; k += 2) {
			const float(&x)[4] = o.out[i / 2][k], (&y)[4] = o.out[i / 2][k + 1];
			*(float4 *)(to + 2 * k) = make_float4(x[i % 2] + zero, x[2 + i % 2] + zero,
			                                      y[i % 2] + zero, y[2 + i % 2] + zero);
		}
	}
	__syncthreads();
}

#endif
