/* SPDX-License-Identifier: Apache-2.0
 *
 * attention_codes_int4.cu: attention over KV rows of integers of 4 bits.
 */
#include "cuda/attention_codes_launch.cuh"

int attention_codes_open_int4(const struct cuda_dev *d, struct nx_err *err)
{
	return open_codes<NX_KV_INT4>(d, err);
}

int attention_codes_int4(struct cuda_dev *d, cudaStream_t s, struct attn_args *a,
                         struct nx_err *err)
{
	return launch_codes<NX_KV_INT4>(d, s, a, err);
}
