/* SPDX-License-Identifier: Apache-2.0 */
/* See model.h. */
#include "fuzz/model.h"

#include <stdlib.h>
#include <string.h>

#include "fuzz/fuzz.h"

void fuzz_model(const struct nx_model *m)
{
	const struct nx_shape *s = nx_model_shape(m);
	struct nx_err err = {0};
	for (int id = 0; id < NX_W_COUNT; id++) {
		enum nx_weight_id w = (enum nx_weight_id)id;
		int64_t rows = nx_weight_rows(s, w), cols = nx_weight_cols(s, w);
		if (rows < 1 || cols > 1 << 16)
			continue;
		float *row = malloc((size_t)cols * sizeof(*row));
		fuzz_expect(row != NULL, "there is memory");
		fuzz_expect(!nx_model_rows(m, w, s->n_layers - 1, rows - 1, 1, row, &err),
		            "the last row of a weight can be read");
		free(row);
	}
	fuzz_touch(nx_model_name(m), strlen(nx_model_name(m)));
}
