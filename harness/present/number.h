/* SPDX-License-Identifier: Apache-2.0
 *
 * present/number.h: numbers as people read them. Each function writes into buf and returns it; a
 * number that is missing (not finite) gives "", so that the caller says why.
 */
#ifndef NEXUS_PRESENT_NUMBER_H
#define NEXUS_PRESENT_NUMBER_H

#include <stddef.h>

#include "record/run.h"

/* Decimals that show v with `sig` significant digits; 0 when it has more digits before the point.
 * */
int nx_decimals(double v, int sig);
const char *nx_number_text(double v, int sig, char *buf, size_t size);
/* "412 [409, 415]", the interval to the value's last place; scale multiplies all three. */
const char *nx_estimate_text(const struct nx_estimate *e, double scale, int sig, char *buf,
                             size_t size);
/* "1.53 [1.50, 1.56]": two decimals, three near 1. */
const char *nx_ratio_text(const struct nx_estimate *e, char *buf, size_t size);
/* "4571 GB/s", "808 TFLOP/s": unit is "B/s" or "FLOP/s" */
const char *nx_rate_text(double per_s, const char *unit, char *buf, size_t size);
/* "412 MiB" */
const char *nx_size_text(double bytes, char *buf, size_t size);
/* "MiB" and how many bytes it is, fit for figures up to `most`. */
const char *nx_size_unit(double most, double *bytes);

#endif
