/* SPDX-License-Identifier: Apache-2.0
 *
 * Sampling as ref_sample.c defines it, without sorting the vocabulary: what the filters can keep lies within some
 * distance of the largest logit, and that distance is widened until enough lies inside.
 */
#include <math.h>
#include <stdlib.h>

#include "cpu/cpu.h"
#include "nexus_kernels/rng.h"

#define SLICE 4096 /* logits whose mass is added up at a time */

struct draw {
	const struct cpu_kernels *k;
	const float *logits;
	int32_t vocab;
	const struct nx_sampler *s;
	float max;
	double u;
};

static double mass_of(const struct draw *d, float logit)
{
	return exp(((double)logit - d->max) / d->s->temperature);
}

/* No filter: walks slices, then the members of one. */
static int32_t draw_any(const struct draw *d)
{
	float by = 1 / d->s->temperature;
	double total = d->k->sum_exp(d->logits, d->vocab, d->max, by), mass = 0;
	int32_t last = 0;
	for (int32_t begin = 0; begin < d->vocab; begin += SLICE) {
		int32_t n = d->vocab - begin < SLICE ? d->vocab - begin : SLICE;
		double slice = d->k->sum_exp(d->logits + begin, n, d->max, by);
		if (mass + slice <= d->u * total) {
			mass += slice;
			continue;
		}
		for (int32_t i = begin; i < begin + n; i++) {
			double m = mass_of(d, d->logits[i]);
			mass += m;
			if (mass > d->u * total)
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

static int by_logit(const void *a, const void *b)
{
	return before(a, b) ? -1 : 1;
}

static int by_index(const void *pa, const void *pb)
{
	const struct sample_entry *a = pa, *b = pb;
	return a->index < b->index ? -1 : 1;
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
static int32_t collect(const struct draw *d, float width, struct sample_entry *e, double *mass)
{
	float low = d->max - width;
	int32_t n = 0;
	*mass = 0;
	for (int32_t i = 0; i < d->vocab; i++) {
		e[n] = (struct sample_entry){d->logits[i], i};
		n += d->logits[i] >= low;
	}
	for (int32_t i = 0; i < n; i++)
		*mass += mass_of(d, e[i].logit);
	return n;
}

/* Keeps what the filters keep, in order of index. */
static int32_t keep(const struct draw *d, struct sample_entry *e)
{
	const struct nx_sampler *s = d->s;
	bool top_k = s->top_k > 0 && s->top_k < d->vocab, top_p = s->top_p < 1;
	double all = top_k || !top_p
	                     ? 0
	                     : d->k->sum_exp(d->logits, d->vocab, d->max, 1 / s->temperature);
	double mass = 0;
	float width = 8 * s->temperature;
	if (!top_k && !top_p) /* min_p alone; a little more, the exact test follows */
		width = s->temperature * (0.001f - logf(s->min_p));
	int32_t n = collect(d, width, e, &mass);
	/* One part in a million of slack: f32 sums decide here, double ones below. */
	while (n < d->vocab &&
	       ((top_k && n < s->top_k) || (!top_k && top_p && mass < (s->top_p + 1e-6) * all))) {
		width *= 2;
		n = collect(d, width, e, &mass);
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
		qsort(e, (size_t)n, sizeof(*e), by_logit);
		for (int32_t i = 0; top_k && i < n; i++)
			total += mass_of(d, e[i].logit);
		while (kept < n && (kept == 0 || run < s->top_p * total))
			run += mass_of(d, e[kept++].logit);
		n = kept;
	}
	int32_t kept = 0;
	for (int32_t i = 0; i < n; i++)
		if (e[i].logit == d->max || mass_of(d, e[i].logit) >= s->min_p)
			e[kept++] = e[i];
	if (top_k || top_p)
		qsort(e, (size_t)kept, sizeof(*e), by_index);
	return kept;
}

static int32_t draw_kept(const struct draw *d, const struct sample_entry *e, int32_t n)
{
	double total = 0, mass = 0;
	for (int32_t i = 0; i < n; i++)
		total += mass_of(d, e[i].logit);
	for (int32_t i = 0; i < n - 1; i++) {
		mass += mass_of(d, e[i].logit);
		if (mass > d->u * total)
			return e[i].index;
	}
	return n ? e[n - 1].index : 0;
}

int32_t fast_sample(const struct cpu_kernels *k, const float *logits, int32_t vocab,
                    const struct nx_sampler *s, int32_t position, struct sample_entry *scratch,
                    float *logprob)
{
	struct draw d = {
		.k = k, .logits = logits, .vocab = vocab, .s = s, .max = k->max(logits, vocab)};
	int32_t token = 0;
	if (s->temperature <= 0) {
		while (token < vocab && logits[token] != d.max)
			token++;
		token = token < vocab ? token : 0; /* NaN among the logits */
	} else {
		d.u = nx_rng_uniform(s->seed, s->request, s->sample, (uint32_t)position,
		                     NX_RNG_SAMPLE);
		bool filtered = (s->top_k > 0 && s->top_k < vocab) || s->top_p < 1 || s->min_p > 0;
		token = filtered ? draw_kept(&d, scratch, keep(&d, scratch)) : draw_any(&d);
	}
	if (logprob)
		*logprob =
			(float)(logits[token] - d.max - log(k->sum_exp(logits, vocab, d.max, 1)));
	return token;
}
