/* SPDX-License-Identifier: Apache-2.0
 *
 * Tokenizer: equality with Hugging Face `tokenizers` (golden data of
 * data/tokenizer/make_golden.py), round trips, special tokens, chat. The vocabularies of real
 * models are compared where their files are in experiments/models; without them those two tests say
 * that they are skipped.
 */
#define _GNU_SOURCE /* memmem */
#include <check.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "model/gguf.h"
#include "model/model.h"
#include "model/pretokenize.h"
#include "tiny_model.h"

#define DATA "harness/test/data/tokenizer/"

static char path[256];
static struct nx_model *tiny;

static void setup(void)
{
	struct nx_err err;
	const struct nx_shape s = nx_test_tiny_shape();
	nx_test_tmp_path(path, sizeof(path), "tok");
	ck_assert_msg(nx_test_write_model(path, &s, NX_GGUF_F32, 3, &err) == 0, "%s", err.msg);
	ck_assert_msg(nx_model_open(&tiny, path, &err) == 0, "%s", err.msg);
}

static void teardown(void)
{
	nx_model_close(tiny);
	unlink(path);
}

/* --- Golden files: lines after one comment line. */
struct lines {
	char *data;
	char **line;
	size_t n;
};

static bool read_lines(const char *rel, struct lines *l)
{
	char full[512];
	uint8_t *data;
	size_t len;
	struct nx_err err;
	nx_test_source_path(full, sizeof(full), rel);
	if (nx_test_read_file(full, &data, &len, &err))
		return false;
	*l = (struct lines){.data = (char *)data, .line = calloc(len + 1, sizeof(char *))};
	ck_assert_ptr_nonnull(l->line);
	char *p = strchr(l->data, '\n');
	ck_assert(l->data[0] == '#' && p != NULL);
	for (p++; *p; p++) {
		l->line[l->n++] = p;
		p = strchr(p, '\n');
		ck_assert_ptr_nonnull(p);
		*p = '\0';
	}
	return true;
}

static void free_lines(struct lines *l)
{
	free(l->data);
	free(l->line);
}

static size_t unhex(const char *hex, char *out)
{
	size_t n = 0;
	for (; hex[0] && hex[1]; hex += 2) {
		const char two[3] = {hex[0], hex[1], '\0'};
		out[n++] = (char)strtoul(two, NULL, 16);
	}
	return n;
}

struct expected {
	const char *numbers; /* what is left of the line */
	size_t i;            /* line, for messages */
};

static long next_number(struct expected *e)
{
	char *end;
	const long v = strtol(e->numbers, &end, 10);
	ck_assert_msg(end != e->numbers, "text %zu has more pieces than it should", e->i);
	e->numbers = end;
	return v;
}

static int expect_piece(void *ud, const char *piece, size_t len, struct nx_err *err)
{
	struct expected *e = ud;
	(void)piece;
	(void)err;
	ck_assert_msg(next_number(e) == (long)len, "text %zu is split otherwise", e->i);
	return 0;
}

static const char *const pres[] = {"gpt-2", "smollm", "llama-bpe", "qwen2"};

START_TEST(splits_equal_hugging_face)
{
	char rel[128];
	struct lines texts, splits;
	struct nx_pretok *p;
	struct nx_err err;
	snprintf(rel, sizeof(rel), DATA "splits-%s.txt", pres[_i]);
	ck_assert(read_lines(DATA "strings.txt", &texts) && read_lines(rel, &splits));
	ck_assert_uint_eq(texts.n, splits.n);
	ck_assert_uint_ge(texts.n, 300);
	ck_assert_msg(nx_pretok_create(&p, pres[_i], strlen(pres[_i]), &err) == 0, "%s", err.msg);
	for (size_t i = 0; i < texts.n; i++) {
		struct expected e = {splits.line[i], i};
		const size_t n = unhex(texts.line[i], texts.line[i]);
		ck_assert_int_eq(nx_pretok_split(p, texts.line[i], n, expect_piece, &e, &err), 0);
		ck_assert_msg(*e.numbers == '\0', "text %zu has fewer pieces than it should", i);
	}
	nx_pretok_destroy(p);
	free_lines(&texts);
	free_lines(&splits);
}
END_TEST

static void compare_ids(const struct nx_tokenizer *t, const char *rel)
{
	struct lines texts, golden;
	struct nx_err err;
	size_t unrepresentable = 0;
	ck_assert(read_lines(DATA "strings.txt", &texts) && read_lines(rel, &golden));
	ck_assert_uint_eq(texts.n, golden.n);
	for (size_t i = 0; i < texts.n; i++) {
		struct expected e = {golden.line[i], i};
		int32_t *ids;
		size_t n, len;
		char *back;
		const size_t text_len = unhex(texts.line[i], texts.line[i]);
		const int rc = nx_tokenizer_encode(t, texts.line[i], text_len, NX_TOK_PARSE_SPECIAL,
		                                   &ids, &n, &err);
		if (strcmp(golden.line[i], "-") == 0) {
			ck_assert_int_eq(rc, NX_EINVAL);
			ck_assert_ptr_nonnull(strstr(err.msg, "has no token"));
			unrepresentable++;
			continue;
		}
		ck_assert_msg(rc == 0, "text %zu: %s", i, err.msg);
		for (size_t k = 0; k < n; k++) {
			const long want = next_number(&e);
			ck_assert_msg(ids[k] == want, "text %zu, token %zu: %d instead of %ld", i,
			              k, ids[k], want);
		}
		ck_assert_msg(*e.numbers == '\0', "text %zu has fewer tokens than it should", i);
		ck_assert_int_eq(nx_tokenizer_decode(t, ids, n, &back, &len, &err), 0);
		ck_assert(len == text_len && memcmp(back, texts.line[i], len) == 0);
		free(ids);
		free(back);
	}
	ck_assert_uint_lt(unrepresentable, 10);
	free_lines(&texts);
	free_lines(&golden);
}

static const char *const smalls[] = {"small-smollm", "small-llama-bpe"};

START_TEST(ids_equal_hugging_face_with_small_vocabularies)
{
	char rel[128], full[512];
	struct nx_gguf *g;
	struct nx_tokenizer *t;
	struct nx_err err;
	snprintf(rel, sizeof(rel), DATA "%s.gguf", smalls[_i]);
	nx_test_source_path(full, sizeof(full), rel);
	ck_assert_msg(nx_gguf_open(&g, full, &err) == 0, "%s", err.msg);
	ck_assert_msg(nx_tokenizer_create(&t, g, &err) == 0, "%s", err.msg);
	nx_gguf_close(g); /* the tokenizer has copied what it needs */
	snprintf(rel, sizeof(rel), DATA "ids-%s.txt", smalls[_i]);
	compare_ids(t, rel);
	ck_assert_str_eq(nx_tokenizer_pre(t), smalls[_i] + strlen("small-"));
	nx_tokenizer_destroy(t);
}
END_TEST

static const struct {
	const char *model, *ids;
} reals[] = {
	{"experiments/models/smollm2-135m-instruct-q4_1.gguf", DATA "ids-smollm2.txt"},
	{"experiments/models/nano/nano.gguf", DATA "ids-nano.txt"},
};

/* The model's file, or NULL after a printed reason. */
static struct nx_model *open_real(int i, bool need_ids)
{
	char full[512], ids[512];
	struct nx_model *m;
	struct nx_err err;
	nx_test_source_path(full, sizeof(full), reals[i].model);
	nx_test_source_path(ids, sizeof(ids), reals[i].ids);
	if (access(full, R_OK) != 0 || (need_ids && access(ids, R_OK) != 0)) {
		printf("skipped: %s is not there\n",
		       access(full, R_OK) != 0 ? reals[i].model : reals[i].ids);
		return NULL;
	}
	ck_assert_msg(nx_model_open(&m, full, &err) == 0, "%s", err.msg);
	return m;
}

START_TEST(ids_equal_hugging_face_with_real_vocabularies)
{
	struct nx_model *m = open_real(_i, true);
	if (!m)
		return;
	compare_ids(nx_model_tokenizer(m), reals[_i].ids);
	nx_model_close(m);
}
END_TEST

static void check_round_trip(const struct nx_tokenizer *t, const char *text, size_t len,
                             unsigned flags)
{
	struct nx_err err;
	int32_t *ids;
	size_t n, back_len;
	char *back;
	ck_assert_msg(nx_tokenizer_encode(t, text, len, flags, &ids, &n, &err) == 0, "%s", err.msg);
	ck_assert_ptr_nonnull(ids);
	ck_assert_msg(nx_tokenizer_decode(t, ids, n, &back, &back_len, &err) == 0, "%s", err.msg);
	ck_assert_uint_eq(back_len, len);
	ck_assert(memcmp(back, text, len) == 0 && back[len] == '\0');
	free(ids);
	free(back);
}

/* Bytes, or bytes that are often nearly UTF-8. */
static size_t random_text(uint64_t *seed, char *out, size_t max)
{
	static const char *const bits[] = {"the ",
	                                   " 12",
	                                   "\n",
	                                   "  ",
	                                   "\xc3\xa9",
	                                   "\xe4\xbd\xa0",
	                                   "\xf0\x9f\x98\x80",
	                                   "\xe4\xbd",
	                                   "\xf0\x9f\x98",
	                                   "\xc3",
	                                   "\xed\xa0\x80",
	                                   "\xff",
	                                   "\xc0\x80",
	                                   "\xf4\x90\x80\x80",
	                                   "\xe0\x80\x80",
	                                   "<|im_end|>",
	                                   "'s"};
	size_t n = 0;
	const size_t want = nx_test_random(seed) % max;
	const bool bytes = nx_test_random(seed) & 1;
	while (n < want) {
		const uint64_t r = nx_test_random(seed);
		if (bytes) {
			out[n++] = (char)(r & 0xff);
			continue;
		}
		const char *s = bits[r % (sizeof(bits) / sizeof(bits[0]))];
		for (; *s && n < want; s++)
			out[n++] = *s;
	}
	return n;
}

START_TEST(any_bytes_round_trip)
{
	char text[200];
	uint64_t seed = 11;
	for (int i = 0; i < 3000; i++) {
		const size_t n = random_text(&seed, text, sizeof(text));
		check_round_trip(nx_model_tokenizer(tiny), text, n,
		                 i & 1 ? NX_TOK_PARSE_SPECIAL : 0);
	}
	check_round_trip(nx_model_tokenizer(tiny), "", 0, 0);
	check_round_trip(nx_model_tokenizer(tiny), "a\0b", 3, 0);
}
END_TEST

START_TEST(any_bytes_of_a_real_vocabulary_round_trip)
{
	char text[200];
	uint64_t seed = 12;
	struct nx_model *m = open_real(_i, false);
	if (!m)
		return;
	const struct nx_tokenizer *t = nx_model_tokenizer(m);
	for (int i = 0; i < 2000; i++) {
		size_t n = random_text(&seed, text, sizeof(text));
		for (size_t k = 0; k < n; k++) /* SmolLM2 lacks 21 bytes */
			if (nx_tokenizer_find(t, text + k, 1) < 0)
				text[k] = '?';
		check_round_trip(t, text, n, 0);
	}
	nx_model_close(m);
}
END_TEST

START_TEST(broken_utf8_becomes_byte_tokens)
{
	struct nx_err err;
	int32_t *ids;
	size_t n;
	/* A cut-off three-byte character between letters that merge. */
	ck_assert_int_eq(
		nx_tokenizer_encode(nx_model_tokenizer(tiny), "th\xe4\xbdhe", 6, 0, &ids, &n, &err),
		0);
	ck_assert_uint_ge(n, 4);
	bool first = false, second = false;
	for (size_t i = 0; i + 1 < n; i++) {
		first |= ids[i] == 0xe4;
		second |= ids[i] == 0xe4 && ids[i + 1] == 0xbd;
	}
	ck_assert(first && second);
	free(ids);
}
END_TEST

START_TEST(control_tokens_are_parsed_only_when_asked)
{
	struct nx_err err;
	const struct nx_tokenizer *t = nx_model_tokenizer(tiny);
	static const char text[] = "a<|im_start|>b";
	int32_t *ids;
	size_t n;
	const int32_t start = nx_tokenizer_find(t, "<|im_start|>", 12);
	ck_assert_int_eq(start, 318);
	ck_assert(nx_tokenizer_is_control(t, start) && !nx_tokenizer_is_control(t, 'a'));
	ck_assert_int_eq(
		nx_tokenizer_encode(t, text, strlen(text), NX_TOK_PARSE_SPECIAL, &ids, &n, &err),
		0);
	ck_assert(n == 3 && ids[0] == 'a' && ids[1] == start && ids[2] == 'b');
	free(ids);
	ck_assert_int_eq(nx_tokenizer_encode(t, text, strlen(text), 0, &ids, &n, &err), 0);
	for (size_t i = 0; i < n; i++)
		ck_assert(!nx_tokenizer_is_control(t, ids[i]));
	free(ids);
	ck_assert_int_eq(nx_tokenizer_encode(t, text, 1, 1u << 9, &ids, &n, &err), NX_EINVAL);
}
END_TEST

START_TEST(special_ids_are_known)
{
	struct nx_err err;
	const struct nx_tokenizer *t = nx_model_tokenizer(tiny);
	const int32_t bad[2] = {5, 320};
	char *out;
	size_t len;
	ck_assert_int_eq(nx_tokenizer_vocab(t), 320);
	ck_assert_int_eq(nx_tokenizer_bos(t), 317);
	ck_assert_int_eq(nx_tokenizer_eos(t), 317);
	ck_assert_int_eq(nx_tokenizer_eot(t), 319);
	ck_assert(nx_tokenizer_is_eog(t, 317) && nx_tokenizer_is_eog(t, 319) &&
	          !nx_tokenizer_is_eog(t, 318));
	ck_assert(!nx_tokenizer_add_bos(t));
	ck_assert_ptr_null(nx_tokenizer_chat_template(t));
	ck_assert_ptr_null(nx_tokenizer_piece(t, 320, &len));
	ck_assert_ptr_null(nx_tokenizer_piece(t, -1, &len));
	ck_assert_int_eq(nx_tokenizer_decode(t, bad, 2, &out, &len, &err), NX_EINVAL);
	ck_assert_ptr_nonnull(strstr(err.msg, "token 1 is 320"));
}
END_TEST

START_TEST(long_pieces_take_no_quadratic_time)
{
	const size_t n = (size_t)1 << 20;
	char *text = malloc(n);
	ck_assert_ptr_nonnull(text);
	memset(text, 'a', n); /* one piece; quadratic merging would take minutes */
	check_round_trip(nx_model_tokenizer(tiny), text, n, 0);
	memset(text, ' ', n);
	check_round_trip(nx_model_tokenizer(tiny), text, n, 0);
	memset(text, 0xff, n);
	check_round_trip(nx_model_tokenizer(tiny), text, n, 0);
	free(text);
}
END_TEST

static void *encode_much(void *arg)
{
	uint64_t seed = 5;
	char text[120];
	for (int i = 0; i < 400; i++) {
		const size_t n = random_text(&seed, text, sizeof(text));
		struct nx_err err;
		int32_t *ids;
		size_t n_ids;
		uint64_t *sum = arg;
		if (nx_tokenizer_encode(nx_model_tokenizer(tiny), text, n, NX_TOK_PARSE_SPECIAL,
		                        &ids, &n_ids, &err))
			return NULL;
		for (size_t k = 0; k < n_ids; k++)
			*sum = *sum * 31 + (uint64_t)ids[k];
		free(ids);
	}
	return arg;
}

START_TEST(threads_share_a_tokenizer)
{
	pthread_t threads[4];
	uint64_t sums[4] = {0};
	for (int i = 0; i < 4; i++)
		ck_assert_int_eq(pthread_create(&threads[i], NULL, encode_much, &sums[i]), 0);
	for (int i = 0; i < 4; i++) {
		void *ok;
		ck_assert_int_eq(pthread_join(threads[i], &ok), 0);
		ck_assert_ptr_nonnull(ok);
		ck_assert_uint_eq(sums[i], sums[0]);
	}
}
END_TEST

static void check_chat(const struct nx_tokenizer *t, const struct nx_turn *turns, size_t n,
                       bool prompt, const char *want)
{
	struct nx_err err;
	char *got;
	ck_assert_msg(nx_chat_render(t, turns, n, prompt, &got, &err) == 0, "%s", err.msg);
	ck_assert_str_eq(got, want);
	free(got);
}

static const struct nx_turn turns[] = {
	{"system", "Be brief."}, {"user", "Hi"}, {"assistant", "Yo"}};

START_TEST(chat_is_chatml_where_its_tokens_exist)
{
	const struct nx_tokenizer *t = nx_model_tokenizer(tiny);
	struct nx_err err;
	char *got;
	check_chat(
		t, turns, 3, false,
		"<|im_start|>system\nBe brief.<|im_end|>\n<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\nYo<|im_end|>\n");
	check_chat(t, turns + 1, 1, true,
	           "<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n");
	check_chat(t, turns, 0, false, "");
	ck_assert_int_eq(nx_chat_render(t, &(struct nx_turn){"user", NULL}, 1, true, &got, &err),
	                 NX_EINVAL);
}
END_TEST

START_TEST(chat_takes_the_default_system_message_from_the_template)
{
	struct nx_model *m = open_real(0, false);
	if (!m)
		return;
	check_chat(
		nx_model_tokenizer(m), turns + 1, 1, true,
		"<|im_start|>system\nYou are a helpful AI assistant named SmolLM, trained by Hugging Face<|im_end|>\n"
		"<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n");
	check_chat(nx_model_tokenizer(m), turns, 2, false,
	           "<|im_start|>system\nBe brief.<|im_end|>\n<|im_start|>user\nHi<|im_end|>\n");
	nx_model_close(m);
}
END_TEST

/* Opens the tiny model with the first occurrence of `from` replaced by `to`, of the same length. */
static int open_patched(const char *from, size_t len, const char *to, struct nx_model **m,
                        struct nx_err *err)
{
	uint8_t *data;
	size_t n;
	ck_assert_int_eq(nx_test_read_file(path, &data, &n, err), 0);
	uint8_t *at = memmem(data, n, from, len);
	ck_assert_ptr_nonnull(at);
	memcpy(at, to, len);
	ck_assert_int_eq(nx_test_write_file(path, data, n, err), 0);
	free(data);
	return nx_model_open(m, path, err);
}

START_TEST(chat_is_plain_text_without_chatml_tokens)
{
	struct nx_model *m;
	struct nx_err err;
	ck_assert_msg(open_patched("<|im_start|>", 12, "<|xx_start|>", &m, &err) == 0, "%s",
	              err.msg);
	check_chat(nx_model_tokenizer(m), turns, 2, true,
	           "system: Be brief.\nuser: Hi\nassistant:");
	nx_model_close(m);
}
END_TEST

START_TEST(other_tokenizers_are_refused)
{
	struct nx_model *m;
	struct nx_err err;
	ck_assert_int_eq(open_patched("gpt2", 4, "bert", &m, &err), NX_ENOTSUP);
	ck_assert_ptr_nonnull(strstr(err.msg, "tokenizer \"bert\" is not supported; legal: gpt2"));
	const struct nx_shape s = nx_test_tiny_shape();
	ck_assert_int_eq(nx_test_write_model(path, &s, NX_GGUF_F32, 3, &err), 0);
	ck_assert_int_eq(open_patched("gpt-2", 5, "dbrx!", &m, &err), NX_ENOTSUP);
	ck_assert_ptr_nonnull(
		strstr(err.msg, "\"dbrx!\" is not supported; legal: gpt-2 default smollm"));
	ck_assert_int_eq(nx_test_write_model(path, &s, NX_GGUF_F32, 3, &err), 0);
	ck_assert_int_eq(open_patched("t e", 3, "t\x01e", &m, &err), NX_EFORMAT);
	ck_assert_ptr_nonnull(strstr(err.msg, "tokenizer.ggml.merges"));
}
END_TEST

START_TEST(qwen2_is_brought_into_nfc)
{
	struct nx_model *m;
	struct nx_err err;
	char *back;
	int32_t *ids;
	size_t n, len;
	ck_assert_msg(open_patched("gpt-2", 5, "qwen2", &m, &err) == 0, "%s", err.msg);
	const struct nx_tokenizer *t = nx_model_tokenizer(m);
	ck_assert_int_eq(nx_tokenizer_encode(t, "e\xcc\x81 \xff", 5, 0, &ids, &n, &err), 0);
	ck_assert_int_eq(nx_tokenizer_decode(t, ids, n, &back, &len, &err), 0);
	ck_assert_str_eq(back, "\xc3\xa9 \xff");
	free(ids);
	free(back);
	nx_model_close(m);
}
END_TEST

static Suite *suite_tokenizer(void)
{
	Suite *s = suite_create("tokenizer");
	TCase *golden = tcase_create("golden"), *tc = tcase_create("behaviour");
	tcase_set_timeout(golden, 120);
	tcase_add_loop_test(golden, splits_equal_hugging_face, 0, sizeof(pres) / sizeof(pres[0]));
	tcase_add_loop_test(golden, ids_equal_hugging_face_with_small_vocabularies, 0,
	                    sizeof(smalls) / sizeof(smalls[0]));
	tcase_add_loop_test(golden, ids_equal_hugging_face_with_real_vocabularies, 0,
	                    sizeof(reals) / sizeof(reals[0]));
	tcase_add_loop_test(golden, any_bytes_of_a_real_vocabulary_round_trip, 0,
	                    sizeof(reals) / sizeof(reals[0]));
	suite_add_tcase(s, golden);
	tcase_set_timeout(tc, 120);
	tcase_add_checked_fixture(tc, setup, teardown);
	tcase_add_test(tc, any_bytes_round_trip);
	tcase_add_test(tc, broken_utf8_becomes_byte_tokens);
	tcase_add_test(tc, control_tokens_are_parsed_only_when_asked);
	tcase_add_test(tc, special_ids_are_known);
	tcase_add_test(tc, long_pieces_take_no_quadratic_time);
	tcase_add_test(tc, threads_share_a_tokenizer);
	tcase_add_test(tc, chat_is_chatml_where_its_tokens_exist);
	tcase_add_test(tc, chat_takes_the_default_system_message_from_the_template);
	tcase_add_test(tc, chat_is_plain_text_without_chatml_tokens);
	tcase_add_test(tc, other_tokenizers_are_refused);
	tcase_add_test(tc, qwen2_is_brought_into_nfc);
	suite_add_tcase(s, tc);
	return s;
}

int main(void)
{
	SRunner *r = srunner_create(suite_tokenizer());
	srunner_run_all(r, CK_NORMAL);
	const int failed = srunner_ntests_failed(r);
	srunner_free(r);
	return failed != 0;
}
