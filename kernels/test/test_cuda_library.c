/* SPDX-License-Identifier: Apache-2.0
 *
 * test_cuda_library.c: a product that the library makes has the same bits each time, however its algorithm was found:
 * timed at the first call, known at the next, inside a graph, after its plan has made room for others, and on a device
 * that was opened again.
 */
#include <check.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "cuda_test.h"

enum { M = 2048, N = 2048, K = 2560, OTHERS = 600 };

struct world {
	struct rig r;
	struct nx_weight *w, *small;
	uint16_t *x, *y, *start; /* on the device */
	float *x_host, *w_host;
	size_t y_bytes;
};

static uint16_t bits_of(float x)
{
	uint32_t u;
	x = to_bf16(x);
	memcpy(&u, &x, sizeof(u));
	return (uint16_t)(u >> 16);
}

static float value_of(const void *y, bool f32, int64_t i)
{
	uint32_t u = f32 ? ((const uint32_t *)y)[i] : (uint32_t)((const uint16_t *)y)[i] << 16;
	float x;
	memcpy(&x, &u, sizeof(x));
	return x;
}

static uint16_t *up(struct world *o, const float *x, int64_t n)
{
	uint16_t *host = malloc((size_t)n * 2), *dev = o->r.ops->alloc(o->r.dev, (size_t)n * 2);
	ck_assert(host && dev);
	for (int64_t i = 0; i < n; i++)
		host[i] = bits_of(x[i]);
	rig_ok(&o->r, o->r.ops->copy(o->r.dev, NULL, dev, host, (size_t)n * 2, NX_H2D, &o->r.err));
	rig_ok(&o->r, o->r.ops->stream_sync(o->r.dev, NULL, &o->r.err));
	free(host);
	return dev;
}

/* A device as a run has it: memory of its own. */
static void open_world(struct world *o, const struct nx_device_ops *ops)
{
	struct nx_device_config cfg = {.dtype = NX_BF16};
	memset(o, 0, sizeof(*o));
	o->r.ops = ops;
	unsetenv("NEXUS_CUDA_HOST_MEMORY");
	rig_ok(&o->r, ops->open(&o->r.dev, &cfg, &o->r.err));
	setenv("NEXUS_CUDA_HOST_MEMORY", "1", 1);
	o->w = rig_weight(&o->r, N, K, NX_BF16, 5, &o->w_host);
	o->small = rig_weight(&o->r, 64, 64, NX_BF16, 6, NULL);
	o->x_host = noise_array((int64_t)M * K, 7);
	o->x = up(o, o->x_host, (int64_t)M * K);
	o->y_bytes = (size_t)M * N * 4;
	o->y = ops->alloc(o->r.dev, o->y_bytes);
	float *start = noise_array((int64_t)M * N, 8);
	o->start = up(o, start, (int64_t)M * N);
	free(start);
}

static void close_world(struct world *o)
{
	const struct nx_device_ops *ops = o->r.ops;
	ops->weight_destroy(o->r.dev, o->w);
	ops->weight_destroy(o->r.dev, o->small);
	ops->free(o->r.dev, o->x, (size_t)M * K * 2);
	ops->free(o->r.dev, o->start, (size_t)M * N * 2);
	ops->free(o->r.dev, o->y, o->y_bytes);
	free(o->x_host);
	free(o->w_host);
	rig_close(&o->r);
}

static const struct kind {
	enum nx_epilogue epilogue;
	bool f32;
} kinds[] = {
	{NX_EPI_STORE, false}, {NX_EPI_ADD, false}, {NX_EPI_SWIGLU, false}, {NX_EPI_STORE, true}};
enum { KINDS = sizeof(kinds) / sizeof(kinds[0]) };

/* y of a kind, and the same from what `want` holds already, if anything. */
static void product(struct world *o, const struct kind *k, int32_t m, bool graph, void **want)
{
	struct rig *r = &o->r;
	struct nx_linear a = {.w = o->w, .m = m, .x = o->x, .y = o->y};
	size_t bytes = (size_t)m * N * 4;
	struct nx_graph *g = NULL;
	void *got = calloc(1, bytes);
	a.epilogue = k->epilogue;
	a.y_f32 = k->f32;
	rig_ok(r, r->ops->fill(r->dev, NULL, o->y, 0, bytes, &r->err));
	if (k->epilogue == NX_EPI_ADD)
		rig_ok(r, r->ops->copy(r->dev, NULL, o->y, o->start, (size_t)m * N * 2, NX_D2D,
		                       &r->err));
	rig_ok(r, r->ops->stream_sync(r->dev, NULL, &r->err));
	if (graph)
		rig_ok(r, r->ops->graph_begin(r->dev, NULL, &r->err));
	rig_ok(r, r->ops->linear(r->dev, NULL, &a, &r->err));
	if (graph) {
		rig_ok(r, r->ops->graph_end(r->dev, NULL, &g, &r->err));
		rig_ok(r, r->ops->graph_launch(r->dev, NULL, g, &r->err));
	}
	rig_ok(r, r->ops->copy(r->dev, NULL, got, o->y, bytes, NX_D2H, &r->err));
	rig_ok(r, r->ops->stream_sync(r->dev, NULL, &r->err));
	if (g)
		r->ops->graph_destroy(r->dev, g);
	if (*want) {
		ck_assert_msg(!memcmp(*want, got, bytes), "epilogue %d, %d rows: other bits",
		              (int)k->epilogue, m);
		free(got);
	} else {
		*want = got;
	}
}

static double sum_of(const struct world *o, int64_t row, int64_t col)
{
	double sum = 0;
	for (int64_t i = 0; i < K; i++)
		sum += (double)to_bf16(o->x_host[row * K + i]) * (double)o->w_host[col * K + i];
	return sum;
}

static void check_some(const struct world *o, const struct kind *k, const void *y)
{
	int64_t cols = k->epilogue == NX_EPI_SWIGLU ? N / 2 : N;
	for (int64_t i = 0; i < 200; i++) {
		int64_t row = i * 7919 % M, col = i * 104729 % cols;
		double want = 0;
		if (k->epilogue == NX_EPI_SWIGLU) {
			double gate = sum_of(o, row, 2 * col);
			want = gate / (1 + exp(-gate)) * sum_of(o, row, 2 * col + 1);
		} else {
			want = sum_of(o, row, col);
		}
		if (k->epilogue == NX_EPI_ADD)
			want += to_bf16(noise(8, (uint64_t)(row * N + col)));
		double got = value_of(y, k->f32, row * cols + col);
		ck_assert_msg(fabs(got - want) <= 0.02 * fabs(want) + 0.3,
		              "epilogue %d, row %lld, column %lld: %g, want %g", (int)k->epilogue,
		              (long long)row, (long long)col, got, want);
	}
}

START_TEST(large_products_have_the_same_bits_each_time)
{
	struct both b;
	struct world o;
	void *first[KINDS] = {0}, *other[KINDS] = {0};
	both_open(&b, NX_F32, false);
	for (int opened = 0; opened < 2; opened++) {
		open_world(&o, b.gpu.ops);
		for (int k = 0; k < KINDS; k++) {
			/* Fewer rows, of the same choice, before and after. */
			product(&o, &kinds[k], M - 1, opened, &other[k]);
			product(&o, &kinds[k], M, opened, &first[k]);
			if (!opened)
				check_some(&o, &kinds[k], first[k]);
			product(&o, &kinds[k], M, false, &first[k]);
			product(&o, &kinds[k], M, true, &first[k]);
			product(&o, &kinds[k], M - 1, false, &other[k]);
		}
		for (int i = 0; i < OTHERS; i++) {
			struct nx_linear a = {.w = o.small, .m = 40 + i, .x = o.x, .y = o.y};
			rig_ok(&o.r, o.r.ops->linear(o.r.dev, NULL, &a, &o.r.err));
		}
		for (int k = 0; k < KINDS; k++)
			product(&o, &kinds[k], M, opened, &first[k]);
		close_world(&o);
	}
	for (int k = 0; k < KINDS; k++) {
		free(first[k]);
		free(other[k]);
	}
	both_close(&b);
}
END_TEST

int main(void)
{
	both_need_gpu();
	Suite *s = suite_create("cuda library");
	TCase *tc = tcase_create("library");
	tcase_set_timeout(tc, 120);
	tcase_add_test(tc, large_products_have_the_same_bits_each_time);
	suite_add_tcase(s, tc);
	return both_run(s);
}
