/* SPDX-License-Identifier: Apache-2.0 */
/* What happens to text before it is merged: normal form C, and the pre-tokenizers. */
#include <check.h>
#include <stdlib.h>
#include <string.h>

#include "base/hash.h"
#include "model/normalize.h"
#include "model/pretokenize.h"
#include "tiny_model.h"

START_TEST(nfc_sorts_marks_in_no_quadratic_time)
{
	/* 200,000 marks in the worst order: acute (230), then dot below (220). */
	enum { N = 200000 };
	char *text = malloc(4 * N + 1), *nfc;
	struct nx_err err;
	size_t len;
	ck_assert_ptr_nonnull(text);
	text[0] = 'a';
	for (size_t i = 0; i < N; i++) {
		memcpy(text + 1 + 2 * i, "\xcc\x81", 2);
		memcpy(text + 1 + 2 * (N + i), "\xcc\xa3", 2);
	}
	ck_assert_int_eq(nx_nfc(text, 4 * N + 1, &nfc, &len, &err), 0);
	ck_assert_uint_eq(len, 4 * N + 1 - 3 + 3); /* a and the first dot are U+1EA1 */
	ck_assert(memcmp(nfc, "\xe1\xba\xa1\xcc\xa3", 5) == 0);
	ck_assert(memcmp(nfc + len - 2, "\xcc\x81", 2) == 0);
	free(nfc);
	/* A short run goes one way, a long one the other; hashes of what Python's unicodedata makes of them. */
	static const struct {
		size_t n;
		uint64_t hash;
	} runs[] = {{10, 0xd9747d1020fdfa01u}, {100, 0x9a7d6202f5b21754u}};
	static const char *const marks[] = {"\xcc\x81", "\xcc\xa3", "\xcd\x84", "\xe0\xbd\xb3"};
	for (size_t r = 0; r < 2; r++) {
		uint64_t seed = runs[r].n;
		struct nx_hash h;
		size_t m = 1;
		for (size_t i = 0; i < runs[r].n; i++) {
			const char *k = marks[nx_test_random(&seed) % 4];
			memcpy(text + m, k, strlen(k));
			m += strlen(k);
		}
		ck_assert_int_eq(nx_nfc(text, m, &nfc, &len, &err), 0);
		nx_hash_init(&h);
		nx_hash_bytes(&h, nfc, len);
		ck_assert_uint_eq(nx_hash_value(&h), runs[r].hash);
		free(nfc);
	}
	free(text);
}
END_TEST

START_TEST(every_pretokenizer_compiles)
{
#define X(name, ...) name,
	static const char *const names[] = {NX_PRETOKENIZERS(X)};
#undef X
	for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++) {
		struct nx_pretok *p;
		struct nx_err err;
		ck_assert_msg(nx_pretok_create(&p, names[i], strlen(names[i]), &err) == 0, "%s",
		              err.msg);
		ck_assert_str_eq(nx_pretok_name(p), names[i]);
		nx_pretok_destroy(p);
	}
}
END_TEST

int main(void)
{
	Suite *s = suite_create("normalize");
	TCase *tc = tcase_create("text");
	tcase_set_timeout(tc, 120);
	tcase_add_test(tc, nfc_sorts_marks_in_no_quadratic_time);
	tcase_add_test(tc, every_pretokenizer_compiles);
	suite_add_tcase(s, tc);
	SRunner *r = srunner_create(s);
	srunner_run_all(r, CK_NORMAL);
	const int failed = srunner_ntests_failed(r);
	srunner_free(r);
	return failed != 0;
}
