/* SPDX-License-Identifier: Apache-2.0
 *
 * present/grid.h: a run's cells by lengths, batch size and stack, and what can be said of one cell.
 *
 * Borrows the run. Lengths are pairs of prompt and output length, in the order of first appearance
 * sorted by their means; batch sizes ascend, NX_BATCH_FIT comes last.
 */
#ifndef NEXUS_PRESENT_GRID_H
#define NEXUS_PRESENT_GRID_H

#include "record/run.h"

struct nx_lengths {
	const char *seq_text, *out_text;
	double seq, out; /* means */
};

struct nx_grid {
	const struct nx_run *run;
	struct nx_lengths *lengths;
	size_t n_lengths;
	int32_t *batches;
	size_t n_batches;
};

int nx_grid_init(struct nx_grid *g, const struct nx_run *run, struct nx_err *err);
void nx_grid_release(struct nx_grid *g);
/* The axis value that a cell belongs to: its batch size, or NX_BATCH_FIT, whatever was found to fit. */
int32_t nx_cell_batch(const struct nx_cell_row *c);
/* "batch size 8", "the largest batch that fits"; returns buf. */
const char *nx_batch_text(int32_t batch, char *buf, size_t size);
/* For a column of batch sizes: "8", "37 (largest)"; returns buf. */
const char *nx_cell_batch_text(const struct nx_cell_row *c, char *buf, size_t size);
/* NULL when the sweep had no such cell. */
const struct nx_cell_row *nx_grid_cell(const struct nx_grid *g, size_t length, size_t batch,
                                       size_t stack);

/* Whether its figures count: at least one good trial and a throughput. */
bool nx_cell_usable(const struct nx_cell_row *c);
/* The word shown instead of a figure that is missing: "out of memory", "no objective set". */
const char *nx_missing_reason(const struct nx_cell_row *c, enum nx_metric m);
const char *nx_verdict_word(int verdict);
const char *nx_util_source_word(int source);
const char *nx_gate_word(const struct nx_gate *g);
/* Name of the reference stack. */
const char *nx_run_reference(const struct nx_run *r);
/* The first of the facts so named that is there and not empty, or NULL. keys ends with NULL. */
const char *nx_run_fact(const struct nx_run *r, const char *const *keys);
/* "prompt 512, output 128 tokens"; returns buf. */
const char *nx_lengths_text(const struct nx_lengths *l, char *buf, size_t size);

#endif
