/* SPDX-License-Identifier: Apache-2.0 */
/* See table.h. */
#include "present/table.h"

#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#define DIGITS "0123456789"

void nx_table_init(struct nx_table *t)
{
	*t = (struct nx_table){0};
}

void nx_table_release(struct nx_table *t)
{
	for (size_t i = 0; i < t->n_columns; i++)
		free(t->header[i]);
	for (size_t i = 0; i < t->n_cells; i++)
		free(t->cells[i]);
	free(t->cells);
	*t = (struct nx_table){0};
}

void nx_table_column(struct nx_table *t, const char *header, enum nx_align align)
{
	char *s = t->n_columns < NX_TABLE_COLUMNS_MAX ? strdup(header) : NULL;
	if (!s) {
		t->failed = true;
		return;
	}
	t->align[t->n_columns] = align;
	t->header[t->n_columns++] = s;
}

void nx_table_cell(struct nx_table *t, const char *fmt, ...)
{
	if (t->failed)
		return;
	if (t->n_cells == t->cap) {
		size_t cap = t->cap ? t->cap * 2 : 64;
		char **cells = realloc(t->cells, cap * sizeof(*cells));
		if (!cells) {
			t->failed = true;
			return;
		}
		t->cells = cells;
		t->cap = cap;
	}
	va_list ap, again;
	va_start(ap, fmt);
	va_copy(again, ap);
	int n = vsnprintf(NULL, 0, fmt, ap);
	char *s = n < 0 ? NULL : malloc((size_t)n + 1);
	if (s)
		vsnprintf(s, (size_t)n + 1, fmt, again);
	va_end(again);
	va_end(ap);
	if (s)
		t->cells[t->n_cells++] = s;
	else
		t->failed = true;
}

size_t nx_table_rows(const struct nx_table *t)
{
	return t->n_columns ? (t->n_cells + t->n_columns - 1) / t->n_columns : 0;
}

static const char *cell(const struct nx_table *t, size_t row, size_t column)
{
	size_t i = row * t->n_columns + column;
	return i < t->n_cells ? t->cells[i] : "";
}

/* Pads to `width` columns on the side that the alignment leaves free. */
static void put_padded(struct nx_text *out, const char *s, size_t width, enum nx_align align,
                       bool last)
{
	size_t have = nx_text_width(s), pad = width > have ? width - have : 0;
	if (align == NX_RIGHT)
		nx_text_printf(out, "%*s%s", (int)pad, "", s);
	else
		nx_text_printf(out, "%s%*s", s, last ? 0 : (int)pad, "");
}

static void write_text(const struct nx_table *t, struct nx_text *out)
{
	size_t width[NX_TABLE_COLUMNS_MAX];
	size_t rows = nx_table_rows(t);
	for (size_t c = 0; c < t->n_columns; c++) {
		width[c] = nx_text_width(t->header[c]);
		for (size_t r = 0; r < rows; r++) {
			size_t w = nx_text_width(cell(t, r, c));
			width[c] = w > width[c] ? w : width[c];
		}
	}
	for (size_t r = 0; r <= rows; r++) {
		for (size_t c = 0; c < t->n_columns; c++) {
			const char *s = r ? cell(t, r - 1, c) : t->header[c];
			put_padded(out, s, width[c], t->align[c], c + 1 == t->n_columns);
			nx_text_put(out, c + 1 < t->n_columns ? "  " : "\n");
		}
	}
}

static void write_md(const struct nx_table *t, struct nx_text *out)
{
	size_t rows = nx_table_rows(t);
	for (size_t r = 0; r <= rows; r++) {
		for (size_t c = 0; c < t->n_columns; c++) {
			nx_text_put(out, "| ");
			nx_text_md(out, r ? cell(t, r - 1, c) : t->header[c]);
			nx_text_put(out, " ");
		}
		nx_text_put(out, "|\n");
		for (size_t c = 0; r == 0 && c < t->n_columns; c++)
			nx_text_put(out, t->align[c] == NX_RIGHT ? "|---:" : "|---");
		if (r == 0)
			nx_text_put(out, "|\n");
	}
}

static void write_csv(const struct nx_table *t, struct nx_text *out)
{
	size_t rows = nx_table_rows(t);
	for (size_t r = 0; r <= rows; r++)
		for (size_t c = 0; c < t->n_columns; c++) {
			nx_text_csv(out, r ? cell(t, r - 1, c) : t->header[c]);
			nx_text_put(out, c + 1 < t->n_columns ? "," : "\n");
		}
}

/* As JSON defines a number: no leading zero, no plus, digits on both sides of a point. */
static bool is_number(const char *s)
{
	size_t n;
	s += *s == '-';
	n = strspn(s, DIGITS);
	if (n == 0 || (n > 1 && *s == '0'))
		return false;
	s += n;
	if (*s == '.') {
		n = strspn(s + 1, DIGITS);
		if (n == 0)
			return false;
		s += 1 + n;
	}
	if (*s == 'e' || *s == 'E') {
		s += 1 + (s[1] == '-' || s[1] == '+');
		n = strspn(s, DIGITS);
		if (n == 0)
			return false;
		s += n;
	}
	return *s == '\0';
}

static void put_json(const struct nx_table *t, size_t row, size_t column, struct nx_text *out)
{
	const char *s = cell(t, row, column);
	bool number = t->align[column] == NX_RIGHT;
	if (number && !*s)
		nx_text_put(out, "null");
	else if (number && is_number(s))
		nx_text_put(out, s);
	else
		nx_text_json(out, s);
}

static void write_json(const struct nx_table *t, struct nx_text *out)
{
	size_t rows = nx_table_rows(t);
	nx_text_put(out, "[");
	for (size_t r = 0; r < rows; r++) {
		nx_text_put(out, r ? ",\n {" : "\n {");
		for (size_t c = 0; c < t->n_columns; c++) {
			nx_text_put(out, c ? ", " : "");
			nx_text_json(out, t->header[c]);
			nx_text_put(out, ": ");
			put_json(t, r, c, out);
		}
		nx_text_put(out, "}");
	}
	nx_text_put(out, rows ? "\n]\n" : "]\n");
}

static void write_html(const struct nx_table *t, struct nx_text *out)
{
	size_t rows = nx_table_rows(t);
	nx_text_put(out, "<div class=\"scroll\"><table>\n<thead><tr>");
	for (size_t c = 0; c < t->n_columns; c++) {
		nx_text_printf(out, "<th scope=\"col\"%s>",
		               t->align[c] == NX_RIGHT ? " class=\"n\"" : "");
		nx_text_html(out, t->header[c]);
		nx_text_put(out, "</th>");
	}
	nx_text_put(out, "</tr></thead>\n<tbody>\n");
	for (size_t r = 0; r < rows; r++) {
		nx_text_put(out, "<tr>");
		for (size_t c = 0; c < t->n_columns; c++) {
			const char *tag = c == 0 ? "th" : "td";
			nx_text_printf(out, "<%s%s%s>", tag, c == 0 ? " scope=\"row\"" : "",
			               t->align[c] == NX_RIGHT ? " class=\"n\"" : "");
			nx_text_html(out, cell(t, r, c));
			nx_text_printf(out, "</%s>", tag);
		}
		nx_text_put(out, "</tr>\n");
	}
	nx_text_put(out, "</tbody></table></div>\n");
}

void nx_table_write(const struct nx_table *t, enum nx_table_format format, struct nx_text *out)
{
	if (t->failed) {
		out->failed = true;
		return;
	}
	switch (format) {
	case NX_TABLE_TEXT: write_text(t, out); break;
	case NX_TABLE_MD: write_md(t, out); break;
	case NX_TABLE_CSV: write_csv(t, out); break;
	case NX_TABLE_JSON: write_json(t, out); break;
	case NX_TABLE_HTML: write_html(t, out); break;
	}
}
