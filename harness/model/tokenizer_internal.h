/* SPDX-License-Identifier: Apache-2.0
 *
 * model/tokenizer_internal.h: what an importer describes (struct nx_tok_desc), the tokenizer that
 * is built of it, and what the files of the tokenizer share. Private.
 *
 *   tokenizer_gguf.c   GGUF metadata          -> description
 *   tokenizer_hf*.c    Hugging Face directory -> description
 *   tokenizer_build.c, tokenizer_merges.c   description -> struct nx_tokenizer
 *   tokenizer.c getters   encode.c text <-> ids   chat.c turns -> text
 *
 * Inside, tokens are bytes: GPT-2's printable alphabet is undone, U+2581 is a space, <0xNN> is its
 * byte.
 */
#ifndef NEXUS_MODEL_TOKENIZER_INTERNAL_H
#define NEXUS_MODEL_TOKENIZER_INTERNAL_H

#include "base/arena.h"
#include "model/bpe.h"
#include "model/chat.h"
#include "model/pretokenize.h"
#include "model/strmap.h"
#include "model/tokenizer.h"
#include "model/trie.h"

#define NX_TOK_VOCAB_MAX (1 << 22)
#define NX_TOK_SPECIAL_BYTES_MAX 512 /* of one special token */
#define NX_TOK_EOG_MAX 24

/* tokenizer.ggml.token_type, as in the file. */
enum nx_token_type {
	NX_TOKEN_NORMAL = 1,
	NX_TOKEN_UNKNOWN = 2,
	NX_TOKEN_CONTROL = 3,
	NX_TOKEN_USER = 4,
	NX_TOKEN_UNUSED = 5,
	NX_TOKEN_BYTE = 6
};

/* How a special token is looked for (Hugging Face's added_tokens). */
enum nx_token_flags {
	NX_TOKEN_LSTRIP = 1u << 0,      /* takes white space before it */
	NX_TOKEN_RSTRIP = 1u << 1,      /* takes white space after it */
	NX_TOKEN_SINGLE_WORD = 1u << 2, /* not inside a word */
	NX_TOKEN_NORMALIZED = 1u << 3   /* looked for in the normalised text */
};

struct nx_span {
	const char *s;
	size_t len;
};

/* When a space is put before text that has none. */
enum nx_tok_prefix {
	NX_PREFIX_NONE,
	NX_PREFIX_FIRST, /* at the start of the whole text (Metaspace, "first") */
	NX_PREFIX_ALL /* at the start of every stretch between special tokens (Metaspace, "always";
	                    ByteLevel's add_prefix_space) */
};

/* What happens to text before it is split. */
struct nx_tok_steps {
	bool nfc;
	bool mark;       /* spaces are U+2581 in the vocabulary */
	bool mark_early; /* since the normalizer, before normalized special tokens are looked for */
	bool prepend;    /* the normalizer puts a space before every stretch, also before spaces */
	enum nx_tok_prefix prefix;
	bool strip; /* decoding drops one space at the start */
};

struct nx_tok_token {
	struct nx_span text; /* as written in the file; empty for an id that the file leaves out */
	uint8_t type;        /* enum nx_token_type */
	uint8_t flags;       /* enum nx_token_flags */
};

struct nx_tok_merge {
	struct nx_span left, right; /* as written in the file */
};

/* Everything points into the importer's file, which outlives the description, or into arena. */
struct nx_tok_desc {
	const char *path;       /* begins every sentence */
	const char *tokens_key; /* "key tokenizer.ggml.tokens" */
	const char *merges_key;
	struct nx_arena arena;
	struct nx_tok_token *tokens;
	size_t n_tokens;
	const float *scores; /* [n_tokens]: merges follow from them; NULL: they are listed */
	struct nx_tok_merge *merges;
	size_t n_merges;
	bool byte_level; /* merges start from bytes, else from characters */

	bool ignore_merges, fuse_unk;
	int32_t unk; /* stands for what has no token; -1 */
	struct nx_tok_steps steps;
	struct nx_pretok *pre; /* passes to the tokenizer */
	int32_t bos, eos, eot;
	int32_t eog[NX_TOK_EOG_MAX]; /* beyond eos and eot */
	int n_eog;
	bool add_bos;
	struct nx_span chat_template; /* s is NULL: none */
};

/* Builds the tokenizer; the description's pre is taken also on failure. */
int nx_tok_build(struct nx_tokenizer **out, struct nx_tok_desc *d, struct nx_err *err);
void nx_tok_desc_release(struct nx_tok_desc *d);

/* Writes the bytes that a token's text stands for to out, at most s.len, and returns how many. */
size_t nx_tok_to_bytes(const struct nx_tok_desc *d, struct nx_span s, char *out);

/* Fills t->bpe; t's vocabulary is complete. */
int nx_tok_load_merges(struct nx_tokenizer *t, const struct nx_tok_desc *d, struct nx_err *err);

/* The byte of "<0xNN>", or -1. */
int nx_tok_byte_of(struct nx_span s);

struct nx_tokenizer {
	int32_t n_vocab;
	char *bytes;              /* all tokens' bytes, one after another, each followed by a NUL */
	size_t *offsets;          /* [n_vocab + 1] into bytes */
	uint8_t *types;           /* [n_vocab], enum nx_token_type */
	uint8_t *flags;           /* [n_vocab], enum nx_token_flags */
	struct nx_strmap normal;  /* bytes -> id, of tokens that merging can make */
	struct nx_strmap special; /* text -> id, of control, unknown and user-defined tokens */
	int32_t byte_ids[256];    /* -1 where the vocabulary lacks the byte */
	struct nx_trie raw;       /* special tokens looked for in the text as it is */
	struct nx_trie normalized; /* and in the normalised text */
	struct nx_bpe bpe;
	struct nx_pretok *pre;
	struct nx_tok_steps steps;
	bool byte_level, ignore_merges, fuse_unk;
	int32_t unk;
	int32_t bos, eos, eot;
	int32_t eog[NX_TOK_EOG_MAX + 8];
	int n_eog;
	bool add_bos;
	char *chat_template;
	struct nx_chat chat;
};

static inline bool nx_token_is_special(const struct nx_tokenizer *t, int32_t id)
{
	return t->types[id] == NX_TOKEN_CONTROL || t->types[id] == NX_TOKEN_USER ||
	       t->types[id] == NX_TOKEN_UNKNOWN;
}

#endif
