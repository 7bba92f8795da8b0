/* SPDX-License-Identifier: Apache-2.0
 *
 * See model.h: opening a model, from each of its three sources. Its weights are in model_weights.c.
 */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/file.h"
#include "model/dequant.h"
#include "model/model_internal.h"

static int oom(const char *path, struct nx_err *err)
{
	return nx_fail(err, NX_ENOMEM, "out of memory while opening %.200s", path);
}

static int set_name(struct nx_model *m, const char *s, size_t len, struct nx_err *err)
{
	m->name = strndup(s, len);
	if (!m->name)
		return oom(nx_model_where(m), err);
	for (char *p = m->name; *p; p++)
		if ((unsigned char)*p < 0x20 || *p == 0x7f)
			*p = '?'; /* the name is printed on terminals */
	return 0;
}

/* factors: rope_freqs.weight of a GGUF file, or NULL. */
static int set_freqs(struct nx_model *m, const struct nx_rope *rope,
                     const struct nx_tensor *factors, struct nx_err *err)
{
	const int64_t n = m->shape.rope_dim / 2;
	float *f = NULL;
	int rc = 0;
	m->inv_freq = malloc((size_t)n * sizeof(*m->inv_freq));
	if (!m->inv_freq)
		return oom(nx_model_where(m), err);
	if (factors) {
		if (factors->type != NX_GGUF_F32 || factors->dims[0] != n || factors->n_dims != 1)
			return nx_fail(
				err, NX_EFORMAT,
				"%.200s: tensor %s is of type %s and [%lld, %lld]; legal: F32 and [%lld]",
				nx_model_where(m), factors->name,
				nx_gguf_type_name((int)factors->type), (long long)factors->dims[0],
				(long long)factors->dims[1], (long long)n);
		f = malloc((size_t)n * sizeof(*f));
		if (!f)
			return oom(nx_model_where(m), err);
		nx_dequant_row(factors->type, factors->data, f, n);
		for (int64_t i = 0; i < n && !rc; i++)
			if (!(f[i] >= 1e-6f && f[i] <= 1e6f))
				rc = nx_fail(
					err, NX_EFORMAT,
					"%.200s: tensor %s: element %lld is %g; legal: 1e-6 to 1e6",
					nx_model_where(m), factors->name, (long long)i,
					(double)f[i]);
	}
	if (!rc)
		nx_rope_freqs(rope, m->shape.rope_theta, m->shape.rope_dim, f, m->inv_freq);
	free(f);
	return rc;
}

static int read_shape(struct nx_model *m, const struct nx_meta *meta, struct nx_rope *rope,
                      struct nx_err *err)
{
	memcpy(m->arch, meta->arch, sizeof(m->arch));
	m->half_split = meta->half_split;
	return nx_meta_shape(meta, &m->shape, rope, err);
}

static bool has_bias(const struct nx_model *m)
{
	char name[128];
	return nx_model_find_tensor(
		       m, nx_model_weight_name(m, NX_W_Q_BIAS, 0, name, sizeof(name))) != NULL;
}

static int open_gguf(struct nx_model *m, const char *path, struct nx_err *err)
{
	struct nx_meta meta;
	struct nx_rope rope;
	struct nx_gguf_str name = {NULL, 0};
	char key[96];
	int rc = nx_gguf_open(&m->gguf, path, err);
	if (!rc)
		rc = nx_meta_read_gguf(&meta, m->gguf, err);
	if (rc)
		return rc;
	meta.qkv_bias |= has_bias(m);
	rc = read_shape(m, &meta, &rope, err);
	if (!rc)
		rc = nx_tokenizer_create(&m->tok, m->gguf, err);
	if (rc)
		return rc;
	const int32_t tokens = nx_tokenizer_vocab(m->tok);
	if (m->shape.vocab && m->shape.vocab != tokens)
		return nx_fail(err, NX_EFORMAT,
		               "%.200s: key %s is %d; legal: %d, as many as there are tokens", path,
		               nx_meta_key_text(&meta, NX_META_VOCAB, key, sizeof(key)),
		               m->shape.vocab, tokens);
	m->shape.vocab = tokens;
	rc = set_freqs(m, &rope, nx_gguf_tensor(m->gguf, "rope_freqs.weight"), err);
	if (!rc)
		rc = nx_model_find_weights(m, -1, err);
	if (!rc)
		rc = nx_gguf_get_str(m->gguf, "general.name", &name, err);
	if (rc < 0)
		return rc;
	if (!name.len) {
		name.s = nx_path_base(path);
		name.len = strlen(name.s);
	}
	return set_name(m, name.s, name.len, err);
}

static int open_hf(struct nx_model *m, const char *dir, struct nx_err *err)
{
	struct nx_meta meta;
	struct nx_rope rope;
	int tied = -1;
	int rc = nx_hf_open(&m->hf, dir, err);
	if (!rc)
		rc = nx_meta_read_hf(&meta, m->hf, &tied, err);
	if (!rc)
		rc = read_shape(m, &meta, &rope, err);
	if (!rc && nx_hf_has_tokenizer(m->hf))
		rc = nx_tokenizer_create_hf(&m->tok, nx_hf_dir(m->hf), err);
	if (rc)
		return rc;
	/* Rows beyond the tokens are padding: they are computed, and mean nothing. */
	if (m->tok && (rc = nx_tokenizer_pad(m->tok, m->shape.vocab, err)) != 0)
		return rc;
	rc = set_freqs(m, &rope, NULL, err);
	if (!rc)
		rc = nx_model_find_weights(m, tied, err);
	const char *name = nx_path_base(nx_hf_dir(m->hf));
	return rc ? rc : set_name(m, name, strlen(name), err);
}

int nx_model_open(struct nx_model **out, const char *path, struct nx_err *err)
{
	const struct nx_preset *p = nx_preset_find(path);
	if (p)
		return nx_model_open_preset(out, p, NX_PRESET_SEED, err);
	struct nx_model *m = calloc(1, sizeof(*m));
	if (!m)
		return oom(path, err);
	int rc = nx_file_is_dir(path) ? open_hf(m, path, err) : open_gguf(m, path, err);
	if (rc) {
		nx_model_close(m);
		return rc;
	}
	*out = m;
	return 0;
}

int nx_model_open_preset(struct nx_model **out, const struct nx_preset *p, uint64_t seed,
                         struct nx_err *err)
{
	struct nx_model *m = calloc(1, sizeof(*m));
	if (!m)
		return oom(p->name, err);
	m->preset = p;
	m->seed = seed;
	m->shape = p->shape;
	snprintf(m->arch, sizeof(m->arch), "%s", p->arch);
	int rc = set_freqs(m, &p->rope, NULL, err);
	if (!rc)
		rc = nx_model_find_weights(m, p->shape.tied, err);
	if (!rc)
		rc = set_name(m, p->name, strlen(p->name), err);
	if (rc) {
		nx_model_close(m);
		return rc;
	}
	*out = m;
	return 0;
}

void nx_model_close(struct nx_model *m)
{
	if (!m)
		return;
	free(m->layers);
	free(m->name);
	free(m->inv_freq);
	nx_tokenizer_destroy(m->tok);
	nx_hf_close(m->hf);
	nx_gguf_close(m->gguf);
	free(m);
}

const struct nx_shape *nx_model_shape(const struct nx_model *m)
{
	return &m->shape;
}

const struct nx_tokenizer *nx_model_tokenizer(const struct nx_model *m)
{
	return m->tok;
}

const struct nx_gguf *nx_model_file(const struct nx_model *m)
{
	return m->gguf;
}

const float *nx_model_inv_freq(const struct nx_model *m)
{
	return m->inv_freq;
}

bool nx_model_is_random(const struct nx_model *m)
{
	return m->preset != NULL;
}

const char *nx_model_name(const struct nx_model *m)
{
	return m->name;
}

const char *nx_model_arch(const struct nx_model *m)
{
	return m->arch;
}

const char *nx_model_file_type(const struct nx_model *m)
{
	return m->preset ? "random" : nx_gguf_type_name((int)m->main_type);
}

uint64_t nx_model_file_bytes(const struct nx_model *m)
{
	return m->gguf ? nx_gguf_file_bytes(m->gguf) : m->hf ? nx_hf_bytes(m->hf) : 0;
}

uint64_t nx_model_weight_bytes(const struct nx_model *m)
{
	return m->weight_bytes;
}

int64_t nx_model_n_params(const struct nx_model *m)
{
	return m->n_params;
}
