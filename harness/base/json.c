/* SPDX-License-Identifier: Apache-2.0 */
#include "base/json.h"

#include <stdbool.h>
#include <string.h>

#include "base/file.h"
#include "base/text.h"

int nx_jsonl_init(struct nx_jsonl *r, const char *path, struct nx_err *err)
{
	memset(r, 0, sizeof(*r));
	char *data;
	size_t len;
	int rc = nx_file_read(&r->arena, path, NX_JSONL_FILE_MAX, &data, &len, err);
	if (rc)
		return rc;
	r->path = path;
	r->at = data;
	r->end = data + len;
	return 0;
}

void nx_jsonl_release(struct nx_jsonl *r)
{
	nx_arena_release(&r->arena);
}

int nx_jsonl_fail(const struct nx_jsonl *r, struct nx_err *err, const char *fmt, ...)
{
	char text[NX_ERR_MAX];
	va_list ap;
	va_start(ap, fmt);
	vsnprintf(text, sizeof(text), fmt, ap);
	va_end(ap);
	return nx_fail(err, NX_EFORMAT, "%s:%d: %s", r->path, r->line, text);
}

static bool is_blank(const char *s, size_t n)
{
	for (size_t i = 0; i < n; i++)
		if (s[i] != ' ' && s[i] != '\t' && s[i] != '\r')
			return false;
	return true;
}

static int parse_line(struct nx_jsonl *r, const char *s, size_t n, json_t **out, struct nx_err *err)
{
	if (n > NX_JSONL_LINE_MAX)
		return nx_jsonl_fail(r, err, "found a line of %zu bytes; legal: at most %zu", n,
		                     NX_JSONL_LINE_MAX);
	json_error_t why;
	json_t *v = json_loadb(s, n, JSON_REJECT_DUPLICATES | JSON_DECODE_ANY, &why);
	if (!v) {
		char quoted[96];
		/* jansson counts whole lines as one value: its position is the column in bytes */
		return nx_fail(err, NX_EFORMAT,
		               "%s:%d:%d: found broken JSON (%s); legal: one JSON object a line",
		               r->path, r->line, why.position > 0 ? why.position : 1,
		               nx_quote(quoted, sizeof(quoted), why.text));
	}
	if (!json_is_object(v)) {
		const char *kind = nx_json_kind(v);
		json_decref(v);
		return nx_jsonl_fail(r, err, "found %s; legal: one JSON object a line", kind);
	}
	*out = v;
	return 1;
}

int nx_jsonl_next(struct nx_jsonl *r, json_t **out, struct nx_err *err)
{
	while (r->at < r->end) {
		const char *s = r->at;
		const char *nl = memchr(s, '\n', (size_t)(r->end - s));
		size_t n = (size_t)((nl ? nl : r->end) - s);
		r->at = nl ? nl + 1 : r->end;
		r->line++;
		if (!is_blank(s, n))
			return parse_line(r, s, n, out, err);
	}
	return 0;
}

const char *nx_json_kind(const json_t *v)
{
	switch (json_typeof(v)) {
	case JSON_OBJECT: return "an object";
	case JSON_ARRAY: return "a list";
	case JSON_STRING: return "a string";
	case JSON_INTEGER:
	case JSON_REAL: return "a number";
	case JSON_TRUE:
	case JSON_FALSE: return "a truth value";
	case JSON_NULL: return "null";
	}
	return "nothing";
}
