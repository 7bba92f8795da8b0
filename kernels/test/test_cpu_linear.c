/* SPDX-License-Identifier: Apache-2.0 */
#include <check.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "kernel_test.h"

static const struct {
	int64_t n, k;
} shapes[] = {{1, 1}, {2, 3}, {16, 16}, {18, 7}, {30, 33}, {48, 64}, {130, 65}, {258, 96}};
static const int32_t row_counts[] = {1, 2, 3, 4, 5, 6, 8, 9, 14, 15, 33};
#define N_SHAPES ((int)(sizeof(shapes) / sizeof(shapes[0])))
#define N_ROW_COUNTS ((int)(sizeof(row_counts) / sizeof(row_counts[0])))

/*
 * One product against float64. A sum of k rounded products, in any order, is off by at most k 2^-24 sum|x w|
 * (2^-8 sum|x w| more where x is rounded to bf16). SwiGLU passes both errors on with factors of at most 1.1 |up|
 * and |gate|, plus 8 ulp of its own.
 */
static void check_product(struct rig *r, int isa, int64_t n, int64_t k, int32_t m,
                          enum nx_dtype dtype, enum nx_epilogue epilogue)
{
	float *w, *x = noise_array(m * k, 7);
	int64_t cols = epilogue == NX_EPI_SWIGLU ? n / 2 : n;
	struct nx_weight *weight = rig_weight(r, n, k, dtype, 3, &w);
	float *y = noise_array(m * cols, 5);
	struct nx_linear a = {
		.w = weight, .m = m, .x = x, .y = y, .epilogue = epilogue, .y_f32 = true};
	rig_ok(r, r->ops->linear(r->dev, NULL, &a, &r->err));
	double unit = (double)(k + 2) * ldexp(1, -24);
	if (dtype == NX_BF16 && !strcmp(isa_name(isa), "avx512bf16"))
		unit += ldexp(1, -8);
	for (int64_t row = 0; row < m; row++)
		for (int64_t j = 0; j < cols; j++) {
			double sum[2] = {0, 0}, size[2] = {0, 0};
			for (int part = 0; part < (epilogue == NX_EPI_SWIGLU ? 2 : 1); part++)
				for (int64_t i = 0; i < k; i++) {
					int64_t feature =
						epilogue == NX_EPI_SWIGLU ? 2 * j + part : j;
					double p = (double)w[feature * k + i] * x[row * k + i];
					sum[part] += p;
					size[part] += fabs(p);
				}
			double want = sum[0], tol = unit * size[0] + 1e-30;
			if (epilogue == NX_EPI_ADD) {
				want += noise(5, (uint64_t)(row * cols + j));
				tol += fabs(want) * ldexp(1, -23);
			} else if (epilogue == NX_EPI_SWIGLU) {
				want = sum[0] / (1 + exp(-sum[0])) * sum[1];
				tol = 1.1 * unit *
				              (size[0] * fabs(sum[1]) + size[1] * fabs(sum[0])) +
				      2 * unit * unit * size[0] * size[1] +
				      fabs(want) * ldexp(1, -20);
			}
			double got = y[row * cols + j];
			ck_assert_msg(fabs(got - want) <= tol,
			              "%s n %d k %d m %d epilogue %d [%d, %d]: %g, not %g",
			              isa_name(isa), (int)n, (int)k, m, epilogue, (int)row, (int)j,
			              got, want);
		}
	r->ops->weight_destroy(r->dev, weight);
	free(w);
	free(x);
	free(y);
}

START_TEST(products_match_float64)
{
	for (int isa = 0; isa < N_ISAS; isa++) {
		struct rig r;
		if (!rig_open(&r, isa, 1 + _i % 3, false))
			continue;
		for (int m = 0; m < N_ROW_COUNTS; m++)
			for (int dtype = 0; dtype < 2; dtype++)
				for (int e = NX_EPI_STORE; e <= NX_EPI_SWIGLU; e++)
					if (e != NX_EPI_SWIGLU || shapes[_i].n % 2 == 0)
						check_product(&r, isa, shapes[_i].n, shapes[_i].k,
						              row_counts[m], (enum nx_dtype)dtype,
						              (enum nx_epilogue)e);
		rig_close(&r);
	}
}
END_TEST

START_TEST(library_products_match_float64)
{
	setenv("NEXUS_LIBRARY_ROWS", "33", 1);
	for (int isa = 1; isa < N_ISAS; isa++) {
		struct rig r;
		if (!rig_open(&r, isa, 2, false))
			continue;
		for (int e = NX_EPI_STORE; e <= NX_EPI_SWIGLU; e++) {
			check_product(&r, 3, 130, 65, 33, NX_F32, (enum nx_epilogue)e);
			check_product(&r, 3, 258, 96, 64, NX_BF16, (enum nx_epilogue)e);
		}
		rig_close(&r);
	}
	unsetenv("NEXUS_LIBRARY_ROWS");
}
END_TEST

/* A row's product has the same bits in every company, for every number of threads. */
START_TEST(invariant_rows_have_the_same_bits_for_every_m)
{
	enum { N = 174, K = 131, ROWS = 70 };
	float *x = noise_array(ROWS * K, 1);
	setenv("NEXUS_LIBRARY_ROWS", "33", 1); /* invariant mode takes no library */
	for (int isa = 1; isa < N_ISAS; isa++)
		for (int dtype = 0; dtype < 2; dtype++) {
			float *alone = malloc(sizeof(float) * ROWS * N),
			      *together = malloc(sizeof(float) * ROWS * N);
			for (int threads = 1; threads <= 3; threads++) {
				struct rig r;
				if (!rig_open(&r, isa, threads, true))
					break;
				struct nx_weight *w =
					rig_weight(&r, N, K, (enum nx_dtype)dtype, 2, NULL);
				for (int row = 0; row < ROWS && threads == 1; row++) {
					struct nx_linear a = {.w = w,
					                      .m = 1,
					                      .x = x + row * K,
					                      .y = alone + row * N};
					rig_ok(&r, r.ops->linear(r.dev, NULL, &a, &r.err));
				}
				for (int32_t m = 1; m <= ROWS; m++) {
					struct nx_linear a = {
						.w = w, .m = m, .x = x, .y = together};
					rig_ok(&r, r.ops->linear(r.dev, NULL, &a, &r.err));
					ck_assert_msg(!memcmp(alone, together,
					                      sizeof(float) * (size_t)m * N),
					              "%s: m = %d with %d threads differs",
					              isa_name(isa), m, threads);
				}
				r.ops->weight_destroy(r.dev, w);
				rig_close(&r);
			}
			free(alone);
			free(together);
		}
	unsetenv("NEXUS_LIBRARY_ROWS");
	free(x);
}
END_TEST

START_TEST(calibration_measures_all_rates)
{
	struct rig r;
	struct nx_calibration c;
	struct nx_counted counted;
	ck_assert(rig_open(&r, 0, 1, false));
	rig_close(&r);
	if (!rig_open(&r, 1, 2, false))
		return;
	rig_ok(&r, r.ops->calibrate(r.dev, 0.2, &c, &r.err));
	ck_assert(c.read_bytes_per_s > 1e8 && c.copy_bytes_per_s > 1e8 &&
	          c.cache_read_bytes_per_s > 1e8);
	ck_assert(c.f32_flops_per_s > 1e7 && c.bf16_flops_per_s > 1e7);
	ck_assert(c.mem_set_bytes > c.cache_set_bytes && c.cache_set_bytes > 0);
	r.ops->counted(r.dev, &counted);
	ck_assert_uint_eq(counted.flops, 0);
	rig_close(&r);
}
END_TEST

START_TEST(unknown_instruction_sets_are_refused)
{
	struct rig r;
	void *dev = NULL;
	struct nx_device_config cfg = {.isa = "sparc"};
	ck_assert(rig_open(&r, 0, 1, false));
	ck_assert_int_eq(r.ops->open(&dev, &cfg, &r.err), NX_EINVAL);
	ck_assert_ptr_null(dev);
	rig_close(&r);
}
END_TEST

int main(void)
{
	Suite *s = suite_create("cpu_linear");
	TCase *tc = tcase_create("linear");
	tcase_set_timeout(tc, 120);
	tcase_add_loop_test(tc, products_match_float64, 0, N_SHAPES);
	tcase_add_test(tc, library_products_match_float64);
	tcase_add_test(tc, invariant_rows_have_the_same_bits_for_every_m);
	tcase_add_test(tc, calibration_measures_all_rates);
	tcase_add_test(tc, unknown_instruction_sets_are_refused);
	suite_add_tcase(s, tc);
	SRunner *sr = srunner_create(s);
	srunner_run_all(sr, CK_NORMAL);
	int failed = srunner_ntests_failed(sr);
	srunner_free(sr);
	return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}
