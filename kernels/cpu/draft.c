/* SPDX-License-Identifier: Apache-2.0
 *
 * draft_rows: a round's drafts become rows of the step.
 */
#include "cpu/ops.h"
#include "nexus_kernels/work.h"

/* A row that nobody sees and that sees no drafted row but itself. It stands in the root's place: the table keys
 * of a deeper one would be slots that hold nothing yet. The token is one that the sequence has, so embed() is
 * happy. */
static void void_row(const struct nx_draft_rows *out, int32_t row, int32_t i)
{
	out->token[row] = NX_TOKEN_LAST;
	out->kind[row] = NX_ROW_PROBE;
	out->scratch[row] = i;
	out->slot_off[row] = out->pos_off[row] = 0;
	out->n_anc[row] = 1;
	out->anc[(int64_t)row * out->anc_stride] = i;
}

int check_draft_row(const struct nx_draft *d, int32_t seq, int32_t i, int32_t vocab,
                    struct nx_err *err)
{
	int64_t at = (int64_t)seq * d->stride + i;
	if (d->parent[at] < NX_DRAFT_ROOT || d->parent[at] >= i)
		return nx_fail(err, NX_EBUG, NX_DRAFT_PARENT_TEXT, i, seq, d->parent[at]);
	if (d->token[at] != NX_TOKEN_NONE && (d->token[at] < 0 || d->token[at] >= vocab))
		return nx_fail(err, NX_EBUG, "drafted row %d of sequence %d has token %d of %d", i,
		               seq, d->token[at], vocab);
	if (d->kind[at] != NX_ROW_CANDIDATE && d->kind[at] != NX_ROW_PROBE)
		return nx_fail(err, NX_EBUG, NX_DRAFT_KIND_TEXT, i, seq, d->kind[at]);
	return 0;
}

static int put_span(const struct nx_draft *d, const struct nx_draft_span *span, int32_t vocab,
                    int32_t window, int32_t len, const struct nx_draft_rows *out,
                    struct nx_err *err)
{
	int32_t *token = d->token + (int64_t)span->seq * d->stride;
	const int32_t *parent = d->parent + (int64_t)span->seq * d->stride;
	const int32_t *kind = d->kind + (int64_t)span->seq * d->stride;
	for (int32_t i = 0; i < span->n; i++) {
		int rc = check_draft_row(d, span->seq, i, vocab, err);
		if (rc)
			return rc;
		bool root = parent[i] == NX_DRAFT_ROOT;
		int32_t row = span->row0 + i, above = span->row0 + parent[i];
		int32_t depth = root ? 1 : out->n_anc[above] + 1;
		if (!root && token[parent[i]] == NX_TOKEN_NONE)
			token[i] = NX_TOKEN_NONE;
		if (window > 1 && (len + depth) / window > len / window)
			token[i] = NX_TOKEN_NONE;
		if (token[i] == NX_TOKEN_NONE) {
			void_row(out, row, i);
			continue;
		}
		if (depth > out->anc_stride)
			return nx_fail(
				err, NX_EBUG,
				"drafted row %d of sequence %d is %d deep, the step has room "
				"for %d",
				i, span->seq, depth, out->anc_stride);
		int32_t *anc = out->anc + (int64_t)row * out->anc_stride;
		if (!root)
			memcpy(anc, out->anc + (int64_t)above * out->anc_stride,
			       (size_t)(depth - 1) * sizeof(*anc));
		anc[depth - 1] = i;
		out->token[row] = token[i];
		out->kind[row] = kind[i];
		out->scratch[row] = i;
		out->slot_off[row] = out->pos_off[row] = out->n_anc[row] = depth;
	}
	return 0;
}

int op_draft_rows(void *dev, struct nx_stream *s, const struct nx_draft *d,
                  const struct nx_draft_span *spans, int32_t n_spans, int32_t vocab, int32_t window,
                  const struct nx_seq_state *state, const struct nx_draft_rows *out,
                  struct nx_err *err)
{
	(void)dev;
	(void)s;
	for (int32_t i = 0; i < n_spans; i++) {
		const struct nx_draft_span *span = &spans[i];
		if (span->n < 1)
			continue;
		if (span->seq < 0 || span->seq >= state->max_seqs || span->n > d->stride ||
		    span->row0 < 1 || out->anc_stride < 1)
			return nx_fail(
				err, NX_EBUG,
				"draft span %d is %d rows from row %d of sequence %d; there are "
				"%d sequences, at most %d rows each and %d ancestors",
				i, span->n, span->row0, span->seq, state->max_seqs, d->stride,
				out->anc_stride);
		int rc = put_span(d, span, vocab, window, state->len[span->seq], out, err);
		if (rc)
			return rc;
	}
	return 0;
}
