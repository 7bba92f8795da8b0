/* SPDX-License-Identifier: Apache-2.0
 *
 * See tokenizer.h: normalizer, pre_tokenizer and post_processor of tokenizer.json. Components are
 * read as flat lists; a Sequence in a Sequence is refused, so nothing here recurses.
 */
#include <string.h>

#include "base/json.h"
#include "base/text.h"
#include "model/tokenizer_hf.h"

#define ITEMS_MAX 16

/* Metaspace's split: a piece starts at each space. */
#define SPLIT_AT_SPACES " [^ ]*|[^ ]+"

static int unsupported(const struct nx_hf *h, const char *key, const char *what, const char *legal,
                       struct nx_err *err)
{
	char shown[96];
	return nx_fail(err, NX_ENOTSUP, "%.200s: key %s: %s is not supported; legal: %s", h->d.path,
	               key, nx_quote(shown, sizeof(shown), what), legal);
}

int nx_hf_items(struct nx_hf_items *out, const struct nx_hf *h, const char *key,
                const char *list_key, struct nx_err *err)
{
	const json_t *v = json_object_get(h->root, key);
	*out = (struct nx_hf_items){0};
	if (!v || json_is_null(v))
		return 0;
	if (!json_is_object(v))
		return nx_fail(err, NX_EFORMAT, "%.200s: key %s is %s; legal: an object or null",
		               h->d.path, key, nx_json_kind(v));
	if (strcmp(nx_hf_type(v), "Sequence") != 0) {
		*out = (struct nx_hf_items){v, NULL, 1};
		return 0;
	}
	const json_t *list = json_object_get(v, list_key);
	if (!json_is_array(list) || json_array_size(list) > ITEMS_MAX)
		return nx_fail(err, NX_EFORMAT,
		               "%.200s: key %s.%s is %s; legal: a list of at most %d", h->d.path,
		               key, list_key,
		               json_is_array(list) ? "too long"
		               : list              ? nx_json_kind(list)
		                                   : "missing",
		               ITEMS_MAX);
	*out = (struct nx_hf_items){NULL, list, json_array_size(list)};
	return 0;
}

const json_t *nx_hf_item(const struct nx_hf_items *s, size_t i)
{
	return s->list ? json_array_get(s->list, i) : s->one;
}

static bool is_text(const json_t *v, const char *text)
{
	return json_is_string(v) && json_string_length(v) == strlen(text) &&
	       memcmp(json_string_value(v), text, strlen(text)) == 0;
}

/* --- normalizer */

static int read_normalizer(struct nx_hf *h, struct nx_err *err)
{
	static const char key[] = "normalizer";
	static const char legal[] =
		"NFC, Prepend of U+2581, Replace of a space by U+2581, Sequence of these";
	struct nx_tok_steps *steps = &h->d.steps;
	struct nx_hf_items items;
	int rc = nx_hf_items(&items, h, key, "normalizers", err);
	for (size_t i = 0; i < items.n && !rc; i++) {
		const json_t *v = nx_hf_item(&items, i);
		const char *type = nx_hf_type(v);
		if (strcmp(type, "NFC") == 0)
			steps->nfc = true;
		else if (strcmp(type, "Prepend") == 0 &&
		         is_text(json_object_get(v, "prepend"), NX_HF_MARK))
			steps->prepend = true;
		else if (strcmp(type, "Replace") == 0 &&
		         is_text(json_object_get(json_object_get(v, "pattern"), "String"), " ") &&
		         is_text(json_object_get(v, "content"), NX_HF_MARK))
			steps->mark = steps->mark_early = true;
		else
			rc = unsupported(h, key, type, legal, err);
	}
	return rc;
}

/* --- pre_tokenizer */

struct stages {
	const char *patterns[NX_PRETOK_STAGES];
	int n;
	const char *where; /* begins sentences about patterns */
};

static int add_pattern(struct nx_hf *h, struct stages *st, const char *pattern, struct nx_err *err)
{
	if (st->n == NX_PRETOK_STAGES)
		return nx_fail(err, NX_ENOTSUP,
		               "%.200s: key pre_tokenizer has more than %d patterns", h->d.path,
		               NX_PRETOK_STAGES);
	st->patterns[st->n++] = pattern;
	return 0;
}

/* A text to be found as it is, as a pattern. */
static int quote_pattern(const struct nx_hf *h, const char *s, size_t len, char *out,
                         struct nx_err *err)
{
	size_t n = 0;
	if (len == 0 || memchr(s, '\0', len) || 2 * len > NX_REGEX_MAX)
		return unsupported(h, "pre_tokenizer.pattern.String", s,
		                   "a text that is neither empty nor very long", err);
	for (size_t i = 0; i < len; i++) {
		if (s[i] > 0x20 && s[i] < 0x7f && strchr("\\^$.[]|()?*+{}#-", s[i]))
			out[n++] = '\\';
		out[n++] = s[i];
	}
	out[n] = '\0';
	return 0;
}

static int read_split(struct nx_hf *h, const json_t *v, struct stages *st, struct nx_err *err)
{
	const json_t *pattern = json_object_get(v, "pattern");
	const json_t *regex = json_object_get(pattern, "Regex");
	const json_t *text = json_object_get(pattern, "String");
	const char *behavior = json_string_value(json_object_get(v, "behavior"));
	bool invert = false;
	char *out = nx_arena_alloc(&h->d.arena, NX_REGEX_MAX + 1);
	if (!out)
		return nx_fail(err, NX_ENOMEM, "out of memory for the pre-tokenizer");
	int rc = nx_hf_bool(h->d.path, v, "invert", &invert, err);
	if (rc)
		return rc;
	if (!behavior || strcmp(behavior, "Isolated") != 0)
		return unsupported(h, "pre_tokenizer.behavior", behavior ? behavior : "",
		                   "Isolated", err);
	if (invert)
		return unsupported(h, "pre_tokenizer.invert", "true", "false", err);
	if (json_is_string(regex))
		rc = nx_regex_translate(json_string_value(regex), json_string_length(regex),
		                        st->where, out, err);
	else if (json_is_string(text))
		rc = quote_pattern(h, json_string_value(text), json_string_length(text), out, err);
	else
		rc = nx_fail(err, NX_EFORMAT,
		             "%.200s: key pre_tokenizer.pattern holds no Regex and no String",
		             h->d.path);
	return rc ? rc : add_pattern(h, st, out, err);
}

static int read_byte_level(struct nx_hf *h, const json_t *v, bool first, bool last,
                           struct stages *st, struct nx_err *err)
{
	bool prefix = true, regex = true; /* what an absent key means */
	int rc = nx_hf_bool(h->d.path, v, "add_prefix_space", &prefix, err);
	if (!rc)
		rc = nx_hf_bool(h->d.path, v, "use_regex", &regex, err);
	if (rc)
		return rc;
	if (!last)
		return unsupported(h, "pre_tokenizer", "ByteLevel before others",
		                   "ByteLevel at the end", err);
	if (prefix && !first)
		return unsupported(h, "pre_tokenizer.add_prefix_space", "true after others",
		                   "false, or ByteLevel alone", err);
	h->d.byte_level = true;
	if (prefix)
		h->d.steps.prefix = NX_PREFIX_ALL;
	return regex ? add_pattern(h, st, NX_SPLIT_GPT2, err) : 0;
}

static int read_metaspace(struct nx_hf *h, const json_t *v, bool alone, struct stages *st,
                          struct nx_err *err)
{
	static const char key[] = "pre_tokenizer.prepend_scheme";
	const json_t *scheme = json_object_get(v, "prepend_scheme");
	bool split = true, prefix = true; /* what an absent key means */
	if (!alone)
		return unsupported(h, "pre_tokenizer", "Metaspace beside others", "Metaspace alone",
		                   err);
	if (!is_text(json_object_get(v, "replacement"), NX_HF_MARK))
		return unsupported(h, "pre_tokenizer.replacement", "another character", "U+2581",
		                   err);
	int rc = nx_hf_bool(h->d.path, v, "split", &split, err);
	if (!rc) /* before there was prepend_scheme */
		rc = nx_hf_bool(h->d.path, v, "add_prefix_space", &prefix, err);
	if (rc)
		return rc;
	if (is_text(scheme, "first"))
		h->d.steps.prefix = NX_PREFIX_FIRST;
	else if (is_text(scheme, "always") || (!scheme && prefix))
		h->d.steps.prefix = NX_PREFIX_ALL;
	else if (!is_text(scheme, "never") && scheme)
		return unsupported(h, key, json_is_string(scheme) ? json_string_value(scheme) : "",
		                   "first, always, never", err);
	h->d.steps.mark = true;
	return split ? add_pattern(h, st, SPLIT_AT_SPACES, err) : 0;
}

static int read_digits(struct nx_hf *h, const json_t *v, struct stages *st, struct nx_err *err)
{
	bool one = false;
	int rc = nx_hf_bool(h->d.path, v, "individual_digits", &one, err);
	return rc ? rc : add_pattern(h, st, one ? NX_SPLIT_DIGIT : NX_SPLIT_DIGIT "+", err);
}

static int read_pre_tokenizer(struct nx_hf *h, struct nx_err *err)
{
	static const char legal[] =
		"ByteLevel, Split, Digits, Metaspace, Sequence of these (with ByteLevel at the end)";
	struct nx_hf_items items;
	struct stages st = {
		.where = nx_arena_printf(&h->d.arena, "%.200s: key pre_tokenizer", h->d.path)};
	bool splits = false;
	int rc = nx_hf_items(&items, h, "pre_tokenizer", "pretokenizers", err);
	if (!rc && !st.where)
		rc = nx_fail(err, NX_ENOMEM, "out of memory for the pre-tokenizer");
	for (size_t i = 0; i < items.n && !rc; i++) {
		const json_t *v = nx_hf_item(&items, i);
		const char *type = nx_hf_type(v);
		if (strcmp(type, "ByteLevel") == 0)
			rc = read_byte_level(h, v, i == 0, i + 1 == items.n, &st, err);
		else if (strcmp(type, "Metaspace") == 0)
			rc = read_metaspace(h, v, items.n == 1, &st, err);
		else if (strcmp(type, "Split") == 0)
			rc = read_split(h, v, &st, err);
		else if (strcmp(type, "Digits") == 0)
			rc = read_digits(h, v, &st, err);
		else
			rc = unsupported(h, "pre_tokenizer", type, legal, err);
		splits |= strcmp(type, "Split") == 0 || strcmp(type, "Digits") == 0;
	}
	if (rc)
		return rc;
	if (!h->d.byte_level && (splits || !h->d.steps.mark))
		return nx_fail(
			err, NX_ENOTSUP,
			"%.200s: key pre_tokenizer: neither bytes nor SentencePiece's spaces; legal: %s, or a normalizer that replaces spaces by U+2581 and null",
			h->d.path, legal);
	if (h->d.byte_level && (h->d.steps.mark || h->d.steps.prepend))
		return nx_fail(
			err, NX_ENOTSUP,
			"%.200s: key normalizer: spaces become U+2581 although pre_tokenizer is ByteLevel",
			h->d.path);
	/* ByteLevel's decoder leaves the space where it is. */
	h->d.steps.strip =
		!h->d.byte_level && (h->d.steps.prepend || h->d.steps.prefix != NX_PREFIX_NONE);
	return nx_pretok_create_custom(&h->d.pre, st.patterns, st.n, st.where, err);
}

/* --- post_processor */

/* BOS comes first if the template for one text starts with a special token. */
static int read_template(struct nx_hf *h, const json_t *v, struct nx_err *err)
{
	const json_t *single = json_object_get(v, "single");
	const json_t *name =
		json_object_get(json_object_get(json_array_get(single, 0), "SpecialToken"), "id");
	if (!json_is_array(single))
		return nx_fail(err, NX_EFORMAT,
		               "%.200s: key post_processor.single is %s; legal: a list", h->d.path,
		               single ? nx_json_kind(single) : "missing");
	size_t n = json_array_size(single);
	if (n != (json_is_string(name) ? 2u : 1u) ||
	    !json_object_get(json_array_get(single, n - 1), "Sequence"))
		return nx_fail(err, NX_ENOTSUP,
		               "%.200s: key post_processor.single has %zu parts that are not all "
		               "supported; legal: the text, or one special token and the text",
		               h->d.path, n);
	if (json_is_string(name)) {
		h->bos = (struct nx_span){json_string_value(name), json_string_length(name)};
		h->d.add_bos = true;
	}
	return 0;
}

static int read_post_processor(struct nx_hf *h, struct nx_err *err)
{
	struct nx_hf_items items;
	int rc = nx_hf_items(&items, h, "post_processor", "processors", err);
	for (size_t i = 0; i < items.n && !rc; i++) {
		const json_t *v = nx_hf_item(&items, i);
		if (strcmp(nx_hf_type(v), "TemplateProcessing") == 0)
			rc = read_template(h, v, err);
		else if (strcmp(nx_hf_type(v), "ByteLevel") != 0) /* that one is about offsets */
			rc = unsupported(h, "post_processor", nx_hf_type(v),
			                 "TemplateProcessing, ByteLevel, Sequence of these", err);
	}
	return rc;
}

int nx_hf_read_steps(struct nx_hf *h, struct nx_err *err)
{
	int rc = read_normalizer(h, err);
	if (!rc)
		rc = read_pre_tokenizer(h, err);
	return rc ? rc : read_post_processor(h, err);
}
