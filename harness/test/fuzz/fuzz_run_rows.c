/* SPDX-License-Identifier: Apache-2.0 */
/* The input fills the rows of a whole run file, which no changed byte of a packed file could do. The file is made once,
 * with the program's own columns, unpacked; then its rows are overwritten where they lie, it is read and reported on. */
#include <hdf5.h>
#include <stdlib.h>
#include <string.h>

#include "fuzz/fuzz.h"
#include "fuzz/reports.h"
#include "record/schema.h"
#include "tiny_model.h"

/* X(path, table, rows) */
#define CELL_TABLES(X, cell)                                                                       \
	X("cells/" cell "/requests", REQUEST, 4)                                                   \
	X("cells/" cell "/phases", PHASE, 3)                                                       \
	X("cells/" cell "/memory", MEM, 3)                                                         \
	X("cells/" cell "/counters", COUNTER, 3)
#define TABLES(X)                                                                                  \
	X("summary", SUMMARY, 4)                                                                   \
	X("trials", TRIAL, 6)                                                                      \
	CELL_TABLES(X, "00000000000000a0")                                                         \
	CELL_TABLES(X, "00000000000000a1")                                                         \
	X("provenance/facts", FACT, 3)                                                             \
	X("provenance/device", DEVICE, 1)                                                          \
	X("provenance/model", SHAPE, 1)                                                            \
	X("calibration", CALIBRATION, 1)

static struct table {
	const char *path;
	enum nx_table_id id;
	hsize_t n;
	haddr_t at; /* of its rows in the file */
} tables[] = {
#define X(path, id, n) {path, NX_TABLE_##id, n, 0},
	TABLES(X)
#undef X
};

/* What a column of that name mostly holds; "" stands for all others. */
#define WORDS_MAX 9
static const struct {
	const char *column, *words[WORDS_MAX];
} legal[] = {
	{"cell", {"00000000000000a0", "00000000000000a1"}},
	{"status",
         {"ok", "skipped", "invalid", "throttled", "failed", "crashed", "timeout", "out of memory",
          "inexact"}},
	{"verdict", {"none", "faster", "slower", "same", "unclear"}},
	{"util_source", {"none", "counted", "perf"}},
	{"gate", {"not run", "exact", "near ties", "inconclusive", "failed"}},
	{"",
         {"weights", "kv", "base", "paged.blocks", "model", "512", "uniform 1-9", "lognormal", ""}},
};
static const char *const stacks[] = {"base", "paged[block_size=16]", "a|b\n<script>"};
#define N(a) (sizeof(a) / sizeof(*(a)))

static void put_text(char *to, size_t bytes, const char *column, struct fuzz_bytes *b)
{
	uint8_t which = fuzz_u8(b);
	size_t row = 0, n = 0;
	if (which >= 253) {
		char *own = fuzz_text(b);
		nx_copy_text(to, bytes, own);
		free(own);
		return;
	}
	while (legal[row].column[0] && strcmp(legal[row].column, column) != 0)
		row++;
	while (n < WORDS_MAX && legal[row].words[n])
		n++;
	nx_copy_text(to, bytes, legal[row].words[which % n]);
}

static double number(struct fuzz_bytes *b)
{
	uint8_t which = fuzz_u8(b);
	return which < 8 ? fuzz_double(b) : which < 128 ? which : which * 1e6;
}

static int64_t whole(struct fuzz_bytes *b)
{
	uint8_t which = fuzz_u8(b);
	if (which < 8)
		return (int64_t)((uint64_t)fuzz_u32(b) << 32 | fuzz_u32(b));
	return which % 3; /* an index that is there */
}

/* Writes a value of the column at `at` and returns its bytes there. */
static size_t put_value(char *at, const struct nx_h5_column *c, struct fuzz_bytes *b)
{
	int64_t v64;
	int32_t v32;
	double d;
	switch (c->kind) {
	case NX_COL_TEXT: put_text(at, c->bytes, c->name, b); return c->bytes;
	case NX_COL_F64:
		d = number(b);
		memcpy(at, &d, sizeof(d));
		return sizeof(d);
	case NX_COL_I64:
	case NX_COL_U64:
		v64 = whole(b);
		memcpy(at, &v64, sizeof(v64));
		return sizeof(v64);
	case NX_COL_I32:
	case NX_COL_U32: v32 = (int32_t)(uint32_t)(uint64_t)whole(b); break;
	default:
		v32 = fuzz_u8(b); /* an enum of at least three names */
		v32 = v32 < 250 ? v32 % 3 : v32;
	}
	memcpy(at, &v32, sizeof(v32));
	return sizeof(v32);
}

/* ---- the file that is filled ------------------------------------------------------------------ */

static void must(bool ok)
{
	fuzz_expect(ok, "HDF5 makes the file that is to be filled");
}

/* The columns one after the other, as the program writes them. */
static hid_t packed_row(const struct nx_h5_table *t)
{
	size_t bytes = 0;
	hid_t row = H5Tcreate(H5T_COMPOUND, 1 << 20);
	for (size_t i = 0; i < t->n_columns; i++) {
		hid_t type = nx_h5_column_type(&t->columns[i]);
		must(H5Tinsert(row, t->columns[i].name, bytes, type) >= 0);
		bytes += H5Tget_size(type);
		H5Tclose(type);
	}
	must(H5Tset_size(row, bytes) >= 0);
	return row;
}

static void make_table(hid_t file, struct table *t)
{
	hid_t row = packed_row(nx_schema_table(t->id)), space = H5Screate_simple(1, &t->n, NULL),
	      links = H5Pcreate(H5P_LINK_CREATE), create = H5Pcreate(H5P_DATASET_CREATE);
	must(H5Pset_create_intermediate_group(links, 1) >= 0 &&
	     H5Pset_alloc_time(create, H5D_ALLOC_TIME_EARLY) >= 0);
	hid_t d = H5Dcreate2(file, t->path, row, space, links, create, H5P_DEFAULT);
	t->at = H5Dget_offset(d);
	must(d >= 0 && t->at != HADDR_UNDEF);
	H5Dclose(d);
	H5Pclose(create);
	H5Pclose(links);
	H5Sclose(space);
	H5Tclose(row);
}

static void make_config(hid_t file)
{
	struct nx_err err = {0};
	hid_t g;
	must(!nx_h5_group(file, "config", &g, &err));
	must(!nx_h5_write_text(g, "text", "# Which?\nmodel: nano\n", &err) &&
	     !nx_h5_write_text(g, "sha256", "0", &err) && !nx_h5_write_text(g, "name", "x", &err) &&
	     !nx_h5_write_text(g, "question", "Which?", &err) &&
	     !nx_h5_write_int(g, "reference", 0, &err) &&
	     !nx_h5_write_text(g, "min_effect", "0.01", &err) &&
	     !nx_h5_write_list(g, "stack_names", stacks, N(stacks), &err) &&
	     !nx_h5_write_list(g, "stack_specs", stacks, N(stacks), &err));
	H5Gclose(g);
}

static uint8_t *make_file(size_t *size)
{
	struct nx_err err = {0};
	const char *path = fuzz_file("rows.h5", "", 0);
	uint8_t *image;
	hid_t file = H5Fcreate(path, H5F_ACC_TRUNC, H5P_DEFAULT, H5P_DEFAULT);
	must(file >= 0 && !nx_schema_write(file, "run", &err));
	make_config(file);
	for (size_t i = 0; i < N(tables); i++)
		make_table(file, &tables[i]);
	H5Fclose(file);
	must(!nx_test_read_file(path, &image, size, &err));
	return image;
}

FUZZ_TARGET(run_rows)
{
	static uint8_t *image;
	static size_t image_size;
	struct fuzz_bytes b = {data, data + size};
	struct nx_run *run = NULL;
	struct nx_err err = {0};
	fuzz_keep_hdf5_buffers();
	if (!image)
		image = make_file(&image_size);
	for (size_t i = 0; i < N(tables); i++) {
		const struct nx_h5_table *t = nx_schema_table(tables[i].id);
		char *at = (char *)image + tables[i].at;
		for (hsize_t row = 0; row < tables[i].n; row++)
			for (size_t c = 0; c < t->n_columns; c++)
				at += put_value(at, &t->columns[c], &b);
	}
	const char *path = fuzz_file("rows.h5", image, image_size);
	if (fuzz_told(nx_run_read(&run, path, &err), &err))
		fuzz_reports(run);
	nx_run_destroy(run);
	return 0;
}
