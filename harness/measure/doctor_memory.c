/* SPDX-License-Identifier: Apache-2.0
 *
 * doctor_memory.c: how much memory there is for us, and how its pages are made.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "measure/doctor_internal.h"

#define GIB (1024.0 * 1024 * 1024)
#define LEAST_BYTES (2 * GIB) /* what the embedded model's experiments take with room to spare */

/* Bytes of a line such as "MemTotal: 16318248 kB"; -1 when there is none. */
static double meminfo(const struct nx_doctor *d, const char *key)
{
	char text[64], *end;
	if (!nx_doctor_keyed(d, "/proc/meminfo", key, text, sizeof(text)))
		return -1;
	double kib = strtod(text, &end);
	return end == text || !(kib >= 0) ? -1 : kib * 1024;
}

void nx_check_memory(const struct nx_doctor *d, struct nx_check *c)
{
	double total = meminfo(d, "MemTotal"), left = meminfo(d, "MemAvailable");
	double swapped = meminfo(d, "SwapTotal") - meminfo(d, "SwapFree");
	if (total < 0 || left < 0) {
		c->state = NX_CHECK_WARN;
		NX_SET(found, "unknown");
		NX_SET(lacks, "MemTotal and MemAvailable of /proc/meminfo");
		NX_SET(costs, "cells that do not fit are found out by running into the limit");
		return;
	}
	NX_SET(found, "%.1f of %.1f GiB available", left / GIB, total / GIB);
	if (left < LEAST_BYTES) {
		c->state = NX_CHECK_WARN;
		NX_SET(lacks, "%.0f GiB", LEAST_BYTES / GIB);
		NX_SET(costs, "larger batches and contexts are skipped: they do not fit");
		NX_SET(remedy, "stop other processes: ps aux --sort=-rss | head");
	} else if (swapped > 0.05 * total) {
		c->state = NX_CHECK_WARN;
		NX_SET(lacks, "memory: %.1f GiB are swapped out", swapped / GIB);
		NX_SET(costs, "a page that comes back from disk in a step is in that step's time");
		NX_SET(remedy, "sudo swapoff -a, where there is room");
	}
}

void nx_check_memory_limit(const struct nx_doctor *d, struct nx_check *c)
{
	char text[64], *end;
	double total = meminfo(d, "MemTotal");
	if (!nx_doctor_cgroup(d, "memory", "memory.max", "memory.limit_in_bytes", text,
	                      sizeof(text))) {
		NX_SET(found, "no limit is visible");
		return;
	}
	double limit = strtod(text, &end);
	/* v2 says "max", v1 a number near 2^63. */
	if (end == text || !(limit > 0) || (total > 0 && limit >= total)) {
		NX_SET(found, "no limit below the machine's memory");
		return;
	}
	NX_SET(found, "%.1f GiB for this control group", limit / GIB);
	if (limit >= LEAST_BYTES)
		return;
	c->state = NX_CHECK_WARN;
	NX_SET(lacks, "%.0f GiB", LEAST_BYTES / GIB);
	NX_SET(costs, "larger batches and contexts are skipped, or their worker is killed");
	NX_SET(remedy, "raise the container's limit (docker run --memory)");
}

void nx_check_thp(const struct nx_doctor *d, struct nx_check *c)
{
	char text[128];
	if (!nx_doctor_line(d, "/sys/kernel/mm/transparent_hugepage/enabled", text, sizeof(text))) {
		NX_SET(found, "unknown");
		return;
	}
	char *open = strchr(text, '['), *close = open ? strchr(open, ']') : NULL;
	if (!close) {
		NX_SET(found, "not understood: %s", text);
		return;
	}
	*close = '\0';
	NX_SET(found, "%s", open + 1);
	if (strcmp(open + 1, "never"))
		return;
	c->state = NX_CHECK_WARN;
	NX_SET(lacks, "madvise or always");
	NX_SET(costs,
	       "pages of 4 KiB: address translation takes a part of the read rate of large weights");
	NX_SET(remedy, "echo madvise | sudo tee /sys/kernel/mm/transparent_hugepage/enabled");
}
