/* SPDX-License-Identifier: Apache-2.0
 *
 * engine/param.c: one row of a parameter table -> a checked value; see registry.h.
 */
#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "engine/registry.h"

/* Index of text among "a|b|c", or -1. */
static int choice_index(const char *choices, const char *text)
{
	size_t len = strlen(text);
	int i = 0;
	for (const char *p = choices; p && *p; i++) {
		size_t n = strcspn(p, "|");
		if (n == len && memcmp(p, text, n) == 0)
			return i;
		p += n;
		if (*p == '|')
			p++;
	}
	return -1;
}

void nx_param_legal(const struct nx_param *p, char *buf, size_t size)
{
	const char *of = *p->unit ? " " : "";
	switch (p->type) {
	case NX_PARAM_INT:
		snprintf(buf, size, "an integer from %.0f to %.0f%s%s", p->min, p->max, of,
		         p->unit);
		break;
	case NX_PARAM_FLOAT:
		snprintf(buf, size, "a number from %g to %g%s%s", p->min, p->max, of, p->unit);
		break;
	case NX_PARAM_BOOL: snprintf(buf, size, "true or false"); break;
	case NX_PARAM_ENUM: {
		size_t at = (size_t)snprintf(buf, size, "one of ");
		for (const char *c = p->choices; *c && at + 1 < size; c++)
			at += (size_t)snprintf(buf + at, size - at, *c == '|' ? ", " : "%c", *c);
		break;
	}
	}
}

static int illegal(const struct nx_param *p, const char *text, struct nx_err *err)
{
	char legal[256];
	nx_param_legal(p, legal, sizeof(legal));
	return nx_fail(err, NX_EINVAL, "parameter \"%s\" is \"%s\"; legal: %s", p->key, text,
	               legal);
}

int nx_param_parse(const struct nx_param *p, const char *text, struct nx_value *out,
                   struct nx_err *err)
{
	struct nx_value v = {0};
	char *end;
	errno = 0;
	switch (p->type) {
	case NX_PARAM_INT:
		v.i = strtoll(text, &end, 10);
		if (errno || end == text || *end || (double)v.i < p->min || (double)v.i > p->max)
			return illegal(p, text, err);
		v.f = (double)v.i;
		break;
	case NX_PARAM_FLOAT:
		v.f = strtod(text, &end);
		if (errno || end == text || *end || !isfinite(v.f) || v.f < p->min || v.f > p->max)
			return illegal(p, text, err);
		break;
	case NX_PARAM_BOOL:
		if (strcmp(text, "true") != 0 && strcmp(text, "false") != 0)
			return illegal(p, text, err);
		v.b = text[0] == 't';
		v.i = v.b;
		break;
	case NX_PARAM_ENUM:
		v.i = choice_index(p->choices, text);
		if (v.i < 0)
			return illegal(p, text, err);
		v.s = text;
		break;
	}
	*out = v;
	return 0;
}

int nx_param_default(const struct nx_param *p, struct nx_value *out, struct nx_err *err)
{
	if (!p->def) {
		char legal[256];
		nx_param_legal(p, legal, sizeof(legal));
		return nx_fail(err, NX_EINVAL, "parameter \"%s\" must be given; legal: %s", p->key,
		               legal);
	}
	return nx_param_parse(p, p->def, out, err);
}
