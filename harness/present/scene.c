/* SPDX-License-Identifier: Apache-2.0 */
/* Panels, places and ranges. See scene.h. */
#include "present/scene.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

void nx_scene_init(struct nx_scene *s, const struct nx_grid *g, const struct nx_plot_desc *d,
                   const struct nx_tempdir *dir)
{
	*s = (struct nx_scene){.grid = g, .desc = d, .dir = dir};
	snprintf(s->xlabel, sizeof(s->xlabel), "%s", d->xlabel);
}

void nx_scene_release(struct nx_scene *s)
{
	for (size_t i = 0; i < s->n_panels; i++) {
		nx_text_release(&s->panels[i].series);
		nx_text_release(&s->panels[i].setup);
	}
	nx_text_release(&s->missing);
}

/* "lognormal mean 200 sigma 1 max 1024" is too long for the title of a panel. */
static const char *short_length(const char *text, char *buf, size_t size)
{
	double mean, sigma;
	if (sscanf(text, "lognormal mean %lf sigma %lf", &mean, &sigma) == 2)
		snprintf(buf, size, "lognormal(mean %g, \xcf\x83 %g)", mean, sigma);
	else
		snprintf(buf, size, "%s", text);
	return buf;
}

/* What the panels differ in: a list of settings of which panels are picked. */
struct setting {
	size_t length, batch;
};

static bool first_of_output(const struct nx_grid *g, size_t length)
{
	for (size_t k = 0; k < length; k++)
		if (!strcmp(g->lengths[k].out_text, g->lengths[length].out_text))
			return false;
	return true;
}

/* The settings in order; returns how many. list may be NULL, to count. */
static size_t settings(const struct nx_scene *s, struct setting *list)
{
	const struct nx_grid *g = s->grid;
	enum nx_plot_kind kind = s->desc->kind;
	bool by_batch = kind != NX_PLOT_TRADE && kind != NX_PLOT_BATCH;
	size_t n = 0;
	for (size_t l = 0; l < g->n_lengths; l++) {
		if (kind == NX_PLOT_SEQ && !first_of_output(g, l))
			continue;
		for (size_t b = 0; b < (by_batch ? g->n_batches : 1); b++, n++)
			if (list)
				list[n] = (struct setting){l, b};
	}
	return n;
}

static void add_panel(struct nx_scene *s, struct setting at)
{
	const struct nx_lengths *l = &s->grid->lengths[at.length];
	struct nx_panel *p = &s->panels[s->n_panels++];
	char seq[64], out[64];
	*p = (struct nx_panel){.length = at.length, .batch = at.batch, .out_text = l->out_text};
	nx_text_init(&p->series);
	nx_text_init(&p->setup);
	short_length(l->seq_text, seq, sizeof(seq));
	short_length(l->out_text, out, sizeof(out));
	char batch[48];
	nx_batch_text(s->grid->batches[at.batch], batch, sizeof(batch));
	if (s->desc->kind == NX_PLOT_SEQ)
		snprintf(p->title, sizeof(p->title), "%s, output %s tokens", batch, out);
	else if (s->desc->kind == NX_PLOT_TRADE || s->desc->kind == NX_PLOT_BATCH)
		snprintf(p->title, sizeof(p->title), "prompt %s, output %s tokens", seq, out);
	else
		snprintf(p->title, sizeof(p->title), "%s, prompt %s, output %s", batch, seq, out);
}

/* Many stacks need large panels, so they get few. Bars and distributions of many settings show the
 * largest batch of each length: there the stacks differ most. */
int nx_scene_panels(struct nx_scene *s, struct nx_err *err)
{
	size_t n_stacks = s->grid->run->n_stacks, n = settings(s, NULL), kept = 0;
	bool bars = s->desc->kind == NX_PLOT_MEMORY || s->desc->kind == NX_PLOT_UTIL;
	size_t most = n_stacks <= 5 ? 6 : n_stacks <= 8 || !bars ? 4 : 2;
	struct setting *list = malloc((n + 1) * sizeof(*list));
	if (!list)
		return nx_fail(err, NX_ENOMEM, "no memory for the panels of a plot");
	settings(s, list);
	bool thin = n > most &&
	            (bars || s->desc->kind == NX_PLOT_ECDF || s->desc->kind == NX_PLOT_ROOF);
	for (size_t i = 0; i < n; i++)
		if (!thin || list[i].batch + 1 == s->grid->n_batches)
			list[kept++] = list[i];
	size_t show = kept < most ? kept : most;
	for (size_t i = 0; i < show; i++)
		add_panel(s, list[show > 1 ? i * (kept - 1) / (show - 1) : kept - 1]);
	s->n_left_out = n - show;
	free(list);
	return 0;
}

int nx_scene_style(const struct nx_scene *s, size_t stack)
{
	/* The reference is black in every picture; the others keep their colours whichever it is.
	 * */
	size_t ref = s->grid->run->head.reference;
	return stack == ref ? 1 : (int)(stack < ref ? stack : stack - 1) + 2;
}

void nx_scene_stack_legend(struct nx_scene *s)
{
	const struct nx_run *r = s->grid->run;
	for (size_t i = 0; i < r->n_stacks && s->n_legend < NX_LEGEND_MAX; i++) {
		struct nx_legend_entry *e = &s->legend[s->n_legend++];
		nx_text_ellipsis(r->stacks[i], 40, e->name, sizeof(e->name));
		e->style = nx_scene_style(s, i);
	}
}

size_t nx_scene_legend_columns(const struct nx_scene *s)
{
	size_t widest = 1;
	for (size_t i = 0; i < s->n_legend; i++) {
		size_t w = nx_text_width(s->legend[i].name);
		widest = w > widest ? w : widest;
	}
	size_t fit = (size_t)((NX_CANVAS_W - 2 * NX_MARGIN) / ((double)widest * NX_CHAR_W + 70));
	fit = fit ? fit : 1;
	/* Rows of one length look better than a last one with a single entry. */
	size_t rows = (s->n_legend + fit - 1) / fit;
	return rows ? (s->n_legend + rows - 1) / rows : 1;
}

static double legend_height(const struct nx_scene *s)
{
	size_t columns = nx_scene_legend_columns(s);
	return (double)((s->n_legend + columns - 1) / columns) * NX_LEGEND_LINE;
}

/* A title wider than its panel goes on two lines, each cut to the width. Returns whether it does.
 * */
static bool break_title(char *title, size_t size, size_t fit)
{
	char first[96], second[96];
	char *comma = nx_text_width(title) > fit ? strstr(title, ", output") : NULL;
	if (!comma)
		return false;
	nx_text_ellipsis(comma + 2, fit, second, sizeof(second));
	*comma = 0;
	nx_text_ellipsis(title, fit, first, sizeof(first));
	snprintf(title, size, "%s\n%s", first, second);
	return true;
}

void nx_scene_layout(struct nx_scene *s)
{
	size_t n = s->n_panels;
	size_t columns = n <= 3 ? n : n == 4 ? 2 : 3;
	size_t rows = columns ? (n + columns - 1) / columns : 0;
	/* Horizontal bars want width more than height. */
	if (s->names_width > 0 && n == 3)
		columns = 3, rows = 1;
	double bottom = 40 + legend_height(s) + 20, top = NX_CANVAS_H - 78;
	double names = s->names_width;
	double title = 36;
	double gap_left = names > 0 ? 24 : 76, label = names > 0 ? names : 22;
	double width = (NX_CANVAS_W - 2 * NX_MARGIN - label) / (double)(columns ? columns : 1);
	double height = (top - bottom - 22) / (double)(rows ? rows : 1);
	for (size_t i = 0; i < n; i++)
		if (break_title(s->panels[i].title, sizeof(s->panels[i].title),
		                (size_t)((width - 8) / NX_CHAR_W)))
			title = 54;
	for (size_t i = 0; i < n; i++) {
		struct nx_panel *p = &s->panels[i];
		size_t c = i % columns, r = i / columns;
		p->left = NX_MARGIN + label + (double)c * width + gap_left;
		p->right = NX_MARGIN + label + (double)(c + 1) * width - 10;
		p->top = top - (double)r * height - title;
		p->bottom = top - (double)(r + 1) * height + 32;
		p->first_column = c == 0;
		p->last_row = i + columns >= n;
	}
}

void nx_scene_miss(struct nx_scene *s, const struct nx_cell_row *c, const char *reason)
{
	/* Three names say what it is about; the report has them all. */
	if (s->n_missing++ < 2) {
		char name[96];
		nx_text_printf(
			&s->missing, "%s%s at batch size %d (%s)", s->n_missing > 1 ? "; " : "",
			nx_text_ellipsis(c->stack, 24, name, sizeof(name)), c->batch_size, reason);
	}
}

/* 1-2-5 tics where few decades show, else decades: gnuplot alone would put none between 20 and 90.
 * */
static void log_tics(struct nx_panel *p, char axis, double lo, double hi)
{
	static const double steps[] = {1, 2, 5};
	double decades = log10(hi / lo);
	const char *sep = "";
	nx_text_printf(&p->setup, "set logscale %c 10; set %ctics nomirror (", axis, axis);
	for (int e = (int)floor(log10(lo)); e <= (int)ceil(log10(hi)); e++) {
		for (int k = 0; k < 3; k++) {
			double v = steps[k] * pow(10, e);
			bool shown = decades < 2.5 || k == 0;
			if (!shown || v < lo * 0.999 || v > hi * 1.001)
				continue;
			nx_text_printf(&p->setup, "%s'%.10g' %.10g", sep, v, v);
			sep = ", ";
		}
	}
	nx_text_put(&p->setup, "); ");
}

void nx_panel_range(struct nx_panel *p, char axis, double lo, double hi)
{
	bool is_log = lo > 0 && hi / lo > 12;
	double a, b;
	if (is_log) {
		double pad = pow(hi / lo, 0.06);
		a = lo / pad;
		b = hi * pad;
		log_tics(p, axis, a, b);
	} else {
		/* Zero belongs to the picture: a cut axis makes small effects look large. */
		a = lo < 0 ? lo * 1.1 : 0;
		b = hi > 0 ? hi * 1.12 : 1;
	}
	if (axis == 'x') {
		p->xmin = a;
		p->xmax = b;
		p->logx = is_log;
	} else {
		p->ymin = a;
		p->ymax = b;
		p->logy = is_log;
	}
}

void nx_panel_values(struct nx_panel *p, const double *values, size_t n)
{
	double lo = values[0], hi = values[0];
	for (size_t i = 1; i < n; i++) {
		lo = fmin(lo, values[i]);
		hi = fmax(hi, values[i]);
	}
	p->logx = lo > 0 && hi / lo >= 4;
	double pad = n > 1 ? p->logx ? log2(hi / lo) * 0.06 : (hi - lo) * 0.08 : fabs(lo) * 0.5;
	pad = pad > 0 ? pad : 0.5;
	p->xmin = p->logx ? lo * exp2(-pad) : lo - pad;
	p->xmax = p->logx ? hi * exp2(pad) : hi + pad;
	if (p->logx)
		nx_text_put(&p->setup, "set logscale x 2; ");
	nx_text_put(&p->setup, "set xtics nomirror (");
	/* Values too close to be told apart keep their tic and lose their text. */
	double shown = -1e9;
	for (size_t i = 0; i < n; i++) {
		double at = p->logx ? log2(values[i] / p->xmin) / log2(p->xmax / p->xmin)
		                    : (values[i] - p->xmin) / (p->xmax - p->xmin);
		char text[32];
		snprintf(text, sizeof(text), "%.6g", values[i]);
		double px = at * (p->right - p->left);
		bool room = px - shown > NX_CHAR_W * (double)strlen(text) + 4;
		nx_text_printf(&p->setup, "%s'%s' %.10g", i ? ", " : "", room ? text : "",
		               values[i]);
		shown = room ? px : shown;
	}
	nx_text_put(&p->setup, "); ");
}

int nx_scene_data(struct nx_scene *s, size_t panel, size_t series, const struct nx_text *data,
                  struct nx_err *err)
{
	char name[48];
	snprintf(name, sizeof(name), "p%zu_s%zu.dat", panel + 1, series + 1);
	nx_text_printf(&s->panels[panel].series, "%s%zu", s->panels[panel].series.len ? " " : "",
	               series + 1);
	return nx_tempdir_put(s->dir, name, data, err);
}
