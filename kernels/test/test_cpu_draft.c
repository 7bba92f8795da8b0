/* SPDX-License-Identifier: Apache-2.0
 *
 * Drafts as rows of a step, and what of them stays: draft_rows(), the rows' attention, kv_compact() and commit().
 */
#include <check.h>
#include <stdlib.h>
#include <string.h>

#include "kernel_test.h"

enum { SEQS = 3, NODES = 20, STRIDE = 24, ANC = 24, ROWS = 3 + SEQS * (NODES + 1), VOCAB = 30 };

static uint32_t pick(uint64_t a, uint64_t b, uint32_t n)
{
	return (uint32_t)((noise(a, b) + 1) * 0.5f * (float)n) % n;
}

struct rows {
	int32_t len[SEQS], last[SEQS];
	int32_t own[4][SEQS * STRIDE];
	int32_t col[6][ROWS], anc[ROWS * ANC];
	struct nx_draft draft;
	struct nx_draft_rows out;
	struct nx_seq_state state;
	struct nx_draft_span span[SEQS];
};

static void rows_init(struct rows *w, uint64_t salt)
{
	memset(w, 0x5a, sizeof(*w));
	w->draft = (struct nx_draft){STRIDE,    w->own[0], w->own[1], w->own[2],
	                             w->own[3], NULL,      0,         NULL};
	w->out = (struct nx_draft_rows){w->col[0], w->col[1], w->col[2], w->col[3],
	                                w->col[4], w->col[5], w->anc,    ANC};
	w->state = (struct nx_seq_state){SEQS, w->len, w->last};
	for (int32_t s = 0; s < SEQS; s++) {
		w->len[s] = (int32_t)pick(salt, 1000 + (uint64_t)s, 40);
		/* a deep one, a bushy one, and one without a draft now and then */
		w->span[s] = (struct nx_draft_span){s, 4 + s * (NODES + 1),
		                                    pick(salt, 1100 + (uint64_t)s, 5) ? NODES : 0};
		for (int32_t i = 0; i < NODES; i++) {
			uint64_t at = (uint64_t)(s * STRIDE + i);
			uint32_t back = s ? (uint32_t)i + 1 : (i ? 2 : 1);
			w->draft.token[at] = pick(salt, 4 * at, 12) ? (int32_t)pick(salt, at, VOCAB)
			                                            : NX_TOKEN_NONE;
			w->draft.parent[at] = i - 1 - (int32_t)pick(salt, 4 * at + 1, back);
			w->draft.kind[at] =
				pick(salt, 4 * at + 2, 5) ? NX_ROW_CANDIDATE : NX_ROW_PROBE;
		}
	}
}

static int put(struct rig *r, struct rows *w, int32_t window)
{
	return r->ops->draft_rows(r->dev, NULL, &w->draft, w->span, SEQS, VOCAB, window, &w->state,
	                          &w->out, &r->err);
}

START_TEST(rows_are_those_of_the_tree)
{
	static const int32_t windows[] = {0, 1, 4, 8, 32};
	struct rows *w = malloc(sizeof(*w)), *was = malloc(sizeof(*was));
	int32_t voids = 0, deepest = 0;
	struct rig r;
	ck_assert(rig_open(&r, 0, 1, false));
	for (uint64_t salt = 0; salt < 200; salt++) {
		int32_t window = windows[salt % 5];
		rows_init(w, salt);
		*was = *w;
		rig_ok(&r, put(&r, w, window));
		for (int32_t s = 0; s < SEQS; s++)
			for (int32_t i = 0; i < NODES; i++) {
				int32_t row = w->span[s].row0 + i, path[NODES], depth = 0;
				int64_t at = s * STRIDE + i;
				if (w->span[s].n == 0) {
					ck_assert_int_eq(w->out.token[row], 0x5a5a5a5a);
					continue;
				}
				bool none = false;
				for (int32_t n = i; n >= 0; n = was->own[1][s * STRIDE + n]) {
					path[depth++] = n;
					none |= was->own[0][s * STRIDE + n] == NX_TOKEN_NONE;
				}
				none |= window > 1 &&
				        (w->len[s] + depth) / window != w->len[s] / window;
				ck_assert_int_eq(w->out.scratch[row], i);
				ck_assert_int_eq(w->draft.token[at],
				                 none ? NX_TOKEN_NONE : was->own[0][at]);
				voids += none;
				if (none) { /* sees what is committed, and itself */
					ck_assert_int_eq(w->out.kind[row], NX_ROW_PROBE);
					ck_assert_int_eq(w->out.slot_off[row], 0);
					ck_assert_int_eq(w->out.pos_off[row], 0);
					ck_assert_int_eq(w->out.n_anc[row], 1);
					ck_assert_int_eq(w->anc[row * ANC], i);
					continue;
				}
				ck_assert_int_eq(w->out.token[row], was->own[0][at]);
				ck_assert_int_eq(w->out.kind[row], was->own[2][at]);
				ck_assert_int_eq(w->out.slot_off[row], depth);
				ck_assert_int_eq(w->out.pos_off[row], depth);
				ck_assert_int_eq(w->out.n_anc[row], depth);
				for (int32_t d = 0; d < depth; d++)
					ck_assert_int_eq(w->anc[row * ANC + d],
					                 path[depth - 1 - d]);
				deepest = depth > deepest ? depth : deepest;
			}
		ck_assert_int_eq(w->out.token[3], 0x5a5a5a5a); /* the first root */
	}
	ck_assert_int_gt(voids, 1000);
	ck_assert_int_gt(deepest, 8);
	rig_close(&r);
	free(w);
	free(was);
}
END_TEST

START_TEST(drafts_that_are_no_tree_are_refused)
{
	struct rows *w = malloc(sizeof(*w));
	struct rig r;
	ck_assert(rig_open(&r, 0, 1, false));
	for (int i = 0; i < 9; i++) {
		rows_init(w, 2);
		w->span[1].n = NODES;
		for (int32_t n = 0; n < NODES; n++) { /* a chain */
			w->draft.token[STRIDE + n] = n;
			w->draft.parent[STRIDE + n] = n - 1;
		}
		int32_t at = STRIDE + 7;
		w->draft.parent[at] = i == 0 ? 7 : i == 1 ? -2 : i == 2 ? NODES : 6;
		w->draft.token[at] = i == 3 ? VOCAB : i == 4 ? -2 : 7;
		w->draft.kind[at] = i == 5 ? NX_ROW_COMMIT : NX_ROW_CANDIDATE;
		if (i == 6)
			w->out.anc_stride = NODES - 1;
		if (i == 7)
			w->span[1].n = STRIDE + 1;
		if (i == 8)
			w->span[1].seq = SEQS;
		ck_assert_msg(put(&r, w, 1) == NX_EBUG, "case %d", i);
	}
	rig_close(&r);
	free(w);
}
END_TEST

/* ---- a drafted step against plain ones */

enum {
	HEADS = 4,
	KV_HEADS = 2,
	DIM = 16,
	WIDTH = (HEADS + 2 * KV_HEADS) * DIM,
	BLOCK = 4,
	SLOTS = 32,
	CAP = 12,
	LAYERS = 2,
	MAX_STEP = 32
};

/* One sequence whose rows depend on (token, layer) alone. Planes as the engine has them. */
struct model {
	struct rig r;
	struct nx_kv kv;
	float pool[LAYERS][2][SLOTS][KV_HEADS * DIM], scratch[LAYERS][2][CAP][KV_HEADS * DIM];
	int32_t table[SLOTS / BLOCK], len, last;
	struct nx_seq_state state;
	int32_t col[7][MAX_STEP], anc[MAX_STEP * CAP];
	struct nx_segment segment;
	struct nx_rows rows;
	float qkv[MAX_STEP * WIDTH], out[LAYERS][MAX_STEP][HEADS * DIM], workspace[1 << 16];
};

static void model_open(struct model *m, int isa)
{
	memset(m, 0xff, sizeof(*m));
	ck_assert(rig_open(&m->r, isa, 1, true));
	int64_t row = KV_HEADS * DIM * sizeof(float);
	for (int32_t b = 0; b < SLOTS / BLOCK; b++)
		m->table[b] = (SLOTS / BLOCK - 1 - b) * BLOCK;
	m->len = m->last = 0;
	m->kv = (struct nx_kv){.codec = NX_KV_F32,
	                       .n_layers = LAYERS,
	                       .n_kv_heads = KV_HEADS,
	                       .head_dim = DIM,
	                       .block_size = BLOCK,
	                       .table_stride = SLOTS / BLOCK,
	                       .table = m->table,
	                       .base = (uint8_t *)m->pool,
	                       .layer_bytes = 2 * SLOTS * row,
	                       .row_bytes = row,
	                       .v_offset = SLOTS * row,
	                       .scratch = (uint8_t *)m->scratch,
	                       .scratch_layer_bytes = 2 * CAP * row,
	                       .scratch_row_bytes = row,
	                       .scratch_v_offset = CAP * row,
	                       .scratch_cap = CAP,
	                       .window = 1};
	m->state = (struct nx_seq_state){1, &m->len, &m->last};
	memset(m->col[0], 0, sizeof(m->col[0]));
	m->rows = (struct nx_rows){0,         1,         CAP,        SLOTS,     m->col[0],
	                           m->col[1], m->col[2], m->col[3],  m->col[4], m->col[5],
	                           m->col[6], m->anc,    &m->segment};
}

/* A COMMIT row. */
static void add_row(struct model *m, int32_t token, int32_t off)
{
	int32_t r = m->rows.n_rows++;
	m->col[1][r] = token;
	m->col[2][r] = m->col[3][r] = off;
	m->col[4][r] = NX_ROW_COMMIT;
	m->col[5][r] = -1;
	m->col[6][r] = 0;
}

static void forward(struct model *m, enum nx_attn_kernel kernel)
{
	static const float inv[DIM / 2] = {1, 0.5f, 0.2f, 0.1f, 0.05f, 0.02f, 0.01f, 0.005f};
	m->segment = (struct nx_segment){0, 0, m->rows.n_rows, SLOTS};
	for (int32_t layer = 0; layer < LAYERS; layer++) {
		for (int32_t i = 0; i < m->rows.n_rows * WIDTH; i++)
			m->qkv[i] = noise((uint64_t)(m->col[1][i / WIDTH] * LAYERS + layer),
			                  (uint64_t)(i % WIDTH));
		struct nx_rope_store store = {.rows = &m->rows,
		                              .state = &m->state,
		                              .kv = &m->kv,
		                              .layer = layer,
		                              .n_heads = HEADS,
		                              .rope_dim = DIM,
		                              .inv_freq = inv,
		                              .qkv = m->qkv};
		rig_ok(&m->r, m->r.ops->rope_store(m->r.dev, NULL, &store, &m->r.err));
		struct nx_attention a = {.rows = &m->rows,
		                         .state = &m->state,
		                         .kv = &m->kv,
		                         .layer = layer,
		                         .n_heads = HEADS,
		                         .scale = 0.25f,
		                         .q = m->qkv,
		                         .q_stride = WIDTH,
		                         .out = m->out[layer],
		                         .kernel = kernel,
		                         .kv_chunk = 16,
		                         .workspace = m->workspace,
		                         .workspace_bytes = sizeof(m->workspace)};
		rig_ok(&m->r, m->r.ops->attention(m->r.dev, NULL, &a, &m->r.err));
	}
}

/* The last row's outputs after n tokens in one forward. */
static void plain(int isa, enum nx_attn_kernel kernel, const int32_t *token, int32_t n,
                  float (*out)[HEADS * DIM])
{
	struct model *m = malloc(sizeof(*m));
	model_open(m, isa);
	for (int32_t i = 0; i < n; i++)
		add_row(m, token[i], i);
	forward(m, kernel);
	for (int layer = 0; layer < LAYERS; layer++)
		memcpy(out[layer], m->out[layer][n - 1], sizeof(out[0]));
	rig_close(&m->r);
	free(m);
}

/* A drafted step, then the path to its deepest row is kept, then a plain step, then a row is done again. */
static void drafted(int isa, enum nx_attn_kernel kernel)
{
	static const int32_t tree[] = {-1, -1, 0, 0, 1, 2, 5, 6, 3}, n = 9;
	struct model *m = malloc(sizeof(*m));
	float want[LAYERS][HEADS * DIM];
	int32_t text[SLOTS], token[9], parent[9], kind[9], path[10] = {0}, prompt = 9;
	struct nx_draft d = {9, token, parent, kind, NULL, NULL, 0, NULL};
	struct nx_draft_span span = {0, 1, n};
	model_open(m, isa);
	for (int32_t i = 0; i < prompt; i++)
		add_row(m, text[i] = 3 + i, i);
	forward(m, kernel);
	m->len = prompt;
	m->rows.n_rows = 0;
	add_row(m, text[prompt] = 2, 0);
	for (int32_t i = 0; i < n; i++) {
		token[i] = 12 + i;
		parent[i] = tree[i];
		kind[i] = i % 3 == 2 ? NX_ROW_PROBE : NX_ROW_CANDIDATE;
	}
	struct nx_draft_rows out = {m->col[1], m->col[2], m->col[3], m->col[4],
	                            m->col[5], m->col[6], m->anc,    CAP};
	rig_ok(&m->r, m->r.ops->draft_rows(m->r.dev, NULL, &d, &span, 1, VOCAB, 1, &m->state, &out,
	                                   &m->r.err));
	m->rows.n_rows += n;
	forward(m, kernel);
	int32_t depth = 0;
	for (int32_t i = -1; i < n; i++) {
		depth = 0;
		for (int32_t p = i; p >= 0; p = tree[p])
			depth++;
		int32_t at = depth;
		for (int32_t p = i; p >= 0; p = tree[p])
			text[prompt + at--] = token[p];
		plain(isa, kernel, text, prompt + 1 + depth, want);
		for (int layer = 0; layer < LAYERS; layer++)
			ck_assert_msg(!memcmp(want[layer], m->out[layer][1 + i], sizeof(want[0])),
			              "%s kernel %d: row %d", isa_name(isa), kernel, i);
	}
	depth = 5;
	for (int32_t p = 7, at = depth; p >= 0; p = tree[p]) {
		path[--at] = p;
		text[prompt + 1 + at] = token[p];
	}
	int32_t last = 20, accepted = depth, emitted[10] = {0};
	emitted[depth] = last;
	struct nx_verdict v = {10, emitted, &accepted, path};
	struct nx_emit e = {.pos_off = 1, .n_draft = n};
	struct nx_commit c = {0, 0, 1, 1};
	rig_ok(&m->r,
	       m->r.ops->kv_compact(m->r.dev, NULL, &m->kv, &m->state, &e, 1, &v, &m->r.err));
	rig_ok(&m->r, m->r.ops->commit(m->r.dev, NULL, &c, 1, &v, &m->state, &m->r.err));
	ck_assert_int_eq(m->len, prompt + 1 + depth);
	ck_assert_int_eq(m->last, last);
	m->rows.n_rows = 0;
	add_row(m, text[m->len] = last, 0);
	forward(m, kernel);
	plain(isa, kernel, text, m->len + 1, want);
	for (int layer = 0; layer < LAYERS; layer++)
		ck_assert(!memcmp(want[layer], m->out[layer][0], sizeof(want[0])));

	/* REDO sees [0, slot] and leaves the store alone. */
	m->rows.n_rows = 0;
	add_row(m, text[m->len - 4], -4);
	m->col[4][0] = NX_ROW_REDO;
	float(*was)[2][SLOTS][KV_HEADS * DIM] = malloc(sizeof(m->pool));
	memcpy(was, m->pool, sizeof(m->pool));
	forward(m, kernel);
	ck_assert(!memcmp(was, m->pool, sizeof(m->pool)));
	plain(isa, kernel, text, m->len - 3, want);
	for (int layer = 0; layer < LAYERS; layer++)
		ck_assert(!memcmp(want[layer], m->out[layer][0], sizeof(want[0])));
	free(was);
	rig_close(&m->r);
	free(m);
}

START_TEST(a_drafted_row_equals_the_plain_sequence)
{
	struct rig r;
	if (!rig_open(&r, _i, 1, true))
		return;
	rig_close(&r);
	drafted(_i, NX_ATTN_TILED);
	drafted(_i, NX_ATTN_MATERIALISED);
}
END_TEST

int main(void)
{
	Suite *s = suite_create("cpu_draft");
	TCase *tc = tcase_create("draft");
	tcase_set_timeout(tc, 120);
	tcase_add_test(tc, rows_are_those_of_the_tree);
	tcase_add_test(tc, drafts_that_are_no_tree_are_refused);
	tcase_add_loop_test(tc, a_drafted_row_equals_the_plain_sequence, 0, N_ISAS);
	suite_add_tcase(s, tc);
	SRunner *sr = srunner_create(s);
	srunner_run_all(sr, CK_NORMAL);
	int failed = srunner_ntests_failed(sr);
	srunner_free(sr);
	return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}
