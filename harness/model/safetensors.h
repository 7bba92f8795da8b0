/* SPDX-License-Identifier: Apache-2.0
 *
 * model/safetensors.h: a reader of safetensors files (github.com/huggingface/safetensors), by read-only mmap.
 *
 * Layout: u64 length of the header (little-endian), a JSON object of that length, data. The file is untrusted:
 * before anything is handed out, the header's length and syntax, every type, shape and extent are checked, and that
 * no two tensors overlap. Holes between tensors are allowed. Types: F32, F16, BF16; a file with another one is
 * refused by name.
 *
 * Ownership: struct nx_safetensors owns the mapping and the tensors, which live until close. Threads: immutable
 * after open. A file that is truncated by somebody else while it is open raises SIGBUS.
 */
#ifndef NEXUS_MODEL_SAFETENSORS_H
#define NEXUS_MODEL_SAFETENSORS_H

#include <stddef.h>

#include "model/tensor.h"
#include "nexus/err.h"

#define NX_SAFETENSORS_HEADER_MAX ((size_t)64 << 20)

struct nx_safetensors;

int nx_safetensors_open(struct nx_safetensors **out, const char *path, struct nx_err *err);
void nx_safetensors_close(struct nx_safetensors *s); /* NULL is fine */

const char *nx_safetensors_path(const struct nx_safetensors *s);
uint64_t nx_safetensors_bytes(const struct nx_safetensors *s); /* of the file */

size_t nx_safetensors_count(const struct nx_safetensors *s);
/* In the header's order. dims are turned round: dims[0] is the innermost, which the file names last. */
const struct nx_tensor *nx_safetensors_at(const struct nx_safetensors *s, size_t i);

#endif
