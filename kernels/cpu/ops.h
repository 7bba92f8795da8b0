/* SPDX-License-Identifier: Apache-2.0
 *
 * ops.h: the entries of the device table that are operations; see nexus/device.h.
 */
#ifndef NX_CPU_OPS_H
#define NX_CPU_OPS_H

#include "cpu/cpu.h"

/* draft.c: drafted row i has an earlier parent, a token of the vocabulary or none, and a drafted row's kind. */
int check_draft_row(const struct nx_draft *d, int32_t seq, int32_t i, int32_t vocab,
                    struct nx_err *err);

int op_copy(void *dev, struct nx_stream *s, void *dst, const void *src, size_t bytes,
            enum nx_copy_dir dir, struct nx_err *err);
int op_fill(void *dev, struct nx_stream *s, void *dst, int byte, size_t bytes, struct nx_err *err);
int op_embed(void *dev, struct nx_stream *s, const struct nx_rows *rows,
             const struct nx_seq_state *state, const struct nx_weight *table, void *x,
             struct nx_err *err);
int op_rmsnorm(void *dev, struct nx_stream *s, void *y, const void *x, const float *w, int32_t rows,
               int32_t cols, float eps, struct nx_err *err);
int op_linear(void *dev, struct nx_stream *s, const struct nx_linear *a, struct nx_err *err);
int op_rope_store(void *dev, struct nx_stream *s, const struct nx_rope_store *a,
                  struct nx_err *err);
size_t op_attention_workspace(void *dev, enum nx_attn_kernel kernel, int32_t kv_chunk,
                              int32_t n_heads, int32_t head_dim, int64_t rows, int64_t keys);
int op_attention(void *dev, struct nx_stream *s, const struct nx_attention *a, struct nx_err *err);
int op_gather(void *dev, struct nx_stream *s, void *y, const void *x, const int32_t *index,
              int32_t n, int32_t cols, struct nx_err *err);
int op_sample(void *dev, struct nx_stream *s, const struct nx_sample *a, struct nx_err *err);
int op_commit(void *dev, struct nx_stream *s, const struct nx_commit *c, int32_t n,
              const struct nx_verdict *v, const struct nx_seq_state *state, struct nx_err *err);
int op_draft_rows(void *dev, struct nx_stream *s, const struct nx_draft *d,
                  const struct nx_draft_span *spans, int32_t n_spans, int32_t vocab, int32_t window,
                  const struct nx_seq_state *state, const struct nx_draft_rows *out,
                  struct nx_err *err);
int op_kv_copy(void *dev, struct nx_stream *s, const struct nx_kv *kv, const struct nx_kv_copy *c,
               int32_t n, struct nx_err *err);
int op_kv_swap(void *dev, struct nx_stream *s, const struct nx_kv *kv, int32_t row, int32_t n,
               void *host, enum nx_copy_dir dir, struct nx_err *err);
int op_kv_compact(void *dev, struct nx_stream *s, const struct nx_kv *kv,
                  const struct nx_seq_state *state, const struct nx_emit *emit, int32_t n_emit,
                  const struct nx_verdict *v, struct nx_err *err);

#endif
