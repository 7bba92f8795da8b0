/* SPDX-License-Identifier: Apache-2.0
 *
 * test_files.c: the experiments that come with the source: each can be forecast, and the standard ones run through to
 * their report, made small.
 */
#include <check.h>
#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cli_fixture.h"
#include "record/run.h"

static struct cli c;
static char folder[4096];

static void setup(void)
{
	const char *source = getenv("NEXUS_SOURCE");
	ck_assert_ptr_nonnull(source);
	snprintf(folder, sizeof(folder), "%s/experiments", source);
	cli_open(&c);
}

static void teardown(void)
{
	cli_close(&c);
}

static bool is_yaml(const char *name)
{
	const char *dot = strrchr(name, '.');
	return dot && dot != name && strcmp(dot, ".yaml") == 0;
}

START_TEST(every_experiment_can_be_forecast)
{
	DIR *d = opendir(folder);
	char args[5000];
	int n = 0;
	ck_assert_ptr_nonnull(d);
	for (struct dirent *e; (e = readdir(d)) != NULL;) {
		if (!is_yaml(e->d_name))
			continue;
		snprintf(args, sizeof(args), "run '%s/%s' --dry-run --set model=nano", folder,
		         e->d_name);
		int status = cli_run(&c, "", args);
		n++;
		/* A file for a GPU is right as far as it can be told where there is none. */
		if (status == 3 && strstr(c.err, "cuda"))
			continue;
		ck_assert_msg(status == 0, "%s: %s", e->d_name, c.err);
		ck_assert_msg(strstr(c.out, "by owner") && strstr(c.err, " cells, "), "%s", c.err);
	}
	closedir(d);
	ck_assert_int_ge(n, 4);
}
END_TEST

static void run_small(const char *name, const char *sets, size_t n_cells)
{
	char args[6000];
	struct nx_run *r = NULL;
	struct nx_err err = {0};
	snprintf(args, sizeof(args),
	         "run '%s/%s.yaml' -o r.h5 --set model=nano --set threads=1 --set trials=1 %s",
	         folder, name, sets);
	ck_assert_msg(cli_run(&c, "", args) == 0, "%s", c.err);
	ck_assert_msg(nx_run_read(&r, cli_path(&c, "r.h5"), &err) == 0, "%s", err.msg);
	ck_assert_uint_eq(r->n_cells, n_cells);
	for (size_t i = 0; i < r->n_cells; i++) {
		const struct nx_cell_row *row = &r->cells[i];
		ck_assert_msg(row->status == NX_STATUS_OK && row->n_ok == 1, "%s: %s", row->stack,
		              row->cause);
		ck_assert_int_eq(row->gate.n_wrong, 0);
	}
	nx_run_destroy(r);
	ck_assert_msg(cli_run(&c, "", "report r.h5 --format md") == 0, "%s", c.err);
	ck_assert_msg(strstr(c.out, "Output lengths: "), "%s", c.out);
}

START_TEST(the_baselines_run_to_their_report)
{
	run_small("baselines",
	          "--set sweep.batch_size=3 --set sweep.seq_len=8 --set num_requests=4 "
	          "--set 'sweep.output_len={uniform: {min: 2, max: 5}}'",
	          5);
	static const char *const names[] = {"naive", "static", "static_exact", "continuous_max",
	                                    "continuous_exact"};
	for (size_t i = 0; i < sizeof(names) / sizeof(*names); i++)
		ck_assert_msg(strstr(c.out, names[i]), "%s", c.out);
	ck_assert_msg(strstr(c.out,
	                     "The most that refilling freed slots can gain from this skew "
	                     "alone, E[longest of the batch] / E[length]: 1.27 at batch size 3"),
	              "%s", c.out);
}
END_TEST

START_TEST(the_seed_sweep_runs_to_its_report)
{
	run_small("seed",
	          "--set sweep.batch_size=2 --set sweep.seq_len=24 --set sweep.output_len=5 "
	          "--set num_requests=3",
	          4);
	static const char *const names[] = {"baseline", "paged", "speculative", "continuous"};
	for (size_t i = 0; i < sizeof(names) / sizeof(*names); i++)
		ck_assert_msg(strstr(c.out, names[i]), "%s", c.out);
}
END_TEST

/* Lengths and turns as they are in a file, from the file to the report. */
START_TEST(a_data_set_runs_to_its_report)
{
	static const char data[] =
		"[{\"id\": \"1\", \"conversations\": [{\"from\": \"human\", \"value\": \"Is it late?\"}, {\"from\": \"gpt\", \"value\": \"Yes.\"},"
		" {\"from\": \"human\", \"value\": \"How late?\"}, {\"from\": \"gpt\", \"value\": \"Very late, I am sorry.\"}]},\n"
		" {\"id\": \"2\", \"conversations\": []},\n"
		" {\"id\": \"3\", \"conversations\": [{\"from\": \"human\", \"value\": \"Who?\"}, {\"from\": \"gpt\", \"value\": \"It was me.\"}]}]\n";
	static const char text[] =
		"# Does a data set run?\nmodel: tiny.gguf\nbase: plain\ndtype: f32\nthreads: 1\n"
		"workload: {prompts: d.json, turns: all}\nsweep:\n  batch_size: [1, 2]\n  seq_len: {dataset: {min: 1, max: 200}}\n"
		"  output_len: {dataset: {min: 1, max: 50}}\nnum_requests: 3\ntrials: 2\n";
	cli_write(&c, "d.json", data);
	cli_write(&c, "t.yaml", text);
	static const char note[] =
		"1 of 3 entries of the prompts are left out: 1 without a user turn";
	ck_assert_msg(cli_run(&c, "", "run t.yaml --dry-run") == 0, "%s", c.err);
	ck_assert_msg(strstr(c.err, note), "%s", c.err);
	ck_assert_msg(cli_run(&c, "", "run t.yaml -o o.h5") == 0, "%s", c.err);
	ck_assert_msg(strstr(c.err, note), "%s", c.err);
	struct nx_run *r = NULL;
	struct nx_err err = {0};
	ck_assert_msg(nx_run_read(&r, cli_path(&c, "o.h5"), &err) == 0, "%s", err.msg);
	const char *fact = nx_fact_get(r->head.facts, r->head.n_facts, "workload_note");
	ck_assert(fact && strncmp(fact, note, strlen(note)) == 0);
	for (size_t i = 0; i < r->n_cells; i++) {
		const struct nx_cell_row *row = &r->cells[i];
		ck_assert_msg(row->status == NX_STATUS_OK, "%s", row->cause);
		ck_assert(row->seq_len > 20 && row->seq_len < 200);
		ck_assert(row->output_len > 2 && row->output_len < 30);
		ck_assert_uint_eq(row->n_out_tokens, 6);
		ck_assert_int_le(row->out_tokens[0], row->out_tokens[5]);
		double mean = 0;
		for (size_t k = 0; k < 6; k++)
			mean += row->out_tokens[k] / 6.0;
		ck_assert_double_eq_tol(row->output_len, mean, 1e-3);
	}
	nx_run_destroy(r);
	ck_assert_msg(cli_run(&c, "", "report o.h5 --format md") == 0, "%s", c.err);
	ck_assert_msg(strstr(c.out, "Output lengths: dataset 1-50 tokens, read and not drawn"),
	              "%s", c.out);
	/* What cannot be made is said by the forecast. */
	ck_assert_msg(cli_run(&c, "", "run t.yaml --dry-run --set num_requests=9") == 1, "%s",
	              c.err);
	ck_assert_msg(strstr(c.out, "found 3 requests with prompts of 1 to 200 tokens"), "%s",
	              c.out);
}
END_TEST

int main(void)
{
	Suite *s = suite_create("files");
	TCase *t = tcase_create("experiments");
	tcase_add_checked_fixture(t, setup, teardown);
	tcase_set_timeout(t, 120);
	tcase_add_test(t, every_experiment_can_be_forecast);
	tcase_add_test(t, the_baselines_run_to_their_report);
	tcase_add_test(t, the_seed_sweep_runs_to_its_report);
	tcase_add_test(t, a_data_set_runs_to_its_report);
	suite_add_tcase(s, t);
	SRunner *run = srunner_create(s);
	srunner_run_all(run, CK_NORMAL);
	int failed = srunner_ntests_failed(run);
	srunner_free(run);
	return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}
