/* SPDX-License-Identifier: Apache-2.0
 *
 * model/model.h: a Llama-family model in a GGUF file: shape, tokenizer and access to the weights.
 *
 * nx_model_open checks the architecture, the shape and the dimensions of every weight, so the
 * engine may rely on them. What would change the result and is not computed here is refused by
 * name: other architectures, RoPE scaling (also rope_freqs.weight), biases, experts. Tensors that
 * are not part of the base model (extra heads) are left alone and reached through nx_model_file.
 *
 * RoPE acts on adjacent pairs (2i, 2i + 1), which is the layout of GGUF's llama files: Q and K rows
 * come as they are in the file, unpermuted.
 *
 * Ownership: the model owns file, shape and tokenizer; everything returned lives until
 * nx_model_close. Threads: immutable after open, shareable.
 */
#ifndef NEXUS_MODEL_MODEL_H
#define NEXUS_MODEL_MODEL_H

#include <stdint.h>

#include "model/gguf.h"
#include "model/shape.h"
#include "model/tokenizer.h"
#include "nexus/err.h"

/* X(id, tensor name, per layer?, rows, columns), rows and columns in terms of shape *s.
 * Weights are [rows, cols] row-major: y[rows] = W x[cols]. Norms are [1, cols]. */
#define NX_WEIGHTS(X)                                                                              \
	X(EMBED, "token_embd.weight", 0, s->vocab, s->d_model)                                     \
	X(OUT_NORM, "output_norm.weight", 0, 1, s->d_model)                                        \
	X(OUTPUT, "output.weight", 0, s->vocab, s->d_model)                                        \
	X(ATTN_NORM, "attn_norm.weight", 1, 1, s->d_model)                                         \
	X(Q, "attn_q.weight", 1, (int64_t)s->n_heads * s->head_dim, s->d_model)                    \
	X(K, "attn_k.weight", 1, (int64_t)s->n_kv_heads * s->head_dim, s->d_model)                 \
	X(V, "attn_v.weight", 1, (int64_t)s->n_kv_heads * s->head_dim, s->d_model)                 \
	X(O, "attn_output.weight", 1, s->d_model, (int64_t)s->n_heads * s->head_dim)               \
	X(FFN_NORM, "ffn_norm.weight", 1, 1, s->d_model)                                           \
	X(GATE, "ffn_gate.weight", 1, s->d_ff, s->d_model)                                         \
	X(UP, "ffn_up.weight", 1, s->d_ff, s->d_model)                                             \
	X(DOWN, "ffn_down.weight", 1, s->d_model, s->d_ff)

enum nx_weight_id {
#define X(id, name, layered, rows, cols) NX_W_##id,
	NX_WEIGHTS(X)
#undef X
		NX_W_COUNT
};

struct nx_model;

int nx_model_open(struct nx_model **out, const char *path, struct nx_err *err);
void nx_model_close(struct nx_model *m); /* NULL is fine */

const struct nx_shape *nx_model_shape(const struct nx_model *m);
const struct nx_tokenizer *nx_model_tokenizer(const struct nx_model *m);
const struct nx_gguf *nx_model_file(const struct nx_model *m);

const char *nx_model_name(const struct nx_model *m); /* general.name, else the file's base name */
const char *nx_model_arch(const struct nx_model *m); /* "llama" */

/* The type that holds most parameters: "Q8_0". */
const char *nx_model_file_type(const struct nx_model *m);
uint64_t nx_model_file_bytes(const struct nx_model *m);

/* Weights of the base model: bytes as encoded, and parameters. A tied output counts once. */
uint64_t nx_model_weight_bytes(const struct nx_model *m);
int64_t nx_model_n_params(const struct nx_model *m);

/* Rows and columns of a weight for a shape (layer does not matter). 0 rows for an unknown id. */
int64_t nx_weight_rows(const struct nx_shape *s, enum nx_weight_id id);
int64_t nx_weight_cols(const struct nx_shape *s, enum nx_weight_id id);
bool nx_weight_is_layered(enum nx_weight_id id);

/* The encoded tensor: with NX_W_OUTPUT of a tied model that of the embedding. layer is ignored for
 * weights that are not per layer. NULL if id or layer is out of range. */
const struct nx_gguf_tensor *nx_model_weight(const struct nx_model *m, enum nx_weight_id id,
                                             int32_t layer);

/* Decodes rows [row0, row0 + n) of a weight to dst [n, cols], row-major. n = 0 is fine. */
int nx_model_rows(const struct nx_model *m, enum nx_weight_id id, int32_t layer, int64_t row0,
                  int64_t n, float *dst, struct nx_err *err);

#endif
