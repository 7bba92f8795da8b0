/* SPDX-License-Identifier: Apache-2.0
 *
 * model/normalize.h: Unicode as tokenizers need it: UTF-8, NFC, white space, letters of words.
 *
 * NFC and categories are utf8proc's. Threads: no state.
 */
#ifndef NEXUS_MODEL_NORMALIZE_H
#define NEXUS_MODEL_NORMALIZE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "nexus/err.h"

/* Bytes of the valid UTF-8 sequence at s (1..4), or 0: no surrogates, nothing overlong or above
 * U+10FFFF. */
size_t nx_utf8_len(const char *s, size_t len);

/* The code point of the valid sequence of n bytes at s. */
uint32_t nx_utf8_code(const char *s, size_t n);

/* Bytes of the valid character that ends before s + len (1..4). len is 1 or more. */
size_t nx_utf8_last(const char *s, size_t len);

/* Unicode's White_Space. */
bool nx_is_space(uint32_t cp);

/* Is cp a character of words, as Rust's \w sees them: a letter, mark, decimal digit, letter number, connector
 * or joiner? (Other_Alphabetic symbols, such as circled letters, are missing.) */
bool nx_is_word(uint32_t cp);

/* Is text certainly in NFC? Only ASCII is looked at: false means "ask nx_nfc". */
bool nx_is_ascii(const char *text, size_t len);

/* NFC of valid UTF-8. *out is the caller's, to be released with free(). */
int nx_nfc(const char *text, size_t len, char **out, size_t *len_out, struct nx_err *err);

#endif
