/* SPDX-License-Identifier: Apache-2.0
 *
 * test/test_prefix.c: what a prefix cache saves, over blocks and over contiguous runs, how it makes room, and what
 * a drafter gets back after a hit. That the tokens stay the same is test_stacks.c's.
 */
#include <check.h>
#include <stdlib.h>
#include <string.h>

#include "engine_fixture.h"

static struct fixture fx;

static void open_it(void)
{
	fixture_open(&fx, NX_F32, "auto", true, 2);
}

static void close_it(void)
{
	fixture_close(&fx);
}

#define SHARED 40
#define OWN 7
#define OUT 5

/* n requests of SHARED + OWN tokens; the first SHARED are everybody's. */
static void chats(struct request_set *s, int32_t n)
{
	requests_make(s, &fx, n, SHARED + OWN, SHARED + OWN, OUT, OUT, 1, 0, 9);
	for (int32_t i = 1; i < n; i++)
		memcpy((int32_t *)(uintptr_t)s->reqs[i].prompt, s->reqs[0].prompt,
		       SHARED * sizeof(int32_t));
}

static void run(const char *spec, int32_t n, int32_t batch, struct outcome *o)
{
	struct nx_err err = {0};
	struct request_set reqs;
	struct run_options opt = {.batch_size = batch, .invariant = true};
	chats(&reqs, n);
	outcome_init(o, &fx, n, 1, OUT, false);
	ck_assert_msg(run_stack(&fx, spec, &reqs, &opt, o, &err) == 0, "%s: %s", spec, err.msg);
	ck_assert_int_eq(o->n_finished, n);
	requests_release(&reqs);
}

static const char *const layouts[] = {
	"paged_attention:block_size=8,prefix_donor",
	"paged_attention:block_size=5,prefix_donor",
	"kv_cache:reserve=exact,prefix_donor:block_size=8",
	"prefix_donor:block_size=8",
	"paged_attention:block_size=8,prefix_donor,codec_group:window=8",
	"paged_attention:block_size=8,prefix_donor,codec_row",
};
static const int32_t blocks[] = {8, 5, 8, 8, 8, 8};

/* One at a time: all but the first find the shared part, to the block. */
START_TEST(a_shared_prefix_is_computed_once)
{
	struct outcome o;
	int32_t n = 6, bs = blocks[_i], hit = SHARED / bs * bs;
	run(layouts[_i], n, 1, &o);
	int64_t all = (int64_t)n * (SHARED + OWN + OUT - 1);
	ck_assert_int_eq(o.rows[NX_ROW_COMMIT], all - (int64_t)(n - 1) * hit);
	outcome_release(&o);
}
END_TEST

START_TEST(a_prompt_that_is_cached_whole_still_computes_one_token)
{
	struct nx_err err = {0};
	struct outcome o;
	struct request_set reqs;
	struct run_options opt = {.batch_size = 1, .invariant = true};
	chats(&reqs, 2);
	reqs.reqs[1].prompt = reqs.reqs[0].prompt;
	reqs.reqs[0].n_prompt = reqs.reqs[1].n_prompt = 40; /* five blocks, no rest */
	outcome_init(&o, &fx, 2, 1, OUT, false);
	ck_assert_msg(run_stack(&fx, "paged_attention:block_size=8,prefix_donor", &reqs, &opt, &o,
	                        &err) == 0,
	              "%s", err.msg);
	ck_assert_int_eq(o.rows[NX_ROW_COMMIT], 2 * (40 + OUT - 1) - 32);
	ck_assert_int_eq(memcmp(o.tokens, o.tokens + OUT, OUT * sizeof(int32_t)), 0);
	outcome_release(&o);
	requests_release(&reqs);
}
END_TEST

/* The pool holds little more than one request: the cache has to give way, and everything still ends. */
START_TEST(a_cache_makes_room_under_pressure)
{
	struct nx_err err = {0};
	struct request_set reqs;
	struct outcome o;
	struct run_options opt = {.batch_size = 4, .invariant = true};
	requests_make(&reqs, &fx, 12, 30, 60, 5, 20, 1, 0, 31);
	outcome_init(&o, &fx, 12, 1, 20, false);
	ck_assert_msg(run_stack(&fx,
	                        "continuous_batching,paged_attention:block_size=4:num_blocks=24,"
	                        "prefix_donor",
	                        &reqs, &opt, &o, &err) == 0,
	              "%s", err.msg);
	ck_assert_int_eq(o.n_finished, 12);
	ck_assert_double_gt(last_counter("prefix_donor.evicted"), 0);
	outcome_release(&o);
	requests_release(&reqs);
}
END_TEST

/* After a hit the drafter lacks the feature of the last row that was found: it is done again. */
START_TEST(a_drafter_gets_its_feature_back_after_a_hit)
{
	struct outcome o;
	run("paged_attention:block_size=8,prefix_donor,draft_tree:pause=0", 6, 1, &o);
	ck_assert_int_eq(o.rows[NX_ROW_REDO], 5);
	/* The drafter's own rows may trail: fewer blocks were shared than without it, but some were. */
	ck_assert_int_lt(o.rows[NX_ROW_COMMIT], 6 * (SHARED + OWN) + 1);
	outcome_release(&o);
}
END_TEST

/* A reset forgets everything: the start state of a trial. */
START_TEST(a_reset_engine_is_cold)
{
	struct test_stack st;
	struct nx_engine *e = NULL;
	struct nx_err err = {0};
	struct request_set reqs;
	test_stack_make(&st, &fx, "paged_attention:block_size=8,prefix_donor");
	chats(&reqs, 3);
	struct nx_engine_config cfg = {.weights = fx.weights,
	                               .stack = &st.stack,
	                               .batch_size = 1,
	                               .samples = 1,
	                               .longest_request = SHARED + OWN + OUT,
	                               .check = true};
	ck_assert_msg(nx_engine_create(&e, &cfg, &err) == 0, "%s", err.msg);
	ck_assert_int_eq(nx_engine_cold_check(e, &err), 0);
	ck_assert_msg(nx_engine_run(e, reqs.reqs, 3, NULL, &err) == 0, "%s", err.msg);
	ck_assert_int_eq(nx_engine_idle_check(e, &err), 0);
	ck_assert_int_ne(nx_engine_cold_check(e, &err), 0);
	ck_assert_msg(strstr(err.msg, "prefix_donor") != NULL, "%s", err.msg);
	nx_engine_reset(e);
	ck_assert_msg(nx_engine_cold_check(e, &err) == 0, "%s", err.msg);
	nx_engine_destroy(e);
	requests_release(&reqs);
}
END_TEST

/* Rows that a layout drops are gone from memory, and the output goes on. */
START_TEST(a_layout_that_drops_rows_holds_no_more_than_it_says)
{
	struct nx_err err = {0};
	struct request_set reqs;
	struct outcome o;
	struct run_options opt = {.batch_size = 1, .invariant = true};
	requests_make(&reqs, &fx, 1, 20, 20, 120, 120, 1, 0, 8);
	outcome_init(&o, &fx, 1, 1, 120, false);
	ck_assert_msg(run_stack(&fx, "kv_sinks:sinks=4:window=16", &reqs, &opt, &o, &err) == 0,
	              "%s", err.msg);
	ck_assert_int_eq(o.n_out[0], 120);
	ck_assert_int_lt(o.kv_held_peak, 64);
	outcome_release(&o);
	requests_release(&reqs);
}
END_TEST

int main(void)
{
	Suite *s = suite_create("prefix");
	TCase *t = tcase_create("prefix");
	tcase_add_checked_fixture(t, open_it, close_it);
	tcase_set_timeout(t, 120);
	tcase_add_loop_test(t, a_shared_prefix_is_computed_once, 0,
	                    (int)(sizeof(layouts) / sizeof(layouts[0])));
	tcase_add_test(t, a_prompt_that_is_cached_whole_still_computes_one_token);
	tcase_add_test(t, a_cache_makes_room_under_pressure);
	tcase_add_test(t, a_drafter_gets_its_feature_back_after_a_hit);
	tcase_add_test(t, a_reset_engine_is_cold);
	tcase_add_test(t, a_layout_that_drops_rows_holds_no_more_than_it_says);
	suite_add_tcase(s, t);
	SRunner *r = srunner_create(s);
	srunner_run_all(r, CK_NORMAL);
	int failed = srunner_ntests_failed(r);
	srunner_free(r);
	return failed != 0;
}
