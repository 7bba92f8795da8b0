/* SPDX-License-Identifier: Apache-2.0
 *
 * list_models.c: `nexus list models`: models that have a name, and what their names stand for.
 */
#include <stdio.h>

#include "cli/cli.h"
#include "measure/model_path.h"
#include "model/preset.h"

/* Machines get all digits. */
static void shape_cells(struct nx_table *t, const struct nx_model *m, bool machine)
{
	const struct nx_shape *s = nx_model_shape(m);
	double params = (double)nx_model_n_params(m);
	nx_table_cell(t, "%s", nx_model_arch(m));
	if (machine)
		nx_table_cell(t, "%.0f", params);
	else
		nx_table_cell(t, params < 1e9 ? "%.1f M" : "%.2f G",
		              params / (params < 1e9 ? 1e6 : 1e9));
	nx_table_cell(t, "%d", s->n_layers);
	nx_table_cell(t, "%d", s->d_model);
	nx_table_cell(t, "%d/%d x %d", s->n_heads, s->n_kv_heads, s->head_dim);
	nx_table_cell(t, "%d", s->d_ff);
	nx_table_cell(t, "%d", s->vocab);
	nx_table_cell(t, "%d", s->ctx_len);
}

int nx_list_models(enum nx_table_format format)
{
	static const char *const HEAD[] = {"name",    "architecture", "parameters", "layers",
	                                   "width",   "heads",        "ff",         "vocabulary",
	                                   "context", "weights"};
	struct nx_table t;
	struct nx_text text;
	nx_table_init(&t);
	nx_text_init(&text);
	for (size_t i = 0; i < sizeof(HEAD) / sizeof(HEAD[0]); i++)
		nx_table_column(&t, HEAD[i],
		                i > 1 && i + 1 < sizeof(HEAD) / sizeof(HEAD[0]) ? NX_RIGHT
		                                                                : NX_LEFT);
	for (size_t i = 0; i < nx_model_n_names(); i++) {
		const char *name = nx_model_name_at(i);
		const struct nx_preset *p = nx_preset_find(name);
		struct nx_err err = {0};
		struct nx_model *m = NULL;
		char path[4096];
		int rc = nx_model_find(name, NULL, nx_exe_dir(), path, sizeof(path), &err);
		if (!rc)
			rc = nx_model_open(&m, path, &err);
		nx_table_cell(&t, "%s", name);
		if (!rc)
			shape_cells(&t, m, format == NX_TABLE_CSV || format == NX_TABLE_JSON);
		for (int k = 0; rc && k < 8; k++)
			nx_table_cell(&t, "%s", "");
		if (rc)
			nx_table_cell(&t, "%s", err.msg);
		else if (p)
			nx_table_cell(&t, "random: %s", p->about);
		else
			nx_table_cell(&t, "%s", path);
		nx_model_close(m);
	}
	nx_table_write(&t, format, &text);
	bool ok = !text.failed;
	if (ok && text.s)
		fputs(text.s, stdout);
	nx_text_release(&text);
	nx_table_release(&t);
	if (!ok)
		nx_say("out of memory");
	return ok ? NX_EXIT_DONE : NX_EXIT_ENVIRONMENT;
}
