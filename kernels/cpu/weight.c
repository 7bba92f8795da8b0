/* SPDX-License-Identifier: Apache-2.0 */
#define _GNU_SOURCE
#include <stdlib.h>
#include <sys/mman.h>

#include "cpu/cpu.h"
#include "cpu/library.h"
#include "nexus_kernels/work.h"

#define HUGE_PAGE ((size_t)2 << 20)
#define STAGE_ROWS 512 /* rows asked of the source at a time */

struct pack {
	struct nx_weight *w;
	const float *rows; /* [n_rows, k] from row0 */
	int64_t row0, n_rows;
};

/* Packs panels [begin, end) of the stage. */
static void pack_panels(void *ctx, int64_t begin, int64_t end, int thread)
{
	struct pack *p = ctx;
	struct nx_weight *w = p->w;
	(void)thread;
	for (int64_t panel = begin; panel < end; panel++) {
		int64_t first = (p->row0 / PANEL + panel) * w->k_even * PANEL;
		for (int64_t lane = 0; lane < PANEL; lane++) {
			int64_t row = panel * PANEL + lane;
			const float *x = row < p->n_rows ? p->rows + row * w->k : NULL;
			for (int64_t i = 0; i < w->k_even; i++) {
				float v = x && i < w->k ? x[i] : 0;
				if (w->dtype == NX_F32)
					((float *)w->data)[first + i * PANEL + lane] = v;
				else
					((uint16_t *)w->data)[first + i / 2 * 2 * PANEL + lane * 2 +
					                      i % 2] = f32_to_bf16(v);
			}
		}
	}
}

void *cpu_plain_alloc(size_t bytes)
{
	size_t align = bytes >= HUGE_PAGE ? HUGE_PAGE : 64;
	void *p = aligned_alloc(align, (bytes + align - 1) / align * align);
	if (p && align == HUGE_PAGE)
		madvise(p, bytes, MADV_HUGEPAGE); /* refused: the same, slower */
	return p;
}

static uint64_t panels_bytes(const struct nx_weight_desc *desc)
{
	return (uint64_t)(round_up(desc->n, PANEL) * round_up(desc->k, 2)) *
	       nx_dtype_bytes(desc->dtype);
}

int cpu_weight_create(void *dev, const struct nx_weight_desc *desc, struct nx_weight **out,
                      struct nx_err *err)
{
	struct cpu_dev *d = dev;
	bool coded = desc->quant.code != NX_WEIGHT_CODE_NONE;
	int rc = nx_check_weight(desc, false, err);
	if (rc)
		return rc;
	float *stage = NULL;
	struct nx_weight *w = calloc(1, sizeof(*w));
	if (!w)
		return nx_fail(err, NX_ENOMEM, "no memory for a weight");
	w->n = desc->n;
	w->k = desc->k;
	w->k_even = round_up(desc->k, 2);
	w->n_panels = round_up(desc->n, PANEL) / PANEL;
	w->dtype = desc->dtype;
	w->lookup = desc->lookup;
	if (coded) {
		rc = quant_weight_plan(w, desc, err);
		if (rc)
			goto out;
	} else {
		w->panels_bytes = panels_bytes(desc);
	}
	w->bytes = w->panels_bytes;
	w->data = cpu_plain_alloc(w->bytes);
	stage = coded ? NULL : malloc(sizeof(float) * (size_t)(STAGE_ROWS * desc->k));
	if (!w->data || (!stage && !coded)) {
		rc = nx_fail(err, NX_ENOMEM, "no memory for a weight of %lld x %lld",
		             (long long)desc->n, (long long)desc->k);
		goto out;
	}
	if (coded)
		rc = quant_weight_fill(d, w, desc, err);
	for (int64_t row = 0; row < w->n && !rc && !coded; row += STAGE_ROWS) {
		int64_t n = w->n - row < STAGE_ROWS ? w->n - row : STAGE_ROWS;
		struct pack p = {.w = w, .rows = stage, .row0 = row, .n_rows = n};
		rc = desc->rows(desc->ctx, row, n, stage, err);
		if (!rc)
			pool_for(d->pool, round_up(n, PANEL) / PANEL, pack_panels, &p);
	}
out:
	free(stage);
	if (rc) {
		free(w->data);
		free(w);
		return rc;
	}
	d->allocated += w->bytes;
	*out = w;
	return 0;
}

void cpu_weight_destroy(void *dev, struct nx_weight *w)
{
	struct cpu_dev *d = dev;
	if (!w)
		return;
	library_weight_destroy(w->library);
	d->allocated -= w->bytes;
	free(w->data);
	free(w);
}

uint64_t cpu_weight_bytes(const struct nx_weight *w)
{
	return w->bytes;
}

uint64_t cpu_weight_forecast(void *dev, const struct nx_weight_desc *desc, int32_t max_rows)
{
	struct cpu_dev *d = dev;
	struct nx_weight w;
	struct nx_err ignored;
	if (desc->quant.code != NX_WEIGHT_CODE_NONE)
		return quant_weight_plan(&w, desc, &ignored) ? 0 : w.panels_bytes;
	return panels_bytes(desc) + (linear_is_borrowed(d, max_rows)
	                                     ? library_forecast(d, desc->n, desc->k, desc->dtype)
	                                     : 0);
}

int cpu_weight_prepare(void *dev, struct nx_weight *w, int32_t max_rows, uint64_t *bytes,
                       struct nx_err *err)
{
	struct cpu_dev *d = dev;
	bool borrowed = w->quant.code == NX_WEIGHT_CODE_NONE && linear_is_borrowed(d, max_rows);
	int rc = borrowed ? library_prepare(d, w, err) : 0;
	if (!rc)
		*bytes = borrowed ? w->bytes : w->panels_bytes;
	return rc;
}
