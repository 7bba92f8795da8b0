/* SPDX-License-Identifier: Apache-2.0
 *
 * cli_stack.c: a stack from the command line. See cli.h.
 */
#include <stdlib.h>
#include <string.h>

#include "cli/cli.h"

static const struct nx_param *find_param(const struct nx_plugin *p, const char *key, size_t len,
                                         int32_t *at)
{
	for (int32_t i = 0; i < p->n_params; i++) {
		const struct nx_param *q = &p->technique->params[i];
		if (strlen(q->key) == len && !strncmp(q->key, key, len)) {
			*at = i;
			return q;
		}
	}
	return NULL;
}

static int unknown_param(const struct nx_plugin *p, const char *key, struct nx_err *err)
{
	const char *names[32];
	size_t n = 0;
	for (int32_t i = 0; i < p->n_params && n < 32; i++)
		names[n++] = p->technique->params[i].key;
	const char *near = nx_near_name(key, names, n);
	return nx_fail(err, NX_EINVAL, "%s has no parameter '%s'%s%s%s; `nexus list %s` shows them",
	               p->technique->name, key, near ? "; did you mean '" : "", near ? near : "",
	               near ? "'" : "", p->technique->name);
}

/* text: "key=value,key=value", may be empty. */
static int parse_values(const struct nx_plugin *p, const char *text, struct nx_value *values,
                        struct nx_err *err)
{
	for (int32_t i = 0; i < p->n_params; i++)
		if (p->technique->params[i].def) {
			int rc = nx_param_default(&p->technique->params[i], &values[i], err);
			if (rc)
				return rc;
		}
	uint64_t given = 0;
	while (*text) {
		char pair[256], *eq;
		size_t len = strcspn(text, ",");
		if (len >= sizeof(pair))
			return nx_fail(err, NX_EINVAL, "the value after '%.40s' is too long", text);
		memcpy(pair, text, len);
		pair[len] = '\0';
		text += len + (text[len] == ',');
		eq = strchr(pair, '=');
		if (!eq)
			return nx_fail(err, NX_EINVAL, "'%s' is no key=value of %s", pair,
			               p->technique->name);
		*eq = '\0';
		int32_t at = 0;
		const struct nx_param *q = find_param(p, pair, strlen(pair), &at);
		if (!q)
			return unknown_param(p, pair, err);
		struct nx_err why = {0};
		int rc = nx_param_parse(q, eq + 1, &values[at], &why);
		if (rc)
			return nx_fail(err, rc, "%s: %s: %s", p->technique->name, q->key, why.msg);
		given |= 1ull << (at & 63);
	}
	for (int32_t i = 0; i < p->n_params; i++)
		if (!p->technique->params[i].def && !(given >> (i & 63) & 1))
			return nx_fail(err, NX_EINVAL, "%s needs %s=...", p->technique->name,
			               p->technique->params[i].key);
	return 0;
}

static int put(struct nx_cli_stack *s, const struct nx_registry *reg, const char *spec,
               struct nx_err *err)
{
	char name[64];
	size_t len = strcspn(spec, ":");
	if (len >= sizeof(name) || s->n_values == sizeof(s->values) / sizeof(s->values[0]))
		return nx_fail(err, NX_EINVAL, "'%.60s' names no technique", spec);
	memcpy(name, spec, len);
	name[len] = '\0';
	const char *near = NULL;
	const struct nx_plugin *p = nx_registry_find(reg, name, &near);
	if (!p)
		return nx_fail(err, NX_EINVAL,
		               "there is no technique '%s'%s%s%s; `nexus list` shows them", name,
		               near ? "; did you mean '" : "", near ? near : "", near ? "'" : "");
	struct nx_value *values = calloc((size_t)p->n_params + 1, sizeof(*values));
	if (!values)
		return nx_fail(err, NX_ENOMEM, "no memory for the parameters of %s", name);
	s->values[s->n_values++] = values;
	int rc = parse_values(p, spec[len] ? spec + len + 1 : "", values, err);
	struct nx_layer layer = {.plugin = p, .values = values};
	if (!rc && (s->taken & p->slots))
		rc = nx_fail(err, NX_ECONFLICT,
		             "'%s' takes a slot that an earlier --technique has; keep one", name);
	s->taken |= p->slots;
	return rc ? rc : nx_stack_put(&s->stack, &layer, err);
}

int nx_cli_stack_init(struct nx_cli_stack *s, const struct nx_registry *reg, const char *device,
                      const char *const *specs, size_t n, struct nx_err *err)
{
	memset(s, 0, sizeof(*s));
	const char *tuned;
	int rc = 0;
	for (int i = 0; !rc && (tuned = nx_tuned_technique(device, i)) != NULL; i++)
		if (nx_registry_find(reg, tuned, NULL))
			rc = put(s, reg, tuned, err);
	s->taken = 0;
	for (size_t i = 0; i < n && !rc; i++)
		rc = put(s, reg, specs[i], err);
	if (!rc)
		rc = nx_stack_check(&s->stack, err);
	if (rc)
		nx_cli_stack_release(s);
	return rc;
}

void nx_cli_stack_release(struct nx_cli_stack *s)
{
	for (size_t i = 0; i < s->n_values; i++)
		free(s->values[i]);
	memset(s, 0, sizeof(*s));
}
