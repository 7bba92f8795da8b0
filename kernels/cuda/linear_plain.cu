/* SPDX-License-Identifier: Apache-2.0
 *
 * linear_plain.cu: products of any types and shapes: f32, for exactness runs, and what linear_thin.cu leaves over.
 *
 * A warp makes two columns of y for up to 8 rows of x. Lanes take inputs 32 apart in order and are added pairwise, so
 * a sum's order depends on k alone.
 */
#include "cuda/linear.cuh"

#define WARPS 4
#define TILE 8

template <typename W, typename A>
static __global__ void __launch_bounds__(WARPS * 32)
	plain_kernel(const W *w, const A *x, struct epilogue e, int64_t k, int64_t k_pad, int m)
{
	pdl_trigger();
	pdl_wait();
	int lane = threadIdx.x % 32;
	int64_t col = 2 * ((int64_t)blockIdx.x * WARPS + threadIdx.x / 32);
	int r0 = blockIdx.y * TILE, rows = m - r0 < TILE ? m - r0 : TILE;
	if (col >= e.n)
		return;
	const W *w0 = w + col * k_pad, *w1 = col + 1 < e.n ? w0 + k_pad : w0;
	const A *xr = x + r0 * k;
	float sum[TILE][2] = {};
	for (int64_t i = lane; i < k; i += 32) {
		float a = to_f32(w0[i]), b = to_f32(w1[i]);
#pragma unroll
		for (int r = 0; r < TILE; r++) {
			float v = r < rows ? to_f32(xr[r * k + i]) : 0.0f;
			sum[r][0] = fmaf(a, v, sum[r][0]);
			sum[r][1] = fmaf(b, v, sum[r][1]);
		}
	}
#pragma unroll
	for (int r = 0; r < TILE; r++)
#pragma unroll
		for (int c = 0; c < 2; c++)
#pragma unroll
			for (int step = 16; step > 0; step /= 2)
				sum[r][c] += __shfl_xor_sync(0xffffffffu, sum[r][c], step);
#pragma unroll
	for (int r = 0; r < TILE; r++)
		if (lane == r && r < rows)
			epilogue_pair<A>(e, r0 + r, col, sum[r][0], sum[r][1]);
}

template <typename W, typename A>
static int plain_as(cudaStream_t s, const struct nx_linear *a, struct nx_err *err)
{
	const struct nx_weight *w = a->w;
	struct epilogue e = {a->y, w->n, a->epilogue, a->y_f32};
	dim3 grid((unsigned)((w->n + 2 * WARPS - 1) / (2 * WARPS)),
	          (unsigned)((a->m + TILE - 1) / TILE));
	return cu_launch(err, "plain_kernel", CU_PDL, plain_kernel<W, A>, grid, dim3(WARPS * 32), 0,
	                 s, (const W *)w->data, (const A *)a->x, e, w->k, w->k_pad, (int)a->m);
}

#define PLAIN_ROWS 262144 /* of one launch: the grid's second side has 65535 places */

int plain_linear(struct cuda_dev *d, cudaStream_t s, const struct nx_linear *a, struct nx_err *err)
{
	bool f32_w = a->w->dtype == NX_F32, f32 = d->act == NX_F32;
	size_t x_row = (size_t)a->w->k * nx_dtype_bytes(d->act);
	size_t y_row = (size_t)(a->epilogue == NX_EPI_SWIGLU ? a->w->n / 2 : a->w->n) *
	               (a->y_f32 ? sizeof(float) : nx_dtype_bytes(d->act));
	int rc = 0;
	for (int64_t r = 0; r < a->m && !rc; r += PLAIN_ROWS) {
		struct nx_linear part = *a;
		part.m = (int32_t)(a->m - r < PLAIN_ROWS ? a->m - r : PLAIN_ROWS);
		part.x = (const uint8_t *)a->x + (size_t)r * x_row;
		part.y = (uint8_t *)a->y + (size_t)r * y_row;
		rc = f32_w && f32 ? plain_as<float, float>(s, &part, err)
		     : f32_w      ? plain_as<float, __nv_bfloat16>(s, &part, err)
		     : f32        ? plain_as<__nv_bfloat16, float>(s, &part, err)
		                  : plain_as<__nv_bfloat16, __nv_bfloat16>(s, &part, err);
	}
	return rc;
}
