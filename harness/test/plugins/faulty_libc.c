/* SPDX-License-Identifier: Apache-2.0
 *
 * test/plugins/faulty_libc.c: no technique, but a library for LD_PRELOAD that lets one call in a run fail.
 *
 * Counted are the calls below that write, on paths (or descriptors of files) that contain $NX_FAULT_PATH
 * (or end so, where that ends in a dollar), in all processes together: the count lies in the file $NX_FAULT_COUNT, which must be there. Call
 * $NX_FAULT_AT, and with $NX_FAULT_STICKY=1 every later one, does what $NX_FAULT_HOW says:
 *
 *     a number   fails with this errno; a failing write has written half of its bytes
 *     kill       the first process that counted anything (the parent of the run) dies by SIGKILL before
 *                the call is made
 *     die        the process that makes the call dies so
 *
 * $NX_FAULT_CLOCK=seconds sets the wall clock forward by so much, and back again, at every third look at it.
 */
#define _GNU_SOURCE /* RTLD_NEXT */
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

/* Called while sanitizers set themselves up, so they are left out of it. */
#define RAW __attribute__((visibility("default"), no_sanitize("address", "undefined")))
#define INSIDE __attribute__((no_sanitize("address", "undefined")))

struct count {
	atomic_long n;
	atomic_int root;
};

INSIDE static struct count *count(void)
{
	static struct count *c;
	const char *path = getenv("NX_FAULT_COUNT");
	if (c || !path)
		return c;
	int fd = (int)syscall(SYS_openat, AT_FDCWD, path, O_RDWR | O_CLOEXEC);
	void *p = mmap(NULL, sizeof(*c), PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	syscall(SYS_close, fd);
	return c = p == MAP_FAILED ? NULL : p;
}

/* "x" is anywhere in the path, "x$" at its end. */
INSIDE static bool matches(const char *path, const char *under)
{
	size_t n = strlen(under), len = strlen(path);
	if (!n || under[n - 1] != '$')
		return strstr(path, under) != NULL;
	return len >= n - 1 && memcmp(path + len - (n - 1), under, n - 1) == 0;
}

/* Shall this call on path fail? Sets errno then. */
INSIDE static bool faulty(const char *path)
{
	const char *under = getenv("NX_FAULT_PATH"), *at = getenv("NX_FAULT_AT");
	const char *how = getenv("NX_FAULT_HOW");
	if (!under || !at || !how || !path || !matches(path, under))
		return false;
	struct count *c = count();
	if (!c)
		return false;
	int none = 0;
	atomic_compare_exchange_strong(&c->root, &none, (int)getpid());
	long k = atomic_fetch_add(&c->n, 1) + 1, fail_at = strtol(at, NULL, 10);
	if (k < fail_at || (k > fail_at && !getenv("NX_FAULT_STICKY")))
		return false;
	if (strcmp(how, "kill") == 0 || strcmp(how, "die") == 0) {
		kill(*how == 'k' ? atomic_load(&c->root) : getpid(), SIGKILL);
		for (;;)
			pause(); /* a worker dies with its parent */
	}
	errno = (int)strtol(how, NULL, 10);
	return true;
}

INSIDE static bool faulty_fd(int fd)
{
	char link[32], path[1024];
	if (!getenv("NX_FAULT_PATH"))
		return false;
	snprintf(link, sizeof(link), "/proc/self/fd/%d", fd);
	int kept = errno;
	ssize_t n = readlink(link, path, sizeof(path) - 1);
	errno = kept;
	path[n > 0 ? n : 0] = '\0';
	return n > 0 && faulty(path);
}

/* The next definition of the same name, as a function pointer of the same type. */
#define NEXT(name) ((__typeof__(&name))(uintptr_t)dlsym(RTLD_NEXT, #name))

RAW int open(const char *path, int flags, ...)
{
	va_list ap;
	va_start(ap, flags);
	mode_t mode = flags & O_CREAT ? va_arg(ap, mode_t) : 0;
	va_end(ap);
	bool counts = (flags & O_ACCMODE) != O_RDONLY || flags & O_DIRECTORY;
	return counts && faulty(path) ? -1 : NEXT(open)(path, flags, mode);
}

RAW ssize_t write(int fd, const void *data, size_t n)
{
	if (!faulty_fd(fd))
		return NEXT(write)(fd, data, n);
	int error = errno;
	(void)!NEXT(write)(fd, data, n / 2);
	errno = error;
	return -1;
}

RAW int fsync(int fd)
{
	return faulty_fd(fd) ? -1 : NEXT(fsync)(fd);
}

RAW int close(int fd)
{
	bool reads =
		(fcntl(fd, F_GETFL) & O_ACCMODE) == O_RDONLY; /* nothing to lose; HDF5 dies of it */
	bool bad = !reads && faulty_fd(fd);
	int error = errno, rc = NEXT(close)(fd);
	if (bad)
		errno = error;
	return bad ? -1 : rc;
}

RAW int rename(const char *from, const char *to)
{
	return faulty(to) ? -1 : NEXT(rename)(from, to);
}

RAW int unlink(const char *path)
{
	return faulty(path) ? -1 : NEXT(unlink)(path);
}

RAW int mkdir(const char *path, mode_t mode)
{
	return faulty(path) ? -1 : NEXT(mkdir)(path, mode);
}

RAW int rmdir(const char *path)
{
	return faulty(path) ? -1 : NEXT(rmdir)(path);
}

/* ---- the wall clock --------------------------------------------------------------------------- */

INSIDE static time_t step(void)
{
	static atomic_uint looks;
	const char *seconds = getenv("NX_FAULT_CLOCK");
	if (!seconds)
		return 0;
	return atomic_fetch_add(&looks, 1) / 3 % 2 ? (time_t)strtol(seconds, NULL, 10) : 0;
}

RAW int clock_gettime(clockid_t id, struct timespec *t)
{
	int rc = (int)syscall(SYS_clock_gettime, id, t);
	if (id == CLOCK_REALTIME && !rc)
		t->tv_sec += step();
	return rc;
}

RAW time_t time(time_t *out)
{
	struct timespec t = {0};
	clock_gettime(CLOCK_REALTIME, &t);
	if (out)
		*out = t.tv_sec;
	return t.tv_sec;
}

RAW int gettimeofday(struct timeval *restrict tv, void *restrict zone)
{
	struct timespec t = {0};
	(void)zone;
	clock_gettime(CLOCK_REALTIME, &t);
	*tv = (struct timeval){t.tv_sec, t.tv_nsec / 1000};
	return 0;
}
