/* SPDX-License-Identifier: Apache-2.0
 *
 * attention_codes_e4m3.cu: attention over KV rows of FP8 e4m3.
 */
#include "cuda/attention_codes_launch.cuh"

int attention_codes_open_e4m3(const struct cuda_dev *d, struct nx_err *err)
{
	return open_codes<NX_KV_E4M3>(d, err);
}

int attention_codes_e4m3(struct cuda_dev *d, cudaStream_t s, struct attn_args *a,
                         struct nx_err *err)
{
	return launch_codes<NX_KV_E4M3>(d, s, a, err);
}
