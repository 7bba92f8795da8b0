/* SPDX-License-Identifier: Apache-2.0
 *
 * test_cuda_prefill.c: attention of prompts and their chunks on the GPU, tiled and materialised, against the reference.
 *
 * Shapes here have MIN_ROWS rows a segment or more, on average: so the calls go to attention_prefill.cu and to
 * attention_scores_tile.cu. That the latter takes them only its rounding of weights shows: see
 * only_tiles_round_weights.
 *
 * Tolerance: weights and results are rounded to bf16 (2^-9 each) where the reference has f64; sums of some hundred
 * such errors of either sign stay below 5e-3 of the norm. Elements are averages of values below 1: 2e-2 of 1.
 */
#include <check.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cuda_test.h"

enum { LAYER = 1, N_LAYERS = 2, MIN_ROWS = 32 };

struct part {
	int32_t prior, rows, pad; /* the last `pad` rows are PAD */
	bool redo;                /* the first row is the last of the prior ones again */
};

struct shape {
	int32_t heads, kv_heads, dim,
		block; /* block 0: whole sequences, in an odd number of slots */
};

/* Slots that no segment reaches, and rows of the pool that belong to nobody, are NaN. */
struct world {
	struct both b;
	struct nx_kv kv;
	struct nx_rows rows;
	struct nx_seq_state state;
	struct nx_segment *segments;
	int32_t *len, *table, *seq, *slot_off, *kind, *zero;
};

/* K of a slot; V is v_offset further on. */
static uint8_t *row_at(const struct world *w, int32_t seq, int32_t slot)
{
	int32_t first = w->table[seq * w->kv.table_stride + slot / w->kv.block_size];
	return w->kv.base + LAYER * w->kv.layer_bytes +
	       (first + slot % w->kv.block_size) * w->kv.row_bytes;
}

/* x is a bf16's value. */
static void put(void *to, int64_t i, float x)
{
	memcpy((uint8_t *)to + i * 2, (const uint8_t *)&x + 2, 2);
}

static void put_slot(const struct world *w, int32_t seq, int32_t slot, uint64_t salt)
{
	uint8_t *row = row_at(w, seq, slot);
	for (int part = 0; part < 2; part++, row += w->kv.v_offset)
		for (int32_t i = 0; i < w->kv.n_kv_heads * w->kv.head_dim; i++)
			put(row, i,
			    to_bf16(noise(salt + (uint64_t)(seq * 2 + part),
			                  (uint64_t)slot << 20 | (uint64_t)i)));
}

static void world_open(struct world *w, const struct shape *s, const struct part *parts, int32_t n,
                       uint64_t salt, bool invariant)
{
	memset(w, 0, sizeof(*w));
	both_open(&w->b, NX_BF16, invariant);
	int32_t n_rows = 0, most = 0;
	for (int32_t i = 0; i < n; i++) {
		int32_t keys = parts[i].prior + parts[i].rows - parts[i].redo;
		n_rows += parts[i].rows;
		most = keys > most ? keys : most;
	}
	int32_t block = s->block ? s->block : most | 1, blocks = (most + block - 1) / block;
	int64_t row_bytes = (int64_t)s->kv_heads * s->dim * 2,
		plane = ((int64_t)n * blocks + 3) * block * row_bytes;
	w->len = both_mem(&w->b, sizeof(int32_t) * (size_t)n);
	w->table = both_mem(&w->b, sizeof(int32_t) * (size_t)(n * blocks)); /* -1: none */
	w->segments = both_mem(&w->b, sizeof(*w->segments) * (size_t)n);
	w->seq = both_mem(&w->b, sizeof(int32_t) * (size_t)n_rows);
	w->slot_off = both_mem(&w->b, sizeof(int32_t) * (size_t)n_rows);
	w->kind = both_mem(&w->b, sizeof(int32_t) * (size_t)n_rows);
	w->zero = both_mem(&w->b, sizeof(int32_t) * (size_t)n_rows);
	memset(w->zero, 0, sizeof(int32_t) * (size_t)n_rows);
	w->kv = (struct nx_kv){.codec = NX_KV_BF16,
	                       .plain = NX_BF16,
	                       .n_layers = N_LAYERS,
	                       .n_kv_heads = s->kv_heads,
	                       .head_dim = s->dim,
	                       .block_size = block,
	                       .table_stride = blocks,
	                       .table = w->table,
	                       .base = both_mem(&w->b, (size_t)(2 * N_LAYERS * plane)),
	                       .layer_bytes = 2 * plane,
	                       .row_bytes = row_bytes,
	                       .v_offset = plane,
	                       .window = 1};
	w->state = (struct nx_seq_state){.max_seqs = n, .len = w->len};
	int32_t next_block = n * blocks + 2; /* downwards: neighbours in a sequence lie apart */
	for (int32_t i = 0, row = 0; i < n; i++) {
		const struct part *p = &parts[i];
		int32_t seq = n - 1 - i, keys = p->prior + p->rows - p->redo;
		w->len[seq] = p->prior;
		w->segments[i] = (struct nx_segment){seq, row, p->rows, keys};
		for (int32_t slot = 0; slot < keys; slot++) {
			if (slot % block == 0)
				w->table[seq * blocks + slot / block] = next_block-- * block;
			put_slot(w, seq, slot, salt * 1000);
		}
		for (int32_t r = 0; r < p->rows; r++, row++) {
			w->seq[row] = seq;
			w->slot_off[row] = r - p->redo;
			w->kind[row] = r >= p->rows - p->pad ? NX_ROW_PAD
			               : r == 0 && p->redo   ? NX_ROW_REDO
			                                     : NX_ROW_COMMIT;
		}
	}
	w->rows = (struct nx_rows){.n_rows = n_rows,
	                           .n_segments = n,
	                           .max_keys = most + 5, /* a bound */
	                           .seq = w->seq,
	                           .token = w->zero,
	                           .slot_off = w->slot_off,
	                           .pos_off = w->slot_off,
	                           .kind = w->kind,
	                           .scratch = w->zero,
	                           .n_anc = w->zero,
	                           .segments = w->segments};
}

static int64_t stride_of(const struct shape *s)
{
	return (int64_t)(s->heads + 2 * s->kv_heads) * s->dim;
}

/* One backend; what lies behind the workspace stays as it is. */
static void attend(struct world *w, const struct shape *s, struct rig *rig,
                   enum nx_attn_kernel kernel, const void *q, void *out)
{
	enum { BEHIND = 64 };
	struct nx_attention a = {.rows = &w->rows,
	                         .state = &w->state,
	                         .kv = &w->kv,
	                         .layer = LAYER,
	                         .n_heads = s->heads,
	                         .scale = 1 / sqrtf((float)s->dim),
	                         .q_stride = stride_of(s),
	                         .kernel = kernel,
	                         .kv_chunk = 256,
	                         .q = q,
	                         .out = out};
	a.workspace_bytes = rig->ops->attention_workspace(rig->dev, kernel, a.kv_chunk, s->heads,
	                                                  s->dim, w->rows.n_rows, w->rows.max_keys);
	uint8_t *workspace = both_mem(&w->b, a.workspace_bytes + BEHIND);
	a.workspace = workspace;
	ck_assert_int_ge(w->rows.n_rows, MIN_ROWS * w->rows.n_segments);
	rig_ok(rig, rig->ops->attention(rig->dev, NULL, &a, &rig->err));
	for (int i = 0; i < BEHIND; i++)
		ck_assert_msg(workspace[a.workspace_bytes + (size_t)i] == 0xff,
		              "the workspace's end is written over");
}

/* Both backends over rows whose q lie among k and v, as products leave them. */
static void compare(struct world *w, const struct shape *s, uint64_t salt, float loud,
                    const char *what)
{
	char text[128];
	struct both_act q = both_act(&w->b, w->rows.n_rows * stride_of(s), salt, loud);
	struct both_act out = both_act(&w->b, (int64_t)w->rows.n_rows * s->heads * s->dim, 0, 0);
	attend(w, s, &w->b.gpu, NX_ATTN_TILED, q.gpu, out.gpu);
	attend(w, s, &w->b.cpu, NX_ATTN_TILED, q.cpu, out.cpu);
	both_compare(&w->b, &out, 5e-3, 2e-2, what);
	memset(out.gpu, 0xff, (size_t)out.n * nx_dtype_bytes(NX_BF16));
	attend(w, s, &w->b.gpu, NX_ATTN_MATERIALISED, q.gpu, out.gpu);
	snprintf(text, sizeof(text), "materialised, %s", what);
	both_compare(&w->b, &out, 5e-3, 2e-2, text);
}

static void run(const struct shape *s, const struct part *parts, int32_t n, uint64_t salt,
                float loud)
{
	struct world w;
	char what[96];
	snprintf(what, sizeof(what), "%d/%d heads of %d, blocks of %d, %d segments", s->heads,
	         s->kv_heads, s->dim, s->block, n);
	world_open(&w, s, parts, n, salt, false);
	compare(&w, s, salt, loud, what);
	both_close(&w.b);
}

static const struct shape shapes[] = {
	{4, 4, 128, 1},   {4, 1, 128, 3},   {3, 1, 128, 8}, {2, 1, 128, 16}, {4, 1, 128, 64},
	{3, 3, 128, 0},   {4, 1, 64, 1},    {3, 1, 64, 3},  {4, 4, 64, 8},   {8, 2, 64, 16},
	{3, 1, 64, 64},   {4, 1, 64, 0},    {2, 2, 64, 40}, {2, 1, 128, 40}, {1, 1, 64, 600},
	{2, 1, 128, 600}, {2, 1, 128, 2048}};
#define N_SHAPES ((int)(sizeof(shapes) / sizeof(shapes[0])))

START_TEST(segments_of_all_sizes_match_the_reference)
{
	static const int32_t rows[] = {33, 64, 127, 128, 129, 300, 1000};
	static const int32_t prior[] = {0, 1, 17, 255, 700};
	struct part parts[7];
	for (int i = 0; i < 7; i++) {
		int32_t before = prior[(i + _i) % 5];
		parts[i] = (struct part){before, rows[i], i % 3 == 1 ? 5 : 0, before > 0 && i % 2};
	}
	/* The long one in every second shape: the reference takes its time. */
	run(&shapes[_i], parts, _i % 2 ? 7 : 6, 11 + (uint64_t)_i, 3);
}
END_TEST

/* Tiles that are nearly empty, nearly full and just over, first and among others. Rows of scores are of all lengths
 * modulo 4: at multiples of 16 bytes they are read in another way. */
static const struct shape odd_shapes[] = {{32, 8, 128, 16}, {32, 32, 64, 128}, {8, 2, 64, 1},
                                          {4, 4, 128, 8},   {6, 2, 128, 0},    {4, 1, 64, 128},
                                          {4, 4, 128, 128}};
#define N_ODD_SHAPES ((int)(sizeof(odd_shapes) / sizeof(odd_shapes[0])))

START_TEST(segments_of_odd_sizes_match_the_reference)
{
	static const int32_t rows[] = {1, 17, 63, 65, 129, 200};
	static const int32_t prior[] = {0, 5, 64, 190, 31};
	struct part parts[6];
	for (int i = 0; i < 6; i++) {
		int32_t before = i == 4 ? 270 + _i % 3 : prior[(i + _i) % 5];
		parts[i] = (struct part){before, rows[(i + _i) % 6], i == 3 ? 1 : 0,
		                         before > 0 && i == 1};
	}
	parts[5].prior = 483 + _i % 4 - parts[5].rows;
	run(&odd_shapes[_i], parts, 6, 41 + (uint64_t)_i, 3);
}
END_TEST

START_TEST(more_segments_than_lanes_of_a_warp)
{
	struct part parts[70];
	struct shape s = {2, 1, _i ? 128 : 64, 16};
	for (int i = 0; i < 70; i++)
		parts[i] = (struct part){i * 7 % 150, 33 + i % 20, 0, false};
	run(&s, parts, 70, 99, 3);
}
END_TEST

/* Scores far apart: the greatest comes first for some rows, last for others. */
START_TEST(sharp_weights)
{
	struct part parts[2] = {{300, 200, 0, false}, {0, 150, 0, false}};
	struct shape s = {2, 1, _i ? 128 : 64, 64};
	run(&s, parts, 2, 7, 60);
}
END_TEST

/* In row 1 of a prompt key 0 weighs more than key 1 by less than bf16 tells from a half, and their values cancel: rounded
 * weights leave exactly nothing. So it is seen which kernels ran. Invariant mode keeps to those that round none. */
START_TEST(only_tiles_round_weights)
{
	struct shape s = {2, 1, _i % 2 ? 128 : 64, 16};
	struct part part = {0, 2 * MIN_ROWS, 0, false};
	struct world w;
	bool invariant = _i / 2;
	const float k0 = 1.0f / 64;
	world_open(&w, &s, &part, 1, 5, invariant);
	for (int32_t slot = 0; slot < 2; slot++) {
		uint8_t *k = row_at(&w, 0, slot);
		memset(k, 0, (size_t)w.kv.row_bytes);
		put(k, 0, slot ? 0 : k0);
		for (int32_t i = 0; i < s.dim; i++)
			put(k + w.kv.v_offset, i, slot ? -1 : 1);
	}
	struct both_act q = both_act(&w.b, w.rows.n_rows * stride_of(&s), 0, 0);
	struct both_act out = both_act(&w.b, (int64_t)w.rows.n_rows * s.heads * s.dim, 0, 0);
	memset(q.gpu, 0, (size_t)q.n * nx_dtype_bytes(NX_BF16));
	for (int32_t h = 0; h < s.heads; h++)
		put(q.gpu, stride_of(&s) + h * s.dim, 1);
	attend(&w, &s, &w.b.gpu, NX_ATTN_MATERIALISED, q.gpu, out.gpu);
	/* 1 / (1 + exp(-x)) - 1 / (1 + exp(x)) */
	double want = invariant ? tanh(k0 / sqrt(s.dim) / 2) : 0;
	for (int32_t i = 0; i < s.heads * s.dim; i++) {
		double x = both_get(&w.b, &out, (int64_t)s.heads * s.dim + i);
		ck_assert_msg(fabs(x - want) <= want / 100, "dim %d%s: %g, want %g", s.dim,
		              invariant ? ", invariant" : "", x, want);
	}
	both_close(&w.b);
}
END_TEST

int main(void)
{
	both_need_gpu();
	Suite *s = suite_create("cuda prefill");
	TCase *tc = tcase_create("prefill");
	tcase_set_timeout(tc, 300);
	tcase_add_loop_test(tc, segments_of_all_sizes_match_the_reference, 0, N_SHAPES);
	tcase_add_loop_test(tc, segments_of_odd_sizes_match_the_reference, 0, N_ODD_SHAPES);
	tcase_add_loop_test(tc, more_segments_than_lanes_of_a_warp, 0, 2);
	tcase_add_loop_test(tc, sharp_weights, 0, 2);
	tcase_add_loop_test(tc, only_tiles_round_weights, 0, 4);
	suite_add_tcase(s, tc);
	return both_run(s);
}
