/* SPDX-License-Identifier: Apache-2.0
 *
 * Weights of codes on the CPU: what codes stand for, products against the decoded matrix, bytes, refusals.
 */
#include <check.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "kernel_test.h"
#include "nexus_kernels/weight_quant.h"

static const struct {
	int64_t n, k;
} shapes[] = {{1, 1}, {2, 3}, {16, 16}, {18, 7}, {30, 33}, {48, 64}, {130, 65}, {94, 272}};
static const struct nx_weight_quant formats[] = {
	{NX_WEIGHT_CODE_INT8, 0, false, false}, {NX_WEIGHT_CODE_INT8, 32, false, false},
	{NX_WEIGHT_CODE_INT8, 16, true, false}, {NX_WEIGHT_CODE_INT4, 0, false, false},
	{NX_WEIGHT_CODE_INT4, 32, true, false}, {NX_WEIGHT_CODE_INT4, 48, false, false},
	{NX_WEIGHT_CODE_E4M3, 0, false, false}, {NX_WEIGHT_CODE_E4M3, 128, false, false},
	{NX_WEIGHT_CODE_INT8, 0, false, true},  {NX_WEIGHT_CODE_INT8, 32, false, true},
	{NX_WEIGHT_CODE_INT8, 48, true, true},  {NX_WEIGHT_CODE_INT4, 0, true, true},
	{NX_WEIGHT_CODE_INT4, 32, false, true}, {NX_WEIGHT_CODE_INT4, 16, true, true},
};
static const int32_t row_counts[] = {1, 2, 3, 4, 5, 7, 8, 13, 14, 15, 33};
#define N_OF(a) ((int)(sizeof(a) / sizeof((a)[0])))

/* A matrix, and what of it a weight was asked for. */
struct subject {
	int64_t n, k, groups;
	struct nx_weight_quant f;
	float *values;                 /* [n, k], before */
	uint8_t *codes;                /* [n, k] */
	struct nx_quant_param *params; /* [n, groups] */
	float *decoded;                /* [n, k] */
	struct nx_weight_desc desc;
	struct nx_weight *w;
};

static int value_rows(void *ctx, int64_t row0, int64_t n, float *dst, struct nx_err *err)
{
	const struct subject *s = ctx;
	(void)err;
	memcpy(dst, s->values + row0 * s->k, (size_t)(n * s->k) * sizeof(float));
	return 0;
}

static int code_rows(void *ctx, int64_t row0, int64_t n, uint8_t *codes,
                     struct nx_quant_param *params, struct nx_err *err)
{
	const struct subject *s = ctx;
	(void)err;
	memcpy(codes, s->codes + row0 * s->k, (size_t)(n * s->k));
	memcpy(params, s->params + row0 * s->groups, (size_t)(n * s->groups) * sizeof(*params));
	return 0;
}

static int64_t group_of(const struct subject *s, int64_t i)
{
	return s->f.group_size ? i / s->f.group_size : 0;
}

static struct nx_quant_param param_of(const struct subject *s, int64_t row, int64_t i)
{
	return s->params[row * s->groups + group_of(s, i)];
}

/* Values of unequal sizes, an outlier and a row of zeros; what they become is computed here, element by element. */
static void subject_init(struct subject *s, int64_t n, int64_t k, struct nx_weight_quant f)
{
	*s = (struct subject){.n = n, .k = k, .groups = nx_weight_groups(&f, k), .f = f};
	s->values = noise_array(n * k, 11);
	s->codes = malloc((size_t)(n * k));
	s->params = malloc((size_t)(n * s->groups) * sizeof(*s->params));
	s->decoded = malloc((size_t)(n * k) * sizeof(float));
	ck_assert(s->codes && s->params && s->decoded);
	for (int64_t i = 0; i < n * k; i++)
		s->values[i] *= ldexpf(1, -(int)(i / k % 5)) + (i % 97 == 5 ? 3.0f : 0.0f);
	for (int64_t i = 0; i < k && n > 1; i++)
		s->values[(n - 1) * k + i] = 0;
	for (int64_t row = 0; row < n; row++)
		for (int64_t i = 0, step = f.group_size ? f.group_size : k; i < k; i += step) {
			const float *x = s->values + row * k + i;
			s->params[row * s->groups + group_of(s, i)] =
				nx_weight_param(&f, x, k - i < step ? k - i : step);
		}
	for (int64_t i = 0; i < n * k; i++) {
		struct nx_quant_param p = param_of(s, i / k, i % k);
		s->codes[i] = nx_weight_code(&f, p, s->values[i]);
		s->decoded[i] = nx_weight_value(&f, p, s->codes[i]);
	}
	s->desc = (struct nx_weight_desc){.n = n,
	                                  .k = k,
	                                  .dtype = NX_BF16,
	                                  .rows = value_rows,
	                                  .ctx = s,
	                                  .lookup = true,
	                                  .quant = f};
}

static void subject_release(struct subject *s)
{
	free(s->values);
	free(s->codes);
	free(s->params);
	free(s->decoded);
}

static void subject_make(struct subject *s, struct rig *r)
{
	rig_ok(r, r->ops->weight_create(r->dev, &s->desc, &s->w, &r->err));
}

static void subject_drop(struct subject *s, struct rig *r)
{
	r->ops->weight_destroy(r->dev, s->w);
	s->w = NULL;
}

/* Row `row` as the device has it. */
static void lookup(struct rig *r, const struct subject *s, int32_t row, float *to)
{
	int32_t seq = 0;
	struct nx_rows rows = {.n_rows = 1, .seq = &seq, .token = &row};
	struct nx_seq_state state = {.max_seqs = 1};
	rig_ok(r, r->ops->embed(r->dev, NULL, &rows, &state, s->w, to, &r->err));
}

START_TEST(codes_are_half_a_step_from_what_they_stand_for)
{
	struct rig r;
	ck_assert(rig_open(&r, 0, 2, false));
	for (int i = 0; i < N_OF(formats); i++) {
		struct subject s;
		float row[272];
		subject_init(&s, shapes[_i].n, shapes[_i].k, formats[i]);
		subject_make(&s, &r);
		for (int64_t n = 0; n < s.n; n++) {
			lookup(&r, &s, (int32_t)n, row);
			for (int64_t k = 0; k < s.k; k++) {
				float x = s.values[n * s.k + k];
				struct nx_quant_param p = param_of(&s, n, k);
				/* Of e4m3 the step is an eighth of the power of two below, 2^-9 at least. */
				float step = p.scale;
				if (s.f.code == NX_WEIGHT_CODE_E4M3)
					step *= fmaxf(
						ldexpf(1, -9),
						ldexpf(1, (int)floorf(log2f(fmaxf(
								  fabsf(x) / fmaxf(p.scale, 1e-30f),
								  1e-9f))) -
					                          3));
				ck_assert_msg(fabsf(x - row[k]) <= step / 2 * (1 + 1e-5f) + 1e-30f,
				              "format %d: %g became %g with a step of %g", i,
				              (double)x, (double)row[k], (double)step);
				ck_assert_float_eq(row[k], s.decoded[n * s.k + k]);
			}
		}
		subject_drop(&s, &r);
		subject_release(&s);
	}
	rig_close(&r);
}
END_TEST

/* x as int8 activations are: groups of the weight's size, scale = largest / 127. */
static void round_acts(const struct subject *s, float *x, int64_t rows)
{
	int64_t step = s->f.group_size ? s->f.group_size : s->k;
	for (int64_t row = 0; row < rows; row++)
		for (int64_t i = 0; i < s->k; i += step) {
			float *g = x + row * s->k + i, most = 0;
			int64_t n = s->k - i < step ? s->k - i : step;
			for (int64_t j = 0; j < n; j++)
				most = fmaxf(most, fabsf(g[j]));
			for (int64_t j = 0; j < n && most > 0; j++) {
				float was = g[j];
				g[j] = most / 127 * rintf(was * (127 / most));
				ck_assert(fabsf(was - g[j]) <= most / 127 * 0.50001f);
			}
		}
}

/*
 * One product against float64 over the decoded matrix. Products add codes of up to 2^bits, so a sum's error is
 * bounded by k 2^-24 sum |x| (2^bits scale + |zero|).
 */
static void check_product(struct rig *r, const struct subject *s, int isa, int32_t m,
                          enum nx_epilogue epilogue)
{
	int64_t k = s->k, cols = epilogue == NX_EPI_SWIGLU ? s->n / 2 : s->n;
	float *x = noise_array(m * k, 7), *y = noise_array(m * cols, 5);
	for (int64_t i = 0; i < m * k; i++)
		x[i] *= i % 53 == 2 ? 20.0f : 1.0f;
	struct nx_linear a = {
		.w = s->w, .m = m, .x = x, .y = y, .epilogue = epilogue, .y_f32 = true};
	rig_ok(r, r->ops->linear(r->dev, NULL, &a, &r->err));
	if (s->f.int8_acts)
		round_acts(s, x, m);
	double unit = (double)(k + 8) * ldexp(1, -24),
	       most = s->f.code == NX_WEIGHT_CODE_E4M3 ? 448 : 1 << nx_weight_bits(s->f.code);
	for (int64_t row = 0; row < m; row++)
		for (int64_t j = 0; j < cols; j++) {
			double sum[2] = {0, 0}, size[2] = {0, 0};
			for (int part = 0; part < (epilogue == NX_EPI_SWIGLU ? 2 : 1); part++) {
				int64_t f = epilogue == NX_EPI_SWIGLU ? 2 * j + part : j;
				for (int64_t i = 0; i < k; i++) {
					struct nx_quant_param p = param_of(s, f, i);
					double xi = x[row * k + i];
					sum[part] += xi * s->decoded[f * k + i];
					size[part] += fabs(xi) * (p.scale * most + fabsf(p.zero));
				}
			}
			double want = sum[0], tol = unit * size[0] + 1e-30;
			if (epilogue == NX_EPI_ADD) {
				want += noise(5, (uint64_t)(row * cols + j));
				tol += fabs(want) * ldexp(1, -23);
			} else if (epilogue == NX_EPI_SWIGLU) {
				want = sum[0] / (1 + exp(-sum[0])) * sum[1];
				tol = 1.1 * unit *
				              (size[0] * fabs(sum[1]) + size[1] * fabs(sum[0])) +
				      2 * unit * unit * size[0] * size[1] +
				      fabs(want) * ldexp(1, -20) + 1e-30;
			}
			double got = y[row * cols + j];
			ck_assert_msg(
				fabs(got - want) <= tol,
				"%s code %d group %d zero %d acts %d n %d k %d m %d epilogue %d "
				"[%d, %d]: %g, not %g (by %g)",
				isa_name(isa), (int)s->f.code, s->f.group_size, s->f.zero,
				s->f.int8_acts, (int)s->n, (int)k, m, epilogue, (int)row, (int)j,
				got, want, tol);
		}
	free(x);
	free(y);
}

START_TEST(products_match_the_decoded_matrix)
{
	for (int isa = 0; isa < N_ISAS; isa++) {
		struct rig r;
		if (!rig_open(&r, isa, 1 + _i % 3, false))
			continue;
		for (int s = 0; s < N_OF(shapes); s++) {
			struct subject sub;
			subject_init(&sub, shapes[s].n, shapes[s].k, formats[_i]);
			subject_make(&sub, &r);
			for (int m = 0; m < N_OF(row_counts); m++)
				for (int e = NX_EPI_STORE; e <= NX_EPI_SWIGLU; e++)
					if (e != NX_EPI_SWIGLU || sub.n % 2 == 0)
						check_product(&r, &sub, isa, row_counts[m],
						              (enum nx_epilogue)e);
			subject_drop(&sub, &r);
			subject_release(&sub);
		}
		rig_close(&r);
	}
}
END_TEST

/* A row's product has the same bits in every company, for every number of threads. */
START_TEST(rows_have_the_same_bits_for_every_m)
{
	enum { N = 174, K = 131, ROWS = 40 };
	float *x = noise_array(ROWS * K, 1), alone[ROWS * N], together[ROWS * N];
	struct subject s;
	subject_init(&s, N, K, formats[_i]);
	for (int isa = 1; isa < N_ISAS; isa++)
		for (int threads = 1; threads <= 3; threads++) {
			struct rig r;
			if (!rig_open(&r, isa, threads, true))
				break;
			subject_make(&s, &r);
			for (int row = 0; row < ROWS && threads == 1; row++) {
				struct nx_linear a = {
					.w = s.w, .m = 1, .x = x + row * K, .y = alone + row * N};
				rig_ok(&r, r.ops->linear(r.dev, NULL, &a, &r.err));
			}
			for (int32_t m = 1; m <= ROWS; m++) {
				struct nx_linear a = {.w = s.w, .m = m, .x = x, .y = together};
				rig_ok(&r, r.ops->linear(r.dev, NULL, &a, &r.err));
				ck_assert_msg(
					!memcmp(alone, together, sizeof(float) * (size_t)m * N),
					"%s: m = %d with %d threads differs", isa_name(isa), m,
					threads);
			}
			subject_drop(&s, &r);
			rig_close(&r);
		}
	subject_release(&s);
	free(x);
}
END_TEST

/* Codes that a file brings are kept as they are, those that rounding never makes, too. */
START_TEST(codes_of_a_source_are_kept)
{
	struct rig r;
	struct subject s;
	float row[65];
	subject_init(&s, 130, 65, formats[_i]);
	for (int64_t i = 0; i < s.n * s.k; i++)
		s.codes[i] = (uint8_t)((uint64_t)i * 167 >> 3) &
		             (s.f.code == NX_WEIGHT_CODE_INT4 ? 15 : 0x7e);
	for (int64_t i = 0; i < s.n * s.groups; i++) {
		s.params[i].scale = (i & 1 ? -1.0f : 1.0f) / (float)(1 << i % 7);
		s.params[i].zero = s.f.zero ? (float)(i % 9) / 8 - 0.5f : 0;
	}
	if (s.f.code != NX_WEIGHT_CODE_INT4)
		s.codes[0] = s.codes[131] = s.f.code == NX_WEIGHT_CODE_E4M3 ? 0x80 : 255;
	for (int64_t i = 0; i < s.n * s.k; i++)
		s.decoded[i] = nx_weight_value(&s.f, param_of(&s, i / s.k, i % s.k), s.codes[i]);
	s.desc.rows = NULL;
	s.desc.codes = code_rows;
	for (int isa = 0; isa < N_ISAS; isa++) {
		if (!rig_open(&r, isa, 2, false))
			continue;
		subject_make(&s, &r);
		for (int32_t n = 0; n < s.n; n++) {
			lookup(&r, &s, n, row);
			for (int64_t k = 0; k < s.k; k++)
				ck_assert_float_eq(row[k], s.decoded[n * s.k + k]);
		}
		for (int64_t i = 0; i < s.n * s.groups; i++) /* for the tolerance */
			s.params[i].scale = fabsf(s.params[i].scale);
		check_product(&r, &s, isa, 5, NX_EPI_STORE);
		for (int64_t i = 0; i < s.n * s.groups; i++)
			s.params[i].scale *= i & 1 ? -1.0f : 1.0f;
		subject_drop(&s, &r);
		rig_close(&r);
	}
	subject_release(&s);
}
END_TEST

START_TEST(bytes_are_those_of_the_format)
{
	struct rig r;
	ck_assert(rig_open(&r, 0, 1, false));
	for (int i = 0; i < N_OF(formats); i++) {
		static const int64_t size[][2] = {{64, 1536}, {130, 65}};
		for (int j = 0; j < 2; j++) {
			struct subject s;
			struct nx_counted c;
			uint64_t bytes, used = 0, want;
			subject_init(&s, size[j][0], size[j][1], formats[i]);
			subject_make(&s, &r);
			want = nx_weight_quant_bytes(&s.f, s.n, s.k);
			bytes = r.ops->weight_bytes(s.w);
			/* Panels of 16 rows; inputs and scales of a panel are rounded up to 64 bytes. */
			uint64_t panels = (uint64_t)(s.n + 15) / 16,
				 whole = nx_weight_quant_bytes(&s.f, (int64_t)panels * 16,
			                                       (s.k + 7) / 8 * 8);
			ck_assert_uint_ge(bytes, want);
			ck_assert_uint_le(bytes, whole + panels * 64);
			if (j == 0)
				ck_assert_double_le((double)bytes, 1.01 * (double)want);
			ck_assert_uint_eq(r.ops->weight_forecast(r.dev, &s.desc, 512), bytes);
			rig_ok(&r, r.ops->weight_prepare(r.dev, s.w, 512, &used, &r.err));
			ck_assert_uint_eq(used, bytes);
			/* What a product reads is counted in codes. */
			float *x = noise_array(s.k, 1), *y = noise_array(s.n, 1);
			struct nx_linear a = {.w = s.w, .m = 1, .x = x, .y = y};
			r.ops->counted_reset(r.dev);
			rig_ok(&r, r.ops->linear(r.dev, NULL, &a, &r.err));
			r.ops->counted(r.dev, &c);
			ck_assert_uint_eq(c.weight_bytes, want);
			free(x);
			free(y);
			subject_drop(&s, &r);
			subject_release(&s);
		}
	}
	rig_close(&r);
}
END_TEST

START_TEST(a_nan_in_x_or_w_is_a_nan_in_y)
{
	for (int isa = 0; isa < N_ISAS; isa++) {
		struct rig r;
		struct subject s;
		if (!rig_open(&r, isa, 1, false))
			continue;
		subject_init(&s, 48, 64, formats[_i]);
		s.values[3 * 64 + 5] = NAN;
		subject_make(&s, &r);
		float *x = noise_array(2 * 64, 1), y[2 * 48];
		x[64 + 33] = NAN;
		struct nx_linear a = {.w = s.w, .m = 2, .x = x, .y = y};
		rig_ok(&r, r.ops->linear(r.dev, NULL, &a, &r.err));
		for (int i = 0; i < 48; i++) {
			ck_assert_msg(!isnan(y[i]) == (i != 3), "%s feature %d is %g",
			              isa_name(isa), i, (double)y[i]);
			ck_assert(isnan(y[48 + i]));
		}
		subject_drop(&s, &r);
		subject_release(&s);
		free(x);
		rig_close(&r);
	}
}
END_TEST

START_TEST(formats_that_do_not_exist_are_refused)
{
	static const struct {
		struct nx_weight_quant f;
		const char *part;
	} bad[] = {
		{{(enum nx_weight_code)9, 0, false, false}, "legal codes are"},
		{{(enum nx_weight_code) - 1, 0, false, false}, "legal codes are"},
		{{NX_WEIGHT_CODE_INT8, 24, false, false}, "multiple of 16"},
		{{NX_WEIGHT_CODE_INT4, -16, false, false}, "multiple of 16"},
		{{NX_WEIGHT_CODE_E4M3, 0, true, false}, "have a zero"},
		{{NX_WEIGHT_CODE_E4M3, 0, false, true}, "integer codes"},
		{{NX_WEIGHT_CODE_INT8, 65552, false, true}, "at most 65536"},
	};
	struct rig r;
	struct nx_device_info info;
	ck_assert(rig_open(&r, 0, 1, false));
	for (int i = 0; i < N_OF(bad); i++) {
		struct subject s;
		subject_init(&s, 16, 64, formats[0]);
		s.desc.quant = bad[i].f;
		ck_assert_int_eq(r.ops->weight_create(r.dev, &s.desc, &s.w, &r.err), NX_ENOTSUP);
		ck_assert_msg(strstr(r.err.msg, bad[i].part) != NULL, "%s", r.err.msg);
		ck_assert_ptr_null(s.w);
		ck_assert_uint_eq(r.ops->weight_forecast(r.dev, &s.desc, 1), 0);
		subject_release(&s);
	}
	r.ops->info(r.dev, &info);
	ck_assert_uint_eq(info.weight_codes, 15);
	rig_close(&r);
}
END_TEST

int main(void)
{
	Suite *s = suite_create("cpu_weight_quant");
	TCase *tc = tcase_create("weight_quant");
	tcase_set_timeout(tc, 180);
	tcase_add_loop_test(tc, codes_are_half_a_step_from_what_they_stand_for, 0, N_OF(shapes));
	tcase_add_loop_test(tc, products_match_the_decoded_matrix, 0, N_OF(formats));
	tcase_add_loop_test(tc, rows_have_the_same_bits_for_every_m, 0, N_OF(formats));
	tcase_add_loop_test(tc, codes_of_a_source_are_kept, 0, N_OF(formats));
	tcase_add_loop_test(tc, a_nan_in_x_or_w_is_a_nan_in_y, 0, N_OF(formats));
	tcase_add_test(tc, bytes_are_those_of_the_format);
	tcase_add_test(tc, formats_that_do_not_exist_are_refused);
	suite_add_tcase(s, tc);
	SRunner *sr = srunner_create(s);
	srunner_run_all(sr, CK_NORMAL);
	int failed = srunner_ntests_failed(sr);
	srunner_free(sr);
	return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}
