/* SPDX-License-Identifier: Apache-2.0
 *
 * no_cache: every step computes the whole sequence again and keeps nothing. What "standard inference
 * without a KV cache" means, and the lower bound of every comparison: a token at position t costs t rows.
 * Keys and values live in the store only while their step runs.
 */
#include <stdlib.h>

#include "nexus/technique.h"

struct no_cache {
	uint64_t n_rows_again; /* rows computed beyond the one that a cache would have needed */
	uint64_t n_commits;
	int32_t longest; /* rows that a sequence can come to need in a step */
};

static int create(void **self, const struct nx_host *host, const struct nx_value *values,
                  struct nx_err *err)
{
	(void)host;
	(void)values;
	struct no_cache *c = calloc(1, sizeof(*c));
	if (!c)
		return nx_fail(err, NX_ENOMEM, "no_cache: out of memory");
	*self = c;
	return 0;
}

static void reset(void *self)
{
	struct no_cache *c = self;
	c->n_rows_again = c->n_commits = 0;
}

static int kv_geometry(void *self, const struct nx_kv_demand *d, struct nx_kv_geometry *out,
                       struct nx_err *err)
{
	struct no_cache *c = self;
	(void)err;
	c->longest = d->longest_request;
	int64_t rows = (int64_t)d->max_seqs * d->longest_request;
	*out = (struct nx_kv_geometry){
		.block_size = d->max_len,
		.n_rows = rows < d->budget_rows ? rows : d->budget_rows,
		.keep = false,
	};
	return 0;
}

/* Sequences grow in every step and nothing can be preempted for them, so each has room for the longest. */
static int32_t kv_target(void *self, const struct nx_kv_want *want)
{
	const struct no_cache *c = self;
	return want->rows > c->longest ? want->rows : c->longest;
}

static void event(void *self, const struct nx_seq_event *e)
{
	struct no_cache *c = self;
	if (e->kind != NX_EVENT_COMMIT)
		return;
	c->n_commits++;
	c->n_rows_again += (uint64_t)e->arg - 1;
}

static void read_counters(void *self, double *v)
{
	const struct no_cache *c = self;
	v[0] = (double)c->n_rows_again;
	v[1] = (double)c->n_commits;
}

static const struct nx_counter counters[] = {
	{"rows_again", "rows", "rows computed beyond the last one of each sequence and step"},
	{"forwards", "count", "sequences x steps"},
	{0},
};

static const struct nx_technique no_cache = {
	NX_TECHNIQUE_HEAD,
	.name = "no_cache",
	.version = "1",
	.summary = "no KV cache: the whole sequence is computed again for every token",
	.source =
		"the definition of autoregressive decoding (Vaswani et al. 1706.03762, section 3)",
	.counters = counters,
	.breaks = NX_TRAIT_KEPT_KV | NX_TRAIT_SPLIT_PROMPT | NX_TRAIT_BLOCK_TABLE,
	.flags = NX_TECH_EXACT | NX_TECH_NEEDS_TOKENS,
	.create = create,
	.reset = reset,
	.destroy = free,
	.read_counters = read_counters,
	.event = event,
	.kv_geometry = kv_geometry,
	.kv_target = kv_target,
};

NX_TECHNIQUE(&no_cache);
