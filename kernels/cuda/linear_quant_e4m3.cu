/* SPDX-License-Identifier: Apache-2.0
 *
 * linear_quant_e4m3.cu: products by weights in FP8.
 */
#include "cuda/linear_quant.cuh"

int quant_open_e4m3(const struct cuda_dev *d, struct nx_err *err)
{
	return quant_open_beside<NX_WEIGHT_CODE_E4M3, BESIDE_F32>(d, err);
}

int quant_thin_e4m3(const struct cuda_dev *d, cudaStream_t s, const struct quant_thin &t, bool zero,
                    int segments, int *rows, struct nx_err *err)
{
	return quant_launch_beside<NX_WEIGHT_CODE_E4M3, BESIDE_F32>(d, s, t, segments, rows, err);
}
