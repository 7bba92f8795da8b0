/* SPDX-License-Identifier: Apache-2.0
 *
 * error.cuh: what kernels find wrong, and how the host hears of it.
 *
 * A kernel cannot return a sentence. It writes a code and three numbers to d->errors, which is pinned host memory,
 * leaves harmless values behind where later kernels would read, and goes on. The host looks at the code wherever it
 * has waited anyway (stream_sync, event_wait, and after each operation in host-memory mode), so that nothing is waited
 * for on behalf of errors alone.
 */
#ifndef NX_CUDA_ERROR_CUH
#define NX_CUDA_ERROR_CUH

#include "cuda/dev.cuh"
#include "nexus_kernels/work.h"

#define CU_ERROR_WORDS                                                                             \
	8 /* int32 in d->errors: code, three numbers, and as int64 at [6] bytes that kv_compact moved */
#define CU_ERROR_MOVED 6

/* X(name, sentence with three numbers) */
#define CU_ERRORS(X)                                                                               \
	X(COMMIT_SEQ, "commit %d names sequence %d from %d, which is none")                        \
	X(COMMIT_ACCEPTED, "commit %d: sequence %d accepted %d rows, which cannot be")             \
	X(COMMIT_LEN, "commit %d leaves sequence %d with %d rows")                                 \
	X(DRAFT_SPAN, "draft span %d: sequence %d has no room for its %d drafted rows")            \
	X(DRAFT_PARENT, NX_DRAFT_PARENT_TEXT)                                                      \
	X(DRAFT_TOKEN, "drafted row %d of sequence %d has token %d, which is none")                \
	X(DRAFT_KIND, NX_DRAFT_KIND_TEXT)                                                          \
	X(DRAFT_DEPTH, "drafted row %d of sequence %d is %d deep, the step has less room")         \
	X(STORE_SCRATCH, "row %d of sequence %d has scratch row %d, which is none")                \
	X(STORE_SLOT, "row %d of sequence %d has no block for slot %d")                            \
	X(KEEP_ACCEPTED, "emit %d: sequence %d accepted %d rows, which cannot be")                 \
	X(KEEP_SCRATCH, "emit %d: sequence %d accepted scratch row %d, which is none")             \
	X(KEEP_SLOT, "emit %d: sequence %d has no block for slot %d")

enum cu_error {
	CU_ERROR_NONE,
#define X(name, text) CU_ERROR_##name,
	CU_ERRORS(X)
#undef X
		CU_ERROR_COUNT
};

#ifdef __CUDACC__
/* The first report stays. Two at the very same time may mix their numbers; either is a bug to be found. */
static __device__ __noinline__ void cu_report(int32_t *errors, int32_t code, int32_t a, int32_t b,
                                              int32_t c)
{
	volatile int32_t *e = errors;
	if (e[0])
		return;
	e[1] = a;
	e[2] = b;
	e[3] = c;
	__threadfence_system();
	e[0] = code;
}
#endif

#endif
