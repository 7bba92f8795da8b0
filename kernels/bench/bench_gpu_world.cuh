/* SPDX-License-Identifier: Apache-2.0
 *
 * bench_gpu_world.cuh: sequences on the device as the engine lays them out: rows of a step, a paged KV store, lengths.
 */
#ifndef NX_BENCH_GPU_WORLD_CUH
#define NX_BENCH_GPU_WORLD_CUH

#include <memory>

#include "bench/bench_gpu.cuh"

#define HEAD_DIM 128

struct world_shape {
	int32_t batch,
		keys; /* keys that the last row of a sequence sees, drafted ones not counted */
	int32_t rows; /* rows a sequence */
	bool drafted; /* the first is COMMIT, the others are a chain of CANDIDATE rows below it; else all COMMIT */
	int32_t n_heads, n_kv_heads, block_size, n_layers;
	bool shuffled;          /* blocks lie anywhere in the pool; else one after the other */
	enum nx_kv_codec codec; /* 0: bf16; a device's own: a group a head */
	bool materialised;      /* scores are written to memory; else NX_ATTN_TILED */
};

/* Owns its memory; not copied, since its structs point into it. */
struct world {
	struct world_shape shape;
	int32_t n_rows, pool_rows;
	struct nx_rows rows;
	struct nx_seq_state state;
	struct nx_kv kv;
	double kv_bytes; /* of one layer's keys and values that a step has to read */
	std::vector<std::unique_ptr<block>> memory;

	explicit world(const struct world_shape &s);
	void *add(size_t bytes); /* memory that lives as long as the world */
};

/* Bytes of the store of one layer. */
size_t world_layer_bytes(const struct world_shape *s);

/* Attention of all rows in one layer. */
struct attention {
	struct nx_attention a;
	attention(struct bench *b, struct world *w, const void *q, int64_t q_stride, void *out);
	int run(struct bench *b, int32_t layer, struct nx_err *err);
};

#endif
