/* SPDX-License-Identifier: Apache-2.0 */
/* See hf.h. */
#include "fuzz/hf.h"
#include "fuzz/model.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const struct {
	const char *name, *seed;
} files[] = {
	{"config.json", "config/tiny.json"},
	{"tokenizer.json", "tokenizer_json/tiny.json"},
	{"model.safetensors", "safetensors/tiny.safetensors"},
};

static void use(const struct nx_model *m, const uint8_t *data, size_t size)
{
	const struct nx_tokenizer *t = nx_model_tokenizer(m);
	size_t n = size < 200 ? size : 200, n_ids = 0, len = 0;
	const char *text = (const char *)data + size - n;
	struct nx_err err = {0};
	int32_t *ids = NULL;
	char *back = NULL;
	if (t && fuzz_told(nx_tokenizer_encode(t, text, n, 0, &ids, &n_ids, &err), &err)) {
		for (size_t i = 0; i < n_ids; i++)
			fuzz_expect(ids[i] >= 0 && ids[i] < nx_tokenizer_vocab(t),
			            "an id is one of the vocabulary");
		if (fuzz_told(nx_tokenizer_decode(t, ids, n_ids, &back, &len, &err), &err))
			fuzz_touch(back, len);
	}
	free(ids);
	free(back);
	fuzz_model(m);
}

void fuzz_hf(const char *name, const uint8_t *data, size_t size)
{
	char path[64], dir[512];
	struct nx_model *m = NULL;
	struct nx_err err = {0};
	for (size_t i = 0; i < sizeof(files) / sizeof(files[0]); i++) {
		size_t n = size;
		const uint8_t *bytes = data;
		if (strcmp(files[i].name, name) != 0)
			bytes = fuzz_seed(files[i].seed, &n);
		snprintf(path, sizeof(path), "hf/%s", files[i].name);
		fuzz_file(path, bytes, n);
	}
	snprintf(dir, sizeof(dir), "%s/hf", fuzz_dir());
	if (fuzz_told(nx_model_open(&m, dir, &err), &err)) {
		use(m, data, size);
		nx_model_close(m);
	}
}
