/* SPDX-License-Identifier: Apache-2.0
 *
 * See pretokenize.h.
 */
#define PCRE2_CODE_UNIT_WIDTH 8
#include "model/pretokenize.h"

#include <pcre2.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#define MAX_STAGES 2

static const struct spec {
	const char *name;
	const char *patterns[MAX_STAGES];
	bool ignore_merges, add_bos;
} specs[] = {
#define X(name, first, second, ignore_merges, add_bos)                                             \
	{name, {first, second}, ignore_merges, add_bos},
	NX_PRETOKENIZERS(X)
#undef X
};

#define N_SPECS (sizeof(specs) / sizeof(specs[0]))

struct nx_pretok {
	const struct spec *spec;
	int n_stages;
	pcre2_code *codes[MAX_STAGES];
};

int nx_pretok_create(struct nx_pretok **out, const char *name, size_t len, struct nx_err *err)
{
#define X(n, first, second, ignore_merges, add_bos) " " n
	static const char legal[] = "legal:" NX_PRETOKENIZERS(X);
#undef X
	const struct spec *spec = NULL;
	for (size_t i = 0; i < N_SPECS; i++)
		if (strlen(specs[i].name) == len && memcmp(specs[i].name, name, len) == 0)
			spec = &specs[i];
	if (!spec) {
		char shown[49];
		size_t n = len < sizeof(shown) - 1 ? len : sizeof(shown) - 1;
		for (size_t i = 0; i < n; i++)
			shown[i] = name[i] >= 0x20 && name[i] < 0x7f ? name[i] : '?';
		shown[n] = '\0';
		return nx_fail(err, NX_ENOTSUP,
		               "key tokenizer.ggml.pre: pre-tokenizer \"%s\" is not supported; %s",
		               shown, legal);
	}
	struct nx_pretok *p = calloc(1, sizeof(*p));
	if (!p)
		return nx_fail(err, NX_ENOMEM, "out of memory for the pre-tokenizer");
	p->spec = spec;
	for (; p->n_stages < MAX_STAGES && spec->patterns[p->n_stages]; p->n_stages++) {
		int code;
		PCRE2_SIZE at;
		pcre2_code *re = pcre2_compile((PCRE2_SPTR)spec->patterns[p->n_stages],
		                               PCRE2_ZERO_TERMINATED, PCRE2_UTF | PCRE2_UCP, &code,
		                               &at, NULL);
		if (!re) {
			char why[128];
			pcre2_get_error_message(code, (PCRE2_UCHAR *)why, sizeof(why));
			int rc = nx_fail(err, NX_EENV,
			                 "PCRE2 refuses pattern %d of pre-tokenizer %s at %zu: %s",
			                 p->n_stages, spec->name, (size_t)at, why);
			nx_pretok_destroy(p);
			return rc;
		}
		/* Without the JIT, matching is slower and otherwise the same. */
		(void)pcre2_jit_compile(re, PCRE2_JIT_COMPLETE);
		p->codes[p->n_stages] = re;
	}
	*out = p;
	return 0;
}

void nx_pretok_destroy(struct nx_pretok *p)
{
	if (!p)
		return;
	for (int i = 0; i < MAX_STAGES; i++)
		pcre2_code_free(p->codes[i]);
	free(p);
}

const char *nx_pretok_name(const struct nx_pretok *p)
{
	return p->spec->name;
}

bool nx_pretok_ignore_merges(const struct nx_pretok *p)
{
	return p->spec->ignore_merges;
}

bool nx_pretok_add_bos(const struct nx_pretok *p)
{
	return p->spec->add_bos;
}

struct split {
	const struct nx_pretok *p;
	pcre2_match_data *md[MAX_STAGES];
	nx_pretok_emit *emit;
	void *ud;
	struct nx_err *err;
};

static int match(const struct split *s, int stage, const char *text, size_t len, size_t at)
{
	const pcre2_code *re = s->p->codes[stage];
	int rc = pcre2_match(re, (PCRE2_SPTR)text, len, at, PCRE2_NO_UTF_CHECK, s->md[stage], NULL);
	if (rc == PCRE2_ERROR_JIT_STACKLIMIT) /* the interpreter uses the heap instead */
		rc = pcre2_match(re, (PCRE2_SPTR)text, len, at, PCRE2_NO_UTF_CHECK | PCRE2_NO_JIT,
		                 s->md[stage], NULL);
	return rc;
}

static int split_stage(const struct split *s, int stage, const char *text, size_t len)
{
	size_t done = 0, at = 0;
	if (len == 0)
		return 0;
	if (stage == s->p->n_stages)
		return s->emit(s->ud, text, len, s->err);
	while (at < len) {
		int rc = match(s, stage, text, len, at);
		if (rc == PCRE2_ERROR_NOMATCH)
			break;
		if (rc < 0)
			return nx_fail(
				s->err, NX_EINVAL,
				"pre-tokenizer %s fails at byte %zu of the text (PCRE2 error %d)",
				s->p->spec->name, at, rc);
		const PCRE2_SIZE *ov = pcre2_get_ovector_pointer(s->md[stage]);
		const size_t from = ov[0], to = ov[1];
		if (to <= from) /* no pattern of ours matches nothing */
			return nx_fail(s->err, NX_EBUG, "pre-tokenizer %s matches the empty string",
			               s->p->spec->name);
		rc = split_stage(s, stage + 1, text + done, from - done);
		if (!rc)
			rc = split_stage(s, stage + 1, text + from, to - from);
		if (rc)
			return rc;
		done = at = to;
	}
	return split_stage(s, stage + 1, text + done, len - done);
}

int nx_pretok_split(const struct nx_pretok *p, const char *text, size_t len, nx_pretok_emit *emit,
                    void *ud, struct nx_err *err)
{
	struct split s = {.p = p, .emit = emit, .ud = ud, .err = err};
	int rc = 0;
	for (int i = 0; i < p->n_stages && !rc; i++) {
		s.md[i] = pcre2_match_data_create(1, NULL);
		if (!s.md[i])
			rc = nx_fail(err, NX_ENOMEM,
			             "out of memory while splitting %zu bytes of text", len);
	}
	if (!rc)
		rc = split_stage(&s, 0, text, len);
	for (int i = 0; i < p->n_stages; i++)
		pcre2_match_data_free(s.md[i]);
	return rc;
}

size_t nx_utf8_len(const char *str, size_t len)
{
	const unsigned char *s = (const unsigned char *)str;
	size_t n;
	unsigned char lo = 0x80, hi = 0xbf; /* legal second byte */
	if (len == 0)
		return 0;
	if (s[0] < 0x80)
		return 1;
	if (s[0] >= 0xc2 && s[0] <= 0xdf)
		n = 2;
	else if ((s[0] & 0xf0) == 0xe0)
		n = 3;
	else if (s[0] >= 0xf0 && s[0] <= 0xf4)
		n = 4;
	else
		return 0;
	if (s[0] == 0xe0)
		lo = 0xa0;
	else if (s[0] == 0xed)
		hi = 0x9f; /* surrogates */
	else if (s[0] == 0xf0)
		lo = 0x90;
	else if (s[0] == 0xf4)
		hi = 0x8f;
	if (len < n || s[1] < lo || s[1] > hi)
		return 0;
	for (size_t i = 2; i < n; i++)
		if ((s[i] & 0xc0) != 0x80)
			return 0;
	return n;
}
