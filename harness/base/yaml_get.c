/* SPDX-License-Identifier: Apache-2.0 */
#include <stdio.h>
#include <string.h>

#include "base/text.h"
#include "base/yaml.h"

/* ---- messages --------------------------------------------------------------------------------- */

const char *nx_yaml_place(const struct nx_yaml *v, char *buf, size_t size)
{
	/* Of a very long path the end says more, and line and column must have room. */
	const size_t keep = 160, n = strlen(v->file);
	const char *cut = n > keep ? "..." : "", *file = n > keep ? v->file + (n - keep) : v->file;
	if (v->line > 0)
		snprintf(buf, size, "%s%s:%d:%d", cut, file, v->line, v->column);
	else
		snprintf(buf, size, "%s%s", cut, file);
	return buf;
}

int nx_yaml_fail(const struct nx_yaml *v, struct nx_err *err, int code, const char *fmt, ...)
{
	char place[256], text[NX_ERR_MAX];
	va_list ap;
	va_start(ap, fmt);
	vsnprintf(text, sizeof(text), fmt, ap);
	va_end(ap);
	return nx_fail(err, code, "%s: %s", nx_yaml_place(v, place, sizeof(place)), text);
}

/* What a node is, for the "found" part. */
static const char *found(const struct nx_yaml *v, char *buf, size_t size)
{
	if (v->kind == NX_YAML_LIST)
		return "a list";
	if (v->kind == NX_YAML_MAP)
		return "a mapping";
	return v->null ? "nothing" : nx_quote(buf, size, v->text);
}

int nx_yaml_illegal(const struct nx_yaml *v, const char *legal, struct nx_err *err)
{
	char f[96];
	return nx_yaml_fail(v, err, NX_EINVAL, "found %s for %.60s; legal: %s",
	                    found(v, f, sizeof(f)), v->label, legal);
}

int nx_yaml_unknown(const struct nx_yaml *v, const char *const *names, size_t n, struct nx_err *err)
{
	char list[256];
	const char *near = v->kind == NX_YAML_SCALAR ? nx_near_name(v->text, names, n) : NULL;
	nx_list_text(list, sizeof(list), names, n);
	if (!near)
		return nx_yaml_illegal(v, n ? list : "(none)", err);
	char f[96];
	return nx_yaml_fail(v, err, NX_EINVAL,
	                    "found %s for %.60s; legal: %s; did you mean \"%s\"?",
	                    found(v, f, sizeof(f)), v->label, list, near);
}

/* ---- mappings --------------------------------------------------------------------------------- */

struct nx_yaml *nx_yaml_get(const struct nx_yaml *v, const char *key)
{
	if (!v || v->kind != NX_YAML_MAP)
		return NULL;
	for (struct nx_yaml *c = v->first; c; c = c->next)
		if (strcmp(c->key->text, key) == 0)
			return c;
	return NULL;
}

static bool among(const char *s, const char *const *names, size_t n)
{
	for (size_t i = 0; i < n; i++)
		if (strcmp(s, names[i]) == 0)
			return true;
	return false;
}

int nx_yaml_check_map(const struct nx_yaml *v, const char *const *names, size_t n,
                      struct nx_err *err)
{
	char list[256], legal[300], f[96];
	nx_list_text(list, sizeof(list), names, n);
	if (v->kind != NX_YAML_MAP) {
		snprintf(legal, sizeof(legal), "a mapping with %s", list);
		return nx_yaml_illegal(v, legal, err);
	}
	for (const struct nx_yaml *c = v->first; c; c = c->next) {
		if (among(c->key->text, names, n))
			continue;
		const char *near = nx_near_name(c->key->text, names, n);
		nx_quote(f, sizeof(f), c->key->text);
		if (near)
			return nx_yaml_fail(
				c->key, err, NX_EINVAL,
				"found the unknown key %s; legal: %s; did you mean \"%s\"?", f,
				list, near);
		return nx_yaml_fail(c->key, err, NX_EINVAL, "found the unknown key %s; legal: %s",
		                    f, list);
	}
	return 0;
}

/* ---- scalars ---------------------------------------------------------------------------------- */

static bool is_value(const struct nx_yaml *v)
{
	return v->kind == NX_YAML_SCALAR && !v->null;
}

int nx_yaml_text(const struct nx_yaml *v, const char *legal, const char **out, struct nx_err *err)
{
	if (!is_value(v) || !v->text[0])
		return nx_yaml_illegal(v, legal, err);
	*out = v->text;
	return 0;
}

int nx_yaml_i32(const struct nx_yaml *v, int32_t min, int32_t max, int32_t *out, struct nx_err *err)
{
	int64_t i;
	if (is_value(v) && nx_parse_i64(v->text, &i) == 0 && i >= min && i <= max) {
		*out = (int32_t)i;
		return 0;
	}
	char legal[80];
	snprintf(legal, sizeof(legal), "an integer from %d to %d", min, max);
	return nx_yaml_illegal(v, legal, err);
}

int nx_yaml_u64(const struct nx_yaml *v, uint64_t *out, struct nx_err *err)
{
	if (is_value(v) && nx_parse_u64(v->text, out) == 0)
		return 0;
	return nx_yaml_illegal(v, "an integer from 0 to 18446744073709551615", err);
}

int nx_yaml_double(const struct nx_yaml *v, double min, double max, double *out, struct nx_err *err)
{
	double d;
	if (is_value(v) && nx_parse_double(v->text, &d) == 0 && d >= min && d <= max) {
		*out = d;
		return 0;
	}
	char legal[80];
	snprintf(legal, sizeof(legal), "a number from %g to %g", min, max);
	return nx_yaml_illegal(v, legal, err);
}

int nx_yaml_bool(const struct nx_yaml *v, bool *out, struct nx_err *err)
{
	if (is_value(v) && nx_parse_bool(v->text, out) == 0)
		return 0;
	return nx_yaml_illegal(v, "true, false", err);
}

int nx_yaml_size(const struct nx_yaml *v, uint64_t *bytes, struct nx_err *err)
{
	if (is_value(v) && nx_parse_size(v->text, bytes) == 0)
		return 0;
	return nx_yaml_illegal(v, NX_SIZE_LEGAL, err);
}

int nx_yaml_duration(const struct nx_yaml *v, double *seconds, struct nx_err *err)
{
	if (is_value(v) && nx_parse_duration(v->text, seconds) == 0)
		return 0;
	return nx_yaml_illegal(v, NX_DURATION_LEGAL, err);
}

int nx_yaml_choice(const struct nx_yaml *v, const char *const *names, size_t n, int *out,
                   struct nx_err *err)
{
	for (size_t i = 0; is_value(v) && i < n; i++)
		if (strcmp(v->text, names[i]) == 0) {
			*out = (int)i;
			return 0;
		}
	return nx_yaml_unknown(v, names, n, err);
}
