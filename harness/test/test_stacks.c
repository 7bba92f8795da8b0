/* SPDX-License-Identifier: Apache-2.0
 *
 * test/test_stacks.c: in invariant mode, the output of every stack of the real and the test-only techniques is
 * token-identical to its own numerics run one sequence at a time, and so are the logits; on the CPU device and on
 * the late one. make test takes a set of stacks that has every pair of entries of two slots; make test-long every
 * stack of techniques beside it.
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
	bool logits;
	uint64_t seed;
};

/* References are computed once for each of their stacks and settings: many stacks share them. */
static struct kept {
	char key[640];
	struct request_set reqs;
	struct outcome want;
} * kept;
static size_t n_kept;

static const struct kept *reference_of(const struct stack_choice *c, const struct setting *s)
{
	struct nx_err err = {0};
	struct run_options one = {.batch_size = 1, .invariant = true};
	char spec[512], key[640];
	int32_t n = s->batch + 6;
	stack_spec(spec, sizeof(spec), c, stack_reference_mask(c));
	snprintf(key, sizeof(key), "%s|%d %d %g %d %llu", spec, s->batch, s->samples,
	         (double)s->temperature, s->logits, (unsigned long long)s->seed);
	for (size_t i = 0; i < n_kept; i++)
		if (strcmp(kept[i].key, key) == 0)
			return &kept[i];
	kept = realloc(kept, (n_kept + 1) * sizeof(*kept));
	ck_assert_ptr_nonnull(kept);
	struct kept *k = &kept[n_kept++];
	memcpy(k->key, key, sizeof(key));
	requests_make(&k->reqs, &fx, n, 1, 60, 1, 30, s->samples, s->temperature, s->seed);
	requests_share(&k->reqs, 24);
	outcome_init(&k->want, &fx, n, s->samples, 30, s->logits);
	ck_assert_msg(run_stack(&fx, spec, &k->reqs, &one, &k->want, &err) == 0, "reference %s: %s",
	              spec, err.msg);
	return k;
}

static void forget_references(void)
{
	for (size_t i = 0; i < n_kept; i++) {
		outcome_release(&kept[i].want);
		requests_release(&kept[i].reqs);
	}
	free(kept);
	kept = NULL;
	n_kept = 0;
}

/* Where the device has graphs. Few of them and small buckets: they are made, used and given up within a run. */
static void add_graphs(char *spec, size_t size)
{
	size_t at = strlen(spec);
	snprintf(spec + at, size - at, "%scuda_graph:max_graphs=6:key_bucket=16", at ? "," : "");
}

static bool has_graphs(void)
{
	struct nx_device_info info;
	fx.dev.ops->info(fx.dev.dev, &info);
	return info.caps & NX_DEV_GRAPHS;
}

static void compare(const struct stack_choice *c, const struct setting *s, bool plan_ahead,
                    bool graphs)
{
	struct nx_err err = {0};
	struct outcome got;
	char spec[512];
	const struct kept *k = reference_of(c, s);
	struct run_options many = {
		.batch_size = s->batch, .invariant = true, .plan_ahead = plan_ahead};
	stack_spec(spec, sizeof(spec), c, ALL_AXES);
	if (graphs && has_graphs())
		add_graphs(spec, sizeof(spec));
	outcome_init(&got, &fx, k->reqs.n, s->samples, 30, s->logits);
	ck_assert_msg(run_stack(&fx, spec, &k->reqs, &many, &got, &err) == 0, "%s: %s", spec,
	              err.msg);
	assert_same(&k->want, &got, spec);
	ck_assert_int_eq(got.n_finished, k->reqs.n * s->samples);
	if (getenv("NEXUS_TEST_STACK"))
		printf("%s, batch %d x %d: %lld steps, %lld candidates, %lld accepted, %lld preempted\n",
		       spec, s->batch, s->samples, (long long)got.n_steps,
		       (long long)got.rows[NX_ROW_CANDIDATE], (long long)got.n_accepted,
		       (long long)got.n_preempted);
	outcome_release(&got);
}

/* Sanitizers make runs slow: one of the two for each stack. */
static bool only_one(void)
{
#ifdef __SANITIZE_ADDRESS__
	return !getenv("NEXUS_TEST_STACK");
#else
	return false;
#endif
}

static void each(const struct stack_choice *c, size_t i, int dealt)
{
	uint64_t seed = 1000 * (uint64_t)dealt;
	bool odd = i & 1, graphs = i & 2;
	if (!only_one() || i & 4)
		compare(c, &(struct setting){8, 1, 0, true, seed}, odd, graphs);
	if (only_one() && i & 4)
		return;
	if (!stack_draws_drafts(c))
		compare(c, &(struct setting){5, 2, 0.9f, false, seed + 1}, !odd, !graphs);
	else
		compare(c, &(struct setting){3, 4, 0, false, seed + 2}, !odd, !graphs);
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

/* NEXUS_TEST_DEVICE: a device of this machine, cuda:0 say. The test-only techniques are C: its memory has to be the
 * host's, too (NEXUS_CUDA_HOST_MEMORY). */
static void open_given(void)
{
	open_on(getenv("NEXUS_TEST_DEVICE"), NX_F32);
}

static void open_given_bf16(void)
{
	open_on(getenv("NEXUS_TEST_DEVICE"), NX_BF16);
}

static void open_bf16(void)
{
	open_on("cpu", NX_BF16);
}

static void close_it(void)
{
	forget_references();
	fixture_close(&fx);
}

/* Once, before the tests fork: each of them then knows the list. */
static void list_stacks(void)
{
	if (stacks)
		return;
	open_cpu();
	n_stacks = stacks_pairwise(&stacks, legal, NULL);
	if (getenv("NEXUS_TEST_LONG")) {
		struct stack_choice *all;
		size_t n = stacks_all(&all, true, legal, NULL);
		stacks = realloc(stacks, (n_stacks + n) * sizeof(*stacks));
		ck_assert_ptr_nonnull(stacks);
		memcpy(stacks + n_stacks, all, n * sizeof(*all));
		n_stacks += n;
		free(all);
	}
	close_it();
	ck_assert_uint_gt(n_stacks, 0);
	printf("%zu stacks\n", n_stacks);
}

START_TEST(every_stack_has_the_tokens_of_its_reference)
{
	for (size_t i = (size_t)_i; i < n_stacks; i += CASES)
		each(&stacks[i], i, _i);
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
			each(&stacks[i], i, 0);
	}
}
END_TEST

int main(void)
{
	Suite *s = suite_create("stacks");
	/* Sanitizers make this slow, and the late device is what they belong to: it has the faults that a GPU would
	 * have. The CPU's own runs are of the release build, and in make test-long the late device's there, too. */
	bool named = getenv("NEXUS_TEST_STACK"), all = named || getenv("NEXUS_TEST_LONG");
#ifdef __SANITIZE_ADDRESS__
	bool sanitized = true;
#else
	bool sanitized = false;
#endif
	bool given = getenv("NEXUS_TEST_DEVICE");
	const struct {
		const char *name;
		void (*open)(void);
		int cases;
	} on[] = {{"cpu", open_cpu, !given && (named || !sanitized) ? CASES : 0},
	          {"late", open_late, !given && (all || sanitized) ? CASES : 0},
	          {"bf16", open_bf16, !given && (named || !sanitized) ? 4 : 0},
	          {"given", open_given, given ? CASES : 0},
	          {"given_bf16", open_given_bf16, given ? 4 : 0}};
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
