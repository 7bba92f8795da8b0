/* SPDX-License-Identifier: Apache-2.0
 *
 * worker.c: the process that holds the model and the device and runs trials for its parent. It may crash,
 * hang or run out of memory: the parent writes that down. What it says and hears: wire.h.
 */
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <unistd.h>

#include "cli/cli.h"
#include "cli/limit.h"
#include "cli/wire.h"
#include "measure/quality.h"
#include "measure/workload.h"
#include "record/run.h"

struct worker {
	int fd;
	struct nx_experiment *x;
	const struct nx_cell *cells;
	size_t n_cells;
	struct nx_model *model;
	struct nx_device dev;
	bool dev_open, dry;
	struct nx_weights *weights;
	struct nx_perf perf;
	struct nx_runner *runner;
	struct nx_runner_config cfg;
	struct nx_workload *workload;
	char held_out[4096]; /* texts of the quality pass; "" = none */
};

/* How often this process was let go on after a stop. */
static volatile sig_atomic_t n_continued;

static void on_continue(int sig)
{
	(void)sig;
	n_continued++;
}

static void tell_phase(void *ctx, const char *name)
{
	struct worker *w = ctx;
	(void)nx_wire_send(w->fd, json_pack("{s:s}", "phase", name), NULL);
}

static int open_device(struct worker *w, struct nx_err *err)
{
	const struct nx_experiment *x = w->x;
	uint64_t limit = nx_memory_limit();
	int rc = nx_model_open(&w->model, x->model, err);
	if (rc)
		return rc;
	nx_perf_open(&w->perf); /* before the device starts its threads, or they are not counted */
	const struct nx_device_config dc = {
		.n_threads = x->threads, .dtype = x->dtype, .invariant = x->invariant};
	rc = nx_device_open(&w->dev, x->device, &dc, nx_exe_dir(), err);
	if (rc)
		return rc;
	w->dev_open = true;
	struct nx_device_info info;
	w->dev.ops->info(w->dev.dev, &info);
	uint64_t fits = info.free_bytes ? info.free_bytes : info.mem_bytes;
	if ((info.caps & NX_DEV_HOST_MEMORY) && limit && limit < fits)
		fits = limit;
	const char *load = getenv("NEXUS_MAX_OTHER_LOAD");
	bool texts = nx_quality_find(nx_exe_dir(), w->held_out, sizeof(w->held_out));
	w->cfg = (struct nx_runner_config){
		.shape = nx_model_shape(w->model),
		.dev = &w->dev,
		.random_weights = nx_model_is_random(w->model),
		.dtype = x->dtype,
		.invariant = x->invariant,
		.samples = x->workload.samples,
		.kv_budget_bytes = x->kv_budget_bytes,
		.fits_bytes = fits,
		.slo = x->slo,
		.load_other_max = load ? strtod(load, NULL) : 0,
		.perf = &w->perf,
		.tokenizer = nx_model_tokenizer(w->model),
		.held_out = texts ? w->held_out : NULL,
		.phase = tell_phase,
		.phase_ctx = w,
	};
	return 0;
}

/* Does a stack pack the weights itself? */
static bool packs(const struct worker *w)
{
	for (size_t i = 0; i < w->n_cells; i++)
		if (nx_stack_slot(&w->cells[i].stack->stack, NX_SLOT_WEIGHTS))
			return true;
	return false;
}

/* Forecasts need no weights; and where they do not fit, every cell is skipped by its forecast, unless it packs them:
 * then each engine loads what it needs. */
static int load_weights(struct worker *w, struct nx_err *err)
{
	int rc = nx_weights_plan(&w->weights, w->model, &w->dev, w->x->dtype, err);
	bool lazy = packs(w);
	if (rc || w->dry ||
	    (!lazy && w->cfg.fits_bytes && nx_weights_bytes(w->weights) > w->cfg.fits_bytes))
		return rc;
	nx_weights_destroy(w->weights);
	w->weights = NULL;
	if (lazy)
		return nx_weights_start(&w->weights, w->model, &w->dev, w->x->dtype, err);
	return nx_weights_create(&w->weights, w->model, &w->dev, w->x->dtype, err);
}

static int op_start(struct worker *w, const json_t *msg, struct nx_err *err)
{
	int rc = open_device(w, err);
	if (rc)
		return rc;
	w->cfg.perf_by_phase = json_is_true(json_object_get(msg, "profile"));
	w->dry = json_is_true(json_object_get(msg, "dry"));
	double seconds = json_number_value(json_object_get(msg, "calibrate"));
	nx_unwire_calibration(json_object_get(msg, "calibration"), &w->cfg.calibration);
	if (seconds > 0)
		rc = w->dev.ops->calibrate(w->dev.dev, seconds, &w->cfg.calibration, err);
	if (!rc)
		rc = nx_workload_open(&w->workload, &w->x->workload, nx_model_tokenizer(w->model),
		                      nx_model_shape(w->model)->vocab, err);
	if (!rc)
		rc = load_weights(w, err);
	if (rc)
		return rc;
	w->cfg.weights = w->weights;
	rc = nx_runner_create(&w->runner, &w->cfg, err);
	if (rc)
		return rc;
	struct nx_device_info info;
	char note[256];
	w->dev.ops->info(w->dev.dev, &info);
	nx_workload_note(w->workload, note, sizeof(note));
	return nx_wire_send(w->fd,
	                    json_pack("{s:b, s:b, s:o, s:o, s:I, s:s, s:o}", "ready", 1,
	                              "instruments", w->dev.ops->instruments != NULL, "device",
	                              nx_wire_device(&info), "calibration",
	                              nx_wire_calibration(&w->cfg.calibration), "fits",
	                              (json_int_t)w->cfg.fits_bytes, "perf", w->perf.reason, "note",
	                              nx_wire_text(note)),
	                    err);
}

static const struct nx_cell *cell_of(struct worker *w, const json_t *msg, struct nx_err *err)
{
	json_int_t i = json_integer_value(json_object_get(msg, "cell"));
	const char *id = json_string_value(json_object_get(msg, "id"));
	json_int_t batch = json_integer_value(json_object_get(msg, "batch"));
	if (i >= 0 && (size_t)i < w->n_cells && id && !strcmp(id, w->cells[i].id)) {
		/* What an earlier worker, or an earlier run, found holds for all trials of the cell. */
		if (batch > 0 && batch <= NX_BATCH_MAX)
			nx_experiment_settle(w->x, (size_t)i, (int32_t)batch);
		return &w->cells[i];
	}
	nx_fail(err, NX_EINVAL, "cell %lld is another one now: %s changed while the sweep ran",
	        (long long)i, w->x->path);
	return NULL;
}

/* The forecast, and with it the batch size of a cell that asks for the largest. */
static void forecast(struct worker *w, const struct nx_cell *cell, struct nx_forecast *f)
{
	if (cell->batch_size != NX_BATCH_FIT) {
		nx_runner_forecast(&w->cfg, cell, f);
		return;
	}
	int32_t batch_size = nx_runner_fit(&w->cfg, cell, f);
	f->batch_size = batch_size;
	if (batch_size > 0)
		nx_experiment_settle(w->x, cell->index, batch_size);
}

static bool is_read(const struct nx_cell *c)
{
	return c->seq_len.kind == NX_DIST_DATASET || c->seq_len.kind == NX_DIST_TRACE ||
	       c->output_len.kind == NX_DIST_DATASET || c->output_len.kind == NX_DIST_TRACE;
}

/* Lengths that are read are known from the requests alone: those of the first round. */
static void look_ahead(struct worker *w, const struct nx_cell *cell, struct nx_forecast *f)
{
	struct nx_request_set set = {0};
	struct nx_err why = {0};
	int rc = nx_workload_requests(w->workload, cell, 0, &set, &why);
	if (rc) {
		f->code = rc;
		snprintf(f->reason, sizeof(f->reason), "%s", why.msg);
	}
	for (size_t i = 0; i < set.n; i++) {
		f->mean_in += (double)set.reqs[i].n_prompt / (double)set.n;
		f->mean_out += (double)set.reqs[i].max_out / (double)set.n;
	}
	nx_request_set_release(&set);
}

static int op_forecast(struct worker *w, const json_t *msg, struct nx_err *err)
{
	const struct nx_cell *cell = cell_of(w, msg, err);
	if (!cell)
		return NX_EINVAL;
	struct nx_forecast f;
	forecast(w, cell, &f);
	/* A dry run is to find now what a sweep would find after hours: too little text, too. */
	if (!f.code && (w->dry || is_read(cell)))
		look_ahead(w, cell, &f);
	return nx_wire_send(w->fd, json_pack("{s:o}", "forecast", nx_wire_forecast(&f)), err);
}

static int op_trial(struct worker *w, const json_t *msg, struct nx_err *err)
{
	const struct nx_cell *cell = cell_of(w, msg, err);
	const char *dir = json_string_value(json_object_get(msg, "dir"));
	if (!cell || !dir)
		return NX_EINVAL;
	struct nx_runner_job job = {
		.cell = cell,
		.round = (int32_t)json_integer_value(json_object_get(msg, "round")),
		.gate = w->x->gate,
	};
	struct nx_request_set set = {0};
	struct nx_trial t;
	struct nx_err why = {0};
	sig_atomic_t before = n_continued;
	int rc = 0;
	if (cell->batch_size == NX_BATCH_FIT) {
		struct nx_forecast f;
		forecast(w, cell, &f);
		if (f.code)
			rc = nx_fail(&why, f.code, "%s", f.reason);
	}
	if (!rc)
		rc = nx_workload_requests(w->workload, cell, job.round, &set, &why);
	if (rc) {
		/* No batch fits, or the requests of the cell cannot be made: that is the cell's row. */
		nx_trial_init(&t);
		memcpy(t.cell, cell->id, sizeof(t.cell));
		t.cell_index = (int32_t)cell->index;
		t.batch_size = cell->batch_size;
		t.round = job.round;
		t.status = nx_status_of(rc);
		snprintf(t.cause, sizeof(t.cause), "%s", why.msg);
	} else {
		job.reqs = set.reqs;
		job.n_reqs = set.n;
		nx_runner_trial(w->runner, &job, &t);
	}
	if (t.status == NX_STATUS_OK && n_continued != before) {
		t.status = NX_STATUS_THROTTLED;
		snprintf(t.cause, sizeof(t.cause),
		         "the worker was stopped and continued during the trial (Ctrl-Z, SIGSTOP)");
	}
	rc = nx_shard_write_file(dir, &t, err);
	if (!rc)
		rc = nx_wire_send(
			w->fd,
			json_pack("{s:i, s:o}", "status", t.status, "cause", nx_wire_text(t.cause)),
			err);
	nx_trial_release(&t);
	nx_request_set_release(&set);
	return rc;
}

/* The trial's steps are in its shard; one that has none has nothing to look at. */
static int profile(struct worker *w, const struct nx_cell *cell, int32_t round, const char *dir,
                   struct nx_profiled *p, struct nx_err *err)
{
	char path[1400];
	struct nx_trial timed;
	struct nx_request_set set = {0};
	const struct nx_runner_job job = {
		.cell = cell, .round = round, .time_line_ns = w->x->time_line_ns};
	nx_shard_file(path, sizeof(path), dir, cell->id, round);
	int rc = nx_shard_read_file(path, &timed, err);
	if (rc)
		return rc;
	rc = nx_workload_requests(w->workload, cell, round, &set, err);
	if (!rc) {
		struct nx_runner_job j = job;
		j.reqs = set.reqs;
		j.n_reqs = set.n;
		rc = nx_runner_profile(w->runner, &j, w->x->counters, &timed, p);
	}
	nx_request_set_release(&set);
	nx_trial_release(&timed);
	return rc;
}

static int op_profile(struct worker *w, const json_t *msg, struct nx_err *err)
{
	const struct nx_cell *cell = cell_of(w, msg, err);
	const char *dir = json_string_value(json_object_get(msg, "dir"));
	int32_t round = (int32_t)json_integer_value(json_object_get(msg, "round"));
	struct nx_profiled p;
	struct nx_err why = {0};
	if (!cell || !dir || !w->x->counters)
		return NX_EINVAL;
	nx_profiled_init(&p);
	memcpy(p.cell, cell->id, sizeof(p.cell));
	p.round = round;
	int looked = profile(w, cell, round, dir, &p, &why);
	if (looked && why.code) {
		snprintf(p.no_counters, sizeof(p.no_counters), "%s", why.msg);
		snprintf(p.no_trace, sizeof(p.no_trace), "%s", why.msg);
	}
	int rc = nx_profile_shard_write(dir, &p, err);
	if (!rc)
		rc = nx_wire_send(w->fd,
		                  json_pack("{s:i, s:o, s:o}", "status",
		                            looked ? nx_status_of(looked) : NX_STATUS_OK, "cause",
		                            nx_wire_text(p.no_counters), "trace",
		                            nx_wire_text(p.no_trace)),
		                  err);
	nx_profiled_release(&p);
	return rc;
}

static int obey(struct worker *w, const json_t *msg, struct nx_err *err)
{
	const char *op = json_string_value(json_object_get(msg, "op"));
	if (op && !strcmp(op, "start"))
		return op_start(w, msg, err);
	if (op && !strcmp(op, "forecast"))
		return op_forecast(w, msg, err);
	if (op && !strcmp(op, "trial"))
		return op_trial(w, msg, err);
	if (op && !strcmp(op, "profile"))
		return op_profile(w, msg, err);
	return nx_fail(err, NX_EBUG, "the worker was asked for '%s', which it does not know",
	               op ? op : "");
}

static void release(struct worker *w)
{
	nx_runner_destroy(w->runner);
	if (w->weights)
		nx_weights_destroy(w->weights);
	if (w->dev_open)
		nx_device_close(&w->dev);
	nx_perf_close(&w->perf);
	nx_workload_close(w->workload);
	nx_model_close(w->model);
	nx_experiment_destroy(w->x);
}

int nx_verb_worker(int argc, char **argv)
{
	if (argc < 3)
		return NX_EXIT_USAGE;
	int64_t fd = -1;
	if (nx_parse_i64(argv[1], &fd) || fd < 0 || fd > 1024)
		return NX_EXIT_USAGE;
	struct sigaction sa = {.sa_handler = on_continue, .sa_flags = SA_RESTART};
	sigaction(SIGCONT, &sa, NULL);
	prctl(PR_SET_NAME,
	      "nexus-worker"); /* started as /proc/self/exe, it would be called "exe" */
	struct worker w = {.fd = (int)fd, .perf = {.fd = {-1, -1, -1}}};
	struct nx_err err = {0};
	FILE *in = fdopen(dup(w.fd), "re");
	if (!in) {
		nx_say("the worker is for `nexus run` only");
		return NX_EXIT_USAGE;
	}
	int rc = nx_experiment_load(&w.x, argv[2], (const char *const *)argv + 3,
	                            (size_t)(argc - 3), nx_exe_dir(), &err);
	if (!rc)
		w.cells = nx_experiment_cells(w.x, &w.n_cells);
	char *line = NULL;
	size_t cap = 0;
	while (!rc && getline(&line, &cap, in) > 0) {
		json_t *msg = json_loads(line, 0, NULL);
		rc = obey(&w, msg, &err);
		json_decref(msg);
	}
	if (rc)
		(void)nx_wire_send(
			w.fd,
			json_pack("{s:i, s:o}", "error", rc, "message", nx_wire_text(err.msg)),
			NULL);
	free(line);
	fclose(in);
	release(&w);
	return rc ? nx_exit_of(rc) : NX_EXIT_DONE;
}
