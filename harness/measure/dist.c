/* SPDX-License-Identifier: Apache-2.0
 *
 * measure/dist.c: lengths that are fixed or drawn; see experiment.h.
 */
#include <math.h>
#include <string.h>

#include "base/rng.h"
#include "measure/experiment_internal.h"

static int parse_uniform(const struct nx_yaml *v, struct nx_dist *d, struct nx_err *err)
{
	static const char *const keys[] = {"min", "max"};
	int rc = nx_yaml_check_map(v, keys, NX_N(keys), err);
	if (rc)
		return rc;
	const struct nx_yaml *min = nx_yaml_get(v, "min"), *max = nx_yaml_get(v, "max");
	if (!min || !max)
		return nx_yaml_fail(
			v, err, NX_EINVAL,
			"found uniform without %s; legal: {uniform: {min: 100, max: 500}}",
			min ? "max" : "min");
	d->kind = NX_DIST_UNIFORM;
	rc = nx_yaml_i32(min, 1, NX_LEN_MAX, &d->min, err);
	return rc ? rc : nx_yaml_i32(max, d->min, NX_LEN_MAX, &d->max, err);
}

static int parse_lognormal(const struct nx_yaml *v, struct nx_dist *d, struct nx_err *err)
{
	static const char *const keys[] = {"mean", "sigma", "max", "min"};
	int rc = nx_yaml_check_map(v, keys, NX_N(keys), err);
	if (rc)
		return rc;
	for (size_t i = 0; i < 3; i++)
		if (!nx_yaml_get(v, keys[i]))
			return nx_yaml_fail(
				v, err, NX_EINVAL,
				"found lognormal without %s; legal: {lognormal: {mean: 200, sigma: 1.0, max: 1024}}",
				keys[i]);
	const struct nx_yaml *min = nx_yaml_get(v, "min");
	d->kind = NX_DIST_LOGNORMAL;
	d->min = 1;
	if (min && (rc = nx_yaml_i32(min, 1, NX_LEN_MAX, &d->min, err)) != 0)
		return rc;
	if ((rc = nx_yaml_i32(nx_yaml_get(v, "max"), d->min, NX_LEN_MAX, &d->max, err)) != 0)
		return rc;
	/* A mean above max would be clipped away: it could never be reached. */
	if ((rc = nx_yaml_double(nx_yaml_get(v, "mean"), 1, d->max, &d->mean, err)) != 0)
		return rc;
	return nx_yaml_double(nx_yaml_get(v, "sigma"), 0, 5, &d->sigma, err);
}

/* {trace: {max: 2048}}, {dataset: {min: 4, max: 1024}}; v is the inner mapping. */
static int parse_read(const struct nx_yaml *v, struct nx_dist *d, struct nx_err *err)
{
	static const char *const keys[] = {"min", "max"};
	int rc = nx_yaml_check_map(v, keys, NX_N(keys), err);
	const struct nx_yaml *min = nx_yaml_get(v, "min"), *max = nx_yaml_get(v, "max");
	if (rc == 0 && min)
		rc = nx_yaml_i32(min, 1, NX_LEN_MAX, &d->min, err);
	if (rc == 0 && max)
		rc = nx_yaml_i32(max, d->min, NX_LEN_MAX, &d->max, err);
	if (rc == 0 && d->max < d->min)
		d->max = d->min; /* `min` alone, above the default of max */
	return rc;
}

static void read_defaults(enum nx_dist_kind kind, struct nx_dist *d)
{
	bool trace = kind == NX_DIST_TRACE;
	*d = (struct nx_dist){.kind = kind,
	                      .min = trace ? 1 : NX_DATASET_MIN,
	                      .max = trace ? NX_LEN_MAX : NX_DATASET_MAX};
}

int nx_dist_parse(const struct nx_yaml *v, struct nx_dist *out, struct nx_err *err)
{
	static const char *const kinds[] = {"uniform", "lognormal", "trace", "dataset"};
	struct nx_dist d = {.kind = NX_DIST_FIXED};
	int rc;
	if (v->kind == NX_YAML_MAP) {
		rc = nx_yaml_check_map(v, kinds, NX_N(kinds), err);
		if (rc)
			return rc;
		if (v->n != 1)
			return nx_yaml_fail(
				v, err, NX_EINVAL,
				"found %zu distributions for %.60s; legal: one of uniform, lognormal, trace, dataset",
				v->n, v->label);
		const struct nx_yaml *u = nx_yaml_get(v, "uniform"), *t = nx_yaml_get(v, "trace");
		if (u) {
			rc = parse_uniform(u, &d, err);
		} else if (nx_yaml_get(v, "lognormal")) {
			rc = parse_lognormal(v->first, &d, err);
		} else {
			read_defaults(t ? NX_DIST_TRACE : NX_DIST_DATASET, &d);
			rc = parse_read(v->first, &d, err);
		}
	} else if (v->kind == NX_YAML_LIST) {
		return nx_yaml_illegal(
			v,
			"an integer, trace, dataset, {uniform: {min, max}} or {lognormal: {mean, sigma, max}}",
			err);
	} else if (strcmp(v->text, "trace") == 0 || strcmp(v->text, "dataset") == 0) {
		read_defaults(v->text[0] == 't' ? NX_DIST_TRACE : NX_DIST_DATASET, &d);
		rc = 0;
	} else {
		rc = nx_yaml_i32(v, 1, NX_LEN_MAX, &d.min, err);
		d.max = d.min;
	}
	if (rc == 0)
		*out = d;
	return rc;
}

const char *nx_dist_text(const struct nx_dist *d, char *buf, size_t size)
{
	struct nx_dist plain = *d;
	char inner[128];
	if (d->shared > 0) { /* in front: a text that is cut keeps it */
		plain.shared = 0;
		snprintf(buf, size, "%g%% shared of %s", 100 * d->shared,
		         nx_dist_text(&plain, inner, sizeof(inner)));
		return buf;
	}
	switch (d->kind) {
	case NX_DIST_FIXED: snprintf(buf, size, "%d", d->min); break;
	case NX_DIST_UNIFORM: snprintf(buf, size, "uniform %d-%d", d->min, d->max); break;
	case NX_DIST_LOGNORMAL:
		if (d->min > 1)
			snprintf(buf, size, "lognormal mean %g sigma %g max %d min %d", d->mean,
			         d->sigma, d->max, d->min);
		else
			snprintf(buf, size, "lognormal mean %g sigma %g max %d", d->mean, d->sigma,
			         d->max);
		break;
	case NX_DIST_TRACE: snprintf(buf, size, "trace %d-%d", d->min, d->max); break;
	case NX_DIST_DATASET: snprintf(buf, size, "dataset %d-%d", d->min, d->max); break;
	}
	return buf;
}

static double normal_cdf(double z)
{
	return 0.5 * erfc(-z * 0.70710678118654752440);
}

/* Of a log-normal variable with mean m: mu of its logarithm. */
static double log_mean(const struct nx_dist *d)
{
	return log(d->mean) - 0.5 * d->sigma * d->sigma;
}

double nx_dist_mean(const struct nx_dist *d)
{
	if (d->kind == NX_DIST_DATASET)
		return NAN;
	if (d->kind == NX_DIST_TRACE)
		return d->mean;
	if (d->kind != NX_DIST_LOGNORMAL)
		return 0.5 * ((double)d->min + d->max);
	if (d->sigma <= 0)
		return fmin(fmax(d->mean, d->min), d->max);
	/* What is drawn is clipped, so its mean is that of the clipped variable:
	 * min P(X < min) + max P(X > max) + E[X; min <= X <= max]. */
	double mu = log_mean(d), s = d->sigma;
	double lo = (log(d->min) - mu) / s, hi = (log(d->max) - mu) / s;
	return d->min * normal_cdf(lo) + d->max * (1 - normal_cdf(hi)) +
	       d->mean * (normal_cdf(hi - s) - normal_cdf(lo - s));
}

int32_t nx_dist_draw(const struct nx_dist *d, uint64_t seed, uint64_t index)
{
	struct nx_rng r = {nx_rng_key(seed, index, 0)};
	if (d->kind != NX_DIST_UNIFORM && d->kind != NX_DIST_LOGNORMAL)
		return d->min;
	if (d->kind == NX_DIST_UNIFORM)
		return d->min + (int32_t)nx_rng_below(&r, (uint64_t)d->max - (uint64_t)d->min + 1);
	double x = exp(log_mean(d) + d->sigma * nx_rng_normal(&r));
	if (!(x > d->min))
		return d->min;
	return x >= d->max ? d->max : (int32_t)lround(x);
}
