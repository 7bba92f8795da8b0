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

#include "cpu/cpu.h"
#include "nexus_kernels/rng.h"

static int by_logit(const void *pa, const void *pb)
{
	const struct sample_entry *a = pa, *b = pb;
	if (a->logit != b->logit)
		return a->logit > b->logit ? -1 : 1;
	return a->index < b->index ? -1 : 1;
}

static int by_index(const void *pa, const void *pb)
{
	const struct sample_entry *a = pa, *b = pb;
	return a->index < b->index ? -1 : 1;
}

int32_t ref_sample(const float *logits, int32_t vocab, const struct nx_sampler *s, int32_t position,
                   struct sample_entry *scratch, float *logprob)
{
	double all = 0;
	int32_t best = 0, n = vocab;
	for (int32_t i = 0; i < vocab; i++) {
		scratch[i] = (struct sample_entry){logits[i], i};
		if (logits[i] > logits[best])
			best = i;
	}
	double max = logits[best];
	for (int32_t i = 0; i < vocab; i++)
		all += exp(logits[i] - max);
	int32_t token = best;
	if (s->temperature > 0) {
		qsort(scratch, (size_t)vocab, sizeof(*scratch), by_logit);
		if (s->top_k > 0 && s->top_k < n)
			n = s->top_k;
		double total = 0, mass = 0;
		for (int32_t i = 0; i < n; i++)
			total += exp((scratch[i].logit - max) / s->temperature);
		if (s->top_p < 1) {
			int32_t kept = 0;
			while (kept < n && (kept == 0 || mass < s->top_p * total))
				mass += exp((scratch[kept++].logit - max) / s->temperature);
			n = kept;
		}
		while (n > 1 && exp((scratch[n - 1].logit - max) / s->temperature) < s->min_p)
			n--;
		qsort(scratch, (size_t)n, sizeof(*scratch), by_index);
		total = mass = 0;
		for (int32_t i = 0; i < n; i++)
			total += exp((scratch[i].logit - max) / s->temperature);
		double u = nx_rng_uniform(s->seed, s->request, s->sample, (uint32_t)position,
		                          NX_RNG_SAMPLE);
		int32_t i = 0;
		for (; i < n - 1; i++) {
			mass += exp((scratch[i].logit - max) / s->temperature);
			if (mass > u * total)
				break;
		}
		token = scratch[i].index;
	}
	if (logprob)
		*logprob = (float)(logits[token] - max - log(all));
	return token;
}
