/* SPDX-License-Identifier: Apache-2.0 */
/* See number.h. */
#include "present/number.h"

#include <math.h>

int nx_decimals(double v, int sig)
{
	if (!isfinite(v) || v == 0)
		return 0;
	int before = (int)floor(log10(fabs(v)) + 1e-9) + 1;
	int n = sig - before;
	return n < 0 ? 0 : n > 9 ? 9 : n;
}

const char *nx_number_text(double v, int sig, char *buf, size_t size)
{
	if (!isfinite(v))
		buf[0] = 0;
	else
		snprintf(buf, size, "%.*f", nx_decimals(v, sig), v);
	return buf;
}

static const char *with_interval(const struct nx_estimate *e, double scale, int n, char *buf,
                                 size_t size)
{
	double v = e->value * scale, lo = e->lo * scale, hi = e->hi * scale;
	if (!isfinite(v))
		buf[0] = 0;
	else if (!isfinite(lo) || !isfinite(hi))
		snprintf(buf, size, "%.*f", n, v);
	else
		snprintf(buf, size, "%.*f [%.*f, %.*f]", n, v, n, lo, n, hi);
	return buf;
}

const char *nx_estimate_text(const struct nx_estimate *e, double scale, int sig, char *buf,
                             size_t size)
{
	return with_interval(e, scale, nx_decimals(e->value * scale, sig), buf, size);
}

const char *nx_ratio_text(const struct nx_estimate *e, char *buf, size_t size)
{
	return with_interval(e, 1, fabs(e->value - 1) < 0.1 ? 3 : nx_decimals(e->value, 3), buf,
	                     size);
}

const char *nx_size_unit(double most, double *bytes)
{
	static const char *const names[] = {"B", "KiB", "MiB", "GiB", "TiB"};
	int i = 0;
	*bytes = 1;
	for (; i < 4 && most >= *bytes * 1024; i++)
		*bytes *= 1024;
	return names[i];
}

const char *nx_rate_text(double per_s, const char *unit, char *buf, size_t size)
{
	bool tera = per_s >= 1e13;
	char v[32];
	buf[0] = '\0';
	if (isfinite(per_s))
		snprintf(buf, size, "%s %c%s",
		         nx_number_text(per_s / (tera ? 1e12 : 1e9), 3, v, sizeof(v)),
		         tera ? 'T' : 'G', unit);
	return buf;
}

const char *nx_size_text(double bytes, char *buf, size_t size)
{
	if (!isfinite(bytes)) {
		buf[0] = 0;
		return buf;
	}
	double unit;
	const char *name = nx_size_unit(bytes, &unit);
	char digits[32];
	/* A whole number of bytes has no decimals to show. */
	nx_number_text(bytes / unit, unit > 1 ? 3 : 1, digits, sizeof(digits));
	snprintf(buf, size, "%s %s", digits, name);
	return buf;
}
