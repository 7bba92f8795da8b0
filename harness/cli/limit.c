/* SPDX-License-Identifier: Apache-2.0
 *
 * limit.c: see limit.h.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>

#include "base/text.h"
#include "cli/limit.h"

/* A number in a file of one line; UINT64_MAX when there is none ("max"). */
static uint64_t number_in(const char *path)
{
	unsigned long long v;
	FILE *f = fopen(path, "re");
	if (!f)
		return UINT64_MAX;
	int n = fscanf(f, "%llu", &v);
	fclose(f);
	return n == 1 ? v : UINT64_MAX;
}

/* Room in this process's own cgroup (v2; inside a container it is the root of what can be seen). */
static uint64_t cgroup_room(void)
{
	char line[512], path[640], dir[512] = "";
	FILE *f = fopen("/proc/self/cgroup", "re");
	while (f && fgets(line, sizeof(line), f))
		if (!strncmp(line, "0::", 3))
			snprintf(dir, sizeof(dir), "%.*s", (int)strcspn(line + 3, "\n"), line + 3);
	if (f)
		fclose(f);
	snprintf(path, sizeof(path), "/sys/fs/cgroup%s/memory.max", dir);
	uint64_t max = number_in(path);
	snprintf(path, sizeof(path), "/sys/fs/cgroup%s/memory.current", dir);
	uint64_t used = number_in(path);
	if (max == UINT64_MAX || used == UINT64_MAX)
		return UINT64_MAX;
	return max > used ? max - used : 0;
}

uint64_t nx_memory_available(void)
{
	char line[256];
	unsigned long long kib = 0;
	FILE *f = fopen("/proc/meminfo", "re");
	while (f && fgets(line, sizeof(line), f))
		if (sscanf(line, "MemAvailable: %llu kB", &kib) == 1)
			break;
	if (f)
		fclose(f);
	uint64_t machine = kib ? (uint64_t)kib << 10 : UINT64_MAX, group = cgroup_room();
	uint64_t least = machine < group ? machine : group;
	return least == UINT64_MAX ? 0 : least;
}

uint64_t nx_oom_kills(void)
{
	char line[256];
	unsigned long long n = UINT64_MAX;
	FILE *f = fopen("/proc/vmstat", "re");
	while (f && fgets(line, sizeof(line), f))
		if (sscanf(line, "oom_kill %llu", &n) == 1)
			break;
	if (f)
		fclose(f);
	return n;
}

uint64_t nx_memory_limit(void)
{
	uint64_t limit = nx_memory_available() / 10 * 9, asked = 0;
	const char *text = getenv("NEXUS_MEMORY_LIMIT");
	if (text && !nx_parse_size(text, &asked) && asked && (!limit || asked < limit))
		limit = asked;
	if (!limit)
		return 0;
	FILE *f = fopen("/proc/self/oom_score_adj", "we");
	if (f) {
		fputs("1000", f);
		fclose(f);
	}
#ifndef __SANITIZE_ADDRESS__ /* whose shadow memory alone is far above any limit */
	/* DATA and not AS: mapped files and a GPU's address reservations are no memory. */
	struct rlimit l = {limit, limit};
	if (setrlimit(RLIMIT_DATA, &l))
		return 0;
#endif
	return limit;
}
