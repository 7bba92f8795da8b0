/* SPDX-License-Identifier: Apache-2.0
 *
 * model/pretokenize.h: splitting text into the pieces inside which BPE merges, with PCRE2.
 *
 * A pre-tokenizer is a list of patterns. The first splits the text into matches and the stretches
 * between them; each of these pieces goes to the next pattern alone, so look-ahead stops at its end.
 * This is what Hugging Face's Sequence of "isolated" splits and llama.cpp do.
 * \s is spelt out as Unicode's White_Space, because PCRE2's own \s also holds U+180E.
 * Threads: const use is thread-safe (match data belongs to the call).
 */
#ifndef NEXUS_MODEL_PRETOKENIZE_H
#define NEXUS_MODEL_PRETOKENIZE_H

#include <stdbool.h>
#include <stddef.h>

#include "nexus/err.h"

/* White_Space, for use inside a class. */
#define NX_WS                                                                                      \
	"\\t-\\r\\x{20}\\x{85}\\x{A0}\\x{1680}\\x{2000}-\\x{200A}\\x{2028}\\x{2029}\\x{202F}\\x{205F}\\x{3000}"

#define NX_SPLIT_GPT2                                                                              \
	"'s|'t|'re|'ve|'m|'ll|'d| ?\\p{L}+| ?\\p{N}+| ?[^" NX_WS "\\p{L}\\p{N}]+|"                 \
	"[" NX_WS "]+(?![^" NX_WS "])|[" NX_WS "]+"

/* Llama 3 and Qwen 2 differ in how many digits make a piece. */
#define NX_SPLIT_TIKTOKEN(digits)                                                                  \
	"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|" digits "|"                   \
	" ?[^" NX_WS "\\p{L}\\p{N}]+[\\r\\n]*|[" NX_WS "]*[\\r\\n]+|"                              \
	"[" NX_WS "]+(?![^" NX_WS "])|[" NX_WS "]+"

/* X(tokenizer.ggml.pre, first pattern, second pattern or NULL, whole pieces that are tokens skip the
 *   merges?, BOS by default?). "default" and a missing key are read as GPT-2's pattern (llama.cpp
 *   splits punctuation and digits further there). */
#define NX_PRETOKENIZERS(X)                                                                        \
	X("gpt-2", NX_SPLIT_GPT2, NULL, false, false)                                              \
	X("default", NX_SPLIT_GPT2, NULL, false, false)                                            \
	X("smollm", "\\p{N}", NX_SPLIT_GPT2, false, false)                                         \
	X("llama-bpe", NX_SPLIT_TIKTOKEN("\\p{N}{1,3}"), NULL, true, true)                         \
	X("qwen2", NX_SPLIT_TIKTOKEN("\\p{N}"), NULL, false, false)

struct nx_pretok;

/* name: length-counted, from the file. An unknown one is refused with the list of legal ones. */
int nx_pretok_create(struct nx_pretok **out, const char *name, size_t len, struct nx_err *err);
void nx_pretok_destroy(struct nx_pretok *p); /* NULL is fine */

const char *nx_pretok_name(const struct nx_pretok *p);
bool nx_pretok_ignore_merges(const struct nx_pretok *p);
bool nx_pretok_add_bos(const struct nx_pretok *p);

typedef int nx_pretok_emit(void *ud, const char *piece, size_t len, struct nx_err *err);

/* Calls emit for each piece in order; the pieces are not empty and cover the text. text is valid
 * UTF-8. Stops at emit's first failure and returns it. */
int nx_pretok_split(const struct nx_pretok *p, const char *text, size_t len, nx_pretok_emit *emit,
                    void *ud, struct nx_err *err);

/* Bytes of the valid UTF-8 sequence at s (1..4), or 0: no surrogates, nothing overlong or above
 * U+10FFFF. */
size_t nx_utf8_len(const char *s, size_t len);

#endif
