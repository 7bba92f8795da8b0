/* SPDX-License-Identifier: Apache-2.0 */
/* The report for machines: CSV and JSON, full precision. See report.h. */
#include <math.h>

#include "present/report.h"

static void number_cell(struct nx_table *t, double v)
{
	if (isfinite(v))
		nx_table_cell(t, "%.9g", v);
	else
		nx_table_cell(t, "%s", "");
}

static void estimate_cells(struct nx_table *t, const struct nx_estimate *e)
{
	number_cell(t, e->value);
	number_cell(t, e->lo);
	number_cell(t, e->hi);
}

static void estimate_columns(struct nx_table *t, const char *name, const char *unit)
{
	static const char *const ends[] = {"", "_lo", "_hi"};
	for (int i = 0; i < 3; i++) {
		char header[96];
		snprintf(header, sizeof(header), "%s%s%s%s%s", name, ends[i], unit[0] ? " [" : "",
		         unit, unit[0] ? "]" : "");
		nx_table_column(t, header, NX_RIGHT);
	}
}

static void csv_row(struct nx_table *t, const struct nx_run *run, const struct nx_cell_row *c)
{
	nx_table_cell(t, "%s", c->id);
	nx_table_cell(t, "%s", c->stack);
	nx_table_cell(t, "%d", c->batch_size);
	nx_table_cell(t, "%d", c->fit > 0);
	nx_table_cell(t, "%s", c->seq_len_text);
	nx_table_cell(t, "%s", c->output_len_text);
	nx_table_cell(t, "%d", c->num_requests);
	nx_table_cell(t, "%d", c->n_trials);
	nx_table_cell(t, "%d", c->n_ok);
	nx_table_cell(t, "%s", nx_status_name(c->status));
	nx_table_cell(t, "%s", c->cause);
	nx_table_cell(t, "%s", nx_run_reference(run));
	estimate_cells(t, &c->speedup);
	nx_table_cell(t, "%s", nx_verdict_word(c->verdict));
	number_cell(t, c->p_value);
	nx_table_cell(t, "%s", c->speedup_note);
	nx_table_cell(t, "%s", nx_gate_word(&c->gate));
	nx_table_cell(t, "%s", nx_util_source_word(c->util_source));
	for (int m = 0; m < NX_METRIC_COUNT; m++)
		estimate_cells(t, &c->metrics[m]);
}

int nx_report_csv(const struct nx_run *run, struct nx_text *out, struct nx_err *err)
{
	static const char *const before[] = {
		"cell",         "stack",  "batch_size", "fit",    "seq_len", "output_len",
		"num_requests", "trials", "trials_ok",  "status", "cause",   "reference"};
	static const char *const after[] = {"verdict", "p_value", "speedup_note", "gate",
	                                    "util_source"};
	struct nx_table t;
	nx_table_init(&t);
	for (size_t i = 0; i < sizeof(before) / sizeof(before[0]); i++)
		nx_table_column(&t, before[i], NX_LEFT);
	estimate_columns(&t, "speedup", "");
	for (size_t i = 0; i < sizeof(after) / sizeof(after[0]); i++)
		nx_table_column(&t, after[i], NX_LEFT);
	for (int m = 0; m < NX_METRIC_COUNT; m++) {
		const struct nx_metric_desc *x = nx_metric_desc((enum nx_metric)m);
		estimate_columns(&t, x->name, x->unit);
	}
	for (size_t i = 0; i < run->n_cells; i++)
		csv_row(&t, run, &run->cells[i]);
	nx_table_write(&t, NX_TABLE_CSV, out);
	nx_table_release(&t);
	return out->failed ? nx_fail(err, NX_ENOMEM, "%s: no memory for the table", run->path) : 0;
}

/* JSON knows no NaN: a missing number is null. */
static void json_number(struct nx_text *out, double v)
{
	if (isfinite(v))
		nx_text_printf(out, "%.9g", v);
	else
		nx_text_put(out, "null");
}

static void json_field(struct nx_text *out, const char *key, const char *value)
{
	nx_text_json(out, key);
	nx_text_put(out, ": ");
	nx_text_json(out, value);
}

static void json_estimate(struct nx_text *out, const char *key, const struct nx_estimate *e,
                          const char *unit)
{
	nx_text_json(out, key);
	nx_text_put(out, ": {\"value\": ");
	json_number(out, e->value);
	nx_text_put(out, ", \"lo\": ");
	json_number(out, e->lo);
	nx_text_put(out, ", \"hi\": ");
	json_number(out, e->hi);
	nx_text_put(out, ", ");
	json_field(out, "unit", unit);
	nx_text_put(out, "}");
}

static void json_cell(struct nx_text *out, const struct nx_cell_row *c)
{
	nx_text_put(out, "  {");
	json_field(out, "id", c->id);
	nx_text_put(out, ", ");
	json_field(out, "stack", c->stack);
	nx_text_printf(out, ", \"batch_size\": %d, \"fit\": %s, ", c->batch_size,
	               c->fit > 0 ? "true" : "false");
	json_field(out, "seq_len", c->seq_len_text);
	nx_text_put(out, ", ");
	json_field(out, "output_len", c->output_len_text);
	nx_text_printf(out, ", \"num_requests\": %d, \"trials\": %d, \"trials_ok\": %d,\n   ",
	               c->num_requests, c->n_trials, c->n_ok);
	json_field(out, "status", nx_status_name(c->status));
	nx_text_put(out, ", ");
	json_field(out, "cause", c->cause);
	nx_text_put(out, ", ");
	json_field(out, "verdict", nx_verdict_word(c->verdict));
	nx_text_put(out, ", ");
	json_field(out, "speedup_note", c->speedup_note);
	nx_text_put(out, ", ");
	json_field(out, "gate", nx_gate_word(&c->gate));
	nx_text_put(out, ", ");
	json_field(out, "util_source", nx_util_source_word(c->util_source));
	nx_text_put(out, ", \"p_value\": ");
	json_number(out, c->p_value);
	nx_text_put(out, ",\n   ");
	json_estimate(out, "speedup", &c->speedup, "ratio");
	nx_text_put(out, ",\n   \"metrics\": {");
	for (int m = 0; m < NX_METRIC_COUNT; m++) {
		const struct nx_metric_desc *x = nx_metric_desc((enum nx_metric)m);
		nx_text_put(out, m ? ",\n    " : "\n    ");
		json_estimate(out, x->name, &c->metrics[m], x->unit);
	}
	nx_text_printf(out, "},\n   \"memory_is_forecast\": %s,\n   \"memory\": [",
	               c->n_mem && c->status == NX_STATUS_SKIPPED ? "true" : "false");
	for (size_t m = 0; m < c->n_mem; m++) {
		nx_text_put(out, m ? ", {" : "{");
		json_field(out, "owner", c->mem[m].owner);
		nx_text_printf(out, ", \"reserved_bytes\": %llu, \"peak_used_bytes\": %llu}",
		               (unsigned long long)c->mem[m].reserved_bytes,
		               (unsigned long long)c->mem[m].peak_used_bytes);
	}
	nx_text_put(out, "],\n   \"counters\": [");
	for (size_t m = 0; m < c->n_counters; m++) {
		nx_text_put(out, m ? ", {" : "{");
		json_field(out, "name", c->counters[m].name);
		nx_text_put(out, ", ");
		json_field(out, "unit", c->counters[m].unit);
		nx_text_put(out, ", \"value\": ");
		json_number(out, c->counters[m].value);
		nx_text_put(out, "}");
	}
	nx_text_put(out, "]}");
}

int nx_report_json(const struct nx_run *run, struct nx_text *out, struct nx_err *err)
{
	nx_text_printf(out, "{\"schema\": %d,\n ", NX_RUN_SCHEMA);
	json_field(out, "name", run->head.name);
	nx_text_put(out, ",\n ");
	json_field(out, "question", run->head.question);
	nx_text_put(out, ",\n ");
	json_field(out, "reference", nx_run_reference(run));
	nx_text_put(out, ",\n \"min_effect\": ");
	json_number(out, run->head.min_effect);
	nx_text_put(out, ",\n \"facts\": {");
	for (size_t i = 0; i < run->head.n_facts; i++) {
		nx_text_put(out, i ? ",\n  " : "\n  ");
		json_field(out, run->head.facts[i].key, run->head.facts[i].value);
	}
	nx_text_put(out, "},\n \"stacks\": {");
	for (size_t s = 0; s < run->n_stacks; s++) {
		nx_text_put(out, s ? ",\n  " : "\n  ");
		json_field(out, run->stacks[s], run->stack_specs ? run->stack_specs[s] : NULL);
	}
	nx_text_put(out, "},\n \"cells\": [\n");
	for (size_t i = 0; i < run->n_cells; i++) {
		nx_text_put(out, i ? ",\n" : "");
		json_cell(out, &run->cells[i]);
	}
	nx_text_put(out, "\n ]\n}\n");
	return out->failed ? nx_fail(err, NX_ENOMEM, "%s: no memory for the report", run->path) : 0;
}
