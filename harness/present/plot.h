/* SPDX-License-Identifier: Apache-2.0
 *
 * present/plot.h: pictures of a run, drawn by gnuplot from the templates in plots/.
 *
 * Each plot answers the question in its title. Data go through a temporary folder that is removed;
 * the harness computes what belongs where (panels, ranges, labels), the templates say how it looks.
 * Without gnuplot: NX_EENV and a sentence that names the package.
 */
#ifndef NEXUS_PRESENT_PLOT_H
#define NEXUS_PRESENT_PLOT_H

#include "present/grid.h"
#include "present/text.h"

enum nx_plot_kind {
	NX_PLOT_TRADE,  /* throughput over latency, a point a batch size */
	NX_PLOT_BATCH,  /* a metric over batch size */
	NX_PLOT_SEQ,    /* a metric over prompt length */
	NX_PLOT_MEMORY, /* stacked bars by owner */
	NX_PLOT_UTIL,   /* bars of utilisation */
	NX_PLOT_ECDF,   /* distribution over requests */
	NX_PLOT_ROOF,   /* flop/s over flop a byte, below the roofs */
};

struct nx_plot_desc {
	const char *name; /* of the file, without its ending */
	enum nx_plot_kind kind;
	/* BATCH, SEQ: on the y axis; ECDF: TTFT_P50 or TPOT_P50 picks the samples. */
	enum nx_metric metric;
	const char *title, *xlabel, *ylabel;
	const char *hint; /* how to read it: part of the line below the title */
};

const struct nx_plot_desc *nx_plot_list(size_t *n);
const struct nx_plot_desc *nx_plot_find(const char *name); /* or NULL */

/* The folder of the templates: $NEXUS_SHARE/plots, $NEXUS_SHARE, <exe_dir>/../plots,
 * <exe_dir>/../share/nexus/plots. */
int nx_plot_share(char *buf, size_t size, const char *exe_dir, struct nx_err *err);

/* Writes DIR/<name>.png and .svg, 1200 x 800, creating DIR. Whatever gnuplot said is added to
 * notes. */
int nx_plot_write(const struct nx_run *run, const char *name, const char *share, const char *dir,
                  struct nx_text *notes, struct nx_err *err);
int nx_plot_svg(const struct nx_run *run, const char *name, const char *share, struct nx_text *svg,
                struct nx_text *notes, struct nx_err *err);

#endif
