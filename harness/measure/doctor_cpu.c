/* SPDX-License-Identifier: Apache-2.0
 *
 * doctor_cpu.c: processors: what they can do, how many there are for us, and what makes their speed change.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "measure/doctor_internal.h"

/* Is the word in a list that blanks separate? */
static bool has_word(const char *list, const char *word)
{
	size_t n = strlen(word);
	for (const char *p = list; (p = strstr(p, word)); p += n)
		if ((p == list || p[-1] == ' ') && (p[n] == ' ' || p[n] == '\0'))
			return true;
	return false;
}

static bool has_all(const char *list, const char *const *words)
{
	for (; *words; words++)
		if (!has_word(list, *words))
			return false;
	return true;
}

/* The same choice as kernels/cpu/backend.c makes, from the kernel's names of the features. */
void nx_check_isa(const struct nx_doctor *d, struct nx_check *c)
{
	static const char *const avx2[] = {"avx2", "fma", "f16c", NULL};
	static const char *const avx512[] = {"avx512f", "avx512bw", "avx512vl", "avx512dq", NULL};
	char flags[8192];
	if (!nx_doctor_keyed(d, "/proc/cpuinfo", "flags", flags, sizeof(flags))) {
		c->state = NX_CHECK_WARN;
		NX_SET(found, "ref: /proc/cpuinfo shows no x86 features");
		NX_SET(lacks, "AVX2");
		NX_SET(costs, "only the plain C kernels run, many times slower");
		return;
	}
	bool has2 = has_all(flags, avx2), has512 = has2 && has_all(flags, avx512);
	bool bf16 = has512 && has_word(flags, "avx512_bf16");
	bool amx = has_word(flags, "amx_tile") && has_word(flags, "amx_bf16");
	NX_SET(found, "%s", bf16 ? "avx512bf16" : has512 ? "avx512" : has2 ? "avx2" : "ref");
	if (bf16 && amx)
		return;
	snprintf(c->lacks, sizeof(c->lacks), "%s%s%s%s", has2 ? "" : "AVX2, ",
	         has512 ? "" : "AVX-512, ", bf16 ? "" : "AVX512-BF16, ", amx ? "" : "AMX-BF16, ");
	c->lacks[strlen(c->lacks) - 2] = '\0';
	c->state = has512 ? NX_CHECK_OK : NX_CHECK_WARN;
	NX_SET(costs, "%s",
	       !has2     ? "only the plain C kernels run, many times slower"
	       : !has512 ? "half the width of a product: prefill is bound by compute sooner"
	       : !bf16 ? "bf16 products are computed in f32: lower peak for prefill, the same for decode"
	               : "the library's products run without tiles: lower peak for prefill");
}

static int allowed(const struct nx_doctor *d)
{
	char list[1024];
	return nx_doctor_keyed(d, "/proc/self/status", "Cpus_allowed_list", list, sizeof(list))
	               ? nx_doctor_count_list(list)
	               : -1;
}

static int online(const struct nx_doctor *d)
{
	char list[1024];
	return nx_doctor_line(d, "/sys/devices/system/cpu/online", list, sizeof(list))
	               ? nx_doctor_count_list(list)
	               : -1;
}

void nx_check_cores(const struct nx_doctor *d, struct nx_check *c)
{
	int mine = allowed(d), all = online(d);
	if (mine < 0 || all < 0) {
		c->state = NX_CHECK_WARN;
		NX_SET(found, "unknown");
		NX_SET(lacks, "what /proc/self/status and /sys/devices/system/cpu say");
		NX_SET(costs, "the number of threads may not fit the machine");
		return;
	}
	NX_SET(found, "%d of %d processors may be used", mine, all);
	if (mine >= all)
		return;
	c->state = NX_CHECK_WARN;
	NX_SET(lacks, "%d processors", all - mine);
	NX_SET(costs,
	       "figures are of a part of the machine, and others on the rest share its memory and caches");
	NX_SET(remedy, "start without taskset or cpuset, or keep the rest idle");
}

void nx_check_quota(const struct nx_doctor *d, struct nx_check *c)
{
	char text[64], *end;
	double quota = -1, period = 100000;
	if (nx_doctor_cgroup(d, "cpu", "cpu.max", NULL, text, sizeof(text))) {
		quota = strtod(text, &end);
		quota = end == text ? -1 : quota;
		double p = strtod(end, NULL);
		period = p > 0 ? p : period;
	} else if (nx_doctor_cgroup(d, "cpu", NULL, "cpu.cfs_quota_us", text, sizeof(text))) {
		quota = strtod(text, NULL);
		if (nx_doctor_cgroup(d, "cpu", NULL, "cpu.cfs_period_us", text, sizeof(text)) &&
		    strtod(text, NULL) > 0)
			period = strtod(text, NULL);
	} else {
		NX_SET(found, "no limit is visible");
		return;
	}
	int mine = allowed(d);
	if (!(quota > 0)) {
		NX_SET(found, "no limit");
		return;
	}
	NX_SET(found, "%.2g processors' time", quota / period);
	if (mine <= 0 || quota / period >= mine)
		return;
	c->state = NX_CHECK_WARN;
	NX_SET(lacks, "time for all of the %d processors", mine);
	NX_SET(costs,
	       "threads are stopped in the middle of steps: throughput drops and p99 latencies jump");
	NX_SET(remedy, "raise the container's limit (docker run --cpus), or --threads %d",
	       (int)(quota / period) > 0 ? (int)(quota / period) : 1);
}

void nx_check_smt(const struct nx_doctor *d, struct nx_check *c)
{
	char text[16];
	if (!nx_doctor_line(d, "/sys/devices/system/cpu/smt/active", text, sizeof(text))) {
		NX_SET(found, "unknown");
		return;
	}
	if (strcmp(text, "1")) {
		NX_SET(found, "off, or not visible to a guest");
		return;
	}
	c->state = NX_CHECK_WARN;
	NX_SET(found, "on: two threads share a core");
	NX_SET(lacks, "a core for each thread");
	NX_SET(costs,
	       "as many threads as processors fight for the units of a core: products slow down and vary");
	NX_SET(remedy, "echo off | sudo tee /sys/devices/system/cpu/smt/control");
}

void nx_check_governor(const struct nx_doctor *d, struct nx_check *c)
{
	char text[64];
	if (!nx_doctor_line(d, "/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor", text,
	                    sizeof(text))) {
		NX_SET(found, "not visible (a guest, or no cpufreq)");
		NX_SET(costs, "clocks may change without a trace here");
		return;
	}
	NX_SET(found, "%s", text);
	if (!strcmp(text, "performance"))
		return;
	c->state = NX_CHECK_WARN;
	NX_SET(lacks, "performance");
	NX_SET(costs,
	       "clocks rise only under load: short steps and first tokens are slower, and trials differ");
	NX_SET(remedy, "sudo cpupower frequency-set -g performance");
}

void nx_check_turbo(const struct nx_doctor *d, struct nx_check *c)
{
	double v;
	bool on;
	if (nx_doctor_number(d, "/sys/devices/system/cpu/intel_pstate/no_turbo", &v)) {
		on = v == 0;
		NX_SET(remedy, "echo 1 | sudo tee /sys/devices/system/cpu/intel_pstate/no_turbo");
	} else if (nx_doctor_number(d, "/sys/devices/system/cpu/cpufreq/boost", &v)) {
		on = v != 0;
		NX_SET(remedy, "echo 0 | sudo tee /sys/devices/system/cpu/cpufreq/boost");
	} else {
		NX_SET(found, "not visible (a guest, or no cpufreq)");
		return;
	}
	NX_SET(found, "%s", on ? "on" : "off");
	if (!on) {
		c->remedy[0] = '\0';
		return;
	}
	c->state = NX_CHECK_WARN;
	NX_SET(lacks, "a fixed clock");
	NX_SET(costs,
	       "the clock depends on heat and on how many cores work: later trials are slower than first ones");
}

void nx_check_numa(const struct nx_doctor *d, struct nx_check *c)
{
	char list[256];
	int n = nx_doctor_line(d, "/sys/devices/system/node/online", list, sizeof(list))
	                ? nx_doctor_count_list(list)
	                : -1;
	if (n < 0)
		NX_SET(found, "unknown");
	else
		NX_SET(found, "%d node%s", n, n == 1 ? "" : "s");
	if (n < 2)
		return;
	c->state = NX_CHECK_WARN;
	NX_SET(lacks, "one node for threads and weights");
	NX_SET(costs,
	       "a part of the weights is read across the link between nodes: bandwidth varies from start to start");
	NX_SET(remedy, "numactl --cpunodebind=0 --membind=0 build/nexus run ...");
}

void nx_check_clock(const struct nx_doctor *d, struct nx_check *c)
{
	char text[64];
	if (!nx_doctor_line(d, "/sys/devices/system/clocksource/clocksource0/current_clocksource",
	                    text, sizeof(text))) {
		c->state = NX_CHECK_WARN;
		NX_SET(found, "unknown");
		return;
	}
	NX_SET(found, "%s", text);
	if (!strcmp(text, "tsc") || !strcmp(text, "kvm-clock") ||
	    !strcmp(text, "arch_sys_counter") || !strncmp(text, "hyperv", 6))
		return;
	c->state = NX_CHECK_WARN;
	NX_SET(lacks, "tsc");
	NX_SET(costs,
	       "reading the time takes a system call or more: host share and short steps look longer");
	NX_SET(remedy,
	       "echo tsc | sudo tee /sys/devices/system/clocksource/clocksource0/current_clocksource");
}
