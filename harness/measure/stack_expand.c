/* SPDX-License-Identifier: Apache-2.0
 *
 * measure/stack_expand.c: from stacks as written to stacks that can run: techniques and values are looked
 * up, parameters given as lists are multiplied out, the base goes below, conflicts are refused.
 */
#include <string.h>

#include "base/text.h"
#include "measure/experiment_internal.h"
#include "measure/stack_entry.h"

/* One parameter that was given as a list. */
struct stack_axis {
	size_t entry;
	int32_t param;
	size_t n;
};

struct builder {
	struct nx_loading *l;
	const struct nx_stack_def *def;
	struct nx_entry entries[NX_STACK_MAX];
	size_t n_entries;
	struct stack_axis *axes;
	size_t n_axes;
};

static struct nx_expanded *add_expanded(struct nx_loading *l)
{
	if (l->n_expanded == l->cap_expanded) {
		size_t cap = l->cap_expanded ? 2 * l->cap_expanded : 16;
		struct nx_expanded *more = nx_arena_array(l->arena, cap, sizeof(*more));
		if (!more)
			return NULL;
		if (l->n_expanded)
			memcpy(more, l->expanded, l->n_expanded * sizeof(*more));
		l->expanded = more;
		l->cap_expanded = cap;
	}
	return &l->expanded[l->n_expanded++];
}

/* Canonical text: layers in the order of slots, all values, those by default too. */
static const char *spec_of(struct nx_loading *l, const struct nx_stack *s)
{
	const char *out = "";
	uint32_t seen = 0;
	for (int slot = 0; out && slot < NX_SLOT_COUNT; slot++) {
		const struct nx_layer *layer = nx_stack_slot(s, (enum nx_slot)slot);
		if (!layer || (seen & (1u << slot)))
			continue;
		seen |= layer->plugin->slots;
		out = nx_arena_printf(l->arena, "%s%s%s{", out, out[0] ? " + " : "",
		                      layer->plugin->technique->name);
		for (int32_t i = 0; out && i < layer->plugin->n_params; i++) {
			char value[128];
			const struct nx_param *p = &layer->plugin->technique->params[i];
			nx_value_text(p, &layer->values[i], value, sizeof(value));
			out = nx_arena_printf(l->arena, "%s%s%s=%s", out, i ? "," : "", p->key,
			                      value);
		}
		if (out)
			out = nx_arena_printf(l->arena, "%s}", out);
	}
	return out && !out[0] ? "(engine defaults)" : out;
}

/* The base: what lies under every stack. */
static int make_base(struct nx_loading *l, struct nx_err *err)
{
	if (strcmp(l->full->x.base, "tuned") != 0)
		return 0;
	const struct nx_yaml *at = nx_yaml_get(l->root, "base");
	const char *tuned;
	int rc = 0;
	for (int i = 0; !rc && (tuned = nx_tuned_technique(l->full->x.device, i)) != NULL; i++) {
		const struct nx_plugin *p = nx_registry_find(l->full->registry, tuned, NULL);
		if (!p)
			return nx_yaml_fail(
				at ? at : l->root, err, NX_EENV,
				"the base \"tuned\" needs the technique %s, which is not among those found; legal: base: plain, or a folder that holds it under techniques",
				tuned);
		struct nx_layer layer = {.plugin = p};
		rc = nx_default_values(l->arena, p, &layer.values, err);
		if (!rc)
			rc = nx_stack_put(&l->base, &layer, err);
	}
	return rc;
}

static int add_baseline(struct nx_loading *l, struct nx_err *err)
{
	struct nx_expanded *e = add_expanded(l);
	if (!e)
		return nx_oom(err);
	e->named = (struct nx_named_stack){.name = NX_BASELINE,
	                                   .stack = l->base,
	                                   .base_only = true,
	                                   .spec = spec_of(l, &l->base)};
	return e->named.spec ? 0 : nx_oom(err);
}

/* Parses the entries of a stack and refuses two for one slot. */
static int parse_entries(struct builder *b, struct nx_err *err)
{
	for (const struct nx_yaml *v = b->def->list->first; v; v = v->next) {
		struct nx_entry e = {0};
		int rc = nx_entry_parse(b->l, v, &e, err);
		if (rc)
			return rc;
		for (size_t i = 0; i < b->n_entries; i++) {
			uint32_t both = b->entries[i].plugin->slots & e.plugin->slots;
			if (!both)
				continue;
			int slot = 0;
			while (!(both & (1u << slot)))
				slot++;
			return nx_yaml_fail(
				v, err, NX_ECONFLICT,
				"found \"%s\" beside \"%s\" (line %d) in the stack %s: both take the slot %s; legal: one technique a slot",
				e.plugin->technique->name, b->entries[i].plugin->technique->name,
				b->entries[i].where->line, b->def->name,
				nx_slot_name((enum nx_slot)slot));
		}
		/* Entries share no slot, so that there are never more of them than slots. */
		if (b->n_entries == NX_STACK_MAX)
			return nx_yaml_fail(
				v, err, NX_ECONFLICT,
				"found more than %d techniques in the stack %s; legal: one a slot",
				(int)NX_STACK_MAX, b->def->name);
		b->entries[b->n_entries++] = e;
	}
	return 0;
}

/* Axes in the order in which they are written; the last one varies fastest. */
static int find_axes(struct builder *b, size_t *n_stacks, struct nx_err *err)
{
	size_t n_params = 0, n = 1;
	for (size_t i = 0; i < b->n_entries; i++)
		n_params += (size_t)b->entries[i].plugin->n_params;
	b->axes = nx_arena_array(b->l->arena, n_params, sizeof(*b->axes));
	if (!b->axes)
		return nx_oom(err);
	for (size_t i = 0; i < b->n_entries; i++) {
		const struct nx_entry *e = &b->entries[i];
		for (size_t k = 0; k < e->n_written; k++) {
			const struct nx_choice *c = &e->choices[e->written[k]];
			if (!c->list)
				continue;
			b->axes[b->n_axes++] = (struct stack_axis){i, e->written[k], c->n};
			n *= c->n;
			if (n > NX_STACKS_MAX)
				return nx_yaml_fail(
					b->def->list, err, NX_EINVAL,
					"found more than %d combinations of parameters in the stack %s; legal: fewer",
					NX_STACKS_MAX, b->def->name);
		}
	}
	*n_stacks = n;
	return 0;
}

/* Two techniques with an axis of one key: the key alone would not say which. */
static bool is_ambiguous(const struct builder *b, size_t axis, const char *key)
{
	for (size_t i = 0; i < b->n_axes; i++) {
		const struct nx_technique *t = b->entries[b->axes[i].entry].plugin->technique;
		if (i != axis && strcmp(t->params[b->axes[i].param].key, key) == 0)
			return true;
	}
	return false;
}

/* "production[block_size=16,policy=fcfs]" */
static int name_stack(const struct builder *b, const size_t *pick, const char **out,
                      struct nx_err *err)
{
	struct nx_arena *a = b->l->arena;
	const char *name = b->def->name;
	for (size_t i = 0; name && i < b->n_axes; i++) {
		const struct nx_entry *e = &b->entries[b->axes[i].entry];
		const struct nx_param *p = &e->plugin->technique->params[b->axes[i].param];
		char value[128];
		nx_value_text(p, &e->choices[b->axes[i].param].values[pick[i]], value,
		              sizeof(value));
		bool both = is_ambiguous(b, i, p->key);
		name = nx_arena_printf(a, "%s%c%s%s%s=%s", name, i ? ',' : '[',
		                       both ? e->plugin->technique->name : "", both ? "." : "",
		                       p->key, value);
	}
	if (name && b->n_axes)
		name = nx_arena_printf(a, "%s]", name);
	if (!name)
		return nx_oom(err);
	if (strlen(name) > NX_STACK_NAME_MAX)
		return nx_yaml_fail(b->def->list->key, err, NX_EINVAL,
		                    "found the stack name %.100s of %zu bytes; legal: at most %d",
		                    name, strlen(name), NX_STACK_NAME_MAX);
	*out = name;
	return 0;
}

/* A stack with one value for each axis. */
static int make_stack(struct builder *b, const size_t *pick, struct nx_err *err)
{
	struct nx_loading *l = b->l;
	struct nx_expanded *x = add_expanded(l);
	if (!x)
		return nx_oom(err);
	*x = (struct nx_expanded){.where = b->def->list->key};
	struct nx_stack *s = &x->named.stack;
	*s = l->base;
	for (size_t i = 0; i < b->n_entries; i++) {
		const struct nx_entry *e = &b->entries[i];
		struct nx_layer layer = {.plugin = e->plugin};
		layer.values = nx_arena_array(l->arena, (size_t)e->plugin->n_params,
		                              sizeof(*layer.values));
		if (!layer.values)
			return nx_oom(err);
		for (int32_t p = 0; p < e->plugin->n_params; p++) {
			size_t at = 0;
			for (size_t k = 0; k < b->n_axes; k++)
				if (b->axes[k].entry == i && b->axes[k].param == p)
					at = pick[k];
			layer.values[p] = e->choices[p].values[at];
			if (strcmp(e->plugin->technique->params[p].key, "max_batch_size") == 0) {
				x->max_batch_size = layer.values[p].i;
				x->max_batch_where =
					e->choices[p].where ? e->choices[p].where : e->where;
			}
		}
		int rc = nx_stack_put(s, &layer, err);
		if (rc)
			return rc;
	}
	struct nx_err why = {0};
	int rc = nx_stack_check(s, &why);
	if (rc)
		return nx_yaml_fail(x->where, err, rc, "in the stack %s, %s", b->def->name,
		                    why.msg);
	x->named.spec = spec_of(l, s);
	return x->named.spec ? name_stack(b, pick, &x->named.name, err) : nx_oom(err);
}

static int expand(struct nx_loading *l, struct nx_stack_def *def, struct nx_err *err)
{
	struct builder b = {.l = l, .def = def};
	size_t n = 0;
	int rc = parse_entries(&b, err);
	if (rc == 0)
		rc = find_axes(&b, &n, err);
	if (rc)
		return rc;
	if (l->n_expanded + n > NX_STACKS_MAX)
		return nx_yaml_fail(def->list, err, NX_EINVAL,
		                    "found more than %d stacks; legal: fewer", NX_STACKS_MAX);
	size_t *pick = nx_arena_array(l->arena, b.n_axes, sizeof(*pick));
	if (!pick)
		return nx_oom(err);
	def->first = l->n_expanded;
	for (; def->n < n && rc == 0; def->n++) {
		size_t rest = def->n;
		for (size_t i = b.n_axes; i > 0; i--) {
			pick[i - 1] = rest % b.axes[i - 1].n;
			rest /= b.axes[i - 1].n;
		}
		rc = make_stack(&b, pick, err);
	}
	return rc;
}

int nx_expand_stacks(struct nx_loading *l, struct nx_err *err)
{
	int rc = make_base(l, err);
	if (rc == 0)
		rc = add_baseline(l, err);
	for (struct nx_stack_def *d = l->defs; rc == 0 && d; d = d->next)
		rc = expand(l, d, err);
	return rc;
}
