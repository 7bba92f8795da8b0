/* SPDX-License-Identifier: Apache-2.0 */
/* Horizontal bars, a stack a line: memory by owner, utilisation. See scene.h. */
#include <math.h>
#include <string.h>

#include "present/number.h"
#include "present/scene.h"

#define NAME_MAX_CHARS 30
#define OWNERS_MAX 8

/* Names go on the axis: room for the longest that is shown. */
static void reserve_names(struct nx_scene *s)
{
	size_t widest = 4;
	for (size_t i = 0; i < s->grid->run->n_stacks; i++) {
		size_t w = nx_text_width(s->grid->run->stacks[i]);
		widest = w > widest ? w : widest;
	}
	widest = widest > NAME_MAX_CHARS ? NAME_MAX_CHARS : widest;
	s->names_width = (double)widest * 8.2 + 6;
}

/* The first stack is on top. */
static double line_of(const struct nx_scene *s, size_t stack)
{
	return (double)(s->grid->run->n_stacks - stack);
}

/* 1 where lines are at most 90 px high, else less: a single bar must not fill the picture. */
static double slimness(const struct nx_scene *s, const struct nx_panel *p)
{
	double px = (p->top - p->bottom) / ((double)s->grid->run->n_stacks + 0.2);
	return fmin(1, 90 / px);
}

static void name_tics(struct nx_scene *s, struct nx_panel *p)
{
	nx_text_put(&p->setup, "set ytics nomirror (");
	for (size_t i = 0; i < s->grid->run->n_stacks; i++) {
		char name[NAME_MAX_CHARS * 4 + 8] = "";
		if (p->first_column)
			nx_text_ellipsis(s->grid->run->stacks[i], NAME_MAX_CHARS, name,
			                 sizeof(name));
		nx_text_put(&p->setup, i ? ", " : "");
		nx_text_gnuplot(&p->setup, name);
		nx_text_printf(&p->setup, " %g", line_of(s, i));
	}
	nx_text_put(&p->setup, ") scale 0; set grid noytics; ");
	p->ymin = 0.4;
	p->ymax = (double)s->grid->run->n_stacks + 0.6;
}

static void put_bar(struct nx_text *t, double x0, double x1, double y, double half)
{
	nx_text_printf(t, "%.10g %.10g %.10g %.10g %.10g %.10g\n", x0, y, x0, x1, y - half,
	               y + half);
}

/* One label is a line "x y text"; the text is quoted for gnuplot's data files. */
static void put_label(struct nx_text *t, double x, double y, const char *text)
{
	nx_text_printf(t, "%.10g %.10g \"%s\"\n", x, y, text);
}

static int write_labels(struct nx_scene *s, size_t panel, struct nx_text *labels,
                        struct nx_err *err)
{
	char name[64];
	if (!labels->len)
		nx_text_put(labels, "NaN NaN \"\"\n");
	snprintf(name, sizeof(name), "labels_p%zu.dat", panel + 1);
	return nx_tempdir_put(s->dir, name, labels, err);
}

/* ---- memory ---- */

/* Parts of the bars: owners in order of appearance, the last one "other" when there are many; the
 * KV store is two, since what it reserves and never fills is what layouts differ in. */
struct parts {
	const char *owner[OWNERS_MAX];
	size_t n;
	bool split_kv;
};

static size_t part_of(const struct parts *p, const char *owner)
{
	for (size_t i = 0; i < p->n; i++)
		if (!strcmp(p->owner[i], owner))
			return i;
	return p->n - 1;
}

static void find_parts(const struct nx_scene *s, struct parts *p)
{
	const struct nx_run *r = s->grid->run;
	*p = (struct parts){0};
	for (size_t i = 0; i < r->n_cells; i++)
		for (size_t k = 0; k < r->cells[i].n_mem; k++) {
			const struct nx_mem_use *u = &r->cells[i].mem[k];
			size_t j = 0;
			while (j < p->n && strcmp(p->owner[j], u->owner) != 0)
				j++;
			if (j == p->n && p->n < OWNERS_MAX)
				p->owner[p->n++] = u->owner;
			else if (j == p->n)
				p->owner[p->n - 1] = "other";
			p->split_kv |=
				!strcmp(u->owner, "kv") && u->peak_used_bytes < u->reserved_bytes;
		}
}

static void memory_legend(struct nx_scene *s, const struct parts *p)
{
	for (size_t i = 0; i < p->n; i++) {
		bool kv = p->split_kv && !strcmp(p->owner[i], "kv");
		struct nx_legend_entry *e = &s->legend[s->n_legend++];
		snprintf(e->name, sizeof(e->name), "%s%s", p->owner[i], kv ? ", used at peak" : "");
		e->style = (int)i + 2; /* black is the reference's */
	}
	if (p->split_kv)
		s->legend[s->n_legend++] =
			(struct nx_legend_entry){.name = "kv, reserved and never used",
		                                 .style = (int)part_of(p, "kv") + 2,
		                                 .hatch = true};
}

/* bytes[p->n] is the unused part of the KV store. Returns the sum. */
static double memory_of(const struct nx_cell_row *c, const struct parts *p, double *bytes)
{
	double total = 0;
	memset(bytes, 0, (p->n + 1) * sizeof(*bytes));
	for (size_t k = 0; k < c->n_mem; k++) {
		const struct nx_mem_use *u = &c->mem[k];
		double reserved = (double)u->reserved_bytes,
		       used = fmin((double)u->peak_used_bytes, reserved);
		bool kv = p->split_kv && !strcmp(u->owner, "kv");
		bytes[part_of(p, u->owner)] += kv ? used : reserved;
		bytes[p->n] += kv ? reserved - used : 0;
		total += reserved;
	}
	return total;
}

static int memory_panel(struct nx_scene *s, size_t panel, const struct parts *parts, double unit,
                        struct nx_err *err)
{
	double most = 0, beside = 90; /* px for the texts beside the bars */
	struct nx_panel *p = &s->panels[panel];
	struct nx_text bars[OWNERS_MAX + 1], labels;
	int rc = 0;
	nx_text_init(&labels);
	for (size_t i = 0; i <= OWNERS_MAX; i++)
		nx_text_init(&bars[i]);
	for (size_t k = 0; k < s->grid->run->n_stacks; k++) {
		const struct nx_cell_row *c = nx_grid_cell(s->grid, p->length, p->batch, k);
		double bytes[OWNERS_MAX + 1], y = line_of(s, k), x = 0,
					      half = 0.36 * slimness(s, p);
		char text[96], size[32], used[32];
		if (!c)
			continue;
		bool forecast = c->status == NX_STATUS_SKIPPED;
		if ((c->status != NX_STATUS_OK && !forecast) || !c->n_mem) {
			const char *why = c->status != NX_STATUS_OK ? nx_status_name(c->status)
			                                            : "not recorded";
			put_label(&labels, 0, y, why);
			nx_scene_miss(s, c, why);
			continue;
		}
		double total = memory_of(c, parts, bytes);
		most = fmax(most, total);
		half *= forecast ? 0.5 : 1; /* computed and never taken: a thin bar */
		/* The unused part stands right of the used one, whatever comes between in the list.
		 * */
		for (size_t i = 0; i < parts->n; i++) {
			bool kv = parts->split_kv && !strcmp(parts->owner[i], "kv");
			put_bar(&bars[i], x, x + bytes[i] / unit, y, half);
			x += bytes[i] / unit;
			if (kv && bytes[parts->n] > 0)
				put_bar(&bars[parts->n], x, x + bytes[parts->n] / unit, y, half);
			x += kv ? bytes[parts->n] / unit : 0;
		}
		double idle = bytes[parts->n];
		snprintf(text, sizeof(text), "%s%s%s%s", nx_size_text(total, size, sizeof(size)),
		         idle > 0 ? ", used " : "",
		         idle > 0 ? nx_size_text(total - idle, used, sizeof(used)) : "",
		         forecast ? " (forecast)" : "");
		beside = fmax(beside, 7.0 * (double)strlen(text) + 12);
		put_label(&labels, x, y, text);
	}
	for (size_t i = 0; i <= parts->n && !rc; i++)
		if (bars[i].len)
			rc = nx_scene_data(s, panel, i, &bars[i], err);
	if (!rc)
		rc = write_labels(s, panel, &labels, err);
	p->xmin = 0;
	/* Room for the total beside the longest bar. */
	p->xmax = most > 0 ? most / unit * (1 + beside / (p->right - p->left - beside)) : 1;
	if (most <= 0)
		nx_text_put(&p->setup, "unset xtics; ");
	name_tics(s, p);
	for (size_t i = 0; i <= OWNERS_MAX; i++)
		nx_text_release(&bars[i]);
	nx_text_release(&labels);
	return rc;
}

int nx_scene_memory(struct nx_scene *s, struct nx_err *err)
{
	struct parts parts;
	double most = 0, unit, bytes[OWNERS_MAX + 1];
	int rc = 0;
	find_parts(s, &parts);
	memory_legend(s, &parts);
	reserve_names(s);
	nx_scene_layout(s);
	for (size_t i = 0; i < s->grid->run->n_cells && parts.n; i++)
		most = fmax(most, memory_of(&s->grid->run->cells[i], &parts, bytes));
	snprintf(s->xlabel, sizeof(s->xlabel), "%s [%s]", s->desc->xlabel,
	         nx_size_unit(most, &unit));
	for (size_t i = 0; i < s->n_panels && !rc; i++)
		rc = memory_panel(s, i, &parts, unit, err);
	return rc;
}

/* ---- utilisation ---- */

static const struct {
	enum nx_metric metric;
	const char *name;
	int style;
} UTIL[] = {
	{NX_METRIC_UTIL_MEM_CAPACITY, "memory in use, of the device's", 2},
	{NX_METRIC_UTIL_COMPUTE, "compute, of the measured peak", 3},
	{NX_METRIC_UTIL_BANDWIDTH, "bandwidth, of the measured peak", 4},
};
#define N_UTIL (sizeof(UTIL) / sizeof(UTIL[0]))

static int util_panel(struct nx_scene *s, size_t panel, double most, struct nx_err *err)
{
	struct nx_panel *p = &s->panels[panel];
	size_t n_stacks = s->grid->run->n_stacks;
	struct nx_text bars, labels;
	int rc = 0;
	nx_text_init(&bars);
	nx_text_init(&labels);
	/* Numbers beside the bars only where a line of text is no higher than a bar. */
	bool numbers = (p->top - p->bottom) / ((double)n_stacks * 3.6) > 11;
	for (size_t m = 0; m < N_UTIL && !rc; m++) {
		nx_text_reset(&bars);
		for (size_t k = 0; k < n_stacks; k++) {
			const struct nx_cell_row *c = nx_grid_cell(s->grid, p->length, p->batch, k);
			double slim = slimness(s, p),
			       y = line_of(s, k) + 0.27 * slim * (1 - (double)m);
			if (!c)
				continue;
			double v = c->metrics[UTIL[m].metric].value * 100;
			char text[32];
			if (c->status == NX_STATUS_OK && isfinite(v)) {
				put_bar(&bars, 0, v, y, 0.125 * slim);
				snprintf(text, sizeof(text), "%.*f %%", v < 9.95 ? 1 : 0, v);
				if (numbers)
					put_label(&labels, v, y, text);
			} else if (c->status == NX_STATUS_OK || m == 1) {
				const char *why = nx_missing_reason(c, UTIL[m].metric);
				if (numbers || c->status != NX_STATUS_OK)
					put_label(&labels, 0, y, why);
				nx_scene_miss(s, c, why);
			}
		}
		if (bars.len)
			rc = nx_scene_data(s, panel, m, &bars, err);
	}
	if (!rc)
		rc = write_labels(s, panel, &labels, err);
	p->xmin = 0;
	p->xmax = fmax(most, 100) * (1 + 55 / (p->right - p->left - 55));
	nx_text_printf(&p->setup, "set xtics nomirror 0,%d,%.0f; ", most > 200 ? 100 : 20,
	               fmax(most, 100));
	name_tics(s, p);
	nx_text_release(&bars);
	nx_text_release(&labels);
	return rc;
}

int nx_scene_util(struct nx_scene *s, struct nx_err *err)
{
	const struct nx_run *r = s->grid->run;
	const char *sep = "";
	size_t at = 0;
	double most = 0;
	int rc = 0;
	unsigned seen = 0;
	at += (size_t)snprintf(s->extra, sizeof(s->extra), " Source: ");
	for (size_t i = 0; i < r->n_cells; i++) {
		for (size_t m = 0; m < N_UTIL; m++)
			if (isfinite(r->cells[i].metrics[UTIL[m].metric].value))
				most = fmax(most, r->cells[i].metrics[UTIL[m].metric].value * 100);
		int source = r->cells[i].util_source;
		if (r->cells[i].status != NX_STATUS_OK || source < 0 || source > 8 ||
		    seen & 1u << source)
			continue;
		seen |= 1u << source;
		if (at < sizeof(s->extra))
			at += (size_t)snprintf(s->extra + at, sizeof(s->extra) - at, "%s%s", sep,
			                       nx_util_source_word(source));
		sep = ", ";
	}
	if (at < sizeof(s->extra))
		snprintf(s->extra + at, sizeof(s->extra) - at, ".");
	if (!seen)
		s->extra[0] = 0;
	for (size_t m = 0; m < N_UTIL; m++) {
		struct nx_legend_entry *e = &s->legend[s->n_legend++];
		snprintf(e->name, sizeof(e->name), "%s", UTIL[m].name);
		e->style = UTIL[m].style;
	}
	reserve_names(s);
	nx_scene_layout(s);
	for (size_t i = 0; i < s->n_panels && !rc; i++)
		rc = util_panel(s, i, most, err);
	return rc;
}
