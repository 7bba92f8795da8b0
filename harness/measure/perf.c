/* SPDX-License-Identifier: Apache-2.0 */
/* See perf.h. */
#include "measure/perf.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#ifdef __linux__
#include <linux/perf_event.h>
#include <sys/syscall.h>

static const struct {
	const char *name;
	uint32_t type;
	uint64_t config;
} events[] = {
#define X(id, name, type, config) {name, type, config},
	NX_PERF_EVENTS(X)
#undef X
};

static const char *remedy(int error)
{
	switch (error) {
	case EACCES:
	case EPERM:
		return "lower /proc/sys/kernel/perf_event_paranoid to 2 or less, or allow perf_event_open in the "
		       "container";
	case ENOENT:
	case ENODEV:
	case EOPNOTSUPP: return "this processor or virtual machine has no such counter";
	case ENOSYS: return "this kernel is built without perf events";
	default: return "counted figures are used instead";
	}
}

void nx_perf_open(struct nx_perf *p)
{
	p->reason[0] = '\0';
	for (int i = 0; i < NX_PERF_COUNT; i++) {
		struct perf_event_attr attr;
		memset(&attr, 0, sizeof(attr));
		attr.size = sizeof(attr);
		attr.type = events[i].type;
		attr.config = events[i].config;
		attr.inherit = 1;
		attr.exclude_kernel = 1;
		attr.exclude_hv = 1;
		attr.read_format = PERF_FORMAT_TOTAL_TIME_ENABLED | PERF_FORMAT_TOTAL_TIME_RUNNING;
		p->fd[i] =
			(int)syscall(SYS_perf_event_open, &attr, 0, -1, -1, PERF_FLAG_FD_CLOEXEC);
		if (p->fd[i] < 0 && !p->reason[0])
			snprintf(p->reason, sizeof(p->reason), "no perf counter for %s: %s; %s",
			         events[i].name, strerror(errno), remedy(errno));
	}
}
#else
void nx_perf_open(struct nx_perf *p)
{
	for (int i = 0; i < NX_PERF_COUNT; i++)
		p->fd[i] = -1;
	snprintf(p->reason, sizeof(p->reason), "perf counters are a Linux interface");
}
#endif

void nx_perf_close(struct nx_perf *p)
{
	for (int i = 0; i < NX_PERF_COUNT; i++) {
		if (p->fd[i] >= 0)
			close(p->fd[i]);
		p->fd[i] = -1;
	}
}

void nx_perf_read(const struct nx_perf *p, int64_t count[NX_PERF_COUNT])
{
	for (int i = 0; i < NX_PERF_COUNT; i++) {
		uint64_t v[3]; /* value, time enabled, time running */
		count[i] = -1;
		if (p->fd[i] < 0 || read(p->fd[i], v, sizeof(v)) != (ssize_t)sizeof(v) || v[2] == 0)
			continue;
		count[i] = v[2] < v[1] ? (int64_t)((double)v[0] * ((double)v[1] / (double)v[2]))
		                       : (int64_t)v[0];
	}
}

int64_t nx_perf_delta(int64_t before, int64_t after)
{
	return before < 0 || after < before ? -1 : after - before;
}
