/* SPDX-License-Identifier: Apache-2.0 */
/* Distributions over requests, as the share that is at most so long. See scene.h. */
#include <math.h>
#include <stdlib.h>

#include "present/scene.h"

/* More points than pixels make files large and pictures no better. */
#define POINTS_MAX 200

static int ascending(const void *a, const void *b)
{
	double x = *(const double *)a, y = *(const double *)b;
	return (x > y) - (x < y);
}

/* The finite samples of a cell, sorted; *n = 0 and NULL when there are none. Release with free().
 * */
static double *sorted(const struct nx_cell_row *c, enum nx_metric m, size_t *n)
{
	const double *v = m == NX_METRIC_TTFT_P50 ? c->ttft_ms : c->tpot_ms;
	size_t have = m == NX_METRIC_TTFT_P50 ? c->n_ttft : c->n_tpot;
	*n = 0;
	double *out = v && have ? malloc(have * sizeof(*out)) : NULL;
	for (size_t i = 0; out && i < have; i++)
		if (isfinite(v[i]))
			out[(*n)++] = v[i];
	if (out)
		qsort(out, *n, sizeof(*out), ascending);
	return out;
}

static void put_curve(const double *v, size_t n, struct nx_text *out)
{
	size_t step = n > POINTS_MAX ? n / POINTS_MAX : 1;
	nx_text_printf(out, "%.10g 0\n", v[0]);
	for (size_t i = 0; i < n; i += step)
		nx_text_printf(out, "%.10g %.6g\n", v[i], (double)(i + 1) / (double)n);
	if ((n - 1) % step)
		nx_text_printf(out, "%.10g 1\n", v[n - 1]);
}

static int fill_panel(struct nx_scene *s, size_t panel, struct nx_err *err)
{
	struct nx_panel *p = &s->panels[panel];
	double lo = INFINITY, hi = -INFINITY;
	int rc = 0;
	for (size_t k = 0; k < s->grid->run->n_stacks && !rc; k++) {
		const struct nx_cell_row *c = nx_grid_cell(s->grid, p->length, p->batch, k);
		size_t n = 0;
		if (!c)
			continue;
		double *v = c->status == NX_STATUS_OK ? sorted(c, s->desc->metric, &n) : NULL;
		if (!n) {
			nx_scene_miss(s, c, nx_missing_reason(c, s->desc->metric));
		} else {
			struct nx_text text;
			nx_text_init(&text);
			put_curve(v, n, &text);
			rc = nx_scene_data(s, panel, (size_t)nx_scene_style(s, k) - 1, &text, err);
			nx_text_release(&text);
			lo = fmin(lo, v[0]);
			hi = fmax(hi, v[n - 1]);
		}
		free(v);
	}
	if (lo > hi) {
		snprintf(p->message, sizeof(p->message), "nothing was measured here");
		lo = 0;
		hi = 1;
	}
	nx_panel_range(p, 'x', lo, hi);
	p->ymin = 0;
	p->ymax = 100;
	return rc;
}

int nx_scene_ecdf(struct nx_scene *s, struct nx_err *err)
{
	int rc = 0;
	nx_scene_stack_legend(s);
	nx_scene_layout(s);
	for (size_t i = 0; i < s->n_panels && !rc; i++)
		rc = fill_panel(s, i, err);
	return rc;
}
