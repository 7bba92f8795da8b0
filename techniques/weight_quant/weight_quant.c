/* SPDX-License-Identifier: Apache-2.0
 *
 * weight_quant: matrices are kept as codes of 8 or 4 bits with a scale a group, rounded to nearest (no calibration),
 * or as the codes of a file that is quantized already. The device's products read codes; this only says which format
 * each matrix gets.
 */
#include <stdlib.h>

#include "nexus/technique.h"
#include "nexus_kernels/weight_quant.h"

enum {
	P_TYPE,
	P_GROUP_SIZE,
	P_ZERO,
	P_ACTIVATIONS,
	P_OTHER,
	P_LM_HEAD,
	P_QKV,
	P_O,
	P_GATE_UP,
	P_DOWN
};
enum { T_INT8, T_INT4, T_FP8, T_FILE };
enum { OTHER_REFUSE, OTHER_KEEP, OTHER_INT8 };
enum { C_MATRICES, C_LEFT, C_BYTES, C_BITS, C_COUNT };

#define BY_TYPE (-1) /* of group_size */

struct quant {
	const struct nx_host *host;
	int type, other;
	int32_t group_size;
	int zero; /* 0 = by type, 1 = yes, 2 = no */
	bool int8_acts;
	bool wanted[NX_WEIGHT_ROLE_COUNT];
	uint64_t n_matrices, n_left, bytes;
	double elements;
};

/* A packed matrix. */
struct matrix {
	struct nx_weight *w;
	uint64_t bytes;
};

static const char *const role_names[] = {
#define X(id, name) name,
	NX_WEIGHT_ROLES(X)
#undef X
};

/* What does not depend on a matrix. */
static int check(const struct nx_value *v, struct nx_err *err)
{
	int type = (int)v[P_TYPE].i;
	if (v[P_GROUP_SIZE].i > 0 && v[P_GROUP_SIZE].i % 16)
		return nx_fail(
			err, NX_EINVAL,
			"weight_quant: group_size is %lld; legal: a multiple of 16, 0 for one "
			"scale a row, -1 for what suits the type",
			(long long)v[P_GROUP_SIZE].i);
	if (type == T_FP8 && v[P_ZERO].i == 1)
		return nx_fail(err, NX_EINVAL,
		               "weight_quant: zero is for int8 and int4; fp8 has none");
	if (type == T_FP8 && v[P_ACTIVATIONS].i == 1)
		return nx_fail(
			err, NX_EINVAL,
			"weight_quant: activations: int8 is for int8, int4 and file, not for fp8");
	if (type == T_FILE && (v[P_GROUP_SIZE].i != BY_TYPE || v[P_ZERO].i != 0))
		return nx_fail(
			err, NX_EINVAL,
			"weight_quant: with type: file groups and zeros are the file's; leave out "
			"group_size and zero");
	return 0;
}

static int probe(struct nx_probe *p, struct nx_err *err)
{
	return check(p->values, err);
}

static int create(void **self, const struct nx_host *host, const struct nx_value *v,
                  struct nx_err *err)
{
	int rc = check(v, err);
	if (rc)
		return rc;
	struct quant *q = calloc(1, sizeof(*q));
	if (!q)
		return nx_fail(err, NX_ENOMEM, "weight_quant: out of memory");
	q->host = host;
	q->type = (int)v[P_TYPE].i;
	q->other = (int)v[P_OTHER].i;
	q->group_size = (int32_t)v[P_GROUP_SIZE].i;
	q->zero = (int)v[P_ZERO].i;
	q->int8_acts = v[P_ACTIVATIONS].i == 1;
	q->wanted[NX_WEIGHT_OUTPUT] = v[P_LM_HEAD].b;
	q->wanted[NX_WEIGHT_QKV] = v[P_QKV].b;
	q->wanted[NX_WEIGHT_O] = v[P_O].b;
	q->wanted[NX_WEIGHT_GATE_UP] = v[P_GATE_UP].b;
	q->wanted[NX_WEIGHT_DOWN] = v[P_DOWN].b;
	*self = q;
	return 0;
}

static void read_counters(void *self, double *values)
{
	const struct quant *q = self;
	values[C_MATRICES] = (double)q->n_matrices;
	values[C_LEFT] = (double)q->n_left;
	values[C_BYTES] = (double)q->bytes;
	values[C_BITS] = q->elements > 0 ? 8 * (double)q->bytes / q->elements : 0;
}

/* int4: the largest of 128, 64 and 32 that divides the inputs, else 32; the others: a scale a row. */
static int32_t group_of(const struct quant *q, int type, int64_t k)
{
	if (q->group_size != BY_TYPE)
		return q->group_size;
	if (type != T_INT4)
		return 0;
	for (int32_t g = 128; g > 32; g /= 2)
		if (k % g == 0)
			return g;
	return 32;
}

/* What the matrix becomes; 0, NX_WEIGHT_LEFT or a negative code. */
static int choose(const struct quant *q, const struct nx_weight_desc *d, enum nx_weight_role role,
                  int32_t layer, struct nx_weight_desc *out, struct nx_err *err)
{
	static const enum nx_weight_code codes[] = {NX_WEIGHT_CODE_INT8, NX_WEIGHT_CODE_INT4,
	                                            NX_WEIGHT_CODE_E4M3};
	struct nx_device_info info;
	int type = q->type;
	*out = *d;
	if (!q->wanted[role] || d->lookup)
		return NX_WEIGHT_LEFT;
	if (type == T_FILE && !d->codes) {
		if (q->other == OTHER_KEEP)
			return NX_WEIGHT_LEFT;
		if (q->other == OTHER_REFUSE)
			return nx_fail(
				err, NX_ENOTSUP,
				"weight_quant: the file does not hold %s of layer %d as Q8_0, Q4_0 or Q4_1 "
				"throughout; other: int8 makes codes of it, other: keep leaves it as it is",
				role_names[role], layer);
		type = T_INT8;
	}
	if (type != T_FILE) {
		out->codes = NULL;
		out->quant = (struct nx_weight_quant){
			.code = codes[type],
			.group_size = group_of(q, type, d->k),
			.zero = type != T_FP8 &&
		                (q->zero == 1 || (q->zero == 0 && type == T_INT4))};
	}
	out->quant.int8_acts = q->int8_acts;
	const char *why = nx_weight_quant_refusal(&out->quant, d->k);
	if (why)
		return nx_fail(err, NX_ENOTSUP,
		               "weight_quant: groups of %d do not fit the %lld inputs of %s: %s",
		               out->quant.group_size, (long long)d->k, role_names[role], why);
	q->host->ops->info(q->host->dev, &info);
	if (!(info.weight_codes & 1u << out->quant.code))
		return nx_fail(err, NX_ENOTSUP,
		               "weight_quant: the device %s has no weights of type %s",
		               q->host->ops->name,
		               out->quant.code == NX_WEIGHT_CODE_INT8   ? "int8"
		               : out->quant.code == NX_WEIGHT_CODE_INT4 ? "int4"
		                                                        : "fp8");
	return 0;
}

static int weight_forecast(void *self, const struct nx_weight_desc *d, enum nx_weight_role role,
                           int32_t layer, uint64_t *bytes, struct nx_err *err)
{
	const struct quant *q = self;
	const struct nx_device_ops *ops = q->host->ops;
	struct nx_weight_desc want;
	int rc = choose(q, d, role, layer, &want, err);
	if (!rc)
		*bytes = ops->weight_forecast(q->host->dev, &want, q->host->max_rows);
	return rc;
}

static int weight_pack(void *self, const struct nx_weight_desc *d, enum nx_weight_role role,
                       int32_t layer, void **out, struct nx_err *err)
{
	struct quant *q = self;
	const struct nx_host *h = q->host;
	struct nx_weight_desc want;
	int rc = choose(q, d, role, layer, &want, err);
	if (rc == NX_WEIGHT_LEFT)
		q->n_left++;
	if (rc)
		return rc;
	struct matrix *m = calloc(1, sizeof(*m));
	if (!m)
		return nx_fail(err, NX_ENOMEM, "weight_quant: out of memory");
	rc = h->ops->weight_create(h->dev, &want, &m->w, err);
	if (!rc)
		rc = h->ops->weight_prepare(h->dev, m->w, h->max_rows, &m->bytes, err);
	if (rc) {
		if (m->w)
			h->ops->weight_destroy(h->dev, m->w);
		free(m);
		return rc;
	}
	q->n_matrices++;
	q->bytes += m->bytes;
	q->elements += (double)d->n * (double)d->k;
	*out = m;
	return 0;
}

static void weight_drop(void *self, void *w)
{
	struct quant *q = self;
	struct matrix *m = w;
	q->host->ops->weight_destroy(q->host->dev, m->w);
	free(m);
}

static uint64_t weight_bytes(void *self, const void *w)
{
	(void)self;
	return ((const struct matrix *)w)->bytes;
}

static int weight_linear(void *self, struct nx_stream *s, const void *w, const struct nx_linear *a,
                         struct nx_err *err)
{
	const struct quant *q = self;
	struct nx_linear with = *a;
	with.w = ((const struct matrix *)w)->w;
	return q->host->ops->linear(q->host->dev, s, &with, err);
}

static const struct nx_param params[] = {
	[P_TYPE] =
		{"type", NX_PARAM_ENUM, "int8", 0, 0, "int8|int4|fp8|file", "",
                 "codes that weights become, fp8 as e4m3; file keeps the codes of Q8_0, Q4_0 and Q4_1"},
	[P_GROUP_SIZE] =
		{"group_size", NX_PARAM_INT, "-1", -1, 65536, NULL, "inputs",
                 "weights of an output that share a scale, a multiple of 16; 0 = all of them; -1 = 0 for int8 and "
                 "fp8, for int4 the largest of 128, 64, 32 that divides the inputs"},
	[P_ZERO] = {"zero", NX_PARAM_ENUM, "auto", 0, 0, "auto|true|false", "",
                    "groups have a zero of their own, else they are symmetric; auto = with int4"},
	[P_ACTIVATIONS] =
		{"activations", NX_PARAM_ENUM, "bf16", 0, 0, "bf16|int8", "",
                 "int8 rounds what is multiplied with codes to int8, too, by the same groups; "
                 "bf16 leaves it as it is"},
	[P_OTHER] = {"other", NX_PARAM_ENUM, "refuse", 0, 0, "refuse|keep|int8", "",
                     "with type: file, matrices that the file holds in other formats"},
	[P_LM_HEAD] = {"lm_head", NX_PARAM_BOOL, "false", 0, 0, NULL, "",
                       "the output matrix becomes codes, too; the embedding never does"},
	[P_QKV] = {"qkv", NX_PARAM_BOOL, "true", 0, 0, NULL, "",
                   "the matrices of q, k and v become codes; false leaves them as they are"},
	[P_O] = {"o", NX_PARAM_BOOL, "true", 0, 0, NULL, "",
                 "attention's output matrices become codes; false leaves them as they are"},
	[P_GATE_UP] = {"gate_up", NX_PARAM_BOOL, "true", 0, 0, NULL, "",
                       "the gate and up matrices become codes; false leaves them as they are"},
	[P_DOWN] = {"down", NX_PARAM_BOOL, "true", 0, 0, NULL, "",
                    "the down matrices become codes; false leaves them as they are"},
	{0},
};

static const struct nx_counter counters[] = {
	[C_MATRICES] = {"matrices", "matrices", "became codes"},
	[C_LEFT] = {"left", "matrices", "stayed as they are, the embedding not counted"},
	[C_BYTES] = {"bytes", "bytes", "of the device that codes and scales take"},
	[C_BITS] = {"bits", "bits/weight",
                    "of a weight that became a code, its part of the scales included"},
	{0},
};

static const struct nx_technique weight_quant = {
	NX_TECHNIQUE_HEAD,
	.name = "weight_quant",
	.version = "1",
	.summary = "weights of int8, int4 or fp8, decoded inside the products",
	.source =
		"round to nearest by group, as in Dettmers et al. 2208.07339 section 2 (int8), Frantar et al. "
		"2210.17323 section 4 (int4 groups), Micikevicius et al. 2209.05433 (fp8)",
	.params = params,
	.counters = counters,
	.flags =
		0, /* not the full-precision model's tokens: quality is measured beside the speed */
	.probe = probe,
	.create = create,
	.destroy = free,
	.read_counters = read_counters,
	.weight_pack = weight_pack,
	.weight_drop = weight_drop,
	.weight_bytes = weight_bytes,
	.weight_linear = weight_linear,
	.weight_forecast = weight_forecast,
};

NX_TECHNIQUE(&weight_quant);
