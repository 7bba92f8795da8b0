/* SPDX-License-Identifier: Apache-2.0
 *
 * measure/stats.h: the statistics behind every figure and every verdict.
 *
 * Percentiles interpolate linearly between closest ranks: rank p/100 * (n - 1), numpy's default.
 *
 * Intervals of one cell: percentile bootstrap of the median, hierarchical: rounds are resampled
 * with replacement, then the trials inside each drawn round. With fewer than about six rounds such
 * an interval is close to the range of the values and covers less than its nominal 95 %.
 *
 * Ratios of two cells are paired by round and treated on the log scale: d_i = ln(a_i / b_i). The
 * estimate is the geometric mean. The p-value is that of the paired t-test of mean(d) = 0. Why not
 * an exact sign-flip test: with n rounds its p cannot go below 2 / 2^n, so with Holm's correction
 * over m pairs it can never decide while m * 2 / 2^n >= 0.05 (three rounds: never; ten rounds: no
 * more than 25 pairs). The t-test is exact for normal log ratios at any n >= 3 and errs on the
 * careful side for heavier tails; test_stats.c measures its family-wise false-alarm rate. With
 * fewer than three rounds there is no test: the answer is "unclear". The interval reported for a
 * ratio is the hull of the t interval and the bootstrap interval of the same geometric mean, so
 * skewed noise widens it and nothing narrows it.
 *
 * Random numbers are seeded by the caller: the same data give the same figures. No function here
 * keeps state or allocates more than the stated scratch; NaN inputs are ignored where it says so.
 */
#ifndef NEXUS_MEASURE_STATS_H
#define NEXUS_MEASURE_STATS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define NX_BOOT_DEFAULT 2000 /* resamples */

struct nx_interval {
	double lo, hi; /* 95 %; NaN when there are too few values */
};

/* Drops NaN, sorts ascending in place, returns how many are left. */
size_t nx_sort(double *v, size_t n);
/* v is sorted; p in [0, 100]. NaN when n is 0. */
double nx_percentile(const double *v, size_t n, double p);
double nx_mean(const double *v, size_t n); /* NaN when n is 0 */
double nx_median(const double *v,
                 size_t n); /* of unsorted values, NaN ignored; NaN when none or no memory */

/* Student's t. Two-sided p of |t| with df degrees of freedom; the t whose two-sided p is given. */
double nx_t_p(double t, double df);
double nx_t_quantile(double p_two_sided, double df);

/* A SplitMix64 generator: enough for resampling. */
struct nx_rng {
	uint64_t s;
};
uint64_t nx_rng_next(struct nx_rng *r);
uint32_t nx_rng_below(struct nx_rng *r, uint32_t n); /* [0, n), n > 0 */
double nx_rng_normal(struct nx_rng *r);

/* 95 % interval of the median. round[i] is the round of v[i] (NULL: every value is its own round),
 * NaN values ignored. NaN interval for fewer than two rounds. */
struct nx_interval nx_boot_median(const double *v, const int32_t *round, size_t n, int n_boot,
                                  uint64_t seed);

/* ---- pairs ------------------------------------------------------------------------------------
 * */

struct nx_pair {
	size_t n;              /* rounds that both sides have */
	double ratio;          /* geometric mean of a_i / b_i; NaN when n is 0 */
	struct nx_interval ci; /* NaN when n < 3 */
	double p;              /* two-sided, uncorrected; NaN when n < 3 */
};

/* a[i] and b[i] are of one round; entries where either is NaN or not positive are left out. n_boot
 * 0: the t interval alone. */
struct nx_pair nx_pair_ratio(const double *a, const double *b, size_t n, int n_boot, uint64_t seed);

/* Holm's step-down correction in place over the entries that are not NaN; keeps the family-wise
 * error at the level under any dependence (every pair of a sweep shares the reference). */
void nx_holm(double *p, size_t n);

/* X(ID, name) */
#define NX_VERDICTS(X)                                                                             \
	X(NONE, "none")     /* nothing to compare with, or withheld */                             \
	X(FASTER, "faster") /* interval excludes 1, effect > min_effect, Holm's p < 0.05 */        \
	X(SLOWER, "slower")                                                                        \
	X(SAME, "same")       /* the interval lies within 1 +- min_effect */                       \
	X(UNCLEAR, "unclear") /* anything else: more rounds would tell */

/* The values are those of enum nx_pair_verdict in record/run.h. p_holm is corrected. */
enum nx_verdict_id {
#define X(id, name) NX_VERDICT_ID_##id,
	NX_VERDICTS(X)
#undef X
		NX_VERDICT_COUNT
};
int nx_pair_verdict(const struct nx_pair *pair, double p_holm, double min_effect);
const char *nx_verdict_name(int verdict);

/* ---- when a cell has had enough trials --------------------------------------------------------
 * */

struct nx_stop_rule {
	int32_t min, max;
	double rel_ci; /* stop when half-width / median is below; 0 = only max counts */
};

/* True when no more trials are needed. v: the headline figure of each usable trial; n_tried: all
 * trials, usable or not. The half-width is the larger of the t interval's and the bootstrap
 * interval's. */
bool nx_stop(const struct nx_stop_rule *r, const double *v, size_t n, size_t n_tried);

#endif
