/* SPDX-License-Identifier: Apache-2.0 */
#include <check.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "kernel_test.h"
#include "nexus_kernels/rng.h"

/* Draws n tokens at positions 0..n-1 from one row of logits, for sequences 1..n that fork from sequence 0. */
static void draw(struct rig *r, const float *logits, int32_t vocab, struct nx_sampler s, int32_t n,
                 int32_t *token, float *logprob)
{
	enum { STRIDE = 2 };
	size_t seqs = (size_t)n + 1;
	struct nx_emit *emit = calloc((size_t)n, sizeof(*emit));
	struct nx_sampler *by_seq = calloc(seqs, sizeof(*by_seq));
	int32_t *len = calloc(seqs, sizeof(*len)), *accepted = malloc(seqs * sizeof(*accepted));
	int32_t *out = malloc(seqs * STRIDE * sizeof(*out));
	float *prob = malloc(seqs * STRIDE * sizeof(*prob));
	struct nx_seq_state state = {n + 1, len, NULL};
	struct nx_verdict v = {.stride = STRIDE, .token = out, .n_accepted = accepted};
	memset(out, 0xff, seqs * STRIDE * sizeof(*out));
	memset(accepted, 0xff, seqs * sizeof(*accepted));
	for (int32_t i = 0; i <= n; i++) {
		by_seq[i] = s;
		len[i] = 100;
	}
	by_seq[0].seed = ~s.seed; /* not that of the sequence that receives the token */
	len[0] = 5;
	for (int32_t i = 0; i < n; i++)
		emit[i] = (struct nx_emit){.seq = i + 1, .pos_off = i - 5};
	struct nx_sample a = {.logits = logits,
	                      .n_emit = n,
	                      .vocab = vocab,
	                      .emit = emit,
	                      .samplers = by_seq,
	                      .state = &state,
	                      .verdict = &v,
	                      .logprob = logprob ? prob : NULL};
	rig_ok(r, r->ops->sample(r->dev, NULL, &a, &r->err));
	ck_assert(out[0] == -1 && accepted[0] == -1);
	for (int32_t i = 0; i < n; i++) {
		ck_assert(accepted[i + 1] == 0 && out[STRIDE * (i + 1) + 1] == -1);
		token[i] = out[STRIDE * (i + 1)];
		if (logprob)
			logprob[i] = prob[STRIDE * (i + 1)];
	}
	free(emit);
	free(by_seq);
	free(len);
	free(accepted);
	free(out);
	free(prob);
}

START_TEST(philox_gives_the_published_numbers)
{
	/* kat_vectors of Random123 */
	struct nx_rng_block a = nx_philox(0, 0, 0, 0, 0);
	ck_assert_uint_eq(a.x[0], 0x6627e8d5u);
	ck_assert_uint_eq(a.x[1], 0xe169c58du);
	ck_assert_uint_eq(a.x[2], 0xbc57ac4cu);
	ck_assert_uint_eq(a.x[3], 0x9b00dbd8u);
	a = nx_philox(0x299f31d0a4093822u, 0x243f6a88u, 0x85a308d3u, 0x13198a2eu, 0x03707344u);
	ck_assert_uint_eq(a.x[0], 0xd16cfe09u);
	ck_assert_uint_eq(a.x[1], 0x94fdccebu);
	ck_assert_uint_eq(a.x[2], 0x5001e420u);
	ck_assert_uint_eq(a.x[3], 0x24126ea1u);
}
END_TEST

enum { VOCAB = 12, DRAWS = 20000 };

static const struct {
	struct nx_sampler s;
	float chi; /* 99.99 % point for the degrees of freedom that are left, with room */
} samplers[] = {
	{{.temperature = 1, .top_p = 1, .seed = 1}, 40},
	{{.temperature = 0.7f, .top_p = 1, .seed = 2}, 40},
	{{.temperature = 1.5f, .top_p = 1, .top_k = 5, .seed = 3}, 26},
	{{.temperature = 1, .top_p = 0.8f, .seed = 4}, 40},
	{{.temperature = 1, .top_p = 1, .min_p = 0.2f, .seed = 5}, 40},
	{{.temperature = 0.9f,
          .top_p = 0.9f,
          .min_p = 0.1f,
          .top_k = 8,
          .seed = 6,
          .request = 9,
          .sample = 2},
         36},
	{{.temperature = 1, .top_p = 1, .top_k = 1, .seed = 7}, 1},
};
#define N_SAMPLERS ((int)(sizeof(samplers) / sizeof(samplers[0])))

/* The distribution by definition, with O(n^2) ranks instead of sorting. */
static void expected(const float *x, const struct nx_sampler *s, double *p)
{
	int rank[VOCAB];
	double total = 0, mass[VOCAB], above = 0;
	for (int i = 0; i < VOCAB; i++) {
		rank[i] = 0;
		for (int j = 0; j < VOCAB; j++)
			rank[i] += x[j] > x[i] || (x[j] == x[i] && j < i);
		p[i] = s->top_k && rank[i] >= s->top_k ? 0 : exp((double)x[i] / s->temperature);
		total += p[i];
	}
	double best = 0;
	for (int i = 0; i < VOCAB; i++)
		best = fmax(best, p[i]);
	for (int i = 0; i < VOCAB; i++) {
		above = 0;
		for (int j = 0; j < VOCAB; j++)
			above += rank[j] < rank[i] ? p[j] : 0;
		mass[i] = (s->top_p < 1 && above >= s->top_p * total) || p[i] < s->min_p * best
		                  ? 0
		                  : p[i];
	}
	total = 0;
	for (int i = 0; i < VOCAB; i++)
		total += mass[i];
	for (int i = 0; i < VOCAB; i++)
		p[i] = mass[i] / total;
}

START_TEST(draws_follow_the_filtered_distribution)
{
	static const float logits[VOCAB] = {0.1f,  2.0f, -1.0f, 1.5f,  0.0f, 1.5f,
	                                    -3.0f, 0.7f, 2.2f,  -0.4f, 1.1f, 0.3f};
	const struct nx_sampler *s = &samplers[_i].s;
	double p[VOCAB];
	expected(logits, s, p);
	for (int isa = 0; isa < N_ISAS; isa++) {
		struct rig r;
		int32_t token[DRAWS], count[VOCAB] = {0};
		double chi = 0;
		if (!rig_open(&r, isa, 2, false))
			continue;
		draw(&r, logits, VOCAB, *s, DRAWS, token, NULL);
		for (int i = 0; i < DRAWS; i++) {
			ck_assert_int_ge(token[i], 0);
			ck_assert_int_lt(token[i], VOCAB);
			count[token[i]]++;
		}
		for (int i = 0; i < VOCAB; i++) {
			double want = p[i] * DRAWS;
			ck_assert_msg(want > 0 || count[i] == 0, "%s: token %d was filtered out",
			              isa_name(isa), i);
			chi += want > 0 ? (count[i] - want) * (count[i] - want) / want : 0;
		}
		ck_assert_msg(chi < samplers[_i].chi, "%s: chi-square %g", isa_name(isa), chi);
		rig_close(&r);
	}
}
END_TEST

/* All instruction sets draw the same token for the same key, but where rounding decides: 1 in 500 at most. */
START_TEST(fast_draws_equal_the_reference)
{
	enum { BIG = 9001, N = 500 };
	float *logits = noise_array(BIG, 77), prob[2][N];
	int32_t token[2][N];
	for (int i = 0; i < BIG; i++)
		logits[i] = 9 * logits[i] * logits[i];
	for (int isa = 1; isa < N_ISAS; isa++) {
		for (int fast = 0; fast < 2; fast++) {
			struct rig r;
			if (!rig_open(&r, fast ? isa : 0, 2, false))
				goto next;
			draw(&r, logits, BIG, samplers[_i].s, fast ? N : N / 10, token[fast],
			     prob[fast]);
			rig_close(&r);
		}
		int differ = 0;
		for (int i = 0; i < N / 10; i++) {
			differ += token[0][i] != token[1][i];
			if (token[0][i] == token[1][i])
				ck_assert_float_eq_tol(prob[0][i], prob[1][i], 1e-4f);
		}
		ck_assert_msg(differ <= 1, "%s: %d draws differ", isa_name(isa), differ);
	next:;
	}
	free(logits);
}
END_TEST

START_TEST(greedy_takes_the_lowest_index_among_equals)
{
	for (int isa = 0; isa < N_ISAS; isa++) {
		struct rig r;
		if (!rig_open(&r, isa, 1, false))
			continue;
		for (int32_t n = 1; n < 10000; n += n < 200 ? 13 : 4999) {
			float *x = noise_array(n, 4), logprob;
			int32_t token;
			double sum = 0;
			x[n / 3] = x[n - 1] = 3;
			draw(&r, x, n, (struct nx_sampler){.top_p = 1}, 1, &token, &logprob);
			ck_assert_int_eq(token, n / 3);
			for (int32_t i = 0; i < n; i++)
				sum += exp((double)x[i] - 3);
			ck_assert_float_eq_tol(logprob, (float)-log(sum), 1e-5f);
			free(x);
		}
		rig_close(&r);
	}
}
END_TEST

/* A draw depends on its key, not on the other draws of the call or on the number of threads. */
START_TEST(draws_do_not_depend_on_company)
{
	for (int isa = 0; isa < N_ISAS; isa++) {
		struct rig a, b;
		int32_t many[40], one;
		if (!rig_open(&a, isa, 3, false))
			continue;
		float *x = noise_array(3000, 8);
		ck_assert(rig_open(&b, isa, 1, false));
		struct nx_sampler s = {.temperature = 2, .top_p = 0.9f, .seed = 99};
		draw(&a, x, 3000, s, 40, many, NULL);
		draw(&b, x, 3000, s, 1, &one, NULL);
		ck_assert_int_eq(many[0], one);
		int differ = 0;
		for (int i = 1; i < 40; i++)
			differ += many[i] != many[0];
		ck_assert_int_gt(differ, 20);
		free(x);
		rig_close(&a);
		rig_close(&b);
	}
}
END_TEST

int main(void)
{
	Suite *s = suite_create("cpu_sample");
	TCase *tc = tcase_create("sample");
	tcase_set_timeout(tc, 120);
	tcase_add_test(tc, philox_gives_the_published_numbers);
	tcase_add_loop_test(tc, draws_follow_the_filtered_distribution, 0, N_SAMPLERS);
	tcase_add_loop_test(tc, fast_draws_equal_the_reference, 0, N_SAMPLERS);
	tcase_add_test(tc, greedy_takes_the_lowest_index_among_equals);
	tcase_add_test(tc, draws_do_not_depend_on_company);
	suite_add_tcase(s, tc);
	SRunner *sr = srunner_create(s);
	srunner_run_all(sr, CK_NORMAL);
	int failed = srunner_ntests_failed(sr);
	srunner_free(sr);
	return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}
