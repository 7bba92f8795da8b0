/* SPDX-License-Identifier: Apache-2.0 */
/* The input is the model's weights, a safetensors file; see hf.h. */
#include "fuzz/hf.h"

FUZZ_TARGET(safetensors)
{
	fuzz_hf("model.safetensors", data, size);
	return 0;
}
