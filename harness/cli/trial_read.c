/* SPDX-License-Identifier: Apache-2.0
 *
 * trial_read.c: reads strangers' files as nx_run_read and nx_experiment_load do, once on trial before. See cli.h.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/guard.h"
#include "cli/cli.h"
#include "measure/experiment.h"
#include "record/run.h"

static int crashed(const char *path, const char *what, int how, struct nx_err *err)
{
	char by[64] = "ended the program";
	if (how > 0)
		snprintf(by, sizeof(by), "crashed with signal %d (%s)", how, strsignal(how));
	return nx_fail(err, NX_EFORMAT,
	               "%.300s: the library that reads it %s; legal: %s that is not damaged", path,
	               by, what);
}

static void try_run(void *path)
{
	struct nx_run *run = NULL;
	struct nx_err err = {0};
	if (!nx_run_read(&run, path, &err))
		nx_run_destroy(run);
}

int nx_cli_read_run(struct nx_run **out, const char *path, struct nx_err *err)
{
	int how = nx_guard(try_run, (void *)(uintptr_t)path);
	return how ? crashed(path, "a run file", how, err) : nx_run_read(out, path, err);
}

struct loading {
	const char *path;
	const struct nx_strings *sets;
};

static void try_experiment(void *ctx)
{
	const struct loading *l = ctx;
	struct nx_experiment *x = NULL;
	struct nx_err err = {0};
	if (!nx_experiment_load(&x, l->path, l->sets->v, l->sets->n, nx_exe_dir(), &err))
		nx_experiment_destroy(x);
}

int nx_cli_load_experiment(struct nx_experiment **out, const char *path,
                           const struct nx_strings *sets, struct nx_err *err)
{
	struct loading l = {path, sets};
	int how = nx_guard(try_experiment, &l);
	if (how)
		return crashed(path, "YAML 1.2", how, err);
	return nx_experiment_load(out, path, sets->v, sets->n, nx_exe_dir(), err);
}
