/* SPDX-License-Identifier: Apache-2.0
 *
 * engine/impl.h: what the files of the engine share. Not for others.
 *
 * A step walks through them in this order:
 *     view.c      what the scheduler may see
 *     admit.c     its grants become places and KV room; preemption
 *     prefix.c    what a prefix cache has of a prompt, and what it may keep
 *     propose.c   how many rows the drafter wants, and which (host drafters)
 *     plan.c      rows, emits and commits, written to one buffer and uploaded
 *     launch.c    operation by operation, or one graph
 *     forward.c   draft, the pass over all rows, verdict, commit
 *     reconcile.c results, one step late while planning ahead
 *     loop.c      arrivals, the order of all this, retirement
 *
 * Counts while the host plans ahead. What a step in flight accepts of its drafts is not known yet, so len and
 * n_out of a sequence are upper bounds; `slack` is how much of them drafts in flight may take back.
 */
#ifndef NEXUS_ENGINE_IMPL_H
#define NEXUS_ENGINE_IMPL_H

#include "engine/engine.h"
#include "engine/store.h"

struct nx_layer_weights {
	struct nx_weight *qkv, *o, *gate_up, *down;
	float *attn_norm, *ffn_norm; /* device, [d_model] */
	float *bias;                 /* device, of q, k, v side by side; NULL = none */
	float *q_norm, *k_norm;      /* device, [head_dim]; NULL = none */
};

struct nx_weights {
	struct nx_device *dev;
	const struct nx_model *model; /* borrowed */
	struct nx_shape shape;
	enum nx_dtype dtype;
	const struct nx_tokenizer *tokenizer; /* NULL = none: no token ends a sequence */
	bool planned;                         /* a forecast's: no matrix is there */
	struct nx_weight *embed, *output;     /* one matrix when tied */
	float *out_norm, *inv_freq;           /* device */
	struct nx_layer_weights *layers;
	int32_t *users; /* [n_layers, NX_WEIGHT_ROLE_COUNT] engines that have taken a matrix */
	uint64_t bytes;
};

/* A sequence: one sample of a request, from arrival to its last token. */
struct nx_seq {
	bool live;
	bool announced; /* the sink knows of it */
	bool ended;     /* every output is planned, or an end token was seen */
	const struct nx_request *req;
	uint32_t sample, gen; /* gen tells apart the users of one entry */
	int32_t place;        /* -1 = none */
	enum nx_seq_phase phase;
	int32_t parent;  /* waits for that sequence's prompt, then forks from it; -1 = none */
	int32_t *tokens; /* prompt and outputs known to the host; [max_len + 1] */
	int32_t n_tokens;
	int32_t max_out;       /* clipped to the context */
	int32_t n_out, n_seen; /* outputs planned, outputs read */
	int32_t len;           /* rows in the store, this step's included once it is planned */
	int32_t slack;         /* drafted rows in flight, counted in n_out and len as if accepted */
	int32_t n_dropped; /* rows that the layout dropped: the next position is len + n_dropped */
	int32_t n_published; /* leading rows that a prefix cache was offered or gave */
	int32_t ahead;    /* rows by which the drafter's group starts ahead of len, after a hit */
	int32_t n_rounds; /* rounds of drafting */
	int32_t last_drafted, last_accepted; /* of the latest round read; -1 = none */
	int32_t lives; /* tells apart what was computed before and after a recomputing preemption */
	bool undraftable; /* said so by the drafter */
	int32_t redo;     /* rows at its end whose features the drafter lacks */
	int32_t n_preempted;
	enum nx_finish why;
	uint64_t arrival_ns;
	struct nx_swapped swapped;
};

/* Outputs of one sequence in a step in flight: one, and as many more as drafts are accepted. */
struct nx_flight {
	int32_t seq, place;
	int32_t index; /* of the first output; an upper bound while the host plans ahead */
	int32_t n_draft, lives;
	uint32_t gen;
};

/* Host side of a step; two take turns when planning ahead. */
struct nx_step {
	uint8_t *host;     /* pinned: what plan.c uploads */
	int32_t *tokens;   /* pinned, [max_seqs, verdict.stride]: what comes back */
	int32_t *accepted; /* pinned, [max_seqs] */
	int32_t *path;     /* pinned, [max_seqs, verdict.stride]; read when logits are wanted */
	struct nx_event *done;
	struct nx_flight *flights; /* [max_emit] */
	int32_t n_flights;
	bool in_flight;
	struct nx_step_info info;
};

/* Hooks whose attention is counted by the key: counted.c. */
enum nx_unseen { NX_UNSEEN_DRAFT, NX_UNSEEN_OBSERVE, NX_UNSEEN_COUNT };

struct nx_chunk { /* one forward of a step */
	int32_t row0, n_rows, seg0, n_segs, max_keys;
	int32_t gather0, n_gather;
	int32_t observed0, n_observed;
	int32_t n_redo; /* rows */
};

/* Offsets into the plan buffer for a bucket of rows. */
struct nx_plan_layout {
	size_t seq, token, slot_off, pos_off, kind, scratch, n_anc; /* int32 [rows] */
	size_t segments, gather, emits, commits, inits, samplers, spans;
	size_t force, override;                    /* by place */
	size_t d_token, d_parent, d_kind, d_q_row; /* a host drafter's rows, by place */
	size_t bytes;                              /* what is uploaded */
	size_t anc, bytes_device;                  /* written on the device */
};

/* A technique's weights; NULL where the device's own are used, which the engine then has taken. */
struct nx_packed {
	void *w[NX_WEIGHT_ROLE_COUNT];
	bool native[NX_WEIGHT_ROLE_COUNT];
};

struct nx_owner_ctx {
	struct nx_engine *e;
	size_t owner;
};

struct nx_slot_hook { /* a layer of the stack, instantiated */
	const struct nx_technique *t;
	void *self;
	struct nx_host host;
	struct nx_owner_ctx owner;
	uint64_t probe_bytes; /* what it said it will take */
};

#define NX_OWNER_MAX (8 + NX_STACK_MAX)

struct nx_engine {
	struct nx_engine_config cfg;
	const struct nx_weights *w;
	struct nx_device *dev;
	struct nx_stream *stream;
	bool plan_ahead;
	uint32_t broken; /* traits */

	int32_t n_hooks;
	struct nx_slot_hook hooks[NX_STACK_MAX];
	/* NULL = the engine's default */
	struct nx_slot_hook *sched, *layout, *attn, *codec, *prefix, *drafter, *packer, *launcher;
	bool holds_places;

	int32_t max_seqs;  /* places */
	int32_t n_entries; /* entries of seqs: places twice, since held ones and new ones overlap */
	int32_t max_len, longest;
	int32_t max_rows, max_chunk_rows, max_chunks, max_segs;
	int32_t row_cap;    /* max_rows and the REDO rows of each sequence */
	int32_t max_logits; /* rows of logits */
	size_t act_bytes;   /* of one activation element */

	struct nx_store store;
	enum nx_attn_kernel attn_kernel;
	int32_t kv_chunk;

	/* Device memory. */
	struct nx_seq_state state;
	struct nx_sampler *samplers;
	uint8_t *plan_dev;
	struct nx_verdict verdict;
	struct nx_draft draft;         /* stride 0 = no drafter */
	struct nx_draft_needs needs;   /* zero without a drafter */
	struct nx_draft_row *proposed; /* host, [stride] */
	struct nx_seq_state group;     /* the drafter's layer group */
	struct nx_target target;
	void *taps[NX_TAP_MAX];
	struct nx_codec_layout codec_layout; /* window 1 without a codec */
	bool own_codec; /* encoding and attention are the codec technique's, not the device's */
	struct nx_prefix_geometry prefix_geo;
	int32_t *matched;         /* host, blocks of a match */
	struct nx_packed *packed; /* [n_layers]; the output in the first */
	void *x, *h, *qkv, *attn_out, *ff, *lx, *lh;
	float *logits;
	void *workspace;
	size_t workspace_bytes;

	/* Sequences. */
	struct nx_seq *seqs; /* [n_entries] */
	int32_t *token_space;
	int32_t *run, n_run;   /* entries with a place, in order of admission */
	int32_t *wait, n_wait; /* in the order the scheduler shall see */
	int32_t *free_places, n_free_places;

	/* The plan under construction. */
	struct nx_sched_seq *view_run, *view_wait;
	int32_t *view_run_seq, *view_wait_seq; /* entry of each view row */
	struct nx_sched_view view;
	struct nx_grant *grants;
	struct nx_schedule out;
	bool *granted, *dropped; /* by entry; by grant */
	struct nx_plan_layout lay;
	struct nx_chunk *chunks;
	struct nx_observed *observed; /* by chunk */
	int32_t n_chunks, n_rows, n_segs, n_emits, n_commits, n_gather, n_inits;
	int32_t n_before; /* commits that come before the forward: rows that were dropped */
	int32_t n_spans, n_drafted, n_observed;
	struct nx_uncounted unseen[NX_UNSEEN_COUNT]; /* of the step: counted.c */
	bool forced, overridden;
	struct nx_step steps[2];
	int32_t turn;

	/* The run. */
	const struct nx_request *reqs;
	size_t n_reqs, next_req, n_done_reqs;
	int32_t *left;     /* samples still open, by client */
	int32_t in_flight; /* requests arrived and not done */
	const struct nx_sink *sink;
	float *logits_host;

	struct nx_graphs *graphs; /* NULL: operation by operation */

	/* Memory by owner. */
	struct nx_mem_use owners[NX_OWNER_MAX];
	size_t n_owners;
	int64_t peak_used_rows;

	int32_t n_empty_steps;  /* in a row: grants were made and all fell away */
	struct nx_err late_err; /* of a call that has no way to fail: the step ends with it */
};

/* memory.c: allocation with an owner's name on it. */
size_t nx_engine_owner(struct nx_engine *e, const char *name);
void *nx_engine_alloc(struct nx_engine *e, size_t owner, enum nx_mem kind, size_t bytes);
void nx_engine_free(struct nx_engine *e, size_t owner, enum nx_mem kind, void *p, size_t bytes);

/* sizes.c: limits and geometry, shared by create and forecast. Geometry and attention ask the hooks. */
int nx_engine_sizes(struct nx_engine *e, const struct nx_shape *shape, struct nx_err *err);
int nx_engine_geometry(struct nx_engine *e, const struct nx_shape *shape, enum nx_dtype dtype,
                       struct nx_kv_geometry *out, struct nx_err *err);
int nx_engine_attention(struct nx_engine *e, const struct nx_shape *shape, struct nx_err *err);
int nx_engine_codec(struct nx_engine *e, const struct nx_shape *shape, enum nx_dtype dtype,
                    const struct nx_kv_geometry *geo, struct nx_err *err);
int nx_engine_draft_needs(struct nx_engine *e, const struct nx_shape *shape, enum nx_dtype dtype,
                          struct nx_err *err);
int nx_engine_prefix(struct nx_engine *e, const struct nx_kv_geometry *geo, int64_t row_bytes,
                     struct nx_err *err);
/* Most rows of a product with a layer's weights, as far as that is known beforehand. */
int32_t nx_engine_product_rows(const struct nx_engine *e, const struct nx_kv_geometry *geo);
/* Layer groups of the store: the target's and the drafter's. Returns how many. */
int32_t nx_engine_groups(const struct nx_engine *e, const struct nx_shape *shape,
                         enum nx_dtype dtype, struct nx_group_shape out[NX_STORE_GROUPS]);
/* Bytes of the activations of one forward, by buffer; the sum is what "activations" owns. */
struct nx_act_sizes {
	size_t x, h, qkv, attn_out, ff, lx, lh, logits, taps;
};
struct nx_act_sizes nx_engine_act_sizes(const struct nx_engine *e, const struct nx_shape *shape);

/* hooks.c: instances of the stack's techniques. */
int nx_hooks_create(struct nx_engine *e, const struct nx_shape *shape, struct nx_err *err);
void nx_hooks_destroy(struct nx_engine *e);
void nx_hooks_event(struct nx_engine *e, enum nx_event_kind kind, int32_t seq, int32_t arg);

/* weights.c: how a matrix is read for packing; src is the context of out->rows. */
struct nx_weight_source {
	const struct nx_model *model;
	enum nx_weight_id id;
	int32_t layer;
};
void nx_weights_desc(const struct nx_weights *w, enum nx_weight_role role, int32_t layer,
                     struct nx_weight_source *src, struct nx_weight_desc *out);

/* The file's own codes, where it holds the whole matrix in one format that devices have. */
void nx_weights_codes(const struct nx_weights *w, struct nx_weight_source *src,
                      struct nx_weight_desc *d);
/* Matrices in the device's form. take: loads it unless it is there, and it stays until as many gives; shed: it goes
 * unless somebody has it. An embedding stays. */
int nx_weights_take(struct nx_weights *w, enum nx_weight_role role, int32_t layer,
                    struct nx_err *err);
void nx_weights_give(struct nx_weights *w, enum nx_weight_role role, int32_t layer);
void nx_weights_shed(struct nx_weights *w, enum nx_weight_role role, int32_t layer);
uint64_t nx_weights_forecast_one(const struct nx_weights *w, enum nx_weight_role role,
                                 int32_t layer, int32_t rows);
/* Bytes of norms, biases and frequencies. */
uint64_t nx_weights_vector_bytes(const struct nx_weights *w);

/* Makes what large products take beside the packed form, outside the timed path; *bytes as nx_weights_forecast
 * has it. packed [n_layers]: a technique's, or NULL. */
int nx_weights_prepare(const struct nx_weights *w, const struct nx_packed *packed, int32_t max_rows,
                       int32_t max_logits, uint64_t *bytes, struct nx_err *err);

/* packed.c: a weights technique packs what it wants; products go to whoever packed the matrix. */
int nx_pack_create(struct nx_engine *e, struct nx_err *err);
void nx_pack_destroy(struct nx_engine *e);
/* Bytes of the weights: as the device has them, and as the technique packs them. */
int nx_pack_forecast(struct nx_engine *e, int32_t max_rows, uint64_t *own, uint64_t *packed,
                     struct nx_err *err);
int nx_product(struct nx_engine *e, enum nx_weight_role role, int32_t layer,
               const struct nx_weight *native, struct nx_linear *a, struct nx_err *err);

/* schedule_static.c: the default of the schedule slot: padded, runs to completion. */
int nx_schedule_static(const struct nx_sched_view *view, struct nx_schedule *out,
                       struct nx_err *err);

/* view.c */
void nx_view_build(struct nx_engine *e);
int32_t nx_seq_pending(const struct nx_seq *s);
/* Planning ahead of drafts, a step may be planned for a sequence that turns out to have ended: rows more that it may
 * hold. */
int32_t nx_wasted_rows(const struct nx_engine *e);
int32_t nx_kv_rows(const struct nx_engine *e, const struct nx_seq *s, int32_t rows);

/* admit.c: serves e->out.grants: places, KV room, preemption. Grants that fall away are marked dropped. */
int nx_admit(struct nx_engine *e, struct nx_step *st, struct nx_err *err);
void nx_seq_leave(struct nx_engine *e, int32_t i); /* gives back place and KV */

/* prefix.c */
int nx_prefix_start(struct nx_engine *e, struct nx_seq *s,
                    struct nx_err *err); /* match and share */
int32_t nx_prefix_hint(struct nx_engine *e, const struct nx_seq *s);
void nx_prefix_publish(struct nx_engine *e, struct nx_seq *s);
bool nx_prefix_evict(struct nx_engine *e, int64_t rows); /* true when something was freed */

/* propose.c: rows the sequence drafts in this step, at most cap; writes a host drafter's rows. */
int32_t nx_propose(struct nx_engine *e, struct nx_step *st, struct nx_seq *s, int32_t cap);
int32_t nx_draft_cap(const struct nx_engine *e, const struct nx_seq *s);

/* plan.c */
void nx_plan_layout_for(const struct nx_engine *e, int32_t rows, struct nx_plan_layout *out);
void nx_plan_drop(struct nx_engine *e, struct nx_step *st, int32_t place, int32_t rows);
int nx_plan_build(struct nx_engine *e, struct nx_step *st, struct nx_err *err);
/* Length, last token, sampler. swapped: the drafter's length comes back with the rows. */
void nx_plan_init_place(struct nx_engine *e, struct nx_step *st, int32_t i, bool swapped);

/* reconcile.c: waits for a step and hands out its tokens. */
int nx_reconcile(struct nx_engine *e, struct nx_step *st, struct nx_err *err);

/* launch.c: graphs of earlier steps, and how the next one is launched. */
int nx_launch_create(struct nx_engine *e, struct nx_err *err);
void nx_launch_destroy(struct nx_engine *e);
int nx_launch(struct nx_engine *e, struct nx_step *st, struct nx_err *err);

/* ---- counted work of attention: counted.c */

/* Of a step that was enqueued, on devices that leave it to us. */
void nx_count_attention(struct nx_engine *e, const struct nx_step *st);
/* Around a drafter's hook. */
void nx_count_hook_begin(struct nx_engine *e);
void nx_count_hook_end(struct nx_engine *e, enum nx_unseen which);

/* forward.c */
/* What every step of the shape does alike, and may be captured. */
int nx_forward(struct nx_engine *e, struct nx_step *st, struct nx_err *err);
/* What comes back to the host, and what forks queued: never captured. */
int nx_forward_end(struct nx_engine *e, struct nx_step *st, struct nx_err *err);

#endif
