/* SPDX-License-Identifier: Apache-2.0
 *
 * recorder.c: see recorder.h.
 */
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

static void on_step(void *ctx, const struct nx_step_info *s)
{
	struct nx_recorder *r = ctx;
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
	                        .step = on_step};
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
			                                .n_in = reqs[i].n_prompt};
	}
	return 0;
}

void nx_recorder_release(struct nx_recorder *r)
{
	free(r->first);
	free(r->samples);
	r->first = r->samples = NULL;
}
