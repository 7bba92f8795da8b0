/* SPDX-License-Identifier: Apache-2.0
 *
 * measure/experiment_internal.h: what the files that read an experiment share. Private.
 *
 * experiment.c       load, destroy; the order of the steps
 * experiment_set.c   --set laid over the tree
 * experiment_keys.c  keys, types, ranges, defaults
 * experiment_workload.c  the workload: prompts, turns, trace; lengths that are read from them
 * experiment_paths.c models, workloads, folders
 * experiment_stacks.c, stack_expand.c   stacks, include; axes, base, conflicts, what is swept
 * cells.c, dist.c    cells and their ids; lengths
 */
#ifndef NEXUS_MEASURE_EXPERIMENT_INTERNAL_H
#define NEXUS_MEASURE_EXPERIMENT_INTERNAL_H

#include "base/arena.h"
#include "base/yaml.h"
#include "measure/experiment.h"

#define NX_LEN_MAX 1048576 /* tokens */
#define NX_DATASET_MIN 4   /* tokens: what the ShareGPT sampling of vLLM's benchmarks keeps */
#define NX_DATASET_MAX 1024
#define NX_SHARED_MAX 0.999 /* of a prompt: something is its own */
#define NX_GROUPS_MAX 1000000
#define NX_AXIS_MAX 1000   /* values of one axis */
#define NX_STACKS_MAX 1000 /* after multiplying out parameters */
#define NX_CELLS_MAX 100000
#define NX_STACK_NAME_MAX 63 /* what the run file has room for */
#define NX_INCLUDE_DEPTH_MAX 16
#define NX_BASELINE "baseline"
#define NX_RANDOM_PROMPTS "random" /* the reserved word */

#define NX_N(a) (sizeof(a) / sizeof(*(a)))

/* A stack as written, before its axes are multiplied out. */
struct nx_stack_def {
	const char *name;
	const struct nx_yaml *list; /* of techniques; list->key is the name */
	size_t first, n;            /* what became of it: indices into expanded */
	struct nx_stack_def *next;
};

struct nx_expanded {
	struct nx_named_stack named;
	const struct nx_yaml *where; /* the definition; NULL for baseline */
	const struct nx_yaml
		*max_batch_where; /* the value of a max_batch_size, where one is written */
	int64_t max_batch_size;   /* 0 = no limit */
};

/* The experiment and what it owns; x comes first, so that the public pointer is this one. */
struct nx_experiment_full {
	struct nx_experiment x;
	struct nx_arena arena;
	struct nx_registry *registry;
	struct nx_cell *cells;
	size_t n_cells;
};

/* State of one load. */
struct nx_loading {
	struct nx_experiment_full *full;
	struct nx_arena *arena; /* &full->arena */
	const char *exe_dir;    /* may be NULL */
	const char *dir;        /* the experiment's folder */
	struct nx_yaml *root;
	struct nx_stack_def *defs, *last_def;
	struct nx_expanded *expanded; /* [0] is baseline */
	size_t n_expanded, cap_expanded;
	struct nx_stack base;
	const struct nx_yaml *batch_where; /* the value of sweep.batch_size, or NULL */
	/* Files open above the one being read, for include cycles, and all read so far. */
	const char *reading[NX_INCLUDE_DEPTH_MAX];
	int n_reading;
	const char **read;
	size_t n_read;
	const char *notes; /* appended to x.text: overrides, included files */
};

/* Each returns 0 or a sentence with its place. */
int nx_load_file(struct nx_loading *l, const char *path, const char **text, struct nx_yaml **root,
                 struct nx_err *err);
int nx_load_sets(struct nx_loading *l, const char *const *sets, size_t n, struct nx_err *err);
int nx_load_keys(struct nx_loading *l, struct nx_err *err);
int nx_load_workload(struct nx_loading *l, struct nx_err *err);
/* After the sweep was read: may lengths come from where they are said to come from? Sets what a trace tells, and
 * multiplies prompt lengths with the shares of them that are in common. */
int nx_load_read_lengths(struct nx_loading *l, struct nx_err *err);
int nx_load_model(struct nx_loading *l, const struct nx_yaml *v, struct nx_err *err);
int nx_load_registry(struct nx_loading *l, struct nx_err *err);
int nx_load_stacks(struct nx_loading *l, struct nx_err *err);
int nx_expand_stacks(struct nx_loading *l, struct nx_err *err);
int nx_select_stacks(struct nx_loading *l, struct nx_err *err);
int nx_load_cells(struct nx_loading *l, struct nx_err *err);

/* An existing file or folder as the experiment means it: from its own folder, else from the working
 * directory; NULL when there is none (or no memory). */
const char *nx_resolve(struct nx_loading *l, const char *path, bool (*exists)(const char *));

/* Checks the keys of a file: the experiment's own, or one that is included. */
int nx_check_top_keys(const struct nx_yaml *root, struct nx_err *err);
int nx_dist_parse(const struct nx_yaml *v, struct nx_dist *out, struct nx_err *err);
/* Values of an axis: the value itself, or those of a list; *n of them. */
int nx_axis(const struct nx_yaml *v, const struct nx_yaml **first, size_t *n, struct nx_err *err);

/* The getters below leave the default alone when the key is absent. */
int nx_opt_bool(const struct nx_yaml *map, const char *key, bool *out, struct nx_err *err);
int nx_opt_i32(const struct nx_yaml *map, const char *key, int32_t min, int32_t max, int32_t *out,
               struct nx_err *err);
int nx_opt_double(const struct nx_yaml *map, const char *key, double min, double max, double *out,
                  struct nx_err *err);
int nx_opt_choice(const struct nx_yaml *map, const char *key, const char *const *names, size_t n,
                  int *out, struct nx_err *err);
int nx_oom(struct nx_err *err);

#endif
