/* SPDX-License-Identifier: Apache-2.0
 *
 * calibrate.cu: peak rates of this device, by CUDA's events. A peak is a ceiling: reads are tried in more than one way,
 * each the median of several repetitions, and the best way counts; of products the best of several short bursts.
 */
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "cuda/dev.cuh"

#define MAX_TIMES 200
#define MIN_TIMES 5

/* ---- kernels. All sizes are multiples of CHUNK bytes. */

#define CHUNK 16384
#define READ_THREADS 512

/* Random numbers: memory that holds one value all over costs less power, and a product of zeros nearly none. */
template <typename T> static __global__ void fill_random(T *p, int64_t n, float scale)
{
	for (int64_t i = (int64_t)blockIdx.x * blockDim.x + threadIdx.x; i < n;
	     i += (int64_t)gridDim.x * blockDim.x)
		p[i] = from_f32<T>(nx_random_element(0x5851f42d4c957f2du + (uint64_t)(i >> 31),
		                                     (uint32_t)i, scale));
}

static __device__ __forceinline__ uint4 load_stream(const uint4 *p)
{
	uint4 v;
	asm volatile("ld.global.L1::no_allocate.v4.u32 {%0,%1,%2,%3}, [%4];"
	             : "=r"(v.x), "=r"(v.y), "=r"(v.z), "=r"(v.w)
	             : "l"(p));
	return v;
}

/* Loads of 16 bytes, UNROLL of them under way in each thread. */
template <int UNROLL>
static __global__ void __launch_bounds__(READ_THREADS)
	read_loads(const uint4 *p, int64_t n, int32_t passes, uint32_t *sink)
{
	const int64_t tile = (int64_t)READ_THREADS * UNROLL;
	uint32_t sum = 0;
	for (int32_t pass = 0; pass < passes;
	     pass++) /* blocks change places: what L1 keeps is of no use */
		for (int64_t first = (int64_t)((blockIdx.x + 7 * pass) % gridDim.x) * tile;
		     first < n; first += (int64_t)gridDim.x * tile) {
			uint4 v[UNROLL];
#pragma unroll
			for (int i = 0; i < UNROLL; i++) {
				int64_t at = first + i * READ_THREADS + threadIdx.x;
				v[i] = at < n ? load_stream(p + at) : make_uint4(0, 0, 0, 0);
			}
#pragma unroll
			for (int i = 0; i < UNROLL; i++)
				sum ^= v[i].x ^ v[i].y ^ v[i].z ^ v[i].w;
		}
	if (sum == 0x12345679u) /* nothing of it may be left out */
		*sink = sum;
}

/* Bulk copies into a ring of `stages` chunks in shared memory, issued by one thread a block. */
static __global__ void __launch_bounds__(32)
	read_bulk(const uint8_t *p, int64_t chunks, int32_t passes, int32_t stages)
{
	extern __shared__ __align__(128) uint8_t ring[];
	__shared__ __align__(8) uint64_t full[16];
	if (threadIdx.x != 0)
		return;
	for (int32_t i = 0; i < stages; i++)
		asm volatile("mbarrier.init.shared::cta.b64 [%0], 1;" ::"r"(
			(uint32_t)__cvta_generic_to_shared(&full[i])));
	asm volatile("fence.mbarrier_init.release.cluster;" ::: "memory");
	const int64_t mine = (chunks - blockIdx.x + gridDim.x - 1) / gridDim.x, all = mine * passes;
	for (int64_t i = 0; i < all + stages; i++) {
		const int32_t s = (int32_t)(i % stages);
		const uint32_t bar = (uint32_t)__cvta_generic_to_shared(&full[s]);
		if (i >= stages && i - stages < all) {
			uint32_t parity = (uint32_t)((i / stages - 1) & 1), ready = 0;
			while (!ready)
				asm volatile(
					"{ .reg .pred q;\n"
					"mbarrier.try_wait.parity.shared::cta.b64 q, [%1], %2;\n"
					"selp.u32 %0, 1, 0, q; }"
					: "=r"(ready)
					: "r"(bar), "r"(parity)
					: "memory");
		}
		if (i >= all)
			continue;
		const uint8_t *src = p + (blockIdx.x + i % mine * gridDim.x) * CHUNK;
		asm volatile("mbarrier.arrive.expect_tx.shared::cta.b64 _, [%0], %1;" ::"r"(bar),
		             "r"(CHUNK)
		             : "memory");
		asm volatile("cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes "
		             "[%0], [%1], %2, [%3];" ::"r"(
				     (uint32_t)__cvta_generic_to_shared(ring + s * CHUNK)),
		             "l"(src), "r"(CHUNK), "r"(bar)
		             : "memory");
	}
}

static __global__ void __launch_bounds__(READ_THREADS)
	copy_loads(uint4 *to, const uint4 *from, int64_t n)
{
	const int64_t tile = READ_THREADS * 4;
	for (int64_t first = blockIdx.x * tile; first < n; first += gridDim.x * tile) {
		uint4 v[4];
#pragma unroll
		for (int i = 0; i < 4; i++) {
			int64_t at = first + i * READ_THREADS + threadIdx.x;
			if (at < n)
				v[i] = load_stream(from + at);
		}
#pragma unroll
		for (int i = 0; i < 4; i++) {
			int64_t at = first + i * READ_THREADS + threadIdx.x;
			if (at < n)
				__stcs(to + at, v[i]);
		}
	}
}

/* ---- repetitions */

struct way {
	struct cuda_dev *d;
	uint8_t *from, *to;
	size_t bytes;
	int32_t passes, blocks, stages; /* stages > 0: bulk copies */
	struct nx_linear *product;
};

typedef int (*way_fn)(const struct way *w, struct nx_err *err);

static int one_read(const struct way *w, struct nx_err *err)
{
	if (w->stages)
		return cu_launch(err, "calibrate: read", CU_PLAIN, read_bulk,
		                 dim3((unsigned)w->blocks), dim3(32), (size_t)w->stages * CHUNK,
		                 w->d->stream, w->from, w->bytes / CHUNK, w->passes, w->stages);
	return cu_launch(err, "calibrate: read", CU_PLAIN, read_loads<8>, dim3((unsigned)w->blocks),
	                 dim3(READ_THREADS), 0, w->d->stream, (const uint4 *)w->from, w->bytes / 16,
	                 w->passes, (uint32_t *)w->from);
}

static int one_copy(const struct way *w, struct nx_err *err)
{
	if (w->blocks)
		return cu_launch(err, "calibrate: copy", CU_PLAIN, copy_loads,
		                 dim3((unsigned)w->blocks), dim3(READ_THREADS), 0, w->d->stream,
		                 (uint4 *)w->to, (const uint4 *)w->from, w->bytes / 16);
	CU(cudaMemcpyAsync(w->to, w->from, w->bytes, cudaMemcpyDeviceToDevice, w->d->stream));
	return 0;
}

static int one_product(const struct way *w, struct nx_err *err)
{
	return cu_linear(w->d, NULL, w->product, err);
}

static void pause_for(double seconds)
{
	struct timespec t;
	t.tv_sec = (time_t)seconds;
	t.tv_nsec = (long)(1e9 * (seconds - (double)t.tv_sec));
	(void)nanosleep(&t, NULL);
}

static int by_value(const void *a, const void *b)
{
	float x = *(const float *)a, y = *(const float *)b;
	return (x > y) - (x < y);
}

/* Median seconds of fn; at least MIN_TIMES repetitions, and as many as fit `seconds`. */
static int median(way_fn fn, const struct way *w, double seconds, double *out, struct nx_err *err)
{
	cudaStream_t s = w->d->stream;
	cudaEvent_t begin = NULL, end = NULL;
	float ms[MAX_TIMES];
	double spent = 0;
	int n = 0, rc = 0;
	cudaError_t e = cudaEventCreate(&begin);
	if (e == cudaSuccess)
		e = cudaEventCreate(&end);
	for (int i = 0; i < 2 && !rc; i++) /* warm */
		rc = fn(w, err);
	while (!rc && e == cudaSuccess && n < MAX_TIMES && (n < MIN_TIMES || spent < seconds)) {
		e = cudaEventRecord(begin, s);
		rc = fn(w, err);
		if (e == cudaSuccess)
			e = cudaEventRecord(end, s);
		if (e == cudaSuccess)
			e = cudaEventSynchronize(end);
		if (e == cudaSuccess)
			e = cudaEventElapsedTime(&ms[n], begin, end);
		if (e == cudaSuccess)
			spent += 1e-3 * ms[n++];
	}
	if (begin)
		cudaEventDestroy(begin);
	if (end)
		cudaEventDestroy(end);
	if (rc || e != cudaSuccess)
		return rc ? rc : cu_fail(err, e, "calibrate");
	qsort(ms, (size_t)n, sizeof(*ms), by_value);
	*out = 1e-3 * ms[n / 2];
	return 0;
}

/* Seconds of fn at their least, by bursts with pauses: under a long load of products the card lowers its clocks. */
static int best_burst(way_fn fn, const struct way *w, double seconds, double *out,
                      struct nx_err *err)
{
	enum { BURST = 4, PAUSE = 6, MIN_BURSTS = 4 }; /* PAUSE: bursts' lengths */
	cudaStream_t s = w->d->stream;
	cudaEvent_t e[2] = {NULL, NULL};
	double spent = 0, best = 0;
	int rc = fn(w, err); /* warm */
	cudaError_t rv = cudaEventCreate(&e[0]);
	if (rv == cudaSuccess)
		rv = cudaEventCreate(&e[1]);
	for (int n = 0; !rc && rv == cudaSuccess && (n < MIN_BURSTS || spent < seconds); n++) {
		float ms = 0;
		rv = cudaStreamSynchronize(s);
		pause_for(PAUSE * BURST * best);
		if (rv == cudaSuccess)
			rv = cudaEventRecord(e[0], s);
		for (int i = 0; i < BURST && !rc; i++)
			rc = fn(w, err);
		if (rv == cudaSuccess)
			rv = cudaEventRecord(e[1], s);
		if (rv == cudaSuccess)
			rv = cudaEventSynchronize(e[1]);
		if (rv == cudaSuccess)
			rv = cudaEventElapsedTime(&ms, e[0], e[1]);
		spent += 1e-3 * ms + PAUSE * BURST * best;
		best = n == 0 || 1e-3 * ms / BURST < best ? 1e-3 * ms / BURST : best;
	}
	for (int i = 0; i < 2; i++)
		if (e[i])
			cudaEventDestroy(e[i]);
	if (rc || rv != cudaSuccess)
		return rc ? rc : cu_fail(err, rv, "calibrate");
	*out = best;
	return 0;
}

/* The best rate of `work` bytes among ways that differ in blocks an SM and in stages. */
static int best_rate(way_fn fn, struct way w, const int32_t (*ways)[2], int n_ways, double work,
                     double seconds, double *rate, struct nx_err *err)
{
	for (int i = 0; i < n_ways; i++) {
		double t = 0;
		w.blocks = ways[i][0] * w.d->n_sms;
		w.stages = ways[i][1];
		int rc = median(fn, &w, seconds / n_ways, &t, err);
		if (rc)
			return rc;
		*rate = work / t > *rate ? work / t : *rate;
	}
	return 0;
}

/* ---- memory */

static int memory_rates(struct cuda_dev *d, uint8_t *set, double seconds,
                        struct nx_calibration *out, struct nx_err *err)
{
	/* blocks an SM, stages; 0 blocks: CUDA's own copy */
	static const int32_t reads[][2] = {{4, 0}, {1, 4}, {1, 8}, {1, 12}, {2, 6}};
	static const int32_t cached[][2] = {{1, 0}, {3, 0}, {1, 4}, {1, 8}, {1, 12}};
	static const int32_t copies[][2] = {{4, 0}, {2, 0}, {0, 0}};
	struct way w = {d, set, set + out->mem_set_bytes / 2, (size_t)out->mem_set_bytes, 1};
	const size_t half = out->mem_set_bytes / 2;
	CU(cudaFuncSetAttribute(read_bulk, cudaFuncAttributeMaxDynamicSharedMemorySize,
	                        12 * CHUNK));
	int rc = cu_launch(err, "calibrate: fill", CU_PLAIN, fill_random<__nv_bfloat16>,
	                   dim3((unsigned)(8 * d->n_sms)), dim3(READ_THREADS), 0, d->stream,
	                   (__nv_bfloat16 *)set, (int64_t)(out->mem_set_bytes / 2), 0x1p-31f);
	if (!rc)
		rc = best_rate(one_read, w, reads, 5, (double)w.bytes, seconds * 0.5,
		               &out->read_bytes_per_s, err);
	w.bytes = half;
	if (!rc)
		rc = best_rate(one_copy, w, copies, 3, 2.0 * (double)half, seconds * 0.3,
		               &out->copy_bytes_per_s, err);
	/* Many passes: one would be over before the last block has begun. */
	w.bytes = (size_t)out->cache_set_bytes;
	w.passes = 40;
	if (!rc)
		rc = best_rate(one_read, w, cached, 5, 40.0 * (double)w.bytes, seconds * 0.2,
		               &out->cache_read_bytes_per_s, err);
	return rc;
}

/* ---- products */

#define PRODUCT 8192

static int random_keys(void *ctx, int64_t row0, int64_t n, uint64_t *key, float *scale,
                       struct nx_err *err)
{
	for (int64_t i = 0; i < n; i++)
		key[i] = (uint64_t)(row0 + i + 1) * 0x9e3779b97f4a7c15u;
	*scale = 0x1p-31f * 0.02f;
	return 0;
}

static int random_rows(void *ctx, int64_t row0, int64_t n, float *dst, struct nx_err *err)
{
	for (int64_t i = 0; i < n; i++) {
		uint64_t key;
		float scale;
		(void)random_keys(ctx, row0 + i, 1, &key, &scale, err);
		for (uint32_t j = 0; j < PRODUCT; j++)
			*dst++ = nx_random_element(key, j, scale);
	}
	return 0;
}

/* The library's product of PRODUCT^3 in the run's type. What does not fit the memory is not measured. */
static int product_rate(struct cuda_dev *d, double seconds, double *rate, struct nx_err *err)
{
	const int64_t n = (int64_t)PRODUCT * PRODUCT;
	const size_t bytes = (size_t)n * nx_dtype_bytes(d->act);
	struct nx_weight_desc desc = {.n = PRODUCT,
	                              .k = PRODUCT,
	                              .dtype = d->act,
	                              .rows = random_rows,
	                              .ctx = NULL,
	                              .keys = random_keys};
	struct nx_weight *w = NULL;
	uint64_t used = 0;
	void *x = cu_alloc(d, bytes), *y = cu_alloc(d, bytes);
	int rc = x && y ? cu_weight_create(d, &desc, &w, err) : NX_ENOMEM;
	if (!rc)
		rc = cu_weight_prepare(d, w, PRODUCT, &used, err);
	if (!rc && d->act == NX_BF16)
		rc = cu_launch(err, "calibrate: fill", CU_PLAIN, fill_random<__nv_bfloat16>,
		               dim3(1024), dim3(READ_THREADS), 0, d->stream, (__nv_bfloat16 *)x, n,
		               0x1p-31f);
	else if (!rc)
		rc = cu_launch(err, "calibrate: fill", CU_PLAIN, fill_random<float>, dim3(1024),
		               dim3(READ_THREADS), 0, d->stream, (float *)x, n, 0x1p-31f);
	struct nx_linear product = {};
	struct way way = {d};
	double t = 0;
	product.w = w;
	product.m = PRODUCT;
	product.x = x;
	product.y = y;
	way.product = &product;
	if (!rc)
		rc = best_burst(one_product, &way, seconds, &t, err);
	if (!rc)
		*rate = 2.0 * PRODUCT * PRODUCT * PRODUCT / t;
	(void)cudaStreamSynchronize(d->stream);
	if (w)
		cu_weight_destroy(d, w);
	cu_free(d, x, bytes);
	cu_free(d, y, bytes);
	return rc == NX_ENOMEM ? 0 : rc;
}

int cu_calibrate(void *dev, double seconds, struct nx_calibration *out, struct nx_err *err)
{
	struct cuda_dev *d = (struct cuda_dev *)dev;
	const struct nx_counted counted = d->counted;
	const size_t most = (size_t)4 << 30;
	size_t free_bytes = 0, total = 0;
	uint8_t *set = NULL;
	memset(out, 0, sizeof(*out));
	CU(cudaMemGetInfo(&free_bytes, &total));
	size_t mem = free_bytes / 4 < most ? free_bytes / 4 : most;
	mem = mem / (2 * CHUNK) * (2 * CHUNK);
	/* About half the cache, and as many chunks for each SM in every way of reading. */
	const size_t unit = 4u * CHUNK * (size_t)d->n_sms;
	size_t cache = (d->l2_bytes / 2 + unit / 2) / unit * unit;
	cache = cache ? cache : unit;
	if (mem < 4 * d->l2_bytes)
		return nx_fail(err, NX_ENOMEM,
		               "cuda: %zu bytes are too few to measure memory with, of %zu free",
		               mem, free_bytes);
	out->mem_set_bytes = mem;
	out->cache_set_bytes = cache;
	CU(cudaMalloc((void **)&set, mem)); /* the device's, in host-memory mode too */
	int rc = memory_rates(d, set, seconds * 0.6, out, err);
	cudaError_t e = cudaStreamSynchronize(d->stream);
	cudaFree(set);
	if (!rc && e != cudaSuccess)
		rc = cu_fail(err, e, "calibrate");
	if (!rc && *linear_library(d) && !d->cfg.invariant && !d->host_memory)
		rc = product_rate(d, seconds * 0.4, &out->blas_flops_per_s, err);
	d->counted = counted;
	return rc;
}
