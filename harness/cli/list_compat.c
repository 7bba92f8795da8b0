/* SPDX-License-Identifier: Apache-2.0
 *
 * list_compat.c: `nexus list compatibility`: which techniques stack with which, from their slots and traits.
 */
#include <stdio.h>

#include "cli/cli.h"

/* Why two cannot stand in one stack; "" when they can. Stacks are checked pair by pair, so this is all there is to
 * say before a model and a device are known. */
static const char *why_not(const struct nx_plugin *a, const struct nx_plugin *b, struct nx_err *err)
{
	const struct nx_stack s = {.n_layers = 2, .layers = {{.plugin = a}, {.plugin = b}}};
	*err = (struct nx_err){0};
	return nx_stack_check(&s, err) ? err->msg : "";
}

static void cell(struct nx_table *t, const struct nx_plugin *a, const struct nx_plugin *b,
                 bool machine)
{
	struct nx_err err;
	const char *why = a == b ? "" : why_not(a, b, &err);
	if (a == b)
		nx_table_cell(t, "%s", "-");
	else if (!*why)
		nx_table_cell(t, "%s", "yes");
	else if (machine)
		nx_table_cell(t, "no: %s", why);
	else
		nx_table_cell(t, "%s", a->slots & b->slots ? "slot" : "no");
}

/* The sentences behind each "no", a pair once. */
static void reasons(const struct nx_registry *reg, enum nx_table_format format, struct nx_text *out)
{
	const size_t n = nx_registry_count(reg);
	nx_text_put(out, format == NX_TABLE_MD
	                         ? "\n"
	                         : "\nslot: both take it, so a stack has one of them\n");
	for (size_t i = 0; i < n; i++)
		for (size_t j = i + 1; j < n; j++) {
			const struct nx_plugin *a = nx_registry_at(reg, i),
					       *b = nx_registry_at(reg, j);
			struct nx_err err;
			const char *why = a->technique && b->technique && !(a->slots & b->slots)
			                          ? why_not(a, b, &err)
			                          : "";
			if (*why)
				nx_text_printf(out, "%s%s\n",
				               format == NX_TABLE_MD ? "* " : "no: ", why);
		}
}

int nx_list_compatibility(const struct nx_registry *reg, enum nx_table_format format)
{
	const bool machine = format == NX_TABLE_CSV || format == NX_TABLE_JSON;
	const size_t n = nx_registry_count(reg);
	struct nx_table t;
	struct nx_text text;
	char slots[128];
	nx_table_init(&t);
	nx_text_init(&text);
	nx_table_column(&t, "technique", NX_LEFT);
	nx_table_column(&t, "slot", NX_LEFT);
	for (size_t i = 0; i < n; i++)
		if (nx_registry_at(reg, i)->technique)
			nx_table_column(&t, nx_registry_at(reg, i)->technique->name, NX_LEFT);
	for (size_t i = 0; i < n; i++) {
		const struct nx_plugin *a = nx_registry_at(reg, i);
		if (!a->technique)
			continue;
		nx_table_cell(&t, "%s", a->technique->name);
		nx_table_cell(&t, "%s", nx_slots_text(a->slots, slots, sizeof(slots)));
		for (size_t j = 0; j < n; j++)
			if (nx_registry_at(reg, j)->technique)
				cell(&t, a, nx_registry_at(reg, j), machine);
	}
	nx_table_write(&t, format, &text);
	if (!machine)
		reasons(reg, format, &text);
	bool ok = !text.failed;
	if (ok && text.s)
		fputs(text.s, stdout);
	nx_text_release(&text);
	nx_table_release(&t);
	if (!ok)
		nx_say("out of memory");
	return ok ? NX_EXIT_DONE : NX_EXIT_ENVIRONMENT;
}
