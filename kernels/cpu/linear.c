/* SPDX-License-Identifier: Apache-2.0
 *
 * Products: packs rows of x into blocks, spreads panels over the threads, or hands the product to the library.
 */
#include <math.h>

#include "cpu/cpu.h"
#include "cpu/library.h"

#define SERIAL_PACK 16384 /* elements of x that one thread packs alone */

struct linear_job {
	const struct cpu_kernels *k;
	struct gemm_job gemm;
	const struct nx_linear *a;
	struct gemm_block *blocks; /* the same as gemm.blocks, while they are filled */
};

/* Rows of a block side by side for each input (or pair of inputs): tiles read x in one stream. */
static void pack_blocks(void *ctx, int64_t begin, int64_t end, int thread)
{
	const struct linear_job *j = ctx;
	const struct nx_weight *w = j->a->w;
	bool pairs = w->dtype == NX_BF16 && j->k->gemm_bf16_x;
	(void)thread;
	for (int64_t b = begin; b < end; b++) {
		const struct gemm_block *block = &j->blocks[b];
		const float *x = (const float *)j->a->x + block->row0 * w->k;
		float *to = (float *)(uintptr_t)block->x;
		uint16_t *to16 = (uint16_t *)(uintptr_t)block->x;
		for (int64_t i = 0; i < w->k_even && !pairs; i++)
			for (int r = 0; r < block->r; r++)
				*to++ = i < w->k ? x[r * w->k + i] : 0;
		for (int64_t i = 0; i < w->k_even && pairs; i += 2)
			for (int r = 0; r < block->r; r++) {
				*to16++ = f32_to_bf16(x[r * w->k + i]);
				*to16++ = i + 1 < w->k ? f32_to_bf16(x[r * w->k + i + 1]) : 0;
			}
	}
}

static void multiply_panels(void *ctx, int64_t begin, int64_t end, int thread)
{
	const struct linear_job *j = ctx;
	(void)thread;
	if (j->a->w->dtype == NX_F32)
		j->k->gemm_f32(&j->gemm, begin, end);
	else
		j->k->gemm_bf16(&j->gemm, begin, end);
}

static int own_linear(struct cpu_dev *d, const struct nx_linear *a, struct nx_err *err)
{
	const struct nx_weight *w = a->w;
	bool pairs = w->dtype == NX_BF16 && d->k->gemm_bf16_x;
	int n_blocks = (a->m + d->k->gemm_rows - 1) / d->k->gemm_rows;
	struct gemm_block one;
	struct linear_job job = {.k = d->k, .a = a, .blocks = &one};
	if (a->m == 1 && !pairs && w->k == w->k_even) {
		one = (struct gemm_block){.x = a->x, .r = 1}; /* packed as it is */
	} else {
		size_t head = (size_t)round_up(n_blocks * (int64_t)sizeof(one), 64);
		size_t element = pairs ? 2 : 4, row_bytes = (size_t)w->k_even * element;
		char *scratch = cpu_scratch(d, head + (size_t)a->m * row_bytes);
		if (!scratch)
			return nx_fail(err, NX_ENOMEM, "no memory for %d rows of activations",
			               a->m);
		job.blocks = (struct gemm_block *)(void *)scratch;
		for (int b = 0; b < n_blocks; b++) {
			/* The larger blocks first: the first one says how many panels fit a tile. */
			int64_t row0 = a->m - (int64_t)a->m * (n_blocks - b) / n_blocks;
			int64_t row1 = a->m - (int64_t)a->m * (n_blocks - b - 1) / n_blocks;
			job.blocks[b] =
				(struct gemm_block){.x = scratch + head + (size_t)row0 * row_bytes,
			                            .row0 = row0,
			                            .r = (int)(row1 - row0)};
		}
		if (a->m * w->k <= SERIAL_PACK)
			pack_blocks(&job, 0, n_blocks, 0);
		else
			pool_for(d->pool, n_blocks, pack_blocks, &job);
	}
	job.gemm = (struct gemm_job){.a = a, .blocks = job.blocks, .n_blocks = n_blocks};
	pool_for(d->pool, w->n_panels, multiply_panels, &job);
	return 0;
}

/* ---- the library's products, and what it leaves undone */

struct epilogue_job {
	const struct nx_linear *a;
	const float *sums; /* [m, n] */
};

static void epilogue_rows(void *ctx, int64_t begin, int64_t end, int thread)
{
	const struct epilogue_job *j = ctx;
	int64_t n = j->a->w->n;
	(void)thread;
	for (int64_t r = begin; r < end; r++) {
		const float *sum = j->sums + r * n;
		if (j->a->epilogue == NX_EPI_ADD) {
			float *y = (float *)j->a->y + r * n;
			for (int64_t i = 0; i < n; i++)
				y[i] += sum[i];
			continue;
		}
		float *y = (float *)j->a->y + r * (n / 2);
		for (int64_t i = 0; i < n / 2; i++)
			y[i] = sum[2 * i] / (1 + expf(-sum[2 * i])) * sum[2 * i + 1];
	}
}

static int borrowed_linear(struct cpu_dev *d, const struct nx_linear *a, struct nx_err *err)
{
	/* The library's copy of the weight is a cache inside it. */
	struct nx_weight *w = (struct nx_weight *)(uintptr_t)a->w;
	if (a->epilogue == NX_EPI_STORE)
		return library_linear(d, w, a->m, a->x, a->y, err);
	size_t bytes = (size_t)a->m * (size_t)w->n * sizeof(float);
	float *sums = cpu_alloc(d, bytes);
	if (!sums)
		return nx_fail(err, NX_ENOMEM, "no memory for %d rows of sums", a->m);
	int rc = library_linear(d, w, a->m, a->x, sums, err);
	struct epilogue_job job = {a, sums};
	if (!rc)
		pool_for(d->pool, a->m, epilogue_rows, &job);
	cpu_free(d, sums, bytes);
	return rc;
}

bool linear_is_borrowed(const struct cpu_dev *d, int32_t rows)
{
	return d->k->gemm_f32 && !d->cfg.invariant && d->library_min_m && rows >= d->library_min_m;
}

int fast_linear(struct cpu_dev *d, const struct nx_linear *a, struct nx_err *err)
{
	if (a->w->quant.code != NX_WEIGHT_CODE_NONE)
		return quant_linear(d, a, err);
	return linear_is_borrowed(d, a->m) ? borrowed_linear(d, a, err) : own_linear(d, a, err);
}
