/* SPDX-License-Identifier: Apache-2.0
 *
 * bottleneck_help.c: what helps against a bound, by slot and technique. See bottleneck.h.
 *
 * Techniques are named as the design names them; one that is not built yet is named all the same, and who
 * prints the advice says that it is missing.
 */
#include <math.h>
#include <string.h>

#include "measure/bottleneck_internal.h"

#define FEW_SEQS 8       /* drafting pays while the products of more rows are nearly free */
#define MUCH_PADDING 0.1 /* of the rows */

/* Adds "what (slot: technique)" after a comma. */
static void add(const struct nx_bound_figures *f, struct nx_bottleneck *b, const char *what,
                const char *slot, const char *technique)
{
	if (technique && f->stack && strstr(f->stack, technique))
		return;
	bool first = b->helps[strlen(b->helps) - 1] == ':';
	nx_sentence_add(b->helps, sizeof(b->helps), "%s %s", first ? "" : ",", what);
	if (!technique)
		return;
	nx_sentence_add(b->helps, sizeof(b->helps), " (%s: %s)", slot, technique);
	if (b->n_techniques < NX_BOUND_HELPS)
		b->techniques[b->n_techniques++] = technique;
}

/* Rows that need not be computed come first: they cost under every bound. */
static void add_wasted_rows(const struct nx_bound_figures *f, struct nx_bottleneck *b)
{
	double again = f->rows - f->pad_rows - f->needed_rows;
	char what[96] = "";
	if (f->needed_rows > 0 && again > f->needed_rows && !(f->preempted > 0)) {
		nx_sentence_add(what, sizeof(what),
		                "keep the KV, as %.0f %% of the rows were computed before",
		                100 * again / f->rows);
		add(f, b, what, "kv_layout", "kv_cache");
	}
	if (f->rows > 0 && f->pad_rows > MUCH_PADDING * f->rows) {
		what[0] = '\0';
		nx_sentence_add(what, sizeof(what), "do without the padding, %.0f %% of the rows",
		                100 * f->pad_rows / f->rows);
		add(f, b, what, "schedule", "continuous_batching");
	}
}

static void bandwidth(const struct nx_bound_figures *f, struct nx_bottleneck *b)
{
	switch (b->traffic) {
	case NX_TRAFFIC_KV:
		add(f, b, "smaller KV", "kv_codec", "quantized_kv");
		if (!f->prompt && f->seqs <= FEW_SEQS)
			add(f, b, "several tokens for one reading of the KV", "draft",
			    "speculative");
		add(f, b, "fewer KV heads, which is another model", NULL, NULL);
		break;
	case NX_TRAFFIC_ACTIVATIONS:
		add(f, b, "scores that are never written out", "attention", "flash_attention");
		add(f, b, "fused operations, which is the kernels' work", NULL, NULL);
		break;
	default:
		add(f, b, "a larger batch, as a step reads the weights once whatever its rows",
		    NULL, NULL);
		add(f, b, "smaller weights", "weights", "weight_quant");
		if (!f->prompt && f->seqs <= FEW_SEQS)
			add(f, b, "several tokens for one reading of the weights", "draft",
			    "speculative");
	}
}

static void compute(const struct nx_bound_figures *f, struct nx_bottleneck *b)
{
	if (f->prompt) {
		add(f, b, "faster products (library, instruction set, device)", NULL, NULL);
		add(f, b, "prompts that share a beginning", "prefix", "prefix_cache");
		add(f, b, "for latency alone, chunks between the decode steps of others",
		    "schedule", "iteration_batching");
		return;
	}
	add(f, b, "faster products (library, instruction set, device)", NULL, NULL);
	add(f, b, "a smaller batch for latency, as a larger one adds no throughput here", NULL,
	    NULL);
}

static void host(const struct nx_bound_figures *f, struct nx_bottleneck *b)
{
	add(f, b, "more work a step (a larger batch)", NULL, NULL);
	add(f, b, "planning ahead, on devices that run while the host plans", NULL, NULL);
}

static void capacity(const struct nx_bound_figures *f, struct nx_bottleneck *b)
{
	if (b->memory < 0.5)
		add(f, b, "a larger KV pool, for which the device has room", NULL, NULL);
	add(f, b, "KV blocks on demand", "kv_layout", "paged_attention");
	add(f, b, "smaller KV", "kv_codec", "quantized_kv");
	add(f, b, "prompts that share a beginning", "prefix", "prefix_cache");
	add(f, b, "smaller weights", "weights", "weight_quant");
}

static void launch(const struct nx_bound_figures *f, struct nx_bottleneck *b)
{
	add(f, b, "one launch for a whole step", "launch", "cuda_graph");
	add(f, b, "more work a step (a larger batch)", NULL, NULL);
}

static void mixed(const struct nx_bound_figures *f, struct nx_bottleneck *b)
{
	double sum = (isfinite(b->bandwidth) ? b->bandwidth : 0) +
	             (isfinite(b->compute) ? b->compute : 0);
	if (b->nearest == NX_BOUND_LAUNCH)
		launch(f, b);
	else if (b->host >= NX_BOUND_LEAST / 2)
		host(f, b);
	else if (sum < NX_BOUND_LEAST && !f->disturbed)
		/* What is left of the time is neither bytes nor products: ends of short operations, waits. */
		add(f, b,
		    f->prompt ? "longer prompts or more of them a step, as neither peak is near"
		              : "more rows a step (a larger batch), as neither peak is near",
		    NULL, NULL);
	else if (sum < NX_BOUND_LEAST)
		return;
	else if (b->nearest == NX_BOUND_BANDWIDTH)
		bandwidth(f, b);
	else if (b->nearest == NX_BOUND_COMPUTE)
		compute(f, b);
}

void nx_bottleneck_help(const struct nx_bound_figures *f, struct nx_bottleneck *b)
{
	if (b->bound == NX_BOUND_UNKNOWN) {
		nx_sentence_add(b->helps, sizeof(b->helps), "%s",
		                f->time_s > 0 && f->steps > 0
		                        ? "Measure the peaks: NEXUS_CALIBRATE=2 or unset."
		                        : "");
		return;
	}
	nx_sentence_add(b->helps, sizeof(b->helps), "What would help:");
	if (f->disturbed)
		add(f, b, "first an idle machine, as other processes took part of this one", NULL,
		    NULL);
	add_wasted_rows(f, b);
	switch (b->bound) {
	case NX_BOUND_CAPACITY: capacity(f, b); break;
	case NX_BOUND_BANDWIDTH: bandwidth(f, b); break;
	case NX_BOUND_COMPUTE: compute(f, b); break;
	case NX_BOUND_HOST: host(f, b); break;
	case NX_BOUND_LAUNCH: launch(f, b); break;
	default: mixed(f, b);
	}
	if (b->helps[strlen(b->helps) - 1] == ':') {
		b->helps[0] = '\0';
		nx_sentence_add(
			b->helps, sizeof(b->helps),
			"The stack has all that would help; what is left is another device, model or load");
	}
	nx_sentence_add(b->helps, sizeof(b->helps), ".");
}
