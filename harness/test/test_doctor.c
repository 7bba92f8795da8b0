/* SPDX-License-Identifier: Apache-2.0
 *
 * test_doctor.c: each check on machines made of files, and the verb on this one.
 */
#include <check.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "cli_fixture.h"
#include "measure/doctor.h"

static struct cli c;
static struct nx_doctor d;
static struct nx_check checks[NX_CHECKS_MAX];
static size_t n;

/* Writes root/path, making its folders. */
static void put(const char *path, const char *text)
{
	char dir[600];
	snprintf(dir, sizeof(dir), "root%s", path);
	for (char *p = strchr(dir, '/'); p; p = strchr(p + 1, '/')) {
		*p = '\0';
		mkdir(cli_path(&c, dir), 0777);
		*p = '/';
	}
	cli_write(&c, dir, text);
}

/* A machine that lacks nothing. */
static void setup(void)
{
	cli_open(&c);
	mkdir(cli_path(&c, "root"), 0777);
	put("/proc/cpuinfo",
	    "processor\t: 0\nflags\t\t: fpu fma f16c avx2 avx512f avx512bw avx512vl "
	    "avx512dq avx512_bf16 amx_tile amx_bf16\n");
	put("/proc/self/status", "Name:\tnexus\nCpus_allowed_list:\t0-3\n");
	put("/proc/self/cgroup", "0::/box\n");
	put("/proc/meminfo",
	    "MemTotal:       16777216 kB\nMemFree: 1 kB\nMemAvailable:   12582912 kB\n"
	    "SwapTotal: 0 kB\nSwapFree: 0 kB\n");
	put("/proc/loadavg", "0.10 0.20 0.30 1/100 1234\n");
	put("/proc/sys/kernel/perf_event_paranoid", "2\n");
	put("/sys/devices/system/cpu/online", "0-3\n");
	put("/sys/devices/system/cpu/smt/active", "0\n");
	put("/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor", "performance\n");
	put("/sys/devices/system/cpu/intel_pstate/no_turbo", "1\n");
	put("/sys/devices/system/node/online", "0\n");
	put("/sys/devices/system/clocksource/clocksource0/current_clocksource", "tsc\n");
	put("/sys/kernel/mm/transparent_hugepage/enabled", "always [madvise] never\n");
	put("/sys/fs/cgroup/box/cpu.max", "max 100000\n");
	put("/sys/fs/cgroup/box/memory.max", "max\n");
	cli_write(&c, "gnuplot", "#!/bin/sh\n");
	chmod(cli_path(&c, "gnuplot"), 0755);
	static char root[600], dir[600];
	snprintf(root, sizeof(root), "%s", cli_path(&c, "root"));
	snprintf(dir, sizeof(dir), "%s", c.dir);
	d = (struct nx_doctor){.root = root, .device = "cpu", .results = dir, .path = dir};
}

static void teardown(void)
{
	cli_close(&c);
}

static const struct nx_check *get(const char *name)
{
	for (size_t i = 0; i < n; i++)
		if (!strcmp(checks[i].name, name))
			return &checks[i];
	return NULL;
}

static void expect(const char *name, enum nx_check_state state, const char *found,
                   const char *remedy)
{
	n = nx_doctor_run(&d, checks);
	const struct nx_check *k = get(name);
	ck_assert_msg(k != NULL, "there is no check %s", name);
	ck_assert_msg(k->state == state, "%s is %s: %s", name, nx_check_state_name(k->state),
	              k->found);
	ck_assert_msg(strstr(k->found, found) != NULL, "%s: %s", name, k->found);
	ck_assert_msg(strstr(k->remedy, remedy) != NULL, "%s: %s", name, k->remedy);
	if (state != NX_CHECK_OK)
		ck_assert_msg(k->costs[0], "%s does not say what it costs", name);
}

START_TEST(a_good_machine_has_nothing_to_say)
{
	n = nx_doctor_run(&d, checks);
	ck_assert_uint_ge(n, 15);
	for (size_t i = 0; i < n; i++)
		ck_assert_msg(checks[i].state == NX_CHECK_OK && checks[i].found[0], "%s: %s",
		              checks[i].name, checks[i].found);
	ck_assert(!nx_doctor_unfit(checks, n));
	/* No GPU is one line. */
	ck_assert_ptr_nonnull(strstr(get("gpu")->found, "none"));
	ck_assert_ptr_null(get("gpu driver"));
	ck_assert_ptr_null(get("gpu counters"));
}
END_TEST

START_TEST(instructions_are_those_the_backend_would_take)
{
	expect("instructions", NX_CHECK_OK, "avx512bf16", "");
	put("/proc/cpuinfo", "flags : fma f16c avx2 avx512f avx512bw avx512vl avx512dq\n");
	expect("instructions", NX_CHECK_OK, "avx512", "");
	ck_assert_str_eq(get("instructions")->lacks, "AVX512-BF16, AMX-BF16");
	put("/proc/cpuinfo", "flags : fma f16c avx2 avx512f_not\n");
	expect("instructions", NX_CHECK_WARN, "avx2", "");
	put("/proc/cpuinfo", "flags : sse2\n");
	expect("instructions", NX_CHECK_WARN, "ref", "");
	put("/proc/cpuinfo", "Features : asimd\n");
	expect("instructions", NX_CHECK_WARN, "no x86 features", "");
}
END_TEST

START_TEST(what_may_not_be_used_is_counted)
{
	put("/proc/self/status", "Cpus_allowed_list:\t0,2\n");
	expect("cores", NX_CHECK_WARN, "2 of 4", "taskset");
	put("/sys/fs/cgroup/box/cpu.max", "150000 100000\n");
	put("/proc/self/status", "Cpus_allowed_list:\t0-3\n");
	expect("cpu quota", NX_CHECK_WARN, "1.5 processors", "--threads 1");
	put("/sys/fs/cgroup/box/memory.max", "1073741824\n");
	expect("memory limit", NX_CHECK_WARN, "1.0 GiB", "--memory");
}
END_TEST

START_TEST(control_groups_of_the_first_version_are_read_too)
{
	put("/proc/self/cgroup", "4:memory:/m\n2:cpuacct,cpu:/c\n0::/\n");
	unlink(cli_path(&c, "root/sys/fs/cgroup/box/cpu.max"));
	put("/sys/fs/cgroup/cpu/c/cpu.cfs_quota_us", "50000\n");
	put("/sys/fs/cgroup/cpu/c/cpu.cfs_period_us", "100000\n");
	put("/sys/fs/cgroup/memory/m/memory.limit_in_bytes", "4294967296\n");
	expect("cpu quota", NX_CHECK_WARN, "0.5 processors", "--cpus");
	expect("memory limit", NX_CHECK_OK, "4.0 GiB", "");
	put("/sys/fs/cgroup/memory/m/memory.limit_in_bytes", "9223372036854771712\n");
	expect("memory limit", NX_CHECK_OK, "no limit", "");
	put("/sys/fs/cgroup/cpu/c/cpu.cfs_quota_us", "-1\n");
	expect("cpu quota", NX_CHECK_OK, "no limit", "");
}
END_TEST

START_TEST(what_moves_clocks_is_named_with_its_remedy)
{
	put("/sys/devices/system/cpu/smt/active", "1\n");
	expect("smt", NX_CHECK_WARN, "on", "smt/control");
	put("/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor", "powersave\n");
	expect("governor", NX_CHECK_WARN, "powersave", "performance");
	put("/sys/devices/system/cpu/intel_pstate/no_turbo", "0\n");
	expect("turbo", NX_CHECK_WARN, "on", "no_turbo");
	unlink(cli_path(&c, "root/sys/devices/system/cpu/intel_pstate/no_turbo"));
	put("/sys/devices/system/cpu/cpufreq/boost", "1\n");
	expect("turbo", NX_CHECK_WARN, "on", "boost");
	put("/sys/devices/system/node/online", "0-1\n");
	expect("numa", NX_CHECK_WARN, "2 nodes", "numactl");
	put("/sys/devices/system/clocksource/clocksource0/current_clocksource", "hpet\n");
	expect("clock", NX_CHECK_WARN, "hpet", "tsc");
	put("/proc/loadavg", "3.50 0 0 1/1 1\n");
	expect("other load", NX_CHECK_WARN, "3.50", "top");
}
END_TEST

START_TEST(memory_and_counters_are_checked)
{
	put("/proc/meminfo", "MemTotal: 4194304 kB\nMemAvailable: 524288 kB\n");
	expect("memory", NX_CHECK_WARN, "0.5 of 4.0 GiB", "ps aux");
	put("/proc/meminfo", "MemTotal: 16777216 kB\nMemAvailable: 12582912 kB\n"
	                     "SwapTotal: 8388608 kB\nSwapFree: 0 kB\n");
	expect("memory", NX_CHECK_WARN, "12.0 of 16.0", "swapoff");
	put("/sys/kernel/mm/transparent_hugepage/enabled", "always madvise [never]\n");
	expect("huge pages", NX_CHECK_WARN, "never", "madvise");
	put("/proc/sys/kernel/perf_event_paranoid", "4\n");
	expect("perf events", NX_CHECK_WARN, "paranoid is 4", "sysctl");
}
END_TEST

START_TEST(a_folder_that_cannot_be_written_is_fatal)
{
	expect("results", NX_CHECK_OK, "GiB free", "");
	ck_assert(get("results")->fatal);
	if (!geteuid()) {
		/* Root writes anywhere but into a file. */
		d.results = "/proc";
	} else {
		mkdir(cli_path(&c, "shut"), 0555);
		d.results = cli_path(&c, "shut");
	}
	expect("results", NX_CHECK_MISSING, "cannot be written", "-o");
	ck_assert(nx_doctor_unfit(checks, n));
}
END_TEST

START_TEST(gnuplot_is_looked_for_and_not_needed)
{
	d.path = "/nowhere::";
	expect("gnuplot", NX_CHECK_MISSING, "not in $PATH", "gnuplot-nox");
	ck_assert(!nx_doctor_unfit(checks, n));
	d.path = NULL;
	expect("gnuplot", NX_CHECK_MISSING, "not in $PATH", "");
}
END_TEST

START_TEST(a_gpu_has_driver_and_permissions)
{
	put("/sys/bus/pci/devices/0000:01:00.0/vendor", "0x10de\n");
	put("/sys/bus/pci/devices/0000:01:00.0/class", "0x030200\n");
	put("/sys/bus/pci/devices/0000:01:00.1/vendor", "0x10de\n"); /* its sound */
	put("/sys/bus/pci/devices/0000:01:00.1/class", "0x040300\n");
	expect("gpu", NX_CHECK_OK, "1 NVIDIA GPU on", "");
	expect("gpu driver", NX_CHECK_MISSING, "not there", "modprobe");
	ck_assert(!nx_doctor_unfit(checks, n)); /* the CPU is what is asked for */
	put("/proc/driver/nvidia/version", "NVRM version: NVIDIA UNIX 575.1\nGCC version: 12\n");
	expect("gpu driver", NX_CHECK_OK, "575.1", "");
	ck_assert_ptr_null(strstr(get("gpu driver")->found, "GCC"));
	expect("gpu counters", NX_CHECK_WARN, "unknown", "");
	put("/proc/driver/nvidia/params", "ResmanDebugLevel: 4\nRmProfilingAdminOnly: 1\n");
	expect("gpu counters", NX_CHECK_MISSING, "administrators", "NVreg_RestrictProfiling");
	put("/proc/driver/nvidia/params", "RmProfilingAdminOnly: 0\n");
	expect("gpu counters", NX_CHECK_OK, "all users", "");
}
END_TEST

START_TEST(a_gpu_that_is_asked_for_is_needed)
{
	d.device = "cuda:0";
	expect("gpu", NX_CHECK_MISSING, "none", "--device cpu");
	ck_assert(nx_doctor_unfit(checks, n));
}
END_TEST

START_TEST(hostile_files_are_cut_and_cleaned)
{
	char *big = malloc(300001);
	ck_assert_ptr_nonnull(big);
	memset(big, 'x', 300000);
	big[300000] = '\0';
	static const char *const PATHS[] = {
		"/proc/cpuinfo",
		"/proc/self/status",
		"/proc/self/cgroup",
		"/proc/meminfo",
		"/proc/loadavg",
		"/sys/devices/system/cpu/online",
		"/sys/devices/system/node/online",
		"/sys/kernel/mm/transparent_hugepage/enabled",
		"/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor",
		"/sys/devices/system/clocksource/clocksource0/current_clocksource",
		"/proc/driver/nvidia/version",
		"/proc/driver/nvidia/params",
		"/proc/sys/kernel/perf_event_paranoid",
		"/sys/fs/cgroup/box/cpu.max",
		"/sys/fs/cgroup/box/memory.max"};
	static const char *const TEXTS[] = {"",
	                                    "\n",
	                                    ":",
	                                    "0-",
	                                    "-1",
	                                    "9-1",
	                                    "0-99999999999999999999",
	                                    "nan inf",
	                                    "\033[2J\x9b!\xff",
	                                    "flags :",
	                                    "Cpus_allowed_list:\t,\n",
	                                    "MemTotal: -5 kB\nMemAvailable: 1e999 kB\n",
	                                    "1:\n0::\n::::\n",
	                                    "[",
	                                    "]["};
	for (size_t t = 0; t <= sizeof(TEXTS) / sizeof(TEXTS[0]); t++) {
		for (size_t p = 0; p < sizeof(PATHS) / sizeof(PATHS[0]); p++)
			put(PATHS[p], t < sizeof(TEXTS) / sizeof(TEXTS[0]) ? TEXTS[t] : big);
		n = nx_doctor_run(&d, checks);
		for (size_t i = 0; i < n; i++) {
			ck_assert_msg(checks[i].found[0], "%s found nothing", checks[i].name);
			for (const char *s = checks[i].found; *s; s++)
				ck_assert_msg((unsigned char)*s >= 32 && (unsigned char)*s < 127,
				              "%s: byte %02x", checks[i].name, (unsigned char)*s);
		}
	}
	free(big);
}
END_TEST

START_TEST(an_empty_machine_is_unknown_and_no_crash)
{
	d.root = "/nonexistent-root";
	n = nx_doctor_run(&d, checks);
	ck_assert_uint_ge(n, 15);
	for (size_t i = 0; i < n; i++)
		ck_assert(checks[i].found[0]);
}
END_TEST

START_TEST(the_verb_gives_clean_output)
{
	ck_assert_int_eq(cli_run(&c, "", "doctor --format json"), 0);
	json_t *j = json_loads(c.out, 0, NULL), *row;
	ck_assert_msg(json_is_array(j) && json_array_size(j) >= 15, "%s", c.out);
	size_t i;
	json_array_foreach(j, i, row)
		ck_assert_ptr_nonnull(json_string_value(json_object_get(row, "found")));
	json_decref(j);
	ck_assert_int_eq(cli_run(&c, "", "doctor --format csv"), 0);
	ck_assert_ptr_eq(strstr(c.out, "check,state,needed,found,lacks,costs,remedy\n"), c.out);
	ck_assert_int_eq(cli_run(&c, "", "doctor"), 0);
	ck_assert_ptr_nonnull(strstr(c.out, "backend"));
	ck_assert_int_eq(cli_run(&c, "", "doctor --device gpu"), 2);
	ck_assert_ptr_nonnull(strstr(c.err, "cpu, cuda and cuda:N"));
	ck_assert_int_eq(cli_run(&c, "", "doctor --formt md"), 2);
	ck_assert_ptr_nonnull(strstr(c.err, "did you mean '--format'"));
	ck_assert_int_eq(cli_run(&c, "", "doctor extra"), 2);
	/* No cuda backend is built here, with or without a GPU. */
	ck_assert_int_eq(cli_run(&c, "", "doctor --device cuda:7 --format md"), 3);
	ck_assert_ptr_nonnull(strstr(c.out, "missing"));
	ck_assert(!cli_exists(&c, "results")); /* it looks, and leaves nothing */
}
END_TEST

int main(void)
{
	Suite *s = suite_create("doctor");
	TCase *t = tcase_create("doctor");
	tcase_add_checked_fixture(t, setup, teardown);
	tcase_set_timeout(t, 60);
	tcase_add_test(t, a_good_machine_has_nothing_to_say);
	tcase_add_test(t, instructions_are_those_the_backend_would_take);
	tcase_add_test(t, what_may_not_be_used_is_counted);
	tcase_add_test(t, control_groups_of_the_first_version_are_read_too);
	tcase_add_test(t, what_moves_clocks_is_named_with_its_remedy);
	tcase_add_test(t, memory_and_counters_are_checked);
	tcase_add_test(t, a_folder_that_cannot_be_written_is_fatal);
	tcase_add_test(t, gnuplot_is_looked_for_and_not_needed);
	tcase_add_test(t, a_gpu_has_driver_and_permissions);
	tcase_add_test(t, a_gpu_that_is_asked_for_is_needed);
	tcase_add_test(t, hostile_files_are_cut_and_cleaned);
	tcase_add_test(t, an_empty_machine_is_unknown_and_no_crash);
	tcase_add_test(t, the_verb_gives_clean_output);
	suite_add_tcase(s, t);
	SRunner *r = srunner_create(s);
	srunner_run_all(r, CK_NORMAL);
	int failed = srunner_ntests_failed(r);
	srunner_free(r);
	return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}
