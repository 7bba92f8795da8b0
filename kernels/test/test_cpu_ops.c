/* SPDX-License-Identifier: Apache-2.0 */
#include <check.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "kernel_test.h"

static const int64_t widths[] = {1, 7, 16, 33, 64, 200, 576, 4096};
#define N_WIDTHS ((int)(sizeof(widths) / sizeof(widths[0])))

START_TEST(rmsnorm_matches_float64)
{
	int64_t cols = widths[_i], rows = 13;
	for (int isa = 0; isa < N_ISAS; isa++) {
		struct rig r;
		if (!rig_open(&r, isa, 2, false))
			continue;
		float *x = noise_array(rows * cols, 1), *w = noise_array(cols, 2);
		float *y = malloc(sizeof(float) * (size_t)(rows * cols));
		rig_ok(&r, r.ops->rmsnorm(r.dev, NULL, y, x, w, (int32_t)rows, (int32_t)cols, 1e-5f,
		                          &r.err));
		for (int64_t row = 0; row < rows; row++) {
			double sum = 0;
			for (int64_t i = 0; i < cols; i++)
				sum += (double)x[row * cols + i] * x[row * cols + i];
			double inv = 1 / sqrt(sum / (double)cols + 1e-5);
			for (int64_t i = 0; i < cols; i++) {
				double want = x[row * cols + i] * inv * w[i];
				/* sum of squares: cols / 64 roundings a lane; three products */
				double tol = fabs(want) * ldexp(4 + (double)cols / 64, -23) + 1e-30;
				ck_assert(fabs(y[row * cols + i] - want) <= tol);
			}
		}
		rig_ok(&r, r.ops->rmsnorm(r.dev, NULL, x, x, w, (int32_t)rows, (int32_t)cols, 1e-5f,
		                          &r.err));
		ck_assert(!memcmp(x, y, sizeof(float) * (size_t)(rows * cols))); /* in place */
		free(x);
		free(y);
		free(w);
		rig_close(&r);
	}
}
END_TEST

START_TEST(embed_and_gather_copy_rows)
{
	enum { VOCAB = 37, COLS = 19, ROWS = 6 };
	for (int isa = 0; isa < N_ISAS; isa++)
		for (int dtype = 0; dtype < 2; dtype++) {
			struct rig r;
			float *w, x[ROWS * COLS], y[2 * COLS];
			int32_t seq[ROWS] = {0, 1, 1, 0, 1, 0},
				token[ROWS] = {0, 36, NX_TOKEN_LAST, 17, 16, 15};
			int32_t len[2] = {0, 0}, last[2] = {3, 31}, index[2] = {4, 2};
			struct nx_seq_state state = {2, len, last};
			struct nx_rows rows = {.n_rows = ROWS, .seq = seq, .token = token};
			if (!rig_open(&r, isa, 2, false))
				continue;
			struct nx_weight *table =
				rig_weight(&r, VOCAB, COLS, (enum nx_dtype)dtype, 3, &w);
			rig_ok(&r, r.ops->embed(r.dev, NULL, &rows, &state, table, x, &r.err));
			for (int i = 0; i < ROWS; i++) {
				int id = token[i] == NX_TOKEN_LAST ? last[seq[i]] : token[i];
				ck_assert(
					!memcmp(x + i * COLS, w + id * COLS, sizeof(float) * COLS));
			}
			rig_ok(&r, r.ops->gather(r.dev, NULL, y, x, index, 2, COLS, &r.err));
			ck_assert(!memcmp(y, x + 4 * COLS, sizeof(float) * COLS));
			ck_assert(!memcmp(y + COLS, x + 2 * COLS, sizeof(float) * COLS));
			r.ops->weight_destroy(r.dev, table);
			free(w);
			rig_close(&r);
		}
}
END_TEST

/* ---- the KV store */

enum { LAYERS = 2, KV_HEADS = 2, HEADS = 4, DIM = 12, BLOCK = 4, STRIDE = 3, POOL = 40, CAP = 5 };

struct store {
	struct nx_kv kv;
	int32_t table[2 * STRIDE];
	float pool[LAYERS][POOL][2][KV_HEADS * DIM];
	float scratch[LAYERS][2 * CAP][2][KV_HEADS * DIM];
};

static void store_init(struct store *s)
{
	static const int32_t table[2 * STRIDE] = {20, 4, -1, 12, 32, 0};
	memset(s, 0xff, sizeof(*s));
	memcpy(s->table, table, sizeof(table));
	int64_t part = sizeof(s->pool[0][0][0]);
	s->kv = (struct nx_kv){.codec = NX_KV_F32,
	                       .n_layers = LAYERS,
	                       .n_kv_heads = KV_HEADS,
	                       .head_dim = DIM,
	                       .block_size = BLOCK,
	                       .table_stride = STRIDE,
	                       .table = s->table,
	                       .base = (uint8_t *)s->pool,
	                       .layer_bytes = sizeof(s->pool[0]),
	                       .row_bytes = 2 * part,
	                       .v_offset = part,
	                       .scratch = (uint8_t *)s->scratch,
	                       .scratch_layer_bytes = sizeof(s->scratch[0]),
	                       .scratch_row_bytes = 2 * part,
	                       .scratch_v_offset = part,
	                       .scratch_cap = CAP};
}

static float *slot_of(struct store *s, int layer, int seq, int slot, int part)
{
	return s->pool[layer][s->table[seq * STRIDE + slot / BLOCK] + slot % BLOCK][part];
}

START_TEST(rope_store_rotates_pairs_and_writes_by_kind)
{
	enum { ROWS = 5, WIDTH = (HEADS + 2 * KV_HEADS) * DIM, ROPE = 8 };
	for (int isa = 0; isa < N_ISAS; isa++) {
		struct rig r;
		struct store s;
		if (!rig_open(&r, isa, 2, false))
			continue;
		store_init(&s);
		int32_t len[2] = {3, 9}, last[2] = {0, 0}, seq[ROWS] = {0, 0, 1, 1, 1};
		int32_t kind[ROWS] = {NX_ROW_COMMIT, NX_ROW_PAD, NX_ROW_COMMIT, NX_ROW_CANDIDATE,
		                      NX_ROW_REDO};
		int32_t slot[ROWS] = {0, 1, 0, 1, -2}, pos[ROWS] = {0, 1, 5, 6, -2},
			scratch[ROWS] = {-1, -1, -1, 4, -1};
		float inv[ROPE / 2] = {1, 0.3f, 0.01f, 0.001f};
		struct nx_seq_state state = {2, len, last};
		struct nx_rows rows = {.n_rows = ROWS,
		                       .seq = seq,
		                       .kind = kind,
		                       .slot_off = slot,
		                       .pos_off = pos,
		                       .scratch = scratch};
		float *before = noise_array(ROWS * WIDTH, 4), *x = noise_array(ROWS * WIDTH, 4);
		struct nx_rope_store a = {.rows = &rows,
		                          .state = &state,
		                          .kv = &s.kv,
		                          .layer = 1,
		                          .n_heads = HEADS,
		                          .rope_dim = ROPE,
		                          .inv_freq = inv,
		                          .qkv = x};
		struct nx_counted counted;
		rig_ok(&r, r.ops->rope_store(r.dev, NULL, &a, &r.err));
		r.ops->counted(r.dev, &counted); /* K and V of all rows but the REDO one */
		ck_assert_uint_eq(counted.kv_bytes, 4 * 2 * KV_HEADS * DIM * sizeof(float));
		for (int row = 0; row < ROWS; row++)
			for (int h = 0; h < HEADS + 2 * KV_HEADS; h++)
				for (int i = 0; i < DIM; i += 2) {
					const float *in = before + row * WIDTH + h * DIM + i;
					const float *out = x + row * WIDTH + h * DIM + i;
					double angle = h < HEADS + KV_HEADS && i < ROPE
					                       ? (len[seq[row]] + pos[row]) *
					                                 (double)inv[i / 2]
					                       : 0;
					/* 2^-24 of the angle, and of the result */
					double tol = (fabs(angle) + 4) * ldexp(1, -23);
					ck_assert(fabs(out[0] - (in[0] * cos(angle) -
					                         in[1] * sin(angle))) <= tol);
					ck_assert(fabs(out[1] - (in[0] * sin(angle) +
					                         in[1] * cos(angle))) <= tol);
				}
		for (int part = 0; part < 2; part++) {
			size_t bytes = sizeof(float) * KV_HEADS * DIM;
			int from = (HEADS + part * KV_HEADS) * DIM;
			ck_assert(!memcmp(slot_of(&s, 1, 0, 3, part), x + from, bytes));
			ck_assert(!memcmp(slot_of(&s, 1, 0, 4, part), x + WIDTH + from, bytes));
			ck_assert(!memcmp(slot_of(&s, 1, 1, 9, part), x + 2 * WIDTH + from, bytes));
			ck_assert(
				!memcmp(s.scratch[1][CAP + 4][part], x + 3 * WIDTH + from, bytes));
			ck_assert(isnan(slot_of(&s, 1, 1, 7, part)[0])); /* REDO writes nothing */
			ck_assert(isnan(slot_of(&s, 0, 0, 3, part)[0])); /* the other layer */
		}
		slot[0] = 9; /* no such block */
		ck_assert_int_eq(r.ops->rope_store(r.dev, NULL, &a, &r.err), NX_EBUG);
		free(before);
		free(x);
		rig_close(&r);
	}
}
END_TEST

START_TEST(kv_rows_move_whole)
{
	struct rig r;
	struct store *s = malloc(sizeof(*s)), *was = malloc(sizeof(*was));
	ck_assert(rig_open(&r, 0, 1, false));
	store_init(s);
	for (int64_t i = 0; i < (int64_t)(sizeof(s->pool) / sizeof(float)); i++)
		((float *)s->pool)[i] = (float)i;
	for (int64_t i = 0; i < (int64_t)(sizeof(s->scratch) / sizeof(float)); i++)
		((float *)s->scratch)[i] = (float)-i;
	memcpy(was, s, sizeof(*s));
	struct nx_kv_copy c[2] = {{.dst = 2, .src = 0, .n_rows = 4},
	                          {.dst = 30, .src = 3, .n_rows = 1}};
	rig_ok(&r, r.ops->kv_copy(r.dev, NULL, &s->kv, c, 2, &r.err));
	for (int l = 0; l < LAYERS; l++) {
		ck_assert(!memcmp(s->pool[l][2], was->pool[l][0], 4 * sizeof(s->pool[0][0])));
		ck_assert(!memcmp(s->pool[l][30], was->pool[l][1],
		                  sizeof(s->pool[0][0]))); /* in order */
		ck_assert(!memcmp(s->pool[l][6], was->pool[l][6], 24 * sizeof(s->pool[0][0])));
	}
	memcpy(s->pool, was->pool, sizeof(s->pool));

	size_t bytes = 7 * nx_kv_swap_row_bytes(&s->kv);
	void *host = r.ops->host_alloc(r.dev, bytes);
	rig_ok(&r, r.ops->kv_swap(r.dev, NULL, &s->kv, 5, 7, host, NX_D2H, &r.err));
	for (int l = 0; l < LAYERS; l++)
		memset(s->pool[l][20], 0, 7 * sizeof(s->pool[0][0]));
	rig_ok(&r, r.ops->kv_swap(r.dev, NULL, &s->kv, 20, 7, host, NX_H2D, &r.err));
	for (int l = 0; l < LAYERS; l++)
		ck_assert(!memcmp(s->pool[l][20], was->pool[l][5], 7 * sizeof(s->pool[0][0])));
	r.ops->host_free(r.dev, host, bytes);
	memcpy(s->pool, was->pool, sizeof(s->pool));

	int32_t len[2] = {1, 6}, last[2] = {0, 0}, n[2] = {1, 2},
		path[2 * 3] = {2, -1, -1, 0, 4, -1};
	struct nx_seq_state state = {2, len, last};
	struct nx_verdict v = {.stride = 3, .n_accepted = n, .path = path};
	struct nx_emit emit[2] = {{.seq = 1, .src_seq = 1, .pos_off = 1, .n_draft = 5},
	                          {.seq = 0, .src_seq = 0, .pos_off = 1, .n_draft = 3}};
	rig_ok(&r, r.ops->kv_compact(r.dev, NULL, &s->kv, &state, emit, 2, &v, &r.err));
	for (int l = 0; l < LAYERS; l++)
		for (int part = 0; part < 2; part++) {
			size_t row = sizeof(s->pool[0][0][0]);
			ck_assert(
				!memcmp(slot_of(s, l, 1, 7, part), s->scratch[l][CAP][part], row));
			ck_assert(!memcmp(slot_of(s, l, 1, 8, part), s->scratch[l][CAP + 4][part],
			                  row));
			ck_assert(!memcmp(slot_of(s, l, 0, 2, part), s->scratch[l][2][part], row));
		}
	free(s);
	free(was);
	rig_close(&r);
}
END_TEST

START_TEST(commit_takes_effect_in_order)
{
	struct rig r;
	ck_assert(rig_open(&r, 0, 1, false));
	int32_t len[3] = {10, 0, 0}, last[3] = {1, 2, 3}, accepted[3] = {2, 9, 0},
		token[3 * 4] = {70, 71, 72, 73, 80, 81, 82, 83, 90, 91, 92, 93};
	struct nx_seq_state state = {3, len, last};
	struct nx_verdict v = {.stride = 4, .token = token, .n_accepted = accepted};
	/* Children of a fork come before their parent, whose old length they build on. */
	struct nx_commit c[3] = {{2, 0, 4, 1}, {0, 0, 4, 1}, {1, 1, 3, 0}};
	rig_ok(&r, r.ops->commit(r.dev, NULL, c, 3, &v, &state, &r.err));
	ck_assert_int_eq(len[2], 14);
	ck_assert_int_eq(len[0], 16); /* two drafted rows stay */
	ck_assert_int_eq(len[1], 3);
	ck_assert_int_eq(last[2], 90);
	ck_assert_int_eq(last[0], 72);
	ck_assert_int_eq(last[1], 2);
	c[0] = (struct nx_commit){1, 1, -3, 0}; /* rows were dropped */
	rig_ok(&r, r.ops->commit(r.dev, NULL, c, 1, NULL, &state, &r.err));
	ck_assert_int_eq(len[1], 0);
	c[0].n_rows = -1;
	ck_assert_int_eq(r.ops->commit(r.dev, NULL, c, 1, NULL, &state, &r.err), NX_EBUG);
	ck_assert_int_eq(len[1], 0);
	c[0] = (struct nx_commit){1, 1, 1, 1}; /* 9 accepted of 3 */
	ck_assert_int_eq(r.ops->commit(r.dev, NULL, c, 1, &v, &state, &r.err), NX_EBUG);
	c[0].src_seq = 3;
	ck_assert_int_eq(r.ops->commit(r.dev, NULL, c, 1, &v, &state, &r.err), NX_EBUG);
	rig_close(&r);
}
END_TEST

static void add_one(void *args)
{
	int *n;
	memcpy(&n, args, sizeof(n));
	*n += (uintptr_t)args % 16 == 0 && args != (void *)n;
}

START_TEST(work_is_counted_and_memory_is_poisoned)
{
	struct rig r;
	struct nx_counted c;
	struct nx_device_info info;
	int ran = 0, *n = &ran;
	ck_assert(rig_open(&r, 0, 2, false));
	r.ops->info(r.dev, &info);
	ck_assert_int_eq(info.n_units, 2);
	ck_assert_int_eq(info.act_dtype, NX_F32);
	ck_assert_str_eq(info.isa, "ref");
	ck_assert(info.mem_bytes > 0 && info.free_bytes > 0 && info.caps & NX_DEV_HOST_MEMORY);
	rig_ok(&r, r.ops->enqueue(r.dev, NULL, add_one, &n, sizeof(n), &r.err));
	ck_assert_int_eq(ran, 1);
	ck_assert_int_eq(r.ops->enqueue(r.dev, NULL, add_one, &n, NX_ENQUEUE_MAX + 1, &r.err),
	                 NX_EINVAL);
	ck_assert_int_eq(ran, 1);
	float *p = r.ops->alloc(r.dev, 1000);
	ck_assert(isnan(p[0]) && isnan(p[249]) && (uintptr_t)p % 64 == 0);
	r.ops->free(r.dev, p, 1000);

	struct nx_weight *w = rig_weight(&r, 20, 10, NX_BF16, 1, NULL);
	float *x = noise_array(30, 1), y[60];
	struct nx_linear a = {.w = w, .m = 3, .x = x, .y = y};
	r.ops->counted_reset(r.dev);
	rig_ok(&r, r.ops->linear(r.dev, NULL, &a, &r.err));
	r.ops->counted(r.dev, &c);
	ck_assert_uint_eq(c.weight_bytes, 20 * 10 * 2);
	ck_assert_uint_eq(c.act_bytes, 3 * (10 + 20) * 4);
	ck_assert_uint_eq(c.flops, 2 * 3 * 10 * 20);
	r.ops->weight_destroy(r.dev, w);
	free(x);
	rig_close(&r);
}
END_TEST

int main(void)
{
	Suite *s = suite_create("cpu_ops");
	TCase *tc = tcase_create("ops");
	tcase_set_timeout(tc, 60);
	tcase_add_loop_test(tc, rmsnorm_matches_float64, 0, N_WIDTHS);
	tcase_add_test(tc, embed_and_gather_copy_rows);
	tcase_add_test(tc, rope_store_rotates_pairs_and_writes_by_kind);
	tcase_add_test(tc, kv_rows_move_whole);
	tcase_add_test(tc, commit_takes_effect_in_order);
	tcase_add_test(tc, work_is_counted_and_memory_is_poisoned);
	suite_add_tcase(s, tc);
	SRunner *sr = srunner_create(s);
	srunner_run_all(sr, CK_NORMAL);
	int failed = srunner_ntests_failed(sr);
	srunner_free(sr);
	return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}
