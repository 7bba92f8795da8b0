/* SPDX-License-Identifier: Apache-2.0
 *
 * attention_launch.cuh: how the kernels of attention_spread.cuh are opened and launched, for any shape of tiles.
 */
#ifndef NX_CUDA_ATTENTION_LAUNCH_CUH
#define NX_CUDA_ATTENTION_LAUNCH_CUH

#include "cuda/attention_spread.cuh"

/* Clusters of each size of a kernel that run at once: the fewest of the devices opened. */
template <class S, bool DRAFTED> struct clusters {
	static int most[SPREAD_MOST + 1];
};
template <class S, bool DRAFTED> int clusters<S, DRAFTED>::most[SPREAD_MOST + 1];

/* A launch of a kernel in clusters. */
struct cluster_launch {
	cudaLaunchConfig_t c;
	cudaLaunchAttribute a[2];
};

template <class S>
static void cluster_config(struct cluster_launch *l, cudaStream_t s, unsigned clusters,
                           unsigned parts)
{
	*l = {};
	l->a[0].id = cudaLaunchAttributeProgrammaticStreamSerialization;
	l->a[0].val.programmaticStreamSerializationAllowed = 1;
	l->a[1].id = cudaLaunchAttributeClusterDimension;
	l->a[1].val.clusterDim.x = parts;
	l->a[1].val.clusterDim.y = l->a[1].val.clusterDim.z = 1;
	l->c.gridDim = dim3(clusters * parts);
	l->c.blockDim = dim3(S::THREADS);
	l->c.dynamicSmemBytes = parts > 1 ? beyond<S>::SMEM : beyond<S>::GATHER;
	l->c.stream = s;
	l->c.attrs = l->a;
	l->c.numAttrs = parts > 1 ? 2 : 1;
}

template <class S, bool DRAFTED>
static int open_spread(const struct cuda_dev *d, struct nx_err *err)
{
	int *most = clusters<S, DRAFTED>::most, before = most[1];
	CU(cudaFuncSetAttribute(spread_kernel<S, DRAFTED>,
	                        cudaFuncAttributeMaxDynamicSharedMemorySize, beyond<S>::SMEM));
	CU(cudaFuncSetAttribute(spread_kernel<S, DRAFTED>,
	                        cudaFuncAttributeNonPortableClusterSizeAllowed, 1));
	for (int i = 1; i <= SPREAD_MOST; i++) {
		struct cluster_launch l;
		int n = d->n_sms * S::AT_ONCE;
		cluster_config<S>(&l, NULL, 1, (unsigned)i);
		if (i > 1 && cudaOccupancyMaxActiveClusters(&n, spread_kernel<S, DRAFTED>, &l.c) !=
		                     cudaSuccess) {
			(void)cudaGetLastError(); /* the device has no such clusters */
			n = 0;
		}
		most[i] = before && most[i] < n ? most[i] : n;
	}
	return 0;
}

template <class S> static int open_runs(struct nx_err *err)
{
	CU(cudaFuncSetAttribute(run_kernel<S, false>, cudaFuncAttributeMaxDynamicSharedMemorySize,
	                        beyond<S>::GATHER));
	CU(cudaFuncSetAttribute(run_kernel<S, true>, cudaFuncAttributeMaxDynamicSharedMemorySize,
	                        beyond<S>::GATHER));
	return 0;
}

/* Tiles, at most: each segment may have one that is not full. */
static inline int64_t tiles_of(const struct attn_args *a, int32_t tile_rows)
{
	if (a->n_rows == a->n_segments)
		return a->n_segments;
	if (a->n_segments == 1)
		return attn_div_up(a->n_rows, tile_rows);
	return a->n_rows / tile_rows + a->n_segments;
}

/* CTAs that share a tile and head: as many as run at once and get a step for each group; 0: not so.
 * Each gets as many, however long its keys are: where items are many and may differ much, runs of equal length over
 * all of them end sooner. */
template <class S, bool DRAFTED>
static int32_t spread_parts(const struct cuda_dev *d, const struct attn_args *a, int64_t items)
{
	const int *most = clusters<S, DRAFTED>::most;
	int32_t parts = 1;
	for (int i = 2; i <= SPREAD_MOST; i++)
		if (items <= most[i] && a->max_keys > S::KEYS * S::G * (i - 1))
			parts = i;
	bool lone = a->n_segments == 1 && items * parts * 2 >= d->n_sms;
	int32_t even = parts > 1 ? 4096 * parts : 2048 / S::AT_ONCE;
	return a->n_rows > ATTN_SPLIT_ROWS || a->n_chunks == 1 || lone || a->max_keys <= even
	               ? parts
	               : 0;
}

/* Without a grid of chunks, in clusters or in runs (R). */
template <class S, class R, bool DRAFTED>
static int spread(struct cuda_dev *d, cudaStream_t s, struct attn_args *a, struct nx_err *err)
{
	int32_t tile_rows = S::ROWS / a->group;
	int64_t items = tiles_of(a, tile_rows) * a->n_kv_heads;
	struct parts parts = {spread_parts<S, DRAFTED>(d, a, items), 0};
	if (!parts.n) {
		int64_t units = items * a->n_chunks, slots = d->n_sms * R::AT_ONCE;
		a->split = true;
		int rc = cu_launch(err, "attention_runs", CU_PDL, run_kernel<R, DRAFTED>,
		                   dim3((unsigned)(units < slots ? units : slots)),
		                   dim3(R::THREADS), beyond<R>::GATHER, s, *a, tile_rows);
		return rc ? rc : attention_merge(d, s, a, err);
	}
	if (parts.n > 1)
		parts.mul = 0xffffffffu / (uint32_t)parts.n + 1;
	struct cluster_launch l;
	cluster_config<S>(&l, s, (unsigned)items, (unsigned)parts.n);
	cudaError_t e = cudaLaunchKernelEx(&l.c, spread_kernel<S, DRAFTED>, *a, tile_rows, parts);
	return e == cudaSuccess ? 0 : cu_fail(err, e, "attention_spread");
}

/* So that x * mul >> shift is x / divisor, for what is divided. */
static inline void set_divisors(struct attn_args *a)
{
	uint32_t block = (uint32_t)a->block_size, shift = 0;
	a->group_mul = 65536 / (uint32_t)a->group + 1;
	while (2u << shift < block)
		shift++;
	a->block_shift = shift;
	a->block_mul = block > 1 ? (uint32_t)(((1ull << (32 + shift)) + block - 1) / block) : 0;
}

static inline bool attn_aligned(const void *p)
{
	return (uintptr_t)p % 16 == 0;
}

#endif
