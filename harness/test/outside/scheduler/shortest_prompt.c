/* SPDX-License-Identifier: Apache-2.0
 *
 * shortest_prompt: whoever has the least prompt left to compute starts first, in chunks.
 *
 * A step computes at most `budget` rows of prompts besides the decodes, so that a long prompt does not hold up those
 * that are being served; and after `patience` steps without a start the oldest is next whatever its length, so that
 * nobody starves. Built outside the tree of Nexus, against its installed headers.
 */
#include <stdlib.h>
#include <string.h>

#include <nexus/technique.h>

enum { P_BUDGET, P_PATIENCE };
enum { C_STEPS, C_CHUNKS, C_OVERTAKEN, C_COUNT };

struct shortest {
	const struct nx_host *host;
	int32_t budget, patience;
	int32_t waited; /* steps in which the oldest was passed over */
	double n[C_COUNT];
};

static int create(void **self, const struct nx_host *host, const struct nx_value *values,
                  struct nx_err *err)
{
	struct shortest *s = calloc(1, sizeof(*s));
	if (!s)
		return nx_fail(err, NX_ENOMEM, "shortest_prompt: out of memory");
	s->host = host;
	s->budget = (int32_t)values[P_BUDGET].i;
	s->patience = (int32_t)values[P_PATIENCE].i;
	*self = s;
	return 0;
}

static void reset(void *self)
{
	struct shortest *s = self;
	s->waited = 0;
	memset(s->n, 0, sizeof(s->n));
}

static int32_t least(int32_t a, int32_t b)
{
	return a < b ? a : b;
}

static bool granted(const struct nx_schedule *out, int32_t index)
{
	for (int32_t i = 0; i < out->n_grants; i++)
		if (out->grants[i].waiting && out->grants[i].index == index)
			return true;
	return false;
}

/* The next to start: the oldest when it has waited long enough, else the one with the least to compute. */
static int32_t pick(const struct shortest *s, const struct nx_sched_view *v,
                    const struct nx_schedule *out)
{
	int32_t best = -1;
	for (int32_t i = 0; i < v->n_waiting; i++) {
		if (granted(out, i))
			continue;
		if (best < 0 || v->waiting[i].pending < v->waiting[best].pending)
			best = i;
		if (s->waited >= s->patience)
			return i; /* they are listed by arrival */
	}
	return best;
}

static int schedule(void *self, const struct nx_sched_view *v, struct nx_schedule *out,
                    struct nx_err *err)
{
	struct shortest *s = self;
	int64_t kv_free = v->kv_free;
	int32_t rows = 0, prompt = 0, places = v->free_seqs;
	(void)err;
	/* Decodes first: their latency is what the budget protects. Then prompts that have begun. */
	for (int pass = 0; pass < 2; pass++)
		for (int32_t i = 0; i < v->n_running; i++) {
			const struct nx_sched_seq *q = &v->running[i];
			bool decodes = q->phase == NX_SEQ_DECODE;
			if (q->phase == NX_SEQ_HELD || decodes != (pass == 0))
				continue;
			int32_t n = least(q->pending, v->max_rows - rows);
			if (!decodes && v->split_prompt)
				n = least(n, s->budget - prompt);
			if (n <= 0 || (n < q->pending && !v->split_prompt))
				continue;
			int32_t draft = decodes ? least(q->draft, v->max_rows - rows - n) : 0;
			out->grants[out->n_grants++] =
				(struct nx_grant){.index = i, .rows = n, .draft = draft};
			rows += n + draft;
			kv_free -= n + draft;
			prompt += decodes ? 0 : n;
			s->n[C_CHUNKS] += n < q->pending;
		}
	bool oldest = v->n_waiting == 0;
	for (int32_t k = 0; k < v->n_waiting; k++) {
		int32_t i = pick(s, v, out);
		const struct nx_sched_seq *q = &v->waiting[i];
		int32_t n = least(q->pending, v->max_rows - rows);
		if (v->split_prompt)
			n = least(n, s->budget - prompt);
		if (n <= 0 || (n < q->pending && !v->split_prompt) || q->samples > places ||
		    q->kv_need > kv_free)
			break;
		out->grants[out->n_grants++] =
			(struct nx_grant){.waiting = true, .index = i, .rows = n};
		rows += n;
		prompt += n;
		places -= q->samples;
		kv_free -= q->kv_need;
		s->n[C_CHUNKS] += n < q->pending;
		s->n[C_OVERTAKEN] += i > 0 && !granted(out, 0);
		oldest |= i == 0;
	}
	s->waited = oldest ? 0 : s->waited + 1;
	s->n[C_STEPS]++;
	return 0;
}

static void read_counters(void *self, double *values)
{
	const struct shortest *s = self;
	memcpy(values, s->n, sizeof(s->n));
}

static const struct nx_param params[] = {
	[P_BUDGET] = {"budget", NX_PARAM_INT, "64", 1, 65536, NULL, "rows",
                      "most prompt rows of a step, decodes aside"},
	[P_PATIENCE] = {"patience", NX_PARAM_INT, "50", 0, 100000, NULL, "steps",
                        "the oldest is passed over as often at most; 0 = first come, first served"},
	{0},
};

static const struct nx_counter counters[] = {
	[C_STEPS] = {"steps", "count", "steps scheduled"},
	[C_CHUNKS] = {"chunks", "count", "grants of a part of a prompt"},
	[C_OVERTAKEN] = {"overtaken", "count", "starts before the oldest"},
	{0},
};

static const struct nx_technique technique = {
	NX_TECHNIQUE_HEAD,
	.name = "shortest_prompt",
	.version = "1",
	.summary = "the shortest prompt starts first, prompts in chunks beside the decodes",
	.source = "Agrawal et al. 2308.16369 (chunks); shortest job first with ageing",
	.params = params,
	.counters = counters,
	.assumes = NX_TRAIT_LATE_JOIN,
	.flags = NX_TECH_EXACT,
	.create = create,
	.reset = reset,
	.destroy = free,
	.read_counters = read_counters,
	.schedule = schedule,
};

NX_TECHNIQUE(&technique);
