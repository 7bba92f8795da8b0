/* SPDX-License-Identifier: Apache-2.0
 *
 * base/file.h: whole files into memory, and questions about paths. Sentences begin with the path.
 */
#ifndef NEXUS_BASE_FILE_H
#define NEXUS_BASE_FILE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/arena.h"

/* Reads a regular file of at most max_bytes. *data is NUL-terminated after *len bytes and belongs to the
 * arena. Devices, pipes and directories are refused, so that no input can make us wait. */
int nx_file_read(struct nx_arena *a, const char *path, size_t max_bytes, char **data, size_t *len,
                 struct nx_err *err);

/* Maps a regular file for reading; *base is released with munmap(2), and NULL for an empty file. */
int nx_file_map(const char *path, const uint8_t **base, size_t *len, struct nx_err *err);

/* Opens such a file for reading; the descriptor is the caller's. *bytes is its size now. */
int nx_file_open(const char *path, size_t max_bytes, int *fd, size_t *bytes, struct nx_err *err);

/* The first byte of such a file that is no space (a byte order mark does not count), among its first 4,096;
 * 0 when there is none. */
int nx_file_first_byte(const char *path, char *c, struct nx_err *err);

bool nx_file_is_regular(const char *path);
bool nx_file_is_dir(const char *path);

/* The folder of a path: "a" for "a/b.yaml", "." for "b.yaml"; NULL when out of memory. */
char *nx_path_dir(struct nx_arena *a, const char *path);
/* dir/path, or path alone when it is absolute or dir is "."; NULL when out of memory. */
char *nx_path_join(struct nx_arena *a, const char *dir, const char *path);
/* What follows the last slash; points into path. */
const char *nx_path_base(const char *path);

#endif
