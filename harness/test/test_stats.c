/* SPDX-License-Identifier: Apache-2.0 */
/* Statistics against known values; the error rates of the verdicts are test_truth.c's. */
#include <check.h>
#include <math.h>
#include <stdlib.h>

#include "base/rng.h"
#include "measure/stats.h"
#include "record/run.h"

START_TEST(percentiles_interpolate_as_numpy)
{
	double v[] = {4, NAN, 1, 3, 2};
	size_t n = nx_sort(v, 5);

	ck_assert_uint_eq(n, 4);
	ck_assert_double_eq(nx_percentile(v, n, 0), 1);
	ck_assert_double_eq_tol(nx_percentile(v, n, 50), 2.5, 1e-12);
	ck_assert_double_eq_tol(nx_percentile(v, n, 90), 3.7,
	                        1e-12); /* numpy.percentile([1,2,3,4], 90) */
	ck_assert_double_eq_tol(nx_percentile(v, n, 99), 3.97, 1e-12);
	ck_assert_double_eq(nx_percentile(v, n, 100), 4);
	ck_assert(isnan(nx_percentile(v, 0, 50)));
	ck_assert(isnan(nx_mean(v, 0)));
	ck_assert_double_eq_tol(nx_mean(v, n), 2.5, 1e-12);
	ck_assert_double_eq(nx_median((double[]){9, NAN, 1}, 3), 5);
}
END_TEST

START_TEST(sorting_is_right_for_short_and_long)
{
	double v[1000];
	struct nx_rng rng = {3};

	for (size_t n = 0; n <= 1000; n = n < 40 ? n + 1 : n * 5) {
		for (size_t i = 0; i < n; i++)
			v[i] = nx_rng_normal(&rng);
		ck_assert_uint_eq(nx_sort(v, n), n);
		for (size_t i = 1; i < n; i++)
			ck_assert(v[i - 1] <= v[i]);
	}
}
END_TEST

/* Tables of Student's t: two-sided 5 % and 1 %. */
START_TEST(t_quantiles_match_tables)
{
	static const struct {
		double p, df, t;
	} want[] = {
		{0.05, 1, 12.7062}, {0.05, 2, 4.3027},   {0.05, 9, 2.2622},   {0.05, 30, 2.0423},
		{0.01, 4, 4.6041},  {0.01, 100, 2.6259}, {0.05, 1e6, 1.9600},
	};
	for (size_t i = 0; i < sizeof(want) / sizeof(*want); i++) {
		ck_assert_double_eq_tol(nx_t_quantile(want[i].p, want[i].df), want[i].t, 6e-5);
		ck_assert_double_eq_tol(nx_t_p(nx_t_quantile(want[i].p, want[i].df), want[i].df),
		                        want[i].p, 1e-9);
	}
	ck_assert_double_eq_tol(nx_t_p(0, 5), 1, 1e-12);
	ck_assert(isnan(nx_t_p(1, 0)));
	ck_assert_double_eq(nx_t_p(INFINITY, 3), 0);
}
END_TEST

START_TEST(holm_steps_down_and_keeps_order)
{
	double p[] = {0.01, 0.04, NAN, 0.03, 0.005}, want[] = {0.03, 0.06, NAN, 0.06, 0.02};

	nx_holm(p, 5);
	for (int i = 0; i < 5; i++)
		if (i == 2)
			ck_assert(isnan(p[i]));
		else
			ck_assert_double_eq_tol(p[i], want[i], 1e-12);
}
END_TEST

START_TEST(bootstrap_is_deterministic_and_covers)
{
	struct nx_rng rng = {5};
	int hit = 0;

	for (int sim = 0; sim < 400; sim++) {
		double v[20];
		for (int i = 0; i < 20; i++)
			v[i] = 100 + nx_rng_normal(&rng);
		struct nx_interval a = nx_boot_median(v, NULL, 20, 500, 7),
				   b = nx_boot_median(v, NULL, 20, 500, 7);
		ck_assert(a.lo == b.lo && a.hi == b.hi && a.lo <= a.hi);
		hit += a.lo <= 100 && 100 <= a.hi;
	}
	ck_assert_int_ge(hit,
	                 360); /* nominal 380; a percentile bootstrap of n = 20 is a little short */
	ck_assert(isnan(nx_boot_median((double[]){1}, NULL, 1, 100, 1).lo));
}
END_TEST

/* Ten equal trials in each of three rounds: the rounds carry the noise, and pretending that the
 * thirty trials are independent would give a far narrower interval. */
START_TEST(bootstrap_resamples_rounds_first)
{
	double v[30];
	int32_t round[30];

	for (int i = 0; i < 30; i++) {
		round[i] = i / 10;
		v[i] = 100 + 10 * round[i] + 0.01 * (i % 10);
	}
	struct nx_interval by_round = nx_boot_median(v, round, 30, 2000, 1),
			   flat = nx_boot_median(v, NULL, 30, 2000, 1);
	ck_assert_double_lt(by_round.lo, 100.1);
	ck_assert_double_gt(by_round.hi, 119.9);
	ck_assert_double_lt(flat.hi - flat.lo, by_round.hi - by_round.lo);
}
END_TEST

/* The t interval of the logarithms where the bootstrap is too narrow; never below 0; exact without spread. */
START_TEST(a_cells_interval_is_wide_enough_for_its_rounds)
{
	double v[] = {100, NAN, 102, 98}, zero[] = {0, 2, 0, 1}, same[] = {0.3, 0.3, 0.3};
	struct nx_interval boot = nx_boot_median(v, NULL, 4, 500, 1),
			   ci = nx_cell_interval(v, 4, 500, 1);
	ck_assert_double_ge(boot.lo, 98);
	ck_assert_double_eq_tol(ci.lo, 95.13, 0.05); /* exp(ln 100 -+ 4.303 x 0.01155), nearly */
	ck_assert_double_eq_tol(ci.hi, 105.10, 0.1);
	ci = nx_cell_interval(zero, 4, 500, 1);
	ck_assert(ci.lo == 0 && ci.hi > 2 && ci.hi < 4);
	ci = nx_cell_interval(same, 3, 500, 1);
	ck_assert(ci.lo == 0.3 && ci.hi == 0.3);
	ck_assert(isnan(nx_cell_interval(v, 2, 500, 1).lo));
	ck_assert(isnan(nx_cell_interval(v, 0, 500, 1).hi));
}
END_TEST

START_TEST(pairs_cancel_what_rounds_share)
{
	double a[] = {104, 208, 52.5, 131, 418, 10.45}, b[] = {100, 200, 50, 125, 400, 10};
	struct nx_pair p = nx_pair_ratio(a, b, 6, 1000, 1);

	ck_assert_uint_eq(p.n, 6);
	ck_assert_double_eq_tol(p.ratio, 1.0447, 1e-3);
	ck_assert(p.ci.lo > 1.03 && p.ci.hi < 1.06 && p.ci.lo < p.ratio && p.ratio < p.ci.hi);
	ck_assert_double_lt(p.p, 0.001);
	ck_assert_int_eq(nx_pair_verdict(&p, p.p, 0.01), NX_VERDICT_FASTER);
	p = nx_pair_ratio(b, a, 6, 1000, 1);
	ck_assert_int_eq(nx_pair_verdict(&p, p.p, 0.01), NX_VERDICT_SLOWER);
	ck_assert_int_eq(nx_pair_verdict(&p, 0.06, 0.01), NX_VERDICT_UNCLEAR);
	ck_assert_int_eq(nx_pair_verdict(&p, p.p, 0.2), NX_VERDICT_SAME);
}
END_TEST

START_TEST(few_or_odd_pairs_are_unclear)
{
	struct nx_pair p = nx_pair_ratio((double[]){2, 2}, (double[]){1, 1}, 2, 100, 1);
	ck_assert_double_eq_tol(p.ratio, 2, 1e-12);
	ck_assert(isnan(p.p) && isnan(p.ci.lo));
	ck_assert_int_eq(nx_pair_verdict(&p, p.p, 0.01), NX_VERDICT_UNCLEAR);

	p = nx_pair_ratio((double[]){NAN, 0, -1, INFINITY}, (double[]){1, 1, 1, 1}, 4, 100, 1);
	ck_assert_uint_eq(p.n, 0);
	ck_assert_int_eq(nx_pair_verdict(&p, p.p, 0.01), NX_VERDICT_NONE);

	/* Certain to the eye, and below what a verdict takes. */
	double five[] = {5, 5.01, 5, 4.99, 5}, one[] = {1, 1, 1, 1, 1, 1};
	p = nx_pair_ratio(five, one, 5, 100, 1);
	ck_assert(p.ci.lo > 4.9 && p.ci.hi < 5.1 && isnan(p.p));
	ck_assert_int_eq(nx_pair_verdict(&p, 0, 0.01), NX_VERDICT_UNCLEAR);

	p = nx_pair_ratio(one, one, NX_VERDICT_ROUNDS, 100, 1); /* no spread at all */
	ck_assert_double_eq(p.p, 1);
	ck_assert_int_eq(nx_pair_verdict(&p, p.p, 0.01), NX_VERDICT_SAME);

	ck_assert_int_eq(NX_VERDICT_ID_FASTER, NX_VERDICT_FASTER);
	ck_assert_int_eq(NX_VERDICT_ID_UNCLEAR, NX_VERDICT_UNCLEAR);
	ck_assert_str_eq(nx_verdict_name(NX_VERDICT_SAME), "same");
	ck_assert_str_eq(nx_verdict_name(99), "unknown");
}
END_TEST

START_TEST(stopping_rule_stops_when_it_should)
{
	struct nx_stop_rule exact = {10, 10, 0}, adaptive = {3, 30, 0.02};
	double tight[] = {100, 100.1, 99.9, 100}, wide[] = {80, 100, 120, 100};

	ck_assert(!nx_stop(&exact, tight, 4, 4));
	ck_assert(nx_stop(&exact, tight, 4, 10));
	ck_assert(!nx_stop(&adaptive, tight, 2, 2));
	ck_assert(nx_stop(&adaptive, tight, 4, 4));
	ck_assert(!nx_stop(&adaptive, wide, 4, 4));
	ck_assert(nx_stop(&adaptive, wide, 4, 30));
	ck_assert(!nx_stop(&adaptive, tight, 0, 5)); /* all trials failed so far */
}
END_TEST

int main(void)
{
	Suite *s = suite_create("stats");
	TCase *tc = tcase_create("stats");

	tcase_set_timeout(tc, 120);
	tcase_add_test(tc, percentiles_interpolate_as_numpy);
	tcase_add_test(tc, sorting_is_right_for_short_and_long);
	tcase_add_test(tc, t_quantiles_match_tables);
	tcase_add_test(tc, holm_steps_down_and_keeps_order);
	tcase_add_test(tc, bootstrap_is_deterministic_and_covers);
	tcase_add_test(tc, bootstrap_resamples_rounds_first);
	tcase_add_test(tc, a_cells_interval_is_wide_enough_for_its_rounds);
	tcase_add_test(tc, pairs_cancel_what_rounds_share);
	tcase_add_test(tc, few_or_odd_pairs_are_unclear);
	tcase_add_test(tc, stopping_rule_stops_when_it_should);
	suite_add_tcase(s, tc);
	SRunner *r = srunner_create(s);
	srunner_run_all(r, CK_NORMAL);
	int failed = srunner_ntests_failed(r);
	srunner_free(r);
	return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}
