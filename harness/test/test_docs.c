/* SPDX-License-Identifier: Apache-2.0
 *
 * test_docs.c: what the techniques' READMEs say is so: they follow one template, their tables are what the program
 * prints, their configurations can be forecast, and what stacks with what is told alike in every format.
 */
#include <check.h>
#include <dirent.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>

#include "cli_fixture.h"

#define MOST 64

static struct cli c;
static const char *source, *build;
static char names[MOST][64]; /* of the techniques' folders, sorted */
static int n_names;

static int by_name(const void *a, const void *b)
{
	return strcmp(a, b);
}

static const char *readme_of(const char *name)
{
	static char path[8400];
	snprintf(path, sizeof(path), "%s/techniques/%s/README.md", source, name);
	return path;
}

/* NULL when it is not there. */
static char *text_of(const char *path)
{
	FILE *f = fopen(path, "r");
	if (!f)
		return NULL;
	char *text = calloc(1, 1 << 18);
	ck_assert_ptr_nonnull(text);
	size_t n = fread(text, 1, (1 << 18) - 1, f);
	fclose(f);
	ck_assert_uint_lt(n, (1 << 18) - 1);
	return text;
}

static void setup(void)
{
	source = getenv("NEXUS_SOURCE");
	build = getenv("NEXUS_BUILD");
	ck_assert(source && build);
	cli_open(&c);
	char folder[4096];
	snprintf(folder, sizeof(folder), "%s/techniques", source);
	DIR *d = opendir(folder);
	ck_assert_ptr_nonnull(d);
	n_names = 0;
	for (struct dirent *e; (e = readdir(d)) != NULL;) {
		struct stat st;
		char path[4400];
		snprintf(path, sizeof(path), "%s/%s", folder, e->d_name);
		if (e->d_name[0] == '.' || stat(path, &st) || !S_ISDIR(st.st_mode))
			continue;
		ck_assert_int_lt(n_names, MOST);
		snprintf(names[n_names++], sizeof(names[0]), "%.63s", e->d_name);
	}
	closedir(d);
	qsort(names, (size_t)n_names, sizeof(names[0]), by_name);
	ck_assert_int_ge(n_names, 11);
}

static void teardown(void)
{
	cli_close(&c);
}

/* ---- one template ----------------------------------------------------------------------------- */

START_TEST(every_readme_has_the_headings_of_the_template)
{
	static const char *const WANT[] = {
		"## Parameters",
		"## Theory",
		"## A configuration that runs",
		"## When it wins, when it loses",
		"## What it stacks with",
		"## Measured",
		"## Sources",
	};
	const int n_want = (int)(sizeof(WANT) / sizeof(*WANT));
	for (int i = 0; i < n_names; i++) {
		char *text = text_of(readme_of(names[i])), *rest = text, title[4200];
		int n = -1;
		ck_assert_msg(text != NULL, "%s has no README.md", names[i]);
		snprintf(title, sizeof(title), "# %s", names[i]);
		for (char *line; (line = strsep(&rest, "\n")) != NULL;) {
			if (*line != '#')
				continue;
			ck_assert_msg(n < n_want, "%s: found the heading \"%s\" behind the last",
			              names[i], line);
			const char *want = n < 0 ? title : WANT[n];
			ck_assert_msg(!strcmp(line, want), "%s: found \"%s\"; legal: \"%s\"",
			              names[i], line, want);
			n++;
		}
		ck_assert_msg(n == n_want, "%s: \"%s\" is missing", names[i],
		              n < 0 ? title : WANT[n]);
		free(text);
	}
}
END_TEST

START_TEST(every_readme_says_slot_and_claim_as_the_code_does)
{
	for (int i = 0; i < n_names; i++) {
		char args[4200], slots[100] = "", line[200];
		snprintf(args, sizeof(args), "list %s", names[i]);
		ck_assert_msg(cli_run(&c, "", args) == 0, "%s", c.err);
		const char *slot = strstr(c.out, "\n  slot ");
		ck_assert(slot && sscanf(slot, " slot %99[^\n]", slots) == 1);
		bool exact = strstr(c.out, "  exact    claims") != NULL;
		snprintf(line, sizeof(line), "\n\nSlot: %s. %s", slots,
		         exact ? "Exact" : "Not exact");
		char *text = text_of(readme_of(names[i]));
		ck_assert_ptr_nonnull(text);
		const char *at = strstr(text, line), *end = strstr(text, "\n## ");
		ck_assert_msg(at && at < end, "%s: its head lacks \"%s\"", names[i], line + 2);
		free(text);
	}
}
END_TEST

/* ---- tables that the program writes ----------------------------------------------------------- */

/* docs.sh in the test's folder; what it said is in c.err. */
static int docs(const char *args)
{
	char command[16384];
	snprintf(command, sizeof(command),
	         "cd '%s' && '%s/harness/build/docs.sh' %s >cli.out 2>cli.err </dev/null", c.dir,
	         source, args);
	int w = system(command);
	free(c.err);
	c.err = text_of(cli_path(&c, "cli.err"));
	ck_assert_ptr_nonnull(c.err);
	ck_assert(WIFEXITED(w));
	return WEXITSTATUS(w);
}

START_TEST(tables_are_what_the_program_prints)
{
	char args[12288];
	size_t at = (size_t)snprintf(args, sizeof(args),
	                             "--check '%s/nexus' '%s/techniques/README.md'", build, source);
	for (int i = 0; i < n_names && at < sizeof(args); i++)
		at += (size_t)snprintf(args + at, sizeof(args) - at, " '%s'", readme_of(names[i]));
	ck_assert_uint_lt(at, sizeof(args));
	ck_assert_msg(docs(args) == 0, "%s", c.err);
	/* And each has its own table, or the check would have nothing to check. */
	for (int i = 0; i < n_names; i++) {
		char begin[4200];
		snprintf(begin, sizeof(begin), "## Parameters\n\n<!-- nexus list %s -->\n",
		         names[i]);
		char *text = text_of(readme_of(names[i]));
		ck_assert_ptr_nonnull(text);
		const char *block = strstr(text, begin);
		ck_assert_msg(block != NULL, "%s: found no \"%s\"", names[i], begin);
		const char *end = strstr(block, "\n<!-- end -->\n"),
			   *theory = strstr(block, "\n## Theory\n");
		ck_assert_msg(end && end < theory, "%s: the block does not end", names[i]);
		free(text);
	}
	char index[4096];
	snprintf(index, sizeof(index), "%s/techniques/README.md", source);
	char *text = text_of(index);
	ck_assert(text && strstr(text, "\n<!-- nexus list compatibility -->\n"));
	for (int i = 0; i < n_names; i++) {
		char row[8400];
		snprintf(row, sizeof(row), "\n| [%s](%s/README.md) |", names[i], names[i]);
		ck_assert_msg(strstr(text, row) != NULL, "techniques/README.md lacks %s", names[i]);
	}
	free(text);
}
END_TEST

START_TEST(a_table_that_was_changed_is_named_and_mended)
{
	char args[4200], place[32];
	char *text = text_of(readme_of("paged_attention"));
	ck_assert_ptr_nonnull(text);
	char *changed = strstr(text, "| `16` |");
	ck_assert_ptr_nonnull(changed);
	int line = 1;
	for (const char *p = text; p < changed; p++)
		line += *p == '\n';
	changed[4] = '7';
	cli_write(&c, "p.md", text);
	changed[4] = '6';
	snprintf(args, sizeof(args), "--check '%s/nexus' p.md", build);
	snprintf(place, sizeof(place), "p.md:%d: ", line);
	ck_assert_int_eq(docs(args), 1);
	ck_assert_msg(strstr(c.err, place) && strstr(c.err, "make docs"), "%s", c.err);
	char *now = text_of(cli_path(&c, "p.md"));
	ck_assert_msg(now && strcmp(now, text) != 0, "--check changed the file");
	free(now);
	snprintf(args, sizeof(args), "'%s/nexus' p.md", build);
	ck_assert_msg(docs(args) == 0, "%s", c.err);
	now = text_of(cli_path(&c, "p.md"));
	ck_assert(now && strcmp(now, text) == 0);
	free(now);
	free(text);
}
END_TEST

START_TEST(blocks_that_are_none_are_refused_with_their_place)
{
	static const struct {
		const char *text, *said;
	} WRONG[] = {
		{"a\n<!-- nexus list paged_attention -->\n",
	         "w.md:2: the block has no <!-- end -->"},
		{"a\n<!-- end -->\n", "w.md:2: found an end without a begin"},
		{"<!-- nexus list kv_cache -->\n<!-- nexus list no_cache -->\n<!-- end -->\n",
	         "w.md:2: found a block in a block"},
		{"<!-- nexus list a; reboot -->\n<!-- end -->\n",
	         "w.md:1: found <!-- nexus list a;"},
		{"<!-- nexus run x -->\n<!-- end -->\n", "legal: <!-- nexus list NAME -->"},
		{"\n\n<!-- nexus list pagd_attention -->\n<!-- end -->\n",
	         "w.md:3: nexus list pagd_attention printed nothing"},
	};
	char args[4200];
	for (size_t i = 0; i < sizeof(WRONG) / sizeof(*WRONG); i++)
		for (int check = 0; check < 2; check++) {
			cli_write(&c, "w.md", WRONG[i].text);
			snprintf(args, sizeof(args), "%s '%s/nexus' w.md", check ? "--check" : "",
			         build);
			ck_assert_msg(docs(args) != 0, "%s", WRONG[i].text);
			ck_assert_msg(strstr(c.err, WRONG[i].said), "%s", c.err);
			char *now = text_of(cli_path(&c, "w.md"));
			ck_assert_msg(now && !strcmp(now, WRONG[i].text), "it was written");
			free(now);
		}
}
END_TEST

/* ---- configurations --------------------------------------------------------------------------- */

/* The first indented block behind the heading, into t.yaml; what is inside a line stays. */
static void take_configuration(const char *name)
{
	char *text = text_of(readme_of(name)), *rest, yaml[8192] = "";
	size_t n = 0;
	ck_assert_ptr_nonnull(text);
	rest = strstr(text, "\n## A configuration that runs\n");
	ck_assert_ptr_nonnull(rest);
	rest += 2;
	strsep(&rest, "\n");
	for (char *line; (line = strsep(&rest, "\n")) != NULL && *line != '#';) {
		if (!strncmp(line, "    ", 4))
			n += (size_t)snprintf(yaml + n, sizeof(yaml) - n, "%s\n", line + 4);
		else if (n)
			break;
		ck_assert_uint_lt(n, sizeof(yaml));
	}
	ck_assert_msg(!strncmp(yaml, "# ", 2) && strchr(yaml, '?'),
	              "%s: the configuration begins with no question: %s", name, yaml);
	ck_assert_msg(strstr(yaml, name), "%s: its configuration does not use it", name);
	cli_write(&c, "t.yaml", yaml);
	free(text);
}

static void all_fit(const char *name)
{
	const char *line = strstr(c.err, " cells, ");
	int cells = 0, fit = 0;
	ck_assert_msg(c.status == 0, "%s: %s", name, c.err);
	ck_assert_msg(line && strstr(c.out, "by owner"), "%s: %s", name, c.err);
	while (line > c.err && line[-1] >= '0' && line[-1] <= '9')
		line--;
	ck_assert_msg(sscanf(line, "%d cells, %d fit", &cells, &fit) == 2 && cells >= 2 &&
	                      fit == cells,
	              "%s: %s%s", name, c.out, c.err);
}

START_TEST(every_configuration_can_be_forecast)
{
	for (int i = 0; i < n_names; i++) {
		take_configuration(names[i]);
		cli_run(&c, "", "run t.yaml --dry-run");
		/* That of the graphs is for a GPU: see below. */
		if (!strcmp(names[i], "cuda_graph") && c.status == 3 && strstr(c.err, "cuda"))
			continue;
		all_fit(names[i]);
	}
}
END_TEST

START_TEST(the_configuration_of_graphs_says_what_a_cpu_lacks)
{
	take_configuration("cuda_graph");
	ck_assert_msg(cli_run(&c, "", "run t.yaml --dry-run --set device=cpu") == 0, "%s", c.err);
	ck_assert_msg(strstr(c.out, "cuda_graph: the device cpu has no graphs"), "%s", c.out);
	/* All else in it is right: without the one stack everything fits. */
	cli_run(&c, "", "run t.yaml --dry-run --set device=cpu --set sweep.stack=eager");
	all_fit("cuda_graph");
}
END_TEST

/* ---- what stacks with what -------------------------------------------------------------------- */

/* Cell `at` of a Markdown row, without its blanks; static storage. */
static const char *md_cell(const char *row, size_t at)
{
	static char cell[128];
	for (; row && at != SIZE_MAX; at--)
		row = strchr(row, '|') ? strchr(row, '|') + 1 : NULL;
	ck_assert_ptr_nonnull(row);
	ck_assert_int_eq(sscanf(row, " %127[^ |]", cell), 1);
	return cell;
}

static size_t times(const char *text, const char *what)
{
	size_t n = 0;
	for (const char *p = text; (p = strstr(p, what)) != NULL; p++)
		n++;
	return n;
}

START_TEST(compatibility_is_told_alike_in_every_format)
{
	ck_assert_int_eq(cli_run(&c, "", "list compatibility --format json"), 0);
	json_t *rows = json_loads(c.out, 0, NULL);
	ck_assert_msg(json_is_array(rows) && json_array_size(rows) == (size_t)n_names, "%s", c.out);
	char *md, *plain, *csv;
	ck_assert_int_eq(cli_run(&c, "", "list compatibility --format md"), 0);
	md = strdup(c.out);
	ck_assert_int_eq(cli_run(&c, "", "list compatibility"), 0);
	plain = strdup(c.out);
	ck_assert_int_eq(cli_run(&c, "", "list compatibility --format csv"), 0);
	csv = strdup(c.out);
	ck_assert(md && plain && csv);
	ck_assert_uint_eq(times(csv, "\n"), (size_t)n_names + 1);
	ck_assert_ptr_nonnull(strstr(plain, "\nslot: both take it, so a stack has one of them\n"));
	size_t n_no = 0, n_slot = 0;
	for (size_t i = 0; i < (size_t)n_names; i++) {
		const json_t *a = json_array_get(rows, i);
		const char *name = json_string_value(json_object_get(a, "technique"));
		char begin[200];
		ck_assert_str_eq(name, names[i]);
		snprintf(begin, sizeof(begin), "\n| %s |", name);
		const char *row = strstr(md, begin);
		ck_assert_msg(row != NULL, "%s", md);
		for (size_t j = 0; j < (size_t)n_names; j++) {
			const json_t *b = json_array_get(rows, j);
			const char *ab = json_string_value(json_object_get(a, names[j]));
			const char *ba = json_string_value(json_object_get(b, names[i]));
			bool one_slot =
				json_equal(json_object_get(a, "slot"), json_object_get(b, "slot"));
			ck_assert(ab && ba);
			const char *want = "yes";
			if (i == j) {
				want = "-";
				ck_assert_str_eq(ab, "-");
			} else if (one_slot) {
				want = "slot";
				n_slot++;
				ck_assert_msg(!strncmp(ab, "no: ", 4) &&
				                      strstr(ab, "take the same slot"),
				              "%s, %s: %s", names[i], names[j], ab);
				ck_assert_ptr_nonnull(strstr(ba, "take the same slot"));
			} else {
				char line[600];
				ck_assert_str_eq(ab, ba);
				ck_assert(!strcmp(ab, "yes") || !strncmp(ab, "no: ", 4));
				if (*ab == 'n') {
					want = "no";
					n_no++;
					ck_assert_ptr_nonnull(
						strstr(ab, "breaks what that assumes"));
					ck_assert(strstr(ab, names[i]) && strstr(ab, names[j]));
					snprintf(line, sizeof(line), "\n%s\n", ab);
					ck_assert_uint_eq(times(plain, line), 1);
					snprintf(line, sizeof(line), "\n* %s\n", ab + 4);
					ck_assert_uint_eq(times(md, line), 1);
				}
			}
			ck_assert_msg(!strcmp(md_cell(row, j + 2), want),
			              "%s, %s: found %s; legal: %s", names[i], names[j],
			              md_cell(row, j + 2), want);
		}
	}
	/* Of the sentences there are as many as of the pairs, and a cell of CSV has each twice. */
	ck_assert_uint_gt(n_no, 0);
	ck_assert_uint_gt(n_slot, 0);
	ck_assert_uint_eq(times(plain, "\nno: "), n_no / 2);
	ck_assert_uint_eq(times(md, "\n* "), n_no / 2);
	ck_assert_uint_eq(times(csv, "breaks what that assumes"), n_no);
	ck_assert_uint_eq(times(csv, "take the same slot"), n_slot);
	json_decref(rows);
	free(md);
	free(plain);
	free(csv);
}
END_TEST

START_TEST(one_technique_in_markdown_is_two_tables)
{
	ck_assert_int_eq(cli_run(&c, "", "list paged_attention --format md"), 0);
	ck_assert_msg(!strncmp(c.out, "| parameter | default | legal | meaning |\n", 42), "%s",
	              c.out);
	ck_assert_ptr_nonnull(
		strstr(c.out, "\n| `preempt` | `recompute` | `recompute`, `swap` | "));
	ck_assert_ptr_nonnull(strstr(c.out, "\n\n| counter | unit | meaning |\n"));
	ck_assert_int_eq(cli_run(&c, "", "list no_cache --format md"), 0);
	ck_assert_msg(!strncmp(c.out, "It has no parameters.\n", 22), "%s", c.out);
	ck_assert_int_eq(cli_run(&c, "", "list flash_attention --format md"), 0);
	ck_assert_ptr_nonnull(strstr(c.out, "\nIt keeps no counters.\n"));
	/* The other formats are one table still. */
	ck_assert_int_eq(cli_run(&c, "", "list paged_attention --format csv"), 0);
	ck_assert_msg(!strncmp(c.out, "kind,name,default,legal,unit,help\n", 34), "%s", c.out);
	ck_assert_ptr_nonnull(strstr(c.out, "\ncounter,forks,"));
}
END_TEST

int main(void)
{
	Suite *s = suite_create("docs");
	TCase *t = tcase_create("readmes");
	tcase_add_checked_fixture(t, setup, teardown);
	tcase_set_timeout(t, 120);
	tcase_add_test(t, every_readme_has_the_headings_of_the_template);
	tcase_add_test(t, every_readme_says_slot_and_claim_as_the_code_does);
	tcase_add_test(t, tables_are_what_the_program_prints);
	tcase_add_test(t, a_table_that_was_changed_is_named_and_mended);
	tcase_add_test(t, blocks_that_are_none_are_refused_with_their_place);
	tcase_add_test(t, every_configuration_can_be_forecast);
	tcase_add_test(t, the_configuration_of_graphs_says_what_a_cpu_lacks);
	tcase_add_test(t, compatibility_is_told_alike_in_every_format);
	tcase_add_test(t, one_technique_in_markdown_is_two_tables);
	suite_add_tcase(s, t);
	SRunner *run = srunner_create(s);
	srunner_run_all(run, CK_NORMAL);
	int failed = srunner_ntests_failed(run);
	srunner_free(run);
	return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}
