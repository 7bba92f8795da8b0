/* SPDX-License-Identifier: Apache-2.0
 *
 * See regex.h.
 */
#include "model/regex.h"

#include <stdbool.h>
#include <string.h>

#include "model/normalize.h"

struct scan {
	const char *s, *end, *where;
	const char *start;
	char *out;
	size_t n;
	bool full; /* the translation has become too long */
	struct nx_err *err;
};

static void put(struct scan *c, const char *s, size_t n)
{
	if (n > NX_REGEX_MAX - c->n) {
		c->full = true;
		return;
	}
	memcpy(c->out + c->n, s, n);
	c->n += n;
}

static void put_str(struct scan *c, const char *s)
{
	put(c, s, strlen(s));
}

/* A character that stands for itself: written so that a pattern has one spelling, whatever the file's. */
static void put_literal(struct scan *c)
{
	const size_t n = nx_utf8_len(c->s, (size_t)(c->end - c->s));
	char text[16];
	if (n == 1 && *c->s != '\r' && *c->s != '\n' && *c->s != '\t') {
		put(c, c->s++, 1);
		return;
	}
	if (n <= 1)
		snprintf(text, sizeof(text), "%s",
		         *c->s == '\r'   ? "\\r"
		         : *c->s == '\n' ? "\\n"
		                         : "\\t");
	else
		snprintf(text, sizeof(text), "\\x{%X}", (unsigned)nx_utf8_code(c->s, n));
	put_str(c, text);
	c->s += n ? n : 1;
}

static int refuse(const struct scan *c, const char *at, const char *what)
{
	return nx_fail(c->err, NX_ENOTSUP,
	               "%s: the pattern has %s at byte %zu, which is not supported", c->where, what,
	               (size_t)(at - c->start));
}

static bool is_hex(char c)
{
	return (c >= '0' && c <= '9') || (c >= 'a' && c <= 'f') || (c >= 'A' && c <= 'F');
}

static bool is_digit(char c)
{
	return c >= '0' && c <= '9';
}

static bool is_letter(char c)
{
	return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z');
}

/* General categories mean the same in both; PCRE2's plain script names mean Script_Extensions. */
static int property(struct scan *c, const char *at)
{
	static const char *const categories[] = {
		"L",  "Ll", "Lu", "Lt", "Lm", "Lo", "M",  "Mn", "Mc", "Me", "N",  "Nd", "Nl",
		"No", "P",  "Pc", "Pd", "Ps", "Pe", "Pi", "Pf", "Po", "S",  "Sm", "Sc", "Sk",
		"So", "Z",  "Zs", "Zl", "Zp", "C",  "Cc", "Cf", "Co", "Cs", "Cn"};
	static const char *const scripts[] = {"Han",    "Hiragana", "Katakana",  "Hangul",
	                                      "Latin",  "Cyrillic", "Greek",     "Arabic",
	                                      "Hebrew", "Thai",     "Devanagari"};
	const char kind[3] = {'\\', at[1], '\0'};
	const char *s = at + 2;
	const char *close = s < c->end && *s == '{' ? memchr(s, '}', (size_t)(c->end - s)) : NULL;
	if (!close)
		return refuse(c, at, "a property without {}");
	s++;
	const bool negated = *s == '^';
	s += negated;
	const size_t n = (size_t)(close - s);
	const char *script = NULL, *name = NULL;
	for (size_t i = 0; i < sizeof(categories) / sizeof(categories[0]); i++)
		if (strlen(categories[i]) == n && memcmp(categories[i], s, n) == 0)
			name = categories[i];
	for (size_t i = 0; i < sizeof(scripts) / sizeof(scripts[0]); i++)
		if (strlen(scripts[i]) == n && memcmp(scripts[i], s, n) == 0)
			script = scripts[i];
	if (!name && !script)
		return refuse(c, at, "a property other than a category or a common script");
	put_str(c, kind);
	put_str(c, negated ? "{^" : "{");
	put_str(c, script ? "sc:" : "");
	put_str(c, script ? script : name);
	put_str(c, "}");
	c->s = close + 1;
	return 0;
}

/* \uHHHH, \xHH below 0x80 and \x{H...}. */
static int hex(struct scan *c, const char *at)
{
	const char *s = at + 2, *digits = s;
	size_t n;
	if (at[1] == 'x' && s < c->end && *s == '{') {
		digits = ++s;
		while (s < c->end && is_hex(*s))
			s++;
		n = (size_t)(s - digits);
		if (s == c->end || *s != '}')
			n = 0;
		s++;
	} else {
		n = at[1] == 'u' ? 4 : 2;
		for (size_t i = 0; i < n; i++)
			if (s + i >= c->end || !is_hex(s[i]))
				return refuse(c, at, "a broken \\u or \\x");
		s += n;
		if (n == 2 && digits[0] >= '8')
			return refuse(c, at, "a byte that is no character");
	}
	if (n < 1 || n > 6)
		return refuse(c, at, "a broken \\x{}");
	put_str(c, "\\x{");
	put(c, digits, n);
	put_str(c, "}");
	c->s = s;
	return 0;
}

static int escape(struct scan *c, bool in_class)
{
	const char *at = c->s;
	char what[16];
	if (c->end - at < 2)
		return refuse(c, at, "a backslash at its end");
	const char e = at[1];
	c->s += 2;
	switch (e) {
	case 's': put_str(c, in_class ? NX_WS : "[" NX_WS "]"); return 0;
	case 'S': put_str(c, in_class ? NX_NOT_WS : "[^" NX_WS "]"); return 0;
	case 'd': put_str(c, "\\p{Nd}"); return 0;
	case 'D': put_str(c, "\\P{Nd}"); return 0;
	case 'v': put_str(c, "\\x{B}"); return 0;
	case 'r':
	case 'n':
	case 't':
	case 'f': put(c, at, 2); return 0;
	case 'p':
	case 'P': return property(c, at);
	case 'u':
	case 'x': return hex(c, at);
	default: break;
	}
	if (e > 0x20 && e < 0x7f && !is_letter(e) && !is_digit(e)) {
		put(c, at, 2);
		return 0;
	}
	if (e == ' ') {
		put_str(c, "\\x{20}");
		return 0;
	}
	snprintf(what, sizeof(what), "\\%c", is_letter(e) || is_digit(e) ? e : '?');
	return refuse(c, at, what);
}

/* In Oniguruma a - beside a set of characters stands for itself; written out it would make a range. */
static int set_in_class(struct scan *c, const char *first)
{
	const char *at = c->s;
	if (at - first > 1 && at[-1] == '-' && at[-2] != '\\')
		return refuse(c, at, "a range that ends with a set");
	int rc = escape(c, true);
	if (!rc && c->end - c->s > 1 && c->s[0] == '-' && c->s[1] != ']')
		return refuse(c, at, "a range that starts with a set");
	return rc;
}

static int class(struct scan *c)
{
	const char *at = c->s++;
	int rc = 0;
	put_str(c, "[");
	if (c->s < c->end && *c->s == '^') {
		put_str(c, "^");
		c->s++;
	}
	if (c->s < c->end && *c->s == ']')
		return refuse(c, at, "a class that starts with ]");
	const char *first = c->s;
	while (c->s < c->end && *c->s != ']' && !rc) {
		if (*c->s == '[')
			return refuse(c, c->s, "a class in a class");
		if (*c->s == '&' && c->end - c->s > 1 && c->s[1] == '&')
			return refuse(c, c->s, "&& in a class");
		if (*c->s == '\\') {
			const bool set = c->end - c->s > 1 && strchr("sSdDpP", c->s[1]);
			rc = set ? set_in_class(c, first) : escape(c, true);
			continue;
		}
		put_literal(c);
	}
	if (rc)
		return rc;
	if (c->s == c->end)
		return refuse(c, at, "a class without an end");
	put_str(c, "]");
	c->s++;
	return 0;
}

static int group(struct scan *c)
{
	static const char *const legal[] = {"(?:",  "(?=",  "(?!",   "(?<=", "(?<!",
	                                    "(?<!", "(?i:", "(?-i:", "(?i)"};
	const size_t left = (size_t)(c->end - c->s);
	if (left > 1 && c->s[1] == '*')
		return refuse(c, c->s, "a verb");
	if (left < 2 || c->s[1] != '?') {
		put_str(c, "(?:"); /* nothing refers to groups by number */
		c->s++;
		return 0;
	}
	for (size_t i = 0; i < sizeof(legal) / sizeof(legal[0]); i++) {
		const size_t n = strlen(legal[i]);
		if (n <= left && memcmp(c->s, legal[i], n) == 0) {
			if (strcmp(legal[i], "(?i)") == 0 && c->s != c->start)
				break; /* the two differ in how far it reaches */
			put(c, c->s, n);
			c->s += n;
			return 0;
		}
	}
	return refuse(c, c->s, "a kind of group");
}

/* {n}, {n,}, {n,m} and {,m}; anything else is a literal brace. */
static int braces(struct scan *c)
{
	const char *at = c->s, *s = at + 1, *low = s, *high = NULL;
	while (s < c->end && is_digit(*s))
		s++;
	const size_t n_low = (size_t)(s - low);
	size_t n_high = 0;
	if (s < c->end && *s == ',') {
		high = ++s;
		while (s < c->end && is_digit(*s))
			s++;
		n_high = (size_t)(s - high);
	}
	if (s == c->end || *s != '}' || (!n_low && !n_high)) {
		put_str(c, "\\{");
		c->s++;
		return 0;
	}
	s++;
	if (n_low > 4 || n_high > 4)
		return refuse(c, at, "a count of more than four digits");
	if (s < c->end && *s == '+')
		return refuse(c, at, "{}+");
	if (s < c->end && *s == '?' && !high)
		return refuse(c, at, "{n}?");
	put_str(c, "{");
	if (n_low)
		put(c, low, n_low);
	else
		put_str(c, "0");
	if (high) {
		put_str(c, ",");
		put(c, high, n_high);
	}
	put_str(c, "}");
	c->s = s;
	return 0;
}

int nx_regex_translate(const char *pattern, size_t len, const char *where, char *out,
                       struct nx_err *err)
{
	struct scan c = {pattern, pattern + len, where, pattern, out, 0, false, err};
	int rc = 0;
	if (len == 0 || len > NX_REGEX_MAX)
		return nx_fail(err, NX_ENOTSUP, "%s: the pattern has %zu bytes; legal: 1 to %zu",
		               where, len, NX_REGEX_MAX);
	if (memchr(pattern, '\0', len))
		return refuse(&c, memchr(pattern, '\0', len), "a NUL byte");
	while (c.s < c.end && !rc) {
		switch (*c.s) {
		case '\\': rc = escape(&c, false); break;
		case '[': rc = class(&c); break;
		case '(': rc = group(&c); break;
		case '{': rc = braces(&c); break;
		default: put_literal(&c); break;
		}
	}
	if (rc)
		return rc;
	if (c.full)
		return nx_fail(err, NX_ENOTSUP,
		               "%s: the pattern is too long; legal: %zu bytes when written out",
		               where, NX_REGEX_MAX);
	out[c.n] = '\0';
	return 0;
}
