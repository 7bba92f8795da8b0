/* SPDX-License-Identifier: Apache-2.0
 *
 * cuda_test.h: the CUDA backend beside the CPU's reference, over one memory. Failures end the test (Check).
 *
 * The GPU is opened in host-memory mode (NEXUS_CUDA_HOST_MEMORY, NEXUS_POISON): what both_mem() gives is read and
 * written by both backends and by the test, and every operation has ended when its call returns. So a test builds its
 * world once, calls an operation of both tables with the same structs, and compares.
 *
 * Types: with NX_F32 activations are f32 on both sides. With NX_BF16 the GPU's activations are bf16 and the
 * reference's f32: both_act() makes a pair of arrays of equal values, both_compare() widens and compares.
 */
#ifndef NX_CUDA_TEST_H
#define NX_CUDA_TEST_H

#include <check.h>

#include "kernel_test.h"

struct both {
	struct rig gpu, cpu; /* cpu: isa ref */
	enum nx_dtype dtype;
};

/* Ends the program with status 0 and a line when there is no GPU: call it first in main(). */
void both_need_gpu(void);
/* Runs the suite in this process, as a context does not live through fork(); what main() returns. */
int both_run(Suite *s);
void both_open(struct both *b, enum nx_dtype dtype, bool invariant);
void both_close(struct both *b);

/* Memory that both see, filled with 0xff; freed by both_close. */
void *both_mem(struct both *b, size_t bytes);

/* An array of activations, once for each side. */
struct both_act {
	void *gpu;  /* dtype */
	float *cpu; /* f32 */
	int64_t n;
};
/* noise(salt, i) * scale, rounded to the type on both sides; salt 0: poisoned, to be written. */
struct both_act both_act(struct both *b, int64_t n, uint64_t salt, float scale);
float both_get(const struct both *b, const struct both_act *a, int64_t i); /* the GPU's */
/* Every element written, and ||gpu - cpu|| / ||cpu|| <= rel, and no element off by more than abs. `what` names it. */
void both_compare(const struct both *b, const struct both_act *a, double rel, double abs,
                  const char *what);

/* The same matrix on both: noise, rounded to the type. */
struct both_weight {
	struct nx_weight *gpu, *cpu;
};
struct both_weight both_weight(struct both *b, int64_t n, int64_t k, uint64_t salt);
void both_weight_free(struct both *b, struct both_weight *w);

#endif
