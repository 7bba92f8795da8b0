/* SPDX-License-Identifier: Apache-2.0 */
/* What a device's instruments saw of a cell, to a file and back. See schema.h. */
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "record/schema.h"

static const char *const kinds[] = {"kernel", "copy", "set"};

/* ---- writing ---------------------------------------------------------------------------------- */

static int write_metrics(hid_t g, const struct nx_profiled *p, struct nx_err *err)
{
	struct nx_metric_row rows[NX_GROUP_MAX + NX_FORMULAS_MAX];
	size_t n = 0;
	memset(rows, 0, sizeof(rows));
	for (int32_t i = 0; i < p->group.n; i++, n++) {
		const struct nx_group_metric *m = &p->group.m[i];
		nx_copy_text(rows[n].name, sizeof(rows[n].name), m->name);
		nx_copy_text(rows[n].as, sizeof(rows[n].as), m->as);
		nx_copy_text(rows[n].unit, sizeof(rows[n].unit), m->unit);
		nx_copy_text(rows[n].text, sizeof(rows[n].text), m->text);
		nx_copy_text(rows[n].figure, sizeof(rows[n].figure), nx_figure_name(m->figure));
		rows[n].times = m->times;
	}
	for (int32_t i = 0; i < p->group.n_formulas; i++, n++) {
		const struct nx_group_formula *f = &p->group.f[i];
		nx_copy_text(rows[n].name, sizeof(rows[n].name), f->name);
		nx_copy_text(rows[n].unit, sizeof(rows[n].unit), f->unit);
		nx_copy_text(rows[n].text, sizeof(rows[n].text), f->text);
		nx_copy_text(rows[n].formula, sizeof(rows[n].formula), f->formula);
		rows[n].times = 1;
	}
	return nx_h5_append(g, "metrics", nx_schema_table(NX_TABLE_METRIC), rows, n, err);
}

static int write_kernels(hid_t g, const struct nx_profiled *p, struct nx_err *err)
{
	struct nx_kernel_row *rows = calloc(p->n_kernels + 1, sizeof(*rows));
	if (!rows)
		return nx_fail(err, NX_ENOMEM, "out of memory for %zu kernels", p->n_kernels);
	for (size_t i = 0; i < p->n_kernels; i++) {
		int32_t kind = p->kernels[i].kind;
		rows[i].r = p->kernels[i];
		nx_copy_text(rows[i].r.name, sizeof(rows[i].r.name), p->kernels[i].name);
		nx_copy_text(rows[i].kind, sizeof(rows[i].kind),
		             kind >= 0 && kind < NX_TRACE_KIND_COUNT ? kinds[kind] : "");
	}
	int rc = nx_h5_append(g, "kernels", nx_schema_table(NX_TABLE_KERNEL), rows, p->n_kernels,
	                      err);
	free(rows);
	return rc;
}

static int write_perturbed(hid_t g, const struct nx_profiled *p, struct nx_err *err)
{
	struct nx_perturbed rows[NX_PHASE_COUNT];
	size_t n = 0;
	for (int i = 0; i < NX_PHASE_COUNT; i++) {
		const struct nx_perturbed *q = &p->perturbed[i];
		if (q->n_traced || q->n_counted || q->n_beside)
			rows[n++] = *q;
	}
	return nx_h5_append(g, "perturbation", nx_schema_table(NX_TABLE_PERTURBED), rows, n, err);
}

int nx_profiled_write(hid_t g, const struct nx_profiled *p, struct nx_err *err)
{
	struct nx_instrument_row row;
	struct nx_h5_column columns[NX_RANGE_TABLE_MAX];
	const struct nx_h5_table ranges = nx_range_table(&p->group, columns);
	memset(&row, 0, sizeof(row));
	row.round = p->round;
	row.n_steps = p->n_steps;
	row.n_same = p->n_same;
	row.first_other = p->first_other;
	row.trace_phase = p->trace_phase;
	row.n_trace_steps = p->n_trace_steps;
	row.window_ns = p->window_ns;
	row.busy_ns = p->busy_ns;
	row.n_records = p->n_records;
	row.n_lost = p->n_lost;
	row.idle = nx_profiled_idle(p);
	nx_copy_text(row.versions, sizeof(row.versions), p->versions);
	nx_copy_text(row.group, sizeof(row.group), p->group.name);
	nx_copy_text(row.no_counters, sizeof(row.no_counters), p->no_counters);
	nx_copy_text(row.no_trace, sizeof(row.no_trace), p->no_trace);
	nx_copy_text(row.no_time_line, sizeof(row.no_time_line), p->no_time_line);
	row.n_samples_lost = p->n_samples_lost;
	int rc = nx_h5_append(g, "instruments", nx_schema_table(NX_TABLE_INSTRUMENT), &row, 1, err);
	if (!rc)
		rc = write_metrics(g, p, err);
	if (!rc)
		rc = nx_h5_append(g, "ranges", &ranges, p->ranges, p->n_ranges, err);
	if (!rc)
		rc = write_kernels(g, p, err);
	if (!rc && p->n_samples)
		rc = nx_h5_append(g, "time_line", nx_schema_table(NX_TABLE_SAMPLE), p->samples,
		                  p->n_samples, err);
	return rc ? rc : write_perturbed(g, p, err);
}

/* ---- reading ---------------------------------------------------------------------------------- */

static void read_counter(const struct nx_metric_row *row, struct nx_group_metric *m)
{
	int32_t f = NX_FIGURE_COUNT - 1;
	while (f > 0 && strcmp(row->figure, nx_figure_name(f)) != 0)
		f--;
	nx_copy_text(m->name, sizeof(m->name), row->name);
	nx_copy_text(m->as, sizeof(m->as), row->as);
	nx_copy_text(m->unit, sizeof(m->unit), row->unit);
	nx_copy_text(m->text, sizeof(m->text), row->text);
	m->figure = f;
	m->times = row->times;
}

static void read_formula(const struct nx_metric_row *row, struct nx_group_formula *f)
{
	nx_copy_text(f->name, sizeof(f->name), row->name);
	nx_copy_text(f->unit, sizeof(f->unit), row->unit);
	nx_copy_text(f->text, sizeof(f->text), row->text);
	nx_copy_text(f->formula, sizeof(f->formula), row->formula);
}

static int read_metrics(hid_t g, struct nx_profiled *p, struct nx_err *err)
{
	void *data;
	size_t n;
	int rc = nx_h5_read(g, "metrics", nx_schema_table(NX_TABLE_METRIC), &data, &n, err);
	if (rc)
		return rc;
	const struct nx_metric_row *rows = data;
	for (size_t i = 0; i < n && !rc; i++) {
		bool worked_out = rows[i].formula[0] != '\0';
		/* The name is a column's: an empty one, or one twice, would be no table. */
		if (worked_out ? p->group.n_formulas == NX_FORMULAS_MAX
		               : p->group.n == NX_GROUP_MAX)
			rc = nx_fail(
				err, NX_EFORMAT,
				"metrics has %zu rows; %d counters and %d formulas are the most", n,
				NX_GROUP_MAX, NX_FORMULAS_MAX);
		else if (!rows[i].name[0])
			rc = nx_fail(err, NX_EFORMAT, "metrics: row %zu has no name", i);
		for (size_t k = 0; k < i && !rc; k++)
			if (!strcmp(rows[k].name, rows[i].name))
				rc = nx_fail(err, NX_EFORMAT,
				             "metrics has a name twice, in row %zu", i);
		if (!rc && worked_out)
			read_formula(&rows[i], &p->group.f[p->group.n_formulas++]);
		else if (!rc)
			read_counter(&rows[i], &p->group.m[p->group.n++]);
	}
	free(data);
	return rc;
}

static int read_kernels(hid_t g, struct nx_profiled *p, struct nx_err *err)
{
	void *data;
	size_t n;
	int rc = nx_h5_read(g, "kernels", nx_schema_table(NX_TABLE_KERNEL), &data, &n, err);
	if (rc)
		return rc;
	const struct nx_kernel_row *rows = data;
	p->kernels = calloc(n + 1, sizeof(*p->kernels));
	if (!p->kernels)
		rc = nx_fail(err, NX_ENOMEM, "out of memory for %zu kernels", n);
	for (size_t i = 0; i < n && !rc; i++) {
		p->kernels[i] = rows[i].r;
		for (int k = 0; k < NX_TRACE_KIND_COUNT; k++)
			if (!strcmp(rows[i].kind, kinds[k]))
				p->kernels[i].kind = k;
		p->n_kernels = i + 1;
	}
	free(data);
	return rc;
}

static int read_perturbed(hid_t g, struct nx_profiled *p, struct nx_err *err)
{
	void *data;
	size_t n;
	int rc = nx_h5_read(g, "perturbation", nx_schema_table(NX_TABLE_PERTURBED), &data, &n, err);
	if (rc)
		return rc;
	const struct nx_perturbed *rows = data;
	for (size_t i = 0; i < n; i++) /* the reader checked the phase */
		p->perturbed[rows[i].phase] = rows[i];
	free(data);
	return 0;
}

static int read_row(hid_t g, struct nx_profiled *p, struct nx_err *err)
{
	struct nx_instrument_row row;
	int rc = nx_h5_read_one(g, "instruments", nx_schema_table(NX_TABLE_INSTRUMENT), &row, err);
	if (rc)
		return rc;
	p->round = row.round;
	p->n_steps = row.n_steps;
	p->n_same = row.n_same;
	p->first_other = row.first_other;
	p->trace_phase = row.trace_phase;
	p->n_trace_steps = row.n_trace_steps;
	p->window_ns = row.window_ns;
	p->busy_ns = row.busy_ns;
	p->n_records = row.n_records;
	p->n_lost = row.n_lost;
	memcpy(p->versions, row.versions, sizeof(p->versions));
	memcpy(p->group.name, row.group, sizeof(p->group.name));
	memcpy(p->no_counters, row.no_counters, sizeof(p->no_counters));
	memcpy(p->no_trace, row.no_trace, sizeof(p->no_trace));
	memcpy(p->no_time_line, row.no_time_line, sizeof(p->no_time_line));
	p->n_samples_lost = row.n_samples_lost;
	return 0;
}

static int read_ranges(hid_t g, struct nx_profiled *p, struct nx_err *err)
{
	struct nx_h5_column columns[NX_RANGE_TABLE_MAX];
	const struct nx_h5_table t = nx_range_table(&p->group, columns);
	void *data = NULL;
	int rc = nx_h5_read(g, "ranges", &t, &data, &p->n_ranges, err);
	p->ranges = data;
	if (rc)
		p->n_ranges = 0;
	return rc;
}

static int read_samples(hid_t g, struct nx_profiled *p, struct nx_err *err)
{
	void *data = NULL;
	if (H5Lexists(g, "time_line", H5P_DEFAULT) <= 0)
		return 0;
	int rc = nx_h5_read(g, "time_line", nx_schema_table(NX_TABLE_SAMPLE), &data, &p->n_samples,
	                    err);
	p->samples = data;
	if (rc)
		p->n_samples = 0;
	return rc;
}

int nx_profiled_read(hid_t g, struct nx_profiled **out, struct nx_err *err)
{
	*out = NULL;
	if (H5Lexists(g, "instruments", H5P_DEFAULT) <= 0)
		return 0;
	struct nx_profiled *p = calloc(1, sizeof(*p));
	if (!p)
		return nx_fail(err, NX_ENOMEM, "out of memory for what the instruments saw");
	nx_profiled_init(p);
	int rc;
	if ((rc = read_row(g, p, err)) || (rc = read_metrics(g, p, err)) ||
	    (rc = read_ranges(g, p, err)) || (rc = read_kernels(g, p, err)) ||
	    (rc = read_perturbed(g, p, err)) || (rc = read_samples(g, p, err))) {
		nx_profiled_release(p);
		free(p);
		return rc;
	}
	*out = p;
	return 0;
}

/* ---- a shard ---------------------------------------------------------------------------------- */

void nx_profile_shard_path(char *buf, size_t size, const char *dir, const char *cell)
{
	snprintf(buf, size, "%s/%s-profile.h5", dir, cell);
}

bool nx_profile_shard_has(const char *dir, const char *cell)
{
	char path[1400];
	nx_profile_shard_path(path, sizeof(path), dir, cell);
	return access(path, F_OK) == 0;
}

int nx_profile_shard_write(const char *dir, const struct nx_profiled *p, struct nx_err *err)
{
	char path[1400];
	hid_t f = H5I_INVALID_HID;
	int rc = nx_h5_create(&f, err);
	if (rc)
		return rc;
	nx_profile_shard_path(path, sizeof(path), dir, p->cell);
	if ((rc = nx_schema_write(f, "instruments of one cell", err)) ||
	    (rc = nx_profiled_write(f, p, err))) {
		nx_h5_close(f);
		return rc;
	}
	return nx_h5_save(f, path, NULL, err);
}
