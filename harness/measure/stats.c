/* SPDX-License-Identifier: Apache-2.0 */
/* See stats.h. */
#include "measure/stats.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/rng.h"

static const double two_pi = 6.283185307179586;

static int by_value(const void *a, const void *b)
{
	double x = *(const double *)a, y = *(const double *)b;
	return (x > y) - (x < y);
}

size_t nx_sort(double *v, size_t n)
{
	size_t k = 0;

	for (size_t i = 0; i < n; i++)
		if (!isnan(v[i]))
			v[k++] = v[i];
	if (k > 24) {
		qsort(v, k, sizeof(*v), by_value);
		return k;
	}
	for (size_t i = 1; i < k; i++) { /* resamples are short, and there are many */
		double x = v[i];
		size_t j = i;
		for (; j && v[j - 1] > x; j--)
			v[j] = v[j - 1];
		v[j] = x;
	}
	return k;
}

double nx_percentile(const double *v, size_t n, double p)
{
	if (!n)
		return NAN;
	double rank = p / 100.0 * (double)(n - 1);
	if (rank <= 0)
		return v[0];
	if (rank >= (double)(n - 1))
		return v[n - 1];
	size_t lo = (size_t)rank;
	return v[lo] + (rank - (double)lo) * (v[lo + 1] - v[lo]);
}

double nx_mean(const double *v, size_t n)
{
	double sum = 0;

	for (size_t i = 0; i < n; i++)
		sum += v[i];
	return n ? sum / (double)n : NAN;
}

double nx_median(const double *v, size_t n)
{
	double *copy = malloc((n ? n : 1) * sizeof(*copy));

	if (!copy)
		return NAN;
	if (n)
		memcpy(copy, v, n * sizeof(*copy));
	double median = nx_percentile(copy, nx_sort(copy, n), 50);
	free(copy);
	return median;
}

/* ---- Student's t ------------------------------------------------------------------------------
 * */

/* Continued fraction of the incomplete beta function (DLMF 8.17.22), by Lentz's method. */
static double beta_fraction(double x, double a, double b)
{
	const double tiny = 1e-300;
	double c = 1, d = 1 - (a + b) * x / (a + 1);

	d = 1 / (fabs(d) < tiny ? tiny : d);
	double h = d;
	for (int m = 1; m < 500; m++) {
		double even = m * (b - m) * x / ((a + 2 * m - 1) * (a + 2 * m));
		double odd = -(a + m) * (a + b + m) * x / ((a + 2 * m) * (a + 2 * m + 1));
		double step = 1;
		for (int half = 0; half < 2; half++) {
			double f = half ? odd : even;
			d = 1 + f * d;
			d = 1 / (fabs(d) < tiny ? tiny : d);
			c = 1 + f / c;
			c = fabs(c) < tiny ? tiny : c;
			step = c * d;
			h *= step;
		}
		if (fabs(step - 1) < 1e-14)
			break;
	}
	return h;
}

/* Regularised incomplete beta function I_x(a, b). */
static double beta_inc(double x, double a, double b)
{
	if (x <= 0)
		return 0;
	if (x >= 1)
		return 1;
	double front = exp(lgamma(a + b) - lgamma(a) - lgamma(b) + a * log(x) + b * log1p(-x));
	if (x < (a + 1) / (a + b + 2))
		return front * beta_fraction(x, a, b) / a;
	return 1 - front * beta_fraction(1 - x, b, a) / b;
}

double nx_t_p(double t, double df)
{
	if (isnan(t) || !(df > 0))
		return NAN;
	if (isinf(t))
		return 0;
	return beta_inc(df / (df + t * t), df / 2, 0.5);
}

/* Newton's method inside a bracket: p falls with t, its slope is twice the density. */
double nx_t_quantile(double p, double df)
{
	double lo = 0, hi = 1, t;

	if (!(p > 0 && p < 1) || !(df > 0))
		return NAN;
	while (nx_t_p(hi, df) > p && hi < 1e12)
		hi *= 2;
	double scale = 2 * exp(lgamma((df + 1) / 2) - lgamma(df / 2)) / sqrt(df * two_pi / 2);
	t = (lo + hi) / 2;
	for (int i = 0; i < 200 && hi - lo > 1e-13 * hi; i++) {
		double over = nx_t_p(t, df) - p;
		if (over > 0)
			lo = t;
		else
			hi = t;
		double next = t + over / (scale * pow(1 + t * t / df, -(df + 1) / 2));
		if (fabs(next - t) <= 1e-14 * t)
			return next;
		t = next > lo && next < hi ? next : (lo + hi) / 2;
	}
	return t;
}

/* ---- resampling -------------------------------------------------------------------------------
 * */

struct obs {
	int32_t round;
	double value;
};

static int by_round(const void *a, const void *b)
{
	const struct obs *x = a, *y = b;
	return (x->round > y->round) - (x->round < y->round);
}

static struct nx_interval nowhere(void)
{
	return (struct nx_interval){NAN, NAN};
}

static struct nx_interval ends(double *stat, size_t n)
{
	n = nx_sort(stat, n);
	return (struct nx_interval){nx_percentile(stat, n, 2.5), nx_percentile(stat, n, 97.5)};
}

struct nx_interval nx_boot_median(const double *v, const int32_t *round, size_t n, int n_boot,
                                  uint64_t seed)
{
	struct nx_interval ci = nowhere();
	struct nx_rng rng = {seed};
	size_t k = 0, n_rounds = 0, cap;

	if (n < 2 || n_boot < 1 || n > INT32_MAX)
		return ci;
	struct obs *o = malloc(n * sizeof(*o));
	size_t *start = malloc((n + 1) * sizeof(*start));
	double *stat = malloc((size_t)n_boot * sizeof(*stat)), *draw = NULL;
	if (!o || !start || !stat)
		goto release;
	for (size_t i = 0; i < n; i++)
		if (!isnan(v[i]))
			o[k++] = (struct obs){round ? round[i] : (int32_t)i, v[i]};
	if (k)
		qsort(o, k, sizeof(*o), by_round);
	for (size_t i = 0; i < k; i++)
		if (i == 0 || o[i].round != o[i - 1].round)
			start[n_rounds++] = i;
	start[n_rounds] = k;
	cap = 0; /* most values that a resample can have: every draw is the fullest round */
	for (size_t i = 0; i < n_rounds; i++)
		cap = start[i + 1] - start[i] > cap ? start[i + 1] - start[i] : cap;
	draw = malloc((n_rounds * cap + 1) * sizeof(*draw));
	if (n_rounds < 2 || !draw)
		goto release;
	for (int b = 0; b < n_boot; b++) {
		size_t m = 0;
		for (size_t i = 0; i < n_rounds; i++) {
			size_t r = nx_rng_below(&rng, n_rounds), size = start[r + 1] - start[r];
			for (size_t j = 0; j < size; j++)
				draw[m++] = o[start[r] + nx_rng_below(&rng, size)].value;
		}
		stat[b] = nx_percentile(draw, nx_sort(draw, m), 50);
	}
	ci = ends(stat, (size_t)n_boot);
release:
	free(draw);
	free(stat);
	free(start);
	free(o);
	return ci;
}

/* Mean of d, its standard error; the 95 % t interval. n >= 2. */
static struct nx_interval t_interval(const double *d, size_t n, double *mean, double *se)
{
	double ss = 0;

	*mean = nx_mean(d, n);
	for (size_t i = 0; i < n; i++)
		ss += (d[i] - *mean) * (d[i] - *mean);
	*se = sqrt(ss / (double)(n - 1) / (double)n);
	double half = nx_t_quantile(0.05, (double)(n - 1)) * *se;
	return (struct nx_interval){*mean - half, *mean + half};
}

struct nx_interval nx_cell_interval(const double *v, size_t n, int n_boot, uint64_t seed)
{
	struct nx_interval ci = nx_boot_median(v, NULL, n, n_boot, seed), t;
	double *x = malloc((n ? n : 1) * sizeof(*x)), mean, se, least = INFINITY, most = -INFINITY;
	size_t k = 0;

	if (!x)
		return nowhere();
	for (size_t i = 0; i < n; i++) {
		if (isnan(v[i]))
			continue;
		least = fmin(least, v[i]);
		most = fmax(most, v[i]);
		x[k++] = v[i];
	}
	for (size_t i = 0; least > 0 && i < k; i++)
		x[i] = log(x[i]);
	/* Without spread the bootstrap is exact, and logarithms would round. */
	if (k >= 2 && least < most) {
		t = t_interval(x, k, &mean, &se);
		if (least > 0)
			t = (struct nx_interval){exp(t.lo), exp(t.hi)};
		else if (least >= 0)
			t.lo = fmax(t.lo, 0);
		ci = (struct nx_interval){fmin(ci.lo, t.lo), fmax(ci.hi, t.hi)};
	}
	free(x);
	return ci;
}

/* ---- pairs ------------------------------------------------------------------------------------
 * */

/* Widens *ci to the bootstrap interval of the mean of d. */
static void widen(struct nx_interval *ci, const double *d, size_t n, int n_boot, uint64_t seed)
{
	struct nx_rng rng = {seed};
	double *stat = malloc((size_t)n_boot * sizeof(*stat));

	if (!stat)
		return;
	for (int b = 0; b < n_boot; b++) {
		double sum = 0;
		for (size_t i = 0; i < n; i++)
			sum += d[nx_rng_below(&rng, n)];
		stat[b] = sum / (double)n;
	}
	struct nx_interval boot = ends(stat, (size_t)n_boot);
	ci->lo = fmin(ci->lo, boot.lo);
	ci->hi = fmax(ci->hi, boot.hi);
	free(stat);
}

struct nx_pair nx_pair_ratio(const double *a, const double *b, size_t n, int n_boot, uint64_t seed)
{
	struct nx_pair out = {.ratio = NAN, .ci = nowhere(), .p = NAN};
	double *d = malloc((n ? n : 1) * sizeof(*d)), mean, se;

	if (!d)
		return out;
	for (size_t i = 0; i < n; i++)
		if (a[i] > 0 && b[i] > 0 && isfinite(a[i]) && isfinite(b[i]))
			d[out.n++] = log(a[i] / b[i]);
	if (out.n)
		out.ratio = exp(nx_mean(d, out.n));
	if (out.n >= 3) {
		struct nx_interval ci = t_interval(d, out.n, &mean, &se);
		/* Without any spread a difference is certain, and none is none. */
		double t = se > 0 ? mean / se : fabs(mean) > 0 ? INFINITY : 0;
		if (out.n >= NX_VERDICT_ROUNDS)
			out.p = nx_t_p(t, (double)(out.n - 1));
		if (n_boot > 0)
			widen(&ci, d, out.n, n_boot, seed);
		out.ci = (struct nx_interval){exp(ci.lo), exp(ci.hi)};
	}
	free(d);
	return out;
}

void nx_holm(double *p, size_t n)
{
	size_t left = 0;
	double floor_p = 0;
	bool *done = calloc(n ? n : 1, sizeof(*done));

	for (size_t i = 0; i < n; i++)
		left += !isnan(p[i]);
	if (!done) { /* never less careful than Holm: Bonferroni */
		for (size_t i = 0; i < n; i++)
			p[i] = isnan(p[i]) ? p[i] : fmin(1, p[i] * (double)left);
		return;
	}
	for (; left; left--) {
		size_t least = n;
		for (size_t i = 0; i < n; i++)
			if (!done[i] && !isnan(p[i]) && (least == n || p[i] < p[least]))
				least = i;
		done[least] = true;
		floor_p = fmax(floor_p, fmin(1, p[least] * (double)left));
		p[least] = floor_p;
	}
	free(done);
}

int nx_pair_verdict(const struct nx_pair *pair, double p_holm, double min_effect)
{
	if (pair->n == 0)
		return NX_VERDICT_ID_NONE;
	if (pair->n < NX_VERDICT_ROUNDS || isnan(pair->ci.lo) || isnan(pair->ci.hi) ||
	    isnan(p_holm))
		return NX_VERDICT_ID_UNCLEAR;
	if (pair->ci.lo >= 1 - min_effect && pair->ci.hi <= 1 + min_effect)
		return NX_VERDICT_ID_SAME;
	if (p_holm < 0.05 && pair->ci.lo > 1 && pair->ratio > 1 + min_effect)
		return NX_VERDICT_ID_FASTER;
	if (p_holm < 0.05 && pair->ci.hi < 1 && pair->ratio < 1 - min_effect)
		return NX_VERDICT_ID_SLOWER;
	return NX_VERDICT_ID_UNCLEAR;
}

const char *nx_verdict_name(int verdict)
{
	static const char *const names[] = {
#define X(id, name) name,
		NX_VERDICTS(X)
#undef X
	};
	return verdict >= 0 && verdict < NX_VERDICT_COUNT ? names[verdict] : "unknown";
}

bool nx_stop(const struct nx_stop_rule *r, const double *v, size_t n, size_t n_tried)
{
	double mean, se;

	if (n_tried >= (size_t)(r->max > 0 ? r->max : 0))
		return true;
	if (n_tried < (size_t)(r->min > 0 ? r->min : 0) || n < 3 || !(r->rel_ci > 0))
		return false;
	struct nx_interval t = t_interval(v, n, &mean, &se);
	struct nx_interval b = nx_boot_median(v, NULL, n, NX_BOOT_DEFAULT, n);
	double half = fmax(t.hi - t.lo, b.hi - b.lo) / 2, median = nx_median(v, n);
	return median > 0 && half / median < r->rel_ci;
}
