/* SPDX-License-Identifier: Apache-2.0
 *
 * measure/workload_text.h: the texts of a workload file (workload_file.c), tokenised when they are first used
 * (workload_text.c). Private.
 */
#ifndef NEXUS_MEASURE_WORKLOAD_TEXT_H
#define NEXUS_MEASURE_WORKLOAD_TEXT_H

#include "base/arena.h"
#include "measure/experiment.h"
#include "model/tokenizer.h"

struct nx_tokens {
	int32_t *ids; /* malloc; NULL until needed */
	size_t n;
};

/* One entry. A prompt is head + (part of) body + tail; a plain text's tail is empty. */
struct nx_prompt_text {
	int line;
	int32_t priority;
	bool unfit;            /* the vocabulary lacks a byte of it, or the template refuses it */
	const char *text;      /* plain text, or NULL */
	struct nx_turn *turns; /* conversation */
	size_t n_turns;        /* up to the user turn that is asked; it is the last of them */
	size_t n_all;          /* with what follows it */
	struct nx_tokens body;
	struct nx_tokens head, tail; /* with all turns before the last */
	struct nx_tokens short_head; /* conversation: with its system turn alone */
	struct nx_tokens *contents;  /* [n_all], or NULL until needed */
};

struct nx_prompt_file {
	const char *path; /* borrowed */
	struct nx_arena arena;
	struct nx_prompt_text *texts;
	size_t n, cap;
	int64_t n_empty, n_bad_text; /* left out: nothing to ask; text that is no Unicode */
};

int nx_prompt_file_init(struct nx_prompt_file *f, const char *path, enum nx_turns turns,
                        struct nx_err *err);
void nx_prompt_file_release(struct nx_prompt_file *f);

/* Each fills in what it names, once. */
int nx_prompt_body(struct nx_prompt_text *t, const struct nx_tokenizer *tok, struct nx_err *err);
int nx_prompt_frame(struct nx_prompt_text *t, const struct nx_tokenizer *tok, struct nx_err *err);
int nx_prompt_short_head(struct nx_prompt_text *t, const struct nx_tokenizer *tok,
                         struct nx_err *err);

/* Body and frame: 1, or 0 where they cannot be made of this text (unfit is set), or negative. */
int nx_prompt_fits(struct nx_prompt_text *t, const struct nx_tokenizer *tok, struct nx_err *err);

/* Is turn i a user's that has a text? */
bool nx_prompt_asks(const struct nx_prompt_text *t, size_t i);
/* Tokens of the assistant's turn i; *n is 0 where there is none or it is empty. */
int nx_prompt_answer(struct nx_prompt_text *t, size_t i, const struct nx_tokenizer *tok, size_t *n,
                     struct nx_err *err);
/* The conversation up to user turn i, the generation prompt behind it; out->ids is the caller's (free). */
int nx_prompt_until(struct nx_prompt_text *t, size_t i, const struct nx_tokenizer *tok,
                    struct nx_tokens *out, struct nx_err *err);

#endif
