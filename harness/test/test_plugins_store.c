/* SPDX-License-Identifier: Apache-2.0
 *
 * test/test_plugins_store.c: the prefix donor gives back only what was really published, within its room; the
 * row-dropping layout keeps sinks and window; packed weights multiply as their dequantised matrix does.
 */
#include <check.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "fake_host.h"
#include "tiny_model.h"

/* ---- prefix_donor ---- */

enum { BLOCKS = 40, LEN = 64, PLACES = 6, BS = 4 };

struct cache {
	struct fake_host f; /* first: the host's ctx is this */
	int32_t text[PLACES][LEN], len[PLACES];
	struct {
		bool held;
		int32_t n, tokens[LEN]; /* the whole prefix up to the block's end */
	} block[BLOCKS];
	int32_t n_held, most; /* blocks that may be held */
	uint64_t seed;
};

static int32_t hold(void *ctx, int32_t place, int32_t index)
{
	struct cache *c = ctx;
	ck_assert(place >= 0 && place < PLACES);
	ck_assert((index + 1) * BS <= c->len[place]);
	for (int32_t b = 0; b < BLOCKS && c->n_held < c->most; b++) {
		if (c->block[b].held)
			continue;
		c->block[b].held = true;
		c->block[b].n = (index + 1) * BS;
		memcpy(c->block[b].tokens, c->text[place], sizeof(c->block[b].tokens));
		c->n_held++;
		return b;
	}
	return -1;
}

static void release(void *ctx, int32_t b)
{
	struct cache *c = ctx;
	ck_assert(b >= 0 && b < BLOCKS && c->block[b].held);
	c->block[b].held = false;
	c->n_held--;
}

static bool idle(void *ctx, int32_t b)
{
	const struct cache *c = ctx;
	ck_assert(b >= 0 && b < BLOCKS);
	return c->block[b].held;
}

static void cache_open(struct cache *c, const char *values, int32_t most)
{
	struct nx_prefix_limits l = {
		.block_size = BS, .align = 2, .max_len = LEN, .budget_rows = 1000, .key = 7};
	struct nx_prefix_geometry g = {0};
	struct nx_err err = {0};
	memset(c, 0, sizeof(*c));
	c->seed = 4;
	c->most = most;
	fake_host_load(&c->f, "prefix_donor", values, PLACES);
	c->f.host.kv_hold = hold;
	c->f.host.kv_release = release;
	c->f.host.kv_idle = idle;
	fake_host_create(&c->f);
	ck_assert_int_eq(c->f.plugin.technique->prefix_geometry(c->f.self, &l, &g, &err), 0);
	ck_assert_int_eq(g.block_size, BS);
}

/* A text that begins like many others. */
static void random_text(struct cache *c, int32_t p)
{
	c->len[p] = 1 + (int32_t)(nx_test_random(&c->seed) % LEN);
	for (int32_t i = 0; i < c->len[p]; i++)
		c->text[p][i] = nx_test_random(&c->seed) % 8 ? 5 : 6;
}

static int32_t match(struct cache *c, int32_t p)
{
	int32_t ids[LEN];
	int32_t n = c->f.plugin.technique->prefix_match(c->f.self, c->text[p], c->len[p], ids);
	ck_assert(n >= 0 && n < c->len[p] && n % BS == 0);
	for (int32_t b = 0; b < n / BS; b++) {
		ck_assert(ids[b] >= 0 && ids[b] < BLOCKS && c->block[ids[b]].held);
		ck_assert_int_eq(c->block[ids[b]].n, (b + 1) * BS);
		ck_assert_int_eq(memcmp(c->block[ids[b]].tokens, c->text[p],
		                        (size_t)(b + 1) * BS * sizeof(int32_t)),
		                 0);
	}
	return n;
}

static void publish(struct cache *c, int32_t p)
{
	struct nx_prefix_rows r = {.seq = p, .tokens = c->text[p], .n_rows = c->len[p] / BS * BS};
	c->f.plugin.technique->prefix_publish(c->f.self, &r);
}

START_TEST(a_match_is_what_was_published)
{
	static const char *const values[] = {"max_entries=64", "max_entries=10"};
	struct cache c;
	const struct nx_technique *t;
	cache_open(&c, values[_i % 2], _i < 2 ? BLOCKS : 7);
	t = c.f.plugin.technique;
	for (int i = 0; i < 4000; i++) {
		int32_t p = (int32_t)(nx_test_random(&c.seed) % PLACES);
		random_text(&c, p);
		int32_t hint = t->prefix_match(c.f.self, c.text[p], c.len[p], NULL);
		ck_assert_int_eq(hint, match(&c, p));
		publish(&c, p);
		ck_assert_int_eq(t->warm(c.f.self), c.n_held);
		/* Where there is room a text is found again, all but what must be computed. */
		if (_i == 0 && fake_host_counter(&c.f, "evicted") == 0)
			ck_assert_int_eq(match(&c, p), (c.len[p] - 1) / BS * BS);
		if (i % 50 == 49) {
			int32_t before = c.n_held;
			int64_t rows = t->prefix_evict(c.f.self, 2 * BS + 1);
			ck_assert_int_eq(rows, (before - c.n_held) * BS);
			ck_assert(rows >= 2 * BS + 1 || c.n_held == 0);
		}
	}
	ck_assert_double_gt(fake_host_counter(&c.f, "hits"), 500);
	ck_assert_double_gt(fake_host_counter(&c.f, "evicted"), 100);
	ck_assert_int_gt(t->prefix_evict(c.f.self, 100000), 0);
	ck_assert_int_eq(c.n_held, 0);
	t->reset(c.f.self);
	ck_assert_int_eq(t->warm(c.f.self), 0);
	fake_host_close(&c.f);
}
END_TEST

START_TEST(the_longest_unused_goes_first)
{
	struct cache c;
	cache_open(&c, "max_entries=2", BLOCKS);
	for (int32_t p = 0; p < 3; p++) {
		c.len[p] = BS + 1;
		for (int32_t i = 0; i <= BS; i++)
			c.text[p][i] = p;
	}
	publish(&c, 0);
	publish(&c, 1);
	ck_assert_int_eq(match(&c, 0), BS); /* used again */
	publish(&c, 2);
	ck_assert_int_eq(match(&c, 1), 0);
	ck_assert_int_eq(match(&c, 0), BS);
	ck_assert_int_eq(match(&c, 2), BS);
	fake_host_close(&c.f);
}
END_TEST

START_TEST(blocks_follow_layout_and_codec)
{
	struct fake_host f;
	struct nx_err err = {0};
	struct nx_prefix_geometry g = {0};
	struct nx_prefix_limits own = {.align = 16, .max_len = LEN, .budget_rows = 100},
				cut = {.block_size = 24, .align = 16, .max_len = LEN};
	fake_host_open(&f, "prefix_donor", "block_size=8,max_entries=50", PLACES);
	ck_assert_int_eq(f.plugin.technique->prefix_geometry(f.self, &own, &g, &err), 0);
	ck_assert_int_eq(g.block_size, 16);
	ck_assert_int_eq(g.n_rows, 96);
	ck_assert_int_eq(f.plugin.technique->prefix_geometry(f.self, &cut, &g, &err), NX_ECONFLICT);
	fake_host_close(&f);
}
END_TEST

/* ---- kv_sinks ---- */

START_TEST(sinks_and_window_stay)
{
	struct fake_host f;
	int32_t len = 3, dropped = 0;
	fake_host_open(&f, "kv_sinks", "sinks=5,window=10,block_size=4", 1);
	for (int i = 0; i < 200; i++) {
		struct nx_kv_held h = {.len = len, .n_dropped = dropped, .block_size = 4};
		int32_t first = -1, n = f.plugin.technique->kv_drop(f.self, &h, &first);
		ck_assert(n >= 0 && n % 4 == 0);
		if (n) {
			ck_assert(first >= 5 && first % 4 == 0 && first + n <= len - 10);
			len -= n;
			dropped += n;
		}
		ck_assert_int_lt(len, 8 + 10 + 4);
		len += 1 + i % 3;
	}
	ck_assert_int_gt(dropped, 300);
	fake_host_close(&f);
}
END_TEST

/* ---- weight_int8 ---- */

struct source {
	int64_t k;
};

static float element(int64_t row, int64_t col)
{
	uint64_t s = (uint64_t)(row * 1000 + col);
	return (float)(nx_test_random(&s) % 2001) * 1e-3f - 1;
}

static int rows(void *ctx, int64_t row0, int64_t n, float *dst, struct nx_err *err)
{
	const struct source *s = ctx;
	(void)err;
	for (int64_t i = 0; i < n * s->k; i++)
		dst[i] = element(row0 + i / s->k, i % s->k);
	return 0;
}

/* At most half a step of the row's scale from the real element. */
static double dequantised(int64_t row, int64_t col, int64_t k)
{
	float most = 0;
	for (int64_t i = 0; i < k; i++)
		most = fmaxf(most, fabsf(element(row, i)));
	float scale = most / 127;
	return (double)scale * lrintf(element(row, col) / scale);
}

enum { N = 130, K = 37, M = 9 };

START_TEST(products_are_those_of_the_dequantised_matrix)
{
	struct fake_host f;
	struct nx_err err = {0};
	struct source src = {K};
	void *w = NULL;
	enum nx_epilogue epi = (enum nx_epilogue)(_i % 3);
	int32_t cols = epi == NX_EPI_SWIGLU ? N / 2 : N;
	static float x[M * K], all[M * N], one[N];
	fake_host_open(&f, "weight_int8", "", 1);
	const struct nx_technique *t = f.plugin.technique;
	struct nx_weight_desc d = {.n = N, .k = K, .rows = rows, .ctx = &src};
	struct nx_weight_desc lookup = d;
	lookup.lookup = true;
	ck_assert_int_eq(t->weight_pack(f.self, &lookup, NX_WEIGHT_OUTPUT, 0, &w, &err),
	                 NX_WEIGHT_LEFT);
	ck_assert_int_eq(t->weight_pack(f.self, &d, NX_WEIGHT_QKV, 1, &w, &err), 0);
	ck_assert_uint_eq(t->weight_bytes(f.self, w), N * (K + 4));
	for (int i = 0; i < M * K; i++)
		x[i] = element(i, 77);
	for (int i = 0; i < M * N; i++)
		all[i] = (float)(i % 7);
	struct nx_linear a = {.m = M, .x = x, .y = all, .epilogue = epi, .y_f32 = _i >= 3};
	ck_assert_int_eq(t->weight_linear(f.self, NULL, w, &a, &err), 0);
	memset(&a, 0xee, sizeof(a));
	fake_host_run(&f);
	for (int32_t r = 0; r < M; r++) {
		for (int32_t j = 0; j < cols; j++) {
			double y[2] = {0};
			for (int32_t i = 0; i < K; i++) {
				y[0] += dequantised(epi == NX_EPI_SWIGLU ? 2 * j : j, i, K) *
				        (double)x[r * K + i];
				y[1] += dequantised((2 * j + 1) % N, i, K) * (double)x[r * K + i];
			}
			double want = epi == NX_EPI_SWIGLU ? y[0] / (1 + exp(-y[0])) * y[1] : y[0];
			if (epi == NX_EPI_ADD)
				want += (r * cols + j) % 7;
			ck_assert_double_eq_tol(want, (double)all[r * cols + j], 1e-5);
		}
		/* One row alone has the bits that it has among others. */
		for (int32_t j = 0; j < cols; j++)
			one[j] = (float)((r * cols + j) % 7);
		struct nx_linear b = {.m = 1, .x = x + r * K, .y = one, .epilogue = epi};
		ck_assert_int_eq(t->weight_linear(f.self, NULL, w, &b, &err), 0);
		fake_host_run(&f);
		ck_assert_int_eq(memcmp(one, all + r * cols, (size_t)cols * sizeof(float)), 0);
	}
	t->weight_drop(f.self, w);
	fake_host_close(&f);
}
END_TEST

int main(void)
{
	Suite *s = suite_create("plugins_store");
	TCase *tc = tcase_create("store");
	tcase_add_loop_test(tc, a_match_is_what_was_published, 0, 4);
	tcase_add_test(tc, the_longest_unused_goes_first);
	tcase_add_test(tc, blocks_follow_layout_and_codec);
	tcase_add_test(tc, sinks_and_window_stay);
	tcase_add_loop_test(tc, products_are_those_of_the_dequantised_matrix, 0, 6);
	suite_add_tcase(s, tc);
	SRunner *r = srunner_create(s);
	srunner_run_all(r, CK_NORMAL);
	int failed = srunner_ntests_failed(r);
	srunner_free(r);
	return failed != 0;
}
