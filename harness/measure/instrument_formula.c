/* SPDX-License-Identifier: Apache-2.0
 *
 * instrument_formula.c: what is worked out of counters: numbers, names, + - * / and parentheses. See instrument.h.
 */
#include <ctype.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "measure/instrument.h"

#define DEPTH_MAX 32

struct parser {
	const struct nx_metric_group *g;
	const double *values;
	const char *at, *wrong;
	double seconds;
	int depth;
};

static double sum(struct parser *p);

static char next(struct parser *p)
{
	while (*p->at == ' ')
		p->at++;
	return *p->at;
}

static double fail(struct parser *p)
{
	if (!p->wrong)
		p->wrong = p->at;
	return NAN;
}

static double name(struct parser *p)
{
	const char *s = p->at;
	size_t n = 0;
	while (isalnum((unsigned char)s[n]) || s[n] == '_')
		n++;
	for (int32_t i = 0; i < p->g->n; i++)
		if (strlen(p->g->m[i].as) == n && !strncmp(p->g->m[i].as, s, n)) {
			p->at += n;
			return p->values[i];
		}
	if (n == 5 && !strncmp(s, "steps", n)) {
		p->at += n;
		return 1;
	}
	if (n == 7 && !strncmp(s, "seconds", n)) {
		p->at += n;
		return p->seconds;
	}
	return fail(p);
}

static double factor(struct parser *p)
{
	char c = next(p), *end;
	double v;
	if (p->wrong || ++p->depth > DEPTH_MAX)
		return fail(p);
	if (c == '(') {
		p->at++;
		v = sum(p);
		if (next(p) != ')')
			return fail(p);
		p->at++;
	} else if (c == '-') {
		p->at++;
		v = -factor(p);
	} else if (isdigit((unsigned char)c)) {
		v = strtod(p->at, &end);
		p->at = end;
	} else {
		v = name(p);
	}
	p->depth--;
	return v;
}

static double product(struct parser *p)
{
	double v = factor(p);
	for (char c = next(p); !p->wrong && (c == '*' || c == '/'); c = next(p)) {
		p->at++;
		double w = factor(p);
		v = c == '*' ? v * w : v / w;
	}
	return v;
}

static double sum(struct parser *p)
{
	double v = product(p);
	for (char c = next(p); !p->wrong && (c == '+' || c == '-'); c = next(p)) {
		p->at++;
		double w = product(p);
		v = c == '+' ? v + w : v - w;
	}
	return v;
}

int nx_formula(const struct nx_metric_group *g, const char *formula, const double *values,
               double seconds, double *out, struct nx_err *err)
{
	struct parser p = {.g = g, .values = values, .at = formula, .seconds = seconds};
	double v = sum(&p);
	if (next(&p) && !p.wrong)
		p.wrong = p.at;
	if (p.wrong)
		return nx_fail(
			err, NX_EINVAL,
			"the formula %.100s, wrong at \"%.40s\"; legal: counters of the group, "
			"steps, seconds, numbers, + - * / and parentheses",
			formula, p.wrong);
	*out = v;
	return 0;
}
