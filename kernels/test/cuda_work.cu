/* SPDX-License-Identifier: Apache-2.0
 *
 * cuda_work.cu: work of known size on the GPU, for the tests of the instruments; a library that they open. Functions
 * return 0 or an error of CUDA, and do not wait for the device.
 */
#include <cuda_bf16.h>
#include <cuda_runtime.h>
#include <mma.h>
#include <stdint.h>

#include "test/cuda_work.h"

#define WORK extern "C" __attribute__((visibility("default")))

namespace
{
/* Sums n blocks of 16 bytes; the sum goes nowhere, but the compiler cannot know. */
template <typename T> __global__ void read_all(const T *p, size_t n, T *sink)
{
	uint32_t sum = 0;
	size_t stride = (size_t)gridDim.x * blockDim.x;
	for (size_t i = (size_t)blockIdx.x * blockDim.x + threadIdx.x; i < n; i += stride)
		sum += p[i].x ^ p[i].y ^ p[i].z ^ p[i].w;
	if (sum == 0x9e3779b9u)
		*sink = p[0];
}

/* Each warp: n products 16 x 16 x 16 on tensor cores, by mma.sync; of values that the compiler does not know, or it
 * would find that half of the result equals the other. */
__global__ void multiply_warps(int n, const __nv_bfloat16 *p, float *sink)
{
	using namespace nvcuda::wmma;
	fragment<matrix_a, 16, 16, 16, __nv_bfloat16, row_major> a;
	fragment<matrix_b, 16, 16, 16, __nv_bfloat16, col_major> b;
	fragment<accumulator, 16, 16, 16, float> c;
	load_matrix_sync(a, p, 16);
	load_matrix_sync(b, p + 256, 16);
	fill_fragment(c, 0);
	for (int i = 0; i < n; i++)
		mma_sync(c, a, b, c);
	for (int i = 0; i < c.num_elements; i++)
		if (c.x[i] == -1.0f)
			*sink = c.x[i];
}

/* Each block of 128 threads: n products 64 x 8 x 16 of zeros in shared memory, by wgmma. */
__global__ void multiply_groups(int n, float *sink)
{
	__shared__ __align__(128) __nv_bfloat16 tile[64 * 16];
	float c[4] = {0};
	for (int i = threadIdx.x; i < 64 * 16; i += blockDim.x)
		tile[i] = __float2bfloat16(0);
	__syncthreads();
#if __CUDA_ARCH__ >= 900
	/* No swizzle: strides of 128 and 256 bytes, in units of 16. */
	uint64_t at = (uint64_t)(__cvta_generic_to_shared(tile) >> 4) | (uint64_t)8 << 16 |
	              (uint64_t)16 << 32;
	asm volatile("fence.proxy.async.shared::cta;" ::: "memory");
	for (int i = 0; i < n; i++)
		asm volatile(
			"wgmma.fence.sync.aligned;\n\t"
			"wgmma.mma_async.sync.aligned.m64n8k16.f32.bf16.bf16 {%0, %1, %2, %3}, %4, "
			"%4, 1, 1, 1, 0, 0;\n\t"
			"wgmma.commit_group.sync.aligned;\n\t"
			"wgmma.wait_group.sync.aligned 0;"
			: "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
			: "l"(at)
			: "memory");
#endif
	if (c[0] + c[1] + c[2] + c[3] == -1.0f)
		*sink = c[0];
}

cudaStream_t stream;
uint4 *buffer;
void *host;
cudaGraphExec_t graph;
int n_blocks;
} // namespace

WORK int work_open(size_t bytes)
{
	cudaDeviceProp p;
	cudaError_t e = cudaGetDeviceProperties(&p, 0);
	n_blocks = p.multiProcessorCount * 8;
	if (!e)
		e = cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking);
	if (!e)
		e = cudaMalloc((void **)&buffer, bytes);
	if (!e)
		e = cudaMemset(buffer, 0, bytes);
	if (!e)
		e = cudaMallocHost(&host, 1 << 20);
	return e;
}

WORK int work_read(size_t bytes)
{
	read_all<uint4><<<n_blocks, 256, 0, stream>>>(buffer, bytes / 16, buffer);
	return cudaGetLastError();
}

WORK int work_multiply_warps(int blocks, int n)
{
	multiply_warps<<<blocks, 128, 0, stream>>>(n, (const __nv_bfloat16 *)buffer,
	                                           (float *)buffer);
	return cudaGetLastError();
}

WORK int work_multiply_groups(int blocks, int n)
{
	multiply_groups<<<blocks, 128, 0, stream>>>(n, (float *)buffer);
	return cudaGetLastError();
}

WORK int work_copy_in(size_t bytes)
{
	return cudaMemcpyAsync(buffer, host, bytes, cudaMemcpyHostToDevice, stream);
}

WORK int work_set(size_t bytes)
{
	return cudaMemsetAsync(buffer, 0, bytes, stream);
}

WORK int work_graph_make(size_t bytes, int nodes)
{
	cudaGraph_t g = NULL;
	cudaError_t e = cudaStreamBeginCapture(stream, cudaStreamCaptureModeThreadLocal);
	for (int i = 0; i < nodes && !e; i++)
		e = (cudaError_t)work_read(bytes);
	cudaError_t ended = cudaStreamEndCapture(stream, &g);
	if (!e)
		e = ended;
	if (!e)
		e = cudaGraphInstantiate(&graph, g, 0);
	if (g)
		cudaGraphDestroy(g);
	return e;
}

WORK int work_graph_launch(void)
{
	return cudaGraphLaunch(graph, stream);
}

WORK int work_graph_free(void)
{
	cudaGraphExec_t g = graph;
	graph = NULL;
	return cudaGraphExecDestroy(g);
}

WORK int work_wait(void)
{
	return cudaStreamSynchronize(stream);
}

WORK size_t work_free_bytes(void)
{
	size_t free_bytes = 0, total = 0;
	return cudaMemGetInfo(&free_bytes, &total) ? 0 : free_bytes;
}
