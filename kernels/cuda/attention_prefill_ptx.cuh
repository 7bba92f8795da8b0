/* SPDX-License-Identifier: Apache-2.0
 *
 * attention_prefill_ptx.cuh: Hopper's instructions that attention_prefill.cu is made of, one function each.
 */
#ifndef NX_CUDA_ATTENTION_PREFILL_PTX_CUH
#define NX_CUDA_ATTENTION_PREFILL_PTX_CUH

#include <cuda.h>
#include <cuda_bf16.h>
#include <stdint.h>

#ifdef __CUDACC__
#define DEV static __device__ __forceinline__

DEV uint32_t smem_addr(const void *p)
{
	return (uint32_t)__cvta_generic_to_shared(p);
}

/* ---- barriers in shared memory: phase 0 is awaited first */

DEV void bar_init(uint32_t bar, uint32_t count)
{
	asm volatile("mbarrier.init.shared::cta.b64 [%0], %1;" ::"r"(bar), "r"(count) : "memory");
}

DEV void bar_arrive(uint32_t bar)
{
	asm volatile("mbarrier.arrive.shared::cta.b64 _, [%0];" ::"r"(bar) : "memory");
}

/* Arrives, and the phase waits for `bytes` more by TMA. */
DEV void bar_expect(uint32_t bar, uint32_t bytes)
{
	asm volatile("mbarrier.arrive.expect_tx.shared::cta.b64 _, [%0], %1;" ::"r"(bar), "r"(bytes)
	             : "memory");
}

/* Arrives when all earlier cp.async of this thread have landed. */
DEV void bar_arrive_copies(uint32_t bar)
{
	asm volatile("cp.async.mbarrier.arrive.noinc.shared::cta.b64 [%0];" ::"r"(bar) : "memory");
}

DEV void bar_wait(uint32_t bar, uint32_t phase)
{
	asm volatile("{\n\t"
	             ".reg .pred p;\n\t"
	             "again:\n\t"
	             "mbarrier.try_wait.parity.shared::cta.b64 p, [%0], %1;\n\t"
	             "@p bra done;\n\t"
	             "bra again;\n\t"
	             "done:\n\t"
	             "}" ::"r"(bar),
	             "r"(phase)
	             : "memory");
}

/* Named barriers, of `threads` threads: sync waits, arrive does not. 0 is __syncthreads's. */
DEV void named_sync(int id, int threads)
{
	asm volatile("bar.sync %0, %1;" ::"r"(id), "r"(threads) : "memory");
}

DEV void named_arrive(int id, int threads)
{
	asm volatile("bar.arrive %0, %1;" ::"r"(id), "r"(threads) : "memory");
}

/* ---- copies */

/* A box of the tensor, at (column, row) in elements, to shared memory. */
DEV void tma_load_2d(uint32_t to, const CUtensorMap *map, int32_t column, int32_t row, uint32_t bar)
{
	asm volatile("cp.async.bulk.tensor.2d.shared::cluster.global.mbarrier::complete_tx::bytes "
	             "[%0], [%1, {%2, %3}], [%4];" ::"r"(to),
	             "l"(map), "r"(column), "r"(row), "r"(bar)
	             : "memory");
}

/* The same, of a tensor of four dimensions whose last two begin at 0. */
DEV void tma_load(uint32_t to, const CUtensorMap *map, int32_t column, int32_t row, uint32_t bar)
{
	asm volatile("cp.async.bulk.tensor.4d.shared::cluster.global.mbarrier::complete_tx::bytes "
	             "[%0], [%1, {%2, %3, %4, %4}], [%5];" ::"r"(to),
	             "l"(map), "r"(column), "r"(row), "r"(0), "r"(bar)
	             : "memory");
}

/* 16 bytes; zeroes instead where `bytes` is 0. */
DEV void copy_16(uint32_t to, const void *from, uint32_t bytes)
{
	asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(to), "l"(from),
	             "r"(bytes)
	             : "memory");
}

/* What was written by stores or cp.async may be read by TMA and wgmma. */
DEV void fence_async(void)
{
	asm volatile("fence.proxy.async.shared::cta;" ::: "memory");
}

template <int N> DEV void more_registers(void)
{
	asm volatile("setmaxnreg.inc.sync.aligned.u32 %0;" ::"n"(N));
}

template <int N> DEV void fewer_registers(void)
{
	asm volatile("setmaxnreg.dec.sync.aligned.u32 %0;" ::"n"(N));
}

/* ---- wgmma: 64 rows by N, of a warpgroup; 16 deep */

DEV void mma_fence(void)
{
	asm volatile("wgmma.fence.sync.aligned;" ::: "memory");
}

DEV void mma_commit(void)
{
	asm volatile("wgmma.commit_group.sync.aligned;" ::: "memory");
}

template <int PENDING> DEV void mma_wait(void)
{
	asm volatile("wgmma.wait_group.sync.aligned %0;" ::"n"(PENDING) : "memory");
}

/* Reads and writes of x do not move over this line. */
template <int N> DEV void pin(float (&x)[N])
{
#pragma unroll
	for (int i = 0; i < N; i++)
		asm volatile("" : "+f"(x[i])::"memory");
}

/* Descriptor of an operand in shared memory: eight rows of 128 bytes whose 16-byte pieces are swizzled by the
 * row's number mod 8, then, `next` bytes on, the next eight. `lead`: bytes between runs of 64 columns where the columns
 * are not the depth. Adding n moves it by 16 n bytes. */
DEV uint64_t mma_operand(uint32_t at, uint32_t lead, uint32_t next)
{
	return (uint64_t)(at >> 4 & 0x3fff) | (uint64_t)(lead >> 4) << 16 |
	       (uint64_t)(next >> 4) << 32 | (uint64_t)1 << 62;
}

#define MMA_8(d, i)                                                                                \
	"+f"(d[i]), "+f"(d[i + 1]), "+f"(d[i + 2]), "+f"(d[i + 3]), "+f"(d[i + 4]),                \
		"+f"(d[i + 5]), "+f"(d[i + 6]), "+f"(d[i + 7])
#define MMA_32(d, i) MMA_8(d, i), MMA_8(d, i + 8), MMA_8(d, i + 16), MMA_8(d, i + 24)
#define MMA_REGS_32                                                                                \
	"{%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15, "                  \
	"%16, %17, %18, %19, %20, %21, %22, %23, %24, %25, %26, %27, %28, %29, %30, %31}"
#define MMA_REGS_64                                                                                \
	"{%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15, "                  \
	"%16, %17, %18, %19, %20, %21, %22, %23, %24, %25, %26, %27, %28, %29, %30, %31, "         \
	"%32, %33, %34, %35, %36, %37, %38, %39, %40, %41, %42, %43, %44, %45, %46, %47, "         \
	"%48, %49, %50, %51, %52, %53, %54, %55, %56, %57, %58, %59, %60, %61, %62, %63}"

/* d (+)= A B^T: both in shared memory, rows of the depth; `add` is a constant after unrolling. */
DEV void mma_scores(float (&d)[64], uint64_t a, uint64_t b, int add)
{
	asm volatile("{\n\t.reg .pred p;\n\tsetp.ne.b32 p, %66, 0;\n\t"
	             "wgmma.mma_async.sync.aligned.m64n128k16.f32.bf16.bf16 " MMA_REGS_64
	             ", %64, %65, p, 1, 1, 0, 0;\n\t}"
	             : MMA_32(d, 0), MMA_32(d, 32)
	             : "l"(a), "l"(b), "r"(add)
	             : "memory");
}

/* d += A B: A in registers; B in shared memory, a row for each of the depth. */
DEV void mma_output(float (&d)[64], const uint32_t *a, uint64_t b)
{
	asm volatile("wgmma.mma_async.sync.aligned.m64n128k16.f32.bf16.bf16 " MMA_REGS_64
	             ", {%64, %65, %66, %67}, %68, 1, 1, 1, 1;"
	             : MMA_32(d, 0), MMA_32(d, 32)
	             : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "l"(b)
	             : "memory");
}

DEV void mma_output(float (&d)[32], const uint32_t *a, uint64_t b)
{
	asm volatile("wgmma.mma_async.sync.aligned.m64n64k16.f32.bf16.bf16 " MMA_REGS_32
	             ", {%32, %33, %34, %35}, %36, 1, 1, 1, 1;"
	             : MMA_32(d, 0)
	             : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "l"(b)
	             : "memory");
}

/* ---- numbers */

/* 2^x to 2 ulp of f32: P is rounded to bf16 after it. */
DEV float exp2_fast(float x)
{
	float y;
	asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
	return y;
}

DEV uint32_t pack_bf16(float low, float high)
{
	uint32_t y;
	asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(y) : "f"(high), "f"(low));
	return y;
}
#endif
#endif
