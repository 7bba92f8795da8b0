/* SPDX-License-Identifier: Apache-2.0
 *
 * engine/store.c: see store.h. Life cycle and swapping; reserve, fork and trim are in store_plan.c.
 */
#include <stdlib.h>
#include <string.h>

#include "engine/store.h"

int64_t nx_group_row_bytes(const struct nx_group_shape *g)
{
	if (g->codec >= NX_KV_OWN)
		return g->row_bytes;
	return (int64_t)g->n_kv_heads * g->head_dim * (g->codec == NX_KV_F32 ? 4 : 2);
}

static int64_t plain_row_bytes(const struct nx_group_shape *g)
{
	return (int64_t)g->n_kv_heads * g->head_dim * (int64_t)nx_dtype_bytes(g->plain);
}

/* Drafted rows are encoded where the codec works row by row. */
static int64_t scratch_row_bytes(const struct nx_group_shape *g)
{
	return g->window > 1 ? plain_row_bytes(g) : nx_group_row_bytes(g);
}

static int64_t window_rows(const struct nx_group_shape *g, int32_t max_seqs)
{
	return g->window > 1 ? (int64_t)g->window * max_seqs : 0;
}

uint64_t nx_store_forecast(const struct nx_kv_geometry *geo,
                           const struct nx_prefix_geometry *prefix,
                           const struct nx_group_shape *groups, int32_t n_groups, int32_t max_seqs)
{
	int64_t sum = 0, rows = geo->n_rows + (geo->blocks ? 0 : prefix->n_rows);
	for (int32_t i = 0; i < n_groups; i++) {
		const struct nx_group_shape *g = &groups[i];
		int64_t side = (int64_t)max_seqs * g->scratch_cap + window_rows(g, max_seqs);
		sum += 2 * (int64_t)g->n_layers *
		       (rows * nx_group_row_bytes(g) + side * scratch_row_bytes(g));
	}
	return (uint64_t)sum;
}

/* Rows kept by place beside the blocks: drafted ones, or the window of a grouped codec. */
static int side_init(struct nx_store *s, const struct nx_kv *kv, int64_t rows, uint8_t **base,
                     int64_t *layer_bytes, int64_t *v_offset, size_t *bytes, struct nx_err *err)
{
	if (rows == 0)
		return 0;
	*v_offset = rows * kv->scratch_row_bytes;
	*layer_bytes = 2 * *v_offset;
	*bytes = (size_t)*layer_bytes * (size_t)kv->n_layers;
	*base = s->dev->ops->alloc(s->dev->dev, *bytes);
	return *base ? 0
	             : nx_fail(err, NX_ENOMEM, "the device has no %zu MiB for KV rows of drafts",
	                       *bytes >> 20);
}

static int group_init(struct nx_store *s, int32_t i, const struct nx_group_shape *g,
                      struct nx_err *err)
{
	struct nx_kv *kv = &s->kv[i];
	int64_t rows = s->prefix_row0 + s->prefix_pool.n_rows;
	*kv = (struct nx_kv){
		.codec = g->codec,
		.plain = g->plain,
		.n_layers = g->n_layers,
		.n_kv_heads = g->n_kv_heads,
		.head_dim = g->head_dim,
		.block_size = s->geo.block_size,
		.table_stride = s->table_stride,
		.table = s->table_dev,
		.row_bytes = nx_group_row_bytes(g),
		.scratch_row_bytes = scratch_row_bytes(g),
		.scratch_cap = g->scratch_cap,
		.window = g->window > 1 ? g->window : 1,
		.group_size = g->group_size,
	};
	kv->v_offset = rows * kv->row_bytes;
	kv->layer_bytes = 2 * kv->v_offset;
	s->kv_bytes[i] = (size_t)kv->layer_bytes * (size_t)g->n_layers;
	kv->base = s->dev->ops->alloc(s->dev->dev, s->kv_bytes[i]);
	if (!kv->base)
		return nx_fail(err, NX_ENOMEM,
		               "the device has no %zu MiB for the KV pool (%lld rows)",
		               s->kv_bytes[i] >> 20, (long long)rows);
	int rc = side_init(s, kv, (int64_t)s->max_seqs * g->scratch_cap, &kv->scratch,
	                   &kv->scratch_layer_bytes, &kv->scratch_v_offset, &s->scratch_bytes[i],
	                   err);
	if (!rc)
		rc = side_init(s, kv, window_rows(g, s->max_seqs), &kv->win, &kv->win_layer_bytes,
		               &kv->win_v_offset, &s->win_bytes[i], err);
	s->row_bytes_all += 2 * (int64_t)g->n_layers * kv->row_bytes;
	return rc;
}

/* Rows that a swapped sequence takes beside its own: windows, and the drafter's valid length. */
static int64_t swap_extra(const struct nx_group_shape *groups, int32_t n_groups, int64_t *row)
{
	int64_t n = n_groups > 1 ? (int64_t)sizeof(int32_t) : 0;
	*row = 0;
	for (int32_t g = 0; g < n_groups; g++) {
		*row += 2 * (int64_t)groups[g].n_layers * nx_group_row_bytes(&groups[g]);
		n += 2 * (int64_t)groups[g].n_layers * window_rows(&groups[g], 1) *
		     scratch_row_bytes(&groups[g]);
	}
	return (n + *row - 1) / *row;
}

uint64_t nx_store_swap_bytes(const struct nx_kv_geometry *geo, const struct nx_group_shape *groups,
                             int32_t n_groups, int32_t max_seqs)
{
	int64_t row, extra = swap_extra(groups, n_groups, &row);
	if (geo->preempt != NX_PREEMPT_SWAP || geo->swap_rows <= 0)
		return 0;
	return (uint64_t)((geo->swap_rows + max_seqs * extra) * row);
}

static int swap_init(struct nx_store *s, const struct nx_group_shape *groups, struct nx_err *err)
{
	int64_t row;
	s->swap_extra = (int32_t)swap_extra(groups, s->n_groups, &row);
	s->swap_bytes = (size_t)nx_store_swap_bytes(&s->geo, groups, s->n_groups, s->max_seqs);
	int rc = nx_pool_init(&s->swap_pool, false, 1, (int64_t)s->swap_bytes / row, s->max_seqs,
	                      err);
	if (rc)
		return rc;
	s->swap = s->dev->ops->host_alloc(s->dev->dev, s->swap_bytes);
	return s->swap ? 0
	               : nx_fail(err, NX_ENOMEM, "no %zu MiB of host memory for swapped sequences",
	                         s->swap_bytes >> 20);
}

/* The pool that a prefix cache holds blocks of. */
static int prefix_init(struct nx_store *s, const struct nx_prefix_geometry *p, struct nx_err *err)
{
	int rc = 0;
	s->prefix_row0 = s->pool.n_rows;
	if (!p->block_size)
		return 0;
	s->hold_pool = &s->pool;
	if (!s->geo.blocks) {
		rc = nx_pool_init(&s->prefix_pool, true, p->block_size, p->n_rows, 1, err);
		s->hold_pool = &s->prefix_pool;
	}
	s->holds = rc ? NULL : calloc((size_t)s->hold_pool->n_blocks, sizeof(*s->holds));
	if (!rc && !s->holds)
		rc = nx_fail(err, NX_ENOMEM, "out of memory for the holds of a prefix cache");
	return rc;
}

int nx_store_init(struct nx_store *s, struct nx_device *dev, const struct nx_kv_geometry *geo,
                  const struct nx_prefix_geometry *prefix, const struct nx_group_shape *groups,
                  int32_t n_groups, int32_t max_seqs, int32_t max_len, struct nx_err *err)
{
	memset(s, 0, sizeof(*s));
	s->dev = dev;
	s->geo = *geo;
	s->max_seqs = max_seqs;
	s->max_len = max_len;
	s->table_stride = geo->blocks ? (max_len + geo->block_size - 1) / geo->block_size : 1;
	int rc = nx_pool_init(&s->pool, geo->blocks, geo->block_size, geo->n_rows, max_seqs, err);
	if (!rc)
		rc = prefix_init(s, prefix, err);
	if (rc)
		goto fail;

	size_t n = (size_t)max_seqs * (size_t)s->table_stride;
	/* One copy per block of every place (copy-on-write), and one per fork; over runs, a prefix cache copies
	 * each of its blocks in and out. */
	s->max_copies = 2 * max_seqs + 16;
	if (s->hold_pool && !geo->blocks)
		s->max_copies += 2 * max_seqs * (max_len / prefix->block_size + 1);
	s->blocks = calloc(n, sizeof(*s->blocks));
	s->table = calloc(n, sizeof(*s->table));
	s->dirty_lo = calloc((size_t)max_seqs, sizeof(*s->dirty_lo));
	s->dirty_hi = calloc((size_t)max_seqs, sizeof(*s->dirty_hi));
	s->places = calloc((size_t)max_seqs, sizeof(*s->places));
	s->copies = calloc((size_t)s->max_copies, sizeof(*s->copies));
	s->forks = calloc((size_t)max_seqs, sizeof(*s->forks));
	if (n_groups > 1)
		s->group_len = dev->ops->alloc(dev->dev, (size_t)max_seqs * sizeof(*s->group_len));
	s->table_dev = dev->ops->alloc(dev->dev, n * sizeof(*s->table));
	s->stage[0] = dev->ops->host_alloc(dev->dev, n * sizeof(*s->table));
	s->stage[1] = dev->ops->host_alloc(dev->dev, n * sizeof(*s->table));
	if (!s->stage[0] || !s->stage[1] || !s->blocks || !s->table || !s->dirty_lo ||
	    !s->dirty_hi || !s->places || !s->copies || !s->table_dev || !s->forks ||
	    (n_groups > 1 && !s->group_len)) {
		rc = nx_fail(err, NX_ENOMEM, "out of memory for the block tables of %d sequences",
		             max_seqs);
		goto fail;
	}
	for (int32_t i = 0; i < n_groups; i++) {
		s->n_groups = i + 1;
		rc = group_init(s, i, &groups[i], err);
		if (rc)
			goto fail;
	}
	if (geo->preempt == NX_PREEMPT_SWAP && geo->swap_rows > 0) {
		rc = swap_init(s, groups, err);
		if (rc)
			goto fail;
	}
	nx_store_reset(s);
	return 0;
fail:
	nx_store_release(s);
	return rc;
}

void nx_store_release(struct nx_store *s)
{
	if (!s->dev)
		return;
	const struct nx_device_ops *ops = s->dev->ops;
	void *dev = s->dev->dev;
	for (int32_t i = 0; i < s->n_groups; i++) {
		if (s->kv[i].base)
			ops->free(dev, s->kv[i].base, s->kv_bytes[i]);
		if (s->kv[i].scratch)
			ops->free(dev, s->kv[i].scratch, s->scratch_bytes[i]);
		if (s->kv[i].win)
			ops->free(dev, s->kv[i].win, s->win_bytes[i]);
	}
	if (s->group_len)
		ops->free(dev, s->group_len, (size_t)s->max_seqs * sizeof(*s->group_len));
	if (s->table_dev)
		ops->free(dev, s->table_dev,
		          (size_t)s->max_seqs * (size_t)s->table_stride * sizeof(*s->table));
	for (int i = 0; i < 2; i++)
		if (s->stage[i])
			ops->host_free(dev, s->stage[i],
			               (size_t)s->max_seqs * (size_t)s->table_stride *
			                       sizeof(*s->table));
	if (s->swap)
		ops->host_free(dev, s->swap, s->swap_bytes);
	nx_pool_release(&s->pool);
	nx_pool_release(&s->swap_pool);
	nx_pool_release(&s->prefix_pool);
	free(s->holds);
	free(s->forks);
	free(s->blocks);
	free(s->table);
	free(s->dirty_lo);
	free(s->dirty_hi);
	free(s->places);
	free(s->copies);
	memset(s, 0, sizeof(*s));
}

void nx_store_reset(struct nx_store *s)
{
	nx_pool_reset(&s->pool);
	if (s->swap)
		nx_pool_reset(&s->swap_pool);
	if (s->hold_pool) {
		if (s->hold_pool == &s->prefix_pool)
			nx_pool_reset(&s->prefix_pool);
		memset(s->holds, 0, (size_t)s->hold_pool->n_blocks * sizeof(*s->holds));
	}
	s->n_held = s->n_idle_held = 0;
	for (int32_t p = 0; p < s->max_seqs; p++) {
		s->places[p] = (struct nx_place){.run = -1};
		s->dirty_lo[p] = 0;
		s->dirty_hi[p] = s->table_stride;
	}
	for (size_t i = 0; i < (size_t)s->max_seqs * (size_t)s->table_stride; i++)
		s->table[i] = s->blocks[i] = -1;
	s->n_copies = s->n_forks = 0;
	s->n_cow_blocks = s->n_shared_blocks = s->n_swapped_rows = 0;
}

/* Every group's rows of one contiguous piece, one after the other in host memory. */
static int swap_piece(struct nx_store *s, struct nx_stream *st, int32_t row, int32_t n,
                      uint8_t **host, enum nx_copy_dir dir, struct nx_err *err)
{
	for (int32_t g = 0; g < s->n_groups; g++) {
		int rc = s->dev->ops->kv_swap(s->dev->dev, st, &s->kv[g], row, n, *host, dir, err);
		if (rc)
			return rc;
		*host += (size_t)n * nx_kv_swap_row_bytes(&s->kv[g]);
	}
	return 0;
}

static int swap_rows(struct nx_store *s, struct nx_stream *st, int32_t place, int32_t len,
                     uint8_t *host, enum nx_copy_dir dir, struct nx_err *err)
{
	int32_t step = s->geo.blocks ? s->geo.block_size : len;
	for (int32_t at = 0; at < len; at += step) {
		int32_t n = len - at < step ? len - at : step;
		int32_t row =
			s->table[(size_t)place * (size_t)s->table_stride + (size_t)(at / step)];
		int rc = swap_piece(s, st, row, n, &host, dir, err);
		if (rc)
			return rc;
	}
	return 0;
}

/* Windows and the drafter's length of a place, to or from host memory. */
static int swap_side(struct nx_store *s, struct nx_stream *st, int32_t place, uint8_t *host,
                     enum nx_copy_dir dir, struct nx_err *err)
{
	const struct nx_device_ops *ops = s->dev->ops;
	int rc = 0;
	for (int32_t g = 0; g < s->n_groups; g++) {
		const struct nx_kv *kv = &s->kv[g];
		size_t bytes = (size_t)kv->window * (size_t)kv->scratch_row_bytes;
		for (int32_t part = 0; kv->win && part < 2 * kv->n_layers && !rc; part++) {
			uint8_t *at = nx_store_window(kv, part / 2, place) +
			              (part & 1) * kv->win_v_offset;
			rc = ops->copy(s->dev->dev, st, dir == NX_D2H ? host : at,
			               dir == NX_D2H ? at : host, bytes, dir, err);
			host += bytes;
		}
	}
	if (rc || !s->group_len)
		return rc;
	void *len = s->group_len + place;
	return ops->copy(s->dev->dev, st, dir == NX_D2H ? (void *)host : len,
	                 dir == NX_D2H ? len : (void *)host, sizeof(*s->group_len), dir, err);
}

int nx_store_swap_out(struct nx_store *s, struct nx_stream *st, int32_t place, int32_t len,
                      struct nx_swapped *out, struct nx_err *err)
{
	if (!s->swap)
		return nx_fail(err, NX_ENOSPC, "no swap space is configured");
	int64_t first = nx_pool_take_run(&s->swap_pool, len + s->swap_extra);
	if (first < 0)
		return nx_fail(err, NX_ENOSPC, "the swap space of %lld rows is full",
		               (long long)s->swap_pool.n_rows);
	uint8_t *host = s->swap + (size_t)first * (size_t)s->row_bytes_all;
	/* Queued copies may still have to fill rows that leave now. */
	int rc = nx_store_flush_copies(s, st, err);
	if (!rc)
		rc = swap_rows(s, st, place, len, host, NX_D2H, err);
	if (!rc)
		rc = swap_side(s, st, place, host + (size_t)len * (size_t)s->row_bytes_all, NX_D2H,
		               err);
	if (rc) {
		nx_pool_drop_run(&s->swap_pool, first);
		return rc;
	}
	*out = (struct nx_swapped){.rows = host, .n_rows = len, .first = first};
	s->n_swapped_rows += (uint64_t)len;
	nx_store_trim(s, place, 0);
	return 0;
}

int nx_store_swap_in(struct nx_store *s, struct nx_stream *st, int32_t place, struct nx_swapped *in,
                     struct nx_err *err)
{
	int rc = nx_store_reserve(s, place, 0, in->n_rows, err);
	/* Queued copies may still have to read rows that are overwritten now. */
	if (!rc)
		rc = nx_store_flush_copies(s, st, err);
	if (!rc)
		rc = swap_rows(s, st, place, in->n_rows, in->rows, NX_H2D, err);
	if (!rc)
		rc = swap_side(s, st, place,
		               (uint8_t *)in->rows + (size_t)in->n_rows * (size_t)s->row_bytes_all,
		               NX_H2D, err);
	if (rc)
		return rc;
	s->n_swapped_rows += (uint64_t)in->n_rows;
	nx_store_swap_drop(s, in);
	return 0;
}

void nx_store_swap_drop(struct nx_store *s, struct nx_swapped *in)
{
	if (in->rows)
		nx_pool_drop_run(&s->swap_pool, in->first);
	memset(in, 0, sizeof(*in));
}
