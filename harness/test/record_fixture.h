/* SPDX-License-Identifier: Apache-2.0
 *
 * record_fixture.h: a small sweep with known figures, for tests of the run file: two stacks, batch
 * sizes 1 and 8.
 *
 * cell 0: base, batch 1, 100 tok/s       cell 1: fast, batch 1, 120 tok/s
 * cell 2: base, batch 8, out of memory   cell 3: fast, batch 8, 300 tok/s
 */
#ifndef NEXUS_TEST_RECORD_FIXTURE_H
#define NEXUS_TEST_RECORD_FIXTURE_H

#include "record/run.h"

enum { FIXTURE_CELLS = 4, FIXTURE_ROUNDS = 6 };

struct fixture {
	char dir[64], output[128], parts[160];
	struct nx_fact facts[4];
	struct nx_named_stack stacks[2];
	struct nx_cell cells[FIXTURE_CELLS];
	struct nx_run_head head;
};

void fixture_init(struct fixture *f);    /* makes a folder of its own under /tmp */
void fixture_release(struct fixture *f); /* removes it */
/* A trial of the cell with noise of 0.2 % that depends on cell and round alone. Owns its arrays. */
void fixture_trial(const struct fixture *f, int cell, int round, struct nx_trial *t);
/* Opens the shards and writes all trials of rounds [0, rounds). */
struct nx_shards *fixture_fill(const struct fixture *f, int rounds);
/* The whole: fills and merges. */
void fixture_run(const struct fixture *f);
void fixture_put_file(const char *dir, const char *name, const char *data, size_t n);
int fixture_count_files(const char *dir,
                        const char *prefix); /* names that begin so; -1: no such folder */

#endif
