/* SPDX-License-Identifier: Apache-2.0
 *
 * bigram_drafter: learns from each sequence which token follows which, and drafts by walking along.
 *
 * One cell a token and place: the successor that has won so far and its votes (a majority vote in one pass: a hit adds
 * one, a miss takes one, at zero the newcomer takes over). A cell belongs to the sequence whose generation it bears,
 * so a new sequence in a place clears nothing. Built outside the tree of Nexus, against its installed headers.
 */
#include <stdlib.h>
#include <string.h>

#include <nexus/technique.h>

enum { P_NUM_TOKENS, P_MIN_VOTES };
enum { C_ROUNDS, C_PROPOSED, C_UNKNOWN, C_COUNT };

struct cell {
	int32_t next, votes;
	uint32_t generation;
};

struct place {
	uint32_t generation, request, sample;
	int32_t learned; /* tokens seen */
	bool known;
};

struct bigram {
	const struct nx_host *host;
	int32_t num_tokens, min_votes;
	struct place *places; /* [max_seqs] */
	struct cell *cells;   /* [max_seqs, vocab] */
	double n[C_COUNT];
};

static size_t cells_bytes(int32_t max_seqs, int32_t vocab)
{
	return (size_t)max_seqs * (size_t)vocab * sizeof(struct cell);
}

static int probe(struct nx_probe *p, struct nx_err *err)
{
	(void)err;
	p->host_bytes = cells_bytes(p->max_seqs, p->model.vocab) +
	                (size_t)p->max_seqs * sizeof(struct place);
	return 0;
}

static void destroy(void *self)
{
	struct bigram *b = self;
	const struct nx_host *h = b->host;
	if (b->cells)
		h->free(h->ctx, NX_MEM_HOST, b->cells, cells_bytes(h->max_seqs, h->model.vocab));
	if (b->places)
		h->free(h->ctx, NX_MEM_HOST, b->places, (size_t)h->max_seqs * sizeof(*b->places));
	free(b);
}

static int create(void **self, const struct nx_host *host, const struct nx_value *values,
                  struct nx_err *err)
{
	struct bigram *b = calloc(1, sizeof(*b));
	if (!b)
		return nx_fail(err, NX_ENOMEM, "bigram_drafter: out of memory");
	size_t bytes = cells_bytes(host->max_seqs, host->model.vocab);
	size_t place_bytes = (size_t)host->max_seqs * sizeof(*b->places);
	b->host = host;
	b->num_tokens = (int32_t)values[P_NUM_TOKENS].i;
	b->min_votes = (int32_t)values[P_MIN_VOTES].i;
	b->cells = host->alloc(host->ctx, NX_MEM_HOST, bytes);
	b->places = host->alloc(host->ctx, NX_MEM_HOST, place_bytes);
	if (!b->cells || !b->places) {
		destroy(b);
		return nx_fail(err, NX_ENOMEM, "bigram_drafter: no memory for %zu bytes of bigrams",
		               bytes + place_bytes);
	}
	memset(b->cells, 0, bytes);
	memset(b->places, 0, place_bytes);
	*self = b;
	return 0;
}

static void reset(void *self)
{
	struct bigram *b = self;
	for (int32_t i = 0; i < b->host->max_seqs; i++)
		b->places[i].known = false;
	memset(b->n, 0, sizeof(b->n));
}

static int64_t warm(void *self)
{
	const struct bigram *b = self;
	int64_t n = 0;
	for (int32_t i = 0; i < b->host->max_seqs; i++)
		n += b->places[i].known;
	return n;
}

static int draft_needs(void *self, const struct nx_draft_limits *l, struct nx_draft_needs *out,
                       struct nx_err *err)
{
	const struct bigram *b = self;
	(void)l;
	(void)err;
	out->max_rows = b->num_tokens;
	return 0;
}

static void learn(struct bigram *b, const struct nx_draft_seq *s, struct cell *cells)
{
	struct place *p = &b->places[s->seq];
	if (!p->known || p->request != s->request || p->sample != s->sample ||
	    p->learned > s->n_tokens)
		*p = (struct place){.generation = p->generation + 1,
		                    .request = s->request,
		                    .sample = s->sample,
		                    .learned = 1,
		                    .known = true};
	for (; p->learned < s->n_tokens; p->learned++) {
		struct cell *c = &cells[s->tokens[p->learned - 1]];
		int32_t next = s->tokens[p->learned];
		if (c->generation != p->generation || (c->next != next && --c->votes <= 0))
			*c = (struct cell){next, 1, p->generation};
		else if (c->next == next)
			c->votes++;
	}
}

static int32_t propose(void *self, const struct nx_draft_seq *s, struct nx_draft_row *rows)
{
	struct bigram *b = self;
	struct cell *cells = b->cells + (size_t)s->seq * (size_t)b->host->model.vocab;
	int32_t n = 0, most = s->cap < b->num_tokens ? s->cap : b->num_tokens;
	learn(b, s, cells);
	int32_t token = s->tokens[s->n_tokens - 1];
	for (; n < most; n++) {
		const struct cell *c = &cells[token];
		if (c->generation != b->places[s->seq].generation || c->votes < b->min_votes)
			break;
		token = c->next;
		rows[n] = (struct nx_draft_row){.token = token,
		                                .parent = n ? n - 1 : NX_DRAFT_ROOT,
		                                .kind = NX_ROW_CANDIDATE};
	}
	b->n[C_ROUNDS]++;
	b->n[C_PROPOSED] += n;
	b->n[C_UNKNOWN] += n == 0;
	return n;
}

static void read_counters(void *self, double *values)
{
	const struct bigram *b = self;
	memcpy(values, b->n, sizeof(b->n));
}

static const struct nx_param params[] = {
	[P_NUM_TOKENS] = {"num_tokens", NX_PARAM_INT, "3", 1, 32, NULL, "tokens",
                          "most tokens drafted for a sequence in a step"},
	[P_MIN_VOTES] = {"min_votes", NX_PARAM_INT, "1", 1, 100, NULL, "count",
                         "a successor is drafted only when it leads by as many votes"},
	{0},
};

static const struct nx_counter counters[] = {
	[C_ROUNDS] = {"rounds", "count", "times that a sequence was asked about"},
	[C_PROPOSED] = {"proposed", "tokens", "tokens drafted"},
	[C_UNKNOWN] = {"unknown", "count", "rounds in which the last token had no successor yet"},
	{0},
};

static const struct nx_technique technique = {
	NX_TECHNIQUE_HEAD,
	.name = "bigram_drafter",
	.version = "1",
	.summary = "drafts along the bigrams that a sequence has had so far",
	.source = "Boyer and Moore, MJRTY, 1981 (the vote)",
	.params = params,
	.counters = counters,
	.assumes = NX_TRAIT_KEPT_KV | NX_TRAIT_FULL_KV,
	.flags = NX_TECH_EXACT | NX_TECH_NEEDS_TOKENS,
	.probe = probe,
	.create = create,
	.reset = reset,
	.destroy = destroy,
	.read_counters = read_counters,
	.warm = warm,
	.draft_needs = draft_needs,
	.propose = propose,
};

NX_TECHNIQUE(&technique);
