/* SPDX-License-Identifier: Apache-2.0
 *
 * report_quality.c: what lossy numerics cost; see report.h.
 */
#include <math.h>
#include <string.h>

#include "present/report.h"

/* Quality depends on the stack alone: one row for the first of its cells that has it. */
static bool is_first(const struct nx_run *r, size_t i)
{
	for (size_t j = 0; j < i; j++)
		if (r->cells[j].stack_index == r->cells[i].stack_index &&
		    isfinite(r->cells[j].metrics[NX_METRIC_PERPLEXITY].value))
			return false;
	return isfinite(r->cells[i].metrics[NX_METRIC_PERPLEXITY].value);
}

void nx_report_quality(struct nx_doc *d, const struct nx_grid *g)
{
	struct nx_table t;
	nx_table_init(&t);
	nx_table_column(&t, "stack", NX_LEFT);
	nx_table_column(&t, "perplexity", NX_RIGHT);
	nx_table_column(&t, "full precision", NX_RIGHT);
	nx_table_column(&t, "change", NX_RIGHT);
	nx_table_column(&t, "KL divergence [nats]", NX_RIGHT);
	nx_table_column(&t, "same token", NX_RIGHT);
	nx_table_column(&t, "first other [tokens]", NX_RIGHT);
	for (size_t i = 0; i < g->run->n_cells; i++) {
		const struct nx_cell_row *c = &g->run->cells[i];
		if (!is_first(g->run, i))
			continue;
		double ppl = c->metrics[NX_METRIC_PERPLEXITY].value,
		       full = c->metrics[NX_METRIC_PERPLEXITY_FULL].value;
		nx_table_cell(&t, "%s", c->stack);
		nx_table_cell(&t, "%.4g", ppl);
		nx_table_cell(&t, "%.4g", full);
		nx_table_cell(&t, "%+.2f %%", 100 * (ppl / full - 1));
		nx_table_cell(&t, "%.3g", c->metrics[NX_METRIC_KL_FULL].value);
		nx_table_cell(&t, "%.1f %%", 100 * c->metrics[NX_METRIC_TOKEN_AGREEMENT].value);
		nx_table_cell(&t, "%.1f", c->metrics[NX_METRIC_FIRST_DIVERGENCE].value);
	}
	if (nx_table_rows(&t)) {
		nx_doc_heading(d, 2, "Quality of lossy numerics");
		nx_doc_paragraph(
			d,
			"Held-out texts are fed to the model in full precision and with the stack's attention, KV "
			"codec and weights; both sets of logits are compared at each position. Speed-ups of "
			"these stacks are to be read beside this table.");
		nx_doc_table(d, &t);
	}
	d->out->failed |= t.failed;
	nx_table_release(&t);
}
