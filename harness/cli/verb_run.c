/* SPDX-License-Identifier: Apache-2.0
 *
 * verb_run.c: `nexus run`: the parent of a sweep. It never touches the device.
 */
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "cli/cli.h"
#include "cli/conduct.h"
#include "cli/output.h"
#include "measure/stats.h"

#define CALIBRATE_DRY_S 0.5

struct run_args {
	struct nx_strings sets, files;
	const char *output;
	bool dry_run, resume, finish, force;
};

/* The end of a sweep that did not reach its end: the shards stay. */
static int interrupted(const struct run_args *a, const char *output, size_t n)
{
	if (n)
		nx_say("interrupted after %zu trial%s; go on with: nexus run %s --resume -o %s%s",
		       n, n == 1 ? "" : "s", a->files.v[0], output,
		       a->sets.n ? ", and --set as now" : "");
	else
		nx_say("interrupted before the first trial was done");
	return NX_EXIT_CELL_FAILED;
}

static int summary(void *ctx, const char *path, int *status, struct nx_err *err)
{
	(void)ctx;
	return nx_output_summary(path, status, err);
}

static int sweep(const struct run_args *a, const struct nx_conduct *conduct)
{
	struct nx_err err = {0};
	struct nx_conducted end;
	const struct nx_experiment *x = conduct->crew->x;
	size_t n_cells;
	nx_experiment_cells(x, &n_cells);
	fprintf(stderr, "%s: %zu cell%s, up to %d round%s, %s\n", x->name, n_cells,
	        n_cells == 1 ? "" : "s", x->trials.max, x->trials.max == 1 ? "" : "s",
	        conduct->output);
	if (!a->finish && x->trials.max < NX_VERDICT_ROUNDS && x->n_stacks > 1)
		nx_say("verdicts take %d rounds: with trials: %d none will be given",
		       NX_VERDICT_ROUNDS, x->trials.max);
	int rc = nx_conduct(conduct, &end, &err);
	if (end.interrupted)
		return interrupted(a, conduct->output, end.n_kept);
	if (rc) {
		int status = nx_say_err(&err);
		if (end.n_kept)
			nx_say("finished trials are kept; when that is put right: nexus run %s %s -o %s, and --set as now",
			       a->files.v[0], a->finish ? "--finish" : "--resume", conduct->output);
		return status;
	}
	printf("%s\n", conduct->output);
	return end.status;
}

static int run(const struct run_args *a, int argc, char **argv)
{
	struct nx_err err = {0};
	struct nx_experiment *x = NULL;
	struct nx_model *model = NULL;
	char output[4096] = "";
	int status = NX_EXIT_DONE;
	int rc = 0;
	/* A wrong name on the command line is bad usage, whatever the loader calls it. */
	if (access(a->files.v[0], R_OK))
		rc = nx_fail(&err, NX_EINVAL, "%s: cannot be read: %s", a->files.v[0],
		             strerror(errno));
	if (!rc)
		rc = nx_experiment_load(&x, a->files.v[0], a->sets.v, a->sets.n, nx_exe_dir(),
		                        &err);
	if (!rc)
		rc = nx_model_open(&model, x->model, &err);
	if (!rc && !a->dry_run)
		rc = nx_output_path(a->output, x->name, a->resume, output, sizeof(output), &err);
	if (!rc)
		rc = nx_conduct_check_environment(&err);
	struct nx_crew crew = {
		.x = x,
		.path = a->files.v[0],
		.sets = a->sets.v,
		.n_sets = a->sets.n,
		.dry = a->dry_run,
		.calibrate_s =
			nx_conduct_calibrate_s(a->dry_run ? CALIBRATE_DRY_S : NX_CALIBRATE_S),
		.child = {.fd = -1, .err_fd = -1},
	};
	if (rc) {
		status = nx_say_err(&err);
	} else {
		nx_child_catch_signals();
		if (!a->dry_run) {
			const struct nx_conduct conduct = {
				.crew = &crew,
				.model = model,
				.output = output,
				.resume = a->resume,
				.finish = a->finish,
				.force = a->force,
				.argc = argc,
				.argv = argv,
				.show = summary,
			};
			status = sweep(a, &conduct);
		} else {
			rc = nx_crew_start(&crew, &err);
			if (!rc)
				rc = nx_output_forecast(&crew, nx_model_shape(model), &status,
				                        &err);
			if (rc)
				status = nx_say_err(&err);
		}
		nx_crew_stop(&crew);
	}
	nx_model_close(model);
	nx_experiment_destroy(x);
	return status;
}

int nx_verb_run(int argc, char **argv)
{
	struct run_args a = {0};
	const struct nx_opt opts[] = {
		{"set", NX_OPT_MANY, &a.sets, "KEY=VALUE",
	         "override a key of the file; may be repeated"},
		{"o,output", NX_OPT_TEXT, &a.output, "OUT.h5",
	         "run file (results/<experiment>-<UTC>.h5)"},
		{"dry-run", NX_OPT_FLAG, &a.dry_run, NULL,
	         "print cells, memory and time forecast; run nothing"},
		{"resume", NX_OPT_FLAG, &a.resume, NULL,
	         "go on with -o, or with the newest unfinished run"},
		{"finish", NX_OPT_FLAG, &a.finish, NULL,
	         "run nothing more of it: make the run file of the trials that are there"},
		{"force", NX_OPT_FLAG, &a.force, NULL,
	         "resume though something changed, or replace OUT.h5"},
		{0},
	};
	const struct nx_opts o = {
		.usage = "run FILE [options]",
		.summary =
			"Runs every cell of an experiment and writes one run file; its path goes to stdout.\n"
			"Ctrl-C keeps the finished trials; --resume goes on from there, --finish ends it there.\n\n"
			"NEXUS_MEMORY_LIMIT=8GiB limits the worker's memory; NEXUS_MAX_OTHER_LOAD=0.5 is how many\n"
			"cores others may take before a trial counts as throttled (all: heat is let pass, too);\n"
			"NEXUS_CALIBRATE=2 is how many seconds the device's peaks are measured for (0: utilisation stays\n"
			"unknown).",
		.example =
			"  nexus run experiments/quick.yaml --set sweep.batch_size=1,4 -o results/quick.h5",
		.opts = opts,
		.min_args = 1,
		.max_args = 1,
	};
	int status = nx_opts_parse(&o, argc, argv, &a.files);
	if (status < 0 && a.finish && (a.resume || a.force || a.dry_run)) {
		nx_say("--finish excludes --resume, --force and --dry-run: it runs nothing, and changes nothing but the parts");
		status = NX_EXIT_USAGE;
	} else if (status < 0 && a.finish && !a.output) {
		nx_say("--finish: found no -o; legal: -o OUT.h5 of the interrupted run");
		status = NX_EXIT_USAGE;
	} else if (status < 0) {
		status = run(&a, argc, argv);
	}
	nx_opts_release(&o, &a.files);
	return status;
}
