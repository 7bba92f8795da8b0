/* SPDX-License-Identifier: Apache-2.0 */
#include "base/file.h"

#include <errno.h>
#include <fcntl.h>
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

int nx_file_read(struct nx_arena *a, const char *path, size_t max_bytes, char **data, size_t *len,
                 struct nx_err *err)
{
	int fd = open(path, O_RDONLY | O_NONBLOCK | O_CLOEXEC);
	if (fd < 0)
		return nx_fail(err, NX_EIO, "%s: cannot be opened: %s", path, strerror(errno));
	struct stat st;
	int rc = 0;
	size_t n = 0;
	char *p = NULL;
	if (fstat(fd, &st) != 0 || !S_ISREG(st.st_mode)) {
		rc = nx_fail(err, NX_EIO, "%s: found no regular file; legal: a file", path);
		goto close;
	}
	if ((unsigned long long)st.st_size > max_bytes) {
		rc = nx_fail(err, NX_EFORMAT, "%s: found %lld bytes; legal: at most %zu", path,
		             (long long)st.st_size, max_bytes);
		goto close;
	}
	p = nx_arena_alloc(a, (size_t)st.st_size + 1);
	rc = p ? read_all(fd, path, p, (size_t)st.st_size, &n, err)
	       : nx_fail(err, NX_ENOMEM, "%s: out of memory", path);
	if (rc == 0) {
		p[n] = '\0';
		*data = p;
		*len = n;
	}
close:
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
