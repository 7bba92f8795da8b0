/* SPDX-License-Identifier: Apache-2.0
 *
 * test_sweep.c: `nexus run` end to end: whatever a cell or a person does to a sweep, no trial is lost and
 * none runs twice. What happens to its processes and disks: test_faults.c, test_faults_disk.c.
 */
#include <check.h>
#include <math.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "cli/sweep.h"
#include "cli_fixture.h"
#include "record/run.h"

#define PAGED "  paged:\n    - paged_attention: {block_size: 16}\n    - continuous_batching\n"

static struct cli c;

static void setup(void)
{
	cli_open(&c);
}

static void teardown(void)
{
	cli_close(&c);
}

static struct nx_run *read_run(const char *name)
{
	struct nx_run *r = NULL;
	struct nx_err err = {0};
	int rc = nx_run_read(&r, cli_path(&c, name), &err);
	ck_assert_msg(!rc, "%s", err.msg);
	return r;
}

static const struct nx_cell_row *row_of(const struct nx_run *r, const char *stack, int32_t batch)
{
	for (size_t i = 0; i < r->n_cells; i++)
		if (!strcmp(r->cells[i].stack, stack) && r->cells[i].batch_size == batch)
			return &r->cells[i];
	ck_abort_msg("no cell %s, batch %d", stack, batch);
	return NULL;
}

static void check_usable(const struct nx_cell_row *row, int32_t n_trials)
{
	ck_assert_msg(row->status == NX_STATUS_OK, "%s: %s", nx_status_name(row->status),
	              row->cause);
	ck_assert_int_eq(row->n_trials, n_trials);
	ck_assert_int_eq(row->n_ok, n_trials);
	ck_assert(isfinite(row->metrics[NX_METRIC_OUTPUT_THROUGHPUT].value));
}

START_TEST(a_sweep_ends_in_one_file_with_all_trials)
{
	cli_experiment(&c, "baseline, paged", PAGED, "trials: 3\n");
	ck_assert_msg(cli_run(&c, "", "run t.yaml -o o.h5") == 0, "%s", c.err);
	ck_assert_str_eq(c.out, "o.h5\n");
	ck_assert(!cli_exists(&c, "o.h5.parts"));
	struct nx_run *r = read_run("o.h5");
	ck_assert_uint_eq(r->n_cells, 4);
	ck_assert_uint_eq(r->n_trials, 12);
	for (size_t i = 0; i < r->n_cells; i++)
		check_usable(&r->cells[i], 3);
	/* paged and continuous_batching claim exactness, so the gate ran and held */
	const struct nx_cell_row *paged = row_of(r, "paged", 3);
	ck_assert_int_eq(paged->gate.ran, 1);
	ck_assert_int_eq(paged->gate.n_wrong, 0);
	ck_assert_int_gt(paged->gate.n_positions, 8);
	ck_assert_ptr_nonnull(nx_fact_get(r->head.facts, r->head.n_facts, "cell_order"));
	nx_run_destroy(r);
}
END_TEST

static bool is_sorted(const uint32_t *order, size_t n)
{
	for (size_t i = 0; i < n; i++)
		if (order[i] != i)
			return false;
	return true;
}

START_TEST(rounds_are_shuffled_each_in_its_way_or_sorted)
{
	enum { N = 24, STACKS = 4 };
	struct nx_experiment x = {.workload = {.seed = 5}, .n_stacks = STACKS};
	uint32_t first[N], order[N], again[N];
	int unsorted_stacks = 0, unsorted_settings = 0;
	for (int32_t round = 0; round < 4; round++) {
		bool seen[N] = {false};
		nx_sweep_order(&x, round, order, N);
		nx_sweep_order(&x, round, again, N);
		ck_assert_mem_eq(order, again, sizeof(order));
		ck_assert(!is_sorted(order, N));
		for (int i = 0; i < N; i++) {
			ck_assert_uint_lt(order[i], N);
			ck_assert(!seen[order[i]]);
			seen[order[i]] = true;
			/* The stacks of a setting, which are compared, run one after another. */
			ck_assert_uint_eq(order[i] / STACKS, order[i / STACKS * STACKS] / STACKS);
			unsorted_stacks += order[i] % STACKS != (uint32_t)i % STACKS;
			unsorted_settings += order[i] / STACKS != (uint32_t)i / STACKS;
		}
		if (round == 0)
			memcpy(first, order, sizeof(first));
		else
			ck_assert_mem_ne(order, first, sizeof(first));
	}
	ck_assert_int_gt(unsorted_stacks, N); /* of 4 N */
	ck_assert_int_gt(unsorted_settings, N);
	x.order = NX_ORDER_SORTED;
	for (int32_t round = 0; round < 4; round++) {
		nx_sweep_order(&x, round, order, N);
		ck_assert(is_sorted(order, N));
	}
	cli_experiment(&c, "baseline", "  {}\n", "trials: 1\norder: sorted\n");
	ck_assert_msg(cli_run(&c, "", "run t.yaml -o o.h5") == 0, "%s", c.err);
	struct nx_run *r = read_run("o.h5");
	ck_assert_str_eq(nx_fact_get(r->head.facts, r->head.n_facts, "cell_order"),
	                 "sorted: each round as the sweep lists them");
	nx_run_destroy(r);
}
END_TEST

START_TEST(the_default_output_is_named_after_experiment_and_time)
{
	cli_experiment(&c, "baseline", "  {}\n", "trials: 1\n");
	ck_assert_msg(cli_run(&c, "", "run t.yaml") == 0, "%s", c.err);
	ck_assert_int_eq(strncmp(c.out, "results/t-2", 11), 0);
	c.out[strcspn(c.out, "\n")] = '\0';
	ck_assert(cli_exists(&c, c.out));
}
END_TEST

START_TEST(a_dry_run_forecasts_and_runs_nothing)
{
	cli_experiment(&c, "baseline, paged", PAGED, "trials: 3\n");
	ck_assert_msg(cli_run(&c, "", "run t.yaml --dry-run") == 0, "%s", c.err);
	ck_assert_ptr_nonnull(strstr(c.out, "paged"));
	ck_assert_ptr_nonnull(strstr(c.out, "weights"));
	ck_assert_ptr_nonnull(strstr(c.err, "4 cells, 4 fit"));
	ck_assert(!cli_exists(&c, "results"));
	/* What the sweep would say when it draws its prompts. */
	cli_write(&c, "prompts.jsonl", "{\"text\": \"a\"}\n");
	ck_assert_msg(cli_run(&c, "", "run t.yaml --dry-run") == 1, "%s", c.err);
	ck_assert_ptr_nonnull(strstr(c.out, "found too little text for 2 different prompts"));
	ck_assert_ptr_nonnull(strstr(c.err, "4 cells, 0 fit"));
}
END_TEST

START_TEST(a_cell_that_cannot_fit_is_skipped_with_its_reason)
{
	cli_experiment(&c, "baseline", "  {}\n", "trials: 2\n");
	ck_assert_msg(cli_run(&c, "", "run t.yaml -o o.h5 --set sweep.seq_len=16,250") == 0, "%s",
	              c.err);
	struct nx_run *r = read_run("o.h5");
	ck_assert_uint_eq(r->n_cells, 4);
	ck_assert_uint_eq(r->n_trials, 2 * 2 + 2);
	int skipped = 0;
	for (size_t i = 0; i < r->n_cells; i++)
		if (r->cells[i].status == NX_STATUS_SKIPPED) {
			skipped++;
			ck_assert_str_eq(
				r->cells[i].cause,
				"prompt 250 + output 8 is over the model's context 256; legal: a shorter seq_len or output_len");
		}
	ck_assert_int_eq(skipped, 2);
	nx_run_destroy(r);
}
END_TEST

/* The model is only forecast: no machine holds 4096 of its contexts, and where a stack packs weights nobody loads
 * them before it is known that they fit. */
START_TEST(what_a_skipped_cell_would_take_is_kept_and_shown)
{
	cli_experiment(&c, "baseline, int4", "  int4: [quantized_kv: {type: int4}, weight_quant]\n",
	               "trials: 1\n");
	ck_assert_msg(
		cli_run(&c, "",
	                "run t.yaml -o o.h5 --set model=llama-7b --set dtype=bf16 --set num_requests=1 --set "
	                "sweep.batch_size=4096 --set workload.prompts=random") == 1,
		"%s", c.err);
	struct nx_run *r = read_run("o.h5");
	uint64_t kv[2] = {0}, weights[2] = {0};
	ck_assert_uint_eq(r->n_cells, 2);
	for (size_t i = 0; i < 2; i++) {
		const struct nx_cell_row *row = &r->cells[i];
		ck_assert_int_eq(row->status, NX_STATUS_SKIPPED);
		for (size_t k = 0; k < row->n_mem; k++)
			if (!strcmp(row->mem[k].owner, "kv"))
				kv[i] = row->mem[k].reserved_bytes;
			else if (!strcmp(row->mem[k].owner, "weights"))
				weights[i] = row->mem[k].reserved_bytes;
	}
	size_t plain = strcmp(r->cells[0].stack, "baseline") ? 1 : 0;
	nx_run_destroy(r);
	/* 4096 contexts of 4096 tokens, 32 layers of K and V, 4096 values of 2 bytes (bf16) */
	ck_assert_uint_eq(kv[plain], 4096ull * 4096 * 32 * 2 * 4096 * 2);
	ck_assert_uint_lt(3 * kv[!plain], kv[plain]);
	ck_assert_uint_gt(weights[plain], 13ull * 1000 * 1000 * 1000);
	ck_assert_uint_lt(weights[!plain], weights[plain] / 2);
	ck_assert_msg(cli_run(&c, "", "report o.h5 --format md") == 0, "%s", c.err);
	ck_assert_msg(strstr(c.out, "iB, forecast |"), "%s", c.out);
	ck_assert_msg(cli_run(&c, "", "report o.h5 --format json") == 0, "%s", c.err);
	ck_assert_ptr_nonnull(strstr(c.out, "\"memory_is_forecast\": true"));
}
END_TEST

START_TEST(adaptive_trials_stop_at_the_minimum_when_the_interval_is_wide_enough)
{
	cli_experiment(&c, "baseline", "  {}\n", "trials: {min: 3, max: 9, rel_ci: 0.9}\n");
	ck_assert_msg(cli_run(&c, "", "run t.yaml -o o.h5 --set num_requests=16") == 0, "%s",
	              c.err);
	struct nx_run *r = read_run("o.h5");
	int32_t fewest = 9;
	for (size_t i = 0; i < r->n_cells; i++) {
		ck_assert_int_ge(r->cells[i].n_trials, 3);
		ck_assert_int_le(r->cells[i].n_trials, 9);
		fewest = r->cells[i].n_trials < fewest ? r->cells[i].n_trials : fewest;
	}
	ck_assert_int_lt(fewest, 9); /* the rule itself is tested on made-up series in test_stats */
	nx_run_destroy(r);
}
END_TEST

static void check_faulty(const char *stack, int status, const char *words, const char *env)
{
	char stacks[256], list[64];
	snprintf(stacks, sizeof(stacks), "  %s: [%s]\n", stack, stack);
	snprintf(list, sizeof(list), "baseline, %s", stack);
	cli_experiment(&c, list, stacks,
	               status == NX_STATUS_TIMEOUT ? "trials: 2\ntimeout: 2s\n" : "trials: 2\n");
	ck_assert_msg(cli_run(&c, env, "run t.yaml -o o.h5") == 1, "%s", c.err);
	struct nx_run *r = read_run("o.h5");
	for (int32_t batch = 1; batch <= 3; batch += 2) {
		check_usable(row_of(r, "baseline", batch), 2);
		const struct nx_cell_row *bad = row_of(r, stack, batch);
		ck_assert_msg(bad->status == status, "%s: %s", nx_status_name(bad->status),
		              bad->cause);
		ck_assert_int_eq(bad->n_trials, 1); /* it is not tried again */
		ck_assert_msg(strstr(bad->cause, words) != NULL, "%s", bad->cause);
	}
	nx_run_destroy(r);
}

START_TEST(a_crash_costs_its_cell_only)
{
	check_faulty("crash", NX_STATUS_CRASHED, "signal 11", "");
	ck_assert_ptr_nonnull(strstr(c.err, "stack crash, batch size 3"));
}
END_TEST

START_TEST(a_hang_costs_its_cell_only)
{
	check_faulty("hang", NX_STATUS_TIMEOUT, "2 s (timeout)", "");
}
END_TEST

START_TEST(taking_all_memory_costs_its_cell_only)
{
	check_faulty("hog", NX_STATUS_OUT_OF_MEMORY, "hog", "NEXUS_MEMORY_LIMIT=512MiB");
}
END_TEST

/* Starts a sweep of 4 cells x 12 rounds and waits until some, not all, of it is done. */
static pid_t start_long_sweep(const char *set)
{
	const char *const argv[] = {"nexus", "run", "t.yaml", "-o", "o.h5", "--set", set, NULL};
	struct timespec t = {.tv_nsec = 2000000};
	cli_experiment(&c, "baseline, paged", PAGED, "trials: 12\n");
	pid_t pid = cli_start(&c, argv);
	for (int i = 0; i < 20000 && cli_shards(&c, "o.h5") < 5; i++)
		nanosleep(&t, NULL);
	ck_assert_int_ge(cli_shards(&c, "o.h5"), 5);
	return pid;
}

static void resume_and_check(int kept)
{
	ck_assert_int_ge(kept, 5);
	ck_assert_int_lt(kept, 48);
	ck_assert_msg(cli_run(&c, "", "run t.yaml -o o.h5 --resume --set min_effect=0.01") == 0,
	              "%s", c.err);
	struct nx_run *r = read_run("o.h5");
	/* 4 cells x 12 rounds, and each cell has each round once */
	ck_assert_uint_eq(r->n_trials, 48);
	for (size_t i = 0; i < r->n_cells; i++)
		check_usable(&r->cells[i], 12);
	nx_run_destroy(r);
}

START_TEST(an_interrupt_keeps_the_trials_and_says_how_to_go_on)
{
	pid_t pid = start_long_sweep("min_effect=0.01");
	int w = 0;
	ck_assert_int_eq(kill(pid, SIGINT), 0);
	ck_assert_int_eq(waitpid(pid, &w, 0), pid);
	ck_assert_msg(WIFEXITED(w) && WEXITSTATUS(w) == 1, "status %x", (unsigned)w);
	ck_assert(cli_group_gone(pid, 10));
	resume_and_check(cli_shards(&c, "o.h5"));
}
END_TEST

/* With sizes that were found: they are taken from the trials, since no worker is asked. */
START_TEST(an_interrupted_run_can_end_where_it_is)
{
	pid_t pid = start_long_sweep("sweep.batch_size=fit");
	int w = 0;
	ck_assert_int_eq(kill(pid, SIGINT), 0);
	ck_assert_int_eq(waitpid(pid, &w, 0), pid);
	int kept = cli_shards(&c, "o.h5");
	ck_assert_int_ge(kept, 5);
	ck_assert_int_lt(kept, 24);
	ck_assert_int_eq(cli_run(&c, "", "run t.yaml -o o.h5 --finish"), 2);
	ck_assert_msg(strstr(c.err, "of another configuration") != NULL, "%s", c.err);
	ck_assert_int_eq(cli_shards(&c, "o.h5"), kept);
	static const char *const excluded[] = {"--resume", "--force", "--dry-run"};
	for (size_t i = 0; i < sizeof(excluded) / sizeof(*excluded); i++) {
		char args[128];
		snprintf(args, sizeof(args), "run t.yaml -o o.h5 --finish %s", excluded[i]);
		ck_assert_int_eq(cli_run(&c, "", args), 2);
		ck_assert_msg(strstr(c.err, "excludes") != NULL, "%s", c.err);
	}
	/* A trial of a cell that this program does not have: nothing is merged, nothing is removed. */
	char strange[4096];
	snprintf(strange, sizeof(strange), "%s", cli_path(&c, "o.h5.parts/ffffffffffffffff-r0.h5"));
	FILE *f = fopen(strange, "w");
	ck_assert_ptr_nonnull(f);
	fclose(f);
	snprintf(strange, sizeof(strange),
	         "cp $(ls %s/*-r0.h5 | grep -v ffff | head -n 1) %s/ffffffffffffffff-r0.h5",
	         cli_path(&c, "o.h5.parts"), cli_path(&c, "o.h5.parts"));
	ck_assert_int_eq(system(strange), 0);
	ck_assert_int_eq(cli_run(&c, "", "run t.yaml -o o.h5 --finish --set sweep.batch_size=fit"),
	                 2);
	ck_assert_msg(strstr(c.err, "as this program reads it") != NULL, "%s", c.err);
	ck_assert_int_eq(cli_shards(&c, "o.h5"), kept + 1);
	ck_assert_int_eq(remove(cli_path(&c, "o.h5.parts/ffffffffffffffff-r0.h5")), 0);
	ck_assert_msg(cli_run(&c, "", "run t.yaml -o o.h5 --finish --set sweep.batch_size=fit") ==
	                      0,
	              "%s", c.err);
	struct nx_run *r = read_run("o.h5");
	ck_assert_uint_eq(r->n_trials, (size_t)kept);
	ck_assert_uint_eq(r->n_cells, 2);
	for (size_t i = 0; i < r->n_cells; i++)
		ck_assert_int_gt(r->cells[i].batch_size, 0);
	ck_assert_str_ne(r->head.device.name, "");
	ck_assert_ptr_nonnull(nx_fact_get(r->head.facts, r->head.n_facts, "ended_early"));
	nx_run_destroy(r);
	ck_assert_int_eq(access(cli_path(&c, "o.h5.parts"), F_OK), -1);
	ck_assert_int_eq(cli_run(&c, "", "run t.yaml -o o.h5 --finish --set sweep.batch_size=fit"),
	                 2);
	ck_assert_int_eq(cli_run(&c, "", "run t.yaml -o none.h5 --finish"), 2);
	ck_assert_ptr_nonnull(strstr(c.err, "none.h5"));
}
END_TEST

START_TEST(nothing_to_resume_is_bad_usage)
{
	cli_experiment(&c, "baseline", "  {}\n", "trials: 1\n");
	ck_assert_int_eq(cli_run(&c, "", "run t.yaml --resume"), 2);
	ck_assert_ptr_nonnull(strstr(c.err, "nothing to resume"));
}
END_TEST

START_TEST(an_output_that_cannot_be_written_stops_before_anything_runs)
{
	cli_experiment(&c, "baseline", "  {}\n", "trials: 1\n");
	ck_assert_int_eq(cli_run(&c, "", "run t.yaml -o nowhere/o.h5"), 2);
	ck_assert_int_eq(cli_run(&c, "", "run t.yaml -o /proc/o.h5"), 3);
	ck_assert_ptr_nonnull(strstr(c.err, "/proc"));
	if (geteuid() == 0) {
		printf("a folder without write permission: not tested, root may write anywhere\n");
		return;
	}
	ck_assert_int_eq(mkdir(cli_path(&c, "locked"), 0500), 0);
	ck_assert_int_eq(cli_run(&c, "", "run t.yaml -o locked/o.h5"), 3);
	ck_assert_ptr_nonnull(strstr(c.err, "cannot be written"));
}
END_TEST

int main(void)
{
	Suite *s = suite_create("sweep");
	TCase *t = tcase_create("sweep");
	tcase_add_checked_fixture(t, setup, teardown);
	tcase_set_timeout(t, 60);
	tcase_add_test(t, a_sweep_ends_in_one_file_with_all_trials);
	tcase_add_test(t, rounds_are_shuffled_each_in_its_way_or_sorted);
	tcase_add_test(t, the_default_output_is_named_after_experiment_and_time);
	tcase_add_test(t, a_dry_run_forecasts_and_runs_nothing);
	tcase_add_test(t, a_cell_that_cannot_fit_is_skipped_with_its_reason);
	tcase_add_test(t, what_a_skipped_cell_would_take_is_kept_and_shown);
	tcase_add_test(t, adaptive_trials_stop_at_the_minimum_when_the_interval_is_wide_enough);
	tcase_add_test(t, a_crash_costs_its_cell_only);
	tcase_add_test(t, a_hang_costs_its_cell_only);
	tcase_add_test(t, taking_all_memory_costs_its_cell_only);
	tcase_add_test(t, an_interrupt_keeps_the_trials_and_says_how_to_go_on);
	tcase_add_test(t, an_interrupted_run_can_end_where_it_is);
	tcase_add_test(t, nothing_to_resume_is_bad_usage);
	tcase_add_test(t, an_output_that_cannot_be_written_stops_before_anything_runs);
	suite_add_tcase(s, t);
	SRunner *r = srunner_create(s);
	srunner_run_all(r, CK_NORMAL);
	int failed = srunner_ntests_failed(r);
	srunner_free(r);
	return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}
