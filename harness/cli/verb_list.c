/* SPDX-License-Identifier: Apache-2.0
 *
 * verb_list.c: `nexus list [NAME]`: what techniques there are, and what one of them can be told.
 */
#include <stdio.h>
#include <string.h>

#include "cli/cli.h"
#include "present/table.h"

/* Prints and releases it. */
static int put_out(struct nx_text *text)
{
	bool ok = !text->failed;
	if (ok && text->s)
		fputs(text->s, stdout);
	nx_text_release(text);
	if (!ok)
		nx_say("out of memory");
	return ok ? NX_EXIT_DONE : NX_EXIT_ENVIRONMENT;
}

static int print(const struct nx_table *t, enum nx_table_format format)
{
	struct nx_text text;
	nx_text_init(&text);
	nx_table_write(t, format, &text);
	return put_out(&text);
}

const char *nx_slots_text(uint32_t slots, char *buf, size_t size)
{
	size_t at = 0;
	buf[0] = '\0';
	for (int s = 0; s < NX_SLOT_COUNT && at < size; s++)
		if (slots >> s & 1)
			at += (size_t)snprintf(buf + at, size - at, "%s%s", at ? ", " : "",
			                       nx_slot_name((enum nx_slot)s));
	return buf;
}

static const char *traits_text(uint32_t traits, char *buf, size_t size)
{
	static const struct {
		uint32_t bit;
		const char *name, *text;
	} TRAITS[] = {
#define X(name, bit, text) {NX_TRAIT_##name, #name, text},
		NX_TRAITS(X)
#undef X
	};
	size_t at = 0;
	buf[0] = '\0';
	for (size_t i = 0; i < sizeof(TRAITS) / sizeof(TRAITS[0]) && at < size; i++)
		if (traits & TRAITS[i].bit)
			at += (size_t)snprintf(buf + at, size - at, "%s%s (%s)", at ? "; " : "",
			                       TRAITS[i].name, TRAITS[i].text);
	return buf;
}

static int list_all(const struct nx_registry *reg, enum nx_table_format format)
{
	struct nx_table t;
	char slots[128];
	nx_table_init(&t);
	static const char *const HEAD[] = {"name", "slot", "summary", "source", "found", "path"};
	for (size_t i = 0; i < sizeof(HEAD) / sizeof(HEAD[0]); i++)
		nx_table_column(&t, HEAD[i], NX_LEFT);
	size_t n_good = 0;
	for (size_t i = 0; i < nx_registry_count(reg); i++) {
		const struct nx_plugin *p = nx_registry_at(reg, i);
		if (!p->technique)
			continue;
		n_good++;
		nx_table_cell(&t, "%s", p->technique->name);
		nx_table_cell(&t, "%s", nx_slots_text(p->slots, slots, sizeof(slots)));
		nx_table_cell(&t, "%s", p->technique->summary ? p->technique->summary : "");
		nx_table_cell(&t, "%s", p->technique->source ? p->technique->source : "");
		nx_table_cell(&t, "%s", nx_origin_text(p->origin));
		nx_table_cell(&t, "%s", p->path);
	}
	int status = print(&t, format);
	nx_table_release(&t);
	for (size_t i = 0; i < nx_registry_count(reg); i++) {
		const struct nx_plugin *p = nx_registry_at(reg, i);
		if (p->hidden_by)
			nx_say("hidden: %s: %s has the same name and was found first", p->path,
			       p->hidden_by);
		else if (!p->technique)
			nx_say("rejected: %s: %s", p->path,
			       p->error ? p->error : "no reason was given");
	}
	if (!n_good)
		nx_say("no technique was found; `nexus list --help` says where they are looked for");
	return status;
}

static void about(const struct nx_plugin *p, FILE *f)
{
	const struct nx_technique *t = p->technique;
	char text[1024];
	fprintf(f, "%s %s: %s\n", t->name, t->version ? t->version : "",
	        t->summary ? t->summary : "");
	fprintf(f, "  slot     %s\n", nx_slots_text(p->slots, text, sizeof(text)));
	fprintf(f, "  source   %s\n", t->source ? t->source : "");
	fprintf(f, "  assumes  %s\n",
	        t->assumes ? traits_text(t->assumes, text, sizeof(text)) : "nothing");
	fprintf(f, "  breaks   %s\n",
	        t->breaks ? traits_text(t->breaks, text, sizeof(text)) : "nothing");
	fprintf(f, "  exact    %s\n",
	        t->flags & NX_TECH_EXACT ? "claims the base's greedy tokens; the gate checks it"
	                                 : "not claimed");
	if (t->flags & NX_TECH_NEEDS_TOKENS)
		fprintf(f,
		        "  needs    tokens on the host: the stack runs without planning ahead\n");
	fprintf(f, "  file     %s (%s)\n\n", p->path, nx_origin_text(p->origin));
}

/* As code, where nothing in it would end the code or the cell. */
static void md_code(struct nx_text *out, const char *s)
{
	const char *tick = *s && !strpbrk(s, "`|\n") ? "`" : "";
	nx_text_put(out, tick);
	if (*tick)
		nx_text_put(out, s);
	else
		nx_text_md(out, s);
	nx_text_put(out, tick);
}

static void md_legal(struct nx_text *out, const struct nx_param *p)
{
	char text[256];
	if (p->type == NX_PARAM_INT || p->type == NX_PARAM_FLOAT) {
		nx_param_legal(p, text, sizeof(text));
		nx_text_md(out, text);
		return;
	}
	const char *at = p->type == NX_PARAM_BOOL ? "true|false" : p->choices;
	while (*at) {
		size_t n = strcspn(at, "|");
		snprintf(text, sizeof(text), "%.*s", (int)n, at);
		md_code(out, text);
		at += n + (at[n] == '|');
		nx_text_put(out, *at ? ", " : "");
	}
}

/* Two tables, as READMEs want them: what can be set, and what is counted. */
static int list_one_md(const struct nx_plugin *p)
{
	struct nx_text out;
	nx_text_init(&out);
	nx_text_put(&out, p->n_params
	                          ? "| parameter | default | legal | meaning |\n|---|---|---|---|\n"
	                          : "It has no parameters.\n");
	for (int32_t i = 0; i < p->n_params; i++) {
		const struct nx_param *q = &p->technique->params[i];
		nx_text_put(&out, "| ");
		md_code(&out, q->key);
		nx_text_put(&out, " | ");
		if (q->def)
			md_code(&out, q->def);
		else
			nx_text_put(&out, "must be given");
		nx_text_put(&out, " | ");
		md_legal(&out, q);
		nx_text_put(&out, " | ");
		nx_text_md(&out, q->help);
		nx_text_put(&out, " |\n");
	}
	nx_text_put(&out, p->n_counters ? "\n| counter | unit | meaning |\n|---|---|---|\n"
	                                : "\nIt keeps no counters.\n");
	for (int32_t i = 0; i < p->n_counters; i++) {
		const struct nx_counter *q = &p->technique->counters[i];
		nx_text_put(&out, "| ");
		md_code(&out, q->name);
		nx_text_put(&out, " | ");
		nx_text_md(&out, q->unit);
		nx_text_put(&out, " | ");
		nx_text_md(&out, q->help);
		nx_text_put(&out, " |\n");
	}
	return put_out(&out);
}

static int list_one(const struct nx_plugin *p, enum nx_table_format format)
{
	struct nx_table t;
	char legal[256];
	about(p, format == NX_TABLE_TEXT ? stdout : stderr);
	if (format == NX_TABLE_MD)
		return list_one_md(p);
	nx_table_init(&t);
	static const char *const HEAD[] = {"kind", "name", "default", "legal", "unit", "help"};
	for (size_t i = 0; i < sizeof(HEAD) / sizeof(HEAD[0]); i++)
		nx_table_column(&t, HEAD[i], NX_LEFT);
	for (int32_t i = 0; i < p->n_params; i++) {
		const struct nx_param *q = &p->technique->params[i];
		nx_param_legal(q, legal, sizeof(legal));
		nx_table_cell(&t, "parameter");
		nx_table_cell(&t, "%s", q->key);
		nx_table_cell(&t, "%s", q->def ? q->def : "must be given");
		nx_table_cell(&t, "%s", legal);
		nx_table_cell(&t, "%s", q->unit);
		nx_table_cell(&t, "%s", q->help);
	}
	for (int32_t i = 0; i < p->n_counters; i++) {
		const struct nx_counter *c = &p->technique->counters[i];
		nx_table_cell(&t, "counter");
		nx_table_cell(&t, "%s", c->name);
		nx_table_cell(&t, "%s", "");
		nx_table_cell(&t, "%s", "");
		nx_table_cell(&t, "%s", c->unit);
		nx_table_cell(&t, "%s", c->help);
	}
	int status = print(&t, format);
	nx_table_release(&t);
	return status;
}

int nx_verb_list(int argc, char **argv)
{
	const char *format_text = "text";
	struct nx_strings args;
	struct nx_strings paths = {0};
	const struct nx_opt opts[] = {
		{"format", NX_OPT_TEXT, &format_text, "FORMAT", "text, md, csv or json (text)"},
		{"path", NX_OPT_MANY, &paths, "DIR",
	         "look for plugins there first; may be repeated"},
		{0},
	};
	const struct nx_opts o = {
		.usage = "list [NAME] [options]",
		.summary =
			"Shows the techniques that were found, or the parameters, legal values and counters of one; with\n"
			"NAME `models` the models that have a name: files, and shapes with random weights; with NAME\n"
			"`compatibility` which techniques stack with which, and why not with the rest.\n"
			"Plugins are looked for in the folders of --path, in those of $NEXUS_TECHNIQUE_PATH (a:b), in\n"
			"lib/nexus/techniques of the installation, and in techniques/ beside the program. The first\n"
			"one of a name is taken. Experiments name folders of their own under `techniques`.",
		.example = "  nexus list paged_attention --format md",
		.opts = opts,
		.max_args = 1,
	};
	enum nx_table_format format = NX_TABLE_TEXT;
	struct nx_registry *reg = NULL;
	struct nx_err err = {0};
	int status = nx_opts_parse(&o, argc, argv, &args);
	if (status < 0)
		status = nx_parse_format(format_text, &format);
	if (status >= 0)
		goto out;
	if (args.n && !strcmp(args.v[0], "models")) {
		status = nx_list_models(format);
		goto out;
	}
	if (nx_registry_open(&reg, paths.v, paths.n, nx_exe_dir(), &err)) {
		status = nx_say_err(&err);
		goto out;
	}
	if (!args.n) {
		status = list_all(reg, format);
	} else if (!strcmp(args.v[0], "compatibility")) {
		status = nx_list_compatibility(reg, format);
	} else {
		const char *near = NULL;
		const struct nx_plugin *p = nx_registry_find(reg, args.v[0], &near);
		if (p) {
			status = list_one(p, format);
		} else {
			nx_say("there is no technique '%s'%s%s%s", args.v[0],
			       near ? "; did you mean '" : "", near ? near : "",
			       near ? "'?" : "; `nexus list` shows them");
			status = NX_EXIT_USAGE;
		}
	}
out:
	if (reg)
		nx_registry_close(reg);
	nx_opts_release(&o, &args);
	return status;
}
