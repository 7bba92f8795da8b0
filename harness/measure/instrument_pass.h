/* SPDX-License-Identifier: Apache-2.0
 *
 * measure/instrument_pass.h: runs a cell's requests under the device's instruments. See instrument.h for what, and why
 * in a process that times nothing.
 */
#ifndef NEXUS_MEASURE_INSTRUMENT_PASS_H
#define NEXUS_MEASURE_INSTRUMENT_PASS_H

#include "measure/instrument.h"

struct nx_instrument_job {
	const struct nx_device *dev;
	struct nx_engine_config engine; /* as in the timed trial */
	const struct nx_request *reqs;  /* of its round */
	size_t n_reqs;
	const struct nx_metric_group *group;
	uint64_t time_line_ns;            /* 0 = none */
	const struct nx_step_info *timed; /* its steps */
	size_t n_timed;
	/* Told before each part; NULL = nobody. */
	void (*phase)(void *ctx, const char *name);
	void *phase_ctx;
};

/* What could not be had is a sentence in *out, which was initialised. NX_EFAULT: the device failed on the way, and this
 * process is of no more use; else 0. */
int nx_instrument_run(const struct nx_instrument_job *job, struct nx_profiled *out);

/* A part of it: the engine as the job has it, planning ahead or not, and warm. */
int nx_instrument_engine(const struct nx_instrument_job *job, bool ahead, struct nx_engine **e,
                         struct nx_err *err);
/* A part of it: the device over time. */
int nx_time_line_run(const struct nx_instrument_job *job, struct nx_profiled *out,
                     struct nx_err *err);

#endif
