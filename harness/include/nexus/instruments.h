/* SPDX-License-Identifier: Apache-2.0
 *
 * nexus/instruments.h: what a device can say about itself beside doing the work: hardware counters by range, a
 * trace of what ran when, and telemetry. All optional: a call that cannot be served says why in one sentence
 * (NX_ENOTSUP: this device never can; NX_EENV: a permission or a library is missing, and what to change), and the
 * run goes on without.
 *
 * One at a time. A process holds one open set of counters, or runs one trace, or samples: what comes second is
 * NX_ECONFLICT.
 *
 * Perturbation. A process that has opened counters may time up to 6 % slower until it ends, also after they are
 * closed: counters belong into a process that is not timed. Traces cost 1 % where kernels last 30 us, 9 % where they
 * last 2 us, and nothing once they have ended. Telemetry takes 0.6 ms of the host and may be read by a thread of its
 * own beside a timed run; energy takes a few ms and sums up by itself, so it is read before and after one.
 *
 * Threads: the thread that drives the device, but telemetry() and energy(), which any one other thread may call.
 */
#ifndef NEXUS_INSTRUMENTS_H
#define NEXUS_INSTRUMENTS_H

#include "nexus/device.h"

#ifdef __cplusplus
extern "C" {
#endif

#define NX_METRIC_NAME 128
#define NX_RANGE_NAME 32
#define NX_TRACE_NAME 128

/* Counters of one range: everything the device did between range_begin and range_end, in any stream, graph launches
 * included. Work of other processes disturbs them. Bytes, operations and ratios are good; a second in a range is not
 * one without counters, so times are taken in another process. */
struct nx_range {
	char name[NX_RANGE_NAME];
	double *values; /* [n_metrics] of counters_open, in its order; NaN = not measured. Owned by the counters */
};

enum nx_trace_kind { NX_TRACE_KERNEL, NX_TRACE_COPY, NX_TRACE_SET, NX_TRACE_KIND_COUNT };

/* Times: ns of the device's clock, of use for differences within one trace. */
struct nx_trace_record {
	uint64_t begin_ns, end_ns;
	int32_t kind;             /* enum nx_trace_kind */
	char name[NX_TRACE_NAME]; /* kernel, without its arguments */
};

/* Of the whole device, whoever uses it, over a stretch of its clock; shares of what it could do, 0 to 1, or NaN. */
struct nx_device_sample {
	uint64_t begin_ns, end_ns;
	double dram;   /* of the memory's throughput */
	double sm;     /* of the SMs' cycles: something was on them */
	double tensor; /* of the tensor cores' cycles: they worked */
};

/* What is not known is NaN, or -1 in an integer. */
struct nx_telemetry {
	double sm_clock_hz, mem_clock_hz, power_w, temperature_c;
	int64_t mem_used_bytes;    /* of the whole device, by whomever */
	int64_t throttle;          /* bits of enum nx_throttle: why clocks are not higher */
	int32_t n_other_processes; /* that have the device open, beside this one */
	double utilisation;        /* fraction of the last sample period with a kernel running */
};

/* X(NAME, bit, text) */
#define NX_THROTTLES(X)                                                                            \
	X(IDLE, 0, "idle")                                                                         \
	X(POWER, 1, "power cap")                                                                   \
	X(HEAT, 2, "temperature")                                                                  \
	X(HARDWARE, 3, "hardware slowdown")                                                        \
	X(SYNC, 4, "clocks synchronised with another device")                                      \
	X(SET, 5, "clocks set by an application")

enum nx_throttle {
#define X(name, bit, text) NX_THROTTLE_##name = 1 << (bit),
	NX_THROTTLES(X)
#undef X
};

struct nx_counters; /* an open set of metrics */

struct nx_instrument_ops {
	uint32_t size; /* sizeof(struct nx_instrument_ops) */

	/* Passes that the metrics need together on this device, or on the chip of that name where dev is NULL, which
	 * needs no device at all. An unknown metric is NX_EINVAL with the nearest known name; metrics that no number of
	 * passes can count together are NX_ENOTSUP. 1 = can be measured without running the work again, which is all
	 * that counters_open takes. */
	int (*metrics_check)(void *dev, const char *chip, const char *const *metrics, int32_t n,
	                     int32_t *passes, struct nx_err *err);
	int (*counters_open)(void *dev, const char *const *metrics, int32_t n, int32_t max_ranges,
	                     struct nx_counters **out, struct nx_err *err);
	/* A range must not be open when the next begins; both wait for the device. Several may have one name. More than
	 * max_ranges are NX_ENOSPC. */
	int (*range_begin)(void *dev, struct nx_counters *c, const char *name, struct nx_err *err);
	int (*range_end)(void *dev, struct nx_counters *c, struct nx_err *err);
	/* All ranges so far, in order; borrowed until the next call on c. More may follow, and be read with them. */
	int (*counters_read)(void *dev, struct nx_counters *c, const struct nx_range **out,
	                     int32_t *n, struct nx_err *err);
	void (*counters_close)(void *dev, struct nx_counters *c);

	/* Records of what runs from now on; at most max_records are kept, the rest counted in *lost. */
	int (*trace_begin)(void *dev, size_t max_records, struct nx_err *err);
	/* Waits for the device. Sorted by begin_ns; to be given to trace_free. */
	int (*trace_end)(void *dev, struct nx_trace_record **out, size_t *n, size_t *lost,
	                 struct nx_err *err);
	void (*trace_free)(void *dev, struct nx_trace_record *records);

	int (*telemetry)(void *dev, struct nx_telemetry *out, struct nx_err *err);

	/* Used since the driver was loaded: take differences. */
	int (*energy)(void *dev, double *joules, struct nx_err *err);

	/* Samples over time. The device's clocks are held while it is sampled, for all who use it: only for a device of one's
	 * own, and never unless it was asked for by name. sampling_check: as metrics_check, of what is sampled. At most
	 * max_samples are kept; *lost is 0 when none was left out, else at least how many were. */
	int (*sampling_check)(void *dev, const char *chip, int32_t *passes, struct nx_err *err);
	int (*sampling_begin)(void *dev, uint64_t interval_ns, size_t max_samples,
	                      struct nx_err *err);
	/* Waits for the device. In the order of time; to be given to sampling_free. */
	int (*sampling_end)(void *dev, struct nx_device_sample **out, size_t *n, size_t *lost,
	                    struct nx_err *err);
	void (*sampling_free)(void *dev, struct nx_device_sample *samples);

	/* Versions of what is behind this, for the record: "CUPTI 13.0, driver 580.159". */
	void (*versions)(void *dev, char *dst, size_t size);
};

#ifdef __cplusplus
}
#endif
#endif
