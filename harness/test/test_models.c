/* SPDX-License-Identifier: Apache-2.0
 *
 * test/test_models.c: shape presets with random weights, and forecasts: what a stack takes is known to 1 % before
 * any weight is there.
 */
#include <check.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "engine_fixture.h"
#include "measure/gate.h"
#include "measure/model_path.h"
#include "measure/runner.h"
#include "model/preset.h"
#include "record/schema.h"
#include "tiny_model.h"

/* ---- presets ---------------------------------------------------------------------------------- */

static struct nx_model *open_named(const char *name)
{
	struct nx_model *m = NULL;
	struct nx_err err = {0};
	char path[512];
	ck_assert_msg(!nx_model_find(name, NULL, NULL, path, sizeof(path), &err), "%s", err.msg);
	ck_assert_msg(!nx_model_open(&m, path, &err), "%s", err.msg);
	return m;
}

/* Parameters as the models' publishers count them. */
START_TEST(presets_have_the_published_sizes)
{
	static const struct {
		const char *name;
		int64_t params;
		int32_t ctx;
	} known[] = {{"llama-7b", 6738415616, 4096},
	             {"llama-8b", 8030261248, 131072},
	             {"llama-13b", 13015864320, 4096},
	             {"llama-70b", 68976648192, 4096}};
	for (size_t i = 0; i < sizeof(known) / sizeof(known[0]); i++) {
		struct nx_model *m = open_named(known[i].name);
		ck_assert_int_eq(nx_model_n_params(m), known[i].params);
		ck_assert_int_eq(nx_model_shape(m)->ctx_len, known[i].ctx);
		ck_assert(nx_model_is_random(m) && !nx_model_tokenizer(m) && !nx_model_file(m));
		ck_assert_str_eq(nx_model_name(m), known[i].name);
		ck_assert_str_eq(nx_model_file_type(m), "random");
		nx_model_close(m);
	}
}
END_TEST

/* Llama 3.1's frequencies: the first pairs as they were, the last ones eight times slower. */
START_TEST(llama_8b_scales_its_frequencies)
{
	struct nx_model *m = open_named("llama-8b");
	const float *f = nx_model_inv_freq(m);
	for (int i = 0; i < 64; i++) {
		double plain = pow(500000.0, -2.0 * i / 128);
		double turns = 8192 * plain / (2 * acos(-1.0));
		if (turns > 4)
			ck_assert_double_eq_tol(f[i] / plain, 1, 1e-6);
		else if (turns < 1)
			ck_assert_double_eq_tol(f[i] / plain, 0.125, 1e-6);
		else
			ck_assert(f[i] < plain && f[i] > plain / 8);
	}
	nx_model_close(m);
}
END_TEST

START_TEST(random_rows_are_a_function_of_their_place)
{
	enum { ROWS = 64, COLS = 257 };
	static float all[ROWS * COLS], part[ROWS * COLS];
	const float std = 0.25f;
	nx_random_rows(7, 3, 2, 0, ROWS, COLS, std, all);
	for (int row = 0; row < ROWS; row += 13) {
		nx_random_rows(7, 3, 2, row, 5, COLS, std, part);
		ck_assert(
			!memcmp(part, all + row * COLS,
		                sizeof(float) * COLS * (size_t)(ROWS - row < 5 ? ROWS - row : 5)));
	}
	double sum = 0, squares = 0, lag = 0, below = 0;
	for (int i = 0; i < ROWS * COLS; i++) {
		sum += all[i];
		squares += (double)all[i] * all[i];
		lag += i ? (double)all[i] * all[i - 1] : 0;
		below += fabs((double)all[i]) < 0.25 * sqrt(3) / 2;
	}
	double n = ROWS * COLS;
	/* four standard errors of a uniform sample */
	ck_assert_double_eq_tol(sum / n, 0, 4 * 0.25 / sqrt(n));
	ck_assert_double_eq_tol(squares / n, 0.0625, 4 * 0.0625 * sqrt(0.8 / n));
	ck_assert_double_eq_tol(lag / n, 0, 4 * 0.0625 / sqrt(n));
	ck_assert_double_eq_tol(below / n, 0.5, 4 * 0.5 / sqrt(n));
	/* another seed, matrix, layer or row is another row, and no shifted copy */
	const uint64_t other[][4] = {{8, 3, 2, 0}, {7, 4, 2, 0}, {7, 3, 1, 0}, {7, 3, 2, 1}};
	for (size_t k = 0; k < 4; k++) {
		nx_random_rows(other[k][0], (uint32_t)other[k][1], (int32_t)other[k][2],
		               (int64_t)other[k][3], 1, COLS, std, part);
		int equal = 0;
		for (int a = 0; a < COLS; a++)
			for (int b = 0; b < COLS; b++)
				equal += part[a] == all[b];
		ck_assert_int_le(equal, 2);
	}
}
END_TEST

START_TEST(activations_stay_sane)
{
	static const char *const names[] = {"llama-tiny", "mistral-tiny", "qwen2-tiny",
	                                    "qwen3-tiny"};
	struct fixture f;
	struct request_set reqs;
	struct outcome o;
	struct nx_err err = {0};
	struct run_options opt = {.batch_size = 2};
	struct nx_weights *plan = NULL;
	fixture_open_model(&f, names[_i], "cpu", NX_F32, "auto", false, 2);
	ck_assert_msg(!nx_weights_plan(&plan, f.model, &f.dev, NX_F32, &err), "%s", err.msg);
	ck_assert_uint_eq(nx_weights_bytes(plan), nx_weights_bytes(f.weights));
	nx_weights_destroy(plan);
	requests_make(&reqs, &f, 3, 5, 40, 4, 4, 1, 0, 5);
	for (int32_t i = 0; i < reqs.n; i++)
		reqs.reqs[i].ignore_eos = false; /* without a tokenizer there is none */
	outcome_init(&o, &f, 3, 1, 4, true);
	ck_assert_msg(!run_stack(&f, "", &reqs, &opt, &o, &err), "%s", err.msg);
	double squares = 0;
	for (int32_t i = 0; i < 12 * o.vocab; i++)
		squares += (double)o.logits[i] * (double)o.logits[i];
	double rms = sqrt(squares / (12.0 * o.vocab));
	ck_assert_msg(rms > 0.3 && rms < 3, "%s: logits of %g", names[_i], rms);
	for (int32_t i = 0; i < 3; i++)
		ck_assert_int_eq(o.n_out[i], 4);
	outcome_release(&o);
	requests_release(&reqs);
	fixture_close(&f);
}
END_TEST

/* ---- forecasts -------------------------------------------------------------------------------- */

#define N_REQS 3

static const struct {
	const char *model;
	enum nx_dtype dtype;
	bool invariant;
} subjects[] = {
	{"llama-tiny", NX_BF16, false},
	{"qwen3-tiny", NX_F32, true},
};
#define N_SUBJECTS ((int)(sizeof(subjects) / sizeof(subjects[0])))

static const char *const stacks[] = {
	"",
	"flash_attention",
	"no_cache",
	"kv_cache:reserve=exact,flash_attention,continuous_batching",
	"paged_attention:block_size=16:num_blocks=200,continuous_batching",
	"paged_attention:block_size=16:num_blocks=200:preempt=swap,continuous_batching",
	"codec_row,paged_attention:block_size=8:num_blocks=64",
	"prompt_lookup",
	"draft_noise,continuous_batching",
	"codec_group:window=4,prefix_donor:block_size=4:max_entries=9,continuous_batching",
};

static void same_owners(const struct nx_forecast *f, const struct nx_trial *t, const char *what)
{
	uint64_t total = 0;
	ck_assert_uint_eq(f->n_mem, t->n_mem);
	for (size_t i = 0; i < t->n_mem; i++) {
		const struct nx_mem_use *got = &t->mem[i], *want = NULL;
		for (size_t k = 0; k < f->n_mem; k++)
			if (!strcmp(f->mem[k].owner, got->owner))
				want = &f->mem[k];
		ck_assert_msg(want != NULL, "%s: nobody forecast %s", what, got->owner);
		double off = fabs((double)want->reserved_bytes - (double)got->reserved_bytes);
		ck_assert_msg(off <= 0.01 * (double)got->reserved_bytes,
		              "%s: %s was forecast at %llu bytes and took %llu", what, got->owner,
		              (unsigned long long)want->reserved_bytes,
		              (unsigned long long)got->reserved_bytes);
		total += got->reserved_bytes;
	}
	ck_assert(fabs((double)f->total_bytes - (double)total) <= 0.01 * (double)total);
}

/* _i: the subject. Products go to the library, where there is one, from 33 rows. */
START_TEST(a_forecast_is_what_a_trial_takes)
{
	struct fixture f;
	struct nx_err err = {0};
	struct nx_weights *plan = NULL;
	struct request_set reqs;
	setenv("NEXUS_LIBRARY_ROWS", "33", 1);
	fixture_open_model(&f, subjects[_i].model, "cpu", subjects[_i].dtype, "auto",
	                   subjects[_i].invariant, 2);
	ck_assert_msg(!nx_weights_plan(&plan, f.model, &f.dev, subjects[_i].dtype, &err), "%s",
	              err.msg);
	ck_assert_uint_eq(nx_weights_bytes(plan), nx_weights_bytes(f.weights));
	for (size_t k = 0; k < sizeof(stacks) / sizeof(stacks[0]); k++) {
		struct test_stack stack;
		struct nx_forecast forecast;
		struct nx_runner *r = NULL;
		struct nx_trial t;
		char what[256];
		int32_t prompt = k % 2 ? 40 : 9;
		snprintf(what, sizeof(what), "%s, %s", subjects[_i].model, stacks[k]);
		requests_make(&reqs, &f, N_REQS, prompt, prompt, 6, 6, 1, 0, 3);
		test_stack_make(&stack, &f, stacks[k]);
		const struct nx_named_stack named = {
			.name = "tested", .stack = stack.stack, .spec = stacks[k]};
		const struct nx_cell cell = {
			.id = "0123456789abcdef",
			.stack = &named,
			.batch_size = 2,
			.num_requests = N_REQS,
			.seq_len = {.min = prompt, .max = prompt},
			.output_len = {.min = 6, .max = 6},
		};
		struct nx_runner_config rc = {
			.shape = nx_model_shape(f.model),
			.dev = &f.dev,
			.weights = plan,
			.dtype = subjects[_i].dtype,
			.invariant = subjects[_i].invariant,
			.random_weights = nx_model_is_random(f.model),
			.samples = 1,
			.load_other_max = 1000,
		};
		nx_runner_forecast(&rc, &cell, &forecast);
		ck_assert_msg(!forecast.code, "%s: %s", what, forecast.reason);
		rc.weights = f.weights;
		ck_assert_msg(!nx_runner_create(&r, &rc, &err), "%s", err.msg);
		const struct nx_runner_job job = {
			.cell = &cell, .reqs = reqs.reqs, .n_reqs = N_REQS, .gate = true};
		nx_runner_trial(r, &job, &t);
		ck_assert_msg(t.status == NX_STATUS_OK, "%s: %s", what, t.cause);
		same_owners(&forecast, &t, what);
		/* random weights have nothing to be exact about */
		ck_assert_int_eq(t.gate.ran, 0);
		nx_trial_release(&t);
		nx_runner_destroy(r);
		requests_release(&reqs);
	}
	nx_weights_destroy(plan);
	fixture_close(&f);
	unsetenv("NEXUS_LIBRARY_ROWS");
}
END_TEST

START_TEST(the_gate_says_that_weights_are_random)
{
	struct fixture f;
	struct nx_err err = {0};
	struct request_set reqs;
	struct test_stack stack;
	struct nx_runner *r = NULL;
	struct nx_trial t;
	char text[128];
	fixture_open_model(&f, "llama-tiny", "cpu", NX_F32, "auto", false, 2);
	requests_make(&reqs, &f, 2, 8, 8, 3, 3, 1, 0, 3);
	test_stack_make(&stack, &f, "");
	const struct nx_named_stack named = {.name = "base", .stack = stack.stack, .spec = ""};
	const struct nx_cell cell = {.id = "0123456789abcdef",
	                             .stack = &named,
	                             .batch_size = 2,
	                             .num_requests = 2,
	                             .seq_len = {.min = 8, .max = 8},
	                             .output_len = {.min = 3, .max = 3}};
	const struct nx_runner_config rc = {.shape = nx_model_shape(f.model),
	                                    .dev = &f.dev,
	                                    .weights = f.weights,
	                                    .dtype = NX_F32,
	                                    .random_weights = true,
	                                    .samples = 1,
	                                    .load_other_max = 1000};
	ck_assert_msg(!nx_runner_create(&r, &rc, &err), "%s", err.msg);
	const struct nx_runner_job job = {
		.cell = &cell, .reqs = reqs.reqs, .n_reqs = 2, .gate = true};
	nx_runner_trial(r, &job, &t);
	ck_assert_msg(t.status == NX_STATUS_OK, "%s", t.cause);
	ck_assert_int_eq(t.gate.ran, 0);
	ck_assert_int_eq(t.gate.verdict, NX_GATE_RANDOM_WEIGHTS);
	nx_gate_sentence(&t.gate, text, sizeof(text));
	ck_assert_str_eq(text, "not run: random weights");
	/* to the run file and back */
	struct nx_trial_row row;
	struct nx_trial again;
	nx_trial_init(&again);
	nx_trial_to_row(&t, &row);
	ck_assert_str_eq(row.gate_text, "random weights");
	ck_assert_msg(!nx_trial_from_row(&row, &again, &err), "%s", err.msg);
	ck_assert_int_eq(again.gate.ran, 0);
	ck_assert_int_eq(again.gate.verdict, NX_GATE_RANDOM_WEIGHTS);
	nx_trial_release(&again);
	nx_trial_release(&t);
	nx_runner_destroy(r);
	requests_release(&reqs);
	fixture_close(&f);
}
END_TEST

/* A plan of a model that no test machine could load: nothing is made, and all of it is counted. */
START_TEST(a_plan_loads_nothing)
{
	struct nx_err err = {0};
	struct nx_device dev = {0};
	struct nx_weights *plan = NULL;
	struct nx_engine *e = NULL;
	struct nx_stack stack = {0};
	struct nx_model *m = open_named("llama-70b");
	const struct nx_device_config dc = {.n_threads = 1, .dtype = NX_BF16, .isa = "ref"};
	ck_assert_msg(!nx_device_open(&dev, "cpu", &dc, getenv("NEXUS_BUILD"), &err), "%s",
	              err.msg);
	ck_assert_msg(!nx_weights_plan(&plan, m, &dev, NX_BF16, &err), "%s", err.msg);
	double params = 68976648192.0;
	ck_assert_double_eq_tol((double)nx_weights_bytes(plan), 2 * params, 0.001 * 2 * params);
	const struct nx_engine_config ec = {
		.weights = plan, .stack = &stack, .batch_size = 1, .samples = 1, .max_len = 64};
	ck_assert_int_eq(nx_engine_create(&e, &ec, &err), NX_EBUG);
	ck_assert_ptr_null(e);
	nx_weights_destroy(plan);
	nx_device_close(&dev);
	nx_model_close(m);
}
END_TEST

/* The multi-token twin is nano's shape with blocks beside the last one; a plain run does not see those. */
START_TEST(the_twin_has_heads_for_three_tokens_more)
{
	static const struct {
		const char *name;
		enum nx_weight_id like;
	} parts[] = {{"attn_norm", NX_W_ATTN_NORM},
	             {"attn_q", NX_W_Q},
	             {"attn_k", NX_W_K},
	             {"attn_v", NX_W_V},
	             {"attn_output", NX_W_O},
	             {"ffn_norm", NX_W_FFN_NORM},
	             {"ffn_gate", NX_W_GATE},
	             {"ffn_up", NX_W_UP},
	             {"ffn_down", NX_W_DOWN}};
	char path[1024], name[64];
	uint32_t heads = 0, tap = 0;
	struct nx_model *m = NULL;
	struct nx_err err = {0};
	nx_test_source_path(path, sizeof(path), "experiments/models/nano/nano-mtp.gguf");
	ck_assert_msg(!nx_model_open(&m, path, &err), "%s", err.msg);
	const struct nx_shape *s = nx_model_shape(m);
	const struct nx_gguf *g = nx_model_file(m);
	ck_assert_int_eq(nx_model_n_params(m), 5771520);
	ck_assert_int_eq(nx_gguf_get_u32(g, "nexus.mtp.n_heads", &heads, &err), 1);
	ck_assert_int_eq(nx_gguf_get_u32(g, "nexus.mtp.tap_layer", &tap, &err), 1);
	ck_assert_uint_eq(heads, 3);
	ck_assert_uint_eq(tap, (unsigned)s->n_layers - 1);
	for (unsigned h = 0; h < heads; h++)
		for (size_t i = 0; i < sizeof(parts) / sizeof(parts[0]); i++) {
			snprintf(name, sizeof(name), "mtp.%u.%s.weight", h, parts[i].name);
			const struct nx_tensor *t = nx_gguf_tensor(g, name);
			ck_assert_msg(t != NULL, "%s", name);
			ck_assert_int_eq(t->dims[0], nx_weight_cols(s, parts[i].like));
			ck_assert_int_eq(t->dims[1], nx_weight_rows(s, parts[i].like));
		}
	nx_model_close(m);
}
END_TEST

int main(void)
{
	Suite *s = suite_create("models");
	TCase *tc = tcase_create("models");
	tcase_set_timeout(tc, 120);
	tcase_add_test(tc, presets_have_the_published_sizes);
	tcase_add_test(tc, llama_8b_scales_its_frequencies);
	tcase_add_test(tc, random_rows_are_a_function_of_their_place);
	tcase_add_loop_test(tc, activations_stay_sane, 0, 4);
	tcase_add_loop_test(tc, a_forecast_is_what_a_trial_takes, 0, N_SUBJECTS);
	tcase_add_test(tc, the_gate_says_that_weights_are_random);
	tcase_add_test(tc, a_plan_loads_nothing);
	tcase_add_test(tc, the_twin_has_heads_for_three_tokens_more);
	suite_add_tcase(s, tc);
	SRunner *sr = srunner_create(s);
	srunner_run_all(sr, CK_NORMAL);
	int failed = srunner_ntests_failed(sr);
	srunner_free(sr);
	return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}
