/* SPDX-License-Identifier: Apache-2.0 */
/* The roofline: each phase of each stack below the calibrated roofs (Williams et al. 2009). See scene.h. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "present/profile.h"
#include "present/scene.h"

#define ROOF_PHASES_MIN 0.01 /* of the time: shorter phases are left out */
#define LABEL_H 16.0

struct point {
	double x, y; /* flop a byte, GFLOP/s */
	int style, phase;
};

struct points {
	struct point *v;
	size_t n;
	double peak_bytes, peak_flops; /* GB/s, GFLOP/s */
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
			out->v[out->n++] = (struct point){b->intensity, b->flops_per_s / 1e9,
			                                  nx_scene_style(s, k), i};
			any = true;
			bool seen = strcmp(q->figures.source, "counted") != 0;
			out->measured |= seen;
			out->counted |= !seen;
			if (!out->level && q->figures.peak_bytes_per_s > 0) {
				out->peak_bytes = q->figures.peak_bytes_per_s / 1e9;
				out->peak_flops = q->figures.peak_flops_per_s / 1e9;
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

/* The middles of the labels that were placed. */
struct places {
	double x[64], y[64], w[64];
	size_t n;
};

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
	for (size_t i = 0; i < pts->n; i++)
		if (fabs(x - pixel(pts->v[i].x, p->xmin, p->xmax, p->left, p->right)) < w / 2 + 6 &&
		    fabs(y - pixel(pts->v[i].y, p->ymin, p->ymax, p->bottom, p->top)) <
		            LABEL_H / 2 + 5)
			return false;
	return true;
}

static void put_label(const struct nx_panel *p, const struct points *pts, const struct point *q,
                      struct places *taken, struct nx_text *out)
{
	static const int at[][2] = {{1, -1},  {1, 0}, {-1, 0}, {0, -1},
	                            {-1, -1}, {0, 1}, {1, 1},  {-1, 1}};
	const char *name = nx_phase_name(q->phase);
	double w = NX_CHAR_W * (double)strlen(name);
	double px = pixel(q->x, p->xmin, p->xmax, p->left, p->right);
	double py = pixel(q->y, p->ymin, p->ymax, p->bottom, p->top);
	if (taken->n == sizeof(taken->x) / sizeof(taken->x[0]))
		return;
	for (size_t i = 0; i < sizeof(at) / sizeof(at[0]); i++) {
		double x = px + at[i][0] * (w / 2 + 10), y = py + at[i][1] * (LABEL_H / 2 + 8);
		if (!is_free(p, pts, taken, x, y, w))
			continue;
		taken->x[taken->n] = x;
		taken->y[taken->n] = y;
		taken->w[taken->n++] = w;
		nx_text_printf(out, "%.10g %.10g %s %d\n",
		               value(x, p->xmin, p->xmax, p->left, p->right),
		               value(y, p->ymin, p->ymax, p->bottom, p->top), name, q->style);
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
		nx_text_put(&text, "NaN NaN - 1\n");
	snprintf(name, sizeof(name), "labels_p%zu.dat", panel + 1);
	int rc = nx_tempdir_put(s->dir, name, &text, err);
	nx_text_release(&text);
	return rc;
}

/* ---- the panel ---- */

/* The slope up to the ridge, then the ceiling; with their figures as texts. */
static int write_roof(struct nx_scene *s, size_t panel, const struct points *pts,
                      struct nx_err *err)
{
	const struct nx_panel *p = &s->panels[panel];
	struct nx_text roof, texts;
	char name[64];
	nx_text_init(&roof);
	nx_text_init(&texts);
	if (pts->peak_bytes > 0 && pts->peak_flops > 0) {
		double ridge = pts->peak_flops / pts->peak_bytes;
		nx_text_printf(&roof, "%.10g %.10g\n%.10g %.10g\n%.10g %.10g\n", p->xmin,
		               p->xmin * pts->peak_bytes, ridge, pts->peak_flops,
		               fmax(p->xmax, ridge), pts->peak_flops);
		/* Texts stand on the left and right of the ridge, above the lines. */
		nx_text_printf(&texts, "%.10g %.10g \"%.4g GFLOP/s\" 0\n", p->xmax, pts->peak_flops,
		               pts->peak_flops);
		double slope = log(p->ymax / p->ymin) / log(p->xmax / p->xmin);
		double degrees = atan((p->top - p->bottom) / (p->right - p->left) / slope) *
		                 57.29577951308232;
		double from = fmax(p->xmin, p->ymin / pts->peak_bytes),
		       at = sqrt(from * fmin(ridge, p->xmax));
		nx_text_printf(&texts, "%.10g %.10g \"%.4g GB/s, %s\" %.4g\n", at,
		               at * pts->peak_bytes, pts->peak_bytes, pts->level, degrees);
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
	               "set logscale %c 10; set %ctics nomirror 10; set format %c '%%.10g'; ", axis,
	               axis, axis);
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
