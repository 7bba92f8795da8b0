/* SPDX-License-Identifier: Apache-2.0
 *
 * model/tokenizer.h: byte-level BPE, built from a GGUF file's metadata.
 *
 * decode(encode(x)) == x for any bytes x, broken UTF-8 included: a byte that is not part of a valid
 * sequence becomes that byte's own token. A vocabulary may lack bytes (SmolLM2's lacks 21 that hardly
 * occur: some control characters, and bytes of no character); text that holds one is refused with
 * NX_EINVAL and a sentence that names it. Hugging Face drops it silently.
 *
 * Control tokens (<|im_start|>) in text are text unless NX_TOK_PARSE_SPECIAL is given; user-defined
 * tokens always match, as in Hugging Face and llama.cpp. No Unicode normalisation is done.
 *
 * Pre-tokenizers by tokenizer.ggml.pre: see NX_PRETOKENIZERS in pretokenize.h.
 * Ownership: the tokenizer copies all it needs from the file. Threads: const use is thread-safe.
 */
#ifndef NEXUS_MODEL_TOKENIZER_H
#define NEXUS_MODEL_TOKENIZER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "nexus/err.h"

struct nx_gguf;
struct nx_tokenizer;

enum nx_tokenizer_flags {
	NX_TOK_PARSE_SPECIAL = 1u << 0, /* control tokens written in the text become their ids */
	NX_TOK_ADD_BOS = 1u << 1        /* put BOS first if the file asks for it (add_bos) */
};

int nx_tokenizer_create(struct nx_tokenizer **out, const struct nx_gguf *g, struct nx_err *err);
void nx_tokenizer_destroy(struct nx_tokenizer *t); /* NULL is fine */

/* *ids_out is the caller's, to be released with free(); never NULL on success, also for no ids. */
int nx_tokenizer_encode(const struct nx_tokenizer *t, const char *text, size_t len, unsigned flags,
                        int32_t **ids_out, size_t *n_out, struct nx_err *err);

/* *out is the caller's, to be released with free(); NUL-terminated after *len_out bytes, and may
 * hold NULs. One token may be part of a character. Control tokens come out as their text. */
int nx_tokenizer_decode(const struct nx_tokenizer *t, const int32_t *ids, size_t n, char **out,
                        size_t *len_out, struct nx_err *err);

/* The bytes of one token, owned by the tokenizer; NULL if id is out of range. */
const char *nx_tokenizer_piece(const struct nx_tokenizer *t, int32_t id, size_t *len_out);

/* Ids of special tokens; -1 when the model has none. */
int32_t nx_tokenizer_bos(const struct nx_tokenizer *t);
int32_t nx_tokenizer_eos(const struct nx_tokenizer *t);

/* End of a turn: eot_token_id of the file, else <|im_end|>, else <|eot_id|>, else -1. */
int32_t nx_tokenizer_eot(const struct nx_tokenizer *t);

bool nx_tokenizer_add_bos(const struct nx_tokenizer *t);

/* Ends a generation: EOS, EOT, <|endoftext|>, <|end_of_text|> or <|eom_id|>. */
bool nx_tokenizer_is_eog(const struct nx_tokenizer *t, int32_t id);

bool nx_tokenizer_is_control(const struct nx_tokenizer *t, int32_t id);

int32_t nx_tokenizer_vocab(const struct nx_tokenizer *t);
const char *nx_tokenizer_pre(const struct nx_tokenizer *t); /* name of the pre-tokenizer */

/* The id of the token with exactly these bytes (control tokens: their text), or -1. */
int32_t nx_tokenizer_find(const struct nx_tokenizer *t, const char *piece, size_t len);

/* The file's Jinja template, or NULL. Not executed: see nx_chat_render. */
const char *nx_tokenizer_chat_template(const struct nx_tokenizer *t);

struct nx_turn {
	const char *role; /* "system", "user", "assistant" */
	const char *content;
};

/* Renders turns as the prompt's text, to be encoded with NX_TOK_PARSE_SPECIAL. *out is the
 * caller's, to be released with free().
 * With ChatML tokens (<|im_start|>, <|im_end|>): ChatML. If the first turn is not "system" and the
 * file's template holds a default system message as a literal (SmolLM2, Qwen2), that comes first.
 * Otherwise plain text: "role: content\n" a turn, then "assistant:" as the generation prompt. That
 * is a fallback for base models, not the format of any particular one. */
int nx_chat_render(const struct nx_tokenizer *t, const struct nx_turn *turns, size_t n,
                   bool add_generation_prompt, char **out, struct nx_err *err);

#endif
