/* SPDX-License-Identifier: Apache-2.0
 *
 * model/shape.h: the numbers that fix a Llama-family model's computation. Plain data.
 */
#ifndef NEXUS_MODEL_SHAPE_H
#define NEXUS_MODEL_SHAPE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct nx_shape {
	int32_t n_layers;
	int32_t d_model;
	int32_t n_heads; /* query heads; a multiple of n_kv_heads */
	int32_t n_kv_heads;
	int32_t head_dim; /* even; n_heads * head_dim need not equal d_model */
	int32_t d_ff;
	int32_t vocab;   /* tokens = rows of the embedding */
	int32_t ctx_len; /* the longest sequence that is computed exactly [tokens]; at most window */
	float rope_theta;
	float norm_eps;
	int32_t rope_dim; /* rotated leading elements of a head; even, <= head_dim */
	bool tied;        /* the output projection is the embedding */
	bool qkv_bias;    /* q, k and v get a bias (Qwen 2) */
	bool qk_norm;     /* RMSNorm of each q and k head before RoPE (Qwen 3) */
	int32_t window; /* sliding window of attention [tokens]; 0 = none. It is not computed: within it
	                     every row sees all before it, so ctx_len ends there */
};

/* "4096", or "4096 (its sliding window: longer sequences are not computed)"; returns buf. */
const char *nx_context_text(const struct nx_shape *s, char *buf, size_t size);

#endif
