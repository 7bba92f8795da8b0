/* SPDX-License-Identifier: Apache-2.0
 *
 * kernel_test.h: opens backends and makes inputs for the kernel tests. Failures end the test (Check).
 */
#ifndef NX_KERNEL_TEST_H
#define NX_KERNEL_TEST_H

#include <stdbool.h>
#include <stdint.h>

#include "nexus/device.h"

/* Instruction sets, by number: isa_name(0) is "ref". */
#define N_ISAS 4
const char *isa_name(int isa);

struct rig {
	const struct nx_device_ops *ops;
	void *dev;
	struct nx_err err;
};

/* False: this CPU cannot run it. */
bool rig_open(struct rig *r, int isa, int n_threads, bool invariant);
void rig_close(struct rig *r);
/* Fails the test, with the sentence, unless rc is 0. */
void rig_ok(struct rig *r, int rc);

/* A number in [-1, 1) that depends on its arguments alone. */
float noise(uint64_t a, uint64_t b);
float to_bf16(float x);

/* [n, k] of noise(salt, index), rounded to the type; *out_values, if wanted, gets them (free it). */
struct nx_weight *rig_weight(struct rig *r, int64_t n, int64_t k, enum nx_dtype dtype,
                             uint64_t salt, float **out_values);
float *noise_array(int64_t n, uint64_t salt);

#endif
