/* SPDX-License-Identifier: Apache-2.0
 *
 * rope.cu: rope_store: bias, norms, rotation, and K and V to the store.
 */
#include "cuda/coded.cuh"
#include "cuda/error.cuh"
#include "cuda/vec.cuh"
#include "nexus_kernels/work.h"

#define ROPE_THREADS 128

/* What the kernels need, by value. */
struct rope_args {
	const int32_t *seq, *kind, *slot_off, *pos_off, *scratch_row, *len, *table;
	const float *inv_freq, *bias, *q_norm, *k_norm;
	float norm_eps;
	int32_t n_heads, n_kv_heads, head_dim, rope_dim, codec;
	int32_t block_size, table_stride, scratch_cap;
	uint8_t *base, *scratch; /* of the layer */
	int64_t row_bytes, v_offset, scratch_row_bytes, scratch_v_offset;
	int32_t *errors;
	struct coded_args coded;
};

/* What is known of a row, asked for at once: each of these is a trip to memory, and the table's is one behind another. */
struct rope_row {
	int32_t seq, kind, slot_off, pos_off, scratch, len;
};

static __device__ __forceinline__ rope_row rope_load(const rope_args &a, int32_t row)
{
	rope_row r = {a.seq[row], a.kind[row], a.slot_off[row], a.pos_off[row],
	              a.scratch_row ? a.scratch_row[row] : -1};
	r.len = a.len[r.seq];
	return r;
}

/* Where K of the row goes, and how far V is from it; NULL: nowhere. */
static __device__ __forceinline__ uint8_t *rope_place(const rope_args &a, int32_t row,
                                                      const rope_row &r, int64_t *to_v)
{
	if (r.kind == NX_ROW_REDO || a.codec == NX_KV_OWN || a.coded.window > 1)
		return NULL;
	if (nx_row_in_scratch(r.kind)) {
		*to_v = a.scratch_v_offset;
		if (r.scratch >= 0 && r.scratch < a.scratch_cap)
			return a.scratch +
			       ((int64_t)r.seq * a.scratch_cap + r.scratch) * a.scratch_row_bytes;
		if (threadIdx.x == 0)
			cu_report(a.errors, CU_ERROR_STORE_SCRATCH, row, r.seq, r.scratch);
		return NULL;
	}
	int32_t slot = r.len + r.slot_off, block = slot / a.block_size;
	*to_v = a.v_offset;
	int32_t first = slot >= 0 && block < a.table_stride
	                        ? a.table[(int64_t)r.seq * a.table_stride + block]
	                        : -1;
	if (first >= 0)
		return a.base + ((int64_t)first + slot % a.block_size) * a.row_bytes;
	if (threadIdx.x == 0)
		cu_report(a.errors, CU_ERROR_STORE_SLOT, row, r.seq, slot);
	return NULL;
}

/* Cosines and sines of the row's angles, once a block. The angle is rounded as everywhere else, so that all backends
 * turn by the same one. */
static __device__ __forceinline__ void rope_angles(const rope_args &a, float2 *turn, float position,
                                                   float first_freq)
{
	for (int i = (int)threadIdx.x; i < a.rope_dim / 2; i += ROPE_THREADS) {
		float2 t;
		sincosf(position * (i < ROPE_THREADS ? first_freq : a.inv_freq[i]), &t.y, &t.x);
		turn[i] = t;
	}
}

template <int N>
static __device__ __forceinline__ void put_vector(int32_t codec, uint8_t *to, int64_t element,
                                                  const float (&f)[N])
{
	if (codec == NX_KV_F32) {
#pragma unroll
		for (int i = 0; i < N; i += 4)
			*(float4 *)(to + (element + i) * 4) =
				make_float4(f[i], f[i + 1], f[i + 2], f[i + 3]);
		return;
	}
	uint32_t u[N / 2];
#pragma unroll
	for (int i = 0; i < N / 2; i++) {
		__nv_bfloat162 two = __floats2bfloat162_rn(f[2 * i], f[2 * i + 1]);
		memcpy(&u[i], &two, sizeof(two));
	}
	if constexpr (N == 8)
		*(uint4 *)(to + element * 2) = make_uint4(u[0], u[1], u[2], u[3]);
	else
		*(uint2 *)(to + element * 2) = make_uint2(u[0], u[1]);
}

/* N values of a head, from element dim on, to their codes: to is K or V of the row, NULL: nowhere. All lanes of the
 * warp come here, as groups of them share a scale; a group's lanes are a power of two. */
template <int N>
static __device__ __forceinline__ void put_codes(const coded_args &c, uint8_t *to, int32_t head,
                                                 int32_t dim, const float (&f)[N])
{
	const int32_t lanes = c.group_size / N, along = c.dim / c.group_size;
	struct coded_range r = {f[0], f[0], false};
#pragma unroll
	for (int i = 0; i < N; i++)
		coded_include(r, f[i]);
	for (int o = lanes / 2; o; o /= 2) {
		r.lo = fminf(r.lo, __shfl_xor_sync(~0u, r.lo, o));
		r.hi = fmaxf(r.hi, __shfl_xor_sync(~0u, r.hi, o));
		r.nan |= (bool)__shfl_xor_sync(~0u, (int)r.nan, o);
	}
	const uint32_t group = coded_group(c.codec, r);
	const bool fp8 = c.codec == NX_KV_E4M3 || c.codec == NX_KV_E5M2;
	float scale, zero;
	coded_params(fp8, group, scale, zero);
	uint32_t w[2] = {0, 0};
#pragma unroll
	for (int i = 0; i < N; i++) {
		const uint32_t q = coded_code(c.codec, f[i], scale, zero);
		const int e = (dim + i) % 8;
		if (c.bits == 8)
			w[i / 4] |= q << 8 * (i % 4);
		else
			w[0] |= q << 4 * (e / 2 + 4 * (e % 2));
	}
	if (c.bits == 4 && N == 4) /* two lanes share a word */
		w[0] |= __shfl_xor_sync(~0u, w[0], 1);
	if (!to)
		return;
	uint32_t *codes = (uint32_t *)(to + head * c.head_bytes);
	if (c.bits == 4) {
		if (dim % 8 == 0)
			codes[dim / 8] = w[0];
	} else {
#pragma unroll
		for (int i = 0; i < N / 4; i++)
			codes[dim / 4 + i] = w[i];
	}
	if (dim % c.group_size == 0)
		((uint32_t *)(to +
		              c.n_kv_heads * c.head_bytes))[head * along + dim / c.group_size] =
			group;
}

/* A thread's part of the bias and of the norms. */
template <int N>
static __device__ __forceinline__ void rope_weights(const rope_args &a, int at, int head, int dim,
                                                    float (&bias)[N], float (&norm)[N])
{
	if (a.bias && head < a.n_heads + 2 * a.n_kv_heads)
		vec_load_f32<N>(bias, a.bias + at * N);
	if (a.q_norm && head < a.n_heads + a.n_kv_heads)
		vec_load_f32<N>(norm, (head < a.n_heads ? a.q_norm : a.k_norm) + dim);
}

/* lanes: threads that share a head, a power of two, at most 32; each has 16 bytes of it. Grid: rows, parts of a row. */
template <typename T>
static __global__ void __launch_bounds__(ROPE_THREADS)
	rope_vectors(const __grid_constant__ rope_args a, T *qkv, int32_t lanes)
{
	constexpr int N = vec_elements<T>;
	__shared__ float2 turn[NX_MAX_ROPE_DIM / 2];
	const int row = (int)blockIdx.x, tid = (int)threadIdx.x;
	const int rotated = a.n_heads + a.n_kv_heads, total = (rotated + a.n_kv_heads) * lanes;
	pdl_trigger();
	/* Weights first: they may be read while the product in front is still under way. */
	float freq = tid < a.rope_dim / 2 ? a.inv_freq[tid] : 0;
	int at = (int)blockIdx.y * ROPE_THREADS + tid;
	float bias[N] = {}, norm[N] = {};
	rope_weights<N>(a, at, at / lanes, at % lanes * N, bias, norm);
	pdl_wait();
	uint4 *x = (uint4 *)(qkv + (int64_t)row * total * N);
	uint4 v = make_uint4(0, 0, 0, 0);
	if (at < total) /* on its way while we find out where the row stands */
		v = x[at];
	const rope_row r = rope_load(a, row);
	int64_t to_v = 0;
	uint8_t *to = rope_place(a, row, r, &to_v);
	rope_angles(a, turn, (float)(r.len + r.pos_off), freq);
	__syncthreads();
	for (int first = (int)blockIdx.y * ROPE_THREADS; first < total;
	     first += (int)gridDim.y * ROPE_THREADS) {
		at = first + tid;
		const bool mine = at < total;
		const int head = at / lanes, dim = at % lanes * N;
		if (first != (int)blockIdx.y * ROPE_THREADS && mine) {
			v = x[at];
			rope_weights<N>(a, at, head, dim, bias, norm);
		}
		float f[N];
		vec_unpack<T>(f, v);
		if (a.bias) {
#pragma unroll
			for (int i = 0; i < N; i++)
				f[i] += bias[i];
		}
		if (a.q_norm) { /* all threads: the sum goes through shuffles */
			float sum = 0;
#pragma unroll
			for (int i = 0; i < N; i++)
				sum += f[i] * f[i];
			for (int o = lanes / 2; o; o /= 2)
				sum += __shfl_xor_sync(0xffffffffu, sum, o);
			if (head < rotated) {
				float inv = rsqrtf(sum / (float)a.head_dim + a.norm_eps);
#pragma unroll
				for (int i = 0; i < N; i++)
					f[i] = f[i] * inv * norm[i];
			}
		}
		if (!mine && !a.coded.codec)
			continue;
		if (head < rotated) {
#pragma unroll
			for (int i = 0; i < N; i += 2)
				if (dim + i < a.rope_dim) {
					float2 t = turn[(dim + i) / 2];
					float p = f[i], q = f[i + 1];
					f[i] = p * t.x - q * t.y;
					f[i + 1] = p * t.y + q * t.x;
				}
		}
		v = vec_pack<T>(f);
		if (mine && (head < rotated || a.bias))
			x[at] = v;
		bool value = head >= rotated, stored = mine && head >= a.n_heads && to;
		if (a.coded.codec ? a.coded.window > 1 : !stored)
			continue;
		vec_unpack<T>(
			f, v); /* what is stored is what was computed, in the type of activations */
		if (a.coded.codec) {
			put_codes<N>(a.coded,
			             !stored ? NULL
			             : value ? to + to_v
			                     : to,
			             head - (value ? rotated : a.n_heads), dim, f);
			continue;
		}
		put_vector<N>(a.codec, value ? to + to_v : to,
		              (int64_t)(head - (value ? rotated : a.n_heads)) * a.head_dim + dim,
		              f);
	}
}

template <typename T>
static __device__ __forceinline__ void put_element(int32_t codec, uint8_t *to, int64_t i, T x)
{
	if (codec == NX_KV_F32)
		((float *)to)[i] = to_f32(x);
	else
		((__nv_bfloat16 *)to)[i] = from_f32<__nv_bfloat16>(to_f32(x));
}

/* A head's values to their codes, a lane a group: where heads do not lie in powers of two of lanes. */
template <typename T>
static __device__ void put_head(const coded_args &c, uint8_t *to, int32_t head, const T *x,
                                int32_t lane)
{
	const int32_t along = c.dim / c.group_size, per = 32 / c.bits;
	const bool fp8 = c.codec == NX_KV_E4M3 || c.codec == NX_KV_E5M2;
	uint32_t *codes = (uint32_t *)(to + head * c.head_bytes);
	for (int32_t g = lane; g < along; g += 32) {
		const int32_t end = (g + 1) * c.group_size;
		struct coded_range r = {INFINITY, -INFINITY, false};
		float scale, zero;
		for (int32_t i = end - c.group_size; i < end; i++)
			coded_include(r, to_f32(x[i]));
		const uint32_t group = coded_group(c.codec, r);
		coded_params(fp8, group, scale, zero);
		((uint32_t *)(to + c.n_kv_heads * c.head_bytes))[head * along + g] = group;
		for (int32_t i = end - c.group_size; i < end; i += per) {
			uint32_t w = 0;
			for (int32_t e = 0; e < per; e++) {
				int64_t at;
				w |= coded_code(c.codec, to_f32(x[i + e]), scale, zero)
				     << nx_code_shift(e, c.bits, &at);
			}
			codes[i / per] = w;
		}
	}
}

/* Any head size and any alignment: a warp a head, a lane every 32nd pair. */
template <typename T>
static __global__ void __launch_bounds__(ROPE_THREADS)
	rope_elements(const __grid_constant__ rope_args a, T *qkv)
{
	__shared__ float2 turn[NX_MAX_ROPE_DIM / 2];
	const int row = (int)blockIdx.x, tid = (int)threadIdx.x, lane = tid % 32;
	const int rotated = a.n_heads + a.n_kv_heads, heads = rotated + a.n_kv_heads;
	pdl_trigger();
	float freq = tid < a.rope_dim / 2 ? a.inv_freq[tid] : 0;
	pdl_wait();
	const rope_row r = rope_load(a, row);
	int64_t to_v = 0;
	uint8_t *to = rope_place(a, row, r, &to_v);
	rope_angles(a, turn, (float)(r.len + r.pos_off), freq);
	__syncthreads();
	for (int head = tid / 32; head < heads; head += ROPE_THREADS / 32) {
		T *x = qkv + ((int64_t)row * heads + head) * a.head_dim;
		const float *bias = a.bias ? a.bias + (int64_t)head * a.head_dim : NULL;
		const float *norm = head < a.n_heads ? a.q_norm : head < rotated ? a.k_norm : NULL;
		float inv = 1;
		if (norm) {
			float sum = 0;
			for (int i = lane; i < a.head_dim; i += 32) {
				float f = to_f32(x[i]) + (bias ? bias[i] : 0);
				sum += f * f;
			}
			for (int o = 16; o; o /= 2)
				sum += __shfl_xor_sync(0xffffffffu, sum, o);
			inv = rsqrtf(sum / (float)a.head_dim + a.norm_eps);
		}
		__syncwarp();
		for (int i = 2 * lane; i < a.head_dim; i += 64) {
			int n = i + 1 < a.head_dim ? 2 : 1;
			float f[2] = {0, 0};
			for (int j = 0; j < n; j++) {
				f[j] = to_f32(x[i + j]) + (bias ? bias[i + j] : 0);
				if (norm)
					f[j] = f[j] * inv * norm[i + j];
			}
			if (head < rotated && i < a.rope_dim) {
				float2 t = turn[i / 2];
				float p = f[0], q = f[1];
				f[0] = p * t.x - q * t.y;
				f[1] = p * t.y + q * t.x;
			}
			for (int j = 0; j < n; j++) {
				T y = from_f32<T>(f[j]);
				x[i + j] = y;
				if (head < a.n_heads || !to || a.coded.codec)
					continue;
				bool value = head >= rotated;
				put_element(a.codec, value ? to + to_v : to,
				            (int64_t)(head - (value ? rotated : a.n_heads)) *
				                            a.head_dim +
				                    i + j,
				            y);
			}
		}
		if (head < a.n_heads || !to || !a.coded.codec)
			continue;
		__syncwarp();
		bool value = head >= rotated;
		put_head(a.coded, value ? to + to_v : to, head - (value ? rotated : a.n_heads), x,
		         lane);
	}
}

/* Threads a head of the kernel of vectors; 0: not for this call. */
static int32_t vector_lanes(const struct nx_rope_store *a, int n)
{
	const struct nx_kv *kv = a->kv;
	int32_t lanes = kv->head_dim / n;
	bool places = kv->codec >= NX_KV_OWN ||
	              (aligned16(kv->base) && aligned16(kv->scratch) &&
	               (kv->layer_bytes | kv->row_bytes | kv->v_offset | kv->scratch_layer_bytes |
	                kv->scratch_row_bytes | kv->scratch_v_offset) %
	                               16 ==
	                       0);
	return kv->head_dim % n || lanes > 32 || (lanes & (lanes - 1)) || !places ||
	                       !aligned16(a->qkv) || !aligned16(a->bias) || !aligned16(a->q_norm) ||
	                       !aligned16(a->k_norm)
	               ? 0
	               : lanes;
}

static struct rope_args args_of(const struct cuda_dev *d, const struct nx_rope_store *a)
{
	const struct nx_rows *rows = a->rows;
	const struct nx_kv *kv = a->kv;
	struct rope_args r = {};
	r.seq = rows->seq;
	r.kind = rows->kind;
	r.slot_off = rows->slot_off;
	r.pos_off = rows->pos_off;
	r.scratch_row = rows->scratch;
	r.len = a->state->len;
	r.table = kv->table;
	r.inv_freq = a->inv_freq;
	r.bias = a->bias;
	r.q_norm = a->q_norm;
	r.k_norm = a->k_norm;
	r.norm_eps = a->norm_eps;
	r.n_heads = a->n_heads;
	r.n_kv_heads = kv->n_kv_heads;
	r.head_dim = kv->head_dim;
	r.rope_dim = a->rope_dim;
	r.codec = kv->codec;
	r.block_size = kv->block_size;
	r.table_stride = kv->table_stride;
	r.scratch_cap = kv->scratch ? kv->scratch_cap : 0;
	r.base = kv->base + a->layer * kv->layer_bytes;
	r.scratch = kv->scratch + a->layer * kv->scratch_layer_bytes;
	r.row_bytes = kv->row_bytes;
	r.v_offset = kv->v_offset;
	r.scratch_row_bytes = kv->scratch_row_bytes;
	r.scratch_v_offset = kv->scratch_v_offset;
	r.errors = d->errors;
	r.coded = coded_args_of(kv, a->layer);
	return r;
}

template <typename T>
static int rope_of(const struct cuda_dev *d, cudaStream_t s, const struct nx_rope_store *a,
                   struct nx_err *err)
{
	const struct rope_args args = args_of(d, a);
	int32_t rows = a->rows->n_rows, lanes = vector_lanes(a, vec_elements<T>);
	T *qkv = (T *)a->qkv;
	if (!lanes)
		return cu_launch(err, "rope_store", CU_PDL, rope_elements<T>, dim3((unsigned)rows),
		                 dim3(ROPE_THREADS), 0, s, args, qkv);
	/* Few rows: a thread does one vector. Many: a block does a row, and its angles once. */
	int32_t parts = ((a->n_heads + 2 * a->kv->n_kv_heads) * lanes + ROPE_THREADS - 1) /
	                ROPE_THREADS,
		most = 16 * d->n_sms / rows;
	parts = parts > most ? most : parts;
	return cu_launch(err, "rope_store", CU_PDL, rope_vectors<T>,
	                 dim3((unsigned)rows, (unsigned)(parts > 0 ? parts : 1)),
	                 dim3(ROPE_THREADS), 0, s, args, qkv, lanes);
}

int cu_rope_store(void *dev, struct nx_stream *s, const struct nx_rope_store *a, struct nx_err *err)
{
	struct cuda_dev *d = (struct cuda_dev *)dev;
	cudaStream_t st = cu_stream(d, s);
	int rc = nx_check_rope_store(a, err);
	if (rc || a->rows->n_rows < 1)
		return rc;
	rc = d->act == NX_BF16 ? rope_of<__nv_bfloat16>(d, st, a, err)
	                       : rope_of<float>(d, st, a, err);
	if (rc)
		return rc;
	nx_count_rope_store(&d->counted, a, nx_rows_written(a), nx_dtype_bytes(d->act));
	return cu_done(d, st, err);
}
