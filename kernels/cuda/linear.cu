/* SPDX-License-Identifier: Apache-2.0
 *
 * linear.cu: products: arguments are checked and work is counted here, for all kernels alike.
 */
#include "cuda/linear.cuh"

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
	int rc = 0;
	if (a->m < 0 || (a->epilogue == NX_EPI_SWIGLU && w->n % 2))
		return nx_fail(err, NX_EINVAL, "linear of %d rows by %lld features is not possible",
		               a->m, (long long)w->n);
	if (a->m == 0)
		return 0;
	bool coded = w->quant.code != NX_WEIGHT_CODE_NONE;
	if (coded)
		rc = quant_linear(d, s, a, err);
	else if (!library_linear(d, s, a, &rc, err))
		rc = own_linear(d, s, a, err);
	if (rc)
		return rc;
	uint64_t m = (uint64_t)a->m, n = (uint64_t)w->n, k = (uint64_t)w->k;
	uint64_t out = a->epilogue == NX_EPI_ADD ? 2 * n : a->epilogue == NX_EPI_SWIGLU ? n / 2 : n;
	uint64_t act = nx_dtype_bytes(d->act);
	d->counted.weight_bytes += n * (coded ? quant_row_bytes(w) : k * nx_dtype_bytes(w->dtype));
	d->counted.act_bytes += m * k * act + m * out * (a->y_f32 ? sizeof(float) : act);
	d->counted.flops += 2 * m * n * k;
	return cu_done(d, s, err);
}
