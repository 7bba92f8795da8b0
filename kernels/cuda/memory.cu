/* SPDX-License-Identifier: Apache-2.0
 *
 * memory.cu: allocation, copies, fills.
 */
#include <string.h>

#include "cuda/dev.cuh"

/* What has failed must not be seen by the next call that asks for the last error. */
static void *none(void)
{
	(void)cudaGetLastError();
	return NULL;
}

void *cu_host_alloc(void *dev, size_t bytes)
{
	const struct cuda_dev *d = (const struct cuda_dev *)dev;
	void *p = NULL;
	if (cudaHostAlloc(&p, bytes ? bytes : 1, cudaHostAllocMapped | cudaHostAllocPortable) !=
	    cudaSuccess)
		return none();
	if (d->poison)
		memset(p, 0xff, bytes);
	return p;
}

void cu_host_free(void *dev, void *p, size_t bytes)
{
	if (p)
		cudaFreeHost(p);
}

void *cu_alloc(void *dev, size_t bytes)
{
	const struct cuda_dev *d = (const struct cuda_dev *)dev;
	void *p = NULL;
	if (d->host_memory)
		return cu_host_alloc(dev, bytes);
	if (cudaMalloc(&p, bytes ? bytes : 1) != cudaSuccess)
		return none();
	/* Any stream may use it next, so the fill has to have ended. */
	if (d->poison && bytes &&
	    (cudaMemsetAsync(p, 0xff, bytes, d->stream) != cudaSuccess ||
	     cudaStreamSynchronize(d->stream) != cudaSuccess)) {
		cudaFree(p);
		return none();
	}
	return p;
}

void cu_free(void *dev, void *p, size_t bytes)
{
	const struct cuda_dev *d = (const struct cuda_dev *)dev;
	if (!p)
		return;
	if (d->host_memory)
		cudaFreeHost(p);
	else
		cudaFree(p);
}

int cu_copy(void *dev, struct nx_stream *s, void *dst, const void *src, size_t bytes,
            enum nx_copy_dir dir, struct nx_err *err)
{
	struct cuda_dev *d = (struct cuda_dev *)dev;
	if (bytes == 0)
		return 0;
	if (d->host_memory && !d->capturing) { /* both ends are the host's: as on the CPU */
		CU(cudaStreamSynchronize(cu_stream(d, s)));
		memmove(dst, src, bytes);
		return 0;
	}
	/* In host-memory mode "device" is the host: CUDA knows what a pointer is. */
	enum cudaMemcpyKind kind = d->host_memory  ? cudaMemcpyDefault
	                           : dir == NX_H2D ? cudaMemcpyHostToDevice
	                           : dir == NX_D2H ? cudaMemcpyDeviceToHost
	                                           : cudaMemcpyDeviceToDevice;
	CU(cudaMemcpyAsync(dst, src, bytes, kind, cu_stream(d, s)));
	return 0;
}

int cu_fill(void *dev, struct nx_stream *s, void *dst, int byte, size_t bytes, struct nx_err *err)
{
	struct cuda_dev *d = (struct cuda_dev *)dev;
	if (bytes == 0)
		return 0;
	if (d->host_memory && !d->capturing) {
		CU(cudaStreamSynchronize(cu_stream(d, s)));
		memset(dst, byte, bytes);
		return 0;
	}
	CU(cudaMemsetAsync(dst, byte, bytes, cu_stream(d, s)));
	return 0;
}
