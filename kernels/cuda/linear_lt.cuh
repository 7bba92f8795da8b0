/* SPDX-License-Identifier: Apache-2.0
 *
 * linear_lt.cuh: cuBLASLt as linear_lt.cu and linear_choice.cuh have it: calls found in the library, and plans.
 */
#ifndef NX_CUDA_LINEAR_LT_CUH
#define NX_CUDA_LINEAR_LT_CUH

#include <dlfcn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cublasLt.h>

#include "cuda/linear.cuh"

#define WORKSPACE_BYTES ((size_t)32 << 20)
#define GATES_BYTES ((size_t)64 << 20) /* gates and ups of a slab of rows, before they are one */
#define MAX_PLANS 512

#define CALLS(X)                                                                                   \
	X(cublasLtCreate)                                                                          \
	X(cublasLtDestroy)                                                                         \
	X(cublasLtGetVersion)                                                                      \
	X(cublasLtMatmul)                                                                          \
	X(cublasLtMatmulAlgoCheck)                                                                 \
	X(cublasLtMatmulAlgoGetHeuristic)                                                          \
	X(cublasLtMatmulDescCreate)                                                                \
	X(cublasLtMatmulDescDestroy)                                                               \
	X(cublasLtMatmulDescSetAttribute)                                                          \
	X(cublasLtMatmulPreferenceCreate)                                                          \
	X(cublasLtMatmulPreferenceDestroy)                                                         \
	X(cublasLtMatmulPreferenceSetAttribute)                                                    \
	X(cublasLtMatrixLayoutCreate)                                                              \
	X(cublasLtMatrixLayoutDestroy)

/* One kind of product: everything but the addresses. */
struct plan {
	int64_t m, n, k, k_pad, y_cols; /* rows of w and of y lie k_pad and y_cols elements apart */
	cudaDataType_t out;
	bool add, usable;
	cublasLtMatmulDesc_t desc;
	cublasLtMatrixLayout_t w, x, y;
	cublasLtMatmulAlgo_t algo;
};

struct cublas_lt {
	void *so;
	cublasLtHandle_t handle;
#define X(name) decltype(&name) name##_;
	CALLS(X)
#undef X
	char version[48];
	int32_t min_rows;
	void *workspace, *gates;
	int n_plans, next_plan; /* the oldest makes room */
	struct plan plans[MAX_PLANS];
};

static void plan_free(struct cublas_lt *lt, struct plan *p)
{
	if (p->desc)
		lt->cublasLtMatmulDescDestroy_(p->desc);
	if (p->w)
		lt->cublasLtMatrixLayoutDestroy_(p->w);
	if (p->x)
		lt->cublasLtMatrixLayoutDestroy_(p->x);
	if (p->y)
		lt->cublasLtMatrixLayoutDestroy_(p->y);
	memset(p, 0, sizeof(*p));
}

static void *open_library(void)
{
	static const char *const names[] = {"libcublasLt.so.13",
	                                    "libcublasLt.so.12",
	                                    "libcublasLt.so",
	                                    "/usr/local/cuda/lib64/libcublasLt.so.13",
	                                    "/usr/local/cuda/lib64/libcublasLt.so.12",
	                                    "/usr/local/cuda/lib64/libcublasLt.so"};
	for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++) {
		void *so = dlopen(names[i], RTLD_NOW | RTLD_LOCAL);
		if (so)
			return so;
	}
	return NULL;
}

/* False: without the library. */
static bool start_library(struct cublas_lt *lt)
{
	lt->so = open_library();
	if (!lt->so)
		return false;
#define X(name)                                                                                    \
	*(void **)&lt->name##_ = dlsym(lt->so, #name);                                             \
	if (!lt->name##_)                                                                          \
		return false;
	CALLS(X)
#undef X
	if (lt->cublasLtCreate_(&lt->handle) != CUBLAS_STATUS_SUCCESS) {
		lt->handle = NULL;
		return false;
	}
	size_t v = lt->cublasLtGetVersion_();
	snprintf(lt->version, sizeof(lt->version), "cuBLASLt %zu.%zu.%zu", v / 10000, v / 100 % 100,
	         v % 100);
	return true;
}

#endif
