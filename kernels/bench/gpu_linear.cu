/* SPDX-License-Identifier: Apache-2.0
 *
 * gpu_linear.cu: speed of products on a GPU, through the backend's table, beside a plain read and the library.
 *
 *   nvcc -std=c++17 -O3 -arch=sm_90a -cudart static -Iharness/include -Ikernels/include \
 *        kernels/bench/gpu_linear.cu -o gpu_linear -ldl
 *   gpu_linear BACKENDS_DIR [shapes|small|chain|large]...
 *
 * Each figure: a graph of products whose weights rotate through more than three times the L2, replayed; bytes of the
 * weight over the time of one product, best and median of the replays.
 */
#include <cuda_runtime.h>
#include <dlfcn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <algorithm>

#include "nexus/device.h"

#define REPLAYS 15

static const struct nx_device_ops *ops;
static struct nx_err err;
static double read_rate;

static void must(int rc)
{
	if (rc) {
		fprintf(stderr, "gpu_linear: %s\n", err.msg);
		exit(EXIT_FAILURE);
	}
}

static void must_cuda(cudaError_t e)
{
	if (e != cudaSuccess) {
		fprintf(stderr, "gpu_linear: %s\n", cudaGetErrorString(e));
		exit(EXIT_FAILURE);
	}
}

static double now(void)
{
	struct timespec t;
	clock_gettime(CLOCK_MONOTONIC, &t);
	return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

/* ---- a device, and what it replays */

struct device {
	void *dev;
	struct nx_stream *stream;
};

static struct device device_open(int library_rows)
{
	struct device d;
	char text[16];
	struct nx_device_config cfg = {};
	cfg.dtype = NX_BF16;
	snprintf(text, sizeof(text), "%d", library_rows);
	setenv("NEXUS_LIBRARY_ROWS", text, 1);
	must(ops->open(&d.dev, &cfg, &err));
	must(ops->stream_create(d.dev, &d.stream, &err));
	return d;
}

struct timing {
	double best, median; /* seconds of one replay */
};

static struct timing replay(struct device *d, struct nx_graph *g)
{
	double t[REPLAYS];
	for (int i = -3; i < REPLAYS; i++) {
		must(ops->stream_sync(d->dev, d->stream, &err));
		double begin = now();
		must(ops->graph_launch(d->dev, d->stream, g, &err));
		must(ops->stream_sync(d->dev, d->stream, &err));
		if (i >= 0)
			t[i] = now() - begin;
	}
	std::sort(t, t + REPLAYS);
	return {t[0], t[REPLAYS / 2]};
}

static int keys_of(void *ctx, int64_t row0, int64_t n, uint64_t *key, float *scale, struct nx_err *)
{
	for (int64_t i = 0; i < n; i++)
		key[i] = (uint64_t)(row0 + i + 1) * 0x9e3779b97f4a7c15u + (uint64_t)(uintptr_t)ctx;
	*scale = 0.02f / 2147483648.0f;
	return 0;
}

static struct nx_weight *weight(struct device *d, int64_t n, int64_t k)
{
	struct nx_weight *w = NULL;
	struct nx_weight_desc desc = {};
	desc.n = n;
	desc.k = k;
	desc.dtype = NX_BF16;
	desc.keys = keys_of;
	desc.ctx = (void *)(uintptr_t)(n * 7 + k);
	must(ops->weight_create(d->dev, &desc, &w, &err));
	return w;
}

static void *zeros(size_t bytes)
{
	void *p;
	must_cuda(cudaMalloc(&p, bytes));
	must_cuda(cudaMemset(p, 0, bytes));
	return p;
}

/* ---- a plain read */

static __global__ void __launch_bounds__(512) read_kernel(const uint4 *p, size_t n, uint4 *out)
{
	uint4 sum = {0, 0, 0, 0};
	size_t step = (size_t)gridDim.x * blockDim.x,
	       i = (size_t)blockIdx.x * blockDim.x + threadIdx.x;
	for (; i + 7 * step < n; i += 8 * step) {
		uint4 v[8];
#pragma unroll
		for (int j = 0; j < 8; j++)
			v[j] = __ldcs(p + i + j * step);
#pragma unroll
		for (int j = 0; j < 8; j++) {
			sum.x ^= v[j].x;
			sum.y ^= v[j].y;
			sum.z ^= v[j].z;
			sum.w ^= v[j].w;
		}
	}
	if (sum.x == 0x12345 && sum.y == 0x777)
		*out = sum;
}

static void bench_read(struct device *d)
{
	size_t bytes = (size_t)4 << 30;
	void *p = zeros(bytes), *out = zeros(64);
	read_rate = 0;
	for (int per_sm = 2; per_sm <= 4; per_sm++) {
		struct nx_graph *g;
		must(ops->graph_begin(d->dev, d->stream, &err));
		read_kernel<<<132 * per_sm, 512, 0, (cudaStream_t)d->stream>>>(
			(const uint4 *)p, bytes / 16, (uint4 *)out);
		must(ops->graph_end(d->dev, d->stream, &g, &err));
		struct timing t = replay(d, g);
		ops->graph_destroy(d->dev, g);
		read_rate = std::max(read_rate, (double)bytes / t.best);
	}
	printf("read: %.0f GB/s\n", read_rate / 1e9);
	must_cuda(cudaFree(p));
	must_cuda(cudaFree(out));
}

/* ---- single shapes */

struct product {
	const char *name;
	int64_t n, k;
	enum nx_epilogue epilogue;
	bool f32;
};

static double time_product(struct device *d, const struct product *p, int m, struct nx_weight **w,
                           int n_w, void *x, void *y)
{
	struct nx_graph *g;
	int n = (int)std::min<int64_t>(400, std::max<int64_t>(40, 4000000000 / (p->n * p->k * 2)));
	n = m > 64 ? 8 : n;
	must(ops->graph_begin(d->dev, d->stream, &err));
	for (int i = 0; i < n; i++) {
		struct nx_linear a = {};
		a.w = w[i % n_w];
		a.m = m;
		a.x = x;
		a.y = y;
		a.epilogue = p->epilogue;
		a.y_f32 = p->f32;
		must(ops->linear(d->dev, d->stream, &a, &err));
	}
	must(ops->graph_end(d->dev, d->stream, &g, &err));
	struct timing t = replay(d, g);
	ops->graph_destroy(d->dev, g);
	return t.median / n;
}

static void bench_products(const struct product *p, int n_p, const int *rows, int n_rows)
{
	struct device own = device_open(1 << 20), lib = device_open(1);
	printf("%-12s %6s %6s |", "", "n", "k");
	for (int i = 0; i < n_rows; i++)
		printf("%5s%-4d us GB/s   %%  lib |", "m=", rows[i]);
	printf("\n");
	for (int j = 0; j < n_p; j++) {
		int64_t bytes = p[j].n * p[j].k * 2;
		int n_w = (int)std::min<int64_t>(64, (180 << 20) / bytes + 2);
		struct nx_weight *w[64];
		for (int i = 0; i < n_w; i++)
			w[i] = weight(&own, p[j].n, p[j].k);
		int most = rows[n_rows - 1];
		void *x = zeros((size_t)(most * p[j].k) * 2),
		     *y = zeros((size_t)(most * p[j].n) * 4);
		printf("%-12s %6d %6d |", p[j].name, (int)p[j].n, (int)p[j].k);
		for (int i = 0; i < n_rows; i++) {
			double a = time_product(&own, &p[j], rows[i], w, n_w, x, y);
			double b = time_product(&lib, &p[j], rows[i], w, n_w, x, y);
			if (rows[i] <= 64)
				printf(" %7.2f %5.0f %4.0f %5.0f |", a * 1e6,
				       (double)bytes / a / 1e9, 100 * (double)bytes / a / read_rate,
				       (double)bytes / b / 1e9);
			else
				printf(" %7.1f own %5.0f lib %5.0f TF |", b * 1e6,
				       2e-12 * (double)(rows[i] * p[j].n * p[j].k) / a,
				       2e-12 * (double)(rows[i] * p[j].n * p[j].k) / b);
			fflush(stdout);
		}
		printf("\n");
		for (int i = 0; i < n_w; i++)
			ops->weight_destroy(own.dev, w[i]);
		must_cuda(cudaFree(x));
		must_cuda(cudaFree(y));
	}
	ops->stream_destroy(own.dev, own.stream);
	ops->stream_destroy(lib.dev, lib.stream);
	ops->close(own.dev);
	ops->close(lib.dev);
}

/* ---- layers: products with small kernels between them */

/* As long as a small kernel is: waits, reads, writes. */
static __global__ void small_kernel(float *p)
{
	asm volatile("griddepcontrol.launch_dependents;" ::: "memory");
	asm volatile("griddepcontrol.wait;" ::: "memory");
	float sum = 0;
#pragma unroll
	for (int i = 0; i < 4; i++) {
		float4 v = __ldcg((const float4 *)p + i * 256 + threadIdx.x);
		sum += v.x + v.y + v.z + v.w;
	}
	sum = __syncthreads_count(sum > 0);
	if (threadIdx.x < 32)
		p[blockIdx.x * 32 + threadIdx.x] = sum * 0;
}

static void small(struct device *d, float *p, int blocks)
{
	cudaLaunchConfig_t c = {};
	cudaLaunchAttribute a[1];
	a[0].id = cudaLaunchAttributeProgrammaticStreamSerialization;
	a[0].val.programmaticStreamSerializationAllowed = 1;
	c.gridDim = dim3((unsigned)blocks);
	c.blockDim = dim3(256);
	c.stream = (cudaStream_t)d->stream;
	c.attrs = a;
	c.numAttrs = 1;
	must_cuda(cudaLaunchKernelEx(&c, small_kernel, p));
}

static void chain(struct device *d, const char *name, int64_t hidden, int64_t qkv, int64_t gate_up,
                  int64_t down, int layers, int m, bool smalls)
{
	const int64_t n[4] = {qkv, hidden, gate_up, hidden}, k[4] = {hidden, hidden, hidden, down};
	struct nx_weight **w = (struct nx_weight **)malloc(sizeof(*w) * (size_t)layers * 4);
	double bytes = 0;
	for (int i = 0; i < layers * 4; i++) {
		w[i] = weight(d, n[i % 4], k[i % 4]);
		bytes += 2.0 * (double)(n[i % 4] * k[i % 4]);
	}
	void *x = zeros((size_t)(m * down) * 2), *y = zeros((size_t)(m * gate_up) * 4);
	float *p = (float *)zeros(1 << 20);
	struct nx_graph *g;
	must(ops->graph_begin(d->dev, d->stream, &err));
	for (int i = 0; i < layers * 4; i++) {
		struct nx_linear a = {};
		a.w = w[i];
		a.m = m;
		a.x = x;
		a.y = y;
		a.epilogue = i % 4 == 2 ? NX_EPI_SWIGLU : i % 4 ? NX_EPI_ADD : NX_EPI_STORE;
		if (smalls && i % 2 == 0)
			small(d, p, m);
		if (smalls && i % 4 == 1) {
			small(d, p, 32 * m);
			small(d, p, 32 * m);
		}
		must(ops->linear(d->dev, d->stream, &a, &err));
	}
	must(ops->graph_end(d->dev, d->stream, &g, &err));
	struct timing t = replay(d, g);
	printf("%-10s m=%-2d %d layers%s: %.1f us, %.2f us a layer, %.0f GB/s, %.0f%% of read\n",
	       name, m, layers, smalls ? ", small kernels" : "", t.median * 1e6,
	       t.median * 1e6 / layers, bytes / t.median / 1e9, 100 * bytes / t.median / read_rate);
	ops->graph_destroy(d->dev, g);
	for (int i = 0; i < layers * 4; i++)
		ops->weight_destroy(d->dev, w[i]);
	must_cuda(cudaFree(x));
	must_cuda(cudaFree(y));
	must_cuda(cudaFree(p));
	free(w);
}

static void bench_chain(void)
{
	struct device d = device_open(65);
	for (int smalls = 0; smalls < 2; smalls++) {
		for (int m = 1; m <= 16; m = m == 1 ? 8 : 2 * m)
			chain(&d, "7B", 4096, 12288, 22016, 11008, 8, m, smalls);
		chain(&d, "smollm2", 576, 960, 3072, 1536, 30, 1, smalls);
		chain(&d, "nano", 256, 512, 1024, 512, 8, 1, smalls);
	}
	ops->stream_destroy(d.dev, d.stream);
	ops->close(d.dev);
}

int main(int argc, char **argv)
{
	static const struct product wide[] = {
		{"qkv", 12288, 4096, NX_EPI_STORE, false},
		{"o", 4096, 4096, NX_EPI_ADD, false},
		{"gate_up", 22016, 4096, NX_EPI_SWIGLU, false},
		{"down", 4096, 11008, NX_EPI_ADD, false},
		{"head", 32000, 4096, NX_EPI_STORE, true},
	};
	static const struct product thin[] = {
		{"qkv", 960, 576, NX_EPI_STORE, false},
		{"o", 576, 576, NX_EPI_ADD, false},
		{"gate_up", 3072, 576, NX_EPI_SWIGLU, false},
		{"down", 576, 1536, NX_EPI_ADD, false},
		{"head", 49152, 576, NX_EPI_STORE, true},
		{"nano qkv", 512, 256, NX_EPI_STORE, false},
	};
	static const int rows[] = {1, 8, 16, 32, 64}, many[] = {128, 512, 2048, 8192};
	char path[1024];
	snprintf(path, sizeof(path), "%s/cuda.so", argc > 1 ? argv[1] : "build/backends");
	void *so = dlopen(path, RTLD_NOW | RTLD_LOCAL);
	if (!so) {
		fprintf(stderr, "gpu_linear: %s\n", dlerror());
		return EXIT_FAILURE;
	}
	ops = ((nx_backend_fn)dlsym(so, NX_BACKEND_SYMBOL))();
	struct device d = device_open(65);
	bench_read(&d);
	for (int i = 2; i < argc; i++) {
		double begin = now();
		if (!strcmp(argv[i], "shapes"))
			bench_products(wide, 5, rows, 5);
		else if (!strcmp(argv[i], "small"))
			bench_products(thin, 6, rows, 5);
		else if (!strcmp(argv[i], "large"))
			bench_products(wide, 5, many, 4);
		else if (!strcmp(argv[i], "chain"))
			bench_chain();
		printf("(%s: %.1f s)\n", argv[i], now() - begin);
	}
	ops->stream_destroy(d.dev, d.stream);
	ops->close(d.dev);
	return 0;
}
