/* SPDX-License-Identifier: Apache-2.0
 *
 * sweep.c: see sweep.h.
 */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "base/rng.h"
#include "cli/sweep.h"
#include "cli/wire.h"
#include "measure/stats.h"
#include "present/progress.h"

struct cell_state {
	double *v; /* [trials.max] headline figure of each ok trial */
	size_t n_ok, n_tried;
	bool closed;
};

struct sweep {
	struct nx_crew *crew;
	struct nx_shards *shards;
	const struct nx_cell *cells;
	size_t n_cells;
	struct cell_state *state;
	struct nx_progress progress;
	uint64_t n_done;
};

static void cell_text(const struct nx_cell *c, char *buf, size_t size)
{
	char in[48], out[48], batch[48] = "the largest batch size that fits";
	if (c->batch_size != NX_BATCH_FIT)
		snprintf(batch, sizeof(batch), "batch size %d", c->batch_size);
	snprintf(buf, size, "stack %s, %s, prompt %s, output %s", c->stack->name, batch,
	         nx_dist_text(&c->seq_len, in, sizeof(in)),
	         nx_dist_text(&c->output_len, out, sizeof(out)));
}

/* Trials done and still to come, at most. */
static uint64_t total_now(const struct sweep *s)
{
	uint64_t open = 0;
	for (size_t i = 0; i < s->n_cells; i++)
		if (!s->state[i].closed && s->state[i].n_tried < (size_t)s->crew->x->trials.max)
			open += (uint64_t)s->crew->x->trials.max - s->state[i].n_tried;
	return s->n_done + open;
}

/* Enters a finished trial into the cell's state. */
static int account(struct sweep *s, const struct nx_cell *c, int32_t round, struct nx_err *err)
{
	struct nx_trial t;
	nx_trial_init(&t);
	int rc = nx_shard_read_metrics(nx_shards_dir(s->shards), c->id, round, &t, err);
	if (rc)
		return rc;
	struct cell_state *st = &s->state[c->index];
	const struct nx_trials *rule = &s->crew->x->trials;
	double v = t.metrics[NX_METRIC_OUTPUT_THROUGHPUT];
	if (t.batch_size > 0)
		nx_experiment_settle(s->crew->x, c->index, t.batch_size);
	st->n_tried++;
	s->n_done++;
	if (t.status == NX_STATUS_OK && isfinite(v) && st->n_ok < (size_t)rule->max)
		st->v[st->n_ok++] = v;
	const struct nx_stop_rule stop = {
		.min = rule->min, .max = rule->max, .rel_ci = rule->rel_ci};
	st->closed = nx_status_final(t.status) || nx_stop(&stop, st->v, st->n_ok, st->n_tried);
	nx_trial_release(&t);
	return 0;
}

/* The row of a trial whose worker did not live to write it. One that it did write is whole, whatever
 * became of the worker then. */
static int write_row(struct sweep *s, const struct nx_cell *c, int32_t round, int status,
                     const char *what, struct nx_err *err)
{
	struct nx_trial t;
	struct timespec now;
	char where[256];
	if (nx_shards_has(s->shards, c->id, round))
		return 0;
	nx_trial_init(&t);
	memcpy(t.cell, c->id, sizeof(t.cell));
	t.cell_index = (int32_t)c->index;
	t.batch_size = c->batch_size;
	t.round = round;
	t.status = status;
	clock_gettime(CLOCK_REALTIME, &now);
	t.started_unix_ns = (int64_t)now.tv_sec * 1000000000 + now.tv_nsec;
	cell_text(c, where, sizeof(where));
	snprintf(t.cause, sizeof(t.cause), "the worker was %s (%s)", what, where);
	nx_progress_clear(&s->progress);
	fprintf(stderr, "nexus: %s: %s\n", nx_status_name(status), t.cause);
	int rc = nx_shards_write(s->shards, &t, err);
	nx_trial_release(&t);
	return rc;
}

#define AGAIN 1 /* the worker was lost before it began with this cell */

/* Waits for the trial's end through the messages about its parts. A worker that is lost before the first
 * of them (while it clears the cell before away) is not held against this cell, the first time. */
static int await(struct sweep *s, const struct nx_cell *c, int32_t round, bool again,
                 struct nx_err *err)
{
	struct nx_child *child = &s->crew->child;
	char part[64] = "", death[400], what[512];
	for (;;) {
		json_t *msg = NULL;
		const char *text;
		int code;
		switch (nx_child_hear(child, s->crew->x->timeout_s, &msg)) {
		case NX_HEARD_MESSAGE: break;
		case NX_HEARD_SIGNAL: return nx_fail(err, NX_ESKIP, "interrupted");
		case NX_HEARD_TIMEOUT:
			nx_child_stop(child);
			if (!part[0] && !again)
				return AGAIN;
			snprintf(what, sizeof(what), "stopped after %g s (timeout) in %s",
			         s->crew->x->timeout_s, part[0] ? part : "set-up");
			return write_row(s, c, round, NX_STATUS_TIMEOUT, what, err);
		case NX_HEARD_GARBAGE:
			nx_child_stop(child);
			snprintf(what, sizeof(what), "writing nonsense to its parent in %s",
			         part[0] ? part : "set-up");
			return write_row(s, c, round, NX_STATUS_CRASHED, what, err);
		default:
			if (!part[0] && !again)
				return AGAIN;
			nx_child_death(child, death, sizeof(death));
			snprintf(what, sizeof(what), "%s, in %s", death, part[0] ? part : "set-up");
			return write_row(s, c, round,
			                 nx_child_starved(child) ? NX_STATUS_OUT_OF_MEMORY
			                                         : NX_STATUS_CRASHED,
			                 what, err);
		}
		if ((text = json_string_value(json_object_get(msg, "phase")))) {
			snprintf(part, sizeof(part), "%s", text);
			json_decref(msg);
			continue;
		}
		code = (int)json_integer_value(json_object_get(msg, "error"));
		text = json_string_value(json_object_get(msg, code ? "message" : "cause"));
		if (!code && text && *text) {
			nx_progress_clear(&s->progress);
			char where[256];
			cell_text(c, where, sizeof(where));
			int status = (int)json_integer_value(json_object_get(msg, "status"));
			fprintf(stderr, "nexus: %s: %s (%s)\n", nx_status_name(status), text,
			        where);
		}
		int rc = code ? nx_fail(err, code < 0 ? code : NX_EBUG, "%s",
		                        text ? text : "the worker failed")
		              : 0;
		/* A worker that lived to say so has lost its device: the next cell gets another. */
		bool spent = !code && json_integer_value(json_object_get(msg, "status")) ==
		                              NX_STATUS_CRASHED;
		json_decref(msg);
		if (rc || spent)
			nx_child_stop(child);
		return rc;
	}
}

static int visit(struct sweep *s, const struct nx_cell *c, int32_t round, struct nx_err *err)
{
	char note[256];
	cell_text(c, note, sizeof(note));
	nx_progress_update(&s->progress, s->n_done, note);
	int rc = AGAIN;
	for (int attempt = 0; rc == AGAIN; attempt++) {
		rc = nx_crew_start(s->crew, err);
		if (rc)
			return rc;
		/* If it died since, the wait for its answer says so. */
		(void)nx_child_say(&s->crew->child,
		                   json_pack("{s:s, s:I, s:s, s:i, s:i, s:s}", "op", "trial",
		                             "cell", (json_int_t)c->index, "id", c->id, "batch",
		                             c->batch_size, "round", round, "dir",
		                             nx_shards_dir(s->shards)),
		                   NULL);
		rc = await(s, c, round, attempt > 0, err);
	}
	if (!rc && !nx_shards_has(s->shards, c->id, round))
		rc = nx_fail(
			err, NX_EIO,
			"the worker says that it has written the trial, but there is no shard in %s",
			nx_shards_dir(s->shards));
	if (rc)
		return rc;
	return account(s, c, round, err);
}

void nx_sweep_order(const struct nx_experiment *x, int32_t round, uint32_t *order, size_t n)
{
	struct nx_rng rng = {x->workload.seed ^ (0x9e3779b97f4a7c15ull * ((uint64_t)round + 1))};
	size_t stacks = x->n_stacks,
	       settings = n / stacks; /* cells of a setting follow one another */
	for (size_t i = 0; i < n; i++)
		order[i] = (uint32_t)i;
	if (x->order == NX_ORDER_SORTED)
		return;
	/* The first `settings` entries hold the settings' order until their cells are written, last ones first. */
	nx_rng_shuffle(&rng, order, settings);
	for (size_t g = settings; g-- > 0;) {
		uint32_t first = order[g] * (uint32_t)stacks;
		for (size_t k = 0; k < stacks; k++)
			order[g * stacks + k] = first + (uint32_t)k;
		nx_rng_shuffle(&rng, order + g * stacks, stacks);
	}
}

static int run_round(struct sweep *s, const uint32_t *order, int32_t round, struct nx_err *err)
{
	for (size_t k = 0; k < s->n_cells; k++) {
		const struct nx_cell *c = &s->cells[order[k]];
		int rc;
		if (s->state[c->index].closed)
			continue;
		if (nx_child_signal())
			return nx_fail(err, NX_ESKIP, "interrupted");
		if (nx_shards_has(s->shards, c->id, round))
			rc = account(s, c, round, err);
		else
			rc = visit(s, c, round, err);
		if (rc)
			return rc;
		s->progress.total = total_now(s);
		nx_progress_update(&s->progress, s->n_done, NULL);
	}
	return 0;
}

int nx_sweep_settle(struct nx_experiment *x, const struct nx_shards *shards, struct nx_err *err)
{
	size_t n;
	const struct nx_cell *cells = nx_experiment_cells(x, &n);
	int rc = 0;
	for (size_t i = 0; i < n && !rc; i++)
		for (int32_t r = 0; r < x->trials.max && !rc && cells[i].batch_size == NX_BATCH_FIT;
		     r++) {
			struct nx_trial t;
			if (!nx_shards_has(shards, cells[i].id, r))
				continue;
			nx_trial_init(&t);
			rc = nx_shard_read_metrics(nx_shards_dir(shards), cells[i].id, r, &t, err);
			if (!rc && t.batch_size > 0)
				nx_experiment_settle(x, i, t.batch_size);
			nx_trial_release(&t);
		}
	return rc;
}

int nx_sweep_run(struct nx_crew *crew, struct nx_shards *shards, struct nx_err *err)
{
	struct sweep s = {.crew = crew, .shards = shards};
	int32_t rounds = crew->x->trials.max;
	int rc = 0;
	s.cells = nx_experiment_cells(crew->x, &s.n_cells);
	s.state = calloc(s.n_cells + 1, sizeof(*s.state));
	uint32_t *order = calloc(s.n_cells + 1, sizeof(*order));
	double *values = calloc(s.n_cells * (size_t)rounds + 1, sizeof(*values));
	if (!s.state || !order || !values) {
		rc = nx_fail(err, NX_ENOMEM, "no memory for a sweep of %zu cells", s.n_cells);
		goto out;
	}
	for (size_t i = 0; i < s.n_cells; i++)
		s.state[i].v = values + i * (size_t)rounds;
	nx_progress_init(&s.progress, stderr, "trials", total_now(&s));
	for (int32_t round = 0; round < rounds && !rc; round++) {
		nx_sweep_order(crew->x, round, order, s.n_cells);
		rc = run_round(&s, order, round, err);
	}
	nx_progress_finish(&s.progress);
out:
	free(values);
	free(order);
	free(s.state);
	return rc;
}
