/* SPDX-License-Identifier: Apache-2.0
 *
 * measure/trace_internal.h: what the readers of a trace share. Private.
 */
#ifndef NEXUS_MEASURE_TRACE_INTERNAL_H
#define NEXUS_MEASURE_TRACE_INTERNAL_H

#include <stdbool.h>

#include "measure/trace.h"

#define NX_TRACE_TIME_MAX_S 4e9 /* on either side of zero: until 2096, in nanoseconds of 63 bits */

struct nx_trace_raw {
	int64_t time_ns; /* on the file's own clock */
	int32_t n_in, n_out;
	const uint64_t *blocks;
	uint32_t n_blocks;
};

struct nx_trace_rows {
	struct nx_trace_row *rows; /* malloc */
	size_t n, cap, n_left_out;
	int64_t first_ns, last_ns;
	bool begun; /* the two above are known */
};

/* Checks the order of times; leaves out rows of no output. The sentence in *why has no place. */
int nx_trace_add(struct nx_trace_rows *t, const struct nx_trace_raw *raw, struct nx_err *why);
int nx_trace_read_csv(const char *path, struct nx_trace_rows *t, struct nx_err *err);

/* Seconds or a date (see trace.h) to nanoseconds; scale_s is what a plain number counts. 0 or NX_EINVAL. */
int nx_trace_parse_time(const char *s, double scale_s, int64_t *ns);

#endif
