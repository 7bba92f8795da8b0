/* SPDX-License-Identifier: Apache-2.0 */
/* The input is a run file, or a shard of one: what `report` reads, and all that it writes then. HDF5 is part of what is
 * tried; the known weaknesses of its releases are in README.md. */
#include "fuzz/fuzz.h"
#include "fuzz/reports.h"

FUZZ_TARGET(run_file)
{
	const char *path = fuzz_file("in.h5", data, size);
	struct nx_err err = {0};
	struct nx_run *run = NULL;
	struct nx_trial trial = {0};
	fuzz_keep_hdf5_buffers();
	if (fuzz_told(nx_run_read(&run, path, &err), &err))
		fuzz_reports(run);
	nx_run_destroy(run);
	if (fuzz_told(nx_shard_read_file(path, &trial, &err), &err))
		nx_trial_release(&trial);
	return 0;
}
