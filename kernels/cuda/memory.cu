/* SPDX-License-Identifier: Apache-2.0
 *
 * memory.cu: allocation, copies, fills.
 */
#include "cuda/dev.cuh"

void *cu_alloc(void *dev, size_t bytes)
{
	return NULL;
}

void cu_free(void *dev, void *p, size_t bytes)
{
	
}

void *cu_host_alloc(void *dev, size_t bytes)
{
	return NULL;
}

void cu_host_free(void *dev, void *p, size_t bytes)
{
	
}

int cu_copy(void *dev, struct nx_stream *s, void *dst, const void *src, size_t bytes,
            enum nx_copy_dir dir, struct nx_err *err)
{
	return nx_fail(err, NX_ENOTSUP, "cuda: not there yet");
}

int cu_fill(void *dev, struct nx_stream *s, void *dst, int byte, size_t bytes, struct nx_err *err)
{
	return nx_fail(err, NX_ENOTSUP, "cuda: not there yet");
}

