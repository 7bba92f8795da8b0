/* SPDX-License-Identifier: Apache-2.0
 *
 * model/hf.h: a model as Hugging Face lays it out: a folder with config.json and safetensors files.
 *
 * Weights are in model.safetensors, or in the shards that model.safetensors.index.json names. All of it is untrusted:
 * a shard is a plain file name of this folder, each tensor of the index must be in its shard, and no tensor
 * in two.
 *
 * Ownership: struct nx_hf owns everything it returns, until nx_hf_close. Threads: immutable after open.
 */
#ifndef NEXUS_MODEL_HF_H
#define NEXUS_MODEL_HF_H

#include <jansson.h>
#include <stdbool.h>

#include "model/tensor.h"
#include "nexus/err.h"

struct nx_hf;

/* Is it a folder with a config.json? */
bool nx_hf_is_dir(const char *path);

int nx_hf_open(struct nx_hf **out, const char *dir, struct nx_err *err);
void nx_hf_close(struct nx_hf *h); /* NULL is fine */

const char *nx_hf_dir(const struct nx_hf *h);         /* as given, without slashes at its end */
const char *nx_hf_config_path(const struct nx_hf *h); /* dir/config.json */
const json_t *nx_hf_config(const struct nx_hf *h);    /* an object */
bool nx_hf_has_tokenizer(const struct nx_hf *h);      /* there is a tokenizer.json */

uint64_t nx_hf_bytes(const struct nx_hf *h); /* of all safetensors files */

/* NULL when there is none of that name. */
const struct nx_tensor *nx_hf_tensor(const struct nx_hf *h, const char *name);
size_t nx_hf_n_tensors(const struct nx_hf *h);
const struct nx_tensor *nx_hf_tensor_at(const struct nx_hf *h, size_t i);

/* Files that fix what the model computes: config.json, tokenizer files where they are, safetensors files; paths,
 * in a fixed order. */
size_t nx_hf_n_files(const struct nx_hf *h);
const char *nx_hf_file(const struct nx_hf *h, size_t i);

#endif
