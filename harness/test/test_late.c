/* SPDX-License-Identifier: Apache-2.0
 *
 * test/test_late.c: the late device catches what it is there to catch. The engine runs on it in
 * test_late_engine.c.
 */
#include <check.h>
#include <math.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>

#include "engine/engine.h"

#define COUNT(a) ((int)(sizeof(a) / sizeof((a)[0])))

/* ---- the device itself */

static struct nx_device dev;
static const struct nx_device_ops *ops;
static struct nx_stream *stream;
static struct nx_err err;

static void open_late(void)
{
	char dir[512];
	const char *build = getenv("NEXUS_BUILD");
	struct nx_device_config cfg = {.n_threads = 1, .dtype = NX_F32, .isa = "ref"};
	snprintf(dir, sizeof(dir), "%s/test-backends", build ? build : "build");
	setenv("NEXUS_BACKEND_PATH", dir, 1);
	unsetenv("NEXUS_LATE_POISON");
	ck_assert_msg(nx_device_open(&dev, "late", &cfg, NULL, &err) == 0, "%s", err.msg);
	ops = dev.ops;
	ck_assert_int_eq(ops->stream_create(dev.dev, &stream, &err), 0);
}

static void close_late(void)
{
	ops->stream_destroy(dev.dev, stream);
	nx_device_close(&dev);
}

/* A case that has to die by the signal itself, not by a sanitizer's report of it. */
static void plain_signals(void)
{
	signal(SIGSEGV, SIG_DFL);
	signal(SIGABRT, SIG_DFL);
}

static void *device(size_t bytes)
{
	void *p = ops->alloc(dev.dev, bytes);
	ck_assert_ptr_nonnull(p);
	return p;
}

static void *host(size_t bytes)
{
	void *p = ops->host_alloc(dev.dev, bytes);
	ck_assert_ptr_nonnull(p);
	return p;
}

static void copy(struct nx_stream *s, void *dst, const void *src, size_t bytes,
                 enum nx_copy_dir dir)
{
	ck_assert_msg(ops->copy(dev.dev, s, dst, src, bytes, dir, &err) == 0, "%s", err.msg);
}

static void sync(struct nx_stream *s)
{
	ck_assert_msg(ops->stream_sync(dev.dev, s, &err) == 0, "%s", err.msg);
}

START_TEST(it_says_what_it_is)
{
	struct nx_device_info info;
	ops->info(dev.dev, &info);
	ck_assert_str_eq(ops->name, "late");
	ck_assert_uint_eq(info.caps, NX_DEV_ASYNC | NX_DEV_GRAPHS);
}
END_TEST

static volatile uint8_t seen;

START_TEST(a_host_that_reads_device_memory_faults)
{
	volatile uint8_t *p = device(100);
	plain_signals();
	seen = p[0];
}
END_TEST

START_TEST(a_host_that_writes_device_memory_faults_after_a_wait_too)
{
	volatile uint8_t *p = device(100);
	ck_assert_int_eq(ops->fill(dev.dev, stream, (void *)(uintptr_t)p, 0, 100, &err), 0);
	sync(stream);
	plain_signals();
	p[99] = 1;
}
END_TEST

START_TEST(work_past_the_end_of_an_allocation_faults)
{
	uint8_t *p = device(128);
	ck_assert_int_eq(ops->fill(dev.dev, stream, p, 0, 129, &err), 0);
	plain_signals();
	ops->stream_sync(dev.dev, stream, &err);
}
END_TEST

START_TEST(a_write_into_the_rest_of_the_last_line_is_found)
{
	uint8_t *p = device(100);
	ck_assert_int_eq(ops->fill(dev.dev, stream, p, 0, 101, &err), 0);
	sync(stream);
	plain_signals();
	ops->free(dev.dev, p, 100);
}
END_TEST

START_TEST(memory_is_aligned_and_begins_as_nan)
{
	static const size_t sizes[] = {4, 64, 100, 4096, 4100, 100000};
	float *h = host(4);
	for (int i = 0; i < COUNT(sizes); i++) {
		float *p = device(sizes[i]);
		ck_assert_uint_eq((uintptr_t)p % 64, 0);
		copy(stream, h, p, 4, NX_D2H);
		sync(stream);
		ck_assert(isnan(*h));
		ops->free(dev.dev, p, sizes[i]);
	}
	ops->host_free(dev.dev, h, 4);
}
END_TEST

static void count_up(void *args)
{
	++**(int **)args;
}

static int enqueue_count(int *n)
{
	return ops->enqueue(dev.dev, stream, count_up, &n, sizeof(n), &err);
}

START_TEST(work_runs_in_waits_alone)
{
	struct nx_event *first, *second, *never;
	int n[3] = {0};
	ck_assert_int_eq(ops->event_create(dev.dev, &first, &err), 0);
	ck_assert_int_eq(ops->event_create(dev.dev, &second, &err), 0);
	ck_assert_int_eq(ops->event_create(dev.dev, &never, &err), 0);
	ck_assert_int_eq(enqueue_count(&n[0]), 0);
	ck_assert_int_eq(ops->event_record(dev.dev, stream, first, &err), 0);
	ck_assert_int_eq(enqueue_count(&n[1]), 0);
	ck_assert_int_eq(ops->event_record(dev.dev, stream, second, &err), 0);
	ck_assert_int_eq(enqueue_count(&n[2]), 0);
	ck_assert(n[0] == 0 && n[1] == 0 && n[2] == 0);
	ck_assert_int_eq(ops->event_wait(dev.dev, never, &err), 0);
	ck_assert(n[0] == 0 && n[1] == 0 && n[2] == 0);
	ck_assert_int_eq(ops->event_wait(dev.dev, first, &err), 0);
	ck_assert(n[0] == 1 && n[1] == 0 && n[2] == 0);
	ck_assert_int_eq(ops->event_wait(dev.dev, second, &err), 0);
	ck_assert(n[0] == 1 && n[1] == 1 && n[2] == 0);
	ops->event_destroy(dev.dev, first);
	sync(stream);
	ck_assert(n[0] == 1 && n[1] == 1 && n[2] == 1);
	ops->event_destroy(dev.dev, second);
	ops->event_destroy(dev.dev, never);
}
END_TEST

struct patch {
	uint8_t *to; /* device */
	uint8_t bytes[NX_ENQUEUE_MAX - 8];
};

static void put_patch(void *args)
{
	const struct patch *p = args;
	if ((uintptr_t)args % 16 == 0)
		memcpy(p->to, p->bytes, sizeof(p->bytes));
}

START_TEST(arguments_are_copied_as_many_as_may_be)
{
	struct patch p = {.to = device(3 * sizeof(p.bytes))};
	uint8_t *d = p.to, *h = host(3 * sizeof(p.bytes));
	int never = 0, *n = &never;
	ck_assert_uint_eq(sizeof(p), NX_ENQUEUE_MAX);
	for (int i = 0; i < 3; i++, p.to += sizeof(p.bytes)) {
		memset(p.bytes, i + 1, sizeof(p.bytes));
		ck_assert_int_eq(ops->enqueue(dev.dev, stream, put_patch, &p, sizeof(p), &err), 0);
	}
	memset(&p, 0xff, sizeof(p));
	ck_assert_int_eq(ops->enqueue(dev.dev, stream, count_up, &n, NX_ENQUEUE_MAX + 1, &err),
	                 NX_EINVAL);
	ck_assert_str_eq(err.msg, "enqueue() copies at most 4096 bytes of arguments, not 4097");
	copy(stream, h, d, 3 * sizeof(p.bytes), NX_D2H);
	sync(stream);
	ck_assert_int_eq(never, 0);
	for (size_t i = 0; i < 3 * sizeof(p.bytes); i++)
		ck_assert_uint_eq(h[i], 1 + i / sizeof(p.bytes));
	ops->free(dev.dev, d, 3 * sizeof(p.bytes));
	ops->host_free(dev.dev, h, 3 * sizeof(p.bytes));
}
END_TEST

START_TEST(a_host_buffer_used_again_too_early_gives_its_later_content)
{
	int32_t *d = device(8), *h = host(8), *back = host(8);
	h[0] = 1;
	copy(stream, d, h, 4, NX_H2D);
	h[0] = 2; /* too early */
	copy(stream, back, d, 4, NX_D2H);
	sync(stream);
	ck_assert_int_eq(back[0], 2);
	ops->free(dev.dev, d, 8);
	ops->host_free(dev.dev, h, 8);
	ops->host_free(dev.dev, back, 8);
}
END_TEST

START_TEST(what_is_copied_to_the_host_is_poison_until_a_wait)
{
	int32_t *d = device(4), *h = host(4);
	ck_assert_int_eq(ops->fill(dev.dev, stream, d, 7, 4, &err), 0);
	*h = 1;
	copy(stream, h, d, 4, NX_D2H);
	ck_assert_int_eq(*h, (int32_t)0xa5a5a5a5);
	sync(stream);
	ck_assert_int_eq(*h, 0x07070707);
	/* What queued work has still to read stays: the copy back comes after it in the stream. */
	*h = 1;
	copy(stream, d, h, 4, NX_H2D);
	copy(stream, h, d, 4, NX_D2H);
	sync(stream);
	ck_assert_int_eq(*h, 1);
	ops->free(dev.dev, d, 4);
	ops->host_free(dev.dev, h, 4);
}
END_TEST

/* W [n, k] of ones. */
static int ones(void *ctx, int64_t row0, int64_t n, float *dst, struct nx_err *e)
{
	(void)row0;
	(void)e;
	for (int64_t i = 0; i < n * *(int64_t *)ctx; i++)
		dst[i] = 1;
	return 0;
}

START_TEST(structs_on_the_stack_may_change_after_the_call)
{
	int64_t k = 16;
	struct nx_weight_desc desc = {.n = 16, .k = k, .dtype = NX_F32, .rows = ones, .ctx = &k};
	struct nx_weight *w;
	float *x = device(64), *y = device(64), *h = host(64);
	ck_assert_msg(ops->weight_create(dev.dev, &desc, &w, &err) == 0, "%s", err.msg);
	for (int i = 0; i < 16; i++)
		h[i] = 0.5f;
	copy(stream, x, h, 64, NX_H2D);
	struct nx_linear a = {.w = w, .m = 1, .x = x, .y = y, .epilogue = NX_EPI_STORE};
	ck_assert_msg(ops->linear(dev.dev, stream, &a, &err) == 0, "%s", err.msg);
	memset(&a, 0xff, sizeof(a));

	/* A store of two rows of one layer; the list of copies is the host's. */
	float *pool = device(64);
	struct nx_kv kv = {.codec = NX_KV_F32,
	                   .n_layers = 1,
	                   .n_kv_heads = 1,
	                   .head_dim = 4,
	                   .block_size = 1,
	                   .table_stride = 1,
	                   .base = (uint8_t *)(void *)pool,
	                   .row_bytes = 16,
	                   .v_offset = 32,
	                   .layer_bytes = 64};
	struct nx_kv_copy c = {.dst = 1, .src = 0, .n_rows = 1};
	ck_assert_int_eq(ops->fill(dev.dev, stream, pool, 0, 64, &err), 0);
	copy(stream, pool, y, 16, NX_D2D);
	ck_assert_msg(ops->kv_copy(dev.dev, stream, &kv, &c, 1, &err) == 0, "%s", err.msg);
	memset(&kv, 0xff, sizeof(kv));
	memset(&c, 0xff, sizeof(c));
	sync(stream);
	copy(stream, h, pool, 64, NX_D2H);
	sync(stream);
	for (int i = 0; i < 16; i++)
		ck_assert_float_eq(h[i], i < 8 ? 8.0f : 0.0f);
	ops->weight_destroy(dev.dev, w);
	ops->free(dev.dev, x, 64);
	ops->free(dev.dev, y, 64);
	ops->free(dev.dev, pool, 64);
	ops->host_free(dev.dev, h, 64);
}
END_TEST

/* What structs point to is copied as well. */
START_TEST(nested_structs_may_change_after_the_call)
{
	int64_t k = 16;
	struct nx_weight_desc desc = {
		.n = 4, .k = k, .dtype = NX_F32, .rows = ones, .ctx = &k, .lookup = true};
	struct nx_weight *w;
	int32_t *ints = device(256), *hi = host(256);
	float *x = device(64), *h = host(64), *inv = device(64);
	uint8_t *pool = device(256);
	ck_assert_msg(ops->weight_create(dev.dev, &desc, &w, &err) == 0, "%s", err.msg);
	memset(hi, 0, 256);
	copy(stream, ints, hi, 256, NX_H2D);
	ck_assert_int_eq(ops->fill(dev.dev, stream, inv, 0, 64, &err), 0);
	struct nx_rows rows = {.n_rows = 1,
	                       .n_segments = 1,
	                       .max_keys = 1,
	                       .seq = ints,
	                       .token = ints,
	                       .slot_off = ints,
	                       .pos_off = ints,
	                       .kind = ints,
	                       .scratch = ints,
	                       .n_anc = ints,
	                       .segments = (const struct nx_segment *)(const void *)ints};
	struct nx_seq_state state = {.max_seqs = 1, .len = ints + 8, .last_token = ints + 9};
	struct nx_kv kv = {.codec = NX_KV_F32,
	                   .n_layers = 1,
	                   .n_kv_heads = 1,
	                   .head_dim = 4,
	                   .block_size = 1,
	                   .table_stride = 1,
	                   .table = ints,
	                   .base = pool,
	                   .row_bytes = 16,
	                   .v_offset = 16,
	                   .layer_bytes = 32};
	struct nx_rope_store rope = {.rows = &rows,
	                             .state = &state,
	                             .kv = &kv,
	                             .n_heads = 1,
	                             .rope_dim = 4,
	                             .inv_freq = inv,
	                             .qkv = x};
	ck_assert_msg(ops->embed(dev.dev, stream, &rows, &state, w, x, &err) == 0, "%s", err.msg);
	ck_assert_msg(ops->rope_store(dev.dev, stream, &rope, &err) == 0, "%s", err.msg);
	memset(&rows, 0xff, sizeof(rows));
	memset(&state, 0xff, sizeof(state));
	memset(&kv, 0xff, sizeof(kv));
	memset(&rope, 0xff, sizeof(rope));
	copy(stream, h, pool, 32, NX_D2H);
	sync(stream);
	for (int i = 0; i < 8; i++)
		ck_assert_float_eq(h[i], 1.0f);
	ops->weight_destroy(dev.dev, w);
	ops->free(dev.dev, ints, 256);
	ops->free(dev.dev, x, 64);
	ops->free(dev.dev, inv, 64);
	ops->free(dev.dev, pool, 256);
	ops->host_free(dev.dev, hi, 256);
	ops->host_free(dev.dev, h, 64);
}
END_TEST

START_TEST(an_error_of_queued_work_comes_with_the_wait_and_stays)
{
	int64_t k = 16;
	struct nx_weight_desc desc = {.n = 4, .k = k, .dtype = NX_F32, .rows = ones, .ctx = &k};
	struct nx_weight *w;
	struct nx_rows rows = {0};
	struct nx_seq_state state = {0};
	int later = 0;
	float *x = device(64);
	ck_assert_msg(ops->weight_create(dev.dev, &desc, &w, &err) == 0, "%s", err.msg);
	ck_assert_int_eq(ops->embed(dev.dev, stream, &rows, &state, w, x, &err), 0);
	ck_assert_int_eq(enqueue_count(&later), 0);
	for (int i = 0; i < 2; i++) {
		struct nx_err e = {0};
		ck_assert_int_eq(ops->stream_sync(dev.dev, stream, &e), NX_EINVAL);
		ck_assert_ptr_nonnull(strstr(e.msg, "lookup"));
	}
	ck_assert_int_eq(enqueue_count(&later), NX_EINVAL);
	ck_assert_int_eq(later, 0);
	ops->weight_destroy(dev.dev, w);
	ops->free(dev.dev, x, 64);
}
END_TEST

START_TEST(host_pointers_where_device_memory_belongs_are_refused)
{
	int32_t *d = device(64), here[16] = {0};
	ck_assert_int_eq(ops->gather(dev.dev, stream, d, d, here, 1, 1, &err), NX_EBUG);
	ck_assert_ptr_nonnull(strstr(err.msg, "index"));
	ck_assert_int_eq(ops->copy(dev.dev, stream, here, d, 4, NX_D2D, &err), NX_EBUG);
	ck_assert_int_eq(ops->fill(dev.dev, stream, here, 0, 4, &err), NX_EBUG);
	ops->free(dev.dev, d, 64);
}
END_TEST

START_TEST(freeing_what_queued_work_names_aborts)
{
	int32_t *d = device(64), *h = host(64);
	copy(stream, d, h, 4, NX_H2D);
	plain_signals();
	if (_i)
		ops->free(dev.dev, d, 64);
	else
		ops->host_free(dev.dev, h, 64);
}
END_TEST

START_TEST(freeing_what_queued_work_does_not_name_is_fine)
{
	int32_t *d = device(64), *other = device(64), n = 0;
	ck_assert_int_eq(ops->fill(dev.dev, stream, d, 0, 64, &err), 0);
	ck_assert_int_eq(enqueue_count(&n), 0);
	ops->free(dev.dev, other, 64);
	ops->stream_destroy(dev.dev, stream); /* its work is still done */
	ck_assert_int_eq(n, 1);
	ops->free(dev.dev, d, 64);
	ck_assert_int_eq(ops->stream_create(dev.dev, &stream, &err), 0);
}
END_TEST

#define STREAMS 3
#define EACH 20

struct entry {
	int *log, *n, value;
};

static void note(void *args)
{
	const struct entry *e = args;
	e->log[(*e->n)++] = e->value;
}

/* One log of what ran, from three streams; the first is waited for. Returns how much ran. */
static int interleave(int *log, const char *seed)
{
	struct nx_stream *s[STREAMS];
	int n = 0;
	setenv("NEXUS_LATE_SEED", seed, 1);
	open_late();
	for (int i = 0; i < STREAMS; i++) {
		ck_assert_int_eq(ops->stream_create(dev.dev, &s[i], &err), 0);
		for (int k = 0; k < EACH; k++) {
			const struct entry e = {.log = log, .n = &n, .value = i * EACH + k};
			ck_assert_int_eq(ops->enqueue(dev.dev, s[i], note, &e, sizeof(e), &err), 0);
		}
	}
	sync(s[0]);
	int at_wait = n;
	for (int i = 0; i < STREAMS; i++)
		ops->stream_destroy(dev.dev, s[i]);
	ck_assert_int_eq(n, STREAMS * EACH);
	close_late();
	return at_wait;
}

START_TEST(streams_keep_their_order_and_the_seed_draws_the_rest)
{
	int a[STREAMS * EACH], b[STREAMS * EACH], c[STREAMS * EACH], next[STREAMS] = {0};
	interleave(a, "1");
	interleave(b, "1");
	interleave(c, "2");
	ck_assert_int_eq(memcmp(a, b, sizeof(a)), 0);
	ck_assert_int_ne(memcmp(a, c, sizeof(a)), 0);
	for (int i = 0; i < STREAMS * EACH; i++)
		ck_assert_int_eq(c[i] % EACH, next[c[i] / EACH]++);
}
END_TEST

int main(void)
{
	Suite *s = suite_create("late");
	TCase *device_case = tcase_create("device"), *streams = tcase_create("streams");
	tcase_add_checked_fixture(device_case, open_late, close_late);
	tcase_add_test(device_case, it_says_what_it_is);
	tcase_add_test_raise_signal(device_case, a_host_that_reads_device_memory_faults, SIGSEGV);
	tcase_add_test_raise_signal(
		device_case, a_host_that_writes_device_memory_faults_after_a_wait_too, SIGSEGV);
	tcase_add_test_raise_signal(device_case, work_past_the_end_of_an_allocation_faults,
	                            SIGSEGV);
	tcase_add_test_raise_signal(device_case, a_write_into_the_rest_of_the_last_line_is_found,
	                            SIGABRT);
	tcase_add_test(device_case, memory_is_aligned_and_begins_as_nan);
	tcase_add_test(device_case, work_runs_in_waits_alone);
	tcase_add_test(device_case, arguments_are_copied_as_many_as_may_be);
	tcase_add_test(device_case, a_host_buffer_used_again_too_early_gives_its_later_content);
	tcase_add_test(device_case, what_is_copied_to_the_host_is_poison_until_a_wait);
	tcase_add_test(device_case, structs_on_the_stack_may_change_after_the_call);
	tcase_add_test(device_case, nested_structs_may_change_after_the_call);
	tcase_add_test(device_case, an_error_of_queued_work_comes_with_the_wait_and_stays);
	tcase_add_test(device_case, host_pointers_where_device_memory_belongs_are_refused);
	tcase_add_loop_test_raise_signal(device_case, freeing_what_queued_work_names_aborts,
	                                 SIGABRT, 0, 2);
	tcase_add_test(device_case, freeing_what_queued_work_does_not_name_is_fine);
	tcase_add_test(streams, streams_keep_their_order_and_the_seed_draws_the_rest);
	suite_add_tcase(s, device_case);
	suite_add_tcase(s, streams);
	SRunner *r = srunner_create(s);
	srunner_run_all(r, CK_NORMAL);
	int failed = srunner_ntests_failed(r);
	srunner_free(r);
	return failed != 0;
}
