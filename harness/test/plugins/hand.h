/* SPDX-License-Identifier: Apache-2.0
 *
 * test/plugins/hand.h: what test techniques with device functions of their own share: numbers, the device they
 * want, elements of either type, and places in the KV store.
 */
#ifndef NEXUS_TEST_PLUGINS_HAND_H
#define NEXUS_TEST_PLUGINS_HAND_H

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

/* What they enqueue is C: for the CPU, and for the late device, which runs it there. */
static inline int hand_probe(struct nx_probe *p, struct nx_err *err)
{
	if (strcmp(p->device_kind, "late") == 0 || (p->device_caps & NX_DEV_HOST_MEMORY))
		return 0;
	return nx_fail(err, NX_ESKIP, "there are no kernels for the device '%s'", p->device_kind);
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

/* A slot without a block would be written before the pool: end with a sentence, not with a broken heap. */
static inline uint8_t *hand_slot(const struct nx_kv *kv, int32_t layer, int32_t seq, int32_t slot)
{
	int64_t first = -1;
	if (slot >= 0 && slot / kv->block_size < kv->table_stride)
		first = kv->table[(int64_t)seq * kv->table_stride + slot / kv->block_size];
	if (first < 0) {
		fprintf(stderr, "slot %d of sequence %d has no block\n", slot, seq);
		abort();
	}
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

#endif
