/* SPDX-License-Identifier: Apache-2.0
 *
 * weight.cu: matrices on the device, and rows out of them.
 *
 * A matrix comes in pieces: keys, from which the device makes the rows, or rows in f32, which it reads out of pinned
 * host memory while the source fills the next piece. Both end in rows of the matrix's type.
 */
#include <stdlib.h>
#include <string.h>

#include "cuda/linear.cuh"
#include "nexus_kernels/work.h"

#define STAGE_BYTES ((size_t)8 << 20) /* a piece of rows; more where a single row wants more */
#define KEY_ROWS 65536                /* a piece of keys */
#define FILL_THREADS 256

/* A row a block: elements from a key. */
template <typename T>
static __global__ void __launch_bounds__(FILL_THREADS)
	generate_rows(T *w, const uint64_t *key, float scale, int64_t k, int64_t k_pad)
{
	T *row = w + (int64_t)blockIdx.x * k_pad;
	uint64_t own = key[blockIdx.x];
	for (int64_t i = threadIdx.x; i < k_pad; i += FILL_THREADS)
		row[i] = from_f32<T>(i < k ? nx_random_element(own, (uint32_t)i, scale) : 0.0f);
}

template <typename T>
static __global__ void __launch_bounds__(FILL_THREADS)
	convert_rows(T *w, const float *rows, int64_t k, int64_t k_pad)
{
	T *row = w + (int64_t)blockIdx.x * k_pad;
	const float *from = rows + (int64_t)blockIdx.x * k;
	for (int64_t i = threadIdx.x; i < k_pad; i += FILL_THREADS)
		row[i] = from_f32<T>(i < k ? from[i] : 0.0f);
}

static void *row_of(const struct nx_weight *w, int64_t row)
{
	return (uint8_t *)w->data + (size_t)(row * w->k_pad) * nx_dtype_bytes(w->dtype);
}

int weight_stage_open(struct weight_stage *st, size_t bytes, size_t key_bytes, struct nx_err *err)
{
	memset(st, 0, sizeof(*st));
	for (int i = 0; i < 2; i++) {
		CU(cudaHostAlloc(&st->host[i], bytes, cudaHostAllocDefault));
		CU(cudaEventCreateWithFlags(&st->free_at[i], cudaEventDisableTiming));
	}
	if (key_bytes)
		CU(cudaMalloc((void **)&st->keys, key_bytes));
	return 0;
}

void weight_stage_close(struct weight_stage *st)
{
	for (int i = 0; i < 2; i++) {
		if (st->free_at[i])
			cudaEventDestroy(st->free_at[i]);
		if (st->host[i])
			cudaFreeHost(st->host[i]);
	}
	if (st->keys)
		cudaFree(st->keys);
}

static int fill_from_rows(struct cuda_dev *d, struct nx_weight *w,
                          const struct nx_weight_desc *desc, const struct weight_stage *st,
                          int64_t piece, struct nx_err *err)
{
	int turn = 0;
	for (int64_t row = 0; row < w->n; row += piece, turn ^= 1) {
		int64_t n = w->n - row < piece ? w->n - row : piece;
		float *host = (float *)st->host[turn];
		CU(cudaEventSynchronize(st->free_at[turn]));
		int rc = desc->rows(desc->ctx, row, n, host, err);
		if (rc)
			return rc;
		if (w->dtype == NX_F32)
			rc = cu_launch(err, "convert_rows", CU_PLAIN, convert_rows<float>,
			               dim3((unsigned)n), dim3(FILL_THREADS), 0, d->stream,
			               (float *)row_of(w, row), host, w->k, w->k_pad);
		else
			rc = cu_launch(err, "convert_rows", CU_PLAIN, convert_rows<__nv_bfloat16>,
			               dim3((unsigned)n), dim3(FILL_THREADS), 0, d->stream,
			               (__nv_bfloat16 *)row_of(w, row), host, w->k, w->k_pad);
		if (rc)
			return rc;
		CU(cudaEventRecord(st->free_at[turn], d->stream));
	}
	return 0;
}

static int fill_from_keys(struct cuda_dev *d, struct nx_weight *w,
                          const struct nx_weight_desc *desc, const struct weight_stage *st,
                          struct nx_err *err)
{
	int turn = 0;
	for (int64_t row = 0; row < w->n; row += KEY_ROWS, turn ^= 1) {
		int64_t n = w->n - row < KEY_ROWS ? w->n - row : KEY_ROWS;
		uint64_t *host = (uint64_t *)st->host[turn];
		float scale = 0;
		CU(cudaEventSynchronize(st->free_at[turn]));
		int rc = desc->keys(desc->ctx, row, n, host, &scale, err);
		if (rc)
			return rc;
		CU(cudaMemcpyAsync(st->keys, host, (size_t)n * sizeof(*host),
		                   cudaMemcpyHostToDevice, d->stream));
		CU(cudaEventRecord(st->free_at[turn], d->stream));
		if (w->dtype == NX_F32)
			rc = cu_launch(err, "generate_rows", CU_PLAIN, generate_rows<float>,
			               dim3((unsigned)n), dim3(FILL_THREADS), 0, d->stream,
			               (float *)row_of(w, row), st->keys, scale, w->k, w->k_pad);
		else
			rc = cu_launch(err, "generate_rows", CU_PLAIN, generate_rows<__nv_bfloat16>,
			               dim3((unsigned)n), dim3(FILL_THREADS), 0, d->stream,
			               (__nv_bfloat16 *)row_of(w, row), st->keys, scale, w->k,
			               w->k_pad);
		if (rc)
			return rc;
	}
	return 0;
}

/* Products read weights before they wait for earlier kernels (pdl_wait), so a weight is whole when this returns. */
static int fill_weight(struct cuda_dev *d, struct nx_weight *w, const struct nx_weight_desc *desc,
                       struct nx_err *err)
{
	struct weight_stage st;
	int64_t piece = (int64_t)(STAGE_BYTES / ((size_t)w->k * sizeof(float)));
	piece = piece < 1 ? 1 : piece > w->n ? w->n : piece;
	int64_t key_rows = w->n < KEY_ROWS ? w->n : KEY_ROWS;
	size_t key_bytes = desc->keys ? (size_t)key_rows * sizeof(uint64_t) : 0;
	size_t row_bytes = (size_t)(piece * w->k) * sizeof(float);
	int rc = weight_stage_open(&st, key_bytes ? key_bytes : row_bytes, key_bytes, err);
	if (!rc)
		rc = desc->keys ? fill_from_keys(d, w, desc, &st, err)
		                : fill_from_rows(d, w, desc, &st, piece, err);
	cudaError_t e = cudaStreamSynchronize(d->stream);
	if (!rc && e != cudaSuccess)
		rc = cu_fail(err, e, "filling a weight");
	weight_stage_close(&st);
	return rc;
}

static int64_t padded(int64_t k)
{
	return (k + K_ALIGN - 1) / K_ALIGN * K_ALIGN;
}

int weight_alloc(struct nx_weight *w, struct nx_err *err)
{
	cudaError_t e = cudaMalloc(&w->data, w->bytes);
	if (e == cudaSuccess)
		return 0;
	(void)cudaGetLastError();
	return nx_fail(err, e == cudaErrorMemoryAllocation ? NX_ENOMEM : NX_EENV,
	               "no memory on the device for a weight of %lld x %lld: %s", (long long)w->n,
	               (long long)w->k, cudaGetErrorString(e));
}

int cu_weight_create(void *dev, const struct nx_weight_desc *desc, struct nx_weight **out,
                     struct nx_err *err)
{
	struct cuda_dev *d = (struct cuda_dev *)dev;
	int rc = nx_check_weight(desc, true, err);
	if (rc)
		return rc;
	if (desc->n > INT32_MAX || desc->k > INT32_MAX - K_ALIGN)
		return nx_fail(err, NX_ENOTSUP, "a weight of %lld x %lld is too large here",
		               (long long)desc->n, (long long)desc->k);
	if (desc->quant.code != NX_WEIGHT_CODE_NONE)
		return quant_weight_create(d, desc, out, err);
	struct nx_weight *w = (struct nx_weight *)calloc(1, sizeof(*w));
	if (!w)
		return nx_fail(err, NX_ENOMEM, "no memory for a weight");
	w->n = desc->n;
	w->k = desc->k;
	w->k_pad = padded(desc->k);
	w->dtype = desc->dtype;
	w->lookup = desc->lookup;
	w->bytes = cu_weight_forecast(dev, desc, 0);
	rc = weight_alloc(w, err);
	if (rc) {
		free(w);
		return rc;
	}
	rc = fill_weight(d, w, desc, err);
	if (rc) {
		cu_weight_destroy(dev, w);
		return rc;
	}
	*out = w;
	return 0;
}

void cu_weight_destroy(void *dev, struct nx_weight *w)
{
	(void)dev;
	if (!w)
		return;
	cudaFree(w->data);
	free(w);
}

uint64_t cu_weight_bytes(const struct nx_weight *w)
{
	return w->bytes;
}

/* There is one form of a weight, for all products. */
uint64_t cu_weight_forecast(void *dev, const struct nx_weight_desc *desc, int32_t max_rows)
{
	if (desc->quant.code != NX_WEIGHT_CODE_NONE)
		return quant_forecast(desc);
	return (uint64_t)desc->n * (uint64_t)padded(desc->k) * nx_dtype_bytes(desc->dtype);
}

int cu_weight_prepare(void *dev, struct nx_weight *w, int32_t max_rows, uint64_t *bytes,
                      struct nx_err *err)
{
	*bytes = w->bytes;
	return 0;
}

/* ---- embed */

#define EMBED_THREADS 128

/* A row a block. Tokens that are none give zeros: a row that only keeps its place in a padded batch may carry any
 * number. */
template <typename W, typename A>
static __global__ void __launch_bounds__(EMBED_THREADS)
	embed_rows(A *x, const W *table, const int32_t *token, const int32_t *seq,
                   const int32_t *last_token, int64_t n, int64_t k, int64_t k_pad)
{
	pdl_trigger();
	pdl_wait();
	int64_t r = blockIdx.x;
	int32_t id = token[r];
	if (id == NX_TOKEN_LAST)
		id = last_token[seq[r]];
	bool known = id >= 0 && id < n;
	const W *from = table + (known ? id : 0) * k_pad;
	A *to = x + r * k;
	if (sizeof(W) == sizeof(A) && k == k_pad && (uintptr_t)x % 16 == 0) {
		const uint4 none = {0, 0, 0, 0};
		int64_t pieces = k * (int64_t)sizeof(A) / 16;
		for (int64_t i = threadIdx.x; i < pieces; i += EMBED_THREADS)
			((uint4 *)to)[i] = known ? __ldg((const uint4 *)from + i) : none;
		return;
	}
	for (int64_t i = threadIdx.x; i < k; i += EMBED_THREADS)
		to[i] = from_f32<A>(known ? to_f32(from[i]) : 0.0f);
}

template <typename W, typename A>
static int embed_as(cudaStream_t s, const struct nx_rows *rows, const struct nx_seq_state *state,
                    const struct nx_weight *t, void *x, struct nx_err *err)
{
	return cu_launch(err, "embed_rows", CU_PDL, embed_rows<W, A>, dim3((unsigned)rows->n_rows),
	                 dim3(EMBED_THREADS), 0, s, (A *)x, (const W *)t->data, rows->token,
	                 rows->seq, (const int32_t *)state->last_token, t->n, t->k, t->k_pad);
}

int cu_embed(void *dev, struct nx_stream *stream, const struct nx_rows *rows,
             const struct nx_seq_state *state, const struct nx_weight *table, void *x,
             struct nx_err *err)
{
	struct cuda_dev *d = (struct cuda_dev *)dev;
	cudaStream_t s = cu_stream(d, stream);
	int rc = nx_check_lookup(table->lookup, err);
	if (rc || rows->n_rows <= 0)
		return rc;
	if (table->quant.code != NX_WEIGHT_CODE_NONE)
		return quant_embed(d, s, rows, state, table, x, err);
	bool f32_table = table->dtype == NX_F32, f32 = d->act == NX_F32;
	rc = f32_table && f32 ? embed_as<float, float>(s, rows, state, table, x, err)
	     : f32_table      ? embed_as<float, __nv_bfloat16>(s, rows, state, table, x, err)
	     : f32            ? embed_as<__nv_bfloat16, float>(s, rows, state, table, x, err)
	           : embed_as<__nv_bfloat16, __nv_bfloat16>(s, rows, state, table, x, err);
	if (rc)
		return rc;
	nx_count_embed(&d->counted, rows->n_rows, table->k,
	               (uint64_t)rows->n_rows * (uint64_t)table->k * nx_dtype_bytes(table->dtype),
	               nx_dtype_bytes(d->act));
	return cu_done(d, s, err);
}
