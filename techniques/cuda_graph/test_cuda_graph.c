/* SPDX-License-Identifier: Apache-2.0
 *
 * test_cuda_graph.c: what it asks of the engine. Graphs themselves are tested with the late device (test_late_engine)
 * and on a GPU.
 */
#include <check.h>
#include <stdlib.h>
#include <string.h>

#include "fake_host.h"

START_TEST(it_asks_for_graphs_and_counts)
{
	struct fake_host f;
	struct nx_err err = {0};
	struct nx_launch_plan plan = {0};
	const struct nx_launch_limits l = {.device_caps = NX_DEV_GRAPHS, .max_rows = 64};
	double values[4];
	fake_host_open(&f, "cuda_graph", "max_rows=32,max_graphs=5", 2);
	ck_assert_int_eq(f.plugin.technique->launch_plan(f.self, &l, &plan, &err), 0);
	ck_assert(plan.graphs);
	ck_assert_int_eq(plan.max_rows, 32);
	ck_assert_int_eq(plan.max_graphs, 5);
	ck_assert_int_eq(plan.key_bucket, 256);
	plan.stats->replayed = 7;
	f.plugin.technique->read_counters(f.self, values);
	ck_assert_double_eq(values[1], 7);
	f.plugin.technique->reset(f.self);
	f.plugin.technique->read_counters(f.self, values);
	ck_assert_double_eq(values[1], 0);
	fake_host_close(&f);
}
END_TEST

START_TEST(a_device_without_graphs_is_refused)
{
	struct fake_host f;
	struct nx_err err = {0};
	struct nx_probe p = {.device_kind = "cpu", .device_caps = NX_DEV_HOST_MEMORY};
	fake_host_open(&f, "cuda_graph", "", 2);
	ck_assert_int_eq(f.plugin.technique->probe(&p, &err), NX_ENOTSUP);
	ck_assert_ptr_nonnull(strstr(err.msg, "cpu has no graphs"));
	p.device_caps |= NX_DEV_GRAPHS;
	ck_assert_int_eq(f.plugin.technique->probe(&p, &err), 0);
	fake_host_close(&f);
}
END_TEST

int main(void)
{
	Suite *s = suite_create("cuda_graph");
	TCase *tc = tcase_create("cuda_graph");
	tcase_add_test(tc, it_asks_for_graphs_and_counts);
	tcase_add_test(tc, a_device_without_graphs_is_refused);
	suite_add_tcase(s, tc);
	SRunner *r = srunner_create(s);
	srunner_run_all(r, CK_NORMAL);
	int failed = srunner_ntests_failed(r);
	srunner_free(r);
	return failed != 0;
}
