/* SPDX-License-Identifier: Apache-2.0
 *
 * test_faults_disk.c: disks fill up, turn read-only and fail at every call in turn; the wall clock jumps.
 * A run then ends with one sentence and the right status, and can be gone on with: nothing is lost, nothing
 * is there twice. Processes that die: test_faults.c.
 *
 * NEXUS_TEST_LONG: every call and many sizes instead of some.
 */
#include <check.h>
#include <errno.h>
#include <glob.h>
#include <limits.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "fault_fixture.h"

static struct cli c;

static void setup(void)
{
	cli_open(&c);
}

static void teardown(void)
{
	fault_disk_gone(&c, "disk");
	cli_close(&c);
}

/* ---- every call in turn ----------------------------------------------------------------------- */

#define CELLS 2
#define ROUNDS 2

static void finish(struct ledger *l, int worst, const char *what)
{
	struct tally t;
	ledger_look(l);
	int status = fault_resume(&c, "o.h5");
	/* between the rename of the run file and the end of its shards there is nothing to go on with */
	ck_assert_msg(status <= worst, "%s: resuming ended with %d: %s", what, status, c.err);
	if (cli_exists(&c, "o.h5.parts") && !cli_shards(&c, "o.h5"))
		(void)fault_resume(&c, "o.h5");
	ledger_finish(l, &t);
	if (!worst)
		ck_assert_msg(t.n_by_status[NX_STATUS_OK] == CELLS * ROUNDS, "%s: %d of %d trials",
		              what, t.n_by_status[NX_STATUS_OK], CELLS * ROUNDS);
	ledger_release(l);
}

/* The k-th call fails, for k = first, first + stride, ... until the run has fewer calls or `most` were
 * tried; in the long form for every k. */
static void fail_each(const char *how, bool sticky, int first, int stride, int most)
{
	if (fault_long()) {
		first = stride = 1;
		most = INT_MAX;
	}
	bool killed = how[0] == 'k', died = how[0] == 'd';
	int n = 0, by_status[4] = {0};
	fault_experiment(&c, CELLS, ROUNDS, "");
	for (int k = first; n < most; k += stride) {
		struct ledger l;
		char what[64];
		snprintf(what, sizeof(what), "call %d, %s", k, how);
		fault_clear(&c);
		int status =
			cli_run(&c, fault_env(&c, "o.h5", k, how, sticky), "run t.yaml -o o.h5");
		if (fault_count(&c) < k) {
			ck_assert_msg(status == 0, "%d: %s", status, c.err);
			break;
		}
		n++;
		if (killed || (died && status == 128 + SIGKILL)) {
			ck_assert_int_eq(status, 128 + SIGKILL);
		} else {
			ck_assert_msg(status == 0 || status == (died ? 1 : 3), "%s: %d: %s", what,
			              status, c.err);
			by_status[status]++;
			/* what is wrong, and how to go on */
			if (status == 3)
				ck_assert_msg(fault_sentences(&c) >= 1 && fault_sentences(&c) <= 2,
				              "%s: %s", what, c.err);
		}
		ledger_init(&l, &c, "o.h5", CELLS, ROUNDS);
		finish(&l, died ? 1 : 0, what);
	}
	ck_assert_int_gt(n, 0);
	printf("%s%s: %d of the calls failed in turn, ended 0 %d times, 1 %d, 3 %d\n", how,
	       sticky ? ", and all after it" : "", n, by_status[0], by_status[1], by_status[3]);
}

START_TEST(each_call_that_fails_once_is_survived)
{
	char how[16];
	snprintf(how, sizeof(how), "%d", EIO);
	fail_each(how, false, 32, 23, 2);
}
END_TEST

START_TEST(a_disk_that_fills_up_at_any_call_is_survived)
{
	char how[16];
	snprintf(how, sizeof(how), "%d", ENOSPC);
	fail_each(how, true, 43, 1, 1);
}
END_TEST

START_TEST(a_disk_that_turns_read_only_at_any_call_is_survived)
{
	char how[16];
	snprintf(how, sizeof(how), "%d", EROFS);
	fail_each(how, true, 20, 1, 1);
}
END_TEST

START_TEST(a_parent_killed_at_any_call_loses_nothing)
{
	fail_each("kill", false, 28, 21, 2);
}
END_TEST

START_TEST(a_process_killed_at_any_call_loses_its_trial_alone)
{
	fail_each("die", false, 46, 1, 1);
}
END_TEST

START_TEST(a_worker_that_dies_after_its_trial_was_whole_has_not_crashed)
{
	fault_experiment(&c, CELLS, ROUNDS, "");
	/* The folder is synced after each rename: of the head, of the head with the device, of a trial. */
	for (int k = 3; k <= (fault_long() ? 5 : 3); k++) {
		struct ledger l;
		fault_clear(&c);
		int status = cli_run(&c, fault_env(&c, ".parts/$", k, "die", false),
		                     "run t.yaml -o o.h5");
		ck_assert_int_ge(fault_count(&c), k);
		ck_assert_msg(status == 0, "%d: %s", status, c.err);
		ledger_init(&l, &c, "o.h5", CELLS, ROUNDS);
		finish(&l, 0, "killed after the rename");
	}
}
END_TEST

/* ---- disks ------------------------------------------------------------------------------------ */

START_TEST(a_full_disk_stops_the_sweep_which_then_resumes)
{
	static const int some[] = {8, 160},
			 many[] = {4, 8, 16, 24, 32, 48, 64, 96, 128, 160, 192, 256, 320, 384, 512};
	const int *kib = fault_long() ? many : some;
	size_t n = fault_long() ? sizeof(many) / sizeof(*many) : sizeof(some) / sizeof(*some);
	int n_full = 0;
	if (!fault_disk(&c, "disk", 64))
		return;
	fault_experiment(&c, 4, 6, "");
	for (size_t i = 0; i < n; i++) {
		struct ledger l;
		struct tally t;
		fault_disk_resize(&c, "disk", kib[i], false);
		ledger_init(&l, &c, "disk/o.h5", 4, 6);
		int status = cli_run(&c, "", "run t.yaml -o disk/o.h5");
		ck_assert_msg(status == 3 || status == 0, "%d KiB: %d: %s", kib[i], status, c.err);
		if (status == 3) {
			n_full++;
			ck_assert_int_le(fault_sentences(&c), 2);
			ck_assert_msg(strstr(c.err, "no room") || strstr(c.err, "No space"), "%s",
			              c.err);
			/* still full: it says so again, and spoils nothing */
			ledger_look(&l);
			status = fault_resume(&c, "disk/o.h5");
			ck_assert_msg(status == 3, "%d: %s", status, c.err);
		}
		ledger_look(&l);
		fault_disk_resize(&c, "disk", 64 << 10, false);
		ck_assert_msg(fault_resume(&c, "disk/o.h5") == 0, "%s", c.err);
		ledger_finish(&l, &t);
		ck_assert_int_eq(t.n_by_status[NX_STATUS_OK], 24);
		ledger_release(&l);
		ck_assert_int_eq(unlink(cli_path(&c, "disk/o.h5")), 0);
	}
	ck_assert_int_gt(n_full, 1);
}
END_TEST

START_TEST(a_read_only_folder_stops_before_anything_runs)
{
	fault_experiment(&c, 2, 2, "");
	if (!fault_disk(&c, "disk", 4096))
		return;
	ck_assert_int_eq(mkdir(cli_path(&c, "disk/results"), 0755), 0);
	fault_disk_resize(&c, "disk", 4096, true);
	int status = cli_run(&c, "", "run t.yaml -o disk/results/o.h5");
	ck_assert_msg(status == 3, "%d: %s", status, c.err);
	ck_assert_msg(strstr(c.err, "Read-only") != NULL, "%s", c.err);
	ck_assert_int_eq(fault_sentences(&c), 1);
	fault_disk_resize(&c, "disk", 4096, false);
	ck_assert_msg(cli_run(&c, "", "run t.yaml -o disk/results/o.h5") == 0, "%s", c.err);
	/* a run file that is there can be read where nothing can be written */
	fault_disk_resize(&c, "disk", 4096, true);
	ck_assert_msg(cli_run(&c, "", "report disk/results/o.h5 --format md") == 0, "%s", c.err);
}
END_TEST

START_TEST(a_limit_on_file_sizes_is_a_sentence)
{
	struct ledger l;
	struct tally t;
	fault_experiment(&c, 2, 2, "");
	/* the head still fits, then the shards, then the run file alone does not */
	static const int bytes[] = {2000, 20000, 40000};
	for (size_t i = fault_long() ? 0 : 1; i < sizeof(bytes) / sizeof(*bytes); i++) {
		char env[64];
		snprintf(env, sizeof(env), "prlimit --fsize=%d", bytes[i]);
		ledger_init(&l, &c, "o.h5", 2, 2);
		int status = cli_run(&c, env, "run t.yaml -o o.h5");
		ck_assert_msg(status == 3, "%d bytes: %d: %s", bytes[i], status, c.err);
		ck_assert_msg(strstr(c.err, "File too large") != NULL, "%s", c.err);
		ledger_look(&l);
		ck_assert_msg(fault_resume(&c, "o.h5") == 0, "%s", c.err);
		ledger_finish(&l, &t);
		ck_assert_int_eq(t.n_by_status[NX_STATUS_OK], 4);
		ledger_release(&l);
		fault_clear(&c);
	}
}
END_TEST

/* ---- the wall clock --------------------------------------------------------------------------- */

static void jump(long seconds, const char *args)
{
	ck_assert_msg(cli_run(&c, fault_env_clock(&c, seconds), args) == 0, "%ld s: %s", seconds,
	              c.err);
}

START_TEST(a_wall_clock_that_jumps_changes_no_figure)
{
	struct ledger l;
	struct tally t;
	static const long steps[] = {-3600 * 24 * 365 * 20, 86400, -86400, 3600 * 24 * 365 * 20};
	fault_experiment(&c, 2, 3, "");
	ledger_init(&l, &c, "o.h5", 2, 3);
	for (size_t i = 0; i < (fault_long() ? sizeof(steps) / sizeof(*steps) : 1); i++) {
		struct nx_run *r;
		double begin = fault_now();
		jump(steps[i], "run t.yaml -o o.h5");
		double whole_ms = 1e3 * (fault_now() - begin);
		ledger_finish(&l, &t);
		ck_assert_int_eq(t.n_by_status[NX_STATUS_OK], 6);
		ck_assert_int_eq(nx_run_read(&r, cli_path(&c, "o.h5"), NULL), 0);
		for (size_t k = 0; k < r->n_cells; k++) {
			double s = r->cells[k].metrics[NX_METRIC_DURATION].value;
			ck_assert_msg(s > 0 && 1e3 * s < whole_ms, "%g s", s);
		}
		nx_run_destroy(r);
		fault_clear(&c);
	}
	ledger_release(&l);
}
END_TEST

START_TEST(a_run_resumes_whatever_the_clock_says)
{
	struct ledger l;
	struct tally t;
	static const char *const argv[] = {"nexus", "run", "t.yaml", NULL};
	fault_experiment(&c, 4, 8,
	                 "num_requests: 20\n"); /* long enough to be killed in its midst */
	ck_assert_int_eq(mkdir(cli_path(&c, "results"), 0755), 0);
	pid_t pid = cli_start(&c, argv);
	char name[300] = "";
	double give_up = fault_now() + 60;
	while (!name[0] && fault_now() < give_up) {
		glob_t found;
		if (!glob(cli_path(&c, "results/t-*.parts/*-r2.h5"), 0, NULL, &found))
			snprintf(name, sizeof(name), "%s", found.gl_pathv[0] + strlen(c.dir) + 1);
		else
			fault_sleep(0.002);
		globfree(&found);
	}
	kill(-pid, SIGKILL);
	ck_assert_int_eq(waitpid(pid, NULL, 0), pid);
	ck_assert(cli_group_gone(pid, 60));
	char *end = strstr(name, ".parts/");
	ck_assert_ptr_nonnull(end);
	*end = '\0';
	ledger_init(&l, &c, name, 4, 8);
	ledger_look(&l);
	jump(-86400L * 400, "run t.yaml --resume");
	ck_assert_int_eq(strncmp(c.out, name, strlen(name)), 0);
	ledger_finish(&l, &t);
	ck_assert_int_eq(t.n_by_status[NX_STATUS_OK], 32);
	ledger_release(&l);
	/* and a name that a clock set back has given before is no reason to write over it */
	jump(86400L * 400, "run t.yaml");
	ck_assert(cli_exists(&c, name));
}
END_TEST

int main(void)
{
	Suite *s = suite_create("faults of disk and clock");
	TCase *t = tcase_create("disk");
	tcase_add_checked_fixture(t, setup, teardown);
	tcase_set_timeout(t, fault_long() ? 1200 : 300);
	tcase_add_test(t, each_call_that_fails_once_is_survived);
	tcase_add_test(t, a_disk_that_fills_up_at_any_call_is_survived);
	tcase_add_test(t, a_disk_that_turns_read_only_at_any_call_is_survived);
	tcase_add_test(t, a_parent_killed_at_any_call_loses_nothing);
	tcase_add_test(t, a_process_killed_at_any_call_loses_its_trial_alone);
	tcase_add_test(t, a_worker_that_dies_after_its_trial_was_whole_has_not_crashed);
	tcase_add_test(t, a_full_disk_stops_the_sweep_which_then_resumes);
	tcase_add_test(t, a_read_only_folder_stops_before_anything_runs);
	tcase_add_test(t, a_limit_on_file_sizes_is_a_sentence);
	tcase_add_test(t, a_wall_clock_that_jumps_changes_no_figure);
	tcase_add_test(t, a_run_resumes_whatever_the_clock_says);
	suite_add_tcase(s, t);
	SRunner *r = srunner_create(s);
	srunner_run_all(r, CK_NORMAL);
	int failed = srunner_ntests_failed(r);
	srunner_free(r);
	return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}
