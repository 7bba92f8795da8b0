/* SPDX-License-Identifier: Apache-2.0 */
#include <math.h>

#include "cpu/cpu.h"

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
	for (int64_t i = 0; i < w->k; i++)
		dst[i] = weight_at(w, row, i);
}

static float dot(const struct nx_weight *w, int64_t row, const float *x)
{
	double sum = 0;
	for (int64_t i = 0; i < w->k; i++)
		sum += (double)weight_at(w, row, i) * x[i];
	return (float)sum;
}

void ref_linear(const struct nx_linear *a)
{
	const struct nx_weight *w = a->w;
	int64_t cols = a->epilogue == NX_EPI_SWIGLU ? w->n / 2 : w->n;
	for (int64_t r = 0; r < a->m; r++) {
		const float *x = (const float *)a->x + r * w->k;
		float *y = (float *)a->y + r * cols;
		for (int64_t j = 0; j < cols; j++) {
			if (a->epilogue == NX_EPI_STORE) {
				y[j] = dot(w, j, x);
			} else if (a->epilogue == NX_EPI_ADD) {
				y[j] += dot(w, j, x);
			} else {
				float gate = dot(w, 2 * j, x), up = dot(w, 2 * j + 1, x);
				y[j] = gate / (1 + expf(-gate)) * up;
			}
		}
	}
}
