/* SPDX-License-Identifier: Apache-2.0
 *
 * model/model_internal.h: what the files that open a model share. Private.
 */
#ifndef NEXUS_MODEL_MODEL_INTERNAL_H
#define NEXUS_MODEL_MODEL_INTERNAL_H

#include "model/hf.h"
#include "model/meta.h"
#include "model/model.h"
#include "model/preset.h"

struct nx_model {
	/* Where it comes from: one of three. */
	struct nx_gguf *gguf;
	struct nx_hf *hf;
	const struct nx_preset *preset;
	uint64_t seed; /* of a preset */
	struct nx_tokenizer *tok;
	struct nx_shape shape;
	float *inv_freq;
	char arch[16];
	bool half_split;
	char *name;
	const struct nx_tensor *global[NX_W_COUNT]; /* weights that are not per layer */
	const struct nx_tensor **layers;            /* [n_layers, NX_W_COUNT] */
	int64_t n_params;
	uint64_t weight_bytes;
	enum nx_gguf_type main_type;
};

/* model_weights.c: finds and checks every weight. tied: 1, 0, or -1 for "if there is no output". Fills global,
 * layers, shape.tied and the counts. */
int nx_model_find_weights(struct nx_model *m, int tied, struct nx_err *err);
const struct nx_tensor *nx_model_find_tensor(const struct nx_model *m, const char *name);
/* The name of a weight in the model's file. */
const char *nx_model_weight_name(const struct nx_model *m, enum nx_weight_id id, int32_t layer,
                                 char *buf, size_t size);
/* The weight that is meant (a tied output matrix is the embedding); are rows [row0, row0 + n) among its own? */
int nx_model_check_rows(const struct nx_model *m, enum nx_weight_id *id, int32_t layer,
                        int64_t row0, int64_t n, struct nx_err *err);
/* Where row `row` of a weight lies in its tensor. */
int64_t nx_model_file_row(const struct nx_model *m, enum nx_weight_id id, int64_t row);
/* model_codes.c: the 32 codes of a block of Q8_0, Q4_0 or Q4_1, and what stands beside them. */
void nx_codes_of_block(enum nx_gguf_type type, const uint8_t *p, uint8_t *codes,
                       struct nx_quant_param *param);
/* In front of sentences: the file or the directory. */
const char *nx_model_where(const struct nx_model *m);

int nx_tokenizer_create_hf(struct nx_tokenizer **out, const char *dir, struct nx_err *err);
int nx_tokenizer_pad(struct nx_tokenizer *t, int32_t n_vocab, struct nx_err *err);

#endif
