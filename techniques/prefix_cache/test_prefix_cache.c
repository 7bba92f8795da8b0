/* SPDX-License-Identifier: Apache-2.0
 *
 * test_prefix_cache.c: what is found, what goes first, and that it is always what the simplest cache would do.
 */
#include <check.h>
#include <stdlib.h>
#include <string.h>

#include "fake_host.h"
#include "prefix_model.h"

static struct fake_host plugin;

static void open_it(void)
{
	fake_host_load(&plugin, "prefix_cache", "", 4);
}

static const struct {
	const char *values;
	enum pm_policy policy;
	int32_t block_size, pool_blocks, max_entries, letters;
} CASES[] = {
	{"max_entries=40", PM_LRU, 2, 60, 40, 3},
	{"max_entries=24,eviction_policy=lfu", PM_LFU, 2, 60, 24, 3},
	{"max_entries=24,eviction_policy=fifo", PM_FIFO, 2, 60, 24, 3},
	{"", PM_LRU, 1, 80, 80, 2}, /* as many as the pool has */
	{"eviction_policy=lfu", PM_LFU, 4, 24, 24, 2},
	{"max_entries=9", PM_LRU, 3, 30, 9, 2},
	{"block_size=2,max_entries=30", PM_LRU, 2, 0, 30, 3}, /* contiguous */
	{"block_size=3,max_entries=11,eviction_policy=lfu", PM_LFU, 3, 0, 11, 2},
	{"block_size=1,max_entries=50,eviction_policy=fifo,salt=7", PM_FIFO, 1, 0, 50, 2},
};

START_TEST(it_does_what_a_list_of_prefixes_does)
{
	struct pm_config c = {.t = plugin.plugin.technique,
	                      .values = CASES[_i].values,
	                      .policy = CASES[_i].policy,
	                      .block_size = CASES[_i].block_size,
	                      .pool_blocks = CASES[_i].pool_blocks,
	                      .max_entries = CASES[_i].max_entries,
	                      .letters = CASES[_i].letters,
	                      .seed = (uint64_t)_i + 1};
	struct pm *m = malloc(sizeof(*m));
	ck_assert_ptr_nonnull(m);
	pm_open(m, &c);
	pm_run(m, 100000);
	ck_assert_double_eq(pm_counter(m, "hits"), (double)m->n_hits);
	ck_assert_double_eq(pm_counter(m, "evicted"), (double)m->n_evicted);
	ck_assert_double_eq(pm_counter(m, "refused"), (double)m->n_refused);
	ck_assert_double_eq(pm_counter(m, "taken_over"), (double)m->n_taken_over);
	ck_assert_int_gt(m->n_hits, 1000);
	ck_assert_int_gt(m->n_evicted, 100);
	ck_assert_int_gt(m->n_forks, 100);
	ck_assert_int_gt(m->n_preempted, 100);
	if (c.pool_blocks)
		ck_assert_int_gt(m->n_failed, 10);
	pm_close(m);
	free(m);
}
END_TEST

/* ---- by hand ---------------------------------------------------------------------------------- */

/* A host that holds whatever it is asked to, block after block. */
struct hand {
	struct nx_host host;
	struct nx_value values[8];
	void *self;
	int32_t next, n_held;
	bool full;
};

static void *hand_alloc(void *ctx, enum nx_mem kind, size_t bytes)
{
	(void)ctx;
	(void)kind;
	return malloc(bytes);
}

static void hand_free(void *ctx, enum nx_mem kind, void *p, size_t bytes)
{
	(void)ctx;
	(void)kind;
	(void)bytes;
	free(p);
}

static int32_t hand_hold(void *ctx, int32_t place, int32_t index)
{
	struct hand *h = ctx;
	(void)place;
	(void)index;
	if (h->full)
		return -1;
	h->n_held++;
	return h->next++;
}

static void hand_release(void *ctx, int32_t block)
{
	struct hand *h = ctx;
	(void)block;
	h->n_held--;
}

static bool hand_idle(void *ctx, int32_t block)
{
	(void)ctx;
	(void)block;
	return true;
}

static int hand_geometry(struct hand *h, int32_t block_size, int32_t align, int64_t pool_rows,
                         int64_t budget_rows, uint64_t key, struct nx_prefix_geometry *g,
                         struct nx_err *err)
{
	const struct nx_prefix_limits l = {.block_size = block_size,
	                                   .align = align,
	                                   .max_len = 256,
	                                   .budget_rows = budget_rows,
	                                   .key = key,
	                                   .pool_rows = pool_rows};
	return plugin.plugin.technique->prefix_geometry(h->self, &l, g, err);
}

static void hand_open(struct hand *h, const char *values)
{
	struct nx_err err = {0};
	fake_host_load(&plugin, "prefix_cache", values, 4);
	*h = (struct hand){.host = plugin.host};
	memcpy(h->values, plugin.values, sizeof(h->values));
	h->host.ctx = h;
	h->host.alloc = hand_alloc;
	h->host.free = hand_free;
	h->host.kv_hold = hand_hold;
	h->host.kv_release = hand_release;
	h->host.kv_idle = hand_idle;
	ck_assert_int_eq(plugin.plugin.technique->create(&h->self, &h->host, h->values, &err), 0);
}

static void hand_close(struct hand *h)
{
	plugin.plugin.technique->destroy(h->self);
	ck_assert_int_eq(h->n_held, 0);
}

static int32_t ask(struct hand *h, const int32_t *tokens, int32_t n)
{
	return plugin.plugin.technique->prefix_match(h->self, tokens, n, NULL);
}

static void offer(struct hand *h, int32_t place, const int32_t *tokens, int32_t n)
{
	const struct nx_prefix_rows r = {.seq = place, .tokens = tokens, .n_rows = n};
	plugin.plugin.technique->prefix_publish(h->self, &r);
}

static const int32_t text[12] = {1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12};

START_TEST(whole_blocks_are_found_and_one_token_is_computed)
{
	struct hand h;
	struct nx_err err = {0};
	struct nx_prefix_geometry g;
	const int32_t shifted[9] = {0, 1, 2, 3, 4, 5, 6, 7, 8};
	const int32_t tail[9] = {5, 6, 7, 8, 1, 2, 3, 4, 0};
	hand_open(&h, "");
	ck_assert_int_eq(hand_geometry(&h, 4, 1, 400, INT64_MAX, 1, &g, &err), 0);
	ck_assert_int_eq(g.n_rows, 0);
	ck_assert_int_eq(ask(&h, text, 12), 0);
	offer(&h, 0, text, 8);
	ck_assert_int_eq(ask(&h, text, 12), 8);
	ck_assert_int_eq(ask(&h, text, 9), 8);
	ck_assert_int_eq(ask(&h, text, 8), 4); /* of 8 cached tokens the last block is computed */
	ck_assert_int_eq(ask(&h, text, 4), 0);
	ck_assert_int_eq(ask(&h, shifted, 9), 0); /* the same tokens elsewhere */
	ck_assert_int_eq(ask(&h, tail, 9), 0);
	hand_close(&h);
}
END_TEST

/* Another key, another model or stack: what was cached is forgotten. (That keys of salts differ is in
 * test_prefix_cache_collisions.c.) */
START_TEST(a_new_geometry_begins_empty)
{
	struct hand h;
	struct nx_err err = {0};
	struct nx_prefix_geometry g;
	hand_open(&h, "salt=1");
	ck_assert_int_eq(hand_geometry(&h, 4, 1, 400, INT64_MAX, 1, &g, &err), 0);
	offer(&h, 0, text, 8);
	ck_assert_int_eq(ask(&h, text, 12), 8);
	ck_assert_int_eq(hand_geometry(&h, 4, 1, 400, INT64_MAX, 2, &g, &err), 0);
	ck_assert_int_eq(h.n_held, 0);
	ck_assert_int_eq(ask(&h, text, 12), 0);
	hand_close(&h);
}
END_TEST

START_TEST(geometry_fits_layout_codec_and_budget)
{
	struct hand h;
	struct nx_err err = {0};
	struct nx_prefix_geometry g;
	hand_open(&h, "block_size=10");
	/* Over a contiguous layout: whole groups of the codec, and as much as the layout has or the limit leaves. */
	ck_assert_int_eq(hand_geometry(&h, 0, 4, 100, INT64_MAX, 1, &g, &err), 0);
	ck_assert_int_eq(g.block_size, 12);
	ck_assert_int_eq(g.n_rows, 108);
	ck_assert_int_eq(hand_geometry(&h, 0, 4, 100, 50, 1, &g, &err), 0);
	ck_assert_int_eq(g.n_rows, 48);
	ck_assert_int_eq(hand_geometry(&h, 0, 1, 100, 9, 1, &g, &err), NX_ENOSPC);
	ck_assert_str_eq(
		err.msg,
		"prefix_cache: the KV layout leaves 9 rows of the memory limit, not one block of 10");
	ck_assert_int_eq(hand_geometry(&h, 6, 4, 96, INT64_MAX, 1, &g, &err), NX_ECONFLICT);
	ck_assert_str_eq(err.msg, "prefix_cache: blocks of 6 tokens cut the codec's groups of 4");
	hand_close(&h);
}
END_TEST

/* Without room for more a publication ends; what is there stays, and the rest is tried again. */
START_TEST(a_publication_that_finds_no_room_goes_on_later)
{
	struct hand h;
	struct nx_err err = {0};
	struct nx_prefix_geometry g;
	hand_open(&h, "max_entries=2");
	ck_assert_int_eq(hand_geometry(&h, 4, 1, 400, INT64_MAX, 1, &g, &err), 0);
	h.full = true;
	offer(&h, 0, text, 4);
	ck_assert_int_eq(ask(&h, text, 12), 0);
	h.full = false;
	offer(&h, 0, text, 12); /* three blocks, room for two, and both are in use */
	ck_assert_int_eq(h.n_held, 2);
	ck_assert_int_eq(ask(&h, text, 12), 8);
	hand_close(&h);
}
END_TEST

/* NEXUS_TEST_COST=1: for the table in README.md. */
START_TEST(costs_are_told)
{
	pm_costs(plugin.plugin.technique, _i ? 16 : 1);
}
END_TEST

int main(void)
{
	Suite *s = suite_create("prefix_cache");
	TCase *tc = tcase_create("prefix_cache");
	tcase_add_checked_fixture(tc, open_it, NULL);
	tcase_set_timeout(tc, 300);
	tcase_add_loop_test(tc, it_does_what_a_list_of_prefixes_does, 0,
	                    (int)(sizeof(CASES) / sizeof(CASES[0])));
	tcase_add_test(tc, whole_blocks_are_found_and_one_token_is_computed);
	tcase_add_test(tc, a_new_geometry_begins_empty);
	tcase_add_test(tc, geometry_fits_layout_codec_and_budget);
	tcase_add_test(tc, a_publication_that_finds_no_room_goes_on_later);
	if (getenv("NEXUS_TEST_COST"))
		tcase_add_loop_test(tc, costs_are_told, 0, 2);
	suite_add_tcase(s, tc);
	SRunner *r = srunner_create(s);
	srunner_run_all(r, CK_NORMAL);
	int failed = srunner_ntests_failed(r);
	srunner_free(r);
	return failed != 0;
}
