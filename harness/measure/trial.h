/* SPDX-License-Identifier: Apache-2.0
 *
 * measure/trial.h: the raw record of one trial (one cell in one round) and its metrics.
 *
 * A trial that could not run is a record too: status and cause say why. Arrays are owned by the trial.
 * Times are nanoseconds since the trial's start.
 */
#ifndef NEXUS_MEASURE_TRIAL_H
#define NEXUS_MEASURE_TRIAL_H

#include "engine/engine.h"
#include "measure/experiment.h"

/* X(ID, name): how a trial ended. */
#define NX_STATUSES(X)                                                                             \
	X(OK, "ok")                                                                                \
	X(SKIPPED, "skipped")     /* cannot run: forecast, traits, limits */                       \
	X(INVALID, "invalid")     /* ran, but its start state or figures cannot be trusted */      \
	X(THROTTLED, "throttled") /* ran, kept, left out of statistics */                          \
	X(FAILED, "failed")       /* an error with a sentence */                                   \
	X(CRASHED, "crashed")     /* the worker died by a signal */                                \
	X(TIMEOUT, "timeout")                                                                      \
	X(OUT_OF_MEMORY, "out of memory")                                                          \
	X(INEXACT, "inexact") /* the exactness gate failed: speed-up withheld */

enum nx_status {
#define X(id, name) NX_STATUS_##id,
	NX_STATUSES(X)
#undef X
		NX_STATUS_COUNT
};
const char *nx_status_name(int status);
/* Would the cell's later trials say nothing new? (skipped, failed, crashed, ...) */
bool nx_status_final(int status);

struct nx_request_rec {
	uint32_t request, sample;
	int32_t n_in, n_out;
	int32_t finish; /* enum nx_finish */
	int32_t n_preempted;
	uint64_t arrival_ns, admitted_ns, first_ns, last_ns;
	uint32_t session, turn; /* as in struct nx_request */
	int64_t planned_ns;     /* its arrival_ns: what the trace says, -1 = nothing */
};

struct nx_token_rec {
	uint32_t request, sample;
	int32_t index, token;
	uint64_t t_ns;
};

/* X(ID, name, unit, better (+1 more, -1 less, 0 neither), text): headline metrics of a trial. */
#define NX_METRICS(X)                                                                              \
	X(OUTPUT_THROUGHPUT, "output_throughput", "tok/s", +1, "output tokens / duration")         \
	X(TOTAL_THROUGHPUT, "total_throughput", "tok/s", +1, "(input + output tokens) / duration") \
	X(REQUEST_THROUGHPUT, "request_throughput", "req/s", +1, "requests / duration")            \
	X(GOODPUT, "goodput", "req/s", +1, "requests that met all objectives / duration")          \
	X(TTFT_MEAN, "ttft_mean", "ms", -1, "first token - arrival, mean over requests")           \
	X(TTFT_P50, "ttft_p50", "ms", -1, "median")                                                \
	X(TTFT_P90, "ttft_p90", "ms", -1, "90th percentile")                                       \
	X(TTFT_P95, "ttft_p95", "ms", -1, "95th percentile")                                       \
	X(TTFT_P99, "ttft_p99", "ms", -1, "99th percentile")                                       \
	X(TPOT_MEAN, "tpot_mean", "ms", -1, "(e2el - ttft)/(n_out - 1), mean; n_out < 2 left out") \
	X(TPOT_P50, "tpot_p50", "ms", -1, "median")                                                \
	X(TPOT_P90, "tpot_p90", "ms", -1, "90th percentile")                                       \
	X(TPOT_P95, "tpot_p95", "ms", -1, "95th percentile")                                       \
	X(TPOT_P99, "tpot_p99", "ms", -1, "99th percentile")                                       \
	X(ITL_P50, "itl_step_p50", "ms", -1,                                                       \
	  "gap between steps that gave tokens, one sample a step")                                 \
	X(ITL_P99, "itl_step_p99", "ms", -1, "99th percentile of the same")                        \
	X(E2EL_MEAN, "e2el_mean", "ms", -1, "last token - arrival, mean")                          \
	X(E2EL_P50, "e2el_p50", "ms", -1, "median")                                                \
	X(E2EL_P99, "e2el_p99", "ms", -1, "99th percentile")                                       \
	X(DURATION, "duration", "s", -1, "first arrival to last token")                            \
	X(TAU, "tau", "tok/step", +1, "tokens committed per sequence per target step")             \
	X(DRAFT_ACCEPTANCE, "draft_acceptance", "fraction", +1,                                    \
	  "drafted rows accepted / drafted rows computed")                                         \
	X(DRAFT_SHARE, "draft_share", "fraction", -1, "time of drafting / step time")              \
	X(ROWS_PAD_SHARE, "pad_share", "fraction", -1, "PAD rows / all rows computed")             \
	X(PREEMPTIONS, "preemptions", "count", -1, "sequences preempted")                          \
	X(KV_RESERVED_PEAK, "kv_reserved_peak", "bytes", -1, "most KV bytes held by sequences")    \
	X(KV_USED_PEAK, "kv_used_peak", "bytes", -1, "most KV bytes with a token in them")         \
	X(KV_WASTE, "kv_waste", "fraction", -1,                                                    \
	  "1 - used / held, mean over steps weighted by time")                                     \
	X(MEM_TOTAL, "mem_total", "bytes", -1, "sum of all owners, reserved")                      \
	X(MEM_WORKSPACE, "mem_workspace", "bytes", -1, "attention workspace")                      \
	X(UTIL_MEM_CAPACITY, "util_memory", "fraction", 0,                                         \
	  "bytes reserved / memory of the device")                                                 \
	X(UTIL_COMPUTE, "util_compute", "fraction", 0, "operations / (time x calibrated peak)")    \
	X(UTIL_BANDWIDTH, "util_bandwidth", "fraction", 0, "bytes / (time x calibrated peak)")     \
	X(HOST_SHARE, "host_share", "fraction", -1, "planning time / step time")                   \
	X(PREFILL_THROUGHPUT, "prefill_throughput", "tok/s", +1,                                   \
	  "prompt rows / time of prefill steps")                                                   \
	X(DECODE_STEP_P50, "decode_step_p50", "ms", -1, "median time of a decode step")            \
	X(ENERGY_PER_TOKEN, "energy_per_token", "J/tok", -1,                                       \
	  "energy of the device during the trial / output tokens")                                 \
	X(POWER, "power", "W", 0, "energy of the device / duration")                               \
	X(PERPLEXITY, "perplexity", "ratio", -1,                                                   \
	  "of the stack's numerics on held-out text, where they are lossy (measure/quality.h)")    \
	X(PERPLEXITY_FULL, "perplexity_full", "ratio", 0, "of full precision on the same text")    \
	X(KL_FULL, "kl_full", "nats/tok", -1,                                                      \
	  "KL divergence of the stack's numerics from full precision, mean over positions")        \
	X(TOKEN_AGREEMENT, "token_agreement", "fraction", +1,                                      \
	  "positions at which both would choose the same token")                                   \
	X(FIRST_DIVERGENCE, "first_divergence", "tokens", +1,                                      \
	  "leading positions of a text at which they would, mean over texts")
/* The first that files of schema 2 lack. */
#define NX_METRIC_SCHEMA_3 NX_METRIC_ENERGY_PER_TOKEN

enum nx_metric {
#define X(id, name, unit, better, text) NX_METRIC_##id,
	NX_METRICS(X)
#undef X
		NX_METRIC_COUNT
};

struct nx_metric_desc {
	const char *name, *unit;
	int better;
	const char *text;
};
const struct nx_metric_desc *nx_metric_desc(enum nx_metric m);
/* -1 when there is none of that name. */
int nx_metric_find(const char *name);

/* X(ID, name): where a utilisation figure comes from. */
#define NX_UTIL_SOURCES(X)                                                                         \
	X(NONE, "none")                                                                            \
	X(COUNTED, "counted")                                                                      \
	X(PERF, "perf")                                                                            \
	X(CUPTI, "cupti")

enum nx_util_source {
#define X(id, name) NX_UTIL_##id,
	NX_UTIL_SOURCES(X)
#undef X
};

/* The steps of one phase, added up. */
struct nx_phase_use {
	int32_t phase; /* enum nx_phase */
	int32_t n_preempted;
	int64_t n_steps, rows, rows_pad; /* rows: of all kinds, padding included */
	int64_t n_seqs, n_waiting;       /* sums over steps: divide by n_steps */
	int64_t n_emit;                  /* tokens given out */
	int64_t kv_held, kv_total;       /* rows, the most of a step */
	uint64_t time_ns, plan_ns;
	struct nx_counted counted;
	double perf_cycles, perf_instructions, perf_llc_misses; /* NaN = not available */
};
const char *nx_phase_name(int phase);
/* A step's time from the end of the one before it (0 = none): planned ahead, steps overlap. */
uint64_t nx_step_own_ns(const struct nx_step_info *s, uint64_t before_ns);

#define NX_TRIAL_MEM_MAX 32
#define NX_TRIAL_COUNTER_MAX 64

/* The gate: teacher-forced comparison of the stack with its own numerics, one sequence at a time. */
struct nx_gate {
	int32_t ran; /* 0 = not run */
	int32_t n_positions, n_equal, n_near_tie, n_wrong;
	double near_tie_width; /* logits */
	int32_t verdict; /* 0 exact, 1 near ties only, 2 inconclusive (> 1 % near ties), 3 failed; of a gate that
	                    was not run: 0, or 4 because the weights are random */
	int32_t first_request, first_index; /* of the first wrong position; -1 = none */
	double first_gap;
};

/* What the device's telemetry said during a trial. NaN, and -1 of throttle: not known. */
struct nx_device_state {
	double energy_j;                     /* used */
	double power_w;                      /* highest reading */
	double temperature_c;                /* highest */
	double sm_clock_hz, sm_clock_low_hz; /* mean; lowest */
	double mem_clock_hz;                 /* mean */
	double mem_used_bytes;               /* most, of the whole device */
	double other_processes;              /* most, that compute there too */
	double utilisation;                  /* mean */
	double n_samples;
	int64_t throttle; /* enum nx_throttle of instruments.h: all that were seen */
};

struct nx_trial {
	char cell[17];
	int32_t cell_index, round;
	int32_t batch_size; /* of the cell when it ran; -1 = not known: written before trials had one */
	int32_t status;     /* enum nx_status */
	char cause[NX_ERR_MAX];  /* "" when ok */
	int64_t started_unix_ns; /* wall clock, UTC */
	uint64_t duration_ns, warmup_ns;
	int32_t n_warmup; /* warm-up passes */
	struct nx_request_rec *requests;
	size_t n_requests;
	struct nx_token_rec *tokens;
	size_t n_tokens;
	struct nx_step_info *steps;
	size_t n_steps;
	struct nx_phase_use phases[NX_PHASE_COUNT]; /* in order of the enum, n_steps 0 = none */
	struct nx_mem_use mem[NX_TRIAL_MEM_MAX];
	size_t n_mem;
	struct nx_counter_value counters[NX_TRIAL_COUNTER_MAX];
	size_t n_counters;
	struct nx_counted counted; /* whole trial */
	int32_t util_source;
	int64_t perf_cycles, perf_instructions, perf_llc_misses; /* -1 = not available */
	struct nx_gate gate;
	double load_other; /* CPU share taken by other processes during the trial, 0..n_cpus */
	struct nx_device_state device;
	double metrics[NX_METRIC_COUNT]; /* NaN = missing */
	char *texts; /* what the counters' unit points into after a read; NULL otherwise */
};

/* Of one sequence; NaN when it has too few tokens (1 and 2). */
double nx_request_ttft_ms(const struct nx_request_rec *r);
double nx_request_tpot_ms(const struct nx_request_rec *r);

void nx_trial_init(struct nx_trial *t);
void nx_trial_release(struct nx_trial *t);

/* What metrics need beside the raw record. */
struct nx_metric_context {
	struct nx_slo slo;
	struct nx_calibration calibration;
	uint64_t device_bytes;
	uint64_t llc_bytes;
	uint64_t kv_row_bytes;      /* K and V, all layers */
	uint64_t working_set_bytes; /* weights + KV: which memory level's peak applies */
	enum nx_dtype dtype;
};
/* The calibrated read rate that a working set is held against: the cache's for what fits the set that was
 * calibrated, the memory's beyond. What lies between that and the last-level cache's nominal size is memory's
 * too: on shared machines the nominal cache is not ours. *in_cache may be NULL. */
double nx_read_peak(const struct nx_calibration *c, uint64_t working_set_bytes, bool *in_cache);
/* Fills t->metrics from the raw record. */
void nx_trial_compute(struct nx_trial *t, const struct nx_metric_context *c);

#endif
