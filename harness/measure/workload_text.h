/* SPDX-License-Identifier: Apache-2.0
 *
 * measure/workload_text.h: the texts of a workload file, tokenised when they are first used. Private.
 */
#ifndef NEXUS_MEASURE_WORKLOAD_TEXT_H
#define NEXUS_MEASURE_WORKLOAD_TEXT_H

#include "base/arena.h"
#include "model/tokenizer.h"

struct nx_tokens {
	int32_t *ids; /* malloc; NULL until needed */
	size_t n;
};

/* One line. A prompt is head + (part of) body + tail; a plain text's tail is empty. */
struct nx_prompt_text {
	int line;
	int32_t priority;
	const char *text;      /* plain text, or NULL */
	struct nx_turn *turns; /* conversation; the last is a user's */
	size_t n_turns;
	struct nx_tokens body;
	struct nx_tokens head, tail; /* with all turns before the last */
	struct nx_tokens short_head; /* conversation: with its system turn alone */
};

struct nx_prompt_file {
	const char *path; /* borrowed */
	struct nx_arena arena;
	struct nx_prompt_text *texts;
	size_t n, cap;
};

int nx_prompt_file_init(struct nx_prompt_file *f, const char *path, struct nx_err *err);
void nx_prompt_file_release(struct nx_prompt_file *f);
/* Each fills in what it names, once. */
int nx_prompt_body(struct nx_prompt_text *t, const struct nx_tokenizer *tok, struct nx_err *err);
int nx_prompt_frame(struct nx_prompt_text *t, const struct nx_tokenizer *tok, struct nx_err *err);
int nx_prompt_short_head(struct nx_prompt_text *t, const struct nx_tokenizer *tok,
                         struct nx_err *err);

#endif
