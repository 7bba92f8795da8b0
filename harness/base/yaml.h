/* SPDX-License-Identifier: Apache-2.0
 *
 * base/yaml.h: YAML 1.2 as a small tree in which every node knows its place.
 *
 * A subset, on purpose: one document, no anchors, aliases, merge keys or tags, keys are plain text and
 * unique within their mapping. At most NX_YAML_BYTES_MAX of text and NX_YAML_DEPTH_MAX levels. Scalars
 * keep their text; the typed getters below decide what it means, so `1` can be a number or a name.
 *
 * Errors are one sentence, `file:line:column: found X; legal: Y` and, when a known name is near,
 * `; did you mean "Z"`. Lines and columns count from 1, columns in characters. All memory is the arena's.
 */
#ifndef NEXUS_BASE_YAML_H
#define NEXUS_BASE_YAML_H

#include <stdbool.h>
#include <stdint.h>

#include "base/arena.h"

#define NX_YAML_BYTES_MAX ((size_t)1 << 20)
#define NX_YAML_DEPTH_MAX 32
#define NX_YAML_NODES_MAX 100000
#define NX_YAML_CHILDREN_MAX 10000 /* of a list */
#define NX_YAML_KEYS_MAX                                                                           \
	1000 /* of a mapping, in which each key is looked up among those before it */

enum nx_yaml_kind { NX_YAML_SCALAR, NX_YAML_LIST, NX_YAML_MAP };

struct nx_yaml {
	enum nx_yaml_kind kind;
	bool null;           /* an empty, `~` or `null` plain scalar */
	const char *text;    /* SCALAR; never NULL */
	const char *file;    /* as given to the parser */
	int line, column;    /* line 0: file alone says the place (a --set) */
	struct nx_yaml *key; /* the key's node where this is a mapping's value, else NULL */
	const char *
		label; /* what to call it: its key, in a list that of the list; "the file" at the top */
	struct nx_yaml *first, *last, *next; /* children in order; next of the same parent */
	size_t n;                            /* children */
};

/* name is shown as the file. On success *out is the top node. */
int nx_yaml_parse(struct nx_arena *a, const char *name, const char *text, size_t len,
                  struct nx_yaml **out, struct nx_err *err);

/* ---- building (for overrides) ----------------------------------------------------------------- */

/* A node at the place of like; text is borrowed. NULL when out of memory. */
struct nx_yaml *nx_yaml_node(struct nx_arena *a, enum nx_yaml_kind kind, const char *text,
                             const struct nx_yaml *like);
/* Appends; for a mapping, v->key is set before. */
void nx_yaml_append(struct nx_yaml *parent, struct nx_yaml *v);

/* ---- reading ---------------------------------------------------------------------------------- */

/* Fails with the node's place in front of the text. */
NX_PRINTF(4, 5)
int nx_yaml_fail(const struct nx_yaml *v, struct nx_err *err, int code, const char *fmt, ...);
/* `found X for label; legal: Y`, at the node's place. */
int nx_yaml_illegal(const struct nx_yaml *v, const char *legal, struct nx_err *err);
/* `found X for label; legal: a, b, c; did you mean "b"`. */
int nx_yaml_unknown(const struct nx_yaml *v, const char *const *names, size_t n,
                    struct nx_err *err);
/* "file:7:3" into buf; returns buf. */
const char *nx_yaml_place(const struct nx_yaml *v, char *buf, size_t size);

/* The value of a key, or NULL. v may be NULL or no mapping: NULL then. */
struct nx_yaml *nx_yaml_get(const struct nx_yaml *v, const char *key);
/* Refuses what is no mapping, and keys that are not among names. */
int nx_yaml_check_map(const struct nx_yaml *v, const char *const *names, size_t n,
                      struct nx_err *err);

/* Typed getters: 0 and *out, or a sentence at the node's place. */
int nx_yaml_text(const struct nx_yaml *v, const char *legal, const char **out, struct nx_err *err);
int nx_yaml_i32(const struct nx_yaml *v, int32_t min, int32_t max, int32_t *out,
                struct nx_err *err);
int nx_yaml_u64(const struct nx_yaml *v, uint64_t *out, struct nx_err *err);
int nx_yaml_double(const struct nx_yaml *v, double min, double max, double *out,
                   struct nx_err *err);
int nx_yaml_bool(const struct nx_yaml *v, bool *out, struct nx_err *err);
int nx_yaml_size(const struct nx_yaml *v, uint64_t *bytes, struct nx_err *err);
int nx_yaml_duration(const struct nx_yaml *v, double *seconds, struct nx_err *err);
/* *out is the index in names. */
int nx_yaml_choice(const struct nx_yaml *v, const char *const *names, size_t n, int *out,
                   struct nx_err *err);

#endif
