/* SPDX-License-Identifier: Apache-2.0
 *
 * move.cu: rows inside the KV store and out of it.
 */
#include "cuda/coded.cuh"
#include "cuda/error.cuh"
#include "cuda/vec.cuh"
#include "nexus_kernels/work.h"

#define MOVE_THREADS 128

/* The widest piece that divides all of it: 16, 4 or 1 bytes. */
static int piece_of(int64_t all)
{
	return all % 16 == 0 ? 16 : all % 4 == 0 ? 4 : 1;
}

static int64_t pool_bits(const struct nx_kv *kv)
{
	return (int64_t)((uintptr_t)kv->base & 15) | kv->layer_bytes | kv->row_bytes |
	       kv->v_offset | (int64_t)nx_kv_part_bytes(kv);
}

/* ---- kv_copy */

#define MAX_COPIES 128 /* of one launch: they travel among its arguments */
#define AT_ONCE 8      /* rows that a thread has under way */

struct copy_list {
	uint8_t *base;
	int64_t layer_bytes, row_bytes, v_offset;
	int32_t n, pieces;
	struct nx_kv_copy c[MAX_COPIES];
};

/*
 * Grid: pieces of a row by threads, K and V of each layer, slices. A thread has one piece of a row and moves it for
 * all rows of all copies, in order: whatever overlaps, only it reads and writes that column, so the order is kept and
 * nobody waits. Slices share the rows of each copy out: for copies that do not touch one another.
 */
template <typename V>
static __global__ void __launch_bounds__(MOVE_THREADS)
	copy_rows(const __grid_constant__ copy_list l)
{
	const int32_t piece = (int32_t)(blockIdx.x * MOVE_THREADS + threadIdx.x);
	pdl_trigger();
	pdl_wait();
	if (piece >= l.pieces)
		return;
	uint8_t *base = l.base + (blockIdx.y / 2) * l.layer_bytes + (blockIdx.y % 2) * l.v_offset +
	                piece * (int64_t)sizeof(V);
	for (int32_t i = 0; i < l.n; i++) {
		const struct nx_kv_copy c = l.c[i];
		const bool up = c.dst > c.src; /* overlapping ranges move like memmove */
		for (int32_t j = (int32_t)blockIdx.z * AT_ONCE; j < c.n_rows;
		     j += (int32_t)gridDim.z * AT_ONCE) {
			V v[AT_ONCE];
#pragma unroll
			for (int32_t k = 0; k < AT_ONCE; k++) {
				int64_t r = up ? c.n_rows - 1 - (j + k) : j + k;
				if (j + k < c.n_rows)
					v[k] = *(const V *)(base + (c.src + r) * l.row_bytes);
			}
#pragma unroll
			for (int32_t k = 0; k < AT_ONCE; k++) {
				int64_t r = up ? c.n_rows - 1 - (j + k) : j + k;
				if (j + k < c.n_rows)
					*(V *)(base + (c.dst + r) * l.row_bytes) = v[k];
			}
		}
	}
}

static bool touch(int32_t a, int32_t n, int32_t b, int32_t m)
{
	return a < (int64_t)b + m && b < (int64_t)a + n;
}

/* No copy writes what another one, or it itself, reads or writes. */
static bool independent(const struct nx_kv_copy *c, int32_t n)
{
	for (int32_t i = 0; i < n; i++) {
		if (touch(c[i].dst, c[i].n_rows, c[i].src, c[i].n_rows))
			return false;
		for (int32_t j = 0; j < i; j++)
			if (touch(c[i].dst, c[i].n_rows, c[j].dst, c[j].n_rows) ||
			    touch(c[i].dst, c[i].n_rows, c[j].src, c[j].n_rows) ||
			    touch(c[i].src, c[i].n_rows, c[j].dst, c[j].n_rows))
				return false;
	}
	return true;
}

int cu_kv_copy(void *dev, struct nx_stream *s, const struct nx_kv *kv, const struct nx_kv_copy *c,
               int32_t n, struct nx_err *err)
{
	struct cuda_dev *d = (struct cuda_dev *)dev;
	cudaStream_t st = cu_stream(d, s);
	const size_t bytes = nx_kv_part_bytes(kv);
	const int piece = piece_of(pool_bits(kv));
	auto kernel = piece == 16  ? copy_rows<uint4>
	              : piece == 4 ? copy_rows<uint32_t>
	                           : copy_rows<uint8_t>;
	struct copy_list l = {kv->base, kv->layer_bytes, kv->row_bytes, kv->v_offset};
	l.pieces = (int32_t)(bytes / (size_t)piece);
	for (int32_t i = 0; i < n;) {
		int32_t longest = 0;
		for (l.n = 0; i < n && l.n < MAX_COPIES; i++) {
			if (c[i].n_rows < 1)
				continue;
			longest = c[i].n_rows > longest ? c[i].n_rows : longest;
			d->counted.kv_bytes +=
				4u * bytes * (size_t)kv->n_layers * (size_t)c[i].n_rows;
			l.c[l.n++] = c[i];
		}
		if (!l.n)
			break;
		/* More slices than rows need, or than fill the device, are idle blocks. */
		int32_t blocks = (l.pieces + MOVE_THREADS - 1) / MOVE_THREADS,
			slices = (longest + AT_ONCE - 1) / AT_ONCE,
			most = 1 + 32 * d->n_sms / (blocks * 2 * kv->n_layers);
		slices = !independent(l.c, l.n) ? 1 : slices < most ? slices : most;
		int rc = cu_launch(
			err, "kv_copy", CU_PDL, kernel,
			dim3((unsigned)blocks, 2u * (unsigned)kv->n_layers, (unsigned)slices),
			dim3(MOVE_THREADS), 0, st, l);
		if (rc)
			return rc;
	}
	return cu_done(d, st, err);
}

/* ---- kv_swap: K of n rows, then V of them, a layer after the other, each row in row_bytes */

struct swap_args {
	uint8_t *pool, *host;
	int64_t layer_bytes, row_bytes, v_offset;
	int32_t n, pieces; /* of a row */
	bool out;
};

/* Grid: pieces of all rows by threads, K and V of each layer. The host's memory is pinned. */
template <typename V>
static __global__ void __launch_bounds__(MOVE_THREADS)
	swap_rows(const __grid_constant__ swap_args a)
{
	const int64_t at = (int64_t)blockIdx.x * MOVE_THREADS + threadIdx.x;
	const int64_t row = at / a.pieces, piece = at % a.pieces;
	pdl_trigger();
	pdl_wait();
	if (row >= a.n)
		return;
	V *p = (V *)(a.pool + (blockIdx.y / 2) * a.layer_bytes + (blockIdx.y % 2) * a.v_offset +
	             row * a.row_bytes) +
	       piece;
	V *h = (V *)(a.host + ((int64_t)blockIdx.y * a.n + row) * a.row_bytes) + piece;
	if (a.out)
		*h = *p;
	else
		*p = *h;
}

/* Where the device sees this host memory; NULL: nowhere, it is pageable. */
static uint8_t *mapped(const void *p)
{
	struct cudaPointerAttributes a = {};
	if (cudaPointerGetAttributes(&a, p) == cudaSuccess)
		return a.type == cudaMemoryTypeHost ? (uint8_t *)a.devicePointer : NULL;
	(void)cudaGetLastError();
	return NULL;
}

/* Memory that the device does not see: CUDA's own copies, which stage it. */
static int swap_staged(const struct nx_kv *kv, const struct swap_args *a, cudaStream_t s,
                       struct nx_err *err)
{
	const size_t pitch = (size_t)a->row_bytes, n = (size_t)a->n, bytes = nx_kv_part_bytes(kv);
	for (int32_t i = 0; i < 2 * kv->n_layers; i++) {
		uint8_t *p = a->pool + i / 2 * a->layer_bytes + i % 2 * a->v_offset,
			*h = a->host + (size_t)i * n * pitch;
		/* The pool is the host's too in host-memory mode: CUDA sees which it is. */
		const enum cudaMemcpyKind kind = cudaMemcpyDefault;
		if (bytes == pitch)
			CU(cudaMemcpyAsync(a->out ? h : p, a->out ? p : h, n * pitch, kind, s));
		else
			CU(cudaMemcpy2DAsync(a->out ? h : p, pitch, a->out ? p : h, pitch, bytes, n,
			                     kind, s));
	}
	return 0;
}

int cu_kv_swap(void *dev, struct nx_stream *s, const struct nx_kv *kv, int32_t row, int32_t n,
               void *host, enum nx_copy_dir dir, struct nx_err *err)
{
	struct cuda_dev *d = (struct cuda_dev *)dev;
	cudaStream_t st = cu_stream(d, s);
	const size_t bytes = nx_kv_part_bytes(kv);
	int rc = nx_check_swap(dir, err);
	if (rc || n < 1)
		return rc;
	struct swap_args a = {kv->base + row * kv->row_bytes,
	                      (uint8_t *)host,
	                      kv->layer_bytes,
	                      kv->row_bytes,
	                      kv->v_offset,
	                      n,
	                      0,
	                      dir == NX_D2H};
	uint8_t *seen = mapped(host);
	if (seen) {
		a.host = seen;
		const int piece = piece_of(pool_bits(kv) | (int64_t)((uintptr_t)seen & 15));
		auto kernel = piece == 16  ? swap_rows<uint4>
		              : piece == 4 ? swap_rows<uint32_t>
		                           : swap_rows<uint8_t>;
		a.pieces = (int32_t)(bytes / (size_t)piece);
		int64_t all = (int64_t)n * a.pieces;
		rc = cu_launch(err, "kv_swap", CU_PDL, kernel,
		               dim3((unsigned)((all + MOVE_THREADS - 1) / MOVE_THREADS),
		                    2u * (unsigned)kv->n_layers),
		               dim3(MOVE_THREADS), 0, st, a);
	} else {
		rc = swap_staged(kv, &a, st, err);
	}
	if (rc)
		return rc;
	d->counted.kv_bytes += 2u * bytes * (size_t)kv->n_layers * (size_t)n;
	return cu_done(d, st, err);
}

/* ---- kv_compact */

struct keep_args {
	const struct nx_emit *emit;
	const int32_t *n_accepted, *path, *len, *table;
	int32_t n_emit, v_stride;
	uint8_t *to, *scratch;
	int64_t layer_bytes, row_bytes, v_offset; /* of `to`: the pool, or the windows */
	int64_t scratch_layer_bytes, scratch_row_bytes, scratch_v_offset;
	int32_t block_size, table_stride, scratch_cap, window, pieces;
	unsigned long long each, *moved,
		*moved_host; /* bytes that a row counts for; where they are added up */
	int32_t *errors;
};

/* Row of `to` that a slot belongs to; -1: it has no block. */
static __device__ __forceinline__ int64_t keep_row(const keep_args &a, int32_t seq, int64_t slot)
{
	if (slot < 0)
		return -1;
	if (a.window > 1)
		return (int64_t)seq * a.window + slot % a.window;
	if (slot / a.block_size >= a.table_stride)
		return -1;
	int32_t first = a.table[(int64_t)seq * a.table_stride + slot / a.block_size];
	return first < 0 ? -1 : first + slot % a.block_size;
}

/* One warp: what the host counts, but cannot know. */
static __device__ void keep_count(const keep_args &a)
{
	unsigned n = 0;
	for (int32_t e = (int32_t)threadIdx.x; e < a.n_emit; e += 32)
		if (a.emit[e].n_draft > 0) {
			int32_t accepted = a.n_accepted[a.emit[e].seq];
			n += accepted > 0 && accepted < a.v_stride ? (unsigned)accepted : 0;
		}
	n = __reduce_add_sync(0xffffffffu, n);
	if (threadIdx.x == 0 && n) {
		unsigned long long all = *a.moved + n * a.each;
		*a.moved = all;
		*(volatile unsigned long long *)a.moved_host = all;
	}
}

/* Grid: emits, K and V of each layer; one more block counts. */
template <typename V>
static __global__ void __launch_bounds__(MOVE_THREADS)
	keep_rows(const __grid_constant__ keep_args a)
{
	pdl_trigger();
	pdl_wait();
	if ((int32_t)blockIdx.x == a.n_emit) {
		if (blockIdx.y == 0 && threadIdx.x < 32)
			keep_count(a);
		return;
	}
	const struct nx_emit e = a.emit[blockIdx.x];
	if (e.n_draft < 1)
		return;
	const int32_t layer = (int32_t)blockIdx.y / 2, part = (int32_t)blockIdx.y % 2;
	const int32_t n = a.n_accepted[e.seq], len = a.len[e.seq];
	const bool tells = blockIdx.y == 0;
	if (n < 0 || n >= a.v_stride) {
		if (tells && threadIdx.x == 0)
			cu_report(a.errors, CU_ERROR_KEEP_ACCEPTED, (int32_t)blockIdx.x, e.seq, n);
		return;
	}
	for (int32_t at = (int32_t)threadIdx.x; at < n * a.pieces; at += MOVE_THREADS) {
		const int32_t i = at / a.pieces, piece = at % a.pieces;
		const int32_t from = a.path[(int64_t)e.seq * a.v_stride + i];
		const int64_t slot = (int64_t)len + e.pos_off + i;
		const int64_t row = keep_row(a, e.seq, slot);
		if (from < 0 || from >= a.scratch_cap || row < 0) {
			if (tells && piece == 0)
				cu_report(a.errors,
				          row < 0 ? CU_ERROR_KEEP_SLOT : CU_ERROR_KEEP_SCRATCH,
				          (int32_t)blockIdx.x, e.seq,
				          row < 0 ? (int32_t)slot : from);
			continue;
		}
		const V *src =
			(const V *)(a.scratch + layer * a.scratch_layer_bytes +
		                    part * a.scratch_v_offset +
		                    ((int64_t)e.seq * a.scratch_cap + from) * a.scratch_row_bytes);
		V *dst =
			(V *)(a.to + layer * a.layer_bytes + part * a.v_offset + row * a.row_bytes);
		dst[piece] = src[piece];
	}
}

int cu_kv_compact(void *dev, struct nx_stream *s, const struct nx_kv *kv,
                  const struct nx_seq_state *state, const struct nx_emit *emit, int32_t n_emit,
                  const struct nx_verdict *v, struct nx_err *err)
{
	struct cuda_dev *d = (struct cuda_dev *)dev;
	cudaStream_t st = cu_stream(d, s);
	const bool windowed = kv->window > 1;
	const size_t bytes =
		windowed ? (size_t)kv->n_kv_heads * (size_t)kv->head_dim * nx_dtype_bytes(kv->plain)
			 : nx_kv_part_bytes(kv);
	if (n_emit < 1)
		return 0;
	struct keep_args a = {};
	a.emit = emit;
	a.n_emit = n_emit;
	a.n_accepted = v->n_accepted;
	a.path = v->path;
	a.v_stride = v->stride;
	a.len = state->len;
	a.table = kv->table;
	a.to = windowed ? kv->win : kv->base;
	a.layer_bytes = windowed ? kv->win_layer_bytes : kv->layer_bytes;
	a.row_bytes = windowed ? kv->scratch_row_bytes : kv->row_bytes;
	a.v_offset = windowed ? kv->win_v_offset : kv->v_offset;
	a.scratch = kv->scratch;
	a.scratch_layer_bytes = kv->scratch_layer_bytes;
	a.scratch_row_bytes = kv->scratch_row_bytes;
	a.scratch_v_offset = kv->scratch_v_offset;
	a.block_size = kv->block_size;
	a.table_stride = kv->table_stride;
	a.scratch_cap = kv->scratch ? kv->scratch_cap : 0;
	a.window = kv->window;
	a.each = 4u * bytes * (size_t)kv->n_layers;
	a.moved = d->moved;
	a.moved_host = (unsigned long long *)(void *)(d->errors + CU_ERROR_MOVED);
	a.errors = d->errors;
	const int piece =
		piece_of((int64_t)(((uintptr_t)a.to | (uintptr_t)a.scratch) & 15) | a.layer_bytes |
	                 a.row_bytes | a.v_offset | a.scratch_layer_bytes | a.scratch_row_bytes |
	                 a.scratch_v_offset | (int64_t)bytes);
	a.pieces = (int32_t)(bytes / (size_t)piece);
	auto kernel = piece == 16  ? keep_rows<uint4>
	              : piece == 4 ? keep_rows<uint32_t>
	                           : keep_rows<uint8_t>;
	int rc = cu_launch(err, "kv_compact", CU_PDL, kernel,
	                   dim3((unsigned)n_emit + 1, 2u * (unsigned)kv->n_layers),
	                   dim3(MOVE_THREADS), 0, st, a);
	if (!rc && windowed && nx_kv_is_coded(kv->codec))
		rc = coded_from_window(d, st, kv, state, emit, n_emit, v, err);
	return rc ? rc : cu_done(d, st, err);
}
