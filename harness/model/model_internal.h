/* SPDX-License-Identifier: Apache-2.0
 *
 * model/model_internal.h: what model.c and model_shape.c share. Private.
 */
#ifndef NEXUS_MODEL_MODEL_INTERNAL_H
#define NEXUS_MODEL_MODEL_INTERNAL_H

#include "model/gguf.h"
#include "model/shape.h"

/* Refuses by name other architectures, and what changes the result and is not computed here. */
int nx_model_check_arch(const struct nx_gguf *g, struct nx_err *err);

/* Reads and checks all of *s but vocab and tied. */
int nx_model_read_shape(const struct nx_gguf *g, struct nx_shape *s, struct nx_err *err);

/* Reads an integer and checks its range. Without required, a missing key leaves *out as it is. */
int nx_model_read_i32(const struct nx_gguf *g, const char *key, bool required, int32_t lo,
                      int32_t hi, int32_t *out, struct nx_err *err);

#endif
