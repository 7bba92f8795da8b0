/* SPDX-License-Identifier: Apache-2.0
 *
 * test/plugins/codec_row.c: int8 rows with a scale for each token and head, in the row's own bytes. Every row is
 * encoded once, from what was computed, and read encoded by everybody, itself included.
 */
#include "hand_codec.h"

enum { C_CALLS, C_COUNT };

struct row_codec {
	const struct nx_host *host;
	enum nx_dtype act;
	struct codec_space space;
	uint64_t n_calls;
};

static int create(void **self, const struct nx_host *host, const struct nx_value *values,
                  struct nx_err *err)
{
	struct nx_device_info info;
	struct row_codec *c = calloc(1, sizeof(*c));
	(void)values;
	if (!c)
		return nx_fail(err, NX_ENOMEM, "codec_row: out of memory");
	host->ops->info(host->dev, &info);
	c->host = host;
	c->act = info.act_dtype;
	*self = c;
	return 0;
}

static void drop(struct row_codec *c)
{
	codec_space_close(&c->space, c->host);
}

static void destroy(void *self)
{
	drop(self);
	free(self);
}

static void reset(void *self)
{
	((struct row_codec *)self)->n_calls = 0;
}

/* A row: scales of all heads, then their bytes. */
static int codec_layout(void *self, const struct nx_codec_limits *l, struct nx_codec_layout *out,
                        struct nx_err *err)
{
	struct row_codec *c = self;
	drop(c);
	if (codec_space_open(&c->space, c->host, 2 * l->max_len, l->head_dim))
		return nx_fail(err, NX_ENOMEM, "codec_row: no memory for %d keys", l->max_len);
	out->window = 1;
	out->row_bytes = (l->n_kv_heads * (4 + l->head_dim) + 15) / 16 * 16;
	return 0;
}

static void encode(const struct codec_call *c, int32_t r, bool v, uint8_t *to)
{
	int32_t dim = c->kv.head_dim;
	int8_t *q = (int8_t *)to + 4 * c->kv.n_kv_heads;
	for (int32_t h = 0; h < c->kv.n_kv_heads; h++, q += dim) {
		float most = 0;
		for (int32_t d = 0; d < dim; d++)
			most = fmaxf(most, fabsf(codec_fresh(c, r, v, (int64_t)h * dim + d)));
		float scale = most / 127;
		for (int32_t d = 0; d < dim; d++)
			q[d] = scale > 0
			               ? (int8_t)lrintf(codec_fresh(c, r, v, (int64_t)h * dim + d) /
			                                scale)
			               : 0;
		hand_put(to, NX_F32, h, scale);
	}
}

static void decode(const struct nx_kv *kv, const uint8_t *from, int32_t head, float *to)
{
	const int8_t *q = (const int8_t *)from + 4 * kv->n_kv_heads + (int64_t)head * kv->head_dim;
	float scale = hand_get(from, NX_F32, head);
	for (int32_t d = 0; d < kv->head_dim; d++)
		to[d] = scale * (float)q[d];
}

static void load(const struct codec_call *c, const struct codec_keys *keys, int32_t head,
                 struct codec_space *s)
{
	const struct nx_kv *kv = &c->kv;
	int64_t dim = kv->head_dim;
	for (int32_t i = 0; i < keys->n_table; i++) {
		const uint8_t *p = hand_slot(kv, c->a.layer, keys->seq, i);
		decode(kv, p, head, s->k + i * dim);
		decode(kv, p + kv->v_offset, head, s->v + i * dim);
	}
	for (int32_t j = 0; j < keys->n_anc; j++) {
		const uint8_t *p = hand_scratch(kv, c->a.layer, keys->seq, keys->anc[j]);
		decode(kv, p, head, s->k + (keys->n_table + j) * dim);
		decode(kv, p + kv->scratch_v_offset, head, s->v + (keys->n_table + j) * dim);
	}
}

static void run(void *args)
{
	const struct codec_call *c = args;
	struct row_codec *self = c->codec;
	for (int32_t r = 0; r < c->rows.n_rows; r++) {
		int32_t seq = c->rows.seq[r], kind = c->rows.kind[r];
		if (kind == NX_ROW_COMMIT) {
			uint8_t *to = hand_slot(&c->kv, c->a.layer, seq,
			                        c->state.len[seq] + c->rows.slot_off[r]);
			encode(c, r, false, to);
			encode(c, r, true, to + c->kv.v_offset);
		} else if (nx_row_in_scratch(kind)) {
			uint8_t *to = hand_scratch(&c->kv, c->a.layer, seq, c->rows.scratch[r]);
			encode(c, r, false, to);
			encode(c, r, true, to + c->kv.scratch_v_offset);
		}
	}
	codec_rows(c, &self->space, load);
}

static int codec_attend(void *self, struct nx_stream *s, const struct nx_codec_step *a,
                        struct nx_err *err)
{
	struct row_codec *c = self;
	struct codec_call call = codec_call_of(a, c->act, c);
	if (call.rows.max_keys > c->space.max_keys)
		return nx_fail(err, NX_EBUG, "codec_row: a row sees %d keys, at most %d were said",
		               call.rows.max_keys, c->space.max_keys);
	c->n_calls++;
	return c->host->ops->enqueue(c->host->dev, s, run, &call, sizeof(call), err);
}

static void read_counters(void *self, double *v)
{
	v[C_CALLS] = (double)((const struct row_codec *)self)->n_calls;
}

static const struct nx_counter counters[] = {
	[C_CALLS] = {"calls", "count", "layers of forwards"},
	{0},
};

static const struct nx_technique codec_row = {
	NX_TECHNIQUE_HEAD,
	.name = "codec_row",
	.version = "1",
	.summary = "for tests: int8 rows, a scale for each token and head",
	.source = "none",
	.counters = counters,
	.flags = NX_TECH_EXACT,
	.probe = hand_probe,
	.create = create,
	.reset = reset,
	.destroy = destroy,
	.read_counters = read_counters,
	.codec_layout = codec_layout,
	.codec_attend = codec_attend,
};

NX_TECHNIQUE(&codec_row);
