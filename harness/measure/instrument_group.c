/* SPDX-License-Identifier: Apache-2.0
 *
 * instrument_group.c: groups of metrics: the one that is built in, and those of data files. See instrument.h.
 */
#include <string.h>

#include "base/file.h"
#include "base/yaml.h"
#include "measure/instrument.h"

#define COUNT(a) (sizeof(a) / sizeof((a)[0]))

/* Together one pass on Hopper. The first come first where a device takes fewer at once. */
static const struct nx_group_metric built_in[] = {
	{"dram__bytes_read.sum", "bytes", NX_FIGURE_BYTES, 1, "read from memory"},
	{"dram__bytes_write.sum", "bytes", NX_FIGURE_BYTES, 1, "written to memory"},
	{"sm__ops_path_tensor_src_bf16_dst_fp32.sum", "flop", NX_FIGURE_FLOPS, 1,
         "operations of the tensor cores, bf16"},
	{"gpu__time_duration.sum", "ns", NX_FIGURE_TIME, 1, "time of the device"},
	{"sm__cycles_active.avg.pct_of_peak_sustained_elapsed", "%", NX_FIGURE_NONE, 1,
         "SMs with work"},
	{"sm__pipe_tensor_cycles_active.avg.pct_of_peak_sustained_elapsed", "%", NX_FIGURE_NONE, 1,
         "tensor cores at work"},
	{"sm__warps_active.avg.pct_of_peak_sustained_active", "%", NX_FIGURE_NONE, 1,
         "warps of an SM, of the most it can hold"},
	{"dram__throughput.avg.pct_of_peak_sustained_elapsed", "%", NX_FIGURE_NONE, 1,
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

static int load(struct nx_arena *a, struct nx_metric_group *g, const char *path, struct nx_err *err)
{
	static const char *const keys[] = {"metrics"};
	struct nx_yaml *root;
	char *data;
	size_t len;
	int rc = nx_file_read(a, path, NX_YAML_BYTES_MAX, &data, &len, err);
	if (!rc)
		rc = nx_yaml_parse(a, path, data, len, &root, err);
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
	const char *base = strrchr(path, '/');
	*g = (struct nx_metric_group){.n = 0};
	snprintf(g->name, sizeof(g->name), "%.63s", base ? base + 1 : path);
	int rc = load(&arena, g, path, err);
	nx_arena_release(&arena);
	return rc;
}
