/* SPDX-License-Identifier: Apache-2.0
 *
 * attention.h: the inner loops of attention, one table an instruction set. A tile is TILE_KEYS keys.
 */
#ifndef NX_CPU_ATTENTION_H
#define NX_CPU_ATTENTION_H

#include <stdbool.h>
#include <stdint.h>

#include "cpu/coded.h"

#define TILE_KEYS 64

struct attention_kernels {
	coded_decode decode; /* codes of KV rows: coded.h */
	coded_encode encode;
	int lanes; /* columns come in multiples of it */
	/* to[TILE_KEYS / lanes][dim][lanes] gets n keys side by side: to[j / lanes][d][j % lanes] = rows[j][d]; the
	 * places after n are junk. Fetches rows `next` on the way. */
	void (*keys)(float *to, const uint8_t *const *rows, const uint8_t *const *next, int n,
	             int dim, bool bf16);
	/* to[j][cols] = rows[j][0..dim), the rest zero. */
	void (*values)(float *to, const uint8_t *const *rows, int n, int dim, int cols, bool bf16);
	/* c[r][j] = (add ? c[r][j] : 0) + sum over i < n of a[r][i] * b(i, j), in order of i; cols are whole
	 * lanes; b(i, j) = b[i * ldb + j / lanes * step + j % lanes]. */
	void (*multiply)(float *c, int64_t ldc, const float *a, int64_t lda, const float *b,
	                 int64_t ldb, int64_t step, int rows, int n, int cols, bool add);
	/* c[r][j] += sum over i < n of a[r][i] * values[i][j] for at most weigh_rows rows and whole lanes of
	 * cols, values as they lie in the store; the same bits as values() and multiply(). Fetches n_next rows
	 * `next` on the way. */
	void (*weigh)(float *c, int64_t ldc, const float *a, int64_t lda,
	              const uint8_t *const *values, int rows, int n, int cols, bool bf16,
	              const uint8_t *const *next, int n_next);
	int weigh_rows;
	/* Scores of n visible keys become exp(score - max), the rest 0; *max and *sum run on; returns what
	 * sums made before must be multiplied by. */
	float (*softmax_tile)(float *s, int n, float *max, float *sum);
	/* x *= by */
	void (*scale)(float *x, int64_t n, float by);
	/* exp(x - max) in place, zeros from n to padded; returns the sum. */
	float (*exp_row)(float *x, int64_t n, int64_t padded, float max);
};

#endif
