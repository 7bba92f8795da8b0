/* SPDX-License-Identifier: Apache-2.0
 *
 * base/json.h: JSON-lines files with places in their errors, over jansson.
 *
 * Sentences begin with `file:line:` or `file:line:column:`. Duplicate keys are refused.
 */
#ifndef NEXUS_BASE_JSON_H
#define NEXUS_BASE_JSON_H

#include <jansson.h>

#include "base/arena.h"

#define NX_JSONL_FILE_MAX ((size_t)256 << 20)
#define NX_JSONL_LINE_MAX ((size_t)4 << 20)

struct nx_jsonl {
	const char *path;      /* borrowed */
	struct nx_arena arena; /* holds the file */
	const char *at, *end;
	int line; /* of the value that next returned, from 1 */
};

int nx_jsonl_init(struct nx_jsonl *r, const char *path, struct nx_err *err);
void nx_jsonl_release(struct nx_jsonl *r);
/* 1 and *out (the caller's, json_decref) for the next line that is not blank; it is an object. 0 at the
 * end. Negative on failure; reading may not go on then. */
int nx_jsonl_next(struct nx_jsonl *r, json_t **out, struct nx_err *err);
/* Fails with the place of the current line in front. */
NX_PRINTF(3, 4)
int nx_jsonl_fail(const struct nx_jsonl *r, struct nx_err *err, const char *fmt, ...);

/* "a string", "an object", ... for messages. */
const char *nx_json_kind(const json_t *v);

#endif
