/* SPDX-License-Identifier: Apache-2.0
 *
 * test_paged_attention.c: geometry, limits and counters. What blocks do is tested in the harness (store, engine).
 */
#include <check.h>
#include <stdlib.h>
#include <string.h>

#include "fake_host.h"

static int geometry(const char *values, int64_t budget, struct nx_kv_geometry *g,
                    struct nx_err *err)
{
	struct fake_host f;
	struct nx_kv_demand d = {
		.max_seqs = 4, .max_len = 256, .budget_rows = budget, .longest_request = 100};
	fake_host_open(&f, "paged_attention", values, 4);
	int rc = f.plugin.technique->kv_geometry(f.self, &d, g, err);
	fake_host_close(&f);
	return rc;
}

START_TEST(the_pool_is_sized_by_demand_or_by_the_limit)
{
	struct nx_kv_geometry g;
	struct nx_err err = {0};
	ck_assert_int_eq(geometry("", INT64_MAX, &g, &err), 0);
	ck_assert(g.blocks && g.keep);
	ck_assert_int_eq(g.block_size, 16);
	ck_assert_int_eq(g.n_rows, 4 * 7 * 16); /* 100 tokens take 7 blocks of 16 */
	ck_assert_int_eq(geometry("", 250, &g, &err), 0);
	ck_assert_int_eq(g.n_rows, 15 * 16);
	ck_assert_int_eq(geometry("num_blocks=9,block_size=32", INT64_MAX, &g, &err), 0);
	ck_assert_int_eq(g.n_rows, 288);
	ck_assert_int_eq(g.preempt, NX_PREEMPT_RECOMPUTE);
}
END_TEST

START_TEST(swap_brings_host_rows)
{
	struct nx_kv_geometry g;
	struct nx_err err = {0};
	ck_assert_int_eq(geometry("num_blocks=10,preempt=swap", INT64_MAX, &g, &err), 0);
	ck_assert_int_eq(g.preempt, NX_PREEMPT_SWAP);
	ck_assert_int_eq(g.swap_rows, 160);
	ck_assert_int_eq(geometry("num_blocks=10,preempt=swap,swap_blocks=3", INT64_MAX, &g, &err),
	                 0);
	ck_assert_int_eq(g.swap_rows, 48);
}
END_TEST

START_TEST(a_pool_below_one_request_is_refused)
{
	struct nx_kv_geometry g;
	struct nx_err err = {0};
	ck_assert_int_eq(geometry("num_blocks=6", INT64_MAX, &g, &err), NX_ENOSPC);
	ck_assert_ptr_nonnull(
		strstr(err.msg, "6 blocks of 16 tokens cannot hold one request of 100"));
	ck_assert_int_eq(geometry("num_blocks=20", 250, &g, &err), NX_ENOSPC);
	ck_assert_ptr_nonnull(strstr(err.msg, "the memory limit allows 15"));
}
END_TEST

START_TEST(blocks_are_taken_on_demand)
{
	struct fake_host f;
	fake_host_open(&f, "paged_attention", "", 4);
	struct nx_kv_want w = {.rows = 21, .n_prompt = 20, .max_out = 80, .max_len = 256};
	ck_assert_int_eq(f.plugin.technique->kv_target(f.self, &w), 21);
	struct nx_seq_event e = {.kind = NX_EVENT_PREEMPT, .arg = NX_PREEMPT_SWAP};
	f.plugin.technique->event(f.self, &e);
	ck_assert_double_eq(fake_host_counter(&f, "preempted_swap"), 1);
	ck_assert_double_eq(fake_host_counter(&f, "preempted_recompute"), 0);
	fake_host_close(&f);
}
END_TEST

int main(void)
{
	Suite *s = suite_create("paged_attention");
	TCase *tc = tcase_create("paged_attention");
	tcase_add_test(tc, the_pool_is_sized_by_demand_or_by_the_limit);
	tcase_add_test(tc, swap_brings_host_rows);
	tcase_add_test(tc, a_pool_below_one_request_is_refused);
	tcase_add_test(tc, blocks_are_taken_on_demand);
	suite_add_tcase(s, tc);
	SRunner *r = srunner_create(s);
	srunner_run_all(r, CK_NORMAL);
	int failed = srunner_ntests_failed(r);
	srunner_free(r);
	return failed != 0;
}
