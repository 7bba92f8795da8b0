/* SPDX-License-Identifier: Apache-2.0
 *
 * present/doc.h: one document, written as Markdown or as one self-contained HTML page.
 *
 * The report says what to show once and this says how. All texts are escaped here, so that nothing
 * from a run file can become markup. In texts, NX_DOC_CODE around a word sets it as code.
 */
#ifndef NEXUS_PRESENT_DOC_H
#define NEXUS_PRESENT_DOC_H

#include "present/table.h"

#define NX_DOC_ON "\016"
#define NX_DOC_OFF "\017"
#define NX_DOC_CODE NX_DOC_ON "%s" NX_DOC_OFF

enum nx_doc_format { NX_DOC_MD, NX_DOC_HTML };

struct nx_doc {
	enum nx_doc_format format;
	struct nx_text *out; /* borrowed */
};

void nx_doc_begin(struct nx_doc *d, const char *title);
void nx_doc_end(struct nx_doc *d);
void nx_doc_heading(struct nx_doc *d, int level, const char *text);
NX_PRINTF(2, 3) void nx_doc_paragraph(struct nx_doc *d, const char *fmt, ...);
/* Sentences that come first: a box on the page. */
void nx_doc_lead(struct nx_doc *d, const char *const *sentences, size_t n);
void nx_doc_list_begin(struct nx_doc *d);
NX_PRINTF(2, 3) void nx_doc_item(struct nx_doc *d, const char *fmt, ...);
void nx_doc_list_end(struct nx_doc *d);
void nx_doc_table(struct nx_doc *d, const struct nx_table *t);
void nx_doc_code(struct nx_doc *d, const char *text);
/* HTML only: an SVG that gnuplot made, inlined; prefix makes its ids unlike those of other figures;
 * label: what it shows, for those who cannot see it. */
void nx_doc_figure(struct nx_doc *d, const char *svg, const char *prefix, const char *label);

#endif
