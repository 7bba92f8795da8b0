/* SPDX-License-Identifier: Apache-2.0
 *
 * See meta.h: the checks, whatever the format.
 */
#include "model/meta.h"

#include <stdio.h>
#include <string.h>

#define MAX_LAYERS 1024
#define MAX_HEAD_DIM 1024

const struct nx_meta_key nx_meta_keys[NX_META_COUNT] = {
#define X(id, kind, gguf, hf) [NX_META_##id] = {NX_META_KIND_##kind, gguf, hf},
	NX_META_KEYS(X)
#undef X
};

const struct nx_meta_refused nx_meta_refused[] = {
#define X(gguf, hf, neutral, what) {gguf, hf, neutral, what},
	NX_META_REFUSED(X)
#undef X
};
const size_t nx_meta_n_refused = sizeof(nx_meta_refused) / sizeof(nx_meta_refused[0]);

static const struct nx_arch archs[] = {
	{.name = "llama", .gguf = true},
	{.name = "mistral", .window = true},
	{.name = "qwen2", .gguf = true, .gguf_half_split = true, .qkv_bias = true, .window = true},
	{.name = "qwen3",
         .gguf = true,
         .gguf_half_split = true,
         .qk_norm = true,
         .head_dim = 128,
         .window = true},
};
#define N_ARCHS (sizeof(archs) / sizeof(archs[0]))

const struct nx_arch *nx_arch_find(const char *name)
{
	for (size_t i = 0; i < N_ARCHS; i++)
		if (strcmp(archs[i].name, name) == 0)
			return &archs[i];
	return NULL;
}

const char *nx_arch_list(bool gguf, char *buf, size_t size)
{
	size_t at = 0;
	buf[0] = '\0';
	for (size_t i = 0; i < N_ARCHS && at < size; i++)
		if (!gguf || archs[i].gguf)
			at += (size_t)snprintf(buf + at, size - at, "%s%s", at ? ", " : "",
			                       archs[i].name);
	return buf;
}

const char *nx_meta_key_text(const struct nx_meta *m, enum nx_meta_id id, char *buf, size_t size)
{
	if (m->hf)
		snprintf(buf, size, "%s", nx_meta_keys[id].hf);
	else
		snprintf(buf, size, "%s.%s", m->arch, nx_meta_keys[id].gguf);
	return buf;
}

/* Without required, a missing key leaves *out as it is. */
static int count(const struct nx_meta *m, enum nx_meta_id id, bool required, int32_t lo, int32_t hi,
                 int32_t *out, struct nx_err *err)
{
	char key[96];
	nx_meta_key_text(m, id, key, sizeof(key));
	if (!m->there[id])
		return required ? nx_fail(err, NX_EFORMAT,
		                          "%.200s: key %s is missing; legal: %d to %d", m->path,
		                          key, lo, hi)
		                : 0;
	if (m->value[id] < lo || m->value[id] > hi)
		return nx_fail(err, NX_EFORMAT, "%.200s: key %s is %.0f; legal: %d to %d", m->path,
		               key, m->value[id], lo, hi);
	*out = (int32_t)m->value[id];
	return 0;
}

static int read_heads(const struct nx_meta *m, struct nx_shape *s, struct nx_err *err)
{
	char key[96], other[96];
	int32_t value_dim;
	int rc = count(m, NX_META_HEADS, true, 1, 1024, &s->n_heads, err);
	if (rc)
		return rc;
	s->n_kv_heads = s->n_heads;
	rc = count(m, NX_META_KV_HEADS, false, 1, 1024, &s->n_kv_heads, err);
	if (rc)
		return rc;
	if (s->n_heads % s->n_kv_heads)
		return nx_fail(err, NX_EFORMAT,
		               "%.200s: key %s is %d; legal: a divisor of the %d query heads",
		               m->path, nx_meta_key_text(m, NX_META_KV_HEADS, key, sizeof(key)),
		               s->n_kv_heads, s->n_heads);
	rc = count(m, NX_META_HEAD_DIM, false, 2, MAX_HEAD_DIM, &s->head_dim, err);
	if (rc)
		return rc;
	if (!s->head_dim && s->d_model % s->n_heads)
		return nx_fail(
			err, NX_EFORMAT,
			"%.200s: key %s is %d; legal without %s: a multiple of the %d heads",
			m->path, nx_meta_key_text(m, NX_META_D_MODEL, key, sizeof(key)), s->d_model,
			nx_meta_key_text(m, NX_META_HEAD_DIM, other, sizeof(other)), s->n_heads);
	if (!s->head_dim)
		s->head_dim = s->d_model / s->n_heads;
	if (s->head_dim % 2 || s->head_dim > MAX_HEAD_DIM)
		return nx_fail(err, NX_EFORMAT,
		               "%.200s: heads have %d elements; legal: an even number up to %d",
		               m->path, s->head_dim, MAX_HEAD_DIM);
	value_dim = s->head_dim;
	rc = count(m, NX_META_VALUE_DIM, false, s->head_dim, s->head_dim, &value_dim, err);
	if (rc)
		return rc;
	s->rope_dim = s->head_dim;
	rc = count(m, NX_META_ROPE_DIM, false, 2, s->head_dim, &s->rope_dim, err);
	if (rc)
		return rc;
	if (s->rope_dim % 2)
		return nx_fail(err, NX_EFORMAT, "%.200s: key %s is %d; legal: an even number",
		               m->path, nx_meta_key_text(m, NX_META_ROPE_DIM, key, sizeof(key)),
		               s->rope_dim);
	return 0;
}

/* The key is there, and its value was found legal; what says which are. */
static int real(const struct nx_meta *m, enum nx_meta_id id, bool legal, const char *what,
                struct nx_err *err)
{
	char key[96];
	nx_meta_key_text(m, id, key, sizeof(key));
	if (!m->there[id])
		return nx_fail(err, NX_EFORMAT, "%.200s: key %s is missing", m->path, key);
	return legal ? 0
	             : nx_fail(err, NX_EFORMAT, "%.200s: key %s is %g; legal: %s", m->path, key,
	                       m->value[id], what);
}

static int read_floats(const struct nx_meta *m, struct nx_shape *s, struct nx_err *err)
{
	s->rope_theta = 10000.0f;
	if (m->there[NX_META_THETA]) {
		s->rope_theta = (float)m->value[NX_META_THETA];
		int rc = real(m, NX_META_THETA, s->rope_theta >= 1.0f && s->rope_theta <= 1e30f,
		              "1 to 1e30", err);
		if (rc)
			return rc;
	}
	s->norm_eps = (float)m->value[NX_META_EPS];
	return real(m, NX_META_EPS, s->norm_eps > 0.0f && s->norm_eps < 1.0f, "above 0, below 1",
	            err);
}

static int read_rope(const struct nx_meta *m, struct nx_rope *r, struct nx_err *err)
{
	*r = (struct nx_rope){.kind = m->rope,
	                      .factor = m->value[NX_META_FACTOR],
	                      .low = m->value[NX_META_LOW_FACTOR],
	                      .high = m->value[NX_META_HIGH_FACTOR],
	                      .trained = m->value[NX_META_TRAINED]};
	if (r->kind == NX_ROPE_DEFAULT)
		return 0;
	int rc = real(m, NX_META_FACTOR, r->factor >= 1 && r->factor <= 1e6, "1 to 1e6", err);
	if (rc || r->kind == NX_ROPE_LINEAR)
		return rc;
	rc = real(m, NX_META_LOW_FACTOR, r->low > 0 && r->low <= 1e6, "above 0, up to 1e6", err);
	if (!rc)
		rc = real(m, NX_META_HIGH_FACTOR, r->high > r->low && r->high <= 1e6,
		          "above low_freq_factor, up to 1e6", err);
	if (!rc)
		rc = real(m, NX_META_TRAINED, r->trained >= 1, "at least 1", err);
	return rc;
}

int nx_meta_shape(const struct nx_meta *m, struct nx_shape *s, struct nx_rope *rope,
                  struct nx_err *err)
{
	*s = (struct nx_shape){.qkv_bias = m->qkv_bias, .qk_norm = m->qk_norm};
	int rc = count(m, NX_META_LAYERS, true, 1, MAX_LAYERS, &s->n_layers, err);
	if (!rc)
		rc = count(m, NX_META_D_MODEL, true, 2, 1 << 17, &s->d_model, err);
	if (!rc)
		rc = count(m, NX_META_D_FF, true, 1, 1 << 20, &s->d_ff, err);
	if (!rc)
		rc = count(m, NX_META_CONTEXT, true, 1, 1 << 28, &s->ctx_len, err);
	if (!rc)
		rc = count(m, NX_META_VOCAB, false, 1, 1 << 24, &s->vocab, err);
	if (!rc)
		rc = read_heads(m, s, err);
	if (!rc)
		rc = read_floats(m, s, err);
	if (!rc)
		rc = read_rope(m, rope, err);
	if (!rc)
		rc = count(m, NX_META_WINDOW, false, 1, 1 << 28, &s->window, err);
	if (!rc && s->window && s->window < s->ctx_len)
		s->ctx_len = s->window;
	else
		s->window = 0; /* it never cuts anything off */
	return rc;
}

const char *nx_context_text(const struct nx_shape *s, char *buf, size_t size)
{
	if (s->window)
		snprintf(buf, size,
		         "%d (its sliding window: attention beyond that is not computed)",
		         s->ctx_len);
	else
		snprintf(buf, size, "%d", s->ctx_len);
	return buf;
}
