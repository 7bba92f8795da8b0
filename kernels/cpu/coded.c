/* SPDX-License-Identifier: Apache-2.0
 *
 * See coded.h.
 */
#include "cpu/coded.h"

#define DIMS 256 /* channels whose ranges are kept at a time */

static void group_put(uint8_t *groups, int64_t i, uint32_t bytes)
{
	memcpy(groups + 4 * i, &bytes, sizeof(bytes));
}

static void group_get(enum nx_kv_codec c, const uint8_t *groups, int64_t i, float *scale,
                      float *zero)
{
	uint32_t bytes;
	memcpy(&bytes, groups + 4 * i, sizeof(bytes));
	nx_kv_group_read(c, bytes, scale, zero);
}

void coded_decode_ref(float *dst, enum nx_kv_codec codec, const uint8_t *codes,
                      const uint8_t *groups, int dim, int group_size, bool by_channel)
{
	float scale, zero;
	for (int i = 0; i < dim; i++) {
		group_get(codec, groups, by_channel ? i : i / group_size, &scale, &zero);
		dst[i] = nx_kv_value(codec, nx_code_get(codes, i, nx_kv_bits(codec)), scale, zero);
	}
}

/* Range of n values that lie `step` apart; lo > hi where one of them is NaN. */
static void range_of(const float *x, int n, float *lo, float *hi)
{
	*lo = INFINITY;
	*hi = -INFINITY;
	for (int i = 0; i < n; i++) {
		if (x[i] != x[i]) {
			*lo = 1;
			*hi = -1;
			return;
		}
		*lo = x[i] < *lo ? x[i] : *lo;
		*hi = x[i] > *hi ? x[i] : *hi;
	}
}

void coded_encode_ref(const float *x, enum nx_kv_codec codec, uint8_t *codes, uint8_t *groups,
                      int dim, int group_size)
{
	for (int g = 0; g < dim / group_size; g++) {
		float lo, hi, scale, zero;
		range_of(x + g * group_size, group_size, &lo, &hi);
		group_put(groups, g, nx_kv_group_of(codec, lo, hi));
		group_get(codec, groups, g, &scale, &zero);
		for (int i = g * group_size; i < (g + 1) * group_size; i++)
			nx_code_put(codes, i, nx_kv_bits(codec),
			            nx_kv_code(codec, x[i], scale, zero));
	}
}

void coded_put(const struct nx_kv *kv, coded_encode encode, const float *k, const float *v,
               uint8_t *to_k, uint8_t *to_v)
{
	int64_t head = nx_kv_head_bytes(kv->codec, kv->head_dim), codes = kv->n_kv_heads * head;
	int64_t groups = 4 * (kv->head_dim / kv->group_size);
	for (int32_t h = 0; h < kv->n_kv_heads; h++)
		for (int part = 0; part < 2; part++) {
			uint8_t *to = part ? to_v : to_k;
			encode((part ? v : k) + (int64_t)h * kv->head_dim, kv->codec, to + h * head,
			       to + codes + h * groups, kv->head_dim, kv->group_size);
		}
}

/* ---- where a key lies */

struct coded_scene coded_scene_of(const struct nx_attention *a, const struct nx_segment *seg,
                                  coded_decode decode)
{
	const struct nx_rows *rows = a->rows;
	struct coded_scene s = {.kv = a->kv,
	                        .decode = decode,
	                        .layer = a->layer,
	                        .seq = seg->seq,
	                        .stride = a->q_stride,
	                        .n_heads = a->n_heads,
	                        .first = INT32_MAX,
	                        .end = INT32_MAX};
	for (int32_t r = seg->row0; r < seg->row0 + seg->n_rows; r++) {
		if (rows->kind[r] != NX_ROW_COMMIT)
			continue;
		int32_t slot = a->state->len[seg->seq] + rows->slot_off[r];
		if (!s.fresh) {
			s.first = slot;
			s.fresh = (const float *)a->q + r * a->q_stride;
		}
		s.end = slot + 1;
	}
	return s;
}

int32_t coded_own(const struct nx_attention *a, int32_t r, const struct row_keys *keys)
{
	int32_t w = a->kv->window, slot = a->state->len[keys->seq] + a->rows->slot_off[r];
	if (w <= 1)
		return INT32_MAX;
	/* A drafted row that was clipped lies in a group of which nothing is encoded. */
	return (slot < keys->n_table ? slot : keys->n_table) / w * w;
}

struct row_keys coded_keys(const struct nx_attention *a, int32_t r)
{
	struct row_keys keys = row_keys(a->rows, a->state, r);
	if (a->kv->window > 1 && a->rows->kind[r] == NX_ROW_PAD)
		keys.n_table = 0;
	return keys;
}

static void get_plain(const struct nx_kv *kv, const uint8_t *row, int64_t at, float *to)
{
	for (int32_t i = 0; i < kv->head_dim; i++)
		to[i] = kv->plain == NX_BF16
		                ? bf16_to_f32(((const uint16_t *)(const void *)row)[at + i])
		                : ((const float *)(const void *)row)[at + i];
}

static void put_plain(const struct nx_kv *kv, uint8_t *row, const float *x)
{
	int64_t width = (int64_t)kv->n_kv_heads * kv->head_dim;
	for (int64_t i = 0; i < width; i++)
		if (kv->plain == NX_BF16)
			((uint16_t *)(void *)row)[i] = f32_to_bf16(x[i]);
		else
			((float *)(void *)row)[i] = x[i];
}

/* One head of a slot in full precision: as it was computed in this call, rounded, or out of the window. */
static void get_newest(const struct coded_scene *s, int32_t slot, int32_t head, bool v, float *to)
{
	const struct nx_kv *kv = s->kv;
	int64_t at = (int64_t)head * kv->head_dim;
	if (slot < s->first) {
		const uint8_t *row = kv_window(kv, s->layer, s->seq, slot);
		get_plain(kv, v ? row + kv->win_v_offset : row, at, to);
		return;
	}
	const float *x = s->fresh + (slot - s->first) * s->stride +
	                 ((int64_t)s->n_heads + (v ? kv->n_kv_heads : 0)) * kv->head_dim + at;
	for (int32_t i = 0; i < kv->head_dim; i++)
		to[i] = kv->plain == NX_BF16 ? bf16_to_f32(f32_to_bf16(x[i])) : x[i];
}

/* A token of an encoded piece of R tokens, or with R = 1 a row. */
static void get_coded(const struct coded_scene *s, const uint8_t *piece, int32_t t, int32_t head,
                      bool v, float *to)
{
	const struct nx_kv *kv = s->kv;
	int64_t bytes = nx_kv_head_bytes(kv->codec, kv->head_dim), all = kv->n_kv_heads * bytes;
	int64_t along = kv->head_dim / kv->group_size; /* groups of a head and token */
	bool by_channel = kv->window > 1 && !v;
	int64_t group =
		by_channel ? ((int64_t)head * (kv->window / kv->group_size) + t / kv->group_size) *
				     kv->head_dim
			   : ((int64_t)t * kv->n_kv_heads + head) * along;
	s->decode(to, kv->codec, piece + t * all + head * bytes,
	          piece + kv->window * all + 4 * group, kv->head_dim, kv->group_size, by_channel);
}

void coded_get(const struct coded_scene *s, const struct row_keys *keys, int32_t own, int32_t i,
               int32_t head, float *k, float *v)
{
	const struct nx_kv *kv = s->kv;
	bool scratch = i >= keys->n_table, grouped = kv->window > 1;
	int64_t at = (int64_t)head * kv->head_dim;
	int32_t t = scratch ? 0 : i % kv->window; /* token of its piece */
	const uint8_t *value, *key;
	if (grouped && !scratch && i >= own) {
		if (k)
			get_newest(s, i, head, false, k);
		if (v)
			get_newest(s, i, head, true, v);
		return;
	}
	key = row_key(kv, keys, s->layer, i - t, &value);
	if (k && grouped && scratch)
		get_plain(kv, key, at, k);
	else if (k)
		get_coded(s, key, t, head, false, k);
	if (v && grouped && scratch)
		get_plain(kv, value, at, v);
	else if (v)
		get_coded(s, value, t, head, true, v);
}

/* ---- groups of tokens */

/* K of a head by channel, over group_size tokens at a time. */
static void encode_channels(const struct coded_scene *s, int32_t slot, int32_t head, uint8_t *codes,
                            uint8_t *groups, float *x)
{
	const struct nx_kv *kv = s->kv;
	int32_t dim = kv->head_dim, n = kv->group_size, bits = nx_kv_bits(kv->codec);
	int64_t row = kv->n_kv_heads * nx_kv_head_bytes(kv->codec, dim);
	for (int32_t t = 0; t < n; t++)
		get_newest(s, slot + t, head, false, x + (int64_t)t * dim);
	for (int32_t d0 = 0; d0 < dim; d0 += DIMS) {
		int32_t dims = dim - d0 < DIMS ? dim - d0 : DIMS;
		float lo[DIMS], hi[DIMS], scale[DIMS], zero[DIMS];
		for (int32_t d = 0; d < dims; d++) {
			lo[d] = INFINITY;
			hi[d] = -INFINITY;
		}
		for (int32_t t = 0; t < n; t++)
			for (int32_t d = 0; d < dims; d++) {
				float y = x[(int64_t)t * dim + d0 + d];
				lo[d] = y < lo[d] ? y : lo[d];
				hi[d] = y > hi[d] ? y : hi[d];
				if (y != y) /* and so it stays */
					lo[d] = INFINITY, hi[d] = NAN;
			}
		for (int32_t d = 0; d < dims; d++) {
			group_put(groups, d0 + d, nx_kv_group_of(kv->codec, lo[d], hi[d]));
			group_get(kv->codec, groups, d0 + d, &scale[d], &zero[d]);
		}
		for (int32_t t = 0; t < n; t++)
			for (int32_t d = 0; d < dims; d++)
				nx_code_put(codes + t * row, d0 + d, bits,
				            nx_kv_code(kv->codec, x[(int64_t)t * dim + d0 + d],
				                       scale[d], zero[d]));
	}
}

/* One group of tokens, one head. x: [group_size, head_dim]. */
static void encode_group(const struct coded_scene *s, int64_t group, int32_t head, float *x)
{
	const struct nx_kv *kv = s->kv;
	int32_t w = kv->window, n = kv->group_size, dim = kv->head_dim, slot = (int32_t)group * w;
	int64_t bytes = nx_kv_head_bytes(kv->codec, dim), row = kv->n_kv_heads * bytes;
	uint8_t *k = kv_slot(kv, s->layer, s->seq, slot), *v = k + kv->v_offset;
	for (int32_t t = 0; t < w; t += n)
		encode_channels(s, slot + t, head, k + t * row + head * bytes,
		                k + w * row + 4 * ((int64_t)head * (w / n) + t / n) * dim, x);
	for (int32_t t = 0; t < w; t++) {
		get_newest(s, slot + t, head, true, x);
		coded_encode_ref(x, kv->codec, v + t * row + head * bytes,
		                 v + w * row + 4 * ((int64_t)t * kv->n_kv_heads + head) * (dim / n),
		                 dim, n);
	}
}

struct groups_job {
	const struct coded_scene *scenes;
	const int64_t *first; /* [n + 1] items before each scene */
	int32_t n;
	float *x; /* a part a thread */
	int64_t x_elements;
};

static void encode_items(void *ctx, int64_t begin, int64_t end, int thread)
{
	const struct groups_job *j = ctx;
	int32_t i = 0;
	for (int64_t item = begin; item < end; item++) {
		while (item >= j->first[i + 1])
			i++;
		const struct coded_scene *s = &j->scenes[i];
		int64_t at = item - j->first[i], heads = s->kv->n_kv_heads;
		encode_group(s, s->first / s->kv->window + at / heads, (int32_t)(at % heads),
		             j->x + thread * j->x_elements);
	}
}

/* Drafted rows go to scratch, where they see themselves; COMMIT rows into the window, but only when all queries of
 * the groups before have been served. */
static void keep_rows(struct cpu_dev *d, const struct nx_attention *a, bool drafted)
{
	const struct nx_kv *kv = a->kv;
	const struct nx_rows *rows = a->rows;
	int64_t width = (int64_t)kv->n_kv_heads * kv->head_dim;
	for (int32_t i = 0; i < rows->n_segments; i++) {
		const struct nx_segment *seg = &rows->segments[i];
		struct coded_scene s = coded_scene_of(a, seg, NULL);
		for (int32_t r = seg->row0; r < seg->row0 + seg->n_rows; r++) {
			const float *k = (const float *)a->q + r * a->q_stride +
			                 (int64_t)a->n_heads * kv->head_dim;
			int32_t slot = a->state->len[seg->seq] + rows->slot_off[r];
			uint8_t *to;
			int64_t v_offset;
			if (drafted && nx_row_in_scratch(rows->kind[r])) {
				to = kv_scratch(kv, a->layer, seg->seq, rows->scratch[r]);
				v_offset = kv->scratch_v_offset;
			} else if (!drafted && rows->kind[r] == NX_ROW_COMMIT &&
			           slot >= s.end - kv->window) {
				to = kv_window(kv, a->layer, seg->seq, slot);
				v_offset = kv->win_v_offset;
			} else {
				continue;
			}
			put_plain(kv, to, k);
			put_plain(kv, to + v_offset, k + width);
			d->counted.kv_bytes += 2 * (uint64_t)width * nx_dtype_bytes(kv->plain);
		}
	}
}

int coded_begin(struct cpu_dev *d, const struct nx_attention *a, struct nx_err *err)
{
	const struct nx_kv *kv = a->kv;
	int32_t n = a->rows->n_segments, w = kv->window;
	size_t scenes = (size_t)n * sizeof(struct coded_scene),
	       firsts = ((size_t)n + 1) * sizeof(int64_t);
	struct groups_job j = {.n = n, .x_elements = (int64_t)kv->group_size * kv->head_dim};
	size_t x = (size_t)(j.x_elements * pool_size(d->pool)) * sizeof(float);
	uint8_t *p = cpu_scratch(d, scenes + firsts + x);
	if (!p)
		return nx_fail(err, NX_ENOMEM, "no memory to encode groups of KV rows");
	struct coded_scene *s = (struct coded_scene *)(void *)p;
	int64_t *first = (int64_t *)(void *)(p + scenes);
	first[0] = 0;
	for (int32_t i = 0; i < n; i++) {
		s[i] = coded_scene_of(a, &a->rows->segments[i], NULL);
		int64_t groups = s[i].fresh ? s[i].end / w - s[i].first / w : 0;
		first[i + 1] = first[i] + groups * kv->n_kv_heads;
		d->counted.kv_bytes += (uint64_t)(2 * groups * w * kv->row_bytes);
	}
	j.scenes = s;
	j.first = first;
	j.x = (float *)(void *)(p + scenes + firsts);
	if (first[n] > 0)
		pool_for(d->pool, first[n], encode_items, &j);
	keep_rows(d, a, true);
	return 0;
}

void coded_end(struct cpu_dev *d, const struct nx_attention *a)
{
	keep_rows(d, a, false);
}

void coded_from_window(const struct nx_kv *kv, int32_t seq, int64_t from, int64_t to)
{
	float x[256 * DIMS];
	struct coded_scene s = {.kv = kv, .seq = seq, .first = INT32_MAX, .end = INT32_MAX};
	for (int64_t g = from / kv->window; g < to / kv->window; g++)
		for (s.layer = 0; s.layer < kv->n_layers; s.layer++)
			for (int32_t h = 0; h < kv->n_kv_heads; h++)
				encode_group(&s, g, h, x);
}
