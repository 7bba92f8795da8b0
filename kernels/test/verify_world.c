/* SPDX-License-Identifier: Apache-2.0 */
#include <check.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "nexus_kernels/rng.h"
#include "verify_test.h"

/* p has a few good tokens and a tail. */
void world_open(struct world *w, int32_t vocab, const struct nx_sampler *s, float distance,
                float spike)
{
	static const struct nx_sampler raw = {.temperature = 1, .top_p = 1};
	size_t n = (size_t)vocab * (size_t)(vocab + 1);
	float *x = malloc(sizeof(float) * (size_t)vocab);
	double *p = malloc(sizeof(double) * (size_t)vocab);
	ck_assert_int_le(vocab, MAX_VOCAB);
	*w = (struct world){.vocab = vocab, .s = *s};
	w->logits = malloc(sizeof(float) * n);
	w->p = malloc(sizeof(double) * n);
	w->p_raw = malloc(sizeof(double) * n);
	w->q = malloc(sizeof(float) * 2 * n);
	w->rank = malloc(sizeof(int32_t) * n);
	ck_assert(x && p && w->logits && w->p && w->p_raw && w->q && w->rank);
	for (int32_t c = 0; c <= vocab; c++) {
		int64_t at = (int64_t)c * vocab;
		int32_t best = 0;
		for (int32_t i = 0; i < vocab; i++) {
			float a = noise((uint64_t)c, (uint64_t)i);
			w->logits[at + i] = 2 * a + 3 * a * a * a;
			best = w->logits[at + i] > w->logits[at + best] ? i : best;
		}
		law_of(w->logits + at, vocab, s, w->p + at);
		law_of(w->logits + at, vocab, &raw, w->p_raw + at);
		for (int row = 1; row >= 0; row--) {
			for (int32_t i = 0; i < vocab; i++)
				x[i] = w->logits[at + i] +
				       distance *
				               noise((uint64_t)(c + 1000 * (row + 1)), (uint64_t)i);
			x[best] += spike;
			law_of(x, vocab, s, p);
			for (int32_t i = 0; i < vocab; i++)
				w->q[2 * at + row * vocab + i] = (float)p[i];
		}
		for (int32_t i = 0; i < vocab; i++) {
			int32_t rank = 0;
			for (int32_t j = 0; j < vocab; j++)
				rank += x[j] > x[i] || (x[j] == x[i] && j < i);
			w->rank[at + rank] = i;
		}
	}
	free(x);
	free(p);
}

void world_close(struct world *w)
{
	free(w->logits);
	free(w->p);
	free(w->p_raw);
	free(w->q);
	free(w->rank);
	free(w->column_token);
	free(w->q_cols);
}

void world_reduce(struct world *w, int32_t cols)
{
	int32_t rows = 2 * (w->vocab + 1);
	w->cols = cols;
	w->column_token = malloc(sizeof(int32_t) * (size_t)cols);
	w->q_cols = malloc(sizeof(float) * (size_t)(rows * cols));
	ck_assert(w->column_token && w->q_cols);
	for (int32_t c = 0; c < cols; c++)
		w->column_token[c] = (c * 37 + 3) % w->vocab; /* coprime: each once */
	for (int32_t r = 0; r < rows; r++) {
		float *q = w->q + (int64_t)r * w->vocab, *small = w->q_cols + (int64_t)r * cols;
		double total = 0;
		for (int32_t c = 0; c < cols; c++)
			total += small[c] = q[w->column_token[c]];
		memset(q, 0, sizeof(float) * (size_t)w->vocab);
		for (int32_t c = 0; c < cols; c++)
			q[w->column_token[c]] = small[c] =
				total > 0 ? (float)(small[c] / total) : 1.0f / (float)cols;
	}
}

static double coin(const struct nx_sampler *s, int32_t position, uint32_t purpose)
{
	return nx_rng_uniform(s->seed, s->request, s->sample, (uint32_t)position, purpose);
}

static int32_t walk(const double *p, int32_t n, double u)
{
	double total = 0, mass = 0;
	int32_t last = 0;
	for (int32_t i = 0; i < n; i++)
		total += p[i];
	for (int32_t i = 0; i < n; i++) {
		mass += p[i];
		if (p[i] > 0)
			last = i;
		if (mass > u * total)
			return i;
	}
	return last;
}

int32_t world_sample(const struct world *w, const struct nx_sampler *s, int32_t context,
                     int32_t position)
{
	return walk(w->p + (int64_t)context * w->vocab, w->vocab, coin(s, position, NX_RNG_SAMPLE));
}

static int32_t context_of(const struct trial *t, int64_t first, int32_t node)
{
	return node < 0                           ? 0
	       : t->draft.token[first + node] < 0 ? 0
	                                          : 1 + t->draft.token[first + node];
}

/* q of a child as it was drawn: without the tokens that siblings before it drew from the row. */
static double reduced(const struct world *w, const struct trial *t, int64_t first, int32_t i,
                      double *q)
{
	double total = 0;
	const float *row = w->q + (int64_t)t->draft.q_row[first + i] * w->vocab;
	for (int32_t x = 0; x < w->vocab; x++)
		q[x] = row[x];
	for (int32_t j = 0; j < i; j++)
		if (t->draft.parent[first + j] == t->draft.parent[first + i] &&
		    t->draft.q_row[first + j] == t->draft.q_row[first + i] &&
		    t->draft.token[first + j] >= 0)
			q[t->draft.token[first + j]] = 0;
	for (int32_t x = 0; x < w->vocab; x++)
		total += q[x];
	return total;
}

static void draft_one(const struct world *w, struct trial *t, int32_t seq, const struct node *shape)
{
	int64_t first = (int64_t)seq * t->draft.stride;
	int32_t depth[MAX_NODES];
	double q[MAX_VOCAB];
	for (int32_t i = 0; i < t->n; i++) {
		int32_t parent = shape[i].parent, context = context_of(t, first, parent);
		depth[i] = parent < 0 ? 0 : depth[parent] + 1;
		trial_row(t, seq, i, NX_TOKEN_NONE, parent, NX_Q_CERTAIN);
		if (shape[i].probe)
			t->draft.kind[first + i] = NX_ROW_PROBE;
		if (parent >= 0 && t->draft.token[first + parent] == NX_TOKEN_NONE)
			continue;
		if (shape[i].q_row == NX_Q_CERTAIN) {
			t->draft.token[first + i] =
				w->rank[(int64_t)context * w->vocab + shape[i].rank];
			continue;
		}
		t->draft.q_row[first + i] = 2 * context + shape[i].q_row;
		double total = reduced(w, t, first, i, q);
		for (int32_t x = 0; x < w->vocab && shape[i].again; x++)
			q[x] = w->q[(int64_t)t->draft.q_row[first + i] * w->vocab + x];
		/* a filter may leave fewer tokens than siblings */
		if (total > 0 || shape[i].again)
			t->draft.token[first + i] =
				walk(q, w->vocab,
			             coin(&t->samplers[seq], t->len[seq] + 1 + depth[i],
			                  NX_RNG_SIBLING(NX_RNG_DRAFT, i)));
	}
}

void world_draft(const struct world *w, struct trial *t, const struct node *shape, uint32_t first)
{
	t->draft.q = w->cols ? w->q_cols : w->q;
	t->draft.q_cols = w->cols ? w->cols : w->vocab;
	t->draft.q_token = w->column_token;
	for (int32_t seq = 0; seq < t->n_seqs; seq++) {
		t->samplers[seq] = w->s;
		t->samplers[seq].request = first + (uint32_t)seq;
		draft_one(w, t, seq, shape);
		for (int32_t i = -1; i < t->n; i++)
			memcpy(trial_logits(t, seq, 1 + i),
			       w->logits + (int64_t)w->vocab *
			                           context_of(t, (int64_t)seq * t->draft.stride, i),
			       sizeof(float) * (size_t)w->vocab);
	}
}

/* ---- verification, naively */

struct verdict {
	int32_t token, child; /* -1: none */
};

static struct verdict at_node(const struct world *w, const struct trial *t, int32_t seq,
                              int32_t node, int32_t position, const double *law, enum bug bug,
                              double *p, double *q)
{
	const struct nx_sampler *s = &t->samplers[seq];
	int64_t first = (int64_t)seq * t->draft.stride;
	int32_t context = context_of(t, first, node);
	bool drawn = false, any = false;
	uint32_t number = 0;
	memcpy(p, law, sizeof(*p) * (size_t)w->vocab);
	for (int32_t i = 0; i < t->n; i++)
		if (t->draft.parent[first + i] == node && t->draft.token[first + i] >= 0 &&
		    t->draft.kind[first + i] == NX_ROW_CANDIDATE) {
			any = true;
			drawn |= t->draft.q_row[first + i] != NX_Q_CERTAIN;
		}
	if (!drawn && !(any && bug == BUG_RATIO_FOR_CHOSEN)) {
		struct verdict v = {walk(p, w->vocab, coin(s, position, NX_RNG_SAMPLE)), -1};
		for (int32_t i = t->n - 1; i >= 0; i--)
			if (t->draft.parent[first + i] == node &&
			    t->draft.token[first + i] == v.token &&
			    t->draft.kind[first + i] == NX_ROW_CANDIDATE)
				v.child = i;
		return v;
	}
	for (int32_t i = 0; i < t->n; i++) {
		int32_t x = t->draft.token[first + i];
		if (t->draft.parent[first + i] != node || x < 0 ||
		    t->draft.kind[first + i] != NX_ROW_CANDIDATE)
			continue;
		double u = coin(s, position, NX_RNG_SIBLING(NX_RNG_ACCEPT, number)), total = 0,
		       q_total = 1;
		number += bug != BUG_COIN_REUSED;
		for (int32_t y = 0; y < w->vocab; y++)
			total += p[y];
		bool chosen = t->draft.q_row[first + i] == NX_Q_CERTAIN;
		if (chosen && bug == BUG_RATIO_FOR_CHOSEN) {
			if (u * w->q[(int64_t)2 * context * w->vocab + x] < p[x] / total)
				return (struct verdict){x, i};
			p[x] = 0;
			continue;
		}
		if (chosen) {
			for (int32_t y = 0; y < w->vocab; y++)
				q[y] = y == x;
		} else if (bug == BUG_Q_NOT_REDUCED) {
			for (int32_t y = 0; y < w->vocab; y++)
				q[y] = w->q[(int64_t)t->draft.q_row[first + i] * w->vocab + y];
		} else {
			q_total = reduced(w, t, first, i, q);
			if (bug == BUG_Q_NOT_RENORMALISED)
				q_total = 1;
		}
		if (q[x] <= 0)
			continue;
		if (bug == BUG_ACCEPT_ALL || u * q[x] / q_total < p[x] / total)
			return (struct verdict){x, i};
		double left = 0;
		for (int32_t y = 0; y < w->vocab; y++) {
			p[y] = fmax(p[y] / total - q[y] / q_total, 0);
			left += p[y];
		}
		if (bug == BUG_RESIDUAL_IS_P || left <= 1e-9) {
			memcpy(p, law, sizeof(*p) * (size_t)w->vocab);
			break;
		}
	}
	return (struct verdict){walk(p, w->vocab, coin(s, position, NX_RNG_RESIDUAL)), -1};
}

void world_decide(const struct world *w, struct trial *t, int32_t seq, enum bug bug)
{
	int64_t first = (int64_t)seq * t->draft.stride, out = (int64_t)seq * t->verdict.stride;
	const double *laws = bug == BUG_P_WITHOUT_TEMPERATURE ? w->p_raw : w->p;
	double p[MAX_VOCAB], q[MAX_VOCAB];
	int32_t node = -1, depth = 0, above = 0;
	for (;;) {
		int32_t context = context_of(t, first, node);
		struct verdict v = at_node(w, t, seq, node, t->len[seq] + 1 + depth,
		                           laws + (int64_t)context * w->vocab, bug, p, q);
		if (v.child < 0 && depth && bug == BUG_BONUS_OF_PARENT)
			v.token =
				world_sample(w, &t->samplers[seq], above, t->len[seq] + 1 + depth);
		t->verdict.token[out + depth] = v.token;
		if (v.child < 0)
			break;
		t->verdict.path[out + depth++] = node = v.child;
		above = context;
	}
	t->verdict.n_accepted[seq] = depth;
}
