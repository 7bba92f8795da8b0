/* SPDX-License-Identifier: Apache-2.0
 *
 * bench.h: what the benches share: the backend, a clock, turns and noise. Failures end the program.
 */
#ifndef NX_BENCH_H
#define NX_BENCH_H

#include <dlfcn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "nexus/device.h"

#define MAX_TURNS 64

static const struct nx_device_ops *ops;
static bool quick;

static inline double now(void)
{
	struct timespec t;
	clock_gettime(CLOCK_MONOTONIC, &t);
	return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

static inline void must(int rc, const struct nx_err *err)
{
	if (rc) {
		fprintf(stderr, "bench: %s\n", err->msg);
		exit(EXIT_FAILURE);
	}
}

static inline int compare(const void *a, const void *b)
{
	double x = *(const double *)a, y = *(const double *)b;
	return x < y ? -1 : x > y;
}

static inline double best_of(const double *x, int n)
{
	double best = x[0];
	for (int i = 1; i < n; i++)
		best = x[i] < best ? x[i] : best;
	return best;
}

static inline double median(double *x, int n)
{
	qsort(x, (size_t)n, sizeof(*x), compare);
	return x[n / 2];
}

static inline float noise(void)
{
	static uint64_t state = 88172645463325252u;
	state ^= state << 13;
	state ^= state >> 7;
	state ^= state << 17;
	return (float)(int32_t)(uint32_t)(state >> 16) * (1.0f / 2147483648.0f);
}

static inline float *noise_array(void *dev, size_t n)
{
	float *x = ops->alloc(dev, n * sizeof(*x));
	if (!x)
		exit(EXIT_FAILURE);
	for (size_t i = 0; i < n; i++)
		x[i] = noise();
	return x;
}

static inline void *open_device(const char *isa, int threads, const char *library_rows)
{
	struct nx_device_config cfg = {.isa = isa, .n_threads = threads, .dtype = NX_BF16};
	struct nx_err err;
	void *dev = NULL;
	setenv("NEXUS_LIBRARY_ROWS", library_rows, 1);
	must(ops->open(&dev, &cfg, &err), &err);
	return dev;
}

/* Reads the options and loads the backend: 0, or the exit status. */
static inline int bench_begin(int argc, char **argv, const char **isa, int *threads)
{
	const char *build = getenv("NEXUS_BUILD");
	char path[1024];
	*isa = "auto";
	*threads = 0;
	for (int i = 1; i < argc; i++) {
		if (!strcmp(argv[i], "--quick")) {
			quick = true;
		} else if (!strcmp(argv[i], "--isa") && i + 1 < argc) {
			*isa = argv[++i];
		} else if (!strcmp(argv[i], "--threads") && i + 1 < argc) {
			*threads = (int)strtol(argv[++i], NULL, 10);
		} else {
			fprintf(stderr, "usage: %s [--quick] [--isa NAME] [--threads N]\n",
			        argv[0]);
			return 2;
		}
	}
	snprintf(path, sizeof(path), "%s/backends/cpu.so", build ? build : "build");
	void *so = dlopen(path, RTLD_NOW | RTLD_LOCAL);
	nx_backend_fn entry = NULL;
	if (so)
		*(void **)&entry = dlsym(so, NX_BACKEND_SYMBOL);
	if (!entry) {
		fprintf(stderr, "bench: %s\n", dlerror());
		return 3;
	}
	ops = entry();
	return 0;
}

#endif
