/* SPDX-License-Identifier: Apache-2.0
 *
 * cli/output.h: where `nexus run` writes, and what it shows before and after a sweep.
 */
#ifndef NEXUS_CLI_OUTPUT_H
#define NEXUS_CLI_OUTPUT_H

#include "cli/sweep.h"

/* The run file's path into buf: given, or results/<name>-<UTC>.h5; with resume and none given the newest
 * results/<name>-*.h5.parts. Makes results/ when it is missing, and checks that the folder can be
 * written to, so that nobody learns that after an hour. */
int nx_output_path(const char *given, const char *name, bool resume, char *buf, size_t size,
                   struct nx_err *err);

/* --dry-run: the cells with their forecast on stdout. *status is NX_EXIT_CELL_FAILED where none fits. */
int nx_output_forecast(struct nx_crew *crew, const struct nx_shape *shape, int *status,
                       struct nx_err *err);

/* What nexus exits with, and a sentence unless that is NX_EXIT_DONE: NX_EXIT_CELL_FAILED when a trial
 * failed, crashed, timed out, ran out of memory or was inexact, when all that a cell ran was invalid, or
 * when no cell gave figures. */
int nx_output_verdict(const struct nx_run *run);

/* The table of cells of a finished run, and the causes of what went wrong, on stderr; *status is
 * nx_output_verdict(). */
int nx_output_summary(const char *path, int *status, struct nx_err *err);

#endif
