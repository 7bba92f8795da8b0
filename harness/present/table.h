/* SPDX-License-Identifier: Apache-2.0
 *
 * present/table.h: a table of texts, written aligned for a terminal, as Markdown, CSV, JSON or
 * HTML.
 *
 * First the columns, then the cells, row by row; the table wraps rows by itself and pads the last
 * one. Texts are copied. A failed allocation makes write() put nothing and set out->failed.
 */
#ifndef NEXUS_PRESENT_TABLE_H
#define NEXUS_PRESENT_TABLE_H

#include "present/text.h"

enum nx_table_format { NX_TABLE_TEXT, NX_TABLE_MD, NX_TABLE_CSV, NX_TABLE_JSON, NX_TABLE_HTML };
enum nx_align { NX_LEFT, NX_RIGHT };

#define NX_TABLE_COLUMNS_MAX 256

struct nx_table {
	size_t n_columns, n_cells, cap;
	char *header[NX_TABLE_COLUMNS_MAX];
	enum nx_align align[NX_TABLE_COLUMNS_MAX];
	char **cells; /* [rows * n_columns] */
	bool failed;
};

void nx_table_init(struct nx_table *t);
void nx_table_release(struct nx_table *t);
/* Before the first cell. */
void nx_table_column(struct nx_table *t, const char *header, enum nx_align align);
NX_PRINTF(2, 3) void nx_table_cell(struct nx_table *t, const char *fmt, ...);
size_t nx_table_rows(const struct nx_table *t);
/* JSON: an array of objects keyed by header; what a right-aligned column holds is a number where it is one and null
 * where it is empty, all else is a string. */
void nx_table_write(const struct nx_table *t, enum nx_table_format format, struct nx_text *out);

#endif
