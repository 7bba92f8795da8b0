/* SPDX-License-Identifier: Apache-2.0
 *
 * measure/instrument.h: what a device's instruments say of a cell: counters of ranges of steps, the kernels of a
 * window of steps and the gaps between them, and how far looking disturbed what was looked at.
 *
 * The pass runs in a process that times nothing: one that has opened counters stays slower. It runs the requests of
 * round 0 again; the loop is deterministic, so its steps are those of the timed trial, which is verified (n_same).
 *
 *   trace      the engine as it is timed, and a window of NX_TRACE_STEPS decode steps traced from its middle
 *   time line  the engine as it is timed, all of it sampled, where the experiment asks for that: it holds the device's
 *              clocks, so it is refused where others are known to use the device
 *   counters   the engine without planning ahead, so that a range holds the work of one step alone: up to
 *              NX_RANGES_A_PHASE steps of each phase, spread over its steps
 *
 * What is missing (no instruments, no permission, a metric that needs the work done twice) is a sentence in the record.
 */
#ifndef NEXUS_MEASURE_INSTRUMENT_H
#define NEXUS_MEASURE_INSTRUMENT_H

#include "measure/trial.h"
#include "nexus/instruments.h"

#define NX_GROUP_MAX 24
#define NX_FORMULAS_MAX 12
#define NX_RANGES_A_PHASE 8
#define NX_RANGES_MAX (NX_RANGES_A_PHASE * NX_PHASE_COUNT)
#define NX_TRACE_STEPS 16
#define NX_TRACE_RECORDS ((size_t)1 << 18)
#define NX_KERNELS_MAX 256
#define NX_SAMPLES_MAX ((size_t)1 << 16)

/* X(ID, name): which figure of a range a metric adds to, times its factor. */
#define NX_FIGURES(X)                                                                              \
	X(NONE, "")                                                                                \
	X(BYTES, "bytes") /* moved to and from memory */                                           \
	X(FLOPS, "flops")                                                                          \
	X(TIME, "time_ns") /* of the device */

enum nx_figure {
#define X(id, name) NX_FIGURE_##id,
	NX_FIGURES(X)
#undef X
		NX_FIGURE_COUNT
};
const char *nx_figure_name(int figure);

struct nx_group_metric {
	char name[NX_METRIC_NAME];
	char as[32]; /* its name in formulas; "" = none */
	char unit[16];
	int32_t figure; /* enum nx_figure */
	double times;
	char text[96];
};

/* Worked out of the counters of a range, by their names in the group; `steps` is 1, `seconds` the timed step's. */
struct nx_group_formula {
	char name[64], unit[16], formula[128], text[192];
};

struct nx_metric_group {
	char name[64];
	struct nx_group_metric m[NX_GROUP_MAX];
	int32_t n;
	struct nx_group_formula f[NX_FORMULAS_MAX];
	int32_t n_formulas;
};
/* values: of g->m; a counter that is not there is NaN. Fails at what is no formula, with its place. */
int nx_formula(const struct nx_metric_group *g, const char *formula, const double *values,
               double seconds, double *out, struct nx_err *err);

/* The group that is built in: memory traffic, arithmetic of the tensor cores and of the others, time, occupancy. */
void nx_group_default(struct nx_metric_group *g);
/* A data file, see experiments/README.md; "FILE:GROUP" where it has several (default, or the first). */
int nx_group_load(struct nx_metric_group *g, const char *path, struct nx_err *err);

struct nx_ranged {
	int32_t phase, step; /* step: place in the trial's steps */
	int32_t rows, n_emit;
	uint64_t step_ns; /* with the range around it */
	double values[NX_GROUP_MAX];
	double worked_out[NX_FORMULAS_MAX];
};

struct nx_kernel_use {
	char name[NX_TRACE_NAME];
	int32_t kind;  /* enum nx_trace_kind */
	int32_t phase; /* of the window */
	int64_t calls;
	uint64_t
		total_ns; /* each call from when all before it had ended: starting early is no work */
	double share;     /* of all records' time */
};

/* One phase: the same steps in the timed trial and under each instrument; 0 steps = none. */
struct nx_perturbed {
	int32_t phase;
	int32_t n_traced, n_counted;
	uint64_t traced_ns,
		traced_timed_ns; /* sums over the n_traced steps: traced; in the timed trial */
	uint64_t counted_ns,
		counted_timed_ns; /* over the n_counted steps, whose ranges waited for the device */
	uint64_t beside_ns, beside_timed_ns; /* over the other steps while counters were open */
	int32_t n_beside;
};

struct nx_profiled {
	char cell[17];
	int32_t round;
	char versions[128];
	char no_counters
		[NX_ERR_MAX]; /* why there are none, or what was left out; "" = all is there */
	char no_trace[NX_ERR_MAX];
	char no_time_line[NX_ERR_MAX]; /* why there is none; "" = nobody asked, or it is there */
	int32_t n_steps, n_same; /* of the counters' run; as in the timed trial: phase and rows */
	int32_t first_other;     /* step; -1 = none */
	int32_t trace_phase, n_trace_steps;
	uint64_t window_ns, busy_ns; /* first begin to last end; of it: something ran */
	uint64_t n_records, n_lost;
	struct nx_metric_group group; /* that was measured */
	struct nx_ranged *ranges;     /* owned, as the others */
	size_t n_ranges;
	struct nx_kernel_use *kernels; /* most time first */
	size_t n_kernels;
	struct nx_perturbed perturbed[NX_PHASE_COUNT];
	struct nx_device_sample *samples; /* from 0 on, the first one's begin */
	size_t n_samples;
	uint64_t n_samples_lost; /* at least */
};
void nx_profiled_init(struct nx_profiled *p);
void nx_profiled_release(struct nx_profiled *p);
/* Mean of a figure over the ranges of a phase; NaN when there are none or the group has none of it. */
double nx_profiled_figure(const struct nx_profiled *p, int phase, enum nx_figure figure);
/* Share of the window in which nothing ran; NaN without a trace. */
double nx_profiled_idle(const struct nx_profiled *p);
/* Time under an instrument over the timed one, all phases, or NaN: counters (open, steps beside ranges), trace. */
double nx_profiled_perturbation(const struct nx_profiled *p, bool trace);

/* Sorts and sums the records of a window. */
int nx_profiled_add_trace(struct nx_profiled *p, const struct nx_trace_record *records, size_t n,
                          struct nx_err *err);

/* ---- telemetry around a timed trial ---- */

struct nx_telemetry_watch;
/* Reads before, and from a thread of its own while the trial runs; NULL where the device has none. */
struct nx_telemetry_watch *nx_telemetry_begin(const struct nx_device *dev);
/* Reads once more, ends the thread and releases w (which may be NULL). */
void nx_telemetry_end(struct nx_telemetry_watch *w, struct nx_device_state *out);
/* "power cap, temperature"; "" for none; returns buf. */
const char *nx_throttle_text(int64_t bits, char *buf, size_t size);
/* Reasons that make a trial THROTTLED: what the power cap alone does to a load is how fast the device is. */
#define NX_THROTTLE_DISTURBS ((int64_t)(NX_THROTTLE_HEAT | NX_THROTTLE_HARDWARE))

#endif
