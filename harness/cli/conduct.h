/* SPDX-License-Identifier: Apache-2.0
 *
 * cli/conduct.h: from an experiment to its run file: worker, shards, sweep, merge. `nexus run` and
 * `nexus profile` differ in what comes before and after.
 */
#ifndef NEXUS_CLI_CONDUCT_H
#define NEXUS_CLI_CONDUCT_H

#include "cli/sweep.h"

#define NX_CALIBRATE_S 2.0

/* Limits from the environment: a typo must not switch one off. */
int nx_conduct_check_environment(struct nx_err *err);
/* $NEXUS_CALIBRATE, or otherwise. */
double nx_conduct_calibrate_s(double otherwise);

struct nx_conduct {
	struct nx_crew *crew;
	const struct nx_shape *shape;
	const char *output;
	bool resume, force; /* see nx_shards_open */
	bool discard;       /* no resuming: what is left of a failed run is removed */
	int argc;
	char **argv;
};
/* Leaves no worker. *kept: whether the shards of what was finished are there to go on with (failure only).
 * After an interrupt nx_child_signal() is set. */
int nx_conduct(const struct nx_conduct *c, struct nx_sweep_result *out, bool *kept,
               struct nx_err *err);

#endif
