/* SPDX-License-Identifier: Apache-2.0
 *
 * engine/packed.c: matrices that a weights technique packed, and products with them; see impl.h.
 */
#include <stdlib.h>

#include "engine/impl.h"

static int pack_one(struct nx_engine *e, enum nx_weight_role role, int32_t layer,
                    struct nx_err *err)
{
	struct nx_weight_source src;
	struct nx_weight_desc d;
	nx_weights_desc(e->w, role, layer, &src, &d);
	int rc = e->packer->t->weight_pack(e->packer->self, &d, role, layer,
	                                   &e->packed[layer].w[role], err);
	if (rc < 0)
		return rc;
	if (rc == NX_WEIGHT_LEFT)
		e->packed[layer].w[role] = NULL;
	else if (!e->packed[layer].w[role])
		return nx_fail(err, NX_EBUG, "%s packed a matrix and gave nothing back",
		               e->packer->t->name);
	return 0;
}

int nx_pack_create(struct nx_engine *e, struct nx_err *err)
{
	if (!e->packer)
		return 0;
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
		for (int role = 0; role < NX_WEIGHT_ROLE_COUNT; role++)
			if (e->packed[l].w[role])
				e->packer->t->weight_drop(e->packer->self, e->packed[l].w[role]);
	free(e->packed);
	e->packed = NULL;
}

int nx_product(struct nx_engine *e, enum nx_weight_role role, int32_t layer,
               const struct nx_weight *native, struct nx_linear *a, struct nx_err *err)
{
	if (e->packed && e->packed[layer].w[role]) {
		a->w = NULL;
		return e->packer->t->weight_linear(e->packer->self, e->stream,
		                                   e->packed[layer].w[role], a, err);
	}
	a->w = native;
	return e->dev->ops->linear(e->dev->dev, e->stream, a, err);
}
