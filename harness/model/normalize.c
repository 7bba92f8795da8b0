/* SPDX-License-Identifier: Apache-2.0
 *
 * See normalize.h.
 */
#include "model/normalize.h"

#include <stdlib.h>
#include <string.h>
#include <utf8proc.h>

size_t nx_utf8_len(const char *str, size_t len)
{
	const unsigned char *s = (const unsigned char *)str;
	size_t n;
	unsigned char lo = 0x80, hi = 0xbf; /* legal second byte */
	if (len == 0)
		return 0;
	if (s[0] < 0x80)
		return 1;
	if (s[0] >= 0xc2 && s[0] <= 0xdf)
		n = 2;
	else if ((s[0] & 0xf0) == 0xe0)
		n = 3;
	else if (s[0] >= 0xf0 && s[0] <= 0xf4)
		n = 4;
	else
		return 0;
	if (s[0] == 0xe0)
		lo = 0xa0;
	else if (s[0] == 0xed)
		hi = 0x9f; /* surrogates */
	else if (s[0] == 0xf0)
		lo = 0x90;
	else if (s[0] == 0xf4)
		hi = 0x8f;
	if (len < n || s[1] < lo || s[1] > hi)
		return 0;
	for (size_t i = 2; i < n; i++)
		if ((s[i] & 0xc0) != 0x80)
			return 0;
	return n;
}

uint32_t nx_utf8_code(const char *s, size_t n)
{
	const unsigned char *u = (const unsigned char *)s;
	switch (n) {
	case 1: return u[0];
	case 2: return (u[0] & 0x1fu) << 6 | (u[1] & 0x3fu);
	case 3: return (u[0] & 0x0fu) << 12 | (u[1] & 0x3fu) << 6 | (u[2] & 0x3fu);
	default:
		return (u[0] & 0x07u) << 18 | (u[1] & 0x3fu) << 12 | (u[2] & 0x3fu) << 6 |
		       (u[3] & 0x3fu);
	}
}

size_t nx_utf8_last(const char *s, size_t len)
{
	size_t n = 1;
	while (n < 4 && n < len && ((unsigned char)s[len - n] & 0xc0) == 0x80)
		n++;
	return n;
}

bool nx_is_space(uint32_t c)
{
	return (c >= 9 && c <= 13) || c == 0x20 || c == 0x85 || c == 0xa0 || c == 0x1680 ||
	       (c >= 0x2000 && c <= 0x200a) || c == 0x2028 || c == 0x2029 || c == 0x202f ||
	       c == 0x205f || c == 0x3000;
}

bool nx_is_word(uint32_t cp)
{
	switch (utf8proc_category((utf8proc_int32_t)cp)) {
	case UTF8PROC_CATEGORY_LU:
	case UTF8PROC_CATEGORY_LL:
	case UTF8PROC_CATEGORY_LT:
	case UTF8PROC_CATEGORY_LM:
	case UTF8PROC_CATEGORY_LO:
	case UTF8PROC_CATEGORY_MN:
	case UTF8PROC_CATEGORY_MC:
	case UTF8PROC_CATEGORY_ME:
	case UTF8PROC_CATEGORY_ND:
	case UTF8PROC_CATEGORY_NL:
	case UTF8PROC_CATEGORY_PC: return true;
	default: return cp == 0x200c || cp == 0x200d;
	}
}

bool nx_is_ascii(const char *text, size_t len)
{
	unsigned char any = 0;
	for (size_t i = 0; i < len; i++)
		any |= (unsigned char)text[i];
	return any < 0x80;
}

/* utf8proc sorts marks one step at a time, which is fine for words and quadratic for a run of a million. */
#define MARKS_MAX 64

static uint8_t mark_class(uint32_t cp)
{
	/* These three are no marks but become two each. */
	if (cp == 0xf73 || cp == 0xf75 || cp == 0xf81)
		return 1;
	return (uint8_t)utf8proc_get_property((utf8proc_int32_t)cp)->combining_class;
}

static bool has_long_run(const char *text, size_t len)
{
	size_t run = 0;
	for (size_t i = 0, n; i < len; i += n) {
		n = nx_utf8_len(text + i, len - i);
		n = n ? n : 1;
		run = (unsigned char)text[i] >= 0x80 && mark_class(nx_utf8_code(text + i, n))
		              ? run + 1
		              : 0;
		if (run > MARKS_MAX)
			return true;
	}
	return false;
}

/* Sorts the n marks at m by class, equal ones as they are, with a copy of n at tmp. */
static void sort_marks(utf8proc_int32_t *m, size_t n, utf8proc_int32_t *tmp)
{
	size_t at[257] = {0};
	for (size_t i = 0; i < n; i++)
		at[mark_class((uint32_t)m[i]) + 1]++;
	for (int c = 0; c < 256; c++)
		at[c + 1] += at[c];
	memcpy(tmp, m, n * sizeof(*m));
	for (size_t i = 0; i < n; i++)
		m[at[mark_class((uint32_t)tmp[i])]++] = tmp[i];
}

/* Text taken apart, its marks in order: the same NFC, and nothing left to sort. The caller's. */
static int take_apart(const char *text, size_t len, char **out, size_t *len_out, struct nx_err *err)
{
	/* A character becomes at most four, and takes at least a byte. */
	utf8proc_int32_t *cps = malloc(2 * (4 * len + 4) * sizeof(*cps)), *tmp;
	char *s = malloc(4 * (4 * len + 4));
	size_t n = 0, m = 0;
	if (!cps || !s) {
		free(cps);
		free(s);
		return nx_fail(err, NX_ENOMEM, "out of memory for %zu bytes of text", len);
	}
	tmp = cps + 4 * len + 4;
	for (size_t i = 0, size; i < len; i += size) {
		int bounds = 0;
		size = nx_utf8_len(text + i, len - i);
		size = size ? size : 1;
		const utf8proc_ssize_t got = utf8proc_decompose_char(
			(utf8proc_int32_t)nx_utf8_code(text + i, size), cps + n, 4,
			UTF8PROC_DECOMPOSE | UTF8PROC_STABLE, &bounds);
		n += got > 0 && got <= 4 ? (size_t)got : 0;
	}
	for (size_t i = 0, end; i < n; i = end) {
		for (end = i; end < n && mark_class((uint32_t)cps[end]); end++)
			;
		if (end > i + 1)
			sort_marks(cps + i, end - i, tmp);
		end += end == i;
	}
	for (size_t i = 0; i < n; i++)
		m += (size_t)utf8proc_encode_char(cps[i], (utf8proc_uint8_t *)s + m);
	free(cps);
	*out = s;
	*len_out = m;
	return 0;
}

int nx_nfc(const char *text, size_t len, char **out, size_t *len_out, struct nx_err *err)
{
	utf8proc_uint8_t *s = NULL;
	char *apart = NULL;
	size_t n_in = len;
	if (has_long_run(text, len)) {
		int rc = take_apart(text, len, &apart, &n_in, err);
		if (rc)
			return rc;
	}
	const utf8proc_ssize_t n =
		utf8proc_map((const utf8proc_uint8_t *)(apart ? apart : text),
	                     (utf8proc_ssize_t)n_in, &s, UTF8PROC_STABLE | UTF8PROC_COMPOSE);
	free(apart);
	if (n < 0)
		return nx_fail(err, n == UTF8PROC_ERROR_NOMEM ? NX_ENOMEM : NX_EINVAL,
		               "cannot bring %zu bytes of text into NFC: %s", len,
		               utf8proc_errmsg(n));
	*out = (char *)s; /* utf8proc allocates with malloc */
	*len_out = (size_t)n;
	return 0;
}
