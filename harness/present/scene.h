/* SPDX-License-Identifier: Apache-2.0
 *
 * present/scene.h: one picture before gnuplot draws it (inside the plots, see plot.h).
 *
 * A scene is up to 6 panels on a canvas of 1200 x 800 px, a legend below, and data files. Places
 * are computed here, in pixels from the lower left corner, so that texts cannot overlap.
 */
#ifndef NEXUS_PRESENT_SCENE_H
#define NEXUS_PRESENT_SCENE_H

#include "present/gnuplot.h"
#include "present/plot.h"

#define NX_CANVAS_W 1200
#define NX_CANVAS_H 800
/* Widths of text are estimates for DejaVu Sans at the sizes of plots/style.gp [px a character]. */
#define NX_CHAR_W 8.0
#define NX_LEGEND_LINE 24.0
#define NX_MARGIN 24.0
#define NX_PANELS_MAX 6
#define NX_LEGEND_MAX 64

struct nx_panel {
	size_t length, batch; /* which cells, as the kind of plot takes it */
	const char *out_text; /* the output length */
	char title[192];
	char message[192];               /* instead of data */
	double left, right, bottom, top; /* [px] of the axes' box */
	double xmin, xmax, ymin, ymax;
	bool logx, logy;
	bool first_column, last_row;
	struct nx_text series; /* numbers from 1 of the data files "p<panel>_s<series>.dat" */
	struct nx_text setup;  /* gnuplot commands, for tics */
};

struct nx_legend_entry {
	char name[80];
	int style; /* line style, or colour of a box, from 1 */
	bool hatch;
};

struct nx_scene {
	const struct nx_grid *grid;
	const struct nx_plot_desc *desc;
	const struct nx_tempdir *dir;
	struct nx_panel panels[NX_PANELS_MAX];
	size_t n_panels, n_left_out; /* settings that have no panel */
	struct nx_legend_entry legend[NX_LEGEND_MAX];
	size_t n_legend;
	struct nx_text missing; /* "paged at batch size 8 (out of memory); ..." */
	size_t n_missing;
	char xlabel[96], extra[96]; /* extra: more for the line below the title */
	double names_width;         /* [px] for names on the y axis; 0 = numbers */
};

void nx_scene_init(struct nx_scene *s, const struct nx_grid *g, const struct nx_plot_desc *d,
                   const struct nx_tempdir *dir);
void nx_scene_release(struct nx_scene *s);

/* Chooses panels: lengths x batch sizes, or lengths alone, or batch sizes x output lengths. Of more
 * than can be read, some spread evenly over the sweep, its ends among them. */
int nx_scene_panels(struct nx_scene *s, struct nx_err *err);
/* A legend of all stacks, as lines. */
void nx_scene_stack_legend(struct nx_scene *s);
size_t nx_scene_legend_columns(const struct nx_scene *s);
int nx_scene_style(const struct nx_scene *s, size_t stack);
/* Places panels; after the legend and names_width are known, before pixels are asked for. */
void nx_scene_layout(struct nx_scene *s);
void nx_scene_miss(struct nx_scene *s, const struct nx_cell_row *c, const char *reason);
/* Sets the range and tics of an axis so that [lo, hi] fits; logarithmic where it spans a factor of
 * 12. */
void nx_panel_range(struct nx_panel *p, char axis, double lo, double hi);
/* Tics at these values exactly; base 2 where they span a factor of 4. Sets the range too. */
void nx_panel_values(struct nx_panel *p, const double *values, size_t n);
int nx_scene_data(struct nx_scene *s, size_t panel, size_t series, const struct nx_text *data,
                  struct nx_err *err);
#define NX_SCENE_SHARE "share" /* link to the templates in the temporary folder */
/* The script that loads the template. terminal: "png" or "svg". */
int nx_scene_script(struct nx_scene *s, const char *terminal, struct nx_err *err);

/* Fill the scene with data. */
int nx_scene_curves(struct nx_scene *s, struct nx_err *err); /* TRADE, BATCH, SEQ */
int nx_scene_ecdf(struct nx_scene *s, struct nx_err *err);
int nx_scene_memory(struct nx_scene *s, struct nx_err *err);
int nx_scene_util(struct nx_scene *s, struct nx_err *err);
int nx_scene_roof(struct nx_scene *s, struct nx_err *err);

#endif
