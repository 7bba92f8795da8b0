/* SPDX-License-Identifier: Apache-2.0
 *
 * engine/counted.c: attention's work, where the device's host does not know how many keys there are: from the plan's
 * bounds, which are exact but for drafts in flight.
 *
 * Of the target's layers all is in the plan. What a drafter enqueues over a group of its own the device says by the key
 * (uncounted()); the keys are those of the sequences that it was handed: in draft() what the root of each span sees, in
 * observe() what its rows of prompts do.
 */
#include "engine/impl.h"
#include "nexus_kernels/work.h"

/* Means of what a segment and what a row sees. */
struct keys {
	double segments, rows, segment_keys, row_keys; /* sums */
};

static const struct nx_segment *segment_at(const struct nx_engine *e, const struct nx_step *st,
                                           int32_t i)
{
	return (const struct nx_segment *)(const void *)(st->host + e->lay.segments) + i;
}

/* n rows, the last of which sees that many keys and each other one less than the next. */
static uint64_t pairs_of(uint64_t n, uint64_t keys)
{
	return n * keys - (n <= keys ? n * (n - 1) / 2 : 0);
}

static void add_keys(struct keys *k, int32_t rows, int32_t keys)
{
	if (rows < 1 || keys < 1)
		return;
	k->segments++;
	k->segment_keys += keys;
	k->rows += rows;
	k->row_keys += (double)pairs_of((uint64_t)rows, (uint64_t)keys);
}

/* Spans follow one another as their roots' segments do. */
static struct keys keys_of_spans(const struct nx_engine *e, const struct nx_step *st)
{
	const struct nx_draft_span *spans =
		(const struct nx_draft_span *)(const void *)(st->host + e->lay.spans);
	struct keys k = {0};
	int32_t i = 0;
	for (int32_t c = 0; c < e->n_chunks; c++)
		for (int32_t s = 0; s < e->chunks[c].n_segs; s++) {
			const struct nx_segment *seg = segment_at(e, st, e->chunks[c].seg0 + s);
			int32_t end = e->chunks[c].row0 + seg->row0 + seg->n_rows;
			for (; i < e->n_spans && spans[i].row0 - 1 < end; i++)
				add_keys(&k, 1, seg->max_keys - (end - spans[i].row0));
		}
	return k;
}

static struct keys keys_of_prompts(const struct nx_engine *e, const struct nx_step *st)
{
	struct keys k = {0};
	for (int32_t c = 0; c < e->n_chunks; c++) {
		const struct nx_chunk *chunk = &e->chunks[c];
		const struct nx_observed *o = e->observed + chunk->observed0,
					 *end = o + chunk->n_observed;
		for (int32_t s = 0; s < chunk->n_segs && o < end; s++) {
			const struct nx_segment *seg = segment_at(e, st, chunk->seg0 + s);
			if (o->row0 != seg->row0)
				continue;
			if (o->prompt || o->n_redo)
				add_keys(&k, o->n_rows, seg->max_keys - (seg->n_rows - o->n_rows));
			o++;
		}
	}
	return k;
}

static void add_unseen(struct nx_counted *more, const struct nx_uncounted *u, struct keys k)
{
	if (k.segments < 1)
		return;
	double segment = k.segment_keys / k.segments, row = k.row_keys / k.rows;
	more->kv_bytes += (uint64_t)((double)u->kv_bytes * segment + 0.5);
	more->act_bytes += (uint64_t)((double)u->act_bytes * row + 0.5);
	more->flops += (uint64_t)((double)u->flops * row + 0.5);
}

void nx_count_attention(struct nx_engine *e, const struct nx_step *st)
{
	const struct nx_shape *s = &e->w->shape;
	const struct nx_kv *kv = &e->store.kv[0];
	struct nx_keys_seen seen = {0, 0};
	struct nx_counted more = {0};
	if (!e->dev->ops->counted_add)
		return;
	/* A segment's keys are read once, for all its rows and in each layer. */
	for (int32_t i = 0; i < e->n_segs; i++) {
		const struct nx_segment *seg = segment_at(e, st, i);
		seen.read += (uint64_t)seg->max_keys;
		seen.pairs += pairs_of((uint64_t)seg->n_rows, (uint64_t)seg->max_keys);
	}
	seen.read *= (uint64_t)s->n_layers;
	seen.pairs *= (uint64_t)s->n_layers;
	nx_count_keys(&more, &seen, (uint64_t)kv->row_bytes, (uint64_t)s->n_heads,
	              (uint64_t)s->head_dim,
	              e->attn_kernel == NX_ATTN_MATERIALISED && !e->own_codec);
	add_unseen(&more, &e->unseen[NX_UNSEEN_DRAFT], keys_of_spans(e, st));
	add_unseen(&more, &e->unseen[NX_UNSEEN_OBSERVE], keys_of_prompts(e, st));
	e->dev->ops->counted_add(e->dev->dev, &more);
}

void nx_count_hook_begin(struct nx_engine *e)
{
	struct nx_uncounted target;
	if (e->dev->ops->uncounted)
		e->dev->ops->uncounted(e->dev->dev, &target); /* that is in the plan */
}

void nx_count_hook_end(struct nx_engine *e, enum nx_unseen which)
{
	struct nx_uncounted own, *to = &e->unseen[which];
	if (!e->dev->ops->uncounted)
		return;
	e->dev->ops->uncounted(e->dev->dev, &own);
	to->kv_bytes += own.kv_bytes;
	to->act_bytes += own.act_bytes;
	to->flops += own.flops;
}
