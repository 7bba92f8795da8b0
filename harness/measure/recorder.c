/* SPDX-License-Identifier: Apache-2.0
 *
 * recorder.c: see recorder.h.
 */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "measure/recorder.h"

#define ID_MAX (1u << 24)

static uint64_t since(const struct nx_recorder *r, uint64_t t_ns)
{
	return t_ns > r->t0_ns ? t_ns - r->t0_ns : 0;
}

static struct nx_request_rec *record(struct nx_recorder *r, uint32_t request, uint32_t sample)
{
	if (request > r->max_id || r->first[request] < 0 ||
	    sample >= (uint32_t)r->samples[request]) {
		r->n_lost++;
		return NULL;
	}
	return &r->trial->requests[(size_t)r->first[request] + sample];
}

static void on_start(void *ctx, uint32_t request, uint64_t arrival_ns, uint64_t admitted_ns)
{
	struct nx_recorder *r = ctx;
	struct nx_request_rec *q = record(r, request, 0);
	/* A request that was preempted may be announced again: the first admission counts. */
	if (!q || q->admitted_ns)
		return;
	/* The step that admits it may have begun a moment before its client counted as free. */
	if (admitted_ns < arrival_ns)
		admitted_ns = arrival_ns;
	for (int32_t s = 0; s < r->samples[request]; s++) {
		q[s].arrival_ns = since(r, arrival_ns);
		q[s].admitted_ns = since(r, admitted_ns);
	}
}

static void on_token(void *ctx, uint32_t request, uint32_t sample, int32_t index, int32_t token,
                     uint64_t t_ns)
{
	struct nx_recorder *r = ctx;
	struct nx_request_rec *q = record(r, request, sample);
	if (!q)
		return;
	if (!q->n_out++)
		q->first_ns = since(r, t_ns);
	q->last_ns = since(r, t_ns);
	if (r->trial->n_tokens == r->max_tokens) {
		r->n_lost++;
		return;
	}
	r->trial->tokens[r->trial->n_tokens++] = (struct nx_token_rec){.request = request,
	                                                               .sample = sample,
	                                                               .index = index,
	                                                               .token = token,
	                                                               .t_ns = since(r, t_ns)};
}

static void on_finish(void *ctx, uint32_t request, uint32_t sample, enum nx_finish why,
                      int32_t n_preempted, uint64_t t_ns)
{
	struct nx_recorder *r = ctx;
	struct nx_request_rec *q = record(r, request, sample);
	(void)t_ns; /* the last token's time is the request's end */
	if (!q)
		return;
	q->finish = (int32_t)why;
	q->n_preempted = n_preempted;
}

static void add_count(double *to, int64_t before, int64_t after)
{
	int64_t n = nx_perf_delta(before, after);
	if (n >= 0)
		*to = (isnan(*to) ? 0 : *to) + (double)n;
}

/* to += a - b */
static void add_counted(struct nx_counted *to, const struct nx_counted *a,
                        const struct nx_counted *b)
{
	to->weight_bytes += a->weight_bytes - b->weight_bytes;
	to->kv_bytes += a->kv_bytes - b->kv_bytes;
	to->act_bytes += a->act_bytes - b->act_bytes;
	to->flops += a->flops - b->flops;
}

static int on_launch(void *ctx, bool begin, const struct nx_step_info *s, struct nx_err *err)
{
	struct nx_recorder *r = ctx;
	struct nx_counted now;
	(void)s;
	(void)err;
	if (begin || !r->dev)
		return 0;
	struct nx_counted *to = &r->launched[r->n_launched++ % NX_IN_FLIGHT];
	*to = (struct nx_counted){0};
	r->dev->ops->counted(r->dev->dev, &now);
	add_counted(to, &now, &r->last);
	r->last = now;
	return 0;
}

static void add_work(struct nx_recorder *r, struct nx_phase_use *p)
{
	struct nx_counted now;
	int64_t perf[NX_PERF_COUNT];
	if (r->dev) {
		r->dev->ops->counted(r->dev->dev, &now);
		add_counted(&p->counted, &now, &r->last);
		r->last = now;
		if (r->n_done < r->n_launched) {
			const struct nx_counted none = {0};
			add_counted(&p->counted, &r->launched[r->n_done++ % NX_IN_FLIGHT], &none);
		}
	}
	if (r->perf) {
		nx_perf_read(r->perf, perf);
		add_count(&p->perf_cycles, r->last_perf[NX_PERF_CYCLES], perf[NX_PERF_CYCLES]);
		add_count(&p->perf_instructions, r->last_perf[NX_PERF_INSTRUCTIONS],
		          perf[NX_PERF_INSTRUCTIONS]);
		add_count(&p->perf_llc_misses, r->last_perf[NX_PERF_LLC_MISSES],
		          perf[NX_PERF_LLC_MISSES]);
		memcpy(r->last_perf, perf, sizeof(perf));
	}
}

uint64_t nx_step_own_ns(const struct nx_step_info *s, uint64_t before_ns)
{
	uint64_t from = s->begin_ns > before_ns ? s->begin_ns : before_ns;
	return s->end_ns > from ? s->end_ns - from : 0;
}

static void add_step(struct nx_recorder *r, const struct nx_step_info *s)
{
	if (s->phase < 0 || s->phase >= NX_PHASE_COUNT) {
		r->n_lost++;
		return;
	}
	struct nx_phase_use *p = &r->trial->phases[s->phase];
	p->n_steps++;
	p->n_preempted += s->n_preempted;
	for (int k = 0; k < NX_ROW_KIND_COUNT; k++)
		p->rows += s->rows[k];
	p->rows_pad += s->rows[NX_ROW_PAD];
	p->n_seqs += s->n_seqs;
	p->n_waiting += s->n_waiting;
	p->n_emit += s->n_emit;
	p->kv_held = s->kv_held > p->kv_held ? s->kv_held : p->kv_held;
	p->kv_total = s->kv_total > p->kv_total ? s->kv_total : p->kv_total;
	p->time_ns += nx_step_own_ns(s, r->last_end_ns);
	r->last_end_ns = s->end_ns;
	p->plan_ns += s->plan_ns;
	add_work(r, p);
}

static void on_step(void *ctx, const struct nx_step_info *s)
{
	struct nx_recorder *r = ctx;
	add_step(r, s);
	if (r->trial->n_steps == r->max_steps) {
		r->n_lost++;
		return;
	}
	struct nx_step_info *to = &r->trial->steps[r->trial->n_steps++];
	*to = *s;
	to->begin_ns = since(r, s->begin_ns);
	to->end_ns = since(r, s->end_ns);
}

struct nx_sink nx_recorder_sink(struct nx_recorder *r)
{
	return (struct nx_sink){.ctx = r,
	                        .start = on_start,
	                        .token = on_token,
	                        .finish = on_finish,
	                        .launch = on_launch,
	                        .step = on_step};
}

static void on_token_of_length(void *ctx, uint32_t request, uint32_t sample, int32_t index,
                               int32_t token, uint64_t t_ns)
{
	struct nx_recorder *r = ctx;
	struct nx_request_rec *q = record(r, request, sample);
	(void)index;
	(void)token;
	if (!q)
		return;
	q->n_out++;
	q->last_ns = since(r, t_ns);
}

struct nx_sink nx_recorder_sink_of_length(struct nx_recorder *r)
{
	return (struct nx_sink){
		.ctx = r, .start = on_start, .token = on_token_of_length, .finish = on_finish};
}

/* Zeroed and written to, so that its pages exist. */
static void *touched(size_t n, size_t size)
{
	if (size && n > (SIZE_MAX - 1) / size)
		return NULL;
	void *p = malloc(n * size + 1);
	if (p)
		memset(p, 0, n * size + 1);
	return p;
}

int nx_recorder_init(struct nx_recorder *r, struct nx_trial *t, const struct nx_request *reqs,
                     size_t n, struct nx_err *err)
{
	*r = (struct nx_recorder){.trial = t};
	size_t n_records = 0, n_prompt = 0;
	for (size_t i = 0; i < n; i++) {
		if (reqs[i].id > ID_MAX)
			return nx_fail(err, NX_EINVAL, "request id %u is above %u", reqs[i].id,
			               ID_MAX);
		if (reqs[i].id > r->max_id)
			r->max_id = reqs[i].id;
		n_records += (size_t)reqs[i].samples;
		n_prompt += (size_t)reqs[i].n_prompt;
		r->max_tokens += (size_t)reqs[i].samples * (size_t)reqs[i].max_out;
	}
	/* A step makes a token or computes a part of a prompt, except after a preemption, when rows are
	 * computed again: twice the useful rows, chunks of 16, leave room for that. */
	r->max_steps = 2 * r->max_tokens + n_prompt / 8 + 8 * n_records + 1024;
	t->requests = touched(n_records, sizeof(*t->requests));
	t->tokens = touched(r->max_tokens, sizeof(*t->tokens));
	t->steps = touched(r->max_steps, sizeof(*t->steps));
	r->first = touched((size_t)r->max_id + 1, sizeof(*r->first));
	r->samples = touched((size_t)r->max_id + 1, sizeof(*r->samples));
	if (!t->requests || !t->tokens || !t->steps || !r->first || !r->samples) {
		nx_recorder_release(r);
		return nx_fail(err, NX_ENOMEM, "no memory to record %zu tokens and %zu steps",
		               r->max_tokens, r->max_steps);
	}
	memset(r->first, 0xff, ((size_t)r->max_id + 1) * sizeof(*r->first));
	for (size_t i = 0; i < n; i++) {
		r->first[reqs[i].id] = (int32_t)t->n_requests;
		r->samples[reqs[i].id] = reqs[i].samples;
		for (int32_t s = 0; s < reqs[i].samples; s++)
			t->requests[t->n_requests++] =
				(struct nx_request_rec){.request = reqs[i].id,
			                                .sample = (uint32_t)s,
			                                .n_in = reqs[i].n_prompt,
			                                .session = reqs[i].session,
			                                .turn = reqs[i].turn,
			                                .planned_ns = reqs[i].arrival_ns};
	}
	return 0;
}

void nx_recorder_release(struct nx_recorder *r)
{
	free(r->first);
	free(r->samples);
	r->first = r->samples = NULL;
}
