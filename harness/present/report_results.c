/* SPDX-License-Identifier: Apache-2.0 */
/* The report's tables of figures: results, memory, counters. See report.h. */
#include <ctype.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "present/number.h"
#include "present/report.h"
#include "present/skew.h"

/* The columns of the results, said once. */
struct column {
	enum nx_metric metric;
	const char *header;
	double scale;
	bool interval;
};

static const struct column COLUMNS[] = {
	{NX_METRIC_TTFT_P50, "TTFT p50 [ms]", 1, true},
	{NX_METRIC_TTFT_P99, "TTFT p99 [ms]", 1, true},
	{NX_METRIC_TPOT_P50, "TPOT p50 [ms]", 1, true},
	{NX_METRIC_TPOT_P99, "TPOT p99 [ms]", 1, true},
	{NX_METRIC_KV_WASTE, "KV waste [%]", 100, false},
	{NX_METRIC_UTIL_MEM_CAPACITY, "memory used [% of device]", 100, false},
	{NX_METRIC_UTIL_COMPUTE, "compute [% of peak]", 100, false},
	{NX_METRIC_UTIL_BANDWIDTH, "bandwidth [% of peak]", 100, false},
};
#define N_COLUMNS (sizeof(COLUMNS) / sizeof(COLUMNS[0]))

static void put_metric(struct nx_table *t, const struct nx_cell_row *c, enum nx_metric m,
                       double scale, bool interval)
{
	char v[96];
	struct nx_estimate e = c->metrics[m];
	if (!interval)
		e.lo = e.hi = NAN;
	nx_estimate_text(&e, scale, 3, v, sizeof(v));
	nx_table_cell(t, "%s", v[0] ? v : nx_missing_reason(c, m));
}

static void put_speedup(struct nx_table *t, const struct nx_run *r, const struct nx_cell_row *c)
{
	/* A sign beside each word, so that the verdict does not hang on reading it. */
	static const char *const signs[] = {"", "\xe2\x96\xb2 ", "\xe2\x96\xbc ", "= ", "? "};
	char v[96];
	if (c->stack_index == (int32_t)r->head.reference) {
		nx_table_cell(t, "1");
		nx_table_cell(t, "reference");
		return;
	}
	nx_ratio_text(&c->speedup, v, sizeof(v));
	if (!v[0] || c->status != NX_STATUS_OK) {
		const char *why = c->speedup_note[0] ? c->speedup_note : nx_status_name(c->status);
		if (c->status == NX_STATUS_OK && !c->speedup_note[0])
			why = "reference has no figure here";
		nx_table_cell(t, "none");
		nx_table_cell(t, "%s", why);
		return;
	}
	nx_table_cell(t, "%s", v);
	nx_table_cell(t, "%s%s%s%s", c->verdict > 0 && c->verdict < 5 ? signs[c->verdict] : "",
	              nx_verdict_word(c->verdict), c->speedup_note[0] ? "; " : "", c->speedup_note);
}

static void cell_table(struct nx_doc *d, const struct nx_grid *g, size_t length, size_t batch)
{
	char header[160];
	struct nx_table t;
	nx_table_init(&t);
	nx_table_column(&t, "stack", NX_LEFT);
	nx_table_column(&t, "throughput [tok/s]", NX_RIGHT);
	snprintf(header, sizeof(header), "throughput / that of %s", nx_run_reference(g->run));
	nx_table_column(&t, header, NX_RIGHT);
	nx_table_column(&t, "verdict", NX_LEFT);
	for (size_t i = 0; i < N_COLUMNS; i++)
		nx_table_column(&t, COLUMNS[i].header, NX_RIGHT);
	nx_table_column(&t, "source of utilisation", NX_LEFT);
	nx_table_column(&t, "trials", NX_RIGHT);
	for (size_t s = 0; s < g->run->n_stacks; s++) {
		const struct nx_cell_row *c = nx_grid_cell(g, length, batch, s);
		if (!c)
			continue;
		nx_table_cell(&t, "%s", c->stack);
		put_metric(&t, c, NX_METRIC_OUTPUT_THROUGHPUT, 1, true);
		put_speedup(&t, g->run, c);
		for (size_t i = 0; i < N_COLUMNS; i++)
			put_metric(&t, c, COLUMNS[i].metric, COLUMNS[i].scale, COLUMNS[i].interval);
		nx_table_cell(&t, "%s", nx_util_source_word(c->util_source));
		nx_table_cell(&t, "%d of %d", c->n_ok, c->n_trials);
	}
	if (nx_table_rows(&t)) {
		nx_batch_text(g->batches[batch], header, sizeof(header));
		header[0] = (char)toupper((unsigned char)header[0]);
		nx_doc_heading(d, 4, header);
		nx_doc_table(d, &t);
	}
	d->out->failed |= t.failed;
	nx_table_release(&t);
}

/* Lengths that are read: what ran is what is known of them. */
static void read_sentence(struct nx_doc *d, const struct nx_grid *g, size_t length)
{
	const struct nx_lengths *l = &g->lengths[length];
	struct nx_text bounds;
	nx_text_init(&bounds);
	for (size_t b = 0; b < g->n_batches; b++) {
		const struct nx_cell_row *c = NULL;
		for (size_t s = 0; s < g->run->n_stacks && !(c && c->n_out_tokens); s++)
			c = nx_grid_cell(g, length, b, s);
		if (c && c->n_out_tokens)
			nx_text_printf(
				&bounds, "%s%.3g at batch size %d", bounds.s ? ", " : "",
				nx_skew_bound_of(c->out_tokens, c->n_out_tokens, c->batch_size),
				c->batch_size);
	}
	nx_doc_paragraph(
		d,
		"Output lengths: %s tokens, read and not drawn (mean %.4g). The most that refilling freed slots "
		"can gain from this skew alone, E[longest of the batch] / E[length]: %s (computed from "
		"the lengths that ran, as if batches were drawn from them).",
		l->out_text, l->out, bounds.s ? bounds.s : "not known, nothing ran");
	d->out->failed |= bounds.failed;
	nx_text_release(&bounds);
}

static void skew_sentence(struct nx_doc *d, const struct nx_grid *g, size_t length)
{
	const struct nx_lengths *l = &g->lengths[length];
	struct nx_dist dist;
	struct nx_err err;
	if (nx_dist_from_text(&dist, l->out_text, &err)) {
		nx_doc_paragraph(
			d,
			"Output lengths: %s tokens. The bound that skew allows is not known: %s.",
			l->out_text, err.msg);
		return;
	}
	if (dist.kind == NX_DIST_TRACE || dist.kind == NX_DIST_DATASET) {
		read_sentence(d, g, length);
		return;
	}
	if (dist.min == dist.max) {
		nx_doc_paragraph(
			d,
			"Output lengths: all %s tokens. With equal lengths, refilling freed slots "
			"can gain nothing over a static batch: the bound is 1 (computed).",
			l->out_text);
		return;
	}
	struct nx_text bounds;
	nx_text_init(&bounds);
	for (size_t b = 0; b < g->n_batches; b++)
		if (g->batches[b] != NX_BATCH_FIT) /* which differs from stack to stack */
			nx_text_printf(&bounds, "%s%.3g at batch size %d", bounds.s ? ", " : "",
			               nx_skew_bound(&dist, g->batches[b]), g->batches[b]);
	nx_doc_paragraph(
		d,
		"Output lengths: %s tokens (mean %.4g). The most that refilling freed slots can gain "
		"from this skew alone, E[longest of the batch] / E[length]: %s (computed from the "
		"declared distribution, not measured).",
		l->out_text, l->out,
		bounds.s ? bounds.s : "not computed, since each stack has a batch size of its own");
	d->out->failed |= bounds.failed;
	nx_text_release(&bounds);
}

void nx_report_results(struct nx_doc *d, const struct nx_grid *g)
{
	nx_doc_heading(d, 2, "Results");
	nx_doc_paragraph(
		d,
		"Medians over trials, with 95 %% intervals (bootstrap and t, the wider) in brackets. Ratios are of output "
		"throughput, paired by round with " NX_DOC_CODE "; a verdict says faster or slower "
		"where the interval excludes 1 and the effect exceeds %.3g %%, corrected over the "
		"whole sweep (Holm).",
		nx_run_reference(g->run), g->run->head.min_effect * 100);
	for (size_t l = 0; l < g->n_lengths; l++) {
		char text[160] = "P";
		nx_lengths_text(&g->lengths[l], text, sizeof(text));
		text[0] = 'P';
		nx_doc_heading(d, 3, text);
		skew_sentence(d, g, l);
		for (size_t b = 0; b < g->n_batches; b++)
			cell_table(d, g, l, b);
	}
}

/* Names seen in any cell, in order of appearance: owners of memory, or counters. Returns how many.
 * */
static size_t owners(const struct nx_run *r, const char **names, size_t max)
{
	size_t n = 0;
	for (size_t i = 0; i < r->n_cells; i++)
		for (size_t m = 0; m < r->cells[i].n_mem; m++) {
			size_t k = 0;
			while (k < n && strcmp(names[k], r->cells[i].mem[m].owner) != 0)
				k++;
			if (k == n && n < max)
				names[n++] = r->cells[i].mem[m].owner;
		}
	return n;
}

void nx_report_memory(struct nx_doc *d, const struct nx_grid *g)
{
	const char *names[NX_TRIAL_MEM_MAX];
	size_t n = owners(g->run, names, NX_TRIAL_MEM_MAX);
	char text[160];
	nx_doc_heading(d, 2, "Memory by owner");
	if (!n) {
		nx_doc_paragraph(d, "No cell recorded its memory.");
		return;
	}
	nx_doc_paragraph(
		d,
		"Bytes reserved, in the last good trial; in brackets the most that was used, where it "
		"was less. A cell that was skipped has what the forecast says it would take.");
	for (size_t l = 0; l < g->n_lengths; l++) {
		struct nx_table t;
		nx_table_init(&t);
		nx_table_column(&t, "stack", NX_LEFT);
		nx_table_column(&t, "batch size", NX_RIGHT);
		for (size_t k = 0; k < n; k++)
			nx_table_column(&t, names[k], NX_RIGHT);
		nx_table_column(&t, "total", NX_RIGHT);
		for (size_t i = 0; i < g->n_batches * g->run->n_stacks; i++) {
			size_t s = i / g->n_batches, b = i % g->n_batches;
			const struct nx_cell_row *c = nx_grid_cell(g, l, b, s);
			if (!c)
				continue;
			nx_table_cell(&t, "%s", c->stack);
			nx_table_cell(&t, "%s", nx_cell_batch_text(c, text, sizeof(text)));
			double total = 0;
			for (size_t k = 0; k < n; k++) {
				const struct nx_mem_use *u = NULL;
				for (size_t m = 0; m < c->n_mem; m++)
					u = strcmp(c->mem[m].owner, names[k]) ? u : &c->mem[m];
				if (!u) {
					nx_table_cell(&t, "%s",
					              c->n_mem ? "0 B" : nx_status_name(c->status));
					continue;
				}
				char used[32];
				total += (double)u->reserved_bytes;
				nx_size_text((double)u->reserved_bytes, text, sizeof(text));
				nx_size_text((double)u->peak_used_bytes, used, sizeof(used));
				if (u->peak_used_bytes < u->reserved_bytes &&
				    strcmp(used, text) != 0)
					nx_table_cell(&t, "%s [%s]", text, used);
				else
					nx_table_cell(&t, "%s", text);
			}
			nx_table_cell(&t, "%s%s",
			              c->n_mem ? nx_size_text(total, text, sizeof(text))
			                       : nx_status_name(c->status),
			              c->n_mem && c->status == NX_STATUS_SKIPPED ? ", forecast"
			                                                         : "");
		}
		nx_lengths_text(&g->lengths[l], text, sizeof(text));
		text[0] = 'P';
		nx_doc_heading(d, 3, text);
		nx_doc_table(d, &t);
		d->out->failed |= t.failed;
		nx_table_release(&t);
	}
}

void nx_report_counters(struct nx_doc *d, const struct nx_grid *g)
{
	struct nx_table t;
	nx_table_init(&t);
	nx_table_column(&t, "counter", NX_LEFT);
	nx_table_column(&t, "stack", NX_LEFT);
	nx_table_column(&t, "lengths", NX_LEFT);
	nx_table_column(&t, "batch size", NX_RIGHT);
	nx_table_column(&t, "mean over good trials", NX_RIGHT);
	nx_table_column(&t, "unit", NX_LEFT);
	for (size_t l = 0; l < g->n_lengths; l++) {
		for (size_t i = 0; i < g->run->n_stacks * g->n_batches; i++) {
			const struct nx_cell_row *c =
				nx_grid_cell(g, l, i % g->n_batches, i / g->n_batches);
			char lengths[160], v[32], batch[32];
			for (size_t k = 0; c && k < c->n_counters; k++) {
				if (c->counters[k].value == 0)
					continue;
				nx_number_text(c->counters[k].value, 4, v, sizeof(v));
				nx_table_cell(&t, "%s", c->counters[k].name);
				nx_table_cell(&t, "%s", c->stack);
				nx_table_cell(
					&t, "%s",
					nx_lengths_text(&g->lengths[l], lengths, sizeof(lengths)));
				nx_table_cell(&t, "%s",
				              nx_cell_batch_text(c, batch, sizeof(batch)));
				nx_table_cell(&t, "%s", v[0] ? v : "not recorded");
				nx_table_cell(&t, "%s",
				              c->counters[k].unit ? c->counters[k].unit : "");
			}
		}
	}
	nx_doc_heading(d, 2, "Counters of the techniques");
	nx_doc_paragraph(d, "Counters that stayed at zero are left out; the JSON report has them.");
	if (nx_table_rows(&t))
		nx_doc_table(d, &t);
	else
		nx_doc_paragraph(d, "No counter of these stacks left zero.");
	d->out->failed |= t.failed;
	nx_table_release(&t);
}
