/* SPDX-License-Identifier: Apache-2.0 */
#include "verify_test.h"

#include <check.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

static void *take(size_t n, size_t size)
{
	void *p = calloc(n ? n : 1, size);
	ck_assert(p != NULL);
	return p;
}

void trial_open(struct trial *t, int32_t vocab, int32_t n_seqs, int32_t n)
{
	size_t seqs = (size_t)n_seqs, rows = seqs * (size_t)n, stride = (size_t)n + 1;
	*t = (struct trial){.vocab = vocab, .n_seqs = n_seqs, .n = n};
	t->logits = take(seqs * stride * (size_t)vocab, sizeof(float));
	t->emit = take(seqs, sizeof(*t->emit));
	t->samplers = take(seqs, sizeof(*t->samplers));
	t->len = take(seqs, sizeof(int32_t));
	t->logprob = take(seqs * stride, sizeof(float));
	t->draft = (struct nx_draft){.stride = n ? n : 1,
	                             .token = take(rows, sizeof(int32_t)),
	                             .parent = take(rows, sizeof(int32_t)),
	                             .kind = take(rows, sizeof(int32_t)),
	                             .q_row = take(rows, sizeof(int32_t))};
	t->verdict = (struct nx_verdict){.stride = n + 1,
	                                 .token = take(seqs * stride, sizeof(int32_t)),
	                                 .n_accepted = take(seqs, sizeof(int32_t)),
	                                 .path = take(seqs * stride, sizeof(int32_t))};
	for (int32_t i = 0; i < n_seqs; i++) {
		t->emit[i] = (struct nx_emit){.logit_row = i * (n + 1),
		                              .seq = i,
		                              .src_seq = i,
		                              .pos_off = 1,
		                              .n_draft = n};
		t->len[i] = 7 + i % 3;
	}
	t->state = (struct nx_seq_state){n_seqs, t->len, NULL};
	t->a = (struct nx_sample){.logits = t->logits,
	                          .n_emit = n_seqs,
	                          .vocab = vocab,
	                          .emit = t->emit,
	                          .samplers = t->samplers,
	                          .state = &t->state,
	                          .draft = &t->draft,
	                          .verdict = &t->verdict,
	                          .logprob = t->logprob};
}

void trial_close(struct trial *t)
{
	free(t->logits);
	free(t->emit);
	free(t->samplers);
	free(t->len);
	free(t->logprob);
	free(t->draft.token);
	free(t->draft.parent);
	free(t->draft.kind);
	free(t->draft.q_row);
	free(t->verdict.token);
	free(t->verdict.n_accepted);
	free(t->verdict.path);
}

float *trial_logits(struct trial *t, int32_t seq, int32_t row)
{
	return t->logits + ((int64_t)seq * (t->n + 1) + row) * t->vocab;
}

int32_t *trial_token(struct trial *t, int32_t seq)
{
	return t->draft.token + (int64_t)seq * t->draft.stride;
}

int32_t *trial_out(struct trial *t, int32_t seq)
{
	return t->verdict.token + (int64_t)seq * t->verdict.stride;
}

void trial_row(struct trial *t, int32_t seq, int32_t i, int32_t token, int32_t parent,
               int32_t q_row)
{
	int64_t at = (int64_t)seq * t->draft.stride + i;
	t->draft.token[at] = token;
	t->draft.parent[at] = parent;
	t->draft.kind[at] = NX_ROW_CANDIDATE;
	t->draft.q_row[at] = q_row;
}

void law_of(const float *x, int32_t vocab, const struct nx_sampler *s, double *p)
{
	int32_t *rank = take((size_t)vocab, sizeof(*rank));
	double *mass = take((size_t)vocab, sizeof(*mass)), total = 0, best = 0;
	for (int32_t i = 0; i < vocab; i++) {
		for (int32_t j = 0; j < vocab; j++)
			rank[i] += x[j] > x[i] || (x[j] == x[i] && j < i);
		mass[i] = s->top_k && rank[i] >= s->top_k ? 0 : exp((double)x[i] / s->temperature);
		total += mass[i];
		best = fmax(best, mass[i]);
	}
	for (int32_t i = 0; i < vocab; i++) {
		double above = 0;
		for (int32_t j = 0; j < vocab; j++)
			above += rank[j] < rank[i] ? mass[j] : 0;
		p[i] = (s->top_p < 1 && above >= s->top_p * total) || mass[i] < s->min_p * best
		               ? 0
		               : mass[i];
	}
	total = 0;
	for (int32_t i = 0; i < vocab; i++)
		total += p[i];
	for (int32_t i = 0; i < vocab; i++)
		p[i] /= total;
	free(rank);
	free(mass);
}
