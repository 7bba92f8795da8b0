/* SPDX-License-Identifier: Apache-2.0
 *
 * engine/registry.h: finds, checks and describes techniques; builds stacks of them.
 *
 * The registry loads every *.so of its search path once: directories given by the caller (an
 * experiment's), $NEXUS_TECHNIQUE_PATH (colon-separated), $PREFIX/lib/nexus/techniques, and
 * `techniques/` beside the binary. A file that is no valid plugin is kept as a rejected entry with its
 * sentence, so that `nexus list` can show it; it does not make open fail. Of two plugins of one name the
 * first found wins; the other is kept as a hidden entry, so that nobody measures an old copy unawares. Tables point into the shared objects, which are never unloaded.
 */
#ifndef NEXUS_ENGINE_REGISTRY_H
#define NEXUS_ENGINE_REGISTRY_H

#include "nexus/technique.h"

/* X(ENUM, name): the slots in the order of a report. */
#define NX_SLOTS(X)                                                                                \
	X(SCHEDULE, "schedule")                                                                    \
	X(KV_LAYOUT, "kv_layout")                                                                  \
	X(KV_CODEC, "kv_codec")                                                                    \
	X(PREFIX, "prefix")                                                                        \
	X(DRAFT, "draft")                                                                          \
	X(WEIGHTS, "weights")                                                                      \
	X(ATTENTION, "attention")                                                                  \
	X(LAUNCH, "launch")

enum nx_slot {
#define X(e, name) NX_SLOT_##e,
	NX_SLOTS(X)
#undef X
		NX_SLOT_COUNT
};

/* X(ENUM, text): where a plugin was found, in the order of the search. */
#define NX_ORIGINS(X)                                                                              \
	X(GIVEN, "given") /* by the experiment's `techniques`, or --path */                        \
	X(ENVIRONMENT, "$NEXUS_TECHNIQUE_PATH")                                                    \
	X(INSTALLED, "installed")                                                                  \
	X(BUILT, "beside the program")

enum nx_origin {
#define X(e, text) NX_ORIGIN_##e,
	NX_ORIGINS(X)
#undef X
};

struct nx_plugin {
	const struct nx_technique *technique; /* NULL when rejected or hidden */
	const char *path;
	const char *error; /* why it was rejected, or NULL */
	const char
		*hidden_by; /* path of the plugin of the same name that was found first, or NULL */
	enum nx_origin origin;
	uint32_t slots; /* bit mask of 1 << enum nx_slot */
	int32_t n_params, n_counters;
};

struct nx_registry;

/* dirs may be NULL; a missing directory is skipped. exe_dir is where `techniques/` is looked up. */
int nx_registry_open(struct nx_registry **out, const char *const *dirs, size_t n_dirs,
                     const char *exe_dir, struct nx_err *err);
void nx_registry_close(struct nx_registry *r);
/* Loads and checks one plugin file; used by open and by tests. On failure *out is untouched. */
int nx_plugin_load(const char *path, struct nx_plugin *out, struct nx_err *err);
/* The checks of load on a table that is in memory already. One that is shorter than ours, as older plugins have
 * it, is copied to *wide, with NULL for the hooks that it lacks: out->technique is t or wide, and t's texts and
 * tables stay borrowed, like path, which is what sentences begin with. On failure *out is untouched. */
int nx_plugin_check(const char *path, const struct nx_technique *t, struct nx_technique *wide,
                    struct nx_plugin *out, struct nx_err *err);

size_t nx_registry_count(const struct nx_registry *r);
const struct nx_plugin *nx_registry_at(const struct nx_registry *r, size_t i);
/* NULL when there is none; *nearest (may be NULL) is then the closest known name, or NULL. */
const struct nx_plugin *nx_registry_find(const struct nx_registry *r, const char *name,
                                         const char **nearest);

const char *nx_slot_name(enum nx_slot s);

/* Technique i of the base "tuned" on a device of that name: what no serving engine goes without there. NULL past the
 * last. */
const char *nx_tuned_technique(const char *device, int i);
const char *nx_origin_text(enum nx_origin o);
/* Parses text as a value of p: type, range, choices. The sentence does not name the place. */
int nx_param_parse(const struct nx_param *p, const char *text, struct nx_value *out,
                   struct nx_err *err);
int nx_param_default(const struct nx_param *p, struct nx_value *out, struct nx_err *err);
/* "one of max, exact", "an integer from 1 to 4096": for messages and help. */
void nx_param_legal(const struct nx_param *p, char *buf, size_t size);

/* Traits it breaks, those that its hooks imply included. */
uint32_t nx_plugin_breaks(const struct nx_plugin *p);

/* ---- stacks ----------------------------------------------------------------------------------- */

#define NX_STACK_MAX NX_SLOT_COUNT

/* A technique with its values, as laid into a stack. */
struct nx_layer {
	const struct nx_plugin *plugin;
	struct nx_value *values; /* [plugin->n_params]; borrowed by whoever uses the stack */
};

struct nx_stack {
	int32_t n_layers;
	struct nx_layer layers[NX_STACK_MAX];
};

/* Puts layer over the stack: replaces the entries whose slots it takes. */
int nx_stack_put(struct nx_stack *s, const struct nx_layer *layer, struct nx_err *err);
/* One sentence that names both techniques when a trait is broken that another assumes. */
int nx_stack_check(const struct nx_stack *s, struct nx_err *err);
/* The layer that holds the slot, or NULL for the engine's default. */
const struct nx_layer *nx_stack_slot(const struct nx_stack *s, enum nx_slot slot);

#endif
