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
 *             Structs and host arrays of a call are read within it, the args of enqueue() too; what
 *             copy() and kv_swap() read or write on the host is, until the work has been waited for.
 *             NULL is the device's own stream, ordered against no other.
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
#include "nexus/rows.h"

#ifdef __cplusplus
extern "C" {
#endif

/* 6: quantized weights, and KV codecs of the device's own. */
#define NX_DEVICE_ABI 6u

struct nx_stream;
struct nx_event;
struct nx_graph;
struct nx_weight; /* a matrix packed for this device; made by weight_create */
struct nx_instrument_ops;

/* ---- arguments of operations ------------------------------------------------------------------ */

/* Fills dst [n, cols] f32, row-major, with rows [row0, row0 + n) of the matrix. */
typedef int (*nx_row_source)(void *ctx, int64_t row0, int64_t n, float *dst, struct nx_err *err);

/* Random matrices: key [n] of rows [row0, row0 + n), and the one *scale of them all, from which any device makes the
 * elements that the row source would give, bit for bit: nexus_kernels/rng.h, nx_random_element(). */
typedef int (*nx_row_keys)(void *ctx, int64_t row0, int64_t n, uint64_t *key, float *scale,
                           struct nx_err *err);

/* How the elements of a matrix are kept; nexus_kernels/weight_quant.h says what codes stand for. */
enum nx_weight_code {
	NX_WEIGHT_CODE_NONE, /* as they are, in the matrix's dtype */
	NX_WEIGHT_CODE_INT8,
	NX_WEIGHT_CODE_INT4,
	NX_WEIGHT_CODE_E4M3,
};
struct nx_weight_quant {
	enum nx_weight_code code;
	int32_t group_size; /* inputs that share a scale: a multiple of 16, or 0 = all of a row */
	bool zero;      /* INT8, INT4: groups have a zero of their own; else they are symmetric */
	bool int8_acts; /* INT8, INT4: products round x to int8, too, group by group with a scale each */
};
struct nx_quant_param {
	float scale, zero;
};

/* Codes of rows [row0, row0 + n), a byte each, [n, cols], and what their groups have beside them, [n, groups]: of a
 * file that is quantized already, in exactly the desc's format. */
typedef int (*nx_code_source)(void *ctx, int64_t row0, int64_t n, uint8_t *codes,
                              struct nx_quant_param *params, struct nx_err *err);

/* A matrix W [n, k] (output features x input features). Packed once, in the order kernels read it. */
struct nx_weight_desc {
	int64_t n, k;
	enum nx_dtype dtype; /* type it is stored in on the device */
	nx_row_source rows;
	void *ctx;
	bool lookup; /* rows are also fetched by index (embedding): see embed() */
	nx_row_keys
		keys; /* NULL = only `rows` knows; else a device may generate the matrix itself */
	struct nx_weight_quant quant; /* zeros: not quantized. NX_ENOTSUP where a device lacks it */
	nx_code_source
		codes; /* NULL: codes are made from rows. Of a file that holds such codes already */
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

/*
 * What happens to q, k and v between their product and attention, in place and in this order:
 *   1. bias is added (Qwen 2)
 *   2. each q head and each k head is normalised: x / rms(x) * q_norm or k_norm, over head_dim (Qwen 3)
 *   3. q and k are rotated, pairs (2i, 2i+1) (Su et al. 2104.09864)
 *   4. k and v are written into the store, encoded where the codec works row by row. With NX_KV_OWN, and where
 *      groups of tokens are encoded together (kv->window > 1), they are not: attention writes.
 * NULL leaves a step out. All elements are in the order of pairs, bias and norms too.
 */
struct nx_rope_store {
	const struct nx_rows *rows;
	const struct nx_seq_state *state;
	const struct nx_kv *kv;
	int32_t layer, n_heads;
	int32_t rope_dim; /* leading dimensions of a head that are rotated; even */
	int32_t n_redo; /* REDO rows among the rows, where the host knows; for counted work alone */
	const float *inv_freq; /* device, [rope_dim / 2] */
	void *qkv; /* [n_rows, (n_heads + 2 n_kv_heads) * head_dim]: q heads, k heads, v heads */
	const float *bias;            /* device, [(n_heads + 2 n_kv_heads) * head_dim], or NULL */
	const float *q_norm, *k_norm; /* device, [head_dim], both or neither */
	float norm_eps;               /* of q_norm and k_norm; positive with them */
};

enum nx_attn_kernel {
	NX_ATTN_MATERIALISED, /* writes the whole score matrix to the workspace: the textbook form */
	NX_ATTN_TILED, /* online softmax over tiles of keys (2205.14135), split over chunks of keys
	                         for few rows (flash-decoding); workspace linear in rows and keys / kv_chunk */
};

/*
 * Where the device's own codec encodes groups of tokens (kv->window > 1), attention keeps the codec rule of
 * struct nx_codec_step (slots.h): it encodes the groups that COMMIT rows of the call complete, attends, and then
 * writes COMMIT rows into the window, drafted ones into scratch. It finds the rows' own k and v behind their q.
 */
struct nx_attention {
	const struct nx_rows *rows;
	const struct nx_seq_state *state;
	const struct nx_kv *kv;
	int32_t layer, n_heads;
	float scale;
	const void
		*q; /* first q of row 0; row r at q + r * q_stride elements. window > 1: q of qkv */
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

/*
 * One sequence to be decided on: its next token is drawn, after the longest path of its draft that the
 * sampler's rule accepts. Random numbers are keyed by (seed, request, sample, position, purpose, sibling);
 * nexus_kernels/rng.h.
 */
struct nx_emit {
	int32_t logit_row; /* of its last COMMIT row; those of its drafted rows follow in their order */
	int32_t seq;       /* sequence that receives it: samplers[seq], verdict row seq */
	int32_t src_seq; /* sequence whose rows were computed (differs from seq at a fork) */
	int32_t pos_off; /* position of the first new token = len[src_seq] + pos_off */
	int32_t n_draft; /* drafted rows of seq; 0 at a fork and after a prompt */
};

/* A verdict that is given and not found (replayed acceptance): all the work is done, only the choice is not.
 * OWN: the sampler's. DEPTH: the first drafted row that is `value` deep, or the deepest there is, is accepted
 * with its ancestors (0 = none). LEAF: drafted row `value` is (-1 = none). */
enum nx_override_kind { NX_OVERRIDE_OWN, NX_OVERRIDE_DEPTH, NX_OVERRIDE_LEAF };
struct nx_override {
	int32_t kind, value;
};

/*
 * Draws and verifies. From the root down the draft: among a node's CANDIDATE children, in order,
 *   greedy (temperature 0)     the one that is the target's choice
 *   chosen children (q_row = NX_Q_CERTAIN, all of them)
 *                              the target's token is drawn as without a draft, and the child that equals it is
 *                              accepted: each child x with probability p(x), as if tried one after the other
 *                              against a point mass, and the output does not depend on the draft at all
 *   drawn children             child x with min(1, p(x) / q(x)); on rejection p = norm(max(p - q, 0)) and, for
 *                              siblings of one row of q, q without x (2211.17192; 2305.09781 section 4)
 * p is the target's distribution after temperature and filters. Where no child is accepted the token is drawn
 * from what is left of p. A node may have both sorts; they are tried in order by the last rule, a chosen child
 * with probability p(x) and p without it on rejection.
 */
struct nx_sample {
	const float *logits; /* device, [n_logit_rows, vocab] */
	int32_t n_emit, vocab;
	const struct nx_emit *emit;        /* device, [n_emit] */
	const struct nx_sampler *samplers; /* device, [max_seqs] */
	const struct nx_seq_state *state;
	const struct nx_draft *draft;     /* NULL = nothing was drafted */
	const struct nx_verdict *verdict; /* written */
	float *logprob; /* device, [max_seqs, verdict->stride]: natural log of the untempered softmax of each
	                   token emitted; NULL = not wanted */
	/* Teacher forcing: device, [max_seqs, verdict->stride], or NULL. Where force[seq][d] >= 0 the child that
	 * equals it is accepted at depth d whatever the sampler says; verdict->token keeps the sampler's choice. */
	const int32_t *force;
	const struct nx_override *override; /* device, [max_seqs], or NULL */
};

/* len[seq] = len[src_seq] + n_rows, and if emits: + n_accepted[seq]; last_token[seq] = the last token emitted.
 * Entries take effect in order: children of a fork come before their parent. n_rows < 0 after rows were
 * dropped. */
struct nx_commit {
	int32_t seq, src_seq, n_rows, emits;
};

/* Where draft_rows() writes; arrays of the step's nx_rows, device, by row. */
struct nx_draft_rows {
	int32_t *token, *slot_off, *pos_off, *kind, *scratch, *n_anc;
	int32_t *anc; /* [rows, anc_stride] */
	int32_t anc_stride;
};

/* Copies pool rows or scratch rows inside the store, all layers, K and V. dst and src are pool rows. */
struct nx_kv_copy {
	int32_t dst, src, n_rows;
};

enum nx_copy_dir { NX_H2D, NX_D2H, NX_D2D };

/* ---- the table -------------------------------------------------------------------------------- */

#define NX_DEV_HOST_MEMORY 1u /* the host may dereference device pointers */
#define NX_DEV_ASYNC 2u       /* work runs after the call returns */
#define NX_DEV_GRAPHS 4u      /* graph_* are there */
#define NX_DEV_TILES 8u       /* products take rows of x in tiles of NX_TILE_ROWS, full or not */
#define NX_TILE_ROWS 16

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
	char blas[64];       /* library for large M and its version; "" = none */
	uint64_t mem_bytes;  /* of the device */
	uint64_t llc_bytes;  /* last-level cache */
	uint64_t free_bytes; /* now */
	int32_t n_units;     /* threads or SMs in use */
	enum nx_dtype act_dtype;
	uint32_t caps;         /* NX_DEV_* */
	uint32_t kv_codecs;    /* 1 << NX_KV_*: those that attention() reads */
	uint32_t weight_codes; /* 1 << NX_WEIGHT_CODE_*: those that weight_create() makes */
};

/* Peaks measured on this device, in this process. 0 = not measured. */
struct nx_calibration {
	double read_bytes_per_s;       /* memory, streaming read, working set >> last-level cache */
	double copy_bytes_per_s;       /* memory, read + write counted */
	double cache_read_bytes_per_s; /* working set that fits the last-level cache */
	uint64_t cache_set_bytes, mem_set_bytes;  /* working sets that were used */
	double f32_flops_per_s, bf16_flops_per_s; /* own products, large M */
	double blas_flops_per_s; /* the library's product in the run's dtype, large M */
};

/* Work done since the device was opened or counted_reset(): counted, not measured. */
struct nx_counted {
	uint64_t weight_bytes, kv_bytes, act_bytes; /* bytes that operations had to move at least */
	uint64_t flops;                             /* 2 per multiply-add, products and attention */
};

/* Work of attention by the key, of devices whose host does not know how many keys there are: what it would be if every
 * segment read one key, and every row saw one. */
struct nx_uncounted {
	uint64_t kv_bytes;         /* times the keys of a segment */
	uint64_t act_bytes, flops; /* times the keys that a row sees */
};

/* args: the device's own copy, aligned to 16 bytes and good during the call. */
typedef void (*nx_enqueue_fn)(void *args);
#define NX_ENQUEUE_MAX 4096 /* most bytes of arguments */

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

	/*
	 * Work of a technique's own. The `bytes` at args are copied before it returns and fn gets the copy, so
	 * any number of calls may be under way and args may lie on the stack. More than NX_ENQUEUE_MAX bytes
	 * are NX_EINVAL; with 0 args is not looked at.
	 *   CPU   fn is a C function that may read and write device memory; it runs in its turn on the stream
	 *   CUDA  fn is a launcher: it is called at once, during graph capture too, and only launches kernels, on
	 *         the stream that its args carry; what they are handed is theirs by value
	 *
	 * Host structs that a hook was handed (nx_attention, nx_rows, nx_kv, nx_seq_state, nx_draft, nx_verdict,
	 * ...) are borrowed for the hook's call: what fn needs of them goes into args by value, not as a pointer
	 * to them. The pointers into device memory that they hold stay good:
	 *   for the engine's life  those of nx_kv, nx_seq_state, nx_draft, nx_verdict and nx_target, samplers and
	 *                          taps; their contents change from step to step, taps with each forward
	 *   for the step only      those of nx_rows and its segments, spans, emit, logits, and activations (q, qkv,
	 *                          out, x, y), which the next layer overwrites
	 */
	int (*enqueue)(void *dev, struct nx_stream *s, nx_enqueue_fn fn, const void *args,
	               size_t bytes, struct nx_err *err);

	int (*copy)(void *dev, struct nx_stream *s, void *dst, const void *src, size_t bytes,
	            enum nx_copy_dir dir, struct nx_err *err);
	int (*fill)(void *dev, struct nx_stream *s, void *dst, int byte, size_t bytes,
	            struct nx_err *err);

	int (*weight_create)(void *dev, const struct nx_weight_desc *d, struct nx_weight **out,
	                     struct nx_err *err);
	void (*weight_destroy)(void *dev, struct nx_weight *w);
	uint64_t (*weight_bytes)(const struct nx_weight *w);
	/* Some devices keep a second form of a weight for products of many rows. Both count it when max_rows, the most
	 * rows of a product with the weight, asks for it; with 0 there is no product (a table of embed() alone).
	 *   weight_forecast  bytes that weight_create and weight_prepare would take together; d->rows is not called
	 *   weight_prepare   makes that form, so that no product has to allocate, and says in *bytes what products
	 *                    of up to max_rows rows use of w, in all forms. What is made stays until
	 *                    weight_destroy. May be called again. */
	uint64_t (*weight_forecast)(void *dev, const struct nx_weight_desc *d, int32_t max_rows);
	int (*weight_prepare)(void *dev, struct nx_weight *w, int32_t max_rows, uint64_t *bytes,
	                      struct nx_err *err);

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
	              int32_t n, const struct nx_verdict *v, const struct nx_seq_state *state,
	              struct nx_err *err);
	/* Puts drafts among a step's rows: drafted row i of span->seq becomes row span->row0 + i: token, kind,
	 * scratch row i, slot_off = pos_off = depth below the root, ancestors by depth with itself last. Rows
	 * without a token become PROBE rows that see themselves alone. window > 1: rows whose position lies in a
	 * later group of `window` tokens than the root's lose their token (the codec rule). So do rows below
	 * those. A parent that is no earlier row or a token outside [0, vocab) is an error. */
	int (*draft_rows)(void *dev, struct nx_stream *s, const struct nx_draft *d,
	                  const struct nx_draft_span *spans /* device */, int32_t n_spans,
	                  int32_t vocab, int32_t window, const struct nx_seq_state *state,
	                  const struct nx_draft_rows *out, struct nx_err *err);
	/* Copies between pool rows of one store, in order (copy-on-write, prefixes). */
	int (*kv_copy)(void *dev, struct nx_stream *s, const struct nx_kv *kv,
	               const struct nx_kv_copy *c /* host */, int32_t n, struct nx_err *err);
	/* Pool rows [row, row + n) of all layers to or from host memory; layout private to the device,
	 * n * nx_kv_swap_row_bytes(kv) bytes. */
	int (*kv_swap)(void *dev, struct nx_stream *s, const struct nx_kv *kv, int32_t row,
	               int32_t n, void *host, enum nx_copy_dir dir, struct nx_err *err);
	/* Moves accepted scratch rows into the store: for each emit with n_draft > 0, scratch row path[i] goes to
	 * slot len[seq] + pos_off + i (into the window where the codec has one; groups that are complete then are
	 * encoded, unless the codec is NX_KV_OWN). Before commit. */
	int (*kv_compact)(void *dev, struct nx_stream *s, const struct nx_kv *kv,
	                  const struct nx_seq_state *state, const struct nx_emit *emit /* device */,
	                  int32_t n_emit, const struct nx_verdict *v, struct nx_err *err);

	/* Devices whose host does not know lengths leave attention's keys uncounted in attention(): who enqueues it
	 * knows them and adds them here. NULL: the device counts by itself. */
	void (*counted_add)(void *dev, const struct nx_counted *more);

	/* With counted_add: what attention() has left uncounted since this was asked last. */
	void (*uncounted)(void *dev, struct nx_uncounted *out);

	/* Hardware counters, traces and telemetry; NULL where the device has none. nexus/instruments.h */
	const struct nx_instrument_ops *instruments;
};

/* For devices: what enqueue() refuses. */
static inline int nx_enqueue_check(size_t bytes, struct nx_err *err)
{
	return bytes <= NX_ENQUEUE_MAX
	               ? 0
	               : nx_fail(err, NX_EINVAL,
	                         "enqueue() copies at most %d bytes of arguments, not %zu",
	                         NX_ENQUEUE_MAX, bytes);
}

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
