/* SPDX-License-Identifier: Apache-2.0
 *
 * measure/stats.h: the statistics behind every figure and every verdict.
 *
 * Percentiles interpolate linearly between closest ranks: rank p/100 * (n - 1), numpy's default.
 *
 * Intervals of one cell: the hull of the percentile bootstrap of the median (hierarchical: rounds are
 * resampled with replacement, then the trials inside each drawn round) and of the t interval of the mean,
 * on the log scale where all values are positive. The bootstrap alone is too narrow with few rounds: its
 * ends are never outside the values, so three rounds cover the median with 75 % at best, five with 94 %
 * (1 - 2^(1 - n), the order statistics' own coverage: David and Nagaraja, Order Statistics, 7.1; on small
 * samples see Hesterberg, What Teachers Should Know About the Bootstrap, 2015, arXiv 1411.5279).
 *
 * Ratios of two cells are paired by round and treated on the log scale: d_i = ln(a_i / b_i). The
 * estimate is the geometric mean. The p-value is that of the paired t-test of mean(d) = 0. Why not
 * an exact sign-flip test: with n rounds its p cannot go below 2 / 2^n, so with Holm's correction
 * over m pairs it can never decide while m * 2 / 2^n >= 0.05 (three rounds: never; ten rounds: no
 * more than 25 pairs). The t-test is exact for normal log ratios at any n >= 3 and errs on the
 * careful side for heavier tails. The interval reported for a ratio is the hull of the t interval and
 * the bootstrap interval of the same geometric mean, so skewed noise widens it and nothing narrows it.
 *
 * A verdict takes NX_VERDICT_ROUNDS rounds; below, the answer is "unclear". What a t-test cannot see is
 * noise of two modes (the placement of pages, two clock rates): while one side happens to stay in one
 * mode and the other in the other, a difference shows without any spread. All n rounds of a reference
 * share a mode with probability 2^(1 - n), and then each of its pairs may follow: with three rounds 45 % of
 * simulated A/A sweeps of 24 pairs gave an alarm, with five 6 %, with six 2 %. No assumption about the
 * noise helps there: that is the same 2^(1 - n) that bounds an exact sign-flip test. test_truth.c measures
 * the false-alarm rate, power and coverage of all this under nine kinds of noise.
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
#define NX_VERDICT_ROUNDS 6  /* rounds in common that a verdict takes */

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

/* 95 % interval of the median. round[i] is the round of v[i] (NULL: every value is its own round),
 * NaN values ignored. NaN interval for fewer than two rounds. */
struct nx_interval nx_boot_median(const double *v, const int32_t *round, size_t n, int n_boot,
                                  uint64_t seed);

/* 95 % interval of a cell's figure, one value a round: the hull described above, not below 0 where no
 * value is. NaN values ignored; NaN interval for fewer than two. */
struct nx_interval nx_cell_interval(const double *v, size_t n, int n_boot, uint64_t seed);

/* ---- pairs ------------------------------------------------------------------------------------
 * */

struct nx_pair {
	size_t n;              /* rounds that both sides have */
	double ratio;          /* geometric mean of a_i / b_i; NaN when n is 0 */
	struct nx_interval ci; /* NaN when n < 3 */
	double p;              /* two-sided, uncorrected; NaN when n < NX_VERDICT_ROUNDS */
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
