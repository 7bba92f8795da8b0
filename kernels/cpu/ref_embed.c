/* SPDX-License-Identifier: Apache-2.0 */
#include "cpu/cpu.h"

void ref_embed(const struct nx_rows *rows, const struct nx_seq_state *state,
               const struct nx_weight *w, float *x, int64_t begin, int64_t end)
{
	for (int64_t r = begin; r < end; r++) {
		int32_t token = rows->token[r];
		if (token == NX_TOKEN_LAST)
			token = state->last_token[rows->seq[r]];
		if (token >= 0 && token < w->n)
			weight_row(w, token, x + r * w->k);
		else /* a row that only keeps its place in a padded batch may carry any number */
			memset(x + r * w->k, 0, (size_t)w->k * sizeof(float));
	}
}
