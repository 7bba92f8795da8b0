/* SPDX-License-Identifier: Apache-2.0
 *
 * test/plugins/draft_noise.c: drafts drawn from noise: q = softmax(strength * hash(parent's token, position, row of
 * q)), over all tokens or every other one. No layers, no taps; what it proposes is bad and its law is known, which
 * is what a test of verification wants.
 *
 *   chain      each row hangs from the one before and has a row of q of its own
 *   siblings   all hang from the root: the first half drawn without replacement from one row of q, the others
 *              each from its own
 *   tree       two siblings of one row of q below the root, then two below each earlier row in turn, of which the
 *              second is chosen: both sorts at one node
 */
#include <math.h>

#include "hand.h"

enum { P_SHAPE, P_SAMPLED, P_REDUCED, P_ROWS, P_STRENGTH };
enum { C_ROUNDS, C_ROWS, C_COUNT };
enum shape { CHAIN, SIBLINGS, TREE };

struct noise {
	const struct nx_host *host;
	enum shape shape;
	bool sampled, reduced;
	int32_t rows, vocab, cols;
	float strength;
	float *q;         /* device, [max_seqs * rows, cols] */
	int32_t *q_token; /* device, [cols]; NULL when the column is the token */
	uint64_t n[C_COUNT];
};

struct round {
	const struct noise *d;
	struct nx_draft out;
	const struct nx_draft_span *spans;
	int32_t n_spans;
	struct nx_seq_state state;
	const struct nx_sampler *samplers;
};

static int create(void **self, const struct nx_host *host, const struct nx_value *values,
                  struct nx_err *err)
{
	struct noise *d = calloc(1, sizeof(*d));
	if (!d)
		return nx_fail(err, NX_ENOMEM, "draft_noise: out of memory");
	d->host = host;
	d->shape = (enum shape)values[P_SHAPE].i;
	d->sampled = values[P_SAMPLED].b;
	d->reduced = values[P_REDUCED].b;
	d->rows = (int32_t)values[P_ROWS].i;
	d->strength = (float)values[P_STRENGTH].f;
	d->vocab = host->model.vocab;
	d->cols = d->reduced ? (d->vocab + 1) / 2 : d->vocab;
	*self = d;
	return 0;
}

static size_t q_bytes(const struct noise *d)
{
	return (size_t)d->host->max_seqs * (size_t)d->rows * (size_t)d->cols * sizeof(*d->q);
}

static void drop(struct noise *d)
{
	const struct nx_host *h = d->host;
	if (d->q)
		h->free(h->ctx, NX_MEM_DEVICE, d->q, q_bytes(d));
	if (d->q_token)
		h->free(h->ctx, NX_MEM_DEVICE, d->q_token, (size_t)d->cols * sizeof(int32_t));
	d->q = NULL;
	d->q_token = NULL;
}

static void destroy(void *self)
{
	drop(self);
	free(self);
}

static void reset(void *self)
{
	struct noise *d = self;
	memset(d->n, 0, sizeof(d->n));
}

/* Every other token, from the last one down: no column is its token. */
static int fill_map(struct noise *d, struct nx_err *err)
{
	const struct nx_host *h = d->host;
	size_t bytes = (size_t)d->cols * sizeof(int32_t);
	int32_t *map = h->alloc(h->ctx, NX_MEM_HOST, bytes);
	d->q_token = h->alloc(h->ctx, NX_MEM_DEVICE, bytes);
	int rc =
		map && d->q_token ? 0 : nx_fail(err, NX_ENOMEM, "draft_noise: no memory for a map");
	for (int32_t i = 0; i < d->cols && !rc; i++)
		map[i] = d->vocab - 1 - 2 * i;
	if (!rc)
		rc = h->ops->copy(h->dev, NULL, d->q_token, map, bytes, NX_H2D, err);
	if (!rc)
		rc = h->ops->stream_sync(h->dev, NULL, err);
	if (map)
		h->free(h->ctx, NX_MEM_HOST, map, bytes);
	return rc;
}

static int draft_needs(void *self, const struct nx_draft_limits *l, struct nx_draft_needs *out,
                       struct nx_err *err)
{
	struct noise *d = self;
	(void)l;
	drop(d);
	*out = (struct nx_draft_needs){.max_rows = d->rows};
	if (!d->sampled)
		return 0;
	d->q = d->host->alloc(d->host->ctx, NX_MEM_DEVICE, q_bytes(d));
	if (!d->q)
		return nx_fail(err, NX_ENOMEM, "draft_noise: no memory for probabilities");
	int rc = d->reduced ? fill_map(d, err) : 0;
	out->q = d->q;
	out->q_cols = d->cols;
	out->q_token = d->q_token;
	return rc;
}

static int32_t propose(void *self, const struct nx_draft_seq *s, struct nx_draft_row *rows)
{
	struct noise *d = self;
	int32_t n = s->cap < d->rows ? s->cap : d->rows;
	(void)rows;
	d->n[C_ROUNDS]++;
	d->n[C_ROWS] += (uint64_t)n;
	return n;
}

/* ---- on the device ---- */

static double noise_at(const struct noise *d, int32_t token, int32_t position, int32_t which,
                       int32_t col)
{
	uint64_t k = hand_mix((uint64_t)(uint32_t)token << 32 | (uint32_t)position);
	return (double)d->strength * hand_unit(k ^ hand_mix((uint64_t)which << 32 | (uint32_t)col));
}

static void fill_q(const struct noise *d, float *q, int32_t token, int32_t position, int32_t which)
{
	double total = 0;
	for (int32_t i = 0; i < d->cols; i++)
		total += exp(noise_at(d, token, position, which, i));
	for (int32_t i = 0; i < d->cols; i++)
		q[i] = (float)(exp(noise_at(d, token, position, which, i)) / total);
}

static bool taken(const int32_t *cols, int32_t n, int32_t col)
{
	for (int32_t i = 0; i < n; i++)
		if (cols[i] == col)
			return true;
	return false;
}

/* A column of q in proportion to its mass, without those taken. */
static int32_t draw(const struct noise *d, const float *q, const int32_t *cols, int32_t n, double u)
{
	double total = 0, mass = 0;
	int32_t last = -1;
	for (int32_t i = 0; i < d->cols; i++)
		total += taken(cols, n, i) ? 0 : (double)q[i];
	for (int32_t i = 0; i < d->cols; i++) {
		if (taken(cols, n, i) || q[i] <= 0)
			continue;
		last = i;
		mass += (double)q[i];
		if (mass > u * total)
			break;
	}
	return last;
}

/* Where row i hangs, and which of its earlier siblings were drawn from its row of q. */
static void place_row(const struct noise *d, int32_t i, int32_t n, int32_t *parent, int32_t *mate,
                      bool *chosen)
{
	*mate = -1;
	*chosen = !d->sampled;
	if (d->shape == CHAIN) {
		*parent = i - 1;
	} else if (d->shape == SIBLINGS) {
		*parent = NX_DRAFT_ROOT;
		*mate = i && i < (n + 1) / 2 ? 0 : -1;
	} else {
		*parent = i / 2 - 1;
		*mate = i == 1 ? 0 : -1;
		*chosen |= i > 1 && i % 2;
	}
}

static void draft_one(const struct round *r, int32_t seq, int32_t n)
{
	const struct noise *d = r->d;
	const struct nx_sampler *s = &r->samplers[seq];
	int32_t *token = r->out.token + (int64_t)seq * r->out.stride;
	int32_t *parent = r->out.parent + (int64_t)seq * r->out.stride;
	int32_t *q_row = r->out.q_row + (int64_t)seq * r->out.stride;
	int32_t depth[64], cols[64];
	for (int32_t i = 0; i < n; i++) {
		int32_t mate;
		bool chosen;
		place_row(d, i, n, &parent[i], &mate, &chosen);
		int32_t p = parent[i];
		depth[i] = p < 0 ? 1 : depth[p] + 1;
		int32_t position = r->state.len[seq] + depth[i];
		int32_t before = p < 0 ? r->state.last_token[seq] : token[p];
		r->out.kind[(int64_t)seq * r->out.stride + i] = NX_ROW_CANDIDATE;
		q_row[i] = NX_Q_CERTAIN;
		if (chosen) {
			uint64_t k =
				(uint64_t)(uint32_t)before << 32 | (uint32_t)(position * 64 + i);
			token[i] = (int32_t)(hand_mix(k) % (uint64_t)d->vocab);
			cols[i] = -1;
			continue;
		}
		q_row[i] = seq * d->rows + (mate >= 0 ? mate : i);
		float *q = d->q + (int64_t)q_row[i] * d->cols;
		if (mate < 0)
			fill_q(d, q, before, position, i);
		double u = nx_rng_uniform(s->seed, s->request, s->sample, (uint32_t)position,
		                          NX_RNG_SIBLING(NX_RNG_DRAFT, i));
		/* Mates are rows mate to i - 1, all of them. */
		cols[i] = draw(d, q, cols + (mate >= 0 ? mate : i), mate >= 0 ? i - mate : 0, u);
		token[i] = d->q_token ? d->q_token[cols[i]] : cols[i];
	}
}

static void run(void *args)
{
	const struct round *r = args;
	for (int32_t i = 0; i < r->n_spans; i++)
		draft_one(r, r->spans[i].seq, r->spans[i].n);
}

static int draft(void *self, struct nx_stream *s, const struct nx_draft_step *step,
                 struct nx_err *err)
{
	struct noise *d = self;
	struct round r = {.d = d,
	                  .out = *step->out,
	                  .spans = step->spans,
	                  .n_spans = step->n_spans,
	                  .state = *step->state,
	                  .samplers = step->samplers};
	return d->host->ops->enqueue(d->host->dev, s, run, &r, sizeof(r), err);
}

static void read_counters(void *self, double *v)
{
	const struct noise *d = self;
	for (int i = 0; i < C_COUNT; i++)
		v[i] = (double)d->n[i];
}

static const struct nx_param params[] = {
	[P_SHAPE] = {"shape", NX_PARAM_ENUM, "chain", 0, 0, "chain|siblings|tree", "",
                     "of the draft"},
	[P_SAMPLED] = {"sampled", NX_PARAM_BOOL, "true", 0, 0, NULL, "",
                       "tokens are drawn from q; false: all are chosen"},
	[P_REDUCED] = {"reduced", NX_PARAM_BOOL, "false", 0, 0, NULL, "",
                       "q covers every other token"},
	[P_ROWS] = {"rows", NX_PARAM_INT, "4", 1, 64, NULL, "rows", "drafted for a sequence"},
	[P_STRENGTH] = {"strength", NX_PARAM_FLOAT, "3", 0, 30, NULL, "",
                        "how far q is from uniform"},
	{0},
};

static const struct nx_counter counters[] = {
	[C_ROUNDS] = {"rounds", "count", "drafts proposed"},
	[C_ROWS] = {"rows", "rows", "drafted"},
	{0},
};

static const struct nx_technique draft_noise = {
	NX_TECHNIQUE_HEAD,
	.name = "draft_noise",
	.version = "1",
	.summary = "for tests: drafts drawn from noise of a known law",
	.source = "none",
	.params = params,
	.counters = counters,
	.assumes = NX_TRAIT_KEPT_KV | NX_TRAIT_FULL_KV,
	.flags = NX_TECH_EXACT,
	.probe = hand_probe,
	.create = create,
	.reset = reset,
	.destroy = destroy,
	.read_counters = read_counters,
	.draft_needs = draft_needs,
	.propose = propose,
	.draft = draft,
};

NX_TECHNIQUE(&draft_noise);
