/* SPDX-License-Identifier: Apache-2.0
 *
 * present/skew.h: what uneven output lengths alone allow batching to gain.
 *
 * A static batch of B runs until its longest output is done: its slots do B * max of the work while
 * they deliver the sum. E[max of B] / E[length] bounds the gain of filling freed slots at once.
 * Computed from the declared distribution, with the distribution's rounding to whole tokens; of lengths that
 * are read (a trace's, a data set's) from those that ran.
 */
#ifndef NEXUS_PRESENT_SKEW_H
#define NEXUS_PRESENT_SKEW_H

#include "measure/experiment.h"

/* Reads what nx_dist_text wrote. */
int nx_dist_from_text(struct nx_dist *d, const char *text, struct nx_err *err);
/* E[max of batch] / E[length] for independent draws; 1 when all are of one length. */
double nx_skew_bound(const struct nx_dist *d, int32_t batch);
/* The same of n lengths, sorted: batches drawn from them independently. 1 when n is 0. */
double nx_skew_bound_of(const int32_t *sorted, size_t n, int32_t batch);

#endif
