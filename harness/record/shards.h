/* SPDX-License-Identifier: Apache-2.0
 *
 * record/shards.h: what merge.c needs of shards.c. Internal to record/.
 */
#ifndef NEXUS_RECORD_SHARDS_H
#define NEXUS_RECORD_SHARDS_H

#include "record/run.h"

struct nx_shards {
	char dir[1200];
	int lock_fd;
	bool locked;            /* by us */
	bool merged;            /* see nx_shards_merged */
	struct nx_fact *forced; /* changes that --force let through */
	size_t n_forced;
	char note[1600], first_damaged[64];
	int n_damaged;
	size_t n_counted;
};

/* Makes the directory and locks it, or says who has locked it. */
int nx_shards_lock(struct nx_shards *s, struct nx_err *err);
/* *out = head with the facts of forced changes added; release out->facts with free(). */
int nx_shards_head(const struct nx_shards *s, const struct nx_run_head *head,
                   struct nx_run_head *out, struct nx_err *err);
/* The rounds of a cell that have a shard, ascending; release with free(). */
int nx_shards_rounds(const struct nx_shards *s, const char *cell, int32_t **rounds, size_t *n,
                     struct nx_err *err);
#endif
