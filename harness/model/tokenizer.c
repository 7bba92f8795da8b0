/* SPDX-License-Identifier: Apache-2.0
 *
 * See tokenizer.h: life and getters.
 */
#include <stdlib.h>
#include <string.h>

#include "model/tokenizer_internal.h"

void nx_tokenizer_destroy(struct nx_tokenizer *t)
{
	if (!t)
		return;
	free(t->bytes);
	free(t->offsets);
	free(t->types);
	free(t->flags);
	nx_strmap_release(&t->normal);
	nx_strmap_release(&t->special);
	nx_trie_release(&t->raw);
	nx_trie_release(&t->normalized);
	nx_bpe_release(&t->bpe);
	nx_pretok_destroy(t->pre);
	nx_chat_release(&t->chat);
	free(t->chat_template);
	free(t);
}

int nx_tokenizer_pad(struct nx_tokenizer *t, int32_t n_vocab, struct nx_err *err)
{
	const size_t n = (size_t)(n_vocab < 0 ? 0 : n_vocab), from = (size_t)t->n_vocab;
	if (n < from || n > NX_TOK_VOCAB_MAX)
		return nx_fail(
			err, NX_EINVAL,
			"the tokenizer cannot have %d tokens; legal: %d, which it has, to %d",
			n_vocab, t->n_vocab, NX_TOK_VOCAB_MAX);
	uint8_t *types = realloc(t->types, n);
	if (types)
		t->types = types;
	uint8_t *flags = realloc(t->flags, n);
	if (flags)
		t->flags = flags;
	size_t *offsets = realloc(t->offsets, (n + 1) * sizeof(*offsets));
	if (offsets)
		t->offsets = offsets;
	/* An unused token is empty: the NUL of the last one serves it, so that maps keep their keys. */
	if (!types || !flags || !offsets)
		return nx_fail(err, NX_ENOMEM, "out of memory for %d tokens", n_vocab);
	memset(types + from, NX_TOKEN_UNUSED, n - from);
	memset(flags + from, 0, n - from);
	for (size_t i = from; i < n; i++)
		offsets[i + 1] = offsets[from];
	t->n_vocab = n_vocab;
	return 0;
}

const char *nx_tokenizer_piece(const struct nx_tokenizer *t, int32_t id, size_t *len_out)
{
	if (id < 0 || id >= t->n_vocab)
		return NULL;
	const size_t from = t->offsets[id], to = t->offsets[id + 1];
	if (to == from) { /* padded */
		*len_out = 0;
		return "";
	}
	*len_out = to - from - 1;
	return t->bytes + from;
}

int32_t nx_tokenizer_bos(const struct nx_tokenizer *t)
{
	return t->bos;
}

int32_t nx_tokenizer_eos(const struct nx_tokenizer *t)
{
	return t->eos;
}

int32_t nx_tokenizer_eot(const struct nx_tokenizer *t)
{
	return t->eot;
}

bool nx_tokenizer_add_bos(const struct nx_tokenizer *t)
{
	return t->add_bos;
}

bool nx_tokenizer_is_eog(const struct nx_tokenizer *t, int32_t id)
{
	for (int i = 0; i < t->n_eog; i++)
		if (t->eog[i] == id)
			return true;
	return false;
}

bool nx_tokenizer_is_control(const struct nx_tokenizer *t, int32_t id)
{
	return id >= 0 && id < t->n_vocab && t->types[id] == NX_TOKEN_CONTROL;
}

int32_t nx_tokenizer_vocab(const struct nx_tokenizer *t)
{
	return t->n_vocab;
}

const char *nx_tokenizer_pre(const struct nx_tokenizer *t)
{
	return nx_pretok_name(t->pre);
}

int32_t nx_tokenizer_find(const struct nx_tokenizer *t, const char *piece, size_t len)
{
	uint32_t id;
	if (nx_strmap_get(&t->special, piece, len, &id) ||
	    nx_strmap_get(&t->normal, piece, len, &id))
		return (int32_t)id;
	return len == 1 ? t->byte_ids[(unsigned char)piece[0]] : -1;
}

const char *nx_tokenizer_chat_template(const struct nx_tokenizer *t)
{
	return t->chat_template;
}
