/* SPDX-License-Identifier: Apache-2.0
 *
 * measure/model_path.c: see model_path.h.
 */
#include "measure/model_path.h"

#include <string.h>

#include "base/file.h"
#include "base/text.h"

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

#define N_MODELS (sizeof(models) / sizeof(models[0]))

bool nx_model_is_name(const char *text)
{
	size_t n = strlen(text);
	return !strchr(text, '/') && (n <= 5 || strcmp(text + n - 5, ".gguf") != 0);
}

static bool find(const char *file, const char *dir, const char *exe_dir, char *path, size_t size)
{
	const struct {
		const char *base, *below;
	} folders[] = {{dir, "models"},
	               {"experiments", "models"},
	               {exe_dir, "../experiments/models"},
	               {exe_dir, "../share/nexus/experiments/models"}};
	for (size_t i = 0; i < sizeof(folders) / sizeof(folders[0]); i++) {
		if (!folders[i].base)
			continue;
		int n = snprintf(path, size, "%s/%s/%s", folders[i].base, folders[i].below, file);
		if (n > 0 && (size_t)n < size && nx_file_is_regular(path))
			return true;
	}
	return false;
}

int nx_model_find(const char *name, const char *dir, const char *exe_dir, char *path, size_t size,
                  struct nx_err *err)
{
	char quoted[96], list[128], file[256];
	for (size_t i = 0; i < N_MODELS; i++) {
		if (strcmp(models[i].name, name) != 0)
			continue;
		if (find(models[i].file, dir, exe_dir, path, size))
			return 0;
		return nx_fail(err, NX_EENV,
		               "the model \"%s\" is missing (experiments/models/%s); %s", name,
		               models[i].file, models[i].remedy);
	}
	static const char *const folders[] = {NULL, "nano/",
	                                      ""}; /* NULL: a folder of its own name */
	for (size_t i = 0; i < sizeof(folders) / sizeof(folders[0]); i++) {
		const char *own = folders[i] ? "" : name, *slash = folders[i] ? "" : "/";
		snprintf(file, sizeof(file), "%s%s%s%s.gguf", folders[i] ? folders[i] : "", own,
		         slash, name);
		if (find(file, dir, exe_dir, path, size))
			return 0;
	}
	const char *near = nx_near_name(name, model_names, N_MODELS);
	nx_quote(quoted, sizeof(quoted), name);
	nx_list_text(list, sizeof(list), model_names, N_MODELS);
	return nx_fail(err, NX_EINVAL,
	               "found no model %s; legal: %s, or the path of a .gguf file%s%s%s", quoted,
	               list, near ? "; did you mean \"" : "", near ? near : "", near ? "\"?" : "");
}
