/* SPDX-License-Identifier: Apache-2.0
 *
 * base/text.h: what messages and settings are made of: near names, lists, numbers, sizes, durations.
 *
 * The program stays in the C locale, which decides what a decimal point is.
 */
#ifndef NEXUS_BASE_TEXT_H
#define NEXUS_BASE_TEXT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* The name that was probably meant by s, or NULL when none is near enough: the smallest
 * Damerau-Levenshtein distance up to a third of the length (at least 1; case and - for _ are free), else
 * the only name that s begins. The first of equals. */
const char *nx_near_name(const char *s, const char *const *names, size_t n);

/* "a, b, c" into buf; when it does not fit, as many as do and ", ...". Returns buf. */
const char *nx_list_text(char *buf, size_t size, const char *const *names, size_t n);

/* s in double quotes, control bytes and broken UTF-8 as \xNN, cut to about 60 bytes with "..." at the
 * end, so that any input can be shown in a one-line message. Returns buf. */
const char *nx_quote(char *buf, size_t size, const char *s);

/* Bytes of the character at s, of which left bytes may be read; 0 when it is not valid UTF-8. */
int nx_text_utf8_len(const char *s, size_t left);
/* Is the valid character at s a C0 or C1 control or DEL? Terminals obey them. */
bool nx_text_is_control(const char *s);

/* Whole text or nothing: 0 on success, NX_EINVAL otherwise. Decimal only. */
int nx_parse_i64(const char *s, int64_t *out);
int nx_parse_u64(const char *s, uint64_t *out);
int nx_parse_double(const char *s, double *out); /* finite */
int nx_parse_bool(const char *s, bool *out);     /* true, false */

#define NX_SIZE_LEGAL                                                                              \
	"bytes as a number, or with kB, MB, GB, TB, KiB, MiB, GiB or TiB, such as 64MiB"
int nx_parse_size(const char *s, uint64_t *bytes);
#define NX_DURATION_LEGAL "seconds as a number, or with ns, us, ms, s, min or h, such as 90s"
int nx_parse_duration(const char *s, double *seconds);

#endif
