/* SPDX-License-Identifier: Apache-2.0
 *
 * verb_run.c: `nexus run`: the parent of a sweep. It never touches the device.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "cli/cli.h"
#include "cli/output.h"
#include "measure/stats.h"

#define CALIBRATE_S 2.0
#define CALIBRATE_DRY_S 0.5

struct run_args {
	struct nx_strings sets, files;
	const char *output;
	bool dry_run, resume, force;
};

/* What is said of the order of cells beside the facts of the machine. */
static int add_fact(struct nx_run_head *head, const char *key, const char *value,
                    struct nx_err *err)
{
	struct nx_fact *f = realloc(head->facts, (head->n_facts + 1) * sizeof(*f));
	if (!f)
		return nx_fail(err, NX_ENOMEM, "no memory for the run's facts");
	head->facts = f;
	snprintf(f[head->n_facts].key, sizeof(f->key), "%s", key);
	snprintf(f[head->n_facts].value, sizeof(f->value), "%s", value);
	head->n_facts++;
	return 0;
}

static int make_head(const struct nx_crew *crew, const struct nx_shape *shape, int argc,
                     char **argv, struct nx_run_head *head, struct nx_err *err)
{
	const struct nx_experiment *x = crew->x;
	*head = (struct nx_run_head){
		.name = x->name,
		.question = x->question,
		.config_text = x->text,
		.calibration = crew->calibration,
		.device = crew->device,
		.shape = *shape,
		.min_effect = x->min_effect,
		.reference = x->reference,
	};
	char order[128];
	if (x->order == NX_ORDER_SORTED)
		snprintf(order, sizeof(order), "sorted: each round as the sweep lists them");
	else
		snprintf(order, sizeof(order),
		         "each round: Fisher-Yates, SplitMix64, seed %llu ^ golden x (round + 1)",
		         (unsigned long long)x->workload.seed);
	int rc = nx_facts_collect(&head->facts, &head->n_facts, x, argc, argv, err);
	return rc ? rc : add_fact(head, "cell_order", order, err);
}

/* The end of a sweep that did not reach its end: the shards stay. */
/* Limits from the environment: a typo must not switch one off. */
static int check_environment(struct nx_err *err)
{
	static const char *const numbers[] = {"NEXUS_CALIBRATE", "NEXUS_MAX_OTHER_LOAD"};
	const char *limit = getenv("NEXUS_MEMORY_LIMIT");
	uint64_t bytes;
	if (limit && (nx_parse_size(limit, &bytes) || !bytes))
		return nx_fail(err, NX_EINVAL,
		               "NEXUS_MEMORY_LIMIT is \"%s\"; legal: a size such as 512MiB", limit);
	for (size_t i = 0; i < sizeof(numbers) / sizeof(numbers[0]); i++) {
		const char *text = getenv(numbers[i]);
		char *end = NULL;
		double v = text ? strtod(text, &end) : 0;
		if (text && (end == text || *end || !(v >= 0 && v < 1e6)))
			return nx_fail(err, NX_EINVAL, "%s is \"%s\"; legal: a number from 0",
			               numbers[i], text);
	}
	return 0;
}

static int interrupted(const struct run_args *a, const char *output,
                       const struct nx_sweep_result *r)
{
	nx_say("interrupted after %zu trials; go on with: nexus run %s --resume -o %s",
	       r->n_run + r->n_kept, a->files.v[0], output);
	return NX_EXIT_CELL_FAILED;
}

static int sweep(const struct run_args *a, struct nx_crew *crew, const struct nx_shape *shape,
                 const char *output, int argc, char **argv)
{
	struct nx_err err = {0};
	struct nx_run_head head = {0};
	struct nx_shards *shards = NULL;
	struct nx_sweep_result result = {0};
	size_t n_cells;
	const struct nx_cell *cells = nx_experiment_cells(crew->x, &n_cells);
	int status = NX_EXIT_DONE;
	fprintf(stderr, "%s: %zu cells, up to %d rounds, %s\n", crew->x->name, n_cells,
	        crew->x->trials.max, output);
	if (crew->x->trials.max < NX_VERDICT_ROUNDS && crew->x->n_stacks > 1)
		nx_say("verdicts take %d rounds: with trials: %d none will be given",
		       NX_VERDICT_ROUNDS, crew->x->trials.max);
	int rc = nx_crew_start(crew, &err);
	if (!rc)
		rc = make_head(crew, shape, argc, argv, &head, &err);
	if (!rc)
		rc = nx_shards_open(&shards, output, &head, a->resume, a->force, &err);
	if (!rc)
		rc = nx_sweep_run(crew, shards, &result, &err);
	nx_crew_stop(crew);
	if (rc && nx_child_signal() && shards) {
		status = interrupted(a, output, &result);
		goto out;
	}
	if (!rc)
		rc = nx_run_merge(shards, output, &head, cells, n_cells, &err);
	if (!rc)
		rc = nx_output_summary(output, &err);
	if (rc) {
		status = nx_say_err(&err);
		if (shards)
			nx_say("finished trials are kept; when that is put right: nexus run %s --resume -o %s",
			       a->files.v[0], output);
		goto out;
	}
	if (result.n_failed) {
		nx_say("%zu of %zu cells failed", result.n_failed, n_cells);
		status = NX_EXIT_CELL_FAILED;
	} else if (!result.n_figures) {
		nx_say("no cell gave figures: all %zu were skipped, see above", n_cells);
		status = NX_EXIT_CELL_FAILED;
	}
	printf("%s\n", output);
out:
	nx_shards_close(shards);
	free(head.facts);
	return status;
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
		rc = check_environment(&err);
	const char *seconds = getenv("NEXUS_CALIBRATE");
	struct nx_crew crew = {
		.x = x,
		.path = a->files.v[0],
		.sets = a->sets.v,
		.n_sets = a->sets.n,
		.calibrate_s = seconds      ? strtod(seconds, NULL)
	                       : a->dry_run ? CALIBRATE_DRY_S
	                                    : CALIBRATE_S,
		.child = {.fd = -1, .err_fd = -1},
	};
	if (rc) {
		status = nx_say_err(&err);
	} else {
		nx_child_catch_signals();
		if (!a->dry_run) {
			status = sweep(a, &crew, nx_model_shape(model), output, argc, argv);
		} else {
			rc = nx_crew_start(&crew, &err);
			if (!rc)
				rc = nx_output_forecast(&crew, nx_model_shape(model), &err);
			status = rc ? nx_say_err(&err) : NX_EXIT_DONE;
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
		{"force", NX_OPT_FLAG, &a.force, NULL,
	         "resume though something changed, or replace OUT.h5"},
		{0},
	};
	const struct nx_opts o = {
		.usage = "run FILE [options]",
		.summary =
			"Runs every cell of an experiment and writes one run file; its path goes to stdout.\n"
			"Ctrl-C keeps the finished trials; --resume goes on from there.\n\n"
			"NEXUS_MEMORY_LIMIT=8GiB limits the worker's memory; NEXUS_MAX_OTHER_LOAD=0.5 is how many\n"
			"cores others may take before a trial counts as throttled; NEXUS_CALIBRATE=2 is how many\n"
			"seconds the device's peaks are measured for (0: utilisation stays unknown).",
		.example =
			"  nexus run experiments/quick.yaml --set sweep.batch_size=1,4 -o results/quick.h5",
		.opts = opts,
		.min_args = 1,
		.max_args = 1,
	};
	int status = nx_opts_parse(&o, argc, argv, &a.files);
	if (status < 0)
		status = run(&a, argc, argv);
	nx_opts_release(&o, &a.files);
	return status;
}
