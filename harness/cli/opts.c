/* SPDX-License-Identifier: Apache-2.0
 *
 * opts.c: one table parses a verb's options and prints its help. See cli.h.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cli/cli.h"

#define OPTS_MAX 32

/* "o,output": the short form is 'o', the long one "output"; without a comma there is no short form. */
static const char *long_name(const struct nx_opt *o)
{
	return o->name[1] == ',' ? o->name + 2 : o->name;
}

static char short_name(const struct nx_opt *o)
{
	return o->name[1] == ',' ? o->name[0] : '\0';
}

static void help(const struct nx_opts *o)
{
	printf("usage: nexus %s\n\n%s\n", o->usage, o->summary);
	if (o->opts->name)
		printf("\nOptions:\n");
	for (const struct nx_opt *p = o->opts; p->name; p++) {
		char left[64], dash[8] = "";
		if (short_name(p))
			snprintf(dash, sizeof(dash), "-%c, ", short_name(p));
		snprintf(left, sizeof(left), "%s--%s %s", dash, long_name(p),
		         p->value ? p->value : "");
		printf("  %-26s %s\n", left, p->help);
	}
	printf("\nExample:\n%s\n", o->example);
}

static int bad(const struct nx_opts *o, const char *what, const char *name)
{
	char verb[32];
	snprintf(verb, sizeof(verb), "%.*s", (int)strcspn(o->usage, " "), o->usage);
	nx_say("%s '%s'; `nexus %s --help` shows the usage", what, name, verb);
	return NX_EXIT_USAGE;
}

static const struct nx_opt *find(const struct nx_opts *o, const char *arg, size_t len)
{
	for (const struct nx_opt *p = o->opts; p->name; p++) {
		if (arg[0] == '-' && arg[1] == '-' && strlen(long_name(p)) == len - 2 &&
		    !strncmp(arg + 2, long_name(p), len - 2))
			return p;
		if (len == 2 && arg[0] == '-' && short_name(p) && arg[1] == short_name(p))
			return p;
	}
	return NULL;
}

static int unknown(const struct nx_opts *o, const char *arg)
{
	const char *names[OPTS_MAX];
	size_t n = 0;
	for (const struct nx_opt *p = o->opts; p->name && n < OPTS_MAX; p++)
		names[n++] = long_name(p);
	const char *near = nx_near_name(arg + strspn(arg, "-"), names, n);
	if (!near)
		return bad(o, "unknown option", arg);
	nx_say("unknown option '%s'; did you mean '--%s'?", arg, near);
	return NX_EXIT_USAGE;
}

static bool push(struct nx_strings *s, const char *text)
{
	const char **v = realloc(s->v, (s->n + 1) * sizeof(*v));
	if (!v)
		return false;
	s->v = v;
	s->v[s->n++] = text;
	return true;
}

static int store(const struct nx_opts *o, const struct nx_opt *p, const char *value)
{
	char *end = NULL;
	errno = 0;
	switch (p->kind) {
	case NX_OPT_FLAG: *(bool *)p->to = true; return -1;
	case NX_OPT_TEXT: *(const char **)p->to = value; return -1;
	case NX_OPT_MANY: return push(p->to, value) ? -1 : bad(o, "out of memory at", value);
	case NX_OPT_INT: *(int64_t *)p->to = strtoll(value, &end, 10); break;
	case NX_OPT_REAL: *(double *)p->to = strtod(value, &end); break;
	}
	if (end == value || *end || errno) {
		nx_say("--%s takes %s, not '%s'", long_name(p),
		       p->kind == NX_OPT_INT ? "an integer" : "a number", value);
		return NX_EXIT_USAGE;
	}
	return -1;
}

int nx_opts_parse(const struct nx_opts *o, int argc, char **argv, struct nx_strings *args)
{
	*args = (struct nx_strings){0};
	bool only_args = false;
	for (int i = 1; i < argc; i++) {
		const char *arg = argv[i];
		if (only_args || arg[0] != '-' || !arg[1]) {
			if (!push(args, arg))
				return NX_EXIT_ENVIRONMENT;
			continue;
		}
		if (!strcmp(arg, "--")) {
			only_args = true;
			continue;
		}
		if (!strcmp(arg, "--help") || !strcmp(arg, "-h")) {
			help(o);
			return NX_EXIT_DONE;
		}
		const char *eq = arg[1] == '-' ? strchr(arg, '=') : NULL;
		const struct nx_opt *p = find(o, arg, eq ? (size_t)(eq - arg) : strlen(arg));
		if (!p)
			return unknown(o, arg);
		const char *value = eq ? eq + 1 : NULL;
		if (p->kind == NX_OPT_FLAG && value)
			return bad(o, "no value is taken by", arg);
		if (p->kind != NX_OPT_FLAG && !value) {
			if (i + 1 >= argc)
				return bad(o, "a value is missing after", arg);
			value = argv[++i];
		}
		int rc = store(o, p, value);
		if (rc >= 0)
			return rc;
	}
	if (args->n < o->min_args || args->n > o->max_args) {
		if (args->n > o->max_args)
			nx_say("\"%s\" is one argument too many", args->v[o->max_args]);
		fprintf(stderr, "usage: nexus %s\n", o->usage);
		return NX_EXIT_USAGE;
	}
	return -1;
}

void nx_opts_release(const struct nx_opts *o, struct nx_strings *args)
{
	for (const struct nx_opt *p = o->opts; p->name; p++)
		if (p->kind == NX_OPT_MANY) {
			struct nx_strings *s = p->to;
			free(s->v);
			*s = (struct nx_strings){0};
		}
	free(args->v);
	*args = (struct nx_strings){0};
}
