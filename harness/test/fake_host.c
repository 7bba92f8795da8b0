/* SPDX-License-Identifier: Apache-2.0
 *
 * test/fake_host.c: see fake_host.h.
 */
#include "fake_host.h"

#include <check.h>
#include <stdlib.h>
#include <string.h>

static void *fake_alloc(void *ctx, enum nx_mem kind, size_t bytes)
{
	struct fake_host *f = ctx;
	(void)kind;
	f->live_bytes += bytes;
	return calloc(1, bytes ? bytes : 1);
}

static void fake_free(void *ctx, enum nx_mem kind, void *p, size_t bytes)
{
	struct fake_host *f = ctx;
	(void)kind;
	f->live_bytes -= bytes;
	free(p);
}

static void parse_values(struct fake_host *f, const char *text)
{
	struct nx_err err = {0};
	const struct nx_param *p = f->plugin.technique->params;
	char buf[256], *save = NULL;
	for (int32_t i = 0; i < f->plugin.n_params; i++)
		ck_assert_msg(nx_param_default(&p[i], &f->values[i], &err) == 0, "%s", err.msg);
	snprintf(buf, sizeof(buf), "%s", text);
	for (char *kv = strtok_r(buf, ",", &save); kv; kv = strtok_r(NULL, ",", &save)) {
		char *eq = strchr(kv, '=');
		int32_t i = 0;
		ck_assert_ptr_nonnull(eq);
		*eq = '\0';
		while (i < f->plugin.n_params && strcmp(p[i].key, kv) != 0)
			i++;
		ck_assert_msg(i < f->plugin.n_params, "no parameter %s", kv);
		ck_assert_msg(nx_param_parse(&p[i], eq + 1, &f->values[i], &err) == 0, "%s",
		              err.msg);
	}
}

void fake_host_open(struct fake_host *f, const char *name, const char *values, int32_t batch_size)
{
	struct nx_err err = {0};
	const char *build = getenv("NEXUS_BUILD");
	memset(f, 0, sizeof(*f));
	snprintf(f->path, sizeof(f->path), "%s/techniques/%s.so", build ? build : "build", name);
	ck_assert_msg(nx_plugin_load(f->path, &f->plugin, &err) == 0, "%s", err.msg);
	parse_values(f, values);
	f->host = (struct nx_host){.abi = NX_TECHNIQUE_ABI,
	                           .size = sizeof(struct nx_host),
	                           .ctx = f,
	                           .model = {.n_layers = 2,
	                                     .n_heads = 4,
	                                     .n_kv_heads = 2,
	                                     .head_dim = 16,
	                                     .max_len = 256},
	                           .batch_size = batch_size,
	                           .max_seqs = batch_size,
	                           .max_rows = batch_size * 256,
	                           .max_len = 256,
	                           .alloc = fake_alloc,
	                           .free = fake_free};
	ck_assert_msg(f->plugin.technique->create(&f->self, &f->host, f->values, &err) == 0, "%s",
	              err.msg);
}

void fake_host_close(struct fake_host *f)
{
	f->plugin.technique->destroy(f->self);
	ck_assert_uint_eq(f->live_bytes, 0);
}

double fake_host_counter(const struct fake_host *f, const char *name)
{
	double v[64] = {0};
	f->plugin.technique->read_counters(f->self, v);
	for (int32_t i = 0; i < f->plugin.n_counters; i++)
		if (strcmp(f->plugin.technique->counters[i].name, name) == 0)
			return v[i];
	ck_abort_msg("no counter %s", name);
	return 0;
}
