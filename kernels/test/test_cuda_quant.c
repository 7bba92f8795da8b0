/* SPDX-License-Identifier: Apache-2.0
 *
 * test_cuda_quant.c: quantized weights of the CUDA backend: codes, rows looked up, and products, against f64 products
 * over the values that weight_quant.h says.
 */
#include <check.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "cuda_test.h"
#include "nexus_kernels/rng.h"
#include "nexus_kernels/weight_quant.h"

#define INT8 NX_WEIGHT_CODE_INT8
#define INT4 NX_WEIGHT_CODE_INT4
#define E4M3 NX_WEIGHT_CODE_E4M3

static const struct nx_weight_quant formats[] = {
	{.code = INT8},
	{.code = INT8, .group_size = 32},
	{.code = INT8, .group_size = 128, .zero = true},
	{.code = INT8, .group_size = 16},
	{.code = INT4, .group_size = 128},
	{.code = INT4, .zero = true},
	{.code = INT4, .group_size = 32},
	{.code = INT4, .group_size = 64, .zero = true},
	{.code = INT4, .group_size = 48, .zero = true},
	{.code = INT4, .group_size = 192},
	{.code = E4M3},
	{.code = E4M3, .group_size = 128},
	{.code = E4M3, .group_size = 32},
	{.code = E4M3, .group_size = 80},
};
#define N_FORMATS ((int)(sizeof(formats) / sizeof(formats[0])))
static const struct {
	int64_t n, k;
} shapes[] = {{1, 1},    {2, 3},     {18, 7},     {24, 40},   {130, 65},  {258, 96},
              {64, 256}, {576, 576}, {100, 1131}, {2000, 72}, {504, 8200}};
static const int32_t row_counts[] = {1, 2, 7, 8, 9, 15, 16, 17, 31, 32, 33, 63, 64, 65, 300};
#define N_SHAPES ((int)(sizeof(shapes) / sizeof(shapes[0])))
#define N_ROW_COUNTS ((int)(sizeof(row_counts) / sizeof(row_counts[0])))

/* ---- a matrix, and what its codes stand for */

struct matrix {
	struct nx_weight_quant f;
	int64_t n, k, groups;
	uint64_t salt;
	float *value; /* [n, k] */
	uint8_t *codes;
	struct nx_quant_param *params;
};

static int keys_of(void *ctx, int64_t row0, int64_t n, uint64_t *key, float *scale,
                   struct nx_err *err)
{
	const struct matrix *m = ctx;
	(void)err;
	for (int64_t i = 0; i < n; i++)
		key[i] = (uint64_t)(row0 + i + 1) * 0x9e3779b97f4a7c15u + m->salt;
	*scale = 0.037f / 2147483648.0f;
	return 0;
}

static int rows_of(void *ctx, int64_t row0, int64_t n, float *dst, struct nx_err *err)
{
	const struct matrix *m = ctx;
	for (int64_t i = 0; i < n; i++) {
		uint64_t key = 0;
		float scale = 0;
		int rc = keys_of(ctx, row0 + i, 1, &key, &scale, err);
		if (rc)
			return rc;
		for (int64_t c = 0; c < m->k; c++)
			dst[i * m->k + c] = nx_random_element(key, (uint32_t)c, scale);
	}
	return 0;
}

static int codes_of(void *ctx, int64_t row0, int64_t n, uint8_t *codes,
                    struct nx_quant_param *params, struct nx_err *err)
{
	const struct matrix *m = ctx;
	(void)err;
	memcpy(codes, m->codes + row0 * m->k, (size_t)(n * m->k));
	memcpy(params, m->params + row0 * m->groups, (size_t)(n * m->groups) * sizeof(*params));
	return 0;
}

static struct matrix matrix_make(const struct nx_weight_quant *f, int64_t n, int64_t k,
                                 uint64_t salt)
{
	struct matrix m = {.f = *f, .n = n, .k = k, .salt = salt};
	int64_t size = f->group_size ? f->group_size : k;
	m.groups = nx_weight_groups(f, k);
	m.value = malloc((size_t)(n * k) * sizeof(float));
	m.codes = malloc((size_t)(n * k));
	m.params = malloc((size_t)(n * m.groups) * sizeof(*m.params));
	float *row = malloc((size_t)k * sizeof(float));
	for (int64_t r = 0; r < n; r++) {
		rows_of(&m, r, 1, row, NULL);
		for (int64_t g = 0; g < m.groups; g++) {
			int64_t end = (g + 1) * size < k ? (g + 1) * size : k;
			struct nx_quant_param p =
				nx_weight_param(f, row + g * size, end - g * size);
			m.params[r * m.groups + g] = p;
			for (int64_t i = g * size; i < end; i++) {
				m.codes[r * k + i] = nx_weight_code(f, p, row[i]);
				m.value[r * k + i] = nx_weight_value(f, p, m.codes[r * k + i]);
			}
		}
	}
	free(row);
	return m;
}

static void matrix_free(struct matrix *m)
{
	free(m->value);
	free(m->codes);
	free(m->params);
}

enum source { ROWS, KEYS, CODES };

static struct nx_weight_desc desc_of(const struct both *b, struct matrix *m, enum source from)
{
	struct nx_weight_desc d = {
		.n = m->n, .k = m->k, .dtype = b->dtype, .ctx = m, .quant = m->f, .lookup = true};
	d.rows = from == CODES ? NULL : rows_of;
	d.keys = from == KEYS ? keys_of : NULL;
	d.codes = from == CODES ? codes_of : NULL;
	return d;
}

static struct nx_weight *upload(struct both *b, struct matrix *m, enum source from)
{
	struct nx_weight_desc d = desc_of(b, m, from);
	struct nx_weight *w = NULL;
	rig_ok(&b->gpu, b->gpu.ops->weight_create(b->gpu.dev, &d, &w, &b->gpu.err));
	return w;
}

/* ---- products */

/* Sums in f64. */
static double *sums_of(const struct matrix *m, const float *x, int64_t rows)
{
	double *y = malloc((size_t)(rows * m->n) * sizeof(double));
	for (int64_t r = 0; r < rows; r++)
		for (int64_t c = 0; c < m->n; c++) {
			double sum = 0;
			const float *w = m->value + c * m->k, *at = x + r * m->k;
			for (int64_t i = 0; i < m->k; i++)
				sum += (double)w[i] * at[i];
			y[r * m->n + c] = sum;
		}
	return y;
}

static float element(const void *y, bool f32, int64_t i)
{
	float x = 0;
	if (f32)
		return ((const float *)y)[i];
	memcpy((uint8_t *)&x + 2, (const uint8_t *)y + i * 2, 2);
	return x;
}

/* One product, compared. rough: the library had the weight's values rounded to bf16. */
static void multiply(struct both *b, const struct nx_weight *w, const struct matrix *mat,
                     const double *sums, const struct both_act *x, int32_t m, enum nx_epilogue e,
                     bool f32, bool rough, void *y, const char *what)
{
	bool wide = f32 || b->dtype == NX_F32;
	int64_t cols = e == NX_EPI_SWIGLU ? mat->n / 2 : mat->n, size = wide ? 4 : 2;
	memset(y, 0xff, (size_t)(m * cols + 16) * (size_t)size);
	if (e == NX_EPI_ADD)
		memset(y, 0x3e, (size_t)(m * cols * size));
	double start = e == NX_EPI_ADD ? element(y, wide, 0) : 0, peak = 1e-30, diff = 0, norm = 0,
	       worst = 0;
	struct nx_linear a = {.w = w, .m = m, .x = x->gpu, .y = y, .epilogue = e, .y_f32 = f32};
	int rc = b->gpu.ops->linear(b->gpu.dev, NULL, &a, &b->gpu.err);
	ck_assert_msg(rc == 0, "%s: %s", what, b->gpu.err.msg);
	for (int64_t i = 0; i < m * mat->n; i++)
		peak = fmax(peak, fabs(sums[i]));
	for (int64_t i = 0; i < m * cols; i++) {
		double got = element(y, wide, i), want = sums[i] + start;
		if (e == NX_EPI_SWIGLU) {
			double gate = sums[2 * i];
			want = gate / (1 + exp(-gate)) * sums[2 * i + 1];
		}
		if (!isfinite(got))
			ck_abort_msg("%s: element %lld is %g", what, (long long)i, got);
		double off = fabs(got - want) - (wide ? 0 : ldexp(fabs(want), -8));
		worst = fmax(worst, off);
		diff += (got - want) * (got - want);
		norm += want * want;
	}
	for (int i = 0; i < 16; i++)
		ck_assert_msg(!isfinite(element(y, wide, m * cols + i)), "%s: y has an end", what);
	double most = e == NX_EPI_SWIGLU ? peak * fmax(peak, 1) : peak;
	ck_assert_msg(worst <= most * (rough ? ldexp(1, -6) : 1e-5) &&
	                      sqrt(diff) <= sqrt(norm) * (rough  ? 1e-2
	                                                  : wide ? 1e-5
	                                                         : 4e-3),
	              "%s: off by %g of %g, by %g in all", what, worst, most, sqrt(diff / norm));
}

static void check(struct both *b, const struct nx_weight_quant *f, int64_t n, int64_t k,
                  const int32_t *counts, int n_counts)
{
	struct matrix mat = matrix_make(f, n, k, (uint64_t)(n * 7 + k));
	int64_t most = counts[n_counts - 1];
	struct nx_weight *w = upload(b, &mat, ROWS);
	struct both_act x = both_act(b, most * k, 7, 1);
	void *y = both_mem(b, (size_t)(most * n + 16) * sizeof(float));
	double *sums = sums_of(&mat, x.cpu, most);
	for (int i = 0; i < n_counts; i++)
		for (int e = NX_EPI_STORE; e <= NX_EPI_SWIGLU; e++)
			for (int f32 = 0; f32 < 2; f32++) {
				char what[160];
				int32_t m = counts[i];
				if (e == NX_EPI_SWIGLU && n % 2)
					continue;
				snprintf(what, sizeof(what),
				         "code %d group %d zero %d n %d k %d m %d epilogue %d %s",
				         (int)f->code, f->group_size, f->zero, (int)n, (int)k, m, e,
				         f32 ? "f32" : "");
				multiply(b, w, &mat, sums, &x, m, (enum nx_epilogue)e, f32,
				         b->dtype == NX_BF16 && m > 64, y, what);
			}
	free(sums);
	matrix_free(&mat);
	b->gpu.ops->weight_destroy(b->gpu.dev, w);
}

START_TEST(products_are_those_of_the_values)
{
	struct both b;
	for (int i = 0; i < N_SHAPES; i++) {
		bool wide = shapes[i].k > 2000;
		both_open(&b, NX_BF16, false);
		check(&b, &formats[_i], shapes[i].n, shapes[i].k, row_counts,
		      wide ? N_ROW_COUNTS - 1 : N_ROW_COUNTS);
		both_close(&b);
	}
}
END_TEST

START_TEST(products_in_f32_are_those_of_the_values)
{
	static const int32_t counts[] = {1, 3, 8, 17};
	struct both b;
	for (int i = 0; i < N_SHAPES - 1; i++) {
		both_open(&b, NX_F32, false);
		check(&b, &formats[_i], shapes[i].n, shapes[i].k, counts, 4);
		both_close(&b);
	}
}
END_TEST

/* Several passes a block, and clusters of blocks whose shares are uneven. */
START_TEST(large_products_are_those_of_the_values)
{
	static const int32_t counts[] = {1, 12, 20};
	static const int at[] = {0, 2, 4, 8, 11};
	struct both b;
	for (int i = 0; i < 5; i++) {
		both_open(&b, NX_BF16, false);
		check(&b, &formats[at[i]], 30004, 64, counts, 3);
		check(&b, &formats[at[i]], 3000, 8256, counts, 2);
		both_close(&b);
	}
}
END_TEST

/* Many rows: every share of columns is turned into bf16. */
START_TEST(library_products_are_those_of_the_values)
{
	static const int32_t counts[] = {65, 130};
	static const int at[] = {0, 2, 4, 7, 11};
	struct both b;
	setenv("NEXUS_LIBRARY_ROWS", "1", 1);
	for (int i = 0; i < 5; i++) {
		both_open(&b, NX_BF16, false);
		check(&b, &formats[at[i]], 130, 65, counts, 2);
		check(&b, &formats[at[i]], 258, 1131, counts, 2);
		if (i == 2)
			check(&b, &formats[at[i]], 17010, 1024, counts, 1);
		both_close(&b);
	}
	unsetenv("NEXUS_LIBRARY_ROWS");
}
END_TEST

static void check_invariance(const struct nx_weight_quant *f, int64_t n, int64_t k,
                             enum nx_epilogue e)
{
	enum { ALL = 130 };
	static const int32_t counts[] = {2, 8, 9, 16, 17, 32, 33, 64, 65, ALL};
	struct both b;
	both_open(&b, NX_BF16, true);
	struct matrix mat = matrix_make(f, n, k, 3);
	struct nx_weight *w = upload(&b, &mat, KEYS);
	int64_t cols = e == NX_EPI_SWIGLU ? n / 2 : n;
	struct both_act x = both_act(&b, ALL * k, 1, 1);
	uint8_t *alone = both_mem(&b, (size_t)(ALL * cols * 2)),
		*y = both_mem(&b, (size_t)(ALL * cols * 2));
	struct nx_linear a = {.w = w, .m = 1, .epilogue = e};
	memset(alone, 0x3e, (size_t)(ALL * cols * 2));
	for (int r = 0; r < ALL; r++) {
		a.x = (const uint8_t *)x.gpu + r * k * 2;
		a.y = alone + r * cols * 2;
		rig_ok(&b.gpu, b.gpu.ops->linear(b.gpu.dev, NULL, &a, &b.gpu.err));
	}
	a.x = x.gpu;
	a.y = y;
	for (int i = 0; i < 10; i++) {
		a.m = counts[i];
		memset(y, 0x3e, (size_t)(ALL * cols * 2));
		rig_ok(&b.gpu, b.gpu.ops->linear(b.gpu.dev, NULL, &a, &b.gpu.err));
		ck_assert_msg(!memcmp(y, alone, (size_t)(a.m * cols * 2)),
		              "code %d n %d k %d epilogue %d: m = %d differs", (int)f->code, (int)n,
		              (int)k, (int)e, a.m);
	}
	matrix_free(&mat);
	b.gpu.ops->weight_destroy(b.gpu.dev, w);
	both_close(&b);
}

START_TEST(rows_have_the_same_bits_for_every_m)
{
	for (int e = NX_EPI_STORE; e <= NX_EPI_SWIGLU; e++)
		check_invariance(&formats[_i], 174, 1131, (enum nx_epilogue)e);
	check_invariance(&formats[_i], 576, 8200, NX_EPI_ADD);
	check_invariance(&formats[_i], 17000, 200, NX_EPI_STORE);
}
END_TEST

START_TEST(products_can_be_captured)
{
	static const int32_t counts[] = {3, 20, 200};
	struct both b;
	both_open(&b, NX_BF16, false);
	const struct nx_device_ops *ops = b.gpu.ops;
	struct matrix mat = matrix_make(&formats[4], 512, 768, 3);
	struct nx_weight *w = upload(&b, &mat, KEYS);
	for (int i = 0; i < 3; i++) {
		struct nx_graph *g = NULL;
		int32_t m = counts[i];
		struct both_act x = both_act(&b, m * 768, 1, 1), y = both_act(&b, m * 512, 0, 1),
				z = both_act(&b, m * 512, 0, 1);
		struct nx_linear a = {.w = w, .m = m, .x = x.gpu, .y = y.gpu};
		rig_ok(&b.gpu, ops->graph_begin(b.gpu.dev, NULL, &b.gpu.err));
		rig_ok(&b.gpu, ops->linear(b.gpu.dev, NULL, &a, &b.gpu.err));
		rig_ok(&b.gpu, ops->linear(b.gpu.dev, NULL, &a, &b.gpu.err));
		rig_ok(&b.gpu, ops->graph_end(b.gpu.dev, NULL, &g, &b.gpu.err));
		rig_ok(&b.gpu, ops->graph_launch(b.gpu.dev, NULL, g, &b.gpu.err));
		rig_ok(&b.gpu, ops->stream_sync(b.gpu.dev, NULL, &b.gpu.err));
		a.y = z.gpu;
		rig_ok(&b.gpu, ops->linear(b.gpu.dev, NULL, &a, &b.gpu.err));
		ck_assert_int_eq(memcmp(y.gpu, z.gpu, (size_t)m * 512 * 2), 0);
		ops->graph_destroy(b.gpu.dev, g);
	}
	matrix_free(&mat);
	ops->weight_destroy(b.gpu.dev, w);
	both_close(&b);
}
END_TEST

/* ---- codes: rows looked up show every one of them */

START_TEST(every_source_gives_the_same_codes)
{
	enum { N = 50, ASKED = 53 };
	for (int dtype = 0; dtype < 2; dtype++)
		for (int64_t k = 63; k <= 320; k += 257) {
			struct both b;
			both_open(&b, (enum nx_dtype)dtype, false);
			struct matrix mat = matrix_make(&formats[_i], N, k, 3);
			int32_t *token = both_mem(&b, 4 * ASKED), *seq = both_mem(&b, 4 * ASKED),
				*last = both_mem(&b, 4 * 4);
			for (int i = 0; i < ASKED; i++) {
				token[i] = i < N ? i : i == N ? -7 : i == N + 1 ? N : NX_TOKEN_LAST;
				seq[i] = i % 4;
				last[i % 4] = 11 + i % 4;
			}
			for (int from = ROWS; from <= CODES; from++) {
				struct nx_weight *w = upload(&b, &mat, (enum source)from);
				struct both_act x = both_act(&b, ASKED * k, 0, 1);
				struct nx_rows rows = {.n_rows = ASKED, .token = token, .seq = seq};
				struct nx_seq_state state = {.max_seqs = 4, .last_token = last};
				rig_ok(&b.gpu, b.gpu.ops->embed(b.gpu.dev, NULL, &rows, &state, w,
				                                x.gpu, &b.gpu.err));
				for (int64_t i = 0; i < ASKED * k; i++) {
					int64_t r = i / k;
					r = r == ASKED - 1 ? 11 + (ASKED - 1) % 4 : r;
					float want = r < N ? mat.value[r * k + i % k] : 0;
					want = dtype == NX_BF16 ? to_bf16(want) : want;
					ck_assert_msg(both_get(&b, &x, i) == want,
					              "source %d, element %lld: %g, not %g", from,
					              (long long)i, both_get(&b, &x, i), want);
				}
				b.gpu.ops->weight_destroy(b.gpu.dev, w);
			}
			matrix_free(&mat);
			both_close(&b);
		}
}
END_TEST

/* ---- sizes, counts, refusals */

START_TEST(bytes_are_those_of_the_format_and_whole_tiles)
{
	const struct nx_weight_quant *f = &formats[_i];
	struct both b;
	both_open(&b, NX_BF16, false);
	const struct nx_device_ops *ops = b.gpu.ops;
	for (int i = 0; i < 2; i++) {
		struct matrix mat = matrix_make(f, i ? 50 : 64, i ? 203 : 384, 1);
		struct nx_weight_desc d = desc_of(&b, &mat, ROWS);
		struct nx_weight *w = upload(&b, &mat, ROWS);
		uint64_t rows = (uint64_t)(mat.n + 15) / 16 * 16,
			 inputs = (uint64_t)(mat.k + 63) / 64 * 64, used = 0,
			 want = rows * (inputs * (uint64_t)nx_weight_bits(f->code) / 8 +
		                        (uint64_t)mat.groups * (uint64_t)nx_weight_param_bytes(f));
		ck_assert_uint_eq(ops->weight_bytes(w), want);
		ck_assert_uint_eq(ops->weight_forecast(b.gpu.dev, &d, 512), want);
		rig_ok(&b.gpu, ops->weight_prepare(b.gpu.dev, w, 512, &used, &b.gpu.err));
		ck_assert_uint_eq(used, want);
		if (!i)
			ck_assert_uint_eq(want, nx_weight_quant_bytes(f, mat.n, mat.k));
		struct both_act x = both_act(&b, mat.k, 1, 1), y = both_act(&b, mat.n, 0, 1);
		struct nx_linear a = {.w = w, .m = 1, .x = x.gpu, .y = y.gpu};
		struct nx_counted c;
		ops->counted_reset(b.gpu.dev);
		rig_ok(&b.gpu, ops->linear(b.gpu.dev, NULL, &a, &b.gpu.err));
		ops->counted(b.gpu.dev, &c);
		ck_assert_uint_eq(c.weight_bytes, nx_weight_quant_bytes(f, mat.n, mat.k));
		ck_assert_uint_eq(c.act_bytes, (uint64_t)(mat.n + mat.k) * 2);
		ck_assert_uint_eq(c.flops, (uint64_t)(mat.n * mat.k) * 2);
		ops->weight_destroy(b.gpu.dev, w);
		matrix_free(&mat);
	}
	both_close(&b);
}
END_TEST

static void refused(struct both *b, struct nx_weight_quant f, int code)
{
	struct matrix mat = {.f = f, .n = 20, .k = 64};
	struct nx_weight_desc d = desc_of(b, &mat, ROWS);
	struct nx_weight *w = NULL;
	ck_assert_int_eq(b->gpu.ops->weight_create(b->gpu.dev, &d, &w, &b->gpu.err), code);
	ck_assert_ptr_null(w);
	ck_assert_int_gt((int)strlen(b->gpu.err.msg), 10);
}

START_TEST(formats_that_are_not_there_are_refused)
{
	struct both b;
	struct nx_device_info info;
	both_open(&b, NX_BF16, false);
	b.gpu.ops->info(b.gpu.dev, &info);
	ck_assert_uint_eq(info.weight_codes,
	                  1u << NX_WEIGHT_CODE_NONE | 1u << INT8 | 1u << INT4 | 1u << E4M3);
	refused(&b, (struct nx_weight_quant){.code = INT4, .group_size = 24}, NX_EINVAL);
	refused(&b, (struct nx_weight_quant){.code = INT8, .group_size = -16}, NX_EINVAL);
	refused(&b, (struct nx_weight_quant){.code = INT8, .int8_acts = true}, NX_ENOTSUP);
	refused(&b, (struct nx_weight_quant){.code = (enum nx_weight_code)9}, NX_ENOTSUP);
	both_close(&b);
}
END_TEST

int main(void)
{
	both_need_gpu();
	Suite *s = suite_create("cuda quant");
	TCase *products = tcase_create("products"), *f32 = tcase_create("f32"),
	      *large = tcase_create("large"), *bits = tcase_create("bits"),
	      *rest = tcase_create("rest");
	tcase_add_loop_test(products, products_are_those_of_the_values, 0, N_FORMATS);
	tcase_add_loop_test(f32, products_in_f32_are_those_of_the_values, 0, N_FORMATS);
	tcase_add_test(large, large_products_are_those_of_the_values);
	tcase_add_test(large, library_products_are_those_of_the_values);
	tcase_add_loop_test(bits, rows_have_the_same_bits_for_every_m, 0, N_FORMATS);
	tcase_add_test(rest, products_can_be_captured);
	tcase_add_loop_test(rest, every_source_gives_the_same_codes, 0, N_FORMATS);
	tcase_add_loop_test(rest, bytes_are_those_of_the_format_and_whole_tiles, 0, N_FORMATS);
	tcase_add_test(rest, formats_that_are_not_there_are_refused);
	suite_add_tcase(s, products);
	suite_add_tcase(s, f32);
	suite_add_tcase(s, large);
	suite_add_tcase(s, bits);
	suite_add_tcase(s, rest);
	return both_run(s);
}
