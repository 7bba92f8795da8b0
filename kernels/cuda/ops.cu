/* SPDX-License-Identifier: Apache-2.0
 *
 * ops.cu: embedding aside, the small operations of a layer and of the plan.
 */
#include "cuda/dev.cuh"

int cu_rmsnorm(void *dev, struct nx_stream *s, void *y, const void *x, const float *w, int32_t rows,
               int32_t cols, float eps, struct nx_err *err)
{
	return nx_fail(err, NX_ENOTSUP, "cuda: not there yet");
}

int cu_rope_store(void *dev, struct nx_stream *s, const struct nx_rope_store *a,
                  struct nx_err *err)
{
	return nx_fail(err, NX_ENOTSUP, "cuda: not there yet");
}

int cu_gather(void *dev, struct nx_stream *s, void *y, const void *x, const int32_t *index,
              int32_t n, int32_t cols, struct nx_err *err)
{
	return nx_fail(err, NX_ENOTSUP, "cuda: not there yet");
}

int cu_commit(void *dev, struct nx_stream *s, const struct nx_commit *c, int32_t n,
              const struct nx_verdict *v, const struct nx_seq_state *state, struct nx_err *err)
{
	return nx_fail(err, NX_ENOTSUP, "cuda: not there yet");
}

int cu_draft_rows(void *dev, struct nx_stream *s, const struct nx_draft *d,
                  const struct nx_draft_span *spans, int32_t n_spans, int32_t vocab, int32_t window,
                  const struct nx_seq_state *state, const struct nx_draft_rows *out,
                  struct nx_err *err)
{
	return nx_fail(err, NX_ENOTSUP, "cuda: not there yet");
}

