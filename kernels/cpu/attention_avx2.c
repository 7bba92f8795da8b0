/* SPDX-License-Identifier: Apache-2.0 */
#include "cpu/attention.inc"

extern const struct attention_kernels attention_avx2;
const struct attention_kernels attention_avx2 = ATTENTION_KERNELS;
