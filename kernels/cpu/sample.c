/* SPDX-License-Identifier: Apache-2.0
 *
 * Sampling as ref_sample.c defines it, without sorting the vocabulary: what the filters can keep lies within some
 * distance of the largest logit, and that distance is widened until enough lies inside.
 */
#include <math.h>
#include <stdlib.h>

#include "cpu/law.h"

#define SLICE 4096 /* logits whose mass is added up at a time */

/* No filter: walks slices, then the members of one. */
static int32_t draw_any(const struct law *l, double u)
{
	float by = 1 / l->s->temperature;
	double mass = 0;
	int32_t last = 0;
	for (int32_t begin = 0; begin < l->vocab; begin += SLICE) {
		int32_t n = l->vocab - begin < SLICE ? l->vocab - begin : SLICE;
		double slice = l->k->sum_exp(l->logits + begin, n, l->max, by);
		if (mass + slice <= u * l->total) {
			mass += slice;
			continue;
		}
		for (int32_t i = begin; i < begin + n; i++) {
			double m = law_weight(l, l->logits[i]);
			mass += m;
			if (mass > u * l->total)
				return i;
			if (m > 0)
				last = i;
		}
	}
	return last; /* rounding ate the end of the mass */
}

static int before(const struct sample_entry *a, const struct sample_entry *b)
{
	return a->logit != b->logit ? a->logit > b->logit : a->index < b->index;
}

/* Moves the first n in order to the front, in no order (Hoare's selection). */
static void select_first(struct sample_entry *e, int32_t count, int32_t n)
{
	int32_t lo = 0, hi = count - 1;
	while (lo < hi) {
		struct sample_entry pivot = e[lo + (hi - lo) / 2];
		int32_t i = lo, j = hi;
		while (i <= j) {
			while (before(&e[i], &pivot))
				i++;
			while (before(&pivot, &e[j]))
				j--;
			if (i <= j) {
				struct sample_entry t = e[i];
				e[i++] = e[j];
				e[j--] = t;
			}
		}
		if (n - 1 <= j)
			hi = j;
		else if (n - 1 >= i)
			lo = i;
		else
			return;
	}
}

/* All entries with logit >= max - width, in order of index; *mass is theirs. */
static int32_t collect(const struct law *l, float width, struct sample_entry *e, double *mass)
{
	float low = l->max - width;
	int32_t n = 0;
	*mass = 0;
	for (int32_t i = 0; i < l->vocab; i++) {
		e[n] = (struct sample_entry){l->logits[i], i};
		n += l->logits[i] >= low;
	}
	for (int32_t i = 0; i < n; i++)
		*mass += law_weight(l, e[i].logit);
	return n;
}

/* Keeps what the filters keep, in order of index. */
static int32_t keep(const struct law *l, struct sample_entry *e)
{
	const struct nx_sampler *s = l->s;
	bool top_k = s->top_k > 0 && s->top_k < l->vocab, top_p = s->top_p < 1;
	double all = top_k || !top_p
	                     ? 0
	                     : l->k->sum_exp(l->logits, l->vocab, l->max, 1 / s->temperature);
	double mass = 0;
	float width = 8 * s->temperature;
	if (!top_k && !top_p) /* min_p alone; a little more, the exact test follows */
		width = s->temperature * (0.001f - logf(s->min_p));
	int32_t n = collect(l, width, e, &mass);
	/* One part in a million of slack: f32 sums decide here, double ones below. */
	while (n < l->vocab &&
	       ((top_k && n < s->top_k) || (!top_k && top_p && mass < (s->top_p + 1e-6) * all))) {
		width *= 2;
		n = collect(l, width, e, &mass);
		if (width > 1e30f)
			break;
	}
	if (top_k && s->top_k < n) {
		select_first(e, n, s->top_k);
		n = s->top_k;
	}
	if (top_p) {
		double total = all, run = 0;
		int32_t kept = 0;
		qsort(e, (size_t)n, sizeof(*e), law_by_logit);
		for (int32_t i = 0; top_k && i < n; i++)
			total += law_weight(l, e[i].logit);
		while (kept < n && (kept == 0 || run < s->top_p * total))
			run += law_weight(l, e[kept++].logit);
		n = kept;
	}
	int32_t kept = 0;
	for (int32_t i = 0; i < n; i++)
		if (e[i].logit == l->max || law_weight(l, e[i].logit) >= s->min_p)
			e[kept++] = e[i];
	if (top_k || top_p)
		qsort(e, (size_t)kept, sizeof(*e), law_by_index);
	return kept;
}

/* One pass: the largest of each slice, then the place within the first slice that has it. */
static int32_t fast_best(struct law *l)
{
	int32_t at = 0;
	l->max = -INFINITY;
	for (int32_t begin = 0; begin < l->vocab; begin += SLICE) {
		int32_t n = l->vocab - begin < SLICE ? l->vocab - begin : SLICE;
		float max = l->k->max(l->logits + begin, n);
		if (max > l->max) {
			l->max = max;
			at = begin;
		}
	}
	for (int32_t i = at; i < l->vocab; i++)
		if (l->logits[i] == l->max)
			return i;
	return 0; /* NaN among the logits */
}

static void fast_open(struct law *l)
{
	const struct nx_sampler *s = l->s;
	l->max = l->k->max(l->logits, l->vocab);
	if (!((s->top_k > 0 && s->top_k < l->vocab) || s->top_p < 1 || s->min_p > 0)) {
		l->n_kept = KEPT_ALL;
		l->total = l->k->sum_exp(l->logits, l->vocab, l->max, 1 / s->temperature);
		return;
	}
	l->n_kept = keep(l, l->kept);
	l->total = 0;
	for (int32_t i = 0; i < l->n_kept; i++)
		l->total += law_weight(l, l->kept[i].logit);
}

static int32_t fast_draw(const struct law *l, double u)
{
	double mass = 0;
	if (l->n_kept == KEPT_ALL)
		return draw_any(l, u);
	for (int32_t i = 0; i < l->n_kept - 1; i++) {
		mass += law_weight(l, l->kept[i].logit);
		if (mass > u * l->total)
			return l->kept[i].index;
	}
	return l->n_kept ? l->kept[l->n_kept - 1].index : 0;
}

static void fast_masses(const struct law *l, float *p)
{
	if (l->n_kept == KEPT_ALL) {
		l->k->exp_to(p, l->logits, l->vocab, l->max, 1 / l->s->temperature);
		return;
	}
	memset(p, 0, sizeof(*p) * (size_t)l->vocab);
	for (int32_t i = 0; i < l->n_kept; i++)
		p[l->kept[i].index] = (float)law_weight(l, l->kept[i].logit);
}

static void fast_subtract(const struct law *l, float *p, const float *q, float by, int32_t n)
{
	l->k->subtract(p, q, by, n);
}

static double fast_sum(const struct law *l, const float *p, int32_t n)
{
	return l->k->sum(p, n);
}

static float fast_logprob(const struct law *l, int32_t token)
{
	return (float)(l->logits[token] - l->max -
	               log(l->k->sum_exp(l->logits, l->vocab, l->max, 1)));
}

const struct law_ops law_fast = {
	.best = fast_best,
	.open = fast_open,
	.draw = fast_draw,
	.masses = fast_masses,
	.subtract = fast_subtract,
	.sum = fast_sum,
	.logprob = fast_logprob,
};
