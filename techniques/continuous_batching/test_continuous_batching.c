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

/* ---- longest_prefix --------------------------------------------------------------------------- */

#define MANY 300

/* A queue that one request leaves at a time, more or less. */
struct queue {
	struct fake_host f;
	struct nx_sched_seq waiting[MANY];
	struct nx_grant grants[2 * MANY];
	int32_t n, overtaken[MANY * 40]; /* by request: later arrivals that went before it */
	uint32_t arrived;
	uint32_t rng;
};

static uint32_t draw(struct queue *q, uint32_t n)
{
	q->rng = q->rng * 1664525u + 1013904223u;
	return (q->rng >> 8) % n;
}

static void arrive(struct queue *q, int32_t matched)
{
	ck_assert_int_lt(q->n, MANY);
	q->waiting[q->n++] = (struct nx_sched_seq){.request = q->arrived++,
	                                           .phase = NX_SEQ_WAITING,
	                                           .samples = 1,
	                                           .n_prompt = 100,
	                                           .pending = 100 - matched,
	                                           .matched = matched,
	                                           .max_out = 10,
	                                           .kv_need = 110};
}

static struct queue *queue_open(const char *values)
{
	struct queue *q = calloc(1, sizeof(*q));
	ck_assert_ptr_nonnull(q);
	fake_host_open(&q->f, "continuous_batching", values, MANY);
	q->rng = 7;
	return q;
}

static void queue_close(struct queue *q)
{
	fake_host_close(&q->f);
	free(q);
}

/* One step with so many free places: who joins leaves the queue, into joined. */
static int32_t serve(struct queue *q, int32_t places, uint32_t *joined)
{
	struct nx_err err = {0};
	int32_t n = 0;
	struct nx_sched_view v = {.waiting = q->waiting,
	                          .n_waiting = q->n,
	                          .batch_size = MANY,
	                          .free_seqs = places,
	                          .max_rows = 1 << 20,
	                          .kv_free = 1 << 20,
	                          .kv_total = 1 << 20,
	                          .split_prompt = true};
	struct nx_schedule out = {.grants = q->grants};
	ck_assert_int_eq(q->f.plugin.technique->schedule(q->f.self, &v, &out, &err), 0);
	for (int32_t g = 0; g < out.n_grants; g++) {
		int32_t at = q->grants[g].index;
		for (int32_t k = 0; k < at; k++)
			if (q->waiting[k].phase == NX_SEQ_WAITING)
				q->overtaken[q->waiting[k].request]++;
		ck_assert_int_eq(q->waiting[at].phase, NX_SEQ_WAITING);
		q->waiting[at].phase = NX_SEQ_HELD; /* gone, for those counted after it */
		joined[n++] = q->waiting[at].request;
	}
	int32_t left = 0;
	for (int32_t k = 0; k < q->n; k++)
		if (q->waiting[k].phase == NX_SEQ_WAITING)
			q->waiting[left++] = q->waiting[k];
	q->n = left;
	return n;
}

START_TEST(the_longest_prefix_goes_first)
{
	struct queue *q = queue_open("policy=longest_prefix");
	uint32_t j[MANY];
	const int32_t matched[] = {0, 16, 48, 16, 0};
	const uint32_t want[] = {2, 1, 3, 0, 4};
	for (int i = 0; i < 5; i++)
		arrive(q, matched[i]);
	ck_assert_int_eq(serve(q, 5, j), 5);
	for (int i = 0; i < 5; i++)
		ck_assert_uint_eq(j[i], want[i]);
	queue_close(q);
}
END_TEST

/* Whatever arrives, and however often: no request is overtaken more often than that, and all get their turn. */
START_TEST(nobody_is_overtaken_more_often_than_max_skips)
{
	static const int32_t bounds[] = {0, 1, 3, 16};
	char values[64];
	uint32_t j[MANY];
	int32_t most = 0, bound = bounds[_i], n_joined = 0;
	snprintf(values, sizeof(values), "policy=longest_prefix,max_skips=%d", bound);
	struct queue *q = queue_open(values);
	for (int step = 0; step < 3000; step++) {
		/* One in ten finds nothing, and would wait for ever. */
		for (uint32_t k = draw(q, 3); k > 0 && q->n < 100; k--)
			arrive(q, draw(q, 10) ? 1 + (int32_t)draw(q, 90) : 0);
		if (q->n)
			n_joined += serve(q, (int32_t)draw(q, 3), j);
	}
	while (q->n)
		n_joined += serve(q, 1, j);
	ck_assert_int_eq(n_joined, q->arrived);
	for (uint32_t r = 0; r < q->arrived; r++)
		most = q->overtaken[r] > most ? q->overtaken[r] : most;
	ck_assert_int_eq(most, bound); /* it is reached, too: the queue was long enough */
	queue_close(q);
}
END_TEST

START_TEST(preempted_ones_go_before_any_prefix)
{
	struct queue *q = queue_open("policy=longest_prefix");
	uint32_t j[MANY];
	arrive(q, 0);
	q->waiting[0].n_preempted = 1;
	arrive(q, 90);
	ck_assert_int_eq(serve(q, 1, j), 1);
	ck_assert_uint_eq(j[0], 0);
	queue_close(q);
}
END_TEST

START_TEST(a_long_queue_is_served_as_it_arrived)
{
	struct queue *q = queue_open("policy=longest_prefix");
	uint32_t j[MANY];
	for (int i = 0; i < 129; i++)
		arrive(q, i % 90);
	ck_assert_int_eq(serve(q, 1, j), 1);
	ck_assert_uint_eq(j[0], 0); /* 129 waited */
	ck_assert_int_eq(serve(q, 1, j), 1);
	ck_assert_uint_eq(j[0], 89); /* 128 did */
	queue_close(q);
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
	tcase_add_test(tc, the_longest_prefix_goes_first);
	tcase_add_loop_test(tc, nobody_is_overtaken_more_often_than_max_skips, 0, 4);
	tcase_add_test(tc, preempted_ones_go_before_any_prefix);
	tcase_add_test(tc, a_long_queue_is_served_as_it_arrived);
	suite_add_tcase(s, tc);
	SRunner *r = srunner_create(s);
	srunner_run_all(r, CK_NORMAL);
	int failed = srunner_ntests_failed(r);
	srunner_free(r);
	return failed != 0;
}
