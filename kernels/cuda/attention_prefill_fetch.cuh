/* SPDX-License-Identifier: Apache-2.0
 *
 * attention_prefill_fetch.cuh: which work a block of threads of attention_prefill.cu does, and how its first warpgroup
 * fetches queries, keys and values.
 */
#ifndef NX_CUDA_ATTENTION_PREFILL_FETCH_CUH
#define NX_CUDA_ATTENTION_PREFILL_FETCH_CUH

#include "cuda/attention_prefill_ptx.cuh"
#include "cuda/dev.cuh"

#define TILE 128                 /* rows of a tile of queries, and of a tile of keys */
#define STAGES (D == 64 ? 4 : 2) /* tiles of keys, and of values, in flight */
#define N_THREADS 384            /* a warpgroup that fetches and two that compute */
#define MAX_SEGMENTS 1024
#define MIN_ROWS 32          /* a segment, on average: fewer do not fill a tile's rows */
#define SHARED_KV (32 << 20) /* bytes of keys and values worked on together: they stay in L2 */
#define BAR_TURN 1           /* named barriers: 1 and 2, */
#define BAR_COMPUTE 3        /* 3 and 4, */
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
	int32_t ticket; /* -1: none is left */
	float scale;    /* of scores, for powers of two */
};

/*
 * Numbers that a launch's blocks of threads draw work by; 0 between launches. Each launch has its own: those that run at
 * once must not share one. What is captured may run at any time, so its ticket is never given again; where they have run
 * out work is dealt to and fro instead, which is worse by a few percent.
 */
#define TICKETS_DIRECT 4096 /* given in turn: more launches than can be under way */
#define TICKETS 65536
static __device__ uint32_t tickets[TICKETS];

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
	/* Runs of 64 columns of all rows, 128 bytes a row, swizzled. */
	alignas(1024) uint8_t q[2][TILE * D * 2];
	alignas(1024) uint8_t k[STAGES][TILE * D * 2];
	alignas(1024) uint8_t v[STAGES][TILE * D * 2];
	uint64_t q_full[2], q_empty[2], k_full[STAGES], k_empty[STAGES], v_full[STAGES],
		v_empty[STAGES];
	struct item items[2];
	int32_t drawn[2];
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

/* Tiles of keys and of values: eight rows by 64 columns make 1024 bytes, swizzled; then the next 64 columns, then
 * the next eight rows. */
template <int D> static __device__ __forceinline__ uint32_t tile_at(int32_t row, int32_t half)
{
	return row / 8 * (D * 16) + half * 1024 + row % 8 * 128;
}

/* Where a tile of keys lies: a pool row a lane. By TMA: of box 4 lane + warp. By cp.async: of a row of the tile. */
struct rows_at {
	int32_t row;
	int32_t whole; /* the tile lies in one block: a box */
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
	struct rows_at at = {};
	int32_t lane = threadIdx.x % 32, warp = threadIdx.x / 32, first = tile * TILE;
	if constexpr (TMA) {
		int32_t box = 4 * lane + warp;
		at.whole = first / p.block_size == (first + TILE - 1) / p.block_size;
		at.boxes = at.whole ? 1 : (min(TILE, end - first) + p.box - 1) / p.box;
		if (box < at.boxes)
			at.row = pool_row(p, table, first + box * p.box);
	} else {
		/* Warp w copies rows w * R + i * 4 R + [0, R) of the tile, for each i, where R rows are 512 bytes. */
		constexpr int R = 256 / D;
		int32_t row = lane / R * (4 * R) + warp * R + lane % R;
		at.row = first + row < end ? pool_row(p, table, first + row) : -1;
	}
	return at;
}

template <int D, bool TMA>
static __device__ __forceinline__ void fetch(const struct prefill &p, const CUtensorMap *whole,
                                             const CUtensorMap *boxes, const uint8_t *base,
                                             int32_t kv_head, const struct rows_at &at, uint32_t to,
                                             uint32_t full)
{
	int32_t lane = threadIdx.x % 32, warp = threadIdx.x / 32;
	if constexpr (TMA) {
		int32_t rows = at.whole ? TILE : p.box, box = 4 * lane + warp;
		if (lane == 0)
			bar_expect(full, (at.boxes - warp + 3) / 4 * rows * D * 2);
		__syncwarp();
		if (box < at.boxes) {
			const CUtensorMap *map = at.whole ? whole : boxes;
			to += tile_at<D>(box * rows, 0);
			tma_load(to, map, kv_head * D, at.row, full);
			if (D == 128 && rows < 8)
				tma_load(to + 1024, map, kv_head * D + 64, at.row, full);
		}
	} else {
		constexpr int R = 256 / D, LANES = 32 / R;
		int32_t piece = lane % LANES, row = warp * R + lane / LANES;
		const uint8_t *from = base + kv_head * (D * 2) + piece * 16;
		to += tile_at<D>(row, piece / 8) + (piece % 8 ^ row % 8) * 16;
#pragma unroll 4
		for (int i = 0; i < 32 / R; i++) {
			int32_t source = __shfl_sync(~0u, at.row, i * R + lane / LANES);
			copy_16(to + i * (R / 2 * D * 16), from + max(source, 0) * p.row_bytes,
			        source < 0 ? 0 : 16);
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
	for (int32_t i = threadIdx.x % 32; i < p.n_segments; i += 32) {
		struct place s = sh->places[i];
		longest = max(longest, tiles_of(s.slot0 + s.n_rows));
	}
	longest = __reduce_max_sync(~0u, longest);
	n_tiles = count_from(sh->places, p.n_segments, 1);

	uint32_t k_full = smem_addr(sh->k_full), k_empty = smem_addr(sh->k_empty);
	uint32_t v_full = smem_addr(sh->v_full), v_empty = smem_addr(sh->v_empty);
	uint32_t q = smem_addr(sh->q), k = smem_addr(sh->k), v = smem_addr(sh->v);
	uint32_t q_full = smem_addr(sh->q_full), q_empty = smem_addr(sh->q_empty);
	int32_t last_head = -1; /* of the tile whose values are still to be fetched */
	struct rows_at at = {}, next;
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
	for (int32_t i = blockIdx.x, drawn = 0; i < total; round++) {
		int32_t together = n_tiles * p.heads_together, run = i / together;
		int32_t head0 = run * p.heads_together;
		int32_t heads = min(p.heads_together, p.n_heads - head0);
		struct item it;
		int32_t seq = find_tile(sh->places, p.n_segments, longest,
		                        (i - run * together) / heads, &it);
		it.head = head0 + (i - run * together) % heads;
		int32_t kv_head = it.head / p.group;
		const int32_t *table = p.table + (int64_t)seq * p.table_stride;

		if (warp == 0) {
			int32_t half = round % 2;
			bar_wait(q_empty + 8 * half, (round / 2 & 1) ^ 1);
			if (threadIdx.x == 0) {
				sh->items[half] = it;
				bar_expect(q_full + 8 * half, TILE * D * 2);
				for (int h = 0; h < D / 64; h++)
					tma_load_2d(q + half * TILE * D * 2 + h * TILE * 128, &p.q,
					            it.head * D + h * 64, it.row0,
					            q_full + 8 * half);
			}
			__syncwarp();
		}
		for (int32_t n = it.n_tiles - 1; n >= 0; n--) {
			next = locate<D, TMA>(p, table, n, it.end);
			/* As late as it can be without being waited for. */
			if (n == 0 && threadIdx.x == 0 && p.ticket >= 0)
				drawn = (int32_t)atomicAdd(&tickets[p.ticket], 1);
			fetch_k(kv_head, next);
			if (last_head >= 0)
				fetch_v(last_head, at);
			last_head = kv_head;
			at = next;
		}
		if (p.ticket < 0) {
			i = (round + 1) * grid +
			    (round % 2 ? (int32_t)blockIdx.x : grid - 1 - (int32_t)blockIdx.x);
			continue;
		}
		if (threadIdx.x == 0) {
			if (drawn == total - 1) /* each item draws once: nobody comes after */
				tickets[p.ticket] = 0;
			sh->drawn[round % 2] = drawn;
		}
		named_sync(BAR_FETCH, 128);
		i = grid + sh->drawn[round % 2];
	}
	if (last_head >= 0)
		fetch_v(last_head, at);
	if (threadIdx.x == 0) {
		bar_wait(q_empty + round % 2 * 8, (round / 2 & 1) ^ 1);
		sh->items[round % 2].n_tiles = 0;
		bar_arrive(q_full + round % 2 * 8);
	}
}
#endif
