/* SPDX-License-Identifier: Apache-2.0 */
#include <math.h>

#include "cpu/cpu.h"
#include "nexus_kernels/weight_quant.h"

static float weight_at(const struct nx_weight *w, int64_t row, int64_t col)
{
	int64_t panel = row / PANEL, lane = row % PANEL;
	if (w->dtype == NX_F32)
		return ((const float *)w->data)[(panel * w->k_even + col) * PANEL + lane];
	const uint16_t *p = w->data;
	return bf16_to_f32(
		p[panel * w->k_even * PANEL + (col / 2) * 2 * PANEL + lane * 2 + col % 2]);
}

void weight_row(const struct nx_weight *w, int64_t row, float *dst)
{
	if (w->quant.code != NX_WEIGHT_CODE_NONE) {
		quant_row(w, row, dst);
		return;
	}
	for (int64_t i = 0; i < w->k; i++)
		dst[i] = weight_at(w, row, i);
}

uint64_t weight_read_bytes(const struct nx_weight *w, int64_t rows)
{
	return w->quant.code != NX_WEIGHT_CODE_NONE
	               ? nx_weight_quant_bytes(&w->quant, rows, w->k)
	               : (uint64_t)(rows * w->k) * nx_dtype_bytes(w->dtype);
}

/* row_space [k] holds the row of a weight of codes. */
static float dot(const struct nx_weight *w, int64_t row, const float *x, float *row_space)
{
	double sum = 0;
	if (row_space) {
		quant_row(w, row, row_space);
		for (int64_t i = 0; i < w->k; i++)
			sum += (double)row_space[i] * x[i];
		return (float)sum;
	}
	for (int64_t i = 0; i < w->k; i++)
		sum += (double)weight_at(w, row, i) * x[i];
	return (float)sum;
}

/* space [2 k]: needed for a weight of codes, else NULL. */
void ref_linear(const struct nx_linear *a, float *space)
{
	const struct nx_weight *w = a->w;
	int64_t cols = a->epilogue == NX_EPI_SWIGLU ? w->n / 2 : w->n;
	for (int64_t r = 0; r < a->m; r++) {
		const float *x = (const float *)a->x + r * w->k;
		if (w->quant.int8_acts) {
			quant_round_acts(w, x, space + w->k);
			x = space + w->k;
		}
		float *y = (float *)a->y + r * cols;
		for (int64_t j = 0; j < cols; j++) {
			if (a->epilogue == NX_EPI_STORE) {
				y[j] = dot(w, j, x, space);
			} else if (a->epilogue == NX_EPI_ADD) {
				y[j] += dot(w, j, x, space);
			} else {
				float gate = dot(w, 2 * j, x, space),
				      up = dot(w, 2 * j + 1, x, space);
				y[j] = gate / (1 + expf(-gate)) * up;
			}
		}
	}
}
