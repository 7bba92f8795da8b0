/* SPDX-License-Identifier: Apache-2.0
 *
 * prompt_lookup: drafts by copying. The last n tokens of a sequence are looked up in what came before them, prompt
 * and output alike; what followed there is proposed (prompt lookup decoding, Saxena 2023; the same idea over a
 * reference text: LLMA, 2304.04487). No model, no memory of the device, no forward of its own.
 *
 * The index. For each place and each n there is a hash table with open addressing from n-grams to the index of the
 * token that followed them. An entry holds no n-gram: the engine hands in the tokens at every call, so a probe
 * compares them in place, and what it finds is a true match however the table came about. Tables hold at most one
 * entry a token and twice as many slots. A step inserts what it committed and looks up once: its cost does not
 * depend on the length of the context. Nothing is cleared when a place gets another sequence: entries are stored as
 * base + index, and base moves past all that was ever stored.
 */
#include <stdlib.h>
#include <string.h>

#include "nexus/technique.h"

enum { P_NUM_TOKENS, P_NGRAM_MIN, P_NGRAM_MAX, P_MATCH };
enum match { RECENT, FIRST };
enum { C_ROUNDS, C_NO_MATCH, C_PROPOSED, C_JUDGED, C_ACCEPTED, C_INDEXED, C_COUNT };

#define NGRAM_LIMIT 16

struct place {
	bool known; /* the index is of (request, sample) */
	uint32_t request, sample;
	uint32_t base;   /* entries below it are empty */
	int32_t indexed; /* n-grams that end before this token are in the tables */
	int32_t waiting; /* rows proposed whose verdict was not seen yet */
};

struct lookup {
	int32_t num_tokens, ngram_min, ngram_max;
	enum match match;
	const struct nx_host *host;
	struct place *places; /* [max_seqs] */
	uint32_t *slots;      /* [max_seqs, ngram_max - ngram_min + 1, 1 << bits] */
	int32_t bits;
	uint64_t n[C_COUNT];
};

/* ---- sizes ------------------------------------------------------------------------------------ */

/* At least two slots a token: a chain of probes is 1.5 entries long for a hit, 2.5 for a miss (Knuth 6.4). */
static int32_t table_bits(int32_t max_len)
{
	int32_t bits = 4;
	while (((int64_t)1 << bits) < 2 * ((int64_t)max_len + 1))
		bits++;
	return bits;
}

static size_t slots_bytes(int32_t max_seqs, int32_t max_len, int32_t orders)
{
	return (size_t)max_seqs * (size_t)orders * sizeof(uint32_t) << table_bits(max_len);
}

static int check_orders(const struct nx_value *v, struct nx_err *err)
{
	if (v[P_NGRAM_MIN].i <= v[P_NGRAM_MAX].i)
		return 0;
	return nx_fail(
		err, NX_EINVAL,
		"prompt_lookup: ngram_min is %d, but ngram_max only %d; legal: ngram_min from 1 to ngram_max",
		(int)v[P_NGRAM_MIN].i, (int)v[P_NGRAM_MAX].i);
}

static int probe(struct nx_probe *p, struct nx_err *err)
{
	const struct nx_value *v = p->values;
	int32_t orders = (int32_t)(v[P_NGRAM_MAX].i - v[P_NGRAM_MIN].i + 1);
	int rc = check_orders(v, err);
	if (rc)
		return rc;
	p->host_bytes = slots_bytes(p->max_seqs, p->max_len, orders) +
	                (size_t)p->max_seqs * sizeof(struct place);
	return 0;
}

/* ---- life ------------------------------------------------------------------------------------- */

static int32_t orders_of(const struct lookup *l)
{
	return l->ngram_max - l->ngram_min + 1;
}

static void release(struct lookup *l)
{
	const struct nx_host *h = l->host;
	if (l->slots)
		h->free(h->ctx, NX_MEM_HOST, l->slots,
		        slots_bytes(h->max_seqs, h->max_len, orders_of(l)));
	if (l->places)
		h->free(h->ctx, NX_MEM_HOST, l->places, (size_t)h->max_seqs * sizeof(*l->places));
	free(l);
}

static int create(void **self, const struct nx_host *host, const struct nx_value *values,
                  struct nx_err *err)
{
	int rc = check_orders(values, err);
	if (rc)
		return rc;
	struct lookup *l = calloc(1, sizeof(*l));
	if (!l)
		return nx_fail(err, NX_ENOMEM, "prompt_lookup: out of memory");
	l->num_tokens = (int32_t)values[P_NUM_TOKENS].i;
	l->ngram_min = (int32_t)values[P_NGRAM_MIN].i;
	l->ngram_max = (int32_t)values[P_NGRAM_MAX].i;
	l->match = (enum match)values[P_MATCH].i;
	l->host = host;
	l->bits = table_bits(host->max_len);
	size_t bytes = slots_bytes(host->max_seqs, host->max_len, orders_of(l));
	l->slots = host->alloc(host->ctx, NX_MEM_HOST, bytes);
	l->places =
		host->alloc(host->ctx, NX_MEM_HOST, (size_t)host->max_seqs * sizeof(*l->places));
	if (!l->slots || !l->places) {
		release(l);
		return nx_fail(
			err, NX_ENOMEM,
			"prompt_lookup: no memory for the index of %d sequences of %d tokens "
			"(%zu bytes)",
			host->max_seqs, host->max_len, bytes);
	}
	memset(l->slots, 0, bytes);
	for (int32_t i = 0; i < host->max_seqs; i++)
		l->places[i] = (struct place){.base = 1};
	*self = l;
	return 0;
}

static void destroy(void *self)
{
	release(self);
}

static uint32_t *table_of(const struct lookup *l, int32_t seq, int32_t n)
{
	size_t t = (size_t)seq * (size_t)orders_of(l) + (size_t)(n - l->ngram_min);
	return l->slots + (t << l->bits);
}

/* Empties the index of a place without touching its tables. */
static void forget(struct lookup *l, int32_t seq)
{
	struct place *p = &l->places[seq];
	p->known = false;
	p->base += (uint32_t)p->indexed + 1u;
	p->indexed = 0;
	p->waiting = 0;
	if (p->base > UINT32_MAX / 2) { /* after two thousand million tokens in this place */
		memset(table_of(l, seq, l->ngram_min), 0,
		       (size_t)orders_of(l) * sizeof(*l->slots) << l->bits);
		p->base = 1;
	}
}

static void reset(void *self)
{
	struct lookup *l = self;
	for (int32_t i = 0; i < l->host->max_seqs; i++)
		forget(l, i);
	memset(l->n, 0, sizeof(l->n));
}

static int64_t warm(void *self)
{
	const struct lookup *l = self;
	int64_t n = 0;
	for (int32_t i = 0; i < l->host->max_seqs; i++)
		n += l->places[i].known;
	return n;
}

/* A place that begins or ends a sequence. A resumed one is recognised by its request and sample. */
static void event(void *self, const struct nx_seq_event *e)
{
	if (e->kind == NX_EVENT_ADMIT || e->kind == NX_EVENT_FORK || e->kind == NX_EVENT_RETIRE)
		forget(self, e->seq);
}

/* ---- the index -------------------------------------------------------------------------------- */

/* The hash of the n tokens before `end` is that of the n - 1 before `end`, mixed with one more. */
static uint64_t mix(uint64_t h, int32_t token)
{
	h = (h ^ (uint32_t)token) * 0x9e3779b97f4a7c15ull;
	return h ^ (h >> 32);
}

/* The slot of the n-gram that ends before `end`: its entry, or the empty one where it would go. */
static uint32_t *find(const struct lookup *l, const struct place *p, uint32_t *table, int32_t n,
                      const int32_t *tokens, int32_t end, uint64_t hash)
{
	uint32_t mask = (1u << l->bits) - 1;
	uint32_t i = (uint32_t)((hash * 0xd1342543de82ef95ull) >> (64 - l->bits));
	for (; table[i] >= p->base; i = (i + 1) & mask) {
		int32_t at = (int32_t)(table[i] - p->base);
		if (!memcmp(tokens + at - n, tokens + end - n, (size_t)n * sizeof(*tokens)))
			break;
	}
	return &table[i];
}

/* Enters all n-grams that something follows: those that end before tokens [indexed + 1, n_tokens). */
static void extend(struct lookup *l, int32_t seq, const int32_t *tokens, int32_t n_tokens)
{
	struct place *p = &l->places[seq];
	int32_t stop = n_tokens <= l->host->max_len ? n_tokens : l->host->max_len + 1;
	for (int32_t end = p->indexed + 1; end < stop; end++) {
		uint64_t hash = 0;
		for (int32_t n = 1; n <= l->ngram_max && n <= end; n++) {
			hash = mix(hash, tokens[end - n]);
			if (n < l->ngram_min)
				continue;
			uint32_t *slot = find(l, p, table_of(l, seq, n), n, tokens, end, hash);
			if (l->match == RECENT || *slot < p->base)
				*slot = p->base + (uint32_t)end;
		}
		p->indexed = end;
		l->n[C_INDEXED]++;
	}
}

/* Index of the token that followed the longest suffix that occurred before, or 0 = none did. */
static int32_t look_up(const struct lookup *l, int32_t seq, const int32_t *tokens, int32_t n_tokens)
{
	const struct place *p = &l->places[seq];
	uint64_t hash[NGRAM_LIMIT + 1] = {0};
	int32_t longest = l->ngram_max < n_tokens ? l->ngram_max : n_tokens;
	for (int32_t n = 1; n <= longest; n++)
		hash[n] = mix(hash[n - 1], tokens[n_tokens - n]);
	for (int32_t n = longest; n >= l->ngram_min; n--) {
		uint32_t at = *find(l, p, table_of(l, seq, n), n, tokens, n_tokens, hash[n]);
		if (at >= p->base)
			return (int32_t)(at - p->base);
	}
	return 0;
}

/* ---- the slot --------------------------------------------------------------------------------- */

static int draft_needs(void *self, const struct nx_draft_limits *limits, struct nx_draft_needs *out,
                       struct nx_err *err)
{
	const struct lookup *l = self;
	(void)limits;
	(void)err;
	out->max_rows = l->num_tokens;
	return 0;
}

/* The verdict of the latest round. The engine may have granted or judged fewer rows than were proposed. */
static void note_verdict(struct lookup *l, struct place *p, const struct nx_draft_seq *s)
{
	if (p->waiting && s->last_drafted >= 0) {
		l->n[C_JUDGED] += (uint64_t)s->last_drafted;
		l->n[C_ACCEPTED] += (uint64_t)(s->last_accepted > 0 ? s->last_accepted : 0);
	}
	p->waiting = 0;
}

static int32_t propose(void *self, const struct nx_draft_seq *s, struct nx_draft_row *rows)
{
	struct lookup *l = self;
	struct place *p = &l->places[s->seq];
	if (!p->known || p->request != s->request || p->sample != s->sample ||
	    p->indexed >= s->n_tokens) {
		forget(l, s->seq);
		p->known = true;
		p->request = s->request;
		p->sample = s->sample;
	}
	note_verdict(l, p, s);
	extend(l, s->seq, s->tokens, s->n_tokens);

	/* The target adds a token of its own: drafts beyond the last but one of the request are wasted. */
	int32_t cap = s->cap < l->num_tokens ? s->cap : l->num_tokens;
	if (cap > s->max_out - s->n_out - 1)
		cap = s->max_out - s->n_out - 1;
	if (cap <= 0)
		return 0;
	l->n[C_ROUNDS]++;
	int32_t from = look_up(l, s->seq, s->tokens, s->n_tokens);
	if (!from) {
		l->n[C_NO_MATCH]++;
		return 0;
	}
	/* A copy that reaches the end goes on with itself, as in LZ77: a match d tokens back repeats with period
	 * d, so a loop is drafted to the full however recent the match. */
	int32_t period = s->n_tokens - from;
	for (int32_t i = 0; i < cap; i++)
		rows[i] = (struct nx_draft_row){
			.token = i < period ? s->tokens[from + i] : rows[i - period].token,
			.parent = i ? i - 1 : NX_DRAFT_ROOT,
			.kind = NX_ROW_CANDIDATE,
		};
	l->n[C_PROPOSED] += (uint64_t)cap;
	p->waiting = cap;
	return cap;
}

static void read_counters(void *self, double *values)
{
	const struct lookup *l = self;
	for (int i = 0; i < C_COUNT; i++)
		values[i] = (double)l->n[i];
}

static const struct nx_param params[] = {
	[P_NUM_TOKENS] = {"num_tokens", NX_PARAM_INT, "5", 1, 64, NULL, "tokens",
                          "most tokens drafted for a sequence in a step"},
	[P_NGRAM_MIN] =
		{"ngram_min", NX_PARAM_INT, "2", 1, NGRAM_LIMIT, NULL, "tokens",
                 "shortest suffix that is looked up; shorter ones match more often and worse"},
	[P_NGRAM_MAX] = {"ngram_max", NX_PARAM_INT, "4", 1, NGRAM_LIMIT, NULL, "tokens",
                         "longest suffix that is looked up; it is tried first"},
	[P_MATCH] =
		{"match", NX_PARAM_ENUM, "recent", 0, 0, "recent|first", "",
                 "which earlier occurrence is continued: the latest, or the first in the sequence"},
	{0},
};

static const struct nx_counter counters[] = {
	[C_ROUNDS] = {"rounds", "count", "times that a sequence was looked up"},
	[C_NO_MATCH] = {"no_match", "count", "of these, without a match: nothing was drafted"},
	[C_PROPOSED] = {"proposed", "tokens", "tokens drafted"},
	[C_JUDGED] =
		{"judged", "tokens",
                 "of these, judged in a round that another one followed: the last of a sequence is not seen"},
	[C_ACCEPTED] = {"accepted", "tokens", "of the judged ones, accepted"},
	[C_INDEXED] = {"indexed", "tokens", "tokens entered into the index"},
	{0},
};

static const struct nx_technique prompt_lookup = {
	NX_TECHNIQUE_HEAD,
	.name = "prompt_lookup",
	.version = "1",
	.summary = "drafts what followed the same n-gram earlier in the prompt or the output",
	.source = "Saxena, Prompt Lookup Decoding, 2023; Yang et al. 2304.04487 (LLMA), section 3",
	.params = params,
	.counters = counters,
	.assumes = NX_TRAIT_KEPT_KV | NX_TRAIT_FULL_KV,
	.flags = NX_TECH_EXACT | NX_TECH_NEEDS_TOKENS,
	.probe = probe,
	.create = create,
	.reset = reset,
	.destroy = destroy,
	.read_counters = read_counters,
	.event = event,
	.warm = warm,
	.draft_needs = draft_needs,
	.propose = propose,
};

NX_TECHNIQUE(&prompt_lookup);
