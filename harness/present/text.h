/* SPDX-License-Identifier: Apache-2.0
 *
 * present/text.h: a growing string, with the escapes of the formats that are written here.
 *
 * A failed allocation is remembered in `failed` and later calls do nothing, so that a writer checks
 * once at its end. s is NUL-terminated, or NULL while nothing was put. Not thread-safe.
 */
#ifndef NEXUS_PRESENT_TEXT_H
#define NEXUS_PRESENT_TEXT_H

#include <stdbool.h>
#include <stddef.h>

#include "nexus/err.h"

struct nx_text {
	char *s;
	size_t len, cap;
	bool failed;
};

void nx_text_init(struct nx_text *t);
void nx_text_release(struct nx_text *t);
void nx_text_reset(struct nx_text *t); /* empty; keeps its memory */
void nx_text_put(struct nx_text *t, const char *s);
void nx_text_putn(struct nx_text *t, const char *s, size_t n);
NX_PRINTF(2, 3) void nx_text_printf(struct nx_text *t, const char *fmt, ...);

/* Each puts s so that it reads as text there, never as markup. Control characters become spaces. */
void nx_text_html(struct nx_text *t, const char *s);
void nx_text_md(struct nx_text *t, const char *s);   /* fit for table cells and paragraphs */
void nx_text_csv(struct nx_text *t, const char *s);  /* one RFC 4180 field */
void nx_text_json(struct nx_text *t, const char *s); /* with its quotes; NULL is null */
void nx_text_gnuplot(struct nx_text *t,
                     const char *s); /* a quoted string; for texts, not for paths */

/* Columns that s takes on a terminal: code points of UTF-8. */
size_t nx_text_width(const char *s);
/* s shortened in its middle to at most max columns; returns buf. */
const char *nx_text_ellipsis(const char *s, size_t max, char *buf, size_t size);

int nx_text_load(struct nx_text *t, const char *path, struct nx_err *err);
/* Writes under a temporary name, then renames: a reader never sees half a file. */
int nx_text_save(const struct nx_text *t, const char *path, struct nx_err *err);

#endif
