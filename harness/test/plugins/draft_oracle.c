/* SPDX-License-Identifier: Apache-2.0
 *
 * test/plugins/draft_oracle.c: a host drafter. With probability `hit` a row is what followed the last token where
 * it stood before in the sequence's own text, which small models repeat; otherwise it comes from a generator over
 * positions. Draws are keyed by (seed, request, sample, length), so a draft does not depend on who else ran.
 * Drafts may branch, repeat a sibling's token, end in a probe, pause, and stop for good.
 */
#include "hand.h"

enum { P_SEED, P_HIT, P_ROWS, P_SHAPE, P_PAUSE, P_QUIT };
enum { C_ROUNDS, C_ROWS, C_HITS, C_PAUSED, C_QUIT, C_MOST, C_COUNT };

struct oracle {
	const struct nx_host *host;
	uint64_t seed;
	double hit, pause;
	int32_t rows, quit;
	bool tree;
	int32_t *rounds; /* [max_seqs] of the sequence at the place */
	uint64_t n[C_COUNT];
};

static int create(void **self, const struct nx_host *host, const struct nx_value *values,
                  struct nx_err *err)
{
	struct oracle *o = calloc(1, sizeof(*o));
	if (!o)
		return nx_fail(err, NX_ENOMEM, "draft_oracle: out of memory");
	o->host = host;
	o->seed = (uint64_t)values[P_SEED].i;
	o->hit = values[P_HIT].f;
	o->rows = (int32_t)values[P_ROWS].i;
	o->tree = values[P_SHAPE].i == 1;
	o->pause = values[P_PAUSE].f;
	o->quit = (int32_t)values[P_QUIT].i;
	size_t bytes = (size_t)host->max_seqs * sizeof(*o->rounds);
	o->rounds = host->alloc(host->ctx, NX_MEM_HOST, bytes);
	if (!o->rounds) {
		free(o);
		return nx_fail(err, NX_ENOMEM, "draft_oracle: no memory for %d places",
		               host->max_seqs);
	}
	memset(o->rounds, 0, bytes);
	*self = o;
	return 0;
}

static void destroy(void *self)
{
	struct oracle *o = self;
	o->host->free(o->host->ctx, NX_MEM_HOST, o->rounds,
	              (size_t)o->host->max_seqs * sizeof(*o->rounds));
	free(o);
}

static void reset(void *self)
{
	struct oracle *o = self;
	memset(o->rounds, 0, (size_t)o->host->max_seqs * sizeof(*o->rounds));
	memset(o->n, 0, sizeof(o->n));
}

/* Whoever gets a place begins anew. */
static void event(void *self, const struct nx_seq_event *e)
{
	struct oracle *o = self;
	if (e->kind == NX_EVENT_ADMIT || e->kind == NX_EVENT_FORK || e->kind == NX_EVENT_RESUME)
		o->rounds[e->seq] = 0;
}

static int draft_needs(void *self, const struct nx_draft_limits *l, struct nx_draft_needs *out,
                       struct nx_err *err)
{
	(void)l;
	(void)err;
	*out = (struct nx_draft_needs){.max_rows = ((struct oracle *)self)->rows};
	return 0;
}

/* Index of what followed `last` in the text, or -1. */
static int32_t follows(const int32_t *tokens, int32_t n, int32_t last)
{
	for (int32_t i = n - 2; i >= 0; i--)
		if (tokens[i] == last)
			return i + 1;
	return -1;
}

static int32_t propose(void *self, const struct nx_draft_seq *s, struct nx_draft_row *rows)
{
	struct oracle *o = self;
	uint64_t k = hand_mix(o->seed ^ hand_mix((uint64_t)s->request << 32 | s->sample));
	k = hand_mix(k ^ (uint64_t)(uint32_t)s->n_tokens);
	if (o->quit && o->rounds[s->seq] >= o->quit) {
		o->n[C_QUIT]++;
		return NX_UNDRAFTABLE;
	}
	o->rounds[s->seq]++;
	if (hand_unit(k++) < o->pause) {
		o->n[C_PAUSED]++;
		return 0;
	}
	int32_t n = s->cap < o->rows ? s->cap : o->rows, main = NX_DRAFT_ROOT;
	int32_t at = follows(s->tokens, s->n_tokens, s->tokens[s->n_tokens - 1]);
	for (int32_t i = 0; i < n; i++) {
		struct nx_draft_row *r = &rows[i];
		*r = (struct nx_draft_row){.parent = main, .kind = NX_ROW_CANDIDATE};
		bool good = at >= 0 && at < s->n_tokens && hand_unit(k++) < o->hit;
		r->token = good ? s->tokens[at]
		                : (int32_t)(hand_next(&k) % (uint64_t)o->host->model.vocab);
		o->n[C_HITS] += good;
		/* Every third row of a tree is a sibling of its main line, every sixth the same again. */
		if (o->tree && i % 3 == 2) {
			if (i % 6 == 5)
				r->token = rows[i - 1].token;
			r->parent = rows[i - 1].parent;
			if (i == n - 1)
				r->kind = NX_ROW_PROBE;
			continue;
		}
		main = i;
		at++;
	}
	o->n[C_ROUNDS]++;
	o->n[C_ROWS] += (uint64_t)n;
	if (n > (int32_t)o->n[C_MOST])
		o->n[C_MOST] = (uint64_t)n;
	return n;
}

static void read_counters(void *self, double *v)
{
	const struct oracle *o = self;
	for (int i = 0; i < C_COUNT; i++)
		v[i] = (double)o->n[i];
}

static const struct nx_param params[] = {
	[P_SEED] = {"seed", NX_PARAM_INT, "1", 0, 1 << 30, NULL, "", "of all its draws"},
	[P_HIT] = {"hit", NX_PARAM_FLOAT, "0.7", 0, 1, NULL, "fraction",
                   "of rows that repeat the text"},
	[P_ROWS] = {"rows", NX_PARAM_INT, "5", 1, 64, NULL, "rows", "drafted for a sequence"},
	[P_SHAPE] = {"shape", NX_PARAM_ENUM, "chain", 0, 0, "chain|tree", "", "of the draft"},
	[P_PAUSE] = {"pause", NX_PARAM_FLOAT, "0", 0, 1, NULL, "fraction",
                     "of rounds without a draft"},
	[P_QUIT] = {"quit", NX_PARAM_INT, "0", 0, 1 << 20, NULL, "rounds",
                    "after which a sequence is undraftable; 0 = never"},
	{0},
};

static const struct nx_counter counters[] = {
	[C_ROUNDS] = {"rounds", "count", "drafts proposed"},
	[C_ROWS] = {"rows", "rows", "drafted"},
	[C_HITS] = {"hits", "rows", "that repeat the text"},
	[C_PAUSED] = {"paused", "count", "rounds left out"},
	[C_QUIT] = {"quit", "count", "sequences that are drafted for no more"},
	[C_MOST] = {"most_rows", "rows", "largest draft"},
	{0},
};

static const struct nx_technique draft_oracle = {
	NX_TECHNIQUE_HEAD,
	.name = "draft_oracle",
	.version = "1",
	.summary = "for tests: a host drafter that repeats the text, branches, pauses and stops",
	.source = "none",
	.params = params,
	.counters = counters,
	.assumes = NX_TRAIT_KEPT_KV | NX_TRAIT_FULL_KV,
	.flags = NX_TECH_EXACT | NX_TECH_NEEDS_TOKENS,
	.create = create,
	.reset = reset,
	.destroy = destroy,
	.read_counters = read_counters,
	.event = event,
	.draft_needs = draft_needs,
	.propose = propose,
};

NX_TECHNIQUE(&draft_oracle);
