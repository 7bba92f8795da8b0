/* SPDX-License-Identifier: Apache-2.0
 *
 * linear.cu: products: arguments are checked and work is counted here, for all kernels alike.
 */
#include "cuda/linear.cuh"
#include "nexus_kernels/work.h"

static int own_linear(struct cuda_dev *d, cudaStream_t s, const struct nx_linear *a,
                      struct nx_err *err)
{
	return thin_fits(d, a) ? thin_linear(d, s, a, err) : plain_linear(d, s, a, err);
}

int cu_linear(void *dev, struct nx_stream *stream, const struct nx_linear *a, struct nx_err *err)
{
	struct cuda_dev *d = (struct cuda_dev *)dev;
	const struct nx_weight *w = a->w;
	cudaStream_t s = cu_stream(d, stream);
	int rc = nx_check_linear(a, w->n, err);
	if (rc || a->m == 0)
		return rc;
	bool coded = w->quant.code != NX_WEIGHT_CODE_NONE;
	if (coded)
		rc = quant_linear(d, s, a, err);
	else if (!library_linear(d, s, a, &rc, err))
		rc = own_linear(d, s, a, err);
	if (rc)
		return rc;
	nx_count_linear(&d->counted, a, w->n, w->k,
	                (uint64_t)w->n * (coded ? quant_row_bytes(w)
	                                        : (uint64_t)w->k * nx_dtype_bytes(w->dtype)),
	                nx_dtype_bytes(d->act));
	return cu_done(d, s, err);
}
