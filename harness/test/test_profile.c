/* SPDX-License-Identifier: Apache-2.0
 *
 * test_profile.c: `nexus profile` from its options to its run file, and the profile of a constructed run.
 */
#include <check.h>
#include <jansson.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "cli_fixture.h"
#include "present/profile.h"
#include "record/run.h"

#define SMALL "profile -m tiny.gguf --prompts prompts.jsonl --seq-len 16 --threads 1 --dtype f32 "

static struct cli c;
static struct nx_run *run;
static json_t *json;

static void setup(void)
{
	cli_open(&c);
}

static void teardown(void)
{
	nx_run_destroy(run);
	json_decref(json);
	run = NULL;
	json = NULL;
	cli_close(&c);
}

static void expect(int status, const char *args, const char *on_stderr)
{
	cli_run(&c, "", args);
	ck_assert_msg(c.status == status, "nexus %s: status %d, not %d: %s", args, c.status, status,
	              c.err);
	ck_assert_msg(!on_stderr || strstr(c.err, on_stderr), "nexus %s: stderr is '%s'", args,
	              c.err);
	ck_assert_msg(!status || !c.out[0], "nexus %s: stdout is '%s'", args, c.out);
}

static void read_run(const char *name)
{
	struct nx_err err = {0};
	nx_run_destroy(run);
	run = NULL;
	ck_assert_msg(!nx_run_read(&run, cli_path(&c, name), &err), "%s", err.msg);
}

START_TEST(bad_options_are_named_before_anything_runs)
{
	expect(2, "profile", "--model is missing");
	expect(2, "profile -m nono", "did you mean \"nano\"");
	expect(2, "profile -m not.gguf --prompts prompts.jsonl", "not.gguf");
	expect(2, SMALL "--batch-size 0", "--batch-size is 0; legal are 1 to");
	expect(2, SMALL "--batch-size many", "takes an integer");
	expect(2, SMALL "--steps 0", "--steps");
	expect(2, SMALL "--output-len 1", "--output-len");
	expect(2, SMALL "--output-len 2 --steps 5000", "--steps 5000");
	expect(2, SMALL "--dtype f16", "bf16, f32");
	expect(2, SMALL "--base tunde", "did you mean tuned");
	expect(2, SMALL "--kv-memory much", "--kv-memory");
	expect(2, SMALL "--batch 3", "did you mean '--batch-size'");
	expect(2, SMALL "--format xml", "text, md, csv and json");
	expect(2, SMALL "--steps 100000", "context");
	expect(2, SMALL "--device gpu", "legal: cpu");
	expect(2, SMALL "-o nowhere/p.h5", "nowhere");
	expect(2, "profile -m tiny.gguf --prompts none.jsonl", "none.jsonl");
	expect(2, SMALL "--stack none.yaml", "none.yaml");
	expect(2, SMALL "--stack none.yaml:x", "none.yaml");
	cli_experiment(&c, "baseline", "  {}\n", "");
	expect(2, SMALL "--stack t.yaml", "has no stacks");
	cli_experiment(&c, "paged", "  paged:\n    - paged_attention: {block_size: 16}\n", "");
	expect(2, SMALL "--stack t.yaml:pagde", "did you mean paged?");
	ck_assert(!cli_exists(&c, "results"));
}
END_TEST

START_TEST(it_writes_a_run_file_with_phases)
{
	expect(0, SMALL "--batch-size 3 --steps 7 -o p.h5", "p.h5");
	ck_assert_ptr_nonnull(strstr(c.out, "decode"));
	ck_assert_ptr_nonnull(strstr(c.out, "weights"));
	/* Peaks are not calibrated in tests, and nothing is claimed then. */
	ck_assert_ptr_nonnull(strstr(c.out, "not known"));
	ck_assert_ptr_null(strstr(c.out, "nan"));
	ck_assert(!cli_exists(&c, "p.h5.parts"));
	read_run("p.h5");
	ck_assert_uint_eq(run->n_cells, 1);
	ck_assert_str_eq(run->head.name, "profile");
	const struct nx_cell_row *cell = &run->cells[0];
	ck_assert_str_eq(cell->stack, "baseline");
	ck_assert_int_eq(cell->batch_size, 3);
	const struct nx_phase_use *pre = &cell->phases[NX_PHASE_PREFILL],
				  *dec = &cell->phases[NX_PHASE_DECODE];
	ck_assert_int_eq(pre->n_steps, 1);
	ck_assert_int_eq(pre->rows, 3 * 16);
	ck_assert_int_eq(dec->n_steps, 7);
	ck_assert_int_eq(dec->rows, 7 * 3);
	ck_assert_int_eq(dec->n_emit, 7 * 3);
	ck_assert(dec->counted.weight_bytes > 0 && dec->counted.kv_bytes > 0 &&
	          dec->counted.flops > 0);
	/* A prompt's products are over 16 times the rows. */
	ck_assert_uint_gt(pre->counted.flops, dec->counted.flops);
	expect(2, SMALL "--steps 2 -o p.h5", "p.h5");
	expect(0, SMALL "--steps 2 -o p.h5 --force --prompts random", NULL);
}
END_TEST

START_TEST(shorter_outputs_take_more_requests)
{
	expect(0, SMALL "--batch-size 2 --steps 9 --output-len 4 -o p.h5", NULL);
	read_run("p.h5");
	ck_assert_int_eq(run->cells[0].num_requests, 6);
	ck_assert_int_ge(run->cells[0].phases[NX_PHASE_DECODE].n_steps, 9);
}
END_TEST

START_TEST(stacks_come_from_files)
{
	cli_experiment(&c, "a, b",
	               "  a:\n    - paged_attention: {block_size: [8, 16]}\n"
	               "  b:\n    - continuous_batching\n",
	               "");
	expect(0, SMALL "--stack t.yaml --steps 2 -o all.h5", NULL);
	read_run("all.h5");
	ck_assert_uint_eq(run->n_cells, 3);
	expect(0, SMALL "--stack t.yaml:a --steps 2 -o a.h5", NULL);
	read_run("a.h5");
	ck_assert_uint_eq(run->n_cells, 2);
	expect(0, SMALL "--stack 't.yaml:a[block_size=16]' --steps 2 -o one.h5", NULL);
	read_run("one.h5");
	ck_assert_uint_eq(run->n_cells, 1);
	ck_assert_str_eq(run->cells[0].stack, "a[block_size=16]");
	/* A file of stacks alone does as well. */
	cli_write(&c, "s.yaml", "stacks:\n  b:\n    - continuous_batching\n");
	expect(0, SMALL "--stack s.yaml --steps 2 -o s.h5", NULL);
}
END_TEST

START_TEST(machines_get_clean_output)
{
	expect(0, SMALL "--steps 3 --format json -o p.h5", NULL);
	json = json_loads(c.out, 0, NULL);
	ck_assert_msg(json != NULL, "%s", c.out);
	const json_t *cell = json_array_get(json_object_get(json, "cells"), 0);
	ck_assert_uint_eq(json_array_size(json_object_get(cell, "phases")), 2);
	ck_assert_uint_gt(json_array_size(json_object_get(cell, "memory")), 1);
	ck_assert_str_eq(json_string_value(json_object_get(cell, "bound")), "unknown");
	const json_t *phase = json_array_get(json_object_get(cell, "phases"), 1);
	ck_assert_str_eq(json_string_value(json_object_get(phase, "phase")), "decode");
	ck_assert(json_integer_value(json_object_get(phase, "counted_flops")) > 0);
	ck_assert(json_is_null(json_object_get(phase, "util_compute")));
	expect(0, SMALL "--steps 3 --format csv -o q.h5", NULL);
	ck_assert_ptr_eq(strstr(c.out, "stack,batch_size,"), c.out);
	ck_assert_ptr_nonnull(strstr(c.out, "\nbaseline,1,16,4,ok,"));
	expect(0, SMALL "--steps 3 --format md -o r.h5", NULL);
	ck_assert_ptr_nonnull(strstr(c.out, "| phase |"));
}
END_TEST

START_TEST(a_cell_that_cannot_run_says_why)
{
	cli_run(&c, "", SMALL "--batch-size 4 --kv-memory 1kB --steps 3 --format json -o p.h5");
	ck_assert_int_eq(c.status, 1);
	json = json_loads(c.out, 0, NULL);
	ck_assert_msg(json != NULL, "%s", c.out);
	const json_t *cell = json_array_get(json_object_get(json, "cells"), 0);
	ck_assert_str_eq(json_string_value(json_object_get(cell, "status")), "skipped");
	ck_assert_msg(json_string_length(json_object_get(cell, "why")) > 10, "%s", c.out);
}
END_TEST

START_TEST(every_phase_of_the_enum_is_shown)
{
	/* Ten seconds on a device of 10 GB/s and 100 GFLOP/s; no phase of it is special to the writer. */
	static struct nx_cell_row cell;
	struct nx_run r = {.cells = &cell, .n_cells = 1};
	struct nx_text text;
	struct nx_err err = {0};
	struct nx_profile p;
	memset(&cell, 0, sizeof(cell));
	r.head.calibration.read_bytes_per_s = 10e9;
	r.head.calibration.bf16_flops_per_s = 100e9;
	r.head.device.mem_bytes = 1ull << 36;
	cell.batch_size = 1;
	cell.n_ok = cell.n_trials = 1;
	for (int i = 0; i < NX_METRIC_COUNT; i++)
		cell.metrics[i].value = NAN;
	cell.n_mem = 1;
	cell.mem[0] = (struct nx_mem_use){"weights", 1ull << 33, 1ull << 33};
	for (int i = 0; i < NX_PHASE_COUNT; i++)
		cell.phases[i] = (struct nx_phase_use){.phase = i,
		                                       .n_steps = 10,
		                                       .rows = 10,
		                                       .n_seqs = 10,
		                                       .time_ns = 1000000000u + (unsigned)i,
		                                       .counted = {9000000000u, 1, 1, 1000000000u},
		                                       .perf_llc_misses = NAN};
	cell.phases[0].counted.weight_bytes = 20000000000u; /* above the peak */
	cell.phases[1].perf_llc_misses = 1e8;
	nx_profile_of(&r, &cell, &p);
	ck_assert_int_eq(p.main, NX_PHASE_COUNT - 1);
	ck_assert_ptr_nonnull(strstr(p.why, "bound by bandwidth"));
	ck_assert_double_eq_tol(p.phases[1].bottleneck.bandwidth, 0.64, 1e-9); /* measured */
	ck_assert_str_eq(p.phases[1].figures.source, "perf");
	ck_assert_str_eq(p.phases[2].figures.source, "counted");
	ck_assert(p.phases[2].figures.tile_rows == 0);
	r.head.device.caps = NX_DEV_TILES;
	nx_profile_of(&r, &cell, &p);
	ck_assert(p.phases[2].figures.tile_rows == NX_TILE_ROWS);
	nx_text_init(&text);
	ck_assert_int_eq(nx_profile_write(&r, NULL, NX_TABLE_TEXT, &text, &err), 0);
	for (int i = 0; i < NX_PHASE_COUNT; i++)
		ck_assert_msg(strstr(text.s, nx_phase_name(i)) != NULL, "%s", text.s);
	ck_assert_msg(strstr(text.s, "200 % !") != NULL, "%s", text.s);
	ck_assert_ptr_nonnull(strstr(text.s, "above its calibrated peak"));
	ck_assert_ptr_null(strstr(text.s, "nan"));
	nx_text_release(&text);
}
END_TEST

int main(void)
{
	Suite *s = suite_create("profile");
	TCase *t = tcase_create("profile");
	tcase_add_checked_fixture(t, setup, teardown);
	tcase_set_timeout(t, 120);
	tcase_add_test(t, bad_options_are_named_before_anything_runs);
	tcase_add_test(t, it_writes_a_run_file_with_phases);
	tcase_add_test(t, shorter_outputs_take_more_requests);
	tcase_add_test(t, stacks_come_from_files);
	tcase_add_test(t, machines_get_clean_output);
	tcase_add_test(t, a_cell_that_cannot_run_says_why);
	tcase_add_test(t, every_phase_of_the_enum_is_shown);
	suite_add_tcase(s, t);
	SRunner *r = srunner_create(s);
	srunner_run_all(r, CK_NORMAL);
	int failed = srunner_ntests_failed(r);
	srunner_free(r);
	return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}
