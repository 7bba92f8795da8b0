/* SPDX-License-Identifier: Apache-2.0
 *
 * test/hf_dir.h: small Hugging Face directories for tests, written piece by piece.
 */
#ifndef NEXUS_TEST_HF_DIR_H
#define NEXUS_TEST_HF_DIR_H

#include <stddef.h>

#include "nexus/err.h"

struct nx_tokenizer;

/* JSON texts; NULL stands for what makes a small byte-level tokenizer: 256 byte tokens (the id is the
 * byte), "he" 256, "hel" 257, and the added tokens "<s>" 258 and "</s>" 259 (special) and "<t>" 260
 * (not). */
struct nx_hf_parts {
	const char *added_tokens, *normalizer, *pre_tokenizer, *post_processor, *model;
	const char *tokenizer_config, *generation_config, *special_tokens_map, *config;
	const char *template; /* chat_template.jinja */
};

/* A model of characters: <unk> 0, <s> 1, </s> 2, byte tokens 3 to 258 (byte_fallback), U+2581 259, a 260,
 * b 261, U+2581 a 262, ab 263. */
extern const char nx_test_char_model[];

struct nx_hf_dir {
	char path[256];
};

void nx_test_hf_dir_init(struct nx_hf_dir *d, const struct nx_hf_parts *parts);
void nx_test_hf_dir_release(struct nx_hf_dir *d); /* removes it */

/* Writes dir/name. */
void nx_test_hf_put(const struct nx_hf_dir *d, const char *name, const char *text, size_t len);

/* The tokenizer of such a directory, which is gone afterwards: 0 or what nx_tokenizer_create_hf says. */
int nx_test_hf_open(struct nx_tokenizer **out, const struct nx_hf_parts *parts, struct nx_err *err);

#endif
