/* SPDX-License-Identifier: Apache-2.0
 *
 * engine/store_plan.c: the planned operations of the KV store; see store.h.
 */
#include <stdlib.h>
#include <string.h>

#include "engine/store.h"

static int32_t *block_at(struct nx_store *s, int32_t place, int32_t i)
{
	return &s->blocks[(size_t)place * (size_t)s->table_stride + (size_t)i];
}

/* Puts a first row into the table and marks the entry for upload. */
static void table_set(struct nx_store *s, int32_t place, int32_t i, int64_t first_row)
{
	s->table[(size_t)place * (size_t)s->table_stride + (size_t)i] = (int32_t)first_row;
	if (i < s->dirty_lo[place])
		s->dirty_lo[place] = i;
	if (i >= s->dirty_hi[place])
		s->dirty_hi[place] = i + 1;
}

static void set_block(struct nx_store *s, int32_t place, int32_t i, int32_t block)
{
	*block_at(s, place, i) = block;
	table_set(s, place, i, block < 0 ? -1 : (int64_t)block * s->geo.block_size);
}

int64_t nx_store_round(const struct nx_store *s, int64_t rows)
{
	int64_t b = s->geo.blocks ? s->geo.block_size : 1;
	return (rows + b - 1) / b * b;
}

static int full(const struct nx_store *s, int32_t rows, struct nx_err *err)
{
	return nx_fail(err, NX_ENOSPC,
	               "the KV pool has %lld of %lld rows free and a sequence wants %d",
	               (long long)s->pool.free_rows, (long long)s->pool.n_rows, rows);
}

/* Goes on where the last copy ended: a prefix of small blocks is then one copy. What overlaps stays apart, since
 * copies are made one after the other. */
static bool extend_copy(struct nx_store *s, int64_t dst, int64_t src, int32_t n)
{
	struct nx_kv_copy *c = s->n_copies ? &s->copies[s->n_copies - 1] : NULL;
	if (!c || c->dst + c->n_rows != dst || c->src + c->n_rows != src ||
	    llabs(dst - src) < c->n_rows + n)
		return false;
	c->n_rows += n;
	return true;
}

static int queue_copy(struct nx_store *s, int64_t dst, int64_t src, int32_t n, struct nx_err *err)
{
	if (extend_copy(s, dst, src, n))
		return 0;
	if (s->n_copies == s->max_copies)
		return nx_fail(err, NX_EBUG, "more than %d KV copies in a step", s->max_copies);
	s->copies[s->n_copies++] =
		(struct nx_kv_copy){.dst = (int32_t)dst, .src = (int32_t)src, .n_rows = n};
	return 0;
}

static int reserve_run(struct nx_store *s, int32_t place, int32_t rows, struct nx_err *err)
{
	struct nx_place *p = &s->places[place];
	if (p->held >= rows)
		return 0;
	if (p->run >= 0)
		return nx_fail(err, NX_EBUG,
		               "a contiguous reservation of %lld rows would have to grow to %d",
		               (long long)p->held, rows);
	int64_t first = nx_pool_take_run(&s->pool, rows);
	if (first < 0)
		return full(s, rows, err);
	p->run = first;
	p->held = rows;
	p->n_blocks = 1;
	table_set(s, place, 0, first);
	return 0;
}

/* References of the pool that a cache holds blocks of: who only the cache has is counted on the way. */
static bool idle_held(const struct nx_store *s, int32_t b)
{
	return s->hold_pool && s->holds[b] > 0 && s->hold_pool->refs[b] == s->holds[b];
}

static void ref_up(struct nx_store *s, struct nx_pool *p, int32_t b)
{
	bool counts = p == s->hold_pool, before = counts && idle_held(s, b);
	nx_pool_hold(p, b);
	s->n_idle_held += counts ? (int32_t)idle_held(s, b) - (int32_t)before : 0;
}

static void ref_down(struct nx_store *s, struct nx_pool *p, int32_t b)
{
	bool counts = p == s->hold_pool, before = counts && idle_held(s, b);
	nx_pool_drop(p, b);
	s->n_idle_held += counts ? (int32_t)idle_held(s, b) - (int32_t)before : 0;
}

/* Block i of the place becomes its own; rows below the place's write position are copied. */
static int own_block(struct nx_store *s, int32_t place, int32_t i, int32_t rows, struct nx_err *err)
{
	int32_t old = *block_at(s, place, i);
	if (s->pool.refs[old] == 1)
		return 0;
	int32_t fresh = nx_pool_take(&s->pool);
	if (fresh < 0)
		return full(s, rows, err);
	int64_t bs = s->geo.block_size;
	int rc = queue_copy(s, fresh * bs, old * bs, (int32_t)bs, err);
	if (rc) {
		nx_pool_drop(&s->pool, fresh);
		return rc;
	}
	ref_down(s, &s->pool, old);
	set_block(s, place, i, fresh);
	s->n_cow_blocks++;
	return 0;
}

int nx_store_reserve(struct nx_store *s, int32_t place, int32_t lo, int32_t rows,
                     struct nx_err *err)
{
	struct nx_place *p = &s->places[place];
	if (rows > s->max_len)
		return nx_fail(err, NX_EBUG, "%d KV rows wanted for a sequence of at most %d", rows,
		               s->max_len);
	if (!s->geo.blocks)
		return reserve_run(s, place, rows, err);

	int32_t bs = s->geo.block_size, last = (rows + bs - 1) / bs;
	for (int32_t i = lo / bs; i < last && i < p->n_blocks; i++) {
		int rc = own_block(s, place, i, rows, err);
		if (rc)
			return rc;
	}
	while (p->n_blocks < last) {
		int32_t b = nx_pool_take(&s->pool);
		if (b < 0)
			return full(s, rows, err);
		set_block(s, place, p->n_blocks++, b);
		p->held += bs;
	}
	return 0;
}

int nx_store_fork(struct nx_store *s, int32_t child, int32_t parent, int32_t len,
                  struct nx_err *err)
{
	struct nx_place *c = &s->places[child];
	const struct nx_place *p = &s->places[parent];
	/* What is kept by place follows after the forward, with the queued copies. */
	s->forks[s->n_forks++] = (struct nx_store_fork){.child = child, .parent = parent};
	if (!s->geo.blocks)
		return queue_copy(s, c->run, p->run, len, err);

	nx_store_trim(s, child, 0);
	int32_t bs = s->geo.block_size, n = (len + bs - 1) / bs;
	for (int32_t i = 0; i < n; i++) {
		int32_t b = *block_at(s, parent, i);
		ref_up(s, &s->pool, b);
		set_block(s, child, i, b);
	}
	c->n_blocks = n;
	c->held = (int64_t)n * bs;
	s->n_shared_blocks += (uint64_t)n;
	return 0;
}

void nx_store_trim(struct nx_store *s, int32_t place, int32_t rows)
{
	struct nx_place *p = &s->places[place];
	if (!s->geo.blocks) {
		if (rows > 0 || p->run < 0)
			return; /* a run is kept or given back as a whole */
		nx_pool_drop_run(&s->pool, p->run);
		table_set(s, place, 0, -1);
		*p = (struct nx_place){.run = -1};
		return;
	}
	int32_t bs = s->geo.block_size, keep = (rows + bs - 1) / bs;
	/* Tail first, so that the first blocks end up on top of the free stack. */
	while (p->n_blocks > keep) {
		int32_t i = --p->n_blocks;
		ref_down(s, &s->pool, *block_at(s, place, i));
		set_block(s, place, i, -1);
		p->held -= bs;
	}
}

int nx_store_share(struct nx_store *s, int32_t place, const int32_t *blocks, int32_t n,
                   struct nx_err *err)
{
	struct nx_place *p = &s->places[place];
	for (int32_t i = 0; i < n; i++) {
		if (blocks[i] < 0 || blocks[i] >= s->hold_pool->n_blocks || !s->holds[blocks[i]])
			return nx_fail(
				err, NX_EBUG,
				"the prefix cache offers KV block %d, which it does not hold",
				blocks[i]);
	}
	int64_t bs = s->hold_pool->block_size;
	for (int32_t i = 0; i < n; i++) {
		if (!s->geo.blocks) {
			int rc = queue_copy(s, p->run + i * bs, s->prefix_row0 + blocks[i] * bs,
			                    (int32_t)bs, err);
			if (rc)
				return rc;
			continue;
		}
		ref_up(s, &s->pool, blocks[i]);
		set_block(s, place, p->n_blocks++, blocks[i]);
		p->held += bs;
	}
	s->n_shared_blocks += (uint64_t)n;
	return 0;
}

int32_t nx_store_hold(struct nx_store *s, int32_t place, int32_t index)
{
	if (!s->hold_pool || place < 0 || place >= s->max_seqs || index < 0)
		return -1;
	const struct nx_place *p = &s->places[place];
	int64_t bs = s->hold_pool->block_size;
	int32_t b;
	if (s->geo.blocks) {
		if (index >= p->n_blocks)
			return -1;
		b = *block_at(s, place, index);
		nx_pool_hold(&s->pool, b); /* a sequence has it: not idle */
	} else {
		if (p->run < 0 || (index + 1) * bs > p->held || s->n_copies == s->max_copies)
			return -1;
		b = nx_pool_take(&s->prefix_pool);
		if (b < 0)
			return -1;
		queue_copy(s, s->prefix_row0 + b * bs, p->run + index * bs, (int32_t)bs, NULL);
		s->n_idle_held++;
	}
	s->n_held += s->holds[b]++ == 0;
	return b;
}

int nx_store_let_go(struct nx_store *s, int32_t block, struct nx_err *err)
{
	if (!s->hold_pool || block < 0 || block >= s->hold_pool->n_blocks || !s->holds[block])
		return nx_fail(err, NX_EBUG,
		               "the prefix cache releases KV block %d, which it does not hold",
		               block);
	s->n_idle_held -= idle_held(s, block);
	s->n_held -= --s->holds[block] == 0;
	nx_pool_drop(s->hold_pool, block);
	s->n_idle_held += idle_held(s, block);
	return 0;
}

bool nx_store_idle(const struct nx_store *s, int32_t block)
{
	return s->hold_pool && block >= 0 && block < s->hold_pool->n_blocks && idle_held(s, block);
}

int64_t nx_store_evictable(const struct nx_store *s)
{
	return s->hold_pool == &s->pool ? (int64_t)s->n_idle_held * s->pool.block_size : 0;
}

int nx_store_drop(struct nx_store *s, int32_t place, int32_t first, int32_t n, int32_t len,
                  struct nx_err *err)
{
	struct nx_place *p = &s->places[place];
	if (!s->geo.blocks)
		return queue_copy(s, p->run + first, p->run + first + n, len - first - n, err);
	int32_t bs = s->geo.block_size, at = first / bs, gone = n / bs;
	for (int32_t i = at; i < at + gone; i++)
		ref_down(s, &s->pool, *block_at(s, place, i));
	for (int32_t i = at; i < p->n_blocks; i++)
		set_block(s, place, i, i + gone < p->n_blocks ? *block_at(s, place, i + gone) : -1);
	p->n_blocks -= gone;
	p->held -= n;
	return 0;
}

/* What a child has by place: the windows of grouped codecs, the drafter's valid length. */
static int flush_forks(struct nx_store *s, struct nx_stream *st, struct nx_err *err)
{
	const struct nx_device_ops *ops = s->dev->ops;
	int rc = 0;
	for (int32_t f = 0; f < s->n_forks && !rc; f++) {
		int32_t to = s->forks[f].child, from = s->forks[f].parent;
		for (int32_t g = 0; g < s->n_groups; g++) {
			const struct nx_kv *kv = &s->kv[g];
			size_t bytes = (size_t)kv->window * (size_t)kv->scratch_row_bytes;
			for (int32_t part = 0; kv->win && part < 2 * kv->n_layers && !rc; part++) {
				int64_t v = (part & 1) * kv->win_v_offset;
				rc = ops->copy(s->dev->dev, st,
				               nx_store_window(kv, part / 2, to) + v,
				               nx_store_window(kv, part / 2, from) + v, bytes,
				               NX_D2D, err);
			}
		}
		if (!rc && s->group_len)
			rc = ops->copy(s->dev->dev, st, s->group_len + to, s->group_len + from,
			               sizeof(*s->group_len), NX_D2D, err);
	}
	s->n_forks = 0;
	return rc;
}

int nx_store_flush_copies(struct nx_store *s, struct nx_stream *st, struct nx_err *err)
{
	for (int32_t g = 0; g < s->n_groups && s->n_copies; g++) {
		int rc = s->dev->ops->kv_copy(s->dev->dev, st, &s->kv[g], s->copies, s->n_copies,
		                              err);
		if (rc)
			return rc;
	}
	s->n_copies = 0;
	return flush_forks(s, st, err);
}

int nx_store_flush(struct nx_store *s, struct nx_stream *st, struct nx_err *err)
{
	const struct nx_device_ops *ops = s->dev->ops;
	int rc = nx_store_flush_copies(s, st, err);
	if (rc)
		return rc;
	/* The device may still read the stage of the step before, so two take turns. */
	int32_t *stage = s->stage[s->turn ^= 1];
	for (int32_t p = 0; p < s->max_seqs; p++) {
		if (s->dirty_lo[p] >= s->dirty_hi[p])
			continue;
		size_t at = (size_t)p * (size_t)s->table_stride + (size_t)s->dirty_lo[p];
		size_t bytes = (size_t)(s->dirty_hi[p] - s->dirty_lo[p]) * sizeof(*s->table);
		memcpy(stage + at, s->table + at, bytes);
		rc = ops->copy(s->dev->dev, st, s->table_dev + at, stage + at, bytes, NX_H2D, err);
		if (rc)
			return rc;
		s->dirty_lo[p] = s->table_stride;
		s->dirty_hi[p] = 0;
	}
	return 0;
}

/* How often each block stands in tables against its count. Allocates: not for the timed path. */
static int check_counts(const struct nx_store *s, struct nx_err *err)
{
	int rc = 0;
	int32_t *n = calloc((size_t)s->pool.n_blocks, sizeof(*n));
	if (!n)
		return nx_fail(err, NX_ENOMEM, "out of memory while checking the KV store");
	for (int32_t p = 0; p < s->max_seqs && !rc; p++) {
		for (int32_t i = 0; i < s->places[p].n_blocks; i++) {
			int32_t b = s->blocks[(size_t)p * (size_t)s->table_stride + (size_t)i];
			if (b < 0 || b >= s->pool.n_blocks) {
				rc = nx_fail(err, NX_EBUG, "place %d holds KV block %d of %d", p, b,
				             s->pool.n_blocks);
				break;
			}
			n[b]++;
		}
	}
	for (int32_t b = 0; b < s->pool.n_blocks && !rc; b++) {
		int32_t holds = s->hold_pool ? s->holds[b] : 0;
		if (n[b] + holds != s->pool.refs[b])
			rc = nx_fail(
				err, NX_EBUG,
				"KV block %d stands in %d tables, is held %d times and counted %d times",
				b, n[b], holds, s->pool.refs[b]);
	}
	free(n);
	return rc;
}

int nx_store_check(const struct nx_store *s, struct nx_err *err)
{
	int rc = nx_pool_check(&s->pool, err);
	if (!rc && s->geo.blocks)
		rc = check_counts(s, err);
	if (!rc && s->hold_pool == &s->prefix_pool)
		rc = nx_pool_check(&s->prefix_pool, err);
	int32_t held = 0, idle = 0;
	for (int32_t b = 0; s->hold_pool && b < s->hold_pool->n_blocks; b++) {
		held += s->holds[b] > 0;
		idle += idle_held(s, b);
	}
	if (!rc && (held != s->n_held || idle != s->n_idle_held))
		rc = nx_fail(err, NX_EBUG,
		             "%d KV blocks are held (counted %d), %d idle (counted %d)", held,
		             s->n_held, idle, s->n_idle_held);
	return rc;
}
