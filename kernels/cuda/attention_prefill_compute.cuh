/* SPDX-License-Identifier: Apache-2.0
 *
 * attention_prefill_compute.cuh: what the second and third warpgroup of attention_prefill.cu do: 64 rows of a tile each.
 */
#ifndef NX_CUDA_ATTENTION_PREFILL_COMPUTE_CUH
#define NX_CUDA_ATTENTION_PREFILL_COMPUTE_CUH

#include <type_traits>

#include "cuda/attention_prefill_fetch.cuh"

/* Thread `lane` of warp w of a warpgroup has rows 16 w + lane / 4 + {0, 8}; of each eight columns, columns
 * lane % 4 * 2 + {0, 1}: x[4 j + 2 r + c] is row r of these, column 8 j + c. */
struct softmax {
	float max[2], sum[2]; /* sum: of this thread's columns */
};

/* s: scores, then powers. What is off the mask goes: in row r columns above below[r]. Returns factors of what was
 * summed before. */
template <bool MASK>
static __device__ __forceinline__ void soften(struct softmax *f, float (&s)[64], float scale,
                                              int32_t below0, int32_t below1, float (&factor)[2])
{
#pragma unroll
	for (int r = 0; r < 2; r++) {
		float top[4];
		int32_t below = r ? below1 : below0;
		if (MASK) {
#pragma unroll
			for (int i = 0; i < 32; i++) {
				int j = i / 2 * 4 + 2 * r + i % 2;
				if (i / 2 * 8 + i % 2 > below)
					s[j] = -INFINITY;
			}
		}
#pragma unroll
		for (int i = 0; i < 4; i++)
			top[i] = s[i / 2 * 4 + 2 * r + i % 2];
#pragma unroll
		for (int i = 4; i < 32; i++)
			top[i % 4] = fmaxf(top[i % 4], s[i / 2 * 4 + 2 * r + i % 2]);
		float now = fmaxf(fmaxf(top[0], top[1]), fmaxf(top[2], top[3]));
		now = fmaxf(now, __shfl_xor_sync(~0u, now, 1));
		now = fmaxf(now, __shfl_xor_sync(~0u, now, 2));
		now = fmaxf(now, f->max[r]);
		/* A row that has seen nothing yet: its powers are those of -infinity, 0. */
		float shift = now == -INFINITY ? 0 : now * scale;
		factor[r] = exp2_fast(f->max[r] * scale - shift);
		f->max[r] = now;
		float sum[4] = {0, 0, 0, 0};
#pragma unroll
		for (int i = 0; i < 32; i++) {
			int j = i / 2 * 4 + 2 * r + i % 2;
			s[j] = exp2_fast(fmaf(s[j], scale, -shift));
			sum[i % 4] += s[j];
		}
		f->sum[r] = f->sum[r] * factor[r] + ((sum[0] + sum[1]) + (sum[2] + sum[3]));
	}
}

static __device__ __forceinline__ void pack(uint32_t (&p)[32], const float (&s)[64])
{
#pragma unroll
	for (int i = 0; i < 32; i++)
		p[i] = pack_bf16(s[2 * i], s[2 * i + 1]);
}

/* q, k, v: operands, see mma_operand(). */
template <int D>
static __device__ __forceinline__ void scores(float (&s)[64], uint64_t q, uint64_t k)
{
	mma_fence();
#pragma unroll
	for (int i = 0; i < D / 16; i++)
		mma_scores(s, q + (i / 4 * TILE * 128 + i % 4 * 32) / 16,
		           k + (i / 4 * 1024 + i % 4 * 32) / 16, i != 0);
	mma_commit();
}

template <int D>
static __device__ __forceinline__ void weigh(float (&o)[D / 2], const uint32_t (&p)[32], uint64_t v)
{
	mma_fence();
#pragma unroll
	for (int i = 0; i < TILE / 16; i++)
		mma_output(o, p + 4 * i, v + i * 2 * (D * 16) / 16);
	mma_commit();
}

/* A row's output lies over the four lanes of a quad, a word of each 16 bytes in each: they swap, and each has 16. */
template <int D>
static __device__ __forceinline__ void write_row(__nv_bfloat16 *to, const float (&o)[D / 2], int r,
                                                 float by, bool valid)
{
	int32_t q = threadIdx.x % 4;
#pragma unroll
	for (int j = 0; j < D / 8; j += 4) {
		uint32_t x[4];
#pragma unroll
		for (int i = 0; i < 4; i++)
			x[i] = pack_bf16(o[4 * (j + i) + 2 * r] * by,
			                 o[4 * (j + i) + 2 * r + 1] * by);
#pragma unroll
		for (int step = 1; step <= 2; step *= 2)
#pragma unroll
			for (int i = 0; i < 2; i++) {
				int a = step == 1 ? 2 * i : i, b = a + step;
				uint32_t give = q & step ? x[a] : x[b];
				uint32_t take = __shfl_xor_sync(~0u, give, step);
				x[a] = q & step ? take : x[a];
				x[b] = q & step ? x[b] : take;
			}
		if (valid)
			*(uint4 *)(to + (j + q) * 8) = make_uint4(x[0], x[1], x[2], x[3]);
	}
}

/* Values of slots that nobody has written may be NaN, which a weight of 0 does not take away. */
template <int D>
static __device__ __forceinline__ void clear_rows(uint8_t *v, int32_t from, int group)
{
	for (int32_t i = from * 8 + threadIdx.x % 128; i < TILE * 8; i += 128)
#pragma unroll
		for (int h = 0; h < D / 64; h++)
			*(uint4 *)(v + tile_at<D>(i / 8, h) + i % 8 * 16) = make_uint4(0, 0, 0, 0);
	fence_async();
	named_sync(BAR_COMPUTE + group, 128);
}

/* row: the thread's first row of the tile. */
template <int D>
static __device__ __forceinline__ void write_rows(const struct prefill &p, const struct item &it,
                                                  int32_t row, const struct softmax &f,
                                                  const float (&o)[D / 2])
{
#pragma unroll
	for (int r = 0; r < 2; r++) {
		float sum = f.sum[r];
		sum += __shfl_xor_sync(~0u, sum, 1);
		sum += __shfl_xor_sync(~0u, sum, 2);
		int32_t at = row + 8 * r;
		write_row<D>(p.out + ((int64_t)(it.row0 + at) * p.n_heads + it.head) * D, o, r,
		             1 / sum, at >= it.first);
	}
}

template <int D, bool TMA>
static __device__ __forceinline__ void compute_all(const struct prefill &p, struct shared<D> *sh)
{
	int32_t group = threadIdx.x / 128 - 1, lane = threadIdx.x % 32;
	int32_t row = group * 64 + threadIdx.x % 128 / 32 * 16 + lane / 4; /* and row + 8 */
	uint32_t q_full = smem_addr(sh->q_full), q_empty = smem_addr(sh->q_empty);
	uint32_t k_full = smem_addr(sh->k_full), k_empty = smem_addr(sh->k_empty);
	uint32_t v_full = smem_addr(sh->v_full), v_empty = smem_addr(sh->v_empty);
	uint64_t q = mma_operand(smem_addr(sh->q) + group * 64 * 128, 16, 1024);
	uint64_t k = mma_operand(smem_addr(sh->k), 16, D * 16);
	uint64_t v = mma_operand(smem_addr(sh->v), 1024, D * 16);
	int32_t n_k = 0, n_v = 0, round = 0;
	float s[64], o[D / 2], factor[2];
	uint32_t weights[32];
	struct softmax f;
	struct item it = {};

	auto wait_q = [&]() { bar_wait(q_full + round % 2 * 8, round / 2 & 1); };
	auto done_q = [&]() {
		if (lane == 0)
			bar_arrive(q_empty + round % 2 * 8);
	};
	auto wait_k = [&]() {
		bar_wait(k_full + n_k % STAGES * 8, n_k / STAGES & 1);
		if (!TMA)
			fence_async();
	};
	auto wait_v = [&]() {
		bar_wait(v_full + n_v % STAGES * 8, n_v / STAGES & 1);
		if (!TMA)
			fence_async();
	};
	auto done_k = [&]() {
		if (lane == 0)
			bar_arrive(k_empty + n_k % STAGES * 8);
		n_k++;
	};
	auto done_v = [&]() {
		if (lane == 0)
			bar_arrive(v_empty + n_v % STAGES * 8);
		n_v++;
	};
	auto start_scores = [&]() {
		scores<D>(s, q + round % 2 * (TILE * D / 8), k + n_k % STAGES * (TILE * D / 8));
	};
	auto start_output = [&]() { weigh<D>(o, weights, v + n_v % STAGES * (TILE * D / 8)); };
	/* The longest tile of keys of a new item, whose scores are there. */
	auto begin = [&]() {
		int32_t n = it.n_tiles - 1, below = it.slot0 + row - lane % 4 * 2 - n * TILE;
		f = {{-INFINITY, -INFINITY}, {0, 0}};
#pragma unroll
		for (int i = 0; i < D / 2; i++)
			o[i] = 0;
		soften<true>(&f, s, p.scale, below, below + 8, factor);
		pack(weights, s);
		if (TMA && it.end < it.n_tiles * TILE) {
			wait_v();
			clear_rows<D>(sh->v[n_v % STAGES], it.end - n * TILE, group);
		}
	};

	wait_q();
	it = sh->items[0];
	if (it.n_tiles == 0)
		return;
	wait_k();
	start_scores();
	mma_wait<0>();
	pin(s);
	done_k();
	begin();
	/* Turns: products are started by the warpgroup whose turn it is. */
	if (group == 1)
		named_arrive(BAR_TURN, 256);
	for (;;) {
		int32_t full =
			(it.slot0 + group * 64 + 1) / TILE; /* tiles that all rows see whole */
		int32_t below = it.slot0 + row - lane % 4 * 2;
		int32_t n = it.n_tiles - 2;
		auto step = [&](auto mask) {
			wait_k();
			named_sync(BAR_TURN + group, 256);
			start_scores();
			wait_v();
			start_output();
			named_arrive(BAR_TURN + 1 - group, 256);
			mma_wait<1>();
			pin(s);
			done_k();
			soften<decltype(mask)::value>(&f, s, p.scale, below - n * TILE,
			                              below + 8 - n * TILE, factor);
			mma_wait<0>();
			pin(o);
			done_v();
#pragma unroll
			for (int i = 0; i < D / 2; i++)
				o[i] *= factor[i / 2 % 2];
			pack(weights, s);
		};
		for (; n >= 0 && n >= full; n--)
			step(std::true_type{});
		for (; n >= 0; n--)
			step(std::false_type{});
		done_q();
		round++;
		/* The next item's first scores run with this one's last product, and this one's end beneath the other
		 * warpgroup's. */
		wait_q();
		struct item next = sh->items[round % 2];
		if (next.n_tiles == 0)
			break;
		wait_k();
		named_sync(BAR_TURN + group, 256);
		start_scores();
		wait_v();
		start_output();
		named_arrive(BAR_TURN + 1 - group, 256);
		mma_wait<0>();
		pin(s);
		pin(o);
		done_k();
		done_v();
		write_rows<D>(p, it, row, f, o);
		it = next;
		begin();
	}
	wait_v();
	start_output();
	mma_wait<0>();
	pin(o);
	write_rows<D>(p, it, row, f, o);
}

#endif
