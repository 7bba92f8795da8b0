/* SPDX-License-Identifier: Apache-2.0
 *
 * instrument_pass.c: runs a cell's requests under the device's instruments. See instrument.h.
 */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "measure/instrument_pass.h"
#include "measure/warmup.h"

struct pass {
	const struct nx_instrument_job *job;
	const struct nx_instrument_ops *ops;
	void *dev;
	struct nx_profiled *out;
	size_t launched, done; /* steps so far */
	uint64_t last_end_ns;
	/* trace: of the steps [first, first + n_window) */
	size_t first, n_window;
	bool tracing;
	/* counters */
	struct nx_counters *counters;
	bool *wanted; /* [job->n_timed] */
	bool in_range;
	int rc; /* of the callbacks that cannot fail */
	struct nx_err why;
};

/* Of step i of the timed trial. */
static uint64_t timed_ns(const struct nx_instrument_job *job, size_t i)
{
	return nx_step_own_ns(&job->timed[i], i ? job->timed[i - 1].end_ns : 0);
}

/* ---- which steps ------------------------------------------------------------------------------ */

/* Up to NX_RANGES_A_PHASE of each phase, spread evenly over its steps. */
static size_t choose_ranges(const struct nx_instrument_job *job, bool *wanted)
{
	size_t chosen = 0;
	for (int p = 0; p < NX_PHASE_COUNT; p++) {
		size_t n = 0, at = 0, taken = 0;
		for (size_t i = 0; i < job->n_timed; i++)
			n += job->timed[i].phase == p;
		size_t k = n < NX_RANGES_A_PHASE ? n : NX_RANGES_A_PHASE;
		for (size_t i = 0; i < job->n_timed && taken < k; i++) {
			if (job->timed[i].phase != p)
				continue;
			if (at++ == (2 * taken + 1) * n / (2 * k)) {
				wanted[i] = true;
				taken++;
			}
		}
		chosen += taken;
	}
	return chosen;
}

/* The middle of the longest stretch of steps of one decoding phase. */
static void choose_window(struct pass *p)
{
	const struct nx_instrument_job *job = p->job;
	size_t best = 0, from = 0;
	for (size_t i = 0; i < job->n_timed;) {
		size_t k = i + 1;
		int phase = job->timed[i].phase;
		while (k < job->n_timed && job->timed[k].phase == phase)
			k++;
		if ((phase == NX_PHASE_DECODE || phase == NX_PHASE_VERIFY) && k - i > best) {
			best = k - i;
			from = i;
		}
		i = k;
	}
	p->n_window = best < NX_TRACE_STEPS ? best : NX_TRACE_STEPS;
	p->first = from + (best - p->n_window) / 2;
	p->out->trace_phase = best ? job->timed[from].phase : NX_PHASE_DECODE;
}

/* ---- trace ------------------------------------------------------------------------------------ */

static void end_trace(struct pass *p)
{
	struct nx_trace_record *records = NULL;
	size_t n = 0, lost = 0;
	p->tracing = false;
	p->rc = p->ops->trace_end(p->dev, &records, &n, &lost, &p->why);
	if (p->rc)
		return;
	p->out->n_lost = lost;
	p->rc = nx_profiled_add_trace(p->out, records, n, &p->why);
	p->ops->trace_free(p->dev, records);
}

static int trace_launch(void *ctx, bool begin, const struct nx_step_info *s, struct nx_err *err)
{
	struct pass *p = ctx;
	(void)s;
	if (begin && p->launched++ == p->first && p->n_window) {
		int rc = p->ops->trace_begin(p->dev, NX_TRACE_RECORDS, err);
		p->tracing = !rc;
		return rc;
	}
	return 0;
}

static void trace_step(void *ctx, const struct nx_step_info *s)
{
	struct pass *p = ctx;
	size_t i = p->done++;
	uint64_t own_ns = nx_step_own_ns(s, p->last_end_ns);
	p->last_end_ns = s->end_ns;
	if (i < p->first || i >= p->first + p->n_window)
		return;
	if (s->phase >= 0 && s->phase < NX_PHASE_COUNT && i < p->job->n_timed) {
		struct nx_perturbed *q = &p->out->perturbed[s->phase];
		q->n_traced++;
		q->traced_ns += own_ns;
		q->traced_timed_ns += timed_ns(p->job, i);
		p->out->n_trace_steps++;
	}
	if (i + 1 == p->first + p->n_window && p->tracing)
		end_trace(p);
}

/* All that was wanted is there: the rest of the run would say nothing more. */
static bool trace_stop(void *ctx)
{
	const struct pass *p = ctx;
	return p->rc || p->done >= p->first + p->n_window;
}

/* ---- counters --------------------------------------------------------------------------------- */

static int counters_launch(void *ctx, bool begin, const struct nx_step_info *s, struct nx_err *err)
{
	struct pass *p = ctx;
	char name[NX_RANGE_NAME];
	size_t i = begin ? p->launched++ : p->launched - 1;
	if (i >= p->job->n_timed || !p->wanted[i])
		return 0;
	if (begin) {
		snprintf(name, sizeof(name), "%s/%zu", nx_phase_name(s->phase), i);
		int rc = p->ops->range_begin(p->dev, p->counters, name, err);
		p->in_range = !rc;
		return rc;
	}
	p->in_range = false;
	return p->ops->range_end(p->dev, p->counters, err);
}

static bool same_step(const struct nx_step_info *a, const struct nx_step_info *b)
{
	return a->phase == b->phase && !memcmp(a->rows, b->rows, sizeof(a->rows));
}

static void counters_step(void *ctx, const struct nx_step_info *s)
{
	struct pass *p = ctx;
	struct nx_profiled *out = p->out;
	size_t i = p->done++;
	uint64_t own_ns = nx_step_own_ns(s, p->last_end_ns);
	p->last_end_ns = s->end_ns;
	out->n_steps++;
	bool same = i < p->job->n_timed && same_step(s, &p->job->timed[i]);
	out->n_same += same;
	if (!same && out->first_other < 0)
		out->first_other = (int32_t)i;
	if (i >= p->job->n_timed || s->phase < 0 || s->phase >= NX_PHASE_COUNT)
		return;
	struct nx_perturbed *q = &out->perturbed[s->phase];
	if (!p->wanted[i]) {
		q->n_beside++;
		q->beside_ns += own_ns;
		q->beside_timed_ns += timed_ns(p->job, i);
		return;
	}
	q->n_counted++;
	q->counted_ns += own_ns;
	q->counted_timed_ns += timed_ns(p->job, i);
	if (out->n_ranges == NX_RANGES_MAX)
		return;
	struct nx_ranged *r = &out->ranges[out->n_ranges++];
	*r = (struct nx_ranged){
		.phase = s->phase, .step = (int32_t)i, .n_emit = s->n_emit, .step_ns = own_ns};
	for (int k = 0; k < NX_ROW_KIND_COUNT; k++)
		r->rows += s->rows[k];
	for (int k = 0; k < NX_GROUP_MAX; k++)
		r->values[k] = NAN;
}

/* Takes of the wanted metrics those that the device measures together in one pass, first come first served. */
static int choose_metrics(struct pass *p, const char **names, struct nx_err *err)
{
	const struct nx_metric_group *want = p->job->group;
	struct nx_metric_group *g = &p->out->group;
	char *left = p->out->no_counters;
	size_t at = 0, size = sizeof(p->out->no_counters);
	*g = (struct nx_metric_group){.n = 0};
	memcpy(g->name, want->name, sizeof(g->name));
	memcpy(g->f, want->f, sizeof(g->f));
	g->n_formulas = want->n_formulas;
	int32_t together = 0;
	for (int32_t i = 0; i < want->n; i++)
		names[i] = want->m[i].name;
	if (!p->ops->metrics_check(p->dev, NULL, names, want->n, &together, NULL) &&
	    together == 1) {
		*g = *want;
		return 0;
	}
	for (int32_t i = 0; i < want->n; i++) {
		int32_t passes = 0;
		struct nx_err why = {0};
		names[g->n] = want->m[i].name;
		int rc = p->ops->metrics_check(p->dev, NULL, names, g->n + 1, &passes, &why);
		if (!rc && passes == 1) {
			g->m[g->n] = want->m[i]; /* formulas of one that is left out are NaN */
			names[g->n] = g->m[g->n].name;
			g->n++;
			continue;
		}
		/* A permission that is missing is so for all of them. */
		if (rc && rc != NX_EINVAL && rc != NX_ENOTSUP)
			return nx_fail(err, rc, "%s", why.msg);
		if (at < size)
			at += (size_t)snprintf(left + at, size - at, "%s%s (%.120s)",
			                       at ? ", " : "left out: ", want->m[i].name,
			                       rc ? why.msg : "needs the work done again");
	}
	return g->n ? 0 : nx_fail(err, NX_ENOTSUP, "no metric can be measured; %.400s", left);
}

static int read_ranges(struct pass *p, struct nx_err *err)
{
	const struct nx_range *r = NULL;
	struct nx_profiled *out = p->out;
	int32_t n = 0;
	int rc = p->ops->counters_read(p->dev, p->counters, &r, &n, err);
	if (rc)
		return rc;
	if ((size_t)n < out->n_ranges)
		out->n_ranges = (size_t)n;
	for (size_t i = 0; i < out->n_ranges; i++) {
		struct nx_ranged *to = &out->ranges[i];
		double seconds = (double)timed_ns(p->job, (size_t)to->step) * 1e-9;
		for (int32_t k = 0; k < out->group.n; k++)
			to->values[k] = r[i].values[k];
		for (int32_t k = 0; k < out->group.n_formulas; k++)
			if (nx_formula(&out->group, out->group.f[k].formula, to->values, seconds,
			               &to->worked_out[k], NULL))
				to->worked_out[k] = NAN; /* its counter was left out */
	}
	return 0;
}

/* ---- runs ------------------------------------------------------------------------------------- */

int nx_instrument_engine(const struct nx_instrument_job *job, bool ahead, struct nx_engine **e,
                         struct nx_err *err)
{
	struct nx_warmup w = {0};
	struct nx_engine_config c = job->engine;
	c.plan_ahead = ahead;
	int rc = nx_engine_create(e, &c, err);
	if (rc) {
		*e = NULL;
		return rc;
	}
	rc = nx_warmup_run(*e, job->reqs, job->n_reqs, job->engine.batch_size, &w, err);
	if (!rc)
		nx_engine_reset(*e);
	return rc;
}

static int run_trace(struct pass *p, struct nx_err *err)
{
	const struct nx_sink sink = {
		.ctx = p, .launch = trace_launch, .step = trace_step, .stop = trace_stop};
	struct nx_engine *e = NULL;
	choose_window(p);
	if (!p->n_window)
		return nx_fail(err, NX_ENOTSUP, "the cell has no decode step to trace");
	int rc = nx_instrument_engine(p->job, p->job->engine.plan_ahead, &e, err);
	if (!rc) {
		rc = nx_engine_run(e, p->job->reqs, p->job->n_reqs, &sink, err);
		if (rc == NX_ESKIP && !p->tracing && p->done >= p->first + p->n_window)
			rc = 0; /* stopped by us */
	}
	if (p->tracing)
		end_trace(p);
	if (e)
		nx_engine_destroy(e);
	if (!rc && p->rc)
		rc = nx_fail(err, p->rc, "%s", p->why.msg);
	return rc;
}

static int run_counters(struct pass *p, struct nx_err *err)
{
	const struct nx_sink sink = {.ctx = p, .launch = counters_launch, .step = counters_step};
	const char *names[NX_GROUP_MAX];
	struct nx_engine *e = NULL;
	p->out->ranges = calloc(NX_RANGES_MAX, sizeof(*p->out->ranges));
	p->wanted = calloc(p->job->n_timed + 1, sizeof(*p->wanted));
	if (!p->out->ranges || !p->wanted)
		return nx_fail(err, NX_ENOMEM, "no memory for the ranges of %zu steps",
		               p->job->n_timed);
	size_t n = choose_ranges(p->job, p->wanted);
	int rc = choose_metrics(p, names, err);
	if (!rc)
		rc = nx_instrument_engine(p->job, false, &e, err);
	if (!rc)
		rc = p->ops->counters_open(p->dev, names, p->out->group.n, (int32_t)n + 1,
		                           &p->counters, err);
	if (!rc)
		rc = nx_engine_run(e, p->job->reqs, p->job->n_reqs, &sink, err);
	if (rc && p->in_range)
		(void)p->ops->range_end(p->dev, p->counters, NULL);
	if (!rc)
		rc = read_ranges(p, err);
	if (p->counters)
		p->ops->counters_close(p->dev, p->counters);
	if (e)
		nx_engine_destroy(e);
	if (rc)
		p->out->n_ranges = 0;
	return rc;
}

int nx_instrument_run(const struct nx_instrument_job *job, struct nx_profiled *out)
{
	const struct nx_instrument_ops *ops = job->dev->ops->instruments;
	struct nx_err err = {0};
	struct pass p = {.job = job, .ops = ops, .dev = job->dev->dev, .out = out};
	int rc = 0;
	if (!ops) {
		snprintf(out->no_counters, sizeof(out->no_counters),
		         "the device has no instruments");
		snprintf(out->no_trace, sizeof(out->no_trace), "the device has no instruments");
		return 0;
	}
	if (ops->versions)
		ops->versions(job->dev->dev, out->versions, sizeof(out->versions));
	if (job->phase)
		job->phase(job->phase_ctx, "the trace");
	if (!ops->trace_begin)
		snprintf(out->no_trace, sizeof(out->no_trace), "the device has no trace");
	else if ((rc = run_trace(&p, &err)))
		snprintf(out->no_trace, sizeof(out->no_trace), "%s", err.msg);
	if (rc != NX_EFAULT && job->time_line_ns) {
		if (job->phase)
			job->phase(job->phase_ctx, "the time line");
		rc = nx_time_line_run(job, out, &err);
		if (rc)
			snprintf(out->no_time_line, sizeof(out->no_time_line), "%s", err.msg);
	}
	if (rc == NX_EFAULT) {
		snprintf(out->no_counters, sizeof(out->no_counters),
		         "the device failed before: %.400s", err.msg);
		return rc;
	}
	if (job->phase)
		job->phase(job->phase_ctx, "the counters");
	p = (struct pass){.job = job, .ops = ops, .dev = job->dev->dev, .out = out};
	rc = 0;
	if (!ops->counters_open)
		snprintf(out->no_counters, sizeof(out->no_counters), "the device has no counters");
	else if ((rc = run_counters(&p, &err)))
		snprintf(out->no_counters, sizeof(out->no_counters), "%s", err.msg);
	free(p.wanted);
	return rc == NX_EFAULT ? rc : 0;
}
