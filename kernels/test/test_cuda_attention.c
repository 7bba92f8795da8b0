/* SPDX-License-Identifier: Apache-2.0
 *
 * test_cuda_attention.c: attention of the CUDA backend beside the CPU's reference, over one store. What no row may
 * see is NaN, and so are outputs and workspace before a call.
 */
#include <check.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cuda_test.h"

enum { MAX_ROWS = 160, MAX_SEQS = 72, LAYER = 1, N_LAYERS = 2, ANC_STRIDE = 16, SCRATCH_CAP = 64 };

struct plan {
	enum nx_dtype act;
	enum nx_kv_codec codec;
	enum nx_attn_kernel kernel;
	bool invariant;
	int32_t kv_heads, group, dim, block, chunk, max_slots;
	bool planes; /* K and V of a layer lie in two planes, not side by side */
};

/* Slot s of a sequence of name n holds noise of (n, s), scratch rows of (n, id): stores with other blocks, places
 * and neighbours hold equal keys. */
struct world {
	struct both b;
	struct plan p;
	struct nx_kv kv;
	struct nx_rows rows;
	struct nx_seq_state state;
	struct nx_segment *segments;
	int32_t *len, *seq, *slot_off, *kind, *n_anc, *anc, *table;
	uint64_t *q_name; /* [MAX_ROWS] what a row's q depends on */
	int32_t n_heads, next_block, blocks;
	int64_t width; /* elements of q of a row */
	int32_t n_seqs;
	struct both_act q, out;
};

static void put(enum nx_kv_codec codec, uint8_t *to, int64_t i, float x)
{
	if (codec == NX_KV_F32) {
		memcpy(to + i * 4, &x, 4);
	} else {
		float r = to_bf16(x);
		memcpy(to + i * 2, (const uint8_t *)&r + 2, 2);
	}
}

static void put_row(struct world *w, uint8_t *k, int64_t v_offset, int32_t name, int64_t id)
{
	int32_t width = w->kv.n_kv_heads * w->kv.head_dim;
	for (int part = 0; part < 2; part++)
		for (int32_t i = 0; i < width; i++)
			put(w->kv.codec, k + part * v_offset, i,
			    noise((uint64_t)name * 7919 + (uint64_t)id * 2 + (uint64_t)part,
			          (uint64_t)i));
}

static void world_open(struct world *w, const struct plan *p, int32_t n_seqs)
{
	memset(w, 0, sizeof(*w));
	both_open(&w->b, p->act, p->invariant);
	w->p = *p;
	int64_t part = (int64_t)p->kv_heads * p->dim * (p->codec == NX_KV_F32 ? 4 : 2);
	int32_t blocks = (p->max_slots + p->block - 1) / p->block,
		pool_rows = (blocks * n_seqs + 2) * p->block;
	w->blocks = blocks;
	w->n_seqs = n_seqs;
	w->n_heads = p->kv_heads * p->group;
	w->width = (int64_t)w->n_heads * p->dim;
	w->table = both_mem(&w->b, sizeof(int32_t) * (size_t)(blocks * n_seqs)); /* -1 */
	w->kv = (struct nx_kv){.codec = p->codec,
	                       .n_layers = N_LAYERS,
	                       .n_kv_heads = p->kv_heads,
	                       .head_dim = p->dim,
	                       .block_size = p->block,
	                       .table_stride = blocks,
	                       .table = w->table,
	                       .layer_bytes = pool_rows * part * 2,
	                       .row_bytes = p->planes ? part : part * 2,
	                       .v_offset = p->planes ? pool_rows * part : part,
	                       .scratch_layer_bytes = n_seqs * SCRATCH_CAP * part * 2,
	                       .scratch_row_bytes = p->planes ? part : part * 2,
	                       .scratch_v_offset = p->planes ? n_seqs * SCRATCH_CAP * part : part,
	                       .scratch_cap = SCRATCH_CAP};
	w->kv.base = both_mem(&w->b, (size_t)w->kv.layer_bytes * N_LAYERS);
	w->kv.scratch = both_mem(&w->b, (size_t)w->kv.scratch_layer_bytes * N_LAYERS);
	w->next_block = blocks * n_seqs; /* handed out downwards: neighbours lie apart */
	w->len = both_mem(&w->b, sizeof(int32_t) * (size_t)n_seqs);
	w->seq = both_mem(&w->b, sizeof(int32_t) * MAX_ROWS);
	w->slot_off = both_mem(&w->b, sizeof(int32_t) * MAX_ROWS);
	w->kind = both_mem(&w->b, sizeof(int32_t) * MAX_ROWS);
	w->n_anc = both_mem(&w->b, sizeof(int32_t) * MAX_ROWS);
	w->anc = both_mem(&w->b, sizeof(int32_t) * MAX_ROWS * ANC_STRIDE);
	w->segments = both_mem(&w->b, sizeof(struct nx_segment) * MAX_ROWS);
	w->q_name = calloc(MAX_ROWS, sizeof(*w->q_name));
	w->state = (struct nx_seq_state){n_seqs, w->len, w->len};
	w->rows = (struct nx_rows){.seq = w->seq,
	                           .slot_off = w->slot_off,
	                           .pos_off = w->slot_off,
	                           .kind = w->kind,
	                           .n_anc = w->n_anc,
	                           .anc = w->anc,
	                           .anc_stride = ANC_STRIDE,
	                           .segments = w->segments};
}

static void world_close(struct world *w)
{
	free(w->q_name);
	both_close(&w->b);
}

static uint8_t *slot_at(struct world *w, int32_t seq, int32_t slot)
{
	int32_t *entry = &w->table[seq * w->kv.table_stride + slot / w->kv.block_size];
	if (*entry < 0)
		*entry = --w->next_block * w->kv.block_size;
	return w->kv.base + LAYER * w->kv.layer_bytes +
	       (*entry + slot % w->kv.block_size) * w->kv.row_bytes;
}

static uint8_t *scratch_at(struct world *w, int32_t seq, int32_t i)
{
	return w->kv.scratch + LAYER * w->kv.scratch_layer_bytes +
	       ((int64_t)seq * w->kv.scratch_cap + i) * w->kv.scratch_row_bytes;
}

static void see(struct world *w, struct nx_segment *seg, int32_t keys)
{
	seg->max_keys = keys > seg->max_keys ? keys : seg->max_keys;
	w->rows.max_keys = keys > w->rows.max_keys ? keys : w->rows.max_keys;
}

/* A segment of n rows of a kind after len committed ones. */
static void add_plain(struct world *w, int32_t seq, int32_t name, int32_t len, int32_t n,
                      int32_t kind)
{
	ck_assert_int_le(w->rows.n_rows + n, MAX_ROWS);
	struct nx_segment *seg = &w->segments[w->rows.n_segments++];
	*seg = (struct nx_segment){seq, w->rows.n_rows, n, 0};
	w->len[seq] = len;
	for (int32_t s = 0; s < len + n; s++)
		put_row(w, slot_at(w, seq, s), w->kv.v_offset, name, s);
	for (int32_t i = 0; i < n; i++) {
		int32_t r = w->rows.n_rows++;
		w->seq[r] = seq;
		w->slot_off[r] = i;
		w->kind[r] = kind;
		w->n_anc[r] = 0;
		w->q_name[r] = (uint64_t)(name * 100003 + len + i) * 2 + 1;
	}
	see(w, seg, len + n);
}

/* Not one after the other, and in more than one word of bits. */
static int32_t scratch_of(int32_t node)
{
	return 3 + 4 * node;
}

/* Adds drafted rows to the last segment: node i has parent[i] (-1: the root), id 100000 + i. */
static void add_tree(struct world *w, int32_t name, const int32_t *parent, int32_t n)
{
	struct nx_segment *seg = &w->segments[w->rows.n_segments - 1];
	ck_assert_int_le(w->rows.n_rows + n, MAX_ROWS);
	for (int32_t i = 0; i < n; i++) {
		int32_t r = w->rows.n_rows++, depth = 0;
		for (int32_t p = i; p >= 0; p = parent[p])
			depth++;
		w->seq[r] = seg->seq;
		w->kind[r] = i % 2 ? NX_ROW_CANDIDATE : NX_ROW_PROBE;
		w->n_anc[r] = depth;
		w->slot_off[r] = depth; /* the root is slot_off 0 */
		int32_t at = depth;
		for (int32_t p = i; p >= 0; p = parent[p])
			w->anc[r * ANC_STRIDE + --at] = scratch_of(p);
		put_row(w, scratch_at(w, seg->seq, scratch_of(i)), w->kv.scratch_v_offset, name,
		        100000 + i);
		w->q_name[r] = (uint64_t)(name * 100003 + i) * 2;
		see(w, seg, w->len[seg->seq] + depth + 1);
	}
	seg->n_rows += n;
}

/* q has room between rows, as in the engine's qkv. */
static int64_t stride_of(const struct world *w)
{
	return w->width + 2 * (int64_t)w->p.kv_heads * w->p.dim;
}

static struct nx_attention call_of(struct world *w)
{
	return (struct nx_attention){.rows = &w->rows,
	                             .state = &w->state,
	                             .kv = &w->kv,
	                             .layer = LAYER,
	                             .n_heads = w->n_heads,
	                             .scale = 1 / sqrtf((float)w->p.dim),
	                             .q_stride = stride_of(w),
	                             .kernel = w->p.kernel,
	                             .kv_chunk = w->p.chunk};
}

/* Runs the GPU's into w->out, and the CPU's too if wanted. */
static void attend(struct world *w, bool reference)
{
	int64_t stride = stride_of(w);
	if (!w->q.n) {
		w->q = both_act(&w->b, w->rows.n_rows * stride, 0, 0);
		for (int32_t r = 0; r < w->rows.n_rows; r++)
			for (int64_t i = 0; i < w->width; i++) {
				float x = 3 * noise(w->q_name[r], (uint64_t)i);
				int64_t at = r * stride + i;
				if (w->p.act == NX_BF16)
					x = to_bf16(x);
				put(w->p.act == NX_F32 ? NX_KV_F32 : NX_KV_BF16, w->q.gpu, at, x);
				w->q.cpu[at] = x;
			}
	}
	w->out = both_act(&w->b, w->rows.n_rows * w->width, 0, 0);
	struct nx_attention a = call_of(w);
	struct rig *gpu = &w->b.gpu, *cpu = &w->b.cpu;
	a.workspace_bytes =
		gpu->ops->attention_workspace(gpu->dev, a.kernel, a.kv_chunk, a.n_heads, w->p.dim,
	                                      w->rows.n_rows, w->rows.max_keys);
	uint8_t *workspace = both_mem(&w->b, a.workspace_bytes + 64);
	a.workspace = workspace;
	a.q = w->q.gpu;
	a.out = w->out.gpu;
	rig_ok(gpu, gpu->ops->attention(gpu->dev, NULL, &a, &gpu->err));
	for (int i = 0; i < 64; i++)
		ck_assert_msg(workspace[a.workspace_bytes + (size_t)i] == 0xff,
		              "the workspace's end is written over");
	if (!reference)
		return;
	a.kernel = NX_ATTN_TILED; /* the reference is one for both, and its workspace is not used */
	a.workspace_bytes =
		cpu->ops->attention_workspace(cpu->dev, a.kernel, a.kv_chunk, a.n_heads, w->p.dim,
	                                      w->rows.n_rows, w->rows.max_keys);
	a.q = w->q.cpu;
	a.out = w->out.cpu;
	rig_ok(cpu, cpu->ops->attention(cpu->dev, NULL, &a, &cpu->err));
}

static const char *say(const struct plan *p)
{
	static char text[200];
	snprintf(text, sizeof(text),
	         "%s, %s KV, %s%s, %dx%d heads of %d, blocks of %d, chunks of %d",
	         p->act == NX_F32 ? "f32" : "bf16", p->codec == NX_KV_F32 ? "f32" : "bf16",
	         p->kernel == NX_ATTN_TILED ? "tiled" : "materialised",
	         p->invariant ? " invariant" : "", p->kv_heads, p->group, p->dim, p->block,
	         p->chunk);
	return text;
}

/*
 * f32: sums of a few thousand terms and exp2 within a few ulp: 2e-5. bf16: the output is rounded (2^-9), and on tensor
 * cores so are the weights exp(score - max) before they meet values of at most 1: 2^-9 more at worst, and as much
 * again for the sums of both.
 */
static void compare(struct world *w)
{
	if (w->p.act == NX_F32)
		both_compare(&w->b, &w->out, 2e-5, 2e-5, say(&w->p));
	else
		both_compare(&w->b, &w->out, 0.006, 0.008, say(&w->p));
}

static const int32_t tree[] = {-1, -1, 0, 0, 1, 2, 5, 6};
static const int32_t chain[] = {-1, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12};
#define N_NODES 8
#define N_CHAIN 14

static uint64_t state;
static int32_t draw(int32_t n)
{
	state = state * 6364136223846793005u + 1442695040888963407u;
	return (int32_t)((state >> 33) % (uint64_t)n);
}

static int32_t pick(const int32_t *from, int n)
{
	return from[draw(n)];
}
#define PICK(...)                                                                                  \
	pick((const int32_t[]){__VA_ARGS__},                                                       \
	     (int)(sizeof((const int32_t[]){__VA_ARGS__}) / sizeof(int32_t)))

static struct plan draw_plan(int i)
{
	struct plan p = {.act = i % 3 ? NX_BF16 : NX_F32, .invariant = draw(2)};
	p.codec = draw(6) ? (p.act == NX_F32 ? NX_KV_F32 : NX_KV_BF16)
	                  : (p.act == NX_F32 ? NX_KV_BF16 : NX_KV_F32);
	p.kernel = draw(4) ? NX_ATTN_TILED : NX_ATTN_MATERIALISED;
	p.kv_heads = 1 + draw(3);
	p.group = PICK(1, 1, 2, 3, 4, 4, 5, 6, 7, 8, 8, 20, 40);
	p.dim = PICK(8, 16, 32, 64, 64, 64, 80, 128, 128, 128, 256);
	p.block = PICK(1, 2, 3, 8, 16, 16, 64, 0);
	p.chunk = PICK(16, 50, 64, 100, 256, 256, 1000, 65536);
	p.planes = draw(2);
	return p;
}

/* Segments of all sorts over one draw of shapes. Work is bounded: the reference is slow. */
START_TEST(any_shape_matches_the_reference)
{
	state = 77 + (uint64_t)_i * 1000003;
	struct plan p = draw_plan(_i);
	struct world w;
	static const int32_t longest[] = {20, 70, 300, 1100, 5000};
	int32_t max_len = pick(longest, 5), n_seqs = PICK(1, 1, 2, 5, 17, 64);
	int64_t work = 40000000 / ((int64_t)p.kv_heads * p.group * p.dim);
	p.max_slots = max_len + 70;
	if (!p.block)
		p.block = p.max_slots;
	int64_t bytes = (int64_t)p.kv_heads * p.dim * 16 * p.max_slots;
	while (n_seqs > 1 && bytes * n_seqs > 200000000)
		n_seqs /= 2;
	world_open(&w, &p, n_seqs);
	for (int32_t s = 0; s < n_seqs; s++) {
		int32_t n = n_seqs > 20 ? 1 : PICK(1, 1, 2, 5, 8, 16, 17, 64), what = draw(5);
		int32_t len = draw(max_len + 1);
		if (n > MAX_ROWS - w.rows.n_rows - (n_seqs - s) - N_CHAIN)
			n = 1;
		while (len > 0 && (int64_t)(len + n) * n > work)
			len /= 2;
		work -= (int64_t)(len + n) * n;
		work = work < 0 ? 0 : work;
		int32_t kind = what == 3 ? NX_ROW_PAD : what == 4 ? NX_ROW_REDO : NX_ROW_COMMIT;
		add_plain(&w, s, s, len, n, kind);
		if (what == 1 && n == 1 && w.rows.n_rows + N_CHAIN < MAX_ROWS - n_seqs + s)
			add_tree(&w, s, tree, N_NODES);
		else if (what == 2 && n == 1 && w.rows.n_rows + N_CHAIN < MAX_ROWS - n_seqs + s)
			add_tree(&w, s, chain, N_CHAIN);
	}
	/* As the engine says it where nothing is drafted. */
	bool drafted = false;
	for (int32_t r = 0; r < w.rows.n_rows; r++)
		drafted |= w.n_anc[r] > 0;
	if (!drafted && draw(4))
		w.rows.anc_stride = 0;
	/* The host knows bounds only. */
	w.rows.max_keys += draw(3);
	w.segments[0].max_keys += draw(2);
	if (w.segments[0].max_keys > w.rows.max_keys)
		w.rows.max_keys = w.segments[0].max_keys;
	attend(&w, true);
	compare(&w);
	/* And again: the same bits. */
	struct both_act first = w.out;
	attend(&w, false);
	ck_assert_msg(!memcmp(first.gpu, w.out.gpu, (size_t)first.n * nx_dtype_bytes(p.act)),
	              "two calls differ: %s", say(&p));
	world_close(&w);
}
END_TEST

/* Many sequences of which few are long: runs of chunks over all of them. */
START_TEST(uneven_lengths_match_the_reference)
{
	state = 99 + (uint64_t)_i;
	static const int32_t dims[] = {64, 128}, groups[] = {1, 4}, chunks[] = {256, 100, 37};
	struct plan p = {NX_BF16,
	                 NX_KV_BF16,
	                 NX_ATTN_TILED,
	                 false,
	                 3,
	                 groups[_i / 2 % 2],
	                 dims[_i % 2],
	                 16,
	                 chunks[_i % 3],
	                 2300,
	                 (_i & 1) != 0};
	struct world w;
	world_open(&w, &p, 46);
	for (int32_t s = 0; s < 46; s++) {
		add_plain(&w, s, s, s % 15 == 4 ? 2100 + draw(100) : draw(300), 1, NX_ROW_COMMIT);
		if (_i >= 4 && (s == 4 || s == 9))
			add_tree(&w, s, tree, N_NODES);
	}
	if (_i < 4)
		w.rows.anc_stride = 0;
	attend(&w, true);
	compare(&w);
	struct both_act first = w.out;
	attend(&w, false);
	ck_assert_msg(!memcmp(first.gpu, w.out.gpu, (size_t)first.n * 2), "two calls differ: %s",
	              say(&p));
	world_close(&w);
}
END_TEST

static const struct plan bit_plans[] = {
	{NX_BF16, NX_KV_BF16, NX_ATTN_TILED, true, 2, 4, 128, 16, 256, 700, false},
	{NX_BF16, NX_KV_BF16, NX_ATTN_TILED, true, 2, 3, 64, 16, 64, 700, false},
	{NX_BF16, NX_KV_BF16, NX_ATTN_TILED, true, 1, 8, 128, 16, 50, 700, false},
	{NX_BF16, NX_KV_BF16, NX_ATTN_TILED, true, 3, 1, 128, 16, 65536, 700, false},
	{NX_F32, NX_KV_F32, NX_ATTN_TILED, true, 2, 3, 64, 16, 64, 700, false},
	{NX_BF16, NX_KV_BF16, NX_ATTN_TILED, true, 2, 6, 80, 16, 64, 700, false},
	{NX_BF16, NX_KV_BF16, NX_ATTN_MATERIALISED, true, 2, 4, 128, 16, 64, 700, false},
	{NX_F32, NX_KV_F32, NX_ATTN_MATERIALISED, true, 2, 4, 32, 16, 64, 700, false},
};
#define N_BIT_PLANS ((int)(sizeof(bit_plans) / sizeof(bit_plans[0])))

/* Decode, prefill, verify with a tree, a padded chunk and a REDO row. */
static void fill_ragged(struct world *w)
{
	add_plain(w, 3, 0, 630, 1, NX_ROW_COMMIT);
	add_plain(w, 0, 1, 0, 70, NX_ROW_COMMIT);
	add_plain(w, 5, 2, 361, 1, NX_ROW_COMMIT);
	add_tree(w, 2, tree, N_NODES);
	add_plain(w, 1, 3, 20, 9, NX_ROW_PAD);
	add_plain(w, 2, 4, 264, 1, NX_ROW_REDO);
}

static void same_bits(const struct world *w, int32_t row, const struct world *of, int32_t of_row,
                      int32_t n, const char *what, int variant)
{
	size_t bytes = nx_dtype_bytes(w->p.act) * (size_t)w->width;
	ck_assert_msg(!memcmp((const uint8_t *)w->out.gpu + bytes * (size_t)row,
	                      (const uint8_t *)of->out.gpu + bytes * (size_t)of_row,
	                      bytes * (size_t)n),
	              "%s %d: %s", what, variant, say(&w->p));
}

START_TEST(a_row_has_the_same_bits_in_every_company)
{
	struct plan p = bit_plans[_i];
	struct world base, w;
	uint8_t *want;
	world_open(&base, &p, 8);
	fill_ragged(&base);
	attend(&base, true);
	compare(&base);
	/* Memory of one world at a time. */
	size_t bytes = nx_dtype_bytes(p.act) * (size_t)base.out.n;
	want = malloc(bytes);
	memcpy(want, base.out.gpu, bytes);
	world_close(&base);
	base.out.gpu = want;
	for (int variant = 0; variant < 14; variant++) {
		static const int32_t block[] = {1, 16, 7, 64};
		p.block = block[variant % 4];
		p.planes = variant & 1;
		world_open(&w, &p, 8);
		int32_t row = 0, n = 1;
		if (variant < 4) {
			fill_ragged(&w);
			n = w.rows.n_rows;
		} else if (variant < 8) {
			add_plain(&w, 6, 0, 630, 1, NX_ROW_COMMIT);
			w.rows.max_keys += variant; /* more chunks, and a longer workspace */
		} else if (variant <
		           12) { /* the prompt's last rows, after a chunk that came before */
			add_plain(&w, 4, 1, 30 + variant, 40 - variant, NX_ROW_COMMIT);
			row = 1 + 30 + variant;
			n = 40 - variant;
		} else if (variant == 12) { /* the tree alone */
			add_plain(&w, 0, 2, 361, 1, NX_ROW_COMMIT);
			add_tree(&w, 2, tree, N_NODES);
			row = 71;
			n = 1 + N_NODES;
		} else { /* among many */
			add_plain(&w, 6, 0, 630, 1, NX_ROW_COMMIT);
			add_plain(&w, 7, 9, 100, 120, NX_ROW_COMMIT);
		}
		attend(&w, false);
		same_bits(&w, 0, &base, row, n, "variant", variant);
		world_close(&w);
	}
	free(want);
}
END_TEST

/* Every node of a drafted tree equals the last row of the plain sequence root..node, to the bit. */
START_TEST(a_tree_node_equals_its_plain_sequence)
{
	static const int32_t lens[] = {0, 13, 60, 127, 255, 258, 500};
	struct plan p = bit_plans[_i];
	struct world w, plain;
	for (int l = 0; l < 7; l++) {
		int32_t len = lens[l];
		p.block = 16;
		world_open(&w, &p, 3);
		add_plain(&w, 2, 5, len, 1, NX_ROW_COMMIT);
		add_tree(&w, 5, tree, N_NODES);
		attend(&w, true);
		compare(&w);
		size_t bytes = nx_dtype_bytes(p.act) * (size_t)w.out.n;
		uint8_t *want = malloc(bytes);
		memcpy(want, w.out.gpu, bytes);
		int32_t n_anc[1 + N_NODES];
		memcpy(n_anc, w.n_anc, sizeof(n_anc));
		world_close(&w);
		w.out.gpu = want;
		for (int32_t node = 0; node < N_NODES; node++) {
			int32_t depth = n_anc[1 + node];
			p.block = 8;
			world_open(&plain, &p, 1);
			add_plain(&plain, 0, 5, len + depth, 1, NX_ROW_COMMIT);
			plain.q_name[0] = (uint64_t)(5 * 100003 + node) * 2;
			for (int32_t n = node, d = depth; n >= 0; n = tree[n], d--)
				put_row(&plain, slot_at(&plain, 0, len + d), plain.kv.v_offset, 5,
				        100000 + n);
			attend(&plain, false);
			same_bits(&plain, 0, &w, 1 + node, 1, "node", node);
			world_close(&plain);
		}
		free(want);
	}
}
END_TEST

START_TEST(broken_promises_are_refused)
{
	struct plan p = {NX_F32, NX_KV_F32, NX_ATTN_MATERIALISED, false, 1, 2, 16, 16, 16,
	                 64,     false};
	struct world w;
	world_open(&w, &p, 1);
	add_plain(&w, 0, 0, 20, 1, NX_ROW_COMMIT);
	attend(&w, true);
	struct nx_attention a = call_of(&w);
	struct rig *r = &w.b.gpu;
	float *workspace = both_mem(&w.b, 4096);
	a.q = w.q.gpu;
	a.out = w.out.gpu;
	a.workspace = workspace;
	a.workspace_bytes = 4;
	ck_assert_int_eq(r->ops->attention(r->dev, NULL, &a, &r->err), NX_EINVAL);
	a.workspace_bytes = 4096;
	rig_ok(r, r->ops->attention(r->dev, NULL, &a, &r->err));
	a.kernel = NX_ATTN_TILED;
	a.kv_chunk = 0;
	ck_assert_int_eq(r->ops->attention(r->dev, NULL, &a, &r->err), NX_EINVAL);
	a.kv_chunk = 16;
	a.n_heads = 3;
	w.kv.n_kv_heads = 2;
	ck_assert_int_eq(r->ops->attention(r->dev, NULL, &a, &r->err), NX_EINVAL);
	a.n_heads = 2;
	w.kv.n_kv_heads = 1;
	w.kv.codec = NX_KV_OWN;
	ck_assert_int_eq(r->ops->attention(r->dev, NULL, &a, &r->err), NX_ENOTSUP);
	w.kv.codec = NX_KV_F32;
	w.kv.head_dim = 300;
	ck_assert_int_eq(r->ops->attention(r->dev, NULL, &a, &r->err), NX_ENOTSUP);
	w.kv.head_dim = 16;
	w.rows.max_keys = 20;
	ck_assert_int_eq(r->ops->attention(r->dev, NULL, &a, &r->err), NX_EBUG);
	w.rows.max_keys = 21;
	w.table[1] = -1;
	ck_assert_int_eq(r->ops->attention(r->dev, NULL, &a, &r->err), NX_EBUG);
	world_close(&w);
}
END_TEST

int main(void)
{
	both_need_gpu();
	const char *n = getenv("NEXUS_SHAPES");
	Suite *s = suite_create("cuda_attention");
	TCase *tc = tcase_create("attention");
	tcase_set_timeout(tc, 600);
	tcase_add_test(tc, broken_promises_are_refused);
	tcase_add_loop_test(tc, a_row_has_the_same_bits_in_every_company, 0, N_BIT_PLANS);
	tcase_add_loop_test(tc, a_tree_node_equals_its_plain_sequence, 0, N_BIT_PLANS);
	tcase_add_loop_test(tc, uneven_lengths_match_the_reference, 0, 8);
	tcase_add_loop_test(tc, any_shape_matches_the_reference, 0,
	                    n ? (int)strtol(n, NULL, 10) : 120);
	suite_add_tcase(s, tc);
	return both_run(s);
}
