/* SPDX-License-Identifier: Apache-2.0
 *
 * measure/workload.h: from a file of prompts, or from nothing, to the requests of a trial.
 *
 * The file is JSON lines or one JSON list (see base/json.h: a stream, up to 1 GiB; what stays in memory is the texts
 * once, and the tokens of those that were used). An entry holds one of
 *     {"text": "..."}    {"prompt": "..."}    {"turns": [{"role": "user", "content": "..."}, ...]}
 * "messages" (OpenAI) and "conversations" (ShareGPT) are other names of "turns", "from" and "value" others of "role"
 * and "content". An entry may also say {"priority": 3}; other keys are left alone. Roles are system, user and
 * assistant; ShareGPT's human is user, and gpt, chatgpt, bing and bard are assistant.
 * What follows the last user turn that has a text is not part of a prompt, since the model is to answer there.
 * Entries without such a turn, and those whose text is no Unicode, are left out and counted (nx_workload_note);
 * all else that is wrong refuses the file, with its place. Texts that hold a byte the vocabulary lacks, or that the
 * chat template refuses, are passed over when their turn comes.
 *
 * `turns` says which requests a conversation makes: `last` one, up to its last user turn; `first` one, up to its first
 * one (what serving benchmarks sample from ShareGPT); `all` one a user turn, see Sessions.
 *
 * Lengths that are drawn, or a trace's. Every prompt has exactly the tokens that were drawn for it:
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
 * Shared begins (nx_dist.shared of the prompts' lengths): the first tokens of a prompt, that share of them, are those
 * of its group; request i is in group i modulo `groups`. A group has one long begin, of which each prompt takes what
 * its own length says; texts give it from the end of the shuffled order. What follows is what the prompt would have
 * there if nothing were shared. A chat template's parts are never cut: prompts have the short frame, its head counts
 * as shared, its tail stays.
 * A trace's lengths go to requests in its order, from its first row, in every round: request i has row i. Behind its
 * last row it begins again, its times one mean gap later.
 *
 * Lengths of the data (`dataset`). A prompt is the whole text or conversation, neither cut nor continued; an output
 * has as many tokens as the assistant's turn that follows. Entries are taken in the shuffled order, each once; left
 * out are those with a length outside [min, max] (4 and 1,024 unless the experiment says otherwise), those without an
 * answer where outputs are asked for, and those whose prompt came already. Too few that are left are an error. vLLM's
 * ShareGPT sampling keeps 4 and more tokens on each side, prompts up to 1,024 and sums up to 2,048; here each side has
 * its own limit. With a drawn prompt and the data's output, texts are cut and come again as above.
 *
 * Sessions (`turns: all`). The user turns of a conversation become requests in their order. The prompt of each is the
 * conversation up to it, the file's answers included (not the model's), through the template; contents and what the
 * template puts between them are tokenised apart, so that a prompt begins with the tokens of the prompt before it,
 * where the template writes earlier turns as it wrote the last one (ChatML does). A request arrives when the one
 * before it in its session is done (nx_request.after) and a place is free. Sessions stand one behind the other in the
 * array, so a freed place goes on with the session that freed it, before one that has not begun: as many clients as
 * the batch size, each with one conversation at a time and no time to think. A user turn that `dataset` leaves out for
 * being short, or for its answer, stays in the later prompts; a prompt that is too long ends its session. The last
 * session of a trial ends where the requests do.
 * `answers: file`: the file's answers are also the outputs, fed in place of what the model draws (nx_request.force),
 * so that the rows of an output are those that the next prompt begins with: what a server has that goes on from its own
 * answers. The last output of a session is drawn.
 *
 * Random tokens (`prompts: random`). Each token is drawn from all of the vocabulary but control tokens and ends of
 * generation, where there is a tokenizer; keyed by (seed, round, request). No BOS. Where the trace has hash_ids, equal
 * blocks get equal tokens, keyed by (seed, round, id) instead: prompts then share prefixes as the service's did, and
 * need not differ.
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

/* Reads and checks spec->prompts. Borrows tokenizer until close; spec is copied, but for its strings and trace. A
 * model without a tokenizer (NULL) gets random tokens alone, of [0, vocab). */
int nx_workload_open(struct nx_workload **out, const struct nx_workload_spec *spec,
                     const struct nx_tokenizer *tokenizer, int32_t vocab, struct nx_err *err);
void nx_workload_close(struct nx_workload *w); /* NULL is fine */

/* The requests of cell in round, id 0 .. num_requests - 1. Releases what the set held before. On failure
 * the set is empty. */
int nx_workload_requests(struct nx_workload *w, const struct nx_cell *cell, int32_t round,
                         struct nx_request_set *out, struct nx_err *err);
void nx_request_set_release(struct nx_request_set *s);

/* Texts of the file; 0 with random tokens. */
size_t nx_workload_count(const struct nx_workload *w);
/* How many entries of the file were left out when it was read, and why, or "" when none was; returns buf. */
const char *nx_workload_note(const struct nx_workload *w, char *buf, size_t size);
/* The largest prompt + output that any round of the cell can ask for [tokens]. */
int32_t nx_cell_longest(const struct nx_cell *cell);

#endif
