/* SPDX-License-Identifier: Apache-2.0 */
/* Pictures are made for every shape of run, and gnuplot has nothing to say about them. */
#include <check.h>
#include <dirent.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "cli/verbs.h"
#include "present/gnuplot.h"
#include "present/plot.h"
#include "record_fixture.h"
#include "sample_run.h"

static char share[1024];
static bool have_gnuplot;

static const struct {
	const char *what;
	struct nx_sample_options o;
} SHAPES[] = {
	{"usual, with failures", {5, 3, 2, NX_SAMPLE_FAILURES, NULL}},
	{"one cell", {1, 1, 1, 0, NULL}},
	{"nothing but failures", {3, 2, 1, NX_SAMPLE_NO_FIGURES, NULL}},
	{"many, long names", {12, 8, 2, NX_SAMPLE_FAILURES | NX_SAMPLE_LONG_NAMES, NULL}},
	{"skewed lengths", {2, 2, 5, NX_SAMPLE_SKEW, NULL}},
	{"names that are gnuplot syntax", {3, 2, 2, 0, "a''b'\"`id`$x@y{/Bold z}_w^v\\n%s#"}},
	{"names of other scripts", {2, 2, 1, 0, "\xe5\x9f\xba\xe7\xba\xbf <b>&amp;"}},
};

static unsigned be32(const unsigned char *p)
{
	return (unsigned)p[0] << 24 | (unsigned)p[1] << 16 | (unsigned)p[2] << 8 | p[3];
}

static void assert_png(const char *path)
{
	struct nx_text t;
	struct nx_err err;
	nx_text_init(&t);
	ck_assert_msg(nx_text_load(&t, path, &err) == 0, "%s", err.msg);
	ck_assert_uint_gt(t.len, 5000); /* an empty canvas takes less */
	ck_assert(memcmp(t.s, "\x89PNG\r\n\x1a\n", 8) == 0);
	ck_assert_uint_eq(be32((unsigned char *)t.s + 16), 1200);
	ck_assert_uint_eq(be32((unsigned char *)t.s + 20), 800);
	ck_assert(memcmp(t.s + t.len - 8, "IEND", 4) == 0);
	nx_text_release(&t);
}

static void assert_svg(const char *path)
{
	struct nx_text t;
	struct nx_err err;
	nx_text_init(&t);
	ck_assert_msg(nx_text_load(&t, path, &err) == 0, "%s", err.msg);
	ck_assert_ptr_nonnull(strstr(t.s, "<svg"));
	ck_assert_ptr_nonnull(strstr(t.s, "</svg>"));
	ck_assert_ptr_null(strstr(t.s, "NaN"));
	nx_text_release(&t);
}

static int count_leftovers(void)
{
	int n = 0;
	DIR *d = opendir(getenv("TMPDIR"));
	ck_assert_ptr_nonnull(d);
	for (struct dirent *e = readdir(d); e; e = readdir(d))
		n += !strncmp(e->d_name, "nexus-plot-", 11);
	closedir(d);
	return n;
}

START_TEST(every_plot_of_every_shape_is_a_picture)
{
	struct nx_tempdir dir, tmp;
	struct nx_err err;
	size_t n;
	const struct nx_plot_desc *p = nx_plot_list(&n);
	if (!have_gnuplot)
		return;
	ck_assert_int_eq(nx_tempdir_init(&dir, &err), 0);
	ck_assert_int_eq(nx_tempdir_init(&tmp, &err), 0);
	setenv("TMPDIR", tmp.path, 1);
	struct nx_run *r = nx_sample_run(&SHAPES[_i].o);
	ck_assert_uint_eq(n, 10);
	for (size_t i = 0; i < n; i++) {
		char path[1024];
		struct nx_text notes;
		nx_text_init(&notes);
		int rc = nx_plot_write(r, p[i].name, share, dir.path, &notes, &err);
		ck_assert_msg(rc == 0, "%s, %s: %s", SHAPES[_i].what, p[i].name, err.msg);
		ck_assert_msg(notes.len == 0, "%s, %s: gnuplot said: %s", SHAPES[_i].what,
		              p[i].name, notes.s);
		snprintf(path, sizeof(path), "%s/%s.png", dir.path, p[i].name);
		assert_png(path);
		snprintf(path, sizeof(path), "%s/%s.svg", dir.path, p[i].name);
		assert_svg(path);
		nx_text_release(&notes);
	}
	ck_assert_int_eq(count_leftovers(), 0);
	nx_sample_run_destroy(r);
	nx_tempdir_release(&dir);
	nx_tempdir_release(&tmp);
}
END_TEST

START_TEST(without_gnuplot_one_sentence_names_the_package)
{
	struct nx_tempdir dir;
	struct nx_err err;
	struct nx_text notes;
	struct nx_sample_options o = {1, 1, 1, 0, NULL};
	struct nx_run *r = nx_sample_run(&o);
	nx_text_init(&notes);
	ck_assert_int_eq(nx_tempdir_init(&dir, &err), 0);
	setenv("NEXUS_GNUPLOT", "/nonexistent/gnuplot", 1);
	ck_assert_int_eq(nx_plot_write(r, "memory", share, dir.path, &notes, &err), NX_EENV);
	ck_assert_ptr_nonnull(strstr(err.msg, "gnuplot-nox"));
	nx_text_release(&notes);
	nx_sample_run_destroy(r);
	nx_tempdir_release(&dir);
}
END_TEST

START_TEST(missing_templates_are_one_sentence)
{
	char buf[256];
	struct nx_err err;
	unsetenv("NEXUS_SHARE");
	ck_assert_int_eq(nx_plot_share(buf, sizeof(buf), "/nonexistent/bin", &err), NX_EENV);
	ck_assert_ptr_nonnull(strstr(err.msg, "NEXUS_SHARE"));
}
END_TEST

/* Verbs take writable arguments, as main() does. */
static int call(int (*verb)(int, char **), const char *const *args)
{
	char *argv[8] = {NULL};
	int argc = 0;
	for (; args[argc]; argc++)
		argv[argc] = strdup(args[argc]);
	int status = verb(argc, argv);
	for (int i = 0; i < argc; i++)
		free(argv[i]);
	return status;
}

START_TEST(verb_draws_beside_the_run)
{
	char path[512], dir[512];
	const char *const missing[] = {"plot", "/nonexistent/run.h5", NULL};
	const char *const name[] = {"plot", "x.h5", "--only", "memoy", NULL};
	ck_assert_int_eq(call(nx_verb_plot, missing), NX_EXIT_USAGE);
	ck_assert_int_eq(call(nx_verb_plot, name), NX_EXIT_USAGE);
	if (!have_gnuplot)
		return;
	struct fixture f;
	fixture_init(&f);
	fixture_run(&f);
	setenv("NEXUS_SHARE", share, 1);
	const char *const good[] = {"plot", f.output, "--only", "throughput_latency", NULL};
	ck_assert_int_eq(call(nx_verb_plot, good), NX_EXIT_DONE);
	snprintf(dir, sizeof(dir), "%.*s.plots", (int)strlen(f.output) - 3, f.output);
	snprintf(path, sizeof(path), "%.400s/throughput_latency.png", dir);
	assert_png(path);
	unlink(path);
	memcpy(path + strlen(path) - 3, "svg", 3);
	assert_svg(path);
	unlink(path);
	ck_assert_int_eq(rmdir(dir), 0); /* the one plot that was asked for, and no other */
	fixture_release(&f);
}
END_TEST

int main(void)
{
	const char *source = getenv("NEXUS_SOURCE");
	snprintf(share, sizeof(share), "%.1000s/plots", source ? source : ".");
	have_gnuplot = system("gnuplot --version >/dev/null 2>&1") == 0;
	Suite *s = suite_create("plot");
	TCase *tc = tcase_create("all");
	tcase_set_timeout(tc, 300);
	tcase_add_loop_test(tc, every_plot_of_every_shape_is_a_picture, 0,
	                    sizeof(SHAPES) / sizeof(SHAPES[0]));
	tcase_add_test(tc, without_gnuplot_one_sentence_names_the_package);
	tcase_add_test(tc, missing_templates_are_one_sentence);
	tcase_add_test(tc, verb_draws_beside_the_run);
	suite_add_tcase(s, tc);
	SRunner *sr = srunner_create(s);
	srunner_run_all(sr, CK_NORMAL);
	int failed = srunner_ntests_failed(sr);
	srunner_free(sr);
	return failed != 0;
}
