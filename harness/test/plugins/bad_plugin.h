/* SPDX-License-Identifier: Apache-2.0
 *
 * A technique table with one member to spoil; see bad_*.c.
 */
#ifndef NEXUS_TEST_BAD_PLUGIN_H
#define NEXUS_TEST_BAD_PLUGIN_H

#include <stdlib.h>

#include "nexus/technique.h"

static int bad_create(void **self, const struct nx_host *host, const struct nx_value *values, struct nx_err *err)
{
	(void)host;
	(void)values;
	(void)err;
	*self = NULL;
	return 0;
}

static int bad_plan(void *self, const struct nx_attn_limits *l, enum nx_attn_kernel *kernel, int32_t *chunk,
                    struct nx_err *err)
{
	(void)self;
	(void)l;
	(void)err;
	*kernel = NX_ATTN_TILED;
	*chunk = 64;
	return 0;
}

#define BAD_PLUGIN(a_magic, an_abi, a_size, a_name)                                                \
	static const struct nx_technique bad = {.magic = a_magic,                                   \
	                                        .abi = an_abi,                                      \
	                                        .size = a_size,                                     \
	                                        .name = a_name,                                     \
	                                        .version = "1",                                     \
	                                        .summary = "a bad plugin",                          \
	                                        .source = "none",                                   \
	                                        .create = bad_create,                               \
	                                        .destroy = free,                                    \
	                                        .attention_plan = bad_plan};                        \
	NX_TECHNIQUE(&bad);

#endif
