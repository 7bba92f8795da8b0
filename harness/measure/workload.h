/* SPDX-License-Identifier: Apache-2.0
 *
 * measure/workload.h: from a file of prompts to the requests of a trial.
 *
 * The file is JSON lines; a line holds one of
 *     {"text": "..."}    {"prompt": "..."}    {"turns": [{"role": "user", "content": "..."}, ...]}
 * ("messages" is another name of "turns") and, if it likes, {"priority": 3}; other keys are left alone.
 * Roles are system, user and assistant; assistant turns at the end are dropped, since the model is to
 * answer, and what then comes last is a user's.
 *
 * Every prompt has exactly the tokens that were drawn for it:
 *   - Texts are taken in an order shuffled by (seed, round). A text is cut to its first tokens. BOS, where
 *     the model asks for it, counts.
 *   - A conversation goes through the chat template. Its last content is what is cut, so that the template's
 *     tail (the generation prompt) stays. Where earlier turns leave no room, only a system turn and the last
 *     user's are kept. Where the template alone is longer than the prompt, that is an error.
 *   - What is too short is continued with "\n\n" and the next texts (of conversations: their last content)
 *     of the shuffled order, round and round.
 *   - Parts are tokenised apart, so a text can be cut and continued without another tokenisation of the rest.
 * With more requests than texts, texts come again from a random start inside them: all prompts of a trial
 * differ, or that is an error.
 *
 * All depends on (seed, round, index of the request) alone, lengths too: stacks and batch sizes get the
 * same requests, the smaller batch a prefix of them (for the same lengths).
 *
 * Threads: one at a time; a workload keeps tokenised texts.
 */
#ifndef NEXUS_MEASURE_WORKLOAD_H
#define NEXUS_MEASURE_WORKLOAD_H

#include "engine/engine.h"
#include "measure/experiment.h"

struct nx_tokenizer;
struct nx_workload;

/* The requests of one trial. Init with {0}. reqs and what they point to belong to the set until
 * nx_request_set_release; they do not need the workload any more. */
struct nx_request_set {
	struct nx_request *reqs;
	size_t n;
	int32_t *tokens; /* all prompts, one after another */
	uint64_t n_tokens;
	uint64_t order_seed, length_seed, sampler_seed; /* of this round, for the record */
	int32_t longest; /* largest prompt + output of the set [tokens] */
};

/* Reads and checks spec->prompts. Borrows tokenizer until close; spec is copied, but for its strings. */
int nx_workload_open(struct nx_workload **out, const struct nx_workload_spec *spec,
                     const struct nx_tokenizer *tokenizer, struct nx_err *err);
void nx_workload_close(struct nx_workload *w); /* NULL is fine */

/* The requests of cell in round, id 0 .. num_requests - 1. Releases what the set held before. On failure
 * the set is empty. */
int nx_workload_requests(struct nx_workload *w, const struct nx_cell *cell, int32_t round,
                         struct nx_request_set *out, struct nx_err *err);
void nx_request_set_release(struct nx_request_set *s);

/* Texts of the file. */
size_t nx_workload_count(const struct nx_workload *w);
/* The largest prompt + output that any round of the cell can ask for [tokens]. */
int32_t nx_cell_longest(const struct nx_cell *cell);

#endif
