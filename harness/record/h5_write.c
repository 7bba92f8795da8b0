/* SPDX-License-Identifier: Apache-2.0 */
/* The writing half of h5.h, and the types that both halves use. */
#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "engine/engine.h"
#include "record/h5.h"

enum { CHUNK_ROWS_MIN = 256, CHUNK_ROWS_MAX = 4096, GZIP_LEVEL = 4 };

static const char *const finish_names[] = {
#define X(id, name) name,
	NX_FINISH_REASONS(X)
#undef X
};

static const char *const phase_names[] = {
#define X(id, name) name,
	NX_PHASES(X)
#undef X
};

static hid_t enum_type(const char *const *names, int n)
{
	hid_t t = H5Tenum_create(H5T_NATIVE_INT32);

	for (int32_t i = 0; t >= 0 && i < n; i++)
		if (H5Tenum_insert(t, names[i], &i) < 0)
			return H5Tclose(t), H5I_INVALID_HID;
	return t;
}

hid_t nx_h5_string_type(size_t bytes)
{
	hid_t t = H5Tcopy(H5T_C_S1);

	if (t >= 0 && (H5Tset_size(t, bytes) < 0 || H5Tset_cset(t, H5T_CSET_UTF8) < 0))
		return H5Tclose(t), H5I_INVALID_HID;
	return t;
}

hid_t nx_h5_column_type(const struct nx_h5_column *c)
{
	switch (c->kind) {
	case NX_COL_I32: return H5Tcopy(H5T_NATIVE_INT32);
	case NX_COL_U32: return H5Tcopy(H5T_NATIVE_UINT32);
	case NX_COL_I64: return H5Tcopy(H5T_NATIVE_INT64);
	case NX_COL_U64: return H5Tcopy(H5T_NATIVE_UINT64);
	case NX_COL_F64: return H5Tcopy(H5T_NATIVE_DOUBLE);
	case NX_COL_TEXT: return nx_h5_string_type(c->bytes);
	case NX_COL_FINISH:
		return enum_type(finish_names, sizeof(finish_names) / sizeof(*finish_names));
	case NX_COL_PHASE:
		return enum_type(phase_names, sizeof(phase_names) / sizeof(*phase_names));
	}
	return H5I_INVALID_HID;
}

/* Columns at their members' offsets, or one after the other. (H5Tpack would do the latter, but
 * sorts by offset, and the units stand in the table's order.) */
static hid_t row_type(const struct nx_h5_table *t, bool packed)
{
	hid_t row = H5Tcreate(H5T_COMPOUND, t->row_bytes);
	size_t end = 0;

	for (size_t i = 0; row >= 0 && i < t->n_columns; i++) {
		hid_t type = nx_h5_column_type(&t->columns[i]);
		size_t at = packed ? end : t->columns[i].offset;
		bool ok = type >= 0 && H5Tinsert(row, t->columns[i].name, at, type) >= 0;
		end += type >= 0 ? H5Tget_size(type) : 0;
		if (type >= 0)
			H5Tclose(type);
		if (!ok)
			return H5Tclose(row), H5I_INVALID_HID;
	}
	if (packed && row >= 0 && H5Tset_size(row, end) < 0)
		return H5Tclose(row), H5I_INVALID_HID;
	return row;
}

hid_t nx_h5_row_type(const struct nx_h5_table *t)
{
	return row_type(t, false);
}

int nx_h5_create(hid_t *file, struct nx_err *err)
{
	H5Eset_auto2(H5E_DEFAULT, NULL, NULL);
	hid_t access = H5Pcreate(H5P_FILE_ACCESS);
	hid_t f = H5I_INVALID_HID;

	if (access >= 0 && H5Pset_fapl_core(access, (size_t)4 << 20, 0) >= 0)
		f = H5Fcreate("memory", H5F_ACC_TRUNC, H5P_DEFAULT, access);
	if (access >= 0)
		H5Pclose(access);
	if (f < 0)
		return nx_fail(err, NX_ENOMEM, "HDF5 cannot make a file in memory");
	*file = f;
	return 0;
}

void nx_h5_close(hid_t file)
{
	if (file >= 0)
		H5Fclose(file);
}

/* Writes all of it and syncs. Returns 0 or an errno. */
static int write_all(int fd, const char *data, size_t n)
{
	while (n) {
		ssize_t k = write(fd, data, n);
		if (k < 0 && errno == EINTR)
			continue;
		if (k <= 0)
			return k < 0 ? errno : ENOSPC;
		data += k;
		n -= (size_t)k;
	}
	return fsync(fd) ? errno : 0;
}

/* Makes the rename itself durable; best effort, as some file systems refuse it. */
static void sync_dir_of(const char *path)
{
	char dir[1024];
	const char *slash = strrchr(path, '/');

	snprintf(dir, sizeof(dir), "%.*s", slash ? (int)(slash - path) + 1 : 1, slash ? path : ".");
	int fd = open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (fd >= 0) {
		(void)fsync(fd);
		close(fd);
	}
}

static int save_image(const char *path, const char *folder, const char *image, size_t n,
                      struct nx_err *err)
{
	char tmp[1400];
	const char *slash = strrchr(path, '/');
	int dir = slash ? (int)(slash - path) + 1 : 0;

	if (snprintf(tmp, sizeof(tmp), "%.*s%s.tmp-%ld-%s", folder ? (int)strlen(folder) : dir,
	             folder ? folder : path, folder ? "/" : "", (long)getpid(),
	             path + dir) >= (int)sizeof(tmp))
		return nx_fail(err, NX_EINVAL, "%.80s...: the path is too long", path);
	int fd = open(tmp, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);
	if (fd < 0)
		return nx_fail(err, NX_EIO,
		               "%s: cannot write here (%s); choose another place with -o", path,
		               strerror(errno));
	int error = write_all(fd, image, n);
	if (close(fd) && !error)
		error = errno;
	if (!error && rename(tmp, path))
		error = errno;
	if (error) {
		unlink(tmp);
		if (error == EXDEV && folder)
			return save_image(path, NULL, image, n, err);
		if (error == ENOSPC || error == EDQUOT)
			return nx_fail(
				err, NX_ENOSPC,
				"%s: no room for %zu bytes on this disk; free some, or choose "
				"another place with -o, and run again with --resume",
				path, n);
		return nx_fail(err, NX_EIO,
		               "%s: cannot be written (%s); choose another place with -o", path,
		               strerror(error));
	}
	sync_dir_of(path);
	return 0;
}

int nx_h5_save(hid_t file, const char *path, const char *folder, struct nx_err *err)
{
	int rc = 0;
	char *image = NULL;
	ssize_t n = H5Fflush(file, H5F_SCOPE_GLOBAL) < 0 ? -1 : H5Fget_file_image(file, NULL, 0);

	if (n > 0)
		image = malloc((size_t)n);
	if (!image || H5Fget_file_image(file, image, (size_t)n) != n)
		rc = nx_fail(err, NX_ENOMEM, "%s: not enough memory for its image of %zd bytes",
		             path, n);
	H5Fclose(file);
	if (!rc)
		rc = save_image(path, folder, image, (size_t)n, err);
	free(image);
	return rc;
}

int nx_h5_group(hid_t loc, const char *name, hid_t *group, struct nx_err *err)
{
	hid_t g = H5Gcreate2(loc, name, H5P_DEFAULT, H5P_DEFAULT, H5P_DEFAULT);

	if (g < 0)
		return nx_fail(err, NX_EIO, "HDF5 cannot make the group %s", name);
	*group = g;
	return 0;
}

/* Writes one value of type to a new attribute with the given space; closes type and space. */
static int put_attr(hid_t loc, const char *name, hid_t type, hid_t space, const void *data,
                    struct nx_err *err)
{
	hid_t a = H5I_INVALID_HID;
	bool ok = false;

	if (type >= 0 && space >= 0) {
		a = H5Acreate2(loc, name, type, space, H5P_DEFAULT, H5P_DEFAULT);
		ok = a >= 0 && H5Awrite(a, type, data) >= 0;
	}
	if (a >= 0)
		H5Aclose(a);
	if (space >= 0)
		H5Sclose(space);
	if (type >= 0)
		H5Tclose(type);
	return ok ? 0 : nx_fail(err, NX_EIO, "HDF5 cannot write the attribute %s", name);
}

int nx_h5_write_attr(hid_t loc, const char *name, const char *text, struct nx_err *err)
{
	hid_t type = nx_h5_string_type(strlen(text) + 1);
	return put_attr(loc, name, type, H5Screate(H5S_SCALAR), text, err);
}

int nx_h5_write_int(hid_t loc, const char *name, int value, struct nx_err *err)
{
	int32_t v = value;
	return put_attr(loc, name, H5Tcopy(H5T_NATIVE_INT32), H5Screate(H5S_SCALAR), &v, err);
}

/* texts as one block of n * *width bytes, padded with NUL; NULL when there is no memory. */
static char *pad_texts(const char *const *texts, size_t n, size_t *width)
{
	*width = 1;
	for (size_t i = 0; i < n; i++)
		*width = strlen(texts[i]) + 1 > *width ? strlen(texts[i]) + 1 : *width;
	char *block = calloc(n ? n : 1, *width);
	for (size_t i = 0; block && i < n; i++)
		memcpy(block + i * *width, texts[i], strlen(texts[i]));
	return block;
}

/* The columns' units and descriptions, in column order. */
static int describe(hid_t dset, const struct nx_h5_table *t, struct nx_err *err)
{
	const char **texts = calloc(t->n_columns, sizeof(*texts));
	int rc = texts ? 0 : nx_fail(err, NX_ENOMEM, "out of memory for %zu columns", t->n_columns);

	for (int which = 0; which < 2 && !rc; which++) {
		hsize_t n = t->n_columns;
		size_t width;
		for (size_t i = 0; i < t->n_columns; i++)
			texts[i] = which ? t->columns[i].text : t->columns[i].unit;
		char *block = pad_texts(texts, t->n_columns, &width);
		if (!block)
			rc = nx_fail(err, NX_ENOMEM, "out of memory for %zu columns", t->n_columns);
		else
			rc = put_attr(dset, which ? "column_text" : "units",
			              nx_h5_string_type(width), H5Screate_simple(1, &n, NULL),
			              block, err);
		free(block);
	}
	free(texts);
	return rc ? rc : nx_h5_write_attr(dset, "text", t->text, err);
}

static hid_t create_table(hid_t loc, const char *name, const struct nx_h5_table *t, hsize_t n)
{
	hsize_t zero = 0, unlimited = H5S_UNLIMITED;
	hsize_t chunk = n < CHUNK_ROWS_MIN   ? CHUNK_ROWS_MIN
	                : n > CHUNK_ROWS_MAX ? CHUNK_ROWS_MAX
	                                     : n;
	hid_t dset = H5I_INVALID_HID, file_row = row_type(t, true);
	hid_t space = H5Screate_simple(1, &zero, &unlimited), plist = H5Pcreate(H5P_DATASET_CREATE);

	if (file_row >= 0 && space >= 0 && plist >= 0 && H5Pset_chunk(plist, 1, &chunk) >= 0 &&
	    H5Pset_shuffle(plist) >= 0 && H5Pset_deflate(plist, GZIP_LEVEL) >= 0 &&
	    H5Pset_obj_track_times(plist, false) >= 0)
		dset = H5Dcreate2(loc, name, file_row, space, H5P_DEFAULT, plist, H5P_DEFAULT);
	if (dset >= 0 && describe(dset, t, NULL) != 0) {
		H5Dclose(dset);
		dset = H5I_INVALID_HID;
	}
	if (plist >= 0)
		H5Pclose(plist);
	if (space >= 0)
		H5Sclose(space);
	if (file_row >= 0)
		H5Tclose(file_row);
	return dset;
}

/* Extends dset by n rows and writes them. */
static bool add_rows(hid_t dset, hid_t row, const void *rows, hsize_t n)
{
	hsize_t old = 0, size;
	hid_t space = H5Dget_space(dset);
	bool ok = space >= 0 && H5Sget_simple_extent_dims(space, &old, NULL) == 1;

	if (space >= 0)
		H5Sclose(space);
	size = old + n;
	if (!ok || H5Dset_extent(dset, &size) < 0)
		return false;
	space = H5Dget_space(dset);
	hid_t mem = H5Screate_simple(1, &n, NULL);
	ok = space >= 0 && mem >= 0 &&
	     H5Sselect_hyperslab(space, H5S_SELECT_SET, &old, NULL, &n, NULL) >= 0 &&
	     H5Dwrite(dset, row, mem, space, H5P_DEFAULT, rows) >= 0;
	if (mem >= 0)
		H5Sclose(mem);
	if (space >= 0)
		H5Sclose(space);
	return ok;
}

int nx_h5_append(hid_t loc, const char *name, const struct nx_h5_table *t, const void *rows,
                 size_t n, struct nx_err *err)
{
	hid_t row = nx_h5_row_type(t), dset = H5I_INVALID_HID;

	if (row >= 0)
		dset = H5Lexists(loc, name, H5P_DEFAULT) > 0 ? H5Dopen2(loc, name, H5P_DEFAULT)
		                                             : create_table(loc, name, t, n);
	bool ok = dset >= 0 && (n == 0 || add_rows(dset, row, rows, n));
	if (dset >= 0)
		H5Dclose(dset);
	if (row >= 0)
		H5Tclose(row);
	return ok ? 0
	          : nx_fail(err, NX_ENOMEM, "HDF5 cannot hold %zu rows of the table %s in memory",
	                    n, name);
}

/* Contiguous strings: text compresses well, but h5dump and editors like it plain. */
static int put_strings(hid_t loc, const char *name, hid_t space, size_t width, const char *data,
                       struct nx_err *err)
{
	hid_t type = nx_h5_string_type(width), dset = H5I_INVALID_HID;
	bool ok = false;

	if (type >= 0 && space >= 0)
		dset = H5Dcreate2(loc, name, type, space, H5P_DEFAULT, H5P_DEFAULT, H5P_DEFAULT);
	ok = dset >= 0 &&
	     (!data || H5Dwrite(dset, type, H5S_ALL, H5S_ALL, H5P_DEFAULT, data) >= 0) &&
	     nx_h5_write_attr(dset, "units", "text", NULL) == 0;
	if (dset >= 0)
		H5Dclose(dset);
	if (type >= 0)
		H5Tclose(type);
	if (space >= 0)
		H5Sclose(space);
	return ok ? 0 : nx_fail(err, NX_ENOMEM, "HDF5 cannot hold the text %s in memory", name);
}

int nx_h5_write_text(hid_t loc, const char *name, const char *text, struct nx_err *err)
{
	return put_strings(loc, name, H5Screate(H5S_SCALAR), strlen(text) + 1, text, err);
}

int nx_h5_write_list(hid_t loc, const char *name, const char *const *texts, size_t n,
                     struct nx_err *err)
{
	hsize_t dim = n;
	size_t width;
	char *block = pad_texts(texts, n, &width);

	if (!block)
		return nx_fail(err, NX_ENOMEM, "out of memory for the list %s", name);
	int rc = put_strings(loc, name, H5Screate_simple(1, &dim, NULL), width, n ? block : NULL,
	                     err);
	free(block);
	return rc;
}
