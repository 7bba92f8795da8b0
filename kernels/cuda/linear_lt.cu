/* SPDX-License-Identifier: Apache-2.0
 *
 * linear_lt.cu: products with many rows, by cuBLASLt, where it is installed.
 *
 * The library is opened when a device is, and only the calls named here are taken from it. What it needs for a product (a
 * plan: descriptions and its choice of algorithm) is made once for each kind and kept; workspaces have a fixed size, so
 * that no product allocates. Products whose plan the library does not give are left to our own kernels.
 */
#include "cuda/linear.cuh"

#define DEFAULT_LIBRARY_ROWS 33 /* below, linear_thin.cu is faster */

#if __has_include(<cublasLt.h>)

#include "cuda/linear_choice.cuh"

static int32_t library_rows(void)
{
	const char *forced = getenv("NEXUS_LIBRARY_ROWS");
	return forced && *forced ? (int32_t)strtol(forced, NULL, 10) : DEFAULT_LIBRARY_ROWS;
}

static int library_open(struct cuda_dev *d, struct nx_err *err)
{
	if (d->cfg.invariant)
		return 0;
	d->lt = (struct cublas_lt *)calloc(1, sizeof(*d->lt));
	if (!d->lt)
		return nx_fail(err, NX_ENOMEM, "no memory for the library's plans");
	d->lt->min_rows = library_rows();
	if (!start_library(d->lt)) {
		linear_close(d);
		return 0;
	}
	CU(cudaMalloc(&d->lt->workspace, WORKSPACE_BYTES));
	CU(cudaMalloc(&d->lt->gates, GATES_BYTES));
	return 0;
}

void linear_close(struct cuda_dev *d)
{
	struct cublas_lt *lt = d->lt;
	if (!lt)
		return;
	for (int i = 0; i < lt->n_plans; i++)
		plan_free(lt, &lt->plans[i]);
	if (lt->handle)
		lt->cublasLtDestroy_(lt->handle);
	if (lt->workspace)
		cudaFree(lt->workspace);
	if (lt->gates)
		cudaFree(lt->gates);
	if (lt->so)
		dlclose(lt->so);
	free(lt);
	d->lt = NULL;
}

const char *linear_library(const struct cuda_dev *d)
{
	return d->lt ? d->lt->version : "";
}

/* The library counts in columns: y^T [n, m] = W [k, n]^T x^T [k, m], all with a column a row of ours. */
static bool describe(struct cublas_lt *lt, struct plan *p, cudaDataType_t in)
{
	cublasOperation_t t = CUBLAS_OP_T;
	return !lt->cublasLtMatmulDescCreate_(&p->desc, CUBLAS_COMPUTE_32F, CUDA_R_32F) &&
	       !lt->cublasLtMatmulDescSetAttribute_(p->desc, CUBLASLT_MATMUL_DESC_TRANSA, &t,
	                                            sizeof(t)) &&
	       !lt->cublasLtMatrixLayoutCreate_(&p->w, in, (uint64_t)p->k, (uint64_t)p->n,
	                                        p->k_pad) &&
	       !lt->cublasLtMatrixLayoutCreate_(&p->x, in, (uint64_t)p->k, (uint64_t)p->m, p->k) &&
	       !lt->cublasLtMatrixLayoutCreate_(&p->y, p->out, (uint64_t)p->n, (uint64_t)p->m,
	                                        p->y_cols);
}

/* want: sizes and types. */
static const struct plan *plan_of(struct cuda_dev *d, const struct plan *want, cudaDataType_t in,
                                  const struct operands *o)
{
	struct cublas_lt *lt = d->lt;
	for (int i = 0; i < lt->n_plans; i++) {
		const struct plan *p = &lt->plans[i];
		if (p->m == want->m && p->n == want->n && p->k == want->k &&
		    p->k_pad == want->k_pad && p->y_cols == want->y_cols && p->out == want->out &&
		    p->add == want->add)
			return p;
	}
	struct plan *p = &lt->plans[lt->next_plan];
	lt->next_plan = (lt->next_plan + 1) % MAX_PLANS;
	if (lt->n_plans < MAX_PLANS)
		lt->n_plans++;
	plan_free(lt, p);
	*p = *want;
	p->usable = describe(lt, p, in) && choose(d, p, in, o);
	return p;
}

/* m rows times a whole weight. */
static struct plan whole(const struct nx_weight *w, int64_t m, cudaDataType_t out, bool add)
{
	struct plan p = {};
	p.m = m;
	p.n = p.y_cols = w->n;
	p.k = w->k;
	p.k_pad = w->k_pad;
	p.out = out;
	p.add = add;
	return p;
}

static bool matmul(const struct cublas_lt *lt, const struct plan *p, const struct operands *o)
{
	const float one = 1, beta = p->add ? 1 : 0;
	return lt->cublasLtMatmul_(lt->handle, p->desc, &one, o->w, p->w, o->x, p->x, &beta, o->y,
	                           p->y, o->y, p->y, &p->algo, lt->workspace, WORKSPACE_BYTES,
	                           o->s) == CUBLAS_STATUS_SUCCESS;
}

#define SWIGLU_THREADS 256

template <typename A, typename Y>
static __global__ void __launch_bounds__(SWIGLU_THREADS)
	swiglu_kernel(Y *y, const A *gates, int64_t n)
{
	int64_t first = (int64_t)blockIdx.x * SWIGLU_THREADS + threadIdx.x;
	int64_t step = (int64_t)gridDim.x * SWIGLU_THREADS;
	pdl_trigger();
	pdl_wait();
	if (sizeof(A) == 2 && sizeof(Y) == 2 && n % 4 == 0 && (uintptr_t)y % 8 == 0) {
		for (int64_t i = first; i < n / 4; i += step) {
			union {
				uint4 all;
				A one[8];
			} in;
			union {
				uint2 all;
				Y one[4];
			} out;
			in.all = __ldcg((const uint4 *)gates + i);
#pragma unroll
			for (int j = 0; j < 4; j++)
				out.one[j] = from_f32<Y>(silu(to_f32(in.one[2 * j])) *
				                         to_f32(in.one[2 * j + 1]));
			((uint2 *)y)[i] = out.all;
		}
		return;
	}
	for (int64_t i = first; i < n; i += step)
		y[i] = from_f32<Y>(silu(to_f32(gates[2 * i])) * to_f32(gates[2 * i + 1]));
}

template <typename A, typename Y>
static int swiglu(const struct cuda_dev *d, cudaStream_t s, void *y, const void *gates, int64_t n,
                  struct nx_err *err)
{
	int64_t blocks = (n + SWIGLU_THREADS - 1) / SWIGLU_THREADS, most = 8 * (int64_t)d->n_sms;
	return cu_launch(err, "swiglu_kernel", CU_PDL, swiglu_kernel<A, Y>,
	                 dim3((unsigned)(blocks < most ? blocks : most)), dim3(SWIGLU_THREADS), 0,
	                 s, (Y *)y, (const A *)gates, n);
}

/* Slabs of equal size, so that there are at most two plans. */
static bool library_swiglu(struct cuda_dev *d, cudaStream_t s, const struct nx_linear *a, int *rc,
                           struct nx_err *err)
{
	struct cublas_lt *lt = d->lt;
	const struct nx_weight *w = a->w;
	size_t act = nx_dtype_bytes(d->act);
	cudaDataType_t type = d->act == NX_F32 ? CUDA_R_32F : CUDA_R_16BF;
	int64_t most = (int64_t)(GATES_BYTES / ((size_t)w->n * act));
	if (most < 1)
		return false;
	int64_t slabs = (a->m + most - 1) / most, size = (a->m + slabs - 1) / slabs;
	for (int64_t r = 0; r < a->m && !*rc; r += size) {
		int64_t m = a->m - r < size ? a->m - r : size;
		const uint8_t *x = (const uint8_t *)a->x + (size_t)(r * w->k) * act;
		const struct operands o = {s, w->data, x, lt->gates};
		const struct plan want = whole(w, m, type, false);
		const struct plan *p = plan_of(d, &want, type, &o);
		uint8_t *y = (uint8_t *)a->y +
		             (size_t)(r * (w->n / 2)) * (a->y_f32 ? sizeof(float) : act);
		if (!p->usable || !matmul(lt, p, &o)) {
			if (r == 0)
				return false;
			*rc = nx_fail(err, NX_EENV, "cuda: %s refused a slab of a product",
			              lt->version);
			break;
		}
		int64_t n = m * (w->n / 2);
		*rc = d->act == NX_F32 ? swiglu<float, float>(d, s, y, lt->gates, n, err)
		      : a->y_f32       ? swiglu<__nv_bfloat16, float>(d, s, y, lt->gates, n, err)
		                 : swiglu<__nv_bfloat16, __nv_bfloat16>(d, s, y, lt->gates, n, err);
	}
	return true;
}

bool library_linear(struct cuda_dev *d, cudaStream_t s, const struct nx_linear *a, int *rc,
                    struct nx_err *err)
{
	struct cublas_lt *lt = d->lt;
	if (!lt || !lt->handle || a->m < lt->min_rows || a->w->dtype != d->act)
		return false;
	if (a->epilogue == NX_EPI_SWIGLU)
		return library_swiglu(d, s, a, rc, err);
	cudaDataType_t in = d->act == NX_F32 ? CUDA_R_32F : CUDA_R_16BF;
	const struct operands o = {s, a->w->data, a->x, a->y};
	const struct plan want =
		whole(a->w, a->m, a->y_f32 ? CUDA_R_32F : in, a->epilogue == NX_EPI_ADD);
	const struct plan *p = plan_of(d, &want, in, &o);
	return p->usable && matmul(lt, p, &o);
}

bool library_part(struct cuda_dev *d, cudaStream_t s, const struct library_part *part)
{
	const struct operands o = {s, part->w, part->x, part->y};
	struct plan want = {};
	want.m = part->m;
	want.n = part->n;
	want.k = part->k;
	want.k_pad = part->k_pad;
	want.y_cols = part->y_cols;
	want.out = part->f32 ? CUDA_R_32F : CUDA_R_16BF;
	want.add = part->add;
	const struct plan *p = plan_of(d, &want, CUDA_R_16BF, &o);
	return p->usable && matmul(d->lt, p, &o);
}

int32_t library_min_rows(const struct cuda_dev *d)
{
	return d->lt && d->lt->handle ? d->lt->min_rows : INT32_MAX;
}

#else

static int library_open(struct cuda_dev *d, struct nx_err *err)
{
	return 0;
}

void linear_close(struct cuda_dev *d)
{
}

const char *linear_library(const struct cuda_dev *d)
{
	return "";
}

bool library_linear(struct cuda_dev *d, cudaStream_t s, const struct nx_linear *a, int *rc,
                    struct nx_err *err)
{
	return false;
}

bool library_part(struct cuda_dev *d, cudaStream_t s, const struct library_part *part)
{
	return false;
}

int32_t library_min_rows(const struct cuda_dev *d)
{
	return INT32_MAX;
}

#endif

int linear_open(struct cuda_dev *d, struct nx_err *err)
{
	int rc = thin_open(d, err);
	return rc ? rc : library_open(d, err);
}
