/* SPDX-License-Identifier: Apache-2.0
 *
 * test_cli.c: the command as a person or a script meets it: usage, exit statuses, clean stdout.
 */
#include <check.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "cli_fixture.h"

static struct cli c;

static void setup(void)
{
	cli_open(&c);
}

static void teardown(void)
{
	cli_close(&c);
}

static void expect(int status, const char *args, const char *on_stdout, const char *on_stderr)
{
	cli_run(&c, "", args);
	ck_assert_msg(c.status == status, "nexus %s: status %d, not %d: %s", args, c.status, status,
	              c.err);
	if (on_stdout)
		ck_assert_msg(strstr(c.out, on_stdout) != NULL, "nexus %s: stdout is '%s'", args,
		              c.out);
	else
		ck_assert_msg(!c.out[0], "nexus %s: stdout is not empty: '%s'", args, c.out);
	if (on_stderr)
		ck_assert_msg(strstr(c.err, on_stderr) != NULL, "nexus %s: stderr is '%s'", args,
		              c.err);
}

static const char *const VERBS[] = {"run",      "list",  "profile",       "report", "plot",
                                    "generate", "bench", "new-technique", "doctor"};
#define N_VERBS ((int)(sizeof(VERBS) / sizeof(VERBS[0])))

START_TEST(usage_names_every_verb)
{
	expect(2, "", NULL, "usage: nexus");
	expect(0, "--help", "usage: nexus", NULL);
	for (int i = 0; i < N_VERBS; i++)
		ck_assert_msg(strstr(c.out, VERBS[i]) != NULL, "%s is missing", VERBS[i]);
	ck_assert_ptr_null(strstr(c.out, "__worker"));
	expect(0, "--version", "nexus ", NULL);
}
END_TEST

START_TEST(each_verb_has_help_with_an_example)
{
	char args[64], example[64];
	snprintf(args, sizeof(args), "%s --help", VERBS[_i]);
	snprintf(example, sizeof(example), "nexus %s", VERBS[_i]);
	expect(0, args, "xample", NULL);
	ck_assert_ptr_nonnull(strstr(c.out, example));
}
END_TEST

START_TEST(what_is_unknown_is_bad_usage_and_names_the_nearest)
{
	expect(2, "lits", NULL, "did you mean 'list'");
	expect(2, "zzzzzzzz", NULL, "nexus --help");
	expect(2, "run --dryrun x.yaml", NULL, "did you mean '--dry-run'");
	expect(2, "generate --max-tokens many", NULL, "takes an integer");
	expect(2, "run", NULL, "usage: nexus run FILE");
	expect(2, "run a b", NULL, "usage: nexus run FILE");
	expect(2, "run t.yaml --set", NULL, "a value is missing");
	expect(2, "list paged_atention", NULL, "did you mean 'paged_attention'");
	expect(2, "list --format xml", NULL, "text, md, csv and json");
}
END_TEST

START_TEST(a_wrong_config_is_bad_usage_with_its_place)
{
	expect(2, "run nothere.yaml", NULL, "nothere.yaml");
	cli_experiment(&c, "baseline", "  {}\n", "trials: 1\ntrails: 2\n");
	expect(2, "run t.yaml", NULL, "t.yaml:");
	ck_assert_ptr_nonnull(strstr(c.err, "trials"));
	cli_experiment(&c, "baseline", "  {}\n", "trials: 1\n");
	expect(2, "run t.yaml --set sweep.bach_size=3", NULL, "batch_size");
	expect(2, "run t.yaml --set model=nothere.gguf", NULL, "nothere.gguf");
	ck_assert(!cli_exists(&c, "results"));
}
END_TEST

START_TEST(a_model_that_is_none_is_bad_usage)
{
	cli_write(&c, "bad.gguf", "this is no model");
	expect(2, "generate --model bad.gguf --prompt x", NULL, "bad.gguf");
	expect(2, "generate --model nothere.gguf --prompt x", NULL, "nothere.gguf");
	cli_write(&c, "notes.txt", "this is no model");
	expect(2, "generate --model notes.txt --prompt x", NULL,
	       "is a file that does not end in .gguf; legal: ");
	expect(2, "generate --model nano --prompt x --seed -1", NULL,
	       "--seed is -1; legal is 0 or more");
	cli_experiment(&c, "baseline", "  {}\n", "trials: 1\n");
	expect(2, "run t.yaml --set model=bad.gguf", NULL, "bad.gguf");
}
END_TEST

/* A pipe that nobody writes to must not be waited for. */
START_TEST(a_pipe_is_no_file)
{
	ck_assert_int_eq(mkfifo(cli_path(&c, "fifo.gguf"), 0600), 0);
	ck_assert_int_eq(mkfifo(cli_path(&c, "fifo.h5"), 0600), 0);
	expect(3, "generate --model fifo.gguf --prompt x", NULL,
	       "not a regular file; legal: a GGUF");
	expect(2, "report fifo.h5", NULL, "found no regular file; legal: a run file");
	expect(2, "plot fifo.h5", NULL, "found no regular file; legal: a run file");
	expect(2, "report nothere.h5", NULL, "No such file");
}
END_TEST

/* Whatever is forced: what no run wrote is not replaced by one. */
START_TEST(force_replaces_run_files_alone)
{
	cli_experiment(&c, "baseline", "  {}\n", "trials: 1\n");
	expect(2, "run t.yaml -o t.yaml", NULL, "exists already");
	expect(2, "run t.yaml -o t.yaml --force", NULL,
	       "no run file, which --force does not replace");
	expect(2, "run t.yaml -o tiny.gguf --force", NULL, "no run file");
	expect(0, "run t.yaml -o o.h5", "o.h5", NULL); /* the file was left as it was */
	expect(2, "run t.yaml -o o.h5", NULL, "exists already");
	expect(0, "run t.yaml -o o.h5 --force", "o.h5", NULL);
	ck_assert(!cli_exists(&c, "t.yaml.parts"));
}
END_TEST

START_TEST(lists_are_clean_in_every_format)
{
	expect(0, "list", "flash_attention", NULL);
	expect(0, "list --format md", "| name |", NULL);
	expect(0, "list --format csv", "name,slot,summary", NULL);
	expect(0, "list --format json", "\"name\"", NULL);
	json_t *j = json_loads(c.out, 0, NULL);
	ck_assert_msg(json_is_array(j) && json_array_size(j) >= 5, "%s", c.out);
	json_decref(j);
	expect(0, "list paged_attention", "block_size", NULL);
	expect(0, "list paged_attention --format json", "block_size", NULL);
	j = json_loads(c.out, 0, NULL);
	ck_assert_msg(json_is_array(j), "%s", c.out);
	json_decref(j);
}
END_TEST

START_TEST(a_rejected_plugin_is_shown_with_its_sentence)
{
	cli_write(&c, "broken.so", "no shared object");
	expect(0, "list --path .", "flash_attention", "rejected");
	ck_assert_ptr_nonnull(strstr(c.err, "broken.so"));
}
END_TEST

START_TEST(greedy_text_is_the_same_under_every_stack)
{
	/* In invariant mode no technique may change a token. */
	static const char *const STACKS[] = {
		"--technique paged_attention:block_size=16",
		"--technique continuous_batching",
		"--technique paged_attention:block_size=8 --technique continuous_batching",
		"--technique no_cache",
	};
	char args[512];
	expect(0, "generate -m tiny.gguf -p 'story 1' -n 24 --dtype f32 --invariant", "", "tok/s");
	char *plain = strdup(c.out);
	ck_assert_uint_gt(strlen(plain), 4);
	for (size_t i = 0; i < sizeof(STACKS) / sizeof(STACKS[0]); i++) {
		snprintf(args, sizeof(args),
		         "generate -m tiny.gguf -p 'story 1' -n 24 --dtype f32 --invariant %s",
		         STACKS[i]);
		expect(0, args, plain, "tok/s");
	}
	free(plain);
}
END_TEST

START_TEST(samples_and_seeds_are_kept_apart)
{
	const char *args =
		"generate -m tiny.gguf -p 'story 1' -n 12 --samples 3 --temperature 2 --seed 5";
	expect(0, args, "[2]", NULL);
	char *once = strdup(c.out);
	expect(0, args, once, NULL);
	expect(0, "generate -m tiny.gguf -p 'story 1' -n 12 --samples 3 --temperature 2 --seed 6",
	       "[2]", NULL);
	ck_assert_str_ne(once, c.out);
	free(once);
}
END_TEST

START_TEST(generate_takes_prompts_from_files_and_stacks_from_experiments)
{
	cli_write(&c, "p.txt", "story 1");
	cli_experiment(&c, "baseline, paged", "  paged:\n    - paged_attention: {block_size: 16}\n",
	               "trials: 1\n");
	expect(0, "generate -m tiny.gguf -f p.txt -n 4 --chat --stack t.yaml:paged", "", "tok/s");
	expect(2, "generate -m tiny.gguf -p x --stack t.yaml:padeg", NULL, "there are");
	expect(2, "generate -m tiny.gguf -p x --technique paged_attention:blok_size=1", NULL,
	       "block_size");
	expect(2, "generate -m tiny.gguf -p x --technique paged_attention:block_size=-1", NULL,
	       "block_size");
	expect(2, "generate -m tiny.gguf", NULL, "prompt is missing");
	expect(2, "generate -m tiny.gguf -p x --dtype f16", NULL, "f32 and bf16");
}
END_TEST

START_TEST(bench_prints_a_table_against_peaks)
{
	expect(0, "bench -m tiny.gguf --prompt-len 32 --gen 8 --repeat 1 --format csv",
	       "decode tok/s", "peaks");
	expect(2, "bench -m tiny.gguf --prompt-len 9999", NULL, "context");
	expect(2, "bench -m tiny.gguf --batch-size 1,x", NULL, "--batch-size");
}
END_TEST

START_TEST(no_backend_is_an_environment_that_lacks_something)
{
	expect(3, "generate -m tiny.gguf -p x --device cuda", NULL, "cuda");
}
END_TEST

int main(void)
{
	Suite *s = suite_create("cli");
	TCase *t = tcase_create("cli");
	tcase_add_checked_fixture(t, setup, teardown);
	tcase_set_timeout(t, 60);
	tcase_add_test(t, usage_names_every_verb);
	tcase_add_loop_test(t, each_verb_has_help_with_an_example, 0, N_VERBS);
	tcase_add_test(t, what_is_unknown_is_bad_usage_and_names_the_nearest);
	tcase_add_test(t, a_wrong_config_is_bad_usage_with_its_place);
	tcase_add_test(t, a_model_that_is_none_is_bad_usage);
	tcase_add_test(t, a_pipe_is_no_file);
	tcase_add_test(t, force_replaces_run_files_alone);
	tcase_add_test(t, lists_are_clean_in_every_format);
	tcase_add_test(t, a_rejected_plugin_is_shown_with_its_sentence);
	tcase_add_test(t, greedy_text_is_the_same_under_every_stack);
	tcase_add_test(t, samples_and_seeds_are_kept_apart);
	tcase_add_test(t, generate_takes_prompts_from_files_and_stacks_from_experiments);
	tcase_add_test(t, bench_prints_a_table_against_peaks);
	tcase_add_test(t, no_backend_is_an_environment_that_lacks_something);
	suite_add_tcase(s, t);
	SRunner *r = srunner_create(s);
	srunner_run_all(r, CK_NORMAL);
	int failed = srunner_ntests_failed(r);
	srunner_free(r);
	return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}
