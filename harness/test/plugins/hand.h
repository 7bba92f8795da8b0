/* SPDX-License-Identifier: Apache-2.0
 *
 * test/plugins/hand.h: what test techniques with device functions of their own share: numbers, elements of either
 * type, places in the KV store, and arguments of enqueued calls.
 */
#ifndef NEXUS_TEST_PLUGINS_HAND_H
#define NEXUS_TEST_PLUGINS_HAND_H

#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

#include "nexus/technique.h"
#include "nexus_kernels/rng.h"
#include "nexus_kernels/rows.h"

static inline uint64_t hand_mix(uint64_t x)
{
	x += 0x9e3779b97f4a7c15ull;
	x = (x ^ x >> 30) * 0xbf58476d1ce4e5b9ull;
	x = (x ^ x >> 27) * 0x94d049bb133111ebull;
	return x ^ x >> 31;
}

/* Uniform in [0, 1). */
static inline double hand_unit(uint64_t x)
{
	return (double)(hand_mix(x) >> 11) * (1.0 / 9007199254740992.0);
}

/* The next number of a generator whose whole state is *x. */
static inline uint64_t hand_next(uint64_t *x)
{
	return hand_mix((*x)++);
}

/* ---- elements --------------------------------------------------------------------------------- */

static inline float hand_get(const void *p, enum nx_dtype t, int64_t i)
{
	float x;
	uint32_t u;
	if (t == NX_F32) {
		memcpy(&x, (const uint8_t *)p + 4 * i, 4);
		return x;
	}
	uint16_t h;
	memcpy(&h, (const uint8_t *)p + 2 * i, 2);
	u = (uint32_t)h << 16;
	memcpy(&x, &u, 4);
	return x;
}

/* bf16: to nearest, ties to even. */
static inline void hand_put(void *p, enum nx_dtype t, int64_t i, float x)
{
	if (t == NX_F32) {
		memcpy((uint8_t *)p + 4 * i, &x, 4);
		return;
	}
	uint32_t u;
	memcpy(&u, &x, 4);
	uint16_t h = (uint16_t)((u & 0x7fffffff) > 0x7f800000 ? u >> 16 | 64
	                                                      : (u + 0x7fff + (u >> 16 & 1)) >> 16);
	memcpy((uint8_t *)p + 2 * i, &h, 2);
}

/* What a value is after a stay in memory of type t. */
static inline float hand_round(enum nx_dtype t, float x)
{
	uint32_t box = 0;
	hand_put(&box, t, 0, x);
	return hand_get(&box, t, 0);
}

/* ---- places in the store (nexus/rows.h); V at + v_offset, scratch_v_offset, win_v_offset -------------- */

static inline uint8_t *hand_slot(const struct nx_kv *kv, int32_t layer, int32_t seq, int32_t slot)
{
	int64_t first = kv->table[(int64_t)seq * kv->table_stride + slot / kv->block_size];
	return kv->base + layer * kv->layer_bytes + (first + slot % kv->block_size) * kv->row_bytes;
}

static inline uint8_t *hand_scratch(const struct nx_kv *kv, int32_t layer, int32_t seq, int32_t i)
{
	return kv->scratch + layer * kv->scratch_layer_bytes +
	       ((int64_t)seq * kv->scratch_cap + i) * kv->scratch_row_bytes;
}

static inline uint8_t *hand_window(const struct nx_kv *kv, int32_t layer, int32_t seq, int32_t slot)
{
	return kv->win + layer * kv->win_layer_bytes +
	       ((int64_t)seq * kv->window + slot % kv->window) * kv->scratch_row_bytes;
}

/* ---- arguments of enqueued calls -------------------------------------------------------------- */

/*
 * enqueue() wants arguments that live until the stream has run the call, and says neither when that is nor how
 * many calls may be under way: a ring whose slots say themselves when they are done. take() gives NULL when the
 * stream is a whole ring behind.
 */
struct hand_slot_head {
	_Atomic int busy;
	nx_enqueue_fn fn;
};
#define HAND_HEAD 64 /* keeps what follows aligned */

struct hand_ring {
	const struct nx_host *host;
	uint8_t *mem;
	size_t slot_bytes, n, next;
};

static inline int hand_ring_open(struct hand_ring *r, const struct nx_host *host, size_t arg_bytes,
                                 size_t n)
{
	r->host = host;
	r->slot_bytes = HAND_HEAD + (arg_bytes + 63) / 64 * 64;
	r->n = n;
	r->next = 0;
	r->mem = host->alloc(host->ctx, NX_MEM_HOST, r->slot_bytes * n);
	if (!r->mem)
		return NX_ENOMEM;
	memset(r->mem, 0, r->slot_bytes * n);
	return 0;
}

static inline void hand_ring_close(struct hand_ring *r)
{
	if (r->mem)
		r->host->free(r->host->ctx, NX_MEM_HOST, r->mem, r->slot_bytes * r->n);
	r->mem = NULL;
}

static inline void *hand_take(struct hand_ring *r)
{
	uint8_t *p = r->mem + r->slot_bytes * r->next;
	struct hand_slot_head *h = (struct hand_slot_head *)(void *)p;
	if (atomic_load(&h->busy))
		return NULL;
	r->next = (r->next + 1) % r->n;
	return p + HAND_HEAD;
}

static inline void hand_run(void *slot)
{
	struct hand_slot_head *h = slot;
	h->fn((uint8_t *)slot + HAND_HEAD);
	atomic_store(&h->busy, 0);
}

/* Enqueues fn(arg); arg is a copy of the arg_bytes at `from`. */
static inline int hand_enqueue(struct hand_ring *r, struct nx_stream *s, nx_enqueue_fn fn,
                               const void *from, size_t arg_bytes, struct nx_err *err)
{
	uint8_t *arg = hand_take(r);
	if (!arg || arg_bytes > r->slot_bytes - HAND_HEAD)
		return nx_fail(err, NX_EBUG, "the stream is %zu calls of this technique behind",
		               r->n);
	struct hand_slot_head *h = (struct hand_slot_head *)(void *)(arg - HAND_HEAD);
	memcpy(arg, from, arg_bytes);
	h->fn = fn;
	atomic_store(&h->busy, 1);
	int rc = r->host->ops->enqueue(r->host->dev, s, hand_run, h, err);
	if (rc)
		atomic_store(&h->busy, 0);
	return rc;
}

#endif
