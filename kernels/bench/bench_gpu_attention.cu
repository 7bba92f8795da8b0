/* SPDX-License-Identifier: Apache-2.0
 *
 * bench_gpu_attention.cu: attention over the paged store: decoding, verifying, prompts.
 */
#include <algorithm>
#include <math.h>

#include "bench/bench_gpu_world.cuh"

/* Work of one call, by bytes (decode, verify) or by products (prompts, causal). Scores that are materialised are
 * written, read and written by the softmax, and read again. */
static void floors(const struct world *w, bool prompt, struct work *out)
{
	const struct world_shape *s = &w->shape;
	double io = 2.0 * 2 * w->n_rows * s->n_heads * HEAD_DIM; /* q and what comes out */
	if (s->materialised)
		out->bytes = 4.0 * sizeof(float) * s->batch * s->n_heads * (double)s->keys *
		             (s->keys + 1) / 2;
	else if (prompt)
		out->flops = 4.0 * s->batch * s->n_heads * HEAD_DIM * (double)s->keys *
		             (s->keys + 1) / 2;
	else
		out->bytes = w->kv_bytes + io +
		             (w->kv.scratch ? 2.0 * w->n_rows * (double)w->kv.row_bytes : 0);
}

/* Measures the shape; us of ours. peers: what they would call it, or NX_PEER_LINEAR for none. */
static double one(struct bench *b, struct world_shape s, enum nx_peer_work peers, struct work *row)
{
	bool prompt = peers == NX_PEER_PREFILL;
	double layer = (double)world_layer_bytes(&s);
	s.n_layers = prompt ? 2 : rotations(b, layer, 64);
	if ((double)s.n_layers * layer > 20e9) /* one layer is more than the caches hold */
		s.n_layers = 1;
	row->operands = s.n_layers;
	if (!device_has((size_t)layer * (size_t)s.n_layers)) {
		print_reason(
			b, row, "nexus",
			format("%.0f GB of keys do not fit", layer * s.n_layers * 1e-9).c_str());
		return 0;
	}
	world w(s);
	int64_t q_stride = (int64_t)(s.n_heads + 2 * s.n_kv_heads) * HEAD_DIM;
	size_t n_q = (size_t)(w.n_rows * q_stride),
	       n_out = (size_t)w.n_rows * (size_t)s.n_heads * HEAD_DIM;
	void *q = w.add(2 * n_q), *out = w.add(2 * n_out);
	fill_bf16(q, n_q, 13, 2.0f);
	attention at(b, &w, q, q_stride, out);
	floors(&w, prompt, row);
	std::vector<const void *> k, v;
	for (int32_t i = 0; i < s.n_layers; i++) {
		k.push_back(w.kv.base + i * w.kv.layer_bytes);
		v.push_back(w.kv.base + i * w.kv.layer_bytes + w.kv.v_offset);
	}
	struct nx_peer_shape ps = {};
	ps.work = peers;
	ps.n_operands = s.n_layers;
	ps.attention = {s.batch,
	                s.keys,
	                s.n_heads,
	                s.n_kv_heads,
	                HEAD_DIM,
	                at.a.scale,
	                q,
	                q_stride,
	                out,
	                k.data(),
	                v.data(),
	                w.pool_rows,
	                w.kv.table,
	                w.kv.table_stride,
	                w.kv.block_size};
	struct contender ours = {};
	ours.by = "nexus";
	ours.result = out;
	ours.n_result = n_out;
	ours.call = [&](int i, struct nx_err *err) { return at.run(b, i % s.n_layers, err); };
	std::vector<contender> who = {ours};
	std::vector<peer_call> calls;
	if (peers != NX_PEER_LINEAR)
		calls = peers_init(b, row, &ps, &who);
	double us = measure(b, row, who);
	peers_done(&calls);
	return us;
}

static struct world_shape decode_shape(int32_t batch, int32_t keys, int32_t n_kv_heads,
                                       int32_t block)
{
	struct world_shape s = {};
	s.batch = batch;
	s.keys = keys;
	s.rows = 1;
	s.n_heads = 32;
	s.n_kv_heads = n_kv_heads;
	s.block_size = block;
	s.shuffled = true;
	return s;
}

void bench_decode(struct bench *b)
{
	static const int32_t kv_heads[] = {8, 32}, keys[] = {1024, 4096, 32768},
			     batches[] = {1, 8, 32, 64};
	for (int32_t h : kv_heads)
		for (int32_t n : keys)
			for (int32_t batch : batches) {
				struct work w = {};
				if (b->quick && (batch == 8 || batch == 64))
					continue;
				w.part = "decode";
				w.name = format("B %d S %d heads 32/%d", batch, n, h);
				one(b, decode_shape(batch, n, h, 16), NX_PEER_DECODE, &w);
			}
	for (int32_t batch : {1, 32}) {
		double base = 0;
		for (int32_t block : {64, 16, 8}) {
			struct work w = {};
			w.part = "decode";
			w.name = format("B %d S 4096 heads 32/8 block %d", batch, block);
			w.base = base;
			w.base_name = "block 64";
			double us = one(b, decode_shape(batch, 4096, 8, block), NX_PEER_LINEAR, &w);
			base = block == 64 ? us : base;
		}
	}
}

void bench_verify(struct bench *b)
{
	for (int32_t h : {8, 32}) {
		double base = 0;
		for (int32_t rows : {1, 8, 16}) {
			struct world_shape s = decode_shape(1, 2048, h, 16);
			struct work w = {};
			s.rows = rows;
			s.drafted = rows > 1;
			w.part = "verify";
			w.name = format("B 1 S 2048 heads 32/%d rows %d", h, rows);
			w.base = base;
			w.base_name = "1 row";
			double us = one(b, s, NX_PEER_LINEAR, &w);
			base = rows == 1 ? us : base;
		}
	}
}

/* KV rows of codes beside bf16 rows. */
void bench_coded(struct bench *b)
{
	static const struct {
		enum nx_kv_codec codec;
		const char *name;
	} codecs[] = {{(enum nx_kv_codec)0, "bf16"},
	              {NX_KV_INT8, "int8"},
	              {NX_KV_INT4, "int4"},
	              {NX_KV_E4M3, "e4m3"}};
	static const int32_t sizes[][3] = {{8, 8192, 32}, {8, 8192, 8},   {32, 8192, 32},
	                                   {32, 8192, 8}, {32, 1024, 32}, {1, 8192, 8},
	                                   {1, 512, 32}};
	for (auto &x : sizes) {
		double base = 0;
		if (b->quick && x[1] < 8192)
			continue;
		for (auto &c : codecs) {
			struct world_shape s = decode_shape(x[0], x[1], x[2], 16);
			struct work w = {};
			s.codec = c.codec;
			w.part = "coded";
			w.name = format("B %d S %d heads 32/%d %s", x[0], x[1], x[2], c.name);
			w.base = base;
			w.base_name = "bf16";
			double us = one(b, s, NX_PEER_LINEAR, &w);
			base = c.codec ? base : us;
		}
	}
}

void bench_prefill(struct bench *b)
{
	static const struct {
		int32_t batch, keys;
		bool materialised;
	} shapes[] = {{1, 2048, false},
	              {4, 2048, false},
	              {1, 8192, false},
	              {1, 2048, true},
	              {4, 2048, true}};
	for (auto &x : shapes) {
		struct world_shape s = decode_shape(x.batch, x.keys, 32, 16);
		struct work w = {};
		s.rows = s.keys;
		s.materialised = x.materialised;
		w.part = "attention";
		w.name = format("B %d S %d heads 32/32 %s", x.batch, x.keys,
		                x.materialised ? "scores written" : "causal");
		one(b, s, NX_PEER_PREFILL, &w);
	}
}
