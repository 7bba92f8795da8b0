/* SPDX-License-Identifier: Apache-2.0
 *
 * measure/warmup.h: untimed passes before a trial, until the data say that they are enough.
 *
 * A pass runs the first batch of the trial's requests, prompts whole (so that the pages of the KV pool
 * are touched), outputs cut to NX_WARMUP_OUT tokens. Passes end when the median decode step of the last
 * one lies within NX_WARMUP_TOLERANCE of the pass before it, after NX_WARMUP_PASSES_MAX passes, or, at
 * least one pass done, after NX_WARMUP_BUDGET_NS. An engine that is used again brings its last median
 * along, so that one pass may do. Where a pass has no decode step, its whole time is compared.
 */
#ifndef NEXUS_MEASURE_WARMUP_H
#define NEXUS_MEASURE_WARMUP_H

#include "engine/engine.h"

#define NX_WARMUP_OUT 16
#define NX_WARMUP_PASSES_MAX 4
#define NX_WARMUP_TOLERANCE 0.03
#define NX_WARMUP_BUDGET_NS 10000000000ull

struct nx_warmup {
	int32_t n_passes;  /* of the last call */
	uint64_t total_ns; /* of the last call */
	uint64_t last_ns;  /* what the last pass showed; 0 = the engine is new */
};

/* Leaves the engine reset. *w is zeroed by the caller when the engine is new. */
int nx_warmup_run(struct nx_engine *e, const struct nx_request *reqs, size_t n, int32_t batch_size,
                  struct nx_warmup *w, struct nx_err *err);

#endif
