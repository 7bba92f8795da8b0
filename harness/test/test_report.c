/* SPDX-License-Identifier: Apache-2.0 */
/* What the report says, and that nothing in a run file can break its formats. */
#include <check.h>
#include <ctype.h>
#include <jansson.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "cli/verbs.h"
#include "measure/gate.h"
#include "present/number.h"
#include "present/progress.h"
#include "present/report.h"
#include "present/skew.h"
#include "record_fixture.h"
#include "sample_run.h"

#define EVIL "<script>alert('x')</script>|`&\""

static const struct nx_sample_options FULL = {5, 3, 2, NX_SAMPLE_FAILURES | NX_SAMPLE_SKEW, EVIL};

static char *write_with(const struct nx_sample_options *o,
                        int (*write)(const struct nx_run *, struct nx_text *, struct nx_err *))
{
	struct nx_run *r = nx_sample_run(o);
	struct nx_text t;
	struct nx_err err;
	nx_text_init(&t);
	ck_assert_ptr_nonnull(r);
	ck_assert_int_eq(write(r, &t, &err), 0);
	ck_assert_ptr_nonnull(t.s);
	nx_sample_run_destroy(r);
	return t.s; /* the caller frees it */
}

static int html_without_plots(const struct nx_run *r, struct nx_text *t, struct nx_err *err)
{
	return nx_report_html(r, NULL, t, err);
}

static void assert_has(const char *text, const char *part)
{
	ck_assert_msg(strstr(text, part) != NULL, "the report lacks '%s'", part);
}

/* Every open tag is closed in order; attributes are quoted; a bare '<' does not occur. */
static void assert_well_formed(const char *html)
{
	static const char *const empty[] = {"!DOCTYPE", "meta", "path", "use", "circle"};
	char stack[64][32];
	int depth = 0;
	for (const char *s = strchr(html, '<'); s; s = strchr(s, '<')) {
		char name[32] = "";
		bool closes = s[1] == '/', is_empty = false;
		const char *p = s + 1 + closes;
		ck_assert_msg(isalpha((unsigned char)*p) || *p == '!', "bare '<' at: %.40s", s);
		size_t n = strcspn(p, " >/\n\t");
		snprintf(name, sizeof(name), "%.*s", n < 31 ? (int)n : 31, p);
		bool quoted = false;
		for (p += n; *p && (quoted || *p != '>'); p++)
			quoted ^= *p == '"';
		ck_assert_msg(*p == '>', "tag without end: %.40s", s);
		for (size_t i = 0; i < sizeof(empty) / sizeof(empty[0]); i++)
			is_empty |= !strcmp(name, empty[i]);
		if (closes) {
			ck_assert_msg(depth > 0 && !strcmp(stack[depth - 1], name),
			              "'</%s>' closes '%s'", name,
			              depth ? stack[depth - 1] : "nothing");
			depth--;
		} else if (!is_empty && p[-1] != '/') {
			ck_assert_int_lt(depth, 64);
			memcpy(stack[depth++], name, sizeof(name));
		}
		s = p;
	}
	ck_assert_int_eq(depth, 0);
}

START_TEST(names_every_stack_verdict_and_cause)
{
	struct nx_sample_options o = FULL;
	o.odd_name = NULL;
	char *md = write_with(&o, nx_report_md);
	struct nx_run *r = nx_sample_run(&o);
	for (size_t i = 0; i < r->n_stacks; i++)
		assert_has(md, r->stacks[i]);
	for (size_t i = 0; i < r->n_cells; i++) {
		assert_has(md, r->cells[i].cause);
		assert_has(md, nx_status_name(r->cells[i].status));
		if (r->cells[i].verdict)
			assert_has(md, nx_verdict_word(r->cells[i].verdict));
	}
	for (size_t i = 0; i < r->head.n_facts; i++)
		assert_has(md, r->head.facts[i].value);
	for (int m = 0; m < NX_METRIC_COUNT; m++)
		assert_has(md, nx_metric_desc((enum nx_metric)m)->name);
	assert_has(md, "near ties only");
	assert_has(md, "withheld: gate failed");
	assert_has(md, "blocks_peak");
	assert_has(md, "182 GB/s");
	nx_sample_run_destroy(r);
	free(md);
}
END_TEST

START_TEST(verdict_names_best_stack_reference_and_failures)
{
	struct nx_sample_options o = FULL;
	o.odd_name = NULL;
	char *md = write_with(&o, nx_report_md);
	char *end = strstr(md, "\n## ");
	ck_assert_ptr_nonnull(end);
	*end = 0;
	assert_has(md, "Highest throughput: `production` at batch size 64");
	assert_has(md, "Lowest latency: `production` at batch size 1");
	assert_has(md, "times that of `baseline`");
	assert_has(
		md,
		"5 of 30 cells gave no figures to trust (2 skipped, 1 out of memory, 2 inexact)");
	free(md);
}
END_TEST

START_TEST(random_weights_stand_in_place_of_the_gate)
{
	struct nx_sample_options o = FULL;
	struct nx_run *r = nx_sample_run(&o);
	struct nx_text t;
	nx_text_init(&t);
	for (size_t i = 0; i < r->n_cells; i++)
		r->cells[i].gate = (struct nx_gate){.verdict = NX_GATE_RANDOM_WEIGHTS};
	struct nx_err err = {0};
	ck_assert_msg(nx_report_md(r, &t, &err) == 0, "%s", err.msg);
	char *end = strstr(t.s, "\n## ");
	ck_assert_ptr_nonnull(end);
	*end = 0; /* the sentences on top */
	assert_has(t.s, "Random weights: speed and memory are those of the model's shape");
	assert_has(end + 1, "Random weights: the model is a shape without a text to get right");
	ck_assert_ptr_null(strstr(end + 1, "The gate did not run"));
	nx_text_release(&t);
	nx_text_init(&t);
	ck_assert_msg(nx_report_json(r, &t, &err) == 0, "%s", err.msg);
	assert_has(t.s, "\"random weights\"");
	nx_text_release(&t);
	nx_sample_run_destroy(r);
}
END_TEST

START_TEST(html_is_well_formed_and_needs_nothing_else)
{
	char *html = write_with(&FULL, html_without_plots);
	assert_well_formed(html);
	ck_assert_ptr_null(strstr(html, "<script"));
	ck_assert_ptr_null(strstr(html, "http"));
	assert_has(html, "&lt;script&gt;alert(&#39;x&#39;)&lt;/script&gt;|`&amp;&quot;");
	free(html);
}
END_TEST

START_TEST(html_with_plots_is_well_formed)
{
	char share[1024];
	const char *source = getenv("NEXUS_SOURCE");
	if (!source || system("gnuplot --version >/dev/null 2>&1") != 0)
		return;
	snprintf(share, sizeof(share), "%s/plots", source);
	struct nx_run *r = nx_sample_run(&FULL);
	struct nx_report_options o = {.share = share};
	struct nx_text t;
	struct nx_err err;
	nx_text_init(&t);
	ck_assert_int_eq(nx_report_html(r, &o, &t, &err), 0);
	assert_well_formed(t.s);
	int n = 0;
	for (const char *s = strstr(t.s, "<svg"); s; s = strstr(s + 1, "<svg"))
		n++;
	ck_assert_int_eq(n, 10);
	ck_assert_ptr_null(strstr(t.s, "<script"));
	ck_assert_ptr_null(strstr(t.s, "id=\"gp")); /* ids of several pictures must differ */
	nx_text_release(&t);
	nx_sample_run_destroy(r);
}
END_TEST

START_TEST(missing_figures_show_their_reason_and_never_nan)
{
	int (*const writers[])(const struct nx_run *, struct nx_text *, struct nx_err *) = {
		nx_report_md, html_without_plots, nx_report_csv, nx_report_json};
	struct nx_sample_options o = {3, 2, 1, NX_SAMPLE_NO_FIGURES, NULL};
	for (size_t i = 0; i < 4; i++) {
		char *text = write_with(&o, writers[i]);
		for (const char *s = strstr(text, "nan"); s; s = strstr(s + 1, "nan"))
			ck_assert_msg(!strncmp(s, "nano", 4), "nan in format %zu: %.30s", i, s);
		assert_has(text, "no kernel for head size 80");
		assert_has(text, "failed");
		free(text);
	}
}
END_TEST

START_TEST(json_is_valid_and_complete)
{
	char *text = write_with(&FULL, nx_report_json);
	json_error_t why;
	json_t *root = json_loads(text, 0, &why);
	ck_assert_msg(root != NULL, "line %d: %s", why.line, why.text);
	json_t *cells = json_object_get(root, "cells");
	ck_assert_uint_eq(json_array_size(cells), 30);
	json_t *last = json_array_get(cells, 29);
	ck_assert_str_eq(json_string_value(json_object_get(last, "stack")), EVIL);
	json_t *v = json_object_get(
		json_object_get(json_object_get(last, "metrics"), "output_throughput"), "value");
	ck_assert(json_real_value(v) > 0);
	json_decref(root);
	free(text);
}
END_TEST

START_TEST(csv_has_one_row_a_cell_and_quotes_odd_names)
{
	char *text = write_with(&FULL, nx_report_csv);
	size_t rows = 0, fields = 0, first = 0;
	bool quoted = false;
	for (const char *s = text; *s; s++) {
		quoted ^= *s == '"';
		fields += !quoted && *s == ',';
		if (quoted || *s != '\n')
			continue;
		first = rows++ ? first : fields;
		ck_assert_uint_eq(fields, first);
		fields = 0;
	}
	ck_assert_uint_eq(rows, 31);
	assert_has(text, "\"<script>alert('x')</script>|`&\"\"\"");
	assert_has(text, "output_throughput [tok/s],output_throughput_lo [tok/s]");
	free(text);
}
END_TEST

START_TEST(table_aligns_by_characters_not_bytes)
{
	struct nx_table t;
	struct nx_text out;
	nx_table_init(&t);
	nx_text_init(&out);
	nx_table_column(&t, "name", NX_LEFT);
	nx_table_column(&t, "n", NX_RIGHT);
	nx_table_cell(&t, "\xcf\x83\xcf\x84");
	nx_table_cell(&t, "%d", 7);
	nx_table_cell(&t, "abcdef");
	nx_table_cell(&t, "%d", 123);
	nx_table_write(&t, NX_TABLE_TEXT, &out);
	ck_assert_str_eq(out.s, "name      n\n\xcf\x83\xcf\x84        7\nabcdef  123\n");
	nx_text_release(&out);
	nx_table_release(&t);
}
END_TEST

START_TEST(json_has_numbers_where_a_table_has)
{
	static const char *const cells[] = {"7",   "-0.5", "1e-9", "",      "n/a", "007",
	                                    "1.",  "+3",   ".5",   "1.5 G", "0",   "0x1F",
	                                    "1e+", "-",    "nan",  "12e3"};
	static const char *const want[] = {"7",       "-0.5",      "1e-9",    "null",
	                                   "\"n/a\"", "\"007\"",   "\"1.\"",  "\"+3\"",
	                                   "\".5\"",  "\"1.5 G\"", "0",       "\"0x1F\"",
	                                   "\"1e+\"", "\"-\"",     "\"nan\"", "12e3"};
	struct nx_table t;
	struct nx_text out;
	char row[64];
	nx_table_init(&t);
	nx_text_init(&out);
	nx_table_column(&t, "name", NX_LEFT);
	nx_table_column(&t, "n", NX_RIGHT);
	for (size_t i = 0; i < sizeof(cells) / sizeof(cells[0]); i++) {
		nx_table_cell(&t, "%zu", i);
		nx_table_cell(&t, "%s", cells[i]);
	}
	nx_table_write(&t, NX_TABLE_JSON, &out);
	for (size_t i = 0; i < sizeof(cells) / sizeof(cells[0]); i++) {
		snprintf(row, sizeof(row), "{\"name\": \"%zu\", \"n\": %s}", i, want[i]);
		ck_assert_msg(strstr(out.s, row) != NULL, "no %s in %s", row, out.s);
	}
	nx_text_release(&out);
	nx_table_release(&t);
}
END_TEST

START_TEST(numbers_have_three_digits_and_their_interval_the_same_place)
{
	char b[96];
	struct nx_estimate e = {4.4871, 4.44, 4.5399}, one = {1.0031, 0.9979, 1.0084},
			   none = {NAN, NAN, NAN};
	ck_assert_str_eq(nx_estimate_text(&e, 1, 3, b, sizeof(b)), "4.49 [4.44, 4.54]");
	ck_assert_str_eq(nx_ratio_text(&one, b, sizeof(b)), "1.003 [0.998, 1.008]");
	ck_assert_str_eq(nx_estimate_text(&none, 1, 3, b, sizeof(b)), "");
	ck_assert_str_eq(nx_size_text(1536.0 * 1024 * 1024, b, sizeof(b)), "1.50 GiB");
}
END_TEST

START_TEST(skew_bound_is_that_of_the_distribution)
{
	struct nx_dist d;
	struct nx_err err;
	ck_assert_int_eq(nx_dist_from_text(&d, "64", &err), 0);
	ck_assert_double_eq_tol(nx_skew_bound(&d, 32), 1, 1e-12);
	/* Two draws from {1, 2}: E[max] = 1.75, E = 1.5. */
	ck_assert_int_eq(nx_dist_from_text(&d, "uniform 1-2", &err), 0);
	ck_assert_double_eq_tol(nx_skew_bound(&d, 2), 1.75 / 1.5, 1e-12);
	ck_assert_int_eq(nx_dist_from_text(&d, "lognormal mean 200 sigma 1 max 1024", &err), 0);
	ck_assert_double_eq_tol(nx_skew_bound(&d, 1), 1, 1e-9);
	ck_assert(nx_skew_bound(&d, 32) > 3 && nx_skew_bound(&d, 32) < 1024 / 150.0);
	/* Of lengths that are read there is no formula: the lengths themselves give the same bound. */
	ck_assert_int_eq(nx_dist_from_text(&d, "trace 5-400", &err), 0);
	ck_assert(d.kind == NX_DIST_TRACE && d.min == 5 && d.max == 400);
	ck_assert_int_eq(nx_dist_from_text(&d, "dataset 4-1024", &err), 0);
	ck_assert_int_eq(d.kind, NX_DIST_DATASET);
	int32_t ran[900];
	for (int i = 0; i < 900; i++)
		ran[i] = 11 + i / 10; /* uniform 11-100 */
	ck_assert_int_eq(nx_dist_from_text(&d, "uniform 11-100", &err), 0);
	for (int32_t batch = 1; batch <= 64; batch *= 4)
		ck_assert_double_eq_tol(nx_skew_bound_of(ran, 900, batch), nx_skew_bound(&d, batch),
		                        1e-9);
	ck_assert_double_eq_tol(nx_skew_bound_of(ran, 0, 4), 1, 1e-12);
	ck_assert_int_eq(nx_dist_from_text(&d, "trace 5", &err), NX_EFORMAT);
	ck_assert_int_eq(nx_dist_from_text(&d, "zipf 3", &err), NX_EFORMAT);
}
END_TEST

START_TEST(progress_says_its_end_once_where_lines_stay)
{
	struct nx_progress p;
	char text[512] = "";
	FILE *f = tmpfile();
	ck_assert_ptr_nonnull(f);
	nx_progress_init(&p, f, "trials", 2);
	nx_progress_update(&p, 0, "paged");
	p.shown_s = p.start_s - 60; /* long ago: the next one is shown */
	nx_progress_update(&p, 2, "");
	nx_progress_finish(&p);
	rewind(f);
	text[fread(text, 1, sizeof(text) - 1, f)] = '\0';
	fclose(f);
	const char *end = strstr(text, "2/2 trials (100 %)");
	ck_assert_msg(end && !strstr(end + 1, "2/2 trials"), "%s", text);
}
END_TEST

START_TEST(progress_says_done_total_rate_and_time_left)
{
	struct nx_progress p;
	char b[256];
	nx_progress_init(&p, stderr, "trials", 40);
	p.done = 10;
	ck_assert_str_eq(nx_progress_text(&p, 20, "paged", b, sizeof(b)),
	                 "10/40 trials (25 %), 0.5/s, 60 s left, paged");
	p.done = 0;
	ck_assert_str_eq(nx_progress_text(&p, 0, NULL, b, sizeof(b)), "0/40 trials (0 %)");
	p.done = 40;
	ck_assert_str_eq(nx_progress_text(&p, 80, NULL, b, sizeof(b)),
	                 "40/40 trials (100 %), took 80 s");
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

START_TEST(verb_refuses_bad_input_and_writes_beside_the_run)
{
	char path[256], text[256];
	const char *const missing[] = {"report", "/nonexistent/run.h5", NULL};
	const char *const format[] = {"report", "--format", "pdf", "x.h5", NULL};
	ck_assert_int_eq(call(nx_verb_report, missing), NX_EXIT_USAGE);
	ck_assert_int_eq(call(nx_verb_report, format), NX_EXIT_USAGE);
	struct fixture f;
	fixture_init(&f);
	fixture_run(&f);
	const char *const good[] = {"report", f.output, NULL};
	ck_assert_int_eq(call(nx_verb_report, good), NX_EXIT_DONE);
	snprintf(path, sizeof(path), "%.*s.md", (int)strlen(f.output) - 3, f.output);
	struct nx_text md;
	struct nx_err err;
	nx_text_init(&md);
	ck_assert_int_eq(nx_text_load(&md, path, &err), 0);
	snprintf(text, sizeof(text), "`%s` at batch size 8", f.stacks[1].name);
	assert_has(md.s, text);
	assert_has(md.s, "out of memory");
	nx_text_release(&md);
	unlink(path);
	memcpy(path + strlen(path) - 3, ".html", 6);
	ck_assert_int_eq(unlink(path), 0);
	fixture_release(&f);
}
END_TEST

int main(void)
{
	Suite *s = suite_create("report");
	TCase *tc = tcase_create("all");
	tcase_set_timeout(tc, 120);
	tcase_add_test(tc, names_every_stack_verdict_and_cause);
	tcase_add_test(tc, verdict_names_best_stack_reference_and_failures);
	tcase_add_test(tc, random_weights_stand_in_place_of_the_gate);
	tcase_add_test(tc, html_is_well_formed_and_needs_nothing_else);
	tcase_add_test(tc, html_with_plots_is_well_formed);
	tcase_add_test(tc, missing_figures_show_their_reason_and_never_nan);
	tcase_add_test(tc, json_is_valid_and_complete);
	tcase_add_test(tc, csv_has_one_row_a_cell_and_quotes_odd_names);
	tcase_add_test(tc, table_aligns_by_characters_not_bytes);
	tcase_add_test(tc, json_has_numbers_where_a_table_has);
	tcase_add_test(tc, numbers_have_three_digits_and_their_interval_the_same_place);
	tcase_add_test(tc, skew_bound_is_that_of_the_distribution);
	tcase_add_test(tc, progress_says_done_total_rate_and_time_left);
	tcase_add_test(tc, progress_says_its_end_once_where_lines_stay);
	tcase_add_test(tc, verb_refuses_bad_input_and_writes_beside_the_run);
	suite_add_tcase(s, tc);
	SRunner *sr = srunner_create(s);
	srunner_run_all(sr, CK_NORMAL);
	int failed = srunner_ntests_failed(sr);
	srunner_free(sr);
	return failed != 0;
}
