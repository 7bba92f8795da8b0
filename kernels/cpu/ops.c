/* SPDX-License-Identifier: Apache-2.0
 *
 * Operations that compute: arguments are checked and work is counted here, for all kernels alike.
 */
#include "cpu/ops.h"

#include "cpu/kv.h"
#include "cpu/library.h"

/* Below so many elements a call to the pool costs more than it saves. */
#define SERIAL_ELEMENTS 8192

static void for_rows(struct cpu_dev *d, int64_t rows, int64_t cols, pool_fn fn, void *ctx)
{
	if (rows * cols < SERIAL_ELEMENTS)
		fn(ctx, 0, rows, 0);
	else
		pool_for(d->pool, rows, fn, ctx);
}

/* ---- embed */

struct embed_job {
	const struct nx_rows *rows;
	const struct nx_seq_state *state;
	const struct nx_weight *table;
	float *x;
};

static void embed_part(void *ctx, int64_t begin, int64_t end, int thread)
{
	const struct embed_job *j = ctx;
	(void)thread;
	ref_embed(j->rows, j->state, j->table, j->x, begin, end);
}

int op_embed(void *dev, struct nx_stream *s, const struct nx_rows *rows,
             const struct nx_seq_state *state, const struct nx_weight *table, void *x,
             struct nx_err *err)
{
	struct cpu_dev *d = dev;
	(void)s;
	if (!table->lookup)
		return nx_fail(err, NX_EINVAL, "embed needs a weight that was created with lookup");
	struct embed_job job = {rows, state, table, x};
	for_rows(d, rows->n_rows, table->k, embed_part, &job);
	uint64_t n = (uint64_t)rows->n_rows * (uint64_t)table->k;
	d->counted.weight_bytes += weight_read_bytes(table, rows->n_rows);
	d->counted.act_bytes += n * sizeof(float);
	return 0;
}

/* ---- rmsnorm */

struct norm_job {
	const struct cpu_kernels *k;
	float *y;
	const float *x, *w;
	int64_t cols;
	float eps;
};

static void norm_part(void *ctx, int64_t begin, int64_t end, int thread)
{
	const struct norm_job *j = ctx;
	(void)thread;
	j->k->rmsnorm(j->y + begin * j->cols, j->x + begin * j->cols, j->w, end - begin, j->cols,
	              j->eps);
}

int op_rmsnorm(void *dev, struct nx_stream *s, void *y, const void *x, const float *w, int32_t rows,
               int32_t cols, float eps, struct nx_err *err)
{
	struct cpu_dev *d = dev;
	struct norm_job job = {d->k, y, x, w, cols, eps};
	(void)s;
	(void)err;
	for_rows(d, rows, cols, norm_part, &job);
	d->counted.act_bytes += 2u * (uint64_t)rows * (uint64_t)cols * sizeof(float);
	d->counted.weight_bytes += (uint64_t)cols * sizeof(float);
	return 0;
}

/* ---- linear */

int op_linear(void *dev, struct nx_stream *s, const struct nx_linear *a, struct nx_err *err)
{
	struct cpu_dev *d = dev;
	const struct nx_weight *w = a->w;
	(void)s;
	if (a->m < 0 || (a->epilogue == NX_EPI_SWIGLU && w->n % 2))
		return nx_fail(err, NX_EINVAL, "linear of %d rows by %lld features is not possible",
		               a->m, (long long)w->n);
	if (a->m == 0)
		return 0;
	if (!d->k->gemm_f32) {
		bool coded = w->quant.code != NX_WEIGHT_CODE_NONE;
		float *space = coded ? cpu_scratch(d, 2 * (size_t)w->k * sizeof(*space)) : NULL;
		if (coded && !space)
			return nx_fail(err, NX_ENOMEM, "no memory for a row of %lld weights",
			               (long long)w->k);
		ref_linear(a, space);
	} else {
		int rc = fast_linear(d, a, err);
		if (rc)
			return rc;
	}
	uint64_t m = (uint64_t)a->m, n = (uint64_t)w->n, k = (uint64_t)w->k;
	uint64_t out = a->epilogue == NX_EPI_ADD ? 2 * n : a->epilogue == NX_EPI_SWIGLU ? n / 2 : n;
	d->counted.weight_bytes += weight_read_bytes(w, w->n);
	d->counted.act_bytes += m * (k + out) * sizeof(float);
	d->counted.flops += 2 * m * n * k;
	return 0;
}

/* ---- rope_store */

#define MAX_ROPE_DIM 1024

static void rope_part(void *ctx, int64_t begin, int64_t end, int thread)
{
	float cos_sin[MAX_ROPE_DIM];
	(void)thread;
	for (int64_t r = begin; r < end; r++)
		ref_rope_store(ctx, (int32_t)r, cos_sin);
}

/* The places that rows will be written to exist. */
static int check_places(const struct nx_rope_store *a, struct nx_err *err)
{
	const struct nx_rows *rows = a->rows;
	for (int32_t r = 0; r < rows->n_rows; r++) {
		int32_t seq = rows->seq[r];
		if (rows->kind[r] == NX_ROW_REDO)
			continue;
		if (nx_row_in_scratch(rows->kind[r])) {
			if (rows->scratch[r] < 0 || rows->scratch[r] >= a->kv->scratch_cap)
				return nx_fail(err, NX_EBUG, "row %d has scratch row %d of %d", r,
				               rows->scratch[r], a->kv->scratch_cap);
			continue;
		}
		int64_t slot = (int64_t)a->state->len[seq] + rows->slot_off[r];
		if (slot < 0 || slot / a->kv->block_size >= a->kv->table_stride ||
		    !kv_slot(a->kv, 0, seq, slot))
			return nx_fail(err, NX_EBUG,
			               "row %d of sequence %d has no block for slot %lld", r, seq,
			               (long long)slot);
	}
	return 0;
}

int op_rope_store(void *dev, struct nx_stream *s, const struct nx_rope_store *a, struct nx_err *err)
{
	struct cpu_dev *d = dev;
	const struct nx_kv *kv = a->kv;
	(void)s;
	if (a->rope_dim < 0 || a->rope_dim % 2 || a->rope_dim > kv->head_dim ||
	    a->rope_dim > MAX_ROPE_DIM)
		return nx_fail(err, NX_EINVAL, "rope_dim must be even and at most %d, got %d",
		               kv->head_dim, a->rope_dim);
	if (!a->q_norm != !a->k_norm || (a->q_norm && !(a->norm_eps > 0)))
		return nx_fail(
			err, NX_EINVAL,
			"norms of q and k come together, with an epsilon above 0 (got %s and %s, %g)",
			a->q_norm ? "q" : "none of q", a->k_norm ? "k" : "none of k",
			(double)a->norm_eps);
	bool own = kv->codec == NX_KV_OWN; /* the codec's attention entry writes */
	int rc = own ? 0 : check_places(a, err);
	if (rc)
		return rc;
	int64_t width = (int64_t)(a->n_heads + 2 * kv->n_kv_heads) * kv->head_dim;
	for_rows(d, a->rows->n_rows, width, rope_part, (void *)(uintptr_t)a);
	uint64_t rows = (uint64_t)a->rows->n_rows;
	d->counted.act_bytes += 2 * rows * (uint64_t)width * sizeof(float);
	if (a->bias)
		d->counted.weight_bytes += (uint64_t)width * sizeof(float);
	if (a->q_norm)
		d->counted.weight_bytes += 2 * (uint64_t)kv->head_dim * sizeof(float);
	for (int32_t r = 0; r < a->rows->n_rows && !own; r++)
		if (a->rows->kind[r] != NX_ROW_REDO)
			d->counted.kv_bytes += 2u * kv_part_bytes(kv);
	return 0;
}

/* ---- attention */

size_t op_attention_workspace(void *dev, enum nx_attn_kernel kernel, int32_t kv_chunk,
                              int32_t n_heads, int32_t head_dim, int64_t rows, int64_t keys)
{
	(void)dev;
	return attention_workspace_bytes(kernel, kv_chunk, n_heads, head_dim, rows, keys);
}

/* Keys stay within what the host promised, and the table has them. Counts them too. */
static int check_keys(struct cpu_dev *d, const struct nx_attention *a, struct nx_err *err)
{
	const struct nx_kv *kv = a->kv;
	uint64_t read = 0, pairs = 0;
	for (int32_t i = 0; i < a->rows->n_segments; i++) {
		const struct nx_segment *seg = &a->rows->segments[i];
		int64_t most = 0, scratch = 0;
		for (int32_t r = seg->row0; r < seg->row0 + seg->n_rows; r++) {
			struct row_keys keys = row_keys(a->rows, a->state, r);
			int64_t n = (int64_t)keys.n_table + keys.n_anc;
			if (n > a->rows->max_keys)
				return nx_fail(
					err, NX_EBUG,
					"row %d sees %lld keys, the host promised at most %d", r,
					(long long)n, a->rows->max_keys);
			for (int64_t b = most / kv->block_size; b * kv->block_size < keys.n_table;
			     b++)
				if (b >= kv->table_stride ||
				    !kv_slot(kv, 0, keys.seq, b * kv->block_size))
					return nx_fail(err, NX_EBUG,
					               "row %d of sequence %d has no block %lld", r,
					               keys.seq, (long long)b);
			for (int32_t j = 0; j < keys.n_anc; j++)
				if (keys.anc[j] < 0 || keys.anc[j] >= kv->scratch_cap)
					return nx_fail(err, NX_EBUG, "row %d has ancestor %d of %d",
					               r, keys.anc[j], kv->scratch_cap);
			most = keys.n_table > most ? keys.n_table : most;
			scratch += keys.n_anc > 0; /* each drafted row brings one of its own */
			pairs += (uint64_t)n;
		}
		read += (uint64_t)(most + scratch);
	}
	uint64_t rows = (uint64_t)a->rows->n_rows,
		 q_width = (uint64_t)a->n_heads * (uint64_t)kv->head_dim;
	d->counted.kv_bytes += read * 2u * kv_part_bytes(kv);
	d->counted.act_bytes += 2 * rows * q_width * sizeof(float);
	/* Scores that are materialised are written, read and written by the softmax, and read again. */
	if (a->kernel == NX_ATTN_MATERIALISED)
		d->counted.act_bytes += 4 * pairs * (uint64_t)a->n_heads * sizeof(float);
	d->counted.flops += 4 * pairs * q_width;
	return 0;
}

int op_attention(void *dev, struct nx_stream *s, const struct nx_attention *a, struct nx_err *err)
{
	struct cpu_dev *d = dev;
	(void)s;
	if (a->kv->codec == NX_KV_OWN)
		return nx_fail(
			err, NX_ENOTSUP,
			"rows of a technique's codec are read by its own attention entry alone");
	if (a->kv->n_kv_heads < 1 || a->n_heads % a->kv->n_kv_heads)
		return nx_fail(err, NX_EINVAL, "%d heads cannot share %d kv heads", a->n_heads,
		               a->kv->n_kv_heads);
	if (a->kernel == NX_ATTN_TILED && a->kv_chunk < 1)
		return nx_fail(err, NX_EINVAL, "kv_chunk must be positive, got %d", a->kv_chunk);
	int rc = check_keys(d, a, err);
	if (rc)
		return rc;
	size_t need = attention_workspace_bytes(a->kernel, a->kv_chunk, a->n_heads, a->kv->head_dim,
	                                        a->rows->n_rows, a->rows->max_keys);
	if (a->workspace_bytes < need)
		return nx_fail(err, NX_EINVAL, "attention needs a workspace of %zu bytes, got %zu",
		               need, a->workspace_bytes);
	if (!d->k->attention || a->kv->head_dim > ATTN_MAX_DIM)
		return ref_attention(d, a, err);
	return fast_attention(d, a, err);
}
