/* SPDX-License-Identifier: Apache-2.0
 *
 * Integer products by vpdpbusd; those of f32 x are quant_avx512's.
 */
#define ONLY_INT8
#include "cpu/gemm_quant.inc"

const struct quant_kernels quant_avx512vnni = {
	.rows_int8 = MAX_ROWS,
	.pack_int8 = quant_pack_int8,
	.gemm_int8 = quant_gemm_int8,
};
