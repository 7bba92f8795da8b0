/* SPDX-License-Identifier: Apache-2.0
 *
 * paged_attention: fixed-size blocks in one pool, a block table a sequence that the attention kernels read,
 * blocks taken on demand, shared by reference between parallel samples with copy-on-write, and preemption by
 * recomputing or swapping when the pool is exhausted (Kwon et al., 2309.06180).
 *
 * The pool, the tables, reference counts and copies belong to the engine (engine/store.h); this decides
 * block size, how many blocks there are, when a sequence gets one, and how preemption saves its rows.
 */
#include <stdlib.h>

#include "nexus/technique.h"

enum { P_BLOCK_SIZE, P_NUM_BLOCKS, P_PREEMPT, P_SWAP_BLOCKS };
enum { C_RECOMPUTED, C_SWAPPED, C_FORKS, C_RESUMED, C_COUNT };

struct paged {
	int32_t block_size;
	int64_t num_blocks, swap_blocks; /* 0 = chosen here */
	enum nx_preempt preempt;
	uint64_t n[C_COUNT];
};

static int create(void **self, const struct nx_host *host, const struct nx_value *values,
                  struct nx_err *err)
{
	(void)host;
	struct paged *p = calloc(1, sizeof(*p));
	if (!p)
		return nx_fail(err, NX_ENOMEM, "paged_attention: out of memory");
	p->block_size = (int32_t)values[P_BLOCK_SIZE].i;
	p->num_blocks = values[P_NUM_BLOCKS].i;
	p->preempt = values[P_PREEMPT].i == 0 ? NX_PREEMPT_RECOMPUTE : NX_PREEMPT_SWAP;
	p->swap_blocks = values[P_SWAP_BLOCKS].i;
	*self = p;
	return 0;
}

static void reset(void *self)
{
	struct paged *p = self;
	for (int i = 0; i < C_COUNT; i++)
		p->n[i] = 0;
}

static int kv_geometry(void *self, const struct nx_kv_demand *d, struct nx_kv_geometry *out,
                       struct nx_err *err)
{
	const struct paged *p = self;
	int64_t bs = p->block_size;
	int64_t one = (d->longest_request + bs - 1) / bs;
	/* Without a limit there is room for all sequences at once: paging then saves memory, not time. */
	int64_t n = p->num_blocks ? p->num_blocks : d->max_seqs * one;
	if (n > d->budget_rows / bs) {
		if (p->num_blocks)
			return nx_fail(
				err, NX_ENOSPC,
				"paged_attention: num_blocks %lld of %lld tokens; the memory limit allows %lld",
				(long long)n, (long long)bs, (long long)(d->budget_rows / bs));
		n = d->budget_rows / bs;
	}
	if (n < one)
		return nx_fail(
			err, NX_ENOSPC,
			"paged_attention: %lld blocks of %lld tokens cannot hold one request of %d tokens",
			(long long)n, (long long)bs, d->longest_request);
	*out = (struct nx_kv_geometry){
		.block_size = p->block_size,
		.n_rows = n * bs,
		.blocks = true,
		.keep = true,
		.preempt = p->preempt,
		.swap_rows = p->preempt == NX_PREEMPT_SWAP
	                             ? (p->swap_blocks ? p->swap_blocks : n) * bs
	                             : 0,
	};
	return 0;
}

/* On demand: a block is taken when the last one is full. */
static int32_t kv_target(void *self, const struct nx_kv_want *want)
{
	(void)self;
	return want->rows;
}

static void event(void *self, const struct nx_seq_event *e)
{
	struct paged *p = self;
	if (e->kind == NX_EVENT_PREEMPT)
		p->n[e->arg == NX_PREEMPT_SWAP ? C_SWAPPED : C_RECOMPUTED]++;
	if (e->kind == NX_EVENT_FORK)
		p->n[C_FORKS]++;
	if (e->kind == NX_EVENT_RESUME)
		p->n[C_RESUMED]++;
}

static void read_counters(void *self, double *v)
{
	const struct paged *p = self;
	for (int i = 0; i < C_COUNT; i++)
		v[i] = (double)p->n[i];
}

static const struct nx_param params[] = {
	[P_BLOCK_SIZE] = {"block_size", NX_PARAM_INT, "16", 1, 4096, NULL, "tokens",
                          "tokens a block holds"},
	[P_NUM_BLOCKS] =
		{"num_blocks", NX_PARAM_INT, "0", 0, 1 << 27, NULL, "blocks",
                 "blocks of the pool; 0 = as many as all sequences or the memory limit take"},
	[P_PREEMPT] =
		{"preempt", NX_PARAM_ENUM, "recompute", 0, 0, "recompute|swap", "",
                 "compute a preempted sequence again from its tokens, or move its rows to host memory and back"},
	[P_SWAP_BLOCKS] =
		{"swap_blocks", NX_PARAM_INT, "0", 0, 1 << 27, NULL, "blocks",
                 "blocks of host memory for swapping; 0 = as many as the pool has; when they are taken, recompute"},
	{0},
};

static const struct nx_counter counters[] = {
	[C_RECOMPUTED] = {"preempted_recompute", "count",
                          "sequences preempted to be computed again"},
	[C_SWAPPED] = {"preempted_swap", "count", "sequences preempted to host memory"},
	[C_FORKS] = {"forks", "count", "samples that started by sharing their prompt's blocks"},
	[C_RESUMED] = {"resumed", "count", "preempted sequences that continued"},
	{0},
};

static const struct nx_technique paged_attention = {
	NX_TECHNIQUE_HEAD,
	.name = "paged_attention",
	.version = "1",
	.summary =
		"KV in fixed-size blocks on demand, shared with copy-on-write, preempted when full",
	.source = "Kwon et al. 2309.06180, sections 4.1 to 4.5",
	.params = params,
	.counters = counters,
	.flags = NX_TECH_EXACT,
	.create = create,
	.reset = reset,
	.destroy = free,
	.read_counters = read_counters,
	.event = event,
	.kv_geometry = kv_geometry,
	.kv_target = kv_target,
};

NX_TECHNIQUE(&paged_attention);
