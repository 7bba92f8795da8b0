/* SPDX-License-Identifier: Apache-2.0
 *
 * test_cpu_coded.c: the device's KV codecs: what codes stand for, bytes, and attention over encoded rows against
 * attention over the values that an oracle of a few lines decodes. A sequence is computed in chunks of all sizes:
 * what comes out must not depend on them, bit for bit.
 */
#include <check.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "kernel_test.h"
#include "nexus_kernels/kv_codec.h"

/* ---- numbers */

START_TEST(halves_are_all_halves)
{
	for (uint32_t h = 0; h < 65536; h++) {
		if ((h & 0x7c00u) == 0x7c00u)
			continue;
		float x = nx_half_value((uint16_t)h),
		      next = nx_half_value(nx_half_next((uint16_t)h, true));
		ck_assert_uint_eq(nx_half_code(x), h);
		if ((h & 0x7fffu) == 0x7bffu || isinf(next))
			continue;
		/* Between neighbours: to the nearer one, ties to even; floor and ceil to their sides. */
		float mid = (x + next) / 2;
		ck_assert_uint_eq(nx_half_code(mid) & 1, 0);
		ck_assert_float_le(nx_half_value(nx_half_floor(mid)), mid);
		ck_assert_float_ge(nx_half_value(nx_half_ceil(mid)), mid);
	}
	ck_assert_uint_eq(nx_half_code(1e9f), 0x7bffu);
	ck_assert_uint_eq(nx_half_code(65519.0f), 0x7bffu);
	ck_assert(isnan(nx_half_value(nx_half_code(NAN))));
	ck_assert_float_eq(nx_half_value(0x0001), ldexpf(1, -24));
}
END_TEST

START_TEST(fp8_codes_round_and_saturate)
{
	for (uint32_t c = 0; c < 256; c++) {
		float a = nx_e4m3_value((uint8_t)c), b = nx_e5m2_value((uint8_t)c);
		if (!isnan(a))
			ck_assert_uint_eq(nx_e4m3_code(a), c);
		if (isfinite(b))
			ck_assert_uint_eq(nx_e5m2_code(b), c);
	}
	ck_assert_float_eq(nx_e4m3_value(nx_e4m3_code(1e6f)), 448);
	ck_assert_float_eq(nx_e4m3_value(nx_e4m3_code(-449)), -448);
	ck_assert_float_eq(nx_e5m2_value(nx_e5m2_code(1e9f)), 57344);
	ck_assert_float_eq(nx_e4m3_value(0x01), ldexpf(1, -9));
	ck_assert_float_eq(nx_e4m3_value(nx_e4m3_code(17)), 16); /* a tie, to even */
	ck_assert_float_eq(nx_e4m3_value(nx_e4m3_code(19)), 20);
	ck_assert(isnan(nx_e4m3_value(0x7f)) && isinf(nx_e5m2_value(0x7c)));
}
END_TEST

START_TEST(codes_err_by_half_a_step_at_most)
{
	for (int bits = 2; bits <= 8; bits *= 2)
		for (uint32_t t = 0; t < 4000; t++) {
			float x[32], lo = INFINITY, hi = -INFINITY;
			float width = ldexpf(1, (int)(t % 24) - 14),
			      offset = width * 50 * noise(t, 99);
			for (uint32_t i = 0; i < 32; i++) {
				x[i] = offset + width * noise(t, i);
				lo = fminf(lo, x[i]);
				hi = fmaxf(hi, x[i]);
			}
			struct nx_affine a = nx_affine_of(lo, hi, bits);
			float s = nx_half_value(a.scale), z = nx_half_value(a.zero);
			for (int i = 0; i < 32; i++) {
				float y = nx_affine_value(nx_affine_code(x[i], s, z, bits), s, z);
				ck_assert_msg(fabsf(y - x[i]) <=
				                      s / 2 * 1.00001f + fabsf(x[i]) * 2e-7f,
				              "%d bits: %g became %g, step %g", bits, (double)x[i],
				              (double)y, (double)s);
			}
		}
	/* A group of equal values comes back exactly, and none divides by zero. */
	struct nx_affine a = nx_affine_of(-0.3125f, -0.3125f, 4);
	float s = nx_half_value(a.scale), z = nx_half_value(a.zero);
	ck_assert_float_eq(nx_affine_value(nx_affine_code(-0.3125f, s, z, 4), s, z), -0.3125f);
	a = nx_affine_of(1, -1, 8);
	ck_assert(isnan(nx_half_value(a.scale)));
}
END_TEST

START_TEST(packed_codes_stay_apart)
{
	for (int bits = 2; bits <= 8; bits *= 2) {
		uint8_t run[64];
		memset(run, 0xa5, sizeof(run));
		for (int i = 0; i < 64; i++)
			nx_code_put(run, i, bits, (uint32_t)(i * 7 + 1) & ((1u << bits) - 1));
		for (int i = 0; i < 64; i++)
			ck_assert_uint_eq(nx_code_get(run, i, bits),
			                  (uint32_t)(i * 7 + 1) & ((1u << bits) - 1));
		uint32_t w;
		memcpy(&w, run, sizeof(w));
		if (bits == 4) /* neighbours in the halves of a word, as the kernels take them */
			ck_assert_uint_eq(w & 0x000f000fu, 1u | (8u & 15u) << 16);
	}
}
END_TEST

/* ---- attention */

enum { HEADS = 4, KV_HEADS = 2, MAX_TOKENS = 150, WIDTH = 8 }; /* WIDTH: heads of q, k and v */

static const struct shape {
	enum nx_kv_codec codec;
	int32_t dim, group, window, block;
} shapes[] = {
	{NX_KV_INT8, 16, 16, 1, 1},     {NX_KV_INT8, 64, 32, 1, 16},
	{NX_KV_INT8, 128, 128, 1, 256}, {NX_KV_INT4, 16, 16, 1, 7},
	{NX_KV_INT4, 96, 32, 1, 16},    {NX_KV_INT4, 128, 128, 1, 32},
	{NX_KV_E4M3, 32, 32, 1, 16},    {NX_KV_E4M3, 80, 16, 1, 256},
	{NX_KV_E5M2, 64, 64, 1, 8},     {NX_KV_KIVI4, 16, 16, 16, 16},
	{NX_KV_KIVI4, 64, 32, 64, 64},  {NX_KV_KIVI4, 48, 16, 32, 256},
	{NX_KV_KIVI2, 32, 16, 16, 32},  {NX_KV_KIVI2, 128, 32, 32, 32},
};
#define N_SHAPES ((int)(sizeof(shapes) / sizeof(shapes[0])))

struct coded {
	struct rig r;
	const struct shape *s;
	struct nx_kv kv;
	int32_t table[2 * MAX_TOKENS], len[2], last[2];
	size_t pool_bytes, win_bytes;
	float *tokens; /* [MAX_TOKENS][WIDTH * dim], as projected */
	float *out;    /* [MAX_TOKENS][HEADS * dim] */
};

static void coded_open(struct coded *c, const struct shape *s, int isa, enum nx_dtype plain)
{
	memset(c, 0, sizeof(*c));
	if (!rig_open(&c->r, isa, 2, true))
		return;
	int32_t blocks = (MAX_TOKENS + s->block - 1) / s->block, rows = (2 * blocks + 1) * s->block;
	int64_t row = nx_kv_coded_row_bytes(s->codec, KV_HEADS, s->dim, s->group);
	int64_t plain_row = KV_HEADS * s->dim * (int64_t)nx_dtype_bytes(plain);
	ck_assert_ptr_null(nx_kv_codec_refusal(s->codec, s->dim, s->group, s->window));
	c->s = s;
	/* Blocks of the two sequences by turns, from the end. */
	for (int32_t i = 0; i < blocks; i++)
		for (int32_t q = 0; q < 2; q++)
			c->table[q * blocks + i] = (2 * (blocks - 1 - i) + q) * s->block;
	c->kv = (struct nx_kv){.codec = s->codec,
	                       .plain = plain,
	                       .n_layers = 1,
	                       .n_kv_heads = KV_HEADS,
	                       .head_dim = s->dim,
	                       .block_size = s->block,
	                       .table_stride = blocks,
	                       .table = c->table,
	                       .layer_bytes = 2 * rows * row,
	                       .row_bytes = row,
	                       .v_offset = rows * row,
	                       .scratch_row_bytes = s->window > 1 ? plain_row : row,
	                       .window = s->window,
	                       .group_size = s->group,
	                       .win_layer_bytes = 4 * s->window * plain_row,
	                       .win_v_offset = 2 * s->window * plain_row};
	c->pool_bytes = (size_t)c->kv.layer_bytes;
	c->win_bytes = (size_t)c->kv.win_layer_bytes;
	c->kv.base = c->r.ops->alloc(c->r.dev, c->pool_bytes); /* poisoned */
	c->kv.win = c->r.ops->alloc(c->r.dev, c->win_bytes);
	c->tokens = malloc(sizeof(float) * MAX_TOKENS * WIDTH * (size_t)s->dim);
	c->out = malloc(sizeof(float) * MAX_TOKENS * HEADS * (size_t)s->dim);
	for (int64_t i = 0; i < (int64_t)MAX_TOKENS * WIDTH * s->dim; i++) {
		/* A channel of each head of K and V is an outlier, another one constant. */
		int64_t d = i / s->dim % WIDTH < HEADS ? -1 : i % s->dim;
		float x = d == 3   ? 40 * noise(7, (uint64_t)i)
		          : d == 5 ? 0.5f
		                   : noise(7, (uint64_t)i);
		c->tokens[i] = x;
	}
}

static void coded_close(struct coded *c)
{
	c->r.ops->free(c->r.dev, c->kv.base, c->pool_bytes);
	c->r.ops->free(c->r.dev, c->kv.win, c->win_bytes);
	free(c->tokens);
	free(c->out);
	rig_close(&c->r);
}

/* The next n tokens of sequence 1, in one call. */
static void feed(struct coded *c, int32_t n, enum nx_attn_kernel kernel)
{
	int32_t seq[MAX_TOKENS], off[MAX_TOKENS], kind[MAX_TOKENS], none[MAX_TOKENS],
		at = c->len[1];
	int64_t width = (int64_t)WIDTH * c->s->dim, wide = (int64_t)HEADS * c->s->dim;
	float *qkv = malloc(sizeof(float) * (size_t)(n * width));
	memcpy(qkv, c->tokens + at * width, sizeof(float) * (size_t)(n * width));
	for (int32_t i = 0; i < n; i++) {
		seq[i] = 1;
		off[i] = i;
		kind[i] = NX_ROW_COMMIT;
		none[i] = -1;
	}
	struct nx_segment seg = {1, 0, n, at + n};
	struct nx_rows rows = {.n_rows = n,
	                       .n_segments = 1,
	                       .max_keys = at + n,
	                       .seq = seq,
	                       .token = none,
	                       .slot_off = off,
	                       .pos_off = off,
	                       .kind = kind,
	                       .scratch = none,
	                       .n_anc = none,
	                       .segments = &seg};
	struct nx_seq_state state = {2, c->len, c->last};
	struct nx_rope_store rope = {
		.rows = &rows, .state = &state, .kv = &c->kv, .n_heads = HEADS, .qkv = qkv};
	rig_ok(&c->r, c->r.ops->rope_store(c->r.dev, NULL, &rope, &c->r.err));
	size_t bytes =
		c->r.ops->attention_workspace(c->r.dev, kernel, 32, HEADS, c->s->dim, n, at + n);
	struct nx_attention a = {.rows = &rows,
	                         .state = &state,
	                         .kv = &c->kv,
	                         .n_heads = HEADS,
	                         .scale = 0.2f,
	                         .q = qkv,
	                         .q_stride = width,
	                         .out = c->out + at * wide,
	                         .kernel = kernel,
	                         .kv_chunk = 32,
	                         .workspace = c->r.ops->alloc(c->r.dev, bytes + 64),
	                         .workspace_bytes = bytes};
	rig_ok(&c->r, c->r.ops->attention(c->r.dev, NULL, &a, &c->r.err));
	c->r.ops->free(c->r.dev, a.workspace, bytes + 64);
	c->len[1] += n;
	free(qkv);
}

/* n values `step` apart, as they come back from their codes. */
static void there_and_back(enum nx_kv_codec codec, float *x, int32_t n, int64_t step)
{
	float lo = INFINITY, hi = -INFINITY, scale, zero;
	for (int32_t i = 0; i < n; i++) {
		lo = fminf(lo, x[i * step]);
		hi = fmaxf(hi, x[i * step]);
	}
	nx_kv_group_read(codec, nx_kv_group_of(codec, lo, hi), &scale, &zero);
	for (int32_t i = 0; i < n; i++)
		x[i * step] = nx_kv_value(codec, nx_kv_code(codec, x[i * step], scale, zero), scale,
		                          zero);
}

/* K (or V) of a kv head of all tokens as later groups see it: [MAX_TOKENS][dim]. */
static float *encoded(const struct coded *c, int32_t head, bool v, bool codes)
{
	int32_t dim = c->s->dim, g = c->s->group;
	float *x = malloc(sizeof(float) * MAX_TOKENS * (size_t)dim);
	for (int32_t t = 0; t < MAX_TOKENS; t++)
		for (int32_t d = 0; d < dim; d++) {
			float y = c->tokens[((int64_t)t * WIDTH + HEADS + (v ? KV_HEADS : 0) +
			                     head) * dim +
			                    d];
			x[t * dim + d] =
				c->s->window > 1 && c->kv.plain == NX_BF16 ? to_bf16(y) : y;
		}
	for (int32_t t = 0; codes && t < MAX_TOKENS; t++)
		for (int32_t d = 0; d < dim; d++) {
			if (c->s->window > 1 && !v) { /* by channel */
				if (t % g == 0 && t + g <= MAX_TOKENS)
					there_and_back(c->s->codec, x + t * dim + d, g, dim);
			} else if (d % g == 0) {
				there_and_back(c->s->codec, x + t * dim + d, g, 1);
			}
		}
	return x;
}

static void check_against_oracle(const struct coded *c)
{
	int32_t dim = c->s->dim, share = HEADS / KV_HEADS, n = c->len[1];
	double *score = malloc(sizeof(double) * MAX_TOKENS);
	for (int32_t h = 0; h < HEADS; h++) {
		float *k = encoded(c, h / share, false, true),
		      *v = encoded(c, h / share, true, true);
		float *k0 = encoded(c, h / share, false, false),
		      *v0 = encoded(c, h / share, true, false);
		for (int32_t p = 0; p < n; p++) {
			const float *q = c->tokens + ((int64_t)p * WIDTH + h) * dim;
			int32_t own = c->s->window > 1 ? p / c->s->window * c->s->window : p + 1;
			double max = -INFINITY, total = 0;
			for (int32_t i = 0; i <= p; i++) {
				const float *key = (i < own ? k : k0) + i * dim;
				score[i] = 0;
				for (int32_t d = 0; d < dim; d++)
					score[i] += (double)q[d] * key[d];
				score[i] *= (double)0.2f;
				max = fmax(max, score[i]);
			}
			for (int32_t i = 0; i <= p; i++)
				total += score[i] = exp(score[i] - max);
			for (int32_t d = 0; d < dim; d++) {
				double want = 0;
				for (int32_t i = 0; i <= p; i++)
					want += score[i] * (i < own ? v : v0)[i * dim + d] / total;
				double got = c->out[((int64_t)p * HEADS + h) * dim + d];
				ck_assert_msg(fabs(got - want) <= (d == 3 ? 40 : 1) * 2e-5,
				              "token %d head %d element %d: %g, not %g", p, h, d,
				              got, want);
			}
		}
		free(k);
		free(v);
		free(k0);
		free(v0);
	}
	free(score);
}

/* The first two, but in make test-long: in one piece, and in pieces around a group's end. */
static const int32_t chunks[5][8] = {
	{150}, {17, 1, 1, 30, 31, 33, 37}, {1, 149}, {64, 64, 22}, {100, 3, 47}};

/* All chunk sizes, kernels and instruction sets: right, and within one of them the same to the bit. */
START_TEST(attention_sees_codes_and_its_own_group)
{
	const struct shape *s = &shapes[_i / 2];
	enum nx_dtype plain = _i % 2 ? NX_BF16 : NX_F32;
	size_t bytes = sizeof(float) * MAX_TOKENS * HEADS * (size_t)s->dim;
	const size_t n_chunks = getenv("NEXUS_TEST_LONG") ? 5 : 2;
	for (int isa = 0; isa < N_ISAS; isa++)
		for (int kernel = 0; kernel < 2; kernel++) {
			float *first = NULL;
			for (size_t i = 0; i < n_chunks; i++) {
				struct coded c;
				coded_open(&c, s, isa, plain);
				if (!c.r.dev)
					break;
				for (int j = 0; j < 8 && chunks[i][j]; j++)
					feed(&c, chunks[i][j], (enum nx_attn_kernel)kernel);
				ck_assert_int_eq(c.len[1], MAX_TOKENS);
				if (first)
					ck_assert_msg(memcmp(first, c.out, bytes) == 0,
					              "isa %s: chunks %zu change the result",
					              isa_name(isa), i);
				else
					check_against_oracle(&c);
				if (!first) {
					first = malloc(bytes);
					memcpy(first, c.out, bytes);
				}
				coded_close(&c);
			}
			free(first);
		}
}
END_TEST

START_TEST(bytes_follow_the_formula)
{
	/* 32 heads of 128: int8 1.94x, int4 3.76x less than 16 bits; KIVI-4 and -2 in groups of 32, without the window. */
	double plain = 32 * 128 * 2;
	ck_assert_double_eq_tol(plain / (double)nx_kv_coded_row_bytes(NX_KV_INT8, 32, 128, 128),
	                        1.94, 0.005);
	ck_assert_double_eq_tol(plain / (double)nx_kv_coded_row_bytes(NX_KV_INT4, 32, 128, 128),
	                        3.76, 0.005);
	ck_assert_double_eq_tol(plain / (double)nx_kv_coded_row_bytes(NX_KV_E4M3, 32, 128, 128),
	                        1.94, 0.005);
	ck_assert_double_eq_tol(plain / (double)nx_kv_coded_row_bytes(NX_KV_KIVI4, 32, 128, 32),
	                        3.2, 0.005);
	ck_assert_double_eq_tol(plain / (double)nx_kv_coded_row_bytes(NX_KV_KIVI2, 32, 128, 32),
	                        5.33, 0.005);
}
END_TEST

START_TEST(what_does_not_fit_is_refused)
{
	ck_assert_ptr_nonnull(nx_kv_codec_refusal(NX_KV_OWN, 64, 64, 1));
	ck_assert_ptr_nonnull(nx_kv_codec_refusal(NX_KV_INT8, 24, 24, 1));
	ck_assert_ptr_nonnull(nx_kv_codec_refusal(NX_KV_INT8, 64, 48, 1));
	ck_assert_ptr_nonnull(nx_kv_codec_refusal(NX_KV_INT8, 64, 64, 16));
	ck_assert_ptr_nonnull(nx_kv_codec_refusal(NX_KV_KIVI4, 64, 32, 1));
	ck_assert_ptr_nonnull(nx_kv_codec_refusal(NX_KV_KIVI4, 64, 32, 48));
	ck_assert_ptr_null(nx_kv_codec_refusal(NX_KV_KIVI4, 64, 32, 96));
}
END_TEST

int main(void)
{
	Suite *s = suite_create("cpu_coded");
	TCase *tc = tcase_create("coded");
	tcase_set_timeout(tc, 300);
	tcase_add_test(tc, halves_are_all_halves);
	tcase_add_test(tc, fp8_codes_round_and_saturate);
	tcase_add_test(tc, codes_err_by_half_a_step_at_most);
	tcase_add_test(tc, packed_codes_stay_apart);
	tcase_add_loop_test(tc, attention_sees_codes_and_its_own_group, 0, 2 * N_SHAPES);
	tcase_add_test(tc, bytes_follow_the_formula);
	tcase_add_test(tc, what_does_not_fit_is_refused);
	suite_add_tcase(s, tc);
	SRunner *r = srunner_create(s);
	srunner_run_all(r, CK_NORMAL);
	int failed = srunner_ntests_failed(r);
	srunner_free(r);
	return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}
