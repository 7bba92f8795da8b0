/* SPDX-License-Identifier: Apache-2.0
 *
 * measure/runner.h: runs trials, one at a time, in this process.
 *
 * A trial: forecast (does the cell fit?), engine of the cell's stack (kept while the cell stays the same),
 * exactness gate (first round only, untimed), warm-up, proof of the start state, the timed run, metrics.
 * Whatever goes wrong short of the process's death ends in the trial's status and a one-sentence cause.
 *
 * The timed region starts before the first request is handed over and ends after the last token; in it
 * nothing but the engine and preallocated arrays is touched. Threads: one.
 */
#ifndef NEXUS_MEASURE_RUNNER_H
#define NEXUS_MEASURE_RUNNER_H

#include "measure/perf.h"
#include "measure/trial.h"

/* A trial during which other processes took more than this many cores is THROTTLED: kept, but left out of
 * statistics. The kernel counts busy time in ticks of 10 ms, so that much is allowed on top: NX_LOAD_SLACK_S
 * processor-seconds times the root of the number of processors (of 2 processors, 0.08 cores in a trial of
 * half a second, 0.4 in one of 0.1 s). */
#define NX_LOAD_OTHER_MAX 0.5
#define NX_LOAD_SLACK_S 0.03
/* That allowance in cores, for a trial of so many seconds. */
double nx_load_slack(double seconds);

struct nx_runner_config {
	const struct nx_shape *shape;
	struct nx_device *dev;
	const struct nx_weights *weights; /* on dev; planned ones can forecast alone */
	enum nx_dtype dtype;              /* of weights and KV, whatever activations are kept in */
	bool invariant;
	bool random_weights; /* tokens mean nothing: the gate is not run, and its verdict says why */
	int32_t samples;     /* of the workload */
	uint64_t kv_budget_bytes;
	uint64_t fits_bytes; /* what weights and engine may take together; 0 = not checked */
	struct nx_slo slo;
	struct nx_calibration calibration;
	double load_other_max; /* cores; 0 = NX_LOAD_OTHER_MAX; all of them: throttling is let pass, too */
	const struct nx_perf *perf; /* borrowed; NULL = none */
	bool perf_by_phase; /* read it at every step, too: system calls between steps, for profiles */
	/* Quality of lossy numerics beside their speed, where the gate is asked for: measure/quality.h. Borrowed; NULL
	 * = not measured. */
	const struct nx_tokenizer *tokenizer;
	const char *held_out; /* path of the texts */
	/* Told before each part of a trial, never inside the timed region; NULL = nobody. */
	void (*phase)(void *ctx, const char *name);
	void *phase_ctx;
};

struct nx_runner;
int nx_runner_create(struct nx_runner **out, const struct nx_runner_config *c, struct nx_err *err);
void nx_runner_destroy(struct nx_runner *r);

struct nx_forecast {
	struct nx_mem_use mem[NX_TRIAL_MEM_MAX]; /* "weights" included; computed, not measured */
	size_t n_mem;
	uint64_t total_bytes;
	int32_t longest; /* longest request of the cell [tokens] */
	double mean_in,
		mean_out; /* tokens of a request of round 0, where lengths are read and not drawn, filled in
	                             by whoever has the workload; else 0 */
	int32_t batch_size;      /* of the cell, found if need be */
	char reason[NX_ERR_MAX]; /* why the cell cannot run, or "" */
	int code;                /* 0, or the nx_code of the reason */
};
/* Never fails: what is wrong is the forecast's reason. */
void nx_runner_forecast(const struct nx_runner_config *c, const struct nx_cell *cell,
                        struct nx_forecast *out);
/* The largest batch size for which every request in flight can grow to the cell's longest: it fits the device, and its
 * KV store kv_memory. *out is its forecast. 0 when there is none, with the reason in *out. */
int32_t nx_runner_fit(const struct nx_runner_config *c, const struct nx_cell *cell,
                      struct nx_forecast *out);

struct nx_runner_job {
	const struct nx_cell *cell;
	int32_t round;
	const struct nx_request *reqs; /* borrowed for the call */
	size_t n_reqs;
	uint64_t time_line_ns; /* of nx_runner_profile() */
	bool gate;             /* run the gate when round is 0 and the stack claims exactness */
};
/* Fills *out (initialised here; release it). Never fails: see out->status. */
void nx_runner_trial(struct nx_runner *r, const struct nx_runner_job *job, struct nx_trial *out);

/* The same requests once more under the device's instruments, in a worker that times nothing: instrument.h. timed is
 * the trial of the same job. What could not be had is a sentence in *out, which was initialised; NX_EFAULT: the device
 * failed, and this process is of no more use. */
struct nx_metric_group;
struct nx_profiled;
int nx_runner_profile(struct nx_runner *r, const struct nx_runner_job *job,
                      const struct nx_metric_group *group, const struct nx_trial *timed,
                      struct nx_profiled *out);

/* The status that an error of code ends a trial with. */
int nx_status_of(int code);

#endif
