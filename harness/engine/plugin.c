/* SPDX-License-Identifier: Apache-2.0
 *
 * engine/plugin.c: loads one plugin and checks its table; see registry.h.
 *
 * The table comes from somebody else's compiler: nothing in it is believed before magic, ABI and size
 * were, and hooks that an older plugin's table does not reach read as NULL.
 */
#include <ctype.h>
#include <dlfcn.h>
#include <stdlib.h>
#include <string.h>

#include "engine/registry.h"

#define MAX_ROWS 64 /* of a parameter or counter table; more means that its end mark is missing */

static bool good_name(const char *s)
{
	if (!s || !islower((unsigned char)*s))
		return false;
	size_t n = strspn(s, "abcdefghijklmnopqrstuvwxyz0123456789_");
	return s[n] == '\0' && n < 48;
}

static int check_params(const char *path, const struct nx_technique *t, int32_t *n_out,
                        struct nx_err *err)
{
	int32_t n = 0;
	for (; t->params && t->params[n].key; n++) {
		const struct nx_param *p = &t->params[n];
		struct nx_value v;
		struct nx_err why;
		if (n == MAX_ROWS)
			return nx_fail(
				err, NX_EABI,
				"%s: the parameter table has no end (a row with key NULL) within %d rows",
				path, MAX_ROWS);
		if (!good_name(p->key) || !p->help || !p->unit ||
		    (unsigned)p->type > NX_PARAM_ENUM ||
		    (p->type == NX_PARAM_ENUM && (!p->choices || !*p->choices)))
			return nx_fail(
				err, NX_EABI,
				"%s: parameter row %d lacks a name ([a-z0-9_]+), unit, help, known type or choices",
				path, (int)n);
		for (int32_t i = 0; i < n; i++)
			if (strcmp(t->params[i].key, p->key) == 0)
				return nx_fail(err, NX_EABI, "%s: parameter \"%s\" is listed twice",
				               path, p->key);
		if (p->type <= NX_PARAM_FLOAT && !(p->min <= p->max)) /* NaN, too */
			return nx_fail(err, NX_EABI,
			               "%s: parameter \"%s\" has no value from %g to %g", path,
			               p->key, p->min, p->max);
		if (p->def && nx_param_parse(p, p->def, &v, &why))
			return nx_fail(err, NX_EABI, "%s: default of %.400s", path, why.msg);
	}
	*n_out = n;
	return 0;
}

static int check_counters(const char *path, const struct nx_technique *t, int32_t *n_out,
                          struct nx_err *err)
{
	int32_t n = 0;
	for (; t->counters && t->counters[n].name; n++) {
		if (n == MAX_ROWS)
			return nx_fail(
				err, NX_EABI,
				"%s: the counter table has no end (a row with name NULL) within %d rows",
				path, MAX_ROWS);
		if (!good_name(t->counters[n].name) || !t->counters[n].unit || !t->counters[n].help)
			return nx_fail(err, NX_EABI,
			               "%s: counter row %d lacks a name, unit or help", path,
			               (int)n);
	}
	if (n && !t->read_counters)
		return nx_fail(err, NX_EABI, "%s: it lists counters but has no read_counters hook",
		               path);
	*n_out = n;
	return 0;
}

/* Hooks that belong together must come together. have and need are bit masks over the names. */
static int check_group(const char *path, const char *const *names, uint32_t have, uint32_t need,
                       struct nx_err *err)
{
	uint32_t missing = need & ~have;
	if (!have || !missing)
		return 0;
	int32_t there = 0, gone = 0;
	while (!(have >> there & 1u))
		there++;
	while (!(missing >> gone & 1u))
		gone++;
	return nx_fail(err, NX_EABI, "%s: hook %s needs hook %s beside it", path, names[there],
	               names[gone]);
}

/* The slots, read off the hooks. */
static int read_slots(const char *path, const struct nx_technique *t, uint32_t *out,
                      struct nx_err *err)
{
	static const char *const schedule[] = {"schedule", "victim"},
				 *const layout[] = {"kv_geometry", "kv_target", "kv_drop"},
				 *const codec[] = {"codec_layout", "codec_attend", "codec_commit"},
				 *const prefix[] = {"prefix_geometry", "prefix_match",
	                                            "prefix_publish", "prefix_evict"},
				 *const draft[] = {"draft_needs", "propose", "draft", "observe",
	                                           "judged"},
				 *const weights[] = {"weight_pack", "weight_drop", "weight_bytes",
	                                             "weight_linear"};
#define HAS(hook, bit) (t->hook ? 1u << (bit) : 0u)
	const struct {
		const char *const *names;
		uint32_t have, need, slots;
	} groups[] = {
		{schedule, HAS(schedule, 0) | HAS(victim, 1), 1, 1u << NX_SLOT_SCHEDULE},
		{layout, HAS(kv_geometry, 0) | HAS(kv_target, 1) | HAS(kv_drop, 2), 3,
	         1u << NX_SLOT_KV_LAYOUT},
		{codec, HAS(codec_layout, 0) | HAS(codec_attend, 1) | HAS(codec_commit, 2), 1,
	         1u << NX_SLOT_KV_CODEC | (t->codec_attend ? 1u << NX_SLOT_ATTENTION : 0)},
		{prefix,
	         HAS(prefix_geometry, 0) | HAS(prefix_match, 1) | HAS(prefix_publish, 2) |
	                 HAS(prefix_evict, 3),
	         15, 1u << NX_SLOT_PREFIX},
		{draft,
	         HAS(draft_needs, 0) | HAS(propose, 1) | HAS(draft, 2) | HAS(observe, 3) |
	                 HAS(judged, 4),
	         t->flags & NX_TECH_NEEDS_TOKENS ? 3 : 7, 1u << NX_SLOT_DRAFT},
		{weights,
	         HAS(weight_pack, 0) | HAS(weight_drop, 1) | HAS(weight_bytes, 2) |
	                 HAS(weight_linear, 3),
	         15, 1u << NX_SLOT_WEIGHTS},
	};
#undef HAS
	uint32_t slots = t->attention_plan ? 1u << NX_SLOT_ATTENTION : 0;
	slots |= t->launch_plan ? 1u << NX_SLOT_LAUNCH : 0;
	for (size_t i = 0; i < sizeof(groups) / sizeof(groups[0]); i++) {
		int rc = check_group(path, groups[i].names, groups[i].have, groups[i].need, err);
		if (rc)
			return rc;
		if (groups[i].have)
			slots |= groups[i].slots;
	}
	if (!slots)
		return nx_fail(err, NX_EABI, "%s: it fills in no hook of any slot", path);
	*out = slots;
	return 0;
}

int nx_plugin_check(const char *path, const struct nx_technique *t, struct nx_technique *wide,
                    struct nx_plugin *out, struct nx_err *err)
{
	struct nx_plugin p = {.path = path};
	int rc;
	if (t->magic != NX_TECHNIQUE_MAGIC)
		return nx_fail(err, NX_EABI,
		               "%s: its table does not begin with the magic number of technique.h",
		               path);
	if (t->abi != NX_TECHNIQUE_ABI)
		return nx_fail(
			err, NX_EABI,
			"%s: built for plugin ABI %u, this program has %u; rebuild it against its headers",
			path, t->abi, NX_TECHNIQUE_ABI);
	/* Half a hook would be copied as half an address. */
	if (t->size < NX_TECHNIQUE_SIZE_MIN || t->size > 65536 || t->size % sizeof(void *))
		return nx_fail(
			err, NX_EABI,
			"%s: its table has %u bytes, at least %zu and whole hooks are needed; rebuild it",
			path, t->size, (size_t)NX_TECHNIQUE_SIZE_MIN);
	if (t->size < sizeof(*t)) { /* what the plugin's table does not reach is zero */
		memset(wide, 0, sizeof(*wide));
		memcpy(wide, t, t->size);
		t = wide;
	}
	if (!good_name(t->name) || !t->version || !t->summary || !t->source || !t->create ||
	    !t->destroy)
		return nx_fail(
			err, NX_EABI,
			"%s: its table lacks a name ([a-z0-9_]+), version, summary, source, create or destroy",
			path);
	p.technique = t;
	rc = check_params(path, t, &p.n_params, err);
	if (!rc)
		rc = check_counters(path, t, &p.n_counters, err);
	if (!rc)
		rc = read_slots(path, t, &p.slots, err);
	if (!rc)
		*out = p;
	return rc;
}

int nx_plugin_load(const char *path, struct nx_plugin *out, struct nx_err *err)
{
	struct nx_plugin p = {0};
	nx_technique_fn entry;
	void *so = dlopen(path, RTLD_NOW | RTLD_LOCAL);
	if (!so)
		return nx_fail(err, NX_EABI, "plugin cannot be loaded: %s", dlerror());
	*(void **)&entry = dlsym(so, NX_TECHNIQUE_SYMBOL);
	int rc = 0;
	struct nx_technique *wide = calloc(1, sizeof(*wide));
	const struct nx_technique *t = entry ? entry() : NULL;
	if (!entry)
		rc = nx_fail(err, NX_EABI, "%s: no plugin: it exports no %s()", path,
		             NX_TECHNIQUE_SYMBOL);
	else if (!t)
		rc = nx_fail(err, NX_EABI, "%s: %s() returned NULL", path, NX_TECHNIQUE_SYMBOL);
	else if (!wide)
		rc = nx_fail(err, NX_ENOMEM, "%s: out of memory", path);
	else
		rc = nx_plugin_check(path, t, wide, &p, err);
	if (rc || p.technique != wide)
		free(wide); /* else it lives as long as the process, like the plugin */
	if (rc)
		dlclose(so);
	else
		*out = p; /* so stays open: plugins are never unloaded */
	return rc;
}
