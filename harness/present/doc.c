/* SPDX-License-Identifier: Apache-2.0 */
/* See doc.h. */
#include "present/doc.h"

#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

/* One sheet for light and dark screens and for paper. Pictures keep a white card in the dark: their
 * colours were chosen for it. */
static const char STYLE[] =
	":root{color-scheme:light dark;--fg:#1b1f24;--bg:#fff;--soft:#57606a;--line:#d0d7de;"
	"--box:#f6f8fa;--accent:#0072b2}\n"
	"@media(prefers-color-scheme:dark){:root{--fg:#e6edf3;--bg:#0d1117;--soft:#9aa4af;"
	"--line:#30363d;--box:#161b22;--accent:#56b4e9}}\n"
	"body{margin:0 auto;max-width:78rem;padding:1.5rem;font:16px/1.55 system-ui,'DejaVu Sans',"
	"sans-serif;color:var(--fg);background:var(--bg)}\n"
	"h1{font-size:1.7rem;line-height:1.25;margin:.2em 0 .6em}\n"
	"h2{font-size:1.25rem;margin:2.2em 0 .5em;padding-bottom:.2em;border-bottom:1px solid "
	"var(--line)}\n"
	"h3{font-size:1rem;margin:1.5em 0 .4em}\n"
	"p,li{max-width:60rem}\n"
	".lead{border-left:4px solid var(--accent);background:var(--box);padding:.6rem 1.1rem;"
	"margin:1rem 0;font-size:1.08rem}\n"
	".lead p{margin:.45em 0;max-width:none}\n"
	".scroll{overflow-x:auto;margin:.6rem 0 1rem}\n"
	"table{border-collapse:collapse;font-size:.86rem;font-variant-numeric:tabular-nums}\n"
	"th,td{padding:.32rem .7rem;border-bottom:1px solid var(--line);text-align:left;"
	"vertical-align:top}\n"
	"td{white-space:nowrap}td:last-child{white-space:normal}\n"
	"thead th{border-bottom:2px solid var(--line);color:var(--soft);font-weight:600;"
	"vertical-align:bottom}\n"
	"tbody th{font-weight:600;position:sticky;left:0;background:var(--bg)}\n"
	"tbody tr:hover>*{background:var(--box)}\n"
	".n{text-align:right;white-space:nowrap}\n"
	"thead .n{white-space:normal;min-width:5.2rem}\n"
	"code,pre{font-family:ui-monospace,'DejaVu Sans Mono',monospace;font-size:.9em;"
	"background:var(--box);border-radius:4px}\n"
	"code{padding:.1em .3em;overflow-wrap:anywhere}\n"
	"pre{padding:.8rem 1rem;overflow-x:auto}\n"
	"figure{margin:1.2rem 0;max-width:62rem}\n"
	"figure svg{display:block;width:100%;height:auto;background:#fff;border:1px solid var(--line);"
	"border-radius:6px}\n"
	"@media print{body{max-width:none}.scroll{overflow:visible}}\n";

static void put_plain(struct nx_doc *d, const char *s, size_t n)
{
	char *copy = strndup(s, n);
	if (!copy) {
		d->out->failed = true;
		return;
	}
	if (d->format == NX_DOC_HTML)
		nx_text_html(d->out, copy);
	else
		nx_text_md(d->out, copy);
	free(copy);
}

static void put_code(struct nx_doc *d, const char *s, size_t n)
{
	if (d->format == NX_DOC_HTML) {
		nx_text_put(d->out, "<code>");
		put_plain(d, s, n);
		nx_text_put(d->out, "</code>");
		return;
	}
	/* In Markdown's code nothing is special but the fence itself. */
	const char *fence = memchr(s, '`', n) ? "``" : "`";
	nx_text_printf(d->out, "%s%s%.*s%s%s", fence, fence[1] ? " " : "", (int)n, s,
	               fence[1] ? " " : "", fence);
}

/* Text with its code words; a mark that is not closed runs to the end. */
static void put(struct nx_doc *d, const char *s)
{
	while (*s) {
		size_t n = strcspn(s, NX_DOC_ON NX_DOC_OFF);
		put_plain(d, s, n);
		s += n;
		if (!*s)
			break;
		if (*s++ == NX_DOC_OFF[0])
			continue;
		n = strcspn(s, NX_DOC_OFF);
		put_code(d, s, n);
		s += n;
	}
}

static void put_formatted(struct nx_doc *d, const char *fmt, va_list ap)
{
	va_list again;
	va_copy(again, ap);
	int n = vsnprintf(NULL, 0, fmt, ap);
	char *s = n < 0 ? NULL : malloc((size_t)n + 1);
	if (s) {
		vsnprintf(s, (size_t)n + 1, fmt, again);
		put(d, s);
	} else {
		d->out->failed = true;
	}
	va_end(again);
	free(s);
}

static void open_tag(struct nx_doc *d, const char *html, const char *md)
{
	nx_text_put(d->out, d->format == NX_DOC_HTML ? html : md);
}

void nx_doc_begin(struct nx_doc *d, const char *title)
{
	if (d->format == NX_DOC_HTML) {
		nx_text_put(
			d->out,
			"<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n"
			"<meta name=\"viewport\" content=\"width=device-width, "
			"initial-scale=1\">\n<title>");
		nx_text_html(d->out, title);
		nx_text_printf(d->out, "</title>\n<style>\n%s</style>\n</head>\n<body>\n<main>\n",
		               STYLE);
	}
	nx_doc_heading(d, 1, title);
}

void nx_doc_end(struct nx_doc *d)
{
	open_tag(d, "</main>\n</body>\n</html>\n", "");
}

void nx_doc_heading(struct nx_doc *d, int level, const char *text)
{
	if (d->format == NX_DOC_HTML)
		nx_text_printf(d->out, "<h%d>", level);
	else
		nx_text_printf(d->out, "%.*s ", level, "######");
	put(d, text);
	if (d->format == NX_DOC_HTML)
		nx_text_printf(d->out, "</h%d>\n", level);
	else
		nx_text_put(d->out, "\n\n");
}

void nx_doc_paragraph(struct nx_doc *d, const char *fmt, ...)
{
	va_list ap;
	open_tag(d, "<p>", "");
	va_start(ap, fmt);
	put_formatted(d, fmt, ap);
	va_end(ap);
	open_tag(d, "</p>\n", "\n\n");
}

void nx_doc_lead(struct nx_doc *d, const char *const *sentences, size_t n)
{
	open_tag(d, "<div class=\"lead\">\n", "");
	for (size_t i = 0; i < n; i++)
		nx_doc_paragraph(d, "%s", sentences[i]);
	open_tag(d, "</div>\n", "");
}

void nx_doc_list_begin(struct nx_doc *d)
{
	open_tag(d, "<ul>\n", "");
}

void nx_doc_item(struct nx_doc *d, const char *fmt, ...)
{
	va_list ap;
	open_tag(d, "<li>", "- ");
	va_start(ap, fmt);
	put_formatted(d, fmt, ap);
	va_end(ap);
	open_tag(d, "</li>\n", "\n");
}

void nx_doc_list_end(struct nx_doc *d)
{
	open_tag(d, "</ul>\n", "\n");
}

void nx_doc_table(struct nx_doc *d, const struct nx_table *t)
{
	nx_table_write(t, d->format == NX_DOC_HTML ? NX_TABLE_HTML : NX_TABLE_MD, d->out);
	nx_text_put(d->out, "\n");
}

void nx_doc_code(struct nx_doc *d, const char *text)
{
	if (d->format == NX_DOC_MD) {
		/* Indented, so that no fence in the text can end it. */
		for (const char *s = text; *s;) {
			size_t n = strcspn(s, "\n");
			nx_text_printf(d->out, "    %.*s\n", (int)n, s);
			s += n + (s[n] == '\n');
		}
		nx_text_put(d->out, "\n");
		return;
	}
	nx_text_put(d->out, "<pre>");
	for (const char *s = text; *s;) {
		size_t n = strcspn(s, "\n");
		put_plain(d, s, n);
		nx_text_put(d->out, "\n");
		s += n + (s[n] == '\n');
	}
	nx_text_put(d->out, "</pre>\n");
}

void nx_doc_figure(struct nx_doc *d, const char *svg, const char *prefix, const char *label)
{
	if (d->format != NX_DOC_HTML)
		return;
	/* The XML declaration and the DOCTYPE have no place inside HTML. */
	const char *s = strstr(svg, "<svg");
	if (!s)
		return;
	static const char *const marks[] = {" id=\"", " id='", "href='#", "href=\"#", "url(#"};
	nx_text_put(d->out, "<figure role=\"img\" aria-label=\"");
	nx_text_html(d->out, label);
	nx_text_put(d->out, "\">\n");
	while (*s) {
		size_t k = 0, n_marks = sizeof(marks) / sizeof(marks[0]);
		while (k < n_marks && strncmp(s, marks[k], strlen(marks[k])) != 0)
			k++;
		if (k == n_marks) {
			nx_text_putn(d->out, s++, 1);
			continue;
		}
		nx_text_printf(d->out, "%s%s_", marks[k], prefix);
		s += strlen(marks[k]);
	}
	nx_text_put(d->out, "</figure>\n");
}
