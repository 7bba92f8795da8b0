/* SPDX-License-Identifier: Apache-2.0
 *
 * measure/workload_build.h: what the files that build requests share. Private.
 *
 * workload.c          life, random tokens, what all kinds have in common
 * workload_drawn.c    prompts of lengths that are drawn, or a trace's, cut from texts
 * workload_dataset.c  prompts as they are in the file; sessions
 */
#ifndef NEXUS_MEASURE_WORKLOAD_BUILD_H
#define NEXUS_MEASURE_WORKLOAD_BUILD_H

#include "base/hash.h"
#include "measure/workload.h"
#include "measure/workload_text.h"

/* Streams of random numbers drawn from one seed. */
enum nx_draw {
	NX_DRAW_ORDER = 1,
	NX_DRAW_PROMPT_LEN,
	NX_DRAW_OUTPUT_LEN,
	NX_DRAW_SAMPLER,
	NX_DRAW_START,
	NX_DRAW_TOKENS,
	NX_DRAW_BLOCK,
	NX_DRAW_GROUP
};
#define NX_START_TRIES 64

struct nx_workload {
	struct nx_workload_spec spec;
	const struct nx_tokenizer *tok; /* may be NULL with random tokens */
	struct nx_prompt_file file;     /* empty with random tokens */
	struct nx_tokens gap;           /* between texts of one prompt */
	uint32_t *order;                /* [file.n], of the round that is built */
	int32_t *allowed;               /* [n_allowed] what random tokens are drawn from */
	size_t n_allowed;
};

/* Hashes of the prompts so far; 0 is an empty place. */
struct nx_seen {
	uint64_t *slots;
	size_t mask;
};
/* False when it was there. */
bool nx_seen_add(struct nx_seen *s, const int32_t *ids, size_t n);

/* A set that is being built. set->n and set->n_tokens count what is done. */
struct nx_build {
	struct nx_workload *w;
	const struct nx_cell *cell;
	struct nx_request_set *set;
	size_t want; /* requests */
	size_t cap_tokens;
	struct nx_seen seen;
	/* Where prompts share their begins: what is shared, of prompts of any length, and for how many of its first
	 * tokens it is a template's. */
	int32_t *common; /* [n_groups, seq_len.max] */
	size_t n_groups, *common_head;
};

/* Room for a prompt of n tokens behind those that are done, or NULL and *err. */
int32_t *nx_build_room(struct nx_build *b, size_t n, struct nx_err *err);
/* The next request, whose n_prompt tokens were just written there. */
struct nx_request *nx_build_add(struct nx_build *b, size_t n_prompt, int32_t max_out);
/* Lengths of request i, where they are drawn or a trace's. */
int32_t nx_build_prompt_len(const struct nx_build *b, size_t i);
int32_t nx_build_output_len(const struct nx_build *b, size_t i);

/* How many of the n tokens of a prompt are its group's. */
size_t nx_build_shared(const struct nx_build *b, size_t n);
/* Begin of the group of request i. */
const int32_t *nx_build_common(const struct nx_build *b, size_t i);

int nx_build_drawn(struct nx_build *b, struct nx_err *err);
int nx_build_dataset(struct nx_build *b, struct nx_err *err);
/* Has the entry an answer of a length that counts? *out is its length then, else 0. Where outputs are not the
 * data's, *out is what was drawn for the next request. */
int nx_build_answer(struct nx_build *b, struct nx_prompt_text *t, size_t question, int32_t *out,
                    struct nx_err *err);

#endif
