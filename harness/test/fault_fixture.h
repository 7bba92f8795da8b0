/* SPDX-License-Identifier: Apache-2.0
 *
 * test/fault_fixture.h: what the tests of faults share: a sweep of many cheap trials, and a ledger that proves
 * that none of them is lost, none runs twice, and none changes once it is whole. Aborts the test on failure.
 */
#ifndef NEXUS_TEST_FAULT_FIXTURE_H
#define NEXUS_TEST_FAULT_FIXTURE_H

#include "cli_fixture.h"
#include "record/run.h"

/* Writes t.yaml: n_cells cells (even, up to 24) of a few ms each; more: further lines, such as "timeout: 2s\n". */
void fault_experiment(const struct cli *c, int n_cells, int rounds, const char *more);

void fault_clear(const struct cli *c); /* removes o.h5 and its shards */

/* Every shard that was ever seen whole. */
struct ledger {
	const struct cli *c;
	const char *out; /* "o.h5" */
	int n_cells, rounds;
	struct ledger_entry *entries;
	size_t n, cap;
};

struct tally {
	int n_rows, n_by_status[NX_STATUS_COUNT];
};

void ledger_init(struct ledger *l, const struct cli *c, const char *out, int n_cells, int rounds);
void ledger_release(struct ledger *l);
/* Nobody writes now. Each shard must open and be what it was before; none may be missing, unless
 * there is a run file; that must open. Enters new shards. */
void ledger_look(struct ledger *l);
/* The run file at the end: it opens; each cell has rounds 0.. once, all of them or up to a row that is
 * final; every row that was once whole is there unchanged; no shards and no temporaries are left. */
void ledger_finish(struct ledger *l, struct tally *t);

/* Goes on with the run, however far it came: --resume, or anew where there is nothing. Returns the exit
 * status; 0 at once when it has ended. */
int fault_resume(struct cli *c, const char *out);
/* "nexus: " sentences in the output of the last command. */
int fault_sentences(const struct cli *c);
/* A child of pid, or 0. */
pid_t fault_worker(pid_t pid);
void fault_sleep(double seconds);
double fault_now(void); /* monotonic seconds */
bool fault_long(void);  /* is NEXUS_TEST_LONG set? */

/* Mounts a tmpfs of so many KiB on the folder `name`, visible to this test and its children alone, and gone
 * with them. False, with the reason printed, where that is not permitted. */
bool fault_disk(const struct cli *c, const char *name, int kib);
void fault_disk_gone(const struct cli *c, const char *name); /* fine without one */
void fault_disk_resize(const struct cli *c, const char *name, int kib, bool readonly);

/* "LD_PRELOAD=... NX_FAULT_...", for cli_run: the k-th call on paths with `path` fails as `how` says; see
 * plugins/faulty_libc.c. Static storage. */
const char *fault_env(const struct cli *c, const char *path, int k, const char *how, bool sticky);
const char *fault_env_clock(const struct cli *c, long seconds);
long fault_count(const struct cli *c); /* calls counted since fault_env */

#endif
