/* SPDX-License-Identifier: Apache-2.0
 *
 * engine/memory.c: every byte the engine takes has an owner's name on it; see impl.h.
 */
#include <string.h>

#include "engine/impl.h"

size_t nx_engine_owner(struct nx_engine *e, const char *name)
{
	for (size_t i = 0; i < e->n_owners; i++)
		if (strcmp(e->owners[i].owner, name) == 0)
			return i;
	struct nx_mem_use *o = &e->owners[e->n_owners];
	snprintf(o->owner, sizeof(o->owner), "%s", name);
	return e->n_owners++;
}

void *nx_engine_alloc(struct nx_engine *e, size_t owner, enum nx_mem kind, size_t bytes)
{
	const struct nx_device_ops *ops = e->dev->ops;
	size_t n = bytes ? bytes : 64;
	void *p =
		kind == NX_MEM_HOST ? ops->host_alloc(e->dev->dev, n) : ops->alloc(e->dev->dev, n);
	if (p) {
		e->owners[owner].reserved_bytes += bytes;
		e->owners[owner].peak_used_bytes = e->owners[owner].reserved_bytes;
	}
	return p;
}

void nx_engine_free(struct nx_engine *e, size_t owner, enum nx_mem kind, void *p, size_t bytes)
{
	const struct nx_device_ops *ops = e->dev->ops;
	size_t n = bytes ? bytes : 64;
	if (!p)
		return;
	if (kind == NX_MEM_HOST)
		ops->host_free(e->dev->dev, p, n);
	else
		ops->free(e->dev->dev, p, n);
	e->owners[owner].reserved_bytes -= bytes;
}

size_t nx_engine_memory(const struct nx_engine *e, struct nx_mem_use *out, size_t max)
{
	size_t n = 0;
	for (size_t i = 0; i < e->n_owners; i++)
		if (e->owners[i].reserved_bytes && n < max)
			out[n++] = e->owners[i];
	return n;
}

uint64_t nx_engine_kv_row_bytes(const struct nx_engine *e)
{
	return (uint64_t)e->store.row_bytes_all;
}

size_t nx_engine_counters(const struct nx_engine *e, struct nx_counter_value *out, size_t max)
{
	size_t n = 0;
	const struct nx_store *s = &e->store;
	const struct {
		const char *name, *unit;
		double value;
	} own[] = {
		{"kv.cow_blocks", "blocks", (double)s->n_cow_blocks},
		{"kv.shared_blocks", "blocks", (double)s->n_shared_blocks},
		{"kv.swapped_rows", "rows", (double)s->n_swapped_rows},
	};
	for (size_t i = 0; i < sizeof(own) / sizeof(own[0]) && n < max; i++, n++) {
		snprintf(out[n].name, sizeof(out[n].name), "%s", own[i].name);
		out[n].unit = own[i].unit;
		out[n].value = own[i].value;
	}
	for (int32_t i = 0; i < e->n_hooks; i++) {
		const struct nx_technique *t = e->hooks[i].t;
		double v[64] = {0};
		int32_t k = 0;
		if (!t->counters)
			continue;
		t->read_counters(e->hooks[i].self, v); /* tables end within 64 rows: plugin.c */
		for (; t->counters[k].name && n < max; k++, n++) {
			snprintf(out[n].name, sizeof(out[n].name), "%s.%s", t->name,
			         t->counters[k].name);
			out[n].unit = t->counters[k].unit;
			out[n].value = v[k];
		}
	}
	return n;
}
