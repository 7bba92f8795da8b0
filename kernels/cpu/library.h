/* SPDX-License-Identifier: Apache-2.0
 *
 * library.h: oneDNN, or nothing. The one place that knows its C interface (2.6 and 3.x).
 *
 * Each thread of our pool runs serial products on a slice of the outputs, so OpenMP starts no threads of its
 * own, which would spin on our cores after each call.
 */
#ifndef NX_CPU_LIBRARY_H
#define NX_CPU_LIBRARY_H

#include <stddef.h>

#include "cpu/cpu.h"

struct library_weight;

/* "" when there is none. */
void library_name(char *dst, size_t bytes);
/* Makes the library's copy of W, unless it is there, and adds it to w->bytes. */
int library_prepare(struct cpu_dev *d, struct nx_weight *w, struct nx_err *err);
/* Bytes that such a copy would take; 0 when the library cannot say. */
uint64_t library_forecast(struct cpu_dev *d, int64_t n, int64_t k, enum nx_dtype dtype);
/* y = x W^T in f32 [m, n]; makes the copy if there is none. */
int library_linear(struct cpu_dev *d, struct nx_weight *w, int64_t m, const float *x, float *y,
                   struct nx_err *err);
/* Rows from which its products are faster than ours on this device; 0 = never. */
int32_t library_threshold(const struct cpu_dev *d);
void library_weight_destroy(struct library_weight *w);

#endif
