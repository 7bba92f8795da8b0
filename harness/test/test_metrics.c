/* SPDX-License-Identifier: Apache-2.0 */
/* Metrics of hand-made trials, worked out on paper. */
#define _GNU_SOURCE /* sched_setaffinity */
#include <check.h>
#include <math.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "measure/perf.h"
#include "measure/system.h"
#include "measure/trial.h"

#define MS 1000000ull

/* Request 0: arrives 0, tokens at 10, 20, 40 ms. Request 1: arrives 5 ms, one token at 30 ms.
 * Request 2: arrives 10 ms, five tokens: 50 ms, then two steps of two at 60 and 80 ms. */
static struct nx_request_rec requests[] = {
	{.request = 0,
         .n_in = 8,
         .n_out = 3,
         .arrival_ns = 0,
         .first_ns = 10 * MS,
         .last_ns = 40 * MS},
	{.request = 1,
         .n_in = 4,
         .n_out = 1,
         .arrival_ns = 5 * MS,
         .first_ns = 30 * MS,
         .last_ns = 30 * MS},
	{.request = 2,
         .n_in = 2,
         .n_out = 5,
         .arrival_ns = 10 * MS,
         .first_ns = 50 * MS,
         .last_ns = 80 * MS},
};
static struct nx_token_rec tokens[] = {
	/* in order of time, as the engine gives them */
	{0, 0, 0, 1, 10 * MS}, {0, 0, 1, 1, 20 * MS}, {1, 0, 0, 1, 30 * MS},
	{0, 0, 2, 1, 40 * MS}, {2, 0, 0, 1, 50 * MS}, {2, 0, 1, 1, 60 * MS},
	{2, 0, 2, 1, 60 * MS}, {2, 0, 3, 1, 80 * MS}, {2, 0, 4, 1, 80 * MS},
};
static struct nx_step_info steps[] = {
	{.begin_ns = 0,
         .end_ns = 10 * MS,
         .plan_ns = MS,
         .phase = NX_PHASE_PREFILL,
         .rows = {8, 0, 0, 2, 0},
         .kv_used = 10,
         .kv_held = 20,
         .kv_total = 100},
	{.begin_ns = 10 * MS,
         .end_ns = 40 * MS,
         .plan_ns = MS,
         .phase = NX_PHASE_DECODE,
         .rows = {10},
         .kv_used = 30,
         .kv_held = 40,
         .n_preempted = 2},
};
static const struct nx_metric_context plain = {
	.kv_row_bytes = 100,
	.device_bytes = 1000,
	.llc_bytes = 1000,
	.working_set_bytes = 500,
	.calibration = {.read_bytes_per_s = 1000,
                        .cache_read_bytes_per_s = 4000,
                        .cache_set_bytes = 600,
                        .f32_flops_per_s = 100,
                        .blas_flops_per_s = 200,
                        .bf16_flops_per_s = 5000},
};
static struct nx_trial t;

/* Check forks a process a test: nothing is carried over. The arrays are static, so there is no
 * release. */
static void compute(const struct nx_metric_context *c)
{
	nx_trial_compute(&t, c);
}

static void setup(void)
{
	nx_trial_init(&t);
	t.requests = requests;
	t.n_requests = 3;
	t.tokens = tokens;
	t.n_tokens = 9;
	t.steps = steps;
	t.n_steps = 2;
	t.mem[0] = (struct nx_mem_use){"weights", 300, 300};
	t.mem[1] = (struct nx_mem_use){"workspace", 100, 50};
	t.n_mem = 2;
	t.counted = (struct nx_counted){100, 40, 20, 8};
}

#define IS(id, want) ck_assert_double_eq_tol(t.metrics[NX_METRIC_##id], want, 1e-9)
#define MISSING(id) ck_assert(isnan(t.metrics[NX_METRIC_##id]))

START_TEST(latencies_follow_their_formulas)
{
	compute(&plain);
	IS(DURATION, 0.08);
	IS(OUTPUT_THROUGHPUT, 9 / 0.08);
	IS(TOTAL_THROUGHPUT, 23 / 0.08);
	IS(REQUEST_THROUGHPUT, 3 / 0.08);
	IS(TTFT_MEAN, 25);
	IS(TTFT_P50, 25);
	IS(TTFT_P90, 37);              /* 10, 25, 40 */
	IS(TPOT_MEAN, (15 + 7.5) / 2); /* one token has no tpot */
	IS(TPOT_P99, 7.5 + 0.99 * 7.5);
	IS(E2EL_MEAN, (40 + 25 + 70) / 3.0);
	IS(ITL_P50, 15);  /* gaps 10, 20 | 10, 20: one sample a step, not one a token */
	IS(TAU, 6 / 4.0); /* six tokens after the first steps, in four steps */
}
END_TEST

START_TEST(steps_and_memory_follow_their_formulas)
{
	compute(&plain);
	IS(ROWS_PAD_SHARE, 2 / 20.0);
	IS(PREEMPTIONS, 2);
	IS(KV_RESERVED_PEAK, 4000);
	IS(KV_USED_PEAK, 3000);
	IS(KV_WASTE, (0.5 * 10 + 0.25 * 30) / 40);
	IS(HOST_SHARE, 2 / 40.0);
	IS(PREFILL_THROUGHPUT, 8 / 0.01);
	IS(DECODE_STEP_P50, 30);
	IS(MEM_TOTAL, 400);
	IS(MEM_WORKSPACE, 100);
	IS(UTIL_MEM_CAPACITY, 0.4);
}
END_TEST

START_TEST(utilisation_takes_the_level_that_holds_the_working_set)
{
	struct nx_metric_context c = plain;

	compute(&c);
	IS(UTIL_COMPUTE, 8 / (0.08 * 200));
	IS(UTIL_BANDWIDTH, 160 / (0.08 * 4000));
	ck_assert_int_eq(t.util_source, NX_UTIL_COUNTED);
	c.working_set_bytes =
		601; /* over the calibrated set, not far over the cache: above 1 is no error */
	compute(&c);
	IS(UTIL_BANDWIDTH, 160 / (0.08 * 1000));
	ck_assert_int_eq(t.status, NX_STATUS_OK);
	c.dtype = NX_BF16;
	compute(&c);
	IS(UTIL_COMPUTE, 8 / (0.08 * 5000));
}
END_TEST

START_TEST(bandwidth_above_the_peak_voids_the_trial)
{
	struct nx_metric_context c = plain;

	c.working_set_bytes = 5000;
	compute(&c);
	ck_assert_int_eq(t.status, NX_STATUS_INVALID);
	ck_assert_ptr_nonnull(strstr(t.cause, "bandwidth above peak"));
	c.calibration.read_bytes_per_s = 160 / 0.08 / 1.04; /* within what calibration is worth */
	t.status = NX_STATUS_OK;
	compute(&c);
	ck_assert_int_eq(t.status, NX_STATUS_OK);
}
END_TEST

START_TEST(goodput_counts_requests_that_meet_every_objective)
{
	struct nx_metric_context c = plain;

	compute(&c);
	MISSING(GOODPUT); /* no objective, no goodput */
	c.slo = (struct nx_slo){.ttft_ms = 30, .tpot_ms = 10};
	compute(&c);
	IS(GOODPUT, 1 / 0.08); /* 0 is too slow a token, 2 too late; 1 has no tpot and passes */
	c.slo = (struct nx_slo){.e2el_ms = 1000};
	compute(&c);
	IS(GOODPUT, 3 / 0.08);
	requests[2].request = 1; /* two samples of one request: both must be good */
	requests[2].sample = 1;
	c.slo = (struct nx_slo){.ttft_ms = 30};
	compute(&c);
	IS(GOODPUT, 1 / 0.08);
	IS(REQUEST_THROUGHPUT, 2 / 0.08);
	IS(TOTAL_THROUGHPUT, (9 + 12) / 0.08); /* the prompt counts once */
}
END_TEST

START_TEST(what_is_missing_is_nan)
{
	struct nx_metric_context none = {0};

	compute(&none);
	MISSING(UTIL_BANDWIDTH);
	MISSING(UTIL_COMPUTE);
	MISSING(KV_RESERVED_PEAK);
	MISSING(UTIL_MEM_CAPACITY);
	ck_assert_int_eq(t.util_source, NX_UTIL_NONE);
	nx_trial_init(&t);
	compute(&plain);
	for (int m = 0; m < NX_METRIC_COUNT; m++)
		ck_assert_msg(isnan(t.metrics[m]), "%s", nx_metric_desc((enum nx_metric)m)->name);
}
END_TEST

START_TEST(a_record_that_runs_backwards_does_not_overflow)
{
	requests[0].first_ns = 0;
	requests[0].arrival_ns = 90 * MS;
	compute(&plain);
	for (int m = 0; m < NX_METRIC_COUNT; m++)
		ck_assert_msg(isnan(t.metrics[m]) || fabs(t.metrics[m]) < 1e6, "%s",
		              nx_metric_desc((enum nx_metric)m)->name);
}
END_TEST

START_TEST(names_are_found)
{
	ck_assert_int_eq(nx_metric_find("ttft_p99"), NX_METRIC_TTFT_P99);
	ck_assert_int_eq(nx_metric_find("nothing"), -1);
	ck_assert_str_eq(nx_status_name(NX_STATUS_OUT_OF_MEMORY), "out of memory");
	ck_assert_str_eq(nx_status_name(-1), "unknown");
	ck_assert_ptr_null(nx_metric_desc(NX_METRIC_COUNT));
}
END_TEST

START_TEST(perf_counts_or_says_why_not)
{
	struct nx_perf p;
	int64_t a[NX_PERF_COUNT], b[NX_PERF_COUNT];
	volatile double x = 1;

	nx_perf_open(&p);
	nx_perf_read(&p, a);
	for (int i = 0; i < 1000000; i++)
		x = x * 1.0000001;
	nx_perf_read(&p, b);
	for (int i = 0; i < NX_PERF_COUNT; i++) {
		if (p.fd[i] < 0)
			ck_assert(p.reason[0] && b[i] == -1 && nx_perf_delta(a[i], b[i]) == -1);
	}
	if (p.fd[NX_PERF_INSTRUCTIONS] >= 0 && a[NX_PERF_INSTRUCTIONS] >= 0)
		ck_assert(nx_perf_delta(a[NX_PERF_INSTRUCTIONS], b[NX_PERF_INSTRUCTIONS]) >
		          1000000);
	nx_perf_close(&p);
	nx_perf_read(&p, b);
	ck_assert(b[0] == -1);
}
END_TEST

/* Time is counted on the processors that we may run on: two halves of them make the whole. */
START_TEST(load_is_that_of_the_processors_in_use)
{
	cpu_set_t all, part[2];
	struct nx_cpu_sample s[3];
	int n = 0;

	ck_assert_int_eq(sched_getaffinity(0, sizeof(all), &all), 0);
	if (CPU_COUNT(&all) < 2)
		return;
	CPU_ZERO(&part[0]);
	CPU_ZERO(&part[1]);
	for (int i = 0; i < CPU_SETSIZE; i++)
		if (CPU_ISSET(i, &all))
			CPU_SET(i, &part[n++ & 1]);
	nx_cpu_sample(&s[2]);
	for (int i = 0; i < 2; i++) {
		ck_assert_int_eq(sched_setaffinity(0, sizeof(part[i]), &part[i]), 0);
		nx_cpu_sample(&s[i]);
	}
	if (s[2].busy_s < 0) {
		printf("load: not tested, /proc/stat cannot be read here\n");
		return;
	}
	/* They were not taken at one time. */
	double between = 0.05 + CPU_COUNT(&all) * (s[1].wall_s - s[2].wall_s);
	ck_assert_double_gt(s[0].busy_s, 0);
	ck_assert_double_eq_tol(s[0].busy_s + s[1].busy_s, s[2].busy_s, between);
}
END_TEST

START_TEST(the_system_describes_itself)
{
	char text[256], tiny[4];
	struct nx_cpu_sample a, b;

	nx_cpu_sample(&a);
	for (int i = 0; i < NX_SYSTEM_COUNT; i++) {
		ck_assert(nx_system_fact((enum nx_system_fact)i, text, sizeof(text))[0]);
		nx_system_fact((enum nx_system_fact)i, tiny, sizeof(tiny));
		ck_assert_uint_lt(strlen(tiny), sizeof(tiny));
	}
	nx_cpu_sample(&b);
	ck_assert(nx_cpu_load_other(&a, &b) >= 0 || isnan(nx_cpu_load_other(&a, &b)));
	a.busy_s = -1;
	ck_assert(isnan(nx_cpu_load_other(&a, &b)) && isnan(nx_cpu_load_stolen(&a, &b)));
	a = (struct nx_cpu_sample){.wall_s = 0, .busy_s = 10, .own_s = 5, .steal_s = 1};
	b = (struct nx_cpu_sample){.wall_s = 2, .busy_s = 14, .own_s = 6, .steal_s = 2};
	ck_assert(nx_cpu_load_other(&a, &b) == 1.5 && nx_cpu_load_stolen(&a, &b) == 0.5);
	ck_assert_uint_gt(nx_rss_bytes(), 100000);
	ck_assert_uint_ge(nx_rss_peak_bytes(), nx_rss_bytes() / 2);
	ck_assert(nx_throttle_count() >= -1);
}
END_TEST

int main(void)
{
	Suite *s = suite_create("metrics");
	TCase *tc = tcase_create("metrics");

	tcase_add_checked_fixture(tc, setup, NULL);
	tcase_add_test(tc, latencies_follow_their_formulas);
	tcase_add_test(tc, steps_and_memory_follow_their_formulas);
	tcase_add_test(tc, utilisation_takes_the_level_that_holds_the_working_set);
	tcase_add_test(tc, bandwidth_above_the_peak_voids_the_trial);
	tcase_add_test(tc, goodput_counts_requests_that_meet_every_objective);
	tcase_add_test(tc, what_is_missing_is_nan);
	tcase_add_test(tc, a_record_that_runs_backwards_does_not_overflow);
	tcase_add_test(tc, names_are_found);
	tcase_add_test(tc, perf_counts_or_says_why_not);
	tcase_add_test(tc, load_is_that_of_the_processors_in_use);
	tcase_add_test(tc, the_system_describes_itself);
	suite_add_tcase(s, tc);
	SRunner *r = srunner_create(s);
	srunner_run_all(r, CK_NORMAL);
	int failed = srunner_ntests_failed(r);
	srunner_free(r);
	return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}
