/* SPDX-License-Identifier: Apache-2.0
 *
 * measure/cells.c: the points of a sweep and their ids.
 */
#include <string.h>

#include "base/file.h"
#include "base/hash.h"
#include "measure/experiment_internal.h"
#include "measure/trace.h"

/* All that changes what a trial of the cell measures. Files count by their names, so that a run can go on
 * in another folder; that their content is the same is checked when a run is resumed. The stack's name
 * counts too: two stacks of one content (an A/A comparison) are two cells. */
static void make_id(const struct nx_experiment *x, struct nx_cell *c)
{
	char text[512], seq[128], out[128];
	const struct nx_workload_spec *w = &x->workload;
	struct nx_hash h;
	nx_hash_init(&h);
	nx_hash_str(&h, "nexus cell 1");
	nx_hash_str(&h, nx_path_base(x->model));
	nx_hash_str(&h, c->stack->name);
	nx_hash_str(&h, c->stack->spec);
	snprintf(text, sizeof(text), "batch=%d seq=%s out=%s requests=%d", c->batch_size,
	         nx_dist_text(&c->seq_len, seq, sizeof(seq)),
	         nx_dist_text(&c->output_len, out, sizeof(out)), c->num_requests);
	nx_hash_str(&h, text);
	if (c->fit) {
		snprintf(text, sizeof(text), "fit per_slot=%d", x->requests_per_slot);
		nx_hash_str(&h, text);
	}
	nx_hash_str(&h, w->prompts ? nx_path_base(w->prompts) : NX_RANDOM_PROMPTS);
	snprintf(text, sizeof(text), "samples=%d seed=%llu eos=%d t=%.9g k=%d p=%.9g m=%.9g",
	         w->samples, (unsigned long long)w->seed, w->ignore_eos, (double)w->temperature,
	         w->top_k, (double)w->top_p, (double)w->min_p);
	nx_hash_str(&h, text);
	snprintf(text, sizeof(text), "turns=%d", (int)w->turns);
	nx_hash_str(&h, text);
	nx_hash_str(&h, w->trace ? nx_path_base(w->trace->path) : "");
	if (w->answers != NX_ANSWERS_MODEL)
		nx_hash_str(&h, "answers=file");
	if (w->groups > 1) { /* else as it was before there were groups: runs can go on */
		snprintf(text, sizeof(text), "groups=%d", w->groups);
		nx_hash_str(&h, text);
	}
	snprintf(text, sizeof(text), "device=%s dtype=%d invariant=%d threads=%d kv=%llu",
	         x->device, (int)x->dtype, x->invariant, x->threads,
	         (unsigned long long)x->kv_budget_bytes);
	nx_hash_str(&h, text);
	snprintf(c->id, sizeof(c->id), "%016llx", (unsigned long long)nx_hash_value(&h));
}

static int32_t clip(const struct nx_dist *d, int32_t n)
{
	if (d->kind != NX_DIST_TRACE)
		return d->max;
	return n < d->min ? d->min : n > d->max ? d->max : n;
}

/* Of the rows that the cell's requests take; 0 where no length is the trace's. */
static int32_t longest(const struct nx_experiment *x, const struct nx_cell *c)
{
	const struct nx_trace *t = x->workload.trace;
	int32_t most = 0;
	if (!t || (c->seq_len.kind != NX_DIST_TRACE && c->output_len.kind != NX_DIST_TRACE))
		return 0;
	/* How many requests there are is not known before the batch size is. */
	size_t n = c->num_requests ? (size_t)c->num_requests : t->n;
	for (size_t i = 0; i < t->n && i < n; i++) {
		int32_t sum =
			clip(&c->seq_len, t->rows[i].n_in) + clip(&c->output_len, t->rows[i].n_out);
		most = sum > most ? sum : most;
	}
	return most;
}

void nx_experiment_settle(struct nx_experiment *x, size_t cell, int32_t batch_size)
{
	struct nx_experiment_full *full = (struct nx_experiment_full *)x;
	struct nx_cell *c = cell < full->n_cells ? &full->cells[cell] : NULL;
	if (!c || !c->fit)
		return;
	c->batch_size = batch_size;
	c->num_requests = x->num_requests ? x->num_requests : x->requests_per_slot * batch_size;
	c->longest = longest(x, c);
}

int nx_load_cells(struct nx_loading *l, struct nx_err *err)
{
	struct nx_experiment_full *full = l->full;
	const struct nx_experiment *x = &full->x;
	/* Axes have at most NX_AXIS_MAX values, stacks NX_STACKS_MAX: the product fits 64 bits. */
	size_t n = x->n_batch_size * x->n_seq_len * x->n_output_len * x->n_stacks;
	if (n > NX_CELLS_MAX) {
		const struct nx_yaml *sweep = nx_yaml_get(l->root, "sweep");
		return nx_yaml_fail(sweep ? sweep : l->root, err, NX_EINVAL,
		                    "found a sweep of %zu cells; legal: at most %d", n,
		                    NX_CELLS_MAX);
	}
	struct nx_cell *c = full->cells = nx_arena_array(l->arena, n, sizeof(*c));
	if (!c)
		return nx_oom(err);
	full->n_cells = n;
	for (size_t i = 0; i < n; i++, c++) {
		size_t rest = i;
		c->index = i;
		c->stack_index = rest % x->n_stacks;
		rest /= x->n_stacks;
		c->output_len_index = rest % x->n_output_len;
		rest /= x->n_output_len;
		c->seq_len_index = rest % x->n_seq_len;
		rest /= x->n_seq_len;
		c->stack = &x->stacks[c->stack_index];
		c->batch_size = x->batch_size[rest];
		c->fit = c->batch_size == NX_BATCH_FIT;
		c->seq_len = x->seq_len[c->seq_len_index];
		c->output_len = x->output_len[c->output_len_index];
		c->num_requests =
			x->num_requests ? x->num_requests : x->requests_per_slot * c->batch_size;
		c->samples = x->workload.samples;
		c->longest = longest(x, c);
		make_id(x, c);
	}
	return 0;
}
