/* SPDX-License-Identifier: Apache-2.0
 *
 * model/tokenizer_hf.h: what the files that read a Hugging Face directory share. Private.
 */
#ifndef NEXUS_MODEL_TOKENIZER_HF_H
#define NEXUS_MODEL_TOKENIZER_HF_H

#include <jansson.h>

#include "model/tokenizer_internal.h"

/* U+2581, which stands for a space. */
#define NX_HF_MARK "\xe2\x96\x81"

struct nx_hf {
	const char *dir;
	struct nx_tok_desc d; /* its path is that of tokenizer.json */
	json_t *root;         /* tokenizer.json; texts of the description point into it */
	json_t *settings[4];  /* the other files, for the same reason; NULL where absent */
	struct nx_span bos; /* the special token that the post-processor puts first, or {NULL, 0} */
};

/* The type of a component ("BPE", "NFC"): "" if v has none. */
const char *nx_hf_type(const json_t *v);

/* A key that is true or false; absent and null leave *out alone. key begins the sentence's place. */
int nx_hf_bool(const char *path, const json_t *v, const char *key, bool *out, struct nx_err *err);

/* Items of a component: those of its list if its type is Sequence, else itself. */
struct nx_hf_items {
	const json_t *one, *list;
	size_t n;
};
int nx_hf_items(struct nx_hf_items *out, const struct nx_hf *h, const char *key,
                const char *list_key, struct nx_err *err);
const json_t *nx_hf_item(const struct nx_hf_items *s, size_t i);

/* The id of a token with this text, special ones first; -1 if there is none. */
int32_t nx_hf_find(const struct nx_tok_desc *d, struct nx_span text);

/* normalizer, pre_tokenizer and post_processor -> d.steps, d.pre, d.byte_level, d.add_bos, bos. */
int nx_hf_read_steps(struct nx_hf *h, struct nx_err *err);

/* The files beside tokenizer.json -> bos, eos, eog, add_bos, chat_template. */
int nx_hf_read_settings(struct nx_hf *h, struct nx_err *err);

/* Reads a JSON file that holds an object. */
int nx_hf_load(json_t **out, const char *path, size_t max_bytes, struct nx_err *err);

#endif
