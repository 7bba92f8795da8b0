/* SPDX-License-Identifier: Apache-2.0
 *
 * quantized_kv: KV rows as codes of 8, 4 or 2 bits. The technique only chooses: which of the device's codecs, how
 * many values share a scale, and how many of the newest tokens stay in full precision. Rows are encoded when they
 * are stored and decoded inside the attention kernels; nexus_kernels/kv_codec.h has every byte.
 */
#include <stdlib.h>
#include <string.h>

#include "nexus/technique.h"
#include "nexus_kernels/kv_codec.h"

enum { P_TYPE, P_GROUP, P_RESIDUAL };

static const struct {
	const char *name;
	enum nx_kv_codec codec;
} types[] = {
	{"int8", NX_KV_INT8},     {"int4", NX_KV_INT4},   {"fp8_e4m3", NX_KV_E4M3},
	{"fp8_e5m2", NX_KV_E5M2}, {"kivi4", NX_KV_KIVI4}, {"kivi2", NX_KV_KIVI2},
};
#define TYPES "int8|int4|fp8_e4m3|fp8_e5m2|kivi4|kivi2"

#define KIVI_GROUP 32 /* of the paper's setting */

struct quantized {
	struct nx_codec_layout layout;
};

static int create(void **self, const struct nx_host *host, const struct nx_value *values,
                  struct nx_err *err)
{
	int32_t dim = host->model.head_dim, group = (int32_t)values[P_GROUP].i;
	enum nx_kv_codec codec = types[values[P_TYPE].i].codec;
	int32_t window = nx_kv_is_kivi(codec) ? (int32_t)values[P_RESIDUAL].i : 1;
	if (!group)
		group = nx_kv_is_kivi(codec) && dim % KIVI_GROUP == 0 ? KIVI_GROUP : dim;
	const char *why = nx_kv_codec_refusal(codec, dim, group, window);
	if (why)
		return nx_fail(
			err, NX_ENOTSUP,
			"quantized_kv: type %s, group_size %d and residual_length %d with heads of %d: %s",
			types[values[P_TYPE].i].name, group, window, dim, why);
	struct quantized *q = calloc(1, sizeof(*q));
	if (!q)
		return nx_fail(err, NX_ENOMEM, "quantized_kv: out of memory");
	q->layout = (struct nx_codec_layout){.codec = codec, .group_size = group, .window = window};
	*self = q;
	return 0;
}

static int codec_layout(void *self, const struct nx_codec_limits *l, struct nx_codec_layout *out,
                        struct nx_err *err)
{
	const struct quantized *q = self;
	(void)l;
	(void)err;
	*out = q->layout;
	return 0;
}

static const struct nx_param params[] = {
	[P_TYPE] =
		{"type", NX_PARAM_ENUM, "int8", 0, 0, TYPES, "",
                 "int8, int4: with scale and zero for each token and head; fp8: with a scale; kivi: K by "
                 "channel over groups of tokens, V by token"},
	[P_GROUP] =
		{"group_size", NX_PARAM_INT, "0", 0, 256, NULL, "values",
                 "values that share a scale, a multiple of 16 that divides the head size; 0 = the whole "
                 "head, with kivi 32"},
	[P_RESIDUAL] =
		{"residual_length", NX_PARAM_INT, "128", 16, 4096, NULL, "tokens",
                 "kivi: tokens encoded together; a query reads its own such group in full precision; a "
                 "multiple of group_size"},
	{0},
};

static const struct nx_technique quantized_kv = {
	NX_TECHNIQUE_HEAD,
	.name = "quantized_kv",
	.version = "1",
	.summary = "KV rows as int8, int4, fp8 or KIVI codes, decoded inside attention",
	.source =
		"Liu et al. 2402.02750 section 3 (KIVI); Micikevicius et al. 2209.05433 (FP8); Lin et al. "
		"2405.04532 section 4.3 (int4 by token and head)",
	.params = params,
	.assumes = NX_TRAIT_KEPT_KV,
	.flags = 0, /* not full precision's tokens: quality is measured beside the speed */
	.create = create,
	.destroy = free,
	.codec_layout = codec_layout,
};

NX_TECHNIQUE(&quantized_kv);
