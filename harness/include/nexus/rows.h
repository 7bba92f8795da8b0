/* SPDX-License-Identifier: Apache-2.0
 *
 * nexus/rows.h: the data that kernels read: rows of a step, the KV store, drafts and verdicts.
 *
 * All arrays are device memory unless said otherwise. Lengths without a unit are tokens (= KV rows).
 */
#ifndef NEXUS_ROWS_H
#define NEXUS_ROWS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

enum nx_dtype { NX_F32 = 0, NX_BF16 = 1 };

/* X(NAME, name, bits, text): how a KV row is encoded in the store; nexus_kernels/kv_codec.h has the layouts.
 * NX_KV_OWN: by a technique's codec; its bytes mean nothing to the device, which copies them whole, and its
 * attention entry both writes and reads them. */
#define NX_KV_CODECS(X)                                                                            \
	X(F32, "f32", 32, "as computed")                                                           \
	X(BF16, "bf16", 16, "rounded")                                                             \
	X(OWN, "own", 0, "by a technique's own kernels")                                           \
	X(INT8, "int8", 8, "by token and head, with scale and zero")                               \
	X(INT4, "int4", 4, "by token and head, with scale and zero")                               \
	X(E4M3, "fp8_e4m3", 8, "by token and head, with a scale")                                  \
	X(E5M2, "fp8_e5m2", 8, "by token and head, with a scale")                                  \
	X(KIVI4, "kivi4", 4, "K by channel over groups of tokens, V by token")                     \
	X(KIVI2, "kivi2", 2, "K by channel over groups of tokens, V by token")

enum nx_kv_codec {
#define X(name, text, bits, help) NX_KV_##name,
	NX_KV_CODECS(X)
#undef X
		NX_KV_CODEC_COUNT
};

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
 * One layer group (the target's layers, or a drafter's own). A pool row r of layer l has its K at
 *     base + l * layer_bytes + r * row_bytes
 * and its V at the same place + v_offset. A row is [n_kv_heads][head_dim], encoded by codec.
 * Slot s of sequence q lives in pool row  table[q * table_stride + s / block_size] + s % block_size.
 * (A contiguous layout is a table of one block.) Scratch row i of sequence q of layer l:
 *     scratch + l * scratch_layer_bytes + (q * scratch_cap + i) * scratch_row_bytes
 * K, and V at + scratch_v_offset. Scratch rows hold drafted rows: encoded where the codec works row by row
 * (window 1, row_bytes each), else in `plain`.
 *
 * A codec that encodes groups of `window` tokens (KIVI, 2402.02750) keeps the last `window` committed rows of
 * each sequence in `plain` beside the blocks. Slot s of sequence q of layer l, if s >= len - window, is also at
 *     win + l * win_layer_bytes + (q * window + s % window) * scratch_row_bytes
 * K, and V at + win_v_offset.
 */
struct nx_kv {
	enum nx_kv_codec codec;
	enum nx_dtype plain; /* type of rows that are not encoded */
	int32_t n_layers, n_kv_heads, head_dim;
	int32_t block_size, table_stride;
	const int32_t *
		table; /* device, [max_seqs, table_stride], first pool row of each block; -1 = none */
	uint8_t *base;
	int64_t layer_bytes, row_bytes, v_offset;
	uint8_t *scratch; /* NULL when scratch_cap is 0 */
	int64_t scratch_layer_bytes, scratch_row_bytes, scratch_v_offset;
	int32_t scratch_cap;
	int32_t window; /* tokens encoded together; 1 = row by row */
	int32_t group_size; /* codes that share a scale: see nexus_kernels/kv_codec.h; 0 without codes */
	uint8_t *win;       /* NULL when window is 1 */
	int64_t win_layer_bytes, win_v_offset;
};

/* ---- drafts and verdicts ---------------------------------------------------------------------- */

/*
 * The drafted rows of a round, a tree a sequence: device memory of the engine, [max_seqs, stride], a row a
 * place. Written by the drafter, read by draft_rows(), sample() and, a round later, by the drafter.
 *   token   id, or NX_TOKEN_NONE: the row is computed, but nobody sees it and it is never accepted
 *   parent  index of an earlier drafted row of the sequence; NX_DRAFT_ROOT = the COMMIT row that the draft
 *           hangs from (the last accepted token)
 *   kind    NX_ROW_CANDIDATE or NX_ROW_PROBE
 *   q_row   row of q that the token was drawn from, or NX_Q_CERTAIN: it was chosen, not drawn (a point mass)
 * Siblings that name the same row of q were drawn from it one after the other without replacement; siblings
 * that name different rows were drawn independently, each from its own. A row of q is what was really drawn
 * from: after temperature and filters.
 */
#define NX_TOKEN_NONE (-1)
#define NX_DRAFT_ROOT (-1)
#define NX_Q_CERTAIN (-1)
struct nx_draft {
	int32_t stride; /* most drafted rows of a sequence */
	int32_t *token, *parent, *kind, *q_row;
	const float *
		q; /* [any, q_cols] probabilities; the drafter's memory; NULL = nothing is sampled */
	int32_t q_cols; /* columns of q; the vocabulary's size unless q_token is given */
	const int32_t
		*q_token; /* device, [q_cols] token of a column; NULL = the column is the token */
};

/* What was decided, by place: device memory of the engine. Kept until the place is decided on again, so that
 * the next round's draft can read it; n_accepted is 0 for a sequence that has just got its place, and token then
 * means nothing: state->last_token is right always. */
struct nx_verdict {
	int32_t stride; /* columns of token and of path: 1 + most drafted rows */
	int32_t *token; /* [max_seqs, stride] tokens emitted: accepted ones, then one more */
	int32_t *
		n_accepted; /* [max_seqs] drafted rows accepted; n_accepted + 1 tokens are emitted */
	int32_t *path;      /* [max_seqs, stride] indices of the accepted rows, by depth */
};

/* The drafted rows of one sequence among the rows of a step. */
struct nx_draft_span {
	int32_t seq;
	int32_t row0; /* row of its first drafted row; its root is row0 - 1 */
	int32_t n;    /* drafted rows; 0 = decodes without a draft in this step */
};

#ifdef __cplusplus
}
#endif
#endif
