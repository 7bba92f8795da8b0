/* SPDX-License-Identifier: Apache-2.0
 *
 * nexus/fake_device.h: checks of hooks that compute, over fake_host.h: a KV codec and its attention, packed weights.
 * Header-only; for test programs alone.
 *
 * The store is small: 2 layers, 4 heads over 2, 16 wide, f32, sequences of up to 64 rows in shuffled blocks. What a
 * hook was handed is overwritten before its work runs, since it was borrowed for the call.
 */
#ifndef NEXUS_FAKE_DEVICE_H
#define NEXUS_FAKE_DEVICE_H

#include <math.h>

#include "nexus/fake_host.h"

#ifdef __cplusplus
extern "C" {
#endif

enum {
	NX_FAKE_LAYERS = 2,
	NX_FAKE_HEADS = 4,
	NX_FAKE_KV_HEADS = 2,
	NX_FAKE_DIM = 16,
	NX_FAKE_COLS = (NX_FAKE_HEADS + 2 * NX_FAKE_KV_HEADS) * NX_FAKE_DIM,
	NX_FAKE_OUT = NX_FAKE_HEADS * NX_FAKE_DIM,
	NX_FAKE_LEN = 64,
	NX_FAKE_SEQS = 2,
	NX_FAKE_SEQ = 1, /* the sequence that is used */
	NX_FAKE_DRAFTS = 3,
};

struct nx_fake_store {
	struct nx_kv kv;
	struct nx_seq_state state;
	int32_t len[NX_FAKE_SEQS], last[NX_FAKE_SEQS], table[NX_FAKE_SEQS * NX_FAKE_LEN];
	int32_t row[8][NX_FAKE_LEN], anc[NX_FAKE_LEN * NX_FAKE_LEN];
	float qkv[NX_FAKE_LAYERS][NX_FAKE_LEN * NX_FAKE_COLS];
	float out[NX_FAKE_LAYERS][NX_FAKE_LEN * NX_FAKE_OUT];
};

/* A number in [-1, 1) that depends on its place alone. */
static inline float nx_fake_number(int32_t layer, int32_t position, int32_t column)
{
	uint32_t h = (uint32_t)layer * 2654435761u + (uint32_t)position * 40503u +
	             (uint32_t)column * 2246822519u + 1u;
	h = (h ^ (h >> 15)) * 2246822519u;
	h = (h ^ (h >> 13)) * 3266489917u;
	return (float)((h ^ (h >> 16)) >> 8) / 8388608.0f - 1.0f;
}

static inline void nx_fake_store_release(struct nx_fake_store *s)
{
	free(s->kv.base);
	free(s->kv.scratch);
	free(s->kv.win);
}

/* An empty store as that layout wants it. False without memory. */
static inline bool nx_fake_store_init(struct nx_fake_store *s, const struct nx_codec_layout *l)
{
	struct nx_kv *kv = &s->kv;
	int32_t bs = l->window > 16 ? l->window : 16, blocks = NX_FAKE_LEN / bs;
	int64_t rows = NX_FAKE_SEQS * NX_FAKE_LEN;
	memset(s, 0, sizeof(*s));
	kv->codec = NX_KV_OWN;
	kv->plain = NX_F32;
	kv->n_layers = NX_FAKE_LAYERS;
	kv->n_kv_heads = NX_FAKE_KV_HEADS;
	kv->head_dim = NX_FAKE_DIM;
	kv->block_size = bs;
	kv->table_stride = blocks;
	kv->table = s->table;
	kv->row_bytes = l->row_bytes;
	kv->v_offset = rows * l->row_bytes;
	kv->layer_bytes = 2 * kv->v_offset;
	kv->window = l->window;
	kv->scratch_cap = NX_FAKE_DRAFTS;
	kv->scratch_row_bytes = l->window == 1 ? l->row_bytes : NX_FAKE_KV_HEADS * NX_FAKE_DIM * 4;
	kv->scratch_v_offset = NX_FAKE_SEQS * NX_FAKE_DRAFTS * kv->scratch_row_bytes;
	kv->scratch_layer_bytes = 2 * kv->scratch_v_offset;
	kv->win_v_offset = NX_FAKE_SEQS * l->window * kv->scratch_row_bytes;
	kv->win_layer_bytes = 2 * kv->win_v_offset;
	for (int32_t q = 0; q < NX_FAKE_SEQS; q++)
		for (int32_t b = 0; b < blocks; b++) /* backwards, and sequences mixed */
			s->table[q * blocks + b] = ((blocks - 1 - b) * NX_FAKE_SEQS + q) * bs;
	s->state.max_seqs = NX_FAKE_SEQS;
	s->state.len = s->len;
	s->state.last_token = s->last;
	kv->base = (uint8_t *)malloc((size_t)(NX_FAKE_LAYERS * kv->layer_bytes));
	kv->scratch = (uint8_t *)malloc((size_t)(NX_FAKE_LAYERS * kv->scratch_layer_bytes));
	kv->win = l->window > 1 ? (uint8_t *)malloc((size_t)(NX_FAKE_LAYERS * kv->win_layer_bytes))
	                        : NULL;
	if (kv->base && kv->scratch && (kv->win || l->window == 1)) {
		memset(kv->base, 0xff, (size_t)(NX_FAKE_LAYERS * kv->layer_bytes));
		return true;
	}
	nx_fake_store_release(s);
	return false;
}

/* One forward: n COMMIT rows and then a chain of n_draft candidates. Results in s->out. */
static inline int nx_fake_forward(struct nx_fake *f, struct nx_fake_store *s, int32_t n,
                                  int32_t n_draft, struct nx_err *err)
{
	struct nx_rows rows;
	struct nx_segment seg;
	struct nx_attention a;
	struct nx_codec_step step;
	int32_t len = s->len[NX_FAKE_SEQ], total = n + n_draft, rc = 0;
	memset(&rows, 0, sizeof(rows));
	rows.n_rows = total;
	rows.n_segments = 1;
	rows.anc_stride = n_draft;
	rows.max_keys = len + total;
	rows.seq = s->row[0];
	rows.token = s->row[1];
	rows.slot_off = s->row[2];
	rows.pos_off = s->row[3];
	rows.kind = s->row[4];
	rows.scratch = s->row[5];
	rows.n_anc = s->row[6];
	rows.anc = s->anc;
	rows.segments = &seg;
	seg.seq = NX_FAKE_SEQ;
	seg.row0 = 0;
	seg.n_rows = total;
	seg.max_keys = len + total;
	for (int32_t r = 0; r < total; r++) {
		int32_t d = r - n; /* drafted row */
		s->row[0][r] = NX_FAKE_SEQ;
		s->row[1][r] = 1;
		s->row[2][r] = s->row[3][r] = r;
		/* Drafts hang from the last COMMIT row: depth below it, over the length before it. */
		if (d >= 0)
			s->row[2][r] = s->row[3][r] = n - 1 + d + 1;
		s->row[4][r] = d < 0 ? NX_ROW_COMMIT : NX_ROW_CANDIDATE;
		s->row[5][r] = d < 0 ? -1 : d;
		s->row[6][r] = d < 0 ? 0 : d + 1;
		for (int32_t i = 0; i <= d; i++)
			s->anc[r * n_draft + i] = i;
		for (int32_t l = 0; l < NX_FAKE_LAYERS; l++)
			for (int32_t c = 0; c < NX_FAKE_COLS; c++)
				s->qkv[l][r * NX_FAKE_COLS + c] = nx_fake_number(l, len + r, c);
	}
	for (int32_t l = 0; l < NX_FAKE_LAYERS && !rc; l++) {
		struct nx_kv kv = s->kv;
		struct nx_seq_state state = s->state;
		struct nx_rows borrowed = rows;
		memset(&a, 0, sizeof(a));
		a.rows = &borrowed;
		a.state = &state;
		a.kv = &kv;
		a.layer = l;
		a.n_heads = NX_FAKE_HEADS;
		a.scale = 0.25f;
		a.q = s->qkv[l];
		a.q_stride = NX_FAKE_COLS;
		a.out = s->out[l];
		step.attention = &a;
		step.qkv = s->qkv[l];
		rc = f->t->codec_attend(f->self, NULL, &step, err);
		memset(&kv, 0xa5, sizeof(kv)); /* they were borrowed for the call */
		memset(&state, 0xa5, sizeof(state));
		memset(&borrowed, 0xa5, sizeof(borrowed));
		memset(&a, 0xa5, sizeof(a));
		memset(&step, 0xa5, sizeof(step));
	}
	nx_fake_sync(f);
	s->len[NX_FAKE_SEQ] += n;
	return rc;
}

/* Attention in double over unencoded keys and values: column c of the query at `position`. */
static inline double nx_fake_attention(int32_t layer, int32_t position, int32_t c)
{
	int32_t head = c / NX_FAKE_DIM, kv_head = head / (NX_FAKE_HEADS / NX_FAKE_KV_HEADS);
	int32_t k0 = (NX_FAKE_HEADS + kv_head) * NX_FAKE_DIM;
	int32_t v = k0 + NX_FAKE_KV_HEADS * NX_FAKE_DIM + c % NX_FAKE_DIM;
	double sum = 0, out = 0;
	for (int32_t p = 0; p <= position; p++) {
		double dot = 0;
		for (int32_t d = 0; d < NX_FAKE_DIM; d++)
			dot += (double)nx_fake_number(layer, position, head * NX_FAKE_DIM + d) *
			       (double)nx_fake_number(layer, p, k0 + d);
		double w = exp(0.25 * dot);
		sum += w;
		out += w * (double)nx_fake_number(layer, p, v);
	}
	return out / sum;
}

/*
 * The codec rule, checked: a prompt of 41 rows in one piece, the same in pieces, row by row, and with the last rows
 * as drafts must give the same bits; and all are within `tolerance` of attention over unencoded rows.
 */
static inline void nx_fake_codec(struct nx_fake *f, double tolerance)
{
	static const int32_t pieces[][8] = {{41}, {17, 1, 1, 5, 16, 1}, {1, 40}, {32, 9}};
	static float first[NX_FAKE_LAYERS][NX_FAKE_LEN * NX_FAKE_OUT];
	static struct nx_fake_store s;
	struct nx_codec_limits limits;
	struct nx_codec_layout l;
	struct nx_err err;
	double worst = 0;
	memset(&limits, 0, sizeof(limits));
	memset(&l, 0, sizeof(l));
	memset(&err, 0, sizeof(err));
	limits.n_layers = NX_FAKE_LAYERS;
	limits.n_heads = NX_FAKE_HEADS;
	limits.n_kv_heads = NX_FAKE_KV_HEADS;
	limits.head_dim = NX_FAKE_DIM;
	limits.max_seqs = NX_FAKE_SEQS;
	limits.max_rows = limits.max_len = NX_FAKE_LEN;
	limits.plain = NX_F32;
	if (!NX_CHECK(f->t->codec_layout(f->self, &limits, &l, &err) == 0, "codec_layout: %s",
	              err.msg))
		return;
	if (!NX_CHECK(l.row_bytes > 0 && l.window > 0 && l.window <= 32,
	              "a row has bytes, and a group 1 to 32 tokens for this test"))
		return;
	for (size_t i = 0; i < sizeof(pieces) / sizeof(pieces[0]); i++) {
		if (!nx_fake_store_init(&s, &l))
			return;
		for (int32_t k = 0, at = 0; k < 8 && pieces[i][k]; at += pieces[i][k++]) {
			int32_t n = pieces[i][k];
			size_t from = (size_t)at * NX_FAKE_OUT;
			size_t bytes = (size_t)n * NX_FAKE_OUT * sizeof(float);
			if (!NX_CHECK(nx_fake_forward(f, &s, n, 0, &err) == 0, "codec_attend: %s",
			              err.msg))
				break;
			for (int32_t y = 0; y < NX_FAKE_LAYERS; y++) {
				if (i == 0)
					memcpy(first[y], s.out[y], bytes);
				NX_CHECK(!memcmp(first[y] + from, s.out[y], bytes),
				         "rows %d to %d of layer %d do not depend on how the "
				         "prompt was cut",
				         at, at + n - 1, y);
			}
		}
		nx_fake_store_release(&s);
	}
	for (int32_t y = 0; y < NX_FAKE_LAYERS; y++)
		for (int32_t r = 0; r < 41; r++)
			for (int32_t c = 0; c < NX_FAKE_OUT; c++) {
				double d = fabs((double)first[y][r * NX_FAKE_OUT + c] -
				                nx_fake_attention(y, r, c));
				worst = d > worst ? d : worst;
			}
	NX_CHECK(worst <= tolerance, "the largest error is %g, at most %g was expected", worst,
	         tolerance);
	if (!nx_fake_store_init(&s, &l))
		return;
	nx_fake_forward(f, &s, 32, 0, &err);
	nx_fake_forward(f, &s, 1, l.window == 1 || l.window > NX_FAKE_DRAFTS ? NX_FAKE_DRAFTS : 0,
	                &err);
	for (int32_t y = 0; y < NX_FAKE_LAYERS; y++)
		NX_CHECK(!memcmp(first[y] + 32 * NX_FAKE_OUT, s.out[y],
		                 (l.window == 1 || l.window > NX_FAKE_DRAFTS ? 4u : 1u) *
		                         NX_FAKE_OUT * sizeof(float)),
		         "drafted rows of layer %d see what committed ones would", y);
	nx_fake_store_release(&s);
}

/* ---- weights ------------------------------------------------------------------------------------ */

static inline int nx_fake_rows(void *ctx, int64_t row0, int64_t n, float *dst, struct nx_err *err)
{
	const struct nx_weight_desc *d = (const struct nx_weight_desc *)ctx;
	(void)err;
	for (int64_t i = 0; i < n * d->k; i++)
		dst[i] = nx_fake_number(9, (int32_t)(row0 + i / d->k), (int32_t)(i % d->k));
	return 0;
}

/* Packs a matrix [24, 40] of that role and multiplies with each epilogue. True when it was packed, false when it
 * was left to the device. Errors are relative to the largest product. */
static inline bool nx_fake_weight(struct nx_fake *f, enum nx_weight_role role, double tolerance)
{
	enum { N = 24, K = 40, M = 3 };
	struct nx_weight_desc d;
	struct nx_linear a;
	struct nx_err err;
	float x[M * K], y[M * N], was[M * N];
	void *w = NULL;
	memset(&d, 0, sizeof(d));
	memset(&err, 0, sizeof(err));
	d.n = N;
	d.k = K;
	d.dtype = NX_F32;
	d.rows = nx_fake_rows;
	d.ctx = &d;
	int rc = f->t->weight_pack(f->self, &d, role, 0, &w, &err);
	if (rc == NX_WEIGHT_LEFT || !NX_CHECK(rc == 0 && w, "weight_pack: %s", err.msg))
		return false;
	NX_CHECK(f->t->weight_bytes(f->self, w) > 0, "a packed matrix has bytes");
	for (int e = NX_EPI_STORE; e <= NX_EPI_SWIGLU; e++) {
		double worst = 0, largest = 1e-9;
		int32_t cols = e == NX_EPI_SWIGLU ? N / 2 : N;
		for (int32_t i = 0; i < M * K; i++)
			x[i] = nx_fake_number(7, i, 0);
		for (int32_t i = 0; i < M * N; i++)
			was[i] = y[i] = nx_fake_number(8, i, 0);
		memset(&a, 0, sizeof(a));
		a.m = M;
		a.x = x;
		a.y = y;
		a.epilogue = (enum nx_epilogue)e;
		rc = f->t->weight_linear(f->self, NULL, w, &a, &err);
		if (!NX_CHECK(rc == 0, "weight_linear: %s", err.msg))
			break;
		memset(&a, 0xa5, sizeof(a)); /* it was borrowed for the call */
		nx_fake_sync(f);
		for (int32_t r = 0; r < M; r++)
			for (int32_t c = 0; c < cols; c++) {
				double p[2] = {0, 0}, want;
				for (int32_t h = 0; h < 2; h++)
					for (int32_t k = 0; k < K; k++)
						p[h] += (double)x[r * K + k] *
						        (double)nx_fake_number(
								9,
								e == NX_EPI_SWIGLU ? 2 * c + h : c,
								k);
				want = e == NX_EPI_STORE ? p[0]
				       : e == NX_EPI_ADD ? p[0] + (double)was[r * N + c]
				                         : p[0] / (1 + exp(-p[0])) * p[1];
				double err_abs = fabs(want - (double)y[r * cols + c]);
				worst = err_abs > worst ? err_abs : worst;
				largest = fabs(want) > largest ? fabs(want) : largest;
			}
		NX_CHECK(worst <= tolerance * largest, "epilogue %d: the error is %g of %g", e,
		         worst, largest);
	}
	f->t->weight_drop(f->self, w);
	return true;
}

#ifdef __cplusplus
}
#endif
#endif
