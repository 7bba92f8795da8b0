/* SPDX-License-Identifier: Apache-2.0
 *
 * engine/engine.h: runs requests through a model under a stack of techniques.
 *
 * One engine = one model's weights + one stack + fixed limits; created outside the timed path, it then
 * allocates nothing. nx_engine_run() is the step loop: schedule, admit, forward, sample, commit, retire.
 * Times are nanoseconds of CLOCK_MONOTONIC. Threads: one thread drives an engine.
 */
#ifndef NEXUS_ENGINE_ENGINE_H
#define NEXUS_ENGINE_ENGINE_H

#include "engine/registry.h"
#include "model/model.h"
#include "nexus/device.h"

/* An opened backend. */
struct nx_device {
	const struct nx_device_ops *ops;
	void *dev;
	char backend_path[512];
};

/* name is "cpu" or "cuda[:N]"; the backend is <exe_dir>/backends/<name>.so, $NEXUS_BACKEND_PATH first. */
/* Has it the form of a device's name? Which devices there are only opening tells. */
bool nx_device_name_is_legal(const char *name);
#define NX_DEVICE_NAMES "cpu, cuda, cuda:N"
int nx_device_open(struct nx_device *out, const char *name, const struct nx_device_config *cfg,
                   const char *exe_dir, struct nx_err *err);
void nx_device_close(struct nx_device *d);

/* A model's weights on a device; shared by engines, which borrow it. */
struct nx_weights;
int nx_weights_create(struct nx_weights **out, const struct nx_model *model, struct nx_device *dev,
                      enum nx_dtype dtype, struct nx_err *err);
/* The same with the matrices left for the engines that need them: for stacks that pack their own. */
int nx_weights_start(struct nx_weights **out, const struct nx_model *model, struct nx_device *dev,
                     enum nx_dtype dtype, struct nx_err *err);
/* The same without any matrix: for forecasts, before anything is loaded. No engine can be made with them. */
int nx_weights_plan(struct nx_weights **out, const struct nx_model *model, struct nx_device *dev,
                    enum nx_dtype dtype, struct nx_err *err);
void nx_weights_destroy(struct nx_weights *w);
/* As loaded, without what a device keeps for large products beside it. */
uint64_t nx_weights_bytes(const struct nx_weights *w);

/* Acceptance that is given, not found, for weights that accept nothing: round r of a request takes entry
 * (request + r) % n_rounds. All the work is done; only the verdict is replayed. */
struct nx_replay_round {
	int32_t drafted; /* most rows drafted */
	struct nx_override verdict;
};
struct nx_replay {
	const struct nx_replay_round *rounds;
	int32_t n_rounds;
};

struct nx_engine_config {
	const struct nx_weights *weights;
	const struct nx_stack *stack; /* borrowed for the engine's life */
	int32_t batch_size;           /* requests in flight */
	int32_t samples;              /* most samples a request */
	int32_t max_len;              /* most rows a sequence can have; 0 = the model's context */
	int32_t longest_request; /* largest prompt + output that will be asked for; 0 = max_len */
	int32_t longest_prompt; /* largest prompt; 0 = longest_request. A hint of how large products get */
	int32_t max_rows; /* most rows of one forward; 0 = what batch_size whole prompts take */
	uint64_t kv_budget_bytes; /* 0 = no limit */
	bool invariant;
	bool plan_ahead;                /* plan step n + 1 before step n's tokens are read */
	bool check;                     /* tests: verify the store's invariants after every step */
	const struct nx_replay *replay; /* borrowed; NULL = the sampler's own verdicts */
};

/* X(ID, name): why a sequence ended. */
#define NX_FINISH_REASONS(X)                                                                       \
	X(LENGTH, "length")                                                                        \
	X(EOS, "eos")                                                                              \
	X(CONTEXT, "context")

enum nx_finish {
#define X(id, name) NX_FINISH_##id,
	NX_FINISH_REASONS(X)
#undef X
		NX_FINISH_COUNT
};

struct nx_request {
	uint32_t id;
	const int32_t *prompt; /* borrowed */
	int32_t n_prompt, max_out;
	int32_t samples; /* n: continuations of the one prompt */
	int32_t priority;
	bool ignore_eos;
	uint32_t
		after; /* 1 + place in the array, before this one, of the request that must be done before
	                   this one may arrive (a conversation's turn before); 0 = none */
	uint32_t session,
		turn; /* which conversation, and which of its user turns; for the record */
	int64_t arrival_ns; /* since the first one's, as the workload has it; -1 = not said. Kept for the record: the
	                       loop is closed */
	struct nx_sampler sampler; /* request and sample are filled in by the engine */
	const int32_t *
		force; /* teacher forcing: max_out tokens fed instead of the drawn ones, or NULL; drafted
	                         rows are then accepted where they equal it */
};

/* X(ID, name): what a step mostly did. */
#define NX_PHASES(X)                                                                               \
	X(PREFILL, "prefill")                                                                      \
	X(DECODE, "decode")                                                                        \
	X(MIXED, "mixed")                                                                          \
	X(VERIFY, "verify") /* decode with drafted rows */

enum nx_phase {
#define X(id, name) NX_PHASE_##id,
	NX_PHASES(X)
#undef X
		NX_PHASE_COUNT
};

struct nx_step_info {
	uint64_t begin_ns, end_ns; /* plan start to results known */
	uint64_t plan_ns;          /* host time of plan hooks and bookkeeping */
	int32_t phase;             /* enum nx_phase */
	int32_t rows[NX_ROW_KIND_COUNT];
	int32_t n_seqs, n_emit, n_waiting;
	int32_t n_accepted;  /* drafted rows that were accepted */
	int32_t replayed;    /* 1 = by a verdict that was given */
	uint64_t draft_ns;   /* host time of drafting; with a synchronous device all of it */
	int32_t n_preempted; /* in this step */
	int64_t kv_used, kv_held, kv_total; /* rows with a token in them / reserved / pool */
};

/* All may be NULL. Called between steps, on the engine's thread. */
struct nx_sink {
	void *ctx;
	void (*start)(void *ctx, uint32_t request, uint64_t arrival_ns, uint64_t admitted_ns);
	void (*token)(void *ctx, uint32_t request, uint32_t sample, int32_t index, int32_t token,
	              uint64_t t_ns);
	void (*finish)(void *ctx, uint32_t request, uint32_t sample, enum nx_finish why,
	               int32_t n_preempted, uint64_t t_ns);
	void (*step)(void *ctx, const struct nx_step_info *s);
	/* Logits [vocab] from which token `index` was drawn, host memory; makes the run slow. */
	void (*logits)(void *ctx, uint32_t request, uint32_t sample, int32_t index,
	               const float *logits, int32_t vocab);
	/* Before (begin) and after a step's work is enqueued; phase, rows and n_emit of *s are known. Not 0 ends the run
	 * with that code. For counters; what it costs is in the step's time. */
	int (*launch)(void *ctx, bool begin, const struct nx_step_info *s, struct nx_err *err);
	/* Polled between steps: true stops the run with NX_ESKIP. */
	bool (*stop)(void *ctx);
};

struct nx_engine;
int nx_engine_create(struct nx_engine **out, const struct nx_engine_config *cfg,
                     struct nx_err *err);
void nx_engine_destroy(struct nx_engine *e);
/* Back to just-created: store empty, techniques reset. */
void nx_engine_reset(struct nx_engine *e);
/* Closed loop: keeps batch_size requests in flight until all n are done; the next to arrive is the first of the
 * array that has not and that need not wait for another. Arrival of a request = the moment its client became
 * free (t0 for the first batch_size). Requests are borrowed. */
int nx_engine_run(struct nx_engine *e, const struct nx_request *reqs, size_t n,
                  const struct nx_sink *sink, struct nx_err *err);

/* Memory by owner, for reports: name, what is reserved, the most that was used. */
struct nx_mem_use {
	char owner
		[32]; /* "weights", "kv", "workspace", "activations", "swap", a technique's name */
	uint64_t reserved_bytes, peak_used_bytes;
};
size_t nx_engine_memory(const struct nx_engine *e, struct nx_mem_use *out, size_t max);

/* Bytes of K and V of one token, over all layers and groups, as encoded. */
uint64_t nx_engine_kv_row_bytes(const struct nx_engine *e);

/* Counters of all layers: names are "technique.counter". Returns how many there are. */
struct nx_counter_value {
	char name[64];
	const char *unit;
	double value;
};
size_t nx_engine_counters(const struct nx_engine *e, struct nx_counter_value *out, size_t max);

/* Proof that nothing is lost: no sequence is left, and all rows are free or held by the prefix cache. 0, or
 * NX_EBUG and a sentence. */
int nx_engine_idle_check(const struct nx_engine *e, struct nx_err *err);
/* Proof of the start state: idle, and nothing is kept from earlier runs, by the store or by a technique. */
int nx_engine_cold_check(const struct nx_engine *e, struct nx_err *err);

/* Bytes by owner that nx_engine_create would take, and the weights as this engine uses them, without taking them
 * (the forecast). Weights may be planned ones. What is used at most counts every request in flight at its
 * longest, and nothing as shared: when all start at once, none finds what another computes beside it. */
size_t nx_engine_forecast(const struct nx_engine_config *cfg, const struct nx_shape *shape,
                          struct nx_mem_use *out, size_t max, struct nx_err *err);
/* Bytes of the weights in all forms that products use: of up to max_rows rows, for logits max_logits. */
uint64_t nx_weights_forecast(const struct nx_weights *w, int32_t max_rows, int32_t max_logits);

#endif
