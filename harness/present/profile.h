/* SPDX-License-Identifier: Apache-2.0
 *
 * present/profile.h: memory, rates and bounds of each phase of a run's cells, for people (text, Markdown) and
 * machines (CSV, JSON). Works for any run file that has phases, not for profiles alone.
 *
 * Bytes are measured (cupti: the device's counters, by range of steps, times the steps; perf: last-level-cache misses of 64 bytes) where the kernel allowed it and memory is what
 * the working set is read from; else counted. The run is borrowed.
 */
#ifndef NEXUS_PRESENT_PROFILE_H
#define NEXUS_PRESENT_PROFILE_H

#include "measure/bottleneck.h"
#include "present/table.h"
#include "record/run.h"

struct nx_profile_phase {
	const struct nx_phase_use *use; /* of the cell */
	struct nx_bound_figures figures;
	struct nx_bottleneck bottleneck;
	double share;        /* of the time of all steps */
	double missed_bytes; /* last-level-cache misses x 64; NaN = not measured */
	double seen_bytes,
		seen_flops; /* by the device's counters, of all steps; NaN = not measured */
};

struct nx_profile {
	const struct nx_run *run;
	const struct nx_cell_row *cell;
	struct nx_profile_phase phases[NX_PHASE_COUNT];
	int main; /* the phase with most time, of those bound by capacity if any; -1 = no step was run */
	double time_s, mem_bytes;
	bool disturbed;    /* no trial of the cell was clean */
	bool cached;       /* the cache's peak applies */
	char why[768];     /* of the whole load: one sentence */
	const char *helps; /* another */
};

struct nx_profile_options {
	/* Is there a technique of that name here? NULL = all are. */
	bool (*built)(void *ctx, const char *technique);
	void *ctx;
};

void nx_profile_of(const struct nx_run *run, const struct nx_cell_row *cell,
                   struct nx_profile *out);
/* All cells of the run; format is not HTML. CSV has one row a cell and phase. */
int nx_profile_write(const struct nx_run *run, const struct nx_profile_options *o,
                     enum nx_table_format format, struct nx_text *out, struct nx_err *err);

/* ---- inside ---- */

/* What the instruments could not say, how far they disturbed, what the device reported; nothing where there are none.
 * One sentence a line. */
void nx_profile_remarks(const struct nx_cell_row *c, struct nx_text *out);
/* The kernels of the traced steps, those with most time; false when there are none. */
bool nx_profile_kernels(const struct nx_cell_row *c, size_t most, struct nx_table *t);
/* Means over the ranges of each phase of what was worked out of the counters; false when there is none. */
bool nx_profile_worked_out(const struct nx_cell_row *c, struct nx_table *t);
/* Share of decode steps in which the device idled, as traced; NaN = not traced. */
double nx_profile_idle(const struct nx_cell_row *c);
void nx_profile_csv(const struct nx_run *run, struct nx_text *out);
void nx_profile_json(const struct nx_run *run, const struct nx_profile_options *o,
                     struct nx_text *out);
/* "weight_quant, speculative": those named by b that are not built; "" when all are. */
const char *nx_profile_missing(const struct nx_profile_options *o, const struct nx_bottleneck *b,
                               char *buf, size_t size);

#endif
