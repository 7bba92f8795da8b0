/* SPDX-License-Identifier: Apache-2.0
 *
 * model/meta.h: what a file says of a model, in one form for all formats, and the checks of it. Private.
 *
 * meta_gguf.c and meta_hf.c fill in a struct nx_meta; meta.c makes the shape of it. Sentences name the file and
 * the key as that file spells it.
 */
#ifndef NEXUS_MODEL_META_H
#define NEXUS_MODEL_META_H

#include "model/gguf.h"
#include "model/rope.h"
#include "model/shape.h"

/* X(id, kind, key of a GGUF file after "<architecture>.", key of config.json); "" = that format has none. A dot
 * in a key of config.json leads into an object. Kinds: COUNT, a whole number below 2^32; REAL, finite. */
#define NX_META_KEYS(X)                                                                            \
	X(LAYERS, COUNT, "block_count", "num_hidden_layers")                                       \
	X(D_MODEL, COUNT, "embedding_length", "hidden_size")                                       \
	X(D_FF, COUNT, "feed_forward_length", "intermediate_size")                                 \
	X(CONTEXT, COUNT, "context_length", "max_position_embeddings")                             \
	X(VOCAB, COUNT, "vocab_size", "vocab_size")                                                \
	X(HEADS, COUNT, "attention.head_count", "num_attention_heads")                             \
	X(KV_HEADS, COUNT, "attention.head_count_kv", "num_key_value_heads")                       \
	X(HEAD_DIM, COUNT, "attention.key_length", "head_dim")                                     \
	X(VALUE_DIM, COUNT, "attention.value_length", "")                                          \
	X(ROPE_DIM, COUNT, "rope.dimension_count", "")                                             \
	X(WINDOW, COUNT, "attention.sliding_window", "sliding_window")                             \
	X(THETA, REAL, "rope.freq_base", "rope_theta")                                             \
	X(EPS, REAL, "attention.layer_norm_rms_epsilon", "rms_norm_eps")                           \
	X(FACTOR, REAL, "rope.scaling.factor", "rope_scaling.factor")                              \
	X(LOW_FACTOR, REAL, "", "rope_scaling.low_freq_factor")                                    \
	X(HIGH_FACTOR, REAL, "", "rope_scaling.high_freq_factor")                                  \
	X(TRAINED, COUNT, "", "rope_scaling.original_max_position_embeddings")

/* X(key of a GGUF file, key of config.json, the value that changes nothing, what another one means): whatever is
 * not computed here is refused by its name. A truth value counts as 0 or 1. */
#define NX_META_REFUSED(X)                                                                         \
	X("expert_count", "num_local_experts", 0, "mixtures of experts are not supported")         \
	X("", "num_experts", 0, "mixtures of experts are not supported")                           \
	X("", "n_routed_experts", 0, "mixtures of experts are not supported")                      \
	X("", "mlp_bias", 0, "biases of the feed-forward are not supported")                       \
	X("", "rope_interleaved", 0, "interleaved RoPE in this format is not supported")           \
	X("", "partial_rotary_factor", 1, "partial rotary embeddings are not supported")           \
	X("attn_logit_softcapping", "attn_logit_softcapping", 0,                                   \
	  "capped attention scores are not supported")                                             \
	X("final_logit_softcapping", "final_logit_softcapping", 0,                                 \
	  "capped logits are not supported")                                                       \
	X("attention.clamp_kqv", "clip_qkv", 0, "clamped q, k and v are not supported")            \
	X("attention.max_alibi_bias", "alibi", 0, "ALiBi is not supported")                        \
	X("attention.scale", "attention_multiplier", 0,                                            \
	  "another scale of attention is not supported")                                           \
	X("attention.causal", "is_causal", 1, "attention in both directions is not supported")     \
	X("embedding_scale", "embedding_multiplier", 1, "a scale of embeddings is not supported")  \
	X("residual_scale", "residual_multiplier", 1, "a scale of residuals is not supported")     \
	X("logit_scale", "logits_scaling", 1, "a scale of logits is not supported")                \
	X("", "use_bidirectional_attention", 0, "attention in both directions is not supported")   \
	X("", "add_cross_attention", 0, "cross-attention is not supported")                        \
	X("use_parallel_residual", "use_parallel_residual", 0,                                     \
	  "parallel residuals are not supported")

enum nx_meta_id {
#define X(id, kind, gguf, hf) NX_META_##id,
	NX_META_KEYS(X)
#undef X
		NX_META_COUNT
};

enum nx_meta_kind { NX_META_KIND_COUNT, NX_META_KIND_REAL };

struct nx_meta_key {
	enum nx_meta_kind kind;
	const char *gguf, *hf;
};
extern const struct nx_meta_key nx_meta_keys[NX_META_COUNT];

struct nx_meta_refused {
	const char *gguf, *hf;
	double neutral;
	const char *what;
};
extern const struct nx_meta_refused nx_meta_refused[];
extern const size_t nx_meta_n_refused;

struct nx_meta {
	const char *path; /* in front of sentences; borrowed */
	char arch[16];    /* "llama", "mistral", "qwen2", "qwen3" */
	bool hf;          /* keys are those of config.json */
	bool there[NX_META_COUNT];
	double value[NX_META_COUNT];
	enum nx_rope_kind rope;
	bool half_split; /* rows of Q and K of a head: first the first members of all pairs, then the second */
	bool qkv_bias, qk_norm;
};

/* What the four architectures differ in. */
struct nx_arch {
	const char *name;
	bool gguf; /* a GGUF file may call itself so; Mistral's are "llama" there */
	bool gguf_half_split;
	bool qkv_bias, qk_norm; /* always */
	int32_t head_dim;       /* config.json without head_dim; 0 = hidden_size / heads */
	bool window;            /* config.json's sliding_window counts */
};
/* NULL when there is none of that name. */
const struct nx_arch *nx_arch_find(const char *name);
/* "llama, mistral, ..." of those that hold; returns buf. */
const char *nx_arch_list(bool gguf, char *buf, size_t size);

/* How the file spells the key; returns buf. */
const char *nx_meta_key_text(const struct nx_meta *m, enum nx_meta_id id, char *buf, size_t size);

/* Each fills in *m, but for qkv_bias and qk_norm of files that show them by their tensors alone. */
int nx_meta_read_gguf(struct nx_meta *m, const struct nx_gguf *g, struct nx_err *err);
struct nx_hf;
/* *tied: what the file says of the output projection, or -1 for nothing. */
int nx_meta_read_hf(struct nx_meta *m, const struct nx_hf *h, int *tied, struct nx_err *err);

/* Checks *m and makes all of *s but vocab (0 when the file says none) and tied. */
int nx_meta_shape(const struct nx_meta *m, struct nx_shape *s, struct nx_rope *rope,
                  struct nx_err *err);

#endif
