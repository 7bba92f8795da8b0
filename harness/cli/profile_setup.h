/* SPDX-License-Identifier: Apache-2.0
 *
 * cli/profile_setup.h: the experiment that `nexus profile` runs: one round of one cell, or of one for each
 * stack, written as an experiment file of its own so that worker, shards and run file are those of `nexus run`.
 */
#ifndef NEXUS_CLI_PROFILE_SETUP_H
#define NEXUS_CLI_PROFILE_SETUP_H

#include "measure/experiment.h"

struct nx_profile_config {
	const char *model, *device, *dtype, *base;
	const char *stack;     /* FILE[:NAME] or NULL: the base alone */
	const char *prompts;   /* NULL: the stories that come with the source; "random": tokens */
	const char *kv_memory; /* a size, or NULL */
	const char *counters;  /* "default", "off", or a file */
	int64_t batch_size, seq_len, steps, threads;
	int64_t output_len; /* 0: steps + 1 */
};

/* What nx_profile_setup made. Init with {0}. */
struct nx_profile_setup {
	char dir[256], path[300]; /* temporary folder with profile.yaml */
	char *set;                /* "sweep.stack=[...]", or NULL */
	struct nx_experiment *x;
};
int nx_profile_setup(struct nx_profile_setup *s, const struct nx_profile_config *c,
                     struct nx_err *err);
void nx_profile_setup_release(struct nx_profile_setup *s);

#endif
