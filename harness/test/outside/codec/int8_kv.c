/* SPDX-License-Identifier: Apache-2.0
 *
 * int8_kv: each head of each token's K and V as int8 with a scale of its own, read by an attention that decodes it.
 *
 * x = scale * q, scale = max|x| / 127 over a head of a row, q rounded to nearest: head_dim + 4 bytes instead of
 * 2 head_dim in bf16. Row by row (window 1), so the codec rule of nexus/slots.h asks that every row is read encoded,
 * the query's own included. Built outside the tree of Nexus, against its installed headers.
 */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include <nexus/technique.h>

/* One layer of one forward: what run() gets. What the hook was handed is borrowed, so it is here by value. */
struct job {
	struct self *s;
	struct nx_attention a;
	struct nx_rows rows;
	struct nx_kv kv;
	struct nx_seq_state state;
	void *qkv;
};

struct self {
	const struct nx_host *host;
	enum nx_dtype act; /* type of activations */
	float *score;      /* [max_keys], of one row and head; jobs run one after the other */
	int32_t max_keys;
};

enum { DRAFTS_MAX = 1024 };

/* ---- encoding ----------------------------------------------------------------------------------- */

/* Bytes of the K (or the V) of one token: for each head its scale, then its codes. */
static int32_t row_bytes(int32_t n_kv_heads, int32_t head_dim)
{
	return n_kv_heads * ((int32_t)sizeof(float) + head_dim);
}

static void encode_row(uint8_t *to, const float *x, int32_t n_kv_heads, int32_t head_dim)
{
	for (int32_t h = 0; h < n_kv_heads; h++, x += head_dim) {
		float largest = 0;
		for (int32_t i = 0; i < head_dim; i++)
			largest = fmaxf(largest, fabsf(x[i]));
		float scale = largest / 127.0f;
		memcpy(to, &scale, sizeof(scale));
		to += sizeof(scale);
		for (int32_t i = 0; i < head_dim; i++) {
			int8_t q = (int8_t)(scale > 0 ? lrintf(x[i] / scale) : 0);
			memcpy(to++, &q, 1);
		}
	}
}

/* One head of a row. */
static void decode_head(float *x, const uint8_t *from, int32_t head, int32_t head_dim)
{
	float scale;
	from += head * ((int32_t)sizeof(float) + head_dim);
	memcpy(&scale, from, sizeof(scale));
	from += sizeof(scale);
	for (int32_t i = 0; i < head_dim; i++) {
		int8_t q;
		memcpy(&q, from + i, 1);
		x[i] = scale * (float)q;
	}
}

/* ---- reading and writing rows ------------------------------------------------------------------- */

enum { HEAD_MAX = 512 };

static float load(enum nx_dtype t, const void *p, int64_t i)
{
	float f;
	if (t == NX_F32) {
		memcpy(&f, (const char *)p + 4 * i, 4);
	} else {
		uint16_t h;
		memcpy(&h, (const char *)p + 2 * i, 2);
		uint32_t u = (uint32_t)h << 16;
		memcpy(&f, &u, 4);
	}
	return f;
}

static void store(enum nx_dtype t, void *p, int64_t i, float f)
{
	uint32_t u;
	if (t == NX_F32) {
		memcpy((char *)p + 4 * i, &f, 4);
		return;
	}
	memcpy(&u, &f, 4);
	u += 0x7fffu + (u >> 16 & 1u);
	uint16_t h = (uint16_t)(u >> 16);
	memcpy((char *)p + 2 * i, &h, 2);
}

/* K of slot `slot` of sequence q; V lies v_offset further. */
static uint8_t *slot_row(const struct job *j, int32_t q, int32_t slot)
{
	const struct nx_kv *kv = &j->kv;
	int64_t row =
		kv->table[q * kv->table_stride + slot / kv->block_size] + slot % kv->block_size;
	return kv->base + j->a.layer * kv->layer_bytes + row * kv->row_bytes;
}

static uint8_t *scratch_row(const struct job *j, int32_t q, int32_t i)
{
	const struct nx_kv *kv = &j->kv;
	return kv->scratch + j->a.layer * kv->scratch_layer_bytes +
	       ((int64_t)q * kv->scratch_cap + i) * kv->scratch_row_bytes;
}

static bool is_drafted(int32_t kind)
{
	return kind == NX_ROW_CANDIDATE || kind == NX_ROW_PROBE;
}

static void write_rows(const struct job *j)
{
	const struct nx_kv *kv = &j->kv;
	int32_t width = kv->n_kv_heads * kv->head_dim;
	int64_t cols = (int64_t)(j->a.n_heads + 2 * kv->n_kv_heads) * kv->head_dim;
	float x[HEAD_MAX];
	for (int32_t r = 0; r < j->rows.n_rows; r++) {
		int32_t q = j->rows.seq[r], kind = j->rows.kind[r];
		if (kind != NX_ROW_COMMIT && !is_drafted(kind))
			continue; /* PAD: nobody sees it; REDO: is there already */
		uint8_t *to = is_drafted(kind)
		                      ? scratch_row(j, q, j->rows.scratch[r])
		                      : slot_row(j, q, j->state.len[q] + j->rows.slot_off[r]);
		int64_t v = is_drafted(kind) ? kv->scratch_v_offset : kv->v_offset;
		for (int32_t part = 0; part < 2; part++) {
			int64_t at = r * cols + (int64_t)j->a.n_heads * kv->head_dim + part * width;
			for (int32_t i = 0; i < width; i++)
				x[i] = load(j->s->act, j->qkv, at + i);
			encode_row(to + part * v, x, kv->n_kv_heads, kv->head_dim);
		}
	}
}

/* Softmax over the row's keys, in the order of their positions. */
static void attend_row(const struct job *j, int32_t r)
{
	const struct nx_kv *kv = &j->kv;
	int32_t q = j->rows.seq[r], d = kv->head_dim, off = j->rows.slot_off[r];
	int32_t n_anc = is_drafted(j->rows.kind[r]) ? j->rows.n_anc[r] : 0;
	int32_t in_table = j->state.len[q] + (off + 1 > n_anc ? off + 1 - n_anc : 0);
	float query[HEAD_MAX], x[HEAD_MAX], out[HEAD_MAX];
	for (int32_t h = 0; h < j->a.n_heads; h++) {
		int32_t kv_head = h / (j->a.n_heads / kv->n_kv_heads);
		float largest = -INFINITY, sum = 0;
		for (int32_t i = 0; i < d; i++)
			query[i] = load(j->s->act, j->a.q, r * j->a.q_stride + (int64_t)h * d + i);
		for (int32_t k = 0; k < in_table + n_anc; k++) {
			const uint8_t *row =
				k < in_table
					? slot_row(j, q, k)
					: scratch_row(j, q,
			                              j->rows.anc[(int64_t)r * j->rows.anc_stride +
			                                          k - in_table]);
			float dot = 0;
			decode_head(x, row, kv_head, d);
			for (int32_t i = 0; i < d; i++)
				dot += query[i] * x[i];
			j->s->score[k] = dot * j->a.scale;
			if (j->s->score[k] > largest)
				largest = j->s->score[k];
		}
		memset(out, 0, sizeof(out));
		for (int32_t k = 0; k < in_table + n_anc; k++) {
			const uint8_t *row =
				k < in_table
					? slot_row(j, q, k) + kv->v_offset
					: scratch_row(j, q,
			                              j->rows.anc[(int64_t)r * j->rows.anc_stride +
			                                          k - in_table]) +
						  kv->scratch_v_offset;
			float w = expf(j->s->score[k] - largest);
			sum += w;
			decode_head(x, row, kv_head, d);
			for (int32_t i = 0; i < d; i++)
				out[i] += w * x[i];
		}
		for (int32_t i = 0; i < d; i++)
			store(j->s->act, j->a.out, ((int64_t)r * j->a.n_heads + h) * d + i,
			      out[i] / sum);
	}
}

static void run(void *args) /* on the stream */
{
	const struct job *j = args;
	write_rows(j);
	for (int32_t r = 0; r < j->rows.n_rows; r++)
		if (j->rows.kind[r] != NX_ROW_PAD)
			attend_row(j, r);
}

/* ---- hooks -------------------------------------------------------------------------------------- */

static void destroy(void *self)
{
	struct self *s = self;
	const struct nx_host *h = s->host;
	h->free(h->ctx, NX_MEM_HOST, s->score, (size_t)s->max_keys * sizeof(*s->score));
	free(s);
}

static int32_t max_keys(int32_t max_len)
{
	return max_len + DRAFTS_MAX;
}

static int probe(struct nx_probe *p, struct nx_err *err) /* can this cell run, and what does it take? */
{
	if (!(p->device_caps & NX_DEV_HOST_MEMORY))
		return nx_fail(err, NX_ESKIP, "int8_kv is C: it has no kernel for the device '%s'",
		               p->device_kind);
	if (p->model.n_kv_heads * p->model.head_dim > HEAD_MAX)
		return nx_fail(err, NX_ESKIP, "int8_kv takes KV rows of at most %d numbers, not %d",
		               HEAD_MAX, p->model.n_kv_heads * p->model.head_dim);
	p->host_bytes = (uint64_t)max_keys(p->max_len) * sizeof(float);
	return 0;
}

static int create(void **out, const struct nx_host *host, const struct nx_value *values,
                  struct nx_err *err)
{
	struct nx_device_info info;
	(void)values;
	host->ops->info(host->dev, &info);
	struct self *s = calloc(1, sizeof(*s));
	if (!s)
		return nx_fail(err, NX_ENOMEM, "int8_kv: out of memory");
	s->host = host;
	s->act = info.act_dtype;
	s->max_keys = max_keys(host->max_len);
	s->score = host->alloc(host->ctx, NX_MEM_HOST, (size_t)s->max_keys * sizeof(*s->score));
	if (!s->score) {
		free(s);
		return nx_fail(err, NX_ENOMEM, "int8_kv: no memory for its work area");
	}
	*out = s;
	return 0;
}

static int codec_layout(void *self, const struct nx_codec_limits *l, struct nx_codec_layout *out,
                        struct nx_err *err)
{
	(void)self;
	(void)err;
	out->row_bytes = row_bytes(l->n_kv_heads, l->head_dim);
	out->window = 1;
	return 0;
}

static int codec_attend(void *self, struct nx_stream *stream, const struct nx_codec_step *c,
                        struct nx_err *err)
{
	struct self *s = self;
	const struct job j = {.s = s,
	                      .a = *c->attention,
	                      .rows = *c->attention->rows,
	                      .kv = *c->attention->kv,
	                      .state = *c->attention->state,
	                      .qkv = c->qkv};
	return s->host->ops->enqueue(s->host->dev, stream, run, &j, sizeof(j), err);
}

static const struct nx_technique technique = {
	NX_TECHNIQUE_HEAD,
	.name = "int8_kv",
	.version = "1",
	.summary = "KV rows as int8 with a scale a head, read by an attention of its own",
	.source = "Xiao et al. 2211.10438, section 3 (absmax int8); per token and head",
	.flags = 0, /* not NX_TECH_EXACT: quality is measured and reported beside the speed */
	.probe = probe,
	.create = create,
	.destroy = destroy,
	.codec_layout = codec_layout,
	.codec_attend = codec_attend,
};

NX_TECHNIQUE(&technique);
