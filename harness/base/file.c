/* SPDX-License-Identifier: Apache-2.0 */
#include "base/file.h"

#include <errno.h>
#include <fcntl.h>
#include <stdint.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

static int read_all(int fd, const char *path, char *data, size_t size, size_t *len,
                    struct nx_err *err)
{
	size_t n = 0;
	while (n < size) {
		ssize_t got = read(fd, data + n, size - n);
		if (got < 0 && errno == EINTR)
			continue;
		if (got < 0)
			return nx_fail(err, NX_EIO, "%s: cannot be read: %s", path,
			               strerror(errno));
		if (got == 0)
			break; /* the file shrank since fstat: what is there counts */
		n += (size_t)got;
	}
	*len = n;
	return 0;
}

int nx_file_open(const char *path, size_t max_bytes, int *fd, size_t *bytes, struct nx_err *err)
{
	int f = open(path, O_RDONLY | O_NONBLOCK | O_CLOEXEC);
	if (f < 0)
		return nx_fail(err, NX_EIO, "%s: cannot be opened: %s", path, strerror(errno));
	struct stat st;
	int rc = 0;
	if (fstat(f, &st) != 0 || !S_ISREG(st.st_mode))
		rc = nx_fail(err, NX_EIO, "%s: found no regular file; legal: a file", path);
	else if ((unsigned long long)st.st_size > max_bytes)
		rc = nx_fail(err, NX_EFORMAT, "%s: found %lld bytes; legal: at most %zu", path,
		             (long long)st.st_size, max_bytes);
	if (rc) {
		close(f);
		return rc;
	}
	*fd = f;
	*bytes = (size_t)st.st_size;
	return 0;
}

int nx_file_read(struct nx_arena *a, const char *path, size_t max_bytes, char **data, size_t *len,
                 struct nx_err *err)
{
	int fd;
	size_t size, n = 0;
	int rc = nx_file_open(path, max_bytes, &fd, &size, err);
	if (rc)
		return rc;
	char *p = nx_arena_alloc(a, size + 1);
	rc = p ? read_all(fd, path, p, size, &n, err)
	       : nx_fail(err, NX_ENOMEM, "%s: out of memory", path);
	if (rc == 0) {
		p[n] = '\0';
		*data = p;
		*len = n;
	}
	close(fd);
	return rc;
}

int nx_file_map(const char *path, const uint8_t **base, size_t *len, struct nx_err *err)
{
	int fd = open(path, O_RDONLY | O_NONBLOCK | O_CLOEXEC);
	if (fd < 0)
		return nx_fail(err, NX_EIO, "%.200s: cannot be opened: %s", path, strerror(errno));
	struct stat st;
	int rc = 0;
	*base = NULL;
	*len = 0;
	if (fstat(fd, &st) != 0 || !S_ISREG(st.st_mode)) {
		rc = nx_fail(err, NX_EIO, "%.200s: found no regular file; legal: a file", path);
	} else if (st.st_size > 0) {
		void *p = mmap(NULL, (size_t)st.st_size, PROT_READ, MAP_PRIVATE, fd, 0);
		if (p == MAP_FAILED) {
			rc = nx_fail(err, NX_EIO, "%.200s: cannot map %lld bytes: %s", path,
			             (long long)st.st_size, strerror(errno));
		} else {
			*base = p;
			*len = (size_t)st.st_size;
		}
	}
	close(fd);
	return rc;
}

int nx_file_first_byte(const char *path, char *c, struct nx_err *err)
{
	char head[4096];
	int fd;
	size_t size, n = 0;
	int rc = nx_file_open(path, SIZE_MAX, &fd, &size, err);
	if (rc)
		return rc;
	rc = read_all(fd, path, head, sizeof(head), &n, err);
	close(fd);
	size_t i = n >= 3 && memcmp(head, "\xef\xbb\xbf", 3) == 0 ? 3 : 0;
	while (i < n && (head[i] == ' ' || head[i] == '\t' || head[i] == '\r' || head[i] == '\n'))
		i++;
	*c = rc == 0 && i < n ? head[i] : '\0';
	return rc;
}

bool nx_file_is_regular(const char *path)
{
	struct stat st;
	return stat(path, &st) == 0 && S_ISREG(st.st_mode);
}

bool nx_file_is_dir(const char *path)
{
	struct stat st;
	return stat(path, &st) == 0 && S_ISDIR(st.st_mode);
}

char *nx_path_dir(struct nx_arena *a, const char *path)
{
	const char *slash = strrchr(path, '/');
	if (!slash)
		return nx_arena_strdup(a, ".");
	return nx_arena_strndup(a, path, slash == path ? 1 : (size_t)(slash - path));
}

char *nx_path_join(struct nx_arena *a, const char *dir, const char *path)
{
	if (path[0] == '/' || strcmp(dir, ".") == 0)
		return nx_arena_strdup(a, path);
	size_t n = strlen(dir);
	return nx_arena_printf(a, "%s%s%s", dir, n && dir[n - 1] == '/' ? "" : "/", path);
}

const char *nx_path_base(const char *path)
{
	const char *slash = strrchr(path, '/');
	return slash ? slash + 1 : path;
}
