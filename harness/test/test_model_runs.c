/* SPDX-License-Identifier: Apache-2.0
 *
 * test/test_model_runs.c: models of other families, and models without a text, through the whole program.
 */
#include <check.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "cli_fixture.h"
#include "measure/gate.h"
#include "record/run.h"
#include "tiny_model.h"

#define STACKS                                                                                     \
	"  paged:\n    - paged_attention: {block_size: 4}\n    - continuous_batching\n"            \
	"    - flash_attention\n"

static struct cli c;

static void setup(void)
{
	cli_open(&c);
}

static void teardown(void)
{
	cli_close(&c);
}

/* "run t.yaml --set model=<that family's file>" and more. */
static void run(const char *family, const char *verb)
{
	char rel[PATH_MAX], path[PATH_MAX], args[PATH_MAX + 256];
	snprintf(rel, sizeof(rel), "harness/test/data/families/%s.gguf", family);
	nx_test_source_path(path, sizeof(path), rel);
	ck_assert_ptr_nonnull(realpath(path, rel));
	snprintf(args, sizeof(args), "%s --set model=%s", verb, rel);
	cli_run(&c, "", args);
}

/* A Hugging Face directory is found by its name alone, where it lies. */
START_TEST(a_directory_is_a_model)
{
	char rel[PATH_MAX], path[PATH_MAX];
	nx_test_source_path(rel, sizeof(rel), "harness/test/data/families/qwen3");
	ck_assert_ptr_nonnull(realpath(rel, path));
	ck_assert_int_eq(symlink(path, cli_path(&c, "shaped")), 0);
	static const char *const names[] = {"shaped", "./shaped/"};
	char args[256];
	for (int i = 0; i < 2; i++) {
		snprintf(args, sizeof(args),
		         "bench --model %s --batch-size 1 --prompt-len 8 --gen 4 --repeat 1",
		         names[i]);
		ck_assert_msg(cli_run(&c, "", args) == 0, "%s", c.err);
		ck_assert_ptr_nonnull(strstr(c.err, "shaped, bf16, 0.1 MB of weights"));
	}
	ck_assert_int_eq(cli_run(&c, "", "generate --model shaped --prompt hello"), 2);
	ck_assert_msg(strstr(c.err, "the model shaped has no tokenizer"), "%s", c.err);
}
END_TEST

static const struct {
	const char *family, *architecture, *window;
} families[] = {
	{"qwen3", "qwen3", NULL}, {"mistral", "llama", "25 tokens"}, {"qwen2", "qwen2", NULL}};

START_TEST(a_family_goes_through_a_sweep_to_its_report)
{
	struct nx_run *r = NULL;
	struct nx_err err = {0};
	char args[256];
	cli_experiment(&c, "baseline, paged", STACKS, "trials: 1\n");
	run(families[_i].family, "run t.yaml -o o.h5");
	ck_assert_msg(c.status == 0, "%s", c.err);
	ck_assert_msg(!nx_run_read(&r, cli_path(&c, "o.h5"), &err), "%s", err.msg);
	ck_assert_uint_eq(r->n_cells, 4);
	for (size_t i = 0; i < r->n_cells; i++) {
		ck_assert_int_eq(r->cells[i].status, NX_STATUS_OK);
		ck_assert_int_eq(r->cells[i].gate.ran, 1);
		ck_assert_int_eq(r->cells[i].gate.n_wrong, 0);
	}
	const struct nx_fact *f = r->head.facts;
	ck_assert_str_eq(nx_fact_get(f, r->head.n_facts, "architecture"),
	                 families[_i].architecture);
	ck_assert_str_eq(nx_fact_get(f, r->head.n_facts, "weights"), "of the model's file");
	const char *window = nx_fact_get(f, r->head.n_facts, "sliding_window");
	ck_assert(!window == !families[_i].window);
	ck_assert(!window || !strncmp(window, families[_i].window, strlen(families[_i].window)));
	nx_run_destroy(r);
	snprintf(args, sizeof(args), "report %s --format md", "o.h5");
	ck_assert_msg(cli_run(&c, "", args) == 0, "%s", c.err);
	ck_assert_ptr_nonnull(strstr(c.out, families[_i].architecture));
	ck_assert_ptr_nonnull(strstr(c.out, "exact"));
}
END_TEST

/* All tokens of such a model are alike, and each stack would agree with the others. */
START_TEST(damaged_weights_are_no_exactness)
{
	char rel[PATH_MAX];
	uint8_t *data;
	size_t size;
	struct nx_err err = {0};
	nx_test_source_path(rel, sizeof(rel), "harness/test/data/families/qwen3.gguf");
	ck_assert_msg(!nx_test_read_file(rel, &data, &size, &err), "%s", err.msg);
	ck_assert_uint_gt(size, 4096);
	memset(data + size - 256, 0xff, 256); /* of the last weight: no numbers */
	ck_assert_msg(!nx_test_write_file(cli_path(&c, "nan.gguf"), data, size, &err), "%s",
	              err.msg);
	free(data);
	cli_experiment(&c, "baseline, paged", STACKS, "trials: 1\n");
	ck_assert_msg(cli_run(&c, "", "run t.yaml -o o.h5 --set model=nan.gguf") == 1, "%s", c.err);
	ck_assert_msg(strstr(c.err, "the model's own logits are no numbers at output token 0") !=
	                      NULL,
	              "%s", c.err);
}
END_TEST

START_TEST(a_request_beyond_the_window_is_skipped_by_that_name)
{
	struct nx_run *r = NULL;
	struct nx_err err = {0};
	cli_experiment(&c, "baseline", STACKS, "trials: 1\n");
	run("mistral", "run t.yaml -o o.h5 --set sweep.seq_len=18,10");
	ck_assert_msg(c.status == 0, "%s", c.err);
	ck_assert_msg(!nx_run_read(&r, cli_path(&c, "o.h5"), &err), "%s", err.msg);
	for (size_t i = 0; i < r->n_cells; i++) {
		bool fits = r->cells[i].seq_len < 18;
		ck_assert_int_eq(r->cells[i].status, fits ? NX_STATUS_OK : NX_STATUS_SKIPPED);
		ck_assert(fits || strstr(r->cells[i].cause,
		                         "prompt 18 + output 8 is over the model's context 25 (its "
		                         "sliding window"));
	}
	nx_run_destroy(r);
}
END_TEST

START_TEST(text_needs_a_tokenizer)
{
	cli_experiment(&c, "baseline", STACKS, "trials: 1\n");
	ck_assert_int_eq(cli_run(&c, "", "run t.yaml -o o.h5 --set model=llama-tiny"), 2);
	ck_assert_msg(strstr(c.err, "the model has no tokenizer"), "%s", c.err);
	ck_assert_ptr_nonnull(strstr(c.err, "prompts: random"));
	ck_assert_int_eq(cli_run(&c, "", "generate --model llama-tiny --prompt hello"), 2);
	ck_assert_msg(strstr(c.err, "the model llama-tiny has no tokenizer"), "%s", c.err);
	/* what needs no text works */
	ck_assert_msg(cli_run(&c, "",
	                      "bench --model qwen3-tiny --batch-size 2 --prompt-len 8 --gen 4 "
	                      "--repeat 1 --format csv") == 0,
	              "%s", c.err);
}
END_TEST

START_TEST(models_with_a_name_are_listed)
{
	ck_assert_int_eq(cli_run(&c, "", "list models --format csv"), 0);
	ck_assert_ptr_nonnull(
		strstr(c.out, "llama-70b,llama,68976648192,80,8192,64/8 x 128,28672,32000,4096"));
	ck_assert_ptr_nonnull(strstr(c.out, "qwen3-tiny,qwen3,"));
	ck_assert_int_eq(cli_run(&c, "", "list models --format json"), 0);
	ck_assert_ptr_nonnull(strstr(c.out, "\"layers\": 80, \"width\": 8192, \"heads\": \"64/8"));
	ck_assert_int_eq(cli_run(&c, "", "list models"), 0);
	ck_assert_ptr_nonnull(strstr(c.out, "68.98 G"));
	ck_assert_int_eq(cli_run(&c, "", "bench --model llama-70b"), 3);
	ck_assert_msg(strstr(c.err, "the weights of llama-70b take 128 GiB, and "), "%s", c.err);
	ck_assert_int_eq(cli_run(&c, "", "bench --model lama-7b"), 2);
	ck_assert_msg(strstr(c.err, "did you mean \"llama-7b\"?"), "%s", c.err);
}
END_TEST

int main(void)
{
	Suite *s = suite_create("model_runs");
	TCase *tc = tcase_create("runs");
	tcase_set_timeout(tc, 120);
	tcase_add_checked_fixture(tc, setup, teardown);
	tcase_add_loop_test(tc, a_family_goes_through_a_sweep_to_its_report, 0,
	                    (int)(sizeof(families) / sizeof(families[0])));
	tcase_add_test(tc, damaged_weights_are_no_exactness);
	tcase_add_test(tc, a_request_beyond_the_window_is_skipped_by_that_name);
	tcase_add_test(tc, a_directory_is_a_model);
	tcase_add_test(tc, text_needs_a_tokenizer);
	tcase_add_test(tc, models_with_a_name_are_listed);
	suite_add_tcase(s, tc);
	SRunner *sr = srunner_create(s);
	srunner_run_all(sr, CK_NORMAL);
	int failed = srunner_ntests_failed(sr);
	srunner_free(sr);
	return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}
