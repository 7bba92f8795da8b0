/* SPDX-License-Identifier: Apache-2.0
 *
 * measure/experiment_keys.c: the keys of an experiment file but model, workload, techniques and stacks: their
 * types, ranges and defaults.
 */
#include <string.h>

#include "base/file.h"
#include "base/text.h"
#include "engine/engine.h"
#include "measure/experiment_internal.h"
#include "measure/instrument.h"
#include "measure/stats.h"

static const char *const top_keys[] = {
	"model",      "device",    "base",     "dtype",      "invariant",    "threads",
	"kv_memory",  "timeout",   "workload", "sweep",      "num_requests", "trials",
	"min_effect", "reference", "goodput",  "gate",       "techniques",   "include",
	"stacks",     "order",     "counters", "unrecorded", "time_line",
};
static const char *const sweep_keys[] = {"batch_size", "seq_len", "shared", "output_len", "stack"};
static const char *const trials_keys[] = {"min", "max", "rel_ci"};
static const char *const goodput_keys[] = {"ttft", "tpot", "e2el"};
static const char *const bases[] = {"tuned", "plain"};
static const char *const dtypes[] = {"bf16", "f32"};
static const char *const orders[] = {"shuffled", "sorted"}; /* as enum nx_order */

int nx_check_top_keys(const struct nx_yaml *root, struct nx_err *err)
{
	return nx_yaml_check_map(root, top_keys, NX_N(top_keys), err);
}

int nx_opt_bool(const struct nx_yaml *map, const char *key, bool *out, struct nx_err *err)
{
	const struct nx_yaml *v = nx_yaml_get(map, key);
	return v ? nx_yaml_bool(v, out, err) : 0;
}

int nx_opt_i32(const struct nx_yaml *map, const char *key, int32_t min, int32_t max, int32_t *out,
               struct nx_err *err)
{
	const struct nx_yaml *v = nx_yaml_get(map, key);
	return v ? nx_yaml_i32(v, min, max, out, err) : 0;
}

int nx_opt_double(const struct nx_yaml *map, const char *key, double min, double max, double *out,
                  struct nx_err *err)
{
	const struct nx_yaml *v = nx_yaml_get(map, key);
	return v ? nx_yaml_double(v, min, max, out, err) : 0;
}

int nx_opt_choice(const struct nx_yaml *map, const char *key, const char *const *names, size_t n,
                  int *out, struct nx_err *err)
{
	const struct nx_yaml *v = nx_yaml_get(map, key);
	return v ? nx_yaml_choice(v, names, n, out, err) : 0;
}

static int load_device(struct nx_loading *l, struct nx_err *err)
{
	struct nx_experiment *x = &l->full->x;
	const struct nx_yaml *v = nx_yaml_get(l->root, "device");
	x->device = "cpu";
	if (!v)
		return 0;
	int rc = nx_yaml_text(v, NX_DEVICE_NAMES, &x->device, err);
	if (!rc && !nx_device_name_is_legal(x->device))
		rc = nx_yaml_illegal(v, NX_DEVICE_NAMES, err);
	return rc;
}

/* default, off, or a file: read here, so that what is wrong with it is said before anything runs. */
static int load_counters(struct nx_loading *l, struct nx_err *err)
{
	const struct nx_yaml *v = nx_yaml_get(l->root, "counters");
	const char *text = "default";
	int rc = v ? nx_yaml_text(v, "default, off, or a file with metrics:", &text, err) : 0;
	if (rc || !strcmp(text, "off"))
		return rc;
	struct nx_metric_group *g = nx_arena_alloc(l->arena, sizeof(*g));
	if (!g)
		return nx_oom(err);
	l->full->x.counters = g;
	if (!strcmp(text, "default")) {
		nx_group_default(g);
		return 0;
	}
	/* FILE or FILE:GROUP */
	const char *colon = strrchr(text, ':'), *path = nx_resolve(l, text, nx_file_is_regular);
	if (!path && colon && colon != text) {
		path = nx_arena_strndup(l->arena, text, (size_t)(colon - text));
		path = path ? nx_resolve(l, path, nx_file_is_regular) : NULL;
		path = path ? nx_arena_printf(l->arena, "%s%s", path, colon) : NULL;
	}
	if (!path)
		return nx_yaml_fail(
			v, err, NX_EINVAL,
			"found %.200s for counters; legal: default, off, or a file that is there",
			text);
	return nx_group_load(g, path, err);
}

/* off, or how long a sample is. It holds the device's clocks, so nothing but this key asks for it. */
static int load_time_line(struct nx_loading *l, struct nx_err *err)
{
	const struct nx_yaml *v = nx_yaml_get(l->root, "time_line");
	double seconds = 0;
	if (!v || (v->kind == NX_YAML_SCALAR && !v->null && !strcmp(v->text, "off")))
		return 0;
	if (nx_yaml_duration(v, &seconds, NULL) || !(seconds >= 1e-5 && seconds <= 1))
		return nx_yaml_illegal(v, "off, or from 10us to 1s", err);
	if (!l->full->x.counters)
		return nx_yaml_fail(v, err, NX_EINVAL,
		                    "found a time_line beside counters: off; legal: one of them");
	l->full->x.time_line_ns = (uint64_t)(seconds * 1e9 + 0.5);
	return 0;
}

static int load_run(struct nx_loading *l, struct nx_err *err)
{
	struct nx_experiment *x = &l->full->x;
	const struct nx_yaml *r = l->root, *v;
	int base = 0, dtype = 0, order = NX_ORDER_SHUFFLED, rc;
	x->timeout_s = 600;
	x->min_effect = 0.01;
	x->gate = true;
	if ((rc = load_device(l, err)) != 0 || (rc = load_counters(l, err)) != 0 ||
	    (rc = load_time_line(l, err)) != 0 ||
	    (rc = nx_opt_choice(r, "base", bases, NX_N(bases), &base, err)) != 0 ||
	    (rc = nx_opt_choice(r, "dtype", dtypes, NX_N(dtypes), &dtype, err)) != 0 ||
	    (rc = nx_opt_choice(r, "order", orders, NX_N(orders), &order, err)) != 0 ||
	    (rc = nx_opt_bool(r, "invariant", &x->invariant, err)) != 0 ||
	    (rc = nx_opt_bool(r, "gate", &x->gate, err)) != 0 ||
	    (rc = nx_opt_i32(r, "threads", 0, 1024, &x->threads, err)) != 0 ||
	    (rc = nx_opt_double(r, "min_effect", 0, 1, &x->min_effect, err)) != 0)
		return rc;
	if ((v = nx_yaml_get(r, "kv_memory")) != NULL &&
	    (rc = nx_yaml_size(v, &x->kv_budget_bytes, err)) != 0)
		return rc;
	if ((v = nx_yaml_get(r, "timeout")) != NULL) {
		if ((rc = nx_yaml_duration(v, &x->timeout_s, err)) != 0)
			return rc;
		if (!(x->timeout_s >= 0.001 && x->timeout_s <= 7 * 86400.0))
			return nx_yaml_illegal(v, "from 1ms to 168h", err);
	}
	x->base = bases[base];
	x->order = (enum nx_order)order;
	x->dtype = dtype == 0 ? NX_BF16 : NX_F32;
	return 0;
}

int nx_axis(const struct nx_yaml *v, const struct nx_yaml **first, size_t *n, struct nx_err *err)
{
	bool list = v->kind == NX_YAML_LIST;
	*first = list ? v->first : v;
	*n = list ? v->n : 1;
	if (*n == 0)
		return nx_yaml_fail(v, err, NX_EINVAL,
		                    "found an empty list for %.60s; legal: at least one value",
		                    v->label);
	if (*n > NX_AXIS_MAX)
		return nx_yaml_fail(v, err, NX_EINVAL,
		                    "found %zu values for %.60s; legal: at most %d", *n, v->label,
		                    NX_AXIS_MAX);
	return 0;
}

static int load_batch_sizes(struct nx_loading *l, const struct nx_yaml *v, struct nx_err *err)
{
	struct nx_experiment *x = &l->full->x;
	const struct nx_yaml *item = NULL;
	size_t n = 1;
	int rc = v ? nx_axis(v, &item, &n, err) : 0;
	if (rc)
		return rc;
	int32_t *out = nx_arena_array(l->arena, n, sizeof(*out));
	if (!out)
		return nx_oom(err);
	out[0] = 1;
	for (size_t i = 0; item && i < n; i++, item = item->next) {
		bool fit =
			item->kind == NX_YAML_SCALAR && !item->null && !strcmp(item->text, "fit");
		out[i] = NX_BATCH_FIT;
		if (!fit && nx_yaml_i32(item, 1, NX_BATCH_MAX, &out[i], err))
			return nx_yaml_illegal(
				item, "an integer from 1 to 4096, or fit: the largest that fits",
				err);
		for (size_t j = 0; j < i; j++)
			if (out[j] == out[i])
				return nx_yaml_fail(
					item, err, NX_EINVAL,
					"found %.20s for batch_size a second time; legal: each value once",
					item->text);
	}
	x->batch_size = out;
	x->n_batch_size = n;
	l->batch_where = v;
	return 0;
}

static int load_lengths(struct nx_loading *l, const struct nx_yaml *v, int32_t def,
                        struct nx_dist **dists, size_t *n_dists, struct nx_err *err)
{
	const struct nx_yaml *item = NULL;
	size_t n = 1;
	int rc = v ? nx_axis(v, &item, &n, err) : 0;
	if (rc)
		return rc;
	struct nx_dist *out = nx_arena_array(l->arena, n, sizeof(*out));
	if (!out)
		return nx_oom(err);
	out[0] = (struct nx_dist){.kind = NX_DIST_FIXED, .min = def, .max = def};
	for (size_t i = 0; item && i < n; i++, item = item->next) {
		if ((rc = nx_dist_parse(item, &out[i], err)) != 0)
			return rc;
		char a[128], b[128];
		nx_dist_text(&out[i], a, sizeof(a));
		for (size_t j = 0; j < i; j++)
			if (strcmp(a, nx_dist_text(&out[j], b, sizeof(b))) == 0)
				return nx_yaml_fail(
					item, err, NX_EINVAL,
					"found %s for %.60s a second time; legal: each value once",
					a, item->label);
	}
	*dists = out;
	*n_dists = n;
	return 0;
}

static int load_sweep(struct nx_loading *l, struct nx_err *err)
{
	struct nx_experiment *x = &l->full->x;
	const struct nx_yaml *sweep = nx_yaml_get(l->root, "sweep");
	int rc;
	if (sweep && (rc = nx_yaml_check_map(sweep, sweep_keys, NX_N(sweep_keys), err)) != 0)
		return rc;
	if ((rc = load_batch_sizes(l, nx_yaml_get(sweep, "batch_size"), err)) != 0 ||
	    (rc = load_lengths(l, nx_yaml_get(sweep, "seq_len"), 512, &x->seq_len, &x->n_seq_len,
	                       err)) != 0)
		return rc;
	return load_lengths(l, nx_yaml_get(sweep, "output_len"), 128, &x->output_len,
	                    &x->n_output_len, err);
}

static int load_num_requests(struct nx_loading *l, struct nx_err *err)
{
	static const char *const keys[] = {"per_slot"};
	struct nx_experiment *x = &l->full->x;
	const struct nx_yaml *v = nx_yaml_get(l->root, "num_requests");
	x->requests_per_slot = 4;
	if (!v)
		return 0;
	if (v->kind == NX_YAML_LIST)
		return nx_yaml_illegal(
			v, "an integer, or {per_slot: 4} for four times the batch size", err);
	if (v->kind != NX_YAML_MAP)
		return nx_yaml_i32(v, 1, 1000000, &x->num_requests, err);
	int rc = nx_yaml_check_map(v, keys, NX_N(keys), err);
	return rc ? rc : nx_opt_i32(v, "per_slot", 1, 1000, &x->requests_per_slot, err);
}

static int load_trials(struct nx_loading *l, struct nx_err *err)
{
	struct nx_trials *t = &l->full->x.trials;
	const struct nx_yaml *v = nx_yaml_get(l->root, "trials");
	int rc;
	*t = (struct nx_trials){.min = 10, .max = 10};
	if (!v)
		return 0;
	if (v->kind == NX_YAML_LIST)
		return nx_yaml_illegal(v, "an integer, or {min: 6, max: 30, rel_ci: 0.02}", err);
	if (v->kind != NX_YAML_MAP) {
		rc = nx_yaml_i32(v, 1, 10000, &t->min, err);
		t->max = t->min;
		return rc;
	}
	*t = (struct nx_trials){.min = NX_VERDICT_ROUNDS, .max = 30, .rel_ci = 0.02};
	if ((rc = nx_yaml_check_map(v, trials_keys, NX_N(trials_keys), err)) != 0 ||
	    (rc = nx_opt_i32(v, "min", 1, 10000, &t->min, err)) != 0)
		return rc;
	if (t->max < t->min)
		t->max = t->min; /* `min` alone, above the default of max */
	if ((rc = nx_opt_i32(v, "max", t->min, 10000, &t->max, err)) != 0)
		return rc;
	return nx_opt_double(v, "rel_ci", 0, 1, &t->rel_ci, err);
}

static int load_goodput(struct nx_loading *l, struct nx_err *err)
{
	struct nx_slo *slo = &l->full->x.slo;
	double *const out[] = {&slo->ttft_ms, &slo->tpot_ms, &slo->e2el_ms};
	const struct nx_yaml *map = nx_yaml_get(l->root, "goodput");
	if (!map)
		return 0;
	int rc = nx_yaml_check_map(map, goodput_keys, NX_N(goodput_keys), err);
	for (size_t i = 0; rc == 0 && i < NX_N(out); i++) {
		const struct nx_yaml *v = nx_yaml_get(map, goodput_keys[i]);
		if (!v)
			continue;
		rc = nx_yaml_double(v, 0, 1e9, out[i], err);
		if (rc == 0 && *out[i] <= 0)
			rc = nx_yaml_illegal(v, "milliseconds above 0, or leave the key out", err);
	}
	return rc;
}

int nx_load_keys(struct nx_loading *l, struct nx_err *err)
{
	int (*const parts[])(struct nx_loading *, struct nx_err *) = {
		load_run,     load_sweep,       load_num_requests,    load_trials,
		load_goodput, nx_load_workload, nx_load_read_lengths,
	};
	int rc = 0;
	for (size_t i = 0; rc == 0 && i < NX_N(parts); i++)
		rc = parts[i](l, err);
	if (rc)
		return rc;
	const struct nx_yaml *model = nx_yaml_get(l->root, "model");
	if (!model)
		return nx_yaml_fail(
			l->root, err, NX_EINVAL,
			"found no key model; legal: model: nano, smollm2, a shape such as llama-7b, or the path of a .gguf file or of a Hugging Face directory");
	return nx_load_model(l, model, err);
}
