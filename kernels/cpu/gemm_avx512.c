/* SPDX-License-Identifier: Apache-2.0 */
#include "cpu/gemm.inc"
#include "cpu/row.inc"

extern const struct attention_kernels attention_avx512;

const struct cpu_kernels kernels_avx512 = {
	.isa = "avx512",
	.gemm_f32 = gemm_f32,
	.gemm_bf16 = gemm_bf16,
	.gemm_rows = MAX_ROWS,
	.rmsnorm = rmsnorm,
	.attention = &attention_avx512,
	.sum_exp = sum_exp,
	.max = row_max,
	.exp_to = exp_to,
	.subtract = row_subtract,
	.sum = row_sum,
	.read = read_all,
};
