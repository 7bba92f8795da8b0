/* SPDX-License-Identifier: Apache-2.0 */
/* The input is the model's tokenizer.json; see hf.h. */
#include "fuzz/hf.h"

FUZZ_TARGET(tokenizer_json)
{
	fuzz_hf("tokenizer.json", data, size);
	return 0;
}
