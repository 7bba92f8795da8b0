/* SPDX-License-Identifier: Apache-2.0
 *
 * fuzz/model.h: what must hold of a model that was opened, whatever it was read from.
 */
#ifndef NEXUS_FUZZ_MODEL_H
#define NEXUS_FUZZ_MODEL_H

#include "model/model.h"

/* The last row of every weight can be read, and there is a name. */
void fuzz_model(const struct nx_model *m);

#endif
