/* SPDX-License-Identifier: Apache-2.0
 *
 * test_bottleneck.c: each verdict from constructed figures, and the cases where there is none.
 */
#include <check.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "measure/bottleneck.h"

static struct nx_bound_figures f;
static struct nx_bottleneck b;

/* One second of decode on a device of 10 GB/s and 100 GFLOP/s: 8 GB of weights, little work. */
static void setup(void)
{
	f = (struct nx_bound_figures){.phase = "decode",
	                              .source = "counted",
	                              .level = "memory",
	                              .time_s = 1,
	                              .host_s = 0.01,
	                              .launch_s = NAN,
	                              .bytes = {8e9, 0.2e9, 0.1e9},
	                              .moved_bytes = NAN,
	                              .flops = 8e9,
	                              .peak_bytes_per_s = 10e9,
	                              .peak_flops_per_s = 100e9,
	                              .steps = 100,
	                              .rows = 100,
	                              .seqs = 1,
	                              .batch = 1,
	                              .kv_held = 100,
	                              .kv_total = 100,
	                              .mem_bytes = 1e9,
	                              .device_bytes = 64e9};
}

static bool names(const char *technique)
{
	for (size_t i = 0; i < b.n_techniques; i++)
		if (!strcmp(b.techniques[i], technique))
			return strstr(b.helps, technique) != NULL;
	return false;
}

static void expect(enum nx_bound bound, const char *why)
{
	nx_bottleneck_find(&f, &b);
	ck_assert_msg(b.bound == bound, "%s, not %s: %s", nx_bound_name(b.bound),
	              nx_bound_name(bound), b.why);
	ck_assert_msg(strstr(b.why, why) != NULL, "%s", b.why);
	ck_assert_int_eq(b.why[strlen(b.why) - 1], '.');
}

START_TEST(weights_bound_decode_at_batch_1)
{
	expect(NX_BOUND_BANDWIDTH, "for weights");
	ck_assert_int_eq(b.traffic, NX_TRAFFIC_WEIGHTS);
	ck_assert_double_eq_tol(b.bandwidth, 0.83, 1e-9);
	ck_assert_double_eq_tol(b.compute, 0.08, 1e-9);
	ck_assert_double_eq_tol(b.intensity, 8 / 8.3, 1e-9);
	ck_assert_double_eq_tol(b.balance, 10, 1e-9);
	ck_assert_ptr_nonnull(strstr(b.helps, "larger batch"));
	ck_assert(names("weight_quant") && names("speculative"));
	ck_assert(!b.above_bandwidth);
	/* Many rows a step use the products already: drafting is not the advice. */
	f.seqs = f.batch = 64;
	f.rows = 6400;
	expect(NX_BOUND_BANDWIDTH, "for weights");
	ck_assert(!names("speculative"));
}
END_TEST

START_TEST(long_contexts_bind_by_kv)
{
	f.bytes[NX_TRAFFIC_WEIGHTS] = 1e9;
	f.bytes[NX_TRAFFIC_KV] = 7e9;
	expect(NX_BOUND_BANDWIDTH, "for KV");
	ck_assert(names("quantized_kv") && !names("weight_quant"));
}
END_TEST

START_TEST(written_scores_bind_by_activations)
{
	f.bytes[NX_TRAFFIC_WEIGHTS] = 1e9;
	f.bytes[NX_TRAFFIC_ACTIVATIONS] = 7e9;
	expect(NX_BOUND_BANDWIDTH, "for activations");
	ck_assert(names("flash_attention"));
}
END_TEST

START_TEST(prompts_bind_by_compute)
{
	f.phase = "prefill";
	f.prompt = true;
	f.flops = 90e9;
	f.bytes[NX_TRAFFIC_WEIGHTS] = 1e9;
	f.rows = 10000;
	expect(NX_BOUND_COMPUTE, "prefill is bound by compute");
	ck_assert(names("iteration_batching") && names("prefix_cache"));
	ck_assert(!names("kv_cache"));
	f.prompt = false;
	f.seqs = f.batch = 100;
	expect(NX_BOUND_COMPUTE, "bound by compute");
	ck_assert_ptr_nonnull(strstr(b.helps, "adds no throughput"));
}
END_TEST

START_TEST(planning_binds_by_host)
{
	f.host_s = 0.8;
	f.bytes[NX_TRAFFIC_WEIGHTS] = 1e9;
	expect(NX_BOUND_HOST, "80 %");
	ck_assert_ptr_nonnull(strstr(b.why, "us a step"));
}
END_TEST

START_TEST(gaps_bind_by_launch)
{
	f.launch_s = 0.7;
	f.bytes[NX_TRAFFIC_WEIGHTS] = 2e9;
	expect(NX_BOUND_LAUNCH, "70 %");
	ck_assert(names("cuda_graph"));
}
END_TEST

START_TEST(capacity_comes_before_rates)
{
	f.preempted = 3;
	expect(NX_BOUND_CAPACITY, "3 sequences were preempted");
	ck_assert(names("paged_attention") && names("quantized_kv"));
	setup();
	f.batch = 8;
	f.seqs = 5;
	f.waiting = 3;
	expect(NX_BOUND_CAPACITY, "3.0 waited");
	setup();
	f.mem_bytes = 63e9;
	expect(NX_BOUND_CAPACITY, "98 % of the device's memory");
}
END_TEST

START_TEST(waiting_alone_is_not_capacity)
{
	/* A full batch has no place for more, and an unfilled pool is not what they wait for. */
	f.batch = 8;
	f.seqs = 8;
	f.waiting = 3;
	expect(NX_BOUND_BANDWIDTH, "bandwidth");
	f.seqs = 5;
	f.kv_held = 50;
	expect(NX_BOUND_BANDWIDTH, "bandwidth");
}
END_TEST

START_TEST(two_that_are_close_are_no_single_bound)
{
	f.flops = 75e9;
	expect(NX_BOUND_MIXED, "no single bound");
	ck_assert_int_eq(b.nearest, NX_BOUND_BANDWIDTH);
	ck_assert_ptr_nonnull(strstr(b.why, "GFLOP/s"));
	ck_assert_ptr_nonnull(strstr(b.why, "GB/s"));
	ck_assert(names("weight_quant"));
}
END_TEST

START_TEST(low_figures_are_no_single_bound)
{
	f.bytes[NX_TRAFFIC_WEIGHTS] = 2e9;
	f.flops = 10e9;
	expect(NX_BOUND_MIXED, "no single bound");
	ck_assert_ptr_nonnull(strstr(b.helps, "neither peak is near"));
	/* What others took is no property of the load. */
	f.disturbed = true;
	expect(NX_BOUND_MIXED, "no single bound");
	ck_assert_ptr_null(strstr(b.helps, "neither peak is near"));
	ck_assert_ptr_nonnull(strstr(b.helps, "idle machine"));
}
END_TEST

START_TEST(launches_that_are_nearest_get_their_advice)
{
	f.launch_s = 0.38;
	f.bytes[NX_TRAFFIC_WEIGHTS] = 2e9;
	expect(NX_BOUND_MIXED, "38 % of the time between launches");
	ck_assert_int_eq(b.nearest, NX_BOUND_LAUNCH);
	ck_assert(names("cuda_graph"));
}
END_TEST

START_TEST(above_a_peak_is_flagged_and_kept)
{
	f.bytes[NX_TRAFFIC_WEIGHTS] = 13e9;
	expect(NX_BOUND_BANDWIDTH, "above its calibrated peak");
	ck_assert(b.above_bandwidth && !b.above_compute);
	ck_assert_double_gt(b.bandwidth, 1.3);
}
END_TEST

START_TEST(without_peaks_or_steps_nothing_is_claimed)
{
	f.peak_bytes_per_s = f.peak_flops_per_s = 0;
	expect(NX_BOUND_UNKNOWN, "no peak was measured");
	ck_assert_ptr_nonnull(strstr(b.helps, "NEXUS_CALIBRATE"));
	ck_assert_ptr_null(strstr(b.why, "nan"));
	f.host_s = 0.9; /* this needs no peak */
	expect(NX_BOUND_HOST, "90 %");
	f = (struct nx_bound_figures){.phase = "mixed", .moved_bytes = NAN, .launch_s = NAN};
	expect(NX_BOUND_UNKNOWN, "no step of it was run");
	ck_assert_uint_eq(b.n_techniques, 0);
}
END_TEST

START_TEST(measured_bytes_stand_before_counted_ones)
{
	f.moved_bytes = 4e9;
	f.source = "perf";
	nx_bottleneck_find(&f, &b);
	ck_assert_double_eq_tol(b.bandwidth, 0.4, 1e-9);
	ck_assert_double_eq_tol(b.moved_over_counted, 4 / 8.3, 1e-9);
	ck_assert_ptr_nonnull(strstr(b.why, "perf"));
}
END_TEST

START_TEST(what_the_stack_has_is_not_advised)
{
	f.preempted = 1;
	f.stack = "flash_attention{} paged_attention{block_size=16}";
	nx_bottleneck_find(&f, &b);
	ck_assert(!names("paged_attention") && names("quantized_kv"));
	ck_assert_ptr_nonnull(strstr(b.helps, "larger KV pool"));
	f.mem_bytes = 60e9;
	f.stack = "paged_attention{} quantized_kv{} prefix_cache{} weight_quant{}";
	nx_bottleneck_find(&f, &b);
	ck_assert_uint_eq(b.n_techniques, 0);
	ck_assert_ptr_nonnull(strstr(b.helps, "another device"));
}
END_TEST

START_TEST(wasted_rows_are_named_first)
{
	f.seqs = f.batch = 4;
	f.rows = 400;
	f.pad_rows = 100;
	nx_bottleneck_find(&f, &b);
	ck_assert(names("continuous_batching"));
	ck_assert_ptr_nonnull(strstr(b.helps, "25 %"));
	f.pad_rows = 0;
	f.needed_rows = 100;
	nx_bottleneck_find(&f, &b);
	ck_assert(names("kv_cache") && !names("continuous_batching"));
}
END_TEST

START_TEST(far_from_the_count_is_flagged)
{
	f.source = "cupti";
	f.moved_bytes = 1.2 * 8.3e9;
	f.moved_flops = 8e9;
	nx_bottleneck_find(&f, &b);
	ck_assert(!b.far_bytes && !b.far_flops);
	f.moved_bytes = 0.5 * 8.3e9;
	expect(NX_BOUND_BANDWIDTH, "0.5 times the counted bytes were moved (cupti)");
	ck_assert(b.far_bytes && !b.far_flops);
	/* Twice the operations are done (padding), and that is what the units are busy with. */
	f.moved_bytes = 8.3e9;
	f.moved_flops = 16e9;
	expect(NX_BOUND_BANDWIDTH, "counters saw 2 times the counted operations.");
	/* Where the device is known to take rows in tiles, the reason stands there; full tiles are none. */
	f.tile_rows = 16;
	f.rows = 8 * f.steps;
	expect(NX_BOUND_BANDWIDTH, "counters saw 2 times the counted operations, as tensor cores "
	                           "take tiles of 16 rows, which held 8.");
	f.rows = 17 * f.steps;
	expect(NX_BOUND_BANDWIDTH, "which held 8.5.");
	f.rows = 32 * f.steps;
	expect(NX_BOUND_BANDWIDTH, "counters saw 2 times the counted operations.");
	ck_assert_double_eq_tol(b.compute, 0.16, 1e-9);
	ck_assert_double_eq_tol(b.intensity, 16 / 8.3, 1e-9);
	/* Counters of the tensor cores alone miss what other units did: the need stands. */
	f.moved_flops = 1e9;
	expect(NX_BOUND_BANDWIDTH, "so the rest ran in other units");
	ck_assert_double_eq_tol(b.compute, 0.08, 1e-9);
	f.moved_flops = NAN;
	nx_bottleneck_find(&f, &b);
	ck_assert(!b.far_flops && isnan(b.flops_over_counted));
}
END_TEST

int main(void)
{
	Suite *s = suite_create("bottleneck");
	TCase *t = tcase_create("bottleneck");
	tcase_add_checked_fixture(t, setup, NULL);
	tcase_add_test(t, weights_bound_decode_at_batch_1);
	tcase_add_test(t, long_contexts_bind_by_kv);
	tcase_add_test(t, written_scores_bind_by_activations);
	tcase_add_test(t, prompts_bind_by_compute);
	tcase_add_test(t, planning_binds_by_host);
	tcase_add_test(t, gaps_bind_by_launch);
	tcase_add_test(t, capacity_comes_before_rates);
	tcase_add_test(t, waiting_alone_is_not_capacity);
	tcase_add_test(t, two_that_are_close_are_no_single_bound);
	tcase_add_test(t, low_figures_are_no_single_bound);
	tcase_add_test(t, launches_that_are_nearest_get_their_advice);
	tcase_add_test(t, above_a_peak_is_flagged_and_kept);
	tcase_add_test(t, without_peaks_or_steps_nothing_is_claimed);
	tcase_add_test(t, measured_bytes_stand_before_counted_ones);
	tcase_add_test(t, what_the_stack_has_is_not_advised);
	tcase_add_test(t, wasted_rows_are_named_first);
	tcase_add_test(t, far_from_the_count_is_flagged);
	suite_add_tcase(s, t);
	SRunner *r = srunner_create(s);
	srunner_run_all(r, CK_NORMAL);
	int failed = srunner_ntests_failed(r);
	srunner_free(r);
	return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}
