/* SPDX-License-Identifier: Apache-2.0
 *
 * linear_quant.cu: products by quantized weights: which kernel, products in f32, and products of many rows.
 *
 * With many rows some columns at a time are turned into bf16, in a scratch that the cache holds, and the library
 * multiplies by them. There is never more of a matrix in bf16 than that.
 */
#include <numeric>
#include <stdlib.h>

#include "cuda/linear_quant.cuh"

#define SCRATCH_BYTES                                                                              \
	((size_t)32 << 20) /* columns in bf16, and gates and ups where they are wanted */
#define GATES_BYTES ((size_t)32 << 20)
#define THIN_MAX_K 32768         /* a row of x is kept in shared memory */
#define DEFAULT_LIBRARY_ROWS 129 /* below, reading the codes again for every 32 rows is faster */

int quant_open(struct cuda_dev *d, struct nx_err *err)
{
	if (d->quant_open)
		return 0;
	int rc = quant_open_int8(d, err);
	if (!rc)
		rc = quant_open_int4(d, err);
	if (!rc)
		rc = quant_open_e4m3(d, err);
	if (rc)
		return rc;
	if (d->act == NX_BF16 && library_min_rows(d) < INT32_MAX) {
		CU(cudaMalloc(&d->quant_scratch, SCRATCH_BYTES + GATES_BYTES));
	}
	d->quant_open = true;
	return 0;
}

static struct quant_groups groups_of(const struct quant_view &v)
{
	struct quant_groups g;
	g.n = (uint32_t)v.groups;
	g.group16 = (uint32_t)((v.group + 15) / 16);
	g.per_group = ((1u << 31) + g.group16 - 1) / g.group16;
	return g;
}

/* ---- few rows, bf16 */

/* By the weight's shape alone: x is read half as often, and the blocks' meeting costs half a microsecond. */
static int split_of(const struct cuda_dev *d, const struct quant_view &v)
{
	return v.n_units < d->n_sms * 4 && v.n_blocks >= 64 ? 2 : 1;
}

static int thin(struct cuda_dev *d, cudaStream_t s, const struct nx_linear *a,
                const struct quant_view &v, struct nx_err *err)
{
	struct quant_thin t;
	int64_t y_cols = a->epilogue == NX_EPI_SWIGLU ? v.n / 2 : v.n;
	size_t y_element = a->y_f32 ? sizeof(float) : 2;
	int segments = BLOCK_K / (v.groups > 1 ? std::gcd((int)v.group, BLOCK_K) : BLOCK_K), rc = 0;
	t.codes = v.codes;
	t.params = v.params;
	t.k = (int)v.k;
	t.n_blocks = v.n_blocks;
	t.n_units = v.n_units;
	t.groups = groups_of(v);
	t.split = split_of(d, v);
	t.e.n = v.n;
	t.e.kind = a->epilogue;
	t.e.f32 = a->y_f32;
	for (int64_t r = 0; r < a->m && !rc;) {
		int rows = 0;
		t.m = (int)(a->m - r);
		t.x = (const __nv_bfloat16 *)a->x + r * v.k;
		t.e.y = (uint8_t *)a->y + (size_t)(r * y_cols) * y_element;
		rc = v.f.code == NX_WEIGHT_CODE_INT8
		             ? quant_thin_int8(d, s, t, v.f.zero, segments, &rows, err)
		     : v.f.code == NX_WEIGHT_CODE_INT4
		             ? quant_thin_int4(d, s, t, v.f.zero, segments, &rows, err)
		             : quant_thin_e4m3(d, s, t, v.f.zero, segments, &rows, err);
		if (!rc && !rows)
			return nx_fail(err, NX_ENOTSUP,
			               "a row of %lld inputs is too long for this kernel",
			               (long long)v.k);
		r += rows;
	}
	return rc;
}

/* ---- any types and shapes: as linear_plain.cu. Lanes take inputs 32 apart in order, so a sum's order depends on k alone. */

#define PLAIN_TILE 8
#define PLAIN_ROWS 262144

template <typename A>
static __global__ void __launch_bounds__(128)
	quant_plain_kernel(struct quant_view v, const A *x, struct epilogue e, int m)
{
	pdl_trigger();
	pdl_wait();
	int lane = threadIdx.x % 32;
	int64_t col = 2 * ((int64_t)blockIdx.x * 4 + threadIdx.x / 32);
	int r0 = blockIdx.y * PLAIN_TILE, rows = m - r0 < PLAIN_TILE ? m - r0 : PLAIN_TILE;
	if (col >= e.n)
		return;
	int64_t other = col + 1 < e.n ? col + 1 : col;
	const A *xr = x + r0 * v.k;
	float sum[PLAIN_TILE][2] = {};
	for (int64_t i = lane; i < v.k; i += 32) {
		float a = quant_value(v, col, i), b = quant_value(v, other, i);
#pragma unroll
		for (int r = 0; r < PLAIN_TILE; r++) {
			float at = r < rows ? to_f32(xr[r * v.k + i]) : 0.0f;
			sum[r][0] = fmaf(a, at, sum[r][0]);
			sum[r][1] = fmaf(b, at, sum[r][1]);
		}
	}
#pragma unroll
	for (int r = 0; r < PLAIN_TILE; r++)
#pragma unroll
		for (int c = 0; c < 2; c++)
#pragma unroll
			for (int step = 16; step > 0; step /= 2)
				sum[r][c] += __shfl_xor_sync(0xffffffffu, sum[r][c], step);
#pragma unroll
	for (int r = 0; r < PLAIN_TILE; r++)
		if (lane == r && r < rows)
			epilogue_pair<A>(e, r0 + r, col, sum[r][0], sum[r][1]);
}

template <typename A>
static int plain(cudaStream_t s, const struct nx_linear *a, const struct quant_view &v,
                 struct nx_err *err)
{
	int64_t y_cols = a->epilogue == NX_EPI_SWIGLU ? v.n / 2 : v.n;
	size_t y_element = a->y_f32 ? sizeof(float) : sizeof(A);
	int rc = 0;
	for (int64_t r = 0; r < a->m && !rc; r += PLAIN_ROWS) {
		int m = (int)(a->m - r < PLAIN_ROWS ? a->m - r : PLAIN_ROWS);
		struct epilogue e = {(uint8_t *)a->y + (size_t)(r * y_cols) * y_element, v.n,
		                     a->epilogue, a->y_f32};
		dim3 grid((unsigned)((v.n + 7) / 8), (unsigned)((m + PLAIN_TILE - 1) / PLAIN_TILE));
		rc = cu_launch(err, "quant_plain_kernel", CU_PDL, quant_plain_kernel<A>, grid,
		               dim3(128), 0, s, v, (const A *)a->x + r * v.k, e, m);
	}
	return rc;
}

/* ---- many rows */

/* What step_of() has to know of a shape. */
template <int CODE_> struct quant_tile {
	static constexpr int CODE = CODE_, TILE = CODE == NX_WEIGHT_CODE_INT4 ? 512 : 1024;
};

static __device__ __forceinline__ uint32_t scaled(uint32_t pair, struct nx_quant_param p)
{
	float lo = fmaf(p.scale, __uint_as_float(pair << 16), p.zero);
	float hi = fmaf(p.scale, __uint_as_float(pair & 0xffff0000u), p.zero);
	__nv_bfloat162 two = __floats2bfloat162_rn(lo, hi);
	uint32_t bits;
	memcpy(&bits, &two, sizeof(bits));
	return bits;
}

/* Units [unit, ..) as rows of bf16, as long as whole blocks. A tile a warp. */
template <int CODE>
static __global__ void __launch_bounds__(256)
	to_bf16_kernel(struct quant_view v, struct quant_groups groups, __nv_bfloat16 *to,
                       int64_t unit, int n_tiles)
{
	using P = quant_tile<CODE>;
	const struct quant_magic magic = quant_magic_numbers();
	pdl_trigger();
	pdl_wait();
	int lane = threadIdx.x % 32;
	int64_t k_pad = (int64_t)v.n_blocks * BLOCK_K;
	for (int i = (int)blockIdx.x * 8 + threadIdx.x / 32; i < n_tiles; i += (int)gridDim.x * 8) {
		int u = i / v.n_blocks, block = i % v.n_blocks;
		const uint4 *tile = (const uint4 *)(v.codes + (unit * v.n_blocks + i) * P::TILE);
		struct quant_words<P> words;
#pragma unroll
		for (int piece = 0; piece < P::TILE / 512; piece++)
			words.w[piece] = __ldcs(tile + piece * 32 + lane);
		uint2 *row = (uint2 *)(to + ((int64_t)u * UNIT_ROWS + lane / 4 * 2) * k_pad +
		                       block * BLOCK_K + lane % 4 * 4);
#pragma unroll
		for (int step = 0; step < STEPS; step++) {
			uint32_t a[4], g = group_at(groups, (uint32_t)(block * 4 + step));
			step_of<P>(a, words, step, magic);
#pragma unroll
			for (int odd = 0; odd < 2; odd++) {
				struct nx_quant_param p = quant_param(
					v, (unit + u) * UNIT_ROWS + lane / 4 * 2 + odd, g);
				if (v.f.zero)
					p.zero += p.scale * (CODE == NX_WEIGHT_CODE_INT4 ? 8 : 128);
				row[(odd * k_pad + step * 16) / 4] =
					make_uint2(scaled(a[odd], p), scaled(a[odd + 2], p));
			}
		}
	}
}

static int to_bf16(const struct cuda_dev *d, cudaStream_t s, const struct quant_view &v,
                   int64_t unit, int64_t n_units, struct nx_err *err)
{
	int64_t tiles = n_units * v.n_blocks, blocks = (tiles + 7) / 8,
		most = 8 * (int64_t)d->n_sms;
	auto kernel = v.f.code == NX_WEIGHT_CODE_INT4   ? to_bf16_kernel<NX_WEIGHT_CODE_INT4>
	              : v.f.code == NX_WEIGHT_CODE_INT8 ? to_bf16_kernel<NX_WEIGHT_CODE_INT8>
	                                                : to_bf16_kernel<NX_WEIGHT_CODE_E4M3>;
	return cu_launch(err, "to_bf16_kernel", CU_PDL, kernel,
	                 dim3((unsigned)(blocks < most ? blocks : most)), dim3(256), 0, s, v,
	                 groups_of(v), (__nv_bfloat16 *)d->quant_scratch, unit, (int)tiles);
}

/* Rows of gates and ups [m, n] to columns [0, n / 2) of y, which has y_cols. */
template <typename Y>
static __global__ void __launch_bounds__(256)
	columns_swiglu(Y *y, const __nv_bfloat16 *gates, int n, int64_t y_cols)
{
	pdl_trigger();
	pdl_wait();
	const __nv_bfloat16 *from = gates + (int64_t)blockIdx.x * n;
	Y *to = y + (int64_t)blockIdx.x * y_cols;
	for (int i = threadIdx.x; i < n / 2; i += 256) {
		__nv_bfloat162 both = *(const __nv_bfloat162 *)(from + 2 * i);
		to[i] = from_f32<Y>(silu(__low2float(both)) * __high2float(both));
	}
}

/* All rows of x by rows [row, row + n) of W, which lie in the scratch. False: the library cannot. */
static bool columns(struct cuda_dev *d, cudaStream_t s, const struct nx_linear *a,
                    const struct quant_view &v, int64_t row, int64_t n, int *rc, struct nx_err *err)
{
	struct library_part p = {};
	bool pairs = a->epilogue == NX_EPI_SWIGLU;
	size_t y_element = a->y_f32 ? sizeof(float) : 2;
	int64_t most = pairs ? (int64_t)(GATES_BYTES / 2) / n : a->m;
	__nv_bfloat16 *gates = (__nv_bfloat16 *)((uint8_t *)d->quant_scratch + SCRATCH_BYTES);
	p.w = d->quant_scratch;
	p.n = n;
	p.k = v.k;
	p.k_pad = (int64_t)v.n_blocks * BLOCK_K;
	p.y_cols = pairs ? n : v.n;
	p.f32 = a->y_f32 && !pairs;
	p.add = a->epilogue == NX_EPI_ADD;
	for (int64_t r = 0; r < a->m && !*rc; r += most) {
		int64_t at = pairs ? r * (v.n / 2) + row / 2 : r * v.n + row;
		uint8_t *y = (uint8_t *)a->y + (size_t)at * y_element;
		p.m = (int32_t)(a->m - r < most ? a->m - r : most);
		p.x = (const __nv_bfloat16 *)a->x + r * v.k;
		p.y = pairs ? (uint8_t *)gates : y;
		if (!library_part(d, s, &p)) {
			if (row == 0 && r == 0)
				return false;
			*rc = nx_fail(err, NX_EENV, "cuda: %s refused some columns of a product",
			              linear_library(d));
			break;
		}
		if (!pairs)
			continue;
		dim3 grid((unsigned)p.m);
		*rc = a->y_f32
		              ? cu_launch(err, "columns_swiglu", CU_PDL, columns_swiglu<float>,
		                          grid, dim3(256), 0, s, (float *)y, gates, (int)n, v.n / 2)
		              : cu_launch(err, "columns_swiglu", CU_PDL,
		                          columns_swiglu<__nv_bfloat16>, grid, dim3(256), 0, s,
		                          (__nv_bfloat16 *)y, gates, (int)n, v.n / 2);
	}
	return true;
}

/* Shares of columns are of one size but for the last, so that there are at most two plans a product. */
static bool many_rows(struct cuda_dev *d, cudaStream_t s, const struct nx_linear *a,
                      const struct quant_view &v, int *rc, struct nx_err *err)
{
	size_t unit_bytes = (size_t)v.n_blocks * BLOCK_K * UNIT_ROWS * 2;
	int64_t most = (int64_t)(SCRATCH_BYTES / unit_bytes) / 8 * 8;
	if (most < 1)
		return false;
	int64_t parts = (v.n_units + most - 1) / most;
	int64_t each = ((v.n_units + parts - 1) / parts + 7) / 8 * 8;
	for (int64_t unit = 0; unit < v.n_units && !*rc; unit += each) {
		int64_t n_units = v.n_units - unit < each ? v.n_units - unit : each;
		int64_t row = unit * UNIT_ROWS, n = v.n - row;
		n = n < n_units * UNIT_ROWS ? n : n_units * UNIT_ROWS;
		*rc = to_bf16(d, s, v, unit, n_units, err);
		if (!*rc && !columns(d, s, a, v, row, n, rc, err))
			return false;
	}
	return true;
}

static int32_t library_rows(const struct cuda_dev *d)
{
	int32_t least = library_min_rows(d);
	return getenv("NEXUS_LIBRARY_ROWS") || least > DEFAULT_LIBRARY_ROWS ? least
	                                                                    : DEFAULT_LIBRARY_ROWS;
}

int quant_linear(struct cuda_dev *d, cudaStream_t s, const struct nx_linear *a, struct nx_err *err)
{
	struct quant_view v = quant_view_of(a->w);
	int rc = 0;
	if (d->act != NX_BF16)
		return plain<float>(s, a, v, err);
	if (d->quant_scratch && a->m >= library_rows(d) && many_rows(d, s, a, v, &rc, err))
		return rc;
	if (rc)
		return rc;
	return v.k % 8 || v.k > THIN_MAX_K || (uintptr_t)a->x % 16
	               ? plain<__nv_bfloat16>(s, a, v, err)
	               : thin(d, s, a, v, err);
}
