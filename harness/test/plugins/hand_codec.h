/* SPDX-License-Identifier: Apache-2.0
 *
 * test/plugins/hand_codec.h: attention over encoded rows, for test codecs: what a call is, what a row sees, and
 * softmax(q K^T) V in double over the keys in position order, so that a result depends on what a query sees and on
 * nothing else.
 */
#ifndef NEXUS_TEST_PLUGINS_HAND_CODEC_H
#define NEXUS_TEST_PLUGINS_HAND_CODEC_H

#include <math.h>

#include "hand.h"

#define CODEC_MAX_DIM 256 /* of a head */

/* A call of codec_attend, by value: what it was handed is borrowed. */
struct codec_call {
	struct nx_attention a;
	struct nx_rows rows;
	struct nx_seq_state state;
	struct nx_kv kv;
	const void *qkv;
	enum nx_dtype act;
	void *codec;
};

static inline struct codec_call codec_call_of(const struct nx_codec_step *s, enum nx_dtype act,
                                              void *codec)
{
	struct codec_call c = {.a = *s->attention,
	                       .rows = *s->attention->rows,
	                       .state = *s->attention->state,
	                       .kv = *s->attention->kv,
	                       .qkv = s->qkv,
	                       .act = act,
	                       .codec = codec};
	return c;
}

/* Element i of K (or V) of row r, all kv heads, as it was computed. */
static inline float codec_fresh(const struct codec_call *c, int32_t r, bool v, int64_t i)
{
	int64_t width = (int64_t)c->kv.n_kv_heads * c->kv.head_dim;
	int64_t q = (int64_t)c->a.n_heads * c->kv.head_dim;
	return hand_get(c->qkv, c->act, (q + 2 * width) * r + q + (v ? width : 0) + i);
}

struct codec_keys {
	int32_t row, seq, n_table, n_anc;
	const int32_t *anc;
};

static inline struct codec_keys codec_keys_of(const struct codec_call *c, int32_t r)
{
	const struct nx_rows *rows = &c->rows;
	struct codec_keys k = {.row = r, .seq = rows->seq[r]};
	if (nx_row_in_scratch(rows->kind[r])) {
		k.n_anc = rows->n_anc[r];
		k.anc = rows->anc + (int64_t)r * rows->anc_stride;
	}
	k.n_table =
		nx_row_table_keys(rows->kind[r], c->state.len[k.seq], rows->slot_off[r], k.n_anc);
	return k;
}

/* Where one head's keys and values are decoded to: device memory of the technique. */
struct codec_space {
	int32_t max_keys;
	float *k, *v;  /* [max_keys, head_dim] */
	double *score; /* [max_keys] */
	size_t bytes;
};

static inline int codec_space_open(struct codec_space *s, const struct nx_host *host,
                                   int32_t max_keys, int32_t head_dim)
{
	if (head_dim > CODEC_MAX_DIM)
		return NX_ENOTSUP;
	size_t one = (size_t)max_keys * (size_t)head_dim * sizeof(float);
	s->max_keys = max_keys;
	s->bytes = 2 * one + (size_t)max_keys * sizeof(double);
	uint8_t *p = host->alloc(host->ctx, NX_MEM_DEVICE, s->bytes);
	if (!p)
		return NX_ENOMEM;
	s->score = (double *)(void *)p;
	s->k = (float *)(void *)(p + (size_t)max_keys * sizeof(double));
	s->v = s->k + (size_t)max_keys * (size_t)head_dim;
	return 0;
}

static inline void codec_space_close(struct codec_space *s, const struct nx_host *host)
{
	if (s->score)
		host->free(host->ctx, NX_MEM_DEVICE, s->score, s->bytes);
	s->score = NULL;
}

/* Decodes what a row sees of one kv head into space->k and space->v, in order. */
typedef void (*codec_load)(const struct codec_call *c, const struct codec_keys *keys, int32_t head,
                           struct codec_space *space);

static inline void codec_one(const struct codec_call *c, const struct codec_space *s, int32_t row,
                             int32_t head, int32_t n)
{
	int32_t dim = c->kv.head_dim;
	int64_t q = c->a.q_stride * row + (int64_t)head * dim;
	int64_t out = ((int64_t)row * c->a.n_heads + head) * dim;
	double max = -INFINITY, total = 0;
	float query[CODEC_MAX_DIM];
	for (int32_t d = 0; d < dim; d++)
		query[d] = hand_get(c->a.q, c->act, q + d);
	for (int32_t i = 0; i < n; i++) {
		const float *k = s->k + (int64_t)i * dim;
		double dot = 0;
		for (int32_t d = 0; d < dim; d++)
			dot += (double)query[d] * (double)k[d];
		s->score[i] = dot * (double)c->a.scale;
		max = fmax(max, s->score[i]);
	}
	for (int32_t i = 0; i < n; i++) {
		s->score[i] = exp(s->score[i] - max);
		total += s->score[i];
	}
	for (int32_t d = 0; d < dim; d++) {
		double sum = 0;
		for (int32_t i = 0; i < n; i++)
			sum += s->score[i] * s->v[(int64_t)i * dim + d];
		hand_put(c->a.out, c->act, out + d, n ? (float)(sum / total) : 0);
	}
}

static inline void codec_rows(const struct codec_call *c, struct codec_space *space,
                              codec_load load)
{
	int32_t share = c->a.n_heads / c->kv.n_kv_heads;
	for (int32_t r = 0; r < c->rows.n_rows; r++) {
		struct codec_keys keys = codec_keys_of(c, r);
		/* Nobody reads the result of padding. */
		if (c->rows.kind[r] == NX_ROW_PAD)
			keys.n_table = 0;
		for (int32_t h = 0; h < c->kv.n_kv_heads; h++) {
			load(c, &keys, h, space);
			for (int32_t i = 0; i < share; i++)
				codec_one(c, space, r, h * share + i, keys.n_table + keys.n_anc);
		}
	}
}

#endif
