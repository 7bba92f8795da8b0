/* SPDX-License-Identifier: Apache-2.0
 *
 * measure/experiment.h: an experiment file, parsed, checked and multiplied out into cells.
 *
 * A cell is one point of the sweep: stack x batch size x prompt length x output length. All strings and
 * arrays belong to the experiment and live until nx_experiment_destroy. Errors carry file:line:column,
 * what was found, what is legal, and the nearest known name.
 */
#ifndef NEXUS_MEASURE_EXPERIMENT_H
#define NEXUS_MEASURE_EXPERIMENT_H

#include "engine/registry.h"

/* Lengths: a fixed number or a distribution, drawn per request with the workload's seed; or read: from the
 * workload's trace, row by row, or from its texts as they are (see workload.h). */
enum nx_dist_kind {
	NX_DIST_FIXED,
	NX_DIST_UNIFORM,
	NX_DIST_LOGNORMAL,
	NX_DIST_TRACE,
	NX_DIST_DATASET
};

struct nx_dist {
	enum nx_dist_kind kind;
	int32_t min,
		max; /* FIXED: min == max; LOGNORMAL, TRACE: clipped to [min, max]; DATASET: others left out */
	double mean,
		sigma; /* LOGNORMAL: mean of the lengths, sigma of their logarithm; TRACE: mean of its rows */
	double shared; /* prompts: share of each, from its begin on, that it has in common with others */
};

struct nx_named_stack {
	const char *name;      /* "baseline", "paged[block_size=16]" where a parameter is an axis */
	struct nx_stack stack; /* with the base below it */
	bool base_only;        /* the reserved stack `baseline` */
	bool unrecorded; /* its trials keep their length alone: what recording costs is measured so */
	const char
		*spec; /* canonical one-line text of all layers and values; hashed into cell ids */
};

/* How each round visits the cells: in an order of its own, or as the sweep lists them. */
enum nx_order { NX_ORDER_SHUFFLED, NX_ORDER_SORTED };

struct nx_trials {
	int32_t min, max; /* equal when exact */
	double rel_ci; /* stop when the relative half-width of the headline's interval is below; 0 = never */
};

struct nx_slo {
	double ttft_ms, tpot_ms, e2el_ms; /* 0 = no objective */
};

/* Which user turns of a conversation become requests. */
enum nx_turns { NX_TURNS_LAST, NX_TURNS_FIRST, NX_TURNS_ALL };

/* What outputs are: drawn from the model, or fed from the data in their place, so that the next turn goes on from them. */
enum nx_answers { NX_ANSWERS_MODEL, NX_ANSWERS_FILE };

struct nx_trace;
struct nx_metric_group; /* instrument.h */

struct nx_workload_spec {
	const char *
		prompts; /* path of a file, resolved against the experiment's folder; NULL = random tokens */
	enum nx_turns turns;
	enum nx_answers answers;
	const struct nx_trace *trace; /* of the experiment; NULL = none */
	int32_t groups; /* how many different beginnings prompts share, see nx_dist.shared; 0 counts as 1 */
	int32_t samples;
	uint64_t seed;
	bool ignore_eos;
	float temperature, top_p, min_p;
	int32_t top_k;
};

struct nx_experiment {
	const char *path, *name; /* name = file name without .yaml */
	const char *question;    /* the first comment line without "# " */
	const char *text;        /* the file, with --set overrides noted at its end */
	const char *model;       /* resolved path, or a shape preset's name */
	const char *device;      /* "cpu", "cuda:0" */
	const char *base;        /* "plain" or "tuned" */
	enum nx_dtype dtype;
	bool invariant;
	int32_t threads;          /* 0 = all */
	uint64_t kv_budget_bytes; /* `kv_memory: 64MiB`; 0 = no limit */
	double timeout_s;         /* a trial; default 600 */
	struct nx_workload_spec workload;
	int32_t *batch_size; /* NX_BATCH_FIT among them: the largest that fits */
	size_t n_batch_size;
	struct nx_dist *seq_len;
	size_t n_seq_len;
	struct nx_dist *output_len;
	size_t n_output_len;
	struct nx_named_stack *stacks;
	size_t n_stacks;           /* those of the sweep, in its order */
	int32_t num_requests;      /* total, or 0 */
	int32_t requests_per_slot; /* times the batch size, when num_requests is 0 */
	struct nx_trials trials;
	enum nx_order order;
	double min_effect; /* default 0.01 */
	size_t reference;  /* index into stacks */
	struct nx_slo slo;
	const char *const *technique_paths;
	size_t n_technique_paths;
	bool gate; /* exactness gate; default true */
	/* What the device's counters are asked for, where it has any; NULL = `counters: off`. */
	const struct nx_metric_group *counters;
	uint64_t time_line_ns; /* between samples of the device; 0 = off */
};

/* `batch_size: fit`: a cell's own is found when its device is known, see nx_runner_fit(). */
#define NX_BATCH_FIT 0
#define NX_BATCH_MAX 4096 /* what an engine takes */

struct nx_cell {
	char id[17]; /* 16 hex digits: hash of axis values, stack spec, workload, model name */
	size_t index;
	const struct nx_named_stack *stack;
	size_t stack_index;
	bool fit;           /* the axis says so; its id depends on that, not on what is found */
	int32_t batch_size; /* NX_BATCH_FIT until nx_experiment_settle() */
	struct nx_dist seq_len, output_len;
	size_t seq_len_index, output_len_index;
	int32_t num_requests;
	int32_t samples; /* the workload's; 0 = 1 */
	int32_t longest; /* prompt + output of the trace's longest row; 0 = seq_len.max + output_len.max */
};

/* sets: "sweep.batch_size=1,4" as given by --set. exe_dir: for the registry's search path. The registry
 * is opened here (its path may be in the file) and owned by the experiment. */
int nx_experiment_load(struct nx_experiment **out, const char *path, const char *const *sets,
                       size_t n_sets, const char *exe_dir, struct nx_err *err);
void nx_experiment_destroy(struct nx_experiment *x);
const struct nx_registry *nx_experiment_registry(const struct nx_experiment *x);
/* The cells, stacks varying fastest; array owned by the experiment. */
const struct nx_cell *nx_experiment_cells(const struct nx_experiment *x, size_t *n);
/* Gives a cell of `batch_size: fit` its batch size, and the requests that follow from it. Others stay as they are. */
void nx_experiment_settle(struct nx_experiment *x, size_t cell, int32_t batch_size);
/* "512" or "uniform 100-500" or "lognormal mean 200 sigma 1 max 1024" or "trace 4-900" or "dataset 4-1024", where
 * prompts share their begin "90% shared of 512"; returns buf. */
const char *nx_dist_text(const struct nx_dist *d, char *buf, size_t size);
/* NaN for DATASET: that is known when the texts were tokenised. */
double nx_dist_mean(const struct nx_dist *d);
/* u in [0, 1) pairs; pure function, so that every stack gets the same lengths. Not for TRACE and DATASET, which
 * are read and not drawn. */
int32_t nx_dist_draw(const struct nx_dist *d, uint64_t seed, uint64_t index);

#endif
