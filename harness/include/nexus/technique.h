/* SPDX-License-Identifier: Apache-2.0
 *
 * nexus/technique.h: the contract between the harness and an inference optimisation.
 *
 * A technique is a shared object that exports one function,
 *
 *     NX_TECHNIQUE(&table)      (const struct nx_technique *nx_technique_entry(void))
 *
 * returning a `static const struct nx_technique`. It links against nothing of ours: all it needs
 * arrives in struct nx_host. One principle carries the design: techniques decide, kernels do. A hook
 * writes descriptions that kernels read (which rows a step carries, how much room a sequence holds,
 * which attention kernel runs); it does not walk tensors.
 *
 * Life:  probe -> create -> (reset, hooks ...)* -> destroy. One instance serves one engine. Plugins are
 * never unloaded.
 *
 * Slots. A technique occupies the slots whose hooks it fills in: the harness reads them off the table.
 * A stack has at most one technique a slot. NULL means "the engine's default".
 *
 *     schedule   schedule, victim
 *     kv_layout  kv_geometry, kv_target
 *     attention  attention_plan
 *
 * Two kinds of hook. PLAN hooks run on the host and write only what they are handed. ENQUEUE hooks put
 * work on a stream. Hooks on the timed path (all but probe, create, reset, destroy, *_geometry, *_plan)
 * do not allocate, print, lock, open files or wait. All state lives in self; no mutable globals.
 *
 * Errors: 0 or a negative nx_code and one sentence in *err (see err.h). Threads: hooks of one instance
 * are called by one thread. Units are in the names; lengths without a unit are tokens (= KV rows).
 */
#ifndef NEXUS_TECHNIQUE_H
#define NEXUS_TECHNIQUE_H

#include "nexus/device.h"

#ifdef __cplusplus
extern "C" {
#endif

#define NX_TECHNIQUE_MAGIC 0x4e58544543484e51ull /* "NXTECHNQ" */
#define NX_TECHNIQUE_ABI 1u                      /* bumped when existing members change meaning */
#define NX_TECHNIQUE_SYMBOL "nx_technique_entry"

/* ---- parameters and counters ------------------------------------------------------------------ */

enum nx_param_type { NX_PARAM_INT, NX_PARAM_FLOAT, NX_PARAM_BOOL, NX_PARAM_ENUM };

/* One row serves parsing, range checks, defaults, `nexus list NAME`, docs and the run file. */
struct nx_param {
	const char *key;
	enum nx_param_type type;
	const char *def;     /* default, spelled as in an experiment file; NULL = must be given */
	double min, max;     /* inclusive; for INT and FLOAT */
	const char *choices; /* ENUM: "max|exact" */
	const char *unit;    /* "tokens", "rows", ""; never NULL */
	const char *help;    /* one sentence */
};

/* A parsed value, in the order of the table. ENUM: i is the index of the choice, s its text. */
struct nx_value {
	int64_t i;
	double f;
	bool b;
	const char *s;
};

struct nx_counter {
	const char *name;
	const char *unit;
	const char *help;
};

/* ---- traits ----------------------------------------------------------------------------------- */

/* X(NAME, bit, text): properties of a run. A technique says which it assumes and which it breaks; two
 * techniques conflict when one breaks what the other assumes. */
#define NX_TRAITS(X)                                                                               \
	X(FULL_KV, 0, "every committed KV row stays readable until its sequence ends")             \
	X(KEPT_KV, 1, "KV rows computed in one step stay for the next")                            \
	X(SPLIT_PROMPT, 2, "a prompt may be computed in several chunks")                           \
	X(LATE_JOIN, 3, "sequences join and leave a running batch")                                \
	X(BLOCK_TABLE, 4, "a sequence's KV is made of blocks that can be shared")

enum nx_trait {
#define X(name, bit, text) NX_TRAIT_##name = 1 << (bit),
	NX_TRAITS(X)
#undef X
};

/* Flags of a technique. */
#define NX_TECH_EXACT 1u /* claims the base's greedy tokens; failing the gate fails the cell */
#define NX_TECH_NEEDS_TOKENS                                                                       \
	2u /* must see tokens on the host: the stack runs without planning ahead */
#define NX_TECH_HOLDS_PLACES                                                                       \
	4u /* schedule: finished sequences keep their places (phase HELD) until
                                   release_held; without it a place is free as soon as its sequence ends */

/* ---- what the harness gives to a technique ---------------------------------------------------- */

enum nx_mem { NX_MEM_DEVICE, NX_MEM_HOST };

struct nx_model_info {
	int32_t n_layers, d_model, n_heads, n_kv_heads, head_dim, d_ff, vocab, max_len;
};

struct nx_host {
	uint32_t abi, size; /* NX_TECHNIQUE_ABI, sizeof(struct nx_host) */
	void *ctx;          /* pass back as first argument */
	const struct nx_device_ops *ops;
	void *dev;
	struct nx_model_info model;
	int32_t batch_size; /* requests in flight */
	int32_t max_seqs;   /* sequences in flight = batch_size * samples */
	int32_t max_rows;   /* most rows of one forward */
	int32_t max_len;    /* most rows a sequence can have */
	bool invariant; /* exactness mode (design: a row's result depends on its own sequence alone) */

	/* Memory charged to the technique by name. NULL when there is none. Not on the timed path. */
	void *(*alloc)(void *ctx, enum nx_mem kind, size_t bytes);
	void (*free)(void *ctx, enum nx_mem kind, void *p, size_t bytes);
};

struct nx_probe {
	struct nx_model_info model;
	int32_t batch_size, max_seqs, max_len;
	const struct nx_value *values;
	uint64_t host_bytes, device_bytes; /* out: what the technique itself will take */
};

/* ---- schedule --------------------------------------------------------------------------------- */

enum nx_seq_phase {
	NX_SEQ_PREFILL, /* running; its next token needs more than one row or it has no output yet */
	NX_SEQ_DECODE,  /* running; one pending row */
	NX_SEQ_SWAPPED, /* preempted, its KV lies in host memory */
	NX_SEQ_WAITING, /* not started, or preempted and to be computed again */
	NX_SEQ_HELD,    /* finished, but its place in the batch is still taken (static batching) */
};

/* A sequence as the scheduler sees it. Counts are upper bounds where the host plans ahead. */
struct nx_sched_seq {
	uint32_t request, sample;
	enum nx_seq_phase phase;
	int32_t priority; /* higher runs first */
	int32_t samples; /* sequences that admission will start (n of the request); 1 once running */
	uint64_t arrival_ns;
	int32_t n_prompt, n_out, max_out;
	int32_t pending; /* rows to compute before the next token can be drawn */
	int32_t kv_held; /* KV rows it holds */
	int32_t kv_need; /* free KV rows that starting or resuming it takes, as the layout reserves */
	int32_t n_preempted;
};

struct nx_sched_view {
	const struct nx_sched_seq *running; /* places taken, in order of admission */
	int32_t n_running;
	const struct nx_sched_seq
		*waiting; /* in order of arrival; swapped and preempted ones first */
	int32_t n_waiting;
	int32_t batch_size; /* places in requests */
	int32_t free_seqs;  /* places in sequences */
	int32_t max_rows;   /* most rows of a step */
	int64_t kv_free;    /* KV rows free now */
	int64_t kv_total;
	bool split_prompt; /* grants smaller than `pending` are allowed (trait SPLIT_PROMPT holds) */
};

/* Rows granted to one sequence in this step. */
struct nx_grant {
	bool waiting; /* index is into waiting: start or resume it */
	int32_t index;
	int32_t rows; /* at most pending; 0 with pad > 0 for a HELD sequence */
	int32_t pad;  /* PAD rows computed after the real ones */
};

struct nx_schedule {
	struct nx_grant *grants; /* room for n_running + n_waiting */
	int32_t n_grants;
	int32_t pad_len; /* reserve at least this many rows for each granted sequence; 0 = no wish */
	bool release_held; /* free the places of all HELD sequences before the grants are served */
};

/* ---- kv_layout -------------------------------------------------------------------------------- */

enum nx_preempt { NX_PREEMPT_NONE, NX_PREEMPT_RECOMPUTE, NX_PREEMPT_SWAP };

struct nx_kv_demand {
	int32_t max_seqs, max_len;
	int64_t budget_rows; /* KV rows that the run's memory limit allows; INT64_MAX = no limit */
	int32_t longest_request; /* largest prompt + output of the workload */
};

struct nx_kv_geometry {
	int32_t block_size; /* tokens a block; max_len = one block a sequence */
	int64_t n_rows;     /* rows of the pool, a multiple of block_size when `blocks` */
	bool blocks; /* true: fixed blocks, shared by reference; false: one contiguous run each */
	bool keep;   /* false: everything is dropped after each step (no cache) */
	enum nx_preempt preempt;
	int64_t swap_rows; /* rows of host memory for swapped sequences */
};

/* A sequence that wants room. */
struct nx_kv_want {
	int32_t rows;              /* rows that must be writable now: upper bound of length + cap */
	int32_t n_prompt, max_out; /* of its request */
	int32_t max_len;
};

/* ---- attention -------------------------------------------------------------------------------- */

struct nx_attn_limits {
	int32_t n_heads, n_kv_heads, head_dim;
	int32_t max_rows, max_len;
	bool invariant;
};

/* ---- events ----------------------------------------------------------------------------------- */

enum nx_event_kind {
	NX_EVENT_ADMIT,   /* arg = KV rows matched by a prefix */
	NX_EVENT_FORK,    /* arg = sequence index of the parent */
	NX_EVENT_COMMIT,  /* arg = rows committed */
	NX_EVENT_PREEMPT, /* arg = enum nx_preempt */
	NX_EVENT_RESUME,
	NX_EVENT_RETIRE,
};

struct nx_seq_event {
	enum nx_event_kind kind;
	int32_t seq; /* index in [0, max_seqs) */
	uint32_t request, sample;
	int32_t arg;
};

/* ---- the table -------------------------------------------------------------------------------- */

struct nx_technique {
	uint64_t magic; /* NX_TECHNIQUE_MAGIC */
	uint32_t abi;   /* NX_TECHNIQUE_ABI */
	uint32_t size;  /* sizeof(struct nx_technique) of the plugin's header */

	const char *name; /* folder's name: [a-z0-9_]+ */
	const char *version;
	const char *summary; /* one line for `nexus list` */
	const char *source;  /* paper, section */

	const struct nx_param *params;     /* ends with key == NULL; NULL = none */
	const struct nx_counter *counters; /* ends with name == NULL; NULL = none */
	uint32_t assumes, breaks;          /* enum nx_trait */
	uint32_t flags;                    /* NX_TECH_* */

	/* Optional. Can this cell run? Fills in the bytes; a negative code carries the reason. */
	int (*probe)(struct nx_probe *p, struct nx_err *err);
	/* Required. values has one entry a row of params. On failure *self is untouched. */
	int (*create)(void **self, const struct nx_host *host, const struct nx_value *values,
	              struct nx_err *err);
	/* Optional. Back to just-created, between trials. */
	void (*reset)(void *self);
	/* Required. */
	void (*destroy)(void *self);
	/* Optional. Writes one value a row of counters. */
	void (*read_counters)(void *self, double *values);
	/* Optional. PLAN. */
	void (*event)(void *self, const struct nx_seq_event *e);

	/* schedule slot. PLAN. Decides which sequences get how many rows in this step. Granting nothing
	 * while something runs or waits is an error, except when release_held frees places. */
	int (*schedule)(void *self, const struct nx_sched_view *view, struct nx_schedule *out,
	                struct nx_err *err);
	/* Optional beside schedule. PLAN. Index in view->running of the sequence to preempt when the pool is
	 * exhausted, or -1 for none. NULL: the newest. */
	int32_t (*victim)(void *self, const struct nx_sched_view *view);

	/* kv_layout slot; both or neither. */
	int (*kv_geometry)(void *self, const struct nx_kv_demand *d, struct nx_kv_geometry *out,
	                   struct nx_err *err);
	/* PLAN. Rows the sequence shall hold so that want->rows are writable; never less than that. */
	int32_t (*kv_target)(void *self, const struct nx_kv_want *want);

	/* attention slot. Chooses kernel and kv_chunk for the whole run; the engine sizes the workspace
	 * through device.h and charges it to the technique. */
	int (*attention_plan)(void *self, const struct nx_attn_limits *l,
	                      enum nx_attn_kernel *kernel, int32_t *kv_chunk, struct nx_err *err);
};

/* The oldest table size that this header's harness still loads. */
#define NX_TECHNIQUE_SIZE_MIN (offsetof(struct nx_technique, attention_plan) + sizeof(void *))

typedef const struct nx_technique *(*nx_technique_fn)(void);

#if defined(__GNUC__)
#define NX_EXPORT __attribute__((visibility("default")))
#else
#define NX_EXPORT
#endif

#define NX_TECHNIQUE(table)                                                                        \
	NX_EXPORT const struct nx_technique *nx_technique_entry(void);                             \
	NX_EXPORT const struct nx_technique *nx_technique_entry(void)                              \
	{                                                                                          \
		return table;                                                                      \
	}                                                                                          \
	struct nx_technique /* swallows the semicolon */

#define NX_TECHNIQUE_HEAD                                                                          \
	.magic = NX_TECHNIQUE_MAGIC, .abi = NX_TECHNIQUE_ABI, .size = sizeof(struct nx_technique)

#ifdef __cplusplus
}
#endif
#endif
