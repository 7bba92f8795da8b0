/* SPDX-License-Identifier: Apache-2.0 */
/* See schema.h: the tables themselves, and rows to structs and back. */
#include "record/schema.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "measure/stats.h"
#include "measure/trial.h"

#define COLUMN(row, kind_, member, column, unit_, text_)                                           \
	{.name = column,                                                                           \
	 .unit = unit_,                                                                            \
	 .text = text_,                                                                            \
	 .kind = NX_COL_##kind_,                                                                   \
	 .offset = offsetof(struct row, member),                                                   \
	 .bytes = sizeof(((struct row *)0)->member)},

/* A column that older files lack. */
#define LATE_COLUMN(row, kind_, member, column, unit_, text_)                                      \
	{.name = column,                                                                           \
	 .unit = unit_,                                                                            \
	 .text = text_,                                                                            \
	 .kind = NX_COL_##kind_,                                                                   \
	 .offset = offsetof(struct row, member),                                                   \
	 .bytes = sizeof(((struct row *)0)->member),                                               \
	 .optional = true},
#define METRIC_COLUMN(row, id, member, column, unit_, text_)                                       \
	{.name = column,                                                                           \
	 .unit = unit_,                                                                            \
	 .text = text_,                                                                            \
	 .kind = NX_COL_F64,                                                                       \
	 .offset = offsetof(struct row, member),                                                   \
	 .bytes = sizeof(double),                                                                  \
	 .optional = NX_METRIC_##id >= NX_METRIC_SCHEMA_3},

/* A metric is one column of a trial and three of a cell. */
#define METRIC_OF_TRIAL(id, column, unit_, better, text_)                                          \
	METRIC_COLUMN(nx_trial_row, id, metrics[NX_METRIC_##id], column, unit_, text_)
#define METRIC_OF_CELL(id, column, unit_, better, text_)                                           \
	METRIC_COLUMN(nx_summary_row, id, c.metrics[NX_METRIC_##id].value, column, unit_, text_)   \
	METRIC_COLUMN(nx_summary_row, id, c.metrics[NX_METRIC_##id].lo, column "_lo", unit_,       \
	              "95 % interval, lower end")                                                  \
	METRIC_COLUMN(nx_summary_row, id, c.metrics[NX_METRIC_##id].hi, column "_hi", unit_,       \
	              "95 % interval, upper end")

static const struct nx_h5_column columns_REQUEST[] = {
#define X(kind, member, column, unit, text) COLUMN(nx_request_row, kind, member, column, unit, text)
	NX_REQUEST_COLUMNS(X)
#undef X
};
static const struct nx_h5_column columns_TOKEN[] = {
#define X(kind, member, column, unit, text) COLUMN(nx_token_row, kind, member, column, unit, text)
	NX_TOKEN_COLUMNS(X)
#undef X
};
static const struct nx_h5_column columns_STEP[] = {
#define X(kind, member, column, unit, text) COLUMN(nx_step_row, kind, member, column, unit, text)
	NX_STEP_COLUMNS(X)
#undef X
};
static const struct nx_h5_column columns_PHASE[] = {
#define X(kind, member, column, unit, text) COLUMN(nx_phase_row, kind, member, column, unit, text)
	NX_PHASE_COLUMNS(X)
#undef X
};
static const struct nx_h5_column columns_MEM[] = {
#define X(kind, member, column, unit, text) COLUMN(nx_mem_row, kind, member, column, unit, text)
	NX_MEM_COLUMNS(X)
#undef X
};
static const struct nx_h5_column columns_COUNTER[] = {
#define X(kind, member, column, unit, text) COLUMN(nx_counter_row, kind, member, column, unit, text)
	NX_COUNTER_COLUMNS(X)
#undef X
};
static const struct nx_h5_column columns_INSTRUMENT[] = {
#define X(kind, member, column, unit, text)                                                        \
	COLUMN(nx_instrument_row, kind, member, column, unit, text)
	NX_INSTRUMENT_COLUMNS(X)
#undef X
#define X(kind, member, column, unit, text)                                                        \
	LATE_COLUMN(nx_instrument_row, kind, member, column, unit, text)
		NX_TIME_LINE_COLUMNS(X)
#undef X
};
static const struct nx_h5_column columns_SAMPLE[] = {
#define X(kind, member, column, unit, text)                                                        \
	COLUMN(nx_device_sample, kind, member, column, unit, text)
	NX_SAMPLE_COLUMNS(X)
#undef X
};
static const struct nx_h5_column columns_METRIC[] = {
#define X(kind, member, column, unit, text) COLUMN(nx_metric_row, kind, member, column, unit, text)
	NX_METRIC_COLUMNS(X)
#undef X
};
static const struct nx_h5_column columns_KERNEL[] = {
#define X(kind, member, column, unit, text) COLUMN(nx_kernel_row, kind, member, column, unit, text)
	NX_KERNEL_COLUMNS(X)
#undef X
};
static const struct nx_h5_column columns_PERTURBED[] = {
#define X(kind, member, column, unit, text) COLUMN(nx_perturbed, kind, member, column, unit, text)
	NX_PERTURBED_COLUMNS(X)
#undef X
};
static const struct nx_h5_column columns_range[] = {
#define X(kind, member, column, unit, text) COLUMN(nx_ranged, kind, member, column, unit, text)
	NX_RANGE_COLUMNS(X)
#undef X
};
static const struct nx_h5_column columns_TRIAL[] = {
#define X(kind, member, column, unit, text) COLUMN(nx_trial_row, kind, member, column, unit, text)
	NX_TRIAL_COLUMNS(X)
#undef X
#define X(kind, member, column, unit, text)                                                        \
	LATE_COLUMN(nx_trial_row, kind, member, column, unit, text)
		NX_TELEMETRY_COLUMNS(X) NX_TRIAL_LATE_COLUMNS(X)
#undef X
			NX_METRICS(METRIC_OF_TRIAL)};
static const struct nx_h5_column columns_SUMMARY[] = {
#define X(kind, member, column, unit, text) COLUMN(nx_summary_row, kind, member, column, unit, text)
	NX_SUMMARY_COLUMNS(X)
#undef X
#define X(kind, member, column, unit, text)                                                        \
	LATE_COLUMN(nx_summary_row, kind, member, column, unit, text)
		NX_SUMMARY_LATE_COLUMNS(X)
#undef X
			NX_METRICS(METRIC_OF_CELL)};
static const struct nx_h5_column columns_CALIBRATION[] = {
#define X(kind, member, column, unit, text) COLUMN(nx_calibration, kind, member, column, unit, text)
	NX_CALIBRATION_COLUMNS(X)
#undef X
};
static const struct nx_h5_column columns_DEVICE[] = {
#define X(kind, member, column, unit, text) COLUMN(nx_device_info, kind, member, column, unit, text)
	NX_DEVICE_COLUMNS(X)
#undef X
};
static const struct nx_h5_column columns_SHAPE[] = {
#define X(kind, member, column, unit, text) COLUMN(nx_shape_row, kind, member, column, unit, text)
	NX_SHAPE_COLUMNS(X)
#undef X
};
static const struct nx_h5_column columns_FACT[] = {
#define X(kind, member, column, unit, text) COLUMN(nx_fact, kind, member, column, unit, text)
	NX_FACT_COLUMNS(X)
#undef X
};

#define N(a) (sizeof(a) / sizeof(*(a)))

const struct nx_h5_table *nx_schema_table(enum nx_table_id id)
{
	static const struct nx_h5_table tables[] = {
#define X(id, row, text) {text, sizeof(struct row), columns_##id, N(columns_##id)},
		NX_TABLES(X)
#undef X
	};
	return &tables[id];
}

struct nx_h5_table nx_range_table(const struct nx_metric_group *g, struct nx_h5_column *columns)
{
	size_t n = N(columns_range);
	memcpy(columns, columns_range, sizeof(columns_range));
	for (int32_t i = 0; i < g->n; i++)
		columns[n++] = (struct nx_h5_column){
			.name = g->m[i].name,
			.unit = g->m[i].unit,
			.text = g->m[i].text,
			.kind = NX_COL_F64,
			.offset = offsetof(struct nx_ranged, values) + (size_t)i * sizeof(double),
			.bytes = sizeof(double),
		};
	for (int32_t i = 0; i < g->n_formulas; i++)
		columns[n++] = (struct nx_h5_column){
			.name = g->f[i].name,
			.unit = g->f[i].unit,
			.text = g->f[i].text,
			.kind = NX_COL_F64,
			.offset =
				offsetof(struct nx_ranged, worked_out) + (size_t)i * sizeof(double),
			.bytes = sizeof(double),
		};
	return (struct nx_h5_table){"one row a range: a step under counters",
	                            sizeof(struct nx_ranged), columns, n};
}

/* ---- names ------------------------------------------------------------------------------------
 * */

static const char *const util_names[] = {
#define X(id, name) name,
	NX_UTIL_SOURCES(X)
#undef X
};
static const char *const gate_names[] = {"exact", "near ties", "inconclusive", "failed"};
#define RANDOM_WEIGHTS "random weights"
#define RANDOM_VERDICT 4 /* NX_GATE_RANDOM_WEIGHTS */

const char *nx_gate_text(const struct nx_gate *g)
{
	if (!g->ran && g->verdict == RANDOM_VERDICT)
		return RANDOM_WEIGHTS;
	return g->ran && g->verdict >= 0 && g->verdict < (int)N(gate_names) ? gate_names[g->verdict]
	                                                                    : "not run";
}

/* Fills ran and verdict from the text. */
static int gate_from_text(struct nx_gate *g, const char *text)
{
	g->ran = 0;
	g->verdict = 0;
	if (!strcmp(text, RANDOM_WEIGHTS)) {
		g->verdict = RANDOM_VERDICT;
		return 0;
	}
	for (int i = 0; i < (int)N(gate_names); i++)
		if (strcmp(text, gate_names[i]) == 0)
			g->ran = 1, g->verdict = i;
	return g->ran || strcmp(text, "not run") == 0 ? 0 : -1;
}

int nx_status_find(const char *name)
{
	for (int i = 0; i < NX_STATUS_COUNT; i++)
		if (strcmp(name, nx_status_name(i)) == 0)
			return i;
	return -1;
}

int nx_verdict_find(const char *name)
{
	for (int i = 0; i < NX_VERDICT_COUNT; i++)
		if (strcmp(name, nx_verdict_name(i)) == 0)
			return i;
	return -1;
}

int nx_util_source_find(const char *name)
{
	for (int i = 0; i < (int)N(util_names); i++)
		if (strcmp(name, util_names[i]) == 0)
			return i;
	return -1;
}

void nx_copy_text(char *dst, size_t size, const char *text)
{
	size_t n = strlen(text);

	if (n >= size) {
		n = size - 1;
		while (n && ((unsigned char)text[n] & 0xc0) ==
		                    0x80) /* not in the middle of a character */
			n--;
	}
	memmove(dst, text, n);
	memset(dst + n, 0, size - n);
}

/* ---- trials -----------------------------------------------------------------------------------
 * */

static double count_or_nan(int64_t v)
{
	return v < 0 ? NAN : (double)v;
}

static int64_t count_or_none(double v)
{
	return v >= 0 && v < 9e18 ? (int64_t)v : -1;
}

void nx_trial_to_row(const struct nx_trial *t, struct nx_trial_row *row)
{
	memset(row, 0, sizeof(*row)); /* padding reaches the file's compressor */
	nx_copy_text(row->cell, sizeof(row->cell), t->cell);
	nx_copy_text(row->status, sizeof(row->status), nx_status_name(t->status));
	nx_copy_text(row->cause, sizeof(row->cause), t->cause);
	nx_copy_text(row->gate_text, sizeof(row->gate_text), nx_gate_text(&t->gate));
	nx_copy_text(row->util_source, sizeof(row->util_source),
	             t->util_source >= 0 && t->util_source < (int)N(util_names)
	                     ? util_names[t->util_source]
	                     : util_names[0]);
	row->cell_index = t->cell_index;
	row->round = t->round;
	row->batch_size = t->batch_size;
	row->n_warmup = t->n_warmup;
	row->started_unix_ns = t->started_unix_ns;
	row->duration_ns = t->duration_ns;
	row->warmup_ns = t->warmup_ns;
	row->counted = t->counted;
	row->perf_cycles = count_or_nan(t->perf_cycles);
	row->perf_instructions = count_or_nan(t->perf_instructions);
	row->perf_llc_misses = count_or_nan(t->perf_llc_misses);
	row->load_other = t->load_other;
	row->device = t->device;
	nx_throttle_text(t->device.throttle, row->throttle, sizeof(row->throttle));
	row->gate = t->gate;
	memcpy(row->metrics, t->metrics, sizeof(row->metrics));
}

int nx_trial_from_row(const struct nx_trial_row *row, struct nx_trial *t, struct nx_err *err)
{
	int status = nx_status_find(row->status), source = nx_util_source_find(row->util_source);
	struct nx_gate gate = row->gate;

	if (status < 0)
		return nx_fail(err, NX_EFORMAT, "the status '%s' of cell %s is unknown",
		               row->status, row->cell);
	if (source < 0 || gate_from_text(&gate, row->gate_text))
		return nx_fail(err, NX_EFORMAT, "cell %s has the unknown %s '%s'", row->cell,
		               source < 0 ? "util_source" : "gate",
		               source < 0 ? row->util_source : row->gate_text);
	nx_copy_text(t->cell, sizeof(t->cell), row->cell);
	nx_copy_text(t->cause, sizeof(t->cause), row->cause);
	t->status = status;
	t->util_source = source;
	t->cell_index = row->cell_index;
	t->round = row->round;
	t->batch_size = row->batch_size;
	t->n_warmup = row->n_warmup;
	t->started_unix_ns = row->started_unix_ns;
	t->duration_ns = row->duration_ns;
	t->warmup_ns = row->warmup_ns;
	t->counted = row->counted;
	t->perf_cycles = count_or_none(row->perf_cycles);
	t->perf_instructions = count_or_none(row->perf_instructions);
	t->perf_llc_misses = count_or_none(row->perf_llc_misses);
	t->load_other = row->load_other;
	t->device = row->device;
	t->gate = gate;
	memcpy(t->metrics, row->metrics, sizeof(t->metrics));
	return 0;
}

/* ---- cells ------------------------------------------------------------------------------------
 * */

void nx_cell_to_row(const struct nx_cell_row *c, const struct nx_run_head *head,
                    const char *reference, struct nx_summary_row *row)
{
	const char *model = nx_fact_get(head->facts, head->n_facts, "model");
	const char *host = nx_fact_get(head->facts, head->n_facts, "host");

	memset(row, 0, sizeof(*row));
	row->c = *c;
	nx_copy_text(row->status, sizeof(row->status), nx_status_name(c->status));
	nx_copy_text(row->verdict, sizeof(row->verdict), nx_verdict_name(c->verdict));
	nx_copy_text(row->util_source, sizeof(row->util_source),
	             c->util_source >= 0 && c->util_source < (int)N(util_names)
	                     ? util_names[c->util_source]
	                     : util_names[0]);
	nx_copy_text(row->gate_text, sizeof(row->gate_text), nx_gate_text(&c->gate));
	nx_copy_text(row->model, sizeof(row->model), model ? model : "");
	nx_copy_text(row->host, sizeof(row->host), host ? host : "");
	nx_copy_text(row->device, sizeof(row->device), head->device.name);
	nx_copy_text(row->reference, sizeof(row->reference), reference);
}

int nx_cell_from_row(const struct nx_summary_row *row, struct nx_cell_row *c, struct nx_err *err)
{
	int status = nx_status_find(row->status), verdict = nx_verdict_find(row->verdict);
	int source = nx_util_source_find(row->util_source);

	*c = row->c;
	if (status < 0 || verdict < 0 || source < 0)
		return nx_fail(err, NX_EFORMAT, "summary: cell %s has the unknown %s", c->id,
		               status < 0    ? "status"
		               : verdict < 0 ? "verdict"
		                             : "util_source");
	if (gate_from_text(&c->gate, row->gate_text))
		return nx_fail(err, NX_EFORMAT, "summary: cell %s has the unknown gate '%s'", c->id,
		               row->gate_text);
	c->status = status;
	c->verdict = verdict;
	c->util_source = source;
	return 0;
}
