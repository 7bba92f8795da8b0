/* SPDX-License-Identifier: Apache-2.0
 *
 * test_cuda_sample.c: draws and verdicts of the GPU are those of the CPU's reference, token by token.
 */
#include <check.h>
#include <math.h>
#include <stdlib.h>

#include "cuda_scene.h"

START_TEST(small_vocabularies)
{
	static const int32_t vocab[] = {1, 2, 3, 5, 31, 64, 127, 511, 512, 513, 1000, 2049};
	struct scene s;
	scene_open(&s, 70 * 12 * 2100, 2100);
	for (uint64_t salt = 0; salt < 84; salt++) {
		int32_t n_emit = 1 + (int32_t)scene_pick(salt, 21, salt % 2 ? 4 : 20);
		scene_compare(&s, salt, vocab[salt % 12], n_emit, (int32_t)scene_pick(salt, 22, 12),
		              salt % 7, salt / 7 % 3);
	}
	scene_say(&s, "small vocabularies");
	both_close(&s.b);
}
END_TEST

START_TEST(long_drafts)
{
	struct scene s;
	scene_open(&s, 70 * MAX_STRIDE * 600, 600);
	for (uint64_t salt = 0; salt < 16; salt++)
		scene_compare(&s, salt, 600 - (int32_t)salt, salt % 4 ? 1 + (int32_t)salt % 3 : 20,
		              MAX_DRAFT, (uint32_t)(salt / 3 % 7), salt % 3);
	scene_say(&s, "long drafts");
	both_close(&s.b);
}
END_TEST

START_TEST(large_vocabularies)
{
	static const int32_t vocab[] = {128256, 32000, 49152, 50257, 128255, 9001};
	struct scene s;
	scene_open(&s, 24 * 128256, 128256);
	for (uint64_t salt = 0; salt < 24; salt++) {
		int32_t n_draft = salt % 3 == 0 ? 0 : 1 + (int32_t)salt % 4;
		int32_t n_emit = 12 / (n_draft + 1);
		if (salt % 5 == 0)
			n_emit = 1;
		scene_compare(&s, salt, vocab[salt / 4], n_emit, n_draft, salt % 7,
		              salt % 2 ? 2 : 1);
	}
	scene_say(&s, "large vocabularies");
	both_close(&s.b);
}
END_TEST

/* Many rows of one vocabulary: other sizes of clusters, and more clusters than fit at a time. */
START_TEST(many_rows)
{
	struct scene s;
	scene_open(&s, 70 * 32064, 32064);
	scene_compare(&s, 5, 32064, 70, 0, 6, 0);
	scene_compare(&s, 6, 32064, 33, 1, 0, 1);
	scene_say(&s, "many rows");
	both_close(&s.b);
}
END_TEST

/* More sequences than clusters run at a time: the greedy go ahead, and each cluster takes several of the others. */
START_TEST(more_rows_than_clusters)
{
	struct scene s;
	scene_open(&s, 66 * 128256, 128256);
	scene_compare(&s, 8, 128256, 64, 0, 6, 0);
	scene_compare(&s, 7, 128255, 33, 1, 0, 2);
	scene_compare(&s, 10, 128256, 32, 1, 2, 0);
	scene_compare(&s, 11, 60001, 79, 0, 2, 0);
	scene_say(&s, "more rows than clusters");
	both_close(&s.b);
}
END_TEST

/* A sequence's tokens, path and log-probabilities have the same bits alone and in company. */
START_TEST(company_changes_no_bit)
{
	enum { VOCAB = 20000, SEQS = 40, DRAFT = 3 };
	struct scene s;
	scene_open(&s, SEQS * (DRAFT + 1) * VOCAB, VOCAB);
	scene_make(&s, 12, VOCAB, SEQS, DRAFT, 0, 2);
	for (int32_t i = 0; i <= SEQS; i++) {
		struct rig *r = &s.b.gpu;
		s.a.emit = i ? &s.emit[i - 1] : s.emit;
		s.a.n_emit = i ? 1 : SEQS;
		s.a.verdict = i ? &s.cpu : &s.gpu;
		s.a.logprob = s.logprob[i > 0];
		rig_ok(r, r->ops->sample(r->dev, NULL, &s.a, &r->err));
		if (i == 0)
			continue;
		int64_t seq = s.a.emit->seq, at = seq * MAX_STRIDE;
		int32_t n = s.gpu.n_accepted[seq];
		ck_assert_int_eq(s.cpu.n_accepted[seq], n);
		ck_assert_mem_eq(s.cpu.token + at, s.gpu.token + at,
		                 sizeof(int32_t) * (size_t)(n + 1));
		ck_assert_mem_eq(s.cpu.path + at, s.gpu.path + at, sizeof(int32_t) * (size_t)n);
		ck_assert_mem_eq(s.logprob[0] + at, s.logprob[1] + at,
		                 sizeof(float) * (size_t)(n + 1));
	}
	both_close(&s.b);
}
END_TEST

/* Nothing is promised of rows that hold no number but that the call ends with a token. */
START_TEST(rows_without_numbers_end)
{
	static const float value[] = {-INFINITY, NAN, INFINITY};
	struct scene s;
	scene_open(&s, 4096 * 20, 4096);
	for (int k = 0; k < 3; k++) {
		scene_make(&s, 9, 4096, 5, 3, 0, 1);
		for (int64_t i = 0; i < 4096 * 20; i++)
			s.logits[i] = value[k];
		s.a.verdict = &s.gpu;
		rig_ok(&s.b.gpu, s.b.gpu.ops->sample(s.b.gpu.dev, NULL, &s.a, &s.b.gpu.err));
		for (int32_t i = 0; i < 5; i++) {
			int32_t seq = s.emit[i].seq, token = s.gpu.token[(int64_t)seq * MAX_STRIDE];
			ck_assert(token >= 0 && token < 4096);
		}
	}
	both_close(&s.b);
}
END_TEST

START_TEST(what_cannot_be_sampled_is_refused)
{
	struct scene s;
	scene_open(&s, 4096, 1024);
	scene_make(&s, 1, 100, 1, 0, 0, 0);
	struct rig *r = &s.b.gpu;
	s.a.verdict = &s.gpu;
	s.a.vocab = 0;
	ck_assert_int_eq(r->ops->sample(r->dev, NULL, &s.a, &r->err), NX_EINVAL);
	s.a.vocab = 2000000000;
	ck_assert_int_eq(r->ops->sample(r->dev, NULL, &s.a, &r->err), NX_ENOTSUP);
	s.a.n_emit = 0;
	rig_ok(r, r->ops->sample(r->dev, NULL, &s.a, &r->err));
	both_close(&s.b);
}
END_TEST

int main(void)
{
	both_need_gpu();
	Suite *s = suite_create("cuda sample");
	TCase *tc = tcase_create("sample");
	tcase_add_test(tc, small_vocabularies);
	tcase_add_test(tc, long_drafts);
	tcase_add_test(tc, large_vocabularies);
	tcase_add_test(tc, many_rows);
	tcase_add_test(tc, more_rows_than_clusters);
	tcase_add_test(tc, company_changes_no_bit);
	tcase_add_test(tc, rows_without_numbers_end);
	tcase_add_test(tc, what_cannot_be_sampled_is_refused);
	suite_add_tcase(s, tc);
	return both_run(s);
}
