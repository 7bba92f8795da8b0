/* SPDX-License-Identifier: Apache-2.0 */
#include "cpu/gemm_quant.inc"

const struct quant_kernels quant_avx512 = {
	.rows = MAX_ROWS,
	.panels = 2,
	.pack = quant_pack,
	.gemm = quant_gemm,
};
