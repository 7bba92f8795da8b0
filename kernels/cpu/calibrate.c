/* SPDX-License-Identifier: Apache-2.0
 *
 * Peaks of this machine, by the same pool and the same loads that the operations use. Each figure is the best of
 * several repetitions: a peak is a ceiling, and neighbours only take away from it.
 */
#include <stdlib.h>
#include <time.h>
#include <unistd.h>

#include "cpu/cpu.h"
#include "cpu/library.h"

#define GIB ((size_t)1 << 30)
#define LINE 4096 /* what is dealt out to threads */
#define PRODUCT_ROWS 256
#define PRODUCT_SIZE 2048

static double now(void)
{
	struct timespec t;
	clock_gettime(CLOCK_MONOTONIC, &t);
	return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

struct stream_job {
	struct cpu_dev *d;
	char *from, *to;
	float *keep; /* [threads * 16] */
};

static void read_part(void *ctx, int64_t begin, int64_t end, int thread)
{
	struct stream_job *j = ctx;
	j->keep[thread * 16] = j->d->k->read(j->from + begin * LINE, (size_t)(end - begin) * LINE);
}

static void copy_part(void *ctx, int64_t begin, int64_t end, int thread)
{
	struct stream_job *j = ctx;
	(void)thread;
	memcpy(j->to + begin * LINE, j->from + begin * LINE, (size_t)(end - begin) * LINE);
}

static void touch_part(void *ctx, int64_t begin, int64_t end, int thread)
{
	struct stream_job *j = ctx;
	(void)thread;
	memset(j->from + begin * LINE, 1, (size_t)(end - begin) * LINE);
}

/* Best seconds of one pass over `bytes`; at least 3 passes. */
static double best_pass(struct cpu_dev *d, pool_fn fn, struct stream_job *job, size_t bytes,
                        double seconds)
{
	double best = 0, until = now() + seconds;
	for (int i = 0; i < 3 || now() < until; i++) {
		double t = now();
		pool_for(d->pool, (int64_t)(bytes / LINE), fn, job);
		t = now() - t;
		best = best == 0 || t < best ? t : best;
	}
	return best;
}

static int small_rows(void *ctx, int64_t row0, int64_t n, float *dst, struct nx_err *err)
{
	const struct nx_weight_desc *w = ctx;
	(void)err;
	for (int64_t i = 0; i < n * w->k; i++)
		dst[i] = (float)((row0 + i) % 17) * 0.01f;
	return 0;
}

/* flop/s of one kind of product. */
static int product_rate(struct cpu_dev *d, enum nx_dtype dtype, bool library, double seconds,
                        double *rate, struct nx_err *err)
{
	struct nx_weight_desc desc = {.n = PRODUCT_SIZE,
	                              .k = PRODUCT_SIZE,
	                              .dtype = dtype,
	                              .rows = small_rows,
	                              .ctx = &desc};
	struct nx_weight *w = NULL;
	size_t bytes = sizeof(float) * PRODUCT_ROWS * PRODUCT_SIZE;
	float *x = cpu_alloc(d, bytes), *y = cpu_alloc(d, bytes);
	int32_t min_m = d->library_min_m;
	int rc = x && y ? cpu_weight_create(d, &desc, &w, err)
	                : nx_fail(err, NX_ENOMEM, "no memory to measure products");
	if (!rc) {
		struct nx_linear a = {.w = w, .m = PRODUCT_ROWS, .x = x, .y = y};
		double best = 0, until = now() + seconds;
		for (int i = 0; i < PRODUCT_ROWS * PRODUCT_SIZE; i++)
			x[i] = (float)(i % 13) * 0.1f;
		d->library_min_m = 0;
		for (int i = 0; !rc && (i < 3 || now() < until); i++) {
			double t = now();
			rc = library ? library_linear(d, w, a.m, x, y, err)
			             : fast_linear(d, &a, err);
			t = now() - t;
			best = best == 0 || t < best ? t : best;
		}
		d->library_min_m = min_m;
		*rate = 2.0 * PRODUCT_ROWS * PRODUCT_SIZE * PRODUCT_SIZE / best;
	}
	cpu_weight_destroy(d, w);
	cpu_free(d, x, bytes);
	cpu_free(d, y, bytes);
	return rc;
}

int cpu_calibrate(void *dev, double seconds, struct nx_calibration *out, struct nx_err *err)
{
	struct cpu_dev *d = dev;
	struct nx_counted counted = d->counted;
	char name[64];
	long l3 = sysconf(_SC_LEVEL3_CACHE_SIZE);
	size_t llc = l3 > 0 ? (size_t)l3 : (size_t)32 << 20;
	size_t cap = cpu_free_bytes() / 4 / LINE * LINE;
	size_t mem = 4 * llc > GIB ? 4 * llc : GIB;
	mem = mem > cap && cap > GIB / 4 ? cap : mem;
	mem = mem / LINE * LINE;
	/* The L3 of a cloud machine is shared with tenants that we do not see: take a modest part. */
	size_t cache = llc / 4 < ((size_t)32 << 20) ? llc / 4 : (size_t)32 << 20;
	cache = (cache + LINE - 1) / LINE * LINE;
	struct stream_job job = {.d = d,
	                         .keep = calloc((size_t)pool_size(d->pool) * 16, sizeof(float))};
	int rc = 0;

	*out = (struct nx_calibration){.cache_set_bytes = cache, .mem_set_bytes = mem};
	job.from = cpu_alloc(d, mem);
	if (!job.from || !job.keep) {
		rc = nx_fail(err, NX_ENOMEM, "no memory for a working set of %zu bytes", mem);
		goto out;
	}
	job.to = job.from + mem / 2 / LINE * LINE;
	pool_for(d->pool, (int64_t)(mem / LINE), touch_part, &job);
	out->read_bytes_per_s = (double)mem / best_pass(d, read_part, &job, mem, seconds * 0.25);
	out->copy_bytes_per_s =
		2.0 * (double)(mem / 2) / best_pass(d, copy_part, &job, mem / 2, seconds * 0.15);
	out->cache_read_bytes_per_s =
		(double)cache / best_pass(d, read_part, &job, cache, seconds * 0.1);
	cpu_free(d, job.from, mem);
	job.from = NULL;
	if (!d->k->gemm_f32) /* the reference is not worth a rate */
		goto out;
	rc = product_rate(d, NX_F32, false, seconds * 0.15, &out->f32_flops_per_s, err);
	if (!rc)
		rc = product_rate(d, NX_BF16, false, seconds * 0.15, &out->bf16_flops_per_s, err);
	library_name(name, sizeof(name));
	if (!rc && *name && !d->cfg.invariant)
		rc = product_rate(d, d->cfg.dtype, true, seconds * 0.2, &out->blas_flops_per_s,
		                  err);
out:
	cpu_free(d, job.from, mem);
	free(job.keep);
	d->counted = counted;
	return rc;
}
