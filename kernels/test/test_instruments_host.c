/* SPDX-License-Identifier: Apache-2.0
 *
 * test_instruments_host.c: metrics by name and the sets of experiments/metrics, which need CUPTI but no GPU.
 */
#include <check.h>
#include <dlfcn.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "nexus/device.h"
#include "nexus/instruments.h"

#define MAX_METRICS 32
#define PCT(of) ".avg.pct_of_peak_sustained_" of

static const struct nx_instrument_ops *ops;

static int check(const char *chip, const char *const *metrics, int n, int *passes,
                 struct nx_err *err)
{
	int32_t p = -1;
	int rc = ops->metrics_check(NULL, chip, metrics, n, &p, err);
	*passes = p;
	return rc;
}

START_TEST(passes_of_one_metric_are_known)
{
	static const struct {
		const char *metric;
		int passes;
	} known[] = {{"dram__bytes_read.sum", 1},
	             {"gpu__time_duration.sum", 1},
	             {"sm__ops_path_tensor_src_bf16_dst_fp32.sum", 1},
	             {"lts__t_sector_hit_rate.pct", 2},
	             {"sm__throughput" PCT("elapsed"), 8}};
	for (size_t i = 0; i < sizeof(known) / sizeof(*known); i++) {
		struct nx_err err = {0};
		int passes = 0;
		int rc = check("GH100", &known[i].metric, 1, &passes, &err);
		ck_assert_msg(rc == 0, "%s: %s", known[i].metric, err.msg);
		ck_assert_msg(passes == known[i].passes, "%s: %d passes, not %d", known[i].metric,
		              passes, known[i].passes);
	}
}
END_TEST

START_TEST(metrics_together_want_more_passes_than_alone)
{
	static const char *const metrics[] = {"sm__ops_path_tensor_src_bf16_dst_fp32.sum",
	                                      "sm__inst_executed_pipe_tensor_op_gmma.sum",
	                                      "dram__bytes.sum", "dram__bytes.sum"};
	struct nx_err err = {0};
	int passes = 0;
	ck_assert_int_eq(check("GH100", metrics, 1, &passes, &err), 0);
	ck_assert_int_eq(passes, 1);
	ck_assert_int_eq(check("GH100", metrics, 2, &passes, &err), 0);
	ck_assert_int_eq(passes, 2);
	ck_assert_int_eq(check("GH100", metrics + 2, 2, &passes, &err), 0); /* one twice */
	ck_assert_int_eq(passes, 1);
}
END_TEST

START_TEST(unknown_metrics_get_the_nearest_name)
{
	static const char *const wrong[][2] = {
		{"dram__bytes_raed.sum", "\"dram__bytes_read.sum\""},
		{"dram__bytes_read", "\"dram__bytes_read.sum\""},
		{"dram__bytes_read.smu", "\"dram__bytes_read.sum\""},
		{"dram_bytes_write.avg.per_second", "\"dram__bytes_write.avg.per_second\""},
		{"sm__throughput.sum.pct_of_peak_sustained",
	         "\"sm__throughput.sum.pct_of_peak_sustained_"},
		{"lts__t_sector_hit_rate.sum", "\"lts__t_sector_hit_rate."},
		{"", "did you mean"},
		{"a%sb%n", "did you mean"}};
	for (size_t i = 0; i < sizeof(wrong) / sizeof(*wrong); i++) {
		const char *pair[] = {"dram__bytes.sum", wrong[i][0]};
		struct nx_err err = {0};
		int passes = 0;
		ck_assert_msg(check("GH100", pair, 2, &passes, &err) == NX_EINVAL, "%s: %s",
		              wrong[i][0], err.msg);
		ck_assert_msg(strstr(err.msg, wrong[i][1]) != NULL, "%s: %s", wrong[i][0], err.msg);
	}
}
END_TEST

START_TEST(a_name_of_any_length_is_refused)
{
	char name[4096];
	const char *metric = name;
	memset(name, 'x', sizeof(name) - 1);
	name[sizeof(name) - 1] = '\0';
	struct nx_err err = {0};
	int passes = 0;
	ck_assert_int_eq(check("GH100", &metric, 1, &passes, &err), NX_EINVAL);
	memcpy(name + 4000, ".sum", 4);
	ck_assert_int_eq(check("GH100", &metric, 1, &passes, &err), NX_EINVAL);
}
END_TEST

START_TEST(what_is_sampled_over_time_fits_one_pass)
{
	struct nx_err err = {0};
	int32_t passes = 0;
	ck_assert_msg(ops->sampling_check(NULL, "GH100", &passes, &err) == 0, "%s", err.msg);
	ck_assert_int_eq(passes, 1);
	ck_assert_int_eq(ops->sampling_check(NULL, "GH999", &passes, &err), NX_EINVAL);
	ck_assert_ptr_nonnull(strstr(err.msg, "GH100"));
	ck_assert_int_eq(ops->sampling_check(NULL, NULL, &passes, &err), NX_EINVAL);
	/* What nobody began has no end. */
	struct nx_device_sample *samples = NULL;
	size_t n = 1, lost = 1;
	ck_assert_int_eq(ops->sampling_end(NULL, &samples, &n, &lost, &err), NX_EINVAL);
	ck_assert(!samples && n == 0 && lost == 0);
}
END_TEST

START_TEST(what_is_no_chip_or_no_set_is_refused)
{
	static const char *const apart[] = {"pcie__read_bytes.sum", "dram__bytes.sum"};
	struct nx_err err = {0};
	int passes = 0;
	ck_assert_int_eq(check("GH999", apart, 1, &passes, &err), NX_EINVAL);
	ck_assert_ptr_nonnull(strstr(err.msg, "GH100"));
	ck_assert_int_eq(check(NULL, apart, 1, &passes, &err), NX_EINVAL);
	ck_assert_int_eq(check("GH100", apart, 0, &passes, &err), NX_EINVAL);
	ck_assert_int_eq(check("GH100", apart, 1, &passes, &err), 0);
	ck_assert_int_eq(check("GH100", apart, 2, &passes, &err), NX_ENOTSUP);
	ck_assert_ptr_nonnull(strstr(err.msg, "split"));
}
END_TEST

/* ---- experiments/metrics: a group's name stands at a depth of 2, its counters at 6, under "counters:" at 4 */

static int depth_of(const char *line)
{
	return (int)strspn(line, " ");
}

static void check_group(const char *group, const char *const *metrics, int n)
{
	struct nx_err err = {0};
	int passes = 0;
	int rc = check("GH100", metrics, n, &passes, &err);
	ck_assert_msg(rc == 0, "%s: %s", group, err.msg);
	ck_assert_msg(passes == 1, "%s: its %d counters want %d passes", group, n, passes);
}

START_TEST(groups_of_the_data_file_take_one_pass)
{
	char path[1024], line[512], group[64] = "", names[MAX_METRICS][NX_METRIC_NAME];
	const char *metrics[MAX_METRICS], *source = getenv("NEXUS_SOURCE");
	int n = 0, n_groups = 0;
	bool counters = false;
	snprintf(path, sizeof(path), "%s/experiments/metrics/gh100.yaml", source ? source : ".");
	FILE *f = fopen(path, "r");
	ck_assert_msg(f != NULL, "%s is not there", path);
	while (fgets(line, sizeof(line), f)) {
		int depth = depth_of(line);
		if (counters && depth == 6) {
			ck_assert_int_lt(n, MAX_METRICS);
			ck_assert_int_eq(sscanf(line, " %*[^:]: %127s", names[n]), 1);
			metrics[n] = names[n];
			n++;
			continue;
		}
		if (counters) {
			check_group(group, metrics, n);
			n_groups++;
		}
		counters = depth == 4 && !strncmp(line + 4, "counters:", 9);
		n = 0;
		if (depth == 2)
			ck_assert_int_eq(sscanf(line, " %63[^:]", group), 1);
	}
	fclose(f);
	ck_assert_int_eq(n_groups, 5);
}
END_TEST

START_TEST(versions_are_told_without_a_device)
{
	char text[128], small[8];
	ops->versions(NULL, text, sizeof(text));
	ck_assert_ptr_nonnull(strstr(text, "CUPTI 1"));
	ops->versions(NULL, small, sizeof(small));
	ck_assert_int_eq((int)strlen(small), 7);
}
END_TEST

/* NULL, or why there is nothing to test. */
static const char *set_up(void)
{
	static struct nx_err err;
	static const char *const metric = "dram__bytes.sum";
	char path[1024];
	const char *build = getenv("NEXUS_BUILD");
	nx_backend_fn entry;
	int passes;
#ifdef __SANITIZE_ADDRESS__
	return "CUPTI opens its libraries in a way (RTLD_DEEPBIND) that the sanitizer does not allow";
#endif
	snprintf(path, sizeof(path), "%s/backends/cuda.so", build ? build : "build");
	void *so = dlopen(path, RTLD_NOW | RTLD_LOCAL);
	if (!so)
		return "the CUDA backend was not built";
	*(void **)&entry = dlsym(so, NX_BACKEND_SYMBOL);
	ops = entry ? entry()->instruments : NULL;
	if (!ops)
		return "the CUDA backend has no instruments";
	int rc = check("GH100", &metric, 1, &passes, &err);
	return rc == NX_EENV || rc == NX_ENOTSUP ? err.msg : NULL;
}

int main(void)
{
	const char *why = set_up();
	if (why) {
		printf("skipped: %s\n100%%: Checks: 0, Failures: 0, Errors: 0\n", why);
		return EXIT_SUCCESS;
	}
	Suite *s = suite_create("instruments without a device");
	TCase *tc = tcase_create("metrics");
	tcase_add_test(tc, passes_of_one_metric_are_known);
	tcase_add_test(tc, metrics_together_want_more_passes_than_alone);
	tcase_add_test(tc, unknown_metrics_get_the_nearest_name);
	tcase_add_test(tc, a_name_of_any_length_is_refused);
	tcase_add_test(tc, what_is_sampled_over_time_fits_one_pass);
	tcase_add_test(tc, what_is_no_chip_or_no_set_is_refused);
	tcase_add_test(tc, groups_of_the_data_file_take_one_pass);
	tcase_add_test(tc, versions_are_told_without_a_device);
	suite_add_tcase(s, tc);
	SRunner *r = srunner_create(s);
	srunner_run_all(r, CK_NORMAL);
	int failed = srunner_ntests_failed(r);
	srunner_free(r);
	return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}
