/* SPDX-License-Identifier: Apache-2.0
 *
 * step.cu: what a step does to sequences: commit and draft_rows.
 */
#include "cuda/error.cuh"

/* ---- commit */

#define COMMIT_THREADS 256

/*
 * A block takes COMMIT_THREADS entries at a time, one a thread. Entries take effect in order, but nearly none
 * depends on another: each looks for the last one before it that wrote the length it starts from, and where there
 * is one anywhere, one thread adds up the lengths in order.
 */
static __global__ void __launch_bounds__(COMMIT_THREADS)
	commit_entries(const struct nx_commit *c, int32_t n, const int32_t *token,
                       const int32_t *n_accepted, int32_t stride, int32_t max_seqs, int32_t *len,
                       int32_t *last_token, int32_t *errors)
{
	__shared__ struct nx_commit all[COMMIT_THREADS];
	__shared__ int64_t result[COMMIT_THREADS];
	__shared__ int32_t before[COMMIT_THREADS];
	__shared__ int32_t
		bad; /* the first entry that cannot be; it and those behind it do nothing */
	const int i = (int)threadIdx.x;
	pdl_trigger();
	pdl_wait();
	for (int32_t first = 0; first < n; first += COMMIT_THREADS) {
		const int32_t m = n - first < COMMIT_THREADS ? n - first : COMMIT_THREADS;
		struct nx_commit e = {};
		int32_t accepted = 0, code = 0, from = -1, was = 0;
		if (i == 0)
			bad = m;
		if (i < m)
			all[i] = e = c[first + i];
		__syncthreads();
		if (i < m) {
			if (e.seq < 0 || e.seq >= max_seqs || e.src_seq < 0 ||
			    e.src_seq >= max_seqs) {
				code = CU_ERROR_COMMIT_SEQ;
			} else {
				was = len[e.src_seq];
				accepted = !e.emits ? 0 : n_accepted ? n_accepted[e.seq] : -1;
				if (accepted < 0 || (e.emits && accepted >= stride))
					code = CU_ERROR_COMMIT_ACCEPTED;
			}
			for (int32_t j = 0; j < i; j++)
				if (all[j].seq == e.src_seq)
					from = j;
			before[i] = from;
			result[i] = (int64_t)e.n_rows + accepted + (from < 0 ? was : 0);
		}
		if (__syncthreads_or(from >= 0)) {
			for (int32_t j = 0; i == 0 && j < m; j++)
				if (before[j] >= 0)
					result[j] += result[before[j]];
			__syncthreads();
		}
		if (i < m) {
			if (!code && (result[i] < 0 || result[i] > INT32_MAX))
				code = CU_ERROR_COMMIT_LEN;
			if (code)
				atomicMin(&bad, i);
		}
		__syncthreads();
		if (code && i == bad)
			cu_report(errors, code, first + i, e.seq,
			          code == CU_ERROR_COMMIT_SEQ        ? e.src_seq
			          : code == CU_ERROR_COMMIT_ACCEPTED ? accepted
			                                             : (int32_t)result[i]);
		if (i < m && i < bad) { /* the last one that writes is the one that stays */
			bool keeps = true, speaks = e.emits;
			for (int32_t j = i + 1; j < bad; j++)
				if (all[j].seq == e.seq) {
					keeps = false;
					speaks = speaks && !all[j].emits;
				}
			if (keeps)
				len[e.seq] = (int32_t)result[i];
			if (speaks)
				last_token[e.seq] = token[(int64_t)e.seq * stride + accepted];
		}
		const bool stop = bad < m;
		__syncthreads(); /* also makes lengths seen by the next entries */
		if (stop)
			return;
	}
}

int cu_commit(void *dev, struct nx_stream *s, const struct nx_commit *c, int32_t n,
              const struct nx_verdict *v, const struct nx_seq_state *state, struct nx_err *err)
{
	struct cuda_dev *d = (struct cuda_dev *)dev;
	cudaStream_t st = cu_stream(d, s);
	if (n < 1)
		return 0;
	int rc = cu_launch(err, "commit", CU_PDL, commit_entries, dim3(1),
	                   dim3(n < COMMIT_THREADS ? (unsigned)(n + 31) / 32 * 32 : COMMIT_THREADS),
	                   0, st, c, n, v ? v->token : NULL, v ? v->n_accepted : NULL,
	                   v ? v->stride : 0, state->max_seqs, state->len, state->last_token,
	                   d->errors);
	return rc ? rc : cu_done(d, st, err);
}

/* ---- draft_rows: a block a span, a thread a row, which walks up to the root by itself */

#define DRAFT_THREADS 128
#define MAX_DRAFT                                                                                  \
	4096 /* rows of a sequence: what fits the shared memory that needs no asking for */

struct draft_args {
	const struct nx_draft_span *spans;
	int32_t *d_token;
	const int32_t *d_parent, *d_kind, *len;
	struct nx_draft_rows out;
	int32_t d_stride, vocab, window, max_seqs;
	int32_t *errors;
};

/* A row that nobody sees and that sees no drafted row but itself: draft.c of the CPU says why so. */
static __device__ __forceinline__ void void_row(const struct nx_draft_rows &out, int32_t row,
                                                int32_t i)
{
	out.token[row] = NX_TOKEN_LAST;
	out.kind[row] = NX_ROW_PROBE;
	out.scratch[row] = i;
	out.slot_off[row] = out.pos_off[row] = 0;
	out.n_anc[row] = 1;
	out.anc[(int64_t)row * out.anc_stride] = i;
}

static __global__ void __launch_bounds__(DRAFT_THREADS)
	draft_spans(const __grid_constant__ draft_args a)
{
	extern __shared__ int32_t own[]; /* token and parent of each drafted row */
	pdl_trigger();
	pdl_wait();
	const struct nx_draft_span span = a.spans[blockIdx.x];
	if (span.n < 1)
		return;
	if (span.seq < 0 || span.seq >= a.max_seqs || span.n > a.d_stride || span.row0 < 1 ||
	    a.out.anc_stride < 1) {
		if (threadIdx.x == 0)
			cu_report(a.errors, CU_ERROR_DRAFT_SPAN, (int32_t)blockIdx.x, span.seq,
			          span.n);
		return;
	}
	const int64_t at = (int64_t)span.seq * a.d_stride;
	int32_t *token = own, *parent = own + span.n;
	const int32_t len = a.len[span.seq];
	for (int32_t i = (int32_t)threadIdx.x; i < span.n; i += DRAFT_THREADS) {
		int32_t t = a.d_token[at + i], p = a.d_parent[at + i], k = a.d_kind[at + i];
		int32_t code = p < NX_DRAFT_ROOT || p >= i ? CU_ERROR_DRAFT_PARENT
		               : t != NX_TOKEN_NONE && (t < 0 || t >= a.vocab)
		                       ? CU_ERROR_DRAFT_TOKEN
		               : k != NX_ROW_CANDIDATE && k != NX_ROW_PROBE ? CU_ERROR_DRAFT_KIND
		                                                            : 0;
		if (code) {
			cu_report(a.errors, code, i, span.seq,
			          code == CU_ERROR_DRAFT_PARENT  ? p
			          : code == CU_ERROR_DRAFT_TOKEN ? t
			                                         : k);
			t = NX_TOKEN_NONE; /* so that later kernels meet nothing impossible */
			p = NX_DRAFT_ROOT;
		}
		token[i] = t;
		parent[i] = p;
	}
	__syncthreads();
	for (int32_t i = (int32_t)threadIdx.x; i < span.n; i += DRAFT_THREADS) {
		const int32_t row = span.row0 + i;
		int32_t depth = 0;
		bool none = false;
		for (int32_t p = i; p >= 0; p = parent[p], depth++)
			none = none || token[p] == NX_TOKEN_NONE;
		none = none || (a.window > 1 && (len + depth) / a.window > len / a.window);
		if (!none && depth > a.out.anc_stride) {
			cu_report(a.errors, CU_ERROR_DRAFT_DEPTH, i, span.seq, depth);
			none = true;
		}
		if (none) {
			a.d_token[at + i] = NX_TOKEN_NONE;
			void_row(a.out, row, i);
			continue;
		}
		int32_t *anc = a.out.anc + (int64_t)row * a.out.anc_stride;
		for (int32_t p = i, k = depth; p >= 0; p = parent[p])
			anc[--k] = p;
		a.out.token[row] = token[i];
		a.out.kind[row] = a.d_kind[at + i];
		a.out.scratch[row] = i;
		a.out.slot_off[row] = a.out.pos_off[row] = a.out.n_anc[row] = depth;
	}
}

int cu_draft_rows(void *dev, struct nx_stream *s, const struct nx_draft *d,
                  const struct nx_draft_span *spans, int32_t n_spans, int32_t vocab, int32_t window,
                  const struct nx_seq_state *state, const struct nx_draft_rows *out,
                  struct nx_err *err)
{
	struct cuda_dev *c = (struct cuda_dev *)dev;
	cudaStream_t st = cu_stream(c, s);
	if (n_spans < 1)
		return 0;
	int rc = nx_check_drafted(d, MAX_DRAFT, err);
	if (rc)
		return rc;
	const struct draft_args a = {spans,    d->token,  d->parent, d->kind, state->len,
	                             *out,     d->stride, vocab,     window,  state->max_seqs,
	                             c->errors};
	rc = cu_launch(err, "draft_rows", CU_PDL, draft_spans, dim3((unsigned)n_spans),
	               dim3(DRAFT_THREADS), 2u * sizeof(int32_t) * (size_t)d->stride, st, a);
	return rc ? rc : cu_done(c, st, err);
}
