/* SPDX-License-Identifier: Apache-2.0 */
/* See report.h. */
#include "present/report.h"

#include <math.h>
#include <string.h>

#include "present/plot.h"

static void lead(struct nx_doc *d, const struct nx_grid *g)
{
	struct nx_text t;
	const char *sentences[8];
	size_t n = 0;
	nx_text_init(&t);
	nx_report_verdict(g, &t);
	for (char *s = t.s; s && *s && n < 8;) {
		char *end = strchr(s, '\n');
		if (end)
			*end = 0;
		sentences[n++] = s;
		s = end ? end + 1 : NULL;
	}
	nx_doc_lead(d, sentences, n);
	d->out->failed |= t.failed;
	nx_text_release(&t);
}

/* A plot that cannot be made costs the page one sentence, never the report. */
static bool figure(struct nx_doc *d, const struct nx_run *run, const struct nx_plot_desc *p,
                   const char *share)
{
	struct nx_text svg, notes;
	struct nx_err err;
	nx_text_init(&svg);
	nx_text_init(&notes);
	int rc = nx_plot_svg(run, p->name, share, &svg, &notes, &err);
	if (rc)
		nx_doc_paragraph(d, "No plot " NX_DOC_CODE ": %s.", p->name, err.msg);
	else
		nx_doc_figure(d, svg.s, p->name, p->title);
	nx_text_release(&svg);
	nx_text_release(&notes);
	return rc != NX_EENV;
}

/* The first plot answers the question of the page; the others follow the tables. */
static void figures(struct nx_doc *d, const struct nx_run *run, const struct nx_report_options *o,
                    bool first)
{
	size_t n;
	const struct nx_plot_desc *p = nx_plot_list(&n);
	if (d->format != NX_DOC_HTML)
		return;
	if (!first)
		nx_doc_heading(d, 2, "More plots");
	if (!o || !o->share) {
		nx_doc_paragraph(d, "This page has no plots: %s.",
		                 o && o->no_plots ? o->no_plots : "they were not asked for");
		return;
	}
	for (size_t i = first ? 0 : 1; i < (first ? 1 : n); i++)
		if (!figure(d, run, &p[i], o->share))
			break;
}

static int write_doc(const struct nx_run *run, const struct nx_report_options *o,
                     enum nx_doc_format format, struct nx_text *out, struct nx_err *err)
{
	struct nx_doc d = {.format = format, .out = out};
	struct nx_grid g;
	int rc = nx_grid_init(&g, run, err);
	if (rc)
		return rc;
	const char *question = run->head.question;
	nx_doc_begin(&d, question && question[0] ? question
	                 : run->head.name        ? run->head.name
	                                         : "A run");
	lead(&d, &g);
	figures(&d, run, o, true);
	nx_report_where(&d, run);
	nx_report_results(&d, &g);
	if (o && o->share)
		figures(&d, run, o, false);
	nx_report_bounds(&d, &g);
	nx_report_memory(&d, &g);
	nx_report_gate(&d, &g);
	nx_report_quality(&d, &g);
	nx_report_failures(&d, &g);
	nx_report_stacks(&d, &g);
	nx_report_counters(&d, &g);
	nx_report_again(&d, run);
	nx_report_definitions(&d);
	nx_doc_end(&d);
	nx_grid_release(&g);
	return out->failed ? nx_fail(err, NX_ENOMEM, "%s: no memory for the report", run->path) : 0;
}

int nx_report_md(const struct nx_run *run, struct nx_text *out, struct nx_err *err)
{
	return write_doc(run, NULL, NX_DOC_MD, out, err);
}

int nx_report_html(const struct nx_run *run, const struct nx_report_options *o, struct nx_text *out,
                   struct nx_err *err)
{
	return write_doc(run, o, NX_DOC_HTML, out, err);
}
