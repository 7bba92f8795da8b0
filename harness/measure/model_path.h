/* SPDX-License-Identifier: Apache-2.0
 *
 * measure/model_path.h: which file a model's name means.
 */
#ifndef NEXUS_MEASURE_MODEL_PATH_H
#define NEXUS_MEASURE_MODEL_PATH_H

#include <stdbool.h>
#include <stddef.h>

#include "nexus/err.h"

/* Names that need no path: models that come with Nexus or are fetched, then shape presets. NULL beyond the last. */
size_t nx_model_n_names(void);
const char *nx_model_name_at(size_t i);

/* Is it a file, or a directory with a config.json? */
bool nx_model_exists(const char *path);

/* A name has no slash and does not end in .gguf. */
bool nx_model_is_name(const char *text);

/* A name without slash and ending: that of a shape preset (path is then the name itself, which nx_model_open
 * takes); `nano`, `smollm2`; or NAME/NAME.gguf, nano/NAME.gguf (the rest of the nano
 * family) NAME.gguf or a Hugging Face directory NAME of a models/ folder, so that a model put there needs no entry; or a directory NAME of dir or of the working directory. Folders: dir/models (dir
 * may be NULL), experiments/models of the working directory, and that of the checkout or installation that the
 * program was started from (exe_dir may be NULL). The sentence does not say where the name stood. */
int nx_model_find(const char *name, const char *dir, const char *exe_dir, char *path, size_t size,
                  struct nx_err *err);

#endif
