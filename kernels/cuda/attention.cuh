/* SPDX-License-Identifier: Apache-2.0
 *
 * attention.cuh: what the kernels of attention share: their arguments, what a row sees, partials and their merge.
 *
 * A partial is (max, sum, out) over some keys of one row and head: max and scores in units of log2, sum of
 * exp2(score - max), out the same sum of weighted values. Partial c covers chunk c of the fixed grid, or a run of
 * chunks from c on whose later slots say "nothing" (max = -inf). Merging in order of chunks with attn_merge()
 * alone makes a row's bits the same whoever merges: the CTA that made them or the merge kernel.
 */
#ifndef NX_CUDA_ATTENTION_CUH
#define NX_CUDA_ATTENTION_CUH

#include "cuda/coded.cuh"

#define ATTN_MAX_DIM 256
#define ATTN_SPLIT_ROWS                                                                            \
	64 /* calls of more rows are never split over chunks: bounds the workspace */

#define ATTN_VALUE_KEYS 256 /* materialised: keys whose weighted values are summed together */

struct attn_args {
	/* rows */
	int32_t n_rows, n_segments, max_keys, anc_stride;
	const int32_t *seq, *slot_off, *kind, *n_anc, *anc, *len;
	const struct nx_segment *segments;
	/* the store, one layer of it */
	const int32_t *table;
	int32_t table_stride, block_size, scratch_cap;
	const uint8_t *base, *scratch;
	int64_t row_bytes, v_offset, scratch_row_bytes, scratch_v_offset;
	/* shape */
	int32_t n_heads, n_kv_heads, group, dim;
	float scale2; /* scale * log2(e) */
	const void *q;
	int64_t q_stride;
	void *out;
	/* partials: [row, head, chunk] */
	int32_t kv_chunk, n_chunks;
	float *part;       /* [.., dim] */
	float2 *part_head; /* (max, sum) */
	float *scores;     /* materialised: [row, head, max_keys] */
	bool split, invariant;
	struct coded_args coded;
	/* attention_decode.cu: division by products; a layer's rows lie within 2^36 bytes */
	uint32_t group_mul, block_mul, block_shift;
	bool near;
};

/* attention_decode.cu: bf16, head_dim 64 or 128, tensor cores. */
int attention_decode_open(struct cuda_dev *d, struct nx_err *err);
bool attention_decode_fits(const struct cuda_dev *d, const struct attn_args *a,
                           enum nx_kv_codec codec);
int attention_decode(struct cuda_dev *d, cudaStream_t s, struct attn_args *a, struct nx_err *err);
/* attention_codes.cu: the same over codes of a group a head; not in invariant mode. */
int attention_codes_open(struct cuda_dev *d, struct nx_err *err);
bool attention_codes_fits(const struct cuda_dev *d, const struct attn_args *a,
                          enum nx_kv_codec codec);
int attention_codes(struct cuda_dev *d, cudaStream_t s, struct attn_args *a, enum nx_kv_codec codec,
                    struct nx_err *err);
/* Codecs with kernels of their own, a file each. */
#define ATTN_CODECS(X) X(INT8, int8) X(INT4, int4) X(E4M3, e4m3) X(E5M2, e5m2)
#define X(CODEC, codec)                                                                            \
	int attention_codes_open_##codec(const struct cuda_dev *d, struct nx_err *err);            \
	int attention_codes_##codec(struct cuda_dev *d, cudaStream_t s, struct attn_args *a,       \
	                            struct nx_err *err);
ATTN_CODECS(X)
#undef X
/* attention_plain.cu: any type and head_dim */
int attention_plain(struct cuda_dev *d, cudaStream_t s, struct attn_args *a, enum nx_kv_codec codec,
                    struct nx_err *err);
int attention_merge(struct cuda_dev *d, cudaStream_t s, const struct attn_args *a,
                    struct nx_err *err);
/* attention_scores.cu; attention_softmax: of all scores, bits of a row not the same in every company */
int attention_materialised(struct cuda_dev *d, cudaStream_t s, struct attn_args *a,
                           enum nx_kv_codec codec, struct nx_err *err);
int attention_softmax(cudaStream_t s, const struct attn_args *a, struct nx_err *err);
/* attention_scores_tile.cu: many rows a segment, bf16, head_dim 64 or 128, tensor cores; never in invariant mode. */
int attention_scores_open(struct nx_err *err);
bool attention_scores_tile_fits(const struct cuda_dev *d, const struct attn_args *a,
                                enum nx_kv_codec codec);
int attention_scores_tile(cudaStream_t s, const struct attn_args *a, struct nx_err *err);

static inline int64_t attn_div_up(int64_t a, int64_t b)
{
	return (a + b - 1) / b;
}

#ifdef __CUDACC__
/* What row r sees: keys [0, n_table) through the table, then n_anc from scratch. Bounded by what the host promised,
 * so that no broken promise reads or writes elsewhere. */
struct attn_view {
	int32_t seq, n_table, keys;
	const int32_t *anc;
};

static __device__ __forceinline__ struct attn_view attn_view_of(const struct attn_args &a,
                                                                int32_t r, int32_t seq)
{
	struct attn_view v;
	/* All loads at once: one wait. */
	int32_t kind = a.kind[r], slot_off = a.slot_off[r], n_anc = a.n_anc[r], len = a.len[seq];
	if (!nx_row_in_scratch(kind))
		n_anc = 0;
	v.seq = seq;
	v.anc = a.anc + (int64_t)r * a.anc_stride;
	v.n_table = min(nx_row_table_keys(kind, len, slot_off, n_anc), a.max_keys);
	if (kind == NX_ROW_PAD && a.coded.window > 1)
		v.n_table = 0; /* nobody reads it, and its group may be nowhere */
	v.keys = min(v.n_table + n_anc, a.max_keys);
	return v;
}

static __device__ __forceinline__ struct attn_view attn_view(const struct attn_args &a, int32_t r)
{
	return attn_view_of(a, r, a.seq[r]);
}

/* Pool row of a slot; -1 where the table has no block. */
static __device__ __forceinline__ int32_t attn_pool_row(const struct attn_args &a, int32_t seq,
                                                        int32_t slot)
{
	uint32_t block = (uint32_t)slot / (uint32_t)a.block_size;
	int32_t first = a.table[(int64_t)seq * a.table_stride + block];
	return first < 0 ? -1 : first + (int32_t)((uint32_t)slot - block * (uint32_t)a.block_size);
}

/* K of key i as the row sees it, V in *v; NULL where there is none. */
static __device__ __forceinline__ const uint8_t *attn_key(const struct attn_args &a,
                                                          const struct attn_view &w, int32_t i,
                                                          const uint8_t **v)
{
	const uint8_t *k;
	if (i < w.n_table) {
		int32_t row = attn_pool_row(a, w.seq, i);
		if (row < 0)
			return nullptr;
		k = a.base + row * a.row_bytes;
		*v = k + a.v_offset;
	} else {
		k = a.scratch +
		    ((int64_t)w.seq * a.scratch_cap + w.anc[i - w.n_table]) * a.scratch_row_bytes;
		*v = k + a.scratch_v_offset;
	}
	return k;
}

/* 2^x; off by 2 ulp at most, 2^0 is 1 and 2^-inf is 0: enough beside the rounding of the scores themselves. */
static __device__ __forceinline__ float attn_exp2(float x)
{
	float y;
	asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
	return y;
}

/* In the head of a row's first partial: the row is finished, there is nothing to merge. */
#define ATTN_DONE make_float2(-INFINITY, -1)

/* Factors with which (max, sum, out) and a later part's are multiplied; false: the part has nothing. */
static __device__ __forceinline__ bool attn_merge_head(float &max, float &sum, float part_max,
                                                       float part_sum, float &mine, float &its)
{
	if (part_max == -INFINITY)
		return false;
	float top = fmaxf(max, part_max);
	mine = attn_exp2(max - top);
	its = attn_exp2(part_max - top);
	max = top;
	sum = __fmaf_rn(sum, mine, __fmul_rn(part_sum, its));
	return true;
}

static __device__ __forceinline__ float attn_merge_out(float out, float part, float mine, float its)
{
	return __fmaf_rn(out, mine, __fmul_rn(part, its));
}

static __device__ __forceinline__ float attn_finish(float out, float sum)
{
	return sum == 0 ? 0 : __fdiv_rn(out, sum); /* no keys: 0; NaN stays */
}
#endif
#endif
