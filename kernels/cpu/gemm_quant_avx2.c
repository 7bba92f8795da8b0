/* SPDX-License-Identifier: Apache-2.0 */
#include "cpu/gemm_quant.inc"

const struct quant_kernels quant_avx2 = {
	.rows = MAX_ROWS,
	.rows_int8 = MAX_ROWS,
	.panels = 1,
	.pack = quant_pack,
	.pack_int8 = quant_pack_int8,
	.gemm = quant_gemm,
	.gemm_int8 = quant_gemm_int8,
};
