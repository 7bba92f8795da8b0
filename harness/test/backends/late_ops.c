/* SPDX-License-Identifier: Apache-2.0
 *
 * test/backends/late_ops.c: the operations of the late device, each a copy of its arguments and a call of the
 * CPU backend's operation of the same name, later.
 *
 * A new operation `foo(dev, s, a, n, err)` takes three things, and one line in late_set_ops():
 *   1. `struct foo_args` with one field for each argument between the stream and err, in their order;
 *   2. RUN(foo, a->a, a->n): what is handed on, from those fields;
 *   3. late_foo(): late_begin(), DEVICE() for what has to be device memory, then QUEUE(foo, ...) with
 *      the values of the fields. Structs and arrays of the host's are passed through their keep_...(), or
 *      through late_keep(k, p, bytes). Pointers into device memory are passed as they are. Host memory
 *      that the operation reads: late_reads(); that it writes: late_poison().
 * A new field in a struct: nothing, unless it is a pointer. One into device memory gets a DEVICE() in the
 * struct's keep_...(); one to host memory has to be kept there.
 */
#include "late.h"

#include "nexus_kernels/work.h"

#define DEVICE(pointer) late_check(k, pointer, #pointer)

#define RUN(op, ...)                                                                               \
	static int run_##op(struct late_dev *d, void *args, struct nx_err *err)                    \
	{                                                                                          \
		const struct op##_args *a = args;                                                  \
		return late_inner->op(d->inner, NULL, __VA_ARGS__, err);                           \
	}

#define QUEUE(op, ...)                                                                             \
	do {                                                                                       \
		const struct op##_args args_ = {__VA_ARGS__};                                      \
		return late_push(k, s, run_##op, &args_, sizeof(args_), err);                      \
	} while (0)

/* ---- structs: every pointer is kept or checked here, in the order of device.h */

static const struct nx_rows *keep_rows(struct late_work *k, const struct nx_rows *rows)
{
	DEVICE(rows->seq);
	DEVICE(rows->token);
	DEVICE(rows->slot_off);
	DEVICE(rows->pos_off);
	DEVICE(rows->kind);
	DEVICE(rows->scratch);
	DEVICE(rows->n_anc);
	DEVICE(rows->anc);
	DEVICE(rows->segments);
	return late_keep(k, rows, sizeof(*rows));
}

static const struct nx_seq_state *keep_state(struct late_work *k, const struct nx_seq_state *state)
{
	DEVICE(state->len);
	DEVICE(state->last_token);
	return late_keep(k, state, sizeof(*state));
}

static const struct nx_kv *keep_kv(struct late_work *k, const struct nx_kv *kv)
{
	DEVICE(kv->table);
	DEVICE(kv->base);
	DEVICE(kv->scratch);
	DEVICE(kv->win);
	return late_keep(k, kv, sizeof(*kv));
}

static const struct nx_draft *keep_draft(struct late_work *k, const struct nx_draft *draft)
{
	DEVICE(draft->token);
	DEVICE(draft->parent);
	DEVICE(draft->kind);
	DEVICE(draft->q_row);
	DEVICE(draft->q);
	DEVICE(draft->q_token);
	return late_keep(k, draft, sizeof(*draft));
}

static const struct nx_verdict *keep_verdict(struct late_work *k, const struct nx_verdict *v)
{
	DEVICE(v->token);
	DEVICE(v->n_accepted);
	DEVICE(v->path);
	return late_keep(k, v, sizeof(*v));
}

static const struct nx_draft_rows *keep_draft_rows(struct late_work *k,
                                                   const struct nx_draft_rows *rows)
{
	DEVICE(rows->token);
	DEVICE(rows->slot_off);
	DEVICE(rows->pos_off);
	DEVICE(rows->kind);
	DEVICE(rows->scratch);
	DEVICE(rows->n_anc);
	DEVICE(rows->anc);
	return late_keep(k, rows, sizeof(*rows));
}

static const struct nx_linear *keep_linear(struct late_work *k, const struct nx_linear *linear)
{
	DEVICE(linear->x);
	DEVICE(linear->y);
	return late_keep(k, linear, sizeof(*linear));
}

static const struct nx_rope_store *keep_rope(struct late_work *k, const struct nx_rope_store *rope)
{
	struct nx_rope_store *c = late_keep(k, rope, sizeof(*rope));
	c->rows = keep_rows(k, rope->rows);
	c->state = keep_state(k, rope->state);
	c->kv = keep_kv(k, rope->kv);
	DEVICE(rope->inv_freq);
	DEVICE(rope->qkv);
	DEVICE(rope->bias);
	DEVICE(rope->q_norm);
	DEVICE(rope->k_norm);
	return c;
}

static const struct nx_attention *keep_attention(struct late_work *k,
                                                 const struct nx_attention *att)
{
	struct nx_attention *c = late_keep(k, att, sizeof(*att));
	c->rows = keep_rows(k, att->rows);
	c->state = keep_state(k, att->state);
	c->kv = keep_kv(k, att->kv);
	DEVICE(att->q);
	DEVICE(att->out);
	DEVICE(att->workspace);
	return c;
}

static const struct nx_sample *keep_sample(struct late_work *k, const struct nx_sample *sample)
{
	struct nx_sample *c = late_keep(k, sample, sizeof(*sample));
	c->state = keep_state(k, sample->state);
	DEVICE(sample->logits);
	DEVICE(sample->emit);
	DEVICE(sample->samplers);
	if (sample->draft)
		c->draft = keep_draft(k, sample->draft);
	c->verdict = keep_verdict(k, sample->verdict);
	DEVICE(sample->logprob);
	DEVICE(sample->force);
	DEVICE(sample->override);
	return c;
}

/* ---- memory and work of others */

struct enqueue_args {
	nx_enqueue_fn fn;
	const void *args; /* kept, as any operation's */
	size_t bytes;
};

static int run_enqueue(struct late_dev *d, void *args, struct nx_err *err)
{
	const struct enqueue_args *a = args;
	return late_inner->enqueue(d->inner, NULL, a->fn, a->args, a->bytes, err);
}

static int late_enqueue(void *dev, struct nx_stream *s, nx_enqueue_fn fn, const void *args,
                        size_t bytes, struct nx_err *err)
{
	int rc = nx_enqueue_check(bytes, err);
	if (rc)
		return rc;
	struct late_work *k = late_begin(dev);
	QUEUE(enqueue, fn, late_keep(k, bytes ? args : NULL, bytes), bytes);
}

struct copy_args {
	void *dst;
	const void *src;
	size_t bytes;
	enum nx_copy_dir dir;
};
RUN(copy, a->dst, a->src, a->bytes, a->dir)

static int late_copy(void *dev, struct nx_stream *s, void *dst, const void *src, size_t bytes,
                     enum nx_copy_dir dir, struct nx_err *err)
{
	struct late_work *k = late_begin(dev);
	if (dir == NX_H2D)
		late_reads(k, src, bytes);
	else
		DEVICE(src);
	if (dir == NX_D2H)
		late_poison(k->d, dst, bytes);
	else
		DEVICE(dst);
	QUEUE(copy, dst, src, bytes, dir);
}

struct fill_args {
	void *dst;
	int byte;
	size_t bytes;
};
RUN(fill, a->dst, a->byte, a->bytes)

static int late_fill(void *dev, struct nx_stream *s, void *dst, int byte, size_t bytes,
                     struct nx_err *err)
{
	struct late_work *k = late_begin(dev);
	DEVICE(dst);
	QUEUE(fill, dst, byte, bytes);
}

/* ---- operations on rows */

struct embed_args {
	const struct nx_rows *rows;
	const struct nx_seq_state *state;
	const struct nx_weight *table;
	void *x;
};
RUN(embed, a->rows, a->state, a->table, a->x)

static int late_embed(void *dev, struct nx_stream *s, const struct nx_rows *rows,
                      const struct nx_seq_state *state, const struct nx_weight *table, void *x,
                      struct nx_err *err)
{
	struct late_work *k = late_begin(dev);
	DEVICE(x);
	QUEUE(embed, keep_rows(k, rows), keep_state(k, state), table, x);
}

struct rmsnorm_args {
	void *y;
	const void *x;
	const float *w;
	int32_t rows, cols;
	float eps;
};
RUN(rmsnorm, a->y, a->x, a->w, a->rows, a->cols, a->eps)

static int late_rmsnorm(void *dev, struct nx_stream *s, void *y, const void *x, const float *w,
                        int32_t rows, int32_t cols, float eps, struct nx_err *err)
{
	struct late_work *k = late_begin(dev);
	DEVICE(y);
	DEVICE(x);
	DEVICE(w);
	QUEUE(rmsnorm, y, x, w, rows, cols, eps);
}

struct linear_args {
	const struct nx_linear *linear;
};
RUN(linear, a->linear)

static int late_linear(void *dev, struct nx_stream *s, const struct nx_linear *linear,
                       struct nx_err *err)
{
	struct late_work *k = late_begin(dev);
	QUEUE(linear, keep_linear(k, linear));
}

struct rope_store_args {
	const struct nx_rope_store *rope;
};

/* What the host says of the rows is true, where it says something. */
static int run_rope_store(struct late_dev *d, void *args, struct nx_err *err)
{
	const struct rope_store_args *a = args;
	int32_t n = 0;
	for (int32_t r = 0; r < a->rope->rows->n_rows; r++)
		n += a->rope->rows->kind[r] == NX_ROW_REDO;
	if (a->rope->n_redo && a->rope->n_redo != n)
		late_abort("rope_store() was told of %d REDO rows and has %d", a->rope->n_redo, n);
	return late_inner->rope_store(d->inner, NULL, a->rope, err);
}

static int late_rope_store(void *dev, struct nx_stream *s, const struct nx_rope_store *rope,
                           struct nx_err *err)
{
	struct late_work *k = late_begin(dev);
	QUEUE(rope_store, keep_rope(k, rope));
}

struct attention_args {
	const struct nx_attention *att;
};

static int run_attention(struct late_dev *d, void *args, struct nx_err *err)
{
	const struct attention_args *a = args;
	struct nx_counted before, after, queries = {0};
	late_inner->counted(d->inner, &before);
	int rc = late_inner->attention(d->inner, NULL, a->att, err);
	if (rc || !late_blind())
		return rc;
	late_inner->counted(d->inner, &after);
	nx_count_queries(&queries, a->att, sizeof(float));
	late_add_counted(&after, &before, -1);
	late_add_counted(&after, &queries, -1);
	late_add_counted(&d->hidden, &after, 1);
	return 0;
}

static int late_attention(void *dev, struct nx_stream *s, const struct nx_attention *att,
                          struct nx_err *err)
{
	struct late_work *k = late_begin(dev);
	if (late_blind())
		nx_count_unseen(&k->d->uncounted, att);
	QUEUE(attention, keep_attention(k, att));
}

struct gather_args {
	void *y;
	const void *x;
	const int32_t *index;
	int32_t n, cols;
};
RUN(gather, a->y, a->x, a->index, a->n, a->cols)

static int late_gather(void *dev, struct nx_stream *s, void *y, const void *x, const int32_t *index,
                       int32_t n, int32_t cols, struct nx_err *err)
{
	struct late_work *k = late_begin(dev);
	DEVICE(y);
	DEVICE(x);
	DEVICE(index);
	QUEUE(gather, y, x, index, n, cols);
}

struct sample_args {
	const struct nx_sample *sample;
};
RUN(sample, a->sample)

static int late_sample(void *dev, struct nx_stream *s, const struct nx_sample *sample,
                       struct nx_err *err)
{
	struct late_work *k = late_begin(dev);
	QUEUE(sample, keep_sample(k, sample));
}

struct commit_args {
	const struct nx_commit *c;
	int32_t n;
	const struct nx_verdict *v;
	const struct nx_seq_state *state;
};
RUN(commit, a->c, a->n, a->v, a->state)

static int late_commit(void *dev, struct nx_stream *s, const struct nx_commit *c, int32_t n,
                       const struct nx_verdict *v, const struct nx_seq_state *state,
                       struct nx_err *err)
{
	struct late_work *k = late_begin(dev);
	DEVICE(c);
	QUEUE(commit, c, n, keep_verdict(k, v), keep_state(k, state));
}

struct draft_rows_args {
	const struct nx_draft *draft;
	const struct nx_draft_span *spans;
	int32_t n_spans, vocab, window;
	const struct nx_seq_state *state;
	const struct nx_draft_rows *out;
};
RUN(draft_rows, a->draft, a->spans, a->n_spans, a->vocab, a->window, a->state, a->out)

static int late_draft_rows(void *dev, struct nx_stream *s, const struct nx_draft *draft,
                           const struct nx_draft_span *spans, int32_t n_spans, int32_t vocab,
                           int32_t window, const struct nx_seq_state *state,
                           const struct nx_draft_rows *out, struct nx_err *err)
{
	struct late_work *k = late_begin(dev);
	DEVICE(spans);
	QUEUE(draft_rows, keep_draft(k, draft), spans, n_spans, vocab, window, keep_state(k, state),
	      keep_draft_rows(k, out));
}

/* ---- the KV store */

struct kv_copy_args {
	const struct nx_kv *kv;
	const struct nx_kv_copy *c;
	int32_t n;
};
RUN(kv_copy, a->kv, a->c, a->n)

static int late_kv_copy(void *dev, struct nx_stream *s, const struct nx_kv *kv,
                        const struct nx_kv_copy *c, int32_t n, struct nx_err *err)
{
	struct late_work *k = late_begin(dev);
	QUEUE(kv_copy, keep_kv(k, kv), late_keep(k, c, (size_t)n * sizeof(*c)), n);
}

struct kv_swap_args {
	const struct nx_kv *kv;
	int32_t row, n;
	void *host;
	enum nx_copy_dir dir;
};
RUN(kv_swap, a->kv, a->row, a->n, a->host, a->dir)

static int late_kv_swap(void *dev, struct nx_stream *s, const struct nx_kv *kv, int32_t row,
                        int32_t n, void *host, enum nx_copy_dir dir, struct nx_err *err)
{
	struct late_work *k = late_begin(dev);
	size_t bytes = (size_t)n * nx_kv_swap_row_bytes(kv);
	if (dir == NX_H2D)
		late_reads(k, host, bytes);
	if (dir == NX_D2H)
		late_poison(k->d, host, bytes);
	QUEUE(kv_swap, keep_kv(k, kv), row, n, host, dir);
}

struct kv_compact_args {
	const struct nx_kv *kv;
	const struct nx_seq_state *state;
	const struct nx_emit *emit;
	int32_t n_emit;
	const struct nx_verdict *v;
};
RUN(kv_compact, a->kv, a->state, a->emit, a->n_emit, a->v)

static int late_kv_compact(void *dev, struct nx_stream *s, const struct nx_kv *kv,
                           const struct nx_seq_state *state, const struct nx_emit *emit,
                           int32_t n_emit, const struct nx_verdict *v, struct nx_err *err)
{
	struct late_work *k = late_begin(dev);
	DEVICE(emit);
	QUEUE(kv_compact, keep_kv(k, kv), keep_state(k, state), emit, n_emit, keep_verdict(k, v));
}

void late_set_ops(struct nx_device_ops *t)
{
	t->enqueue = late_enqueue;
	t->copy = late_copy;
	t->fill = late_fill;
	t->embed = late_embed;
	t->rmsnorm = late_rmsnorm;
	t->linear = late_linear;
	t->rope_store = late_rope_store;
	t->attention = late_attention;
	t->gather = late_gather;
	t->sample = late_sample;
	t->commit = late_commit;
	t->draft_rows = late_draft_rows;
	t->kv_copy = late_kv_copy;
	t->kv_swap = late_kv_swap;
	t->kv_compact = late_kv_compact;
}
