/* SPDX-License-Identifier: Apache-2.0
 *
 * model/tensor.h: an encoded tensor of a file, whatever format the file has.
 *
 * Encodings are ggml's, and are called by the names and numbers that GGUF gives them; what a safetensors file
 * holds (F32, F16, BF16) is among them. Plain data: the reader that made a tensor owns it and what it
 * points to.
 */
#ifndef NEXUS_MODEL_TENSOR_H
#define NEXUS_MODEL_TENSOR_H

#include <stdint.h>

/* X(name, value in a GGUF file, elements a block, bytes a block): the tensor types that are read. */
#define NX_GGUF_TYPES(X)                                                                           \
	X(F32, 0, 1, 4)                                                                            \
	X(F16, 1, 1, 2)                                                                            \
	X(Q4_0, 2, 32, 18)                                                                         \
	X(Q4_1, 3, 32, 20)                                                                         \
	X(Q5_0, 6, 32, 22)                                                                         \
	X(Q5_1, 7, 32, 24)                                                                         \
	X(Q8_0, 8, 32, 34)                                                                         \
	X(Q4_K, 12, 256, 144)                                                                      \
	X(Q5_K, 13, 256, 176)                                                                      \
	X(Q6_K, 14, 256, 210)                                                                      \
	X(BF16, 30, 1, 2)

enum nx_gguf_type {
#define X(name, value, elems, bytes) NX_GGUF_##name = value,
	NX_GGUF_TYPES(X)
#undef X
};

struct nx_tensor {
	const char *name; /* NUL-terminated, no NUL inside */
	enum nx_gguf_type type;
	int n_dims;      /* 1..4 */
	int64_t dims[4]; /* dims[0] is the innermost (columns); unused ones are 1; all >= 1 */
	const void *
		data; /* GGUF: aligned to the file's alignment (a power of two >= 8); else unaligned */
	uint64_t bytes; /* extent of data */
};

/* "Q8_0"; NULL for a number that is not one of NX_GGUF_TYPES. */
const char *nx_gguf_type_name(int type);
int nx_gguf_block_elems(enum nx_gguf_type type);
int nx_gguf_block_bytes(enum nx_gguf_type type);

#endif
