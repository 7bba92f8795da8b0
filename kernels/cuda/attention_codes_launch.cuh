/* SPDX-License-Identifier: Apache-2.0
 *
 * attention_codes_launch.cuh: kernels of attention_codes.cuh for one codec; a file each, so that they compile side by
 * side.
 */
#ifndef NX_CUDA_ATTENTION_CODES_LAUNCH_CUH
#define NX_CUDA_ATTENTION_CODES_LAUNCH_CUH

#include "cuda/attention_launch.cuh"

/* Tiles of 8 q rows: CTAs of 8 groups where clusters share a tile, of 4 for runs and short heads. Of 16 q rows: 4 groups.
 * Nibbles are so few bytes that a step of 32 keys pays. */
template <int CODEC, int D> struct code_spreads {
	static const int N = CODEC == NX_KV_INT4 ? 2 : 1;
	typedef code_shape<CODEC, D, 1, D == 128 ? 8 : 4, D == 128 ? 2 : 4, N> few;
	typedef code_shape<CODEC, D, 1, 4, 4, N> few_run;
	typedef code_shape<CODEC, D, 2, 4, 2> some;
};

template <class S, class R>
static int open_codes_shape(const struct cuda_dev *d, struct nx_err *err)
{
	int rc = open_runs<R>(err);
	if (!rc)
		rc = open_spread<S, false>(d, err);
	return rc ? rc : open_spread<S, true>(d, err);
}

template <int CODEC, int D> static int open_codes_dim(const struct cuda_dev *d, struct nx_err *err)
{
	typedef code_spreads<CODEC, D> X;
	int rc = open_codes_shape<typename X::few, typename X::few_run>(d, err);
	return rc ? rc : open_codes_shape<typename X::some, typename X::some>(d, err);
}

template <int CODEC> static int open_codes(const struct cuda_dev *d, struct nx_err *err)
{
	int rc = open_codes_dim<CODEC, 64>(d, err);
	return rc ? rc : open_codes_dim<CODEC, 128>(d, err);
}

template <int CODEC, int D, bool DRAFTED>
static int spread_codes(struct cuda_dev *d, cudaStream_t s, struct attn_args *a, struct nx_err *err)
{
	typedef code_spreads<CODEC, D> X;
	/* One segment has at most the rows that the others leave. */
	int64_t q_rows = (int64_t)(a->n_rows - a->n_segments + 1) * a->group;
	if (q_rows > 8)
		return spread<typename X::some, typename X::some, DRAFTED>(d, s, a, err);
	return spread<typename X::few, typename X::few_run, DRAFTED>(d, s, a, err);
}

template <int CODEC>
static int launch_codes(struct cuda_dev *d, cudaStream_t s, struct attn_args *a, struct nx_err *err)
{
	bool drafted = a->anc_stride > 0;
	set_divisors(a);
	if (a->dim == 64)
		return drafted ? spread_codes<CODEC, 64, true>(d, s, a, err)
		               : spread_codes<CODEC, 64, false>(d, s, a, err);
	return drafted ? spread_codes<CODEC, 128, true>(d, s, a, err)
	               : spread_codes<CODEC, 128, false>(d, s, a, err);
}

#endif
