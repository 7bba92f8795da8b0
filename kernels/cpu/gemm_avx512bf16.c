/* SPDX-License-Identifier: Apache-2.0
 *
 * The AVX-512 kernels with bf16 products by vdpbf16ps: x is rounded to bf16, the sums stay f32.
 */
#define TILE_BF16(R, P)                                                                            \
	TILE_BEGIN(tile_bf16, R, P)                                                                \
	const int32_t *x = xv;                                                                     \
	int64_t pairs = a->w->k_even / 2, stride = pairs * PANEL * 4;                              \
	for (int64_t i = 0; i < pairs; i++, x += (R)) {                                            \
		__m512i w_[P];                                                                     \
		PREFETCH_PANELS(R, P, i)                                                           \
		LOAD_PANELS(R, P, _mm512_loadu_si512, i)                                           \
		UNROLL for (int r = 0; r < (R); r++)                                               \
		{                                                                                  \
			__m512bh x_ = (__m512bh)_mm512_set1_epi32(x[r]);                           \
			UNROLL for (int j = 0; j < (P); j++) sum[r][j] =                           \
				_mm512_dpbf16_ps(sum[r][j], (__m512bh)w_[j], x_);                  \
		}                                                                                  \
	}                                                                                          \
	TILE_END(R, P)

#include "cpu/gemm.inc"
#include "cpu/row.inc"

extern const struct attention_kernels attention_avx512;

const struct cpu_kernels kernels_avx512bf16 = {
	.isa = "avx512bf16",
	.gemm_f32 = gemm_f32,
	.gemm_bf16 = gemm_bf16,
	.gemm_rows = MAX_ROWS,
	.gemm_bf16_x = true,
	.rmsnorm = rmsnorm,
	.attention = &attention_avx512,
	.sum_exp = sum_exp,
	.max = row_max,
	.exp_to = exp_to,
	.subtract = row_subtract,
	.sum = row_sum,
	.read = read_all,
};
