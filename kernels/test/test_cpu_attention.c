/* SPDX-License-Identifier: Apache-2.0 */
#include <check.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "kernel_test.h"

/*
 * A store whose rows hold noise that depends on an id alone: slot s holds id s, scratch rows hold ids given by the
 * test. So two stores with other block sizes, other places and other neighbours hold equal keys. What no row
 * may see is NaN.
 */
enum { MAX_ROWS = 128, LAYER = 1, N_LAYERS = 2, ANC_STRIDE = 16 };

struct world {
	struct rig r;
	struct nx_kv kv;
	struct nx_rows rows;
	struct nx_seq_state state;
	struct nx_segment segments[8];
	int32_t len[8], last[8];
	int32_t seq[MAX_ROWS], token[MAX_ROWS], slot_off[MAX_ROWS], kind[MAX_ROWS],
		scratch[MAX_ROWS];
	int32_t n_anc[MAX_ROWS], anc[MAX_ROWS * ANC_STRIDE];
	int32_t n_heads;
	int32_t *table;
	float *q, *out;
	size_t pool_bytes, scratch_bytes;
	int32_t next_block;
};

static void put_row(struct world *w, uint8_t *k, int64_t v_offset, int32_t name, int64_t id)
{
	int32_t width = w->kv.n_kv_heads * w->kv.head_dim;
	for (int part = 0; part < 2; part++)
		for (int32_t i = 0; i < width; i++) {
			float x = noise((uint64_t)name * 7919 + (uint64_t)id * 2 + (uint64_t)part,
			                (uint64_t)i);
			uint8_t *to = k + part * v_offset;
			if (w->kv.codec == NX_KV_F32) {
				memcpy(to + (size_t)i * 4, &x, 4);
			} else {
				float r = to_bf16(x);
				memcpy(to + (size_t)i * 2, (const uint8_t *)&r + 2, 2);
			}
		}
}

static void world_open(struct world *w, int isa, int threads, enum nx_kv_codec codec, int32_t heads,
                       int32_t kv_heads, int32_t dim, int32_t block, int32_t max_slots)
{
	memset(w, 0, sizeof(*w));
	if (!rig_open(&w->r, isa, threads, true))
		return;
	int64_t part = (int64_t)kv_heads * dim * (codec == NX_KV_F32 ? 4 : 2);
	int32_t blocks = (max_slots + block - 1) / block, pool_rows = (blocks * 8 + 3) * block;
	w->n_heads = heads;
	w->table = malloc(sizeof(int32_t) * (size_t)blocks * 8);
	for (int32_t i = 0; i < blocks * 8; i++)
		w->table[i] = -1;
	w->kv = (struct nx_kv){.codec = codec,
	                       .n_layers = N_LAYERS,
	                       .n_kv_heads = kv_heads,
	                       .head_dim = dim,
	                       .block_size = block,
	                       .table_stride = blocks,
	                       .table = w->table,
	                       .layer_bytes = pool_rows * part * 2,
	                       .row_bytes = part * 2,
	                       .v_offset = part,
	                       .scratch_layer_bytes = 8 * 32 * part * 2,
	                       .scratch_row_bytes = part * 2,
	                       .scratch_v_offset = part,
	                       .scratch_cap = 32};
	w->pool_bytes = (size_t)w->kv.layer_bytes * N_LAYERS;
	w->scratch_bytes = (size_t)w->kv.scratch_layer_bytes * N_LAYERS;
	w->kv.base = w->r.ops->alloc(w->r.dev, w->pool_bytes); /* poisoned: NaN */
	w->kv.scratch = w->r.ops->alloc(w->r.dev, w->scratch_bytes);
	ck_assert(w->kv.base && w->kv.scratch);
	w->next_block = blocks * 8; /* handed out downwards: neighbours in a sequence lie apart */
	w->state = (struct nx_seq_state){8, w->len, w->last};
	w->rows = (struct nx_rows){.seq = w->seq,
	                           .token = w->token,
	                           .slot_off = w->slot_off,
	                           .pos_off = w->slot_off,
	                           .kind = w->kind,
	                           .scratch = w->scratch,
	                           .n_anc = w->n_anc,
	                           .anc = w->anc,
	                           .anc_stride = ANC_STRIDE,
	                           .segments = w->segments};
	w->q = malloc(sizeof(float) * MAX_ROWS * (size_t)(heads * dim));
	w->out = malloc(sizeof(float) * MAX_ROWS * (size_t)(heads * dim));
}

static void world_close(struct world *w)
{
	w->r.ops->free(w->r.dev, w->kv.base, w->pool_bytes);
	w->r.ops->free(w->r.dev, w->kv.scratch, w->scratch_bytes);
	free(w->table);
	free(w->q);
	free(w->out);
	rig_close(&w->r);
}

static void fill_slot(struct world *w, int32_t seq, int32_t slot, int32_t name, int64_t id)
{
	int32_t *entry = &w->table[seq * w->kv.table_stride + slot / w->kv.block_size];
	if (*entry < 0)
		*entry = --w->next_block * w->kv.block_size;
	put_row(w,
	        w->kv.base + LAYER * w->kv.layer_bytes +
	                (*entry + slot % w->kv.block_size) * w->kv.row_bytes,
	        w->kv.v_offset, name, id);
}

/* A segment of n COMMIT (or REDO) rows after len committed ones; name seeds its content, whatever its place. */
static void add_plain(struct world *w, int32_t seq, int32_t name, int32_t len, int32_t n,
                      int32_t kind)
{
	int32_t row0 = w->rows.n_rows, width = w->n_heads * w->kv.head_dim;
	w->len[seq] = len;
	for (int32_t s = 0; s < len + n; s++)
		fill_slot(w, seq, s, name, s);
	for (int32_t i = 0; i < n; i++) {
		int32_t r = row0 + i;
		w->seq[r] = seq;
		w->slot_off[r] = i;
		w->kind[r] = kind;
		w->scratch[r] = -1;
		w->n_anc[r] = 0;
		for (int32_t d = 0; d < width; d++)
			w->q[r * width + d] =
				3 * noise((uint64_t)(1000000 + name * 4096 + len + i), (uint64_t)d);
	}
	w->segments[w->rows.n_segments++] = (struct nx_segment){seq, row0, n, len + n};
	w->rows.n_rows += n;
	w->rows.max_keys = len + n > w->rows.max_keys ? len + n : w->rows.max_keys;
}

/* Adds drafted rows to the last segment: node i has parent[i] (-1: the root), id 1000 + i, scratch row 3 + i. */
static void add_tree(struct world *w, int32_t name, const int32_t *parent, int32_t n)
{
	struct nx_segment *seg = &w->segments[w->rows.n_segments - 1];
	int32_t width = w->n_heads * w->kv.head_dim, row0 = w->rows.n_rows;
	for (int32_t i = 0; i < n; i++) {
		int32_t r = row0 + i, depth = 0;
		for (int32_t p = i; p >= 0; p = parent[p])
			depth++;
		w->seq[r] = seg->seq;
		w->kind[r] = i % 2 ? NX_ROW_CANDIDATE : NX_ROW_PROBE;
		w->scratch[r] = 3 + i;
		w->n_anc[r] = depth;
		w->slot_off[r] = depth; /* the root is slot_off 0 */
		int32_t at = depth;
		for (int32_t p = i; p >= 0; p = parent[p])
			w->anc[r * ANC_STRIDE + --at] = 3 + p;
		put_row(w,
		        w->kv.scratch + LAYER * w->kv.scratch_layer_bytes +
		                ((int64_t)seg->seq * w->kv.scratch_cap + 3 + i) *
		                        w->kv.scratch_row_bytes,
		        w->kv.scratch_v_offset, name, 1000 + i);
		for (int32_t d = 0; d < width; d++)
			w->q[r * width + d] = 3 * noise(2000000 + (uint64_t)i, (uint64_t)d);
		int32_t keys = w->len[seg->seq] + depth + 1;
		seg->max_keys = keys > seg->max_keys ? keys : seg->max_keys;
		w->rows.max_keys = keys > w->rows.max_keys ? keys : w->rows.max_keys;
	}
	seg->n_rows += n;
	w->rows.n_rows += n;
}

static void attend(struct world *w, enum nx_attn_kernel kernel, int32_t chunk)
{
	const struct nx_device_ops *ops = w->r.ops;
	int32_t dim = w->kv.head_dim;
	size_t bytes = ops->attention_workspace(w->r.dev, kernel, chunk, w->n_heads, dim,
	                                        w->rows.n_rows, w->rows.max_keys);
	void *workspace = ops->alloc(w->r.dev, bytes);
	memset(w->out, 0xff, sizeof(float) * (size_t)(w->rows.n_rows * w->n_heads * dim));
	struct nx_attention a = {.rows = &w->rows,
	                         .state = &w->state,
	                         .kv = &w->kv,
	                         .layer = LAYER,
	                         .n_heads = w->n_heads,
	                         .scale = 1 / sqrtf((float)dim),
	                         .q = w->q,
	                         .q_stride = (int64_t)w->n_heads * dim,
	                         .out = w->out,
	                         .kernel = kernel,
	                         .kv_chunk = chunk,
	                         .workspace = workspace,
	                         .workspace_bytes = bytes};
	rig_ok(&w->r, ops->attention(w->r.dev, NULL, &a, &w->r.err));
	ops->free(w->r.dev, workspace, bytes);
}

static float stored(const struct world *w, const uint8_t *row, int64_t i)
{
	float x = 0;
	if (w->kv.codec == NX_KV_F32)
		memcpy(&x, row + i * 4, 4);
	else
		memcpy((uint8_t *)&x + 2, row + i * 2, 2);
	return x;
}

/*
 * Against float64, written apart from kernels/cpu. With |q k| scores of dim terms off by dim 2^-24 sum|q k| each and
 * probabilities that add to 1, the output is off by at most 2 (score error) max|v|, and some 2^-22 for exp, sums of
 * n terms and the merges: all |v| <= 1 here.
 */
static void check_rows(const struct world *w, const char *what)
{
	int32_t dim = w->kv.head_dim, group = w->n_heads / w->kv.n_kv_heads;
	for (int32_t r = 0; r < w->rows.n_rows; r++)
		for (int32_t h = 0; h < w->n_heads; h++) {
			const float *q = w->q + ((int64_t)r * w->n_heads + h) * dim;
			int32_t seq = w->seq[r],
				table_keys = w->len[seq] + w->slot_off[r] + 1 - w->n_anc[r];
			int32_t n = table_keys + w->n_anc[r];
			double *score = malloc(sizeof(double) * (size_t)n), max = -1e300, total = 0,
			       worst = 0;
			const uint8_t **value = malloc(sizeof(*value) * (size_t)n);
			for (int32_t i = 0; i < n; i++) {
				const uint8_t *k;
				if (i < table_keys) {
					int32_t first = w->table[seq * w->kv.table_stride +
					                         i / w->kv.block_size];
					k = w->kv.base + LAYER * w->kv.layer_bytes +
					    (first + i % w->kv.block_size) * w->kv.row_bytes;
					value[i] = k + w->kv.v_offset;
				} else {
					int32_t a = w->anc[r * ANC_STRIDE + i - table_keys];
					k = w->kv.scratch + LAYER * w->kv.scratch_layer_bytes +
					    (seq * w->kv.scratch_cap + a) * w->kv.scratch_row_bytes;
					value[i] = k + w->kv.scratch_v_offset;
				}
				double size = 0;
				score[i] = 0;
				for (int32_t d = 0; d < dim; d++) {
					double p = (double)q[d] *
					           stored(w, k, (int64_t)(h / group) * dim + d);
					score[i] += p;
					size += fabs(p);
				}
				score[i] /= sqrt(dim);
				worst = fmax(worst, size / sqrt(dim));
				max = fmax(max, score[i]);
			}
			for (int32_t i = 0; i < n; i++)
				total += score[i] = exp(score[i] - max);
			double tol =
				2 * (dim + 2) * ldexp(1, -24) * worst + (n + 8) * ldexp(1, -22);
			for (int32_t d = 0; d < dim; d++) {
				double want = 0;
				for (int32_t i = 0; i < n; i++)
					want += score[i] / total *
					        stored(w, value[i], (int64_t)(h / group) * dim + d);
				double got = w->out[((int64_t)r * w->n_heads + h) * dim + d];
				ck_assert_msg(fabs(got - want) <= tol,
				              "%s: row %d head %d [%d]: %g, not %g (+- %g)", what,
				              r, h, d, got, want, tol);
			}
			free(score);
			free(value);
		}
}

static const int32_t tree[] = {-1, -1, 0, 0, 1, 2, 5, 6};
#define N_NODES 8

/* Ragged: decode, prefill, verify with a tree, a prefill chunk and a REDO row. */
static void fill_ragged(struct world *w)
{
	add_plain(w, 3, 0, 130, 1, NX_ROW_COMMIT);
	add_plain(w, 0, 1, 0, 37, NX_ROW_COMMIT);
	add_plain(w, 5, 2, 61, 1, NX_ROW_COMMIT);
	add_tree(w, 2, tree, N_NODES);
	add_plain(w, 1, 3, 20, 9, NX_ROW_PAD);
	add_plain(w, 2, 4, 64, 1, NX_ROW_REDO);
}

static const struct {
	int32_t heads, kv_heads, dim, block, chunk;
} shapes[] = {{1, 1, 16, 1, 64},    {4, 2, 8, 16, 16},   {6, 2, 24, 7, 50},   {9, 3, 64, 16, 32},
              {2, 1, 40, 256, 128}, {8, 1, 128, 32, 64}, {2, 2, 256, 5, 100}, {70, 1, 16, 16, 48},
              {2, 1, 33, 16, 64},   {2, 1, 300, 16, 64}};
#define N_SHAPES ((int)(sizeof(shapes) / sizeof(shapes[0])))

START_TEST(attention_matches_float64)
{
	for (int isa = 0; isa < N_ISAS; isa++)
		for (int codec = 0; codec < 2; codec++)
			for (int kernel = 0; kernel < 2; kernel++) {
				struct world w;
				char what[64];
				world_open(&w, isa, 1 + (_i + codec) % 3, (enum nx_kv_codec)codec,
				           shapes[_i].heads, shapes[_i].kv_heads, shapes[_i].dim,
				           shapes[_i].block, 160);
				if (!w.r.dev)
					continue;
				fill_ragged(&w);
				attend(&w, (enum nx_attn_kernel)kernel, shapes[_i].chunk);
				snprintf(what, sizeof(what), "%s codec %d kernel %d", isa_name(isa),
				         codec, kernel);
				check_rows(&w, what);
				world_close(&w);
			}
}
END_TEST

/* The decode row of fill_ragged(), alone and in company, over other block sizes and numbers of threads. */
START_TEST(a_row_has_the_same_bits_in_every_company)
{
	for (int isa = 1; isa < N_ISAS; isa++)
		for (int kernel = 0; kernel < 2; kernel++) {
			struct world base;
			world_open(&base, isa, 1, NX_KV_BF16, 6, 2, 32, 160, 160);
			if (!base.r.dev)
				continue;
			fill_ragged(&base);
			attend(&base, (enum nx_attn_kernel)kernel, 32);
			for (int variant = 0; variant < 12; variant++) {
				static const int32_t block[] = {1, 16, 7, 64};
				struct world w;
				world_open(&w, isa, 1 + variant % 3, NX_KV_BF16, 6, 2, 32,
				           block[variant % 4], 160);
				int32_t row = 0, n = 1;
				if (variant < 4) {
					fill_ragged(&w);
					n = w.rows.n_rows;
				} else if (variant < 8) {
					add_plain(&w, 6, 0, 130, 1, NX_ROW_COMMIT);
				} else { /* the last of the prompt's rows, after a chunk that came before */
					add_plain(&w, 4, 1, 30 + variant - 8, 7 - (variant - 8),
					          NX_ROW_COMMIT);
					row = 1 + 30 + variant - 8;
					n = 7 - (variant - 8);
				}
				attend(&w, (enum nx_attn_kernel)kernel, 32);
				ck_assert_msg(!memcmp(w.out, base.out + (size_t)row * 6 * 32,
				                      sizeof(float) * (size_t)n * 6 * 32),
				              "%s kernel %d variant %d", isa_name(isa), kernel,
				              variant);
				world_close(&w);
			}
			world_close(&base);
		}
}
END_TEST

/* Every node of a drafted tree equals the last row of the plain sequence root..node, to the bit. */
START_TEST(a_tree_node_equals_its_plain_sequence)
{
	int32_t len = 55 + _i; /* the tree falls before, across and after a tile's edge */
	for (int isa = 0; isa < N_ISAS; isa++)
		for (int kernel = 0; kernel < 2; kernel++) {
			struct world w, plain;
			world_open(&w, isa, 2, NX_KV_F32, 4, 2, 32, 16, 96);
			if (!w.r.dev)
				continue;
			add_plain(&w, 2, 5, len, 1, NX_ROW_COMMIT);
			add_tree(&w, 5, tree, N_NODES);
			attend(&w, (enum nx_attn_kernel)kernel, 64);
			for (int32_t node = 0; node < N_NODES; node++) {
				int32_t depth = w.n_anc[1 + node];
				world_open(&plain, isa, 1, NX_KV_F32, 4, 2, 32, 8, 96);
				add_plain(&plain, 0, 5, len + depth, 1, NX_ROW_COMMIT);
				for (int32_t p = node, d = depth; p >= 0; p = tree[p], d--)
					put_row(&plain,
					        plain.kv.base + LAYER * plain.kv.layer_bytes +
					                (plain.table[(len + d) / 8] +
					                 (len + d) % 8) *
					                        plain.kv.row_bytes,
					        plain.kv.v_offset, 5, 1000 + p);
				memcpy(plain.q, w.q + (1 + node) * 4 * 32, sizeof(float) * 4 * 32);
				attend(&plain, (enum nx_attn_kernel)kernel, 64);
				ck_assert_msg(!memcmp(plain.out, w.out + (1 + node) * 4 * 32,
				                      sizeof(float) * 4 * 32),
				              "%s kernel %d node %d", isa_name(isa), kernel, node);
				world_close(&plain);
			}
			world_close(&w);
		}
}
END_TEST

START_TEST(broken_promises_are_refused)
{
	struct world w;
	world_open(&w, 0, 1, NX_KV_F32, 2, 1, 16, 16, 64);
	add_plain(&w, 0, 0, 20, 1, NX_ROW_COMMIT);
	float workspace[64];
	struct nx_attention a = {.rows = &w.rows,
	                         .state = &w.state,
	                         .kv = &w.kv,
	                         .layer = LAYER,
	                         .n_heads = 2,
	                         .scale = 1,
	                         .q = w.q,
	                         .q_stride = 32,
	                         .out = w.out,
	                         .kernel = NX_ATTN_MATERIALISED,
	                         .workspace = workspace,
	                         .workspace_bytes = 4};
	ck_assert_int_eq(w.r.ops->attention(w.r.dev, NULL, &a, &w.r.err), NX_EINVAL);
	w.rows.max_keys = 20;
	ck_assert_int_eq(w.r.ops->attention(w.r.dev, NULL, &a, &w.r.err), NX_EBUG);
	w.rows.max_keys = 21;
	w.table[1] = -1;
	ck_assert_int_eq(w.r.ops->attention(w.r.dev, NULL, &a, &w.r.err), NX_EBUG);
	world_close(&w);
}
END_TEST

int main(void)
{
	Suite *s = suite_create("cpu_attention");
	TCase *tc = tcase_create("attention");
	tcase_set_timeout(tc, 120);
	tcase_add_loop_test(tc, attention_matches_float64, 0, N_SHAPES);
	tcase_add_test(tc, a_row_has_the_same_bits_in_every_company);
	tcase_add_loop_test(tc, a_tree_node_equals_its_plain_sequence, 0, 10);
	tcase_add_test(tc, broken_promises_are_refused);
	suite_add_tcase(s, tc);
	SRunner *sr = srunner_create(s);
	srunner_run_all(sr, CK_NORMAL);
	int failed = srunner_ntests_failed(sr);
	srunner_free(sr);
	return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}
