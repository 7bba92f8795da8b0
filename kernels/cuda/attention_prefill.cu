/* SPDX-License-Identifier: Apache-2.0
 *
 * attention_prefill.cu: attention of many rows on tensor cores.
 */
#include "cuda/dev.cuh"

int attention_prefill_open(struct cuda_dev *d, struct nx_err *err)
{
	return 0;
}

bool attention_prefill_fits(const struct cuda_dev *d, const struct nx_attention *a)
{
	return 0;
}

int attention_prefill(struct cuda_dev *d, cudaStream_t s, const struct nx_attention *a,
                      struct nx_err *err)
{
	return nx_fail(err, NX_ENOTSUP, "cuda: not there yet");
}
