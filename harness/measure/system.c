/* SPDX-License-Identifier: Apache-2.0 */
/* See system.h. */
#define _GNU_SOURCE /* sched_getaffinity */
#include "measure/system.h"

#include <math.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/utsname.h>
#include <time.h>
#include <unistd.h>

static double clock_s(clockid_t id)
{
	struct timespec t;
	return clock_gettime(id, &t) ? 0 : (double)t.tv_sec + (double)t.tv_nsec * 1e-9;
}

/* Adds a line of /proc/stat, all numbers after its name, to s [ticks]. */
static bool add_cpu_line(struct nx_cpu_sample *s, const char *numbers)
{
	unsigned long long user, nice, sys, idle, wait, irq, soft, steal;

	if (sscanf(numbers, "%llu %llu %llu %llu %llu %llu %llu %llu", &user, &nice, &sys, &idle,
	           &wait, &irq, &soft, &steal) != 8)
		return false;
	s->busy_s += (double)(user + nice + sys + irq + soft + steal);
	s->steal_s += (double)steal;
	return true;
}

void nx_cpu_sample(struct nx_cpu_sample *s)
{
	long ticks = sysconf(_SC_CLK_TCK);
	FILE *f = fopen("/proc/stat", "re");
	char line[512];
	int n_lines = 0;
	cpu_set_t mine;
	/* More processors than a set holds: those of the whole machine. */
	bool all = sched_getaffinity(0, sizeof(mine), &mine) != 0;

	s->busy_s = s->steal_s = 0;
	while (f && ticks > 0 && fgets(line, sizeof(line), f) && strncmp(line, "cpu", 3) == 0) {
		char *end = line + 3;
		long cpu = line[3] == ' ' ? -1 : strtol(line + 3, &end, 10);
		bool counts =
			all ? cpu < 0 : cpu >= 0 && cpu < CPU_SETSIZE && CPU_ISSET(cpu, &mine);
		n_lines += counts && add_cpu_line(s, end);
	}
	if (f)
		fclose(f);
	s->busy_s = n_lines ? s->busy_s / (double)ticks : -1;
	s->steal_s = n_lines ? s->steal_s / (double)ticks : 0;
	s->own_s = clock_s(CLOCK_PROCESS_CPUTIME_ID);
	s->wall_s = clock_s(CLOCK_MONOTONIC);
}

double nx_cpu_load_other(const struct nx_cpu_sample *a, const struct nx_cpu_sample *b)
{
	double wall = b->wall_s - a->wall_s;

	if (a->busy_s < 0 || b->busy_s < 0 || wall <= 0)
		return NAN;
	return fmax(0, (b->busy_s - a->busy_s - (b->own_s - a->own_s)) / wall);
}

double nx_cpu_load_stolen(const struct nx_cpu_sample *a, const struct nx_cpu_sample *b)
{
	double wall = b->wall_s - a->wall_s;

	return a->busy_s < 0 || b->busy_s < 0 || wall <= 0 ? NAN : (b->steal_s - a->steal_s) / wall;
}

uint64_t nx_rss_bytes(void)
{
	unsigned long long size, resident = 0;
	FILE *f = fopen("/proc/self/statm", "re");

	if (!f)
		return 0;
	if (fscanf(f, "%llu %llu", &size, &resident) != 2)
		resident = 0;
	fclose(f);
	return resident * (uint64_t)sysconf(_SC_PAGESIZE);
}

uint64_t nx_rss_peak_bytes(void)
{
	struct rusage u;
	return getrusage(RUSAGE_SELF, &u) ? 0 : (uint64_t)u.ru_maxrss * 1024u;
}

/* First line of a file without its newline; "" when there is none. */
static void first_line(const char *path, char *buf, size_t size)
{
	FILE *f = fopen(path, "re");

	buf[0] = '\0';
	if (!f)
		return;
	if (!fgets(buf, (int)size, f))
		buf[0] = '\0';
	buf[strcspn(buf, "\n")] = '\0';
	fclose(f);
}

/* The rest of the first line that starts with key, past blanks, `sep` and quotes. */
static void keyed_line(const char *path, const char *key, char sep, char *buf, size_t size)
{
	char line[512];
	FILE *f = fopen(path, "re");

	buf[0] = '\0';
	if (!f)
		return;
	while (!buf[0] && fgets(line, sizeof(line), f)) {
		char *at = strchr(line, sep);
		if (strncmp(line, key, strlen(key)) != 0 || !at)
			continue;
		at += 1 + strspn(at + 1, " \t\"");
		at[strcspn(at, "\"\n")] = '\0';
		snprintf(buf, size, "%s", at);
	}
	fclose(f);
}

int64_t nx_throttle_count(void)
{
	int64_t sum = -1;
	char path[96], text[32];
	long n = sysconf(_SC_NPROCESSORS_CONF);

	for (long i = 0; i < n; i++) {
		snprintf(path, sizeof(path),
		         "/sys/devices/system/cpu/cpu%ld/thermal_throttle/core_throttle_count", i);
		first_line(path, text, sizeof(text));
		if (text[0])
			sum = (sum < 0 ? 0 : sum) + strtoll(text, NULL, 10);
	}
	return sum;
}

static const char *const keys[] = {
#define X(id, key, text) key,
	NX_SYSTEM_FACTS(X)
#undef X
};

const char *nx_system_key(enum nx_system_fact f)
{
	return (int)f >= 0 && f < NX_SYSTEM_COUNT ? keys[f] : "unknown";
}

const char *nx_system_fact(enum nx_system_fact f, char *buf, size_t size)
{
	struct utsname u;
	cpu_set_t set;

	buf[0] = '\0';
	switch (f) {
	case NX_SYSTEM_HOST:
		if (uname(&u) == 0)
			snprintf(buf, size, "%s", u.nodename);
		break;
	case NX_SYSTEM_OS: keyed_line("/etc/os-release", "PRETTY_NAME", '=', buf, size); break;
	case NX_SYSTEM_KERNEL:
		if (uname(&u) == 0)
			snprintf(buf, size, "%s %s %s", u.sysname, u.release, u.machine);
		break;
	case NX_SYSTEM_CPU: keyed_line("/proc/cpuinfo", "model name", ':', buf, size); break;
	case NX_SYSTEM_CORES:
		if (sched_getaffinity(0, sizeof(set), &set) == 0)
			snprintf(buf, size, "%ld / %d", sysconf(_SC_NPROCESSORS_ONLN),
			         CPU_COUNT(&set));
		break;
	case NX_SYSTEM_MICROCODE: keyed_line("/proc/cpuinfo", "microcode", ':', buf, size); break;
	case NX_SYSTEM_MEMORY:
		keyed_line("/proc/meminfo", "MemTotal", ':', buf, size);
		if (buf[0])
			snprintf(buf, size, "%llu", strtoull(buf, NULL, 10) * 1024);
		break;
	case NX_SYSTEM_THP:
		first_line("/sys/kernel/mm/transparent_hugepage/enabled", buf, size);
		break;
	case NX_SYSTEM_GOVERNOR:
		first_line("/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor", buf, size);
		break;
	case NX_SYSTEM_SMT: first_line("/sys/devices/system/cpu/smt/active", buf, size); break;
	case NX_SYSTEM_COUNT: break;
	}
	if (!buf[0])
		snprintf(buf, size, "unknown");
	return buf;
}
