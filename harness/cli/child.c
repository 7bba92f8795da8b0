/* SPDX-License-Identifier: Apache-2.0
 *
 * child.c: see child.h.
 */
#define _GNU_SOURCE /* pipe2, ppoll */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "cli/child.h"
#include "cli/cli.h"
#include "cli/limit.h"
#include "cli/wire.h"

#define LINE_MAX_BYTES (1u << 20)
#define WORKER_FD 3

static volatile sig_atomic_t noticed;

static void on_signal(int sig)
{
	noticed = sig;
}

void nx_child_catch_signals(void)
{
	struct sigaction sa = {.sa_handler = on_signal};
	sigset_t set;
	sigemptyset(&set);
	sigaddset(&set, SIGINT);
	sigaddset(&set, SIGTERM);
	sigaction(SIGINT, &sa, NULL);
	sigaction(SIGTERM, &sa, NULL);
	sigprocmask(SIG_BLOCK, &set, NULL);
}

int nx_child_signal(void)
{
	return noticed;
}

/* In the child, between fork and exec: only async-signal-safe calls. */
static void become_worker(int sock, int err_fd, pid_t parent, char *const *argv)
{
	prctl(PR_SET_PDEATHSIG, SIGKILL);
	if (getppid() != parent) /* it died before prctl */
		_exit(127);
	/* A Ctrl-C goes to the whole group: the parent decides what becomes of the worker. */
	signal(SIGINT, SIG_IGN);
	signal(SIGTERM, SIG_DFL);
	sigset_t none;
	sigemptyset(&none);
	sigprocmask(SIG_SETMASK, &none, NULL);
	struct rlimit no_core = {0, 0};
	setrlimit(RLIMIT_CORE, &no_core);
	int null = open("/dev/null", O_RDONLY);
	/* Above all that is about to be overwritten. */
	int s = fcntl(sock, F_DUPFD, 10), e = fcntl(err_fd, F_DUPFD, 10);
	if (null < 0 || s < 0 || e < 0)
		_exit(127);
	dup2(null, 0);
	dup2(e, 1);
	dup2(e, 2);
	dup2(s, WORKER_FD);
	long max = sysconf(_SC_OPEN_MAX);
	for (int fd = WORKER_FD + 1; fd < (max > 0 && max < 4096 ? (int)max : 4096); fd++)
		close(fd);
	execv("/proc/self/exe", argv);
	_exit(127);
}

int nx_child_start(struct nx_child *c, const char *path, const char *const *sets, size_t n_sets,
                   struct nx_err *err)
{
	int sock[2] = {-1, -1}, pipe_fd[2] = {-1, -1};
	*c = (struct nx_child){.fd = -1, .err_fd = -1, .oom_kills = nx_oom_kills()};
	char **argv = calloc(n_sets + 5, sizeof(*argv));
	if (!argv)
		return nx_fail(err, NX_ENOMEM, "no memory to start a worker");
	static char verb[] = "__worker", name[] = "nexus", fd_text[] = "3";
	argv[0] = name;
	argv[1] = verb;
	argv[2] = fd_text;
	argv[3] = (char *)(uintptr_t)path; /* execv does not write to its arguments */
	for (size_t i = 0; i < n_sets; i++)
		argv[4 + i] = (char *)(uintptr_t)sets[i];
	pid_t parent = getpid();
	if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, sock) || pipe2(pipe_fd, O_CLOEXEC)) {
		nx_fail(err, NX_EENV, "cannot make a socket for the worker: %s", strerror(errno));
		goto fail;
	}
	fflush(NULL);
	pid_t pid = fork();
	if (pid < 0) {
		nx_fail(err, NX_EENV, "cannot start a worker: fork: %s", strerror(errno));
		goto fail;
	}
	if (pid == 0)
		become_worker(sock[1], pipe_fd[1], parent, argv);
	free(argv);
	close(sock[1]);
	close(pipe_fd[1]);
	fcntl(pipe_fd[0], F_SETFL, O_NONBLOCK);
	c->pid = pid;
	c->fd = sock[0];
	c->err_fd = pipe_fd[0];
	return 0;
fail:
	for (int i = 0; i < 2; i++) {
		if (sock[i] >= 0)
			close(sock[i]);
		if (pipe_fd[i] >= 0)
			close(pipe_fd[i]);
	}
	free(argv);
	return NX_EENV;
}

bool nx_child_alive(const struct nx_child *c)
{
	return c->pid > 0;
}

int nx_child_say(struct nx_child *c, json_t *msg, struct nx_err *err)
{
	if (c->fd < 0) {
		json_decref(msg);
		return nx_fail(err, NX_EBUG, "there is no worker to speak to");
	}
	return nx_wire_send(c->fd, msg, err);
}

/* Keeps the end of what the child writes. */
static void read_tail(struct nx_child *c)
{
	char buf[1024];
	ssize_t n;
	while (c->err_fd >= 0 && (n = read(c->err_fd, buf, sizeof(buf))) != 0) {
		if (n < 0) {
			if (errno == EINTR)
				continue;
			return; /* nothing more for now */
		}
		size_t room = sizeof(c->tail) - 1, add = (size_t)n;
		if (c->n_tail + add > room) {
			size_t drop = c->n_tail + add - room;
			memmove(c->tail, c->tail + drop, c->n_tail - drop);
			c->n_tail -= drop;
		}
		memcpy(c->tail + c->n_tail, buf, add);
		c->n_tail += add;
		c->tail[c->n_tail] = '\0';
	}
	if (c->err_fd >= 0)
		close(c->err_fd);
	c->err_fd = -1;
}

static void bury(struct nx_child *c)
{
	while (c->pid > 0 && waitpid(c->pid, &c->wait_status, 0) < 0 && errno == EINTR)
		;
	c->pid = 0;
	read_tail(c);
	if (c->err_fd >= 0)
		close(c->err_fd);
	if (c->fd >= 0)
		close(c->fd);
	c->fd = c->err_fd = -1;
	free(c->line);
	c->line = NULL;
	c->len = c->cap = 0;
}

void nx_child_stop(struct nx_child *c)
{
	if (c->pid <= 0)
		return;
	kill(c->pid, SIGKILL);
	c->killed = true;
	bury(c);
}

/* 1: a line was taken; 0: none yet; -1: no JSON. */
static int take_line(struct nx_child *c, json_t **out)
{
	char *end = c->len ? memchr(c->line, '\n', c->len) : NULL;
	if (!end)
		return c->len >= LINE_MAX_BYTES ? -1 : 0;
	size_t used = (size_t)(end - c->line) + 1;
	*out = json_loadb(c->line, used - 1, 0, NULL);
	memmove(c->line, c->line + used, c->len - used);
	c->len -= used;
	return *out ? 1 : -1;
}

static double now_s(void)
{
	struct timespec t;
	clock_gettime(CLOCK_MONOTONIC, &t);
	return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

/* Reads what is there; false at the end of the socket. */
static bool receive(struct nx_child *c)
{
	if (c->cap - c->len < 4096) {
		char *more = realloc(c->line, c->cap + 16384);
		if (!more)
			return false;
		c->line = more;
		c->cap += 16384;
	}
	ssize_t n = read(c->fd, c->line + c->len, c->cap - c->len);
	if (n > 0)
		c->len += (size_t)n;
	return n > 0 || (n < 0 && errno == EINTR);
}

/* Longest wait in one piece. What a wait takes beyond what was asked for is not the child's time: we were
 * stopped (Ctrl-Z), and so was the child, most likely. */
#define SLICE_S 1.0

enum nx_heard nx_child_hear(struct nx_child *c, double timeout_s, json_t **out)
{
	double left_s = timeout_s;
	sigset_t none;
	sigemptyset(&none);
	while (c->fd >= 0) {
		int got = take_line(c, out);
		if (got)
			return got > 0 ? NX_HEARD_MESSAGE : NX_HEARD_GARBAGE;
		if (left_s <= 0)
			return NX_HEARD_TIMEOUT;
		double slice_s = left_s < SLICE_S ? left_s : SLICE_S, begin_s = now_s();
		struct pollfd p[2] = {{.fd = c->fd, .events = POLLIN},
		                      {.fd = c->err_fd, .events = POLLIN}};
		struct timespec t = {.tv_sec = (time_t)slice_s,
		                     .tv_nsec = (long)(1e9 * (slice_s - (double)(time_t)slice_s))};
		/* Signals are let in only here, so none is missed between a check and the wait. */
		int n = ppoll(p, 2, &t, &none);
		double spent_s = now_s() - begin_s;
		left_s -= spent_s < slice_s ? spent_s : slice_s;
		if (noticed)
			return NX_HEARD_SIGNAL;
		if (n <= 0)
			continue;
		if (p[1].revents)
			read_tail(c);
		if (p[0].revents && !receive(c))
			break;
	}
	/* The socket is closed: it is dead, or so far gone that it must be. */
	if (c->pid > 0) {
		struct timespec grace = {.tv_nsec = 10000000};
		for (int i = 0; i < 200; i++) {
			if (waitpid(c->pid, &c->wait_status, WNOHANG) == c->pid) {
				c->pid = 0;
				break;
			}
			nanosleep(&grace, NULL);
			read_tail(c);
		}
		if (c->pid > 0)
			nx_child_stop(c);
		bury(c);
	}
	return NX_HEARD_DEATH;
}

/* The last line that is not empty, cut to what a cause has room for. */
static void last_words(const struct nx_child *c, char *buf, size_t size)
{
	size_t end = c->n_tail;
	while (end && (c->tail[end - 1] == '\n' || c->tail[end - 1] == ' '))
		end--;
	size_t begin = end;
	while (begin && c->tail[begin - 1] != '\n')
		begin--;
	char line[sizeof(c->tail)];
	memcpy(line, c->tail + begin, end - begin);
	line[end - begin] = '\0';
	if (end > begin)
		nx_quote(buf, size, line);
	else
		buf[0] = '\0';
}

static bool killed_by_others(const struct nx_child *c)
{
	return WIFSIGNALED(c->wait_status) && WTERMSIG(c->wait_status) == SIGKILL && !c->killed;
}

bool nx_child_starved(const struct nx_child *c)
{
	return killed_by_others(c) &&
	       (c->oom_kills == UINT64_MAX || nx_oom_kills() != c->oom_kills);
}

bool nx_child_slain(const struct nx_child *c)
{
	return killed_by_others(c) && !nx_child_starved(c);
}

const char *nx_child_death(const struct nx_child *c, char *buf, size_t size)
{
	char words[128];
	last_words(c, words, sizeof(words));
	const char *said = words[0] ? "; it said last: " : "";
	if (nx_child_starved(c))
		snprintf(buf, size, "killed by the kernel, most likely for want of memory%s%s",
		         said, words);
	else if (WIFSIGNALED(c->wait_status))
		snprintf(buf, size, "ended by signal %d (%s)%s%s", WTERMSIG(c->wait_status),
		         strsignal(WTERMSIG(c->wait_status)), said, words);
	else
		snprintf(buf, size, "ended with exit status %d%s%s", WEXITSTATUS(c->wait_status),
		         said, words);
	return buf;
}
