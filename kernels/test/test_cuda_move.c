/* SPDX-License-Identifier: Apache-2.0
 *
 * test_cuda_move.c: kv_copy, kv_swap and kv_compact leave the same bytes as the CPU's.
 */
#include <check.h>
#include <stdlib.h>
#include <string.h>

#include "cuda_test.h"

enum { LAYERS = 3, SEQS = 3, BLOCK = 4, STRIDE = 6, POOL = 96, CAP = 9 };

static uint32_t pick(uint64_t a, uint64_t b, uint32_t n)
{
	return (uint32_t)((noise(a, b) + 1) * 0.5f * (float)n) % n;
}

/* Layouts: K and V in planes of their own, or interleaved row by row. */
static const struct shape {
	enum nx_kv_codec codec;
	int32_t kv_heads, dim, window;
	bool planes;
} shapes[] = {
	{NX_KV_BF16, 8, 128, 1, true}, {NX_KV_F32, 2, 64, 1, false}, {NX_KV_BF16, 3, 10, 1, false},
	{NX_KV_F32, 1, 3, 1, true},    {NX_KV_BF16, 1, 7, 1, true},  {NX_KV_OWN, 2, 16, 8, true},
	{NX_KV_OWN, 2, 32, 1, true},
};
#define N_SHAPES ((int)(sizeof(shapes) / sizeof(shapes[0])))

/* One store a side, of equal bytes. */
struct world {
	struct nx_kv gpu, cpu;
	size_t pool, scratch, win;
};

static void fill(void *a, void *b, size_t n, uint64_t salt)
{
	uint8_t *p = a;
	for (size_t i = 0; i < n; i++)
		p[i] = (uint8_t)(int32_t)(noise(salt, i) * 1e6f);
	memcpy(b, a, n);
}

static void world_init(struct both *b, struct world *w, const struct shape *s, uint64_t salt)
{
	int64_t part = (int64_t)s->kv_heads * s->dim * (s->codec == NX_KV_BF16 ? 2 : 4);
	int64_t side = part;
	if (s->codec == NX_KV_OWN) { /* the codec's rows have a size of their own */
		part = 44;
		side = s->window > 1 ? (int64_t)s->kv_heads * s->dim * 4 : part;
	}
	int32_t *table = both_mem(b, sizeof(*table) * SEQS * STRIDE);
	for (int32_t i = 0; i < SEQS * STRIDE; i++)
		table[i] = (SEQS * STRIDE - 1 - i) * BLOCK;
	w->gpu = (struct nx_kv){.codec = s->codec,
	                        .plain = NX_F32,
	                        .n_layers = LAYERS,
	                        .n_kv_heads = s->kv_heads,
	                        .head_dim = s->dim,
	                        .block_size = BLOCK,
	                        .table_stride = STRIDE,
	                        .table = table,
	                        .layer_bytes = 2 * POOL * part,
	                        .row_bytes = s->planes ? part : 2 * part,
	                        .v_offset = s->planes ? POOL * part : part,
	                        .scratch_layer_bytes = 2 * SEQS * CAP * side,
	                        .scratch_row_bytes = side,
	                        .scratch_v_offset = SEQS * CAP * side,
	                        .scratch_cap = CAP,
	                        .window = s->window,
	                        .win_layer_bytes = 2 * SEQS * s->window * side,
	                        .win_v_offset = SEQS * s->window * side};
	w->cpu = w->gpu;
	w->pool = (size_t)(LAYERS * w->gpu.layer_bytes);
	w->scratch = (size_t)(LAYERS * w->gpu.scratch_layer_bytes);
	w->win = s->window > 1 ? (size_t)(LAYERS * w->gpu.win_layer_bytes) : 0;
	w->gpu.base = both_mem(b, w->pool);
	w->cpu.base = both_mem(b, w->pool);
	w->gpu.scratch = both_mem(b, w->scratch);
	w->cpu.scratch = both_mem(b, w->scratch);
	fill(w->gpu.base, w->cpu.base, w->pool, salt);
	fill(w->gpu.scratch, w->cpu.scratch, w->scratch, salt + 1);
	if (w->win) {
		w->gpu.win = both_mem(b, w->win);
		w->cpu.win = both_mem(b, w->win);
		fill(w->gpu.win, w->cpu.win, w->win, salt + 2);
	}
}

static void same(const struct world *w, const char *what)
{
	ck_assert_msg(!memcmp(w->gpu.base, w->cpu.base, w->pool), "%s: the pools differ", what);
	ck_assert(!memcmp(w->gpu.scratch, w->cpu.scratch, w->scratch));
	ck_assert_msg(!w->win || !memcmp(w->gpu.win, w->cpu.win, w->win), "%s: windows differ",
	              what);
}

static void counted_alike(struct both *b)
{
	struct nx_counted g, c;
	b->gpu.ops->counted(b->gpu.dev, &g);
	b->cpu.ops->counted(b->cpu.dev, &c);
	ck_assert_uint_eq(g.kv_bytes, c.kv_bytes);
}

/* _i: the shape. Short lists and ones of more than a launch takes; apart, touching and overlapping. */
START_TEST(copies_take_effect_in_order)
{
	struct both b;
	static struct nx_kv_copy c[300];
	both_open(&b, NX_BF16, false);
	for (uint64_t salt = 1; salt <= 12; salt++) {
		struct world w;
		world_init(&b, &w, &shapes[_i], salt);
		int32_t n = salt == 12 ? 300 : 1 + (int32_t)pick(salt, 1, 6);
		uint32_t longest = salt % 3 == 0 ? 40 : 5;
		for (int32_t i = 0; i < n; i++) {
			uint64_t at = 10 + 3 * (uint64_t)i;
			c[i].n_rows = (int32_t)pick(salt, at, longest);
			c[i].dst = (int32_t)pick(salt, at + 1, (uint32_t)(POOL - c[i].n_rows));
			c[i].src = (int32_t)pick(salt, at + 2, (uint32_t)(POOL - c[i].n_rows));
		}
		if (salt == 1) { /* one that could be shared out */
			n = 1;
			c[0] = (struct nx_kv_copy){.dst = 48, .src = 1, .n_rows = 47};
		}
		rig_ok(&b.gpu, b.gpu.ops->kv_copy(b.gpu.dev, NULL, &w.gpu, c, n, &b.gpu.err));
		rig_ok(&b.cpu, b.cpu.ops->kv_copy(b.cpu.dev, NULL, &w.cpu, c, n, &b.cpu.err));
		same(&w, "kv_copy");
		counted_alike(&b);
	}
	both_close(&b);
}
END_TEST

/* _i: the shape. Pinned memory and any other. */
START_TEST(rows_come_back_from_host_memory)
{
	struct both b;
	both_open(&b, NX_BF16, false);
	for (int pinned = 0; pinned < 2; pinned++) {
		struct world w;
		world_init(&b, &w, &shapes[_i], 77);
		const int32_t n = 11, from = 3, to = 50;
		size_t bytes = (size_t)n * nx_kv_swap_row_bytes(&w.gpu);
		uint8_t *host = pinned ? b.gpu.ops->host_alloc(b.gpu.dev, bytes + 16)
		                       : malloc(bytes + 16),
			*other = malloc(bytes);
		memset(host, 0x5a, bytes + 16);
		rig_ok(&b.gpu, b.gpu.ops->kv_swap(b.gpu.dev, NULL, &w.gpu, from, n, host, NX_D2H,
		                                  &b.gpu.err));
		rig_ok(&b.cpu, b.cpu.ops->kv_swap(b.cpu.dev, NULL, &w.cpu, from, n, other, NX_D2H,
		                                  &b.cpu.err));
		for (int i = 0; i < 16; i++) /* no byte more than was said */
			ck_assert_uint_eq(host[bytes + (size_t)i], 0x5a);
		same(&w, "kv_swap out");
		rig_ok(&b.gpu, b.gpu.ops->kv_swap(b.gpu.dev, NULL, &w.gpu, to, n, host, NX_H2D,
		                                  &b.gpu.err));
		rig_ok(&b.cpu, b.cpu.ops->kv_swap(b.cpu.dev, NULL, &w.cpu, to, n, other, NX_H2D,
		                                  &b.cpu.err));
		same(&w, "kv_swap in");
		counted_alike(&b);
		ck_assert_int_eq(b.gpu.ops->kv_swap(b.gpu.dev, NULL, &w.gpu, to, n, host, NX_D2D,
		                                    &b.gpu.err),
		                 NX_EINVAL);
		if (pinned)
			b.gpu.ops->host_free(b.gpu.dev, host, bytes + 16);
		else
			free(host);
		free(other);
	}
	both_close(&b);
}
END_TEST

/* _i: the shape. */
START_TEST(accepted_rows_are_kept)
{
	struct both b;
	both_open(&b, NX_BF16, false);
	for (uint64_t salt = 1; salt <= 20; salt++) {
		struct world w;
		int32_t *len = both_mem(&b, sizeof(*len) * SEQS),
			*accepted = both_mem(&b, sizeof(*len) * SEQS),
			*path = both_mem(&b, sizeof(*len) * SEQS * (CAP + 1));
		struct nx_emit *emit = both_mem(&b, sizeof(*emit) * SEQS);
		world_init(&b, &w, &shapes[_i], salt);
		for (int32_t q = 0; q < SEQS; q++) {
			len[q] = (int32_t)pick(salt, (uint64_t)q, 10);
			/* a draft never leaves its window, so no place of it is written twice */
			accepted[q] =
				(int32_t)pick(salt, 10 + (uint64_t)q,
			                      w.gpu.window > 1 ? (uint32_t)w.gpu.window : CAP + 1);
			for (int32_t i = 0; i <= CAP; i++)
				path[q * (CAP + 1) + i] =
					(int32_t)pick(salt, 100 + (uint64_t)(q * 20 + i), CAP);
			emit[q] = (struct nx_emit){.seq = SEQS - 1 - q,
			                           .src_seq = SEQS - 1 - q,
			                           .pos_off = 1,
			                           .n_draft = pick(salt, 20 + (uint64_t)q, 4) ? CAP
			                                                                      : 0};
		}
		struct nx_seq_state state = {SEQS, len, len};
		struct nx_verdict v = {CAP + 1, path, accepted, path};
		rig_ok(&b.gpu, b.gpu.ops->kv_compact(b.gpu.dev, NULL, &w.gpu, &state, emit, SEQS,
		                                     &v, &b.gpu.err));
		rig_ok(&b.cpu, b.cpu.ops->kv_compact(b.cpu.dev, NULL, &w.cpu, &state, emit, SEQS,
		                                     &v, &b.cpu.err));
		same(&w, "kv_compact");
		counted_alike(&b);
		emit[0].n_draft = 1;
		accepted[emit[0].seq] = 1;
		path[emit[0].seq * (CAP + 1)] = CAP; /* there is no such row */
		ck_assert_int_eq(b.gpu.ops->kv_compact(b.gpu.dev, NULL, &w.gpu, &state, emit, 1, &v,
		                                       &b.gpu.err),
		                 NX_EBUG);
		path[emit[0].seq * (CAP + 1)] = 0;
		if (w.gpu.window == 1) {
			len[emit[0].seq] = BLOCK * STRIDE; /* nor such a block */
			ck_assert_int_eq(b.gpu.ops->kv_compact(b.gpu.dev, NULL, &w.gpu, &state,
			                                       emit, 1, &v, &b.gpu.err),
			                 NX_EBUG);
			ck_assert_ptr_nonnull(strstr(b.gpu.err.msg, "no block"));
		}
		same(&w, "kv_compact refused");
		b.gpu.ops->counted_reset(b.gpu.dev);
		b.cpu.ops->counted_reset(b.cpu.dev);
	}
	both_close(&b);
}
END_TEST

int main(void)
{
	both_need_gpu();
	Suite *s = suite_create("cuda_move");
	TCase *tc = tcase_create("move");
	tcase_set_timeout(tc, 120);
	tcase_add_loop_test(tc, copies_take_effect_in_order, 0, N_SHAPES);
	tcase_add_loop_test(tc, rows_come_back_from_host_memory, 0, N_SHAPES);
	tcase_add_loop_test(tc, accepted_rows_are_kept, 0, N_SHAPES);
	suite_add_tcase(s, tc);
	return both_run(s);
}
