/* SPDX-License-Identifier: Apache-2.0
 *
 * GGUF reader: good files read back, hostile files give a sentence and never a crash (run this under
 * the sanitizers).
 */
#define _GNU_SOURCE /* memmem */
#include <check.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "model/gguf.h"
#include "model/model.h"
#include "tiny_model.h"

#define N_FLIPS 5000
#define N_CHUNKS 10 /* loop tests, so that a crash names its chunk */

static char path[256];
static uint8_t *image;
static size_t image_len, data_start;

static struct nx_shape small_shape(void)
{
	struct nx_shape s = nx_test_tiny_shape();
	s.n_layers = 1;
	s.d_model = 32;
	s.n_heads = 2;
	s.n_kv_heads = 1;
	s.d_ff = 32;
	s.vocab = 264;
	return s;
}

static void setup(void)
{
	struct nx_err err;
	struct nx_gguf *g;
	struct nx_shape s = small_shape();
	nx_test_tmp_path(path, sizeof(path), "gguf");
	ck_assert_msg(nx_test_write_model(path, &s, NX_GGUF_Q8_0, 7, &err) == 0, "%s", err.msg);
	ck_assert_int_eq(nx_test_read_file(path, &image, &image_len, &err), 0);
	ck_assert_int_eq(nx_gguf_open(&g, path, &err), 0);
	size_t first = image_len;
	for (int64_t i = 0; i < nx_gguf_n_tensors(g); i++) {
		const struct nx_tensor *t = nx_gguf_tensor_at(g, i);
		const uint8_t *found = memmem(image, image_len, t->data, (size_t)t->bytes);
		ck_assert_ptr_nonnull(found);
		if ((size_t)(found - image) < first)
			first = (size_t)(found - image);
	}
	data_start = first;
	nx_gguf_close(g);
}

static void teardown(void)
{
	unlink(path);
	free(image);
}

/* A sentence: not empty, begins with the path, no full stop at the end, no control bytes. */
static void check_sentence(int rc, const struct nx_err *err)
{
	const size_t n = strlen(err->msg);
	ck_assert_int_lt(rc, 0);
	ck_assert_int_eq(rc, err->code);
	ck_assert_uint_gt(n, 10);
	ck_assert_msg(err->msg[n - 1] != '.', "%s", err->msg);
	for (size_t i = 0; i < n; i++)
		ck_assert_msg((unsigned char)err->msg[i] >= 0x20 || err->msg[i] == '\t',
		              "byte %d in %s", err->msg[i], err->msg);
}

static void touch(const uint8_t *p, uint64_t n)
{
	volatile uint8_t sum = 0;
	for (uint64_t i = 0; i < n; i++)
		sum = (uint8_t)(sum + p[i]);
	(void)sum;
}

/* Reads all that an opened model offers. */
static void use_model(const struct nx_model *m)
{
	struct nx_err err;
	const struct nx_shape *s = nx_model_shape(m);
	for (int id = 0; id < NX_W_COUNT; id++) {
		const int64_t rows = nx_weight_rows(s, (enum nx_weight_id)id),
			      cols = nx_weight_cols(s, (enum nx_weight_id)id);
		if (!rows) /* of another family */
			continue;
		float *dst = malloc((size_t)(rows * cols) * sizeof(*dst));
		ck_assert_ptr_nonnull(dst);
		for (int32_t l = 0; l < s->n_layers; l++)
			ck_assert_int_eq(
				nx_model_rows(m, (enum nx_weight_id)id, l, 0, rows, dst, &err), 0);
		free(dst);
	}
	static const char text[] = "Hello there\xff, 123 <|im_end|>\n";
	int32_t *ids;
	size_t n, len;
	char *out;
	const int rc = nx_tokenizer_encode(nx_model_tokenizer(m), text, sizeof(text) - 1,
	                                   NX_TOK_PARSE_SPECIAL, &ids, &n, &err);
	if (rc) {
		check_sentence(rc, &err);
		return;
	}
	ck_assert_int_eq(nx_tokenizer_decode(nx_model_tokenizer(m), ids, n, &out, &len, &err), 0);
	free(ids);
	free(out);
}

static bool open_either_way(const char *where)
{
	struct nx_err err = {0};
	struct nx_gguf *g = NULL;
	struct nx_model *m = NULL;
	int rc = nx_gguf_open(&g, where, &err);
	if (rc) {
		check_sentence(rc, &err);
		ck_assert_ptr_null(g);
		return false;
	}
	for (int64_t i = 0; i < nx_gguf_n_tensors(g); i++)
		touch(nx_gguf_tensor_at(g, i)->data, nx_gguf_tensor_at(g, i)->bytes);
	nx_gguf_close(g);
	rc = nx_model_open(&m, where, &err);
	if (rc) {
		check_sentence(rc, &err);
		ck_assert_ptr_null(m);
		return true;
	}
	use_model(m);
	nx_model_close(m);
	return true;
}

START_TEST(a_good_file_reads_back)
{
	struct nx_err err;
	struct nx_gguf *g;
	uint32_t u = 0;
	float f = 0;
	bool b = true;
	struct nx_gguf_str s;
	struct nx_gguf_array a;
	ck_assert_msg(nx_gguf_open(&g, path, &err) == 0, "%s", err.msg);
	ck_assert_uint_eq(nx_gguf_version(g), 3);
	ck_assert_uint_eq(nx_gguf_file_bytes(g), image_len);
	ck_assert_int_eq(nx_gguf_get_u32(g, "llama.embedding_length", &u, &err), 1);
	ck_assert_uint_eq(u, 32);
	ck_assert_int_eq(nx_gguf_get_f32(g, "llama.rope.freq_base", &f, &err), 1);
	ck_assert(f == 10000.0f);
	ck_assert_int_eq(nx_gguf_get_str(g, "general.name", &s, &err), 1);
	ck_assert(s.len == 4 && memcmp(s.s, "tiny", 4) == 0);
	ck_assert_int_eq(nx_gguf_get_array(g, "tokenizer.ggml.tokens", NX_GGUF_V_STRING, &a, &err),
	                 1);
	ck_assert_uint_eq(a.n, 264);
	ck_assert(a.strs[65].len == 1 && a.strs[65].s[0] == 'A');
	ck_assert_int_eq(nx_gguf_get_array(g, "tokenizer.ggml.token_type", NX_GGUF_V_I32, &a, &err),
	                 1);
	ck_assert_int_eq(nx_gguf_array_i32(&a, 263), 3);
	/* Missing is not wrong. */
	ck_assert_int_eq(nx_gguf_get_u32(g, "no.such.key", &u, &err), 0);
	ck_assert_int_eq(nx_gguf_get_bool(g, "no.such.key", &b, &err), 0);
	ck_assert_int_eq(nx_gguf_get_u32(g, "general.name", &u, &err), NX_EFORMAT);
	ck_assert_ptr_nonnull(strstr(err.msg, "general.name"));
	ck_assert_ptr_nonnull(strstr(err.msg, "string"));
	ck_assert_int_eq(nx_gguf_get_bool(g, "llama.block_count", &b, &err), NX_EFORMAT);
	ck_assert_int_eq(nx_gguf_get_f32(g, "llama.block_count", &f, &err), NX_EFORMAT);
	ck_assert_int_eq(nx_gguf_get_str(g, "llama.block_count", &s, &err), NX_EFORMAT);
	ck_assert_int_eq(nx_gguf_get_array(g, "tokenizer.ggml.tokens", NX_GGUF_V_I32, &a, &err),
	                 NX_EFORMAT);
	const struct nx_tensor *t = nx_gguf_tensor(g, "token_embd.weight");
	ck_assert_ptr_nonnull(t);
	ck_assert(t->type == NX_GGUF_Q8_0 && t->n_dims == 2 && t->dims[0] == 32 &&
	          t->dims[1] == 264);
	ck_assert_uint_eq(t->bytes, 264 * 34);
	ck_assert_ptr_null(nx_gguf_tensor(g, "token_embd"));
	nx_gguf_close(g);
	nx_gguf_close(NULL);
}
END_TEST

START_TEST(a_truncated_file_gives_a_sentence)
{
	struct nx_err err;
	for (size_t keep = 0; keep < image_len; keep += 64) {
		ck_assert_int_eq(nx_test_write_hostile(path, image, keep, 0, 0, 0, &err), 0);
		ck_assert_msg(!open_either_way(path), "the first %zu of %zu bytes open", keep,
		              image_len);
	}
	ck_assert_int_eq(nx_test_write_hostile(path, image, image_len, 0, 0, 0, &err), 0);
	ck_assert(open_either_way(path));
}
END_TEST

START_TEST(flipped_bits_never_crash)
{
	struct nx_err err;
	int opened = 0;
	for (int i = 0; i < N_FLIPS / N_CHUNKS; i++) {
		const uint64_t seed = (uint64_t)_i * 1000003u + (uint64_t)i;
		/* Most flips hit the metadata; keys, tensor table and counts lie at its ends. */
		const size_t below = i % 8 == 0 ? image_len : i % 8 < 5 ? data_start : 900;
		ck_assert_int_eq(
			nx_test_write_hostile(path, image, image_len, 1 + i % 3, below, seed, &err),
			0);
		opened += open_either_way(path);
	}
	ck_assert_int_gt(opened, 0);
}
END_TEST

/* Overwrites the bytes right after the first occurrence of key, plus skip. */
static void patch(const char *key, size_t skip, const void *bytes, size_t n)
{
	uint8_t *at = memmem(image, image_len, key, strlen(key));
	struct nx_err err;
	ck_assert_ptr_nonnull(at);
	memcpy(at + strlen(key) + skip, bytes, n);
	ck_assert_int_eq(nx_test_write_file(path, image, image_len, &err), 0);
}

static void refused(int code, const char *word1, const char *word2)
{
	struct nx_err err = {0};
	struct nx_gguf *g = NULL;
	ck_assert_msg(nx_gguf_open(&g, path, &err) == code, "code %d: %s", err.code, err.msg);
	check_sentence(code, &err);
	ck_assert_msg(strstr(err.msg, word1) && strstr(err.msg, word2), "%s", err.msg);
}

/* Offsets in a row of the tensor table, after the name: n_dims 0, dims 4, type 20, offset 24. */
#define TENSOR "blk.0.attn_q.weight"

START_TEST(an_unsupported_type_is_refused_by_name)
{
	const uint32_t q3_k = 11, nonsense = 777;
	patch(TENSOR, 20, &q3_k, 4);
	refused(NX_ENOTSUP, TENSOR, "type Q3_K is not supported; legal: F32 F16");
	patch(TENSOR, 20, &nonsense, 4);
	refused(NX_EFORMAT, TENSOR, "type number 777 is unknown");
}
END_TEST

START_TEST(dimensions_that_overflow_are_refused)
{
	const uint64_t dims[2] = {(uint64_t)1 << 33, (uint64_t)1 << 33}, zero = 0, odd = 31;
	patch(TENSOR, 4, dims, 16);
	refused(NX_EFORMAT, TENSOR, "2^50");
	patch(TENSOR, 4, &zero, 8);
	refused(NX_EFORMAT, TENSOR, "dimension 0 is 0");
	patch(TENSOR, 4, &odd, 8);
	patch(TENSOR, 12, &odd, 8);
	refused(NX_EFORMAT, TENSOR, "multiple of 32");
}
END_TEST

START_TEST(offsets_beyond_overlapping_or_unaligned_are_refused)
{
	const uint64_t far = (uint64_t)1 << 40, last = UINT64_MAX - 31, odd = 33, zero = 0;
	patch(TENSOR, 24, &far, 8);
	refused(NX_EFORMAT, TENSOR, "beyond");
	patch(TENSOR, 24, &last, 8);
	refused(NX_EFORMAT, TENSOR, "beyond");
	patch(TENSOR, 24, &odd, 8);
	refused(NX_EFORMAT, TENSOR, "multiple of the alignment");
	patch(TENSOR, 24, &zero, 8);
	refused(NX_EFORMAT, "overlaps", "token_embd.weight");
}
END_TEST

START_TEST(duplicate_names_are_refused)
{
	uint8_t *at = memmem(image, image_len, "blk.0.attn_k.weight", 19);
	ck_assert_ptr_nonnull(at);
	memcpy(at, TENSOR, 19);
	patch("general.nam", 0, "e", 1);
	refused(NX_EFORMAT, TENSOR, "twice");
	memcpy(at, "blk.0.attn_k.weight", 19);
	at = memmem(image, image_len, "llama.rope.freq_base", 20);
	memcpy(at - 8, (uint64_t[]){20}, 8);
	memcpy(at, "llama.context_length", 20);
	patch("general.nam", 0, "e", 1);
	refused(NX_EFORMAT, "llama.context_length", "twice");
}
END_TEST

START_TEST(counts_strings_and_arrays_are_bounded)
{
	const uint64_t huge = UINT64_MAX, many = (uint64_t)1 << 62;
	uint8_t *copy = malloc(image_len);
	ck_assert_ptr_nonnull(copy);
	memcpy(copy, image, image_len);
	patch("GGUF", 4, &huge, 8);
	refused(NX_EFORMAT, "header", "tensors");
	memcpy(image, copy, image_len);
	patch("GGUF", 12, &many, 8);
	refused(NX_EFORMAT, "header", "keys");
	memcpy(image, copy, image_len);
	patch("general.name", 4, &huge, 8);
	refused(NX_EFORMAT, "general.name", "claims");
	memcpy(image, copy, image_len);
	patch("tokenizer.ggml.tokens", 8, &many, 8);
	refused(NX_EFORMAT, "tokenizer.ggml.tokens", "claims");
	patch("tokenizer.ggml.tokens", 4, (uint32_t[]){NX_GGUF_V_ARRAY}, 4);
	refused(NX_EFORMAT, "tokenizer.ggml.tokens", "array of type 9");
	free(copy);
}
END_TEST

START_TEST(other_files_are_refused)
{
	struct nx_err err;
	struct nx_gguf *g = NULL;
	patch("GG", 0, "ML", 2);
	refused(NX_EFORMAT, "header at byte 0", "legal: GGUF");
	memcpy(image, "GGUF", 4);
	patch("GGUF", 0, "\x00\x00\x00\x03", 4);
	refused(NX_EFORMAT, "big-endian", "little-endian");
	patch("GGUF", 0, "\x01\x00\x00\x00", 4);
	refused(NX_EFORMAT, "version 1", "2 and 3");
	ck_assert_int_eq(nx_gguf_open(&g, "/nonexistent/x.gguf", &err), NX_EIO);
	ck_assert_int_eq(nx_gguf_open(&g, "/tmp", &err), NX_EIO);
	ck_assert_ptr_nonnull(strstr(err.msg, "regular file"));
}
END_TEST

static Suite *suite_gguf(void)
{
	Suite *s = suite_create("gguf");
	TCase *good = tcase_create("good"), *bad = tcase_create("hostile");
	tcase_add_checked_fixture(good, setup, teardown);
	tcase_add_test(good, a_good_file_reads_back);
	suite_add_tcase(s, good);
	tcase_add_checked_fixture(bad, setup, teardown);
	tcase_set_timeout(bad, 120);
	tcase_add_test(bad, a_truncated_file_gives_a_sentence);
	tcase_add_loop_test(bad, flipped_bits_never_crash, 0, N_CHUNKS);
	tcase_add_test(bad, an_unsupported_type_is_refused_by_name);
	tcase_add_test(bad, dimensions_that_overflow_are_refused);
	tcase_add_test(bad, offsets_beyond_overlapping_or_unaligned_are_refused);
	tcase_add_test(bad, duplicate_names_are_refused);
	tcase_add_test(bad, counts_strings_and_arrays_are_bounded);
	tcase_add_test(bad, other_files_are_refused);
	suite_add_tcase(s, bad);
	return s;
}

int main(void)
{
	SRunner *r = srunner_create(suite_gguf());
	srunner_run_all(r, CK_NORMAL);
	const int failed = srunner_ntests_failed(r);
	srunner_free(r);
	return failed != 0;
}
