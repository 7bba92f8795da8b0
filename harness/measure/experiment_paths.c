/* SPDX-License-Identifier: Apache-2.0
 *
 * measure/experiment_paths.c: which files an experiment means.
 */
#include <stdlib.h>
#include <string.h>

#include "base/file.h"
#include "base/text.h"
#include "measure/experiment_internal.h"
#include "measure/model_path.h"

const char *nx_resolve(struct nx_loading *l, const char *path, bool (*exists)(const char *))
{
	/* What came with the program: experiments/ of the checkout, or of the installation. */
	static const char *const ours[] = {"../experiments", "../share/nexus/experiments"};
	const char *beside = nx_path_join(l->arena, l->dir, path);
	if (beside && exists(beside))
		return beside;
	if (exists(path))
		return path;
	for (size_t i = 0; l->exe_dir && path[0] != '/' && i < sizeof(ours) / sizeof(ours[0]);
	     i++) {
		const char *there =
			nx_arena_printf(l->arena, "%s/%s/%s", l->exe_dir, ours[i], path);
		if (there && exists(there))
			return there;
	}
	return NULL;
}

static int named_model(struct nx_loading *l, const struct nx_yaml *v, struct nx_err *err)
{
	char path[4096];
	struct nx_err why = {0};
	int rc = nx_model_find(v->text, l->dir, l->exe_dir, path, sizeof(path), &why);
	if (rc)
		return nx_yaml_fail(v, err, rc, "%s", why.msg);
	l->full->x.model = nx_arena_printf(l->arena, "%s", path);
	return l->full->x.model ? 0 : nx_yaml_fail(v, err, NX_ENOMEM, "out of memory");
}

int nx_load_model(struct nx_loading *l, const struct nx_yaml *v, struct nx_err *err)
{
	const char *name;
	int rc = nx_yaml_text(
		v, "a model's name, or the path of a .gguf file or of a Hugging Face directory",
		&name, err);
	if (rc)
		return rc;
	if (nx_model_is_name(name))
		return named_model(l, v, err);
	/* A slash at the end of a directory would leave it without a base name. */
	size_t n = strlen(name);
	while (n > 1 && name[n - 1] == '/')
		n--;
	const char *plain = nx_arena_strndup(l->arena, name, n);
	const char *path = plain ? nx_resolve(l, plain, nx_model_exists) : NULL;
	if (!path) {
		char quoted[96];
		return nx_yaml_fail(
			v, err, NX_EINVAL,
			"found no model %s; legal: a .gguf file or a directory with config.json, from the experiment's folder or the working directory",
			nx_quote(quoted, sizeof(quoted), name));
	}
	l->full->x.model = path;
	return 0;
}

/* Reads `techniques`, a folder or a list of them, and opens the registry with them in front. */
int nx_load_registry(struct nx_loading *l, struct nx_err *err)
{
	const struct nx_yaml *v = nx_yaml_get(l->root, "techniques");
	size_t n = !v ? 0 : v->kind == NX_YAML_LIST ? v->n : 1;
	const char **dirs = nx_arena_array(l->arena, n, sizeof(*dirs));
	if (!dirs)
		return nx_oom(err);
	const struct nx_yaml *item = v && v->kind == NX_YAML_LIST ? v->first : v;
	for (size_t i = 0; i < n; i++, item = item->next) {
		const char *name;
		int rc = nx_yaml_text(item, "a folder, or a list of folders", &name, err);
		if (rc)
			return rc;
		dirs[i] = nx_resolve(l, name, nx_file_is_dir);
		if (!dirs[i])
			return nx_yaml_illegal(
				item,
				"a folder, from the experiment's folder or the working directory",
				err);
	}
	l->full->x.technique_paths = dirs;
	l->full->x.n_technique_paths = n;
	return nx_registry_open(&l->full->registry, dirs, n, l->exe_dir, err);
}
