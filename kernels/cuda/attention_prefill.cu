/* SPDX-License-Identifier: Apache-2.0
 *
 * attention_prefill.cu: attention of many rows on tensor cores.
 *
 * After FlashAttention-3 (2407.08608): a block of threads computes tiles of 128 rows of one head. One warpgroup fetches,
 * two compute 64 rows each: scores S = Q K^T, online softmax in registers, O += P V, where the product with V of a tile of
 * keys runs beneath the softmax of the next, and one warpgroup's softmax beneath the other's products.
 *
 * Rows of a segment lie in consecutive slots: the first in len[seq] + slot_off. A segment is cut into tiles from its end,
 * so that tiles differ by 128 keys and the short one comes first. Work is (tile, head), sorted by keys, longest
 * first, and dealt to the blocks of threads to and fro: what one gets more of in one round it gets less of in the next.
 * Lengths are the device's, so each block of threads finds its tiles itself.
 *
 * K and V come from the paged store by TMA, a box of one block or of a whole tile, or, where blocks are of an odd size, by
 * cp.async, 16 bytes a thread.
 */
#include <type_traits>

#include "cuda/attention_prefill_ptx.cuh"
#include "cuda/dev.cuh"

#define TILE 128      /* rows of a tile of queries, and of a tile of keys */
#define STAGES 2      /* tiles of keys, and of values, in flight */
#define N_THREADS 384 /* a warpgroup that fetches and two that compute */
#define MAX_SEGMENTS 1024
#define MIN_ROWS 32 /* a segment, on average: fewer do not fill a tile's rows */
#define SHARED_KV                                                                                  \
	((int64_t)24                                                                               \
	 << 20)       /* bytes of keys and values that are worked on together: they stay in L2 */
#define BAR_TURN 1    /* named barriers: 1 and 2, */
#define BAR_COMPUTE 3 /* 3 and 4, */
#define BAR_FETCH 5

struct prefill {
	CUtensorMap q;
	CUtensorMap k, v;             /* boxes of `box` rows */
	CUtensorMap k_whole, v_whole; /* of TILE rows */
	const struct nx_segment *segments;
	const int32_t *slot_off, *len, *table;
	const uint8_t *k_base, *v_base;
	int64_t row_bytes;
	__nv_bfloat16 *out;
	int32_t n_segments, n_heads, group, heads_together;
	int32_t block_size, table_stride, box;
	float scale; /* of scores, for powers of two */
};

struct place {
	int32_t row0, n_rows, slot0, seq;
};

/* One tile of one head. */
struct item {
	int32_t row0;    /* of tile row 0: rows below `first` are not this segment's */
	int32_t first;   /* tile row */
	int32_t slot0;   /* of tile row 0; below 0 where `first` is above */
	int32_t end;     /* slots of the segment */
	int32_t n_tiles; /* of keys; 0: no more work */
	int32_t head;
};

template <int D> struct shared {
	alignas(1024) uint8_t
		q[TILE * D * 2]; /* runs of 64 columns of all rows, 128 bytes a row, swizzled */
	alignas(1024) uint8_t k[STAGES][TILE * D * 2];
	alignas(1024) uint8_t v[STAGES][TILE * D * 2];
	uint64_t q_full, q_empty, k_full[STAGES], k_empty[STAGES], v_full[STAGES], v_empty[STAGES];
	struct item item;
	struct place places[MAX_SEGMENTS];
};

static __device__ __forceinline__ int32_t tiles_of(int32_t n)
{
	return (n + TILE - 1) / TILE;
}

/* ---- which work */

/* Tiles of all segments with at least c tiles of keys. A segment has one tile of each number of keys. */
static __device__ int32_t count_from(const struct place *p, int32_t n, int32_t c)
{
	int32_t count = 0;
	for (int32_t i = threadIdx.x % 32; i < n; i += 32) {
		int32_t most = tiles_of(p[i].slot0 + p[i].n_rows), tiles = tiles_of(p[i].n_rows);
		count += max(0, min(tiles, most - c + 1));
	}
	return __reduce_add_sync(~0u, count);
}

/* The t-th tile, longest first: its item without a head, and its sequence. A warp's work. */
static __device__ int32_t find_tile(const struct place *p, int32_t n, int32_t longest, int32_t t,
                                    struct item *it)
{
	int32_t low = 1, high = longest;
	while (low < high) {
		int32_t mid = (low + high + 1) / 2;
		if (count_from(p, n, mid) > t)
			low = mid;
		else
			high = mid - 1;
	}
	t -= count_from(p, n, low + 1);
	for (int32_t base = 0; base < n; base += 32) {
		int32_t i = base + threadIdx.x % 32;
		bool has = false;
		if (i < n) {
			int32_t most = tiles_of(p[i].slot0 + p[i].n_rows);
			has = low <= most && low > most - tiles_of(p[i].n_rows);
		}
		uint32_t which = __ballot_sync(~0u, has);
		int32_t found = __popc(which);
		if (t >= found) {
			t -= found;
			continue;
		}
		for (; t > 0; t--)
			which &= which - 1;
		struct place s = p[base + __ffs(which) - 1];
		int32_t most = tiles_of(s.slot0 + s.n_rows);
		int32_t begin = s.n_rows - TILE * (most - low + 1);
		it->row0 = s.row0 + begin;
		it->first = max(0, -begin);
		it->slot0 = s.slot0 + begin;
		it->end = s.slot0 + s.n_rows;
		it->n_tiles = low;
		return s.seq;
	}
	it->n_tiles = 0;
	return 0;
}

/* ---- fetching */

/* Where a tile of keys lies. By TMA: pool row of each box, lane by lane. By cp.async: of each row, a warp's own. */
struct rows_at {
	int32_t row[4];
	int32_t whole; /* the tile lies in one block */
	int32_t boxes; /* to fetch */
};

static __device__ __forceinline__ int32_t pool_row(const struct prefill &p, const int32_t *table,
                                                   int32_t slot)
{
	int32_t block = slot / p.block_size;
	return max(table[block], 0) + slot - block * p.block_size;
}

template <int D, bool TMA>
static __device__ __forceinline__ struct rows_at locate(const struct prefill &p,
                                                        const int32_t *table, int32_t tile,
                                                        int32_t end)
{
	struct rows_at at;
	int32_t lane = threadIdx.x % 32, first = tile * TILE;
	if constexpr (TMA) {
		at.whole = first / p.block_size == (first + TILE - 1) / p.block_size;
		at.boxes = at.whole ? 1 : (min(TILE, end - first) + p.box - 1) / p.box;
#pragma unroll
		for (int i = 0; i < 4; i++)
			if (lane + 32 * i < at.boxes)
				at.row[i] = pool_row(p, table, first + (lane + 32 * i) * p.box);
	} else {
		/* Warp w copies rows w * R + i * 4 R + [0, R) of the tile, for each i, where R rows are 512 bytes. */
		constexpr int R = 256 / D;
		int32_t row = lane / R * (4 * R) + threadIdx.x / 32 * R + lane % R;
		at.row[0] = first + row < end ? pool_row(p, table, first + row) : -1;
	}
	return at;
}

template <int D, bool TMA>
static __device__ __forceinline__ void fetch(const struct prefill &p, const CUtensorMap *whole,
                                             const CUtensorMap *boxes, const uint8_t *base,
                                             int32_t kv_head, const struct rows_at &at, uint32_t to,
                                             uint32_t full)
{
	int32_t lane = threadIdx.x % 32;
	if constexpr (TMA) {
		int32_t rows = at.whole ? TILE : p.box;
		if (lane == 0)
			bar_expect(full, at.boxes * rows * D * 2);
		__syncwarp();
#pragma unroll
		for (int i = 0; i < 4; i++)
			if (lane + 32 * i < at.boxes)
#pragma unroll
				for (int h = 0; h < D / 64; h++)
					tma_load(to + h * TILE * 128 + (lane + 32 * i) * rows * 128,
					         at.whole ? whole : boxes, kv_head * D + h * 64,
					         at.row[i], full);
	} else {
		constexpr int R = 256 / D, LANES = 32 / R;
		int32_t piece = lane % LANES, half = piece / 8;
		const uint8_t *from = base + kv_head * (D * 2) + piece * 16;
#pragma unroll
		for (int i = 0; i < 32 / R; i++) {
			int32_t row = i * 4 * R + threadIdx.x / 32 * R + lane / LANES;
			int32_t source = __shfl_sync(~0u, at.row[0], i * R + lane / LANES);
			uint32_t piece_at = (uint32_t)(piece % 8 ^ row % 8) * 16;
			copy_16(to + half * TILE * 128 + row * 128 + piece_at,
			        from + max(source, 0) * p.row_bytes, source < 0 ? 0 : 16);
		}
		bar_arrive_copies(full);
	}
}

template <int D, bool TMA>
static __device__ __forceinline__ void fetch_all(const struct prefill &p, struct shared<D> *sh)
{
	int32_t n_tiles = 0, longest = 0, warp = threadIdx.x / 32;
	for (int32_t i = threadIdx.x; i < p.n_segments; i += 128) {
		struct nx_segment s = p.segments[i];
		if (s.n_rows > 0)
			sh->places[i] = {s.row0, s.n_rows, p.len[s.seq] + p.slot_off[s.row0],
			                 s.seq};
		else
			sh->places[i] = {0, 0, 0, 0};
	}
	named_sync(BAR_FETCH, 128);
	if (TMA && warp != 0)
		return;
	for (int32_t i = threadIdx.x % 32; i < p.n_segments; i += 32) {
		struct place s = sh->places[i];
		longest = max(longest, tiles_of(s.slot0 + s.n_rows));
	}
	longest = __reduce_max_sync(~0u, longest);
	n_tiles = count_from(sh->places, p.n_segments, 1);

	uint32_t k_full = smem_addr(sh->k_full), k_empty = smem_addr(sh->k_empty);
	uint32_t v_full = smem_addr(sh->v_full), v_empty = smem_addr(sh->v_empty);
	uint32_t k = smem_addr(sh->k), v = smem_addr(sh->v), q_full = smem_addr(&sh->q_full);
	int32_t total = n_tiles * p.n_heads, grid = gridDim.x, n_k = 0, n_v = 0, round = 0;
	auto fetch_k = [&](int32_t kv_head, const struct rows_at &at) {
		int32_t stage = n_k % STAGES;
		bar_wait(k_empty + 8 * stage, (n_k / STAGES & 1) ^ 1);
		fetch<D, TMA>(p, &p.k_whole, &p.k, p.k_base, kv_head, at, k + stage * TILE * D * 2,
		              k_full + 8 * stage);
		n_k++;
	};
	auto fetch_v = [&](int32_t kv_head, const struct rows_at &at) {
		int32_t stage = n_v % STAGES;
		bar_wait(v_empty + 8 * stage, (n_v / STAGES & 1) ^ 1);
		fetch<D, TMA>(p, &p.v_whole, &p.v, p.v_base, kv_head, at, v + stage * TILE * D * 2,
		              v_full + 8 * stage);
		n_v++;
	};
	for (;; round++) {
		int32_t i = round * grid +
		            (round % 2 ? grid - 1 - (int32_t)blockIdx.x : (int32_t)blockIdx.x);
		if (i >= total)
			break;
		int32_t together = n_tiles * p.heads_together, run = i / together;
		int32_t head0 = run * p.heads_together;
		int32_t heads = min(p.heads_together, p.n_heads - head0);
		struct item it;
		int32_t seq = find_tile(sh->places, p.n_segments, longest,
		                        (i - run * together) / heads, &it);
		it.head = head0 + (i - run * together) % heads;
		int32_t kv_head = it.head / p.group;
		const int32_t *table = p.table + (int64_t)seq * p.table_stride;

		struct rows_at at = locate<D, TMA>(p, table, it.n_tiles - 1, it.end), next;
		fetch_k(kv_head, at);
		if (warp == 0) {
			bar_wait(smem_addr(&sh->q_empty), (round & 1) ^ 1);
			if (threadIdx.x == 0) {
				sh->item = it;
				bar_expect(q_full, TILE * D * 2);
				for (int h = 0; h < D / 64; h++)
					tma_load(smem_addr(sh->q) + h * TILE * 128, &p.q,
					         it.head * D + h * 64, it.row0, q_full);
			}
			__syncwarp();
		}
		for (int32_t n = it.n_tiles - 2; n >= 0; n--) {
			next = locate<D, TMA>(p, table, n, it.end);
			fetch_k(kv_head, next);
			fetch_v(kv_head, at);
			at = next;
		}
		fetch_v(kv_head, at);
	}
	if (threadIdx.x == 0) {
		bar_wait(smem_addr(&sh->q_empty), (round & 1) ^ 1);
		sh->item.n_tiles = 0;
		bar_arrive(q_full);
	}
}

/* ---- computing */

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

template <int D>
static __device__ __forceinline__ void scores(float (&s)[64], uint32_t q, uint32_t k)
{
#pragma unroll
	for (int i = 0; i < D / 16; i++) {
		uint32_t at = i / 4 * TILE * 128 + i % 4 * 32;
		mma_scores(s, mma_operand(q + at, 16), mma_operand(k + at, 16), i != 0);
	}
	mma_commit();
}

template <int D>
static __device__ __forceinline__ void weigh(float (&o)[D / 2], const uint32_t (&p)[32], uint32_t v)
{
#pragma unroll
	for (int i = 0; i < TILE / 16; i++)
		mma_output(o, p + 4 * i, mma_operand(v + i * 16 * 128, TILE * 128));
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
			*(uint4 *)(v + h * TILE * 128 + i * 16) = make_uint4(0, 0, 0, 0);
	fence_async();
	named_sync(BAR_COMPUTE + group, 128);
}

template <int D, bool TMA>
static __device__ __forceinline__ void compute_all(const struct prefill &p, struct shared<D> *sh)
{
	int32_t group = threadIdx.x / 128 - 1, lane = threadIdx.x % 32;
	int32_t row = group * 64 + threadIdx.x % 128 / 32 * 16 + lane / 4; /* and row + 8 */
	uint32_t k_full = smem_addr(sh->k_full), k_empty = smem_addr(sh->k_empty);
	uint32_t v_full = smem_addr(sh->v_full), v_empty = smem_addr(sh->v_empty);
	uint32_t q = smem_addr(sh->q) + group * 64 * 128, k = smem_addr(sh->k),
		 v = smem_addr(sh->v);
	int32_t n_k = 0, n_v = 0;
	float s[64], o[D / 2], factor[2];
	uint32_t weights[32];

	/* Turns: products are started by the warpgroup whose turn it is. */
	if (group == 1)
		named_arrive(BAR_TURN, 256);
	for (int32_t round = 0;; round++) {
		bar_wait(smem_addr(&sh->q_full), round & 1);
		struct item it = sh->item;
		if (it.n_tiles == 0)
			break;
		struct softmax f = {{-INFINITY, -INFINITY}, {0, 0}};
		int32_t full =
			(it.slot0 + group * 64 + 1) / TILE; /* tiles that all rows see whole */
		int32_t below = it.slot0 + row - lane % 4 * 2;
		int32_t n = it.n_tiles - 1;
		auto wait_k = [&]() {
			bar_wait(k_full + 8 * (n_k % STAGES), n_k / STAGES & 1);
			if (!TMA)
				fence_async();
		};
		auto wait_v = [&]() {
			bar_wait(v_full + 8 * (n_v % STAGES), n_v / STAGES & 1);
			if (!TMA)
				fence_async();
		};
		auto done_k = [&]() {
			if (lane == 0)
				bar_arrive(k_empty + 8 * (n_k % STAGES));
			n_k++;
		};
		auto done_v = [&]() {
			if (lane == 0)
				bar_arrive(v_empty + 8 * (n_v % STAGES));
			n_v++;
		};
#pragma unroll
		for (int i = 0; i < D / 2; i++)
			o[i] = 0;

		wait_k();
		mma_fence();
		scores<D>(s, q, k + n_k % STAGES * TILE * D * 2);
		mma_wait<0>();
		pin(s);
		done_k();
		soften<true>(&f, s, p.scale, below - n * TILE, below + 8 - n * TILE, factor);
		pack(weights, s);
		if (TMA && it.end < it.n_tiles * TILE) {
			wait_v();
			clear_rows<D>(sh->v[n_v % STAGES], it.end - n * TILE, group);
		}

		auto step = [&](auto mask) {
			wait_k();
			named_sync(BAR_TURN + group, 256);
			mma_fence();
			scores<D>(s, q, k + n_k % STAGES * TILE * D * 2);
			wait_v();
			weigh<D>(o, weights, v + n_v % STAGES * TILE * D * 2);
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
		for (n--; n >= 0 && n >= full; n--)
			step(std::true_type{});
		for (; n >= 0; n--)
			step(std::false_type{});
		if (lane == 0)
			bar_arrive(smem_addr(&sh->q_empty));
		wait_v();
		mma_fence();
		weigh<D>(o, weights, v + n_v % STAGES * TILE * D * 2);
		mma_wait<0>();
		pin(o);
		done_v();
#pragma unroll
		for (int r = 0; r < 2; r++) {
			float sum = f.sum[r];
			sum += __shfl_xor_sync(~0u, sum, 1);
			sum += __shfl_xor_sync(~0u, sum, 2);
			int32_t at = row + 8 * r;
			write_row<D>(p.out + ((int64_t)(it.row0 + at) * p.n_heads + it.head) * D, o,
			             r, 1 / sum, at >= it.first);
		}
	}
}

template <int D, bool TMA>
static __global__ void __launch_bounds__(N_THREADS, 1)
	prefill_kernel(const __grid_constant__ struct prefill p)
{
	extern __shared__ uint8_t raw[];
	struct shared<D> *sh = (struct shared<D> *)(((uintptr_t)raw + 1023) & ~(uintptr_t)1023);
	pdl_trigger();
	if (threadIdx.x == 0) {
		uint32_t fetchers = TMA ? 1 : 128, computing = 8; /* threads, warps */
		bar_init(smem_addr(&sh->q_full), 1);
		bar_init(smem_addr(&sh->q_empty), computing);
		for (int i = 0; i < STAGES; i++) {
			bar_init(smem_addr(&sh->k_full[i]), fetchers);
			bar_init(smem_addr(&sh->v_full[i]), fetchers);
			bar_init(smem_addr(&sh->k_empty[i]), computing);
			bar_init(smem_addr(&sh->v_empty[i]), computing);
		}
		asm volatile("fence.mbarrier_init.release.cluster;" ::: "memory");
		fence_async();
	}
	__syncthreads();
	pdl_wait();
	if (threadIdx.x < 128) {
		fewer_registers<40>();
		fetch_all<D, TMA>(p, sh);
	} else {
		more_registers<232>();
		compute_all<D, TMA>(p, sh);
	}
}

/* ---- the host's side */

typedef CUresult (*encode_fn)(CUtensorMap *, CUtensorMapDataType, cuuint32_t, void *,
                              const cuuint64_t *, const cuuint64_t *, const cuuint32_t *,
                              const cuuint32_t *, CUtensorMapInterleave, CUtensorMapSwizzle,
                              CUtensorMapL2promotion, CUtensorMapFloatOOBfill);
static encode_fn encode; /* the driver's cuTensorMapEncodeTiled: no library to link */

template <int D, bool TMA> static int allow_smem(struct nx_err *err)
{
	CU(cudaFuncSetAttribute(prefill_kernel<D, TMA>, cudaFuncAttributeMaxDynamicSharedMemorySize,
	                        (int)sizeof(struct shared<D>) + 1024));
	return 0;
}

int attention_prefill_open(struct cuda_dev *d, struct nx_err *err)
{
	cudaDriverEntryPointQueryResult found;
	void *fn = NULL;
	CU(cudaGetDriverEntryPointByVersion("cuTensorMapEncodeTiled", &fn, 12000, cudaEnableDefault,
	                                    &found));
	if (found != cudaDriverEntryPointSuccess || !fn)
		return nx_fail(err, NX_EENV, "cuda: the driver has no cuTensorMapEncodeTiled");
	encode = (encode_fn)fn;
	int rc = allow_smem<64, true>(err);
	if (!rc)
		rc = allow_smem<64, false>(err);
	if (!rc)
		rc = allow_smem<128, true>(err);
	return rc ? rc : allow_smem<128, false>(err);
}

static bool aligned(const void *p, int64_t stride_bytes)
{
	return ((uintptr_t)p | (uintptr_t)stride_bytes) % 16 == 0;
}

bool attention_prefill_fits(const struct cuda_dev *d, const struct nx_attention *a)
{
	const struct nx_kv *kv = a->kv;
	const struct nx_rows *rows = a->rows;
	return d->act == NX_BF16 && kv->codec == NX_KV_BF16 && a->kernel == NX_ATTN_TILED &&
	       !d->cfg.invariant && (kv->head_dim == 64 || kv->head_dim == 128) &&
	       rows->anc_stride == 0 && rows->n_segments > 0 && rows->n_segments <= MAX_SEGMENTS &&
	       rows->n_rows >= (int64_t)MIN_ROWS * rows->n_segments && a->scale > 0 &&
	       a->n_heads % kv->n_kv_heads == 0 && aligned(a->q, a->q_stride * 2) &&
	       aligned(a->out, 0) && aligned(kv->base, kv->row_bytes) &&
	       (kv->layer_bytes | kv->v_offset) % 16 == 0;
}

/* A matrix of bf16, fetched in boxes of 64 columns. */
static int make_map(CUtensorMap *map, const void *base, int64_t cols, int64_t rows,
                    int64_t row_bytes, int32_t box_rows, struct nx_err *err)
{
	cuuint64_t dims[2] = {(cuuint64_t)cols, (cuuint64_t)rows},
		   stride[1] = {(cuuint64_t)row_bytes};
	cuuint32_t box[2] = {64, (cuuint32_t)box_rows}, step[2] = {1, 1};
	CUresult r = encode(map, CU_TENSOR_MAP_DATA_TYPE_BFLOAT16, 2, (void *)base, dims, stride,
	                    box, step, CU_TENSOR_MAP_INTERLEAVE_NONE, CU_TENSOR_MAP_SWIZZLE_128B,
	                    CU_TENSOR_MAP_L2_PROMOTION_L2_256B, CU_TENSOR_MAP_FLOAT_OOB_FILL_NONE);
	return r == CUDA_SUCCESS
	               ? 0
	               : nx_fail(err, NX_EENV, "cuda: cuTensorMapEncodeTiled: error %d", (int)r);
}

/* Rows of a box that never leaves a block; 0: such boxes are too small to be worth while. */
static int32_t box_rows(const struct nx_kv *kv)
{
	int32_t box = TILE;
	while (kv->block_size % box)
		box /= 2;
	return box >= 8 || kv->block_size >= 4 * TILE ? box : 0;
}

static int make_maps(struct prefill *p, const struct nx_attention *a, struct nx_err *err)
{
	const struct nx_kv *kv = a->kv;
	int32_t cols = kv->n_kv_heads * kv->head_dim;
	/* The store does not say how many rows it has; no box is taken outside a block. */
	int64_t rows = INT32_MAX;
	int rc = make_map(&p->q, a->q, (int64_t)a->n_heads * kv->head_dim, a->rows->n_rows,
	                  a->q_stride * 2, TILE, err);
	if (rc || !p->box)
		return rc;
	rc = make_map(&p->k, p->k_base, cols, rows, kv->row_bytes, p->box, err);
	if (!rc)
		rc = make_map(&p->v, p->v_base, cols, rows, kv->row_bytes, p->box, err);
	if (!rc)
		rc = make_map(&p->k_whole, p->k_base, cols, rows, kv->row_bytes, TILE, err);
	return rc ? rc : make_map(&p->v_whole, p->v_base, cols, rows, kv->row_bytes, TILE, err);
}

template <int D, bool TMA>
static int launch(const struct prefill *p, int32_t grid, cudaStream_t s, struct nx_err *err)
{
	return cu_launch(err, "attention_prefill", CU_PDL, prefill_kernel<D, TMA>, dim3(grid),
	                 dim3(N_THREADS), sizeof(struct shared<D>) + 1024, s, *p);
}

/* Heads whose keys and values fit the L2 cache together; heads that share them stay together. */
static int32_t heads_together(const struct nx_attention *a, int32_t group)
{
	const struct nx_kv *kv = a->kv;
	int64_t keys = 0, n;
	keys = (int64_t)a->rows->max_keys * a->rows->n_segments;
	n = SHARED_KV / (keys * kv->head_dim * 4 + 1);
	return group * (int32_t)(n < 1 ? 1 : n < kv->n_kv_heads ? n : kv->n_kv_heads);
}

int attention_prefill(struct cuda_dev *d, cudaStream_t s, const struct nx_attention *a,
                      struct nx_err *err)
{
	const struct nx_kv *kv = a->kv;
	const struct nx_rows *rows = a->rows;
	struct prefill p = {};
	p.segments = rows->segments;
	p.slot_off = rows->slot_off;
	p.len = a->state->len;
	p.table = kv->table;
	p.k_base = kv->base + a->layer * kv->layer_bytes;
	p.v_base = p.k_base + kv->v_offset;
	p.row_bytes = kv->row_bytes;
	p.out = (__nv_bfloat16 *)a->out;
	p.n_segments = rows->n_segments;
	p.n_heads = a->n_heads;
	p.group = a->n_heads / kv->n_kv_heads;
	p.heads_together = heads_together(a, p.group);
	p.block_size = kv->block_size;
	p.table_stride = kv->table_stride;
	p.box = box_rows(kv);
	p.scale = a->scale * 1.4426950408889634f; /* log2(e) */
	int rc = make_maps(&p, a, err);
	if (rc)
		return rc;
	int64_t most = ((int64_t)rows->n_rows / TILE + rows->n_segments) * a->n_heads;
	int32_t grid = most < d->n_sms ? (int32_t)most : d->n_sms;
	if (kv->head_dim == 64)
		return p.box ? launch<64, true>(&p, grid, s, err)
		             : launch<64, false>(&p, grid, s, err);
	return p.box ? launch<128, true>(&p, grid, s, err) : launch<128, false>(&p, grid, s, err);
}
