/* SPDX-License-Identifier: Apache-2.0 */
/* See json.h. */
#include "base/json.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/file.h"
#include "base/text.h"

#define CHUNK_BYTES ((size_t)1 << 18)

/* ---- places ----------------------------------------------------------------------------------- */

static int fail_at(const struct nx_jsonl *r, int line, int column, struct nx_err *err,
                   const char *text)
{
	char entry[32] = "", col[16] = "";
	if (r->list && r->entry)
		snprintf(entry, sizeof(entry), " entry %lld:", (long long)r->entry);
	if (column > 0)
		snprintf(col, sizeof(col), ":%d", column);
	return nx_fail(err, NX_EFORMAT, "%s:%d%s:%s %s", r->path, line, col, entry, text);
}

int nx_jsonl_fail(const struct nx_jsonl *r, struct nx_err *err, const char *fmt, ...)
{
	char text[NX_ERR_MAX];
	va_list ap;
	va_start(ap, fmt);
	vsnprintf(text, sizeof(text), fmt, ap);
	va_end(ap);
	return fail_at(r, r->line, 0, err, text);
}

/* ---- bytes ------------------------------------------------------------------------------------ */

/* Reads on, behind what is unread. 1 when there is more, 0 at the end of the file. */
static int fill(struct nx_jsonl *r, struct nx_err *err)
{
	if (r->eof)
		return 0;
	if (r->at) { /* what was read already makes room */
		memmove(r->buf, r->buf + r->at, r->end - r->at);
		r->end -= r->at;
		r->at = 0;
	}
	if (r->cap - r->end < CHUNK_BYTES) {
		size_t cap = 2 * r->cap + 2 * CHUNK_BYTES;
		char *more = realloc(r->buf, cap);
		if (!more)
			return nx_fail(err, NX_ENOMEM, "%s: out of memory", r->path);
		r->buf = more;
		r->cap = cap;
	}
	ssize_t got;
	do
		got = read(r->fd, r->buf + r->end, CHUNK_BYTES);
	while (got < 0 && errno == EINTR);
	if (got < 0)
		return nx_fail(err, NX_EIO, "%s: cannot be read: %s", r->path, strerror(errno));
	r->end += (size_t)got;
	r->eof = got == 0;
	return got > 0;
}

/* The next byte that is no space, not taken: 1 and *c, or 0 at the end. Lines are counted. */
static int peek(struct nx_jsonl *r, char *c, struct nx_err *err)
{
	for (;;) {
		for (; r->at < r->end; r->at++) {
			*c = r->buf[r->at];
			if (*c != ' ' && *c != '\t' && *c != '\r' && *c != '\n')
				return 1;
			r->at_line += *c == '\n';
		}
		int rc = fill(r, err);
		if (rc <= 0)
			return rc;
	}
}

int nx_jsonl_init(struct nx_jsonl *r, const char *path, struct nx_err *err)
{
	size_t bytes;
	char c = 0;
	*r = (struct nx_jsonl){.path = path, .fd = -1, .at_line = 1};
	int rc = nx_file_open(path, NX_JSONL_FILE_MAX, &r->fd, &bytes, err);
	if (rc == 0)
		rc = peek(r, &c, err);
	if (rc > 0 && r->end - r->at >= 3 && memcmp(r->buf + r->at, "\xef\xbb\xbf", 3) == 0) {
		r->at += 3; /* a byte order mark */
		rc = peek(r, &c, err);
	}
	if (rc > 0) {
		rc = 0;
		r->list = c == '[';
		r->at += r->list;
	}
	if (rc)
		nx_jsonl_release(r);
	return rc;
}

void nx_jsonl_release(struct nx_jsonl *r)
{
	if (r->fd >= 0)
		close(r->fd);
	r->fd = -1;
	free(r->buf);
	r->buf = NULL;
}

/* ---- objects ---------------------------------------------------------------------------------- */

static int count_lines(const char *s, size_t n)
{
	int lines = 0;
	for (const char *p = s; (p = memchr(p, '\n', (size_t)(s + n - p))) != NULL; p++)
		lines++;
	return lines;
}

/* jansson has no code of its own for half a surrogate pair. */
static bool is_bad_text(const json_error_t *why)
{
	enum json_error_code code = json_error_code(why);
	return code == json_error_invalid_utf8 || code == json_error_null_character ||
	       code == json_error_null_byte_in_key ||
	       strncmp(why->text, "invalid Unicode", 15) == 0;
}

/* 1 and *out, 0 for one to pass over, or negative. */
static int parse(struct nx_jsonl *r, const char *s, size_t n, json_t **out, struct nx_err *err)
{
	static const char *const legal[] = {"one JSON object a line", "a list of JSON objects"};
	json_error_t why;
	json_t *v = json_loadb(s, n, JSON_REJECT_DUPLICATES | JSON_DECODE_ANY, &why);
	if (!v) {
		char quoted[96], text[256];
		if (r->skip_bad_text && is_bad_text(&why)) {
			r->n_bad_text++;
			return 0;
		}
		/* jansson counts whole lines as one value: of one line its position is the column in bytes */
		bool one_line = !r->list || !memchr(s, '\n', n);
		snprintf(text, sizeof(text), "found broken JSON (%s); legal: %s",
		         nx_quote(quoted, sizeof(quoted), why.text), legal[r->list]);
		return fail_at(r, r->line + (why.line > 1 ? why.line - 1 : 0),
		               r->list || !one_line ? 0
		               : why.position > 0   ? why.position
		                                    : 1,
		               err, text);
	}
	if (!json_is_object(v)) {
		const char *kind = nx_json_kind(v);
		json_decref(v);
		return nx_jsonl_fail(r, err, "found %s; legal: %s", kind, legal[r->list]);
	}
	*out = v;
	return 1;
}

static int too_long(const struct nx_jsonl *r, const char *what, struct nx_err *err)
{
	return nx_jsonl_fail(r, err, "found %s of more than %zu bytes; legal: at most that", what,
	                     NX_JSONL_LINE_MAX);
}

/* Length of the object at buf[at] up to and with its last brace; strings are passed over, brackets counted. */
static int object_length(struct nx_jsonl *r, size_t *len, struct nx_err *err)
{
	int depth = 0;
	bool text = false;
	for (size_t i = 0;; i++) {
		if (i > NX_JSONL_LINE_MAX)
			return too_long(r, "an object", err);
		while (r->at + i >= r->end) { /* an escape may have skipped the last byte */
			int rc = fill(r, err);
			if (rc < 0)
				return rc;
			if (rc == 0)
				return nx_jsonl_fail(
					r, err,
					"found the end of the file inside an object; legal: a list of JSON objects, to its ]");
		}
		char c = r->buf[r->at + i];
		if (text) {
			if (c == '"')
				text = false;
			i += c == '\\'; /* what is escaped ends nothing; it is no newline in JSON */
			continue;
		}
		if (c == '"')
			text = true;
		else if (c == '{' || c == '[')
			depth++;
		else if (c == '}' || c == ']')
			depth--;
		if (depth > NX_JSONL_DEPTH_MAX)
			return nx_jsonl_fail(r, err,
			                     "found more than %d levels; legal: at most that many",
			                     NX_JSONL_DEPTH_MAX);
		if (depth == 0) {
			*len = i + 1;
			return 0;
		}
	}
}

/* Between the objects of a list: 1 when one begins here, 0 behind the list's end. */
static int next_of_list(struct nx_jsonl *r, struct nx_err *err)
{
	char c = 0, quoted[32], text[2] = "";
	if (r->closed)
		return 0;
	int rc = peek(r, &c, err);
	if (rc > 0 && c == ',' && r->entry) {
		r->at++;
		rc = peek(r, &c, err);
		if (rc > 0 && c == ']')
			c = ','; /* nothing followed the comma */
	} else if (rc > 0 && c == ']') {
		r->at++;
		r->closed = true;
		rc = peek(r, &c, err);
		if (rc == 0)
			return 0;
	} else if (rc > 0 && r->entry) {
		c = c == '{' ? '"' : c; /* an object without a comma before it */
	}
	if (rc < 0)
		return rc;
	r->line = r->at_line;
	r->entry += !r->closed;
	if (rc > 0 && c == '{' && !r->closed)
		return 1;
	text[0] = r->at < r->end ? r->buf[r->at] : '\0';
	nx_quote(quoted, sizeof(quoted), text);
	return nx_jsonl_fail(r, err, "found %s%s; legal: %s", rc ? quoted : "the end of the file",
	                     r->closed ? " after the list" : "",
	                     r->closed ? "nothing after the list's ]"
	                               : "a list of JSON objects with commas between");
}

static int next_in_list(struct nx_jsonl *r, json_t **out, struct nx_err *err)
{
	for (;;) {
		size_t len = 0;
		int rc = next_of_list(r, err);
		if (rc <= 0)
			return rc;
		if ((rc = object_length(r, &len, err)) != 0)
			return rc;
		const char *s = r->buf + r->at;
		r->at += len;
		r->at_line += count_lines(s, len);
		rc = parse(r, s, len, out, err);
		if (rc)
			return rc;
	}
}

static int next_line(struct nx_jsonl *r, json_t **out, struct nx_err *err)
{
	for (;;) {
		char c = 0;
		int rc = peek(r, &c, err);
		if (rc <= 0)
			return rc;
		r->line = r->at_line;
		r->entry++;
		size_t n = 0;
		const char *nl;
		while ((nl = memchr(r->buf + r->at + n, '\n', r->end - r->at - n)) == NULL) {
			n = r->end - r->at;
			if (n > NX_JSONL_LINE_MAX)
				return too_long(r, "a line", err);
			if ((rc = fill(r, err)) < 0)
				return rc;
			if (rc == 0)
				break;
		}
		const char *s = r->buf + r->at;
		n = nl ? (size_t)(nl - s) : r->end - r->at;
		if (n > NX_JSONL_LINE_MAX)
			return too_long(r, "a line", err);
		r->at += n + (nl != NULL);
		r->at_line += nl != NULL;
		rc = parse(r, s, n, out, err);
		if (rc)
			return rc;
	}
}

int nx_jsonl_next(struct nx_jsonl *r, json_t **out, struct nx_err *err)
{
	return r->list ? next_in_list(r, out, err) : next_line(r, out, err);
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
