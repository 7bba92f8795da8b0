/* SPDX-License-Identifier: Apache-2.0
 *
 * attention_codes.cu: attention over KV rows of codes: choice of kernel.
 */
#include "cuda/attention_launch.cuh"

int attention_codes_open(struct cuda_dev *d, struct nx_err *err)
{
	int rc = 0;
#define X(CODEC, codec)                                                                            \
	if (!rc)                                                                                   \
		rc = attention_codes_open_##codec(d, err);
	ATTN_CODECS(X)
#undef X
	return rc;
}

/* Nothing here depends on how many rows there are. */
bool attention_codes_fits(const struct cuda_dev *d, const struct attn_args *a,
                          enum nx_kv_codec codec)
{
	return nx_kv_is_coded(codec) && !nx_kv_is_kivi(codec) && !a->invariant && a->near &&
	       d->act == NX_BF16 && (a->dim == 64 || a->dim == 128) &&
	       a->coded.group_size == a->dim && a->group <= 16 && attn_aligned(a->base) &&
	       attn_aligned(a->q) && attn_aligned(a->out) && attn_aligned(a->scratch) &&
	       attn_aligned(a->segments) && a->q_stride % 8 == 0 && a->row_bytes % 16 == 0 &&
	       a->v_offset % 16 == 0 && a->scratch_row_bytes % 16 == 0 &&
	       a->scratch_v_offset % 16 == 0 &&
	       (!a->anc_stride || a->scratch_cap <= SPREAD_SCRATCH);
}

int attention_codes(struct cuda_dev *d, cudaStream_t s, struct attn_args *a, enum nx_kv_codec codec,
                    struct nx_err *err)
{
	switch (codec) {
#define X(CODEC, name)                                                                             \
	case NX_KV_##CODEC: return attention_codes_##name(d, s, a, err);
		ATTN_CODECS(X)
#undef X
	default: return nx_fail(err, NX_ENOTSUP, "cuda: attention has no codec %d", (int)codec);
	}
}
