/* SPDX-License-Identifier: Apache-2.0
 *
 * test/test_stacks.c: in invariant mode, the output of every stack of the real and the test-only techniques is
 * token-identical to its own numerics run one sequence at a time, and so are the logits; on the CPU device and on
 * the late one. make test takes a set of stacks that has every pair of entries of two slots, make test-long all.
 */
#include <check.h>
#include <stdlib.h>
#include <string.h>

#include "engine_fixture.h"
#include "stack_axes.h"

#define ALL_AXES ((1u << AXIS_COUNT) - 1)
#define CASES 16 /* the stacks are dealt to so many tests, which Check can report one by one */

static struct fixture fx;
static struct stack_choice *stacks;
static size_t n_stacks;

static bool legal(void *ctx, const struct stack_choice *c)
{
	struct test_stack st;
	struct nx_err err = {0};
	struct nx_engine *e = NULL;
	char spec[512];
	(void)ctx;
	stack_spec(spec, sizeof(spec), c, ALL_AXES);
	test_stack_make(&st, &fx, spec);
	struct nx_engine_config cfg = {.weights = fx.weights,
	                               .stack = &st.stack,
	                               .batch_size = 8,
	                               .samples = 1,
	                               .longest_request = 90};
	int rc = nx_stack_check(&st.stack, &err);
	if (rc) {
		/* What is refused is refused in one sentence, before anything runs. */
		ck_assert_int_eq(rc, NX_ECONFLICT);
		return false;
	}
	/* Geometry may refuse, too: blocks that are no multiple of a codec's group. */
	rc = nx_engine_create(&e, &cfg, &err);
	ck_assert_msg(rc == 0 || rc == NX_ECONFLICT, "%s: %s", spec, err.msg);
	nx_engine_destroy(e);
	return rc == 0;
}

static void assert_same(const struct outcome *want, const struct outcome *got, const char *spec)
{
	for (int32_t i = 0; i < want->n_requests * want->samples; i++) {
		ck_assert_msg(want->n_out[i] == got->n_out[i],
		              "%s: request %d sample %d has %d tokens, reference %d", spec,
		              i / want->samples, i % want->samples, got->n_out[i], want->n_out[i]);
		for (int32_t t = 0; t < want->n_out[i]; t++) {
			size_t at = (size_t)i * (size_t)want->max_out + (size_t)t;
			ck_assert_msg(want->tokens[at] == got->tokens[at],
			              "%s: request %d sample %d differs at token %d: %d, "
			              "reference %d",
			              spec, i / want->samples, i % want->samples, t,
			              got->tokens[at], want->tokens[at]);
			if (want->logits && got->logits)
				ck_assert_msg(memcmp(want->logits + at * (size_t)want->vocab,
				                     got->logits + at * (size_t)want->vocab,
				                     (size_t)want->vocab * sizeof(float)) == 0,
				              "%s: logits of request %d token %d differ", spec,
				              i / want->samples, t);
		}
	}
}

struct setting {
	int32_t batch, samples;
	float temperature;
	bool plan_ahead, logits;
	uint64_t seed;
};

static void compare(const struct stack_choice *c, const struct setting *s)
{
	struct nx_err err = {0};
	struct request_set reqs;
	struct outcome want, got;
	char spec[512], reference[512];
	int32_t n = s->batch < 24 ? s->batch * 2 + 3 : s->batch + 5;
	stack_spec(spec, sizeof(spec), c, ALL_AXES);
	stack_spec(reference, sizeof(reference), c, stack_reference_mask(c));
	requests_make(&reqs, &fx, n, 1, 60, 1, 30, s->samples, s->temperature, s->seed);
	requests_share(&reqs, 24);
	outcome_init(&want, &fx, n, s->samples, 30, s->logits);
	outcome_init(&got, &fx, n, s->samples, 30, s->logits);
	struct run_options one = {.batch_size = 1, .invariant = true},
			   many = {.batch_size = s->batch,
	                           .invariant = true,
	                           .plan_ahead = s->plan_ahead};
	ck_assert_msg(run_stack(&fx, reference, &reqs, &one, &want, &err) == 0, "reference %s: %s",
	              reference, err.msg);
	ck_assert_msg(run_stack(&fx, spec, &reqs, &many, &got, &err) == 0, "%s: %s", spec, err.msg);
	assert_same(&want, &got, spec);
	ck_assert_int_eq(got.n_finished, n * s->samples);
	if (getenv("NEXUS_TEST_STACK"))
		printf("%s, batch %d x %d: %lld steps, %lld candidates, %lld accepted, %lld preempted\n",
		       spec, s->batch, s->samples, (long long)got.n_steps,
		       (long long)got.rows[NX_ROW_CANDIDATE], (long long)got.n_accepted,
		       (long long)got.n_preempted);
	outcome_release(&want);
	outcome_release(&got);
	requests_release(&reqs);
}

static void each(const struct stack_choice *c, uint64_t seed)
{
	compare(c, &(struct setting){8, 1, 0, seed & 1, true, seed});
	compare(c, &(struct setting){3, 4, 0, !(seed & 1), false, seed + 100});
	if (!stack_draws_drafts(c))
		compare(c, &(struct setting){5, 2, 0.9f, true, false, seed + 200});
	if (!getenv("NEXUS_TEST_LONG"))
		return;
	compare(c, &(struct setting){1, 1, 0, true, false, seed + 300});
	compare(c, &(struct setting){16, 1, 0, true, false, seed + 400});
}

static void open_on(const char *device, enum nx_dtype dtype)
{
	fixture_open_on(&fx, device, dtype, "auto", true, 2);
}

static void open_cpu(void)
{
	open_on("cpu", NX_F32);
}

static void open_late(void)
{
	open_on("late", NX_F32);
}

static void open_bf16(void)
{
	open_on("cpu", NX_BF16);
}

static void close_it(void)
{
	fixture_close(&fx);
}

/* Once, before the tests fork: each of them then knows the list. */
static void list_stacks(void)
{
	if (stacks)
		return;
	open_cpu();
	n_stacks = getenv("NEXUS_TEST_LONG") ? stacks_all(&stacks, legal, NULL)
	                                     : stacks_pairwise(&stacks, legal, NULL);
	close_it();
	ck_assert_uint_gt(n_stacks, 0);
	printf("%zu stacks\n", n_stacks);
}

START_TEST(every_stack_has_the_tokens_of_its_reference)
{
	for (size_t i = (size_t)_i; i < n_stacks; i += CASES)
		each(&stacks[i], i);
}
END_TEST

/* One stack, named in the environment: for whoever looks for a fault. */
START_TEST(the_stack_of_the_environment)
{
	const char *only = getenv("NEXUS_TEST_STACK");
	for (size_t i = 0; only && i < n_stacks; i++) {
		char spec[512];
		stack_spec(spec, sizeof(spec), &stacks[i], ALL_AXES);
		if (strcmp(spec, only) == 0)
			each(&stacks[i], i);
	}
}
END_TEST

int main(void)
{
	Suite *s = suite_create("stacks");
	const struct {
		const char *name;
		void (*open)(void);
		int cases;
	} on[] = {{"cpu", open_cpu, CASES}, {"late", open_late, CASES}, {"bf16", open_bf16, 4}};
	for (size_t i = 0; i < sizeof(on) / sizeof(on[0]); i++) {
		TCase *t = tcase_create(on[i].name);
		tcase_add_unchecked_fixture(t, list_stacks, NULL);
		tcase_add_checked_fixture(t, on[i].open, close_it);
		tcase_set_timeout(t, 900);
		tcase_add_loop_test(t, every_stack_has_the_tokens_of_its_reference, 0, on[i].cases);
		if (getenv("NEXUS_TEST_STACK"))
			tcase_add_test(t, the_stack_of_the_environment);
		suite_add_tcase(s, t);
	}
	SRunner *r = srunner_create(s);
	srunner_run_all(r, CK_NORMAL);
	int failed = srunner_ntests_failed(r);
	srunner_free(r);
	free(stacks);
	return failed != 0;
}
