/* SPDX-License-Identifier: Apache-2.0 */
#include "cpu/cpu.h"

/* Plain reads for calibrate(): the sum of every word. */
static float read_plain(const void *p, size_t bytes)
{
	const uint64_t *x = p;
	uint64_t sum = 0;
	for (size_t i = 0; i < bytes / sizeof(*x); i++)
		sum += x[i];
	return (float)sum;
}

const struct cpu_kernels kernels_ref = {
	.isa = "ref",
	.rmsnorm = ref_rmsnorm,
	.read = read_plain,
};
