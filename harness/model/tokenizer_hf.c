/* SPDX-License-Identifier: Apache-2.0
 *
 * Tokenizers of Hugging Face directories.
 */
#include "model/model_internal.h"

int nx_tokenizer_create_hf(struct nx_tokenizer **out, const char *dir, struct nx_err *err)
{
	(void)out;
	return nx_fail(err, NX_ENOTSUP, "%.200s: tokenizer.json is not read yet", dir);
}

int nx_tokenizer_pad(struct nx_tokenizer *t, int32_t n_vocab, struct nx_err *err)
{
	(void)t;
	return nx_fail(err, NX_ENOTSUP, "a vocabulary of %d tokens is not made yet", n_vocab);
}
