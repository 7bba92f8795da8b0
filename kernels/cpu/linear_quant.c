/* SPDX-License-Identifier: Apache-2.0
 *
 * Products with weights of codes: packs rows of x into blocks and spreads panels over the threads.
 */
#include "cpu/cpu.h"

#define SERIAL_PACK 16384 /* elements of x that one thread packs alone */
#define DECODE_BLOCKS 3

struct quant_call {
	struct quant_job job;
	void (*fn)(const struct quant_job *job, int64_t begin, int64_t end, int thread);
};

static void part(void *ctx, int64_t begin, int64_t end, int thread)
{
	const struct quant_call *c = ctx;
	c->fn(&c->job, begin, end, thread);
}

/* Bytes of a block's arrays, each rounded up to whole lines of the cache. */
struct block_bytes {
	int64_t x, group;
};

static struct block_bytes bytes_of(const struct nx_weight *w, int64_t rows)
{
	return (struct block_bytes){
		.x = round_up(w->ql.k_pad * rows * (w->quant.int8_acts ? 1 : 4), 64),
		.group = round_up(w->ql.n_groups * rows * 4, 64)};
}

int quant_linear(struct cpu_dev *d, const struct nx_linear *a, struct nx_err *err)
{
	const struct nx_weight *w = a->w;
	bool int8 = w->quant.int8_acts;
	int64_t most = int8 ? d->quant.rows_int8 : d->quant.rows;
	int n_blocks = (int)((a->m + most - 1) / most);
	int64_t rows = (a->m + n_blocks - 1) / n_blocks; /* of the largest block */
	struct block_bytes each = bytes_of(w, rows);
	int64_t head = round_up(n_blocks * (int64_t)sizeof(struct quant_block), 64),
		block = each.x + 3 * each.group;
	/* From here on codes are made numbers once for all blocks. */
	int64_t stride =
		!int8 && n_blocks >= DECODE_BLOCKS ? w->ql.k_pad * PANEL * d->quant.panels : 0;
	int64_t space = stride * (int64_t)sizeof(float) * pool_size(d->pool);
	char *scratch = cpu_scratch(d, (size_t)(head + n_blocks * block + space));
	if (!scratch)
		return nx_fail(err, NX_ENOMEM, "no memory for %d rows of activations", a->m);
	struct quant_call c = {
		.job = {.a = a,
	                .blocks = (struct quant_block *)(void *)scratch,
	                .n_blocks = n_blocks,
	                .space = stride ? (float *)(void *)(scratch + head + n_blocks * block)
	                                : NULL,
	                .space_stride = stride},
		.fn = int8 ? d->quant.pack_int8 : d->quant.pack};
	for (int b = 0; b < n_blocks; b++) {
		/* The larger blocks first: the first one says how many panels fit a tile. */
		int64_t row0 = a->m - (int64_t)a->m * (n_blocks - b) / n_blocks;
		int64_t row1 = a->m - (int64_t)a->m * (n_blocks - b - 1) / n_blocks;
		char *at = scratch + head + b * block;
		c.job.blocks[b] = (struct quant_block){
			.x = at,
			.row0 = row0,
			.r = (int)(row1 - row0),
			.sum = (float *)(void *)(at + each.x),
			.scale = (float *)(void *)(at + each.x + each.group),
			.start = (int32_t *)(void *)(at + each.x + 2 * each.group)};
	}
	if (a->m * w->k <= SERIAL_PACK)
		part(&c, 0, n_blocks, 0);
	else
		pool_for(d->pool, n_blocks, part, &c);
	c.fn = int8 ? d->quant.gemm_int8 : d->quant.gemm;
	pool_for(d->pool, w->n_panels, part, &c);
	return 0;
}
