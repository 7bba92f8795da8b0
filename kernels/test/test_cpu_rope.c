/* SPDX-License-Identifier: Apache-2.0
 *
 * test_cpu_rope.c: biases and norms ahead of the rotation, over shapes, types and odd sizes, against double
 * precision; and what a weight takes, said beforehand.
 */
#include <check.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "kernel_test.h"

enum { BIAS = 1, NORM = 2 };

static const struct shape {
	int32_t heads, kv_heads, dim, rope_dim, rows;
} shapes[] = {
	{1, 1, 2, 2, 1},    {4, 2, 16, 16, 5}, {7, 7, 10, 6, 3},     {8, 1, 64, 64, 9},
	{14, 2, 64, 64, 2}, {3, 3, 34, 2, 17}, {32, 8, 128, 128, 2}, {2, 1, 256, 128, 2},
};
#define N_SHAPES ((int)(sizeof(shapes) / sizeof(shapes[0])))

struct world {
	struct shape s;
	int64_t width;
	int32_t *col, len, table; /* col: five int32 a row */
	struct nx_rows rows;
	struct nx_seq_state state;
	struct nx_kv kv;
	float *qkv, *before, *bias, *q_norm, *k_norm, *freq;
};

static void world_init(struct world *w, struct shape s, enum nx_dtype dtype)
{
	memset(w, 0, sizeof(*w));
	w->s = s;
	w->width = (int64_t)(s.heads + 2 * s.kv_heads) * s.dim;
	w->len = 3;
	w->col = calloc((size_t)s.rows * 5, sizeof(*w->col));
	int32_t *seq = w->col, *kind = seq + s.rows, *slot = kind + s.rows, *pos = slot + s.rows,
		*scratch = pos + s.rows;
	for (int32_t r = 0; r < s.rows; r++) {
		kind[r] = NX_ROW_COMMIT;
		slot[r] = pos[r] = r;
		scratch[r] = -1;
	}
	w->rows = (struct nx_rows){.n_rows = s.rows,
	                           .seq = seq,
	                           .kind = kind,
	                           .slot_off = slot,
	                           .pos_off = pos,
	                           .scratch = scratch};
	w->state = (struct nx_seq_state){.max_seqs = 1, .len = &w->len};
	int64_t part = (int64_t)s.kv_heads * s.dim * (int64_t)nx_dtype_bytes(dtype);
	int32_t slots = s.rows + w->len;
	w->kv = (struct nx_kv){.codec = dtype == NX_F32 ? NX_KV_F32 : NX_KV_BF16,
	                       .n_layers = 1,
	                       .n_kv_heads = s.kv_heads,
	                       .head_dim = s.dim,
	                       .block_size = slots,
	                       .table_stride = 1,
	                       .table = &w->table,
	                       .base = calloc((size_t)(2 * slots * part), 1),
	                       .row_bytes = 2 * part,
	                       .v_offset = part,
	                       .layer_bytes = 2 * slots * part};
	w->qkv = noise_array(s.rows * w->width, 11);
	w->before = noise_array(s.rows * w->width, 11);
	w->bias = noise_array(w->width, 12);
	w->q_norm = noise_array(s.dim, 13);
	w->k_norm = noise_array(s.dim, 14);
	w->freq = calloc((size_t)s.rope_dim, sizeof(float));
	for (int32_t i = 0; i < s.rope_dim / 2; i++)
		w->freq[i] = (float)pow(1e4, -2.0 * i / s.rope_dim);
}

static void world_release(struct world *w)
{
	free(w->col);
	free(w->kv.base);
	free(w->qkv);
	free(w->before);
	free(w->bias);
	free(w->q_norm);
	free(w->k_norm);
	free(w->freq);
}

static struct nx_rope_store call_of(const struct world *w, int parts)
{
	return (struct nx_rope_store){.rows = &w->rows,
	                              .state = &w->state,
	                              .kv = &w->kv,
	                              .n_heads = w->s.heads,
	                              .rope_dim = w->s.rope_dim,
	                              .inv_freq = w->freq,
	                              .qkv = w->qkv,
	                              .bias = parts & BIAS ? w->bias : NULL,
	                              .q_norm = parts & NORM ? w->q_norm : NULL,
	                              .k_norm = parts & NORM ? w->k_norm : NULL,
	                              .norm_eps = parts & NORM ? 1e-6f : 0};
}

/* One head in double precision; *scale is its largest element. */
static void oracle(const struct world *w, int parts, int32_t row, int32_t h, double *out,
                   double *scale)
{
	const struct shape *s = &w->s;
	const float *x = w->before + row * w->width + (int64_t)h * s->dim;
	const float *norm = h < s->heads ? w->q_norm : w->k_norm;
	bool turned = h < s->heads + s->kv_heads;
	double sum = 0;
	for (int32_t i = 0; i < s->dim; i++) {
		out[i] = (double)x[i] + (parts & BIAS ? (double)w->bias[h * s->dim + i] : 0);
		sum += out[i] * out[i];
	}
	*scale = 0;
	for (int32_t i = 0; i < s->dim; i++) {
		if (turned && parts & NORM)
			out[i] *= (double)norm[i] / sqrt(sum / s->dim + 1e-6);
		*scale = fmax(*scale, fabs(out[i]));
	}
	for (int32_t i = 0; turned && i < s->rope_dim; i += 2) {
		double angle = (w->len + row) * (double)w->freq[i / 2], a = out[i], b = out[i + 1];
		out[i] = a * cos(angle) - b * sin(angle);
		out[i + 1] = a * sin(angle) + b * cos(angle);
	}
}

static float stored(const struct world *w, int part, int32_t row, int64_t i)
{
	const uint8_t *at = w->kv.base + (w->len + row) * w->kv.row_bytes + part * w->kv.v_offset;
	if (w->kv.codec == NX_KV_F32)
		return ((const float *)(const void *)at)[i];
	uint32_t u = (uint32_t)((const uint16_t *)(const void *)at)[i] << 16;
	float f;
	memcpy(&f, &u, sizeof(f));
	return f;
}

static void check(const struct world *w, int parts)
{
	const struct shape *s = &w->s;
	double want[1024], scale;
	for (int32_t row = 0; row < s->rows; row++)
		for (int32_t h = 0; h < s->heads + 2 * s->kv_heads; h++) {
			oracle(w, parts, row, h, want, &scale);
			/* A rounding each of bias, norm (3), cos and sin (of an angle below 40, so 2^-18
			 * of a turn), products and sum; relative to the head's largest element. */
			double tol = scale * (ldexp(12, -24) + ldexp(w->len + row, -24)) + 1e-30;
			for (int32_t i = 0; i < s->dim; i++) {
				float got = w->qkv[row * w->width + h * s->dim + i];
				ck_assert_msg(fabs((double)got - want[i]) <= tol,
				              "parts %d, row %d, head %d, element %d: %g, not %g",
				              parts, row, h, i, (double)got, want[i]);
				if (h < s->heads)
					continue;
				int part = h >= s->heads + s->kv_heads;
				int64_t at = (h - s->heads - part * s->kv_heads) * s->dim + i;
				ck_assert(stored(w, part, row, at) ==
				          (w->kv.codec == NX_KV_F32 ? got : to_bf16(got)));
			}
		}
}

/* _i: the shape. */
START_TEST(biases_and_norms_come_before_the_rotation)
{
	for (int isa = 0; isa < N_ISAS; isa++)
		for (int parts = 0; parts < 4; parts++)
			for (int dtype = 0; dtype < 2; dtype++) {
				struct rig r;
				struct world w;
				if (!rig_open(&r, isa, 2, parts & 1))
					continue;
				world_init(&w, shapes[_i], dtype ? NX_BF16 : NX_F32);
				struct nx_rope_store a = call_of(&w, parts);
				rig_ok(&r, r.ops->rope_store(r.dev, NULL, &a, &r.err));
				check(&w, parts);
				world_release(&w);
				rig_close(&r);
			}
}
END_TEST

START_TEST(a_codecs_rows_are_adjusted_too)
{
	struct rig r;
	struct world w, plain;
	ck_assert(rig_open(&r, 0, 1, true));
	world_init(&w, shapes[1], NX_F32);
	world_init(&plain, shapes[1], NX_F32);
	free(w.kv.base);
	w.kv = (struct nx_kv){.codec = NX_KV_OWN,
	                      .n_layers = 1,
	                      .n_kv_heads = shapes[1].kv_heads,
	                      .head_dim = shapes[1].dim,
	                      .window = 1};
	struct nx_rope_store a = call_of(&w, BIAS | NORM), b = call_of(&plain, BIAS | NORM);
	rig_ok(&r, r.ops->rope_store(r.dev, NULL, &a, &r.err));
	rig_ok(&r, r.ops->rope_store(r.dev, NULL, &b, &r.err));
	ck_assert(!memcmp(w.qkv, plain.qkv, sizeof(float) * (size_t)(w.width * w.s.rows)));
	world_release(&w);
	world_release(&plain);
	rig_close(&r);
}
END_TEST

START_TEST(half_a_pair_of_norms_is_refused)
{
	struct rig r;
	struct world w;
	ck_assert(rig_open(&r, 0, 1, true));
	world_init(&w, shapes[1], NX_F32);
	struct nx_rope_store a = call_of(&w, NORM);
	a.k_norm = NULL;
	ck_assert_int_eq(r.ops->rope_store(r.dev, NULL, &a, &r.err), NX_EINVAL);
	a = call_of(&w, NORM);
	a.norm_eps = 0;
	ck_assert_int_eq(r.ops->rope_store(r.dev, NULL, &a, &r.err), NX_EINVAL);
	ck_assert(!memcmp(w.qkv, w.before, sizeof(float) * (size_t)(w.width * w.s.rows)));
	world_release(&w);
	rig_close(&r);
}
END_TEST

/* ---- forecasts of weights */

static const struct {
	int64_t n, k;
} sizes[] = {{1, 1}, {17, 33}, {200, 129}, {1000, 256}};

/* _i: the size. Products go to the library from 33 rows where there is one. */
START_TEST(a_weight_takes_what_was_forecast)
{
	static const int32_t rows[] = {0, 32, 33};
	setenv("NEXUS_LIBRARY_ROWS", "33", 1);
	for (int isa = 0; isa < N_ISAS; isa++)
		for (int dtype = 0; dtype < 2; dtype++)
			for (size_t m = 0; m < sizeof(rows) / sizeof(rows[0]); m++) {
				struct rig r;
				int64_t n = sizes[_i].n, k = sizes[_i].k;
				if (!rig_open(&r, isa, 2, false))
					continue;
				struct nx_weight_desc d = {
					.n = n, .k = k, .dtype = dtype ? NX_BF16 : NX_F32};
				uint64_t want = r.ops->weight_forecast(r.dev, &d, rows[m]), got = 0;
				uint64_t packed = r.ops->weight_forecast(r.dev, &d, 0);
				struct nx_weight *w = rig_weight(&r, n, k, d.dtype, 5, NULL);
				ck_assert_uint_eq(r.ops->weight_bytes(w), packed);
				rig_ok(&r, r.ops->weight_prepare(r.dev, w, rows[m], &got, &r.err));
				ck_assert_uint_eq(got, want);
				ck_assert_uint_eq(r.ops->weight_bytes(w), want);
				/* and a product takes no more */
				int32_t most = rows[m] ? rows[m] : 1;
				float *x = noise_array(most * k, 1), *y = noise_array(most * n, 2);
				struct nx_linear a = {.w = w, .m = rows[m], .x = x, .y = y};
				rig_ok(&r, r.ops->linear(r.dev, NULL, &a, &r.err));
				ck_assert_uint_eq(r.ops->weight_bytes(w), want);
				/* smaller products need less, though more is there */
				rig_ok(&r, r.ops->weight_prepare(r.dev, w, 0, &got, &r.err));
				ck_assert_uint_eq(got, packed);
				free(x);
				free(y);
				r.ops->weight_destroy(r.dev, w);
				rig_close(&r);
			}
	unsetenv("NEXUS_LIBRARY_ROWS");
}
END_TEST

int main(void)
{
	Suite *s = suite_create("cpu_rope");
	TCase *tc = tcase_create("rope");
	tcase_set_timeout(tc, 120);
	tcase_add_loop_test(tc, biases_and_norms_come_before_the_rotation, 0, N_SHAPES);
	tcase_add_test(tc, a_codecs_rows_are_adjusted_too);
	tcase_add_test(tc, half_a_pair_of_norms_is_refused);
	tcase_add_loop_test(tc, a_weight_takes_what_was_forecast, 0,
	                    (int)(sizeof(sizes) / sizeof(sizes[0])));
	suite_add_tcase(s, tc);
	SRunner *sr = srunner_create(s);
	srunner_run_all(sr, CK_NORMAL);
	int failed = srunner_ntests_failed(sr);
	srunner_free(sr);
	return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}
