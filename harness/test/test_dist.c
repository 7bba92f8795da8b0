/* SPDX-License-Identifier: Apache-2.0 */
/* Distributions of lengths: measure/experiment.h. */
#include <check.h>
#include <math.h>
#include <stdlib.h>

#include "measure/experiment.h"

START_TEST(draws_have_the_mean_that_is_told)
{
	static const struct nx_dist dists[] = {
		{NX_DIST_FIXED, 7, 7, 0, 0, 0},
		{NX_DIST_UNIFORM, 10, 50, 0, 0, 0},
		{NX_DIST_LOGNORMAL, 1, 1000000, 200, 0.5, 0},
		{NX_DIST_LOGNORMAL, 1, 128, 48, 0.6, 0},
		{NX_DIST_LOGNORMAL, 20, 300, 200, 1.5, 0},
		{NX_DIST_LOGNORMAL, 1, 300, 200, 0, 0},
	};
	for (size_t k = 0; k < sizeof(dists) / sizeof(*dists); k++) {
		enum { N = 40000 };
		const struct nx_dist *d = &dists[k];
		double sum = 0, sum2 = 0;
		for (int i = 0; i < N; i++) {
			int32_t v = nx_dist_draw(d, 3, (uint64_t)i);
			ck_assert(v >= d->min && v <= d->max);
			ck_assert_int_eq(v, nx_dist_draw(d, 3, (uint64_t)i));
			sum += v;
			sum2 += (double)v * v;
		}
		double mean = sum / N, sd = sqrt(fmax(sum2 / N - mean * mean, 0));
		/* 4 standard errors, and what rounding to whole tokens may shift */
		ck_assert_msg(fabs(mean - nx_dist_mean(d)) < 4 * sd / sqrt(N) + 0.05,
		              "%zu: %g, told %g", k, mean, nx_dist_mean(d));
	}
	char buf[64];
	ck_assert_str_eq(nx_dist_text(&dists[0], buf, sizeof(buf)), "7");
	ck_assert_str_eq(nx_dist_text(&dists[1], buf, sizeof(buf)), "uniform 10-50");
	ck_assert_str_eq(nx_dist_text(&dists[3], buf, sizeof(buf)),
	                 "lognormal mean 48 sigma 0.6 max 128");
}
END_TEST

int main(void)
{
	Suite *s = suite_create("dist");
	TCase *t = tcase_create("draws");
	tcase_add_test(t, draws_have_the_mean_that_is_told);
	suite_add_tcase(s, t);
	SRunner *run = srunner_create(s);
	srunner_run_all(run, CK_NORMAL);
	int failed = srunner_ntests_failed(run);
	srunner_free(run);
	return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}
