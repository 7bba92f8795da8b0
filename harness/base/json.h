/* SPDX-License-Identifier: Apache-2.0
 *
 * base/json.h: files of many JSON objects with places in their errors, over jansson.
 *
 * Two shapes, told apart by the first byte that is no space: JSON lines (an object a line, blank lines are
 * passed over), and one list of objects (`[`), however it is broken into lines. The file is read as a stream: in
 * memory are one object's text and its tree, whatever the file's size.
 *
 * Sentences begin with `file:line:`, of a list with `file:line: entry N:` (entries count from 1; line is where the
 * entry begins). Duplicate keys are refused. Limits: NX_JSONL_FILE_MAX a file, NX_JSONL_LINE_MAX an object, in a
 * list NX_JSONL_DEPTH_MAX levels of nesting (of a line jansson's own limit holds, 2,048).
 *
 * Text that is no Unicode (bytes that are no UTF-8, an escaped half of a surrogate pair, an escaped NUL) makes an
 * object useless; with skip_bad_text set such objects are passed over and counted, else they are refused.
 */
#ifndef NEXUS_BASE_JSON_H
#define NEXUS_BASE_JSON_H

#include <jansson.h>
#include <stdbool.h>

#include "nexus/err.h"

#define NX_JSONL_FILE_MAX ((size_t)1 << 30)
#define NX_JSONL_LINE_MAX ((size_t)16 << 20)
#define NX_JSONL_DEPTH_MAX 64

struct nx_jsonl {
	const char *path;   /* borrowed */
	bool skip_bad_text; /* set after init */
	bool list;          /* one list, not lines */
	int line;           /* where the object begins that next returned, from 1 */
	int64_t entry;      /* its number, from 1; of lines too */
	int64_t n_bad_text; /* passed over */
	/* private */
	int fd;
	char *buf; /* [cap]; unread bytes are at .. end */
	size_t cap, at, end;
	int at_line; /* of buf[at] */
	bool eof, closed;
};

int nx_jsonl_init(struct nx_jsonl *r, const char *path, struct nx_err *err);
void nx_jsonl_release(struct nx_jsonl *r); /* of one whose init failed, too */
/* 1 and *out (the caller's, json_decref) for the next object. 0 at the end. Negative on failure; reading may
 * not go on then. */
int nx_jsonl_next(struct nx_jsonl *r, json_t **out, struct nx_err *err);
/* Fails with the place of the current object in front. */
NX_PRINTF(3, 4)
int nx_jsonl_fail(const struct nx_jsonl *r, struct nx_err *err, const char *fmt, ...);

/* "a string", "an object", ... for messages. */
const char *nx_json_kind(const json_t *v);

#endif
