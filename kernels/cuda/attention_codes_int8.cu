/* SPDX-License-Identifier: Apache-2.0
 *
 * attention_codes_int8.cu: attention over KV rows of integers of 8 bits.
 */
#include "cuda/attention_codes_launch.cuh"

int attention_codes_open_int8(const struct cuda_dev *d, struct nx_err *err)
{
	return open_codes<NX_KV_INT8>(d, err);
}

int attention_codes_int8(struct cuda_dev *d, cudaStream_t s, struct attn_args *a,
                         struct nx_err *err)
{
	return launch_codes<NX_KV_INT8>(d, s, a, err);
}
