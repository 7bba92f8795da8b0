/* SPDX-License-Identifier: Apache-2.0
 *
 * test_cuda_backend.c: life cycle of the CUDA backend, its memory, streams, graphs and peaks.
 */
#include <check.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "cuda_test.h"

START_TEST(a_device_that_is_not_there_is_refused_with_a_sentence)
{
	struct both b;
	struct nx_err err = {0};
	struct nx_device_config cfg = {.index = 99};
	void *dev = NULL;
	both_open(&b, NX_F32, false);
	ck_assert_int_eq(b.gpu.ops->open(&dev, &cfg, &err), NX_EINVAL);
	ck_assert_ptr_nonnull(strstr(err.msg, "cuda:99"));
	ck_assert_ptr_null(dev);
	both_close(&b);
}
END_TEST

/* A device as a run has it: memory of its own, work that is not waited for. */
static void plain_open(struct rig *r, struct both *b, enum nx_dtype dtype)
{
	struct nx_device_config cfg = {.dtype = dtype};
	memset(r, 0, sizeof(*r));
	r->ops = b->gpu.ops;
	unsetenv("NEXUS_CUDA_HOST_MEMORY");
	rig_ok(r, r->ops->open(&r->dev, &cfg, &r->err));
	setenv("NEXUS_CUDA_HOST_MEMORY", "1", 1);
}

START_TEST(memory_comes_poisoned_and_running_out_is_no_end)
{
	enum { BYTES = 100000 };
	struct both b;
	struct rig r;
	struct nx_device_info info;
	both_open(&b, NX_F32, false);
	plain_open(&r, &b, NX_BF16);
	r.ops->info(r.dev, &info);
	ck_assert_int_eq(info.act_dtype, NX_BF16);
	ck_assert(!(info.caps & NX_DEV_HOST_MEMORY) && info.caps & NX_DEV_GRAPHS);
	ck_assert(info.free_bytes > 0 && info.free_bytes <= info.mem_bytes && info.n_units > 0);
	uint8_t *host = r.ops->host_alloc(r.dev, BYTES), *dev = r.ops->alloc(r.dev, BYTES),
		*other = r.ops->alloc(r.dev, BYTES), *pageable = malloc(BYTES);
	ck_assert(host && dev && other && (uintptr_t)dev % 64 == 0);
	for (int i = 0; i < BYTES; i++) {
		ck_assert_uint_eq(host[i], 0xff);
		host[i] = (uint8_t)(i * 7 + i / 256);
	}
	memset(pageable, 0, BYTES);
	rig_ok(&r, r.ops->copy(r.dev, NULL, pageable, dev, BYTES, NX_D2H, &r.err));
	rig_ok(&r, r.ops->stream_sync(r.dev, NULL, &r.err));
	for (int i = 0; i < BYTES; i++)
		ck_assert_uint_eq(pageable[i], 0xff);
	rig_ok(&r, r.ops->copy(r.dev, NULL, dev, host, BYTES, NX_H2D, &r.err));
	rig_ok(&r, r.ops->copy(r.dev, NULL, other, dev, BYTES, NX_D2D, &r.err));
	rig_ok(&r, r.ops->fill(r.dev, NULL, other + 10, 0x5a, 20, &r.err));
	rig_ok(&r, r.ops->copy(r.dev, NULL, pageable, other, BYTES, NX_D2H, &r.err));
	rig_ok(&r, r.ops->stream_sync(r.dev, NULL, &r.err));
	memset(host + 10, 0x5a, 20);
	ck_assert(!memcmp(pageable, host, BYTES));
	/* More than there is: no memory, and all goes on. */
	ck_assert_ptr_null(r.ops->alloc(r.dev, (size_t)1 << 50));
	rig_ok(&r, r.ops->fill(r.dev, NULL, dev, 0, BYTES, &r.err));
	rig_ok(&r, r.ops->stream_sync(r.dev, NULL, &r.err));
	void *empty = r.ops->alloc(r.dev, 0);
	r.ops->free(r.dev, empty, 0);
	r.ops->free(r.dev, NULL, 0);
	r.ops->free(r.dev, dev, BYTES);
	r.ops->free(r.dev, other, BYTES);
	r.ops->host_free(r.dev, host, BYTES);
	free(pageable);
	rig_close(&r);
	both_close(&b);
}
END_TEST

/* Ten norms in a row: at once, and as a graph that is replayed. */
START_TEST(a_graph_does_what_its_calls_do)
{
	enum { ROWS = 5, COLS = 512, N = ROWS * COLS };
	struct both b;
	struct rig r;
	struct nx_stream *s = NULL;
	struct nx_event *done = NULL;
	struct nx_graph *g = NULL;
	struct nx_counted n[2];
	size_t bytes = N * sizeof(float);
	both_open(&b, NX_F32, false);
	plain_open(&r, &b, NX_F32);
	float *x = r.ops->alloc(r.dev, bytes), *w = r.ops->alloc(r.dev, bytes),
	      *in = noise_array(N, 3), *out[2];
	rig_ok(&r, r.ops->stream_create(r.dev, &s, &r.err));
	rig_ok(&r, r.ops->event_create(r.dev, &done, &r.err));
	rig_ok(&r, r.ops->copy(r.dev, s, w, in + N - COLS, COLS * sizeof(float), NX_H2D, &r.err));
	for (int graph = 0; graph < 2; graph++) {
		if (graph)
			rig_ok(&r, r.ops->graph_begin(r.dev, s, &r.err));
		else
			rig_ok(&r, r.ops->copy(r.dev, s, x, in, bytes, NX_H2D, &r.err));
		for (int i = 0; i < 10; i++)
			rig_ok(&r, r.ops->rmsnorm(r.dev, s, x, x, w, ROWS, COLS, 1e-5f, &r.err));
		if (graph) {
			rig_ok(&r, r.ops->graph_end(r.dev, s, &g, &r.err));
			rig_ok(&r, r.ops->copy(r.dev, s, x, in, bytes, NX_H2D, &r.err));
			r.ops->counted_reset(r.dev);
			rig_ok(&r, r.ops->graph_launch(r.dev, s, g, &r.err));
		}
		r.ops->counted(r.dev, &n[graph]);
		out[graph] = r.ops->host_alloc(r.dev, bytes);
		rig_ok(&r, r.ops->copy(r.dev, s, out[graph], x, bytes, NX_D2H, &r.err));
		rig_ok(&r, r.ops->event_record(r.dev, s, done, &r.err));
		rig_ok(&r, r.ops->event_wait(r.dev, done, &r.err));
	}
	ck_assert(isfinite(out[0][N - 1]) && memcmp(out[0], in, bytes));
	ck_assert(!memcmp(out[0], out[1], bytes));
	ck_assert(n[0].act_bytes && !memcmp(&n[0], &n[1], sizeof(n[0])));
	for (int i = 0; i < 2; i++)
		r.ops->host_free(r.dev, out[i], bytes);
	r.ops->graph_destroy(r.dev, g);
	r.ops->event_destroy(r.dev, done);
	r.ops->stream_destroy(r.dev, s);
	r.ops->free(r.dev, x, bytes);
	r.ops->free(r.dev, w, bytes);
	free(in);
	rig_close(&r);
	both_close(&b);
}
END_TEST

/* The call returns before its kernel has looked; whoever waits is told, once. */
START_TEST(what_a_kernel_finds_is_said_when_it_is_waited_for)
{
	struct both b;
	struct rig r;
	struct nx_commit c = {.seq = 7, .src_seq = 0, .n_rows = 1};
	int32_t len[2] = {3, 4};
	both_open(&b, NX_F32, false);
	plain_open(&r, &b, NX_F32);
	void *dev_c = r.ops->alloc(r.dev, sizeof(c));
	int32_t *dev_len = r.ops->alloc(r.dev, sizeof(len));
	struct nx_seq_state state = {2, dev_len, dev_len};
	rig_ok(&r, r.ops->copy(r.dev, NULL, dev_c, &c, sizeof(c), NX_H2D, &r.err));
	rig_ok(&r, r.ops->copy(r.dev, NULL, dev_len, len, sizeof(len), NX_H2D, &r.err));
	rig_ok(&r, r.ops->commit(r.dev, NULL, dev_c, 1, NULL, &state, &r.err));
	ck_assert_int_eq(r.ops->stream_sync(r.dev, NULL, &r.err), NX_EBUG);
	ck_assert_ptr_nonnull(strstr(r.err.msg, "sequence 7"));
	rig_ok(&r, r.ops->stream_sync(r.dev, NULL, &r.err));
	r.ops->free(r.dev, dev_c, sizeof(c));
	r.ops->free(r.dev, dev_len, sizeof(len));
	rig_close(&r);
	both_close(&b);
}
END_TEST

static void add_one(void *args)
{
	int *n;
	memcpy(&n, args, sizeof(n));
	*n += (uintptr_t)args % 16 == 0 && args != (void *)n;
}

START_TEST(enqueued_work_gets_its_own_arguments)
{
	struct both b;
	int ran = 0, *n = &ran;
	both_open(&b, NX_F32, false);
	rig_ok(&b.gpu, b.gpu.ops->enqueue(b.gpu.dev, NULL, add_one, &n, sizeof(n), &b.gpu.err));
	ck_assert_int_eq(ran, 1);
	ck_assert_int_eq(
		b.gpu.ops->enqueue(b.gpu.dev, NULL, add_one, &n, NX_ENQUEUE_MAX + 1, &b.gpu.err),
		NX_EINVAL);
	ck_assert_int_eq(ran, 1);
	both_close(&b);
}
END_TEST

START_TEST(peaks_are_measured_and_work_is_not_counted)
{
	struct both b;
	struct rig r;
	struct nx_calibration c;
	struct nx_device_info info;
	struct nx_counted n;
	both_open(&b, NX_F32, false);
	plain_open(&r, &b, NX_BF16);
	rig_ok(&r, r.ops->calibrate(r.dev, 0.2, &c, &r.err));
	ck_assert(c.read_bytes_per_s > 1e12 && c.read_bytes_per_s < 1e13);
	ck_assert(c.copy_bytes_per_s > 1e12 && c.copy_bytes_per_s < 1e13);
	ck_assert(c.cache_read_bytes_per_s > c.read_bytes_per_s);
	ck_assert(c.mem_set_bytes > 8 * c.cache_set_bytes && c.cache_set_bytes > 1 << 20);
	r.ops->info(r.dev, &info);
	if (info.blas[0])
		ck_assert(c.blas_flops_per_s > 1e14 && c.blas_flops_per_s < 2e15);
	r.ops->counted(r.dev, &n);
	ck_assert_uint_eq(n.act_bytes + n.weight_bytes + n.kv_bytes + n.flops, 0);
	rig_close(&r);
	both_close(&b);
}
END_TEST

int main(void)
{
	both_need_gpu();
	Suite *s = suite_create("cuda backend");
	TCase *tc = tcase_create("life");
	tcase_set_timeout(tc, 120);
	tcase_add_test(tc, a_device_that_is_not_there_is_refused_with_a_sentence);
	tcase_add_test(tc, memory_comes_poisoned_and_running_out_is_no_end);
	tcase_add_test(tc, a_graph_does_what_its_calls_do);
	tcase_add_test(tc, what_a_kernel_finds_is_said_when_it_is_waited_for);
	tcase_add_test(tc, enqueued_work_gets_its_own_arguments);
	tcase_add_test(tc, peaks_are_measured_and_work_is_not_counted);
	suite_add_tcase(s, tc);
	return both_run(s);
}
