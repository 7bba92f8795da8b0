/* SPDX-License-Identifier: Apache-2.0
 *
 * weight.cu: matrices on the device.
 */
#include "cuda/dev.cuh"

int cu_weight_create(void *dev, const struct nx_weight_desc *d, struct nx_weight **out,
                     struct nx_err *err)
{
	return nx_fail(err, NX_ENOTSUP, "cuda: not there yet");
}

void cu_weight_destroy(void *dev, struct nx_weight *w)
{
}

uint64_t cu_weight_bytes(const struct nx_weight *w)
{
	return 0;
}

uint64_t cu_weight_forecast(void *dev, const struct nx_weight_desc *d, int32_t max_rows)
{
	return 0;
}

int cu_weight_prepare(void *dev, struct nx_weight *w, int32_t max_rows, uint64_t *bytes,
                      struct nx_err *err)
{
	return nx_fail(err, NX_ENOTSUP, "cuda: not there yet");
}

int cu_embed(void *dev, struct nx_stream *s, const struct nx_rows *rows,
             const struct nx_seq_state *state, const struct nx_weight *table, void *x,
             struct nx_err *err)
{
	return nx_fail(err, NX_ENOTSUP, "cuda: not there yet");
}
