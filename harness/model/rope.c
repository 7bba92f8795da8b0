/* SPDX-License-Identifier: Apache-2.0
 *
 * See rope.h.
 */
#include "model/rope.h"

#include <math.h>
#include <stddef.h>

static double scaled(const struct nx_rope *r, double f)
{
	if (r->kind == NX_ROPE_LINEAR)
		return f / r->factor;
	if (r->kind != NX_ROPE_LLAMA3)
		return f;
	const double turns = r->trained * f / (2 * 3.14159265358979323846);
	if (turns > r->high)
		return f;
	if (turns < r->low)
		return f / r->factor;
	const double smooth = (turns - r->low) / (r->high - r->low);
	return (1 - smooth) * f / r->factor + smooth * f;
}

void nx_rope_freqs(const struct nx_rope *r, float theta, int32_t rope_dim, const float *factors,
                   float *out)
{
	for (int32_t i = 0; i < rope_dim / 2; i++) {
		double f = scaled(r, pow((double)theta, -2.0 * i / rope_dim));
		out[i] = (float)(factors ? f / (double)factors[i] : f);
	}
}
