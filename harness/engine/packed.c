/* SPDX-License-Identifier: Apache-2.0
 *
 * engine/packed.c: matrices that a weights technique packed, and products with them; see impl.h.
 *
 * A matrix that is packed is not multiplied with in the device's own form, which then goes, unless another engine
 * still has it; and comes back when an engine needs it.
 */
#include <stdlib.h>

#include "engine/impl.h"

/* What of the model is loaded is a cache inside the weights. */
static struct nx_weights *weights_of(const struct nx_engine *e)
{
	return (struct nx_weights *)(uintptr_t)e->w;
}

/* Drafters multiply with the target's output matrix themselves. */
static bool is_drafters(const struct nx_engine *e, enum nx_weight_role role)
{
	return role == NX_WEIGHT_OUTPUT && e->drafter;
}

static int take(struct nx_engine *e, enum nx_weight_role role, int32_t layer, struct nx_err *err)
{
	int rc = nx_weights_take(weights_of(e), role, layer, err);
	e->packed[layer].native[role] = !rc;
	return rc;
}

/* What weight_bytes says and alloc has not counted yet. */
static void charge(struct nx_engine *e, const void *w, uint64_t before)
{
	struct nx_mem_use *o = &e->owners[e->packer->owner.owner];
	uint64_t bytes = e->packer->t->weight_bytes(e->packer->self, w);
	uint64_t counted = o->reserved_bytes > before ? o->reserved_bytes - before : 0;
	if (bytes > counted)
		o->reserved_bytes += bytes - counted;
	o->peak_used_bytes = o->reserved_bytes;
}

static int pack_one(struct nx_engine *e, enum nx_weight_role role, int32_t layer,
                    struct nx_err *err)
{
	struct nx_weight_source src;
	struct nx_weight_desc d;
	if (!e->packer)
		return take(e, role, layer, err);
	uint64_t before = e->owners[e->packer->owner.owner].reserved_bytes;
	void **to = &e->packed[layer].w[role];
	nx_weights_desc(e->w, role, layer, &src, &d);
	nx_weights_codes(e->w, &src, &d);
	int rc = e->packer->t->weight_pack(e->packer->self, &d, role, layer, to, err);
	if (rc < 0)
		return rc;
	if (rc == NX_WEIGHT_LEFT) {
		*to = NULL;
		return take(e, role, layer, err);
	}
	if (!*to)
		return nx_fail(err, NX_EBUG, "%s packed a matrix and gave nothing back",
		               e->packer->t->name);
	charge(e, *to, before);
	if (is_drafters(e, role))
		return take(e, role, layer, err);
	nx_weights_shed(weights_of(e), role, layer);
	return 0;
}

int nx_pack_create(struct nx_engine *e, struct nx_err *err)
{
	e->packed = calloc((size_t)e->w->shape.n_layers, sizeof(*e->packed));
	if (!e->packed)
		return nx_fail(err, NX_ENOMEM, "out of memory for packed weights");
	int rc = pack_one(e, NX_WEIGHT_OUTPUT, 0, err);
	for (int32_t l = 0; l < e->w->shape.n_layers && !rc; l++)
		for (int role = NX_WEIGHT_QKV; role < NX_WEIGHT_ROLE_COUNT && !rc; role++)
			rc = pack_one(e, (enum nx_weight_role)role, l, err);
	return rc;
}

void nx_pack_destroy(struct nx_engine *e)
{
	for (int32_t l = 0; e->packed && l < e->w->shape.n_layers; l++)
		for (int role = 0; role < NX_WEIGHT_ROLE_COUNT; role++) {
			if (e->packed[l].w[role])
				e->packer->t->weight_drop(e->packer->self, e->packed[l].w[role]);
			if (e->packed[l].native[role])
				nx_weights_give(weights_of(e), (enum nx_weight_role)role, l);
		}
	free(e->packed);
	e->packed = NULL;
}

/* Bytes of a matrix: the technique's and the device's own. */
static int forecast_one(struct nx_engine *e, enum nx_weight_role role, int32_t layer, int32_t rows,
                        uint64_t *own, uint64_t *packed, struct nx_err *err)
{
	struct nx_weight_source src;
	struct nx_weight_desc d;
	uint64_t bytes = 0;
	nx_weights_desc(e->w, role, layer, &src, &d);
	nx_weights_codes(e->w, &src, &d);
	int rc = e->packer->t->weight_forecast(e->packer->self, &d, role, layer, &bytes, err);
	if (rc < 0)
		return rc;
	*packed += rc == NX_WEIGHT_LEFT ? 0 : bytes;
	if (rc == NX_WEIGHT_LEFT || is_drafters(e, role))
		*own += nx_weights_forecast_one(e->w, role, layer, rc ? rows : 0);
	return 0;
}

int nx_pack_forecast(struct nx_engine *e, int32_t max_rows, uint64_t *own, uint64_t *packed,
                     struct nx_err *err)
{
	bool asked = e->packer && e->packer->t->weight_forecast;
	*packed = 0;
	if (!asked) {
		/* What a technique packs is not multiplied with in the device's form. */
		*own = nx_weights_forecast(e->w, e->packer ? 0 : max_rows,
		                           e->packer ? 0 : e->max_logits);
		return 0;
	}
	/* The table of embed() is also the output matrix where they are tied and it is not packed. */
	*own = nx_weights_vector_bytes(e->w) +
	       nx_weights_forecast_one(e->w, NX_WEIGHT_EMBED, 0,
	                               e->w->shape.tied ? e->max_logits : 0);
	int rc = 0;
	uint64_t tied = 0;
	rc = forecast_one(e, NX_WEIGHT_OUTPUT, 0, e->max_logits, e->w->shape.tied ? &tied : own,
	                  packed, err);
	for (int32_t l = 0; l < e->w->shape.n_layers && !rc; l++)
		for (int role = NX_WEIGHT_QKV; role < NX_WEIGHT_ROLE_COUNT && !rc; role++)
			rc = forecast_one(e, (enum nx_weight_role)role, l, max_rows, own, packed,
			                  err);
	return rc;
}

int nx_product(struct nx_engine *e, enum nx_weight_role role, int32_t layer,
               const struct nx_weight *native, struct nx_linear *a, struct nx_err *err)
{
	if (e->packed[layer].w[role]) {
		a->w = NULL;
		return e->packer->t->weight_linear(e->packer->self, e->stream,
		                                   e->packed[layer].w[role], a, err);
	}
	a->w = native;
	return e->dev->ops->linear(e->dev->dev, e->stream, a, err);
}
