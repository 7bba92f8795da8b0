/* SPDX-License-Identifier: Apache-2.0 */
/* See text.h. */
#include "present/text.h"

#include <errno.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

void nx_text_init(struct nx_text *t)
{
	*t = (struct nx_text){0};
}

void nx_text_release(struct nx_text *t)
{
	free(t->s);
	*t = (struct nx_text){0};
}

void nx_text_reset(struct nx_text *t)
{
	t->len = 0;
	if (t->s)
		t->s[0] = 0;
}

static bool reserve(struct nx_text *t, size_t n)
{
	if (t->failed)
		return false;
	if (t->s && t->cap - t->len > n)
		return true;
	size_t cap = t->cap ? t->cap : 256;
	while (cap - t->len <= n)
		cap *= 2;
	char *s = realloc(t->s, cap);
	if (!s) {
		t->failed = true;
		return false;
	}
	t->s = s;
	t->cap = cap;
	return true;
}

void nx_text_putn(struct nx_text *t, const char *s, size_t n)
{
	if (!reserve(t, n))
		return;
	memcpy(t->s + t->len, s, n);
	t->len += n;
	t->s[t->len] = 0;
}

void nx_text_put(struct nx_text *t, const char *s)
{
	nx_text_putn(t, s, strlen(s));
}

void nx_text_printf(struct nx_text *t, const char *fmt, ...)
{
	va_list ap, again;
	va_start(ap, fmt);
	va_copy(again, ap);
	int n = vsnprintf(NULL, 0, fmt, ap);
	if (n >= 0 && reserve(t, (size_t)n)) {
		vsnprintf(t->s + t->len, (size_t)n + 1, fmt, again);
		t->len += (size_t)n;
	}
	va_end(again);
	va_end(ap);
}

static char printable(char c)
{
	return (unsigned char)c < 0x20 || c == 0x7f ? ' ' : c;
}

void nx_text_html(struct nx_text *t, const char *s)
{
	for (; *s; s++) {
		char c = printable(*s);
		switch (c) {
		case '<': nx_text_put(t, "&lt;"); break;
		case '>': nx_text_put(t, "&gt;"); break;
		case '&': nx_text_put(t, "&amp;"); break;
		case '"': nx_text_put(t, "&quot;"); break;
		case '\'': nx_text_put(t, "&#39;"); break;
		default: nx_text_putn(t, &c, 1);
		}
	}
}

void nx_text_md(struct nx_text *t, const char *s)
{
	for (; *s; s++) {
		char c = printable(*s);
		if (c == '<')
			nx_text_put(t, "&lt;");
		else if (c == '&')
			nx_text_put(t, "&amp;");
		else {
			if (strchr("\\`*|~", c))
				nx_text_put(t, "\\");
			nx_text_putn(t, &c, 1);
		}
	}
}

void nx_text_csv(struct nx_text *t, const char *s)
{
	if (!strpbrk(s, ",\"\r\n")) {
		nx_text_put(t, s);
		return;
	}
	nx_text_put(t, "\"");
	for (; *s; s++)
		nx_text_putn(t, *s == '"' ? "\"\"" : s, *s == '"' ? 2 : 1);
	nx_text_put(t, "\"");
}

void nx_text_json(struct nx_text *t, const char *s)
{
	if (!s) {
		nx_text_put(t, "null");
		return;
	}
	nx_text_put(t, "\"");
	for (; *s; s++) {
		if (*s == '"' || *s == '\\')
			nx_text_printf(t, "\\%c", *s);
		else if ((unsigned char)*s < 0x20)
			nx_text_printf(t, "\\u%04x", (unsigned)*s);
		else
			nx_text_putn(t, s, 1);
	}
	nx_text_put(t, "\"");
}

void nx_text_gnuplot(struct nx_text *t, const char *s)
{
	/* In gnuplot's single quotes nothing is special but the quote. Doubling it is not enough:
	 * four in a row are an error in gnuplot 5.4. So it becomes the typographic one. */
	nx_text_put(t, "'");
	for (; *s; s++) {
		char c = printable(*s);
		if (*s == '\n')
			nx_text_put(t, "'.\"\\n\".'"); /* a line break needs double quotes */
		else if (c == '\'')
			nx_text_put(t, "\xe2\x80\x99");
		else
			nx_text_putn(t, &c, 1);
	}
	nx_text_put(t, "'");
}

static bool starts_character(char c)
{
	return ((unsigned char)c & 0xc0) != 0x80;
}

size_t nx_text_width(const char *s)
{
	size_t n = 0;
	for (; *s; s++)
		n += starts_character(*s);
	return n;
}

const char *nx_text_ellipsis(const char *s, size_t max, char *buf, size_t size)
{
	size_t width = nx_text_width(s);
	if (width <= max || max < 3) {
		snprintf(buf, size, "%s", s);
		return buf;
	}
	/* The middle goes: what tells names apart is most often at their ends. */
	size_t head = max / 2, tail = max - head - 1, at = 0;
	const char *p = s;
	for (; at < head; at++)
		do
			p++;
		while (!starts_character(*p));
	const char *q = p;
	for (; at < width - tail; at++)
		do
			q++;
		while (!starts_character(*q));
	snprintf(buf, size, "%.*s\xe2\x80\xa6%s", (int)(p - s), s, q);
	return buf;
}

int nx_text_load(struct nx_text *t, const char *path, struct nx_err *err)
{
	FILE *f = fopen(path, "rb");
	if (!f)
		return nx_fail(err, NX_EIO, "%s: cannot be opened: %s", path, strerror(errno));
	char buf[16384];
	size_t n;
	while ((n = fread(buf, 1, sizeof(buf), f)) > 0)
		nx_text_putn(t, buf, n);
	bool bad = ferror(f) != 0;
	fclose(f);
	if (bad)
		return nx_fail(err, NX_EIO, "%s: cannot be read", path);
	return t->failed ? nx_fail(err, NX_ENOMEM, "%s: no memory to hold it", path) : 0;
}

int nx_text_save(const struct nx_text *t, const char *path, struct nx_err *err)
{
	if (t->failed)
		return nx_fail(err, NX_ENOMEM, "%s: no memory to write it", path);
	struct nx_text tmp;
	nx_text_init(&tmp);
	nx_text_printf(&tmp, "%s.tmp", path);
	if (tmp.failed)
		return nx_fail(err, NX_ENOMEM, "%s: no memory to write it", path);
	int rc = 0;
	FILE *f = fopen(tmp.s, "wb");
	if (!f) {
		rc = nx_fail(err, NX_EIO,
		             "%s: cannot be written: %s; choose another folder with -o", path,
		             strerror(errno));
		goto release;
	}
	size_t put = t->len ? fwrite(t->s, 1, t->len, f) : 0;
	if (fclose(f) != 0 || put != t->len || rename(tmp.s, path) != 0) {
		rc = nx_fail(err, NX_EIO, "%s: cannot be written: %s", path, strerror(errno));
		remove(tmp.s);
	}
release:
	nx_text_release(&tmp);
	return rc;
}
