/* SPDX-License-Identifier: Apache-2.0
 *
 * nexus/fake_table.h: checks that count themselves, and those of a technique's table, as the program makes them when
 * it loads a plugin. For fake_host.h; header-only.
 */
#ifndef NEXUS_FAKE_TABLE_H
#define NEXUS_FAKE_TABLE_H

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "nexus/technique.h"

#ifdef __cplusplus
extern "C" {
#endif

#define NX_FAKE_MAX 64 /* parameters, counters, sequences, waiting work */

/* ---- counting ----------------------------------------------------------------------------------- */

struct nx_fake_sum {
	int passed, failed;
};

static inline struct nx_fake_sum *nx_fake_sum(void)
{
	static struct nx_fake_sum sum;
	return &sum;
}

NX_PRINTF(4, 5)
static inline bool nx_fake_check(bool ok, const char *file, int line, const char *fmt, ...)
{
	va_list ap;
	if (ok) {
		nx_fake_sum()->passed++;
		return true;
	}
	nx_fake_sum()->failed++;
	fprintf(stderr, "%s:%d: failed: ", file, line);
	va_start(ap, fmt);
	vfprintf(stderr, fmt, ap);
	va_end(ap);
	fputc('\n', stderr);
	return false;
}

/* NX_CHECK(condition, "what must hold, %d", value): true when it does. */
#define NX_CHECK(cond, ...) nx_fake_check((cond) ? true : false, __FILE__, __LINE__, __VA_ARGS__)

/* Prints the sum; the exit status of the test program. */
static inline int nx_fake_done(void)
{
	printf("%d passed, %d failed\n", nx_fake_sum()->passed, nx_fake_sum()->failed);
	return nx_fake_sum()->failed ? EXIT_FAILURE : EXIT_SUCCESS;
}

/* ---- the table ---------------------------------------------------------------------------------- */

static inline bool nx_fake_is_name(const char *s)
{
	return s && s[0] >= 'a' && s[0] <= 'z' && strlen(s) < 48 &&
	       strspn(s, "abcdefghijklmnopqrstuvwxyz0123456789_") == strlen(s);
}

/* Parses text as a value of p; keep (64 bytes) holds the text of an ENUM. False = not legal. */
static inline bool nx_fake_parse(const struct nx_param *p, const char *text, struct nx_value *v,
                                 char *keep)
{
	char *end = NULL;
	memset(v, 0, sizeof(*v));
	switch (p->type) {
	case NX_PARAM_INT:
		v->i = strtoll(text, &end, 10);
		v->f = (double)v->i;
		return end != text && !*end && v->f >= p->min && v->f <= p->max;
	case NX_PARAM_FLOAT:
		v->f = strtod(text, &end);
		return end != text && !*end && v->f >= p->min && v->f <= p->max;
	case NX_PARAM_BOOL: v->b = !strcmp(text, "true"); return v->b || !strcmp(text, "false");
	case NX_PARAM_ENUM:
		for (const char *c = p->choices; c && *c; v->i++) {
			size_t n = strcspn(c, "|");
			if (n == strlen(text) && !strncmp(c, text, n)) {
				snprintf(keep, 64, "%s", text);
				v->s = keep;
				return true;
			}
			c += n + (c[n] == '|');
		}
		return false;
	}
	return false;
}

static inline bool nx_fake_together(int have, int all, const char *names)
{
	if (have && have != all)
		NX_CHECK(false, "hooks %s come together or not at all", names);
	return have == all;
}

/* Slots whose hooks are there; counts what is wrong. */
static inline int nx_fake_slots(const struct nx_technique *t)
{
	int draft = (t->flags & NX_TECH_NEEDS_TOKENS) ? 2 : 3;
	return nx_fake_together(!!t->schedule, 1, "schedule") +
	       nx_fake_together(!!t->kv_geometry + !!t->kv_target, 2, "kv_geometry, kv_target") +
	       nx_fake_together(!!t->codec_layout + !!t->codec_attend, 2,
	                        "codec_layout, codec_attend") +
	       nx_fake_together(!!t->prefix_geometry + !!t->prefix_match + !!t->prefix_publish +
	                                !!t->prefix_evict,
	                        4, "prefix_geometry, prefix_match, prefix_publish, prefix_evict") +
	       nx_fake_together(!!t->draft_needs + !!t->propose + (draft == 3 && t->draft), draft,
	                        "draft_needs, propose and draft (or flag NX_TECH_NEEDS_TOKENS)") +
	       nx_fake_together(!!t->weight_pack + !!t->weight_drop + !!t->weight_bytes +
	                                !!t->weight_linear,
	                        4, "weight_pack, weight_drop, weight_bytes, weight_linear") +
	       nx_fake_together(!!t->attention_plan, 1, "attention_plan") +
	       nx_fake_together(!!t->launch_plan, 1, "launch_plan");
}

/* True when the program would take it. */
static inline bool nx_fake_check_table(const struct nx_technique *t)
{
	struct nx_value v;
	char keep[64];
	int n = 0, before = nx_fake_sum()->failed;
	if (!NX_CHECK(t->magic == NX_TECHNIQUE_MAGIC && t->abi == NX_TECHNIQUE_ABI &&
	                      t->size >= NX_TECHNIQUE_SIZE_MIN,
	              "the table begins with NX_TECHNIQUE_HEAD"))
		return false;
	NX_CHECK(nx_fake_is_name(t->name) && t->version && t->summary && t->source && t->create &&
	                 t->destroy,
	         "the table has a name ([a-z0-9_]+), version, summary, source, create, destroy");
	for (const struct nx_param *p = t->params; p && p->key && n < NX_FAKE_MAX; p++, n++) {
		NX_CHECK(nx_fake_is_name(p->key) && p->unit && p->help &&
		                 (p->type != NX_PARAM_ENUM || p->choices),
		         "parameter row %d has a name, unit, help and, for ENUM, choices", n);
		if (p->def)
			NX_CHECK(nx_fake_parse(p, p->def, &v, keep), "the default of %s is legal",
			         p->key);
	}
	NX_CHECK(n < NX_FAKE_MAX, "the parameter table ends with {0}");
	n = 0;
	for (const struct nx_counter *c = t->counters; c && c->name && n < NX_FAKE_MAX; c++, n++)
		NX_CHECK(nx_fake_is_name(c->name) && c->unit && c->help,
		         "counter row %d has a name, unit and help", n);
	NX_CHECK(n < NX_FAKE_MAX, "the counter table ends with {0}");
	NX_CHECK(!n || t->read_counters, "with counters comes read_counters");
	NX_CHECK(nx_fake_slots(t) > 0, "the hooks of at least one slot are there");
	return nx_fake_sum()->failed == before;
}

#ifdef __cplusplus
}
#endif
#endif
