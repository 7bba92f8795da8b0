/* SPDX-License-Identifier: Apache-2.0
 *
 * test/plugins/hog.c: takes all memory that it is given while the engine is made, and touches it. It stops
 * by itself at most_mib, so that a test cannot take a machine down where no limit could be set.
 */
#include <stdlib.h>
#include <string.h>

#include "nexus/technique.h"

#define CHUNK ((size_t)16 << 20)

static const struct nx_param params[] = {
	{"most_mib", NX_PARAM_INT, "1024", 16, 65536, NULL, "MiB", "where it stops by itself"},
	{0},
};

struct hog {
	int64_t n_chunks;
	void *chunks[65536 / 16];
};

static int create(void **self, const struct nx_host *host, const struct nx_value *values,
                  struct nx_err *err)
{
	(void)host;
	struct hog *h = calloc(1, sizeof(*h));
	if (!h)
		return nx_fail(err, NX_ENOMEM, "no memory for hog");
	h->n_chunks = values[0].i / 16;
	*self = h;
	return 0;
}

static void destroy(void *self)
{
	struct hog *h = self;
	for (size_t i = 0; i < sizeof(h->chunks) / sizeof(h->chunks[0]); i++)
		free(h->chunks[i]);
	free(h);
}

static int attention_plan(void *self, const struct nx_attn_limits *l, enum nx_attn_kernel *kernel,
                          int32_t *kv_chunk, struct nx_err *err)
{
	struct hog *h = self;
	(void)l;
	(void)kernel;
	(void)kv_chunk;
	for (int64_t i = 0; i < h->n_chunks; i++) {
		h->chunks[i] = malloc(CHUNK);
		if (!h->chunks[i])
			return nx_fail(err, NX_ENOMEM, "hog was refused memory after %lld MiB",
			               (long long)i * 16);
		memset(h->chunks[i], 1, CHUNK);
	}
	return nx_fail(err, NX_ENOMEM, "hog stopped by itself at %lld MiB",
	               (long long)h->n_chunks * 16);
}

static const struct nx_technique technique = {
	NX_TECHNIQUE_HEAD,
	.name = "hog",
	.version = "1",
	.summary = "for tests: allocates everything",
	.source = "none",
	.params = params,
	.create = create,
	.destroy = destroy,
	.attention_plan = attention_plan,
};

NX_TECHNIQUE(&technique);
