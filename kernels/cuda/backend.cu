/* SPDX-License-Identifier: Apache-2.0
 *
 * backend.cu: the device table of CUDA: life cycle, streams, events, graphs.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cuda/error.cuh"

/* After these nothing of the process's context can be used again. */
static bool is_fault(cudaError_t e)
{
	switch (e) {
	case cudaErrorIllegalAddress:
	case cudaErrorIllegalInstruction:
	case cudaErrorMisalignedAddress:
	case cudaErrorInvalidAddressSpace:
	case cudaErrorInvalidPc:
	case cudaErrorHardwareStackError:
	case cudaErrorLaunchFailure:
	case cudaErrorLaunchTimeout:
	case cudaErrorAssert:
	case cudaErrorECCUncorrectable: return true;
	default: return false;
	}
}

int cu_fail(struct nx_err *err, cudaError_t e, const char *what)
{
	(void)cudaGetLastError(); /* what is not sticky is told once */
	int code = e == cudaErrorMemoryAllocation ? NX_ENOMEM : is_fault(e) ? NX_EFAULT : NX_EENV;
	return nx_fail(err, code, "cuda: %s: %s (%s)", what, cudaGetErrorString(e),
	               cudaGetErrorName(e));
}

/* What kernels reported, once. */
static int reported(struct cuda_dev *d, struct nx_err *err)
{
	static const char *const text[] = {"",
#define X(name, sentence) sentence,
	                                   CU_ERRORS(X)
#undef X
	};
	volatile int32_t *e = d->errors;
	int32_t code = e[0];
	if (!code)
		return 0;
	int32_t a = e[1], b = e[2], c = e[3];
	e[0] = 0;
	if (code < 0 || code >= CU_ERROR_COUNT)
		return nx_fail(err, NX_EBUG, "cuda: a kernel reports error %d", code);
	char what[256];
	snprintf(what, sizeof(what), text[code], a, b, c);
	return nx_fail(err, NX_EBUG, "cuda: %s", what);
}

int cu_done(struct cuda_dev *d, cudaStream_t s, struct nx_err *err)
{
	if (!d->host_memory || d->capturing)
		return 0;
	CU(cudaStreamSynchronize(s));
	return reported(d, err);
}

/* ---- life cycle */

static void dev_close(void *dev)
{
	struct cuda_dev *d = (struct cuda_dev *)dev;
	if (!d)
		return;
	linear_close(d);
	if (d->errors)
		cudaFreeHost(d->errors);
	if (d->moved)
		cudaFree(d->moved);
	cudaFree(d->sample_scratch);
	cudaFree(d->quant_scratch);
	if (d->stream)
		cudaStreamDestroy(d->stream);
	free(d);
}

static bool env_set(const char *name)
{
	const char *v = getenv(name);
	return v && *v && strcmp(v, "0");
}

static int open_device(struct cuda_dev *d, struct nx_err *err)
{
	struct cudaDeviceProp p;
	int n = 0;
	cudaError_t e = cudaGetDeviceCount(&n);
	if (e != cudaSuccess || n == 0)
		return nx_fail(err, NX_EENV, "cuda: no device: %s",
		               e == cudaSuccess ? "the driver sees none" : cudaGetErrorString(e));
	if (d->cfg.index < 0 || d->cfg.index >= n)
		return nx_fail(err, NX_EINVAL, "cuda:%d does not exist; legal: cuda:0 to cuda:%d",
		               d->cfg.index, n - 1);
	d->index = d->cfg.index;
	CU(cudaGetDeviceProperties(&p, d->index));
	if (p.major != 9)
		return nx_fail(
			err, NX_ENOTSUP,
			"cuda:%d is a %s of compute capability %d.%d; this backend was built for 9.0",
			d->index, p.name, p.major, p.minor);
	CU(cudaSetDevice(d->index));
	CU(cudaFree(NULL));
	d->n_sms = p.multiProcessorCount;
	d->max_smem = (int)p.sharedMemPerBlockOptin;
	d->l2_bytes = (size_t)p.l2CacheSize;
	CU(cudaStreamCreateWithFlags(&d->stream, cudaStreamNonBlocking));
	CU(cudaHostAlloc((void **)&d->errors, CU_ERROR_WORDS * sizeof(*d->errors),
	                 cudaHostAllocMapped | cudaHostAllocPortable));
	memset(d->errors, 0, CU_ERROR_WORDS * sizeof(*d->errors));
	CU(cudaMalloc((void **)&d->moved, sizeof(*d->moved)));
	CU(cudaMemset(d->moved, 0, sizeof(*d->moved)));
	CU(cudaDeviceSynchronize()); /* the memset's stream is not ours */
	int rc = linear_open(d, err);
	if (!rc)
		rc = attention_open(d, err);
	if (!rc)
		rc = attention_prefill_open(d, err);
	return rc ? rc : sample_open(d, err);
}

static int dev_open(void **dev, const struct nx_device_config *cfg, struct nx_err *err)
{
	struct cuda_dev *d = (struct cuda_dev *)calloc(1, sizeof(*d));
	if (!d)
		return nx_fail(err, NX_ENOMEM, "no memory for a device");
	d->cfg = *cfg;
	d->cfg.isa = NULL; /* the caller's string */
	d->act = cfg->dtype;
	d->host_memory = env_set("NEXUS_CUDA_HOST_MEMORY");
	d->poison = env_set("NEXUS_POISON");
	int rc = open_device(d, err);
	if (rc) {
		dev_close(d);
		return rc;
	}
	*dev = d;
	return 0;
}

static void dev_info(void *dev, struct nx_device_info *out)
{
	const struct cuda_dev *d = (const struct cuda_dev *)dev;
	struct cudaDeviceProp p;
	size_t free_bytes = 0, total = 0;
	memset(out, 0, sizeof(*out));
	if (cudaGetDeviceProperties(&p, d->index) == cudaSuccess) {
		snprintf(out->name, sizeof(out->name), "%.127s", p.name);
		snprintf(out->isa, sizeof(out->isa), "sm_%d%d", p.major, p.minor);
	}
	snprintf(out->blas, sizeof(out->blas), "%s", linear_library(d));
	if (cudaMemGetInfo(&free_bytes, &total) == cudaSuccess) {
		out->mem_bytes = total;
		out->free_bytes = free_bytes;
	}
	out->llc_bytes = d->l2_bytes;
	out->n_units = d->n_sms;
	out->act_dtype = d->act;
	out->kv_codecs = ((1u << NX_KV_CODEC_COUNT) - 1) & ~(1u << NX_KV_OWN);
	out->weight_codes = 1u << NX_WEIGHT_CODE_NONE | 1u << NX_WEIGHT_CODE_INT8 |
	                    1u << NX_WEIGHT_CODE_INT4 | 1u << NX_WEIGHT_CODE_E4M3;
	/* C functions that enqueue() runs cannot be captured. */
	out->caps = NX_DEV_ASYNC | (d->host_memory ? NX_DEV_HOST_MEMORY : NX_DEV_GRAPHS);
	if (d->act == NX_BF16) /* on tensor cores */
		out->caps |= NX_DEV_TILES;
}

/* Bytes that kv_compact has moved so far: how many rows it moves is known on the device alone. */
static unsigned long long moved(const struct cuda_dev *d)
{
	return *(volatile unsigned long long *)(void *)(d->errors + CU_ERROR_MOVED);
}

static void dev_counted(void *dev, struct nx_counted *out)
{
	const struct cuda_dev *d = (const struct cuda_dev *)dev;
	*out = d->counted;
	out->kv_bytes += moved(d) - d->moved_before;
}

static void dev_counted_reset(void *dev)
{
	struct cuda_dev *d = (struct cuda_dev *)dev;
	memset(&d->counted, 0, sizeof(d->counted));
	d->moved_before = moved(d);
}

/* ---- streams, events, graphs: streams and events of the table are CUDA's handles */

static int stream_create(void *dev, struct nx_stream **out, struct nx_err *err)
{
	cudaStream_t s;
	(void)dev;
	CU(cudaStreamCreateWithFlags(&s, cudaStreamNonBlocking));
	*out = (struct nx_stream *)s;
	return 0;
}

static void stream_destroy(void *dev, struct nx_stream *s)
{
	(void)dev;
	if (s)
		cudaStreamDestroy((cudaStream_t)s);
}

static int stream_sync(void *dev, struct nx_stream *s, struct nx_err *err)
{
	struct cuda_dev *d = (struct cuda_dev *)dev;
	CU(cudaStreamSynchronize(cu_stream(d, s)));
	return reported(d, err);
}

static int event_create(void *dev, struct nx_event **out, struct nx_err *err)
{
	cudaEvent_t e;
	(void)dev;
	CU(cudaEventCreateWithFlags(&e, cudaEventDisableTiming));
	*out = (struct nx_event *)e;
	return 0;
}

static void event_destroy(void *dev, struct nx_event *e)
{
	(void)dev;
	if (e)
		cudaEventDestroy((cudaEvent_t)e);
}

static int event_record(void *dev, struct nx_stream *s, struct nx_event *e, struct nx_err *err)
{
	CU(cudaEventRecord((cudaEvent_t)e, cu_stream((struct cuda_dev *)dev, s)));
	return 0;
}

static int event_wait(void *dev, struct nx_event *e, struct nx_err *err)
{
	CU(cudaEventSynchronize((cudaEvent_t)e));
	return reported((struct cuda_dev *)dev, err);
}

/* A graph's work is done when it is launched, not when it is captured: it is counted then. */
struct graph {
	cudaGraphExec_t exec;
	struct nx_counted work;
};

static void add_counted(struct nx_counted *to, const struct nx_counted *n, uint64_t sign)
{
	to->weight_bytes += sign * n->weight_bytes;
	to->kv_bytes += sign * n->kv_bytes;
	to->act_bytes += sign * n->act_bytes;
	to->flops += sign * n->flops;
}

static void counted_more(void *dev, const struct nx_counted *more)
{
	add_counted(&((struct cuda_dev *)dev)->counted, more, 1);
}

static void uncounted(void *dev, struct nx_uncounted *out)
{
	struct cuda_dev *d = (struct cuda_dev *)dev;
	*out = d->uncounted;
	memset(&d->uncounted, 0, sizeof(d->uncounted));
}

static int graph_begin(void *dev, struct nx_stream *s, struct nx_err *err)
{
	struct cuda_dev *d = (struct cuda_dev *)dev;
	CU(cudaStreamBeginCapture(cu_stream(d, s), cudaStreamCaptureModeThreadLocal));
	d->capturing = true;
	d->before_capture = d->counted;
	return 0;
}

static int graph_end(void *dev, struct nx_stream *s, struct nx_graph **out, struct nx_err *err)
{
	struct cuda_dev *d = (struct cuda_dev *)dev;
	cudaGraph_t captured = NULL;
	struct nx_counted work = d->counted;
	add_counted(&work, &d->before_capture, (uint64_t)-1);
	d->counted = d->before_capture;
	d->capturing = false;
	CU(cudaStreamEndCapture(cu_stream(d, s), &captured));
	struct graph *g = (struct graph *)calloc(1, sizeof(*g));
	cudaError_t e = g ? cudaGraphInstantiate(&g->exec, captured, 0) : cudaSuccess;
	cudaGraphDestroy(captured);
	if (!g)
		return nx_fail(err, NX_ENOMEM, "no memory for a graph");
	if (e != cudaSuccess) {
		free(g);
		return cu_fail(err, e, "cudaGraphInstantiate");
	}
	g->work = work;
	*out = (struct nx_graph *)g;
	return 0;
}

static int graph_launch(void *dev, struct nx_stream *s, struct nx_graph *graph, struct nx_err *err)
{
	struct cuda_dev *d = (struct cuda_dev *)dev;
	const struct graph *g = (const struct graph *)graph;
	CU(cudaGraphLaunch(g->exec, cu_stream(d, s)));
	add_counted(&d->counted, &g->work, 1);
	return cu_done(d, cu_stream(d, s), err);
}

static void graph_destroy(void *dev, struct nx_graph *graph)
{
	struct graph *g = (struct graph *)graph;
	(void)dev;
	if (!g)
		return;
	cudaGraphExecDestroy(g->exec);
	free(g);
}

/* A launcher is called at once. In host-memory mode fn is a C function as on the CPU: it runs in its turn. */
static int enqueue(void *dev, struct nx_stream *s, nx_enqueue_fn fn, const void *args, size_t bytes,
                   struct nx_err *err)
{
	struct cuda_dev *d = (struct cuda_dev *)dev;
	alignas(16) unsigned char copy[NX_ENQUEUE_MAX];
	int rc = nx_enqueue_check(bytes, err);
	if (rc)
		return rc;
	if (d->host_memory) {
		if (d->capturing)
			return nx_fail(err, NX_ENOTSUP,
			               "cuda: C functions cannot be captured in host-memory mode");
		CU(cudaStreamSynchronize(cu_stream(d, s)));
	}
	if (bytes)
		memcpy(copy, args, bytes);
	fn(copy);
	if (!d->host_memory)
		CU(cudaGetLastError());
	return 0;
}

static struct nx_device_ops make_ops(void)
{
	struct nx_device_ops o = {};
	o.abi = NX_DEVICE_ABI;
	o.size = sizeof(o);
	o.name = "cuda";
	o.open = dev_open;
	o.close = dev_close;
	o.info = dev_info;
	o.calibrate = cu_calibrate;
	o.counted = dev_counted;
	o.counted_reset = dev_counted_reset;
	o.alloc = cu_alloc;
	o.free = cu_free;
	o.host_alloc = cu_host_alloc;
	o.host_free = cu_host_free;
	o.stream_create = stream_create;
	o.stream_destroy = stream_destroy;
	o.stream_sync = stream_sync;
	o.event_create = event_create;
	o.event_destroy = event_destroy;
	o.event_record = event_record;
	o.event_wait = event_wait;
	o.graph_begin = graph_begin;
	o.graph_end = graph_end;
	o.graph_launch = graph_launch;
	o.graph_destroy = graph_destroy;
	o.enqueue = enqueue;
	o.copy = cu_copy;
	o.fill = cu_fill;
	o.weight_create = cu_weight_create;
	o.weight_destroy = cu_weight_destroy;
	o.weight_bytes = cu_weight_bytes;
	o.weight_forecast = cu_weight_forecast;
	o.weight_prepare = cu_weight_prepare;
	o.embed = cu_embed;
	o.rmsnorm = cu_rmsnorm;
	o.linear = cu_linear;
	o.rope_store = cu_rope_store;
	o.attention_workspace = cu_attention_workspace;
	o.attention = cu_attention;
	o.gather = cu_gather;
	o.sample = cu_sample;
	o.commit = cu_commit;
	o.draft_rows = cu_draft_rows;
	o.kv_copy = cu_kv_copy;
	o.kv_swap = cu_kv_swap;
	o.kv_compact = cu_kv_compact;
	o.counted_add = counted_more;
	o.uncounted = uncounted;
	o.instruments = &cu_instruments;
	return o;
}

extern "C" __attribute__((visibility("default"))) const struct nx_device_ops *nx_backend(void);

const struct nx_device_ops *nx_backend(void)
{
	static const struct nx_device_ops ops = make_ops();
	return &ops;
}
