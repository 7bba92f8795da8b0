/* SPDX-License-Identifier: Apache-2.0
 *
 * Tokenizers of Hugging Face directories: equality with `tokenizers` on 10,320 texts for ten kinds
 * (golden data of data/tokenizer/make_hf.py), GGUF twins, broken UTF-8, long texts, settings.
 */
#include <check.h>
#include <stdlib.h>
#include <string.h>

#include "base/hash.h"
#include "base/rng.h"
#include "model/gguf.h"
#include "model/normalize.h"
#include "model/tokenizer.h"
#include "tiny_model.h"

#define DATA "harness/test/data/tokenizer/"
#define SEED 0x5eedu /* as in make_hf.py */
#define N_MADE 10000
#define TEXT_MAX 65536

static const struct kind {
	const char *name, *pre;
} kinds[] = {
	{"gpt2", "gpt-2"},
	{"prefix", "gpt-2"},
	{"smollm", "smollm"},
	{"llama3", "llama-bpe"},
	{"qwen2", "qwen2"},
	{"tekken", "tekken"},
	{"deepseek3", "deepseek-v3"},
	{"llama2", "none"},
	{"mistral", "none"},
	{"metaspace", "custom"},
};

#define N_KINDS (int)(sizeof(kinds) / sizeof(kinds[0]))

static struct nx_tokenizer *open_kind(const char *name)
{
	char rel[128], dir[512];
	struct nx_tokenizer *t = NULL;
	struct nx_err err;
	snprintf(rel, sizeof(rel), DATA "hf-%s", name);
	nx_test_source_path(dir, sizeof(dir), rel);
	ck_assert_msg(nx_tokenizer_create_hf(&t, dir, &err) == 0, "%s", err.msg);
	return t;
}

static uint8_t *read_data(const char *name, size_t *len)
{
	char rel[128], full[512];
	uint8_t *data;
	struct nx_err err;
	snprintf(rel, sizeof(rel), DATA "%s", name);
	nx_test_source_path(full, sizeof(full), rel);
	ck_assert_msg(nx_test_read_file(full, &data, len, &err) == 0, "%s", err.msg);
	return data;
}

/* --- The texts */

struct span {
	char *s;
	size_t len;
};

struct texts {
	char *parts_file, *strings_file;
	struct span *strings, *parts;
	size_t n_strings, n_parts;
	uint32_t (*ranges)[2];
	size_t n_ranges;
};

/* Turns the hexadecimal line at s into bytes where it is; s then points behind its line break. */
static struct span unhex(char **s)
{
	struct span out = {*s, 0};
	char *p = *s;
	for (; p[0] != '\n'; p += 2) {
		const char two[3] = {p[0], p[1], '\0'};
		out.s[out.len++] = (char)strtoul(two, NULL, 16);
	}
	*s = p + 1;
	return out;
}

static void open_texts(struct texts *x)
{
	size_t len;
	memset(x, 0, sizeof(*x));
	x->strings_file = (char *)read_data("strings.txt", &len);
	x->strings = calloc(len, sizeof(*x->strings));
	ck_assert_ptr_nonnull(x->strings);
	for (char *s = strchr(x->strings_file, '\n') + 1; *s;)
		x->strings[x->n_strings++] = unhex(&s);
	x->parts_file = (char *)read_data("parts.txt", &len);
	x->parts = calloc(len, sizeof(*x->parts));
	x->ranges = calloc(len, sizeof(*x->ranges));
	ck_assert(x->parts && x->ranges);
	for (char *s = strchr(x->parts_file, '\n') + 1; *s;) {
		if (*s != '=') {
			x->parts[x->n_parts++] = unhex(&s);
			continue;
		}
		x->ranges[x->n_ranges][0] = (uint32_t)strtoul(s + 1, &s, 16);
		x->ranges[x->n_ranges++][1] = (uint32_t)strtoul(s, &s, 16);
		s++;
	}
	ck_assert(x->n_strings == 320 && x->n_parts > 500 && x->n_ranges > 50);
}

static void close_texts(struct texts *x)
{
	free(x->strings_file);
	free(x->parts_file);
	free(x->strings);
	free(x->parts);
	free(x->ranges);
}

static size_t put_utf8(char *out, uint32_t c)
{
	if (c < 0x80) {
		out[0] = (char)c;
		return 1;
	}
	const size_t n = c < 0x800 ? 2 : c < 0x10000 ? 3 : 4;
	for (size_t i = n; i-- > 1; c >>= 6)
		out[i] = (char)(0x80 | (c & 0x3f));
	out[0] = (char)((0xf00u >> n) | c);
	return n;
}

/* Python's bytes.decode(errors="replace"): one U+FFFD for each longest start of a character that breaks off. */
static size_t replace_broken(const char *s, size_t len, char *out)
{
	size_t m = 0;
	for (size_t i = 0; i < len;) {
		size_t n = nx_utf8_len(s + i, len - i), keep = 1;
		if (n) {
			memcpy(out + m, s + i, n);
			m += n;
			i += n;
			continue;
		}
		/* A start of k bytes is legal if some continuation makes it a character. */
		for (size_t k = 2; k <= 3 && i + k <= len; k++) {
			bool legal = false;
			char probe[4];
			memcpy(probe, s + i, k);
			memset(probe + k, '\x80', 4 - k);
			for (size_t all = k + 1; all <= 4; all++)
				legal |= nx_utf8_len(probe, all) == all;
			if (!legal)
				break;
			keep = k;
		}
		memcpy(out + m, "\xef\xbf\xbd", 3);
		m += 3;
		i += keep;
	}
	return m;
}

/* Text i, in out[TEXT_MAX]: see make_text in make_hf.py. */
static size_t make_text(const struct texts *x, size_t i, char *out)
{
	static char raw[TEXT_MAX];
	if (i < x->n_strings) {
		memcpy(out, x->strings[i].s, x->strings[i].len);
		return x->strings[i].len;
	}
	struct nx_rng r = {SEED + i - x->n_strings};
	const size_t count = 1 + nx_rng_next(&r) % 24, mode = nx_rng_next(&r) % 16;
	size_t n = 0;
	if (mode == 0) {
		const struct span p = x->parts[nx_rng_next(&r) % x->n_parts];
		const size_t times = 1 + nx_rng_next(&r) % 400;
		for (size_t k = 0; k < times * p.len && n < 1500; k++)
			raw[n++] = p.s[k % p.len];
		return replace_broken(raw, n, out);
	}
	const uint32_t *one = x->ranges[nx_rng_next(&r) % x->n_ranges];
	for (size_t k = 0; k < count; k++) {
		if (mode == 1 || nx_rng_next(&r) % 8 == 0) {
			const uint32_t *range =
				mode == 1 ? one : x->ranges[nx_rng_next(&r) % x->n_ranges];
			const uint64_t size = range[1] - range[0] + 1;
			n += put_utf8(raw + n, range[0] + (uint32_t)(nx_rng_next(&r) % size));
			continue;
		}
		const struct span p = x->parts[nx_rng_next(&r) % x->n_parts];
		memcpy(raw + n, p.s, p.len);
		n += p.len;
	}
	return replace_broken(raw, n, out);
}

static void print_text(const char *text, size_t len)
{
	for (size_t i = 0; i < len && i < 400; i++)
		fprintf(stderr, "%02x", (unsigned char)text[i]);
	fprintf(stderr, "\n");
}

/* --- Equality */

static uint64_t hash_of(const void *data, size_t n)
{
	struct nx_hash h;
	nx_hash_init(&h);
	nx_hash_bytes(&h, data, n);
	return nx_hash_value(&h);
}

static bool contains(const char *text, size_t len, const char *what)
{
	const size_t n = strlen(what);
	for (size_t i = 0; i + n <= len; i++)
		if (memcmp(text + i, what, n) == 0)
			return true;
	return false;
}

/* Texts that hold one of these are left out. Returns how many were compared. */
static size_t compare(const struct nx_tokenizer *t, const char *name, const char *const *without,
                      size_t n_without)
{
	struct texts x;
	char file[64], *text = malloc(TEXT_MAX);
	size_t len, compared = 0;
	ck_assert_ptr_nonnull(text);
	open_texts(&x);
	snprintf(file, sizeof(file), "hf-%s.bin", name);
	uint8_t *golden = read_data(file, &len);
	const size_t n = x.n_strings + N_MADE;
	ck_assert_uint_eq(len, 6 * n);
	for (size_t i = 0; i < n; i++) {
		struct nx_err err;
		int32_t *ids;
		size_t n_ids, n_back;
		char *back;
		uint32_t want;
		uint16_t want_back;
		bool left_out = false;
		const size_t n_text = make_text(&x, i, text);
		for (size_t k = 0; k < n_without; k++)
			left_out |= contains(text, n_text, without[k]);
		if (left_out)
			continue;
		memcpy(&want, golden + 4 * i, 4);
		memcpy(&want_back, golden + 4 * n + 2 * i, 2);
		const int rc = nx_tokenizer_encode(t, text, n_text, NX_TOK_PARSE_SPECIAL, &ids,
		                                   &n_ids, &err);
		ck_assert_msg(rc == 0, "%s, text %zu: %s", name, i, err.msg);
		if ((uint32_t)hash_of(ids, n_ids * sizeof(*ids)) != want) {
			print_text(text, n_text);
			for (size_t k = 0; k < n_ids && k < 100; k++)
				fprintf(stderr, "%d ", ids[k]);
			ck_abort_msg("%s, text %zu has other ids (make_hf.py --show %s %zu)", name,
			             i, name, i);
		}
		ck_assert_int_eq(nx_tokenizer_decode(t, ids, n_ids, &back, &n_back, &err), 0);
		if ((uint16_t)hash_of(back, n_back) != want_back) {
			print_text(text, n_text);
			print_text(back, n_back);
			ck_abort_msg("%s, text %zu decodes otherwise (make_hf.py --show %s %zu)",
			             name, i, name, i);
		}
		free(ids);
		free(back);
		compared++;
	}
	free(golden);
	free(text);
	close_texts(&x);
	return compared;
}

START_TEST(texts_get_the_ids_of_hugging_face)
{
	struct nx_tokenizer *t = open_kind(kinds[_i].name);
	ck_assert_str_eq(nx_tokenizer_pre(t), kinds[_i].pre);
	ck_assert_uint_eq(compare(t, kinds[_i].name, NULL, 0), 10320);
	nx_tokenizer_destroy(t);
}
END_TEST

START_TEST(gguf_scores_give_the_ids_of_listed_merges)
{
	/* The GGUF twin of hf-llama2 lacks these added tokens. */
	static const char *const added[] = {"<mask>", "<pad>", "<sep>", "<word>", "<\xd0\xb9>"};
	char full[512];
	struct nx_gguf *g;
	struct nx_tokenizer *t;
	struct nx_err err;
	nx_test_source_path(full, sizeof(full), DATA "hf-llama2.gguf");
	ck_assert_msg(nx_gguf_open(&g, full, &err) == 0, "%s", err.msg);
	ck_assert_msg(nx_tokenizer_create(&t, g, &err) == 0, "%s", err.msg);
	nx_gguf_close(g);
	ck_assert(nx_tokenizer_add_bos(t));
	ck_assert_uint_gt(compare(t, "llama2", added, sizeof(added) / sizeof(added[0])), 7500);
	nx_tokenizer_destroy(t);
}
END_TEST

/* Bytes, many of them of nearly valid UTF-8, come back; where they need not, see tokenizer.h. */
START_TEST(any_bytes_round_trip)
{
	static const char *const bits[] = {" ",        "  ",           "the ",     "\n",
	                                   "\xc3\xa9", "\xe4\xbd\xa0", "\xe4\xbd", "\xf0\x9f\x98",
	                                   "\xc3",     "\xff",         "12",       "e\xcc\x81"};
	const char *name = kinds[_i].name;
	struct nx_tokenizer *t = open_kind(name);
	struct nx_rng r = {9};
	const bool nfc = strcmp(name, "qwen2") == 0, unknown = strcmp(name, "metaspace") == 0;
	const bool prefix = strcmp(name, "prefix") == 0, first = strcmp(name, "mistral") == 0;
	for (int i = 0; i < 2000 && !nfc && !unknown && !prefix; i++) {
		char text[160], *back;
		struct nx_err err;
		int32_t *ids;
		size_t n = 0, n_ids, len;
		const size_t want = nx_rng_next(&r) % 120;
		while (n < want) {
			const uint64_t x = nx_rng_next(&r);
			const char *bit = bits[x % (sizeof(bits) / sizeof(bits[0]))];
			if (x >> 60 < 5) {
				text[n++] = (char)(x >> 8);
				continue;
			}
			memcpy(text + n, bit, strlen(bit));
			n += strlen(bit);
		}
		if (first && n && text[0] == ' ')
			text[0] = 'x'; /* a space at the start is taken for the tokenizer's */
		ck_assert_msg(nx_tokenizer_encode(t, text, n, 0, &ids, &n_ids, &err) == 0, "%s",
		              err.msg);
		ck_assert_int_eq(nx_tokenizer_decode(t, ids, n_ids, &back, &len, &err), 0);
		ck_assert_msg(len == n && memcmp(back, text, n) == 0, "%s, text %d", name, i);
		free(ids);
		free(back);
	}
	nx_tokenizer_destroy(t);
}
END_TEST

static Suite *suite_tokenizer_hf(void)
{
	Suite *s = suite_create("tokenizer_hf");
	TCase *golden = tcase_create("golden");
	tcase_set_timeout(golden, 120);
	tcase_add_loop_test(golden, texts_get_the_ids_of_hugging_face, 0, N_KINDS);
	tcase_add_loop_test(golden, any_bytes_round_trip, 0, N_KINDS);
	tcase_add_test(golden, gguf_scores_give_the_ids_of_listed_merges);
	suite_add_tcase(s, golden);
	return s;
}

int main(void)
{
	SRunner *r = srunner_create(suite_tokenizer_hf());
	srunner_run_all(r, CK_NORMAL);
	const int failed = srunner_ntests_failed(r);
	srunner_free(r);
	return failed != 0;
}
