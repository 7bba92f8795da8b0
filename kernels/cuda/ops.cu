/* SPDX-License-Identifier: Apache-2.0
 *
 * ops.cu: rmsnorm and gather. rope_store is in rope.cu, commit and draft_rows are in step.cu.
 */
#include "cuda/dev.cuh"
#include "cuda/vec.cuh"
#include "nexus_kernels/work.h"

/* ---- rmsnorm: a block works through rows, a thread keeps its part of a row and of w in registers */

#define NORM_THREADS 512

/* The same sum in every thread, in an order that depends on the number of warps alone. */
static __device__ __forceinline__ float block_sum(float x, float *part)
{
	int warp = (int)threadIdx.x / 32, lane = (int)threadIdx.x % 32, n = (int)blockDim.x / 32;
	for (int o = 16; o; o /= 2)
		x += __shfl_xor_sync(0xffffffffu, x, o);
	if (lane == 0)
		part[warp] = x;
	__syncthreads();
	x = lane < n ? part[lane] : 0;
	for (int o = 16; o; o /= 2)
		x += __shfl_xor_sync(0xffffffffu, x, o);
	return x;
}

template <typename T, int PER_THREAD>
static __global__ void __launch_bounds__(NORM_THREADS)
	norm_vectors(T *y, const T *x, const float *w, int32_t rows, int32_t cols, float eps)
{
	constexpr int N = vec_elements<T>;
	__shared__ float part[2][32];
	float weight[PER_THREAD][N];
	uint4 now[PER_THREAD], next[PER_THREAD];
	const int n = cols / N;
	pdl_trigger();
#pragma unroll
	for (int i = 0; i < PER_THREAD; i++) {
		int at = (int)threadIdx.x + i * (int)blockDim.x;
		if (at < n)
			vec_load_f32<N>(weight[i], w + at * N);
	}
	pdl_wait();
	int row = (int)blockIdx.x;
#pragma unroll
	for (int i = 0; i < PER_THREAD; i++) {
		int at = (int)threadIdx.x + i * (int)blockDim.x;
		now[i] = make_uint4(0, 0, 0, 0);
		if (at < n)
			now[i] = ((const uint4 *)(x + (int64_t)row * cols))[at];
	}
	for (int turn = 0; row < rows; row += (int)gridDim.x, turn ^= 1) {
		int ahead = row + (int)gridDim.x;
		float sum = 0;
#pragma unroll
		for (int i = 0; i < PER_THREAD; i++) {
			int at = (int)threadIdx.x + i * (int)blockDim.x;
			next[i] = make_uint4(0, 0, 0, 0);
			if (ahead < rows && at < n)
				next[i] = ((const uint4 *)(x + (int64_t)ahead * cols))[at];
		}
#pragma unroll
		for (int i = 0; i < PER_THREAD; i++) {
			float f[N];
			vec_unpack<T>(f, now[i]);
#pragma unroll
			for (int j = 0; j < N; j++)
				sum += f[j] * f[j];
		}
		float inv = rsqrtf(block_sum(sum, part[turn]) / (float)cols + eps);
#pragma unroll
		for (int i = 0; i < PER_THREAD; i++) {
			int at = (int)threadIdx.x + i * (int)blockDim.x;
			float f[N];
			vec_unpack<T>(f, now[i]);
#pragma unroll
			for (int j = 0; j < N; j++)
				f[j] = f[j] * inv * weight[i][j];
			if (at < n)
				((uint4 *)(y + (int64_t)row * cols))[at] = vec_pack<T>(f);
			now[i] = next[i];
		}
	}
}

/* Any width and any alignment. */
template <typename T>
static __global__ void __launch_bounds__(NORM_THREADS)
	norm_elements(T *y, const T *x, const float *w, int32_t cols, float eps)
{
	__shared__ float part[32];
	pdl_trigger();
	pdl_wait();
	x += (int64_t)blockIdx.x * cols;
	y += (int64_t)blockIdx.x * cols;
	float sum = 0;
	for (int i = (int)threadIdx.x; i < cols; i += (int)blockDim.x)
		sum += to_f32(x[i]) * to_f32(x[i]);
	float inv = rsqrtf(block_sum(sum, part) / (float)cols + eps);
	for (int i = (int)threadIdx.x; i < cols; i += (int)blockDim.x)
		y[i] = from_f32<T>(to_f32(x[i]) * inv * w[i]);
}

/* Threads and vectors a thread depend on the width alone, so a row's bits do too. */
template <typename T>
static int norm_of(const struct cuda_dev *d, cudaStream_t s, T *y, const T *x, const float *w,
                   int32_t rows, int32_t cols, float eps, struct nx_err *err)
{
	int n = cols / vec_elements<T>;
	int per = n <= NORM_THREADS ? 1 : n <= 2 * NORM_THREADS ? 2 : 4;
	int threads = ((n + per - 1) / per + 31) / 32 * 32;
	bool vectors = cols % vec_elements<T> == 0 && n <= 4 * NORM_THREADS && aligned16(y) &&
	               aligned16(x) && aligned16(w);
	if (!vectors)
		return cu_launch(err, "rmsnorm", CU_PDL, norm_elements<T>, dim3((unsigned)rows),
		                 dim3(cols > 128 ? NORM_THREADS : 128), 0, s, y, x, w, cols, eps);
	int blocks = d->n_sms * (2048 / threads);
	auto kernel = per == 1   ? norm_vectors<T, 1>
	              : per == 2 ? norm_vectors<T, 2>
	                         : norm_vectors<T, 4>;
	return cu_launch(err, "rmsnorm", CU_PDL, kernel, dim3(rows < blocks ? rows : blocks),
	                 dim3(threads), 0, s, y, x, w, rows, cols, eps);
}

int cu_rmsnorm(void *dev, struct nx_stream *s, void *y, const void *x, const float *w, int32_t rows,
               int32_t cols, float eps, struct nx_err *err)
{
	struct cuda_dev *d = (struct cuda_dev *)dev;
	cudaStream_t st = cu_stream(d, s);
	if (rows < 1 || cols < 1)
		return 0;
	int rc = d->act == NX_BF16
	                 ? norm_of(d, st, (__nv_bfloat16 *)y, (const __nv_bfloat16 *)x, w, rows,
	                           cols, eps, err)
	                 : norm_of(d, st, (float *)y, (const float *)x, w, rows, cols, eps, err);
	if (rc)
		return rc;
	nx_count_rmsnorm(&d->counted, rows, cols, nx_dtype_bytes(d->act));
	return cu_done(d, st, err);
}

/* ---- gather */

#define GATHER_THREADS 256

template <typename V>
static __global__ void __launch_bounds__(GATHER_THREADS)
	gather_rows(V *y, const V *x, const int32_t *index, int32_t n)
{
	int at = (int)(blockIdx.y * GATHER_THREADS + threadIdx.x);
	pdl_trigger();
	pdl_wait();
	if (at < n)
		y[(int64_t)blockIdx.x * n + at] = x[(int64_t)index[blockIdx.x] * n + at];
}

int cu_gather(void *dev, struct nx_stream *s, void *y, const void *x, const int32_t *index,
              int32_t n, int32_t cols, struct nx_err *err)
{
	struct cuda_dev *d = (struct cuda_dev *)dev;
	cudaStream_t st = cu_stream(d, s);
	size_t bytes = (size_t)cols * nx_dtype_bytes(d->act);
	if (n < 1 || cols < 1)
		return 0;
	bool vectors = bytes % 16 == 0 && aligned16(y) && aligned16(x);
	int32_t per_row = vectors ? (int32_t)(bytes / 16) : (int32_t)(bytes / 2);
	dim3 grid((unsigned)n, (unsigned)(per_row + GATHER_THREADS - 1) / GATHER_THREADS);
	int rc = vectors ? cu_launch(err, "gather", CU_PDL, gather_rows<uint4>, grid,
	                             dim3(GATHER_THREADS), 0, st, (uint4 *)y, (const uint4 *)x,
	                             index, per_row)
	                 : cu_launch(err, "gather", CU_PDL, gather_rows<uint16_t>, grid,
	                             dim3(GATHER_THREADS), 0, st, (uint16_t *)y,
	                             (const uint16_t *)x, index, per_row);
	if (rc)
		return rc;
	nx_count_gather(&d->counted, n, cols, nx_dtype_bytes(d->act));
	return cu_done(d, st, err);
}
