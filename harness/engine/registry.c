/* SPDX-License-Identifier: Apache-2.0
 *
 * engine/registry.c: the list of techniques; see registry.h.
 */
#include <dirent.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "engine/registry.h"

struct nx_registry {
	struct nx_plugin *plugins;
	size_t n, cap;
	char **strings; /* paths and error sentences */
	size_t n_strings, cap_strings;
};

static int oom(struct nx_err *err)
{
	return nx_fail(err, NX_ENOMEM, "out of memory while listing techniques");
}

static const char *keep(struct nx_registry *r, const char *s)
{
	if (r->n_strings == r->cap_strings) {
		size_t cap = r->cap_strings ? 2 * r->cap_strings : 32;
		char **p = realloc(r->strings, cap * sizeof(*p));
		if (!p)
			return NULL;
		r->strings = p;
		r->cap_strings = cap;
	}
	char *c = strdup(s);
	if (c)
		r->strings[r->n_strings++] = c;
	return c;
}

/* The same file reached by two paths. */
static bool same_file(const char *a, const char *b)
{
	struct stat x, y;
	return !stat(a, &x) && !stat(b, &y) && x.st_dev == y.st_dev && x.st_ino == y.st_ino;
}

static int add(struct nx_registry *r, const char *path, enum nx_origin origin, struct nx_err *err)
{
	struct nx_plugin p = {0};
	struct nx_err why = {0};
	const char *kept = keep(r, path);
	if (!kept)
		return oom(err);
	for (size_t i = 0; i < r->n; i++)
		if (same_file(r->plugins[i].path, kept))
			return 0; /* a folder that was named twice */
	if (nx_plugin_load(kept, &p, &why)) {
		p = (struct nx_plugin){.path = kept, .error = keep(r, why.msg)};
		if (!p.error)
			return oom(err);
	} else {
		const struct nx_plugin *first = nx_registry_find(r, p.technique->name, NULL);
		if (first)
			p = (struct nx_plugin){.path = kept, .hidden_by = first->path};
	}
	p.origin = origin;
	if (r->n == r->cap) {
		size_t cap = r->cap ? 2 * r->cap : 32;
		struct nx_plugin *q = realloc(r->plugins, cap * sizeof(*q));
		if (!q)
			return oom(err);
		r->plugins = q;
		r->cap = cap;
	}
	r->plugins[r->n++] = p;
	return 0;
}

static int is_plugin_name(const struct dirent *d)
{
	size_t n = strlen(d->d_name);
	return d->d_name[0] != '.' && n > 3 && strcmp(d->d_name + n - 3, ".so") == 0 &&
	       !strstr(d->d_name, "_cuda.so");
}

static int scan(struct nx_registry *r, const char *dir, enum nx_origin origin, struct nx_err *err)
{
	struct dirent **names;
	int rc = 0;
	int n = scandir(dir, &names, is_plugin_name,
	                alphasort); /* sorted: the same list on every machine */
	if (n < 0)
		return 0;
	for (int i = 0; i < n; i++) {
		char path[4096];
		snprintf(path, sizeof(path), "%s/%s", dir, names[i]->d_name);
		if (!rc)
			rc = add(r, path, origin, err);
		free(names[i]);
	}
	free(names);
	return rc;
}

static int scan_env(struct nx_registry *r, struct nx_err *err)
{
	const char *env = getenv("NEXUS_TECHNIQUE_PATH");
	int rc = 0;
	while (env && *env && !rc) {
		char dir[4096];
		size_t n = strcspn(env, ":");
		snprintf(dir, sizeof(dir), "%.*s", (int)n, env);
		if (n)
			rc = scan(r, dir, NX_ORIGIN_ENVIRONMENT, err);
		env += n + (env[n] == ':');
	}
	return rc;
}

int nx_registry_open(struct nx_registry **out, const char *const *dirs, size_t n_dirs,
                     const char *exe_dir, struct nx_err *err)
{
	struct nx_registry *r = calloc(1, sizeof(*r));
	int rc = r ? 0 : oom(err);
	for (size_t i = 0; i < n_dirs && !rc; i++)
		rc = scan(r, dirs[i], NX_ORIGIN_GIVEN, err);
	if (!rc)
		rc = scan_env(r, err);
	if (!rc && exe_dir) {
		char dir[4096];
		snprintf(dir, sizeof(dir), "%s/../lib/nexus/techniques", exe_dir);
		rc = scan(r, dir, NX_ORIGIN_INSTALLED, err);
		snprintf(dir, sizeof(dir), "%s/techniques", exe_dir);
		if (!rc)
			rc = scan(r, dir, NX_ORIGIN_BUILT, err);
	}
	if (rc) {
		nx_registry_close(r);
		return rc;
	}
	*out = r;
	return 0;
}

void nx_registry_close(struct nx_registry *r)
{
	if (!r)
		return;
	for (size_t i = 0; i < r->n_strings; i++)
		free(r->strings[i]);
	free(r->strings);
	free(r->plugins);
	free(r);
}

const char *nx_origin_text(enum nx_origin o)
{
	static const char *const text[] = {
#define X(e, t) t,
		NX_ORIGINS(X)
#undef X
	};
	return text[o];
}

size_t nx_registry_count(const struct nx_registry *r)
{
	return r->n;
}

const struct nx_plugin *nx_registry_at(const struct nx_registry *r, size_t i)
{
	return &r->plugins[i];
}

/* Levenshtein distance, names of at most 47 bytes. */
static size_t distance(const char *a, const char *b)
{
	size_t row[48], n = strlen(b);
	if (n > 47)
		return 99;
	for (size_t j = 0; j <= n; j++)
		row[j] = j;
	for (size_t i = 1; a[i - 1]; i++) {
		size_t diagonal = row[0];
		row[0] = i;
		for (size_t j = 1; j <= n; j++) {
			size_t best = diagonal + (a[i - 1] != b[j - 1]);
			if (row[j] + 1 < best)
				best = row[j] + 1;
			if (row[j - 1] + 1 < best)
				best = row[j - 1] + 1;
			diagonal = row[j];
			row[j] = best;
		}
	}
	return row[n];
}

const struct nx_plugin *nx_registry_find(const struct nx_registry *r, const char *name,
                                         const char **nearest)
{
	size_t best = strlen(name) / 2 + 1;
	if (nearest)
		*nearest = NULL;
	for (size_t i = 0; i < r->n; i++) {
		const struct nx_technique *t = r->plugins[i].technique;
		if (!t)
			continue;
		if (strcmp(t->name, name) == 0)
			return &r->plugins[i];
		size_t d = nearest ? distance(name, t->name) : best;
		if (d < best) {
			best = d;
			*nearest = t->name;
		}
	}
	return NULL;
}
