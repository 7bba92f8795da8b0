/* SPDX-License-Identifier: Apache-2.0
 *
 * test/backends/late.c: the late device, for tests only: as asynchronous as a device may be, with the
 * kernels of the CPU backend. What peeks or hurries here would do so on a GPU.
 *
 *   Work     is queued with a copy of its arguments, those of enqueue() too, and runs when the host
 *            waits, on the caller's thread and no further than the wait asks. Streams keep their own
 *            order; which of them runs next is drawn (NEXUS_LATE_SEED, 1). NULL is a stream like any other.
 *   Memory   of the device can be reached while work runs, and at no other time: host code that touches
 *            it gets SIGSEGV. It begins as NaN, and the page behind each allocation is never readable.
 *            What lies between an allocation and its page's ends is compared when it is freed.
 *   Copies   read host memory when they run. Where they write to the host, 0xA5 stands until they have
 *            run (NEXUS_LATE_POISON=0: what stood there before).
 *   Errors   of queued work come with the next wait, and from then on with everything.
 *   Graphs   keep captured work and its arguments, and run it whenever they are launched. Waiting for a
 *            stream that is being captured ends the program: on a GPU it would spoil the capture.
 *   Counts   of work are the CPU's. NEXUS_LATE_BLIND=1: without attention's keys, as those of a device whose host does
 *            not know lengths: uncounted() and counted_add() are there.
 *   Bugs     that have no error to return end the program with a sentence: memory, a weight or a host
 *            buffer freed while queued work names it, an allocation written past its ends.
 *
 * Operations are in late_ops.c, whose top says how to add one.
 */
#define _GNU_SOURCE
#include "late.h"

#include <dlfcn.h>
#include <stdlib.h>
#include <string.h>

const struct nx_device_ops *late_inner;

void late_abort(const char *fmt, ...)
{
	va_list ap;
	va_start(ap, fmt);
	fputs("late device: ", stderr);
	vfprintf(stderr, fmt, ap);
	fputc('\n', stderr);
	va_end(ap);
	abort();
}

void *late_must(void *p)
{
	if (!p)
		late_abort("out of memory");
	return p;
}

/* cpu.so lies in ../backends, seen from this file, or in the build folder's. */
static void *load_cpu(void)
{
	char path[4096];
	Dl_info self;
	const char *build = getenv("NEXUS_BUILD");
	if (dladdr(&late_inner, &self) && self.dli_fname) {
		const char *slash = strrchr(self.dli_fname, '/');
		int n = slash ? (int)(slash - self.dli_fname) : 1;
		snprintf(path, sizeof(path), "%.*s/../backends/cpu.so", n,
		         slash ? self.dli_fname : ".");
		void *so = dlopen(path, RTLD_NOW | RTLD_LOCAL);
		if (so)
			return so;
	}
	snprintf(path, sizeof(path), "%s/backends/cpu.so", build ? build : "build");
	return dlopen(path, RTLD_NOW | RTLD_LOCAL);
}

static struct nx_device_ops table;

/* A hook that the CPU backend has and this one has not was forgotten here. */
static int check_table(const struct nx_device_ops *cpu, struct nx_err *err)
{
	for (size_t at = offsetof(struct nx_device_ops, open); at < sizeof(*cpu);
	     at += sizeof(uintptr_t)) {
		uintptr_t theirs, ours;
		memcpy(&theirs, (const char *)cpu + at, sizeof(theirs));
		memcpy(&ours, (const char *)&table + at, sizeof(ours));
		if (theirs && !ours)
			return nx_fail(err, NX_EABI,
			               "the late device lacks the operation at byte %zu of struct "
			               "nx_device_ops; see late_ops.c",
			               at);
	}
	return 0;
}

static int find_inner(struct nx_err *err)
{
	if (late_inner)
		return 0;
	void *so = load_cpu();
	if (!so)
		return nx_fail(err, NX_EENV, "the late device finds no CPU backend: %s", dlerror());
	nx_backend_fn entry;
	*(void **)&entry = dlsym(so, NX_BACKEND_SYMBOL);
	const struct nx_device_ops *t = entry ? entry() : NULL;
	if (!t || t->abi != NX_DEVICE_ABI || t->size != sizeof(*t))
		return nx_fail(err, NX_EABI, "the late device and the CPU backend differ in ABI");
	int rc = check_table(t, err);
	if (!rc)
		late_inner = t;
	return rc;
}

static void late_close(void *dev)
{
	struct late_dev *d = dev;
	if (!d)
		return;
	late_drop_all(d);
	if (d->n_allocs)
		late_abort("closed while %zu allocations live, the first of %zu bytes", d->n_allocs,
		           d->allocs[0].bytes);
	late_inner->close(d->inner);
	free(d->allocs);
	free(d);
}

static int late_open(void **dev, const struct nx_device_config *cfg, struct nx_err *err)
{
	const char *seed = getenv("NEXUS_LATE_SEED"), *poison = getenv("NEXUS_LATE_POISON");
	int rc = find_inner(err);
	if (rc)
		return rc;
	struct late_dev *d = late_must(calloc(1, sizeof(*d)));
	rc = late_inner->open(&d->inner, cfg, err);
	if (rc) {
		free(d);
		return rc;
	}
	d->own.end = &d->own.first;
	d->streams = &d->own;
	d->rng = seed && *seed ? strtoull(seed, NULL, 10) : 1;
	d->poison = !poison || strcmp(poison, "0") != 0;
	*dev = d;
	return 0;
}

static void late_info(void *dev, struct nx_device_info *out)
{
	late_inner->info(((struct late_dev *)dev)->inner, out);
	out->caps = NX_DEV_ASYNC | NX_DEV_GRAPHS;
}

static int late_calibrate(void *dev, double seconds, struct nx_calibration *out, struct nx_err *err)
{
	return late_inner->calibrate(((struct late_dev *)dev)->inner, seconds, out, err);
}

bool late_blind(void)
{
	const char *s = getenv("NEXUS_LATE_BLIND");
	return s && *s && strcmp(s, "0") != 0;
}

void late_add_counted(struct nx_counted *a, const struct nx_counted *b, int sign)
{
	a->weight_bytes += (uint64_t)sign * b->weight_bytes;
	a->kv_bytes += (uint64_t)sign * b->kv_bytes;
	a->act_bytes += (uint64_t)sign * b->act_bytes;
	a->flops += (uint64_t)sign * b->flops;
}

static void late_counted(void *dev, struct nx_counted *out)
{
	struct late_dev *d = dev;
	late_inner->counted(d->inner, out);
	late_add_counted(out, &d->hidden, -1);
	late_add_counted(out, &d->added, 1);
}

static void late_counted_reset(void *dev)
{
	struct late_dev *d = dev;
	late_inner->counted_reset(d->inner);
	d->hidden = d->added = (struct nx_counted){0};
}

static void late_counted_add(void *dev, const struct nx_counted *more)
{
	late_add_counted(&((struct late_dev *)dev)->added, more, 1);
}

static void late_uncounted(void *dev, struct nx_uncounted *out)
{
	struct late_dev *d = dev;
	*out = d->uncounted;
	d->uncounted = (struct nx_uncounted){0};
}

static int late_weight_create(void *dev, const struct nx_weight_desc *desc, struct nx_weight **out,
                              struct nx_err *err)
{
	return late_inner->weight_create(((struct late_dev *)dev)->inner, desc, out, err);
}

static uint64_t late_weight_bytes(const struct nx_weight *w)
{
	return late_inner->weight_bytes(w);
}

static uint64_t late_weight_forecast(void *dev, const struct nx_weight_desc *desc, int32_t max_rows)
{
	return late_inner->weight_forecast(((struct late_dev *)dev)->inner, desc, max_rows);
}

static int late_weight_prepare(void *dev, struct nx_weight *w, int32_t max_rows, uint64_t *bytes,
                               struct nx_err *err)
{
	return late_inner->weight_prepare(((struct late_dev *)dev)->inner, w, max_rows, bytes, err);
}

static size_t late_attention_workspace(void *dev, enum nx_attn_kernel kernel, int32_t kv_chunk,
                                       int32_t n_heads, int32_t head_dim, int64_t rows,
                                       int64_t keys)
{
	return late_inner->attention_workspace(((struct late_dev *)dev)->inner, kernel, kv_chunk,
	                                       n_heads, head_dim, rows, keys);
}

__attribute__((visibility("default"))) const struct nx_device_ops *nx_backend(void);

const struct nx_device_ops *nx_backend(void)
{
	table = (struct nx_device_ops){
		.abi = NX_DEVICE_ABI,
		.size = sizeof(table),
		.name = "late",
		.open = late_open,
		.close = late_close,
		.info = late_info,
		.calibrate = late_calibrate,
		.counted = late_counted,
		.counted_reset = late_counted_reset,
		.alloc = late_alloc,
		.free = late_free,
		.host_alloc = late_host_alloc,
		.host_free = late_host_free,
		.stream_create = late_stream_create,
		.stream_destroy = late_stream_destroy,
		.stream_sync = late_stream_sync,
		.event_create = late_event_create,
		.event_destroy = late_event_destroy,
		.event_record = late_event_record,
		.event_wait = late_event_wait,
		.graph_begin = late_graph_begin,
		.graph_end = late_graph_end,
		.graph_launch = late_graph_launch,
		.graph_destroy = late_graph_destroy,
		.weight_create = late_weight_create,
		.weight_destroy = late_weight_destroy,
		.weight_bytes = late_weight_bytes,
		.weight_forecast = late_weight_forecast,
		.weight_prepare = late_weight_prepare,
		.attention_workspace = late_attention_workspace,
	};
	if (late_blind()) {
		table.counted_add = late_counted_add;
		table.uncounted = late_uncounted;
	}
	table.instruments = late_instruments();
	late_set_ops(&table);
	return &table;
}
