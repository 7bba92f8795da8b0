/* SPDX-License-Identifier: Apache-2.0
 *
 * test/plugins/null_kv_layout.c: takes the kv_layout slot and does what the engine's default does: contiguous,
 * reserved at the longest a sequence can get.
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

static int kv_geometry(void *self, const struct nx_kv_demand *d, struct nx_kv_geometry *out,
                       struct nx_err *err)
{
	(void)self;
	(void)err;
	*out = (struct nx_kv_geometry){.block_size = d->max_len,
	                               .n_rows = (int64_t)d->max_seqs * d->max_len,
	                               .keep = true,
	                               .preempt = NX_PREEMPT_NONE};
	if (out->n_rows > d->budget_rows)
		out->n_rows = d->budget_rows;
	return 0;
}

static int32_t kv_target(void *self, const struct nx_kv_want *want)
{
	(void)self;
	return want->max_len;
}

static const struct nx_technique null_kv_layout = {
	NX_TECHNIQUE_HEAD,
	.name = "null_kv_layout",
	.version = "1",
	.summary = "for tests: the default of the kv_layout slot, as a plugin",
	.source = "none",
	.flags = NX_TECH_EXACT,
	.create = create,
	.destroy = destroy,
	.event = event,
	.kv_geometry = kv_geometry,
	.kv_target = kv_target,
};

NX_TECHNIQUE(&null_kv_layout);
