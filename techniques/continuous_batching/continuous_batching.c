/* SPDX-License-Identifier: Apache-2.0
 *
 * continuous_batching: the batch is made anew at every step. Finished sequences leave at once, waiting ones
 * join at the next step, nothing is padded; rows of all sequences go through the products as one flat
 * matrix, attention works on each sequence's own rows (Orca's iteration-level scheduling with selective
 * batching, OSDI'22). Admission counts the KV rows that a start takes; what later outgrows the pool is
 * preempted, last in the policy's order first (2309.06180, section 4.5). longest_prefix is RadixAttention's
 * cache-aware order (2312.07104, section 3) with a bound on how often a request is overtaken.
 */
#include <stdlib.h>

#include "nexus/technique.h"

enum { P_POLICY, P_MAX_BATCH_SIZE, P_WATERMARK, P_MAX_SKIPS };
enum policy { FCFS, PRIORITY, SHORTEST, LONGEST_PREFIX };
enum { C_STEPS, C_JOINS, C_LATE_JOINS, C_BLOCKED, C_OVERTAKEN, C_COUNT };

/* With more waiting than this, longest_prefix takes them as they arrived: choosing costs their square, and a prefix
 * that was long when the step began has been evicted when the last of so many starts (SGLang has the same number). */
#define MOST_CHOSEN_AMONG 128

/* A waiting sequence that later ones may overtake. */
struct waiter {
	uint32_t request, sample;
	int32_t skips; /* later arrivals that went before it */
	bool granted;
};

struct continuous {
	enum policy policy;
	int32_t max_requests; /* 0 = no limit */
	double watermark;
	int32_t *
		order; /* [2 max_seqs] waiting, sorted; sized at create since hooks do not allocate */
	int32_t cap;
	int32_t max_skips;
	struct waiter *waiters, *before; /* [cap] this step's and the last one's; longest_prefix */
	int32_t n_before;
	const struct nx_host *host;
	uint64_t n[C_COUNT];
};

static void release(struct continuous *c)
{
	const struct nx_host *h = c->host;
	size_t n = (size_t)c->cap;
	if (c->order)
		h->free(h->ctx, NX_MEM_HOST, c->order, n * sizeof(*c->order));
	if (c->waiters)
		h->free(h->ctx, NX_MEM_HOST, c->waiters, n * sizeof(*c->waiters));
	if (c->before)
		h->free(h->ctx, NX_MEM_HOST, c->before, n * sizeof(*c->before));
	free(c);
}

static int create(void **self, const struct nx_host *host, const struct nx_value *values,
                  struct nx_err *err)
{
	struct continuous *c = calloc(1, sizeof(*c));
	if (!c)
		return nx_fail(err, NX_ENOMEM, "continuous_batching: out of memory");
	c->policy = (enum policy)values[P_POLICY].i;
	c->max_requests = (int32_t)values[P_MAX_BATCH_SIZE].i;
	c->watermark = values[P_WATERMARK].f;
	c->max_skips = (int32_t)values[P_MAX_SKIPS].i;
	c->host = host;
	c->cap = 2 * host->max_seqs;
	size_t n = (size_t)c->cap;
	bool chooses = c->policy == LONGEST_PREFIX;
	c->order = host->alloc(host->ctx, NX_MEM_HOST, n * sizeof(*c->order));
	if (c->order && chooses)
		c->waiters = host->alloc(host->ctx, NX_MEM_HOST, n * sizeof(*c->waiters));
	if (c->waiters)
		c->before = host->alloc(host->ctx, NX_MEM_HOST, n * sizeof(*c->before));
	if (!c->order || (chooses && !c->before)) {
		release(c);
		return nx_fail(err, NX_ENOMEM,
		               "continuous_batching: no memory for %d waiting sequences",
		               2 * host->max_seqs);
	}
	*self = c;
	return 0;
}

static void destroy(void *self)
{
	release(self);
}

static void reset(void *self)
{
	struct continuous *c = self;
	c->n_before = 0;
	for (int i = 0; i < C_COUNT; i++)
		c->n[i] = 0;
}

/* Rows that are still to come, the measure of "shortest". */
static int64_t work_left(const struct nx_sched_seq *s)
{
	return (int64_t)s->pending + s->max_out - s->n_out;
}

/* a runs before b. Equal ones keep the order of arrival, in which the engine lists them. */
static bool before(const struct continuous *c, const struct nx_sched_seq *a,
                   const struct nx_sched_seq *b)
{
	if (c->policy == PRIORITY)
		return a->priority > b->priority;
	if (c->policy == SHORTEST)
		return work_left(a) < work_left(b);
	return false;
}

static bool has_request(const struct nx_sched_view *v, int32_t n, uint32_t request)
{
	for (int32_t i = 0; i < n; i++)
		if (v->running[i].phase != NX_SEQ_HELD && v->running[i].request == request)
			return true;
	return false;
}

/* Insertion sort: stable, and the list is as short as the requests in flight. */
static void sort_waiting(struct continuous *c, const struct nx_sched_view *v, int32_t n)
{
	for (int32_t i = 0; i < n; i++) {
		int32_t j = i;
		for (; j > 0 && before(c, &v->waiting[i], &v->waiting[c->order[j - 1]]); j--)
			c->order[j] = c->order[j - 1];
		c->order[j] = i;
	}
}

/* Who waits now, and how often each was overtaken. The order of the last step holds but for those that came and went,
 * so each is found near where the one before it was. */
static void note_waiting(struct continuous *c, const struct nx_sched_view *v, int32_t n)
{
	struct waiter *old = c->before;
	int32_t at = 0;
	for (int32_t i = 0; i < n; i++) {
		const struct nx_sched_seq *s = &v->waiting[i];
		c->waiters[i] = (struct waiter){.request = s->request, .sample = s->sample};
		for (int32_t k = 0; k < c->n_before; k++) {
			const struct waiter *w = &old[(at + k) % c->n_before];
			if (w->request != s->request || w->sample != s->sample)
				continue;
			c->waiters[i].skips = w->skips;
			at = (at + k + 1) % c->n_before;
			break;
		}
	}
	c->before = c->waiters;
	c->n_before = n;
	c->waiters = old;
}

/* Who goes next: whoever ran before and was preempted, whoever was overtaken often enough, then the longest prefix;
 * among equals the first to arrive. -1 = all were granted. */
static int32_t choose(const struct continuous *c, const struct nx_sched_view *v, int32_t n)
{
	int32_t best = -1;
	for (int32_t i = 0; i < n; i++) {
		const struct waiter *w = &c->before[i];
		if (w->granted)
			continue;
		if (v->waiting[i].n_preempted || w->skips >= c->max_skips || n > MOST_CHOSEN_AMONG)
			return i;
		if (best < 0 || v->waiting[i].matched > v->waiting[best].matched)
			best = i;
	}
	return best;
}

/* Entry i of the waiting list starts: all that arrived before it were overtaken. */
static void overtake(struct continuous *c, int32_t i)
{
	bool any = false;
	c->before[i].granted = true;
	for (int32_t k = 0; k < i; k++) {
		c->before[k].skips += !c->before[k].granted;
		any |= !c->before[k].granted;
	}
	c->n[C_OVERTAKEN] += any;
}

/* The waiting one to be looked at after k were granted, or -1. */
static int32_t next_waiting(const struct continuous *c, const struct nx_sched_view *v, int32_t k,
                            int32_t n)
{
	if (c->policy == LONGEST_PREFIX)
		return choose(c, v, n);
	return k < n ? c->order[k] : -1;
}

static int schedule(void *self, const struct nx_sched_view *v, struct nx_schedule *out,
                    struct nx_err *err)
{
	struct continuous *c = self;
	int64_t free_rows = v->kv_free, rows = 0;
	int32_t places = v->free_seqs, running = 0, requests = 0;
	(void)err;
	out->release_held = true;
	for (int32_t i = 0; i < v->n_running; i++) {
		const struct nx_sched_seq *s = &v->running[i];
		if (s->phase == NX_SEQ_HELD)
			continue;
		running++;
		/* Samples of one request count once. */
		if (c->max_requests && !has_request(v, i, s->request))
			requests++;
		int32_t grow =
			s->pending + s->draft; /* rows it may take from the pool in this step */
		out->grants[out->n_grants++] =
			(struct nx_grant){.index = i, .rows = s->pending, .draft = s->draft};
		rows += grow;
		free_rows -= grow;
	}
	/* Some room stays for those that run, so that a newcomer is not preempted in its second step. */
	int64_t reserve = running ? (int64_t)(c->watermark * (double)v->kv_total) : 0;
	int32_t n = v->n_waiting < c->cap ? v->n_waiting : c->cap;
	if (c->policy == LONGEST_PREFIX)
		note_waiting(c, v, n);
	else
		sort_waiting(c, v, n);
	for (int32_t k = 0, i; (i = next_waiting(c, v, k, n)) >= 0; k++) {
		const struct nx_sched_seq *s = &v->waiting[i];
		bool more = c->max_requests && !has_request(v, v->n_running, s->request);
		bool seats = s->samples <= places && (!more || requests < c->max_requests);
		if (!seats || rows + s->pending > v->max_rows || s->kv_need > free_rows - reserve) {
			c->n[C_BLOCKED]++;
			break; /* others do not overtake whoever's turn it is: no starvation */
		}
		out->grants[out->n_grants++] =
			(struct nx_grant){.waiting = true, .index = i, .rows = s->pending};
		if (c->policy == LONGEST_PREFIX)
			overtake(c, i);
		c->n[C_JOINS]++;
		if (v->n_running)
			c->n[C_LATE_JOINS]++;
		places -= s->samples;
		requests += more;
		free_rows -= s->kv_need;
		rows += s->pending;
	}
	c->n[C_STEPS]++;
	return 0;
}

/* The last in the policy's order; among equals the newest. */
static int32_t victim(void *self, const struct nx_sched_view *v)
{
	const struct continuous *c = self;
	int32_t worst = -1;
	for (int32_t i = 0; i < v->n_running; i++) {
		if (v->running[i].phase == NX_SEQ_HELD)
			continue;
		if (worst < 0 || !before(c, &v->running[i], &v->running[worst]))
			worst = i;
	}
	return worst;
}

static void read_counters(void *self, double *values)
{
	const struct continuous *c = self;
	for (int i = 0; i < C_COUNT; i++)
		values[i] = (double)c->n[i];
}

static const struct nx_param params[] = {
	[P_POLICY] =
		{"policy", NX_PARAM_ENUM, "fcfs", 0, 0, "fcfs|priority|shortest|longest_prefix", "",
                 "who joins first: by arrival, by the request's priority, with the least work left (an oracle), or with the "
                 "longest cached prefix"},
	[P_MAX_BATCH_SIZE] = {"max_batch_size", NX_PARAM_INT, "0", 0, 4096, NULL, "requests",
                              "most requests that run at once; 0 = the cell's batch size"},
	[P_WATERMARK] = {"watermark", NX_PARAM_FLOAT, "0.01", 0, 0.5, NULL, "",
                         "share of the KV pool that admission leaves free for sequences that run"},
	[P_MAX_SKIPS] =
		{"max_skips", NX_PARAM_INT, "16", 0, 1 << 20, NULL, "requests",
                 "longest_prefix: later arrivals that may go before a request, at most; 0 = fcfs"},
	{0},
};

static const struct nx_counter counters[] = {
	[C_STEPS] = {"steps", "count", "batches made"},
	[C_JOINS] =
		{"joins", "count",
                 "starts granted, resumed requests included; one that then finds no run of free rows is granted again"},
	[C_LATE_JOINS] = {"late_joins", "count", "of these, into a batch that was running"},
	[C_BLOCKED] = {"blocked", "count", "steps in which the first waiting request did not fit"},
	[C_OVERTAKEN] = {"overtaking", "count",
                         "requests that joined before an earlier arrival, for their longer prefix"},
	{0},
};

static const struct nx_technique continuous_batching = {
	NX_TECHNIQUE_HEAD,
	.name = "continuous_batching",
	.version = "1",
	.summary = "sequences join and leave the batch at every step; admission by KV room",
	.source =
		"Yu et al., Orca, OSDI 2022, sections 3.1 and 3.2; 2309.06180 section 4.5; 2312.07104 section 3",
	.params = params,
	.counters = counters,
	.assumes = NX_TRAIT_LATE_JOIN,
	.flags = NX_TECH_EXACT,
	.create = create,
	.reset = reset,
	.destroy = destroy,
	.read_counters = read_counters,
	.schedule = schedule,
	.victim = victim,
};

NX_TECHNIQUE(&continuous_batching);
