/* SPDX-License-Identifier: Apache-2.0
 *
 * weight_quant.cuh: where the codes of a quantized matrix lie on the device; weight_quant.h says what they stand for.
 *
 * Codes lie in tiles of 16 rows by 64 inputs, a run of rows after the other, and in it a block of inputs after the other.
 * Rows are padded to whole tiles with codes of 0 and params of 0, inputs with codes of 0 alone: x has zeros there.
 * A tile is what a warp multiplies by four m16n8k16, a step of 16 inputs each, and each lane finds its own codes in
 * pieces of 16 bytes, the lanes' pieces side by side. Lane 4 g + t has rows 2 g and 2 g + 1, which are the tensor core's
 * rows g and g + 8, and inputs 4 t to 4 t + 3 of each step; x is read in the same order.
 * Register i of a lane's step has two neighbours of row 2 g + i % 2, its third and fourth
 * input where i > 1. They are in the lower and the upper half of a word, where conversions to pairs want them:
 *   INT4  one word a step, register i in bits 4 i
 *   INT8  two words a step, word i / 2, bits 8 (i % 2)
 *   E4M3  as INT8, but the bits of a half are dealt so that register 0 is there by a mask: see quant_put()
 *
 * Params: [runs of 16 rows][groups][16 rows] fp16 scales; fp16 (scale, zero); f32 scales with E4M3.
 */
#ifndef NX_CUDA_WEIGHT_QUANT_CUH
#define NX_CUDA_WEIGHT_QUANT_CUH

#include "cuda/linear.cuh"
#include "nexus_kernels/weight_quant.h"

#define UNIT_ROWS 16
#define BLOCK_K 64 /* inputs of a tile */

/* A matrix as kernels see it. */
struct quant_view {
	const uint8_t *codes, *params;
	int64_t n, k, groups;
	int n_units, n_blocks;
	int tile_bytes, param_bytes;
	int64_t group; /* inputs; k where there is one group */
	struct nx_weight_quant f;
};

struct quant_view quant_view_of(const struct nx_weight *w);

static inline int64_t quant_units(int64_t n)
{
	return (n + UNIT_ROWS - 1) / UNIT_ROWS;
}

static inline int64_t quant_blocks(int64_t k)
{
	return (k + BLOCK_K - 1) / BLOCK_K;
}

#ifdef __CUDACC__
/* The code of a row of a unit, by the word and where in it. */
struct quant_place {
	int word; /* of the tile */
	int half, odd;
	int nibble; /* INT4: i */
};

static __device__ __forceinline__ struct quant_place quant_place_of(int code, int row, int at)
{
	struct quant_place p;
	int lane = row / 2 * 4 + at % 16 / 4, step = at / 16;
	int high = at % 4 / 2;
	p.half = at % 2;
	p.odd = row % 2;
	p.nibble = row % 2 + 2 * high;
	p.word = code == NX_WEIGHT_CODE_INT4 ? lane * 4 + step
	                                     : step / 2 * 128 + lane * 4 + step % 2 * 2 + high;
	return p;
}

/* What row and input of the tile is element e of word `word`: INT4 has 8 elements a word, the others 4. */
static __device__ __forceinline__ void quant_element_of(int code, int word, int e, int *row,
                                                        int *at)
{
	int half = e % 2, i, step, lane;
	if (code == NX_WEIGHT_CODE_INT4) {
		i = e / 2;
		lane = word / 4;
		step = word % 4;
	} else {
		i = e / 2 + word % 2 * 2;
		lane = word % 128 / 4;
		step = word / 128 * 2 + word % 4 / 2;
	}
	*row = lane / 4 * 2 + i % 2;
	*at = step * 16 + lane % 4 * 4 + i / 2 * 2 + half;
}

/* E4M3, register 0: the sign in bit 15, the other bits where bf16 has them, from bit 4. Register 1 has the bits that are
 * left, so that two shifts and two masks bring it there. */
static __device__ __forceinline__ uint32_t quant_put(int code, const struct quant_place &p,
                                                     uint32_t q)
{
	uint32_t bits;
	if (code == NX_WEIGHT_CODE_INT4)
		bits = q << (4 * p.nibble);
	else if (code == NX_WEIGHT_CODE_INT8)
		bits = q << (8 * p.odd);
	else if (p.odd)
		bits = (q & 0x80) << 4 | (q & 0x0f) | (q & 0x70) << 8;
	else
		bits = (q & 0x80) << 8 | (q & 0x7f) << 4;
	return bits << (16 * p.half);
}

static __device__ __forceinline__ uint32_t quant_get(int code, const struct quant_place &p,
                                                     uint32_t word)
{
	uint32_t h = word >> (16 * p.half) & 0xffff;
	if (code == NX_WEIGHT_CODE_INT4)
		return h >> (4 * p.nibble) & 0xf;
	if (code == NX_WEIGHT_CODE_INT8)
		return h >> (8 * p.odd) & 0xff;
	return p.odd ? (h >> 4 & 0x80) | (h & 0x0f) | (h >> 8 & 0x70)
	             : (h >> 8 & 0x80) | (h >> 4 & 0x7f);
}

static __device__ __forceinline__ struct nx_quant_param quant_param(const struct quant_view &v,
                                                                    int64_t row, int64_t group)
{
	struct nx_quant_param p = {0, 0};
	const uint8_t *at =
		v.params + ((row / UNIT_ROWS * v.groups + group) * UNIT_ROWS + row % UNIT_ROWS) *
				   v.param_bytes;
	if (v.f.code == NX_WEIGHT_CODE_E4M3) {
		p.scale = *(const float *)at;
	} else {
		p.scale = __half2float(((const __half *)at)[0]);
		if (v.f.zero)
			p.zero = __half2float(((const __half *)at)[1]);
	}
	return p;
}

static __device__ __forceinline__ float quant_value(const struct quant_view &v, int64_t row,
                                                    int64_t i)
{
	const uint32_t *tile =
		(const uint32_t *)(v.codes +
	                           (row / UNIT_ROWS * v.n_blocks + i / BLOCK_K) * v.tile_bytes);
	struct quant_place p = quant_place_of(v.f.code, (int)(row % UNIT_ROWS), (int)(i % BLOCK_K));
	uint8_t q = (uint8_t)quant_get(v.f.code, p, tile[p.word]);
	return nx_weight_value(&v.f, quant_param(v, row, i / v.group), q);
}
#endif

#endif
