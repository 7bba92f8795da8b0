/* SPDX-License-Identifier: Apache-2.0
 *
 * test_cuda_instruments.c: counters, traces and telemetry against work of known size. What counts is left out where the
 * process may not read counters.
 */
#include <check.h>
#include <dlfcn.h>
#include <math.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "cuda_work.h"
#include "nexus/device.h"
#include "nexus/instruments.h"

#define MIB ((size_t)1 << 20)
#define BUFFER (1024 * MIB)
#define BF16_OPS "sm__ops_path_tensor_src_bf16_dst_fp32.sum"
#define READS "dram__bytes_read.sum"

static struct {
	const struct nx_instrument_ops *ops;
	const struct nx_device_ops *device;
	void *dev;
	struct nx_err err;
} t;

#define X(result, name, parameters) static result(*name) parameters;
WORK_FUNCTIONS(X)
#undef X

static void ok(int rc)
{
	ck_assert_msg(rc == 0, "%d: %s", rc, t.err.msg);
}

static void work(int rc)
{
	ck_assert_msg(rc == 0, "CUDA error %d", rc);
}

static void fails(int rc, int want, const char *words)
{
	ck_assert_msg(rc == want && strstr(t.err.msg, words), "%d, not %d with \"%s\": %s", rc,
	              want, words, t.err.msg);
	printf("  %s\n", t.err.msg);
}

static void near(double x, double want, double rel, const char *what)
{
	printf("  %-44s %.6g, want %.6g\n", what, x, want);
	ck_assert_msg(fabs(x - want) <= rel * want, "%s: %.9g, want %.9g", what, x, want);
}

static struct nx_counters *open_counters(const char *const *metrics, int n, int max_ranges)
{
	struct nx_counters *c = NULL;
	ok(t.ops->counters_open(t.dev, metrics, n, max_ranges, &c, &t.err));
	return c;
}

static void begin(struct nx_counters *c, const char *name)
{
	ok(t.ops->range_begin(t.dev, c, name, &t.err));
}

static void end(struct nx_counters *c)
{
	ok(t.ops->range_end(t.dev, c, &t.err));
}

static const struct nx_range *read_ranges(struct nx_counters *c, int want)
{
	const struct nx_range *r = NULL;
	int32_t n = 0;
	ok(t.ops->counters_read(t.dev, c, &r, &n, &t.err));
	ck_assert_int_eq(n, want);
	return r;
}

/* ---- counters */

START_TEST(bytes_and_flops_are_counted_as_they_are)
{
	static const char *const metrics[] = {READS, BF16_OPS, "gpc__cycles_elapsed.max"};
	struct nx_counters *c = open_counters(metrics, 3, 4);
	begin(c, "read");
	work(work_read(BUFFER));
	end(c);
	begin(c, "warps");
	work(work_multiply_warps(264, 1000));
	end(c);
	begin(c, "groups");
	work(work_multiply_groups(264, 1000));
	end(c);
	begin(c, "nothing");
	end(c);
	const struct nx_range *r = read_ranges(c, 4);
	ck_assert_str_eq(r[0].name, "read");
	ck_assert_str_eq(r[3].name, "nothing");
	near(r[0].values[0], (double)BUFFER, 0.01, "bytes read");
	near(r[0].values[1], 0, 0, "FLOP of a read");
	near(r[1].values[1], 264.0 * 4 * 1000 * 8192, 0.01, "FLOP by mma");
	near(r[2].values[1], 264.0 * 1000 * 16384, 0.01, "FLOP by wgmma");
	near(r[3].values[1], 0, 0, "FLOP of nothing");
	printf("  bytes read in an empty range: %g\n", r[3].values[0]);
	ck_assert(r[3].values[0] < 0.01 * (double)BUFFER);
	ck_assert(r[0].values[2] > 1e5);
	t.ops->counters_close(t.dev, c);
}
END_TEST

START_TEST(graphs_are_counted_whole)
{
	static const char *const metrics[] = {READS};
	work(work_graph_make(256 * MIB, 8));
	struct nx_counters *c = open_counters(metrics, 1, 2);
	begin(c, "one launch");
	work(work_graph_launch());
	end(c);
	begin(c, "ten launches");
	for (int i = 0; i < 10; i++)
		work(work_graph_launch());
	end(c);
	const struct nx_range *r = read_ranges(c, 2);
	near(r[0].values[0], 8.0 * 256 * MIB, 0.01, "bytes of a graph");
	near(r[1].values[0], 80.0 * 256 * MIB, 0.01, "bytes of ten launches of it");
	t.ops->counters_close(t.dev, c);
	work(work_graph_free());
}
END_TEST

START_TEST(ranges_stay_in_order_over_several_reads)
{
	static const char *const metrics[] = {READS, "gpc__cycles_elapsed.max"};
	struct nx_counters *c = open_counters(metrics, 2, 5);
	const struct nx_range *r = read_ranges(c, 0);
	for (size_t i = 1; i <= 3; i++) { /* of one name */
		begin(c, "same");
		work(work_read(i * 256 * MIB));
		end(c);
	}
	r = read_ranges(c, 3);
	for (size_t i = 1; i <= 3; i++)
		near(r[i - 1].values[0], (double)(i * 256 * MIB), 0.01, "first batch");
	begin(c, "later");
	work(work_read(512 * MIB));
	end(c);
	r = read_ranges(c, 4);
	near(r[3].values[0], 512.0 * MIB, 0.01, "second batch");
	near(r[0].values[0], 256.0 * MIB, 0.01, "first batch, still there");
	ck_assert_str_eq(r[3].name, "later");
	begin(c, "a name that is longer than there is room for it");
	fails(t.ops->range_begin(t.dev, c, "x", &t.err), NX_EINVAL, "is open");
	end(c);
	fails(t.ops->range_end(t.dev, c, &t.err), NX_EINVAL, "no range");
	fails(t.ops->range_begin(t.dev, c, "x", &t.err), NX_ENOSPC, "5 ranges");
	read_ranges(c, 5);
	t.ops->counters_close(t.dev, c);
}
END_TEST

START_TEST(there_may_be_more_ranges_than_an_image_holds)
{
	static const char *const metrics[] = {BF16_OPS};
	struct nx_counters *c = open_counters(metrics, 1, 2000);
	for (int i = 0; i < 1100; i++) {
		begin(c, "x");
		work(work_multiply_warps(132, i % 7));
		end(c);
	}
	const struct nx_range *r = read_ranges(c, 1100);
	for (int i = 0; i < 1100; i++)
		ck_assert_msg(r[i].values[0] == 132.0 * 4 * (i % 7) * 8192, "range %d: %g", i,
		              r[i].values[0]);
	t.ops->counters_close(t.dev, c);
}
END_TEST

START_TEST(what_cannot_be_counted_at_once_is_refused)
{
	static const char *const many[] = {"sm__throughput.avg.pct_of_peak_sustained_elapsed"};
	static const char *const wrong[] = {"dram__bytes_raed.sum"};
	static const char *const one[] = {READS};
	struct nx_counters *c = NULL, *d = NULL;
	int32_t passes = 0;
	fails(t.ops->counters_open(t.dev, many, 1, 1, &c, &t.err), NX_ENOTSUP, " passes");
	fails(t.ops->counters_open(t.dev, wrong, 1, 1, &c, &t.err), NX_EINVAL, "\"" READS "\"");
	ok(t.ops->metrics_check(t.dev, NULL, many, 1, &passes, &t.err));
	ck_assert_int_eq(passes, 8);
	c = open_counters(one, 1, 1);
	fails(t.ops->counters_open(t.dev, one, 1, 1, &d, &t.err), NX_ECONFLICT, "counters");
	fails(t.ops->trace_begin(t.dev, 10, &t.err), NX_ECONFLICT, "counters");
	ok(t.ops->metrics_check(t.dev, NULL, one, 1, &passes, &t.err));
	ck_assert_int_eq(passes, 1);
	begin(c, "left open");
	t.ops->counters_close(t.dev, c);
	ok(t.ops->trace_begin(t.dev, 10, &t.err));
	fails(t.ops->counters_open(t.dev, one, 1, 1, &c, &t.err), NX_ECONFLICT, "trace");
	struct nx_trace_record *r = NULL;
	size_t n = 0, lost = 0;
	ok(t.ops->trace_end(t.dev, &r, &n, &lost, &t.err));
	t.ops->trace_free(t.dev, r);
	fails(t.ops->trace_end(t.dev, &r, &n, &lost, &t.err), NX_EINVAL, "no trace");
}
END_TEST

static double resident_mib(void)
{
	long pages = 0, skip = 0;
	FILE *f = fopen("/proc/self/statm", "r");
	ck_assert(f && fscanf(f, "%ld %ld", &skip, &pages) == 2);
	fclose(f);
	return (double)pages * (double)sysconf(_SC_PAGESIZE) / (double)MIB;
}

START_TEST(opening_again_leaves_nothing_behind)
{
	static const char *const metrics[] = {READS, BF16_OPS};
	double host = 0, device = 0;
	for (int i = 0; i < 24; i++) {
		struct nx_counters *c = open_counters(metrics, 2, 8);
		begin(c, "read");
		work(work_read(256 * MIB));
		end(c);
		near(read_ranges(c, 1)->values[0], 256.0 * MIB, 0.01, "bytes");
		t.ops->counters_close(t.dev, c);
		struct nx_trace_record *r = NULL;
		size_t n = 0, lost = 0;
		ok(t.ops->trace_begin(t.dev, 1000, &t.err));
		work(work_read(256 * MIB));
		ok(t.ops->trace_end(t.dev, &r, &n, &lost, &t.err));
		ck_assert_int_eq((int)n, 1);
		t.ops->trace_free(t.dev, r);
		if (i == 3) {
			host = resident_mib();
			device = (double)work_free_bytes() / (double)MIB;
		}
	}
	printf("  over 20 times: host %+.1f MiB, device %+.1f MiB\n", resident_mib() - host,
	       device - (double)work_free_bytes() / (double)MIB);
	ck_assert(resident_mib() - host < 16);
	ck_assert(device - (double)work_free_bytes() / (double)MIB < 16);
}
END_TEST

/* ---- traces */

START_TEST(a_trace_names_what_ran_in_order)
{
	static const char *const want[] = {
		"read_all", "multiply_warps", "multiply_groups", "copy to device",
		"set",      "read_all",       "read_all",        "read_all"};
	static const int kinds[] = {NX_TRACE_KERNEL, NX_TRACE_KERNEL, NX_TRACE_KERNEL,
	                            NX_TRACE_COPY,   NX_TRACE_SET,    NX_TRACE_KERNEL,
	                            NX_TRACE_KERNEL, NX_TRACE_KERNEL};
	struct nx_trace_record *r = NULL;
	size_t n = 0, lost = 9;
	work(work_graph_make(64 * MIB,
	                     3)); /* before the trace: its kernels are seen all the same */
	work(work_read(BUFFER));  /* not in the trace */
	ok(t.ops->trace_begin(t.dev, 100, &t.err));
	work(work_read(BUFFER));
	work(work_multiply_warps(264, 1000));
	work(work_multiply_groups(264, 1000));
	work(work_copy_in(MIB));
	work(work_set(64 * MIB));
	work(work_graph_launch());
	ok(t.ops->trace_end(t.dev, &r, &n, &lost, &t.err));
	for (size_t i = 0; i < n; i++)
		printf("  %8.1f us, %8.1f us long: %d %s\n",
		       (double)(r[i].begin_ns - r[0].begin_ns) * 1e-3,
		       (double)(r[i].end_ns - r[i].begin_ns) * 1e-3, r[i].kind, r[i].name);
	ck_assert_int_eq((int)n, 8);
	ck_assert_int_eq((int)lost, 0);
	for (size_t i = 0; i < n; i++) {
		ck_assert_str_eq(r[i].name, want[i]);
		ck_assert_int_eq(r[i].kind, kinds[i]);
		ck_assert(r[i].end_ns > r[i].begin_ns);
		ck_assert(i == 0 || r[i].begin_ns >= r[i - 1].begin_ns);
	}
	/* 1 GiB at 1 to 6 TB/s */
	ck_assert(r[0].end_ns - r[0].begin_ns > 170000 && r[0].end_ns - r[0].begin_ns < 1100000);
	t.ops->trace_free(t.dev, r);
	work(work_graph_free());
}
END_TEST

START_TEST(what_a_trace_has_no_room_for_is_counted)
{
	struct nx_trace_record *r = NULL;
	size_t n = 0, lost = 0;
	ok(t.ops->trace_begin(t.dev, 1000, &t.err));
	for (int i = 0; i < 20000; i++)
		work(work_read(64));
	ok(t.ops->trace_end(t.dev, &r, &n, &lost, &t.err));
	ck_assert_int_eq((int)n, 1000);
	ck_assert_int_eq((int)lost, 19000);
	t.ops->trace_free(t.dev, r);
}
END_TEST

/* ---- telemetry */

START_TEST(telemetry_is_plausible)
{
	struct nx_telemetry b;
	double joules = 0, after_j = 0;
	char versions[128];
	ok(t.ops->energy(t.dev, &joules, &t.err));
	for (int i = 0; i < 1000; i++)
		work(work_read(BUFFER));
	ok(t.ops->telemetry(t.dev, &b, &t.err));
	work(work_wait());
	struct nx_telemetry after;
	ok(t.ops->telemetry(t.dev, &after, &t.err));
	ok(t.ops->energy(t.dev, &after_j, &t.err));
	printf("  SM %.0f MHz, memory %.0f MHz, %.0f W, %.0f C, %.1f J, %.1f GiB, throttle %#llx, %d others, used %.2f\n",
	       b.sm_clock_hz * 1e-6, b.mem_clock_hz * 1e-6, b.power_w, b.temperature_c,
	       after_j - joules, (double)b.mem_used_bytes / 1073741824.0,
	       (unsigned long long)b.throttle, b.n_other_processes, after.utilisation);
	ck_assert(b.sm_clock_hz > 2e8 && b.sm_clock_hz < 4e9);
	ck_assert(b.mem_clock_hz > 2e8 && b.mem_clock_hz < 2e10);
	ck_assert(b.power_w > 20 && b.power_w < 1500);
	ck_assert(b.temperature_c > 5 && b.temperature_c < 110);
	ck_assert(after_j > joules && after_j - joules < 10000);
	ck_assert(b.mem_used_bytes > (int64_t)BUFFER);
	ck_assert(b.throttle >= 0 && b.throttle < 64);
	ck_assert(b.n_other_processes >= -1 && b.n_other_processes < 128);
	ck_assert(b.utilisation >= 0 && b.utilisation <= 1);
	t.ops->versions(t.dev, versions, sizeof(versions));
	printf("  %s\n", versions);
	ck_assert_ptr_nonnull(strstr(versions, "CUPTI 1"));
	ck_assert_ptr_nonnull(strstr(versions, "driver "));
}
END_TEST

/* ---- */

static const char *set_up(void)
{
	static char why[1024];
	const char *build = getenv("NEXUS_BUILD") ? getenv("NEXUS_BUILD") : "build";
	char path[1024];
	nx_backend_fn entry;
	struct nx_device_config cfg = {.dtype = NX_BF16};
	snprintf(path, sizeof(path), "%s/backends/cuda.so", build);
	void *so = dlopen(path, RTLD_NOW | RTLD_LOCAL);
	if (!so)
		return dlerror();
	*(void **)&entry = dlsym(so, NX_BACKEND_SYMBOL);
	t.device = entry();
	t.ops = t.device->instruments;
	if (t.device->open(&t.dev, &cfg, &t.err))
		return t.err.msg;
	snprintf(path, sizeof(path), "%s/tests/cuda_work.so", build);
	so = dlopen(path, RTLD_NOW | RTLD_LOCAL);
	if (!so)
		return dlerror();
#define X(result, name, parameters) *(void **)&name = dlsym(so, #name);
	WORK_FUNCTIONS(X)
#undef X
	int rc = work_open(BUFFER);
	snprintf(why, sizeof(why), "work_open: CUDA error %d", rc);
	return rc ? why : NULL;
}

/* False, with a line: a library or a permission is missing. */
static bool may_count(void)
{
	static const char *const metrics[] = {READS};
	struct nx_counters *c = NULL;
	int rc = t.ops->counters_open(t.dev, metrics, 1, 1, &c, &t.err);
	if (rc == NX_EENV)
		printf("counters skipped: %s\n", t.err.msg);
	else if (!rc)
		t.ops->counters_close(t.dev, c);
	return rc != NX_EENV;
}

int main(void)
{
	const char *why = set_up();
	setvbuf(stdout, NULL, _IOLBF, 0);
	if (why) {
		printf("skipped: %s\n100%%: Checks: 0, Failures: 0, Errors: 0\n", why);
		return 0;
	}
	Suite *s = suite_create("cuda instruments");
	TCase *tc = tcase_create("all");
	tcase_set_timeout(tc, 60);
	tcase_add_test(tc, telemetry_is_plausible);
	tcase_add_test(tc, a_trace_names_what_ran_in_order);
	tcase_add_test(tc, what_a_trace_has_no_room_for_is_counted);
	if (may_count()) {
		tcase_add_test(tc, bytes_and_flops_are_counted_as_they_are);
		tcase_add_test(tc, graphs_are_counted_whole);
		tcase_add_test(tc, ranges_stay_in_order_over_several_reads);
		tcase_add_test(tc, there_may_be_more_ranges_than_an_image_holds);
		tcase_add_test(tc, what_cannot_be_counted_at_once_is_refused);
		tcase_add_test(tc, opening_again_leaves_nothing_behind);
	}
	suite_add_tcase(s, tc);
	SRunner *r = srunner_create(s);
	/* A context does not live through fork(). */
	srunner_set_fork_status(r, CK_NOFORK);
	srunner_run_all(r, CK_NORMAL);
	int failed = srunner_ntests_failed(r);
	srunner_free(r);
	t.device->close(t.dev);
	return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}
