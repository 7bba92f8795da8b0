/* SPDX-License-Identifier: Apache-2.0 */
#include "base/text.h"

#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "nexus/err.h"

#define NAME_MAX_LEN 63 /* longer ones are no typing mistakes of ours */

/* ---- near names ------------------------------------------------------------------------------- */

/* Case and - for _ are free: "Batch-Size" means batch_size. */
static char folded(char c)
{
	if (c >= 'A' && c <= 'Z')
		return (char)(c - 'A' + 'a');
	return c == '-' ? '_' : c;
}

static int min3(int a, int b, int c)
{
	int m = a < b ? a : b;
	return m < c ? m : c;
}

/* Optimal string alignment: insertions, deletions, substitutions, swaps of neighbours. */
static int distance(const char *a, int n, const char *b, int m)
{
	int rows[3][NAME_MAX_LEN + 1];
	int *before = rows[0], *prev = rows[1], *cur = rows[2];
	for (int j = 0; j <= m; j++)
		prev[j] = j;
	for (int i = 1; i <= n; i++) {
		cur[0] = i;
		for (int j = 1; j <= m; j++) {
			char x = folded(a[i - 1]), y = folded(b[j - 1]);
			cur[j] = min3(prev[j] + 1, cur[j - 1] + 1, prev[j - 1] + (x != y));
			if (i > 1 && j > 1 && x == folded(b[j - 2]) && folded(a[i - 2]) == y &&
			    before[j - 2] + 1 < cur[j])
				cur[j] = before[j - 2] + 1;
		}
		int *t = before;
		before = prev;
		prev = cur;
		cur = t;
	}
	return prev[m];
}

static bool begins(const char *s, int n, const char *name)
{
	for (int i = 0; i < n; i++)
		if (folded(s[i]) != folded(name[i])) /* also stops at the end of name */
			return false;
	return true;
}

const char *nx_near_name(const char *s, const char *const *names, size_t n)
{
	size_t full = strlen(s);
	if (full == 0 || full > NAME_MAX_LEN)
		return NULL;
	int len = (int)full;
	int cut = len / 3 > 1 ? len / 3 : 1;
	const char *best = NULL, *begun = NULL;
	int best_distance = cut + 1, n_begun = 0;
	for (size_t i = 0; i < n; i++) {
		size_t name_len = strlen(names[i]);
		if (name_len == 0 || name_len > NAME_MAX_LEN)
			continue;
		int d = distance(s, len, names[i], (int)name_len);
		if (d < best_distance) {
			best_distance = d;
			best = names[i];
		}
		if (len >= 3 && begins(s, len, names[i])) {
			begun = names[i];
			n_begun++;
		}
	}
	if (best)
		return best;
	return n_begun == 1 ? begun : NULL;
}

const char *nx_list_text(char *buf, size_t size, const char *const *names, size_t n)
{
	static const char more[] = ", ...";
	size_t at = 0;
	buf[0] = '\0';
	for (size_t i = 0; i < n; i++) {
		size_t need = strlen(names[i]) + (i ? 2 : 0);
		size_t keep =
			i + 1 < n ? sizeof(more) : 1; /* room for ", ..." unless this is the last */
		if (at + need + keep > size) {
			if (at + sizeof(more) <= size)
				snprintf(buf + at, size - at, "%s", at ? more : more + 2);
			break;
		}
		at += (size_t)snprintf(buf + at, size - at, "%s%s", i ? ", " : "", names[i]);
	}
	return buf;
}

int nx_text_utf8_len(const char *s, size_t left)
{
	const unsigned char *p = (const unsigned char *)s;
	static const unsigned char lead[] = {0x80, 0xc2, 0xe0, 0xf0, 0xf5};
	int n = 0;
	if (left == 0 || p[0] >= lead[4] || (p[0] >= lead[0] && p[0] < lead[1]))
		return 0;
	while (n < 4 && p[0] >= lead[n])
		n++; /* 0 ASCII, 2 to 4 from the table: 0xc2 passes both 0x80 and 0xc2 */
	if (n == 0)
		return 1;
	if ((size_t)n > left)
		return 0;
	for (int i = 1; i < n; i++)
		if ((p[i] & 0xc0) != 0x80)
			return 0;
	/* overlong forms, surrogates, beyond U+10FFFF */
	if ((p[0] == 0xe0 && p[1] < 0xa0) || (p[0] == 0xed && p[1] >= 0xa0) ||
	    (p[0] == 0xf0 && p[1] < 0x90) || (p[0] == 0xf4 && p[1] >= 0x90))
		return 0;
	return n;
}

bool nx_text_is_control(const char *s)
{
	const unsigned char *p = (const unsigned char *)s;
	return p[0] < 0x20 || p[0] == 0x7f || (p[0] == 0xc2 && p[1] < 0xa0);
}

const char *nx_quote(char *buf, size_t size, const char *s)
{
	enum { CUT = 60 };
	size_t at = 0;
	if (size < 8) {
		if (size)
			buf[0] = '\0';
		return buf;
	}
	buf[at++] = '"';
	for (size_t left = strlen(s); left;) {
		char piece[8];
		int n = nx_text_utf8_len(s, left), step = n ? n : 1;
		if (n == 0 || nx_text_is_control(s)) {
			n = snprintf(piece, sizeof(piece), "\\x%02x", (unsigned char)*s);
			step = 1;
		} else {
			memcpy(piece, s, (size_t)n);
		}
		if (at + (size_t)n + 5 > size || at > CUT) {
			memcpy(buf + at, "...", 3);
			at += 3;
			break;
		}
		memcpy(buf + at, piece, (size_t)n);
		at += (size_t)n;
		s += step;
		left -= (size_t)step;
	}
	buf[at++] = '"';
	buf[at] = '\0';
	return buf;
}

/* ---- numbers ---------------------------------------------------------------------------------- */

/* strtoll and strtod take more than we do: blanks, hexadecimals, inf, nan. */
static bool only(const char *s, const char *chars)
{
	return s[0] != '\0' && s[strspn(s, chars)] == '\0';
}

int nx_parse_i64(const char *s, int64_t *out)
{
	char *end;
	if (!only(s, "0123456789+-"))
		return NX_EINVAL;
	errno = 0;
	long long v = strtoll(s, &end, 10);
	if (errno || *end || end == s)
		return NX_EINVAL;
	*out = v;
	return 0;
}

int nx_parse_u64(const char *s, uint64_t *out)
{
	char *end;
	if (!only(s, "0123456789"))
		return NX_EINVAL;
	errno = 0;
	unsigned long long v = strtoull(s, &end, 10);
	if (errno || *end)
		return NX_EINVAL;
	*out = v;
	return 0;
}

int nx_parse_double(const char *s, double *out)
{
	char *end;
	if (!only(s, "0123456789+-.eE"))
		return NX_EINVAL;
	double v = strtod(s, &end);
	if (*end || end == s || !isfinite(v))
		return NX_EINVAL;
	*out = v;
	return 0;
}

int nx_parse_bool(const char *s, bool *out)
{
	if (strcmp(s, "true") == 0)
		*out = true;
	else if (strcmp(s, "false") == 0)
		*out = false;
	else
		return NX_EINVAL;
	return 0;
}

struct unit {
	const char *name;
	double factor;
};

/* A number, blanks, a unit of the table (the first one may be left out). */
static int parse_quantity(const char *s, const struct unit *units, size_t n_units, double *out)
{
	char number[32];
	size_t n = strspn(s, "0123456789.");
	if (n == 0 || n >= sizeof(number))
		return NX_EINVAL;
	memcpy(number, s, n);
	number[n] = '\0';
	double v;
	if (nx_parse_double(number, &v))
		return NX_EINVAL;
	const char *name = s + n + strspn(s + n, " ");
	for (size_t i = 0; i < n_units; i++)
		if (strcmp(name, units[i].name) == 0 || (i == 0 && !name[0])) {
			*out = v * units[i].factor;
			return 0;
		}
	return NX_EINVAL;
}

int nx_parse_size(const char *s, uint64_t *bytes)
{
	static const struct unit units[] = {
		{"B", 1},
		{"kB", 1e3},
		{"KB", 1e3},
		{"MB", 1e6},
		{"GB", 1e9},
		{"TB", 1e12},
		{"KiB", 1024.0},
		{"MiB", 1048576.0},
		{"GiB", 1073741824.0},
		{"TiB", 1099511627776.0},
	};
	double v;
	if (parse_quantity(s, units, sizeof(units) / sizeof(*units), &v) || v > 9e18)
		return NX_EINVAL;
	*bytes = (uint64_t)(v + 0.5);
	return 0;
}

int nx_parse_duration(const char *s, double *seconds)
{
	static const struct unit units[] = {
		{"s", 1}, {"ns", 1e-9}, {"us", 1e-6}, {"ms", 1e-3}, {"min", 60}, {"h", 3600},
	};
	return parse_quantity(s, units, sizeof(units) / sizeof(*units), seconds);
}
