/* SPDX-License-Identifier: Apache-2.0
 *
 * test/plugins/kv_sinks.c: attention sinks and a window (2309.17453) as a layout: of a sequence that decodes, the
 * blocks between its first `sinks` rows and its last `window` ones are dropped. Prompts are seen whole. When it
 * drops depends on the length alone, and preempted rows are swapped, since computing them again would show
 * them rows that they never saw.
 */
#include "hand.h"

enum { P_SINKS, P_WINDOW, P_BLOCK_SIZE, P_NUM_BLOCKS };
enum { C_DROPS, C_ROWS, C_COUNT };

struct sinks {
	int32_t sinks, window, block_size;
	int64_t num_blocks;
	uint64_t n[C_COUNT];
};

static int create(void **self, const struct nx_host *host, const struct nx_value *values,
                  struct nx_err *err)
{
	(void)host;
	struct sinks *k = calloc(1, sizeof(*k));
	if (!k)
		return nx_fail(err, NX_ENOMEM, "kv_sinks: out of memory");
	k->sinks = (int32_t)values[P_SINKS].i;
	k->window = (int32_t)values[P_WINDOW].i;
	k->block_size = (int32_t)values[P_BLOCK_SIZE].i;
	k->num_blocks = values[P_NUM_BLOCKS].i;
	*self = k;
	return 0;
}

static void reset(void *self)
{
	struct sinks *k = self;
	memset(k->n, 0, sizeof(k->n));
}

static int kv_geometry(void *self, const struct nx_kv_demand *d, struct nx_kv_geometry *out,
                       struct nx_err *err)
{
	const struct sinks *k = self;
	int64_t one = (d->longest_request + k->block_size - 1) / k->block_size;
	int64_t n = k->num_blocks ? k->num_blocks : d->max_seqs * one;
	if (n > d->budget_rows / k->block_size)
		n = d->budget_rows / k->block_size;
	if (n < one)
		return nx_fail(err, NX_ENOSPC,
		               "kv_sinks: %lld blocks cannot hold one request of %d", (long long)n,
		               d->longest_request);
	*out = (struct nx_kv_geometry){.block_size = k->block_size,
	                               .n_rows = n * k->block_size,
	                               .blocks = true,
	                               .keep = true,
	                               .preempt = NX_PREEMPT_SWAP,
	                               .swap_rows = d->max_seqs * one * (int64_t)k->block_size};
	return 0;
}

static int32_t kv_target(void *self, const struct nx_kv_want *want)
{
	(void)self;
	return want->rows;
}

static int32_t kv_drop(void *self, const struct nx_kv_held *held, int32_t *first)
{
	struct sinks *k = self;
	int32_t bs = held->block_size;
	*first = (k->sinks + bs - 1) / bs * bs;
	int32_t spare = held->len - k->window - *first;
	int32_t n = spare < bs ? 0 : spare / bs * bs;
	k->n[C_DROPS] += n > 0;
	k->n[C_ROWS] += (uint64_t)n;
	return n;
}

static void read_counters(void *self, double *v)
{
	const struct sinks *k = self;
	for (int i = 0; i < C_COUNT; i++)
		v[i] = (double)k->n[i];
}

static const struct nx_param params[] = {
	[P_SINKS] = {"sinks", NX_PARAM_INT, "4", 0, 1 << 20, NULL, "tokens", "first rows kept"},
	[P_WINDOW] = {"window", NX_PARAM_INT, "16", 1, 1 << 20, NULL, "tokens",
                      "last rows kept, at least"},
	[P_BLOCK_SIZE] = {"block_size", NX_PARAM_INT, "4", 1, 4096, NULL, "tokens", "of a block"},
	[P_NUM_BLOCKS] = {"num_blocks", NX_PARAM_INT, "0", 0, 1 << 27, NULL, "blocks",
                          "of the pool; 0 = as many as all sequences take"},
	{0},
};

static const struct nx_counter counters[] = {
	[C_DROPS] = {"drops", "count", "times rows were dropped"},
	[C_ROWS] = {"dropped_rows", "rows", "rows dropped"},
	{0},
};

static const struct nx_technique kv_sinks = {
	NX_TECHNIQUE_HEAD,
	.name = "kv_sinks",
	.version = "1",
	.summary = "for tests: drops the blocks between the first and the last rows",
	.source = "after Xiao et al. 2309.17453, section 3.2",
	.params = params,
	.counters = counters,
	.breaks = NX_TRAIT_FULL_KV | NX_TRAIT_SPLIT_PROMPT,
	.create = create,
	.reset = reset,
	.destroy = free,
	.read_counters = read_counters,
	.kv_geometry = kv_geometry,
	.kv_target = kv_target,
	.kv_drop = kv_drop,
};

NX_TECHNIQUE(&kv_sinks);
