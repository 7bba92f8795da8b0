/* SPDX-License-Identifier: Apache-2.0
 *
 * attention_codes_e5m2.cu: attention over KV rows of FP8 e5m2.
 */
#include "cuda/attention_codes_launch.cuh"

int attention_codes_open_e5m2(const struct cuda_dev *d, struct nx_err *err)
{
	return open_codes<NX_KV_E5M2>(d, err);
}

int attention_codes_e5m2(struct cuda_dev *d, cudaStream_t s, struct attn_args *a,
                         struct nx_err *err)
{
	return launch_codes<NX_KV_E5M2>(d, s, a, err);
}
