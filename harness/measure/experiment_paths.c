/* SPDX-License-Identifier: Apache-2.0
 *
 * measure/experiment_paths.c: which files an experiment means.
 */
#include <stdlib.h>
#include <string.h>

#include "base/file.h"
#include "base/text.h"
#include "measure/experiment_internal.h"

/* X(name, file below a models/ folder, remedy when it is missing): models that have a name. */
#define MODELS(X)                                                                                  \
	X("nano", "nano/nano.gguf", "restore experiments/models/nano, it is part of the source")   \
	X("smollm2", "smollm2-135m-instruct-q4_1.gguf", "run `make models`")

struct named_model {
	const char *name, *file, *remedy;
};

static const struct named_model models[] = {
#define X(name, file, remedy) {name, file, remedy},
	MODELS(X)
#undef X
};

static const char *const model_names[] = {
#define X(name, file, remedy) name,
	MODELS(X)
#undef X
};

const char *nx_resolve(struct nx_loading *l, const char *path, bool (*exists)(const char *))
{
	const char *beside = nx_path_join(l->arena, l->dir, path);
	if (beside && exists(beside))
		return beside;
	return exists(path) ? path : NULL;
}

/* Looks for a file of a models/ folder: the experiment's, that of the working directory's checkout, that
 * of the checkout or installation that the program was started from. */
static const char *find_model_file(struct nx_loading *l, const char *file)
{
	const char *const folders[] = {
		nx_path_join(l->arena, l->dir, "models"),
		"experiments/models",
		l->exe_dir ? nx_path_join(l->arena, l->exe_dir, "../experiments/models") : NULL,
		l->exe_dir ? nx_path_join(l->arena, l->exe_dir, "../share/nexus/experiments/models")
			   : NULL,
	};
	for (size_t i = 0; i < NX_N(folders); i++) {
		const char *path = folders[i] ? nx_path_join(l->arena, folders[i], file) : NULL;
		if (path && nx_file_is_regular(path))
			return path;
	}
	return NULL;
}

/* A name without slash and ending: one of the table; or NAME/NAME.gguf, nano/NAME.gguf (the rest of the
 * nano family) or NAME.gguf of a models/ folder, so that a model put there needs no entry here. */
static int named_model(struct nx_loading *l, const struct nx_yaml *v, struct nx_err *err)
{
	const char *path = NULL;
	for (size_t i = 0; i < NX_N(models); i++) {
		if (strcmp(models[i].name, v->text) != 0)
			continue;
		path = find_model_file(l, models[i].file);
		if (!path)
			return nx_yaml_fail(
				v, err, NX_EENV,
				"the model \"%s\" is missing (experiments/models/%s); %s", v->text,
				models[i].file, models[i].remedy);
		break;
	}
	const char *const files[] = {
		nx_arena_printf(l->arena, "%s/%s.gguf", v->text, v->text),
		nx_arena_printf(l->arena, "nano/%s.gguf", v->text),
		nx_arena_printf(l->arena, "%s.gguf", v->text),
	};
	for (size_t i = 0; !path && i < NX_N(files); i++)
		path = files[i] ? find_model_file(l, files[i]) : NULL;
	if (path) {
		l->full->x.model = path;
		return 0;
	}
	const char *near = nx_near_name(v->text, model_names, NX_N(model_names));
	char quoted[96], list[128];
	nx_quote(quoted, sizeof(quoted), v->text);
	nx_list_text(list, sizeof(list), model_names, NX_N(model_names));
	return nx_yaml_fail(v, err, NX_EINVAL,
	                    "found no model %s; legal: %s, or the path of a .gguf file%s%s%s",
	                    quoted, list, near ? "; did you mean \"" : "", near ? near : "",
	                    near ? "\"?" : "");
}

int nx_load_model(struct nx_loading *l, const struct nx_yaml *v, struct nx_err *err)
{
	const char *name;
	int rc = nx_yaml_text(v, "a model's name or the path of a .gguf file", &name, err);
	if (rc)
		return rc;
	size_t n = strlen(name);
	bool is_path = strchr(name, '/') || (n > 5 && strcmp(name + n - 5, ".gguf") == 0);
	if (!is_path)
		return named_model(l, v, err);
	const char *path = nx_resolve(l, name, nx_file_is_regular);
	if (!path) {
		char quoted[96];
		return nx_yaml_fail(
			v, err, NX_EINVAL,
			"found no model file %s; legal: a .gguf file, from the experiment's folder or the working directory",
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
