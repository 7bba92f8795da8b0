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

/* Vocabularies that take many slices: the fast forms against the reference, with children of all sorts. */
START_TEST(large_vocabularies_are_verified_as_the_reference_does)
{
	enum { SEQS = 80, NODES = 5, BIG = 9001, COLS = 8500 };
	static const int32_t parent[NODES] = {-1, -1, -1, 0, 1};
	int32_t verdict[2][SEQS * (NODES + 2)];
	float *q = malloc(sizeof(float) * 2 * BIG), *x = noise_array(BIG, 5);
	int32_t *map = malloc(sizeof(int32_t) * COLS);
	bool mapped = _i & 1;
	for (int32_t c = 0; c < COLS; c++)
		map[c] = BIG - 1 - c;
	for (int row = 0; row < 2; row++) {
		double total = 0;
		int32_t n = mapped ? COLS : BIG;
		for (int pass = 0; pass < 2; pass++)
			for (int32_t c = 0; c < n; c++) {
				int32_t t = mapped ? map[c] : c;
				float m = expf(30 * x[t] + noise((uint64_t)row, (uint64_t)t));
				total += pass ? 0 : m;
				q[row * n + c] = m / (float)total;
			}
	}
	for (int isa = 0; isa < N_ISAS; isa++) {
		struct rig r;
		struct trial t;
		int32_t differ = 0, deep = 0, first = 0;
		if (!rig_open(&r, isa, 2, false))
			continue;
		trial_open(&t, BIG, SEQS, NODES);
		t.draft.q = q;
		t.draft.q_cols = mapped ? COLS : BIG;
		t.draft.q_token = mapped ? map : NULL;
		for (int32_t s = 0; s < SEQS; s++) {
			t.samplers[s] = samplers[_i / 2];
			t.samplers[s].seed = (uint64_t)s + 1;
			for (int32_t row = 0; row <= NODES; row++)
				for (int32_t i = 0; i < BIG; i++)
					trial_logits(&t, s, row)[i] =
						20 * x[i] * x[i] +
						3 * noise((uint64_t)(s * NODES + row), (uint64_t)i);
			for (int32_t i = 0; i < NODES; i++) {
				/* among the best of some residue, for the target or for q */
				const float *p = s % 2 ? x : trial_logits(&t, s, 1 + parent[i]);
				int32_t token = 0,
					rank = (int32_t)pick((uint64_t)s, (uint64_t)i, 3);
				for (int32_t y = 0; y < BIG; y++)
					if (y % 3 == rank && p[y] > p[token])
						token = y;
				trial_row(&t, s, i, token, parent[i],
				          i == 1 ? NX_Q_CERTAIN : i % 2);
			}
		}
		rig_ok(&r, r.ops->sample(r.dev, NULL, &t.a, &r.err));
		for (int32_t s = 0; s < SEQS; s++) {
			int32_t *v = verdict[isa > 0] + (int64_t)s * (NODES + 2),
				n = t.verdict.n_accepted[s];
			memset(v, 0, sizeof(int32_t) * (NODES + 2));
			v[0] = n;
			memcpy(v + 1, trial_out(&t, s), sizeof(int32_t) * (size_t)(n + 1));
			differ += isa && memcmp(v, verdict[0] + (int64_t)s * (NODES + 2),
			                        sizeof(int32_t) * (NODES + 2)) != 0;
			deep += n > 0;
			first += n == 0;
		}
		ck_assert_msg(differ <= 1, "%s: %d verdicts differ", isa_name(isa), differ);
		ck_assert_msg(deep > 3 && first > 3, "%s: %d deep, %d not", isa_name(isa), deep,
		              first);
		trial_close(&t);
		rig_close(&r);
	}
	free(q);
	free(x);
	free(map);
}
END_TEST

/* p is flat and q all on token 0, which is rejected: what is left is flat too, wherever a slice ends. */
START_TEST(what_is_left_is_drawn_from_all_slices)
{
	enum { SEQS = 50, ROUNDS = 40, BIG = 9001, BINS = 9, N = SEQS * ROUNDS };
	float *q = calloc(BIG, sizeof(*q));
	q[0] = 1;
	for (int isa = 0; isa < N_ISAS; isa++) {
		struct rig r;
		struct trial t;
		double count[BINS] = {0}, chi = 0, want = (double)N / BINS;
		if (!rig_open(&r, isa, 1, false))
			continue;
		trial_open(&t, BIG, SEQS, 1);
		t.draft.q = q;
		t.draft.q_cols = BIG;
		for (int32_t round = 0; round < ROUNDS; round++) {
			for (int32_t s = 0; s < SEQS; s++) {
				t.samplers[s] = (struct nx_sampler){.temperature = 1, .top_p = 1};
				t.samplers[s].request = (uint32_t)(round * SEQS + s);
				trial_row(&t, s, 0, 0, -1, 0);
			}
			rig_ok(&r, r.ops->sample(r.dev, NULL, &t.a, &r.err));
			for (int32_t s = 0; s < SEQS; s++)
				if (t.verdict.n_accepted[s] == 0) {
					int32_t token = trial_out(&t, s)[0];
					ck_assert(token > 0 && token < BIG);
					count[(token - 1) / 1000]++;
				}
		}
		for (int i = 0; i < BINS; i++)
			chi += (count[i] - want) * (count[i] - want) / want;
		ck_assert_msg(chi < 60, "%s: chi-square %g of 8", isa_name(isa), chi);
		trial_close(&t);
		rig_close(&r);
	}
	free(q);
}
END_TEST

/*
 * One sequence with a draft by hand. The target's choice after node i (and after the root) is `best`; other tokens
 * have the same logit but for token 9, which comes second.
 */
enum { V = 10, ROWS = 6 };

static void by_hand(struct trial *t, const int32_t (*row)[2], const int32_t *best)
{
	trial_open(t, V, 1, ROWS);
	t->samplers[0].top_p = 1;
	for (int32_t i = 0; i < ROWS; i++)
		trial_row(t, 0, i, row[i][0], row[i][1], NX_Q_CERTAIN);
	for (int32_t i = 0; i <= ROWS; i++) {
		trial_logits(t, 0, i)[9] = 1;
		trial_logits(t, 0, i)[best[i]] = 2;
	}
}

/* 0: 3 -> 4 -> 5;  1: 6;  the root's choice is 3, then 4, then 7. {token, parent} */
static const int32_t hand[ROWS][2] = {{3, -1}, {6, -1}, {8, 0}, {4, 0}, {5, 3}, {4, 1}};
static const int32_t hand_best[ROWS + 1] = {3, 4, 2, 1, 7, 0, 0};

static void check_verdict(const struct trial *t, int32_t accepted, const int32_t *token,
                          const int32_t *path)
{
	ck_assert_int_eq(t->verdict.n_accepted[0], accepted);
	for (int32_t i = 0; i <= accepted; i++)
		ck_assert_int_eq(t->verdict.token[i], token[i]);
	for (int32_t i = 0; i < accepted; i++)
		ck_assert_int_eq(t->verdict.path[i], path[i]);
}

START_TEST(greedy_takes_the_longest_path)
{
	for (int isa = 0; isa < N_ISAS; isa++) {
		struct rig r;
		struct trial t;
		struct nx_counted c;
		if (!rig_open(&r, isa, 1, false))
			continue;
		by_hand(&t, hand, hand_best);
		for (int i = 0; i < ROWS; i++)
			t.draft.q_row[i] = i; /* of a q that is not there: greedy does not ask */
		rig_ok(&r, r.ops->sample(r.dev, NULL, &t.a, &r.err));
		check_verdict(&t, 2, (int32_t[]){3, 4, 7}, (int32_t[]){0, 3});
		r.ops->counted(r.dev, &c);
		ck_assert_uint_eq(c.act_bytes,
		                  3 * V * sizeof(float)); /* three nodes were visited */
		t.draft.kind[3] = NX_ROW_PROBE;
		rig_ok(&r, r.ops->sample(r.dev, NULL, &t.a, &r.err));
		check_verdict(&t, 1, (int32_t[]){3, 4}, (int32_t[]){0});
		t.draft.token[0] = NX_TOKEN_NONE;
		rig_ok(&r, r.ops->sample(r.dev, NULL, &t.a, &r.err));
		check_verdict(&t, 0, (int32_t[]){3}, NULL);
		trial_close(&t);
		rig_close(&r);
	}
}
END_TEST

START_TEST(forced_tokens_choose_the_path_and_not_the_tokens)
{
	struct rig r;
	struct trial t;
	int32_t force[ROWS + 1] = {6, -1, -1, -1, -1, -1, -1};
	ck_assert(rig_open(&r, 0, 1, false));
	by_hand(&t, hand, hand_best);
	t.a.force = force;
	trial_logits(&t, 0, 2)[4] = 5; /* after row 1: token 4, which is row 5 */
	rig_ok(&r, r.ops->sample(r.dev, NULL, &t.a, &r.err));
	check_verdict(&t, 2, (int32_t[]){3, 4, 0}, (int32_t[]){1, 5});
	force[0] = 5; /* no child has it */
	rig_ok(&r, r.ops->sample(r.dev, NULL, &t.a, &r.err));
	check_verdict(&t, 0, (int32_t[]){3}, NULL);
	trial_close(&t);
	rig_close(&r);
}
END_TEST

static const struct {
	struct nx_override o;
	int32_t accepted, token[4], path[3];
} given[] = {
	{{NX_OVERRIDE_OWN, 99}, 2, {3, 4, 7}, {0, 3}},
	{{NX_OVERRIDE_DEPTH, 0}, 0, {3}, {0}},
	{{NX_OVERRIDE_DEPTH, 1}, 1, {3, 4}, {0}},
	{{NX_OVERRIDE_DEPTH, 2}, 2, {3, 8, 1}, {0, 2}},
	{{NX_OVERRIDE_DEPTH, 3}, 3, {3, 4, 5, 0}, {0, 3, 4}},
	{{NX_OVERRIDE_DEPTH, 9}, 3, {3, 4, 5, 0}, {0, 3, 4}},
	{{NX_OVERRIDE_LEAF, -1}, 0, {3}, {0}},
	{{NX_OVERRIDE_LEAF, 5}, 2, {6, 4, 0}, {1, 5}},
	{{NX_OVERRIDE_LEAF, 2}, 2, {3, 8, 1}, {0, 2}},
};
#define N_GIVEN ((int)(sizeof(given) / sizeof(given[0])))

START_TEST(a_given_verdict_is_taken)
{
	for (int isa = 0; isa < N_ISAS; isa++) {
		struct rig r;
		struct trial t;
		struct nx_override o = given[_i].o;
		if (!rig_open(&r, isa, 1, false))
			continue;
		by_hand(&t, hand, hand_best);
		t.a.override = &o;
		rig_ok(&r, r.ops->sample(r.dev, NULL, &t.a, &r.err));
		check_verdict(&t, given[_i].accepted, given[_i].token, given[_i].path);
		for (int32_t d = 0; d <= given[_i].accepted; d++) {
			/* log-probability of what was emitted, after the node above */
			int32_t node = d ? given[_i].path[d - 1] : -1;
			const float *x = trial_logits(&t, 0, 1 + node);
			double all = 0;
			for (int i = 0; i < V; i++)
				all += exp(x[i]);
			ck_assert(fabs(t.logprob[d] - (x[given[_i].token[d]] - log(all))) < 1e-5);
		}
		trial_close(&t);
		rig_close(&r);
	}
}
END_TEST

START_TEST(a_residual_that_rounding_has_emptied_falls_back)
{
	for (int isa = 0; isa < N_ISAS; isa++) {
		struct rig r;
		struct trial t;
		float q[V] = {0, 0, 0, 1, 1}; /* p is all on 3, and so would be what is left */
		if (!rig_open(&r, isa, 1, false))
			continue;
		by_hand(&t, hand, hand_best);
		trial_row(&t, 0, 0, 4, -1, 0);
		t.draft.q = q;
		t.draft.q_cols = V;
		t.samplers[0].temperature = 1;
		t.samplers[0].top_k = 1;
		rig_ok(&r, r.ops->sample(r.dev, NULL, &t.a, &r.err));
		check_verdict(&t, 0, (int32_t[]){3}, NULL);
		trial_close(&t);
		rig_close(&r);
	}
}
END_TEST

static void refused(struct rig *r, struct trial *t, int code)
{
	r->err.msg[0] = '\0';
	ck_assert_int_eq(r->ops->sample(r->dev, NULL, &t->a, &r->err), code);
	ck_assert(r->err.msg[0] != '\0');
}

START_TEST(broken_drafts_are_refused)
{
	struct rig r;
	struct trial t;
	struct nx_override o = {NX_OVERRIDE_LEAF, ROWS};
	ck_assert(rig_open(&r, 0, 1, false));
	by_hand(&t, hand, hand_best);
	t.a.override = &o;
	refused(&r, &t, NX_EINVAL);
	o.value = -2;
	refused(&r, &t, NX_EINVAL);
	o.value = 4;
	t.draft.token[4] = NX_TOKEN_NONE;
	refused(&r, &t, NX_EINVAL);
	t.draft.token[4] = 5;
	t.draft.kind[0] = NX_ROW_PROBE; /* above row 4 */
	refused(&r, &t, NX_EINVAL);
	t.draft.kind[0] = NX_ROW_CANDIDATE;
	o = (struct nx_override){NX_OVERRIDE_DEPTH, -1};
	refused(&r, &t, NX_EINVAL);
	o.kind = 7;
	refused(&r, &t, NX_EINVAL);
	t.a.override = NULL;
	t.draft.parent[2] = 2;
	refused(&r, &t, NX_EBUG);
	t.draft.parent[2] = 0;
	t.draft.token[2] = V;
	refused(&r, &t, NX_EBUG);
	t.draft.token[2] = 8;
	t.draft.kind[2] = NX_ROW_PAD;
	refused(&r, &t, NX_EBUG);
	t.draft.kind[2] = NX_ROW_CANDIDATE;
	t.samplers[0].temperature = 1;
	t.draft.q_row[2] = 0; /* there is no q */
	refused(&r, &t, NX_EBUG);
	t.draft.q_row[2] = NX_Q_CERTAIN;
	t.verdict.stride = ROWS;
	refused(&r, &t, NX_EBUG);
	t.verdict.stride = ROWS + 1;
	t.emit[0].n_draft = ROWS + 1;
	refused(&r, &t, NX_EBUG);
	t.emit[0].n_draft = ROWS;
	t.emit[0].seq = 1;
	refused(&r, &t, NX_EBUG);
	trial_close(&t);
	rig_close(&r);
}
END_TEST

int main(void)
{
	Suite *s = suite_create("cpu_verify");
	TCase *tc = tcase_create("verify");
	tcase_set_timeout(tc, 120);
	tcase_add_loop_test(tc, chosen_children_change_no_token, 0, N_SAMPLERS);
	tcase_add_loop_test(tc, large_vocabularies_are_verified_as_the_reference_does, 0,
	                    2 * (N_SAMPLERS - 1));
	tcase_add_test(tc, what_is_left_is_drawn_from_all_slices);
	tcase_add_test(tc, greedy_takes_the_longest_path);
	tcase_add_test(tc, forced_tokens_choose_the_path_and_not_the_tokens);
	tcase_add_loop_test(tc, a_given_verdict_is_taken, 0, N_GIVEN);
	tcase_add_test(tc, a_residual_that_rounding_has_emptied_falls_back);
	tcase_add_test(tc, broken_drafts_are_refused);
	suite_add_tcase(s, tc);
	SRunner *sr = srunner_create(s);
	srunner_run_all(sr, CK_NORMAL);
	int failed = srunner_ntests_failed(sr);
	srunner_free(sr);
	return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}
