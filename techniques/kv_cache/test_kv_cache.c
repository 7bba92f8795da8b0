/* SPDX-License-Identifier: Apache-2.0
 *
 * test_kv_cache.c: the two reservations and what they refuse.
 */
#include <check.h>
#include <stdlib.h>
#include <string.h>

#include "fake_host.h"

static int32_t target(const char *values, int32_t rows)
{
	struct fake_host f;
	fake_host_open(&f, "kv_cache", values, 4);
	struct nx_kv_want w = {.rows = rows, .n_prompt = 20, .max_out = 30, .max_len = 256};
	int32_t t = f.plugin.technique->kv_target(f.self, &w);
	fake_host_close(&f);
	return t;
}

START_TEST(max_reserves_the_longest_length)
{
	ck_assert_int_eq(target("", 21), 256);
	ck_assert_int_eq(target("reserve=max", 21), 256);
}
END_TEST

START_TEST(exact_reserves_prompt_plus_output_and_padding)
{
	ck_assert_int_eq(target("reserve=exact", 21), 50);
	ck_assert_int_eq(target("reserve=exact", 70), 70);
}
END_TEST

START_TEST(a_budget_below_one_sequence_is_refused)
{
	struct fake_host f;
	struct nx_err err = {0};
	struct nx_kv_geometry g;
	struct nx_kv_demand d = {
		.max_seqs = 4, .max_len = 256, .budget_rows = 200, .longest_request = 100};
	fake_host_open(&f, "kv_cache", "", 4);
	ck_assert_int_eq(f.plugin.technique->kv_geometry(f.self, &d, &g, &err), NX_ENOSPC);
	ck_assert_ptr_nonnull(strstr(err.msg, "200 KV rows"));
	fake_host_close(&f);
	fake_host_open(&f, "kv_cache", "reserve=exact", 4);
	ck_assert_int_eq(f.plugin.technique->kv_geometry(f.self, &d, &g, &err), 0);
	ck_assert_int_eq(g.n_rows, 200);
	fake_host_close(&f);
}
END_TEST

int main(void)
{
	Suite *s = suite_create("kv_cache");
	TCase *tc = tcase_create("kv_cache");
	tcase_add_test(tc, max_reserves_the_longest_length);
	tcase_add_test(tc, exact_reserves_prompt_plus_output_and_padding);
	tcase_add_test(tc, a_budget_below_one_sequence_is_refused);
	suite_add_tcase(s, tc);
	SRunner *r = srunner_create(s);
	srunner_run_all(r, CK_NORMAL);
	int failed = srunner_ntests_failed(r);
	srunner_free(r);
	return failed != 0;
}
