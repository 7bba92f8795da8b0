/* SPDX-License-Identifier: Apache-2.0
 *
 * cli/conduct.h: from an experiment to its run file: lock, worker, shards, sweep, merge. `nexus run` and
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
	const struct nx_model *model; /* borrowed */
	const char *output;
	bool resume, force; /* see nx_shards_open */
	bool finish;        /* nothing is run: the run file is made of what is there */
	bool discard;       /* no resuming: what is left of a failed run is removed */
	int argc;
	char **argv;
	/* Shows the run file; *status is what nexus exits with, read from it. */
	int (*show)(void *ctx, const char *path, int *status, struct nx_err *err);
	void *ctx;
};

struct nx_conducted {
	int status;       /* NX_EXIT_DONE, or what show said */
	bool interrupted; /* by a signal, before there was a run file (failure only) */
	size_t n_kept;    /* finished trials that a later run can go on with (failure only) */
};

/* Leaves no worker. The output is locked before one is started, so that a run that is refused disturbs
 * nobody. A run file that lacks nothing but the removal of its shards is shown, and they are removed. */
int nx_conduct(const struct nx_conduct *c, struct nx_conducted *out, struct nx_err *err);

#endif
