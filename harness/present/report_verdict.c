/* SPDX-License-Identifier: Apache-2.0 */
/* The sentences on top of the report. See report.h. */
#include <math.h>
#include <string.h>

#include "measure/gate.h"
#include "present/number.h"
#include "present/report.h"

static const struct nx_cell_row *best(const struct nx_run *r, enum nx_metric m)
{
	const struct nx_cell_row *b = NULL;
	int better = nx_metric_desc(m)->better;
	for (size_t i = 0; i < r->n_cells; i++) {
		const struct nx_cell_row *c = &r->cells[i];
		double v = c->metrics[m].value;
		if (!nx_cell_usable(c) || !isfinite(v))
			continue;
		if (!b || (better > 0 ? v > b->metrics[m].value : v < b->metrics[m].value))
			b = c;
	}
	return b;
}

/* Who is best may be chance: says how many cells' intervals overlap with the best one's. */
static void put_rivals(const struct nx_run *r, enum nx_metric m, const struct nx_cell_row *b,
                       struct nx_text *out)
{
	const struct nx_estimate *top = &b->metrics[m];
	int n = 0;
	for (size_t i = 0; i < r->n_cells; i++) {
		const struct nx_estimate *e = &r->cells[i].metrics[m];
		n += &r->cells[i] != b && nx_cell_usable(&r->cells[i]) && e->lo <= top->hi &&
		     e->hi >= top->lo;
	}
	if (n)
		nx_text_printf(out, " (the interval%s of %d other cell%s overlap%s with it)",
		               n == 1 ? "" : "s", n, n == 1 ? "" : "s", n == 1 ? "s" : "");
}

static void put_place(const struct nx_cell_row *c, struct nx_text *out)
{
	nx_text_printf(out, NX_DOC_CODE " at batch size %d, prompt %s, output %s tokens", c->stack,
	               c->batch_size, c->seq_len_text, c->output_len_text);
}

static void put_ratio(const struct nx_run *r, const struct nx_cell_row *c, struct nx_text *out)
{
	char ratio[96];
	if (c->stack_index == (int32_t)r->head.reference) {
		nx_text_put(out, "; it is the reference itself");
		return;
	}
	if (!nx_ratio_text(&c->speedup, ratio, sizeof(ratio))[0]) {
		nx_text_printf(out, "; no ratio to " NX_DOC_CODE "%s%s", nx_run_reference(r),
		               c->speedup_note[0] ? ": " : "", c->speedup_note);
		return;
	}
	nx_text_printf(out,
	               "; its throughput is %s times that of " NX_DOC_CODE
	               " in the same setting (%s)",
	               ratio, nx_run_reference(r), nx_verdict_word(c->verdict));
}

static void put_best(const struct nx_run *r, struct nx_text *out)
{
	char v[96];
	const struct nx_cell_row *c = best(r, NX_METRIC_OUTPUT_THROUGHPUT);
	if (!c) {
		nx_text_put(out, "No cell gave a throughput, so no stack can be called best.\n");
		return;
	}
	nx_text_put(out, "Highest throughput: ");
	put_place(c, out);
	nx_text_printf(
		out, ", with %s tok/s",
		nx_estimate_text(&c->metrics[NX_METRIC_OUTPUT_THROUGHPUT], 1, 3, v, sizeof(v)));
	put_rivals(r, NX_METRIC_OUTPUT_THROUGHPUT, c, out);
	put_ratio(r, c, out);
	nx_text_put(out, ".\n");
	nx_report_bound_of(r, c, out);
	c = best(r, NX_METRIC_TPOT_P50);
	if (!c) {
		nx_text_put(out, "Latency between tokens could not be measured: ");
		nx_text_printf(out, "%s.\n",
		               nx_missing_reason(best(r, NX_METRIC_OUTPUT_THROUGHPUT),
		                                 NX_METRIC_TPOT_P50));
		return;
	}
	nx_text_put(out, "Lowest latency: ");
	put_place(c, out);
	nx_text_printf(out, ", with a median of %s ms per output token",
	               nx_estimate_text(&c->metrics[NX_METRIC_TPOT_P50], 1, 3, v, sizeof(v)));
	put_rivals(r, NX_METRIC_TPOT_P50, c, out);
	put_ratio(r, c, out);
	nx_text_put(out, ".\n");
}

/* "8 faster, 3 slower, 1 unclear". Returns how many comparisons there are. */
static int count_verdicts(const struct nx_run *r, struct nx_text *out)
{
	int n[5] = {0}, total = 0;
	for (size_t i = 0; i < r->n_cells; i++) {
		int v = r->cells[i].verdict;
		if (v <= NX_VERDICT_NONE || v > NX_VERDICT_UNCLEAR ||
		    r->cells[i].stack_index == (int32_t)r->head.reference)
			continue;
		n[v]++;
		total++;
	}
	const char *sep = "";
	for (int v = NX_VERDICT_FASTER; v <= NX_VERDICT_UNCLEAR; v++) {
		if (!n[v])
			continue;
		nx_text_printf(out, "%s%d %s", sep, n[v], nx_verdict_word(v));
		sep = ", ";
	}
	return total;
}

static void put_comparisons(const struct nx_run *r, struct nx_text *out)
{
	struct nx_text words;
	nx_text_init(&words);
	int n = count_verdicts(r, &words);
	if (n)
		nx_text_printf(out,
		               "%d comparison%s with " NX_DOC_CODE
		               " in the same setting, at 95 %% and "
		               "an effect of at least %.3g %%: %s.\n",
		               n, n == 1 ? "" : "s", nx_run_reference(r), r->head.min_effect * 100,
		               words.s);
	out->failed |= words.failed;
	nx_text_release(&words);
}

static void put_failed(const struct nx_run *r, struct nx_text *out)
{
	int n[NX_STATUS_COUNT] = {0}, total = 0, gates = 0, disturbed = 0;
	const struct nx_cell_row *first = NULL;
	for (size_t i = 0; i < r->n_cells; i++) {
		const struct nx_cell_row *c = &r->cells[i];
		gates += c->gate.ran && c->gate.verdict == 3;
		disturbed += c->status == NX_STATUS_OK && c->n_ok == c->n_trials && c->cause[0];
		if (c->status <= NX_STATUS_OK || c->status >= NX_STATUS_COUNT)
			continue;
		n[c->status]++;
		total++;
		first = first ? first : c;
	}
	if (disturbed)
		nx_text_printf(
			out,
			"In %d of %zu cells every trial was disturbed by other work on the machine: "
			"their figures are shown without a verdict.\n",
			disturbed, r->n_cells);
	if (!total) {
		nx_text_printf(out, "All %zu cell%s gave figures%s.\n", r->n_cells,
		               r->n_cells == 1 ? "" : "s",
		               gates ? ", but the exactness gate failed in some: see below" : "");
		return;
	}
	nx_text_printf(out, "%d of %zu cells gave no figures to trust (", total, r->n_cells);
	const char *sep = "";
	for (int s = 0; s < NX_STATUS_COUNT; s++) {
		if (!n[s])
			continue;
		nx_text_printf(out, "%s%d %s", sep, n[s], nx_status_name(s));
		sep = ", ";
	}
	nx_text_put(out, "), first ");
	put_place(first, out);
	nx_text_put(out, "; the causes are listed below.\n");
}

static void put_random(const struct nx_run *r, struct nx_text *out)
{
	for (size_t i = 0; i < r->n_cells; i++)
		if (!r->cells[i].gate.ran && r->cells[i].gate.verdict == NX_GATE_RANDOM_WEIGHTS) {
			nx_text_put(out,
			            "Random weights: speed and memory are those of the model's "
			            "shape; nothing is said about its text.\n");
			return;
		}
}

void nx_report_verdict(const struct nx_grid *g, struct nx_text *out)
{
	put_random(g->run, out);
	put_best(g->run, out);
	put_comparisons(g->run, out);
	put_failed(g->run, out);
}
