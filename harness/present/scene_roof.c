/* SPDX-License-Identifier: Apache-2.0 */
/* The roofline: each phase of each stack below the calibrated roofs (Williams et al. 2009). See scene.h. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "present/number.h"
#include "present/profile.h"
#include "present/scene.h"

#define ROOF_PHASES_MIN 0.01 /* of the time: shorter phases are left out */
#define LABEL_H 16.0
#define LABELS_MAX 32

struct point {
	double x, y; /* flop a byte, flop/s */
	int style, phase;
};

struct points {
	struct point *v;
	size_t n;
	double peak_bytes, peak_flops; /* a second */
	const char *level;
	bool measured, counted;
};

/* Points and roofs of one panel. All its cells have one model and device; the level may differ with the working set:
 * the first one's is drawn. */
static void collect(struct nx_scene *s, const struct nx_panel *p, struct nx_profile *prof,
                    struct points *out)
{
	const struct nx_grid *g = s->grid;
	for (size_t k = 0; k < g->run->n_stacks; k++) {
		const struct nx_cell_row *c = nx_grid_cell(g, p->length, p->batch, k);
		if (!c)
			continue;
		nx_profile_of(g->run, c, prof);
		bool any = false;
		for (int i = 0; i < NX_PHASE_COUNT; i++) {
			const struct nx_profile_phase *q = &prof->phases[i];
			const struct nx_bottleneck *b = &q->bottleneck;
			if (q->share < ROOF_PHASES_MIN || !(b->intensity > 0) ||
			    !(b->flops_per_s > 0) || !isfinite(b->intensity))
				continue;
			out->v[out->n++] = (struct point){b->intensity, b->flops_per_s,
			                                  nx_scene_style(s, k), i};
			any = true;
			bool seen = strcmp(q->figures.source, "counted") != 0;
			out->measured |= seen;
			out->counted |= !seen;
			if (!out->level && q->figures.peak_bytes_per_s > 0) {
				out->peak_bytes = q->figures.peak_bytes_per_s;
				out->peak_flops = q->figures.peak_flops_per_s;
				out->level = q->figures.level;
			}
		}
		if (!any)
			nx_scene_miss(s, c,
			              c->status == NX_STATUS_OK ? "nothing was counted"
			                                        : nx_status_name(c->status));
	}
}

/* ---- labels: the phase beside each point, where there is room ---- */

static double pixel(double v, double lo, double hi, double a, double b)
{
	return a + log(v / lo) / log(hi / lo) * (b - a);
}

static double value(double px, double lo, double hi, double a, double b)
{
	return lo * pow(hi / lo, (px - a) / (b - a));
}

/* The middles of the labels that were placed, and whose they are. */
struct places {
	double x[LABELS_MAX], y[LABELS_MAX], w[LABELS_MAX];
	int phase[LABELS_MAX];
	size_t n;
};

static void pixel_of(const struct nx_panel *p, const struct point *q, double *x, double *y)
{
	*x = pixel(q->x, p->xmin, p->xmax, p->left, p->right);
	*y = pixel(q->y, p->ymin, p->ymax, p->bottom, p->top);
}

/* Below the roof, whose own text is above it. */
static bool is_below(const struct nx_panel *p, const struct points *pts, double x, double y)
{
	if (!(pts->peak_bytes > 0) || !(pts->peak_flops > 0))
		return true;
	double roof = fmin(value(x, p->xmin, p->xmax, p->left, p->right) * pts->peak_bytes,
	                   pts->peak_flops);
	return y + 3 < pixel(roof, p->ymin, p->ymax, p->bottom, p->top);
}

static bool is_free(const struct nx_panel *p, const struct points *pts, const struct places *taken,
                    double x, double y, double w)
{
	if (x - w / 2 < p->left || x + w / 2 > p->right || y - LABEL_H / 2 < p->bottom ||
	    y + LABEL_H / 2 > p->top)
		return false;
	for (size_t i = 0; i < taken->n; i++)
		if (fabs(x - taken->x[i]) < (w + taken->w[i]) / 2 &&
		    fabs(y - taken->y[i]) < LABEL_H)
			return false;
	for (size_t i = 0; i < pts->n; i++) {
		double px, py;
		pixel_of(p, &pts->v[i], &px, &py);
		if (fabs(x - px) < w / 2 + 6 && fabs(y - py) < LABEL_H / 2 + 5)
			return false;
	}
	return is_below(p, pts, x - w / 2, y + LABEL_H / 2);
}

/* One label names all points of its phase that lie near it. */
static bool is_named(const struct places *taken, int phase, double x, double y)
{
	for (size_t i = 0; i < taken->n; i++)
		if (taken->phase[i] == phase && fabs(x - taken->x[i]) < 110 &&
		    fabs(y - taken->y[i]) < 70)
			return true;
	return false;
}

static void put_label(const struct nx_panel *p, const struct points *pts, const struct point *q,
                      struct places *taken, struct nx_text *out)
{
	static const int at[][2] = {{1, 0},  {1, -1}, {0, -1}, {-1, -1},
	                            {-1, 0}, {0, 1},  {1, 1},  {-1, 1}};
	const char *name = nx_phase_name(q->phase);
	double w = NX_CHAR_W * (double)strlen(name), px, py;
	pixel_of(p, q, &px, &py);
	if (taken->n == LABELS_MAX || is_named(taken, q->phase, px, py))
		return;
	/* Near, else a little further away, where points lie close together. */
	for (size_t i = 0; i < 2 * sizeof(at) / sizeof(at[0]); i++) {
		const int *d = at[i % (sizeof(at) / sizeof(at[0]))];
		double far = i < sizeof(at) / sizeof(at[0]) ? 0 : 16;
		double x = px + d[0] * (w / 2 + 10 + far), y = py + d[1] * (LABEL_H / 2 + 8 + far);
		if (!is_free(p, pts, taken, x, y, w))
			continue;
		taken->x[taken->n] = x;
		taken->y[taken->n] = y;
		taken->phase[taken->n] = q->phase;
		taken->w[taken->n++] = w;
		nx_text_printf(out, "%.10g %.10g %s\n",
		               value(x, p->xmin, p->xmax, p->left, p->right),
		               value(y, p->ymin, p->ymax, p->bottom, p->top), name);
		return;
	}
}

static int write_labels(struct nx_scene *s, size_t panel, const struct points *pts,
                        struct nx_err *err)
{
	struct places taken = {.n = 0};
	struct nx_text text;
	char name[64];
	nx_text_init(&text);
	for (size_t i = 0; i < pts->n; i++)
		put_label(&s->panels[panel], pts, &pts->v[i], &taken, &text);
	if (!text.len)
		nx_text_put(&text, "NaN NaN -\n");
	snprintf(name, sizeof(name), "labels_p%zu.dat", panel + 1);
	int rc = nx_tempdir_put(s->dir, name, &text, err);
	nx_text_release(&text);
	return rc;
}

/* ---- the panel ---- */

/* Along the slope where what is seen of it is long enough, else in the corner below, where points are rare. The
 * last number is its angle in degrees. */
static void put_slope_text(const struct nx_panel *p, const struct points *pts, double ridge,
                           struct nx_text *out)
{
	char text[96], rate[32];
	double from = fmax(p->xmin, p->ymin / pts->peak_bytes), to = fmin(ridge, p->xmax);
	double slope = log(p->xmax / p->xmin) / log(p->ymax / p->ymin) * (p->top - p->bottom) /
	               (p->right - p->left);
	double seen = (pixel(to, p->xmin, p->xmax, p->left, p->right) -
	               pixel(from, p->xmin, p->xmax, p->left, p->right)) *
	              sqrt(1 + slope * slope);
	snprintf(text, sizeof(text), "%s, %s",
	         nx_rate_text(pts->peak_bytes, "B/s", rate, sizeof(rate)), pts->level);
	if (seen > NX_CHAR_W * (double)strlen(text) + 20)
		nx_text_printf(out, "%.10g %.10g \"%s\" %.4g\n", sqrt(from * to),
		               sqrt(from * to) * pts->peak_bytes, text,
		               atan(slope) * 57.29577951308232);
	else
		nx_text_printf(out, "%.10g %.10g \"slope: %s\" 0\n",
		               value(p->right - NX_CHAR_W * ((double)strlen(text) + 8) / 2, p->xmin,
		                     p->xmax, p->left, p->right),
		               value(p->bottom + 12, p->ymin, p->ymax, p->bottom, p->top), text);
}

/* The slope up to the ridge, then the ceiling; with their figures as texts. */
static int write_roof(struct nx_scene *s, size_t panel, const struct points *pts,
                      struct nx_err *err)
{
	const struct nx_panel *p = &s->panels[panel];
	struct nx_text roof, texts;
	char name[64], rate[32];
	nx_text_init(&roof);
	nx_text_init(&texts);
	if (pts->peak_bytes > 0 && pts->peak_flops > 0) {
		double ridge = pts->peak_flops / pts->peak_bytes;
		nx_text_printf(&roof, "%.10g %.10g\n%.10g %.10g\n%.10g %.10g\n", p->xmin,
		               p->xmin * pts->peak_bytes, ridge, pts->peak_flops,
		               fmax(p->xmax, ridge), pts->peak_flops);
		nx_text_printf(&texts, "%.10g %.10g \"%s\" 0\n", p->xmax, pts->peak_flops,
		               nx_rate_text(pts->peak_flops, "FLOP/s", rate, sizeof(rate)));
		put_slope_text(p, pts, ridge, &texts);
	} else {
		nx_text_put(&roof, "NaN NaN\n");
		nx_text_put(&texts, "NaN NaN \"\" 0\nNaN NaN \"\" 0\n");
	}
	snprintf(name, sizeof(name), "roof_p%zu.dat", panel + 1);
	int rc = nx_tempdir_put(s->dir, name, &roof, err);
	snprintf(name, sizeof(name), "texts_p%zu.dat", panel + 1);
	rc = rc ? rc : nx_tempdir_put(s->dir, name, &texts, err);
	nx_text_release(&roof);
	nx_text_release(&texts);
	return rc;
}

/* Points of one stack, in one file. */
static int write_points(struct nx_scene *s, size_t panel, const struct points *pts,
                        struct nx_err *err)
{
	int rc = 0;
	for (size_t k = 0; k < s->grid->run->n_stacks && !rc; k++) {
		int style = nx_scene_style(s, k);
		struct nx_text text;
		nx_text_init(&text);
		for (size_t i = 0; i < pts->n; i++)
			if (pts->v[i].style == style)
				nx_text_printf(&text, "%.10g %.10g %d\n", pts->v[i].x, pts->v[i].y,
				               style);
		if (text.len)
			rc = nx_scene_data(s, panel, (size_t)style - 1, &text, err);
		nx_text_release(&text);
	}
	return rc;
}

/* Decades, so that slopes can be read. */
static void log_axis(struct nx_panel *p, char axis, double lo, double hi)
{
	double a = pow(10, floor(log10(lo / 1.5))), b = pow(10, ceil(log10(hi * 1.5)));
	nx_text_printf(&p->setup,
	               "set logscale %c 10; set %ctics nomirror 10; set format %c '%s'; ", axis,
	               axis, axis, axis == 'x' ? "%.10g" : "%.0s %c"); /* 10 T */
	if (axis == 'x') {
		p->xmin = a;
		p->xmax = b;
		p->logx = true;
	} else {
		p->ymin = a;
		p->ymax = b;
		p->logy = true;
	}
}

static int fill_panel(struct nx_scene *s, size_t panel, struct nx_profile *prof, struct points *pts,
                      struct nx_err *err)
{
	struct nx_panel *p = &s->panels[panel];
	double x0 = INFINITY, x1 = 0, y0 = INFINITY, y1 = 0;
	pts->n = 0;
	pts->peak_bytes = pts->peak_flops = 0;
	pts->level = NULL;
	collect(s, p, prof, pts);
	for (size_t i = 0; i < pts->n; i++) {
		x0 = fmin(x0, pts->v[i].x);
		x1 = fmax(x1, pts->v[i].x);
		y0 = fmin(y0, pts->v[i].y);
		y1 = fmax(y1, pts->v[i].y);
	}
	if (pts->peak_bytes > 0 && pts->peak_flops > 0) {
		x1 = fmax(x1, pts->peak_flops / pts->peak_bytes * 2);
		y1 = fmax(y1, pts->peak_flops);
	}
	if (!pts->n) {
		snprintf(p->message, sizeof(p->message), "nothing was measured here");
		p->xmin = p->ymin = 0;
		p->xmax = p->ymax = 1;
		return 0;
	}
	log_axis(p, 'x', x0, x1);
	log_axis(p, 'y', y0, y1);
	int rc = write_roof(s, panel, pts, err);
	rc = rc ? rc : write_points(s, panel, pts, err);
	return rc ? rc : write_labels(s, panel, pts, err);
}

int nx_scene_roof(struct nx_scene *s, struct nx_err *err)
{
	size_t n = s->grid->run->n_stacks;
	struct nx_profile *prof = malloc(sizeof(*prof));
	struct points pts = {.v = calloc(n * NX_PHASE_COUNT + 1, sizeof(*pts.v))};
	int rc = prof && pts.v ? 0 : nx_fail(err, NX_ENOMEM, "no memory for the roofline");
	nx_scene_stack_legend(s);
	nx_scene_layout(s);
	for (size_t i = 0; i < s->n_panels && !rc; i++)
		rc = fill_panel(s, i, prof, &pts, err);
	snprintf(s->extra, sizeof(s->extra), "%s",
	         pts.measured && pts.counted ? "Bytes as counters saw them, else counted."
	         : pts.measured              ? "Bytes as counters saw them."
	                                     : "Bytes and operations are counted.");
	free(pts.v);
	free(prof);
	return rc;
}
