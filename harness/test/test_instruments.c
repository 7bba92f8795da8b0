/* SPDX-License-Identifier: Apache-2.0
 *
 * test_instruments.c: counters, traces and telemetry from a device that makes them up (backends/late_instruments.c) to
 * the run file, the profile and the report; and what becomes of a run where there is no permission or a crash.
 */
#include <check.h>
#include <jansson.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "cli_fixture.h"
#include "measure/instrument.h"
#include "record/run.h"

#define GROUP                                                                                      \
	"metrics:\n"                                                                               \
	"  - {name: fake.bytes, unit: bytes, figure: bytes, text: moved}\n"                        \
	"  - {name: two.hard, unit: '%'}\n"                                                        \
	"  - {name: fake.flops, unit: flop, figure: flops, times: 1}\n"                            \
	"  - {name: no.such, unit: '1'}\n"                                                         \
	"  - {name: fake.time, unit: ns, figure: time_ns, times: 2}\n"

static struct cli c;
static struct nx_run *run;
static struct nx_err err;

static void setup(void)
{
	char from[600];
	cli_open(&c);
	/* The late device goes by a name that experiments know. */
	snprintf(from, sizeof(from), "%s/test-backends/late.so", getenv("NEXUS_BUILD"));
	ck_assert_int_eq(mkdir(cli_path(&c, "backends"), 0700), 0);
	ck_assert_int_eq(symlink(from, cli_path(&c, "backends/cuda.so")), 0);
	cli_write(&c, "group.yaml", GROUP);
	cli_write(&c, "t.yaml",
	          "# What bounds it?\nmodel: tiny.gguf\ndevice: cuda:0\nbase: plain\ndtype: f32\n"
	          "threads: 1\nworkload: {prompts: prompts.jsonl, seed: 1}\ncounters: group.yaml\n"
	          "sweep:\n  batch_size: [1, 3]\n  seq_len: 16\n  output_len: 24\n"
	          "num_requests: 4\ntrials: 2\ngate: false\n");
}

static void teardown(void)
{
	nx_run_destroy(run);
	run = NULL;
	cli_close(&c);
}

/* instruments: the words of late_instruments.c, or "". */
static void nexus(const char *instruments, const char *args)
{
	char env[600];
	snprintf(env, sizeof(env), "NEXUS_LATE_INSTRUMENTS=%s NEXUS_BACKEND_PATH=%s/backends",
	         instruments, c.dir);
	cli_run(&c, env, args);
}

static void read_run(const char *name)
{
	nx_run_destroy(run);
	run = NULL;
	ck_assert_msg(!nx_run_read(&run, cli_path(&c, name), &err), "%s", err.msg);
}

static void run_with(const char *instruments, const char *more)
{
	char args[256];
	snprintf(args, sizeof(args), "run t.yaml -o r.h5 %s", more);
	nexus(instruments, args);
	ck_assert_msg(c.status == 0, "nexus %s: %d: %s", args, c.status, c.err);
	ck_assert(!cli_exists(&c, "r.h5.parts"));
	read_run("r.h5");
	ck_assert_uint_eq(run->n_cells, 2);
}

static double counted_a_step(const struct nx_cell_row *cell, int phase)
{
	const struct nx_counted *n = &cell->phases[phase].counted;
	return (double)(n->weight_bytes + n->kv_bytes + n->act_bytes) /
	       (double)cell->phases[phase].n_steps;
}

START_TEST(what_the_device_says_is_in_the_run_file)
{
	run_with("on", "");
	for (size_t i = 0; i < run->n_cells; i++) {
		const struct nx_cell_row *cell = &run->cells[i];
		const struct nx_profiled *p = cell->profiled;
		ck_assert_ptr_nonnull(p);
		ck_assert_str_eq(p->versions, "late 1.0");
		ck_assert_str_eq(p->no_trace, "");
		ck_assert_msg(strstr(p->no_counters, "left out: two.hard (needs the work") &&
		                      strstr(p->no_counters, "no.such (there is no metric"),
		              "%s", p->no_counters);
		/* The metrics that could be measured, in their order. */
		ck_assert_int_eq(p->group.n, 3);
		ck_assert_str_eq(p->group.m[1].name, "fake.flops");
		ck_assert_str_eq(p->group.m[0].text, "moved");
		ck_assert_int_eq(p->group.m[2].figure, NX_FIGURE_TIME);
		ck_assert_msg(p->n_steps > 0 && p->n_same == p->n_steps && p->first_other == -1,
		              "%d of %d steps are the same, not step %d", p->n_same, p->n_steps,
		              p->first_other);
		int seen[NX_PHASE_COUNT] = {0};
		for (size_t k = 0; k < p->n_ranges; k++) {
			const struct nx_ranged *r = &p->ranges[k];
			seen[r->phase]++;
			ck_assert(r->rows > 0 && r->step >= 0 && r->step < p->n_steps);
			ck_assert(k == 0 || r->step > p->ranges[k - 1].step);
			ck_assert(r->values[0] > 0 && r->values[1] > 0 && r->values[2] == 1000);
		}
		ck_assert(seen[NX_PHASE_PREFILL] > 0);
		ck_assert_int_eq(seen[NX_PHASE_DECODE], NX_RANGES_A_PHASE);
		ck_assert(nx_profiled_figure(p, NX_PHASE_DECODE, NX_FIGURE_TIME) == 2000);
		ck_assert(isnan(nx_profiled_figure(p, NX_PHASE_VERIFY, NX_FIGURE_BYTES)));
		/* Twice what was counted, up to the step that a device running ahead counts elsewhere. */
		ck_assert_double_eq_tol(nx_profiled_figure(p, NX_PHASE_DECODE, NX_FIGURE_BYTES) /
		                                counted_a_step(cell, NX_PHASE_DECODE),
		                        2, 0.6);
		ck_assert_uint_eq(p->n_records, 60);
		ck_assert_double_eq_tol(nx_profiled_idle(p), 1 - 3200.0 / 4960, 1e-12);
		ck_assert_uint_eq(p->n_kernels, 2);
		ck_assert_str_eq(p->kernels[0].name, "gemm");
		ck_assert_int_eq(p->kernels[0].calls, 50);
		ck_assert_uint_eq(p->kernels[0].total_ns, 3000);
		ck_assert_double_eq_tol(p->kernels[1].share, 200.0 / 3200, 1e-12);
		ck_assert_int_eq(p->n_trace_steps, NX_TRACE_STEPS);
		const struct nx_perturbed *q = &p->perturbed[NX_PHASE_DECODE];
		ck_assert(q->n_traced == NX_TRACE_STEPS && q->traced_ns > 0 &&
		          q->traced_timed_ns > 0);
		ck_assert(q->n_counted == NX_RANGES_A_PHASE && q->n_beside > 0);
		ck_assert(isfinite(nx_profiled_perturbation(p, true)) &&
		          isfinite(nx_profiled_perturbation(p, false)));
		/* Energy is a difference of two readings, whatever is read in between. */
		double tokens = 4 * 24;
		ck_assert_double_eq_tol(cell->metrics[NX_METRIC_ENERGY_PER_TOKEN].value,
		                        100 / tokens, 1e-9);
		ck_assert(cell->metrics[NX_METRIC_POWER].value > 0);
		ck_assert(cell->device.temperature_c == 55 && cell->device.power_w == 700 &&
		          cell->device.sm_clock_hz == 1.5e9);
		ck_assert_int_eq(cell->device.throttle, 0);
		ck_assert_int_eq(cell->n_ok, 2);
	}
}
END_TEST

START_TEST(the_report_names_kernels_bounds_and_reasons)
{
	run_with("on,capped", "");
	cli_run(&c, "", "report r.h5 --format md");
	const char *text = c.out;
	ck_assert_msg(strstr(text, "What bounds it:"), "%s", text);
	ck_assert_ptr_nonnull(strstr(text, "## What bounds each load"));
	ck_assert_ptr_nonnull(strstr(text, "gemm"));
	ck_assert_ptr_nonnull(strstr(text, "cupti"));
	ck_assert_ptr_nonnull(strstr(text, "| 1500 | 55.0 | power cap |"));
	ck_assert_ptr_nonnull(strstr(text, ", 24 | 35.5 |"));
	ck_assert_ptr_nonnull(strstr(text, "Read by (2 of 2 cells): late 1.0."));
	ck_assert_ptr_nonnull(strstr(text, "Counters (2 of 2 cells): left out: two.hard"));
	ck_assert_ptr_nonnull(strstr(text, "times the counted bytes were moved (cupti)"));
	ck_assert_ptr_null(strstr(text, "nan"));
	ck_assert_int_eq(run->cells[0].n_ok, 2); /* a cap is no disturbance */
}
END_TEST

START_TEST(a_profile_has_measured_figures)
{
	nexus("on",
	      "profile -m tiny.gguf --prompts prompts.jsonl --seq-len 16 --threads 1 --dtype f32 "
	      "--device cuda:0 --base plain --steps 20 --counters group.yaml --format json -o p.h5");
	ck_assert_msg(c.status == 0, "%s", c.err);
	json_t *json = json_loads(c.out, 0, NULL);
	ck_assert_msg(json != NULL, "%s", c.out);
	const json_t *cell = json_array_get(json_object_get(json, "cells"), 0);
	const json_t *phase = json_array_get(json_object_get(cell, "phases"), 1);
	ck_assert_str_eq(json_string_value(json_object_get(phase, "phase")), "decode");
	ck_assert_str_eq(json_string_value(json_object_get(phase, "source")), "cupti");
	ck_assert(json_number_value(json_object_get(phase, "moved_over_counted")) > 1.3);
	ck_assert(json_integer_value(json_object_get(phase, "far_from_counted")) == 1);
	ck_assert(json_number_value(json_object_get(phase, "launch_share")) > 0);
	/* Planning and launching share the idle time. */
	ck_assert_double_eq_tol(json_number_value(json_object_get(phase, "launch_share")) +
	                                json_number_value(json_object_get(phase, "host_share")),
	                        1 - 3200.0 / 4960, 1e-6);
	const json_t *in = json_object_get(cell, "instruments");
	ck_assert_uint_eq(json_array_size(json_object_get(in, "kernels")), 2);
	json_decref(json);
	nexus("on",
	      "profile -m tiny.gguf --prompts prompts.jsonl --seq-len 16 --threads 1 --dtype f32 "
	      "--device cuda:0 --base plain --steps 20 --counters group.yaml -o q.h5");
	ck_assert_ptr_nonnull(strstr(c.out, "moved MB"));
	ck_assert_ptr_nonnull(strstr(c.out, "\ngemm "));
	ck_assert_ptr_nonnull(strstr(c.out, "launch"));
	ck_assert_ptr_nonnull(strstr(c.out, "the device idled for 35.5 % of the time"));
	ck_assert_ptr_nonnull(strstr(c.out, "were those of the timed trial"));
	ck_assert_ptr_null(strstr(c.out, "nan"));
	nexus("on", "profile -m tiny.gguf --prompts prompts.jsonl --counters none.yaml");
	ck_assert_int_eq(c.status, 2);
	ck_assert_ptr_nonnull(strstr(c.err, "none.yaml"));
}
END_TEST

START_TEST(without_permission_the_run_goes_on_and_says_why)
{
	run_with("deny,notrace", "");
	const char *once = strstr(c.err, "no counters, utilisation is counted: counters need CAP");
	ck_assert_msg(once && !strstr(once + 1, "no counters"), "%s", c.err);
	ck_assert_ptr_nonnull(strstr(c.err, "no trace of kernels: no library"));
	for (size_t i = 0; i < 2; i++) {
		const struct nx_profiled *p = run->cells[i].profiled;
		ck_assert_int_eq(run->cells[i].n_ok, 2);
		ck_assert_ptr_nonnull(p);
		ck_assert_uint_eq(p->n_ranges, 0);
		ck_assert_ptr_nonnull(strstr(p->no_counters, "CAP_PERFMON"));
		ck_assert_ptr_nonnull(strstr(p->no_trace, "no library for traces"));
		ck_assert(isnan(nx_profiled_idle(p)));
	}
	cli_run(&c, "", "report r.h5 --format md");
	ck_assert_msg(strstr(c.out, "Counters (2 of 2 cells): counters need CAP"), "%s", c.out);
	ck_assert_ptr_nonnull(strstr(c.out, "No trace (2 of 2 cells): no library"));
	ck_assert_ptr_nonnull(strstr(c.out, "counted"));
	ck_assert_ptr_null(strstr(c.out, "cupti |"));
}
END_TEST

START_TEST(a_crash_of_the_profile_worker_costs_no_trial)
{
	run_with("on,crash", "");
	for (size_t i = 0; i < 2; i++) {
		const struct nx_profiled *p = run->cells[i].profiled;
		ck_assert_int_eq(run->cells[i].status, NX_STATUS_OK);
		ck_assert_int_eq(run->cells[i].n_ok, 2);
		ck_assert_ptr_nonnull(p);
		ck_assert_msg(strstr(p->no_counters, "signal 6") &&
		                      strstr(p->no_counters, "in the counters"),
		              "%s", p->no_counters);
	}
	ck_assert_ptr_nonnull(strstr(c.err, "its trials stand"));
}
END_TEST

START_TEST(a_device_that_failed_is_opened_again_for_the_next_cell)
{
	run_with("on,fault", "");
	for (size_t i = 0; i < 2; i++) {
		const struct nx_profiled *p = run->cells[i].profiled;
		ck_assert_int_eq(run->cells[i].n_ok, 2);
		ck_assert_ptr_nonnull(p);
		/* The second cell's trace, too, came before the fault: another process made it. */
		ck_assert_str_eq(p->no_trace, "");
		ck_assert_uint_eq(p->n_records, 60);
		ck_assert_msg(strstr(p->no_counters, "was told to fail") && p->n_ranges == 0, "%s",
		              p->no_counters);
	}
	const char *once = strstr(c.err, "the profile worker lost its device");
	ck_assert_msg(once && strstr(once + 1, "lost its device"), "%s", c.err);
	run_with("on,tracefault", "--force");
	for (size_t i = 0; i < 2; i++) {
		const struct nx_profiled *p = run->cells[i].profiled;
		ck_assert_str_eq(p->no_trace, "the late device was told to fail");
		ck_assert_str_eq(p->no_counters,
		                 "the device failed before: the late device was told to fail");
	}
}
END_TEST

START_TEST(a_time_line_comes_only_where_it_is_asked_for)
{
	run_with("on", "");
	ck_assert(!run->cells[0].profiled->n_samples && !run->cells[0].profiled->no_time_line[0]);
	run_with("on", "--force --set time_line=250us");
	for (size_t i = 0; i < 2; i++) {
		const struct nx_profiled *p = run->cells[i].profiled;
		ck_assert_str_eq(p->no_time_line, "");
		ck_assert(p->n_samples == 5 && p->n_samples_lost == 1);
		ck_assert(p->samples[0].begin_ns == 0 && p->samples[4].end_ns == 5 * 250000);
		ck_assert(p->samples[0].dram == 0.1 && p->samples[4].dram == 0.5 &&
		          p->samples[3].sm == 0.5 && p->samples[3].tensor == 0);
		ck_assert(p->n_ranges > 0 && p->n_records == 60);
	}
	run_with("on,nosamples", "--force --set time_line=250us");
	ck_assert_str_eq(run->cells[0].profiled->no_time_line, "this library cannot sample");
	ck_assert(run->cells[0].profiled->n_ranges > 0);
	cli_run(&c, "", "report r.h5 --format md");
	ck_assert_ptr_nonnull(strstr(c.out, "No time line (2 of 2 cells): this library cannot"));
	/* The clocks of others are not to be held. */
	run_with("on,shared", "--force --set time_line=250us");
	ck_assert_msg(strstr(run->cells[0].profiled->no_time_line, "1 other process has the "
	                                                           "device open") != NULL,
	              "%s", run->cells[0].profiled->no_time_line);
}
END_TEST

START_TEST(nobody_asks_in_vain)
{
	run_with("on", "--set counters=off");
	ck_assert_ptr_null(run->cells[0].profiled);
	ck_assert(run->cells[0].metrics[NX_METRIC_ENERGY_PER_TOKEN].value >
	          0); /* telemetry stays */
	run_with("", "--force");
	ck_assert_ptr_null(run->cells[0].profiled);
	ck_assert(isnan(run->cells[0].metrics[NX_METRIC_ENERGY_PER_TOKEN].value));
	ck_assert_int_eq(run->cells[0].device.throttle, -1);
}
END_TEST

START_TEST(what_disturbs_a_device_marks_the_trial)
{
	run_with("hot", "--set counters=off");
	ck_assert_ptr_nonnull(strstr(run->cells[0].cause, "throttled itself"));
	ck_assert_ptr_nonnull(strstr(run->cells[0].cause, "temperature; 55 C"));
	ck_assert_ptr_nonnull(strstr(run->cells[0].cause, "every trial was disturbed"));
	run_with("shared", "--set counters=off --force");
	ck_assert_ptr_nonnull(strstr(run->cells[0].cause, "1 other process had the device open"));
}
END_TEST

START_TEST(bad_groups_are_refused_before_anything_runs)
{
	static const struct {
		const char *text, *says;
	} bad[] = {
		{"metrics: []\n", "legal: metrics: with 1 to"},
		{"metric: []\n", "did you mean \"metrics\""},
		{"metrics:\n  - {unit: '%'}\n", "found no name"},
		{"metrics:\n  - {name: a, unit: b, figure: byte}\n", "did you mean \"bytes\""},
		{"metrics:\n  - {name: a, unit: b, times: x}\n", "bad.yaml:2:"},
		{"metrics:\n  - {name: a, unit: b}\n  - {name: a, unit: b}\n", "a second time"},
		{"metrics:\n  - {name: a, unit: seventeen letters}\n", "at most 15"},
		{"chip: x\ngroups: {a: {counters: {}}}\n", "found no counters"},
		{"groups: {a: {counters: {c: d, e: d}}}\n", "a second time"},
		{"groups: {a: {counters: {c: d}, metrics: {m: {unit: '1', formula: c + x}}}}\n",
	         "wrong at \"x\""},
		{"groups: {a: {counters: {c: d}, metrics: {step: {unit: '1', formula: c}}}}\n",
	         "which a column of the ranges has"},
	};
	for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
		cli_write(&c, "bad.yaml", bad[i].text);
		nexus("on", "run t.yaml --set counters=bad.yaml -o x.h5");
		ck_assert_msg(c.status == 2 && strstr(c.err, bad[i].says), "%s: %d: %s",
		              bad[i].text, c.status, c.err);
	}
	nexus("on", "run t.yaml --set counters=nowhere.yaml -o x.h5");
	ck_assert_int_eq(c.status, 2);
	ck_assert_ptr_nonnull(strstr(c.err, "default, off"));
	ck_assert(!cli_exists(&c, "x.h5"));
}
END_TEST

START_TEST(groups_have_formulas)
{
	cli_write(&c, "chip.yaml",
	          "chip: LATE\ngroups:\n  other:\n    counters: {t: fake.time}\n  default:\n"
	          "    text: all\n    counters:\n      b: fake.bytes\n      two: two.hard\n"
	          "      ops: fake.flops\n    metrics:\n"
	          "      intensity: {unit: FLOP/B, formula: 2 * ops / (b + b), text: of a step}\n"
	          "      lost: {unit: '1', formula: two / steps}\n"
	          "      rate: {unit: B/s, formula: -(1 - 2) * b / seconds}\n");
	run_with("on", "--set counters=chip.yaml");
	const struct nx_profiled *p = run->cells[1].profiled;
	ck_assert_str_eq(p->group.name, "default");
	ck_assert(p->group.n == 2 && p->group.n_formulas == 3 && p->n_ranges > 0);
	for (size_t i = 0; i < p->n_ranges; i++) {
		const struct nx_ranged *r = &p->ranges[i];
		ck_assert_double_eq_tol(r->worked_out[0], r->values[1] / r->values[0], 1e-9);
		ck_assert(isnan(r->worked_out[1]) && r->worked_out[2] > 0);
	}
	run_with("on", "--force --set counters=chip.yaml:other");
	ck_assert_str_eq(run->cells[0].profiled->group.m[0].name, "fake.time");
	nexus("on", "run t.yaml --set counters=chip.yaml:othre -o x.h5");
	ck_assert_msg(c.status == 2 &&
	                      strstr(c.err, "found no group othre; legal: other, default") != NULL,
	              "%s", c.err);
	nexus("on",
	      "profile -m tiny.gguf --prompts prompts.jsonl --seq-len 16 --threads 1 --dtype f32 "
	      "--device cuda:0 --base plain --steps 20 --counters chip.yaml -o q.h5");
	ck_assert_msg(strstr(c.out, "intensity") && strstr(c.out, "of a step"), "%s", c.out);
}
END_TEST

/* ---- without a device */

START_TEST(formulas_are_worked_out)
{
	static const struct {
		const char *text;
		double v; /* NaN = no formula */
	} cases[] = {
		{"1 + 2 * 3", 7}, {"(1+2)*3", 9},
		{"8 / 2 / 2", 2}, {"a - b - 1", 6},
		{"-a + 20", 10},  {"1e3", 1000},
		{"seconds", 0.5}, {"steps + steps", 2},
		{"a_b", 7},       {"", NAN},
		{"1 +", NAN},     {"(1", NAN},
		{"1)", NAN},      {"c", NAN},
		{"a b", NAN},     {"1 ** 2", NAN},
		{"a_", NAN},      {"(((((((((((((((((((((((((((((((((((((1)))))))", NAN},
	};
	struct nx_metric_group g = {.n = 3};
	const double values[] = {10, 3, 7};
	snprintf(g.m[0].as, sizeof(g.m[0].as), "a");
	snprintf(g.m[1].as, sizeof(g.m[1].as), "b");
	snprintf(g.m[2].as, sizeof(g.m[2].as), "a_b");
	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		double v = -1;
		int rc = nx_formula(&g, cases[i].text, values, 0.5, &v, &err);
		ck_assert_msg(isnan(cases[i].v) ? rc == NX_EINVAL : !rc && v == cases[i].v,
		              "%s: %d, %g: %s", cases[i].text, rc, v, err.msg);
	}
}
END_TEST

START_TEST(overlaps_are_busy_once)
{
	struct nx_profiled p;
	const struct nx_trace_record r[] = {
		{0, 100, NX_TRACE_KERNEL, "a"},   {50, 80, NX_TRACE_COPY, "a"},
		{90, 150, NX_TRACE_KERNEL, "b"},  {200, 300, NX_TRACE_KERNEL, "b"},
		{300, 300, NX_TRACE_SET, "zero"},
	};
	nx_profiled_init(&p);
	ck_assert(isnan(nx_profiled_idle(&p)) && isnan(nx_profiled_perturbation(&p, true)));
	ck_assert_int_eq(nx_profiled_add_trace(&p, r, 5, &err), 0);
	ck_assert_uint_eq(p.window_ns, 300);
	ck_assert_uint_eq(p.busy_ns, 250);
	ck_assert_uint_eq(p.n_kernels, 4); /* a copy and a kernel of one name are two */
	ck_assert_str_eq(p.kernels[0].name, "b");
	ck_assert_uint_eq(p.kernels[0].total_ns, 150); /* b waited for a from 90 to 100 */
	ck_assert_int_eq(nx_profiled_add_trace(&p, r, 0, &err), 0);
	ck_assert(p.n_kernels == 0 && isnan(nx_profiled_idle(&p)));
	nx_profiled_release(&p);
}
END_TEST

START_TEST(steps_that_overlap_have_their_time_once)
{
	const struct nx_step_info s = {.begin_ns = 100, .end_ns = 300};
	ck_assert_uint_eq(nx_step_own_ns(&s, 0), 200);
	ck_assert_uint_eq(nx_step_own_ns(&s, 250), 50);
	ck_assert_uint_eq(nx_step_own_ns(&s, 400), 0);
}
END_TEST

START_TEST(throttles_have_words)
{
	char buf[128];
	ck_assert_str_eq(nx_throttle_text(-1, buf, sizeof(buf)), "");
	ck_assert_str_eq(nx_throttle_text(NX_THROTTLE_POWER | NX_THROTTLE_HEAT, buf, sizeof(buf)),
	                 "power cap, temperature");
}
END_TEST

int main(void)
{
	Suite *s = suite_create("instruments");
	TCase *t = tcase_create("runs"), *p = tcase_create("parts");
	tcase_add_checked_fixture(t, setup, teardown);
	tcase_set_timeout(t, 120);
	tcase_add_test(t, what_the_device_says_is_in_the_run_file);
	tcase_add_test(t, the_report_names_kernels_bounds_and_reasons);
	tcase_add_test(t, a_profile_has_measured_figures);
	tcase_add_test(t, without_permission_the_run_goes_on_and_says_why);
	tcase_add_test(t, a_crash_of_the_profile_worker_costs_no_trial);
	tcase_add_test(t, a_device_that_failed_is_opened_again_for_the_next_cell);
	tcase_add_test(t, a_time_line_comes_only_where_it_is_asked_for);
	tcase_add_test(t, nobody_asks_in_vain);
	tcase_add_test(t, what_disturbs_a_device_marks_the_trial);
	tcase_add_test(t, bad_groups_are_refused_before_anything_runs);
	suite_add_tcase(s, t);
	tcase_add_test(t, groups_have_formulas);
	tcase_add_test(p, formulas_are_worked_out);
	tcase_add_test(p, overlaps_are_busy_once);
	tcase_add_test(p, steps_that_overlap_have_their_time_once);
	tcase_add_test(p, throttles_have_words);
	suite_add_tcase(s, p);
	SRunner *r = srunner_create(s);
	srunner_run_all(r, CK_NORMAL);
	int failed = srunner_ntests_failed(r);
	srunner_free(r);
	return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}
