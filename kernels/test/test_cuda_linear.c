/* SPDX-License-Identifier: Apache-2.0
 *
 * test_cuda_linear.c: weights, embedding and products of the CUDA backend against the CPU's reference.
 */
#include <check.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "cuda_test.h"
#include "nexus_kernels/rng.h"

static const struct {
	int64_t n, k;
} shapes[] = {{1, 1},    {2, 3},    {8, 16},    {18, 7},    {24, 40},    {130, 65},
              {258, 96}, {64, 256}, {576, 576}, {174, 520}, {100, 1131}, {2000, 72}};
static const int32_t row_counts[] = {1, 2, 3, 7, 8, 9, 15, 16, 17, 31, 33, 63, 64, 65, 100, 257};
#define N_SHAPES ((int)(sizeof(shapes) / sizeof(shapes[0])))
#define N_ROW_COUNTS ((int)(sizeof(row_counts) / sizeof(row_counts[0])))

/* ---- products against the reference */

static struct both_act copy_of(struct both *b, const struct both_act *a)
{
	struct both_act c = both_act(b, a->n, 0, 1);
	memcpy(c.gpu, a->gpu, (size_t)a->n * nx_dtype_bytes(b->dtype));
	memcpy(c.cpu, a->cpu, (size_t)a->n * sizeof(float));
	return c;
}

static void multiply(struct both *b, const struct both_weight *w, const struct both_act *x,
                     const struct both_act *y, int32_t m, enum nx_epilogue e, const char *what)
{
	struct nx_linear a = {.w = w->gpu, .m = m, .x = x->gpu, .y = y->gpu, .epilogue = e};
	int rc = b->gpu.ops->linear(b->gpu.dev, NULL, &a, &b->gpu.err);
	ck_assert_msg(rc == 0, "%s: %s", what, b->gpu.err.msg);
	a.w = w->cpu;
	a.x = x->cpu;
	a.y = y->cpu;
	rig_ok(&b->cpu, b->cpu.ops->linear(b->cpu.dev, NULL, &a, &b->cpu.err));
	double peak = 1e-30;
	for (int64_t i = 0; i < y->n; i++)
		peak = fmax(peak, fabs((double)y->cpu[i]));
	/* bf16: y is rounded, and where the library makes gates they are too. */
	bool half = b->dtype == NX_BF16;
	both_compare(b, y, half ? 5e-3 : 2e-6, peak * (half ? ldexp(1, -7) : 1e-5), what);
}

/* The same with y in f32, where nothing hides an input left out: compared with the CPU's f32 sums. */
static void multiply_f32(struct both *b, const struct both_weight *w, const struct both_act *x,
                         int64_t n, int32_t m, const char *what)
{
	float *gpu = both_mem(b, (size_t)(n * m) * sizeof(float)),
	      *cpu = both_mem(b, (size_t)(n * m) * sizeof(float));
	struct nx_linear a = {.w = w->gpu, .m = m, .x = x->gpu, .y = gpu, .y_f32 = true};
	rig_ok(&b->gpu, b->gpu.ops->linear(b->gpu.dev, NULL, &a, &b->gpu.err));
	a.w = w->cpu;
	a.x = x->cpu;
	a.y = cpu;
	rig_ok(&b->cpu, b->cpu.ops->linear(b->cpu.dev, NULL, &a, &b->cpu.err));
	double peak = 0, worst = 0;
	for (int64_t i = 0; i < n * m; i++) {
		peak = fmax(peak, fabs((double)cpu[i]));
		ck_assert_msg(isfinite(gpu[i]), "%s: f32 element %lld", what, (long long)i);
		worst = fmax(worst, fabs((double)gpu[i] - cpu[i]));
	}
	ck_assert_msg(worst <= 1e-5 * peak, "%s: f32 sums are off by %g of %g", what, worst, peak);
}

static void check_shape(int64_t n, int64_t k, enum nx_dtype dtype, bool invariant)
{
	struct both b;
	char what[128];
	both_open(&b, dtype, invariant);
	struct both_weight w = both_weight(&b, n, k, 3);
	int32_t max_m = row_counts[N_ROW_COUNTS - 1];
	for (int i = 0; i < N_ROW_COUNTS; i++) {
		int32_t m = row_counts[i];
		if (m > 65 && m != max_m && n * k > 100000)
			continue;
		struct both_act x = both_act(&b, m * k, 7 + (uint64_t)m, 1);
		for (int e = NX_EPI_STORE; e <= NX_EPI_SWIGLU; e++) {
			if (e == NX_EPI_SWIGLU && n % 2)
				continue;
			snprintf(what, sizeof(what), "n %d k %d m %d type %d epilogue %d%s", (int)n,
			         (int)k, m, (int)dtype, e, invariant ? " invariant" : "");
			int64_t cols = e == NX_EPI_SWIGLU ? n / 2 : n;
			struct both_act y = both_act(&b, m * cols, e == NX_EPI_ADD ? 5 : 0, 1);
			multiply(&b, &w, &x, &y, m, (enum nx_epilogue)e, what);
		}
		multiply_f32(&b, &w, &x, n, m, what);
	}
	both_weight_free(&b, &w);
	both_close(&b);
}

START_TEST(products_match_the_reference)
{
	for (int dtype = 0; dtype < 2; dtype++)
		check_shape(shapes[_i].n, shapes[_i].k, (enum nx_dtype)dtype, false);
}
END_TEST

START_TEST(invariant_products_match_the_reference)
{
	check_shape(130, 520, NX_BF16, true);
	check_shape(50, 33, NX_BF16, true);
	check_shape(130, 65, NX_F32, true);
}
END_TEST

START_TEST(library_products_match_the_reference)
{
	setenv("NEXUS_LIBRARY_ROWS", "1", 1);
	for (int dtype = 0; dtype < 2; dtype++) {
		check_shape(258, 96, (enum nx_dtype)dtype, false);
		check_shape(64, 256, (enum nx_dtype)dtype, false);
		check_shape(18, 7, (enum nx_dtype)dtype, false);
	}
	unsetenv("NEXUS_LIBRARY_ROWS");
}
END_TEST

/* Rows of more than one pass a block, and of fewer than one unit; blocks of inputs of every number. */
START_TEST(tall_weights_match_the_reference)
{
	static const struct {
		int64_t n, k;
	} tall[] = {{30004, 64}, {13000, 2120}, {7000, 4100}, {6000, 8200}};
	const int32_t counts[] = {1, 3, 8, 16, 20, 32, 40, 64};
	struct both b;
	both_open(&b, NX_BF16, false);
	struct both_weight w = both_weight(&b, tall[_i].n, tall[_i].k, 3);
	for (int i = 0; i < 8; i++) {
		struct both_act x = both_act(&b, counts[i] * tall[_i].k, 9, 1),
				y = both_act(&b, counts[i] * tall[_i].n, 0, 1);
		multiply(&b, &w, &x, &y, counts[i], NX_EPI_STORE, "tall");
	}
	both_weight_free(&b, &w);
	both_close(&b);
}
END_TEST

/* Few rows and many inputs: the inputs are dealt to two thread blocks. */
START_TEST(wide_weights_match_the_reference)
{
	enum { N = 504, K = 8200 };
	struct both b;
	both_open(&b, NX_BF16, false);
	struct both_weight w = both_weight(&b, N, K, 3);
	const int32_t counts[] = {1, 16, 20, 33};
	for (int i = 0; i < 4; i++)
		for (int e = NX_EPI_STORE; e <= NX_EPI_SWIGLU; e++) {
			struct both_act x = both_act(&b, counts[i] * K, 9, 1),
					y = both_act(&b,
			                             counts[i] * (e == NX_EPI_SWIGLU ? N / 2 : N),
			                             e == NX_EPI_ADD ? 5 : 0, 1);
			multiply(&b, &w, &x, &y, counts[i], (enum nx_epilogue)e, "wide");
		}
	both_weight_free(&b, &w);
	both_close(&b);
}
END_TEST

/* ---- a row's bits */

static void check_invariance(int64_t n, int64_t k, enum nx_dtype dtype, enum nx_epilogue e)
{
	enum { ROWS = 257 };
	struct both b;
	both_open(&b, dtype, true);
	struct both_weight w = both_weight(&b, n, k, 2);
	int64_t cols = e == NX_EPI_SWIGLU ? n / 2 : n;
	size_t x_row = (size_t)k * nx_dtype_bytes(dtype),
	       y_row = (size_t)cols * nx_dtype_bytes(dtype);
	struct both_act x = both_act(&b, ROWS * k, 1, 1), alone = both_act(&b, ROWS * cols, 4, 1);
	struct both_act fresh = copy_of(&b, &alone), y = both_act(&b, ROWS * cols, 0, 1);
	struct nx_linear a = {.w = w.gpu, .m = 1, .epilogue = e};
	for (int r = 0; r < ROWS; r++) {
		a.x = (const uint8_t *)x.gpu + (size_t)r * x_row;
		a.y = (uint8_t *)alone.gpu + (size_t)r * y_row;
		rig_ok(&b.gpu, b.gpu.ops->linear(b.gpu.dev, NULL, &a, &b.gpu.err));
	}
	for (int i = 0; i < N_ROW_COUNTS; i++)
		for (int from = 0; from < 6; from += 5) {
			a.m = row_counts[i] < ROWS - from ? row_counts[i] : ROWS - from;
			a.x = (const uint8_t *)x.gpu + (size_t)from * x_row;
			a.y = y.gpu;
			memcpy(y.gpu, (const uint8_t *)fresh.gpu + (size_t)from * y_row,
			       (size_t)a.m * y_row);
			rig_ok(&b.gpu, b.gpu.ops->linear(b.gpu.dev, NULL, &a, &b.gpu.err));
			ck_assert_msg(!memcmp(y.gpu,
			                      (const uint8_t *)alone.gpu + (size_t)from * y_row,
			                      (size_t)a.m * y_row),
			              "n %d k %d type %d epilogue %d: m = %d from row %d differs",
			              (int)n, (int)k, (int)dtype, (int)e, a.m, from);
		}
	both_weight_free(&b, &w);
	both_close(&b);
}

START_TEST(invariant_rows_have_the_same_bits_for_every_m)
{
	for (int dtype = 0; dtype < 2; dtype++)
		for (int e = NX_EPI_STORE; e <= NX_EPI_SWIGLU; e++) {
			check_invariance(174, 1131, (enum nx_dtype)dtype, (enum nx_epilogue)e);
			check_invariance(576, 1536, (enum nx_dtype)dtype, (enum nx_epilogue)e);
		}
	check_invariance(12000, 264, NX_BF16, NX_EPI_STORE);
	check_invariance(504, 8200, NX_BF16, NX_EPI_ADD);
	check_invariance(13000, 2120, NX_BF16, NX_EPI_ADD);
	check_invariance(7000, 4100, NX_BF16, NX_EPI_SWIGLU);
	check_invariance(6000, 8200, NX_BF16, NX_EPI_ADD);
}
END_TEST

/* ---- captured products give the same as others */

START_TEST(products_can_be_captured)
{
	enum { N = 7000, K = 4096 };
	struct both b;
	both_open(&b, NX_BF16, false);
	const struct nx_device_ops *ops = b.gpu.ops;
	struct both_weight w = both_weight(&b, N, K, 2);
	const int32_t counts[] = {1, 8, 200};
	for (int i = 0; i < 3; i++) {
		struct nx_graph *g = NULL;
		int32_t m = counts[i];
		struct both_act x = both_act(&b, m * K, 1, 1), y = both_act(&b, m * N, 0, 1),
				z = both_act(&b, m * N, 0, 1);
		struct nx_linear a = {.w = w.gpu, .m = m, .x = x.gpu, .y = y.gpu};
		rig_ok(&b.gpu, ops->graph_begin(b.gpu.dev, NULL, &b.gpu.err));
		rig_ok(&b.gpu, ops->linear(b.gpu.dev, NULL, &a, &b.gpu.err));
		rig_ok(&b.gpu, ops->linear(b.gpu.dev, NULL, &a, &b.gpu.err));
		rig_ok(&b.gpu, ops->graph_end(b.gpu.dev, NULL, &g, &b.gpu.err));
		for (int replay = 0; replay < 3; replay++)
			rig_ok(&b.gpu, ops->graph_launch(b.gpu.dev, NULL, g, &b.gpu.err));
		rig_ok(&b.gpu, ops->stream_sync(b.gpu.dev, NULL, &b.gpu.err));
		a.y = z.gpu;
		rig_ok(&b.gpu, ops->linear(b.gpu.dev, NULL, &a, &b.gpu.err));
		ck_assert_int_eq(memcmp(y.gpu, z.gpu, (size_t)m * N * 2), 0);
		ops->graph_destroy(b.gpu.dev, g);
	}
	both_weight_free(&b, &w);
	both_close(&b);
}
END_TEST

/* ---- weights and embedding */

struct random {
	int64_t k;
	float scale;
};

static int random_keys(void *ctx, int64_t row0, int64_t n, uint64_t *key, float *scale,
                       struct nx_err *err)
{
	const struct random *r = ctx;
	(void)err;
	for (int64_t i = 0; i < n; i++)
		key[i] = (uint64_t)(row0 + i + 1) * 0x9e3779b97f4a7c15u;
	*scale = r->scale;
	return 0;
}

static int random_rows(void *ctx, int64_t row0, int64_t n, float *dst, struct nx_err *err)
{
	const struct random *r = ctx;
	for (int64_t i = 0; i < n; i++) {
		uint64_t key = 0;
		float scale = 0;
		int rc = random_keys(ctx, row0 + i, 1, &key, &scale, err);
		if (rc)
			return rc;
		for (int64_t c = 0; c < r->k; c++)
			dst[i * r->k + c] = nx_random_element(key, (uint32_t)c, scale);
	}
	return 0;
}

static void embed(struct both *b, const struct nx_weight *w, int32_t n, const int32_t *token,
                  const int32_t *seq, int32_t *last, void *x)
{
	struct nx_rows rows = {.n_rows = n, .token = token, .seq = seq};
	struct nx_seq_state state = {.max_seqs = 4, .last_token = last};
	rig_ok(&b->gpu, b->gpu.ops->embed(b->gpu.dev, NULL, &rows, &state, w, x, &b->gpu.err));
}

/* More rows than one piece of keys, and than one piece of rows. */
START_TEST(keys_make_the_rows_that_the_source_gives)
{
	for (int dtype = 0; dtype < 2; dtype++) {
		enum { N = 70001, K = 33, ROWS = 4096 };
		struct both b;
		struct nx_weight *w[2];
		both_open(&b, (enum nx_dtype)dtype, false);
		struct random r = {K, 0.037f / 2147483648.0f};
		for (int i = 0; i < 2; i++) {
			struct nx_weight_desc desc = {.n = N,
			                              .k = K,
			                              .dtype = (enum nx_dtype)dtype,
			                              .rows = random_rows,
			                              .ctx = &r,
			                              .lookup = true,
			                              .keys = i ? random_keys : NULL};
			rig_ok(&b.gpu,
			       b.gpu.ops->weight_create(b.gpu.dev, &desc, &w[i], &b.gpu.err));
			uint64_t bytes = 0;
			ck_assert_uint_eq(b.gpu.ops->weight_forecast(b.gpu.dev, &desc, 512),
			                  b.gpu.ops->weight_bytes(w[i]));
			rig_ok(&b.gpu,
			       b.gpu.ops->weight_prepare(b.gpu.dev, w[i], 512, &bytes, &b.gpu.err));
			ck_assert_uint_eq(bytes, b.gpu.ops->weight_bytes(w[i]));
		}
		int32_t *token = both_mem(&b, ROWS * sizeof(*token)),
			*seq = both_mem(&b, ROWS * sizeof(*seq)), *last = both_mem(&b, 4 * 4);
		struct both_act x = both_act(&b, (int64_t)ROWS * K, 0, 1),
				y = both_act(&b, (int64_t)ROWS * K, 0, 1);
		float *row = both_mem(&b, K * sizeof(float));
		for (int i = 0; i < ROWS; i++) {
			token[i] = i < 8 ? N - 1 - i : i * 17;
			seq[i] = 0;
		}
		embed(&b, w[0], ROWS, token, seq, last, x.gpu);
		embed(&b, w[1], ROWS, token, seq, last, y.gpu);
		ck_assert_int_eq(memcmp(x.gpu, y.gpu, (size_t)x.n * nx_dtype_bytes(b.dtype)), 0);
		for (int i = 0; i < ROWS; i += 97) {
			rig_ok(&b.gpu, random_rows(&r, token[i], 1, row, &b.gpu.err));
			for (int c = 0; c < K; c++)
				ck_assert(both_get(&b, &x, i * K + c) ==
				          (b.dtype == NX_BF16 ? to_bf16(row[c]) : row[c]));
		}
		b.gpu.ops->weight_destroy(b.gpu.dev, w[0]);
		b.gpu.ops->weight_destroy(b.gpu.dev, w[1]);
		both_close(&b);
	}
}
END_TEST

START_TEST(rows_of_a_table_are_looked_up)
{
	for (int dtype = 0; dtype < 2; dtype++)
		for (int64_t k = 63; k <= 64; k++) {
			enum { N = 50, ROWS = 7 };
			struct both b;
			both_open(&b, (enum nx_dtype)dtype, false);
			struct both_weight w = both_weight(&b, N, k, 3);
			int32_t *token = both_mem(&b, 4 * ROWS), *seq = both_mem(&b, 4 * ROWS),
				*last = both_mem(&b, 4 * 4);
			const int32_t tokens[ROWS] = {0,  49, NX_TOKEN_LAST, 50,
			                              -7, 3,  NX_TOKEN_LAST};
			for (int i = 0; i < ROWS; i++) {
				token[i] = tokens[i];
				seq[i] = i % 4;
				last[i % 4] = 11 + i % 4;
			}
			struct both_act x = both_act(&b, ROWS * k, 0, 1);
			embed(&b, w.gpu, ROWS, token, seq, last, x.gpu);
			struct nx_rows rows = {.n_rows = ROWS, .token = token, .seq = seq};
			struct nx_seq_state state = {.max_seqs = 4, .last_token = last};
			rig_ok(&b.cpu, b.cpu.ops->embed(b.cpu.dev, NULL, &rows, &state, w.cpu,
			                                x.cpu, &b.cpu.err));
			both_compare(&b, &x, 0, 0, "embed");
			both_weight_free(&b, &w);
			both_close(&b);
		}
}
END_TEST

/* ---- refusals and counts */

START_TEST(impossible_products_are_refused)
{
	struct both b;
	both_open(&b, NX_BF16, false);
	const struct nx_device_ops *ops = b.gpu.ops;
	struct both_weight w = both_weight(&b, 5, 8, 3);
	struct random r = {8, 1};
	struct nx_weight *none = NULL, *plain = NULL;
	struct nx_weight_desc desc = {
		.n = 0, .k = 8, .dtype = NX_BF16, .rows = random_rows, .ctx = &r};
	struct both_act x = both_act(&b, 8, 1, 1), y = both_act(&b, 8, 0, 1);
	struct nx_linear a = {.w = w.gpu, .m = -1, .x = x.gpu, .y = y.gpu};
	ck_assert_int_eq(ops->linear(b.gpu.dev, NULL, &a, &b.gpu.err), NX_EINVAL);
	a.m = 1;
	a.epilogue = NX_EPI_SWIGLU;
	ck_assert_int_eq(ops->linear(b.gpu.dev, NULL, &a, &b.gpu.err), NX_EINVAL);
	a.m = 0;
	a.epilogue = NX_EPI_STORE;
	rig_ok(&b.gpu, ops->linear(b.gpu.dev, NULL, &a, &b.gpu.err));
	ck_assert_int_eq(ops->weight_create(b.gpu.dev, &desc, &none, &b.gpu.err), NX_EINVAL);
	ck_assert_ptr_null(none);
	desc.n = (int64_t)1 << 30;
	desc.k = r.k = (int64_t)1 << 20;
	ck_assert_int_eq(ops->weight_create(b.gpu.dev, &desc, &none, &b.gpu.err), NX_ENOMEM);
	ck_assert_ptr_null(none);
	desc.n = 3;
	desc.k = r.k = 8;
	rig_ok(&b.gpu, ops->weight_create(b.gpu.dev, &desc, &plain, &b.gpu.err));
	struct nx_rows rows = {.n_rows = 1};
	struct nx_seq_state state = {0};
	ck_assert_int_eq(ops->embed(b.gpu.dev, NULL, &rows, &state, plain, y.gpu, &b.gpu.err),
	                 NX_EINVAL);
	ops->weight_destroy(b.gpu.dev, plain);
	both_weight_free(&b, &w);
	both_close(&b);
}
END_TEST

START_TEST(work_is_counted)
{
	struct both b;
	struct nx_counted c;
	both_open(&b, NX_BF16, false);
	struct both_weight w = both_weight(&b, 6, 20, 3);
	struct both_act x = both_act(&b, 60, 1, 1), y = both_act(&b, 18, 1, 1);
	struct nx_linear a = {.w = w.gpu, .m = 3, .x = x.gpu, .y = y.gpu};
	const uint64_t act[] = {3 * (20 + 6) * 2, 3 * (20 + 12) * 2, 3 * (20 + 3) * 2};
	for (int e = NX_EPI_STORE; e <= NX_EPI_SWIGLU; e++) {
		a.epilogue = (enum nx_epilogue)e;
		b.gpu.ops->counted_reset(b.gpu.dev);
		rig_ok(&b.gpu, b.gpu.ops->linear(b.gpu.dev, NULL, &a, &b.gpu.err));
		b.gpu.ops->counted(b.gpu.dev, &c);
		ck_assert_uint_eq(c.weight_bytes, 6 * 20 * 2);
		ck_assert_uint_eq(c.act_bytes, act[e]);
		ck_assert_uint_eq(c.flops, 2 * 3 * 6 * 20);
	}
	both_weight_free(&b, &w);
	both_close(&b);
}
END_TEST

int main(void)
{
	both_need_gpu();
	Suite *s = suite_create("cuda linear");
	TCase *tc = tcase_create("linear");
	tcase_add_loop_test(tc, products_match_the_reference, 0, N_SHAPES);
	tcase_add_test(tc, invariant_products_match_the_reference);
	tcase_add_test(tc, library_products_match_the_reference);
	tcase_add_loop_test(tc, tall_weights_match_the_reference, 0, 4);
	tcase_add_test(tc, wide_weights_match_the_reference);
	tcase_add_test(tc, invariant_rows_have_the_same_bits_for_every_m);
	tcase_add_test(tc, products_can_be_captured);
	tcase_add_test(tc, keys_make_the_rows_that_the_source_gives);
	tcase_add_test(tc, rows_of_a_table_are_looked_up);
	tcase_add_test(tc, impossible_products_are_refused);
	tcase_add_test(tc, work_is_counted);
	suite_add_tcase(s, tc);
	return both_run(s);
}
