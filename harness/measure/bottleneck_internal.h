/* SPDX-License-Identifier: Apache-2.0
 *
 * measure/bottleneck_internal.h: what the two files of the classifier share. Private.
 */
#ifndef NEXUS_MEASURE_BOTTLENECK_INTERNAL_H
#define NEXUS_MEASURE_BOTTLENECK_INTERNAL_H

#include "measure/bottleneck.h"
#include "nexus/err.h"

/* Appends to a sentence; what does not fit is cut. */
NX_PRINTF(3, 4) void nx_sentence_add(char *buf, size_t size, const char *fmt, ...);
/* Fills helps and techniques from the bound. */
void nx_bottleneck_help(const struct nx_bound_figures *f, struct nx_bottleneck *b);

#endif
