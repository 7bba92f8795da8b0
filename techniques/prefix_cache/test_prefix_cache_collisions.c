/* SPDX-License-Identifier: Apache-2.0
 *
 * test_prefix_cache_collisions.c: built with a hash that has two values, so that nearly all keys collide: what is
 * served stays what was asked for, and which entries go stays the same.
 */
#define PREFIX_CACHE_MIX(key, x) (((key) ^ (x)) & 1)

#include "prefix_cache.c"
#include "table.c"

#include <check.h>

#include "prefix_model.h"

static void *lend(void *ctx, enum nx_mem kind, size_t bytes)
{
	(void)kind;
	ck_assert_uint_le(bytes, 1 << 16);
	return ctx;
}

static void take_back(void *ctx, enum nx_mem kind, void *p, size_t bytes)
{
	(void)kind;
	(void)bytes;
	ck_assert_ptr_eq(ctx, p);
}

START_TEST(colliding_keys_are_told_apart)
{
	const struct pm_config c = {.t = nx_technique_entry(),
	                            .values = "max_entries=40",
	                            .policy = PM_LRU,
	                            .block_size = _i ? 1 : 2,
	                            .pool_blocks = 60,
	                            .max_entries = 40,
	                            .letters = 4,
	                            .seed = 11};
	struct pm *m = malloc(sizeof(*m));
	ck_assert_ptr_nonnull(m);
	pm_open(m, &c);
	pm_run(m, 30000);
	ck_assert_double_eq(pm_counter(m, "evicted"), (double)m->n_evicted);
	ck_assert_int_gt(m->n_hits, 1000);
	pm_close(m);
	free(m);
}
END_TEST

/* The hash does collide: of the keys of 64 different blocks no more than two differ. */
START_TEST(the_hash_of_this_test_collides)
{
	struct table t = {.block_size = 2, .root = 5};
	uint64_t seen[2] = {0};
	int n = 0;
	for (int32_t a = 0; a < 64; a++) {
		const int32_t tokens[2] = {a, 3 * a + 1};
		uint64_t key = table_key(&t, -1, tokens);
		if ((n < 1 || seen[0] != key) && (n < 2 || seen[1] != key)) {
			ck_assert_int_lt(n, 2);
			seen[n++] = key;
		}
	}
}
END_TEST

/* The key of the empty prefix, which is in every other: of each salt and each model and stack another. */
START_TEST(salts_and_stacks_begin_with_keys_of_their_own)
{
	uint64_t roots[3];
	for (int i = 0; i < 3; i++) {
		static uint64_t memory[1 << 13];
		void *self = NULL;
		struct nx_err err = {0};
		struct nx_prefix_geometry g;
		const struct nx_host host = {
			.max_seqs = 1, .alloc = lend, .free = take_back, .ctx = memory};
		const struct nx_value values[] = {[P_BLOCK_SIZE] = {.i = 4},
		                                  [P_MAX_ENTRIES] = {.i = 8},
		                                  [P_SALT] = {.i = i == 1}};
		const struct nx_prefix_limits l = {
			.block_size = 4, .key = i == 2 ? 8 : 7, .pool_rows = 64};
		ck_assert_int_eq(create(&self, &host, values, &err), 0);
		ck_assert_int_eq(prefix_geometry(self, &l, &g, &err), 0);
		roots[i] = ((struct cache *)self)->table.root;
		destroy(self);
	}
	ck_assert(roots[0] != roots[1] && roots[0] != roots[2] && roots[1] != roots[2]);
}
END_TEST

int main(void)
{
	Suite *s = suite_create("prefix_cache_collisions");
	TCase *tc = tcase_create("collisions");
	tcase_set_timeout(tc, 120);
	tcase_add_loop_test(tc, colliding_keys_are_told_apart, 0, 2);
	tcase_add_test(tc, the_hash_of_this_test_collides);
	tcase_add_test(tc, salts_and_stacks_begin_with_keys_of_their_own);
	suite_add_tcase(s, tc);
	SRunner *r = srunner_create(s);
	srunner_run_all(r, CK_NORMAL);
	int failed = srunner_ntests_failed(r);
	srunner_free(r);
	return failed != 0;
}
