/* SPDX-License-Identifier: Apache-2.0
 *
 * instrument.c: the record of a profile pass, and figures of it. See instrument.h; the pass itself: instrument_pass.c.
 */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "measure/instrument.h"

const char *nx_figure_name(int figure)
{
	static const char *const names[] = {
#define X(id, name) name,
		NX_FIGURES(X)
#undef X
	};
	return figure >= 0 && figure < NX_FIGURE_COUNT ? names[figure] : "";
}

void nx_profiled_init(struct nx_profiled *p)
{
	*p = (struct nx_profiled){.first_other = -1, .trace_phase = NX_PHASE_DECODE};
	for (int i = 0; i < NX_PHASE_COUNT; i++)
		p->perturbed[i].phase = i;
}

void nx_profiled_release(struct nx_profiled *p)
{
	free(p->ranges);
	free(p->kernels);
	free(p->samples);
	nx_profiled_init(p);
}

double nx_profiled_figure(const struct nx_profiled *p, int phase, enum nx_figure figure)
{
	double sum = 0, n = 0;
	bool has = false;
	for (int32_t m = 0; m < p->group.n; m++)
		has |= p->group.m[m].figure == (int32_t)figure;
	for (size_t i = 0; has && i < p->n_ranges; i++) {
		const struct nx_ranged *r = &p->ranges[i];
		double v = 0;
		if (r->phase != phase)
			continue;
		for (int32_t m = 0; m < p->group.n; m++)
			if (p->group.m[m].figure == (int32_t)figure)
				v += p->group.m[m].times * r->values[m];
		if (!isfinite(v)) /* a range that was not measured */
			continue;
		sum += v;
		n++;
	}
	return n > 0 ? sum / n : NAN;
}

double nx_profiled_idle(const struct nx_profiled *p)
{
	if (!p->window_ns || p->busy_ns > p->window_ns)
		return NAN;
	return 1 - (double)p->busy_ns / (double)p->window_ns;
}

double nx_profiled_perturbation(const struct nx_profiled *p, bool trace)
{
	double now = 0, then = 0;
	for (int i = 0; i < NX_PHASE_COUNT; i++) {
		const struct nx_perturbed *q = &p->perturbed[i];
		now += (double)(trace ? q->traced_ns : q->beside_ns);
		then += (double)(trace ? q->traced_timed_ns : q->beside_timed_ns);
	}
	return then > 0 ? now / then : NAN;
}

/* ---- kernels ---------------------------------------------------------------------------------- */

static int by_name(const void *a, const void *b)
{
	const struct nx_trace_record *const *x = a, *const *y = b;
	int c = strcmp((*x)->name, (*y)->name);
	return c ? c : (*x)->kind - (*y)->kind;
}

static int by_time(const void *a, const void *b)
{
	const struct nx_kernel_use *x = a, *y = b;
	if (x->total_ns != y->total_ns)
		return x->total_ns < y->total_ns ? 1 : -1;
	return strcmp(x->name, y->name);
}

/* Time in which at least one record ran; they are sorted by their begin. own [n]: the time of each from when all
 * before it had ended, since a kernel that may start early spends the rest waiting for them. Sums to the busy time. */
static void busy(struct nx_profiled *p, const struct nx_trace_record *r, size_t n, uint64_t *own)
{
	uint64_t until = n ? r[0].begin_ns : 0;
	p->busy_ns = 0;
	for (size_t i = 0; i < n; i++) {
		uint64_t from = r[i].begin_ns > until ? r[i].begin_ns : until;
		if (r[i].end_ns > from) {
			own[i] = r[i].end_ns - from;
			p->busy_ns += own[i];
			until = r[i].end_ns;
		}
	}
	p->window_ns = n ? until - r[0].begin_ns : 0;
	p->n_records = n;
}

int nx_profiled_add_trace(struct nx_profiled *p, const struct nx_trace_record *records, size_t n,
                          struct nx_err *err)
{
	const struct nx_trace_record **sorted = calloc(n + 1, sizeof(*sorted));
	struct nx_kernel_use *uses = calloc(n + 1, sizeof(*uses));
	uint64_t *own = calloc(n + 1, sizeof(*own));
	size_t k = 0;
	double total = 0;
	if (!sorted || !uses || !own) {
		free(sorted);
		free(uses);
		free(own);
		return nx_fail(err, NX_ENOMEM, "no memory for a trace of %zu records", n);
	}
	busy(p, records, n, own);
	for (size_t i = 0; i < n; i++)
		sorted[i] = &records[i];
	qsort(sorted, n, sizeof(*sorted), by_name);
	for (size_t i = 0; i < n; i++) {
		const struct nx_trace_record *r = sorted[i];
		if (!i || by_name(&sorted[i - 1], &sorted[i])) {
			memcpy(uses[k].name, r->name, sizeof(uses[k].name));
			uses[k].name[sizeof(uses[k].name) - 1] = '\0';
			uses[k].kind = r->kind;
			uses[k].phase = p->trace_phase;
			k++;
		}
		uint64_t ns = own[r - records];
		uses[k - 1].calls++;
		uses[k - 1].total_ns += ns;
		total += (double)ns;
	}
	for (size_t i = 0; i < k; i++)
		uses[i].share = total > 0 ? (double)uses[i].total_ns / total : 0;
	qsort(uses, k, sizeof(*uses), by_time);
	free(sorted);
	free(own);
	free(p->kernels);
	p->kernels = uses;
	p->n_kernels = k < NX_KERNELS_MAX ? k : NX_KERNELS_MAX;
	return 0;
}
