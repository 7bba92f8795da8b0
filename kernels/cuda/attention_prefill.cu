/* SPDX-License-Identifier: Apache-2.0
 *
 * attention_prefill.cu: attention of many rows on tensor cores.
 *
 * After FlashAttention-3 (2407.08608): a block of threads computes tiles of 128 rows of one head. One warpgroup fetches,
 * two compute 64 rows each: scores S = Q K^T, online softmax in registers, O += P V, where the product with V of a tile of
 * keys runs beneath the softmax of the next, and one warpgroup's softmax beneath the other's products.
 *
 * Rows of a segment lie in consecutive slots: the first in len[seq] + slot_off. A segment is cut into tiles from its end,
 * so that tiles differ by 128 keys and the short one comes first. Work is (tile, head), sorted by keys, longest first,
 * and each block of threads draws the next when it is done with one. Lengths are the device's, so it finds the tile
 * itself.
 *
 * K and V come from the paged store by TMA, a box of one block or of a whole tile, or, where blocks are of an odd size, by
 * cp.async, 16 bytes a thread.
 */
#include "cuda/attention_prefill_compute.cuh"

template <int D, bool TMA>
static __global__ void __launch_bounds__(N_THREADS, 1)
	prefill_kernel(const __grid_constant__ struct prefill p)
{
	extern __shared__ uint8_t raw[];
	struct shared<D> *sh = (struct shared<D> *)(((uintptr_t)raw + 1023) & ~(uintptr_t)1023);
	pdl_trigger();
	if (threadIdx.x == 0) {
		uint32_t fetchers = TMA ? 4 : 128; /* warps, or threads */
		uint32_t computing = 8;            /* warps */
		for (int i = 0; i < 2; i++) {
			bar_init(smem_addr(&sh->q_full[i]), 1);
			bar_init(smem_addr(&sh->q_empty[i]), computing);
		}
		for (int i = 0; i < STAGES; i++) {
			bar_init(smem_addr(&sh->k_full[i]), fetchers);
			bar_init(smem_addr(&sh->v_full[i]), fetchers);
			bar_init(smem_addr(&sh->k_empty[i]), computing);
			bar_init(smem_addr(&sh->v_empty[i]), computing);
		}
		asm volatile("fence.mbarrier_init.release.cluster;" ::: "memory");
		fence_async();
	}
	__syncthreads();
	pdl_wait();
	if (threadIdx.x < 128) {
		fewer_registers<56>();
		fetch_all<D, TMA>(p, sh);
	} else {
		more_registers<224>();
		compute_all<D, TMA>(p, sh);
	}
}

/* ---- the host's side */

typedef CUresult (*encode_fn)(CUtensorMap *, CUtensorMapDataType, cuuint32_t, void *,
                              const cuuint64_t *, const cuuint64_t *, const cuuint32_t *,
                              const cuuint32_t *, CUtensorMapInterleave, CUtensorMapSwizzle,
                              CUtensorMapL2promotion, CUtensorMapFloatOOBfill);
static encode_fn encode; /* the driver's cuTensorMapEncodeTiled: no library to link */

template <int D, bool TMA> static int allow_smem(struct nx_err *err)
{
	CU(cudaFuncSetAttribute(prefill_kernel<D, TMA>, cudaFuncAttributeMaxDynamicSharedMemorySize,
	                        (int)sizeof(struct shared<D>) + 1024));
	return 0;
}

int attention_prefill_open(struct cuda_dev *d, struct nx_err *err)
{
	cudaDriverEntryPointQueryResult found;
	void *fn = NULL;
	CU(cudaGetDriverEntryPointByVersion("cuTensorMapEncodeTiled", &fn, 12000, cudaEnableDefault,
	                                    &found));
	if (found != cudaDriverEntryPointSuccess || !fn)
		return nx_fail(err, NX_EENV, "cuda: the driver has no cuTensorMapEncodeTiled");
	encode = (encode_fn)fn;
	int rc = allow_smem<64, true>(err);
	if (!rc)
		rc = allow_smem<64, false>(err);
	if (!rc)
		rc = allow_smem<128, true>(err);
	return rc ? rc : allow_smem<128, false>(err);
}

static bool aligned(const void *p, int64_t stride_bytes)
{
	return ((uintptr_t)p | (uintptr_t)stride_bytes) % 16 == 0;
}

bool attention_prefill_fits(const struct cuda_dev *d, const struct nx_attention *a)
{
	const struct nx_kv *kv = a->kv;
	const struct nx_rows *rows = a->rows;
	return d->act == NX_BF16 && kv->codec == NX_KV_BF16 && a->kernel == NX_ATTN_TILED &&
	       !d->cfg.invariant && (kv->head_dim == 64 || kv->head_dim == 128) &&
	       rows->anc_stride == 0 && rows->n_segments > 0 && rows->n_segments <= MAX_SEGMENTS &&
	       rows->n_rows >= (int64_t)MIN_ROWS * rows->n_segments && a->scale > 0 &&
	       a->n_heads % kv->n_kv_heads == 0 && aligned(a->q, a->q_stride * 2) &&
	       aligned(a->out, 0) && aligned(kv->base, kv->row_bytes) &&
	       (kv->layer_bytes | kv->v_offset) % 16 == 0;
}

/* bf16, swizzled; see cuTensorMapEncodeTiled for the rest. */
static int make_map(CUtensorMap *map, const void *base, int rank, const cuuint64_t *dims,
                    const cuuint64_t *strides, const cuuint32_t *box, struct nx_err *err)
{
	static const cuuint32_t step[4] = {1, 1, 1, 1};
	CUresult r = encode(map, CU_TENSOR_MAP_DATA_TYPE_BFLOAT16, (cuuint32_t)rank, (void *)base,
	                    dims, strides, box, step, CU_TENSOR_MAP_INTERLEAVE_NONE,
	                    CU_TENSOR_MAP_SWIZZLE_128B, CU_TENSOR_MAP_L2_PROMOTION_L2_256B,
	                    CU_TENSOR_MAP_FLOAT_OOB_FILL_NONE);
	return r == CUDA_SUCCESS
	               ? 0
	               : nx_fail(err, NX_EENV, "cuda: cuTensorMapEncodeTiled: error %d", (int)r);
}

/* Boxes of rows of one head: 64 columns, eight rows, the head's next 64 columns, the next eight rows. */
static int map_rows(CUtensorMap *map, const uint8_t *base, const struct nx_kv *kv, int32_t rows,
                    struct nx_err *err)
{
	/* The store does not say how many rows it has; no box is taken outside a block. */
	cuuint64_t dims[4] = {(cuuint64_t)kv->n_kv_heads * (cuuint64_t)kv->head_dim, INT32_MAX,
	                      (cuuint64_t)kv->head_dim / 64, TILE / 8};
	cuuint64_t strides[3] = {(cuuint64_t)kv->row_bytes, 128, (cuuint64_t)kv->row_bytes * 8};
	cuuint32_t box[4] = {64, 8, (cuuint32_t)kv->head_dim / 64, (cuuint32_t)rows / 8};
	if (rows < 8) {
		box[1] = (cuuint32_t)rows;
		box[2] = box[3] = 1;
	}
	return make_map(map, base, 4, dims, strides, box, err);
}

static int map_queries(CUtensorMap *map, const struct nx_attention *a, struct nx_err *err)
{
	cuuint64_t dims[2] = {(cuuint64_t)a->n_heads * (cuuint64_t)a->kv->head_dim,
	                      (cuuint64_t)a->rows->n_rows};
	cuuint64_t stride = (cuuint64_t)a->q_stride * 2;
	cuuint32_t box[2] = {64, TILE};
	return make_map(map, a->q, 2, dims, &stride, box, err);
}

/* Rows of a box that never leaves a block; 0: such boxes are too small to be worth while. */
static int32_t box_rows(const struct nx_kv *kv)
{
	int32_t box = TILE;
	while (kv->block_size % box)
		box /= 2;
	return box >= 8 || kv->block_size >= 4 * TILE ? box : 0;
}

static int make_maps(struct prefill *p, const struct nx_attention *a, struct nx_err *err)
{
	int rc = map_queries(&p->q, a, err);
	if (rc || !p->box)
		return rc;
	rc = map_rows(&p->k, p->k_base, a->kv, p->box, err);
	if (!rc)
		rc = map_rows(&p->v, p->v_base, a->kv, p->box, err);
	if (!rc)
		rc = map_rows(&p->k_whole, p->k_base, a->kv, TILE, err);
	return rc ? rc : map_rows(&p->v_whole, p->v_base, a->kv, TILE, err);
}

template <int D, bool TMA>
static int launch(const struct prefill *p, int32_t grid, cudaStream_t s, struct nx_err *err)
{
	return cu_launch(err, "attention_prefill", CU_PDL, prefill_kernel<D, TMA>, dim3(grid),
	                 dim3(N_THREADS), sizeof(struct shared<D>) + 1024, s, *p);
}

/* Heads whose keys and values fit the L2 cache together, in runs of about one size; heads that share them stay together. */
static int32_t heads_together(const struct nx_attention *a)
{
	const struct nx_kv *kv = a->kv;
	int64_t head_bytes = (int64_t)a->rows->max_keys * a->rows->n_segments * kv->head_dim * 4;
	int64_t fit = SHARED_KV / (head_bytes + 1);
	int32_t most = fit < 1 ? 1 : fit < kv->n_kv_heads ? (int32_t)fit : kv->n_kv_heads;
	int32_t runs = (kv->n_kv_heads + most - 1) / most;
	return (kv->n_kv_heads + runs - 1) / runs * (a->n_heads / kv->n_kv_heads);
}

static int32_t take_ticket(cudaStream_t s)
{
	static uint32_t direct, captured;
	enum cudaStreamCaptureStatus status = cudaStreamCaptureStatusNone;
	if (cudaStreamIsCapturing(s, &status) != cudaSuccess)
		(void)cudaGetLastError();
	if (status == cudaStreamCaptureStatusNone)
		return (int32_t)(__atomic_fetch_add(&direct, 1u, __ATOMIC_RELAXED) %
		                 TICKETS_DIRECT);
	if (__atomic_load_n(&captured, __ATOMIC_RELAXED) >= TICKETS - TICKETS_DIRECT)
		return -1;
	return (int32_t)(TICKETS_DIRECT + __atomic_fetch_add(&captured, 1u, __ATOMIC_RELAXED));
}

int attention_prefill(struct cuda_dev *d, cudaStream_t s, const struct nx_attention *a,
                      struct nx_err *err)
{
	const struct nx_kv *kv = a->kv;
	const struct nx_rows *rows = a->rows;
	struct prefill p = {};
	p.segments = rows->segments;
	p.slot_off = rows->slot_off;
	p.len = a->state->len;
	p.table = kv->table;
	p.k_base = kv->base + a->layer * kv->layer_bytes;
	p.v_base = p.k_base + kv->v_offset;
	p.row_bytes = kv->row_bytes;
	p.out = (__nv_bfloat16 *)a->out;
	p.n_segments = rows->n_segments;
	p.n_heads = a->n_heads;
	p.group = a->n_heads / kv->n_kv_heads;
	p.heads_together = heads_together(a);
	p.block_size = kv->block_size;
	p.table_stride = kv->table_stride;
	p.box = box_rows(kv);
	p.ticket = take_ticket(s);
	p.scale = a->scale * 1.4426950408889634f; /* log2(e) */
	int rc = make_maps(&p, a, err);
	if (rc)
		return rc;
	int64_t most = ((int64_t)rows->n_rows / TILE + rows->n_segments) * a->n_heads;
	int32_t grid = most < d->n_sms ? (int32_t)most : d->n_sms;
	if (kv->head_dim == 64)
		return p.box ? launch<64, true>(&p, grid, s, err)
		             : launch<64, false>(&p, grid, s, err);
	return p.box ? launch<128, true>(&p, grid, s, err) : launch<128, false>(&p, grid, s, err);
}
