/* SPDX-License-Identifier: Apache-2.0
 *
 * See meta.h: the description in a GGUF file. Keys: github.com/ggml-org/ggml, docs/gguf.md.
 */
#include <stdio.h>
#include <string.h>

#include "model/meta.h"

/* Prints a string of the file so that a terminal can show it. */
static const char *shown(const struct nx_gguf_str *s, char *buf, size_t size)
{
	size_t n = s->len < size - 1 ? s->len : size - 1;
	for (size_t i = 0; i < n; i++)
		buf[i] = s->s[i] >= 0x20 && s->s[i] < 0x7f ? s->s[i] : '?';
	buf[n] = '\0';
	return buf;
}

static int read_arch(struct nx_meta *m, const struct nx_gguf *g, struct nx_err *err)
{
	struct nx_gguf_str name;
	char list[96], text[33];
	int rc = nx_gguf_get_str(g, "general.architecture", &name, err);
	if (rc < 0)
		return rc;
	if (rc == 0)
		return nx_fail(err, NX_EFORMAT,
		               "%.200s: key general.architecture is missing; legal: %s", m->path,
		               nx_arch_list(true, list, sizeof(list)));
	const struct nx_arch *a = nx_arch_find(shown(&name, text, sizeof(text)));
	if (!a || !a->gguf || name.len != strlen(a->name))
		return nx_fail(
			err, NX_ENOTSUP,
			"%.200s: key general.architecture: architecture \"%s\" is not supported; legal: %s",
			m->path, text, nx_arch_list(true, list, sizeof(list)));
	snprintf(m->arch, sizeof(m->arch), "%s", a->name);
	m->half_split = a->gguf_half_split;
	m->qkv_bias = a->qkv_bias;
	m->qk_norm = a->qk_norm;
	return 0;
}

static int read_scaling(struct nx_meta *m, const struct nx_gguf *g, struct nx_err *err)
{
	struct nx_gguf_str type;
	char key[96], text[33];
	float scale = 0;
	snprintf(key, sizeof(key), "%s.rope.scaling.type", m->arch);
	int rc = nx_gguf_get_str(g, key, &type, err);
	if (rc < 0)
		return rc;
	bool linear = rc == 0; /* as llama.cpp takes it: a factor alone is linear scaling */
	if (rc == 1) {
		shown(&type, text, sizeof(text));
		linear = !strcmp(text, "linear");
		if (!linear && strcmp(text, "none") != 0)
			return nx_fail(
				err, NX_ENOTSUP,
				"%.200s: key %s: RoPE scaling \"%s\" is not supported; legal: none, linear, "
				"or a tensor rope_freqs.weight",
				m->path, key, text);
	}
	/* The old spelling of the factor. */
	snprintf(key, sizeof(key), "%s.rope.scale_linear", m->arch);
	rc = nx_gguf_get_f32(g, key, &scale, err);
	if (rc < 0)
		return rc;
	if (rc == 1 && !m->there[NX_META_FACTOR]) {
		m->there[NX_META_FACTOR] = true;
		m->value[NX_META_FACTOR] = (double)scale;
	}
	/* 0 stands for none there. */
	if (linear && m->there[NX_META_FACTOR] && m->value[NX_META_FACTOR] != 0)
		m->rope = NX_ROPE_LINEAR;
	return 0;
}

/* A number or truth value of any type. */
static int get_any(const struct nx_gguf *g, const char *key, double *out, struct nx_err *err)
{
	float f;
	bool b;
	uint32_t u;
	if (nx_gguf_get_bool(g, key, &b, NULL) == 1)
		*out = b;
	else if (nx_gguf_get_u32(g, key, &u, NULL) == 1)
		*out = u;
	else {
		int rc = nx_gguf_get_f32(g, key, &f, err);
		if (rc == 1)
			*out = (double)f;
		return rc;
	}
	return 1;
}

static int refuse(const struct nx_meta *m, const struct nx_gguf *g, struct nx_err *err)
{
	char key[96];
	for (size_t i = 0; i < nx_meta_n_refused; i++) {
		const struct nx_meta_refused *r = &nx_meta_refused[i];
		double v;
		if (!r->gguf[0])
			continue;
		snprintf(key, sizeof(key), "%s.%s", m->arch, r->gguf);
		int rc = get_any(g, key, &v, err);
		if (rc < 0)
			return rc;
		if (rc == 1 && v != r->neutral)
			return nx_fail(err, NX_ENOTSUP, "%.200s: key %s is %g: %s; legal: %g",
			               m->path, key, v, r->what, r->neutral);
	}
	return 0;
}

int nx_meta_read_gguf(struct nx_meta *m, const struct nx_gguf *g, struct nx_err *err)
{
	char key[96];
	*m = (struct nx_meta){.path = nx_gguf_path(g)};
	int rc = read_arch(m, g, err);
	if (!rc)
		rc = refuse(m, g, err);
	for (int i = 0; i < NX_META_COUNT && rc >= 0; i++) {
		uint32_t u;
		float f;
		if (!nx_meta_keys[i].gguf[0])
			continue;
		nx_meta_key_text(m, (enum nx_meta_id)i, key, sizeof(key));
		if (nx_meta_keys[i].kind == NX_META_KIND_COUNT) {
			rc = nx_gguf_get_u32(g, key, &u, err);
			m->value[i] = rc == 1 ? (double)u : 0;
		} else {
			rc = nx_gguf_get_f32(g, key, &f, err);
			m->value[i] = rc == 1 ? (double)f : 0;
		}
		m->there[i] = rc == 1;
	}
	if (rc < 0)
		return rc;
	/* 0 is how converters write that there is no window. */
	if (m->value[NX_META_WINDOW] == 0)
		m->there[NX_META_WINDOW] = false;
	return read_scaling(m, g, err);
}
