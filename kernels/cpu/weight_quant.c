/* SPDX-License-Identifier: Apache-2.0
 *
 * Weights of codes. Panels of 16 features, as plain weights have them:
 *
 *     codes   [lines][16 features], 32 bits a feature: 4 inputs of 8 bits, or 8 of 4 bits, low bits first
 *     params  [groups][16 scales], then [16 zeros] where there are zeros; fp16, or f32 scales with E4M3
 *
 * and padding to 64 bytes. So one vector of 16 lanes holds a line, whose bytes integer dot products take as they are.
 * Features past n and inputs past k have the code of 0.
 */
#include <stdlib.h>

#include "cpu/cpu.h"
#include "nexus_kernels/weight_quant.h"

#define STAGE_ROWS 256 /* rows asked of the source at a time: whole panels */

static struct quant_layout layout_of(const struct nx_weight_quant *f, int64_t k)
{
	struct quant_layout l = {.line_inputs = 32 / nx_weight_bits(f->code)};
	l.k_pad = round_up(k, l.line_inputs);
	l.n_groups = nx_weight_groups(f, k);
	l.group = l.n_groups > 1 ? f->group_size : l.k_pad;
	l.code_bytes = l.k_pad / l.line_inputs * PANEL * 4;
	l.param_bytes = PANEL * nx_weight_param_bytes(f);
	l.panel_bytes = l.code_bytes + round_up(l.n_groups * l.param_bytes, 64);
	return l;
}

int quant_weight_plan(struct nx_weight *w, const struct nx_weight_desc *desc, struct nx_err *err)
{
	const char *why = nx_weight_quant_refusal(&desc->quant, desc->k);
	if (why)
		return nx_fail(
			err, NX_ENOTSUP,
			"weight code %d in groups of %d inputs of %lld is not known here: %s",
			(int)desc->quant.code, desc->quant.group_size, (long long)desc->k, why);
	w->quant = desc->quant;
	w->ql = layout_of(&desc->quant, desc->k);
	w->panels_bytes = (uint64_t)(round_up(desc->n, PANEL) / PANEL * w->ql.panel_bytes);
	return 0;
}

/* ---- single elements */

static uint8_t *panel_of(const struct nx_weight *w, int64_t row)
{
	return (uint8_t *)w->data + row / PANEL * w->ql.panel_bytes;
}

static uint8_t *code_at(const struct nx_weight *w, int64_t row, int64_t i, int *shift)
{
	int64_t line = i / w->ql.line_inputs, bits = 32 / w->ql.line_inputs;
	int64_t bit = i % w->ql.line_inputs * bits;
	*shift = (int)(bit % 8);
	return panel_of(w, row) + (line * PANEL + row % PANEL) * 4 + bit / 8;
}

static uint8_t get_code(const struct nx_weight *w, int64_t row, int64_t i)
{
	int shift;
	uint8_t byte = *code_at(w, row, i, &shift);
	return w->ql.line_inputs == 8 ? byte >> shift & 15 : byte;
}

static void put_code(const struct nx_weight *w, int64_t row, int64_t i, uint8_t q)
{
	int shift;
	uint8_t *p = code_at(w, row, i, &shift);
	if (w->ql.line_inputs == 8)
		*p = (uint8_t)((*p & ~(15 << shift)) | (q & 15) << shift);
	else
		*p = q;
}

static uint8_t *param_at(const struct nx_weight *w, int64_t row, int64_t group)
{
	return panel_of(w, row) + w->ql.code_bytes + group * w->ql.param_bytes;
}

static struct nx_quant_param get_param(const struct nx_weight *w, int64_t row, int64_t group)
{
	struct nx_quant_param p = {0, 0};
	const uint8_t *at = param_at(w, row, group);
	uint16_t h[2] = {0, 0};
	if (w->quant.code == NX_WEIGHT_CODE_E4M3) {
		memcpy(&p.scale, at + row % PANEL * 4, sizeof(p.scale));
		return p;
	}
	memcpy(&h[0], at + row % PANEL * 2, sizeof(h[0]));
	if (w->quant.zero)
		memcpy(&h[1], at + (PANEL + row % PANEL) * 2, sizeof(h[1]));
	p.scale = nx_half_value(h[0]);
	p.zero = nx_half_value(h[1]);
	return p;
}

static void put_param(const struct nx_weight *w, int64_t row, int64_t group,
                      struct nx_quant_param p)
{
	uint8_t *at = param_at(w, row, group);
	uint16_t h[2] = {nx_half_code(p.scale), nx_half_code(p.zero)};
	if (w->quant.code == NX_WEIGHT_CODE_E4M3) {
		memcpy(at + row % PANEL * 4, &p.scale, sizeof(p.scale));
		return;
	}
	memcpy(at + row % PANEL * 2, &h[0], sizeof(h[0]));
	if (w->quant.zero)
		memcpy(at + (PANEL + row % PANEL) * 2, &h[1], sizeof(h[1]));
}

void quant_row(const struct nx_weight *w, int64_t row, float *dst)
{
	for (int64_t g = 0; g < w->ql.n_groups; g++) {
		struct nx_quant_param p = get_param(w, row, g);
		int64_t end = (g + 1) * w->ql.group < w->k ? (g + 1) * w->ql.group : w->k;
		for (int64_t i = g * w->ql.group; i < end; i++)
			dst[i] = nx_weight_value(&w->quant, p, get_code(w, row, i));
	}
}

void quant_round_acts(const struct nx_weight *w, const float *x, float *to)
{
	for (int64_t begin = 0; begin < w->k; begin += w->ql.group) {
		int64_t end = begin + w->ql.group < w->k ? begin + w->ql.group : w->k;
		float most = 0;
		for (int64_t i = begin; i < end; i++)
			most = fabsf(x[i]) > most ? fabsf(x[i]) : most;
		float by = most > 0 ? 127 / most : 0, scale = most / 127;
		for (int64_t i = begin; i < end; i++)
			to[i] = scale * rintf(x[i] * by);
	}
}

/* ---- packing */

struct fill {
	const struct nx_weight *w;
	const float *rows;    /* [n, k], or: */
	const uint8_t *codes; /* [n, k] */
	const struct nx_quant_param *params;
	int64_t row0, n;
};

static void fill_row(const struct fill *f, int64_t i)
{
	const struct nx_weight *w = f->w;
	const struct nx_weight_quant *q = &w->quant;
	for (int64_t g = 0; g < w->ql.n_groups; g++) {
		int64_t begin = g * w->ql.group,
			end = begin + w->ql.group < w->k ? begin + w->ql.group : w->k;
		struct nx_quant_param p;
		if (f->codes) {
			p = f->params[i * w->ql.n_groups + g];
			for (int64_t c = begin; c < end; c++)
				put_code(w, f->row0 + i, c, f->codes[i * w->k + c]);
		} else {
			const float *x = f->rows + i * w->k;
			p = nx_weight_param(q, x + begin, end - begin);
			for (int64_t c = begin; c < end; c++)
				put_code(w, f->row0 + i, c, nx_weight_code(q, p, x[c]));
		}
		put_param(w, f->row0 + i, g, p);
	}
}

/* Panels [begin, end) of the stage. */
static void fill_panels(void *ctx, int64_t begin, int64_t end, int thread)
{
	const struct fill *f = ctx;
	const struct nx_weight *w = f->w;
	/* Scales of features past n are 0, and x is 0 past k: codes there count for nothing. */
	memset(panel_of(w, f->row0 + begin * PANEL), 0,
	       (size_t)((end - begin) * w->ql.panel_bytes));
	(void)thread;
	for (int64_t i = begin * PANEL; i < end * PANEL && i < f->n; i++)
		fill_row(f, i);
}

int quant_weight_fill(struct cpu_dev *d, struct nx_weight *w, const struct nx_weight_desc *desc,
                      struct nx_err *err)
{
	size_t stage = (size_t)(STAGE_ROWS * w->k), groups = (size_t)(STAGE_ROWS * w->ql.n_groups);
	float *rows = desc->codes ? NULL : malloc(stage * sizeof(*rows));
	uint8_t *codes = desc->codes ? malloc(stage) : NULL;
	struct nx_quant_param *params = desc->codes ? malloc(groups * sizeof(*params)) : NULL;
	int rc = 0;
	if (desc->codes ? !codes || !params : !rows)
		rc = nx_fail(err, NX_ENOMEM, "no memory to pack a weight of %lld x %lld",
		             (long long)w->n, (long long)w->k);
	for (int64_t row = 0; row < w->n && !rc; row += STAGE_ROWS) {
		int64_t n = w->n - row < STAGE_ROWS ? w->n - row : STAGE_ROWS;
		struct fill f = {w, rows, codes, params, row, n};
		rc = codes ? desc->codes(desc->ctx, row, n, codes, params, err)
		           : desc->rows(desc->ctx, row, n, rows, err);
		if (!rc)
			pool_for(d->pool, round_up(n, PANEL) / PANEL, fill_panels, &f);
	}
	free(rows);
	free(codes);
	free(params);
	return rc;
}
