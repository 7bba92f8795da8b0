/* SPDX-License-Identifier: Apache-2.0
 *
 * test/plugins/null_prefix.c: takes the prefix slot and caches nothing: matches nothing, publishes nothing. Over a
 * contiguous layout the smallest pool that is legal stays empty.
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

#define BLOCK 16

static void event(void *self, const struct nx_seq_event *e)
{
	(void)self;
	(void)e;
}

static int prefix_geometry(void *self, const struct nx_prefix_limits *l,
                           struct nx_prefix_geometry *out, struct nx_err *err)
{
	(void)self;
	(void)err;
	int32_t blocks = (BLOCK + l->align - 1) / l->align, size = blocks * l->align;
	if (size > l->max_len)
		size = l->align;
	*out = (struct nx_prefix_geometry){.block_size = size, .n_rows = size};
	return 0;
}

static int32_t prefix_match(void *self, const int32_t *tokens, int32_t n, int32_t *blocks)
{
	(void)self;
	(void)tokens;
	(void)n;
	(void)blocks;
	return 0;
}

static void prefix_publish(void *self, const struct nx_prefix_rows *r)
{
	(void)self;
	(void)r;
}

static int64_t prefix_evict(void *self, int64_t rows)
{
	(void)self;
	(void)rows;
	return 0;
}

static int64_t warm(void *self)
{
	(void)self;
	return 0;
}

static const struct nx_technique null_prefix = {
	NX_TECHNIQUE_HEAD,
	.name = "null_prefix",
	.version = "1",
	.summary = "for tests: a prefix cache that never holds anything",
	.source = "none",
	.flags = NX_TECH_EXACT,
	.create = create,
	.destroy = destroy,
	.event = event,
	.warm = warm,
	.prefix_geometry = prefix_geometry,
	.prefix_match = prefix_match,
	.prefix_publish = prefix_publish,
	.prefix_evict = prefix_evict,
};

NX_TECHNIQUE(&null_prefix);
