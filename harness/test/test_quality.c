/* SPDX-License-Identifier: Apache-2.0
 *
 * test/test_quality.c: quality of lossy numerics on held-out text, with the nano model.
 */
#include <check.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "engine_fixture.h"
#include "measure/quality.h"
#include "tiny_model.h"

static struct fixture fx;
static struct nx_quality_bench *bench;

static void open_nano(void)
{
	struct nx_err err = {0};
	char path[1024];
	nx_test_source_path(path, sizeof(path), "experiments/models/nano/nano.gguf");
	fixture_open_model(&fx, path, "cpu", NX_F32, "auto", false, 2);
	nx_test_source_path(path, sizeof(path), "experiments/" NX_QUALITY_FILE);
	ck_assert_msg(nx_quality_create(&bench, nx_model_tokenizer(fx.model), path,
	                                nx_model_shape(fx.model), &err) == 0,
	              "%s", err.msg);
}

static void close_it(void)
{
	nx_quality_destroy(bench);
	fixture_close(&fx);
}

static struct nx_quality measure(const char *spec)
{
	struct test_stack st;
	struct nx_err err = {0};
	struct nx_quality q, again;
	test_stack_make(&st, &fx, spec);
	const struct nx_engine_config c = {.weights = fx.weights, .stack = &st.stack};
	ck_assert(!nx_quality_known(bench, &st.stack, &q));
	ck_assert_msg(nx_quality_run(bench, &c, &q, &err) == 0, "%s", err.msg);
	ck_assert(nx_quality_known(bench, &st.stack, &again));
	ck_assert_int_eq(memcmp(&q, &again, sizeof(q)), 0);
	ck_assert_int_eq(q.n_texts, NX_QUALITY_TEXTS);
	ck_assert_int_eq(q.n_positions, NX_QUALITY_TEXTS * NX_QUALITY_OUT);
	return q;
}

START_TEST(full_precision_loses_nothing)
{
	/* Layers beside the numerics are left out: the gate says what they do. */
	struct nx_quality q = measure("paged_attention:block_size=16");
	ck_assert_double_eq(q.kl, 0);
	ck_assert_double_eq(q.agreement, 1);
	ck_assert_double_eq(q.first_divergence, NX_QUALITY_OUT);
	ck_assert_double_eq(q.perplexity, q.perplexity_full);
	/* Held-out text of the distribution that nano was trained on, 8,192 tokens in its vocabulary. */
	ck_assert(q.perplexity > 1.5 && q.perplexity < 20);
}
END_TEST

START_TEST(fewer_bits_lose_more)
{
	struct nx_quality int8 = measure("weight_quant"), int4 = measure("weight_quant:type=int4"),
			  rounded = measure("weight_quant:activations=int8:group_size=32");
	ck_assert_double_gt(int8.kl, 0);
	ck_assert_double_lt(int8.kl, 0.002);
	ck_assert_double_lt(fabs(int8.perplexity / int8.perplexity_full - 1), 0.01);
	ck_assert_double_gt(int8.agreement, 0.97);
	ck_assert_double_gt(int4.kl, 10 * int8.kl);
	ck_assert_double_lt(int4.agreement, int8.agreement);
	ck_assert_double_lt(int4.first_divergence, int8.first_divergence);
	ck_assert_double_lt(int4.perplexity / int4.perplexity_full, 1.3);
	ck_assert_double_gt(rounded.kl, int8.kl / 4);
	ck_assert_double_lt(fabs(rounded.perplexity / rounded.perplexity_full - 1), 0.02);
}
END_TEST

START_TEST(lossy_stacks_are_told_by_their_flags)
{
	static const struct {
		const char *spec;
		bool lossy;
	} stacks[] = {{"", false},
	              {"flash_attention,paged_attention,continuous_batching", false},
	              {"prompt_lookup,codec_row", false}, /* the test's codec claims exactness */
	              {"weight_quant", true},
	              {"flash_attention,weight_quant:type=fp8", true}};
	for (size_t i = 0; i < sizeof(stacks) / sizeof(stacks[0]); i++) {
		struct test_stack st;
		test_stack_make(&st, &fx, stacks[i].spec);
		ck_assert_msg(nx_quality_is_lossy(&st.stack) == stacks[i].lossy, "%s",
		              stacks[i].spec);
	}
}
END_TEST

START_TEST(texts_that_are_none_are_refused)
{
	static const struct {
		const char *text, *part;
	} bad[] = {{"{\"text\": \"too short\"}\n", "tokens; needed"},
	           {"{\"turns\": 3}\n", "no \"text\""},
	           {"", "0 are there"}};
	struct nx_quality_bench *b = NULL;
	struct nx_err err = {0};
	char path[512];
	nx_test_tmp_path(path, sizeof(path), "held_out.jsonl");
	for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
		ck_assert_int_eq(nx_test_write_file(path, bad[i].text, strlen(bad[i].text), &err),
		                 0);
		ck_assert_int_eq(nx_quality_create(&b, nx_model_tokenizer(fx.model), path,
		                                   nx_model_shape(fx.model), &err),
		                 NX_EFORMAT);
		ck_assert_msg(strstr(err.msg, bad[i].part) != NULL, "%s", err.msg);
		ck_assert_ptr_null(b);
	}
	unlink(path);
}
END_TEST

int main(void)
{
	Suite *s = suite_create("quality");
	TCase *tc = tcase_create("nano");
	tcase_add_checked_fixture(tc, open_nano, close_it);
	tcase_set_timeout(tc, 240);
	tcase_add_test(tc, full_precision_loses_nothing);
	tcase_add_test(tc, fewer_bits_lose_more);
	tcase_add_test(tc, lossy_stacks_are_told_by_their_flags);
	tcase_add_test(tc, texts_that_are_none_are_refused);
	suite_add_tcase(s, tc);
	SRunner *r = srunner_create(s);
	srunner_run_all(r, CK_NORMAL);
	int failed = srunner_ntests_failed(r);
	srunner_free(r);
	return failed != 0;
}
