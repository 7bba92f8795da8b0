/* SPDX-License-Identifier: Apache-2.0 */
/* The input describes a plugin's table: numbers, texts, which hooks there are. The table lies in memory of just the
 * size that it claims, its parameter and counter tables in memory of their rows. What passes the checks is used
 * as the program does: values are parsed, the technique is laid into a stack. */
#include <stdlib.h>
#include <string.h>

#include "engine/registry.h"
#include "fuzz/fuzz.h"

#define ROWS_MAX 70 /* more than a table may have, so that one without an end is met */
#define TEXTS_MAX 600

struct made {
	char *texts[TEXTS_MAX];
	size_t n_texts;
	struct nx_technique *table;
	struct nx_param *params;
	struct nx_counter *counters;
};

/* One of a few good texts, NULL, or one of the input's own. */
static const char *text(struct made *m, struct fuzz_bytes *b)
{
	static const char *const good[] = {"window", "block_size", "tokens", "", "16",
	                                   "a|b|cd", "true",       "0.5",    "b"};
	uint8_t which = fuzz_u8(b);
	if (which < 8)
		return NULL;
	if (which < 128 || m->n_texts == TEXTS_MAX)
		return good[which % (sizeof(good) / sizeof(good[0]))];
	return m->texts[m->n_texts++] = fuzz_text(b);
}

static void make_params(struct made *m, struct fuzz_bytes *b, size_t n, bool ends)
{
	m->params = calloc(n + ends, sizeof(*m->params));
	fuzz_expect(m->params != NULL, "there is memory");
	for (size_t i = 0; i < n; i++) {
		struct nx_param *p = &m->params[i];
		uint32_t type = fuzz_u8(b);
		type = type == 255 ? fuzz_u32(b) : type % 5;
		memcpy(&p->type, &type, sizeof(p->type)); /* also what no enum holds */
		p->key = text(m, b);
		p->def = text(m, b);
		p->unit = text(m, b);
		p->help = text(m, b);
		p->choices = text(m, b);
		if (fuzz_u8(b) % 2) {
			p->min = fuzz_double(b);
			p->max = fuzz_double(b);
		} else {
			p->max = 4096;
		}
		if (!ends && !p->key)
			p->key = "endless";
	}
}

static void make_counters(struct made *m, struct fuzz_bytes *b, size_t n, bool ends)
{
	m->counters = calloc(n + ends, sizeof(*m->counters));
	fuzz_expect(m->counters != NULL, "there is memory");
	for (size_t i = 0; i < n; i++) {
		struct nx_counter *c = &m->counters[i];
		c->name = text(m, b);
		c->unit = text(m, b);
		c->help = text(m, b);
		if (!ends && !c->name)
			c->name = "endless";
	}
}

static int never(void)
{
	fuzz_expect(false, "no hook is called while a table is checked");
	return 0;
}

/* Which hooks there are, as bits; from probe to the end of the table all members are such pointers. */
static void make_hooks(struct nx_technique *t, struct fuzz_bytes *b)
{
	const size_t first = offsetof(struct nx_technique, probe);
	int (*const hook)(void) = never;
	uint8_t bits = 0;
	for (size_t at = first, bit = 0; at + sizeof(hook) <= sizeof(*t);
	     at += sizeof(hook), bit++) {
		if (bit % 8 == 0)
			bits = fuzz_u8(b);
		if (bits >> bit % 8 & 1)
			memcpy((char *)t + at, &hook, sizeof(hook));
	}
}

static void make(struct made *m, struct fuzz_bytes *b)
{
	struct nx_technique full = {.magic = NX_TECHNIQUE_MAGIC, .abi = NX_TECHNIQUE_ABI};
	uint8_t shape = fuzz_u8(b), odd = fuzz_u8(b);
	size_t n_params = fuzz_u8(b) % 4, n_counters = fuzz_u8(b) % 4;
	full.size = sizeof(full);
	if (shape & 1)
		full.size = fuzz_u32(b) % 2048;
	if (odd == 1)
		full.magic ^= fuzz_u32(b);
	if (odd == 2)
		full.abi = fuzz_u32(b);
	if (odd == 3)
		full.size = fuzz_u32(b);
	full.name = text(m, b);
	full.version = text(m, b);
	full.summary = text(m, b);
	full.source = text(m, b);
	full.assumes = fuzz_u32(b);
	full.breaks = fuzz_u32(b);
	full.flags = fuzz_u32(b);
	make_hooks(&full, b);
	if (shape & 2)
		make_params(m, b, odd == 4 ? ROWS_MAX : n_params, odd != 4);
	if (shape & 4)
		make_counters(m, b, odd == 5 ? ROWS_MAX : n_counters, odd != 5);
	full.params = m->params;
	full.counters = m->counters;

	/* Magic, ABI and size are read of any table; more only as far as its size says. */
	size_t bytes = full.size < 16 ? 16 : full.size > 1 << 17 ? 1 << 17 : full.size;
	m->table = calloc(1, bytes);
	fuzz_expect(m->table != NULL, "there is memory");
	memcpy(m->table, &full, bytes < sizeof(full) ? bytes : sizeof(full));
}

static void release(struct made *m)
{
	free(m->table);
	free(m->params);
	free(m->counters);
	for (size_t i = 0; i < m->n_texts; i++)
		free(m->texts[i]);
}

static void look_at_hooks(const struct nx_technique *t)
{
	int (*const hook)(void) = never, (*seen)(void);
	for (size_t at = offsetof(struct nx_technique, probe); at + sizeof(seen) <= sizeof(*t);
	     at += sizeof(seen)) {
		memcpy(&seen, (const char *)t + at, sizeof(seen));
		fuzz_expect(!seen || seen == hook, "a hook is one of the plugin's or NULL");
	}
}

static void use(const struct nx_plugin *p, const char *value)
{
	static const struct nx_technique all = {
		.name = "all", .assumes = UINT32_MAX, .breaks = UINT32_MAX};
	const struct nx_plugin others = {.technique = &all, .slots = ~p->slots};
	struct nx_stack s = {.n_layers = 1, .layers = {{.plugin = &others}}};
	struct nx_layer layer = {.plugin = p};
	struct nx_err err = {0};
	for (int32_t i = 0; i < p->n_params; i++) {
		const struct nx_param *row = &p->technique->params[i];
		struct nx_value v;
		char legal[64];
		nx_param_legal(row, legal, sizeof(legal));
		fuzz_touch(legal, strlen(legal));
		(void)nx_param_default(row, &v, &err);
		if (nx_param_parse(row, value, &v, &err))
			continue;
		fuzz_expect(row->type != NX_PARAM_INT ||
		                    ((double)v.i >= row->min && (double)v.i <= row->max),
		            "an integer that was taken is in its range");
		fuzz_expect(row->type != NX_PARAM_FLOAT || (v.f >= row->min && v.f <= row->max),
		            "a number that was taken is in its range");
	}
	look_at_hooks(p->technique);
	(void)nx_plugin_breaks(p);
	if (fuzz_told(nx_stack_put(&s, &layer, &err), &err))
		fuzz_told(nx_stack_check(&s, &err), &err);
}

FUZZ_TARGET(plugin_table)
{
	struct fuzz_bytes b = {data, data + size};
	struct made m = {0};
	struct nx_technique wide;
	struct nx_plugin p = {0};
	struct nx_err err = {0};
	char *value = fuzz_text(&b);
	make(&m, &b);
	if (fuzz_told(nx_plugin_check("in.so", m.table, &wide, &p, &err), &err))
		use(&p, value);
	release(&m);
	free(value);
	return 0;
}
