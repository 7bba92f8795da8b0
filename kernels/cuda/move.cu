/* SPDX-License-Identifier: Apache-2.0
 *
 * move.cu: rows inside the KV store and out of it.
 */
#include "cuda/dev.cuh"

int cu_kv_copy(void *dev, struct nx_stream *s, const struct nx_kv *kv, const struct nx_kv_copy *c,
               int32_t n, struct nx_err *err)
{
	return nx_fail(err, NX_ENOTSUP, "cuda: not there yet");
}

int cu_kv_swap(void *dev, struct nx_stream *s, const struct nx_kv *kv, int32_t row, int32_t n,
               void *host, enum nx_copy_dir dir, struct nx_err *err)
{
	return nx_fail(err, NX_ENOTSUP, "cuda: not there yet");
}

int cu_kv_compact(void *dev, struct nx_stream *s, const struct nx_kv *kv,
                  const struct nx_seq_state *state, const struct nx_emit *emit, int32_t n_emit,
                  const struct nx_verdict *v, struct nx_err *err)
{
	return nx_fail(err, NX_ENOTSUP, "cuda: not there yet");
}

