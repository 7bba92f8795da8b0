/* SPDX-License-Identifier: Apache-2.0
 *
 * measure/experiment_stacks.c: collects the stacks as written, from the file and from what it includes.
 *
 * An included file may be a whole experiment: its stacks are taken, its other keys are checked for their
 * names and otherwise left alone. Its stacks come before those of the file that includes it.
 */
#include <stdlib.h>
#include <string.h>

#include "base/file.h"
#include "base/text.h"
#include "measure/experiment_internal.h"

static int collect(struct nx_loading *l, const struct nx_yaml *root, const char *path,
                   struct nx_err *err);

/* Names stand in lists, on the command line and in plots: no commas, brackets, dots or blanks. */
static bool is_name(const char *s)
{
	static const char legal[] =
		"abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_-+";
	size_t n = strspn(s, legal);
	return n > 0 && n <= NX_STACK_NAME_MAX && s[n] == '\0';
}

static int add_def(struct nx_loading *l, const struct nx_yaml *list, struct nx_err *err)
{
	const char *name = list->key->text;
	char quoted[96], place[256];
	nx_quote(quoted, sizeof(quoted), name);
	if (strcmp(name, NX_BASELINE) == 0)
		return nx_yaml_fail(
			list->key, err, NX_EINVAL,
			"found a stack called \"baseline\", which is the reserved name of the base alone; legal: another name");
	if (!is_name(name))
		return nx_yaml_fail(
			list->key, err, NX_EINVAL,
			"found %s as a stack's name; legal: at most %d letters, digits, _, - or +",
			quoted, NX_STACK_NAME_MAX);
	for (const struct nx_stack_def *d = l->defs; d; d = d->next)
		if (strcmp(d->name, name) == 0)
			return nx_yaml_fail(
				list->key, err, NX_EINVAL,
				"found the stack %s a second time; legal: once (first at %s)",
				quoted, nx_yaml_place(d->list->key, place, sizeof(place)));
	if (list->kind != NX_YAML_LIST)
		return nx_yaml_illegal(list, "a list of techniques, [] for none", err);
	struct nx_stack_def *d = nx_arena_alloc(l->arena, sizeof(*d));
	if (!d)
		return nx_oom(err);
	d->name = name;
	d->list = list;
	if (l->last_def)
		l->last_def->next = d;
	else
		l->defs = d;
	l->last_def = d;
	return 0;
}

/* The text of an included file, commented out, so that x.text says all that was read. */
static int note_included(struct nx_loading *l, const char *path, const char *text,
                         struct nx_err *err)
{
	size_t len = strlen(text), lines = 1;
	for (const char *p = text; *p; p++)
		lines += *p == '\n';
	char *out = nx_arena_alloc(l->arena, len + 2 * lines + 2);
	if (!out)
		return nx_oom(err);
	char *q = out;
	for (const char *p = text; *p;) {
		size_t n = strcspn(p, "\n");
		*q++ = '#';
		*q++ = ' ';
		memcpy(q, p, n);
		q += n;
		*q++ = '\n';
		p += n + (p[n] == '\n');
	}
	l->notes = nx_arena_printf(l->arena, "%s# --- included: %s\n%s", l->notes, path, out);
	return l->notes ? 0 : nx_oom(err);
}

static bool already_read(const struct nx_loading *l, const char *path)
{
	for (size_t i = 0; i < l->n_read; i++)
		if (strcmp(l->read[i], path) == 0)
			return true;
	return false;
}

static int mark_read(struct nx_loading *l, const char *path, struct nx_err *err)
{
	const char **more = nx_arena_array(l->arena, l->n_read + 1, sizeof(*more));
	if (!more)
		return nx_oom(err);
	if (l->n_read)
		memcpy(more, l->read, l->n_read * sizeof(*more));
	more[l->n_read++] = path;
	l->read = more;
	return 0;
}

static int include_file(struct nx_loading *l, const struct nx_yaml *v, const char *dir,
                        struct nx_err *err)
{
	static const char legal[] =
		"the path of an experiment file, from this file's folder or the working directory";
	char quoted[96];
	const char *name;
	int rc = nx_yaml_text(v, legal, &name, err);
	if (rc)
		return rc;
	const char *path = nx_path_join(l->arena, dir, name);
	if (path && !nx_file_is_regular(path))
		path = nx_file_is_regular(name) ? name : NULL;
	if (!path)
		return nx_yaml_illegal(v, legal, err);

	/* By its real path, so that two spellings of one file are one. */
	char *real = realpath(path, NULL);
	const char *known = real ? nx_arena_strdup(l->arena, real) : NULL;
	free(real);
	if (!known)
		return nx_yaml_illegal(v, legal, err);
	for (int i = 0; i < l->n_reading; i++)
		if (strcmp(l->reading[i], known) == 0)
			return nx_yaml_fail(
				v, err, NX_EINVAL,
				"found %s, which leads back to itself by its includes; legal: files that do not",
				nx_quote(quoted, sizeof(quoted), name));
	if (already_read(l, known))
		return 0; /* reached by two ways: its stacks are there */

	const char *text;
	struct nx_yaml *root;
	rc = nx_load_file(l, path, &text, &root, err);
	if (rc == 0)
		rc = nx_check_top_keys(root, err);
	if (rc == 0)
		rc = note_included(l, path, text, err);
	return rc ? rc : collect(l, root, known, err);
}

/* All of one file: first its includes, then its own. path is a real path. */
static int collect(struct nx_loading *l, const struct nx_yaml *root, const char *path,
                   struct nx_err *err)
{
	const struct nx_yaml *include = nx_yaml_get(root, "include");
	const struct nx_yaml *stacks = nx_yaml_get(root, "stacks");
	if (l->n_reading == NX_INCLUDE_DEPTH_MAX)
		return nx_yaml_fail(
			root, err, NX_EINVAL,
			"found more than %d files that include each other; legal: fewer",
			NX_INCLUDE_DEPTH_MAX);
	const char *dir = nx_path_dir(l->arena, path);
	int rc = dir ? mark_read(l, path, err) : nx_oom(err);
	l->reading[l->n_reading++] = path;
	if (include && include->kind != NX_YAML_LIST && rc == 0)
		rc = include_file(l, include, dir, err);
	for (const struct nx_yaml *v = include ? include->first : NULL;
	     rc == 0 && v && include->kind == NX_YAML_LIST; v = v->next)
		rc = include_file(l, v, dir, err);
	l->n_reading--;
	if (rc == 0 && stacks && stacks->kind != NX_YAML_MAP)
		rc = nx_yaml_illegal(stacks, "a mapping of names to lists of techniques", err);
	for (const struct nx_yaml *v = stacks ? stacks->first : NULL; rc == 0 && v; v = v->next)
		rc = add_def(l, v, err);
	return rc;
}

int nx_load_stacks(struct nx_loading *l, struct nx_err *err)
{
	char *real = realpath(l->full->x.path, NULL);
	const char *path = nx_arena_strdup(l->arena, real ? real : l->full->x.path);
	free(real);
	return path ? collect(l, l->root, path, err) : nx_oom(err);
}
