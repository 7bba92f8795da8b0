/* SPDX-License-Identifier: Apache-2.0
 *
 * Weights: every encoding against the `gguf` package's values (data/dequant/make_dequant.py), the
 * 16-bit floats exhaustively, and what nx_model_open checks.
 */
#define _GNU_SOURCE /* memmem */
#include <check.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "model/dequant.h"
#include "model/model.h"
#include "tiny_model.h"

static char path[256];

static void setup(void)
{
	nx_test_tmp_path(path, sizeof(path), "weights");
}

static void teardown(void)
{
	unlink(path);
}

static uint32_t bits_of(float f)
{
	uint32_t u;
	memcpy(&u, &f, sizeof(u));
	return u;
}

static float float_of(uint32_t u)
{
	float f;
	memcpy(&f, &u, sizeof(f));
	return f;
}

START_TEST(every_type_decodes_bit_for_bit)
{
	char full[512];
	uint8_t *data;
	size_t len;
	uint32_t head[3], seen = 0;
	struct nx_err err;
	nx_test_source_path(full, sizeof(full), "harness/test/data/dequant/dequant.bin");
	ck_assert_msg(nx_test_read_file(full, &data, &len, &err) == 0, "%s", err.msg);
	ck_assert(memcmp(data, "NXDQ", 4) == 0);
	memcpy(head, data, sizeof(head));
	ck_assert_uint_eq(head[1], 1);
	const uint8_t *p = data + 12;
	for (uint32_t s = 0; s < head[2]; s++) {
		uint32_t sec[3];
		memcpy(sec, p, sizeof(sec));
		p += sizeof(sec);
		const enum nx_gguf_type type = (enum nx_gguf_type)sec[0];
		ck_assert_ptr_nonnull(nx_gguf_type_name((int)sec[0]));
		ck_assert_uint_eq(sec[1] / (uint32_t)nx_gguf_block_elems(type) *
		                          (uint32_t)nx_gguf_block_bytes(type),
		                  sec[2]);
		float *got = malloc(sec[1] * sizeof(*got));
		ck_assert_ptr_nonnull(got);
		nx_dequant_row(type, p, got, sec[1]);
		p += sec[2];
		for (uint32_t i = 0; i < sec[1]; i++) {
			float want;
			memcpy(&want, p + 4 * (size_t)i, sizeof(want));
			/* The sign of a zero may differ: the generator's order of products is not ggml's. */
			ck_assert_msg(
				bits_of(got[i]) == bits_of(want) || (got[i] == 0 && want == 0),
				"%s, element %u: %a instead of %a", nx_gguf_type_name((int)sec[0]),
				i, (double)got[i], (double)want);
		}
		p += 4 * (size_t)sec[1];
		free(got);
		seen++;
	}
	ck_assert(p == data + len);
	ck_assert_uint_eq(seen, 11);
	free(data);
}
END_TEST

START_TEST(f16_rounds_to_nearest_even)
{
	for (uint32_t h = 0; h < 0x7c00; h++) {
		const float a = nx_dq_from_f16((uint16_t)h);
		ck_assert_uint_eq(nx_dq_to_f16(a), h);
		ck_assert_uint_eq(nx_dq_to_f16(-a), h | 0x8000);
		/* The value is man * 2^(exp - 25), computed another way. */
		const int e = (int)(h >> 10);
		const double want =
			e ? ldexp((double)((h & 0x3ff) + 1024), e - 25) : ldexp((double)h, -24);
		ck_assert((double)a == want);
		/* Half-way to the next one (65536 after the last) goes to the even one, the rest to the
		 * nearer. */
		const double next =
			h == 0x7bff ? 65536.0 : (double)nx_dq_from_f16((uint16_t)(h + 1));
		const float mid = (float)((want + next) / 2); /* exact: 12 bits */
		ck_assert_uint_eq(nx_dq_to_f16(mid), h & 1 ? h + 1 : h);
		ck_assert_uint_eq(nx_dq_to_f16(nextafterf(mid, 0)), h);
		ck_assert_uint_eq(nx_dq_to_f16(nextafterf(mid, INFINITY)), h + 1);
	}
	ck_assert_uint_eq(nx_dq_to_f16(INFINITY), 0x7c00);
	ck_assert_uint_eq(nx_dq_to_f16(1e30f), 0x7c00);
	ck_assert_uint_eq(nx_dq_to_f16(1e-30f), 0);
	ck_assert(isinf(nx_dq_from_f16(0xfc00)) && nx_dq_from_f16(0xfc00) < 0);
	ck_assert(isnan(nx_dq_from_f16(0x7e01)) && isnan(nx_dq_from_f16(nx_dq_to_f16(NAN))));
}
END_TEST

START_TEST(bf16_rounds_to_nearest_even)
{
	for (uint32_t h = 0; h < 0x7f80; h++) {
		const uint32_t low = h << 16;
		ck_assert_uint_eq(bits_of(nx_dq_from_bf16((uint16_t)h)), low);
		ck_assert_uint_eq(nx_dq_to_bf16(float_of(low)), h);
		ck_assert_uint_eq(nx_dq_to_bf16(float_of(low | 0x7fff)), h);
		ck_assert_uint_eq(nx_dq_to_bf16(float_of(low | 0x8000)), h & 1 ? h + 1 : h);
		ck_assert_uint_eq(nx_dq_to_bf16(float_of(low | 0x8001)), h + 1);
		ck_assert_uint_eq(nx_dq_to_bf16(float_of(low | 0x80008001u)), (h + 1) | 0x8000);
	}
	ck_assert_uint_eq(nx_dq_to_bf16(INFINITY), 0x7f80);
	ck_assert(isnan(nx_dq_from_bf16(nx_dq_to_bf16(NAN))));
	/* A NaN whose payload lies in the dropped bits must not become an infinity. */
	ck_assert(isnan(nx_dq_from_bf16(nx_dq_to_bf16(float_of(0x7f800001u)))));
}
END_TEST

static const struct {
	enum nx_gguf_type type;
	float tolerance; /* relative to the block's largest, which is below 2 here */
} types[] = {{NX_GGUF_F32, 0},
             {NX_GGUF_F16, 0x1p-11f},
             {NX_GGUF_BF16, 0x1p-8f},
             {NX_GGUF_Q8_0, 1.05f / 127}};

static struct nx_model *open_tiny(const struct nx_shape *s, enum nx_gguf_type type)
{
	struct nx_model *m = NULL;
	struct nx_err err;
	ck_assert_msg(nx_test_write_model(path, s, type, 42, &err) == 0, "%s", err.msg);
	ck_assert_msg(nx_model_open(&m, path, &err) == 0, "%s", err.msg);
	return m;
}

START_TEST(rows_of_all_weights_agree_between_types)
{
	struct nx_shape s = nx_test_tiny_shape();
	struct nx_err err;
	s.tied = false;
	struct nx_model *exact = open_tiny(&s, NX_GGUF_F32);
	struct nx_model *m =
		open_tiny(&s, types[_i].type); /* the first mapping keeps the replaced contents */
	ck_assert_str_eq(nx_model_file_type(m), nx_gguf_type_name((int)types[_i].type));
	ck_assert_int_eq(nx_model_n_params(m), nx_model_n_params(exact));
	for (int id = 0; id < NX_W_COUNT; id++) {
		const int64_t rows = nx_weight_rows(&s, (enum nx_weight_id)id),
			      cols = nx_weight_cols(&s, (enum nx_weight_id)id);
		if (!rows) /* of another family */
			continue;
		const size_t n = (size_t)(rows * cols);
		float *a = malloc(n * sizeof(*a)), *b = malloc(n * sizeof(*b));
		ck_assert(a && b);
		for (int32_t l = 0;
		     l < (nx_weight_is_layered((enum nx_weight_id)id) ? s.n_layers : 1); l++) {
			ck_assert_int_eq(
				nx_model_rows(exact, (enum nx_weight_id)id, l, 0, rows, a, &err),
				0);
			/* In two parts, so that row offsets are seen. */
			ck_assert_int_eq(
				nx_model_rows(m, (enum nx_weight_id)id, l, 0, rows / 3, b, &err),
				0);
			ck_assert_int_eq(nx_model_rows(m, (enum nx_weight_id)id, l, rows / 3,
			                               rows - rows / 3, b + rows / 3 * cols, &err),
			                 0);
			for (size_t i = 0; i < n; i++)
				ck_assert_float_eq_tol(a[i], b[i], types[_i].tolerance + 1e-30f);
		}
		free(a);
		free(b);
	}
	nx_model_close(exact);
	nx_model_close(m);
}
END_TEST

START_TEST(shape_and_sizes_come_from_the_file)
{
	const struct nx_shape want = nx_test_tiny_shape();
	struct nx_model *m = open_tiny(&want, NX_GGUF_Q8_0);
	const struct nx_shape *s = nx_model_shape(m);
	struct nx_err err;
	float row[64], again[64];
	ck_assert(s->n_layers == 2 && s->d_model == 64 && s->n_heads == 4 && s->n_kv_heads == 2 &&
	          s->head_dim == 16);
	ck_assert(s->d_ff == 96 && s->vocab == 320 && s->ctx_len == 256 && s->rope_dim == 16 &&
	          s->tied);
	ck_assert(s->rope_theta == 10000.0f && s->norm_eps == 1e-5f);
	ck_assert_str_eq(nx_model_name(m), "tiny");
	ck_assert_str_eq(nx_model_arch(m), "llama");
	/* embedding + 2 x (q, k, v, o, gate, up, down, two norms) + the last norm */
	ck_assert_int_eq(nx_model_n_params(m),
	                 320 * 64 + 2 * (64 * (64 + 32 + 32 + 64 + 3 * 96) + 2 * 64) + 64);
	ck_assert_uint_gt(nx_model_file_bytes(m), nx_model_weight_bytes(m));
	ck_assert_ptr_eq(nx_model_weight(m, NX_W_OUTPUT, 0), nx_model_weight(m, NX_W_EMBED, 0));
	ck_assert_int_eq(nx_model_rows(m, NX_W_OUTPUT, 0, 319, 1, row, &err), 0);
	ck_assert_int_eq(nx_model_rows(m, NX_W_EMBED, 0, 319, 1, again, &err), 0);
	ck_assert(memcmp(row, again, sizeof(row)) == 0);
	ck_assert_int_eq(nx_model_rows(m, NX_W_EMBED, 0, 320, 0, row, &err), 0);
	ck_assert_int_eq(nx_model_rows(m, NX_W_EMBED, 0, 320, 1, row, &err), NX_EINVAL);
	ck_assert_int_eq(nx_model_rows(m, NX_W_EMBED, 0, 1, INT64_MAX, row, &err), NX_EINVAL);
	ck_assert_int_eq(nx_model_rows(m, NX_W_Q, 2, 0, 1, row, &err), NX_EINVAL);
	ck_assert_int_eq(nx_model_rows(m, NX_W_COUNT, 0, 0, 1, row, &err), NX_EINVAL);
	nx_model_close(m);
	nx_model_close(NULL);
}
END_TEST

START_TEST(odd_columns_fall_back_to_f32)
{
	struct nx_shape s = nx_test_tiny_shape();
	s.d_model = 24;
	s.head_dim = 6;
	s.rope_dim = 4;
	s.tied = false;
	struct nx_model *m = open_tiny(&s, NX_GGUF_Q8_0);
	ck_assert_int_eq(nx_model_weight(m, NX_W_Q, 1)->type, NX_GGUF_F32);
	ck_assert_int_eq(nx_model_weight(m, NX_W_DOWN, 1)->type, NX_GGUF_Q8_0); /* 96 columns */
	ck_assert(!nx_model_shape(m)->tied && nx_model_shape(m)->rope_dim == 4);
	nx_model_close(m);
}
END_TEST

START_TEST(a_written_model_is_reproducible)
{
	const struct nx_shape s = nx_test_tiny_shape();
	struct nx_err err;
	uint8_t *a, *b, *c;
	size_t na, nb, nc;
	ck_assert_int_eq(nx_test_write_model(path, &s, NX_GGUF_BF16, 1, &err), 0);
	ck_assert_int_eq(nx_test_read_file(path, &a, &na, &err), 0);
	ck_assert_int_eq(nx_test_write_model(path, &s, NX_GGUF_BF16, 1, &err), 0);
	ck_assert_int_eq(nx_test_read_file(path, &b, &nb, &err), 0);
	ck_assert_int_eq(nx_test_write_model(path, &s, NX_GGUF_BF16, 2, &err), 0);
	ck_assert_int_eq(nx_test_read_file(path, &c, &nc, &err), 0);
	ck_assert(na == nb && memcmp(a, b, na) == 0);
	ck_assert(na == nc && memcmp(a, c, na) != 0);
	free(a);
	free(b);
	free(c);
}
END_TEST

/* Each row replaces `n` bytes, `skip` bytes after `key`, in a tiny model. */
static const struct {
	const char *key;
	size_t skip;
	const char *bytes;
	size_t n;
	int code;
	const char *word;
} refusals[] = {
	{"general.architecture", 12, "gemma", 5, NX_ENOTSUP,
         "architecture \"gemma\" is not supported; legal: llama, qwen2, qwen3"},
	{"llama.block_count", 4, "\x00", 1, NX_EFORMAT, "llama.block_count is 0; legal: 1 to 1024"},
	{"llama.block_count", 4, "\x03", 1, NX_EFORMAT, "tensor blk.2.attn_norm.weight is missing"},
	{"llama.block_coun", 0, "x", 1, NX_EFORMAT, "llama.block_count is missing"},
	{"llama.embedding_length", 4, "\x60", 1, NX_EFORMAT,
         "tensor token_embd.weight is [64, 320, 1, 1]; legal for this shape: [96, 320]"},
	{"llama.feed_forward_length", 4, "\x61", 1, NX_EFORMAT, "blk.0.ffn_gate.weight"},
	{"llama.attention.head_count", 4, "\x03", 1, NX_EFORMAT,
         "legal: a divisor of the 3 query heads"},
	{"llama.attention.head_count", 4, "\x08", 1, NX_EFORMAT, "blk.0.attn_q.weight"},
	{"llama.attention.key_length", 4, "\x0f", 1, NX_EFORMAT,
         "heads have 15 elements; legal: an even number"},
	{"llama.attention.value_length", 4, "\x08", 1, NX_EFORMAT,
         "llama.attention.value_length is 8; legal: 16 to 16"},
	{"llama.rope.dimension_count", 4, "\x12", 1, NX_EFORMAT,
         "llama.rope.dimension_count is 18; legal: 2 to 16"},
	{"llama.rope.freq_base", 4, "\x00\x00\xc0\x7f", 4, NX_EFORMAT, "not a finite number"},
	{"llama.attention.layer_norm_rms_epsilon", 4, "\x00\x00\x00\x00", 4, NX_EFORMAT,
         "legal: above 0, below 1"},
	{"llama.context_length", 4, "\xff\xff\xff\xff", 4, NX_EFORMAT,
         "llama.context_length is 4294967295"},
	{"tokenizer.ggml.bos_token_id", 4, "\xff", 1, NX_EFORMAT,
         "tokenizer.ggml.bos_token_id is 511; legal: 0 to 319"},
	/* Tensors of another name in place of ones that are needed. */
	{"blk.1.attn_q.weigh", 0, "x", 1, NX_ENOTSUP, "tensor blk.1.attn_q.weighx is no part"},
	{"output_norm.weigh", 0, "x", 1, NX_EFORMAT, "tensor output_norm.weight is missing"},
	{"blk.1.attn_q.w", 0, ".bias", 5, NX_ENOTSUP, "biases are not supported"},
	{"blk.1.attn_", 0, "x", 1, NX_ENOTSUP,
         "tensor blk.1.attn_xorm.weight is no part of a llama layer that is computed"},
	{"token_embd.weight", SIZE_MAX - 16, "rope_freqs.weight", 17, NX_EFORMAT,
         "tensor rope_freqs.weight is of type F32 and [64, 320]; legal: F32 and [8]"},
};

START_TEST(what_does_not_fit_is_refused)
{
	const struct nx_shape s = nx_test_tiny_shape();
	struct nx_err err = {0};
	struct nx_model *m = NULL;
	uint8_t *data;
	size_t n;
	ck_assert_int_eq(nx_test_write_model(path, &s, NX_GGUF_F32, 1, &err), 0);
	ck_assert_int_eq(nx_test_read_file(path, &data, &n, &err), 0);
	uint8_t *at = memmem(data, n, refusals[_i].key, strlen(refusals[_i].key));
	ck_assert_ptr_nonnull(at);
	/* The last row writes over its key: skip is then minus the key's length. */
	memcpy(data + ((size_t)(at - data) + strlen(refusals[_i].key) + refusals[_i].skip),
	       refusals[_i].bytes, refusals[_i].n);
	ck_assert_int_eq(nx_test_write_file(path, data, n, &err), 0);
	const int rc = nx_model_open(&m, path, &err);
	ck_assert_msg(rc == refusals[_i].code && strstr(err.msg, refusals[_i].word), "code %d: %s",
	              rc, err.msg);
	ck_assert_ptr_null(m);
	free(data);
}
END_TEST

static Suite *suite_weights(void)
{
	Suite *s = suite_create("weights");
	TCase *codec = tcase_create("encodings"), *model = tcase_create("model");
	tcase_set_timeout(codec, 60);
	tcase_add_test(codec, every_type_decodes_bit_for_bit);
	tcase_add_test(codec, f16_rounds_to_nearest_even);
	tcase_add_test(codec, bf16_rounds_to_nearest_even);
	suite_add_tcase(s, codec);
	tcase_set_timeout(model, 60);
	tcase_add_checked_fixture(model, setup, teardown);
	tcase_add_loop_test(model, rows_of_all_weights_agree_between_types, 0,
	                    sizeof(types) / sizeof(types[0]));
	tcase_add_test(model, shape_and_sizes_come_from_the_file);
	tcase_add_test(model, odd_columns_fall_back_to_f32);
	tcase_add_test(model, a_written_model_is_reproducible);
	tcase_add_loop_test(model, what_does_not_fit_is_refused, 0,
	                    sizeof(refusals) / sizeof(refusals[0]));
	suite_add_tcase(s, model);
	return s;
}

int main(void)
{
	SRunner *r = srunner_create(suite_weights());
	srunner_run_all(r, CK_NORMAL);
	const int failed = srunner_ntests_failed(r);
	srunner_free(r);
	return failed != 0;
}
