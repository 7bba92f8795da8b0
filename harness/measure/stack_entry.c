/* SPDX-License-Identifier: Apache-2.0
 *
 * See stack_entry.h.
 */
#include "measure/stack_entry.h"

#include <string.h>

#include "base/text.h"

void nx_value_text(const struct nx_param *p, const struct nx_value *v, char *buf, size_t size)
{
	switch (p->type) {
	case NX_PARAM_INT: snprintf(buf, size, "%lld", (long long)v->i); break;
	case NX_PARAM_FLOAT: snprintf(buf, size, "%.9g", v->f); break;
	case NX_PARAM_BOOL: snprintf(buf, size, "%s", v->b ? "true" : "false"); break;
	case NX_PARAM_ENUM: snprintf(buf, size, "%s", v->s); break;
	}
}

int nx_default_values(struct nx_arena *a, const struct nx_plugin *p, struct nx_value **out,
                      struct nx_err *err)
{
	struct nx_value *values = nx_arena_array(a, (size_t)p->n_params, sizeof(*values));
	int rc = values ? 0 : nx_oom(err);
	for (int32_t i = 0; rc == 0 && i < p->n_params; i++)
		rc = nx_param_default(&p->technique->params[i], &values[i], err);
	if (rc == 0)
		*out = values;
	return rc;
}

/* Names of the techniques that can be used, for messages. */
static const char **technique_names(struct nx_loading *l, size_t *n)
{
	const struct nx_registry *r = l->full->registry;
	const char **names = nx_arena_array(l->arena, nx_registry_count(r), sizeof(*names));
	*n = 0;
	for (size_t i = 0; names && i < nx_registry_count(r); i++)
		if (nx_registry_at(r, i)->technique)
			names[(*n)++] = nx_registry_at(r, i)->technique->name;
	return names;
}

/* A plugin file of that name which was refused: its sentence is the better answer. */
static const struct nx_plugin *rejected(const struct nx_registry *r, const char *name)
{
	size_t n = strlen(name);
	for (size_t i = 0; i < nx_registry_count(r); i++) {
		const struct nx_plugin *p = nx_registry_at(r, i);
		const char *slash = p->path ? strrchr(p->path, '/') : NULL;
		const char *file = slash ? slash + 1 : p->path;
		if (!p->technique && p->error && file && strncmp(file, name, n) == 0 &&
		    strcmp(file + n, ".so") == 0)
			return p;
	}
	return NULL;
}

static int find_plugin(struct nx_loading *l, const struct nx_yaml *at, const struct nx_plugin **out,
                       struct nx_err *err)
{
	*out = nx_registry_find(l->full->registry, at->text, NULL);
	if (*out && (*out)->technique)
		return 0;
	const struct nx_plugin *bad = rejected(l->full->registry, at->text);
	if (bad)
		return nx_yaml_fail(at, err, NX_EABI, "the technique \"%.40s\" cannot be used: %s",
		                    at->text, bad->error);
	size_t n;
	const char **names = technique_names(l, &n);
	if (!names)
		return nx_oom(err);
	char quoted[96], list[256];
	nx_quote(quoted, sizeof(quoted), at->text);
	nx_list_text(list, sizeof(list), names, n);
	const char *near = nx_near_name(at->text, names, n);
	return nx_yaml_fail(at, err, NX_EINVAL, "found the unknown technique %s; legal: %s%s%s%s",
	                    quoted, n ? list : "(no technique was found)",
	                    near ? "; did you mean \"" : "", near ? near : "", near ? "\"?" : "");
}

/* Names of the choices of an ENUM, for the nearest one. */
static const char *nearest_choice(struct nx_loading *l, const struct nx_param *p, const char *text)
{
	const char *names[32];
	size_t n = 0;
	char *s = p->type == NX_PARAM_ENUM ? nx_arena_strdup(l->arena, p->choices) : NULL;
	while (s && n < NX_N(names)) {
		char *bar = strchr(s, '|');
		if (bar)
			*bar = '\0';
		names[n++] = s;
		s = bar ? bar + 1 : NULL;
	}
	return nx_near_name(text, names, n);
}

static int parse_value(struct nx_loading *l, const struct nx_param *p, const struct nx_yaml *v,
                       struct nx_value *out, struct nx_err *err)
{
	/* 1 MiB of digits is no number either: bounded before it is handed on */
	if (v->kind == NX_YAML_SCALAR && !v->null && strlen(v->text) < 128 &&
	    nx_param_parse(p, v->text, out, NULL) == 0)
		return 0;
	char legal[320];
	nx_param_legal(p, legal, 200);
	const char *near = v->kind == NX_YAML_SCALAR ? nearest_choice(l, p, v->text) : NULL;
	if (near)
		snprintf(legal + strlen(legal), sizeof(legal) - strlen(legal),
		         "; did you mean \"%.60s\"?", near);
	return nx_yaml_illegal(v, legal, err);
}

static int parse_choice(struct nx_loading *l, const struct nx_param *p, const struct nx_yaml *v,
                        struct nx_choice *out, struct nx_err *err)
{
	bool list = v->kind == NX_YAML_LIST;
	const struct nx_yaml *item = list ? v->first : v;
	*out = (struct nx_choice){.n = list ? v->n : 1, .list = list, .where = v};
	if (out->n == 0 || out->n > NX_AXIS_MAX)
		return nx_yaml_fail(v, err, NX_EINVAL,
		                    "found a list of %zu values for %.60s; legal: 1 to %d values",
		                    out->n, v->label, NX_AXIS_MAX);
	out->values = nx_arena_array(l->arena, out->n, sizeof(*out->values));
	if (!out->values)
		return nx_oom(err);
	for (size_t i = 0; i < out->n; i++, item = item->next) {
		char a[128], b[128];
		int rc = parse_value(l, p, item, &out->values[i], err);
		if (rc)
			return rc;
		nx_value_text(p, &out->values[i], a, sizeof(a));
		for (size_t j = 0; j < i; j++) {
			nx_value_text(p, &out->values[j], b, sizeof(b));
			if (strcmp(a, b) == 0)
				return nx_yaml_fail(
					item, err, NX_EINVAL,
					"found %s for %.60s a second time; legal: each value once",
					a, v->label);
		}
	}
	return 0;
}

/* The parameters that were given; map may be NULL. */
static int parse_written(struct nx_loading *l, const struct nx_yaml *map, struct nx_entry *e,
                         struct nx_err *err)
{
	const struct nx_param *params = e->plugin->technique->params;
	int32_t n = e->plugin->n_params;
	const char **keys = nx_arena_array(l->arena, (size_t)n, sizeof(*keys));
	if (!keys)
		return nx_oom(err);
	for (int32_t i = 0; i < n; i++)
		keys[i] = params[i].key;
	if (n == 0 && map->kind == NX_YAML_MAP && map->n)
		return nx_yaml_fail(
			map->first->key, err, NX_EINVAL,
			"found the parameter \"%.60s\" for %s; legal: none, it has no parameters",
			map->first->key->text, e->plugin->technique->name);
	int rc = nx_yaml_check_map(map, keys, (size_t)n, err);
	for (const struct nx_yaml *v = rc ? NULL : map->first; rc == 0 && v; v = v->next) {
		int32_t i = 0;
		while (strcmp(keys[i], v->key->text) != 0)
			i++;
		e->written[e->n_written++] = i;
		rc = parse_choice(l, &params[i], v, &e->choices[i], err);
	}
	return rc;
}

static int fill_defaults(struct nx_loading *l, struct nx_entry *e, struct nx_err *err)
{
	for (int32_t i = 0; i < e->plugin->n_params; i++) {
		struct nx_choice *c = &e->choices[i];
		const struct nx_param *p = &e->plugin->technique->params[i];
		if (c->values)
			continue;
		c->n = 1;
		c->values = nx_arena_alloc(l->arena, sizeof(*c->values));
		if (!c->values)
			return nx_oom(err);
		struct nx_err why = {0};
		int rc = nx_param_default(p, c->values, &why);
		if (rc && p->def)
			return nx_yaml_fail(e->where, err, rc,
			                    "the technique %s has a broken default: %s",
			                    e->plugin->technique->name, why.msg);
		if (rc) {
			char legal[200];
			nx_param_legal(p, legal, sizeof(legal));
			return nx_yaml_fail(e->where, err, NX_EINVAL,
			                    "found %s without its parameter %s; legal: %s: %s",
			                    e->plugin->technique->name, p->key, p->key, legal);
		}
	}
	return 0;
}

int nx_entry_parse(struct nx_loading *l, const struct nx_yaml *v, struct nx_entry *out,
                   struct nx_err *err)
{
	struct nx_entry e = {0};
	const struct nx_yaml *name = v, *map = NULL;
	if (v->kind == NX_YAML_MAP && v->n == 1) {
		name = v->first->key;
		map = v->first->kind == NX_YAML_SCALAR && v->first->null
		              ? NULL
		              : v->first; /* `- technique:` alone */
	} else if (v->kind != NX_YAML_SCALAR || v->null) {
		return nx_yaml_illegal(
			v,
			"the name of a technique, or technique: {parameter: value} (one a list entry)",
			err);
	}
	int rc = find_plugin(l, name, &e.plugin, err);
	if (rc)
		return rc;
	e.where = name;
	e.choices = nx_arena_array(l->arena, (size_t)e.plugin->n_params, sizeof(*e.choices));
	e.written = nx_arena_array(l->arena, (size_t)e.plugin->n_params, sizeof(*e.written));
	if (!e.choices || !e.written)
		return nx_oom(err);
	if (map && (rc = parse_written(l, map, &e, err)) != 0)
		return rc;
	if ((rc = fill_defaults(l, &e, err)) != 0)
		return rc;
	*out = e;
	return 0;
}
