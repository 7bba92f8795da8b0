/* SPDX-License-Identifier: Apache-2.0
 *
 * measure/system.h: what the operating system knows about this machine and about the noise on it.
 *
 * All of it is read from /proc and /sys; what is not there reads as "unknown", 0 or -1, never as an
 * error (containers and other kernels hide much).
 */
#ifndef NEXUS_MEASURE_SYSTEM_H
#define NEXUS_MEASURE_SYSTEM_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* CPU time used so far, of the processors that the calling thread may run on and of this process. On a machine that is
 * shared out by affinity or cpusets, what runs on other processors is not counted. */
struct nx_cpu_sample {
	double wall_s, busy_s, own_s; /* busy_s < 0: /proc/stat cannot be read */
	double steal_s;               /* of busy_s: what the hypervisor gave to other machines */
};
void nx_cpu_sample(struct nx_cpu_sample *s);
/* Of these processors, how many others kept busy between two samples: 0 .. their number; NaN when unknown.
 * The kernel counts in ticks of 10 ms, so spans below a second are rough. */
double nx_cpu_load_other(const struct nx_cpu_sample *a, const struct nx_cpu_sample *b);

/* The part of it that the hypervisor took; NaN when unknown. */
double nx_cpu_load_stolen(const struct nx_cpu_sample *a, const struct nx_cpu_sample *b);

/* The process beside this one that used the processors most while we waited `seconds`. */
struct nx_busy {
	int pid;
	char name[32];
	double cores;
};
/* False when there is none, or /proc is hidden. */
bool nx_busiest_other(double seconds, struct nx_busy *out);

uint64_t nx_rss_bytes(void);      /* resident now */
uint64_t nx_rss_peak_bytes(void); /* most so far */
/* Thermal throttling events of all cores since boot; -1 when unknown. A rise during a trial =
 * throttled. */
int64_t nx_throttle_count(void);

/* X(ID, fact key, text): facts about the machine. */
#define NX_SYSTEM_FACTS(X)                                                                         \
	X(HOST, "host", "host name")                                                               \
	X(OS, "os", "PRETTY_NAME of /etc/os-release")                                              \
	X(KERNEL, "kernel", "uname -srm")                                                          \
	X(CPU, "cpu", "model name of /proc/cpuinfo")                                               \
	X(CORES, "cores", "processors online / that this process may use")                         \
	X(MICROCODE, "microcode", "of /proc/cpuinfo")                                              \
	X(MEMORY, "memory_bytes", "MemTotal of /proc/meminfo")                                     \
	X(THP, "transparent_hugepages", "the bracketed word is in force")                          \
	X(GOVERNOR, "cpu_governor", "scaling_governor of cpu0")                                    \
	X(SMT, "smt_active", "1 = hardware threads share cores")

enum nx_system_fact {
#define X(id, key, text) NX_SYSTEM_##id,
	NX_SYSTEM_FACTS(X)
#undef X
		NX_SYSTEM_COUNT
};
/* Fills buf, "unknown" when there is nothing; returns buf. */
const char *nx_system_fact(enum nx_system_fact f, char *buf, size_t size);
const char *nx_system_key(enum nx_system_fact f);

#endif
