/* SPDX-License-Identifier: Apache-2.0
 *
 * test/engine_fixture.h: a tiny model on the CPU backend, stacks by name, and runs that collect tokens.
 */
#ifndef NEXUS_TEST_ENGINE_FIXTURE_H
#define NEXUS_TEST_ENGINE_FIXTURE_H

#include "engine/engine.h"

struct fixture {
	char path[512];
	struct nx_model *model;
	struct nx_device dev;
	struct nx_weights *weights;
	struct nx_registry *registry;
};

/* Aborts the test on failure. isa: see nx_device_config. invariant: products in one order for every M. */
void fixture_open(struct fixture *f, enum nx_dtype dtype, const char *isa, bool invariant,
                  int32_t threads);
/* On a device by name: "cpu", or "late" of test/backends. */
void fixture_open_on(struct fixture *f, const char *device, enum nx_dtype dtype, const char *isa,
                     bool invariant, int32_t threads);
/* The same with a model of your own: a file, a directory or a preset's name. */
void fixture_open_model(struct fixture *f, const char *path, const char *device,
                        enum nx_dtype dtype, const char *isa, bool invariant, int32_t threads);
void fixture_close(struct fixture *f);

/* spec: "paged_attention:block_size=4:num_blocks=40,continuous_batching"; "" = the engine's defaults. */
struct test_stack {
	struct nx_stack stack;
	struct nx_value values[NX_STACK_MAX][16];
	char text[512];
};
void test_stack_make(struct test_stack *s, const struct fixture *f, const char *spec);

/* What a run gave: tokens by (request, sample). */
struct outcome {
	int32_t n_requests, samples, max_out;
	int32_t *tokens; /* [n_requests, samples, max_out], -1 = none */
	int32_t *n_out;  /* [n_requests, samples] */
	float *logits;   /* [n_requests, samples, max_out, vocab] when wanted, else NULL */
	int32_t vocab;
	int64_t rows[NX_ROW_KIND_COUNT];
	int64_t n_steps, n_preempted, n_accepted;
	int64_t n_drafting,
		n_replayed; /* steps in which sequences decode, with a verdict that was given */
	int32_t n_finished;
	int64_t kv_held_peak;
};
void outcome_init(struct outcome *o, const struct fixture *f, int32_t n_requests, int32_t samples,
                  int32_t max_out, bool logits);
void outcome_release(struct outcome *o);

/* Ragged seeded requests; prompts[] is owned by the set. */
struct request_set {
	struct nx_request *reqs;
	int32_t n;
	int32_t *space;
};
void requests_make(struct request_set *s, const struct fixture *f, int32_t n, int32_t min_prompt,
                   int32_t max_prompt, int32_t min_out, int32_t max_out, int32_t samples,
                   float temperature, uint64_t seed);
/* Every other request begins as the first one does, for up to n tokens: what prefix caches live on; every third
 * repeats a piece of itself: what prompt lookup lives on. */
void requests_share(struct request_set *s, int32_t n);
void requests_release(struct request_set *s);

struct run_options {
	int32_t batch_size;
	bool plan_ahead, invariant;
	int32_t max_len;
	const struct nx_replay *replay;
};
/* The counter "technique.counter" of the latest run_stack(); aborts the test when there is none. */
double last_counter(const char *name);
/* Runs and checks that the store is whole after every step and empty at the end, and that no counter
 * called `bad` has counted. Returns the run's code. */
int run_stack(const struct fixture *f, const char *spec, const struct request_set *reqs,
              const struct run_options *o, struct outcome *out, struct nx_err *err);

#endif
