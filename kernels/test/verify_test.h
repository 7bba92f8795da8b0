/* SPDX-License-Identifier: Apache-2.0
 *
 * verify_test.h: drafts and verdicts for many sequences at once, and what their tokens must be distributed like.
 */
#ifndef NX_VERIFY_TEST_H
#define NX_VERIFY_TEST_H

#include "kernel_test.h"

/*
 * n_seqs sequences with a draft of n rows each. Logits of a sequence: row 0 of the root, row 1 + i of drafted row i.
 */
struct trial {
	int32_t vocab, n_seqs, n;
	float *logits; /* [n_seqs, 1 + n, vocab] */
	struct nx_emit *emit;
	struct nx_sampler *samplers;
	int32_t *len;
	struct nx_draft draft;
	struct nx_verdict verdict;
	float *logprob;
	struct nx_sample a;
	struct nx_seq_state state;
};

/* The draft has no q. Everything is zero but lengths and what must not be. */
void trial_open(struct trial *t, int32_t vocab, int32_t n_seqs, int32_t n);
void trial_close(struct trial *t);
/* Places of a sequence. */
float *trial_logits(struct trial *t, int32_t seq, int32_t row);
int32_t *trial_token(struct trial *t, int32_t seq);
int32_t *trial_out(struct trial *t, int32_t seq);
/* Row i of the draft of a sequence. */
void trial_row(struct trial *t, int32_t seq, int32_t i, int32_t token, int32_t parent,
               int32_t q_row);

/* ---- a world whose law is known */

/*
 * The next token depends on the last one alone: context 0 is the start, 1 + token what follows a token. The drafter
 * has two rows of q a context, each from logits of its own and through the same sampler.
 */
struct world {
	int32_t vocab;
	struct nx_sampler s;
	float *logits; /* [1 + vocab, vocab] */
	double *p;     /* [1 + vocab, vocab] after the sampler */
	double *p_raw; /* the same without temperature and filters */
	float *q;      /* [2 * (1 + vocab), vocab]; row 2 * context + (0 or 1) */
	int32_t *rank; /* [1 + vocab, vocab] tokens by the first row of q, best first */
	int32_t cols,
		*column_token; /* reduced vocabulary of q as the device gets it; 0: all tokens */
	float *q_cols;         /* [2 * (1 + vocab), cols] */
};

/* Logits of q are those of p and noise of `distance`, with `spike` on p's best token. */
void world_open(struct world *w, int32_t vocab, const struct nx_sampler *s, float distance,
                float spike);
void world_close(struct world *w);
/* q gives mass to `cols` tokens alone, in columns of an order of their own. */
void world_reduce(struct world *w, int32_t cols);

/* A node of the shape of a draft; rows of q are named by 0 and 1. */
struct node {
	int32_t parent;
	int32_t q_row; /* 0, 1, or NX_Q_CERTAIN */
	int32_t rank;  /* of a chosen one */
	bool probe;
	bool again; /* drawn with replacement: siblings may be duplicates */
};
#define MAX_NODES 16
#define MAX_VOCAB 64

/* Drafts for all sequences of a trial; request of sequence i is first + i. */
void world_draft(const struct world *w, struct trial *t, const struct node *shape, uint32_t first);

enum bug {
	BUG_NONE,
	BUG_RESIDUAL_IS_P,         /* a rejection is followed by a draw from p */
	BUG_RATIO_FOR_CHOSEN,      /* min(1, p/q) for children that were not drawn */
	BUG_ACCEPT_ALL,            /* the first child is always taken */
	BUG_P_WITHOUT_TEMPERATURE, /* q has seen the sampler, p has not */
	BUG_Q_NOT_RENORMALISED,    /* q without the first sibling does not add to 1 */
	BUG_Q_NOT_REDUCED,         /* siblings are taken for independent draws */
	BUG_COIN_REUSED,           /* siblings share a random number */
	BUG_BONUS_OF_PARENT,       /* the last token is drawn from the logits of the node above */
	N_BUGS
};

/* Decides on a sequence as struct nx_sample has it, in float64 and from scratch; or with a bug. */
void world_decide(const struct world *w, struct trial *t, int32_t seq, enum bug bug);
/* A draw of the sampler after `context` at a position, as without a draft. */
int32_t world_sample(const struct world *w, const struct nx_sampler *s, int32_t context,
                     int32_t position);

/* The law by definition, with O(n^2) ranks instead of sorting; p sums to 1. */
void law_of(const float *logits, int32_t vocab, const struct nx_sampler *s, double *p);

#endif
