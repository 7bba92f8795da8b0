/* SPDX-License-Identifier: Apache-2.0
 *
 * test/test_drafts.c: drafting through the whole engine: the law of sampled output, verdicts that are given,
 * ends inside an accepted span. Token identity is test_stacks.c's.
 */
#include <check.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "engine_fixture.h"

#define COUNT(a) ((int)(sizeof(a) / sizeof((a)[0])))

static struct fixture fx;

static void open_cpu(void)
{
	fixture_open(&fx, NX_F32, "auto", true, 2);
}

static void open_late(void)
{
	fixture_open_on(&fx, "late", NX_F32, "auto", true, 2);
}

static void close_it(void)
{
	fixture_close(&fx);
}

/* ---- the law of three tokens: K choices each, so K^3 cells, expected exactly from teacher-forced logits */

#define K 4
#define CELLS (K * K * K)
#define PROMPT 12
#define PROMPTS 6

struct law {
	float temperature;
	int32_t prompt[PROMPT];
	int32_t first[K], second[K][K],
		third[K][K][K]; /* tokens of the K largest logits, by index */
	double p[CELLS];
};

/* The K largest of n logits, in order of index, and their probabilities. */
static void top(const struct law *l, const float *x, int32_t n, int32_t *token, double *p)
{
	double sum = 0, most = -INFINITY;
	bool in[4096] = {false};
	for (int k = 0; k < K; k++) {
		int32_t best = -1;
		for (int32_t i = 0; i < n; i++)
			if (!in[i] && (best < 0 || x[i] > x[best]))
				best = i;
		in[best] = true;
		most = fmax(most, x[best]);
	}
	int k = 0;
	for (int32_t i = 0; i < n; i++) {
		if (!in[i])
			continue;
		token[k] = i;
		sum += p[k++] = exp((x[i] - most) / (double)l->temperature);
	}
	for (k = 0; k < K; k++)
		p[k] /= sum;
}

/* Logits after the prompt and up to two tokens. */
static void logits_after(const struct law *l, const int32_t *force, int32_t n, float *out)
{
	struct nx_err err = {0};
	struct outcome o;
	struct nx_request r = {.prompt = l->prompt,
	                       .n_prompt = PROMPT,
	                       .max_out = n + 1,
	                       .samples = 1,
	                       .ignore_eos = true,
	                       .force = force,
	                       .sampler = {.top_p = 1}};
	struct request_set set = {.reqs = &r, .n = 1};
	struct run_options one = {.batch_size = 1, .invariant = true};
	outcome_init(&o, &fx, 1, 1, n + 1, true);
	ck_assert_msg(run_stack(&fx, "flash_attention", &set, &one, &o, &err) == 0, "%s", err.msg);
	memcpy(out, o.logits + (size_t)n * (size_t)o.vocab, (size_t)o.vocab * sizeof(float));
	outcome_release(&o);
}

static void law_make(struct law *l, float temperature, int which)
{
	int32_t vocab = nx_model_shape(fx.model)->vocab;
	float *x = malloc((size_t)vocab * sizeof(*x));
	double p1[K], p2[K], p3[K];
	ck_assert_ptr_nonnull(x);
	l->temperature = temperature;
	for (int i = 0; i < PROMPT; i++)
		l->prompt[i] = (i * 37 + 11 + which * 101) % vocab;
	int32_t force[3] = {0};
	logits_after(l, force, 0, x);
	top(l, x, vocab, l->first, p1);
	for (int a = 0; a < K; a++) {
		force[0] = l->first[a];
		logits_after(l, force, 1, x);
		top(l, x, vocab, l->second[a], p2);
		for (int b = 0; b < K; b++) {
			force[1] = l->second[a][b];
			logits_after(l, force, 2, x);
			top(l, x, vocab, l->third[a][b], p3);
			for (int c = 0; c < K; c++)
				l->p[(a * K + b) * K + c] = p1[a] * p2[b] * p3[c];
		}
	}
	free(x);
}

static int index_of(const int32_t *tokens, int32_t token)
{
	for (int k = 0; k < K; k++)
		if (tokens[k] == token)
			return k;
	return -1;
}

/* Adds one prompt's chi-square: sequence i has prompt i % PROMPTS. Cells that expect fewer than five sequences are
 * taken together. */
static void add_chi_square(const struct law *l, const struct outcome *o, int which, double *x,
                           int *df)
{
	double seen[CELLS] = {0}, rest_want = 0, rest_seen = 0;
	int n = 0;
	for (int32_t i = which; i < o->n_requests; i += PROMPTS, n++) {
		const int32_t *t = o->tokens + (size_t)i * (size_t)o->max_out;
		int a = index_of(l->first, t[0]), b = a < 0 ? -1 : index_of(l->second[a], t[1]);
		int c = b < 0 ? -1 : index_of(l->third[a][b], t[2]);
		ck_assert_msg(c >= 0, "sequence %d has tokens %d %d %d, which top_k forbids", i,
		              t[0], t[1], t[2]);
		seen[(a * K + b) * K + c]++;
	}
	*df -= 1;
	for (int i = 0; i < CELLS; i++) {
		double want = l->p[i] * n;
		if (want < 5) {
			rest_want += want;
			rest_seen += seen[i];
			continue;
		}
		*x += (seen[i] - want) * (seen[i] - want) / want;
		*df += 1;
	}
	if (rest_want > 0.5) {
		*x += (rest_seen - rest_want) * (rest_seen - rest_want) / rest_want;
		*df += 1;
	}
}

/* Runs n sequences over PROMPTS prompts; how far chi-square lies above its mean. `warmer` is added to the
 * temperature that the sequences are sampled at, not to the one that is expected. */
static double deviates(const char *spec, float temperature, float warmer, int32_t n)
{
	struct nx_err err = {0};
	struct law l[PROMPTS];
	struct outcome o;
	int32_t out = 5; /* room for drafts of three tokens and more */
	struct nx_request *reqs = calloc((size_t)n, sizeof(*reqs));
	ck_assert_ptr_nonnull(reqs);
	for (int w = 0; w < PROMPTS; w++)
		law_make(&l[w], temperature, w);
	for (int32_t i = 0; i < n; i++)
		reqs[i] = (struct nx_request){.id = (uint32_t)i,
		                              .prompt = l[i % PROMPTS].prompt,
		                              .n_prompt = PROMPT,
		                              .max_out = out,
		                              .samples = 1,
		                              .ignore_eos = true,
		                              .sampler = {.temperature = temperature + warmer,
		                                          .top_p = 1,
		                                          .top_k = K,
		                                          .seed = 5}};
	struct request_set set = {.reqs = reqs, .n = n};
	struct run_options many = {.batch_size = 64, .invariant = true, .plan_ahead = true};
	outcome_init(&o, &fx, n, 1, out, false);
	ck_assert_msg(run_stack(&fx, spec, &set, &many, &o, &err) == 0, "%s: %s", spec, err.msg);
	double x = 0;
	int df = 0;
	for (int w = 0; w < PROMPTS; w++)
		add_chi_square(&l[w], &o, w, &x, &df);
	ck_assert_int_ge(df, 10);
	if (getenv("NEXUS_TEST_PRINT"))
		printf("%s at temperature %g: chi-square %.1f, df %d, %lld of %lld drafted rows accepted\n",
		       spec, (double)temperature, x, df, (long long)o.n_accepted,
		       (long long)(o.rows[NX_ROW_CANDIDATE] + o.rows[NX_ROW_PROBE]));
	outcome_release(&o);
	free(reqs);
	return (x - df) / sqrt(2.0 * df);
}

/* Standard deviations above the mean; chi-square is skewed, but with 10 degrees of freedom and more fewer than one
 * honest run in a million gets there. */
#define CRITICAL 8.0

static const char *const drawn[] = {
	"", /* no draft: the harness of the test itself */
	"prompt_lookup:num_tokens=3:ngram_min=1",
	"draft_noise:sampled=true:shape=chain",
	"draft_noise:sampled=true:shape=siblings:rows=3",
	"draft_noise:sampled=true:shape=tree:rows=7",
	"draft_noise:sampled=true:reduced=true:shape=tree:rows=7",
	"draft_noise:sampled=false:shape=siblings:rows=3",
	"draft_tree:width=3:pause=0",
	"draft_tree:width=2:temperature=0.5:pause=0.3,paged_attention:block_size=4",
};

START_TEST(sampled_output_keeps_its_law)
{
	char spec[256];
	const char *draft = drawn[_i / 2];
	float temperature = _i % 2 ? 3 : 1;
	int32_t n = getenv("NEXUS_TEST_LONG") ? 24000 : 1800;
	snprintf(spec, sizeof(spec), "continuous_batching,flash_attention%s%s", *draft ? "," : "",
	         draft);
	double d = deviates(spec, temperature, 0, n);
	ck_assert_msg(d < CRITICAL, "%s at temperature %g: chi-square is %.1f deviates off", spec,
	              (double)temperature, d);
}
END_TEST

/* top_k keeps the same tokens at another temperature, so only their shares tell. */
START_TEST(a_wrong_law_is_caught)
{
	ck_assert_double_gt(deviates("continuous_batching,flash_attention", 3, 1, 3000), CRITICAL);
}
END_TEST

/* ---- verdicts that are given */

static void replayed(struct nx_override verdict, int32_t drafted, struct outcome *o)
{
	struct nx_err err = {0};
	struct request_set reqs;
	const struct nx_replay_round round = {.drafted = drafted, .verdict = verdict};
	const struct nx_replay replay = {.rounds = &round, .n_rounds = 1};
	struct run_options opt = {.batch_size = 4, .invariant = true, .replay = &replay};
	requests_make(&reqs, &fx, 8, 10, 30, 25, 25, 1, 0, 4);
	outcome_init(o, &fx, 8, 1, 25, false);
	ck_assert_msg(run_stack(&fx, "continuous_batching,draft_tree:width=2:pause=0", &reqs, &opt,
	                        o, &err) == 0,
	              "%s", err.msg);
	ck_assert_int_eq(o->n_finished, 8);
	for (int i = 0; i < 8; i++)
		ck_assert_int_eq(o->n_out[i], 25);
	requests_release(&reqs);
}

START_TEST(a_verdict_that_is_given_is_obeyed_and_the_work_is_done)
{
	struct outcome none, deep, leaf, few;
	replayed((struct nx_override){NX_OVERRIDE_LEAF, -1}, 5, &none);
	ck_assert_int_eq(none.n_accepted, 0);
	/* 24 later outputs a request, one a round, nearly all with whole drafts. */
	ck_assert_int_gt(none.rows[NX_ROW_CANDIDATE], 8 * 20 * 4);
	ck_assert_int_eq(none.n_replayed, none.n_drafting);

	/* Two levels accepted: three tokens in each of seven rounds; then three outputs are left and two rows may
	 * be drafted, which are one level, and the last output has a round without a draft. */
	replayed((struct nx_override){NX_OVERRIDE_DEPTH, 2}, 5, &deep);
	ck_assert_int_eq(deep.n_accepted, 8 * 15);
	/* Row 1 is the second child of the root. */
	replayed((struct nx_override){NX_OVERRIDE_LEAF, 1}, 5, &leaf);
	ck_assert_int_eq(leaf.n_accepted, 8 * 12);
	/* Fewer drafted rows, as the trace says. */
	replayed((struct nx_override){NX_OVERRIDE_DEPTH, 1}, 1, &few);
	ck_assert_int_eq(few.n_accepted, 8 * 12);
	ck_assert_int_eq(few.rows[NX_ROW_CANDIDATE], 8 * 12);
	outcome_release(&none);
	outcome_release(&deep);
	outcome_release(&leaf);
	outcome_release(&few);
}
END_TEST

/* ---- ends */

static const char *const drafters[] = {"prompt_lookup:num_tokens=6:ngram_min=1",
                                       "draft_tree:pause=0", "draft_oracle:hit=1:pause=0"};

/* What ends in the middle of an accepted span ends there: at an end token, at max_out, at the context's end. */
START_TEST(a_sequence_ends_where_it_ends_without_a_draft)
{
	struct nx_err err = {0};
	struct request_set reqs;
	struct outcome want, got;
	int32_t n = 40, early = 0;
	char spec[256];
	requests_make(&reqs, &fx, n, 4, 40, 60, 90, 1, 4.0f, 21);
	requests_share(&reqs, 20);
	for (int32_t i = 0; i < n; i++)
		reqs.reqs[i].ignore_eos = false;
	outcome_init(&want, &fx, n, 1, 90, false);
	outcome_init(&got, &fx, n, 1, 90, false);
	struct run_options one = {.batch_size = 1, .invariant = true, .max_len = 130},
			   many = {.batch_size = 7,
	                           .invariant = true,
	                           .plan_ahead = _i & 1,
	                           .max_len = 130};
	snprintf(spec, sizeof(spec), "continuous_batching,paged_attention:block_size=8,%s",
	         drafters[_i / 2]);
	/* Greedy where drafts are drawn: then the tokens do not depend on the draft. */
	for (int32_t i = 0; strstr(spec, "draft_tree") && i < n; i++)
		reqs.reqs[i].sampler.temperature = 0;
	ck_assert_msg(run_stack(&fx, "", &reqs, &one, &want, &err) == 0, "%s", err.msg);
	ck_assert_msg(run_stack(&fx, spec, &reqs, &many, &got, &err) == 0, "%s: %s", spec, err.msg);
	for (int32_t i = 0; i < n; i++) {
		ck_assert_int_eq(want.n_out[i], got.n_out[i]);
		ck_assert_int_eq(memcmp(want.tokens + i * 90, got.tokens + i * 90,
		                        sizeof(int32_t) * (size_t)want.n_out[i]),
		                 0);
		early += want.n_out[i] < reqs.reqs[i].max_out;
	}
	if (!strstr(spec, "draft_tree"))
		ck_assert_int_gt(early, 0);
	ck_assert_int_gt(got.n_accepted, 0);
	outcome_release(&want);
	outcome_release(&got);
	requests_release(&reqs);
}
END_TEST

START_TEST(a_drafter_over_no_cache_is_refused)
{
	struct test_stack st;
	struct nx_err err = {0};
	test_stack_make(&st, &fx, "no_cache,prompt_lookup");
	ck_assert_int_eq(nx_stack_check(&st.stack, &err), NX_ECONFLICT);
	ck_assert_ptr_nonnull(strstr(err.msg, "no_cache"));
	ck_assert_ptr_nonnull(strstr(err.msg, "prompt_lookup"));
}
END_TEST

int main(void)
{
	Suite *s = suite_create("drafts");
	/* The law is that of the release build; sanitized, two drafts show that nothing is touched that should not be. */
	int laws = 2 * COUNT(drawn);
#ifdef __SANITIZE_ADDRESS__
	laws = getenv("NEXUS_TEST_LONG") ? laws : 6;
#endif
	const struct {
		const char *name;
		void (*open)(void);
	} on[] = {{"cpu", open_cpu}, {"late", open_late}};
	for (int i = 0; i < COUNT(on); i++) {
		TCase *t = tcase_create(on[i].name);
		tcase_add_checked_fixture(t, on[i].open, close_it);
		tcase_set_timeout(t, 300);
		if (i == 0) {
			tcase_add_loop_test(t, sampled_output_keeps_its_law, 0, laws);
			tcase_add_test(t, a_wrong_law_is_caught);
			tcase_add_test(t, a_drafter_over_no_cache_is_refused);
		}
		tcase_add_test(t, a_verdict_that_is_given_is_obeyed_and_the_work_is_done);
		tcase_add_loop_test(t, a_sequence_ends_where_it_ends_without_a_draft, 0,
		                    2 * COUNT(drafters));
		suite_add_tcase(s, t);
	}
	SRunner *r = srunner_create(s);
	srunner_run_all(r, CK_NORMAL);
	int failed = srunner_ntests_failed(r);
	srunner_free(r);
	return failed != 0;
}
