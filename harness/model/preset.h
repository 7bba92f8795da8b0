/* SPDX-License-Identifier: Apache-2.0
 *
 * model/preset.h: shapes of well-known models, for runs with random weights: speed and memory depend on the shape
 * alone.
 */
#ifndef NEXUS_MODEL_PRESET_H
#define NEXUS_MODEL_PRESET_H

#include <stddef.h>

#include "model/rope.h"
#include "model/shape.h"

struct nx_preset {
	const char *name; /* "llama-7b" */
	const char *arch;
	const char *about; /* whose shape it is */
	struct nx_shape shape;
	struct nx_rope rope;
};

size_t nx_preset_count(void);
const struct nx_preset *nx_preset_at(size_t i); /* NULL beyond the last */
const struct nx_preset *nx_preset_find(const char *name);

#define NX_PRESET_SEED 1u /* of models that are opened by a preset's name */

/* Fills dst [n, cols] with rows [row0, row0 + n) of a random matrix: each element is a pure function of (seed,
 * matrix, layer, row, column), uniform with mean 0 and standard deviation std. */
void nx_random_rows(uint64_t seed, uint32_t matrix, int32_t layer, int64_t row0, int64_t n,
                    int64_t cols, float std, float *dst);
/* The same in two parts, for devices that make the elements themselves: nx_random_element(key of the row, column,
 * scale) of nexus_kernels/rng.h. */
uint64_t nx_random_row_key(uint64_t seed, uint32_t matrix, int32_t layer, int64_t row);
float nx_random_scale(float std);

#endif
