/* SPDX-License-Identifier: Apache-2.0
 *
 * weight_quant.cu: quantized matrices on the device: codes from rows, from keys or from a file's codes, and rows out of
 * them. There is no other form of a matrix beside its codes.
 */
#include <stdlib.h>
#include <string.h>

#include "cuda/weight_quant.cuh"

#define STAGE_BYTES ((size_t)8 << 20) /* a piece of rows; more where 16 rows want more */
#define PACK_THREADS 256
#define MAX_K ((int64_t)1 << 19) /* the products' kernel counts groups in 32 bits */

/* ---- sizes */

static int64_t group_of(const struct nx_weight_quant *f, int64_t k)
{
	return f->group_size && f->group_size < k ? f->group_size : k;
}

static uint64_t code_bytes(const struct nx_weight_quant *f, int64_t n, int64_t k)
{
	return (uint64_t)(quant_units(n) * quant_blocks(k)) *
	       (uint64_t)(UNIT_ROWS * BLOCK_K * nx_weight_bits(f->code) / 8);
}

uint64_t quant_forecast(const struct nx_weight_desc *desc)
{
	const struct nx_weight_quant *f = &desc->quant;
	return code_bytes(f, desc->n, desc->k) +
	       (uint64_t)(quant_units(desc->n) * nx_weight_groups(f, desc->k)) * UNIT_ROWS *
	               (uint64_t)nx_weight_param_bytes(f);
}

uint64_t quant_row_bytes(const struct nx_weight *w)
{
	return nx_weight_quant_bytes(&w->quant, 1, w->k);
}

struct quant_view quant_view_of(const struct nx_weight *w)
{
	struct quant_view v;
	v.codes = (const uint8_t *)w->data;
	v.params = v.codes + code_bytes(&w->quant, w->n, w->k);
	v.n = w->n;
	v.k = w->k;
	v.groups = nx_weight_groups(&w->quant, w->k);
	v.n_units = (int)quant_units(w->n);
	v.n_blocks = (int)quant_blocks(w->k);
	v.tile_bytes = UNIT_ROWS * BLOCK_K * nx_weight_bits(w->quant.code) / 8;
	v.param_bytes = nx_weight_param_bytes(&w->quant);
	v.group = group_of(&w->quant, w->k);
	v.f = w->quant;
	return v;
}

/* ---- codes: a unit of 16 rows a thread block. Rows are counted from the piece's first, which begins a unit. */

struct from_rows {
	const float *rows;
	int64_t k;
	__device__ float value(int64_t row, int64_t i) const
	{
		return rows[row * k + i];
	}
};

struct from_keys {
	const uint64_t *keys;
	float scale;
	__device__ float value(int64_t row, int64_t i) const
	{
		return nx_random_element(keys[row], (uint32_t)i, scale);
	}
};

static __device__ __forceinline__ void put_param(const struct quant_view &v, int64_t unit, int row,
                                                 int64_t group, struct nx_quant_param p)
{
	uint8_t *at =
		(uint8_t *)v.params + ((unit * v.groups + group) * UNIT_ROWS + row) * v.param_bytes;
	if (v.f.code == NX_WEIGHT_CODE_E4M3) {
		*(float *)at = p.scale;
	} else {
		((uint16_t *)at)[0] = nx_half_code(p.scale);
		if (v.f.zero)
			((uint16_t *)at)[1] = nx_half_code(p.zero);
	}
}

template <typename CODE>
static __device__ __forceinline__ void put_words(const struct quant_view &v, int64_t unit,
                                                 const CODE &code)
{
	int words = v.tile_bytes / 4, per = v.f.code == NX_WEIGHT_CODE_INT4 ? 8 : 4;
	uint32_t *to = (uint32_t *)(v.codes + unit * v.n_blocks * v.tile_bytes);
	for (int64_t i = threadIdx.x; i < (int64_t)v.n_blocks * words; i += PACK_THREADS) {
		int64_t block = i / words;
		uint32_t word = 0;
		for (int e = 0; e < per; e++) {
			int row, at;
			quant_element_of(v.f.code, (int)(i % words), e, &row, &at);
			struct quant_place p = quant_place_of(v.f.code, row, at);
			word |= quant_put(v.f.code, p, code(row, block * BLOCK_K + at));
		}
		to[i] = word;
	}
}

/* The group's params by a warp: the ends of its values are all that nx_weight_param() wants. */
template <typename FROM>
static __device__ __forceinline__ struct nx_quant_param group_param(const struct quant_view &v,
                                                                    const FROM &from, int64_t row,
                                                                    int64_t first, int64_t n)
{
	float ends[2] = {INFINITY, -INFINITY};
	bool nan = false;
	for (int64_t i = threadIdx.x % 32; i < n; i += 32) {
		float x = from.value(row, first + i);
		nan = nan || x != x;
		ends[0] = fminf(ends[0], x);
		ends[1] = fmaxf(ends[1], x);
	}
#pragma unroll
	for (int step = 16; step > 0; step /= 2) {
		ends[0] = fminf(ends[0], __shfl_xor_sync(0xffffffffu, ends[0], step));
		ends[1] = fmaxf(ends[1], __shfl_xor_sync(0xffffffffu, ends[1], step));
	}
	if (__any_sync(0xffffffffu, nan))
		ends[0] = nx_float_of(0x7fc00000u);
	return nx_weight_param(&v.f, ends, 2);
}

template <typename FROM>
static __global__ void __launch_bounds__(PACK_THREADS)
	make_codes(struct quant_view v, FROM from, int64_t first_unit, int64_t n_rows)
{
	int64_t unit = first_unit + blockIdx.x, row0 = (int64_t)blockIdx.x * UNIT_ROWS;
	for (int64_t i = threadIdx.x / 32; i < UNIT_ROWS * v.groups; i += PACK_THREADS / 32) {
		int64_t g = i / UNIT_ROWS, row = row0 + i % UNIT_ROWS, first = g * v.group;
		int64_t n = v.k - first < v.group ? v.k - first : v.group;
		struct nx_quant_param p = {0, 0};
		if (row < n_rows)
			p = group_param(v, from, row, first, n);
		if (threadIdx.x % 32 == 0)
			put_param(v, unit, (int)(i % UNIT_ROWS), g, p);
	}
	__syncthreads();
	put_words(v, unit, [&](int row, int64_t i) -> uint32_t {
		if (row0 + row >= n_rows || i >= v.k)
			return 0;
		struct nx_quant_param p = quant_param(v, unit * UNIT_ROWS + row, i / v.group);
		return nx_weight_code(&v.f, p, from.value(row0 + row, i));
	});
}

/* E4M3's NaN has no place in the products' conversion: it makes its group's scale NaN, as a NaN in rows does. */
static __global__ void __launch_bounds__(PACK_THREADS)
	take_codes(struct quant_view v, const uint8_t *codes, const struct nx_quant_param *params,
                   int64_t first_unit, int64_t n_rows)
{
	int64_t unit = first_unit + blockIdx.x, row0 = (int64_t)blockIdx.x * UNIT_ROWS;
	uint8_t most = v.f.code == NX_WEIGHT_CODE_INT4 ? 15 : 255;
	for (int64_t i = threadIdx.x; i < UNIT_ROWS * v.groups; i += PACK_THREADS) {
		int64_t g = i / UNIT_ROWS, row = row0 + i % UNIT_ROWS;
		struct nx_quant_param p = {0, 0};
		if (row < n_rows)
			p = params[row * v.groups + g];
		if (v.f.code == NX_WEIGHT_CODE_E4M3 && row < n_rows)
			for (int64_t c = g * v.group; c < (g + 1) * v.group && c < v.k; c++)
				if ((codes[row * v.k + c] & 0x7f) == 0x7f)
					p.scale = nx_float_of(0x7fc00000u);
		put_param(v, unit, (int)(i % UNIT_ROWS), g, p);
	}
	put_words(v, unit, [&](int row, int64_t i) -> uint32_t {
		return row0 + row < n_rows && i < v.k ? codes[(row0 + row) * v.k + i] & most : 0;
	});
}

/* ---- pieces */

struct filler {
	struct cuda_dev *d;
	const struct nx_weight_desc *desc;
	struct quant_view v;
	struct weight_stage st;
	void *device; /* a piece, as it came */
	int64_t piece;
};

static dim3 units_of(int64_t rows)
{
	return dim3((unsigned)quant_units(rows));
}

static int fill_piece(struct filler *f, int64_t row, int64_t n, void *host, struct nx_err *err)
{
	const struct nx_weight_desc *desc = f->desc;
	cudaStream_t s = f->d->stream;
	int64_t unit = row / UNIT_ROWS, k = f->v.k;
	if (desc->codes) {
		size_t codes = (size_t)(f->piece * k + 15) / 16 * 16;
		size_t bytes = codes + (size_t)(n * f->v.groups) * sizeof(struct nx_quant_param);
		int rc = desc->codes(desc->ctx, row, n, (uint8_t *)host,
		                     (struct nx_quant_param *)((uint8_t *)host + codes), err);
		if (rc)
			return rc;
		CU(cudaMemcpyAsync(f->device, host, bytes, cudaMemcpyHostToDevice, s));
		return cu_launch(
			err, "take_codes", CU_PLAIN, take_codes, units_of(n), dim3(PACK_THREADS), 0,
			s, f->v, (const uint8_t *)f->device,
			(const struct nx_quant_param *)((const uint8_t *)f->device + codes), unit,
			n);
	}
	if (desc->keys) {
		struct from_keys from = {(const uint64_t *)f->device, 0};
		int rc = desc->keys(desc->ctx, row, n, (uint64_t *)host, &from.scale, err);
		if (rc)
			return rc;
		CU(cudaMemcpyAsync(f->device, host, (size_t)n * sizeof(uint64_t),
		                   cudaMemcpyHostToDevice, s));
		return cu_launch(err, "make_codes", CU_PLAIN, make_codes<from_keys>, units_of(n),
		                 dim3(PACK_THREADS), 0, s, f->v, from, unit, n);
	}
	struct from_rows from = {(const float *)f->device, k};
	int rc = desc->rows(desc->ctx, row, n, (float *)host, err);
	if (rc)
		return rc;
	CU(cudaMemcpyAsync(f->device, host, (size_t)(n * k) * sizeof(float), cudaMemcpyHostToDevice,
	                   s));
	return cu_launch(err, "make_codes", CU_PLAIN, make_codes<from_rows>, units_of(n),
	                 dim3(PACK_THREADS), 0, s, f->v, from, unit, n);
}

static int fill_pieces(struct filler *f, size_t bytes, struct nx_err *err)
{
	CU(cudaMalloc(&f->device, bytes));
	int turn = 0;
	for (int64_t row = 0; row < f->v.n; row += f->piece, turn ^= 1) {
		int64_t n = f->v.n - row < f->piece ? f->v.n - row : f->piece;
		CU(cudaEventSynchronize(f->st.free_at[turn]));
		int rc = fill_piece(f, row, n, f->st.host[turn], err);
		if (rc)
			return rc;
		CU(cudaEventRecord(f->st.free_at[turn], f->d->stream));
	}
	return 0;
}

/* Whole when it returns: see fill_weight(). */
static int fill(struct cuda_dev *d, struct nx_weight *w, const struct nx_weight_desc *desc,
                struct nx_err *err)
{
	struct filler f = {d, desc, quant_view_of(w), {}, NULL, 0};
	size_t row_bytes =
		desc->codes  ? (size_t)w->k + (size_t)f.v.groups * sizeof(struct nx_quant_param)
		: desc->keys ? sizeof(uint64_t)
			     : (size_t)w->k * sizeof(float);
	int64_t units = (int64_t)(STAGE_BYTES / (row_bytes * UNIT_ROWS));
	units = units < 1 ? 1 : units > f.v.n_units ? f.v.n_units : units;
	f.piece = units * UNIT_ROWS;
	size_t bytes = (size_t)f.piece * row_bytes + 16;
	int rc = weight_stage_open(&f.st, bytes, 0, err);
	if (!rc)
		rc = fill_pieces(&f, bytes, err);
	cudaError_t e = cudaStreamSynchronize(d->stream);
	if (!rc && e != cudaSuccess)
		rc = cu_fail(err, e, "filling a quantized weight");
	weight_stage_close(&f.st);
	cudaFree(f.device);
	return rc;
}

static int check(const struct nx_weight_desc *desc, struct nx_err *err)
{
	const struct nx_weight_quant *f = &desc->quant;
	if (f->code != NX_WEIGHT_CODE_INT8 && f->code != NX_WEIGHT_CODE_INT4 &&
	    f->code != NX_WEIGHT_CODE_E4M3)
		return nx_fail(err, NX_ENOTSUP, "weight code %d is not known here", (int)f->code);
	if (f->group_size < 0 || f->group_size % 16)
		return nx_fail(err, NX_EINVAL,
		               "groups of a quantized weight have a multiple of 16 inputs, not %d",
		               (int)f->group_size);
	if (f->int8_acts)
		return nx_fail(err, NX_ENOTSUP,
		               "products with activations in int8 are not there on this device");
	if (desc->k > MAX_K)
		return nx_fail(err, NX_ENOTSUP,
		               "a quantized weight of %lld inputs is too large here",
		               (long long)desc->k);
	return 0;
}

int quant_weight_create(struct cuda_dev *d, const struct nx_weight_desc *desc,
                        struct nx_weight **out, struct nx_err *err)
{
	int rc = check(desc, err);
	if (!rc)
		rc = quant_open(d, err);
	if (rc)
		return rc;
	struct nx_weight *w = (struct nx_weight *)calloc(1, sizeof(*w));
	if (!w)
		return nx_fail(err, NX_ENOMEM, "no memory for a weight");
	w->n = desc->n;
	w->k = w->k_pad = desc->k;
	w->dtype = desc->dtype;
	w->lookup = desc->lookup;
	w->quant = desc->quant;
	if (w->quant.code == NX_WEIGHT_CODE_E4M3)
		w->quant.zero = false;
	w->bytes = quant_forecast(desc);
	rc = weight_alloc(w, err);
	if (!rc)
		rc = fill(d, w, desc, err);
	if (rc) {
		cu_weight_destroy(d, w);
		return rc;
	}
	*out = w;
	return 0;
}

/* ---- embed */

#define EMBED_THREADS 128

template <typename A>
static __global__ void __launch_bounds__(EMBED_THREADS)
	embed_codes(A *x, struct quant_view v, const int32_t *token, const int32_t *seq,
                    const int32_t *last_token)
{
	pdl_trigger();
	pdl_wait();
	int64_t r = blockIdx.x;
	int32_t id = token[r];
	if (id == NX_TOKEN_LAST)
		id = last_token[seq[r]];
	bool known = id >= 0 && id < v.n;
	for (int64_t i = threadIdx.x; i < v.k; i += EMBED_THREADS)
		x[r * v.k + i] = from_f32<A>(known ? quant_value(v, id, i) : 0.0f);
}

int quant_embed(struct cuda_dev *d, cudaStream_t s, const struct nx_rows *rows,
                const struct nx_seq_state *state, const struct nx_weight *table, void *x,
                struct nx_err *err)
{
	struct quant_view v = quant_view_of(table);
	const int32_t *last = (const int32_t *)state->last_token;
	dim3 grid((unsigned)rows->n_rows), block(EMBED_THREADS);
	int rc = d->act == NX_F32
	                 ? cu_launch(err, "embed_codes", CU_PDL, embed_codes<float>, grid, block, 0,
	                             s, (float *)x, v, rows->token, rows->seq, last)
	                 : cu_launch(err, "embed_codes", CU_PDL, embed_codes<__nv_bfloat16>, grid,
	                             block, 0, s, (__nv_bfloat16 *)x, v, rows->token, rows->seq,
	                             last);
	if (rc)
		return rc;
	d->counted.weight_bytes += (uint64_t)rows->n_rows * quant_row_bytes(table);
	d->counted.act_bytes +=
		(uint64_t)rows->n_rows * (uint64_t)table->k * nx_dtype_bytes(d->act);
	return cu_done(d, s, err);
}
