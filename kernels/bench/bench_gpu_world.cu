/* SPDX-License-Identifier: Apache-2.0
 *
 * bench_gpu_world.cu: see bench_gpu_world.cuh.
 */
#include <math.h>

#include "bench/bench_gpu_world.cuh"
#include "nexus_kernels/kv_codec.h"

enum { KV_CHUNK = 256 }; /* the engine's default */

static int32_t blocks_of(const struct world_shape *s)
{
	return (s->keys + s->block_size - 1) / s->block_size;
}

static size_t row_bytes(const struct world_shape *s)
{
	return nx_kv_is_coded(s->codec)
	               ? (size_t)nx_kv_coded_row_bytes(s->codec, s->n_kv_heads, HEAD_DIM, HEAD_DIM)
	               : (size_t)s->n_kv_heads * HEAD_DIM * 2;
}

size_t world_layer_bytes(const struct world_shape *s)
{
	return 2u * (size_t)s->batch * (size_t)(blocks_of(s) * s->block_size) * row_bytes(s);
}

void *world::add(size_t bytes)
{
	memory.push_back(std::unique_ptr<block>(new block(bytes)));
	return memory.back()->p;
}

template <typename T> static T *put(struct world *w, const std::vector<T> &v)
{
	T *p = (T *)w->add(v.size() * sizeof(T) + 1);
	upload(*w->memory.back(), v);
	return p;
}

static std::vector<int32_t> make_table(const struct world_shape *s)
{
	std::vector<int32_t> t((size_t)(s->batch * blocks_of(s)));
	uint32_t x = 2463534242u;
	for (size_t i = 0; i < t.size(); i++)
		t[i] = (int32_t)i * s->block_size;
	for (size_t i = t.size(); s->shuffled && i > 1; i--) { /* Fisher and Yates */
		x ^= x << 13;
		x ^= x >> 17;
		x ^= x << 5;
		std::swap(t[i - 1], t[x % i]);
	}
	return t;
}

/* As the engine's plan counts them: what is in the store and all rows of the step. */
static int32_t max_keys(const struct world_shape *s)
{
	return s->keys + (s->drafted ? s->rows - 1 : 0);
}

static void make_rows(struct world *w)
{
	const struct world_shape *s = &w->shape;
	int32_t stride = s->drafted ? s->rows : 0;
	size_t n = (size_t)w->n_rows;
	std::vector<int32_t> seq(n), token(n), off(n), kind(n), scratch(n, -1), n_anc(n),
		anc(n * (size_t)stride);
	std::vector<struct nx_segment> segments;
	for (int32_t q = 0; q < s->batch; q++) {
		segments.push_back({q, q * s->rows, s->rows, max_keys(s)});
		for (int32_t i = 0; i < s->rows; i++) {
			size_t r = (size_t)(q * s->rows + i);
			seq[r] = q;
			token[r] = (int32_t)(r * 7919u % 32000u);
			off[r] = i;
			kind[r] = NX_ROW_COMMIT;
			if (!s->drafted || !i)
				continue;
			kind[r] = NX_ROW_CANDIDATE;
			scratch[r] = i - 1;
			n_anc[r] = i;
			for (int32_t j = 0; j < i; j++)
				anc[r * (size_t)stride + (size_t)j] = j;
		}
	}
	w->rows.n_rows = w->n_rows;
	w->rows.n_segments = s->batch;
	w->rows.anc_stride = stride;
	w->rows.max_keys = max_keys(s);
	w->rows.seq = put(w, seq);
	w->rows.token = put(w, token);
	w->rows.slot_off = w->rows.pos_off = put(w, off);
	w->rows.kind = put(w, kind);
	w->rows.scratch = put(w, scratch);
	w->rows.n_anc = put(w, n_anc);
	w->rows.anc = stride ? put(w, anc) : NULL;
	w->rows.segments = put(w, segments);
}

/* As harness/engine/store.c lays a layer group out: all keys of a layer, then all its values. */
static void make_store(struct world *w)
{
	const struct world_shape *s = &w->shape;
	struct nx_kv *kv = &w->kv;
	kv->codec = nx_kv_is_coded(s->codec) ? s->codec : NX_KV_BF16;
	kv->group_size = HEAD_DIM;
	kv->plain = NX_BF16;
	kv->n_layers = s->n_layers;
	kv->n_kv_heads = s->n_kv_heads;
	kv->head_dim = HEAD_DIM;
	kv->block_size = s->block_size;
	kv->table_stride = blocks_of(s);
	kv->table = put(w, make_table(s));
	kv->row_bytes = (int64_t)row_bytes(s);
	kv->v_offset = w->pool_rows * kv->row_bytes;
	kv->layer_bytes = 2 * kv->v_offset;
	kv->window = 1;
	size_t bytes = (size_t)kv->layer_bytes * (size_t)s->n_layers;
	kv->base = (uint8_t *)w->add(bytes);
	fill_bf16(kv->base, bytes / 2, 11, 1.0f);
	if (!s->drafted)
		return;
	kv->scratch_cap = s->rows;
	kv->scratch_row_bytes = kv->row_bytes;
	kv->scratch_v_offset = (int64_t)s->batch * s->rows * kv->row_bytes;
	kv->scratch_layer_bytes = 2 * kv->scratch_v_offset;
	bytes = (size_t)kv->scratch_layer_bytes * (size_t)s->n_layers;
	kv->scratch = (uint8_t *)w->add(bytes);
	fill_bf16(kv->scratch, bytes / 2, 12, 1.0f);
}

world::world(const struct world_shape &s) : shape(s), rows(), state(), kv()
{
	n_rows = s.batch * s.rows;
	pool_rows = s.batch * blocks_of(&s) * s.block_size;
	kv_bytes = 2.0 * s.batch * (double)s.keys * (double)row_bytes(&s);
	make_rows(this);
	make_store(this);
	/* The last COMMIT row's slot is keys - 1. */
	int32_t len = s.keys - (s.drafted ? 1 : s.rows);
	state.max_seqs = s.batch;
	state.len = put(this, std::vector<int32_t>((size_t)s.batch, len));
	state.last_token = put(this, std::vector<int32_t>((size_t)s.batch, 17));
}

attention::attention(struct bench *b, struct world *w, const void *q, int64_t q_stride, void *out)
    : a()
{
	a.rows = &w->rows;
	a.state = &w->state;
	a.kv = &w->kv;
	a.n_heads = w->shape.n_heads;
	a.scale = 1.0f / sqrtf(HEAD_DIM);
	a.q = q;
	a.q_stride = q_stride;
	a.out = out;
	a.kernel = w->shape.materialised ? NX_ATTN_MATERIALISED : NX_ATTN_TILED;
	a.kv_chunk = KV_CHUNK;
	a.workspace_bytes = b->ops->attention_workspace(b->dev, a.kernel, a.kv_chunk, a.n_heads,
	                                                HEAD_DIM, w->n_rows, w->rows.max_keys);
	a.workspace = w->add(a.workspace_bytes + 16);
}

int attention::run(struct bench *b, int32_t layer, struct nx_err *err)
{
	a.layer = layer;
	return b->ops->attention(b->dev, b->stream, &a, err);
}
