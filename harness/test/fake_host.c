/* SPDX-License-Identifier: Apache-2.0
 *
 * test/fake_host.c: see fake_host.h.
 */
#include "fake_host.h"

#include <check.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static void *fake_alloc(void *ctx, enum nx_mem kind, size_t bytes)
{
	struct fake_host *f = ctx;
	size_t n = bytes ? bytes : 1;
	uint8_t *p = aligned_alloc(64, (n + 63) / 64 * 64);
	ck_assert_ptr_nonnull(p);
	f->live_bytes += bytes;
	memset(p, kind == NX_MEM_DEVICE ? 0xff : 0, n);
	return p;
}

static void fake_free(void *ctx, enum nx_mem kind, void *p, size_t bytes)
{
	struct fake_host *f = ctx;
	(void)kind;
	f->live_bytes -= bytes;
	free(p);
}

/* ---- a device that runs nothing before it must ---- */

struct fake_work {
	nx_enqueue_fn fn; /* NULL: a copy */
	void *args;       /* kept, and no longer than they were given */
	void *dst;
	const void *src;
	size_t bytes;
	int byte; /* of a fill; -1 = none */
};

static void push(struct fake_host *f, const struct fake_work *w)
{
	if (f->n_work == f->cap_work) {
		f->cap_work = f->cap_work ? 2 * f->cap_work : 64;
		f->work = realloc(f->work, (size_t)f->cap_work * sizeof(*f->work));
		ck_assert_ptr_nonnull(f->work);
	}
	f->work[f->n_work++] = *w;
}

void fake_host_run(struct fake_host *f)
{
	for (int32_t i = 0; i < f->n_work; i++) {
		const struct fake_work w = f->work[i];
		if (w.fn) {
			w.fn(w.args);
			free(w.args);
		} else if (w.byte >= 0) {
			memset(w.dst, w.byte, w.bytes);
		} else {
			memcpy(w.dst, w.src, w.bytes);
		}
	}
	f->n_work = 0;
}

static void dev_info(void *dev, struct nx_device_info *out)
{
	(void)dev;
	*out = (struct nx_device_info){.act_dtype = NX_F32, .caps = NX_DEV_ASYNC};
}

static int dev_stream_create(void *dev, struct nx_stream **out, struct nx_err *err)
{
	(void)err;
	*out = dev;
	return 0;
}

static void dev_stream_destroy(void *dev, struct nx_stream *s)
{
	(void)dev;
	(void)s;
}

static int dev_sync(void *dev, struct nx_stream *s, struct nx_err *err)
{
	(void)s;
	(void)err;
	fake_host_run(dev);
	return 0;
}

static int dev_enqueue(void *dev, struct nx_stream *s, nx_enqueue_fn fn, const void *args,
                       size_t bytes, struct nx_err *err)
{
	int rc = nx_enqueue_check(bytes, err);
	(void)s;
	if (rc)
		return rc;
	void *copy = malloc(bytes ? bytes : 1);
	ck_assert_ptr_nonnull(copy);
	if (bytes)
		memcpy(copy, args, bytes);
	push(dev, &(struct fake_work){.fn = fn, .args = copy});
	return 0;
}

static int dev_copy(void *dev, struct nx_stream *s, void *dst, const void *src, size_t bytes,
                    enum nx_copy_dir dir, struct nx_err *err)
{
	(void)s;
	(void)dir;
	(void)err;
	push(dev, &(struct fake_work){.dst = dst, .src = src, .bytes = bytes, .byte = -1});
	return 0;
}

static int dev_fill(void *dev, struct nx_stream *s, void *dst, int byte, size_t bytes,
                    struct nx_err *err)
{
	(void)s;
	(void)err;
	push(dev, &(struct fake_work){.dst = dst, .bytes = bytes, .byte = byte & 255});
	return 0;
}

static const struct nx_device_ops fake_ops = {
	.abi = NX_DEVICE_ABI,
	.size = sizeof(struct nx_device_ops),
	.name = "fake",
	.info = dev_info,
	.stream_create = dev_stream_create,
	.stream_destroy = dev_stream_destroy,
	.stream_sync = dev_sync,
	.enqueue = dev_enqueue,
	.copy = dev_copy,
	.fill = dev_fill,
};

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

void fake_host_load(struct fake_host *f, const char *name, const char *values, int32_t batch_size)
{
	struct nx_err err = {0};
	const char *build = getenv("NEXUS_BUILD");
	memset(f, 0, sizeof(*f));
	snprintf(f->path, sizeof(f->path), "%s/techniques/%s.so", build ? build : "build", name);
	if (access(f->path, R_OK) != 0)
		snprintf(f->path, sizeof(f->path), "%s/test-plugins/%s.so", build ? build : "build",
		         name);
	ck_assert_msg(nx_plugin_load(f->path, &f->plugin, &err) == 0, "%s", err.msg);
	parse_values(f, values);
	f->host = (struct nx_host){.abi = NX_TECHNIQUE_ABI,
	                           .size = sizeof(struct nx_host),
	                           .ctx = f,
	                           .ops = &fake_ops,
	                           .dev = f,
	                           .model = {.n_layers = 2,
	                                     .d_model = 64,
	                                     .n_heads = 4,
	                                     .n_kv_heads = 2,
	                                     .head_dim = 16,
	                                     .d_ff = 96,
	                                     .vocab = 320,
	                                     .max_len = 256},
	                           .batch_size = batch_size,
	                           .max_seqs = batch_size,
	                           .max_rows = batch_size * 256,
	                           .max_len = 256,
	                           .alloc = fake_alloc,
	                           .free = fake_free};
}

void fake_host_create(struct fake_host *f)
{
	struct nx_err err = {0};
	ck_assert_msg(f->plugin.technique->create(&f->self, &f->host, f->values, &err) == 0, "%s",
	              err.msg);
}

void fake_host_open(struct fake_host *f, const char *name, const char *values, int32_t batch_size)
{
	fake_host_load(f, name, values, batch_size);
	fake_host_create(f);
}

void fake_host_close(struct fake_host *f)
{
	f->plugin.technique->destroy(f->self);
	ck_assert_uint_eq(f->live_bytes, 0);
	for (int32_t i = 0; i < f->n_work; i++)
		free(f->work[i].args);
	free(f->work);
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
