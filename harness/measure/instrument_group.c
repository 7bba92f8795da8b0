/* SPDX-License-Identifier: Apache-2.0
 *
 * instrument_group.c: groups of metrics: the one that is built in, and those of data files. See instrument.h.
 */
#include <string.h>

#include "base/file.h"
#include "base/text.h"
#include "base/yaml.h"
#include "measure/instrument.h"

#define COUNT(a) (sizeof(a) / sizeof((a)[0]))

/* Together one pass on Hopper. The first come first where a device takes fewer at once. */
static const struct nx_group_metric built_in[] = {
	{"dram__bytes_read.sum", "", "bytes", NX_FIGURE_BYTES, 1, "read from memory"},
	{"dram__bytes_write.sum", "", "bytes", NX_FIGURE_BYTES, 1, "written to memory"},
	{"sm__ops_path_tensor_src_bf16_dst_fp32.sum", "", "flop", NX_FIGURE_FLOPS, 1,
         "operations of the tensor cores, bf16"},
	{"gpu__time_duration.sum", "", "ns", NX_FIGURE_TIME, 1, "time of the device"},
	{"sm__cycles_active.avg.pct_of_peak_sustained_elapsed", "", "%", NX_FIGURE_NONE, 1,
         "SMs with work"},
	{"sm__pipe_tensor_cycles_active.avg.pct_of_peak_sustained_elapsed", "", "%", NX_FIGURE_NONE,
         1, "tensor cores at work"},
	{"sm__warps_active.avg.pct_of_peak_sustained_active", "", "%", NX_FIGURE_NONE, 1,
         "warps of an SM, of the most it can hold"},
	{"dram__throughput.avg.pct_of_peak_sustained_elapsed", "", "%", NX_FIGURE_NONE, 1,
         "memory, of its own peak"},
};

void nx_group_default(struct nx_metric_group *g)
{
	*g = (struct nx_metric_group){.name = "default", .n = (int32_t)COUNT(built_in)};
	memcpy(g->m, built_in, sizeof(built_in));
}

static int text_of(const struct nx_yaml *map, const char *key, const char *legal, bool needed,
                   char *out, size_t size, struct nx_err *err)
{
	const struct nx_yaml *v = nx_yaml_get(map, key);
	const char *text = "";
	int rc = 0;
	if (!v && needed)
		return nx_yaml_fail(map, err, NX_EINVAL, "found no %s; legal: %s", key, legal);
	if (v)
		rc = nx_yaml_text(v, legal, &text, err);
	if (!rc && strlen(text) >= size)
		rc = nx_yaml_fail(v, err, NX_EINVAL,
		                  "found a %s of %zu characters; legal: at most %zu", key,
		                  strlen(text), size - 1);
	if (!rc)
		memcpy(out, text, strlen(text) + 1);
	return rc;
}

static int load_metric(const struct nx_yaml *v, struct nx_group_metric *m, struct nx_err *err)
{
	static const char *const keys[] = {"name", "unit", "figure", "times", "text"};
	static const char *const figures[] = {"bytes", "flops", "time_ns"};
	int figure = -1, rc;
	*m = (struct nx_group_metric){.times = 1};
	const struct nx_yaml *f, *t;
	if ((rc = nx_yaml_check_map(v, keys, COUNT(keys), err)) != 0 ||
	    (rc = text_of(v, "name", "a metric of the device", true, m->name, sizeof(m->name),
	                  err)) != 0 ||
	    (rc = text_of(v, "unit", "a unit", true, m->unit, sizeof(m->unit), err)) != 0 ||
	    (rc = text_of(v, "text", "what it is", false, m->text, sizeof(m->text), err)) != 0)
		return rc;
	if ((f = nx_yaml_get(v, "figure")) != NULL)
		rc = nx_yaml_choice(f, figures, COUNT(figures), &figure, err);
	if (!rc && (t = nx_yaml_get(v, "times")) != NULL)
		rc = nx_yaml_double(t, -1e12, 1e12, &m->times, err);
	m->figure = figure + 1;
	return rc;
}

/* What a counter of a known name adds to. */
static int32_t figure_of(const char *metric)
{
	if (!strcmp(metric, "dram__bytes_read.sum") || !strcmp(metric, "dram__bytes_write.sum"))
		return NX_FIGURE_BYTES;
	if (!strncmp(metric, "sm__ops_path_tensor_src_", 24) && strstr(metric, ".sum"))
		return NX_FIGURE_FLOPS;
	return strcmp(metric, "gpu__time_duration.sum") ? NX_FIGURE_NONE : NX_FIGURE_TIME;
}

static int load_counters(const struct nx_yaml *map, struct nx_metric_group *g, struct nx_err *err)
{
	if (!map || map->kind != NX_YAML_MAP || !map->n || map->n > NX_GROUP_MAX)
		return nx_fail(err, NX_EINVAL,
		               "%s: found no counters; legal: counters: with 1 to %d entries "
		               "name: metric of the device",
		               g->name, NX_GROUP_MAX);
	int rc = 0;
	for (const struct nx_yaml *v = map->first; v && !rc; v = v->next) {
		struct nx_group_metric *m = &g->m[g->n];
		const char *text;
		*m = (struct nx_group_metric){.times = 1};
		rc = nx_yaml_text(v, "a metric of the device", &text, err);
		if (!rc &&
		    (strlen(text) >= sizeof(m->name) || strlen(v->key->text) >= sizeof(m->as)))
			rc = nx_yaml_fail(v, err, NX_EINVAL,
			                  "found names of %zu and %zu characters; legal: below %zu "
			                  "and %zu",
			                  strlen(v->key->text), strlen(text), sizeof(m->as),
			                  sizeof(m->name));
		for (int32_t i = 0; !rc && i < g->n; i++)
			if (!strcmp(g->m[i].name, text))
				rc = nx_yaml_fail(
					v, err, NX_EINVAL,
					"found %.100s a second time; legal: each metric once",
					text);
		if (rc)
			break;
		snprintf(m->name, sizeof(m->name), "%s", text);
		snprintf(m->as, sizeof(m->as), "%s", v->key->text);
		m->figure = figure_of(m->name);
		snprintf(m->unit, sizeof(m->unit), "%s", strstr(m->name, ".pct") ? "%" : "count");
		g->n++;
	}
	return rc;
}

static int load_formulas(const struct nx_yaml *map, struct nx_metric_group *g, struct nx_err *err)
{
	static const char *const keys[] = {"unit", "formula", "text"};
	static const char *const columns[] = {"phase", "step", "rows", "n_emit", "step_time"};
	double values[NX_GROUP_MAX], v;
	int rc = 0;
	for (int i = 0; i < NX_GROUP_MAX; i++)
		values[i] = 1;
	if (map && (map->kind != NX_YAML_MAP || map->n > NX_FORMULAS_MAX))
		return nx_yaml_fail(map, err, NX_EINVAL,
		                    "found no formulas; legal: at most %d entries name: {unit, "
		                    "formula, text}",
		                    NX_FORMULAS_MAX);
	for (const struct nx_yaml *m = map ? map->first : NULL; m && !rc; m = m->next) {
		struct nx_group_formula *f = &g->f[g->n_formulas++];
		struct nx_err why = {0};
		if ((rc = nx_yaml_check_map(m, keys, COUNT(keys), err)) != 0 ||
		    (rc = text_of(m, "unit", "a unit", true, f->unit, sizeof(f->unit), err)) != 0 ||
		    (rc = text_of(m, "formula", "a formula of the counters", true, f->formula,
		                  sizeof(f->formula), err)) != 0 ||
		    (rc = text_of(m, "text", "what it is", false, f->text, sizeof(f->text), err)) !=
		            0)
			break;
		bool taken = false; /* by another column of the ranges; keys of a mapping differ */
		for (size_t i = 0; i < COUNT(columns); i++)
			taken |= !strcmp(m->key->text, columns[i]);
		for (int32_t i = 0; i < g->n; i++)
			taken |= !strcmp(m->key->text, g->m[i].name);
		if (taken)
			rc = nx_yaml_fail(m, err, NX_EINVAL,
			                  "found the name %.60s, which a column of the ranges has",
			                  m->key->text);
		else if (strlen(m->key->text) >= sizeof(f->name))
			rc = nx_yaml_fail(m, err, NX_EINVAL, "found a name of %zu characters",
			                  strlen(m->key->text));
		else if (nx_formula(g, f->formula, values, 1, &v, &why))
			rc = nx_yaml_fail(m, err, NX_EINVAL, "found %s", why.msg);
		else
			snprintf(f->name, sizeof(f->name), "%s", m->key->text);
	}
	return rc;
}

/* chip, and groups of counters with what is worked out of them. */
static int load_groups(const struct nx_yaml *root, struct nx_metric_group *g, const char *wanted,
                       struct nx_err *err)
{
	static const char *const root_keys[] = {"chip", "groups"};
	static const char *const keys[] = {"text", "counters", "metrics"};
	const char *names[64];
	size_t n = 0;
	int rc = nx_yaml_check_map(root, root_keys, COUNT(root_keys), err);
	const struct nx_yaml *groups = nx_yaml_get(root, "groups"), *found = NULL;
	if (rc)
		return rc;
	if (groups->kind != NX_YAML_MAP || !groups->n)
		return nx_yaml_illegal(groups, "groups by name", err);
	for (const struct nx_yaml *v = groups->first; v && n < COUNT(names); v = v->next) {
		names[n++] = v->key->text;
		if (!strcmp(v->key->text, wanted ? wanted : "default"))
			found = v;
	}
	if (!found && wanted) {
		char list[512];
		return nx_yaml_fail(groups, err, NX_EINVAL, "found no group %.60s; legal: %s",
		                    wanted, nx_list_text(list, sizeof(list), names, n));
	}
	found = found ? found : groups->first;
	snprintf(g->name, sizeof(g->name), "%.63s", found->key->text);
	rc = nx_yaml_check_map(found, keys, COUNT(keys), err);
	if (!rc)
		rc = load_counters(nx_yaml_get(found, "counters"), g, err);
	return rc ? rc : load_formulas(nx_yaml_get(found, "metrics"), g, err);
}

static int load(struct nx_arena *a, struct nx_metric_group *g, const char *path, const char *wanted,
                struct nx_err *err)
{
	static const char *const keys[] = {"metrics"};
	struct nx_yaml *root;
	char *data;
	size_t len;
	int rc = nx_file_read(a, path, NX_YAML_BYTES_MAX, &data, &len, err);
	if (!rc)
		rc = nx_yaml_parse(a, path, data, len, &root, err);
	if (!rc && nx_yaml_get(root, "groups"))
		return load_groups(root, g, wanted, err);
	if (!rc)
		rc = nx_yaml_check_map(root, keys, COUNT(keys), err);
	if (rc)
		return rc;
	const struct nx_yaml *list = nx_yaml_get(root, "metrics");
	if (!list || list->kind != NX_YAML_LIST || !list->n || list->n > NX_GROUP_MAX)
		return nx_yaml_fail(
			list ? list : root, err, NX_EINVAL,
			"found no list of metrics; legal: metrics: with 1 to %d entries "
			"{name, unit, figure, times, text}",
			NX_GROUP_MAX);
	for (const struct nx_yaml *v = list->first; v && !rc; v = v->next) {
		rc = load_metric(v, &g->m[g->n], err);
		for (int32_t i = 0; !rc && i < g->n; i++)
			if (!strcmp(g->m[i].name, g->m[g->n].name))
				rc = nx_yaml_fail(
					v, err, NX_EINVAL,
					"found %.100s a second time; legal: each metric once",
					g->m[i].name);
		g->n++;
	}
	return rc;
}

int nx_group_load(struct nx_metric_group *g, const char *path, struct nx_err *err)
{
	struct nx_arena arena = {0};
	char file[4096];
	const char *colon = strrchr(path, ':'), *wanted = NULL;
	int n = snprintf(file, sizeof(file), "%s", path);
	if (n < 0 || (size_t)n >= sizeof(file))
		return nx_fail(err, NX_EINVAL, "the path of a group of metrics is too long");
	if (!nx_file_is_regular(path) && colon) {
		file[colon - path] = '\0';
		wanted = colon + 1;
	}
	const char *base = strrchr(file, '/');
	*g = (struct nx_metric_group){.n = 0};
	snprintf(g->name, sizeof(g->name), "%.63s", base ? base + 1 : file);
	int rc = load(&arena, g, file, wanted, err);
	nx_arena_release(&arena);
	return rc;
}
