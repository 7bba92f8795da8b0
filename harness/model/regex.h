/* SPDX-License-Identifier: Apache-2.0
 *
 * model/regex.h: patterns of tokenizer.json, written for Oniguruma, as PCRE2 patterns of the same
 * meaning.
 *
 * The pattern comes from a file, so only what is known to mean the same is let through; the rest is
 * refused by a sentence that names it:
 *
 *   let through    literals, . ^ $ | ( ), classes, * + ? and their lazy and possessive forms, {n}
 *                  {n,} {n,m}, (?: (?= (?! (?<= (?<! (?i: (?-i: (?i), escaped punctuation, \r
 *                  \n \t \f
 *   written anew   \s \S as Unicode's White_Space (PCRE2's \s also holds U+180E), \d as \p{Nd}, \v
 *                  as U+000B, {,m}, \uHHHH, \p{Han} and other scripts as Script, not
 *                  Script_Extensions
 *   refused        \w \b \h \X, back references, named and atomic groups, recursion, verbs,
 *                  callouts, other options, nested classes, [:posix:], &&, {n}? and {n,m}+, other
 *                  properties
 *
 * The result is to be compiled with UTF, UCP and MULTILINE (in Oniguruma ^ and $ are about lines),
 * and line feed alone as the end of a line.
 * One difference is left: without regard to case, Oniguruma also pairs one character with several
 * ("ss" and U+00DF). Of 27,000 random patterns that both take, three split otherwise, all of them with
 * a group that may match nothing and is repeated.
 */
#ifndef NEXUS_MODEL_REGEX_H
#define NEXUS_MODEL_REGEX_H

#include <stddef.h>

#include "nexus/err.h"

/* White_Space, for use inside a class, and what it leaves. */
#define NX_WS                                                                                      \
	"\\t-\\r\\x{20}\\x{85}\\x{A0}\\x{1680}\\x{2000}-\\x{200A}\\x{2028}\\x{2029}\\x{202F}\\x{205F}\\x{3000}"
#define NX_NOT_WS                                                                                       \
	"\\x{0}-\\x{8}\\x{E}-\\x{1F}\\x{21}-\\x{84}\\x{86}-\\x{9F}\\x{A1}-\\x{167F}\\x{1681}-\\x{1FFF}" \
	"\\x{200B}-\\x{2027}\\x{202A}-\\x{202E}\\x{2030}-\\x{205E}\\x{2060}-\\x{2FFF}\\x{3001}-\\x{10FFFF}"

#define NX_REGEX_MAX ((size_t)16 << 10) /* bytes, of the pattern and of its translation */

/* Writes the translation, NUL-terminated, to out[NX_REGEX_MAX + 1]. pattern is valid UTF-8 of len bytes.
 * where ("FILE: key pre_tokenizer") begins every sentence. NX_ENOTSUP for what is refused. */
int nx_regex_translate(const char *pattern, size_t len, const char *where, char *out,
                       struct nx_err *err);

#endif
