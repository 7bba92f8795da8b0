/* SPDX-License-Identifier: Apache-2.0
 *
 * test/sample_run.h: a run with made-up but plausible figures, in memory, for tests of what is
 * shown.
 */
#ifndef NEXUS_TEST_SAMPLE_RUN_H
#define NEXUS_TEST_SAMPLE_RUN_H

#include "record/run.h"

#define NX_SAMPLE_FAILURES 1u   /* some cells were skipped, ran out of memory, failed the gate */
#define NX_SAMPLE_NO_FIGURES 2u /* every metric is NaN, as when every cell failed */
#define NX_SAMPLE_LONG_NAMES 4u /* names as long as they may be */
#define NX_SAMPLE_SKEW 8u       /* every other length has its output drawn from a log-normal */

struct nx_sample_options {
	int n_stacks, n_batches, n_lengths;
	unsigned flags;
	const char *odd_name; /* name of the last stack, or NULL */
};

/* NULL without memory. Release with nx_sample_run_destroy, not nx_run_destroy. */
struct nx_run *nx_sample_run(const struct nx_sample_options *o);
void nx_sample_run_destroy(struct nx_run *r);

#endif
