/* SPDX-License-Identifier: Apache-2.0
 *
 * bench_weight_quant [--quick] [--isa NAME] [--threads N]: products with weights of codes beside bf16 ones.
 *
 * The machine may be shared, so formats take turns and each figure is a ratio within a turn: medians, with the
 * quarters of the turns around them. A turn of few rows passes over more matrices than the last-level cache holds,
 * where memory allows it.
 */
#include "bench/bench.h"

#define N 2048
#define K 2048

static const struct {
	const char *name;
	struct nx_weight_quant f;
} formats[] = {
	{"bf16", {NX_WEIGHT_CODE_NONE, 0, false, false}},
	{"int8", {NX_WEIGHT_CODE_INT8, 0, false, false}},
	{"int8 g32", {NX_WEIGHT_CODE_INT8, 32, false, false}},
	{"int4 g32 zero", {NX_WEIGHT_CODE_INT4, 32, true, false}},
	{"int4 g128 zero", {NX_WEIGHT_CODE_INT4, 128, true, false}},
	{"fp8", {NX_WEIGHT_CODE_E4M3, 0, false, false}},
	{"int8 x int8", {NX_WEIGHT_CODE_INT8, 0, false, true}},
	{"int8 g32 x int8", {NX_WEIGHT_CODE_INT8, 32, false, true}},
	{"int4 g32 zero x int8", {NX_WEIGHT_CODE_INT4, 32, true, true}},
};
#define N_FORMATS ((int)(sizeof(formats) / sizeof(formats[0])))

static int noise_rows(void *ctx, int64_t row0, int64_t n, float *dst, struct nx_err *err)
{
	const struct nx_weight_desc *w = ctx;
	(void)row0;
	(void)err;
	for (int64_t i = 0; i < n * w->k; i++)
		dst[i] = noise();
	return 0;
}

/* Seconds of one pass over the matrices. */
static double pass(void *dev, struct nx_weight **w, int n, int32_t m, const float *x, float *y)
{
	struct nx_err err;
	double begin = now();
	for (int i = 0; i < n; i++) {
		struct nx_linear a = {.w = w[i], .m = m, .x = x, .y = y};
		must(ops->linear(dev, NULL, &a, &err), &err);
	}
	return now() - begin;
}

/* Lower quarter, median and upper quarter. */
static void spread(double *x, int n, double out[3])
{
	qsort(x, (size_t)n, sizeof(*x), compare);
	for (int i = 0; i < 3; i++)
		out[i] = x[(n - 1) * (i + 1) / 4];
}

static void bench_rows(void *dev, struct nx_weight ***w, int n_all, int32_t m, const float *x,
                       float *y)
{
	static double each[N_FORMATS][MAX_TURNS], ratio[MAX_TURNS], seconds[MAX_TURNS];
	int turns = quick ? 7 : 25, n = m > 16 ? (n_all < 4 ? n_all : 4) : n_all;
	for (int f = 0; f < N_FORMATS; f++)
		pass(dev, w[f], n, m, x, y);
	for (int t = 0; t < turns; t++)
		for (int f = 0; f < N_FORMATS; f++)
			each[f][t] = pass(dev, w[f], n, m, x, y) / n;
	for (int f = 0; f < N_FORMATS; f++) {
		double r[3], best = best_of(each[f], turns);
		for (int t = 0; t < turns; t++) {
			ratio[t] = each[0][t] / each[f][t];
			seconds[t] = each[f][t];
		}
		spread(ratio, turns, r);
		printf("%-22s %4d %9.1f %9.1f %8.2f %9.1f   %5.2f (%.2f to %.2f)\n",
		       formats[f].name, m, median(seconds, turns) * 1e6, best * 1e6,
		       (double)ops->weight_bytes(w[f][0]) / best * 1e-9,
		       2.0 * m * N * K / best * 1e-9, r[1], r[0], r[2]);
	}
}

int main(int argc, char **argv)
{
	static const int32_t rows[] = {1, 2, 4, 8, 14, 256};
	const char *isa;
	int threads, rc = bench_begin(argc, argv, &isa, &threads);
	if (rc)
		return rc;
	void *dev = open_device(isa, threads, "0");
	struct nx_device_info info;
	struct nx_err err;
	ops->info(dev, &info);
	/* Three sets are as large as the largest; half of what is free is left alone. */
	uint64_t bytes =
		info.llc_bytes < info.free_bytes / 8 ? info.llc_bytes : info.free_bytes / 8;
	int n = quick ? 8 : (int)(bytes / ((uint64_t)N * K / 2)) + 1;
	struct nx_weight **w[N_FORMATS];
	printf("%s, %s, %d threads; %d matrices of %d x %d; x: bf16's time / its own in the same turn\n",
	       info.name, info.isa, info.n_units, n, N, K);
	for (int f = 0; f < N_FORMATS; f++) {
		struct nx_weight_desc d = {.n = N,
		                           .k = K,
		                           .dtype = NX_BF16,
		                           .rows = noise_rows,
		                           .ctx = &d,
		                           .quant = formats[f].f};
		w[f] = calloc((size_t)n, sizeof(**w));
		for (int i = 0; i < n; i++)
			must(ops->weight_create(dev, &d, &w[f][i], &err), &err);
	}
	float *x = noise_array(dev, 256 * K), *y = noise_array(dev, 256 * N);
	printf("%-22s %4s %9s %9s %8s %9s   %s\n", "weights", "M", "us", "best us", "GB/s",
	       "GFLOP/s", "x, and quarters");
	for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++)
		bench_rows(dev, w, n, rows[i], x, y);
	for (int f = 0; f < N_FORMATS; f++) {
		for (int i = 0; i < n; i++)
			ops->weight_destroy(dev, w[f][i]);
		free(w[f]);
	}
	ops->free(dev, x, 256 * K * sizeof(*x));
	ops->free(dev, y, 256 * N * sizeof(*y));
	ops->close(dev);
	return 0;
}
