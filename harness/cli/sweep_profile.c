/* SPDX-License-Identifier: Apache-2.0
 *
 * sweep_profile.c: after the timed trials, what the device's instruments see of each cell. See sweep.h.
 */
#include <stdio.h>
#include <string.h>

#include "cli/cli.h"
#include "cli/sweep.h"
#include "measure/instrument.h"
#include "present/progress.h"

#define ROUND 0

/* The record of a cell whose look did not end well. */
static int write_reason(const char *dir, const struct nx_cell *c, const char *why,
                        struct nx_err *err)
{
	struct nx_profiled p;
	if (nx_profile_shard_has(dir, c->id))
		return 0;
	nx_profiled_init(&p);
	memcpy(p.cell, c->id, sizeof(p.cell));
	p.round = ROUND;
	snprintf(p.no_counters, sizeof(p.no_counters), "%s", why);
	snprintf(p.no_trace, sizeof(p.no_trace), "%s", why);
	return nx_profile_shard_write(dir, &p, err);
}

/* Waits for the end. *why is what went wrong with the worker, or "". */
static int await(struct nx_crew *crew, char *why, size_t size, struct nx_err *err)
{
	char part[64] = "set-up", death[400];
	why[0] = '\0';
	for (;;) {
		json_t *msg = NULL;
		enum nx_heard heard = nx_child_hear(&crew->child, crew->x->timeout_s, &msg);
		if (heard == NX_HEARD_SIGNAL)
			return nx_fail(err, NX_ESKIP, "interrupted");
		if (heard != NX_HEARD_MESSAGE) {
			nx_child_stop(&crew->child);
			if (heard == NX_HEARD_TIMEOUT)
				snprintf(why, size,
				         "the profile worker was stopped after %g s in %s",
				         crew->x->timeout_s, part);
			else
				snprintf(why, size, "the profile worker was %s, in %s",
				         nx_child_death(&crew->child, death, sizeof(death)), part);
			return 0;
		}
		const char *text = json_string_value(json_object_get(msg, "phase"));
		bool wrong = json_object_get(msg, "error") != NULL;
		if (text)
			snprintf(part, sizeof(part), "%s", text);
		if (wrong) {
			text = json_string_value(json_object_get(msg, "message"));
			snprintf(why, size, "the profile worker failed: %s",
			         text ? text : "no reason");
			nx_child_stop(&crew->child);
		}
		bool end = wrong || !text;
		/* A worker that lived to say so has lost its device: the next cell gets another. */
		if (json_integer_value(json_object_get(msg, "status")) == NX_STATUS_CRASHED) {
			text = json_string_value(json_object_get(msg, "cause"));
			snprintf(why, size, "the profile worker lost its device: %s",
			         text ? text : "no reason");
			nx_child_stop(&crew->child);
		}
		json_decref(msg);
		if (end)
			return 0;
	}
}

/* Did the cell's trial of the round run, and are its steps known? */
static bool has_steps(const char *dir, const struct nx_cell *c)
{
	struct nx_trial t;
	if (c->stack->unrecorded || nx_shard_read_metrics(dir, c->id, ROUND, &t, NULL))
		return false;
	bool ran = t.duration_ns > 0 && !nx_status_final(t.status);
	ran |= t.status == NX_STATUS_INEXACT;
	nx_trial_release(&t);
	return ran;
}

static int look(struct nx_crew *crew, const char *dir, const struct nx_cell *c, struct nx_err *err)
{
	char why[NX_ERR_MAX];
	struct nx_err start = {0};
	if (nx_child_signal())
		return nx_fail(err, NX_ESKIP, "interrupted");
	if (nx_crew_start(crew, &start)) {
		if (nx_child_signal())
			return nx_fail(err, NX_ESKIP, "interrupted");
		return write_reason(dir, c, start.msg, err);
	}
	(void)nx_child_say(&crew->child,
	                   json_pack("{s:s, s:I, s:s, s:i, s:i, s:s}", "op", "profile", "cell",
	                             (json_int_t)c->index, "id", c->id, "batch", c->batch_size,
	                             "round", ROUND, "dir", dir),
	                   NULL);
	int rc = await(crew, why, sizeof(why), err);
	if (!rc && why[0])
		nx_say("%s (stack %s, batch size %d); its trials stand", why, c->stack->name,
		       c->batch_size);
	return rc ? rc
	          : write_reason(dir, c, why[0] ? why : "the profile worker said nothing", err);
}

int nx_sweep_profile(struct nx_crew *crew, struct nx_shards *shards, struct nx_err *err)
{
	size_t n, todo = 0;
	const struct nx_cell *cells = nx_experiment_cells(crew->x, &n);
	const char *dir = nx_shards_dir(shards);
	struct nx_progress progress;
	int rc = 0;
	if (!crew->instruments || !crew->x->counters)
		return 0;
	for (size_t i = 0; i < n; i++)
		todo += !nx_profile_shard_has(dir, cells[i].id) && has_steps(dir, &cells[i]);
	if (!todo)
		return 0;
	nx_crew_stop(crew); /* the one that timed */
	uint64_t done = 0;
	nx_progress_init(&progress, stderr, "profiles", todo);
	for (size_t i = 0; i < n && !rc; i++) {
		if (nx_profile_shard_has(dir, cells[i].id) || !has_steps(dir, &cells[i]))
			continue;
		nx_progress_update(&progress, done, cells[i].stack->name);
		rc = look(crew, dir, &cells[i], err);
		done++;
	}
	nx_progress_update(&progress, done, NULL);
	nx_progress_finish(&progress);
	return rc;
}
