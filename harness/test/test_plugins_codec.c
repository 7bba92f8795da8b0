/* SPDX-License-Identifier: Apache-2.0
 *
 * test/test_plugins_codec.c: what a query gets from an encoded store is bit-identical however its sequence was
 * cut into forwards and drafts, and equals attention in double over what the codec rule says it sees.
 */
#include <check.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "fake_host.h"
#include "tiny_model.h"

enum { LAYERS = 2, HEADS = 4, KV = 2, DIM = 16, LEN = 128, SEQS = 3, CAP = 12 };
enum { KVW = KV * DIM, QW = HEADS * DIM, WIDTH = QW + 2 * KVW };

struct codec_case {
	const char *name, *values;
	int window, bits, block;
	bool symmetric;
	enum nx_dtype plain;
};

static const struct codec_case cases[] = {
	{"codec_row", "", 1, 8, 8, true, NX_F32},
	{"codec_row", "", 1, 8, 0, true, NX_BF16},
	{"codec_group", "window=8", 8, 8, 16, false, NX_F32},
	{"codec_group", "window=16,symmetric=true", 16, 8, 16, true, NX_BF16},
	{"codec_group", "window=4,bits=4", 4, 4, 4, false, NX_BF16},
	{"codec_group", "window=32,bits=4,symmetric=true", 32, 4, 0, true, NX_F32},
};
#define N_CASES ((int)(sizeof(cases) / sizeof(cases[0])))

struct rig {
	struct fake_host f;
	const struct codec_case *c;
	struct nx_kv kv;
	uint8_t *mem[3];
	int32_t table[SEQS * LEN], len[SEQS], last[SEQS];
	float *qkv; /* [SEQS][LAYERS][LEN][WIDTH], as projected */
	float *out; /* [SEQS][LAYERS][LEN][QW] */
	uint64_t seed;
};

static int32_t below(struct rig *g, int32_t n)
{
	return (int32_t)(nx_test_random(&g->seed) % (uint64_t)n);
}

static float *qkv_at(const struct rig *g, int32_t q, int32_t l, int32_t t)
{
	return g->qkv + ((int64_t)(q * LAYERS + l) * LEN + t) * WIDTH;
}

static float *out_at(const struct rig *g, int32_t q, int32_t l, int32_t t)
{
	return g->out + ((int64_t)(q * LAYERS + l) * LEN + t) * QW;
}

static uint8_t *poisoned(size_t bytes)
{
	uint8_t *p = aligned_alloc(64, (bytes + 63) / 64 * 64);
	ck_assert_ptr_nonnull(p);
	memset(p, 0xff, bytes);
	return p;
}

/* The store, its blocks in random order, and the same projections for each seed of data. */
static void rig_open(struct rig *g, const struct codec_case *c, uint64_t seed)
{
	struct nx_codec_layout lay = {0};
	struct nx_err err = {0};
	memset(g, 0, sizeof(*g));
	g->c = c;
	g->seed = 77;
	g->qkv = malloc(sizeof(float) * SEQS * LAYERS * LEN * WIDTH);
	g->out = calloc(SEQS * LAYERS * LEN * QW, sizeof(float));
	ck_assert(g->qkv && g->out);
	for (int i = 0; i < SEQS * LAYERS * LEN * WIDTH; i++)
		g->qkv[i] = (float)(below(g, 20001) - 10000) * 1e-4f * (float)(1 + i % 7);
	g->seed = seed;
	fake_host_open(&g->f, c->name, c->values, SEQS);
	struct nx_codec_limits lim = {LAYERS, HEADS, KV,       DIM,      c->block,
	                              SEQS,   LEN,   LEN + 32, c->plain, true};
	ck_assert_msg(g->f.plugin.technique->codec_layout(g->f.self, &lim, &lay, &err) == 0, "%s",
	              err.msg);
	ck_assert_int_eq(lay.window, c->window);
	int32_t bs = c->block ? c->block : LEN, blocks = LEN / bs, rows = SEQS * LEN;
	int64_t plain = KVW * (int64_t)nx_dtype_bytes(c->plain),
		scratch = c->window == 1 ? lay.row_bytes : plain;
	g->kv = (struct nx_kv){.codec = NX_KV_OWN,
	                       .plain = c->plain,
	                       .n_layers = LAYERS,
	                       .n_kv_heads = KV,
	                       .head_dim = DIM,
	                       .block_size = bs,
	                       .table_stride = blocks,
	                       .table = g->table,
	                       .row_bytes = lay.row_bytes,
	                       .v_offset = (int64_t)rows * lay.row_bytes,
	                       .layer_bytes = 2 * (int64_t)rows * lay.row_bytes,
	                       .scratch_row_bytes = scratch,
	                       .scratch_v_offset = SEQS * CAP * scratch,
	                       .scratch_layer_bytes = 2 * SEQS * CAP * scratch,
	                       .scratch_cap = CAP,
	                       .window = c->window,
	                       .win_v_offset = SEQS * c->window * plain,
	                       .win_layer_bytes = 2 * SEQS * c->window * plain};
	g->kv.base = g->mem[0] = poisoned((size_t)(LAYERS * g->kv.layer_bytes));
	g->kv.scratch = g->mem[1] = poisoned((size_t)(LAYERS * g->kv.scratch_layer_bytes));
	g->mem[2] = poisoned((size_t)(LAYERS * g->kv.win_layer_bytes));
	g->kv.win = c->window > 1 ? g->mem[2] : NULL;
	for (int32_t i = 0; i < SEQS * blocks; i++)
		g->table[i] = i * bs;
	for (int32_t i = SEQS * blocks - 1; i > 0; i--) {
		int32_t j = below(g, i + 1), t = g->table[i];
		g->table[i] = g->table[j];
		g->table[j] = t;
	}
}

static void rig_close(struct rig *g)
{
	fake_host_close(&g->f);
	for (int i = 0; i < 3; i++)
		free(g->mem[i]);
	free(g->qkv);
	free(g->out);
}

/* The rows of a forward. */
struct forward {
	int32_t n, seq[LEN], token[LEN], off[LEN], kind[LEN], scratch[LEN], n_anc[LEN],
		anc[LEN * CAP], t[LEN];
	struct nx_segment seg[SEQS];
	int32_t n_seg;
};

static void add_row(struct rig *g, struct forward *w, int32_t q, int32_t off, int32_t kind,
                    int32_t depth)
{
	int32_t r = w->n++;
	w->seq[r] = q;
	w->off[r] = off;
	w->kind[r] = kind;
	w->scratch[r] = depth > 0 ? (depth * 5) % CAP : -1; /* a path is not in order */
	w->n_anc[r] = depth;
	for (int32_t d = 1; d <= depth; d++)
		w->anc[r * CAP + d - 1] = (d * 5) % CAP;
	w->t[r] = g->len[q] + off;
}

/* Runs all layers; everything that was borrowed is spoilt before the device gets to work. */
static void forward(struct rig *g, struct forward *w)
{
	struct nx_err err = {0};
	float *qkv = malloc(sizeof(float) * LEN * WIDTH), *out = malloc(sizeof(float) * LEN * QW);
	ck_assert(qkv && out);
	for (int32_t l = 0; l < LAYERS; l++) {
		for (int32_t r = 0; r < w->n; r++)
			memcpy(qkv + r * WIDTH, qkv_at(g, w->seq[r], l, w->t[r]),
			       WIDTH * sizeof(float));
		memset(out, 0xff, sizeof(float) * LEN * QW);
		struct nx_rows rows = {.n_rows = w->n,
		                       .n_segments = w->n_seg,
		                       .anc_stride = CAP,
		                       .max_keys = LEN,
		                       .seq = w->seq,
		                       .token = w->token,
		                       .slot_off = w->off,
		                       .pos_off = w->off,
		                       .kind = w->kind,
		                       .scratch = w->scratch,
		                       .n_anc = w->n_anc,
		                       .anc = w->anc,
		                       .segments = w->seg};
		struct nx_seq_state state = {SEQS, g->len, g->last};
		struct nx_kv kv = g->kv;
		struct nx_attention a = {.rows = &rows,
		                         .state = &state,
		                         .kv = &kv,
		                         .layer = l,
		                         .n_heads = HEADS,
		                         .scale = 0.25f,
		                         .q = qkv,
		                         .q_stride = WIDTH,
		                         .out = out};
		struct nx_codec_step st = {&a, qkv};
		ck_assert_msg(g->f.plugin.technique->codec_attend(g->f.self, NULL, &st, &err) == 0,
		              "%s", err.msg);
		memset(&rows, 0xee, sizeof(rows));
		memset(&state, 0xee, sizeof(state));
		memset(&kv, 0xee, sizeof(kv));
		memset(&a, 0xee, sizeof(a));
		fake_host_run(&g->f);
		for (int32_t r = 0; r < w->n; r++) {
			float *o = out_at(g, w->seq[r], l, w->t[r]);
			if (w->kind[r] == NX_ROW_COMMIT || w->kind[r] == NX_ROW_CANDIDATE)
				memcpy(o, out + r * QW, QW * sizeof(float));
			if (w->kind[r] == NX_ROW_REDO)
				ck_assert_int_eq(memcmp(o, out + r * QW, QW * sizeof(float)), 0);
		}
	}
	free(qkv);
	free(out);
}

/* What the engine does with accepted rows: scratch into the window or into their slots. */
static void accept(struct rig *g, int32_t q, int32_t n_draft, int32_t n)
{
	struct nx_kv *kv = &g->kv;
	struct nx_err err = {0};
	for (int32_t l = 0; l < LAYERS; l++)
		for (int32_t d = 1; d <= n; d++) {
			int32_t slot = g->len[q] + d;
			uint8_t *from = kv->scratch + l * kv->scratch_layer_bytes +
			                (q * CAP + (d * 5) % CAP) * kv->scratch_row_bytes;
			uint8_t *to = kv->win ? kv->win + l * kv->win_layer_bytes +
			                                (q * kv->window + slot % kv->window) *
			                                        kv->scratch_row_bytes
			                      : kv->base + l * kv->layer_bytes +
			                                (g->table[q * kv->table_stride +
			                                          slot / kv->block_size] +
			                                 slot % kv->block_size) *
			                                        kv->row_bytes;
			memcpy(to, from, (size_t)kv->scratch_row_bytes);
			memcpy(to + (kv->win ? kv->win_v_offset : kv->v_offset),
			       from + kv->scratch_v_offset, (size_t)kv->scratch_row_bytes);
		}
	int32_t accepted[SEQS] = {0};
	accepted[q] = n;
	struct nx_emit emit = {.seq = q, .src_seq = q, .pos_off = 1, .n_draft = n_draft};
	struct nx_verdict v = {.stride = CAP + 1, .n_accepted = accepted};
	struct nx_seq_state state = {SEQS, g->len, g->last};
	struct nx_codec_commit c = {kv, &state, &emit, 1, &v};
	if (g->f.plugin.technique->codec_commit)
		ck_assert_int_eq(g->f.plugin.technique->codec_commit(g->f.self, NULL, &c, &err), 0);
	fake_host_run(&g->f);
}

/* Feeds all sequences: up to `chunk` rows at a time, in one step cut in two now and then, or drafted. */
static void feed(struct rig *g, int32_t chunk, bool drafts)
{
	for (;;) {
		static struct forward w;
		int32_t n[SEQS] = {0}, left = 0;
		memset(&w, 0, sizeof(w));
		for (int32_t q = 0; q < SEQS; q++)
			left += LEN - g->len[q];
		if (!left)
			return;
		int32_t draft_for = drafts ? below(g, SEQS) : -1, n_draft = 0;
		for (int32_t q = 0; q < SEQS; q++) {
			int32_t rest = LEN - g->len[q], row0 = w.n;
			if (!rest || (chunk < LEN && below(g, 4) == 0))
				continue;
			n[q] = 1 + below(g, chunk < rest ? chunk : rest);
			if (n[q] > 40)
				n[q] = 40;
			if (q == draft_for)
				n[q] = 1;
			if (g->len[q] && below(g, 3) == 0)
				add_row(g, &w, q, -1, NX_ROW_REDO, 0);
			for (int32_t i = 0; i < n[q]; i++)
				add_row(g, &w, q, i, NX_ROW_COMMIT, 0);
			if (q == draft_for) {
				int32_t group = g->c->window == 1
				                        ? LEN
				                        : g->c->window - g->len[q] % g->c->window;
				n_draft = below(g, CAP - 1);
				n_draft = n_draft < group - 1 ? n_draft : group - 1;
				n_draft = n_draft < rest - 1 ? n_draft : rest - 1;
				for (int32_t d = 1; d <= n_draft; d++)
					add_row(g, &w, q, d, NX_ROW_CANDIDATE, d);
			} else if (below(g, 2)) {
				add_row(g, &w, q, 0, NX_ROW_PAD, 0);
				w.off[w.n - 1] = n[q];
				w.t[w.n - 1] = 0;
			}
			w.seg[w.n_seg++] = (struct nx_segment){q, row0, w.n - row0, LEN};
		}
		/* PAD rows of a full store would have no slot; they come last and are taken off. */
		forward(g, &w);
		int32_t ok = n_draft ? below(g, n_draft + 1) : 0;
		if (n_draft)
			accept(g, draft_for, n_draft, ok);
		for (int32_t q = 0; q < SEQS; q++)
			g->len[q] += n[q] + (q == draft_for && n[q] ? ok : 0);
	}
}

/* ---- the rule, said a second time, in double ---- */

static double rounded(const struct rig *g, float x)
{
	uint32_t u;
	if (g->c->plain == NX_F32)
		return (double)x;
	memcpy(&u, &x, 4);
	u = (u + 0x7fff + (u >> 16 & 1)) & 0xffff0000u;
	memcpy(&x, &u, 4);
	return (double)x;
}

/* x among n values that share a scale; at most half a step off. The code is found in float, as the codec does:
 * bf16 values fall on ties often. */
static double coded(const struct rig *g, const double *all, int n, double x)
{
	float lo = (float)all[0], hi = lo;
	int codes = 1 << g->c->bits;
	for (int i = 1; i < n; i++) {
		lo = fminf(lo, (float)all[i]);
		hi = fmaxf(hi, (float)all[i]);
	}
	float m = fmaxf(fabsf(lo), fabsf(hi));
	float step = g->c->symmetric ? m / (float)(codes / 2 - 1) : (hi - lo) / (float)(codes - 1);
	float zero = !g->c->symmetric ? lo : g->c->window == 1 ? 0 : -step * (float)(codes / 2);
	double y = step > 0 ? (double)zero + (double)step * lrintf(((float)x - zero) / step) : x;
	ck_assert_double_le(fabs(y - x), (double)step / 2 * (1 + 1e-4));
	return y;
}

/* Element d of head h of row i, as a query at p sees it. */
static double seen(const struct rig *g, int32_t q, int32_t l, int32_t p, int32_t i, int32_t h,
                   int32_t d, bool v)
{
	double all[64];
	int32_t w = g->c->window, at = QW + (v ? KVW : 0) + h * DIM;
	if (w > 1 && i / w == p / w)
		return rounded(g, qkv_at(g, q, l, i)[at + d]);
	if (w == 1 || v) {
		for (int32_t j = 0; j < DIM; j++)
			all[j] = w == 1 ? (double)qkv_at(g, q, l, i)[at + j]
			                : rounded(g, qkv_at(g, q, l, i)[at + j]);
		return coded(g, all, DIM, all[d]);
	}
	for (int32_t j = 0; j < w; j++)
		all[j] = rounded(g, qkv_at(g, q, l, i / w * w + j)[at + d]);
	return coded(g, all, w, all[i % w]);
}

static void check_row(const struct rig *g, int32_t q, int32_t l, int32_t p, int32_t head)
{
	double score[LEN], max = -INFINITY, total = 0;
	int32_t h = head / (HEADS / KV);
	for (int32_t i = 0; i <= p; i++) {
		score[i] = 0;
		for (int32_t d = 0; d < DIM; d++)
			score[i] += (double)qkv_at(g, q, l, p)[head * DIM + d] *
			            seen(g, q, l, p, i, h, d, false) * 0.25;
		max = fmax(max, score[i]);
	}
	for (int32_t i = 0; i <= p; i++) {
		score[i] = exp(score[i] - max);
		total += score[i];
	}
	for (int32_t d = 0; d < DIM; d++) {
		double sum = 0;
		for (int32_t i = 0; i <= p; i++)
			sum += score[i] * seen(g, q, l, p, i, h, d, true);
		ck_assert_double_eq_tol(sum / total, (double)out_at(g, q, l, p)[head * DIM + d],
		                        2e-4);
	}
}

START_TEST(a_query_sees_what_the_rule_says)
{
	struct rig g;
	rig_open(&g, &cases[_i], 3);
	feed(&g, 40, false);
	for (int32_t p = 0; p < LEN; p += 1 + p / 9)
		for (int32_t head = 0; head < HEADS; head += 3)
			check_row(&g, p % SEQS, p % LAYERS, p, head);
	rig_close(&g);
}
END_TEST

START_TEST(chunks_and_drafts_change_no_bit)
{
	static const int32_t chunks[] = {1, 3, 17, LEN};
	struct rig want, got;
	rig_open(&want, &cases[_i], 1);
	feed(&want, LEN, false);
	for (int k = 0; k < 8; k++) {
		rig_open(&got, &cases[_i], (uint64_t)k + 10);
		feed(&got, chunks[k % 4], k > 3);
		ck_assert_msg(memcmp(want.out, got.out, sizeof(float) * SEQS * LAYERS * LEN * QW) ==
		                      0,
		              "chunks of %d, drafts %d", chunks[k % 4], k > 3);
		rig_close(&got);
	}
	rig_close(&want);
}
END_TEST

START_TEST(blocks_that_cut_groups_are_refused)
{
	struct fake_host f;
	struct nx_codec_layout lay;
	struct nx_err err = {0};
	struct nx_codec_limits lim = {LAYERS, HEADS, KV, DIM, 24, SEQS, LEN, LEN, NX_F32, true};
	fake_host_open(&f, "codec_group", "window=16", SEQS);
	ck_assert_int_eq(f.plugin.technique->codec_layout(f.self, &lim, &lay, &err), NX_ECONFLICT);
	ck_assert_ptr_nonnull(strstr(err.msg, "24"));
	fake_host_close(&f);
}
END_TEST

int main(void)
{
	Suite *s = suite_create("plugins_codec");
	TCase *tc = tcase_create("codec");
	tcase_set_timeout(tc, 60);
	tcase_add_loop_test(tc, a_query_sees_what_the_rule_says, 0, N_CASES);
	tcase_add_loop_test(tc, chunks_and_drafts_change_no_bit, 0, N_CASES);
	tcase_add_test(tc, blocks_that_cut_groups_are_refused);
	suite_add_tcase(s, tc);
	SRunner *r = srunner_create(s);
	srunner_run_all(r, CK_NORMAL);
	int failed = srunner_ntests_failed(r);
	srunner_free(r);
	return failed != 0;
}
