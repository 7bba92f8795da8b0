/* SPDX-License-Identifier: Apache-2.0
 *
 * forecast.c: does a cell fit, before anything is allocated? See runner.h.
 */
#include <stdio.h>
#include <string.h>

#include "measure/runner.h"
#include "measure/workload.h"

static void refuse(struct nx_forecast *f, int code, const char *text)
{
	f->code = code;
	snprintf(f->reason, sizeof(f->reason), "%s", text);
}

static const char *bytes_text(uint64_t bytes, char *buf, size_t size)
{
	double gb = (double)bytes / 1e9;
	if (gb >= 1)
		snprintf(buf, size, gb < 10 ? "%.1f GB" : "%.0f GB", gb);
	else
		snprintf(buf, size, "%.1f MB", (double)bytes / 1e6);
	return buf;
}

void nx_runner_forecast(const struct nx_runner_config *c, const struct nx_cell *cell,
                        struct nx_forecast *out)
{
	memset(out, 0, sizeof(*out));
	char text[NX_ERR_MAX], a[32], b[32], context[96];
	out->longest = nx_cell_longest(cell);
	out->batch_size = cell->batch_size;
	if (out->longest > c->shape->ctx_len) {
		if (cell->longest)
			snprintf(
				text, sizeof(text),
				"the trace's longest request of %d tokens is over the model's context %s; cap it, such as seq_len: {trace: {max: %d}}",
				out->longest, nx_context_text(c->shape, context, sizeof(context)),
				c->shape->ctx_len / 2);
		else
			snprintf(
				text, sizeof(text),
				"prompt %d + output %d is over the model's context %s; legal: a shorter seq_len or output_len",
				cell->seq_len.max, cell->output_len.max,
				nx_context_text(c->shape, context, sizeof(context)));
		refuse(out, NX_ESKIP, text);
		return;
	}
	const struct nx_engine_config ec = {
		.weights = c->weights,
		.stack = &cell->stack->stack,
		.batch_size = cell->batch_size,
		.samples = c->samples,
		.max_len = c->shape->ctx_len,
		.longest_request = out->longest,
		.longest_prompt = cell->seq_len.max,
		.kv_budget_bytes = c->kv_budget_bytes,
		.invariant = c->invariant,
	};
	struct nx_err err = {0};
	/* It returns a count: that it failed shows in err alone. */
	out->n_mem = nx_engine_forecast(&ec, c->shape, out->mem, NX_TRIAL_MEM_MAX, &err);
	if (err.code) {
		out->n_mem = 0;
		refuse(out, err.code, err.msg);
		return;
	}
	for (size_t i = 0; i < out->n_mem; i++)
		out->total_bytes += out->mem[i].reserved_bytes;
	if (c->fits_bytes && out->total_bytes > c->fits_bytes) {
		snprintf(text, sizeof(text), "needs %s, device has %s",
		         bytes_text(out->total_bytes, a, sizeof(a)),
		         bytes_text(c->fits_bytes, b, sizeof(b)));
		refuse(out, NX_ESKIP, text);
	}
}

/* ---- the largest batch ------------------------------------------------------------------------ */

static uint64_t kv_bytes(const struct nx_forecast *f)
{
	for (size_t i = 0; i < f->n_mem; i++)
		if (!strcmp(f->mem[i].owner, "kv"))
			return f->mem[i].reserved_bytes;
	return 0;
}

/* Without a limit of its own the store holds every sequence at its longest: that is what kv_memory has to hold. */
static bool holds(const struct nx_runner_config *c, const struct nx_cell *cell, int32_t batch_size,
                  struct nx_forecast *out)
{
	struct nx_runner_config free = *c;
	struct nx_cell at = *cell;
	free.kv_budget_bytes = 0;
	at.batch_size = batch_size;
	nx_runner_forecast(&free, &at, out);
	return !out->code && (!c->kv_budget_bytes || kv_bytes(out) <= c->kv_budget_bytes);
}

int32_t nx_runner_fit(const struct nx_runner_config *c, const struct nx_cell *cell,
                      struct nx_forecast *out)
{
	char text[NX_ERR_MAX], a[32], b[32];
	struct nx_forecast two;
	if (!holds(c, cell, 1, out)) {
		if (!out->code) {
			snprintf(text, sizeof(text),
			         "one request takes %s of KV rows, kv_memory is %s",
			         bytes_text(kv_bytes(out), a, sizeof(a)),
			         bytes_text(c->kv_budget_bytes, b, sizeof(b)));
			refuse(out, NX_ESKIP, text);
		}
		return 0;
	}
	if (holds(c, cell, 2, &two) && kv_bytes(&two) == kv_bytes(out)) {
		refuse(out, NX_ESKIP,
		       "the KV store has one size for every batch size, so none is the largest that fits; legal: a layout without num_blocks, and kv_memory");
		return 0;
	}
	int32_t good = 1, bad = 2;
	while (bad <= NX_BATCH_MAX && holds(c, cell, bad, &two)) {
		good = bad;
		bad *= 2;
	}
	if (bad > NX_BATCH_MAX)
		bad = NX_BATCH_MAX + 1;
	while (bad - good > 1) {
		int32_t mid = good + (bad - good) / 2;
		if (holds(c, cell, mid, &two))
			good = mid;
		else
			bad = mid;
	}
	struct nx_cell at = *cell;
	at.batch_size = good;
	nx_runner_forecast(c, &at, out);
	return out->code ? 0 : good;
}
