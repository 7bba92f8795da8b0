/* SPDX-License-Identifier: Apache-2.0 */
/* All shards into one run file. See run.h. */
#include <dirent.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "record/schema.h"
#include "record/shards.h"

static int by_number(const void *a, const void *b)
{
	int32_t x = *(const int32_t *)a, y = *(const int32_t *)b;
	return (x > y) - (x < y);
}

int nx_shards_rounds(const struct nx_shards *s, const char *cell, int32_t **rounds, size_t *n,
                     struct nx_err *err)
{
	DIR *d = opendir(s->dir);
	int32_t *list = NULL;
	size_t count = 0;
	int rc = d ? 0 : nx_fail(err, NX_EIO, "%s: cannot be listed", s->dir);

	for (struct dirent *e; !rc && (e = readdir(d));) {
		char name[32], *end;
		if (strncmp(e->d_name, cell, 16) != 0 || strncmp(e->d_name + 16, "-r", 2) != 0)
			continue;
		long round = strtol(e->d_name + 18, &end, 10);
		if (round < 0 || round > 1000000 || strcmp(end, ".h5") != 0)
			continue;
		snprintf(name, sizeof(name), "%s-r%ld.h5", cell, round);
		if (strcmp(name, e->d_name) != 0) /* "-r+1", "-r01" are not ours */
			continue;
		int32_t *more = realloc(list, (count + 1) * sizeof(*list));
		if (!more) {
			rc = nx_fail(err, NX_ENOMEM, "out of memory for the rounds of cell %s",
			             cell);
			break;
		}
		list = more;
		list[count++] = (int32_t)round;
	}
	if (d)
		closedir(d);
	if (rc) {
		free(list);
		return rc;
	}
	if (count)
		qsort(list, count, sizeof(*list), by_number);
	*rounds = list;
	*n = count;
	return 0;
}

/* Head and lock go last: cut short before, the next run knows by the head that this was merged, and no
 * other run takes a directory that is about to vanish. */
int nx_shards_remove(struct nx_shards *s, struct nx_err *err)
{
	DIR *d = opendir(s->dir);
	char path[1500];
	int error = d ? 0 : errno;

	for (struct dirent *e; d && (e = readdir(d));) {
		const char *dot = strrchr(e->d_name, '.');
		bool ours = strncmp(e->d_name, ".tmp-", 5) == 0 ||
		            (dot && (strcmp(dot, ".h5") == 0 || strcmp(dot, ".damaged") == 0));
		if (!ours || strcmp(e->d_name, "head.h5") == 0)
			continue;
		snprintf(path, sizeof(path), "%s/%s", s->dir, e->d_name);
		if (unlink(path))
			error = errno;
	}
	if (d)
		closedir(d);
	static const char *const last[] = {"head.h5", "lock"};
	for (size_t i = 0; i < 2 && !error; i++) {
		snprintf(path, sizeof(path), "%s/%s", s->dir, last[i]);
		if (unlink(path) && errno != ENOENT)
			error = errno;
	}
	if (error)
		return nx_fail(err, NX_EIO, "%s: cannot be removed (%s)", s->dir, strerror(error));
	s->locked = false;
	if (rmdir(s->dir) && errno != ENOTEMPTY && errno != EEXIST) /* other people's files stay */
		return nx_fail(err, NX_EIO, "%s: cannot be removed (%s)", s->dir, strerror(errno));
	return 0;
}

/* ---- raw records ------------------------------------------------------------------------------
 * */

/* The tables that a shard and a cell's group have in common. */
static const struct {
	const char *name;
	enum nx_table_id id;
} raw[] = {
	{"requests", NX_TABLE_REQUEST}, {"tokens", NX_TABLE_TOKEN}, {"steps", NX_TABLE_STEP},
	{"phases", NX_TABLE_PHASE},     {"memory", NX_TABLE_MEM},   {"counters", NX_TABLE_COUNTER},
};

static int add_shard(hid_t group, hid_t shard, struct nx_trial_row *row, struct nx_err *err)
{
	int rc = nx_h5_read_one(shard, "trial", nx_schema_table(NX_TABLE_TRIAL), row, err);

	for (size_t i = 0; !rc && i < sizeof(raw) / sizeof(*raw); i++) {
		const struct nx_h5_table *t = nx_schema_table(raw[i].id);
		void *rows;
		size_t n;
		if (!(rc = nx_h5_read(shard, raw[i].name, t, &rows, &n, err))) {
			rc = nx_h5_append(group, raw[i].name, t, rows, n, err);
			free(rows);
		}
	}
	return rc;
}

struct trials {
	struct nx_trial_row *rows;
	size_t n, cap;
};

static struct nx_trial_row *new_trial(struct trials *t)
{
	if (t->n == t->cap) {
		size_t cap = t->cap ? 2 * t->cap : 64;
		struct nx_trial_row *rows = realloc(t->rows, cap * sizeof(*rows));
		if (!rows)
			return NULL;
		t->rows = rows;
		t->cap = cap;
	}
	return &t->rows[t->n++];
}

/* One that cannot be read costs what it said, and nothing else. */
static int add_profile(hid_t group, struct nx_shards *s, const char *cell, struct nx_err *err)
{
	char path[1400];
	struct nx_profiled *p = NULL;
	struct nx_err inner = {0};
	hid_t f = H5I_INVALID_HID;
	if (!nx_profile_shard_has(s->dir, cell))
		return 0;
	nx_profile_shard_path(path, sizeof(path), s->dir, cell);
	int rc = nx_shard_open(&f, path, &inner);
	if (!rc) {
		rc = nx_profiled_read(f, &p, &inner);
		nx_h5_close(f);
	}
	if (rc) {
		snprintf(s->note, sizeof(s->note), "what the instruments saw is lost: %s",
		         inner.msg);
		return 0;
	}
	rc = p ? nx_profiled_write(group, p, err) : 0;
	if (p)
		nx_profiled_release(p);
	free(p);
	return rc;
}

static int add_cell(hid_t cells, struct nx_shards *s, const struct nx_cell *cell,
                    struct trials *trials, struct nx_err *err)
{
	int32_t *rounds = NULL;
	size_t n = 0;
	hid_t g = H5I_INVALID_HID, shard = H5I_INVALID_HID;
	int rc = nx_h5_group(cells, cell->id, &g, err);

	if (rc)
		return rc;
	rc = nx_shards_rounds(s, cell->id, &rounds, &n, err);
	for (size_t i = 0; !rc && i < n; i++) {
		char path[1400];
		struct nx_err inner = {0};
		struct nx_trial_row *row = new_trial(trials);
		nx_shard_path(path, sizeof(path), s->dir, cell->id, rounds[i]);
		if (!row) {
			rc = nx_fail(err, NX_ENOMEM, "out of memory for %zu trials", trials->n);
		} else if (!(rc = nx_shard_open(&shard, path, err))) {
			if ((rc = add_shard(g, shard, row, &inner)))
				nx_fail(err, rc,
				        "%.300s: %.150s; remove it and run again with --resume",
				        path, inner.msg);
			else if (strcmp(row->cell, cell->id) != 0 || row->round != rounds[i])
				rc = nx_fail(
					err, NX_EFORMAT,
					"%.300s: holds cell %s round %d; remove it and run again with "
					"--resume",
					path, row->cell, row->round);
			else
				row->cell_index = (int32_t)cell->index;
			nx_h5_close(shard);
		}
	}
	if (!rc)
		rc = add_profile(g, s, cell->id, err);
	for (size_t i = 0; !rc && n == 0 && i < sizeof(raw) / sizeof(*raw); i++)
		rc = nx_h5_append(g, raw[i].name, nx_schema_table(raw[i].id), NULL, 0, err);
	free(rounds);
	H5Gclose(g);
	return rc;
}

/* ---- the whole --------------------------------------------------------------------------------
 * */

static int write_stacks(hid_t file, const struct nx_cell *cells, size_t n_cells, struct nx_err *err)
{
	size_t n = 0;
	hid_t g = H5I_INVALID_HID;

	for (size_t i = 0; i < n_cells; i++)
		n = cells[i].stack_index + 1 > n ? cells[i].stack_index + 1 : n;
	const char **names = calloc(2 * n + 1, sizeof(*names));
	if (!names)
		return nx_fail(err, NX_ENOMEM, "out of memory for %zu stacks", n);
	for (size_t i = 0; i < 2 * n; i++)
		names[i] = "";
	for (size_t i = 0; i < n_cells; i++) {
		const struct nx_named_stack *stack = cells[i].stack;
		names[cells[i].stack_index] = stack->name;
		names[n + cells[i].stack_index] = stack->spec ? stack->spec : "";
	}
	int rc = nx_h5_open_group(file, "config", &g, err);
	if (!rc && !(rc = nx_h5_write_list(g, "stack_names", names, n, err)))
		rc = nx_h5_write_list(g, "stack_specs", names + n, n, err);
	if (g >= 0)
		H5Gclose(g);
	free(names);
	return rc;
}

static int write_summary(hid_t file, const struct nx_cell *cells, size_t n_cells,
                         const struct trials *trials, const struct nx_run_head *head,
                         struct nx_err *err)
{
	struct nx_cell_row *sum = calloc(n_cells + 1, sizeof(*sum));
	struct nx_summary_row *row = malloc(sizeof(*row));
	const char *reference = "";
	int rc = sum && row ? 0 : nx_fail(err, NX_ENOMEM, "out of memory for %zu cells", n_cells);

	for (size_t i = 0; i < n_cells; i++)
		if (cells[i].stack_index == head->reference)
			reference = cells[i].stack->name;
	if (!rc)
		rc = nx_summarise(cells, n_cells, trials->rows, trials->n, head, sum, err);
	if (!rc)
		rc = nx_h5_append(file, "summary", nx_schema_table(NX_TABLE_SUMMARY), NULL, 0, err);
	for (size_t i = 0; !rc && i < n_cells; i++) {
		nx_cell_to_row(&sum[i], head, reference, row);
		rc = nx_h5_append(file, "summary", nx_schema_table(NX_TABLE_SUMMARY), row, 1, err);
	}
	free(row);
	free(sum);
	return rc;
}

static int fill(hid_t file, struct nx_shards *s, const struct nx_run_head *head,
                const struct nx_cell *cells, size_t n_cells, struct trials *trials,
                struct nx_err *err)
{
	hid_t g = H5I_INVALID_HID;
	int rc = nx_schema_write(file, "run", err);

	if (rc || (rc = nx_head_write(file, head, err)) ||
	    (rc = write_stacks(file, cells, n_cells, err)) ||
	    (rc = nx_h5_group(file, "cells", &g, err)))
		return rc;
	for (size_t i = 0; !rc && i < n_cells; i++)
		rc = add_cell(g, s, &cells[i], trials, err);
	H5Gclose(g);
	if (rc || (rc = nx_h5_append(file, "trials", nx_schema_table(NX_TABLE_TRIAL), trials->rows,
	                             trials->n, err)))
		return rc;
	return write_summary(file, cells, n_cells, trials, head, err);
}

int nx_run_merge(struct nx_shards *s, const char *output, const struct nx_run_head *head,
                 const struct nx_cell *cells, size_t n_cells, struct nx_err *err)
{
	struct trials trials = {0};
	struct nx_run_head all;
	struct nx_err why = {0};
	hid_t file = H5I_INVALID_HID;
	int rc = nx_shards_head(s, head, &all, err);

	if (rc)
		return rc;
	if (!(rc = nx_h5_create(&file, err))) {
		if ((rc = fill(file, s, &all, cells, n_cells, &trials, err)))
			nx_h5_close(file);
		else
			rc = nx_h5_save(file, output, s->dir, err);
	}
	if (!rc && nx_shards_remove(s, &why))
		snprintf(s->note, sizeof(s->note), "%s; the run file is whole without it", why.msg);
	free(trials.rows);
	free(all.facts);
	return rc;
}
