/* SPDX-License-Identifier: Apache-2.0 */
/* The report's section on what bounds each load, and where the time of a step goes. See report.h. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "present/number.h"
#include "present/profile.h"
#include "present/report.h"

#define KERNEL_TABLES 12 /* a page stays readable */

static void percent(struct nx_table *t, double v, bool flag)
{
	if (isfinite(v))
		nx_table_cell(t, "%.*f%s", 100 * v < 9.95 ? 1 : 0, 100 * v, flag ? " !" : "");
	else
		nx_table_cell(t, "%s", "unknown");
}

static void phase_row(struct nx_table *t, const struct nx_profile *p,
                      const struct nx_profile_phase *q)
{
	const struct nx_bottleneck *b = &q->bottleneck;
	char ratio[48] = "";
	nx_table_cell(t, "%s", p->cell->stack);
	nx_table_cell(t, "%d", p->cell->batch_size);
	nx_table_cell(t, "%s, %s", p->cell->seq_len_text, p->cell->output_len_text);
	nx_table_cell(t, "%s", q->figures.phase);
	percent(t, q->share, false);
	percent(t, b->memory, false);
	percent(t, b->bandwidth, b->above_bandwidth);
	percent(t, b->compute, b->above_compute);
	percent(t, b->host, false);
	percent(t, b->launch, false);
	if (isfinite(b->moved_over_counted))
		snprintf(ratio, sizeof(ratio), "%.2f%s", b->moved_over_counted,
		         b->far_bytes ? " !" : "");
	nx_table_cell(t, "%s", ratio);
	nx_table_cell(t, "%s", q->figures.source);
	nx_table_cell(t, "%s%s%s", nx_bound_name(b->bound),
	              b->bound == NX_BOUND_MIXED ? ", nearest " : "",
	              b->bound == NX_BOUND_MIXED ? nx_bound_name(b->nearest) : "");
}

static void bound_table(struct nx_doc *d, const struct nx_run *r, struct nx_profile *p)
{
	static const char *const HEAD[] = {
		"stack",    "batch size", "prompt, output",        "phase",
		"time [%]", "memory [%]", "bandwidth [%]",         "compute [%]",
		"host [%]", "launch [%]", "moved / counted bytes", "source",
		"bound"};
	struct nx_table t;
	nx_table_init(&t);
	for (size_t i = 0; i < sizeof(HEAD) / sizeof(HEAD[0]); i++)
		nx_table_column(&t, HEAD[i], i == 1 || (i >= 4 && i <= 10) ? NX_RIGHT : NX_LEFT);
	for (size_t i = 0; i < r->n_cells; i++) {
		nx_profile_of(r, &r->cells[i], p);
		for (int k = 0; k < NX_PHASE_COUNT; k++)
			if (p->phases[k].use->n_steps)
				phase_row(&t, p, &p->phases[k]);
	}
	nx_doc_table(d, &t);
	d->out->failed |= t.failed;
	nx_table_release(&t);
}

static void sentences(struct nx_doc *d, const struct nx_run *r, struct nx_profile *p)
{
	nx_doc_list_begin(d);
	for (size_t i = 0; i < r->n_cells; i++) {
		const struct nx_cell_row *c = &r->cells[i];
		nx_profile_of(r, c, p);
		if (p->main >= 0)
			nx_doc_item(d,
			            NX_DOC_CODE " at batch size %d with prompt %s and output %s "
			                        "tokens: %s %s",
			            c->stack, c->batch_size, c->seq_len_text, c->output_len_text,
			            p->why, p->helps);
	}
	nx_doc_list_end(d);
}

/* Cells with the same remark are one item. */
static void remarks(struct nx_doc *d, const struct nx_run *r)
{
	struct nx_text *said = calloc(r->n_cells + 1, sizeof(*said));
	bool any = false;
	if (!said) {
		d->out->failed = true;
		return;
	}
	for (size_t i = 0; i < r->n_cells; i++) {
		nx_text_init(&said[i]);
		nx_profile_remarks(&r->cells[i], &said[i]);
		for (char *s = said[i].s; s && (s = strchr(s, '\n'));)
			*s = s[1] ? ' ' : '\0';
		any |= said[i].len > 0;
	}
	if (any) {
		nx_doc_heading(d, 3, "What the device's instruments say");
		nx_doc_list_begin(d);
	}
	for (size_t i = 0; i < r->n_cells && any; i++) {
		size_t first = 0, same = 0;
		if (!said[i].len)
			continue;
		while (first < i && (!said[first].len || strcmp(said[first].s, said[i].s) != 0))
			first++;
		if (first < i)
			continue;
		for (size_t k = i; k < r->n_cells; k++)
			same += said[k].len && !strcmp(said[k].s, said[i].s);
		if (same > 1)
			nx_doc_item(d, "%zu cells: %s", same, said[i].s);
		else
			nx_doc_item(
				d, NX_DOC_CODE " at batch size %d with prompt %s and output %s: %s",
				r->cells[i].stack, r->cells[i].batch_size, r->cells[i].seq_len_text,
				r->cells[i].output_len_text, said[i].s);
	}
	if (any)
		nx_doc_list_end(d);
	for (size_t i = 0; i < r->n_cells; i++) {
		d->out->failed |= said[i].failed;
		nx_text_release(&said[i]);
	}
	free(said);
}

static void kernels(struct nx_doc *d, const struct nx_run *r)
{
	size_t shown = 0, left = 0;
	for (size_t i = 0; i < r->n_cells; i++) {
		const struct nx_cell_row *c = &r->cells[i];
		struct nx_table t;
		if (shown == KERNEL_TABLES) {
			left += c->profiled && c->profiled->n_kernels;
			continue;
		}
		nx_table_init(&t);
		if (nx_profile_kernels(c, 10, &t)) {
			if (!shown++)
				nx_doc_heading(d, 3, "Time by kernel");
			nx_doc_paragraph(
				d,
				NX_DOC_CODE
				" at batch size %d with prompt %s and output %s tokens, %d %s steps:",
				c->stack, c->batch_size, c->seq_len_text, c->output_len_text,
				c->profiled->n_trace_steps,
				nx_phase_name(c->profiled->trace_phase));
			nx_doc_table(d, &t);
		}
		d->out->failed |= t.failed;
		nx_table_release(&t);
	}
	if (left)
		nx_doc_paragraph(d, "%zu more cells have theirs in the run file.", left);
}

void nx_report_bounds(struct nx_doc *d, const struct nx_grid *g)
{
	const struct nx_run *r = g->run;
	struct nx_profile *p = malloc(sizeof(*p));
	bool any = false;
	if (!p) {
		d->out->failed = true;
		return;
	}
	for (size_t i = 0; i < r->n_cells; i++)
		for (int k = 0; k < NX_PHASE_COUNT; k++)
			any |= r->cells[i].phases[k].n_steps > 0;
	if (any) {
		nx_doc_heading(d, 2, "What bounds each load");
		nx_doc_paragraph(
			d,
			"By phase: shares of the device's memory, of its calibrated peaks, and of the step "
			"time that the host plans or the device idles between launches. An exclamation mark: "
			"above a calibrated peak, or bytes that were moved and bytes that were counted "
			"tell different stories (beyond %.2g to %.2g).",
			NX_BOUND_FAR_BELOW, NX_BOUND_FAR_ABOVE);
		bound_table(d, r, p);
		sentences(d, r, p);
		remarks(d, r);
		kernels(d, r);
	}
	free(p);
}

void nx_report_bound_of(const struct nx_run *r, const struct nx_cell_row *c, struct nx_text *out)
{
	struct nx_profile *p = malloc(sizeof(*p));
	if (!p) {
		out->failed = true;
		return;
	}
	nx_profile_of(r, c, p);
	if (p->main >= 0)
		nx_text_printf(out, "What bounds it: %s%s%s\n", p->why, p->helps[0] ? "\n" : "",
		               p->helps);
	free(p);
}
