/* SPDX-License-Identifier: Apache-2.0
 *
 * linear_ptx.cuh: instructions that linear_thin.cu is made of.
 */
#ifndef NX_CUDA_LINEAR_PTX_CUH
#define NX_CUDA_LINEAR_PTX_CUH

#include <stdint.h>

static __device__ __forceinline__ uint32_t smem_of(const void *p)
{
	return (uint32_t)__cvta_generic_to_shared(p);
}

/* The L2 may drop first what comes this way: nobody reads it again, and there is room for what is. */
static __device__ __forceinline__ uint64_t read_once(void)
{
	uint64_t policy;
	asm volatile("createpolicy.fractional.L2::evict_first.b64 %0, 1.0;" : "=l"(policy));
	return policy;
}

/* 16 bytes, or zeros. */
static __device__ __forceinline__ void copy_piece(uint32_t dst, const void *src, bool there)
{
	asm volatile("cp.async.cg.shared.global.L2::128B [%0], [%1], 16, %2;" ::"r"(dst), "l"(src),
	             "r"(there ? 16 : 0)
	             : "memory");
}

static __device__ __forceinline__ void copy_once(uint32_t dst, const void *src, bool there,
                                                 uint64_t once)
{
	asm volatile(
		"cp.async.cg.shared.global.L2::cache_hint.L2::128B [%0], [%1], 16, %2, %3;" ::"r"(
			dst),
		"l"(src), "r"(there ? 16 : 0), "l"(once)
		: "memory");
}

static __device__ __forceinline__ void copy_commit(void)
{
	asm volatile("cp.async.commit_group;" ::: "memory");
}

template <int PENDING> static __device__ __forceinline__ void copy_wait(void)
{
	asm volatile("cp.async.wait_group %0;" ::"n"(PENDING) : "memory");
}

static __device__ __forceinline__ uint4 smem_read(uint32_t at)
{
	uint4 v;
	asm volatile("ld.shared.v4.b32 {%0, %1, %2, %3}, [%4];"
	             : "=r"(v.x), "=r"(v.y), "=r"(v.z), "=r"(v.w)
	             : "r"(at)
	             : "memory");
	return v;
}

static __device__ __forceinline__ void mma(float (&c)[4], uint32_t a0, uint32_t a1, uint32_t a2,
                                           uint32_t a3, uint32_t b0, uint32_t b1)
{
	asm volatile("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0, %1, %2, %3}, "
	             "{%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};"
	             : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
	             : "r"(a0), "r"(a1), "r"(a2), "r"(a3), "r"(b0), "r"(b1));
}

/* All threads of the cluster meet, and see what was written to shared memory. */
static __device__ __forceinline__ void cluster_sync(void)
{
	asm volatile("barrier.cluster.arrive.release.aligned;\n"
	             "barrier.cluster.wait.acquire.aligned;" ::
	                     : "memory");
}

/* Out of another block's shared memory: what lies there where `at` lies here. */
static __device__ __forceinline__ float2 cluster_read(uint32_t at, int rank)
{
	float2 v;
	asm volatile("{\n"
	             ".reg .u32 there;\n"
	             "mapa.shared::cluster.u32 there, %2, %3;\n"
	             "ld.shared::cluster.v2.f32 {%0, %1}, [there];\n"
	             "}\n"
	             : "=f"(v.x), "=f"(v.y)
	             : "r"(at), "r"(rank)
	             : "memory");
	return v;
}

#endif
