/* SPDX-License-Identifier: Apache-2.0
 *
 * measure/doctor_internal.h: what the files of checks share. Private.
 *
 * doctor.c          the table, files under the root
 * doctor_cpu.c      processors        doctor_memory.c  memory
 * doctor_system.c   counters, load, disk, programs, backend
 * doctor_gpu.c      GPU, driver, its libraries and permissions
 */
#ifndef NEXUS_MEASURE_DOCTOR_INTERNAL_H
#define NEXUS_MEASURE_DOCTOR_INTERNAL_H

#include <stdint.h>

#include "measure/doctor.h"
#include "nexus/err.h"

/* X(function's end, name). */
#define NX_DOCTOR_CHECKS(X)                                                                        \
	X(backend, "backend")                                                                      \
	X(isa, "instructions")                                                                     \
	X(cores, "cores")                                                                          \
	X(quota, "cpu quota")                                                                      \
	X(smt, "smt")                                                                              \
	X(governor, "governor")                                                                    \
	X(turbo, "turbo")                                                                          \
	X(numa, "numa")                                                                            \
	X(load, "other load")                                                                      \
	X(clock, "clock")                                                                          \
	X(memory, "memory")                                                                        \
	X(memory_limit, "memory limit")                                                            \
	X(thp, "huge pages")                                                                       \
	X(perf, "perf events")                                                                     \
	X(results, "results")                                                                      \
	X(techniques, "techniques")                                                                \
	X(gnuplot, "gnuplot")                                                                      \
	X(gpu, "gpu")                                                                              \
	X(driver, "gpu driver")                                                                    \
	X(nvml, "gpu nvml")                                                                        \
	X(cupti, "gpu cupti")                                                                      \
	X(counters, "gpu counters")

#define X(fn, name) void nx_check_##fn(const struct nx_doctor *d, struct nx_check *c);
NX_DOCTOR_CHECKS(X)
#undef X

/* The checks behind "gpu" leave name NULL where there is none: one line says it all. */
bool nx_doctor_has_gpu(const struct nx_doctor *d);
bool nx_doctor_wants_gpu(const struct nx_doctor *d);
bool nx_doctor_live(const struct nx_doctor *d);

#define NX_DOCTOR_FILE_MAX (64 * 1024)
/* The first bytes of root + path, NUL-terminated; false when there is no such file. */
bool nx_doctor_read(const struct nx_doctor *d, const char *path, char *buf, size_t size);
/* Its first line. */
bool nx_doctor_line(const struct nx_doctor *d, const char *path, char *buf, size_t size);
/* What follows `key` and ':' on the line of path that begins with key. */
bool nx_doctor_keyed(const struct nx_doctor *d, const char *path, const char *key, char *buf,
                     size_t size);
/* A number at the start of the file; false when it has none ("max"). */
bool nx_doctor_number(const struct nx_doctor *d, const char *path, double *out);
bool nx_doctor_exists(const struct nx_doctor *d, const char *path);
/* Processors in a list such as "0-3,8"; -1 when it is none. */
int nx_doctor_count_list(const char *list);
/* The file `name` of this process's cgroup for controller ("cpu", "memory"), v2 or v1. */
bool nx_doctor_cgroup(const struct nx_doctor *d, const char *controller, const char *v2,
                      const char *v1, char *buf, size_t size);

#define NX_SET(member, ...) snprintf(c->member, sizeof(c->member), __VA_ARGS__)

#endif
