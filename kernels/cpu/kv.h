/* SPDX-License-Identifier: Apache-2.0
 *
 * kv.h: where a row of the KV store lies, and its elements.
 */
#ifndef NX_CPU_KV_H
#define NX_CPU_KV_H

#include "cpu/cpu.h"
#include "nexus_kernels/rows.h"

/* K of slot `slot`; NULL where the table has no block. V is at + kv->v_offset. */
static inline uint8_t *kv_slot(const struct nx_kv *kv, int32_t layer, int32_t seq, int64_t slot)
{
	int32_t first = kv->table[(int64_t)seq * kv->table_stride + slot / kv->block_size];
	if (first < 0)
		return NULL;
	return kv->base + layer * kv->layer_bytes + (first + slot % kv->block_size) * kv->row_bytes;
}

/* K of a scratch row. V is at + kv->scratch_v_offset. */
static inline uint8_t *kv_scratch(const struct nx_kv *kv, int32_t layer, int32_t seq, int32_t index)
{
	return kv->scratch + layer * kv->scratch_layer_bytes +
	       ((int64_t)seq * kv->scratch_cap + index) * kv->scratch_row_bytes;
}

/* Of a codec that is plain. */
static inline size_t kv_element_bytes(const struct nx_kv *kv)
{
	return kv->codec == NX_KV_BF16 ? 2 : 4;
}

/* K of the place in the window that belongs to a slot. V is at + kv->win_v_offset. */
static inline uint8_t *kv_window(const struct nx_kv *kv, int32_t layer, int32_t seq, int64_t slot)
{
	return kv->win + layer * kv->win_layer_bytes +
	       ((int64_t)seq * kv->window + slot % kv->window) * kv->scratch_row_bytes;
}

static inline float kv_get(const struct nx_kv *kv, const uint8_t *row, int64_t i)
{
	return kv->codec == NX_KV_BF16 ? bf16_to_f32(((const uint16_t *)row)[i])
	                               : ((const float *)row)[i];
}

static inline void kv_put(const struct nx_kv *kv, uint8_t *row, int64_t i, float x)
{
	if (kv->codec == NX_KV_BF16)
		((uint16_t *)row)[i] = f32_to_bf16(x);
	else
		((float *)row)[i] = x;
}

/* What row r of a forward sees: keys [0, n_table) through the table, then n_anc from scratch. */
struct row_keys {
	int32_t seq, n_table, n_anc;
	const int32_t *anc;
};

static inline struct row_keys row_keys(const struct nx_rows *rows, const struct nx_seq_state *state,
                                       int32_t r)
{
	struct row_keys v = {.seq = rows->seq[r]};
	int32_t kind = rows->kind[r];
	if (nx_row_in_scratch(kind)) {
		v.n_anc = rows->n_anc[r];
		v.anc = rows->anc + (int64_t)r * rows->anc_stride;
	}
	v.n_table = nx_row_table_keys(kind, state->len[v.seq], rows->slot_off[r], v.n_anc);
	return v;
}

/* Key i of the row in layer `layer`; *v gets the value. */
static inline const uint8_t *row_key(const struct nx_kv *kv, const struct row_keys *keys,
                                     int32_t layer, int32_t i, const uint8_t **v)
{
	const uint8_t *k;
	if (i < keys->n_table) {
		k = kv_slot(kv, layer, keys->seq, i);
		*v = k + kv->v_offset;
	} else {
		k = kv_scratch(kv, layer, keys->seq, keys->anc[i - keys->n_table]);
		*v = k + kv->scratch_v_offset;
	}
	return k;
}

#endif
