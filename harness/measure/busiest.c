/* SPDX-License-Identifier: Apache-2.0
 *
 * busiest.c: which other process keeps the machine busy: see system.h.
 */
#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "measure/system.h"

struct proc {
	int pid;
	unsigned long long ticks;
	char name[32];
};

struct procs {
	struct proc *v;
	size_t n, cap;
};

/* One line of /proc/PID/stat: "pid (name) state ..."; the name may hold blanks and brackets. */
static bool read_proc(const char *pid, struct proc *p)
{
	char path[300], line[1024];
	unsigned long long user, sys;
	snprintf(path, sizeof(path), "/proc/%s/stat", pid);
	FILE *f = fopen(path, "re");
	if (!f)
		return false;
	bool got = fgets(line, sizeof(line), f) != NULL;
	fclose(f);
	char *open = strchr(line, '('), *close = strrchr(line, ')');
	if (!got || !open || !close || close < open ||
	    sscanf(close + 1, " %*c %*d %*d %*d %*d %*d %*u %*u %*u %*u %*u %llu %llu", &user,
	           &sys) != 2)
		return false;
	*close = '\0';
	p->pid = (int)strtol(pid, NULL, 10);
	p->ticks = user + sys;
	snprintf(p->name, sizeof(p->name), "%.31s", open + 1);
	for (char *c = p->name; *c; c++)
		if ((unsigned char)*c < ' ' || *c == 0x7f)
			*c = '?';
	return true;
}

static void list(struct procs *out)
{
	DIR *d = opendir("/proc");
	const struct dirent *e;
	while (d && (e = readdir(d))) {
		if (e->d_name[0] < '0' || e->d_name[0] > '9')
			continue;
		if (out->n == out->cap) {
			size_t cap = out->cap ? 2 * out->cap : 256;
			struct proc *more = realloc(out->v, cap * sizeof(*more));
			if (!more)
				break;
			out->v = more;
			out->cap = cap;
		}
		out->n += read_proc(e->d_name, &out->v[out->n]);
	}
	if (d)
		closedir(d);
}

static unsigned long long ticks_before(const struct procs *p, int pid)
{
	for (size_t i = 0; i < p->n; i++)
		if (p->v[i].pid == pid)
			return p->v[i].ticks;
	return 0; /* it is new: all of it falls into the span */
}

bool nx_busiest_other(double seconds, struct nx_busy *out)
{
	struct procs a = {0}, b = {0};
	struct timespec wait = {.tv_sec = (time_t)seconds,
	                        .tv_nsec = (long)(1e9 * (seconds - (double)(time_t)seconds))};
	double per_s = (double)sysconf(_SC_CLK_TCK), most = 0;
	list(&a);
	nanosleep(&wait, NULL);
	list(&b);
	for (size_t i = 0; i < b.n; i++) {
		unsigned long long was = ticks_before(&a, b.v[i].pid);
		double ticks = b.v[i].ticks > was ? (double)(b.v[i].ticks - was) : 0;
		if (b.v[i].pid == (int)getpid() || ticks <= most)
			continue;
		most = ticks;
		out->pid = b.v[i].pid;
		memcpy(out->name, b.v[i].name, sizeof(out->name));
		out->cores = ticks / per_s / seconds;
	}
	free(a.v);
	free(b.v);
	return most > 0;
}
