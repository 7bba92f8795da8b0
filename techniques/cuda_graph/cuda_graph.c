/* SPDX-License-Identifier: Apache-2.0
 *
 * cuda_graph: the work of a step is captured once and launched as one graph from then on, so that the host spends
 * microseconds where it would launch hundreds of kernels. The engine captures and keeps the graphs
 * (engine/launch.c); this says which steps, and how many.
 */
#include <stdlib.h>

#include "nexus/technique.h"

struct graphs {
	struct nx_launch_stats stats;
	int32_t max_rows, max_graphs, key_bucket;
};

static int probe(struct nx_probe *p, struct nx_err *err)
{
	if (p->device_caps & NX_DEV_GRAPHS)
		return 0;
	return nx_fail(err, NX_ENOTSUP,
	               "cuda_graph: the device %s has no graphs; take it out of the stack",
	               p->device_kind);
}

static int create(void **self, const struct nx_host *host, const struct nx_value *values,
                  struct nx_err *err)
{
	(void)host;
	struct graphs *g = calloc(1, sizeof(*g));
	if (!g)
		return nx_fail(err, NX_ENOMEM, "cuda_graph: out of memory");
	g->max_rows = (int32_t)values[0].i;
	g->max_graphs = (int32_t)values[1].i;
	g->key_bucket = (int32_t)values[2].i;
	*self = g;
	return 0;
}

static void reset(void *self)
{
	((struct graphs *)self)->stats = (struct nx_launch_stats){0};
}

static void read_counters(void *self, double *values)
{
	const struct nx_launch_stats *s = &((const struct graphs *)self)->stats;
	values[0] = (double)s->captured;
	values[1] = (double)s->replayed;
	values[2] = (double)s->eager;
	values[3] = (double)s->dropped;
}

static int launch_plan(void *self, const struct nx_launch_limits *l, struct nx_launch_plan *out,
                       struct nx_err *err)
{
	struct graphs *g = self;
	(void)l;
	(void)err;
	*out = (struct nx_launch_plan){.graphs = true,
	                               .max_rows = g->max_rows,
	                               .max_graphs = g->max_graphs,
	                               .key_bucket = g->key_bucket,
	                               .stats = &g->stats};
	return 0;
}

static const struct nx_param params[] = {
	{"max_rows", NX_PARAM_INT, "256", 1, 1 << 20, NULL, "rows",
         "steps of more rows are launched kernel by kernel: their kernels are long enough to hide it"},
	{"max_graphs", NX_PARAM_INT, "64", 1, 4096, NULL, "",
         "graphs kept; the one used longest ago is given up first"},
	{"key_bucket", NX_PARAM_INT, "256", 16, 1 << 20, NULL, "tokens",
         "a graph serves steps whose longest sequence, rounded up to a power of two times this, is the same"},
	{0},
};

static const struct nx_counter counters[] = {
	{"captured", "graphs", "graphs made"},
	{"replayed", "steps", "steps that were one launch of a graph"},
	{"eager", "steps", "steps launched kernel by kernel"},
	{"dropped", "graphs", "graphs given up for newer ones"},
	{0},
};

static const struct nx_technique cuda_graph = {
	NX_TECHNIQUE_HEAD,
	.name = "cuda_graph",
	.version = "1",
	.summary = "a step's kernels captured once, then launched as one graph",
	.source =
		"CUDA C++ Programming Guide, section CUDA Graphs; performance bounds in PyGraph 2503.19779",
	.params = params,
	.counters = counters,
	.flags = NX_TECH_EXACT,
	.probe = probe,
	.create = create,
	.reset = reset,
	.destroy = free,
	.read_counters = read_counters,
	.launch_plan = launch_plan,
};

NX_TECHNIQUE(&cuda_graph);
