/* SPDX-License-Identifier: Apache-2.0
 *
 * engine/store.h: the KV store: a pool of rows, a block table a place, and layer groups.
 *
 * A layer group (the target's layers; later a drafter's) has its own geometry and encoding; all groups
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
	int32_t scratch_cap; /* scratch rows a place (candidates, probes) */
};

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
	uint8_t *swap;            /* host memory, swap_pool.n_rows * row_bytes_all */
	size_t swap_bytes;

	int32_t n_groups;
	struct nx_kv kv[NX_STORE_GROUPS];
	size_t kv_bytes[NX_STORE_GROUPS], scratch_bytes[NX_STORE_GROUPS];
	int64_t row_bytes_all; /* K and V of a token over all layers and groups */

	int32_t table_stride;
	int32_t *blocks; /* [max_seqs, table_stride] block ids (paged) */
	int32_t *table;  /* [max_seqs, table_stride] first pool rows: the device's, host side */
	int32_t *table_dev;
	int32_t *stage[2]; /* host, what uploads read; they take turns */
	int32_t turn;
	int32_t *dirty_lo, *dirty_hi; /* [max_seqs] table columns to upload: [lo, hi) */
	struct nx_place *places;      /* [max_seqs] */

	struct nx_kv_copy *copies; /* queued */
	int32_t n_copies, max_copies;
	uint64_t n_cow_blocks, n_shared_blocks, n_swapped_rows; /* since reset */
};

int nx_store_init(struct nx_store *s, struct nx_device *dev, const struct nx_kv_geometry *geo,
                  const struct nx_group_shape *groups, int32_t n_groups, int32_t max_seqs,
                  int32_t max_len, struct nx_err *err);
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

/* Bytes that a store of this geometry would take. */
uint64_t nx_store_forecast(const struct nx_kv_geometry *geo, const struct nx_group_shape *groups,
                           int32_t n_groups, int32_t max_seqs);

#endif
