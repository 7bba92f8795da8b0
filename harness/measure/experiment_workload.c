/* SPDX-License-Identifier: Apache-2.0
 *
 * measure/experiment_workload.c: the key `workload` of an experiment, and lengths that are read from what it names
 * and not drawn. See experiments/README.md.
 */
#include <math.h>
#include <string.h>

#include "base/file.h"
#include "measure/experiment_internal.h"
#include "measure/trace.h"

static const char *const workload_keys[] = {
	"prompts", "answers",    "turns",       "trace", "groups", "samples",
	"seed",    "ignore_eos", "temperature", "top_k", "top_p",  "min_p",
};
static const char *const turns_names[] = {"last", "first", "all"}; /* as enum nx_turns */

static const char *const answers_names[] = {"model", "file"}; /* as enum nx_answers */

static int opt_float(const struct nx_yaml *map, const char *key, double min, double max, float *out,
                     struct nx_err *err)
{
	double d = *out;
	int rc = nx_opt_double(map, key, min, max, &d, err);
	*out = (float)d;
	return rc;
}

static int load_prompts(struct nx_loading *l, const struct nx_yaml *map, struct nx_err *err)
{
	static const char legal[] =
		"random, or the path of a JSON file, from the experiment's folder or the working directory";
	struct nx_workload_spec *w = &l->full->x.workload;
	const struct nx_yaml *v = nx_yaml_get(map, "prompts");
	const char *name;
	if (!v)
		return nx_yaml_fail(
			map, err, NX_EINVAL,
			"found no key prompts in workload; legal: prompts: FILE.jsonl, or prompts: random");
	int rc = nx_yaml_text(v, legal, &name, err);
	if (rc || strcmp(name, NX_RANDOM_PROMPTS) == 0)
		return rc;
	w->prompts = nx_resolve(l, name, nx_file_is_regular);
	return w->prompts ? 0 : nx_yaml_illegal(v, legal, err);
}

static int load_trace(struct nx_loading *l, const struct nx_yaml *map, struct nx_err *err)
{
	static const char legal[] =
		"the path of a CSV or JSON lines file, from the experiment's folder or the working directory";
	const struct nx_yaml *v = nx_yaml_get(map, "trace");
	const char *name;
	if (!v)
		return 0;
	int rc = nx_yaml_text(v, legal, &name, err);
	const char *path = rc ? NULL : nx_resolve(l, name, nx_file_is_regular);
	if (rc)
		return rc;
	if (!path)
		return nx_yaml_illegal(v, legal, err);
	struct nx_trace *trace = NULL;
	rc = nx_trace_read(l->arena, path, &trace, err);
	l->full->x.workload.trace = trace;
	return rc;
}

int nx_load_workload(struct nx_loading *l, struct nx_err *err)
{
	struct nx_workload_spec *w = &l->full->x.workload;
	const struct nx_yaml *map = nx_yaml_get(l->root, "workload"), *v;
	int rc, turns = NX_TURNS_LAST, answers = NX_ANSWERS_MODEL;
	*w = (struct nx_workload_spec){
		.groups = 1, .samples = 1, .seed = 1, .ignore_eos = true, .top_p = 1};
	if (!map)
		return nx_yaml_fail(
			l->root, err, NX_EINVAL,
			"found no key workload; legal: workload: {prompts: FILE.jsonl}");
	if ((rc = nx_yaml_check_map(map, workload_keys, NX_N(workload_keys), err)) != 0 ||
	    (rc = nx_opt_i32(map, "samples", 1, 256, &w->samples, err)) != 0 ||
	    (rc = nx_opt_i32(map, "groups", 1, NX_GROUPS_MAX, &w->groups, err)) != 0 ||
	    (rc = nx_opt_bool(map, "ignore_eos", &w->ignore_eos, err)) != 0 ||
	    (rc = opt_float(map, "temperature", 0, 100, &w->temperature, err)) != 0 ||
	    (rc = nx_opt_i32(map, "top_k", 0, 1 << 20, &w->top_k, err)) != 0 ||
	    (rc = opt_float(map, "top_p", 0.001, 1, &w->top_p, err)) != 0 ||
	    (rc = opt_float(map, "min_p", 0, 1, &w->min_p, err)) != 0 ||
	    (rc = nx_opt_choice(map, "turns", turns_names, NX_N(turns_names), &turns, err)) != 0 ||
	    (rc = nx_opt_choice(map, "answers", answers_names, NX_N(answers_names), &answers,
	                        err)) != 0)
		return rc;
	w->turns = (enum nx_turns)turns;
	w->answers = (enum nx_answers)answers;
	if (w->answers == NX_ANSWERS_FILE && w->turns != NX_TURNS_ALL)
		return nx_yaml_fail(
			nx_yaml_get(map, "answers"), err, NX_EINVAL,
			"found answers: file without turns: all; legal: both, since an answer is fed for the turn that follows it");
	if ((v = nx_yaml_get(map, "seed")) != NULL && (rc = nx_yaml_u64(v, &w->seed, err)) != 0)
		return rc;
	if ((rc = load_prompts(l, map, err)) != 0)
		return rc;
	v = nx_yaml_get(map, "turns");
	if (v && !w->prompts)
		return nx_yaml_fail(v, err, NX_EINVAL,
		                    "found turns beside prompts: " NX_RANDOM_PROMPTS
		                    "; legal: a file of conversations for prompts");
	if ((rc = load_trace(l, map, err)) != 0)
		return rc;
	if (w->trace && w->turns == NX_TURNS_ALL)
		return nx_yaml_fail(
			nx_yaml_get(map, "trace"), err, NX_EINVAL,
			"found a trace beside turns: all; legal: one of them, since a trace's rows are single requests");
	return 0;
}

/* ---- lengths that are read -------------------------------------------------------------------- */

/* Where value i of an axis stands. */
static const struct nx_yaml *value_at(const struct nx_loading *l, const char *axis, size_t i)
{
	const struct nx_yaml *sweep = nx_yaml_get(l->root, "sweep"), *v = nx_yaml_get(sweep, axis);
	if (v && v->kind == NX_YAML_LIST)
		for (v = v->first; v && i > 0; i--)
			v = v->next;
	return v ? v : l->root;
}

/* What the rows, clipped, come to. */
static void measure_trace(const struct nx_trace *t, bool output, struct nx_dist *d)
{
	int32_t min = NX_LEN_MAX, max = 1;
	double sum = 0;
	for (size_t i = 0; i < t->n; i++) {
		int32_t n = output ? t->rows[i].n_out : t->rows[i].n_in;
		n = n < d->min ? d->min : n > d->max ? d->max : n;
		min = n < min ? n : min;
		max = n > max ? n : max;
		sum += n;
	}
	d->min = min;
	d->max = max;
	d->mean = sum / (double)t->n;
}

static int check_axis(struct nx_loading *l, const char *axis, struct nx_dist *dists, size_t n,
                      struct nx_err *err)
{
	const struct nx_workload_spec *w = &l->full->x.workload;
	bool output = strcmp(axis, "output_len") == 0;
	for (size_t i = 0; i < n; i++) {
		struct nx_dist *d = &dists[i];
		const struct nx_yaml *v = value_at(l, axis, i);
		if (d->kind == NX_DIST_DATASET && !w->prompts)
			return nx_yaml_fail(
				v, err, NX_EINVAL,
				"found dataset for %s beside prompts: " NX_RANDOM_PROMPTS
				"; legal: a file for prompts, or a length that is drawn",
				axis);
		if (d->kind == NX_DIST_TRACE && !w->trace)
			return nx_yaml_fail(
				v, err, NX_EINVAL,
				"found trace for %s and no workload.trace; legal: workload: {trace: FILE}",
				axis);
		if (!output && w->turns == NX_TURNS_ALL && d->kind != NX_DIST_DATASET)
			return nx_yaml_fail(
				v, err, NX_EINVAL,
				"found a drawn length for seq_len beside turns: all; legal: dataset, since each turn's prompt is the conversation up to it");
		if (output && w->answers == NX_ANSWERS_FILE && d->kind != NX_DIST_DATASET)
			return nx_yaml_fail(
				v, err, NX_EINVAL,
				"found an output_len of its own beside answers: file; legal: output_len: dataset, as long as the answers are");
		if (d->kind != NX_DIST_TRACE)
			continue;
		char a[64], b[64];
		measure_trace(w->trace, output, d);
		nx_dist_text(d, a, sizeof(a));
		for (size_t k = 0; k < i; k++)
			if (strcmp(a, nx_dist_text(&dists[k], b, sizeof(b))) == 0)
				return nx_yaml_fail(
					v, err, NX_EINVAL,
					"found %s for %s a second time; legal: each value once", a,
					axis);
	}
	return 0;
}

/* May prompts share their begins here? Of what is read, the file or the trace says itself what prompts share. */
static int check_shared(const struct nx_loading *l, const struct nx_yaml *v, struct nx_err *err)
{
	const struct nx_experiment *x = &l->full->x;
	if (x->workload.trace)
		return nx_yaml_fail(
			v, err, NX_EINVAL,
			"found shared beside a trace; legal: one of them, since a trace says itself what its prompts share");
	for (size_t i = 0; i < x->n_seq_len; i++)
		if (x->seq_len[i].kind == NX_DIST_DATASET)
			return nx_yaml_fail(
				v, err, NX_EINVAL,
				"found shared beside dataset for seq_len%s; legal: a length that is drawn, since the data's prompts are taken as they are",
				x->workload.turns == NX_TURNS_ALL ? " (turns: all)" : "");
	return 0;
}

/* sweep.shared: each prompt length with each share of it. */
static int load_shared(struct nx_loading *l, struct nx_err *err)
{
	struct nx_experiment *x = &l->full->x;
	const struct nx_yaml *v = nx_yaml_get(nx_yaml_get(l->root, "sweep"), "shared"), *item;
	const struct nx_yaml *groups = nx_yaml_get(nx_yaml_get(l->root, "workload"), "groups");
	size_t n = 0;
	if (!v && groups)
		return nx_yaml_fail(
			groups, err, NX_EINVAL,
			"found groups and no share of prompts that they have in common; legal: groups beside sweep: {shared: 0.9}");
	int rc = v ? nx_axis(v, &item, &n, err) : 0;
	if (!v || rc || (rc = check_shared(l, v, err)) != 0)
		return rc;
	if (n * x->n_seq_len > NX_AXIS_MAX)
		return nx_yaml_fail(
			v, err, NX_EINVAL,
			"found %zu shares of %zu prompt lengths; legal: at most %d of both", n,
			x->n_seq_len, NX_AXIS_MAX);
	struct nx_dist *out = nx_arena_array(l->arena, n * x->n_seq_len, sizeof(*out));
	if (!out)
		return nx_oom(err);
	for (size_t k = 0; k < n; k++, item = item->next) {
		double shared = 0;
		if ((rc = nx_yaml_double(item, 0, NX_SHARED_MAX, &shared, err)) != 0)
			return rc;
		for (size_t j = 0; j < k; j++)
			if (out[j].shared == shared)
				return nx_yaml_fail(
					item, err, NX_EINVAL,
					"found %g for shared a second time; legal: each value once",
					shared);
		for (size_t i = 0; i < x->n_seq_len; i++) {
			out[i * n + k] = x->seq_len[i];
			out[i * n + k].shared = shared;
		}
	}
	x->seq_len = out;
	x->n_seq_len *= n;
	return 0;
}

int nx_load_read_lengths(struct nx_loading *l, struct nx_err *err)
{
	struct nx_experiment *x = &l->full->x;
	const struct nx_yaml *sweep = nx_yaml_get(l->root, "sweep");
	if (x->workload.turns == NX_TURNS_ALL && !nx_yaml_get(sweep, "seq_len"))
		x->seq_len[0] = (struct nx_dist){
			.kind = NX_DIST_DATASET, .min = NX_DATASET_MIN, .max = NX_DATASET_MAX};
	int rc = check_axis(l, "seq_len", x->seq_len, x->n_seq_len, err);
	if (!rc)
		rc = check_axis(l, "output_len", x->output_len, x->n_output_len, err);
	return rc ? rc : load_shared(l, err);
}
