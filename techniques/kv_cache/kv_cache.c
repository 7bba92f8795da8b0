/* SPDX-License-Identifier: Apache-2.0
 *
 * kv_cache: one contiguous reservation a sequence, made when it starts. `reserve: max` takes the longest
 * length a sequence can have (what serving systems did before paging); `reserve: exact` takes prompt plus
 * output, which only an oracle knows (2309.06180, section 6: Orca (Max) and Orca (Oracle)).
 */
#include <stdlib.h>

#include "nexus/technique.h"

enum reserve { RESERVE_MAX, RESERVE_EXACT };

struct kv_cache {
	enum reserve reserve;
};

static int create(void **self, const struct nx_host *host, const struct nx_value *values,
                  struct nx_err *err)
{
	(void)host;
	struct kv_cache *c = calloc(1, sizeof(*c));
	if (!c)
		return nx_fail(err, NX_ENOMEM, "kv_cache: out of memory");
	c->reserve = (enum reserve)values[0].i;
	*self = c;
	return 0;
}

static int kv_geometry(void *self, const struct nx_kv_demand *d, struct nx_kv_geometry *out,
                       struct nx_err *err)
{
	const struct kv_cache *c = self;
	int32_t each = c->reserve == RESERVE_MAX ? d->max_len : d->longest_request;
	int64_t rows = (int64_t)d->max_seqs * each;
	if (d->budget_rows < each)
		return nx_fail(
			err, NX_ENOSPC,
			"kv_cache: the memory limit allows %lld KV rows and one sequence reserves %d",
			(long long)d->budget_rows, each);
	*out = (struct nx_kv_geometry){
		.block_size = d->max_len,
		.n_rows = rows < d->budget_rows ? rows : d->budget_rows,
		.keep = true,
	};
	return 0;
}

static int32_t kv_target(void *self, const struct nx_kv_want *want)
{
	const struct kv_cache *c = self;
	int32_t exact = want->n_prompt + want->max_out;
	if (c->reserve == RESERVE_MAX)
		return want->max_len;
	/* Padding of a static batch is reserved too: that is what it costs. */
	return want->rows > exact ? want->rows : exact;
}

static const struct nx_param params[] = {
	{"reserve", NX_PARAM_ENUM, "max", 0, 0, "max|exact", "",
         "rows a sequence reserves when it starts: the longest possible, or prompt plus output"},
	{0},
};

static const struct nx_technique kv_cache = {
	NX_TECHNIQUE_HEAD,
	.name = "kv_cache",
	.version = "1",
	.summary = "contiguous KV cache, reserved at the maximum or at the exact length",
	.source = "2309.06180 section 6.1 (Orca (Max), Orca (Oracle))",
	.params = params,
	.breaks = NX_TRAIT_BLOCK_TABLE,
	.flags = NX_TECH_EXACT,
	.create = create,
	.destroy = free,
	.kv_geometry = kv_geometry,
	.kv_target = kv_target,
};

NX_TECHNIQUE(&kv_cache);
