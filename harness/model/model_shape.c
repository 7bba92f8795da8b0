/* SPDX-License-Identifier: Apache-2.0
 *
 * See model_internal.h: the shape from the file's metadata, and what is refused.
 */
#include "model/model_internal.h"

#include <string.h>

#define MAX_LAYERS 1024

int nx_model_read_i32(const struct nx_gguf *g, const char *key, bool required, int32_t lo,
                      int32_t hi, int32_t *out, struct nx_err *err)
{
	uint32_t v;
	int rc = nx_gguf_get_u32(g, key, &v, err);
	if (rc < 0)
		return rc;
	if (rc == 0 && required)
		return nx_fail(err, NX_EFORMAT, "%.200s: key %s is missing", nx_gguf_path(g), key);
	if (rc == 0)
		return 0;
	if (v < (uint32_t)lo || v > (uint32_t)hi)
		return nx_fail(err, NX_EFORMAT, "%.200s: key %s is %u; legal: %d to %d",
		               nx_gguf_path(g), key, v, lo, hi);
	*out = (int32_t)v;
	return 0;
}

static int read_arch(const struct nx_gguf *g, struct nx_err *err)
{
	struct nx_gguf_str arch;
	int rc = nx_gguf_get_str(g, "general.architecture", &arch, err);
	if (rc < 0)
		return rc;
	if (rc == 0)
		return nx_fail(err, NX_EFORMAT,
		               "%.200s: key general.architecture is missing; legal: llama",
		               nx_gguf_path(g));
	if (arch.len == 5 && memcmp(arch.s, "llama", 5) == 0)
		return 0;
	char shown[33];
	size_t n = arch.len < sizeof(shown) - 1 ? arch.len : sizeof(shown) - 1;
	for (size_t i = 0; i < n; i++)
		shown[i] = arch.s[i] >= 0x20 && arch.s[i] < 0x7f ? arch.s[i] : '?';
	shown[n] = '\0';
	return nx_fail(
		err, NX_ENOTSUP,
		"%.200s: key general.architecture: architecture \"%s\" is not supported; legal: llama",
		nx_gguf_path(g), shown);
}

static int read_heads(const struct nx_gguf *g, struct nx_shape *s, struct nx_err *err)
{
	int32_t value_dim;
	int rc =
		nx_model_read_i32(g, "llama.attention.head_count", true, 1, 1024, &s->n_heads, err);
	if (rc)
		return rc;
	s->n_kv_heads = s->n_heads;
	rc = nx_model_read_i32(g, "llama.attention.head_count_kv", false, 1, 1024, &s->n_kv_heads,
	                       err);
	if (rc)
		return rc;
	if (s->n_heads % s->n_kv_heads)
		return nx_fail(
			err, NX_EFORMAT,
			"%.200s: key llama.attention.head_count_kv is %d; legal: a divisor of the %d query heads",
			nx_gguf_path(g), s->n_kv_heads, s->n_heads);
	rc = nx_model_read_i32(g, "llama.attention.key_length", false, 2, 1024, &s->head_dim, err);
	if (rc)
		return rc;
	if (!s->head_dim && s->d_model % s->n_heads)
		return nx_fail(
			err, NX_EFORMAT,
			"%.200s: key llama.embedding_length is %d; legal without llama.attention.key_length: a multiple of the %d heads",
			nx_gguf_path(g), s->d_model, s->n_heads);
	if (!s->head_dim)
		s->head_dim = s->d_model / s->n_heads;
	if (s->head_dim % 2 || s->head_dim > 1024)
		return nx_fail(err, NX_EFORMAT,
		               "%.200s: heads have %d elements; legal: an even number up to 1024",
		               nx_gguf_path(g), s->head_dim);
	value_dim = s->head_dim;
	rc = nx_model_read_i32(g, "llama.attention.value_length", false, s->head_dim, s->head_dim,
	                       &value_dim, err);
	if (rc)
		return rc;
	s->rope_dim = s->head_dim;
	rc = nx_model_read_i32(g, "llama.rope.dimension_count", false, 2, s->head_dim, &s->rope_dim,
	                       err);
	if (rc)
		return rc;
	if (s->rope_dim % 2)
		return nx_fail(
			err, NX_EFORMAT,
			"%.200s: key llama.rope.dimension_count is %d; legal: an even number",
			nx_gguf_path(g), s->rope_dim);
	return 0;
}

static int read_floats(const struct nx_gguf *g, struct nx_shape *s, struct nx_err *err)
{
	s->rope_theta = 10000.0f;
	int rc = nx_gguf_get_f32(g, "llama.rope.freq_base", &s->rope_theta, err);
	if (rc < 0)
		return rc;
	if (!(s->rope_theta >= 1.0f))
		return nx_fail(err, NX_EFORMAT,
		               "%.200s: key llama.rope.freq_base is %g; legal: at least 1",
		               nx_gguf_path(g), (double)s->rope_theta);
	rc = nx_gguf_get_f32(g, "llama.attention.layer_norm_rms_epsilon", &s->norm_eps, err);
	if (rc < 0)
		return rc;
	if (rc == 0)
		return nx_fail(err, NX_EFORMAT,
		               "%.200s: key llama.attention.layer_norm_rms_epsilon is missing",
		               nx_gguf_path(g));
	if (!(s->norm_eps > 0.0f && s->norm_eps < 1.0f))
		return nx_fail(
			err, NX_EFORMAT,
			"%.200s: key llama.attention.layer_norm_rms_epsilon is %g; legal: above 0, below 1",
			nx_gguf_path(g), (double)s->norm_eps);
	return 0;
}

int nx_model_check_arch(const struct nx_gguf *g, struct nx_err *err)
{
	struct nx_gguf_str scaling;
	uint32_t n_experts = 0;
	int rc = read_arch(g, err);
	if (rc)
		return rc;
	rc = nx_gguf_get_str(g, "llama.rope.scaling.type", &scaling, err);
	if (rc < 0)
		return rc;
	if (rc == 1 && !(scaling.len == 4 && memcmp(scaling.s, "none", 4) == 0))
		return nx_fail(
			err, NX_ENOTSUP,
			"%.200s: key llama.rope.scaling.type: RoPE scaling is not supported; legal: none",
			nx_gguf_path(g));
	rc = nx_gguf_get_u32(g, "llama.expert_count", &n_experts, err);
	if (rc < 0)
		return rc;
	if (n_experts)
		return nx_fail(
			err, NX_ENOTSUP,
			"%.200s: key llama.expert_count is %u: mixtures of experts are not supported; legal: 0",
			nx_gguf_path(g), n_experts);
	if (nx_gguf_tensor(g, "rope_freqs.weight"))
		return nx_fail(
			err, NX_ENOTSUP,
			"%.200s: tensor rope_freqs.weight: scaled RoPE frequencies (Llama 3.1 and later) are not supported yet",
			nx_gguf_path(g));
	for (int64_t i = 0; i < nx_gguf_n_tensors(g); i++) {
		const char *name = nx_gguf_tensor_at(g, i)->name;
		const size_t len = strlen(name);
		if (strncmp(name, "blk.", 4) == 0 && len > 5 &&
		    strcmp(name + len - 5, ".bias") == 0)
			return nx_fail(err, NX_ENOTSUP,
			               "%.200s: tensor %.64s: biases are not supported",
			               nx_gguf_path(g), name);
	}
	return 0;
}

int nx_model_read_shape(const struct nx_gguf *g, struct nx_shape *s, struct nx_err *err)
{
	int rc = nx_model_read_i32(g, "llama.block_count", true, 1, MAX_LAYERS, &s->n_layers, err);
	if (!rc)
		rc = nx_model_read_i32(g, "llama.embedding_length", true, 2, 1 << 17, &s->d_model,
		                       err);
	if (!rc)
		rc = nx_model_read_i32(g, "llama.feed_forward_length", true, 1, 1 << 20, &s->d_ff,
		                       err);
	if (!rc)
		rc = nx_model_read_i32(g, "llama.context_length", true, 1, 1 << 28, &s->ctx_len,
		                       err);
	if (!rc)
		rc = read_heads(g, s, err);
	if (!rc)
		rc = read_floats(g, s, err);
	return rc;
}
