/* SPDX-License-Identifier: Apache-2.0
 *
 * test_faults.c: processes of a sweep are killed, stopped and doubled. Nothing is lost but the trial in
 * flight, nothing is there twice, and what was whole stays as it was. Disks and clocks: test_faults_disk.c.
 *
 * NEXUS_TEST_LONG: 100 random kills instead of a few. NEXUS_TEST_SEED repeats a series.
 */
#include <check.h>
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/rng.h"
#include "cli/limit.h"
#include "fault_fixture.h"

#define WAIT_S 60.0 /* for what comes at once on a machine that is not busy */

static struct cli c;

static void setup(void)
{
	cli_open(&c);
}

static void teardown(void)
{
	cli_close(&c);
}

static pid_t start(bool resume)
{
	const char *const argv[] = {
		"nexus", "run", "t.yaml", "-o", "o.h5", resume ? "--resume" : NULL, NULL};
	return cli_start(&c, argv);
}

/* The exit status of a run that must end by itself. */
static int status_of(pid_t pid)
{
	int w = 0;
	ck_assert_int_eq(waitpid(pid, &w, 0), pid);
	ck_assert_msg(WIFEXITED(w), "the run died by signal %d", WTERMSIG(w));
	return WEXITSTATUS(w);
}

static bool ended(pid_t pid)
{
	siginfo_t info = {0};
	return !waitid(P_PID, (id_t)pid, &info, WEXITED | WNOHANG | WNOWAIT) && info.si_pid == pid;
}

/* Until n shards are there, or the run is over. */
static void await_shards(pid_t pid, int n)
{
	double end = fault_now() + WAIT_S;
	while (cli_shards(&c, "o.h5") < n && !ended(pid)) {
		ck_assert_msg(fault_now() < end, "no %d shards after %g s", n, WAIT_S);
		fault_sleep(0.001);
	}
}

/* A busy machine may let a run end before this test comes to do it harm: then there is another. */
#define TRIES 20

static void again(pid_t pid)
{
	kill(-pid, SIGKILL);
	(void)waitpid(pid, NULL, 0);
	ck_assert_msg(cli_group_gone(pid, WAIT_S), "a worker outlived its parent");
	fault_clear(&c);
}

/* A run that has n shards at least, and a worker, caught by the signal. */
static pid_t caught_run(int n, int sig)
{
	for (int i = 0; i < TRIES; i++) {
		pid_t pid = start(false);
		await_shards(pid, n);
		bool worker = sig != SIGSTOP;
		kill(-pid, sig);
		fault_sleep(0.01);
		worker |= fault_worker(pid) > 0;
		if (worker && !cli_exists(&c, "o.h5") && cli_shards(&c, "o.h5") >= n)
			return pid;
		again(pid);
	}
	ck_abort_msg("no run could be caught in %d tries", TRIES);
}

/* ---- random kills ----------------------------------------------------------------------------- */

#define KINDS(X)                                                                                   \
	X(WORKER, "worker")                                                                        \
	X(PARENT, "parent")                                                                        \
	X(BOTH, "both")                                                                            \
	X(GROUP, "group")
enum kind {
#define X(id, name) KILL_##id,
	KINDS(X)
#undef X
		N_KINDS
};
static const char *const kind_names[] = {
#define X(id, name) name,
	KINDS(X)
#undef X
};

/* Where a kill found the run. */
#define PLACES(X)                                                                                  \
	X(SET_UP, "before the first worker")                                                       \
	X(TRIALS, "with a worker")                                                                 \
	X(MERGE, "without a worker, at its end")                                                   \
	X(REMOVAL, "while it removed its shards")
enum place {
#define X(id, name) AT_##id,
	PLACES(X)
#undef X
		N_PLACES
};
static const char *const place_names[] = {
#define X(id, name) name,
	PLACES(X)
#undef X
};

struct series {
	struct nx_rng rng;
	int n_cells, rounds, goal;
	double whole_s; /* what an undisturbed sweep takes */
	int n[N_KINDS], at[N_PLACES], n_kills, n_runs, n_sweeps;
	int n_rows, n_crashed;
};

static double some(struct series *s, double most)
{
	return most * (double)nx_rng_below(&s->rng, 1000000) / 1e6;
}

/* Waits for a random moment; false when the run ended before. Three times of four the wait begins when
 * there is a worker: the trials are the smallest part of a run of so few. */
static bool wait_some(struct series *s, pid_t pid, bool *had_worker)
{
	bool await = !*had_worker && nx_rng_below(&s->rng, 4) > 0;
	while (await && !ended(pid) && !(*had_worker = fault_worker(pid) > 0))
		fault_sleep(0.002);
	double end = fault_now() + some(s, s->whole_s * 0.4);
	for (int i = 1; fault_now() < end && !ended(pid); i++) {
		fault_sleep(0.0005);
		if (!*had_worker && i % 20 == 0)
			*had_worker = fault_worker(pid) > 0;
	}
	return !ended(pid);
}

/* One kill; true when the run is over by it. */
static bool strike(struct series *s, pid_t pid, enum kind kind, bool *had_worker)
{
	pid_t worker = fault_worker(pid);
	*had_worker |= worker > 0;
	if (kind == KILL_WORKER && !worker)
		return false; /* none lives just now */
	if (kind == KILL_WORKER || (kind == KILL_BOTH && worker))
		kill(worker, SIGKILL);
	if (kind == KILL_PARENT || kind == KILL_BOTH)
		kill(pid, SIGKILL);
	if (kind == KILL_GROUP)
		kill(-pid, SIGKILL);
	s->n[kind]++;
	s->n_kills++;
	s->at[worker                   ? AT_TRIALS
	      : cli_exists(&c, "o.h5") ? AT_REMOVAL
	      : *had_worker            ? AT_MERGE
	                               : AT_SET_UP]++;
	return kind != KILL_WORKER;
}

/* The worker more often: a run goes on after it. */
static enum kind any_kind(struct series *s)
{
	unsigned k = nx_rng_below(&s->rng, N_KINDS + 2);
	return k < N_KINDS ? (enum kind)k : KILL_WORKER;
}

/* One run of a sweep, killed until it is over; then nothing of it lives on. */
static void one_run(struct series *s, bool resume, int *n_worker_kills)
{
	pid_t pid = start(resume);
	int before[N_KINDS];
	s->n_runs++;
	memcpy(before, s->n, sizeof(before));
	bool over = false, had_worker = false;
	while (!over && s->n_kills < s->goal && wait_some(s, pid, &had_worker))
		over = strike(s, pid, any_kind(s), &had_worker);
	int w = 0;
	ck_assert_int_eq(waitpid(pid, &w, 0), pid);
	ck_assert_msg(cli_group_gone(pid, WAIT_S), "a worker outlived its parent");
	/* a parent may come to write the row of a worker that is killed just before it */
	*n_worker_kills += s->n[KILL_WORKER] - before[KILL_WORKER];
	*n_worker_kills += s->n[KILL_BOTH] - before[KILL_BOTH];
	if (!over)
		ck_assert_msg(WIFEXITED(w) && WEXITSTATUS(w) <= 1, "status %x", (unsigned)w);
}

static void one_sweep(struct series *s)
{
	struct ledger l;
	struct tally t;
	int n_worker_kills = 0;
	bool begun = false;
	ledger_init(&l, &c, "o.h5", s->n_cells, s->rounds);
	while (begun || !cli_exists(&c, "o.h5")) {
		one_run(s, begun, &n_worker_kills);
		ledger_look(&l);
		begun = cli_exists(&c, "o.h5.parts");
	}
	ledger_finish(&l, &t);
	ck_assert_int_eq(t.n_by_status[NX_STATUS_OK] + t.n_by_status[NX_STATUS_CRASHED] +
	                         t.n_by_status[NX_STATUS_OUT_OF_MEMORY],
	                 t.n_rows);
	int n_crashed = t.n_rows - t.n_by_status[NX_STATUS_OK];
	ck_assert_msg(n_crashed <= n_worker_kills, "%d trials crashed, %d workers were killed",
	              n_crashed, n_worker_kills);
	s->n_sweeps++;
	s->n_rows += t.n_rows;
	s->n_crashed += n_crashed;
	ledger_release(&l);
	ck_assert_int_eq(unlink(cli_path(&c, "o.h5")), 0);
}

START_TEST(random_kills_lose_no_trial_and_double_none)
{
	const char *text = getenv("NEXUS_TEST_SEED");
	uint64_t seed = text ? strtoull(text, NULL, 10) : (uint64_t)getpid() * 2654435761u;
	struct series s = {.rng = {seed},
	                   .n_cells = fault_long() ? 12 : 6,
	                   .rounds = fault_long() ? 4 : 2,
	                   .goal = fault_long() ? 100 : 3};
	/* Before anything can fail, and so beside the failure. */
	printf("random kills: NEXUS_TEST_SEED=%llu\n", (unsigned long long)seed);
	fflush(stdout);
	fault_experiment(&c, s.n_cells, s.rounds, "");
	double begin = fault_now();
	ck_assert_int_eq(status_of(start(false)), 0);
	s.whole_s = fault_now() - begin;
	ck_assert_int_eq(unlink(cli_path(&c, "o.h5")), 0);
	while (s.n_kills < s.goal && (fault_long() || s.n_sweeps < 3))
		one_sweep(&s);
	printf("%d kills in %d runs of %d sweeps:", s.n_kills, s.n_runs, s.n_sweeps);
	for (int i = 0; i < N_KINDS; i++)
		printf(" %s %d%s", kind_names[i], s.n[i], i + 1 < N_KINDS ? "," : ";");
	for (int i = 0; i < N_PLACES; i++)
		printf(" %s %d%s", place_names[i], s.at[i], i + 1 < N_PLACES ? "," : "");
	printf("; %d rows, %d of them crashed, none lost, none double\n", s.n_rows, s.n_crashed);
}
END_TEST

START_TEST(a_worker_killed_in_a_trial_is_a_row_that_says_so)
{
	struct ledger l;
	struct tally t;
	fault_experiment(&c, 2, 3, "num_requests: 200\n"); /* long enough to be hit */
	int status = 0;
	for (int i = 0; i < TRIES && status != 1; i++) { /* between two trials it costs none */
		fault_clear(&c);
		pid_t pid = start(false);
		await_shards(pid, 1);
		fault_sleep(0.03);
		pid_t worker = fault_worker(pid);
		if (worker)
			ck_assert_int_eq(kill(worker, SIGKILL), 0);
		status = status_of(pid);
		ck_assert_int_le(status, 1);
	}
	ck_assert_int_eq(status, 1);
	ledger_init(&l, &c, "o.h5", 2, 3);
	ledger_finish(&l, &t);
	ck_assert_int_eq(t.n_by_status[NX_STATUS_OK], t.n_rows - 1);
	struct nx_run *r;
	ck_assert_int_eq(nx_run_read(&r, cli_path(&c, "o.h5"), NULL), 0);
	int found = nx_oom_kills() == UINT64_MAX; /* where that cannot be told */
	for (size_t i = 0; i < r->n_cells; i++)
		found += strstr(r->cells[i].cause, "signal 9") != NULL;
	ck_assert_int_eq(found, 1);
	nx_run_destroy(r);
	ledger_release(&l);
}
END_TEST

START_TEST(a_worker_killed_while_it_loads_is_started_again)
{
	struct ledger l;
	struct tally t;
	int status = 1;
	if (nx_oom_kills() == UINT64_MAX) {
		printf("not tested: this kernel does not count what it kills for want of memory\n");
		return;
	}
	fault_experiment(&c, 2, 2, "");
	for (int i = 0; i < TRIES && status; i++) { /* later it costs a trial */
		pid_t worker = 0;
		fault_clear(&c);
		pid_t pid = start(false);
		while (!(worker = fault_worker(pid)) && !ended(pid))
			;
		ck_assert_int_gt(worker, 0);
		(void)kill(worker, SIGKILL);
		status = status_of(pid);
		ck_assert_int_le(status, 1);
	}
	ck_assert_int_eq(status, 0);
	ledger_init(&l, &c, "o.h5", 2, 2);
	ledger_finish(&l, &t);
	ck_assert_int_eq(t.n_by_status[NX_STATUS_OK], 4);
	ledger_release(&l);
}
END_TEST

/* ---- stops ------------------------------------------------------------------------------------ */

START_TEST(a_stopped_worker_is_a_timeout_and_the_sweep_goes_on)
{
	struct ledger l;
	struct tally t;
	fault_experiment(&c, 4, 4, "timeout: 3s\nnum_requests: 60\n");
	/* the run is held, so that there is a worker to be stopped when it goes on */
	pid_t pid = caught_run(2, SIGSTOP);
	pid_t worker = fault_worker(pid);
	ck_assert_int_gt(worker, 0);
	ck_assert_int_eq(kill(pid, SIGCONT), 0);
	int status = status_of(pid);
	ck_assert_msg(kill(worker, 0) && errno == ESRCH, "the stopped worker is still there");
	ledger_init(&l, &c, "o.h5", 4, 4);
	ledger_finish(&l, &t);
	/* between two trials it costs nothing but the wait */
	ck_assert_int_le(t.n_by_status[NX_STATUS_TIMEOUT], 1);
	ck_assert_int_eq(status, t.n_by_status[NX_STATUS_TIMEOUT]);
	ck_assert_int_eq(t.n_by_status[NX_STATUS_TIMEOUT] + t.n_by_status[NX_STATUS_OK], t.n_rows);
	ledger_release(&l);
}
END_TEST

START_TEST(a_pause_of_the_worker_is_flagged_and_costs_no_trial)
{
	struct ledger l;
	struct tally t;
	fault_experiment(&c, 2, 5, "num_requests: 200\n"); /* most of the time is in trials */
	pid_t pid = caught_run(1, SIGSTOP);
	kill(-pid, SIGCONT);
	for (int i = 0; i < 4; i++) {
		fault_sleep(0.02);
		pid_t worker = fault_worker(pid);
		if (!worker)
			break;
		kill(worker, SIGSTOP);
		fault_sleep(0.1);
		kill(worker, SIGCONT);
	}
	ck_assert_int_eq(status_of(pid), 0);
	ledger_init(&l, &c, "o.h5", 2, 5);
	ledger_finish(&l, &t);
	ck_assert_int_eq(t.n_rows, 10);
	ck_assert_int_ge(t.n_by_status[NX_STATUS_THROTTLED], 1);
	ck_assert_int_le(t.n_by_status[NX_STATUS_THROTTLED], 5);
	ck_assert_int_eq(t.n_by_status[NX_STATUS_THROTTLED] + t.n_by_status[NX_STATUS_OK], 10);
	ledger_release(&l);
}
END_TEST

/* whom: the parent alone, as a debugger does, or the whole group, as Ctrl-Z does. */
static void pause_beyond_the_timeout(bool group)
{
	struct ledger l;
	struct tally t;
	fault_experiment(&c, 4, 5, "timeout: 2s\nnum_requests: 60\n");
	pid_t pid = caught_run(1, SIGSTOP);
	if (!group)
		ck_assert_int_eq(kill(fault_worker(pid), SIGCONT), 0);
	fault_sleep(2.5);
	ck_assert_int_eq(kill(-pid, SIGCONT), 0);
	ck_assert_int_eq(status_of(pid), 0);
	ledger_init(&l, &c, "o.h5", 4, 5);
	ledger_finish(&l, &t);
	ck_assert_int_eq(t.n_rows, 20);
	ck_assert_int_eq(t.n_by_status[NX_STATUS_TIMEOUT], 0);
	ledger_release(&l);
}

START_TEST(a_sweep_put_to_sleep_beyond_the_timeout_goes_on)
{
	pause_beyond_the_timeout(true);
}
END_TEST

START_TEST(a_stopped_parent_does_not_blame_its_worker)
{
	pause_beyond_the_timeout(false);
}
END_TEST

/* ---- two runs on one output ------------------------------------------------------------------- */

START_TEST(a_second_run_is_refused_by_name_and_the_first_unharmed)
{
	static const char *const ways[] = {"run t.yaml -o o.h5", "run t.yaml -o o.h5 --resume",
	                                   "run t.yaml -o o.h5 --resume --force"};
	struct ledger l;
	struct tally t;
	char name[32];
	fault_experiment(&c, 4, 6, "");
	ledger_init(&l, &c, "o.h5", 4, 6);
	pid_t pid =
		caught_run(3, SIGSTOP); /* so that it cannot be done before the second one looks */
	ledger_look(&l);
	snprintf(name, sizeof(name), "process %d on ", (int)pid);
	for (size_t i = 0; i < sizeof(ways) / sizeof(*ways); i++) {
		int status = cli_run(&c, "", ways[i]);
		ck_assert_msg(status == 2, "%d: %s", status, c.err);
		ck_assert_msg(strstr(c.err, name) != NULL, "%s", c.err);
		ck_assert_msg(strstr(c.err, "finished trials") == NULL, "%s", c.err);
		ck_assert_int_eq(fault_sentences(&c), 1);
	}
	ledger_look(&l);
	kill(-pid, SIGCONT);
	ck_assert_int_eq(status_of(pid), 0);
	ledger_finish(&l, &t);
	ck_assert_int_eq(t.n_rows, 24);
	ledger_release(&l);
}
END_TEST

START_TEST(a_dead_runs_lock_is_taken_over)
{
	struct ledger l;
	struct tally t;
	fault_experiment(&c, 4, 6, "");
	ledger_init(&l, &c, "o.h5", 4, 6);
	pid_t pid = caught_run(3, SIGKILL);
	ck_assert_int_eq(waitpid(pid, NULL, 0), pid);
	ck_assert(cli_group_gone(pid, WAIT_S));
	ck_assert(cli_exists(&c, "o.h5.parts/lock"));
	ledger_look(&l);
	int status = cli_run(&c, "", "run t.yaml -o o.h5"); /* it says what to do */
	ck_assert_msg(status == 2 && strstr(c.err, "--resume"), "%d: %s", status, c.err);
	ledger_look(&l);
	ck_assert_msg(fault_resume(&c, "o.h5") == 0, "%s", c.err);
	ledger_finish(&l, &t);
	ck_assert_int_eq(t.n_rows, 24);
	ledger_release(&l);
}
END_TEST

int main(void)
{
	Suite *s = suite_create("faults");
	TCase *t = tcase_create("processes");
	tcase_add_checked_fixture(t, setup, teardown);
	tcase_set_timeout(t, fault_long() ? 1200 : 300);
	tcase_add_test(t, random_kills_lose_no_trial_and_double_none);
	tcase_add_test(t, a_worker_killed_in_a_trial_is_a_row_that_says_so);
	tcase_add_test(t, a_worker_killed_while_it_loads_is_started_again);
	tcase_add_test(t, a_stopped_worker_is_a_timeout_and_the_sweep_goes_on);
	tcase_add_test(t, a_pause_of_the_worker_is_flagged_and_costs_no_trial);
	tcase_add_test(t, a_sweep_put_to_sleep_beyond_the_timeout_goes_on);
	tcase_add_test(t, a_stopped_parent_does_not_blame_its_worker);
	tcase_add_test(t, a_second_run_is_refused_by_name_and_the_first_unharmed);
	tcase_add_test(t, a_dead_runs_lock_is_taken_over);
	suite_add_tcase(s, t);
	SRunner *r = srunner_create(s);
	srunner_run_all(r, CK_NORMAL);
	int failed = srunner_ntests_failed(r);
	srunner_free(r);
	return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}
