/* SPDX-License-Identifier: Apache-2.0
 *
 * See preset.h.
 */
#include "model/preset.h"

#include <string.h>

#include "base/rng.h"
#include "nexus_kernels/rng.h"

#define LLAMA2(layers, width, heads, kv, ff)                                                       \
	{                                                                                          \
		.n_layers = (layers), .d_model = (width), .n_heads = (heads), .n_kv_heads = (kv),  \
		.head_dim = 128, .d_ff = (ff), .vocab = 32000, .ctx_len = 4096,                    \
		.rope_theta = 10000.0f, .norm_eps = 1e-5f, .rope_dim = 128                         \
	}

/* Small enough for any CPU; of each family the parts that only it has. */
#define TINY(dim, eps, ...)                                                                        \
	{                                                                                          \
		.n_layers = 4, .d_model = 256, .n_heads = 8, .n_kv_heads = 4, .head_dim = (dim),   \
		.d_ff = 704, .vocab = 4096, .ctx_len = 2048, .norm_eps = (eps), .rope_dim = (dim), \
		__VA_ARGS__                                                                        \
	}

static const struct nx_preset presets[] = {
	{"llama-7b", "llama", "the shape of Llama 2 7B", LLAMA2(32, 4096, 32, 32, 11008), {0}},
	{"llama-8b",
         "llama",
         "the shape of Llama 3.1 8B",
         {.n_layers = 32,
          .d_model = 4096,
          .n_heads = 32,
          .n_kv_heads = 8,
          .head_dim = 128,
          .d_ff = 14336,
          .vocab = 128256,
          .ctx_len = 131072,
          .rope_theta = 500000.0f,
          .norm_eps = 1e-5f,
          .rope_dim = 128},
         {.kind = NX_ROPE_LLAMA3, .factor = 8, .low = 1, .high = 4, .trained = 8192}},
	{"llama-13b", "llama", "the shape of Llama 2 13B", LLAMA2(40, 5120, 40, 40, 13824), {0}},
	{"llama-70b", "llama", "the shape of Llama 2 70B", LLAMA2(80, 8192, 64, 8, 28672), {0}},
	{"llama-tiny",
         "llama",
         "a small shape of Llama's parts",
         TINY(32, 1e-5f, .rope_theta = 1e4f),
         {0}},
	{"mistral-tiny",
         "mistral",
         "a small shape of Mistral's parts: a sliding window",
         TINY(32, 1e-5f, .rope_theta = 1e4f, .window = 2048),
         {0}},
	{"qwen2-tiny",
         "qwen2",
         "a small shape of Qwen 2's parts: biases of q, k and v",
         TINY(32, 1e-6f, .rope_theta = 1e6f, .qkv_bias = true, .tied = true),
         {0}},
	{"qwen3-tiny",
         "qwen3",
         "a small shape of Qwen 3's parts: norms of q and k",
         TINY(64, 1e-6f, .rope_theta = 1e6f, .qk_norm = true, .tied = true),
         {0}},
};
#define N_PRESETS (sizeof(presets) / sizeof(presets[0]))

size_t nx_preset_count(void)
{
	return N_PRESETS;
}

const struct nx_preset *nx_preset_at(size_t i)
{
	return i < N_PRESETS ? &presets[i] : NULL;
}

const struct nx_preset *nx_preset_find(const char *name)
{
	for (size_t i = 0; i < N_PRESETS; i++)
		if (strcmp(presets[i].name, name) == 0)
			return &presets[i];
	return NULL;
}

float nx_random_scale(float std)
{
	/* Uniform in [-a, a) has the standard deviation a / sqrt(3). */
	return std * 1.7320508f * 0x1p-31f;
}

uint64_t nx_random_row_key(uint64_t seed, uint32_t matrix, int32_t layer, int64_t row)
{
	return nx_rng_key(seed, (uint64_t)matrix << 32 | (uint32_t)layer, (uint64_t)row);
}

void nx_random_rows(uint64_t seed, uint32_t matrix, int32_t layer, int64_t row0, int64_t n,
                    int64_t cols, float std, float *dst)
{
	for (int64_t r = 0; r < n; r++) {
		uint64_t key = nx_random_row_key(seed, matrix, layer, row0 + r);
		float *restrict row = dst + r * cols;
		for (int64_t c = 0; c < cols; c++)
			row[c] = nx_random_element(key, (uint32_t)c, nx_random_scale(std));
	}
}
