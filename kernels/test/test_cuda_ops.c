/* SPDX-License-Identifier: Apache-2.0
 *
 * test_cuda_ops.c: rmsnorm, gather, rope_store, commit and draft_rows beside the CPU's.
 */
#include <check.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "cuda_test.h"

static uint32_t pick(uint64_t a, uint64_t b, uint32_t n)
{
	return (uint32_t)((noise(a, b) + 1) * 0.5f * (float)n) % n;
}

static float *floats(struct both *b, int64_t n, uint64_t salt)
{
	float *p = both_mem(b, (size_t)n * sizeof(*p));
	for (int64_t i = 0; i < n; i++)
		p[i] = noise(salt, (uint64_t)i);
	return p;
}

/* ---- rmsnorm, gather */

static const int32_t widths[] = {1, 7, 16, 33, 64, 200, 576, 2048, 4096, 8192, 16384, 16392};
#define N_WIDTHS ((int)(sizeof(widths) / sizeof(widths[0])))

/* _i: the width. A roundoff of f32 per element, or half a unit of bf16 (2^-9). */
START_TEST(rmsnorm_is_the_references)
{
	static const int32_t many[] = {1, 2, 3, 17, 600};
	const int32_t cols = widths[_i];
	for (int dtype = 0; dtype < 2; dtype++) {
		struct both b;
		both_open(&b, (enum nx_dtype)dtype, true);
		for (size_t m = 0; m < sizeof(many) / sizeof(many[0]); m++) {
			const int32_t rows = many[m];
			const size_t n = (size_t)rows * (size_t)cols;
			if (n > 1300000)
				continue;
			struct both_act x = both_act(&b, (int64_t)n, 3 + m, 3),
					y = both_act(&b, (int64_t)n, 0, 0);
			float *w = floats(&b, cols, 9);
			rig_ok(&b.gpu, b.gpu.ops->rmsnorm(b.gpu.dev, NULL, y.gpu, x.gpu, w, rows,
			                                  cols, 1e-5f, &b.gpu.err));
			rig_ok(&b.cpu, b.cpu.ops->rmsnorm(b.cpu.dev, NULL, y.cpu, x.cpu, w, rows,
			                                  cols, 1e-5f, &b.cpu.err));
			both_compare(&b, &y, dtype ? 3e-3 : 2e-6, dtype ? 2e-2 : 2e-4, "rmsnorm");
			/* a row's bits are its own: the last one alone, and in place */
			size_t bytes = (size_t)cols * nx_dtype_bytes(b.dtype),
			       at = (size_t)(rows - 1) * bytes;
			rig_ok(&b.gpu, b.gpu.ops->rmsnorm(b.gpu.dev, NULL, (uint8_t *)x.gpu + at,
			                                  (uint8_t *)x.gpu + at, w, 1, cols, 1e-5f,
			                                  &b.gpu.err));
			if (at % 16 == 0) /* else it goes another way, in another order */
				ck_assert(!memcmp((uint8_t *)x.gpu + at, (uint8_t *)y.gpu + at,
				                  bytes));
		}
		both_close(&b);
	}
}
END_TEST

START_TEST(gather_copies_rows)
{
	for (int dtype = 0; dtype < 2; dtype++) {
		struct both b;
		both_open(&b, (enum nx_dtype)dtype, false);
		for (int w = 0; w < N_WIDTHS; w++) {
			enum { ROWS = 9, N = 5 };
			int32_t cols = widths[w];
			struct both_act x = both_act(&b, (int64_t)ROWS * cols, 4, 1),
					y = both_act(&b, (int64_t)N * cols, 0, 0);
			int32_t *index = both_mem(&b, N * sizeof(*index));
			for (int i = 0; i < N; i++)
				index[i] = (int32_t)pick(5, (uint64_t)i, ROWS);
			rig_ok(&b.gpu, b.gpu.ops->gather(b.gpu.dev, NULL, y.gpu, x.gpu, index, N,
			                                 cols, &b.gpu.err));
			rig_ok(&b.cpu, b.cpu.ops->gather(b.cpu.dev, NULL, y.cpu, x.cpu, index, N,
			                                 cols, &b.cpu.err));
			both_compare(&b, &y, 0, 0, "gather");
		}
		both_close(&b);
	}
}
END_TEST

/* ---- rope_store */

enum { BIAS = 1, NORM = 2, SEQS = 3, BLOCK = 8, STRIDE = 8, CAP = 5 };

static const struct shape {
	int32_t heads, kv_heads, dim, rope_dim, rows, len;
} shapes[] = {
	{1, 1, 2, 2, 1, 0},       {4, 2, 16, 16, 5, 3},     {7, 7, 10, 6, 3, 9},
	{8, 1, 64, 64, 9, 20},    {14, 2, 64, 32, 2, 40},   {3, 3, 34, 2, 17, 4},
	{32, 8, 128, 128, 1, 30}, {32, 8, 128, 128, 40, 2}, {2, 1, 256, 128, 2, 7},
	{5, 5, 96, 96, 3, 1},     {1, 1, 3, 2, 4, 1},       {16, 16, 128, 0, 700, 0},
};
#define N_SHAPES ((int)(sizeof(shapes) / sizeof(shapes[0])))

struct rope_world {
	struct nx_rows rows;
	struct nx_seq_state state;
	struct nx_kv gpu, cpu;
	size_t pool, scratch;
	int32_t *kind, *slot_off, *scratch_row;
};

static void rope_init(struct both *b, struct rope_world *w, const struct shape *s,
                      enum nx_kv_codec codec)
{
	int32_t *col = both_mem(b, (size_t)s->rows * 5 * sizeof(*col));
	int32_t *seq = col, *kind = seq + s->rows, *slot = kind + s->rows, *pos = slot + s->rows,
		*scratch = pos + s->rows, *len = both_mem(b, SEQS * sizeof(*len));
	int32_t *table = both_mem(b, SEQS * STRIDE * 4 * sizeof(*table));
	int32_t blocks = STRIDE * (s->rows > 100 ? 4 : 1), next[SEQS] = {0};
	for (int32_t i = 0; i < SEQS * blocks; i++)
		table[i] = (SEQS * blocks - 1 - i) * BLOCK;
	for (int32_t r = 0; r < s->rows; r++) {
		static const int32_t kinds[] = {NX_ROW_COMMIT, NX_ROW_CANDIDATE, NX_ROW_PAD,
		                                NX_ROW_REDO, NX_ROW_PROBE};
		int32_t q = r % SEQS;
		kind[r] = kinds[(r / SEQS) % 5];
		if ((kind[r] == NX_ROW_CANDIDATE || kind[r] == NX_ROW_PROBE) && next[q] / 2 >= CAP)
			kind[r] = NX_ROW_COMMIT;
		seq[r] = q;
		slot[r] = next[q]++; /* two drafted rows never share a scratch row */
		pos[r] = slot[r] + (r % 4 == 3 ? 90000 : 0);
		scratch[r] =
			kind[r] == NX_ROW_CANDIDATE || kind[r] == NX_ROW_PROBE ? slot[r] / 2 : -1;
	}
	for (int32_t q = 0; q < SEQS; q++)
		len[q] = s->len + q;
	w->kind = kind;
	w->slot_off = slot;
	w->scratch_row = scratch;
	w->rows = (struct nx_rows){.n_rows = s->rows,
	                           .seq = seq,
	                           .kind = kind,
	                           .slot_off = slot,
	                           .pos_off = pos,
	                           .scratch = scratch};
	w->state = (struct nx_seq_state){.max_seqs = SEQS, .len = len};
	int64_t part = (int64_t)s->kv_heads * s->dim * (codec == NX_KV_BF16 ? 2 : 4),
		pool = (int64_t)SEQS * blocks * BLOCK;
	w->gpu = (struct nx_kv){.codec = codec,
	                        .n_layers = 2,
	                        .n_kv_heads = s->kv_heads,
	                        .head_dim = s->dim,
	                        .block_size = BLOCK,
	                        .table_stride = blocks,
	                        .table = table,
	                        .layer_bytes = 2 * pool * part,
	                        .row_bytes = part,
	                        .v_offset = pool * part,
	                        .scratch_layer_bytes = 2 * SEQS * CAP * part,
	                        .scratch_row_bytes = part,
	                        .scratch_v_offset = SEQS * CAP * part,
	                        .scratch_cap = CAP,
	                        .window = 1};
	w->cpu = w->gpu;
	w->pool = (size_t)(4 * pool * part);
	w->scratch = (size_t)(4 * SEQS * CAP * part);
	w->gpu.base = both_mem(b, w->pool);
	w->cpu.base = both_mem(b, w->pool);
	w->gpu.scratch = both_mem(b, w->scratch);
	w->cpu.scratch = both_mem(b, w->scratch);
}

static double kv_at(enum nx_kv_codec codec, const uint8_t *p, size_t i)
{
	float f = 0;
	if (codec == NX_KV_F32)
		memcpy(&f, p + 4 * i, 4);
	else
		memcpy((uint8_t *)&f + 2, p + 2 * i, 2);
	return f;
}

/* Written in the same places, and near the same. */
static void kv_near(enum nx_kv_codec codec, const uint8_t *gpu, const uint8_t *cpu, size_t bytes,
                    double tol)
{
	size_t n = bytes / (codec == NX_KV_BF16 ? 2 : 4), written = 0;
	for (size_t i = 0; i < n; i++) {
		double g = kv_at(codec, gpu, i), c = kv_at(codec, cpu, i);
		if (isnan(g) != isnan(c) || fabs(g - c) > tol)
			ck_abort_msg("element %zu of %zu: %g, not %g", i, n, g, c);
		written += !isnan(c);
	}
	ck_assert(written < n); /* the other layer */
}

/* _i: the shape. */
START_TEST(rope_store_is_the_references)
{
	const struct shape *s = &shapes[_i];
	for (int dtype = 0; dtype < 2; dtype++)
		for (int codec = 0; codec < 3; codec++) {
			struct both b;
			both_open(&b, (enum nx_dtype)dtype, codec & 1);
			for (int parts = 0; parts < 4; parts++) {
				struct rope_world w;
				int64_t width = (int64_t)(s->heads + 2 * s->kv_heads) * s->dim;
				rope_init(&b, &w, s, (enum nx_kv_codec)codec);
				struct both_act x = both_act(&b, s->rows * width, 11, 1);
				float *bias = floats(&b, width, 12),
				      *q_norm = floats(&b, s->dim, 13),
				      *k_norm = floats(&b, s->dim, 14),
				      *freq = floats(&b, s->dim, 15);
				for (int32_t i = 0; i < s->rope_dim / 2; i++)
					freq[i] = (float)pow(1e4, -2.0 * i / s->rope_dim);
				struct nx_rope_store a = {.rows = &w.rows,
				                          .state = &w.state,
				                          .kv = &w.gpu,
				                          .layer = 1,
				                          .n_heads = s->heads,
				                          .rope_dim = s->rope_dim,
				                          .inv_freq = freq,
				                          .qkv = x.gpu,
				                          .bias = parts & BIAS ? bias : NULL,
				                          .q_norm = parts & NORM ? q_norm : NULL,
				                          .k_norm = parts & NORM ? k_norm : NULL,
				                          .norm_eps = 1e-6f};
				rig_ok(&b.gpu,
				       b.gpu.ops->rope_store(b.gpu.dev, NULL, &a, &b.gpu.err));
				a.kv = &w.cpu;
				a.qkv = x.cpu;
				rig_ok(&b.cpu,
				       b.cpu.ops->rope_store(b.cpu.dev, NULL, &a, &b.cpu.err));
				both_compare(&b, &x, dtype ? 3e-3 : 1e-6, dtype ? 4e-2 : 1e-5,
				             "rope_store");
				double tol = dtype || codec == NX_KV_BF16 ? 4e-2 : 1e-5;
				if (codec != NX_KV_OWN) {
					kv_near(codec, w.gpu.base, w.cpu.base, w.pool, tol);
					kv_near(codec, w.gpu.scratch, w.cpu.scratch, w.scratch,
					        tol);
				}
			}
			both_close(&b);
		}
}
END_TEST

START_TEST(rope_store_refuses_what_cannot_be)
{
	struct both b;
	struct rope_world w;
	const struct shape *s = &shapes[3];
	int64_t width = (int64_t)(s->heads + 2 * s->kv_heads) * s->dim;
	both_open(&b, NX_F32, false);
	rope_init(&b, &w, s, NX_KV_F32);
	struct both_act x = both_act(&b, s->rows * width, 11, 1);
	float *freq = floats(&b, s->dim, 15);
	struct nx_rope_store good = {.rows = &w.rows,
	                             .state = &w.state,
	                             .kv = &w.gpu,
	                             .layer = 1,
	                             .n_heads = s->heads,
	                             .rope_dim = s->rope_dim,
	                             .inv_freq = freq,
	                             .qkv = x.gpu},
			     a = good;
#define TRY() b.gpu.ops->rope_store(b.gpu.dev, NULL, &a, &b.gpu.err)
	a.rope_dim = 3;
	ck_assert_int_eq(TRY(), NX_EINVAL);
	a.rope_dim = s->dim + 2;
	ck_assert_int_eq(TRY(), NX_EINVAL);
	a = good;
	a.q_norm = freq;
	ck_assert_int_eq(TRY(), NX_EINVAL);
	a.k_norm = freq;
	ck_assert_int_eq(TRY(), NX_EINVAL); /* no epsilon */
	a = good;
	rig_ok(&b.gpu, TRY());
	w.slot_off[0] = BLOCK * STRIDE;
	ck_assert_int_eq(TRY(), NX_EBUG);
	ck_assert_ptr_nonnull(strstr(b.gpu.err.msg, "row 0 of sequence 0 has no block"));
	w.slot_off[0] = 0;
	rig_ok(&b.gpu, TRY()); /* said once */
	w.kind[0] = NX_ROW_CANDIDATE;
	w.scratch_row[0] = CAP;
	ck_assert_int_eq(TRY(), NX_EBUG);
#undef TRY
	both_close(&b);
}
END_TEST

/* ---- commit */

START_TEST(commits_take_effect_in_order)
{
	enum { MOST = 40, ENTRIES = 600, WIDE = 5 };
	struct both b;
	both_open(&b, NX_F32, false);
	int32_t *mem = both_mem(&b, sizeof(*mem) * MOST * (5 + WIDE));
	struct nx_commit *c = both_mem(&b, ENTRIES * sizeof(*c));
	int32_t *len = mem, *last = mem + MOST, *accepted = mem + 2 * MOST, *token = mem + 5 * MOST,
		len2[MOST], last2[MOST];
	struct nx_seq_state gpu = {MOST, len, last}, cpu = {MOST, len2, last2};
	struct nx_verdict v = {.stride = WIDE, .token = token, .n_accepted = accepted};
	for (uint64_t salt = 1; salt <= 300; salt++) {
		uint32_t seqs = salt % 3 ? MOST : 4; /* few: nearly all depend on others */
		int32_t n = 1 + (int32_t)pick(salt, 1, salt % 10 ? 30 : ENTRIES);
		for (uint32_t i = 0; i < MOST; i++) {
			len[i] = len2[i] = (int32_t)pick(salt, 10 + i, 1000);
			last[i] = last2[i] = (int32_t)i;
			accepted[i] = (int32_t)pick(salt, 100 + i, WIDE);
			for (uint32_t j = 0; j < WIDE; j++)
				token[i * WIDE + j] = (int32_t)(1000 * salt + i * WIDE + j);
		}
		for (int32_t i = 0; i < n; i++) {
			uint64_t at = 1000 + 4 * (uint64_t)i;
			c[i].seq = (int32_t)pick(salt, at, seqs);
			c[i].src_seq = pick(salt, at + 1, 2) ? c[i].seq
			                                     : (int32_t)pick(salt, at + 1, seqs);
			c[i].n_rows = (int32_t)pick(salt, at + 2, 50) - 5;
			c[i].emits = (int32_t)pick(salt, at + 3, 2);
		}
		if (salt % 7 == 0) { /* one that cannot be: what is before it counts */
			struct nx_commit *bad = &c[pick(salt, 7, (uint32_t)n)];
			bad->n_rows = salt % 2 ? -2000000 : bad->n_rows;
			bad->src_seq = salt % 2 ? bad->src_seq : MOST;
		}
		int rc = b.cpu.ops->commit(b.cpu.dev, NULL, c, n, &v, &cpu, &b.cpu.err);
		ck_assert_int_eq(b.gpu.ops->commit(b.gpu.dev, NULL, c, n, &v, &gpu, &b.gpu.err),
		                 rc);
		ck_assert(salt % 7 ? rc == 0 || rc == NX_EBUG : rc == NX_EBUG);
		ck_assert_msg(!memcmp(len, len2, sizeof(len2)), "round %d", (int)salt);
		ck_assert_msg(!memcmp(last, last2, sizeof(last2)), "round %d", (int)salt);
	}
	c[0] = (struct nx_commit){1, 1, 2, 0}; /* nothing is emitted: no verdict needed */
	int32_t was = len[1];
	rig_ok(&b.gpu, b.gpu.ops->commit(b.gpu.dev, NULL, c, 1, NULL, &gpu, &b.gpu.err));
	ck_assert_int_eq(len[1], was + 2);
	both_close(&b);
}
END_TEST

/* ---- draft_rows */

enum { NODES = 150, DSTRIDE = 160, DSEQS = 5, ROWS = DSEQS * (NODES + 2), VOCAB = 30 };

struct draft_world {
	int32_t len[DSEQS], own[4][DSEQS * DSTRIDE], col[6][ROWS], anc[ROWS * DSTRIDE];
	struct nx_draft_span span[DSEQS];
};

static void draft_init(struct draft_world *w, uint64_t salt)
{
	memset(w, 0x5a, sizeof(*w));
	for (int32_t s = 0; s < DSEQS; s++) {
		int32_t n = (int32_t)pick(salt, 1100 + (uint64_t)s, 3) * NODES / 2;
		w->len[s] = (int32_t)pick(salt, 1000 + (uint64_t)s, 40);
		w->span[s] = (struct nx_draft_span){s, 1 + s * (NODES + 2), n};
		for (int32_t i = 0; i < NODES; i++) {
			uint64_t at = (uint64_t)(s * DSTRIDE + i);
			/* chains, deep ones and bushy ones */
			uint32_t back = s == 0 ? 1 : s % 2 ? (uint32_t)i + 1 : (i ? 2 : 1);
			w->own[0][at] = pick(salt, 4 * at, 60) ? (int32_t)pick(salt, at, VOCAB)
			                                       : NX_TOKEN_NONE;
			w->own[1][at] = i - 1 - (int32_t)pick(salt, 4 * at + 1, back);
			w->own[2][at] = pick(salt, 4 * at + 2, 5) ? NX_ROW_CANDIDATE : NX_ROW_PROBE;
		}
	}
}

static int draft_put(struct rig *r, struct draft_world *w, int32_t window, int32_t anc_stride)
{
	struct nx_draft d = {DSTRIDE, w->own[0], w->own[1], w->own[2], w->own[3], NULL, 0, NULL};
	struct nx_draft_rows out = {w->col[0], w->col[1], w->col[2], w->col[3],
	                            w->col[4], w->col[5], w->anc,    anc_stride};
	struct nx_seq_state state = {DSEQS, w->len, w->len};
	return r->ops->draft_rows(r->dev, NULL, &d, w->span, DSEQS, VOCAB, window, &state, &out,
	                          &r->err);
}

START_TEST(drafts_become_the_same_rows)
{
	static const int32_t windows[] = {0, 1, 4, 8, 32};
	struct both b;
	both_open(&b, NX_F32, false);
	struct draft_world *gpu = both_mem(&b, sizeof(*gpu)), *cpu = both_mem(&b, sizeof(*cpu));
	for (uint64_t salt = 0; salt < 100; salt++) {
		draft_init(gpu, salt);
		draft_init(cpu, salt);
		rig_ok(&b.gpu, draft_put(&b.gpu, gpu, windows[salt % 5], DSTRIDE));
		rig_ok(&b.cpu, draft_put(&b.cpu, cpu, windows[salt % 5], DSTRIDE));
		ck_assert_msg(!memcmp(gpu, cpu, sizeof(*gpu)), "round %d", (int)salt);
	}
	both_close(&b);
}
END_TEST

START_TEST(drafts_that_are_no_tree_are_refused)
{
	struct both b;
	both_open(&b, NX_F32, false);
	struct draft_world *w = both_mem(&b, sizeof(*w));
	for (int i = 0; i < 9; i++) {
		draft_init(w, 2);
		w->span[1].n = NODES;
		for (int32_t n = 0; n < NODES; n++) { /* a chain */
			w->own[0][DSTRIDE + n] = n % VOCAB;
			w->own[1][DSTRIDE + n] = n - 1;
		}
		int32_t at = DSTRIDE + 7;
		w->own[1][at] = i == 0 ? 7 : i == 1 ? -2 : i == 2 ? NODES : 6;
		w->own[0][at] = i == 3 ? VOCAB : i == 4 ? -2 : 7;
		w->own[2][at] = i == 5 ? NX_ROW_COMMIT : NX_ROW_CANDIDATE;
		if (i == 7)
			w->span[1].n = DSTRIDE + 1;
		if (i == 8)
			w->span[1].seq = DSEQS;
		b.gpu.err.msg[0] = 0;
		ck_assert_msg(draft_put(&b.gpu, w, 1, i == 6 ? 100 : DSTRIDE) == NX_EBUG, "case %d",
		              i);
		if (i < 6) /* and what was wrong is seen by nobody */
			ck_assert_int_eq(w->col[0][w->span[1].row0 + 7], NX_TOKEN_LAST);
		ck_assert_ptr_nonnull(strstr(b.gpu.err.msg, "draft"));
		draft_init(w, 2);
		rig_ok(&b.gpu, draft_put(&b.gpu, w, 1, DSTRIDE));
	}
	both_close(&b);
}
END_TEST

int main(void)
{
	both_need_gpu();
	Suite *s = suite_create("cuda_ops");
	TCase *tc = tcase_create("ops");
	tcase_set_timeout(tc, 120);
	tcase_add_loop_test(tc, rmsnorm_is_the_references, 0, N_WIDTHS);
	tcase_add_test(tc, gather_copies_rows);
	tcase_add_loop_test(tc, rope_store_is_the_references, 0, N_SHAPES);
	tcase_add_test(tc, rope_store_refuses_what_cannot_be);
	tcase_add_test(tc, commits_take_effect_in_order);
	tcase_add_test(tc, drafts_become_the_same_rows);
	tcase_add_test(tc, drafts_that_are_no_tree_are_refused);
	suite_add_tcase(s, tc);
	return both_run(s);
}
