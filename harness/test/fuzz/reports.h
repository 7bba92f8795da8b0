/* SPDX-License-Identifier: Apache-2.0
 *
 * fuzz/reports.h: all that a run file is read for.
 */
#ifndef NEXUS_TEST_FUZZ_REPORTS_H
#define NEXUS_TEST_FUZZ_REPORTS_H

#include "record/run.h"

/* Writes every report of the run; each must succeed or say why not. */
void fuzz_reports(const struct nx_run *run);

/* HDF5 gives back a megabyte for each table that it has read; under a sanitizer that is most of the time. */
void fuzz_keep_hdf5_buffers(void);

#endif
