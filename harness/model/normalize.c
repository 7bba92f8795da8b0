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

int nx_nfc(const char *text, size_t len, char **out, size_t *len_out, struct nx_err *err)
{
	utf8proc_uint8_t *s = NULL;
	const utf8proc_ssize_t n =
		utf8proc_map((const utf8proc_uint8_t *)text, (utf8proc_ssize_t)len, &s,
	                     UTF8PROC_STABLE | UTF8PROC_COMPOSE);
	if (n < 0)
		return nx_fail(err, n == UTF8PROC_ERROR_NOMEM ? NX_ENOMEM : NX_EINVAL,
		               "cannot bring %zu bytes of text into NFC: %s", len,
		               utf8proc_errmsg(n));
	*out = (char *)s; /* utf8proc allocates with malloc */
	*len_out = (size_t)n;
	return 0;
}
