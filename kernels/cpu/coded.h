/* SPDX-License-Identifier: Apache-2.0
 *
 * coded.h: KV rows in the device's own codecs (nexus_kernels/kv_codec.h): where a key of a row lies, and the codec
 * rule of struct nx_codec_step for those that encode groups of tokens.
 */
#ifndef NX_CPU_CODED_H
#define NX_CPU_CODED_H

#include "cpu/kv.h"
#include "nexus_kernels/kv_codec.h"

/* dst[dim] = one head of one token. by_channel: a group (4 bytes) for each element; else one for `group_size`. */
typedef void (*coded_decode)(float *dst, enum nx_kv_codec codec, const uint8_t *codes,
                             const uint8_t *groups, int dim, int group_size, bool by_channel);
/* Encodes one head of one token, groups along it. */
typedef void (*coded_encode)(const float *x, enum nx_kv_codec codec, uint8_t *codes,
                             uint8_t *groups, int dim, int group_size);

/* The plain forms: of the oracle. */
void coded_decode_ref(float *dst, enum nx_kv_codec codec, const uint8_t *codes,
                      const uint8_t *groups, int dim, int group_size, bool by_channel);
void coded_encode_ref(const float *x, enum nx_kv_codec codec, uint8_t *codes, uint8_t *groups,
                      int dim, int group_size);

/* K and V of a token, all heads, into the store: codecs that work row by row. */
void coded_put(const struct nx_kv *kv, coded_encode encode, const float *k, const float *v,
               uint8_t *to_k, uint8_t *to_v);

/* One row. cos_sin: [rope_dim] floats of scratch. encode: of codecs that work row by row. */
void ref_rope_store(const struct nx_rope_store *a, int32_t row, float *cos_sin,
                    coded_encode encode);

/* The rows of one sequence in a call, as the codec rule sees them. */
struct coded_scene {
	const struct nx_kv *kv;
	coded_decode decode;
	int32_t layer, seq;
	const float *fresh; /* q of its first COMMIT row; NULL = the call has none */
	int64_t stride;     /* elements from row to row */
	int32_t n_heads;
	int32_t first, end; /* slots of its COMMIT rows in this call; first = INT32_MAX: none */
};

struct coded_scene coded_scene_of(const struct nx_attention *a, const struct nx_segment *seg,
                                  coded_decode decode);
/* The first key that row r reads in full precision: its own group's; INT32_MAX where all are encoded. */
int32_t coded_own(const struct nx_attention *a, int32_t r, const struct row_keys *keys);
/* What row r sees; nobody reads what PAD rows get, and where groups are encoded they see nothing. */
struct row_keys coded_keys(const struct nx_attention *a, int32_t r);
/* Key and value i of a row, one kv head: k and v [head_dim], either may be NULL. */
void coded_get(const struct coded_scene *s, const struct row_keys *keys, int32_t own, int32_t i,
               int32_t head, float *k, float *v);

/* Codecs with a window, before and after attention: encodes the groups that COMMIT rows of the call complete; puts
 * COMMIT rows into the window and drafted ones into scratch. */
int coded_begin(struct cpu_dev *d, const struct nx_attention *a, struct nx_err *err);
void coded_end(struct cpu_dev *d, const struct nx_attention *a);
/* Encodes groups [from / window, to / window) of a sequence out of its window, in all layers. */
void coded_from_window(const struct nx_kv *kv, int32_t seq, int64_t from, int64_t to);

#endif
