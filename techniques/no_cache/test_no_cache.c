/* SPDX-License-Identifier: Apache-2.0
 *
 * test_no_cache.c: keeps nothing, asks for no more than the step needs.
 */
#include <check.h>
#include <stdlib.h>
#include <string.h>

#include "fake_host.h"

START_TEST(it_keeps_nothing_between_steps)
{
	struct fake_host f;
	struct nx_err err = {0};
	struct nx_kv_geometry g;
	struct nx_kv_demand d = {
		.max_seqs = 4, .max_len = 256, .budget_rows = INT64_MAX, .longest_request = 100};
	fake_host_open(&f, "no_cache", "", 4);
	const struct nx_technique *t = f.plugin.technique;
	ck_assert_int_eq(t->kv_geometry(f.self, &d, &g, &err), 0);
	ck_assert(!g.keep && !g.blocks);
	ck_assert_int_eq(g.n_rows, 400);
	struct nx_kv_want w = {.rows = 33, .n_prompt = 20, .max_out = 80, .max_len = 256};
	ck_assert_int_eq(t->kv_target(f.self, &w), 100);
	fake_host_close(&f);
}
END_TEST

START_TEST(it_counts_what_a_cache_would_have_saved)
{
	struct fake_host f;
	fake_host_open(&f, "no_cache", "", 4);
	struct nx_seq_event e = {.kind = NX_EVENT_COMMIT, .arg = 50};
	f.plugin.technique->event(f.self, &e);
	ck_assert_double_eq(fake_host_counter(&f, "rows_again"), 49);
	f.plugin.technique->reset(f.self);
	ck_assert_double_eq(fake_host_counter(&f, "rows_again"), 0);
	fake_host_close(&f);
}
END_TEST

int main(void)
{
	Suite *s = suite_create("no_cache");
	TCase *tc = tcase_create("no_cache");
	tcase_add_test(tc, it_keeps_nothing_between_steps);
	tcase_add_test(tc, it_counts_what_a_cache_would_have_saved);
	suite_add_tcase(s, tc);
	SRunner *r = srunner_create(s);
	srunner_run_all(r, CK_NORMAL);
	int failed = srunner_ntests_failed(r);
	srunner_free(r);
	return failed != 0;
}
