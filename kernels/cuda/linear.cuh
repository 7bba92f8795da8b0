/* SPDX-License-Identifier: Apache-2.0
 *
 * linear.cuh: what the files of weights and products share.
 */
#ifndef NX_CUDA_LINEAR_CUH
#define NX_CUDA_LINEAR_CUH

#include "cuda/dev.cuh"

/* Row-major [n, k_pad]; elements past k are zero, so that every row begins on 16 bytes and ends in whole ones. The
 * library and our kernels read the same copy. */
struct nx_weight {
	int64_t n, k, k_pad;
	enum nx_dtype dtype;
	bool lookup;
	void *data;
	uint64_t bytes;
	struct nx_weight_quant quant; /* codes: data is as weight_quant.cuh says */
};

#define K_ALIGN 8 /* elements */

/* What a product does with a sum, or a pair of them: columns col and col + 1 of W's, of row r of y. */
struct epilogue {
	void *y;
	int64_t n; /* rows of W */
	enum nx_epilogue kind;
	bool f32; /* y is f32 */
};

/* linear_thin.cu: bf16 x bf16, bound by the weight's bytes. A row's sum is the same for every m. */
bool thin_fits(const struct cuda_dev *d, const struct nx_linear *a);
int thin_linear(struct cuda_dev *d, cudaStream_t s, const struct nx_linear *a, struct nx_err *err);
int thin_open(struct cuda_dev *d, struct nx_err *err);

/* linear_quant.cu: quantized weights. A row's sum is the same for every m that the library does not get. */
int quant_linear(struct cuda_dev *d, cudaStream_t s, const struct nx_linear *a, struct nx_err *err);
int quant_open(struct cuda_dev *d, struct nx_err *err);

/* weight_quant.cu */
int quant_weight_create(struct cuda_dev *d, const struct nx_weight_desc *desc,
                        struct nx_weight **out, struct nx_err *err);
uint64_t quant_forecast(const struct nx_weight_desc *desc);
uint64_t quant_row_bytes(const struct nx_weight *w); /* of the format */
int quant_embed(struct cuda_dev *d, cudaStream_t s, const struct nx_rows *rows,
                const struct nx_seq_state *state, const struct nx_weight *table, void *x,
                struct nx_err *err);

/* weight.cu: two pieces of pinned memory in turn; free_at[i]: the device has read piece i. */
struct weight_stage {
	void *host[2];
	cudaEvent_t free_at[2];
	uint64_t *keys; /* device */
};
int weight_stage_open(struct weight_stage *st, size_t bytes, size_t key_bytes, struct nx_err *err);
void weight_stage_close(struct weight_stage *st);
int weight_alloc(struct nx_weight *w, struct nx_err *err); /* w->bytes at w->data */

/* linear_plain.cu: any types, any shape, no tensor cores. The same for every m, too. */
int plain_linear(struct cuda_dev *d, cudaStream_t s, const struct nx_linear *a, struct nx_err *err);

/* linear_lt.cu. Products of w, plain rows that may be some of a matrix's alone: y has y_cols columns. False: the library
 * cannot. */
struct library_part {
	const void *w, *x;
	void *y;
	int64_t n, k, k_pad, y_cols;
	int32_t m;
	bool f32, add; /* y is f32; y += */
};
bool library_part(struct cuda_dev *d, cudaStream_t s, const struct library_part *p);
int32_t library_min_rows(const struct cuda_dev *d); /* INT32_MAX without one */

/* linear_lt.cu. False: do it yourself (there is no library, or it cannot). */
bool library_linear(struct cuda_dev *d, cudaStream_t s, const struct nx_linear *a, int *rc,
                    struct nx_err *err);

#ifdef __CUDACC__
static __device__ __forceinline__ float silu(float g)
{
	return g / (1.0f + expf(-g));
}

template <typename T>
static __device__ __forceinline__ void epilogue_one(const struct epilogue &e, int64_t at, float sum)
{
	T *y = (T *)e.y + at;
	if (e.kind == NX_EPI_ADD)
		sum += to_f32(*y);
	*y = from_f32<T>(sum);
}

/* Columns col and col + 1 (col even) of row r. T: of y where it is not f32. */
template <typename T>
static __device__ __forceinline__ void epilogue_pair(const struct epilogue &e, int64_t r,
                                                     int64_t col, float s0, float s1)
{
	if (col >= e.n)
		return;
	if (e.kind == NX_EPI_SWIGLU) {
		float v = silu(s0) * s1;
		int64_t at = r * (e.n / 2) + col / 2;
		if (e.f32)
			((float *)e.y)[at] = v;
		else
			((T *)e.y)[at] = from_f32<T>(v);
		return;
	}
	int64_t at = r * e.n + col;
	bool both = col + 1 < e.n;
	if (e.f32) {
		epilogue_one<float>(e, at, s0);
		if (both)
			epilogue_one<float>(e, at + 1, s1);
	} else {
		epilogue_one<T>(e, at, s0);
		if (both)
			epilogue_one<T>(e, at + 1, s1);
	}
}
#endif

#endif
