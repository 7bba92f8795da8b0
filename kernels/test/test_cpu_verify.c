/* SPDX-License-Identifier: Apache-2.0 */
#include <check.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "verify_test.h"

static const struct nx_sampler samplers[] = {
	{.temperature = 1, .top_p = 1},
	{.temperature = 0.6f, .top_p = 1},
	{.temperature = 1.4f, .top_p = 1, .top_k = 4},
	{.temperature = 1, .top_p = 0.7f},
	{.temperature = 1, .top_p = 1, .min_p = 0.3f},
	{.temperature = 0.9f, .top_p = 0.9f, .min_p = 0.05f, .top_k = 6},
	{.top_p = 1},
};
#define N_SAMPLERS ((int)(sizeof(samplers) / sizeof(samplers[0])))

static uint32_t pick(uint64_t a, uint64_t b, uint32_t n)
{
	return (uint32_t)((noise(a, b) + 1) * 0.5f * (float)n) % n;
}

/* A random tree over few tokens, so that siblings, duplicates, PROBE rows and rows without a token are common. */
static void random_tree(struct trial *t, int32_t seq, uint64_t salt, int32_t tokens)
{
	for (int32_t i = 0; i < t->n; i++) {
		int64_t at = (int64_t)seq * t->draft.stride + i;
		int32_t parent = (int32_t)pick(salt, (uint64_t)i * 4, (uint32_t)i + 1) - 1;
		trial_row(t, seq, i, (int32_t)pick(salt, (uint64_t)i * 4 + 1, (uint32_t)tokens),
		          parent, NX_Q_CERTAIN);
		if (pick(salt, (uint64_t)i * 4 + 2, 8) == 0)
			t->draft.kind[at] = NX_ROW_PROBE;
		if (pick(salt, (uint64_t)i * 4 + 3, 8) == 0)
			t->draft.token[at] = NX_TOKEN_NONE;
	}
}

/* The child of `node` that may be accepted for `token`: the first. -2: none. */
static int32_t oracle_child(const struct trial *t, int32_t seq, int32_t node, int32_t token)
{
	for (int32_t i = 0; i < t->n; i++) {
		int64_t at = (int64_t)seq * t->draft.stride + i;
		if (t->draft.parent[at] == node && t->draft.kind[at] == NX_ROW_CANDIDATE &&
		    t->draft.token[at] == token)
			return i;
	}
	return -2;
}

/*
 * What is emitted with chosen children, greedy ones included, is what is drawn without a draft from the same rows,
 * token by token; the path is that of the tokens, as far as the draft goes.
 */
START_TEST(chosen_children_change_no_token)
{
	enum { SEQS = 300, NODES = 14, VOCAB = 23 };
	int32_t accepted = 0, deepest = 0;
	for (int isa = 0; isa < N_ISAS; isa++) {
		struct rig r;
		struct trial t;
		if (!rig_open(&r, isa, 2, false))
			continue;
		trial_open(&t, VOCAB, SEQS, NODES);
		for (int32_t i = 0; i < SEQS * (NODES + 1) * VOCAB; i++)
			t.logits[i] = 3 * noise(11, (uint64_t)i) - (float)(i % VOCAB);
		for (int32_t s = 0; s < SEQS; s++) {
			t.samplers[s] = samplers[_i];
			t.samplers[s].seed = (uint64_t)s * 77;
			t.samplers[s].request = (uint32_t)s;
			random_tree(&t, s, (uint64_t)s, 5);
		}
		rig_ok(&r, r.ops->sample(r.dev, NULL, &t.a, &r.err));
		for (int32_t s = 0; s < SEQS; s++) {
			int32_t node = -1, depth = 0;
			const int32_t *out = trial_out(&t, s);
			for (;; depth++) {
				/* the same token without a draft */
				int32_t token, n, len = t.len[s] + 1 + depth;
				float logprob;
				struct nx_emit e = {.logit_row = t.emit[s].logit_row + 1 + node};
				struct nx_seq_state state = {1, &len, NULL};
				struct nx_verdict v = {
					.stride = 1, .token = &token, .n_accepted = &n};
				struct nx_sample a = {.logits = t.logits,
				                      .n_emit = 1,
				                      .vocab = VOCAB,
				                      .emit = &e,
				                      .samplers = &t.samplers[s],
				                      .state = &state,
				                      .verdict = &v,
				                      .logprob = &logprob};
				rig_ok(&r, r.ops->sample(r.dev, NULL, &a, &r.err));
				ck_assert_int_eq(out[depth], token);
				ck_assert(t.logprob[s * t.verdict.stride + depth] == logprob);
				node = oracle_child(&t, s, node, token);
				if (node == -2)
					break;
				ck_assert_int_eq(t.verdict.path[s * t.verdict.stride + depth],
				                 node);
			}
			ck_assert_int_eq(t.verdict.n_accepted[s], depth);
			accepted += depth;
			deepest = depth > deepest ? depth : deepest;
		}
		trial_close(&t);
		rig_close(&r);
	}
	ck_assert_int_gt(accepted, SEQS / 2); /* the test has something to compare */
	ck_assert_int_ge(deepest, 3);
}
END_TEST

int main(void)
{
	Suite *s = suite_create("cpu_verify");
	TCase *tc = tcase_create("verify");
	tcase_set_timeout(tc, 120);
	tcase_add_loop_test(tc, chosen_children_change_no_token, 0, N_SAMPLERS);
	suite_add_tcase(s, tc);
	SRunner *sr = srunner_create(s);
	srunner_run_all(sr, CK_NORMAL);
	int failed = srunner_ntests_failed(sr);
	srunner_free(sr);
	return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}
