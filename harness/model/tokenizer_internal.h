/* SPDX-License-Identifier: Apache-2.0
 *
 * model/tokenizer_internal.h: what tokenizer.c (loading), encode.c and chat.c share. Private.
 */
#ifndef NEXUS_MODEL_TOKENIZER_INTERNAL_H
#define NEXUS_MODEL_TOKENIZER_INTERNAL_H

#include "model/bpe.h"
#include "model/pretokenize.h"
#include "model/strmap.h"
#include "model/tokenizer.h"

/* tokenizer.ggml.token_type, as in the file. */
enum nx_token_type {
	NX_TOKEN_NORMAL = 1,
	NX_TOKEN_UNKNOWN = 2,
	NX_TOKEN_CONTROL = 3,
	NX_TOKEN_USER = 4,
	NX_TOKEN_UNUSED = 5,
	NX_TOKEN_BYTE = 6
};

struct nx_tokenizer {
	int32_t n_vocab;
	char *bytes;              /* all tokens' bytes, one after another, each followed by a NUL */
	size_t *offsets;          /* [n_vocab + 1] into bytes */
	uint8_t *types;           /* [n_vocab], enum nx_token_type */
	struct nx_strmap normal;  /* bytes -> id, of tokens that merging can make */
	struct nx_strmap special; /* text -> id, of control, unknown and user-defined tokens */
	int32_t byte_ids[256];    /* -1 where the vocabulary lacks the byte */
	int32_t *specials;        /* ids by first byte, longest first within a byte */
	int32_t special_at
		[257]; /* specials[special_at[b] .. special_at[b + 1]) start with byte b */
	struct nx_bpe bpe;
	struct nx_pretok *pre;
	int32_t bos, eos, eot;
	int32_t eog[8];
	int n_eog;
	bool add_bos;
	char *chat_template;
};

static inline bool nx_token_is_special(const struct nx_tokenizer *t, int32_t id)
{
	return t->types[id] == NX_TOKEN_CONTROL || t->types[id] == NX_TOKEN_USER ||
	       t->types[id] == NX_TOKEN_UNKNOWN;
}

#endif
