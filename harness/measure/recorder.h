/* SPDX-License-Identifier: Apache-2.0
 *
 * measure/recorder.h: a sink that writes a run into a trial's arrays, which are allocated and touched
 * before the run, so that the timed path neither allocates nor faults pages in.
 *
 * Times become nanoseconds since t0. What does not fit (it should: the bounds come from the requests) is
 * counted in n_lost and makes the trial invalid.
 *
 * Work by phase: with dev set, the device's counts are read at the end of each step and go to the step's
 * phase: one call that copies 32 bytes, after the step's end and before the next one's begin, so no step's time
 * has it. perf is read there too where it is set; that takes system calls, so it is for profiles. What a device
 * counts when work is enqueued goes to the step that enqueued it, also where the next step is planned ahead.
 *
 * Time by phase: planned ahead, a step begins before the one before it has ended; it has the time from that end on,
 * so that the phases' times add up to the run's.
 */
#ifndef NEXUS_MEASURE_RECORDER_H
#define NEXUS_MEASURE_RECORDER_H

#include "measure/perf.h"
#include "measure/trial.h"

#define NX_IN_FLIGHT 4 /* steps, more than an engine has */

struct nx_recorder {
	struct nx_trial *trial; /* borrowed; owns the arrays */
	uint64_t t0_ns;
	size_t max_tokens, max_steps;
	size_t n_lost;
	int32_t *first;   /* [max_id + 1] record of sample 0 of a request, -1 = unknown id */
	int32_t *samples; /* [max_id + 1] */
	uint32_t max_id;
	/* Set after init, before the run; NULL = not wanted. Borrowed. Counts start at zero. */
	const struct nx_device *dev;
	const struct nx_perf *perf;
	struct nx_counted last;
	struct nx_counted launched[NX_IN_FLIGHT]; /* counted while the step was enqueued; a ring */
	size_t n_launched, n_done;
	uint64_t last_end_ns; /* of the step before */
	int64_t last_perf[NX_PERF_COUNT];
};

/* For trials that keep their length alone: requests get when they came and when their last token did, and nothing is
 * written by token or step. */
struct nx_sink nx_recorder_sink_of_length(struct nx_recorder *r);
int nx_recorder_init(struct nx_recorder *r, struct nx_trial *t, const struct nx_request *reqs,
                     size_t n, struct nx_err *err);
void nx_recorder_release(struct nx_recorder *r); /* leaves the trial's arrays */
struct nx_sink nx_recorder_sink(struct nx_recorder *r);

#endif
