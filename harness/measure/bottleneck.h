/* SPDX-License-Identifier: Apache-2.0
 *
 * measure/bottleneck.h: from the figures of a phase to what bounds it, the evidence, and what would help.
 *
 * A pure function of its figures, for any device: bytes may be counted or measured, and what a device does
 * not have (launches on a CPU) is NaN. The rules, in order:
 *
 *   capacity    sequences were preempted, or waited while the KV pool was full and fewer ran than the batch
 *               asks for, or nearly all of the device's memory is taken
 *   otherwise   each of bandwidth, compute (fractions of their calibrated peaks), host and launch (fractions
 *               of the step time) is a candidate; the largest is the bound when it is at least
 *               NX_BOUND_LEAST and NX_BOUND_LEAD times the next
 *   mixed       no candidate stands out: "no single bound", with all of them
 *   unknown     there is no time, or nothing to hold it against
 *
 * A fraction above NX_BOUND_ABOVE is flagged and kept as it is: then the count, the peak or the level that
 * the peak was measured in is wrong.
 */
#ifndef NEXUS_MEASURE_BOTTLENECK_H
#define NEXUS_MEASURE_BOTTLENECK_H

#include <stdbool.h>
#include <stddef.h>

#define NX_BOUND_LEAST 0.4
#define NX_BOUND_LEAD 1.25
#define NX_BOUND_ABOVE 1.05
#define NX_BOUND_FULL 0.9    /* of the KV pool */
#define NX_BOUND_MEMORY 0.95 /* of the device's memory */
/* What was measured over what was counted: outside of these the two tell different stories. */
#define NX_BOUND_FAR_ABOVE 1.3
#define NX_BOUND_FAR_BELOW 0.77

/* X(ID, name) */
#define NX_BOUNDS(X)                                                                               \
	X(UNKNOWN, "unknown")                                                                      \
	X(CAPACITY, "capacity")                                                                    \
	X(BANDWIDTH, "bandwidth")                                                                  \
	X(COMPUTE, "compute")                                                                      \
	X(HOST, "host")                                                                            \
	X(LAUNCH, "launch")                                                                        \
	X(MIXED, "no single bound")

enum nx_bound {
#define X(id, name) NX_BOUND_##id,
	NX_BOUNDS(X)
#undef X
		NX_BOUND_COUNT
};
const char *nx_bound_name(enum nx_bound b);

/* X(ID, name): what bytes are moved for. */
#define NX_TRAFFICS(X)                                                                             \
	X(WEIGHTS, "weights")                                                                      \
	X(KV, "KV")                                                                                \
	X(ACTIVATIONS, "activations")

enum nx_traffic {
#define X(id, name) NX_TRAFFIC_##id,
	NX_TRAFFICS(X)
#undef X
		NX_TRAFFIC_COUNT
};

const char *nx_traffic_name(enum nx_traffic t);

/* Of all steps of one phase. 0 = none, NaN = not known, but where a line says otherwise. */
struct nx_bound_figures {
	const char *phase; /* subject of the sentences: "decode" */
	bool disturbed; /* other processes took part of the machine: said, and idleness advised */
	const char *stack;  /* techniques of the stack, which are not advised again; NULL = none */
	bool prompt;        /* most rows are of prompts: another advice */
	const char *source; /* of the bytes: "counted", "perf", "cupti" */
	double time_s;      /* of the steps */
	double host_s;      /* of it: planning, while the device waits */
	double launch_s;    /* of it: gaps between launches; NaN = the device has none */
	double bytes[NX_TRAFFIC_COUNT]; /* that operations had to move at least: counted */
	double moved_bytes; /* that moved, where a counter says so; NaN = bytes stand for them */
	double flops;       /* that the work needs: counted */
	double moved_flops; /* that a counter saw; 0 or NaN = none */
	double peak_bytes_per_s, peak_flops_per_s; /* calibrated; 0 = not measured */
	const char *level;                         /* of peak_bytes_per_s: "memory" */
	double steps, rows, pad_rows;              /* sums */
	double tile_rows;     /* that the device multiplies together, full or not; 0 = not known */
	double needed_rows;   /* that a KV cache leaves to compute; 0 = not known */
	double seqs, waiting; /* means over steps */
	double batch;         /* sequences that the load keeps in flight */
	double preempted;
	double kv_held, kv_total;       /* rows, most */
	double mem_bytes, device_bytes; /* reserved by all owners; of the device, 0 = not known */
};

#define NX_BOUND_HELPS 8

struct nx_bottleneck {
	enum nx_bound bound;
	enum nx_bound nearest;   /* MIXED: the largest candidate */
	enum nx_traffic traffic; /* most bytes */
	double share[NX_TRAFFIC_COUNT];
	double bandwidth, compute, host, launch, memory; /* fractions; NaN = not known */
	double bytes_per_s, flops_per_s;                 /* achieved */
	double intensity, balance; /* flop a byte: of the phase; of the device's peaks */
	double moved_over_counted; /* bytes; NaN = nothing was measured */
	double flops_over_counted; /* NaN, likewise */
	bool far_bytes, far_flops; /* these are far from 1 */
	bool above_bandwidth, above_compute;
	char why[640];                          /* one sentence: the bound and its evidence */
	char helps[512];                        /* one sentence: what would help */
	const char *techniques[NX_BOUND_HELPS]; /* named in it */
	size_t n_techniques;
};

void nx_bottleneck_find(const struct nx_bound_figures *f, struct nx_bottleneck *out);

#endif
