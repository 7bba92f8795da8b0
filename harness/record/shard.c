/* SPDX-License-Identifier: Apache-2.0 */
/* One trial as one file. See run.h. */
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "record/schema.h"

void nx_shard_path(char *buf, size_t size, const char *dir, const char *cell, int32_t round)
{
	snprintf(buf, size, "%s/%s-r%d.h5", dir, cell, round);
}

void nx_shard_file(char *buf, size_t size, const char *dir, const char *cell, int32_t round)
{
	nx_shard_path(buf, size, dir, cell, round);
}

int nx_shard_open(hid_t *file, const char *path, struct nx_err *err)
{
	struct nx_err inner;
	hid_t f = H5I_INVALID_HID;
	int rc = nx_h5_open(&f, path, &inner);

	if (!rc && (rc = nx_schema_check(f, &inner)))
		nx_h5_close(f);
	if (rc)
		return nx_fail(err, rc, "%.300s: %.180s", path, inner.msg);
	*file = f;
	return 0;
}

/* ---- structs with a round before them ---------------------------------------------------------
 * */

/* Writes n elements of `bytes` each as rows whose element lies at `at`. */
static int put(hid_t file, const char *name, enum nx_table_id id, const void *elements, size_t n,
               size_t bytes, size_t at, int32_t round, struct nx_err *err)
{
	const struct nx_h5_table *t = nx_schema_table(id);
	char *rows = calloc(n ? n : 1, t->row_bytes);

	if (!rows)
		return nx_fail(err, NX_ENOMEM, "out of memory for %zu rows of %s", n, name);
	for (size_t i = 0; i < n; i++) {
		memcpy(rows + i * t->row_bytes, &round, sizeof(round));
		memcpy(rows + i * t->row_bytes + at, (const char *)elements + i * bytes, bytes);
	}
	int rc = nx_h5_append(file, name, t, rows, n, err);
	free(rows);
	return rc;
}

/* The reverse, into malloc memory. */
static int get(hid_t file, const char *name, enum nx_table_id id, void **elements, size_t *n,
               size_t bytes, size_t at, struct nx_err *err)
{
	const struct nx_h5_table *t = nx_schema_table(id);
	void *rows;
	int rc = nx_h5_read(file, name, t, &rows, n, err);

	if (rc)
		return rc;
	char *out = malloc(*n * bytes + 1);
	for (size_t i = 0; out && i < *n; i++)
		memcpy(out + i * bytes, (char *)rows + i * t->row_bytes + at, bytes);
	free(rows);
	*elements = out;
	return out ? 0 : nx_fail(err, NX_ENOMEM, "out of memory for %zu rows of %s", *n, name);
}

/* Phases that had steps. */
static int put_phases(hid_t file, const struct nx_trial *t, struct nx_err *err)
{
	struct nx_phase_use used[NX_PHASE_COUNT];
	size_t n = 0;

	for (int i = 0; i < NX_PHASE_COUNT; i++)
		if (t->phases[i].n_steps)
			used[n++] = t->phases[i];
	return put(file, "phases", NX_TABLE_PHASE, used, n, sizeof(*used),
	           offsetof(struct nx_phase_row, r), t->round, err);
}

static int get_phases(hid_t file, struct nx_trial *t, struct nx_err *err)
{
	void *data;
	size_t n;
	int rc = get(file, "phases", NX_TABLE_PHASE, &data, &n, sizeof(*t->phases),
	             offsetof(struct nx_phase_row, r), err);

	if (rc)
		return rc;
	const struct nx_phase_use *used = data;
	for (size_t i = 0; i < n && !rc; i++)
		if (used[i].phase < 0 || used[i].phase >= NX_PHASE_COUNT)
			rc = nx_fail(err, NX_EFORMAT, "phases: row %zu has the unknown phase %d", i,
			             used[i].phase);
		else
			t->phases[used[i].phase] = used[i];
	free(data);
	return rc;
}

static int put_counters(hid_t file, const struct nx_trial *t, struct nx_err *err)
{
	struct nx_counter_row *rows = calloc(t->n_counters + 1, sizeof(*rows));

	if (!rows)
		return nx_fail(err, NX_ENOMEM, "out of memory for %zu counters", t->n_counters);
	for (size_t i = 0; i < t->n_counters; i++) {
		rows[i].round = t->round;
		rows[i].value = t->counters[i].value;
		nx_copy_text(rows[i].name, sizeof(rows[i].name), t->counters[i].name);
		nx_copy_text(rows[i].unit, sizeof(rows[i].unit),
		             t->counters[i].unit ? t->counters[i].unit : "");
	}
	int rc = nx_h5_append(file, "counters", nx_schema_table(NX_TABLE_COUNTER), rows,
	                      t->n_counters, err);
	free(rows);
	return rc;
}

static int get_counters(hid_t file, struct nx_trial *t, struct nx_err *err)
{
	const size_t unit = sizeof(((struct nx_counter_row *)0)->unit);
	void *data;
	size_t n;
	int rc = nx_h5_read(file, "counters", nx_schema_table(NX_TABLE_COUNTER), &data, &n, err);

	if (rc)
		return rc;
	const struct nx_counter_row *rows = data;
	if (n > NX_TRIAL_COUNTER_MAX) {
		rc = nx_fail(err, NX_EFORMAT, "counters has %zu rows, %d are the most", n,
		             NX_TRIAL_COUNTER_MAX);
	} else if (!(t->texts = calloc(n + 1, unit))) {
		rc = nx_fail(err, NX_ENOMEM, "out of memory for %zu counters", n);
	}
	for (size_t i = 0; !rc && i < n; i++) {
		struct nx_counter_value *v = &t->counters[i];
		memcpy(v->name, rows[i].name, sizeof(v->name));
		memcpy(t->texts + i * unit, rows[i].unit, unit);
		v->unit = t->texts + i * unit;
		v->value = rows[i].value;
	}
	if (!rc)
		t->n_counters = n;
	free(data);
	return rc;
}

/* ---- a shard ----------------------------------------------------------------------------------
 * */

int nx_shard_write_file(const char *dir, const struct nx_trial *t, struct nx_err *err)
{
	char path[1024];
	struct nx_trial_row row;
	hid_t f = H5I_INVALID_HID;
	int rc = nx_h5_create(&f, err);

	if (rc)
		return rc;
	nx_trial_to_row(t, &row);
	nx_shard_path(path, sizeof(path), dir, t->cell, t->round);
#define PUT(name, id, array, type)                                                                 \
	put(f, name, NX_TABLE_##id, t->array, t->n_##array, sizeof(*t->array),                     \
	    offsetof(struct type, r), t->round, err)
	if ((rc = nx_schema_write(f, "one trial", err)) ||
	    (rc = nx_h5_append(f, "trial", nx_schema_table(NX_TABLE_TRIAL), &row, 1, err)) ||
	    (rc = PUT("requests", REQUEST, requests, nx_request_row)) ||
	    (rc = PUT("tokens", TOKEN, tokens, nx_token_row)) ||
	    (rc = PUT("steps", STEP, steps, nx_step_row)) || (rc = put_phases(f, t, err)) ||
	    (rc = PUT("memory", MEM, mem, nx_mem_row)) || (rc = put_counters(f, t, err))) {
		nx_h5_close(f);
		return rc;
	}
#undef PUT
	return nx_h5_save(f, path, NULL, err);
}

static int read_row(hid_t f, struct nx_trial *t, struct nx_err *err)
{
	struct nx_trial_row row;
	int rc = nx_h5_read_one(f, "trial", nx_schema_table(NX_TABLE_TRIAL), &row, err);

	if (rc || (rc = nx_trial_from_row(&row, t, err)))
		return rc;
	if (t->round < 0 || t->round > 1000000)
		return nx_fail(err, NX_EFORMAT, "trial: the round %d is out of range", t->round);
	return 0;
}

static int read_raw(hid_t f, struct nx_trial *t, struct nx_err *err)
{
	void *requests = NULL, *tokens = NULL, *steps = NULL, *mem = NULL;
	int rc;

#define GET(name, id, to, n, type)                                                                 \
	get(f, name, NX_TABLE_##id, &to, &t->n, sizeof(((struct type *)0)->r),                     \
	    offsetof(struct type, r), err)
	if (!(rc = GET("requests", REQUEST, requests, n_requests, nx_request_row)) &&
	    !(rc = GET("tokens", TOKEN, tokens, n_tokens, nx_token_row)) &&
	    !(rc = GET("steps", STEP, steps, n_steps, nx_step_row)))
		rc = GET("memory", MEM, mem, n_mem, nx_mem_row);
#undef GET
	t->requests = requests;
	t->tokens = tokens;
	t->steps = steps;
	if (!rc && t->n_mem > NX_TRIAL_MEM_MAX)
		rc = nx_fail(err, NX_EFORMAT, "memory has %zu rows, %d are the most", t->n_mem,
		             NX_TRIAL_MEM_MAX);
	if (!rc && t->n_mem)
		memcpy(t->mem, mem, t->n_mem * sizeof(*t->mem));
	free(mem);
	if (!rc)
		rc = get_phases(f, t, err);
	return rc ? rc : get_counters(f, t, err);
}

int nx_shard_read_file(const char *path, struct nx_trial *out, struct nx_err *err)
{
	struct nx_trial t;
	struct nx_err inner = {0};
	hid_t f = H5I_INVALID_HID;
	int rc = nx_shard_open(&f, path, err);

	if (rc)
		return rc;
	nx_trial_init(&t);
	if ((rc = read_row(f, &t, &inner)) || (rc = read_raw(f, &t, &inner))) {
		nx_trial_release(&t);
		nx_fail(err, rc, "%.300s: %.180s", path, inner.msg);
	} else {
		*out = t;
	}
	nx_h5_close(f);
	return rc;
}

int nx_shard_read_metrics(const char *dir, const char *cell, int32_t round, struct nx_trial *out,
                          struct nx_err *err)
{
	char path[1024];
	struct nx_err inner = {0};
	hid_t f = H5I_INVALID_HID;

	nx_shard_path(path, sizeof(path), dir, cell, round);
	int rc = nx_shard_open(&f, path, err);
	if (rc)
		return rc;
	nx_trial_init(out);
	if ((rc = read_row(f, out, &inner)))
		nx_fail(err, rc, "%.300s: %.180s", path, inner.msg);
	nx_h5_close(f);
	return rc;
}
