/* SPDX-License-Identifier: Apache-2.0
 *
 * nexus/device.h: what a backend (cpu, cuda, ...) gives to the engine and to techniques.
 *
 * A backend is a shared object that exports `const struct nx_device_ops *nx_backend(void)`. The engine
 * speaks to it through this table alone.
 *
 * Principles
 *   Rows.     Every operation takes M rows: decode, verification and prefill are one call with other M.
 *   Enqueue.  Operations put work on a stream and return; arguments are fixed addresses in device
 *             memory and grids that depend on host-known bounds alone, so a step can be captured.
 *             Structs and host arrays of a call are read within it; what copy() and kv_swap() read or
 *             write on the host is, until the work has been waited for. NULL is the device's own
 *             stream, ordered against no other.
 *   Offsets.  The host knows a sequence's length only within bounds. Rows carry offsets from the
 *             device-side length `len[seq]`; kernels add them.
 *   Memory.   "device" pointers come from alloc() and may be touched by the host only through copy()
 *             unless NX_DEV_HOST_MEMORY is set. Arrays named "host" are ordinary memory.
 *   Errors.   0 or a negative nx_code and a sentence in *err. Nothing here exits, prints or logs.
 *   Threads.  One host thread drives a device at a time.
 *
 * Activations are [rows, cols], row-major, element type info.act_dtype; logits are always f32.
 */
#ifndef NEXUS_DEVICE_H
#define NEXUS_DEVICE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "nexus/err.h"

#ifdef __cplusplus
extern "C" {
#endif

#define NX_DEVICE_ABI 1u

struct nx_stream;
struct nx_event;
struct nx_graph;
struct nx_weight; /* a matrix packed for this device; made by weight_create */

enum nx_dtype { NX_F32 = 0, NX_BF16 = 1 };

/* How a KV row is encoded in the store. The plain types first; codecs bring their own later. */
enum nx_kv_codec { NX_KV_F32 = 0, NX_KV_BF16 = 1 };

static inline size_t nx_dtype_bytes(enum nx_dtype t)
{
	return t == NX_F32 ? 4 : 2;
}

/* ---- rows ------------------------------------------------------------------------------------- */

/* X(name, text): what becomes of a row. */
#define NX_ROW_KINDS(X)                                                                            \
	X(COMMIT, "a real token; its KV stays")                                                    \
	X(CANDIDATE, "drafted; stays only if accepted")                                            \
	X(PROBE, "never accepted; its KV is dropped")                                              \
	X(PAD, "computed and reserved, never visible")                                             \
	X(REDO, "computed again for its taps; writes no KV")

enum nx_row_kind {
#define X(name, text) NX_ROW_##name,
	NX_ROW_KINDS(X)
#undef X
		NX_ROW_KIND_COUNT
};

#define NX_TOKEN_LAST (-1) /* row token: take last_token[seq] on the device */

/* A run of consecutive rows that belong to one sequence, in ascending slot order. */
struct nx_segment {
	int32_t seq;
	int32_t row0;
	int32_t n_rows;
	int32_t max_keys; /* host's upper bound of the keys that any row of the segment sees */
};

/*
 * The rows of one forward. All arrays in device memory, [n_rows] unless stated. With L = len[seq]:
 *   slot     = L + slot_off   place in KV order, for COMMIT and PAD rows (where K and V are written)
 *   position = L + pos_off    RoPE position
 *   visible  = COMMIT, PAD, REDO: table slots [0, slot]
 *              CANDIDATE, PROBE: table slots [0, max(L, slot + 1 - n_anc)), then the scratch rows listed in
 *              anc, in order (ancestors by depth, itself last). With slot_off = depth below the root, the
 *              COMMIT row in slot L that the draft hangs from is seen through the table
 *              (nexus_kernels/rows.h has the rule as code)
 *   scratch  = index of the row in the sequence's scratch rows (CANDIDATE, PROBE), else -1
 */
struct nx_rows {
	int32_t n_rows;
	int32_t n_segments;
	int32_t anc_stride; /* columns of anc; 0 when no row has ancestors */
	int32_t max_keys;   /* over all segments */
	const int32_t *seq;
	const int32_t *token; /* id or NX_TOKEN_LAST */
	const int32_t *slot_off;
	const int32_t *pos_off;
	const int32_t *kind; /* enum nx_row_kind */
	const int32_t *scratch;
	const int32_t *n_anc;
	const int32_t *anc;                /* [n_rows, anc_stride] scratch indices */
	const struct nx_segment *segments; /* [n_segments], covering all rows in order */
};

/* Device-side state of sequences, [max_seqs] each. Only commit() changes it during a step. */
struct nx_seq_state {
	int32_t max_seqs;
	int32_t *len;        /* committed rows in the KV store */
	int32_t *last_token; /* last token emitted, not yet in the store */
};

/* ---- the KV store as kernels see it ----------------------------------------------------------- */

/*
 * One layer group. A pool row r of layer l has its K at
 *     base + l * layer_bytes + r * row_bytes
 * and its V at the same place + v_offset. A row is [n_kv_heads][head_dim], encoded by codec.
 * Slot s of sequence q lives in pool row  table[q * table_stride + s / block_size] + s % block_size.
 * (A contiguous layout is a table of one block.) Scratch row i of sequence q of layer l:
 *     scratch + l * scratch_layer_bytes + (q * scratch_cap + i) * scratch_row_bytes
 * K, and V at + scratch_v_offset; scratch rows are in the plain type of the codec.
 */
struct nx_kv {
	enum nx_kv_codec codec;
	int32_t n_layers, n_kv_heads, head_dim;
	int32_t block_size, table_stride;
	const int32_t *
		table; /* device, [max_seqs, table_stride], first pool row of each block; -1 = none */
	uint8_t *base;
	int64_t layer_bytes, row_bytes, v_offset;
	uint8_t *scratch; /* NULL when scratch_cap is 0 */
	int64_t scratch_layer_bytes, scratch_row_bytes, scratch_v_offset;
	int32_t scratch_cap;
};

/* ---- arguments of operations ------------------------------------------------------------------ */

/* Fills dst [n, cols] f32, row-major, with rows [row0, row0 + n) of the matrix. */
typedef int (*nx_row_source)(void *ctx, int64_t row0, int64_t n, float *dst, struct nx_err *err);

/* A matrix W [n, k] (output features x input features). Packed once, in the order kernels read it. */
struct nx_weight_desc {
	int64_t n, k;
	enum nx_dtype dtype; /* type it is stored in on the device */
	nx_row_source rows;
	void *ctx;
	bool lookup; /* rows are also fetched by index (embedding): see embed() */
};

enum nx_epilogue {
	NX_EPI_STORE,  /* y = x W^T */
	NX_EPI_ADD,    /* y += x W^T (residual) */
	NX_EPI_SWIGLU, /* W rows interleaved gate_0, up_0, gate_1, up_1, ...: y[j] = silu(g_j) * u_j; y has n / 2 columns */
};

struct nx_linear {
	const struct nx_weight *w;
	int32_t m;     /* rows of x and y */
	const void *x; /* [m, k] act_dtype */
	void *y;       /* [m, n] (n / 2 for SWIGLU) act_dtype, or f32 when y_f32 */
	enum nx_epilogue epilogue;
	bool y_f32; /* logits */
};

/* Rotates q and k (pairs (2i, 2i+1), Su et al. 2104.09864) in place and writes k, v into the store. */
struct nx_rope_store {
	const struct nx_rows *rows;
	const struct nx_seq_state *state;
	const struct nx_kv *kv;
	int32_t layer, n_heads;
	int32_t rope_dim;      /* leading dimensions of a head that are rotated; even */
	const float *inv_freq; /* device, [rope_dim / 2] */
	void *qkv; /* [n_rows, (n_heads + 2 n_kv_heads) * head_dim]: q heads, k heads, v heads */
};

enum nx_attn_kernel {
	NX_ATTN_MATERIALISED, /* writes the whole score matrix to the workspace: the textbook form */
	NX_ATTN_TILED, /* online softmax over tiles of keys (2205.14135), split over chunks of keys
	                         for few rows (flash-decoding); workspace linear in rows and keys / kv_chunk */
};

struct nx_attention {
	const struct nx_rows *rows;
	const struct nx_seq_state *state;
	const struct nx_kv *kv;
	int32_t layer, n_heads;
	float scale;
	const void *q; /* first q of row 0; row r at q + r * q_stride elements */
	int64_t q_stride;
	void *out; /* [n_rows, n_heads * head_dim] act_dtype */
	enum nx_attn_kernel kernel;
	int32_t kv_chunk; /* keys a partial covers; the grid starts at position 0 and is fixed */
	void *workspace;  /* device, at least attention_workspace() bytes */
	size_t workspace_bytes;
};

struct nx_sampler {
	float temperature;  /* 0 = greedy: the lowest index among the largest logits */
	float top_p, min_p; /* 1 and 0 switch them off */
	int32_t top_k;      /* 0 switches it off */
	uint64_t seed;
	uint32_t request, sample;
};

/* One token to be drawn. Its random number is keyed by (seed, request, sample, position, purpose). */
struct nx_emit {
	int32_t logit_row; /* row of the logits matrix */
	int32_t seq;       /* sequence that receives it: samplers[seq] */
	int32_t src_seq;   /* sequence whose rows were computed (differs from seq at a fork) */
	int32_t pos_off;   /* position of the new token = len[src_seq] + pos_off */
};

struct nx_sample {
	const float *logits; /* device, [n_logit_rows, vocab] */
	int32_t n_emit, vocab;
	const struct nx_emit *emit;        /* device, [n_emit] */
	const struct nx_sampler *samplers; /* device, [max_seqs] */
	const struct nx_seq_state *state;
	int32_t *token; /* device, [n_emit] */
	float *logprob; /* device, [n_emit], natural log of the untempered softmax; NULL = not wanted */
};

/* len[seq] = len[src_seq] + n_rows; if emit >= 0, last_token[seq] = token[emit].
 * Entries take effect in order: children of a fork come before their parent. */
struct nx_commit {
	int32_t seq, src_seq, n_rows, emit;
};

/* Copies pool rows or scratch rows inside the store, all layers, K and V. dst and src are pool rows. */
struct nx_kv_copy {
	int32_t dst, src, n_rows;
};

enum nx_copy_dir { NX_H2D, NX_D2H, NX_D2D };

/* ---- the table -------------------------------------------------------------------------------- */

#define NX_DEV_HOST_MEMORY 1u /* the host may dereference device pointers */
#define NX_DEV_ASYNC 2u       /* work runs after the call returns */
#define NX_DEV_GRAPHS 4u

struct nx_device_config {
	int32_t n_threads;   /* cpu: 0 = all that the process may use */
	int32_t index;       /* which device of the kind */
	enum nx_dtype dtype; /* weights, KV and activations are kept in it where the device can */
	bool invariant;  /* a row's result depends on its own sequence alone; no library products */
	const char *isa; /* cpu: "auto", "ref", "avx2", "avx512", "avx512bf16"; NULL = auto */
};

struct nx_device_info {
	char name[128];      /* "Intel(R) Xeon(R) Processor" */
	char isa[32];        /* kernel path in use */
	char library[64];    /* library for large M and its version; "" = none */
	uint64_t mem_bytes;  /* of the device */
	uint64_t llc_bytes;  /* last-level cache */
	uint64_t free_bytes; /* now */
	int32_t n_units;     /* threads or SMs in use */
	enum nx_dtype act_dtype;
	uint32_t caps; /* NX_DEV_* */
};

/* Peaks measured on this device, in this process. 0 = not measured. */
struct nx_calibration {
	double read_bytes_per_s;       /* memory, streaming read, working set >> last-level cache */
	double copy_bytes_per_s;       /* memory, read + write counted */
	double cache_read_bytes_per_s; /* working set that fits the last-level cache */
	uint64_t cache_set_bytes, mem_set_bytes;  /* working sets that were used */
	double f32_flops_per_s, bf16_flops_per_s; /* own products, large M */
	double library_flops_per_s; /* the library's product in the run's dtype, large M */
};

/* Work done since the device was opened or counted_reset(): counted, not measured. */
struct nx_counted {
	uint64_t weight_bytes, kv_bytes, act_bytes; /* bytes that operations had to move at least */
	uint64_t flops;                             /* 2 per multiply-add, products and attention */
};

typedef void (*nx_enqueue_fn)(void *args);

struct nx_device_ops {
	uint32_t abi;  /* NX_DEVICE_ABI */
	uint32_t size; /* sizeof(struct nx_device_ops) */
	const char *name;

	int (*open)(void **dev, const struct nx_device_config *cfg, struct nx_err *err);
	void (*close)(void *dev); /* after everything made with it is destroyed; NULL is fine */
	void (*info)(void *dev, struct nx_device_info *out);
	int (*calibrate)(void *dev, double seconds, struct nx_calibration *out, struct nx_err *err);
	void (*counted)(void *dev, struct nx_counted *out);
	void (*counted_reset)(void *dev);

	/* Memory: 64-byte aligned or better, contents undefined, NULL when there is none. */
	void *(*alloc)(void *dev, size_t bytes);
	void (*free)(void *dev, void *p, size_t bytes);
	void *(*host_alloc)(void *dev, size_t bytes); /* pinned: what copy() reads and writes */
	void (*host_free)(void *dev, void *p, size_t bytes);

	int (*stream_create)(void *dev, struct nx_stream **out, struct nx_err *err);
	void (*stream_destroy)(void *dev, struct nx_stream *s);
	int (*stream_sync)(void *dev, struct nx_stream *s, struct nx_err *err);
	int (*event_create)(void *dev, struct nx_event **out, struct nx_err *err);
	void (*event_destroy)(void *dev, struct nx_event *e);
	int (*event_record)(void *dev, struct nx_stream *s, struct nx_event *e, struct nx_err *err);
	int (*event_wait)(void *dev, struct nx_event *e, struct nx_err *err); /* the host waits */

	/* Graphs; NULL hooks when caps lacks NX_DEV_GRAPHS. */
	int (*graph_begin)(void *dev, struct nx_stream *s, struct nx_err *err);
	int (*graph_end)(void *dev, struct nx_stream *s, struct nx_graph **out, struct nx_err *err);
	int (*graph_launch)(void *dev, struct nx_stream *s, struct nx_graph *g, struct nx_err *err);
	void (*graph_destroy)(void *dev, struct nx_graph *g);

	/* Work of a technique's own: on the CPU a C function, on CUDA a launcher that only launches
	 * kernels. args must stay alive until the stream has run it. */
	int (*enqueue)(void *dev, struct nx_stream *s, nx_enqueue_fn fn, void *args,
	               struct nx_err *err);

	int (*copy)(void *dev, struct nx_stream *s, void *dst, const void *src, size_t bytes,
	            enum nx_copy_dir dir, struct nx_err *err);
	int (*fill)(void *dev, struct nx_stream *s, void *dst, int byte, size_t bytes,
	            struct nx_err *err);

	int (*weight_create)(void *dev, const struct nx_weight_desc *d, struct nx_weight **out,
	                     struct nx_err *err);
	void (*weight_destroy)(void *dev, struct nx_weight *w);
	uint64_t (*weight_bytes)(const struct nx_weight *w);

	/* x[r] = W[token of row r] */
	int (*embed)(void *dev, struct nx_stream *s, const struct nx_rows *rows,
	             const struct nx_seq_state *state, const struct nx_weight *table, void *x,
	             struct nx_err *err);
	/* y[r] = x[r] / rms(x[r]) * w (1910.07467); w device f32 [cols]; y may be x */
	int (*rmsnorm)(void *dev, struct nx_stream *s, void *y, const void *x, const float *w,
	               int32_t rows, int32_t cols, float eps, struct nx_err *err);
	int (*linear)(void *dev, struct nx_stream *s, const struct nx_linear *a,
	              struct nx_err *err);
	int (*rope_store)(void *dev, struct nx_stream *s, const struct nx_rope_store *a,
	                  struct nx_err *err);
	/* Bytes of workspace for up to `rows` rows of one forward that see up to `keys` keys each. */
	size_t (*attention_workspace)(void *dev, enum nx_attn_kernel kernel, int32_t kv_chunk,
	                              int32_t n_heads, int32_t head_dim, int64_t rows,
	                              int64_t keys);
	int (*attention)(void *dev, struct nx_stream *s, const struct nx_attention *a,
	                 struct nx_err *err);
	/* y[i] = x[index[i]]; index device int32 [n] */
	int (*gather)(void *dev, struct nx_stream *s, void *y, const void *x, const int32_t *index,
	              int32_t n, int32_t cols, struct nx_err *err);
	int (*sample)(void *dev, struct nx_stream *s, const struct nx_sample *a,
	              struct nx_err *err);
	int (*commit)(void *dev, struct nx_stream *s, const struct nx_commit *c /* device */,
	              int32_t n, const int32_t *token, const struct nx_seq_state *state,
	              struct nx_err *err);
	/* Copies between pool rows of one store, in order (copy-on-write, defragmentation). */
	int (*kv_copy)(void *dev, struct nx_stream *s, const struct nx_kv *kv,
	               const struct nx_kv_copy *c /* host */, int32_t n, struct nx_err *err);
	/* Pool rows [row, row + n) of all layers to or from host memory; layout private to the device,
	 * n * nx_kv_swap_row_bytes(kv) bytes. */
	int (*kv_swap)(void *dev, struct nx_stream *s, const struct nx_kv *kv, int32_t row,
	               int32_t n, void *host, enum nx_copy_dir dir, struct nx_err *err);
	/* Moves accepted scratch rows into their slots: for each entry {seq, n, path[n]}, scratch row path[i]
	 * goes to slot len[seq] + 1 + i. Before commit. path device int32 [n_seqs, stride]; n device [n_seqs]. */
	int (*kv_compact)(void *dev, struct nx_stream *s, const struct nx_kv *kv,
	                  const struct nx_seq_state *state, const int32_t *seq, const int32_t *n,
	                  const int32_t *path, int32_t stride, int32_t n_seqs, struct nx_err *err);
};

static inline size_t nx_kv_swap_row_bytes(const struct nx_kv *kv)
{
	return (size_t)kv->n_layers * 2u * (size_t)kv->row_bytes;
}

typedef const struct nx_device_ops *(*nx_backend_fn)(void);
#define NX_BACKEND_SYMBOL "nx_backend"

#ifdef __cplusplus
}
#endif
#endif
