/* SPDX-License-Identifier: Apache-2.0 */
/* See guard.h. */
#define _GNU_SOURCE /* strsignal */
#include "base/guard.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

enum { RETURNED = 77 };

static bool enabled;

static const int crashes[] = {SIGSEGV, SIGBUS, SIGABRT, SIGFPE, SIGILL};
#define N_CRASHES (sizeof(crashes) / sizeof(crashes[0]))

static void child(void (*fn)(void *), void *ctx, pid_t parent)
{
	const struct rlimit none = {0, 0};
	int null = open("/dev/null", O_WRONLY | O_CLOEXEC);
	(void)prctl(PR_SET_PDEATHSIG, SIGKILL);
	if (getppid() != parent)
		_exit(RETURNED);
	enabled = false;
	(void)setrlimit(RLIMIT_CORE, &none);
	for (size_t i = 0; i < N_CRASHES; i++)
		(void)signal(crashes[i], SIG_DFL);
	for (int fd = 1; null >= 0 && fd < 3; fd++)
		(void)dup2(null, fd);
	fn(ctx);
	_exit(RETURNED);
}

int nx_guard(void (*fn)(void *ctx), void *ctx)
{
	struct sigaction was, wait_for_it = {.sa_handler = SIG_DFL};
	int status = 0;
	pid_t me = getpid(), pid, got = -1;
	/* Where SIGCHLD is ignored, as some parents leave it, there is no status to wait for. */
	if (sigaction(SIGCHLD, &wait_for_it, &was))
		return 0;
	pid = fork();
	if (pid == 0)
		child(fn, ctx, me);
	while (pid > 0 && (got = waitpid(pid, &status, 0)) < 0 && errno == EINTR)
		;
	(void)sigaction(SIGCHLD, &was, NULL);
	if (got < 0)
		return 0;
	if (WIFSIGNALED(status))
		return WTERMSIG(status);
	return WIFEXITED(status) && WEXITSTATUS(status) == RETURNED ? 0 : -1;
}

void nx_guard_enable(void)
{
#ifndef __SANITIZE_ADDRESS__
	enabled = true;
#endif
}

int nx_guard_try(void (*fn)(void *ctx), void *ctx, const char *name, const char *legal,
                 struct nx_err *err)
{
	int how = enabled ? nx_guard(fn, ctx) : 0;
	if (how == 0)
		return 0;
	for (size_t i = 0; i < N_CRASHES; i++)
		if (how == crashes[i])
			return nx_fail(err, NX_EFORMAT,
			               "%.300s: reading it crashed with signal %d (%s); legal: %s",
			               name, how, strsignal(how), legal);
	return nx_fail(err, NX_EFORMAT, "%.300s: reading it was ended by %s%.0d; legal: %s", name,
	               how > 0 ? "signal " : "the library under it", how > 0 ? how : 0, legal);
}
