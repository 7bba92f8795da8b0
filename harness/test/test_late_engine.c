/* SPDX-License-Identifier: Apache-2.0
 *
 * test/test_late_engine.c: on the late device the engine has the tokens and logits that it has on the CPU
 * device. An engine that reads device memory, or uses a host buffer again before a wait, does not.
 */
#include <check.h>
#include <stdlib.h>
#include <string.h>

#include "engine_fixture.h"

#define COUNT(a) ((int)(sizeof(a) / sizeof((a)[0])))

static struct fixture cpu, late;

static void open_both(void)
{
	fixture_open_on(&cpu, "cpu", NX_F32, "auto", true, 2);
	fixture_open_on(&late, "late", NX_F32, "auto", true, 2);
}

static void close_both(void)
{
	fixture_close(&late);
	fixture_close(&cpu);
}

/* Each schedule, layout and attention, with joins, sharing and both kinds of preemption. */
static const char *const stacks[] = {
	"",
	"no_cache",
	"kv_cache:reserve=exact,flash_attention:kv_chunk=16",
	"paged_attention:block_size=16,flash_attention",
	"continuous_batching",
	"continuous_batching,no_cache,flash_attention",
	"continuous_batching,kv_cache:reserve=exact",
	"continuous_batching,paged_attention:block_size=5:num_blocks=44",
	"continuous_batching,paged_attention:block_size=1:num_blocks=220:preempt=swap,flash_attention",
	"continuous_batching:policy=priority,paged_attention:block_size=7:num_blocks=32:preempt=swap:"
	"swap_blocks=12,flash_attention:kv_chunk=16",
	"continuous_batching:policy=shortest:max_batch_size=3,paged_attention:block_size=16",
};

static void same(const char *spec, int32_t batch, int32_t samples, float temperature,
                 bool plan_ahead, bool logits, bool graphs)
{
	struct nx_err err = {0};
	struct request_set reqs;
	struct outcome want, got;
	int32_t n = 2 * batch + 3;
	struct run_options o = {.batch_size = batch, .invariant = true, .plan_ahead = plan_ahead};
	requests_make(&reqs, &cpu, n, 1, 60, 1, 30, samples, temperature, 17);
	outcome_init(&want, &cpu, n, samples, 30, logits);
	outcome_init(&got, &late, n, samples, 30, logits);
	ck_assert_msg(run_stack(&cpu, spec, &reqs, &o, &want, &err) == 0, "%s: %s", spec, err.msg);
	char launched[512];
	snprintf(launched, sizeof(launched), "%s%s%s", spec, *spec && graphs ? "," : "",
	         graphs ? "cuda_graph:max_graphs=4:key_bucket=16" : "");
	ck_assert_msg(run_stack(&late, launched, &reqs, &o, &got, &err) == 0, "%s: %s", launched,
	              err.msg);
	size_t m = (size_t)n * (size_t)samples;
	ck_assert_int_eq(got.n_finished, (int32_t)m);
	ck_assert_int_eq(got.n_steps, want.n_steps);
	ck_assert_int_eq(got.n_preempted, want.n_preempted);
	ck_assert_msg(memcmp(want.n_out, got.n_out, m * sizeof(*want.n_out)) == 0 &&
	                      memcmp(want.tokens, got.tokens, m * 30 * sizeof(*want.tokens)) == 0,
	              "%s (plan_ahead %d): tokens differ", spec, plan_ahead);
	if (logits)
		ck_assert_msg(memcmp(want.logits, got.logits,
		                     m * 30 * (size_t)want.vocab * sizeof(float)) == 0,
		              "%s: logits differ", spec);
	outcome_release(&want);
	outcome_release(&got);
	requests_release(&reqs);
}

START_TEST(the_engine_has_the_tokens_of_the_cpu_device)
{
	const char *spec = stacks[_i / 2];
	bool plan_ahead = _i % 2;
	same(spec, 8, 1, 0, plan_ahead, !plan_ahead, !plan_ahead);
	same(spec, 3, 4, 0.8f, plan_ahead, false, plan_ahead);
}
END_TEST

int main(void)
{
	Suite *s = suite_create("late_engine");
	TCase *engine = tcase_create("engine");
	tcase_add_checked_fixture(engine, open_both, close_both);
	tcase_set_timeout(engine, 300);
	tcase_add_loop_test(engine, the_engine_has_the_tokens_of_the_cpu_device, 0,
	                    2 * COUNT(stacks));
	suite_add_tcase(s, engine);
	SRunner *r = srunner_create(s);
	srunner_run_all(r, CK_NORMAL);
	int failed = srunner_ntests_failed(r);
	srunner_free(r);
	return failed != 0;
}
