/* SPDX-License-Identifier: Apache-2.0
 *
 * cli/sweep.h: visits every (cell, round) of an experiment through a worker, and keeps going whatever a
 * cell does to it.
 *
 * Every round visits the cells in an order of its own, from the workload's seed and the round, so it can be made
 * again: the settings (batch size and lengths) are shuffled, and within each its stacks, which so run right after one
 * another: ratios pair them, and what else a machine does is the more alike the nearer two trials are. With
 * `order: sorted` every round takes the cells as nx_experiment_cells has them. A cell is left alone after a trial
 * that was skipped, failed, crashed, timed out, ran out of memory or was inexact: that row stands for the cell
 * and later rounds have none. Adaptive trials end a cell when its headline figure is known well enough (nx_stop).
 *
 * A worker that dies or is silent for longer than timeout_s in one part of a trial (set-up, gate, warm-up,
 * timed run) costs that trial only: its row is written here, and a new worker goes on.
 */
#ifndef NEXUS_CLI_SWEEP_H
#define NEXUS_CLI_SWEEP_H

#include "cli/child.h"
#include "measure/runner.h"
#include "record/run.h"

/* The worker, and what is needed to start another one like it. */
struct nx_crew {
	struct nx_experiment *x; /* its cells are settled while the sweep runs */
	const char *path;        /* of the experiment file */
	const char *const *sets;
	size_t n_sets;
	double calibrate_s; /* of the first worker */
	bool dry;           /* workers forecast alone: no weights are loaded */
	bool profile;       /* workers read perf counters at every step, where there are any */
	struct nx_child child;
	bool calibrated;
	struct nx_calibration calibration;
	struct nx_device_info device;
	uint64_t fits_bytes;
	char note[256]; /* what the worker left out of the workload, or "" */
	int n_starts;
	bool instruments; /* the device has some */
};

/* Starts a worker, if none lives, and waits until it is ready; fills device and calibration. */
int nx_crew_start(struct nx_crew *c, struct nx_err *err);
/* Asks for a cell's forecast. What kills the worker is the forecast's reason. */
int nx_crew_forecast(struct nx_crew *c, const struct nx_cell *cell, struct nx_forecast *out,
                     struct nx_err *err);
void nx_crew_stop(struct nx_crew *c);

/* The cells of a round, n of them, in the order of their visits: a pure function of the experiment and the
 * round, so that it can be made again. */
void nx_sweep_order(const struct nx_experiment *x, int32_t round, uint32_t *order, size_t n);

/* After the sweep: what the device's instruments see of each cell that ran, in a worker that times nothing (one that
 * has opened counters stays slower, and two would not fit beside each other). A cell whose look fails keeps its
 * trials and gets the reason. Nothing to do without instruments or with `counters: off`. */
int nx_sweep_profile(struct nx_crew *crew, struct nx_shards *shards, struct nx_err *err);

/* Cells of `batch_size: fit` get the sizes that finished trials had. */
int nx_sweep_settle(struct nx_experiment *x, const struct nx_shards *shards, struct nx_err *err);

/* A negative code: the sweep cannot go on (disk full, no worker can be started). Shards stay. */
int nx_sweep_run(struct nx_crew *crew, struct nx_shards *shards, struct nx_err *err);

#endif
