/* SPDX-License-Identifier: Apache-2.0
 *
 * test/plugins/null_attention.c: takes the attention slot and keeps what the engine has chosen.
 */
#include "nexus/technique.h"

static int create(void **self, const struct nx_host *host, const struct nx_value *values,
                  struct nx_err *err)
{
	static int nothing;
	(void)host;
	(void)values;
	(void)err;
	*self = &nothing;
	return 0;
}

static void destroy(void *self)
{
	(void)self;
}

static void event(void *self, const struct nx_seq_event *e)
{
	(void)self;
	(void)e;
}

static int attention_plan(void *self, const struct nx_attn_limits *l, enum nx_attn_kernel *kernel,
                          int32_t *kv_chunk, struct nx_err *err)
{
	(void)self;
	(void)l;
	(void)err;
	*kernel = NX_ATTN_MATERIALISED;
	*kv_chunk = 256;
	return 0;
}

static const struct nx_technique null_attention = {
	NX_TECHNIQUE_HEAD, .name = "null_attention",
	.version = "1",    .summary = "for tests: the default of the attention slot, as a plugin",
	.source = "none",  .flags = NX_TECH_EXACT,
	.create = create,  .destroy = destroy,
	.event = event,    .attention_plan = attention_plan,
};

NX_TECHNIQUE(&null_attention);
