/* SPDX-License-Identifier: Apache-2.0 */
/* What crashes on trial is seen, and costs nothing. */
#include <check.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/guard.h"
#include "cli_fixture.h"

static struct cli c;

static void set_up(void)
{
	cli_open(&c);
}

static void tear_down(void)
{
	cli_close(&c);
}

static void crash(void *ctx)
{
	raise(*(int *)ctx);
}

static void leave(void *ctx)
{
	_exit(*(int *)ctx);
}

static void write_and_return(void *ctx)
{
	*(int *)ctx = 5;
	if (write(STDERR_FILENO, "lost\n", 5) != 5)
		abort();
}

START_TEST(a_guard_tells_how_it_ended)
{
	int signals[] = {SIGSEGV, SIGABRT, SIGKILL}, one = 1, value = 0;
	for (int i = 0; i < 3; i++)
		ck_assert_int_eq(nx_guard(crash, &signals[i]), signals[i]);
	ck_assert_int_eq(nx_guard(leave, &one), -1);
	ck_assert_int_eq(nx_guard(write_and_return, &value), 0);
	ck_assert_int_eq(value, 0);
}
END_TEST

/* libfyaml 0.7.12 crashes when it gives this up. A version that does not finds broken YAML. */
START_TEST(a_file_at_which_a_library_crashes_is_named)
{
#ifndef __SANITIZE_ADDRESS__
	static const char text[] =
		"-\n-\n\n\n-\n-\n ? xxxxxxxx998\n    seq_lenst-\r-\n-\n-\n-\n-\n-  sele_qnstack-\n- _e N_[    2{a: "
		"\n\n-  seq_s\n-\n \n-\n-\n ? xxNU0000 1 [[\tb:\t-\n.\n-   xxxxtack-\n- _e N_[  [[\tb:\te";
	static const char *const args[] = {"run bad.yaml -o o.h5",
	                                   "generate -m tiny.gguf -p hi --stack bad.yaml:x",
	                                   "profile -m tiny.gguf --stack bad.yaml"};
	cli_write(&c, "bad.yaml", text);
	for (size_t i = 0; i < sizeof(args) / sizeof(args[0]); i++) {
		ck_assert_msg(cli_run(&c, "", args[i]) == 2, "%s: %d, %s", args[i], c.status,
		              c.err);
		ck_assert_msg(strstr(c.err, "legal: ") != NULL, "%s: %s", args[i], c.err);
	}
	ck_assert(!cli_exists(&c, "o.h5"));
#endif
}
END_TEST

START_TEST(a_crash_becomes_a_sentence)
{
#ifndef __SANITIZE_ADDRESS__
	int segv = SIGSEGV, kill = SIGKILL, one = 1, value = 0;
	struct nx_err err = {0};
	ck_assert_int_eq(nx_guard_try(crash, &segv, "x.h5", "another", &err), 0); /* not enabled */
	nx_guard_enable();
	ck_assert_int_eq(nx_guard_try(crash, &segv, "x.h5", "another", &err), NX_EFORMAT);
	ck_assert_ptr_nonnull(strstr(err.msg, "x.h5: reading it crashed with signal 11 ("));
	ck_assert_int_eq(nx_guard_try(crash, &kill, "x.h5", "another", &err), NX_EFORMAT);
	ck_assert_str_eq(err.msg, "x.h5: reading it was ended by signal 9; legal: another");
	ck_assert_int_eq(nx_guard_try(leave, &one, "x.h5", "another", &err), NX_EFORMAT);
	ck_assert_str_eq(err.msg,
	                 "x.h5: reading it was ended by the library under it; legal: another");
	ck_assert_int_eq(nx_guard_try(write_and_return, &value, "x.h5", "another", &err), 0);
	signal(SIGCHLD, SIG_IGN);
	ck_assert_int_eq(nx_guard_try(crash, &segv, "x.h5", "another", &err), NX_EFORMAT);
	signal(SIGCHLD, SIG_DFL);
#endif
}
END_TEST

int main(void)
{
	Suite *s = suite_create("guard");
	TCase *tc = tcase_create("guard");
	tcase_add_checked_fixture(tc, set_up, tear_down);
	tcase_add_test(tc, a_guard_tells_how_it_ended);
	tcase_add_test(tc, a_crash_becomes_a_sentence);
	tcase_add_test(tc, a_file_at_which_a_library_crashes_is_named);
	suite_add_tcase(s, tc);
	SRunner *sr = srunner_create(s);
	srunner_run_all(sr, CK_NORMAL);
	int bad = srunner_ntests_failed(sr);
	srunner_free(sr);
	return bad ? EXIT_FAILURE : EXIT_SUCCESS;
}
