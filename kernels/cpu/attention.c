/* SPDX-License-Identifier: Apache-2.0
 *
 * Attention over the block table: what is computed where.
 *
 * The rows of a segment that share a kv head are its "q rows": i = row * group + head in group. Work is cut into
 * items (segment, kv head, run of q rows, run of chunks). Within an item keys go by in tiles of TILE_KEYS,
 * counted from the start of their chunk; a tile is staged once for all q rows that see it through the table, and
 * once for each row that sees scratch rows in it. What a row gets out depends on its own keys and the chunk
 * grid alone, so rows, threads, block size and the cut into items can change without changing a bit of it.
 *
 * Tiled: (max, sum, output) of each chunk are merged in order of chunks, at once, or by a second pass where
 * there are too few rows to keep the threads busy and chunks are items of their own.
 * Materialised: scores of all rows are written to the workspace, then softmax over it, then the product with V.
 */
#include "cpu/attention.h"

#include <math.h>
#include <stdlib.h>

#define Q_ROWS 64             /* most q rows of an item */
#define SERIAL_PRODUCTS 16384 /* query times key elements that the caller does alone */
#define SERIAL_MERGE 32768    /* elements of chunks that the caller merges alone */
#define SPLIT_ROWS 64 /* calls of more rows are never split over chunks: bounds the workspace */

struct item {
	int32_t segment, kv_head;
	int32_t i0, i1; /* q rows of the segment */
	int32_t chunk0, chunk1;
};

struct scratch {
	float keys[ATTN_MAX_DIM * TILE_KEYS];
	float values[TILE_KEYS * ATTN_MAX_DIM];
	float q[Q_ROWS * ATTN_MAX_DIM]; /* scaled */
	float score[Q_ROWS * TILE_KEYS];
	float part[Q_ROWS * ATTN_MAX_DIM]; /* output of this chunk */
	float out[Q_ROWS * ATTN_MAX_DIM];  /* of all chunks so far */
	float part_max[Q_ROWS], part_sum[Q_ROWS], max[Q_ROWS], sum[Q_ROWS];
	struct row_keys see[Q_ROWS];
	const uint8_t *key_row[TILE_KEYS], *value_row[TILE_KEYS];
	const uint8_t *next_key[TILE_KEYS], *next_value[TILE_KEYS]; /* of the tile after */
	int32_t own[Q_ROWS]; /* encoded: first key in full precision */
	float coded_keys[TILE_KEYS * ATTN_MAX_DIM], coded_values[TILE_KEYS * ATTN_MAX_DIM];
};

enum phase { TILED, SCORES, SOFTMAX, OUTPUT, MERGE };

struct job {
	struct cpu_dev *d;
	const struct nx_attention *a;
	const struct attention_kernels *k;
	const struct item *items;
	const int32_t *bounds; /* [threads + 1] items of each thread */
	enum phase phase;
	bool split; /* tiled: chunks are items, merged later */
	bool coded;
	int32_t dim, cols, group, n_chunks;
	int64_t score_stride;
};

static int64_t chunks_of(int64_t keys, int32_t kv_chunk)
{
	return (keys + kv_chunk - 1) / kv_chunk;
}

void *attention_scratch_create(struct cpu_dev *d, int n_threads)
{
	(void)d;
	return aligned_alloc(64, (size_t)round_up(sizeof(struct scratch), 64) * (size_t)n_threads);
}

size_t attention_workspace_bytes(enum nx_attn_kernel kernel, int32_t kv_chunk, int32_t n_heads,
                                 int32_t head_dim, int64_t rows, int64_t keys)
{
	if (kernel == NX_ATTN_MATERIALISED)
		return (size_t)n_heads * (size_t)rows * (size_t)round_up(keys, TILE_KEYS) *
		       sizeof(float);
	if (kv_chunk < 1)
		return 0;
	int64_t split_rows = rows < SPLIT_ROWS ? rows : SPLIT_ROWS;
	return (size_t)(split_rows * n_heads * chunks_of(keys, kv_chunk) * (head_dim + 2)) *
	       sizeof(float);
}

/* ---- one item */

struct view {
	const struct job *j;
	struct scratch *s;
	const struct item *it;
	const struct nx_segment *seg;
	int n;                    /* q rows */
	int32_t most;             /* keys that any of them sees */
	struct coded_scene coded; /* where rows are encoded */
};

static void view_open(struct view *v, const struct job *j, struct scratch *s, const struct item *it)
{
	const struct nx_attention *a = j->a;
	*v = (struct view){.j = j,
	                   .s = s,
	                   .it = it,
	                   .seg = &a->rows->segments[it->segment],
	                   .n = it->i1 - it->i0};
	if (j->coded)
		v->coded = coded_scene_of(a, v->seg, j->k->decode);
	for (int i = 0; i < v->n; i++) {
		int32_t row = v->seg->row0 + (it->i0 + i) / j->group;
		int32_t head = it->kv_head * j->group + (it->i0 + i) % j->group;
		const float *q = (const float *)a->q + row * a->q_stride + (int64_t)head * j->dim;
		s->see[i] = coded_keys(a, row);
		s->own[i] = coded_own(a, row, &s->see[i]);
		int32_t keys = s->see[i].n_table + s->see[i].n_anc;
		v->most = keys > v->most ? keys : v->most;
		for (int32_t d = 0; d < j->dim; d++)
			s->q[i * j->dim + d] = q[d] * a->scale;
	}
}

/* Keys of the tile [begin, end) that q row i sees. */
static int visible(const struct view *v, int i, int32_t begin, int32_t end)
{
	int32_t n = v->s->see[i].n_table + v->s->see[i].n_anc;
	n = n < end ? n : end;
	return n > begin ? n - begin : 0;
}

/* q row i sees no scratch row in the tile, so it can share what is staged. */
static bool shares(const struct view *v, int i, int32_t begin, int32_t end)
{
	return v->s->see[i].n_anc == 0 || begin + visible(v, i, begin, end) <= v->s->see[i].n_table;
}

/* Keys of the tile from here on are read in full precision. */
static int32_t border(const struct view *v, int i, int32_t begin, int32_t end)
{
	int32_t own = v->s->own[i];
	return own < begin ? begin : own < end ? own : end;
}

/* Decodes keys [begin, begin + n) of q row i, as far as the phase needs them. */
static void decode(const struct view *v, int i, int32_t begin, int n)
{
	struct scratch *s = v->s;
	int32_t dim = v->j->dim, head = v->it->kv_head;
	for (int j = 0; j < n; j++) {
		float *k = s->coded_keys + j * dim, *x = s->coded_values + j * dim;
		coded_get(&v->coded, &s->see[i], s->own[i], begin + j, head,
		          v->j->phase == OUTPUT ? NULL : k, v->j->phase == SCORES ? NULL : x);
		s->key_row[j] = (const uint8_t *)k;
		s->value_row[j] = (const uint8_t *)x;
	}
}

/* Where keys [begin, begin + n) of q row i lie. */
static void locate(const struct view *v, int i, int32_t begin, int n, const uint8_t **key_row,
                   const uint8_t **value_row)
{
	const struct nx_kv *kv = v->j->a->kv;
	int32_t layer = v->j->a->layer;
	int64_t head = (int64_t)v->it->kv_head * v->j->dim * (int64_t)kv_element_bytes(kv);
	for (int j = 0; j < n;) {
		const uint8_t *value, *key = row_key(kv, &v->s->see[i], layer, begin + j, &value);
		int run = 1; /* the rest of the block follows it */
		if (begin + j < v->s->see[i].n_table) {
			run = kv->block_size - (begin + j) % kv->block_size;
			int32_t left = v->s->see[i].n_table - (begin + j);
			run = run < left ? run : left;
		}
		for (; run > 0 && j < n; run--, j++, key += kv->row_bytes, value += kv->row_bytes) {
			key_row[j] = key + head;
			value_row[j] = value + head;
		}
	}
}

/* Adds scores [to - from][n] times the tile's values to the outputs. Tiled, few rows read them where they lie:
 * staging pays from the second pass on. */
static void add_values(const struct view *v, int from, int to, const float *score, int64_t stride,
                       int n, int n_next)
{
	const struct job *j = v->j;
	struct scratch *s = v->s;
	bool bf16 = j->a->kv->codec == NX_KV_BF16;
	float *part = s->part + from * j->cols;
	if (j->phase == TILED && to - from <= j->k->weigh_rows && j->cols == j->dim) {
		j->k->weigh(part, j->cols, score, stride, s->value_row, to - from, n, j->cols, bf16,
		            s->next_key, n_next);
		return;
	}
	j->k->values(s->values, s->value_row, n, j->dim, j->cols, bf16);
	j->k->multiply(part, j->cols, score, stride, s->values, j->cols, j->k->lanes, to - from, n,
	               j->cols, true);
}

static void tiled_rows(const struct view *v, int from, int to, int32_t begin, int32_t end, int n,
                       int n_next)
{
	struct scratch *s = v->s;
	const struct job *j = v->j;
	float *score = s->score + from * TILE_KEYS;
	j->k->multiply(score, TILE_KEYS, s->q + from * j->dim, j->dim, s->keys, j->k->lanes,
	               (int64_t)j->dim * j->k->lanes, to - from, j->dim, TILE_KEYS, false);
	for (int i = from; i < to; i++) {
		int seen = visible(v, i, begin, end);
		if (seen == 0) {
			memset(s->score + i * TILE_KEYS, 0, TILE_KEYS * sizeof(float));
			continue;
		}
		float by = j->k->softmax_tile(s->score + i * TILE_KEYS, seen, &s->part_max[i],
		                              &s->part_sum[i]);
		if (by != 1)
			j->k->scale(s->part + i * j->cols, j->cols, by);
	}
	add_values(v, from, to, score, TILE_KEYS, n, n_next);
}

static float *score_row(const struct view *v, int i)
{
	const struct job *j = v->j;
	int64_t row = ((int64_t)v->it->kv_head * j->a->rows->n_rows + v->seg->row0) * j->group;
	return (float *)j->a->workspace + (row + v->it->i0 + i) * j->score_stride;
}

static void score_rows(const struct view *v, int from, int to, int32_t begin)
{
	const struct job *j = v->j;
	j->k->multiply(score_row(v, from) + begin, j->score_stride, v->s->q + from * j->dim, j->dim,
	               v->s->keys, j->k->lanes, (int64_t)j->dim * j->k->lanes, to - from, j->dim,
	               TILE_KEYS, false);
}

/* Stages the tile's keys and values as q row i sees them and does the phase for q rows [from, to). */
static void tile_rows(const struct view *v, int from, int to, int32_t begin, int32_t end)
{
	const struct job *j = v->j;
	bool bf16 = j->a->kv->codec == NX_KV_BF16;
	int n = 0, longest = from;
	for (int i = from; i < to; i++)
		if (visible(v, i, begin, end) > n) {
			n = visible(v, i, begin, end);
			longest = i;
		}
	if (n == 0)
		return;
	int n_next = 0; /* keys of the next tile, fetched on the way */
	if (j->coded) {
		decode(v, longest, begin, n);
	} else {
		locate(v, longest, begin, n, v->s->key_row, v->s->value_row);
		if (j->phase == TILED && to - from <= j->k->weigh_rows)
			n_next = visible(v, longest, end, end + TILE_KEYS);
		locate(v, longest, end, n_next, v->s->next_key, v->s->next_value);
	}
	if (j->phase != OUTPUT)
		j->k->keys(v->s->keys, v->s->key_row,
		           j->phase == TILED ? v->s->value_row : v->s->key_row, n, j->dim, bf16);
	if (j->phase == TILED)
		tiled_rows(v, from, to, begin, end, n, n_next);
	else if (j->phase == SCORES)
		score_rows(v, from, to, begin);
	else
		add_values(v, from, to, score_row(v, from) + begin, j->score_stride, n, n_next);
}

/* One tile for all q rows: runs of rows that share it, and rows alone (with all heads of theirs). */
static void tile(const struct view *v, int32_t begin, int32_t end)
{
	for (int i = 0; i < v->n;) {
		int to = i + 1;
		if (shares(v, i, begin, end)) {
			while (to < v->n && shares(v, to, begin, end) &&
			       border(v, to, begin, end) == border(v, i, begin, end))
				to++;
		} else {
			int32_t row = (v->it->i0 + i) / v->j->group;
			while (to < v->n && (v->it->i0 + to) / v->j->group == row)
				to++;
		}
		tile_rows(v, i, to, begin, end);
		i = to;
	}
}

/* (max, sum, out) absorbs a later chunk's; a chunk that was not seen has max = -inf and changes nothing. */
static void merge(float *max, float *sum, float *out, float part_max, float part_sum,
                  const float *part, int32_t dim)
{
	if (part_max == -INFINITY)
		return;
	float top = *max > part_max ? *max : part_max;
	float a = *max == top ? 1 : expf(*max - top),
	      b = part_max == top ? 1 : expf(part_max - top);
	*max = top;
	*sum = *sum * a + part_sum * b;
	for (int32_t d = 0; d < dim; d++)
		out[d] = out[d] * a + part[d] * b;
}

static float *partial(const struct job *j, int32_t row, int32_t head, int32_t chunk)
{
	int64_t at = ((int64_t)row * j->a->n_heads + head) * j->n_chunks + chunk;
	return (float *)j->a->workspace + at * (j->dim + 2);
}

static void write_out(const struct job *j, int32_t row, int32_t head, const float *out, float sum)
{
	float *to = (float *)j->a->out + ((int64_t)row * j->a->n_heads + head) * j->dim;
	for (int32_t d = 0; d < j->dim; d++)
		to[d] = sum > 0 ? out[d] / sum : sum; /* none, or NaN */
}

static void tiled_chunk(struct view *v, int32_t chunk)
{
	const struct job *j = v->j;
	struct scratch *s = v->s;
	int32_t begin = chunk * j->a->kv_chunk;
	int32_t stop = v->most - begin < j->a->kv_chunk ? v->most : begin + j->a->kv_chunk;
	memset(s->part, 0, sizeof(float) * (size_t)(v->n * j->cols));
	for (int i = 0; i < v->n; i++) {
		s->part_max[i] = -INFINITY;
		s->part_sum[i] = 0;
	}
	for (int32_t t = begin; t < stop; t += TILE_KEYS)
		tile(v, t, stop - t < TILE_KEYS ? stop : t + TILE_KEYS);
	for (int i = 0; i < v->n; i++) {
		const float *part = s->part + i * j->cols;
		if (!j->split) {
			merge(&s->max[i], &s->sum[i], s->out + i * j->cols, s->part_max[i],
			      s->part_sum[i], part, j->dim);
			continue;
		}
		int32_t q_row = v->it->i0 + i;
		float *to = partial(j, v->seg->row0 + q_row / j->group,
		                    v->it->kv_head * j->group + q_row % j->group, chunk);
		to[0] = s->part_max[i];
		to[1] = s->part_sum[i];
		memcpy(to + 2, part, sizeof(float) * (size_t)j->dim);
	}
}

static void finish_rows(const struct view *v, const float *out, const float *sum)
{
	const struct job *j = v->j;
	for (int i = 0; i < v->n; i++) {
		int32_t q_row = v->it->i0 + i;
		write_out(j, v->seg->row0 + q_row / j->group,
		          v->it->kv_head * j->group + q_row % j->group, out + i * j->cols, sum[i]);
	}
}

static void tiled_item(struct view *v)
{
	const struct job *j = v->j;
	struct scratch *s = v->s;
	memset(s->out, 0, sizeof(float) * (size_t)(v->n * j->cols));
	for (int i = 0; i < v->n; i++) {
		s->max[i] = -INFINITY;
		s->sum[i] = 0;
	}
	for (int32_t c = v->it->chunk0; c < v->it->chunk1; c++)
		if ((int64_t)c * j->a->kv_chunk < v->most || j->split)
			tiled_chunk(v, c);
	if (!j->split)
		finish_rows(v, s->out, s->sum);
}

static void materialised_item(struct view *v)
{
	const struct job *j = v->j;
	struct scratch *s = v->s;
	if (j->phase == SOFTMAX) {
		for (int i = 0; i < v->n; i++) {
			int32_t n = s->see[i].n_table + s->see[i].n_anc;
			/* Zeros as far as the longest row goes: the product runs over tiles of all rows. */
			int64_t padded = round_up(v->most, TILE_KEYS);
			float *score = score_row(v, i), max = n ? j->d->k->max(score, n) : 0;
			float sum = j->k->exp_row(score, n, padded, max);
			j->k->scale(score, padded, n ? 1 / sum : 0);
		}
		return;
	}
	memset(s->part, 0, sizeof(float) * (size_t)(v->n * j->cols));
	for (int32_t t = 0; t < v->most; t += TILE_KEYS)
		tile(v, t, t + TILE_KEYS);
	for (int i = 0; i < v->n; i++)
		s->sum[i] = 1;
	if (j->phase == OUTPUT)
		finish_rows(v, s->part, s->sum);
}

/* ---- the whole */

static void thread_items(void *ctx, int64_t begin, int64_t end, int thread)
{
	const struct job *j = ctx;
	struct scratch *s = (struct scratch *)(void *)((char *)j->d->attn_scratch +
	                                               thread * round_up(sizeof(*s), 64));
	for (int64_t t = begin; t < end; t++)
		for (int32_t i = j->bounds[t]; i < j->bounds[t + 1]; i++) {
			struct view v;
			view_open(&v, j, s, &j->items[i]);
			if (j->phase == TILED)
				tiled_item(&v);
			else
				materialised_item(&v);
		}
}

static void merge_rows(void *ctx, int64_t begin, int64_t end, int thread)
{
	const struct job *j = ctx;
	float out[ATTN_MAX_DIM];
	(void)thread;
	for (int64_t i = begin; i < end; i++) {
		int32_t row = (int32_t)(i / j->a->n_heads), head = (int32_t)(i % j->a->n_heads);
		struct row_keys keys = coded_keys(j->a, row);
		int64_t chunks = chunks_of((int64_t)keys.n_table + keys.n_anc, j->a->kv_chunk);
		float max = -INFINITY, sum = 0;
		memset(out, 0, sizeof(out));
		for (int32_t c = 0; c < chunks; c++) {
			const float *p = partial(j, row, head, c);
			merge(&max, &sum, out, p[0], p[1], p + 2, j->dim);
		}
		write_out(j, row, head, out, sum);
	}
}

/* Keys that any row of the segment sees. */
static int32_t segment_keys(const struct nx_attention *a, const struct nx_segment *seg)
{
	int32_t most = 0;
	for (int32_t r = seg->row0; r < seg->row0 + seg->n_rows; r++) {
		struct row_keys keys = row_keys(a->rows, a->state, r);
		int32_t n = keys.n_table + keys.n_anc;
		most = n > most ? n : most;
	}
	return most;
}

/* Fills items (NULL: only counts them) and says how many there are. */
static int64_t cut(const struct job *j, struct item *items)
{
	const struct nx_attention *a = j->a;
	int64_t n = 0;
	for (int32_t g = 0; g < a->rows->n_segments; g++) {
		const struct nx_segment *seg = &a->rows->segments[g];
		int32_t q_rows = seg->n_rows * j->group, keys = j->split ? segment_keys(a, seg) : 0;
		int32_t chunks = j->split ? (int32_t)chunks_of(keys, a->kv_chunk) : 1;
		/* Chunks outermost: the short last ones come last and even out the threads. */
		for (int32_t c = 0; c < chunks; c++)
			for (int32_t h = 0; h < a->kv->n_kv_heads; h++)
				for (int32_t i = 0; i < q_rows; i += Q_ROWS, n++) {
					if (!items)
						continue;
					int32_t i1 = q_rows - i < Q_ROWS ? q_rows : i + Q_ROWS;
					items[n] = (struct item){
						g, h, i, i1, c, j->split ? c + 1 : j->n_chunks};
				}
	}
	return n;
}

/* Gives each thread items of about the same cost: late rows of a long prompt see many more keys. */
static void share_out(const struct job *j, int64_t n, int threads, int32_t *bounds)
{
	double total = 0, run = 0;
	int t = 0;
	for (int pass = 0; pass < 2; pass++)
		for (int64_t i = 0; i < n; i++) {
			const struct item *it = &j->items[i];
			const struct nx_segment *seg = &j->a->rows->segments[it->segment];
			struct row_keys keys = row_keys(j->a->rows, j->a->state,
			                                seg->row0 + (it->i1 - 1) / j->group);
			double cost = (double)keys.n_table + keys.n_anc;
			if (j->split) {
				cost -= (double)it->chunk0 * j->a->kv_chunk;
				cost = cost < 0 ? 0 : cost < j->a->kv_chunk ? cost : j->a->kv_chunk;
			}
			cost = (cost + 1) *
			       (16 + it->i1 - it->i0); /* staging costs as some 16 rows do */
			if (pass == 0) {
				total += cost;
				continue;
			}
			while (t < threads && run + cost / 2 >= total * t / threads)
				bounds[t++] = (int32_t)i;
			run += cost;
		}
	while (t <= threads)
		bounds[t++] = (int32_t)n;
}

int fast_attention(struct cpu_dev *d, const struct nx_attention *a, struct nx_err *err)
{
	int threads = pool_size(d->pool);
	/* A few keys are done sooner than another thread could begin. */
	if ((int64_t)a->rows->n_rows * a->rows->max_keys * a->n_heads * a->kv->head_dim <
	    SERIAL_PRODUCTS)
		threads = 1;
	struct job j = {.d = d, .a = a, .k = d->k->attention, .dim = a->kv->head_dim};
	bool tiled = a->kernel == NX_ATTN_TILED;
	j.coded = nx_kv_is_coded(a->kv->codec);
	j.cols = (int32_t)round_up(j.dim, j.k->lanes);
	j.group = a->n_heads / a->kv->n_kv_heads;
	j.score_stride = round_up(a->rows->max_keys, TILE_KEYS);
	j.n_chunks = tiled ? (int32_t)chunks_of(a->rows->max_keys, a->kv_chunk) : 1;
	int64_t n = cut(&j, NULL);
	if (tiled && n < 4 * threads && threads > 1 && a->rows->n_rows <= SPLIT_ROWS &&
	    j.n_chunks > 1) {
		j.split = true;
		n = cut(&j, NULL);
	}
	size_t bytes = (size_t)n * sizeof(struct item) + ((size_t)threads + 1) * sizeof(int32_t);
	struct item *items = cpu_scratch(d, bytes);
	if (!items)
		return nx_fail(err, NX_ENOMEM, "no memory for %lld items of attention",
		               (long long)n);
	int32_t *bounds = (int32_t *)(void *)(items + n);
	cut(&j, items);
	j.items = items;
	share_out(&j, n, threads, bounds);
	j.bounds = bounds;
	if (tiled) {
		j.phase = TILED;
		pool_for(d->pool, threads, thread_items, &j);
		int64_t outputs = (int64_t)a->rows->n_rows * a->n_heads;
		if (j.split && outputs * j.n_chunks * j.dim < SERIAL_MERGE)
			merge_rows(&j, 0, outputs, 0);
		else if (j.split)
			pool_for(d->pool, outputs, merge_rows, &j);
		return 0;
	}
	for (j.phase = SCORES; j.phase <= OUTPUT; j.phase++)
		pool_for(d->pool, threads, thread_items, &j);
	return 0;
}
