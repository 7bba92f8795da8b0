/* SPDX-License-Identifier: Apache-2.0
 *
 * Operations that move bytes: copy, fill, gather, commit and those on the KV store.
 */
#include "cpu/coded.h"
#include "cpu/ops.h"
#include "nexus_kernels/work.h"

int op_copy(void *dev, struct nx_stream *s, void *dst, const void *src, size_t bytes,
            enum nx_copy_dir dir, struct nx_err *err)
{
	(void)dev;
	(void)s;
	(void)dir;
	(void)err;
	if (bytes)
		memmove(dst, src, bytes);
	return 0;
}

int op_fill(void *dev, struct nx_stream *s, void *dst, int byte, size_t bytes, struct nx_err *err)
{
	(void)dev;
	(void)s;
	(void)err;
	if (bytes)
		memset(dst, byte, bytes);
	return 0;
}

int op_gather(void *dev, struct nx_stream *s, void *y, const void *x, const int32_t *index,
              int32_t n, int32_t cols, struct nx_err *err)
{
	struct cpu_dev *d = dev;
	size_t bytes = (size_t)cols * sizeof(float);
	(void)s;
	(void)err;
	for (int32_t i = 0; i < n; i++)
		memcpy((char *)y + (size_t)i * bytes, (const char *)x + (size_t)index[i] * bytes,
		       bytes);
	nx_count_gather(&d->counted, n, cols, sizeof(float));
	return 0;
}

int op_commit(void *dev, struct nx_stream *s, const struct nx_commit *c, int32_t n,
              const struct nx_verdict *v, const struct nx_seq_state *state, struct nx_err *err)
{
	(void)dev;
	(void)s;
	for (int32_t i = 0; i < n; i++) {
		int32_t seq = c[i].seq, accepted = 0;
		if (seq < 0 || seq >= state->max_seqs || c[i].src_seq < 0 ||
		    c[i].src_seq >= state->max_seqs)
			return nx_fail(err, NX_EBUG, "commit %d names sequence %d from %d of %d", i,
			               seq, c[i].src_seq, state->max_seqs);
		if (c[i].emits) {
			accepted = v->n_accepted[seq];
			if (accepted < 0 || accepted >= v->stride)
				return nx_fail(err, NX_EBUG,
				               "sequence %d accepted %d rows, of %d at most", seq,
				               accepted, v->stride - 1);
		}
		int64_t len = (int64_t)state->len[c[i].src_seq] + c[i].n_rows + accepted;
		if (len < 0 || len > INT32_MAX)
			return nx_fail(err, NX_EBUG, "commit %d leaves sequence %d with %lld rows",
			               i, seq, (long long)len);
		state->len[seq] = (int32_t)len;
		if (c[i].emits)
			state->last_token[seq] = v->token[(int64_t)seq * v->stride + accepted];
	}
	return 0;
}

int op_kv_copy(void *dev, struct nx_stream *s, const struct nx_kv *kv, const struct nx_kv_copy *c,
               int32_t n, struct nx_err *err)
{
	struct cpu_dev *d = dev;
	size_t bytes = nx_kv_part_bytes(kv);
	(void)s;
	(void)err;
	/* Row by row: K and V may lie apart or be interleaved, and v_offset does not say which. */
	for (int32_t i = 0; i < n; i++) {
		bool up = c[i].dst > c[i].src; /* overlapping ranges move like memmove */
		for (int32_t layer = 0; layer < kv->n_layers; layer++)
			for (int32_t j = 0; j < c[i].n_rows; j++) {
				int64_t r = up ? c[i].n_rows - 1 - j : j;
				uint8_t *base = kv->base + layer * kv->layer_bytes;
				uint8_t *dst = base + (c[i].dst + r) * kv->row_bytes;
				const uint8_t *src = base + (c[i].src + r) * kv->row_bytes;
				memmove(dst, src, bytes);
				memmove(dst + kv->v_offset, src + kv->v_offset, bytes);
			}
		d->counted.kv_bytes += 4u * bytes * (size_t)kv->n_layers * (size_t)c[i].n_rows;
	}
	return 0;
}

int op_kv_swap(void *dev, struct nx_stream *s, const struct nx_kv *kv, int32_t row, int32_t n,
               void *host, enum nx_copy_dir dir, struct nx_err *err)
{
	struct cpu_dev *d = dev;
	size_t bytes = nx_kv_part_bytes(kv);
	uint8_t *h = host;
	(void)s;
	int rc = nx_check_swap(dir, err);
	if (rc)
		return rc;
	for (int32_t layer = 0; layer < kv->n_layers; layer++)
		for (int32_t r = 0; r < n; r++)
			for (int part = 0; part < 2; part++) {
				uint8_t *p = kv->base + layer * kv->layer_bytes +
				             (int64_t)(row + r) * kv->row_bytes +
				             part * kv->v_offset;
				memcpy(dir == NX_D2H ? h : p, dir == NX_D2H ? p : h, bytes);
				h += kv->row_bytes;
			}
	d->counted.kv_bytes += 2u * bytes * (size_t)kv->n_layers * (size_t)n;
	return 0;
}

/* Bytes of K (or V) of a scratch row. */
static size_t scratch_part_bytes(const struct nx_kv *kv)
{
	if (kv->window > 1)
		return (size_t)kv->n_kv_heads * (size_t)kv->head_dim * nx_dtype_bytes(kv->plain);
	return nx_kv_part_bytes(kv);
}

/* Moves scratch row `from` to the place of a slot, in all layers. */
static int keep_row(const struct nx_kv *kv, int32_t seq, int32_t from, int64_t slot,
                    struct nx_err *err)
{
	bool windowed = kv->window > 1;
	size_t bytes = scratch_part_bytes(kv);
	if (from < 0 || from >= kv->scratch_cap)
		return nx_fail(err, NX_EBUG, "sequence %d accepted scratch row %d of %d", seq, from,
		               kv->scratch_cap);
	if (slot < 0 || (!windowed &&
	                 (slot / kv->block_size >= kv->table_stride || !kv_slot(kv, 0, seq, slot))))
		return nx_fail(err, NX_EBUG, "slot %lld of sequence %d has no block",
		               (long long)slot, seq);
	for (int32_t layer = 0; layer < kv->n_layers; layer++) {
		uint8_t *dst =
			windowed ? kv_window(kv, layer, seq, slot) : kv_slot(kv, layer, seq, slot);
		const uint8_t *src = kv_scratch(kv, layer, seq, from);
		memcpy(dst, src, bytes);
		memcpy(dst + (windowed ? kv->win_v_offset : kv->v_offset),
		       src + kv->scratch_v_offset, bytes);
	}
	return 0;
}

int op_kv_compact(void *dev, struct nx_stream *s, const struct nx_kv *kv,
                  const struct nx_seq_state *state, const struct nx_emit *emit, int32_t n_emit,
                  const struct nx_verdict *v, struct nx_err *err)
{
	struct cpu_dev *d = dev;
	size_t bytes = scratch_part_bytes(kv);
	(void)s;
	for (int32_t e = 0; e < n_emit; e++) {
		int32_t seq = emit[e].seq;
		if (emit[e].n_draft < 1)
			continue;
		for (int32_t i = 0; i < v->n_accepted[seq]; i++) {
			int64_t slot = (int64_t)state->len[seq] + emit[e].pos_off + i;
			int rc =
				keep_row(kv, seq, v->path[(int64_t)seq * v->stride + i], slot, err);
			if (rc)
				return rc;
			d->counted.kv_bytes += 4u * bytes * (size_t)kv->n_layers;
		}
		if (nx_kv_is_coded(kv->codec) && kv->window > 1) {
			int64_t from = (int64_t)state->len[seq] + emit[e].pos_off;
			coded_from_window(kv, seq, from, from + v->n_accepted[seq]);
		}
	}
	return 0;
}
