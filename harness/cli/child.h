/* SPDX-License-Identifier: Apache-2.0
 *
 * cli/child.h: a worker process as its parent sees it: start, speak, wait with a limit, bury.
 *
 * The child is this very program with the hidden verb `__worker`. It dies with its parent, inherits no
 * descriptor but its socket, and its stdout and stderr end in a buffer here, whose last line goes into the
 * cause of a crash. One thread.
 */
#ifndef NEXUS_CLI_CHILD_H
#define NEXUS_CLI_CHILD_H

#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "nexus/err.h"

struct nx_child {
	pid_t pid; /* 0 = none */
	int fd, err_fd;
	char *line; /* bytes received and not yet a whole line */
	size_t len, cap;
	char tail[2048]; /* end of what it wrote on stderr; NUL-terminated */
	size_t n_tail;
	int wait_status;    /* once it is dead */
	bool killed;        /* by us */
	uint64_t oom_kills; /* nx_oom_kills() when it was started */
};

enum nx_heard {
	NX_HEARD_MESSAGE,
	NX_HEARD_DEATH,   /* see nx_child_death */
	NX_HEARD_TIMEOUT, /* the child is still alive */
	NX_HEARD_SIGNAL,  /* SIGINT or SIGTERM came to us; the child is still alive */
	NX_HEARD_GARBAGE, /* no JSON: treat like a crash */
};

/* From now on SIGINT and SIGTERM are only noticed while a child is waited for. */
void nx_child_catch_signals(void);
/* The signal that was noticed, or 0. */
int nx_child_signal(void);

/* path and sets: the experiment, as given to nx_experiment_load. *c is initialised here. */
int nx_child_start(struct nx_child *c, const char *path, const char *const *sets, size_t n_sets,
                   struct nx_err *err);
bool nx_child_alive(const struct nx_child *c);
/* Steals msg. A dead child is no error here: the next nx_child_hear says so. */
int nx_child_say(struct nx_child *c, json_t *msg, struct nx_err *err);
/* The next line. *out is the caller's (MESSAGE only). After DEATH the child is buried. Time in which this
 * process itself was stopped does not count. */
enum nx_heard nx_child_hear(struct nx_child *c, double timeout_s, json_t **out);
/* Kills it if it lives, and buries it. Fine for one that was never started. */
void nx_child_stop(struct nx_child *c);
/* Was a buried child killed for want of memory? By somebody else's SIGKILL, that is, while the kernel
 * counted one of its own; where that count cannot be read any foreign SIGKILL is taken for it. */
bool nx_child_starved(const struct nx_child *c);
/* By somebody's SIGKILL, then, for another reason? */
bool nx_child_slain(const struct nx_child *c);
/* How a buried child ended: "ended by signal 11 (Segmentation fault)", and what it said last. */
const char *nx_child_death(const struct nx_child *c, char *buf, size_t size);

#endif
