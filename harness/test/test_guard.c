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
	static const char text[] =
		"-\n-\n\n\n-\n-\n ? xxxxxxxx998\n    seq_lenst-\r-\n-\n-\n-\n-\n-  sele_qnstack-\n- _e N_[    2{a: "
		"\n\n-  seq_s\n-\n \n-\n-\n ? xxNU0000 1 [[\tb:\t-\n.\n-   xxxxtack-\n- _e N_[  [[\tb:\te";
	cli_write(&c, "bad.yaml", text);
	ck_assert_int_eq(cli_run(&c, "", "run bad.yaml -o o.h5"), 2);
	ck_assert_msg(strstr(c.err, "bad.yaml:") != NULL, "%s", c.err);
	ck_assert_msg(strstr(c.err, "legal: ") != NULL, "%s", c.err);
	ck_assert(!cli_exists(&c, "o.h5"));
}
END_TEST

int main(void)
{
	Suite *s = suite_create("guard");
	TCase *tc = tcase_create("guard");
	tcase_add_checked_fixture(tc, set_up, tear_down);
	tcase_add_test(tc, a_guard_tells_how_it_ended);
	tcase_add_test(tc, a_file_at_which_a_library_crashes_is_named);
	suite_add_tcase(s, tc);
	SRunner *sr = srunner_create(s);
	srunner_run_all(sr, CK_NORMAL);
	int bad = srunner_ntests_failed(sr);
	srunner_free(sr);
	return bad ? EXIT_FAILURE : EXIT_SUCCESS;
}
