/* SPDX-License-Identifier: Apache-2.0
 *
 * model/chat.h: the chat formats that are written out here instead of executing Jinja, and how a
 * template is recognised. Private to the tokenizer; nx_chat_render and nx_chat_format are in
 * tokenizer.h.
 *
 * Templates are compared without white space, quotes and line breaks, so that spelling does not
 * matter, except where spaces are the difference (Mistral).
 */
#ifndef NEXUS_MODEL_CHAT_H
#define NEXUS_MODEL_CHAT_H

#include <stdbool.h>
#include <stddef.h>

#include "nexus/err.h"

struct nx_tokenizer;

/* X(id, name, what renders it)
 *
 *   chatml       <|im_start|>role\ncontent<|im_end|>\n a turn. If the first turn is not "system"
 *                and the template holds a default system message as a literal (SmolLM2, Qwen2,
 *                Qwen2.5), that comes first. BOS if the template starts with it. Also without a
 *                template, where the two tokens exist.
 *   qwen3        ChatML without a default system message. Of earlier answers the part up to
 *                </think> is dropped; an answer after the last user turn keeps it, and gets an
 *                empty <think> block if it ends the conversation. enable_thinking is left at its
 *                default (on): no empty block in the generation prompt.
 *   llama-3      header ids, contents trimmed, BOS first. Where the template does not ask, the
 *                generation prompt is always there (its first release).
 *   llama-3.1    the same with a system turn always: cutting knowledge date, "Today Date:", then
 *                the system message. The date is the template's literal (26 Jul 2024), also in Llama 3.2, whose
 *                template takes the clock's where it can: prompts should not change with the day.
 *   llama-2      [INST] <<SYS>>, contents trimmed, BOS and EOS around each exchange. A later system
 *                turn, which the template leaves out without a word, is refused.
 *   mistral      [INST] of the first releases: no system turn.
 *   mistral-v1, mistral-v3, mistral-v3-tekken
 *                differ in spaces, trimming, and whether the system message goes before the first
 *                or the last user turn, which is read off the template.
 */
#define NX_CHAT_FORMATS(X)                                                                         \
	X(PLAIN, "plain", plain)                                                                   \
	X(CHATML, "chatml", chatml)                                                                \
	X(CHATML_LIKE, "chatml-like", chatml)                                                      \
	X(QWEN3, "qwen3", qwen3)                                                                   \
	X(LLAMA3, "llama-3", llama3)                                                               \
	X(LLAMA31, "llama-3.1", llama3)                                                            \
	X(LLAMA2, "llama-2", llama2)                                                               \
	X(MISTRAL, "mistral", mistral)                                                             \
	X(MISTRAL_V1, "mistral-v1", mistral)                                                       \
	X(MISTRAL_V3, "mistral-v3", mistral)                                                       \
	X(MISTRAL_TEKKEN, "mistral-v3-tekken", mistral)

enum nx_chat_id {
#define X(id, name, render) NX_CHAT_##id,
	NX_CHAT_FORMATS(X)
#undef X
};

struct nx_chat {
	enum nx_chat_id id;
	bool bos;           /* ChatML: BOS first */
	bool always_prompt; /* Llama 3: the generation prompt is not asked for */
	bool system_last;   /* Mistral: before the last user turn instead of the first */
	bool space_after;   /* mistral: "</s> " */
	char *system;       /* default system message, or NULL */
	char *date;         /* Llama 3.1 */
};

/* Fills t->chat from t's template and special tokens. */
int nx_chat_detect(struct nx_tokenizer *t, struct nx_err *err);
void nx_chat_release(struct nx_chat *c);

#endif
