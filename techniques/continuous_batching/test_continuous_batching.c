/* SPDX-License-Identifier: Apache-2.0
 *
 * test_continuous_batching.c: who joins, who waits, who is preempted.
 */
#include <check.h>
#include <stdlib.h>
#include <string.h>

#include "fake_host.h"

#define MAX 8

struct scene {
	struct fake_host f;
	struct nx_sched_seq running[MAX], waiting[MAX];
	struct nx_sched_view view;
	struct nx_grant grants[2 * MAX];
	struct nx_schedule out;
};

static void scene_open(struct scene *s, const char *values)
{
	memset(s, 0, sizeof(*s));
	fake_host_open(&s->f, "continuous_batching", values, MAX);
	s->view = (struct nx_sched_view){.running = s->running,
	                                 .waiting = s->waiting,
	                                 .batch_size = MAX,
	                                 .free_seqs = MAX,
	                                 .max_rows = 1000,
	                                 .kv_free = 1000,
	                                 .kv_total = 1000,
	                                 .split_prompt = true};
}

static void wait_for(struct scene *s, int32_t pending, int32_t priority, int32_t need,
                     int32_t max_out)
{
	s->waiting[s->view.n_waiting] =
		(struct nx_sched_seq){.request = 100u + (uint32_t)s->view.n_waiting,
	                              .phase = NX_SEQ_WAITING,
	                              .samples = 1,
	                              .pending = pending,
	                              .n_prompt = pending,
	                              .priority = priority,
	                              .max_out = max_out,
	                              .kv_need = need};
	s->view.n_waiting++;
}

static void run_with(struct scene *s, int32_t priority, int32_t max_out)
{
	s->running[s->view.n_running++] = (struct nx_sched_seq){.phase = NX_SEQ_DECODE,
	                                                        .samples = 1,
	                                                        .pending = 1,
	                                                        .n_prompt = 10,
	                                                        .n_out = 1,
	                                                        .priority = priority,
	                                                        .max_out = max_out};
	s->view.free_seqs--;
}

/* Indices of waiting sequences that joined, in order; ends with -1. */
static void schedule(struct scene *s, int32_t *joined)
{
	struct nx_err err = {0};
	int32_t n = 0;
	s->out = (struct nx_schedule){.grants = s->grants};
	ck_assert_int_eq(s->f.plugin.technique->schedule(s->f.self, &s->view, &s->out, &err), 0);
	for (int32_t i = 0; i < s->out.n_grants; i++) {
		ck_assert_int_eq(s->grants[i].pad, 0);
		if (s->grants[i].waiting)
			joined[n++] = s->grants[i].index;
	}
	joined[n] = -1;
}

START_TEST(waiting_ones_join_a_running_batch)
{
	struct scene s;
	int32_t j[MAX + 1];
	scene_open(&s, "");
	run_with(&s, 0, 10);
	run_with(&s, 0, 10);
	wait_for(&s, 30, 0, 32, 10);
	wait_for(&s, 20, 0, 32, 10);
	schedule(&s, j);
	ck_assert_int_eq(s.out.n_grants, 4);
	ck_assert(j[0] == 0 && j[1] == 1);
	ck_assert_double_eq(fake_host_counter(&s.f, "late_joins"), 2);
	fake_host_close(&s.f);
}
END_TEST

START_TEST(admission_stops_at_the_kv_budget_without_overtaking)
{
	struct scene s;
	int32_t j[MAX + 1];
	scene_open(&s, "watermark=0");
	s.view.kv_free = 100;
	wait_for(&s, 60, 0, 64, 10);
	wait_for(&s, 60, 0, 64, 10);
	wait_for(&s, 10, 0, 16, 10); /* would fit, but must not overtake */
	schedule(&s, j);
	ck_assert_int_eq(j[0], 0);
	ck_assert_int_eq(j[1], -1);
	fake_host_close(&s.f);
}
END_TEST

START_TEST(the_watermark_keeps_room_for_those_that_run)
{
	struct scene s;
	int32_t j[MAX + 1];
	scene_open(&s, "watermark=0.1");
	s.view.kv_free = 150;
	wait_for(&s, 60, 0, 64, 10);
	schedule(&s, j);
	ck_assert_int_eq(j[0], 0); /* nothing runs: no room is kept */
	run_with(&s, 0, 10);
	schedule(&s, j);
	ck_assert_int_eq(j[0], -1); /* 150 - 1 - 100 < 64 */
	fake_host_close(&s.f);
}
END_TEST

START_TEST(policies_order_the_waiting)
{
	static const struct {
		const char *values;
		int32_t first, second;
	} cases[] = {{"policy=fcfs", 0, 1}, {"policy=priority", 2, 1}, {"policy=shortest", 1, 2}};
	struct scene s;
	int32_t j[MAX + 1];
	scene_open(&s, cases[_i].values);
	wait_for(&s, 30, 0, 32, 50);
	wait_for(&s, 20, 1, 32, 5);
	wait_for(&s, 20, 2, 32, 10);
	schedule(&s, j);
	ck_assert_int_eq(j[0], cases[_i].first);
	ck_assert_int_eq(j[1], cases[_i].second);
	fake_host_close(&s.f);
}
END_TEST

START_TEST(the_victim_is_the_last_in_the_policys_order)
{
	static const struct {
		const char *values;
		int32_t victim;
	} cases[] = {{"policy=fcfs", 2}, {"policy=priority", 1}, {"policy=shortest", 0}};
	struct scene s;
	scene_open(&s, cases[_i].values);
	run_with(&s, 5, 90);
	run_with(&s, 1, 20);
	run_with(&s, 3, 10);
	ck_assert_int_eq(s.f.plugin.technique->victim(s.f.self, &s.view), cases[_i].victim);
	fake_host_close(&s.f);
}
END_TEST

START_TEST(max_batch_size_limits_who_runs)
{
	struct scene s;
	int32_t j[MAX + 1];
	scene_open(&s, "max_batch_size=2");
	run_with(&s, 0, 10);
	wait_for(&s, 10, 0, 16, 10);
	wait_for(&s, 10, 0, 16, 10);
	schedule(&s, j);
	ck_assert_int_eq(j[0], 0);
	ck_assert_int_eq(j[1], -1);
	fake_host_close(&s.f);
}
END_TEST

int main(void)
{
	Suite *s = suite_create("continuous_batching");
	TCase *tc = tcase_create("continuous_batching");
	tcase_add_test(tc, waiting_ones_join_a_running_batch);
	tcase_add_test(tc, admission_stops_at_the_kv_budget_without_overtaking);
	tcase_add_test(tc, the_watermark_keeps_room_for_those_that_run);
	tcase_add_loop_test(tc, policies_order_the_waiting, 0, 3);
	tcase_add_loop_test(tc, the_victim_is_the_last_in_the_policys_order, 0, 3);
	tcase_add_test(tc, max_batch_size_limits_who_runs);
	suite_add_tcase(s, tc);
	SRunner *r = srunner_create(s);
	srunner_run_all(r, CK_NORMAL);
	int failed = srunner_ntests_failed(r);
	srunner_free(r);
	return failed != 0;
}
