/* SPDX-License-Identifier: Apache-2.0
 *
 * measure/stack_entry.h: one technique of a stack as written, checked against its table. Private.
 */
#ifndef NEXUS_MEASURE_STACK_ENTRY_H
#define NEXUS_MEASURE_STACK_ENTRY_H

#include "measure/experiment_internal.h"

/* The values of one parameter: one, or those of a list. */
struct nx_choice {
	struct nx_value *values;
	size_t n;
	bool list;                   /* written as a list: an axis, also with one value */
	const struct nx_yaml *where; /* the value, or NULL for the default */
};

struct nx_entry {
	const struct nx_plugin *plugin;
	const struct nx_yaml *where;
	struct nx_choice *choices; /* [plugin->n_params] */
	int32_t *written;          /* parameters in the order of the file */
	size_t n_written;
};

/* v is `technique` or `technique: {parameter: value, ...}`. */
int nx_entry_parse(struct nx_loading *l, const struct nx_yaml *v, struct nx_entry *out,
                   struct nx_err *err);
int nx_default_values(struct nx_arena *a, const struct nx_plugin *p, struct nx_value **out,
                      struct nx_err *err);
/* As an experiment file spells it. */
void nx_value_text(const struct nx_param *p, const struct nx_value *v, char *buf, size_t size);

#endif
