/* SPDX-License-Identifier: Apache-2.0
 *
 * test/plugins/null_weights.c: takes the weights slot and leaves every matrix to the device.
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

static int weight_pack(void *self, const struct nx_weight_desc *d, enum nx_weight_role role,
                       int32_t layer, void **out, struct nx_err *err)
{
	(void)self;
	(void)d;
	(void)role;
	(void)layer;
	(void)out;
	(void)err;
	return NX_WEIGHT_LEFT;
}

static void weight_drop(void *self, void *w)
{
	(void)self;
	(void)w;
}

static uint64_t weight_bytes(void *self, const void *w)
{
	(void)self;
	(void)w;
	return 0;
}

static int weight_linear(void *self, struct nx_stream *s, const void *w, const struct nx_linear *a,
                         struct nx_err *err)
{
	(void)self;
	(void)s;
	(void)w;
	(void)a;
	return nx_fail(err, NX_EBUG, "null_weights has packed nothing");
}

static const struct nx_technique null_weights = {
	NX_TECHNIQUE_HEAD,
	.name = "null_weights",
	.version = "1",
	.summary = "for tests: a weight format that leaves every matrix to the device",
	.source = "none",
	.flags = NX_TECH_EXACT,
	.create = create,
	.destroy = destroy,
	.event = event,
	.weight_pack = weight_pack,
	.weight_drop = weight_drop,
	.weight_bytes = weight_bytes,
	.weight_linear = weight_linear,
};

NX_TECHNIQUE(&null_weights);
