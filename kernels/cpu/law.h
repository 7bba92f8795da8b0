/* SPDX-License-Identifier: Apache-2.0
 *
 * law.h: the target's distribution over the next token, as verify.c asks for it.
 *
 * ref_sample.c defines it; sample.c finds the same without sorting the vocabulary. Whoever draws, accepts or
 * subtracts goes through one of the two tables, so p is the same everywhere: after top_k, temperature, top_p
 * and min_p, in this order.
 */
#ifndef NX_CPU_LAW_H
#define NX_CPU_LAW_H

#include "cpu/cpu.h"

struct sample_entry {
	float logit;
	int32_t index;
};

struct law {
	const struct cpu_kernels *k; /* not read by the reference */
	const struct nx_sampler *s;
	const float *logits;
	int32_t vocab;
	struct sample_entry *kept; /* [vocab] scratch: what the filters keep, in order of index */
	int32_t n_kept;            /* KEPT_ALL: nothing is filtered out, and kept is not filled */
	float max;                 /* largest logit */
	double total;              /* of law_mass() over what is kept */
};
#define KEPT_ALL (-1)

struct law_ops {
	/* Greedy choice: the lowest index among the largest logits. Sets max. */
	int32_t (*best)(struct law *l);
	/* Fills kept, n_kept, max and total from s, logits and vocab. */
	void (*open)(struct law *l);
	/* After open: walks what is kept in order of index until its mass exceeds u times the total. */
	int32_t (*draw)(const struct law *l, double u);
	/* After open: p[i] = mass of token i, 0 where it was filtered out. */
	void (*masses)(const struct law *l, float *p);
	/* p[i] = max(p[i] - by * q[i], 0) */
	void (*subtract)(const struct law *l, float *p, const float *q, float by, int32_t n);
	double (*sum)(const struct law *l, const float *p, int32_t n);
	/* After best or open: natural log of the untempered softmax. */
	float (*logprob)(const struct law *l, int32_t token);
};

extern const struct law_ops law_ref, law_fast;

/* Mass of a token that is kept; the largest logit has 1. */
double law_weight(const struct law *l, float logit);
/* Of any token: 0 where it was filtered out. */
double law_mass(const struct law *l, int32_t token);
int law_by_logit(const void *a, const void *b);
int law_by_index(const void *a, const void *b);

/* ---- verify.c */

/* Memory of one thread. */
struct verify_scratch {
	struct sample_entry *kept; /* [vocab] */
	float *p;                  /* [vocab]; NULL when nothing was drafted */
	float *q;                  /* [q_cols]; NULL when there is no q */
};

/* Draws and verifies for one sequence, whose draft is legal; see struct nx_sample. */
void verify(const struct law_ops *ops, const struct cpu_kernels *k, const struct nx_sample *a,
            const struct nx_emit *e, const struct verify_scratch *scratch);
/* The row is a CANDIDATE with a token, and so are its ancestors: its depth below the root; else 0. */
int32_t verify_depth(const struct nx_draft *d, int32_t seq, int32_t row);

#endif
