/* SPDX-License-Identifier: Apache-2.0
 *
 * test/plugins/schedule_random.c: a scheduler without a plan: prompts in chunks of random size among decodes,
 * sequences left out of a step now and then, joins when a coin says so, drafts of any size up to the cap. Only
 * what is a rule is kept: max_rows, places, kv_need, arrival order of joins, and that something is granted.
 */
#include "hand.h"

enum { P_SEED, P_CHUNK, P_SKIP, P_JOIN, P_DRAFT, P_VICTIM };
enum { C_STEPS, C_CHUNKS, C_SKIPS, C_JOINS, C_MIXED, C_DRAFTED, C_COUNT };

struct random_schedule {
	uint64_t seed, state;
	int32_t chunk; /* largest chunk of a prompt */
	double skip, join, draft;
	bool any_victim;
	uint64_t n[C_COUNT];
};

static int create(void **self, const struct nx_host *host, const struct nx_value *values,
                  struct nx_err *err)
{
	(void)host;
	struct random_schedule *r = calloc(1, sizeof(*r));
	if (!r)
		return nx_fail(err, NX_ENOMEM, "schedule_random: out of memory");
	r->seed = r->state = (uint64_t)values[P_SEED].i << 32;
	r->chunk = (int32_t)values[P_CHUNK].i;
	r->skip = values[P_SKIP].f;
	r->join = values[P_JOIN].f;
	r->draft = values[P_DRAFT].f;
	r->any_victim = values[P_VICTIM].i == 1;
	*self = r;
	return 0;
}

static void reset(void *self)
{
	struct random_schedule *r = self;
	r->state = r->seed;
	memset(r->n, 0, sizeof(r->n));
}

static double coin(struct random_schedule *r)
{
	return hand_unit(r->state++);
}

/* Uniform in [lo, hi]. */
static int32_t between(struct random_schedule *r, int32_t lo, int32_t hi)
{
	return lo + (int32_t)(hand_next(&r->state) % (uint64_t)(hi - lo + 1));
}

/* Rows of a sequence with `pending` ones, when `room` are left in the step. 0: none. */
static int32_t rows_of(struct random_schedule *r, const struct nx_sched_view *v, int32_t pending,
                       int64_t room)
{
	if (room < 1)
		return 0;
	if (!v->split_prompt)
		return pending <= room ? pending : 0;
	int32_t most = pending < room ? pending : (int32_t)room;
	int32_t n = between(r, 1, most < r->chunk ? most : r->chunk);
	if (coin(r) < 0.25)
		n = most; /* now and then the whole prompt at once */
	r->n[C_CHUNKS] += n < pending;
	return n;
}

static int64_t grant(struct random_schedule *r, const struct nx_sched_view *v, int32_t i,
                     int64_t room, struct nx_schedule *out)
{
	const struct nx_sched_seq *s = &v->running[i];
	struct nx_grant g = {.index = i, .rows = rows_of(r, v, s->pending, room)};
	if (g.rows == 0)
		return 0;
	room -= g.rows;
	int32_t most = s->draft < room ? s->draft : (int32_t)room;
	if (g.rows == s->pending && most > 0 && coin(r) < r->draft)
		g.draft = between(r, 0, most);
	r->n[C_DRAFTED] += (uint64_t)g.draft;
	out->grants[out->n_grants++] = g;
	return g.rows + g.draft;
}

static int schedule(void *self, const struct nx_sched_view *v, struct nx_schedule *out,
                    struct nx_err *err)
{
	struct random_schedule *r = self;
	int64_t room = v->max_rows, free_rows = v->kv_free;
	int32_t places = v->free_seqs, first = 0, prompts = 0, decodes = 0, runs = 0;
	(void)err;
	out->release_held = true;
	if (v->n_running)
		first = between(r, 0, v->n_running - 1); /* nobody is always served last */
	for (int32_t k = 0; k < v->n_running; k++) {
		int32_t i = (first + k) % v->n_running;
		if (v->running[i].phase == NX_SEQ_HELD)
			continue;
		runs++;
		/* The one served first is never left out, so every step moves something. */
		if (runs > 1 && coin(r) < r->skip) {
			r->n[C_SKIPS]++;
			continue;
		}
		int64_t used = grant(r, v, i, room, out);
		room -= used;
		free_rows -= used;
		if (used)
			*(v->running[i].phase == NX_SEQ_DECODE ? &decodes : &prompts) += 1;
	}
	for (int32_t i = 0; i < v->n_waiting; i++) {
		const struct nx_sched_seq *s = &v->waiting[i];
		bool must = out->n_grants == 0;
		if (s->samples > places || s->kv_need > free_rows || (!must && coin(r) > r->join))
			break;
		int32_t rows = rows_of(r, v, s->pending, room);
		if (rows == 0)
			break;
		out->grants[out->n_grants++] =
			(struct nx_grant){.waiting = true, .index = i, .rows = rows};
		places -= s->samples;
		free_rows -= s->kv_need;
		room -= rows;
		prompts++;
		r->n[C_JOINS]++;
	}
	r->n[C_MIXED] += prompts && decodes;
	r->n[C_STEPS]++;
	return 0;
}

static int32_t victim(void *self, const struct nx_sched_view *v)
{
	struct random_schedule *r = self;
	return r->any_victim ? between(r, 0, v->n_running - 1) : v->n_running - 1;
}

static void read_counters(void *self, double *values)
{
	const struct random_schedule *r = self;
	for (int i = 0; i < C_COUNT; i++)
		values[i] = (double)r->n[i];
}

static const struct nx_param params[] = {
	[P_SEED] = {"seed", NX_PARAM_INT, "1", 0, 1 << 30, NULL, "", "of all its coins"},
	[P_CHUNK] = {"chunk", NX_PARAM_INT, "16", 1, 1 << 20, NULL, "rows", "largest chunk"},
	[P_SKIP] = {"skip", NX_PARAM_FLOAT, "0.2", 0, 0.95, NULL, "fraction",
                    "of running sequences that a step leaves out"},
	[P_JOIN] = {"join", NX_PARAM_FLOAT, "0.6", 0, 1, NULL, "fraction",
                    "of steps in which the next waiting one may join"},
	[P_DRAFT] = {"draft", NX_PARAM_FLOAT, "0.8", 0, 1, NULL, "fraction",
                     "of grants that may draft"},
	[P_VICTIM] = {"victim", NX_PARAM_ENUM, "newest", 0, 0, "newest|any", "",
                      "who is preempted"},
	{0},
};

static const struct nx_counter counters[] = {
	[C_STEPS] = {"steps", "count", "steps planned"},
	[C_CHUNKS] = {"chunks", "count", "grants below what was pending"},
	[C_SKIPS] = {"skips", "count", "running sequences left out of a step"},
	[C_JOINS] = {"joins", "count", "sequences started or resumed"},
	[C_MIXED] = {"mixed", "count", "steps with prompts and decodes"},
	[C_DRAFTED] = {"draft_rows", "rows", "granted to drafts"},
	{0},
};

static const struct nx_technique schedule_random = {
	NX_TECHNIQUE_HEAD,
	.name = "schedule_random",
	.version = "1",
	.summary = "for tests: random chunks, joins, pauses and draft rows",
	.source = "none",
	.params = params,
	.counters = counters,
	.assumes = NX_TRAIT_LATE_JOIN | NX_TRAIT_SPLIT_PROMPT,
	.flags = NX_TECH_EXACT,
	.create = create,
	.reset = reset,
	.destroy = free,
	.read_counters = read_counters,
	.schedule = schedule,
	.victim = victim,
};

NX_TECHNIQUE(&schedule_random);
