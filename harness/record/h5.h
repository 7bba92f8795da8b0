/* SPDX-License-Identifier: Apache-2.0
 *
 * record/h5.h: tables of C structs as HDF5 compound datasets. Internal to record/.
 *
 * A table is described once by its columns; the description serves writing, reading and checking.
 *
 * Files are built in memory and written with write(2) to a temporary name, synced and renamed: HDF5
 * cannot recover from a full disk in the middle of a file, a plain write can. The price is memory:
 * the file's size twice while it is saved.
 *
 * Reading trusts nothing: links that leave the file, foreign storage, unknown filters, other types
 * and sizes that the stored bytes cannot expand to are refused with one sentence, which names the
 * object but not the file: callers put the file's name before it. HDF5's own error prints are off.
 * Threads: one at a time (HDF5's serial library).
 */
#ifndef NEXUS_RECORD_H5_H
#define NEXUS_RECORD_H5_H

#include <hdf5.h>
#include <stdbool.h>
#include <stddef.h>

#include "nexus/err.h"

/* ENUM columns are int32 in memory and carry their names into the file. */
enum nx_col_kind {
	NX_COL_I32,
	NX_COL_U32,
	NX_COL_I64,
	NX_COL_U64,
	NX_COL_F64,
	NX_COL_TEXT,
	NX_COL_FINISH,
	NX_COL_PHASE
};

struct nx_h5_column {
	const char *name, *unit, *text;
	enum nx_col_kind kind;
	size_t offset, bytes; /* of the member; TEXT: with its NUL */
	bool optional;        /* older files lack it: NaN, -1, 0 of unsigned, empty text */
};

struct nx_h5_table {
	const char *text; /* what a row is */
	size_t row_bytes;
	const struct nx_h5_column *columns;
	size_t n_columns;
};

/* A new file in memory. */
int nx_h5_create(hid_t *file, struct nx_err *err);
/* Writes the image to path (see top) and closes the file, also on failure. The temporary name is in
 * folder (NULL: beside path), for one that is tidied when this process is killed meanwhile. */
int nx_h5_save(hid_t file, const char *path, const char *folder, struct nx_err *err);
int nx_h5_open(hid_t *file, const char *path, struct nx_err *err);
void nx_h5_close(hid_t file); /* any state */

int nx_h5_group(hid_t loc, const char *name, hid_t *group, struct nx_err *err); /* creates one */
/* Adds rows at the end of the dataset, which is made when missing. n = 0 makes an empty one. */
int nx_h5_append(hid_t loc, const char *name, const struct nx_h5_table *t, const void *rows,
                 size_t n, struct nx_err *err);
/* A scalar UTF-8 string of any length; a list of such, padded to the longest. */
int nx_h5_write_text(hid_t loc, const char *name, const char *text, struct nx_err *err);
int nx_h5_write_list(hid_t loc, const char *name, const char *const *texts, size_t n,
                     struct nx_err *err);
int nx_h5_write_attr(hid_t loc, const char *name, const char *text, struct nx_err *err);
int nx_h5_write_int(hid_t loc, const char *name, int value, struct nx_err *err); /* attribute */

/* All rows, in malloc memory; *rows is NULL when there are none. Text is NUL-terminated. */
int nx_h5_read(hid_t loc, const char *name, const struct nx_h5_table *t, void **rows, size_t *n,
               struct nx_err *err);
/* Exactly one row, into row. */
int nx_h5_read_one(hid_t loc, const char *name, const struct nx_h5_table *t, void *row,
                   struct nx_err *err);
int nx_h5_read_text(hid_t loc, const char *name, char **text, struct nx_err *err);
int nx_h5_read_list(hid_t loc, const char *name, char ***texts, size_t *n, struct nx_err *err);
int nx_h5_read_int(hid_t loc, const char *name, int *value, struct nx_err *err);
/* Opens a group that is part of this file. */
int nx_h5_open_group(hid_t loc, const char *name, hid_t *group, struct nx_err *err);

/* The HDF5 type of a row in memory; H5I_INVALID_HID when HDF5 is out of memory. */
hid_t nx_h5_row_type(const struct nx_h5_table *t);
hid_t nx_h5_column_type(const struct nx_h5_column *c);
hid_t nx_h5_string_type(size_t bytes);

#endif
