/* SPDX-License-Identifier: Apache-2.0
 *
 * test_weight_quant.c: which format each matrix gets, what of the device it takes, files that are quantized already,
 * and what it refuses. Products are tested in kernels/test, stacks in test_stacks.
 */
#include <check.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "engine_fixture.h"
#include "fake_host.h"
#include "model/dequant.h"
#include "model/model_internal.h"
#include "nexus_kernels/weight_quant.h"
#include "tiny_model.h"

#define N_OF(a) ((int)(sizeof(a) / sizeof((a)[0])))

static const char *const specs[] = {
	"weight_quant",
	"weight_quant:group_size=32:zero=true",
	"weight_quant:type=int4",
	"weight_quant:type=int4:group_size=16:lm_head=true",
	"weight_quant:type=fp8:group_size=64:qkv=false",
	"weight_quant:activations=int8:group_size=32:lm_head=true",
};

static struct fixture fx;

static void close_it(void)
{
	fixture_close(&fx);
}

static void open_f32(void)
{
	fixture_open(&fx, NX_F32, "auto", true, 2);
}

static void open_file_model(void)
{
	struct nx_err err = {0};
	struct nx_shape shape = nx_test_tiny_shape();
	char path[512];
	shape.tied = false;
	nx_test_tmp_path(path, sizeof(path), "weight_quant.gguf");
	ck_assert_msg(nx_test_write_model(path, &shape, NX_GGUF_Q8_0, 7, &err) == 0, "%s", err.msg);
	fixture_open_model(&fx, path, "cpu", NX_F32, "auto", true, 2);
	unlink(path);
}

static struct nx_engine_config config_of(const struct nx_stack *s)
{
	return (struct nx_engine_config){.weights = fx.weights,
	                                 .stack = s,
	                                 .batch_size = 2,
	                                 .samples = 1,
	                                 .longest_request = 60,
	                                 .invariant = true};
}

static uint64_t owned(const struct nx_mem_use *m, size_t n, const char *who)
{
	for (size_t i = 0; i < n; i++)
		if (strcmp(m[i].owner, who) == 0)
			return m[i].reserved_bytes;
	return 0;
}

/* Output tokens and logits of a few requests. */
static void run(const char *spec, struct request_set *reqs, struct outcome *out)
{
	struct nx_err err = {0};
	struct run_options o = {.batch_size = 4, .invariant = true};
	requests_make(reqs, &fx, 6, 2, 40, 4, 12, 1, 0, 99);
	outcome_init(out, &fx, 6, 1, 12, true);
	ck_assert_msg(run_stack(&fx, spec, reqs, &o, out, &err) == 0, "%s: %s", spec, err.msg);
}

static void drop(struct request_set *reqs, struct outcome *out)
{
	outcome_release(out);
	requests_release(reqs);
}

/* Codes take the place of the device's own matrices, and all of it was forecast. */
START_TEST(memory_is_that_of_the_codes)
{
	struct test_stack st, none;
	struct nx_err err = {0};
	struct nx_engine *e = NULL;
	struct nx_mem_use now[32], fore[32], plain[32];
	test_stack_make(&none, &fx, "");
	test_stack_make(&st, &fx, specs[_i]);
	struct nx_engine_config with = config_of(&st.stack), without = config_of(&none.stack);
	const struct nx_shape *shape = nx_model_shape(fx.model);
	uint64_t loaded = nx_weights_bytes(fx.weights);
	size_t n_plain = nx_engine_forecast(&without, shape, plain, 32, &err);
	size_t n_fore = nx_engine_forecast(&with, shape, fore, 32, &err);
	ck_assert_msg(nx_engine_create(&e, &with, &err) == 0, "%s", err.msg);
	size_t n = nx_engine_memory(e, now, 32);
	uint64_t codes = owned(now, n, "weight_quant"), own = owned(now, n, "weights");
	ck_assert_uint_gt(codes, 0);
	ck_assert_double_eq_tol((double)owned(fore, n_fore, "weight_quant"), (double)codes,
	                        0.01 * (double)codes);
	ck_assert_double_eq_tol((double)owned(fore, n_fore, "weights"), (double)own,
	                        0.01 * (double)own);
	/* The originals are gone: less of them, and less in all. */
	ck_assert_uint_lt(own, owned(plain, n_plain, "weights"));
	ck_assert_uint_lt(own + codes, owned(plain, n_plain, "weights"));
	ck_assert_uint_lt(nx_weights_bytes(fx.weights), loaded);
	nx_engine_destroy(e);
	/* Who needs them gets them back. */
	ck_assert_msg(nx_engine_create(&e, &without, &err) == 0, "%s", err.msg);
	ck_assert_uint_eq(nx_weights_bytes(fx.weights), loaded);
	n = nx_engine_memory(e, now, 32);
	ck_assert_uint_eq(owned(now, n, "weights"), owned(plain, n_plain, "weights"));
	nx_engine_destroy(e);
}
END_TEST

/* The bytes are the format's, matrix by matrix. */
START_TEST(bytes_are_those_of_the_format)
{
	struct nx_shape s = *nx_model_shape(fx.model);
	const struct nx_weight_quant int8 = {NX_WEIGHT_CODE_INT8, 0, false, false},
				     int4_32 = {NX_WEIGHT_CODE_INT4, 32, true, false},
				     int4_64 = {NX_WEIGHT_CODE_INT4, 64, true, false};
	struct request_set reqs;
	struct outcome out;
	int64_t d = s.d_model, ff = s.d_ff, hd = s.head_dim;
	int64_t qkv = (s.n_heads + 2 * s.n_kv_heads) * hd, heads = s.n_heads * hd;
	/* 64 inputs are groups of 64 by themselves, 96 are not: groups of 32. */
	uint64_t want[2] = {nx_weight_quant_bytes(&int8, qkv, d) +
	                            nx_weight_quant_bytes(&int8, d, heads) +
	                            nx_weight_quant_bytes(&int8, 2 * ff, d) +
	                            nx_weight_quant_bytes(&int8, d, ff),
	                    nx_weight_quant_bytes(&int4_64, qkv, d) +
	                            nx_weight_quant_bytes(&int4_64, d, heads) +
	                            nx_weight_quant_bytes(&int4_64, 2 * ff, d) +
	                            nx_weight_quant_bytes(&int4_32, d, ff)};
	for (int i = 0; i < 2; i++) {
		run(i ? "weight_quant:type=int4" : "weight_quant", &reqs, &out);
		double bytes = last_counter("weight_quant.bytes"),
		       formula = (double)want[i] * s.n_layers;
		/* A panel of 16 features rounds its scales up to a line of 64 bytes. */
		double panels = (double)(qkv + 2 * d + 2 * ff) / 16 * s.n_layers;
		ck_assert_double_ge(bytes, formula);
		ck_assert_double_le(bytes, formula + 64 * panels);
		ck_assert_double_eq(last_counter("weight_quant.matrices"), 4.0 * s.n_layers);
		ck_assert_double_eq(last_counter("weight_quant.left"), 1);
		drop(&reqs, &out);
	}
}
END_TEST

/* A stack of codes leaves nothing behind: the plain stack computes the same bits before and after. */
START_TEST(the_model_is_the_same_afterwards)
{
	struct request_set a, b, c;
	struct outcome before, between, after;
	run("", &a, &before);
	run(specs[_i], &b, &between);
	run("", &c, &after);
	size_t n = (size_t)before.n_requests * (size_t)before.max_out * (size_t)before.vocab;
	ck_assert_int_eq(memcmp(before.logits, after.logits, n * sizeof(float)), 0);
	ck_assert_int_ne(memcmp(before.logits, between.logits, n * sizeof(float)), 0);
	drop(&a, &before);
	drop(&b, &between);
	drop(&c, &after);
}
END_TEST

/* Codes of the file are the file: what differs from its decoded weights is the order of sums. */
START_TEST(codes_of_a_file_are_its_weights)
{
	struct request_set a, b;
	struct outcome plain, coded;
	run("", &a, &plain);
	/* The tiny model's down matrices have 96 inputs, which are whole blocks, too. */
	run("weight_quant:type=file:lm_head=true", &b, &coded);
	ck_assert_double_eq(last_counter("weight_quant.left"), 0);
	ck_assert_double_eq_tol(last_counter("weight_quant.bits"), 8.5, 0.3);
	for (int32_t i = 0; i < plain.n_requests; i++) {
		/* The prompt's last position: inputs are the same whatever was chosen later. */
		const float *x = plain.logits + (size_t)(i * plain.max_out) * (size_t)plain.vocab,
			    *y = coded.logits + (size_t)(i * coded.max_out) * (size_t)coded.vocab;
		for (int32_t t = 0; t < plain.vocab; t++)
			ck_assert_float_eq_tol(x[t], y[t], 1e-4f * (1 + fabsf(x[t])));
	}
	drop(&a, &plain);
	drop(&b, &coded);
}
END_TEST

START_TEST(codes_of_rows_decode_to_the_rows)
{
	static const enum nx_weight_id ids[] = {NX_W_EMBED, NX_W_Q, NX_W_K, NX_W_GATE, NX_W_DOWN};
	struct nx_err err = {0};
	for (int i = 0; i < N_OF(ids); i++) {
		const struct nx_shape *s = nx_model_shape(fx.model);
		struct nx_weight_quant f;
		int64_t n = nx_weight_rows(s, ids[i]) - 3, k = nx_weight_cols(s, ids[i]);
		float *rows = malloc((size_t)(n * k) * sizeof(*rows));
		uint8_t *codes = malloc((size_t)(n * k));
		struct nx_quant_param *params = malloc((size_t)(n * k / 32) * sizeof(*params));
		ck_assert(rows && codes && params);
		ck_assert(nx_model_code_format(fx.model, ids[i], 1, &f));
		ck_assert_int_eq(f.code, NX_WEIGHT_CODE_INT8);
		ck_assert_int_eq(nx_model_rows(fx.model, ids[i], 1, 3, n, rows, &err), 0);
		ck_assert_int_eq(nx_model_codes(fx.model, ids[i], 1, 3, n, codes, params, &err), 0);
		for (int64_t j = 0; j < n * k; j++)
			ck_assert_float_eq(rows[j], nx_weight_value(&f, params[j / 32], codes[j]));
		ck_assert_int_eq(nx_model_codes(fx.model, ids[i], 1, 0, n + 4, codes, params, &err),
		                 NX_EINVAL);
		free(rows);
		free(codes);
		free(params);
	}
	struct nx_weight_quant f;
	ck_assert(!nx_model_code_format(fx.model, NX_W_OUT_NORM, 0, &f));
	ck_assert_int_eq(f.code, NX_WEIGHT_CODE_NONE);
}
END_TEST

/* Any bytes: ggml's own values of them. */
START_TEST(blocks_decode_bit_for_bit)
{
	static const struct {
		enum nx_gguf_type type;
		struct nx_weight_quant f;
	} types[] = {{NX_GGUF_Q8_0, {NX_WEIGHT_CODE_INT8, 32, false, false}},
	             {NX_GGUF_Q4_0, {NX_WEIGHT_CODE_INT4, 32, false, false}},
	             {NX_GGUF_Q4_1, {NX_WEIGHT_CODE_INT4, 32, true, false}}};
	uint64_t seed = 5;
	for (int i = 0; i < 3000; i++) {
		uint8_t block[64], codes[32];
		float want[32];
		struct nx_quant_param p;
		for (size_t j = 0; j < sizeof(block); j++)
			block[j] = (uint8_t)nx_test_random(&seed);
		block[1] &= 0xbf; /* fp16 scales and zeros that are finite */
		block[3] &= 0xbf;
		nx_dequant_row(types[i % 3].type, block, want, 32);
		nx_codes_of_block(types[i % 3].type, block, codes, &p);
		for (int j = 0; j < 32; j++)
			ck_assert_float_eq(want[j], nx_weight_value(&types[i % 3].f, p, codes[j]));
	}
}
END_TEST

static int try_engine(const char *spec, struct nx_err *err)
{
	struct test_stack st;
	struct nx_engine *e = NULL;
	test_stack_make(&st, &fx, spec);
	struct nx_engine_config c = config_of(&st.stack);
	int rc = nx_engine_create(&e, &c, err);
	nx_engine_destroy(e);
	return rc;
}

START_TEST(what_does_not_fit_is_refused_in_one_sentence)
{
	static const struct {
		const char *spec, *part;
		int code;
	} bad[] = {
		{"weight_quant:group_size=24", "group_size is 24; legal: a multiple of 16",
	         NX_EINVAL},
		{"weight_quant:type=fp8:zero=true", "fp8 has none", NX_EINVAL},
		{"weight_quant:type=fp8:activations=int8", "not for fp8", NX_EINVAL},
		{"weight_quant:type=file:group_size=32", "leave out", NX_EINVAL},
		{"weight_quant:type=file", "does not hold qkv of layer 0 as Q8_0", NX_ENOTSUP},
	};
	for (int i = 0; i < N_OF(bad); i++) {
		struct nx_err err = {0};
		struct test_stack st;
		struct nx_mem_use use[32];
		ck_assert_int_eq(try_engine(bad[i].spec, &err), bad[i].code);
		ck_assert_msg(strstr(err.msg, bad[i].part) != NULL, "%s: %s", bad[i].spec, err.msg);
		/* The forecast says so before anything is loaded. */
		err = (struct nx_err){0};
		test_stack_make(&st, &fx, bad[i].spec);
		struct nx_engine_config c = config_of(&st.stack);
		nx_engine_forecast(&c, nx_model_shape(fx.model), use, 32, &err);
		ck_assert_int_eq(err.code, bad[i].code);
		ck_assert_ptr_nonnull(strstr(err.msg, bad[i].part));
	}
	struct nx_err err = {0};
	ck_assert_int_eq(try_engine("weight_quant:type=file:other=keep", &err), 0);
	ck_assert_int_eq(try_engine("weight_quant:type=file:other=int8", &err), 0);
}
END_TEST

START_TEST(a_device_without_codes_is_named)
{
	struct fake_host f;
	struct nx_err err = {0};
	void *w = NULL;
	struct nx_weight_desc d = {.n = 16, .k = 32};
	fake_host_open(&f, "weight_quant", "", 1);
	const struct nx_technique *t = f.plugin.technique;
	ck_assert_int_eq(t->weight_pack(f.self, &d, NX_WEIGHT_DOWN, 0, &w, &err), NX_ENOTSUP);
	ck_assert_ptr_nonnull(strstr(err.msg, "has no weights of type int8"));
	ck_assert_ptr_null(w);
	/* Left alone: tables of embed(), and the output matrix unless it is asked for. */
	ck_assert_int_eq(t->weight_pack(f.self, &d, NX_WEIGHT_OUTPUT, 0, &w, &err), NX_WEIGHT_LEFT);
	d.lookup = true;
	ck_assert_int_eq(t->weight_pack(f.self, &d, NX_WEIGHT_DOWN, 0, &w, &err), NX_WEIGHT_LEFT);
	fake_host_close(&f);
}
END_TEST

int main(void)
{
	Suite *s = suite_create("weight_quant");
	TCase *f32 = tcase_create("f32"), *file = tcase_create("file"),
	      *alone = tcase_create("alone");
	tcase_add_checked_fixture(f32, open_f32, close_it);
	tcase_add_loop_test(f32, memory_is_that_of_the_codes, 0, N_OF(specs));
	tcase_add_loop_test(f32, the_model_is_the_same_afterwards, 0, N_OF(specs));
	tcase_add_test(f32, bytes_are_those_of_the_format);
	tcase_add_test(f32, what_does_not_fit_is_refused_in_one_sentence);
	tcase_add_checked_fixture(file, open_file_model, close_it);
	tcase_add_test(file, codes_of_a_file_are_its_weights);
	tcase_add_test(file, codes_of_rows_decode_to_the_rows);
	tcase_add_test(alone, blocks_decode_bit_for_bit);
	tcase_add_test(alone, a_device_without_codes_is_named);
	TCase *all[] = {f32, file, alone};
	for (int i = 0; i < 3; i++) {
		tcase_set_timeout(all[i], 60);
		suite_add_tcase(s, all[i]);
	}
	SRunner *r = srunner_create(s);
	srunner_run_all(r, CK_NORMAL);
	int failed = srunner_ntests_failed(r);
	srunner_free(r);
	return failed != 0;
}
