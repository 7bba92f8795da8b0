/* SPDX-License-Identifier: Apache-2.0
 *
 * linear.cu: products with few rows.
 */
#include "cuda/dev.cuh"

int cu_linear(void *dev, struct nx_stream *s, const struct nx_linear *a, struct nx_err *err)
{
	return nx_fail(err, NX_ENOTSUP, "cuda: not there yet");
}
