/* SPDX-License-Identifier: Apache-2.0
 *
 * flash_attention: tiles of keys with an online softmax; the matrix of scores is never written. Few rows
 * over many keys are split into chunks of keys whose partial results (maximum, sum, output) merge in order
 * (flash-decoding). The chunk grid starts at position 0 and its size is fixed, so a row's result does not
 * depend on what else is in the batch.
 */
#include <stdlib.h>

#include "nexus/technique.h"

struct flash {
	int32_t kv_chunk;
};

static int create(void **self, const struct nx_host *host, const struct nx_value *values,
                  struct nx_err *err)
{
	(void)host;
	struct flash *f = calloc(1, sizeof(*f));
	if (!f)
		return nx_fail(err, NX_ENOMEM, "flash_attention: out of memory");
	f->kv_chunk = (int32_t)values[0].i;
	*self = f;
	return 0;
}

static int attention_plan(void *self, const struct nx_attn_limits *l, enum nx_attn_kernel *kernel,
                          int32_t *kv_chunk, struct nx_err *err)
{
	const struct flash *f = self;
	(void)l;
	(void)err;
	*kernel = NX_ATTN_TILED;
	*kv_chunk = f->kv_chunk;
	return 0;
}

static const struct nx_param params[] = {
	{"kv_chunk", NX_PARAM_INT, "256", 16, 65536, NULL, "tokens",
         "keys that one partial result covers; smaller splits a long sequence over more threads"},
	{0},
};

static const struct nx_technique flash_attention = {
	NX_TECHNIQUE_HEAD,
	.name = "flash_attention",
	.version = "1",
	.summary = "tiled attention with online softmax, split over keys for decoding",
	.source =
		"Dao et al. 2205.14135 section 3.1; Dao 2307.08691 section 3.1; flash-decoding (Dao et al. 2023)",
	.params = params,
	.flags = NX_TECH_EXACT,
	.create = create,
	.destroy = free,
	.attention_plan = attention_plan,
};

NX_TECHNIQUE(&flash_attention);
