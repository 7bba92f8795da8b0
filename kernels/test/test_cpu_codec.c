/* SPDX-License-Identifier: Apache-2.0
 *
 * Rows of a technique's codec: the device copies them whole and looks into none.
 */
#include <check.h>
#include <stdlib.h>
#include <string.h>

#include "kernel_test.h"

enum {
	LAYERS = 2,
	HEADS = 4,
	KV_HEADS = 2,
	DIM = 16,
	CAP = 12,
	CODEC_ROW = 20,
	PLAIN_ROW = KV_HEADS * DIM * 2,
	ROWS_OWN = 16,
	WINDOW = 4
};

struct coded {
	uint8_t pool[LAYERS][2][ROWS_OWN][CODEC_ROW];
	uint8_t scratch[LAYERS][2][2 * CAP][PLAIN_ROW];
	uint8_t win[LAYERS][2][2 * WINDOW][PLAIN_ROW];
};

static void coded_init(struct coded *c, struct nx_kv *kv, const int32_t *table, int32_t window)
{
	int64_t scratch_row = window > 1 ? PLAIN_ROW : CODEC_ROW;
	for (size_t i = 0; i < sizeof(*c); i++)
		((uint8_t *)c)[i] = (uint8_t)(i * 7 + i / 251);
	*kv = (struct nx_kv){.codec = NX_KV_OWN,
	                     .plain = NX_BF16,
	                     .n_layers = LAYERS,
	                     .n_kv_heads = KV_HEADS,
	                     .head_dim = DIM,
	                     .block_size = 4,
	                     .table_stride = 2,
	                     .table = table,
	                     .base = (uint8_t *)c->pool,
	                     .layer_bytes = sizeof(c->pool[0]),
	                     .row_bytes = CODEC_ROW,
	                     .v_offset = sizeof(c->pool[0][0]),
	                     .scratch = (uint8_t *)c->scratch,
	                     .scratch_layer_bytes = sizeof(c->scratch[0]),
	                     .scratch_row_bytes = scratch_row,
	                     .scratch_v_offset = sizeof(c->scratch[0][0]),
	                     .scratch_cap = CAP,
	                     .window = window,
	                     .win = window > 1 ? (uint8_t *)c->win : NULL,
	                     .win_layer_bytes = sizeof(c->win[0]),
	                     .win_v_offset = sizeof(c->win[0][0])};
}

START_TEST(rows_of_a_codec_move_whole)
{
	static const int32_t table[4] = {-1, -1, 8, 0};
	int32_t len[2] = {0, 2}, accepted[2] = {0, 2}, path[2 * 4] = {0, 0, 0, 0, 5, 7, 0, 0};
	struct nx_seq_state state = {2, len, NULL};
	struct nx_verdict v = {4, NULL, accepted, path};
	struct nx_emit e[2] = {{.n_draft = 0},
	                       {.seq = 1, .src_seq = 1, .pos_off = 1, .n_draft = 3}};
	struct coded *c = malloc(sizeof(*c)), *was = malloc(sizeof(*was));
	struct nx_kv kv;
	struct rig r;
	struct nx_counted n;
	ck_assert(rig_open(&r, 0, 1, false));
	coded_init(c, &kv, table, 1);
	*was = *c;
	struct nx_kv_copy copy = {2, 9, 3};
	rig_ok(&r, r.ops->kv_copy(r.dev, NULL, &kv, &copy, 1, &r.err));
	uint8_t *host = malloc(3 * nx_kv_swap_row_bytes(&kv));
	rig_ok(&r, r.ops->kv_swap(r.dev, NULL, &kv, 9, 3, host, NX_D2H, &r.err));
	rig_ok(&r, r.ops->kv_swap(r.dev, NULL, &kv, 12, 3, host, NX_H2D, &r.err));
	for (int i = 0; i < 2 * LAYERS; i++) {
		uint8_t(*now)[CODEC_ROW] = c->pool[i / 2][i % 2],
		(*old)[CODEC_ROW] = was->pool[i / 2][i % 2];
		memcpy(old[2], old[9], 3 * CODEC_ROW);
		memcpy(old[12], old[9], 3 * CODEC_ROW);
		ck_assert(!memcmp(now, old, sizeof(c->pool[0][0])));
	}
	free(host);
	/* window 1: encoded in scratch already. Slots 3 and 4 are pool rows 11 and 0. */
	coded_init(c, &kv, table, 1);
	*was = *c;
	r.ops->counted_reset(r.dev);
	rig_ok(&r, r.ops->kv_compact(r.dev, NULL, &kv, &state, e, 2, &v, &r.err));
	r.ops->counted(r.dev, &n);
	ck_assert_uint_eq(n.kv_bytes, 2 * 4 * LAYERS * CODEC_ROW);
	for (int i = 0; i < 2 * LAYERS; i++) {
		const uint8_t *from = was->scratch[i / 2][i % 2][0];
		memcpy(was->pool[i / 2][i % 2][11], from + (CAP + 5) * CODEC_ROW, CODEC_ROW);
		memcpy(was->pool[i / 2][i % 2][0], from + (CAP + 7) * CODEC_ROW, CODEC_ROW);
	}
	ck_assert(!memcmp(c, was, sizeof(*c)));
	/* A window: plain rows go where slots 3 and 4 have their places. */
	coded_init(c, &kv, table, WINDOW);
	*was = *c;
	r.ops->counted_reset(r.dev);
	rig_ok(&r, r.ops->kv_compact(r.dev, NULL, &kv, &state, e, 2, &v, &r.err));
	r.ops->counted(r.dev, &n);
	ck_assert_uint_eq(n.kv_bytes, 2 * 4 * LAYERS * PLAIN_ROW);
	for (int i = 0; i < 2 * LAYERS; i++)
		for (int j = 0; j < 2; j++)
			memcpy(was->win[i / 2][i % 2][WINDOW + (3 + j) % WINDOW],
			       was->scratch[i / 2][i % 2][CAP + path[4 + j]], PLAIN_ROW);
	ck_assert(!memcmp(c, was, sizeof(*c)));
	path[4] = CAP;
	ck_assert_int_eq(r.ops->kv_compact(r.dev, NULL, &kv, &state, e, 2, &v, &r.err), NX_EBUG);
	path[4] = 5;
	coded_init(c, &kv, table, 1);
	len[1] = 6; /* slots 7 and 8: the table has 8 */
	ck_assert_int_eq(r.ops->kv_compact(r.dev, NULL, &kv, &state, e, 2, &v, &r.err), NX_EBUG);
	rig_close(&r);
	free(c);
	free(was);
}
END_TEST

START_TEST(rope_store_leaves_rows_of_a_codec_alone)
{
	enum { ROWS = 3, WIDTH = (HEADS + 2 * KV_HEADS) * DIM };
	for (int isa = 0; isa < N_ISAS; isa++) {
		int32_t seq[ROWS] = {0}, off[ROWS] = {0, 1, 2}, scratch[ROWS] = {-1, -1, -1},
			len = 5;
		int32_t kind[2][ROWS] = {{NX_ROW_REDO, NX_ROW_REDO, NX_ROW_REDO},
		                         {NX_ROW_COMMIT, NX_ROW_PAD, NX_ROW_CANDIDATE}};
		float inv[DIM / 2] = {1, 0.1f}, x[2][ROWS * WIDTH];
		struct nx_seq_state state = {1, &len, NULL};
		struct nx_counted n;
		struct rig r;
		if (!rig_open(&r, isa, 1, true))
			continue;
		for (int own = 0; own < 2; own++) {
			/* no table, no blocks, no scratch rows: those are the codec's business */
			struct nx_kv kv = {.codec = own ? NX_KV_OWN : NX_KV_F32,
			                   .n_layers = LAYERS,
			                   .n_kv_heads = KV_HEADS,
			                   .head_dim = DIM,
			                   .window = own ? WINDOW : 1};
			struct nx_rows rows = {.n_rows = ROWS,
			                       .seq = seq,
			                       .kind = kind[own],
			                       .slot_off = off,
			                       .pos_off = off,
			                       .scratch = scratch};
			struct nx_rope_store a = {.rows = &rows,
			                          .state = &state,
			                          .kv = &kv,
			                          .n_heads = HEADS,
			                          .rope_dim = DIM,
			                          .inv_freq = inv,
			                          .qkv = x[own]};
			for (int32_t i = 0; i < ROWS * WIDTH; i++)
				x[own][i] = noise(3, (uint64_t)i);
			r.ops->counted_reset(r.dev);
			rig_ok(&r, r.ops->rope_store(r.dev, NULL, &a, &r.err));
			struct nx_attention refused = {
				.rows = &rows, .state = &state, .kv = &kv, .n_heads = HEADS};
			ck_assert(!own ||
			          r.ops->attention(r.dev, NULL, &refused, &r.err) == NX_ENOTSUP);
		}
		ck_assert(x[0][0] != noise(3, 0));
		ck_assert(!memcmp(x[0], x[1], sizeof(x[0])));
		r.ops->counted(r.dev, &n);
		ck_assert_uint_eq(n.kv_bytes, 0);
		rig_close(&r);
	}
}
END_TEST

int main(void)
{
	Suite *s = suite_create("cpu_codec");
	TCase *tc = tcase_create("codec");
	tcase_set_timeout(tc, 120);
	tcase_add_test(tc, rows_of_a_codec_move_whole);
	tcase_add_test(tc, rope_store_leaves_rows_of_a_codec_alone);
	suite_add_tcase(s, tc);
	SRunner *sr = srunner_create(s);
	srunner_run_all(sr, CK_NORMAL);
	int failed = srunner_ntests_failed(sr);
	srunner_free(sr);
	return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}
