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

/* What one match may cost. A run of a million spaces takes about as many steps. */
#define MATCH_STEPS 50000000u
#define MATCH_HEAP_KIB (256u << 10)
#define GROUP_DEPTH 64

static const struct spec {
	const char *name;
	unsigned flags;
	const char *patterns[NX_PRETOK_STAGES + 1]; /* up to the first NULL */
} specs[] = {
#define X(name, flags, ...) {name, flags, {__VA_ARGS__}},
	NX_PRETOKENIZERS(X)
#undef X
};

#define N_SPECS (sizeof(specs) / sizeof(specs[0]))

struct nx_pretok {
	const char *name;
	unsigned flags;
	int n_stages;
	pcre2_code *codes[NX_PRETOK_STAGES];
	pcre2_match_context *limits;
};

/* untrusted: the pattern is a file's. */
static int compile(struct nx_pretok *p, const char *pattern, bool untrusted, const char *where,
                   struct nx_err *err)
{
	int code;
	PCRE2_SIZE at;
	uint32_t empty = 0;
	pcre2_compile_context *cc = pcre2_compile_context_create(NULL);
	if (!cc)
		return nx_fail(err, NX_ENOMEM, "out of memory for the pre-tokenizer");
	pcre2_set_newline(cc, PCRE2_NEWLINE_LF);
	pcre2_set_parens_nest_limit(cc, GROUP_DEPTH);
	uint32_t flags = PCRE2_UTF | PCRE2_UCP | PCRE2_MULTILINE | PCRE2_NEVER_BACKSLASH_C;
	/* 10.42 makes \P{N}+ possessive before \P{L}, which loses matches. */
	if (untrusted)
		flags |= PCRE2_NO_AUTO_POSSESS;
	pcre2_code *re =
		pcre2_compile((PCRE2_SPTR)pattern, PCRE2_ZERO_TERMINATED, flags, &code, &at, cc);
	pcre2_compile_context_free(cc);
	if (!re) {
		char why[128];
		pcre2_get_error_message(code, (PCRE2_UCHAR *)why, sizeof(why));
		return nx_fail(err, untrusted ? NX_EFORMAT : NX_EENV,
		               "%s: PCRE2 refuses pattern %d at byte %zu: %s", where, p->n_stages,
		               (size_t)at, why);
	}
	p->codes[p->n_stages++] = re;
	(void)pcre2_pattern_info(re, PCRE2_INFO_MATCHEMPTY, &empty);
	if (empty)
		return nx_fail(err, NX_ENOTSUP, "%s: pattern %d can match an empty text", where,
		               p->n_stages - 1);
	/* Without the JIT, matching is slower and otherwise the same. */
	(void)pcre2_jit_compile(re, PCRE2_JIT_COMPLETE);
	return 0;
}

static int create(struct nx_pretok **out, const char *name, unsigned flags,
                  const char *const *patterns, int n, bool untrusted, const char *where,
                  struct nx_err *err)
{
	struct nx_pretok *p = calloc(1, sizeof(*p));
	int rc = 0;
	if (p)
		p->limits = pcre2_match_context_create(NULL);
	if (!p || !p->limits) {
		nx_pretok_destroy(p);
		return nx_fail(err, NX_ENOMEM, "out of memory for the pre-tokenizer");
	}
	pcre2_set_match_limit(p->limits, MATCH_STEPS);
	pcre2_set_depth_limit(p->limits, MATCH_STEPS);
	pcre2_set_heap_limit(p->limits, MATCH_HEAP_KIB);
	p->name = name;
	p->flags = flags;
	for (int i = 0; i < n && !rc; i++)
		rc = compile(p, patterns[i], untrusted, where, err);
	if (rc) {
		nx_pretok_destroy(p);
		return rc;
	}
	*out = p;
	return 0;
}

static int count(const struct spec *s)
{
	int n = 0;
	while (s->patterns[n])
		n++;
	return n;
}

int nx_pretok_create(struct nx_pretok **out, const char *name, size_t len, struct nx_err *err)
{
#define X(n, flags, ...) " " n
	static const char legal[] = "legal:" NX_PRETOKENIZERS(X);
#undef X
	char where[80];
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
	snprintf(where, sizeof(where), "pre-tokenizer %s", spec->name);
	return create(out, spec->name, spec->flags, spec->patterns, count(spec), false, where, err);
}

int nx_pretok_create_custom(struct nx_pretok **out, const char *const *patterns, int n,
                            const char *where, struct nx_err *err)
{
	const char *name = n ? "custom" : "none";
	if (n < 0 || n > NX_PRETOK_STAGES)
		return nx_fail(err, NX_ENOTSUP, "%s: %d patterns are too many; legal: 0 to %d",
		               where, n, NX_PRETOK_STAGES);
	for (size_t i = N_SPECS; i-- > 0;) {
		bool same = count(&specs[i]) == n;
		for (int k = 0; k < n && same; k++)
			same = strcmp(specs[i].patterns[k], patterns[k]) == 0;
		if (same)
			name = specs[i].name;
	}
	return create(out, name, 0, patterns, n, true, where, err);
}

void nx_pretok_destroy(struct nx_pretok *p)
{
	if (!p)
		return;
	for (int i = 0; i < NX_PRETOK_STAGES; i++)
		pcre2_code_free(p->codes[i]);
	pcre2_match_context_free(p->limits);
	free(p);
}

const char *nx_pretok_name(const struct nx_pretok *p)
{
	return p->name;
}

unsigned nx_pretok_flags(const struct nx_pretok *p)
{
	return p->flags;
}

struct split {
	const struct nx_pretok *p;
	pcre2_match_data *md[NX_PRETOK_STAGES];
	nx_pretok_emit *emit;
	void *ud;
	struct nx_err *err;
};

static int match(const struct split *s, int stage, const char *text, size_t len, size_t at)
{
	const pcre2_code *re = s->p->codes[stage];
	int rc = pcre2_match(re, (PCRE2_SPTR)text, len, at, PCRE2_NO_UTF_CHECK, s->md[stage],
	                     s->p->limits);
	if (rc == PCRE2_ERROR_JIT_STACKLIMIT) /* the interpreter uses the heap instead */
		rc = pcre2_match(re, (PCRE2_SPTR)text, len, at, PCRE2_NO_UTF_CHECK | PCRE2_NO_JIT,
		                 s->md[stage], s->p->limits);
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
				s->p->name, at, rc);
		const PCRE2_SIZE *ov = pcre2_get_ovector_pointer(s->md[stage]);
		const size_t from = ov[0], to = ov[1];
		if (to <= from || from < done)
			return nx_fail(s->err, NX_EINVAL,
			               "pre-tokenizer %s matches an empty text at byte %zu",
			               s->p->name, at);
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
