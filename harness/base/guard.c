/* SPDX-License-Identifier: Apache-2.0 */
/* See guard.h. */
#include "base/guard.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

enum { RETURNED = 77 };

static void child(void (*fn)(void *), void *ctx)
{
	static const int crashes[] = {SIGSEGV, SIGBUS, SIGABRT, SIGFPE, SIGILL};
	const struct rlimit none = {0, 0};
	int null = open("/dev/null", O_RDWR | O_CLOEXEC);
	(void)setrlimit(RLIMIT_CORE, &none);
	for (size_t i = 0; i < sizeof(crashes) / sizeof(crashes[0]); i++)
		(void)signal(crashes[i], SIG_DFL);
	for (int fd = 0; null >= 0 && fd < 3; fd++)
		(void)dup2(null, fd);
	fn(ctx);
	_exit(RETURNED);
}

int nx_guard(void (*fn)(void *ctx), void *ctx)
{
	int status = 0;
	pid_t pid = fork(), got;
	if (pid < 0)
		return 0;
	if (pid == 0)
		child(fn, ctx);
	while ((got = waitpid(pid, &status, 0)) < 0 && errno == EINTR)
		;
	if (got < 0)
		return 0;
	if (WIFSIGNALED(status))
		return WTERMSIG(status);
	return WIFEXITED(status) && WEXITSTATUS(status) == RETURNED ? 0 : -1;
}
