/* SPDX-License-Identifier: Apache-2.0
 *
 * runner.c: see runner.h.
 */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "engine/clock.h"
#include "measure/gate.h"
#include "measure/instrument.h"
#include "measure/instrument_pass.h"
#include "measure/quality.h"
#include "measure/recorder.h"
#include "measure/runner.h"
#include "measure/start.h"
#include "measure/system.h"
#include "measure/warmup.h"

struct nx_runner {
	struct nx_runner_config cfg;
	struct nx_device_info info;
	struct nx_gate_cache *gates;
	struct nx_quality_bench *quality; /* NULL until it is wanted */
	/* The engine in hand and what it was made for. */
	struct nx_engine *engine;
	struct nx_engine_config made;
	char cell[17];
	struct nx_warmup warmup;
	struct nx_start start;
};

int nx_runner_create(struct nx_runner **out, const struct nx_runner_config *c, struct nx_err *err)
{
	struct nx_runner *r = calloc(1, sizeof(*r));
	if (r)
		r->gates = nx_gate_cache_create();
	if (!r || !r->gates) {
		free(r);
		return nx_fail(err, NX_ENOMEM, "no memory for the runner");
	}
	r->cfg = *c;
	if (r->cfg.load_other_max <= 0)
		r->cfg.load_other_max = NX_LOAD_OTHER_MAX;
	c->dev->ops->info(c->dev->dev, &r->info);
	*out = r;
	return 0;
}

static void drop_engine(struct nx_runner *r)
{
	if (r->engine)
		nx_engine_destroy(r->engine);
	r->engine = NULL;
	r->cell[0] = '\0';
}

void nx_runner_destroy(struct nx_runner *r)
{
	if (!r)
		return;
	drop_engine(r);
	nx_gate_cache_destroy(r->gates);
	nx_quality_destroy(r->quality);
	free(r);
}

int nx_status_of(int code)
{
	switch (code) {
	case 0: return NX_STATUS_OK;
	case NX_ENOMEM: return NX_STATUS_OUT_OF_MEMORY;
	case NX_EFAULT: return NX_STATUS_CRASHED; /* the worker is of no use any more */
	case NX_ESKIP:
	case NX_ENOSPC: /* of the KV pool: the cell cannot fit */
	case NX_ENOTSUP:
	case NX_ECONFLICT: return NX_STATUS_SKIPPED;
	default: return NX_STATUS_FAILED;
	}
}

static void end_with(struct nx_trial *t, int status, const char *cause)
{
	t->status = status;
	snprintf(t->cause, sizeof(t->cause), "%s", cause);
}

static void phase(const struct nx_runner *r, const char *name)
{
	if (r->cfg.phase)
		r->cfg.phase(r->cfg.phase_ctx, name);
}

static struct nx_engine_config engine_config(const struct nx_runner *r, const struct nx_cell *cell,
                                             int32_t longest)
{
	return (struct nx_engine_config){
		.weights = r->cfg.weights,
		.stack = &cell->stack->stack,
		.batch_size = cell->batch_size,
		.samples = r->cfg.samples,
		.max_len = r->cfg.shape->ctx_len,
		.longest_request = longest,
		.longest_prompt = cell->seq_len.max,
		.kv_budget_bytes = r->cfg.kv_budget_bytes,
		.invariant = r->cfg.invariant,
		/* Planning ahead pays only where work runs after the call returns. */
		.plan_ahead = (r->info.caps & NX_DEV_ASYNC) != 0,
	};
}

/* Makes the cell's engine, unless it is the one in hand. */
static int engine_for(struct nx_runner *r, const struct nx_cell *cell, int32_t longest,
                      struct nx_err *err)
{
	if (r->engine && !strcmp(r->cell, cell->id) && r->made.longest_request >= longest)
		return 0;
	drop_engine(r);
	memset(&r->warmup, 0, sizeof(r->warmup));
	r->made = engine_config(r, cell, longest);
	int rc = nx_engine_create(&r->engine, &r->made, err);
	if (rc) {
		r->engine = NULL;
		return rc;
	}
	nx_start_take(&r->start, r->engine);
	snprintf(r->cell, sizeof(r->cell), "%s", cell->id);
	return 0;
}

/* The engine's own defaults claim it; a technique says so by its flag. */
static bool claims_exactness(const struct nx_stack *s)
{
	if (s->n_layers == 0)
		return true;
	for (int32_t i = 0; i < s->n_layers; i++)
		if (s->layers[i].plugin->technique->flags & NX_TECH_EXACT)
			return true;
	return false;
}

static int run_gate(struct nx_runner *r, const struct nx_runner_job *job, struct nx_trial *t,
                    struct nx_err *err)
{
	if (!job->gate || job->round != 0 || !claims_exactness(&job->cell->stack->stack))
		return 0;
	if (r->cfg.random_weights) {
		t->gate.verdict = NX_GATE_RANDOM_WEIGHTS;
		return 0;
	}
	phase(r, "the exactness gate");
	const struct nx_gate_config gc = {
		.cache = r->gates,
		.engine = r->engine,
		.engine_config = &r->made,
		.dtype = r->cfg.dtype,
		.vocab = r->cfg.shape->vocab,
		.reqs = job->reqs,
		.n_reqs = job->n_reqs,
	};
	return nx_gate_run(&gc, &t->gate, err);
}

/* What is only known after the run: memory, counters, counted work, load. */
static void collect(struct nx_runner *r, struct nx_trial *t)
{
	t->n_mem = nx_engine_memory(r->engine, t->mem, NX_TRIAL_MEM_MAX);
	if (t->n_mem > NX_TRIAL_MEM_MAX)
		t->n_mem = NX_TRIAL_MEM_MAX;
	t->n_counters = nx_engine_counters(r->engine, t->counters, NX_TRIAL_COUNTER_MAX);
	if (t->n_counters > NX_TRIAL_COUNTER_MAX)
		t->n_counters = NX_TRIAL_COUNTER_MAX;
}

/* What the run's end says about it beside the trial itself. */
struct aftermath {
	size_t n_lost; /* events that did not fit the record */
	double stolen; /* cores that the hypervisor took; NaN = unknown */
};

static int timed_run(struct nx_runner *r, const struct nx_runner_job *job, struct nx_trial *t,
                     struct aftermath *after_run, struct nx_err *err)
{
	struct nx_recorder rec;
	int rc = nx_recorder_init(&rec, t, job->reqs, job->n_reqs, err);
	if (rc)
		return rc;
	const bool plain = job->cell->stack->unrecorded;
	const struct nx_sink sink =
		plain ? nx_recorder_sink_of_length(&rec) : nx_recorder_sink(&rec);
	struct nx_cpu_sample before, after;
	const struct nx_perf no_perf = {.fd = {-1, -1, -1}};
	const struct nx_perf *perf = r->cfg.perf ? r->cfg.perf : &no_perf;
	int64_t p0[NX_PERF_COUNT], p1[NX_PERF_COUNT];
	int64_t throttled = nx_throttle_count();
	const struct nx_device_ops *ops = r->cfg.dev->ops;
	nx_perf_read(perf, p0);
	nx_cpu_sample(&before);
	ops->counted_reset(r->cfg.dev->dev);
	rec.dev = r->cfg.dev;
	rec.perf = r->cfg.perf_by_phase ? perf : NULL;
	memcpy(rec.last_perf, p0, sizeof(p0));

	struct nx_telemetry_watch *watch = plain ? NULL : nx_telemetry_begin(r->cfg.dev);
	rec.t0_ns = nx_now_ns();
	rc = nx_engine_run(r->engine, job->reqs, job->n_reqs, &sink, err);
	t->duration_ns = nx_now_ns() - rec.t0_ns;
	nx_telemetry_end(watch, &t->device);

	ops->counted(r->cfg.dev->dev, &t->counted);
	nx_cpu_sample(&after);
	nx_perf_read(perf, p1);
	t->load_other = nx_cpu_load_other(&before, &after);
	after_run->stolen = nx_cpu_load_stolen(&before, &after);
	t->perf_cycles = nx_perf_delta(p0[NX_PERF_CYCLES], p1[NX_PERF_CYCLES]);
	t->perf_instructions = nx_perf_delta(p0[NX_PERF_INSTRUCTIONS], p1[NX_PERF_INSTRUCTIONS]);
	t->perf_llc_misses = nx_perf_delta(p0[NX_PERF_LLC_MISSES], p1[NX_PERF_LLC_MISSES]);
	/* Who lets others have all cores does not ask what else slowed them. */
	if (throttled >= 0 && r->cfg.load_other_max < (double)sysconf(_SC_NPROCESSORS_ONLN) &&
	    nx_throttle_count() > throttled)
		end_with(
			t, NX_STATUS_THROTTLED,
			"the CPU throttled itself for heat during the trial; cool the machine and resume");
	after_run->n_lost = rec.n_lost;
	nx_recorder_release(&rec);
	if (!rc)
		collect(r, t);
	return rc;
}

/* Is there something to measure, and somewhere to measure it? */
static bool wants_quality(const struct nx_runner *r, const struct nx_runner_job *job)
{
	return job->gate && r->cfg.tokenizer && r->cfg.held_out && !r->cfg.random_weights &&
	       nx_quality_is_lossy(&job->cell->stack->stack);
}

/* The weights that steps read: as the device has them, and as a technique packed them. */
static bool is_weights(const struct nx_stack *s, const char *owner)
{
	const struct nx_layer *packer = nx_stack_slot(s, NX_SLOT_WEIGHTS);
	return packer && !strcmp(packer->plugin->technique->name, owner);
}

static void compute(struct nx_runner *r, const struct nx_runner_job *job, struct nx_trial *t)
{
	const struct nx_stack *stack = &job->cell->stack->stack;
	struct nx_quality q;
	struct nx_metric_context mc = {
		.slo = r->cfg.slo,
		.calibration = r->cfg.calibration,
		.device_bytes = r->info.mem_bytes,
		.llc_bytes = r->info.llc_bytes,
		.dtype = r->cfg.dtype,
	};
	mc.kv_row_bytes = nx_engine_kv_row_bytes(r->engine);
	mc.working_set_bytes = nx_weights_bytes(r->cfg.weights);
	for (size_t i = 0; i < t->n_mem; i++)
		if (!strcmp(t->mem[i].owner, "kv") || is_weights(stack, t->mem[i].owner))
			mc.working_set_bytes += t->mem[i].peak_used_bytes;
	nx_trial_compute(t, &mc);
	if (wants_quality(r, job) && r->quality && nx_quality_known(r->quality, stack, &q))
		nx_quality_put(&q, t);
}

/* Who it was is looked up only now: whoever disturbs a trial for half a second is mostly still there. */
static void disturbed(const struct nx_runner *r, struct nx_trial *t, double stolen)
{
	char text[NX_ERR_MAX], who[128] = "";
	struct nx_busy busy;
	if (stolen > t->load_other / 2)
		snprintf(
			text, sizeof(text),
			"the hypervisor gave %.2f cores to others during the trial (of %.2f cores taken; limit "
			"%.2f); run on a machine of your own, or when its neighbours are quiet, and resume",
			stolen, t->load_other, r->cfg.load_other_max);
	else {
		if (nx_busiest_other(0.05, &busy))
			snprintf(who, sizeof(who), ", the busiest right after it was %s (pid %d)",
			         busy.name, busy.pid);
		snprintf(
			text, sizeof(text),
			"other processes took %.2f cores during the trial (limit %.2f)%s; stop them and resume",
			t->load_other, r->cfg.load_other_max, who);
	}
	end_with(t, NX_STATUS_THROTTLED, text);
}

double nx_load_slack(double seconds)
{
	double n = (double)sysconf(_SC_NPROCESSORS_ONLN);
	return NX_LOAD_SLACK_S * sqrt(fmax(n, 1)) / seconds;
}

/* In cores; short trials are counted roughly. */
static double load_limit(const struct nx_runner *r, const struct nx_trial *t)
{
	return r->cfg.load_other_max + nx_load_slack((double)t->duration_ns / 1e9);
}

/* What the device said of itself during the run. */
static void judge_device(struct nx_trial *t)
{
	char text[NX_ERR_MAX], why[128];
	if (t->device.throttle > 0 && (t->device.throttle & NX_THROTTLE_DISTURBS)) {
		snprintf(
			text, sizeof(text),
			"the device throttled itself during the trial (%s; %.0f C at most); cool it, "
			"and resume",
			nx_throttle_text(t->device.throttle & NX_THROTTLE_DISTURBS, why,
		                         sizeof(why)),
			t->device.temperature_c);
		end_with(t, NX_STATUS_THROTTLED, text);
	} else if (t->device.other_processes > 0) {
		snprintf(
			text, sizeof(text),
			"%.0f other process%s the device open during the trial; stop %s and resume",
			t->device.other_processes,
			t->device.other_processes == 1 ? " had" : "es had",
			t->device.other_processes == 1 ? "it" : "them");
		end_with(t, NX_STATUS_THROTTLED, text);
	}
}

/* What the finished run says about itself. */
static void judge(const struct nx_runner *r, struct nx_trial *t, const struct aftermath *after_run)
{
	char text[NX_ERR_MAX];
	const size_t n_lost = after_run->n_lost;
	if (t->gate.ran && t->gate.verdict == NX_GATE_FAILED) {
		nx_gate_sentence(&t->gate, text, sizeof(text));
		end_with(t, NX_STATUS_INEXACT, text);
	} else if (n_lost) {
		snprintf(text, sizeof(text),
		         "%zu events of the run did not fit its record; report this", n_lost);
		end_with(t, NX_STATUS_INVALID, text);
	} else if (t->status == NX_STATUS_OK && t->load_other > load_limit(r, t)) {
		disturbed(r, t, after_run->stolen);
	}
	if (t->status == NX_STATUS_OK)
		judge_device(t);
}

static int start_state(struct nx_runner *r, struct nx_trial *t, struct nx_err *err)
{
	nx_engine_reset(r->engine);
	int rc = nx_start_check(&r->start, r->engine, err);
	if (rc)
		t->status = NX_STATUS_INVALID;
	return rc;
}

/* Before the cell's engine is made: the model in full precision and the stack's take the device in turns. What cannot
 * be measured for want of room leaves the figures out. */
static int measure_quality(struct nx_runner *r, const struct nx_runner_job *job, struct nx_err *err)
{
	struct nx_quality q;
	struct nx_err why = {0};
	int rc = 0;
	if (!wants_quality(r, job) ||
	    (r->quality && nx_quality_known(r->quality, &job->cell->stack->stack, &q)))
		return 0;
	drop_engine(r);
	phase(r, "the quality pass");
	if (!r->quality)
		rc = nx_quality_create(&r->quality, r->cfg.tokenizer, r->cfg.held_out, r->cfg.shape,
		                       &why);
	struct nx_engine_config ec = engine_config(r, job->cell, 0);
	if (!rc)
		rc = nx_quality_run(r->quality, &ec, &q, &why);
	if (!rc || rc == NX_ENOMEM || rc == NX_ENOSPC || rc == NX_ESKIP)
		return 0;
	*err = why;
	return rc;
}

static int32_t longest_of(const struct nx_runner_job *job)
{
	int32_t longest = 0;
	for (size_t i = 0; i < job->n_reqs; i++)
		if (job->reqs[i].n_prompt + job->reqs[i].max_out > longest)
			longest = job->reqs[i].n_prompt + job->reqs[i].max_out;
	return longest;
}

static int prepare(struct nx_runner *r, const struct nx_runner_job *job, struct nx_trial *t,
                   struct nx_err *err)
{
	struct nx_forecast f;
	/* Before the first part is named: what goes wrong in destroy is not this cell's doing. */
	if (strcmp(r->cell, job->cell->id))
		drop_engine(r);
	phase(r, "the forecast");
	nx_runner_forecast(&r->cfg, job->cell, &f);
	/* Too little room for a pool is a reason to skip here; in a run it is a failure. */
	if (f.code == NX_ENOSPC)
		f.code = NX_ESKIP;
	if (f.code) {
		/* What a cell that is skipped would have taken is a figure of its own. */
		if (f.code == NX_ESKIP && f.batch_size > 0) {
			memcpy(t->mem, f.mem, f.n_mem * sizeof(*f.mem));
			t->n_mem = f.n_mem;
		}
		return nx_fail(err, f.code, "%s", f.reason);
	}
	int32_t longest = longest_of(job);
	if (longest < f.longest)
		longest = f.longest;
	int rc = measure_quality(r, job, err);
	if (rc)
		return rc;
	phase(r, "engine set-up");
	rc = engine_for(r, job->cell, longest, err);
	if (!rc)
		rc = run_gate(r, job, t, err);
	if (rc)
		return rc;
	phase(r, "the warm-up");
	rc = nx_warmup_run(r->engine, job->reqs, job->n_reqs, job->cell->batch_size, &r->warmup,
	                   err);
	t->warmup_ns = r->warmup.total_ns;
	t->n_warmup = r->warmup.n_passes;
	return rc ? rc : start_state(r, t, err);
}

void nx_runner_trial(struct nx_runner *r, const struct nx_runner_job *job, struct nx_trial *out)
{
	struct nx_err err = {0};
	struct timespec wall;
	struct aftermath after_run = {.stolen = NAN};
	nx_trial_init(out);
	memcpy(out->cell, job->cell->id, sizeof(out->cell));
	out->cell_index = (int32_t)job->cell->index;
	out->batch_size = job->cell->batch_size;
	out->round = job->round;
	int rc = prepare(r, job, out, &err);
	clock_gettime(CLOCK_REALTIME, &wall);
	out->started_unix_ns = (int64_t)wall.tv_sec * 1000000000 + wall.tv_nsec;
	if (!rc) {
		phase(r, "the timed run");
		rc = timed_run(r, job, out, &after_run, &err);
		phase(r, "the metrics");
	}
	if (rc) {
		end_with(out,
		         out->status == NX_STATUS_INVALID ? NX_STATUS_INVALID : nx_status_of(rc),
		         err.msg);
		drop_engine(r); /* its state is not known */
		return;
	}
	compute(r, job, out);
	judge(r, out, &after_run);
}

int nx_runner_profile(struct nx_runner *r, const struct nx_runner_job *job,
                      const struct nx_metric_group *group, const struct nx_trial *timed,
                      struct nx_profiled *out)
{
	struct nx_forecast f;
	drop_engine(r);
	memcpy(out->cell, job->cell->id, sizeof(out->cell));
	out->round = job->round;
	nx_runner_forecast(&r->cfg, job->cell, &f);
	int32_t longest = longest_of(job);
	const struct nx_instrument_job ij = {
		.dev = r->cfg.dev,
		.engine = engine_config(r, job->cell, longest < f.longest ? f.longest : longest),
		.reqs = job->reqs,
		.n_reqs = job->n_reqs,
		.group = group,
		.time_line_ns = job->time_line_ns,
		.timed = timed->steps,
		.n_timed = timed->n_steps,
		.phase = r->cfg.phase,
		.phase_ctx = r->cfg.phase_ctx,
	};
	return nx_instrument_run(&ij, out);
}
