/* SPDX-License-Identifier: Apache-2.0
 *
 * test_void.c: what must not count does not: a machine that others use, a start state that is not clean. And
 * that null techniques are nothing: each gives the steps of the default that it stands for.
 */
#define _GNU_SOURCE /* sched_setaffinity */
#include <check.h>
#include <math.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "cli_fixture.h"
#include "engine_fixture.h"
#include "measure/system.h"
#include "record/run.h"

static struct cli c;

static void setup(void)
{
	cli_open(&c);
}

static void teardown(void)
{
	cli_close(&c);
}

static struct nx_run *read_run(void)
{
	struct nx_run *r = NULL;
	struct nx_err err = {0};
	int rc = nx_run_read(&r, cli_path(&c, "o.h5"), &err);
	ck_assert_msg(!rc, "%s", err.msg);
	return r;
}

/* ---- a busy core ------------------------------------------------------------------------------ */

/* A child that keeps the processor busy on which this test is allowed to run first. */
static pid_t spin(void)
{
	pid_t parent = getpid(), pid = fork();
	ck_assert_int_ge(pid, 0);
	if (pid)
		return pid;
	cpu_set_t may, one;
	CPU_ZERO(&one);
	if (!sched_getaffinity(0, sizeof(may), &may))
		for (int i = 0; i < CPU_SETSIZE && !CPU_COUNT(&one); i++)
			if (CPU_ISSET(i, &may))
				CPU_SET(i, &one);
	(void)sched_setaffinity(0, sizeof(one), &one);
	for (unsigned i = 0;; i++)
		if (!(i & 0xffffff) && getppid() != parent)
			_exit(0);
}

START_TEST(a_busy_core_is_seen_and_named)
{
	struct nx_cpu_sample a, b;
	struct nx_busy busy = {0};
	pid_t pid = spin();
	nx_cpu_sample(&a);
	bool any = nx_busiest_other(0.5, &busy);
	nx_cpu_sample(&b);
	kill(pid, SIGKILL);
	ck_assert_int_eq(waitpid(pid, NULL, 0), pid);
	double load = nx_cpu_load_other(&a, &b), stolen = nx_cpu_load_stolen(&a, &b);
	if (isnan(load)) {
		printf("a busy core: not tested, /proc/stat cannot be read here\n");
		return;
	}
	ck_assert_double_gt(load, 0);
	ck_assert(stolen >= 0 && stolen <= load + 1);
	ck_assert(any && busy.pid > 0 && busy.pid != (int)getpid());
	ck_assert(busy.cores > 0 && busy.name[0]);
}
END_TEST

/* Trials are made longer until ticks of 10 ms can judge them; other tests may add to the load. */
START_TEST(trials_beside_a_busy_core_are_throttled_and_say_who)
{
	char args[160];
	const struct nx_cell_row *row = NULL;
	struct nx_run *r = NULL;
	cli_experiment(&c, "baseline", "  {}\n", "trials: 1\n");
	pid_t pid = spin();
	for (int n = 60; n <= 960 && !(row && row->cause[0]); n *= 4) {
		if (r)
			nx_run_destroy(r);
		snprintf(
			args, sizeof(args),
			"run t.yaml -o o.h5 --force --set sweep.batch_size=1 --set sweep.output_len=230 "
			"--set num_requests=%d",
			n);
		int status = cli_run(&c, "NEXUS_MAX_OTHER_LOAD=0.01", args);
		if (status)
			kill(pid, SIGKILL);
		ck_assert_msg(status == 0, "%s", c.err);
		r = read_run();
		row = &r->cells[0];
	}
	kill(pid, SIGKILL);
	ck_assert_int_eq(waitpid(pid, NULL, 0), pid);
	ck_assert_ptr_nonnull(row);
	ck_assert_msg(strstr(row->cause, "every trial was disturbed, so no verdict is given") !=
	                      NULL,
	              "%s, %g s: %s", row->cause, row->metrics[NX_METRIC_DURATION].value, c.err);
	ck_assert_msg(strstr(row->cause, "cores") && strstr(row->cause, "(limit 0.01)") &&
	                      (strstr(row->cause, "pid ") || strstr(row->cause, "hypervisor")) &&
	                      strstr(row->cause, "and resume"),
	              "%s", row->cause);
	ck_assert_ptr_nonnull(strstr(c.err, "throttled"));
	nx_run_destroy(r);
}
END_TEST

/* ---- a start state that is not clean ----------------------------------------------------------- */

static void run_keeps(const char *what, int status)
{
	char stacks[128];
	snprintf(stacks, sizeof(stacks), "  keeps:\n    - keeps_state: {what: %s}\n", what);
	cli_experiment(&c, "baseline, keeps", stacks, "trials: 2\n");
	ck_assert_msg(cli_run(&c, "", "run t.yaml -o o.h5") == status, "%d: %s", c.status, c.err);
}

static void check_void(const char *what, const char *cause, const char *remedy)
{
	run_keeps(what, 1);
	struct nx_run *r = read_run();
	for (size_t i = 0; i < r->n_cells; i++) {
		const struct nx_cell_row *row = &r->cells[i];
		bool keeps = !strcmp(row->stack, "keeps");
		ck_assert_int_eq(row->status, keeps ? NX_STATUS_INVALID : NX_STATUS_OK);
		ck_assert_int_eq(row->n_ok, keeps ? 0 : 2);
		if (!keeps)
			continue;
		ck_assert_int_eq(row->verdict, NX_VERDICT_NONE);
		ck_assert(isnan(row->speedup.value));
		ck_assert_msg(strstr(row->cause, "the start state is not clean") != NULL, "%s",
		              row->cause);
		ck_assert_msg(strstr(row->cause, cause) && strstr(row->cause, remedy), "%s",
		              row->cause);
	}
	nx_run_destroy(r);
}

START_TEST(a_counter_that_survives_reset_voids_the_cell)
{
	check_void("count", "counter keeps_state.cached reads",
	           "reset() of keeps_state must forget");
}
END_TEST

START_TEST(memory_that_survives_reset_voids_the_cell)
{
	check_void("memory", "keeps_state holds 4096 bytes after the reset and held 0",
	           "given back in destroy()");
}
END_TEST

START_TEST(a_technique_that_says_it_is_warm_voids_the_cell)
{
	check_void("entries", "keeps_state is warm: it keeps ",
	           "a technique of the stack keeps something over reset");
}
END_TEST

START_TEST(a_technique_that_forgets_is_fine)
{
	run_keeps("nothing", 0);
	struct nx_run *r = read_run();
	for (size_t i = 0; i < r->n_cells; i++)
		ck_assert_msg(r->cells[i].n_ok == 2, "%s", r->cells[i].cause);
	nx_run_destroy(r);
}
END_TEST

/* ---- null techniques --------------------------------------------------------------------------- */

static void same_steps(const char *spec, const struct outcome *want, const struct fixture *f,
                       const struct request_set *reqs, const struct run_options *o)
{
	struct outcome got;
	struct nx_err err = {0};
	outcome_init(&got, f, reqs->n, 2, 12, true);
	int rc = run_stack(f, spec, reqs, o, &got, &err);
	ck_assert_msg(!rc, "%s: %s", spec, err.msg);
	ck_assert_int_eq(got.n_steps, want->n_steps);
	ck_assert_mem_eq(got.rows, want->rows, sizeof(want->rows));
	ck_assert_int_eq(got.kv_held_peak, want->kv_held_peak);
	size_t n = (size_t)reqs->n * 2 * 12;
	ck_assert_mem_eq(got.tokens, want->tokens, n * sizeof(*got.tokens));
	ck_assert_mem_eq(got.logits, want->logits, n * (size_t)got.vocab * sizeof(float));
	outcome_release(&got);
}

START_TEST(null_techniques_do_what_the_defaults_do)
{
	static const char *const specs[] = {
		"null_schedule",
		"null_kv_layout",
		"null_attention",
		"null_prefix",
		"null_draft",
		"null_weights",
		"null_schedule,null_kv_layout,null_attention,null_prefix,null_draft,null_weights",
		"null_delay:percent=20",
		"null_delay:percent=20,null_draft"};
	struct fixture f;
	struct request_set reqs;
	struct outcome want;
	struct nx_err err = {0};
	char plugins[600];
	const char *paths[] = {plugins};
	const struct run_options o = {.batch_size = 3};
	fixture_open(&f, NX_F32, NULL, false, 1);
	nx_registry_close(f.registry);
	snprintf(plugins, sizeof(plugins), "%s/test-plugins", getenv("NEXUS_BUILD"));
	ck_assert_msg(!nx_registry_open(&f.registry, paths, 1, getenv("NEXUS_BUILD"), &err), "%s",
	              err.msg);
	requests_make(&reqs, &f, 7, 5, 30, 3, 12, 2, 0, 5);
	outcome_init(&want, &f, 7, 2, 12, true);
	ck_assert_msg(!run_stack(&f, "", &reqs, &o, &want, &err), "%s", err.msg);
	ck_assert_int_gt(want.rows[NX_ROW_PAD], 0);
	for (size_t i = 0; i < sizeof(specs) / sizeof(specs[0]); i++)
		same_steps(specs[i], &want, &f, &reqs, &o);
	/* and the default of the schedule slot lets a drafter draft */
	int64_t undrafted = want.n_steps;
	outcome_release(&want);
	outcome_init(&want, &f, 7, 2, 12, true);
	ck_assert_msg(!run_stack(&f, "prompt_lookup", &reqs, &o, &want, &err), "%s", err.msg);
	ck_assert_int_lt(want.n_steps, undrafted);
	same_steps("prompt_lookup,null_schedule", &want, &f, &reqs, &o);
	outcome_release(&want);
	requests_release(&reqs);
	fixture_close(&f);
}
END_TEST

/* It spins until its share is over, so it is never less, whatever the machine does. */
START_TEST(the_delay_burns_at_least_its_share)
{
	cli_experiment(&c, "baseline, slow", "  slow:\n    - null_delay: {percent: 30}\n",
	               "trials: 1\n");
	ck_assert_msg(cli_run(&c, "", "run t.yaml -o o.h5") == 0, "%s", c.err);
	struct nx_run *r = read_run();
	for (size_t i = 0; i < r->n_cells; i++) {
		const struct nx_cell_row *row = &r->cells[i];
		if (strcmp(row->stack, "slow"))
			continue;
		double burnt = -1;
		for (size_t k = 0; k < row->n_counters; k++)
			if (!strcmp(row->counters[k].name, "null_delay.burnt"))
				burnt = row->counters[k].value;
		ck_assert_double_ge(burnt, 29.9);
	}
	nx_run_destroy(r);
}
END_TEST

int main(void)
{
	Suite *s = suite_create("void");
	TCase *t = tcase_create("void");
	tcase_add_checked_fixture(t, setup, teardown);
	tcase_set_timeout(t, 60);
	tcase_add_test(t, a_busy_core_is_seen_and_named);
	tcase_add_test(t, trials_beside_a_busy_core_are_throttled_and_say_who);
	tcase_add_test(t, a_counter_that_survives_reset_voids_the_cell);
	tcase_add_test(t, memory_that_survives_reset_voids_the_cell);
	tcase_add_test(t, a_technique_that_says_it_is_warm_voids_the_cell);
	tcase_add_test(t, a_technique_that_forgets_is_fine);
	tcase_add_test(t, null_techniques_do_what_the_defaults_do);
	tcase_add_test(t, the_delay_burns_at_least_its_share);
	suite_add_tcase(s, t);
	SRunner *r = srunner_create(s);
	srunner_run_all(r, CK_NORMAL);
	int failed = srunner_ntests_failed(r);
	srunner_free(r);
	return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}
