/* SPDX-License-Identifier: Apache-2.0 */
/* The reading half of h5.h: nothing in a file is believed before it is checked. */
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "engine/engine.h"
#include "record/h5.h"

/* Deflate expands at most 1032-fold; the rest is for headers of tiny datasets. */
static const uint64_t expansion = 1040, small_bytes = 1 << 16;
static const uint64_t most_chunk_bytes = (uint64_t)1 << 28, most_text_bytes = (uint64_t)1 << 26;

int nx_h5_open(hid_t *file, const char *path, struct nx_err *err)
{
	H5Eset_auto2(H5E_DEFAULT, NULL, NULL);
	H5PLset_loading_state(0); /* a file must not make us load filter plugins */
	/* HDF5 does not say why, and waits for ever for a pipe's writer. A file that cannot be opened for want of
	 * something is not damaged. */
	struct stat st;
	int fd = open(path, O_RDONLY | O_NONBLOCK | O_CLOEXEC);
	if (fd < 0)
		return nx_fail(err, errno == ENOENT || errno == ENOTDIR ? NX_EFORMAT : NX_EIO,
		               "cannot be opened (%s)", strerror(errno));
	bool regular = fstat(fd, &st) == 0 && S_ISREG(st.st_mode);
	close(fd);
	if (!regular)
		return nx_fail(err, NX_EFORMAT, "found no regular file; legal: a run file");
	hid_t f = H5Fopen(path, H5F_ACC_RDONLY, H5P_DEFAULT);

	if (f < 0)
		return nx_fail(
			err, NX_EFORMAT,
			"not a readable, whole HDF5 file; legal: a run file as nexus run writes it");
	*file = f;
	return 0;
}

/* The object must hang in this very file. */
static int check_link(hid_t loc, const char *name, H5O_type_t want, struct nx_err *err)
{
	H5L_info_t link;
	H5O_info_t object;

	if (H5Lexists(loc, name, H5P_DEFAULT) <= 0)
		return nx_fail(err, NX_EFORMAT, "%s is missing", name);
	if (H5Lget_info(loc, name, &link, H5P_DEFAULT) < 0 || link.type != H5L_TYPE_HARD)
		return nx_fail(err, NX_EFORMAT,
		               "%s is a link out of its place, which is not followed", name);
	if (H5Oget_info_by_name(loc, name, &object, H5P_DEFAULT) < 0 || object.type != want)
		return nx_fail(err, NX_EFORMAT, "%s is not a %s", name,
		               want == H5O_TYPE_GROUP ? "group" : "dataset");
	return 0;
}

int nx_h5_open_group(hid_t loc, const char *name, hid_t *group, struct nx_err *err)
{
	int rc = check_link(loc, name, H5O_TYPE_GROUP, err);

	if (rc)
		return rc;
	hid_t g = H5Gopen2(loc, name, H5P_DEFAULT);
	if (g < 0)
		return nx_fail(err, NX_EFORMAT, "the group %s cannot be opened", name);
	*group = g;
	return 0;
}

/* Storage inside this file, of filters that HDF5 brings itself, in chunks of sane size. */
static int check_storage(hid_t dset, const char *name, struct nx_err *err)
{
	hid_t plist = H5Dget_create_plist(dset);
	int rc = 0, n_filters;
	hsize_t chunk = 0;

	if (plist < 0)
		return nx_fail(err, NX_EFORMAT, "%s cannot be examined", name);
	H5D_layout_t layout = H5Pget_layout(plist);
	if (H5Pget_external_count(plist) != 0 || layout == H5D_VIRTUAL || layout < 0) {
		rc = nx_fail(err, NX_EFORMAT,
		             "%s keeps its data in other files, which is not followed", name);
	} else if (layout == H5D_CHUNKED) {
		hid_t type = H5Dget_type(dset);
		size_t bytes = type >= 0 ? H5Tget_size(type) : 0;
		if (H5Pget_chunk(plist, 1, &chunk) != 1 || bytes == 0 ||
		    chunk > most_chunk_bytes / bytes)
			rc = nx_fail(err, NX_EFORMAT, "%s has chunks of unreasonable size", name);
		if (type >= 0)
			H5Tclose(type);
	}
	n_filters = H5Pget_nfilters(plist);
	for (int i = 0; !rc && i < n_filters; i++) {
		unsigned flags, config;
		size_t n_values = 0;
		H5Z_filter_t id = H5Pget_filter2(plist, (unsigned)i, &flags, &n_values, NULL, 0,
		                                 NULL, &config);
		if (id != H5Z_FILTER_DEFLATE && id != H5Z_FILTER_SHUFFLE &&
		    id != H5Z_FILTER_FLETCHER32)
			rc = nx_fail(
				err, NX_EFORMAT,
				"%s is packed with filter %d; deflate, shuffle and fletcher32 are known",
				name, (int)id);
	}
	H5Pclose(plist);
	return rc;
}

/* What the dataset claims to hold must be able to lie in the bytes that it has; element: bytes of a
 * row in our memory. */
static int check_size(hid_t dset, const char *name, hsize_t n, uint64_t element, struct nx_err *err)
{
	hid_t plist = H5Dget_create_plist(dset), type = H5Dget_type(dset);
	uint64_t stored = H5Dget_storage_size(dset), bytes = type >= 0 ? H5Tget_size(type) : 0;
	bool packed = plist >= 0 && H5Pget_layout(plist) == H5D_CHUNKED;
	uint64_t most =
		stored > UINT64_MAX / expansion / 2 ? UINT64_MAX : stored * expansion + small_bytes;

	if (type >= 0)
		H5Tclose(type);
	if (plist >= 0)
		H5Pclose(plist);
	if (n <= INT32_MAX && n <= most / element && bytes && (packed || n <= stored / bytes))
		return 0;
	return nx_fail(err, NX_EFORMAT,
	               "%s claims %llu rows, more than its %llu stored bytes can hold", name,
	               (unsigned long long)n, (unsigned long long)stored);
}

/* Opens a dataset of rank 0 or 1 and says how many elements it has, at most `most`. */
static int open_dataset(hid_t loc, const char *name, int rank, uint64_t element, hid_t *out,
                        hsize_t *n, struct nx_err *err)
{
	int rc = check_link(loc, name, H5O_TYPE_DATASET, err);

	if (rc)
		return rc;
	hid_t dset = H5Dopen2(loc, name, H5P_DEFAULT);
	if (dset < 0)
		return nx_fail(err, NX_EFORMAT, "%s cannot be opened", name);
	hid_t space = H5Dget_space(dset);
	*n = 1;
	if (space < 0 || H5Sget_simple_extent_ndims(space) != rank ||
	    (rank == 1 && H5Sget_simple_extent_dims(space, n, NULL) != 1))
		rc = nx_fail(err, NX_EFORMAT, "%s has not %d dimension%s", name, rank,
		             rank == 1 ? "" : "s");
	if (space >= 0)
		H5Sclose(space);
	if (!rc)
		rc = check_storage(dset, name, err);
	if (!rc)
		rc = check_size(dset, name, *n, element, err);
	if (rc)
		H5Dclose(dset);
	else
		*out = dset;
	return rc;
}

/* The very type that we write, in either order of bytes: odd bit fields and enums stay outside. */
static bool is_same_type(hid_t type, const struct nx_h5_column *c)
{
	hid_t want = nx_h5_column_type(c);
	bool same = want >= 0 && H5Tequal(type, want) > 0;

	if (want >= 0 && !same && H5Tset_order(want, H5T_ORDER_BE) >= 0)
		same = H5Tequal(type, want) > 0;
	if (want >= 0)
		H5Tclose(want);
	return same;
}

static bool column_fits(hid_t file_row, const struct nx_h5_column *c)
{
	int i = H5Tget_member_index(file_row, c->name);
	hid_t type = i < 0 ? H5I_INVALID_HID : H5Tget_member_type(file_row, (unsigned)i);

	if (type < 0)
		return false;
	bool ok = c->kind == NX_COL_TEXT
	                  ? H5Tget_class(type) == H5T_STRING && H5Tis_variable_str(type) == 0 &&
	                            H5Tget_size(type) <= c->bytes
	                  : is_same_type(type, c);
	H5Tclose(type);
	return ok;
}

/* HDF5 (1.10) does not check that a column lies within its row, and reads wherever it says. */
static bool is_sane_row(hid_t row)
{
	size_t end = 0, size = H5Tget_size(row);
	int n = H5Tget_nmembers(row);

	if (n < 1 || n > 1024 || size > 1 << 20)
		return false;
	for (unsigned i = 0; i < (unsigned)n; i++) {
		size_t at = H5Tget_member_offset(row, i);
		hid_t type = H5Tget_member_type(row, i);
		size_t bytes = type >= 0 ? H5Tget_size(type) : 0;
		if (type >= 0)
			H5Tclose(type);
		if (bytes == 0 || at < end || at > size || bytes > size - at)
			return false;
		end = at + bytes;
	}
	return true;
}

static int check_columns(hid_t dset, const char *name, const struct nx_h5_table *t,
                         struct nx_err *err)
{
	hid_t row = H5Dget_type(dset);
	int rc = 0;

	if (row < 0 || H5Tget_class(row) != H5T_COMPOUND)
		rc = nx_fail(err, NX_EFORMAT, "%s is not a table of named columns", name);
	else if (!is_sane_row(row))
		rc = nx_fail(err, NX_EFORMAT, "%s has rows whose columns overlap or overflow",
		             name);
	for (size_t i = 0; !rc && i < t->n_columns; i++)
		if (!(t->columns[i].optional && H5Tget_member_index(row, t->columns[i].name) < 0) &&
		    !column_fits(row, &t->columns[i]))
			rc = nx_fail(err, NX_EFORMAT, "%s has no column %s of the expected type",
			             name, t->columns[i].name);
	if (row >= 0)
		H5Tclose(row);
	return rc;
}

/* NUL at the end of every text; enums outside their names would be indices elsewhere. */
static int sanitise(const char *name, const struct nx_h5_table *t, char *rows, size_t n,
                    struct nx_err *err)
{
	for (size_t c = 0; c < t->n_columns; c++) {
		const struct nx_h5_column *col = &t->columns[c];
		for (size_t i = 0; i < n; i++) {
			char *at = rows + i * t->row_bytes + col->offset;
			int32_t value;
			if (col->kind == NX_COL_TEXT) {
				at[col->bytes - 1] = '\0';
			} else if (col->kind == NX_COL_FINISH || col->kind == NX_COL_PHASE) {
				memcpy(&value, at, sizeof(value));
				if (value < 0 ||
				    value >= (col->kind == NX_COL_PHASE ? NX_PHASE_COUNT
				                                        : NX_FINISH_COUNT))
					return nx_fail(err, NX_EFORMAT,
					               "%s row %zu has an unknown %s", name, i,
					               col->name);
			}
		}
	}
	return 0;
}

/* What a file of an older schema does not say; a read leaves the members alone that it has no column for. */
static void fill_optional(const struct nx_h5_table *t, char *rows, size_t n)
{
	const double nan = (double)__builtin_nan("");
	for (size_t c = 0; c < t->n_columns; c++) {
		const struct nx_h5_column *col = &t->columns[c];
		for (size_t i = 0; col->optional && i < n; i++) {
			char *at = rows + i * t->row_bytes + col->offset;
			if (col->kind == NX_COL_F64)
				memcpy(at, &nan, sizeof(nan));
			else if (col->kind == NX_COL_I32 || col->kind == NX_COL_I64)
				memset(at, 0xff, col->bytes);
		}
	}
}

int nx_h5_read(hid_t loc, const char *name, const struct nx_h5_table *t, void **rows, size_t *n,
               struct nx_err *err)
{
	hid_t dset = H5I_INVALID_HID, row;
	hsize_t count;
	char *data = NULL;
	int rc = open_dataset(loc, name, 1, t->row_bytes, &dset, &count, err);

	if (rc)
		return rc;
	rc = check_columns(dset, name, t, err);
	if (!rc && count) {
		data = calloc(count, t->row_bytes);
		row = nx_h5_row_type(t);
		if (data)
			fill_optional(t, data, count);
		if (!data || row < 0)
			rc = nx_fail(err, NX_ENOMEM, "%s: out of memory for %llu rows", name,
			             (unsigned long long)count);
		else if (H5Dread(dset, row, H5S_ALL, H5S_ALL, H5P_DEFAULT, data) < 0)
			rc = nx_fail(err, NX_EFORMAT, "%s cannot be read: damaged data", name);
		else
			rc = sanitise(name, t, data, count, err);
		if (row >= 0)
			H5Tclose(row);
	}
	H5Dclose(dset);
	if (rc) {
		free(data);
		return rc;
	}
	*rows = data;
	*n = count;
	return 0;
}

int nx_h5_read_one(hid_t loc, const char *name, const struct nx_h5_table *t, void *row,
                   struct nx_err *err)
{
	void *rows;
	size_t n;
	int rc = nx_h5_read(loc, name, t, &rows, &n, err);

	if (rc)
		return rc;
	if (n == 1)
		memcpy(row, rows, t->row_bytes);
	else
		rc = nx_fail(err, NX_EFORMAT, "%s has %zu rows instead of one", name, n);
	free(rows);
	return rc;
}

/* The block of n strings of *width bytes (the last is our NUL). */
static int read_strings(hid_t loc, const char *name, int rank, char **block, size_t *width,
                        size_t *n, struct nx_err *err)
{
	hid_t dset = H5I_INVALID_HID, type, mem = H5I_INVALID_HID;
	hsize_t count;
	char *data = NULL;
	int rc = open_dataset(loc, name, rank, 1, &dset, &count, err);

	if (rc)
		return rc;
	type = H5Dget_type(dset);
	if (type < 0 || H5Tget_class(type) != H5T_STRING || H5Tis_variable_str(type) != 0)
		rc = nx_fail(err, NX_EFORMAT, "%s is not fixed-length text", name);
	size_t bytes = rc ? 1 : H5Tget_size(type);
	if (!rc && (bytes == 0 || bytes > most_text_bytes || count > most_text_bytes / bytes))
		rc = nx_fail(err, NX_EFORMAT, "%s is text of unreasonable size", name);
	if (!rc && (!(data = calloc(count ? count : 1, bytes + 1)) ||
	            (mem = nx_h5_string_type(bytes + 1)) < 0))
		rc = nx_fail(err, NX_ENOMEM, "%s: out of memory for its text", name);
	if (!rc && count && H5Dread(dset, mem, H5S_ALL, H5S_ALL, H5P_DEFAULT, data) < 0)
		rc = nx_fail(err, NX_EFORMAT, "%s cannot be read: damaged data", name);
	if (mem >= 0)
		H5Tclose(mem);
	if (type >= 0)
		H5Tclose(type);
	H5Dclose(dset);
	if (rc) {
		free(data);
		return rc;
	}
	for (hsize_t i = 0; i < count; i++)
		data[(i + 1) * (bytes + 1) - 1] = '\0';
	*block = data;
	*width = bytes + 1;
	*n = count;
	return 0;
}

int nx_h5_read_text(hid_t loc, const char *name, char **text, struct nx_err *err)
{
	size_t width, n;
	return read_strings(loc, name, 0, text, &width, &n, err);
}

/* One allocation: the pointers, then the block that they point into. */
int nx_h5_read_list(hid_t loc, const char *name, char ***texts, size_t *n, struct nx_err *err)
{
	char *block;
	size_t width, count;
	int rc = read_strings(loc, name, 1, &block, &width, &count, err);

	if (rc)
		return rc;
	char **list = malloc(count * (sizeof(*list) + width) + 1);
	if (!list) {
		free(block);
		return nx_fail(err, NX_ENOMEM, "%s: out of memory for its text", name);
	}
	if (count)
		memcpy(list + count, block, count * width);
	for (size_t i = 0; i < count; i++)
		list[i] = (char *)(list + count) + i * width;
	free(block);
	*texts = list;
	*n = count;
	return 0;
}

int nx_h5_read_int(hid_t loc, const char *name, int *value, struct nx_err *err)
{
	int32_t v = 0;
	bool ok = false;

	if (H5Aexists(loc, name) <= 0)
		return nx_fail(err, NX_EFORMAT, "the attribute %s is missing", name);
	hid_t a = H5Aopen(loc, name, H5P_DEFAULT), type = a >= 0 ? H5Aget_type(a) : H5I_INVALID_HID;
	hid_t space = a >= 0 ? H5Aget_space(a) : H5I_INVALID_HID;
	if (type >= 0 && space >= 0 && H5Tget_class(type) == H5T_INTEGER &&
	    H5Sget_simple_extent_npoints(space) == 1)
		ok = H5Aread(a, H5T_NATIVE_INT32, &v) >= 0;
	if (space >= 0)
		H5Sclose(space);
	if (type >= 0)
		H5Tclose(type);
	if (a >= 0)
		H5Aclose(a);
	if (!ok)
		return nx_fail(err, NX_EFORMAT, "the attribute %s is not one whole number", name);
	*value = v;
	return 0;
}
