/* SPDX-License-Identifier: Apache-2.0
 *
 * test/test_store.c: the KV store against a model of it that is too simple to be wrong: which value every
 * slot of every place should hold. 100,000 random operations; afterwards the pool is whole.
 */
#include <check.h>
#include <stdlib.h>
#include <string.h>

#include "engine/store.h"
#include "tiny_model.h"

#define PLACES 12
#define MAX_LEN 96

struct world {
	struct nx_device dev;
	struct nx_store s;
	uint8_t want[PLACES][MAX_LEN]; /* what slot t of a place holds */
	int32_t len[PLACES];
	struct nx_swapped swapped[PLACES];
	uint8_t swapped_want[PLACES][MAX_LEN];
	uint64_t rng;
	uint8_t stamp;
};

static void world_open(struct world *w, bool blocks, int32_t block_size, int64_t rows)
{
	struct nx_err err = {0};
	struct nx_device_config cfg = {.n_threads = 1, .dtype = NX_F32, .isa = "ref"};
	struct nx_group_shape groups[2] = {
		{.n_layers = 2, .n_kv_heads = 1, .head_dim = 2, .codec = NX_KV_F32},
		{.n_layers = 1, .n_kv_heads = 2, .head_dim = 1, .codec = NX_KV_BF16}};
	struct nx_kv_geometry geo = {.block_size = blocks ? block_size : MAX_LEN,
	                             .n_rows = rows,
	                             .blocks = blocks,
	                             .keep = true,
	                             .preempt = NX_PREEMPT_SWAP,
	                             .swap_rows = 4 * MAX_LEN};
	memset(w, 0, sizeof(*w));
	w->rng = 42;
	ck_assert_msg(nx_device_open(&w->dev, "cpu", &cfg, getenv("NEXUS_BUILD"), &err) == 0, "%s",
	              err.msg);
	const struct nx_prefix_geometry none = {0};
	ck_assert_msg(
		nx_store_init(&w->s, &w->dev, &geo, &none, groups, 2, PLACES, MAX_LEN, &err) == 0,
		"%s", err.msg);
}

static void world_close(struct world *w)
{
	nx_store_release(&w->s);
	nx_device_close(&w->dev);
}

static int32_t below(struct world *w, int32_t n)
{
	return (int32_t)(nx_test_random(&w->rng) % (uint64_t)n);
}

/* First byte of K of layer l of slot t, as a kernel would find it: through the table. */
static uint8_t *cell(struct world *w, int32_t g, int32_t l, int32_t place, int32_t t)
{
	const struct nx_kv *kv = &w->s.kv[g];
	int32_t bs = kv->block_size;
	int32_t row =
		w->s.table[(size_t)place * (size_t)w->s.table_stride + (size_t)(t / bs)] + t % bs;
	return kv->base + l * kv->layer_bytes + row * kv->row_bytes;
}

static void write_slot(struct world *w, int32_t place, int32_t t)
{
	uint8_t v = ++w->stamp;
	for (int32_t l = 0; l < 2; l++)
		*cell(w, 0, l, place, t) = v;
	*(cell(w, 1, 0, place, t) + w->s.kv[1].v_offset) = v;
	w->want[place][t] = v;
}

/* Plain comparisons: ck_assert costs more than the store. */
static void check_place(struct world *w, int32_t place)
{
	for (int32_t t = 0; t < w->len[place]; t++) {
		uint8_t want = w->want[place][t];
		if (*cell(w, 0, 0, place, t) != want || *cell(w, 0, 1, place, t) != want ||
		    *(cell(w, 1, 0, place, t) + w->s.kv[1].v_offset) != want)
			ck_abort_msg("place %d slot %d does not hold what was written", place, t);
	}
}

static void flush(struct world *w)
{
	struct nx_err err = {0};
	ck_assert_msg(nx_store_flush(&w->s, NULL, &err) == 0, "%s", err.msg);
}

static void append(struct world *w, int32_t p)
{
	struct nx_err err = {0};
	int32_t n = 1 + below(w, 20), room = MAX_LEN - w->len[p];
	if (n > room)
		n = room;
	/* A run is reserved once, at its final size. */
	int32_t want = w->s.geo.blocks || w->s.places[p].run >= 0
	                       ? w->len[p] + n
	                       : MAX_LEN / 2 + below(w, MAX_LEN / 2);
	if (!w->s.geo.blocks && w->s.places[p].run >= 0) {
		if (want > w->s.places[p].held)
			return;
	} else if (!w->s.geo.blocks && want < n) {
		return;
	}
	int rc = nx_store_reserve(&w->s, p, w->len[p], want, &err);
	flush(w);
	if (rc == NX_ENOSPC)
		return;
	ck_assert_msg(rc == 0, "%s", err.msg);
	for (int32_t i = 0; i < n; i++)
		write_slot(w, p, w->len[p]++);
}

static void fork_place(struct world *w, int32_t child, int32_t parent)
{
	struct nx_err err = {0};
	if (child == parent || w->len[parent] == 0)
		return;
	nx_store_trim(&w->s, child, 0);
	w->len[child] = 0;
	if (!w->s.geo.blocks && nx_store_reserve(&w->s, child, 0, MAX_LEN, &err))
		return;
	ck_assert_msg(nx_store_fork(&w->s, child, parent, w->len[parent], &err) == 0, "%s",
	              err.msg);
	flush(w);
	w->len[child] = w->len[parent];
	memcpy(w->want[child], w->want[parent], MAX_LEN);
}

static void swap(struct world *w, int32_t p)
{
	struct nx_err err = {0};
	int rc;
	if (w->swapped[p].rows) {
		nx_store_trim(&w->s, p, 0);
		w->len[p] = 0;
		int32_t n = w->swapped[p].n_rows;
		rc = nx_store_swap_in(&w->s, NULL, p, &w->swapped[p], &err);
		flush(w);
		if (rc == NX_ENOSPC) {
			nx_store_trim(&w->s, p, 0);
			return;
		}
		ck_assert_msg(rc == 0, "%s", err.msg);
		w->len[p] = n;
		memcpy(w->want[p], w->swapped_want[p], MAX_LEN);
	} else if (w->len[p]) {
		rc = nx_store_swap_out(&w->s, NULL, p, w->len[p], &w->swapped[p], &err);
		if (rc == NX_ENOSPC)
			return;
		ck_assert_msg(rc == 0, "%s", err.msg);
		memcpy(w->swapped_want[p], w->want[p], MAX_LEN);
		w->len[p] = 0;
	}
}

static void random_operations(struct world *w, int32_t n)
{
	struct nx_err err = {0};
	for (int32_t i = 0; i < n; i++) {
		int32_t p = below(w, PLACES);
		switch (below(w, 8)) {
		case 0:
		case 1:
		case 2: append(w, p); break;
		case 3:
		case 4: fork_place(w, p, below(w, PLACES)); break;
		case 5: swap(w, p); break;
		case 6: /* shorten: blocks lose their tail, a run is kept */
			w->len[p] = w->len[p] ? below(w, w->len[p] + 1) : 0;
			nx_store_trim(&w->s, p, w->len[p]);
			break;
		default: nx_store_trim(&w->s, p, 0); w->len[p] = 0;
		}
		if (i % 16 == 0)
			ck_assert_msg(nx_store_check(&w->s, &err) == 0, "after %d operations: %s",
			              i, err.msg);
		check_place(w, p);
		check_place(w, below(w, PLACES)); /* nobody else was touched */
	}
	for (int32_t p = 0; p < PLACES; p++) {
		nx_store_trim(&w->s, p, 0);
		nx_store_swap_drop(&w->s, &w->swapped[p]);
	}
	ck_assert_msg(nx_store_check(&w->s, &err) == 0, "%s", err.msg);
	ck_assert_int_eq(w->s.pool.free_rows, w->s.pool.n_rows);
	ck_assert_int_eq(w->s.swap_pool.free_rows, w->s.swap_pool.n_rows);
}

START_TEST(blocks_are_whole_after_100000_random_operations)
{
	static const int32_t sizes[] = {1, 3, 16, 64};
	struct world w;
	world_open(&w, true, sizes[_i], 320);
	random_operations(&w, 25000);
	/* A block of one token is never half full, so nobody writes into a shared one. */
	ck_assert(sizes[_i] == 1 || w.s.n_cow_blocks > 0);
	ck_assert_uint_gt(w.s.n_shared_blocks, 0);
	ck_assert_uint_gt(w.s.n_swapped_rows, 0);
	world_close(&w);
}
END_TEST

START_TEST(runs_are_whole_after_random_operations)
{
	struct world w;
	world_open(&w, false, 0, 5 * MAX_LEN);
	random_operations(&w, 25000);
	world_close(&w);
}
END_TEST

START_TEST(writing_after_a_fork_leaves_the_sibling_alone)
{
	struct world w;
	struct nx_err err = {0};
	world_open(&w, true, 16, 320);
	ck_assert_int_eq(nx_store_reserve(&w.s, 0, 0, 20, &err), 0);
	flush(&w);
	for (int i = 0; i < 20; i++)
		write_slot(&w, 0, w.len[0]++);
	fork_place(&w, 1, 0);
	ck_assert_int_eq(w.s.pool.free_rows, 320 - 32); /* all shared */
	append(&w, 1);
	check_place(&w, 0);
	check_place(&w, 1);
	ck_assert_uint_eq(w.s.n_cow_blocks, 1); /* the half-filled block, and only that */
	append(&w, 0);
	ck_assert_uint_eq(w.s.n_cow_blocks, 1); /* its last user writes in place */
	world_close(&w);
}
END_TEST

START_TEST(a_full_pool_says_so_and_stays_whole)
{
	struct world w;
	struct nx_err err = {0};
	world_open(&w, true, 16, 64);
	ck_assert_int_eq(nx_store_reserve(&w.s, 0, 0, 50, &err), 0);
	ck_assert_int_eq(nx_store_reserve(&w.s, 1, 0, 1, &err), NX_ENOSPC);
	ck_assert_ptr_nonnull(strstr(err.msg, "0 of 64 rows free"));
	ck_assert_int_eq(nx_store_check(&w.s, &err), 0);
	world_close(&w);
}
END_TEST

int main(void)
{
	Suite *s = suite_create("store");
	TCase *tc = tcase_create("store");
	tcase_set_timeout(tc, 120);
	tcase_add_loop_test(tc, blocks_are_whole_after_100000_random_operations, 0, 4);
	tcase_add_test(tc, runs_are_whole_after_random_operations);
	tcase_add_test(tc, writing_after_a_fork_leaves_the_sibling_alone);
	tcase_add_test(tc, a_full_pool_says_so_and_stays_whole);
	suite_add_tcase(s, tc);
	SRunner *r = srunner_create(s);
	srunner_run_all(r, CK_NORMAL);
	int failed = srunner_ntests_failed(r);
	srunner_free(r);
	return failed != 0;
}
