/* SPDX-License-Identifier: Apache-2.0
 *
 * engine/stack.c: lays techniques over each other; see registry.h.
 */
#include <string.h>

#include "engine/registry.h"

const char *nx_slot_name(enum nx_slot s)
{
	static const char *const names[] = {
#define X(e, name) name,
		NX_SLOTS(X)
#undef X
	};
	return (unsigned)s < NX_SLOT_COUNT ? names[s] : "?";
}

const char *nx_tuned_technique(const char *device, int i)
{
	static const char *const names[] = {"flash_attention", "cuda_graph"};
	int n = strncmp(device, "cuda", 4) == 0 ? 2 : 1;
	return i < n ? names[i] : NULL;
}

static const char *trait_text(uint32_t bit)
{
	switch (bit) {
#define X(name, b, text)                                                                           \
	case 1u << (b): return text;
		NX_TRAITS(X)
#undef X
	}
	return "?";
}

int nx_stack_put(struct nx_stack *s, const struct nx_layer *layer, struct nx_err *err)
{
	struct nx_stack r = {0};
	for (int32_t i = 0; i < s->n_layers; i++)
		if (!(s->layers[i].plugin->slots & layer->plugin->slots))
			r.layers[r.n_layers++] = s->layers[i];
	if (r.n_layers == NX_STACK_MAX)
		return nx_fail(err, NX_ECONFLICT, "a stack holds at most %d techniques",
		               (int)NX_STACK_MAX);
	r.layers[r.n_layers++] = *layer;
	*s = r;
	return 0;
}

/* What a slot takes for granted, whether the technique says so or not. */
static uint32_t assumed(const struct nx_plugin *p)
{
	uint32_t all = p->technique->assumes;
	if (p->slots & 1u << NX_SLOT_DRAFT)
		all |= NX_TRAIT_KEPT_KV | NX_TRAIT_FULL_KV;
	if (p->slots & 1u << NX_SLOT_PREFIX)
		all |= NX_TRAIT_KEPT_KV | NX_TRAIT_FULL_KV | NX_TRAIT_SPLIT_PROMPT;
	if (p->slots & 1u << NX_SLOT_KV_CODEC)
		all |= NX_TRAIT_KEPT_KV;
	return all;
}

uint32_t nx_plugin_breaks(const struct nx_plugin *p)
{
	return p->technique->breaks | (p->technique->kv_drop ? NX_TRAIT_FULL_KV : 0);
}

int nx_stack_check(const struct nx_stack *s, struct nx_err *err)
{
	for (int32_t i = 0; i < s->n_layers; i++) {
		for (int32_t j = 0; j < s->n_layers; j++) {
			const struct nx_technique *a = s->layers[i].plugin->technique;
			const struct nx_technique *b = s->layers[j].plugin->technique;
			if (i == j)
				continue;
			if (i < j && (s->layers[i].plugin->slots & s->layers[j].plugin->slots))
				return nx_fail(err, NX_ECONFLICT,
				               "\"%s\" and \"%s\" take the same slot; keep one",
				               a->name, b->name);
			uint32_t broken = nx_plugin_breaks(s->layers[i].plugin) &
			                  assumed(s->layers[j].plugin);
			if (broken)
				return nx_fail(
					err, NX_ECONFLICT,
					"\"%s\" cannot be stacked with \"%s\": it breaks what that assumes (%s); keep one",
					a->name, b->name, trait_text(broken & -broken));
		}
	}
	return 0;
}

const struct nx_layer *nx_stack_slot(const struct nx_stack *s, enum nx_slot slot)
{
	for (int32_t i = 0; i < s->n_layers; i++)
		if (s->layers[i].plugin->slots & (1u << slot))
			return &s->layers[i];
	return NULL;
}
