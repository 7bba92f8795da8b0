/* SPDX-License-Identifier: Apache-2.0
 *
 * measure/experiment_set.c: --set key=value, laid over the file's tree before anything is checked.
 *
 * Dots go down: into mappings by key, into lists by the entry's name (a technique of a stack) or its
 * number from 0. Missing mappings are made, so the checks that follow name a wrong key as if it stood in
 * the file. A value with commas is a list; one that begins with [ or { is YAML.
 */
#include <string.h>

#include "base/text.h"
#include "measure/experiment_internal.h"

/* Every node of an override has the override as its place. */
static void set_file(struct nx_yaml *v, const struct nx_yaml *like)
{
	v->file = like->file;
	v->line = v->column = 0;
	for (struct nx_yaml *c = v->first; c; c = c->next) { /* depth is bounded by the parser */
		if (c->key) {
			c->key->file = like->file;
			c->key->line = c->key->column = 0;
		}
		set_file(c, like);
	}
}

static struct nx_yaml *key_node(struct nx_loading *l, const char *name, const struct nx_yaml *like)
{
	return nx_yaml_node(l->arena, NX_YAML_SCALAR, name, like);
}

static int one_value(struct nx_loading *l, const char *s, size_t n, const struct nx_yaml *like,
                     struct nx_yaml **out, struct nx_err *err)
{
	while (n && s[0] == ' ')
		s++, n--;
	while (n && s[n - 1] == ' ')
		n--;
	char *text = nx_arena_strndup(l->arena, s, n);
	if (!text)
		return nx_oom(err);
	if (n && strchr("[{\"'", text[0])) {
		int rc = nx_yaml_parse(l->arena, like->file, text, n, out, err);
		if (rc == 0)
			set_file(*out, like);
		return rc;
	}
	struct nx_yaml *v = nx_yaml_node(l->arena, NX_YAML_SCALAR, text, like);
	if (!v)
		return nx_oom(err);
	v->null = n == 0 || strcmp(text, "null") == 0 || strcmp(text, "~") == 0;
	*out = v;
	return 0;
}

/* Length up to the next comma that is in no brackets or quotes. */
static size_t until_comma(const char *s)
{
	int depth = 0;
	char quote = 0;
	for (size_t i = 0;; i++) {
		char c = s[i];
		if (!c || (c == ',' && depth <= 0 && !quote))
			return i;
		if (quote)
			quote = c == quote ? 0 : quote;
		else if (c == '"' || c == '\'')
			quote = c;
		else
			depth += (c == '[' || c == '{') - (c == ']' || c == '}');
	}
}

static int parse_value(struct nx_loading *l, const char *s, const struct nx_yaml *like,
                       struct nx_yaml **out, struct nx_err *err)
{
	size_t n = until_comma(s);
	if (!s[n])
		return one_value(l, s, n, like, out, err);
	struct nx_yaml *list = nx_yaml_node(l->arena, NX_YAML_LIST, NULL, like);
	if (!list)
		return nx_oom(err);
	for (;;) {
		struct nx_yaml *v;
		int rc = one_value(l, s, n, like, &v, err);
		if (rc)
			return rc;
		nx_yaml_append(list, v);
		if (!s[n])
			break;
		s += n + 1;
		n = until_comma(s);
	}
	*out = list;
	return 0;
}

/* Replaces old (a child of parent) by v, in place. */
static void replace(struct nx_yaml *parent, struct nx_yaml *old, struct nx_yaml *v)
{
	struct nx_yaml **link = &parent->first;
	while (*link != old)
		link = &(*link)->next;
	*link = v;
	v->next = old->next;
	v->label = old->label;
	if (parent->last == old)
		parent->last = v;
}

static void set_label(struct nx_yaml *v, const char *label)
{
	v->label = label;
	if (v->kind == NX_YAML_LIST)
		for (struct nx_yaml *c = v->first; c; c = c->next)
			set_label(c, label);
}

/* Puts v at a key of a mapping, over what is there. */
static int put(struct nx_loading *l, struct nx_yaml *map, const char *name, struct nx_yaml *v,
               const struct nx_yaml *like, struct nx_err *err)
{
	struct nx_yaml *old = nx_yaml_get(map, name);
	v->key = key_node(l, name, like);
	if (!v->key)
		return nx_oom(err);
	if (old)
		replace(map, old, v);
	else
		nx_yaml_append(map, v);
	set_label(v, v->key->text);
	return 0;
}

/* The entry of a list that a name means: a scalar of that text, a mapping whose only key it is, or the
 * entry of that number. */
static struct nx_yaml *list_entry(struct nx_yaml *list, const char *name)
{
	int64_t at;
	bool number = nx_parse_i64(name, &at) == 0;
	for (struct nx_yaml *c = list->first; c; c = c->next) {
		if (c->kind == NX_YAML_SCALAR && strcmp(c->text, name) == 0)
			return c;
		if (c->kind == NX_YAML_MAP && c->n == 1 && strcmp(c->first->key->text, name) == 0)
			return c;
	}
	struct nx_yaml *c = list->first;
	for (int64_t i = 0; number && c && i < at; i++)
		c = c->next;
	return number && at >= 0 ? c : NULL;
}

/* Puts v where a list has the entry called name: the technique stays, v becomes its parameters. */
static int put_entry(struct nx_loading *l, struct nx_yaml *list, const char *name,
                     struct nx_yaml *v, const struct nx_yaml *like, struct nx_err *err)
{
	struct nx_yaml *entry = list_entry(list, name);
	char quoted[96];
	if (!entry)
		return nx_yaml_fail(
			like, err, NX_EINVAL,
			"found no entry %s in %.60s; legal: the name of an entry, or a number below %zu",
			nx_quote(quoted, sizeof(quoted), name), list->label, list->n);
	if (v->kind == NX_YAML_MAP && entry->kind == NX_YAML_MAP && entry->n == 1)
		return put(l, entry, entry->first->key->text, v, like, err);
	if (v->kind == NX_YAML_MAP && entry->kind == NX_YAML_SCALAR) {
		struct nx_yaml *map = nx_yaml_node(l->arena, NX_YAML_MAP, NULL, like);
		if (!map)
			return nx_oom(err);
		replace(list, entry, map);
		return put(l, map, entry->text, v, like, err);
	}
	replace(list, entry, v);
	return 0;
}

/* One level down from at, making a mapping where there is none. */
static int descend(struct nx_loading *l, struct nx_yaml *at, const char *name,
                   const struct nx_yaml *like, struct nx_yaml **out, struct nx_err *err)
{
	struct nx_yaml *next = NULL;
	if (at->kind == NX_YAML_LIST) {
		struct nx_yaml *entry = list_entry(at, name);
		next = entry && entry->kind == NX_YAML_MAP && entry->n == 1 ? entry->first : entry;
	} else {
		next = nx_yaml_get(at, name);
	}
	if (next && next->kind != NX_YAML_SCALAR) {
		*out = next;
		return 0;
	}
	/* `num_requests: 8` under --set num_requests.per_slot=4: the scalar gives way to a mapping. */
	struct nx_yaml *map = nx_yaml_node(l->arena, NX_YAML_MAP, NULL, like);
	if (!map)
		return nx_oom(err);
	*out = map;
	return at->kind == NX_YAML_LIST ? put_entry(l, at, name, map, like, err)
	                                : put(l, at, name, map, like, err);
}

static int apply(struct nx_loading *l, const char *set, struct nx_err *err)
{
	const struct nx_yaml like = {.file = nx_arena_printf(l->arena, "--set %.100s", set),
	                             .label = "--set"};
	char *path = nx_arena_strdup(l->arena, set);
	if (!like.file || !path)
		return nx_oom(err);
	char *equals = strchr(path, '=');
	if (!equals || equals == path)
		return nx_yaml_fail(
			&like, err, NX_EINVAL,
			"found no key=value; legal: key=value with dots in the key, such as sweep.batch_size=1,4");
	*equals = '\0';
	struct nx_yaml *v;
	int rc = parse_value(l, equals + 1, &like, &v, err);
	struct nx_yaml *at = l->root;
	int depth = 0;
	char *name = path;
	while (rc == 0) {
		char *dot = strchr(name, '.');
		if (dot)
			*dot = '\0';
		if (!name[0] || ++depth > NX_YAML_DEPTH_MAX / 2)
			return nx_yaml_fail(
				&like, err, NX_EINVAL,
				"found %s; legal: names with one dot between them, such as sweep.batch_size",
				name[0] ? "too many names" : "an empty name");
		if (!dot)
			return at->kind == NX_YAML_LIST ? put_entry(l, at, name, v, &like, err)
			                                : put(l, at, name, v, &like, err);
		rc = descend(l, at, name, &like, &at, err);
		name = dot + 1;
	}
	return rc;
}

int nx_load_sets(struct nx_loading *l, const char *const *sets, size_t n, struct nx_err *err)
{
	if (n && l->root->kind != NX_YAML_MAP)
		return nx_check_top_keys(l->root, err);
	for (size_t i = 0; i < n; i++) {
		int rc = apply(l, sets[i], err);
		if (rc)
			return rc;
		l->notes = nx_arena_printf(l->arena, "%s# --set %s\n", l->notes, sets[i]);
		if (!l->notes)
			return nx_oom(err);
	}
	return 0;
}
