/* SPDX-License-Identifier: Apache-2.0
 *
 * See preset.h.
 */
#include "model/preset.h"

#include <string.h>

#include "base/rng.h"

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

/* Two rounds of multiply and shift (Wellons' low-bias 32-bit hash) over the column, keyed twice: a row's key
 * enters before and between the rounds, so that rows with near keys are no shifted copies of one another. Plain
 * 32-bit operations on independent columns: compilers make vectors of it. */
static void random_row(uint64_t key, int64_t cols, float scale, float *restrict dst)
{
	const uint32_t k0 = (uint32_t)key, k1 = (uint32_t)(key >> 32);
	for (int64_t c = 0; c < cols; c++) {
		uint32_t x = (uint32_t)c * 0x9e3779b9u + k0;
		x ^= x >> 16;
		x *= 0x7feb352du;
		x ^= k1;
		x ^= x >> 15;
		x *= 0x846ca68bu;
		x ^= x >> 16;
		dst[c] = (float)(int32_t)x * scale;
	}
}

void nx_random_rows(uint64_t seed, uint32_t matrix, int32_t layer, int64_t row0, int64_t n,
                    int64_t cols, float std, float *dst)
{
	/* Uniform in [-a, a) has the standard deviation a / sqrt(3). */
	const float scale = std * 1.7320508f * 0x1p-31f;
	const uint64_t where = (uint64_t)matrix << 32 | (uint32_t)layer;
	for (int64_t r = 0; r < n; r++)
		random_row(nx_rng_key(seed, where, (uint64_t)(row0 + r)), cols, scale,
		           dst + r * cols);
}
