/* SPDX-License-Identifier: Apache-2.0
 *
 * doctor_system.c: counters, other load, the disk, programs, and what this program is made of.
 */
#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <time.h>
#include <unistd.h>

#include "base/text.h"
#include "engine/clock.h"
#include "measure/doctor_internal.h"
#include "measure/perf.h"
#include "measure/runner.h"
#include "measure/system.h"

#define LOAD_SAMPLE_NS 400000000
#define LEAST_DISK (1024.0 * 1024 * 1024)
#define SLOW_SYNC_S 0.5
#define SYNC_BYTES (1 << 20)

void nx_check_backend(const struct nx_doctor *d, struct nx_check *c)
{
	struct nx_device dev;
	struct nx_device_info info;
	struct nx_err err = {0};
	const struct nx_device_config dc = {.dtype = NX_BF16};
	c->fatal = true;
	if (!nx_doctor_live(d)) {
		NX_SET(found, "not tried");
		return;
	}
	if (nx_device_open(&dev, d->device, &dc, d->exe_dir, &err)) {
		c->state = NX_CHECK_MISSING;
		NX_SET(found, "%s", err.msg);
		NX_SET(lacks, "the backend of device %s", d->device);
		NX_SET(costs, "nothing can be run on it");
		if (!nx_doctor_wants_gpu(d))
			NX_SET(remedy, "make");
		return;
	}
	dev.ops->info(dev.dev, &info);
	/* The backend tries the library when it opens, and leaves it where it is no faster. */
	NX_SET(found, "%s, %s kernels, %d threads, %s", info.name, info.isa, info.n_units,
	       info.blas[0] ? info.blas : "own products alone (no library, or none faster here)");
	nx_device_close(&dev);
}

void nx_check_load(const struct nx_doctor *d, struct nx_check *c)
{
	double load = NAN;
	if (nx_doctor_live(d)) {
		struct nx_cpu_sample a, b;
		const struct timespec t = {.tv_nsec = LOAD_SAMPLE_NS};
		nx_cpu_sample(&a);
		nanosleep(&t, NULL);
		nx_cpu_sample(&b);
		load = nx_cpu_load_other(&a, &b);
		NX_SET(found, "other processes take %.2f cores now", load);
	}
	if (!isfinite(load)) {
		double average;
		if (!nx_doctor_number(d, "/proc/loadavg", &average) || !isfinite(average)) {
			NX_SET(found, "unknown");
			return;
		}
		load = average;
		NX_SET(found, "%.2f processes ran on average in the last minute", load);
	}
	if (load <= NX_LOAD_OTHER_MAX)
		return;
	c->state = NX_CHECK_WARN;
	NX_SET(lacks, "an idle machine (at most %.1f cores for others)", NX_LOAD_OTHER_MAX);
	NX_SET(costs,
	       "threads wait for each other at every operation: trials are slower, differ, and count as throttled");
	NX_SET(remedy, "stop what `top` shows");
}

void nx_check_perf(const struct nx_doctor *d, struct nx_check *c)
{
	double level;
	char paranoid[96] = "perf_event_paranoid is unknown";
	bool strict = false;
	if (nx_doctor_number(d, "/proc/sys/kernel/perf_event_paranoid", &level)) {
		strict = level > 2;
		snprintf(paranoid, sizeof(paranoid), "perf_event_paranoid is %.0f", level);
	}
	struct nx_perf p = {.reason = ""};
	if (nx_doctor_live(d)) {
		nx_perf_open(&p);
		nx_perf_close(&p);
	} else if (strict) {
		snprintf(p.reason, sizeof(p.reason), "not allowed");
	}
	if (!p.reason[0]) {
		NX_SET(found, "cycles, instructions and cache misses can be counted; %s", paranoid);
		return;
	}
	c->state = NX_CHECK_WARN;
	NX_SET(found, "%s; %.200s", paranoid, p.reason);
	NX_SET(lacks, "hardware counters");
	NX_SET(costs, "bytes and utilisation are counted, not measured; cycles and misses are NaN");
	NX_SET(remedy, "%s",
	       strict ? "sudo sysctl kernel.perf_event_paranoid=2"
	              : "a host, or a guest with a virtual PMU (qemu -cpu host,pmu=on); in a container allow perf_event_open");
}

/* 0, or errno of what failed; *s: how long the sync took. */
static int try_sync(const char *dir, double *s)
{
	char path[1024], *data = calloc(1, SYNC_BYTES);
	int rc = 0;
	*s = 0;
	if (!data ||
	    snprintf(path, sizeof(path), "%s/.nexus-doctor-XXXXXX", dir) >= (int)sizeof(path)) {
		free(data);
		return data ? ENAMETOOLONG : ENOMEM;
	}
	int fd = mkstemp(path);
	if (fd < 0) {
		rc = errno;
	} else {
		uint64_t t = nx_now_ns();
		errno = 0;
		if (write(fd, data, SYNC_BYTES) != SYNC_BYTES || fsync(fd))
			rc = errno ? errno : ENOSPC;
		*s = 1e-9 * (double)(nx_now_ns() - t);
		close(fd);
		unlink(path);
	}
	free(data);
	return rc;
}

void nx_check_results(const struct nx_doctor *d, struct nx_check *c)
{
	struct stat st;
	struct statvfs vfs;
	const char *dir = d->results ? d->results : "results";
	bool made = !stat(dir, &st) && S_ISDIR(st.st_mode);
	const char *where = made ? dir : "."; /* `run` makes results/ */
	double s;
	c->fatal = true;
	int rc = try_sync(where, &s);
	if (rc || statvfs(where, &vfs)) {
		char quoted[96];
		c->state = NX_CHECK_MISSING;
		NX_SET(found, "a file in %s cannot be written and synced: %s",
		       nx_quote(quoted, sizeof(quoted), where), strerror(rc ? rc : errno));
		NX_SET(lacks, "a folder that run files can be written to");
		NX_SET(costs, "no run can keep its results");
		NX_SET(remedy, "run from a folder of your own, or give -o");
		return;
	}
	double room = (double)vfs.f_bavail * (double)vfs.f_frsize;
	NX_SET(found, "%.1f GiB free, 1 MiB is synced in %.0f ms%s", room / LEAST_DISK, 1e3 * s,
	       made ? "" : "; results/ will be made");
	if (room < LEAST_DISK) {
		c->state = NX_CHECK_WARN;
		NX_SET(lacks, "1 GiB of room");
		NX_SET(costs, "a long sweep may stop for want of room; its finished trials stay");
		NX_SET(remedy, "rm results/*.h5 that are not needed, or -o on another disk");
	} else if (s > SLOW_SYNC_S) {
		c->state = NX_CHECK_WARN;
		NX_SET(lacks, "a disk that syncs 1 MiB in %.0f ms", 1e3 * SLOW_SYNC_S);
		NX_SET(costs, "no figure, but each trial ends by waiting so long");
		NX_SET(remedy, "-o on a local disk");
	}
}

void nx_check_techniques(const struct nx_doctor *d, struct nx_check *c)
{
	struct nx_registry *reg = NULL;
	struct nx_err err = {0};
	if (!nx_doctor_live(d)) {
		NX_SET(found, "not tried");
		return;
	}
	if (nx_registry_open(&reg, NULL, 0, d->exe_dir, &err)) {
		c->state = NX_CHECK_MISSING;
		c->fatal = true;
		NX_SET(found, "%s", err.msg);
		NX_SET(costs, "no stack can be run");
		NX_SET(remedy, "make");
		return;
	}
	size_t n = 0, bad = 0;
	for (size_t i = 0; i < nx_registry_count(reg); i++) {
		bool good = nx_registry_at(reg, i)->technique != NULL;
		n += good;
		bad += !good;
	}
	NX_SET(found, "%zu", n);
	if (!n || bad) {
		c->state = NX_CHECK_WARN;
		if (n)
			NX_SET(lacks, "%zu plugins that were rejected", bad);
		else
			NX_SET(lacks, "techniques to compare");
		NX_SET(costs, "stacks that name them are refused");
		NX_SET(remedy, "%s", n ? "nexus list, which says why" : "make");
	}
	nx_registry_close(reg);
}

void nx_check_gnuplot(const struct nx_doctor *d, struct nx_check *c)
{
	char path[1024];
	for (const char *p = d->path ? d->path : ""; *p;) {
		int n = (int)strcspn(p, ":");
		struct stat st;
		if (n && snprintf(path, sizeof(path), "%.*s/gnuplot", n, p) < (int)sizeof(path) &&
		    !access(path, X_OK) && !stat(path, &st) && S_ISREG(st.st_mode)) {
			NX_SET(found, "%.300s", path);
			return;
		}
		p += n + (p[n] == ':');
	}
	c->state = NX_CHECK_MISSING;
	NX_SET(found, "not in $PATH");
	NX_SET(lacks, "gnuplot");
	NX_SET(costs, "no figure; `nexus plot` and the plots of reports");
	NX_SET(remedy, "sudo apt-get install gnuplot-nox");
}
