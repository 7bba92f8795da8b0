/* SPDX-License-Identifier: Apache-2.0 */
/* See fuzz.h. */
#define _GNU_SOURCE /* nftw */
#include "fuzz/fuzz.h"

#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "tiny_model.h"

struct fuzz_tally fuzz_tally;
static struct fuzz_target *targets;

void fuzz_enlist(struct fuzz_target *t)
{
	struct fuzz_target **at = &targets;
	while (*at && strcmp((*at)->name, t->name) < 0)
		at = &(*at)->next;
	t->next = *at;
	*at = t;
}

const struct fuzz_target *fuzz_targets(void)
{
	return targets;
}

/* Not ours to mend: libfyaml (0.7.12) drops the buffer of a quoted scalar when what follows it is broken, HDF5
 * (1.10.8) what it had of an object that it then refuses. */
const char *__lsan_default_suppressions(void);
const char *__lsan_default_suppressions(void)
{
	return "leak:libfyaml\nleak:libhdf5\n";
}

/* ---- expectations ----------------------------------------------------------------------------- */

void fuzz_expect(bool holds, const char *what)
{
	if (holds)
		return;
	fprintf(stderr, "fuzz: expected that %s\n", what);
	abort();
}

static bool is_one_line(const char *s)
{
	if (!*s)
		return false;
	for (; *s; s++)
		if ((unsigned char)*s < 0x20 || *s == 0x7f)
			return false;
	return true;
}

bool fuzz_told(int rc, const struct nx_err *err)
{
	if (rc == 0) {
		fuzz_tally.accepted++;
		return true;
	}
	fuzz_tally.refused++;
	if (getenv("NEXUS_FUZZ_SAY"))
		fprintf(stderr, "  %s\n", err->msg);
	if (rc > 0 || err->code != rc || !is_one_line(err->msg))
		fprintf(stderr, "fuzz: refused with %d, code %d, '%s'\n", rc, err->code, err->msg);
	fuzz_expect(rc < 0, "a refusal is negative");
	fuzz_expect(err->code == rc, "a refusal's code is in err, too");
	fuzz_expect(is_one_line(err->msg), "a refusal is one line without control bytes");
	return false;
}

void fuzz_touch(const void *data, size_t size)
{
	const volatile uint8_t *p = data;
	uint8_t sum = 0;
	for (size_t i = 0; i < size; i++)
		sum ^= p[i];
	(void)sum;
}

/* ---- files ------------------------------------------------------------------------------------ */

static char dir_path[256];

static int remove_entry(const char *path, const struct stat *st, int kind, struct FTW *f)
{
	(void)st, (void)kind, (void)f;
	return remove(path);
}

static pid_t owner;

static void remove_dir(void)
{
	if (getpid() == owner) /* a child of a test must leave its parent's alone */
		nftw(dir_path, remove_entry, 8, FTW_DEPTH | FTW_PHYS);
}

const char *fuzz_dir(void)
{
	const char *given = getenv("NEXUS_FUZZ_TMP"), *tmp = getenv("TMPDIR");
	if (dir_path[0] && owner == getpid())
		return dir_path;
	const char *in = given && *given                 ? given
	                 : access("/dev/shm", W_OK) == 0 ? "/dev/shm"
	                 : tmp && *tmp                   ? tmp
	                                                 : "/tmp";
	snprintf(dir_path, sizeof(dir_path), "%s/nexus-fuzz-XXXXXX", in);
	if (!mkdtemp(dir_path)) {
		fprintf(stderr, "fuzz: cannot make %s: %s\n", dir_path, strerror(errno));
		abort();
	}
	if (!owner)
		atexit(remove_dir);
	owner = getpid();
	return dir_path;
}

static void write_all(int fd, const uint8_t *p, size_t n)
{
	while (n) {
		ssize_t done = write(fd, p, n);
		if (done < 0 && errno == EINTR)
			continue;
		if (done <= 0) {
			fprintf(stderr, "fuzz: cannot write in %s: %s\n", dir_path,
			        strerror(errno));
			abort();
		}
		p += done;
		n -= (size_t)done;
	}
}

const char *fuzz_file(const char *name, const void *data, size_t size)
{
	static char paths[16][512];
	static unsigned next;
	char *path = paths[next++ % 16];
	const char *slash = strchr(name, '/');
	if (slash) {
		snprintf(path, sizeof(paths[0]), "%s/%.*s", fuzz_dir(), (int)(slash - name), name);
		if (mkdir(path, 0700) && errno != EEXIST)
			fuzz_expect(false, "a folder can be made");
	}
	snprintf(path, sizeof(paths[0]), "%s/%s", fuzz_dir(), name);
	int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
	if (fd < 0) {
		fprintf(stderr, "fuzz: cannot write %s: %s\n", path, strerror(errno));
		abort();
	}
	write_all(fd, data, size);
	close(fd);
	return path;
}

const char *fuzz_exe_dir(void)
{
	static char dir[1024];
	const char *build = getenv("NEXUS_BUILD");
	if (build && *build)
		return build;
	if (!dir[0]) {
		ssize_t n = readlink("/proc/self/exe", dir, sizeof(dir) - 1);
		dir[n > 0 ? n : 0] = '\0';
		char *slash = strrchr(dir, '/');
		if (slash)
			*slash = '\0';
	}
	return dir;
}

/* Kept for good: there are as many as there are names in the targets. */
const uint8_t *fuzz_seed(const char *name, size_t *size)
{
	static struct seed {
		const char *name;
		uint8_t *data;
		size_t size;
	} seeds[16];
	struct seed *s = seeds;
	struct nx_err err = {0};
	char path[2048];
	const char *source = getenv("NEXUS_SOURCE");
	for (; s->name && strcmp(s->name, name) != 0; s++)
		;
	if (!s->name) {
		if (source && *source)
			snprintf(path, sizeof(path), "%s/harness/test/fuzz/corpus/%s", source,
			         name);
		else
			snprintf(path, sizeof(path), "%s/corpus/%s", fuzz_exe_dir(), name);
		if (nx_test_read_file(path, &s->data, &s->size, &err))
			fuzz_expect(false, err.msg);
		s->name = name;
	}
	*size = s->size;
	return s->data;
}

/* ---- values ----------------------------------------------------------------------------------- */

uint8_t fuzz_u8(struct fuzz_bytes *b)
{
	return b->at < b->end ? *b->at++ : 0;
}

uint32_t fuzz_u32(struct fuzz_bytes *b)
{
	uint32_t v = 0;
	for (int i = 0; i < 4; i++)
		v |= (uint32_t)fuzz_u8(b) << 8 * i;
	return v;
}

double fuzz_double(struct fuzz_bytes *b)
{
	uint64_t v = fuzz_u32(b);
	double d;
	v |= (uint64_t)fuzz_u32(b) << 32;
	memcpy(&d, &v, sizeof(d));
	return d;
}

char *fuzz_text(struct fuzz_bytes *b)
{
	size_t left = (size_t)(b->end - b->at);
	const uint8_t *nul = left ? memchr(b->at, 0, left) : NULL;
	size_t n = nul ? (size_t)(nul - b->at) : left;
	char *s = malloc(n + 1);
	fuzz_expect(s != NULL, "there is memory");
	if (n)
		memcpy(s, b->at, n);
	s[n] = '\0';
	b->at += n + (nul != NULL);
	return s;
}
