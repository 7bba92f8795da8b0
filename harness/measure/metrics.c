/* SPDX-License-Identifier: Apache-2.0 */
/* Metrics of one trial from its raw record: see trial.h for the names and results/README.md for the
 * rules.
 *
 * Samples. Latencies have one sample a sequence (a request with n samples has n), so that a slow
 * continuation is not hidden behind a fast one. Prompt tokens and requests count once a request.
 *
 * Bandwidth. The counted bytes are held against the peak of the level that holds the working set:
 * the last-level cache when weights and KV fit in it, else memory. Between one and four times the
 * cache a part of the traffic is served by the cache, so a figure above 1 is possible there and is
 * no error; above four times it is one, and the trial is INVALID.
 */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "measure/stats.h"
#include "measure/trial.h"

static const double ns_per_ms = 1e6, ns_per_s = 1e9;
static const double peak_slack = 1.05; /* a calibrated peak is itself a measurement */

/* Later minus earlier; a record that runs backwards gives 0, not 2^64. */
static double span(uint64_t from, uint64_t to)
{
	return to > from ? (double)(to - from) : 0;
}

static double ratio(double a, double b)
{
	return b > 0 ? a / b : NAN;
}

double nx_request_ttft_ms(const struct nx_request_rec *r)
{
	return r->n_out < 1 ? NAN : span(r->arrival_ns, r->first_ns) / ns_per_ms;
}

double nx_request_tpot_ms(const struct nx_request_rec *r)
{
	return r->n_out < 2 ? NAN : span(r->first_ns, r->last_ns) / (r->n_out - 1) / ns_per_ms;
}

/* Mean and percentiles of v (scratch, reordered) into consecutive metrics. ps ends with a negative.
 * */
static void spread(double *v, size_t n, double *mean, double *out, const double *ps)
{
	n = nx_sort(v, n);
	if (mean)
		*mean = nx_mean(v, n);
	for (; *ps >= 0; ps++)
		*out++ = nx_percentile(v, n, *ps);
}

/* Requests whose sequences all met every objective. Objectives that are 0 are not set. */
static double count_good(const struct nx_trial *t, const struct nx_slo *slo, double *scratch)
{
	size_t n = 0, good = 0;

	for (size_t i = 0; i < t->n_requests; i++) {
		const struct nx_request_rec *r = &t->requests[i];
		double tpot = nx_request_tpot_ms(r);
		int bad = r->n_out < 1 ||
		          (slo->ttft_ms > 0 && nx_request_ttft_ms(r) > slo->ttft_ms) ||
		          (slo->tpot_ms > 0 &&
		           tpot > slo->tpot_ms) || /* false for NaN: n_out < 2 passes */
		          (slo->e2el_ms > 0 &&
		           span(r->arrival_ns, r->last_ns) / ns_per_ms > slo->e2el_ms);
		scratch[n++] = 2.0 * r->request + bad;
	}
	n = nx_sort(scratch, n);
	for (size_t i = 0; i < n;
	     i++) { /* a request's last entry says whether any sequence was bad */
		double request = floor(scratch[i] / 2);
		bool last = i + 1 == n || floor(scratch[i + 1] / 2) > request;
		good += last && scratch[i] == 2 * request;
	}
	return (double)good;
}

static void from_requests(struct nx_trial *t, const struct nx_metric_context *c, double *v)
{
	static const double five[] = {50, 90, 95, 99, -1}, two[] = {50, 99, -1};
	uint64_t begin = UINT64_MAX, end = 0;
	double n_in = 0, n_out = 0, n_requests = 0, *m = t->metrics;
	size_t n = t->n_requests, k = 0;

	for (size_t i = 0; i < n; i++) {
		const struct nx_request_rec *r = &t->requests[i];
		begin = r->arrival_ns < begin ? r->arrival_ns : begin;
		end = r->last_ns > end ? r->last_ns : end;
		n_out += r->n_out;
		n_in += r->sample == 0 ? r->n_in : 0;
		n_requests += r->sample == 0;
	}
	double duration_s = span(begin, end) / ns_per_s;
	m[NX_METRIC_DURATION] = duration_s;
	m[NX_METRIC_OUTPUT_THROUGHPUT] = ratio(n_out, duration_s);
	m[NX_METRIC_TOTAL_THROUGHPUT] = ratio(n_in + n_out, duration_s);
	m[NX_METRIC_REQUEST_THROUGHPUT] = ratio(n_requests, duration_s);
	if (c->slo.ttft_ms > 0 || c->slo.tpot_ms > 0 || c->slo.e2el_ms > 0)
		m[NX_METRIC_GOODPUT] = ratio(count_good(t, &c->slo, v), duration_s);

	for (size_t i = k = 0; i < n; i++)
		v[k++] = nx_request_ttft_ms(&t->requests[i]);
	spread(v, k, &m[NX_METRIC_TTFT_MEAN], &m[NX_METRIC_TTFT_P50], five);
	for (size_t i = k = 0; i < n; i++)
		v[k++] = nx_request_tpot_ms(&t->requests[i]);
	spread(v, k, &m[NX_METRIC_TPOT_MEAN], &m[NX_METRIC_TPOT_P50], five);
	for (size_t i = k = 0; i < n; i++)
		if (t->requests[i].n_out > 0)
			v[k++] =
				span(t->requests[i].arrival_ns, t->requests[i].last_ns) / ns_per_ms;
	spread(v, k, &m[NX_METRIC_E2EL_MEAN], &m[NX_METRIC_E2EL_P50], two);
}

static void from_telemetry(struct nx_trial *t)
{
	double tokens = 0, *m = t->metrics;
	for (size_t i = 0; i < t->n_requests; i++)
		tokens += t->requests[i].n_out;
	m[NX_METRIC_ENERGY_PER_TOKEN] = ratio(t->device.energy_j, tokens);
	/* Over the time that the energy was taken over. */
	m[NX_METRIC_POWER] = ratio(t->device.energy_j, (double)t->duration_ns / ns_per_s);
}

static int by_sequence(const void *a, const void *b)
{
	const struct nx_token_rec *x = a, *y = b;
	if (x->request != y->request)
		return x->request < y->request ? -1 : 1;
	if (x->sample != y->sample)
		return x->sample < y->sample ? -1 : 1;
	return (x->index > y->index) - (x->index < y->index);
}

/* Tokens of one sequence with one time came from one step: one gap, counted together for tau. The
 * first step of a sequence is its prefill and counts for neither. */
static void from_tokens(struct nx_trial *t)
{
	static const double two[] = {50, 99, -1};
	size_t n = t->n_tokens, n_gaps = 0;
	double n_later = 0;
	struct nx_token_rec *s = malloc(n * sizeof(*s));
	double *gap = malloc(n * sizeof(*gap));

	if (s && gap) {
		memcpy(s, t->tokens, n * sizeof(*s));
		qsort(s, n, sizeof(*s), by_sequence);
		bool first = true;
		for (size_t i = 0; i < n; i++) {
			bool new_seq = i == 0 || s[i].request != s[i - 1].request ||
			               s[i].sample != s[i - 1].sample;
			bool new_step = !new_seq && s[i].t_ns != s[i - 1].t_ns;
			first = new_seq || (first && !new_step);
			if (new_step)
				gap[n_gaps++] = span(s[i - 1].t_ns, s[i].t_ns) / ns_per_ms;
			n_later += !first;
		}
		t->metrics[NX_METRIC_TAU] = ratio(n_later, (double)n_gaps);
		spread(gap, n_gaps, NULL, &t->metrics[NX_METRIC_ITL_P50], two);
	}
	free(gap);
	free(s);
}

static void from_steps(struct nx_trial *t, const struct nx_metric_context *c, double *v)
{
	double rows = 0, pad = 0, preempted = 0, plan = 0, time = 0, prefill_rows = 0,
	       prefill_ns = 0;
	double waste = 0, held_ns = 0, *m = t->metrics;
	double drafted = 0, accepted = 0, draft = 0;
	int64_t held = 0, used = 0;
	size_t n_decode = 0;

	for (size_t i = 0; i < t->n_steps; i++) {
		const struct nx_step_info *s = &t->steps[i];
		double ns = (double)nx_step_own_ns(s, i ? s[-1].end_ns : 0);
		for (int k = 0; k < NX_ROW_KIND_COUNT; k++)
			rows += s->rows[k];
		pad += s->rows[NX_ROW_PAD];
		drafted += s->rows[NX_ROW_CANDIDATE] + s->rows[NX_ROW_PROBE];
		accepted += s->n_accepted;
		draft += (double)s->draft_ns;
		preempted += s->n_preempted;
		plan += (double)s->plan_ns;
		time += ns;
		held = s->kv_held > held ? s->kv_held : held;
		used = s->kv_used > used ? s->kv_used : used;
		if (s->kv_held > 0) {
			waste += ns * (1 - (double)s->kv_used / (double)s->kv_held);
			held_ns += ns;
		}
		if (s->phase == NX_PHASE_PREFILL) {
			prefill_rows += s->rows[NX_ROW_COMMIT];
			prefill_ns += ns;
		} else if (s->phase == NX_PHASE_DECODE || s->phase == NX_PHASE_VERIFY) {
			v[n_decode++] = ns / ns_per_ms;
		}
	}
	m[NX_METRIC_ROWS_PAD_SHARE] = ratio(pad, rows);
	m[NX_METRIC_PREEMPTIONS] = preempted;
	m[NX_METRIC_DRAFT_ACCEPTANCE] = ratio(accepted, drafted);
	if (drafted > 0)
		m[NX_METRIC_DRAFT_SHARE] = ratio(draft, time);
	m[NX_METRIC_HOST_SHARE] = ratio(plan, time);
	m[NX_METRIC_KV_WASTE] = ratio(waste, held_ns);
	if (c->kv_row_bytes) {
		m[NX_METRIC_KV_RESERVED_PEAK] = (double)held * (double)c->kv_row_bytes;
		m[NX_METRIC_KV_USED_PEAK] = (double)used * (double)c->kv_row_bytes;
	}
	m[NX_METRIC_PREFILL_THROUGHPUT] = ratio(prefill_rows, prefill_ns / ns_per_s);
	m[NX_METRIC_DECODE_STEP_P50] = nx_percentile(v, nx_sort(v, n_decode), 50);
}

static void from_memory(struct nx_trial *t, const struct nx_metric_context *c)
{
	double total = 0, workspace = 0;

	for (size_t i = 0; i < t->n_mem; i++) {
		total += (double)t->mem[i].reserved_bytes;
		if (strcmp(t->mem[i].owner, "workspace") == 0)
			workspace += (double)t->mem[i].reserved_bytes;
	}
	t->metrics[NX_METRIC_MEM_TOTAL] = total;
	t->metrics[NX_METRIC_MEM_WORKSPACE] = workspace;
	t->metrics[NX_METRIC_UTIL_MEM_CAPACITY] = ratio(total, (double)c->device_bytes);
}

double nx_read_peak(const struct nx_calibration *c, uint64_t working_set_bytes, bool *in_cache)
{
	bool fits = working_set_bytes <= c->cache_set_bytes && c->cache_read_bytes_per_s > 0;
	if (in_cache)
		*in_cache = fits;
	return fits ? c->cache_read_bytes_per_s : c->read_bytes_per_s;
}

static void from_counted(struct nx_trial *t, const struct nx_metric_context *c)
{
	const struct nx_calibration *cal = &c->calibration;
	double duration_s = t->metrics[NX_METRIC_DURATION];
	double bytes = (double)t->counted.weight_bytes + (double)t->counted.kv_bytes +
	               (double)t->counted.act_bytes;
	bool in_cache;
	double read = nx_read_peak(cal, c->working_set_bytes, &in_cache);
	double own = c->dtype == NX_F32 ? cal->f32_flops_per_s : cal->bf16_flops_per_s;
	double flops = fmax(own, cal->blas_flops_per_s);
	double *bandwidth = &t->metrics[NX_METRIC_UTIL_BANDWIDTH];

	if (t->counted.flops == 0 && bytes == 0)
		return; /* the device does not count */
	t->metrics[NX_METRIC_UTIL_COMPUTE] = ratio((double)t->counted.flops, duration_s * flops);
	*bandwidth = ratio(bytes, duration_s * read);
	if (t->util_source == NX_UTIL_NONE && (flops > 0 || read > 0))
		t->util_source = NX_UTIL_COUNTED;
	if (t->status == NX_STATUS_OK && !in_cache && c->llc_bytes > 0 &&
	    c->working_set_bytes / 4 > c->llc_bytes && *bandwidth > peak_slack) {
		t->status = NX_STATUS_INVALID;
		snprintf(
			t->cause, sizeof(t->cause),
			"bandwidth above peak: %.3g GB/s counted, %.3g GB/s calibrated; calibrate again on an idle "
			"machine, or report it if it stays",
			bytes / duration_s / 1e9, read / 1e9);
	}
}

void nx_trial_compute(struct nx_trial *t, const struct nx_metric_context *c)
{
	size_t room = t->n_requests > t->n_steps ? t->n_requests : t->n_steps;
	double *scratch = malloc((room + 1) * sizeof(*scratch));

	for (int m = 0; m < NX_METRIC_COUNT; m++)
		t->metrics[m] = NAN;
	if (t->n_mem)
		from_memory(t, c);
	if (scratch && t->n_steps)
		from_steps(t, c, scratch);
	if (t->n_tokens)
		from_tokens(t);
	if (scratch && t->n_requests) {
		from_requests(t, c, scratch);
		from_counted(t, c);
		from_telemetry(t);
	}
	free(scratch);
}
