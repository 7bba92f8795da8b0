/* SPDX-License-Identifier: Apache-2.0
 *
 * test/plugins/codec_group.c: groups of R tokens encoded together, after KIVI (2402.02750): K with a scale for each
 * channel over the group, V with one for each token and head, the newest rows in full precision. It keeps the
 * codec rule (struct nx_codec_step) to the letter: a query reads its own group in `plain`, all earlier ones
 * encoded. Rows that come straight from the projection are rounded to `plain` first, since that is what later
 * queries will find.
 */
#include "hand_codec.h"

enum { P_WINDOW, P_BITS, P_SYMMETRIC };
enum { C_CALLS, C_COMMITS, C_COUNT };

struct group_codec {
	const struct nx_host *host;
	enum nx_dtype act;
	int32_t window, bits;
	bool symmetric;
	struct codec_space space;
	/* Device: of each place in the call that runs, its COMMIT rows: slots [first, end), from row `row` on. */
	struct group_rows {
		int32_t first, end, row;
	} * fresh;
	int32_t max_seqs;
	uint64_t n[C_COUNT];
};

struct commit_call {
	struct nx_codec_commit c;
	struct nx_kv kv;
	struct nx_seq_state state;
	struct nx_verdict verdict;
	const struct group_codec *codec;
};

static int create(void **self, const struct nx_host *host, const struct nx_value *values,
                  struct nx_err *err)
{
	struct nx_device_info info;
	struct group_codec *c = calloc(1, sizeof(*c));
	if (!c)
		return nx_fail(err, NX_ENOMEM, "codec_group: out of memory");
	host->ops->info(host->dev, &info);
	c->host = host;
	c->act = info.act_dtype;
	c->window = (int32_t)values[P_WINDOW].i;
	c->bits = values[P_BITS].i == 0 ? 8 : 4;
	c->symmetric = values[P_SYMMETRIC].b;
	*self = c;
	return 0;
}

static void drop(struct group_codec *c)
{
	codec_space_close(&c->space, c->host);
	if (c->fresh)
		c->host->free(c->host->ctx, NX_MEM_DEVICE, c->fresh,
		              (size_t)c->max_seqs * sizeof(*c->fresh));
	c->fresh = NULL;
}

static void destroy(void *self)
{
	drop(self);
	free(self);
}

static void reset(void *self)
{
	struct group_codec *c = self;
	memset(c->n, 0, sizeof(c->n));
}

/* ---- bytes: codes [R][head][dim], then (scale, zero) pairs: of K [head][dim], of V [R][head] --------- */

static int64_t code_bytes(const struct group_codec *c, int64_t width)
{
	return c->window * width * c->bits / 8;
}

static int codec_layout(void *self, const struct nx_codec_limits *l, struct nx_codec_layout *out,
                        struct nx_err *err)
{
	struct group_codec *c = self;
	int64_t width = (int64_t)l->n_kv_heads * l->head_dim, pair = 2 * sizeof(float);
	int64_t k = width * pair, v = (int64_t)c->window * l->n_kv_heads * pair;
	if (l->block_size % c->window)
		return nx_fail(err, NX_ECONFLICT,
		               "codec_group: blocks of %d tokens are cut by groups of %d",
		               l->block_size, c->window);
	if (l->head_dim % 2)
		return nx_fail(err, NX_ENOTSUP, "codec_group: head size %d is odd", l->head_dim);
	drop(c);
	c->max_seqs = l->max_seqs;
	c->fresh = c->host->alloc(c->host->ctx, NX_MEM_DEVICE,
	                          (size_t)c->max_seqs * sizeof(*c->fresh));
	if (!c->fresh || codec_space_open(&c->space, c->host, 2 * l->max_len, l->head_dim))
		return nx_fail(err, NX_ENOMEM, "codec_group: no memory for %d keys", l->max_len);
	int64_t row = (code_bytes(c, width) + (k > v ? k : v) + c->window - 1) / c->window;
	out->window = c->window;
	out->row_bytes = (int32_t)((row + 15) / 16 * 16);
	return 0;
}

/* Codes 0 to 2^bits - 1 stand for zero + scale * code. */
struct scale {
	float scale, zero;
};

static struct scale scale_of(const struct group_codec *c, float lo, float hi)
{
	int32_t codes = 1 << c->bits;
	if (c->symmetric) {
		float s = fmaxf(fabsf(lo), fabsf(hi)) / (float)(codes / 2 - 1);
		return (struct scale){s, -s * (float)(codes / 2)};
	}
	return (struct scale){(hi - lo) / (float)(codes - 1), lo};
}

static void put_code(const struct group_codec *c, uint8_t *to, int64_t i, struct scale s, float x)
{
	int32_t most = (1 << c->bits) - 1;
	int32_t q = s.scale > 0 ? (int32_t)lrintf((x - s.zero) / s.scale) : 0;
	q = q < 0 ? 0 : q > most ? most : q;
	if (c->bits == 8)
		to[i] = (uint8_t)q;
	else
		to[i / 2] = (uint8_t)(i % 2 ? (to[i / 2] & 15) | q << 4 : (to[i / 2] & 240) | q);
}

static float get_code(const struct group_codec *c, const uint8_t *from, int64_t i, struct scale s)
{
	int32_t q = c->bits == 8 ? from[i] : i % 2 ? from[i / 2] >> 4 : from[i / 2] & 15;
	return s.zero + s.scale * (float)q;
}

static struct scale get_scale(const uint8_t *at, int64_t i)
{
	return (struct scale){hand_get(at, NX_F32, 2 * i), hand_get(at, NX_F32, 2 * i + 1)};
}

/* Where a row's full precision comes from: the call (fresh), or the window. */
struct source {
	const struct nx_kv *kv;
	const struct codec_call *call; /* NULL: all from the window */
	struct group_rows fresh;
	int32_t layer, seq;
};

static float plain_of(const struct source *s, int32_t slot, bool v, int64_t i)
{
	if (s->call && slot >= s->fresh.first)
		return hand_round(s->kv->plain,
		                  codec_fresh(s->call, s->fresh.row + slot - s->fresh.first, v, i));
	const uint8_t *p = hand_window(s->kv, s->layer, s->seq, slot);
	return hand_get(v ? p + s->kv->win_v_offset : p, s->kv->plain, i);
}

/* One scale for n values: of slots `slot` on when K, of channels `at` on when V. */
static void encode_line(const struct group_codec *c, const struct source *s, bool v, int32_t slot,
                        int64_t at, uint8_t *codes, uint8_t *pair)
{
	int64_t width = (int64_t)s->kv->n_kv_heads * s->kv->head_dim;
	int32_t n = v ? s->kv->head_dim : c->window;
	float lo = INFINITY, hi = -INFINITY;
	for (int32_t i = 0; i < n; i++) {
		float x = v ? plain_of(s, slot, v, at + i) : plain_of(s, slot + i, v, at);
		lo = fminf(lo, x);
		hi = fmaxf(hi, x);
	}
	struct scale k = scale_of(c, lo, hi);
	for (int32_t i = 0; i < n; i++) {
		int32_t row = slot % c->window + (v ? 0 : i);
		float x = v ? plain_of(s, slot, v, at + i) : plain_of(s, slot + i, v, at);
		put_code(c, codes, row * width + at + (v ? i : 0), k, x);
	}
	hand_put(pair, NX_F32, 0, k.scale);
	hand_put(pair, NX_F32, 1, k.zero);
}

static void encode_group(const struct group_codec *c, const struct source *s, int32_t group)
{
	const struct nx_kv *kv = s->kv;
	int64_t width = (int64_t)kv->n_kv_heads * kv->head_dim;
	int32_t slot = group * c->window;
	uint8_t *k = hand_slot(kv, s->layer, s->seq, slot), *v = k + kv->v_offset;
	uint8_t *ks = k + code_bytes(c, width), *vs = v + code_bytes(c, width);
	for (int64_t i = 0; i < width; i++)
		encode_line(c, s, false, slot, i, k, ks + 8 * i);
	for (int32_t t = 0; t < c->window; t++)
		for (int32_t h = 0; h < kv->n_kv_heads; h++)
			encode_line(c, s, true, slot + t, (int64_t)h * kv->head_dim, v,
			            vs + 8 * ((int64_t)t * kv->n_kv_heads + h));
}

/* ---- a layer of a forward --------------------------------------------------------------------- */

/* Keys of earlier groups encoded, the query's own group in full precision. */
static void load(const struct codec_call *c, const struct codec_keys *keys, int32_t head,
                 struct codec_space *space)
{
	const struct group_codec *self = c->codec;
	const struct nx_kv *kv = &c->kv;
	int32_t dim = kv->head_dim, seq = keys->seq, w = self->window, n = keys->n_table;
	int32_t p = c->state.len[seq] + c->rows.slot_off[keys->row];
	int64_t width = (int64_t)kv->n_kv_heads * dim, first = (int64_t)head * dim;
	struct source s = {kv, c, self->fresh[seq], c->a.layer, seq};
	/* A drafted row that was clipped may lie beyond: its group has nothing encoded. */
	int32_t own = (p < n ? p : n) / w * w;
	struct scale ks[CODEC_MAX_DIM];
	for (int32_t i = 0; i < n; i++) {
		float *k = space->k + (int64_t)i * dim, *v = space->v + (int64_t)i * dim;
		if (i >= own) {
			for (int32_t d = 0; d < dim; d++) {
				k[d] = plain_of(&s, i, false, first + d);
				v[d] = plain_of(&s, i, true, first + d);
			}
			continue;
		}
		const uint8_t *kb = hand_slot(kv, c->a.layer, seq, i / w * w);
		const uint8_t *vb = kb + kv->v_offset;
		struct scale vs = get_scale(vb + code_bytes(self, width),
		                            (int64_t)(i % w) * kv->n_kv_heads + head);
		for (int32_t d = 0; d < dim && i % w == 0; d++)
			ks[d] = get_scale(kb + code_bytes(self, width), first + d);
		for (int32_t d = 0; d < dim; d++) {
			int64_t at = i % w * width + first + d;
			k[d] = get_code(self, kb, at, ks[d]);
			v[d] = get_code(self, vb, at, vs);
		}
	}
	for (int32_t j = 0; j < keys->n_anc; j++) {
		const uint8_t *p_k = hand_scratch(kv, c->a.layer, seq, keys->anc[j]);
		for (int32_t d = 0; d < dim; d++) {
			int64_t at = (int64_t)(n + j) * dim + d;
			space->k[at] = hand_get(p_k, kv->plain, first + d);
			space->v[at] = hand_get(p_k + kv->scratch_v_offset, kv->plain, first + d);
		}
	}
}

static void put_plain(const struct codec_call *c, int32_t r, uint8_t *k, int64_t v_offset)
{
	int64_t width = (int64_t)c->kv.n_kv_heads * c->kv.head_dim;
	for (int64_t i = 0; i < width; i++) {
		hand_put(k, c->kv.plain, i, codec_fresh(c, r, false, i));
		hand_put(k + v_offset, c->kv.plain, i, codec_fresh(c, r, true, i));
	}
}

static void run(void *args)
{
	const struct codec_call *c = args;
	struct group_codec *self = c->codec;
	const struct nx_rows *rows = &c->rows;
	int32_t w = self->window, layer = c->a.layer;
	for (int32_t i = 0; i < self->max_seqs; i++)
		self->fresh[i] = (struct group_rows){.first = INT32_MAX};
	for (int32_t r = 0; r < rows->n_rows; r++) {
		struct group_rows *f = &self->fresh[rows->seq[r]];
		int32_t slot = c->state.len[rows->seq[r]] + rows->slot_off[r];
		if (nx_row_in_scratch(rows->kind[r]))
			put_plain(c, r, hand_scratch(&c->kv, layer, rows->seq[r], rows->scratch[r]),
			          c->kv.scratch_v_offset);
		if (rows->kind[r] != NX_ROW_COMMIT)
			continue;
		if (f->first == INT32_MAX)
			*f = (struct group_rows){slot, slot, r};
		f->end = slot + 1;
	}
	for (int32_t i = 0; i < self->max_seqs; i++) {
		struct source s = {&c->kv, c, self->fresh[i], layer, i};
		for (int32_t g = s.fresh.first / w; g < s.fresh.end / w; g++)
			encode_group(self, &s, g);
	}
	codec_rows(c, &self->space, load);
	/* Only now, so that queries of an older group still found theirs. */
	for (int32_t r = 0; r < rows->n_rows; r++) {
		int32_t seq = rows->seq[r], slot = c->state.len[seq] + rows->slot_off[r];
		if (rows->kind[r] == NX_ROW_COMMIT && slot >= self->fresh[seq].end - w)
			put_plain(c, r, hand_window(&c->kv, layer, seq, slot), c->kv.win_v_offset);
	}
}

static int codec_attend(void *self, struct nx_stream *s, const struct nx_codec_step *a,
                        struct nx_err *err)
{
	struct group_codec *c = self;
	struct codec_call call = codec_call_of(a, c->act, c);
	if (call.rows.max_keys > c->space.max_keys)
		return nx_fail(err, NX_EBUG,
		               "codec_group: a row sees %d keys, at most %d were said",
		               call.rows.max_keys, c->space.max_keys);
	c->n[C_CALLS]++;
	return c->host->ops->enqueue(c->host->dev, s, run, &call, sizeof(call), err);
}

/* Accepted rows lie in one group, which they may complete. */
static void run_commit(void *args)
{
	const struct commit_call *c = args;
	int32_t w = c->codec->window;
	for (int32_t i = 0; i < c->c.n_emit; i++) {
		const struct nx_emit *e = &c->c.emit[i];
		int32_t n = e->n_draft ? c->verdict.n_accepted[e->seq] : 0;
		int32_t from = c->state.len[e->src_seq] + e->pos_off;
		struct source s = {.kv = &c->kv, .seq = e->seq};
		for (int32_t g = from / w; g < (from + n) / w; g++)
			for (s.layer = 0; s.layer < c->kv.n_layers; s.layer++)
				encode_group(c->codec, &s, g);
	}
}

static int codec_commit(void *self, struct nx_stream *s, const struct nx_codec_commit *a,
                        struct nx_err *err)
{
	struct group_codec *c = self;
	struct commit_call call = {*a, *a->kv, *a->state, *a->verdict, c};
	c->n[C_COMMITS]++;
	return c->host->ops->enqueue(c->host->dev, s, run_commit, &call, sizeof(call), err);
}

static void read_counters(void *self, double *v)
{
	const struct group_codec *c = self;
	for (int i = 0; i < C_COUNT; i++)
		v[i] = (double)c->n[i];
}

static const struct nx_param params[] = {
	[P_WINDOW] = {"window", NX_PARAM_INT, "16", 4, 64, NULL, "tokens", "encoded together"},
	[P_BITS] = {"bits", NX_PARAM_ENUM, "8", 0, 0, "8|4", "", "of a code"},
	[P_SYMMETRIC] = {"symmetric", NX_PARAM_BOOL, "false", 0, 0, NULL, "",
                         "codes around zero, not from the smallest value on"},
	{0},
};

static const struct nx_counter counters[] = {
	[C_CALLS] = {"calls", "count", "layers of forwards"},
	[C_COMMITS] = {"commits", "count", "steps that moved accepted rows"},
	{0},
};

static const struct nx_technique codec_group = {
	NX_TECHNIQUE_HEAD,
	.name = "codec_group",
	.version = "1",
	.summary = "for tests: groups of tokens encoded together, the newest in full precision",
	.source = "after Liu et al. 2402.02750, section 3",
	.params = params,
	.counters = counters,
	.assumes = NX_TRAIT_KEPT_KV,
	.flags = NX_TECH_EXACT,
	.probe = hand_probe,
	.create = create,
	.reset = reset,
	.destroy = destroy,
	.read_counters = read_counters,
	.codec_layout = codec_layout,
	.codec_attend = codec_attend,
	.codec_commit = codec_commit,
};

NX_TECHNIQUE(&codec_group);
