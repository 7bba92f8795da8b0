/* SPDX-License-Identifier: Apache-2.0 */
/* Reads a run file for report, plot and compare. See run.h; what h5_read.c lets through is of the
 * right types and sizes, the meaning is checked here. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/guard.h"
#include "record/schema.h"

enum { UNIT_BYTES = sizeof(((struct nx_counter_row *)0)->unit) };

/* Rounds of the trials that count, by cell. */
struct rounds {
	struct nx_trial_row *trials;
	size_t n;
};

static bool is_disturbed(const struct rounds *u, const char *cell)
{
	for (size_t i = 0; i < u->n; i++)
		if (strcmp(u->trials[i].cell, cell) == 0 &&
		    nx_trial_usable(nx_status_find(u->trials[i].status), false))
			return false;
	return true;
}

/* use[round] of one cell, so that long tables need no search a row; NULL when out of memory.
 * The trials of a cell count as in summary.c: throttled ones only where there is no clean one. */
static bool *usable_rounds(const struct rounds *u, const char *cell, int32_t *n)
{
	int32_t last = -1;

	for (size_t i = 0; i < u->n; i++)
		if (strcmp(u->trials[i].cell, cell) == 0 && u->trials[i].round > last)
			last = u->trials[i].round;
	bool disturbed = is_disturbed(u, cell);
	bool *use = calloc((size_t)last + 2, sizeof(*use));
	for (size_t i = u->n;
	     use && i-- > 0;) /* backwards: of two trials of a round the first counts */
		if (strcmp(u->trials[i].cell, cell) == 0)
			use[u->trials[i].round] =
				nx_trial_usable(nx_status_find(u->trials[i].status), disturbed);
	*n = last + 1;
	return use;
}

static bool counts(const bool *use, int32_t n, int32_t round)
{
	return round >= 0 && round < n && use[round];
}

static int by_length(const void *a, const void *b)
{
	int32_t x = *(const int32_t *)a, y = *(const int32_t *)b;
	return (x > y) - (x < y);
}

static int read_requests(hid_t g, struct nx_cell_row *c, const bool *use, int32_t n_use,
                         struct nx_err *err)
{
	void *data;
	size_t n;
	int rc = nx_h5_read(g, "requests", nx_schema_table(NX_TABLE_REQUEST), &data, &n, err);

	if (rc)
		return rc;
	const struct nx_request_row *rows = data;
	c->ttft_ms = calloc(n + 1, sizeof(*c->ttft_ms));
	c->tpot_ms = calloc(n + 1, sizeof(*c->tpot_ms));
	c->out_tokens = calloc(n + 1, sizeof(*c->out_tokens));
	if (!c->ttft_ms || !c->tpot_ms || !c->out_tokens)
		rc = nx_fail(err, NX_ENOMEM, "out of memory for %zu requests", n);
	for (size_t i = 0; !rc && i < n; i++) {
		if (!counts(use, n_use, rows[i].round))
			continue;
		double ttft = nx_request_ttft_ms(&rows[i].r), tpot = nx_request_tpot_ms(&rows[i].r);
		if (!isnan(ttft))
			c->ttft_ms[c->n_ttft++] = ttft;
		if (!isnan(tpot))
			c->tpot_ms[c->n_tpot++] = tpot;
		c->out_tokens[c->n_out_tokens++] = rows[i].r.n_out;
	}
	if (!rc)
		qsort(c->out_tokens, c->n_out_tokens, sizeof(*c->out_tokens), by_length);
	free(data);
	return rc;
}

/* Memory of the last round that counts; where all were skipped, their forecast, which is the same each time. */
static int read_memory(hid_t g, struct nx_cell_row *c, const bool *use, int32_t n_use,
                       struct nx_err *err)
{
	void *data;
	size_t n;
	int32_t last = -1;
	int rc = nx_h5_read(g, "memory", nx_schema_table(NX_TABLE_MEM), &data, &n, err);

	if (rc)
		return rc;
	const struct nx_mem_row *rows = data;
	for (size_t i = 0; i < n; i++)
		if ((c->status == NX_STATUS_SKIPPED || counts(use, n_use, rows[i].round)) &&
		    rows[i].round > last)
			last = rows[i].round;
	for (size_t i = 0; i < n && c->n_mem < NX_TRIAL_MEM_MAX; i++)
		if (last >= 0 && rows[i].round == last)
			c->mem[c->n_mem++] = rows[i].r;
	free(data);
	return 0;
}

/* Means over the rounds that count; units go to the run's block at *units. */
static int read_counters(hid_t g, struct nx_cell_row *c, const bool *use, int32_t n_use,
                         char *units, struct nx_err *err)
{
	size_t n, seen[NX_TRIAL_COUNTER_MAX] = {0};
	void *data;
	int rc = nx_h5_read(g, "counters", nx_schema_table(NX_TABLE_COUNTER), &data, &n, err);

	if (rc)
		return rc;
	const struct nx_counter_row *rows = data;
	for (size_t i = 0; i < n; i++) {
		size_t k = 0;
		if (!counts(use, n_use, rows[i].round))
			continue;
		while (k < c->n_counters && strcmp(c->counters[k].name, rows[i].name) != 0)
			k++;
		if (k == NX_TRIAL_COUNTER_MAX)
			continue;
		if (k == c->n_counters) {
			memcpy(c->counters[k].name, rows[i].name, sizeof(c->counters[k].name));
			memcpy(units + k * UNIT_BYTES, rows[i].unit, UNIT_BYTES);
			c->counters[k].unit = units + k * UNIT_BYTES;
			c->counters[k].value = 0;
			c->n_counters++;
		}
		c->counters[k].value += rows[i].value;
		seen[k]++;
	}
	for (size_t k = 0; k < c->n_counters; k++)
		c->counters[k].value /= (double)seen[k];
	free(data);
	return 0;
}

/* Saturating: the file's numbers may be any. */
static void add(int64_t *to, int64_t v)
{
	if (__builtin_add_overflow(*to, v, to))
		*to = v < 0 ? INT64_MIN : INT64_MAX;
}

static void add_phase(struct nx_phase_use *to, const struct nx_phase_use *p)
{
	int64_t preempted = (int64_t)to->n_preempted + p->n_preempted;
	to->n_preempted = preempted > INT32_MAX   ? INT32_MAX
	                  : preempted < INT32_MIN ? INT32_MIN
	                                          : (int32_t)preempted;
	add(&to->n_steps, p->n_steps);
	add(&to->rows, p->rows);
	add(&to->rows_pad, p->rows_pad);
	add(&to->n_seqs, p->n_seqs);
	add(&to->n_waiting, p->n_waiting);
	add(&to->n_emit, p->n_emit);
	to->kv_held = p->kv_held > to->kv_held ? p->kv_held : to->kv_held;
	to->kv_total = p->kv_total > to->kv_total ? p->kv_total : to->kv_total;
	to->time_ns += p->time_ns;
	to->plan_ns += p->plan_ns;
	to->counted.weight_bytes += p->counted.weight_bytes;
	to->counted.kv_bytes += p->counted.kv_bytes;
	to->counted.act_bytes += p->counted.act_bytes;
	to->counted.flops += p->counted.flops;
	/* NaN, not available, stays so. */
	to->perf_cycles += p->perf_cycles;
	to->perf_instructions += p->perf_instructions;
	to->perf_llc_misses += p->perf_llc_misses;
}

static int read_phases(hid_t g, struct nx_cell_row *c, const bool *use, int32_t n_use,
                       struct nx_err *err)
{
	void *data;
	size_t n;
	int rc;

	for (int i = 0; i < NX_PHASE_COUNT; i++)
		c->phases[i].phase = i;
	if (H5Lexists(g, "phases", H5P_DEFAULT) <= 0)
		return 0;
	rc = nx_h5_read(g, "phases", nx_schema_table(NX_TABLE_PHASE), &data, &n, err);
	if (rc)
		return rc;
	const struct nx_phase_row *rows = data;
	for (size_t i = 0; i < n && !rc; i++)
		if (rows[i].r.phase < 0 || rows[i].r.phase >= NX_PHASE_COUNT)
			rc = nx_fail(err, NX_EFORMAT, "phases: row %zu has the unknown phase %d", i,
			             rows[i].r.phase);
		else if (counts(use, n_use, rows[i].round))
			add_phase(&c->phases[rows[i].r.phase], &rows[i].r);
	free(data);
	return rc;
}

static void raise_to(double *to, double v)
{
	if (isfinite(v) && !(*to >= v))
		*to = v;
}

/* Of all trials that ran, whether they count or not: what throttled one is what is asked for. */
static void read_device(struct nx_cell_row *c, const struct rounds *u)
{
	double clocks = 0, n = 0;
	c->device = (struct nx_cell_device){NAN, NAN, NAN, NAN, NAN, -1, 0};
	for (size_t i = 0; i < u->n; i++) {
		const struct nx_device_state *d = &u->trials[i].device;
		if (strcmp(u->trials[i].cell, c->id) != 0)
			continue;
		raise_to(&c->device.temperature_c, d->temperature_c);
		raise_to(&c->device.power_w, d->power_w);
		raise_to(&c->device.mem_used_bytes, d->mem_used_bytes);
		raise_to(&c->device.other_processes, d->other_processes);
		if (isfinite(d->sm_clock_hz)) {
			clocks += d->sm_clock_hz;
			n++;
		}
		if (d->throttle < 0)
			continue;
		c->device.throttle =
			(c->device.throttle < 0 ? 0 : c->device.throttle) | d->throttle;
		c->device.n_capped += (d->throttle & NX_THROTTLE_POWER) != 0;
	}
	c->device.sm_clock_hz = n > 0 ? clocks / n : NAN;
}

static int read_cell(hid_t cells, struct nx_cell_row *c, const struct rounds *u, char *units,
                     struct nx_err *err)
{
	struct nx_err inner = {0};
	int32_t n_use;
	hid_t g = H5I_INVALID_HID;

	if (strspn(c->id, "0123456789abcdef") != 16 || c->id[16])
		return nx_fail(err, NX_EFORMAT, "summary: '%s' is no cell id", c->id);
	for (size_t i = 0; i < u->n; i++) {
		int status = nx_status_find(u->trials[i].status);
		if (strcmp(u->trials[i].cell, c->id) == 0)
			c->n_failed += nx_status_final(status) && status != NX_STATUS_SKIPPED;
	}
	read_device(c, u);
	bool *use = usable_rounds(u, c->id, &n_use);
	if (!use)
		return nx_fail(err, NX_ENOMEM, "out of memory for the rounds of cell %s", c->id);
	int rc = nx_h5_open_group(cells, c->id, &g, &inner);
	if (!rc) {
		if (!(rc = read_requests(g, c, use, n_use, &inner)) &&
		    !(rc = read_phases(g, c, use, n_use, &inner)) &&
		    !(rc = read_memory(g, c, use, n_use, &inner)) &&
		    !(rc = read_counters(g, c, use, n_use, units, &inner)))
			rc = nx_profiled_read(g, &c->profiled, &inner);
		H5Gclose(g);
	}
	free(use);
	return rc ? nx_fail(err, rc, "cells/%s: %.400s", c->id, inner.msg) : 0;
}

static int check_trials(const struct rounds *u, struct nx_err *err)
{
	for (size_t i = 0; i < u->n; i++) {
		if (nx_status_find(u->trials[i].status) < 0)
			return nx_fail(err, NX_EFORMAT,
			               "trials: row %zu has the unknown status '%s'", i,
			               u->trials[i].status);
		if (u->trials[i].round < 0 || u->trials[i].round > 1000000)
			return nx_fail(err, NX_EFORMAT,
			               "trials: row %zu has the round %d, which is out of range", i,
			               u->trials[i].round);
	}
	return 0;
}

static int read_stacks(hid_t file, struct nx_run *r, struct nx_err *err)
{
	size_t n_specs = 0;
	hid_t g = H5I_INVALID_HID;
	int rc = nx_h5_open_group(file, "config", &g, err);

	if (rc)
		return rc;
	if (!(rc = nx_h5_read_list(g, "stack_names", &r->stacks, &r->n_stacks, err)) &&
	    !(rc = nx_h5_read_list(g, "stack_specs", &r->stack_specs, &n_specs, err)) &&
	    n_specs != r->n_stacks)
		rc = nx_fail(err, NX_EFORMAT, "config: %zu stack_names and %zu stack_specs",
		             r->n_stacks, n_specs);
	H5Gclose(g);
	if (!rc && r->n_stacks && r->head.reference >= r->n_stacks)
		rc = nx_fail(err, NX_EFORMAT, "config: the reference is stack %zu of %zu",
		             r->head.reference, r->n_stacks);
	return rc;
}

static int read_summary(hid_t file, struct nx_run *r, struct nx_err *err)
{
	void *data;
	size_t n;
	int rc = nx_h5_read(file, "summary", nx_schema_table(NX_TABLE_SUMMARY), &data, &n, err);

	if (rc)
		return rc;
	const struct nx_summary_row *rows = data;
	r->cells = calloc(n + 1, sizeof(*r->cells));
	r->texts = calloc(n + 1, (size_t)NX_TRIAL_COUNTER_MAX * UNIT_BYTES);
	if (!r->cells || !r->texts)
		rc = nx_fail(err, NX_ENOMEM, "out of memory for %zu cells", n);
	for (size_t i = 0; !rc && i < n; i++) {
		rc = nx_cell_from_row(&rows[i], &r->cells[i], err);
		if (!rc &&
		    (r->cells[i].stack_index < 0 || (size_t)r->cells[i].stack_index >= r->n_stacks))
			rc = nx_fail(err, NX_EFORMAT, "summary: cell %s has stack %d of %zu",
			             r->cells[i].id, r->cells[i].stack_index, r->n_stacks);
		r->n_cells = i + 1;
	}
	free(data);
	return rc;
}

static int read_all(hid_t file, struct nx_run *r, struct nx_err *err)
{
	struct rounds used = {0};
	void *trials = NULL;
	hid_t g = H5I_INVALID_HID;
	int rc = nx_schema_check(file, err);

	if (rc || (rc = nx_head_read(file, &r->head, err)) || (rc = read_stacks(file, r, err)) ||
	    (rc = read_summary(file, r, err)) ||
	    (rc = nx_h5_read(file, "trials", nx_schema_table(NX_TABLE_TRIAL), &trials, &used.n,
	                     err)))
		return rc;
	used.trials = trials;
	r->n_trials = used.n;
	if (!(rc = check_trials(&used, err)) && !(rc = nx_h5_open_group(file, "cells", &g, err))) {
		for (size_t i = 0; !rc && i < r->n_cells; i++)
			rc = read_cell(g, &r->cells[i], &used,
			               r->texts + i * NX_TRIAL_COUNTER_MAX * UNIT_BYTES, err);
		H5Gclose(g);
	}
	free(trials);
	return rc;
}

static int read_run(struct nx_run **out, const char *path, struct nx_err *err)
{
	struct nx_run *r = calloc(1, sizeof(*r));
	struct nx_err inner = {0};
	hid_t file = H5I_INVALID_HID;
	int rc;

	if (!r)
		return nx_fail(err, NX_ENOMEM, "%.300s: out of memory", path);
	nx_copy_text(r->path, sizeof(r->path), path);
	if (!(rc = nx_h5_open(&file, path, &inner))) {
		rc = read_all(file, r, &inner);
		nx_h5_close(file);
	}
	if (rc) {
		nx_run_destroy(r);
		return nx_fail(err, rc, "%.250s: %.240s", path, inner.msg);
	}
	*out = r;
	return 0;
}

static void try_it(void *path)
{
	struct nx_run *r = NULL;
	struct nx_err err = {0};
	if (!read_run(&r, path, &err))
		nx_run_destroy(r);
}

int nx_run_read(struct nx_run **out, const char *path, struct nx_err *err)
{
	int rc = nx_guard_try(try_it, (void *)(uintptr_t)path, path,
	                      "a run file that is not damaged", err);
	return rc ? rc : read_run(out, path, err);
}

void nx_run_destroy(struct nx_run *r)
{
	if (!r)
		return;
	for (size_t i = 0; i < r->n_cells; i++) {
		free(r->cells[i].out_tokens);
		free(r->cells[i].ttft_ms);
		free(r->cells[i].tpot_ms);
		if (r->cells[i].profiled)
			nx_profiled_release(r->cells[i].profiled);
		free(r->cells[i].profiled);
	}
	free(r->cells);
	free(r->texts);
	free(r->stacks);
	free(r->stack_specs);
	nx_head_release(&r->head);
	free(r);
}
