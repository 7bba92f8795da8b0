/* SPDX-License-Identifier: Apache-2.0
 *
 * bench_gpu_data.cu: random data on the device, random matrices, and reads and copies to set other rates against.
 */
#include <math.h>
#include <stdlib.h>

#include "bench/bench_gpu.cuh"
#include "nexus_kernels/rng.h"

void cuda_must(cudaError_t e, const char *what)
{
	if (e == cudaSuccess)
		return;
	fprintf(stderr, "bench_gpu: %s: %s (%s)\n", what, cudaGetErrorString(e),
	        cudaGetErrorName(e));
	exit(EXIT_FAILURE);
}

block::block(size_t n) : p(NULL), bytes(n)
{
	if (n)
		MUST(cudaMalloc(&p, n));
}

block::~block()
{
	if (p)
		MUST(cudaFree(p));
}

bool device_has(size_t bytes)
{
	size_t free_bytes = 0, total = 0;
	MUST(cudaMemGetInfo(&free_bytes, &total));
	return bytes + ((size_t)1 << 30) <= free_bytes;
}

int rotations(const struct bench *b, double bytes, int most)
{
	double n = ceil(4.0 * (double)b->l2_bytes / bytes);
	return n < 2 ? 2 : n > most ? most : (int)n;
}

/* ---- noise */

static __host__ __device__ uint64_t mix(uint64_t x)
{
	x += 0x9e3779b97f4a7c15u;
	x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9u;
	x = (x ^ (x >> 27)) * 0x94d049bb133111ebu;
	return x ^ (x >> 31);
}

static __device__ __forceinline__ float uniform(uint64_t seed, uint64_t i)
{
	return (float)(int32_t)(uint32_t)(mix(seed + i * 0x9e3779b97f4a7c15u) >> 32) *
	       (1.0f / 2147483648.0f);
}

static __device__ __forceinline__ void put(float *p, float x)
{
	*p = x;
}
static __device__ __forceinline__ void put(__nv_bfloat16 *p, float x)
{
	*p = __float2bfloat16_rn(x);
}

/* The sum of `terms` uniform numbers, times scale. */
template <typename T>
static __global__ void fill_kernel(T *p, size_t n, uint64_t seed, int terms, float scale)
{
	size_t step = (size_t)gridDim.x * blockDim.x;
	for (size_t i = (size_t)blockIdx.x * blockDim.x + threadIdx.x; i < n; i += step) {
		float x = 0;
		for (int t = 0; t < terms; t++)
			x += uniform(seed, i * (size_t)terms + (size_t)t);
		put(&p[i], x * scale);
	}
}

template <typename T> static void fill(T *p, size_t n, uint64_t seed, int terms, float scale)
{
	fill_kernel<<<2048, 256>>>(p, n, mix(seed), terms, scale);
	MUST(cudaGetLastError());
	MUST(cudaDeviceSynchronize()); /* the bench's stream does not wait for the default one */
}

void fill_bf16(void *p, size_t n, uint64_t seed, float scale)
{
	fill((__nv_bfloat16 *)p, n, seed, 1, scale);
}

void fill_f32(float *p, size_t n, uint64_t seed, float scale)
{
	fill(p, n, seed, 1, scale);
}

void fill_logits(float *p, size_t n, uint64_t seed)
{
	fill(p, n, seed, 3, 5.0f);
}

/* ---- matrices: the same elements by three ways */

struct matrix {
	int64_t k;
	uint64_t seed;
};

static __host__ __device__ uint64_t row_key(uint64_t seed, int64_t row)
{
	return mix(mix(seed) + (uint64_t)row);
}

static float matrix_scale(int64_t k)
{
	return sqrtf(3.0f / (float)k) / 2147483648.0f;
}

static int matrix_keys(void *ctx, int64_t row0, int64_t n, uint64_t *key, float *scale,
                       struct nx_err *err)
{
	const struct matrix *m = (const struct matrix *)ctx;
	(void)err;
	for (int64_t i = 0; i < n; i++)
		key[i] = row_key(m->seed, row0 + i);
	*scale = matrix_scale(m->k);
	return 0;
}

static int matrix_rows(void *ctx, int64_t row0, int64_t n, float *dst, struct nx_err *err)
{
	const struct matrix *m = (const struct matrix *)ctx;
	(void)err;
	for (int64_t i = 0; i < n; i++)
		for (int64_t j = 0; j < m->k; j++)
			dst[i * m->k + j] = nx_random_element(row_key(m->seed, row0 + i),
			                                      (uint32_t)j, matrix_scale(m->k));
	return 0;
}

int random_weight(struct bench *b, int64_t n, int64_t k, uint64_t seed, int32_t max_rows,
                  struct nx_weight **out, struct nx_err *err)
{
	return random_codes(b, n, k, seed, max_rows, {}, out, err);
}

int random_codes(struct bench *b, int64_t n, int64_t k, uint64_t seed, int32_t max_rows,
                 const struct nx_weight_quant &quant, struct nx_weight **out, struct nx_err *err)
{
	struct matrix m = {k, seed};
	struct nx_weight_desc d = {};
	uint64_t bytes;
	d.n = n;
	d.k = k;
	d.dtype = NX_BF16;
	d.rows = matrix_rows;
	d.keys = matrix_keys;
	d.ctx = &m;
	d.quant = quant;
	int rc = b->ops->weight_create(b->dev, &d, out, err);
	return rc ? rc : b->ops->weight_prepare(b->dev, *out, max_rows, &bytes, err);
}

static __global__ void matrix_kernel(__nv_bfloat16 *dst, int64_t k, uint64_t seed, float scale)
{
	uint64_t key = row_key(seed, blockIdx.x);
	for (int64_t j = threadIdx.x; j < k; j += blockDim.x)
		dst[blockIdx.x * k + j] =
			__float2bfloat16_rn(nx_random_element(key, (uint32_t)j, scale));
}

void plain_matrix(void *dst, int64_t n, int64_t k, uint64_t seed)
{
	matrix_kernel<<<(unsigned)n, 256>>>((__nv_bfloat16 *)dst, k, seed, matrix_scale(k));
	MUST(cudaGetLastError());
	MUST(cudaDeviceSynchronize());
}

/* ---- a plain read and a plain copy: what the calibration is checked by */

static __global__ void __launch_bounds__(512) read_kernel(const uint4 *p, size_t n, uint32_t *out)
{
	size_t step = (size_t)gridDim.x * blockDim.x,
	       i = (size_t)blockIdx.x * blockDim.x + threadIdx.x;
	uint32_t x = 0;
	for (; i + 7 * step < n; i += 8 * step) {
		uint4 v[8];
#pragma unroll
		for (int j = 0; j < 8; j++)
			v[j] = __ldcs(&p[i + (size_t)j * step]);
#pragma unroll
		for (int j = 0; j < 8; j++)
			x ^= v[j].x ^ v[j].y ^ v[j].z ^ v[j].w;
	}
	for (; i < n; i += step)
		x ^= p[i].x ^ p[i].y ^ p[i].z ^ p[i].w;
	if (x == 0x9e3779b9u) /* keeps the loads */
		*out = x;
}

double best_rate(struct bench *b, double work, const std::function<void(cudaStream_t)> &go)
{
	cudaStream_t s = (cudaStream_t)b->stream;
	cudaEvent_t e[2];
	float best = 0;
	MUST(cudaEventCreate(&e[0]));
	MUST(cudaEventCreate(&e[1]));
	for (int turn = 0; turn <= b->turns; turn++) {
		float ms;
		MUST(cudaEventRecord(e[0], s));
		go(s);
		MUST(cudaEventRecord(e[1], s));
		MUST(cudaEventSynchronize(e[1]));
		MUST(cudaEventElapsedTime(&ms, e[0], e[1]));
		if (turn && (best == 0 || ms < best))
			best = ms;
	}
	MUST(cudaEventDestroy(e[0]));
	MUST(cudaEventDestroy(e[1]));
	return work / (best * 1e-3);
}

double read_rate(struct bench *b)
{
	block x((size_t)4 << 30), out(4);
	fill_f32((float *)x.p, x.bytes / 4, 1, 1.0f);
	return best_rate(b, (double)x.bytes, [&](cudaStream_t s) {
		read_kernel<<<132 * 4, 512, 0, s>>>((const uint4 *)x.p, x.bytes / 16,
		                                    (uint32_t *)out.p);
	});
}

double copy_rate(struct bench *b)
{
	block x((size_t)2 << 30), y((size_t)2 << 30);
	fill_f32((float *)x.p, x.bytes / 4, 1, 1.0f);
	return best_rate(b, 2.0 * (double)x.bytes, [&](cudaStream_t s) {
		MUST(cudaMemcpyAsync(y.p, x.p, x.bytes, cudaMemcpyDeviceToDevice, s));
	});
}
