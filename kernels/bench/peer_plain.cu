/* SPDX-License-Identifier: Apache-2.0
 *
 * peer_plain.cu: an example of a peer (peer.h): attention as one would first write it, a block for each row and head.
 *
 * No rate to be proud of, but it shares no line with ours: "differs by" beside it says that both compute the same.
 */
#include <cuda_bf16.h>
#include <cuda_runtime.h>
#include <math.h>
#include <stdlib.h>

#include "bench/peer.h"

enum { WARPS = 8, D = 128, MOST_PROMPT = 2048 };

struct plain {
	struct nx_peer_attention a;
	int32_t n_operands;
	bool causal;
};

static __device__ __forceinline__ float4 load4(const __nv_bfloat16 *p)
{
	uint2 v = *(const uint2 *)p;
	float2 x = __bfloat1622float2(*(__nv_bfloat162 *)&v.x),
	       y = __bfloat1622float2(*(__nv_bfloat162 *)&v.y);
	return make_float4(x.x, x.y, y.x, y.y);
}

static __device__ __forceinline__ float dot4(float4 a, float4 b)
{
	return a.x * b.x + a.y * b.y + a.z * b.z + a.w * b.w;
}

/* A warp takes every WARPS-th key, a lane four dimensions; the warps' partial results are put together at the end. */
static __global__ void __launch_bounds__(32 * WARPS)
	attend(struct nx_peer_attention a, const __nv_bfloat16 *k, const __nv_bfloat16 *v, int rows,
               bool causal)
{
	__shared__ float4 sums[WARPS][32];
	__shared__ float maxima[WARPS], totals[WARPS];
	int row = blockIdx.x, head = blockIdx.y, seq = row / rows, lane = threadIdx.x % 32,
	    warp = threadIdx.x / 32;
	int keys = causal ? row % rows + 1 : a.keys,
	    at = head / (a.n_heads / a.n_kv_heads) * D + lane * 4;
	const int32_t *table = a.table + (int64_t)seq * a.table_stride;
	float4 q = load4((const __nv_bfloat16 *)a.q + row * a.q_stride + head * D + lane * 4);
	float4 sum = make_float4(0, 0, 0, 0);
	float top = -INFINITY, total = 0;
	for (int j = warp; j < keys; j += WARPS) {
		int64_t r = table[j / a.block_size] + j % a.block_size;
		int64_t offset = r * a.n_kv_heads * D + at;
		float s = dot4(q, load4(k + offset));
		float4 x = load4(v + offset);
		for (int o = 16; o; o /= 2)
			s += __shfl_xor_sync(~0u, s, o);
		s *= a.scale;
		float more = fmaxf(top, s), old = expf(top - more), p = expf(s - more);
		top = more;
		total = total * old + p;
		sum = make_float4(sum.x * old + p * x.x, sum.y * old + p * x.y,
		                  sum.z * old + p * x.z, sum.w * old + p * x.w);
	}
	sums[warp][lane] = sum;
	maxima[warp] = top;
	totals[warp] = total;
	__syncthreads();
	if (warp)
		return;
	for (int w = 1; w < WARPS; w++)
		top = fmaxf(top, maxima[w]);
	sum = make_float4(0, 0, 0, 0);
	total = 0;
	for (int w = 0; w < WARPS; w++) {
		float f = expf(maxima[w] - top); /* 0 of a warp that had no key */
		float4 x = sums[w][lane];
		total += totals[w] * f;
		sum = make_float4(sum.x + f * x.x, sum.y + f * x.y, sum.z + f * x.z,
		                  sum.w + f * x.w);
	}
	__nv_bfloat162 *out = (__nv_bfloat162 *)((__nv_bfloat16 *)a.out +
	                                         ((int64_t)row * a.n_heads + head) * D + lane * 4);
	out[0] = __floats2bfloat162_rn(sum.x / total, sum.y / total);
	out[1] = __floats2bfloat162_rn(sum.z / total, sum.w / total);
}

static int init(void **self, const struct nx_peer_shape *s, struct nx_err *err)
{
	if (s->attention.head_dim != D)
		return nx_fail(err, NX_ENOTSUP, "heads of %d, not of %d", D, s->attention.head_dim);
	if (s->work == NX_PEER_PREFILL && s->attention.keys > MOST_PROMPT)
		return nx_fail(err, NX_ENOTSUP, "prompts up to %d: longer ones take too long",
		               MOST_PROMPT);
	struct plain *p = (struct plain *)calloc(1, sizeof(*p));
	if (!p)
		return nx_fail(err, NX_ENOMEM, "no memory for a peer");
	p->a = s->attention;
	p->n_operands = s->n_operands;
	p->causal = s->work == NX_PEER_PREFILL;
	*self = p;
	return 0;
}

static int run(void *self, int32_t i, void *stream, struct nx_err *err)
{
	const struct plain *p = (const struct plain *)self;
	int rows = p->causal ? p->a.keys : 1;
	dim3 grid((unsigned)(p->a.batch * rows), (unsigned)p->a.n_heads);
	attend<<<grid, 32 * WARPS, 0, (cudaStream_t)stream>>>(
		p->a, (const __nv_bfloat16 *)p->a.k[i % p->n_operands],
		(const __nv_bfloat16 *)p->a.v[i % p->n_operands], rows, p->causal);
	cudaError_t e = cudaGetLastError();
	return e ? nx_fail(err, NX_EENV, "attend: %s", cudaGetErrorString(e)) : 0;
}

static void done(void *self)
{
	free(self);
}

static const struct nx_peer peer = {
	NX_PEER_ABI, sizeof(struct nx_peer),
	"plain",     1u << NX_PEER_DECODE | 1u << NX_PEER_PREFILL,
	init,        run,
	done,
};

extern "C" __attribute__((visibility("default"))) const struct nx_peer *nx_peer(void);

const struct nx_peer *nx_peer(void)
{
	return &peer;
}
