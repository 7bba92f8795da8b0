/* SPDX-License-Identifier: Apache-2.0
 *
 * instruments_trace.cpp: what ran when, through CUPTI's activity records. CUPTI fills buffers of ours and hands them back
 * from a thread of its own; their records go into an array of fixed size, names once into a table. One trace at a time.
 */
#include <algorithm>
#include <mutex>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cuda/instruments.cuh"

#if CU_HAVE_CUPTI
#if CUPTI_API_VERSION >= 130000
typedef CUpti_ActivityKernel10 kernel_record;
#else
typedef CUpti_ActivityKernel9 kernel_record; /* the same as far as it is read here */
#endif
typedef CUpti_ActivityMemcpy6 copy_record;
typedef CUpti_ActivityMemset4 set_record;

#define BUFFER_BYTES ((size_t)1 << 20) /* about 5,000 kernels */

/* As it is kept while tracing; names are worked out at the end, once each. */
struct raw_record {
	uint64_t begin_ns, end_ns;
	int32_t name; /* a kernel's: index into the table; a copy's: CUpti_ActivityMemcpyKind */
	int32_t kind;
};

static struct {
	std::mutex lock; /* against CUPTI's thread */
	bool on;
	uint32_t device;
	struct raw_record *records;
	size_t n, max, lost;
	char **names; /* [n_names], as the compiler writes them */
	int32_t n_names, max_names;
	int32_t *
		slots; /* hash table of indices into names, -1 = empty; n_slots is a power of two */
	size_t n_slots;
} trace;

static const CUpti_ActivityKind kinds[] = {CUPTI_ACTIVITY_KIND_CONCURRENT_KERNEL,
                                           CUPTI_ACTIVITY_KIND_MEMCPY, CUPTI_ACTIVITY_KIND_MEMSET};

/* ---- names */

static size_t hash(const char *s)
{
	uint64_t h = 0xcbf29ce484222325u; /* FNV-1a */
	for (; *s; s++)
		h = (h ^ (unsigned char)*s) * 0x100000001b3u;
	return (size_t)(h ^ h >> 32);
}

static int32_t *slot_of(const char *name)
{
	size_t at = hash(name) & (trace.n_slots - 1);
	while (trace.slots[at] >= 0 && strcmp(trace.names[trace.slots[at]], name))
		at = (at + 1) & (trace.n_slots - 1);
	return &trace.slots[at];
}

/* Twice the room; at most half of the slots are taken. */
static bool grow_names(void)
{
	int32_t max = trace.max_names ? trace.max_names * 2 : 128;
	char **names = (char **)realloc(trace.names, (size_t)max * sizeof(*names));
	int32_t *slots = (int32_t *)malloc((size_t)max * 2 * sizeof(*slots));
	if (names)
		trace.names = names;
	if (!names || !slots) {
		free(slots);
		return false;
	}
	free(trace.slots);
	trace.slots = slots;
	trace.n_slots = (size_t)max * 2;
	trace.max_names = max;
	memset(slots, 0xff, trace.n_slots * sizeof(*slots));
	for (int32_t i = 0; i < trace.n_names; i++)
		*slot_of(names[i]) = i;
	return true;
}

/* -1: no memory. */
static int32_t intern(const char *name)
{
	if (trace.n_names == trace.max_names && !grow_names())
		return -1;
	int32_t *slot = slot_of(name);
	if (*slot < 0) {
		char *own = strdup(name);
		if (!own)
			return -1;
		trace.names[trace.n_names] = own;
		*slot = trace.n_names++;
	}
	return *slot;
}

/* ---- records, in CUPTI's thread */

static void keep(const CUpti_Activity *a)
{
	struct raw_record r = {};
	uint32_t device = 0;
	if (a->kind == CUPTI_ACTIVITY_KIND_CONCURRENT_KERNEL ||
	    a->kind == CUPTI_ACTIVITY_KIND_KERNEL) {
		const kernel_record *k = (const kernel_record *)a;
		r = {k->start, k->end, 0, NX_TRACE_KERNEL};
		device = k->deviceId;
		r.name = device == trace.device && trace.n < trace.max
		                 ? intern(k->name ? k->name : "?")
		                 : 0;
	} else if (a->kind == CUPTI_ACTIVITY_KIND_MEMCPY) {
		const copy_record *c = (const copy_record *)a;
		r = {c->start, c->end, c->copyKind, NX_TRACE_COPY};
		device = c->deviceId;
	} else if (a->kind == CUPTI_ACTIVITY_KIND_MEMSET) {
		const set_record *s = (const set_record *)a;
		r = {s->start, s->end, 0, NX_TRACE_SET};
		device = s->deviceId;
	} else {
		return;
	}
	if (device != trace.device)
		return;
	/* Times of zero: CUPTI could not read the clock. */
	if (trace.n == trace.max || r.name < 0 || !r.begin_ns || r.end_ns < r.begin_ns)
		trace.lost++;
	else
		trace.records[trace.n++] = r;
}

static void CUPTIAPI buffer_wanted(uint8_t **buffer, size_t *size, size_t *max_records)
{
	*buffer = (uint8_t *)aligned_alloc(64, BUFFER_BYTES);
	*size = *buffer ? BUFFER_BYTES : 0;
	*max_records = 0;
}

static void CUPTIAPI buffer_full(CUcontext ctx, uint32_t stream, uint8_t *buffer, size_t size,
                                 size_t valid)
{
	const struct cupti *cupti = cupti_open(NULL);
	CUpti_Activity *a = NULL;
	size_t dropped = 0;
	{
		std::lock_guard<std::mutex> guard(trace.lock);
		while (trace.on && valid &&
		       cupti->ActivityGetNextRecord(buffer, valid, &a) == CUPTI_SUCCESS)
			keep(a);
		if (trace.on &&
		    cupti->ActivityGetNumDroppedRecords(ctx, stream, &dropped) == CUPTI_SUCCESS)
			trace.lost += dropped;
	}
	free(buffer);
}

/* ---- the trace */

static void forget(void)
{
	for (int32_t i = 0; i < trace.n_names; i++)
		free(trace.names[i]);
	free(trace.names);
	free(trace.slots);
	free(trace.records);
	trace.names = NULL;
	trace.slots = NULL;
	trace.records = NULL;
	trace.n_names = trace.max_names = 0;
	trace.n_slots = trace.n = trace.max = trace.lost = 0;
}

static void disable(const struct cupti *cupti)
{
	for (CUpti_ActivityKind k : kinds)
		(void)cupti->ActivityDisable(k);
}

static int enable(const struct cupti *cupti, struct nx_err *err)
{
	static bool registered;
	if (!registered) {
		CUPTI(ActivityRegisterCallbacks(buffer_wanted, buffer_full));
		registered = true;
	}
	for (CUpti_ActivityKind k : kinds)
		CUPTI(ActivityEnable(k));
	return 0;
}

int cu_trace_begin(void *dev, size_t max_records, struct nx_err *err)
{
	struct cuda_dev *d = (struct cuda_dev *)dev;
	const struct cupti *cupti = cupti_open(err);
	if (!cupti)
		return NX_EENV;
	if (!max_records || max_records > SIZE_MAX / sizeof(struct nx_trace_record))
		return nx_fail(err, NX_EINVAL, "cuda: a trace of %zu records; legal: 1 or more",
		               max_records);
	CU(cudaDeviceSynchronize());
	int rc = cupti_take(CUPTI_TRACES, err);
	if (rc)
		return rc;
	{
		std::lock_guard<std::mutex> guard(trace.lock);
		forget();
		trace.records = (struct raw_record *)malloc(max_records * sizeof(*trace.records));
		trace.max = max_records;
		trace.device = (uint32_t)d->index;
		trace.on = trace.records != NULL;
	}
	rc = trace.on
	             ? enable(cupti, err)
	             : nx_fail(err, NX_ENOMEM, "no memory for a trace of %zu records", max_records);
	if (rc) {
		disable(cupti);
		trace.on = false;
		forget();
		cupti_use = CUPTI_FREE;
	}
	return rc;
}

static const char *copy_name(int32_t kind)
{
	switch (kind) {
	case CUPTI_ACTIVITY_MEMCPY_KIND_HTOD: return "copy to device";
	case CUPTI_ACTIVITY_MEMCPY_KIND_DTOH: return "copy to host";
	case CUPTI_ACTIVITY_MEMCPY_KIND_DTOD: return "copy on device";
	case CUPTI_ACTIVITY_MEMCPY_KIND_HTOH: return "copy on host";
	case CUPTI_ACTIVITY_MEMCPY_KIND_PTOP: return "copy between devices";
	}
	return "copy";
}

/* The records as they are handed out; NULL without memory. There is always something to free. */
static struct nx_trace_record *finished(void)
{
	struct nx_trace_record *out =
		(struct nx_trace_record *)malloc((trace.n + 1) * sizeof(struct nx_trace_record));
	char(*names)[NX_TRACE_NAME] =
		(char(*)[NX_TRACE_NAME])malloc(((size_t)trace.n_names + 1) * NX_TRACE_NAME);
	if (!out || !names) {
		free(out);
		free(names);
		return NULL;
	}
	for (int32_t i = 0; i < trace.n_names; i++)
		kernel_name(trace.names[i], names[i], NX_TRACE_NAME);
	std::sort(trace.records, trace.records + trace.n,
	          [](const struct raw_record &a, const struct raw_record &b) {
			  return a.begin_ns != b.begin_ns ? a.begin_ns < b.begin_ns
		                                          : a.end_ns < b.end_ns;
		  });
	for (size_t i = 0; i < trace.n; i++) {
		const struct raw_record *r = &trace.records[i];
		out[i].begin_ns = r->begin_ns;
		out[i].end_ns = r->end_ns;
		out[i].kind = r->kind;
		snprintf(out[i].name, NX_TRACE_NAME, "%s",
		         r->kind == NX_TRACE_KERNEL ? names[r->name]
		         : r->kind == NX_TRACE_COPY ? copy_name(r->name)
		                                    : "set");
	}
	free(names);
	return out;
}

int cu_trace_end(void *dev, struct nx_trace_record **out, size_t *n, size_t *lost,
                 struct nx_err *err)
{
	const struct cupti *cupti = cupti_open(err);
	if (!cupti)
		return NX_EENV;
	if (cupti_use != CUPTI_TRACES)
		return nx_fail(err, NX_EINVAL, "cuda: no trace is running");
	cudaError_t e = cudaDeviceSynchronize();
	CUptiResult flushed = cupti->ActivityFlushAll(0);
	disable(cupti);
	if (flushed == CUPTI_SUCCESS) /* buffers that are not full, now that nothing is added */
		flushed = cupti->ActivityFlushAll(CUPTI_ACTIVITY_FLAG_FLUSH_FORCED);
	int rc = 0;
	{
		std::lock_guard<std::mutex> guard(trace.lock);
		trace.on = false;
		*n = trace.n;
		*lost = trace.lost;
		*out = finished();
		if (!*out)
			rc = nx_fail(err, NX_ENOMEM, "no memory for a trace of %zu records",
			             trace.n);
		forget();
	}
	cupti_use = CUPTI_FREE;
	if (!rc && flushed != CUPTI_SUCCESS)
		rc = cupti_fail(err, flushed, "cuptiActivityFlushAll");
	if (!rc && e != cudaSuccess)
		rc = cu_fail(err, e, "the work of a trace");
	if (rc) {
		free(*out);
		*out = NULL;
		*n = 0;
	}
	return rc;
}
#else
int cu_trace_begin(void *dev, size_t max_records, struct nx_err *err)
{
	return nx_fail(err, NX_ENOTSUP, CUPTI_MISSING);
}

int cu_trace_end(void *dev, struct nx_trace_record **out, size_t *n, size_t *lost,
                 struct nx_err *err)
{
	return nx_fail(err, NX_ENOTSUP, CUPTI_MISSING);
}
#endif

void cu_trace_free(void *dev, struct nx_trace_record *records)
{
	free(records);
}
