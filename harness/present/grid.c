/* SPDX-License-Identifier: Apache-2.0 */
/* See grid.h. */
#include "measure/gate.h"
#include "present/grid.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

/* A mean that is not known (no trial ran) comes last. */
static int by_mean(double x, double y)
{
	if (isnan(x) || isnan(y))
		return isnan(x) - isnan(y);
	return (x > y) - (x < y);
}

static int by_means(const void *a, const void *b)
{
	const struct nx_lengths *x = a, *y = b;
	int by_seq = by_mean(x->seq, y->seq), by_out = by_mean(x->out, y->out);
	if (by_seq || by_out)
		return by_seq ? by_seq : by_out;
	int c = strcmp(x->seq_text, y->seq_text);
	return c ? c : strcmp(x->out_text, y->out_text);
}

static int by_value(const void *a, const void *b)
{
	int32_t x = *(const int32_t *)a, y = *(const int32_t *)b;
	if (x == NX_BATCH_FIT || y == NX_BATCH_FIT)
		return (x == NX_BATCH_FIT) - (y == NX_BATCH_FIT);
	return (x > y) - (x < y);
}

static bool has_lengths(const struct nx_lengths *l, const struct nx_cell_row *c)
{
	return !strcmp(l->seq_text, c->seq_len_text) && !strcmp(l->out_text, c->output_len_text);
}

int32_t nx_cell_batch(const struct nx_cell_row *c)
{
	return c->fit > 0 ? NX_BATCH_FIT : c->batch_size;
}

const char *nx_batch_text(int32_t batch, char *buf, size_t size)
{
	if (batch == NX_BATCH_FIT)
		snprintf(buf, size, "the largest batch that fits");
	else
		snprintf(buf, size, "batch size %d", batch);
	return buf;
}

const char *nx_cell_batch_text(const struct nx_cell_row *c, char *buf, size_t size)
{
	if (c->fit > 0 && c->batch_size == NX_BATCH_FIT)
		snprintf(buf, size, c->n_trials ? "none fits" : "not reached");
	else
		snprintf(buf, size, "%d%s", c->batch_size, c->fit > 0 ? " (largest)" : "");
	return buf;
}

int nx_grid_init(struct nx_grid *g, const struct nx_run *run, struct nx_err *err)
{
	*g = (struct nx_grid){.run = run};
	g->lengths = calloc(run->n_cells + 1, sizeof(*g->lengths));
	g->batches = calloc(run->n_cells + 1, sizeof(*g->batches));
	if (!g->lengths || !g->batches) {
		nx_grid_release(g);
		return nx_fail(err, NX_ENOMEM, "%s: no memory to sort %zu cells", run->path,
		               run->n_cells);
	}
	for (size_t i = 0; i < run->n_cells; i++) {
		const struct nx_cell_row *c = &run->cells[i];
		size_t k = 0;
		while (k < g->n_lengths && !has_lengths(&g->lengths[k], c))
			k++;
		if (k == g->n_lengths)
			g->lengths[g->n_lengths++] =
				(struct nx_lengths){.seq_text = c->seq_len_text,
			                            .out_text = c->output_len_text,
			                            .seq = c->seq_len,
			                            .out = c->output_len};
		/* Of lengths that are read the mean is known where a trial ran. */
		if (isnan(g->lengths[k].seq))
			g->lengths[k].seq = c->seq_len;
		if (isnan(g->lengths[k].out))
			g->lengths[k].out = c->output_len;
		for (k = 0; k < g->n_batches && g->batches[k] != nx_cell_batch(c);)
			k++;
		if (k == g->n_batches)
			g->batches[g->n_batches++] = nx_cell_batch(c);
	}
	qsort(g->lengths, g->n_lengths, sizeof(*g->lengths), by_means);
	qsort(g->batches, g->n_batches, sizeof(*g->batches), by_value);
	return 0;
}

void nx_grid_release(struct nx_grid *g)
{
	free(g->lengths);
	free(g->batches);
	*g = (struct nx_grid){0};
}

const struct nx_cell_row *nx_grid_cell(const struct nx_grid *g, size_t length, size_t batch,
                                       size_t stack)
{
	for (size_t i = 0; i < g->run->n_cells; i++) {
		const struct nx_cell_row *c = &g->run->cells[i];
		if (c->stack_index == (int32_t)stack && nx_cell_batch(c) == g->batches[batch] &&
		    has_lengths(&g->lengths[length], c))
			return c;
	}
	return NULL;
}

bool nx_cell_usable(const struct nx_cell_row *c)
{
	return c->status == NX_STATUS_OK && isfinite(c->metrics[NX_METRIC_OUTPUT_THROUGHPUT].value);
}

const char *nx_missing_reason(const struct nx_cell_row *c, enum nx_metric m)
{
	if (c->status != NX_STATUS_OK)
		return nx_status_name(c->status);
	switch (m) {
	case NX_METRIC_GOODPUT: return "no objective set";
	case NX_METRIC_TPOT_MEAN:
	case NX_METRIC_TPOT_P50:
	case NX_METRIC_TPOT_P90:
	case NX_METRIC_TPOT_P95:
	case NX_METRIC_TPOT_P99: return "outputs under 2 tokens";
	case NX_METRIC_ITL_P50:
	case NX_METRIC_ITL_P99: return "too few steps";
	case NX_METRIC_DRAFT_ACCEPTANCE:
	case NX_METRIC_DRAFT_SHARE: return "nothing was drafted";
	case NX_METRIC_TAU: return "no steps logged";
	case NX_METRIC_UTIL_MEM_CAPACITY: return "device memory unknown";
	case NX_METRIC_UTIL_COMPUTE:
	case NX_METRIC_UTIL_BANDWIDTH:
		return c->util_source == NX_UTIL_NONE ? "not counted" : "no peak measured";
	case NX_METRIC_KV_WASTE:
	case NX_METRIC_KV_RESERVED_PEAK:
	case NX_METRIC_KV_USED_PEAK: return "no KV rows logged";
	case NX_METRIC_PREFILL_THROUGHPUT: return "no pure prefill step";
	case NX_METRIC_DECODE_STEP_P50: return "no pure decode step";
	default: return "not recorded";
	}
}

const char *nx_verdict_word(int verdict)
{
	switch (verdict) {
	case NX_VERDICT_FASTER: return "faster";
	case NX_VERDICT_SLOWER: return "slower";
	case NX_VERDICT_SAME: return "same";
	case NX_VERDICT_UNCLEAR: return "unclear";
	default: return "no verdict";
	}
}

const char *nx_util_source_word(int source)
{
	static const char *const words[] = {
#define X(id, name) name,
		NX_UTIL_SOURCES(X)
#undef X
	};
	return source >= 0 && source < (int)(sizeof(words) / sizeof(words[0])) ? words[source]
	                                                                       : "none";
}

const char *nx_gate_word(const struct nx_gate *g)
{
	static const char *const words[] = {"exact", "near ties only", "inconclusive", "FAILED"};
	if (!g->ran)
		return g->verdict == NX_GATE_RANDOM_WEIGHTS ? "random weights" : "not run";
	return g->verdict >= 0 && g->verdict < 4 ? words[g->verdict] : "not known to this version";
}

const char *nx_run_reference(const struct nx_run *r)
{
	return r->head.reference < r->n_stacks ? r->stacks[r->head.reference] : "none";
}

const char *nx_run_fact(const struct nx_run *r, const char *const *keys)
{
	for (; *keys; keys++) {
		for (size_t i = 0; i < r->head.n_facts; i++)
			if (!strcmp(r->head.facts[i].key, *keys) && r->head.facts[i].value[0])
				return r->head.facts[i].value;
	}
	return NULL;
}

const char *nx_lengths_text(const struct nx_lengths *l, char *buf, size_t size)
{
	snprintf(buf, size, "prompt %s, output %s tokens", l->seq_text, l->out_text);
	return buf;
}
