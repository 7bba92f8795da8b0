/* SPDX-License-Identifier: Apache-2.0
 *
 * nexus_kernels/work.h: what backends refuse and what they count, said once for all of them. Host code.
 *
 * check: 0, or a code and the sentence. count: adds the bytes that have to move at least and the operations; `act` is
 * the bytes of an activation where the device keeps them.
 */
#ifndef NEXUS_KERNELS_WORK_H
#define NEXUS_KERNELS_WORK_H

#include "nexus/device.h"
#include "nexus_kernels/rows.h"

#ifdef __cplusplus
extern "C" {
#endif

/* ---- weights and products */

/* keys: the device can make a matrix from its keys alone. */
static inline int nx_check_weight(const struct nx_weight_desc *d, bool keys, struct nx_err *err)
{
	bool codes = d->quant.code != NX_WEIGHT_CODE_NONE && d->codes;
	if (d->n < 1 || d->k < 1 || (!d->rows && !codes && !(keys && d->keys)))
		return nx_fail(err, NX_EINVAL,
		               "a weight needs rows, columns and a source, got %lld x %lld",
		               (long long)d->n, (long long)d->k);
	if (d->dtype != NX_F32 && d->dtype != NX_BF16)
		return nx_fail(err, NX_ENOTSUP, "weight type %d is not known here", (int)d->dtype);
	return 0;
}

static inline int nx_check_lookup(bool lookup, struct nx_err *err)
{
	return lookup ? 0
	              : nx_fail(err, NX_EINVAL,
	                        "embed needs a weight that was created with lookup");
}

/* k: of the table, of which `read` bytes are read. */
static inline void nx_count_embed(struct nx_counted *c, int32_t rows, int64_t k, uint64_t read,
                                  size_t act)
{
	uint64_t n = (uint64_t)rows * (uint64_t)k;
	c->weight_bytes += read;
	c->act_bytes += n * act;
}

static inline void nx_count_rmsnorm(struct nx_counted *c, int32_t rows, int32_t cols, size_t act)
{
	c->act_bytes += 2u * (uint64_t)rows * (uint64_t)cols * act;
	c->weight_bytes += (uint64_t)cols * sizeof(float);
}

/* n: features of the weight. */
static inline int nx_check_linear(const struct nx_linear *a, int64_t n, struct nx_err *err)
{
	if (a->m >= 0 && (a->epilogue != NX_EPI_SWIGLU || n % 2 == 0))
		return 0;
	return nx_fail(err, NX_EINVAL, "linear of %d rows by %lld features is not possible", a->m,
	               (long long)n);
}

/* n, k: of the weight, of which `read` bytes are read. */
static inline void nx_count_linear(struct nx_counted *c, const struct nx_linear *a, int64_t n,
                                   int64_t k, uint64_t read, size_t act)
{
	uint64_t m = (uint64_t)a->m, un = (uint64_t)n, uk = (uint64_t)k;
	uint64_t out = a->epilogue == NX_EPI_ADD      ? 2 * un
	               : a->epilogue == NX_EPI_SWIGLU ? un / 2
	                                              : un;
	c->weight_bytes += read;
	c->act_bytes += m * uk * act + m * out * (a->y_f32 ? sizeof(float) : act);
	c->flops += 2 * m * un * uk;
}

static inline void nx_count_gather(struct nx_counted *c, int32_t n, int32_t cols, size_t act)
{
	c->act_bytes += 2u * (uint64_t)n * (uint64_t)cols * act;
}

/* ---- the KV store */

/* Bytes of K (or V) of a pool row. Those of a codec lie in planes of row_bytes. */
static inline size_t nx_kv_part_bytes(const struct nx_kv *kv)
{
	if (kv->codec >= NX_KV_OWN)
		return (size_t)kv->row_bytes;
	return (size_t)kv->n_kv_heads * (size_t)kv->head_dim * (kv->codec == NX_KV_BF16 ? 2 : 4);
}

#define NX_MAX_ROPE_DIM 1024

static inline int nx_check_rope_store(const struct nx_rope_store *a, struct nx_err *err)
{
	if (a->rope_dim < 0 || a->rope_dim % 2 || a->rope_dim > a->kv->head_dim ||
	    a->rope_dim > NX_MAX_ROPE_DIM)
		return nx_fail(err, NX_EINVAL, "rope_dim must be even and at most %d, got %d",
		               a->kv->head_dim < NX_MAX_ROPE_DIM ? a->kv->head_dim
		                                                 : NX_MAX_ROPE_DIM,
		               a->rope_dim);
	if (!a->q_norm != !a->k_norm || (a->q_norm && !(a->norm_eps > 0)))
		return nx_fail(
			err, NX_EINVAL,
			"norms of q and k come together, with an epsilon above 0 (got %s and %s, %g)",
			a->q_norm ? "q" : "none of q", a->k_norm ? "k" : "none of k",
			(double)a->norm_eps);
	return 0;
}

/* n_written: rows that it writes, all but the REDO ones: see nx_rows_written(). */
static inline void nx_count_rope_store(struct nx_counted *c, const struct nx_rope_store *a,
                                       int32_t n_written, size_t act)
{
	const struct nx_kv *kv = a->kv;
	uint64_t width = (uint64_t)(a->n_heads + 2 * kv->n_kv_heads) * (uint64_t)kv->head_dim;
	c->act_bytes += 2 * (uint64_t)a->rows->n_rows * width * act;
	if (a->bias)
		c->weight_bytes += width * sizeof(float);
	if (a->q_norm)
		c->weight_bytes += 2 * (uint64_t)kv->head_dim * sizeof(float);
	/* Else the codec's attention entry writes, or attention does. */
	if (kv->codec != NX_KV_OWN && kv->window <= 1)
		c->kv_bytes += (uint64_t)n_written * 2u * nx_kv_part_bytes(kv);
}

/* For a host that may not look at the rows' kinds. */
static inline int32_t nx_rows_written(const struct nx_rope_store *a)
{
	int32_t n = a->rows->n_rows - (a->n_redo > 0 ? a->n_redo : 0);
	return n > 0 ? n : 0;
}

static inline int nx_check_swap(enum nx_copy_dir dir, struct nx_err *err)
{
	return dir == NX_H2D || dir == NX_D2H
	               ? 0
	               : nx_fail(err, NX_EINVAL,
	                         "kv_swap goes to or from the host, got direction %d", (int)dir);
}

/* ---- attention */

static inline int nx_check_attention(const struct nx_attention *a, struct nx_err *err)
{
	if (a->kv->codec == NX_KV_OWN)
		return nx_fail(
			err, NX_ENOTSUP,
			"rows of a technique's codec are read by its own attention entry alone");
	if (a->kv->n_kv_heads < 1 || a->n_heads % a->kv->n_kv_heads)
		return nx_fail(err, NX_EINVAL, "%d heads cannot share %d kv heads", a->n_heads,
		               a->kv->n_kv_heads);
	if (a->kernel == NX_ATTN_TILED && a->kv_chunk < 1)
		return nx_fail(err, NX_EINVAL, "kv_chunk must be positive, got %d", a->kv_chunk);
	return 0;
}

static inline int nx_check_workspace(const struct nx_attention *a, size_t need, struct nx_err *err)
{
	return a->workspace_bytes >= need
	               ? 0
	               : nx_fail(err, NX_EINVAL,
	                         "attention needs a workspace of %zu bytes, got %zu", need,
	                         a->workspace_bytes);
}

/* What all rows of a call see: `read` keys that have to come from the store once a segment, `pairs` of row and key. */
struct nx_keys_seen {
	uint64_t read, pairs;
};

/* Keys stay within what the host promised, and the table has them. For a host that may look at arrays of the device;
 * seen may be NULL. */
static inline int nx_check_keys(const struct nx_attention *a, struct nx_keys_seen *seen,
                                struct nx_err *err)
{
	const struct nx_kv *kv = a->kv;
	const struct nx_rows *rows = a->rows;
	struct nx_keys_seen sum = {0, 0};
	for (int32_t i = 0; i < rows->n_segments; i++) {
		const struct nx_segment *seg = &rows->segments[i];
		int64_t most = 0, scratch = 0;
		for (int32_t r = seg->row0; r < seg->row0 + seg->n_rows; r++) {
			int32_t seq = rows->seq[r], kind = rows->kind[r];
			const int32_t *table = kv->table + (int64_t)seq * kv->table_stride;
			int32_t n_anc = nx_row_in_scratch(kind) ? rows->n_anc[r] : 0;
			int32_t n_table = nx_row_table_keys(kind, a->state->len[seq],
			                                    rows->slot_off[r], n_anc);
			int64_t n = (int64_t)n_table + n_anc;
			if (n > rows->max_keys)
				return nx_fail(
					err, NX_EBUG,
					"row %d sees %lld keys, the host promised at most %d", r,
					(long long)n, rows->max_keys);
			/* Rows come in the order of their slots: only what is new is looked up. */
			for (int64_t b = most / kv->block_size; b * kv->block_size < n_table; b++)
				if (b >= kv->table_stride || table[b] < 0)
					return nx_fail(err, NX_EBUG,
					               "row %d of sequence %d has no block %lld", r,
					               seq, (long long)b);
			for (int32_t j = 0; j < n_anc; j++) {
				int32_t anc = rows->anc[(int64_t)r * rows->anc_stride + j];
				if (anc < 0 || anc >= kv->scratch_cap)
					return nx_fail(err, NX_EBUG, "row %d has ancestor %d of %d",
					               r, anc, kv->scratch_cap);
			}
			most = n_table > most ? n_table : most;
			scratch += n_anc > 0; /* each drafted row brings one of its own */
			sum.pairs += (uint64_t)n;
		}
		sum.read += (uint64_t)(most + scratch);
	}
	if (seen)
		*seen = sum;
	return 0;
}

/* Queries in, outputs out. */
static inline void nx_count_queries(struct nx_counted *c, const struct nx_attention *a, size_t act)
{
	c->act_bytes += 2 * (uint64_t)a->rows->n_rows * (uint64_t)a->n_heads *
	                (uint64_t)a->kv->head_dim * act;
}

/* Where the host does not know the keys. */
static inline void nx_count_unseen(struct nx_uncounted *u, const struct nx_attention *a)
{
	uint64_t rows = (uint64_t)a->rows->n_rows, heads = (uint64_t)a->n_heads;
	u->kv_bytes += (uint64_t)a->rows->n_segments * 2u * nx_kv_part_bytes(a->kv);
	u->flops += 4 * rows * heads * (uint64_t)a->kv->head_dim;
	if (a->kernel == NX_ATTN_MATERIALISED)
		u->act_bytes += 4 * rows * heads * sizeof(float);
}

/* part_bytes: K (or V) of a row of one layer. */
static inline void nx_count_keys(struct nx_counted *c, const struct nx_keys_seen *seen,
                                 uint64_t part_bytes, uint64_t n_heads, uint64_t head_dim,
                                 bool materialised)
{
	c->kv_bytes += seen->read * 2u * part_bytes;
	c->flops += 4 * seen->pairs * n_heads * head_dim;
	/* Scores that are materialised are written, read and written by the softmax, and read again. */
	if (materialised)
		c->act_bytes += 4 * seen->pairs * n_heads * sizeof(float);
}

/* ---- drafts and verdicts */

/* Of a device that has room for so many drafted rows of a sequence. */
static inline int nx_check_drafted(const struct nx_draft *d, int32_t most, struct nx_err *err)
{
	return d->stride <= most
	               ? 0
	               : nx_fail(err, NX_ENOTSUP, "at most %d drafted rows a sequence here, not %d",
	                         most, d->stride);
}

/* A row, its sequence, and what is wrong. */
#define NX_DRAFT_PARENT_TEXT "drafted row %d of sequence %d has parent %d, which is no earlier row"
#define NX_DRAFT_KIND_TEXT "drafted row %d of sequence %d must be CANDIDATE or PROBE, is kind %d"

static inline int nx_check_sample(const struct nx_sample *a, struct nx_err *err)
{
	return a->vocab > 0 ? 0
	                    : nx_fail(err, NX_EINVAL, "a vocabulary of %d tokens cannot be sampled",
	                              a->vocab);
}

static inline void nx_count_sample(struct nx_counted *c, int64_t rows, int32_t vocab)
{
	c->act_bytes += (uint64_t)rows * (uint64_t)vocab * sizeof(float);
}

#ifdef __cplusplus
}
#endif
#endif
