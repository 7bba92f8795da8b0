/* SPDX-License-Identifier: Apache-2.0
 *
 * model/pretokenize.h: splitting text into the pieces inside which BPE merges, with PCRE2.
 *
 * A pre-tokenizer is a list of patterns. The first splits the text into matches and the stretches
 * between them; each of these pieces goes to the next pattern alone, so look-ahead stops at its
 * end. This is what Hugging Face's Sequence of "isolated" splits and llama.cpp do. No patterns: one
 * piece. \s is spelt out as Unicode's White_Space, because PCRE2's own \s also holds U+180E (see
 * regex.h). Matching is bounded by PCRE2's limits (steps, heap), because patterns may come from a
 * file. Threads: const use is thread-safe (match data belongs to the call).
 */
#ifndef NEXUS_MODEL_PRETOKENIZE_H
#define NEXUS_MODEL_PRETOKENIZE_H

#include <stdbool.h>
#include <stddef.h>

#include "model/normalize.h"
#include "model/regex.h"
#include "nexus/err.h"

#define NX_PRETOK_STAGES 8

#define NX_SPLIT_DIGIT "\\p{N}"
#define NX_SPLIT_GPT2                                                                              \
	"'s|'t|'re|'ve|'m|'ll|'d| ?\\p{L}+| ?\\p{N}+| ?[^" NX_WS "\\p{L}\\p{N}]+|"                 \
	"[" NX_WS "]+(?![^" NX_WS "])|[" NX_WS "]+"

/* Llama 3 and Qwen 2 differ in how many digits make a piece. */
#define NX_SPLIT_TIKTOKEN(digits)                                                                  \
	"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|" digits "|"                   \
	" ?[^" NX_WS "\\p{L}\\p{N}]+[\\r\\n]*|[" NX_WS "]*[\\r\\n]+|"                              \
	"[" NX_WS "]+(?![^" NX_WS "])|[" NX_WS "]+"

/* Mistral's: words split where the case rises. */
#define NX_SPLIT_TEKKEN                                                                              \
	"[^\\r\\n\\p{L}\\p{N}]?[\\p{Lu}\\p{Lt}\\p{Lm}\\p{Lo}\\p{M}]*[\\p{Ll}\\p{Lm}\\p{Lo}\\p{M}]+|" \
	"[^\\r\\n\\p{L}\\p{N}]?[\\p{Lu}\\p{Lt}\\p{Lm}\\p{Lo}\\p{M}]+[\\p{Ll}\\p{Lm}\\p{Lo}\\p{M}]*|" \
	"\\p{N}| ?[^" NX_WS "\\p{L}\\p{N}]+[\\r\\n/]*|[" NX_WS "]*[\\r\\n]+|"                        \
	"[" NX_WS "]+(?![^" NX_WS "])|[" NX_WS "]+"

#define NX_SPLIT_DEEPSEEK3                                                                         \
	"[!\"#$%&'()*+,\\-./:;<=>?@\\[\\\\\\]^_`{|}~][A-Za-z]+|"                                   \
	"[^\\r\\n\\p{L}\\p{P}\\p{S}]?[\\p{L}\\p{M}]+| ?[\\p{P}\\p{S}]+[\\r\\n]*|"                  \
	"[" NX_WS "]*[\\r\\n]+|[" NX_WS "]+(?![^" NX_WS "])|[" NX_WS "]+"

enum nx_pretok_flags {
	NX_PRETOK_IGNORE_MERGES = 1u << 0, /* whole pieces that are tokens skip the merges */
	NX_PRETOK_ADD_BOS = 1u << 1,       /* BOS by default */
	NX_PRETOK_NFC = 1u << 2 /* the tokenizer that the name stands for normalises first */
};

/* X(tokenizer.ggml.pre, flags, patterns...). "default" and a missing key are read as GPT-2's pattern
 * (llama.cpp splits punctuation and digits further there). qwen2 is in NFC as its tokenizer.json is
 * (llama.cpp leaves that out). The patterns are those of the tokenizer.json files that llama.cpp's
 * names stand for. */
#define NX_PRETOKENIZERS(X)                                                                        \
	X("gpt-2", 0, NX_SPLIT_GPT2)                                                               \
	X("default", 0, NX_SPLIT_GPT2)                                                             \
	X("smollm", 0, NX_SPLIT_DIGIT, NX_SPLIT_GPT2)                                              \
	X("llama-bpe", NX_PRETOK_IGNORE_MERGES | NX_PRETOK_ADD_BOS,                                \
	  NX_SPLIT_TIKTOKEN("\\p{N}{1,3}"))                                                        \
	X("llama3", NX_PRETOK_IGNORE_MERGES | NX_PRETOK_ADD_BOS, NX_SPLIT_TIKTOKEN("\\p{N}{1,3}")) \
	X("llama-v3", NX_PRETOK_IGNORE_MERGES | NX_PRETOK_ADD_BOS,                                 \
	  NX_SPLIT_TIKTOKEN("\\p{N}{1,3}"))                                                        \
	X("falcon3", NX_PRETOK_IGNORE_MERGES | NX_PRETOK_ADD_BOS,                                  \
	  NX_SPLIT_TIKTOKEN("\\p{N}{1,3}"))                                                        \
	X("pixtral", NX_PRETOK_IGNORE_MERGES | NX_PRETOK_ADD_BOS,                                  \
	  NX_SPLIT_TIKTOKEN("\\p{N}{1,3}"))                                                        \
	X("smaug-bpe", 0, NX_SPLIT_TIKTOKEN("\\p{N}{1,3}"))                                        \
	X("qwen2", NX_PRETOK_NFC, NX_SPLIT_TIKTOKEN("\\p{N}"))                                     \
	X("deepseek-r1-qwen", 0, NX_SPLIT_TIKTOKEN("\\p{N}"))                                      \
	X("megrez", 0, NX_SPLIT_TIKTOKEN("\\p{N}"))                                                \
	X("tekken", NX_PRETOK_IGNORE_MERGES | NX_PRETOK_ADD_BOS, NX_SPLIT_TEKKEN)                  \
	X("deepseek-coder", 0, "[\\r\\n]", "[" NX_WS "]?\\p{L}+", "[" NX_WS "]?\\p{P}+",           \
	  "[\\x{4E00}-\\x{9FA5}\\x{800}-\\x{4E00}\\x{AC00}-\\x{D7FF}]+", NX_SPLIT_DIGIT)           \
	X("deepseek-v3", 0, "\\p{N}{1,3}",                                                         \
	  "[\\x{4E00}-\\x{9FA5}\\x{3040}-\\x{309F}\\x{30A0}-\\x{30FF}]+", NX_SPLIT_DEEPSEEK3)      \
	X("olmo", 0, NX_SPLIT_GPT2)                                                                \
	X("starcoder", 0, NX_SPLIT_DIGIT, NX_SPLIT_GPT2)                                           \
	X("refact", 0, NX_SPLIT_DIGIT, NX_SPLIT_GPT2)                                              \
	X("command-r", 0, NX_SPLIT_DIGIT, NX_SPLIT_GPT2)

struct nx_pretok;

/* name: length-counted, from the file. An unknown one is refused with the list of legal ones. */
int nx_pretok_create(struct nx_pretok **out, const char *name, size_t len, struct nx_err *err);

/* PCRE2 patterns of a file, n of them (0 to NX_PRETOK_STAGES), as nx_regex_translate makes them. The name is that of the
 * first of NX_PRETOKENIZERS with the same patterns, else "custom"; "none" without patterns. A
 * pattern that PCRE2 refuses or that can match nothing at all is refused; where begins the
 * sentence. */
int nx_pretok_create_custom(struct nx_pretok **out, const char *const *patterns, int n,
                            const char *where, struct nx_err *err);
void nx_pretok_destroy(struct nx_pretok *p); /* NULL is fine */

const char *nx_pretok_name(const struct nx_pretok *p);
unsigned nx_pretok_flags(const struct nx_pretok *p); /* 0 for custom ones */

typedef int nx_pretok_emit(void *ud, const char *piece, size_t len, struct nx_err *err);

/* Calls emit for each piece in order; the pieces are not empty and cover the text. text is valid
 * UTF-8. Stops at emit's first failure and returns it. */
int nx_pretok_split(const struct nx_pretok *p, const char *text, size_t len, nx_pretok_emit *emit,
                    void *ud, struct nx_err *err);

#endif
