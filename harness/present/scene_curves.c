/* SPDX-License-Identifier: Apache-2.0 */
/* Curves over latency, batch size and prompt length, and distributions. See scene.h. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "present/scene.h"

struct point {
	struct nx_estimate x, y;
	int32_t batch;
};

struct curve {
	struct point *points; /* [cap] */
	size_t n;
};

/* An estimate without an interval has one of no width, so that it can be drawn like the others. */
static struct nx_estimate closed(struct nx_estimate e)
{
	e.lo = isfinite(e.lo) ? e.lo : e.value;
	e.hi = isfinite(e.hi) ? e.hi : e.value;
	return e;
}

static void add_point(struct nx_scene *s, const struct nx_cell_row *c, struct curve *out)
{
	const struct nx_plot_desc *d = s->desc;
	if (!c)
		return;
	struct nx_estimate y = c->metrics[d->metric], x;
	enum nx_metric missing = d->metric;
	if (d->kind == NX_PLOT_TRADE) {
		x = closed(c->metrics[NX_METRIC_TPOT_P50]);
		missing = isfinite(y.value) ? NX_METRIC_TPOT_P50 : missing;
	} else {
		double at = d->kind == NX_PLOT_BATCH ? c->batch_size : c->seq_len;
		x = (struct nx_estimate){at, at, at};
	}
	if (c->status != NX_STATUS_OK || !isfinite(y.value) || !isfinite(x.value)) {
		nx_scene_miss(s, c, nx_missing_reason(c, missing));
		return;
	}
	out->points[out->n++] = (struct point){x, closed(y), c->batch_size};
}

/* The points of one stack in one panel, in the order of the sweep's axis. */
static void collect(struct nx_scene *s, const struct nx_panel *p, size_t stack, struct curve *out)
{
	const struct nx_grid *g = s->grid;
	out->n = 0;
	if (s->desc->kind != NX_PLOT_SEQ) {
		for (size_t b = 0; b < g->n_batches; b++)
			add_point(s, nx_grid_cell(g, p->length, b, stack), out);
		/* The largest that fits comes last and need not be the largest of the sweep. */
		for (size_t i = out->n;
		     i > 1 && out->points[i - 1].batch < out->points[i - 2].batch; i--) {
			struct point last = out->points[i - 1];
			out->points[i - 1] = out->points[i - 2];
			out->points[i - 2] = last;
		}
		return;
	}
	for (size_t l = 0; l < g->n_lengths; l++)
		if (!strcmp(g->lengths[l].out_text, p->out_text))
			add_point(s, nx_grid_cell(g, l, p->batch, stack), out);
}

/* Adds a batch size of the axis to the n values, once and in order; of the largest that fits one for each stack. */
static size_t batch_values(const struct nx_grid *g, size_t length, size_t batch, double *v,
                           size_t n)
{
	for (size_t stack = 0; stack < g->run->n_stacks; stack++) {
		const struct nx_cell_row *c = nx_grid_cell(g, length, batch, stack);
		size_t at = 0;
		if (!c || c->batch_size == NX_BATCH_FIT)
			continue;
		while (at < n && v[at] < c->batch_size)
			at++;
		if (at < n && v[at] == c->batch_size)
			continue;
		memmove(v + at + 1, v + at, (n - at) * sizeof(*v));
		v[at] = c->batch_size;
		n++;
	}
	return n;
}

static void axis_values(struct nx_scene *s, struct nx_panel *p)
{
	const struct nx_grid *g = s->grid;
	double *v = malloc((g->n_batches + g->n_lengths + g->run->n_stacks + 1) * sizeof(*v));
	size_t n = 0;
	if (!v)
		return;
	if (s->desc->kind == NX_PLOT_BATCH)
		for (size_t b = 0; b < g->n_batches; b++)
			n = batch_values(g, p->length, b, v, n);
	else
		for (size_t l = 0; l < g->n_lengths; l++)
			if (!strcmp(g->lengths[l].out_text, p->out_text) &&
			    (!n || v[n - 1] != g->lengths[l].seq))
				v[n++] = g->lengths[l].seq;
	nx_panel_values(p, v, n);
	free(v);
}

/* ---- labels of batch sizes beside the points ---- */

struct box {
	double x0, y0, x1, y1;
};

struct boxes {
	struct box *v;
	size_t n;
};

static bool is_free(const struct boxes *taken, const struct box *b)
{
	for (size_t i = 0; i < taken->n; i++) {
		const struct box *t = &taken->v[i];
		if (b->x0 < t->x1 && t->x0 < b->x1 && b->y0 < t->y1 && t->y0 < b->y1)
			return false;
	}
	return true;
}

static double to_pixel(double v, double lo, double hi, bool is_log, double a, double b)
{
	double f = is_log ? log(v / lo) / log(hi / lo) : (v - lo) / (hi - lo);
	return a + f * (b - a);
}

static double from_pixel(double px, double lo, double hi, bool is_log, double a, double b)
{
	double f = (px - a) / (b - a);
	return is_log ? lo * pow(hi / lo, f) : lo + f * (hi - lo);
}

static void pixel_of(const struct nx_panel *p, const struct point *q, double *x, double *y)
{
	*x = to_pixel(q->x.value, p->xmin, p->xmax, p->logx, p->left, p->right);
	*y = to_pixel(q->y.value, p->ymin, p->ymax, p->logy, p->bottom, p->top);
}

/* The place around the point, in the order of liking, where the text hits none of the boxes. */
static bool find_place(const struct nx_panel *p, const struct point *q, double w, double h,
                       const struct boxes *taken, const struct boxes *lines, struct box *out)
{
	static const int offsets[][2] = {{0, 1}, {1, 0},  {-1, 0}, {0, -1},
	                                 {1, 1}, {-1, 1}, {1, -1}, {-1, -1}};
	double px, py;
	pixel_of(p, q, &px, &py);
	for (size_t i = 0; i < sizeof(offsets) / sizeof(offsets[0]); i++) {
		double cx = px + offsets[i][0] * (w / 2 + 9), cy = py + offsets[i][1] * (h / 2 + 8);
		struct box b = {cx - w / 2, cy - h / 2, cx + w / 2, cy + h / 2};
		if (b.x0 < p->left || b.x1 > p->right || b.y0 < p->bottom || b.y1 > p->top)
			continue;
		if (!is_free(taken, &b) || (lines && !is_free(lines, &b)))
			continue;
		*out = b;
		return true;
	}
	return false;
}

/* Best off the lines too, at least off points and other texts, else nowhere: its neighbours on the
 * curve tell the order. */
static void place_label(const struct nx_panel *p, const struct point *q, int style,
                        struct boxes *taken, const struct boxes *lines, struct nx_text *out)
{
	char text[16];
	struct box b;
	snprintf(text, sizeof(text), "%d", q->batch);
	double w = 8.0 * (double)strlen(text) + 2, h = 14;
	if (!find_place(p, q, w, h, taken, lines, &b) && !find_place(p, q, w, h, taken, NULL, &b))
		return;
	taken->v[taken->n++] = b;
	nx_text_printf(out, "%.10g %.10g %s %d\n",
	               from_pixel((b.x0 + b.x1) / 2, p->xmin, p->xmax, p->logx, p->left, p->right),
	               from_pixel((b.y0 + b.y1) / 2, p->ymin, p->ymax, p->logy, p->bottom, p->top),
	               text, style);
}

/* Small boxes along a curve. */
#define LINE_STEPS 96
#define LABELS_MAX 40
static void add_line(const struct nx_panel *p, const struct curve *c, struct boxes *lines)
{
	for (size_t k = 0; k + 1 < c->n; k++) {
		double x0, y0, x1, y1;
		pixel_of(p, &c->points[k], &x0, &y0);
		pixel_of(p, &c->points[k + 1], &x1, &y1);
		for (int i = 0; i < LINE_STEPS; i++) {
			double x = x0 + (x1 - x0) * i / LINE_STEPS,
			       y = y0 + (y1 - y0) * i / LINE_STEPS;
			lines->v[lines->n++] = (struct box){x - 2, y - 2, x + 2, y + 2};
		}
	}
}

static int write_labels(struct nx_scene *s, size_t panel, const struct curve *curves,
                        struct nx_err *err)
{
	const struct nx_panel *p = &s->panels[panel];
	size_t n_stacks = s->grid->run->n_stacks, n = 0;
	for (size_t i = 0; i < n_stacks; i++)
		n += curves[i].n;
	struct boxes taken = {.v = malloc((2 * n + 1) * sizeof(struct box))};
	struct boxes lines = {.v = malloc((LINE_STEPS * n + 1) * sizeof(struct box))};
	struct nx_text text;
	char name[64];
	int rc;
	nx_text_init(&text);
	if (!taken.v || !lines.v) {
		rc = nx_fail(err, NX_ENOMEM, "no memory for the labels of a plot");
		goto release;
	}
	for (size_t i = 0; i < n_stacks; i++) {
		add_line(p, &curves[i], &lines);
		for (size_t k = 0; k < curves[i].n; k++) {
			double x, y;
			pixel_of(p, &curves[i].points[k], &x, &y);
			taken.v[taken.n++] = (struct box){x - 6, y - 6, x + 6, y + 6};
		}
	}
	/* Among many points only the ends of curves are named. */
	for (size_t i = 0; i < n_stacks; i++)
		for (size_t k = 0; k < curves[i].n; k++)
			if (n <= LABELS_MAX || k == 0 || k + 1 == curves[i].n ||
			    i == s->grid->run->head.reference)
				place_label(p, &curves[i].points[k], nx_scene_style(s, i), &taken,
				            &lines, &text);
	/* A file without a line makes gnuplot warn; this one lies outside every range. */
	if (!text.len)
		nx_text_put(&text, "NaN NaN 0 1\n");
	snprintf(name, sizeof(name), "labels_p%zu.dat", panel + 1);
	rc = nx_tempdir_put(s->dir, name, &text, err);
release:
	nx_text_release(&text);
	free(lines.v);
	free(taken.v);
	return rc;
}

static int write_curve(struct nx_scene *s, size_t panel, size_t stack, const struct curve *c,
                       struct nx_err *err)
{
	struct nx_text text;
	nx_text_init(&text);
	for (size_t k = 0; k < c->n; k++) {
		const struct point *q = &c->points[k];
		double x = q->x.value;
		/* Stacks of equal speed would hide each other's intervals: each steps aside a
		 * little. */
		if (s->desc->kind != NX_PLOT_TRADE) {
			const struct nx_panel *p = &s->panels[panel];
			double at = ((double)stack + 0.5) / (double)s->grid->run->n_stacks - 0.5;
			double px =
				to_pixel(x, p->xmin, p->xmax, p->logx, p->left, p->right) + at * 14;
			x = from_pixel(px, p->xmin, p->xmax, p->logx, p->left, p->right);
		}
		nx_text_printf(&text, "%.10g %.10g %.10g %.10g %.10g %.10g %d\n", x, q->y.value,
		               q->x.lo, q->x.hi, q->y.lo, q->y.hi, nx_scene_style(s, stack));
	}
	int rc = c->n ? nx_scene_data(s, panel, (size_t)nx_scene_style(s, stack) - 1, &text, err)
	              : 0;
	nx_text_release(&text);
	return rc;
}

static int fill_panel(struct nx_scene *s, size_t panel, struct curve *curves, struct nx_err *err)
{
	struct nx_panel *p = &s->panels[panel];
	double x0 = INFINITY, x1 = -INFINITY, y0 = INFINITY, y1 = -INFINITY;
	size_t n = 0;
	for (size_t i = 0; i < s->grid->run->n_stacks; i++) {
		collect(s, p, i, &curves[i]);
		n += curves[i].n;
		for (size_t k = 0; k < curves[i].n; k++) {
			const struct point *q = &curves[i].points[k];
			x0 = fmin(x0, q->x.lo);
			x1 = fmax(x1, q->x.hi);
			y0 = fmin(y0, q->y.lo);
			y1 = fmax(y1, q->y.hi);
		}
	}
	if (!n) {
		snprintf(p->message, sizeof(p->message), "nothing was measured here");
		x0 = y0 = 0;
		x1 = y1 = 1;
	}
	nx_panel_range(p, 'y', y0, y1);
	if (s->desc->kind == NX_PLOT_TRADE)
		nx_panel_range(p, 'x', x0, x1);
	else
		axis_values(s, p);
	int rc = 0;
	for (size_t i = 0; i < s->grid->run->n_stacks && !rc; i++)
		rc = write_curve(s, panel, i, &curves[i], err);
	return rc ? rc : s->desc->kind == NX_PLOT_TRADE ? write_labels(s, panel, curves, err) : 0;
}

int nx_scene_curves(struct nx_scene *s, struct nx_err *err)
{
	size_t n = s->grid->run->n_stacks, most = s->grid->n_batches + s->grid->n_lengths;
	int rc = 0;
	nx_scene_stack_legend(s);
	nx_scene_layout(s);
	struct curve *curves = calloc(n + 1, sizeof(*curves));
	struct point *points = calloc((n + 1) * (most + 1), sizeof(*points));
	if (!curves || !points)
		rc = nx_fail(err, NX_ENOMEM, "no memory for the curves of a plot");
	for (size_t i = 0; i < n && !rc; i++)
		curves[i].points = points + i * (most + 1);
	for (size_t i = 0; i < s->n_panels && !rc; i++)
		rc = fill_panel(s, i, curves, err);
	free(points);
	free(curves);
	return rc;
}
