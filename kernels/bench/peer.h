/* SPDX-License-Identifier: Apache-2.0
 *
 * peer.h: how somebody else's GPU kernel is measured beside ours, in one process and in turns.
 *
 * A peer is a shared object that exports `const struct nx_peer *nx_peer(void)`. `make bench-gpu PEER="a.so b.so"`
 * opens it and measures it in each row whose work it takes, A-B-A-B with ours: its run() is captured into a CUDA graph
 * and replayed between two events. It is called from one thread, on the device that is current.
 *
 * Operands lie in device memory, belong to the bench and are random. `n_operands` of them are rotated through, so
 * that caches hold none: call number i takes operand i % n_operands. All is bf16 unless said otherwise, products are
 * summed in f32. After timing, the result of operand 0 is compared with ours and the difference printed in the row.
 *
 * init() may allocate, tune, and keep the operands in a form of its own (packed weights, contiguous KV): what is done
 * there is not timed. Shapes that it does not take are refused with NX_ENOTSUP and a sentence, which the row prints.
 */
#ifndef NX_PEER_H
#define NX_PEER_H

#include "nexus/device.h"

#ifdef __cplusplus
extern "C" {
#endif

#define NX_PEER_ABI 1u

enum nx_peer_work {
	NX_PEER_LINEAR,  /* y = x W^T, and what the epilogue says */
	NX_PEER_DECODE,  /* attention of one row a sequence over all its keys */
	NX_PEER_PREFILL, /* causal attention of `keys` rows a sequence over themselves */
};

struct nx_peer_linear {
	int64_t n, k;
	int32_t m;
	enum nx_epilogue epilogue; /* STORE or SWIGLU, see nexus/device.h */
	bool y_f32;
	const void *const *w; /* host array [n_operands] of [n, k], row-major */
	const void *x;        /* [m, k] */
	void *y;              /* [m, n], [m, n / 2] for SWIGLU; bf16, or f32 with y_f32 */
};

/* Key j of sequence b lies in row  table[b * table_stride + j / block_size] + j % block_size  of k[i] and v[i], whose
 * rows are [n_kv_heads, head_dim] and follow one another. */
struct nx_peer_attention {
	int32_t batch, keys, n_heads, n_kv_heads, head_dim;
	float scale;
	const void
		*q; /* row r at q + r * q_stride elements, [n_heads, head_dim]; rows by sequence */
	int64_t q_stride;                /* elements */
	void *out;                       /* [rows, n_heads * head_dim] */
	const void *const *k, *const *v; /* host arrays [n_operands] */
	int64_t pool_rows;               /* of each of k and v */
	const int32_t *table;            /* device, [batch, table_stride] */
	int32_t table_stride, block_size;
};

struct nx_peer_shape {
	enum nx_peer_work work;
	int32_t n_operands;
	struct nx_peer_linear linear;
	struct nx_peer_attention attention; /* of DECODE and PREFILL */
};

struct nx_peer {
	uint32_t abi;  /* NX_PEER_ABI */
	uint32_t size; /* sizeof(struct nx_peer) */
	const char *name;
	uint32_t works; /* 1 << enum nx_peer_work, of all that it does */
	/* *s and what it points to on the host are good until done(). */
	int (*init)(void **self, const struct nx_peer_shape *s, struct nx_err *err);
	/* Puts call number i on the stream, a cudaStream_t; no allocation, no waiting. */
	int (*run)(void *self, int32_t i, void *stream, struct nx_err *err);
	void (*done)(void *self);
};

typedef const struct nx_peer *(*nx_peer_fn)(void);
#define NX_PEER_SYMBOL "nx_peer"

#ifdef __cplusplus
}
#endif
#endif
