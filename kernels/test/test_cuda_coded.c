/* SPDX-License-Identifier: Apache-2.0
 *
 * test_cuda_coded.c: the device's KV codecs: rows stored, attended and drafted on both backends, step by step, from
 * the same projections. Codes are the same on both, so only the sums of attention may differ.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cuda_test.h"
#include "nexus_kernels/kv_codec.h"

enum { SEQS = 3, CAP = 6 };

static const struct shape {
	enum nx_kv_codec codec;
	int32_t dim, group, window, block, heads, kv_heads, tokens;
} shapes[] = {
	{NX_KV_INT8, 16, 16, 1, 1, 4, 2, 200},     {NX_KV_INT8, 64, 32, 1, 16, 4, 2, 200},
	{NX_KV_INT8, 128, 128, 1, 256, 4, 2, 200}, {NX_KV_INT4, 16, 16, 1, 7, 4, 2, 200},
	{NX_KV_INT4, 96, 32, 1, 16, 4, 2, 200},    {NX_KV_INT4, 128, 64, 1, 32, 4, 2, 200},
	{NX_KV_E4M3, 32, 32, 1, 16, 4, 2, 200},    {NX_KV_E4M3, 80, 16, 1, 256, 4, 2, 200},
	{NX_KV_E5M2, 64, 64, 1, 8, 4, 2, 200},     {NX_KV_E4M3, 256, 256, 1, 16, 4, 2, 200},
	{NX_KV_KIVI4, 16, 16, 16, 16, 4, 2, 200},  {NX_KV_KIVI4, 64, 32, 64, 64, 4, 2, 200},
	{NX_KV_KIVI4, 48, 16, 32, 256, 4, 2, 200}, {NX_KV_KIVI2, 32, 16, 16, 32, 4, 2, 200},
	{NX_KV_KIVI2, 128, 32, 32, 32, 4, 2, 200}, {NX_KV_KIVI4, 128, 64, 128, 128, 4, 2, 200},
};
#define N_SHAPES ((int)(sizeof(shapes) / sizeof(shapes[0])))

/* Of a group a head, which tensor cores take outside invariant mode: whole heads of a tile, and keys for one CTA, for
 * clusters of them and for runs. */
static const struct shape whole[] = {
	{NX_KV_INT8, 128, 128, 1, 16, 4, 2, 200},   {NX_KV_INT8, 64, 64, 1, 1, 8, 1, 200},
	{NX_KV_INT8, 128, 128, 1, 7, 16, 1, 1500},  {NX_KV_INT8, 64, 64, 1, 256, 96, 96, 700},
	{NX_KV_INT4, 128, 128, 1, 16, 4, 2, 200},   {NX_KV_INT4, 64, 64, 1, 1, 16, 1, 200},
	{NX_KV_INT4, 128, 128, 1, 32, 96, 96, 700}, {NX_KV_INT4, 64, 64, 1, 16, 15, 5, 3000},
	{NX_KV_E4M3, 128, 128, 1, 16, 4, 2, 200},   {NX_KV_E4M3, 64, 64, 1, 8, 180, 90, 700},
	{NX_KV_E5M2, 128, 128, 1, 16, 12, 1, 2000}, {NX_KV_E5M2, 64, 64, 1, 16, 4, 4, 200},
};
#define N_WHOLE ((int)(sizeof(whole) / sizeof(whole[0])))

struct side {
	struct nx_kv kv;
	int32_t *len;
	uint8_t *pool, *win, *scratch;
	size_t pool_bytes;
};

struct world {
	struct both b;
	const struct shape *s;
	struct side side[2]; /* gpu, cpu */
	int32_t *ints, *table, *last;
	uint64_t salt;
};

static void side_open(struct world *w, struct side *e, enum nx_dtype plain)
{
	const struct shape *s = w->s;
	int32_t blocks = (s->tokens + s->block - 1) / s->block, rows = SEQS * blocks * s->block;
	int64_t row = nx_kv_coded_row_bytes(s->codec, s->kv_heads, s->dim, s->group);
	int64_t plain_row = s->kv_heads * s->dim * (int64_t)nx_dtype_bytes(plain);
	int64_t scratch_row = s->window > 1 ? plain_row : row;
	e->pool_bytes = (size_t)(4 * rows * row);
	e->pool = both_mem(&w->b, e->pool_bytes);
	e->win = both_mem(&w->b, (size_t)(4 * SEQS * s->window * plain_row));
	e->scratch = both_mem(&w->b, (size_t)(4 * SEQS * CAP * scratch_row));
	e->len = both_mem(&w->b, SEQS * sizeof(int32_t));
	memset(e->len, 0, SEQS * sizeof(int32_t));
	e->kv = (struct nx_kv){.codec = s->codec,
	                       .plain = plain,
	                       .n_layers = 2,
	                       .n_kv_heads = s->kv_heads,
	                       .head_dim = s->dim,
	                       .block_size = s->block,
	                       .table_stride = blocks,
	                       .table = w->table,
	                       .base = e->pool,
	                       .layer_bytes = 2 * rows * row,
	                       .row_bytes = row,
	                       .v_offset = rows * row,
	                       .scratch = e->scratch,
	                       .scratch_layer_bytes = 2 * SEQS * CAP * scratch_row,
	                       .scratch_row_bytes = scratch_row,
	                       .scratch_v_offset = SEQS * CAP * scratch_row,
	                       .scratch_cap = CAP,
	                       .window = s->window,
	                       .group_size = s->group,
	                       .win = e->win,
	                       .win_layer_bytes = 2 * SEQS * s->window * plain_row,
	                       .win_v_offset = SEQS * s->window * plain_row};
}

static void world_open(struct world *w, const struct shape *s, enum nx_dtype dtype, bool invariant)
{
	int32_t blocks = (s->tokens + s->block - 1) / s->block;
	memset(w, 0, sizeof(*w));
	both_open(&w->b, dtype, invariant);
	w->s = s;
	w->salt = 1;
	w->table = both_mem(&w->b, sizeof(int32_t) * (size_t)(SEQS * blocks));
	w->last = both_mem(&w->b, sizeof(int32_t) * SEQS);
	w->ints = both_mem(&w->b, sizeof(int32_t) * 16 * 1024);
	for (int32_t i = 0; i < SEQS * blocks; i++) /* neighbours lie apart */
		w->table[i % SEQS * blocks + i / SEQS] = (SEQS * blocks - 1 - i) * s->block;
	side_open(w, &w->side[0], dtype);
	side_open(w, &w->side[1], dtype);
}

static const enum nx_attn_kernel tiled = NX_ATTN_TILED, materialised = NX_ATTN_MATERIALISED;

/* A step: n[q] COMMIT rows for each sequence and drafted ones behind them, a chain, of which some are accepted.
 * kernel NULL: rows are stored, and nobody looks. */
static void step(struct world *w, const int32_t *n, int32_t drafted, int32_t accepted,
                 const enum nx_attn_kernel *kernel, int32_t layer)
{
	int32_t total = 0, n_segs = 0, most = 0, dim = w->s->dim, heads = w->s->heads;
	int32_t width = heads + 2 * w->s->kv_heads;
	int32_t *at = w->ints, *seq = at, *off = at + 1024, *kind = at + 2048, *scratch = at + 3072,
		*n_anc = at + 4096, *anc = at + 5120; /* [rows, CAP] */
	struct nx_segment *segs = (struct nx_segment *)(void *)(at + 12 * 1024);
	struct nx_emit *emit = (struct nx_emit *)(void *)(at + 13 * 1024);
	int32_t *path = at + 14 * 1024, *took = path + 64, *tokens = took + 8;
	int32_t stride = CAP + 1;
	memset(emit, 0, sizeof(*emit) * SEQS);
	for (int32_t q = 0; q < SEQS; q++) {
		int32_t first = total, all = n[q] + (n[q] ? drafted : 0);
		for (int32_t i = 0; i < all; i++, total++) {
			bool draft = i >= n[q];
			int32_t depth = i - n[q] + 1;
			seq[total] = q;
			off[total] = i;
			kind[total] = draft ? NX_ROW_CANDIDATE : NX_ROW_COMMIT;
			scratch[total] = draft ? depth - 1 : -1;
			n_anc[total] = draft ? depth : 0;
			for (int32_t j = 0; j < CAP; j++)
				anc[total * CAP + j] = j;
		}
		int32_t keys = w->side[0].len[q] + all;
		if (all)
			segs[n_segs++] = (struct nx_segment){q, first, all, keys};
		most = keys > most ? keys : most;
		for (int32_t j = 0; j < CAP; j++)
			path[q * stride + j] = j;
		took[q] = all ? accepted : 0;
		emit[q] = (struct nx_emit){.logit_row = 0,
		                           .seq = q,
		                           .src_seq = q,
		                           .pos_off = n[q],
		                           .n_draft = all ? drafted : 0};
	}
	struct nx_rows rows = {.n_rows = total,
	                       .n_segments = n_segs,
	                       .anc_stride = CAP,
	                       .max_keys = most,
	                       .seq = seq,
	                       .token = kind,
	                       .slot_off = off,
	                       .pos_off = off,
	                       .kind = kind,
	                       .scratch = scratch,
	                       .n_anc = n_anc,
	                       .anc = anc,
	                       .segments = segs};
	struct both_act qkv = both_act(&w->b, (int64_t)total * width * dim, w->salt++, 2);
	struct both_act out = both_act(&w->b, kernel ? (int64_t)total * heads * dim : 1, 0, 1);
	for (int i = 0; i < 2; i++) {
		struct rig *r = i ? &w->b.cpu : &w->b.gpu;
		struct side *e = &w->side[i];
		struct nx_seq_state state = {SEQS, e->len, w->last};
		struct nx_verdict v = {stride, tokens, took, path};
		void *x = i ? (void *)qkv.cpu : qkv.gpu;
		struct nx_rope_store rope = {.rows = &rows,
		                             .state = &state,
		                             .kv = &e->kv,
		                             .layer = layer,
		                             .n_heads = heads,
		                             .qkv = x};
		rig_ok(r, r->ops->rope_store(r->dev, NULL, &rope, &r->err));
		if (kernel) {
			size_t bytes = r->ops->attention_workspace(r->dev, *kernel, 32, heads, dim,
			                                           total, most);
			struct nx_attention a = {.rows = &rows,
			                         .state = &state,
			                         .kv = &e->kv,
			                         .layer = layer,
			                         .n_heads = heads,
			                         .scale = 0.25f,
			                         .q = x,
			                         .q_stride = width * dim,
			                         .out = i ? (void *)out.cpu : out.gpu,
			                         .kernel = *kernel,
			                         .kv_chunk = 32,
			                         .workspace = r->ops->alloc(r->dev, bytes + 64),
			                         .workspace_bytes = bytes};
			rig_ok(r, r->ops->attention(r->dev, NULL, &a, &r->err));
			r->ops->free(r->dev, a.workspace, bytes + 64);
		}
		if (drafted)
			rig_ok(r, r->ops->kv_compact(r->dev, NULL, &e->kv, &state, emit, SEQS, &v,
			                             &r->err));
		for (int32_t q = 0; q < SEQS; q++)
			e->len[q] += n[q] + took[q];
	}
	if (!kernel)
		return;
	char what[96];
	snprintf(what, sizeof(what), "codec %d dim %d, step %llu, %d drafted", (int)w->s->codec,
	         dim, (unsigned long long)w->salt, drafted);
	double tol = w->b.dtype == NX_F32 ? 2e-5 : 8e-3;
	both_compare(&w->b, &out, tol, 5 * tol, what);
}

START_TEST(both_see_the_same)
{
	struct world w;
	world_open(&w, &shapes[_i / 2], _i % 2 ? NX_BF16 : NX_F32, true);
	static const int32_t first[] = {70, 1, 33}, more[] = {1, 31, 15}, one[] = {1, 1, 1},
			     some[] = {37, 0, 2};
	/* Drafts end within a group: at most as many rows as the codec rule lets through. */
	for (int k = 0; k < 2; k++) {
		const enum nx_attn_kernel *kernel = k ? &tiled : &materialised;
		for (int i = 0; i < 2; i++)
			memset(w.side[i].len, 0, SEQS * sizeof(int32_t));
		step(&w, first, 0, 0, kernel, 1);
		step(&w, more, 0, 0, kernel, 1);
		step(&w, one, 0, 0, kernel, 1);
		step(&w, some, 0, 0, kernel, 1);
		step(&w, one, 0, 0, kernel, 1);
		if (w.s->window == 1) {
			step(&w, one, 5, 3, kernel, 1);
			step(&w, one, 2, 0, kernel, 1);
			step(&w, some, 0, 0, kernel, 1);
			step(&w, one, 0, 0, kernel, 1);
			continue;
		}
		/* Up to a few rows before a group's end, and over it by an accepted draft. */
		int32_t fill[SEQS], left = w.s->window;
		for (int32_t q = 0; q < SEQS; q++)
			fill[q] = (left - w.side[0].len[q] % left + left - 4) % left;
		step(&w, fill, 0, 0, kernel, 1);
		for (int32_t q = 0; q < SEQS; q++)
			ck_assert_int_eq(w.side[0].len[q] % left, left - 4);
		step(&w, one, 3, 3, kernel, 1);
		step(&w, one, 0, 0, kernel, 1);
		step(&w, more, 0, 0, kernel, 1);
	}
	both_close(&w.b);
}
END_TEST

/* Sequences have `to` tokens of any codes; a group's values lie within a few units. */
static void fill(struct world *w, const int32_t *to)
{
	const struct shape *s = w->s;
	const struct nx_kv *kv = &w->side[0].kv;
	uint8_t *layer = kv->base + kv->layer_bytes;
	int64_t codes = s->kv_heads * nx_kv_head_bytes(s->codec, s->dim);
	uint32_t x = 2463534242u;
	for (int64_t row = 0; row < kv->layer_bytes / kv->row_bytes; row++) {
		uint8_t *p = layer + row * kv->row_bytes;
		for (int64_t i = 0; i < codes; i++) {
			x ^= x << 13;
			x ^= x >> 17;
			x ^= x << 5;
			p[i] = (uint8_t)(x >> 8);
			if (nx_kv_is_fp8(s->codec) && (p[i] & 0x7cu) == 0x7cu)
				p[i] &= 0x83u; /* no NaN, no infinity */
		}
		for (int32_t h = 0; h < s->kv_heads; h++) {
			float hi = 1 + (float)(x >> 16 & 15) * 0.25f;
			x = x * 1664525u + 1013904223u;
			uint32_t group = nx_kv_group_of(s->codec, hi - 4, hi);
			memcpy(p + codes + 4 * h, &group, sizeof(group));
		}
	}
	memcpy(w->side[1].kv.base + kv->layer_bytes, layer, (size_t)kv->layer_bytes);
	for (int q = 0; q < SEQS; q++)
		w->side[0].len[q] = w->side[1].len[q] = to[q];
}

/* Prompted, decoded, verified. */
START_TEST(groups_of_whole_heads)
{
	struct world w;
	world_open(&w, &whole[_i], NX_BF16, false);
	static const int32_t one[] = {1, 1, 1}, some[] = {9, 0, 2}, two[] = {0, 1, 1};
	int32_t most = w.s->tokens, first[] = {most - 90, 1, most / 3};
	if (most > 200)
		fill(&w, first);
	else
		step(&w, first, 0, 0, &tiled, 1);
	step(&w, one, 0, 0, &tiled, 1);
	step(&w, two, 0, 0, &tiled, 1);
	step(&w, some, 0, 0, &tiled, 1);
	step(&w, one, 5, 3, &tiled, 1);
	step(&w, one, 2, 0, &tiled, 1);
	step(&w, two, 6, 6, &tiled, 1);
	step(&w, one, 0, 0, &tiled, 1);
	both_close(&w.b);
}
END_TEST

int main(void)
{
	both_need_gpu();
	Suite *s = suite_create("cuda_coded");
	TCase *tc = tcase_create("coded");
	tcase_set_timeout(tc, 120);
	tcase_add_loop_test(tc, both_see_the_same, 0, 2 * N_SHAPES);
	tcase_add_loop_test(tc, groups_of_whole_heads, 0, N_WHOLE);
	suite_add_tcase(s, tc);
	return both_run(s);
}
