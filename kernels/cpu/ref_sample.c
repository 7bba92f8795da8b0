/* SPDX-License-Identifier: Apache-2.0
 *
 * Sampling, defined here. Greedy: the lowest index among the largest logits. Otherwise, in this order:
 *   top_k        keep the k largest logits; among equals the lower index stays
 *   temperature  softmax of logit / temperature over what is left
 *   top_p        keep the smallest set of the most probable whose mass is at least top_p
 *   min_p        drop what is less probable than min_p times the most probable
 * The draw walks what is kept in order of index until the mass exceeds u times the total.
 */
#include <math.h>
#include <stdlib.h>

#include "cpu/law.h"

int law_by_logit(const void *pa, const void *pb)
{
	const struct sample_entry *a = pa, *b = pb;
	if (a->logit != b->logit)
		return a->logit > b->logit ? -1 : 1;
	return a->index < b->index ? -1 : 1;
}

int law_by_index(const void *pa, const void *pb)
{
	const struct sample_entry *a = pa, *b = pb;
	return a->index < b->index ? -1 : 1;
}

double law_weight(const struct law *l, float logit)
{
	return exp(((double)logit - l->max) / l->s->temperature);
}

double law_mass(const struct law *l, int32_t token)
{
	int32_t lo = 0, hi = l->n_kept;
	if (l->n_kept == KEPT_ALL)
		return law_weight(l, l->logits[token]);
	while (lo < hi) {
		int32_t mid = lo + (hi - lo) / 2;
		if (l->kept[mid].index < token)
			lo = mid + 1;
		else
			hi = mid;
	}
	return lo < l->n_kept && l->kept[lo].index == token ? law_weight(l, l->kept[lo].logit) : 0;
}

static int32_t ref_best(struct law *l)
{
	int32_t best = 0;
	for (int32_t i = 0; i < l->vocab; i++)
		if (l->logits[i] > l->logits[best])
			best = i;
	l->max = l->logits[best];
	return best;
}

static double mass_of_first(const struct law *l, int32_t n)
{
	double mass = 0;
	for (int32_t i = 0; i < n; i++)
		mass += law_weight(l, l->kept[i].logit);
	return mass;
}

static void ref_open(struct law *l)
{
	const struct nx_sampler *s = l->s;
	struct sample_entry *e = l->kept;
	int32_t n = l->vocab;
	ref_best(l);
	for (int32_t i = 0; i < n; i++)
		e[i] = (struct sample_entry){l->logits[i], i};
	qsort(e, (size_t)n, sizeof(*e), law_by_logit);
	if (s->top_k > 0 && s->top_k < n)
		n = s->top_k;
	if (s->top_p < 1) {
		double total = mass_of_first(l, n), mass = 0;
		int32_t kept = 0;
		while (kept < n && (kept == 0 || mass < s->top_p * total))
			mass += law_weight(l, e[kept++].logit);
		n = kept;
	}
	while (n > 1 && law_weight(l, e[n - 1].logit) < s->min_p)
		n--;
	qsort(e, (size_t)n, sizeof(*e), law_by_index);
	l->n_kept = n;
	l->total = mass_of_first(l, n);
}

static int32_t ref_draw(const struct law *l, double u)
{
	double mass = 0;
	int32_t i = 0;
	for (; i < l->n_kept - 1; i++) {
		mass += law_weight(l, l->kept[i].logit);
		if (mass > u * l->total)
			break;
	}
	return l->kept[i].index;
}

static void ref_masses(const struct law *l, float *p)
{
	for (int32_t i = 0; i < l->vocab; i++)
		p[i] = (float)law_mass(l, i);
}

static void ref_subtract(const struct law *l, float *p, const float *q, float by, int32_t n)
{
	(void)l;
	for (int32_t i = 0; i < n; i++)
		p[i] = p[i] > by * q[i] ? p[i] - by * q[i] : 0;
}

static double ref_sum(const struct law *l, const float *p, int32_t n)
{
	double sum = 0;
	(void)l;
	for (int32_t i = 0; i < n; i++)
		sum += p[i];
	return sum;
}

static float ref_logprob(const struct law *l, int32_t token)
{
	double all = 0;
	for (int32_t i = 0; i < l->vocab; i++)
		all += exp((double)l->logits[i] - l->max);
	return (float)((double)l->logits[token] - l->max - log(all));
}

const struct law_ops law_ref = {
	.best = ref_best,
	.open = ref_open,
	.draw = ref_draw,
	.masses = ref_masses,
	.subtract = ref_subtract,
	.sum = ref_sum,
	.logprob = ref_logprob,
};
