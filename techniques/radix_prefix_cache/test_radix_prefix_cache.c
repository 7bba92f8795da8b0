/* SPDX-License-Identifier: Apache-2.0
 *
 * test_radix_prefix_cache.c: what is found, where nodes part, what is locked, what goes first, and that it is always
 * what the simplest cache would do.
 */
#include <check.h>
#include <stdlib.h>
#include <string.h>

#include "radix.c"

#include "fake_host.h"
#include "prefix_model.h"

static struct fake_host plugin;

static void open_it(void)
{
	fake_host_load(&plugin, "radix_prefix_cache", "", 4);
}

static const struct {
	const char *values;
	enum pm_policy policy;
	int32_t block_size, pool_blocks, max_entries, letters;
} CASES[] = {
	{"", PM_LRU, 1, 100, 100, 3},
	{"max_tokens=60", PM_LRU, 1, 100, 60, 2},
	{"max_tokens=60,eviction_policy=lfu", PM_LFU, 1, 100, 60, 2},
	{"max_tokens=50", PM_LRU, 2, 50, 25, 3},
	{"eviction_policy=lfu", PM_LFU, 4, 24, 24, 2},
	{"max_tokens=29", PM_LRU, 3, 30, 9, 2},
	{"max_tokens=60", PM_LRU, 1, 0, 60, 3}, /* contiguous */
	{"block_size=3,max_tokens=35,eviction_policy=lfu", PM_LFU, 3, 0, 11, 2},
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
	ck_assert_double_eq(pm_counter(m, "evicted"), (double)(m->n_evicted * c.block_size));
	ck_assert_double_eq(pm_counter(m, "refused"), (double)m->n_refused);
	ck_assert_double_eq(pm_counter(m, "taken_over"), (double)(m->n_taken_over * c.block_size));
	ck_assert_double_gt(pm_counter(m, "splits"), 100);
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

/* ---- the tree by hand: block i of a sequence has id 100 * sequence + i ---------------------------- */

#define CELLS 32

static struct radix *tree_open(int32_t block_size, enum radix_policy policy)
{
	struct radix *t = calloc(1, sizeof(*t));
	ck_assert_ptr_nonnull(t);
	*t = (struct radix){
		.policy = policy, .block_size = block_size, .max_cells = CELLS, .n_buckets = 4};
	void *p = malloc(radix_bytes(t));
	ck_assert_ptr_nonnull(p);
	radix_place(t, p);
	radix_empty(t);
	return t;
}

static void tree_close(struct radix *t)
{
	free(t->nodes);
	free(t);
}

/* The sequence, one letter a token, walks on from where it stands; what is not there grows. */
static void walk(struct radix *t, struct radix_at *at, const char *text, int32_t id)
{
	int32_t tokens[64], n = (int32_t)strlen(text) / t->block_size;
	for (size_t i = 0; text[i]; i++)
		tokens[i] = text[i];
	while (at->depth < n) {
		const int32_t *rest = tokens + at->depth * t->block_size;
		if (!radix_step(t, at, rest, n - at->depth))
			radix_grow(t, at, rest, 100 * id + at->depth);
	}
}

static int32_t find(const struct radix *t, const char *text, int32_t *blocks)
{
	int32_t tokens[64];
	for (size_t i = 0; text[i]; i++)
		tokens[i] = text[i];
	return radix_find(t, (struct radix_at){.node = RADIX_ROOT}, tokens,
	                  (int32_t)strlen(text) / t->block_size, blocks);
}

static const struct radix_at root = {.node = RADIX_ROOT};

START_TEST(a_node_ends_where_sequences_part)
{
	struct radix *t = tree_open(1, RADIX_LRU);
	struct radix_at a = root, b = root, c = root;
	int32_t blocks[16];
	walk(t, &a, "system: hello", 1);
	ck_assert_int_eq(t->n_nodes, 1);
	walk(t, &b, "system: help", 2);
	/* "system: hel" and below it "lo" and "p" */
	ck_assert_int_eq(t->n_nodes, 3);
	ck_assert_int_eq(t->n_cells, 14);
	ck_assert_int_eq(find(t, "system: help", blocks), 12);
	ck_assert_int_eq(blocks[10], 110);
	ck_assert_int_eq(blocks[11], 211);
	/* A third goes the way of the first, token by token: no node is cut for that and left so. */
	for (int32_t n = 1; n <= 13; n++) {
		char text[16];
		snprintf(text, sizeof(text), "%.*s", n, "system: hello");
		walk(t, &c, text, 3);
	}
	ck_assert_int_eq(t->n_nodes, 3);
	ck_assert_int_eq(t->n_cells, 14);
	ck_assert_int_eq(t->n_protected, 14);
	radix_leave(t, &b, true);
	ck_assert_int_eq(t->n_protected, 13);
	radix_leave(t, &a, true);
	ck_assert_int_eq(t->n_protected, 13);
	radix_leave(t, &c, true);
	ck_assert_int_eq(t->n_protected, 0);
	tree_close(t);
}
END_TEST

/* Blocks of four: "abcdefXY" and "abcdefgh" differ in their second block and share one. */
START_TEST(nodes_part_at_block_boundaries)
{
	struct radix *t = tree_open(4, RADIX_LRU);
	struct radix_at a = root, b = root;
	walk(t, &a, "abcdefgh", 1);
	walk(t, &b, "abcdefXY", 2);
	ck_assert_int_eq(t->n_nodes, 3);
	ck_assert_int_eq(t->n_cells, 3);
	ck_assert_int_eq(find(t, "abcdefXY", NULL), 2);
	ck_assert_int_eq(find(t, "abcdefX", NULL), 1);
	ck_assert_int_eq(find(t, "bcdeabcd", NULL), 0);
	tree_close(t);
}
END_TEST

START_TEST(unlocked_leaves_go_ends_first_and_never_a_locked_one)
{
	struct radix *t = tree_open(1, RADIX_LRU);
	struct radix_at a = root, b = root, c = root;
	walk(t, &a, "abcd", 1);
	walk(t, &b, "abxy", 2);
	walk(t, &c, "q", 3);
	ck_assert_int_eq(radix_next_out(t), -1);
	radix_leave(t, &b, true);
	radix_leave(t, &a, true);
	int32_t want[] = {203, 202, 103, 102, 101, 100};
	for (size_t i = 0; i < sizeof(want) / sizeof(want[0]); i++) {
		int32_t cell = radix_next_out(t);
		ck_assert_int_ge(cell, 0);
		ck_assert_int_eq(t->block[cell], want[i]);
		radix_drop_next(t);
	}
	ck_assert_int_eq(radix_next_out(t), -1); /* "q" runs */
	ck_assert_int_eq(t->n_cells, 1);
	tree_close(t);
}
END_TEST

START_TEST(the_least_often_used_leaf_goes_first)
{
	struct radix *t = tree_open(1, RADIX_LFU);
	struct radix_at a = root;
	const char *const texts[] = {"often", "twice", "often", "once", "twice", "often"};
	for (int i = 0; i < 6; i++) {
		walk(t, &a, texts[i], i);
		radix_leave(t, &a, true);
	}
	/* Of "once" and "often" the first letter is shared and used four times. */
	ck_assert_int_eq(t->tokens[radix_next_out(t)], 'e');
	for (int i = 0; i < 3; i++)
		radix_drop_next(t);
	ck_assert_int_eq(find(t, "once", NULL), 1);
	for (int i = 0; i < 5; i++)
		radix_drop_next(t);
	ck_assert_int_eq(find(t, "twice", NULL), 0);
	ck_assert_int_eq(find(t, "often", NULL), 5);
	tree_close(t);
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
	Suite *s = suite_create("radix_prefix_cache");
	TCase *tc = tcase_create("radix_prefix_cache");
	tcase_add_checked_fixture(tc, open_it, NULL);
	tcase_set_timeout(tc, 300);
	tcase_add_loop_test(tc, it_does_what_a_list_of_prefixes_does, 0,
	                    (int)(sizeof(CASES) / sizeof(CASES[0])));
	tcase_add_test(tc, a_node_ends_where_sequences_part);
	tcase_add_test(tc, nodes_part_at_block_boundaries);
	tcase_add_test(tc, unlocked_leaves_go_ends_first_and_never_a_locked_one);
	tcase_add_test(tc, the_least_often_used_leaf_goes_first);
	if (getenv("NEXUS_TEST_COST"))
		tcase_add_loop_test(tc, costs_are_told, 0, 2);
	suite_add_tcase(s, tc);
	SRunner *r = srunner_create(s);
	srunner_run_all(r, CK_NORMAL);
	int failed = srunner_ntests_failed(r);
	srunner_free(r);
	return failed != 0;
}
