/* SPDX-License-Identifier: Apache-2.0 */
/* The report's section on what bounds each load, and where the time of a step goes. See report.h. */
#include <math.h>
#include <stddef.h>
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

static void put_number(struct nx_table *t, double v, int sig)
{
	char buf[48];
	nx_table_cell(t, "%s",
	              isfinite(v) && v > 0 ? nx_number_text(v, sig, buf, sizeof(buf)) : "");
}

static void device_row(struct nx_table *t, const struct nx_cell_row *c)
{
	const struct nx_profiled *q = c->profiled;
	const struct nx_cell_device *d = &c->device;
	char why[160];
	nx_table_cell(t, "%s", c->stack);
	nx_table_cell(t, "%d", c->batch_size);
	nx_table_cell(t, "%s, %s", c->seq_len_text, c->output_len_text);
	put_number(t, q ? 100 * nx_profiled_idle(q) : NAN, 3);
	if (q && q->n_ranges)
		nx_table_cell(t, "%zu", q->n_ranges);
	else
		nx_table_cell(t, "%s", "");
	if (q && q->n_steps)
		nx_table_cell(t, "%d of %d%s", q->n_same, q->n_steps,
		              q->n_same < q->n_steps ? " !" : "");
	else
		nx_table_cell(t, "%s", "");
	put_number(t, q ? nx_profiled_perturbation(q, false) : NAN, 3);
	put_number(t, q ? nx_profiled_perturbation(q, true) : NAN, 3);
	put_number(t, c->metrics[NX_METRIC_ENERGY_PER_TOKEN].value, 3);
	put_number(t, c->metrics[NX_METRIC_POWER].value, 3);
	put_number(t, d->sm_clock_hz / 1e6, 4);
	put_number(t, d->temperature_c, 3);
	nx_throttle_text(d->throttle, why, sizeof(why) - 48);
	size_t at = strlen(why);
	if (d->n_capped && d->n_capped < c->n_trials)
		at += (size_t)snprintf(why + at, sizeof(why) - at, " (cap in %d of %d trials)",
		                       d->n_capped, c->n_trials);
	if (d->other_processes > 0)
		snprintf(why + at, sizeof(why) - at, "%s%.0f others on it", at ? ", " : "",
		         d->other_processes);
	nx_table_cell(t, "%s", why);
}

static bool has_device(const struct nx_cell_row *c)
{
	return c->profiled || c->device.temperature_c > 0 || c->device.sm_clock_hz > 0;
}

/* One text of the cells' records: why something is not there. Cells with the same one are one item. */
static void reasons(struct nx_doc *d, const struct nx_run *r, size_t offset, const char *what)
{
	for (size_t i = 0; i < r->n_cells; i++) {
		const char *why =
			r->cells[i].profiled ? (const char *)r->cells[i].profiled + offset : "";
		size_t n = 0, first = i;
		for (size_t k = 0; k < r->n_cells && why[0]; k++) {
			const struct nx_profiled *q = r->cells[k].profiled;
			bool same = q && !strcmp((const char *)q + offset, why);
			first = same && k < first ? k : first;
			n += same;
		}
		if (n && first == i)
			nx_doc_item(d, "%s (%zu of %zu cells): %s.", what, n, r->n_cells, why);
	}
}

static void devices(struct nx_doc *d, const struct nx_run *r)
{
	static const char *const HEAD[] = {
		"stack",          "batch size",     "prompt, output",     "idle in decode [%]",
		"ranges",         "steps as timed", "time with counters", "time traced",
		"energy [J/tok]", "power [W]",      "clock [MHz]",        "hottest [C]",
		"held back by"};
	struct nx_table t;
	bool any = false, profiled = false;
	for (size_t i = 0; i < r->n_cells; i++) {
		any |= has_device(&r->cells[i]);
		profiled |= r->cells[i].profiled != NULL;
	}
	if (!any)
		return;
	nx_doc_heading(d, 3, "What the device's instruments say");
	nx_doc_paragraph(d, "Counters and traces are of a process that times nothing and runs the "
	                    "timed steps again, with counters one at a time, without planning "
	                    "ahead; its times are shown over the timed ones. Energy, "
	                    "clock and temperature are of the timed trials.");
	nx_table_init(&t);
	for (size_t i = 0; i < sizeof(HEAD) / sizeof(HEAD[0]); i++)
		nx_table_column(&t, HEAD[i], i == 0 || i == 2 || i == 12 ? NX_LEFT : NX_RIGHT);
	for (size_t i = 0; i < r->n_cells; i++)
		if (has_device(&r->cells[i]))
			device_row(&t, &r->cells[i]);
	nx_doc_table(d, &t);
	d->out->failed |= t.failed;
	nx_table_release(&t);
	if (!profiled)
		return;
	nx_doc_list_begin(d);
	reasons(d, r, offsetof(struct nx_profiled, versions), "Read by");
	reasons(d, r, offsetof(struct nx_profiled, no_counters), "Counters");
	reasons(d, r, offsetof(struct nx_profiled, no_trace), "No trace");
	reasons(d, r, offsetof(struct nx_profiled, no_time_line), "No time line");
	nx_doc_list_end(d);
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
		devices(d, r);
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
