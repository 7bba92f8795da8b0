/* SPDX-License-Identifier: Apache-2.0
 *
 * test/plugins/fake_layout.c: a KV layout that assumes what fake_schedule breaks, and has a parameter that
 * must be given. Only for tests of experiment files.
 */
#include "nexus/technique.h"

static const struct nx_param params[] = {
	{"reserve", NX_PARAM_ENUM, NULL, 0, 0, "max|exact", "", "must be given"},
	{0},
};

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

static int kv_geometry(void *self, const struct nx_kv_demand *d, struct nx_kv_geometry *out,
                       struct nx_err *err)
{
	(void)self;
	(void)d;
	(void)out;
	return nx_fail(err, NX_ENOTSUP, "fake_layout cannot run");
}

static int32_t kv_target(void *self, const struct nx_kv_want *want)
{
	(void)self;
	return want->rows;
}

static const struct nx_technique fake_layout = {
	NX_TECHNIQUE_HEAD,
	.name = "fake_layout",
	.version = "1",
	.summary = "for tests",
	.source = "none",
	.params = params,
	.assumes = NX_TRAIT_SPLIT_PROMPT,
	.create = create,
	.destroy = destroy,
	.kv_geometry = kv_geometry,
	.kv_target = kv_target,
};

NX_TECHNIQUE(&fake_layout);
