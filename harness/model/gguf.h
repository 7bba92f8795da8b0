/* SPDX-License-Identifier: Apache-2.0
 *
 * model/gguf.h: a reader of GGUF files (versions 2 and 3, little-endian), by read-only mmap.
 *
 * The file is untrusted input. nx_gguf_open checks every offset, count, length, type, alignment,
 * product of dimensions and tensor extent before anything is handed out, so whatever a getter
 * returns lies inside the mapping. Contents (a token's text, a weight) are not judged here.
 *
 * Ownership: struct nx_gguf owns the mapping. Every pointer that a getter returns points into it or
 * into memory of struct nx_gguf and lives until nx_gguf_close.
 * Threads: immutable after open; any number of threads may read.
 * Limits: 65,536 tensors, 65,536 keys, 4 dimensions, arrays of scalars or strings (no nested ones).
 * A file that is truncated by somebody else while it is open raises SIGBUS, as with any mapping.
 */
#ifndef NEXUS_MODEL_GGUF_H
#define NEXUS_MODEL_GGUF_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "model/tensor.h"
#include "nexus/err.h"

/* Types of metadata values, numbered as in the file. */
enum nx_gguf_value_type {
	NX_GGUF_V_U8 = 0,
	NX_GGUF_V_I8,
	NX_GGUF_V_U16,
	NX_GGUF_V_I16,
	NX_GGUF_V_U32,
	NX_GGUF_V_I32,
	NX_GGUF_V_F32,
	NX_GGUF_V_BOOL,
	NX_GGUF_V_STRING,
	NX_GGUF_V_ARRAY,
	NX_GGUF_V_U64,
	NX_GGUF_V_I64,
	NX_GGUF_V_F64
};

/* A string of the file: not NUL-terminated, may hold any byte. */
struct nx_gguf_str {
	const char *s;
	size_t len;
};

/* An array value. Scalars are packed and may be unaligned: use the element getters. */
struct nx_gguf_array {
	enum nx_gguf_value_type type; /* of the elements; never NX_GGUF_V_ARRAY */
	uint64_t n;
	const void *data;               /* scalars: packed little-endian; strings: NULL */
	const struct nx_gguf_str *strs; /* strings: n of them; scalars: NULL */
};

struct nx_gguf;

/* Opens and checks path. On success *out is the caller's, to be closed. */
int nx_gguf_open(struct nx_gguf **out, const char *path, struct nx_err *err);
void nx_gguf_close(struct nx_gguf *g); /* NULL is fine */

const char *nx_gguf_path(const struct nx_gguf *g);
uint32_t nx_gguf_version(const struct nx_gguf *g);
uint64_t nx_gguf_file_bytes(const struct nx_gguf *g);

/* NULL if there is no tensor of that name. */
const struct nx_tensor *nx_gguf_tensor(const struct nx_gguf *g, const char *name);
int64_t nx_gguf_n_tensors(const struct nx_gguf *g);
const struct nx_tensor *nx_gguf_tensor_at(const struct nx_gguf *g, int64_t i); /* file order */

/* Typed getters: 1 when the key is there and *out is set, 0 when there is no such key (*out is
 * untouched), or NX_EFORMAT with a sentence when its type or value is another. u32 takes any integer
 * type whose value fits. */
int nx_gguf_get_u32(const struct nx_gguf *g, const char *key, uint32_t *out, struct nx_err *err);
int nx_gguf_get_f32(const struct nx_gguf *g, const char *key, float *out, struct nx_err *err);
int nx_gguf_get_bool(const struct nx_gguf *g, const char *key, bool *out, struct nx_err *err);
int nx_gguf_get_str(const struct nx_gguf *g, const char *key, struct nx_gguf_str *out,
                    struct nx_err *err);
int nx_gguf_get_array(const struct nx_gguf *g, const char *key, enum nx_gguf_value_type elem_type,
                      struct nx_gguf_array *out, struct nx_err *err);

/* Element i of an array of I32 or U32 (as i32 bits), or of F32. */
int32_t nx_gguf_array_i32(const struct nx_gguf_array *a, uint64_t i);
float nx_gguf_array_f32(const struct nx_gguf_array *a, uint64_t i);

#endif
