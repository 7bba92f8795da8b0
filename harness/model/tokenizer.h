/* SPDX-License-Identifier: Apache-2.0
 *
 * model/tokenizer.h: BPE over bytes (GPT-2, Llama 3, Qwen, Mistral's tekken) and over characters
 * with byte tokens (SentencePiece: Llama 2, Mistral), from a GGUF file or from a Hugging Face
 * directory; and chat formats.
 *
 * Both sources give the same ids as Hugging Face's `tokenizers`, text for text. What it drops
 * without a word, characters that the vocabulary lacks, is refused here: NX_EINVAL and a sentence
 * that names the byte (SmolLM2 lacks 21 bytes that hardly occur). Broken UTF-8, which `tokenizers`
 * does not take, is cut out byte by byte: each byte that is part of no valid sequence becomes its
 * own token.
 *
 * Round trip. decode(encode(x)) == x for any bytes x, with these exceptions, all Hugging Face's:
 *   - with NFC (Qwen 2, 3) it is the NFC of x;
 *   - with SentencePiece U+2581 comes back as a space; a space is put before the text, and again
 *     after every special token ("legacy"), and only the one at the very start is taken away when
 *     decoding. Where the space is put only before text without one (Metaspace), a single space at
 *     the start of the text is lost;
 *   - special tokens that strip (lstrip, rstrip) take the white space beside them.
 *
 * Control tokens (<|im_start|>) in text are text unless NX_TOK_PARSE_SPECIAL is given; user-defined
 * tokens (added tokens that are not special) always match, as in Hugging Face and llama.cpp.
 *
 * GGUF: tokenizer.ggml.model "gpt2" (with tokenizer.ggml.pre, see NX_PRETOKENIZERS in
 * pretokenize.h) and "llama" (scores, byte tokens, add_space_prefix, add_bos_token). add_eos_token
 * is left alone: prompts are to be continued.
 *
 * Hugging Face directory: tokenizer.json; and where they are there tokenizer_config.json
 * (bos_token, eos_token, add_bos_token, chat_template), special_tokens_map.json,
 * generation_config.json or else config.json (eos_token_id), chat_template.jinja. Of tokenizer.json
 * are read:
 *   model           BPE with merges as "a b" or ["a", "b"], byte_fallback, unk_token, fuse_unk,
 *                   ignore_merges
 *   added_tokens    with lstrip, rstrip, single_word and normalized
 *   normalizer      null, NFC, Prepend "\u2581", Replace " " by "\u2581", Sequence
 *   pre_tokenizer   null, ByteLevel, Split (behavior Isolated), Digits, Metaspace, Sequence
 *   post_processor  TemplateProcessing and ByteLevel, Sequence: whether BOS comes first
 *   decoder         not looked at: tokens are bytes, and the space in front goes where one was put
 * Anything else (Unigram, WordPiece, other normalizers, dropout) is refused by a sentence that
 * names the file and the key. Patterns of Split are translated for PCRE2 and matched under limits:
 * see regex.h. Limits: 128 MiB of JSON, nested at most 2,048 deep, 4 Mi tokens, 512 bytes a special
 * token; a token with U+0000 in its text is refused, because jansson takes no such key.
 *
 * Unicode is that of the libraries: with PCRE2 10.42 and utf8proc 2.8 every code point, in six places
 * of a text, gets the ids of `tokenizers` 0.23, but for the NFC of U+1DF6, U+1E4EC and U+1E4ED.
 *
 * Cost: n log n in the length of a piece; a text of one letter a million times takes tenths of a
 * second.
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
	NX_TOK_ADD_BOS = 1u << 1,  /* BOS first if the file asks for it (add_bos); once, also where
	                              the text starts with it and special tokens are parsed */
	NX_TOK_CONTINUES = 1u << 2 /* other text goes before: no space is put at the start */
};

int nx_tokenizer_create(struct nx_tokenizer **out, const struct nx_gguf *g, struct nx_err *err);
/* dir: the folder that holds tokenizer.json. */
int nx_tokenizer_create_hf(struct nx_tokenizer **out, const char *dir, struct nx_err *err);
void nx_tokenizer_destroy(struct nx_tokenizer *t); /* NULL is fine */

/* Adds unused tokens without text until there are n_vocab, for checkpoints whose embedding has more rows
 * than the tokenizer has tokens (Qwen). NX_EINVAL when there are more already. */
int nx_tokenizer_pad(struct nx_tokenizer *t, int32_t n_vocab, struct nx_err *err);

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

/* Ends a generation: EOS, EOT, the eos_token_id of generation_config.json (one or a list), <|endoftext|>,
 * <|end_of_text|> or <|eom_id|>. */
bool nx_tokenizer_is_eog(const struct nx_tokenizer *t, int32_t id);

bool nx_tokenizer_is_control(const struct nx_tokenizer *t, int32_t id);

int32_t nx_tokenizer_vocab(const struct nx_tokenizer *t);
/* Name of the pre-tokenizer: one of NX_PRETOKENIZERS, "custom", or "none" (SentencePiece). */
const char *nx_tokenizer_pre(const struct nx_tokenizer *t);

/* The id of the token with exactly these bytes (control tokens: their text), or -1. */
int32_t nx_tokenizer_find(const struct nx_tokenizer *t, const char *piece, size_t len);

/* The file's Jinja template, or NULL. Not executed: see nx_chat_render. */
const char *nx_tokenizer_chat_template(const struct nx_tokenizer *t);

struct nx_turn {
	const char *role; /* "system", "user", "assistant" */
	const char *content;
};

/* The name of the format that nx_chat_render writes; static storage. Recognised by what the template says
 * (see NX_CHAT_FORMATS in chat.h), and only if its special tokens are in the vocabulary. */
const char *nx_chat_format(const struct nx_tokenizer *t);

/* What of a turn's content the model's chat format puts into the prompt, as far as that depends on the content
 * alone: stripped of white space at its ends, or of an earlier answer's thoughts. Points into turn->content. */
void nx_chat_content(const struct nx_tokenizer *t, const struct nx_turn *turn, const char **s,
                     size_t *len);

/* What of a turn's content the model's chat format puts into the prompt, for all but an answer that ends the
 * conversation: stripped of white space at its ends, or an answer without its thoughts. Points into turn->content. (Llama 2
 * keeps the space in front of a first user turn that follows a system turn; here it is stripped.) */
void nx_chat_content(const struct nx_tokenizer *t, const struct nx_turn *turn, const char **s,
                     size_t *len);

/* Renders turns as the prompt's text, to be encoded with NX_TOK_PARSE_SPECIAL. *out is the
 * caller's, to be released with free().
 * The text is what Transformers' apply_chat_template gives without tools, character for character,
 * but for the format "chatml-like" (ChatML tokens, a template with more to it than is known here)
 * and "plain" (any other or no template: "role: content\n" a turn, then "assistant:" as the
 * generation prompt, a fallback for base models). Where the template raises an exception (Llama 2,
 * Mistral: after an optional system turn, user and assistant must take turns), NX_EINVAL. What else
 * each format does is in chat.h. */
int nx_chat_render(const struct nx_tokenizer *t, const struct nx_turn *turns, size_t n,
                   bool add_generation_prompt, char **out, struct nx_err *err);

#endif
