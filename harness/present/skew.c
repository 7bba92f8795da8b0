/* SPDX-License-Identifier: Apache-2.0 */
/* See skew.h. */
#include "present/skew.h"

#include <math.h>
#include <string.h>

int nx_dist_from_text(struct nx_dist *d, const char *text, struct nx_err *err)
{
	int a, b, used = 0;
	double mean, sigma;
	*d = (struct nx_dist){0};
	if (sscanf(text, "uniform %d-%d%n", &a, &b, &used) == 2 && used && !text[used]) {
		*d = (struct nx_dist){
			.kind = NX_DIST_UNIFORM, .min = a, .max = b, .mean = (a + b) / 2.0};
	} else if ((sscanf(text, "trace %d-%d%n", &a, &b, &used) == 2 ||
	            sscanf(text, "dataset %d-%d%n", &a, &b, &used) == 2) &&
	           used && !text[used]) {
		*d = (struct nx_dist){.kind = text[0] == 't' ? NX_DIST_TRACE : NX_DIST_DATASET,
		                      .min = a,
		                      .max = b,
		                      .mean = NAN};
	} else if (sscanf(text, "lognormal mean %lf sigma %lf max %d", &mean, &sigma, &b) == 3) {
		*d = (struct nx_dist){.kind = NX_DIST_LOGNORMAL,
		                      .min = 1,
		                      .max = b,
		                      .mean = mean,
		                      .sigma = sigma};
		const char *min = strstr(text, " min ");
		if (min && sscanf(min, " min %d", &a) == 1)
			d->min = a;
	} else if (sscanf(text, "%d%n", &a, &used) == 1 && !text[used]) {
		*d = (struct nx_dist){.kind = NX_DIST_FIXED, .min = a, .max = a, .mean = a};
	} else {
		return nx_fail(err, NX_EFORMAT,
		               "length '%s' is no distribution known here: a number, "
		               "uniform MIN-MAX, lognormal mean M sigma S max N, trace MIN-MAX, or "
		               "dataset MIN-MAX",
		               text);
	}
	if (d->min < 0 || d->max < d->min)
		return nx_fail(err, NX_EFORMAT, "length '%s' has its limits the wrong way round",
		               text);
	return 0;
}

/* P(length <= n), n a whole number. */
static double cumulative(const struct nx_dist *d, int32_t n)
{
	if (n >= d->max)
		return 1;
	if (n < d->min)
		return 0;
	if (d->kind == NX_DIST_UNIFORM)
		return (double)(n - d->min + 1) / (double)(d->max - d->min + 1);
	if (d->kind == NX_DIST_FIXED || d->sigma <= 0)
		return n >= d->mean;
	/* mean is that of the lengths, so the logarithm's is lower by half its variance. */
	double mu = log(d->mean) - d->sigma * d->sigma / 2;
	return 0.5 * erfc(-(log(n + 0.5) - mu) / (d->sigma * sqrt(2)));
}

double nx_skew_bound(const struct nx_dist *d, int32_t batch)
{
	/* E[max] = sum over n >= 0 of P(max > n); below min that is 1. */
	double max = d->min, mean = d->min;
	for (int32_t n = d->min; n < d->max; n++) {
		double f = cumulative(d, n);
		mean += 1 - f;
		max += 1 - pow(f, batch);
	}
	return mean > 0 ? max / mean : 1;
}

double nx_skew_bound_of(const int32_t *sorted, size_t n, int32_t batch)
{
	double max = 0, mean = 0, below = 0;
	for (size_t i = 0; i < n; i++) {
		double f = pow((double)(i + 1) / (double)n, batch);
		max += sorted[i] * (f - below);
		mean += sorted[i] / (double)n;
		below = f;
	}
	return mean > 0 ? max / mean : 1;
}
