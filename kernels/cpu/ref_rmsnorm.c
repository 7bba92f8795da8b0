/* SPDX-License-Identifier: Apache-2.0 */
#include <math.h>

#include "cpu/cpu.h"

void ref_rmsnorm(float *y, const float *x, const float *w, int64_t rows, int64_t cols, float eps)
{
	for (int64_t r = 0; r < rows; r++) {
		double sum = 0;
		for (int64_t i = 0; i < cols; i++)
			sum += (double)x[r * cols + i] * x[r * cols + i];
		float inv = (float)(1 / sqrt(sum / (double)cols + eps));
		for (int64_t i = 0; i < cols; i++)
			y[r * cols + i] = x[r * cols + i] * inv * w[i];
	}
}
