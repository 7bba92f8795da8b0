/* SPDX-License-Identifier: Apache-2.0 */
/* The report's parts beside the figures: where, exactness, failures, stacks, definitions. See
 * report.h. */
#include <string.h>

#include "measure/gate.h"
#include "present/number.h"
#include "present/report.h"

/* Facts that have a row of their own on top; all others follow under their own names. */
static const struct {
	const char *label;
	const char *keys[4];
} FACTS[] = {
	{"model", {"model", "model_path", "model_name"}},
	{"device", {"device", NULL}},
	{"dtype", {"dtype", NULL}},
	{"threads", {"threads", NULL}},
	{"base", {"base", NULL}},
	{"workload", {"workload", "prompts", NULL}},
	{"seed", {"seed", "workload_seed", NULL}},
	{"commit", {"commit", "git_commit", NULL}},
	{"uncommitted changes", {"dirty", "git_dirty", NULL}},
	{"date", {"started", "date", "started_utc"}},
	{"CPU", {"cpu", NULL}},
	{"operating system", {"os", NULL}},
};
#define N_FACTS (sizeof(FACTS) / sizeof(FACTS[0]))

static void fact_row(struct nx_table *t, const char *label, const char *value)
{
	nx_table_cell(t, "%s", label);
	nx_table_cell(t, "%s", value);
}

static void rate_row(struct nx_table *t, const char *label, double v, const char *unit)
{
	char text[32];
	nx_table_cell(t, "%s", label);
	if (v > 0)
		nx_table_cell(t, "%s (measured on this device)",
		              nx_rate_text(v, unit, text, sizeof(text)));
	else
		nx_table_cell(t, "not measured");
}

static bool is_shown(const char *key)
{
	for (size_t i = 0; i < N_FACTS; i++)
		for (size_t k = 0; k < 4 && FACTS[i].keys[k]; k++)
			if (!strcmp(FACTS[i].keys[k], key))
				return true;
	return !strcmp(key, "argv");
}

static void device_rows(struct nx_table *t, const struct nx_device_info *i)
{
	char a[32], b[32];
	if (i->name[0]) {
		nx_table_cell(t, "processor");
		nx_table_cell(t, "%s; kernels %s; %d threads or SMs in use; library %s", i->name,
		              i->isa[0] ? i->isa : "of unknown kind", i->n_units,
		              i->blas[0] ? i->blas : "none");
	}
	if (i->mem_bytes) {
		nx_table_cell(t, "memory of the device");
		nx_table_cell(t, "%s; last-level cache %s",
		              nx_size_text((double)i->mem_bytes, a, sizeof(a)),
		              i->llc_bytes ? nx_size_text((double)i->llc_bytes, b, sizeof(b))
		                           : "unknown");
	}
}

static void shape_row(struct nx_table *t, const struct nx_shape *s)
{
	if (s->n_layers <= 0)
		return;
	nx_table_cell(t, "shape");
	nx_table_cell(
		t,
		"%d layers, width %d, %d query and %d KV heads of %d, feed-forward %d, vocabulary %d, "
		"context %d tokens",
		s->n_layers, s->d_model, s->n_heads, s->n_kv_heads, s->head_dim, s->d_ff, s->vocab,
		s->ctx_len);
}

void nx_report_where(struct nx_doc *d, const struct nx_run *run)
{
	const struct nx_calibration *c = &run->head.calibration;
	struct nx_table t;
	nx_table_init(&t);
	nx_table_column(&t, "what", NX_LEFT);
	nx_table_column(&t, "value", NX_LEFT);
	for (size_t i = 0; i < N_FACTS; i++) {
		const char *keys[5] = {0};
		memcpy(keys, FACTS[i].keys, sizeof(FACTS[i].keys));
		const char *v = nx_run_fact(run, keys);
		if (v)
			fact_row(&t, FACTS[i].label, v);
		if (!strcmp(FACTS[i].label, "model"))
			shape_row(&t, &run->head.shape);
		if (!strcmp(FACTS[i].label, "device"))
			device_rows(&t, &run->head.device);
	}
	rate_row(&t, "peak: memory, read", c->read_bytes_per_s, "B/s");
	rate_row(&t, "peak: memory, copy", c->copy_bytes_per_s, "B/s");
	rate_row(&t, "peak: last-level cache, read", c->cache_read_bytes_per_s, "B/s");
	rate_row(&t, "peak: f32 products", c->f32_flops_per_s, "FLOP/s");
	rate_row(&t, "peak: bf16 products", c->bf16_flops_per_s, "FLOP/s");
	rate_row(&t, "peak: library's product", c->blas_flops_per_s, "FLOP/s");
	nx_table_cell(&t, "trials");
	nx_table_cell(&t, "%zu in %zu cells", run->n_trials, run->n_cells);
	for (size_t i = 0; i < run->head.n_facts; i++)
		if (!is_shown(run->head.facts[i].key) && run->head.facts[i].value[0])
			fact_row(&t, run->head.facts[i].key, run->head.facts[i].value);
	nx_doc_heading(d, 2, "What ran where");
	nx_doc_table(d, &t);
	d->out->failed |= t.failed;
	nx_table_release(&t);
}

void nx_report_gate(struct nx_doc *d, const struct nx_grid *g)
{
	struct nx_table t;
	bool random = false;
	nx_table_init(&t);
	nx_table_column(&t, "stack", NX_LEFT);
	nx_table_column(&t, "verdict", NX_LEFT);
	nx_table_column(&t, "positions", NX_RIGHT);
	nx_table_column(&t, "equal", NX_RIGHT);
	nx_table_column(&t, "near ties", NX_RIGHT);
	nx_table_column(&t, "wrong", NX_RIGHT);
	nx_table_column(&t, "where", NX_LEFT);
	for (size_t i = 0; i < g->run->n_cells; i++) {
		const struct nx_cell_row *c = &g->run->cells[i];
		random |= !c->gate.ran && c->gate.verdict == NX_GATE_RANDOM_WEIGHTS;
		if (!c->gate.ran)
			continue;
		nx_table_cell(&t, "%s", c->stack);
		nx_table_cell(&t, "%s", nx_gate_word(&c->gate));
		nx_table_cell(&t, "%d", c->gate.n_positions);
		nx_table_cell(&t, "%d", c->gate.n_equal);
		nx_table_cell(&t, "%d", c->gate.n_near_tie);
		nx_table_cell(&t, "%d", c->gate.n_wrong);
		if (c->gate.n_wrong > 0)
			nx_table_cell(
				&t,
				"batch size %d; first wrong token: request %d, position %d, %.3g logits off",
				c->batch_size, c->gate.first_request, c->gate.first_index,
				c->gate.first_gap);
		else
			nx_table_cell(&t, "batch size %d, prompt %s, output %s", c->batch_size,
			              c->seq_len_text, c->output_len_text);
	}
	nx_doc_heading(d, 2, "Exactness gate");
	if (random)
		nx_doc_paragraph(
			d,
			"Random weights: the model is a shape without a text to get right, so the gate "
			"was not run. Speed and memory are those of the shape; what depends on the text "
			"(acceptance of drafts, hits of prefixes, lengths) says nothing about a trained "
			"model.");
	else
		nx_doc_paragraph(
			d,
			"The tokens that the stack's own numerics choose, one sequence at a time, are fed to the "
			"batched stack, and its choice is compared at each position. A near tie is a difference between two tokens whose logits lie "
			"closer than rounding; over 1 %% of them is inconclusive. A failed gate withholds the "
			"speed-up.");
	if (nx_table_rows(&t))
		nx_doc_table(d, &t);
	else if (!random)
		nx_doc_paragraph(d, "The gate did not run in this file.");
	d->out->failed |= t.failed;
	nx_table_release(&t);
}

/* Several cells of one stack most often fail for one reason: those are one line. */
static bool same_failure(const struct nx_cell_row *a, const struct nx_cell_row *b)
{
	return a->stack_index == b->stack_index && a->status == b->status &&
	       !strcmp(a->cause, b->cause);
}

static void failure_item(struct nx_doc *d, const struct nx_run *r, size_t first)
{
	const struct nx_cell_row *c = &r->cells[first];
	struct nx_text where;
	char batch[32];
	nx_text_init(&where);
	for (size_t i = first; i < r->n_cells; i++) {
		const struct nx_cell_row *o = &r->cells[i];
		if (same_failure(c, o))
			nx_text_printf(
				&where, "%sbatch size %s with prompt %s and output %s tokens",
				i > first ? "; " : "", nx_cell_batch_text(o, batch, sizeof(batch)),
				o->seq_len_text, o->output_len_text);
	}
	size_t n = strlen(c->cause);
	nx_doc_item(d, NX_DOC_CODE " at %s: %s: %s%s", c->stack, where.s ? where.s : "",
	            nx_status_name(c->status), n ? c->cause : "no cause was recorded",
	            n && c->cause[n - 1] == '.' ? "" : ".");
	d->out->failed |= where.failed;
	nx_text_release(&where);
}

/* Good cells with something to say: trials left out, or all of them disturbed. */
static bool has_remark(const struct nx_cell_row *c)
{
	return c->status == NX_STATUS_OK && (c->n_ok < c->n_trials || c->cause[0]);
}

/* The reader's cause says how many and why; without one, at least how many. */
static void left_out_item(struct nx_doc *d, const struct nx_cell_row *c)
{
	char count[64];
	/* Counts of a file: nobody has checked their sense. */
	snprintf(count, sizeof(count), "%lld of %d trials left out",
	         (long long)c->n_trials - c->n_ok, c->n_trials);
	nx_doc_item(d, NX_DOC_CODE " at batch size %d with prompt %s and output %s tokens: %s.",
	            c->stack, c->batch_size, c->seq_len_text, c->output_len_text,
	            c->cause[0] ? c->cause : count);
}

void nx_report_failures(struct nx_doc *d, const struct nx_grid *g)
{
	const struct nx_run *r = g->run;
	int n = 0;
	nx_doc_heading(d, 2, "What failed, was skipped or disturbed");
	for (size_t i = 0; i < r->n_cells; i++)
		n += r->cells[i].status != NX_STATUS_OK || has_remark(&r->cells[i]);
	if (!n) {
		nx_doc_paragraph(d, "Nothing: every trial of every cell was good.");
		return;
	}
	nx_doc_list_begin(d);
	for (size_t i = 0; i < r->n_cells; i++) {
		const struct nx_cell_row *c = &r->cells[i];
		size_t k = 0;
		while (k < i && !same_failure(&r->cells[k], c))
			k++;
		if (c->status != NX_STATUS_OK && k == i)
			failure_item(d, r, i);
		if (has_remark(c))
			left_out_item(d, c);
	}
	nx_doc_list_end(d);
}

void nx_report_stacks(struct nx_doc *d, const struct nx_grid *g)
{
	nx_doc_heading(d, 2, "Stacks and their parameters");
	nx_doc_list_begin(d);
	for (size_t s = 0; s < g->run->n_stacks; s++) {
		const char *spec = g->run->stack_specs ? g->run->stack_specs[s] : NULL;
		const char *role = s == g->run->head.reference ? " (the reference)" : "";
		if (spec && spec[0])
			nx_doc_item(d, NX_DOC_CODE "%s: " NX_DOC_CODE, g->run->stacks[s], role,
			            spec);
		else
			nx_doc_item(d, NX_DOC_CODE "%s: nothing over the engine's defaults.",
			            g->run->stacks[s], role);
	}
	nx_doc_list_end(d);
}

void nx_report_again(struct nx_doc *d, const struct nx_run *run)
{
	static const char *const keys[] = {"argv", NULL};
	const char *argv = nx_run_fact(run, keys);
	nx_doc_heading(d, 2, "How to run it again");
	if (argv)
		nx_doc_code(d, argv);
	else
		nx_doc_paragraph(
			d,
			"The command was not recorded; the experiment file below was run by nexus run.");
	if (run->head.config_text && run->head.config_text[0]) {
		nx_doc_paragraph(d, "The experiment file, as it was then:");
		nx_doc_code(d, run->head.config_text);
	}
}

void nx_report_definitions(struct nx_doc *d)
{
	nx_doc_heading(d, 2, "What the words mean");
	nx_doc_list_begin(d);
	for (int m = 0; m < NX_METRIC_COUNT; m++) {
		const struct nx_metric_desc *x = nx_metric_desc((enum nx_metric)m);
		nx_doc_item(d, NX_DOC_CODE " [%s]: %s", x->name, x->unit, x->text);
	}
	nx_doc_item(
		d,
		"ttft: first token - arrival. e2el: last token - arrival. tpot: (e2el - ttft)/(n_out - 1). "
		"Percentiles are over the requests of a trial; the figure shown is the median over trials.");
	nx_doc_item(d,
	            "utilisation: " NX_DOC_CODE
	            " divides bytes and operations that the work needs at least by "
	            "time and calibrated peak; " NX_DOC_CODE " and " NX_DOC_CODE
	            " are read from hardware "
	            "counters.",
	            "counted", "perf", "cupti");
	nx_doc_item(
		d,
		"statuses other than ok: skipped (could not run), invalid (ran, but cannot be trusted), "
		"throttled (kept, left out), failed, crashed, timeout, out of memory, inexact (gate failed).");
	nx_doc_list_end(d);
}
