/* SPDX-License-Identifier: Apache-2.0 */
/* What is true of the whole run, to a file and back: /config, /provenance, /calibration. See
 * schema.h. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "record/schema.h"

static void shape_to_row(const struct nx_shape *s, struct nx_shape_row *r)
{
	*r = (struct nx_shape_row){s->n_layers, s->d_model, s->n_heads,    s->n_kv_heads,
	                           s->head_dim, s->d_ff,    s->vocab,      s->ctx_len,
	                           s->rope_dim, s->tied,    s->rope_theta, s->norm_eps};
}

static void shape_from_row(const struct nx_shape_row *r, struct nx_shape *s)
{
	*s = (struct nx_shape){.n_layers = r->n_layers,
	                       .d_model = r->d_model,
	                       .n_heads = r->n_heads,
	                       .n_kv_heads = r->n_kv_heads,
	                       .head_dim = r->head_dim,
	                       .d_ff = r->d_ff,
	                       .vocab = r->vocab,
	                       .ctx_len = r->ctx_len,
	                       .rope_theta = (float)r->rope_theta,
	                       .norm_eps = (float)r->norm_eps,
	                       .rope_dim = r->rope_dim,
	                       .tied = r->tied != 0};
}

int nx_schema_write(hid_t file, const char *what, struct nx_err *err)
{
	int rc = nx_h5_write_int(file, "schema_version", NX_RUN_SCHEMA, err);
	return rc ? rc : nx_h5_write_attr(file, "content", what, err);
}

int nx_schema_check(hid_t file, struct nx_err *err)
{
	int version, rc = nx_h5_read_int(file, "schema_version", &version, NULL);

	if (rc)
		return nx_fail(err, NX_EFORMAT, "not written by nexus (no schema_version)");
	if (version < NX_RUN_SCHEMA_OLDEST || version > NX_RUN_SCHEMA)
		return nx_fail(
			err, NX_EFORMAT,
			"its schema version is %d, this nexus reads %d to %d; use the nexus that wrote it",
			version, NX_RUN_SCHEMA_OLDEST, NX_RUN_SCHEMA);
	return 0;
}

static int write_config(hid_t file, const struct nx_run_head *head, struct nx_err *err)
{
	const char *text = head->config_text ? head->config_text : "";
	char number[32];
	hid_t g = H5I_INVALID_HID;
	int rc = nx_h5_group(file, "config", &g, err);

	if (rc)
		return rc;
	char hash[65];
	nx_sha256(text, strlen(text), hash);
	if (!(rc = nx_h5_write_text(g, "text", text, err)) &&
	    !(rc = nx_h5_write_text(g, "sha256", hash, err)) &&
	    !(rc = nx_h5_write_text(g, "name", head->name ? head->name : "", err)) &&
	    !(rc = nx_h5_write_text(g, "question", head->question ? head->question : "", err)) &&
	    !(rc = nx_h5_write_int(g, "reference", (int)head->reference, err))) {
		snprintf(number, sizeof(number), "%.17g", head->min_effect);
		rc = nx_h5_write_text(g, "min_effect", number, err);
	}
	H5Gclose(g);
	return rc;
}

int nx_head_write(hid_t file, const struct nx_run_head *head, struct nx_err *err)
{
	struct nx_shape_row shape;
	struct nx_device_info device = head->device;
	hid_t g = H5I_INVALID_HID;
	int rc = write_config(file, head, err);

	if (rc || (rc = nx_h5_group(file, "provenance", &g, err)))
		return rc;
	shape_to_row(&head->shape, &shape);
	if (!(rc = nx_h5_append(g, "facts", nx_schema_table(NX_TABLE_FACT), head->facts,
	                        head->n_facts, err)) &&
	    !(rc = nx_h5_append(g, "device", nx_schema_table(NX_TABLE_DEVICE), &device, 1, err)))
		rc = nx_h5_append(g, "model", nx_schema_table(NX_TABLE_SHAPE), &shape, 1, err);
	H5Gclose(g);
	return rc ? rc
	          : nx_h5_append(file, "calibration", nx_schema_table(NX_TABLE_CALIBRATION),
	                         &head->calibration, 1, err);
}

static int read_config(hid_t file, struct nx_run_head *head, struct nx_err *err)
{
	char *text = NULL, *name = NULL, *question = NULL, *number = NULL;
	int reference = 0;
	hid_t g = H5I_INVALID_HID;
	int rc = nx_h5_open_group(file, "config", &g, err);

	if (rc)
		return rc;
	if (!(rc = nx_h5_read_text(g, "text", &text, err)) &&
	    !(rc = nx_h5_read_text(g, "name", &name, err)) &&
	    !(rc = nx_h5_read_text(g, "question", &question, err)) &&
	    !(rc = nx_h5_read_text(g, "min_effect", &number, err)) &&
	    !(rc = nx_h5_read_int(g, "reference", &reference, err))) {
		head->min_effect = strtod(number, NULL);
		if (reference < 0 || !isfinite(head->min_effect))
			rc = nx_fail(err, NX_EFORMAT,
			             "config: reference and min_effect are out of range");
	}
	H5Gclose(g);
	free(number);
	head->config_text = text;
	head->name = name;
	head->question = question;
	head->reference = reference < 0 ? 0 : (size_t)reference;
	return rc;
}

int nx_head_read(hid_t file, struct nx_run_head *head, struct nx_err *err)
{
	struct nx_shape_row shape;
	void *facts = NULL;
	hid_t g = H5I_INVALID_HID;

	*head = (struct nx_run_head){0};
	int rc = read_config(file, head, err);
	if (rc || (rc = nx_h5_open_group(file, "provenance", &g, err)))
		goto fail;
	if (!(rc = nx_h5_read(g, "facts", nx_schema_table(NX_TABLE_FACT), &facts, &head->n_facts,
	                      err)) &&
	    !(rc = nx_h5_read_one(g, "device", nx_schema_table(NX_TABLE_DEVICE), &head->device,
	                          err)))
		rc = nx_h5_read_one(g, "model", nx_schema_table(NX_TABLE_SHAPE), &shape, err);
	H5Gclose(g);
	head->facts = facts;
	if (rc || (rc = nx_h5_read_one(file, "calibration", nx_schema_table(NX_TABLE_CALIBRATION),
	                               &head->calibration, err)))
		goto fail;
	shape_from_row(&shape, &head->shape);
	return 0;
fail:
	nx_head_release(head);
	return rc;
}

void nx_head_release(struct nx_run_head *head)
{
	free((char *)(uintptr_t)head->config_text); /* const for borrowers; ours after a read */
	free((char *)(uintptr_t)head->name);
	free((char *)(uintptr_t)head->question);
	free(head->facts);
	*head = (struct nx_run_head){0};
}
