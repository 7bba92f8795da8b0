/* SPDX-License-Identifier: Apache-2.0 */
/* The input is a file of prompts: its reader, and the requests of a small trial over it. */
#include <stdlib.h>
#include <string.h>

#include "fuzz/fuzz.h"
#include "measure/workload.h"
#include "model/model.h"
#include "tiny_model.h"

/* A byte-level tokenizer with ChatML's tokens. */
static const struct nx_tokenizer *tokenizer(void)
{
	static struct nx_model *m;
	struct nx_shape s = nx_test_tiny_shape();
	struct nx_err err = {0};
	if (m)
		return nx_model_tokenizer(m);
	const char *path = fuzz_file("tiny.gguf", "", 0);
	if (nx_test_write_model(path, &s, NX_GGUF_Q8_0, 1, &err) || nx_model_open(&m, path, &err))
		fuzz_expect(false, err.msg);
	return nx_model_tokenizer(m);
}

static void use_requests(const struct nx_request_set *set, const struct nx_cell *cell,
                         int32_t vocab)
{
	fuzz_expect(set->n == (size_t)cell->num_requests, "all requests are there");
	for (size_t i = 0; i < set->n; i++) {
		const struct nx_request *r = &set->reqs[i];
		fuzz_expect(r->n_prompt >= cell->seq_len.min && r->n_prompt <= cell->seq_len.max,
		            "a prompt has the length that was drawn");
		for (int32_t k = 0; k < r->n_prompt; k++)
			fuzz_expect(r->prompt[k] >= 0 && r->prompt[k] < vocab,
			            "a prompt's tokens are in the vocabulary");
	}
}

FUZZ_TARGET(workload)
{
	const struct nx_tokenizer *tok = tokenizer();
	struct nx_workload_spec spec = {.prompts = fuzz_file("in.jsonl", data, size),
	                                .samples = 1,
	                                .seed = size,
	                                .ignore_eos = true,
	                                .top_p = 1};
	/* Lengths that the input chooses: its last byte, so that the rest is plain text. */
	int32_t most = 8 + (size ? data[size - 1] % 32 : 0);
	struct nx_cell cell = {
		.batch_size = 2,
		.num_requests = 4,
		.seq_len = {.kind = NX_DIST_UNIFORM, .min = 1 + most / 2, .max = most},
		.output_len = {.kind = NX_DIST_FIXED, .min = 4, .max = 4}};
	struct nx_workload *w = NULL;
	struct nx_request_set set = {0};
	struct nx_err err = {0};

	if (!fuzz_told(nx_workload_open(&w, &spec, tok, nx_tokenizer_vocab(tok), &err), &err))
		return 0;
	for (int32_t round = 0; round < 2; round++)
		if (fuzz_told(nx_workload_requests(w, &cell, round, &set, &err), &err))
			use_requests(&set, &cell, nx_tokenizer_vocab(tok));
	nx_request_set_release(&set);
	nx_workload_close(w);
	return 0;
}
