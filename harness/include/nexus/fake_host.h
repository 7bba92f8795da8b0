/* SPDX-License-Identifier: Apache-2.0
 *
 * nexus/fake_host.h: tests a technique without Nexus: loads its shared object, checks its table as the program would,
 * makes values from text, and gives it a host whose memory is counted. Header-only; for test programs alone.
 *
 *     int main(int argc, char **argv)
 *     {
 *         struct nx_fake f;
 *         nx_fake_life(argv[1], "");                     what every technique must survive
 *         if (!nx_fake_open(&f, argv[1], "k=3", 4)) {    four places
 *             NX_CHECK(nx_fake_counter(&f, "steps") == 0, "nothing has been counted yet");
 *             nx_fake_close(&f);                         destroys it; nothing may be left allocated
 *         }
 *         return nx_fake_done();                         prints `N passed, N failed`
 *     }
 *
 * Enqueued work waits until nx_fake_sync(), with a copy of its arguments: pointers in them to what a hook was lent,
 * or to its stack, are found out (best with -fsanitize=address). fake_slots.h drives draft, schedule and
 * kv_layout; fake_device.h has checks of hooks that compute (kv_codec, weights).
 *
 * What the fake leaves out: operations of the device other than alloc, free, copy, fill, enqueue and info are NULL.
 */
#ifndef NEXUS_FAKE_HOST_H
#define NEXUS_FAKE_HOST_H

#include <dlfcn.h>
#include <stdlib.h>
#include <string.h>

#include "nexus/fake_table.h"

#ifdef __cplusplus
extern "C" {
#endif

struct nx_fake {
	struct nx_host host;
	struct nx_device_ops ops;
	const struct nx_technique *t;
	void *self;
	int32_t n_params, n_counters;
	struct nx_value values[NX_FAKE_MAX];
	char texts[NX_FAKE_MAX][64]; /* of ENUM values */
	size_t live_bytes;           /* allocated and not freed */
	int allocs_left;             /* allocations that succeed from now on; -1 = all */
	int32_t n_held, next_block;  /* blocks that a prefix cache holds */
	int n_work;
	struct {
		nx_enqueue_fn fn;
		void *args; /* a copy */
	} work[NX_FAKE_MAX];
};

/* ---- the host ----------------------------------------------------------------------------------- */

static inline void *nx_fake_take(struct nx_fake *f, size_t bytes)
{
	if (f->allocs_left == 0)
		return NULL;
	if (f->allocs_left > 0)
		f->allocs_left--;
	void *p = malloc(bytes ? bytes : 1);
	if (p) {
		memset(p, 0xa5, bytes); /* contents are undefined: nobody may rely on zeroes */
		f->live_bytes += bytes;
	}
	return p;
}

static inline void nx_fake_give(struct nx_fake *f, void *p, size_t bytes)
{
	if (!p)
		return;
	NX_CHECK(bytes <= f->live_bytes, "free() was told %zu bytes, only %zu are allocated", bytes,
	         f->live_bytes);
	f->live_bytes -= bytes;
	free(p);
}

static inline void *nx_fake_host_alloc(void *ctx, enum nx_mem kind, size_t bytes)
{
	(void)kind;
	return nx_fake_take((struct nx_fake *)ctx, bytes);
}

static inline void nx_fake_host_free(void *ctx, enum nx_mem kind, void *p, size_t bytes)
{
	(void)kind;
	nx_fake_give((struct nx_fake *)ctx, p, bytes);
}

static inline void *nx_fake_dev_alloc(void *dev, size_t bytes)
{
	return nx_fake_take((struct nx_fake *)dev, bytes);
}

static inline void nx_fake_dev_free(void *dev, void *p, size_t bytes)
{
	nx_fake_give((struct nx_fake *)dev, p, bytes);
}

static inline int32_t nx_fake_hold(void *ctx, int32_t place, int32_t index)
{
	struct nx_fake *f = (struct nx_fake *)ctx;
	NX_CHECK(place >= 0 && place < f->host.max_seqs && index >= 0,
	         "kv_hold of block %d at place %d", index, place);
	f->n_held++;
	return f->next_block++;
}

static inline void nx_fake_release(void *ctx, int32_t block)
{
	struct nx_fake *f = (struct nx_fake *)ctx;
	NX_CHECK(block >= 0 && block < f->next_block && f->n_held > 0,
	         "kv_release of block %d, which is not held", block);
	f->n_held--;
}

static inline bool nx_fake_idle(void *ctx, int32_t block)
{
	const struct nx_fake *f = (const struct nx_fake *)ctx;
	return block >= 0 && block < f->next_block;
}

static inline void nx_fake_sync(struct nx_fake *f)
{
	for (int i = 0; i < f->n_work; i++) {
		f->work[i].fn(f->work[i].args);
		free(f->work[i].args);
	}
	f->n_work = 0;
}

static inline int nx_fake_enqueue(void *dev, struct nx_stream *s, nx_enqueue_fn fn,
                                  const void *args, size_t bytes, struct nx_err *err)
{
	struct nx_fake *f = (struct nx_fake *)dev;
	int rc = nx_enqueue_check(bytes, err);
	(void)s;
	if (rc)
		return rc;
	if (f->n_work == NX_FAKE_MAX)
		nx_fake_sync(f);
	/* No more than was given, so that what reads on is found out. */
	void *copy = malloc(bytes ? bytes : 1);
	if (!copy)
		return nx_fail(err, NX_ENOMEM, "the fake host is out of memory");
	if (bytes)
		memcpy(copy, args, bytes);
	f->work[f->n_work].fn = fn;
	f->work[f->n_work++].args = copy;
	return 0;
}

static inline int nx_fake_copy(void *dev, struct nx_stream *s, void *dst, const void *src,
                               size_t bytes, enum nx_copy_dir dir, struct nx_err *err)
{
	(void)s;
	(void)dir;
	(void)err;
	nx_fake_sync((struct nx_fake *)dev);
	memcpy(dst, src, bytes);
	return 0;
}

static inline int nx_fake_fill(void *dev, struct nx_stream *s, void *dst, int byte, size_t bytes,
                               struct nx_err *err)
{
	(void)s;
	(void)err;
	nx_fake_sync((struct nx_fake *)dev);
	memset(dst, byte, bytes);
	return 0;
}

static inline void nx_fake_info(void *dev, struct nx_device_info *out)
{
	(void)dev;
	memset(out, 0, sizeof(*out));
	snprintf(out->name, sizeof(out->name), "fake");
	out->n_units = 1;
	out->act_dtype = NX_F32;
	out->caps = NX_DEV_HOST_MEMORY | NX_DEV_ASYNC;
}

/* A small model: 2 layers, 4 heads over 2, 16 wide; vocabulary 1000, context 256. */
static inline void nx_fake_fill_host(struct nx_fake *f, int32_t places)
{
	struct nx_host *h = &f->host;
	f->ops.abi = NX_DEVICE_ABI;
	f->ops.size = sizeof(f->ops);
	f->ops.name = "fake";
	f->ops.info = nx_fake_info;
	f->ops.alloc = f->ops.host_alloc = nx_fake_dev_alloc;
	f->ops.free = f->ops.host_free = nx_fake_dev_free;
	f->ops.enqueue = nx_fake_enqueue;
	f->ops.copy = nx_fake_copy;
	f->ops.fill = nx_fake_fill;
	f->allocs_left = -1;
	h->abi = NX_TECHNIQUE_ABI;
	h->size = sizeof(*h);
	h->ctx = f;
	h->ops = &f->ops;
	h->dev = f;
	h->model.n_layers = 2;
	h->model.d_model = 64;
	h->model.n_heads = 4;
	h->model.n_kv_heads = 2;
	h->model.head_dim = 16;
	h->model.d_ff = 128;
	h->model.vocab = 1000;
	h->model.max_len = 256;
	h->batch_size = h->max_seqs = places;
	h->max_rows = places * 256;
	h->max_len = 256;
	h->alloc = nx_fake_host_alloc;
	h->free = nx_fake_host_free;
	h->kv_hold = nx_fake_hold;
	h->kv_release = nx_fake_release;
	h->kv_idle = nx_fake_idle;
}

/* ---- life --------------------------------------------------------------------------------------- */

/* The table, widened with NULL hooks to this header's size, or NULL. Plugins are never unloaded. */
static inline const struct nx_technique *nx_fake_load(const char *path)
{
	static struct nx_technique wide;
	nx_technique_fn entry;
	char beside[1024];
	snprintf(beside, sizeof(beside), "%s%s", path && strchr(path, '/') ? "" : "./",
	         path ? path : "");
	void *so = path ? dlopen(beside, RTLD_NOW | RTLD_LOCAL) : NULL;
	if (!NX_CHECK(so != NULL, "the plugin loads: %s",
	              path ? dlerror() : "give its path as first argument"))
		return NULL;
	*(void **)&entry = dlsym(so, NX_TECHNIQUE_SYMBOL);
	const struct nx_technique *t = entry ? entry() : NULL;
	if (!NX_CHECK(t != NULL, "it exports %s(): NX_TECHNIQUE(&table); stands at its end",
	              NX_TECHNIQUE_SYMBOL))
		return NULL;
	if (t->magic == NX_TECHNIQUE_MAGIC && t->size < sizeof(wide)) {
		memset(&wide, 0, sizeof(wide));
		memcpy(&wide, t, t->size);
		t = &wide;
	}
	return nx_fake_check_table(t) ? t : NULL;
}

static inline bool nx_fake_set(struct nx_fake *f, const char *key, const char *text)
{
	for (int32_t i = 0; i < f->n_params; i++)
		if (!strcmp(f->t->params[i].key, key))
			return NX_CHECK(
				nx_fake_parse(&f->t->params[i], text, &f->values[i], f->texts[i]),
				"%s=%s is legal", key, text);
	return NX_CHECK(false, "%s is a parameter of %s", key, f->t->name);
}

/* Everything but create: loads it and sets values, "key=value,key=value" over the defaults. 0 or -1. */
static inline int nx_fake_prepare(struct nx_fake *f, const char *path, const char *values,
                                  int32_t places)
{
	memset(f, 0, sizeof(*f));
	nx_fake_fill_host(f, places);
	f->t = nx_fake_load(path);
	if (!f->t)
		return -1;
	while (f->t->counters && f->t->counters[f->n_counters].name)
		f->n_counters++;
	for (; f->t->params && f->t->params[f->n_params].key; f->n_params++) {
		const struct nx_param *p = &f->t->params[f->n_params];
		if (p->def)
			nx_fake_parse(p, p->def, &f->values[f->n_params], f->texts[f->n_params]);
	}
	while (values && *values) {
		char pair[128];
		size_t n = strcspn(values, ",");
		snprintf(pair, sizeof(pair), "%.*s", (int)n, values);
		values += n + (values[n] == ',');
		char *eq = strchr(pair, '=');
		if (!NX_CHECK(eq != NULL, "'%s' is key=value", pair))
			return -1;
		*eq = '\0';
		if (!nx_fake_set(f, pair, eq + 1))
			return -1;
	}
	return 0;
}

/* Asks probe, if there is one, about a device of that kind. What it said. */
static inline int nx_fake_probe(struct nx_fake *f, const char *kind, uint32_t caps,
                                struct nx_err *err)
{
	struct nx_probe p;
	memset(&p, 0, sizeof(p));
	p.model = f->host.model;
	p.batch_size = f->host.batch_size;
	p.max_seqs = f->host.max_seqs;
	p.max_len = f->host.max_len;
	p.values = f->values;
	p.device_caps = caps;
	snprintf(p.device_kind, sizeof(p.device_kind), "%s", kind);
	return f->t->probe ? f->t->probe(&p, err) : 0;
}

/* Probes and creates it. The code of the hook that refused; nothing is counted. */
static inline int nx_fake_create(struct nx_fake *f, struct nx_err *err)
{
	int rc = nx_fake_probe(f, "cpu", NX_DEV_HOST_MEMORY | NX_DEV_ASYNC, err);
	return rc ? rc : f->t->create(&f->self, &f->host, f->values, err);
}

/* Loads, sets values, probes, creates. 0, or -1 with the reason counted as failed. */
static inline int nx_fake_open(struct nx_fake *f, const char *path, const char *values,
                               int32_t places)
{
	struct nx_err err;
	memset(&err, 0, sizeof(err));
	if (nx_fake_prepare(f, path, values, places))
		return -1;
	int rc = nx_fake_create(f, &err);
	return NX_CHECK(rc == 0, "it is created with '%s': %s", values ? values : "", err.msg) ? 0
	                                                                                       : -1;
}

static inline void nx_fake_close(struct nx_fake *f)
{
	nx_fake_sync(f);
	f->t->destroy(f->self);
	f->self = NULL;
	NX_CHECK(f->live_bytes == 0, "destroy frees all that it took: %zu bytes are left",
	         f->live_bytes);
	NX_CHECK(f->n_held == 0, "destroy releases all blocks it holds: %d are left", f->n_held);
}

static inline double nx_fake_counter(const struct nx_fake *f, const char *name)
{
	double v[NX_FAKE_MAX];
	memset(v, 0, sizeof(v));
	if (f->t->read_counters)
		f->t->read_counters(f->self, v);
	for (int32_t i = 0; i < f->n_counters; i++)
		if (!strcmp(f->t->counters[i].name, name))
			return v[i];
	NX_CHECK(false, "%s is a counter of %s", name, f->t->name);
	return 0;
}

/* What every technique must survive: twice to life, reset to nothing, and no memory at any allocation. */
static inline void nx_fake_life(const char *path, const char *values)
{
	struct nx_fake f;
	struct nx_err err;
	for (int turn = 0; turn < 2; turn++) {
		if (nx_fake_open(&f, path, values, 2))
			return;
		if (f.t->reset)
			f.t->reset(f.self);
		NX_CHECK(!f.t->warm || f.t->warm(f.self) == 0, "nothing is warm after reset");
		for (int32_t i = 0; i < f.n_counters; i++)
			NX_CHECK(nx_fake_counter(&f, f.t->counters[i].name) == 0,
			         "%s is 0 after reset", f.t->counters[i].name);
		nx_fake_close(&f);
	}
	for (int allowed = 0; allowed < 32; allowed++) {
		memset(&err, 0, sizeof(err));
		if (nx_fake_prepare(&f, path, values, 2))
			return;
		f.allocs_left = allowed;
		int rc = nx_fake_create(&f, &err);
		if (!rc) { /* it needs no more than that */
			nx_fake_close(&f);
			return;
		}
		NX_CHECK(rc < 0 && err.msg[0] && !strchr(err.msg, '\n'),
		         "without memory create returns a negative code and one sentence");
		NX_CHECK(!f.self && f.live_bytes == 0,
		         "a failed create leaves *self alone and frees what it took");
	}
}

#ifdef __cplusplus
}
#endif
#endif
