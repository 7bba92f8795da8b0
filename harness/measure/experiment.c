/* SPDX-License-Identifier: Apache-2.0
 *
 * measure/experiment.c: loads an experiment: parse, lay --set over it, check, build. See experiment.h and
 * experiments/README.md.
 */
#include <stdlib.h>
#include <string.h>

#include "base/file.h"
#include "measure/experiment_internal.h"

int nx_oom(struct nx_err *err)
{
	return nx_fail(err, NX_ENOMEM, "out of memory while reading an experiment");
}

int nx_load_file(struct nx_loading *l, const char *path, const char **text, struct nx_yaml **root,
                 struct nx_err *err)
{
	char *data;
	size_t len;
	int rc = nx_file_read(l->arena, path, NX_YAML_BYTES_MAX, &data, &len, err);
	if (rc == 0)
		rc = nx_yaml_parse(l->arena, path, data, len, root, err);
	*text = rc ? NULL : data;
	return rc;
}

/* The file's name without folder and ending. */
static const char *name_of(struct nx_arena *a, const char *path)
{
	const char *base = nx_path_base(path);
	const char *dot = strrchr(base, '.');
	bool yaml = dot && dot != base && (strcmp(dot, ".yaml") == 0 || strcmp(dot, ".yml") == 0);
	return nx_arena_strndup(a, base, yaml ? (size_t)(dot - base) : strlen(base));
}

/* The first comment that is not the licence's, up to the first line that is no comment. */
static const char *question_of(struct nx_arena *a, const char *text)
{
	while (*text == '#' || *text == '\n' || *text == '\r') {
		size_t n = strcspn(text, "\r\n");
		const char *s = text + strspn(text, "# ");
		if (s < text + n && strncmp(s, "SPDX-", 5) != 0)
			return nx_arena_strndup(a, s, (size_t)(text + n - s));
		text += n + (text[n] != '\0');
	}
	return "";
}

/* What was read and what was changed, so that the run file tells the whole experiment. */
static int make_text(struct nx_loading *l, const char *text, struct nx_err *err)
{
	size_t n = strlen(text);
	const char *gap = n && text[n - 1] != '\n' && l->notes[0] ? "\n" : "";
	l->full->x.text = nx_arena_printf(l->arena, "%s%s%s", text, gap, l->notes);
	return l->full->x.text ? 0 : nx_oom(err);
}

static int load(struct nx_loading *l, const char *path, const char *const *sets, size_t n_sets,
                struct nx_err *err)
{
	struct nx_experiment *x = &l->full->x;
	const char *text;
	int rc = nx_load_file(l, path, &text, &l->root, err);
	if (rc)
		return rc;
	x->path = nx_arena_strdup(l->arena, path);
	x->name = name_of(l->arena, path);
	x->question = question_of(l->arena, text);
	l->dir = nx_path_dir(l->arena, path);
	if (!x->path || !x->name || !x->question || !l->dir)
		return nx_oom(err);
	if ((rc = nx_load_sets(l, sets, n_sets, err)) != 0 ||
	    (rc = nx_check_top_keys(l->root, err)) != 0 || (rc = nx_load_keys(l, err)) != 0 ||
	    (rc = nx_load_registry(l, err)) != 0 || (rc = nx_load_stacks(l, err)) != 0 ||
	    (rc = nx_expand_stacks(l, err)) != 0 || (rc = nx_select_stacks(l, err)) != 0 ||
	    (rc = nx_load_cells(l, err)) != 0)
		return rc;
	return make_text(l, text, err);
}

int nx_experiment_load(struct nx_experiment **out, const char *path, const char *const *sets,
                       size_t n_sets, const char *exe_dir, struct nx_err *err)
{
	struct nx_experiment_full *full = calloc(1, sizeof(*full));
	if (!full)
		return nx_oom(err);
	struct nx_loading l = {
		.full = full, .arena = &full->arena, .exe_dir = exe_dir, .notes = ""};
	int rc = load(&l, path, sets, n_sets, err);
	if (rc)
		nx_experiment_destroy(&full->x);
	else
		*out = &full->x;
	return rc;
}

void nx_experiment_destroy(struct nx_experiment *x)
{
	if (!x)
		return;
	struct nx_experiment_full *full = (struct nx_experiment_full *)x; /* its first member */
	nx_registry_close(full->registry);
	nx_arena_release(&full->arena);
	free(full);
}

const struct nx_registry *nx_experiment_registry(const struct nx_experiment *x)
{
	return ((const struct nx_experiment_full *)x)->registry;
}

const struct nx_cell *nx_experiment_cells(const struct nx_experiment *x, size_t *n)
{
	const struct nx_experiment_full *full = (const struct nx_experiment_full *)x;
	*n = full->n_cells;
	return full->cells;
}
