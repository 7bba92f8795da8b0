/* SPDX-License-Identifier: Apache-2.0
 *
 * measure/doctor.h: is this machine fit to measure on? One function a check; each says what it found, what is
 * lacking, what that costs the figures, and the command that mends it.
 *
 * Facts come from files under root + "/proc", "/sys", "/dev", so that a test can give a machine of its own.
 * What files cannot say (opening counters, loading a backend, syncing a file) is tried only when root is "".
 * Texts of files are cut, and stripped of control characters; a file that is not there or not understood
 * never fails a check, it is said to be unknown. Threads: one.
 */
#ifndef NEXUS_MEASURE_DOCTOR_H
#define NEXUS_MEASURE_DOCTOR_H

#include <stdbool.h>
#include <stddef.h>

#include "nexus/err.h"

/* X(ID, name) */
#define NX_CHECK_STATES(X)                                                                         \
	X(OK, "ok")                                                                                \
	X(WARN, "warn")       /* runs, and the figures pay for it */                               \
	X(MISSING, "missing") /* not there */

enum nx_check_state {
#define X(id, name) NX_CHECK_##id,
	NX_CHECK_STATES(X)
#undef X
};
const char *nx_check_state_name(enum nx_check_state s);

struct nx_check {
	const char *name; /* static */
	enum nx_check_state state;
	bool fatal;                               /* nothing can be run without it */
	char found[NX_ERR_MAX + 64];              /* "2 of 2 processors" */
	char lacks[192], costs[256], remedy[256]; /* "" when all is well */
};

struct nx_doctor {
	const char *root;    /* "" = this machine; a folder with proc, sys, dev for tests */
	const char *exe_dir; /* where backends and techniques are looked for */
	const char *device;  /* "cpu", "cuda:0" */
	const char *results; /* folder of run files */
	const char *path;    /* $PATH; NULL = none */
};

#define NX_CHECKS_MAX 48
/* Runs all checks in the order of the table; returns how many there are. */
size_t nx_doctor_run(const struct nx_doctor *d, struct nx_check out[NX_CHECKS_MAX]);
/* Does a fatal check lack what it needs? */
bool nx_doctor_unfit(const struct nx_check *c, size_t n);

#endif
