/* SPDX-License-Identifier: Apache-2.0
 *
 * model/gguf_internal.h: what gguf.c (parsing) and gguf_get.c (getters) share. Private.
 */
#ifndef NEXUS_MODEL_GGUF_INTERNAL_H
#define NEXUS_MODEL_GGUF_INTERNAL_H

#include "model/gguf.h"
#include "model/strmap.h"

struct nx_gguf_kv {
	char *name;  /* NUL-terminated copy */
	uint64_t at; /* byte offset of the value in the file */
	enum nx_gguf_value_type type;
	const uint8_t *scalar; /* unaligned, in the mapping */
	struct nx_gguf_str str;
	struct nx_gguf_array arr;
	struct nx_gguf_str *strs; /* owned; arr.strs */
};

struct nx_gguf {
	char *path;
	const uint8_t *base;
	size_t size;
	uint32_t version;
	uint32_t alignment;
	struct nx_gguf_kv *kvs;
	uint64_t n_kvs;
	struct nx_tensor *tensors;
	uint64_t n_tensors;
	struct nx_strmap kv_by_name, tensor_by_name;
};

const struct nx_gguf_kv *nx_gguf_find_kv(const struct nx_gguf *g, const char *key);

/* "u32"; "unknown" for a number that is not a value type. */
const char *nx_gguf_value_type_name(uint32_t type);
/* Bytes of a scalar; 0 for strings, arrays and unknown types. */
size_t nx_gguf_value_bytes(uint32_t type);

#endif
