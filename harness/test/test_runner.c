/* SPDX-License-Identifier: Apache-2.0
 *
 * test_runner.c: one trial in this process: its record, its start state, the gate, the reasons to skip.
 */
#include <check.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "engine_fixture.h"
#include "measure/gate.h"
#include "measure/runner.h"
#include "measure/warmup.h"
#include "tiny_model.h"

#define N_REQS 6
#define STACKED "flash_attention,paged_attention:block_size=8,continuous_batching"

static struct fixture fx;
static struct request_set reqs;
static struct test_stack stack;
static struct nx_named_stack named;
static struct nx_cell cell;
static char phases[512];

static void on_phase(void *ctx, const char *name)
{
	(void)ctx;
	size_t at = strlen(phases);
	snprintf(phases + at, sizeof(phases) - at, "%s;", name);
}

static void setup(void)
{
	fixture_open(&fx, NX_F32, NULL, false, 1);
	requests_make(&reqs, &fx, N_REQS, 10, 40, 6, 12, 1, 0, 3);
	for (int32_t i = 0; i < N_REQS; i++) { /* conversations of two turns */
		reqs.reqs[i].after = i % 2 ? (uint32_t)i : 0;
		reqs.reqs[i].session = (uint32_t)i / 2;
		reqs.reqs[i].turn = (uint32_t)i % 2;
		reqs.reqs[i].arrival_ns = i * 1000;
	}
	phases[0] = '\0';
}

static void teardown(void)
{
	requests_release(&reqs);
	fixture_close(&fx);
}

static struct nx_runner_config config(void)
{
	return (struct nx_runner_config){
		.shape = nx_model_shape(fx.model),
		.dev = &fx.dev,
		.weights = fx.weights,
		.dtype = NX_F32,
		.samples = 1,
		.load_other_max = 1000,
		.phase = on_phase,
	};
}

static void make_cell(const char *spec, int32_t batch_size)
{
	test_stack_make(&stack, &fx, spec);
	named = (struct nx_named_stack){.name = "tested", .stack = stack.stack, .spec = spec};
	cell = (struct nx_cell){
		.id = "0123456789abcdef",
		.stack = &named,
		.batch_size = batch_size,
		.num_requests = N_REQS,
		.seq_len = {.kind = NX_DIST_UNIFORM, .min = 10, .max = 40, .mean = 25},
		.output_len = {.kind = NX_DIST_UNIFORM, .min = 6, .max = 12, .mean = 9},
	};
}

static struct nx_runner *make_runner(const struct nx_runner_config *rc)
{
	struct nx_runner *r = NULL;
	struct nx_err err = {0};
	ck_assert_msg(!nx_runner_create(&r, rc, &err), "%s", err.msg);
	return r;
}

static void trial(struct nx_runner *r, int32_t round, struct nx_trial *t)
{
	const struct nx_runner_job job = {
		.cell = &cell, .round = round, .reqs = reqs.reqs, .n_reqs = N_REQS, .gate = true};
	nx_runner_trial(r, &job, t);
}

static void check_record(const struct nx_trial *t)
{
	size_t n_out = 0;
	ck_assert_msg(t->status == NX_STATUS_OK, "%s: %s", nx_status_name(t->status), t->cause);
	ck_assert_uint_eq(t->n_requests, N_REQS);
	for (size_t i = 0; i < t->n_requests; i++) {
		const struct nx_request_rec *q = &t->requests[i];
		ck_assert_int_eq(q->n_in, reqs.reqs[i].n_prompt);
		ck_assert_int_ge(q->n_out, 1);
		ck_assert_int_le(q->n_out, reqs.reqs[i].max_out);
		ck_assert_uint_le(q->arrival_ns, q->admitted_ns);
		ck_assert_uint_le(q->admitted_ns, q->first_ns);
		ck_assert_uint_le(q->first_ns, q->last_ns);
		ck_assert_uint_le(q->last_ns, t->duration_ns);
		ck_assert(q->session == i / 2 && q->turn == i % 2 &&
		          q->planned_ns == (int64_t)i * 1000);
		if (q->turn)
			ck_assert_uint_ge(q->arrival_ns, q[-1].last_ns);
		n_out += (size_t)q->n_out;
	}
	ck_assert_uint_eq(t->n_tokens, n_out);
	for (size_t i = 1; i < t->n_tokens; i++)
		ck_assert_uint_ge(t->tokens[i].t_ns, t->tokens[i - 1].t_ns);
	ck_assert_uint_gt(t->n_steps, 0);
	for (size_t i = 0; i < t->n_steps; i++)
		ck_assert_uint_le(t->steps[i].end_ns, t->duration_ns);
	struct nx_counted sum = {0};
	size_t n_steps = 0;
	for (int i = 0; i < NX_PHASE_COUNT; i++) {
		n_steps += (size_t)t->phases[i].n_steps;
		sum.weight_bytes += t->phases[i].counted.weight_bytes;
		sum.kv_bytes += t->phases[i].counted.kv_bytes;
		sum.flops += t->phases[i].counted.flops;
	}
	ck_assert_uint_eq(n_steps, t->n_steps);
	ck_assert_uint_eq(sum.flops, t->counted.flops);
	ck_assert_uint_eq(sum.weight_bytes, t->counted.weight_bytes);
	ck_assert_uint_eq(sum.kv_bytes, t->counted.kv_bytes);
	ck_assert_uint_gt(t->n_mem, 1);
	ck_assert_uint_gt(t->counted.flops, 0);
	ck_assert_int_ge(t->n_warmup, 1);
	ck_assert_int_le(t->n_warmup, NX_WARMUP_PASSES_MAX);
	ck_assert(t->started_unix_ns > 0);
	ck_assert(t->metrics[NX_METRIC_OUTPUT_THROUGHPUT] > 0);
	ck_assert(t->metrics[NX_METRIC_TTFT_P50] > 0);
}

START_TEST(a_trial_records_what_happened)
{
	static const char *const SPECS[] = {"", "paged_attention:block_size=8", STACKED,
	                                    "no_cache"};
	struct nx_runner_config rc = config();
	struct nx_runner *r = make_runner(&rc);
	for (size_t i = 0; i < sizeof(SPECS) / sizeof(SPECS[0]); i++) {
		struct nx_trial t;
		make_cell(SPECS[i], 3);
		cell.id[0] = (char)('a' + i);
		trial(r, 0, &t);
		check_record(&t);
		nx_trial_release(&t);
	}
	nx_runner_destroy(r);
}
END_TEST

START_TEST(the_gate_runs_in_the_first_round_and_holds)
{
	struct nx_runner_config rc = config();
	struct nx_runner *r = make_runner(&rc);
	struct nx_trial t;
	make_cell(STACKED, 3);
	trial(r, 0, &t);
	check_record(&t);
	ck_assert_int_eq(t.gate.ran, 1);
	ck_assert_int_ne(t.gate.verdict, NX_GATE_FAILED);
	ck_assert_int_eq(t.gate.n_wrong, 0);
	ck_assert_int_ge(t.gate.n_positions, 4 * 6);
	ck_assert(t.gate.near_tie_width > 0);
	ck_assert_str_eq(
		phases,
		"the forecast;engine set-up;the exactness gate;the warm-up;the timed run;the metrics;");
	nx_trial_release(&t);
	phases[0] = '\0';
	trial(r, 1, &t);
	check_record(&t);
	ck_assert_int_eq(t.gate.ran, 0);
	ck_assert_ptr_null(strstr(phases, "gate"));
	nx_trial_release(&t);
	nx_runner_destroy(r);
}
END_TEST

START_TEST(the_plain_baseline_passes_the_gate_too)
{
	struct nx_runner_config rc = config();
	struct nx_runner *r = make_runner(&rc);
	struct nx_trial t;
	make_cell("", 3);
	trial(r, 0, &t);
	check_record(&t);
	ck_assert_int_eq(t.gate.ran, 1);
	ck_assert_int_ne(t.gate.verdict, NX_GATE_FAILED);
	nx_trial_release(&t);
	nx_runner_destroy(r);
}
END_TEST

/* An engine over other weights stands for a technique that changes what is computed. */
static void gate_over(const struct nx_weights *weights, bool invariant, struct nx_gate *out)
{
	struct nx_err err = {0};
	struct nx_engine *e = NULL;
	make_cell(STACKED, 3);
	struct nx_engine_config ec = {
		.weights = weights,
		.stack = &stack.stack,
		.batch_size = 3,
		.samples = 1,
		.max_len = 64,
		.invariant = invariant,
	};
	ck_assert_msg(!nx_engine_create(&e, &ec, &err), "%s", err.msg);
	struct nx_gate_cache *cache = nx_gate_cache_create();
	ec.weights = fx.weights;
	const struct nx_gate_config gc = {
		.cache = cache,
		.engine = e,
		.engine_config = &ec,
		.dtype = NX_F32,
		.vocab = nx_model_shape(fx.model)->vocab,
		.reqs = reqs.reqs,
		.n_reqs = N_REQS,
	};
	ck_assert_msg(!nx_gate_run(&gc, out, &err), "%s", err.msg);
	/* The kept reference gives the same verdict. */
	struct nx_gate again;
	ck_assert_msg(!nx_gate_run(&gc, &again, &err), "%s", err.msg);
	ck_assert_int_eq(again.n_equal, out->n_equal);
	ck_assert_int_eq(again.verdict, out->verdict);
	ck_assert(again.near_tie_width == out->near_tie_width);
	nx_gate_cache_destroy(cache);
	nx_engine_destroy(e);
}

START_TEST(the_gate_fails_a_stack_that_computes_something_else)
{
	struct nx_gate g;
	struct nx_err err = {0};
	struct nx_model *model = NULL;
	struct nx_weights *weights = NULL;
	char text[NX_ERR_MAX], path[512];
	struct nx_shape shape = nx_test_tiny_shape();
	nx_test_tmp_path(path, sizeof(path), "other.gguf");
	ck_assert_int_eq(nx_test_write_model(path, &shape, NX_GGUF_F32, 8, &err), 0);
	ck_assert_msg(!nx_model_open(&model, path, &err), "%s", err.msg);
	remove(path);
	ck_assert_msg(!nx_weights_create(&weights, model, &fx.dev, NX_F32, &err), "%s", err.msg);
	gate_over(weights, false, &g);
	ck_assert_int_eq(g.ran, 1);
	ck_assert_int_gt(g.n_wrong, 0);
	ck_assert_int_eq(g.verdict, NX_GATE_FAILED);
	ck_assert_int_ge(g.first_request, 0);
	ck_assert_int_ge(g.first_index, 0);
	nx_gate_sentence(&g, text, sizeof(text));
	ck_assert_ptr_nonnull(strstr(text, "another token"));
	nx_weights_destroy(weights);
	nx_model_close(model);
}
END_TEST

START_TEST(in_invariant_mode_every_position_is_equal)
{
	struct fixture mine;
	struct nx_gate g;
	fixture_close(&fx);
	fixture_open(&fx, NX_F32, NULL, true, 1);
	mine = fx;
	gate_over(mine.weights, true, &g);
	ck_assert_int_eq(g.n_equal, g.n_positions);
	ck_assert_int_eq(g.verdict, NX_GATE_EXACT);
}
END_TEST

START_TEST(a_request_over_the_context_is_skipped_with_the_numbers)
{
	struct nx_runner_config rc = config();
	struct nx_runner *r = make_runner(&rc);
	struct nx_trial t;
	make_cell("", 3);
	cell.seq_len.max = 250;
	trial(r, 0, &t);
	ck_assert_int_eq(t.status, NX_STATUS_SKIPPED);
	ck_assert_str_eq(t.cause,
	                 "prompt 250 + output 12 is over the model's context 256; legal: a "
	                 "shorter seq_len or output_len");
	ck_assert_uint_eq(t.n_tokens, 0);
	nx_trial_release(&t);
	nx_runner_destroy(r);
}
END_TEST

START_TEST(a_cell_too_large_for_the_device_is_skipped_with_both_sizes)
{
	struct nx_runner_config rc = config();
	rc.fits_bytes = 400000;
	struct nx_runner *r = make_runner(&rc);
	struct nx_trial t;
	make_cell("", 64);
	trial(r, 0, &t);
	ck_assert_int_eq(t.status, NX_STATUS_SKIPPED);
	ck_assert_msg(!strncmp(t.cause, "needs ", 6) && strstr(t.cause, ", device has 0.4 MB"),
	              "%s", t.cause);
	struct nx_forecast f;
	nx_runner_forecast(&rc, &cell, &f);
	/* the trial keeps by owner what it would have taken */
	ck_assert_uint_gt(f.n_mem, 2);
	ck_assert_uint_eq(t.n_mem, f.n_mem);
	ck_assert_mem_eq(t.mem, f.mem, f.n_mem * sizeof(*f.mem));
	nx_trial_release(&t);
	ck_assert_int_eq(f.code, NX_ESKIP);
	ck_assert_uint_gt(f.total_bytes, rc.fits_bytes);
	uint64_t sum = 0;
	for (size_t i = 0; i < f.n_mem; i++)
		sum += f.mem[i].reserved_bytes;
	ck_assert_uint_eq(sum, f.total_bytes);
	nx_runner_destroy(r);
}
END_TEST

START_TEST(the_forecast_agrees_with_what_the_engine_takes)
{
	struct nx_runner_config rc = config();
	struct nx_runner *r = make_runner(&rc);
	struct nx_forecast f;
	struct nx_trial t;
	make_cell(STACKED, 3);
	nx_runner_forecast(&rc, &cell, &f);
	ck_assert_msg(!f.code, "%s", f.reason);
	trial(r, 0, &t);
	check_record(&t);
	double taken = t.metrics[NX_METRIC_MEM_TOTAL];
	ck_assert_msg(fabs(taken - (double)f.total_bytes) < 0.1 * taken,
	              "forecast %llu, taken %.0f", (unsigned long long)f.total_bytes, taken);
	nx_trial_release(&t);
	nx_runner_destroy(r);
}
END_TEST

START_TEST(samples_have_records_of_their_own)
{
	struct nx_runner_config rc = config();
	rc.samples = 2;
	struct nx_runner *r = make_runner(&rc);
	struct nx_trial t;
	make_cell(STACKED, 2);
	for (int i = 0; i < N_REQS; i++) {
		reqs.reqs[i].samples = 2;
		reqs.reqs[i].ignore_eos = true;
	}
	trial(r, 0, &t);
	ck_assert_msg(t.status == NX_STATUS_OK, "%s: %s", nx_status_name(t.status), t.cause);
	ck_assert_uint_eq(t.n_requests, 2 * N_REQS);
	for (size_t i = 0; i < t.n_requests; i++) {
		ck_assert_uint_eq(t.requests[i].sample, i % 2);
		ck_assert_int_eq(t.requests[i].n_out, reqs.reqs[i / 2].max_out);
	}
	nx_trial_release(&t);
	nx_runner_destroy(r);
}
END_TEST

int main(void)
{
	Suite *s = suite_create("runner");
	TCase *t = tcase_create("runner");
	tcase_add_checked_fixture(t, setup, teardown);
	tcase_set_timeout(t, 30);
	tcase_add_test(t, a_trial_records_what_happened);
	tcase_add_test(t, the_gate_runs_in_the_first_round_and_holds);
	tcase_add_test(t, the_plain_baseline_passes_the_gate_too);
	tcase_add_test(t, the_gate_fails_a_stack_that_computes_something_else);
	tcase_add_test(t, in_invariant_mode_every_position_is_equal);
	tcase_add_test(t, a_request_over_the_context_is_skipped_with_the_numbers);
	tcase_add_test(t, a_cell_too_large_for_the_device_is_skipped_with_both_sizes);
	tcase_add_test(t, the_forecast_agrees_with_what_the_engine_takes);
	tcase_add_test(t, samples_have_records_of_their_own);
	suite_add_tcase(s, t);
	SRunner *r = srunner_create(s);
	srunner_run_all(r, CK_NORMAL);
	int failed = srunner_ntests_failed(r);
	srunner_free(r);
	return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}
