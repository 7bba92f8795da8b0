/* SPDX-License-Identifier: Apache-2.0
 *
 * engine/store.h: the KV store: a pool of rows, a block table a place, and layer groups.
 *
 * A layer group (the target's layers, a drafter's) has its own geometry and encoding; all groups
 * share one row space and one table, so paging, sharing, swap and preemption move them together. A
 * contiguous layout is a table of one block.
 *
 * Planned operations change host tables at once and queue device work (copies), which nx_store_flush
 * enqueues before the step's forward, in order. Places are indices in [0, max_seqs). Row counts are upper
 * bounds of the device-side length while the host plans ahead.
 */
#ifndef NEXUS_ENGINE_STORE_H
#define NEXUS_ENGINE_STORE_H

#include "engine/engine.h"
#include "engine/pool.h"

#define NX_STORE_GROUPS 2

struct nx_group_shape {
	int32_t n_layers, n_kv_heads, head_dim;
	enum nx_kv_codec codec;
	enum nx_dtype plain;
	int32_t row_bytes;   /* encoded: of the K of a token in one layer */
	int32_t group_size;  /* codes of the device's codecs that share a scale */
	int32_t window;      /* tokens encoded together; 0 and 1 = each by itself */
	int32_t scratch_cap; /* scratch rows a place (candidates, probes) */
};
/* Bytes of the K of a token in one layer. */
int64_t nx_group_row_bytes(const struct nx_group_shape *g);

/* What a place holds. */
struct nx_place {
	int32_t n_blocks;
	int64_t held; /* rows */
	int64_t run;  /* first row of the run, -1 = none */
};

/* A sequence's KV in host memory. */
struct nx_swapped {
	void *rows; /* NULL = nothing is swapped */
	int32_t n_rows;
	int64_t first; /* in the swap pool */
};

struct nx_store {
	struct nx_device *dev;
	struct nx_kv_geometry geo;
	int32_t max_seqs, max_len;
	struct nx_pool pool;
	struct nx_pool swap_pool; /* runs of host rows */
	int32_t swap_extra; /* rows a swapped sequence takes beside its own: windows, group length */
	uint8_t *swap;      /* host memory, swap_pool.n_rows * row_bytes_all */
	size_t swap_bytes;

	int32_t n_groups;
	struct nx_kv kv[NX_STORE_GROUPS];
	size_t kv_bytes[NX_STORE_GROUPS], scratch_bytes[NX_STORE_GROUPS],
		win_bytes[NX_STORE_GROUPS];
	int32_t *group_len;    /* device, [max_seqs] valid length in group 1; NULL without one */
	int64_t row_bytes_all; /* K and V of a token over all layers and groups */

	int32_t table_stride;
	int32_t *blocks; /* [max_seqs, table_stride] block ids (paged) */
	int32_t *table;  /* [max_seqs, table_stride] first pool rows: the device's, host side */
	int32_t *table_dev;
	int32_t *stage[2]; /* host, what uploads read; they take turns */
	int32_t turn;
	int32_t *dirty_lo, *dirty_hi; /* [max_seqs] table columns to upload: [lo, hi) */
	struct nx_place *places;      /* [max_seqs] */

	/* What a prefix cache holds: blocks of the pool, or over contiguous runs blocks of a pool of its own that
	 * lies behind the runs. */
	struct nx_pool *hold_pool; /* &pool, &prefix_pool, or NULL */
	struct nx_pool prefix_pool;
	int64_t prefix_row0; /* first row of prefix_pool */
	int32_t *holds;      /* [hold_pool->n_blocks] by the cache */
	int32_t n_held;      /* blocks with holds */
	int32_t n_idle_held; /* of these, blocks that no sequence has: what eviction can free */

	struct nx_kv_copy *copies; /* queued */
	int32_t n_copies, max_copies;
	struct nx_store_fork {
		int32_t child, parent;
	} * forks; /* queued: what is kept by place follows */
	int32_t n_forks;
	uint64_t n_cow_blocks, n_shared_blocks, n_swapped_rows; /* since reset */
};

/* prefix: of the cache; block_size 0 = there is none. */
int nx_store_init(struct nx_store *s, struct nx_device *dev, const struct nx_kv_geometry *geo,
                  const struct nx_prefix_geometry *prefix, const struct nx_group_shape *groups,
                  int32_t n_groups, int32_t max_seqs, int32_t max_len, struct nx_err *err);
void nx_store_release(struct nx_store *s);
void nx_store_reset(struct nx_store *s);

/* Makes slots [lo, rows) of the place exist and be its own, copying shared blocks on write. NX_ENOSPC when
 * the pool is exhausted: what was taken stays with the place. */
int nx_store_reserve(struct nx_store *s, int32_t place, int32_t lo, int32_t rows,
                     struct nx_err *err);
/* The child sees the parent's first len rows: shared blocks, or a copy into the child's own run, which must
 * be reserved. Copies are queued: flush before the parent writes again. */
int nx_store_fork(struct nx_store *s, int32_t child, int32_t parent, int32_t len,
                  struct nx_err *err);
/* The place, which holds nothing (contiguous: a run), gets the n cached blocks as its first rows. */
int nx_store_share(struct nx_store *s, int32_t place, const int32_t *blocks, int32_t n,
                   struct nx_err *err);
/* For a prefix cache: see kv_hold and kv_release of struct nx_host. */
int32_t nx_store_hold(struct nx_store *s, int32_t place, int32_t index);
int nx_store_let_go(struct nx_store *s, int32_t block, struct nx_err *err);
bool nx_store_idle(const struct nx_store *s, int32_t block);
/* Rows that eviction could free. */
int64_t nx_store_evictable(const struct nx_store *s);
/* Rows [first, first + n) of a place with len rows go; later rows move down. Whole blocks where there are. */
int nx_store_drop(struct nx_store *s, int32_t place, int32_t first, int32_t n, int32_t len,
                  struct nx_err *err);
/* Gives back what lies beyond `rows`; rows = 0 gives back everything. */
void nx_store_trim(struct nx_store *s, int32_t place, int32_t rows);
/* Rows move to host memory and back. swap_out leaves the place empty. NX_ENOSPC: no room. */
int nx_store_swap_out(struct nx_store *s, struct nx_stream *st, int32_t place, int32_t len,
                      struct nx_swapped *out, struct nx_err *err);
int nx_store_swap_in(struct nx_store *s, struct nx_stream *st, int32_t place, struct nx_swapped *in,
                     struct nx_err *err);
void nx_store_swap_drop(struct nx_store *s, struct nx_swapped *in);
/* Enqueues queued copies and table changes: once a step, before its forward. */
int nx_store_flush(struct nx_store *s, struct nx_stream *st, struct nx_err *err);
/* Only the copies: where they must come before other device work of the same step. */
int nx_store_flush_copies(struct nx_store *s, struct nx_stream *st, struct nx_err *err);

/* Rows of the pool that `rows` slots take. */
int64_t nx_store_round(const struct nx_store *s, int64_t rows);
/* Free + used = total; reference counts = table entries; for tests and the idle proof. */
int nx_store_check(const struct nx_store *s, struct nx_err *err);

/* K of the window of a place; V is at + win_v_offset. */
static inline uint8_t *nx_store_window(const struct nx_kv *kv, int32_t layer, int32_t place)
{
	return kv->win + layer * kv->win_layer_bytes +
	       (int64_t)place * kv->window * kv->scratch_row_bytes;
}

/* Bytes that a store of this geometry would take. */
uint64_t nx_store_forecast(const struct nx_kv_geometry *geo,
                           const struct nx_prefix_geometry *prefix,
                           const struct nx_group_shape *groups, int32_t n_groups, int32_t max_seqs);

/* Bytes of host memory for swapped sequences. */
uint64_t nx_store_swap_bytes(const struct nx_kv_geometry *geo, const struct nx_group_shape *groups,
                             int32_t n_groups, int32_t max_seqs);

#endif
