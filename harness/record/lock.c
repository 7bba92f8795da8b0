/* SPDX-License-Identifier: Apache-2.0 */
/* The lock of a directory of shards: an flock, which ends with the process that holds it however that
 * ends, so there is none to break. See shards.h. */
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include "record/shards.h"

/* Who holds the lock, for those that are refused. Without room on the disk they learn less. */
static void sign_lock(int fd)
{
	char text[100] = "", host[64] = "?";

	gethostname(host, sizeof(host) - 1);
	int n = snprintf(text, sizeof(text), "process %ld on %s\n", (long)getpid(), host);
	if (ftruncate(fd, 0) || pwrite(fd, text, (size_t)n, 0) != n)
		(void)!ftruncate(fd, 0);
}

static int refuse_second(struct nx_shards *s, struct nx_err *err)
{
	char who[100] = "";
	ssize_t n = pread(s->lock_fd, who, sizeof(who) - 1, 0);

	who[n > 0 ? n : 0] = '\0';
	who[strcspn(who, "\n")] = '\0';
	return nx_fail(err, NX_ECONFLICT,
	               "%s: another run%s%s%s is writing here; wait for it or choose another -o",
	               s->dir, who[0] ? " (" : "", who, who[0] ? ")" : "");
}

/* 1: the lock is ours. 0: the run before removed what was opened, once more. */
static int try_lock(struct nx_shards *s, const char *path, struct nx_err *err)
{
	struct stat held, named;

	if (mkdir(s->dir, 0755) && errno != EEXIST)
		return nx_fail(err, NX_EIO, "%s: cannot be made (%s); choose another place with -o",
		               s->dir, strerror(errno));
	s->lock_fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0644);
	if (s->lock_fd < 0 && errno == ENOENT)
		return 0;
	if (s->lock_fd < 0)
		return nx_fail(err, NX_EIO,
		               "%s: cannot write here (%s); choose another place with -o", s->dir,
		               strerror(errno));
	if (flock(s->lock_fd, LOCK_EX | LOCK_NB)) {
		if (errno == EWOULDBLOCK)
			return refuse_second(s, err);
		return nx_fail(err, NX_EIO,
		               "%s: cannot be locked (%s); choose a place on a local disk with -o",
		               s->dir, strerror(errno));
	}
	if (fstat(s->lock_fd, &held) == 0 && stat(path, &named) == 0 &&
	    held.st_ino == named.st_ino && held.st_dev == named.st_dev)
		return 1;
	close(s->lock_fd);
	s->lock_fd = -1;
	return 0;
}

int nx_shards_lock(struct nx_shards *s, struct nx_err *err)
{
	char path[1400];
	int rc = 0;

	snprintf(path, sizeof(path), "%s/lock", s->dir);
	for (int i = 0; i < 100 && rc == 0; i++)
		rc = try_lock(s, path, err);
	if (rc < 0)
		return rc;
	if (rc == 0)
		return nx_fail(err, NX_EIO, "%s: cannot write here; choose another place with -o",
		               s->dir);
	s->locked = true;
	sign_lock(s->lock_fd);
	return 0;
}
