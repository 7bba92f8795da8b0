/* SPDX-License-Identifier: Apache-2.0
 *
 * test/prefix_model.h: a prefix cache held against the simplest one that could be: a list of prefixes. The model is
 * the engine that the cache sees (a pool of blocks with counts, sequences with tables, events) and, beside it, the
 * list, searched from end to end for everything. Each block remembers the tokens that its rows were computed from,
 * all of them from position 0 on, so a hit that is not one is found out whatever led to it.
 *
 * After every operation as many blocks are held as the list has prefixes, counts of the pool add up, and what running
 * sequences have in their tables is theirs; every match is the list's; now and then all of the list is asked for.
 */
#ifndef NEXUS_TEST_PREFIX_MODEL_H
#define NEXUS_TEST_PREFIX_MODEL_H

#include "engine/registry.h"

#define PM_LEN 40    /* most tokens of a sequence */
#define PM_PLACES 6  /* sequences at a time */
#define PM_WAITING 6 /* preempted ones */
#define PM_BLOCKS 512

enum pm_policy { PM_LRU, PM_LFU, PM_FIFO };

struct pm_config {
	const struct nx_technique *t;
	const char *values;    /* "key=value,key=value" */
	enum pm_policy policy; /* as in values */
	int32_t block_size;
	int32_t pool_blocks; /* of the layout; 0 = contiguous: the cache has a pool of its own */
	int32_t max_entries; /* blocks that it may keep, as in values */
	int32_t letters;     /* tokens are drawn from so many: few letters, long shared prefixes */
	uint64_t seed;
};

struct pm_block {
	int32_t refs, holds; /* tables and holds; of these, holds */
	int32_t n;           /* tokens before its end */
	int32_t tokens[PM_LEN];
};

struct pm_seq {
	bool live, ended; /* ended: done, but its place is still taken */
	bool swapped;     /* waiting: its rows are in host memory */
	uint32_t request;
	int32_t n_tokens, len; /* known tokens; rows that are committed */
	int32_t tokens[PM_LEN];
	int32_t n_table, table[PM_LEN]; /* block ids; none over a contiguous layout */
	int32_t n_published;
	int32_t depth; /* blocks of the list that it counts in */
};

struct pm_entry {
	int32_t n; /* tokens */
	int32_t tokens[PM_LEN];
	uint64_t born, used, uses;
};

struct pm {
	struct pm_config c;
	struct nx_host host;
	struct nx_value values[16];
	void *self;
	size_t live_bytes;
	uint64_t rng;
	struct pm_block blocks[PM_BLOCKS];
	int32_t n_blocks; /* that can be held: the layout's, or the cache's own */
	struct pm_seq seqs[PM_PLACES], waiting[PM_WAITING];
	struct pm_entry list[PM_BLOCKS];
	int32_t n_list;
	struct pm_seq asked; /* of the latest match */
	uint64_t clock;
	uint32_t n_requests;
	/* What happened, so that a test can see that it did. */
	int64_t n_hits, n_evicted, n_refused, n_forks, n_preempted, n_failed, n_taken_over;
};

void pm_open(struct pm *m, const struct pm_config *c);
/* n random operations, each followed by the checks above. */
void pm_run(struct pm *m, int32_t n);
/* All sequences end; nothing is in use any more; everything can be evicted; nothing is left allocated. */
void pm_close(struct pm *m);
/* Prints the least time of each hook for 2,048 tokens; host work alone. For whoever sets NEXUS_TEST_COST. */
void pm_costs(const struct nx_technique *t, int32_t block_size);
/* Prints ratios of processor time on nano: first token with nine tenths of a prompt cached, and nothing shared. */
void pm_engine_costs(void);
double pm_counter(const struct pm *m, const char *name);

#endif
