/* SPDX-License-Identifier: Apache-2.0
 *
 * model/model.h: a model of the Llama family: shape, RoPE frequencies, tokenizer and access to the weights.
 *
 * It comes from one of three sources, which are alike once it is open:
 *   a GGUF file                architectures llama (Mistral's call themselves that), qwen2, qwen3
 *   a Hugging Face directory   config.json and safetensors; model_type llama, mistral, qwen2, qwen3
 *   a shape preset             a name such as "llama-7b", with seeded random weights and no tokenizer
 *
 * nx_model_open checks the architecture, the shape and the dimensions of every weight, so the
 * engine may rely on them. What would change the result and is not computed here is refused by
 * name: other architectures and RoPE scalings, biases but those of q, k and v, experts, tensors of a layer that
 * are none of the below. Of a sliding window the part within the window is exact: the shape's context ends there.
 * Tensors outside the layers that are not part of the base model (extra heads) are left alone.
 *
 * RoPE acts on adjacent pairs (2i, 2i + 1), which is how GGUF's llama files order the rows of Q and K. Files that
 * have the halves of a head apart (Hugging Face, GGUF's qwen2 and qwen3) are put into that order as they are
 * read: rows of Q and K, elements of their biases and norms.
 *
 * Ownership: the model owns its files, shape and tokenizer; everything returned lives until
 * nx_model_close. Threads: immutable after open, shareable.
 */
#ifndef NEXUS_MODEL_MODEL_H
#define NEXUS_MODEL_MODEL_H

#include <stdint.h>

#include "model/gguf.h"
#include "model/shape.h"
#include "model/tokenizer.h"
#include "nexus/device.h"
#include "nexus/err.h"

/* X(id, tensor name in GGUF, per layer?, rows, columns), rows and columns in terms of shape *s.
 * Weights are [rows, cols] row-major: y[rows] = W x[cols]. Norms and biases are [1, cols]. 0 rows: the shape
 * has no such weight. */
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
	X(DOWN, "ffn_down.weight", 1, s->d_model, s->d_ff)                                         \
	X(Q_BIAS, "attn_q.bias", 1, s->qkv_bias, (int64_t)s->n_heads * s->head_dim)                \
	X(K_BIAS, "attn_k.bias", 1, s->qkv_bias, (int64_t)s->n_kv_heads * s->head_dim)             \
	X(V_BIAS, "attn_v.bias", 1, s->qkv_bias, (int64_t)s->n_kv_heads * s->head_dim)             \
	X(Q_NORM, "attn_q_norm.weight", 1, s->qk_norm, s->head_dim)                                \
	X(K_NORM, "attn_k_norm.weight", 1, s->qk_norm, s->head_dim)

enum nx_weight_id {
#define X(id, name, layered, rows, cols) NX_W_##id,
	NX_WEIGHTS(X)
#undef X
		NX_W_COUNT
};

struct nx_model;

/* path: of a GGUF file or of a directory with a config.json, or a preset's name (which a file of that name in
 * the working directory does not hide: write ./name for it). */
int nx_model_open(struct nx_model **out, const char *path, struct nx_err *err);
/* A model of random weights: see preset.h. */
struct nx_preset;
int nx_model_open_preset(struct nx_model **out, const struct nx_preset *p, uint64_t seed,
                         struct nx_err *err);
void nx_model_close(struct nx_model *m); /* NULL is fine */

const struct nx_shape *nx_model_shape(const struct nx_model *m);
/* NULL for a preset, and for a directory without tokenizer.json. */
const struct nx_tokenizer *nx_model_tokenizer(const struct nx_model *m);
/* NULL unless the model is a GGUF file. */
const struct nx_gguf *nx_model_file(const struct nx_model *m);
/* [rope_dim / 2] radians a position, scaled as the file says. */
const float *nx_model_inv_freq(const struct nx_model *m);
/* Are the weights random? Then its tokens mean nothing: no exactness, no quality. */
bool nx_model_is_random(const struct nx_model *m);

const char *nx_model_name(const struct nx_model *m); /* general.name, else the file's base name */
const char *nx_model_arch(const struct nx_model *m); /* "llama", "mistral", "qwen2", "qwen3" */

/* The type that holds most parameters: "Q8_0"; "random" for a preset. */
const char *nx_model_file_type(const struct nx_model *m);
uint64_t nx_model_file_bytes(const struct nx_model *m); /* 0 for a preset */

/* Weights of the base model: bytes as encoded (0 for a preset), and parameters. A tied output counts once. */
uint64_t nx_model_weight_bytes(const struct nx_model *m);
int64_t nx_model_n_params(const struct nx_model *m);

/* Rows and columns of a weight for a shape (layer does not matter). 0 rows for an unknown id, or one that the
 * shape does not have. */
int64_t nx_weight_rows(const struct nx_shape *s, enum nx_weight_id id);
int64_t nx_weight_cols(const struct nx_shape *s, enum nx_weight_id id);
bool nx_weight_is_layered(enum nx_weight_id id);

/* The encoded tensor, in the order of its file: with NX_W_OUTPUT of a tied model that of the embedding. layer is
 * ignored for weights that are not per layer. NULL if id or layer is out of range, or there is none. */
const struct nx_tensor *nx_model_weight(const struct nx_model *m, enum nx_weight_id id,
                                        int32_t layer);

/* Decodes (or makes) rows [row0, row0 + n) of a weight to dst [n, cols], row-major. n = 0 is fine. */
int nx_model_rows(const struct nx_model *m, enum nx_weight_id id, int32_t layer, int64_t row0,
                  int64_t n, float *dst, struct nx_err *err);

/* The format in which the file holds a weight's codes, where devices have that format, too: Q8_0, Q4_0, Q4_1. False
 * for all others. */
bool nx_model_code_format(const struct nx_model *m, enum nx_weight_id id, int32_t layer,
                          struct nx_weight_quant *out);
/* Codes of the same rows as nx_model_rows, a byte each, [n, cols], and what groups of 32 have beside them,
 * [n, cols / 32]: decoded as nexus_kernels/weight_quant.h says they are those rows, bit for bit. */
int nx_model_codes(const struct nx_model *m, enum nx_weight_id id, int32_t layer, int64_t row0,
                   int64_t n, uint8_t *codes, struct nx_quant_param *params, struct nx_err *err);

/* Of a model of random weights: keys [n] of the same rows, and the scale of their elements (nexus_kernels/rng.h).
 * NX_ENOTSUP when its weights are no such function (norms among them). */
int nx_model_row_keys(const struct nx_model *m, enum nx_weight_id id, int32_t layer, int64_t row0,
                      int64_t n, uint64_t *key, float *scale, struct nx_err *err);

#endif
