/* SPDX-License-Identifier: Apache-2.0
 *
 * nexus_kernels/rows.h: how the fields of struct nx_rows are read, said once for all backends.
 */
#ifndef NEXUS_KERNELS_ROWS_H
#define NEXUS_KERNELS_ROWS_H

#include <stdbool.h>
#include <stdint.h>

#include "nexus/device.h"

#if defined(__CUDACC__)
#define NX_ROWS_FN static __host__ __device__ inline
#else
#define NX_ROWS_FN static inline
#endif

/* CANDIDATE and PROBE rows live in scratch rows and see their ancestors there. */
NX_ROWS_FN bool nx_row_in_scratch(int32_t kind)
{
	return kind == NX_ROW_CANDIDATE || kind == NX_ROW_PROBE;
}

/*
 * Keys that a row reads through the block table, slots [0, result). A drafted row reads n_anc more from
 * scratch. Its slot is its place in KV order, so the table part ends where its ancestors begin: slot + 1 - n_anc.
 * That counts the root, a COMMIT row of the same step in slot `len`; with slot_off 0 it is `len` itself.
 */
NX_ROWS_FN int32_t nx_row_table_keys(int32_t kind, int32_t len, int32_t slot_off, int32_t n_anc)
{
	if (!nx_row_in_scratch(kind))
		return len + slot_off + 1;
	return slot_off + 1 > n_anc ? len + slot_off + 1 - n_anc : len;
}

#endif
