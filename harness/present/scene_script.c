/* SPDX-License-Identifier: Apache-2.0 */
/* The gnuplot script of a scene: numbers and texts, then the template. See scene.h. */
#include <string.h>

#include "present/scene.h"

static void put_string(struct nx_text *t, const char *name, const char *value)
{
	nx_text_printf(t, "%s = ", name);
	nx_text_gnuplot(t, value);
	nx_text_put(t, "\n");
}

static void put_numbers(struct nx_text *t, const struct nx_scene *s, const char *name,
                        size_t offset)
{
	nx_text_printf(t, "array %s[%zu] = [", name, s->n_panels);
	for (size_t i = 0; i < s->n_panels; i++) {
		double v;
		memcpy(&v, (const char *)&s->panels[i] + offset, sizeof(v));
		nx_text_printf(t, "%s%.10g", i ? ", " : "", v);
	}
	nx_text_put(t, "]\n");
}

static void put_panels(struct nx_text *t, const struct nx_scene *s)
{
	static const struct {
		const char *name;
		size_t offset;
	} numbers[] = {
		{"left", offsetof(struct nx_panel, left)},
		{"right", offsetof(struct nx_panel, right)},
		{"bottom", offsetof(struct nx_panel, bottom)},
		{"top", offsetof(struct nx_panel, top)},
		{"x_min", offsetof(struct nx_panel, xmin)},
		{"x_max", offsetof(struct nx_panel, xmax)},
		{"y_min", offsetof(struct nx_panel, ymin)},
		{"y_max", offsetof(struct nx_panel, ymax)},
	};
	for (size_t i = 0; i < sizeof(numbers) / sizeof(numbers[0]); i++)
		put_numbers(t, s, numbers[i].name, numbers[i].offset);
	static const char *const texts[] = {"panel_title", "message", "series", "x_label",
	                                    "y_label"};
	for (size_t k = 0; k < sizeof(texts) / sizeof(texts[0]); k++) {
		nx_text_printf(t, "array %s[%zu]\n", texts[k], s->n_panels);
		for (size_t i = 0; i < s->n_panels; i++) {
			const struct nx_panel *p = &s->panels[i];
			const char *values[] = {p->title, p->message,
			                        p->series.s ? p->series.s : "",
			                        p->last_row ? s->xlabel : "",
			                        p->first_column ? s->desc->ylabel : ""};
			char name[64];
			snprintf(name, sizeof(name), "%s[%zu]", texts[k], i + 1);
			put_string(t, name, values[k]);
		}
	}
}

static void put_legend(struct nx_text *t, const struct nx_scene *s)
{
	size_t columns = nx_scene_legend_columns(s), rows = (s->n_legend + columns - 1) / columns;
	double step = (NX_CANVAS_W - 2 * NX_MARGIN) / (double)columns;
	size_t widest = 0;
	for (size_t i = 0; i < s->n_legend; i++) {
		size_t w = nx_text_width(s->legend[i].name);
		widest = w > widest ? w : widest;
	}
	/* Few entries stay together instead of being spread over the width. */
	double need = (double)widest * NX_CHAR_W + 70;
	step = need < step ? need : step;
	nx_text_printf(
		t,
		"n_legend = %zu\narray legend_name[%zu]\narray legend_x[%zu]\narray legend_y[%zu]\n"
		"array legend_style[%zu]\narray legend_hatch[%zu]\n",
		s->n_legend, s->n_legend + 1, s->n_legend + 1, s->n_legend + 1, s->n_legend + 1,
		s->n_legend + 1);
	for (size_t i = 0; i < s->n_legend; i++) {
		char name[64];
		snprintf(name, sizeof(name), "legend_name[%zu]", i + 1);
		put_string(t, name, s->legend[i].name);
		nx_text_printf(
			t,
			"legend_x[%zu] = %.1f; legend_y[%zu] = %.1f; legend_style[%zu] = %d; "
			"legend_hatch[%zu] = %d\n",
			i + 1, NX_MARGIN + (double)(i % columns) * step, i + 1,
			40 + ((double)(rows - i / columns) - 0.5) * NX_LEGEND_LINE, i + 1,
			s->legend[i].style, i + 1, s->legend[i].hatch);
	}
}

static const char *base_name(const char *path)
{
	const char *slash = strrchr(path, '/');
	return slash && slash[1] ? slash + 1 : path;
}

static void put_texts(struct nx_text *t, const struct nx_scene *s)
{
	static const char *const model_keys[] = {"model", "model_path", "model_name", NULL};
	static const char *const dtype_keys[] = {"dtype", NULL};
	static const char *const device_keys[] = {"device", NULL};
	const struct nx_run *r = s->grid->run;
	const char *model = nx_run_fact(r, model_keys), *dtype = nx_run_fact(r, dtype_keys);
	const char *device =
		r->head.device.name[0] ? r->head.device.name : nx_run_fact(r, device_keys);
	struct nx_text line;
	char cut[1024];
	nx_text_init(&line);
	nx_text_printf(&line, "%s on %s%s%s", model ? base_name(model) : "model not recorded",
	               device ? device : "a device not recorded", dtype ? ", " : "",
	               dtype ? dtype : "");
	nx_text_printf(&line, ".  %s%s", s->desc->hint, s->extra);
	put_string(t, "main_title", s->desc->title);
	put_string(t, "subtitle", nx_text_ellipsis(line.s ? line.s : "", 150, cut, sizeof(cut)));
	nx_text_reset(&line);
	if (s->n_missing)
		nx_text_printf(&line, "No figure: %s", s->missing.s);
	if (s->n_missing > 2)
		nx_text_printf(&line, "; and %zu more", s->n_missing - 2);
	if (s->n_left_out)
		nx_text_printf(&line, "%s%zu more setting%s in the report", line.len ? ".  " : "",
		               s->n_left_out, s->n_left_out == 1 ? "" : "s");
	put_string(t, "footnote", nx_text_ellipsis(line.s ? line.s : "", 165, cut, sizeof(cut)));
	t->failed |= line.failed;
	nx_text_release(&line);
}

int nx_scene_script(struct nx_scene *s, const char *terminal, struct nx_err *err)
{
	static const char *const templates[] = {
		[NX_PLOT_TRADE] = "trade",   [NX_PLOT_BATCH] = "curves", [NX_PLOT_SEQ] = "curves",
		[NX_PLOT_MEMORY] = "bars",   [NX_PLOT_UTIL] = "bars",    [NX_PLOT_ECDF] = "ecdf",
		[NX_PLOT_ROOF] = "roofline",
	};
	struct nx_text t;
	nx_text_init(&t);
	put_string(&t, "share", NX_SCENE_SHARE);
	put_string(&t, "terminal", terminal);
	put_string(&t, "plot_name", s->desc->name);
	nx_text_printf(&t, "width = %d.0\nheight = %d.0\nn_panels = %zu\n", NX_CANVAS_W,
	               NX_CANVAS_H, s->n_panels);
	put_texts(&t, s);
	put_panels(&t, s);
	put_legend(&t, s);
	nx_text_printf(&t, "load share.'/%s.gp'\n", templates[s->desc->kind]);
	int rc = nx_tempdir_put(s->dir, "plot.gp", &t, err);
	nx_text_release(&t);
	for (size_t i = 0; i < s->n_panels && !rc; i++) {
		char name[64];
		snprintf(name, sizeof(name), "setup_p%zu.gp", i + 1);
		rc = nx_tempdir_put(s->dir, name, &s->panels[i].setup, err);
	}
	return rc;
}
