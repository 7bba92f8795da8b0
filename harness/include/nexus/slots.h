/* SPDX-License-Identifier: Apache-2.0
 *
 * nexus/slots.h: what the hooks of each slot are handed and what they fill in. technique.h says which hook gets
 * which, and when.
 *
 * Lengths without a unit are tokens (= KV rows). "place" is an index in [0, max_seqs) that a sequence holds while
 * it runs. Pointers are borrowed for the call unless said otherwise: a function that a hook enqueues gets what it
 * needs of these structs by value (enqueue() in device.h, which says how long device memory stays good).
 */
#ifndef NEXUS_SLOTS_H
#define NEXUS_SLOTS_H

#include "nexus/device.h"

#ifdef __cplusplus
extern "C" {
#endif

/* ---- schedule --------------------------------------------------------------------------------- */

enum nx_seq_phase {
	NX_SEQ_PREFILL, /* running; its next token needs more than one row or it has no output yet */
	NX_SEQ_DECODE,  /* running; one pending row */
	NX_SEQ_SWAPPED, /* preempted, its KV lies in host memory */
	NX_SEQ_WAITING, /* not started, or preempted and to be computed again */
	NX_SEQ_HELD,    /* finished, but its place in the batch is still taken (static batching) */
};

/* A sequence as the scheduler sees it. Counts are upper bounds where the host plans ahead. */
struct nx_sched_seq {
	uint32_t request, sample;
	enum nx_seq_phase phase;
	int32_t priority; /* higher runs first */
	int32_t samples; /* sequences that admission will start (n of the request); 1 once running */
	uint64_t arrival_ns;
	int32_t n_prompt, n_out, max_out;
	int32_t pending; /* rows to compute before the next token can be drawn */
	int32_t kv_held; /* KV rows it holds */
	int32_t kv_need; /* free KV rows that starting or resuming it takes, as the layout reserves */
	int32_t matched; /* waiting: leading rows that the prefix cache has for it now (a hint) */
	int32_t draft;   /* most rows that may be drafted for it in this step; 0 = none */
	int32_t n_preempted;
};

struct nx_sched_view {
	const struct nx_sched_seq *running; /* places taken, in order of admission */
	int32_t n_running;
	const struct nx_sched_seq
		*waiting; /* in order of arrival; swapped and preempted ones first */
	int32_t n_waiting;
	int32_t batch_size; /* places in requests */
	int32_t free_seqs;  /* places in sequences */
	int32_t max_rows;   /* most rows of a step */
	int64_t kv_free;    /* KV rows free now */
	int64_t kv_total;
	bool split_prompt; /* grants smaller than `pending` are allowed (trait SPLIT_PROMPT holds) */
};

/* Rows granted to one sequence in this step. */
struct nx_grant {
	bool waiting; /* index is into waiting: start or resume it */
	int32_t index;
	int32_t rows; /* at most pending; 0 with pad > 0 for a HELD sequence */
	int32_t pad;  /* PAD rows computed after the real ones */
	int32_t draft; /* rows it may draft beyond `rows`: 0 to draft of the view; counts towards max_rows */
};

struct nx_schedule {
	struct nx_grant *grants; /* room for n_running + n_waiting */
	int32_t n_grants;
	int32_t pad_len; /* reserve at least this many rows for each granted sequence; 0 = no wish */
	bool release_held; /* free the places of all HELD sequences before the grants are served */
};

/* ---- kv_layout -------------------------------------------------------------------------------- */

enum nx_preempt { NX_PREEMPT_NONE, NX_PREEMPT_RECOMPUTE, NX_PREEMPT_SWAP };

struct nx_kv_demand {
	int32_t max_seqs, max_len;
	int64_t budget_rows; /* KV rows that the run's memory limit allows; INT64_MAX = no limit */
	int32_t longest_request; /* largest prompt + output of the workload */
};

struct nx_kv_geometry {
	int32_t block_size; /* tokens a block; max_len = one block a sequence */
	int64_t n_rows;     /* rows of the pool, a multiple of block_size when `blocks` */
	bool blocks; /* true: fixed blocks, shared by reference; false: one contiguous run each */
	bool keep;   /* false: everything is dropped after each step (no cache) */
	enum nx_preempt preempt;
	int64_t swap_rows; /* rows of host memory for swapped sequences */
};

/* A running sequence, asked about before its next rows are planned. */
struct nx_kv_held {
	int32_t seq;       /* place, [0, max_seqs) */
	int32_t len;       /* rows it has in the store */
	int32_t n_dropped; /* rows dropped earlier: its next position is len + n_dropped */
	int32_t block_size;
};

/* A sequence that wants room. */
struct nx_kv_want {
	int32_t rows;              /* rows that must be writable now: upper bound of length + cap */
	int32_t n_prompt, max_out; /* of its request */
	int32_t max_len;
};

/* ---- attention -------------------------------------------------------------------------------- */

struct nx_attn_limits {
	int32_t n_heads, n_kv_heads, head_dim;
	int32_t max_rows, max_len;
	bool invariant;
};

/* ---- launch ----------------------------------------------------------------------------------- */

struct nx_launch_limits {
	uint32_t device_caps; /* NX_DEV_* */
	int32_t max_rows, max_seqs, max_len;
};

/* Counted by the engine, in the technique's memory; NULL = not wanted. */
struct nx_launch_stats {
	int64_t captured, replayed; /* graphs made; steps that were one launch of a graph */
	int64_t eager;              /* steps launched one operation at a time */
	int64_t dropped;            /* graphs given up for newer ones */
};

/* How the device's work of a step is launched: operation by operation, or captured into a graph that is launched
 * as one from then on. A graph is good for steps of the same shape: rows, sequences that emit, drafted rows and
 * their places, and the bucket of the longest sequence. Steps are captured the second time their shape comes, so
 * that what comes once is not. */
struct nx_launch_plan {
	bool graphs;
	int32_t max_rows;   /* steps of more rows are launched one operation at a time */
	int32_t max_graphs; /* kept; the one used longest ago goes first */
	int32_t key_bucket; /* grids of attention are made for the longest sequence rounded up to a power of two
	                         times this many keys */
	struct nx_launch_stats *stats;
};

/* ---- kv_codec --------------------------------------------------------------------------------- */

struct nx_codec_limits {
	int32_t n_layers, n_heads, n_kv_heads, head_dim;
	int32_t block_size; /* tokens a block holds; 0 = a run of any length */
	int32_t max_seqs, max_rows, max_len;
	enum nx_dtype plain; /* type of rows that are not encoded */
	bool invariant;
};

/* A codec of the device's own: codec, group_size and window are filled in, row_bytes follows from them. One of the
 * technique's own: codec is NX_KV_OWN or left 0, row_bytes and window are filled in, and codec_attend is there. */
struct nx_codec_layout {
	enum nx_kv_codec codec;
	int32_t group_size; /* see nexus_kernels/kv_codec.h */
	int32_t row_bytes; /* bytes of the K of one token in one layer, all heads; V takes as many. `window`
	                      consecutive tokens have window * row_bytes bytes in one piece, to be used as the
	                      codec likes: scales live there too */
	int32_t window; /* tokens encoded together; 1 = each by itself */
};

/*
 * The codec rule (results must not depend on chunking, hits or drafts): what a query at position p sees of row i
 * depends on p and i alone. window 1: every row is read encoded, the query's own included. window R > 1: rows of
 * the query's own group of R tokens are read in full precision, all earlier ones encoded, K and V alike.
 *
 * Where row i of the sequence lies when a layer of a forward is computed (L = len[seq]):
 *   i <  L                        blocks (if its group is complete), and the window if i >= L - R
 *   i >= L, COMMIT in this call   qkv, as computed, rotated; nowhere else yet. To be rounded to `plain` before it
 *                                 is used or encoded: later queries find it so
 *   i >= L, earlier forward of this step (a long step is cut into several): as i < L, with L moved on
 *   drafted                       the sequence's scratch rows
 * codec_attend therefore, in this order: encodes the groups that COMMIT rows of the call complete (window 1: every
 * COMMIT row; drafted rows into scratch), computes attention, and only then writes COMMIT rows into the window,
 * so that queries of an older group still find theirs there. PAD rows may be written or not; nobody sees them.
 */
struct nx_codec_step {
	const struct nx_attention *attention; /* kernel, kv_chunk and workspace do not apply */
	void *qkv; /* [n_rows, (n_heads + 2 n_kv_heads) * head_dim] act_dtype, rotated */
};

/* Accepted rows were moved into the window: groups that they complete are to be encoded, in all layers, from
 * there. Runs before the commit: len is that of before. */
struct nx_codec_commit {
	const struct nx_kv *kv;
	const struct nx_seq_state *state;
	const struct nx_emit *emit; /* device, [n_emit] */
	int32_t n_emit;
	const struct nx_verdict *verdict;
};

/* ---- prefix ----------------------------------------------------------------------------------- */

struct nx_prefix_limits {
	int32_t block_size; /* of the pool when it has blocks: then it is also the cache's; else 0 */
	int32_t align; /* the cache's block size must be a multiple of this (the codec's window) */
	int32_t max_len;
	int64_t budget_rows; /* contiguous layouts: most rows of a pool of its own */
	uint64_t
		key; /* model, codec, drafter and its codec: entries of another key must not match */
	int64_t pool_rows; /* rows of the layout's pool; 0 = not said */
};

struct nx_prefix_geometry {
	int32_t block_size; /* tokens a cached block holds */
	int64_t n_rows; /* contiguous layouts: rows of the cache's own pool, a multiple of block_size */
};

/* A sequence whose leading rows are committed in all layer groups. */
struct nx_prefix_rows {
	int32_t seq;           /* place */
	const int32_t *tokens; /* host; the token of each row; as many as n_rows */
	int32_t n_rows;        /* rows that may be published, a multiple of block_size */
	int32_t n_before;      /* of these, rows that were matched or published before */
};

/* ---- draft ------------------------------------------------------------------------------------ */

#define NX_TAP_MAX 8

/* The residual stream entering layer `layer`, before or after that layer's norm; layer n_layers is what enters
 * the final norm. (The output of layer l is the input of layer l + 1.) */
struct nx_tap {
	int32_t layer;
	bool normed;
};

struct nx_draft_limits {
	int32_t max_seqs, max_len;
	int32_t max_chunk_rows; /* most rows of one forward: what observe sees at a time */
	enum nx_dtype act_dtype, plain;
	bool invariant;
};

struct nx_draft_needs {
	int32_t n_taps;
	struct nx_tap taps[NX_TAP_MAX];
	int32_t max_rows; /* most drafted rows of a sequence in a step, candidates and probes; at least 1 */
	/* A layer group of its own in the store: paged, shared, swapped and preempted with the target's. */
	int32_t n_layers, n_kv_heads, head_dim; /* n_layers 0 = none */
	int32_t scratch_rows;                   /* of a sequence in that group */
	int32_t lag; /* rows by which the group may trail the committed length when a step ends */
	bool wants_feature; /* needs the taps of the last committed rows before it can draft: after a prefix hit
	                         or a fork the engine computes the last row again (REDO), after a swap-in the
	                         last lag + 1 rows */
	/* Sampled drafts: see nx_draft. Device memory of the technique, alive until destroy. */
	const float *q;
	int32_t q_cols;
	const int32_t *q_token;
};

/* A decoding sequence, asked how many rows to draft. */
struct nx_draft_seq {
	int32_t seq; /* place */
	uint32_t request, sample;
	int32_t cap;           /* most rows */
	const int32_t *tokens; /* host: prompt and outputs; NULL unless NX_TECH_NEEDS_TOKENS */
	int32_t n_tokens, n_prompt;
	int32_t n_out, max_out; /* n_out is an upper bound while the host plans ahead */
	float temperature;
	/* Of the latest round of this sequence that drafted at least one row and was read back; -1 = none yet. Steps
	 * without a draft change nothing. A sequence's last round is never shown (nobody asks again), nor is one that
	 * a preemption took back: counters built on these run low. */
	int32_t last_drafted, last_accepted;
};

struct nx_draft_row { /* see nx_draft; a host drafter is certain of its tokens */
	int32_t token, parent, kind;
};

#define NX_UNDRAFTABLE (-1) /* not to be asked again until the sequence ends */

/* What of the target a drafter may use. Borrowed. */
struct nx_target {
	const struct nx_weight *embed, *output;
	const float *out_norm, *inv_freq; /* device */
	float norm_eps;
	int32_t rope_dim;
};

/* One round. Arrays device unless marked host. */
struct nx_draft_step {
	const struct nx_draft *out;        /* to be filled: rows [0, n) of each span's seq */
	const struct nx_draft_span *spans; /* all decoding sequences of the step, drafting or not */
	const struct nx_draft_span *spans_host; /* host: the same, valid during the call */
	int32_t n_spans;
	/* Of each place's latest round: accepted path and tokens. Under teacher forcing its tokens are the sampler's,
	 * not those that were fed: state->last_token and out->token[path] are right always. */
	const struct nx_verdict *last;
	const struct nx_seq_state *state;
	const struct nx_sampler *samplers;
	const struct nx_target *target;
	const struct nx_kv *kv; /* of the drafter's group; NULL = none */
	/* Its valid length by place, NULL = none. The drafter's to advance; the engine sets it with the place: 0, what
	 * a prefix hit, a fork or a swap-in brought. After a hit under a grouped codec it may be ahead of
	 * state->len: rows below it stand and are not to be written. */
	const struct nx_seq_state *group;
};

/* Rows of one sequence in a forward, as observe sees them. */
struct nx_observed {
	int32_t seq;
	int32_t row0, n_rows; /* n_redo REDO rows, then COMMIT rows */
	int32_t n_draft;      /* drafted rows that follow them */
	int32_t draft0; /* index of the first of them (a long step is cut into several forwards) */
	int32_t n_redo;
	bool prompt; /* rows of a prompt, or of a sequence that is computed again: it is in no span of this step */
};

struct nx_observe {
	const struct nx_rows *rows;          /* of this forward */
	const struct nx_observed *seqs_host; /* host: valid during the call */
	int32_t n_seqs;
	void *const *
		taps; /* host array [n_taps] of device [rows, d_model], act_dtype; overwritten by the next
	                      forward */
	const struct nx_seq_state *state; /* before this step's commit */
	const struct nx_target *target;
	const struct nx_kv *kv;
	const struct nx_seq_state *group;
};

/* After the verdict, before the commit. */
struct nx_judged {
	const float *logits; /* [.., vocab] */
	int32_t vocab;
	const struct nx_emit
		*emit; /* device, [n_emit]; logits of drafted rows follow those of their root */
	int32_t n_emit;
	const struct nx_draft *draft;
	const struct nx_verdict *verdict;
	const struct nx_seq_state *state;
};

/* ---- weights ---------------------------------------------------------------------------------- */

/* X(ID, name): which matrix of the model it is. */
#define NX_WEIGHT_ROLES(X)                                                                         \
	X(EMBED, "embed") /* also the output matrix when they are tied */                          \
	X(OUTPUT, "output")                                                                        \
	X(QKV, "qkv")                                                                              \
	X(O, "o")                                                                                  \
	X(GATE_UP, "gate_up")                                                                      \
	X(DOWN, "down")

enum nx_weight_role {
#define X(id, name) NX_WEIGHT_##id,
	NX_WEIGHT_ROLES(X)
#undef X
		NX_WEIGHT_ROLE_COUNT
};

#define NX_WEIGHT_LEFT 1 /* weight_pack: leave this one to the device */

#ifdef __cplusplus
}
#endif
#endif
