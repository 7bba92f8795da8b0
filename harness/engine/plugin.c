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

/* A row a slot: hooks that come together or not at all, how many of them are there, and one that makes no sense
 * without them. */
struct slot_hooks {
	uint32_t slots;
	const char *names;
	int n_all, n_there;
	const char *lone; /* NULL = none is there */
};

/* The slots, read off the hooks. */

static int read_slots(const char *path, const struct nx_technique *t, uint32_t *out,
                      struct nx_err *err)
{
	bool draft = (t->flags & NX_TECH_NEEDS_TOKENS) != 0 || t->draft;
	const struct slot_hooks table[] = {
		{1u << NX_SLOT_SCHEDULE, "schedule", 1, !!t->schedule, t->victim ? "victim" : NULL},
		{1u << NX_SLOT_KV_LAYOUT, "kv_geometry and kv_target", 2,
	         !!t->kv_geometry + !!t->kv_target, t->kv_drop ? "kv_drop" : NULL},
		/* A codec reads its own bytes: it brings the attention along. */
		{1u << NX_SLOT_KV_CODEC | 1u << NX_SLOT_ATTENTION, "codec_layout and codec_attend",
	         2, !!t->codec_layout + !!t->codec_attend, t->codec_commit ? "codec_commit" : NULL},
		{1u << NX_SLOT_PREFIX,
	         "prefix_geometry, prefix_match, prefix_publish and prefix_evict", 4,
	         !!t->prefix_geometry + !!t->prefix_match + !!t->prefix_publish + !!t->prefix_evict,
	         NULL},
		{1u << NX_SLOT_DRAFT,
	         draft ? "draft_needs and propose"
	               : "draft_needs, propose and draft (or flag NEEDS_TOKENS)",
	         draft ? 2 : 3, !!t->draft_needs + !!t->propose,
	         t->draft     ? "draft"
	         : t->observe ? "observe"
	         : t->judged  ? "judged"
	                      : NULL},
		{1u << NX_SLOT_WEIGHTS, "weight_pack, weight_drop, weight_bytes and weight_linear",
	         4, !!t->weight_pack + !!t->weight_drop + !!t->weight_bytes + !!t->weight_linear,
	         NULL},
		{1u << NX_SLOT_ATTENTION, "attention_plan", 1, !!t->attention_plan, NULL},
	};
	uint32_t slots = 0;
	for (size_t i = 0; i < sizeof(table) / sizeof(table[0]); i++) {
		const struct slot_hooks *h = &table[i];
		if (h->n_there == h->n_all)
			slots |= h->slots;
		else if (h->n_there)
			return nx_fail(err, NX_EABI, "%s: hooks %s come together or not at all",
			               path, h->names);
		else if (h->lone)
			return nx_fail(err, NX_EABI, "%s: hook %s needs %s beside it", path,
			               h->lone, h->names);
	}
	if (!slots)
		return nx_fail(err, NX_EABI, "%s: it fills in no hook of any slot", path);
	*out = slots;
	return 0;
}

/* A copy as large as our table: what the plugin's table does not reach is zero. */
static const struct nx_technique *widen(const struct nx_technique *t)
{
	if (t->size >= sizeof(*t))
		return t;
	struct nx_technique *copy =
		calloc(1, sizeof(*copy)); /* lives as long as the process, like the plugin */
	if (copy)
		memcpy(copy, t, t->size);
	return copy;
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
	const struct nx_technique *t = entry ? entry() : NULL;
	if (!entry)
		rc = nx_fail(err, NX_EABI, "%s: no plugin: it exports no %s()", path,
		             NX_TECHNIQUE_SYMBOL);
	else if (!t)
		rc = nx_fail(err, NX_EABI, "%s: %s() returned NULL", path, NX_TECHNIQUE_SYMBOL);
	else if (t->magic != NX_TECHNIQUE_MAGIC)
		rc = nx_fail(err, NX_EABI,
		             "%s: its table does not begin with the magic number of technique.h",
		             path);
	else if (t->abi != NX_TECHNIQUE_ABI)
		rc = nx_fail(
			err, NX_EABI,
			"%s: built for plugin ABI %u, this program has %u; rebuild it against its headers",
			path, t->abi, NX_TECHNIQUE_ABI);
	else if (t->size < NX_TECHNIQUE_SIZE_MIN || t->size > 65536)
		rc = nx_fail(err, NX_EABI,
		             "%s: its table has %u bytes, at least %zu are needed; rebuild it",
		             path, t->size, (size_t)NX_TECHNIQUE_SIZE_MIN);
	if (rc)
		goto close;

	p.technique = t = widen(t);
	if (!t) {
		rc = nx_fail(err, NX_ENOMEM, "%s: out of memory", path);
		goto close;
	}
	if (!good_name(t->name) || !t->version || !t->summary || !t->source || !t->create ||
	    !t->destroy) {
		rc = nx_fail(
			err, NX_EABI,
			"%s: its table lacks a name ([a-z0-9_]+), version, summary, source, create or destroy",
			path);
		goto close;
	}
	rc = check_params(path, t, &p.n_params, err);
	if (!rc)
		rc = check_counters(path, t, &p.n_counters, err);
	if (!rc)
		rc = read_slots(path, t, &p.slots, err);
	if (rc)
		goto close;
	p.path = path;
	*out = p;
	return 0; /* so stays open: plugins are never unloaded */
close:
	dlclose(so);
	return rc;
}
