/* SPDX-License-Identifier: Apache-2.0
 *
 * fuzz/hf.h: a model as Hugging Face keeps it, of which one file is the input.
 */
#ifndef NEXUS_TEST_FUZZ_HF_H
#define NEXUS_TEST_FUZZ_HF_H

#include "fuzz/fuzz.h"

/* Puts config.json, tokenizer.json and model.safetensors of the corpus into a folder, the one called name from
 * data instead, opens the model there and uses what was opened. */
void fuzz_hf(const char *name, const uint8_t *data, size_t size);

#endif
