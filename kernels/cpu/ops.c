/* SPDX-License-Identifier: Apache-2.0
 *
 * Operations that compute: arguments are checked and work is counted here, for all kernels alike.
 */
#include "cpu/attention.h"
#include "cpu/ops.h"

#include "cpu/kv.h"
#include "cpu/library.h"
#include "nexus_kernels/work.h"

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
	int rc = nx_check_lookup(table->lookup, err);
	if (rc)
		return rc;
	struct embed_job job = {rows, state, table, x};
	for_rows(d, rows->n_rows, table->k, embed_part, &job);
	nx_count_embed(&d->counted, rows->n_rows, table->k, weight_read_bytes(table, rows->n_rows),
	               sizeof(float));
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
	nx_count_rmsnorm(&d->counted, rows, cols, sizeof(float));
	return 0;
}

/* ---- linear */

int op_linear(void *dev, struct nx_stream *s, const struct nx_linear *a, struct nx_err *err)
{
	struct cpu_dev *d = dev;
	const struct nx_weight *w = a->w;
	(void)s;
	int rc = nx_check_linear(a, w->n, err);
	if (rc || a->m == 0)
		return rc;
	if (!d->k->gemm_f32) {
		bool coded = w->quant.code != NX_WEIGHT_CODE_NONE;
		float *space = coded ? cpu_scratch(d, 2 * (size_t)w->k * sizeof(*space)) : NULL;
		if (coded && !space)
			return nx_fail(err, NX_ENOMEM, "no memory for a row of %lld weights",
			               (long long)w->k);
		ref_linear(a, space);
	} else {
		rc = fast_linear(d, a, err);
	}
	if (!rc)
		nx_count_linear(&d->counted, a, w->n, w->k, weight_read_bytes(w, w->n),
		                sizeof(float));
	return rc;
}

/* ---- rope_store */

struct rope_job {
	const struct nx_rope_store *a;
	coded_encode encode;
};

static void rope_part(void *ctx, int64_t begin, int64_t end, int thread)
{
	const struct rope_job *j = ctx;
	float cos_sin[NX_MAX_ROPE_DIM];
	(void)thread;
	for (int64_t r = begin; r < end; r++)
		ref_rope_store(j->a, (int32_t)r, cos_sin, j->encode);
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
	/* The codec's attention entry writes, or attention does. */
	bool own = kv->codec == NX_KV_OWN || kv->window > 1;
	struct rope_job job = {a, d->k->attention ? d->k->attention->encode : coded_encode_ref};
	int rc = nx_check_rope_store(a, err);
	if (!rc && !own)
		rc = check_places(a, err);
	if (rc)
		return rc;
	int64_t width = (int64_t)(a->n_heads + 2 * kv->n_kv_heads) * kv->head_dim;
	for_rows(d, a->rows->n_rows, width, rope_part, &job);
	int32_t written = 0;
	for (int32_t r = 0; r < a->rows->n_rows; r++)
		written += a->rows->kind[r] != NX_ROW_REDO;
	nx_count_rope_store(&d->counted, a, written, sizeof(float));
	return 0;
}

/* ---- attention */

size_t op_attention_workspace(void *dev, enum nx_attn_kernel kernel, int32_t kv_chunk,
                              int32_t n_heads, int32_t head_dim, int64_t rows, int64_t keys)
{
	(void)dev;
	return attention_workspace_bytes(kernel, kv_chunk, n_heads, head_dim, rows, keys);
}

int op_attention(void *dev, struct nx_stream *s, const struct nx_attention *a, struct nx_err *err)
{
	struct cpu_dev *d = dev;
	(void)s;
	const struct nx_kv *kv = a->kv;
	struct nx_keys_seen seen = {0};
	int rc = nx_check_attention(a, err);
	if (!rc)
		rc = nx_check_keys(a, &seen, err);
	if (!rc)
		rc = nx_check_workspace(
			a,
			attention_workspace_bytes(a->kernel, a->kv_chunk, a->n_heads, kv->head_dim,
		                                  a->rows->n_rows, a->rows->max_keys),
			err);
	if (rc)
		return rc;
	nx_count_queries(&d->counted, a, sizeof(float));
	nx_count_keys(&d->counted, &seen, nx_kv_part_bytes(kv), (uint64_t)a->n_heads,
	              (uint64_t)kv->head_dim, a->kernel == NX_ATTN_MATERIALISED);
	bool grouped = nx_kv_is_coded(kv->codec) && kv->window > 1;
	rc = grouped ? coded_begin(d, a, err) : 0;
	if (!rc)
		rc = !d->k->attention || kv->head_dim > ATTN_MAX_DIM ? ref_attention(d, a, err)
		                                                     : fast_attention(d, a, err);
	if (!rc && grouped)
		coded_end(d, a);
	return rc;
}
