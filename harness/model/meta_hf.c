/* SPDX-License-Identifier: Apache-2.0
 *
 * See meta.h: the description in a config.json, as Transformers reads it (versions 4 and 5). A key that is
 * absent has the value that Transformers gives it.
 */
#include <math.h>
#include <stdio.h>
#include <string.h>
#include <strings.h>

#include "base/json.h"
#include "base/text.h"
#include "model/hf.h"
#include "model/meta.h"

#define DEFAULT_EPS 1e-6
#define MISTRAL_WINDOW 4096
#define QWEN_WINDOW_LAYERS 28

struct reading {
	struct nx_meta *m;
	const json_t *config;
	const json_t *rope;    /* rope_scaling, or version 5's rope_parameters; NULL */
	const char *rope_name; /* which of them */
	struct nx_err *err;
};

NX_PRINTF(3, 4)
static int bad(const struct reading *r, int code, const char *fmt, ...)
{
	char what[320];
	va_list ap;
	va_start(ap, fmt);
	vsnprintf(what, sizeof(what), fmt, ap);
	va_end(ap);
	return nx_fail(r->err, code, "%.180s: key %s", r->m->path, what);
}

/* NULL for what is absent, and for null. */
static const json_t *get(const json_t *object, const char *key)
{
	const json_t *v = json_object_get(object, key);
	return json_is_null(v) ? NULL : v;
}

static const char *quoted_of(const json_t *v, char *buf, size_t size)
{
	return json_is_string(v) ? nx_quote(buf, size, json_string_value(v)) : nx_json_kind(v);
}

static int truth(const struct reading *r, const char *key, bool def, bool *out)
{
	const json_t *v = get(r->config, key);
	*out = def;
	if (!v)
		return 0;
	if (!json_is_boolean(v))
		return bad(r, NX_EFORMAT, "%s is %s; legal: true or false", key, nx_json_kind(v));
	*out = json_is_true(v);
	return 0;
}

/* A text that has to be this one, where it is there at all. */
static int fixed_text(const struct reading *r, const char *key, const char *legal)
{
	const json_t *v = get(r->config, key);
	char buf[96];
	if (!v || (json_is_string(v) && !strcmp(json_string_value(v), legal)))
		return 0;
	return bad(r, NX_ENOTSUP, "%s is %s, which is not supported; legal: %s", key,
	           quoted_of(v, buf, sizeof(buf)), legal);
}

static int read_arch(struct reading *r, const struct nx_arch **out)
{
	const json_t *v = get(r->config, "model_type"), *classes, *name;
	char list[96], buf[96];
	size_t i;
	*out = json_is_string(v) ? nx_arch_find(json_string_value(v)) : NULL;
	if (!*out)
		return bad(r, v ? NX_ENOTSUP : NX_EFORMAT, "model_type is %s; legal: %s",
		           v ? quoted_of(v, buf, sizeof(buf)) : "missing",
		           nx_arch_list(false, list, sizeof(list)));
	classes = get(r->config, "architectures");
	json_array_foreach((json_t *)(uintptr_t)classes, i, name)
	{
		static const char tail[] = "ForCausalLM";
		const char *text = json_string_value(name);
		size_t n = text ? strlen(text) : 0, t = sizeof(tail) - 1;
		if (n < t || strcasecmp(text + n - t, tail) != 0)
			return bad(r, NX_ENOTSUP,
			           "architectures names %s; legal: a language model (...%s)",
			           quoted_of(name, buf, sizeof(buf)), tail);
	}
	snprintf(r->m->arch, sizeof(r->m->arch), "%s", (*out)->name);
	r->m->half_split = true;
	r->m->qkv_bias = (*out)->qkv_bias;
	r->m->qk_norm = (*out)->qk_norm;
	return 0;
}

/* One of NX_META_KEYS; keys with a dot lie in the rope object. */
static int read_number(struct reading *r, enum nx_meta_id id)
{
	const struct nx_meta_key *k = &nx_meta_keys[id];
	const char *dot = strchr(k->hf, '.');
	const json_t *v = get(dot ? r->rope : r->config, dot ? dot + 1 : k->hf);
	if (id == NX_META_THETA && get(r->rope, k->hf))
		v = get(r->rope, k->hf); /* version 5, which believes it before the other place */
	if (!v)
		return 0;
	double x = json_number_value(v);
	if (!json_is_number(v) || !isfinite(x))
		return bad(r, NX_EFORMAT, "%s is %s; legal: a number", k->hf, nx_json_kind(v));
	if (k->kind == NX_META_KIND_COUNT && !(x >= 0 && x <= 4294967295.0 && floor(x) == x))
		return bad(r, NX_EFORMAT, "%s is %g; legal: a whole number from 0 to 4294967295",
		           k->hf, x);
	r->m->there[id] = true;
	r->m->value[id] = x;
	return 0;
}

static int refuse(const struct reading *r, const struct nx_arch *a)
{
	bool bias;
	int rc = fixed_text(r, "hidden_act", "silu");
	if (!rc)
		rc = truth(r, "attention_bias", false, &bias);
	if (rc)
		return rc;
	/* It would give the output projection one, too. Qwen 2 does not look at the key. */
	if (bias && !a->qkv_bias)
		return bad(
			r, NX_ENOTSUP,
			"attention_bias is true: a bias of the attention's output is not supported; "
			"legal: false");
	if (get(r->config, "quantization_config"))
		return bad(r, NX_ENOTSUP,
		           "quantization_config: quantized safetensors are not supported; legal: a "
		           "model in F32, F16 or BF16, or a GGUF file");
	for (size_t i = 0; i < nx_meta_n_refused; i++) {
		const struct nx_meta_refused *n = &nx_meta_refused[i];
		const json_t *v = n->hf[0] ? get(r->config, n->hf) : NULL;
		if (!v || (json_is_boolean(v) && json_is_true(v) == (n->neutral != 0)) ||
		    (json_is_number(v) && json_number_value(v) == n->neutral))
			continue;
		return bad(r, NX_ENOTSUP, "%s: %s", n->hf, n->what);
	}
	return 0;
}

static int find_rope(struct reading *r)
{
	static const char *const names[] = {"rope_scaling", "rope_parameters"};
	static const char *const known[] = {"rope_type",        "type",
	                                    "factor",           "low_freq_factor",
	                                    "high_freq_factor", "original_max_position_embeddings",
	                                    "rope_theta"};
	const char *key;
	json_t *v;
	for (size_t i = 0; i < 2 && !r->rope; i++) {
		r->rope = get(r->config, names[i]);
		r->rope_name = names[i];
		if (json_is_object(r->rope) && !json_object_size(r->rope))
			r->rope = NULL;
	}
	if (!r->rope)
		return 0;
	if (!json_is_object(r->rope))
		return bad(r, NX_EFORMAT, "%s is %s; legal: an object or null", r->rope_name,
		           nx_json_kind(r->rope));
	json_object_foreach((json_t *)(uintptr_t)r->rope, key, v)
	{
		bool found = json_is_null(v) ||
		             (!strcmp(key, "partial_rotary_factor") && json_number_value(v) == 1);
		char quoted[96];
		for (size_t i = 0; i < sizeof(known) / sizeof(known[0]); i++)
			found |= !strcmp(key, known[i]);
		if (!found)
			return bad(r, NX_ENOTSUP, "%s: its member %s is not supported",
			           r->rope_name, nx_quote(quoted, sizeof(quoted), key));
	}
	return 0;
}

static int read_rope(struct reading *r)
{
	static const char *const names[] = {
#define X(id, name) name,
		NX_ROPE_KINDS(X)
#undef X
	};
	const json_t *type = get(r->rope, "rope_type");
	char buf[96], list[96];
	if (!type)
		type = get(r->rope, "type");
	r->m->rope = NX_ROPE_DEFAULT;
	if (!type)
		return 0;
	for (int i = 0; i < NX_ROPE_KIND_COUNT; i++)
		if (json_is_string(type) && !strcmp(json_string_value(type), names[i])) {
			r->m->rope = (enum nx_rope_kind)i;
			return 0;
		}
	return bad(r, NX_ENOTSUP, "%s: RoPE scaling %s is not supported; legal: %s", r->rope_name,
	           quoted_of(type, buf, sizeof(buf)),
	           nx_list_text(list, sizeof(list), names, NX_ROPE_KIND_COUNT));
}

/* Does some layer see a window alone? As Transformers decides it: by layer_types, else by the architecture. */
static int windowed(const struct reading *r, const struct nx_arch *a, bool *out)
{
	const json_t *types = get(r->config, "layer_types"), *v;
	char buf[96];
	size_t i;
	*out = false;
	if (!a->window)
		return 0;
	if (types && !json_is_array(types))
		return bad(r, NX_EFORMAT, "layer_types is %s; legal: a list", nx_json_kind(types));
	json_array_foreach((json_t *)(uintptr_t)types, i, v)
	{
		const char *text = json_string_value(v);
		if (text && !strcmp(text, "sliding_attention"))
			*out = true;
		else if (!text || strcmp(text, "full_attention") != 0)
			return bad(r, NX_ENOTSUP,
			           "layer_types holds %s; legal: full_attention, sliding_attention",
			           quoted_of(v, buf, sizeof(buf)));
	}
	if (types)
		return 0;
	if (!strcmp(a->name, "mistral")) {
		*out = true;
		return 0;
	}
	int rc = truth(r, "use_sliding_window", false, out);
	const json_t *first = get(r->config, "max_window_layers");
	json_int_t from = json_is_integer(first) ? json_integer_value(first) : QWEN_WINDOW_LAYERS;
	*out = *out && (double)from < r->m->value[NX_META_LAYERS];
	return rc;
}

static int defaults(struct reading *r, const struct nx_arch *a)
{
	struct nx_meta *m = r->m;
	bool window;
	if (!m->there[NX_META_EPS]) {
		m->there[NX_META_EPS] = true;
		m->value[NX_META_EPS] = DEFAULT_EPS;
	}
	if (!m->there[NX_META_HEAD_DIM] && a->head_dim) {
		m->there[NX_META_HEAD_DIM] = true;
		m->value[NX_META_HEAD_DIM] = a->head_dim;
	}
	/* null means as many as there are heads. Absent, it is a number of the class that a file should not leave
	 * to chance, but for Llama, where it is the same. */
	if (!json_object_get(r->config, "num_key_value_heads") && strcmp(a->name, "llama") != 0)
		return bad(r, NX_EFORMAT,
		           "num_key_value_heads is missing; legal: an integer or null");
	int rc = windowed(r, a, &window);
	if (rc)
		return rc;
	if (window && !json_object_get(r->config, "sliding_window") &&
	    !strcmp(a->name, "mistral")) {
		m->there[NX_META_WINDOW] = true;
		m->value[NX_META_WINDOW] = MISTRAL_WINDOW;
	}
	m->there[NX_META_WINDOW] = m->there[NX_META_WINDOW] && window;
	return 0;
}

int nx_meta_read_hf(struct nx_meta *m, const struct nx_hf *h, int *tied, struct nx_err *err)
{
	struct reading r = {.m = m, .config = nx_hf_config(h), .err = err};
	const struct nx_arch *a = NULL;
	bool t;
	*m = (struct nx_meta){.path = nx_hf_config_path(h), .hf = true};
	int rc = read_arch(&r, &a);
	if (!rc)
		rc = refuse(&r, a);
	if (!rc)
		rc = find_rope(&r);
	if (!rc)
		rc = read_rope(&r);
	for (int i = 0; i < NX_META_COUNT && !rc; i++)
		if (nx_meta_keys[i].hf[0])
			rc = read_number(&r, (enum nx_meta_id)i);
	if (!rc)
		rc = defaults(&r, a);
	if (!rc && !m->there[NX_META_VOCAB])
		rc = bad(&r, NX_EFORMAT, "vocab_size is missing; legal: the number of tokens");
	if (!rc)
		rc = truth(&r, "tie_word_embeddings", false, &t);
	if (!rc)
		*tied = get(r.config, "tie_word_embeddings") ? t : -1;
	return rc;
}
