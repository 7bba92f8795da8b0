/* SPDX-License-Identifier: Apache-2.0
 *
 * measure/model_path.c: see model_path.h.
 */
#include "measure/model_path.h"

#include <string.h>

#include "base/file.h"
#include "base/text.h"
#include "model/hf.h"
#include "model/preset.h"

/* X(name, file below a models/ folder, remedy when it is missing): models that have a name. */
#define MODELS(X)                                                                                  \
	X("nano", "nano/nano.gguf", "restore experiments/models/nano, it is part of the source")   \
	X("nano-mtp", "nano/nano-mtp.gguf",                                                        \
	  "restore experiments/models/nano, it is part of the source")                             \
	X("smollm2", "smollm2-135m-instruct-q4_1.gguf", "run `make models`")

struct named_model {
	const char *name, *file, *remedy;
};

static const struct named_model models[] = {
#define X(name, file, remedy) {name, file, remedy},
	MODELS(X)
#undef X
};

#define N_FILES (sizeof(models) / sizeof(models[0]))
#define N_NAMES_MAX 64

size_t nx_model_n_names(void)
{
	return N_FILES + nx_preset_count();
}

const char *nx_model_name_at(size_t i)
{
	return i < N_FILES              ? models[i].name
	       : i < nx_model_n_names() ? nx_preset_at(i - N_FILES)->name
	                                : NULL;
}

bool nx_model_exists(const char *path)
{
	return nx_file_is_regular(path) || nx_hf_is_dir(path);
}

bool nx_model_is_name(const char *text)
{
	size_t n = strlen(text);
	return !strchr(text, '/') && (n <= 5 || strcmp(text + n - 5, ".gguf") != 0);
}

typedef bool there(const char *path);

static bool find(const char *file, there *exists, const char *dir, const char *exe_dir, char *path,
                 size_t size)
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
		if (n > 0 && (size_t)n < size && exists(path))
			return true;
	}
	return false;
}

/* A model of a models/ folder that needs no entry: a file, or a directory of its name. */
static bool find_unlisted(const char *name, const char *dir, const char *exe_dir, char *path,
                          size_t size)
{
	char file[256];
	static const char *const folders[] = {NULL, "nano/",
	                                      ""}; /* NULL: a folder of its own name */
	for (size_t i = 0; i < sizeof(folders) / sizeof(folders[0]); i++) {
		const char *own = folders[i] ? "" : name, *slash = folders[i] ? "" : "/";
		snprintf(file, sizeof(file), "%s%s%s%s.gguf", folders[i] ? folders[i] : "", own,
		         slash, name);
		if (find(file, nx_file_is_regular, dir, exe_dir, path, size))
			return true;
	}
	if (find(name, nx_hf_is_dir, dir, exe_dir, path, size))
		return true;
	/* A directory's path may look like a name, too. */
	const char *bases[] = {dir, "."};
	for (size_t i = 0; i < 2; i++) {
		int n = bases[i] ? snprintf(path, size, "%s/%s", bases[i], name) : -1;
		if (n > 0 && (size_t)n < size && nx_hf_is_dir(path))
			return true;
	}
	return false;
}

int nx_model_find(const char *name, const char *dir, const char *exe_dir, char *path, size_t size,
                  struct nx_err *err)
{
	const char *names[N_NAMES_MAX];
	char quoted[96], list[192];
	size_t n = 0;
	if (nx_preset_find(name)) {
		snprintf(path, size, "%s", name);
		return 0;
	}
	for (size_t i = 0; i < N_FILES; i++) {
		if (strcmp(models[i].name, name) != 0)
			continue;
		if (find(models[i].file, nx_file_is_regular, dir, exe_dir, path, size))
			return 0;
		return nx_fail(err, NX_EENV,
		               "the model \"%s\" is missing (experiments/models/%s); %s", name,
		               models[i].file, models[i].remedy);
	}
	if (find_unlisted(name, dir, exe_dir, path, size))
		return 0;
	if (nx_file_is_regular(name))
		return nx_fail(
			err, NX_EINVAL,
			"the model %s is a file that does not end in .gguf; legal: a .gguf file, or a Hugging Face directory",
			nx_quote(quoted, sizeof(quoted), name));
	for (; n < N_NAMES_MAX && nx_model_name_at(n); n++)
		names[n] = nx_model_name_at(n);
	const char *near = nx_near_name(name, names, n);
	nx_quote(quoted, sizeof(quoted), name);
	nx_list_text(list, sizeof(list), names, n);
	return nx_fail(
		err, NX_EINVAL,
		"found no model %s; legal: %s, or the path of a .gguf file or of a Hugging Face directory%s%s%s",
		quoted, list, near ? "; did you mean \"" : "", near ? near : "", near ? "\"?" : "");
}
