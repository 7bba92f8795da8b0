/* SPDX-License-Identifier: Apache-2.0
 *
 * cuda_work.h: what tests/cuda_work.so exports: work of known size on the GPU, in a stream of its own. Functions return 0
 * or an error of CUDA, and do not wait for the device but work_wait().
 */
#ifndef NX_CUDA_WORK_H
#define NX_CUDA_WORK_H

#include <stddef.h>

/* X(result, name, parameters) */
#define WORK_FUNCTIONS(X)                                                                          \
	X(int, work_open, (size_t bytes))                                                          \
	X(int, work_read, (size_t bytes)) /* kernel read_all, at most `bytes` of open */           \
	X(int, work_multiply_warps, (int blocks, int n))  /* blocks * 4 * n * 8192 FLOP, bf16 */   \
	X(int, work_multiply_groups, (int blocks, int n)) /* blocks * n * 16384 FLOP, bf16 */      \
	X(int, work_copy_in, (size_t bytes))              /* at most 1 MiB */                      \
	X(int, work_set, (size_t bytes))                                                           \
	X(int, work_graph_make, (size_t bytes, int nodes)) /* one at a time, of work_read */       \
	X(int, work_graph_launch, (void))                                                          \
	X(int, work_graph_free, (void))                                                            \
	X(int, work_wait, (void))                                                                  \
	X(size_t, work_free_bytes, (void)) /* of the device */

#endif
