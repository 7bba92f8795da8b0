/* SPDX-License-Identifier: Apache-2.0
 *
 * dev.cuh: what the files of the CUDA backend share.
 *
 * Rules that hold for every kernel and every launch here:
 *   Streams.  struct nx_stream * is a cudaStream_t; NULL means dev->stream. cu_stream() says it once.
 *   Launches. Through cu_launch(), which checks the result and lets the kernel start before the one in front of it
 *             has ended (programmatic dependent launch). So each kernel calls pdl_wait() in every thread, before
 *             anything that an earlier kernel may have written is read, before anything is written, and before any
 *             return; what lies above it may touch weights and its arguments alone. pdl_trigger() lets the next
 *             kernel start: call it at the top, the next one waits by itself.
 *   Capture.  Grids depend on host-known bounds alone; no allocation, no synchronisation in an operation.
 *   Numbers.  Activations are dev->act (bf16 or f32), accumulation is f32. Invariant mode (dev->cfg.invariant):
 *             a row's bits depend on its own sequence alone, whatever else is in the batch, and never on M.
 *   Errors.   CU(call) in functions that have `err`: NX_ENOMEM where memory lacks, NX_EFAULT where the context is lost
 *             (an illegal address, ...), else NX_EENV, with a sentence.
 *   Floats.   No -use_fast_math; __expf and friends where a comment says why that is enough.
 */
#ifndef NX_CUDA_DEV_CUH
#define NX_CUDA_DEV_CUH

#include <cuda_bf16.h>
#include <cuda_runtime.h>
#include <stdint.h>

#include "nexus/device.h"
#include "nexus_kernels/rng.h"
#include "nexus_kernels/rows.h"

struct cublas_lt; /* linear_lt.cu: the library, opened when it is first wanted */

struct cuda_dev {
	struct nx_device_config cfg;
	enum nx_dtype act;          /* of activations: cfg.dtype */
	int index, n_sms, max_smem; /* max_smem: bytes of shared memory that a block may ask for */
	size_t l2_bytes;
	cudaStream_t stream; /* the device's own: NULL in the table means this one */
	bool host_memory; /* NEXUS_CUDA_HOST_MEMORY=1: "device" memory is pinned host memory and every operation is
	                        waited for, so that C functions may touch it: for tests, slow */
	bool poison;    /* NEXUS_POISON=1: new memory is filled with 0xff (NaN) */
	bool capturing; /* between graph_begin and graph_end */
	struct nx_counted counted, before_capture;
	struct nx_uncounted uncounted; /* of attention, by the key */
	struct cublas_lt *lt;          /* NULL: not opened, or not there */
	int32_t *
		errors; /* pinned host memory: first error that a kernel found (draft_rows, ...), [0] 0 = none; see
	                    error.cuh */
	unsigned long long *moved,
		moved_before; /* device: bytes that kv_compact moved; as of counted_reset() */
	void *sample_scratch; /* sample.cu, fixed size, made by open */
	void *quant_scratch; /* linear_quant.cu, fixed size, made with the first quantized weight */
	bool quant_open;
};

static inline cudaStream_t cu_stream(const struct cuda_dev *d, struct nx_stream *s)
{
	return s ? (cudaStream_t)s : d->stream;
}

/* 0, or a code and the sentence "cuda: <what>: <text of e> (<name of e>)". */
int cu_fail(struct nx_err *err, cudaError_t e, const char *what);

#define CU(call)                                                                                   \
	do {                                                                                       \
		cudaError_t cu_e_ = (call);                                                        \
		if (cu_e_ != cudaSuccess)                                                          \
			return cu_fail(err, cu_e_, #call);                                         \
	} while (0)

/* End of every operation: in host-memory mode waits for the stream, unless it is being captured. */
int cu_done(struct cuda_dev *d, cudaStream_t s, struct nx_err *err);

#define CU_PDL true
#define CU_PLAIN false

/* Launches kernel<<<grid, block, smem, s>>>(args...). smem above 48 KB wants cudaFuncSetAttribute, once, at open. */
template <typename... Params, typename... Args>
static inline int cu_launch(struct nx_err *err, const char *name, bool pdl,
                            void (*kernel)(Params...), dim3 grid, dim3 block, size_t smem,
                            cudaStream_t s, Args... args)
{
	cudaLaunchConfig_t c = {};
	cudaLaunchAttribute a[1];
	a[0].id = cudaLaunchAttributeProgrammaticStreamSerialization;
	a[0].val.programmaticStreamSerializationAllowed = 1;
	c.gridDim = grid;
	c.blockDim = block;
	c.dynamicSmemBytes = smem;
	c.stream = s;
	c.attrs = a;
	c.numAttrs = pdl ? 1 : 0;
	cudaError_t e = cudaLaunchKernelEx(&c, kernel, Params(args)...);
	return e == cudaSuccess ? 0 : cu_fail(err, e, name);
}

#ifdef __CUDACC__
/* All earlier kernels of the stream have ended, and their writes are seen. */
static __device__ __forceinline__ void pdl_wait(void)
{
#if __CUDA_ARCH__ >= 900
	asm volatile("griddepcontrol.wait;" ::: "memory");
#endif
}

static __device__ __forceinline__ void pdl_trigger(void)
{
#if __CUDA_ARCH__ >= 900
	asm volatile("griddepcontrol.launch_dependents;" ::: "memory");
#endif
}

static __device__ __forceinline__ float to_f32(float x)
{
	return x;
}
static __device__ __forceinline__ float to_f32(__nv_bfloat16 x)
{
	return __bfloat162float(x);
}
template <typename T> static __device__ __forceinline__ T from_f32(float x);
template <> __device__ __forceinline__ float from_f32<float>(float x)
{
	return x;
}
template <> __device__ __forceinline__ __nv_bfloat16 from_f32<__nv_bfloat16>(float x)
{
	return __float2bfloat16_rn(x);
}
#endif

/* ---- the operations of the table, by file; see nexus/device.h for what they do */

/* memory.cu */
void *cu_alloc(void *dev, size_t bytes);
void cu_free(void *dev, void *p, size_t bytes);
void *cu_host_alloc(void *dev, size_t bytes);
void cu_host_free(void *dev, void *p, size_t bytes);
int cu_copy(void *dev, struct nx_stream *s, void *dst, const void *src, size_t bytes,
            enum nx_copy_dir dir, struct nx_err *err);
int cu_fill(void *dev, struct nx_stream *s, void *dst, int byte, size_t bytes, struct nx_err *err);

/* calibrate.cu */
int cu_calibrate(void *dev, double seconds, struct nx_calibration *out, struct nx_err *err);

/* weight.cu, linear.cu (own kernels, M small, invariant), linear_lt.cu (library products, M large) */
int cu_weight_create(void *dev, const struct nx_weight_desc *d, struct nx_weight **out,
                     struct nx_err *err);
void cu_weight_destroy(void *dev, struct nx_weight *w);
uint64_t cu_weight_bytes(const struct nx_weight *w);
uint64_t cu_weight_forecast(void *dev, const struct nx_weight_desc *d, int32_t max_rows);
int cu_weight_prepare(void *dev, struct nx_weight *w, int32_t max_rows, uint64_t *bytes,
                      struct nx_err *err);
int cu_embed(void *dev, struct nx_stream *s, const struct nx_rows *rows,
             const struct nx_seq_state *state, const struct nx_weight *table, void *x,
             struct nx_err *err);
int cu_linear(void *dev, struct nx_stream *s, const struct nx_linear *a, struct nx_err *err);
int linear_open(struct cuda_dev *d, struct nx_err *err); /* scratch, attributes, the library */
void linear_close(struct cuda_dev *d);
const char *linear_library(const struct cuda_dev *d); /* "cuBLASLt 13.0.2", or "" */

/* ops.cu */
int cu_rmsnorm(void *dev, struct nx_stream *s, void *y, const void *x, const float *w, int32_t rows,
               int32_t cols, float eps, struct nx_err *err);
int cu_rope_store(void *dev, struct nx_stream *s, const struct nx_rope_store *a,
                  struct nx_err *err);
int cu_gather(void *dev, struct nx_stream *s, void *y, const void *x, const int32_t *index,
              int32_t n, int32_t cols, struct nx_err *err);
int cu_commit(void *dev, struct nx_stream *s, const struct nx_commit *c, int32_t n,
              const struct nx_verdict *v, const struct nx_seq_state *state, struct nx_err *err);
int cu_draft_rows(void *dev, struct nx_stream *s, const struct nx_draft *d,
                  const struct nx_draft_span *spans, int32_t n_spans, int32_t vocab, int32_t window,
                  const struct nx_seq_state *state, const struct nx_draft_rows *out,
                  struct nx_err *err);

/* move.cu */
int cu_kv_copy(void *dev, struct nx_stream *s, const struct nx_kv *kv, const struct nx_kv_copy *c,
               int32_t n, struct nx_err *err);
int cu_kv_swap(void *dev, struct nx_stream *s, const struct nx_kv *kv, int32_t row, int32_t n,
               void *host, enum nx_copy_dir dir, struct nx_err *err);
int cu_kv_compact(void *dev, struct nx_stream *s, const struct nx_kv *kv,
                  const struct nx_seq_state *state, const struct nx_emit *emit, int32_t n_emit,
                  const struct nx_verdict *v, struct nx_err *err);

/* attention.cu: checks, workspace, choice of kernel */
size_t cu_attention_workspace(void *dev, enum nx_attn_kernel kernel, int32_t kv_chunk,
                              int32_t n_heads, int32_t head_dim, int64_t rows, int64_t keys);
int cu_attention(void *dev, struct nx_stream *s, const struct nx_attention *a, struct nx_err *err);
int attention_open(struct cuda_dev *d, struct nx_err *err);
/* attention_prefill.cu: many COMMIT, PAD or REDO rows a segment, bf16, head_dim 64 or 128, tensor cores (wgmma).
 * fits: can it take this call? Then cu_attention may hand it over (never in invariant mode). */
int attention_prefill_open(struct cuda_dev *d, struct nx_err *err);
bool attention_prefill_fits(const struct cuda_dev *d, const struct nx_attention *a);
int attention_prefill(struct cuda_dev *d, cudaStream_t s, const struct nx_attention *a,
                      struct nx_err *err);

/* sample.cu */
int cu_sample(void *dev, struct nx_stream *s, const struct nx_sample *a, struct nx_err *err);
int sample_open(struct cuda_dev *d, struct nx_err *err);

/* instruments.cpp */
extern const struct nx_instrument_ops cu_instruments;

#endif
