/* SPDX-License-Identifier: Apache-2.0
 *
 * instruments_names.cpp: names of metrics and of kernels.
 */
#include <cxxabi.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cuda/instruments.cuh"

/* ---- kernels */

/* Past the bracket that closes the one at p. A '>' of "->", which templates' arguments can hold, closes nothing. */
static const char *past_brackets(const char *p)
{
	int depth = 0;
	for (; *p; p++) {
		if (*p == '<' || *p == '(')
			depth++;
		else if ((*p == '>' && p[-1] != '-') || *p == ')')
			depth--;
		if (depth == 0)
			return p + 1;
	}
	return p;
}

void kernel_name(const char *mangled, char *dst, size_t size)
{
	static const char hidden[] = "(anonymous namespace)";
	int bad = 0;
	/* A C name may look like a type's: "f" is float. */
	char *plain =
		strncmp(mangled, "_Z", 2) ? NULL : abi::__cxa_demangle(mangled, NULL, NULL, &bad);
	const char *p = bad || !plain ? mangled : plain;
	size_t n = 0;
	while (*p && n + 1 < size) {
		if (!strncmp(p, hidden, sizeof(hidden) - 1)) { /* and the "::" behind it */
			p += sizeof(hidden) - 1;
			p += strncmp(p, "::", 2) ? 0 : 2;
		} else if (*p == '<') {
			p = past_brackets(p);
		} else if (*p == '(') {
			break; /* the arguments */
		} else if (*p == ' ') {
			n = 0; /* what was before is the type that a template's name begins with */
			p++;
		} else {
			dst[n++] = *p++;
		}
	}
	dst[n] = '\0';
	free(plain);
	if (!n)
		snprintf(dst, size, "%s", mangled);
}

/* ---- metrics */

#if CU_HAVE_CUPTI
#define NAME_MAX_HERE NX_METRIC_NAME

/* Letters to put in, take out or change to make a of b; above NAME_MAX_HERE letters they are as far as can be. */
static int distance(const char *a, const char *b)
{
	int row[NAME_MAX_HERE + 1];
	size_t la = strlen(a), lb = strlen(b);
	if (la > NAME_MAX_HERE || lb > NAME_MAX_HERE)
		return NAME_MAX_HERE;
	for (size_t j = 0; j <= lb; j++)
		row[j] = (int)j;
	for (size_t i = 1; i <= la; i++) {
		int diagonal = row[0];
		row[0] = (int)i;
		for (size_t j = 1; j <= lb; j++) {
			int best = diagonal + (a[i - 1] != b[j - 1]);
			diagonal = row[j];
			if (row[j] + 1 < best)
				best = row[j] + 1;
			if (row[j - 1] + 1 < best)
				best = row[j - 1] + 1;
			row[j] = best;
		}
	}
	return row[lb];
}

struct nearest {
	char name[NAME_MAX_HERE];
	int distance;
	CUpti_MetricType type;
};

static void closer(struct nearest *best, const char *wanted, const char *name,
                   CUpti_MetricType type)
{
	int d = distance(wanted, name);
	if (d < best->distance) {
		best->distance = d;
		best->type = type;
		snprintf(best->name, sizeof(best->name), "%s", name);
	}
}

static struct nearest nearest_base(const struct cupti *cupti, CUpti_Profiler_Host_Object *host,
                                   const char *wanted)
{
	struct nearest best = {"", NAME_MAX_HERE + 1, CUPTI_METRIC_TYPE_COUNTER};
	for (int t = 0; t < CUPTI_METRIC_TYPE__COUNT; t++) {
		CUPTI_PARAMS(CUpti_Profiler_Host_GetBaseMetrics, p);
		p.pHostObject = host;
		p.metricType = (CUpti_MetricType)t;
		if (cupti->ProfilerHostGetBaseMetrics(&p) != CUPTI_SUCCESS)
			continue;
		for (size_t i = 0; i < p.numMetrics; i++)
			closer(&best, wanted, p.ppMetricNames[i], p.metricType);
	}
	return best;
}

static struct nearest nearest_sub(const struct cupti *cupti, CUpti_Profiler_Host_Object *host,
                                  const struct nearest *base, const char *wanted)
{
	struct nearest best = {"", NAME_MAX_HERE + 1, base->type};
	CUPTI_PARAMS(CUpti_Profiler_Host_GetSubMetrics, p);
	p.pHostObject = host;
	p.metricType = base->type;
	p.pMetricName = base->name;
	if (cupti->ProfilerHostGetSubMetrics(&p) == CUPTI_SUCCESS)
		for (size_t i = 0; i < p.numOfSubmetrics; i++)
			closer(&best, wanted, p.ppSubMetrics[i], base->type);
	return best;
}

/* Where ".sum" or the like begins, or the end. */
static const char *find_rollup(const char *name)
{
	static const char *const rollups[] = {".sum", ".avg", ".max", ".min", ".pct", ".ratio"};
	const char *first = name + strlen(name);
	for (const char *r : rollups) {
		const char *at = strstr(name, r);
		if (at && at < first)
			first = at;
	}
	return first;
}

int metric_unknown(const struct cupti *cupti, CUpti_Profiler_Host_Object *host, const char *chip,
                   const char *name, struct nx_err *err)
{
	char stem[NAME_MAX_HERE];
	const char *rollup = find_rollup(name);
	snprintf(stem, sizeof(stem), "%.*s", (int)(rollup - name), name);
	struct nearest base = nearest_base(cupti, host, stem);
	if (!*rollup) {
		size_t n = strlen(base.name);
		rollup = strncmp(name, base.name, n) || !name[n] ? ".sum" : name + n;
	}
	struct nearest sub = nearest_sub(cupti, host, &base, rollup);
	return nx_fail(err, NX_EINVAL, "cuda: %s has no metric \"%.*s\"; did you mean \"%s%s\"?",
	               chip, NX_METRIC_NAME, name, base.name, sub.name);
}
#endif
