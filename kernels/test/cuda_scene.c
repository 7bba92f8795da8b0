/* SPDX-License-Identifier: Apache-2.0 */
#include "cuda_scene.h"

#include <check.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "nexus_kernels/rng.h"

static struct nx_verdict verdict_of(struct both *b)
{
	struct nx_verdict v = {.stride = MAX_STRIDE};
	v.token = both_mem(b, sizeof(int32_t) * MAX_SEQS * MAX_STRIDE);
	v.path = both_mem(b, sizeof(int32_t) * MAX_SEQS * MAX_STRIDE);
	v.n_accepted = both_mem(b, sizeof(int32_t) * MAX_SEQS);
	return v;
}

void scene_open(struct scene *s, int64_t room, int32_t most_vocab)
{
	size_t rows = sizeof(int32_t) * MAX_SEQS * MAX_DRAFT;
	memset(s, 0, sizeof(*s));
	both_open(&s->b, NX_F32, false);
	s->room = room;
	s->logits = both_mem(&s->b, sizeof(float) * (size_t)(room + 4));
	s->q = both_mem(&s->b, sizeof(float) * Q_ROWS * (size_t)most_vocab);
	s->q_token = both_mem(&s->b, sizeof(int32_t) * (size_t)most_vocab);
	s->emit = both_mem(&s->b, sizeof(*s->emit) * MAX_SEQS);
	s->samplers = both_mem(&s->b, sizeof(*s->samplers) * MAX_SEQS);
	s->override = both_mem(&s->b, sizeof(*s->override) * MAX_SEQS);
	s->len = both_mem(&s->b, sizeof(int32_t) * MAX_SEQS);
	s->force = both_mem(&s->b, sizeof(int32_t) * MAX_SEQS * MAX_STRIDE);
	s->state = (struct nx_seq_state){MAX_SEQS, s->len, NULL};
	s->draft.token = both_mem(&s->b, rows);
	s->draft.parent = both_mem(&s->b, rows);
	s->draft.kind = both_mem(&s->b, rows);
	s->draft.q_row = both_mem(&s->b, rows);
	s->gpu = verdict_of(&s->b);
	s->cpu = verdict_of(&s->b);
	for (int i = 0; i < 2; i++)
		s->logprob[i] = both_mem(&s->b, sizeof(float) * MAX_SEQS * MAX_STRIDE);
}

uint32_t scene_pick(uint64_t a, uint64_t b, uint32_t n)
{
	return (uint32_t)((noise(a, b) + 1) * 0.5f * (float)n) % n;
}

/* ---- a random scene */

static float logit(uint64_t salt, uint64_t i, uint32_t shape, int32_t vocab)
{
	float x = noise(salt, i);
	switch (shape) {
	case 0: return 6 * x;
	case 1: return 30 * x * x * x;
	case 2: return rintf(5 * x) * 0.5f; /* many equals */
	case 3: return -1.5f;               /* nothing else */
	case 4: return scene_pick(salt + 1, i, 3) == 0 && i ? -INFINITY : 9 * x;
	case 5: return 0.01f * x + 1000;
	default: return (i == salt % (uint64_t)vocab ? 25.0f : 0) + 12 * x; /* as a model's */
	}
}

static struct nx_sampler random_sampler(uint64_t salt, int32_t vocab)
{
	static const float temperature[] = {0, 0.3f, 0.8f, 1, 1, 1.7f};
	static const float top_p[] = {1, 1, 1, 0.95f, 0.5f, 0.1f};
	static const float min_p[] = {0, 0, 0, 0.02f, 0.3f, 1};
	int32_t top_k[] = {0, 0, 0, 1, 40, vocab / 2 + 1};
	struct nx_sampler s = {.temperature = temperature[scene_pick(salt, 1, 6)],
	                       .top_p = top_p[scene_pick(salt, 2, 6)],
	                       .min_p = min_p[scene_pick(salt, 3, 6)],
	                       .top_k = top_k[scene_pick(salt, 4, 6)],
	                       .seed = salt * 0x9e3779b97f4a7c15u,
	                       .request = (uint32_t)salt,
	                       .sample = scene_pick(salt, 5, 4)};
	return s;
}

/* Probabilities near those of the first row of logits, in columns that may be a part of the tokens. */
static void random_q(struct scene *s, uint64_t salt, int32_t vocab, bool mapped)
{
	int32_t cols = mapped ? vocab / 2 + 1 : vocab - (int32_t)scene_pick(salt, 8, 3) % vocab;
	s->draft.q = s->q;
	s->draft.q_cols = cols;
	s->draft.q_token = mapped ? s->q_token : NULL;
	for (int32_t c = 0; c < cols && mapped; c++)
		s->q_token[c] = vocab - 1 - c;
	for (int32_t r = 0; r < Q_ROWS; r++) {
		float *q = s->q + (int64_t)r * cols;
		double total = 0, max = -1e30;
		for (int pass = 0; pass < 3; pass++)
			for (int32_t c = 0; c < cols; c++) {
				float x = s->logits[mapped ? s->q_token[c] : c];
				x = (isfinite(x) ? x : -50) +
				    2 * noise(salt + (uint64_t)r, (uint64_t)c);
				double m = exp(x - max);
				if (pass == 0)
					max = x > max ? x : max;
				else if (pass == 1)
					total += m;
				else
					q[c] = (float)(m / total);
			}
	}
}

static int32_t draw_q(const struct scene *s, int32_t row, uint64_t salt)
{
	const float *q = s->q + (int64_t)row * s->draft.q_cols;
	double u = (noise(salt, 77) + 1) * 0.5, mass = 0;
	int32_t c = 0;
	for (; c < s->draft.q_cols - 1; c++) {
		mass += q[c];
		if (mass > u)
			break;
	}
	return s->draft.q_token ? s->q_token[c] : c;
}

/* Rows of a draft: probable tokens, siblings, duplicates, PROBE rows and rows without a token. */
static void random_draft(struct scene *s, const struct nx_emit *e, uint64_t salt, int32_t vocab,
                         uint32_t sort)
{
	for (int32_t i = 0; i < e->n_draft; i++) {
		int64_t at = (int64_t)e->seq * s->draft.stride + i;
		uint64_t k = salt * 64 + (uint64_t)i;
		bool drawn = sort == 1 || (sort == 2 && scene_pick(k, 1, 2));
		int32_t row = (int32_t)scene_pick(k, 2, Q_ROWS) / 2 * 2 % Q_ROWS;
		int32_t parent = (int32_t)scene_pick(k, 3, (uint32_t)i + 1) - 1;
		s->draft.parent[at] = parent;
		s->draft.kind[at] = scene_pick(k, 4, 9) ? NX_ROW_CANDIDATE : NX_ROW_PROBE;
		s->draft.q_row[at] = drawn ? row : NX_Q_CERTAIN;
		s->draft.token[at] = drawn || s->draft.q
		                             ? draw_q(s, row, k)
		                             : (int32_t)scene_pick(k, 5, (uint32_t)vocab);
		if (!drawn &&
		    scene_pick(k, 7, 3)) { /* the best of the row above, so that greedy goes deep */
			const float *x = s->logits + (int64_t)(e->logit_row + 1 + parent) * vocab;
			int32_t best = 0;
			for (int32_t v = 0; v < vocab; v++)
				best = x[v] > x[best] ? v : best;
			s->draft.token[at] = best;
		}
		if (!scene_pick(k, 6, 10))
			s->draft.token[at] = NX_TOKEN_NONE;
	}
}

static int32_t depth_of(const struct scene *s, int32_t seq, int32_t row)
{
	int64_t first = (int64_t)seq * s->draft.stride;
	int32_t depth = 0;
	for (; row != NX_DRAFT_ROOT; row = s->draft.parent[first + row], depth++)
		if (s->draft.kind[first + row] != NX_ROW_CANDIDATE ||
		    s->draft.token[first + row] == NX_TOKEN_NONE)
			return 0;
	return depth;
}

static void random_paths(struct scene *s, uint64_t salt, int32_t seq, int32_t n, int32_t vocab)
{
	struct nx_override *o = &s->override[seq];
	int64_t first = (int64_t)seq * s->draft.stride;
	*o = (struct nx_override){(int32_t)scene_pick(salt, 31, 3),
	                          (int32_t)scene_pick(salt, 32, 6)};
	if (o->kind == NX_OVERRIDE_LEAF && (o->value >= n || !depth_of(s, seq, o->value)))
		o->value = -1;
	for (int32_t i = 0; i < MAX_STRIDE; i++) {
		uint32_t how = scene_pick(salt, 40 + (uint64_t)i, 3);
		int32_t token = (int32_t)scene_pick(salt, 90 + (uint64_t)i, (uint32_t)vocab);
		if (n && how == 0)
			token = s->draft.token[first + i % n];
		s->force[(int64_t)seq * MAX_STRIDE + i] = how == 2 ? -1 : token;
	}
}

/* sort: 0 chosen, 1 drawn, 2 mixed children. */
void scene_make(struct scene *s, uint64_t salt, int32_t vocab, int32_t n_emit, int32_t n_draft,
                uint32_t shape, uint32_t sort)
{
	int32_t rows = n_emit * (n_draft + 1);
	bool forks = n_draft == 0 && salt % 2;
	ck_assert_int_le((int64_t)rows * vocab, s->room);
	s->draft.stride = n_draft ? n_draft : 1;
	for (int64_t r = 0; r < rows; r++)
		for (int32_t i = 0; i < vocab; i++)
			s->logits[r * vocab + i] =
				logit(salt + (uint64_t)r, (uint64_t)i, shape, vocab);
	s->draft.q = NULL;
	s->draft.q_token = NULL;
	if (n_draft && sort)
		random_q(s, salt, vocab, salt % 3 == 0);
	for (int32_t i = 0; i < MAX_SEQS; i++) {
		s->len[i] = (int32_t)scene_pick(salt, (uint64_t)i, 1000);
		s->samplers[i] = random_sampler(salt * 131 + (uint64_t)i, vocab);
	}
	for (int32_t i = 0; i < n_emit; i++) {
		int32_t seq = (i * 7 + 3) % n_emit, n = n_draft;
		if (n_emit % 7 == 0)
			seq = n_emit - 1 - i;
		if (n && i % 5 == 4)
			n = (int32_t)scene_pick(salt, 1000 + (uint64_t)i, (uint32_t)n + 1);
		s->emit[i] = (struct nx_emit){.logit_row = i * (n_draft + 1),
		                              .seq = seq,
		                              .src_seq = forks ? (seq + 1) % n_emit : seq,
		                              .pos_off = 1 + i % 3,
		                              .n_draft = n};
		random_draft(s, &s->emit[i], salt * 97 + (uint64_t)seq, vocab, sort);
		random_paths(s, salt * 89 + (uint64_t)seq, seq, n, vocab);
	}
	s->a = (struct nx_sample){.logits = s->logits,
	                          .n_emit = n_emit,
	                          .vocab = vocab,
	                          .emit = s->emit,
	                          .samplers = s->samplers,
	                          .state = &s->state,
	                          .draft = n_draft ? &s->draft : NULL};
}

/* ---- comparison */

struct entry {
	float logit;
	int32_t token;
};

static int by_logit(const void *pa, const void *pb)
{
	const struct entry *a = pa, *b = pb;
	if (a->logit != b->logit)
		return a->logit > b->logit ? -1 : 1;
	return a->token < b->token ? -1 : 1;
}

static int by_token(const void *pa, const void *pb)
{
	return ((const struct entry *)pa)->token < ((const struct entry *)pb)->token ? -1 : 1;
}

/* Both tokens end or begin within 1e-6 of the number that was drawn (without drawn children: from the law). */
static bool is_close(const float *x, int32_t vocab, const struct nx_sampler *s, double u,
                     int32_t one, int32_t two)
{
	struct entry *e = malloc(sizeof(*e) * (size_t)vocab);
	double max, total = 0, mass = 0, worst = 0;
	int32_t n = vocab, lo = one < two ? one : two, hi = one < two ? two : one;
	for (int32_t i = 0; i < vocab; i++)
		e[i] = (struct entry){x[i], i};
	qsort(e, (size_t)n, sizeof(*e), by_logit);
	max = e[0].logit;
	n = s->top_k && s->top_k < n ? s->top_k : n;
	if (s->top_p < 1) {
		int32_t k = 0;
		for (int32_t i = 0; i < n; i++)
			total += exp((e[i].logit - max) / s->temperature);
		while (k < n && (k == 0 || mass < s->top_p * total))
			mass += exp((e[k++].logit - max) / s->temperature);
		n = k;
	}
	while (n > 1 && exp((e[n - 1].logit - max) / s->temperature) < s->min_p)
		n--;
	qsort(e, (size_t)n, sizeof(*e), by_token);
	total = mass = 0;
	for (int32_t i = 0; i < n; i++)
		total += exp((e[i].logit - max) / s->temperature);
	for (int32_t i = 0; i < n && e[i].token < hi; i++) {
		mass += exp((e[i].logit - max) / s->temperature);
		if (e[i].token >= lo)
			worst = fmax(worst, fabs(mass / total - u));
	}
	free(e);
	return worst < 1e-6;
}

static bool has_drawn_child(const struct scene *s, const struct nx_emit *e, int32_t node)
{
	for (int32_t i = node + 1; i < e->n_draft; i++) {
		int64_t at = (int64_t)e->seq * s->draft.stride + i;
		if (s->draft.parent[at] == node && s->draft.q_row[at] != NX_Q_CERTAIN)
			return true;
	}
	return false;
}

static void compare(struct scene *s, const struct nx_emit *e, const char *what)
{
	int64_t out = (int64_t)e->seq * MAX_STRIDE;
	const struct nx_sampler *p = &s->samplers[e->seq];
	int32_t n = s->cpu.n_accepted[e->seq], node = NX_DRAFT_ROOT;
	for (int32_t d = 0;; d++) {
		int32_t cpu = s->cpu.token[out + d], gpu = s->gpu.token[out + d];
		s->tokens++;
		if (cpu != gpu) {
			double u = nx_rng_uniform(p->seed, p->request, p->sample,
			                          (uint32_t)(s->len[e->src_seq] + e->pos_off + d),
			                          NX_RNG_SAMPLE);
			ck_assert_msg(
				p->temperature > 0 && !has_drawn_child(s, e, node) && gpu >= 0 &&
					gpu < s->a.vocab &&
					is_close(s->logits + (int64_t)(e->logit_row + 1 + node) *
			                                             s->a.vocab,
			                         s->a.vocab, p, u, cpu, gpu),
				"%s, sequence %d, depth %d of %d: token %d, want %d (T %g k %d p %g min %g)",
				what, e->seq, d, n, gpu, cpu, p->temperature, p->top_k, p->top_p,
				p->min_p);
			s->close++;
			return;
		}
		if (s->a.logprob) {
			float x = s->logprob[0][out + d], y = s->logprob[1][out + d];
			ck_assert_msg(x == y || fabsf(x - y) <= 2e-6f * (1 + fabsf(y)),
			              "%s, sequence %d, depth %d: log-probability %.9g, want %.9g",
			              what, e->seq, d, x, y);
		}
		if (d == n)
			break;
		ck_assert_msg(s->gpu.n_accepted[e->seq] > d &&
		                      s->gpu.path[out + d] == s->cpu.path[out + d],
		              "%s, sequence %d, depth %d of %d: row %d, want %d; %d accepted", what,
		              e->seq, d, n, s->gpu.path[out + d], s->cpu.path[out + d],
		              s->gpu.n_accepted[e->seq]);
		node = s->cpu.path[out + d];
	}
	ck_assert_msg(s->gpu.n_accepted[e->seq] == n, "%s, sequence %d: %d accepted, want %d", what,
	              e->seq, s->gpu.n_accepted[e->seq], n);
	s->accepted += n;
	s->drafted += e->n_draft;
}

static void both_sample(struct scene *s, const char *what)
{
	bool logprob = s->a.logprob != NULL;
	memset(s->gpu.token, 0xff, sizeof(int32_t) * MAX_SEQS * MAX_STRIDE);
	memset(s->gpu.n_accepted, 0xff, sizeof(int32_t) * MAX_SEQS);
	for (int side = 0; side < 2; side++) {
		struct rig *r = side ? &s->b.cpu : &s->b.gpu;
		s->a.verdict = side ? &s->cpu : &s->gpu;
		s->a.logprob = logprob ? s->logprob[side] : NULL;
		rig_ok(r, r->ops->sample(r->dev, NULL, &s->a, &r->err));
	}
	for (int32_t i = 0; i < s->a.n_emit; i++)
		compare(s, &s->a.emit[i], what);
}

void scene_compare(struct scene *s, uint64_t salt, int32_t vocab, int32_t n_emit, int32_t n_draft,
                   uint32_t shape, uint32_t sort)
{
	char what[160];
	for (int how = 0; how < 3; how++) {
		snprintf(what, sizeof(what),
		         "salt %d, vocabulary %d, %d sequences, %d rows, shape %u, sort %u%s",
		         (int)salt, vocab, n_emit, n_draft, shape, sort,
		         how == 1   ? ", forced"
		         : how == 2 ? ", given"
		                    : "");
		if (how == 0)
			scene_make(s, salt, vocab, n_emit, n_draft, shape, sort);
		s->a.logprob = (salt + (uint64_t)how) % 2 ? s->logprob[0] : NULL;
		s->a.force = how == 1 ? s->force : NULL;
		s->a.override = how == 2 ? s->override : NULL;
		both_sample(s, what);
	}
}

void scene_say(const struct scene *s, const char *what)
{
	printf("%s: %lld tokens, %lld of %lld drafted accepted, %lld draws within 1e-6\n", what,
	       (long long)s->tokens, (long long)s->accepted, (long long)s->drafted,
	       (long long)s->close);
	ck_assert_int_le(s->close, 1 + s->tokens / 1000);
}
