/* SPDX-License-Identifier: Apache-2.0
 *
 * measure/model_path.h: which file a model's name means.
 */
#ifndef NEXUS_MEASURE_MODEL_PATH_H
#define NEXUS_MEASURE_MODEL_PATH_H

#include <stdbool.h>
#include <stddef.h>

#include "nexus/err.h"

/* A name has no slash and does not end in .gguf. */
bool nx_model_is_name(const char *text);

/* A name without slash and ending: `nano`, `smollm2`; or NAME/NAME.gguf, nano/NAME.gguf (the rest of the nano
 * family) or NAME.gguf of a models/ folder, so that a model put there needs no entry. Folders: dir/models (dir
 * may be NULL), experiments/models of the working directory, and that of the checkout or installation that the
 * program was started from (exe_dir may be NULL). The sentence does not say where the name stood. */
int nx_model_find(const char *name, const char *dir, const char *exe_dir, char *path, size_t size,
                  struct nx_err *err);

#endif
