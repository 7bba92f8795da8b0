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
 *     kv_layout  kv_geometry, kv_target, kv_drop
 *     kv_codec   codec_layout, codec_attend, codec_commit (takes the attention slot, too)
 *     prefix     prefix_geometry, prefix_match, prefix_publish, prefix_evict
 *     draft      draft_needs, propose, draft, observe, judged
 *     weights    weight_pack, weight_drop, weight_bytes, weight_linear
 *     attention  attention_plan
 *     launch     launch_plan
 *
 * Two kinds of hook. PLAN hooks run on the host and write only what they are handed. ENQUEUE hooks put
 * work on a stream through host->ops (operations of the device, or enqueue() for a function of their own) and
 * must not look at device memory: the work runs later, and on a GPU elsewhere. The host structs that such a
 * hook is handed are borrowed for the call: enqueue() copies its args, so what the function needs goes into them
 * by value; device.h says there how long pointers into device memory stay good. Hooks on the timed path (all but
 * probe, create, reset, destroy, *_geometry, *_plan) do not allocate, print, lock, open files or wait. All state
 * lives in self; no mutable globals.
 *
 * Errors: 0 or a negative nx_code and one sentence in *err (see err.h). Threads: hooks of one instance
 * are called by one thread. Units are in the names; lengths without a unit are tokens (= KV rows).
 */
#ifndef NEXUS_TECHNIQUE_H
#define NEXUS_TECHNIQUE_H

#include "nexus/slots.h"

#ifdef __cplusplus
extern "C" {
#endif

#define NX_TECHNIQUE_MAGIC 0x4e58544543484e51ull /* "NXTECHNQ" */
#define NX_TECHNIQUE_ABI 4u /* bumped when existing members change; 4: with NX_DEVICE_ABI 4 */
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
	int32_t max_rows;   /* most rows of one forward, and of one product */
	int32_t max_len;    /* most rows a sequence can have */
	bool invariant; /* exactness mode (design: a row's result depends on its own sequence alone) */

	/* Memory charged to the technique by name. NULL when there is none. Not on the timed path. */
	void *(*alloc)(void *ctx, enum nx_mem kind, size_t bytes);
	void (*free)(void *ctx, enum nx_mem kind, void *p, size_t bytes);

	/* Prefix caches, from PLAN hooks. hold: block `index` of the sequence at `place` stays when the sequence
	 * goes; returns its id, or -1 when there is no room. Over a contiguous layout its rows are copied into the
	 * cache's own pool. release: gives the block back. */
	int32_t (*kv_hold)(void *ctx, int32_t place, int32_t index);
	void (*kv_release)(void *ctx, int32_t block);
	/* No sequence has the block: releasing it gives its rows back at once. */
	bool (*kv_idle)(void *ctx, int32_t block);
};

struct nx_probe {
	struct nx_model_info model;
	int32_t batch_size, max_seqs, max_len;
	const struct nx_value *values;
	uint32_t device_caps; /* NX_DEV_*; C that touches device memory needs NX_DEV_HOST_MEMORY */
	char device_kind[16]; /* name of the backend: "cpu", "cuda" */
	uint64_t host_bytes, device_bytes; /* out: what the technique itself will take */
};

/* ---- events ----------------------------------------------------------------------------------- */

enum nx_event_kind {
	NX_EVENT_ADMIT,   /* arg = KV rows matched by a prefix */
	NX_EVENT_FORK,    /* arg = sequence index of the parent */
	NX_EVENT_COMMIT,  /* arg = upper bound of the rows committed: planned + drafted */
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
	/* Optional. PLAN. Whatever the technique's slot. */
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

	/* ---- since ABI 2 */

	/* Optional. What is kept from earlier runs (entries, rows, ...): 0 after create and after reset. A trial
	 * that starts with more is invalid. */
	int64_t (*warm)(void *self);

	/* kv_layout slot, optional. PLAN. Breaks FULL_KV. Returns how many rows to drop, 0 = none, and the first
	 * of them: whole blocks where the layout has blocks. Later rows move down; positions stay. */
	int32_t (*kv_drop)(void *self, const struct nx_kv_held *held, int32_t *first);

	/* kv_codec slot: codec_layout and codec_attend; codec_commit too when window > 1. codec_layout is asked
	 * twice: before the layout is known (block_size 0) and after; bytes and window stay the same. */
	int (*codec_layout)(void *self, const struct nx_codec_limits *l,
	                    struct nx_codec_layout *out, struct nx_err *err);
	/* ENQUEUE, once a layer of each forward, after rotation: encodes, attends, keeps (see nx_codec_step). a and
	 * what it points to are borrowed: copy *a->attention, and of it *rows, *state and *kv, into enqueue()'s args. */
	int (*codec_attend)(void *self, struct nx_stream *s, const struct nx_codec_step *a,
	                    struct nx_err *err);
	/* ENQUEUE, when drafts were accepted. c is borrowed, as above. */
	int (*codec_commit)(void *self, struct nx_stream *s, const struct nx_codec_commit *c,
	                    struct nx_err *err);

	/* prefix slot: all four. */
	int (*prefix_geometry)(void *self, const struct nx_prefix_limits *l,
	                       struct nx_prefix_geometry *out, struct nx_err *err);
	/* PLAN. How many leading tokens are cached: a multiple of the block size, less than n (one token at least
	 * is computed). Fills blocks [result / block_size] with ids; blocks == NULL only asks (a hint). */
	int32_t (*prefix_match)(void *self, const int32_t *tokens, int32_t n, int32_t *blocks);
	/* PLAN. New full blocks of a sequence may be cached: kv_hold() those that are wanted. */
	void (*prefix_publish)(void *self, const struct nx_prefix_rows *r);
	/* PLAN. The pool is short of `rows` rows: kv_release() blocks that are kv_idle(). Returns rows given back. */
	int64_t (*prefix_evict)(void *self, int64_t rows);

	/* draft slot: draft_needs, propose, and draft unless NX_TECH_NEEDS_TOKENS is set (a host drafter). */
	int (*draft_needs)(void *self, const struct nx_draft_limits *l, struct nx_draft_needs *out,
	                   struct nx_err *err);
	/* PLAN, each step for each decoding sequence that may draft. Returns the number of rows, 0 to cap, or
	 * NX_UNDRAFTABLE. A host drafter writes rows [result]; others are handed NULL and write them in draft. */
	int32_t (*propose)(void *self, const struct nx_draft_seq *s, struct nx_draft_row *rows);
	/* ENQUEUE, before the forward of a step in which sequences decode, drafting or not. d and its host structs
	 * (*out, *last, *state, *kv, *group, *target) are borrowed: enqueue() takes them by value. */
	int (*draft)(void *self, struct nx_stream *s, const struct nx_draft_step *d,
	             struct nx_err *err);
	/* Optional. ENQUEUE, after each forward, prompts included. o is borrowed, as above. */
	int (*observe)(void *self, struct nx_stream *s, const struct nx_observe *o,
	               struct nx_err *err);
	/* Optional. ENQUEUE, after the verdict of each step that emits. j is borrowed, as above. */
	int (*judged)(void *self, struct nx_stream *s, const struct nx_judged *j,
	              struct nx_err *err);

	/* weights slot: all four. Packs a matrix: 0 and *out, or NX_WEIGHT_LEFT, or a negative code. Not on the
	 * timed path; memory comes from host->alloc or host->ops->weight_create: what weight_bytes says beyond
	 * what was taken by alloc is charged to the technique. d->quant and d->codes are the file's, where it
	 * holds codes of one format for the whole matrix: zero them to have codes made from d->rows. */
	int (*weight_pack)(void *self, const struct nx_weight_desc *d, enum nx_weight_role role,
	                   int32_t layer, void **out, struct nx_err *err);
	void (*weight_drop)(void *self, void *w);
	uint64_t (*weight_bytes)(void *self, const void *w);
	/* ENQUEUE. The product of nx_linear with a packed matrix; a->w is NULL. */
	int (*weight_linear)(void *self, struct nx_stream *s, const void *w,
	                     const struct nx_linear *a, struct nx_err *err);

	/* ---- with NX_DEVICE_ABI 5 */

	/* launch slot. Chooses for the whole run how steps are launched: see nx_launch_plan. */
	int (*launch_plan)(void *self, const struct nx_launch_limits *l, struct nx_launch_plan *out,
	                   struct nx_err *err);

	/* ---- with NX_DEVICE_ABI 6 */

	/* weights slot, optional. Bytes that weight_pack would take for the matrix, before anything is loaded (d's
	 * sources are not called): 0 and *bytes, or NX_WEIGHT_LEFT, or a negative code. NULL: a forecast counts
	 * all matrices as the device has them, and what probe says on top. */
	int (*weight_forecast)(void *self, const struct nx_weight_desc *d, enum nx_weight_role role,
	                       int32_t layer, uint64_t *bytes, struct nx_err *err);
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
