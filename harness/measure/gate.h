/* SPDX-License-Identifier: Apache-2.0
 *
 * measure/gate.h: the exactness gate: does a stack choose the tokens that its own numerics choose?
 *
 * The reference is the stack's attention, kv_codec and weights layers over the engine's default
 * schedule and layout, one sequence at a time, greedy. Its tokens are then fed to the stack (teacher
 * forcing), which runs the requests at the cell's batch size; at each position the largest logit of the
 * stack must be that of the reference, or a near tie: in the reference's logits the two choices lie
 * within the near-tie width. The width is twice the largest change of a logit that the reference itself
 * shows when it computes the same positions 2 and 4 sequences at a time, and never below 2^-7 (bf16) or
 * 2^-18 (f32) of the largest logit. In invariant mode tokens must be identical and the width is only
 * reported. Untimed. Up to NX_GATE_REQUESTS requests, cut to NX_GATE_OUT tokens each.
 *
 * A technique that takes one of the reference's slots and another one besides stays in the reference
 * whole, since it cannot be split: the gate does not see what it does to itself there.
 *
 * The stack runs more requests than it has places, of unequal lengths (the reference's, over and over): some join
 * while others run.
 *
 * References are kept for later cells with the same prompts and numerics. Threads: one.
 */
#ifndef NEXUS_MEASURE_GATE_H
#define NEXUS_MEASURE_GATE_H

#include "engine/engine.h"
#include "measure/trial.h"

#define NX_GATE_REQUESTS 4
#define NX_GATE_OUT 64

enum nx_gate_verdict { /* of struct nx_gate */
	               NX_GATE_EXACT,
	               NX_GATE_NEAR_TIES,
	               NX_GATE_INCONCLUSIVE, /* more than 1 % near ties */
	               NX_GATE_FAILED,
	               NX_GATE_RANDOM_WEIGHTS, /* not run: there is nothing to be exact about */
};

struct nx_gate_cache;
struct nx_gate_cache *nx_gate_cache_create(void); /* NULL = out of memory */
void nx_gate_cache_destroy(struct nx_gate_cache *c);

struct nx_gate_config {
	struct nx_gate_cache *cache;
	struct nx_engine *engine;                     /* of the stack; reset before and after */
	const struct nx_engine_config *engine_config; /* what it was made with */
	enum nx_dtype dtype;
	int32_t vocab;
	const struct nx_request *reqs; /* of the trial */
	size_t n_reqs;
};

/* Fills *out. A negative code means that the gate could not run, not that it failed. */
int nx_gate_run(const struct nx_gate_config *c, struct nx_gate *out, struct nx_err *err);

/* One sentence on a verdict that is not exact, without a full stop. */
void nx_gate_sentence(const struct nx_gate *g, char *buf, size_t size);

#endif
