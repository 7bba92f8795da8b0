/* SPDX-License-Identifier: Apache-2.0 */
/* The input is the model's config.json; see hf.h. */
#include "fuzz/hf.h"

FUZZ_TARGET(config)
{
	fuzz_hf("config.json", data, size);
	return 0;
}
