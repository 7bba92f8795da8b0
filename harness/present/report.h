/* SPDX-License-Identifier: Apache-2.0
 *
 * present/report.h: everything that a run file says, for people (Markdown, HTML) and machines (CSV,
 * JSON).
 *
 * Figures come with unit and interval; one that is missing shows its reason. The run is borrowed.
 */
#ifndef NEXUS_PRESENT_REPORT_H
#define NEXUS_PRESENT_REPORT_H

#include "present/doc.h"
#include "present/grid.h"

struct nx_report_options {
	const char *share;    /* folder of the plot templates for the HTML page; NULL = no plots */
	const char *no_plots; /* why share is NULL, a sentence for the page; may be NULL */
};

int nx_report_md(const struct nx_run *run, struct nx_text *out, struct nx_err *err);
int nx_report_html(const struct nx_run *run, const struct nx_report_options *o, struct nx_text *out,
                   struct nx_err *err);
/* One row a cell: numbers bare, in the units that the header names; a missing number is empty. */
int nx_report_csv(const struct nx_run *run, struct nx_text *out, struct nx_err *err);
int nx_report_json(const struct nx_run *run, struct nx_text *out, struct nx_err *err);

/* ---- inside the report ---- */

/* The two or three sentences on top; each ends with a full stop. Texts are appended to out, split
 * by '\n'. */
void nx_report_verdict(const struct nx_grid *g, struct nx_text *out);
void nx_report_where(struct nx_doc *d, const struct nx_run *run);
void nx_report_results(struct nx_doc *d, const struct nx_grid *g);
/* By phase: what bounds each load, with evidence; what the instruments say; time by kernel. */
void nx_report_bounds(struct nx_doc *d, const struct nx_grid *g);
/* Two lines: what bounds this cell, and what would help; nothing where no step was recorded. */
void nx_report_bound_of(const struct nx_run *r, const struct nx_cell_row *c, struct nx_text *out);
void nx_report_memory(struct nx_doc *d, const struct nx_grid *g);
void nx_report_gate(struct nx_doc *d, const struct nx_grid *g);
/* Of stacks with lossy numerics; nothing when there are none. */
void nx_report_quality(struct nx_doc *d, const struct nx_grid *g);
void nx_report_failures(struct nx_doc *d, const struct nx_grid *g);
void nx_report_stacks(struct nx_doc *d, const struct nx_grid *g);
void nx_report_counters(struct nx_doc *d, const struct nx_grid *g);
void nx_report_again(struct nx_doc *d, const struct nx_run *run);
void nx_report_definitions(struct nx_doc *d);

#endif
