/* SPDX-License-Identifier: Apache-2.0 */
/* See gnuplot.h. */
#include "present/gnuplot.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#define NO_GNUPLOT 127

int nx_tempdir_init(struct nx_tempdir *t, struct nx_err *err)
{
	const char *base = getenv("TMPDIR");
	int n = snprintf(t->path, sizeof(t->path), "%s/nexus-plot-XXXXXX",
	                 base && base[0] ? base : "/tmp");
	if (n < 0 || (size_t)n >= sizeof(t->path)) {
		t->path[0] = 0;
		return nx_fail(err, NX_EENV,
		               "$TMPDIR is too long for a temporary folder; set a shorter one");
	}
	if (!mkdtemp(t->path)) {
		int rc = nx_fail(err, NX_EENV,
		                 "%s: no temporary folder can be made: %s; set TMPDIR to a folder "
		                 "that can be written",
		                 t->path, strerror(errno));
		t->path[0] = 0;
		return rc;
	}
	return 0;
}

static int join(char *buf, size_t size, const struct nx_tempdir *t, const char *name,
                struct nx_err *err)
{
	int n = snprintf(buf, size, "%s/%s", t->path, name);
	return n > 0 && (size_t)n < size ? 0
	                                 : nx_fail(err, NX_EBUG, "name of temporary file too long");
}

void nx_tempdir_release(struct nx_tempdir *t)
{
	DIR *dir = t->path[0] ? opendir(t->path) : NULL;
	if (!dir)
		return;
	for (struct dirent *e = readdir(dir); e; e = readdir(dir)) {
		char path[1024];
		if (strcmp(e->d_name, ".") != 0 && strcmp(e->d_name, "..") != 0 &&
		    !join(path, sizeof(path), t, e->d_name, NULL))
			unlink(path);
	}
	closedir(dir);
	rmdir(t->path);
	t->path[0] = 0;
}

int nx_tempdir_put(const struct nx_tempdir *t, const char *name, const struct nx_text *text,
                   struct nx_err *err)
{
	char path[1024];
	int rc = join(path, sizeof(path), t, name, err);
	return rc ? rc : nx_text_save(text, path, err);
}

int nx_tempdir_get(const struct nx_tempdir *t, const char *name, struct nx_text *text,
                   struct nx_err *err)
{
	char path[1024];
	int rc = join(path, sizeof(path), t, name, err);
	return rc ? rc : nx_text_load(text, path, err);
}

int nx_tempdir_link(const struct nx_tempdir *t, const char *name, const char *target,
                    struct nx_err *err)
{
	char path[1024];
	int rc = join(path, sizeof(path), t, name, err);
	if (rc == 0 && symlink(target, path) != 0)
		rc = nx_fail(err, NX_EIO, "%s: no link can be made there: %s", t->path,
		             strerror(errno));
	return rc;
}

/* In the child; only calls that are safe after fork. */
static void become_gnuplot(const char *program, const char *dir, const char *script)
{
	int null = open("/dev/null", O_RDWR);
	int log = chdir(dir) == 0 ? open("stderr.txt", O_WRONLY | O_CREAT | O_TRUNC, 0600) : -1;
	if (null < 0 || log < 0)
		_exit(1);
	dup2(null, 0);
	dup2(log, 1);
	dup2(log, 2);
	/* The user's start-up file must not change our pictures. */
	execlp(program, program, "--default-settings", script, (char *)NULL);
	_exit(NO_GNUPLOT);
}

int nx_gnuplot_run(const struct nx_tempdir *t, const char *script, struct nx_text *notes,
                   struct nx_err *err)
{
	const char *program = getenv("NEXUS_GNUPLOT");
	program = program && program[0] ? program : "gnuplot";
	pid_t pid = fork();
	if (pid == 0)
		become_gnuplot(program, t->path, script);
	if (pid < 0)
		return nx_fail(err, NX_EENV, "gnuplot cannot be started: %s", strerror(errno));
	int status = 0;
	while (waitpid(pid, &status, 0) < 0)
		if (errno != EINTR)
			return nx_fail(err, NX_EENV, "gnuplot was lost: %s", strerror(errno));
	if (WIFEXITED(status) && WEXITSTATUS(status) == NO_GNUPLOT)
		return nx_fail(
			err, NX_EENV,
			"the program '%s' that draws plots is not installed; install the "
			"package gnuplot-nox (Debian, Ubuntu), or set NEXUS_GNUPLOT to its path",
			program);
	size_t before = notes->len;
	int rc = nx_tempdir_get(t, "stderr.txt", notes, err);
	if (rc)
		return rc;
	if (WIFEXITED(status) && WEXITSTATUS(status) == 0)
		return 0;
	const char *said = notes->len > before ? notes->s + before : "it said nothing";
	return nx_fail(err, NX_EIO, "gnuplot failed on its script: %.300s",
	               said + strspn(said, "\n "));
}
