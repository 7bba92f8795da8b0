/* SPDX-License-Identifier: Apache-2.0
 *
 * cli/cli.h: what verbs share: messages, exit statuses, options, names.
 */
#ifndef NEXUS_CLI_CLI_H
#define NEXUS_CLI_CLI_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/text.h"
#include "cli/verbs.h"
#include "engine/engine.h"
#include "present/table.h"

/* Folder of the running program, static storage; "." when it cannot be read. */
const char *nx_exe_dir(void);
/* Path of the running program, static storage. */
const char *nx_exe_path(void);

/* Prints "nexus: <sentence>" on stderr. */
NX_PRINTF(1, 2) void nx_say(const char *fmt, ...);
/* Prints err's sentence and returns the exit status of its code. */
int nx_say_err(const struct nx_err *err);
int nx_exit_of(int code);

/* ---- options ---- */

enum nx_opt_kind { NX_OPT_FLAG, NX_OPT_TEXT, NX_OPT_INT, NX_OPT_REAL, NX_OPT_MANY };

struct nx_strings {
	const char **v; /* borrowed strings of argv; the array is released by nx_opts_release */
	size_t n;
};

/* One row of a verb's table: parsing and help come from it. */
struct nx_opt {
	const char *name; /* "max-tokens", or "o,output" with a short form */
	enum nx_opt_kind kind;
	void *to;          /* bool, const char *, int64_t, double, struct nx_strings */
	const char *value; /* "FILE", for help */
	const char *help;
};

struct nx_opts {
	const char *usage; /* "run FILE [options]" */
	const char *summary;
	const char *example;       /* lines after "Example:" */
	const struct nx_opt *opts; /* ends with name == NULL */
	size_t min_args, max_args;
};

/* Fills args with what is no option. Returns -1 when the verb shall go on, else an exit status (--help
 * was printed, or the usage was wrong). */
int nx_opts_parse(const struct nx_opts *o, int argc, char **argv, struct nx_strings *args);
void nx_opts_release(const struct nx_opts *o, struct nx_strings *args);

/* "1,8,32" to numbers; returns how many (at most max) or -1. */
int nx_parse_ints(const char *text, int32_t *out, int max);

/* "3 min 20 s" */
const char *nx_seconds_text(double seconds, char *buf, size_t size);

/* ---- techniques on the command line: "name" or "name:key=value,key=value" ---- */

struct nx_cli_stack {
	struct nx_stack stack;
	struct nx_value *values[NX_STACK_MAX * 4]; /* owned */
	size_t n_values;
	uint32_t taken; /* slots that specs gave; the base's may be replaced, these not */
};
/* Lays the specs over `tuned` (flash_attention where it is found) and checks the stack. */
int nx_cli_stack_init(struct nx_cli_stack *s, const struct nx_registry *reg, const char *device,
                      const char *const *specs, size_t n, struct nx_err *err);
void nx_cli_stack_release(struct nx_cli_stack *s);

/* "f32" or "bf16". */
int nx_parse_dtype(const char *text, enum nx_dtype *out, struct nx_err *err);

/* list_models.c: the table of models that have a name; returns an exit status. */
int nx_list_models(enum nx_table_format format);
/* `nexus list compatibility`, likewise. */
int nx_list_compatibility(const struct nx_registry *reg, enum nx_table_format format);
/* "attention, launch" */
const char *nx_slots_text(uint32_t slots, char *buf, size_t size);

/* "text", "md", "csv" or "json". Returns -1, or the exit status when it is none of them. */
int nx_parse_format(const char *text, enum nx_table_format *out);

/* Model, device and weights opened together for generate and bench. */
struct nx_session {
	struct nx_registry *registry;
	struct nx_model *model;
	struct nx_device dev;
	struct nx_weights *weights;
	bool open;
};
struct nx_session_config {
	const char *model, *device, *dtype;
	int64_t threads;
	bool invariant;
};
int nx_session_init(struct nx_session *s, const struct nx_session_config *c, struct nx_err *err);
void nx_session_release(struct nx_session *s);

#endif
