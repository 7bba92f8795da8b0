/* SPDX-License-Identifier: Apache-2.0
 *
 * linear_quant_int4.cu: products by weights of 4 bits, symmetric or with a zero.
 */
#include "cuda/linear_quant.cuh"

int quant_open_int4(const struct cuda_dev *d, struct nx_err *err)
{
	int rc = quant_open_beside<NX_WEIGHT_CODE_INT4, BESIDE_SCALE>(d, err);
	return rc ? rc : quant_open_beside<NX_WEIGHT_CODE_INT4, BESIDE_ZERO>(d, err);
}

int quant_thin_int4(const struct cuda_dev *d, cudaStream_t s, const struct quant_thin &t, bool zero,
                    int segments, int *rows, struct nx_err *err)
{
	return zero ? quant_launch_beside<NX_WEIGHT_CODE_INT4, BESIDE_ZERO>(d, s, t, segments, rows,
	                                                                    err)
	            : quant_launch_beside<NX_WEIGHT_CODE_INT4, BESIDE_SCALE>(d, s, t, segments,
	                                                                     rows, err);
}
