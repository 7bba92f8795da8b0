/* SPDX-License-Identifier: Apache-2.0
 *
 * measure/gate_ref.h: the gate's reference: tokens and logits of a stack's own numerics. Internal to
 * the gate; see gate.h.
 */
#ifndef NEXUS_MEASURE_GATE_REF_H
#define NEXUS_MEASURE_GATE_REF_H

#include "measure/gate.h"

struct nx_gate_ref {
	uint64_t key;
	int32_t n_requests, vocab;
	int32_t n_out[NX_GATE_REQUESTS];
	int32_t token[NX_GATE_REQUESTS][NX_GATE_OUT]; /* the largest logit's index: greedy */
	float *logits;                                /* [NX_GATE_REQUESTS, NX_GATE_OUT, vocab] */
	double spread;  /* largest change of a logit over row counts */
	double largest; /* largest |logit| */
};

/* Lowest index among the largest, as the sampler has it. */
int32_t nx_gate_argmax(const float *x, int32_t n);
/* The requests as the gate runs them: greedy, cut, one sample, ids 0 .. n - 1. */
int32_t nx_gate_requests(const struct nx_gate_config *c, struct nx_request out[NX_GATE_REQUESTS]);
/* *out belongs to the cache and lives until the next call. */
int nx_gate_ref_get(const struct nx_gate_config *c, const struct nx_gate_ref **out,
                    struct nx_err *err);

#endif
