/* SPDX-License-Identifier: Apache-2.0
 *
 * measure/quality.h: what lossy numerics (weights, kv_codec) cost in quality, beside what they gain in speed.
 *
 * Held-out texts are fed to the model token by token (teacher forcing), once with the engine's own numerics, which
 * are full precision in the run's type, and once with the stack's numerics, which are its attention, kv_codec and
 * weights layers alone: the exactness gate says whether the rest of the stack changes anything. Nothing is drawn.
 * At each position both have logits, and of these are computed
 *   perplexity        exp of the mean of -ln p(the text's next token), of either
 *   KL divergence     mean over positions of sum p_full ln(p_full / p_stack), in nats
 *   token agreement   share of positions at which both would choose the same token
 *   first divergence  leading positions of a text at which they would; mean over texts, at most `positions a text`
 *
 * Texts: the last NX_QUALITY_TEXTS lines of a file of JSON lines with a "text", NX_QUALITY_PROMPT tokens of each as
 * prompt, then NX_QUALITY_OUT positions; fewer texts where the vocabulary is so large that their logits would take
 * more than 256 MiB of host memory. All texts run at once. Untimed. Threads: one.
 */
#ifndef NEXUS_MEASURE_QUALITY_H
#define NEXUS_MEASURE_QUALITY_H

#include "engine/engine.h"
#include "measure/trial.h"

#define NX_QUALITY_TEXTS 8
#define NX_QUALITY_PROMPT 32
#define NX_QUALITY_OUT 128
#define NX_QUALITY_FILE "workloads/stories.jsonl" /* below experiments/ */

struct nx_quality {
	int32_t n_texts, n_positions; /* positions over all texts; 0 = nothing was measured */
	double perplexity, perplexity_full;
	double kl;               /* nats */
	double agreement;        /* [0, 1] */
	double first_divergence; /* tokens */
};

/* Has the stack numerics that do not claim exactness? */
bool nx_quality_is_lossy(const struct nx_stack *s);
/* The file of the checkout or installation that the program was started from. False: there is none. */
bool nx_quality_find(const char *exe_dir, char *path, size_t size);

/* Texts, the full-precision logits and the results of stacks seen; of one model on one device. */
struct nx_quality_bench;
/* tokenizer and path are borrowed for the call. */
int nx_quality_create(struct nx_quality_bench **out, const struct nx_tokenizer *tokenizer,
                      const char *path, const struct nx_shape *shape, struct nx_err *err);
void nx_quality_destroy(struct nx_quality_bench *b); /* NULL is fine */

/* Is the stack's result known already? Then *out is it. */
bool nx_quality_known(const struct nx_quality_bench *b, const struct nx_stack *s,
                      struct nx_quality *out);
/* Measures. c: as the stack's engine would be made; of it weights, invariant and stack are taken. Engines are made
 * and destroyed within, one at a time: there should be no other, or device memory is taken twice. */
int nx_quality_run(struct nx_quality_bench *b, const struct nx_engine_config *c,
                   struct nx_quality *out, struct nx_err *err);

/* To a trial's metrics. */
void nx_quality_put(const struct nx_quality *q, struct nx_trial *t);

#endif
