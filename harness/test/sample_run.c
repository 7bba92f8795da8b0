/* SPDX-License-Identifier: Apache-2.0 */
/* See sample_run.h. */
#include "sample_run.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#define SAMPLES 200

static const char *const NAMES[] = {"baseline",
                                    "static",
                                    "paged_attention",
                                    "continuous_batching",
                                    "production",
                                    "paged[block_size=16]",
                                    "paged[block_size=64]",
                                    "prefix_cache",
                                    "speculative[k=4]",
                                    "quantized_kv[type=int8]",
                                    "plain",
                                    "chunked_prefill"};
#define N_NAMES ((int)(sizeof(NAMES) / sizeof(NAMES[0])))

/* Facts like those of a real run. */
static const struct nx_fact FACTS[] = {
	{"model", "experiments/models/nano/target.gguf"},
	{"device", "cpu"},
	{"dtype", "bf16"},
	{"threads", "16"},
	{"seed", "42"},
	{"commit", "0123456789abcdef0123456789abcdef01234567"},
	{"dirty", "no"},
	{"started", "2026-01-31T12:00:00Z"},
	{"os", "Linux 6.1"},
	{"argv", "nexus run experiments/serving.yaml -o results/serving.h5"},
	{"binary_sha256", "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"},
};

/* A number in [0, 1), the same on every machine. */
static double noise(unsigned *state)
{
	*state = *state * 1664525u + 1013904223u;
	return (double)(*state >> 8) / (double)(1u << 24);
}

static struct nx_estimate around(double v, double rel)
{
	return (struct nx_estimate){v, v * (1 - rel), v * (1 + rel)};
}

static void add_memory(struct nx_cell_row *c, const char *owner, double reserved, double used)
{
	struct nx_mem_use *u = &c->mem[c->n_mem++];
	snprintf(u->owner, sizeof(u->owner), "%.31s", owner);
	u->reserved_bytes = (uint64_t)reserved;
	u->peak_used_bytes = (uint64_t)used;
}

static double *samples(double median, double spread, unsigned *state)
{
	double *v = malloc(SAMPLES * sizeof(*v));
	for (int i = 0; v && i < SAMPLES; i++) {
		double normal = noise(state) + noise(state) + noise(state) + noise(state) - 2;
		v[i] = median * exp(spread * normal);
	}
	return v;
}

/* Steps of prompts and of decoding, as far below the roofs as the stack is slow. */
static void fill_phases(struct nx_cell_row *c, int stack)
{
	double batch = c->batch_size, bytes = 7e6 + 4096 * batch * c->seq_len;
	double rows = batch * c->seq_len, gain = 1 + 0.17 * stack;
	c->phases[NX_PHASE_PREFILL] =
		(struct nx_phase_use){.phase = NX_PHASE_PREFILL,
	                              .n_steps = 4,
	                              .rows = (int64_t)(4 * rows),
	                              .n_seqs = (int64_t)(4 * batch),
	                              .time_ns = (uint64_t)(4 * rows * 7e6 * 2 / 600 / gain),
	                              .counted = {28000000, (uint64_t)(4096 * rows), 1u << 22,
	                                          (uint64_t)(4 * rows * 7e6 * 2)},
	                              .perf_llc_misses = NAN};
	c->phases[NX_PHASE_DECODE] =
		(struct nx_phase_use){.phase = NX_PHASE_DECODE,
	                              .n_steps = 252,
	                              .rows = (int64_t)(252 * batch),
	                              .n_seqs = (int64_t)(252 * batch),
	                              .time_ns = (uint64_t)(252 * bytes / 60 / gain),
	                              .counted = {7000000ull * 252, (uint64_t)(252 * (bytes - 7e6)),
	                                          1u << 20, (uint64_t)(252 * batch * 14e6)},
	                              .perf_llc_misses = NAN};
}

/* One stack was looked at with a device's instruments. */
static void fill_profiled(struct nx_cell_row *c)
{
	static const struct nx_trace_record trace[] = {{0, 700, NX_TRACE_KERNEL, "gemm_64x256"},
	                                               {700, 900, NX_TRACE_KERNEL, "attention"},
	                                               {950, 1000, NX_TRACE_COPY, ""}};
	struct nx_profiled *p = calloc(1, sizeof(*p));
	if (!p)
		return;
	nx_profiled_init(p);
	c->profiled = p;
	c->device = (struct nx_cell_device){61, 690, 1.7e9, 7e10, 0, NX_THROTTLE_POWER, 5};
	nx_group_default(&p->group);
	p->n_steps = p->n_same = 256;
	p->n_trace_steps = 16;
	nx_profiled_add_trace(p, trace, 3, NULL);
	p->ranges = calloc(1, sizeof(*p->ranges));
	p->n_ranges = p->ranges != NULL;
	if (p->ranges) {
		p->ranges[0].phase = NX_PHASE_DECODE;
		p->ranges[0].values[0] = 1.5 * (7e6 + 4096 * c->batch_size * c->seq_len);
	}
}

static void fill_figures(struct nx_cell_row *c, int stack, unsigned *state)
{
	double batch = c->batch_size, gain = 1 + 0.17 * stack, rel = 0.004 + 0.02 * noise(state);
	double tpot = (7 + 0.24 * batch + 0.0011 * c->seq_len * sqrt(batch)) / gain *
	              (1 + 0.03 * noise(state));
	double ttft = (20 + 0.11 * c->seq_len * sqrt(batch)) / (1 + 0.08 * stack);
	struct nx_estimate *m = c->metrics;
	m[NX_METRIC_OUTPUT_THROUGHPUT] = around(1000 * batch / tpot, rel);
	m[NX_METRIC_TPOT_P50] = around(tpot, rel);
	m[NX_METRIC_TPOT_P99] = around(tpot * 1.4, rel * 3);
	m[NX_METRIC_TTFT_P50] = around(ttft, rel);
	m[NX_METRIC_TTFT_P99] = around(ttft * 2.3, rel * 3);
	m[NX_METRIC_KV_WASTE] = around(stack < 2 ? 0.63 : 0.04, 0.01);
	m[NX_METRIC_UTIL_MEM_CAPACITY] = around(0.02 + 0.004 * batch, 0.001);
	m[NX_METRIC_UTIL_COMPUTE] = around(0.03 * gain * sqrt(batch), 0.01);
	m[NX_METRIC_UTIL_BANDWIDTH] = around(fmin(0.95, 0.35 * gain), 0.01);
	c->util_source = NX_UTIL_COUNTED;
	double kv = batch * c->seq_len * 4096;
	add_memory(c, "weights", 7e6, 7e6);
	add_memory(c, "kv", stack < 2 ? 2.6 * kv : kv * 1.05, kv);
	add_memory(c, "workspace", 2e6 + 1e5 * batch, 2e6);
	add_memory(c, "activations", 1e6 + 2e5 * batch, 1e6);
	if (stack > 3)
		add_memory(c, c->stack, 3e6, 2e6);
	fill_phases(c, stack);
	if (stack == 4)
		fill_profiled(c);
	c->ttft_ms = samples(ttft, 0.5, state);
	c->tpot_ms = samples(tpot, 0.12, state);
	c->n_ttft = c->ttft_ms ? SAMPLES : 0;
	c->n_tpot = c->tpot_ms ? SAMPLES : 0;
	if (stack == 0)
		return;
	snprintf(c->counters[0].name, sizeof(c->counters[0].name), "%.40s.blocks_peak", c->stack);
	c->counters[0].unit = "blocks";
	c->counters[0].value = kv / 65536;
	c->n_counters = 1;
	c->speedup = around(gain, rel * 1.4);
	c->p_value = 0.002;
	c->verdict = stack == 1 ? NX_VERDICT_UNCLEAR : NX_VERDICT_FASTER;
}

static void fail(struct nx_cell_row *c, int status, const char *cause)
{
	c->status = status;
	c->n_ok = 0;
	snprintf(c->cause, sizeof(c->cause), "%s", cause);
}

static void fill_cell(struct nx_cell_row *c, const struct nx_sample_options *o, int stack,
                      int batch, int length, unsigned *state)
{
	bool last = batch == o->n_batches - 1 && o->flags & NX_SAMPLE_FAILURES;
	for (int m = 0; m < NX_METRIC_COUNT; m++)
		c->metrics[m] = (struct nx_estimate){NAN, NAN, NAN};
	c->speedup = c->metrics[0];
	c->p_value = NAN;
	c->seq_len = 128 << length;
	bool skew = o->flags & NX_SAMPLE_SKEW && length % 2;
	c->output_len = skew ? 200 : 64;
	snprintf(c->seq_len_text, sizeof(c->seq_len_text), "%d", 128 << length);
	snprintf(c->output_len_text, sizeof(c->output_len_text), "%s",
	         skew ? "lognormal mean 200 sigma 1 max 1024" : "64");
	c->num_requests = 4 * c->batch_size;
	c->n_trials = c->n_ok = 5;
	if (o->flags & NX_SAMPLE_NO_FIGURES)
		fail(c, NX_STATUS_FAILED,
		     "the backend refused the model: no kernel for head size 80");
	else if (last && stack == 1)
		fail(c, NX_STATUS_SKIPPED, "needs 91 GB, device has 78 GB");
	else if (last && stack == 2 && length == 0)
		fail(c, NX_STATUS_OUT_OF_MEMORY,
		     "the pool of 2048 blocks was exhausted while admitting request 17");
	else
		fill_figures(c, stack, state);
	if (last && stack == 3 && c->status == NX_STATUS_OK) {
		c->gate = (struct nx_gate){.ran = 1,
		                           .n_positions = 640,
		                           .n_equal = 630,
		                           .n_near_tie = 4,
		                           .n_wrong = 6,
		                           .near_tie_width = 0.01,
		                           .verdict = 3,
		                           .first_request = 2,
		                           .first_index = 31,
		                           .first_gap = 0.8};
		fail(c, NX_STATUS_INEXACT, "6 of 640 tokens differ from the stack's own numerics");
		snprintf(c->speedup_note, sizeof(c->speedup_note), "withheld: gate failed");
	} else if (batch == 0 && c->status == NX_STATUS_OK) {
		c->gate = (struct nx_gate){.ran = 1,
		                           .n_positions = 640,
		                           .n_equal = 638,
		                           .n_near_tie = 2,
		                           .verdict = 1,
		                           .first_request = -1,
		                           .first_index = -1};
	}
}

struct nx_run *nx_sample_run(const struct nx_sample_options *o)
{
	struct nx_run *r = calloc(1, sizeof(*r));
	if (!r)
		return NULL;
	unsigned state = 1;
	snprintf(r->path, sizeof(r->path), "serving.h5");
	r->head.name = "serving";
	r->head.question = "Which stack serves a chat load best on this CPU?";
	r->head.config_text =
		"# Which stack serves a chat load best on this CPU?\nmodel: nano\nsweep:\n  "
		"stack: [baseline, production]\n";
	r->head.min_effect = 0.01;
	r->head.calibration = (struct nx_calibration){.read_bytes_per_s = 182e9,
	                                              .copy_bytes_per_s = 151e9,
	                                              .cache_read_bytes_per_s = 913e9,
	                                              .f32_flops_per_s = 2.1e12,
	                                              .bf16_flops_per_s = 4.7e12};
	snprintf(r->head.device.name, sizeof(r->head.device.name), "Example 16-Core Processor");
	snprintf(r->head.device.isa, sizeof(r->head.device.isa), "avx512bf16");
	r->head.device.mem_bytes = 64ull << 30;
	r->head.device.llc_bytes = 32ull << 20;
	r->head.device.n_units = 16;
	r->head.shape = (struct nx_shape){.n_layers = 8,
	                                  .d_model = 256,
	                                  .n_heads = 8,
	                                  .n_kv_heads = 4,
	                                  .head_dim = 32,
	                                  .d_ff = 768,
	                                  .vocab = 4096,
	                                  .ctx_len = 4096};
	r->head.n_facts = sizeof(FACTS) / sizeof(FACTS[0]);
	r->head.facts = malloc(sizeof(FACTS));
	r->n_stacks = (size_t)o->n_stacks;
	r->stacks = calloc(r->n_stacks + 1, sizeof(char *));
	r->stack_specs = calloc(r->n_stacks + 1, sizeof(char *));
	r->cells =
		calloc((size_t)(o->n_stacks * o->n_batches * o->n_lengths) + 1, sizeof(*r->cells));
	if (!r->head.facts || !r->stacks || !r->stack_specs || !r->cells) {
		r->n_stacks = 0;
		nx_sample_run_destroy(r);
		return NULL;
	}
	memcpy(r->head.facts, FACTS, sizeof(FACTS));
	for (int s = 0; s < o->n_stacks; s++) {
		char name[128];
		snprintf(name, sizeof(name), "%s%s", NAMES[s % N_NAMES], s >= N_NAMES ? "_2" : "");
		if (o->flags & NX_SAMPLE_LONG_NAMES)
			snprintf(name, sizeof(name),
			         "%.20s[block_size=%d,policy=priority,num_blocks=2048]",
			         NAMES[s % N_NAMES], 1 << s);
		if (o->odd_name && s == o->n_stacks - 1)
			snprintf(name, sizeof(name), "%s", o->odd_name);
		r->stacks[s] = strndup(name, sizeof(r->cells->stack) - 1);
		r->stack_specs[s] = strdup(
			s ? "flash_attention{kv_chunk=256} paged_attention{block_size=16}" : "");
	}
	for (int l = 0; l < o->n_lengths; l++)
		for (int b = 0; b < o->n_batches; b++)
			for (int s = 0; s < o->n_stacks; s++) {
				struct nx_cell_row *c = &r->cells[r->n_cells++];
				snprintf(c->id, sizeof(c->id), "%016zx", r->n_cells * 2654435761u);
				snprintf(c->stack, sizeof(c->stack), "%s",
				         r->stacks[s] ? r->stacks[s] : "");
				c->stack_index = s;
				c->batch_size = o->n_batches == 3 ? 1 << (3 * b) : 1 << b;
				fill_cell(c, o, s, b, l, &state);
			}
	r->n_trials = r->n_cells * 5;
	return r;
}

void nx_sample_run_destroy(struct nx_run *r)
{
	if (!r)
		return;
	for (size_t i = 0; i < r->n_stacks; i++) {
		free(r->stacks[i]);
		free(r->stack_specs[i]);
	}
	for (size_t i = 0; i < r->n_cells; i++) {
		free(r->cells[i].ttft_ms);
		free(r->cells[i].tpot_ms);
		if (r->cells[i].profiled)
			nx_profiled_release(r->cells[i].profiled);
		free(r->cells[i].profiled);
	}
	free(r->stacks);
	free(r->stack_specs);
	free(r->cells);
	free(r->head.facts);
	free(r);
}
